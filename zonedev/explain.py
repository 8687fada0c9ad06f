# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who holds a page: every reference of a folio, and whom it belongs to.

Owns the account: refcount = base + explained + unexplained, with what each holder is worth in this kernel's scheme.
Where holders are found is kernel/'s: VMAs and page tables (rmap.py, pagetable.py), open files and requests to disks
(holders.py), the files' own entries (dax.py), and, for what is left, memory at large (memory_search.py).

Invariant: nothing is explained that was not found; what could not be looked at is a gap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from typing import Any, Optional

from drgn import Object, Program
from drgn.helpers.common.prog import takes_program_or_default

from zonedev import _zonedev
from zonedev.driver_pass import DriverPasses
from zonedev.errors import TargetError
from zonedev.explain_maps import Folio, InFile, MapFinder, whose
from zonedev.explanation import (
    GUP_PIN_COUNTING_BIAS,
    Explanation,
    FileAt,
    Holder,
    Opener,
    is_map,
)
from zonedev.kernel.btf import types_from
from zonedev.kernel.facts import Kernel, read_kernel
from zonedev.kernel.gaps import ERRORS
from zonedev.kernel.held import Folios, Held, Search
from zonedev.kernel.holders import find_holders
from zonedev.kernel.mapping import TAGS, describe_mapping, host_inode, mapping_words
from zonedev.kernel.memory_search import Progress, search_pointers
from zonedev.kernel.pagetable import PageTables
from zonedev.kernel.paths import inode_path
from zonedev.kernel.tasks import OpenFile, Tasks
from zonedev.model import (
    FS_DAX,
    GENERIC,
    DevDax,
    Finding,
    Pagemap,
)
from zonedev.page import Place, What, find_page, order_of
from zonedev.scanner import Caps, calibrated
from zonedev.second_pass import DaxPass

__all__ = ("Explainer", "Explanation", "FileAt", "Holder", "Opener", "explain", "explain_findings")

SEARCH_S = 10.0
"""How long memory is searched, in seconds, unless something else is asked for."""

_PLACES_MAX = 1 << 10
_OPENERS_MAX = 64

# Processes that are named for an anon_vma.
_NAMED_MAX = 4

# Findings of an audit that are explained, the most severe first.
_FINDINGS_MAX = 20

# How often a page of a live kernel is looked at before an account that does not add up is believed.
_LOOKS = 4
_MOVED = "who holds the page changed while it was looked at"


