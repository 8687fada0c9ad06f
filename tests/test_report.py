# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reports: JSON against its schema, the formats against each other, text against the numbers."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace

import jsonschema
import pytest
from conftest import ROOT, Vmcore, open_vmcore

from zonedev import _zonedev
from zonedev.audit import audit, folio, validate
from zonedev.errors import ValidationError
from zonedev.model import Audit, Finding
from zonedev.page import folio_report
from zonedev.report import data, text

SCHEMA = json.loads((ROOT / "docs" / "audit.schema.json").read_text())


def run_audit(name: str) -> Audit:
    result: Audit = audit(open_vmcore(name).prog)
    return result


def test_json_follows_its_schema(vmcore: Vmcore) -> None:
    report = json.loads(data.to_json(data.audit_dict(run_audit(vmcore.name))))
    jsonschema.validate(report, SCHEMA)
    summary = report["summary"]
    for one in report["pagemaps"]:
        assert sum(one["classes"].values()) == one["pages"]
    assert sum(summary["classes"].values()) == summary["pages"]
    pages = {"info": 0, "warning": 0, "error": 0}
    for finding in report["findings"]:
        pages[finding["severity"]] += finding["count"] << finding["order"]
    assert [pages[s] for s in ("error", "warning", "info")] == [
        summary[key] for key in ("errors", "warnings", "infos")
    ]


def test_schema_refuses_what_it_should() -> None:
    report = data.audit_dict(run_audit("7.2-nvdimm"))
    for key in ("summary", "findings", "scheme"):
        broken = {k: v for k, v in report.items() if k != key}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, SCHEMA)


def test_formats_agree() -> None:
    result = run_audit("7.2-nvdimm-leak")
    whole = data.audit_dict(result)
    rows = list(csv.DictReader(io.StringIO(data.audit_csv(result))))
    assert [int(r["pfn"]) for r in rows if r["pfn"]] == [
        f["pfn"] for f in whole["findings"] if f["pfn"] is not None
    ]
    lines = [json.loads(line) for line in data.audit_ndjson(result).splitlines()]
    assert [line["kind"] for line in lines][-1] == "summary"
    assert lines[-1]["verdict"] == "violations"
    listed = {"pagemaps", "findings", "summary"}
    assert set(lines[-1]) == {"kind", *(set(whole) - listed), *whole["summary"]}
    by_kind = {kind: [x for x in lines if x["kind"] == kind] for kind in ("pagemap", "finding")}
    assert len(by_kind["pagemap"]) == len(whole["pagemaps"])
    assert [f["raw"] for f in by_kind["finding"]] == [f["raw"] for f in whole["findings"]]


def test_severity_hides_findings_and_changes_no_sum() -> None:
    result = run_audit("7.2-nvdimm-leak")
    errors = data.audit_dict(result, "error")
    assert {f["severity"] for f in errors["findings"]} == {"error"}
    assert errors["summary"] == data.audit_dict(result)["summary"]


def test_text_says_what_the_numbers_say() -> None:
    result = run_audit("7.2-nvdimm-leak")
    out = text.audit_text(result)
    assert out.startswith(
        "Linux 7.2.12+deb13-amd64 x86_64, 4 KiB pages; scheme H (high confidence)"
    )
    total = next(line for line in out.splitlines() if line.startswith("total")).split()
    assert total[1:] == [str(result.pages), *(str(n) for n in result.classes.values() if n)]
    assert "error: reference-on-free-folio, 2 pages" in out
    assert re.search(r"pmem0; pfn 0x1082fc-0x1082fd \(2 pages\); refcount 1 \(expected 0\)", out)
    assert out.rstrip().endswith("violations: 6 pages with errors, 0 pages with warnings")
    # Information is counted, and shown when asked for.
    assert "dma-pinned 1072" in out
    assert "info: dma-pinned" not in out
    assert "info: dma-pinned" in text.audit_text(result, "info")


def test_text_names_what_was_transient() -> None:
    result = run_audit("7.2-nvdimm")
    assert "transient" not in str(result)
    gone = [replace(result.findings[0], rule=rule) for rule in ("bad-head", "tail-refcount")]
    shown = str(replace(result, transients=[*gone, gone[1]]))
    assert "transient, gone or changed in a later sample: tail-refcount 2, bad-head 1" in shown


def test_findings_are_sorted_worst_first() -> None:
    order = ["error", "warning", "info"]
    for name in ("6.1-nvdimm-leak", "7.2-nvdimm-leak"):
        ranks = [order.index(f.severity) for f in run_audit(name).findings]
        assert ranks == sorted(ranks)


