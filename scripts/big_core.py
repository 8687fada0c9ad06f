#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes a vmcore with as much device memory as is asked for out of a bundled one, to measure with.

usage: scripts/big_core.py OUT --gib N [--format elf|zlib|lzo|snappy|zstd] [--busy PERCENT] [--shared]

Adds one more pagemap of N GiB (a power of two, 1 to 1024), a copy of the first of the bundled core, with all that an
audit asks for: entries of the registry, memory sections, 2 MiB entries of the kernel's page tables, and struct
pages.  Everything else stays as the real kernel had it, and its debug file fits.  The pages are idle, or, in PERCENT
of the frames of the memmap, in a file: mapped once, each with an index of its own, so that no two frames are alike.

With --shared, frames of the memmap share bytes of the file: 256 MiB of an ELF file stand for the rest, one compressed
page for all that are equal (as makedumpfile does for zeroes only).  Without, every frame has its own, as in real dumps.

Invariant: of the added memory, the file holds all or the run fails; x86-64 and 4 KiB pages only.
"""

from __future__ import annotations

import argparse
import struct
import sys
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from drgn import FaultError, Program, offsetof, sizeof

from zonedev.kernel.facts import Kernel, read_kernel
from zonedev.kernel.symbols import vmcoreinfo_symbol
from zonedev.kernel.translate import physical_address
from zonedev.model import Pagemap
from zonedev.target import Target, open_target

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent / "lab"))
from coreedit import PT_LOAD, PT_NOTE, read_program_headers
from page_compression import FORMATS, Compressor, LibraryMissing
from unpack_vmcore import unpack

ROOT = Path(__file__).resolve().parent.parent

FRAME = 4096
GIB = 1 << 30
GIB_MAX = 1024

# Of idle pages, a core whose memory sections and files are there, too; of pages in files, one whose files are not,
# so that nobody misses their entries.
IDLE_BASE, BUSY_BASE = "7.2-entries", "7.2-nvdimm"

# Where the device lies, and its memmap: behind all memory of the bundled cores, and aligned to all that matters.
DEVICE_PFN = 1 << 28
MEMMAP_PHYSICAL = 64 * GIB

SHARED_BYTES = 256 << 20
_CHUNK_FRAMES = 512

# Entries of x86-64 page tables: of tables, and of 2 MiB of kernel data.
_TABLE, _LARGE, _KERNEL_LARGE = 0x63, 1 << 7, 1 << 63 | 0x1E3
_ADDRESS = ((1 << 52) - 1) & ~(FRAME - 1)

_XA_SHIFT = 6
_XA_SLOTS = 1 << _XA_SHIFT


class Memory:
    """Physical memory of a core, frame by frame, that can be written and grows by free frames of mapped RAM."""

    def __init__(self, prog: Program, frames: dict[int, bytearray], known: int) -> None:
        """known: an address of the direct map."""
        self.prog, self.frames = prog, frames
        self.direct_map = known - physical_address(prog, known)
        self._free = self._free_frames()

    def _free_frames(self) -> Iterator[int]:
        """Frames that the core lacks, and the direct map has."""
        for physical in range(16 << 20, GIB, FRAME):
            if physical in self.frames:
                continue
            try:
                mapped = physical_address(self.prog, self.direct_map + physical)
            except FaultError:
                # The core lacks a table.
                continue
            if mapped == physical:
                yield physical

    def add_frame(self) -> int:
        """A new frame of zeroes: its physical address."""
        physical = next(self._free)
        self.frames[physical] = bytearray(FRAME)
        return physical

    def add(self, data: bytes) -> int:
        """At most a frame of new memory: its address in the direct map."""
        physical = self.add_frame()
        self.frames[physical][: len(data)] = data
        return self.direct_map + physical

    def write(self, physical: int, data: bytes) -> None:
        """Within a frame."""
        frame, at = physical & ~(FRAME - 1), physical % FRAME
        assert at + len(data) <= FRAME
        self.frames[frame][at : at + len(data)] = data

    def write_virtual(self, address: int, data: bytes) -> None:
        self.write(physical_address(self.prog, address), data)

    def word(self, physical: int) -> int:
        frame = self.frames[physical & ~(FRAME - 1)]
        return int.from_bytes(frame[physical % FRAME : physical % FRAME + 8], "little")


def word(value: int) -> bytes:
    return (value & (1 << 64) - 1).to_bytes(8, "little")


# ---------------------------------------------------------------- what the kernel has of a pagemap


def add_pagemap(kernel: Kernel, memory: Memory, like: Pagemap, pages: int) -> int:
    """A dev_pagemap like another one, with a reference of its own: its address."""
    prog = kernel.prog
    pgmap, data = prog.type("struct dev_pagemap"), prog.type("struct percpu_ref_data")
    one = bytearray(prog.read(like.address, sizeof(pgmap)))
    start = DEVICE_PFN * FRAME
    at = offsetof(pgmap, "range.start")
    one[at : at + 8] = word(start)
    at = offsetof(pgmap, "range.end")
    one[at : at + 8] = word(start + pages * FRAME - 1)
    at = offsetof(pgmap, "ref.data")
    ref = bytearray(prog.read(int.from_bytes(one[at : at + 8], "little"), sizeof(data)))
    # What CPUs have counted is the other's, and added up for this one, too.
    count = offsetof(data, "count.counter")
    old = int.from_bytes(ref[count : count + 8], "little")
    ref[count : count + 8] = word(old + pages - like.pages)
    one[at : at + 8] = word(memory.add(bytes(ref)))
    return memory.add(bytes(one))


def xa_node(
    kernel: Kernel, shift: int, offset: int, parent: int, slots: dict[int, int]
) -> bytearray:
    """A struct xa_node."""
    prog, node = kernel.prog, kernel.prog.type("struct xa_node")
    data = bytearray(sizeof(node))
    data[offsetof(node, "shift")] = shift
    data[offsetof(node, "offset")] = offset
    data[offsetof(node, "count")] = len(slots)
    at = offsetof(node, "parent")
    data[at : at + 8] = word(parent)
    at = offsetof(node, "array")
    data[at : at + 8] = word(int(prog["pgmap_array"].address_of_()))
    for slot, entry in slots.items():
        at = offsetof(node, "slots") + 8 * slot
        data[at : at + 8] = word(entry)
    return data


def _run_of_slots(first: int, count: int, entry: int) -> dict[int, int]:
    """An item in consecutive slots: it, and its siblings."""
    return {first: entry} | {slot: first << 2 | 2 for slot in range(first + 1, first + count)}


def register(kernel: Kernel, memory: Memory, pgmap: int, pages: int) -> None:
    """Entries of the registry for the pagemap: a new top over the tree that is there."""
    prog = kernel.prog
    head = int(prog["pgmap_array"].xa_head)
    node = prog.type("struct xa_node")
    old = head & ~3
    below = prog.read(old + offsetof(node, "shift"), 1)[0]
    shift = below + _XA_SHIFT
    if shift != 24:
        raise SystemExit("big_core.py: the registry of this core is of another height")
    top = memory.add(b"")
    first, count = DEVICE_PFN >> shift, pages >> shift
    if count:
        slots = _run_of_slots(first, count, pgmap)
    else:
        child = xa_node(kernel, below, first, top, _run_of_slots(0, pages >> below, pgmap))
        slots = {first: memory.add(bytes(child)) | 2}
    memory.write_virtual(top, bytes(xa_node(kernel, shift, 0, 0, {0: head} | slots)))
    memory.write_virtual(old + offsetof(node, "parent"), word(top))
    memory.write_virtual(old + offsetof(node, "offset"), b"\0")
    memory.write_virtual(int(prog["pgmap_array"].xa_head.address_of_()), word(top | 2))


def add_sections(kernel: Kernel, memory: Memory, like: Pagemap, pages: int) -> None:
    """Memory sections like that of another pagemap, whole; none where the core does not know their type."""
    prog = kernel.prog
    try:
        usage_type = prog.type("struct mem_section_usage")
    except LookupError:
        return
    section = prog.type("struct mem_section")
    shift = int(prog["SECTION_SIZE_BITS"]) - 12
    roots, per_root = int(prog["mem_section"]), int(prog["SECTIONS_PER_ROOT"])
    number = like.ranges[0].start_pfn >> shift
    root = prog.read_word(roots + number // per_root * 8)
    one = bytearray(prog.read(root + number % per_root * sizeof(section), sizeof(section)))
    usage = bytearray(offsetof(usage_type, "subsection_map"))
    usage += b"\xff" * (1 << shift - 9 >> 3)
    first, end = DEVICE_PFN >> shift, DEVICE_PFN + pages >> shift
    for number in range(first, end, per_root):
        present = min(per_root, end - number)
        usages = memory.add(bytes(usage) * present)
        data = bytearray()
        for i in range(present):
            at = offsetof(section, "usage")
            one[at : at + 8] = word(usages + i * len(usage))
            data += one
        memory.write_virtual(roots + number // per_root * 8, word(memory.add(bytes(data))))


def map_memmap(kernel: Kernel, memory: Memory, pages: int) -> None:
    """The vmemmap of the pages, by 2 MiB entries, at MEMMAP_PHYSICAL."""
    directory = vmcoreinfo_symbol(kernel.prog, "swapper_pg_dir")
    assert directory is not None
    top = physical_address(kernel.prog, directory)
    start = kernel.layout.page_address(DEVICE_PFN)
    size = pages * kernel.layout.page_size
    for at in range(0, size, 2 << 20):
        table = top
        for shift in (39, 30):
            entry = table + (start + at >> shift & 511) * 8
            if not memory.word(entry) & 1:
                memory.write(entry, word(memory.add_frame() | _TABLE))
            table = memory.word(entry) & _ADDRESS
        entry = table + (start + at >> 21 & 511) * 8
        memory.write(entry, word(MEMMAP_PHYSICAL + at | _KERNEL_LARGE))


# ---------------------------------------------------------------- struct pages


class Memmap:
    """The struct pages that are added: frame i of them is idle, or all its own."""

    def __init__(self, kernel: Kernel, like: Pagemap, pgmap: int, pages: int, busy: int) -> None:
        layout = kernel.layout
        self.size = layout.page_size
        self.frames = pages * self.size // FRAME
        self._busy, self._fields = busy, layout.fields
        range_ = like.ranges[0]
        count = range_.end_pfn - range_.first_pfn
        data = kernel.prog.read(layout.page_address(range_.first_pfn), count * self.size)
        every = Counter(data[i : i + self.size] for i in range(0, len(data), self.size))
        idle = bytearray(every.most_common(1)[0][0])
        self._set(idle, "pgmap", pgmap)
        self.idle = bytes(idle) * (FRAME // self.size)
        in_file = bytearray(idle)
        self._set(in_file, "mapping", memory_of_a_file(kernel))
        self._set(in_file, "_refcount", 1)
        self._set(in_file, "_mapcount", 0)
        self._in_file = bytes(in_file)

    def _set(self, page: bytearray, member: str, value: int) -> None:
        at, size, _ = self._fields[member]
        page[at : at + size] = value.to_bytes(size, "little")

    def is_idle(self, frame: int) -> bool:
        """Busy frames are spread evenly."""
        return (frame + 1) * self._busy // 100 == frame * self._busy // 100

    def _busy_frame(self, frame: int) -> bytes:
        pages = FRAME // self.size
        words = array("Q", self._in_file * pages)
        words[self._fields["index"][0] // 8 :: self.size // 8] = array(
            "Q", range(frame * pages, (frame + 1) * pages)
        )
        return words.tobytes()

    def frame(self, number: int) -> bytes:
        return self.idle if self.is_idle(number) else self._busy_frame(number)

    def chunk(self, first: int) -> bytes:
        count = min(_CHUNK_FRAMES, self.frames - first)
        if not self._busy:
            return self.idle * count
        return b"".join(self.frame(first + i) for i in range(count))


def memory_of_a_file(kernel: Kernel) -> int:
    """An address that a mapping may have: of some word-aligned kernel memory."""
    return (kernel.pagemaps[0].address & ~0xFFF) + 0x18


class Machine(NamedTuple):
    """Everything that goes into a file: notes, frames by physical address, and the memmap at MEMMAP_PHYSICAL."""

    notes: bytes
    frames: dict[int, bytearray]
    memmap: Memmap


def _without_registers(notes: bytes) -> bytes:
    """Notes without those of QEMU: libkdumpfile would start at a CPU's page directory, which a slice need not hold."""
    kept, at = b"", 0
    while at + 12 <= len(notes):
        name_size, size, _ = struct.unpack_from("<III", notes, at)
        end = at + 12 + (name_size + 3 & ~3) + (size + 3 & ~3)
        if notes[at + 12 : at + 12 + name_size].rstrip(b"\0") != b"QEMU":
            kept += notes[at:end]
        at = end
    return kept


