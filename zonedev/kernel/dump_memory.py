# SPDX-License-Identifier: LGPL-2.1-or-later
"""Whether struct pages can be read from a dump's file itself, many at a time, and what is needed for that.

Owns the conditions under which that gives what Program.read() would give; where one is not met, or not known to be,
everything goes through Program.read().  Reading is the C core's work (ext/readers/bulk.h).

Invariant: a Program into which somebody put memory of their own is never read past it.
Mirrors arch/x86/include/asm/page_64_types.h (__START_KERNEL_map).
"""

from __future__ import annotations

import functools
import gc
import os
from typing import Callable, Optional

from drgn import Architecture, FaultError, Platform, PlatformFlags, Program, ProgramFlags

from zonedev import _zonedev
from zonedev.kernel.layout import KernelLayout
from zonedev.kernel.symbols import vmcoreinfo_number, vmcoreinfo_symbol
from zonedev.kernel.translate import physical_address

READER = "ZONEDEV_READER"
"""Environment variable: "drgn" forbids reading the file itself."""
THREADS = "ZONEDEV_THREADS"
"""Environment variable: how many threads read, instead of one for each processor."""

_THREADS_MAX = 64
_KERNEL_MAP = 0xFFFFFFFF80000000
_FRAME = 4096
_LITTLE_64 = PlatformFlags.IS_64_BIT | PlatformFlags.IS_LITTLE_ENDIAN


def _is_ours(callable_: object) -> bool:
    """Finders of types and symbols; nothing in zonedev.kernel adds memory to a Program."""
    return str(getattr(callable_, "__module__", "")).startswith("zonedev.kernel.")


@functools.cache
def _shows_callables() -> bool:
    """Whether a Program shows the garbage collector the functions that were given to it."""

    def read(_address: int, count: int, _offset: int, _physical: bool) -> bytes:
        return bytes(count)

    prog = Program(Platform(Architecture.X86_64))
    prog.add_memory_segment(0, 1, read, False)
    return any(one is read for one in gc.get_referents(prog))


def _is_untouched(prog: Program) -> bool:
    """True where no memory was added to a Program (Program.add_memory_segment()).

    drgn does not tell, but it holds on to every function that it may call.
    """
    return _shows_callables() and all(
        _is_ours(one) for one in gc.get_referents(prog) if callable(one)
    )


def thread_count() -> int:
    """Threads that read: one for each processor that this process may use."""
    try:
        wanted = int(os.environ.get(THREADS, ""))
    except ValueError:
        wanted = len(os.sched_getaffinity(0))
    return min(max(wanted, 1), _THREADS_MAX)


def _open_files() -> set[tuple[int, int]]:
    """Device and inode of every file that this process has open."""
    files = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            status = os.stat(f"/proc/self/fd/{name}")
        except OSError:
            continue
        files.add((status.st_dev, status.st_ino))
    return files


def _open_same(path: str) -> Optional[_zonedev.Memory]:
    """The memory in a file, if it is the very one that drgn has open under this name."""
    try:
        known = _open_files()
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        return _zonedev.Memory(fd) if (status.st_dev, status.st_ino) in known else None
    except (OSError, ValueError):
        return None
    finally:
        os.close(fd)


class DumpMemory:
    """The memory of a dump whose kernel's page tables are known.

    hole: class and reason of what the dump does not hold, once Program.read() has told them.
    """

    def __init__(self, memory: _zonedev.Memory, root: int, levels: int) -> None:
        self.memory, self.root, self.levels = memory, root, levels
        self.hole: Optional[tuple[str, str]] = None
        self.used = False

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"zonedev:{self.memory.format}"

    def learn_hole(self, prog: Program, address: int, class_: str, reason: str) -> None:
        """Program.read() cannot have what lies at *address*: is that because the dump does not hold it?"""
        if self.hole or class_ != "not-captured":
            return
        try:
            frame = physical_address(prog, address) // _FRAME * _FRAME
            if self.memory.frame(frame) is None:
                self.hole = (class_, reason)
        except (FaultError, LookupError, ValueError, OverflowError):
            return

    def read(self, scan: _zonedev.Scan, progress: Callable[[int], None]) -> None:
        """Give a scan what comes next in its range, up to its end or to what is not certain."""
        before = scan.left()
        try:
            rest = scan.read(
                self.memory, self.root, self.levels, thread_count(), bool(self.hole), progress
            )
        finally:
            self.used |= scan.left() < before
        if rest:
            progress(rest)


def _open(prog: Program) -> Optional[DumpMemory]:
    platform, path = prog.platform, getattr(prog, "core_dump_path", None)
    if platform is None or platform.arch != Architecture.X86_64 or path is None:
        return None
    if platform.flags & _LITTLE_64 != _LITTLE_64 or prog.flags & ProgramFlags.IS_LIVE:
        return None
    swapper = vmcoreinfo_symbol(prog, "swapper_pg_dir")
    phys_base = vmcoreinfo_number(prog, "phys_base")
    five_levels = vmcoreinfo_number(prog, "pgtable_l5_enabled")
    if swapper is None or phys_base is None or five_levels is None or swapper % _FRAME:
        return None
    # Bits of the addresses in page tables that encrypt memory.
    if vmcoreinfo_number(prog, "sme_mask"):
        return None
    root = swapper - _KERNEL_MAP + phys_base
    memory = _open_same(os.fspath(path)) if swapper >= _KERNEL_MAP and root >= 0 else None
    if memory is None:
        return None
    try:
        same = memory.frame(root) == prog.read(swapper, _FRAME)
    except (FaultError, OSError, ValueError, OverflowError):
        return None
    return DumpMemory(memory, root, 5 if five_levels else 4) if same else None


def open_memory(prog: Program) -> Optional[DumpMemory]:
    """The memory of the dump that *prog* reads; None where it is to be read through *prog*."""
    if os.environ.get(READER) == "drgn" or not _is_untouched(prog):
        return None
    return _open(prog)


def may_read(memory: DumpMemory, prog: Program, layout: KernelLayout, start: int, end: int) -> bool:
    """Whether the struct pages at the addresses [start, end) may be read past *prog*."""
    if _FRAME % layout.page_size or layout.page_shift != 12:
        return False
    return _is_untouched(prog) and not memory.memory.has_virtual(start, end)
