# SPDX-License-Identifier: LGPL-2.1-or-later
"""Synthetic struct pages: what no kernel at hand can show (old schemes, corrupt states, other machines).

A Machine is a layout, a scheme and a pagemap; it makes the bytes of struct pages from the members'
values, and scans them.
"""

from __future__ import annotations

from typing import Any, Optional

from zonedev import _zonedev

PGMAP = 0xFFFF8881_01234500
ZONE_DEVICE = 4
NODE = 1
START = 1 << 20
MAPPING = 0xFFFF8881_04000018

FLAGS = {
    "PG_locked": 0,
    "PG_referenced": 1,
    "PG_uptodate": 2,
    "PG_dirty": 3,
    "PG_lru": 5,
    "PG_head": 6,
    "PG_anon_exclusive": 11,
    "PG_reserved": 13,
    "PG_swapcache": 10,
    "PG_writeback": 15,
    "PG_hwpoison": 21,
}

# What tells each scheme (see the table in ext/core/scheme.c).
EVIDENCE: dict[str, set[str]] = {
    "A": {"get_zone_device_page", "page.pgmap"},
    "B": {"pgmap_radix", "page.pgmap"},
    "C": {"dev_pagemap.internal_ref", "page.pgmap", "pgmap_array", "dev_pagemap.type"},
    "D": {"free_zone_device_page", "page.pgmap", "pgmap_array", "dev_pagemap.type"},
    "E": {"zone_device_page_init", "page.pgmap", "page.share", "pgmap_array", "dev_pagemap.type"},
    "F1": {"dev_pagemap.init_mode", "page.pgmap", "dev_pagemap.type"},
    "F2": {"pgmap_request_folios", "page.pgmap", "dev_pagemap.type"},
    "G": {"folio.pgmap", "zone_device_page_init", "dev_pagemap.type"},
    "H": {
        "folio.pgmap",
        "dev_pagemap_ops.folio_free",
        "zone_device_page_init",
        "dax_folio_reset_order",
        "dev_pagemap.type",
    },
    "unknown": set(),
}

# offset in words, size in words or bytes; see Machine.
_WORDS = ("flags", "pgmap", "zone_device_data", "mapping", "index", "private")


def scheme(letter: str, *extra: str) -> _zonedev.Scheme:
    made = _zonedev.Scheme(dict.fromkeys(EVIDENCE[letter] | set(extra), True))
    assert made.id == letter
    return made


