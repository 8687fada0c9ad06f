# SPDX-License-Identifier: LGPL-2.1-or-later
"""Rules on whole pagemaps, calibration, and second samples of live kernels.

Facts that no bundled core shows (a dying pagemap, a lost reference) are made up here and say so by
being in this file.
"""

from __future__ import annotations

import inspect
import time
from dataclasses import replace
from typing import Any, Optional

import pytest
from conftest import fresh_vmcore, lay_over, open_vmcore
from drgn import FaultError
from drgn.helpers.linux.mmzone import pfn_to_section
from pages import scheme

from zonedev.audit import audit
from zonedev.cells import CellPlan, Cells
from zonedev.commands import build_parser
from zonedev.kernel import facts, layout
from zonedev.kernel.by_pages import Found
from zonedev.kernel.facts import Kernel
from zonedev.kernel.percpu_ref import read_percpu_ref
from zonedev.kernel.registry import overlap_problems
from zonedev.kernel.scheme import detect_scheme
from zonedev.kernel.sections import Sections
from zonedev.kernel.vmemmap import classify_fault
from zonedev.live import (
    SAMPLES,
    Confirmation,
    Pace,
    confirm_pagemaps,
    merge_findings,
)
from zonedev.model import CLASSES, Finding, Pagemap, PagemapResult, PfnRange, PgmapRef, SchemeInfo
from zonedev.pagemap_rules import Case, Unjudged, contradicted_types, judge_pagemap
from zonedev.scanner import Counting, Scanner, scan_pagemap

PAGES = 1024


def pagemap(type_: str = "FS_DAX", **changes: Any) -> Pagemap:
    made = Pagemap(
        address=0xFFFF888101234500,
        type=f"MEMORY_DEVICE_{type_}",
        device="pmem0",
        resource=None,
        ranges=[PfnRange(0x100000, 0x100000 + PAGES, 0x100000)],
        ref=PgmapRef("live", 1 + PAGES),
        vmemmap_shift=0,
        altmap=None,
        owner=0xFFFF888100000000,
        ops="some_ops",
        ops_members={"free": True, "migrate_to_ram": True},
        indices=[0x100000],
        nr_range=1,
    )
    return replace(made, **changes)


def judge(
    pgmap: Pagemap, letter: str = "H", coverage: Optional[list[str]] = None, **result: Any
) -> list[tuple[str, str]]:
    facts = PagemapResult(pgmap, 0)
    for key, value in result.items():
        setattr(facts, key, value)
    case = Case(facts, scheme(letter), 12, coverage or [])
    return [(f.rule, f.severity) for f in judge_pagemap(case, "error")[0]]


def test_a_healthy_pagemap_is_quiet() -> None:
    assert judge(pagemap()) == []
    private = pagemap("PRIVATE", ref=PgmapRef("live", 11))
    assert judge(private, pages_referenced=10) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "unknown (9)"},
        {"nr_range": 2, "altmap": {"reserve": 2}, "ranges": [PfnRange(0, 512, 0)] * 2},
        {"nr_range": 3},
        {"vmemmap_shift": 9},
        {"type": "MEMORY_DEVICE_GENERIC", "vmemmap_shift": 40},
        {"altmap": {"reserve": 1000, "free": 24, "alloc": 0}},
        {"altmap": {"reserve": 2, "free": 30, "alloc": 31}},
        {"ranges": [PfnRange(0x100001, 0x100401, 0x100001)]},
        {"type": "MEMORY_DEVICE_PRIVATE", "owner": 0, "ref": PgmapRef("live", 1)},
        {"type": "MEMORY_DEVICE_PRIVATE", "ops": None, "ref": PgmapRef("live", 1)},
        {
            "type": "MEMORY_DEVICE_PRIVATE",
            "ops_members": {"free": True},
            "ref": PgmapRef("live", 1),
        },
    ],
)
def test_pagemaps_that_contradict_themselves(changes: dict[str, Any]) -> None:
    assert ("pgmap-sanity", "error") in judge(pagemap(**changes))


def test_coherent_memory_needs_no_migrate_to_ram() -> None:
    coherent = pagemap("COHERENT", ops_members={"free": True}, ref=PgmapRef("live", 1))
    assert judge(coherent) == []


def test_a_pagemap_that_is_being_added_is_information() -> None:
    assert ("pgmap-sanity", "info") in judge(pagemap(nr_range=0, ranges=[]))


