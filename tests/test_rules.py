# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every page rule on synthetic pages: a state that it names, and the nearest one that it must not."""

from __future__ import annotations

from typing import Any, NamedTuple, Optional

import pytest
import rules_doc
from conftest import ROOT
from pages import EVIDENCE, FLAGS, MAPPING, START, Machine

from zonedev import _zonedev

ROWS = _zonedev.rules()


class Case(NamedTuple):
    """What a page shows; the rule that names it, or None; its severity; the page's class."""

    letter: str
    type: str
    page: dict[str, Any]
    rule: Optional[str]
    severity: Optional[str] = None
    class_: Optional[str] = None
    pagemap: dict[str, Any] = {}  # noqa: RUF012


M = MAPPING
# The first page of the range is the third of the device's file.
DEVICE: dict[str, Any] = {"dax_mapping": M, "index_bias": START - 2}
IN_USE: dict[str, Any] = {"refcount": 1, "maps": 1, "mapping": M | 1}

HEADS = [
    # R21, R20, R23, R22, R24
    Case("H", "FS_DAX", {"zone": 2}, "wrong-zone", "error", "violation"),
    Case("H", "FS_DAX", {"zone": 4}, None, None, "idle"),
    Case("E", "GENERIC", {"pgmap": 0xFFFF888100000000}, "wrong-pgmap", "error", "violation"),
    Case("E", "GENERIC", {"pgmap": 0}, "wrong-pgmap", "error", "violation"),
    Case("H", "FS_DAX", {"reserved": False}, "not-reserved", "warning", "idle"),
    # splitting a large private folio clears it
    Case("H", "PRIVATE", {"reserved": False}, None, None, "idle"),
    Case("H", "COHERENT", {"reserved": False}, None, None, "idle"),
    Case("G", "PRIVATE", {"reserved": False}, "not-reserved", "warning", "idle"),
    Case("H", "FS_DAX", {"node": 2}, "wrong-node", "warning", "idle"),
    Case("H", "FS_DAX", {"node": 1}, None, None, "idle"),
    Case("H", "PRIVATE", {"flags": ("lru",)}, "core-mm-flags", "error", "violation"),
    Case("H", "PRIVATE", {"flags": ("swapcache",)}, "core-mm-flags", "error", "violation"),
    Case("H", "PRIVATE", {"flags": ("dirty", "uptodate", "referenced")}, None, None, "idle"),
    Case("H", "FS_DAX", {"raw_mapcount": -0x10000000}, "core-mm-flags", "error", "violation"),
    Case("C", "FS_DAX", {"raw_mapcount": -129}, "core-mm-flags", "error", "violation"),
    Case("E", "GENERIC", {"flags": ("swapcache",)}, None, None, "idle", {"foreign_maps": True}),
    # R25 in its second form
    Case(
        "H",
        "FS_DAX",
        {"zone": 0, "reserved": False, "pgmap": 2},
        "uninitialised",
        "error",
        "violation",
    ),
    # R05 and the counter below -1
    Case("H", "FS_DAX", {"refcount": -1}, "refcount-out-of-range", "error", "violation"),
    Case("H", "FS_DAX", {"refcount": 0x40000001, "mapping": M}, "refcount-out-of-range", "error"),
    Case("H", "FS_DAX", {"refcount": 0x40000000, "mapping": M}, "dma-pinned", "info", "busy"),
    Case("H", "FS_DAX", {"raw_mapcount": -2}, "mapcount-out-of-range", "error", "violation"),
    Case("H", "FS_DAX", {"raw_mapcount": -1}, None, None, "idle"),
    # R03
    Case(
        "H", "FS_DAX", {"refcount": 0, "maps": 1, "mapping": M}, "mapped-without-reference", "error"
    ),
    Case("H", "FS_DAX", {"refcount": 1, "maps": 1, "mapping": M}, None, None, "busy"),
    Case("E", "PRIVATE", {"refcount": 0, "maps": 1}, "mapped-without-reference", "error"),
    # R04
    Case(
        "H", "FS_DAX", {"refcount": 1, "maps": 2, "mapping": M}, "refcount-below-mapcount", "error"
    ),
    Case("H", "FS_DAX", {"refcount": 2, "maps": 2, "mapping": M}, None, None, "busy"),
    Case(
        "H", "GENERIC", {"refcount": 1, "maps": 1}, "refcount-below-mapcount", "error", "violation"
    ),
    Case("H", "GENERIC", {"refcount": 2, "maps": 1}, None, None, "busy"),
    Case(
        "C",
        "PRIVATE",
        {"refcount": 1, "maps": 1, "mapping": M | 1},
        "refcount-below-mapcount",
        "error",
    ),
    Case("C", "PRIVATE", {"refcount": 2, "maps": 1, "mapping": M | 1}, None, None, "busy"),
    Case("D", "PRIVATE", {"refcount": 1, "maps": 1, "mapping": M | 1}, None, None, "busy"),
    Case("G", "PCI_P2PDMA", {"refcount": 1, "maps": 2}, "refcount-below-mapcount", "error"),
    # R06
    Case("E", "FS_DAX", {"refcount": 0}, "refcount-below-idle", "error", "violation"),
    Case("E", "FS_DAX", {"refcount": 1}, None, None, "idle"),
    Case("H", "GENERIC", {"refcount": 0}, "refcount-below-idle", "error", "violation"),
    Case("H", "FS_DAX", {"refcount": 0}, None, None, "idle"),
    Case("C", "PRIVATE", {"refcount": 0}, "refcount-below-idle", "error", "violation"),
    Case("C", "FS_DAX", {"refcount": 0}, None, None, "idle", {"ref": "dying"}),
    Case("E", "FS_DAX", {"refcount": 0}, "refcount-below-idle", "error", None, {"ref": "dying"}),
    Case("D", "PRIVATE", {"refcount": 0}, None, None, "idle"),
    # R07
    Case("E", "FS_DAX", {"refcount": 1, "maps": 1, "mapping": M}, "unaccounted-mapcount", "error"),
    Case("E", "GENERIC", {"refcount": 2, "maps": 1}, "unaccounted-mapcount", "error", "violation"),
    Case("E", "GENERIC", {"refcount": 2, "maps": 1}, None, None, "busy", {"foreign_maps": True}),
    Case("H", "GENERIC", {"refcount": 2, "maps": 1, "mapping": M}, None, None, "busy"),
    # the association of a mapped DAX page
    Case(
        "H",
        "FS_DAX",
        {"refcount": 1, "maps": 1},
        "mapped-without-association",
        "error",
        "violation",
    ),
    Case("H", "FS_DAX", {"refcount": 1, "maps": 1, "share": 2}, None, None, "busy"),
    # R31, as far as the word itself tells
    Case("H", "FS_DAX", {"mapping": M | 1}, "wrong-mapping", "error", "violation"),
    Case("H", "FS_DAX", {"mapping": 1}, "wrong-mapping", "error", "violation"),
    Case("H", "FS_DAX", {"mapping": 0xDEAD000000000400}, "wrong-mapping", "error", "violation"),
    Case("H", "FS_DAX", {"mapping": 0x5DEADBEEF0000400}, "wrong-mapping", "error", "violation"),
    Case("H", "FS_DAX", {"mapping": 0x5DEADBEE_F0000400 + (1 << 28)}, None, None, "busy"),
    Case("C", "FS_DAX", {"mapping": 1}, "wrong-mapping", "error", "violation"),
    # 5.18 and 5.19 share no DAX pages; 6.0 does, which without DWARF only its memory types tell.
    Case("D", "FS_DAX", {"mapping": 1}, "wrong-mapping", "error", "violation"),
    # Which words an unknown kernel shares by is not known, either.
    Case("unknown", "FS_DAX", {"mapping": 1, "refcount": 1}, None, None, "busy"),
    Case("unknown", "FS_DAX", {"mapping": 2, "refcount": 1}, "wrong-mapping", "warning", "busy"),
    Case("H", "FS_DAX", {"mapping": M}, None, None, "busy"),
    # R34, as far as the word itself tells
    Case("E", "FS_DAX", {"mapping": 1}, "shared-state", "error", "violation"),
    Case("E", "FS_DAX", {"mapping": 1, "share": 1}, None, None, "busy"),
    # R13, R12, R11
    Case(
        "H", "PRIVATE", {"refcount": 1025, "maps": 1, "mapping": M | 1}, "pinned-private", "error"
    ),
    Case("H", "PRIVATE", {"refcount": 1024, "maps": 1, "mapping": M | 1}, None, None, "busy"),
    Case("H", "FS_DAX", {"refcount": 1024}, "pinned-after-truncate", "error", "violation"),
    Case("H", "FS_DAX", {"refcount": 1024, "mapping": M}, "dma-pinned", "info", "busy"),
    Case("H", "FS_DAX", {"refcount": 1024, "share": 1}, "dma-pinned", "info", "busy"),
    Case("E", "FS_DAX", {"refcount": 1025}, "pinned-after-truncate", "warning", "busy"),
    Case("E", "FS_DAX", {"refcount": 1024, "mapping": M}, "held-without-map", "info", "busy"),
    Case("E", "GENERIC", {"refcount": 1025, "mapping": M}, "dma-pinned", "info", "busy"),
    Case("H", "COHERENT", {"refcount": 1025, "maps": 1, "mapping": M | 1}, "dma-pinned", "info"),
    # R01
    Case("H", "FS_DAX", {"refcount": 1}, "reference-on-free-folio", "error", "violation"),
    # An order-0 page of these kernels may be free with a stale share word.
    Case("G", "FS_DAX", {"refcount": 1, "share": 7}, "reference-on-free-folio", "warning", "busy"),
    Case("H", "FS_DAX", {"refcount": 1, "share": 7}, "held-without-map", "info", "busy"),
    Case("H", "FS_DAX", {"refcount": 1, "flags": ("locked",)}, None, None, "busy"),
    Case("H", "FS_DAX", {"refcount": 1, "mapping": M}, "held-without-map", "info", "busy"),
    Case("F2", "FS_DAX", {"refcount": 1}, "reference-on-free-folio", "error", "violation"),
    Case("E", "PRIVATE", {"refcount": 1}, "reference-on-free-folio", "warning", "busy"),
    Case("E", "PRIVATE", {"refcount": 1, "flags": ("locked",)}, None, None, "busy"),
    Case("H", "COHERENT", {"refcount": 1}, "reference-on-free-folio", "warning", "busy"),
    Case("H", "PCI_P2PDMA", {"refcount": 1}, "reference-on-free-folio", "warning", "busy"),
    Case("H", "PCI_P2PDMA", {"refcount": 1, "maps": 1}, None, None, "busy"),
    # R02
    Case("E", "FS_DAX", {"refcount": 2}, "reference-outlives-mapping", "warning", "busy"),
    Case("E", "FS_DAX", {"refcount": 2, "mapping": M}, "held-without-map", "info", "busy"),
    Case("C", "FS_DAX", {"refcount": 2}, "reference-outlives-mapping", "warning", "busy"),
    Case("H", "GENERIC", {"refcount": 2}, "reference-outlives-mapping", "warning", "busy"),
    Case("H", "GENERIC", {"refcount": 2, "mapping": M}, "held-without-map", "info", "busy"),
    Case("H", "GENERIC", {"refcount": 1, "mapping": M}, None, None, "idle"),
    # R10
    Case(
        "H", "FS_DAX", {"refcount": 3, "maps": 2, "mapping": M}, "held-without-map", "info", "busy"
    ),
    Case("H", "PCI_P2PDMA", {"refcount": 2, "maps": 1}, "held-without-map", "info", "busy"),
    # R28, order 0 where a compound devmap has larger folios
    Case("E", "GENERIC", {}, "wrong-order", "error", "violation", {"vmemmap_shift": 9}),
    # R30
    Case("E", "PRIVATE", {"mapping": M | 1}, "stale-mapping", "error", "violation"),
    Case("E", "PRIVATE", {"mapping": 0}, None, None, "idle"),
    Case("D", "PRIVATE", {"mapping": M | 1}, "stale-mapping", "warning", "busy"),
    Case("H", "PCI_P2PDMA", {"mapping": M}, "stale-mapping", "error", "violation"),
    Case("E", "PCI_P2PDMA", {"mapping": M}, "stale-mapping", "error", "violation"),
    # R39
    Case("H", "PRIVATE", {"flags": ("anon_exclusive",)}, "dirty-free-state", "warning", "idle"),
    Case("H", "PRIVATE", {"flags": ("writeback",)}, "dirty-free-state", "warning", "idle"),
    Case("H", "PRIVATE", {"flags": ("locked",)}, "dirty-free-state", "warning", "idle"),
    Case("H", "COHERENT", {"memcg": 0x100}, "dirty-free-state", "warning", "idle"),
    Case("H", "FS_DAX", {"memcg": 0x100}, None, None, "idle"),
    # R41
    Case("H", "FS_DAX", {"flags": ("hwpoison",)}, "hwpoison", "info", "idle"),
    Case(
        "H",
        "FS_DAX",
        {"flags": ("hwpoison",), "refcount": 1, "maps": 1, "mapping": M},
        "hwpoison",
        "warning",
    ),
    # R08
    Case("D", "PRIVATE", {}, "free-or-allocated", "info", "idle"),
    Case("D", "PRIVATE", {"refcount": 2, "maps": 2, "mapping": M | 1}, None, None, "busy"),
    # a shared DAX page before and after the share word counted
    Case("E", "FS_DAX", {"mapping": 1, "share": 2}, None, None, "busy"),
    Case("H", "FS_DAX", {"share": 2}, None, None, "busy"),
    # before dax_folio_reset_order() the share word of a free page is whatever its index was
    Case("G", "FS_DAX", {"share": 2}, None, None, "idle"),
    # Up to 4.16 no page knows its file: a reference without one is none that outlives it.
    Case("A", "FS_DAX", {}, None, None, "idle"),
    Case("A", "FS_DAX", {"refcount": 2}, "held-without-map", "info", "busy"),
    Case("B", "GENERIC", {"refcount": 2}, "held-without-map", "info", "busy"),
    # Before pins were counted, 1024 references are just that.
    Case("A", "FS_DAX", {"refcount": 1025}, "held-without-map", "info", "busy"),
    Case("C", "FS_DAX", {"refcount": 1025}, "reference-outlives-mapping", "warning", "busy"),
    Case("C", "FS_DAX", {"refcount": 1025, "mapping": M}, "held-without-map", "info", "busy"),
    Case("C", "PRIVATE", {"refcount": 1026, "maps": 1, "mapping": M | 1}, None, None, "busy"),
    Case("A", "FS_DAX", {"mapping": M}, "wrong-mapping", "error", "violation"),
    Case("B", "FS_DAX", {"mapping": M}, "wrong-mapping", "error", "violation"),
    Case("B", "GENERIC", {"mapping": M}, None, None, "idle"),
    Case("A", "FS_DAX", {"refcount": 0}, "refcount-below-idle", "error", "violation"),
    Case("A", "FS_DAX", {"refcount": 0}, "refcount-below-idle", "error", None, {"ref": "dying"}),
    Case("B", "FS_DAX", {"refcount": 0}, None, None, "idle", {"ref": "dying"}),
    Case("B", "FS_DAX", {"refcount": 2, "maps": 1}, "unaccounted-mapcount", "error", "violation"),
    # Scheme C has public pages where later kernels have coherent ones.
    Case("C", "COHERENT", {"refcount": 2, "maps": 1, "mapping": M | 1}, None, None, "busy"),
    Case("C", "COHERENT", {"mapping": M | 1}, "stale-mapping", "error", "violation"),
    # R40: what device-dax sets at the first fault, for good.
    Case("E", "GENERIC", {"mapping": M, "share": 2}, None, None, "idle", DEVICE),
    Case("E", "GENERIC", {"mapping": M, "share": 1}, "gen-mapping", "warning", "idle", DEVICE),
    Case("E", "GENERIC", {"mapping": M, "share": 514}, "gen-mapping", "warning", "idle", DEVICE),
    Case("E", "GENERIC", {"mapping": M + 64, "share": 2}, "gen-mapping", "warning", None, DEVICE),
    Case("E", "GENERIC", {"share": 1}, None, None, "idle", DEVICE),
    Case("E", "GENERIC", {"mapping": M, "share": 1}, None, None, "idle"),
    Case(
        *("H", "GENERIC", {"refcount": 2, "maps": 1, "mapping": M, "share": 1}),
        *("gen-mapping", "warning", "busy", DEVICE),
    ),
    # R42: other pages show that the driver sets it.
    Case("H", "PRIVATE", IN_USE, "zdd", "info", "busy", {"driver_data": True}),
    Case("H", "PRIVATE", {**IN_USE, "data": 1}, None, None, "busy", {"driver_data": True}),
    Case("H", "PRIVATE", IN_USE, None, None, "busy"),
    Case("H", "PRIVATE", {}, None, None, "idle", {"driver_data": True}),
    Case(
        *("H", "PRIVATE", {"refcount": 1, "flags": ("locked",)}),
        *(None, None, "busy", {"driver_data": True}),
    ),
    # In F1 and F2 the DAX entry holds a reference: without it, the association is stale.
    Case("F2", "FS_DAX", {"refcount": 1, "mapping": M}, None, None, "busy"),
    Case("F2", "FS_DAX", {"refcount": 0, "mapping": M}, "stale-mapping", "error", "violation"),
    Case("F2", "FS_DAX", {"refcount": 2, "mapping": M}, "held-without-map", "info", "busy"),
    Case("F2", "FS_DAX", {"refcount": 1025, "mapping": M}, "dma-pinned", "info", "busy"),
    Case("F2", "FS_DAX", {"refcount": 1024, "mapping": M}, "held-without-map", "info", "busy"),
    Case("F2", "FS_DAX", {"refcount": 1, "mapping": 1}, None, None, "busy"),
    Case("F2", "FS_DAX", {"refcount": 1, "maps": 1, "mapping": M}, "unaccounted-mapcount", "error"),
    Case("F2", "GENERIC", {"refcount": 1, "mapping": M}, None, None, "busy"),
    Case("F2", "GENERIC", {"mapping": M}, "stale-mapping", "error", "violation"),
    Case("F2", "GENERIC", {}, None, None, "idle"),
    Case("F2", "GENERIC", {"refcount": 1}, "reference-outlives-mapping", "warning", "busy"),
    Case("F1", "FS_DAX", {"refcount": 1}, "reference-on-free-folio", "error", "violation"),
    Case("F1", "FS_DAX", {"refcount": 1, "mapping": M}, None, None, "busy"),
    Case("F1", "PRIVATE", {}, "free-or-allocated", "info", "idle"),
    Case("F1", "PCI_P2PDMA", {"refcount": 0}, "refcount-below-idle", "error", "violation"),
]