class Explainer:
    """
    Explains pages of one kernel: of a dump, tasks and files are read once for all of them.

    :raises TargetError: the target cannot be audited
    """

    def __init__(self, prog: Program, kernel: Optional[Kernel] = None) -> None:
        self._prog = prog
        self._kernel = kernel or read_kernel(prog)
        self._schemes: dict[int, _zonedev.Scheme] = {}
        self._gaps: list[str] = []
        self._tasks: Optional[Tasks] = None

    @cached_property
    def _dax(self) -> DaxPass:
        return DaxPass(self._kernel)

    @cached_property
    def _drivers(self) -> DriverPasses:
        return DriverPasses(self._kernel, self._kernel.pagemaps)

    @cached_property
    def _tables(self) -> PageTables:
        return PageTables(self._prog)

    # ------------------------------------------------------------ the pages

    def explain(
        self, what: What, budget_s: float = 0.0, progress: Optional[Progress] = None
    ) -> Explanation:
        """
        Account for the references of a page's folio (see :func:`explain()`).

        :param progress: called with (bytes of memory searched, bytes in all)
        """
        pfn, asked, *_ = find_page(self._kernel, what)
        found = self.explain_pfns([pfn])[pfn]
        found.asked = asked
        if found.unexplained > 0 and budget_s > 0:
            known = frozenset(h.address for h in found.holders if h.address and not is_map(h))
            found.searched = search_pointers(
                self._prog,
                self._kernel.layout,
                found.pfn,
                1 << found.order,
                budget_s=budget_s,
                known=known,
                progress=progress,
            )
        return found

    def explain_pfns(self, pfns: Iterable[int]) -> dict[int, Explanation]:
        """
        The same for many pages, in one pass.

        :raises TargetError: one of them is not ZONE_DEVICE, or cannot be read
        """
        found = self._look(pfns)
        if self._kernel.live:
            self._look_again(found)
        return found

    def _look_again(self, found: dict[int, Explanation]) -> None:
        """Let an account that does not add up stand only where further looks agree: holders come and go."""
        for _ in range(_LOOKS - 1):
            doubtful = [pfn for pfn, one in found.items() if one.unexplained and one.complete]
            if not doubtful:
                return
            for pfn, again in self._look(doubtful).items():
                before = found[pfn]
                if again.unexplained and (again.refcount, again.holders) != (
                    before.refcount,
                    before.holders,
                ):
                    again = replace(again, gaps=[*again.gaps, _MOVED])
                found[pfn] = again

    def _look(self, pfns: Iterable[int]) -> dict[int, Explanation]:
        """The accounts of pages as they are now."""
        wanted = list(dict.fromkeys(pfns))
        folios = {pfn: self._folio(pfn) for pfn in wanted}
        # Several pages of one folio have one account.
        heads = {folio.pfn: folio for folio in folios.values()}
        self._read_tasks()
        self._find_files(heads)
        self._find_maps(list(heads.values()))
        openers = self._find_holders(heads)
        made = {pfn: self._explanation(folio, openers) for pfn, folio in heads.items()}
        return {
            pfn: replace(made[folio.pfn], asked_pfn=pfn, asked_refcount=folio.asked["refcount"])
            for pfn, folio in folios.items()
        }

    def _find_maps(self, folios: list[Folio]) -> None:
        """Book the maps of folios."""
        try:
            tables = self._tables
        except LookupError as err:
            for folio in folios:
                folio.gap(f"types do not tell what page tables are: {err}")
            return
        shift = self._kernel.layout.page_shift
        MapFinder(self._prog, shift, self._tasks, tables).run(folios)

    def explain_all(self, pfns: Iterable[int]) -> tuple[dict[int, Explanation], list[str]]:
        """The same of those that can be explained, and why others cannot."""
        good, lost = [], []
        for pfn in pfns:
            try:
                self._folio(pfn)
            except TargetError as err:
                lost.append(str(err))
            else:
                good.append(pfn)
        try:
            return self.explain_pfns(good), lost
        except TargetError as err:
            # Of a running kernel, one may be gone meanwhile.
            return {}, [*lost, str(err)]

    def _folio(self, pfn: int) -> Folio:
        kernel = self._kernel
        _, _, pagemap, range_ = find_page(kernel, hex(pfn))
        if pagemap.address not in self._schemes:
            self._schemes[pagemap.address] = calibrated(kernel, pagemap)[0]
        place = Place(kernel, pagemap, range_, self._schemes[pagemap.address], Caps())
        page = place.decode(pfn)[0]
        head_pfn = page["head_pfn"] if page["head_pfn"] is not None else pfn
        head = page if head_pfn == pfn else place.decode(head_pfn)[0]
        order = order_of(head, pagemap, kernel.layout)
        pages = min(1 << order, range_.end_pfn - head_pfn)
        address = kernel.layout.page_address(head_pfn)
        head = {**head, "order": order}
        return Folio(head_pfn, pages, pagemap, place.scheme, page, head, address)

    def _read_tasks(self) -> None:
        """Read the tasks, of a dump once."""
        if self._tasks is not None and not self._kernel.live:
            return
        self._gaps = []
        try:
            self._tasks = Tasks(self._prog)
        except ERRORS as err:
            self._tasks = None
            self._gaps.append(f"the tasks cannot be walked, nor what they have open: {err}")

    # ------------------------------------------------------------ files

    def _find_files(self, heads: dict[int, Folio]) -> None:
        """Where in which files the folios lie, as the files have it and as the folios do."""
        fs_dax = [pfn for pfn, folio in heads.items() if folio.pagemap.type == FS_DAX]
        owners = self._dax.owners_of(fs_dax) if fs_dax else {}
        for pfn, folio in heads.items():
            folio.entries = owners.get(pfn, [])
            if len(folio.entries) > _PLACES_MAX:
                folio.gap(f"{len(folio.entries)} DAX entries name it: {_PLACES_MAX} are told")
                del folio.entries[_PLACES_MAX:]
            folio.places = list(dict.fromkeys(self._places(folio)))
            asks = not folio.places or folio.columns["entry_takes_ref"]
            if folio.pagemap.type == FS_DAX and self._dax.why and asks:
                folio.gap(f"DAX entries were not read: {self._dax.why}")
            if self._dax.walk and not self._dax.walk.is_complete(folio.pagemap):
                folio.gap("not all DAX entries could be read")

    def _places(self, folio: Folio) -> Iterator[InFile]:
        for entry in folio.entries:
            yield InFile(entry.file.mapping, entry.index + folio.pfn - entry.pfn)
        mapping, pagemap = folio.head["mapping"], folio.pagemap
        if (
            pagemap.type == FS_DAX
            and mapping
            and not mapping & TAGS
            and host_inode(self._prog, mapping)
        ):
            yield InFile(mapping, folio.head["index"])
        if isinstance(pagemap.dev_dax, DevDax):
            # A page that was never mapped does not say so itself.
            index = folio.pfn - pagemap.index_bias(folio.pfn)
            yield InFile(pagemap.dev_dax.mapping, index % (1 << 64))

    # ------------------------------------------------------------ other holders

    def _find_holders(self, heads: dict[int, Folio]) -> dict[int, list[Opener]]:
        """Let everything that holds one of the folios be booked; who has their files open, by mapping."""
        openers: dict[int, list[Opener]] = {
            place.mapping: [] for folio in heads.values() for place in folio.places
        }

        def opened(file: OpenFile) -> None:
            found = openers.get(file.mapping)
            if found is not None and len(found) < _OPENERS_MAX:
                found.append(Opener(file.task.pid, file.task.comm, file.fd))

        places = [(folio.pfn, folio.address, folio.pages) for folio in heads.values()]
        search = Search(self._prog, self._tasks, Folios(places, self._kernel.layout.page_size))
        for held in find_holders(search, opened):
            heads[held.folio].hold(self._holder(heads[held.folio], held))
        for folio in heads.values():
            for holder in (*self._entry_holders(folio), *self._driver_holders(folio)):
                folio.hold(holder)
            for gap in (*self._gaps, *search.gaps):
                folio.gap(gap)
        return openers

    def _holder(self, folio: Folio, held: Held) -> Holder:
        # Before the schemes that count pins, one was a plain reference.
        biased = held.pins and folio.scheme.counts_pins and not folio.head["order"]
        bias = GUP_PIN_COUNTING_BIAS if biased else 1
        return Holder(
            held.kind,
            refs=held.number * bias,
            pins=held.number if held.pins else 0,
            address=held.address,
            object=held.object,
            **whose(held.task),
        )

    def _entry_holders(self, folio: Folio) -> Iterator[Holder]:
        takes = int(folio.columns["entry_takes_ref"])
        for entry in folio.entries:
            special = [name for name in ("locked", "pmd") if getattr(entry, name)]
            index = entry.index + folio.pfn - entry.pfn
            inode = describe_mapping(self._prog, entry.file.mapping)
            words = ", ".join([f"page {index:#x} of {inode}", *special])
            yield Holder("dax-entry", refs=takes, object=words)

    def _driver_holders(self, folio: Folio) -> Iterator[Holder]:
        bits = self._drivers.bits_of(folio.pagemap)
        if bits["allocated"] and bits["allocated"].test(folio.pfn):
            yield Holder("driver", object="handed out by the pool of its device")
        if bits["listed"] and bits["listed"].test(folio.pfn):
            yield Holder("driver", object="on the list of its driver's free pages")

    # ------------------------------------------------------------ the account

    def _file_at(self, place: InFile, openers: dict[int, list[Opener]], pagemap: Pagemap) -> FileAt:
        offset = place.page << self._kernel.layout.page_shift
        who = openers.get(place.mapping, [])
        try:
            inode = Object(self._prog, "struct address_space *", value=place.mapping).host
            number, size = int(inode.i_ino), int(inode.i_size)
            path, deleted = inode_path(inode)
        except ERRORS:
            return FileAt("", False, None, offset, None, place.mapping, who)
        if pagemap.type == GENERIC:
            path = pagemap.device or path
        return FileAt(path, deleted, number, offset, size, place.mapping, who)

    def _explanation(self, folio: Folio, openers: dict[int, list[Opener]]) -> Explanation:
        head, kernel = folio.head, self._kernel
        if kernel.live and self._folio(folio.pfn).head != head:
            folio.gap("the page changed while it was looked at")
        return Explanation(
            asked_pfn=folio.pfn,
            asked_refcount=head["refcount"],
            pfn=folio.pfn,
            pagemap=folio.pagemap,
            order=head["order"],
            refcount=head["refcount"],
            mapcount=head["mapcount"],
            pincount=head["pincount"] if head["order"] else None,
            idle_refcount=folio.scheme.idle(folio.pagemap.type),
            base=self._base(folio),
            flag_names=kernel.layout.flags(head["flags"]),
            mapping=head["mapping"],
            mapping_words=self._mapping_words(folio),
            driver=self._drivers.words(folio.pagemap, folio.pfn),
            scheme=folio.scheme.id,
            types_from=types_from(self._prog),
            page_size=1 << kernel.layout.page_shift,
            maps_count=folio.maps_take_refs,
            holders=folio.holders,
            files=[self._file_at(place, openers, folio.pagemap) for place in folio.places],
            gaps=folio.gaps,
        )

    def _mapping_words(self, folio: Folio) -> str:
        """Whose mapping it is: of anonymous memory, the processes that its anon_vma leads to."""
        words = mapping_words(self._prog, folio.head["mapping"])
        tasks = [
            t for mm in sorted(folio.spaces) for t in (self._tasks.of_mm(mm) if self._tasks else [])
        ]
        if not tasks:
            return words
        names = [f"{task.comm} (pid {task.pid})" for task in sorted(tasks, key=lambda t: t.pid)]
        more = f" and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else ""
        return f"{words} of {', '.join(names[:_NAMED_MAX])}{more}"

    def _base(self, folio: Folio) -> int:
        """References that need no holder: those of a free folio, unless they were handed over to its user."""
        columns, refcount = folio.columns, folio.head["refcount"]
        if folio.scheme.idle(folio.pagemap.type) is None:
            folio.gap("where free pages of its memory type rest is not known")
            return 0
        idle, handed_over = columns["idle"], columns["mapped_base"]
        found = sum(holder.refs for holder in folio.holders)
        if folio.pagemap.foreign_maps or handed_over == idle:
            return int(idle)
        if not folio.head["mapcount"] and 0 < found <= refcount - idle:
            folio.gap(
                f"whether its first reference was handed over ({found} are explained, and it is not mapped)"
            )
        return int(handed_over if folio.head["mapcount"] > 0 or found else idle)


