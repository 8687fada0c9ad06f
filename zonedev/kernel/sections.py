# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which pfns have a struct page by the kernel's own books: memory sections and their subsections.

Owns the reading of struct mem_section.  A section is early (present at boot, and whole), or was added
later in subsections of 2 MiB, each with a bit of its own.

Mirrors include/linux/mmzone.h and mm/sparse.c.  Whole roots are read at once: 1 TiB has 8192 sections.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from drgn import FaultError, PlatformFlags, Program, TypeKind, offsetof, sizeof

from zonedev.model import PfnRange

# Macros or enumerators, by kernel; the values never changed (SECTION_IS_ONLINE since 4.13, SECTION_IS_EARLY since 5.3).
_HAS_MEM_MAP, _IS_ONLINE, _IS_EARLY = 2, 4, 8
# Part of a section is a device's.  Since commit 1f90a3477df3 ("mm: teach pfn_to_online_page() about ZONE_DEVICE section
# collisions") (in v5.12); before, the bit was one of an address, and 0.
_TAINT_ZONE_DEVICE = 16

_SUBSECTION_SHIFT = 21

# Of one range; 64 TiB with sections of 128 MiB.
_SECTIONS_MAX = 1 << 19


class _Geometry(NamedTuple):
    """Shifts in pages (page_shift in bytes); offsets and sizes in bytes."""

    page_shift: int
    section_shift: int
    subsection_shift: int
    section_size: int
    sections_per_root: int
    roots: int
    usage: int
    subsection_map: int
    word_size: int
    byte_order: Literal["little", "big"]


def _usage(prog: Program) -> tuple[int, int]:
    """Offsets of mem_section.usage and mem_section_usage.subsection_map; -1 where sections are whole."""
    # Since commit f1eca35a0dc7 ("mm/sparsemem: introduce struct mem_section_usage") (in v5.3).
    try:
        map_ = offsetof(prog.type("struct mem_section_usage"), "subsection_map")
        return offsetof(prog.type("struct mem_section"), "usage"), map_
    except LookupError:
        return -1, 0


def _geometry(prog: Program) -> _Geometry:
    assert prog.platform is not None
    flags = prog.platform.flags
    page_shift = int(prog["PAGE_SHIFT"])
    usage, subsection_map = _usage(prog)
    return _Geometry(
        page_shift=page_shift,
        section_shift=int(prog["SECTION_SIZE_BITS"]) - page_shift,
        subsection_shift=_SUBSECTION_SHIFT - page_shift,
        section_size=sizeof(prog.type("struct mem_section")),
        # With SPARSEMEM_EXTREME a root is a page of sections; without, one section.
        sections_per_root=int(prog["SECTIONS_PER_ROOT"]),
        roots=int(prog["NR_SECTION_ROOTS"]),
        usage=usage,
        subsection_map=subsection_map,
        word_size=8 if flags & PlatformFlags.IS_64_BIT else 4,
        byte_order="little" if flags & PlatformFlags.IS_LITTLE_ENDIAN else "big",
    )