@pytest.mark.parametrize("case", HEADS, ids=lambda c: f"{c.letter}-{c.type}-{c.rule}-{c.page}")
def test_heads(case: Case) -> None:
    machine = Machine(case.letter, case.type, **case.pagemap)
    findings, classes = machine.judge(machine.page(**case.page))
    assert (findings[0] if findings else None) == (
        (case.rule, case.severity) if case.rule else None
    )
    assert len(findings) <= 1
    if case.class_:
        assert classes == {case.class_}


@pytest.mark.parametrize(
    ("type_", "extra", "page", "rule"),
    [
        # 4.14 to 4.16: a radix tree, and no page knows its file.
        ("FS_DAX", (), {"refcount": 2}, "held-without-map"),
        ("FS_DAX", (), {"mapping": M}, "wrong-mapping"),
        # 4.17 to 4.19
        ("FS_DAX", ("dax_associate_entry",), {"refcount": 2}, "reference-outlives-mapping"),
        ("FS_DAX", ("dax_associate_entry",), {"mapping": M}, None),
        # device-dax is a module: what it keeps cannot be told.
        ("GENERIC", ("dax_associate_entry",), {"refcount": 2}, "held-without-map"),
        ("GENERIC", ("dax_associate_entry",), {"refcount": 2, "mapping": M}, "held-without-map"),
    ],
)
def test_who_knows_its_file_in_scheme_c(
    type_: str, extra: tuple[str, ...], page: dict[str, int], rule: Optional[str]
) -> None:
    machine = Machine("C", type_, "pgmap_radix", *extra)
    data = machine.page(**page)
    assert [rule for rule, _ in machine.judge(data)[0]] == ([rule] if rule else [])
    assert machine.scan(data, fast=False)["classes"] == machine.scan(data)["classes"]
    # The same evidence in the older schemes, for backports.
    old = Machine("A", type_, *extra)
    assert [rule for rule, _ in old.judge(old.page(**page))[0]] == ([rule] if rule else [])


