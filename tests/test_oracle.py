# SPDX-License-Identifier: LGPL-2.1-or-later
"""The C core against zonedev/reference.py: the same facts, findings and classes on any pages.

Random and mutated pages of every scheme, memory type, word size and byte order; for each rule a
violating, a near-miss and an unreadable case; and the pages of the real cores.  The run is the same
every time; ZONEDEV_ORACLE_EXAMPLES=N tries N random cases per scheme and type, and other ones each time.
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from random import Random
from typing import Any, Callable, NamedTuple, Optional, Union

import pytest
from conftest import NAMES, Vmcore, open_vmcore
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from pages import EVIDENCE, FLAGS, MAPPING, START, Machine
from trees import LOCK, LOCKED, PMD, SPACES, World

from zonedev import _zonedev, reference
from zonedev.cells import Cells
from zonedev.kernel.scheme import _ASK
from zonedev.kernel.vmemmap import Hole, read_memmap
from zonedev.model import CLASSES, PfnRange
from zonedev.reference import SILENT, Content, Driver, Entry, Files, Range, Verdict
from zonedev.scanner import pagemap_spec

EXAMPLES = int(os.environ.get("ZONEDEV_ORACLE_EXAMPLES", "0"))
PROFILE = settings(
    derandomize=not EXAMPLES,
    max_examples=EXAMPLES or 20,
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    # smallest() makes the pages few; the machine is shrunk on demand only.
    phases=list(Phase) if EXAMPLES else [Phase.generate],
    suppress_health_check=list(HealthCheck),
)
RANGES = 10
"""Ranges of random pages per example."""
REAL_PAGES = 10**9 if EXAMPLES else 40
"""Distinct struct pages looked at per range of a real core."""
WINDOW = 600
"""Tails farther behind their head are looked at without it."""
INDICES = 1 << 18
"""Of the pages of a file."""

SCHEMES = list(EVIDENCE)
TYPES = [type_.replace("MEMORY_DEVICE_", "") for type_ in _zonedev.TYPES]
BEFORE_TYPES = {"A": ["FS_DAX", "GENERIC"], "B": ["FS_DAX", "GENERIC"]}
COMBINATIONS = [(s, t) for s in SCHEMES for t in BEFORE_TYPES.get(s, TYPES)]
OPTIONAL_MEMBERS = (
    *("zone_device_data", "index", "share", "memcg_data"),
    *("order", "_large_mapcount", "_pincount"),
)
ROWS = _zonedev.rules()
NEVER_FOUND = {"dedup-alias"}
"""Rows that say what is not judged."""


# ---------------------------------------------------------------- both sides


class Side(NamedTuple):
    """What one implementation says: pages per class, in all and by place; per pfn of a finding its words."""

    classes: dict[str, int]
    cells: list[tuple[int, ...]]
    findings: dict[int, tuple[Any, ...]]


class Under(NamedTuple):
    """A machine for both sides."""

    machine: Machine
    scheme: reference.Scheme

    @property
    def layout(self) -> reference.Layout:
        return reference.Layout(**self.machine.layout_spec)

    @property
    def pagemap(self) -> reference.Pagemap:
        return reference.Pagemap(**self.machine.pagemap)


def under(
    letter: str,
    type_: str,
    *extra: str,
    drained: bool = False,
    init_busy: Optional[bool] = None,
    **options: Any,
) -> Under:
    machine = Machine(letter, type_, *extra, **options)
    scheme = reference.detect(machine.evidence)
    name = machine.pagemap["type"]
    if drained:
        machine.scheme, scheme = machine.scheme.drained(), scheme.drained()
    if init_busy is not None and letter == "F1":
        machine.scheme = machine.scheme.with_init_mode(name, init_busy)
        scheme = scheme.with_init_mode(name, init_busy)
    return Under(machine, scheme)


def runs(contents: list[Content]) -> Iterator[Union[bytes, str]]:
    """The same, adjacent bytes put together."""
    data = b""
    for content in contents:
        if isinstance(content, bytes):
            data += content
            continue
        if data:
            yield data
        data = b""
        yield content
    if data:
        yield data


def bits_of(
    layout: _zonedev.Layout, range_: Range, pfns: Optional[frozenset[int]]
) -> Optional[_zonedev.PageBits]:
    """The same pages, as the core takes them."""
    if pfns is None or range_.start_pfn == range_.end_pfn:
        return None
    bits = _zonedev.PageBits(layout, lambda address, size: None)
    bits.range(range_.start_pfn, range_.end_pfn, range_.memmap)
    for pfn in pfns:
        bits.set(pfn, b"\1", 1)
    return bits


def entries_of(machine: Machine, contents: list[Content], files: Files) -> _zonedev.Entries:
    """The same files as the core reads them: trees in memory, beside the struct pages that can be read."""
    world = World(machine, bytes(machine.page_size * len(contents)))
    del world.memory.pieces[machine.memmap]
    address = machine.memmap
    for run in runs(contents):
        if isinstance(run, bytes):
            world.memory.put(address, run)
        address += len(run) if isinstance(run, bytes) else machine.page_size
    for mapping in dict.fromkeys(entry.mapping for entry in files.entries):
        mine = [entry for entry in files.entries if entry.mapping == mapping]
        flags = {e.index: (PMD if e.order else 0) | (LOCKED if e.locked else 0) for e in mine}
        world.file({e.index: (e.pfn, flags[e.index]) for e in mine}, mapping=mapping)
        world.memory.word(mapping + LOCK, mapping in files.changing, 4)
        told = world.entries.add(mapping)
        assert told["why"] is None and told["entries"] == len(mine) and not told["misplaced"]
    for pfn in files.forsaken:
        world.entries.lock_is(pfn, 1, True)
    for kind, words in (("unknown", files.unknown), ("no-file", files.no_file)):
        for word in words:
            world.entries.know(word, kind)
    world.entries.complete(files.complete)
    return world.entries


def cell_shift(pages: int) -> int:
    """How fine classes are counted by place."""
    return pages % 4


def side_of_c(
    layout: _zonedev.Layout,
    scheme: _zonedev.Scheme,
    pagemap: dict[str, Any],
    range_: Range,
    contents: list[Content],
    driver: Driver = SILENT,
    entries: Optional[_zonedev.Entries] = None,
) -> Side:
    scan = _zonedev.Scan(
        *(layout, scheme, pagemap),
        merge=False,
        entries=entries,
        allocated=bits_of(layout, range_, driver.allocated),
        listed=bits_of(layout, range_, driver.listed),
    )
    scan.begin(range_.start_pfn, range_.end_pfn, range_.memmap, range_.index_bias)
    pfns, shift = (range_.start_pfn, range_.end_pfn), cell_shift(len(contents))
    scan.count_cells(*pfns, shift)
    for run in runs(contents):
        if isinstance(run, str):
            scan.hole(1, run)
        else:
            scan.pages(run)
    scan.end()
    tally = scan.result()
    findings: dict[int, tuple[Any, ...]] = {}
    for f in tally["findings"]:
        # Information is always merged.
        for pfn in range(f["pfn"], f["pfn"] + (f["count"] << f["order"]), 1 << f["order"]):
            assert pfn not in findings
            facts = (f["refcount"], f["mapcount"], f["order"], f["mapping"])
            findings[pfn] = (f["rule"], f["severity"], tuple(f["also"]), *facts)
    classes = {name: n for name, n in tally["classes"].items() if n}
    cells = Cells.of_bytes(pfns, shift, scan.cells())
    return Side(classes, list(map(cells.classes, range(len(cells)))), findings)


def side_of_reference(verdicts: list[Verdict]) -> Side:
    findings: dict[int, tuple[Any, ...]] = {}
    for verdict in verdicts:
        finding, page = verdict.finding, verdict.page
        if finding is None:
            continue
        assert page is not None
        facts = (page.refcount, 0, 0, 0)
        if not page.tail:
            facts = (page.refcount, page.mapcount, page.order, page.mapping)
        findings[verdict.pfn] = (finding.rule, finding.severity, finding.also, *facts)
    cells: dict[int, Counter[str]] = {}
    for verdict in verdicts:
        cell = cells.setdefault(verdict.pfn >> cell_shift(len(verdicts)), Counter())
        cell[verdict.class_] += 1
    counts = [tuple(cell[name] for name in CLASSES) for cell in cells.values()]
    return Side(dict(Counter(verdict.class_ for verdict in verdicts)), counts, findings)


def compare(
    case: Under,
    contents: list[Content],
    driver: Driver = SILENT,
    files: Optional[Files] = None,
) -> list[Verdict]:
    """Assert that both sides say the same; what the reference says."""
    m = case.machine
    range_ = Range(START, START + len(contents), m.memmap, m.index_bias)
    args = (case.layout, case.scheme, case.pagemap, range_, contents, driver, files)
    verdicts = reference.scan(*args)
    entries = None if files is None or not contents else entries_of(m, contents, files)
    told = side_of_c(m.layout, m.scheme, m.pagemap, range_, contents, driver, entries)
    assert told == side_of_reference(verdicts)
    compare_decoded(case, range_, contents, verdicts)
    return verdicts


def compare_decoded(
    case: Under, range_: Range, contents: list[Content], verdicts: list[Verdict]
) -> None:
    """The numbers behind the findings, of pages that have none, too."""
    m = case.machine
    for i, verdict in enumerate(verdicts):
        subject = verdict.subject
        if subject is None or not subject.page.whole:
            continue
        data = next(runs(contents[i:]))
        args = (range_.start_pfn, range_.end_pfn, range_.memmap)
        facts = _zonedev.decode(m.layout, m.scheme, m.pagemap, args, verdict.pfn, data)
        page = subject.page
        expected: dict[str, Any] = {
            name: getattr(page, name)
            for name in ("pattern", "tail", "word1", "refcount", "raw_mapcount", "head_pfn")
        }
        expected |= {name: getattr(page, name) or 0 for name in ("zone", "node")}
        if not page.tail:
            for name in ("order", "mapcount", "mapping", "pincount", "has_type"):
                expected[name] = getattr(page, name)
            for name in ("index", "share", "memcg_data", "zone_device_data"):
                expected[name] = getattr(page, name) or 0
            if subject.counting.idle is not None:
                expected |= {"extra": subject.extra, "plain": subject.plain, "pin": subject.pins}
        assert {name: facts[name] for name in expected} == expected


# ---------------------------------------------------------------- random pages


class State(NamedTuple):
    """Words of a head; refcount is (counted from idle and maps?, number)."""

    words: dict[str, Any]
    flips: list[int]

    def options(self, machine: Machine) -> dict[str, Any]:
        words = dict(self.words)
        relative, refcount = words.pop("refcount", (True, 0))
        names = [f"PG_{name}" for name in words.pop("flags", ())]
        known = machine.layout_spec["flags"]
        words["flags"] = tuple(name[3:] for name in names if name in known)
        if "mapping" in words:
            kind = words["mapping"]
            word = {"file": machine.mapping, "anon": machine.mapping | 1}.get(kind, kind)
            words["mapping"] = machine.memmap if word == "memmap" else word
        base = machine.idle + words.get("maps", 0) if relative else 0
        return words | {"refcount": base + refcount}

    def damage(self, page: bytes) -> bytes:
        changed = bytearray(page)
        for bit in self.flips:
            changed[bit // 8 % len(changed)] ^= 1 << bit % 8
        return bytes(changed)


COUNTS = [(True, n) for n in (-2, -1, 0, 0, 1, 1, 2, 3, 1023, 1024, 1025, 2048, 3072)]
COUNTS += [(False, n) for n in (-(1 << 31), -1, 0, 0, 1, 2, 1024, 1 << 30, (1 << 30) + 1)]
POISON = [0xDEAD000000000400, 0x5DEADBEEF0000400]
RAW_MAPCOUNTS = [-2, -3, -128, -129, -(1 << 24), -(1 << 24) - 1, -(1 << 28), 1 << 30]
FLAG_NAMES = [name[3:] for name in FLAGS if name not in ("PG_head", "PG_reserved")]

WORDS: dict[str, list[Any]] = {
    "refcount": COUNTS,
    "maps": [1, 1, 2, 3],
    "mapping": [
        *("file", "file", "file", "anon", "anon", 1, 1, 1),
        *(2, 3, 0xFFC, 0x1000, *POISON, "memmap"),
    ],
    "share": [0, 1, 2, 6, 7, 8, 1 << 20],
    "flags": [[name] for name in FLAG_NAMES],
    "data": [0, 1],
}
RARE: dict[str, list[Any]] = {
    "zone": [0, 2, 7],
    "node": [0, 2],
    "reserved": [False],
    "pgmap": [0, 2, 1 << 20],
    "memcg": [1],
    "raw_mapcount": RAW_MAPCOUNTS,
}

# States that kernels have, or have by one step too many or too few.
STARTS: list[dict[str, Any]] = [
    {},
    {},
    {"mapping": "file"},
    {"mapping": "anon"},
    {"mapping": "file", "maps": 1},
    {"mapping": "anon", "maps": 1},
    {"mapping": 1, "share": 0},
    {"mapping": 1, "share": 1},
    {"share": 1},
    {"share": 1, "refcount": (True, 1)},
    {"share": 2, "refcount": (True, 1)},
    {"refcount": (False, 0)},
    {"refcount": (True, 1)},
    {"flags": ["locked"]},
    {"memcg": 1},
    {"refcount": (True, 1024)},
    {"mapping": "file", "refcount": (True, 1024)},
]


IDLE = State({}, [])


def random_state(rng: Random) -> State:
    words = dict(rng.choice(STARTS))
    for _ in range(rng.choice([0, 0, 1, 1, 2, 3])):
        name = rng.choice([*WORDS, *WORDS, *WORDS, *RARE])
        words[name] = rng.choice((WORDS | RARE)[name])
    flips = [rng.randrange(512) for _ in range(rng.randrange(1, 3))] if rng.random() < 0.1 else []
    return State(words, flips)


Item = Callable[[Machine, int], list[Content]]
"""Struct pages that begin at a pfn."""


def pages_of(data: bytes, machine: Machine) -> list[Content]:
    size = machine.page_size
    return [data[i : i + size] for i in range(0, len(data), size)]


def fold(value: int, machine: Machine) -> int:
    return value & (1 << machine.bits) - 1


def single(state: State, count: int) -> Item:
    def make(machine: Machine, pfn: int) -> list[Content]:
        options = state.options(machine)
        options["mapping"] = fold(options.get("mapping", 0), machine)
        return [state.damage(machine.page(**options))] * count

    return make


class Damage(NamedTuple):
    """Of a folio: the page that is hit, and by what; of how many pages there are."""

    at: int
    by: Union[State, str, None]
    keep: int
    order_word: Optional[int]


def large(
    order: int, align: bool, pins: int, mask: bool, state: State, damage: Optional[Damage]
) -> Item:
    def make(machine: Machine, pfn: int) -> list[Content]:
        gap = -pfn % (1 << order) if align else 0
        options = state.options(machine)
        options["mapping"] = fold(options.get("mapping", 0), machine)
        options.pop("raw_mapcount", None)
        pow2 = machine.page_size == 64
        folio = machine.folio(order, pfn + gap, pins=pins, mask=mask and pow2, **options)
        pages = pages_of(folio, machine)
        if damage is not None:
            hit(machine, pages, damage)
        return [machine.page()] * gap + pages

    return make


def hit(machine: Machine, pages: list[Content], damage: Damage) -> None:
    at = damage.at % len(pages)
    page = pages[at]
    if damage.order_word is not None and isinstance(pages[1], bytes):
        first = bytearray(pages[1])
        first[machine.word - 1 if machine.big_endian else 0] = damage.order_word
        pages[1] = bytes(first)
    if damage.by == "held":
        assert isinstance(page, bytes)
        pages[at] = machine.changed(page, "_refcount", 1)
    elif isinstance(damage.by, str):
        pages[at] = bytes(machine.page_size) if damage.by == "zero" else damage.by
    elif damage.by is not None:
        (pages[at],) = single(damage.by, 1)(machine, START)
    del pages[1 + damage.keep :]


def tail(kind: str, back: int, words: dict[str, Any]) -> Item:
    def make(machine: Machine, pfn: int) -> list[Content]:
        here = machine.memmap + (pfn - START) * machine.page_size
        word = {
            "head": here - back * machine.page_size,
            "before": machine.memmap - machine.page_size,
            "between": machine.memmap + 8,
            "mask": -(machine.page_size << back),
            "null": 0,
        }[kind]
        return [machine.tail(fold(word, machine) | 1, **words)]

    return make


def constant(content: Union[int, str]) -> Item:
    return lambda machine, pfn: [
        bytes([content]) * machine.page_size if isinstance(content, int) else content
    ]


def raw(data: bytes) -> Item:
    return lambda machine, pfn: [data[: machine.page_size]]


def random_damage(rng: Random) -> Optional[Damage]:
    if rng.random() < 0.5:
        return None
    lost = ["zero", "unreadable", "not-captured"]
    words = [None] * 14 + [0, 1, 2, 4, 9, 30, 31, 200]
    return Damage(
        at=rng.randrange(16),
        by=rng.choice([None, IDLE, IDLE, "held", random_state(rng), rng.choice(lost)]),
        keep=rng.choice([15] * 6 + [0, 1, 2, 5]),
        order_word=rng.choice(words),
    )


def random_item(rng: Random) -> Item:
    kind = rng.choice(["single"] * 4 + ["large"] * 2 + ["tail", "odd"])
    state = rng.choice([IDLE, random_state(rng), random_state(rng)])
    if kind == "single":
        return single(state, rng.choice([1, 1, 2, 5]))
    if kind == "large":
        order, align, pins = rng.choice([1, 2, 3, 3, 3, 4]), rng.random() < 0.8, [0, 0, 0, 1, 2, -1]
        return large(order, align, rng.choice(pins), rng.random() < 0.5, state, random_damage(rng))
    if kind == "tail":
        kinds = ["head", "head", "head", "mask", "before", "between", "null"]
        words = [{}, {}, {"node": 2}, {"refcount": 1}, {"refcount": -1}, {"reserved": False}]
        return tail(rng.choice(kinds), rng.randrange(6), rng.choice([*words, {"zone": 0}]))
    odd = [0x00, 0xFD, 0xFF, "not-captured", "unreadable", "skipped"]
    return raw(rng.randbytes(64)) if rng.random() < 0.2 else constant(rng.choice(odd))


# What varies within a scheme.
VARIATIONS = {
    "A": ["dax_associate_entry"],
    "B": ["dax_associate_entry"],
    "C": [
        *("pgmap_radix", "dax_associate_entry"),
        *("page.hpage_pinned_refcount", "NR_FOLL_PIN_ACQUIRED"),
    ],
    "D": ["dax_mapping_set_cow", "MEMORY_DEVICE_COHERENT", "p2pmem_alloc_mmap"],
    "E": ["p2pmem_alloc_mmap"],
    "G": ["dax_folio_reset_order"],
}
LACKING = [*OPTIONAL_MEMBERS, "PG_reserved", "PG_locked", "PG_head", "PG_lru", "PG_hwpoison"]


@st.composite
def machines(draw: st.DrawFn, letter: str, type_: str) -> Under:
    """Small folios (a PMD of eight pages), so that whole ones are cheap."""
    extra = draw(st.sets(st.sampled_from(VARIATIONS.get(letter, ["page.share"]))))
    options: dict[str, Any] = {}
    layout: dict[str, Any] = {"pmd_order": 3, "page_shift": 10}
    rare = draw(st.integers(0, 3)) == 3
    if rare:
        layout["pmd_order"] = draw(st.sampled_from([0, 2, 3]))
        layout["page_type_limit"] = draw(st.sampled_from([-128, -(1 << 24)]))
        options["missing"] = tuple(draw(st.sets(st.sampled_from(LACKING), max_size=2)))
        options["zone_known"] = draw(st.integers(0, 4)) > 0
        options["node"] = draw(st.sampled_from([1, 1, -1]))
        options["severity_cap"] = draw(st.sampled_from(["error", "error", "warning", "info"]))
        options["miscalibrated"] = draw(st.integers(0, 4)) == 4
    if type_ == "GENERIC":
        options["vmemmap_shift"] = draw(st.sampled_from([0, 0, 3, 3, 4]))
        options["foreign_maps"] = draw(st.integers(0, 5)) == 5
        if draw(st.booleans()):
            # The first pages of the range are those of the file of the device, or lie far behind them.
            options["dax_mapping"] = draw(st.sampled_from([MAPPING, 0xC4000018, 0x1000]))
            options["index_bias"] = START - draw(st.sampled_from([0, 0, 1, 2, 1 << 10]))
    if type_ in ("PRIVATE", "COHERENT"):
        options["driver_data"] = draw(st.booleans())
    if draw(st.integers(0, 3)) == 3:
        options["ref"] = draw(st.sampled_from(["dying", "dead"]))
    return under(
        letter,
        type_,
        *sorted(extra - EVIDENCE[letter] if letter != "unknown" else ()),
        drained=draw(st.integers(0, 5)) == 5,
        init_busy=draw(st.sampled_from([None, None, True, False])),
        word=draw(st.sampled_from([8, 8, 4])),
        big_endian=draw(st.integers(0, 2)) == 2,
        layout=layout,
        **options,
    )


def random_pages(machine: Machine, rng: Random) -> list[Content]:
    contents: list[Content] = []
    for _ in range(rng.randrange(1, 6)):
        contents += random_item(rng)(machine, START + len(contents))
    return contents


def random_driver(rng: Random, count: int) -> Driver:
    """A driver that says something of some pages; or nothing."""

    def some() -> Optional[frozenset[int]]:
        share = rng.choice([None, 0.1, 0.5, 0.9])
        pfns = range(START, START + count)
        return None if share is None else frozenset(pfn for pfn in pfns if rng.random() < share)

    return Driver(some(), some())


def load_index(case: Under, content: Content) -> int:
    """Which page of its file a page says that it is, or how many files share it."""
    return case.layout.load(content, "index") or 0 if isinstance(content, bytes) else 0


def named_index(case: Under, content: Content) -> int:
    """The same, where a file has such a page."""
    index = load_index(case, content)
    return index if index < INDICES else 0


def random_entry(case: Under, contents: list[Content], rng: Random, mapping: int) -> Entry:
    """One that agrees with its page, or not."""
    order = case.layout.pmd_order if rng.random() < 0.3 else 0
    at = rng.randrange(-1, len(contents) + 1)
    pfn = START + at
    if order and rng.random() < 0.6:
        pfn = pfn >> order << order
    inside = 0 <= pfn - START < len(contents)
    index = named_index(case, contents[pfn - START]) if inside else 0
    if rng.random() < 0.3:
        index = rng.choice([0, 1, 2, 3, 64, 1 << 12])
    return Entry(mapping, index >> order << order, pfn, order, rng.random() < 0.15)


def without_overlap(entries: list[Entry]) -> tuple[Entry, ...]:
    """A place of a file has one entry."""
    taken: set[tuple[int, int]] = set()
    kept = []
    for entry in entries:
        places = {(entry.mapping, entry.index + i) for i in range(1 << entry.order)}
        if not places & taken:
            taken |= places
            kept.append(entry)
    return tuple(kept)


def is_head(case: Under, content: Content) -> bool:
    spec = case.machine.layout_spec
    bit = spec["flags"].get("PG_head", -1)
    flags = case.layout.load(content, "flags") if isinstance(content, bytes) else None
    return bit >= 0 and bool((flags or 0) >> bit & 1)


def around_a_folio(case: Under, contents: list[Content], rng: Random) -> list[Entry]:
    """A PMD entry where a large folio begins, or before it, and one that leads to its tails, locked or not."""
    heads = [i for i, content in enumerate(contents) if is_head(case, content)]
    order = case.layout.pmd_order
    if not heads or not order or rng.random() < 0.4:
        return []
    pfn = START + rng.choice(heads)
    tail = Entry(SPACES, 7, pfn + rng.randrange(1 << order), 0, rng.random() < 0.7)
    first = pfn - rng.choice([0, 0, 0, 1, 3])
    return [Entry(SPACES, 1 << order + 8, first, order), *([tail] if rng.random() < 0.5 else [])]


def random_files(case: Under, contents: list[Content], rng: Random) -> Optional[Files]:
    """Files that agree with the pages, or not; or nobody asked."""
    if case.machine.pagemap["type"] != "MEMORY_DEVICE_FS_DAX" or case.machine.word != 8:
        return None
    if rng.random() < 0.3:
        return None
    mappings = [case.machine.mapping, SPACES, SPACES + 0x1000]
    entries = []
    for _ in range(rng.choice([0, 1, 2, 4, 8])):
        entries.append(random_entry(case, contents, rng, rng.choice(mappings)))
    if rng.random() < 0.3:
        # A block that one file has in many places: one that counts them, if there is any.
        counting = [i for i, c in enumerate(contents) if load_index(case, c) > 1]
        pfn = START + rng.choice(counting or range(len(contents)))
        count = rng.choice([2, 3, 6, 7, 8])
        entries += [Entry(SPACES, 128 + i, pfn) for i in range(count)]
    entries += around_a_folio(case, contents, rng)
    pfns = {e.pfn + i for e in entries if e.locked for i in range(1 << e.order)}
    words = [*mappings, case.machine.mapping | 1, 0x1000]
    unknown = frozenset(word for word in words if rng.random() < 0.1)
    return Files(
        entries=without_overlap(entries),
        complete=rng.random() < 0.7,
        changing=frozenset(m for m in mappings if rng.random() < 0.1),
        forsaken=frozenset(pfn for pfn in pfns if rng.random() < 0.5),
        unknown=unknown,
        no_file=frozenset(word for word in words[3:] if rng.random() < 0.3) - unknown,
    )


def smallest(
    case: Under, contents: list[Content], driver: Driver, files: Optional[Files]
) -> list[Content]:
    """Of pages on which the sides differ, as few as still do so."""
    for i in range(len(contents)):
        fewer = contents[:i] + contents[i + 1 :]
        try:
            compare(case, fewer, driver, files)
        except AssertionError:
            return smallest(case, fewer, driver, files)
    return contents


def compare_random(case: Under, seed: int) -> set[int]:
    """Compare on several ranges of pages; the rows that fired."""
    reached = set()
    rng = Random(f"{seed} {case.scheme.id} {case.machine.pagemap['type']}")
    for _ in range(RANGES):
        contents = random_pages(case.machine, rng)
        driver = random_driver(rng, len(contents))
        files = random_files(case, contents, rng)
        try:
            reached |= rows_of(compare(case, contents, driver, files))
        except AssertionError:
            fewest = smallest(case, contents, driver, files)
            note(f"{case}\n{case.machine.layout_spec}\n{case.machine.pagemap}\n{driver}\n{files}")
            note("\n".join(c.hex() if isinstance(c, bytes) else c for c in fewest))
            compare(case, fewest, driver, files)
            raise
    return reached


def is_of_pages(row: dict[str, Any]) -> bool:
    """Whether it judges pages: of pagemaps as a whole the reference knows nothing."""
    return row["scope"] != "pagemap" and row["id"] not in NEVER_FOUND


def level_of(row: dict[str, Any]) -> str:
    """That of the cases here: rows that need files are asked with all of them."""
    level: str = row["severity" if row["requires_evidence"] else "severity_unproven"]
    return level


def rows_of(verdicts: list[Verdict]) -> set[int]:
    """The rows of the table that fired, told by id, type, scheme, what it looks at, and level."""
    rows = set()
    for verdict in verdicts:
        s = verdict.subject
        if s is None:
            continue
        fired = reference.fired(s)
        for i, row in enumerate(ROWS):
            fits = s.type in row["types"] and s.scheme.id in row["schemes"]
            if (
                not fits
                or not is_of_pages(row)
                or row["scope"] not in ("page", "tail" if s.page.tail else "head")
            ):
                continue
            if (row["id"], level_of(row)) in fired:
                rows.add(i)
    return rows


@functools.cache
def explore(letter: str, type_: str) -> frozenset[int]:
    """Compare on random pages; the rows that fired."""
    reached: set[int] = set()

    @PROFILE
    @given(machines(letter, type_), st.integers(0, 1 << 32))
    def run(case: Under, seed: int) -> None:
        reached.update(compare_random(case, seed))

    run()
    return frozenset(reached)


@pytest.mark.parametrize(("letter", "type_"), COMBINATIONS)
def test_random_pages(letter: str, type_: str) -> None:
    explore(letter, type_)


def test_random_pages_reach_every_row() -> None:
    reached = frozenset().union(*(explore(*combination) for combination in COMBINATIONS))
    silent = {
        (i, row["id"], level_of(row))
        for i, row in enumerate(ROWS)
        if is_of_pages(row) and i not in reached
    }
    assert not silent


# ---------------------------------------------------------------- schemes


@PROFILE
@given(st.sets(st.sampled_from([name for name, _ in _zonedev.probes()])))
def check_detection(present: set[str]) -> None:
    told = _zonedev.Scheme(dict.fromkeys(present, True))
    scheme = reference.detect(present)
    assert (told.id, told.stale_share) == (scheme.id, scheme.stale_share)
    assert told.counts_pins == scheme.pins
    assert told.zero_when_dying == (scheme.id in ("B", "C"))
    words = {
        "mapping is 1, index counts": "mapping == 1, counted in index",
        "mapping is 1, share counts": "mapping == 1, counted in share",
        "share counts": "mapping == NULL, counted in share",
    }
    assert told.shared == words.get(scheme.shared, "")
    for one, other in ((told, scheme), (told.drained(), scheme.drained())):
        for type_ in _zonedev.TYPES:
            compare_columns(one.columns(type_), other.of(type_))


def compare_columns(columns: dict[str, Any], counting: reference.Counting) -> None:
    assert columns["idle"] == (-1 if counting.idle is None else counting.idle)
    if counting.idle is None:
        return
    assert columns["mapped_base"] == counting.mapped
    assert columns["maps_take_refs"] == (counting.maps == "refs")
    assert columns["unassociated"] != counting.knows_file
    assert columns["entry_takes_ref"] == counting.entry_ref
    assert not columns["never_mapcount"] or counting.maps == "none"


def test_schemes() -> None:
    check_detection()
    for present in EVIDENCE.values():
        check_detection.hypothesis.inner_test(present)


# ---------------------------------------------------------------- three cases per rule


Pages = Callable[[Machine], bytes]


class Sample(NamedTuple):
    """A row's machine, a state that it names, the nearest that it does not, and what takes its ground."""

    letter: str
    type: str
    violating: Pages
    near: Pages
    options: dict[str, Any] = {}  # noqa: RUF012
    extra: tuple[str, ...] = ()
    without: Optional[dict[str, Any]] = None
    """Options of the Machine, or other evidence (extra), without which the row is not applicable; None: it
    needs nothing."""
    driver: Driver = SILENT
    files: Optional[Files] = None
    near_files: Optional[Files] = None
    """Where it is not the page that makes the near miss."""


