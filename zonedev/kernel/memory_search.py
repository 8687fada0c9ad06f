# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who points to a folio's struct pages: a search of all memory, for references that nothing else explains.

Owns what is read (the System RAM of the resource tree, by physical addresses, upward), for how long, and what is left
out: the struct pages of the folio themselves with their neighbours in the same frames (tails name their head).
Words are compared by ext/core/pointers.c; what lies around a word is told by memory_place.py.

Not found, because no word of memory has the struct page's address: holders that keep a pfn, a physical or a DMA address
(page tables, DMA addresses of scatterlists, tables of IOMMUs, RDMA and vfio after mapping), those that keep the first
page of a run and a length, whose later pages nobody names (a bio_vec), memory of devices (and of other machines),
what a device holds in itself, registers of CPUs. What a dump's filter has left out is counted as unread, unless the
dump shows it as zeroes. Entries of scatterlists are found: the tag in their low bits is told.

A word is no proof: freed memory keeps its words, and on a running kernel what was read here lies in memory as well.

Invariant: every byte of total was read, is counted as unread, or was left for the reason in why.
Mirrors kernel/resource.c, include/linux/scatterlist.h.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Optional

from drgn import FaultError, PlatformFlags, Program, ProgramFlags, offsetof
from drgn.helpers.linux.mm import phys_to_virt

from zonedev import _zonedev
from zonedev.diskdump import Dumped, read_dumped
from zonedev.kernel.device import read_resources
from zonedev.kernel.gaps import ERRORS
from zonedev.kernel.layout import KernelLayout
from zonedev.kernel.memory_place import Place, Places
from zonedev.kernel.translate import physical_address

Progress = Callable[[int, int], None]
"""Bytes that are done, of how many."""

HITS_MAX = 64
"""Words that are told; the others are counted."""

_CHUNK = 4 << 20
# Where a chunk cannot be read, its sixteenths are tried, down to a frame.
_PARTS = 16
# Words of one chunk that are looked at.
_FOUND_MAX = 1 << 16
# Frames of struct pages that are left out: those of 4 GiB in pages of 4 KiB.
_FRAMES_MAX = 1 << 14

# Of the tree of struct resource: what is searched, and what of it belongs to another kernel.
_RAM = "System RAM"
_OTHERS = "Crash kernel"

_READ_ERRORS = (FaultError, OSError, ValueError, OverflowError)

Range = tuple[int, int]


class Hit(NamedTuple):
    """A word that points to a struct page.

    address: kernel virtual address of the word, in the direct map or in the image; 0 where that is not known.
    pfn: of the struct page that it points to; where: for people, what it lies in; tag: its two low bits.
    certain: False in freed memory, user memory and pages of which nothing is known: a stale word is likely.
    """

    address: int
    physical: int
    pfn: int
    where: str
    certain: bool
    tag: int = 0


@dataclass
class Searched:
    """What a search found, and how far it came: read and unread of total bytes.

    why: None where all was read that could be; else what ended it early.
    """

    hits: list[Hit] = field(default_factory=list)
    more: int = 0
    read: int = 0
    total: int = 0
    unread: int = 0
    seconds: float = 0.0
    why: Optional[str] = None


class _Word(NamedTuple):
    """A word that was found: where, which of the struct pages it points to, its low bits."""

    physical: int
    page: int
    tag: int


def _direct_map(prog: Program) -> Optional[int]:
    """Where the kernel maps physical address 0, None where that is not known."""
    try:
        return int(phys_to_virt(prog, 0))
    # drgn raises plain Exception where it does not find out.
    except Exception:
        pass
    try:
        # CONFIG_RANDOMIZE_MEMORY of x86.
        return int(prog.read_word(prog.symbol("page_offset_base").address))
    except ERRORS:
        return None


def _without(ranges: Iterable[Range], holes: list[Range]) -> Iterator[Range]:
    """What is left of [start, end) without other ones, which rise and are disjoint."""
    for start, end in ranges:
        for first, last in holes[max(bisect_left(holes, (start, 0)) - 1, 0) :]:
            if first >= end:
                break
            if start < first:
                yield start, first
            start = max(start, last)
        if start < end:
            yield start, end


def _disjoint(ranges: Iterable[Range]) -> list[Range]:
    """The same bytes, rising, each once."""
    joined: list[Range] = []
    for start, end in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        elif start < end:
            joined.append((start, end))
    return joined


