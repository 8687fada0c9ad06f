# SPDX-License-Identifier: LGPL-2.1-or-later
"""Slices: only what was read, nothing invented, and the same report from the pair.

Owns: a tiny made-up kernel: compiled C whose image lies in a core that the test writes, with page
tables, holes and excluded frames. Does not: need a real vmcore.
Invariant: each property of a slice has a test that fails when the slice loses it.
"""

from __future__ import annotations

import lzma
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Callable

import pytest
import thin_kdump

drgn = pytest.importorskip("drgn")

from drgn import FaultError, Program  # noqa: E402
from drgn.helpers.linux.mm import follow_phys  # noqa: E402

from zonedev import _zonedev  # noqa: E402
from zonedev.audit import audit  # noqa: E402
from zonedev.cli import main  # noqa: E402
from zonedev.corefile import FRAME_SIZE  # noqa: E402
from zonedev.errors import TargetError  # noqa: E402
from zonedev.kernel.facts import read_kernel  # noqa: E402
from zonedev.report.data import audit_dict  # noqa: E402
from zonedev.slice import SliceResult, slice_core  # noqa: E402
from zonedev.target import Target, open_target  # noqa: E402

VMCORES = Path(__file__).parent / "vmcores"

BASE = 0xFFFFFFFF81000000
PHYS = 0x1000000  # of BASE
SLIDE = 0x200000  # KASLR
TABLES = 0x100000  # physical address of the page tables

SOURCE = r"""
struct unused { int nothing; };
struct leaf { long value; struct unused *unused; };
struct node { struct node *next; struct leaf *leaf; char text[4080]; };
enum state { IDLE = 1, BUSY };
extern struct node nodes[];
struct leaf leaf __attribute__((aligned(4096))) = { 4711 };
struct node nodes[8] __attribute__((aligned(4096))) = {
	{ &nodes[2], &leaf, "first" }, { 0, 0, "SECRET" }, { &nodes[5], 0, "third" },
	{ 0, 0, "SECRET" }, { 0, 0, "hole" }, { 0, 0, "last" }, { 0, 0, "excluded" }, { 0, 0, "cut" },
};
enum state state __attribute__((aligned(4096))) = BUSY;
char padding[3 << 20];  /* the image is longer than the slide */
const char linux_banner[] = "Linux version 1.2.3-test (nobody)";

struct list_head { struct list_head *next, *prev; };
struct attribute { const char *name; };
struct bin_attribute { struct attribute attr; unsigned long size; void *private; };
struct module_notes_attrs { unsigned int notes; struct bin_attribute attrs[1]; };
struct module_sect_attr { struct bin_attribute battr; unsigned long address; };
struct module_sect_attrs { unsigned int nsections; struct module_sect_attr attrs[1]; };
struct module_layout { void *base; unsigned int size; };
struct module {
	int state; struct list_head list; char name[56];
	struct module_layout core_layout, init_layout;
	struct module_sect_attrs *sect_attrs; struct module_notes_attrs *notes_attrs;
};
extern struct list_head modules;
static char note[36] = "\4\0\0\0\24\0\0\0\3\0\0\0GNU\0" "modulemodulemodulemod";
static struct module_notes_attrs notes = { 1, { { { ".note.gnu.build-id" }, 36, note } } };
static struct module_sect_attrs sects = { 1, { { { { ".data" } }, 0xffffffffc0001000 } } };
static struct module driver = {
	0, { &modules, &modules }, "driver", { (void *)0xffffffffc0000000, 0x4000 }, { 0 }, &sects, &notes
};
struct list_head modules = { &driver.list, &driver.list };
int helper(struct leaf *l) { return l->value; }
__attribute__((section(".init.text"))) void _start(void) { helper(&leaf); }
"""

MODULE_SOURCE = "int before = 1; struct { long a, b, c; } driver_ops = { 1 };"
MODULE_BUILD_ID = b"modulemodulemodulemod"[:20]
MODULE_DATA = 0xFFFFFFFFC0001000

