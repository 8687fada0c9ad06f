# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pagemaps that pages name, on real cores: the same as the registry has, and what is said where it has not."""

from __future__ import annotations

import pytest
from conftest import NAMES, Vmcore, fresh_vmcore, lay_over, open_vmcore
from drgn import Program
from drgn.helpers.linux.mmzone import pfn_to_section

from zonedev.audit import audit, for_each_dev_pagemap, list_pagemaps
from zonedev.errors import TargetError
from zonedev.kernel import facts, registry
from zonedev.kernel.by_pages import Found, find_by_pages
from zonedev.kernel.registry import Registry
from zonedev.model import Pagemap
from zonedev.report.data import audit_dict


def by_pages(vmcore: Vmcore, known: list[Pagemap]) -> Found:
    return find_by_pages(vmcore.prog, vmcore.kernel.layout, vmcore.kernel.scheme, known)


# Slices with their memory sections; the others hold those of no or some ranges.
WHOLE = ["5.10-teardown-tasks", "6.1-entries", "6.16-p2p-leak"]


@pytest.mark.parametrize("name", NAMES)
def test_pages_name_the_pagemaps_of_the_registry(name: str) -> None:
    vmcore = open_vmcore(name)
    assert by_pages(vmcore, vmcore.kernel.pagemaps).pagemaps == []
    found = by_pages(vmcore, [])
    registered = {p.address: p.ranges for p in vmcore.kernel.pagemaps}
    named = {p.address: p.ranges for p in found.pagemaps}
    assert named.items() <= registered.items()
    if name in WHOLE:
        assert named == registered and not found.rest


def without_registry(name: str) -> Vmcore:
    """A core whose registry is empty."""
    vmcore = fresh_vmcore(name)
    head = vmcore.prog["pgmap_array"].xa_head.address_of_().value_()
    lay_over(vmcore.prog, head, bytes(8))
    return vmcore


@pytest.mark.parametrize("name", WHOLE)
def test_an_empty_registry_beside_pages_that_name_pagemaps_was_lost(name: str) -> None:
    vmcore = without_registry(name)
    result = audit(vmcore.prog)
    pagemaps = open_vmcore(name).kernel.pagemaps
    assert [r.pagemap.address for r in result.pagemaps] == [p.address for p in pagemaps]
    assert not [f for f in result.findings if f.rule == "registry-coverage"]
    told = f"the pagemap registry is empty, and pages name {len(pagemaps)} pagemaps"
    assert told in result.problems[0] and result.verdict != "clean"


@pytest.mark.parametrize("damaged", [False, True])
def test_a_pagemap_that_only_pages_name_is_a_finding_of_a_whole_registry(
    monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    vmcore = open_vmcore("6.1-entries")
    lost = vmcore.kernel.pagemaps[1].address
    read = facts.read_registry

    def without(prog: Program) -> Registry:
        whole = read(prog)
        entries = {address: pfns for address, pfns in whole.entries.items() if address != lost}
        items = [item for item in whole.items if item.value != lost]
        problems = ["a node of the registry cannot be read"] if damaged else []
        return whole._replace(entries=entries, items=items, problems=problems)

    monkeypatch.setattr(facts, "read_registry", without)
    result = audit(vmcore.prog)
    assert lost in {r.pagemap.address for r in result.pagemaps}
    told = {f.pagemap for f in result.findings if f.rule == "registry-coverage"}
    assert told == (set() if damaged else {lost})
    assert any("damaged, and pages name 1 pagemaps" in text for text in result.problems) == damaged
    assert result.verdict == ("incomplete" if damaged else "violations")


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The zone of the cores here, which slices do not hold."""
    monkeypatch.setattr(facts, "zone_device_spans", lambda prog: [(0x100000, 0x240000)])


@pytest.fixture
def no_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_SOURCES", ())


def test_a_registry_that_cannot_be_found_is_done_without(
    zone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    vmcore = open_vmcore("6.1-entries")
    before = audit_dict(audit(vmcore.prog))
    monkeypatch.setattr(registry, "_SOURCES", ())
    after = audit_dict(audit(vmcore.prog))
    for part in ("findings", "summary", "problems"):
        assert after[part] == before[part]
    told = [one for one in after["not_applicable"] if one["rule"] == "registry-coverage"]
    assert len(told) == len(before["pagemaps"]) and "cannot be found" in told[0]["why"]
    addresses = [p.address for p in vmcore.kernel.pagemaps]
    assert [p.address for p in list_pagemaps(vmcore.prog)] == addresses
    assert {p.value_() for p in for_each_dev_pagemap(vmcore.prog)} == set(addresses)


def test_a_pagemap_that_pages_do_not_lead_to_is_missed_and_told(
    zone: None, no_registry: None
) -> None:
    vmcore = fresh_vmcore("6.1-entries")
    first = open_vmcore("6.1-entries").kernel.pagemaps[0]
    lay_over(vmcore.prog, first.address, bytes(64))
    result = audit(vmcore.prog)
    assert first.address not in {r.pagemap.address for r in result.pagemaps}
    assert "do not say whose they are" in result.problems[0] and result.verdict == "incomplete"


@pytest.mark.parametrize("what", ["frame", "table"])
def test_neither_registry_nor_sections_is_an_error(
    zone: None, no_registry: None, what: str
) -> None:
    vmcore = fresh_vmcore("6.1-entries")
    sections = vmcore.prog["mem_section"]
    if what == "frame":
        lay_over(vmcore.prog, int(pfn_to_section(vmcore.prog, 0x100000)) & -4096, bytes(4096))
    else:
        lay_over(vmcore.prog, int(sections.address_of_()), (0x1000).to_bytes(8, "little"))
    with pytest.raises(TargetError, match="the pagemap registry cannot be found"):
        audit(vmcore.prog)


def test_a_machine_whose_devices_were_all_removed_is_clean(zone: None) -> None:
    vmcore = without_registry("6.1-entries")
    ranges = [r for p in open_vmcore("6.1-entries").kernel.pagemaps for r in p.ranges]
    for range_ in ranges:
        for pfn in range(range_.start_pfn >> 15 << 15, range_.end_pfn, 1 << 15):
            lay_over(vmcore.prog, int(pfn_to_section(vmcore.prog, pfn)), bytes(8))
    result = audit(vmcore.prog)
    assert (result.verdict, result.problems, result.pagemaps) == ("clean", [], [])
