# SPDX-License-Identifier: LGPL-2.1-or-later
"""Accepted findings: which ones a baseline means, that nothing else is hidden by it, and what it cannot change."""

from __future__ import annotations

import copy
import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Vmcore, Zonedev, assert_one_line, fresh_vmcore, lose, open_vmcore
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import validate as validate_json

from zonedev import baseline as module
from zonedev.audit import audit, validate
from zonedev.baseline import Look, accept, read_baseline
from zonedev.errors import ValidationError
from zonedev.model import Finding, Pagemap, PagemapResult, PfnRange, PgmapRef
from zonedev.report.data import audit_dict
from zonedev.report.text import audit_text

LEAK = "7.2-nvdimm-leak"
SCHEMA = json.loads((ROOT / "docs" / "audit.schema.json").read_text())
Report = dict[str, Any]


@pytest.fixture
def leak() -> Vmcore:
    """Six pages in error: two of each of three rules, a run of two among them."""
    return open_vmcore(LEAK)


@pytest.fixture
def known(leak: Vmcore) -> Report:
    return audit_dict(audit(leak.prog))


@pytest.fixture
def saved(tmp_path: Path) -> Any:
    """Write a baseline: a report, or lines."""

    def save(content: Any, name: str = "baseline") -> str:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path)

    return save


def errors(report: Report, accepted: bool) -> list[tuple[str, int]]:
    return [
        (f["rule"], f["pfn"])
        for f in report["findings"]
        if f["severity"] == "error" and f.get("accepted", False) == accepted
    ]


# ---------------------------------------------------------------- a report as the baseline


def test_what_a_report_has_is_accepted_and_still_reported(
    leak: Vmcore, known: Report, saved: Any, zonedev: Zonedev
) -> None:
    words = ["audit", leak.core, *leak.types, "--baseline", saved(known)]
    answer = zonedev(*words, "--format", "json")
    report = json.loads(answer.out)
    validate_json(report, SCHEMA)
    assert answer.status == 0 and report["summary"]["verdict"] == "clean"
    assert report["summary"]["errors"] == known["summary"]["errors"] == 6
    assert report["summary"]["accepted"] == {"errors": 6, "warnings": 0, "infos": 0, "findings": 5}
    assert errors(report, True) == errors(known, False) and not errors(report, False)
    assert report["baseline"]["entries"] == 5 and not report["baseline"]["stale"]
    text = zonedev(*words).out
    assert "accepts\n    error refcount-below-mapcount, 2 pages\n" in text
    assert "nothing is new; accepted: 6 pages with errors" in text
    assert "fewer references than maps" not in text
    rows = list(csv.DictReader(io.StringIO(zonedev(*words, "--format", "csv").out)))
    assert sum(row["accepted"] == "yes" for row in rows) == 5 < len(rows)


def test_what_it_does_not_have_is_new(
    leak: Vmcore, known: Report, saved: Any, zonedev: Zonedev
) -> None:
    known["findings"] = [f for f in known["findings"] if f["pfn"] != 0x108245]
    answer = zonedev("audit", leak.core, *leak.types, "--baseline", saved(known))
    assert answer.status == 1
    assert "error: refcount-below-mapcount, 1 page\n" in answer.out
    assert "0x108245" in answer.out and "0x142520" not in answer.out
    assert "1 page with errors, 0 pages with warnings; accepted: 5 pages with errors" in answer.out


def test_of_a_run_the_rest_is_new(leak: Vmcore, known: Report, saved: Any) -> None:
    """The run 0x1082fc-0x1082fd of which the baseline has one page; the other one tells of itself."""
    (run,) = (f for f in known["findings"] if f["pfn"] == 0x1082FC)
    assert (run["count"], run["pages"]) == (2, 2)
    for kept, fresh in ((0x1082FC, 0x1082FD), (0x1082FD, 0x1082FC)):
        run.update(pfn=kept, count=1, pages=1)
        report = audit_dict(audit(leak.prog, baseline=[saved(known)]))
        assert errors(report, False) == [("reference-on-free-folio", fresh)]
        (new,) = (f for f in report["findings"] if f["pfn"] == fresh)
        assert (new["count"], new["pages"]) == (1, 1)
        size = len(bytes.fromhex(new["raw"]))
        address = leak.kernel.layout.page_address(fresh)
        assert size == 64 and leak.prog.read(address, size).hex() == new["raw"]
        assert report["summary"]["errors"] == 6
        assert report["summary"]["accepted"]["errors"] == 5


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"refcount": 4}, 1),  # has 5 now
        ({"refcount": 6}, 0),
        ({"severity": "warning"}, 1),
        ({"rule": "refcount-out-of-range"}, 1),
        ({"rule": "refcount-out-of-range", "also": ["tail-refcount"]}, 0),
    ],
)
def test_what_became_worse_is_new(
    leak: Vmcore, known: Report, saved: Any, change: Report, status: int
) -> None:
    (tail,) = (f for f in known["findings"] if f["pfn"] == 0x108A07)
    assert (tail["refcount"], tail["expected"]) == (5, 0)
    tail.update(change)
    assert audit(leak.prog, baseline=[saved(known)]).exit_code == status