Run = Callable[[Program], object]


@dataclass
class Kernel:
    """A core, its vmlinux, and where the image is. Node i is `node(i)`, a frame of its own."""

    core: str
    vmlinux: str
    nodes: int  # physical

    def node(self, index: int) -> int:
        return self.nodes + index * FRAME_SIZE

    def slice(self, out: Path, run: Run, **options: object) -> SliceResult[object]:
        return slice_core(self.core, [self.vmlinux], str(out), run, **options)


def note(name: bytes, type_: int, data: bytes) -> bytes:
    name += b"\0"
    header = struct.pack("<III", len(name), len(data), type_)
    return header + name + bytes(-len(name) % 4) + data + bytes(-len(data) % 4)


def read_image(vmlinux: Path) -> tuple[bytearray, str, dict[str, int]]:
    """Return the bytes from BASE on, the build ID, and the symbols."""
    data = vmlinux.read_bytes()
    (phoff,) = struct.unpack_from("<Q", data, 32)
    (phnum,) = struct.unpack_from("<H", data, 56)
    image = bytearray()
    for i in range(phnum):
        kind, _, offset, vaddr, _, filesz, memsz, _ = struct.unpack_from(
            "<IIQQQQQQ", data, phoff + 56 * i
        )
        if kind == 1 and memsz:
            image.extend(bytes(max(0, vaddr - BASE + memsz - len(image))))
            image[vaddr - BASE : vaddr - BASE + filesz] = data[offset : offset + filesz]
    start = data.index(b"GNU\0", data.index(struct.pack("<III", 4, 20, 3))) + 4
    names = subprocess.run(["nm", vmlinux], capture_output=True, text=True, check=True).stdout
    symbols = {line.split()[2]: int(line.split()[0], 16) for line in names.splitlines()}
    return image, data[start : start + 20].hex(), symbols


def page_tables() -> bytes:
    """Four levels, 2 MiB pages: virtual BASE + SLIDE + x is physical PHYS + x, for 8 MiB."""
    tables = bytearray(3 * FRAME_SIZE)
    virtual = BASE + SLIDE
    struct.pack_into("<Q", tables, (virtual >> 39 & 511) * 8, TABLES + FRAME_SIZE | 0x63)
    struct.pack_into(
        "<Q", tables, FRAME_SIZE + (virtual >> 30 & 511) * 8, TABLES + 2 * FRAME_SIZE | 0x63
    )
    for i in range(4):
        entry = PHYS + (i << 21) | 0xE3
        struct.pack_into("<Q", tables, 2 * FRAME_SIZE + ((virtual >> 21 & 511) + i) * 8, entry)
    return bytes(tables)


def relocate(image: bytearray) -> None:
    """Add the slide to each aligned word that points into the image."""
    for offset in range(0, len(image) - 7, 8):
        (word,) = struct.unpack_from("<Q", image, offset)
        if BASE <= word < BASE + len(image):
            struct.pack_into("<Q", image, offset, word + SLIDE)


def write_core(path: Path, notes: bytes, loads: list[tuple[int, bytes, int]]) -> None:
    """loads: physical address, bytes in the file, size in memory."""
    offset = 64 + 56 * (1 + len(loads))
    table = struct.pack("<IIQQQQQQ", 4, 0, offset, 0, 0, len(notes), 0, 0)
    body = notes
    for paddr, data, memsz in loads:
        table += struct.pack("<IIQQQQQQ", 1, 7, offset + len(body), 0, paddr, len(data), memsz, 0)
        body += data
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, 1 + len(loads), 0, 0, 0)
    path.write_bytes(ident + header + table + body)