def page(**words: Any) -> Pages:
    return lambda m: m.page(**words)


def filed(**words: Any) -> Pages:
    """With a file's mapping."""
    return lambda m: m.page(mapping=m.mapping, **words)


def anon(**words: Any) -> Pages:
    return lambda m: m.page(mapping=m.mapping | 1, **words)


def folio(order: int, shift: int = 0, **words: Any) -> Pages:
    """A folio, *shift* idle pages into the range."""
    return lambda m: m.page() * shift + m.folio(order, START + shift, **words)


def tail_of(back: int, **words: Any) -> Pages:
    """An idle page, and a tail that names the page *back* before itself."""
    return lambda m: m.page() + m.tail(m.memmap + (1 - back) * m.page_size | 1, **words)


def edited(pages: Pages, at: int, by: Pages) -> Pages:
    def make(m: Machine) -> bytes:
        data, size = pages(m), m.page_size
        return data[: at * size] + by(m) + data[(at + 1) * size :]

    return make


IN_USE = folio(3, refcount=1, maps=1, mapping=MAPPING)


def held_tail(m: Machine) -> bytes:
    tail = IN_USE(m)[2 * m.page_size : 3 * m.page_size]
    return edited(IN_USE, 2, lambda m: m.changed(tail, "_refcount", 1))(m)


