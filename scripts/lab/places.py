# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which pages and pagemaps of a core are in which state: where inject.py may put a fault.

Owns the survey of a core's struct pages and the names of states that the table of faults.py asks for
(PLACES). Where members lie comes from zonedev's own layout; what a page's words mean is decided here.
Writes nothing. A page is in a state only if nothing about it is worth a finding (but "held").
The order of candidates is fixed: the same core gives the same places.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple, Optional

from books import Books
from coreedit import section_size_bits
from drgn import FaultError, Object
from drgn.helpers.linux.xarray import xa_load

from zonedev.kernel.facts import Kernel
from zonedev.kernel.layout import KernelLayout
from zonedev.kernel.vmemmap import Pages, read_memmap
from zonedev.model import Pagemap, PfnRange
from zonedev.second_pass import DaxPass

_PREFIX = "MEMORY_DEVICE_"
_POINTERS = 1 << 63
SUBSECTION = 2 << 20

# A survey reads no more pages of a pagemap than this.
_SURVEY_MAX = 1 << 22
# Zone and node are told by the first page of a pagemap's memmap: it is left alone.
_FIRST = 64
# Pages that belong to a fault on one page: its folio members may lie in the three behind it.
_AROUND = 4
# Where folio members lie in tails.
_FOLIO_PAGES = 4
_TRIES = 64

_PIN = 1024


class Words(NamedTuple):
    """What is looked at of a struct page; mapcount is the number of maps."""

    flags: int
    word1: int
    mapping: int
    index: int
    zone_device_data: int
    mapcount: int
    refcount: int
    memcg_data: int


class Folio(NamedTuple):
    """A compound page, by its head."""

    pfn: int
    order: int
    words: Words
    mapcount: int
    pincount: int

    @property
    def pages(self) -> int:
        return 1 << self.order


class Runs:
    """Pfns in rising order, adjacent ones joined."""

    def __init__(self) -> None:
        self.runs: list[list[int]] = []

    def add(self, pfn: int, count: int = 1) -> None:
        if self.runs and self.runs[-1][1] == pfn:
            self.runs[-1][1] += count
        else:
            self.runs.append([pfn, pfn + count])

    def __iter__(self) -> Iterator[int]:
        for start, end in self.runs:
            yield from range(start, end)

    def __contains__(self, pfn: int) -> bool:
        return any(start <= pfn < end for start, end in self.runs)