@pytest.mark.parametrize("probe", ["page.hpage_pinned_refcount", "NR_FOLL_PIN_ACQUIRED"])
def test_pins_are_told_by_what_came_with_them(probe: str) -> None:
    machine = Machine("C", "FS_DAX", probe)
    assert machine.judge(machine.page(refcount=1025))[0] == [("pinned-after-truncate", "warning")]
    assert machine.judge(machine.page(refcount=1024))[0] == [
        ("reference-outlives-mapping", "warning")
    ]
    old = Machine("C", "FS_DAX")
    whys = _zonedev.why_not(old.layout, old.scheme)
    told = {row["id"] for row, why in zip(ROWS, whys) if why and "does not count pins" in why}
    assert told == {"dma-pinned", "pinned-after-truncate", "pinned-private"}


@pytest.mark.parametrize(
    ("type_", "busy", "page", "rule"),
    [
        ("FS_DAX", False, {"refcount": 0}, None),
        ("FS_DAX", False, {"refcount": 1}, "reference-on-free-folio"),
        ("FS_DAX", True, {"refcount": 0}, "refcount-below-idle"),
        ("FS_DAX", True, {"refcount": 1}, None),
        ("FS_DAX", True, {"refcount": 1, "mapping": M}, "stale-mapping"),
        ("FS_DAX", True, {"refcount": 2, "mapping": M}, None),
        ("FS_DAX", True, {"refcount": 2}, "reference-on-free-folio"),
        ("PRIVATE", False, {"refcount": 0}, None),
        ("PRIVATE", False, {"refcount": 1, "maps": 1, "mapping": M | 1}, None),
        ("PRIVATE", False, {"refcount": 1, "maps": 2, "mapping": M | 1}, "refcount-below-mapcount"),
        ("PRIVATE", True, {"refcount": 1}, "free-or-allocated"),
        ("PRIVATE", True, {"refcount": 1, "maps": 1, "mapping": M | 1}, None),
        ("PCI_P2PDMA", False, {"refcount": 0}, None),
        ("PCI_P2PDMA", True, {"refcount": 0}, "refcount-below-idle"),
    ],
)
def test_init_mode_says_where_pages_rest(
    type_: str, busy: bool, page: dict[str, int], rule: Optional[str]
) -> None:
    machine = Machine("F1", type_)
    machine.scheme = machine.scheme.with_init_mode(f"MEMORY_DEVICE_{type_}", busy)
    assert machine.scheme.confidence == "high"
    assert machine.idle == busy
    data = machine.page(**page)
    assert [rule for rule, _ in machine.judge(data)[0]] == ([rule] if rule else [])
    assert machine.scan(data, fast=False)["classes"] == machine.scan(data)["classes"]


