# SPDX-License-Identifier: LGPL-2.1-or-later
"""A slow and obvious second implementation of decode, schemes and page rules: the tests' oracle.

It owns nothing that a user sees.  It was written from the description of what kernels do, not from
ext/core, and shares no table with it; tests/test_oracle.py compares the two.  One page at a time,
no templates, no masks, no row numbers; where the C core has a table, here stands a sentence.

Invariant to keep: a member that this kernel lacks, or that could not be read, is None, and nothing
is concluded from None.

Mirrors: include/linux/mm_types.h, include/linux/memremap.h, mm/memremap.c, fs/dax.c.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Callable, Optional, Union

PRIVATE = "MEMORY_DEVICE_PRIVATE"
COHERENT = "MEMORY_DEVICE_COHERENT"
FS_DAX = "MEMORY_DEVICE_FS_DAX"
GENERIC = "MEMORY_DEVICE_GENERIC"
PCI_P2PDMA = "MEMORY_DEVICE_PCI_P2PDMA"
ANONYMOUS = (PRIVATE, COHERENT)

INFO, WARNING, ERROR = "info", "warning", "error"
LEVELS = (INFO, WARNING, ERROR)

GUP_PIN_COUNTING_BIAS = 1024
REFCOUNT_MAX = 0x40000000
ORDER_MAX = 30
PMD_ORDER_MAX = 13
"""Of a PMD, where it is not known (64 KiB pages)."""
FOLIO_PAGES = 4
"""Struct pages in which a folio's own members may lie."""


# ---------------------------------------------------------------- what is given


@dataclass(frozen=True)
class Layout:
    """Where members lie: the arguments of _zonedev.Layout, by the same names."""

    page_size: int
    word_size: int
    big_endian: bool
    page_shift: int
    pmd_order: int
    compound_mask: bool
    page_type_limit: int
    fields: dict[str, tuple[int, int, int]]
    flags: dict[str, int]
    zone: tuple[int, int]
    node: tuple[int, int]
    zone_device: int

    def load(self, data: bytes, member: str) -> Optional[int]:
        """A member's unsigned value; None if the kernel lacks it or *data* ends before it."""
        if member not in self.fields:
            return None
        offset, size, bits = self.fields[member]
        if offset + size > len(data):
            return None
        value = int.from_bytes(data[offset : offset + size], "big" if self.big_endian else "little")
        return value & (1 << bits) - 1 if bits else value

    def load_signed(self, data: bytes, member: str) -> Optional[int]:
        """The same of an atomic_t."""
        value = self.load(data, member)
        return None if value is None else (value ^ 1 << 31) - (1 << 31)

    def bits(self, flags: int, where: tuple[int, int]) -> Optional[int]:
        """The zone or the node in a flags word; None if its place is not known."""
        shift, width = where
        return flags >> shift & (1 << width) - 1 if width else None


@dataclass(frozen=True)
class Pagemap:
    """What is known of the dev_pagemap: the dict that _zonedev.Scan takes, by the same names."""

    address: int
    type: str
    ref: str = "live"
    vmemmap_shift: int = 0
    node: int = -1
    foreign_maps: bool = False
    deduplicated: bool = False
    severity_cap: str = ERROR
    miscalibrated: bool = False
    driver_data: bool = False
    dax_mapping: int = 0


@dataclass(frozen=True)
class Range:
    """Pages [start_pfn, end_pfn); the struct page of the first lies at memmap."""

    start_pfn: int
    end_pfn: int
    memmap: int
    index_bias: int = 0
    """Of a device-dax range: page 0 of the device's file would be this pfn."""


@dataclass(frozen=True)
class Driver:
    """What the driver of a pagemap says of its pages, by their pfns; None: nothing."""

    allocated: Optional[frozenset[int]] = None
    """Those that its pool has handed out."""
    listed: Optional[frozenset[int]] = None
    """Those on its list of free ones."""


SILENT = Driver()


@dataclass(frozen=True)
class Entry:
    """A DAX entry: pages [pfn, pfn + (1 << order)) are those of a file from *index* on."""

    mapping: int
    index: int
    pfn: int
    order: int = 0
    locked: bool = False

    def covers(self, pfn: int) -> bool:
        """Whether it gives the file this page."""
        return 0 <= pfn - self.pfn < 1 << self.order


@dataclass(frozen=True)
class Files:
    """What the files of a file system say of their pages."""

    entries: tuple[Entry, ...] = ()
    complete: bool = False
    """Every file that may have pages here was read whole."""
    changing: frozenset[int] = frozenset()
    """Files (their mappings) whose trees are being changed."""
    forsaken: frozenset[int] = frozenset()
    """pfns whose entries are locked, and nobody is there who could hold the lock."""
    unknown: frozenset[int] = frozenset()
    """Mapping words whose trees could not be read."""
    no_file: frozenset[int] = frozenset()
    """Mapping words that lead to no DAX file."""


MANY_OWNERS = 7
"""So many entries of a page, or more, are not told apart."""

# ---------------------------------------------------------------- schemes


@dataclass(frozen=True)
class Counting:
    """How pages of one memory type are counted in one scheme."""

    idle: Optional[int]
    """Refcount of a free page; None: the scheme does not say."""
    mapped: Optional[int]
    """What a mapped page's refcount holds beside its maps."""
    maps: str
    """"refs": a map takes a reference; "no refs"; "none": there are no maps that _mapcount counts."""
    knows_file: bool = True
    """A page in use by a file or a device has its mapping set."""
    entry_ref: bool = False
    """The DAX entry holds a reference."""


@dataclass(frozen=True)
class Scheme:
    """A refcount scheme with this kernel's variations."""

    id: str
    counting: dict[str, Counting]
    shared: str = "none"
    """How a DAX page says that it is shared: "none", "mapping is 1, index counts", "mapping is 1, share
    counts", "share counts"."""
    stale_share: bool = False
    """The last put leaves the share word of an order-0 DAX page behind."""
    pins: bool = True
    """A pin of an order-0 page is 1024 references; before 5.7 there were no pins."""

    def of(self, type_: str) -> Counting:
        """How pages of a type are counted."""
        return self.counting.get(type_, Counting(None, None, "no refs"))

    def drained(self) -> Scheme:
        """In a dying pagemap each page's own reference was put, in the schemes that count so."""
        if self.id not in ("B", "C"):
            return self
        lower = {type_: replace(c, idle=0, mapped=0) for type_, c in self.counting.items()}
        return replace(self, counting=lower)

    def with_init_mode(self, type_: str, busy: bool) -> Scheme:
        """F1: dev_pagemap.init_mode says whether free pages of a type rest at 1 or 0."""
        if self.id != "F1":
            return self
        counting = replace(self.of(type_), idle=int(busy))
        if counting.maps != "refs":
            counting = replace(counting, mapped=counting.idle)
        return replace(self, counting={**self.counting, type_: counting})


