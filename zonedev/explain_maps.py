# SPDX-License-Identifier: LGPL-2.1-or-later
"""A folio that is looked into, and the maps of it: entries of page tables, found as the kernel finds them, or everywhere.

Owns what is kept of a folio on the way to its explanation, and which VMAs and processes are looked at.  The walks are
kernel/rmap.py's and kernel/pagetable.py's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Optional

from drgn import Object, Program

from zonedev import _zonedev
from zonedev.explanation import Holder
from zonedev.kernel.dax import DaxEntry
from zonedev.kernel.gaps import ERRORS, note
from zonedev.kernel.mapping import ANON, TAGS
from zonedev.kernel.pagetable import EVERYWHERE_MAX, Entry, PageTables, Pfns
from zonedev.kernel.pagetable import CannotWalk as CannotReadTables
from zonedev.kernel.paths import opened_path
from zonedev.kernel.rmap import CannotWalk, Rmap, Vma
from zonedev.kernel.tasks import Task, Tasks
from zonedev.model import ANONYMOUS, PCI_P2PDMA, PRIVATE, Pagemap

_HOLDERS_MAX = 1 << 16
_PATHS_MAX = 1 << 12
# What a walk costs, and an entry that names the page, in entries that do not.
_FOUND_COST = 1 << 10


class InFile(NamedTuple):
    """A page of a file: its struct address_space, and the number of the page in it."""

    mapping: int
    page: int


@dataclass
class Folio:
    """A folio that is looked into. mapped_at: (mm, address) of its maps; spaces: the mms of its anon_vma."""

    pfn: int
    pages: int
    pagemap: Pagemap
    scheme: _zonedev.Scheme
    asked: dict[str, Any]
    head: dict[str, Any]
    address: int
    places: list[InFile] = field(default_factory=list)
    entries: list[DaxEntry] = field(default_factory=list)
    holders: list[Holder] = field(default_factory=list)
    mapped_at: set[tuple[int, int]] = field(default_factory=set)
    spaces: set[int] = field(default_factory=set)
    gaps: list[str] = field(default_factory=list)

    @property
    def pfns(self) -> range:
        """Its pages."""
        return range(self.pfn, self.pfn + self.pages)

    @property
    def maps_take_refs(self) -> bool:
        """Whether each map of the folio takes a reference: of foreign memory (Xen), in every scheme."""
        return bool(self.columns["maps_take_refs"] or self.pagemap.foreign_maps)

    @property
    def columns(self) -> dict[str, Any]:
        """What the scheme says of the folio's memory type."""
        return self.scheme.columns(self.pagemap.type)

    def gap(self, text: str) -> None:
        """Note what could not be looked at; of many, that there are more."""
        note(self.gaps, text)

    @property
    def is_full(self) -> bool:
        """Whether no more holders are kept."""
        return len(self.holders) >= _HOLDERS_MAX

    def hold(self, holder: Holder) -> None:
        """Keep a holder, as long as there is room."""
        if not self.is_full:
            self.holders.append(holder)
        else:
            self.gap(f"it has more than {_HOLDERS_MAX} holders")


def whose(task: Optional[Task]) -> dict[str, Any]:
    """A holder's process, as arguments of Holder()."""
    return {"pid": task.pid, "comm": task.comm} if task else {}