class Survey:
    """One pagemap's pages by state, and sums over them."""

    def __init__(self, kernel: Kernel, pagemap: Pagemap) -> None:
        self.kernel, self.pagemap = kernel, pagemap
        self.type = pagemap.type.replace(_PREFIX, "")
        self.states: dict[str, Runs] = {}
        self.folios: list[Folio] = []
        self.above_idle: list[tuple[int, int]] = []
        self.heads = self.heads_at_zero = self.pages_referenced = self.pages_mapped = 0
        self.resting: Counter[int] = Counter()
        self.complete = pagemap.pages <= _SURVEY_MAX
        self.idle_raw = b""
        self.idle = kernel.scheme.idle(pagemap.type) or 0
        self._known: dict[bytes, tuple[Words, frozenset[str]]] = {}
        self._uniform = b""
        self._end = 0

    @property
    def held(self) -> bool:
        """Whether a removal would find pages that are held.

        In scheme C it puts the reference that every page was born with: where one is at 0, it
        is under way, and all others are held.
        """
        return bool(self.above_idle) or self.under_way

    @property
    def under_way(self) -> bool:
        """Whether a dying pagemap would look as if its pages were being put."""
        return self.kernel.scheme.id == "C" and self.heads_at_zero > 0

    # ------------------------------------------------------------ one page

    def _load(self, raw: bytes, name: str, at: int = 0, signed: bool = False) -> int:
        offset, size, bits = self.kernel.layout.fields.get(name, (0, 0, 0))
        part = raw[at + offset : at + offset + size]
        value = int.from_bytes(part, "little", signed=signed)
        return value & ((1 << bits) - 1) if bits else value

    def words(self, raw: bytes, at: int = 0) -> Words:
        return Words(
            self._load(raw, "flags", at),
            self._load(raw, "pgmap", at),
            self._load(raw, "mapping", at),
            self._load(raw, "index", at),
            self._load(raw, "zone_device_data", at),
            self._load(raw, "_mapcount", at, signed=True) + 1,
            self._load(raw, "_refcount", at, signed=True),
            self._load(raw, "memcg_data", at),
        )

    def flag(self, words: Words, name: str) -> bool:
        bit = self.kernel.layout.spec["flags"].get(name)
        return bit is not None and bool(words.flags >> bit & 1)

    def full(self, words: Words) -> int:
        """The refcount that the idle count and the maps ask for."""
        return self.idle + words.mapcount

    def _is_ours(self, words: Words) -> bool:
        shift, width = self.kernel.layout.zone
        zone = words.flags >> shift & ((1 << width) - 1)
        odd = ("PG_locked", "PG_lru", "PG_swapcache", "PG_writeback", "PG_hwpoison")
        return (
            words.word1 == self.pagemap.address
            and zone == self.kernel.layout.zone_device
            and self.flag(words, "PG_reserved")
            and not any(self.flag(words, name) for name in odd)
        )

    def _is_shared(self, words: Words) -> bool:
        if "share" not in self.kernel.layout.fields:
            return False
        if self.kernel.scheme.id in "GH":
            return not self.kernel.scheme.stale_share and not words.mapping and words.index > 0
        return words.mapping == 1 and words.index > 0

    def states_of(self, words: Words) -> frozenset[str]:
        """States of an order-0 head; none for what is not quite right."""
        extra = words.refcount - self.full(words)
        if not self._is_ours(words) or words.mapcount < 0 or extra < 0:
            return frozenset()
        dax = self.type == "FS_DAX"
        if dax and self._is_shared(words):
            return frozenset(("shared",) if not extra else ())
        file = words.mapping >= _POINTERS and not words.mapping & 3 if dax else words.mapping != 0
        if extra:
            return frozenset(("held",) if file and extra < _PIN else ())
        if words.mapcount:
            mapped = file or self.type == "PCI_P2PDMA"
            return frozenset(("mapped", "associated") if mapped else ())
        if file:
            return frozenset(("cached", "associated") if self.type in ("FS_DAX", "GENERIC") else ())
        clean = not words.mapping and not words.memcg_data
        if dax and self.kernel.scheme.id in "GH":
            clean = clean and not words.index
        return frozenset(("idle",) if clean and self.pagemap.vmemmap_shift == 0 else ())

    # ------------------------------------------------------------ the walk

    def run(self) -> Survey:
        for range_ in self.pagemap.ranges:
            self._range(range_)
        return self

    def _range(self, range_: PfnRange) -> None:
        layout = self.kernel.layout
        pfn, count = range_.first_pfn, min(range_.end_pfn - range_.first_pfn, _SURVEY_MAX)
        for piece in read_memmap(self.kernel.prog, layout.page_address(pfn), count, layout):
            if isinstance(piece, Pages):
                self._piece(pfn, piece.data)
                pfn += len(piece.data) // layout.page_size
            else:
                self.complete = False
                pfn += piece.pages

    def _piece(self, first: int, data: bytes) -> None:
        size, pages = self.kernel.layout.page_size, len(data) // self.kernel.layout.page_size
        i = max(self._end - first, 0)
        while i < pages:
            frame = data[i * size : (i + 64) * size]
            if frame == self._uniform and len(frame) == 64 * size:
                self._book(first + i, *self._known[self._key(frame[:size])], 64)
                i += 64
                continue
            self._page(first + i, data, i * size)
            if frame == frame[:size] * 64 and self._known[self._key(frame[:size])][1]:
                self._uniform = frame
            self._end = max(self._end, first + i + 1)
            i = self._end - first

    def _key(self, raw: bytes) -> bytes:
        # Free private pages differ in the link of their driver's list only.
        offset, length, _ = self.kernel.layout.fields.get("zone_device_data", (0, 0, 0))
        return raw[:offset] + raw[offset + length :]

    def _page(self, pfn: int, data: bytes, at: int) -> None:
        raw = data[at : at + self.kernel.layout.page_size]
        key = self._key(raw)
        if key not in self._known:
            words = self.words(raw)
            self._known[key] = words, self.states_of(words)
        words, states = self._known[key]
        # What the dump does not hold is no page.
        if words.word1 & 1 or not any(raw):
            return
        if self.flag(words, "PG_head"):
            self._folio(pfn, words, data, at)
            return
        if "idle" in states:
            self.idle_raw = self.idle_raw or raw
            if self._load(raw, "zone_device_data"):
                self._add("listed", pfn, 1)
        self._book(pfn, words, states, 1)

    def _add(self, state: str, pfn: int, count: int) -> None:
        self.states.setdefault(state, Runs()).add(pfn, count)

    def _book(self, pfn: int, words: Words, states: Iterable[str], count: int) -> None:
        for state in states:
            self._add(state, pfn, count)
        self._sum(pfn, words, words.mapcount, count, 1)
        self._end = pfn + count

    def _sum(self, pfn: int, words: Words, mapcount: int, heads: int, pages: int) -> None:
        self.heads += heads
        if words.refcount > self.idle:
            self.above_idle += [(pfn + i, pages.bit_length() - 1) for i in range(heads)]
        if words.refcount == 0:
            self.heads_at_zero += heads
        if words.refcount > 0:
            self.pages_referenced += heads * pages
        if mapcount > 0:
            self.pages_mapped += heads * pages
        unclaimed = not words.mapping or self.type == "GENERIC"
        if mapcount == 0 and unclaimed and not self.flag(words, "PG_locked"):
            self.resting[words.refcount] += heads

    def _folio(self, pfn: int, words: Words, data: bytes, at: int) -> None:
        size = self.kernel.layout.page_size
        raw = data[at : at + _FOLIO_PAGES * size]
        order = self._load(raw, "order")
        if not 0 < order <= 30 or len(raw) < _FOLIO_PAGES * size:
            return
        mapcount = self._load(raw, "_large_mapcount", signed=True) + 1
        folio = Folio(pfn, order, words, mapcount, self._load(raw, "_pincount", signed=True))
        if self._is_ours(words):
            self.folios.append(folio)
        self._sum(pfn, words, mapcount, 1, folio.pages)
        self._end = pfn + folio.pages