def _by_scheme(id_: str) -> dict[str, Counting]:
    """The idle refcounts, and who takes references."""
    device = Counting(1, 1, "none")  # devmap PTEs: no reference, no rmap
    if id_ in ("A", "B"):
        blind = replace(device, knows_file=False)
        return {FS_DAX: blind, GENERIC: blind}
    if id_ == "C":
        anon = Counting(1, 1, "refs")
        return dict.fromkeys(ANONYMOUS, anon) | dict.fromkeys((FS_DAX, GENERIC, PCI_P2PDMA), device)
    if id_ == "D":
        # 1 -> 0 frees, and the count is put back to 1 at once: the first user takes none.
        anon = Counting(1, 0, "refs")
        return dict.fromkeys(ANONYMOUS, anon) | dict.fromkeys((FS_DAX, GENERIC, PCI_P2PDMA), device)
    anon = Counting(0, 0, "refs")
    if id_ == "E":
        return dict.fromkeys(ANONYMOUS, anon) | dict.fromkeys((FS_DAX, GENERIC, PCI_P2PDMA), device)
    if id_ in ("F1", "F2"):
        entry = Counting(0, 0, "none", entry_ref=True)
        dax = dict.fromkeys((FS_DAX, GENERIC), entry)
        if id_ == "F2":
            return dict.fromkeys(ANONYMOUS, anon) | dax | {PCI_P2PDMA: Counting(0, 0, "none")}
        # INIT_PAGEMAP_BUSY: as in D.
        return dict.fromkeys(ANONYMOUS, Counting(1, 0, "refs")) | dax | {PCI_P2PDMA: device}
    if id_ in ("G", "H"):
        return dict.fromkeys((*ANONYMOUS, FS_DAX, PCI_P2PDMA), anon) | {
            GENERIC: Counting(1, 1, "refs")
        }
    return {}


def _scheme_id(present: set[str]) -> str:
    """First match wins."""
    if "get_zone_device_page" in present and "pgmap_array" not in present:
        return "A"
    if "dev_pagemap.init_mode" in present:
        return "F1"
    if "pgmap_request_folios" in present:
        return "F2"
    if "folio.pgmap" in present:
        # The member without the conversion of FS_DAX: a partial backport.
        if present & {"__put_devmap_managed_page_refs", "__put_devmap_managed_folio_refs"}:
            return "unknown"
        return "H" if "dev_pagemap_ops.folio_free" in present else "G"
    if "zone_device_page_init" in present:
        return "E"
    if "free_zone_device_page" in present:
        return "D"
    if present & {
        "dev_pagemap.internal_ref",
        "free_devmap_managed_page",
        "put_devmap_managed_page",
        "__put_devmap_managed_page",
    }:
        return "C"
    if "pgmap_radix" in present:
        return "C" if "dev_pagemap.type" in present else "B"
    return "unknown"


def detect(present: set[str]) -> Scheme:
    """The scheme that evidence (names of probes that are there) tells."""
    id_ = _scheme_id(present)
    counting = _by_scheme(id_)
    if id_ in ("A", "B", "C") and FS_DAX in counting:
        # fsdax keeps a page's file since 4.17, device-dax since 4.19; the radix tree was there to 4.19.
        old = id_ != "C" or "pgmap_radix" in present
        dax_old = old and "dax_associate_entry" not in present
        counting[FS_DAX] = replace(counting[FS_DAX], knows_file=not dax_old)
        counting[GENERIC] = replace(counting[GENERIC], knows_file=not old)
    if id_ in ("D", "E") and "p2pmem_alloc_mmap" in present:
        # vm_insert_page() takes a reference, the idle one is put: the map inherits it.
        counting[PCI_P2PDMA] = Counting(1, 0, "refs")
    stale = id_ in ("G", "H") and "dax_folio_reset_order" not in present
    # What came with them: a counter of the pins of compound pages, and a statistic.
    pins = {"page.hpage_pinned_refcount", "NR_FOLL_PIN_ACQUIRED"} & present
    counted = id_ not in ("A", "B") and (id_ != "C" or bool(pins))
    return Scheme(id_, counting, _shared(id_, present), stale, counted)


def _shared(id_: str, present: set[str]) -> str:
    """How files share a DAX page, since 6.0."""
    if id_ == "unknown":
        return "not known"
    if id_ in ("G", "H"):
        return "share counts"
    if id_ in ("D", "E") and "page.share" in present:
        return "mapping is 1, share counts"
    since_6_0 = {"dax_mapping_set_cow", "MEMORY_DEVICE_COHERENT"}
    if id_ in ("E", "F1", "F2") or (id_ == "D" and present & since_6_0):
        return "mapping is 1, index counts"
    return "none"


# ---------------------------------------------------------------- decode


@dataclass(frozen=True)
class Page:
    """What the bytes of a struct page say, and for a head its folio."""

    pfn: int
    pattern: str
    """"zero", "poison" (nobody wrote it) or "data"."""
    flags: dict[str, bool]
    """Page flags by name; those that this kernel has."""
    zone: Optional[int]
    node: Optional[int]
    word1: int
    mapping: int
    index: Optional[int]
    share: Optional[int]
    memcg_data: Optional[int]
    zone_device_data: Optional[int]
    refcount: int
    raw_mapcount: int
    has_type: bool
    """A page type stands in _mapcount."""
    tail: bool
    head_pfn: Optional[int]
    """Of a tail: None if its word names no page before it in the range."""
    whole: bool
    """The order and the counters of a head's folio could be read."""
    large: bool
    order: int
    mapcount: int
    pincount: int


def pattern_of(data: bytes) -> str:
    """Whether a struct page is nothing but one byte that means that nobody wrote it."""
    if set(data) == {0}:
        return "zero"
    return "poison" if set(data) in ({0xFF}, {0xFD}) else "data"