def moved(report: Report, device: str, by: int) -> Report:
    """The report as it was when a device lay elsewhere."""
    report = copy.deepcopy(report)
    (pagemap,) = (p for p in report["pagemaps"] if p["device"] == device)
    for range_ in pagemap["ranges"]:
        range_.update({name: pfn - by for name, pfn in range_.items()})
    for finding in report["findings"]:
        if finding["pagemap"] == pagemap["address"] and finding["pfn"] is not None:
            finding["pfn"] -= by
    return report


def test_a_pagemap_that_moved_is_the_same_one(
    leak: Vmcore, known: Report, saved: Any, zonedev: Zonedev
) -> None:
    """Its findings are known by where in it they are; also to zonedev diff."""
    before = moved(known, "pmem0", 0x40000)
    assert errors(before, False) != errors(known, False)
    assert audit(leak.prog, baseline=[saved(before)]).verdict == "clean"
    assert zonedev("diff", saved(before, "before"), saved(known, "after")).status == 0
    before["pagemaps"][0]["device"] = "pmem7"
    assert audit(leak.prog, baseline=[saved(before)]).exit_code == 1


def test_one_of_two_pagemaps_that_moved_is_not_guessed(
    leak: Vmcore, known: Report, saved: Any
) -> None:
    before = moved(known, "pmem0", 0x40000)
    before["pagemaps"].append({**before["pagemaps"][0], "address": 1, "ranges": []})
    assert audit(leak.prog, baseline=[saved(before)]).exit_code == 1


def test_findings_on_a_pagemap_are_counted(saved: Any, known: Report) -> None:
    """Two on one pagemap where the baseline has one: one of them is new."""
    address = known["pagemaps"][0]["address"]
    own = {"rule": "dying-busy", "severity": "error", "also": [], "pagemap": address, "pfn": None}
    one = {**own, "count": 1, "pages": 1, "order": 0, "refcount": None, "expected": None}
    known["findings"] = [one]
    result = result_of(Finding("dying-busy", "error", 1))
    result.pagemap.ranges[0] = PfnRange(0x100000, 0x110000, 0x100000)
    findings = [Finding("dying-busy", "error", 1) for _ in range(2)]
    found, _ = accept(read_baseline([saved(known)]), findings, [result], LOOK)
    assert [f.accepted for f in found] == [True, False]


# ---------------------------------------------------------------- lines


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        ("", 6),
        ("# nothing\n\n   # at all\n", 6),
        ("reference-on-free-folio pmem0", 4),
        ("reference-on-free-folio pmem0+0x82fc", 5),
        ("reference-on-free-folio pmem0+0x82fc-0x82fd # both", 4),
        ("reference-on-free-folio pmem0+33532-33533", 4),
        ("reference-on-free-folio pmem0+0x82fe", 6),
        ("reference-on-free-folio dax1.0", 6),
        ("reference-on-free-folio pfn:0x1082fd", 5),
        ("reference-on-free-folio pfn:0x1082fd-0x200000", 5),
        ("R01 *", 4),
        ("tail-refcount generic\ntail-refcount MEMORY_DEVICE_FS_DAX", 4),
        ("tail-refcount *\nrefcount-below-mapcount *\nreference-on-free-folio *", 0),
    ],
)
def test_lines(leak: Vmcore, saved: Any, lines: str, left: int) -> None:
    result = audit(leak.prog, baseline=[saved(lines)])
    assert result.fresh("error") == left
    assert result.exit_code == (1 if left else 0)