class Place(NamedTuple):
    """Where a fault goes: a page (pfn) or a pagemap, and what it takes for itself.

    pages: pfns [pfn, pfn + pages) of this fault alone. whole: the pagemap is this fault's alone, as
    are those of others.
    """

    survey: Survey
    pfn: Optional[int] = None
    pages: int = _AROUND
    folio: Optional[Folio] = None
    whole: bool = False
    others: tuple[Pagemap, ...] = ()


class Core:
    """A kernel with the surveys of all its pagemaps."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        dax = DaxPass(kernel)
        # What the files say of FS_DAX pages, where the core holds all of it; most slices do not.
        self.entries = dax.entries if dax.complete else None
        self.books = Books(kernel)
        self.surveys = [Survey(kernel, pagemap).run() for pagemap in kernel.pagemaps]

    @property
    def layout(self) -> KernelLayout:
        return self.kernel.layout

    def of_type(self, type_: str) -> list[Survey]:
        return [survey for survey in self.surveys if survey.type == type_]

    def agrees(self, survey: Survey, pfn: int) -> bool:
        """False where files say something else of an FS_DAX page than the page itself."""
        mark = self.entries.mark(pfn) if self.entries and survey.type == "FS_DAX" else None
        if mark is None or mark["pmd"]:
            return True
        named = read_words(self, survey, pfn).mapping != 0
        return mark["count"] == named and mark["match"] == named

    def other(self, pagemap: Pagemap) -> Optional[Pagemap]:
        """Another pagemap, of the same type where there is one."""
        others = [p for p in self.kernel.pagemaps if p.address != pagemap.address]
        return next((p for p in others if p.type == pagemap.type), next(iter(others), None))


# ---------------------------------------------------------------- pages

Find = Callable[[Core, Survey], Iterator[Place]]


def _in_state(state: str) -> Find:
    def find(core: Core, survey: Survey) -> Iterator[Place]:
        for pfn in survey.states.get(state, ()):
            yield Place(survey, pfn, 1)

    return find


def _either(*states: str) -> Find:
    def find(core: Core, survey: Survey) -> Iterator[Place]:
        for state in states:
            yield from PLACES[state](core, survey)

    return find


def _idle_runs(survey: Survey, pages: int) -> Iterator[tuple[int, int]]:
    """Idle runs of at least so many pages behind the first page of the memmap."""
    first = survey.pagemap.ranges[0].first_pfn + _FIRST if survey.pagemap.ranges else 0
    for start, end in survey.states.get("idle", Runs()).runs:
        start = max(start, first)
        # The page before it is idle, too.
        if end - start - 1 >= pages:
            yield start + 1, end


def _idle(pages: int = _AROUND, step: int = _AROUND, shift: int = 0) -> Find:
    """Idle pages with idle ones around them; of pfns that are `shift` above a multiple of `step`."""

    def find(core: Core, survey: Survey) -> Iterator[Place]:
        for start, end in _idle_runs(survey, pages):
            start += (shift - start) % step
            for pfn in range(start, end - pages + 1, step):
                yield Place(survey, pfn, pages)

    return find


def _idle_pmd(core: Core, survey: Survey) -> Iterator[Place]:
    size = 1 << core.layout.pmd_order
    return _idle(size, size)(core, survey)


def _last_idle(core: Core, survey: Survey) -> Iterator[Place]:
    """From the end: what an allocator that starts from below hands out last."""
    for start, end in reversed(survey.states.get("idle", Runs()).runs):
        for pfn in range(end - 1, start - 1, -1):
            yield Place(survey, pfn, 1)


def _listed(core: Core, survey: Survey) -> Iterator[Place]:
    """Free private pages that a driver's list goes through."""
    idle = survey.states.get("idle", Runs())
    chains = core.books.chains_of(survey.pagemap)
    for pfn in islice(survey.states.get("listed", ()), _TRIES):
        if pfn in idle and (not chains or any(pfn in chain for chain in chains)):
            yield Place(survey, pfn, 1)