P2P = ("p2pmem_alloc_mmap",)


@pytest.mark.parametrize(
    ("page", "rule"),
    [
        ({"refcount": 1}, None),
        ({"refcount": 1, "maps": 1}, None),
        ({"refcount": 2, "maps": 2}, None),
        ({"refcount": 1, "maps": 2}, "refcount-below-mapcount"),
        ({"refcount": 0}, "refcount-below-idle"),
    ],
)
def test_p2pdma_pages_hand_over_their_reference(page: dict[str, int], rule: Optional[str]) -> None:
    # Since 6.2 a page that is allocated by mmap() drops its idle reference once it is mapped.
    machine = Machine("E", "PCI_P2PDMA", *P2P)
    findings, _ = machine.judge(machine.page(**page))
    assert [rule for rule, _ in findings] == ([rule] if rule else [])


@pytest.mark.parametrize("byte", [0xFF, 0xFD])
def test_poison_is_uninitialised(byte: int) -> None:
    machine = Machine("H")
    data = machine.page() + bytes([byte]) * 64 + machine.page()
    findings, classes = machine.judge(data)
    assert findings == [("uninitialised", "error")]
    assert classes == {"idle", "violation"}


def test_zeroes_are_not_captured_and_never_idle() -> None:
    for letter in "CEGH":
        for type_ in ("FS_DAX", "GENERIC", "PRIVATE"):
            findings, classes = Machine(letter, type_).judge(bytes(64 * 8))
            assert findings == []
            assert classes == {"not-captured"}