def system_ram(prog: Program, word_size: int = 8) -> list[Range]:
    """Physical [start, end) of this kernel's memory, rising, in whole words; [] where it is not known."""
    resources = read_resources(prog)

    def named(name: str) -> list[Range]:
        return _disjoint((r.start, r.end + 1) for r in resources if r.name.startswith(name))

    whole = ((-(-a // word_size) * word_size, b // word_size * word_size) for a, b in named(_RAM))
    return list(_without(_disjoint(whole), named(_OTHERS)))


def _frames_of(prog: Program, address: int, end: int, frame: int) -> Optional[list[int]]:
    """Physical addresses of the frames behind [address, end); None where they cannot all be had."""
    pages = range(address // frame * frame, end, frame)
    if len(pages) > _FRAMES_MAX:
        return None
    try:
        return sorted({physical_address(prog, page) // frame * frame for page in pages})
    except ERRORS:
        return None


def _tail_offset(prog: Program) -> int:
    """Where the struct page of a tail says so, and names its head."""
    page = prog.type("struct page")
    # Since commit 8c846c879e22 ("mm: rework compound_head() for power-of-2 sizeof(struct page)") (in v7.1).
    name = "compound_info" if page.has_member("compound_info") else "compound_head"
    return int(offsetof(page, name))


def _dumped(prog: Program) -> Optional[Dumped]:
    """Which pages the dump holds, None where all must be asked for."""
    # Of a core that is open by a file descriptor, and by a drgn that does not tell, no path is known.
    path = getattr(prog, "core_dump_path", None)
    try:
        return read_dumped(path) if path else None
    except (OSError, ValueError):
        return None


class _Memory:
    """Physical memory; of a running kernel, whose /proc/kcore may lack physical addresses, the direct map."""

    def __init__(self, prog: Program, direct_map: Optional[int]) -> None:
        self._prog = prog
        self._base = direct_map if prog.flags & ProgramFlags.IS_LIVE else None

    def read(self, physical: int, size: int) -> Optional[bytes]:
        """None where not all of it can be had."""
        try:
            return bytes(self._prog.read(physical, size, True))
        except _READ_ERRORS:
            if self._base is None:
                return None
        try:
            return bytes(self._prog.read(self._base + physical, size))
        except _READ_ERRORS:
            return None


class _Search:
    def __init__(self, prog: Program, layout: KernelLayout, first_pfn: int, pages: int) -> None:
        assert prog.platform is not None
        flags = prog.platform.flags
        self._prog, self._layout, self._pfn = prog, layout, first_pfn
        self._frame = 1 << layout.page_shift
        self._lo = layout.page_address(first_pfn)
        self._hi = self._lo + pages * layout.page_size
        self._word_size = 8 if flags & PlatformFlags.IS_64_BIT else 4
        self._big_endian = not flags & PlatformFlags.IS_LITTLE_ENDIAN
        self._direct_map = _direct_map(prog)
        self._memory = _Memory(prog, self._direct_map)
        self._dumped = _dumped(prog)
        self._known: set[int] = set()
        self._end = 0
        self._own: Optional[list[int]] = None
        self._tail_offset = _tail_offset(prog)
        self._words: list[_Word] = []
        self.result = Searched()

    def _ranges(self) -> list[Range]:
        """What is to be read: memory without the frames of the folio's own struct pages."""
        ram = system_ram(self._prog, self._word_size)
        self._own = _frames_of(self._prog, self._lo, self._hi, self._frame)
        own = _disjoint((frame, frame + self._frame) for frame in self._own or ())
        return list(_without(ram, own))

    def _physical(self, address: int) -> Optional[int]:
        base = self._direct_map
        if base is not None and 0 <= address - base < self._end:
            return address - base
        try:
            return physical_address(self._prog, address)
        except ERRORS:
            return None

    def _is_own_tail(self, word: _Word) -> bool:
        """Where the frames of the struct pages are not known: a word like that in a tail, with the head's address."""
        if self._own is not None or word.tag != 1 or word.page:
            return False
        return word.physical % self._layout.page_size == self._tail_offset

    def _found(self, word: _Word) -> None:
        if word.physical in self._known or self._is_own_tail(word):
            return
        if len(self._words) < HITS_MAX:
            self._words.append(word)
        else:
            self.result.more += 1

    def _look_at_held(self, start: int, size: int) -> None:
        """The same as _look(), without asking for pages that the dump is known not to hold."""
        if self._dumped is None:
            self._look(start, size)
            return
        block, end = self._dumped.block_size, start + size
        for first, last, held in self._dumped.runs(start // block, -(-end // block)):
            at, stop = max(first * block, start), min(last * block, end)
            if held:
                self._look(at, stop - at)
            else:
                self.result.unread += stop - at

    def _look(self, start: int, size: int) -> None:
        data = self._memory.read(start, size)
        if data is None:
            self._look_at_parts(start, size)
            return
        found, more = _zonedev.find_pointers(
            data,
            self._lo,
            self._hi,
            self._layout.page_size,
            self._word_size,
            self._big_endian,
            _FOUND_MAX,
        )
        for offset, page, tag in found:
            self._found(_Word(start + offset, page, tag))
        self.result.more += more
        self.result.read += size

    def _look_at_parts(self, start: int, size: int) -> None:
        if size <= self._frame:
            self.result.unread += size
            return
        step = max(size // _PARTS // self._frame * self._frame, self._frame)
        # Frames begin at multiples of their size, what is left of a chunk may not.
        at, end = start, start + size
        while at < end:
            stop = min((at // step + 1) * step, end)
            self._look(at, stop - at)
            at = stop

    def run(self, known: Iterable[int], budget_s: float, progress: Optional[Progress]) -> None:
        begun = time.monotonic()
        ranges = self._ranges()
        result = self.result
        result.total = sum(end - start for start, end in ranges)
        self._end = ranges[-1][1] if ranges else 0
        self._known = {p for p in map(self._physical, known) if p is not None}
        if not ranges:
            result.why = "the kernel's RAM ranges are not known: its resource tree cannot be read"
        for start, size in _chunks(ranges):
            if time.monotonic() - begun >= budget_s:
                result.why = f"the budget of {budget_s:g} s is used up"
                break
            self._look_at_held(start, size)
            if progress:
                progress(result.read + result.unread, result.total)

    def tell(self) -> None:
        """Say what the words that were found lie in."""
        places = Places(
            self._prog, self._layout, self._direct_map, [w.physical for w in self._words]
        )
        for word in self._words:
            place = Place("not told", False)
            try:
                place = places.of(word.physical, word.tag)
            finally:
                self.result.hits.append(self._hit(word, place))

    def tell_nothing(self) -> None:
        """The words whose place was not told, as they are."""
        for word in self._words[len(self.result.hits) :]:
            self.result.hits.append(self._hit(word, Place("not told", False)))

    def _hit(self, word: _Word, place: Place) -> Hit:
        direct = 0 if self._direct_map is None else self._direct_map + word.physical
        address = direct if place.address is None else place.address
        pfn = self._pfn + word.page
        return Hit(address, word.physical, pfn, place.where, place.certain, word.tag)


def _chunks(ranges: Iterable[Range]) -> Iterator[tuple[int, int]]:
    """(start, size) of pieces of some ranges."""
    for start, end in ranges:
        while start < end:
            stop = min((start // _CHUNK + 1) * _CHUNK, end)
            yield start, stop - start
            start = stop


def search_pointers(
    prog: Program,
    layout: KernelLayout,
    first_pfn: int,
    pages: int,
    *,
    budget_s: float = 10.0,
    known: frozenset[int] = frozenset(),
    progress: Optional[Progress] = None,
) -> Searched:
    """Words of kernel memory that point to one of the struct pages of [first_pfn, first_pfn + pages).

    Ctrl-C ends it like a budget that is used up: with what was found so far.

    :param pages: at least 1; of the whole folio, for each tail that is left out names its head
    :param budget_s: seconds after which no more memory is read; telling what was found takes some more
    :param known: kernel virtual addresses of words that are accounted for, which are left out
    """
    begun = time.monotonic()
    search = _Search(prog, layout, first_pfn, pages)
    try:
        search.run(known, budget_s, progress)
    except KeyboardInterrupt:
        search.result.why = "interrupted"
    try:
        search.tell()
    except KeyboardInterrupt:
        search.result.why = "interrupted"
        search.tell_nothing()
    search.result.seconds = time.monotonic() - begun
    return search.result