def of_files(violating: Files, near: Files) -> Sample:
    """A page of which only the files tell whether it breaks the rule."""
    pages = filed(refcount=1)
    return Sample("H", "FS_DAX", pages, pages, files=violating, near_files=near)


NO_ORDER: dict[str, Any] = {"missing": ("order",)}
NO_SHARE: dict[str, Any] = {"missing": ("share",)}
# The first page of the range is the third of the device's file.
DEVICE: dict[str, Any] = {"dax_mapping": MAPPING, "index_bias": START - 2}
PINS = ("page.hpage_pinned_refcount",)
NO_PINS: dict[str, Any] = {"extra": ()}
SMALL_PMD: dict[str, Any] = {"layout": {"pmd_order": 3}}
HEADLESS = page(flags=("head",))
# Every page is free by the books of its driver.
FREE = Driver(frozenset(), frozenset(range(START, START + 8)))
HANDED_OUT = Driver(frozenset(range(START, START + 8)))
# Files that were all read: of a page at most one.
HERS = Entry(MAPPING, 0, START)
COW = ("dax_mapping_set_cow",)


def all_files(*entries: Entry, forsaken: tuple[int, ...] = ()) -> Files:
    return Files(entries, complete=True, forsaken=frozenset(forsaken))


NO_ENTRY, ONE_OWNER = all_files(), all_files(HERS)
TWO_OWNERS = all_files(HERS, Entry(SPACES, 0, START))
# More than are told apart.
EIGHT_OWNERS = all_files(*(Entry(SPACES, i, START) for i in range(8)))
LARGE_ENTRY = all_files(replace(HERS, order=3))
HELD_LOCK = all_files(replace(HERS, locked=True))
LOST_LOCK = all_files(replace(HERS, locked=True), forsaken=(START,))

