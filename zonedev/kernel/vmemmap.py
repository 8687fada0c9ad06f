# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reading struct pages out of the vmemmap, and what the page tables say of it.

Owns the division of a run of struct pages into what can be read and what cannot, and why.  Reads in
large chunks with Program.read; where a chunk fails it is read again frame by frame, because one lost
frame must not take its neighbours with it.  A frame that cannot be read is never taken for zeroes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, Optional, Union

from drgn import FaultError, Program
from drgn.helpers.linux.mmzone import NODE_DATA
from drgn.helpers.linux.nodemask import for_each_online_node

from zonedev.kernel.gaps import ERRORS
from zonedev.kernel.layout import KernelLayout
from zonedev.kernel.translate import physical_address
from zonedev.model import Pagemap

CHUNK_BYTES = 256 << 10
"""Struct pages are read in chunks that end at multiples of this; ZD_CHUNK of ext/readers/bulk.h is the same."""

# No compound page has a higher order.
SHIFT_MAX = 30

# Where the order of a PMD is not known; no architecture has a higher one.
_PMD_ORDER_MAX = 13

# Messages of drgn and libkdumpfile that mean: the dump does not hold this memory.
_NOT_CAPTURED = (
    "could not find physical memory segment",
    "could not find memory segment",
    "Excluded page",
    "No way to translate",
    "Out-of-bounds PFN",
    "Page not found",
)
_CUT_OFF = ("short read", "unexpected EOF", "past end of file", "end of file")

# Struct pages at the beginning of a range among which a readable one is looked for.
_SAMPLED_PAGES = 1 << 14

# Folios at the end of a dying pagemap that tell whether removal has put their first references.
_DRAINED_HEADS = 256

# Pages before the first one of a pagemap with an altmap that are asked whose they are.
_HIDDEN_PAGES = 1 << 12


class Pages(NamedTuple):
    """Struct pages that could be read."""

    data: bytes


class Hole(NamedTuple):
    """Struct pages that could not be read; class as in the contract, reason in words."""

    pages: int
    class_: str
    reason: str


Piece = Union[Pages, Hole]


def classify_fault(error: Exception) -> tuple[str, str]:
    """(class, reason) of a failed read."""
    message = str(error).split(": 0x")[0]
    if isinstance(error, FaultError):
        if any(text in message for text in _NOT_CAPTURED):
            return "not-captured", "the memory is not in the dump (or not in /proc/kcore)"
        if any(text in message for text in _CUT_OFF):
            return "not-captured", "the dump is cut off before this memory"
        if "not mapped" in message:
            return "unreadable", "the memmap is not mapped (torn down, or a corrupt page table)"
    return "unreadable", message


def _read_frames(prog: Program, address: int, count: int, size: int, unit: int) -> Iterator[Piece]:
    """The same as read_memmap(), unit struct pages at a time."""
    while count:
        n = min(unit, count)
        try:
            yield Pages(prog.read(address, n * size))
        except (FaultError, OSError, ValueError, OverflowError) as err:
            yield Hole(n, *classify_fault(err))
        address += n * size
        count -= n


