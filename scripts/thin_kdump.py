#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Cut a kdump-compressed vmcore down to the frames of its slice, for a bundled vmcore.

usage: thin_kdump.py VMCORE SLICE OUT     (SLICE: the ELF core that `zonedev slice` made of VMCORE)

Headers, notes and the bytes of each page that stays are makedumpfile's, copied as they are and not
compressed anew; a page that goes becomes an excluded one: its bit in the second bitmap is cleared.
Reads a file of makedumpfile or the crash kernel, nothing else: 64 bits, little endian, not flattened, not split.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

_EHDR = struct.Struct("<32xQ14xHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_DESCRIPTOR = struct.Struct("<QIIQ")  # offset, size, flags, page_flags
_PT_LOAD = 1


def frames_of(core: bytes, size: int) -> set[int]:
    """Page frames that the PT_LOADs of an ELF core hold."""
    offset, entry, count = _EHDR.unpack_from(core)
    found: set[int] = set()
    for i in range(count):
        type_, _, _, _, physical, filled, _, _ = _PHDR.unpack_from(core, offset + i * entry)
        if type_ == _PT_LOAD:
            found.update(range(physical // size, (physical + filled) // size))
    return found


def set_bits(bitmap: bytes) -> list[int]:
    """Numbers of the bits that are set, upward."""
    return [
        8 * i + bit for i, byte in enumerate(bitmap) if byte for bit in range(8) if byte >> bit & 1
    ]


def thin(data: bytes, wanted: set[int]) -> bytes:
    """The file with the pages of *wanted* only.

    :raises ValueError: it is no such file, or lacks one of them
    """
    block, sub_blocks, bitmap_blocks = struct.unpack_from("<iiI", data, 428)
    if data[:8] != b"KDUMP   ":
        raise ValueError("not a kdump-compressed file")
    bitmaps = block * (1 + sub_blocks)
    second = bitmaps + block * bitmap_blocks // 2
    descriptors = bitmaps + block * bitmap_blocks
    dumped = set_bits(data[second:descriptors])
    if not wanted <= set(dumped):
        raise ValueError(f"{len(wanted - set(dumped))} frames of the slice are not in it")
    kept = bytearray(descriptors - second)
    for pfn in wanted:
        kept[pfn // 8] |= 1 << pfn % 8
    # Pages of zeroes share their bytes.
    places: dict[int, int] = {}
    table, pages = bytearray(), bytearray()
    start = descriptors + len(wanted) * _DESCRIPTOR.size
    for i, pfn in enumerate(dumped):
        if pfn in wanted:
            entry = _DESCRIPTOR.unpack_from(data, descriptors + i * _DESCRIPTOR.size)
            offset, size, flags, page_flags = entry
            if offset not in places:
                places[offset] = start + len(pages)
                pages += data[offset : offset + size]
            table += _DESCRIPTOR.pack(places[offset], size, flags, page_flags)
    return data[:second] + bytes(kept) + bytes(table) + bytes(pages)


def main() -> None:
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    vmcore, cut, out = map(Path, sys.argv[1:])
    data = vmcore.read_bytes()
    try:
        made = thin(data, frames_of(cut.read_bytes(), struct.unpack_from("<i", data, 428)[0]))
    except (ValueError, struct.error) as err:
        sys.exit(f"thin_kdump.py: {vmcore}: {err}")
    out.write_bytes(made)
    print(f"{out}: {len(made)} of {len(data)} bytes")


if __name__ == "__main__":
    main()
