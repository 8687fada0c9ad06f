# SPDX-License-Identifier: LGPL-2.1-or-later
"""Is a kdump-compressed file whole?  libkdumpfile maps such files, and reads behind the end of a file
that was cut off as zeroes or dies of SIGBUS, so that this is asked before it is opened.  And is it one of
several, or flattened?

And which pages does it hold?  Asking libkdumpfile page by page takes long where most are missing.

Reads the headers, bitmaps and the last page descriptors only.  Mirrors the format as makedumpfile documents
it: header, sub header, two bitmaps, a page descriptor per dumped page, data.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from itertools import groupby
from typing import BinaryIO, NamedTuple, Optional

SIGNATURES = (b"KDUMP   ", b"DISKDUMP")

# What makedumpfile writes to a pipe (-F) begins so; pieces of the file follow in any order.
_FLATTENED = b"makedumpfile\0"

# Offsets in struct disk_dump_header of 64-bit kernels: block_size, sub_hdr_size, bitmap_blocks.
_HEADER = 428
_DESCRIPTOR = 24

# header_version in struct disk_dump_header, split in struct kdump_sub_header, which has it since 2.
_VERSION, _VERSION_OF_SPLIT = 8, 2
_SPLIT = 12

_LAST_DESCRIPTORS = 1 << 16

# Of 2 TiB of 4 KiB pages.
_BITMAP_MAX = 64 << 20


class _Layout(NamedTuple):
    order: str
    block_size: int
    bitmap: int
    bitmap_size: int

    @property
    def descriptors(self) -> int:
        """Where the page descriptors begin."""
        return self.bitmap + self.bitmap_size


def _read_layout(file: BinaryIO) -> Optional[_Layout]:
    """Sizes out of the header; None where it is none (a 32-bit or damaged one)."""
    header = file.read(_HEADER + 12)
    if len(header) < _HEADER + 12 or header[:8] not in SIGNATURES:
        return None
    for order in ("<", ">"):
        block_size, sub_blocks, bitmap_blocks = struct.unpack_from(order + "iiI", header, _HEADER)
        if 512 <= block_size <= 1 << 20 and block_size & (block_size - 1) == 0 and sub_blocks >= 0:
            bitmap = block_size * (1 + sub_blocks)
            return _Layout(order, block_size, bitmap, block_size * bitmap_blocks)
    return None


def _count_pages(file: BinaryIO, layout: _Layout) -> int:
    """Bits in the second bitmap: pages that the dump holds."""
    file.seek(layout.bitmap + layout.bitmap_size // 2)
    left, count = layout.bitmap_size - layout.bitmap_size // 2, 0
    while left > 0:
        data = file.read(min(left, 1 << 20))
        if not data:
            break
        count += bin(int.from_bytes(data, "little")).count("1")
        left -= len(data)
    return count


def is_flattened(path: str) -> bool:
    """True for a file in makedumpfile's flattened format.

    :raises OSError: it cannot be read
    """
    with open(path, "rb") as file:
        return file.read(len(_FLATTENED)) == _FLATTENED


def is_part(path: str) -> bool:
    """True for one of the files that makedumpfile --split makes of a dump.

    :raises OSError: it cannot be read
    """
    with open(path, "rb") as file:
        layout = _read_layout(file)
        if layout is None:
            return False
        file.seek(_VERSION)
        version = file.read(4)
        file.seek(layout.block_size + _SPLIT)
        split = file.read(4)
    if len(split) < 4:
        return False
    (number,) = struct.unpack(layout.order + "i", version)
    return number >= _VERSION_OF_SPLIT and split != bytes(4)


class Sizes(NamedTuple):
    """Bytes that a dump must have at least: for its headers and descriptors, and for its data."""

    headers: int
    data: int


def wanted_sizes(path: str) -> Optional[Sizes]:
    """How long a kdump-compressed file must be; None for other files.

    :raises OSError: it cannot be read
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        if file.read(8) not in SIGNATURES:
            return None
        file.seek(0)
        layout = _read_layout(file)
        if layout is None:
            short = _HEADER + 12
            return Sizes(short, short) if size < short else None
        if layout.descriptors > size:
            return Sizes(layout.descriptors, layout.descriptors)
        pages = _count_pages(file, layout)
        end = layout.descriptors + pages * _DESCRIPTOR
        if end > size:
            return Sizes(end, end)
        # Data follows in the order of the descriptors.
        first = max(pages - _LAST_DESCRIPTORS, 0)
        file.seek(layout.descriptors + first * _DESCRIPTOR)
        data = file.read((pages - first) * _DESCRIPTOR)
        descriptors = struct.iter_unpack(layout.order + "QIIQ", data)
        return Sizes(end, max([end, *(offset + length for offset, length, _, _ in descriptors)]))


class Dumped(NamedTuple):
    """The pages that a dump holds: bit pfn % 8 of byte pfn // 8, for pages of block_size bytes."""

    block_size: int
    bitmap: bytes

    def _holds(self, pfn: int) -> bool:
        return pfn // 8 < len(self.bitmap) and bool(self.bitmap[pfn // 8] >> pfn % 8 & 1)

    def runs(self, start_pfn: int, end_pfn: int) -> Iterator[tuple[int, int, bool]]:
        """[start, end) of pages that follow each other, and whether they are there."""
        if not any(self.bitmap[start_pfn // 8 : -(-end_pfn // 8)]):
            yield start_pfn, end_pfn, False
            return
        for held, pages in groupby(range(start_pfn, end_pfn), self._holds):
            run = list(pages)
            yield run[0], run[-1] + 1, held


def read_dumped(path: str) -> Optional[Dumped]:
    """Which pages a kdump-compressed file holds; None for other files, and where it does not say.

    :raises OSError: it cannot be read
    """
    with open(path, "rb") as file:
        layout = _read_layout(file)
        if layout is None:
            return None
        size = layout.bitmap_size - layout.bitmap_size // 2
        if not 0 < size <= _BITMAP_MAX:
            return None
        file.seek(layout.bitmap + layout.bitmap_size // 2)
        bitmap = file.read(size)
    return Dumped(layout.block_size, bitmap) if len(bitmap) == size else None
