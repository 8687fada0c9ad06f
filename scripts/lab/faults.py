# SPDX-License-Identifier: LGPL-2.1-or-later
"""The faults that inject.py writes into a core: one row each, with its near miss.

Owns the table: which rule must name the fault and at what level, on which memory types and refcount
schemes, what kind of page or pagemap it needs, the edit, and the edit just inside of what is legal.
Does not read or write memory (edits.py). Rows are written from the kernel's rules and the
contract, not from the auditor's code: where they differ, one of them is wrong.

found_by says what can find a fault: "page" (the struct page or the pagemap itself), "second-pass" (DAX
entries, gen_pool bitmap, driver free lists, memory sections) or "holders" (a search for who holds the
page). What today's audit says of it is `finds` of its case; for a second pass that is missing: nothing,
or something below error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Optional

if TYPE_CHECKING:
    from edits import Editor

PAGE, SECOND_PASS, HOLDERS = "page", "second-pass", "holders"

PRIVATE, COHERENT, FS_DAX = "PRIVATE", "COHERENT", "FS_DAX"
GENERIC, P2PDMA = "GENERIC", "PCI_P2PDMA"
ANON = (PRIVATE, COHERENT)
ALL = (PRIVATE, COHERENT, FS_DAX, GENERIC, P2PDMA)
NOT_ANON = (FS_DAX, GENERIC, P2PDMA)

# Schemes of kernels that can be booted, and dumped; the others have cores of their own in
# tests/mock_kernels/, with faults of their own.
EVERY = ("C", "E", "G", "H")
C_AND_E = ("C", "E")
GH = ("G", "H")
EGH = ("E", "G", "H")
BEFORE_H = ("C", "E", "G")

# The one that a page breaks whose pool does not know that it is in use.
POOL_RULE = "pool-vs-pages"

Edit = Callable[["Editor"], object]
Finding = tuple[str, str]

# A finding of the row's own rule at its own level.
OWN: tuple[Finding, ...] = (("own", "own"),)


class Case(NamedTuple):
    """An edit of a page or pagemap in the state `where` (see PLACES of places.py).

    finds: what today's audit must say of it, (rule, level); () nothing. What else it must say is
    added by the edit itself. types: of a near miss, where they differ from the fault's.
    with_entries: what the audit must say instead where the core holds the DAX entries of all files.
    """

    where: str
    edit: Edit
    finds: tuple[Finding, ...] = ()
    types: Optional[tuple[str, ...]] = None
    with_entries: Optional[tuple[Finding, ...]] = None

    def found(self, entries: bool) -> tuple[Finding, ...]:
        """What the audit must say, with or without DAX entries."""
        return self.finds if self.with_entries is None or not entries else self.with_entries


class Fault(NamedTuple):
    """A row."""

    name: str
    number: str
    rule: str
    level: str
    types: tuple[str, ...]
    schemes: tuple[str, ...]
    case: Case
    near: Case
    found_by: str = PAGE
    needs: str = ""


# ---------------------------------------------------------------- edits of several words


def other_bit(e: Editor) -> None:
    """A bit of flags beside the zone bits, which belongs to last_cpupid or to nobody."""
    e.flip(e.layout.zone[0] - 1)


def harmless(e: Editor) -> None:
    """Flags that drivers and fault paths may leave behind."""
    e.flag("PG_referenced", "PG_uptodate", "PG_dirty")


def pin(e: Editor, count: int) -> None:
    """References as pin_user_pages() takes them of a small folio: 1024 are one pin."""
    e.add("_refcount", count)


def pin_folio(e: Editor) -> None:
    """One pin of a large folio: a reference and a pincount."""
    e.add("_refcount", 1)
    e.add("_pincount", 1)


def map_once(e: Editor) -> None:
    """One more page table entry: a reference and a mapcount."""
    e.add("_refcount", 1)
    e.add("_mapcount", 1)


def allocate(e: Editor) -> None:
    """A private page handed out and not mapped yet: locked, one reference, one of the pagemap."""
    e.put("_refcount", e.idle + 1)
    e.flag("PG_locked")
    e.ref(1)


def hold_free(e: Editor) -> None:
    """A private page in use for the pagemap, but neither mapped nor locked."""
    e.put("_refcount", e.idle + 1)
    e.ref(1)


def make_idle(e: Editor) -> None:
    """An idle page of order 0, whatever it was."""
    e.put("pgmap", e.pagemap.address)
    e.put("mapping", 0)
    e.put("index", 0)
    e.put("_mapcount", -1)
    e.put("_refcount", e.idle)


def lose_page(e: Editor) -> None:
    """A page of zeroes stands for one that the dump does not hold."""
    e.fill(0)
    e.also("memmap-unreadable", "info")


def foreign(e: Editor) -> None:
    """Nothing of it is a device page's."""
    e.put("pgmap", 0)
    e.bits("zone", 0)
    e.unflag("PG_reserved")


def lose_head(e: Editor) -> None:
    """PG_head goes, and every tail is on its own."""
    e.unflag("PG_head")
    e.also("bad-head", "error", e.pfn + 1, e.folio_pages - 1)
    if e.has_entries:
        e.also("entry-order-vs-folio", "warning", e.pfn)


def halve_order(e: Editor) -> None:
    """A folio of half the size; the tails of the other half are on their own."""
    half = e.folio_pages // 2
    e.add("order", -1)
    e.also("bad-head", "error", e.pfn + half, half)


def oversize(e: Editor) -> None:
    """A folio of order 12; of its tails only the first is written."""
    e.compound(12, tails=1)


def hold_tail(e: Editor) -> None:
    """A folio of two pages with a reference on its tail."""
    e.compound(1)
    e.at(1).put("_refcount", 1)
    e.about(e.pfn + 1)


def hold_tail_of_wrong(e: Editor) -> None:
    """The same where a folio of two pages is wrong by itself."""
    hold_tail(e)
    e.also("wrong-order", "error", e.pfn)


def split_unseen(e: Editor) -> None:
    """The folio of a PMD entry falls apart; the entry stays."""
    e.unflag("PG_head")
    for i in range(1, e.folio_pages):
        e.at(i).template()
    if e.has_entries:
        e.also("entry-order-vs-folio", "warning", e.pfn + 1, e.folio_pages - 1)


