# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a search for holders of pages is given, and what it says: folios that are asked for, references on them, gaps.

Owns these forms only; where holders are found is holders.py's and longterm.py's.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Optional

from drgn import Program

from zonedev.kernel.gaps import note
from zonedev.kernel.members import Budget, Members
from zonedev.kernel.modules import ModuleSymbols
from zonedev.kernel.tasks import OpenFile, Task, Tasks

# Bounds of one search, which is to take seconds: what lies in arrays, what is read one by one, and requests.
_PIECES_IN_ALL = 1 << 24
_READS_IN_ALL = 1 << 20
_REQUESTS_IN_ALL = 1 << 22
_GAPS_MAX = 64

# How much of an array is read at once.
_PIECE = 1 << 17


class Held(NamedTuple):
    """References that something holds on a folio, which is called by its first pfn.

    number: how many; pins: they are pins (GUP with FOLL_PIN), not plain references. address: where the word lies that
    names the page; task: who has it, None where that is not told.
    """

    kind: str
    folio: int
    number: int
    pins: bool
    address: int
    object: str
    task: Optional[Task] = None


class Folios:
    """The folios that are asked for, by the addresses of their struct pages."""

    def __init__(self, folios: Iterable[tuple[int, int, int]], page_size: int) -> None:
        """
        :param folios: (first pfn, address of its struct page, pages) of each
        :param page_size: sizeof(struct page)
        """
        self._folios = sorted(
            (address, address + pages * page_size, pfn) for pfn, address, pages in folios
        )
        self._starts = [start for start, _, _ in self._folios]
        self._size = page_size
        self._low = self._folios[0][0] if self._folios else 0
        self._high = max((end for _, end, _ in self._folios), default=0)

    def of(self, page: int) -> Optional[int]:
        """The folio that a pointer to struct page names a page of."""
        if not self._low <= page < self._high:
            return None
        start, end, pfn = self._folios[bisect_right(self._starts, page) - 1]
        return pfn if page < end and (page - start) % self._size == 0 else None

    @property
    def pfns(self) -> list[range]:
        """The pages of each."""
        return [range(pfn, pfn + (end - start) // self._size) for start, end, pfn in self._folios]

    def of_pfns(self, pfn: int, pages: int) -> dict[int, int]:
        """Per folio, how many of some consecutive page frames are its own."""
        both = ((own, min(own.stop, pfn + pages) - max(own.start, pfn)) for own in self.pfns)
        return {own.start: number for own, number in both if number > 0}

    def counts(self, page: int, pages: int) -> dict[int, int]:
        """Per folio, how many of some consecutive pages are its own."""
        found: dict[int, int] = {}
        if page >= self._high or page + pages * self._size <= self._low:
            return found
        for start, end, pfn in self._folios:
            first = max(0, -(-(start - page) // self._size))
            last = min(pages, -(-(end - page) // self._size))
            if first < last and (start - page) % self._size == 0:
                found[pfn] = last - first
        return found


class Search:
    """One pass over everything that may hold pages; gaps says what could not be looked at."""

    def __init__(self, prog: Program, tasks: Optional[Tasks], folios: Folios) -> None:
        self.prog, self.tasks, self.folios = prog, tasks, folios
        self.gaps: list[str] = []
        self.pieces = Budget(_PIECES_IN_ALL, "pages in pipes, buffers and requests")
        self.reads = Budget(_READS_IN_ALL, "bios and their pieces")
        self.requests = Budget(_REQUESTS_IN_ALL, "requests")
        self._modules = ModuleSymbols(prog)

    def gap(self, text: str) -> None:
        """Note what could not be looked at."""
        note(self.gaps, text, _GAPS_MAX)

    def array(
        self, address: int, count: int, members: Members
    ) -> Iterator[tuple[int, tuple[int, ...]]]:
        """The members of an array of structs with the address of the first of them, read piece by piece."""
        step = max(_PIECE // members.size, 1)
        for first in range(0, count, step):
            here, some = address + first * members.size, min(step, count - first)
            self.pieces.spend(some)
            raw = self.prog.read(here, some * members.size)
            for i, found in enumerate(members.each(raw)):
                yield here + i * members.size, found

    def symbol_at(self, address: int) -> str:
        """The symbol that an address lies in, also of a module without debug information; "" for none."""
        try:
            return str(self.prog.symbol(address).name)
        except LookupError:
            found = self._modules.at(address)
            return found.name if found else ""

    def task_at(self, *addresses: int) -> Optional[Task]:
        """The first task that one of the addresses belongs to."""
        if self.tasks is None:
            return None
        return next(filter(None, map(self.tasks.at, addresses)), None)


def where(file: OpenFile) -> str:
    """A descriptor in words; its process is told beside it."""
    return f"descriptor {file.fd}"