@pytest.mark.parametrize(
    ("ref", "fires"),
    [
        (PgmapRef("dead", 0), "error"),
        # Removal passes through this state.
        (PgmapRef("dying", 0), "warning"),
        (PgmapRef("dying", 3), None),
        (PgmapRef("live", 1 + PAGES), None),
    ],
)
def test_dead_pagemaps_must_not_be_registered(ref: PgmapRef, fires: Optional[str]) -> None:
    assert dict(judge(pagemap(ref=ref))).get("dead-in-registry") == fires


def test_registry_coverage() -> None:
    assert judge(pagemap(), coverage=["pfn 0x1 loads nothing"]) == [("registry-coverage", "error")]
    a, b = pagemap(), pagemap(address=1)
    assert list(overlap_problems([a, b])) in ([1], [a.address])
    assert overlap_problems([a, pagemap(ranges=[PfnRange(0x100400, 0x100800, 0x100400)])]) == {}


def test_references_below_what_the_pages_hold() -> None:
    low = pagemap(ref=PgmapRef("live", PAGES))
    assert judge(low) == [("ref-below-bias", "error")]
    # In scheme C the last put of a page gives its reference back: no such rule.
    assert judge(low, "C") == []
    # Shared with a block queue: a lower bound says nothing.
    assert judge(pagemap(ref=PgmapRef("live", 5, True))) == []
    p2p = pagemap("PCI_P2PDMA", ref=PgmapRef("live", 1 + PAGES))
    assert judge(p2p, pages_mapped=0) == []
    assert judge(p2p, pages_mapped=1) == [("ref-below-bias", "error")]
    compound = pagemap("GENERIC", vmemmap_shift=9, ref=PgmapRef("live", 3))
    assert judge(compound) == []


def test_dying_pagemaps_with_busy_pages() -> None:
    dying = pagemap(ref=PgmapRef("dying", 7))
    assert judge(dying, heads_above_idle=2) == [("dying-busy", "error")]
    assert judge(dying, heads_above_idle=0) == []


@pytest.mark.parametrize(
    ("letter", "type_", "waits"),
    [
        ("A", "FS_DAX", True),
        ("B", "GENERIC", True),
        ("C", "FS_DAX", True),
        ("D", "PRIVATE", False),
        ("D", "FS_DAX", False),
        ("E", "FS_DAX", False),
        ("E", "PRIVATE", True),
        ("F2", "FS_DAX", True),
        ("H", "PCI_P2PDMA", True),
    ],
)
def test_what_removal_waits_for(letter: str, type_: str, waits: bool) -> None:
    facts = PagemapResult(
        pagemap(type_, ref=PgmapRef("dying", 7), drained=True), 0, heads_above_idle=2
    )
    found, _ = judge_pagemap(Case(facts, scheme(letter), 12, []), "error")
    (busy,) = [f for f in found if f.rule == "dying-busy"]
    assert ("removal waits for them" in busy.detail) == waits


def test_what_removal_has_put_is_not_held() -> None:
    """In B and C removal puts each page's first reference, page after page, and then waits."""
    dying = pagemap(ref=PgmapRef("dying", 3))
    assert judge(dying, "B", refcounts={1: 1024}) == [("dying-busy", "warning")]
    assert judge(dying, "H", refcounts={0: 1024}) == []
    drained = pagemap(ref=PgmapRef("dying", 3), drained=True)
    assert judge(drained, "B", refcounts={0: 1021, 1: 3}, heads_above_idle=3) == [
        ("dying-busy", "error")
    ]
    assert judge(pagemap(ref=PgmapRef("dying", 0), drained=True), "B", refcounts={0: 1024}) == [
        ("dead-in-registry", "warning")
    ]


def test_references_of_old_pages() -> None:
    # A: one for every reference beyond a page's first.  A request queue may hold more, never less.
    held = {1: 1000, 2: 20, 5: 4}
    assert judge(pagemap(ref=PgmapRef("live", 37, True)), "A", refcounts=held) == []
    assert judge(pagemap(ref=PgmapRef("live", 99, True)), "A", refcounts=held) == []
    lost = pagemap(ref=PgmapRef("live", 36, True))
    assert judge(lost, "A", refcounts=held) == [("ref-versus-pages", "warning")]
    # B: one for every page that is not at 0.
    assert judge(pagemap(ref=PgmapRef("live", 1 + PAGES, True)), "B", pages_referenced=PAGES) == []
    low = pagemap("GENERIC", ref=PgmapRef("live", PAGES))
    assert judge(low, "B", pages_referenced=PAGES) == [("ref-versus-pages", "warning")]
    assert judge(pagemap(ref=PgmapRef("live", None)), "B", pages_referenced=PAGES) == []


