# SPDX-License-Identifier: LGPL-2.1-or-later
"""Classes by place: they add up to the classes of each pagemap, however they are counted."""

from __future__ import annotations

import random
from array import array
from collections import Counter

import pytest
from conftest import Vmcore, open_vmcore
from pages import START, Machine
from test_scan import mutate, typical_pages

from zonedev import _zonedev
from zonedev.audit import audit
from zonedev.cells import CellPlan, Cells, move_pages
from zonedev.model import CLASSES, Audit, PfnRange
from zonedev.report import data
from zonedev.scanner import Feed


def counted(name: str, plan: CellPlan) -> Audit:
    result: Audit = audit(open_vmcore(name).prog, cells=plan)
    return result


def facts(result: Audit) -> dict[str, object]:
    return {key: value for key, value in data.audit_dict(result).items() if key != "timing"}


def cells_of(scan: _zonedev.Scan, pages: int, shift: int) -> Cells:
    return Cells.of_bytes((START, START + pages), shift, scan.cells())


# ---------------------------------------------------------------- sums


@pytest.mark.parametrize("most", [1, 100, 1 << 17])
def test_cells_add_up_to_classes(vmcore: Vmcore, most: int) -> None:
    result = counted(vmcore.name, CellPlan(most))
    for one in result.pagemaps:
        assert [(c.start_pfn, c.end_pfn) for c in one.cells] == [
            (r.start_pfn, r.end_pfn) for r in one.pagemap.ranges
        ]
        sums = Counter[str]()
        for cells in one.cells:
            sums.update(cells.sums())
            for i in range(len(cells)):
                start, end = cells.pfns(i)
                assert sum(cells.classes(i)) == end - start
        assert dict(sums) == one.classes
        assert sum(map(len, one.cells)) <= max(most, len(one.cells))


def test_counting_changes_nothing_else() -> None:
    for name in ("7.2-nvdimm-leak", "7.2-hmm", "7.2-ram-only"):
        prog = open_vmcore(name).prog
        assert facts(audit(prog)) == facts(audit(prog, cells=CellPlan(64)))
        assert not any(one.cells for one in audit(prog).pagemaps)


def test_coarse_cells_are_sums_of_fine_ones() -> None:
    name = "7.2-nvdimm-leak"
    for fine, coarse in zip(
        counted(name, CellPlan(1 << 17)).pagemaps, counted(name, CellPlan(50)).pagemaps
    ):
        (one,), (other,) = fine.cells, coarse.cells
        assert one.shift == 0 and other.shift > 8
        sums = [Counter[int]() for _ in range(len(other))]
        for i in range(len(one)):
            pfn = one.pfns(i)[0]
            place = sums[(pfn >> other.shift) - (other.start_pfn >> other.shift)]
            place.update(dict(enumerate(one.classes(i))))
        assert [tuple(c[i] for i in range(len(CLASSES))) for c in sums] == [
            other.classes(i) for i in range(len(other))
        ]


def test_some_pages_only() -> None:
    whole = counted("7.2-nvdimm-leak", CellPlan(1 << 17)).pagemaps[0].cells[0]
    low, high = whole.start_pfn + 0x8241, whole.start_pfn + 0x8309
    result = counted("7.2-nvdimm-leak", CellPlan(1 << 17, pfns=(low, high)))
    (part,) = result.pagemaps[0].cells
    assert (part.start_pfn, part.end_pfn) == (low, high)
    assert [part.classes(i) for i in range(len(part))] == [
        whole.classes(pfn - whole.start_pfn) for pfn in range(low, high)
    ]
    assert part.sums()["violation"] == 3
    assert all(not one.cells for one in result.pagemaps[1:])
    # The verdict is that of all pages.
    assert result.verdict == "violations" and result.classes["violation"] == 644


def test_random_pages_with_and_without_templates() -> None:
    rng = random.Random(8)
    for shift in (0, 3, 9, 63):
        for options in ({}, {"vmemmap_shift": 9, "deduplicated": True}):
            machine = Machine("H", rng.choice(("FS_DAX", "GENERIC")), **options)
            pages = mutate(typical_pages(machine, rng, 3000), rng, 60)
            found = []
            for fast in (True, False):
                scan = _zonedev.Scan(machine.layout, machine.scheme, machine.pagemap, fast=fast)
                scan.begin(START, START + 3000, machine.memmap)
                scan.count_cells(START, START + 3000, shift)
                scan.pages(pages)
                scan.end()
                found.append(cells_of(scan, 3000, shift))
            assert found[0] == found[1]
            assert found[0].sums() == scan.classes()


# ---------------------------------------------------------------- what is not read