# Per rule a sample for each of its rows, in the order of the table.
SAMPLES: dict[str, list[Sample]] = {
    "uninitialised": [
        Sample("H", "FS_DAX", lambda m: b"\xff" * m.page_size, lambda m: b"\0" * m.page_size)
    ],
    "wrong-zone": [
        Sample("H", "FS_DAX", page(zone=2), page(), without={"zone_known": False}),
    ],
    "wrong-pgmap": [Sample("E", "GENERIC", page(pgmap=2), page())],
    "core-mm-flags": [Sample("H", "PRIVATE", page(flags=("lru",)), page(flags=("dirty",)))],
    "bad-head": [
        Sample("H", "PRIVATE", tail_of(1), tail_of(1, refcount=1)),
        Sample("H", "PRIVATE", tail_of(1, refcount=1), tail_of(1)),
        Sample("H", "FS_DAX", edited(IN_USE, 7, page()), lambda m: IN_USE(m) + m.page(), SMALL_PMD),
    ],
    "wrong-order": [
        Sample("E", "GENERIC", folio(3), folio(2), {"vmemmap_shift": 2}, without=NO_ORDER),
        Sample("E", "FS_DAX", folio(3), page()),
        Sample("H", "FS_DAX", folio(2), folio(3), SMALL_PMD, without={"layout": {"pmd_order": 0}}),
        Sample("H", "PCI_P2PDMA", folio(1), page()),
        Sample("G", "PRIVATE", HEADLESS, page()),
        Sample("H", "PRIVATE", folio(4), folio(3), SMALL_PMD, without=NO_ORDER),
    ],
    "tail-refcount": [Sample("H", "FS_DAX", held_tail, IN_USE, SMALL_PMD)],
    "refcount-out-of-range": [
        Sample("H", "FS_DAX", filed(refcount=0x40000001), filed(refcount=0x40000000))
    ],
    "mapcount-out-of-range": [Sample("H", "FS_DAX", page(raw_mapcount=-2), page(raw_mapcount=-1))],
    "mapped-without-reference": [
        Sample("H", "FS_DAX", filed(refcount=0, maps=1), filed(refcount=1, maps=1))
    ],
    "refcount-below-mapcount": [
        Sample("H", "GENERIC", filed(refcount=2, maps=2), filed(refcount=3, maps=2))
    ],
    "refcount-below-idle": [
        Sample("E", "FS_DAX", filed(refcount=0), filed(refcount=1)),
        Sample("C", "PRIVATE", page(refcount=0), page(refcount=1)),
    ],
    "unaccounted-mapcount": [Sample("E", "FS_DAX", filed(refcount=1, maps=1), filed(refcount=1))],
    "wrong-mapping": [Sample("H", "FS_DAX", page(mapping=1), filed())],
    "mapped-without-association": [
        Sample(
            *("H", "FS_DAX", page(refcount=1, maps=1), page(refcount=1, maps=1, share=1)),
            without=NO_SHARE,
        )
    ],
    "shared-state": [
        Sample("E", "FS_DAX", page(mapping=1), page(mapping=1, share=1), without=NO_SHARE),
        Sample("H", "FS_DAX", page(share=1), page(), without=NO_SHARE, files=NO_ENTRY),
        Sample(
            *("D", "FS_DAX", page(mapping=1), page(mapping=1, share=1)),
            extra=COW,
            without={"missing": ("index",)},
        ),
        Sample("G", "FS_DAX", page(share=1), page(), without=NO_SHARE, files=NO_ENTRY),
    ],
    "multi-owner-unshared": [
        Sample("H", "FS_DAX", filed(refcount=1), page(refcount=1, share=2), files=TWO_OWNERS),
        Sample("D", "FS_DAX", filed(), page(mapping=0x2000), extra=COW, files=TWO_OWNERS),
    ],
    "entry-page-mismatch": [
        Sample("H", "FS_DAX", page(refcount=1), filed(refcount=1), files=ONE_OWNER),
        Sample("D", "FS_DAX", page(), filed(), extra=COW, files=ONE_OWNER),
    ],
    "mapping-without-entry": [
        of_files(NO_ENTRY, ONE_OWNER),
    ],
    "share-vs-entries": [
        Sample(
            *("H", "FS_DAX", page(refcount=1, share=3), page(refcount=1, share=2)),
            without=NO_SHARE,
            files=TWO_OWNERS,
        )
    ],
    "entry-order-vs-folio": [
        Sample(
            *(
                "H",
                "FS_DAX",
                lambda m: filed(refcount=1)(m) * 8,
                folio(3, refcount=1, mapping=MAPPING),
            ),
            SMALL_PMD,
            without=NO_ORDER | SMALL_PMD,
            files=LARGE_ENTRY,
        )
    ],
    "dax-lock-stuck": [
        of_files(LOST_LOCK, HELD_LOCK),
        of_files(HELD_LOCK, ONE_OWNER),
    ],
    "pinned-private": [
        Sample(
            *("C", "PRIVATE", anon(refcount=1026, maps=1), anon(refcount=1025, maps=1)),
            extra=PINS,
            without=NO_PINS,
        )
    ],
    "pinned-after-truncate": [
        Sample("H", "FS_DAX", page(refcount=1024), page(refcount=1023), without=NO_SHARE),
        Sample(
            "C", "FS_DAX", page(refcount=1025), page(refcount=1024), extra=PINS, without=NO_PINS
        ),
    ],
    "reference-on-free-folio": [
        Sample("H", "FS_DAX", page(refcount=1), page(refcount=1, share=1), without=NO_SHARE),
        Sample("E", "PRIVATE", page(refcount=1), page(refcount=1, flags=("locked",))),
        Sample("G", "PCI_P2PDMA", page(refcount=1), page(refcount=1, maps=1)),
        Sample("G", "PCI_P2PDMA", page(refcount=1), page(), driver=HANDED_OUT),
        Sample("G", "FS_DAX", page(refcount=1, share=1), page(refcount=0, share=1)),
    ],
    "free-list-nonidle": [
        Sample("E", "COHERENT", page(refcount=1), page(), driver=FREE),
        Sample("D", "PRIVATE", page(refcount=0), page(refcount=1), driver=FREE),
    ],
    "pool-vs-pages": [
        Sample("H", "PCI_P2PDMA", page(refcount=1, maps=1), page(), driver=FREE),
    ],
    "stale-mapping": [
        Sample("E", "PRIVATE", anon(refcount=0), anon(refcount=1, maps=1)),
        Sample("F2", "FS_DAX", filed(refcount=0), filed(refcount=1)),
        Sample("H", "PCI_P2PDMA", filed(), page()),
        Sample("D", "PRIVATE", anon(refcount=1), page(refcount=1)),
    ],
    "reference-outlives-mapping": [
        Sample("E", "FS_DAX", page(refcount=2), filed(refcount=2)),
        Sample("H", "GENERIC", page(refcount=2), filed(refcount=2)),
    ],
    "gen-mapping": [
        Sample(
            *("E", "GENERIC", filed(share=3), filed(share=2), DEVICE),
            without={"missing": ("index",)},
        )
    ],
    "wrong-node": [
        Sample("H", "FS_DAX", page(node=2), page(), without={"layout": {"node": (0, 0)}})
    ],
    "not-reserved": [
        Sample("H", "FS_DAX", page(reserved=False), page(), without={"missing": ("PG_reserved",)})
    ],
    "dirty-free-state": [
        Sample("H", "PRIVATE", page(flags=("writeback",)), page(flags=("dirty",)))
    ],
    "hwpoison": [
        Sample("H", "GENERIC", filed(refcount=2, flags=("hwpoison",)), page(flags=("hwpoison",))),
        Sample("H", "FS_DAX", page(flags=("hwpoison",)), page()),
    ],
    "free-or-allocated": [Sample("D", "PRIVATE", page(), anon(refcount=1, maps=1))],
    "dma-pinned": [
        Sample(
            "C", "FS_DAX", filed(refcount=1025), filed(refcount=1024), extra=PINS, without=NO_PINS
        )
    ],
    "zdd": [
        Sample(
            *("H", "PRIVATE", anon(refcount=1, maps=1), anon(refcount=1, maps=1, data=1)),
            {"driver_data": True},
            without={"missing": ("zone_device_data",)},
        )
    ],
    "held-without-map": [
        Sample("H", "FS_DAX", filed(refcount=2, maps=1), filed(refcount=1, maps=1)),
        Sample("H", "GENERIC", filed(refcount=2), filed(refcount=2, maps=1)),
        Sample("G", "PCI_P2PDMA", page(refcount=2, maps=1), page(refcount=1, maps=1)),
    ],
}