def _head_pfn(layout: Layout, range_: Range, pfn: int, word1: int) -> Optional[int]:
    """Which page a tail's word names; None if none before it in the range."""
    address = range_.memmap + (pfn - range_.start_pfn) * layout.page_size
    head = word1 & ~1
    low = ~head & (1 << 8 * layout.word_size) - 1
    power_of_two = layout.page_size & layout.page_size - 1 == 0
    all_ones = low & low + 1 == 0
    if (
        layout.compound_mask
        and power_of_two
        and all_ones
        and 2 * layout.page_size <= low + 1 <= 1 << 40
    ):
        # Not a pointer but a mask: the folio's struct pages are aligned to their size.
        head = address & ~low
    if head < range_.memmap or head >= address or (head - range_.memmap) % layout.page_size:
        return None
    return range_.start_pfn + (head - range_.memmap) // layout.page_size


def _is_left_over(
    layout: Layout, scheme: Scheme, pagemap: Pagemap, range_: Range, pfn: int, data: bytes
) -> bool:
    """The head of a large private folio that was freed, whose first tail is no longer one."""
    following = data[layout.page_size : 2 * layout.page_size]
    if scheme.id != "H" or pagemap.type not in ANONYMOUS or layout.load(data, "_refcount") != 0:
        return False
    word1 = layout.load(following, "pgmap")
    if word1 is None:
        return False
    return word1 & 1 == 0 or _head_pfn(layout, range_, pfn + 1, word1) != pfn


def decode(
    layout: Layout, scheme: Scheme, pagemap: Pagemap, range_: Range, pfn: int, data: bytes
) -> Page:
    """Read the struct page that *data* begins with; its folio's own members may lie behind it."""
    page = data[: layout.page_size]

    def word(member: str) -> int:
        value = layout.load(page, member)
        assert value is not None
        return value

    def counter(member: str) -> int:
        value = layout.load_signed(page, member)
        assert value is not None
        return value

    flags = {name: bool(word("flags") >> bit & 1) for name, bit in layout.flags.items()}
    word1 = word("pgmap")
    tail = bool(word1 & 1)
    raw_mapcount = counter("_mapcount")
    has_type = raw_mapcount < layout.page_type_limit
    whole, large = True, False
    order = pincount = 0
    mapcount = 0 if has_type else raw_mapcount + 1
    compound = flags.get("PG_head", False) and not tail
    if compound and not _is_left_over(layout, scheme, pagemap, range_, pfn, data):
        folio = {
            member: layout.load_signed(data, member)
            if member != "order"
            else layout.load(data, member)
            for member in ("order", "_large_mapcount", "_pincount")
            if member in layout.fields or member == "order"
        }
        if None in folio.values():
            whole = False
        elif folio["order"]:
            large = True
            order = folio["order"]
            # Before the counter, only device-dax made large folios, and never counted their maps.
            mapcount = (folio.get("_large_mapcount", -1) or 0) + 1
            pincount = folio.get("_pincount", 0) or 0
    return Page(
        pfn=pfn,
        pattern=pattern_of(page),
        flags=flags,
        zone=layout.bits(word("flags"), layout.zone),
        node=layout.bits(word("flags"), layout.node),
        word1=word1,
        mapping=word("mapping"),
        index=layout.load(page, "index"),
        share=layout.load(page, "share"),
        memcg_data=layout.load(page, "memcg_data"),
        zone_device_data=layout.load(page, "zone_device_data"),
        refcount=counter("_refcount"),
        raw_mapcount=raw_mapcount,
        has_type=has_type,
        tail=tail,
        head_pfn=_head_pfn(layout, range_, pfn, word1) if tail else None,
        whole=whole,
        large=large,
        order=order,
        mapcount=mapcount,
        pincount=pincount,
    )


# ---------------------------------------------------------------- what files say of a page


@dataclass(frozen=True)
class Claims:
    """Of a page."""

    owners: int
    """Entries that cover it, up to MANY_OWNERS."""
    acknowledged: bool
    """One of them is the file and the index that the page names."""
    large: bool
    """One of them is a PMD's."""
    locked: bool
    forsaken: bool
    in_flux: bool
    """Page or entries are being changed."""
    misfit: bool
    """It is large, and an entry leads to a part of it, or begins in its middle."""
    complete: bool
    unknown: bool
    no_file: bool


def _acknowledges(layout: Layout, scheme: Scheme, entry: Entry, pfn: int, data: bytes) -> bool:
    """Whether a page names the file of an entry, and its place there."""
    aligned = entry.pfn % (1 << entry.order) == 0
    if scheme.shared == "share counts" and aligned and pfn != entry.pfn:
        return True  # a folio has one mapping: that of its head
    tail = (layout.load(data, "pgmap") or 0) & 1
    index = layout.load(data, "index") or 0
    place = entry.index + pfn - entry.pfn
    return not tail and layout.load(data, "mapping") == entry.mapping and index == place


def _fits(layout: Layout, entry: Entry, data: bytes) -> bool:
    """Whether the first page of an entry can be a folio of the entry's size."""
    tail = bool((layout.load(data, "pgmap") or 0) & 1)
    flags = layout.load(data, "flags") or 0
    head = "PG_head" in layout.flags and flags >> layout.flags["PG_head"] & 1
    return not tail and (entry.order > 0 or not head)


# ---------------------------------------------------------------- a page where it stands