# ---------------------------------------------------------------- folios


def test_pmd_folio_is_counted_by_its_head() -> None:
    machine = Machine("H")
    for mask in (False, True):
        data = machine.folio(9, refcount=1, maps=1, mapping=MAPPING, mask=mask) + machine.page()
        tally = machine.scan(data)
        assert tally["findings"] == []
        assert tally["classes"]["busy"] == 512
        assert tally["classes"]["idle"] == 1
        assert tally["refcounts"] == {0: 1, 1: 1}


def test_pincount_of_a_large_folio() -> None:
    machine = Machine("H")
    data = machine.folio(9, refcount=4, maps=1, pins=3, mapping=MAPPING)
    assert machine.judge(data)[0] == [("dma-pinned", "info")]
    tally = machine.scan(data)
    assert tally["findings"][0]["also"] == []
    more = machine.folio(9, refcount=5, maps=1, pins=3, mapping=MAPPING)
    assert machine.scan(more)["findings"][0]["also"] == ["held-without-map"]


@pytest.mark.parametrize("probe", ["dax_mapping_set_cow", "MEMORY_DEVICE_COHERENT"])
def test_shared_dax_pages_of_6_0(probe: str) -> None:
    machine = Machine("D", "FS_DAX", probe)
    assert machine.judge(machine.page(mapping=1, share=1)) == ([], {"busy"})
    # These kernels ask for the count before they count down.
    left = machine.judge(machine.page(mapping=1, share=0))
    assert left == ([("shared-state", "info")], {"busy"})


def test_both_map_counters_of_a_large_folio() -> None:
    machine = Machine("H")
    assert machine.judge(machine.folio(9, refcount=1, maps=1, mapping=MAPPING))[0] == []
    negative = [("mapcount-out-of-range", "error")]
    large = machine.folio(9, refcount=1, maps=-1, mapping=MAPPING)
    assert machine.judge(large)[0] == negative
    own = machine.folio(9, refcount=1, maps=1, mapping=MAPPING)
    assert machine.judge(machine.changed(own, "_mapcount", -2))[0] == negative


@pytest.mark.parametrize("refcount", [1, 1024])
def test_without_the_share_word_no_page_is_known_to_be_of_no_file(refcount: int) -> None:
    machine = Machine("H", missing=("share",))
    assert machine.judge(machine.page(refcount=refcount))[1] == {"busy"}
    why = dict(zip((r["id"] for r in ROWS), _zonedev.why_not(machine.layout, machine.scheme)))
    assert why["mapped-without-association"] == "this kernel lacks a member that the rule needs"
    rows = [
        (row["schemes"], reason)
        for row, reason in zip(ROWS, _zonedev.why_not(machine.layout, machine.scheme))
        if row["id"] in ("pinned-after-truncate", "reference-on-free-folio")
        and row["types"] == ["MEMORY_DEVICE_FS_DAX"]
        and row["severity_unproven"] == "error"
    ]
    assert [reason for _, reason in rows] == ["this kernel lacks a member that the rule needs"] * 2
    # The schemes that never tell by it do not need it.
    old = Machine("F2", missing=("share",))
    assert old.judge(old.page(refcount=refcount))[1] == {"violation"}


