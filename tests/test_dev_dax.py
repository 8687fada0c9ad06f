# SPDX-License-Identifier: LGPL-2.1-or-later
"""Rule gen-mapping on real pages: the device behind a pagemap, and what becomes of it where it cannot be told."""

from __future__ import annotations

import struct
from typing import NamedTuple, Optional

import pytest
from conftest import Vmcore, lay_over, open_vmcore
from drgn import Object, Program

from zonedev.audit import audit, folio
from zonedev.kernel.dev_dax import _Device, _place, _Range
from zonedev.kernel.facts import read_kernel
from zonedev.model import Audit, DevDax, Finding, Pagemap, PfnRange, PgmapRef
from zonedev.target import Target, open_target

NAME = "6.1-entries"


class Page(NamedTuple):
    """A page that was mapped: its pagemap and the words that device-dax gave it."""

    pagemap: Pagemap
    pfn: int
    mapping: int
    index: int


def fresh(vmcore: Vmcore) -> Program:
    return open_target(Target(vmcore.core, [vmcore.vmlinux]))


def word(vmcore: Vmcore, pfn: int, member: str) -> int:
    layout = vmcore.kernel.layout
    offset, size, _ = layout.fields[member]
    data = vmcore.prog.read(layout.page_address(pfn) + offset, size)
    return int.from_bytes(data, "little")