@dataclass(frozen=True)
class Subject:
    """Everything that a rule may ask."""

    layout: Layout
    scheme: Scheme
    pagemap: Pagemap
    page: Page
    head: Optional[Page] = None
    """Of a tail: the head that it names; None if that is none, or not known."""
    head_known: bool = True
    """Of a tail: what it names was looked at."""
    within: Optional[str] = None
    """Class of the folio before it whose order says that it holds this page, too."""
    index_bias: int = 0
    """That of its range."""
    allocated: Optional[bool] = None
    """Its pool has handed it out; None: not known."""
    listed: bool = False
    """It is on its driver's list of free pages."""
    claims: Optional[Claims] = None
    """What files say of it; None: they were not asked."""

    @property
    def type(self) -> str:
        """The memory type."""
        return self.pagemap.type

    @property
    def counting(self) -> Counting:
        """How its type is counted; of a scheme that does not fit (or is not known) nothing is."""
        counting = self.scheme.of(self.type)
        if self.pagemap.foreign_maps:
            counting = replace(counting, maps="refs", mapped=counting.idle)
        if self.pagemap.miscalibrated or self.scheme.id == "unknown":
            counting = replace(counting, idle=None, mapped=None)
        return counting

    def scheme_in(self, *letters: str) -> bool:
        """Whether the scheme is one of these."""
        return self.scheme.id in letters

    def flag(self, name: str) -> bool:
        """Whether a page flag is known to be set."""
        return self.page.flags.get(name, False)

    @property
    def mapped(self) -> bool:
        """By at least one page table entry that counts."""
        return self.page.mapcount > 0

    @property
    def idle(self) -> bool:
        """Free by its counters."""
        return self.page.refcount == self.counting.idle and self.page.mapcount == 0

    @property
    def held(self) -> bool:
        """Above idle."""
        return self.counting.idle is not None and self.page.refcount > self.counting.idle

    @property
    def extra(self) -> int:
        """References beyond the idle one, the entry's and the maps'; 0 where that is not known."""
        counting = self.counting
        base = counting.mapped if self.mapped and counting.maps == "refs" else counting.idle
        if base is None:
            return 0
        if counting.entry_ref and self.page.mapping:
            base += 1
        return self.page.refcount - base - (self.page.mapcount if counting.maps == "refs" else 0)

    @property
    def pins(self) -> int:
        """Pins of get_user_pages(): counted apart, or many references each."""
        if not self.scheme.pins:
            return 0
        if self.page.large:
            return self.page.pincount if self.counting.idle is not None else 0
        return max(self.extra, 0) // GUP_PIN_COUNTING_BIAS

    @property
    def plain(self) -> int:
        """Extra references that are not pins."""
        if self.page.large:
            return self.extra - self.pins
        return self.extra - self.pins * GUP_PIN_COUNTING_BIAS


def is_pointer(layout: Layout, mapping: int) -> bool:
    """An address: no tags (0x1, 0x2), no poison, not in the first page."""
    if layout.word_size == 8 and (mapping >> 48 == 0xDEAD or mapping >> 28 == 0x5DEADBEEF):
        return False
    return mapping & 3 == 0 and mapping >= 0x1000


def _is_private(s: Subject) -> bool:
    return s.type in ANONYMOUS


def _splits(s: Subject) -> bool:
    """Large private folios exist, are split, freed, and used again at another order."""
    return s.scheme_in("H") and _is_private(s)


def _free_and_used_look_alike(s: Subject) -> bool:
    """The first user of a page takes no reference: 1 -> 0 frees it, and at once it is 1 again."""
    return _is_private(s) and s.scheme_in("D", "F1")


def _no_file(s: Subject) -> bool:
    """Certainly belongs to no file."""
    if s.page.mapping or not s.counting.knows_file:
        return False
    return s.scheme.shared != "share counts" or s.page.share == 0


def _shared_by_files(s: Subject) -> bool:
    """The share word says that it belongs to files, and can be believed."""
    leftover = s.scheme.stale_share and not s.page.large
    return s.scheme.shared == "share counts" and bool(s.page.share) and not leftover


def _share_proves_nothing(s: Subject) -> bool:
    """Free, with the share word of its last file; or shared by files."""
    return not s.page.mapping and bool(s.page.share) and s.scheme.stale_share and not s.page.large


# ---------------------------------------------------------------- rules

Rule = Callable[[Subject], Optional[str]]
RULES: list[tuple[str, str, Rule]] = []
"""(id, "head", "tail" or "page", rule) in the order in which they name a finding.

A rule answers with a severity, or None.  A rule whose level varies is there more than once: what is
proved goes before what is suspected, and that before what is only worth seeing.
"""


def _rule(id_: str, scope: str = "head") -> Callable[[Rule], Rule]:
    def add(rule: Rule) -> Rule:
        RULES.append((id_, scope, rule))
        return rule

    return add


def _when(fires: object, severity: str) -> Optional[str]:
    return severity if fires else None


def _wrong_zone(s: Subject) -> bool:
    return s.page.zone is not None and s.page.zone != s.layout.zone_device


def _wrong_pgmap(s: Subject) -> bool:
    return not s.page.tail and s.page.word1 != s.pagemap.address


@_rule("uninitialised", "page")
def _uninitialised(s: Subject) -> Optional[str]:
    unreserved = s.page.flags.get("PG_reserved") is False
    foreign = _wrong_pgmap(s) and _wrong_zone(s) and unreserved
    return _when(s.page.pattern == "poison" or foreign, ERROR)


@_rule("wrong-zone", "page")
def _zone(s: Subject) -> Optional[str]:
    return _when(_wrong_zone(s), ERROR)


@_rule("wrong-pgmap")
def _pgmap(s: Subject) -> Optional[str]:
    return _when(_wrong_pgmap(s), ERROR)


@_rule("core-mm-flags")
def _core_mm_flags(s: Subject) -> Optional[str]:
    # Xen uses the bit of PG_swapcache on its own pages.
    swapcache = s.flag("PG_swapcache") and not s.pagemap.foreign_maps
    return _when(s.flag("PG_lru") or swapcache or s.page.has_type, ERROR)


def _spans(head: Page, pfn: int) -> bool:
    """The folio of a head reaches to a page."""
    return pfn - head.pfn < 1 << head.order


def _is_stale_tail(s: Subject) -> bool:
    """Left behind by a large private folio that was freed, whose head is used at a smaller order."""
    named = s.page.head_pfn is not None and s.head_known
    broken = named and not (s.head is not None and _spans(s.head, s.page.pfn))
    return s.page.tail and broken and _splits(s) and s.page.refcount == 0


@_rule("bad-head", "tail")
def _tail_of_no_folio(s: Subject) -> Optional[str]:
    if _is_stale_tail(s):
        return INFO
    belongs = s.head is not None and _spans(s.head, s.page.pfn)
    return _when(s.head_known and not belongs, ERROR)


@_rule("bad-head")
def _head_inside_folio(s: Subject) -> Optional[str]:
    # The driver may use the pages of a free private folio one by one.
    reused = _splits(s) and s.within == "idle"
    return _when(s.within is not None and not reused, ERROR)


@_rule("wrong-order")
def _order(s: Subject) -> Optional[str]:
    order = s.page.order
    misaligned = order > ORDER_MAX or s.page.pfn % (1 << order) != 0
    orderless = s.flag("PG_head") and order == 0 and not (_splits(s) and s.page.refcount == 0)
    compound = order > 0 or orderless
    pmd_order = s.layout.pmd_order
    if s.type == GENERIC:
        if "order" not in s.layout.fields:
            return None
        return _when(order != s.pagemap.vmemmap_shift or misaligned or orderless, ERROR)
    if s.type == PCI_P2PDMA:
        return _when(compound, ERROR)
    if s.scheme_in("unknown"):
        return None
    if s.type == FS_DAX and s.scheme_in("G", "H"):
        return _when(pmd_order and (order not in (0, pmd_order) or misaligned or orderless), ERROR)
    if _splits(s):
        return _when(pmd_order and (order > pmd_order or misaligned or orderless), ERROR)
    return _when(compound, ERROR)