PAGE_ROWS = [(i, row) for i, row in enumerate(ROWS) if is_of_pages(row)]


def sample_of(i: int) -> Sample:
    """The sample of a row."""
    earlier = [j for j, row in PAGE_ROWS if j < i and row["id"] == ROWS[i]["id"]]
    return SAMPLES[ROWS[i]["id"]][len(earlier)]


def test_every_row_has_its_sample() -> None:
    assert {id_: len(samples) for id_, samples in SAMPLES.items()} == Counter(
        row["id"] for _, row in PAGE_ROWS
    )
    for i, row in PAGE_ROWS:
        sample = sample_of(i)
        assert f"MEMORY_DEVICE_{sample.type}" in row["types"], row["id"]
        assert sample.letter in row["schemes"], row["id"]


ids = [f"{i}-{row['id']}" for i, row in PAGE_ROWS]


def sampled(i: int, **more: Any) -> tuple[Sample, Under]:
    sample = sample_of(i)
    options = {**sample.options, **more}
    extra = options.pop("extra", sample.extra)
    return sample, under(sample.letter, sample.type, *extra, **options)


@pytest.mark.parametrize("i", [i for i, _ in PAGE_ROWS], ids=ids)
def test_violating(i: int) -> None:
    sample, case = sampled(i)
    pages = pages_of(sample.violating(case.machine), case.machine)
    assert i in rows_of(compare(case, pages, sample.driver, sample.files))
    assert _zonedev.why_not(case.machine.layout, case.machine.scheme)[i] is None