def test_private_pages_of_scheme_d_hold_references_in_use_or_not() -> None:
    private = pagemap("PRIVATE", ref=PgmapRef("live", 1 + PAGES))
    assert judge(private, "D") == []
    low = pagemap("PRIVATE", ref=PgmapRef("live", PAGES))
    assert judge(low, "D") == [("ref-below-bias", "error")]


def test_private_references_equal_pages_in_use() -> None:
    private = pagemap("PRIVATE", ref=PgmapRef("live", 12))
    assert judge(private, pages_referenced=10) == [("ref-versus-pages", "warning")]
    # Not every page was read: the sum says nothing.
    lost = dict.fromkeys(("idle", "busy", "violation", "unreadable", "skipped"), 0)
    assert judge(private, pages_referenced=10, classes={**lost, "not-captured": 1}) == []


def test_rules_that_cannot_be_applied_say_so() -> None:
    unknown = pagemap("PRIVATE", ref=PgmapRef("live", None))
    case = Case(PagemapResult(unknown, 0), scheme("H"), 12, [])
    assert ("ref-versus-pages", "its ref is not exact, or cannot be read") in judge_pagemap(
        case, "error"
    )[1]


def test_compound_pages_hold_one_reference_each() -> None:
    # 5.17: one reference per compound page.
    devdax = pagemap("GENERIC", vmemmap_shift=9, ref=PgmapRef("live", 3))
    assert judge(devdax, "C", pages_referenced=1024) == []
    assert judge(devdax, "C", pages_referenced=3 * 512) == [("ref-versus-pages", "warning")]


def test_unreadable_memmap_is_named_with_its_reason() -> None:
    assert judge(pagemap(), reasons={"the memory is not in the dump": 4}) == [
        ("memmap-unreadable", "info")
    ]


@pytest.mark.parametrize(
    ("message", "class_"),
    [
        ("could not find physical memory segment", "not-captured"),
        ("could not read memory from kdump: Excluded page", "not-captured"),
        ("could not read memory from kdump: Out-of-bounds PFN", "not-captured"),
        ("could not read memory from kdump: Page not found", "not-captured"),
        ("address is not mapped", "unreadable"),
        ("something else", "unreadable"),
    ],
)
def test_classes_of_failed_reads(message: str, class_: str) -> None:
    from drgn import FaultError

    assert classify_fault(FaultError(message, 0x1000))[0] == class_
    assert classify_fault(OSError("I/O error"))[0] == "unreadable"


# ---------------------------------------------------------------- calibration


def use_scheme(monkeypatch: pytest.MonkeyPatch, letter: str) -> None:
    def detect(prog: Any) -> Any:
        _, info = detect_scheme(prog)
        made = scheme(letter)
        idle = {type_: made.idle(type_) for type_ in info.idle}
        return made, SchemeInfo(made.id, made.title, made.confidence, info.evidence, idle)

    monkeypatch.setattr(facts, "detect_scheme", detect)


def test_a_wrong_scheme_is_one_line_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    prog = open_vmcore("7.2-nvdimm").prog
    use_scheme(monkeypatch, "E")
    result = audit(prog, types=["fs_dax"])
    assert {f.rule for f in result.findings if f.severity == "warning"} >= {"idle-count-mismatch"}
    assert not [f for f in result.findings if f.severity == "error"]
    assert not [f for f in result.findings if f.rule == "refcount-below-idle"]
    assert result.verdict == "incomplete"
    assert result.scheme.calibrated and "look idle at 0" in result.scheme.calibrated[0]


def test_an_unknown_scheme_is_calibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = [(open_vmcore("7.2-nvdimm").prog, 0), (open_vmcore("6.1-nvdimm").prog, 1)]
    use_scheme(monkeypatch, "unknown")
    for prog, idle in cores:
        result = audit(prog)
        by_type = {p.pagemap.type: p.idle_refcount for p in result.pagemaps}
        assert by_type == {"MEMORY_DEVICE_FS_DAX": idle, "MEMORY_DEVICE_GENERIC": 1}
        assert result.verdict == "incomplete"
        assert result.scheme.confidence == "low"
        assert not [f for f in result.findings if f.severity == "error"]