@_rule("tail-refcount", "tail")
def _tail_refcount(s: Subject) -> Optional[str]:
    return _when(s.page.refcount != 0, ERROR)


@_rule("refcount-out-of-range")
def _refcount_out_of_range(s: Subject) -> Optional[str]:
    return _when(not 0 <= s.page.refcount <= REFCOUNT_MAX, ERROR)


@_rule("mapcount-out-of-range")
def _mapcount_out_of_range(s: Subject) -> Optional[str]:
    raw = s.page.raw_mapcount < -1 and not s.page.has_type
    return _when(raw or s.page.mapcount < 0, ERROR)


@_rule("mapped-without-reference")
def _mapped_without_reference(s: Subject) -> Optional[str]:
    return _when(s.page.refcount == 0 and s.mapped, ERROR)


@_rule("refcount-below-mapcount")
def _refcount_below_mapcount(s: Subject) -> Optional[str]:
    return _when(s.counting.maps == "refs" and s.mapped and s.extra < 0, ERROR)


@_rule("refcount-below-idle")
def _refcount_below_idle(s: Subject) -> Optional[str]:
    removal = s.pagemap.ref != "live" and s.scheme_in("B", "C")
    if s.page.refcount != 0 or s.counting.idle != 1 or removal:
        return None
    # Private pages are at 0 for a moment whenever D and F1 free them, and by right since E.
    return _when(not _is_private(s) or s.scheme_in("C"), ERROR)


@_rule("unaccounted-mapcount")
def _unaccounted_mapcount(s: Subject) -> Optional[str]:
    return _when(s.mapped and s.type in (FS_DAX, GENERIC) and s.counting.maps == "none", ERROR)


@_rule("wrong-mapping")
def _wrong_mapping(s: Subject) -> Optional[str]:
    if s.type != FS_DAX or s.page.mapping == 0:
        return None
    if not s.counting.knows_file or (s.claims is not None and s.claims.no_file):
        return ERROR
    shared = s.page.mapping == 1 and s.scheme.shared not in ("none", "share counts")
    return _when(not shared and not is_pointer(s.layout, s.page.mapping), ERROR)


@_rule("mapped-without-association")
def _mapped_without_association(s: Subject) -> Optional[str]:
    return _when(s.type == FS_DAX and s.scheme_in("G", "H") and s.mapped and _no_file(s), ERROR)


@_rule("shared-state")
def _shared_by_none(s: Subject) -> Optional[str]:
    counted = s.scheme.shared == "mapping is 1, share counts" and s.page.share == 0
    return _when(s.type == FS_DAX and s.page.mapping == 1 and counted, ERROR)


def _has_entries(s: Subject) -> bool:
    """Files were asked, and keep pfns in their trees."""
    keeps = s.scheme_in("C", "D", "E", "F1", "F2", "G", "H")
    return s.claims is not None and s.type == FS_DAX and keeps


def _says_shared(s: Subject) -> bool:
    """The page says of itself that files share it."""
    if s.scheme.shared == "share counts":
        return not s.page.mapping and bool(s.page.share)
    return s.scheme.shared.startswith("mapping is 1") and s.page.mapping == 1


def _association_moves(s: Subject) -> bool:
    """A file that reads a block of another one takes it over, and the first to be truncated clears it."""
    assert s.claims is not None
    several = s.claims.owners > 1 and s.claims.acknowledged
    lost = not s.page.mapping or several or not s.claims.complete
    return s.scheme.shared == "mapping is 1, index counts" and lost


def _owned_twice(s: Subject) -> bool:
    several = s.claims is not None and s.claims.owners > 1 and not s.claims.in_flux
    return _has_entries(s) and several and not _says_shared(s)


def _contradicted(s: Subject) -> bool:
    """An entry covers the page, which names another place of a file, or none."""
    if s.claims is None or s.claims.in_flux or _says_shared(s) or not _has_entries(s):
        return False
    return s.claims.owners > (1 if s.claims.acknowledged else 0)


def _owned_by_none(s: Subject) -> bool:
    """Known to be covered by no entry."""
    return s.claims is not None and s.claims.complete and not s.claims.owners and _has_entries(s)


@_rule("multi-owner-unshared")
def _multi_owner(s: Subject) -> Optional[str]:
    return _when(_owned_twice(s) and not _association_moves(s), ERROR)


@_rule("entry-page-mismatch")
def _entry_mismatch(s: Subject) -> Optional[str]:
    return _when(_contradicted(s) and not _association_moves(s), ERROR)


@_rule("mapping-without-entry")
def _mapping_without_entry(s: Subject) -> Optional[str]:
    if s.claims is None or not _owned_by_none(s) or s.claims.unknown or s.claims.no_file:
        return None
    return _when(is_pointer(s.layout, s.page.mapping), ERROR)


def _share_without_entry(s: Subject) -> bool:
    counted = s.scheme.shared == "share counts" and s.scheme_in("G", "H")
    return counted and _says_shared(s) and _owned_by_none(s)


@_rule("shared-state")
def _share_leaked(s: Subject) -> Optional[str]:
    return _when(_share_without_entry(s) and not _share_proves_nothing(s), ERROR)


@_rule("pinned-private")
def _pinned_private(s: Subject) -> Optional[str]:
    return _when(s.type == PRIVATE and s.pins > 0, ERROR)


def _pinned_without_file(s: Subject) -> bool:
    return s.type == FS_DAX and s.pins > 0 and _no_file(s)


def _held_without_user(s: Subject) -> bool:
    """Above idle; not mapped, not of a file, and nobody is at work on it."""
    return s.held and s.page.mapcount == 0 and not s.page.mapping and not s.flag("PG_locked")


def _rests_at_zero(s: Subject) -> bool:
    return s.scheme_in("F1", "F2", "G", "H")


@_rule("pinned-after-truncate")
def _pinned_after_truncate(s: Subject) -> Optional[str]:
    return _when(_rests_at_zero(s) and _pinned_without_file(s), ERROR)