def test_an_interrupted_scan_is_counted_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_feed: Feed) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Feed, "run", stop)
    result = counted("7.2-nvdimm-leak", CellPlan(64))
    assert result.interrupted and result.pagemaps
    for one in result.pagemaps:
        assert one.cells[0].sums() == one.classes
        assert one.classes["unreadable"] > one.pagemap.pages * 0.9


def test_pages_that_are_all_of_one_class() -> None:
    cells = Cells.of_class((5, 1030), 4, "unreadable")
    assert cells.sums()["unreadable"] == sum(cells.sums().values()) == 1025
    assert cells.pfns(0) == (5, 16) and cells.pfns(len(cells) - 1) == (1024, 1030)
    assert [run for run, _ in cells.runs()] == [1, 63, 1]


# ---------------------------------------------------------------- plans


def ranges(*pfns: tuple[int, int]) -> list[PfnRange]:
    return [PfnRange(start, end, start) for start, end in pfns]


@pytest.mark.parametrize(
    ("plan", "pfns", "shift"),
    [
        (CellPlan(1024), [(0, 1024)], 0),
        (CellPlan(1024), [(0, 1025)], 1),
        (CellPlan(1024), [(1, 1025)], 0),
        (CellPlan(1023), [(1, 1025)], 1),
        (CellPlan(64), [(0, 1 << 52)], 46),
        # At least one cell a range.
        (CellPlan(1), [(0, 64), (64, 128)], 6),
        # Rows are whole, and aligned.
        (CellPlan(64, row=4), [(0, 64)], 0),
        (CellPlan(64, row=4), [(8, 72)], 1),
        # Only what is looked at counts.
        (CellPlan(64, pfns=(100, 164)), [(0, 1 << 30)], 0),
        (CellPlan(64, pfns=(1 << 40, 1 << 41)), [(0, 1 << 30)], 0),
    ],
)
def test_how_fine(plan: CellPlan, pfns: list[tuple[int, int]], shift: int) -> None:
    assert plan.shift(ranges(*pfns), plan.most) == shift


def test_pagemaps_share_what_there_is() -> None:
    plan = CellPlan(1024, total=2048)
    assert plan.room([1024]) == plan.room([1, 2047]) == 1024
    assert plan.room([1024, 1025]) == 1024
    assert plan.room([1024, 512, 512, 1]) == 512


def test_a_range_of_its_own() -> None:
    plan = CellPlan(64, pfns=(10, 20))
    parts = [plan.clip(one) for one in ranges((0, 5), (5, 15), (15, 18), (19, 30), (20, 30))]
    assert parts == [None, (10, 15), (15, 18), (19, 20), None]


# ---------------------------------------------------------------- classes that are corrected


def test_pages_are_moved_where_they_are_first() -> None:
    first, second = Cells.of_class((0, 32), 3, "violation"), Cells.of_class((32, 64), 3, "idle")
    move_pages([first, second], (6, 40), 12, "violation", "busy")
    at = CLASSES.index("busy")
    assert [first.classes(i)[at] for i in range(4)] == [2, 8, 2, 0]
    assert second.sums()["idle"] == 32
    # More than lie there: the sums hold all the same.
    move_pages([first, second], (24, 26), 10, "violation", "busy")
    assert first.sums() == {**dict.fromkeys(CLASSES, 0), "violation": 10, "busy": 22}


# ---------------------------------------------------------------- the binding


def begun() -> _zonedev.Scan:
    machine = Machine("H", "FS_DAX")
    scan = _zonedev.Scan(machine.layout, machine.scheme, machine.pagemap)
    scan.begin(START, START + (1 << 19), machine.memmap)
    return scan


@pytest.mark.parametrize(
    ("start", "end", "shift", "words"),
    [
        (START - 1, START + 9, 0, "outside of the range"),
        (START, START + (1 << 19) + 1, 4, "outside of the range"),
        (START, START + (1 << 19), 0, "524288 cells are too many"),
        (START, START + 9, 64, "too large"),
    ],
)
def test_what_cannot_be_counted(start: int, end: int, shift: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        begun().count_cells(start, end, shift)


def test_cells_of_nothing() -> None:
    scan = begun()
    assert scan.cells() == b""
    scan.count_cells(START, START, 0)
    scan.hole(1 << 19, "not-captured")
    scan.end()
    assert scan.cells() == b""


def test_cells_are_of_one_range() -> None:
    scan = begun()
    scan.count_cells(START, START + 8, 2)
    scan.hole(1 << 19, "not-captured")
    scan.end()
    counts = array("Q")
    counts.frombytes(scan.cells())
    assert counts.tolist() == [4 if name == "not-captured" else 0 for name in CLASSES] * 2
    scan.begin(START, START + 8, Machine("H", "FS_DAX").memmap)
    assert scan.cells() == b""