@pytest.mark.parametrize(
    ("share", "fires"), [(2, True), (6, True), (7, False), (8, False), (9, False)]
)
def test_owners_that_are_too_many_to_tell_apart(share: int, fires: bool) -> None:
    case = under("H", "FS_DAX")
    pages = pages_of(page(refcount=1, share=share)(case.machine), case.machine)
    (row,) = [i for i, row in PAGE_ROWS if row["id"] == "share-vs-entries"]
    assert (row in rows_of(compare(case, pages, files=EIGHT_OWNERS))) == fires


@pytest.mark.parametrize("i", [i for i, _ in PAGE_ROWS], ids=ids)
def test_near_miss(i: int) -> None:
    sample, case = sampled(i)
    pages = pages_of(sample.near(case.machine), case.machine)
    assert i not in rows_of(compare(case, pages, sample.driver, sample.near_files or sample.files))
    if sample.driver is FREE or sample.files:
        # What driver and files say nothing of breaks no rule on what they say.
        assert i not in rows_of(
            compare(case, pages_of(sample.violating(case.machine), case.machine))
        )


@pytest.mark.parametrize("i", [i for i, _ in PAGE_ROWS], ids=ids)
def test_unreadable_page(i: int) -> None:
    sample, case = sampled(i)
    pages = pages_of(sample.violating(case.machine), case.machine)
    found = compare(case, pages, sample.driver, sample.files)
    hit_pages = [v.pfn - START for v in found if v.finding is not None]
    assert hit_pages
    for lost in ("unreadable", "not-captured", bytes(case.machine.page_size)):
        contents = [lost if j in hit_pages else p for j, p in enumerate(pages)]
        verdicts = compare(case, contents, sample.driver, sample.files)
        assert i not in rows_of(verdicts)
        class_ = lost if isinstance(lost, str) else "not-captured"
        assert {verdicts[j].class_ for j in hit_pages} == {class_}