def explain_findings(kernel: Kernel, findings: Iterable[Finding]) -> dict[str, Any]:
    """Add explanations to the first findings on pages; what was done, as the report has it."""
    explainer = Explainer(kernel.prog, kernel)
    wanted: dict[int, list[Finding]] = {}
    total = 0
    for finding in findings:
        if finding.pfn is not None:
            total += 1
            if total <= _FINDINGS_MAX:
                wanted.setdefault(finding.pfn, []).append(finding)
    found, lost = explainer.explain_all(wanted)
    for pfn, explanation in found.items():
        for finding in wanted[pfn]:
            finding.explanation = explanation
    return {
        "pass": "explain",
        "ran": True,
        "complete": not lost and total <= _FINDINGS_MAX,
        "explained": sum(len(wanted[pfn]) for pfn in found),
        "findings": total,
        "gaps": lost,
    }


@takes_program_or_default
def explain(prog: Program, what: What, *, budget_s: float = SEARCH_S) -> Explanation:
    """
    Account for the references of a page's folio: who holds it, and which references nobody was found for.

    :param what: a pfn, "phys:ADDRESS", or the address of a struct page or of mapped memory (0x...); the same as a
        number, or as a ``struct page *`` or ``struct folio *``
    :param budget_s: how long memory is searched for what points to it where references are left, in seconds; 0: not at all
    :raises TargetError: it is not ZONE_DEVICE, or cannot be read
    """
    return Explainer(prog).explain(what, budget_s)
