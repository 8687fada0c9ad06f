# SPDX-License-Identifier: LGPL-2.1-or-later
"""The scan: templates give what decoding gives, every page is counted once, bad calls are refused."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
from conftest import NAMES, open_vmcore
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import MAPPING, START, Machine

from zonedev import _zonedev
from zonedev.kernel.vmemmap import Hole, Pages, read_memmap
from zonedev.scanner import pagemap_spec

SCHEMES = ["A", "B", "C", "D", "E", "F1", "F2", "G", "H", "unknown"]
TYPES = ["PRIVATE", "COHERENT", "FS_DAX", "GENERIC", "PCI_P2PDMA"]
CHUNK = 64 * 64


def mutate(data: bytes, rng: random.Random, changes: int) -> bytes:
    """Flip bits and overwrite bytes and words with values that matter."""
    changed = bytearray(data)
    for _ in range(changes):
        i = rng.randrange(len(changed))
        kind = rng.randrange(4)
        if kind == 0:
            changed[i] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[i] = rng.choice((0, 1, 0xFD, 0xFF))
        elif kind == 2:
            page = i - i % 64
            changed[page : page + 64] = rng.choice((bytes(64), b"\xff" * 64, b"\xfd" * 64))
        else:
            word = i - i % 8
            changed[word : word + 8] = rng.choice((0, 1, 2, 1 << 32, (1 << 64) - 1)).to_bytes(
                8, "little"
            )
    return bytes(changed)


def typical_pages(machine: Machine, rng: random.Random, count: int) -> bytes:
    """Idle, cached, mapped and held pages and, where the scheme makes them, folios."""
    pages = bytearray()
    while len(pages) < count * 64:
        pfn = START + len(pages) // 64
        kind = rng.randrange(8)
        if kind == 0 and pfn % 512 == 0:
            pages += machine.folio(
                9, pfn, maps=rng.randrange(3), mapping=MAPPING, mask=rng.random() < 0.5
            )
        elif kind < 5:
            pages += machine.page() * rng.randrange(1, 40)
        elif kind == 5:
            pages += machine.page(mapping=MAPPING) * 3
        elif kind == 6:
            pages += machine.page(refcount=machine.idle + 1, maps=1, mapping=MAPPING) * 2
        else:
            pages += machine.page(refcount=machine.idle + rng.randrange(3), share=rng.randrange(2))
    return bytes(pages[: count * 64])


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("letter", SCHEMES)
def test_templates_agree_with_decoding(letter: str, type_: str) -> None:
    rng = random.Random(f"{letter}{type_}")
    for options in (
        {},
        {"vmemmap_shift": 9, "deduplicated": True},
        {"node": -1},
        {"foreign_maps": True},
    ):
        machine = Machine(letter, type_, **options)
        for _ in range(6):
            data = mutate(typical_pages(machine, rng, 700), rng, rng.randrange(40))
            assert machine.scan(data, fast=True) == machine.scan(data, fast=False)


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("letter", ["C", "E", "G", "H"])
def test_every_byte_of_every_template_matters_or_does_not(letter: str, type_: str) -> None:
    """Change each bit of an idle, a cached and a mapped page: both paths give the same answer."""
    machine = Machine(letter, type_)
    states = (
        machine.page(),
        machine.page(mapping=MAPPING),
        machine.page(refcount=machine.idle + 1, maps=1, mapping=MAPPING),
    )
    for state in states:
        pages = bytearray()
        for bit in range(8 * 64):
            changed = bytearray(state)
            changed[bit // 8] ^= 1 << bit % 8
            pages += changed + state
        data = bytes(pages)
        assert machine.scan(data, fast=True) == machine.scan(data, fast=False)


def test_every_bit_of_a_tail() -> None:
    machine = Machine("H")
    folio = machine.folio(9, refcount=1, maps=1, mapping=MAPPING)
    for bit in range(8 * 64):
        changed = bytearray(folio)
        changed[64 * 300 + bit // 8] ^= 1 << bit % 8
        data = bytes(changed)
        assert machine.scan(data, fast=True) == machine.scan(data, fast=False), bit


@pytest.mark.parametrize("name", NAMES)
def test_templates_agree_on_real_cores_and_on_mutated_ones(name: str) -> None:
    vmcore = open_vmcore(name)
    kernel = vmcore.kernel
    rng = random.Random(name)
    for pagemap in kernel.pagemaps:
        for range_ in pagemap.ranges:
            count = min(range_.end_pfn - range_.first_pfn, 1 << 16)
            address = kernel.layout.page_address(range_.first_pfn)
            pieces = list(read_memmap(vmcore.prog, address, count, kernel.layout))
            for changes in (0, 200):
                results = []
                mutated = [
                    p if isinstance(p, Hole) else Pages(mutate(p.data, rng, changes))
                    for p in pieces
                ]
                for fast in (True, False):
                    scan = _zonedev.Scan(
                        kernel.layout.layout, kernel.scheme, pagemap_spec(pagemap), fast=fast
                    )
                    bias = pagemap.index_bias(range_.first_pfn)
                    scan.begin(range_.first_pfn, range_.first_pfn + count, address, bias)
                    for piece in mutated:
                        if isinstance(piece, Hole):
                            scan.hole(piece.pages, piece.class_)
                        else:
                            scan.pages(piece.data)
                    scan.end()
                    results.append(scan.result())
                assert results[0] == results[1]
                assert sum(results[0]["classes"].values()) == count


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1 << 32),
    letter=st.sampled_from(SCHEMES),
    type_=st.sampled_from(TYPES),
    word=st.sampled_from([4, 8]),
    big_endian=st.booleans(),
)
def test_arbitrary_bytes_are_classed_once(
    seed: int, letter: str, type_: str, word: int, big_endian: bool
) -> None:
    machine = Machine(letter, type_, word=word, big_endian=big_endian)
    data = random.Random(seed).randbytes(machine.page_size * 200)
    tally = machine.scan(data)
    assert sum(tally["classes"].values()) == 200
    assert sum(tally["refcounts"].values()) <= 200


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("word", [4, 8])
def test_word_sizes_and_byte_orders(word: int, big_endian: bool) -> None:
    machine = Machine("H", word=word, big_endian=big_endian)
    data = (
        machine.page() * 3
        + machine.page(refcount=2, maps=1, mapping=machine.mapping)
        + machine.page(refcount=1)
        + machine.page() * 507
        + machine.folio(9, START + 512, refcount=3, maps=1, pins=2, mapping=machine.mapping)
    )
    tally = machine.scan(data)
    assert tally["classes"] == {
        "idle": 510,
        "busy": 513,
        "violation": 1,
        "not-captured": 0,
        "unreadable": 0,
        "skipped": 0,
    }
    assert [f["rule"] for f in tally["findings"]] == [
        "held-without-map",
        "reference-on-free-folio",
        "dma-pinned",
    ]
    assert tally["refcounts"] == {0: 510, 1: 1, 2: 1, 3: 1}


def test_pieces_of_any_size_give_the_same_tally() -> None:
    machine = Machine("H")
    rng = random.Random(5)
    data = typical_pages(machine, rng, 2048)
    whole = machine.scan(data)
    for step in (4, 64, 100, 512, 1000):
        scan = _zonedev.Scan(machine.layout, machine.scheme, machine.pagemap)
        scan.begin(START, START + 2048, machine.memmap)
        for i in range(0, 2048, step):
            scan.pages(data[i * 64 : (i + step) * 64])
        scan.end()
        assert scan.result() == whole, step


def test_runs_are_merged_and_can_be_kept_apart() -> None:
    machine = Machine("H")
    data = b"".join(machine.page(refcount=-1, mapping=MAPPING, share=10 + i) for i in range(5))
    (run,) = machine.scan(data)["findings"]
    assert (run["pfn"], run["count"], run["pages"], run["index"]) == (START, 5, 5, 10)
    single = machine.scan(data, merge=False)["findings"]
    assert [f["pfn"] for f in single] == [START + i for i in range(5)]
    # Information is never looked at twice, and always merged.
    held = b"".join(machine.page(refcount=1, mapping=MAPPING, share=10 + i) for i in range(5))
    assert machine.scan(held, merge=False)["findings"][0]["count"] == 5
    # Another index in between is another run.
    odd = b"".join(machine.page(refcount=1, mapping=MAPPING, share=i) for i in (1, 2, 9, 10, 10))
    counts = [f["count"] for f in machine.scan(odd)["findings"]]
    assert counts == [2, 2, 1]


def test_severities_count_pages() -> None:
    machine = Machine("H")
    data = machine.folio(9, refcount=2, maps=1, mapping=MAPPING) + machine.page(refcount=1) * 2
    assert machine.scan(data)["severities"] == {"info": 512, "warning": 0, "error": 2}


def test_information_never_crowds_out_an_error() -> None:
    machine = Machine("H", "GENERIC")
    pair = machine.page(refcount=1025, mapping=MAPPING) + machine.page()
    data = pair * (1 << 18) + machine.page(refcount=-1)
    tally = machine.scan(data)
    assert tally["findings_dropped"] > 0
    assert [f["rule"] for f in tally["findings"] if f["severity"] == "error"] == [
        "refcount-out-of-range"
    ]
    assert tally["severities"] == {"info": 1 << 18, "warning": 0, "error": 1}


def new_scan(machine: Machine) -> _zonedev.Scan:
    scan = _zonedev.Scan(machine.layout, machine.scheme, machine.pagemap)
    scan.begin(START, START + 4, machine.memmap)
    return scan


def test_a_scan_wants_every_page_once() -> None:
    machine = Machine("H")
    scan = new_scan(machine)
    scan.pages(machine.page() * 3)
    with pytest.raises(ValueError, match="missing"):
        scan.end()
    scan.hole(1, "unreadable")
    scan.end()
    with pytest.raises(ValueError, match="more pages"):
        scan.pages(machine.page())
    with pytest.raises(ValueError, match="more pages"):
        scan.hole(1, "skipped")
    with pytest.raises(ValueError, match="whole struct pages"):
        new_scan(machine).pages(b"123")
    assert scan.classes()["unreadable"] == 1


@pytest.mark.parametrize(
    ("pagemap", "error"),
    [
        ({"address": 1}, TypeError),
        ({"address": -1, "type": "MEMORY_DEVICE_FS_DAX"}, (OverflowError, TypeError)),
        ({"address": 1 << 64, "type": "MEMORY_DEVICE_FS_DAX"}, OverflowError),
        ({"address": 1, "type": "MEMORY_DEVICE_TAPE"}, ValueError),
        ({"address": 1, "type": "MEMORY_DEVICE_FS_DAX", "ref": "gone"}, ValueError),
        ({"address": 1, "type": "MEMORY_DEVICE_FS_DAX", "vmemmap_shift": 300}, OverflowError),
        ([], TypeError),
    ],
)
def test_bad_pagemaps_are_refused(pagemap: Any, error: Any) -> None:
    machine = Machine("H")
    with pytest.raises(error):
        _zonedev.Scan(machine.layout, machine.scheme, pagemap)


@pytest.mark.parametrize(
    ("start", "end", "memmap"),
    [(10, 9, 0), (0, 1 << 63, 0), (0, 1 << 20, (1 << 64) - 4096)],
)
def test_bad_ranges_are_refused(start: int, end: int, memmap: int) -> None:
    machine = Machine("H")
    scan = _zonedev.Scan(machine.layout, machine.scheme, machine.pagemap)
    with pytest.raises(ValueError, match="makes no sense"):
        scan.begin(start, end, memmap)


@pytest.mark.parametrize(
    "change",
    [
        {"page_size": 0},
        {"page_size": 4096},
        {"page_size": 63},
        {"word_size": 3},
        {"page_shift": 60},
        {"zone": (60, 8)},
        {"fields": {"flags": (0, 8, 0)}},
        {"fields_update": {"_refcount": (62, 4, 0)}},
        {"fields_update": {"mapping": (24, 7, 0)}},
        {"fields_update": {"order": (64, 1, 9)}},
        {"fields_update": {"_pincount": (256, 4, 0)}},
        {"fields_update": {"nonsense": (0, 8, 0)}},
        {"flags": {"PG_head": 64}},
    ],
)
def test_layouts_are_checked(change: dict[str, Any]) -> None:
    machine = Machine("H")
    spec: dict[str, Any] = {
        "page_size": 64,
        "word_size": 8,
        "big_endian": False,
        "page_shift": 12,
        "pmd_order": 9,
        "compound_mask": True,
        "page_type_limit": -128,
        "fields": dict(machine.offsets),
        "flags": {},
        "zone": machine.zone,
        "node": machine.node,
        "zone_device": 4,
    }
    _zonedev.Layout(**spec)
    spec["fields"].update(change.pop("fields_update", {}))
    spec.update(change)
    with pytest.raises((ValueError, OverflowError)):
        _zonedev.Layout(**spec)


def test_threads_do_not_share_a_scan() -> None:
    """Each thread its own scan: same result as one after the other; the GIL is free meanwhile."""
    machine = Machine("H")
    data = typical_pages(machine, random.Random(3), 20000)
    whole = machine.scan(data)
    results: list[Any] = [None] * 4

    def work(i: int) -> None:
        results[i] = machine.scan(data)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [whole] * 4


def test_touched_device_dax_pages_need_no_decoding_and_no_index_may_be_odd() -> None:
    machine = Machine("H", "GENERIC", dax_mapping=MAPPING, index_bias=START - 7)
    pages = [machine.page(mapping=MAPPING, share=7 + i) for i in range(100)]
    pages[40] = machine.page()
    data = b"".join(pages)
    assert machine.scan(data)["findings"] == []
    assert machine.scan(data)["classes"]["idle"] == 100
    assert machine.scan(data) == machine.scan(data, fast=False)
    pages[50] = machine.page(mapping=MAPPING, share=7 + 51)
    pages[60] = machine.page(mapping=MAPPING + 64, share=7 + 60)
    data = b"".join(pages)
    assert machine.scan(data) == machine.scan(data, fast=False)
    assert [(f["rule"], f["pfn"] - START) for f in machine.scan(data)["findings"]] == [
        ("gen-mapping", 50),
        ("gen-mapping", 60),
    ]


@pytest.mark.parametrize("wanted", [False, True])
def test_pages_in_use_are_counted_with_and_without_their_drivers_data(wanted: bool) -> None:
    machine = Machine("H", "PRIVATE", driver_data=wanted)
    used = {"refcount": 1, "maps": 1, "mapping": MAPPING | 1}
    pages = [machine.page(**used, data=i % 4) for i in range(40)]
    pages += [machine.page(), machine.page(refcount=1, flags=("locked",)), machine.page(refcount=1)]
    data = b"".join(pages)
    for fast in (True, False):
        assert machine.scan(data, fast=fast)["driver_data"] == {"missing": 11, "set": 30}
    assert machine.scan(data) == machine.scan(data, fast=False)
    found = [f["rule"] for f in machine.scan(data, merge=False)["findings"]]
    assert found.count("zdd") == (10 if wanted else 0)