@pytest.mark.parametrize("i", [i for i, _ in PAGE_ROWS], ids=ids)
def test_missing_member(i: int) -> None:
    """A row that needs something is not applicable without it, and says so; others never mind."""
    sample = sample_of(i)
    _, case = sampled(i, **(sample.without or {"missing": unneeded(i)}))
    pages = pages_of(
        sample.violating(Machine(sample.letter, sample.type, *sample.extra, **sample.options)),
        case.machine,
    )
    verdicts = compare(case, pages, sample.driver, sample.files)
    why = _zonedev.why_not(case.machine.layout, case.machine.scheme)[i]
    assert (why is None) == (sample.without is None)
    assert (i in rows_of(verdicts)) == (sample.without is None)


def unneeded(i: int) -> tuple[str, ...]:
    """Members that the pages of a row's sample can do without."""
    assert not ROWS[i]["needs"], ROWS[i]["id"]
    needed = {
        "dirty-free-state": (),
        "reference-on-free-folio": ("share",) if sample_of(i).letter == "G" else (),
    }.get(ROWS[i]["id"], ())
    compound = ROWS[i]["id"] in ("bad-head", "tail-refcount", "wrong-order")
    keep = {*needed, *(("order", "_large_mapcount") if compound else ())}
    return tuple(name for name in OPTIONAL_MEMBERS if name not in keep)