def test_a_leak_is_no_other_scheme() -> None:
    few = PagemapResult(pagemap(), 0)
    few.idle_looking = {"0": 1, "1": 3, "other": 0}
    few.refcounts = {0: 1, 1: 1000}
    assert contradicted_types([few], scheme("H")) == {}
    most = PagemapResult(pagemap(), 0)
    most.idle_looking = {"0": 0, "1": 900, "other": 0}
    most.refcounts = {0: 0, 1: 1000}
    assert contradicted_types([most], scheme("H")) == {"MEMORY_DEVICE_FS_DAX": (1, 90)}
    # The pages of a dying pagemap may rest at 0 in scheme C.
    dying = PagemapResult(pagemap(ref=PgmapRef("dying", 5)), 1)
    dying.idle_looking = {"0": 1000, "1": 0, "other": 0}
    dying.refcounts = {0: 1000}
    assert contradicted_types([dying], scheme("C")) == {}


def test_a_type_that_the_scheme_does_not_know_is_calibrated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prog = open_vmcore("7.2-p2p-hmm").prog
    use_scheme(monkeypatch, "B")
    result = audit(prog, types=["coherent"])
    assert {p.idle_refcount for p in result.pagemaps} == {0}
    assert result.verdict == "incomplete"
    assert "MEMORY_DEVICE_COHERENT idles at 0" in result.scheme.calibrated


def test_looking_at_one_pagemap_judges_it_as_looking_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    prog = open_vmcore("7.2-nvdimm").prog
    use_scheme(monkeypatch, "E")
    whole = audit(prog, types=["fs_dax"])
    one = audit(prog, pgmaps=["pmem0"])
    assert [p.pagemap.device for p in one.pagemaps] == ["pmem0"]
    assert one.pagemaps[0].classes == whole.pagemaps[0].classes
    assert one.verdict == whole.verdict == "incomplete"


# ---------------------------------------------------------------- live kernels


def wrong_at(cells: Cells, finding: Finding) -> int:
    """Pages in violation in the cells that a finding's folio has pages of."""
    first = (finding.folio_pfn - cells.start_pfn) >> cells.shift
    last = (finding.folio_pfn + finding.folio_pages - 1 - cells.start_pfn) >> cells.shift
    at = CLASSES.index("violation")
    return sum(cells.classes(i)[at] for i in range(first, last + 1))


@pytest.mark.parametrize("which", ["reference-on-free-folio", "tail-refcount"])
def test_findings_that_change_between_samples_are_transient(which: str) -> None:
    vmcore = open_vmcore("7.2-nvdimm-leak")
    pgmap = vmcore.kernel.pagemaps[0]
    counting = Counting.of(CellPlan(1 << 12), pgmap, [pgmap])
    scanned = scan_pagemap(vmcore.kernel, pgmap, vmcore.kernel.scheme, counting=counting)
    (cells,) = scanned.result.cells
    before = dict(scanned.result.classes)
    assert cells.sums() == before
    scanner = Scanner(vmcore.kernel, [pgmap])
    assert Confirmation(scanner, scanned).again() == []
    assert scanned.result.classes == before
    # As if one of them had looked otherwise when it was scanned.
    i = next(i for i, f in enumerate(scanned.findings) if f.rule == which)
    changed = replace(scanned.findings[i], raw=bytes(64), agreed=1)
    scanned.findings[i] = changed
    wrong = wrong_at(cells, changed)
    confirmation = Confirmation(scanner, scanned)
    assert confirmation.again() == []
    assert confirmation.finish() == [changed]
    assert changed not in scanned.findings
    assert [f.rule for f in scanned.findings].count(which) == 0
    lost = before["violation"] - scanned.result.classes["violation"]
    assert lost == changed.folio_pages if changed.count == 1 else lost > 0
    assert sum(scanned.result.classes.values()) == pgmap.pages
    assert cells.sums() == scanned.result.classes
    assert wrong_at(cells, changed) == wrong - lost
    assert scanned.result.severities["error"] == 4 - changed.pages


