#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Compare truth-states.json with the struct pages of the core, page by page.

usage: check_states.py VMLINUX CORE truth-states.json     (with a Python that has drgn)

Owns the comparison only: what must be there is replay.py's, and this script never changes it.
Reads raw struct pages with member offsets from the debug information and shares no code with the
auditor, so that an error in either shows. Prints each differing run and a summary; also how many
pages of the pagemaps no state speaks of. Exit status 1 if a folio differs.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import re
import struct
import sys
from pathlib import Path
from typing import Any

import drgn
from drgn import FaultError, Program
from drgn.helpers.linux.xarray import xa_for_each

CHUNK = 1 << 14  # pages read at once
PAGE_SHIFT = 12


@dataclasses.dataclass(frozen=True)
class Folio:
    """What is compared; order None: a tail."""

    order: int | None
    refcount: int
    mapcount: int
    mapping: str
    pincount: int


class Pages:
    """The struct pages of a core."""

    def __init__(self, prog: Program) -> None:
        self.prog = prog
        page = prog.type("struct page")
        self.size = page.size
        self.vmemmap = prog["vmemmap"].value_()  # of drgn itself
        self.refcount, self.mapcount, self.mapping = map(
            self.offset, ("_refcount", "_mapcount", "mapping")
        )
        self.index = self.offset("share", "index", "__folio_index")
        self.head_bit = dict(prog.type("enum pageflags").enumerators)["PG_head"]
        release = prog["UTS_RELEASE"].string_().decode()
        match = re.match(r"(\d+)\.(\d+)", release)
        assert match
        self.version = int(match[1]), int(match[2])
        self.large = self.large_offsets()

    def offset(self, *names: str, of: str = "struct page") -> int:
        for name in names:
            try:
                return int(self.prog.type(of).member(name).bit_offset // 8)
            except LookupError:
                continue
        raise LookupError(f"{of} has none of {names}")

    def large_offsets(self) -> tuple[int, int | None, int]:
        """Offsets from the head of: order byte, large mapcount (or None), pincount."""
        if self.version >= (6, 12):
            names = ("_flags_1", "_large_mapcount", "_pincount")
            order, mapcount, pincount = (self.offset(name, of="struct folio") for name in names)
            return order, mapcount, pincount
        order = self.size + self.offset("compound_order")
        pincount = self.offset("compound_pincount", "hpage_pinned_refcount")
        return order, None, pincount + self.size * (2 if self.version < (6, 0) else 1)

    def read(self, pfn: int, count: int) -> bytes:
        return bytes(self.prog.read(self.vmemmap + pfn * self.size, count * self.size))

    def decode(self, data: bytes, i: int) -> Folio:
        """Page `i` of `data`, which holds the whole folio."""
        at = i * self.size
        flags, word1 = struct.unpack_from("<QQ", data, at)
        (refcount,) = struct.unpack_from("<i", data, at + self.refcount)
        if word1 & 1:
            return Folio(None, refcount, 0, "any", 0)
        (mapcount,) = struct.unpack_from("<i", data, at + self.mapcount)
        order, pincount = 0, 0
        if flags >> self.head_bit & 1:
            at_order, at_mapcount, at_pincount = self.large
            order = data[at + at_order]
            (pincount,) = struct.unpack_from("<i", data, at + at_pincount)
            mapcount = struct.unpack_from("<i", data, at + at_mapcount)[0] if at_mapcount else -1
        return Folio(order, refcount, mapcount + 1, self.mapping_kind(data, at), pincount)

    def mapping_kind(self, data: bytes, at: int) -> str:
        (mapping,) = struct.unpack_from("<Q", data, at + self.mapping)
        (index,) = struct.unpack_from("<Q", data, at + self.index)
        if mapping == 1 and self.version < (6, 15):
            return "shared"
        if mapping == 0:
            return "shared" if index and self.version >= (6, 15) else "none"
        return "any" if mapping & 3 else "file"


def differs(state: dict[str, Any], folio: Folio) -> bool:
    """Whether a head differs from a state; null and "any" agree with everything."""
    if state["order"] is not None and state["order"] != folio.order:
        return True
    for key in ("refcount", "mapcount", "pincount"):
        if state.get(key) is not None and state[key] != getattr(folio, key):
            return True
    expected = state["mapping"]
    if expected == "none" and state["type"] != "fsdax":
        return folio.mapping not in ("none", "shared")  # a stale index is not a share count there
    return bool(expected not in ("any", folio.mapping))


class Comparison:
    def __init__(self, pages: Pages) -> None:
        self.pages = pages
        self.folios = self.tails = self.unreadable = self.unknown = 0
        self.differing: collections.Counter[tuple[str, Folio, int]] = collections.Counter()
        self.where: dict[tuple[str, Folio, int], int] = {}

    def _differ(self, index: int, state: dict[str, Any], folio: Folio, pfn: int) -> None:
        key = (state["why"], folio, index)
        self.differing[key] += 1
        self.where.setdefault(key, pfn)

    def run(self, index: int, state: dict[str, Any]) -> None:
        pfn, end = state["pfn"], state["pfn"] + state["count"]
        step = 1 << (state["order"] or 0)
        while pfn < end:
            count = min(end - pfn, max(CHUNK, step))
            try:
                data = self.pages.read(pfn, count)
            except FaultError:
                self.slow(index, state, pfn, count, step)
            else:
                self.chunk(index, state, pfn, data, count, step)
            pfn += count

    def slow(self, index: int, state: dict[str, Any], pfn: int, count: int, step: int) -> None:
        """A chunk with holes: folio by folio."""
        for first in range(pfn, pfn + count, step):
            try:
                data = self.pages.read(first, step)
            except FaultError:
                self.unreadable += step
            else:
                self.chunk(index, state, first, data, step, step)

    def chunk(
        self, index: int, state: dict[str, Any], pfn: int, data: bytes, count: int, step: int
    ) -> None:
        tails = state.get("tail_refcounts", {})
        for i in range(count):
            folio = self.pages.decode(data, i)
            if i % step:
                self.tails += 1
                if folio.order is not None or folio.refcount != tails.get(str(pfn + i), 0):
                    self._differ(index, state, folio, pfn + i)
                continue
            self.folios += 1
            self.unknown += state["refcount"] is None
            if differs(state, folio):
                self._differ(index, state, folio, pfn + i)


def pagemap_pages(prog: Program) -> list[tuple[int, int]]:
    """[start, end) frames of every registered pagemap; an altmap's own pages are left out."""
    found = {}
    for _, entry in xa_for_each(prog["pgmap_array"].address_of_()):
        pgmap = drgn.cast("struct dev_pagemap *", entry)
        start = (
            pgmap.range if pgmap.nr_range.value_() == 1 else pgmap.ranges[0]
        ).start.value_() >> PAGE_SHIFT
        end = (
            (pgmap.range if pgmap.nr_range.value_() == 1 else pgmap.ranges[0]).end.value_() + 1
        ) >> PAGE_SHIFT
        if pgmap.flags.value_() & 1:
            start += (pgmap.altmap.reserve + pgmap.altmap.free).value_()
        found[start] = end
    return sorted(found.items())


def coverage(prog: Program, states: list[dict[str, Any]]) -> int:
    """Pages of pagemaps that no state speaks of."""
    missing = 0
    for start, end in pagemap_pages(prog):
        covered = sum(
            max(0, min(end, s["pfn"] + s["count"]) - max(start, s["pfn"])) for s in states
        )
        missing += end - start - covered
    return missing


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("vmlinux", type=Path)
    parser.add_argument("core", type=Path)
    parser.add_argument("states", type=Path)
    options = parser.parse_args()
    prog = Program()
    prog.set_core_dump(options.core)
    prog.load_debug_info([str(options.vmlinux)])
    truth = json.loads(options.states.read_text())
    comparison = Comparison(Pages(prog))
    for index, state in enumerate(truth["states"]):
        comparison.run(index, state)
    for (why, folio, index), count in comparison.differing.most_common():
        state = {k: truth["states"][index][k] for k in ("order", "refcount", "mapcount", "mapping")}
        print(
            f"differs: {count} from pfn {comparison.where[why, folio, index]}: {why}: expected {state}, core has {folio}"
        )
    print(
        f"{truth['kernel']} {truth['scenario']}: {comparison.folios} folios compared ({comparison.tails} tails), "
        f"{sum(comparison.differing.values())} differ, {comparison.unreadable} pages unreadable, "
        f"{comparison.unknown} without an expected refcount, {coverage(prog, truth['states'])} pages of pagemaps without a state"
    )
    sys.exit(1 if comparison.differing else 0)


if __name__ == "__main__":
    main()