# ---------------------------------------------------------------- deduplicated memmap


@PROFILE
@given(st.integers(0, 1 << 32), st.sampled_from(["E", "H"]))
def check_deduplicated(seed: int, letter: str) -> None:
    """Two compound pages of 64, whose memmap has two pages of 16 each of its own."""
    case = under(
        *(letter, "GENERIC"),
        vmemmap_shift=6,
        deduplicated=True,
        layout={"page_shift": 10, "pmd_order": 3},
    )
    m = case.machine
    pages = pages_of(m.folio(6) + m.folio(6, START + 64), m)
    rng = Random(seed)
    for _ in range(rng.randrange(4)):
        at, state, everywhere = rng.randrange(128), random_state(rng), rng.random() < 0.5
        # A write to a struct page shows wherever its memory does.
        places = range(64 * (at // 64) + at % 16, 64 * (at // 64) + 64, 16)
        for place in places if everywhere and at % 64 >= 16 else [at]:
            content = pages[place]
            assert isinstance(content, bytes)
            count = state.words.get("refcount", (True, 0))[1]
            pages[place] = m.changed(state.damage(content), "_refcount", count)
    if rng.random() < 0.3:
        pages[rng.randrange(128)] = rng.choice([bytes(m.page_size), "unreadable"])
    compare(case, pages)


def test_deduplicated_memmap() -> None:
    check_deduplicated()


def test_aliases_are_skipped() -> None:
    case = under(
        *("H", "GENERIC"),
        vmemmap_shift=6,
        deduplicated=True,
        layout={"page_shift": 10},
    )
    pages = pages_of(case.machine.folio(6), case.machine)
    classes = Counter(verdict.class_ for verdict in compare(case, pages))
    assert classes == {"idle": 32, "skipped": 32}


# ---------------------------------------------------------------- real pages


def read_pages(vmcore: Vmcore, range_: PfnRange) -> list[Content]:
    """The first struct pages of a range."""
    layout = vmcore.kernel.layout
    count = min(range_.end_pfn - range_.first_pfn, 1 << 15)
    contents: list[Content] = []
    for piece in read_memmap(vmcore.prog, layout.page_address(range_.first_pfn), count, layout):
        if isinstance(piece, Hole):
            contents += [piece.class_] * piece.pages
        else:
            size = layout.page_size
            contents += [piece.data[i : i + size] for i in range(0, len(piece.data), size)]
    return contents


def windows(contents: list[Content], layout: reference.Layout) -> Iterator[tuple[int, int]]:
    """[first, end) around each distinct struct page, from its head to two pages behind it."""
    seen: set[Content] = set()
    head = 0
    for i, content in enumerate(contents):
        if isinstance(content, bytes) and (layout.load(content, "pgmap") or 0) & 1 == 0:
            head = i
        if content not in seen and len(seen) < REAL_PAGES:
            yield (head if i - head < WINDOW else i), i + 3
        seen.add(content)


@pytest.mark.parametrize("name", NAMES)
def test_pages_of_real_kernels(name: str) -> None:
    vmcore = open_vmcore(name)
    kernel = vmcore.kernel
    places = {"zone": kernel.layout.zone, "node": kernel.layout.node}
    layout = reference.Layout(**kernel.layout.spec, **places)
    probes = _zonedev.probes()
    scheme = reference.detect({probe for probe, kind in probes if _ASK[kind](vmcore.prog, probe)})
    assert scheme.id == kernel.scheme.id
    compared = 0
    for pagemap in kernel.pagemaps:
        spec = pagemap_spec(pagemap)
        for pfns in pagemap.ranges:
            contents = read_pages(vmcore, pfns)
            for first, end in windows(contents, layout):
                pages = contents[first:end]
                pfn = pfns.first_pfn + first
                bias = pagemap.index_bias(pfn)
                range_ = Range(pfn, pfn + len(pages), kernel.layout.page_address(pfn), bias)
                verdicts = reference.scan(layout, scheme, reference.Pagemap(**spec), range_, pages)
                assert side_of_c(
                    kernel.layout.layout, kernel.scheme, spec, range_, pages
                ) == side_of_reference(verdicts)
                compared += 1
    assert compared or not kernel.pagemaps
