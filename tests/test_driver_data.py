# SPDX-License-Identifier: LGPL-2.1-or-later
"""Rule zdd on real private pages: whether a driver sets zone_device_data is told by its other pages."""

from __future__ import annotations

import struct

import pytest
from conftest import Vmcore, lay_over, open_vmcore
from drgn import Program

from zonedev.audit import audit, folio
from zonedev.model import Audit, Pagemap
from zonedev.target import Target, open_target

NAME = "6.16-hmm"


def fresh(vmcore: Vmcore) -> Program:
    return open_target(Target(vmcore.core, [vmcore.vmlinux]))


def used(vmcore: Vmcore, type_: str) -> tuple[Pagemap, list[int]]:
    """A pagemap of a type, and its pages that are mapped."""
    layout = vmcore.kernel.layout
    pagemap = next(p for p in vmcore.kernel.pagemaps if p.type == f"MEMORY_DEVICE_{type_}")
    (range_,) = pagemap.ranges
    data = vmcore.prog.read(layout.page_address(range_.first_pfn), range_.pages * layout.page_size)
    mapcounts = range(layout.fields["_mapcount"][0], len(data), layout.page_size)
    counts = [struct.unpack_from("<i", data, at)[0] for at in mapcounts]
    return pagemap, [range_.first_pfn + i for i, n in enumerate(counts) if n >= 0]


def without_data(vmcore: Vmcore, pfns: list[int]) -> Program:
    prog, layout = fresh(vmcore), vmcore.kernel.layout
    offset, size, _ = layout.fields["zone_device_data"]
    for pfn in pfns:
        lay_over(prog, layout.page_address(pfn) + offset, bytes(size))
    return prog


def hit(result: Audit) -> set[int]:
    return {
        pfn
        for f in result.findings
        if "zdd" in (f.rule, *f.also) and f.pfn is not None
        for pfn in range(f.pfn, f.pfn + f.count)
    }


def why_not(result: Audit) -> list[str]:
    return [e["why"] for e in result.not_applicable if e["rule"] == "zdd"]


@pytest.mark.parametrize("type_", ["PRIVATE", "COHERENT"])
def test_pages_in_use_without_data_among_pages_that_have_it(type_: str) -> None:
    vmcore = open_vmcore(NAME)
    pagemap, pfns = used(vmcore, type_)
    assert len(pfns) == 704
    prog = without_data(vmcore, [pfns[5], pfns[100], pfns[101]])
    result = audit(prog)
    assert hit(result) == {pfns[5], pfns[100], pfns[101]} and not why_not(result)
    assert {f.severity for f in result.findings if f.rule == "zdd"} == {"info"}
    assert {f.pagemap for f in result.findings if f.rule == "zdd"} == {pagemap.address}
    # One page is judged as all are.
    asked = {pfn: folio(prog, hex(pfn)).findings for pfn in (pfns[5], pfns[6])}
    assert {pfn: [f.rule for f in found] for pfn, found in asked.items()} == {
        pfns[5]: ["zdd"],
        pfns[6]: [],
    }
    before = audit(fresh(vmcore))
    assert not hit(before) and not why_not(before)
    assert result.classes == before.classes and result.verdict == before.verdict


def test_a_driver_most_of_whose_pages_have_none_does_not_set_it() -> None:
    vmcore = open_vmcore(NAME)
    _, pfns = used(vmcore, "COHERENT")
    half = len(pfns) // 2
    assert len(hit(audit(without_data(vmcore, pfns[: half - 1])))) == half - 1
    result = audit(without_data(vmcore, pfns[:half]))
    assert not hit(result)
    (why,) = why_not(result)
    assert why.endswith(
        "352 of 704 folios in use have no zone_device_data: its driver does not set it"
    )
