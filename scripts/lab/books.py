# SPDX-License-Identifier: LGPL-2.1-or-later
"""What drivers write down of their pages, kept true while pages are edited: pools, and lists of free pages.

A page that is edited into use is handed out by its pool and taken off its driver's list, as if its driver
had done so; else the books would give the fault away.  Owns the books' places in memory; which pages are
edited is edits.py's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Optional

from coreedit import Memory
from drgn import FaultError

from zonedev.kernel.facts import Kernel
from zonedev.kernel.free_lists import CannotFind, FreeList, find_lists
from zonedev.kernel.p2pdma import CannotRead, Pool, read_pool
from zonedev.model import Pagemap

_LINK = "zone_device_data"


class Written(NamedTuple):
    """A change of a book: of which structure and member, and its values."""

    structure: str
    member: str
    old: int
    new: int


class Chain:
    """A list of free pages: their pfns in its order, up to where it ends or leads elsewhere."""

    def __init__(self, kernel: Kernel, free: FreeList) -> None:
        self._kernel, self._layout = kernel, kernel.layout
        self._head, self._end = free.head, free.first
        self.pfns = list(self._walk())
        self._places = {pfn: i for i, pfn in enumerate(self.pfns)}

    def __contains__(self, pfn: int) -> bool:
        return pfn in self._places

    def _walk(self) -> Iterator[int]:
        seen: set[int] = set()
        while self._end:
            pfn, odd = divmod(self._end - self._layout.page_address(0), self._layout.page_size)
            if odd or pfn in seen or not any(p.covers(pfn) for p in self._kernel.pagemaps):
                return
            self._end = self._kernel.prog.read_word(self._link_of(pfn))
            seen.add(pfn)
            yield pfn

    def _link_of(self, pfn: int) -> int:
        return self._layout.page_address(pfn) + self._layout.fields[_LINK][0]

    def _neighbour(self, pfn: int, step: int, gone: set[int]) -> Optional[int]:
        i = self._places[pfn] + step
        while 0 <= i < len(self.pfns) and self.pfns[i] in gone:
            i += step
        return self.pfns[i] if 0 <= i < len(self.pfns) else None

    def take_off(self, memory: Memory, pfn: int, gone: set[int]) -> Written:
        """Unlink a page, as those in *gone* were or will be."""
        before, after = self._neighbour(pfn, -1, gone), self._neighbour(pfn, 1, gone)
        link = self._head if before is None else self._link_of(before)
        value = self._end if after is None else self._layout.page_address(after)
        old = memory.store(link, self._layout.spec["word_size"], value)
        return Written("page" if before is not None else "driver", _LINK, old, value)


class Books:
    """Those of a kernel's drivers, as far as its core holds them."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._pools: dict[int, Optional[Pool]] = {}
        self._chains: dict[int, Chain] = {}

    def pool_of(self, pagemap: Pagemap) -> Optional[Pool]:
        """The pool that a pagemap's pages are handed out from; None where the core lacks it."""
        if pagemap.address not in self._pools:
            try:
                pool = read_pool(self._kernel.prog, pagemap, self._kernel.layout)
            except CannotRead:
                pool = None
            self._pools[pagemap.address] = pool
        return self._pools[pagemap.address]

    def chains_of(self, pagemap: Pagemap) -> list[Chain]:
        """The lists that its free pages are on; none where types or core lack them."""
        try:
            lists = find_lists(self._kernel.prog, pagemap)
            for one in lists:
                if one.head not in self._chains:
                    self._chains[one.head] = Chain(self._kernel, one)
        except (CannotFind, FaultError):
            return []
        return [self._chains[one.head] for one in lists]

    def use(
        self, memory: Memory, pagemap: Pagemap, pfns: set[int], gone: set[int]
    ) -> Iterator[tuple[int, Written]]:
        """Write down that pages are in use; gives those whose book changed.

        :param gone: pages that were taken off their list before
        """
        pool, chains = self.pool_of(pagemap), self.chains_of(pagemap)
        for pfn in sorted(pfns):
            byte, bit = divmod(pfn - pool.start_pfn, 8) if pool else (-1, 0)
            if pool and 0 <= byte < len(pool.bitmap):
                used = memory.load(pool.address + byte, 1) | 1 << bit
                old = memory.store(pool.address + byte, 1, used)
                yield pfn, Written("gen_pool_chunk", f"bits, byte {byte}", old, used)
            for chain in chains:
                if pfn in chain and pfn not in gone:
                    # No link is written into any of them: a folio's members lie there.
                    yield pfn, chain.take_off(memory, pfn, gone | pfns)