class Machine:
    """A layout of 4- or 8-byte words in either byte order, a scheme and a pagemap."""

    def __init__(
        self,
        letter: str = "H",
        type_: str = "FS_DAX",
        *extra: str,
        word: int = 8,
        big_endian: bool = False,
        zone_known: bool = True,
        missing: tuple[str, ...] = (),
        layout: Optional[dict[str, Any]] = None,
        index_bias: int = 0,
        **pagemap: Any,
    ) -> None:
        """
        :param missing: members and page flags that this kernel lacks
        :param layout: arguments of Layout to be others than usual
        :param index_bias: pfn less index of a device-dax page
        """
        self.word, self.big_endian = word, big_endian
        self.index_bias = index_bias
        self.page_size = 64 if word == 8 else 40
        self.bits = 8 * word
        self.zone = (self.bits - 13, 3)
        self.zone_known = zone_known
        self.node = (self.bits - 10, 10)
        self.memmap = 0xFFFFEA00_04000000 if word == 8 else 0xD0000000
        self.pgmap = PGMAP if word == 8 else 0xC1234500
        self.mapping = MAPPING if word == 8 else 0xC4000018
        self.evidence = EVIDENCE[letter] | set(extra)
        self.scheme = scheme(letter, *extra)
        self.offsets = self._offsets()
        self.layout_spec = self._layout_spec(letter, missing) | (layout or {})
        self.layout = _zonedev.Layout(**self.layout_spec)
        self.pagemap = {
            "address": self.pgmap,
            "type": f"MEMORY_DEVICE_{type_}",
            "node": NODE,
            **pagemap,
        }

    def _offsets(self) -> dict[str, tuple[int, int, int]]:
        w, size = self.word, self.page_size
        fields = {name: (i * w, w, 0) for i, name in enumerate(_WORDS) if name != "private"}
        after = len(_WORDS) * w
        fields |= {"_mapcount": (after, 4, 0), "_refcount": (after + 4, 4, 0)}
        fields |= {"share": fields["index"], "memcg_data": (after + 8, w, 0)}
        return fields | {
            "order": (size, w, 8),
            "_large_mapcount": (size + 2 * w, 4, 0),
            "_pincount": (size + 2 * w + 4, 4, 0),
        }

    def _layout_spec(self, letter: str, missing: tuple[str, ...]) -> dict[str, Any]:
        lacks = {*missing, *(("share",) if letter in "ABCD" else ())}
        flags = FLAGS if self.bits == 64 else {k: v for k, v in FLAGS.items() if v < 19}
        return {
            "page_size": self.page_size,
            "word_size": self.word,
            "big_endian": self.big_endian,
            "page_shift": 12,
            "pmd_order": 9,
            "compound_mask": letter == "H",
            "page_type_limit": (0xFF << 24) - (1 << 32) if letter in "EGH" else -128,
            "fields": {k: v for k, v in self.offsets.items() if k not in lacks},
            "flags": {k: v for k, v in flags.items() if k not in lacks},
            "zone": self.zone if self.zone_known else (0, 0),
            "node": self.node,
            "zone_device": ZONE_DEVICE,
        }

    @property
    def idle(self) -> int:
        idle = self.scheme.idle(self.pagemap["type"])
        return 0 if idle is None else idle

    def _flags(self, zone: int, node: int, names: tuple[str, ...], reserved: bool) -> int:
        word = zone << self.zone[0] | node << self.node[0]
        for name in (*names, *(("reserved",) if reserved else ())):
            word |= 1 << FLAGS[f"PG_{name}"]
        return word

    def put(self, page: bytearray, member: str, value: int) -> None:
        """Store a member's value; folio members lie beyond the first struct page."""
        offset, size, _ = self.offsets[member]
        order = "big" if self.big_endian else "little"
        page[offset : offset + size] = (value & (1 << 8 * size) - 1).to_bytes(size, order)

    def changed(self, pages: bytes, member: str, value: int) -> bytes:
        """The same with another value of a member of the first page."""
        copy = bytearray(pages)
        self.put(copy, member, value)
        return bytes(copy)

    def page(
        self,
        refcount: Optional[int] = None,
        maps: int = 0,
        mapping: int = 0,
        share: int = 0,
        flags: tuple[str, ...] = (),
        zone: int = ZONE_DEVICE,
        node: int = NODE,
        reserved: bool = True,
        pgmap: Optional[int] = None,
        raw_mapcount: Optional[int] = None,
        memcg: int = 0,
        data: int = 0,
    ) -> bytes:
        """A head of order 0; by default an idle one."""
        page = bytearray(self.page_size)
        self.put(page, "flags", self._flags(zone, node, flags, reserved))
        self.put(page, "pgmap", self.pgmap if pgmap is None else pgmap)
        self.put(page, "mapping", mapping)
        self.put(page, "index", share)
        self.put(page, "_mapcount", maps - 1 if raw_mapcount is None else raw_mapcount)
        self.put(page, "_refcount", self.idle if refcount is None else refcount)
        self.put(page, "memcg_data", memcg)
        self.put(page, "zone_device_data", data)
        return bytes(page)

    def tail(self, word: int, refcount: int = 0, **options: Any) -> bytes:
        return self.page(refcount=refcount, pgmap=word, **options)

    def folio(
        self,
        order: int,
        pfn: int = START,
        refcount: Optional[int] = None,
        maps: int = 0,
        pins: int = 0,
        mask: bool = False,
        **options: Any,
    ) -> bytes:
        """A compound folio: head, tails, and the counters in its first tail."""
        flags = ("head", *options.pop("flags", ()))
        head = self.page(refcount=refcount, maps=0, flags=flags, **options)
        head_address = self.memmap + (pfn - START) * self.page_size
        span = (1 << order) * self.page_size
        word = (~(span - 1) & (1 << self.bits) - 1) | 1 if mask else head_address | 1
        pages = bytearray(head + self.tail(word) * ((1 << order) - 1))
        first = bytearray(pages[: 2 * self.page_size])
        old = int.from_bytes(self.page()[: self.word], "big" if self.big_endian else "little")
        self.put(first, "order", old & ~0xFF | order)
        self.put(first, "_large_mapcount", maps - 1)
        self.put(first, "_pincount", pins)
        pages[: len(first)] = first
        return bytes(pages)

    def scan(
        self,
        data: bytes,
        fast: bool = True,
        merge: bool = True,
        entries: Optional[_zonedev.Entries] = None,
    ) -> dict[str, Any]:
        """The tally of a range that holds just these struct pages."""
        count = len(data) // self.page_size
        scan = _zonedev.Scan(
            self.layout, self.scheme, self.pagemap, merge=merge, fast=fast, entries=entries
        )
        scan.begin(START, START + count, self.memmap, self.index_bias)
        scan.pages(data)
        scan.end()
        return scan.result()

    def judge(self, data: bytes) -> tuple[list[tuple[str, str]], set[str]]:
        """(rule, severity) of the findings, and the classes that occur."""
        tally = self.scan(data)
        assert sum(tally["classes"].values()) == len(data) // self.page_size
        findings = [(f["rule"], f["severity"]) for f in tally["findings"]]
        return findings, {name for name, n in tally["classes"].items() if n}