def test_folios_whose_order_cannot_be_known_are_not_judged() -> None:
    machine = Machine("E", "GENERIC", vmemmap_shift=3, missing=("order",))
    assert machine.judge(machine.folio(3) * 2) == ([], {"not-captured"})
    single = Machine("E", "GENERIC", missing=("order",))
    assert single.judge(single.page()) == ([], {"idle"})


@pytest.mark.parametrize(("word", "head"), [(4, None), (8, START + 32)])
def test_a_mask_needs_struct_pages_of_a_power_of_two(word: int, head: Optional[int]) -> None:
    """compound_info_has_mask() is false otherwise, and the word an address."""
    machine = Machine("H", word=word)
    mask = (1 << machine.bits) - (0x100 if word == 4 else 0x800)
    range_ = (START, START + 64, machine.memmap)
    page = machine.tail(mask | 1)
    facts = _zonedev.decode(
        machine.layout, machine.scheme, machine.pagemap, range_, START + 33, page
    )
    assert facts["head_pfn"] == head


def test_share_word_of_a_large_dax_folio_is_never_stale() -> None:
    """dax_folio_put() cleans the pages of a large folio, and (before 7.1) passes over order 0."""
    machine = Machine("G")
    single = machine.page(share=2)
    assert machine.judge(single) == ([], {"idle"})
    assert machine.judge(machine.folio(9, share=2)) == ([], {"busy"})
    held = [("held-without-map", "info")]
    assert machine.judge(machine.folio(9, share=2, refcount=1)) == (held, {"busy"})
    warned = [("reference-on-free-folio", "warning")]
    assert machine.judge(machine.page(share=2, refcount=1)) == (warned, {"busy"})
    assert machine.judge(machine.folio(9, share=0, refcount=1))[0] == [
        ("reference-on-free-folio", "error")
    ]


def test_tail_with_a_reference_makes_its_folio_a_violation() -> None:
    machine = Machine("H")
    data = bytearray(machine.folio(9, refcount=1, maps=1, mapping=MAPPING))
    assert machine.judge(bytes(data))[0] == []
    data[64 * 100 + 52] = 1
    tally = machine.scan(bytes(data))
    assert [(f["rule"], f["pfn"]) for f in tally["findings"]] == [("tail-refcount", START + 100)]
    assert tally["classes"]["violation"] == 512
    assert tally["severities"]["error"] == 1


@pytest.mark.parametrize(
    ("letter", "type_", "order", "shift", "rule"),
    [
        ("H", "FS_DAX", 9, 0, None),
        ("H", "FS_DAX", 4, 0, "wrong-order"),
        ("E", "FS_DAX", 9, 0, "wrong-order"),
        ("E", "GENERIC", 9, 9, None),
        ("E", "GENERIC", 9, 4, "wrong-order"),
        ("H", "PCI_P2PDMA", 2, 0, "wrong-order"),
        ("G", "PRIVATE", 2, 0, "wrong-order"),
        ("H", "PRIVATE", 2, 0, None),
        ("H", "PRIVATE", 10, 0, "wrong-order"),
    ],
)
def test_orders(letter: str, type_: str, order: int, shift: int, rule: Optional[str]) -> None:
    machine = Machine(letter, type_, vmemmap_shift=shift)
    findings, _ = machine.judge(machine.folio(order))
    assert findings == ([(rule, "error")] if rule else [])


@pytest.mark.parametrize("letter", ["C", "E", "G", "H"])
def test_head_without_an_order(letter: str) -> None:
    machine = Machine(letter)
    findings, _ = machine.judge(machine.page(flags=("head",)) + machine.page() * 7)
    assert findings == [("wrong-order", "error")]
    private = Machine("H", "PRIVATE")
    assert private.judge(private.page(flags=("head",)) + private.page() * 7)[0] == []


def test_heads_that_claim_too_much_do_not_count_for_more_than_there_is() -> None:
    machine = Machine("H")
    bogus = machine.folio(9, refcount=-1)[: 2 * 64]
    tally = machine.scan((bogus[:64] + machine.page()) * 300)
    assert tally["severities"]["error"] <= 600


def test_misaligned_head() -> None:
    machine = Machine("H")
    data = machine.page() + machine.folio(9, START + 1)
    assert machine.judge(data)[0][0] == ("wrong-order", "error")


def test_corrupt_order_is_an_error_and_not_a_crash() -> None:
    machine = Machine("H")
    data = bytearray(machine.folio(9))
    data[64] = 0xEE
    # Its tails are its own all the same, and the pages behind them pages of their own.
    tally = machine.scan(bytes(data) + machine.page() * 3)
    assert [f["rule"] for f in tally["findings"]] == ["wrong-order"]
    assert tally["classes"]["violation"] == 512
    assert tally["severities"] == {"info": 0, "warning": 0, "error": 512}
    assert tally["classes"]["idle"] == 3


def test_reused_tail_of_a_freed_large_folio() -> None:
    """The counters of a large folio lie in its first tail, which may be a page of its own by now."""
    machine = Machine("H", "PRIVATE")
    data = bytearray(machine.folio(9))
    data[64:128] = machine.page(refcount=1, maps=1, mapping=MAPPING | 1, flags=("uptodate",))
    tally = machine.scan(bytes(data))
    assert {f["severity"] for f in tally["findings"]} == {"info"}
    assert tally["classes"]["busy"] == 1
    assert tally["classes"]["idle"] == 511


