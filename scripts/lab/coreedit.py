# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes to the memory of an ELF vmcore, by physical address, so that every write can be taken back.

Owns the way from a physical address to bytes of the file (program headers of the file itself) and the
list of writes. Virtual addresses are translated by drgn. Knows no struct page and shares no code with
the auditor. Invariant: a write states the bytes that it replaces; what differs from them is refused.
"""

from __future__ import annotations

import os
import re
import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from _drgn import _linux_helper_follow_phys
from drgn import Architecture, FaultError, Program
from drgn.helpers.linux.mm import follow_phys

FRAME = 4096
_COPY = 1 << 30
PT_LOAD, PT_NOTE = 1, 4
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_ELF64_LITTLE = b"\x7fELF\x02\x01"

# x86-64 page tables: entries are present (0), may be large (7), and hold bits 12..51 of an address.
_PRESENT, _LARGE = 1, 1 << 7
_ADDRESS = ((1 << 52) - 1) & ~(FRAME - 1)


class CannotEdit(Exception):
    """The memory is not in the file, or cannot be found; the message says which and why."""


class Segment(NamedTuple):
    """Physical memory [start, end) at an offset of the file."""

    start: int
    end: int
    offset: int


class Write(NamedTuple):
    """Bytes of the file, before and after."""

    offset: int
    old: bytes
    new: bytes


class ProgramHeader(NamedTuple):
    """Elf64_Phdr."""

    kind: int
    flags: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int
    align: int


class ProgramHeaders(NamedTuple):
    """The table of program headers: bytes [offset, offset + size) of the file, and what they say."""

    offset: int
    size: int
    rows: list[ProgramHeader]


def read_program_headers(path: str) -> ProgramHeaders:
    with open(path, "rb") as file:
        head = file.read(_HEADER.size)
        if len(head) < _HEADER.size or head[:6] != _ELF64_LITTLE:
            raise CannotEdit(f"{path}: not a 64-bit little-endian ELF core; convert it first")
        fields = _HEADER.unpack(head)
        file.seek(fields[5])
        table = file.read(fields[9] * fields[10])
    rows = [ProgramHeader(*row) for row in _SEGMENT.iter_unpack(table)]
    return ProgramHeaders(fields[5], len(table), rows)


def read_segments(path: str) -> list[Segment]:
    """PT_LOADs of a core by physical address; only what the file holds."""
    return sorted(
        Segment(row.paddr, row.paddr + row.filesz, row.offset)
        for row in read_program_headers(path).rows
        if row.kind == PT_LOAD and row.filesz
    )


class CoreFile:
    """An ELF core, open for writing."""

    def __init__(self, path: str) -> None:
        self.segments = read_segments(path)
        self._starts = [segment.start for segment in self.segments]
        self._fd = os.open(path, os.O_RDWR)

    def close(self) -> None:
        os.close(self._fd)

    def offset(self, physical: int, size: int) -> int:
        """Where [physical, physical + size) lies in the file."""
        i = bisect_right(self._starts, physical) - 1
        if i < 0 or physical + size > self.segments[i].end:
            raise CannotEdit(f"physical address {physical:#x} is not in the core")
        segment = self.segments[i]
        return segment.offset + physical - segment.start

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._fd, size, offset)

    def _replace(self, offset: int, old: bytes, new: bytes) -> None:
        found = self.read(offset, len(old))
        if found != old:
            raise CannotEdit(
                f"offset {offset:#x} of the core holds {found.hex()}, not {old.hex()}: "
                "it was changed by others; inject again"
            )
        os.pwrite(self._fd, new, offset)

    def apply(self, writes: Iterable[Write]) -> None:
        for offset, old, new in writes:
            self._replace(offset, old, new)

    def undo(self, writes: list[Write]) -> None:
        for offset, old, new in reversed(writes):
            self._replace(offset, new, old)


class Memory:
    """The guest's memory as the file holds it: reads and writes by virtual address.

    log is every write since the last begin().
    """

    def __init__(self, prog: Program, core: CoreFile) -> None:
        self.prog, self.core = prog, core
        self.log: list[Write] = []
        self._frames: dict[int, int] = {}
        self._pgd = _symbol(prog, "swapper_pg_dir")

    def begin(self) -> None:
        self.log = []

    def translate(self, address: int) -> int:
        """Physical address, by the kernel's page tables."""
        base = address & ~(FRAME - 1)
        if base not in self._frames:
            self._frames[base] = self._translate(base)
        return self._frames[base] | (address & (FRAME - 1))

    def _translate(self, address: int) -> int:
        try:
            try:
                return int(follow_phys(self.prog["init_mm"].address_of_(), address))
            except LookupError:
                # A slice has no init_mm; its page tables are the same.
                return int(_linux_helper_follow_phys(self.prog, self._pgd, address))
        except FaultError as err:
            raise CannotEdit(f"{address:#x} cannot be translated: {err}") from None

    def _pieces(self, address: int, size: int) -> Iterator[tuple[int, int]]:
        """(offset in the file, size), frame by frame."""
        while size:
            part = min(size, FRAME - address % FRAME)
            yield self.core.offset(self.translate(address), part), part
            address, size = address + part, size - part

    def read(self, address: int, size: int) -> bytes:
        return b"".join(self.core.read(at, part) for at, part in self._pieces(address, size))

    def write(self, address: int, data: bytes) -> bytes:
        """Write, and give what was there."""
        old = b""
        for at, part in list(self._pieces(address, len(data))):
            new = data[len(old) : len(old) + part]
            old += self._write_file(at, new)
        return old

    def _write_file(self, offset: int, new: bytes) -> bytes:
        write = Write(offset, self.core.read(offset, len(new)), new)
        self.core.apply([write])
        self.log.append(write)
        return write.old

    def load(self, address: int, size: int) -> int:
        return int.from_bytes(self.read(address, size), "little")

    def store(self, address: int, size: int, value: int) -> int:
        """Store the low bytes of a number, and give the number that was there."""
        data = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        return int.from_bytes(self.write(address, data), "little")

    # ---------------------------------------------------------------- page tables

    def page_table_entry(self, address: int) -> tuple[int, int]:
        """(physical address of the last entry that maps an address, pages of memory it maps)."""
        assert self.prog.platform is not None
        if self.prog.platform.arch != Architecture.X86_64:
            raise CannotEdit("page tables of this architecture are not known here")
        table = self.translate(self._pgd)
        for level in range(4 if _number(self.prog, "pgtable_l5_enabled") else 3, -1, -1):
            at = table + (address >> 12 + 9 * level & 511) * 8
            entry = int.from_bytes(self.core.read(self.core.offset(at, 8), 8), "little")
            if not entry & _PRESENT:
                raise CannotEdit(f"{address:#x} is not mapped")
            if level == 0 or entry & _LARGE:
                return at, 512**level
            table = entry & _ADDRESS
        raise AssertionError("unreachable")

    def clear_physical(self, physical: int, size: int) -> int:
        """Zeroes at a physical address; gives the number that was there."""
        return int.from_bytes(
            self._write_file(self.core.offset(physical, size), bytes(size)), "little"
        )