def read_machine(core: str) -> tuple[bytes, dict[int, bytearray]]:
    """Notes and frames of an ELF core."""
    notes, frames = b"", {}
    with open(core, "rb") as file:
        for row in read_program_headers(core).rows:
            file.seek(row.offset)
            if row.kind == PT_NOTE:
                notes += file.read(row.filesz)
            elif row.kind == PT_LOAD:
                for at in range(0, row.filesz, FRAME):
                    frames[row.paddr + at] = bytearray(file.read(FRAME).ljust(FRAME, b"\0"))
    return _without_registers(notes), frames


def base_of(busy: int) -> Path:
    """Directory of the bundled core that is enlarged; its vmlinux is that of what comes out."""
    return ROOT / "tests" / "vmcores" / (BUSY_BASE if busy else IDLE_BASE)


def make_machine(gib: int, busy: int) -> Machine:
    base = base_of(busy)
    core = str(unpack(base, ROOT / "build" / "vmcores"))
    kernel = read_kernel(open_target(Target(core, [str(base / "vmlinux")])))
    notes, frames = read_machine(core)
    like = kernel.pagemaps[0]
    memory = Memory(kernel.prog, frames, like.address)
    pages = gib * GIB // FRAME
    pgmap = add_pagemap(kernel, memory, like, pages)
    register(kernel, memory, pgmap, pages)
    add_sections(kernel, memory, like, pages)
    map_memmap(kernel, memory, pages)
    return Machine(notes, frames, Memmap(kernel, like, pgmap, pages, busy))