def touched(vmcore: Vmcore, pagemap: Pagemap, limit: int = 1 << 14) -> list[Page]:
    """Heads of a device-dax pagemap that were mapped, of its first pages."""
    found = []
    for range_ in pagemap.ranges:
        step = 1 << pagemap.vmemmap_shift
        last = min(range_.end_pfn, range_.first_pfn + limit * step)
        for pfn in range(-(-range_.first_pfn // step) * step, last, step):
            mapping = word(vmcore, pfn, "mapping")
            if mapping:
                found.append(Page(pagemap, pfn, mapping, word(vmcore, pfn, "index")))
    return found


def generic(vmcore: Vmcore) -> list[Pagemap]:
    return [p for p in vmcore.kernel.pagemaps if p.type == "MEMORY_DEVICE_GENERIC"]


def some_page(vmcore: Vmcore, large: bool) -> Page:
    pagemap = next(
        p for p in generic(vmcore) if bool(p.vmemmap_shift) == large and touched(vmcore, p)
    )
    return touched(vmcore, pagemap)[1]


def of_rule(result: Audit) -> list[Finding]:
    return [f for f in result.findings if "gen-mapping" in (f.rule, *f.also)]


def why_not(result: Audit) -> list[str]:
    return [entry["why"] for entry in result.not_applicable if entry["rule"] == "gen-mapping"]


def put(prog: Program, vmcore: Vmcore, pfn: int, member: str, value: int) -> None:
    layout = vmcore.kernel.layout
    offset, size, _ = layout.fields[member]
    lay_over(prog, layout.page_address(pfn) + offset, value.to_bytes(size, "little"))


def dev_dax_of(prog: Program, mapping: int) -> Object:
    """The struct dev_dax whose dax_device has that mapping."""
    host = Object(prog, "struct address_space *", value=mapping).host
    type_ = prog.type("struct dax_device")
    at = next(m.offset for m in type_.members if m.name == "inode")
    device = Object(prog, type_, address=int(host) - at)
    return Object(prog, "struct dev_dax *", value=int(device.private))


# ---------------------------------------------------------------- healthy pages


def test_every_page_that_was_mapped_names_its_device_and_its_place_there() -> None:
    vmcore = open_vmcore(NAME)
    seen = 0
    for pagemap in generic(vmcore):
        assert isinstance(pagemap.dev_dax, DevDax)
        for page in touched(vmcore, pagemap):
            assert page.mapping == pagemap.dev_dax.mapping
            assert page.index == page.pfn - pagemap.index_bias(page.pfn)
            seen += 1
    assert seen > 1500
    assert len({p.dev_dax for p in generic(vmcore)}) == 4
    result = audit(fresh(vmcore))
    assert not of_rule(result) and not why_not(result)
    # The info block that the pagemap spans, too, is no part of the device: page 0 is the first behind it.
    assert any(p.index_bias(p.ranges[0].start_pfn) > p.ranges[0].first_pfn for p in generic(vmcore))


def test_without_the_devices_types_the_rule_is_not_applied_and_says_so() -> None:
    vmcore = open_vmcore("6.1-nvdimm")
    result = audit(fresh(vmcore))
    assert not of_rule(result)
    assert len(why_not(result)) == len(generic(vmcore))
    assert all("do not tell where the device-dax devices are" in why for why in why_not(result))


# ---------------------------------------------------------------- defects


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("member", ["index", "mapping"])
def test_another_index_or_mapping_is_found(large: bool, member: str) -> None:
    vmcore = open_vmcore(NAME)
    page, other = some_page(vmcore, large), some_page(vmcore, not large)
    prog = fresh(vmcore)
    # A 2 MiB fault that was aligned upwards, and a page of another device.
    value = page.index + 512 if member == "index" else other.mapping
    put(prog, vmcore, page.pfn, member, value)
    (found,) = of_rule(audit(prog))
    assert (found.rule, found.severity, found.pfn) == ("gen-mapping", "warning", page.pfn)
    assert audit(prog).classes == audit(fresh(vmcore)).classes
    assert "gen-mapping" in {f.rule for f in folio(prog, hex(page.pfn)).findings}


def test_a_page_that_nobody_mapped_has_any_index() -> None:
    vmcore = open_vmcore(NAME)
    page = some_page(vmcore, False)
    prog = fresh(vmcore)
    put(prog, vmcore, page.pfn, "mapping", 0)
    put(prog, vmcore, page.pfn, "index", 7)
    assert not of_rule(audit(prog))


# ---------------------------------------------------------------- what cannot be read or believed


def broken(what: str, prog: Program, page: Page) -> None:
    device = dev_dax_of(prog, page.mapping)
    if what == "no ranges":
        lay_over(prog, device.nr_range.address_, struct.pack("<i", 0))
    elif what == "too many ranges":
        lay_over(prog, device.nr_range.address_, struct.pack("<i", 1 << 20))
    elif what == "ranges not in the dump":
        lay_over(prog, device.ranges.address_, struct.pack("<Q", 0xFFFF800000000000))
    elif what == "another dax_device":
        lay_over(prog, device.dax_dev.address_, struct.pack("<Q", 0))
    elif what == "ranges of its neighbour":
        neighbour = next(
            p.dev_dax.mapping
            for p in read_kernel(prog).pagemaps
            if isinstance(p.dev_dax, DevDax) and p.dev_dax.mapping != page.mapping
        )
        start = dev_dax_of(prog, neighbour).ranges[0].range
        mine = device.ranges[0].range
        lay_over(prog, mine.address_, prog.read(start.address_, 16))
    elif what == "a list without an end":
        node = prog["dax_superblock"].s_inodes.next
        lay_over(prog, int(node), struct.pack("<QQ", int(node), int(node)))
    else:
        lay_over(prog, prog["dax_superblock"].address_, struct.pack("<Q", 0xFFFF800000000000))


@pytest.mark.parametrize(
    ("what", "devices"),
    [
        ("no ranges", 1),
        ("too many ranges", 1),
        ("ranges not in the dump", 1),
        ("another dax_device", 1),
        ("ranges of its neighbour", 2),
        ("a list without an end", 4),
        ("no super block in the dump", 4),
    ],
)
def test_a_device_that_cannot_be_told_judges_no_page(what: str, devices: int) -> None:
    vmcore = open_vmcore(NAME)
    page = some_page(vmcore, False)
    prog = fresh(vmcore)
    put(prog, vmcore, page.pfn, "index", page.index + 1)
    assert of_rule(audit(prog))
    broken(what, prog, page)
    result = audit(prog)
    assert not of_rule(result)
    assert len(why_not(result)) == devices


# ---------------------------------------------------------------- several ranges


def pagemap_of(*ranges: tuple[int, int]) -> Pagemap:
    parts = [PfnRange(start, end, start) for start, end in ranges]
    ref = PgmapRef("live", 1)
    words = (0xFFFF888000000000, "MEMORY_DEVICE_GENERIC", "dax0.0", None, parts, ref)
    return Pagemap(*words, 0, None, None, None, {}, [], len(parts))


def device_of(mapping: int, *ranges: tuple[int, int, int]) -> _Device:
    return _Device(mapping, [_Range(*one) for one in ranges])


@pytest.mark.parametrize(
    ("devices", "biases"),
    [
        ([device_of(8, (0x1000, 0x1800, 0x200), (0x4000, 0x4200, 0))], (0xE00, 0x4000)),
        # A part of the device lies elsewhere.
        (
            [device_of(8, (0x1000, 0x1800, 0), (0x4000, 0x4200, 0x800), (0x9000, 0x9200, 0xA00))],
            (0x1000, 0x3800),
        ),
        ([device_of(8, (0x1000, 0x1800, 0)), device_of(16, (0x4000, 0x4200, 0))], None),
        ([device_of(8, (0x1000, 0x1800, 0))], None),
        ([device_of(8, (0x1000, 0x1400, 0), (0x1400, 0x1800, 0x400), (0x4000, 0x4200, 0))], None),
        ([device_of(8, (0x1000, 0x1801, 0), (0x4000, 0x4200, 0x801))], None),
    ],
)
def test_each_range_has_its_own_bias(
    devices: list[_Device], biases: Optional[tuple[int, ...]]
) -> None:
    pagemap = pagemap_of((0x1000, 0x1800), (0x4000, 0x4200))
    if biases is None:
        with pytest.raises(ValueError):
            _place(pagemap, devices)
        return
    pagemap.dev_dax = _place(pagemap, devices)
    assert pagemap.dev_dax == DevDax(8, biases)
    assert [pagemap.index_bias(pfn) for pfn in (0x1000, 0x17FF, 0x4000, 0x5000)] == [
        *(biases[0], biases[0], biases[1], 0)
    ]
