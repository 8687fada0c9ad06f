# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pages per class by place: what maps of a pagemap are drawn from.

Owns how fine it is counted (CellPlan) and what was counted (Cells, one per range).  The core counts
(zd_cells of ext/core/zonedev.h), report/ draws.
Invariant: where all pages are counted, the cells add up to the classes of the pagemap, class by class.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple, Optional

from zonedev import _zonedev

if TYPE_CHECKING:
    from zonedev.model import PfnRange

CLASSES = _zonedev.CLASSES

# The core's limit.
_SHIFT_MAX = 63

Pfns = tuple[int, int]


class CellPlan(NamedTuple):
    """How fine classes are counted by place.

    most: cells of one pagemap, total: of all together; but there is one for each range at least. row: as a power of two, cells that are drawn beside each other:
    rows are aligned, and counted whole. pfns: only these pages, [start, end).
    """

    most: int
    total: int = 1 << 19
    row: int = 0
    pfns: Optional[Pfns] = None

    def clip(self, range_: PfnRange) -> Optional[Pfns]:
        """The pages of a range that are counted; None where there are none."""
        low, high = self.pfns or (range_.start_pfn, range_.end_pfn)
        start, end = max(low, range_.start_pfn), min(high, range_.end_pfn)
        return (start, end) if start < end else None

    def room(self, pages: Sequence[int]) -> int:
        """How many cells each of several pagemaps may have, which have so many pages."""
        enough = sum(pages) <= self.total
        return self.most if enough else min(self.most, self.total // len(pages))

    def shift(self, ranges: Sequence[PfnRange], most: int) -> int:
        """Pages of a cell of a pagemap that may have so many cells, as a power of two."""
        parts = [part for part in map(self.clip, ranges) if part]
        for shift in range(_SHIFT_MAX - self.row):
            unit = shift + self.row
            rows = sum(((end - 1) >> unit) - (start >> unit) + 1 for start, end in parts)
            if rows << self.row <= max(most, len(parts) << self.row):
                return shift
        return _SHIFT_MAX - self.row


@dataclass
class Cells:
    """Pages [start_pfn, end_pfn) of a range in cells of 1 << shift pages, aligned to their size: the first and the
    last one may be cut off. counts: pages per cell and class, in the order of CLASSES."""

    start_pfn: int
    end_pfn: int
    shift: int
    counts: array[int]

    @classmethod
    def of_bytes(cls, pfns: Pfns, shift: int, data: bytes) -> Cells:
        """What Scan.cells() gives."""
        counts = array("Q")
        counts.frombytes(data)
        return cls(*pfns, shift, counts)

    @classmethod
    def of_class(cls, pfns: Pfns, shift: int, class_: str) -> Cells:
        """Pages that are all of one class."""
        cells = cls(*pfns, shift, array("Q"))
        at = CLASSES.index(class_)
        for i in range(((pfns[1] - 1) >> shift) - (pfns[0] >> shift) + 1):
            start, end = cells.pfns(i)
            cells.counts.extend(end - start if j == at else 0 for j in range(len(CLASSES)))
        return cells

    def __len__(self) -> int:
        return len(self.counts) // len(CLASSES)

    def pfns(self, i: int) -> Pfns:
        """The pages [start, end) of a cell."""
        first = (self.start_pfn >> self.shift) + i
        start, end = first << self.shift, (first + 1) << self.shift
        return max(start, self.start_pfn), min(end, self.end_pfn)

    def classes(self, i: int) -> tuple[int, ...]:
        """Pages per class of a cell."""
        width = len(CLASSES)
        return tuple(self.counts[i * width : (i + 1) * width])

    def runs(self) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Cells that are alike: how many, and pages per class of each."""
        for classes, run in groupby(map(self.classes, range(len(self)))):
            yield sum(1 for _ in run), classes

    def sums(self) -> dict[str, int]:
        """Pages per class of all cells."""
        width = len(CLASSES)
        return {name: sum(self.counts[i::width]) for i, name in enumerate(CLASSES)}

    def move(self, pfns: Pfns, pages: int, source: str, to: str) -> int:
        """Take at most so many pages of [start, end) from one class to another; returns how many."""
        start, end = max(pfns[0], self.start_pfn), min(pfns[1], self.end_pfn)
        width, moved = len(CLASSES), 0
        for i in range(len(self)) if start < end else ():
            low, high = self.pfns(i)
            at = i * width + CLASSES.index(source)
            count = min(min(high, end) - max(low, start), self.counts[at], pages - moved)
            if count > 0:
                self.counts[at] -= count
                self.counts[i * width + CLASSES.index(to)] += count
                moved += count
        return moved


def move_pages(cells: Sequence[Cells], pfns: Pfns, pages: int, source: str, to: str) -> None:
    """Take pages of a pagemap from one class to another: those of [start, end) as far as they are of it, else any."""
    for places in (pfns, (0, 1 << 64)):
        for one in cells:
            pages -= one.move(places, pages, source, to)
