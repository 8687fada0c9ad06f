# SPDX-License-Identifier: LGPL-2.1-or-later
"""Targets that cannot be audited, or only in part: one line and status 2, or the truth as far as it goes.

Owns: opening, and damage done to copies of the bundled vmcores (cut off, overwritten, left out).
Does not: judge rules (test_rules.py) or options (test_cli.py).
Invariant: an answer is never a traceback, and a damaged dump is never clean unless nothing is missing.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

import pytest
from conftest import ROOT, VMCORES, Answer, Vmcore, Zonedev, assert_one_line, open_vmcore
from drgn import Object, Program, RelocatableModule, sizeof
from dump_files import flatten
from kallsyms_samples import BASE, FORMATS, SYMBOLS, sample

from zonedev import _zonedev, target
from zonedev.kernel import btf as kernel_btf
from zonedev.kernel.btf import NAME
from zonedev.page import folio_report

NEWEST = "7.2-nvdimm"
KERNELS = ("5.10-nvdimm", "6.1-nvdimm", "6.12-nvdimm", NEWEST)
PAGE = 4096
NOBODY = 65534

# arch/x86/include/asm: __START_KERNEL_map, and the address bits of a page table entry.
_KERNEL_MAP = 0xFFFFFFFF_80000000
_PFN_MASK = 0x000FFFFF_FFFFF000

# What no damaged dump may need: seconds for one audit of it.
TIME_LIMIT = 20


def run_process(*words: Any, timeout: int = TIME_LIMIT) -> Answer:
    """The same in a process of its own, for what may hang or die by a signal."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "DEBUGINFOD_URLS": ""}
    done = subprocess.run(
        [sys.executable, "-m", "zonedev", *map(str, words)],
        capture_output=True,
        text=True,
        env=env,
        timeout=timeout,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


# ---------------------------------------------------------------- cores that can be damaged


class Segment(NamedTuple):
    offset: int
    physical: int
    size: int


class Image:
    """A copy of a bundled vmcore, to be patched and cut off."""

    def __init__(self, vmcore: Vmcore, directory: Path) -> None:
        self.vmcore = vmcore
        self.data = Path(vmcore.core).read_bytes()
        self.path = directory / f"{vmcore.name}.core"
        self.path.write_bytes(self.data)
        self.cut_path = directory / f"{vmcore.name}.cut"
        phoff, count = (
            struct.unpack_from("<Q", self.data, 32)[0],
            struct.unpack_from("<H", self.data, 56)[0],
        )
        headers = [struct.unpack_from("<IIQQQQQQ", self.data, phoff + 56 * i) for i in range(count)]
        self.notes = next((h[2], h[5]) for h in headers if h[0] == 4)
        self.segments = [Segment(h[2], h[4], h[5]) for h in headers if h[0] == 1 and h[5]]

    @property
    def args(self) -> tuple[str, ...]:
        return "-c", str(self.path), "-s", self.vmcore.vmlinux

    def _word(self, physical: int) -> int:
        return int(struct.unpack_from("<Q", self.data, self._place(physical))[0])

    def physical(self, address: int) -> int:
        """Physical address of a kernel address, by the page tables of x86-64 (4 levels)."""
        table = self.info(r"SYMBOL\(swapper_pg_dir\)", 16) - _KERNEL_MAP
        table += self.info(r"NUMBER\(phys_base\)")
        for shift in (39, 30, 21, 12):
            entry = self._word((table & _PFN_MASK) + 8 * (address >> shift & 511))
            assert entry & 1, f"{address:#x} is not mapped"
            if shift == 12 or entry & 0x80:
                size = 1 << shift
                return (entry & _PFN_MASK) // size * size + address % size
            table = entry
        raise AssertionError

    def info(self, name: str, base: int = 10) -> int:
        """A number out of VMCOREINFO."""
        text = self.vmcore.prog["VMCOREINFO"].string_().decode()
        found = re.search(rf"^{name}=(-?[0-9a-f]+)$", text, re.MULTILINE)
        assert found, name
        return int(found[1], base)

    def offset(self, address: int) -> int:
        """Place in the file of a kernel address."""
        return self._place(self.physical(address))

    def _place(self, physical: int) -> int:
        for s in self.segments:
            if s.physical <= physical < s.physical + s.size:
                return s.offset + physical - s.physical
        raise AssertionError(f"physical {physical:#x} is not in the core")

    def frame(self, address: int) -> int:
        return self.offset(address) // PAGE * PAGE

    def cut(self, size: int) -> Path:
        """A file with the first bytes only."""
        self.cut_path.write_bytes(self.data[:size])
        return self.cut_path

    @contextlib.contextmanager
    def patched(self, *patches: tuple[int, bytes]) -> Iterator[None]:
        with open(self.path, "r+b") as file:
            try:
                for offset, data in patches:
                    file.seek(offset)
                    file.write(data)
                file.flush()
                yield
            finally:
                for offset, data in patches:
                    file.seek(offset)
                    file.write(self.data[offset : offset + len(data)])


@pytest.fixture(scope="module")
def make_image() -> Iterator[Callable[[str], Image]]:
    with tempfile.TemporaryDirectory() as directory:
        images: dict[str, Image] = {}

        def make(name: str) -> Image:
            if name not in images:
                images[name] = Image(open_vmcore(name), Path(directory))
            return images[name]

        yield make


@pytest.fixture
def image(make_image: Callable[[str], Image]) -> Image:
    return make_image(NEWEST)


@pytest.fixture
def no_debug_info(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEBUGINFOD_URLS", "")
    monkeypatch.setenv("HOME", str(tmp_path))


def vmlinux(name: str) -> str:
    return str(VMCORES / name / "vmlinux")


def note(name: bytes, kind: int, data: bytes) -> bytes:
    def padded(b: bytes) -> bytes:
        return b + bytes(-len(b) % 4)

    return struct.pack("<III", len(name) + 1, len(data), kind) + padded(name + b"\0") + padded(data)


def elf_core(notes: bytes, machine: int = 62) -> bytes:
    """An ELF core of nothing but notes."""
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 4, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return ident + header + struct.pack("<IIQQQQQQ", 4, 0, 120, 0, 0, len(notes), 0, 0) + notes


# ---------------------------------------------------------------- files that are none


@pytest.mark.parametrize(
    "verb", [("audit",), ("list",), ("page", "0x100000"), ("slice", "-o", "x")]
)
def test_missing_core(zonedev: Zonedev, verb: tuple[str, ...]) -> None:
    assert_one_line(zonedev(*verb, "-c", "no-such.core"), "no-such.core", "no such file")


def test_directory_as_core(zonedev: Zonedev, tmp_path: Path) -> None:
    assert_one_line(zonedev("audit", tmp_path), str(tmp_path), "is a directory")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b"this is no core\n" * 100, "not a core"),
        (b"\x7fELF", "not a core"),
        (b"\xfd7zXZ\0" + bytes(1000), "not a core"),
        (bytes(PAGE), "not a core"),
    ],
)
def test_file_that_is_no_core(zonedev: Zonedev, tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert_one_line(zonedev("audit", path, "-s", vmlinux(NEWEST)), str(path), why)


def test_vmlinux_as_core(zonedev: Zonedev) -> None:
    path = vmlinux(NEWEST)
    assert_one_line(zonedev("audit", path, "-s", path), path, "not a core", "-s")


@pytest.mark.parametrize("option", ["-c", "-s"])
def test_pipe_is_refused(tmp_path: Path, newest: Vmcore, option: str) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    words = ["-c", pipe] if option == "-c" else ["-c", newest.core, "-s", pipe]
    assert_one_line(run_process("audit", *words, timeout=60), str(pipe))


@pytest.mark.parametrize(
    ("notes", "why"),
    [
        (b"", "VMCOREINFO"),
        (note(b"CORE", 1, bytes(336)), "VMCOREINFO"),
        (note(b"VMCOREINFO", 0, b""), "OSRELEASE"),
        (note(b"VMCOREINFO", 0, b"\xff\xfe" * 20), "OSRELEASE"),
        (note(b"VMCOREINFO", 0, b"OSRELEASE=6.1.0\nPAGESIZE=4096\n"), "swapper_pg_dir"),
    ],
    ids=["no notes", "of a process", "empty", "binary", "incomplete"],
)
@pytest.mark.parametrize("verb", ["audit", "list"])
def test_core_without_a_kernel(
    zonedev: Zonedev, tmp_path: Path, notes: bytes, why: str, verb: str
) -> None:
    path = tmp_path / "core"
    path.write_bytes(elf_core(notes))
    assert_one_line(zonedev(verb, path, "-s", vmlinux(NEWEST)), str(path), why)


def test_core_of_an_unknown_machine(zonedev: Zonedev, image: Image, tmp_path: Path) -> None:
    offset, size = image.notes
    path = tmp_path / "core"
    path.write_bytes(elf_core(image.data[offset : offset + size], machine=9999))
    assert_one_line(zonedev("audit", path), str(path), "architecture")


# ---------------------------------------------------------------- permission, the live kernel


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("forbidden", ["core", "debug file"])
def test_no_permission(zonedev: Zonedev, forbidden: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        files = {"core": directory / "core", "debug file": directory / "vmlinux"}
        files["core"].write_bytes(Path(open_vmcore(NEWEST).core).read_bytes())
        files["debug file"].write_bytes(Path(vmlinux(NEWEST)).read_bytes())
        files[forbidden].chmod(0)
        with as_nobody():
            answer = zonedev("audit", files["core"], "-s", files["debug file"])
    assert_one_line(answer, forbidden, str(files[forbidden]), "permission denied", "root")


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (PermissionError(errno.EPERM, "Operation not permitted", "/proc/kcore"), "lockdown"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/proc/kcore"), "no such"),
    ],
)
@pytest.mark.parametrize("verb", [("audit",), ("list",), ("page", "1")])
def test_live_kernel_that_cannot_be_opened(
    zonedev: Zonedev,
    monkeypatch: pytest.MonkeyPatch,
    error: OSError,
    why: str,
    verb: tuple[str, ...],
) -> None:
    class Closed:
        def set_kernel(self) -> None:
            raise error

    monkeypatch.setattr(target, "Program", Closed)
    answer = zonedev(*verb, "-k")
    assert_one_line(answer, "/proc/kcore")
    assert why in answer.err.lower()


def test_qemu_socket_that_is_missing(zonedev: Zonedev, tmp_path: Path) -> None:
    assert_one_line(zonedev("audit", "--qemu", tmp_path / "qmp"), str(tmp_path / "qmp"))


# ---------------------------------------------------------------- debug files


@pytest.mark.parametrize("core", KERNELS)
@pytest.mark.parametrize("other", KERNELS)
def test_debug_file_of_another_kernel(zonedev: Zonedev, core: str, other: str) -> None:
    vmcore = open_vmcore(core)
    answer = zonedev("audit", vmcore.core, "-s", vmlinux(other))
    if core == other:
        assert answer.status in (0, 1) and not answer.err
    else:
        release = vmcore.prog["UTS_RELEASE"].string_().decode()
        assert_one_line(answer, vmlinux(other), "another kernel", release, "-s")


def test_second_debug_file_of_another_kernel(zonedev: Zonedev, newest: Vmcore) -> None:
    other = vmlinux("6.12-nvdimm")
    answer = zonedev("audit", newest.core, "-s", newest.vmlinux, "-s", other)
    assert_one_line(answer, other, "another kernel")


def test_module_of_another_kernel_is_not_passed_over(
    zonedev: Zonedev, newest: Vmcore, tmp_path: Path
) -> None:
    module = tmp_path / "nfit.ko"
    module.write_bytes(Path(vmlinux("6.12-nvdimm")).read_bytes())
    answer = zonedev("audit", newest.core, "-s", newest.vmlinux, "-s", module)
    assert "nfit.ko" in answer.out + answer.err
    assert answer.status in (2, 3)


def test_same_debug_file_twice(zonedev: Zonedev, newest: Vmcore) -> None:
    assert zonedev("audit", newest.core, "-s", newest.vmlinux, "-s", newest.vmlinux).status == 0


@pytest.mark.parametrize("content", [b"", b"no debug file\n", b"\x7fELF", None])
def test_file_that_is_no_debug_file(
    zonedev: Zonedev, newest: Vmcore, tmp_path: Path, content: Optional[bytes]
) -> None:
    path = tmp_path / "vmlinux"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    why = "is a directory" if content is None else "not an ELF file"
    assert_one_line(zonedev("audit", newest.core, "-s", path), str(path), why)


def test_missing_debug_file(zonedev: Zonedev, newest: Vmcore) -> None:
    assert_one_line(zonedev("audit", newest.core, "-s", "no.vmlinux"), "no.vmlinux", "no such file")


def test_core_as_debug_file(zonedev: Zonedev, newest: Vmcore) -> None:
    answer = zonedev("audit", newest.core, "-s", newest.core)
    assert_one_line(answer, newest.core, "a core dump", "vmlinux")


def test_debug_file_without_debug_info(zonedev: Zonedev, newest: Vmcore, tmp_path: Path) -> None:
    stripped = tmp_path / "vmlinux"
    data = Path(newest.vmlinux).read_bytes()
    stripped.write_bytes(data.replace(b"\0.debug_info\0", b"\0.bedug_info\0"))
    assert stripped.read_bytes() != data
    answer = zonedev("audit", newest.core, "-s", stripped)
    assert_one_line(answer, str(stripped), "no debug information", "-s")


@pytest.mark.parametrize("size", [40, 64, 2000, 20000, -10])
def test_debug_file_cut_off(zonedev: Zonedev, newest: Vmcore, tmp_path: Path, size: int) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(Path(newest.vmlinux).read_bytes()[:size])
    assert_one_line(zonedev("audit", newest.core, "-s", path), str(path))


@pytest.mark.parametrize("verb", [("audit",), ("list",), ("page", "0x100000")])
def test_no_debug_info_at_all(
    zonedev: Zonedev, newest: Vmcore, no_debug_info: None, verb: tuple[str, ...]
) -> None:
    answer = zonedev(*verb, "-c", newest.core)
    assert_one_line(answer, newest.core, "no debug information", "7.2.12", "-s")


@pytest.fixture
def btf(monkeypatch: pytest.MonkeyPatch, newest: Vmcore, no_debug_info: None) -> None:
    """No bundled core holds its BTF: the debug file stands for it."""

    def use(prog: Program, data: Optional[bytes] = None) -> None:
        prog.load_debug_info([newest.vmlinux], default=False)
        prog.register_type_finder(NAME, lambda *_: None, enable_index=-1)

    monkeypatch.setattr(target, "use_btf", use)


@pytest.mark.parametrize("option", [(), ("--btf",)])
@pytest.mark.parametrize("verb", ["audit", "list", "page", "scheme"])
def test_types_out_of_the_core(
    zonedev: Zonedev, newest: Vmcore, btf: None, verb: str, option: tuple[str, ...]
) -> None:
    words = (verb, "-c", newest.core, *option, *(("0x100000",) if verb == "page" else ()))
    answer = zonedev(*words, "--format", "json")
    assert answer.status == 0, answer
    report = json.loads(answer.out)
    assert report.get("tool", report)["types_from"] == "btf"
    if verb in ("audit", "scheme"):
        text = " ".join(zonedev(*words).out.split())
        assert "types from BTF, symbols from kallsyms" in text


def test_debug_file_is_preferred_to_btf(zonedev: Zonedev, newest: Vmcore, btf: None) -> None:
    answer = zonedev("audit", newest.core, "-s", newest.vmlinux, "--format", "json")
    tool = json.loads(answer.out)["tool"]
    assert (tool["types_from"], tool["symbols_from"]) == ("dwarf", "symtab")


def test_btf_does_not_stand_in_for_a_wrong_debug_file(
    zonedev: Zonedev, newest: Vmcore, btf: None
) -> None:
    wrong = vmlinux("6.1-nvdimm")
    assert_one_line(zonedev("audit", newest.core, "-s", wrong), wrong, "of another kernel")


def test_btf_does_not_stand_in_for_a_debug_file_without_types(
    zonedev: Zonedev, newest: Vmcore, btf: None, tmp_path: Path
) -> None:
    useless = renamed(newest.vmlinux, tmp_path, "page")
    answer = zonedev("audit", newest.core, "-s", useless)
    assert_one_line(answer, f"{useless} has none for this kernel")
    assert "its own memory" not in answer.err


def test_debug_information_is_not_looked_for_with_btf(
    zonedev: Zonedev, newest: Vmcore, btf: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(target, "_load_debug_info", lambda *given: asked.append(given))
    assert not zonedev("audit", newest.core, "--btf").err
    assert not asked


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("-c", "CORE", "-s", "vmlinux"), "give one of them"),
        (("-c", "CORE"), "kallsyms: "),
    ],
)
def test_btf_that_cannot_be_had(
    zonedev: Zonedev, newest: Vmcore, words: tuple[str, ...], why: str
) -> None:
    words = tuple(newest.core if word == "CORE" else word for word in words)
    assert_one_line(zonedev("audit", "--btf", *words), "--btf", why)