def _must_be_free(s: Subject) -> bool:
    """Its driver lists it as free."""
    return s.listed and s.type in (*ANONYMOUS, GENERIC) and s.counting.idle is not None


@_rule("free-list-nonidle")
def _listed_and_used(s: Subject) -> Optional[str]:
    return _when(_must_be_free(s) and (s.held or s.mapped), ERROR)


@_rule("pool-vs-pages")
def _in_pool_and_used(s: Subject) -> Optional[str]:
    free = s.type == PCI_P2PDMA and s.allocated is False and s.counting.idle is not None
    return _when(free and (s.held or s.mapped), ERROR)


@_rule("reference-on-free-folio")
def _reference_on_free_dax_folio(s: Subject) -> Optional[str]:
    leaked = s.type == FS_DAX and _held_without_user(s) and _no_file(s)
    return _when(leaked and _rests_at_zero(s), ERROR)


@_rule("stale-mapping")
def _stale_mapping(s: Subject) -> Optional[str]:
    if not s.idle or not s.page.mapping or _free_and_used_look_alike(s):
        return None
    # The entry that gave a DAX page its mapping would hold a reference; elsewhere it holds none.
    return _when(s.type not in (FS_DAX, GENERIC) or s.counting.entry_ref, ERROR)


@_rule("stale-mapping")
def _perhaps_stale_mapping(s: Subject) -> Optional[str]:
    return _when(s.idle and s.page.mapping and _free_and_used_look_alike(s), WARNING)


@_rule("pinned-after-truncate")
def _perhaps_pinned_after_truncate(s: Subject) -> Optional[str]:
    return _when(not _rests_at_zero(s) and _pinned_without_file(s), WARNING)


@_rule("free-list-nonidle")
def _perhaps_not_reset(s: Subject) -> Optional[str]:
    """The count of a page is set to 1 again after its driver has listed it."""
    free = _must_be_free(s) and _free_and_used_look_alike(s) and not s.held and not s.mapped
    return _when(free and s.page.refcount != s.counting.idle, WARNING)


@_rule("reference-on-free-folio")
def _perhaps_reference_on_free_folio(s: Subject) -> Optional[str]:
    if not _held_without_user(s):
        return None
    if s.type == FS_DAX:
        asked = s.claims is not None and s.claims.complete
        claimed = asked and s.claims is not None and s.claims.owners > 0
        return _when(_share_proves_nothing(s) and not claimed, ERROR if asked else WARNING)
    if s.type == PCI_P2PDMA:
        in_pool = s.allocated is False
        return _when(s.scheme_in("F2", "G", "H"), ERROR if in_pool else WARNING)
    return _when(_is_private(s) and s.scheme_in("E", "F2", "G", "H"), WARNING)


@_rule("reference-outlives-mapping")
def _reference_outlives_mapping(s: Subject) -> Optional[str]:
    unused = s.held and s.page.mapcount == 0 and not s.page.mapping and s.counting.knows_file
    if s.type == FS_DAX:
        return _when(unused and not _rests_at_zero(s), WARNING)
    return _when(unused and s.type == GENERIC and not s.pagemap.foreign_maps, WARNING)


@_rule("multi-owner-unshared")
def _perhaps_multi_owner(s: Subject) -> Optional[str]:
    return _when(_owned_twice(s) and _association_moves(s), WARNING)


@_rule("entry-page-mismatch")
def _perhaps_entry_mismatch(s: Subject) -> Optional[str]:
    return _when(_contradicted(s) and _association_moves(s), WARNING)


@_rule("share-vs-entries")
def _share_versus_entries(s: Subject) -> Optional[str]:
    # The counter of 6.0 and 6.1 is off by one on the way down; a stale one is never right again.
    counts = s.scheme.shared in ("mapping is 1, share counts", "share counts")
    counts &= not s.scheme.stale_share and s.scheme_in("D", "E", "G", "H")
    known = s.claims is not None and s.claims.complete and not s.claims.in_flux
    if s.claims is None or not counts or not known or not _has_entries(s):
        return None
    if not _says_shared(s) or not s.page.share:
        return None
    at_least = s.claims.owners == MANY_OWNERS and s.page.share >= MANY_OWNERS
    return _when(s.page.share != s.claims.owners and not at_least, WARNING)


@_rule("entry-order-vs-folio")
def _entry_order(s: Subject) -> Optional[str]:
    known = "order" in s.layout.fields and s.layout.pmd_order and s.scheme_in("G", "H")
    if s.claims is None or not _has_entries(s) or not known or s.claims.in_flux:
        return None
    large = s.page.order == s.layout.pmd_order
    if s.claims.large:
        return _when(s.claims.misfit or not large, WARNING)
    # Nothing but a PMD entry makes such a folio, and the last put undoes it.
    return _when(s.claims.misfit or (large and s.claims.complete and _no_file(s)), WARNING)


@_rule("dax-lock-stuck")
def _lock_stuck(s: Subject) -> Optional[str]:
    return _when(s.claims is not None and _has_entries(s) and s.claims.forsaken, WARNING)


@_rule("gen-mapping")
def _gen_mapping(s: Subject) -> Optional[str]:
    device = s.pagemap.dax_mapping
    if s.type != GENERIC or not device or not s.page.mapping or s.page.index is None:
        return None
    # The first fault on a device-dax page says whose it is, and which page of it, for good.
    place = s.page.pfn - s.index_bias
    ours = s.page.mapping == device and s.page.index == place % (1 << 64)
    return _when(not ours, WARNING)


@_rule("wrong-node", "page")
def _wrong_node(s: Subject) -> Optional[str]:
    known = s.page.node is not None and s.pagemap.node >= 0
    return _when(known and s.page.node != s.pagemap.node, WARNING)


@_rule("not-reserved", "page")
def _not_reserved(s: Subject) -> Optional[str]:
    # Splitting a large private folio clears it.
    return _when(s.page.flags.get("PG_reserved") is False and not _splits(s), WARNING)


@_rule("dirty-free-state")
def _dirty_free_state(s: Subject) -> Optional[str]:
    flags = ("PG_locked", "PG_anon_exclusive", "PG_writeback")
    dirty = any(s.flag(name) for name in flags) or s.page.memcg_data
    free = _is_private(s) and s.idle and not _free_and_used_look_alike(s)
    return _when(free and dirty, WARNING)


@_rule("hwpoison")
def _hwpoison(s: Subject) -> Optional[str]:
    return _when(s.flag("PG_hwpoison"), WARNING if s.held else INFO)