# ---------------------------------------------------------------- folios


def _is_quiet(survey: Survey, folio: Folio) -> bool:
    return folio.words.refcount == survey.idle + max(folio.mapcount, 0) and folio.pincount == 0


def _folios(choose: Callable[[Survey, Folio], bool]) -> Find:
    def find(core: Core, survey: Survey) -> Iterator[Place]:
        for folio in survey.folios:
            if _is_quiet(survey, folio) and choose(survey, folio):
                yield Place(survey, folio.pfn, folio.pages, folio)

    return find


def _tails(first: int, end: int, dedup: bool = False) -> Find:
    """Tails [first, end) of quiet folios whose memory is theirs alone (or, dedup, is not)."""

    def find(core: Core, survey: Survey) -> Iterator[Place]:
        if dedup and not survey.pagemap.deduplicated:
            return
        for folio in survey.folios:
            if _is_quiet(survey, folio) and folio.pages >= end:
                for i in range(first, end):
                    yield Place(survey, folio.pfn + i, 1, folio)

    return find


def _last_tail(used: bool) -> Find:
    """The last tails of folios that are in use, or idle."""

    def find(core: Core, survey: Survey) -> Iterator[Place]:
        if survey.pagemap.deduplicated:
            return
        for folio in survey.folios:
            idle = folio.words.refcount == survey.idle and folio.mapcount == 0
            if survey.type == "FS_DAX":
                idle = idle and not folio.words.mapping
            if _is_quiet(survey, folio) and folio.pages > _FOLIO_PAGES and idle != used:
                yield Place(survey, folio.pfn + folio.pages - 1, 1, folio)

    return find