def test_a_page_beside_a_head_that_is_gone_is_transient() -> None:
    """The page itself never changed: a folio spanned it when the pages before it were read."""
    vmcore = open_vmcore("7.2-nvdimm-leak")
    pgmap = vmcore.kernel.pagemaps[0]
    scanned = scan_pagemap(vmcore.kernel, pgmap, vmcore.kernel.scheme)
    pfn = pgmap.ranges[0].end_pfn - 1
    raw = vmcore.prog.read(vmcore.kernel.layout.page_address(pfn), 64)
    torn = Finding("bad-head", "error", pgmap.address, pfn=pfn, folio_pfn=pfn, folio_pages=1)
    scanned.findings.append(replace(torn, raw=raw))
    confirmation = Confirmation(Scanner(vmcore.kernel, [pgmap]), scanned)
    assert [f.rule for f in confirmation.again()] == ["bad-head"]


def test_an_error_that_stands_is_never_booked_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head and a tail of one folio: whichever goes, the folio stays a violation."""
    vmcore = open_vmcore("7.2-nvdimm-leak")
    pgmap = vmcore.kernel.pagemaps[0]
    for stays in ("head", "tail"):
        scanned = scan_pagemap(vmcore.kernel, pgmap, vmcore.kernel.scheme)
        (tail,) = [f for f in scanned.findings if f.rule == "tail-refcount"]
        head = replace(
            tail, rule="wrong-zone", pfn=tail.folio_pfn, pages=512, order=9, raw=bytes(64)
        )
        scanned.findings = [head, tail]
        now = head if stays == "head" else tail
        monkeypatch.setattr(Scanner, "look", lambda *args, now=now: [now])
        assert len(Confirmation(Scanner(vmcore.kernel, [pgmap]), scanned).again()) == 1
        assert scanned.result.severities["error"] > 0
        assert scanned.result.classes["violation"] >= 512


class Clock:
    """Stands for time.sleep(); from the sleep number *after* on, every page is right."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, after: int = 99) -> None:
        self.slept: list[float] = []
        self.after = after
        look = Scanner.look
        monkeypatch.setattr(Kernel, "live", True)
        monkeypatch.setattr(time, "sleep", self.slept.append)
        monkeypatch.setattr(
            Scanner, "look", lambda *args: look(*args) if len(self.slept) < self.after else []
        )


def test_samples_of_a_live_kernel_reach_over_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that is preempted in a transient state keeps it for longer than one short wait."""
    clock = Clock(monkeypatch)
    result = audit(open_vmcore("7.2-nvdimm-leak").prog)
    assert clock.slept == [0.02] * (SAMPLES - 1)
    assert sum(clock.slept) > 1
    assert result.verdict == "violations"
    assert {f.samples for f in result.findings if f.severity != "info"} == {SAMPLES}
    assert not result.transients
    # What is sound is not waited for.
    clock.slept.clear()
    assert audit(open_vmcore("7.2-nvdimm").prog).verdict == "clean"
    assert clock.slept == []


@pytest.mark.parametrize("after", [1, 3, 6, SAMPLES - 1])
def test_a_page_that_changes_in_any_sample_is_transient(
    monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    clock = Clock(monkeypatch, after=after)
    result = audit(open_vmcore("7.2-nvdimm-leak").prog)
    assert {f.samples for f in result.transients} == {after}
    assert not [f for f in result.findings if f.severity != "info"]
    assert result.verdict == "clean"
    # Nothing alarming is left to wait for.
    assert len(clock.slept) == after


def in_use(words: list[bytes]) -> Any:
    """A look at a page that is as bad each time, but changes its words."""
    left = iter(words)
    look = Scanner.look

    def changing(*args: Any) -> list[Finding]:
        raw = next(left)
        return [replace(f, raw=raw or f.raw) for f in look(*args)]

    return changing


@pytest.mark.parametrize(
    ("words", "agreed"),
    [
        # the first ones come again; none does; others come again
        ([b"1", b"2", b"", b"3"], 2),
        ([b"1", b"2", b"3", b"4"], None),
        ([b"1", b"2", b"2", b"3", b"2"], 3),
    ],
)
def test_a_page_in_use_that_is_always_as_bad_stands(
    monkeypatch: pytest.MonkeyPatch, words: list[bytes], agreed: Optional[int]
) -> None:
    vmcore = open_vmcore("7.2-nvdimm-leak")
    pgmap = vmcore.kernel.pagemaps[0]
    scanned = scan_pagemap(vmcore.kernel, pgmap, vmcore.kernel.scheme)
    scanned.findings = [f for f in scanned.findings if f.rule == "tail-refcount"]
    confirmation = Confirmation(Scanner(vmcore.kernel, [pgmap]), scanned)
    monkeypatch.setattr(Scanner, "look", in_use(words))
    for _ in words:
        assert confirmation.again() == []
    dropped = confirmation.finish()
    assert [f.agreed for f in scanned.findings] == ([agreed] if agreed else [])
    assert [f.samples for f in scanned.findings + dropped] == [1 + len(words)]


def test_where_states_come_and_go_samples_are_four_times_as_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    pace = Pace(20, 8)
    assert [pace.again(restless=False) for _ in range(8)] == [True] * 7 + [False]
    assert [pace.again(restless=True) for _ in range(25)] == [True] * 24 + [False]
    assert pace.taken == 32
    assert slept == [0.02] * 31


def test_slow_samples_need_not_be_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass over all suspects of a large device may take seconds."""
    now = iter(range(0, 1000, 3))
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    pace = Pace(20, 64)
    while pace.again(restless=False):
        pass
    assert pace.taken == 4


