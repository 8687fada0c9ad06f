# SPDX-License-Identifier: LGPL-2.1-or-later
"""Page tables of user space: at which addresses of a process a page is mapped, and by entries of which kind.

Owns the walk and the forms of entries: present ones, and those that name a page without mapping it (device-private
memory, migration).  Of machines other than x86-64, drgn's own walk tells the present ones only.

Invariant: a walk goes down, level by level, and looks at each entry of a range once.
Mirrors arch/x86/include/asm/pgtable*.h, include/linux/swapops.h.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Optional

from drgn import Architecture, FaultError, Object, Program
from drgn.helpers.linux.mm import follow_phys

from zonedev.kernel.members import Members, constant, words_of
from zonedev.kernel.symbols import vmcoreinfo_number

_PRESENT, _WRITE, _PSE, _PROTNONE = 1 << 0, 1 << 1, 1 << 7, 1 << 8
_ADDRESS = ((1 << 52) - 1) & ~0xFFF
_PAGE = 4096
_SLOTS = 512

# Levels of x86-64, from below: what an entry is called, and how many bits of the address lie below it.
_LEVELS = (("pte", 12), ("pmd", 21), ("pud", 30), ("p4d", 39), ("pgd", 48))

# A swap entry of x86-64: five bits of type above, the offset inverted below (x86/pgtable_64.h).
_TYPE_SHIFT, _OFFSET_LOST, _OFFSET_SHIFT = 59, 5, 14
_M64 = (1 << 64) - 1

# Entries that are looked at in one walk, or in one through all processes.
_ENTRIES_MAX = 1 << 24
EVERYWHERE_MAX = 1 << 27
"""Entries (of 512 GiB) that a search through all processes looks at."""

_TYPES = 32


class CannotWalk(Exception):
    """Page tables cannot be read to their end; its argument says why."""


class Entry(NamedTuple):
    """An entry at one address: level pte, pmd or pud; kind map, device-private or migration; pfn of its first page.

    devmap: it has the bit that maps of device memory had until 6.15.
    """

    level: str
    kind: str
    pfn: int
    address: int
    pages: int
    writable: bool
    devmap: bool = False


class Pfns:
    """The pages that a walk looks for."""

    def __init__(self, ranges: Iterable[range]) -> None:
        self._ranges = sorted(ranges, key=lambda r: r.start)
        self._starts = [r.start for r in self._ranges]
        self._low = self._starts[0] << 12 if self._ranges else 0
        self._high = max((r.stop for r in self._ranges), default=0) << 12

    def meet(self, pfn: int, pages: int) -> bool:
        """Whether some consecutive pages have one that is looked for."""
        i = bisect_left(self._starts, pfn + pages) - 1
        return i >= 0 and any(pfn < r.stop for r in self._ranges[max(i - 1, 0) : i + 1])

    def worth(self, slots: tuple[int, ...], mask: int) -> list[tuple[int, int]]:
        """(slot, word) of those entries of the lowest level that are worth a closer look."""
        low, high = self._low, self._high
        return [
            (i, word)
            for i, word in enumerate(slots)
            if word and (low <= word & mask < high or not word & _PRESENT)
        ]


class _Walk(NamedTuple):
    """One walk: addresses [start, end), the pages it looks for, how many entries it may still look at, and, where somebody
    asks for it, how many pages of any kind it has seen mapped."""

    start: int
    end: int
    pfns: Pfns
    left: list[int]
    mapped: Optional[list[int]] = None

    def count_slots(self, slots: tuple[int, ...]) -> None:
        """Count the pages of the entries of a lowest table."""
        if self.mapped is not None:
            self.mapped[0] += sum(1 for word in slots if word & (_PRESENT | _PROTNONE))

    def count_large(self, address: int, size: int) -> None:
        """Count the pages that a large entry maps inside of what is looked at."""
        if self.mapped is not None:
            inside = min(address + size, self.end) - max(address, self.start)
            self.mapped[0] += inside // _PAGE


class _SwapTypes(NamedTuple):
    """Types of swap entries that are none: [migration, device) of migration, then those of device memory."""

    migration: int
    device: int

    def kind(self, type_: int) -> Optional[str]:
        if type_ < self.migration:
            return None
        return "migration" if type_ < self.device else "device-private"


def _swap_types(prog: Program) -> Optional[_SwapTypes]:
    """Where the types begin that include/linux/swap.h counts from MAX_SWAPFILES on, the length of swap_info."""
    try:
        files = prog["swap_info"].type_.length
    except (LookupError, AttributeError):
        return None
    if not files or files >= _TYPES:
        return None
    try:
        prog.symbol("num_poisoned_pages")
        hwpoison = 1
    except LookupError:
        hwpoison = 0
    # Since commit 6c287605fd56 ("mm: remember exclusively mapped anonymous pages with PG_anon_exclusive") (in v5.19)
    # there is a third one.
    migration = 3 if constant(prog, "PG_anon_exclusive") is not None else 2
    return _SwapTypes(files + hwpoison, files + hwpoison + migration)


def _devmap(prog: Program) -> int:
    """_PAGE_DEVMAP, where kernels have it; where not, nothing uses the bit."""
    try:
        # Since the series of commit e5136e876581 ("mm: Warn on shadow stack memory in wrong vma") (in v6.6) the bit below.
        prog.symbol("arch_check_zapped_pte")
    except LookupError:
        return 1 << 58
    return 1 << 57


class PageTables:
    """The page tables of the processes of one kernel."""

    def __init__(self, prog: Program) -> None:
        self._prog = prog
        assert prog.platform is not None
        self.own = prog.platform.arch == Architecture.X86_64
        self._levels = 5 if vmcoreinfo_number(prog, "pgtable_l5_enabled") else 4
        # MAX_PHYSMEM_BITS; above them, a swap entry says more than the page.
        self._pfn_mask = (1 << ((52 if self._levels == 5 else 46) - 12)) - 1
        self._mask = _ADDRESS & ~(vmcoreinfo_number(prog, "sme_mask") or 0)
        self._pgd = Members(prog, "struct mm_struct", "pgd")
        self._swap = _swap_types(prog)
        self._devmap = _devmap(prog)

    @property
    def sees_swap(self) -> bool:
        """Whether entries are told that name a page without mapping it."""
        return self.own and self._swap is not None

    @property
    def user_end(self) -> int:
        """Where the addresses of processes end."""
        return 1 << (9 * self._levels + 11)

    def entries(
        self,
        mm: int,
        start: int,
        end: int,
        pfns: Pfns,
        left: Optional[list[int]] = None,
        mapped: Optional[list[int]] = None,
    ) -> Iterator[Entry]:
        """
        The entries for addresses [start, end) of a struct mm_struct that name one of the pages.

        :param left: how many entries may still be looked at, counted down; for this walk alone, if not given
        :param mapped: counted up by the pages, whichever they are, that are mapped there
        :raises CannotWalk: not all of the tables can be read
        """
        try:
            if not self.own:
                yield from self._by_drgn(mm, _Walk(start, end, pfns, [_ENTRIES_MAX], mapped))
                return
            table = self._prog.read(self._pgd.read(mm)[0], _PAGE)
            if not any(table):
                # The kernel's half of it is never empty.
                raise CannotWalk("the page directory reads as zeroes")
            walk = _Walk(start, end, pfns, left or [_ENTRIES_MAX], mapped)
            yield from self._table(table, self._levels - 1, 0, walk)
        except FaultError as err:
            raise CannotWalk(f"page tables cannot be read: {err}") from None
        except (LookupError, NotImplementedError, ValueError) as err:
            raise CannotWalk(f"page tables of this machine are not known: {err}") from None

    def _by_drgn(self, mm: int, walk: _Walk) -> Iterator[Entry]:
        size = int(self._prog["PAGE_SIZE"])
        of = Object(self._prog, "struct mm_struct *", value=mm)
        if (walk.end - walk.start) // size > walk.left[0]:
            raise CannotWalk("the mapping is too large to be looked through")
        for address in range(walk.start, walk.end, size):
            try:
                pfn = int(follow_phys(of, address)) // size
            except FaultError:
                continue
            walk.count_slots((_PRESENT,))
            if walk.pfns.meet(pfn, 1):
                yield Entry("pte", "map", pfn, address, 1, False)

    def _table(self, raw: bytes, level: int, base: int, walk: _Walk) -> Iterator[Entry]:
        """The entries of a table, the first of which is for address *base*, and of those below it."""
        shift = _LEVELS[level][1]
        first = max(walk.start - base, 0) >> shift
        last = min((walk.end - 1 - base) >> shift, _SLOTS - 1)
        if first > last:
            return
        walk.left[0] -= last - first + 1
        if walk.left[0] < 0:
            raise CannotWalk("there is more mapped than can be looked through")
        slots = words_of(self._prog, raw)[first : last + 1]
        if not level:
            walk.count_slots(slots)
        for i, word in enumerate(slots) if level else walk.pfns.worth(slots, self._mask):
            address = base + ((first + i) << shift)
            if not word:
                continue
            if level and word & _PRESENT and not (level < 3 and word & _PSE):
                below = self._prog.read(word & self._mask, _PAGE, physical=True)
                yield from self._table(below, level - 1, address, walk)
                continue
            found = self._entry(word, level)
            pages = 1 << (shift - 12)
            if level and found and found[0] == "map":
                walk.count_large(address, 1 << shift)
            if found and walk.pfns.meet(found[1], pages):
                devmap = found[0] == "map" and bool(word & self._devmap)
                level_ = _LEVELS[level][0]
                yield Entry(level_, *found, address, pages, bool(word & _WRITE), devmap)

    def _entry(self, word: int, level: int) -> Optional[tuple[str, int]]:
        """Kind and pfn of an entry that ends a walk; None for one that names no page."""
        # A large entry stays one while it is split, and is not present for that time: pmd_present().
        if word & (_PRESENT | _PROTNONE) or (level and word & _PSE):
            if not word & _PRESENT:
                # Inverted where it maps nothing (pgtable-invert.h).
                word ^= _ADDRESS
            below = (1 << _LEVELS[level][1]) - 1
            return "map", (word & self._mask & ~below) >> 12
        if self._swap is None:
            return None
        kind = self._swap.kind(word >> _TYPE_SHIFT)
        if kind is None:
            return None
        offset = ((~word << _OFFSET_LOST) & _M64) >> _OFFSET_SHIFT
        return kind, offset & self._pfn_mask