def without_entry(e: Editor) -> None:
    """What is said of a page whose entry now names another page."""
    if e.has_entries:
        e.also("mapping-without-entry", "error", e.pfn)


def second_owner(e: Editor) -> None:
    """The entry of one block now names another, which has an entry of its own."""
    e.entry(e.entry_of_another())
    without_entry(e)


def entry_to_free(e: Editor) -> None:
    """The entry of one block now names a free one, which the fault is then about."""
    pfn = e.free_pfn
    e.entry(e.entry_value + (pfn - e.pfn) * e.entry_page)
    without_entry(e)
    e.about(pfn)


def pmd_of_no_entry(e: Editor) -> None:
    """A free folio of the order of a PMD: legal to look at, but no file has an entry for it."""
    e.compound(e.layout.pmd_order)
    if e.has_entries:
        e.also("entry-order-vs-folio", "warning", e.pfn)


def pointer_to_nothing(e: Editor) -> None:
    """A mapping that looks like a pointer, and leads to something else than an address_space."""
    e.put("mapping", e.pagemap.address & ~7)


def busy_while_dying(e: Editor) -> None:
    """What a dying reference says of pages that have references still."""
    if e.puts_at_removal:
        e.also("dying-busy", "warning")
    elif e.any_held():
        e.also("dying-busy", "error")


def kill(e: Editor) -> None:
    """percpu_ref_kill(): the initial reference is gone, the others are waited for."""
    e.kill(e.ref_count - 1)


def die(e: Editor) -> None:
    """The same, with what is to be said of its pages."""
    kill(e)
    busy_while_dying(e)


def die_at_zero(e: Editor) -> None:
    """percpu_ref_kill(), and nothing is waited for."""
    e.kill(0)
    busy_while_dying(e)


def exit_ref(e: Editor) -> None:
    """percpu_ref_exit(): its data is freed."""
    e.exit(e.ref_count - 1)
    if e.any_held():
        e.also("dying-busy", "error")


def die_idle(e: Editor) -> None:
    """Removal of a pagemap whose pages have all been let go."""
    e.release_all()
    e.kill(e.ref_count - 1)


def unknown_type(e: Editor) -> None:
    """A memory type that no kernel has: its pages cannot be judged."""
    e.member("type", 99)
    e.hide_all()
    e.also("memmap-unreadable", "info")


def unaligned(e: Editor) -> None:
    """One page less than the registry has."""
    e.member("range.end", e.range_end - e.page_bytes)
    e.also("registry-coverage", "error")


def shorten(e: Editor) -> None:
    """One subsection less than the registry has."""
    e.member("range.end", e.range_end - e.subsection)


def inside_out(e: Editor) -> None:
    """A range that ends before it starts: its pages cannot be judged."""
    e.member("range.end", e.range_start - e.subsection - 1)
    e.hide_all()
    e.also("registry-coverage", "error")


def altmap_takes_all(e: Editor, but: int = 0) -> None:
    """An altmap that claims the whole range (but some pages) as its own memmap."""
    e.member("altmap.free", e.pagemap.pages - e.altmap("reserve") - but)
    e.hide_all()


def no_free_callback(e: Editor) -> None:
    """The free callback of an ops table goes, for all pagemaps that use it."""
    for name in ("folio_free", "page_free"):
        if e.has_op(name):
            e.op(name, 0)
    for other in e.sharing_ops():
        e.also_on(other, "pgmap-sanity", "error")


def overlap_next(e: Editor) -> None:
    """The range reaches into the pagemap behind it; its reference is as large as that asks for."""
    pages = e.subsection // e.page_bytes
    e.member("range.end", e.range_end + e.subsection)
    e.ref(pages >> e.pagemap.vmemmap_shift)
    e.also_on(e.next_pagemap, "registry-coverage", "error")
    e.also("wrong-pgmap", "error", e.end_pfn, pages)


def hand_last_index(e: Editor) -> None:
    """The last entry of the registry now leads to another pagemap."""
    e.last_slot(e.other_pgmap)
    e.also_on(e.other, "registry-coverage", "error")


def dying_without_entry(e: Editor) -> None:
    """Removal deletes range after range while it waits."""
    die(e)
    e.last_slot(0)


# ---------------------------------------------------------------- the table

REFCOUNT, MAPCOUNT = "_refcount", "_mapcount"