class MapFinder:
    """Finds the maps of folios, and books them as holders; what could not be looked at is a gap of theirs.

    :param tables: kept from one time to the next
    """

    def __init__(
        self, prog: Program, page_shift: int, tasks: Optional[Tasks], tables: PageTables
    ) -> None:
        self._prog, self._shift, self._tasks, self._tables = prog, page_shift, tasks, tables
        self._paths: dict[int, str] = {}
        self._left = [EVERYWHERE_MAX]

    def run(self, folios: list[Folio]) -> None:
        """Find the maps of some folios."""
        try:
            rmap = Rmap(self._prog, self._shift)
        except LookupError as err:
            for folio in folios:
                folio.gap(f"types do not tell what maps pages: {err}")
            return
        for folio in folios:
            if folio.pagemap.type == PRIVATE and not self._tables.sees_swap:
                folio.gap("entries that name a page without mapping it: swap_info is not known")
            try:
                for vma, indices in self._vmas(rmap, folio):
                    self._look_at(folio, vma, indices)
            except (CannotWalk, LookupError) as err:
                folio.gap(str(err))
        self._find_strays(rmap, folios)

    def _vmas(self, rmap: Rmap, folio: Folio) -> Iterator[tuple[Vma, range]]:
        """VMAs that may map a folio, and for which pages of their object to look there."""
        for place in folio.places:
            last = place.page + folio.pages - 1
            for vma in rmap.of_file(place.mapping, place.page, last):
                yield vma, range(place.page, last + 1)
        head, type_ = folio.head, folio.pagemap.type
        in_use = head["mapcount"] or head["refcount"] > folio.columns["idle"]
        if type_ in ANONYMOUS and in_use and head["mapping"] & TAGS == ANON:
            last = head["index"] + folio.pages - 1
            for vma in rmap.of_anon(head["mapping"], head["index"], last):
                folio.spaces.add(vma.mm)
                yield vma, range(head["index"], last + 1)

    def _look_at(self, folio: Folio, vma: Vma, indices: range) -> None:
        """Find the entries of a VMA that name a folio."""
        shift = self._shift
        start = max(vma.start, vma.at(indices.start, shift))
        end = min(vma.end, vma.at(indices.stop, shift))
        self._left[0] -= _FOUND_COST
        try:
            for entry in self._tables.entries(vma.mm, start, end, Pfns([folio.pfns]), self._left):
                self._left[0] -= _FOUND_COST
                self._book(folio, vma.mm, entry, self._vma_words(vma))
        except CannotReadTables as err:
            folio.gap(f"{err} (mm {vma.mm:#x})")

    def _vma_words(self, vma: Vma) -> list[str]:
        """Permission of a VMA, and the file that it maps."""
        if not vma.file:
            return [vma.permission]
        if vma.file not in self._paths:
            known = len(self._paths) < _PATHS_MAX
            file = Object(self._prog, "struct file *", value=vma.file)
            self._paths[vma.file] = opened_path(file).path if known else ""
        return [vma.permission, self._paths[vma.file]]

    def _book(self, folio: Folio, mm: int, entry: Entry, words: list[str]) -> None:
        """Let a page table entry be a holder of a folio, once."""
        inside = max(folio.pfn - entry.pfn, 0) << self._shift
        address = entry.address + inside
        if (mm, address) in folio.mapped_at or folio.is_full:
            return
        folio.mapped_at.add((mm, address))
        who = self._tasks.of_mm(mm) if self._tasks else []
        more = ["devmap"] if entry.devmap else []
        if entry.kind != "map" and entry.level != "pte":
            more.append(f"a {entry.level} entry")
        if len(who) > 1:
            more.append(f"in an address space of {len(who)} processes")
        if not who and self._tasks:
            more.append(f"mm {mm:#x} of no task: it is exiting, or a driver has it")
        is_map = entry.kind != "migration"
        folio.hold(
            Holder(
                entry.level if entry.kind == "map" else entry.kind,
                refs=int(is_map and folio.maps_take_refs),
                maps=int(is_map),
                address=address,
                object=", ".join(filter(None, [*words, *more])),
                **whose(who[0] if who else None),
            )
        )

    def _find_strays(self, rmap: Rmap, folios: list[Folio]) -> None:
        """Look in all processes for maps of folios that count more of them than their files or anon_vmas tell of.

        Peer-to-peer memory does not say who maps it, nor does a folio that was freed while it was mapped.
        """
        lost = [
            folio
            for folio in folios
            if folio.maps_take_refs and folio.head["mapcount"] != len(folio.mapped_at)
        ]
        if not lost or self._tasks is None:
            return
        pfns, left = Pfns(folio.pfns for folio in lost), [EVERYWHERE_MAX]
        for mm in self._tasks.address_spaces:
            try:
                for entry in self._tables.entries(mm, 0, self._tables.user_end, pfns, left):
                    for folio in lost:
                        if entry.pfn < folio.pfns.stop and folio.pfn < entry.pfn + entry.pages:
                            left[0] -= _FOUND_COST
                            self._book_stray(rmap, folio, mm, entry)
            except CannotReadTables as err:
                for folio in lost:
                    folio.gap(f"not all processes were searched for maps: {err} (mm {mm:#x})")
                if left[0] <= 0:
                    return

    def _book_stray(self, rmap: Rmap, folio: Folio, mm: int, entry: Entry) -> None:
        """Book a map that only page tables tell of, and the file that its VMA maps."""
        vma = rmap.at(mm, entry.address)
        if vma is None:
            self._book(folio, mm, entry, ["VMA not known"])
            return
        self._book(folio, mm, entry, self._vma_words(vma))
        if vma.file and folio.pagemap.type == PCI_P2PDMA:
            try:
                mapping = int(Object(self._prog, "struct file *", value=vma.file).f_mapping)
            except ERRORS:
                return
            page = vma.pgoff + ((entry.address - vma.start) >> self._shift)
            if InFile(mapping, page) not in folio.places:
                folio.places.append(InFile(mapping, page))