class Sections:
    """The sections of a kernel.

    :raises LookupError: the kernel has none (no SPARSEMEM), or its types are not known
    :raises FaultError: where they lie cannot be read
    """

    def __init__(self, prog: Program) -> None:
        self._prog = prog
        self._geometry = _geometry(prog)
        roots = prog["mem_section"]
        pointer = roots.type_.unaliased_kind() == TypeKind.POINTER
        self._roots = int(roots) if pointer else int(roots.address_of_())
        self._root_number, self._root_address, self._root = -1, 0, b""
        self.unread: list[tuple[int, int]] = []
        """Pfns [first, end) of sections that of_devices() has passed over."""

    def _section(self, number: int) -> bytes:
        """The struct mem_section of a section; empty where there is none."""
        geometry = self._geometry
        root, i = divmod(number, geometry.sections_per_root)
        if root >= geometry.roots:
            return b""
        if root != self._root_number:
            size = geometry.section_size * geometry.sections_per_root
            if geometry.sections_per_root == 1:
                address = self._roots + root * size
            else:
                address = self._prog.read_word(self._roots + root * geometry.word_size)
            self._root = self._prog.read(address, size) if address else b""
            self._root_number, self._root_address = root, address
        start = i * geometry.section_size
        section = self._root[start : start + geometry.section_size]
        if not any(section) and not any(self._frame_around(start)):
            # So may memory look that was left out of a dump.
            raise FaultError("the sections around it read as zeroes", self._root_address + start)
        return section

    def _frame_around(self, offset: int) -> bytes:
        """What lies in one page frame with that offset of the root, which need not begin with a frame."""
        frame = 1 << self._geometry.page_shift
        start = offset - (self._root_address + offset) % frame
        return self._root[max(start, 0) : start + frame]

    def _number(self, data: bytes, offset: int) -> int:
        """The unsigned long at an offset."""
        word = data[offset : offset + self._geometry.word_size]
        return int.from_bytes(word, self._geometry.byte_order)

    def _missing(self, number: int, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Stretches of the pfns [start, end) of one section that have no struct page."""
        section = self._section(number)
        word = self._number(section, 0) if section else 0
        if not word & _HAS_MEM_MAP:
            yield start, end
            return
        if self._geometry.usage < 0 or word & _IS_EARLY:
            return
        bits = self._subsections(self._number(section, self._geometry.usage))
        unit = self._geometry.subsection_shift
        first = number << self._geometry.section_shift >> unit
        for i in range(start >> unit, (end - 1 >> unit) + 1):
            if not bits >> (i - first) & 1:
                yield max(start, i << unit), min(end, i + 1 << unit)

    def _subsections(self, usage: int) -> int:
        """The subsection map of a section with a memmap: bit i is subsection i."""
        count = 1 << self._geometry.section_shift - self._geometry.subsection_shift
        address, word = usage + self._geometry.subsection_map, self._geometry.word_size
        words = -(-count // (8 * word))
        data = self._prog.read(address, words * word)
        if not any(data):
            # The last of them would have taken the memmap along.
            raise FaultError("its subsection map reads as zeroes", address)
        return sum(self._number(data, i * word) << 8 * word * i for i in range(words))

    @property
    def subsection_pages(self) -> int:
        """Pages of a subsection."""
        return 1 << self._geometry.subsection_shift

    def of_devices(self) -> Iterator[tuple[int, int]]:
        """Stretches [first, end) of pfns with struct pages, in sections that are not, or not only, ordinary memory.

        Sections that cannot be read, or look as if they had been left out of a dump, are passed over: see unread.
        """
        self.unread = []
        start = end = 0
        for first, last in self._subsections_of_devices():
            if first != end:
                if start < end:
                    yield start, end
                start = first
            end = last
        if start < end:
            yield start, end

    def _subsections_of_devices(self) -> Iterator[tuple[int, int]]:
        geometry = self._geometry
        for root in self._present_roots():
            first = root * geometry.sections_per_root
            for number in range(first, first + geometry.sections_per_root):
                try:
                    stretches = list(self._of_device(number))
                except FaultError:
                    shift = geometry.section_shift
                    self.unread.append((number << shift, number + 1 << shift))
                    continue
                yield from stretches

    def _present_roots(self) -> Iterator[int]:
        geometry, word = self._geometry, self._geometry.word_size
        if geometry.sections_per_root == 1:
            yield from range(geometry.roots)
            return
        # The array of roots, frame by frame: a dump need not hold all of it.
        piece = (1 << geometry.page_shift) // word
        for first in range(0, geometry.roots, piece):
            count = min(piece, geometry.roots - first)
            try:
                roots = self._prog.read(self._roots + first * word, count * word)
            except FaultError:
                shift = geometry.section_shift
                per_root = geometry.sections_per_root
                self.unread.append((first * per_root << shift, (first + count) * per_root << shift))
                continue
            for i in range(count):
                if self._number(roots, i * word):
                    yield first + i

    def _of_device(self, number: int) -> Iterator[tuple[int, int]]:
        """The subsections of one section, if it may hold pages of devices."""
        section = self._section(number)
        word = self._number(section, 0) if section else 0
        if not word & _HAS_MEM_MAP or word & (_IS_ONLINE | _TAINT_ZONE_DEVICE) == _IS_ONLINE:
            return
        geometry = self._geometry
        unit, first = geometry.subsection_shift, number << geometry.section_shift
        count = 1 << geometry.section_shift - unit
        bits = whole = (1 << count) - 1
        if geometry.usage >= 0:
            # Of an early section, too: removal clears them, and leaves the memmap.
            bits = self._subsections(self._number(section, geometry.usage))
        if bits == whole:
            yield first, first + (count << unit)
            return
        for i in range(count):
            if bits >> i & 1:
                yield first + (i << unit), first + (i + 1 << unit)

    def missing(self, ranges: Iterable[PfnRange]) -> list[tuple[int, int]]:
        """Stretches [first, end) of pfns that have no struct page, adjacent ones of a range joined.

        :raises FaultError: the books cannot be read
        """
        return [stretch for range_ in ranges for stretch in self._missing_of(range_)]

    def _missing_of(self, range_: PfnRange) -> list[tuple[int, int]]:
        shift = self._geometry.section_shift
        stretches: list[tuple[int, int]] = []
        if range_.end_pfn - range_.start_pfn > _SECTIONS_MAX << shift:
            raise FaultError("its range has more sections than are looked at", 0)
        for number in range(range_.start_pfn >> shift, (range_.end_pfn - 1 >> shift) + 1):
            start = max(range_.start_pfn, number << shift)
            end = min(range_.end_pfn, number + 1 << shift)
            for stretch in self._missing(number, start, end):
                if stretches and stretches[-1][1] == stretch[0]:
                    stretch = stretches.pop()[0], stretch[1]
                stretches.append(stretch)
        return stretches
