# SPDX-License-Identifier: LGPL-2.1-or-later
"""The bundled vmcores of real kernels against the records of what was done to their pages.

truth-states.json was replayed from the workload's record, not from the core: where the two disagree,
one of them is wrong, and it is not to be edited here.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from conftest import NAMES, Vmcore, open_vmcore

from zonedev import _zonedev
from zonedev.audit import audit
from zonedev.kernel.vmemmap import Hole, read_memmap
from zonedev.model import Audit, Finding, Pagemap
from zonedev.scanner import pagemap_spec

HEALTHY = [n for n in NAMES if "leak" not in n]
LEAK = [n for n in NAMES if "leak" in n]
COMPLETE = [n for n in NAMES if "ram-only" not in n]

# Only the search of DAX entries can tell this from a block of one file.
NEEDS_ENTRIES = "block of two files, not marked shared"

LETTERS = {"5.10": "C", "6.1": "E", "6.12": "E", "7.2": "H"}


def run_audit(name: str) -> Audit:
    result: Audit = audit(open_vmcore(name).prog)
    return result


def pagemap_of(vmcore: Vmcore, pfn: int) -> Pagemap:
    pagemap = vmcore.kernel.find(pfn)
    assert pagemap is not None, f"no pagemap covers pfn {pfn:#x} of the record"
    return pagemap


def tally(vmcore: Vmcore, pfn: int, count: int) -> dict[str, Any]:
    """Scan the pages [pfn, pfn + count) by themselves."""
    layout = vmcore.kernel.layout
    scan = _zonedev.Scan(layout.layout, vmcore.kernel.scheme, pagemap_spec(pagemap_of(vmcore, pfn)))
    scan.begin(pfn, pfn + count, layout.page_address(pfn))
    for piece in read_memmap(vmcore.prog, layout.page_address(pfn), count, layout):
        if isinstance(piece, Hole):
            scan.hole(piece.pages, piece.class_)
        else:
            scan.pages(piece.data)
    scan.end()
    return scan.result()


def heads(vmcore: Vmcore, state: dict[str, Any]) -> list[dict[str, Any]]:
    """Decode every head of a run of the record."""
    layout, kernel = vmcore.kernel.layout, vmcore.kernel
    pagemap = pagemap_of(vmcore, state["pfn"])
    pages = 1 << (state["order"] or 0)
    first, end = state["pfn"], state["pfn"] + state["count"]
    bounds = (first, end, layout.page_address(first))
    decoded = []
    for pfn in range(first, end, pages):
        raw = vmcore.prog.read(layout.page_address(pfn), min(4, pages) * layout.page_size)
        decoded.append(
            _zonedev.decode(layout.layout, kernel.scheme, pagemap_spec(pagemap), bounds, pfn, raw)
        )
    return decoded


def mapping_kind(state: dict[str, Any], folio: dict[str, Any]) -> str:
    # A free private page keeps the index of its last user in that word.
    shared = folio["mapping"] == 1 or (not folio["mapping"] and folio["share"])
    if shared and state["type"] == "fsdax":
        return "shared"
    return "file" if folio["mapping"] else "none"


@pytest.mark.parametrize("name", COMPLETE)
def test_every_recorded_page_has_the_recorded_counts(name: str) -> None:
    vmcore = open_vmcore(name)
    wrong = []
    for state in vmcore.states:
        for folio in heads(vmcore, state):
            seen = {
                "refcount": folio["refcount"],
                "mapcount": folio["mapcount"],
                "order": folio["order"],
                "mapping": mapping_kind(state, folio),
            }
            for key, value in seen.items():
                if state[key] not in (None, "any", value):
                    wrong.append((hex(folio["pfn"]), key, state[key], value, state["why"]))
    assert not wrong, wrong[:10]


@pytest.mark.parametrize("name", COMPLETE)
def test_every_recorded_page_has_the_recorded_class(name: str) -> None:
    vmcore = open_vmcore(name)
    findings = run_audit(name).findings
    for state in vmcore.states:
        classes = {
            c: n for c, n in tally(vmcore, state["pfn"], state["count"])["classes"].items() if n
        }
        # Struct pages that share their memory with ones already read are counted by themselves.
        classes.pop("skipped", None)
        # What the record calls wrong is a violation where this kernel permits it in no way (error).
        wrong = (state.get("finding") or {}).get("level") == "error-or-warning"
        pfns = range(state["pfn"], state["pfn"] + state["count"])
        expected = "violation" if wrong and "error" in level_of(findings, pfns) else state["class"]
        assert set(classes) == {expected}, (hex(state["pfn"]), state, classes)


def covered(finding: Finding) -> range:
    assert finding.pfn is not None
    return range(finding.pfn, finding.pfn + finding.pages)


def level_of(findings: list[Finding], pfns: range) -> set[str]:
    return {f.severity for f in findings if f.pfn is not None and overlap(covered(f), pfns)}


def overlap(a: range, b: range) -> bool:
    return a.start < b.stop and b.start < a.stop


def alarming_states(vmcore: Vmcore) -> list[dict[str, Any]]:
    return [
        s
        for s in vmcore.states
        if (s.get("finding") or {}).get("level") == "error-or-warning"
        and s["finding"]["name"] != NEEDS_ENTRIES
    ]


@pytest.mark.parametrize("name", COMPLETE)
def test_what_the_record_calls_wrong_is_found_and_nothing_else(name: str) -> None:
    vmcore = open_vmcore(name)
    findings = run_audit(name).findings
    expected = set()
    for state in alarming_states(vmcore):
        tails = [int(pfn) for pfn in state.get("tail_refcounts", {})]
        pfns = tails or list(
            range(state["pfn"], state["pfn"] + state["count"], 1 << state["order"])
        )
        expected |= set(pfns)
    alarming = [f for f in findings if f.severity != "info"]
    assert all(f.pfn is not None for f in alarming), alarming
    reported = {pfn for f in alarming for pfn in covered(f)}
    assert reported == expected


@pytest.mark.parametrize("name", COMPLETE)
def test_holders_that_the_record_knows_are_information(name: str) -> None:
    vmcore = open_vmcore(name)
    findings = run_audit(name).findings
    for state in vmcore.states:
        if (state.get("finding") or {}).get("level") == "info":
            pfns = range(state["pfn"], state["pfn"] + state["count"])
            assert level_of(findings, pfns) == {"info"}, (hex(state["pfn"]), state)


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_kernels_have_no_error(name: str) -> None:
    result = run_audit(name)
    assert [f for f in result.findings if f.severity == "error"] == []
    assert result.exit_code == (3 if "ram-only" in name else 0)


@pytest.mark.parametrize("name", LEAK)
def test_leaks_are_violations(name: str) -> None:
    result = run_audit(name)
    assert result.verdict == "violations"
    assert result.exit_code == 1
    rules = Counter(f.rule for f in result.findings if f.severity != "info")
    # 6.1 has compound devdax folios, 7.2 counts maps: what was done shows in different rules.
    wanted = {
        "5.10": {"refcount-below-idle", "reference-outlives-mapping"},
        "6.1": {"refcount-below-idle", "reference-outlives-mapping", "tail-refcount"},
        "6.12": {"refcount-below-idle", "reference-outlives-mapping", "tail-refcount"},
        "7.2": {"refcount-below-mapcount", "reference-on-free-folio", "tail-refcount"},
    }
    assert set(rules) == wanted[name.split("-")[0]]


def test_classes_add_up(vmcore: Vmcore) -> None:
    result = run_audit(vmcore.name)
    for one in result.pagemaps:
        assert sum(one.classes.values()) == one.pagemap.pages
    assert sum(result.classes.values()) == result.pages
    altmap = sum(r.first_pfn - r.start_pfn for p in vmcore.kernel.pagemaps for r in p.ranges)
    assert sum(s["count"] for s in vmcore.states) == result.pages - altmap


def test_scheme_of_each_kernel(vmcore: Vmcore) -> None:
    assert vmcore.kernel.info.id == LETTERS[vmcore.name.split("-")[0]]
    assert vmcore.kernel.info.confidence == "high"
    assert not run_audit(vmcore.name).scheme.calibrated


def test_pagemap_references_equal_the_pages(vmcore: Vmcore) -> None:
    for result in run_audit(vmcore.name).pagemaps:
        pagemap = result.pagemap
        assert pagemap.ref.state == "live"
        if pagemap.type in ("MEMORY_DEVICE_FS_DAX", "MEMORY_DEVICE_GENERIC"):
            # In scheme C the last put of a page gives its reference back.
            held = result.pages_referenced if vmcore.kernel.info.id == "C" else pagemap.folios
            assert pagemap.ref.count == 1 + held


def test_names_of_devices() -> None:
    names = [p.device for p in open_vmcore("7.2-nvdimm").kernel.pagemaps]
    assert names == ["pmem0", "pmem2", "dax1.0", "dax1.1", "dax1.2", "dax3.0"]
    p2p = [p.device for p in open_vmcore("7.2-p2p-hmm").kernel.pagemaps if "P2PDMA" in p.type]
    assert p2p == ["0000:00:01.0"]
    # Before 6.1 the disk is found by the structure that embeds the pagemap.
    assert [p.device for p in open_vmcore("5.10-nvdimm").kernel.pagemaps][:2] == ["pmem0", "pmem2"]


@pytest.mark.parametrize("name", [n for n in NAMES if "ram-only" in n])
def test_memmap_on_the_device_is_not_captured(name: str) -> None:
    full = run_audit(name.replace("ram-only", "nvdimm"))
    result = run_audit(name)
    assert result.verdict == "incomplete"
    assert result.exit_code == 3
    altmap = {p.pagemap.device for p in result.pagemaps if p.pagemap.altmap}
    for one, whole in zip(result.pagemaps, full.pagemaps):
        lost = one.classes["not-captured"]
        if one.pagemap.device in altmap:
            # Partial sections lie in RAM even so: most is lost, and what was read says the same.
            assert lost > one.pagemap.pages // 2
            assert one.classes["idle"] <= whole.classes["idle"]
        else:
            assert one.classes == whole.classes
    assert {f.rule for f in result.findings} >= {"memmap-unreadable"}


def test_deduplicated_memmap_is_counted_once() -> None:
    result = run_audit("7.2-nvdimm")
    by_device = {p.pagemap.device: p for p in result.pagemaps}
    # 2 MiB folios: 512 struct pages of which the first 128 are their own.
    assert by_device["dax1.0"].classes["skipped"] == 40960 * 3 // 4
    # With an altmap there is no dedup; only the reserve is skipped.
    altmap = by_device["dax1.1"].pagemap.altmap
    assert altmap and by_device["dax1.1"].classes["skipped"] == altmap["reserve"] + altmap["free"]
    assert by_device["dax3.0"].classes["skipped"] == 786432 - 3 * 128


def test_memory_types_of_gpus_and_p2pdma() -> None:
    result = run_audit("7.2-p2p-hmm")
    types = Counter(p.pagemap.type for p in result.pagemaps)
    assert types == {
        "MEMORY_DEVICE_COHERENT": 2,
        "MEMORY_DEVICE_PCI_P2PDMA": 1,
        "MEMORY_DEVICE_PRIVATE": 4,
    }
    assert result.verdict == "clean"
    assert not [f for f in result.findings if f.severity != "info"]


def test_kernel_log_is_quoted() -> None:
    lines = run_audit("6.1-nvdimm").kernel_log
    assert any("fs/dax.c" in line and "WARNING" in line for line in lines)
    assert run_audit("7.2-nvdimm").kernel_log == []