def with_btf_section(source: str, directory: Path) -> tuple[str, bytes]:
    """A debug file whose .debug_info is called .BTF, and the bytes of that section."""
    data = Path(source).read_bytes()
    path = directory / "vmlinux"
    path.write_bytes(data.replace(b"\0.debug_info\0", b"\0.BTF\0......\0"))
    offset, size = _zonedev.elf_info(str(path))["btf"]
    return str(path), data[offset : offset + size]


def test_btf_of_a_vmlinux(
    zonedev: Zonedev, newest: Vmcore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, section = with_btf_section(newest.vmlinux, tmp_path)
    given: list[Optional[bytes]] = []

    def use(prog: Program, data: Optional[bytes] = None) -> None:
        given.append(data)
        prog.load_debug_info([newest.vmlinux], default=False)
        prog.register_type_finder(NAME, lambda *_: None, enable_index=-1)

    monkeypatch.setattr(target, "use_btf", use)
    answer = zonedev("audit", newest.core, "-s", path, "--format", "json")
    assert json.loads(answer.out)["tool"]["types_from"] == "btf"
    assert given == [section] and section


def test_btf_of_a_vmlinux_that_is_damaged_or_of_another_kernel(
    zonedev: Zonedev, newest: Vmcore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = with_btf_section(newest.vmlinux, tmp_path)
    kallsyms = _zonedev.Kallsyms(sample(FORMATS["7.0"], SYMBOLS).image, BASE, ("_stext", BASE))
    monkeypatch.setattr(kernel_btf, "read_kallsyms", lambda _: kallsyms)
    assert_one_line(zonedev("audit", newest.core, "-s", path), "BTF: ", "vmlinux has none")
    other, _ = with_btf_section(vmlinux("6.1-nvdimm"), tmp_path)
    assert_one_line(zonedev("audit", newest.core, "-s", other), other, "of another kernel")


def test_neither_debug_info_nor_btf(zonedev: Zonedev, newest: Vmcore, no_debug_info: None) -> None:
    answer = zonedev("audit", newest.core)
    assert_one_line(answer, "no debug information", "no types in its own memory (kallsyms: ", "-s")


def test_slice_needs_types(zonedev: Zonedev, newest: Vmcore, no_debug_info: None) -> None:
    words = ("slice", "-c", newest.core, "-o", "out")
    assert_one_line(zonedev(*words), "no debug information", "no types in its own memory")


def renamed(source: str, directory: Path, *names: str) -> str:
    """A debug file with the same build id, in which these names are others."""
    data = Path(source).read_bytes()
    for name in names:
        old = b"\0" + name.encode() + b"\0"
        assert old in data
        data = data.replace(old, b"\0x" + name.encode()[1:] + b"\0")
    path = directory / "vmlinux"
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize("verb", [("audit",), ("list",), ("page", "1"), ("slice", "-o", "out")])
def test_kernel_without_zone_device(
    zonedev: Zonedev, newest: Vmcore, tmp_path: Path, verb: tuple[str, ...]
) -> None:
    debug = renamed(newest.vmlinux, tmp_path, "ZONE_DEVICE", "pgmap_array")
    answer = zonedev(*verb, "-c", newest.core, "-s", debug)
    assert_one_line(answer, "without ZONE_DEVICE", "nothing to audit")
    assert not Path("out").exists()


def test_kernel_without_registry(zonedev: Zonedev, newest: Vmcore, tmp_path: Path) -> None:
    debug = renamed(newest.vmlinux, tmp_path, "pgmap_array")
    answer = zonedev("audit", newest.core, "-s", debug)
    assert_one_line(answer, "pgmap_array", "vmlinux")
    assert "without ZONE_DEVICE" not in answer.err


# ---------------------------------------------------------------- the registry


def registry_head(image: Image) -> int:
    return image.offset(int(image.vmcore.prog["pgmap_array"].xa_head.address_of_()))


def registry_node(image: Image) -> int:
    """Address of the root node of pgmap_array."""
    return int(image.vmcore.prog["pgmap_array"].xa_head) & ~3


def first_pagemap(image: Image) -> int:
    return image.vmcore.kernel.pagemaps[0].address


@pytest.mark.parametrize("name", ["5.10-bare", "7.2-bare"])
def test_machine_without_pagemaps(
    zonedev: Zonedev, make_image: Callable[[str], Image], name: str
) -> None:
    image = make_image(name)
    text = zonedev("audit", *image.args)
    assert text.status == 0 and not text.err
    assert "no dev_pagemap is registered" in text.out and "dax_kmem" in text.out
    assert "clean" in text.out.splitlines()[-1]
    listed = zonedev("list", *image.args)
    assert listed.status == 0 and "no dev_pagemap is registered" in listed.out
    report = json.loads(zonedev("audit", *image.args, "--format", "json").out)
    assert report["summary"]["verdict"] == "clean" and report["summary"]["pages"] == 0
    assert report["pagemaps"] == [] and "no dev_pagemap" in report["notes"][0]
    rows = zonedev("audit", *image.args, "--format", "csv").out.splitlines()
    assert len(rows) == 1
    answer = zonedev("page", "0x100000", *image.args)
    assert_one_line(answer, "0x100000", "not ZONE_DEVICE")


def test_debug_file_that_lacks_types_is_neither_clean_nor_a_bare_machine(
    zonedev: Zonedev, newest: Vmcore
) -> None:
    args = (newest.core, "-s", vmlinux("7.2-bare"))
    text = zonedev("audit", *args)
    assert text.status == 3 and "cannot be read" in text.out
    listed = zonedev("list", *args)
    assert listed.status == 3 and listed.out.startswith("no dev_pagemap could be read\n")


@pytest.mark.parametrize("name", KERNELS)
def test_zeroed_registry_is_not_clean(
    zonedev: Zonedev, make_image: Callable[[str], Image], name: str
) -> None:
    """A page of zeroes that stands for a lost one; the zones that could tell are not in the core, either."""
    image = make_image(name)
    with image.patched((registry_head(image), bytes(8))):
        text = zonedev("audit", *image.args)
        report = json.loads(zonedev("audit", *image.args, "--format", "json").out)
    assert text.status == 3 and "clean" not in text.out.splitlines()[-1]
    assert "may have been left out of the dump" in " ".join(text.out.split())
    assert report["summary"]["verdict"] == "incomplete"


@pytest.mark.parametrize("word", [2, 6, 0x402, 0x1000 | 2, 2**64 - 1, 0xFFFF_8000_0000_0002])
def test_registry_head_overwritten(zonedev: Zonedev, image: Image, word: int) -> None:
    with image.patched((registry_head(image), struct.pack("<Q", word))):
        answer = zonedev("audit", *image.args)
    assert answer.status != 0, "an array whose head is not empty, without a pagemap, is damaged"
    if answer.status == 2:
        assert_one_line(answer, "registry")


@pytest.mark.parametrize("fill", [0, 0x55, 0xFF])
@pytest.mark.parametrize("name", ["5.10-nvdimm", NEWEST])
def test_registry_node_overwritten(
    zonedev: Zonedev, make_image: Callable[[str], Image], name: str, fill: int
) -> None:
    image = make_image(name)
    with image.patched((image.frame(registry_node(image)), bytes([fill]) * PAGE)):
        answer = zonedev("audit", *image.args)
    assert answer.status != 0, "its node is lost, and with it the pagemaps"
    if answer.status == 2:
        assert_one_line(answer, "registry", str(image.path))


@pytest.mark.parametrize("name", ["5.10-nvdimm", NEWEST])
def test_registry_node_of_zeroes(
    zonedev: Zonedev, make_image: Callable[[str], Image], name: str
) -> None:
    """A node below the root that was left out of a dump: the pagemaps in it must not just be missing."""
    image = make_image(name)
    prog = image.vmcore.prog
    root = Object(prog, "struct xa_node", address=registry_node(image))
    # Small ones continue the slot before.
    children = [int(slot) & ~3 for slot in root.slots if int(slot) & 3 == 2 and int(slot) > PAGE]
    assert len(children) > 1
    for child in children:
        with image.patched((image.offset(child), bytes(sizeof(root)))):
            answer = zonedev("audit", *image.args)
        assert_one_line(answer, "registry", "reads as zeroes", str(image.path))


@pytest.mark.parametrize("fill", [0x55, 0xFF])
def test_pagemap_overwritten(zonedev: Zonedev, image: Image, fill: int) -> None:
    size = image.vmcore.prog.type("struct dev_pagemap").size
    with image.patched((image.offset(first_pagemap(image)), bytes([fill]) * size)):
        answer = zonedev("audit", *image.args, "--format", "json")
    assert answer.status in (1, 3) and not answer.err
    report = json.loads(answer.out)
    assert {"pmem2", "dax1.0"} <= {p["device"] for p in report["pagemaps"]}


def test_pointer_to_pagemap_overwritten(zonedev: Zonedev, image: Image) -> None:
    """One pagemap that cannot be read takes no others along, in list as in audit."""
    old = struct.pack("<Q", first_pagemap(image))
    frame = image.frame(registry_node(image))
    places = [m.start() for m in re.finditer(re.escape(old), image.data[frame : frame + PAGE])]
    if not places:
        places = [
            s.offset + m.start()
            for s in image.segments
            for m in re.finditer(
                re.escape(old), image.data[s.offset : s.offset + min(s.size, PAGE)]
            )
        ]
        frame = 0
    assert places
    with image.patched(*((frame + p, struct.pack("<Q", 0x1000)) for p in places)):
        report = zonedev("audit", *image.args, "--format", "json")
        listed = zonedev("list", *image.args)
    assert report.status in (1, 3)
    assert "0x1000" in report.out
    assert listed.status in (0, 3) and "pmem2" in listed.out


def test_vmemmap_base_overwritten(zonedev: Zonedev, image: Image) -> None:
    """What tells where struct pages lie is damaged: an error or unread pages, never a traceback."""
    prog = image.vmcore.prog
    roots = int(prog["mem_section"])
    sections = prog.read_u64(roots)
    for address in (int(prog["mem_section"].address_of_()), roots, sections):
        for fill in (0, 0x55, 0xFF):
            with image.patched((image.frame(address), bytes([fill]) * PAGE)):
                answer = zonedev("audit", *image.args)
            assert answer.status != 0 or address == sections, hex(address)
            if answer.status == 2:
                assert_one_line(answer, str(image.path))


def test_module_list_overwritten(zonedev: Zonedev, make_image: Callable[[str], Image]) -> None:
    """drgn reads the module list when it loads debug information; an audit needs none of it."""
    image = make_image("5.10-nvdimm-leak")
    modules = [m.object for m in image.vmcore.prog.modules() if isinstance(m, RelocatableModule)]
    frames = {
        image.frame(int(address))
        for module in modules
        for address in (module, module.sect_attrs, module.notes_attrs)
    }
    assert len(frames) > 4
    for frame in sorted(frames):
        with image.patched((frame, b"\xff" * PAGE)), time_limit(TIME_LIMIT):
            answer = zonedev("audit", *image.args, "-q")
        assert answer.status == 1, answer.err


# ---------------------------------------------------------------- cut off


def cut_positions(image: Image) -> dict[str, int]:
    prog, layout = image.vmcore.prog, image.vmcore.kernel.layout
    notes, notes_size = image.notes
    last = max(image.vmcore.kernel.pagemaps, key=lambda p: image.offset(page_of(image, p)))
    return {
        "in the ELF header": 40,
        "behind the ELF header": 64,
        "in the program headers": 64 + 56 * 3 + 10,
        "before the notes": notes,
        "in the notes": notes + notes_size // 2,
        "behind the notes": notes + notes_size,
        "before the registry": image.frame(prog["pgmap_array"].address_),
        "in the registry": image.offset(registry_node(image)) + 100,
        "in the memmap": image.offset(page_of(image, last)) + 10 * layout.page_size + 8,
        "before the last byte": len(image.data) - 1,
    }


def page_of(image: Image, pagemap: Any) -> int:
    return image.vmcore.kernel.layout.page_address(pagemap.ranges[0].first_pfn)


UNREADABLE = (
    "in the ELF header",
    "behind the ELF header",
    "in the program headers",
    "before the notes",
    "in the notes",
    "behind the notes",
    "before the registry",
)


@pytest.mark.parametrize("verb", [("audit",), ("list",), ("page", "0x100000")])
@pytest.mark.parametrize("where", UNREADABLE)
def test_cut_off_before_the_registry(
    zonedev: Zonedev, image: Image, where: str, verb: tuple[str, ...]
) -> None:
    core = image.cut(cut_positions(image)[where])
    answer = zonedev(*verb, "-c", core, "-s", image.vmcore.vmlinux)
    assert_one_line(answer, str(core))
    if where != "in the ELF header":
        assert "cut off" in answer.err


def test_cut_off_in_the_registry(zonedev: Zonedev, image: Image) -> None:
    core = image.cut(cut_positions(image)["in the registry"])
    answer = zonedev("audit", core, "-s", image.vmcore.vmlinux)
    assert answer.status in (2, 3)
    if answer.status == 2:
        assert_one_line(answer, "cut off", str(core))


@pytest.mark.parametrize("where", ["in the memmap", "before the last byte"])
@pytest.mark.parametrize("name", ["6.12-nvdimm", NEWEST])
def test_cut_off_behind_the_registry(
    zonedev: Zonedev, make_image: Callable[[str], Image], name: str, where: str
) -> None:
    image = make_image(name)
    core = image.cut(cut_positions(image)[where])
    answer = zonedev("audit", core, "-s", image.vmcore.vmlinux)
    assert answer.status == 3 and not answer.err
    assert f"{core} is cut off" in " ".join(answer.out.split())
    assert "incomplete" in answer.out.splitlines()[-1]
    report = json.loads(zonedev("audit", core, "-s", image.vmcore.vmlinux, "--format", "json").out)
    assert report["summary"]["verdict"] == "incomplete"
    assert report["summary"]["classes"]["not-captured"] > 0
    assert sum(report["summary"]["classes"].values()) == report["summary"]["pages"]
    assert any("cut off" in problem for problem in report["problems"])
    assert zonedev("list", core, "-s", image.vmcore.vmlinux).status == 0


def test_cut_off_anywhere(zonedev: Zonedev, image: Image) -> None:
    """Frame by frame where it matters, in steps elsewhere: an error or incomplete."""
    registry = image.frame(image.vmcore.prog["pgmap_array"].address_)
    sizes = [
        *range(registry - 4 * PAGE, registry + 12 * PAGE, PAGE),
        *range(1, len(image.data), 1234567),
    ]
    for size in sizes:
        answer = zonedev("audit", image.cut(size), "-s", image.vmcore.vmlinux)
        assert answer.status in (2, 3), (size, answer)
        if answer.status == 2:
            assert_one_line(answer)


# ---------------------------------------------------------------- kdump-compressed cores


class Kdump(NamedTuple):
    """Where the parts of a kdump-compressed core begin."""

    bitmaps: int
    descriptors: int
    pages: int
    end: int


def write_kdump(image: Image, path: Path, lost: range = range(0)) -> Kdump:
    """The image in makedumpfile's format, its pages not compressed, those of *lost* (pfns) excluded."""
    offset, size = image.notes
    info = image.vmcore.prog["VMCOREINFO"].string_()
    frames = {
        (s.physical + at) // PAGE: s.offset + at
        for s in image.segments
        for at in range(0, s.size, PAGE)
    }
    last = max(frames) + 1
    bytes_per_map = -(-last // (8 * PAGE)) * PAGE
    maps = [bytearray(bytes_per_map), bytearray(bytes_per_map)]
    dumped = [pfn for pfn in sorted(frames) if pfn not in lost]
    for bits, pfns in zip(maps, (frames, dumped)):
        for pfn in pfns:
            bits[pfn // 8] |= 1 << pfn % 8
    sub = struct.pack("<qii", image.info(r"NUMBER\(phys_base\)"), 31, 0) + bytes(16)
    sub += struct.pack("<QQQQ", PAGE + 112, len(info), PAGE + 112 + len(info), size)
    sub += bytes(16) + struct.pack("<QQQ", 0, 0, last) + bytes(8)
    assert len(sub) == 112
    sub += info + image.data[offset : offset + size]
    sub += bytes(-len(sub) % PAGE)
    head = bytearray(PAGE)
    release = image.vmcore.prog["UTS_RELEASE"].string_()
    names = [b"Linux", b"guest", release, b"#1 SMP", b"x86_64", b"(none)"]
    head[:12] = b"KDUMP   " + struct.pack("<i", 6)
    for i, name in enumerate(names):
        head[12 + 65 * i : 12 + 65 * i + len(name)] = name
    struct.pack_into(
        "<IiiIIIIIii",
        head,
        0x1A8,
        1,
        PAGE,
        len(sub) // PAGE,
        2 * bytes_per_map // PAGE,
        last,
        0,
        0,
        0,
        0,
        1,
    )
    bitmaps = PAGE + len(sub)
    descriptors = bitmaps + 2 * bytes_per_map
    pages = descriptors + 24 * len(dumped)
    with open(path, "wb") as file:
        file.write(head + sub + maps[0] + maps[1])
        for i in range(len(dumped)):
            file.write(struct.pack("<QIIQ", pages + i * PAGE, PAGE, 0, 0))
        for pfn in dumped:
            file.write(image.data[frames[pfn] : frames[pfn] + PAGE])
    return Kdump(bitmaps, descriptors, pages, pages + len(dumped) * PAGE)


def comparable(answer: Answer) -> Any:
    report = json.loads(answer.out)
    report["tool"].pop("readers")
    return {k: v for k, v in report.items() if k not in ("timing", "target")}


def test_kdump_gives_the_same(zonedev: Zonedev, image: Image, tmp_path: Path) -> None:
    core = tmp_path / "core.kdump"
    write_kdump(image, core)
    packed = zonedev("audit", core, "-s", image.vmcore.vmlinux, "--format", "json")
    plain = zonedev("audit", image.path, "-s", image.vmcore.vmlinux, "--format", "json")
    assert packed.status == plain.status == 0, packed.err
    assert json.loads(packed.out)["tool"]["readers"] == ["Program.read", "zonedev:kdump"]
    assert comparable(packed) == comparable(plain)


def physical_frame(image: Image, address: int) -> int:
    return image.physical(address) // PAGE


def test_kdump_with_excluded_memmap(zonedev: Zonedev, image: Image, tmp_path: Path) -> None:
    frame = physical_frame(image, page_of(image, image.vmcore.kernel.pagemaps[0]))
    core = tmp_path / "core.kdump"
    write_kdump(image, core, range(frame, frame + 3))
    answer = zonedev("audit", core, "-s", image.vmcore.vmlinux, "--format", "json")
    assert answer.status == 3, answer
    pmem0 = json.loads(answer.out)["pagemaps"][0]
    assert pmem0["classes"]["not-captured"] == 3 * 64
    assert "not in the dump" in " ".join(pmem0["not_judged"])


def test_kdump_with_excluded_registry(zonedev: Zonedev, image: Image, tmp_path: Path) -> None:
    """makedumpfile -d 31 takes the pages of the slab for free ones in some kernels."""
    frame = physical_frame(image, registry_node(image))
    core = tmp_path / "core.kdump"
    write_kdump(image, core, range(frame, frame + 1))
    answer = zonedev("audit", core, "-s", image.vmcore.vmlinux)
    assert_one_line(answer, "registry", str(core), "Excluded page")


def test_kdump_with_excluded_reference_count(
    zonedev: Zonedev, image: Image, tmp_path: Path
) -> None:
    """struct percpu_ref_data lies in a slab of its own: without it the pages can be judged all the same."""
    pagemaps = image.vmcore.kernel.pagemaps
    prog = image.vmcore.prog
    objects = [Object(prog, "struct dev_pagemap *", value=p.address) for p in pagemaps]
    lost = physical_frame(image, int(objects[0].ref.data))
    assert lost not in {physical_frame(image, p.address) for p in pagemaps}
    core = tmp_path / "core.kdump"
    write_kdump(image, core, range(lost, lost + 1))
    answer = zonedev("audit", core, "-s", image.vmcore.vmlinux, "--format", "json")
    assert answer.status == 3, answer
    report = json.loads(answer.out)
    plain = zonedev("audit", image.path, "-s", image.vmcore.vmlinux, "--format", "json")
    whole = json.loads(plain.out)
    assert [p["classes"] for p in report["pagemaps"]] == [p["classes"] for p in whole["pagemaps"]]
    assert report["pagemaps"][0]["ref"]["count"] is None


@pytest.mark.parametrize(
    "where",
    ["header", "sub header", "first bitmap", "second bitmap", "descriptors", "pages", "end"],
)
def test_kdump_cut_off(image: Image, tmp_path: Path, where: str) -> None:
    core = tmp_path / "core.kdump"
    kdump = write_kdump(image, core)
    size = {
        "header": PAGE,
        "sub header": 2 * PAGE,
        "first bitmap": kdump.bitmaps + (kdump.descriptors - kdump.bitmaps) // 4,
        "second bitmap": kdump.descriptors - PAGE,
        "descriptors": (kdump.descriptors + kdump.pages) // 2,
        "pages": (kdump.pages + kdump.end) // 2,
        "end": kdump.end - 1,
    }[where]
    os.truncate(core, size)
    answer = run_process("audit", core, "-s", image.vmcore.vmlinux)
    assert answer.status in (2, 3), (
        f"{signal.Signals(-answer.status)!r}" if answer.status < 0 else answer
    )
    if answer.status == 2:
        assert_one_line(answer, str(core))
    else:
        assert where == "end" and "incomplete" in answer.out


def test_flattened_kdump(zonedev: Zonedev, image: Image, tmp_path: Path) -> None:
    """The same answer; from a drgn whose libkdumpfile is too old, one line that says what to do."""
    whole, core = tmp_path / "core.kdump", tmp_path / "core.flat"
    write_kdump(image, whole)
    flatten(whole, core)
    flat = zonedev("audit", core, "-s", image.vmcore.vmlinux, "--format", "json")
    if flat.status == 2:
        assert_one_line(flat, "flattened", f"makedumpfile -R NEW <{core}")
        return
    packed = zonedev("audit", whole, "-s", image.vmcore.vmlinux, "--format", "json")
    assert flat.status == packed.status == 0, flat
    assert comparable(flat) == comparable(packed)
    assert json.loads(flat.out)["target"]["format"] == "flattened"


def test_flattened_kdump_cut_off(image: Image, tmp_path: Path) -> None:
    whole, core = tmp_path / "core.kdump", tmp_path / "core.flat"
    write_kdump(image, whole)
    flatten(whole, core, b"")
    size = os.path.getsize(core)
    for kept in (20, 3 * PAGE, size // 2, size):
        os.truncate(core, min(kept, size))
        answer = run_process("audit", core, "-s", image.vmcore.vmlinux)
        assert_one_line(answer, str(core), "flattened", "copy it again")
        flatten(whole, core, b"")


def test_kdump_of_several_files(zonedev: Zonedev, image: Image, tmp_path: Path) -> None:
    core = tmp_path / "core.kdump"
    write_kdump(image, core)
    with open(core, "r+b") as file:
        file.seek(PAGE + 12)  # split in struct kdump_sub_header
        file.write(struct.pack("<i", 1))
    answer = zonedev("audit", core, "-s", image.vmcore.vmlinux)
    assert_one_line(answer, str(core), "makedumpfile --reassemble")


def test_kdump_of_a_release_candidate(zonedev: Zonedev, image: Image, tmp_path: Path) -> None:
    """libkdumpfile wants three numbers in a release; where it does not, the debug file is of another kernel."""
    core = tmp_path / "core.kdump"
    write_kdump(image, core)
    line = b"OSRELEASE=" + image.vmcore.prog["UTS_RELEASE"].string_()
    data = core.read_bytes()
    assert line in data
    core.write_bytes(data.replace(line, b"OSRELEASE=7.3-amd64\n".ljust(len(line), b"x")))
    answer = zonedev("audit", core, "-s", image.vmcore.vmlinux)
    assert_one_line(answer, str(core), "7.3-amd64")
    assert "save the dump as ELF" in answer.err or "it is of another kernel" in answer.err


def test_kdump_without_names(zonedev: Zonedev, image: Image, tmp_path: Path) -> None:
    """QEMU fills in the machine, but no release."""
    core = tmp_path / "core.kdump"
    write_kdump(image, core)
    with open(core, "r+b") as file:
        file.seek(12)
        file.write(bytes(4 * 65))
    answer = zonedev("audit", core, "-s", image.vmcore.vmlinux)
    assert_one_line(answer, str(core), "dump-guest-memory -z", "as ELF")


# ---------------------------------------------------------------- errors that are planted


def plant(image: Image, pfn: int, change: Callable[[int], int]) -> tuple[int, bytes]:
    """The patch of a page's refcount."""
    layout = image.vmcore.kernel.layout
    offset = image.offset(layout.page_address(pfn) + layout.fields["_refcount"][0])
    old = struct.unpack_from("<i", image.data, offset)[0]
    return offset, struct.pack("<I", change(old) & 0xFFFFFFFF)


PLANTED: dict[str, Callable[[int], int]] = {
    "one less": lambda old: old - 1,
    "negative": lambda old: -5,
    "saturated": lambda old: -(1 << 30) * 3 // 2,
    "minimum": lambda old: -(1 << 31),
    "maximum": lambda old: (1 << 31) - 1,
}


@pytest.mark.parametrize("change", PLANTED.values(), ids=PLANTED.keys())
@pytest.mark.parametrize("name", KERNELS)
def test_planted_refcount_is_an_error(
    zonedev: Zonedev, make_image: Callable[[str], Image], name: str, change: Callable[[int], int]
) -> None:
    image = make_image(name)
    idle = [
        s["pfn"] + s["count"] - 1
        for s in image.vmcore.states
        if not s["order"] and s["refcount"] == image.vmcore.kernel.scheme.idle(type_name(image, s))
    ]
    assert idle
    for pfn in idle[:: max(len(idle) // 3, 1)]:
        with image.patched(plant(image, pfn, change)):
            answer = zonedev("audit", *image.args, "--format", "json")
            page = zonedev("page", hex(pfn), *image.args, "--format", "json")
        assert answer.status == 1
        report = json.loads(answer.out)
        assert report["summary"]["verdict"] == "violations"
        hit = [f for f in report["findings"] if f["pfn"] == pfn]
        assert [f["severity"] for f in hit] == ["error"]
        assert json.loads(page.out)["class"] == "violation"


def type_name(image: Image, state: dict[str, Any]) -> str:
    pagemap = image.vmcore.kernel.find(state["pfn"])
    assert pagemap
    return pagemap.type


def is_free(image: Image, pfn: int) -> bool:
    report = folio_report(image.vmcore.kernel, str(pfn))
    return report.class_ == "idle" and not report.head["mapping"]


@pytest.mark.parametrize("extra", [1, 2, 1024])
@pytest.mark.parametrize("name", KERNELS)
def test_planted_reference_is_seen(
    zonedev: Zonedev, make_image: Callable[[str], Image], name: str, extra: int
) -> None:
    """A reference too many on a free page of a file system: clean only with a warning."""
    image = make_image(name)
    end = image.vmcore.kernel.pagemaps[0].ranges[0].end_pfn
    pfn = next(pfn for pfn in range(end - 1, 0, -1) if is_free(image, pfn))
    with image.patched(plant(image, pfn, lambda old: old + extra)):
        answer = zonedev("audit", *image.args, "--format", "json")
        strict = zonedev("audit", *image.args, "--fail-on", "warning", "-q")
    assert strict.status == 1
    hit = [f for f in json.loads(answer.out)["findings"] if f["pfn"] == pfn]
    assert len(hit) == 1 and hit[0]["severity"] in ("warning", "error")
    assert answer.status == (1 if hit[0]["severity"] == "error" else 0)


# ---------------------------------------------------------------- noise


def vital_frames(image: Image) -> list[int]:
    """Places in the file of all frames, of long runs (memmaps) only the ends."""
    frames = []
    for s in image.segments:
        run = list(range(s.offset, s.offset + s.size, PAGE))
        frames += run if len(run) <= 16 else run[:2] + run[-2:]
    return frames


def noise(rnd: random.Random, image: Image, frame: int) -> list[tuple[int, bytes]]:
    patches = []
    for _ in range(rnd.choice((1, 1, 4, 40, 200))):
        place = frame + 8 * rnd.randrange(PAGE // 8)
        old = struct.unpack_from("<Q", image.data, place)[0]
        other = struct.unpack_from("<Q", image.data, frame + 8 * rnd.randrange(PAGE // 8))[0]
        new = rnd.choice(
            (old ^ 1 << rnd.randrange(64), 0, 2**64 - 1, rnd.getrandbits(64), old + 8, other)
        )
        patches.append((place, struct.pack("<Q", new % 2**64)))
    return patches


@pytest.mark.parametrize("name", ["5.10-nvdimm-leak", NEWEST])
def test_noise(zonedev: Zonedev, make_image: Callable[[str], Image], name: str) -> None:
    """Words of any frame overwritten: an answer in time, one line where it is an error."""
    image = make_image(name)
    rnd = random.Random(7)
    frames = vital_frames(image)
    for _ in range(40):
        patches = noise(rnd, image, rnd.choice(frames))
        with image.patched(*patches), time_limit(TIME_LIMIT):
            answer = zonedev("audit", *image.args, "--format", "json")
        if answer.status == 2:
            assert_one_line(answer)
            continue
        assert answer.status in (0, 1, 3) and not answer.err
        summary = json.loads(answer.out)["summary"]
        assert sum(summary["classes"].values()) == summary["pages"]


@pytest.mark.parametrize("fill", [0, 0xFF])
def test_frame_overwritten(zonedev: Zonedev, image: Image, fill: int) -> None:
    """Frames from the end of RAM, where the early tables of the kernel lie."""
    for frame in [f for f in vital_frames(image) if image.data[f : f + PAGE].strip(b"\0")][::16]:
        with image.patched((frame, bytes([fill]) * PAGE)), time_limit(TIME_LIMIT):
            answer = zonedev("audit", *image.args, "-q")
        assert answer.status in (0, 1, 2, 3)
        if answer.status == 2:
            assert_one_line(answer)


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    def late(number: int, frame: Any) -> None:
        raise AssertionError(f"no answer within {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# ---------------------------------------------------------------- what the extension says of files


def test_elf_info_of_a_cut_core(image: Image) -> None:
    if not _zonedev.features()["libelf"]:
        pytest.skip(
            "the extension was built without libelf: it has no elf_info() to test (make test installs libelf where "
            "it may)"
        )
    info = _zonedev.elf_info(str(image.cut(len(image.data) - 1)))
    assert info["core"] and info["wanted_size"] == len(image.data) == info["file_size"] + 1


def test_release_that_libkdumpfile_cannot_parse(tmp_path: Path, zonedev: Zonedev) -> None:
    """Debian calls a release candidate 7.3-amd64; the bundled dump is made to look like one."""
    vmcore = open_vmcore("7.2-kdump-leak")
    data = Path(vmcore.core).read_bytes()
    core = tmp_path / "vmcore"
    core.write_bytes(data.replace(b"7.2.12+deb13-amd64", b"7.2-12+deb13-amd64"))
    answer = zonedev("audit", core, "-s", vmcore.vmlinux)
    assert_one_line(answer, str(core), "libkdumpfile", "'7.2-12+deb13-amd64'", "makedumpfile -E")
