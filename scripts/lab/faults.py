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

from collections.abc import Callable, Iterator
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

# Those that a page breaks whose driver does not know that it is in use.
OF_BOOKS = ("pool-vs-pages", "free-list-nonidle")

Edit = Callable[["Editor"], object]
Finding = tuple[str, str]

# A finding of the row's own rule at its own level.
OWN: tuple[Finding, ...] = (("own", "own"),)
# What is legal and shown.
HELD, PINNED = ("held-without-map", "info"), ("dma-pinned", "info")


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


def shown(where: str, edit: Edit) -> Case:
    """A fault that the audit names by its own rule."""
    return Case(where, edit, OWN)


def by_entries(where: str, edit: Edit) -> Case:
    """A fault that it names where the core holds the DAX entries, and else says nothing of."""
    return Case(where, edit, with_entries=OWN)


def near(where: str, edit: Edit, *finds: Finding, types: Optional[tuple[str, ...]] = None) -> Case:
    """A near miss."""
    return Case(where, edit, finds, types)


class Fault(NamedTuple):
    """A row; number, rule and level are those of the group that it stands in."""

    name: str
    types: tuple[str, ...]
    schemes: tuple[str, ...]
    case: Case
    near: Case
    found_by: str = PAGE
    needs: str = ""
    number: str = ""
    rule: str = ""
    level: str = ""


def of_rule(number: str, rule: str, level: str, *faults: Fault) -> Iterator[Fault]:
    """Rows that one rule must name at one level."""
    for fault in faults:
        yield fault._replace(number=number, rule=rule, level=level)


# ---------------------------------------------------------------- edits of one word

REFCOUNT, MAPCOUNT = "_refcount", "_mapcount"


def put(member: str, value: int) -> Edit:
    return lambda e: e.put(member, value)


def add(member: str, delta: int) -> Edit:
    return lambda e: e.add(member, delta)


def flag(name: str) -> Edit:
    return lambda e: e.flag(name)


def unflag(name: str) -> Edit:
    return lambda e: e.unflag(name)


def fill(byte: int) -> Edit:
    return lambda e: e.fill(byte)


def compound(order: int) -> Edit:
    return lambda e: e.compound(order)


def member(path: str, value: int) -> Edit:
    return lambda e: e.member(path, value)


def ref(delta: int) -> Edit:
    return lambda e: e.ref(delta)


def pin(count: int) -> Edit:
    """References as pin_user_pages() takes them of a small folio: 1024 are one pin."""
    return add(REFCOUNT, count)


def both(first: Edit, second: Edit) -> Edit:
    return lambda e: (first(e), second(e))


def pointer(member: str, bit: int = 0) -> Edit:
    """A pointer that leads to no address_space."""
    return lambda e: e.put(member, e.pagemap.address & ~7 | bit)


def as_counted(e: Editor) -> None:
    """The refcount that idle count and maps ask for."""
    e.put(REFCOUNT, e.full)


def same_mapping(e: Editor) -> None:
    e.put("mapping", e.get("mapping"))


def same_entry(e: Editor) -> None:
    e.entry(e.entry_value)


def zone_below(e: Editor) -> None:
    e.bits("zone", e.layout.zone_device - 1)


def tail_of_previous(e: Editor) -> None:
    e.tail_of(e.pfn - 1)


def beside_previous(e: Editor) -> None:
    """The word of tail_of_previous() where it means nothing."""
    e.beside(e.page_address(e.pfn - 1) | 1)


def tail_of_outside(e: Editor) -> None:
    """A tail whose head is not in the pagemap."""
    e.tail_of(e.start_pfn - 2)


def tail_of_head(e: Editor) -> None:
    """A tail of the folio of its place."""
    e.tail_of(e.folio.pfn)


def head_alone(e: Editor) -> None:
    """PG_head without order and tails."""
    e.compound(0, tails=0)


def ops_without_migrate(e: Editor) -> None:
    e.member("ops", e.ops_without("migrate_to_ram"))


def ref_too_low(e: Editor) -> None:
    """One reference less than the pagemap and its pages hold."""
    e.set_ref(e.ref_needed - 1)


def split_range(e: Editor) -> None:
    e.split_range()


def unmap_memmap(e: Editor) -> None:
    e.unmap_memmap()


def clear_section(e: Editor) -> None:
    e.clear_section()


# ---------------------------------------------------------------- edits of several words