# fmt: off
FAULTS: tuple[Fault, ...] = (
    # Whose page is it?
    Fault(
        "poison-ff", "R25", "uninitialised", "error", ALL, EVERY,
        Case("idle", lambda e: e.fill(0xFF), OWN),
        Case("idle", lose_page),
    ),
    Fault(
        "poison-fd", "R25", "uninitialised", "error", ALL, EVERY,
        Case("idle", lambda e: e.fill(0xFD), OWN),
        Case("idle", lose_page),
    ),
    Fault(
        "foreign-page", "R25", "uninitialised", "error", ALL, EVERY,
        Case("idle", foreign, OWN),
        Case("idle", lambda e: (e.bits("zone", 0), e.unflag("PG_reserved")), (("wrong-zone", "error"),)),
    ),
    Fault(
        "zone", "R21", "wrong-zone", "error", ALL, EVERY,
        Case("idle", lambda e: e.bits("zone", e.layout.zone_device - 1), OWN),
        Case("idle", other_bit),
    ),
    Fault(
        "zone-of-tail", "R21", "wrong-zone", "error", (FS_DAX, GENERIC, PRIVATE), EGH,
        Case("tail", lambda e: e.bits("zone", e.layout.zone_device - 1), OWN),
        Case("tail", other_bit),
    ),
    Fault(
        "pgmap-null", "R20", "wrong-pgmap", "error", ALL, EVERY,
        Case("idle", lambda e: e.put("pgmap", 0), OWN),
        Case("idle", lambda e: e.beside(0)),
    ),
    Fault(
        "pgmap-other", "R20", "wrong-pgmap", "error", ALL, EVERY,
        Case("idle", lambda e: e.put("pgmap", e.other_pgmap), OWN),
        Case("idle", lambda e: e.beside(e.other_pgmap)),
    ),
    Fault(
        "pgmap-list", "R20", "wrong-pgmap", "error", ALL, EVERY,
        Case("idle", lambda e: e.put("pgmap", e.page_address(e.pfn + 1) + 8), OWN),
        Case("idle", lambda e: e.beside(e.page_address(e.pfn + 1) + 8)),
    ),
    Fault(
        "lru", "R24", "core-mm-flags", "error", ALL, EVERY,
        Case("idle", lambda e: e.flag("PG_lru"), OWN),
        Case("idle", harmless),
    ),
    Fault(
        "swapcache", "R24", "core-mm-flags", "error", ALL, EVERY,
        Case("idle", lambda e: e.flag("PG_swapcache"), OWN),
        Case("idle", harmless),
    ),
    Fault(
        "page-type", "R24", "core-mm-flags", "error", ALL, EVERY,
        Case("idle", lambda e: e.put(MAPCOUNT, e.page_type_limit - 1), OWN),
        Case("idle", lambda e: e.put(MAPCOUNT, e.page_type_limit), (("mapcount-out-of-range", "error"),)),
    ),
    Fault(
        "tail-of-nothing", "R26", "bad-head", "error", NOT_ANON, EVERY,
        Case("idle", lambda e: e.tail_of(e.pfn - 1), OWN),
        Case("idle", lambda e: e.beside(e.page_address(e.pfn - 1) | 1)),
    ),
    Fault(
        "tail-of-nothing-anon", "R26", "bad-head", "error", ANON, BEFORE_H,
        Case("idle", lambda e: e.tail_of(e.pfn - 1), OWN),
        Case("idle", lambda e: e.beside(e.page_address(e.pfn - 1) | 1)),
    ),
    Fault(
        "tail-head-outside", "R26", "bad-head", "error", NOT_ANON, EVERY,
        Case("idle", lambda e: e.tail_of(e.start_pfn - 2), OWN),
        Case("idle", lambda e: e.beside(e.page_address(e.start_pfn - 2) | 1)),
    ),
    Fault(
        "stale-tail", "R26", "bad-head", "info", ANON, ("H",),
        Case("idle", lambda e: e.tail_of(e.pfn - 1), OWN),
        Case("idle", lambda e: e.beside(e.page_address(e.pfn - 1) | 1)),
    ),
    Fault(
        "stale-tail-head-outside", "R26", "bad-head", "error", ANON, ("H",),
        Case("idle", lambda e: e.tail_of(e.start_pfn - 2), OWN),
        Case("idle", lambda e: e.tail_of(e.pfn - 1), (("bad-head", "info"),)),
    ),
    Fault(
        "stale-tail-referenced", "R26", "bad-head", "error", ANON, ("H",),
        Case("idle", lambda e: (e.tail_of(e.pfn - 1), e.put(REFCOUNT, 1)), OWN),
        Case("idle", lambda e: (e.tail_of(e.pfn - 1), e.put(REFCOUNT, 0)), (("bad-head", "info"),)),
    ),
    Fault(
        "head-inside-folio", "R26", "bad-head", "error", (FS_DAX, GENERIC), EGH,
        Case("last-tail", make_idle, OWN),
        Case("last-tail", lambda e: e.tail_of(e.head_pfn)),
    ),
    Fault(
        "head-inside-idle-folio", "R26", "bad-head", "error", (GENERIC,), EGH,
        Case("last-tail-idle", make_idle, OWN),
        Case("last-tail-idle", lambda e: e.tail_of(e.head_pfn)),
    ),
    Fault(
        "tail-too-far", "R26", "bad-head", "error", (FS_DAX,), GH,
        Case("behind-folio", lambda e: e.tail_of(e.head_pfn), OWN),
        Case("last-tail", lambda e: e.tail_of(e.head_pfn)),
    ),
    Fault(
        "head-lost", "R26", "bad-head", "error", (FS_DAX,), GH,
        Case("folio-cached", lose_head),
        Case("folio-cached", lambda e: e.flag("PG_referenced")),
    ),
    Fault(
        "order-below-shift", "R28", "wrong-order", "error", (GENERIC,), EGH,
        Case("folio-idle", halve_order, OWN),
        Case("folio-idle", lambda e: e.add("order", 0)),
    ),
    Fault(
        "head-without-order", "R28", "wrong-order", "error", NOT_ANON, EVERY,
        Case("idle", lambda e: e.compound(0, tails=0), OWN),
        Case("idle", harmless),
    ),
    Fault(
        "head-without-order-anon", "R28", "wrong-order", "error", ANON, BEFORE_H,
        Case("idle", lambda e: e.compound(0, tails=0), OWN),
        Case("idle", harmless),
    ),
    Fault(
        "head-without-order-used", "R28", "wrong-order", "error", ANON, ("H",),
        Case("idle", lambda e: (e.compound(0, tails=0), allocate(e)), OWN),
        Case("idle", lambda e: e.compound(0, tails=0)),
    ),
    Fault(
        "small-folio", "R28", "wrong-order", "error", (GENERIC, P2PDMA), EVERY,
        Case("idle", lambda e: e.compound(1), OWN),
        Case("idle", harmless),
    ),
    Fault(
        "small-folio-dax", "R28", "wrong-order", "error", (FS_DAX,), C_AND_E,
        Case("idle", lambda e: e.compound(1), OWN),
        Case("idle", harmless),
    ),
    Fault(
        "small-folio-dax-large", "R28", "wrong-order", "error", (FS_DAX,), GH,
        Case("idle", lambda e: e.compound(1), OWN),
        Case("idle-pmd", pmd_of_no_entry),
    ),
    Fault(
        "small-folio-anon", "R28", "wrong-order", "error", ANON, BEFORE_H,
        Case("idle", lambda e: e.compound(1), OWN),
        Case("idle", harmless),
    ),
    Fault(
        "oversize-folio", "R28", "wrong-order", "error", ANON, ("H",),
        Case("idle", oversize, OWN),
        Case("idle-pmd", lambda e: e.compound(e.layout.pmd_order)),
    ),
    Fault(
        "misaligned-folio", "R28", "wrong-order", "error", ANON, ("H",),
        Case("idle-odd", lambda e: e.compound(1), OWN),
        Case("idle-even", lambda e: e.compound(1)),
    ),
    Fault(
        "tail-reference", "R14", "tail-refcount", "error", (FS_DAX, GENERIC, PRIVATE), EGH,
        Case("tail", lambda e: e.put(REFCOUNT, 1), OWN),
        Case("tail", lambda e: e.put("index", 1)),
    ),
    Fault(
        "tail-reference-made", "R14", "tail-refcount", "error", (COHERENT,), ("H",),
        Case("idle-even", hold_tail, OWN),
        Case("idle-even", lambda e: e.compound(1)),
    ),
    # There are no legal folios here: the head is a finding of its own.
    Fault(
        "tail-reference-wrong", "R14", "tail-refcount", "error", NOT_ANON, EVERY,
        Case("idle-even", hold_tail_of_wrong, OWN),
        Case("idle-even", lambda e: e.compound(1), (("wrong-order", "error"),)),
    ),
    Fault(
        "tail-reference-alias", "R14", "tail-refcount", "error", (GENERIC,), EGH,
        Case("alias-tail", lambda e: e.put(REFCOUNT, 1), OWN),
        Case("alias-tail", lambda e: e.put("index", 1)),
    ),
    # Counts that no sequence of the scheme leads to.
    Fault(
        "refcount-negative", "R05", "refcount-out-of-range", "error", ALL, EVERY,
        Case("idle", lambda e: e.put(REFCOUNT, -1), OWN),
        Case("held or idle", lambda e: e.put(REFCOUNT, e.full)),
    ),
    Fault(
        "refcount-saturated", "R05", "refcount-out-of-range", "error", (*NOT_ANON, COHERENT), EVERY,
        Case("associated", lambda e: e.put(REFCOUNT, 0x40000001), OWN),
        Case("associated", lambda e: e.put(REFCOUNT, 0x40000000), (("dma-pinned", "info"),)),
    ),
    Fault(
        "refcount-saturated-private", "R05", "refcount-out-of-range", "error", (PRIVATE,), EVERY,
        Case("mapped", lambda e: e.put(REFCOUNT, 0x40000001), OWN),
        Case("mapped", lambda e: e.put(REFCOUNT, e.full + 1023)),
    ),
    Fault(
        "mapcount-below", "-", "mapcount-out-of-range", "error", ALL, GH,
        Case("idle", lambda e: e.put(MAPCOUNT, -2), OWN),
        Case("mapped", map_once),
    ),
    Fault(
        "mapcount-below-unmapped", "-", "mapcount-out-of-range", "error", (FS_DAX, GENERIC), C_AND_E,
        Case("idle", lambda e: e.put(MAPCOUNT, -2), OWN),
        Case("idle", lambda e: e.put(MAPCOUNT, -1)),
    ),
    Fault(
        "mapped-free", "R03", "mapped-without-reference", "error", (FS_DAX, GENERIC), C_AND_E,
        Case("idle", lambda e: (e.put(REFCOUNT, 0), e.put(MAPCOUNT, 0)), OWN),
        Case("idle", lambda e: e.put(MAPCOUNT, 0), (("unaccounted-mapcount", "error"),)),
    ),
    Fault(
        "mapped-zero", "R03", "mapped-without-reference", "error", NOT_ANON, GH,
        Case("mapped", lambda e: e.put(REFCOUNT, 0), OWN),
        Case("mapped", map_once),
    ),
    Fault(
        "mapped-zero-anon", "R03", "mapped-without-reference", "error", ANON, EGH,
        Case("mapped", lambda e: (e.put(REFCOUNT, 0), e.ref(-1)), OWN),
        Case("mapped", map_once),
    ),
    Fault(
        "map-unreferenced", "R04", "refcount-below-mapcount", "error", ALL, GH,
        Case("mapped", lambda e: e.add(MAPCOUNT, 1), OWN),
        Case("mapped", map_once),
    ),
    Fault(
        "map-unreferenced-anon", "R04", "refcount-below-mapcount", "error", ANON, C_AND_E,
        Case("mapped", lambda e: e.add(MAPCOUNT, 1), OWN),
        Case("mapped", map_once),
    ),
    Fault(
        "over-put", "R06", "refcount-below-idle", "error", (FS_DAX, P2PDMA), C_AND_E,
        Case("idle", lambda e: e.put(REFCOUNT, 0), OWN),
        Case("held or idle", lambda e: e.put(REFCOUNT, e.full)),
    ),
    Fault(
        "over-put-generic", "R06", "refcount-below-idle", "error", (GENERIC,), EVERY,
        Case("idle", lambda e: e.put(REFCOUNT, 0), OWN),
        Case("held or idle", lambda e: e.put(REFCOUNT, e.full)),
    ),
    Fault(
        "over-put-private", "R06", "refcount-below-idle", "error", (PRIVATE,), ("C",),
        Case("idle", lambda e: e.put(REFCOUNT, 0), OWN),
        Case("idle", lambda e: e.put(REFCOUNT, 1)),
    ),
    Fault(
        "mapcount-uncounted", "R07", "unaccounted-mapcount", "error", (FS_DAX, GENERIC), C_AND_E,
        Case("associated", map_once, OWN),
        Case("associated", lambda e: e.add(REFCOUNT, 1), (("held-without-map", "info"),)),
    ),
    # Mappings.
    Fault(
        "mapping-anon", "R31", "wrong-mapping", "error", (FS_DAX,), EVERY,
        Case("associated", lambda e: e.put("mapping", e.get("mapping") | 1), OWN),
        Case("associated", lambda e: e.put("mapping", e.get("mapping"))),
    ),
    Fault(
        "mapping-poison", "R31", "wrong-mapping", "error", (FS_DAX,), EVERY,
        Case("associated", lambda e: e.put("mapping", 0xDEAD000000000400), OWN),
        Case("associated", lambda e: e.put("mapping", e.get("mapping"))),
    ),
    Fault(
        "mapping-one", "R31", "wrong-mapping", "error", (FS_DAX,), ("C", "G", "H"),
        Case("associated", lambda e: e.put("mapping", 1), OWN),
        Case("associated", lambda e: e.put("mapping", e.get("mapping"))),
    ),
    Fault(
        "mapping-small", "R31", "wrong-mapping", "error", (FS_DAX,), EVERY,
        Case("associated", lambda e: e.put("mapping", 0x400), OWN),
        Case("associated", lambda e: e.put("mapping", e.get("mapping"))),
    ),
    Fault(
        "mapped-by-no-file", "-", "mapped-without-association", "error", (FS_DAX,), GH,
        Case("mapped", lambda e: (e.put("mapping", 0), e.put("index", 0)), OWN),
        Case("mapped", lambda e: (e.put("mapping", 0), e.put("index", 1))),
    ),
    # Holders.
    Fault(
        "private-pin", "R13", "pinned-private", "error", (PRIVATE,), EVERY,
        Case("mapped", lambda e: pin(e, 1024), OWN),
        Case("mapped", lambda e: pin(e, 1023)),
    ),
    Fault(
        "private-pin-large", "R13", "pinned-private", "error", (PRIVATE,), ("H",),
        Case("folio-mapped", pin_folio, OWN),
        Case("folio-mapped", lambda e: e.add(REFCOUNT, 1)),
    ),
    Fault(
        "pin-after-truncate", "R12", "pinned-after-truncate", "error", (FS_DAX,), GH,
        Case("idle", lambda e: pin(e, 1024), OWN),
        Case("associated", lambda e: pin(e, 1024), (("dma-pinned", "info"),)),
    ),
    Fault(
        "pin-after-truncate-old", "R12", "pinned-after-truncate", "warning", (FS_DAX,), C_AND_E,
        Case("idle", lambda e: pin(e, 1024), OWN),
        Case("associated", lambda e: pin(e, 1024), (("dma-pinned", "info"),)),
    ),
    Fault(
        "leak", "R01", "reference-on-free-folio", "error", (FS_DAX,), GH,
        Case("idle", lambda e: e.put(REFCOUNT, 1), OWN),
        Case("cached", lambda e: e.put(REFCOUNT, 1), (("held-without-map", "info"),)),
    ),
    Fault(
        "leak-stale-share", "R01", "reference-on-free-folio", "warning", (FS_DAX,), GH,
        Case(
            "idle", lambda e: (e.put(REFCOUNT, 1), e.put("index", 7)), OWN,
            with_entries=(("reference-on-free-folio", "error"),),
        ),
        Case("cached", lambda e: e.put(REFCOUNT, 1), (("held-without-map", "info"),)),
        needs="stale_share",
    ),
    Fault(
        "leak-anon", "R01", "reference-on-free-folio", "warning", ANON, EGH,
        Case("idle", hold_free, OWN),
        Case("idle", allocate),
    ),
    Fault(
        "leak-p2pdma", "R01", "reference-on-free-folio", "warning", (P2PDMA,), GH,
        Case("idle", lambda e: e.put(REFCOUNT, 1), OWN),
        Case("mapped", map_once),
    ),
    Fault(
        "stale-mapping", "R30", "stale-mapping", "error", ANON, EVERY,
        Case("idle", lambda e: e.put("mapping", e.pagemap.address & ~7 | 1), OWN),
        Case("idle", lambda e: e.put("index", e.pagemap.address & ~7 | 1)),
    ),
    Fault(
        "stale-mapping-p2pdma", "R30", "stale-mapping", "error", (P2PDMA,), EVERY,
        Case("idle", lambda e: e.put("mapping", e.pagemap.address & ~7), OWN),
        Case("idle", lambda e: e.put("index", e.pagemap.address & ~7)),
    ),
    Fault(
        "leak-old", "R02", "reference-outlives-mapping", "warning", (FS_DAX,), C_AND_E,
        Case("idle", lambda e: e.put(REFCOUNT, 2), OWN),
        Case("associated", lambda e: e.put(REFCOUNT, 2), (("held-without-map", "info"),)),
    ),
    Fault(
        "leak-generic", "R02", "reference-outlives-mapping", "warning", (GENERIC,), EVERY,
        Case("idle", lambda e: e.put(REFCOUNT, 2), OWN),
        Case("associated", lambda e: e.put(REFCOUNT, e.full + 1), (("held-without-map", "info"),)),
    ),
    Fault(
        "node", "R22", "wrong-node", "warning", ALL, EVERY,
        Case("idle", lambda e: e.flip(e.layout.node[0]), OWN),
        Case("idle", other_bit),
        needs="node",
    ),
    Fault(
        "reserved-clear", "R23", "not-reserved", "warning", NOT_ANON, EVERY,
        Case("idle", lambda e: e.unflag("PG_reserved"), OWN),
        Case("idle", other_bit),
    ),
    Fault(
        "reserved-clear-anon", "R23", "not-reserved", "warning", ANON, BEFORE_H,
        Case("idle", lambda e: e.unflag("PG_reserved"), OWN),
        Case("idle", other_bit),
    ),
    # A split of a large private folio clears it.
    Fault(
        "reserved-clear-split", "R23", "not-reserved", "warning", (P2PDMA,), ("H",),
        Case("idle", lambda e: e.unflag("PG_reserved"), OWN),
        Case("idle", lambda e: e.unflag("PG_reserved"), types=ANON),
    ),
    Fault(
        "free-locked", "R39", "dirty-free-state", "warning", ANON, EVERY,
        Case("idle", lambda e: e.flag("PG_locked"), OWN),
        Case("idle", harmless),
    ),
    Fault(
        "free-exclusive", "R39", "dirty-free-state", "warning", ANON, EGH,
        Case("idle", lambda e: e.flag("PG_anon_exclusive"), OWN),
        Case("idle", harmless),
    ),
    Fault(
        "free-writeback", "R39", "dirty-free-state", "warning", ANON, EVERY,
        Case("idle", lambda e: e.flag("PG_writeback"), OWN),
        Case("idle", harmless),
    ),
    Fault(
        "free-charged", "R39", "dirty-free-state", "warning", ANON, EVERY,
        Case("idle", lambda e: e.put("memcg_data", e.pagemap.address & ~7), OWN),
        Case("mapped", lambda e: e.put("memcg_data", e.pagemap.address & ~7)),
    ),
    Fault(
        "hwpoison-used", "R41", "hwpoison", "warning", ALL, EVERY,
        Case("mapped or held", lambda e: e.flag("PG_hwpoison"), OWN),
        Case("idle", lambda e: e.flag("PG_hwpoison"), (("hwpoison", "info"),)),
    ),
    Fault(
        "hwpoison-idle", "R41", "hwpoison", "info", ALL, EVERY,
        Case("idle", lambda e: e.flag("PG_hwpoison"), OWN),
        Case("idle", harmless),
    ),
    # Legal, and worth seeing: only who holds the page tells a leak from an I/O in flight.
    Fault(
        "pin-unknown", "R11", "dma-pinned", "info", (FS_DAX, GENERIC), EVERY,
        Case("associated", lambda e: pin(e, 1024), OWN),
        Case("associated", lambda e: pin(e, 1023), (("held-without-map", "info"),)),
        HOLDERS,
    ),
    Fault(
        "pin-unknown-mapped", "R11", "dma-pinned", "info", (COHERENT,), EGH,
        Case("mapped", lambda e: pin(e, 1024), OWN),
        Case("mapped", lambda e: pin(e, 1023)),
        HOLDERS,
    ),
    Fault(
        "pin-unknown-p2pdma", "R11", "dma-pinned", "info", (P2PDMA,), GH,
        Case("mapped", lambda e: pin(e, 1024), OWN),
        Case("mapped", lambda e: pin(e, 1023), (("held-without-map", "info"),)),
        HOLDERS,
    ),
    Fault(
        "pin-unknown-large", "R11", "dma-pinned", "info", (GENERIC,), EGH,
        Case("folio-touched", pin_folio, OWN),
        Case("folio-touched", lambda e: e.add(REFCOUNT, 1), (("held-without-map", "info"),)),
        HOLDERS,
    ),
    Fault(
        "hold-unknown", "R10", "held-without-map", "info", (FS_DAX, GENERIC), EVERY,
        Case("associated", lambda e: e.add(REFCOUNT, 1), OWN),
        Case("held", lambda e: e.put(REFCOUNT, e.full)),
        HOLDERS,
    ),
    Fault(
        "hold-unknown-p2pdma", "R10", "held-without-map", "info", (P2PDMA,), GH,
        Case("mapped", lambda e: e.add(REFCOUNT, 1), OWN),
        Case("mapped", map_once),
        HOLDERS,
    ),
    # Rules on a whole pagemap.
    Fault(
        "type-unknown", "P06", "pgmap-sanity", "error", (FS_DAX, GENERIC), EVERY,
        Case("pagemap", unknown_type, OWN),
        Case("pagemap", lambda e: e.member("flags", e.member_value("flags") | 1 << 7)),
    ),
    Fault(
        "ops-null", "P06", "pgmap-sanity", "error", ANON, EVERY,
        Case("pagemap", lambda e: e.member("ops", 0), OWN),
        Case("pagemap", lambda e: e.member("ops", e.ops_without("migrate_to_ram")), types=(COHERENT,)),
    ),
    Fault(
        "ops-without-migrate", "P06", "pgmap-sanity", "error", (PRIVATE,), EVERY,
        Case("pagemap", lambda e: e.member("ops", e.ops_without("migrate_to_ram")), OWN),
        Case("pagemap", lambda e: e.member("ops", e.ops_without("migrate_to_ram")), types=(COHERENT,)),
    ),
    Fault(
        "ops-without-free", "P06", "pgmap-sanity", "error", (PRIVATE,), EVERY,
        Case("pagemaps-of-ops", no_free_callback, OWN),
        Case("pagemaps-of-ops", lambda e: e.op("folio_split", 0)),
    ),
    Fault(
        "owner-null", "P06", "pgmap-sanity", "error", ANON, EVERY,
        Case("pagemap", lambda e: e.member("owner", 0), OWN),
        Case("pagemap", lambda e: e.member("owner", e.pagemap.address)),
    ),
    Fault(
        "shift-of-dax", "P06", "pgmap-sanity", "error", (FS_DAX,), EGH,
        Case("pagemap", lambda e: e.member("vmemmap_shift", 9), OWN),
        Case("pagemap", lambda e: e.member("vmemmap_shift", e.pagemap.vmemmap_shift), types=(GENERIC,)),
    ),
    Fault(
        "ranges-with-altmap", "P06", "pgmap-sanity", "error", (GENERIC,), EVERY,
        Case("pagemap-altmap", lambda e: e.split_range(), OWN),
        Case("pagemap-ram", lambda e: e.split_range()),
    ),
    Fault(
        "range-inside-out", "P06", "pgmap-sanity", "error", NOT_ANON, EVERY,
        Case("pagemap", inside_out, OWN),
        Case("pagemap-ram", lambda e: e.split_range(), types=(GENERIC,)),
    ),
    Fault(
        "range-unaligned", "P06", "pgmap-sanity", "error", ALL, EVERY,
        Case("pagemap-free-end", unaligned, OWN),
        Case("pagemap-free-end", shorten, (("registry-coverage", "error"),)),
    ),
    Fault(
        "being-added", "P06", "pgmap-sanity", "info", (FS_DAX, GENERIC), EVERY,
        Case("pagemap", lambda e: (e.member("nr_range", 0), e.hide_all()), OWN),
        Case("pagemap-ram", lambda e: e.split_range(), types=(GENERIC,)),
    ),
    Fault(
        "altmap-takes-all", "P06", "pgmap-sanity", "error", (FS_DAX, GENERIC), EVERY,
        Case("pagemap-altmap", altmap_takes_all, OWN),
        Case("pagemap-altmap", lambda e: altmap_takes_all(e, 512)),
    ),
    Fault(
        "altmap-overdrawn", "P06", "pgmap-sanity", "error", (FS_DAX, GENERIC), EVERY,
        Case("pagemap-altmap", lambda e: e.member("altmap.alloc", e.altmap("free") + 1), OWN),
        Case("pagemap-altmap", lambda e: e.member("altmap.alloc", e.altmap("free"))),
    ),
    Fault(
        "ref-exited", "P04", "dead-in-registry", "error", ALL, EVERY,
        Case("pagemap", exit_ref, OWN),
        Case("pagemap-held", die),
    ),
    Fault(
        "ref-dead-at-zero", "P04", "dead-in-registry", "warning", NOT_ANON, EGH,
        Case("pagemap", die_at_zero, OWN),
        Case("pagemap-held", die),
    ),
    Fault(
        "ref-dead-at-zero-dax", "P04", "dead-in-registry", "warning", (FS_DAX,), ("C",),
        Case("pagemap", die_at_zero, OWN),
        Case("pagemap-held", die),
    ),
    Fault(
        "index-erased", "P05", "registry-coverage", "error", ALL, EVERY,
        Case("pagemap-slots", lambda e: e.last_slot(0), OWN),
        Case("pagemap-slots", dying_without_entry),
    ),
    Fault(
        "index-of-other", "P05", "registry-coverage", "error", ALL, EVERY,
        Case("two-pagemaps", hand_last_index, OWN),
        Case("pagemap-ram", lambda e: e.split_range(), types=(GENERIC,)),
    ),
    Fault(
        "range-too-short", "P05", "registry-coverage", "error", ALL, EVERY,
        Case("pagemap-free-end", shorten, OWN),
        Case("pagemap-ram", lambda e: e.split_range(), types=(GENERIC,)),
    ),
    Fault(
        "range-overlap", "P05", "registry-coverage", "error", (GENERIC,), EVERY,
        Case("pagemap-neighbour", overlap_next, OWN),
        Case("pagemap-ram", lambda e: e.split_range()),
    ),
    Fault(
        "ref-below", "P02", "ref-below-bias", "error", NOT_ANON, EGH,
        Case("pagemap", lambda e: e.set_ref(e.ref_needed - 1), OWN),
        Case("pagemap", lambda e: e.set_ref(e.ref_needed)),
    ),
    Fault(
        "dying", "P03", "dying-busy", "error", ALL, EGH,
        Case("pagemap-held", kill, OWN),
        Case("pagemap-few-held", die_idle, types=NOT_ANON),
    ),
    # Removal that has begun, and has not put the references that the pages were born with.
    Fault(
        "dying-not-drained", "P03", "dying-busy", "warning", NOT_ANON, ("C",),
        Case("pagemap-held", kill, OWN),
        Case("pagemap-held", lambda e: e.atomic(e.ref_count)),
    ),
    Fault(
        "ref-leaked", "P01", "ref-versus-pages", "warning", ANON, EGH,
        Case("pagemap", lambda e: e.ref(1), OWN),
        Case("idle", allocate),
    ),
    Fault(
        "ref-lost", "P01", "ref-versus-pages", "warning", ANON, EGH,
        Case("pagemap-held", lambda e: e.ref(-1), OWN),
        Case("idle", allocate),
    ),
    Fault(
        "ref-lost-old", "P01", "ref-versus-pages", "warning", (GENERIC,), ("C",),
        Case("pagemap", lambda e: e.set_ref(e.ref_needed - 1), OWN),
        Case("pagemap", lambda e: e.set_ref(e.ref_needed + 1)),
    ),
    Fault(
        "idle-at-another-count", "R09", "idle-count-mismatch", "warning", NOT_ANON, EVERY,
        Case("type", lambda e: e.mass(more_than_half=True), OWN),
        Case("type", lambda e: e.mass(more_than_half=False)),
    ),
    Fault(
        "memmap-unmapped", "P09", "memmap-unreadable", "info", ALL, EVERY,
        Case("pagemap-frame", lambda e: e.unmap_memmap(), OWN),
        Case("altmap-head", lambda e: e.unmap_memmap(), types=(FS_DAX, GENERIC)),
    ),
    # What one page alone does not show.
    Fault(
        "free-list-used", "R15", "free-list-nonidle", "error", ANON, EGH,
        Case("listed", hold_free, (("reference-on-free-folio", "warning"),)),
        Case("mapped", lambda e: e.add(REFCOUNT, 1)),
        SECOND_PASS,
    ),
    Fault(
        "mapping-not-a-file", "R31", "wrong-mapping", "error", (FS_DAX,), EVERY,
        Case("associated", pointer_to_nothing, with_entries=OWN),
        Case("associated", lambda e: e.put("mapping", e.get("mapping"))),
        SECOND_PASS,
    ),
    Fault(
        "block-without-entry", "R32", "mapping-without-entry", "error", (FS_DAX,), EVERY,
        Case(
            "idle", lambda e: (e.put("mapping", e.some_file), e.put("index", 1 << 40)),
            with_entries=OWN,
        ),
        Case("associated", lambda e: e.put("zone_device_data", 1)),
        SECOND_PASS,
    ),
    Fault(
        "index-off-by-one", "R33", "entry-page-mismatch", "error", (FS_DAX,), EVERY,
        Case("associated", lambda e: e.add("index", 1), with_entries=OWN),
        Case("associated", lambda e: e.put("zone_device_data", 1)),
        SECOND_PASS,
    ),
    Fault(
        "entry-elsewhere", "R33", "entry-page-mismatch", "error", (FS_DAX,), EVERY,
        Case("entry", entry_to_free, with_entries=OWN),
        Case("entry", lambda e: e.entry(e.entry_value)),
        SECOND_PASS, needs="share marked",
    ),
    # A page that names no file may be one of two, of which the other was truncated.
    Fault(
        "entry-elsewhere-unmarked", "R33", "entry-page-mismatch", "warning", (FS_DAX,), ("E",),
        Case("entry", entry_to_free, with_entries=OWN),
        Case("entry", lambda e: e.entry(e.entry_value)),
        SECOND_PASS, needs="share unmarked",
    ),
    Fault(
        "share-without-entry", "R34", "shared-state", "error", (FS_DAX,), GH,
        Case("idle", lambda e: e.put("index", 1), with_entries=OWN),
        Case("associated", lambda e: e.put("zone_device_data", 1)),
        SECOND_PASS, needs="no stale_share",
    ),
    Fault(
        "share-left-behind", "R34", "shared-state", "info", (FS_DAX,), GH,
        Case("idle", lambda e: e.put("index", 1), with_entries=OWN),
        Case("associated", lambda e: e.put("zone_device_data", 1)),
        SECOND_PASS, needs="stale_share",
    ),
    Fault(
        "shared-by-nobody", "R34", "shared-state", "error", (FS_DAX,), ("E",),
        Case("idle", lambda e: (e.put("mapping", 1), e.put("index", 0)), OWN),
        Case("shared", lambda e: e.put("zone_device_data", 1)),
        needs="share",
    ),
    Fault(
        "shared-counter-lost", "R34", "shared-state", "info", (FS_DAX,), ("E",),
        Case("idle", lambda e: (e.put("mapping", 1), e.put("index", 0)), OWN),
        Case("idle", lambda e: (e.put("mapping", 1), e.put("index", 1))),
        needs="share unmarked",
    ),
    Fault(
        "share-too-high", "R35", "share-vs-entries", "warning", (FS_DAX,), EGH,
        Case("shared", lambda e: e.add("index", 1), with_entries=OWN),
        Case("shared", lambda e: e.put("zone_device_data", 1)),
        SECOND_PASS, needs="share",
    ),
    Fault(
        "two-owners", "R36", "multi-owner-unshared", "error", (FS_DAX,), EVERY,
        Case("entry", second_owner, with_entries=OWN),
        Case("entry", lambda e: e.entry(e.entry_value)),
        SECOND_PASS, needs="share marked",
    ),
    Fault(
        "two-owners-unmarked", "R36", "multi-owner-unshared", "warning", (FS_DAX,), ("E",),
        Case("entry", second_owner, with_entries=OWN),
        Case("entry", lambda e: e.entry(e.entry_value)),
        SECOND_PASS, needs="share unmarked",
    ),
    Fault(
        "split-under-entry", "R37", "entry-order-vs-folio", "warning", (FS_DAX,), GH,
        Case("folio-cached", split_unseen, with_entries=OWN),
        Case("folio-cached", lambda e: e.put("zone_device_data", 1)),
        SECOND_PASS,
    ),
    Fault(
        "entry-locked", "R38", "dax-lock-stuck", "warning", (FS_DAX,), EVERY,
        Case(
            "entry", lambda e: e.entry(e.entry_value | 2),
            with_entries=(("dax-lock-stuck", "info"),),
        ),
        Case("entry", lambda e: e.entry(e.entry_value)),
        SECOND_PASS,
    ),
    Fault(
        "devdax-index", "R40", "gen-mapping", "warning", (GENERIC,), EVERY,
        Case("associated", lambda e: e.add("index", 1)),
        Case("idle", lambda e: e.put("index", 1)),
        SECOND_PASS,
    ),
    Fault(
        "driver-data-null", "R42", "zdd", "info", (PRIVATE,), EVERY,
        Case("mapped", lambda e: e.put("zone_device_data", 0)),
        Case("mapped", lambda e: e.put("zone_device_data", 0), types=(COHERENT,)),
        SECOND_PASS,
    ),
    Fault(
        "section-without-memmap", "P07", "memmap-missing", "error", (*ANON, FS_DAX, GENERIC), EVERY,
        Case("section", lambda e: e.clear_section(), OWN),
        Case("no-section", lambda e: e.clear_section()),
    ),
    Fault(
        "pool-page-held", "P10", POOL_RULE, "error", (P2PDMA,), GH,
        Case("last-idle", lambda e: e.put(REFCOUNT, 1), (("reference-on-free-folio", "warning"),)),
        Case("mapped", map_once),
        SECOND_PASS,
    ),
)
# fmt: on


