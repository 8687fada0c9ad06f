# SPDX-License-Identifier: LGPL-2.1-or-later
"""Two reports compared: pages of findings as sets, what is new, worse and gone, and reports that are none."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Zonedev, assert_one_line, open_vmcore
from drgn import Program, ProgramFlags
from hypothesis import given
from hypothesis import strategies as st

from zonedev import commands
from zonedev.audit import audit
from zonedev.diff import Diff, checked, compare_reports
from zonedev.errors import TargetError
from zonedev.report.data import audit_dict, diff_dict
from zonedev.report.diff_text import diff_text
from zonedev.stretches import by_place, stretches_of

LEAK = "7.2-nvdimm-leak"
PAGEMAP = 0xFFFF888000000000
Report = dict[str, Any]


def real() -> Report:
    return audit_dict(audit(open_vmcore(LEAK).prog))


RULE = "reference-on-free-folio"


def finding(start: int, count: int = 1, **words: Any) -> Report:
    """A finding on order-0 pages."""
    own = {"rule": RULE, "severity": "error", "pagemap": PAGEMAP, "order": 0}
    own["also"] = ["held-without-map"]
    numbers = {"refcount": 1, "expected": 0, "mapcount": 0}
    return {**own, "pfn": start, "count": count, "pages": count, **numbers, **words}


def report(*findings: Report, **words: Any) -> Report:
    """A report of one pagemap of 64 pages."""
    names = ("idle", "busy", "violation", "not-captured", "unreadable", "skipped")
    pagemap = {
        "address": PAGEMAP,
        "type": "MEMORY_DEVICE_FS_DAX",
        "device": "pmem0",
        "ranges": [{"start_pfn": 0, "end_pfn": 64}],
        "pages": 64,
        "ref": {"state": "live", "count": 65},
        "classes": dict.fromkeys(names, 0) | {"idle": 64},
    }
    return {
        "schema": "zonedev.audit/1",
        "kernel": {"release": "7.2"},
        "pagemaps": [pagemap],
        "findings": list(findings),
        "passes": [{"pass": "dax-entries", "ran": True}],
        "filters": {"type": ["fs_dax"]},
        "summary": {"verdict": "violations" if findings else "clean"},
        **words,
    }


def compared(before: Report, after: Report) -> Diff:
    return compare_reports(checked("before", before), checked("after", after))


def runs(changes: list[Any]) -> list[tuple[Any, ...]]:
    return [(c.stretch.start, c.stretch.end, c.before) for c in changes]


# ---------------------------------------------------------------- findings


def test_a_report_is_as_it_was() -> None:
    diff = compared(real(), real())
    assert not (diff.new or diff.worse or diff.gone or diff.not_read or diff.notes)
    assert not any(one.changed for one in diff.pagemaps) and len(diff.pagemaps) == 5
    assert diff.exit_code == 0
    assert "no pagemap changed" in diff_text(diff)


def test_parts_of_a_run() -> None:
    diff = compared(report(finding(4, 4)), report(finding(2, 10)))
    assert runs(diff.new) == [(2, 4, None), (8, 12, None)]
    assert not diff.worse and not diff.gone and diff.exit_code == 1
    back = compared(report(finding(2, 10)), report(finding(4, 4)))
    assert runs(back.gone) == [(2, 4, 1), (8, 12, 1)]
    assert not back.new and back.exit_code == 0


def test_what_is_worse() -> None:
    for before, after, worse in (
        ({"refcount": 1}, {"refcount": 2}, True),
        ({"refcount": 2}, {"refcount": 1}, False),
        ({"refcount": -1}, {"refcount": -2}, True),
        ({"severity": "warning"}, {"severity": "error"}, True),
        ({"severity": "error"}, {"severity": "warning"}, False),
    ):
        diff = compared(report(finding(3, **before)), report(finding(3, **after)))
        assert bool(diff.worse) == worse and not diff.new and not diff.gone
    assert compared(report(finding(3)), report(finding(3, refcount=5))).worse[0].before == 1


def test_rules_and_pagemaps_are_apart() -> None:
    diff = compared(report(finding(3)), report(finding(3, rule="refcount-out-of-range")))
    assert len(diff.new) == len(diff.gone) == 1
    whole = {"pfn": None, "refcount": None, "expected": None, "mapcount": None, "pages": 0}
    one = finding(0, rule="dying-busy", **whole)
    assert runs(compared(report(), report(one)).new) == [(None, 0, None)]
    assert not compared(report(one), report(one)).new
    assert not compared(report(one, finding(0)), report(one, finding(0))).new


def test_severity_decides_on_the_status() -> None:
    warned = report(finding(1, severity="warning"))
    assert compared(report(), warned).exit_code == 0
    assert compare_reports(report(), warned, fail_on="warning").exit_code == 1
    assert compared(report(), report(summary={"verdict": "incomplete"})).exit_code == 3


def test_a_page_that_was_not_read_again_is_not_gone() -> None:
    after = report()
    after["pagemaps"][0]["classes"].update({"idle": 60, "not-captured": 4})
    diff = compared(report(finding(3)), after)
    assert runs(diff.not_read) == [(3, 4, 1)] and not diff.gone
    assert diff.exit_code == 3
    assert "not read again" in diff_text(diff)


def test_a_pagemap_that_is_not_in_an_incomplete_report_was_not_read_again() -> None:
    lost = report(pagemaps=[], summary={"verdict": "incomplete"})
    diff = compared(report(finding(3)), lost)
    assert runs(diff.not_read) == [(3, 4, 1)] and not diff.gone
    assert runs(compared(report(finding(3)), report(pagemaps=[])).gone) == [(3, 4, 1)]


def test_a_rule_beside_another_one_is_still_there() -> None:
    alone = report(finding(3, rule="held-without-map", severity="info"))
    beside = report(finding(3, also=["held-without-map"]))
    diff = compared(alone, beside)
    assert [c.stretch.rule for c in diff.new] == ["reference-on-free-folio"] and not diff.gone
    back = compared(beside, alone)
    assert [c.stretch.rule for c in back.gone] == ["reference-on-free-folio"]
    assert not back.new and not back.worse


def test_a_rule_that_was_beside_another_one_may_get_worse() -> None:
    """A finding is as severe as the worst of its rules: none of them was an error."""
    beside = report(finding(3, rule="idle-count-mismatch", severity="warning", also=[RULE]))
    diff = compared(beside, report(finding(3)))
    assert [c.stretch.rule for c in diff.worse] == [RULE] and diff.exit_code == 1
    alone = report(finding(3, severity="warning", also=[]))
    assert not compared(beside, alone).worse


def test_reports_that_leave_something_out() -> None:
    vmcore = open_vmcore("6.16-entries")
    whole = audit(vmcore.prog)
    full, errors = audit_dict(whole), audit_dict(whole, "error")
    assert any("leaves out findings" in note for note in compared(full, errors).notes)
    quick = audit_dict(audit(vmcore.prog, quick=True))
    diff = compared(full, quick)
    assert any("--quick" in note for note in diff.notes) and diff.exit_code == 3
    explained = compared(full, audit_dict(audit(vmcore.prog, explain=True)))
    assert not explained.notes and explained.exit_code == 0
    assert not compared(full, full).notes


def test_many_runs_take_no_longer_each() -> None:
    """Not a time: how often runs are looked at."""
    looked = 0

    class Counted(list[int]):
        def __getitem__(self, i: Any) -> Any:
            nonlocal looked
            looked += 1
            return super().__getitem__(i)

    many = report(*(finding(4 * i, also=[]) for i in range(2000)))
    (found,) = by_place(stretches_of(many)).values()
    found.starts = Counted(found.starts)
    for one in found.runs:
        assert [end - start for start, end, _ in found.overlaps(one.start, one.end)] == [1]
    assert looked < 20 * 2000


pages = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 6)), max_size=8)


def disjoint(drawn: list[tuple[int, int]]) -> list[tuple[int, int]]:
    taken: set[int] = set()
    kept = []
    for start, count in drawn:
        mine = set(range(start, start + count))
        if not mine & taken:
            taken |= mine
            kept.append((start, count))
    return kept


@given(pages, pages)
def test_pages_are_sets(before: list[tuple[int, int]], after: list[tuple[int, int]]) -> None:
    sides = [disjoint(before), disjoint(after)]
    diff = compared(*(report(*(finding(s, n) for s, n in side)) for side in sides))
    old, new = ({p for s, n in side for p in range(s, s + n)} for side in sides)

    def covered(changes: list[Any]) -> list[int]:
        return sorted(p for c in changes for p in range(c.stretch.start, c.stretch.end))

    assert covered(diff.new) == sorted(new - old)
    assert covered(diff.gone) == sorted(old - new)
    assert not diff.worse


# ---------------------------------------------------------------- pagemaps


def test_where_it_grows() -> None:
    after = report(finding(4, 3, refcount=2))
    after["pagemaps"][0]["classes"].update({"idle": 61, "violation": 3})
    after["pagemaps"][0]["ref"]["count"] = 71
    diff = compared(report(), after)
    (one,) = diff.pagemaps
    assert one.changed and one.extra == (0, 6) and one.ref == (65, 71)
    text = diff_text(diff)
    assert "61 (-3)" in text and "71 (+6)" in text and "6 (+6)" in text
    assert "pfn 0x4-0x6 (3 pages); refcount 2 (expected 0)" in text


def test_references_of_a_folio_are_counted_once() -> None:
    folio = finding(0, order=3, pages=16, count=2, refcount=4, expected=1)
    assert compared(report(), report(folio)).pagemaps[0].extra == (0, 6)


def test_pagemaps_that_come_and_go() -> None:
    empty = report(pagemaps=[])
    text = diff_text(compared(report(), empty))
    assert "gone" in text and "pmem0" in text
    assert "new" in diff_text(compared(empty, report()))


def test_what_speaks_against_comparing() -> None:
    other = report(kernel={"release": "6.1"}, filters={})
    other["summary"]["findings_dropped"] = 3
    diff = compared(report(), other)
    assert len(diff.notes) == 3 and diff.exit_code == 3
    assert "the kernels differ: 7.2 and 6.1" in diff_text(diff)


# ---------------------------------------------------------------- the program


def write(path: Path, value: Any) -> str:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return str(path)


def test_the_verb(zonedev: Zonedev, tmp_path: Path) -> None:
    later = real()
    earlier = copy.deepcopy(later)
    gone = next(f for f in earlier["findings"] if f["severity"] == "error" and f["pfn"])
    earlier["findings"].remove(gone)
    names = write(tmp_path / "a", earlier), write(tmp_path / "b", later)
    answer = zonedev("diff", *names)
    assert answer.status == 1 and f"new error: {gone['rule']}" in answer.out
    assert names[0] in answer.out and names[1] in answer.out
    found = json.loads(zonedev("diff", *names, "--format", "json").out)
    assert found["schema"] == "zonedev.diff/1"
    assert [(c["rule"], c["pfn"], c["pages"]) for c in found["new"]] == [
        (gone["rule"], gone["pfn"], gone["pages"])
    ]
    assert found == diff_dict(compare_reports(earlier, later, names))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "not JSON"),
        ("[1]", "it has no schema"),
        ("[" * 100000, "not JSON"),
        ('{"schema": "zonedev.list/1"}', "zonedev.list/1"),
        ('{"schema": "zonedev.audit/1"}', "the report is not as"),
        (json.dumps(report()).replace('"7.2"', "[" * 700 + "]" * 700), "nested too deeply"),
    ],
)
def test_what_is_no_report(zonedev: Zonedev, tmp_path: Path, text: str, why: str) -> None:
    good, bad = write(tmp_path / "good", report()), write(tmp_path / "bad", text)
    assert_one_line(zonedev("diff", good, bad), bad, why)
    assert_one_line(zonedev("diff", bad, good), bad, why)


def test_files_that_cannot_be_read(zonedev: Zonedev, tmp_path: Path) -> None:
    good = write(tmp_path / "good", report())
    assert_one_line(zonedev("diff", good, tmp_path / "none"), "No such file")
    for content in (b"\xff\xfe\x01", b"\x7fELF\x00", b"{}" + b" " * 5000 + b"\x00"):
        (tmp_path / "binary").write_bytes(content)
        assert_one_line(zonedev("diff", good, tmp_path / "binary"), "not text")
    for words in ((), (good,), (good, good, good)):
        assert_one_line(zonedev("diff", *words), "two REPORTs")


def members(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to all that stands in a report."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    paths = []
    for key, one in items:
        paths.append((*path, key))
        if isinstance(one, (dict, list)):
            paths += members(one, (*path, key))
    return paths


@pytest.mark.parametrize("nonsense", [None, "x", [], {}, 1.5, True, -(1 << 70), int("9" * 4299)])
def test_nonsense_is_refused_or_compared(nonsense: Any) -> None:
    good = report(finding(3), finding(9, 2))
    for path in members(good):
        bad = copy.deepcopy(good)
        place = bad
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = nonsense
        for before, after in ((good, bad), (bad, good)):
            try:
                diff_text(compared(before, after))
            except TargetError as err:
                assert "\n" not in str(err)


def test_text_of_a_report_is_not_the_terminals(zonedev: Zonedev, tmp_path: Path) -> None:
    evil = report(finding(3), kernel={"release": "\ud800"})
    evil["pagemaps"][0]["device"] = "\x1b[31mevil\nnew error: fake"
    names = write(tmp_path / "a", report()), write(tmp_path / "b", evil)
    answer = zonedev("diff", *names)
    assert answer.status == 1 and "\x1b" not in answer.out
    assert "\nnew error: fake" not in answer.out and "\\ud800" in answer.out


def test_reports_and_a_target_are_too_much(zonedev: Zonedev, tmp_path: Path) -> None:
    name = write(tmp_path / "a", report())
    assert_one_line(zonedev("diff", name, name, "-c", "core"), "give one of them")
    assert_one_line(zonedev("diff", name, name, "-k"), "give one of them")


def test_a_dump_is_not_compared_with_itself(zonedev: Zonedev) -> None:
    vmcore = open_vmcore(LEAK)
    answer = zonedev("diff", "-c", vmcore.core, *vmcore.types)
    assert_one_line(answer, "a live kernel with itself")


def test_two_audits_of_a_live_kernel(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Live:
        """As much of a Program as the verb looks at."""

        flags = ProgramFlags.IS_LINUX_KERNEL | ProgramFlags.IS_LIVE

    slept = []
    monkeypatch.setattr(commands.time, "sleep", slept.append)
    monkeypatch.setattr("zonedev.audit.audit", lambda prog, **how: audit(open_vmcore(LEAK).prog))
    words = ["diff", "--wait", "3"]
    parsed = commands.build_parser("zonedev", False).parse_args(words)
    prog: Program = Live()  # type: ignore[assignment]
    assert commands.diff_verb(parsed, prog).exit_code == 0
    assert slept == [3.0]
    assert "before: first audit" in capsys.readouterr().out