def make_kernel(directory: Path, *, with_build_id: bool) -> Kernel:
    compiler = shutil.which("gcc")
    if compiler is None or shutil.which("nm") is None or drgn.host_platform.arch.name != "X86_64":
        pytest.skip(
            "the made-up kernel is x86-64 code with page tables of that machine: it takes gcc and nm on one"
        )
    (directory / "k.c").write_text(SOURCE)
    flags = "-g -O1 -mcmodel=kernel -fno-pic -no-pie -static -nostdlib -ffreestanding"
    flags += f" -Wl,--build-id=sha1 -Wl,-Ttext-segment={BASE:#x} -o vmlinux"
    subprocess.run([compiler, *flags.split(), "k.c"], cwd=directory, check=True)
    image, build_id, symbols = read_image(directory / "vmlinux")
    relocate(image)
    text = f"OSRELEASE=1.2.3-test\nPAGESIZE=4096\nKERNELOFFSET={SLIDE:x}\n"
    phys_base = PHYS - (BASE + SLIDE - 0xFFFFFFFF80000000)
    text += f"NUMBER(phys_base)={phys_base}\n"
    text += f"SYMBOL(swapper_pg_dir)={0xFFFFFFFF80000000 + TABLES - phys_base:x}\n"
    text += "NUMBER(pgtable_l5_enabled)=0\n"
    if with_build_id:
        text += f"BUILD-ID={build_id}\n"
    notes = note(b"CORE", 1, bytes(336)) + note(b"VMCOREINFO", 0, text.encode())
    kernel = Kernel(str(directory / "core"), str(directory / "vmlinux"), 0)
    kernel.nodes = symbols["nodes"] - BASE + PHYS
    hole, excluded, cut = (kernel.node(i) - PHYS for i in (4, 6, 7))
    loads = [
        (TABLES, page_tables(), 3 * FRAME_SIZE),
        (PHYS, bytes(image[:hole]), hole),
        (kernel.node(5), bytes(image[hole + FRAME_SIZE : excluded]), 2 * FRAME_SIZE),
        (kernel.node(7), bytes(image[cut : cut + 100]), 100),
        (kernel.node(8), bytes(image[cut + FRAME_SIZE :]), len(image) - cut - FRAME_SIZE),
    ]
    write_core(directory / "core", notes, loads)
    return kernel


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Kernel:
    return make_kernel(tmp_path_factory.mktemp("kernel"), with_build_id=True)


def open_pair(result: SliceResult[object]) -> Program:
    prog = Program()
    prog.set_core_dump(result.core)
    prog.load_debug_info(list(result.debug_files))
    return prog


def walk(prog: Program) -> list[str]:
    """The audit: along the list, skipping most nodes, with questions that have no answer."""
    found = [prog["leaf"].value.format_(), prog["state"].format_()]
    node = prog["nodes"][0].address_of_()
    while node:
        found.append(node.text.string_().decode())
        if node.leaf:
            found.append(str(node.leaf.value.value_()))
        node = node.next
    found.append(prog.symbol(prog["leaf"].address_ + 3).name)
    found.append(str(prog.function("helper").address_))
    for missing in (prog.type, prog.variable, prog.symbol, prog.constant, prog.function):
        with pytest.raises(LookupError):
            missing("struct missing" if missing == prog.type else "missing")
    return found


def compile_module(directory: Path) -> str:
    (directory / "m.c").write_text(MODULE_SOURCE)
    for command in (
        "gcc -g -c -fno-common m.c -o m.o",
        f"ld -r --build-id=0x{MODULE_BUILD_ID.hex()} m.o -o driver.ko",
    ):
        subprocess.run(command.split(), cwd=directory, check=True)
    return str(directory / "driver.ko")


def physical_loads(core: str) -> list[tuple[int, int, int]]:
    data = Path(core).read_bytes()
    (phnum,) = struct.unpack_from("<H", data, 56)
    loads = []
    for i in range(phnum):
        kind, _, _, _, paddr, filesz, memsz, _ = struct.unpack_from("<IIQQQQQQ", data, 64 + 56 * i)
        if kind == 1:
            loads.append((paddr, filesz, memsz))
    return loads