def _vmcoreinfo(prog: Program) -> str:
    text: bytes = prog["VMCOREINFO"].string_()
    return text.decode(errors="replace")


def _symbol(prog: Program, name: str) -> int:
    found = re.search(rf"^SYMBOL\({name}\)=([0-9a-f]+)$", _vmcoreinfo(prog), re.M)
    if not found:
        raise CannotEdit(f"VMCOREINFO has no {name}: the kernel's page tables cannot be found")
    return int(found[1], 16)


def _number(prog: Program, name: str) -> int:
    found = re.search(rf"^NUMBER\({name}\)=(-?\d+)$", _vmcoreinfo(prog), re.M)
    return int(found[1]) if found else 0


def section_size_bits(prog: Program) -> int:
    """SECTION_SIZE_BITS, 0 where the core does not say."""
    return _number(prog, "SECTION_SIZE_BITS")


# ---------------------------------------------------------------- writes as data

Run = tuple[int, int, int, str, str]


def pack(writes: list[Write]) -> list[Run]:
    """Writes as (offset, stride, count, old, new), runs of equal ones at one distance joined."""
    runs: list[list[int | bytes]] = []
    for offset, old, new in writes:
        if runs:
            first, stride, count, run_old, run_new = runs[-1]
            step = offset - (first + stride * (count - 1))  # type: ignore[operator]
            if (run_old, run_new) == (old, new) and step > 0 and (count == 1 or step == stride):
                runs[-1][1:3] = [step, count + 1]  # type: ignore[operator]
                continue
        runs.append([offset, 0, 1, old, new])
    return [(o, s, n, old.hex(), new.hex()) for o, s, n, old, new in runs]  # type: ignore[union-attr,misc]


def unpack(runs: Iterable[Run]) -> list[Write]:
    """The reverse of pack()."""
    return [
        Write(offset + stride * i, bytes.fromhex(old), bytes.fromhex(new))
        for offset, stride, count, old, new in runs
        for i in range(count)
    ]


def _extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, end) of what a sparse file holds."""
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError:
            return
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end


def copy_core(source: str, target: Path) -> None:
    """A copy that may be written; holes stay holes."""
    if target.exists() and os.path.samefile(source, target):
        raise CannotEdit(f"{source} is OUT itself; give another directory")
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_suffix(f".{os.getpid()}")
    with open(source, "rb") as old, open(scratch, "wb") as new:
        size = os.fstat(old.fileno()).st_size
        os.ftruncate(new.fileno(), size)
        for start, end in _extents(old.fileno(), size):
            os.lseek(new.fileno(), start, os.SEEK_SET)
            while start < end:
                start += os.sendfile(new.fileno(), old.fileno(), start, min(end - start, _COPY))
    os.replace(scratch, target)