def test_folio_without_room_in_its_range() -> None:
    machine = Machine("E")
    findings, classes = machine.judge(machine.page() + machine.page(flags=("head",)))
    assert findings == [("wrong-order", "error")]
    assert classes == {"idle", "violation"}


# ---------------------------------------------------------------- tails


def test_tail_of_a_head_that_does_not_span_it() -> None:
    for letter, type_ in (("H", "FS_DAX"), ("E", "GENERIC"), ("G", "PRIVATE")):
        machine = Machine(letter, type_)
        data = machine.page() + machine.tail(machine.memmap | 1)
        findings, classes = machine.judge(data)
        assert findings == [("bad-head", "error")]
        assert classes == {"idle", "violation"}


def test_tail_whose_head_lies_outside() -> None:
    machine = Machine("H")
    for word in (1, machine.memmap - 64 | 1, machine.memmap + 640 | 1, machine.memmap + 32 | 1):
        findings, _ = machine.judge(machine.page() + machine.tail(word))
        assert findings == [("bad-head", "error")], hex(word)


def test_left_over_tails_of_a_large_private_folio_are_idle() -> None:
    machine = Machine("H", "PRIVATE")
    stale = machine.tail(machine.memmap | 1)
    findings, classes = machine.judge(machine.page() + stale)
    assert findings == [("bad-head", "info")]
    assert classes == {"idle"}
    held = machine.tail(machine.memmap | 1, refcount=1)
    assert machine.judge(machine.page() + held)[0] == [("bad-head", "error")]
    beyond = machine.tail(machine.memmap - 64 | 1)
    assert machine.judge(machine.page() + beyond)[0] == [("bad-head", "error")]


def test_page_inside_a_folio_that_is_no_tail() -> None:
    machine = Machine("H")
    data = bytearray(machine.folio(9, refcount=1, maps=1, mapping=MAPPING))
    data[64 * 8 : 64 * 9] = machine.page()
    tally = machine.scan(bytes(data))
    # The tails behind it are tails of the folio all the same.
    assert [(f["rule"], f["pfn"]) for f in tally["findings"]] == [("bad-head", START + 8)]
    assert (tally["classes"]["busy"], tally["classes"]["violation"]) == (511, 1)
    assert tally["pages_mapped"] == tally["pages_referenced"] == 511
    data[64 * 10 : 64 * 14] = machine.folio(2, START + 10)
    tally = machine.scan(bytes(data))
    assert [f["pfn"] for f in tally["findings"]] == [START + 8, START + 10]
    assert (tally["classes"]["busy"], tally["classes"]["violation"]) == (507, 5)
    assert tally["pages_mapped"] == 507
    assert tally["severities"]["error"] == 5
    # The pages of a freed large private folio may be used one by one.
    private = Machine("H", "PRIVATE")
    free = bytearray(private.folio(9))
    free[64 * 8 : 64 * 9] = private.page()
    assert ("bad-head", "error") not in private.judge(bytes(free))[0]
    # Only private and coherent folios leave such pages behind.
    generic = Machine("H", "GENERIC", vmemmap_shift=9)
    idle = bytearray(generic.folio(9))
    idle[64 * 511 : 64 * 512] = generic.page()
    assert generic.judge(bytes(idle))[0] == [("bad-head", "error")]


def test_tail_whose_head_was_not_read_is_not_captured() -> None:
    machine = Machine("H")
    folio = machine.folio(9, refcount=1, maps=1, mapping=MAPPING)
    data = bytes(64) + folio[64:]
    findings, classes = machine.judge(data)
    assert findings == []
    assert classes == {"not-captured"}
    # Its own refcount is wrong all the same.
    broken = bytearray(data)
    broken[64 * 9 + 52] = 1
    assert machine.judge(bytes(broken)) == (
        [("tail-refcount", "error")],
        {"not-captured", "violation"},
    )


def test_tail_of_a_head_in_the_altmap_is_an_error() -> None:
    machine = Machine("H")
    scan = _zonedev.Scan(machine.layout, machine.scheme, machine.pagemap)
    scan.begin(START, START + 8, machine.memmap)
    scan.hole(7, "skipped")
    scan.pages(machine.tail(machine.memmap | 1))
    scan.end()
    assert [f["rule"] for f in scan.result()["findings"]] == ["bad-head"]


@pytest.mark.parametrize(
    ("letter", "drained", "refcount", "rule"),
    [
        ("C", True, 0, None),
        ("C", True, 1, "reference-outlives-mapping"),
        # Before 4.17 a page does not know its file: any reference may be a pin.
        ("B", True, 1, "held-without-map"),
        # Not all pages were gone over: one at 1 may still have the reference that it was born with.
        ("C", False, 1, None),
        ("C", False, 0, None),
        # Where removal puts no page, nothing changes.
        ("E", True, 1, None),
        ("E", True, 0, "refcount-below-idle"),
    ],
)
def test_what_removal_has_not_put_is_held(
    letter: str, drained: bool, refcount: int, rule: Optional[str]
) -> None:
    machine = Machine(letter, "FS_DAX", ref="dying")
    if drained:
        machine.scheme = machine.scheme.drained()
    found, classes = machine.judge(machine.page(refcount=refcount))
    assert [name for name, _ in found] == ([rule] if rule else [])
    assert rule or classes == {"idle"}


