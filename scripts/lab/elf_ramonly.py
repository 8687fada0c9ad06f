#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Cut an ELF core down to "System RAM", which is what /proc/vmcore of a kdump kernel has.

usage: elf_ramonly.py CORE TRUTH.jsonl OUT [--devices]   (the record has the guest's /proc/iomem)

Persistent memory goes away, and with it the struct pages of --map=dev namespaces (altmap), as far
as they lie in the device. Notes stay as they are; holes of the input stay holes.
--devices keeps the devices that the record names, and nothing else of them. Either is what makedumpfile
wants: it reads the struct pages of every 2 MiB of a PT_LOAD, and fails on device memory that has none.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import struct
import sys
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

PAGE = 4096
EHDR_SIZE = 64
PHDR = struct.Struct("<IIQQQQQQ")
PT_LOAD, PT_NOTE = 1, 4
COPY_SIZE = 1 << 20

# addresses [start, end)
Range = tuple[int, int]


@dataclasses.dataclass
class Segment:
    """A program header of the input, or a part of one."""

    type: int
    flags: int
    offset: int
    vaddr: int
    paddr: int
    size: int

    def part(self, start: int, end: int) -> Segment:
        skip = start - self.paddr
        vaddr = self.vaddr + skip if self.vaddr else 0
        return Segment(self.type, self.flags, self.offset + skip, vaddr, start, end - start)


def events(record: Path, kind: str) -> Iterator[dict[str, Any]]:
    for line in record.read_text(errors="replace").splitlines():
        if f'"ev":"{kind}"' in line:
            yield json.loads(line)


def without(ranges: list[Range], start: int, end: int) -> list[Range]:
    """Ranges less [start, end)."""
    parts = [part for a, b in ranges for part in ((a, min(b, start)), (max(a, end), b))]
    return [(a, b) for a, b in parts if a < b]


def system_ram(record: Path) -> list[Range]:
    """System RAM without the crash kernel's, whole pages only as kexec does."""
    text = next(events(record, "iomem"))["text"]
    found = re.findall(r"^( *)([0-9a-f]+)-([0-9a-f]+) : (System RAM|Crash kernel)$", text, re.M)
    ranges: list[Range] = []
    for indent, a, b, name in found:
        start, end = -(-int(a, 16) // PAGE) * PAGE, (int(b, 16) + 1) // PAGE * PAGE
        if name == "Crash kernel":
            ranges = without(ranges, start, end)
        elif not indent:
            ranges.append((start, end))
    return ranges


def devices(record: Path) -> list[Range]:
    """Memory of the devices that the record names."""
    return [(event["start"], event["start"] + event["size"]) for event in events(record, "range")]


def read_segments(file: FileIO) -> tuple[bytearray, list[Segment]]:
    header = bytearray(file.read(EHDR_SIZE))
    (phoff,) = struct.unpack_from("<Q", header, 32)
    (number,) = struct.unpack_from("<H", header, 56)
    file.seek(phoff)
    raw = [PHDR.unpack(file.read(PHDR.size)) for _ in range(number)]
    return header, [
        Segment(t, flags, offset, vaddr, paddr, size)
        for t, flags, offset, vaddr, paddr, size, _, _ in raw
    ]


def data_of(file: FileIO, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Parts of [start, end) of a sparse file that are no holes."""
    while start < end:
        try:
            data = os.lseek(file.fileno(), start, os.SEEK_DATA)
        except OSError:
            return  # only a hole is left
        if data >= end:
            return
        start = min(os.lseek(file.fileno(), data, os.SEEK_HOLE), end)
        yield data, start


def copy(source: FileIO, target: BinaryIO, segment: Segment, to: int) -> None:
    for start, end in data_of(source, segment.offset, segment.offset + segment.size):
        source.seek(start)
        target.seek(to + start - segment.offset)
        while start < end:
            block = source.read(min(COPY_SIZE, end - start))
            target.write(block)
            start += len(block)


def parts_of(segments: list[Segment], wanted: list[Range]) -> list[Segment]:
    parts = []
    for segment in segments:
        if segment.type != PT_LOAD:
            continue
        for start, end in wanted:
            first, last = max(start, segment.paddr), min(end, segment.paddr + segment.size)
            if first < last:
                parts.append(segment.part(first, last))
    return parts


def cut(core: Path, record: Path, out: Path, with_devices: bool = False) -> None:
    wanted = sorted(system_ram(record) + (devices(record) if with_devices else []))
    # unbuffered: data_of() moves the file position
    with core.open("rb", buffering=0) as source, out.open("wb") as target:
        header, segments = read_segments(source)
        notes = [segment for segment in segments if segment.type == PT_NOTE]
        loads = parts_of(segments, wanted)
        offset = EHDR_SIZE + PHDR.size * (len(notes) + len(loads))
        program_headers = b""
        for segment in [*notes, *loads]:
            if segment.type == PT_LOAD:
                offset = -(-offset // PAGE) * PAGE
            copy(source, target, segment, offset)
            s = segment
            program_headers += PHDR.pack(
                s.type, s.flags, offset, s.vaddr, s.paddr, s.size, s.size, 0
            )
            offset += segment.size
        target.truncate(offset)
        struct.pack_into("<QQ", header, 32, EHDR_SIZE, 0)
        struct.pack_into("<HHHHH", header, 54, PHDR.size, len(notes) + len(loads), 0, 0, 0)
        target.seek(0)
        target.write(header + program_headers)


if __name__ == "__main__":
    paths = [Path(argument) for argument in sys.argv[1:] if argument != "--devices"]
    if len(paths) != 3:
        sys.exit(__doc__)
    cut(*paths, with_devices="--devices" in sys.argv)