def test_expensive_looks_are_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    pace = Pace(0, 64)
    seldom = [pace.taken for _ in range(63) if pace.again(restless=False) and pace.seldom]
    assert seldom == [2, 3, 5, 9, 17, 33]


def test_the_program_and_the_api_take_as_many_samples() -> None:
    args = build_parser("zonedev", True).parse_args(["audit", "-k"])
    assert args.samples == inspect.signature(audit).parameters["samples"].default == SAMPLES


def test_pagemap_findings_must_say_the_same_twice() -> None:
    low = Finding("ref-below-bias", "error", 1, detail="ref is 5, at least 9 are held")
    seen = Finding("memmap-unreadable", "info", 1, detail="4 struct pages")
    other = replace(low, detail="ref is 6, at least 9 are held")
    assert confirm_pagemaps([low, seen], lambda: [low]) == ([low, seen], [])
    assert confirm_pagemaps([low, seen], lambda: [other]) == ([seen], [low])
    # A removal that waits, and whose pages go one by one, is still a removal that waits.
    dying = Finding("dying-busy", "error", 1, detail="10 folios are held")
    fewer = replace(dying, detail="9 folios are held")
    assert confirm_pagemaps([dying], lambda: [fewer]) == ([dying], [])
    assert confirm_pagemaps([seen], lambda: 1 // 0) == ([seen], [])  # type: ignore[arg-type,return-value]


def test_folios_are_joined_to_runs() -> None:
    one = Finding("held-without-map", "info", 1, pfn=8, refcount=1, mapcount=0)
    later = [replace(one, pfn=9), replace(one, pfn=11), replace(one, pfn=12, refcount=2)]
    runs = merge_findings([one, *later])
    assert [(f.pfn, f.count) for f in runs] == [(8, 2), (11, 1), (12, 1)]


# ---------------------------------------------------------------- percpu_ref


def test_percpu_refs_of_real_kernels() -> None:
    """Per-CPU mode (live), embedded since 5.17 and by pointer before."""
    for name in ("5.10-nvdimm", "6.1-nvdimm", "7.2-nvdimm"):
        vmcore = open_vmcore(name)
        for found in vmcore.kernel.pagemaps:
            assert found.ref.state == "live"
            assert found.ref.count is not None and found.ref.count >= 1 + found.folios


class FakeRef:
    """A percpu_ref whose words are given: atomic and dead states that no bundled core shows."""

    def __init__(self, pointer: int, count: Optional[int]) -> None:
        self.prog_ = None
        self.percpu_count_ptr = pointer
        self.type_ = self
        self.data: Any = None if count is None else self
        self.count = self
        self.counter = count

    def has_member(self, name: str) -> bool:
        return name == "data"


@pytest.mark.parametrize(
    ("pointer", "count", "state", "value"),
    [
        (0xFFFF888100000001, 5, "live", 5),
        (0xFFFF888100000003, 4, "dying", 4),
        (0xFFFF888100000003, 0, "dying", 0),
        (0xFFFF888100000003, (1 << 64) - 1, "dying", -1),
        (3 | 7 << 2, None, "dead", 7),
    ],
)
def test_percpu_ref_states(pointer: int, count: Optional[int], state: str, value: int) -> None:
    fake: Any = FakeRef(pointer, count)
    assert read_percpu_ref(fake) == PgmapRef(state, value)


def test_an_empty_registry_beside_device_zones_is_not_clean(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = replace(open_vmcore("7.2-nvdimm").kernel, pagemaps=[], problems=[])
    nothing = Found([], [], [])
    monkeypatch.setattr(facts, "zone_device_spans", lambda prog: None)
    assert "cannot be read" in facts._lost_registry(kernel, nothing)[0]
    monkeypatch.setattr(facts, "zone_device_spans", lambda prog: [])
    assert facts._lost_registry(kernel, None) == []
    monkeypatch.setattr(facts, "zone_device_spans", lambda prog: [(0, 65536)])
    for found in (None, Found([], [0x200], []), Found([], [], [(0x8000, 0x10000)])):
        assert "span 65536 pages" in facts._lost_registry(kernel, found)[0]
    # All devices were removed, and took their struct pages along.
    assert facts._lost_registry(kernel, nothing) == []
    assert facts._lost_registry(kernel, Found([], [], [(65536, 65536 + 0x8000)])) == []
    # What is registered, or known to be lost, is enough to say.
    assert facts._lost_registry(open_vmcore("7.2-nvdimm").kernel, None) == []


def test_a_kernel_without_numa_has_no_node_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    prog = open_vmcore("7.2-nvdimm").prog
    monkeypatch.setattr(layout, "_nodes_shift", lambda prog: 0)
    made = layout.kernel_layout(prog)
    assert made.zone == (61, 3)
    assert made.node == (0, 0)
    assert layout.node_of(made, bytes(64)) is None


# ---------------------------------------------------------------- memory sections


@pytest.mark.parametrize(
    ("ref", "missing", "fires"),
    [
        (PgmapRef("live", 1 + PAGES), [(0x100200, 0x100400)], True),
        (PgmapRef("live", 1 + PAGES), [], False),
        # Removal takes the memmap away before the entry in the registry.
        (PgmapRef("dying", 3), [(0x100200, 0x100400)], False),
        (PgmapRef("live", 1 + PAGES), Unjudged("memory sections cannot be read"), False),
    ],
)
def test_pages_without_a_memmap(ref: PgmapRef, missing: Any, fires: bool) -> None:
    case = Case(PagemapResult(pagemap(ref=ref), 0), scheme("H"), 12, [], missing)
    findings, unjudged = judge_pagemap(case, "error")
    found = [f for f in findings if f.rule == "memmap-missing"]
    assert bool(found) == fires
    if fires:
        assert (
            found[0].severity == "error" and "512 pages: pfns 0x100200-0x1003ff" in found[0].detail
        )
    assert [why for rule, why in unjudged if rule == "memmap-missing"] == (
        [missing.why] if isinstance(missing, Unjudged) else []
    )


@pytest.mark.parametrize(
    ("state", "alloc", "fires"), [("dead", 8, True), ("dead", 0, False), ("live", 8, False)]
)
def test_altmap_pages_that_a_removal_left(state: str, alloc: int, fires: bool) -> None:
    altmap = {"reserve": 2, "free": 30, "alloc": alloc}
    found = dict(judge(pagemap(ref=PgmapRef(state, 1 + PAGES), altmap=altmap)))
    assert found.get("altmap-overrun") == ("warning" if fires else None)


@pytest.mark.parametrize("name", ["5.10-nvdimm", "7.3-nvdimm"])
def test_sections_of_a_real_core(name: str) -> None:
    """All ranges have their sections; a pfn far above everything has none; a cleared word is seen."""
    vmcore = fresh_vmcore(name)
    prog = vmcore.prog
    ranges = [r for p in vmcore.kernel.pagemaps for r in p.ranges]
    assert Sections(prog).missing(ranges) == []
    beyond = 1 << 50
    assert Sections(prog).missing([PfnRange(beyond, beyond + 10, beyond)]) == [
        (beyond, beyond + 10)
    ]
    section = int(pfn_to_section(prog, ranges[0].start_pfn))
    lay_over(prog, section, bytes(8))
    (first, last) = (ranges[0].start_pfn, ranges[0].start_pfn + (1 << 27 - 12))
    assert Sections(prog).missing(ranges)[0] == (first, min(last, ranges[0].end_pfn))
    with pytest.raises(FaultError, match="more sections"):
        Sections(prog).missing([PfnRange(0, 1 << 52, 0)])
    # A frame of zeroes may stand for one that was lost; a root may begin in the middle of one.
    assert prog.read(section & -4096, 4096).strip(b"\0")
    lay_over(prog, section & -4096, bytes(4096))
    with pytest.raises(FaultError, match="zeroes"):
        Sections(prog).missing(ranges)