def test_pair_gives_the_report_of_the_original(kernel: Kernel, tmp_path: Path) -> None:
    result = kernel.slice(tmp_path, walk)
    assert result.report[:5] == ["(long)4711", "(enum state)BUSY", "first", "4711", "third"]
    assert walk(open_pair(result)) == result.report
    assert result.debug_size < 5000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["vmcore", "vmlinux"]


def test_only_frames_that_were_read_are_in_the_core(kernel: Kernel, tmp_path: Path) -> None:
    result = kernel.slice(tmp_path, walk)
    data = Path(result.core).read_bytes()
    assert b"first" in data and b"third" in data and b"last" in data
    assert b"SECRET" not in data and b"hole" not in data
    held = {a >> 12 for p, _, m in physical_loads(result.core) for a in range(p, p + m, FRAME_SIZE)}
    tables = {(TABLES >> 12) + i for i in range(3)}
    assert {kernel.node(i) >> 12 for i in (0, 2, 5)} | tables <= held
    assert not {kernel.node(i) >> 12 for i in (1, 3, 4, 6, 7)} & held
    assert len(held) == result.frames <= 12  # and those of leaf, state and the module
    pair = open_pair(result)
    with pytest.raises(FaultError):
        pair.read(kernel.node(1), 8, physical=True)


def test_notes_are_taken_over(kernel: Kernel, tmp_path: Path) -> None:
    result = kernel.slice(tmp_path, walk)
    head = Path(kernel.core).read_bytes()
    notes = head[head.index(b"CORE") - 12 : head.index(b"BUILD-ID") + 49]
    assert notes in Path(result.core).read_bytes()


def test_hole_stays_a_hole(kernel: Kernel, tmp_path: Path) -> None:
    def run(prog: Program) -> str:
        try:
            return str(prog["nodes"][4].next.value_())
        except FaultError:
            return "fault"

    result = kernel.slice(tmp_path, run)
    assert result.report == "fault"
    assert kernel.node(4) not in [paddr for paddr, _, _ in physical_loads(result.core)]


def test_excluded_frame_does_not_become_real_zeroes(kernel: Kernel, tmp_path: Path) -> None:
    result = kernel.slice(tmp_path, lambda prog: prog["nodes"][6].text.string_())
    assert result.report == b""  # drgn's zeroes, not "excluded"
    assert (kernel.node(6), 0, FRAME_SIZE) in physical_loads(result.core)
    assert result.zero_filled_frames == 1


def test_frame_that_is_held_in_part_stays_so(kernel: Kernel, tmp_path: Path) -> None:
    def run(prog: Program) -> tuple[bytes, bool]:
        try:
            prog.read(kernel.node(7), 101, physical=True)
        except FaultError:
            return prog.read(kernel.node(7), 100, physical=True), True
        return b"", False

    result = kernel.slice(tmp_path, run)
    assert result.report[0][16:19] == b"cut" and result.report[1]
    assert (kernel.node(7), 100, 100) in physical_loads(result.core)


def test_core_cut_off_in_the_middle_of_a_frame(kernel: Kernel, tmp_path: Path) -> None:
    whole = Path(kernel.core).read_bytes()
    cut = tmp_path / "cut"
    end = whole.index(b"last") + 100
    cut.write_bytes(whole[:end])
    short = Kernel(str(cut), kernel.vmlinux, kernel.nodes)

    def run(prog: Program) -> bytes:
        return prog.read(short.node(5) + 16, 4, physical=True)

    result = short.slice(tmp_path / "out", run)
    assert result.report == b"last"
    assert (short.node(5), 116, 116) in physical_loads(result.core)


def test_symbol_in_a_module_has_a_file_of_its_own(kernel: Kernel, tmp_path: Path) -> None:
    def run(prog: Program) -> tuple[str, int, int]:
        symbol = prog.symbol(prog.symbol("driver_ops").address + 23)
        with pytest.raises(LookupError):
            prog.symbol(symbol.address + symbol.size)
        assert prog.symbols("driver_ops") == [symbol]
        return symbol.name, symbol.address & ~63, symbol.size

    debug_files = [kernel.vmlinux, compile_module(tmp_path)]
    result = slice_core(kernel.core, debug_files, str(tmp_path / "out"), run)
    assert result.report == ("driver_ops", MODULE_DATA, 24)
    assert [Path(f).name for f in result.debug_files] == ["vmlinux", "driver.ko.debug"]
    assert run(open_pair(result)) == result.report