def test_what_is_not_identified_is_never_idle() -> None:
    unknown = Machine("unknown")
    data = bytes(b"\xff" * 64 + b"\xfd" * 64) + unknown.tail(3) + unknown.page(pgmap=2)
    findings, classes = unknown.judge(data)
    assert {severity for _, severity in findings} == {"warning"}
    assert classes == {"unreadable"}
    blind = Machine("H", zone_known=False)
    assert blind.judge(blind.page())[1] == {"unreadable"}
    private = Machine("H", "PRIVATE", zone_known=False)
    stale = private.page() + private.tail(private.memmap | 1)
    assert private.judge(stale)[1] == {"unreadable"}


def test_dedup_aliases_are_skipped_when_they_are_the_same() -> None:
    machine = Machine("E", "GENERIC", vmemmap_shift=9, deduplicated=True)
    data = bytearray(machine.folio(9))
    tally = machine.scan(bytes(data))
    assert tally["classes"]["idle"] == 128
    assert tally["classes"]["skipped"] == 384
    # One write through a tail shows at every place of the frame: once as a finding.
    for frame in range(1, 8):
        data[(frame * 64 + 5) * 64 + 52] = 3
    tally = machine.scan(bytes(data))
    assert [(f["rule"], f["pfn"]) for f in tally["findings"]] == [("tail-refcount", START + 69)]
    # Bytes of its own: it is no alias, and judged.
    data[(5 * 64 + 9) * 64 + 52] = 7
    found = [(f["rule"], f["pfn"]) for f in machine.scan(bytes(data))["findings"]]
    assert ("tail-refcount", START + 5 * 64 + 9) in found


# ---------------------------------------------------------------- order, caps, words


def test_the_first_row_names_the_finding() -> None:
    machine = Machine("H")
    tally = machine.scan(machine.page(zone=2, pgmap=8, refcount=-1))
    finding = tally["findings"][0]
    assert finding["rule"] == "wrong-zone"
    assert finding["also"] == ["wrong-pgmap", "refcount-out-of-range"]
    assert finding["refcount"] == -1


def test_caps_on_severity() -> None:
    page = {"refcount": -1}
    capped = Machine("H", severity_cap="warning")
    assert capped.judge(capped.page(**page))[0] == [("refcount-out-of-range", "warning")]
    unknown = Machine("unknown")
    assert unknown.judge(unknown.page(**page))[0] == [("refcount-out-of-range", "warning")]


def test_miscalibration_switches_off_what_compares_with_the_idle_count() -> None:
    machine = Machine("H", miscalibrated=True, severity_cap="warning")
    assert machine.judge(machine.page(refcount=1))[0] == []
    assert machine.judge(machine.page(zone=1))[0] == [("wrong-zone", "warning")]


def test_missing_members_make_rules_not_applicable() -> None:
    machine = Machine("H")
    rows = {
        row["id"]: why for row, why in zip(ROWS, _zonedev.why_not(machine.layout, machine.scheme))
    }
    assert rows["mapped-without-association"] is None
    old = Machine("C")
    whys = _zonedev.why_not(old.layout, old.scheme)
    assert any(why and "member" in why for why in whys) or all(
        why for row, why in zip(ROWS, whys) if row["id"] == "mapped-without-association"
    )


def test_every_page_rule_is_tried_here() -> None:
    tried = {case.rule for case in HEADS} | {
        "uninitialised",
        "tail-refcount",
        "bad-head",
        "wrong-order",
    }
    # Those that rest on DAX entries are tried in test_entries.py.
    rows = {
        row["id"] for row in ROWS if row["scope"] != "pagemap" and not row["requires_evidence"]
    } - {"dedup-alias"}
    assert rows <= tried


def test_table_is_well_formed() -> None:
    for row in ROWS:
        assert row["types"] and row["schemes"], row["id"]
        assert row["id"] == row["id"].lower().replace("_", "-")
        assert all(row[key] for key in ("number", "predicate", "meaning", "bug_class", "near_miss"))
        for other in ROWS:
            same = other is not row and other["id"] == row["id"] and other["scope"] == row["scope"]
            both = set(other["types"]) & set(row["types"]) and set(other["schemes"]) & set(
                row["schemes"]
            )
            if same and both:
                levels = ("severity", "severity_unproven")
                assert [row[k] for k in levels] != [other[k] for k in levels], row["id"]
    assert {f"R{n:02}" for n in [*range(1, 16), *range(20, 29), *range(30, 43)]} - {"R29"} <= {
        row["number"] for row in ROWS
    } | {"R29"}
    pages = [row for row in ROWS if row["scope"] != "pagemap"]
    # ZD_PAGE_RULES_MAX
    assert len(pages) <= 128
    assert pages == ROWS[: len(pages)]


def test_schemes_are_told_apart() -> None:
    for letter in EVIDENCE:
        assert Machine(letter).scheme.id == letter
    # Pagemaps of types in a radix tree: 4.14 to 4.19, however they are configured.
    old = {"pgmap_radix": True, "dev_pagemap.type": True, "page.pgmap": True}
    assert _zonedev.Scheme(old).id == "C"
    # The member without the conversion of fsdax: a backport, not scheme G.
    half = {"folio.pgmap": True, "__put_devmap_managed_folio_refs": True}
    assert _zonedev.Scheme(half).id == "unknown"
    assert _zonedev.Scheme(half).confidence == "low"


def test_flags_have_distinct_bits() -> None:
    assert len(set(FLAGS.values())) == len(FLAGS)


def test_documentation_is_that_of_the_table() -> None:
    assert (ROOT / "docs" / "rules.md").read_text() == rules_doc.document(), (
        "run scripts/rules_doc.py"
    )