class Excuse(NamedTuple):
    """Why a rule has no row above for memory types and schemes that its own row in the table names."""

    rule: str
    types: tuple[str, ...]
    schemes: tuple[str, ...]
    why: str


# fmt: off
EXCUSES = (
    Excuse(
        "dedup-alias", ALL, EVERY,
        "never a finding: tail-reference-alias shows that an alias is reported once",
    ),
    Excuse(
        "free-or-allocated", ALL, EVERY,
        "a rule of schemes D and F1, where every free page shows it: no edit is needed",
    ),
    Excuse(
        "free-list-nonidle", (GENERIC,), EVERY,
        "Xen's pages: tests/mock_kernels has some",
    ),
    Excuse(
        "pool-vs-pages", (P2PDMA,), C_AND_E,
        "Debian has no P2PDMA before 6.16",
    ),
    Excuse(
        "free-list-nonidle", ANON, ("C",),
        "Debian has no driver of private pages in 5.10",
    ),
    Excuse(
        "memmap-missing", (P2PDMA,), EVERY,
        "the controller memory buffer is smaller than a section, which others may share",
    ),
    Excuse(
        "altmap-overrun", ALL, EVERY,
        "an exited reference with an altmap is a row of tests/test_pagemaps.py: no core has both",
    ),
    Excuse(
        "refcount-below-mapcount", (FS_DAX, GENERIC), C_AND_E,
        "maps take no references there: a mapcount is unaccounted-mapcount",
    ),
    Excuse(
        "refcount-below-idle", (FS_DAX, P2PDMA), GH,
        "nothing is below an idle count of 0",
    ),
    Excuse(
        "not-reserved", ANON, ("H",),
        "a split of a large private folio clears PG_reserved",
    ),
    Excuse(
        "ref-versus-pages", NOT_ANON, EGH,
        "their reference counts pages that are there, not those in use: ref-below-bias",
    ),
    Excuse(
        "ref-versus-pages", (FS_DAX,), ("C",),
        "a block queue's counter, which counts its I/O as well",
    ),
    Excuse(
        "idle-count-mismatch", ANON, EVERY,
        "half of the lab's private pages are more than one would rewrite; the other types show it",
    ),
)
# fmt: on

# The rules of kernel-semantics 8 that the auditor has no row for: number, id.
CATALOGUE_ONLY = {
    "R40": "gen-mapping",
    "R42": "zdd",
}