def _to_border(address: int, layout: KernelLayout, unit: int) -> int:
    """Struct pages from address on that are read at once: whole vmemmap pages, so that a lost one takes no others along."""
    size = layout.page_size
    frame = 1 << layout.page_shift
    if frame % size or address % size:
        return max(CHUNK_BYTES // size // unit, 1) * unit
    if address % frame:
        return (frame - address % frame) // size
    chunk = max(CHUNK_BYTES, frame)
    return (chunk - address % chunk) // size


def to_border(address: int, layout: KernelLayout) -> int:
    """Struct pages from address on up to the next border of chunks."""
    chunk = max(CHUNK_BYTES, 1 << layout.page_shift)
    return -(-(chunk - address % chunk) // layout.page_size)


def read_memmap(prog: Program, address: int, count: int, layout: KernelLayout) -> Iterator[Piece]:
    """count struct pages from address on, as readable pieces and holes, upward and complete."""
    size = layout.page_size
    frame = 1 << layout.page_shift
    unit = frame // size if frame % size == 0 else 64
    while count:
        n = min(_to_border(address, layout, unit), count)
        try:
            yield Pages(prog.read(address, n * size))
        except (FaultError, OSError, ValueError, OverflowError):
            yield from _read_frames(prog, address, n, size, unit)
        address += n * size
        count -= n


def order_max(pagemap: Pagemap, layout: KernelLayout) -> int:
    """Highest order that a folio of the pagemap can have."""
    return max(layout.pmd_order or _PMD_ORDER_MAX, min(pagemap.vmemmap_shift, SHIFT_MAX))


def first_sample(prog: Program, pagemap: Pagemap, layout: KernelLayout) -> bytes:
    """The first readable vmemmap page of a pagemap, or b""; some of each range are tried."""
    size = layout.page_size
    for range_ in pagemap.ranges:
        count = min(range_.end_pfn - range_.first_pfn, _SAMPLED_PAGES)
        for piece in _read_frames(prog, layout.page_address(range_.first_pfn), count, size, 64):
            if isinstance(piece, Pages) and any(piece.data):
                return piece.data
    return b""


def _last_heads(pagemap: Pagemap) -> list[int]:
    """Pfns of the last folios of a pagemap, as far as removal cares: where its own order puts heads."""
    if not pagemap.ranges:
        return []
    step = 1 << min(pagemap.vmemmap_shift, SHIFT_MAX)
    first, end = pagemap.ranges[-1].first_pfn, pagemap.ranges[-1].end_pfn
    return list(range(first, end, step)[-_DRAINED_HEADS:])


def is_drained(prog: Program, pagemap: Pagemap, layout: KernelLayout) -> bool:
    """Whether removal has gone over all pages of a dying pagemap: most of the last ones are at 0.

    Up to commit 27674ef6c73f ("mm: remove the extra ZONE_DEVICE struct page refcount") (in v5.18),
    memunmap_pages() put one reference of every page, from the first to the last, and then waited.
    One page cannot tell: it may be what removal waits for, or have lost a reference before.
    """
    if pagemap.ref.state == "live":
        return False
    zeros = others = 0
    for pfn in _last_heads(pagemap):
        address = layout.page_address(pfn)
        try:
            if not any(prog.read(address, layout.page_size)):
                continue  # not captured
            count = prog.read_u32(address + layout.fields["_refcount"][0])
        except (FaultError, ValueError, OSError, OverflowError):
            continue
        zeros += count == 0
        others += count != 0
    return zeros > others


def hidden_by_altmap(prog: Program, pagemap: Pagemap, layout: KernelLayout) -> int:
    """How many of the last pages that the altmap takes out have a struct page of this pagemap.

    There can be none: memmap_init_zone_device() begins behind them.  An altmap that says more than it has
    would hide pages that nobody looks at.
    """
    if not pagemap.altmap or not pagemap.ranges:
        return 0
    range_ = pagemap.ranges[0]
    count = min(range_.first_pfn - range_.start_pfn, _HIDDEN_PAGES)
    offset, size, _ = layout.fields["pgmap"]
    order: Literal["little", "big"] = "big" if layout.spec["big_endian"] else "little"
    word = pagemap.address.to_bytes(size, order)
    address = layout.page_address(range_.first_pfn - count)
    hidden = 0
    for piece in read_memmap(prog, address, count, layout):
        if isinstance(piece, Pages):
            starts = range(offset, len(piece.data), layout.page_size)
            hidden += sum(piece.data[at : at + size] == word for at in starts)
    return hidden


def zone_device_spans(prog: Program) -> Optional[list[tuple[int, int]]]:
    """Pfns [first, end) that the ZONE_DEVICE zones of all nodes span; None where that cannot be known.

    Such a zone never shrinks: pages of devices that were removed are still in it.
    """
    try:
        index = int(prog.constant("ZONE_DEVICE"))
        zones = [NODE_DATA(prog, nid).node_zones[index] for nid in for_each_online_node(prog)]
        starts = [(int(zone.zone_start_pfn), int(zone.spanned_pages)) for zone in zones]
        return [(start, start + pages) for start, pages in starts if pages]
    except ERRORS:
        return None


def is_deduplicated(prog: Program, pagemap: Pagemap, layout: KernelLayout) -> bool:
    """True where the page tables say that a compound's later vmemmap pages alias its second one.

    Since commit 4917f55b4ef9 ("mm/sparse-vmemmap: improve memory savings for compound devmaps")
    (in v5.19).  Asked of the first and the last compound page of every range.
    """
    frame = 1 << layout.page_shift
    if pagemap.vmemmap_shift > SHIFT_MAX:
        return False
    per_compound = (layout.page_size << pagemap.vmemmap_shift) // frame
    if pagemap.altmap or per_compound <= 2 or frame % layout.page_size:
        return False
    last = per_compound - 1
    for range_ in pagemap.ranges:
        pages = range_.end_pfn - range_.first_pfn
        compounds = pages >> pagemap.vmemmap_shift
        for i in {0, compounds - 1} if compounds else ():
            start = layout.page_address(range_.first_pfn + (i << pagemap.vmemmap_shift))
            if not _same_frame(prog, [start + n * frame for n in (1, 2, last)]):
                return False
    return True


def _same_frame(prog: Program, addresses: list[int]) -> bool:
    try:
        return len({physical_address(prog, address) for address in addresses}) == 1
    except (FaultError, LookupError):
        # Not known: a memmap that is not mapped there, types that lack, or a machine whose page tables drgn cannot
        # walk.  Each struct page is then judged at every place it has.
        return False
