# SPDX-License-Identifier: LGPL-2.1-or-later
"""The peers that zonedev is measured beside: how each is run on a core, and why one is not.

Owns the table of peers.  A peer is a function of a Subject that gives the seconds that all struct pages of the core
take it, or raises LeftOut with the reason.  What a peer reads, beside the struct pages, is its name's to say.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Optional

from drgn import Object
from drgn.helpers.linux.mm import pfn_to_page

from zonedev.kernel.facts import Kernel, read_kernel
from zonedev.kernel.translate import physical_address
from zonedev.kernel.vmemmap import Pages, read_memmap
from zonedev.target import Target, open_target

sys.path.insert(0, str(Path(__file__).resolve().parent / "lab"))
from coreedit import read_segments

ROOT = Path(__file__).resolve().parent.parent

THREADS = os.cpu_count() or 1

OBJECT_PAGES = 20_000
# A peer that takes longer is left out.
TIMEOUT_S = 300

_FRAME = 4096
_STEP = 2 << 20

# -DHAVE_..., and how to link it.
_LIBRARIES = {
    "ZLIB": "-lz",
    "LZO": "-llzo2",
    "SNAPPY": "-lsnappy",
    "ZSTD": "-lzstd",
    "KDUMPFILE": "-lkdumpfile",
}


class LeftOut(Exception):
    """The peer cannot run; says why."""


class Segment(NamedTuple):
    """Struct pages: where they lie in all ways (offset: in an ELF file, 0 where it is none), and bytes."""

    virtual: int
    physical: int
    offset: int
    size: int


class Subject(NamedTuple):
    """A core, and the kernel in it."""

    name: str
    core: str
    vmlinux: str
    kernel: Kernel
    segments: list[Segment]

    @property
    def bytes(self) -> int:
        """Of struct pages that the core holds."""
        return sum(segment.size for segment in self.segments)

    @property
    def pages(self) -> int:
        return self.bytes // self.kernel.layout.page_size

    @property
    def is_elf(self) -> bool:
        with open(self.core, "rb") as file:
            return file.read(4) == b"\x7fELF"


# ---------------------------------------------------------------- where struct pages lie


def _physical_runs(kernel: Kernel, start: int, end: int) -> list[Segment]:
    """Runs of virtual memory that are consecutive in physical memory; what is not mapped is left out."""

    def at(address: int) -> Optional[int]:
        try:
            return physical_address(kernel.prog, address)
        except Exception:
            return None

    runs: list[Segment] = []

    def add(virtual: int, size: int, physical: Optional[int]) -> None:
        if physical is None:
            return
        if runs and runs[-1].physical + runs[-1].size == physical:
            runs[-1] = runs[-1]._replace(size=runs[-1].size + size)
        else:
            runs.append(Segment(virtual, physical, 0, size))

    while start < end:
        size = min(_STEP - start % _STEP, end - start)
        first, last = at(start), at(start + size - 1)
        if first is not None and last is not None and last - first == size - 1:
            add(start, size, first)
        else:
            for frame in range(start, start + size, _FRAME):
                add(frame, _FRAME, at(frame))
        start += size
    return runs


def _in_file(loads: list[Any], run: Segment) -> list[Segment]:
    """The parts of a run that the PT_LOADs of an ELF core hold."""
    parts = []
    for held in loads:
        start, end = max(run.physical, held.start), min(run.physical + run.size, held.end)
        if start < end:
            offset = held.offset + start - held.start
            parts.append(Segment(run.virtual + start - run.physical, start, offset, end - start))
    return parts


def _readable(kernel: Kernel, run: Segment) -> bool:
    try:
        kernel.prog.read(run.virtual, 1)
        kernel.prog.read(run.virtual + run.size - 1, 1)
    except Exception:
        return False
    return True


def memmap_segments(kernel: Kernel, core: str, is_elf: bool) -> list[Segment]:
    """The struct pages of all pagemaps that the core holds, whole frames, each once."""
    runs: list[Segment] = []
    for pagemap in kernel.pagemaps:
        for range_ in pagemap.ranges:
            start = kernel.layout.page_address(range_.first_pfn) // _FRAME * _FRAME
            end = -(-kernel.layout.page_address(range_.end_pfn) // _FRAME) * _FRAME
            runs += _physical_runs(kernel, start, end)
    if is_elf:
        loads = read_segments(core)
        runs = [part for run in runs for part in _in_file(loads, run)]
    else:
        runs = [run for run in runs if _readable(kernel, run)]
    seen: set[int] = set()
    return [run for run in runs if not (run.physical in seen or seen.add(run.physical))]


def open_subject(name: str, core: str, vmlinux: str) -> Subject:
    kernel = read_kernel(open_target(Target(core, [vmlinux])))
    subject = Subject(name, core, vmlinux, kernel, [])
    subject.segments.extend(memmap_segments(kernel, core, subject.is_elf))
    return subject


# ---------------------------------------------------------------- programs


def _run(words: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(words, text=True, capture_output=True, timeout=TIMEOUT_S, **more)
    except subprocess.TimeoutExpired:
        raise LeftOut(f"took more than {TIMEOUT_S} s") from None
    except FileNotFoundError:
        raise LeftOut(f"{words[0]} is not installed") from None


def _seconds_of(words: list[str], **more: Any) -> float:
    begin = time.perf_counter()
    done = _run(words, **more)
    seconds = time.perf_counter() - begin
    _check(done)
    return seconds


def _check(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode:
        raise LeftOut(_last_line(done.stderr) or f"exit code {done.returncode}")


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


@functools.cache
def peers_program() -> str:
    """The compiled bench_peers.c, with the libraries that there are."""
    source = Path(__file__).with_suffix(".c")
    out = ROOT / "build" / "bench_peers"
    out.parent.mkdir(exist_ok=True)
    command = [os.environ.get("CC", "cc"), "-std=gnu11", "-O3", "-march=native"]
    have: list[str] = []
    for name, link in _LIBRARIES.items():
        words = [*command, "-fsyntax-only", f"-DHAVE_{name}", str(source)]
        probe = [*command, "-x", "c", "-", link, "-o", str(out)]
        if _run(words).returncode == 0 and _run(probe, input="int main(void){}").returncode == 0:
            have += [f"-DHAVE_{name}", link]
    flags = [word for word in have if word.startswith("-D")]
    libraries = [word for word in have if word.startswith("-l")]
    done = _run([*command, *flags, str(source), "-o", str(out), *libraries, "-lpthread"])
    if done.returncode:
        raise LeftOut(f"bench_peers.c cannot be compiled: {_last_line(done.stderr)}")
    return str(out)


def _in_c(mode: str, threads: int = 1, cache: int = 0) -> Callable[[Subject], float]:
    def run(subject: Subject) -> float:
        text = "".join("{} {} {} {}\n".format(*segment) for segment in subject.segments)
        done = _run([peers_program(), mode, subject.core, str(threads), str(cache)], input=text)
        _check(done)
        seconds, size = done.stdout.split()[:2]
        if int(size) != subject.bytes:
            raise LeftOut(f"read {size} bytes of {subject.bytes}")
        return float(seconds)

    return run


# ---------------------------------------------------------------- drgn, zonedev


def object_loop(subject: Subject) -> float:
    """What a script does with drgn's objects: refcount, mapping and flags, page by page; of a sample."""
    kernel = subject.kernel
    segment = max(subject.segments, key=lambda one: one.size)
    pfn = (segment.virtual - kernel.layout.vmemmap) // kernel.layout.page_size
    count = min(OBJECT_PAGES, segment.size // kernel.layout.page_size)
    page = pfn_to_page(Object(kernel.prog, "unsigned long", value=pfn))
    begin = time.perf_counter()
    for i in range(count):
        one = page[i]
        one._refcount.counter.value_()
        one.mapping.value_()
        one.flags.f.value_() if hasattr(one.flags, "f") else one.flags.value_()
    return (time.perf_counter() - begin) / count * subject.pages


def chunked_reads(subject: Subject) -> float:
    layout, pages = subject.kernel.layout, 0
    begin = time.perf_counter()
    for segment in subject.segments:
        count = segment.size // layout.page_size
        for piece in read_memmap(subject.kernel.prog, segment.virtual, count, layout):
            pages += len(piece.data) // layout.page_size if isinstance(piece, Pages) else 0
    seconds = time.perf_counter() - begin
    if pages != subject.pages:
        raise LeftOut(f"read {pages} struct pages of {subject.pages}")
    return seconds


class Audited(NamedTuple):
    """What an audit in a process of its own said."""

    process_s: float
    scan_s: float
    verdict: str
    readers: list[str]


def audit(core: str, vmlinux: str) -> Audited:
    command = [sys.executable, "-m", "zonedev", "audit", core, "-s", vmlinux, "--format", "json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    begin = time.perf_counter()
    done = _run(command, env=environment)
    seconds = time.perf_counter() - begin
    if not done.stdout:
        raise LeftOut(_last_line(done.stderr))
    said = json.loads(done.stdout)
    verdict = said["summary"]["verdict"]
    return Audited(seconds, said["timing"]["scan_s"], verdict, said["tool"]["readers"])


def zonedev_scan(subject: Subject) -> float:
    return audit(subject.core, subject.vmlinux).scan_s


def zonedev_process(subject: Subject) -> float:
    return audit(subject.core, subject.vmlinux).process_s


# ---------------------------------------------------------------- other programs


def _is_slice(subject: Subject) -> None:
    if "vmcores" in Path(subject.vmlinux).parts:
        raise LeftOut("needs the whole kernel, and this core is a slice of one")


def cat(subject: Subject) -> float:
    return _seconds_of(["sh", "-c", 'cat "$0" >/dev/null', subject.core])


def makedumpfile_scan(subject: Subject) -> float:
    _is_slice(subject)
    # The file that it would write must not be there.
    out = ROOT / "build" / "makedumpfile.none"
    words = ["makedumpfile", "--dry-run", "-d", "31", "-x", subject.vmlinux, subject.core]
    return _seconds_of([*words, str(out)])


@functools.cache
def _crash_start(core: str, vmlinux: str) -> float:
    return _crash(core, vmlinux, "quit\n")


def _crash(core: str, vmlinux: str, commands: str) -> float:
    if not shutil.which("crash"):
        raise LeftOut("crash is not installed")
    return _seconds_of(["crash", "-s", vmlinux, core], input=commands)


def crash_kmem(subject: Subject) -> float:
    _is_slice(subject)
    out = ROOT / "build" / "kmem-p"
    both = _crash(subject.core, subject.vmlinux, f"kmem -p >{out}\nquit\n")
    with out.open("rb") as file:
        lines = sum(1 for _ in file)
    out.unlink()
    if lines < 2:
        raise LeftOut("kmem -p printed nothing")
    return (both - _crash_start(subject.core, subject.vmlinux)) / (lines - 1) * subject.pages


# ---------------------------------------------------------------- the table

Peer = tuple[str, Callable[[Subject], float]]

_N = f"{THREADS} threads"

# The first of a table is what zonedev is bound by.
ELF_PEERS: list[Peer] = [
    (f"sum of the same bytes in memory, {_N}", _in_c("sum", THREADS)),
    (f"pread and sum, {_N}", _in_c("read", THREADS)),
    (f"mmap, sum and munmap, {_N}", _in_c("map", THREADS)),
]
KDUMP_PEERS: list[Peer] = [
    (f"decompressor alone, every page, {_N}", _in_c("decompress", THREADS)),
    (
        f"libkdumpfile, cache.size=16, physical, {THREADS} contexts",
        _in_c("physical", THREADS, 16),
    ),
    ("libkdumpfile, cache.size=16, physical, one context", _in_c("physical", 1, 16)),
    ("libkdumpfile as drgn uses it (virtual, cache as it comes)", _in_c("virtual")),
]
COMMON_PEERS: list[Peer] = [
    ("cat of the file to /dev/null", cat),
    ("chunked Program.read", chunked_reads),
    ("makedumpfile -d 31 --dry-run (scan of all pages)", makedumpfile_scan),
    ("crash kmem -p (per page)", crash_kmem),
    (f"drgn object loop ({OBJECT_PAGES} pages, extrapolated)", object_loop),
]
ZONEDEV: list[Peer] = [
    ("zonedev audit: its scan", zonedev_scan),
    ("zonedev audit: the whole process", zonedev_process),
]


def peers_of(subject: Subject) -> list[Peer]:
    """All that there are for a core, zonedev first."""
    return ZONEDEV + (ELF_PEERS if subject.is_elf else KDUMP_PEERS) + COMMON_PEERS
