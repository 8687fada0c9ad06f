# SPDX-License-Identifier: LGPL-2.1-or-later
"""ELF cores in the making: some page frames of another core, with its notes.

Owns: what of a frame the original core holds (which is not always all of it), and the new file.
Does not: decide which frames (slice.py and slice_btf.py do).
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from drgn import Program

from zonedev.errors import TargetError

FRAME_SHIFT = 12
FRAME_SIZE = 1 << FRAME_SHIFT

_U64 = (1 << 64) - 1
_PT_LOAD, _PT_NOTE = 1, 4
_ET_CORE = 4
_MAX_NOTES = 64 << 20  # bytes; real ones have a few KiB
_MAX_SEGMENTS = 0xFFFE  # e_phnum is 16 bits, and 0xffff means that it does not fit
_COPY_SIZE = 1 << 20


class Piece(NamedTuple):
    """Physical memory [start, end) that the core holds; not in_file: that drgn zero-fills."""

    start: int
    end: int
    in_file: bool


class Machine(NamedTuple):
    """What an ELF header says of it: e_machine, e_flags and the byte order."""

    number: int
    flags: int
    big_endian: bool


class _Segment(NamedTuple):
    type: int
    offset: int
    paddr: int
    filesz: int
    memsz: int


@dataclass(frozen=True)
class FrameSource:
    """The original core: what of each frame it holds, and what the slice takes over unchanged.

    ELF cores may claim memory that is not in the file (p_filesz < p_memsz: excluded, or past its
    end). drgn reads it as zeroes. The slice claims it in the same way, so that a reader who can
    tell such zeroes from real ones still can.
    """

    prog: Program
    machine: int
    flags: int
    order: str
    notes: bytes
    extents: list[Piece] | None  # disjoint and sorted; None: whatever can be read, in whole frames

    @classmethod
    def open(cls, core: str, prog: Program, vmcoreinfo: bytes, machine: Machine) -> FrameSource:
        """Raises TargetError if it is an ELF file that this cannot parse.

        `machine` is for cores of other formats, which do not say it as ELF does.
        """
        try:
            with open(core, "rb") as file:
                if file.read(4) == b"\x7fELF":
                    return cls._open_elf(file, prog)
                notes = _diskdump_notes(file)
        except (OSError, ValueError, struct.error) as e:
            raise TargetError(f"cannot slice {core}: {e}") from e
        order = ">" if machine.big_endian else "<"
        notes = notes or _note(order, b"VMCOREINFO", 0, vmcoreinfo)
        return cls(prog, machine.number, machine.flags, order, notes, None)

    @classmethod
    def _open_elf(cls, file: BinaryIO, prog: Program) -> FrameSource:
        file.seek(0)
        header = file.read(64)
        if len(header) < 64 or header[4] != 2:
            raise ValueError("only 64-bit ELF cores can be sliced")
        order = ">" if header[5] == 2 else "<"
        (machine,) = struct.unpack_from(order + "H", header, 18)
        (flags,) = struct.unpack_from(order + "I", header, 48)
        segments = list(_read_segments(file, header, order))
        notes = b"".join(_read_note(file, s) for s in segments if s.type == _PT_NOTE)
        loads = [s for s in segments if s.type == _PT_LOAD and s.paddr != _U64]
        extents = _flatten(loads, os.fstat(file.fileno()).st_size)
        return cls(prog, machine, flags, order, notes, extents)

    def pieces(self, frames: Iterable[int]) -> list[Piece]:
        """Return what the core holds of these frames, sorted, neighbours joined."""
        joined: list[Piece] = []
        for frame in sorted(frames):
            start = frame << FRAME_SHIFT
            for piece in self._clip(start, start + FRAME_SIZE):
                last = joined[-1] if joined else None
                if last and last.end == piece.start and last.in_file == piece.in_file:
                    joined[-1] = last._replace(end=piece.end)
                else:
                    joined.append(piece)
        return joined

    def _clip(self, start: int, end: int) -> Iterator[Piece]:
        if self.extents is None:
            yield Piece(start, end, True)
            return
        index = max(bisect_right(self.extents, Piece(start, _U64, True)) - 1, 0)
        while index < len(self.extents) and self.extents[index].start < end:
            extent = self.extents[index]
            low, high = max(start, extent.start), min(end, extent.end)
            if low < high:
                yield Piece(low, high, extent.in_file)
            index += 1


def count_frames(pieces: Iterable[Piece]) -> int:
    """Page frames that they touch."""
    return sum((p.end - 1 >> FRAME_SHIFT) - (p.start >> FRAME_SHIFT) + 1 for p in pieces)


def _read_segments(file: BinaryIO, header: bytes, order: str) -> Iterator[_Segment]:
    """Yield the program headers of an ELF64 file. Raises ValueError if they are cut off."""
    phoff, shoff = struct.unpack_from(order + "QQ", header, 32)
    phentsize, phnum = struct.unpack_from(order + "HH", header, 54)
    if phnum == 0xFFFF:  # PN_XNUM: the number is in sh_info of section 0
        file.seek(shoff)
        (phnum,) = struct.unpack_from(order + "I", file.read(64), 44)
    if phentsize != 56:
        raise ValueError("the program header table has an unknown format")
    file.seek(phoff)
    for _ in range(phnum):
        entry = file.read(56)
        if len(entry) < 56:
            raise ValueError("the program header table ends early")
        type_, _, offset, _, paddr, filesz, memsz, _ = struct.unpack(order + "IIQQQQQQ", entry)
        yield _Segment(type_, offset, paddr, filesz, memsz)


def _read_note(file: BinaryIO, segment: _Segment) -> bytes:
    if segment.filesz > _MAX_NOTES:
        raise ValueError(f"its note segment claims {segment.filesz} bytes")
    file.seek(segment.offset)
    return file.read(segment.filesz)


def _flatten(loads: Sequence[_Segment], file_size: int) -> list[Piece]:
    """Return the memory of PT_LOADs as disjoint sorted pieces. Where two overlap, the later counts.

    What lies past the end of a cut-off file is in no piece.
    """
    pieces: list[Piece] = []
    for load in loads:
        filesz = min(load.filesz, load.memsz)
        held = min(filesz, max(file_size - load.offset, 0))
        data = Piece(load.paddr, load.paddr + held, True)
        zeroes = Piece(load.paddr + filesz, load.paddr + load.memsz, False)
        for new in (data, zeroes):
            if new.start < new.end:
                _insert(pieces, new)
    return pieces


def _insert(pieces: list[Piece], new: Piece) -> None:
    """Put a piece into a sorted list, cutting away what it overlaps."""
    first = max(bisect_right(pieces, Piece(new.start, _U64, True)) - 1, 0)
    while first < len(pieces) and pieces[first].end <= new.start:
        first += 1
    last = first
    while last < len(pieces) and pieces[last].start < new.end:
        last += 1
    rest = []
    if first < last:
        rest = [
            pieces[first]._replace(end=new.start),
            pieces[last - 1]._replace(start=new.end),
        ]
    pieces[first:last] = sorted(p for p in [new, *rest] if p.start < p.end)


def _note(order: str, name: bytes, type_: int, descriptor: bytes) -> bytes:
    name += b"\0"
    header = struct.pack(order + "III", len(name), len(descriptor), type_)
    return header + name + bytes(-len(name) % 4) + descriptor + bytes(-len(descriptor) % 4)


def _diskdump_notes(file: BinaryIO) -> bytes:
    """Return the ELF notes in a kdump-compressed file, b"" if it has none or another format.

    64-bit little-endian only: struct disk_dump_header has block_size at 428, the sub header in the
    next block has offset_note and size_note at 48 since header version 4.
    """
    file.seek(0)
    header = file.read(432)
    if len(header) < 432 or header[:8] not in (b"KDUMP   ", b"DISKDUMP"):
        return b""
    (version,) = struct.unpack_from("<i", header, 8)
    (block_size,) = struct.unpack_from("<i", header, 428)
    if version < 4 or not FRAME_SIZE <= block_size <= 1 << 20:
        return b""
    file.seek(block_size)
    offset, size = struct.unpack_from("<QQ", file.read(64), 48)
    if not 0 < size <= _MAX_NOTES:
        return b""
    file.seek(offset)
    return file.read(size)


def write_core(path: str, source: FrameSource, pieces: Sequence[Piece]) -> None:
    """Write an ELF64 core: the notes, then one PT_LOAD per piece, addressed physically."""
    if len(pieces) > _MAX_SEGMENTS:
        raise TargetError(f"the audit read {len(pieces)} separate runs of frames: too many")
    order = source.order
    offset = 64 + 56 * (1 + len(pieces))
    table = [struct.pack(order + "IIQQQQQQ", _PT_NOTE, 0, offset, 0, 0, len(source.notes), 0, 0)]
    offset += len(source.notes)
    with open(path, "wb") as file:
        file.seek(offset)
        for piece in pieces:
            offset = -(-offset // FRAME_SIZE) * FRAME_SIZE
            size = piece.end - piece.start
            filesz = size if piece.in_file else 0
            table.append(
                struct.pack(
                    order + "IIQQQQQQ", _PT_LOAD, 7, offset, 0, piece.start, filesz, size, 0
                )
            )
            if piece.in_file:
                file.seek(offset)
                _copy(file, source.prog, piece)
                offset += size
        file.seek(0)
        file.write(_core_header(source, len(table)) + b"".join(table) + source.notes)


def _core_header(source: FrameSource, phnum: int) -> bytes:
    encoding = b"\x02" if source.order == ">" else b"\x01"
    ident = b"\x7fELF\x02" + encoding + b"\x01" + bytes(9)
    return ident + struct.pack(
        source.order + "HHIQQQIHHHHHH",
        *(_ET_CORE, source.machine, 1, 0, 64, 0, source.flags, 64, 56, phnum, 64, 0, 0),
    )


def _copy(file: BinaryIO, prog: Program, piece: Piece) -> None:
    file.writelines(
        prog.read(start, min(_COPY_SIZE, piece.end - start), physical=True)
        for start in range(piece.start, piece.end, _COPY_SIZE)
    )