def other_bit(e: Editor) -> None:
    """A bit of flags beside the zone bits, which belongs to last_cpupid or to nobody."""
    e.flip(e.layout.zone[0] - 1)


def harmless(e: Editor) -> None:
    """Flags that drivers and fault paths may leave behind."""
    e.flag("PG_referenced", "PG_uptodate", "PG_dirty")


def pin_folio(e: Editor) -> None:
    """One pin of a large folio: a reference and a pincount."""
    e.add(REFCOUNT, 1)
    e.add("_pincount", 1)


def map_once(e: Editor) -> None:
    """One more page table entry: a reference and a mapcount."""
    e.add(REFCOUNT, 1)
    e.add(MAPCOUNT, 1)


def allocate(e: Editor) -> None:
    """A private page handed out and not mapped yet: locked, one reference, one of the pagemap."""
    e.put(REFCOUNT, e.idle + 1)
    e.flag("PG_locked")
    e.ref(1)


def hold_free(e: Editor) -> None:
    """A private page in use for the pagemap, but neither mapped nor locked."""
    e.put(REFCOUNT, e.idle + 1)
    e.ref(1)


def make_idle(e: Editor) -> None:
    """An idle page of order 0, whatever it was."""
    e.put("pgmap", e.pagemap.address)
    e.put("mapping", 0)
    e.put("index", 0)
    e.put(MAPCOUNT, -1)
    e.put(REFCOUNT, e.idle)


def lose_page(e: Editor) -> None:
    """A page of zeroes stands for one that the dump does not hold."""
    e.fill(0)
    e.also("memmap-unreadable", "info")


def foreign_but_pgmap(e: Editor) -> None:
    e.bits("zone", 0)
    e.unflag("PG_reserved")


def foreign(e: Editor) -> None:
    """Nothing of it is a device page's."""
    e.put("pgmap", 0)
    foreign_but_pgmap(e)


def lose_head(e: Editor) -> None:
    """PG_head goes, and every tail is on its own."""
    e.unflag("PG_head")
    e.also("bad-head", "error", e.pfn + 1, e.folio.pages - 1)
    if e.has_entries:
        e.also("entry-order-vs-folio", "warning", e.pfn)


def halve_order(e: Editor) -> None:
    """A folio of half the size; the tails of the other half are on their own."""
    half = e.folio.pages // 2
    e.add("order", -1)
    e.also("bad-head", "error", e.pfn + half, half)


def oversize(e: Editor) -> None:
    """A folio of order 12; of its tails only the first is written."""
    e.compound(12, tails=1)


def hold_tail(e: Editor) -> None:
    """A folio of two pages with a reference on its tail."""
    e.compound(1)
    e.at(1).put(REFCOUNT, 1)
    e.about(e.pfn + 1)


def hold_tail_of_wrong(e: Editor) -> None:
    """The same where a folio of two pages is wrong by itself."""
    hold_tail(e)
    e.also("wrong-order", "error", e.pfn)


def split_unseen(e: Editor) -> None:
    """The folio of a PMD entry falls apart; the entry stays."""
    e.unflag("PG_head")
    for i in range(1, e.folio.pages):
        e.at(i).template()
    if e.has_entries:
        e.also("entry-order-vs-folio", "warning", e.pfn + 1, e.folio.pages - 1)


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


def file_without_block(e: Editor) -> None:
    """The page says that it is a file's, far behind what any file has."""
    e.put("mapping", e.some_file)
    e.put("index", 1 << 40)


def pmd_of_no_entry(e: Editor) -> None:
    """A free folio of the order of a PMD: legal to look at, but no file has an entry for it."""
    e.compound(e.layout.pmd_order)
    if e.has_entries:
        e.also("entry-order-vs-folio", "warning", e.pfn)


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


def being_added(e: Editor) -> None:
    """memremap_pages() stores the ranges last."""
    e.member("nr_range", 0)
    e.hide_all()


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
    e.also_on(e.place.others[0], "registry-coverage", "error")
    e.also("wrong-pgmap", "error", e.end_pfn, pages)


def hand_last_index(e: Editor) -> None:
    """The last entry of the registry now leads to another pagemap."""
    e.last_slot(e.other.address)
    e.also_on(e.other, "registry-coverage", "error")


def dying_without_entry(e: Editor) -> None:
    """Removal deletes range after range while it waits."""
    die(e)
    e.last_slot(0)


# ---------------------------------------------------------------- the table