@_rule("shared-state")
def _perhaps_shared_by_none(s: Subject) -> Optional[str]:
    # 6.0 and 6.1 leave it so by themselves.
    counted = s.scheme.shared == "mapping is 1, index counts" and s.scheme_in("D", "E")
    return _when(s.type == FS_DAX and counted and s.page.mapping == 1 and s.page.index == 0, INFO)


@_rule("shared-state")
def _share_left_behind(s: Subject) -> Optional[str]:
    return _when(_share_without_entry(s) and _share_proves_nothing(s), INFO)


@_rule("dax-lock-stuck")
def _locked(s: Subject) -> Optional[str]:
    if s.claims is None or not _has_entries(s):
        return None
    return _when(s.claims.locked and not s.claims.forsaken, INFO)


@_rule("free-or-allocated")
def _free_or_allocated(s: Subject) -> Optional[str]:
    ambiguous = _free_and_used_look_alike(s) and s.idle and s.counting.idle == 1
    return _when(ambiguous and not s.page.mapping and not s.listed, INFO)


@_rule("dma-pinned")
def _dma_pinned(s: Subject) -> Optional[str]:
    return _when(s.type != PRIVATE and s.pins > 0, INFO)


@_rule("zdd")
def _data_of_driver_missing(s: Subject) -> Optional[str]:
    if not s.pagemap.driver_data or not _is_private(s) or s.counting.idle is None:
        return None
    # A page that was just allocated is locked, until its driver has filled it.
    used = s.mapped or (s.held and not s.flag("PG_locked"))
    return _when(used and s.page.zone_device_data == 0, INFO)


@_rule("held-without-map")
def _held_without_map(s: Subject) -> Optional[str]:
    if s.plain <= 0:
        return None
    if s.type == FS_DAX:
        shared = s.scheme.shared == "share counts" and s.page.share
        return _when(s.page.mapping or shared or not s.counting.knows_file, INFO)
    return _when(s.type == GENERIC or (s.type == PCI_P2PDMA and s.scheme_in("G", "H")), INFO)


# ---------------------------------------------------------------- findings and classes


@dataclass(frozen=True)
class Finding:
    """What fires on a page: the first rule names it, the others stand in also."""

    rule: str
    severity: str
    also: tuple[str, ...]


def fired(s: Subject) -> list[tuple[str, str]]:
    """(id, severity) of the rules that fire on a page."""
    scope = "tail" if s.page.tail else "head"
    levels = [(id_, rule(s)) for id_, of, rule in RULES if of in (scope, "page")]
    return [(id_, level) for id_, level in levels if level is not None]


def judge(s: Subject) -> Optional[Finding]:
    """Ask every rule; the worst level counts, lowered to what scheme and calibration allow."""
    levels = fired(s)
    if not levels:
        return None
    cap = LEVELS.index(s.pagemap.severity_cap)
    if s.scheme_in("unknown"):
        cap = min(cap, LEVELS.index(WARNING))
    worst = max(LEVELS.index(level) for _, level in levels)
    ids = list(dict.fromkeys(id_ for id_, _ in levels))
    return Finding(ids[0], LEVELS[min(worst, cap)], tuple(ids[1:]))


def is_busy(s: Subject) -> bool:
    """In use: referenced above idle, mapped, or claimed by a file or an anon_vma."""
    idle = s.scheme.of(s.type).idle or 0
    if s.page.refcount > idle or s.mapped:
        return True
    if s.type in (GENERIC, PCI_P2PDMA):
        return False  # device-dax never clears the mapping
    claimed = _says_shared(s) and s.claims is not None and s.claims.owners > 0
    return s.page.mapping != 0 or (s.type == FS_DAX and (_shared_by_files(s) or claimed))


def is_identified(s: Subject) -> bool:
    """Known to be a page of ZONE_DEVICE and of this pagemap; a tail has its head's word for that."""
    zone = s.page.zone is not None and s.page.zone == s.layout.zone_device
    return zone and (s.page.tail or s.page.word1 == s.pagemap.address)


def _class_of_head(s: Subject, finding: Optional[Finding]) -> str:
    if finding is not None and finding.severity == ERROR:
        return "violation"
    if is_busy(s):
        return "busy"
    return "idle" if is_identified(s) else "unreadable"


def _class_of_lone_tail(s: Subject, finding: Optional[Finding]) -> str:
    """Of a tail that no head claims."""
    if finding is not None and finding.severity == ERROR:
        return "violation"
    if not s.head_known:
        return "not-captured"
    return "idle" if _is_stale_tail(s) and is_identified(s) else "unreadable"


# ---------------------------------------------------------------- a range


@dataclass
class Verdict:
    """One page: its class, what was found on it, and what it was judged by (None: it was not)."""

    pfn: int
    class_: str
    finding: Optional[Finding] = None
    subject: Optional[Subject] = None

    @property
    def page(self) -> Optional[Page]:
        """What its bytes say."""
        return self.subject.page if self.subject is not None else None


Content = Union[bytes, str]
"""The bytes of a struct page; or, if it was not read, its class."""