def test_verdict_follows_fail_on() -> None:
    prog = open_vmcore("6.1-nvdimm").prog
    assert audit(prog).exit_code == 0
    assert audit(prog, fail_on="warning").exit_code == 1
    assert audit(open_vmcore("7.2-nvdimm").prog, fail_on="info").verdict == "violations"


def test_validate_raises_with_the_result() -> None:
    assert validate(open_vmcore("7.2-nvdimm").prog).verdict == "clean"
    with pytest.raises(ValidationError, match="6 pages in violation") as caught:
        validate(open_vmcore("7.2-nvdimm-leak").prog)
    assert isinstance(caught.value.result, Audit)


@pytest.mark.parametrize(
    ("name", "what", "class_", "rule"),
    [
        ("7.2-nvdimm-leak", "0x1082fc", "violation", "reference-on-free-folio"),
        ("7.2-nvdimm-leak", "1083911", "violation", "tail-refcount"),
        ("7.2-nvdimm", "phys:0x100000000", "idle", None),
        ("6.1-nvdimm-leak", "0x12e209", "violation", "tail-refcount"),
    ],
)
def test_one_page(name: str, what: str, class_: str, rule: str) -> None:
    report = folio(open_vmcore(name).prog, what)
    assert report.class_ == class_
    assert [f.rule for f in report.findings if f.severity == "error"] == ([rule] if rule else [])
    out = str(report)
    assert f"class       {class_}" in out
    assert hex(report.address) in out
    assert json.loads(data.to_json(data.folio_dict(report)))["class"] == class_


def test_address_of_a_struct_page_is_understood() -> None:
    vmcore = open_vmcore("7.2-nvdimm")
    address = vmcore.kernel.layout.page_address(0x100123)
    report = folio(vmcore.prog, hex(address + 8))
    assert report.pfn == 0x100123
    assert "is the struct page of pfn 0x100123" in report.asked


def test_folio_of_a_tail_where_the_order_of_a_pmd_is_not_known() -> None:
    """As with 64 KiB pages on powerpc."""
    kernel = open_vmcore("7.2-nvdimm").kernel
    spec = {**kernel.layout.spec, "pmd_order": 0}
    made = _zonedev.Layout(**spec, zone=kernel.layout.zone, node=kernel.layout.node)
    unknown = replace(kernel.layout, layout=made, spec=spec, pmd_order=0)
    for layout in (kernel.layout, unknown):
        report = folio_report(replace(kernel, layout=layout), "0x10fa05", quick=True)
        assert (report.head["order"], report.class_) == (9, "busy")
        assert [f.rule for f in report.findings] == ["held-without-map"]


def test_page_of_a_removed_pagemap_whose_scheme_is_calibrated() -> None:
    kernel = open_vmcore("5.10-teardown").kernel
    (pagemap,) = (p for p in kernel.pagemaps if p.drained)
    unsure = replace(kernel, scheme=kernel.scheme.calibrated(pagemap.type, 1))
    assert unsure.scheme.confidence == "low"
    report = folio_report(unsure, str(pagemap.ranges[0].first_pfn + 100))
    assert (report.class_, report.idle_refcount, report.findings) == ("idle", 0, [])


def test_file_of_a_page_is_named() -> None:
    report = folio(open_vmcore("7.2-nvdimm").prog, "1131008")
    assert report.owner == "inode 4116 of pmem2 (xfs)"


def test_text_tells_pages_from_pagemaps() -> None:
    result = run_audit("5.10-teardown")
    assert text.closing(result).endswith("violations: 1 pagemap with errors, 8 pages with warnings")
    (pagemap,) = [f for f in result.findings if f.severity == "error"]
    page = next(f for f in result.findings if f.severity == "warning")
    more = replace(result, findings=[*result.findings, replace(pagemap, severity="warning")])
    assert text.closing(more).endswith("8 pages and 1 pagemap with warnings")
    assert page.pfn is not None


def test_text_explains_a_finding_by_the_row_of_its_scheme() -> None:
    """stale-mapping has a row for C to H, where the page is free, and one for D, where it may be in use."""
    result = run_audit("6.16-hmm")
    pagemap = result.pagemaps[0].pagemap
    found = Finding("stale-mapping", "warning", pagemap.address, pfn=pagemap.ranges[0].start_pfn)
    for letter, words in (("C", "still names its last user"), ("D", "free or in use")):
        info = replace(result.scheme, id=letter)
        shown = text.findings_text(replace(result, findings=[found], scheme=info), "info")
        assert words in shown