# fmt: off
FAULTS: tuple[Fault, ...] = (
    # Whose page is it?
    *of_rule("R25", "uninitialised", "error",
        Fault("poison-ff", ALL, EVERY, shown("idle", fill(0xFF)), near("idle", lose_page)),
        Fault("poison-fd", ALL, EVERY, shown("idle", fill(0xFD)), near("idle", lose_page)),
        Fault("foreign-page", ALL, EVERY,
              shown("idle", foreign), near("idle", foreign_but_pgmap, ("wrong-zone", "error"))),
    ),
    *of_rule("R21", "wrong-zone", "error",
        Fault("zone", ALL, EVERY, shown("idle", zone_below), near("idle", other_bit)),
        Fault("zone-of-tail", (FS_DAX, GENERIC, PRIVATE), EGH,
              shown("tail", zone_below), near("tail", other_bit)),
    ),
    *of_rule("R20", "wrong-pgmap", "error",
        Fault("pgmap-null", ALL, EVERY,
              shown("idle", put("pgmap", 0)), near("idle", lambda e: e.beside(0))),
        Fault("pgmap-other", ALL, EVERY,
              shown("idle", lambda e: e.put("pgmap", e.other.address)),
              near("idle", lambda e: e.beside(e.other.address))),
        Fault("pgmap-list", ALL, EVERY,
              shown("idle", lambda e: e.put("pgmap", e.page_address(e.pfn + 1) + 8)),
              near("idle", lambda e: e.beside(e.page_address(e.pfn + 1) + 8))),
    ),
    *of_rule("R24", "core-mm-flags", "error",
        Fault("lru", ALL, EVERY, shown("idle", flag("PG_lru")), near("idle", harmless)),
        Fault("swapcache", ALL, EVERY, shown("idle", flag("PG_swapcache")), near("idle", harmless)),
        Fault("page-type", ALL, EVERY,
              shown("idle", lambda e: e.put(MAPCOUNT, e.page_type_limit - 1)),
              near("idle", lambda e: e.put(MAPCOUNT, e.page_type_limit), ("mapcount-out-of-range", "error"))),
    ),
    *of_rule("R26", "bad-head", "error",
        Fault("tail-of-nothing", NOT_ANON, EVERY,
              shown("idle", tail_of_previous), near("idle", beside_previous)),
        Fault("tail-of-nothing-anon", ANON, BEFORE_H,
              shown("idle", tail_of_previous), near("idle", beside_previous)),
        Fault("tail-head-outside", NOT_ANON, EVERY,
              shown("idle", tail_of_outside),
              near("idle", lambda e: e.beside(e.page_address(e.start_pfn - 2) | 1))),
    ),
    *of_rule("R26", "bad-head", "info",
        Fault("stale-tail", ANON, ("H",),
              shown("idle", tail_of_previous), near("idle", beside_previous)),
    ),
    *of_rule("R26", "bad-head", "error",
        Fault("stale-tail-head-outside", ANON, ("H",),
              shown("idle", tail_of_outside), near("idle", tail_of_previous, ("bad-head", "info"))),
        Fault("stale-tail-referenced", ANON, ("H",),
              shown("idle", both(tail_of_previous, put(REFCOUNT, 1))),
              near("idle", both(tail_of_previous, put(REFCOUNT, 0)), ("bad-head", "info"))),
        Fault("head-inside-folio", (FS_DAX, GENERIC), EGH,
              shown("last-tail", make_idle), near("last-tail", tail_of_head)),
        Fault("head-inside-idle-folio", (GENERIC,), EGH,
              shown("last-tail-idle", make_idle), near("last-tail-idle", tail_of_head)),
        Fault("tail-too-far", (FS_DAX,), GH,
              shown("behind-folio", tail_of_head), near("last-tail", tail_of_head)),
        Fault("head-lost", (FS_DAX,), GH,
              Case("folio-cached", lose_head), near("folio-cached", flag("PG_referenced"))),
    ),
    *of_rule("R28", "wrong-order", "error",
        Fault("order-below-shift", (GENERIC,), EGH,
              shown("folio-idle", halve_order), near("folio-idle", add("order", 0))),
        Fault("head-without-order", NOT_ANON, EVERY,
              shown("idle", head_alone), near("idle", harmless)),
        Fault("head-without-order-anon", ANON, BEFORE_H,
              shown("idle", head_alone), near("idle", harmless)),
        Fault("head-without-order-used", ANON, ("H",),
              shown("idle", both(head_alone, allocate)), near("idle", head_alone)),
        Fault("small-folio", (GENERIC, P2PDMA), EVERY,
              shown("idle", compound(1)), near("idle", harmless)),
        Fault("small-folio-dax", (FS_DAX,), C_AND_E,
              shown("idle", compound(1)), near("idle", harmless)),
        Fault("small-folio-dax-large", (FS_DAX,), GH,
              shown("idle", compound(1)), near("idle-pmd", pmd_of_no_entry)),
        Fault("small-folio-anon", ANON, BEFORE_H,
              shown("idle", compound(1)), near("idle", harmless)),
        Fault("oversize-folio", ANON, ("H",),
              shown("idle", oversize), near("idle-pmd", lambda e: e.compound(e.layout.pmd_order))),
        Fault("misaligned-folio", ANON, ("H",),
              shown("idle-odd", compound(1)), near("idle-even", compound(1))),
    ),
    *of_rule("R14", "tail-refcount", "error",
        Fault("tail-reference", (FS_DAX, GENERIC, PRIVATE), EGH,
              shown("tail", put(REFCOUNT, 1)), near("tail", put("index", 1))),
        Fault("tail-reference-made", (COHERENT,), ("H",),
              shown("idle-even", hold_tail), near("idle-even", compound(1))),
        # There are no legal folios here: the head is a finding of its own.
        Fault("tail-reference-wrong", NOT_ANON, EVERY,
              shown("idle-even", hold_tail_of_wrong),
              near("idle-even", compound(1), ("wrong-order", "error"))),
        Fault("tail-reference-wrong-anon", ANON, BEFORE_H,
              shown("idle-even", hold_tail_of_wrong),
              near("idle-even", compound(1), ("wrong-order", "error"))),
        Fault("tail-reference-alias", (GENERIC,), EGH,
              shown("alias-tail", put(REFCOUNT, 1)), near("alias-tail", put("index", 1))),
    ),
    # Counts that no sequence of the scheme leads to.
    *of_rule("R05", "refcount-out-of-range", "error",
        Fault("refcount-negative", ALL, EVERY,
              shown("idle", put(REFCOUNT, -1)), near("held or idle", as_counted)),
        Fault("refcount-saturated", (*NOT_ANON, COHERENT), EVERY,
              shown("associated", put(REFCOUNT, 0x40000001)),
              near("associated", put(REFCOUNT, 0x40000000), PINNED)),
        Fault("refcount-saturated-private", (PRIVATE,), EVERY,
              shown("mapped", put(REFCOUNT, 0x40000001)),
              near("mapped", lambda e: e.put(REFCOUNT, e.full + 1023))),
    ),
    *of_rule("-", "mapcount-out-of-range", "error",
        Fault("mapcount-below", ALL, GH,
              shown("idle", put(MAPCOUNT, -2)), near("mapped", map_once)),
        Fault("mapcount-below-unmapped", (FS_DAX, GENERIC), C_AND_E,
              shown("idle", put(MAPCOUNT, -2)), near("idle", put(MAPCOUNT, -1))),
    ),
    *of_rule("R03", "mapped-without-reference", "error",
        Fault("mapped-free", (FS_DAX, GENERIC), C_AND_E,
              shown("idle", both(put(REFCOUNT, 0), put(MAPCOUNT, 0))),
              near("idle", put(MAPCOUNT, 0), ("unaccounted-mapcount", "error"))),
        Fault("mapped-zero", NOT_ANON, GH,
              shown("mapped", put(REFCOUNT, 0)), near("mapped", map_once)),
        Fault("mapped-zero-anon", ANON, EGH,
              shown("mapped", both(put(REFCOUNT, 0), ref(-1))), near("mapped", map_once)),
    ),
    *of_rule("R04", "refcount-below-mapcount", "error",
        Fault("map-unreferenced", ALL, GH,
              shown("mapped", add(MAPCOUNT, 1)), near("mapped", map_once)),
        Fault("map-unreferenced-anon", ANON, C_AND_E,
              shown("mapped", add(MAPCOUNT, 1)), near("mapped", map_once)),
    ),
    *of_rule("R06", "refcount-below-idle", "error",
        Fault("over-put", (FS_DAX, P2PDMA), C_AND_E,
              shown("idle", put(REFCOUNT, 0)), near("held or idle", as_counted)),
        Fault("over-put-generic", (GENERIC,), EVERY,
              shown("idle", put(REFCOUNT, 0)), near("held or idle", as_counted)),
        Fault("over-put-private", (PRIVATE,), ("C",),
              shown("idle", put(REFCOUNT, 0)), near("idle", put(REFCOUNT, 1))),
    ),
    *of_rule("R07", "unaccounted-mapcount", "error",
        Fault("mapcount-uncounted", (FS_DAX, GENERIC), C_AND_E,
              shown("associated", map_once), near("associated", add(REFCOUNT, 1), HELD)),
    ),
    # Mappings.
    *of_rule("R31", "wrong-mapping", "error",
        Fault("mapping-anon", (FS_DAX,), EVERY,
              shown("associated", lambda e: e.put("mapping", e.get("mapping") | 1)),
              near("associated", same_mapping)),
        Fault("mapping-poison", (FS_DAX,), EVERY,
              shown("associated", put("mapping", 0xDEAD000000000400)),
              near("associated", same_mapping)),
        Fault("mapping-one", (FS_DAX,), ("C", "G", "H"),
              shown("associated", put("mapping", 1)), near("associated", same_mapping)),
        Fault("mapping-small", (FS_DAX,), EVERY,
              shown("associated", put("mapping", 0x400)), near("associated", same_mapping)),
    ),
    *of_rule("-", "mapped-without-association", "error",
        Fault("mapped-by-no-file", (FS_DAX,), GH,
              shown("mapped", both(put("mapping", 0), put("index", 0))),
              near("mapped", both(put("mapping", 0), put("index", 1)))),
    ),
    # Holders.
    *of_rule("R13", "pinned-private", "error",
        Fault("private-pin", (PRIVATE,), EVERY,
              shown("mapped", pin(1024)), near("mapped", pin(1023))),
        Fault("private-pin-large", (PRIVATE,), ("H",),
              shown("folio-mapped", pin_folio), near("folio-mapped", add(REFCOUNT, 1))),
    ),
    *of_rule("R12", "pinned-after-truncate", "error",
        Fault("pin-after-truncate", (FS_DAX,), GH,
              shown("idle", pin(1024)), near("associated", pin(1024), PINNED)),
    ),
    *of_rule("R12", "pinned-after-truncate", "warning",
        Fault("pin-after-truncate-old", (FS_DAX,), C_AND_E,
              shown("idle", pin(1024)), near("associated", pin(1024), PINNED)),
    ),
    *of_rule("R01", "reference-on-free-folio", "error",
        Fault("leak", (FS_DAX,), GH,
              shown("idle", put(REFCOUNT, 1)), near("cached", put(REFCOUNT, 1), HELD)),
    ),
    *of_rule("R01", "reference-on-free-folio", "warning",
        Fault("leak-stale-share", (FS_DAX,), GH,
              Case("idle", both(put(REFCOUNT, 1), put("index", 7)), OWN, with_entries=(("reference-on-free-folio", "error"),)),
              near("cached", put(REFCOUNT, 1), HELD), needs="stale_share"),
        Fault("leak-anon", ANON, EGH, shown("idle", hold_free), near("idle", allocate)),
        Fault("leak-p2pdma", (P2PDMA,), GH,
              shown("idle", put(REFCOUNT, 1)), near("mapped", map_once)),
    ),
    *of_rule("R30", "stale-mapping", "error",
        Fault("stale-mapping", ANON, EVERY,
              shown("idle", pointer("mapping", 1)), near("idle", pointer("index", 1))),
        Fault("stale-mapping-p2pdma", (P2PDMA,), EVERY,
              shown("idle", pointer("mapping")), near("idle", pointer("index"))),
    ),
    *of_rule("R02", "reference-outlives-mapping", "warning",
        Fault("leak-old", (FS_DAX,), C_AND_E,
              shown("idle", put(REFCOUNT, 2)), near("associated", put(REFCOUNT, 2), HELD)),
        Fault("leak-generic", (GENERIC,), EVERY,
              shown("idle", put(REFCOUNT, 2)),
              near("associated", lambda e: e.put(REFCOUNT, e.full + 1), HELD)),
    ),
    *of_rule("R22", "wrong-node", "warning",
        Fault("node", ALL, EVERY,
              shown("idle", lambda e: e.flip(e.layout.node[0])),
              near("idle", other_bit), needs="node"),
    ),
    *of_rule("R23", "not-reserved", "warning",
        Fault("reserved-clear", NOT_ANON, EVERY,
              shown("idle", unflag("PG_reserved")), near("idle", other_bit)),
        Fault("reserved-clear-anon", ANON, BEFORE_H,
              shown("idle", unflag("PG_reserved")), near("idle", other_bit)),
        # A split of a large private folio clears it.
        Fault("reserved-clear-split", (P2PDMA,), ("H",),
              shown("idle", unflag("PG_reserved")), near("idle", unflag("PG_reserved"), types=ANON)),
    ),
    *of_rule("R39", "dirty-free-state", "warning",
        Fault("free-locked", ANON, EVERY, shown("idle", flag("PG_locked")), near("idle", harmless)),
        Fault("free-exclusive", ANON, EGH,
              shown("idle", flag("PG_anon_exclusive")), near("idle", harmless)),
        Fault("free-writeback", ANON, EVERY,
              shown("idle", flag("PG_writeback")), near("idle", harmless)),
        Fault("free-charged", ANON, EVERY,
              shown("idle", pointer("memcg_data")), near("mapped", pointer("memcg_data"))),
    ),
    *of_rule("R41", "hwpoison", "warning",
        Fault("hwpoison-used", ALL, EVERY,
              shown("mapped or held", flag("PG_hwpoison")),
              near("idle", flag("PG_hwpoison"), ("hwpoison", "info"))),
    ),
    *of_rule("R41", "hwpoison", "info",
        Fault("hwpoison-idle", ALL, EVERY,
              shown("idle", flag("PG_hwpoison")), near("idle", harmless)),
    ),
    # Legal, and worth seeing: only who holds the page tells a leak from an I/O in flight.
    *of_rule("R11", "dma-pinned", "info",
        Fault("pin-unknown", (FS_DAX, GENERIC), EVERY,
              shown("associated", pin(1024)), near("associated", pin(1023), HELD), HOLDERS),
        Fault("pin-unknown-mapped", (COHERENT,), EGH,
              shown("mapped", pin(1024)), near("mapped", pin(1023)), HOLDERS),
        Fault("pin-unknown-p2pdma", (P2PDMA,), GH,
              shown("mapped", pin(1024)), near("mapped", pin(1023), HELD), HOLDERS),
        Fault("pin-unknown-large", (GENERIC,), EGH,
              shown("folio-touched", pin_folio),
              near("folio-touched", add(REFCOUNT, 1), HELD), HOLDERS),
    ),
    *of_rule("R10", "held-without-map", "info",
        Fault("hold-unknown", (FS_DAX, GENERIC), EVERY,
              shown("associated", add(REFCOUNT, 1)), near("held", as_counted), HOLDERS),
        Fault("hold-unknown-p2pdma", (P2PDMA,), GH,
              shown("mapped", add(REFCOUNT, 1)), near("mapped", map_once), HOLDERS),
    ),
    # Rules on a whole pagemap.
    *of_rule("P06", "pgmap-sanity", "error",
        Fault("type-unknown", (FS_DAX, GENERIC), EVERY,
              shown("pagemap", unknown_type),
              near("pagemap", lambda e: e.member("flags", e.member_value("flags") | 1 << 7))),
        Fault("ops-null", ANON, EVERY,
              shown("pagemap", member("ops", 0)),
              near("pagemap", ops_without_migrate, types=(COHERENT,))),
        Fault("ops-without-migrate", (PRIVATE,), EVERY,
              shown("pagemap", ops_without_migrate),
              near("pagemap", ops_without_migrate, types=(COHERENT,))),
        Fault("ops-without-free", (PRIVATE,), EVERY,
              shown("pagemaps-of-ops", no_free_callback),
              near("pagemaps-of-ops", lambda e: e.op("folio_split", 0))),
        Fault("owner-null", ANON, EVERY,
              shown("pagemap", member("owner", 0)),
              near("pagemap", lambda e: e.member("owner", e.pagemap.address))),
        Fault("shift-of-dax", (FS_DAX,), EGH,
              shown("pagemap", member("vmemmap_shift", 9)),
              near("pagemap", lambda e: e.member("vmemmap_shift", e.pagemap.vmemmap_shift), types=(GENERIC,))),
        Fault("ranges-with-altmap", (GENERIC,), EVERY,
              shown("pagemap-altmap", split_range), near("pagemap-ram", split_range)),
        Fault("range-inside-out", NOT_ANON, EVERY,
              shown("pagemap", inside_out), near("pagemap-ram", split_range, types=(GENERIC,))),
        Fault("range-unaligned", ALL, EVERY,
              shown("pagemap-free-end", unaligned),
              near("pagemap-free-end", shorten, ("registry-coverage", "error"))),
    ),
    *of_rule("P06", "pgmap-sanity", "info",
        Fault("being-added", (FS_DAX, GENERIC), EVERY,
              shown("pagemap", being_added), near("pagemap-ram", split_range, types=(GENERIC,))),
    ),
    *of_rule("P06", "pgmap-sanity", "error",
        Fault("altmap-takes-all", (FS_DAX, GENERIC), EVERY,
              shown("pagemap-altmap", altmap_takes_all),
              near("pagemap-altmap", lambda e: altmap_takes_all(e, 512))),
        Fault("altmap-overdrawn", (FS_DAX, GENERIC), EVERY,
              shown("pagemap-altmap", lambda e: e.member("altmap.alloc", e.altmap("free") + 1)),
              near("pagemap-altmap", lambda e: e.member("altmap.alloc", e.altmap("free")))),
    ),
    *of_rule("P04", "dead-in-registry", "error",
        Fault("ref-exited", ALL, EVERY, shown("pagemap", exit_ref), near("pagemap-held", die)),
    ),
    *of_rule("P04", "dead-in-registry", "warning",
        Fault("ref-dead-at-zero", NOT_ANON, EGH,
              shown("pagemap", die_at_zero), near("pagemap-held", die)),
        Fault("ref-dead-at-zero-dax", (FS_DAX,), ("C",),
              shown("pagemap", die_at_zero), near("pagemap-held", die)),
    ),
    *of_rule("P05", "registry-coverage", "error",
        Fault("index-erased", ALL, EVERY,
              shown("pagemap", lambda e: e.last_slot(0)), near("pagemap", dying_without_entry)),
        Fault("index-of-other", ALL, EVERY,
              shown("two-pagemaps", hand_last_index),
              near("pagemap-ram", split_range, types=(GENERIC,))),
        Fault("range-too-short", ALL, EVERY,
              shown("pagemap-free-end", shorten),
              near("pagemap-ram", split_range, types=(GENERIC,))),
        Fault("range-overlap", (GENERIC,), EVERY,
              shown("pagemap-neighbour", overlap_next), near("pagemap-ram", split_range)),
    ),
    *of_rule("P02", "ref-below-bias", "error",
        Fault("ref-below", NOT_ANON, EGH,
              shown("pagemap", ref_too_low), near("pagemap", lambda e: e.set_ref(e.ref_needed))),
    ),
    *of_rule("P03", "dying-busy", "error",
        Fault("dying", ALL, EGH,
              shown("pagemap-held", kill), near("pagemap-few-held", die_idle, types=NOT_ANON)),
    ),
    *of_rule("P03", "dying-busy", "warning",
        # Removal that has begun, and has not put the references that the pages were born with.
        Fault("dying-not-drained", NOT_ANON, ("C",),
              shown("pagemap-held", kill), near("pagemap-held", lambda e: e.atomic(e.ref_count))),
    ),
    *of_rule("P01", "ref-versus-pages", "warning",
        Fault("ref-leaked", ANON, EGH, shown("pagemap", ref(1)), near("idle", allocate)),
        Fault("ref-lost", ANON, EGH, shown("pagemap-held", ref(-1)), near("idle", allocate)),
        Fault("ref-lost-old", (GENERIC,), ("C",),
              shown("pagemap", ref_too_low), near("pagemap", lambda e: e.set_ref(e.ref_needed + 1))),
    ),
    *of_rule("R09", "idle-count-mismatch", "warning",
        Fault("idle-at-another-count", NOT_ANON, EVERY,
              shown("type", lambda e: e.mass(more_than_half=True)),
              near("type", lambda e: e.mass(more_than_half=False))),
    ),
    *of_rule("P09", "memmap-unreadable", "info",
        Fault("memmap-unmapped", ALL, EVERY,
              shown("pagemap-frame", unmap_memmap),
              near("altmap-head", unmap_memmap, types=(FS_DAX, GENERIC))),
    ),
    # What one page alone does not show.
    *of_rule("R15", "free-list-nonidle", "error",
        Fault("free-list-used", ANON, EGH,
              Case("listed", hold_free, (("reference-on-free-folio", "warning"),)),
              near("mapped", add(REFCOUNT, 1)), SECOND_PASS),
    ),
    *of_rule("R31", "wrong-mapping", "error",
        Fault("mapping-not-a-file", (FS_DAX,), EVERY,
              by_entries("associated", pointer("mapping")),
              near("associated", same_mapping), SECOND_PASS),
    ),
    *of_rule("R32", "mapping-without-entry", "error",
        Fault("block-without-entry", (FS_DAX,), EVERY,
              by_entries("idle", file_without_block),
              near("associated", put("zone_device_data", 1)), SECOND_PASS),
    ),
    *of_rule("R33", "entry-page-mismatch", "error",
        Fault("index-off-by-one", (FS_DAX,), EVERY,
              by_entries("associated", add("index", 1)),
              near("associated", put("zone_device_data", 1)), SECOND_PASS),
        Fault("entry-elsewhere", (FS_DAX,), EVERY,
              by_entries("entry", entry_to_free),
              near("entry", same_entry), SECOND_PASS, needs="share marked"),
    ),
    *of_rule("R33", "entry-page-mismatch", "warning",
        # A page that names no file may be one of two, of which the other was truncated.
        Fault("entry-elsewhere-unmarked", (FS_DAX,), ("E",),
              by_entries("entry", entry_to_free),
              near("entry", same_entry), SECOND_PASS, needs="share unmarked"),
    ),
    *of_rule("R34", "shared-state", "error",
        Fault("share-without-entry", (FS_DAX,), GH,
              by_entries("idle", put("index", 1)),
              near("associated", put("zone_device_data", 1)), SECOND_PASS, needs="no stale_share"),
    ),
    *of_rule("R34", "shared-state", "info",
        Fault("share-left-behind", (FS_DAX,), GH,
              by_entries("idle", put("index", 1)),
              near("associated", put("zone_device_data", 1)), SECOND_PASS, needs="stale_share"),
    ),
    *of_rule("R34", "shared-state", "error",
        Fault("shared-by-nobody", (FS_DAX,), ("E",),
              shown("idle", both(put("mapping", 1), put("index", 0))),
              near("shared", put("zone_device_data", 1)), needs="share"),
    ),
    *of_rule("R34", "shared-state", "info",
        Fault("shared-counter-lost", (FS_DAX,), ("E",),
              shown("idle", both(put("mapping", 1), put("index", 0))),
              near("idle", both(put("mapping", 1), put("index", 1))), needs="share unmarked"),
    ),
    *of_rule("R35", "share-vs-entries", "warning",
        Fault("share-too-high", (FS_DAX,), EGH,
              by_entries("shared", add("index", 1)),
              near("shared", put("zone_device_data", 1)), SECOND_PASS, needs="share"),
    ),
    *of_rule("R36", "multi-owner-unshared", "error",
        Fault("two-owners", (FS_DAX,), EVERY,
              by_entries("entry", second_owner),
              near("entry", same_entry), SECOND_PASS, needs="share marked"),
    ),
    *of_rule("R36", "multi-owner-unshared", "warning",
        Fault("two-owners-unmarked", (FS_DAX,), ("E",),
              by_entries("entry", second_owner),
              near("entry", same_entry), SECOND_PASS, needs="share unmarked"),
    ),
    *of_rule("R37", "entry-order-vs-folio", "warning",
        Fault("split-under-entry", (FS_DAX,), GH,
              by_entries("folio-cached", split_unseen),
              near("folio-cached", put("zone_device_data", 1)), SECOND_PASS),
    ),
    *of_rule("R38", "dax-lock-stuck", "warning",
        Fault("entry-locked", (FS_DAX,), EVERY,
              Case("entry", lambda e: e.entry(e.entry_value | 2), with_entries=(("dax-lock-stuck", "info"),)),
              near("entry", same_entry), SECOND_PASS),
    ),
    *of_rule("R40", "gen-mapping", "warning",
        Fault("devdax-index", (GENERIC,), EVERY,
              shown("associated", add("index", 1)), near("idle", put("index", 1)), needs="device"),
    ),
    *of_rule("R42", "zdd", "info",
        Fault("driver-data-null", ANON, EVERY,
              shown("mapped", put("zone_device_data", 0)), near("mapped", put("zone_device_data", 1))),
    ),
    *of_rule("P07", "memmap-missing", "error",
        Fault("section-without-memmap", (*ANON, FS_DAX, GENERIC), EVERY,
              shown("section", clear_section), near("no-section", clear_section)),
    ),
    *of_rule("P10", "pool-vs-pages", "error",
        Fault("pool-page-held", (P2PDMA,), GH,
              Case("last-idle", put(REFCOUNT, 1), (("reference-on-free-folio", "warning"),)),
              near("mapped", map_once), SECOND_PASS),
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