@pytest.mark.parametrize(
    ("line", "fragment"),
    [
        ("no-such-rule pmem0", "no rule 'no-such-rule'"),
        ("- pmem0", "no rule '-'"),
        ("tail-refcount", "is not RULE PLACE"),
        ("tail-refcount pmem0 0x12", "is not RULE PLACE"),
        ("tail-refcount pfn:", "names no pages"),
        ("tail-refcount pfn:here", "names no pages"),
        ("tail-refcount pmem0+4-3", "names no pages"),
        ("tail-refcount pmem0+12-", "names no pages"),
        ("tail-refcount pmem0+0xzz", "names no pages"),
        ("tail-refcount *+3", "names no pages"),
        ("{", "not JSON"),
        ("{}", "it has no schema"),
        ("\0", "neither a report"),
    ],
)
def test_what_is_no_baseline(
    leak: Vmcore, saved: Any, zonedev: Zonedev, line: str, fragment: str
) -> None:
    path = saved(f"# a line\n{line}\n" if line[:1] not in "{\0" else line)
    where = "" if line[:1] in "{\0" else ", line 2"
    answer = zonedev("audit", leak.core, *leak.types, "--baseline", path)
    assert_one_line(answer, f"error: baseline {path}{where}", fragment)


def test_a_file_that_is_not_there(leak: Vmcore, zonedev: Zonedev, tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        answer = zonedev("audit", leak.core, *leak.types, "--baseline", path)
        assert_one_line(answer, f"baseline {path}: ")
    answer = zonedev("audit", leak.core, *leak.types, "--baseline", leak.core)
    assert_one_line(answer, "neither a report")


def test_several_files_add_up(leak: Vmcore, known: Report, saved: Any) -> None:
    known["findings"] = [f for f in known["findings"] if f["rule"] == "tail-refcount"]
    files = [
        saved(known, "one"),
        saved("R01 *", "two"),
        saved("refcount-below-mapcount *", "three"),
    ]
    assert audit(leak.prog, baseline=files).verdict == "clean"
    assert [audit(leak.prog, baseline=[one]).fresh("error") for one in files] == [4, 4, 4]


# ---------------------------------------------------------------- what a baseline cannot do


def test_it_hides_no_page_that_was_not_read(known: Report, saved: Any) -> None:
    vmcore = fresh_vmcore(LEAK)
    size = vmcore.kernel.layout.page_size
    lose(vmcore.prog, vmcore.kernel.layout.page_address(0x108000), 64 * size)
    result = audit(vmcore.prog, baseline=[saved(known)])
    assert not result.fresh("error") and result.accepted("error") == 6
    assert (result.verdict, result.exit_code) == ("incomplete", 3)
    assert "incomplete: not every page could be judged; accepted: 6" in audit_text(result)


def test_it_accepts_nothing_that_found_no_room(leak: Vmcore, known: Report, saved: Any) -> None:
    result = audit(leak.prog, baseline=[saved(known)])
    result.findings.pop(0)
    result.findings_dropped = 1
    assert result.exit_code == 1


def test_a_rule_beside_another_one_may_get_worse(leak: Vmcore, known: Report, saved: Any) -> None:
    for one in known["findings"]:
        if one["severity"] == "error":
            one.update(rule="idle-count-mismatch", severity="warning", also=[one["rule"]])
    assert audit(leak.prog, baseline=[saved(known)]).fresh("error") == 6


def last_line(result: Any) -> str:
    return audit_text(result).splitlines()[-1].partition("; ")[2]


def test_new_warnings_are_told_whatever_is_accepted(
    leak: Vmcore, known: Report, saved: Any
) -> None:
    result = audit(leak.prog, baseline=[saved(known)])
    read = "clean: every page was read, and "
    assert last_line(result) == read + "nothing is new; accepted: 6 pages with errors"
    one = next(f for f in result.findings if f.accepted and f.pages == 1)
    one.accepted, one.severity = False, "warning"
    words = "no violation is new; 1 page with warnings; accepted: 5 pages with errors"
    assert result.fresh("warning") == 1 and result.verdict == "clean"
    assert last_line(result) == read + words
    one.accepted = True
    words = "nothing is new; accepted: 5 pages with errors, 1 page with warnings"
    assert last_line(result) == read + words
    for finding in result.findings:
        if finding.severity == "error":
            finding.severity = "info"
    assert last_line(result) == read + "nothing is new; accepted: 1 page with warnings"


def test_a_baseline_may_be_one_name(leak: Vmcore, known: Report, saved: Any) -> None:
    assert audit(leak.prog, baseline=saved(known)).verdict == "clean"


def test_fail_on(leak: Vmcore, known: Report, saved: Any) -> None:
    """Information is accepted where it makes violations, and only there."""
    path = saved(known)
    assert audit(leak.prog, baseline=[path]).accepted("info") == 0
    result = audit(leak.prog, baseline=[path], fail_on="info")
    assert result.accepted("info") == known["summary"]["infos"] > 0
    assert result.verdict == "clean"
    assert audit(leak.prog, baseline=[saved("R01 *")], fail_on="info").verdict == "violations"


def test_validate_names_what_is_new(leak: Vmcore, known: Report, saved: Any) -> None:
    first = known["findings"][0]
    assert first["severity"] == "error"
    with pytest.raises(ValidationError, match=f"{first['pfn']:#x}"):
        validate(leak.prog)
    path = saved(f"{first['rule']} *")
    with pytest.raises(ValidationError) as caught:
        validate(leak.prog, baseline=[path])
    assert f"{first['pfn']:#x}" not in str(caught.value)
    assert "4 pages in violation" in str(caught.value)
    assert validate(leak.prog, baseline=[saved(known)]).verdict == "clean"


def test_validate_where_what_is_new_found_no_room(
    leak: Vmcore, known: Report, saved: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = audit(leak.prog, baseline=[saved(known)])
    result.findings.pop(0)
    result.findings_dropped = 1
    monkeypatch.setattr("zonedev.audit.audit", lambda *_, **__: result)
    with pytest.raises(ValidationError, match="among those that found no room"):
        validate(leak.prog)


# ---------------------------------------------------------------- entries that meet nothing


def places(entries: list[Report]) -> list[tuple[str, str, int]]:
    return [(one["rule"], one["place"], one["pages"]) for one in entries]


def test_stale_entries_are_told(leak: Vmcore, known: Report, saved: Any) -> None:
    run = next(f for f in known["findings"] if f["pfn"] == 0x1082FC)
    run.update(count=4, pages=4)
    tail = next(f for f in known["findings"] if f["pfn"] == 0x12E209)
    tail["pfn"] += 1
    result = audit(leak.prog, baseline=[saved(known)])
    assert result.baseline
    assert places(result.baseline.stale) == [
        ("reference-on-free-folio", "pmem0+0x82fe-0x82ff", 2),
        ("tail-refcount", "dax1.0+0x20a", 1),
    ]
    assert result.exit_code == 1 and not result.baseline.not_read_again
    assert "taken out of the baseline:\n    reference-on-free-folio pmem0+0x82fe-0x82ff\n" in (
        audit_text(result)
    )
    # The place is one that a line can have.
    line = " ".join(places(result.baseline.stale)[1][:2])
    assert read_baseline([saved(line)]).lines[0].first == 0x20A


def test_stale_lines_are_told(leak: Vmcore, saved: Any) -> None:
    path = saved("R01 pmem0\ndying-busy pmem0\ntail-refcount pmem9+0-3\n")
    result = audit(leak.prog, baseline=[path])
    assert result.baseline and result.baseline.entries == 3
    assert [one["place"] for one in result.baseline.stale] == ["pmem0", "pmem9+0-3"]
    validate_json(audit_dict(result), SCHEMA)


@pytest.mark.parametrize("how", ["pgmap", "lost"])
def test_what_was_not_looked_at_is_not_stale(saved: Any, how: str) -> None:
    vmcore = fresh_vmcore(LEAK)
    path = saved("tail-refcount dax1.0+0x209\ndying-busy pmem0\ndying-busy dax1.0\n")
    options: dict[str, Any] = {"pgmaps": ["pmem0"]} if how == "pgmap" else {}
    if how == "lost":
        layout = vmcore.kernel.layout
        lose(vmcore.prog, layout.page_address(0x12E000), 1024 * layout.page_size)
    result = audit(vmcore.prog, baseline=[path], **options)
    assert result.baseline
    assert [one["place"] for one in result.baseline.stale] == ["pmem0"]
    open_ = [one["place"] for one in result.baseline.not_read_again]
    assert open_ == ["dax1.0+0x209", "dax1.0"]


def test_without_a_pass_its_findings_are_not_stale(saved: Any) -> None:
    vmcore = open_vmcore("7.2-entries")
    path = saved("mapping-without-entry pmem0")
    for quick in (False, True):
        baseline = audit(vmcore.prog, baseline=[path], quick=quick).baseline
        assert baseline and (len(baseline.stale), len(baseline.not_read_again)) == (
            (0, 1) if quick else (1, 0)
        )


def test_a_report_of_another_kernel_is_noted(leak: Vmcore, known: Report, saved: Any) -> None:
    assert not getattr(audit(leak.prog, baseline=[saved(known)]).baseline, "notes", None)
    known["kernel"]["release"] = "7.1"
    result = audit(leak.prog, baseline=[saved(known)])
    assert result.verdict == "clean" and result.baseline
    assert result.baseline.notes == ["it is of Linux 7.1"]


# ---------------------------------------------------------------- which folios of a run

LOOK = Look("error", "7.2", True, frozenset(), lambda pagemap, pfn, pages: (pfn, b"x"))


def result_of(finding: Finding) -> PagemapResult:
    ranges = [PfnRange(0, 1 << 12, 0)]
    ref = PgmapRef("live", 1)
    pagemap = Pagemap(
        finding.pagemap,
        "MEMORY_DEVICE_FS_DAX",
        "pmem0",
        None,
        ranges,
        ref,
        0,
        None,
        None,
        None,
        {},
        [],
        1,
    )
    return PagemapResult(pagemap, 0)


@given(
    order=st.integers(0, 3),
    count=st.integers(1, 8),
    cut=st.integers(0, 7),
    ranges=st.lists(st.tuples(st.integers(0, 80), st.integers(1, 20)), max_size=6),
)
def test_a_folio_is_accepted_with_all_its_pages(
    order: int, count: int, cut: int, ranges: list[tuple[int, int]]
) -> None:
    pages = (count << order) - min(cut, (1 << order) - 1)
    run = Finding("R", "error", 1, pfn=8, count=count, order=order, pages=pages, folio_pfn=8)
    accepted = [(start, start + length) for start, length in ranges]
    mine = [(max(a, 8), min(b, 8 + pages)) for a, b in accepted if max(a, 8) < min(b, 8 + pages)]
    parts = list(module._divided(run, module._folios(run, mine), LOOK.again))
    seen: dict[int, bool] = {}
    for part in parts:
        assert part.pfn is not None and part.count > 0
        assert part.folio_pfn == part.pfn
        assert -(-part.pages >> order) == part.count
        seen.update(dict.fromkeys(range(part.pfn, part.pfn + part.pages), part.accepted))
    covered = {pfn for a, b in mine for pfn in range(a, b)}
    expected = {}
    for folio in range(count):
        own = range(8 + (folio << order), min(8 + (folio + 1 << order), 8 + pages))
        expected.update(dict.fromkeys(own, covered.issuperset(own)))
    assert seen == expected
    assert sum(part.count for part in parts) == count and sum(p.pages for p in parts) == pages
    # Neighbours differ: nothing is divided without need.
    assert all(one.accepted != other.accepted for one, other in zip(parts, parts[1:]))


def test_lines_on_a_whole_pagemap(saved: Any) -> None:
    """A finding on the pagemap itself is met by a line that names no pages of it."""
    one = Finding("dying-busy", "error", 1)
    for place, accepted in (
        ("pmem0", True),
        ("*", True),
        ("pmem0+0-4095", False),
        ("pmem1", False),
    ):
        found, result = accept(
            read_baseline([saved(f"dying-busy {place}")]), [one, one], [result_of(one)], LOOK
        )
        assert [f.accepted for f in found] == [accepted, accepted]
        assert bool(result.stale) != accepted


def test_what_is_new_is_explained_first(
    leak: Vmcore, known: Report, saved: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zonedev.explain._FINDINGS_MAX", 1)
    first, second = known["findings"][:2]
    path = saved({**known, "findings": [first]})
    for files, pfn in (((), first["pfn"]), ((path,), second["pfn"])):
        result = audit(leak.prog, explain=True, baseline=files)
        assert [f.pfn for f in result.findings if f.explanation] == [pfn]


def test_an_accepted_finding_is_a_copy(saved: Any) -> None:
    """Who holds the findings of a scan keeps them as they were."""
    run = Finding("tail-refcount", "error", 1, pfn=3, refcount=1, expected=0)
    found, result = accept(read_baseline([saved("tail-refcount *")]), [run], [result_of(run)], LOOK)
    assert found == [replace(run, accepted=True)] and not run.accepted
    assert not result.stale
