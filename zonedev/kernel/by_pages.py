# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pagemaps that struct pages name: what is there without a registry, or beside it.

Owns the search through the memory sections that hold no ordinary memory: the first page of each subsection that
no known pagemap covers names its pagemap (a tail: through its head), which is believed where it covers that
page itself.  So what is read does not grow with the pages of pagemaps that are known.

Invariant: what was not searched, and what is no pagemap's, is told: nothing is concluded from finding nothing.

Mirrors include/linux/mmzone.h, mm/memremap.c (pages name their pagemap from before they are used until their
memmap is gone).
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any, NamedTuple, Optional

from drgn import FaultError, Program

from zonedev import _zonedev
from zonedev.kernel.device import DeviceNames
from zonedev.kernel.gaps import ERRORS
from zonedev.kernel.layout import KernelLayout
from zonedev.kernel.registry import known_type, read_pagemap
from zonedev.kernel.sections import Sections
from zonedev.model import Pagemap

# Subsections that are looked at, of 2 MiB each.
_PAGES_MAX = 1 << 20


class Found(NamedTuple):
    """What a search gave.

    pagemaps: those that were not known; rest: first pfns of subsections that look like a device's, or cannot be read,
    and belong to no pagemap, known or found; unread: pfns [first, end) of sections of which nothing is known.
    """

    pagemaps: list[Pagemap]
    rest: list[int]
    unread: list[tuple[int, int]]


class _Covered:
    """Pfns that are known to belong to a pagemap."""

    def __init__(self, pagemaps: Iterable[Pagemap]) -> None:
        self._ranges: list[tuple[int, int]] = []
        for pagemap in pagemaps:
            self.add(pagemap)

    def add(self, pagemap: Pagemap) -> None:
        for range_ in pagemap.ranges:
            insort(self._ranges, (range_.start_pfn, range_.end_pfn))

    def end_at(self, pfn: int) -> Optional[int]:
        """Where the range ends that covers a pfn; None where none does."""
        i = bisect_right(self._ranges, (pfn, 1 << 64)) - 1
        return self._ranges[i][1] if i >= 0 and pfn < self._ranges[i][1] else None


def decode_anyones(
    prog: Program,
    layout: KernelLayout,
    scheme: _zonedev.Scheme,
    pfn: int,
    start: int,
    end: int,
) -> dict[str, Any]:
    """The page *pfn* of the pfns [start, end), whosever it is: its words, and those that lead to its head.

    :raises FaultError: it cannot be read
    """
    data = prog.read(layout.page_address(pfn), layout.page_size)
    # Of whose pagemap it is, what is asked does not depend.
    anyone = {"address": 0, "type": "MEMORY_DEVICE_GENERIC"}
    place = (start, end, layout.page_address(start))
    return _zonedev.decode(layout.layout, scheme, anyone, place, pfn, data)


class _Search:
    def __init__(
        self, prog: Program, layout: KernelLayout, scheme: _zonedev.Scheme, known: list[Pagemap]
    ) -> None:
        self._prog, self._layout, self._scheme = prog, layout, scheme
        self._known = {pagemap.address for pagemap in known}
        self._covered = _Covered(known)
        self._left = _PAGES_MAX
        self._open: list[int] = []

    @cached_property
    def _names(self) -> DeviceNames:
        # Read where there is something to be named, which is next to never.
        return DeviceNames(self._prog)

    def _decode(self, pfn: int, start: int, end: int) -> dict[str, Any]:
        """The page *pfn* of the pfns [start, end)."""
        return decode_anyones(self._prog, self._layout, self._scheme, pfn, start, end)

    def _is_device(self, page: dict[str, Any]) -> bool:
        """Whether a page may be one of ZONE_DEVICE: sections are shared with ordinary memory."""
        width = self._layout.zone[1]
        return not width or page["zone"] == self._layout.zone_device

    def _named_by(self, pfn: int, start: int, end: int) -> Optional[int]:
        """Address of what a page says is its pagemap, 0 where it says nothing; None for ordinary memory.

        :raises FaultError: it cannot be read
        """
        page = self._decode(pfn, start, end)
        if not self._is_device(page):
            return None
        if page["pattern"] == "data" and page["tail"] and page["head_pfn"] is not None:
            page = self._decode(page["head_pfn"], start, end)
        says = page["pattern"] == "data" and not page["tail"]
        return int(page["word1"]) if says else 0

    def _pagemap_at(self, address: int, pfn: int) -> Optional[Pagemap]:
        """The pagemap at an address, where it covers the page that names it."""
        if not address or address in self._known:
            return None
        try:
            pagemap = read_pagemap(self._prog, address, [], self._names, self._layout)
        except ERRORS:
            return None
        believed = known_type(pagemap) and pagemap.covers(pfn) and pagemap.ref.state != "dead"
        return pagemap if believed else None

    def look_at(self, pfn: int, start: int, end: int) -> Iterator[Pagemap]:
        """Read one of the pfns [start, end)."""
        try:
            address = self._named_by(pfn, start, end)
        except FaultError:
            address = 0
        if address is None:
            return
        pagemap = self._pagemap_at(address, pfn)
        if pagemap is None:
            self._open.append(pfn)
            return
        self._known.add(pagemap.address)
        self._covered.add(pagemap)
        yield pagemap

    def of_stretch(self, start: int, end: int, step: int) -> Iterator[Pagemap]:
        """Those of the pfns [start, end), looked at every *step* pages."""
        pfn = start
        while pfn < end:
            if self._covered.end_at(pfn) is None:
                if not self._left:
                    self._open.append(pfn)
                    return
                self._left -= 1
                yield from self.look_at(pfn, start, end)
            pfn = -(-(self._covered.end_at(pfn) or pfn + 1) // step) * step

    def rest(self) -> list[int]:
        """What was looked at, and is no known pagemap's: the first pages of subsections."""
        return [pfn for pfn in self._open if self._covered.end_at(pfn) is None]


def find_by_pages(
    prog: Program, layout: KernelLayout, scheme: _zonedev.Scheme, known: list[Pagemap]
) -> Found:
    """Pagemaps that are not known, and pages name.

    :raises LookupError: the kernel has no sections, or their types are not known
    :raises FaultError: where sections lie cannot be read
    """
    sections = Sections(prog)
    search = _Search(prog, layout, scheme, known)
    found: list[Pagemap] = []
    for start, end in sections.of_devices():
        found += search.of_stretch(start, end, sections.subsection_pages)
    return Found(found, search.rest(), sections.unread)