def _behind_folio(core: Core, survey: Survey) -> Iterator[Place]:
    idle = survey.states.get("idle", Runs())
    for folio in survey.folios:
        if folio.pfn + folio.pages in idle:
            yield Place(survey, folio.pfn + folio.pages, 1, folio)


# ---------------------------------------------------------------- DAX entries


def _entry(core: Core, survey: Survey) -> Iterator[Place]:
    """Cached pages whose file's DAX entry is in the core, of one file; most slices have none."""
    prog = core.kernel.prog
    for pfn in islice(survey.states.get("cached", ()), _TRIES):
        words = read_words(core, survey, pfn)
        try:
            mapping = Object(prog, "struct address_space *", value=words.mapping)
            found = int(xa_load(mapping.i_pages.address_of_(), words.index))
        except (FaultError, LookupError, AttributeError):
            continue
        # A value entry (bit 0) without flags: the pfn lies above four bits of its own.
        if found == pfn << 5 | 1 and core.agrees(survey, pfn):
            yield Place(survey, pfn, 1)


def read_words(core: Core, survey: Survey, pfn: int) -> Words:
    """The words of one page."""
    layout = core.layout
    return survey.words(core.kernel.prog.read(layout.page_address(pfn), layout.page_size))


# ---------------------------------------------------------------- pagemaps


def _pagemap(choose: Callable[[Core, Survey], bool] = lambda core, survey: True) -> Find:
    def find(core: Core, survey: Survey) -> Iterator[Place]:
        if choose(core, survey):
            yield Place(survey, whole=True)

    return find


def _has_altmap(core: Core, survey: Survey) -> bool:
    return survey.pagemap.altmap is not None


def _in_ram(core: Core, survey: Survey) -> bool:
    """One range, no altmap, and more than one subsection."""
    pagemap = survey.pagemap
    pages = SUBSECTION >> core.layout.page_shift
    return pagemap.altmap is None and pagemap.nr_range == 1 and pagemap.pages >= 2 * pages


def _ends_free(core: Core, survey: Survey) -> bool:
    """The last subsection holds nothing that counts."""
    pages = SUBSECTION >> core.layout.page_shift
    end = survey.pagemap.ranges[-1].end_pfn if survey.pagemap.ranges else 0
    used = [pfn for pfn, order in survey.above_idle if pfn + (1 << order) > end - pages]
    return survey.pagemap.pages > 2 * pages and survey.complete and not used


def _few_held(core: Core, survey: Survey) -> bool:
    few = 0 < len(survey.above_idle) <= _TRIES
    return survey.complete and few and not survey.under_way


def _two_pagemaps(core: Core, survey: Survey) -> Iterator[Place]:
    other = core.other(survey.pagemap)
    if other is not None:
        yield Place(survey, whole=True, others=(other,))


def _neighbour(core: Core, survey: Survey) -> Iterator[Place]:
    """A pagemap behind which another one begins at once, with pages of its own from the start."""
    if not survey.pagemap.ranges:
        return
    end = survey.pagemap.ranges[-1].end_pfn
    for other in core.kernel.pagemaps:
        if any(r.start_pfn == r.first_pfn == end for r in other.ranges):
            yield Place(survey, whole=True, others=(other,))