class Walk:
    """The pages of a range, one after the other."""

    def __init__(
        self,
        layout: Layout,
        scheme: Scheme,
        pagemap: Pagemap,
        range_: Range,
        contents: Sequence[Content],
        driver: Driver = SILENT,
        files: Optional[Files] = None,
    ) -> None:
        self.layout, self.scheme, self.pagemap, self.range = layout, scheme, pagemap, range_
        self.driver, self.files = driver, files
        self.contents = contents
        self.heads: dict[int, Verdict] = {}
        self.verdicts: list[Verdict] = []
        self.folio: Optional[Verdict] = None
        """Of the head whose folio the walk is in."""
        self.known_from = range_.start_pfn
        """Of what lies before the last page that was not read, only whole folios are known."""
        self.twins: dict[int, bytes] = {}
        """Head of a compound page -> the second page of its memmap, which the later ones share."""

    def run(self) -> list[Verdict]:
        """The verdict on each page."""
        for i in range(len(self.contents)):
            verdict = self._page(self.range.start_pfn + i)
            self.verdicts.append(verdict)
            if verdict.page is None and verdict.class_ != "skipped":
                self.known_from = verdict.pfn + 1
        self._share_violations()
        return self.verdicts

    def _bytes(self, pfn: int, count: int) -> bytes:
        """Of *count* struct pages, as far as they were read without a gap."""
        data = b""
        i = pfn - self.range.start_pfn
        for content in self.contents[i : i + count]:
            if isinstance(content, str):
                break
            data += content
        return data

    def _believed_end(self, head: Page) -> int:
        """First pfn behind a folio, if its order is one that its type can have."""
        limit = self.layout.pmd_order or PMD_ORDER_MAX
        if self.pagemap.type == GENERIC:
            limit = max(limit, self.pagemap.vmemmap_shift)
        return head.pfn + (1 << head.order if head.order <= limit else 1)

    def _is_alias(self, pfn: int) -> bool:
        """Its struct page is one that was met before (deduplicated memmap)."""
        size = self.layout.page_size
        frame, odd = divmod(1 << self.layout.page_shift, size)
        if not self.pagemap.deduplicated or odd or self.folio is None or self.folio.page is None:
            return False
        head = self.folio.page
        if pfn >= self._believed_end(head):
            return False
        i = pfn - head.pfn
        second = self._bytes(pfn, frame)
        if i == frame and len(second) == frame * size:
            self.twins[head.pfn] = second
        twins = self.twins.get(head.pfn)
        twin = i % frame * size
        return twins is not None and i >= 2 * frame and second[:size] == twins[twin : twin + size]

    def _misfit(self, page: Page, files: Files) -> bool:
        """Whether an entry leads into the block of a PMD around a large folio as no folio of it can have it."""
        size = 1 << self.layout.pmd_order
        first = page.pfn // size * size
        start, end = max(first, self.range.start_pfn), min(first + size, self.range.end_pfn)
        if not page.order or self.scheme.shared != "share counts":
            return False
        for entry in files.entries:
            # Who holds a lock may be about to split or to join the folio.
            settled = not entry.locked and entry.mapping not in files.changing
            if settled and start <= entry.pfn < end:
                data = self._bytes(entry.pfn, 1)
                if data and not _fits(self.layout, entry, data):
                    return True
        return False

    def _claims(self, page: Page) -> Optional[Claims]:
        files = self.files
        if files is None:
            return None
        here = range(self.range.start_pfn, self.range.end_pfn)
        # Of one that begins outside, no page is believed to be the file's.
        owners = [e for e in files.entries if e.pfn in here and e.covers(page.pfn)]
        data = self._bytes(page.pfn, 1)
        locked = any(entry.locked for entry in owners)
        forsaken = locked and page.pfn in files.forsaken
        return Claims(
            owners=min(len(owners), MANY_OWNERS),
            acknowledged=any(
                _acknowledges(self.layout, self.scheme, entry, page.pfn, data) for entry in owners
            ),
            large=any(entry.order > 0 for entry in owners),
            locked=locked,
            forsaken=forsaken,
            in_flux=(locked and not forsaken) or any(e.mapping in files.changing for e in owners),
            misfit=self._misfit(page, files),
            complete=files.complete,
            unknown=page.mapping in files.unknown,
            no_file=page.mapping in files.no_file,
        )

    def _page(self, pfn: int) -> Verdict:
        content = self.contents[pfn - self.range.start_pfn]
        if isinstance(content, str):
            return Verdict(pfn, content)
        if self._is_alias(pfn):
            return Verdict(pfn, "skipped")
        if pattern_of(content) == "zero":
            return Verdict(pfn, "not-captured")
        data = self._bytes(pfn, FOLIO_PAGES)
        page = decode(self.layout, self.scheme, self.pagemap, self.range, pfn, data)
        if not page.whole:
            if (
                "order" not in self.layout.fields
                or pfn + len(data) // self.layout.page_size < self.range.end_pfn
            ):
                return Verdict(pfn, "not-captured")
            # A folio for which the range has no room.
            page = replace(page, order=ORDER_MAX + 1)
        return self._tail(page) if page.tail else self._head(page)

    def _head_of(self, page: Page) -> Optional[Page]:
        """The head that a tail names, if it is one."""
        verdict = self.heads.get(page.head_pfn) if page.head_pfn is not None else None
        return verdict.page if verdict is not None else None

    def _subject(self, page: Page) -> Subject:
        head = self._head_of(page)
        known = page.head_pfn is None or page.head_pfn >= self.known_from
        if not known and head is not None and not _spans(head, page.pfn):
            head = None
        within = None
        if self.folio is not None and self.folio.page is not None:
            within = self.folio.class_ if page.pfn < self._believed_end(self.folio.page) else None
        allocated, listed = self.driver.allocated, self.driver.listed
        return Subject(
            self.layout,
            self.scheme,
            self.pagemap,
            page,
            head,
            known or head is not None,
            within,
            self.range.index_bias,
            allocated=None if allocated is None else page.pfn in allocated,
            listed=listed is not None and page.pfn in listed,
            claims=self._claims(page),
        )

    def _head(self, page: Page) -> Verdict:
        subject = self._subject(page)
        finding = judge(subject)
        self.folio = Verdict(page.pfn, _class_of_head(subject, finding), finding, subject)
        self.heads[page.pfn] = self.folio
        return self.folio

    def _tail(self, page: Page) -> Verdict:
        subject = self._subject(page)
        finding = judge(subject)
        if subject.head is not None and _spans(subject.head, page.pfn):
            self.folio = self.heads[subject.head.pfn]
            return Verdict(page.pfn, self.folio.class_, finding, subject)
        return Verdict(page.pfn, _class_of_lone_tail(subject, finding), finding, subject)

    def _share_violations(self) -> None:
        """A folio is in violation if any of its pages is."""
        folios: dict[int, list[Verdict]] = {}
        for verdict in self.verdicts:
            page = verdict.page
            if page is None:
                continue
            head = self._head_of(page)
            belongs = head is not None and _spans(head, page.pfn)
            pfn = head.pfn if head is not None and belongs else page.pfn
            folios.setdefault(pfn, []).append(verdict)
        for pages in folios.values():
            if any(v.finding is not None and v.finding.severity == ERROR for v in pages):
                for verdict in pages:
                    verdict.class_ = "violation"


def scan(
    layout: Layout,
    scheme: Scheme,
    pagemap: Pagemap,
    range_: Range,
    contents: Sequence[Content],
    driver: Driver = SILENT,
    files: Optional[Files] = None,
) -> list[Verdict]:
    """The class and the finding of each page of a range.

    :param contents: per page of the range
    :param driver: what is known from elsewhere
    :param files: what the files on it say; None: they were not asked
    """
    return Walk(layout, scheme, pagemap, range_, contents, driver, files).run()
