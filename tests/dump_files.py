# SPDX-License-Identifier: LGPL-2.1-or-later
"""Dumps of a few frames of memory, written as ELF cores or as what makedumpfile compresses.

A Memmap is struct pages behind page tables of x86-64, as a kernel has them.
"""

from __future__ import annotations

import functools
import random
import struct
from pathlib import Path
from typing import Optional

from drgn import FaultError
from page_compression import FORMATS, Compressor

FRAME = 4096
_PRESENT = 0x63
_TABLES = 0x100000
_DATA = 0x40000000
_PHDR = struct.Struct("<IIQQQQQQ")


class Memmap:
    """Struct pages at a virtual address, and the physical memory that has them.

    root: physical address of the top page table; frames: bytes by physical address.
    """

    def __init__(self, address: int, data: bytes, levels: int = 4) -> None:
        assert address % FRAME == 0
        self.address, self.size, self.levels = address, len(data), levels
        self.frames: dict[int, bytes] = {}
        self._tables: dict[int, list[int]] = {}
        self.root = self._new_table()
        self.physical: list[Optional[int]] = []
        for i in range(0, len(data), FRAME):
            self.frames[_DATA + i] = data[i : i + FRAME].ljust(FRAME, b"\xee")
            self.physical.append(_DATA + i)

    def _new_table(self) -> int:
        at = _TABLES + len(self._tables) * FRAME
        self._tables[at] = [0] * 512
        return at

    def share(self, index: int, other: int) -> None:
        """Let a frame of the memmap be the very one that another is."""
        old = self.physical[index]
        self.physical[index] = self.physical[other]
        if old is not None and old not in self.physical:
            self.frames.pop(old, None)

    def lose(self, index: int) -> None:
        """Leave a frame out of the dump."""
        at = self.physical[index]
        assert at is not None
        self.frames.pop(at, None)

    def unmap(self, index: int) -> None:
        self.physical[index] = None

    def _map(self, index: int, physical: int) -> None:
        address, at = self.address + index * FRAME, self.root
        for level in range(self.levels - 1, 0, -1):
            slot = address >> (12 + 9 * level) & 511
            if not self._tables[at][slot]:
                self._tables[at][slot] = self._new_table() | _PRESENT
            at = self._tables[at][slot] & ~(FRAME - 1)
        self._tables[at][address >> 12 & 511] = physical | _PRESENT

    def memory(self) -> dict[int, bytes]:
        """All frames of the dump by their physical address, in rising order."""
        for index, physical in enumerate(self.physical):
            if physical is not None:
                self._map(index, physical)
        tables = {at: struct.pack("<512Q", *slots) for at, slots in self._tables.items()}
        return dict(sorted((tables | self.frames).items()))

    def translate(self, address: int) -> int:
        """As physical_address() of zonedev.kernel.translate."""
        physical = self.physical[(address - self.address) // FRAME]
        if physical is None:
            raise FaultError("address is not mapped", address)
        return physical + address % FRAME

    def read(self, address: int, size: int) -> bytes:
        """As Program.read()."""
        data = b""
        while len(data) < size:
            at = self.translate(address + len(data))
            frame = self.frames.get(at - at % FRAME)
            if frame is None:
                raise FaultError("could not find physical memory segment", at)
            data += frame[at % FRAME : at % FRAME + size - len(data)]
        return data


def write_elf(path: Path, memory: dict[int, bytes]) -> None:
    runs: list[list[int]] = []
    for at in memory:
        if runs and runs[-1][-1] + FRAME == at:
            runs[-1].append(at)
        else:
            runs.append([at])
    offset = (64 + 56 * len(runs) + FRAME - 1) // FRAME * FRAME
    headers = b""
    for run in runs:
        size = len(run) * FRAME
        headers += _PHDR.pack(1, 6, offset, 0, run[0], size, size, 0)
        offset += size
    head = struct.pack(
        "<16sHHIQQQIHHHHHH",
        *(b"\x7fELF\x02\x01\x01", 4, 62, 1, 0, 64, 0, 0, 64, 56, len(runs), 0, 0, 0),
    )
    with open(path, "wb") as file:
        file.write(
            (head + headers).ljust((64 + 56 * len(runs) + FRAME - 1) // FRAME * FRAME, b"\0")
        )
        file.writelines(memory.values())


@functools.cache
def _compressor(method: str) -> tuple[int, Compressor]:
    flag, make = FORMATS[method]
    return flag, make()


METHODS = ("none", *FORMATS)
"""How a page may be kept."""


def write_kdump(path: Path, memory: dict[int, bytes], *methods: str) -> None:
    """Frames that differ are compressed by one method after the other.

    :raises LibraryMissing: what compresses is not installed
    """
    pages = max(memory) // FRAME + 1
    blocks = (pages + 8 * FRAME - 1) // (8 * FRAME)
    bitmap = bytearray(blocks * FRAME)
    for at in memory:
        bitmap[at // FRAME // 8] |= 1 << at // FRAME % 8
    header = struct.pack(
        "<8si416siiIIIIIII", b"KDUMP   ", 6, b"", FRAME, 1, 2 * blocks, 0, *(0,) * 5
    )
    sub = struct.pack("<Qii10QQ", 0, 0, 0, *(0,) * 10, pages)
    packed: dict[bytes, tuple[int, bytes]] = {}
    for data in memory.values():
        if data not in packed:
            method = methods[len(packed) % len(methods)]
            flags, compress = (0, bytes) if method == "none" else _compressor(method)
            small = compress(data)
            packed[data] = (flags, small) if len(small) < FRAME else (0, data)
    offset = FRAME * (2 + 2 * blocks) + 24 * len(memory)
    with open(path, "wb") as file:
        file.write(header.ljust(FRAME, b"\0") + sub.ljust(FRAME, b"\0") + bitmap + bitmap)
        for data in memory.values():
            how, small = packed[data]
            file.write(struct.pack("<QIIQ", offset, len(small), how, 0))
            offset += len(small)
        for data in memory.values():
            file.write(packed[data][1])


FLAT_END = struct.pack(">qq", -1, -1)


def _flat_records(data: bytes, rng: Optional[random.Random]) -> list[tuple[int, bytes]]:
    size = 3 * FRAME
    records = [(at, data[at : at + size]) for at in range(0, len(data), size)]
    if rng is None:
        return records[::-1]
    rng.shuffle(records)
    for _ in range(rng.randrange(1, 20)):
        # What is written over later: some of it in the midst of others, some of several.
        at = rng.randrange(len(data))
        records.insert(0, (at, rng.randbytes(min(rng.randrange(1, 4 * size), len(data) - at))))
    return records


def flatten(
    source: Path, path: Path, end: bytes = FLAT_END, rng: Optional[random.Random] = None
) -> None:
    """A file as makedumpfile -F writes it: pieces with their places, here the last one first, or at random."""
    with open(path, "wb") as file:
        file.write(
            (b"makedumpfile".ljust(16, b"\0") + struct.pack(">qq", 1, 1)).ljust(FRAME, b"\0")
        )
        for at, piece in _flat_records(source.read_bytes(), rng):
            file.write(struct.pack(">qq", at, len(piece)) + piece)
        file.write(end)