def test_type_that_was_not_used_is_a_declaration(kernel: Kernel, tmp_path: Path) -> None:
    pair = open_pair(kernel.slice(tmp_path, walk))
    assert pair.type("struct leaf").size == 16
    with pytest.raises(LookupError):
        pair.type("struct unused")


def test_name_asked_only_where_there_is_a_core_file(kernel: Kernel, tmp_path: Path) -> None:
    def run(prog: Program) -> int:
        return prog.type("struct unused").size if prog.core_dump_path else 4

    assert open_pair(kernel.slice(tmp_path, run)).type("struct unused").size == 4


def test_pointer_followed_only_where_there_is_a_core_file(kernel: Kernel, tmp_path: Path) -> None:
    def run(prog: Program) -> int:
        leaf = prog["leaf"]
        return leaf.unused.type_.type.size if prog.core_dump_path else 4

    assert open_pair(kernel.slice(tmp_path, run)).type("struct unused").size == 4


def test_same_input_gives_same_bytes(kernel: Kernel, tmp_path: Path) -> None:
    for name in "ab":
        kernel.slice(tmp_path / name, walk)
    for name in ("vmcore", "vmlinux"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_slice_of_a_slice_is_the_slice(kernel: Kernel, tmp_path: Path) -> None:
    first = kernel.slice(tmp_path / "a", walk)
    second = slice_core(first.core, first.debug_files, str(tmp_path / "b"), walk)
    assert Path(second.core).read_bytes() == Path(first.core).read_bytes()
    assert Path(second.debug_files[0]).read_bytes() == Path(first.debug_files[0]).read_bytes()


def test_vmlinux_of_a_core_without_build_id(tmp_path: Path) -> None:
    kernel = make_kernel(tmp_path, with_build_id=False)
    result = kernel.slice(tmp_path / "out", walk)
    assert b"Linux version 1.2.3-test" in Path(result.debug_files[0]).read_bytes()
    assert walk(open_pair(result)) == result.report


def test_other_report_from_the_pair_is_an_error(kernel: Kernel, tmp_path: Path) -> None:
    def run(prog: Program) -> str:
        return f"one\ntwo {prog.core_dump_path}"

    with pytest.raises(TargetError, match=r"line 2 of the report has 'two .*' instead of 'two /"):
        kernel.slice(tmp_path, run)
    assert list(tmp_path.iterdir()) == []
    kernel.slice(tmp_path, run, same=lambda a, b: a[:7] == b[:7])


def test_failure_on_the_pair_is_an_error(kernel: Kernel, tmp_path: Path) -> None:
    def run(prog: Program) -> None:
        if prog.core_dump_path and prog.core_dump_path != kernel.core:
            raise RuntimeError("only here")

    with pytest.raises(TargetError, match="RuntimeError: only here"):
        kernel.slice(tmp_path, run)
    assert list(tmp_path.iterdir()) == []


def test_what_fails_on_the_original_passes_through(kernel: Kernel, tmp_path: Path) -> None:
    with pytest.raises(LookupError):
        kernel.slice(tmp_path / "out", lambda prog: prog["missing"])
    assert not (tmp_path / "out").exists()


def test_input_is_not_overwritten(kernel: Kernel) -> None:
    before = Path(kernel.vmlinux).read_bytes()
    with pytest.raises(TargetError, match="give another directory"):
        kernel.slice(Path(kernel.core).parent, walk)
    assert Path(kernel.vmlinux).read_bytes() == before


def test_wrong_vmlinux_is_refused(kernel: Kernel, tmp_path: Path) -> None:
    data = bytearray(Path(kernel.vmlinux).read_bytes())
    data[data.index(struct.pack("<III", 4, 20, 3)) + 16] ^= 1
    other = tmp_path / "vmlinux"
    other.write_bytes(data)
    with pytest.raises(TargetError, match="not the vmlinux of"):
        slice_core(kernel.core, [str(other)], str(tmp_path / "out"), walk)


@pytest.mark.parametrize("data", [b"", b"no core" * 100])
def test_no_core_is_refused(kernel: Kernel, tmp_path: Path, data: bytes) -> None:
    core = tmp_path / "core"
    core.write_bytes(data)
    with pytest.raises(TargetError, match=str(core)):
        slice_core(str(core), [kernel.vmlinux], str(tmp_path / "out"), walk)


def test_missing_files_are_refused(kernel: Kernel, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="nowhere"):
        slice_core(str(tmp_path / "nowhere"), [kernel.vmlinux], str(tmp_path), walk)
    with pytest.raises(TargetError, match=r"nothing\.ko"):
        slice_core(kernel.core, [str(tmp_path / "nothing.ko")], str(tmp_path), walk)


def report(prog: Program) -> dict[str, object]:
    """The whole audit, without what names the file, how it was read, or the time."""
    found = audit_dict(audit(prog))
    found["tool"].pop("readers")
    return {key: value for key, value in found.items() if key not in ("target", "timing")}


@pytest.mark.parametrize("name", [path.parent.name for path in sorted(VMCORES.glob("*/vmlinux"))])
def test_bundled_vmcore_can_be_sliced(name: str, tmp_path: Path) -> None:
    core = tmp_path / "vmcore"
    core.write_bytes(lzma.decompress((VMCORES / name / "vmcore.xz").read_bytes()))
    debug_files = [VMCORES / name / "vmlinux", *sorted((VMCORES / name).glob("*.ko.debug"))]
    first = slice_core(str(core), list(map(str, debug_files)), str(tmp_path / "a"), report)
    again = slice_core(first.core, first.debug_files, str(tmp_path / "b"), report)
    assert bool(first.report["pagemaps"]) == (not name.endswith("-bare"))
    assert again.report == first.report
    compressed = core.read_bytes().startswith(b"KDUMP")
    assert compressed or first.core_size <= core.stat().st_size
    for a, b in zip((first.core, *first.debug_files), (again.core, *again.debug_files)):
        assert Path(a).read_bytes() == Path(b).read_bytes()


def test_kdump_is_cut_to_the_frames_of_its_slice(tmp_path: Path) -> None:
    """It stays a kdump and gives the same report; a frame less is an excluded page."""
    name, core = "7.2-kdump-leak", tmp_path / "vmcore"
    data = lzma.decompress((VMCORES / name / "vmcore.xz").read_bytes())
    core.write_bytes(data)
    target = Target(str(core), [str(VMCORES / name / "vmlinux")])
    whole = report(open_target(target))
    assert main(["slice", str(core), "-s", target.symbols[0], "-o", str(tmp_path / "a")]) == 0
    frames = thin_kdump.frames_of((tmp_path / "a" / "vmcore").read_bytes(), FRAME_SIZE)
    core.write_bytes(thin_kdump.thin(data, frames))
    prog = open_target(target)
    assert target.format == "diskdump" or not _zonedev.features()["libkdumpfile"]
    assert report(prog) == whole
    kernel = read_kernel(prog)
    memmap = kernel.layout.page_address(kernel.pagemaps[0].ranges[0].first_pfn)
    frame = int(follow_phys(prog["init_mm"].address_of_(), memmap)) // FRAME_SIZE
    lost = audit(prog).classes["not-captured"] + FRAME_SIZE // kernel.layout.page_size
    core.write_bytes(thin_kdump.thin(data, frames - {frame}))
    assert audit(open_target(target)).classes["not-captured"] == lost
    with pytest.raises(ValueError, match="1 frames"):
        thin_kdump.thin(core.read_bytes(), frames)
