# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pagemaps whose removal has begun: a real removal that waits, with single words of it edited.

The edits lie over the memory of a bundled core, in a Program of their own.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import pytest
from conftest import fresh_vmcore, lay_over, open_vmcore
from drgn import Object, Program

from zonedev.audit import audit
from zonedev.kernel.facts import Kernel
from zonedev.model import Audit, Pagemap

REF_DEAD_ATOMIC = 3


class Removal(NamedTuple):
    """A fresh Program of a bundled core, and one pagemap of it."""

    prog: Program
    kernel: Kernel
    pagemap: Pagemap

    @property
    def last_pfn(self) -> int:
        return self.pagemap.ranges[-1].end_pfn - 1

    def page(self, pfn: int, words: Mapping[str, int]) -> None:
        """Members of a struct page, by the layout's names; 4 bytes each."""
        layout = self.kernel.layout
        data = bytearray(self.prog.read(layout.page_address(pfn), layout.page_size))
        for name, value in words.items():
            struct.pack_into("<i", data, layout.fields[name][0], value)
        lay_over(self.prog, layout.page_address(pfn), bytes(data))

    def audit(self) -> Audit:
        return audit(self.prog)


def removal(name: str, device: str | None = None) -> Removal:
    """The dying pagemap of a core, or that of a device."""
    vmcore = fresh_vmcore(name)
    (pagemap,) = [
        p
        for p in vmcore.kernel.pagemaps
        if (p.device == device if device else p.ref.state == "dying")
    ]
    return Removal(vmcore.prog, vmcore.kernel, pagemap)


def begin_removal(one: Removal) -> None:
    """percpu_ref_kill() as 5.10 has it: dead and atomic, the initial reference put."""
    assert one.pagemap.ref.count is not None
    ref = Object(one.prog, "struct dev_pagemap *", value=one.pagemap.address).ref
    pointer, counter = ref.percpu_count_ptr, ref.data.count.counter
    lay_over(one.prog, pointer.address_, struct.pack("<Q", int(pointer) | REF_DEAD_ATOMIC))
    lay_over(one.prog, counter.address_, struct.pack("<q", one.pagemap.ref.count - 1))


def found(one: Removal, result: Audit) -> Counter[tuple[str, str]]:
    """(rule, severity) -> pages, or 1 for the pagemap, of the findings above info."""
    counts: Counter[tuple[str, str]] = Counter()
    for finding in result.findings:
        if finding.pagemap == one.pagemap.address and finding.severity != "info":
            counts[finding.rule, finding.severity] += 1 if finding.pfn is None else finding.pages
    return counts


WAITING = Counter({("dying-busy", "error"): 1, ("reference-outlives-mapping", "warning"): 8})


def test_the_last_page_of_a_drained_pagemap_may_be_what_removal_waits_for() -> None:
    one = removal("5.10-teardown")
    assert found(one, one.audit()) == WAITING
    one.page(one.last_pfn, {"_refcount": 1})
    assert found(one, one.audit()) == WAITING + Counter(
        {("reference-outlives-mapping", "warning"): 1}
    )


def test_a_last_page_that_is_all_zero_says_nothing_of_the_others() -> None:
    one = removal("5.10-teardown")
    lay_over(
        one.prog,
        one.kernel.layout.page_address(one.last_pfn),
        bytes(one.kernel.layout.page_size),
    )
    result = one.audit()
    assert found(one, result) == WAITING
    assert result.classes["not-captured"] + result.classes["violation"] == 1


def test_how_many_folios_are_held_is_said() -> None:
    one = removal("5.10-teardown")
    (finding,) = [f for f in one.audit().findings if f.rule == "dying-busy"]
    assert finding.detail.startswith("8 folios are held, ref is 8: removal waits")
    (pfn, *_) = [s["pfn"] for s in open_vmcore("5.10-teardown").states if s.get("finding")]
    one.page(pfn, {"_refcount": 0})
    (finding,) = [f for f in one.audit().findings if f.rule == "dying-busy"]
    assert finding.detail.startswith("7 folios are held, ref is 8")


@pytest.mark.parametrize("last", [1, 0])
def test_removal_that_has_not_put_anything_is_no_flood(last: int) -> None:
    """A page that lost a reference before is no sign that all did."""
    one = removal("5.10-nvdimm", "dax1.0")
    before = found(one, one.audit())
    assert not before
    begin_removal(one)
    one.page(one.last_pfn, {"_refcount": last})
    assert found(one, one.audit()) == {("dying-busy", "warning"): 1}


def test_pages_that_were_not_captured_are_no_sign_of_it_either() -> None:
    one = removal("5.10-nvdimm", "dax1.0")
    layout = one.kernel.layout
    begin_removal(one)
    first = one.last_pfn + 1 - 256
    lay_over(one.prog, layout.page_address(first), bytes(256 * layout.page_size))
    result = one.audit()
    assert found(one, result) == {("dying-busy", "warning"): 1}
    assert result.classes["not-captured"] == 256


def test_second_looks_know_that_a_pagemap_is_drained(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands on a live kernel is what a dump says: not one finding for every page at 0."""
    one = removal("5.10-teardown")
    monkeypatch.setattr(Kernel, "live", True)
    result = audit(one.prog, resample_ms=1, samples=4)
    assert found(one, result) == WAITING and not result.transient
    assert {f.samples for f in result.findings if f.pfn is not None and f.severity != "info"} == {4}