# ---------------------------------------------------------------- ELF

_EHDR = struct.Struct("<16sHHIQQQIHHHHHH")
_PHDR = struct.Struct("<IIQQQQQQ")
_IDENT = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
_ET_CORE, _EM_X86_64 = 4, 62


def _runs(frames: dict[int, bytearray]) -> list[tuple[int, int]]:
    """(physical, bytes) of adjacent frames."""
    runs: list[tuple[int, int]] = []
    for physical in sorted(frames):
        if runs and sum(runs[-1]) == physical:
            runs[-1] = runs[-1][0], runs[-1][1] + FRAME
        else:
            runs.append((physical, FRAME))
    return runs


def write_elf(file: BinaryIO, machine: Machine, shared: bool) -> None:
    runs = _runs(machine.frames)
    size = machine.memmap.frames * FRAME
    stored = min(size, SHARED_BYTES) if shared else size
    count = 1 + len(runs) + size // stored
    table = bytearray()
    at = -(-(_EHDR.size + count * _PHDR.size) // FRAME) * FRAME
    notes_at = at
    table += _PHDR.pack(PT_NOTE, 0, at, 0, 0, len(machine.notes), 0, 0)
    at += -(-len(machine.notes) // FRAME) * FRAME
    frames_at = at
    for physical, length in runs:
        table += _PHDR.pack(PT_LOAD, 7, at, 0, physical, length, length, 0)
        at += length
    # As the kernel's own cores have it: aligned like huge pages.
    at = -(-at // (2 << 20)) * (2 << 20)
    for part in range(size // stored):
        physical = MEMMAP_PHYSICAL + part * stored
        table += _PHDR.pack(PT_LOAD, 7, at, 0, physical, stored, stored, 0)
    head = (_ET_CORE, _EM_X86_64, 1, 0, _EHDR.size, 0, 0, _EHDR.size, _PHDR.size, count, 0, 0, 0)
    file.write(_EHDR.pack(_IDENT, *head) + table)
    file.seek(notes_at)
    file.write(machine.notes)
    file.seek(frames_at)
    for physical in sorted(machine.frames):
        file.write(machine.frames[physical])
    file.seek(at)
    for first in range(0, stored // FRAME, _CHUNK_FRAMES):
        file.write(machine.memmap.chunk(first))


# ---------------------------------------------------------------- kdump-compressed

_DESCRIPTOR = struct.Struct("<QIIQ")  # offset, size, flags, page_flags
_RAW = 0
_SUB_HEADER = struct.Struct("<QiiQQQQQQQQQQQ")
_BITS_PER_BLOCK = FRAME * 8


class Pages:
    """Compressed pages on their way into a file, and their descriptors."""

    def __init__(self, file: BinaryIO, at: int, flag: int, compress: Compressor) -> None:
        self._file, self._at, self._flag, self._compress = file, at, flag, compress
        self.descriptors = bytearray()

    def _packed(self, data: bytes) -> tuple[bytes, int]:
        packed = self._compress(data)
        return (packed, self._flag) if len(packed) < len(data) else (data, _RAW)

    def add(self, data: bytes) -> None:
        packed, flag = self._packed(data)
        self.descriptors += _DESCRIPTOR.pack(self._at, len(packed), flag, 0)
        self._file.write(packed)
        self._at += len(packed)

    def add_equal(self, data: bytes, count: int, shared: bool) -> None:
        """The same as add(), many times over."""
        packed, flag = self._packed(data)
        words = array("Q", bytes(count * _DESCRIPTOR.size))
        step = 0 if shared else len(packed)
        words[0::3] = array("Q", (self._at + i * step for i in range(count)))
        words[1::3] = array("Q", [len(packed) | flag << 32]) * count
        self.descriptors += words.tobytes()
        stored = 1 if shared else count
        self._at += stored * len(packed)
        whole, rest = divmod(stored, _CHUNK_FRAMES)
        for _ in range(whole):
            self._file.write(packed * _CHUNK_FRAMES)
        self._file.write(packed * rest)


def _header(sub_blocks: int, bitmap_blocks: int, pfns: int, flag: int, release: bytes) -> bytes:
    """struct disk_dump_header, version 6."""
    names = (b"Linux", b"bench", release, b"#1 SMP", b"x86_64", b"")
    head = struct.pack("<8si", b"KDUMP   ", 6) + b"".join(name.ljust(65, b"\0") for name in names)
    head = head.ljust(424, b"\0")
    fields = (flag, FRAME, sub_blocks, bitmap_blocks, min(pfns, (1 << 32) - 1), 0, 0, 0, 0, 1)
    return (head + struct.pack("<IiiIIIIIIi", *fields)).ljust(FRAME, b"\0")


def _sub_header(notes: bytes, pfns: int) -> bytes:
    at = FRAME + _SUB_HEADER.size
    start = notes.index(b"OSRELEASE=")
    end = notes.find(b"\0", start) if b"\0" in notes[start:] else len(notes)
    places = (at + start, end - start, at, len(notes), 0, 0, 0, 0, pfns)
    data = _SUB_HEADER.pack(0, 0, 0, 0, 0, *places) + notes
    return data.ljust(-(-len(data) // FRAME) * FRAME, b"\0")


def _release(notes: bytes) -> bytes:
    return notes[notes.index(b"OSRELEASE=") + 10 :].split(b"\n")[0]


def _bitmap(machine: Machine) -> list[tuple[int, bytes]]:
    """The bits of what is in the file: (offset, bytes) of the parts that are not zeroes."""
    low = bytearray(max(machine.frames) // FRAME // 8 + 1)
    for physical in machine.frames:
        low[physical // FRAME // 8] |= 1 << physical // FRAME % 8
    return [
        (0, bytes(low)),
        (MEMMAP_PHYSICAL // FRAME // 8, b"\xff" * (machine.memmap.frames // 8)),
    ]


def write_kdump(file: BinaryIO, machine: Machine, shared: bool, name: str) -> None:
    flag, compressor = FORMATS[name]
    memmap = machine.memmap
    pfns = MEMMAP_PHYSICAL // FRAME + memmap.frames
    blocks = -(-pfns // _BITS_PER_BLOCK)
    sub_header = _sub_header(machine.notes, pfns)
    release = _release(machine.notes)
    file.write(_header(len(sub_header) // FRAME, 2 * blocks, pfns, flag, release) + sub_header)
    bitmaps = file.tell()
    for number in range(2):
        for at, bits in _bitmap(machine):
            file.seek(bitmaps + number * blocks * FRAME + at)
            file.write(bits)
    descriptors = bitmaps + 2 * blocks * FRAME
    first = descriptors + (len(machine.frames) + memmap.frames) * _DESCRIPTOR.size
    file.seek(first)
    pages = Pages(file, first, flag, compressor())
    for physical in sorted(machine.frames):
        pages.add(bytes(machine.frames[physical]))
    _add_memmap(pages, memmap, shared)
    file.seek(descriptors)
    file.write(pages.descriptors)


def _add_memmap(pages: Pages, memmap: Memmap, shared: bool) -> None:
    idle = 0
    for number in range(memmap.frames):
        if memmap.is_idle(number):
            idle += 1
            continue
        if idle:
            pages.add_equal(memmap.idle, idle, shared)
        idle = 0
        pages.add(memmap.frame(number))
    if idle:
        pages.add_equal(memmap.idle, idle, shared)


# ---------------------------------------------------------------- the command


def make_core(
    out: Path, gib: int, format_: str = "elf", busy: int = 0, shared: bool = False
) -> str:
    """Write a core; the path of its debug file.

    :raises LibraryMissing: what compresses it is not installed
    """
    machine = make_machine(gib, busy)
    scratch = out.with_name(out.name + ".part")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with scratch.open("wb") as file:
            if format_ == "elf":
                write_elf(file, machine, shared)
            else:
                write_kdump(file, machine, shared, format_)
        scratch.replace(out)
    finally:
        scratch.unlink(missing_ok=True)
    return str(base_of(busy) / "vmlinux")


def _power_of_two(text: str) -> int:
    value = int(text)
    if not 0 < value <= GIB_MAX or value & (value - 1):
        raise argparse.ArgumentTypeError(f"a power of two up to {GIB_MAX}")
    return value


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--gib", type=_power_of_two, required=True)
    parser.add_argument("--format", choices=["elf", *FORMATS], default="elf")
    parser.add_argument("--busy", type=int, choices=range(101), default=0, metavar="PERCENT")
    parser.add_argument("--shared", action="store_true")
    options = parser.parse_args()
    try:
        vmlinux = make_core(options.out, options.gib, options.format, options.busy, options.shared)
    except LibraryMissing as err:
        raise SystemExit(f"big_core.py: {err}: choose another --format") from None
    print(f"{options.out}: {options.out.stat().st_size} bytes; its debug file is {vmlinux}")


if __name__ == "__main__":
    main()