def _of_ops(core: Core, survey: Survey) -> Iterator[Place]:
    same = [p for p in core.kernel.pagemaps if p.ops and p.ops == survey.pagemap.ops]
    if same:
        others = tuple(p for p in same if p.address != survey.pagemap.address)
        yield Place(survey, whole=True, others=others)


def _type(core: Core, survey: Survey) -> Iterator[Place]:
    same = core.of_type(survey.type)
    if same[0] is survey:
        yield Place(survey, whole=True, others=tuple(s.pagemap for s in same[1:]))


def _frame(core: Core, survey: Survey) -> Iterator[Place]:
    """Idle pages from the end of a pagemap, one a piece of its memmap."""
    for place in islice(_last_idle(core, survey), 0, 128 * _TRIES, 128):
        yield place._replace(whole=True)


def _altmap_head(core: Core, survey: Survey) -> Iterator[Place]:
    for range_ in survey.pagemap.ranges[:1]:
        if range_.first_pfn > range_.start_pfn:
            yield Place(survey, range_.start_pfn, whole=True)


def _section(core: Core, survey: Survey) -> Iterator[Place]:
    for range_ in survey.pagemap.ranges:
        yield Place(survey, range_.end_pfn - 1, whole=True)


def _no_section(core: Core, survey: Survey) -> Iterator[Place]:
    """A pfn behind the pagemap, in the first section that no pagemap reaches into."""
    bits = section_size_bits(core.kernel.prog)
    if not bits:
        return
    shift = bits - core.layout.page_shift
    ranges = [r for p in core.kernel.pagemaps for r in p.ranges]
    used = {n for r in ranges for n in range(r.start_pfn >> shift, (r.end_pfn - 1 >> shift) + 1)}
    last = survey.pagemap.ranges[-1].end_pfn - 1 >> shift
    free = next(n for n in range(last, last + len(used) + 2) if n not in used)
    yield Place(survey, free << shift, whole=True)


PLACES: dict[str, Find] = {
    # Pages of order 0.
    "idle": _idle(),
    "idle-even": _idle(step=8),
    "idle-odd": _idle(step=8, shift=1),
    "idle-pmd": _idle_pmd,
    "last-idle": _last_idle,
    "listed": _listed,
    "cached": _in_state("cached"),
    "associated": _in_state("associated"),
    "mapped": _in_state("mapped"),
    "held": _in_state("held"),
    "held or idle": _either("held", "idle"),
    "mapped or held": _either("mapped", "held"),
    "shared": _in_state("shared"),
    "entry": _entry,
    # Folios and their tails.
    "folio-idle": _folios(lambda s, f: f.words.refcount == s.idle and f.order <= 10),
    "folio-cached": _folios(lambda s, f: f.words.refcount == s.idle and f.words.mapping != 0),
    "folio-touched": _folios(lambda s, f: f.words.mapping != 0),
    "folio-mapped": _folios(lambda s, f: f.mapcount > 0),
    "tail": _tails(_FOLIO_PAGES, _FIRST),
    "alias-tail": _tails(_FIRST + 1, 2 * _FIRST, dedup=True),
    "last-tail": _either("last-tail-used", "last-tail-idle"),
    "last-tail-used": _last_tail(used=True),
    "last-tail-idle": _last_tail(used=False),
    "behind-folio": _behind_folio,
    # Pagemaps.
    "pagemap": _pagemap(),
    "pagemap-altmap": _pagemap(_has_altmap),
    "pagemap-ram": _pagemap(_in_ram),
    "pagemap-free-end": _pagemap(_ends_free),
    "pagemap-held": _pagemap(lambda core, s: s.held),
    "pagemap-few-held": _pagemap(_few_held),
    "two-pagemaps": _two_pagemaps,
    "pagemap-neighbour": _neighbour,
    "pagemaps-of-ops": _of_ops,
    "pagemap-frame": _frame,
    "altmap-head": _altmap_head,
    "type": _type,
    "section": _section,
    "no-section": _no_section,
}
