# SPDX-License-Identifier: LGPL-2.1-or-later
"""Struct pages in a buffer, through the C core alone: what decoding and rules cost without any reading."""

from __future__ import annotations

import random
import sys
import time

from zonedev import _zonedev

BUFFER_BYTES = 1 << 30

# A native 64-bit layout, as on amd64.
LAYOUT = _zonedev.Layout(
    page_size=64,
    word_size=8,
    big_endian=sys.byteorder == "big",
    page_shift=12,
    pmd_order=9,
    compound_mask=True,
    page_type_limit=(0xFF << 24) - (1 << 32),
    fields={
        "flags": (0, 8, 0),
        "pgmap": (8, 8, 0),
        "zone_device_data": (16, 8, 0),
        "mapping": (24, 8, 0),
        "index": (32, 8, 0),
        "share": (32, 8, 0),
        "_mapcount": (48, 4, 0),
        "_refcount": (52, 4, 0),
        "memcg_data": (56, 8, 0),
        "order": (64, 8, 8),
        "_large_mapcount": (80, 4, 0),
        "_pincount": (92, 4, 0),
    },
    flags={"PG_locked": 0, "PG_lru": 5, "PG_head": 6, "PG_reserved": 13, "PG_hwpoison": 21},
    zone=(51, 3),
    node=(54, 10),
    zone_device=4,
)
SCHEME = _zonedev.Scheme(
    {"folio.pgmap": True, "dev_pagemap_ops.folio_free": True, "dax_folio_reset_order": True}
)
PGMAP = 0xFFFF888101234500
MEMMAP = 0xFFFFEA0000000000
FLAGS = 4 << 51 | 1 << 13


def struct_page(refcount: int = 0, maps: int = 0, mapping: int = 0, index: int = 0) -> bytes:
    words = [FLAGS, PGMAP, 0, mapping, index, 0, (maps - 1) & 0xFFFFFFFF | refcount << 32, 0]
    return b"".join(word.to_bytes(8, sys.byteorder) for word in words)


def busy_pages(buffer: bytearray, percent: int) -> None:
    """Random pages in a file: mapped once, cached and unmapped, or held by an I/O, a third each."""
    rng = random.Random(1)
    pages = len(buffer) // 64
    states = ((1, 1), (0, 0), (2, 1))
    for pfn in rng.sample(range(pages), pages * percent // 100):
        refcount, maps = states[pfn % 3]
        buffer[pfn * 64 : pfn * 64 + 64] = struct_page(refcount, maps, 0xFFFF888104000018, pfn)


def scan_buffer(buffer: bytearray) -> None:
    pages = len(buffer) // 64
    scan = _zonedev.Scan(
        LAYOUT, SCHEME, {"address": PGMAP, "type": "MEMORY_DEVICE_FS_DAX", "node": 0}
    )
    scan.begin(1 << 20, (1 << 20) + pages, MEMMAP)
    scan.pages(buffer)
    scan.end()
    classes = scan.classes()
    assert classes["idle"] + classes["busy"] == pages


def buffer_rates(rounds: int) -> dict[str, float]:
    """Name -> best seconds for BUFFER_BYTES, one thread; copying them is the first."""
    idle = bytearray(struct_page() * (BUFFER_BYTES // 64))
    busy = bytearray(idle)
    busy_pages(busy, 1)
    target = memoryview(bytearray(BUFFER_BYTES))

    def memcpy() -> None:
        target[:] = idle

    candidates = {
        "memcpy": memcpy,
        "zonedev, all idle": lambda: scan_buffer(idle),
        "zonedev, 1 % busy": lambda: scan_buffer(busy),
    }
    best: dict[str, float] = {}
    for _ in range(rounds):
        for name, work in candidates.items():
            begin = time.perf_counter()
            work()
            best[name] = min(time.perf_counter() - begin, best.get(name, float("inf")))
    return best
