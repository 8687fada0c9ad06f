# SPDX-License-Identifier: LGPL-2.1-or-later
"""The bundled vmcores of real kernels against the records of what was done to their pages.

truth-states.json was replayed from the workload's record, not from the core: where the two disagree,
one of them is wrong, and it is not to be edited here.
"""

from __future__ import annotations

from collections import Counter

import pytest
import verify
from conftest import NAMES, Vmcore, fresh_vmcore, lay_over, open_vmcore
from drgn import Object

from zonedev.audit import audit
from zonedev.kernel.vmemmap import Hole, read_memmap
from zonedev.model import Audit

# References were taken and put by a module before what explains pages was cut out.
EXPLAIN = [n for n in NAMES if n.endswith("explain")]
NVDIMM_EXPLAIN = [n for n in EXPLAIN if "hmm" not in n and "p2p" not in n]
HEALTHY = [n for n in NAMES if "leak" not in n and "teardown" not in n and n not in EXPLAIN]
LEAK = [n for n in NAMES if "nvdimm-leak" in n or "kdump-leak" in n] + NVDIMM_EXPLAIN
# With the super blocks, and the DAX entries of all files.
ENTRIES = [
    n for n in NAMES if "entries" in n or "5.10-teardown-tasks" in n or "btf-nvdimm" in n
] + NVDIMM_EXPLAIN
# Of System RAM only: what lies on the devices is not in the core.
RAM_ONLY = [n for n in NAMES if "ram-only" in n or "kdump" in n]

LETTERS = {
    "5.10": "C",
    "6.1": "E",
    "6.12": "E",
    "6.16": "G",
    "6.19": "H",
    "7.0": "H",
    "7.1": "H",
    "7.2": "H",
    "7.3": "H",
}


def run_audit(name: str) -> Audit:
    result: Audit = audit(open_vmcore(name).prog)
    return result


def captured_runs(vmcore: Vmcore, pfn: int, count: int) -> list[tuple[int, int]]:
    """(pfn, end) of the pages of a run whose struct pages the core holds."""
    layout = vmcore.kernel.layout
    runs: list[tuple[int, int]] = []
    for piece in read_memmap(vmcore.prog, layout.page_address(pfn), count, layout):
        if isinstance(piece, Hole):
            pfn += piece.pages
            continue
        end = pfn + len(piece.data) // layout.page_size
        start = runs.pop()[0] if runs and runs[-1][1] == pfn else pfn
        runs.append((start, end))
        pfn = end
    return runs


def captured(vmcore: Vmcore) -> list[verify.State]:
    """The record, as far as the core holds the struct pages that it speaks of."""
    found = []
    for state in vmcore.states:
        for pfn, end in captured_runs(vmcore, state["pfn"], state["count"]):
            assert (end - pfn) % (1 << (state["order"] or 0)) == 0, "a folio in parts"
            found.append(dict(state, pfn=pfn, count=end - pfn))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_page_has_the_recorded_counts(name: str) -> None:
    vmcore = open_vmcore(name)
    for state in captured(vmcore):
        assert not list(verify.count_differences(vmcore.prog, vmcore.kernel, state))


@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_page_has_the_recorded_class(name: str) -> None:
    vmcore = open_vmcore(name)
    findings = run_audit(name).findings
    entries = verify.entries_of(vmcore.kernel)
    assert (entries is not None) == (name in ENTRIES)
    for state in captured(vmcore):
        assert not list(
            verify.class_differences(vmcore.prog, vmcore.kernel, state, findings, entries)
        )


@pytest.mark.parametrize("name", NAMES)
def test_what_the_record_calls_wrong_is_found_and_nothing_else(name: str) -> None:
    vmcore = open_vmcore(name)
    findings = [f for f in run_audit(name).findings if f.rule != "memmap-unreadable"]
    assert not list(verify.finding_differences(captured(vmcore), findings, name in ENTRIES))
    pagemaps = vmcore.truth.get("pagemaps", [])
    assert not list(verify.pagemap_differences(vmcore.kernel, pagemaps, findings))


@pytest.mark.parametrize("name", NAMES)
def test_recorded_pages_that_are_not_in_the_core_are_not_captured(name: str) -> None:
    vmcore = open_vmcore(name)
    classes = run_audit(name).classes
    lost = sum(s["count"] for s in vmcore.states) - sum(s["count"] for s in captured(vmcore))
    assert bool(lost) == (name in RAM_ONLY)
    assert (classes["not-captured"], classes["unreadable"]) == (lost, 0)


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_kernels_have_no_error(name: str) -> None:
    result = run_audit(name)
    assert [f for f in result.findings if f.severity == "error"] == []
    assert result.exit_code == (3 if name in RAM_ONLY else 0)


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
        "7.3": {"refcount-below-mapcount", "reference-on-free-folio", "tail-refcount"},
    }
    kernel = name.split("-")[0]
    # Reflinked pages of 6.1 name one of their files, or none: its entries tell.
    shared = {"multi-owner-unshared", "entry-page-mismatch"}
    told = shared if kernel == "6.1" and name in ENTRIES else set()
    assert set(rules) == wanted[kernel] | told


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
        dying = any(pagemap.covers(state["pfn"]) for state in vmcore.truth.get("pagemaps", []))
        assert pagemap.ref.state == ("dying" if dying else "live")
        if not dying and pagemap.type in ("MEMORY_DEVICE_FS_DAX", "MEMORY_DEVICE_GENERIC"):
            # In scheme C the last put of a page gives its reference back.
            held = result.pages_referenced if vmcore.kernel.info.id == "C" else pagemap.folios
            assert pagemap.ref.count == 1 + held


def test_removal_that_waits_names_the_pages_that_it_waits_for() -> None:
    result = run_audit("5.10-teardown")
    (dying,) = [p for p in result.pagemaps if p.pagemap.ref.state == "dying"]
    findings = [f for f in result.findings if f.pagemap == dying.pagemap.address]
    assert {f.rule: f.severity for f in findings} == {
        "dying-busy": "error",
        "reference-outlives-mapping": "warning",
    }
    held = sum(f.pages for f in findings if f.pfn is not None)
    assert dying.pagemap.ref.count == held == 8
    assert dying.idle_refcount == 0


def test_a_pagemap_that_is_being_added_leaves_the_audit_incomplete() -> None:
    """memremap_pages() stores the ranges last; until then nobody knows which pages are its."""
    vmcore = fresh_vmcore("7.2-nvdimm")
    prog = vmcore.prog
    (pagemap,) = [p for p in vmcore.kernel.pagemaps if p.device == "pmem0"]
    nr_range = Object(prog, "struct dev_pagemap *", value=pagemap.address).nr_range
    lay_over(prog, nr_range.address_, bytes(4))
    result = audit(prog)
    assert (result.verdict, result.exit_code) == ("incomplete", 3)
    assert [p for p in result.problems if f"{pagemap.address:#x}" in p and "is being added" in p]
    assert {f.severity for f in result.findings if f.pagemap == pagemap.address} == {"info"}


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
