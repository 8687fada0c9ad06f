# SPDX-License-Identifier: LGPL-2.1-or-later
"""Second passes over what drivers say of their pages: the pool of peer-to-peer memory, lists of free pages.

Owns whether they are run, what they say of themselves in the report, and the bits that scans are given.
Where pools and lists are is kernel/p2pdma.py's and kernel/free_lists.py's, judging is the core's.

A pool is a bitmap, which a live kernel may be asked for again with every sample.  A list that changes while
it is walked leads into pages that are in use: on a live kernel lists are left alone.
A pass that was not run takes nothing away from the verdict; the rules that need it are listed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Optional

from zonedev import _zonedev
from zonedev.kernel.dax import memory_reader
from zonedev.kernel.facts import Kernel
from zonedev.kernel.free_lists import CannotFind, FreeList, find_lists
from zonedev.kernel.p2pdma import CannotRead, read_pool
from zonedev.model import ANONYMOUS, PCI_P2PDMA, Pagemap

POOL_EVIDENCE = "gen_pool bitmap"
LIST_EVIDENCE = "driver free list"

QUICK = "left out (--quick)"
LIVE = "not applicable: live kernel, whose lists change while they are walked"

_GAPS_MAX = 20


def _name(pagemap: Pagemap) -> str:
    return f"{pagemap.device or pagemap.resource or 'pagemap'} ({pagemap.address:#x})"


def _add_ranges(bits: _zonedev.PageBits, kernel: Kernel, pagemap: Pagemap) -> None:
    for range_ in pagemap.ranges:
        bits.range(range_.start_pfn, range_.end_pfn, kernel.layout.page_address(range_.start_pfn))


class _Gaps:
    """What could not be read, and why; of many, that there are more."""

    def __init__(self) -> None:
        self._by_reason: dict[str, list[str]] = {}

    def add(self, what: str, why: str) -> None:
        self._by_reason.setdefault(why, []).append(what)

    @property
    def texts(self) -> list[str]:
        """A line per reason."""
        lines = [
            f"{names[0]}{f' and {len(names) - 1} more' if names[1:] else ''}: {why}"
            for why, names in self._by_reason.items()
        ]
        return lines[:_GAPS_MAX] + (["and more"] if len(lines) > _GAPS_MAX else [])


class _Read:
    """What a pass has read: all of it, or with gaps; or it was not run, with the reason why."""

    def __init__(self, kernel: Kernel, why: Optional[str]) -> None:
        self._kernel, self._gaps, self.why = kernel, _Gaps(), why

    @property
    def complete(self) -> bool:
        """Whether every pool, or every list to its end, of the pagemaps that have them was read."""
        return self.why is None and not self._gaps.texts

    def lacking(self) -> Optional[str]:
        """Where evidence is missing, in words; None: nowhere."""
        return None if self.complete else ""


class PoolPass(_Read):
    """The bitmaps of the pools that P2PDMA pages are allocated from."""

    evidence = POOL_EVIDENCE

    def __init__(self, kernel: Kernel, quick: bool = False) -> None:
        super().__init__(kernel, QUICK if quick else None)
        self._bits: dict[int, _zonedev.PageBits] = {}
        self._pages = 0
        if not quick:
            self._run()

    def _run(self) -> None:
        for pagemap in (p for p in self._kernel.pagemaps if p.type == PCI_P2PDMA):
            try:
                self._bits[pagemap.address] = self._read(pagemap)
                self._pages += pagemap.pages
            except CannotRead as err:
                self._gaps.add(_name(pagemap), str(err))
        if not self._bits:
            self.why = "; ".join(self._gaps.texts)

    def _read(self, pagemap: Pagemap) -> _zonedev.PageBits:
        pool = read_pool(self._kernel.prog, pagemap, self._kernel.layout)
        bits = _zonedev.PageBits(self._kernel.layout.layout, memory_reader(self._kernel.prog))
        try:
            _add_ranges(bits, self._kernel, pagemap)
        except (ValueError, MemoryError) as err:
            raise CannotRead(str(err) or "no memory") from None
        bits.set(pool.start_pfn, pool.bitmap, pool.pages)
        return bits

    def bits_of(self, pagemap: Pagemap) -> Optional[_zonedev.PageBits]:
        """The pages that are handed out, of a live kernel just now; None where that is not known."""
        if pagemap.address not in self._bits or not self._kernel.live:
            return self._bits.get(pagemap.address)
        try:
            return self._read(pagemap)
        except CannotRead:
            return None

    def words(self, pagemap: Pagemap, pfn: int) -> str:
        """What its pool says of a page."""
        bits = self.bits_of(pagemap)
        if bits is None:
            return f"pool: not read: {self.why or '; '.join(self._gaps.texts)}"
        return "pool: handed out" if bits.test(pfn) else "pool: free"

    def summary(self) -> dict[str, Any]:
        """The pass in the report."""
        summary: dict[str, Any] = {"pass": "gen-pool", "ran": self.why is None}
        if self.why is not None:
            return {**summary, "why": self.why}
        return {
            **summary,
            "complete": self.complete,
            "pagemaps": len(self._bits),
            "pages": self._pages,
            "allocated": sum(bits.count() for bits in self._bits.values()),
            "gaps": self._gaps.texts,
        }


def keeps_lists(pagemap: Pagemap) -> bool:
    """Whether the driver of a pagemap may keep a list of its free pages."""
    return pagemap.type in ANONYMOUS or pagemap.foreign_maps


class FreeListPass(_Read):
    """The lists of free pages of the drivers whose types are known."""

    evidence = LIST_EVIDENCE

    def __init__(self, kernel: Kernel, quick: bool = False) -> None:
        super().__init__(kernel, QUICK if quick else LIVE if kernel.live else None)
        self._lists: dict[int, FreeList] = {}
        self._covered: set[int] = set()
        self._bits: Optional[_zonedev.PageBits] = None
        if self.why is None:
            self._run()

    def _run(self) -> None:
        bits = _zonedev.PageBits(self._kernel.layout.layout, memory_reader(self._kernel.prog))
        for pagemap in filter(keeps_lists, self._kernel.pagemaps):
            try:
                lists = find_lists(self._kernel.prog, pagemap)
                _add_ranges(bits, self._kernel, pagemap)
            except (CannotFind, ValueError, MemoryError) as err:
                self._gaps.add(_name(pagemap), str(err) or "no memory")
                continue
            self._covered.add(pagemap.address)
            self._lists.update((one.head, one) for one in lists)
        if not self._covered:
            self.why = "; ".join(self._gaps.texts)
            return
        self._bits = bits
        for one in self._lists.values():
            self._walk(bits, one)

    def _walk(self, bits: _zonedev.PageBits, one: FreeList) -> None:
        walked = bits.walk(one.first)
        if walked["why"]:
            self._gaps.add(
                f"the list of {one.driver} at {one.head:#x}",
                f"left after {walked['pages']} pages, at {walked['link']:#x}: {walked['why']}",
            )

    def bits_of(self, pagemap: Pagemap) -> Optional[_zonedev.PageBits]:
        """The pages that are listed as free; None where that is not known."""
        return self._bits if pagemap.address in self._covered else None

    def words(self, pagemap: Pagemap, pfn: int) -> str:
        """What its driver's lists say of a page."""
        bits = self.bits_of(pagemap)
        if bits is None:
            return f"free list: not read: {self.why or '; '.join(self._gaps.texts)}"
        if bits.test(pfn):
            return "free list: on it"
        return (
            "free list: not on it" if self.complete else "free list: not seen on what could be read"
        )

    def summary(self) -> dict[str, Any]:
        """The pass in the report."""
        summary: dict[str, Any] = {"pass": "free-lists", "ran": self.why is None}
        if self.why is not None or self._bits is None:
            return {**summary, "why": self.why}
        return {
            **summary,
            "complete": self.complete,
            "drivers": sorted({one.driver for one in self._lists.values()}),
            "lists": len(self._lists),
            "pages": self._bits.count(),
            "gaps": self._gaps.texts,
        }


class DriverPasses:
    """What drivers say of the pages of some pagemaps: the passes that these call for."""

    def __init__(self, kernel: Kernel, pagemaps: Iterable[Pagemap], quick: bool = False) -> None:
        chosen = list(pagemaps)
        pooled = any(p.type == PCI_P2PDMA for p in chosen)
        self.pool = PoolPass(kernel, quick) if pooled else None
        self.lists = FreeListPass(kernel, quick) if any(map(keeps_lists, chosen)) else None

    def bits_of(self, pagemap: Pagemap) -> dict[str, Any]:
        """What a scan of a pagemap is to be given: its arguments allocated and listed."""
        return {
            "allocated": self.pool.bits_of(pagemap) if self.pool else None,
            "listed": self.lists.bits_of(pagemap) if self.lists else None,
        }

    def words(self, pagemap: Pagemap, pfn: int) -> str:
        """What the driver says of a page; "" where it has no say."""
        if self.pool and pagemap.type == PCI_P2PDMA:
            return self.pool.words(pagemap, pfn)
        if self.lists and keeps_lists(pagemap):
            return self.lists.words(pagemap, pfn)
        return ""
