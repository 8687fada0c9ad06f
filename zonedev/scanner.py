# SPDX-License-Identifier: LGPL-2.1-or-later
"""Scans the struct pages of pagemaps, and compares the result with the scheme (calibration).

Owns the way of every page into the C core: as bytes or as a hole, once.  Which pagemaps, and what the
report makes of it, is audit.py's; second looks at a live kernel are live.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Optional

from zonedev import _zonedev
from zonedev.cells import CellPlan, Cells
from zonedev.driver_pass import DriverPasses
from zonedev.kernel.dump_memory import DumpMemory, may_read
from zonedev.kernel.facts import Kernel
from zonedev.kernel.registry import known_type
from zonedev.kernel.vmemmap import CHUNK_BYTES, Hole, Pages, read_memmap, to_border
from zonedev.model import FS_DAX, DevDax, Finding, Pagemap, PagemapResult, PfnRange
from zonedev.pagemap_rules import contradicted_types
from zonedev.second_pass import DaxPass

Progress = Callable[[int, int], None]

# An inode leads to no other: the second look finds nothing new.
_SETTLE_MAX = 3

# A range of more pages than this is read only if the registry knows both of its ends.
_UNCONFIRMED_MAX = 1 << 22
_UNBELIEVABLE = "the registry does not know the ends of this range"
_INTERRUPTED = "interrupted"


class Interrupted(Exception):
    """Ctrl-C during a scan; the scan itself is complete (the rest of it a hole)."""


@dataclass
class Caps:
    """What calibration takes away from a memory type."""

    severity: str = "error"
    miscalibrated: bool = False


@dataclass
class ScanResult:
    """One scanned pagemap: its tally, its findings, and runs of findings that found no room."""

    result: PagemapResult
    findings: list[Finding] = field(default_factory=list)
    dropped: int = 0


def pagemap_spec(pagemap: Pagemap, caps: Optional[Caps] = None) -> dict[str, Any]:
    """The facts of a pagemap as the core takes them."""
    caps = caps or Caps()
    return {
        "address": pagemap.address,
        "type": pagemap.type,
        "ref": pagemap.ref.state,
        "vmemmap_shift": min(pagemap.vmemmap_shift, 255),
        "node": -1 if pagemap.node is None else pagemap.node,
        "foreign_maps": pagemap.foreign_maps,
        "deduplicated": pagemap.deduplicated,
        "severity_cap": caps.severity,
        "miscalibrated": caps.miscalibrated,
        "driver_data": pagemap.driver_data,
        "dax_mapping": pagemap.dev_dax.mapping if isinstance(pagemap.dev_dax, DevDax) else 0,
    }


def make_finding(kernel: Kernel, pagemap: Pagemap, raw: dict[str, Any]) -> Finding:
    """A finding of the core with the names of its flags."""
    return Finding(pagemap=pagemap.address, flag_names=kernel.layout.flags(raw["flags"]), **raw)


# Chunks that are read through drgn at a time, at most, where the dump's file itself does not say for certain.
_CHUNKS_MAX = 1 << 10


class Feed:
    """The rest of a scan's range on its way into it; why pages could not be read (reason -> pages), and how many of
    them are not-captured."""

    def __init__(
        self, kernel: Kernel, scan: _zonedev.Scan, first_pfn: int, progress: Callable[[int], None]
    ) -> None:
        self.kernel, self.scan, self.progress = kernel, scan, progress
        self.reasons: dict[str, int] = {}
        self.not_captured = 0
        self._end = first_pfn + scan.left()
        self._memory = kernel.memory
        start, end = map(kernel.layout.page_address, (first_pfn, self._end))
        if self._memory and not may_read(self._memory, kernel.prog, kernel.layout, start, end):
            self._memory = None

    @property
    def _address(self) -> int:
        return self.kernel.layout.page_address(self._end - self.scan.left())

    def _book(self, pages: int, class_: str, reason: str) -> None:
        if pages:
            self.reasons[reason] = self.reasons.get(reason, 0) + pages
            self.not_captured += pages if class_ == "not-captured" else 0

    def _through_drgn(self, count: int) -> None:
        address = self._address
        for piece in read_memmap(self.kernel.prog, address, count, self.kernel.layout):
            pages = piece.pages if isinstance(piece, Hole) else self._give(piece)
            if isinstance(piece, Hole):
                self.scan.hole(piece.pages, piece.class_)
                self._book(*piece)
                if self._memory:
                    self._memory.learn_hole(self.kernel.prog, address, piece.class_, piece.reason)
            self.progress(pages)
            address += pages * self.kernel.layout.page_size

    def _give(self, piece: Pages) -> int:
        self.scan.pages(piece.data)
        return len(piece.data) // self.kernel.layout.page_size

    def _from_file(self, memory: DumpMemory) -> int:
        """Read from the dump's file as far as it is certain; returns how many pages."""
        before, absent = self.scan.left(), self.scan.absent()
        try:
            memory.read(self.scan, self.progress)
        finally:
            # Also of what was read before Ctrl-C.
            if memory.hole:
                self._book(self.scan.absent() - absent, *memory.hole)
        return before - self.scan.left()

    def run(self) -> None:
        """Feed the scan up to the end of its range."""
        layout, chunks = self.kernel.layout, 1
        while left := self.scan.left():
            count = left
            if self._memory:
                if self._address % (1 << layout.page_shift) == 0 and self._from_file(self._memory):
                    chunks = 1
                count = to_border(self._address, layout)
                count += (chunks - 1) * (CHUNK_BYTES // layout.page_size)
                chunks = min(2 * chunks, _CHUNKS_MAX)
            self._through_drgn(min(count, self.scan.left()))


def scan_pages(
    kernel: Kernel,
    scheme: _zonedev.Scheme,
    pagemap: Pagemap,
    spec: dict[str, Any],
    pfns: tuple[int, int],
    entries: Optional[_zonedev.Entries] = None,
    bits: Optional[dict[str, Any]] = None,
) -> dict[str, Any]:
    """The tally of the pages [first, end) of a pagemap by themselves, read afresh.

    :param spec: see pagemap_spec()
    :param bits: see DriverPasses.bits_of()
    """
    first, end = pfns
    words = bits or {}
    scan = _zonedev.Scan(kernel.layout.layout, scheme, spec, merge=False, entries=entries, **words)
    scan.begin(first, end, kernel.layout.page_address(first), pagemap.index_bias(first))
    Feed(kernel, scan, first, lambda pages: None).run()
    scan.end()
    return scan.result()


def _is_believable(kernel: Kernel, pagemap: Pagemap, range_: PfnRange) -> bool:
    """False for a huge range that the registry does not confirm: reading it would take for ever."""
    if range_.pages <= _UNCONFIRMED_MAX:
        return True
    load = kernel.registry.load
    return load(range_.start_pfn) == load(range_.end_pfn - 1) == pagemap.address


class Counting(NamedTuple):
    """How classes are counted by place: in cells of 1 << shift pages, as planned."""

    plan: CellPlan
    shift: int

    @classmethod
    def of(cls, plan: CellPlan, pagemap: Pagemap, pagemaps: Sequence[Pagemap]) -> Counting:
        """For one of several pagemaps."""
        room = plan.room([one.pages for one in pagemaps])
        return cls(plan, plan.shift(pagemap.ranges, room))

    def begin(self, scan: _zonedev.Scan, range_: PfnRange) -> None:
        """Count in the range that the scan is at the beginning of."""
        if pfns := self.plan.clip(range_):
            scan.count_cells(*pfns, self.shift)

    def end(self, scan: _zonedev.Scan, range_: PfnRange) -> list[Cells]:
        """What was counted in the range that has ended."""
        pfns = self.plan.clip(range_)
        return [Cells.of_bytes(pfns, self.shift, scan.cells())] if pfns else []

    def unjudged(self, pagemap: Pagemap) -> list[Cells]:
        """A pagemap of unreadable pages."""
        parts = map(self.plan.clip, pagemap.ranges)
        return [Cells.of_class(pfns, self.shift, "unreadable") for pfns in parts if pfns]


class _RangeScan:
    """The ranges of one pagemap on their way into one scan."""

    def __init__(
        self,
        kernel: Kernel,
        pagemap: Pagemap,
        scan: _zonedev.Scan,
        progress: Callable[[int], None],
        counting: Optional[Counting] = None,
    ) -> None:
        self.kernel, self.pagemap, self.scan, self.progress = kernel, pagemap, scan, progress
        self.counting = counting
        self.cells: list[Cells] = []
        self.reasons: dict[str, int] = {}
        self.not_captured = 0
        self.interrupted = False

    @property
    def unreadable(self) -> int:
        """Pages whose reading failed for another reason than that the source does not hold them."""
        return sum(self.reasons.values()) - self.not_captured

    def _give_up(self, reason: str) -> None:
        left = self.scan.left()
        self.scan.hole(left, "unreadable")
        self.reasons[reason] = self.reasons.get(reason, 0) + left

    def add(self, range_: PfnRange) -> None:
        """Scan one range; after Ctrl-C, book it as unreadable."""
        layout = self.kernel.layout
        start, bias = range_.start_pfn, self.pagemap.index_bias(range_.start_pfn)
        self.scan.begin(start, range_.end_pfn, layout.page_address(start), bias)
        if self.counting:
            self.counting.begin(self.scan, range_)
        if range_.first_pfn > range_.start_pfn:
            self.scan.hole(range_.first_pfn - range_.start_pfn, "skipped")
        if self.interrupted:
            self._give_up(_INTERRUPTED)
        elif not _is_believable(self.kernel, self.pagemap, range_):
            self._give_up(_UNBELIEVABLE)
        else:
            self._feed(range_)
        self.scan.end()
        if self.counting:
            self.cells += self.counting.end(self.scan, range_)

    def _feed(self, range_: PfnRange) -> None:
        fed = Feed(self.kernel, self.scan, range_.first_pfn, self.progress)
        try:
            fed.run()
        except KeyboardInterrupt:
            self.interrupted = True
        self.not_captured += fed.not_captured
        for reason, pages in fed.reasons.items():
            self.reasons[reason] = self.reasons.get(reason, 0) + pages
        if self.interrupted:
            self._give_up(_INTERRUPTED)


def _unjudged(pagemap: Pagemap, reason: str, counting: Optional[Counting]) -> ScanResult:
    result = PagemapResult(pagemap, None)
    result.classes["unreadable"] = pagemap.pages
    result.reasons[reason] = pagemap.pages
    result.cells = counting.unjudged(pagemap) if counting else []
    return ScanResult(result)


def scan_pagemap(
    kernel: Kernel,
    pagemap: Pagemap,
    scheme: _zonedev.Scheme,
    caps: Optional[Caps] = None,
    progress: Callable[[int], None] = lambda pages: None,
    entries: Optional[_zonedev.Entries] = None,
    drivers: Optional[DriverPasses] = None,
    counting: Optional[Counting] = None,
) -> ScanResult:
    """Scan one pagemap; findings are runs, on a live kernel single folios where they alarm.

    :param entries: what files say of FS_DAX pages
    :param drivers: what drivers say of theirs
    :param counting: how classes are counted by place; None: not at all
    :raises Interrupted: Ctrl-C; its argument is the result, the rest of the pagemap being unreadable
    """
    if not known_type(pagemap):
        return _unjudged(pagemap, "unknown memory type", counting)
    scheme = kernel.scheme_of(pagemap, scheme)
    scan = _zonedev.Scan(
        kernel.layout.layout,
        scheme,
        pagemap_spec(pagemap, caps),
        merge=not kernel.live,
        entries=entries if pagemap.type == FS_DAX else None,
        **(drivers.bits_of(pagemap) if drivers else {}),
    )
    ranges = _RangeScan(kernel, pagemap, scan, progress, counting)
    for range_ in pagemap.ranges:
        ranges.add(range_)
    tally = scan.result()
    result = PagemapResult(pagemap, scheme.idle(pagemap.type), reasons=ranges.reasons)
    result.cells = ranges.cells
    for name in (
        "classes",
        "severities",
        "refcounts",
        "refcounts_other",
        "idle_looking",
        "driver_data",
        "pages_referenced",
        "heads_above_idle",
        "pages_mapped",
    ):
        setattr(result, name, tally[name])
    unseen = result.classes["not-captured"] - ranges.not_captured
    unknown = result.classes["unreadable"] - ranges.unreadable
    if unseen:
        result.reasons["all-zero struct pages, or tails whose head was not read"] = unseen
    if unknown:
        result.reasons["struct pages that cannot be identified as this pagemap's"] = unknown
    findings = [make_finding(kernel, pagemap, raw) for raw in tally["findings"]]
    scanned = ScanResult(result, findings, tally["findings_dropped"])
    if ranges.interrupted:
        raise Interrupted(scanned)
    return scanned


def _modal_idle(results: list[PagemapResult], type_: str) -> Optional[int]:
    zeros = sum(r.idle_looking["0"] for r in results if r.pagemap.type == type_)
    ones = sum(r.idle_looking["1"] for r in results if r.pagemap.type == type_)
    return None if not zeros and not ones else int(ones > zeros)


def calibrated(kernel: Kernel, pagemap: Pagemap) -> tuple[_zonedev.Scheme, Caps]:
    """Scheme and caps that an audit would judge a pagemap with.

    A scheme that is known for certain is taken as it is; otherwise the type's pages are scanned.
    """
    known = kernel.scheme.idle(pagemap.type) is not None
    if known and kernel.scheme.confidence == "high":
        return kernel.scheme_of(pagemap, kernel.scheme), Caps()
    scanner = Scanner(kernel, [pagemap])
    scanner.run()
    caps = scanner.caps.get(pagemap.type, Caps())
    return kernel.scheme_of(pagemap, scanner.scheme), caps


class Scanner:
    """The scans of one audit, and what calibration makes of them.

    All pagemaps of a memory type are scanned, so that looking at one of them judges it as a look at
    all would.
    """

    def __init__(
        self,
        kernel: Kernel,
        pagemaps: list[Pagemap],
        progress: Optional[Progress] = None,
        dax: Optional[DaxPass] = None,
        drivers: Optional[DriverPasses] = None,
        plan: Optional[CellPlan] = None,
    ) -> None:
        types = {p.type for p in pagemaps}
        self.kernel = kernel
        self.pagemaps = [p for p in kernel.pagemaps if p.type in types]
        self.scheme = kernel.scheme
        self.caps: dict[str, Caps] = {}
        self.scanned: list[ScanResult] = []
        self.extra: list[Finding] = []
        self.dax = dax
        self.drivers = drivers
        self.interrupted = False
        self._wanted = {p.address for p in pagemaps}
        self._total = sum(p.pages for p in self.pagemaps)
        self._done = 0
        self._progress = progress
        self._plan = plan

    @property
    def wanted(self) -> list[ScanResult]:
        """The results that were asked for."""
        return [s for s in self.scanned if s.result.pagemap.address in self._wanted]

    def _advance(self, count: int) -> None:
        self._done += count
        if self._progress:
            self._progress(min(self._done, self._total), self._total)

    def scan(self, pagemap: Pagemap) -> ScanResult:
        """Scan one pagemap with what calibration has found."""
        counting = None
        if self._plan and pagemap.address in self._wanted:
            wanted = [one for one in self.pagemaps if one.address in self._wanted]
            counting = Counting.of(self._plan, pagemap, wanted)
        if self.interrupted:
            return _unjudged(pagemap, _INTERRUPTED, counting)
        try:
            return scan_pagemap(
                self.kernel,
                pagemap,
                self.scheme,
                self.caps.get(pagemap.type),
                self._advance,
                self.dax.entries if self.dax else None,
                self.drivers,
                counting,
            )
        except Interrupted as stop:
            self.interrupted = True
            scanned: ScanResult = stop.args[0]
            return scanned

    def look(self, pagemap: Pagemap, start: int, end: int) -> list[Finding]:
        """Findings on the pages [start, end) of a pagemap by themselves, read afresh."""
        spec = pagemap_spec(pagemap, self.caps.get(pagemap.type))
        scheme = self.kernel.scheme_of(pagemap, self.scheme)
        bits = self.drivers.bits_of(pagemap) if self.drivers else {}
        tally = scan_pages(self.kernel, scheme, pagemap, spec, (start, end), bits=bits)
        return [make_finding(self.kernel, pagemap, raw) for raw in tally["findings"]]

    def run(self) -> None:
        """Scan everything; again where calibration says that the scheme does not fit."""
        self.scanned = [self.scan(pagemap) for pagemap in self.pagemaps]
        if not self.interrupted:
            self._calibrate_unknown()
            self._check_calibration()
            self._look_for_driver_data()
        self._settle()

    def _look_for_driver_data(self) -> None:
        """Judge private pages again where most in use have their driver's data, and some have not.

        test_hmm, nouveau, amdgpu and drm_pagemap set it when they hand a page out. Which driver it is need not be
        known: its other pages show what it does.
        """
        for i, scanned in enumerate(self.scanned):
            counts, pagemap = scanned.result.driver_data, scanned.result.pagemap
            if 0 < counts.get("missing", 0) < counts.get("set", 0) and not self.interrupted:
                pagemap.driver_data = True
                self.scanned[i] = self.scan(pagemap)

    def _settle(self) -> None:
        """Judge FS_DAX pages again while their mappings lead to files that no super block has."""
        for _ in range(_SETTLE_MAX):
            found = [f for s in self.scanned for f in s.findings]
            if self.interrupted or not self.dax or not self.dax.settle(found):
                return
            self._rescan([FS_DAX])

    def _rescan(self, types: Iterable[str]) -> None:
        for i, pagemap in enumerate(self.pagemaps):
            if pagemap.type in types:
                self.scanned[i] = self.scan(pagemap)

    def _calibrate_unknown(self) -> None:
        """Idle counts that the scheme does not know are those that most pages rest at."""
        results = [s.result for s in self.scanned]
        types = {p.type for p in self.pagemaps if known_type(p)}
        unknown = sorted(t for t in types if self.scheme.idle(t) is None)
        for type_ in unknown:
            self.caps[type_] = Caps("warning")
            idle = _modal_idle(results, type_)
            if idle is None:
                self.kernel.info.calibrated.append(f"no idle count is known for {type_}")
                continue
            self.scheme = self.scheme.calibrated(type_, idle)
            self.kernel.info.calibrated.append(f"{type_} idles at {idle}")
            self.kernel.info.idle[type_] = idle
        self._rescan(unknown)

    def _check_calibration(self) -> None:
        contradicted = contradicted_types([s.result for s in self.scanned], self.kernel.scheme)
        for type_, (count, percent) in contradicted.items():
            self.caps[type_] = Caps("warning", True)
            text = (
                f"scheme {self.scheme.id} says that free pages of {type_} rest at "
                f"{self.scheme.idle(type_)}, but {percent} % of its folios look idle at {count}"
            )
            self.kernel.info.calibrated.append(text)
            pagemap = next(p for p in self.pagemaps if p.type == type_)
            finding = Finding("idle-count-mismatch", "warning", pagemap.address, detail=text)
            self.extra.append(finding)
        self._rescan(contradicted)
