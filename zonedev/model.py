# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an audit results in: plain data, no kernel memory behind it.

Owns the result classes and their sums.  Does not print (report/) and does not decide (core, audit).
Invariant: per pagemap and in total the classes add up to the pages.
PFN ranges are half-open, addresses and counts are integers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, Union

from zonedev import _zonedev
from zonedev.display import Displayed, Listing

if TYPE_CHECKING:
    from zonedev.cells import Cells
    from zonedev.explanation import Explanation

CLASSES = _zonedev.CLASSES
SEVERITIES = _zonedev.SEVERITIES
EXIT_CODES = {"clean": 0, "violations": 1, "incomplete": 3}

PRIVATE = "MEMORY_DEVICE_PRIVATE"
COHERENT = "MEMORY_DEVICE_COHERENT"
FS_DAX = "MEMORY_DEVICE_FS_DAX"
GENERIC = "MEMORY_DEVICE_GENERIC"
PCI_P2PDMA = "MEMORY_DEVICE_PCI_P2PDMA"

ANONYMOUS = (PRIVATE, COHERENT)
"""Types whose pages, once they are in use, are anonymous memory of processes."""

_TYPE_PREFIX = "MEMORY_DEVICE_"


def short_type(name: str) -> str:
    """MEMORY_DEVICE_FS_DAX -> FS_DAX."""
    return name.replace(_TYPE_PREFIX, "")


@dataclass(frozen=True)
class PfnRange:
    """PFNs [start_pfn, end_pfn) of a pagemap; first_pfn is the first one with a struct page of its
    own (behind an altmap's reserve)."""

    start_pfn: int
    end_pfn: int
    first_pfn: int

    @property
    def pages(self) -> int:
        """Number of pages, the altmap head included."""
        return self.end_pfn - self.start_pfn


@dataclass(frozen=True)
class PgmapRef:
    """dev_pagemap.ref: state live, dying (killed, references left) or dead (exited), and its value.

    count is None where it cannot be read; approximate is true while a switch to atomic mode is
    pending or where the reference is shared with a block queue.
    """

    state: str
    count: Optional[int]
    approximate: bool = False


class DevDax(NamedTuple):
    """What a device-dax page names once it was mapped: the address_space of its device, and its index in there,
    which is its pfn less the bias of its range (one per range of the pagemap, modulo 1 << 64)."""

    mapping: int
    biases: tuple[int, ...]


@dataclass(repr=False)
class Pagemap(Displayed):
    """One struct dev_pagemap: what it says of itself.

    device is what people call it (pmem0, dax0.0, the address of a PCI function), resource the name of its range in
    iomem_resource; page_size is in bytes.
    """

    address: int
    type: str
    device: Optional[str]
    resource: Optional[str]
    ranges: list[PfnRange]
    ref: PgmapRef
    vmemmap_shift: int
    altmap: Optional[dict[str, int]]
    owner: Optional[int]
    ops: Optional[str]
    ops_members: dict[str, bool]
    indices: list[int]
    nr_range: int
    foreign_maps: bool = False
    init_busy: Optional[bool] = None
    node: Optional[int] = None
    deduplicated: bool = False
    # Most of its last pages are at 0: removal has put, page after page, the reference each was born with (B, C).
    drained: bool = False
    # Of GENERIC ones: whose pages they are, or why that is not known.
    dev_dax: Union[DevDax, str, None] = None
    # Its driver sets zone_device_data of pages in use: most of them show it.
    driver_data: bool = False
    page_size: int = 4096

    def brief(self) -> str:
        """Name, type, pages and reference."""
        name, pfns = self.device or hex(self.address), self.ranges
        where = f" from pfn {pfns[0].start_pfn:#x}" if pfns else ""
        return f"{name} {short_type(self.type)}, {self.pages} pages{where}, {self.ref.state}"

    def __str__(self) -> str:
        from zonedev.report.text import pagemap_text

        return pagemap_text(self)

    def index_bias(self, pfn: int) -> int:
        """A page's pfn less its index in the file of its device-dax device; 0 where that is not known."""
        if not isinstance(self.dev_dax, DevDax):
            return 0
        found = [
            b for r, b in zip(self.ranges, self.dev_dax.biases) if r.start_pfn <= pfn < r.end_pfn
        ]
        return found[0] if found else 0

    @property
    def pages(self) -> int:
        """Pages of all ranges."""
        return sum(r.pages for r in self.ranges)

    @property
    def size(self) -> int:
        """Bytes of all ranges."""
        return self.pages * self.page_size

    @property
    def folios(self) -> int:
        """L of the documentation: (compound) pages from the first valid pfn on."""
        return sum((r.end_pfn - r.first_pfn) >> self.vmemmap_shift for r in self.ranges)

    def range_of(self, pfn: int) -> Optional[PfnRange]:
        """The range that holds the pfn."""
        return next((r for r in self.ranges if r.start_pfn <= pfn < r.end_pfn), None)

    def covers(self, pfn: int) -> bool:
        """True where one of the ranges holds the pfn."""
        return self.range_of(pfn) is not None


class Waiter(NamedTuple):
    """A task that waits, the function it does so in, the page that it names there if it waits for one, and its call
    trace, innermost first, where that was asked for."""

    pid: int
    comm: str
    function: str
    pfn: Optional[int] = None
    stack: tuple[str, ...] = ()


@dataclass(repr=False)
class Finding(Displayed):
    """A rule that fired, on count folios from pfn, 1 << order pages apart; pfn None: on the pagemap.

    pages is how many pages that are (within the range; 1 for a pagemap), folio_pfn and folio_pages say
    which folio the first of them belongs to. Of a live kernel, samples says how many showed something as
    bad there, and agreed how many of them had these very words. waiters: the tasks that wait for a dying pagemap. explanation: who holds the
    first folio, where that was asked for. device: what people call the pagemap, as in Pagemap. accepted: a baseline has it.
    """

    rule: str
    severity: str
    pagemap: int
    pfn: Optional[int] = None
    count: int = 1
    order: int = 0
    also: list[str] = field(default_factory=list)
    refcount: Optional[int] = None
    mapcount: Optional[int] = None
    mapping: Optional[int] = None
    index: Optional[int] = None
    pages: int = 1
    folio_pfn: int = 0
    folio_pages: int = 0
    flags: int = 0
    flag_names: list[str] = field(default_factory=list)
    expected: Optional[int] = None
    raw: bytes = b""
    detail: str = ""
    waiters: list[Waiter] = field(default_factory=list)
    explanation: Optional[Explanation] = None
    samples: int = 1
    agreed: int = 1
    device: Optional[str] = None
    accepted: bool = False

    def brief(self) -> str:
        """Severity, rule, place and counts."""
        if self.pfn is None:
            return f"{self.severity} {self.rule} on pagemap {self.device or hex(self.pagemap)}"
        pages = f" ({self.pages} pages)" if self.pages > 1 else ""
        return (
            f"{self.severity} {self.rule} at pfn {self.pfn:#x}{pages} of {self.device or hex(self.pagemap)}, refcount {self.refcount}"
            f" (expected {self.expected}), mapcount {self.mapcount}"
        )

    def __str__(self) -> str:
        from zonedev.report.text import finding_text

        return finding_text(self)


@dataclass(repr=False)
class PagemapResult(Displayed):
    """One pagemap and what the scan of its pages found; cells: its classes by place, where that was asked for."""

    pagemap: Pagemap
    idle_refcount: Optional[int]
    classes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CLASSES, 0))
    severities: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SEVERITIES, 0))
    refcounts: dict[int, int] = field(default_factory=dict)
    refcounts_other: int = 0
    idle_looking: dict[str, int] = field(default_factory=dict)
    driver_data: dict[str, int] = field(default_factory=dict)
    pages_referenced: int = 0
    heads_above_idle: int = 0
    pages_mapped: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    cells: list[Cells] = field(default_factory=list)

    def brief(self) -> str:
        """The pagemap, and how many of its pages are of which class."""
        counts = ", ".join(f"{count} {name}" for name, count in self.classes.items() if count)
        return f"{self.pagemap.brief()}: {counts or 'no page was looked at'}"


@dataclass
class SchemeInfo:
    """The refcount scheme and what speaks for it."""

    id: str
    title: str
    confidence: str
    evidence: list[str]
    idle: dict[str, Optional[int]]
    calibrated: list[str] = field(default_factory=list)


@dataclass
class BaselineResult:
    """What became of the findings that files accept.

    stale: entries that name nothing that is there any more; not_read_again: nothing that was looked at.  Each is
    {"rule", "place", "pages"}, the place as a line of such a file has it.
    """

    files: list[str]
    entries: int
    stale: list[dict[str, Any]] = field(default_factory=list)
    not_read_again: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(repr=False)
class Audit(Displayed):
    """The result of an audit.

    passes are the looks at more than struct pages: whether each was run, what it saw, what it could not read.
    transients did not stand in a second sample; findings hold every severity, worst first; errors and warnings count pages (a finding on a
    pagemap counts as one), findings are runs.
    """

    path: str
    live: bool
    kernel: dict[str, Any]
    scheme: SchemeInfo
    types_from: str
    readers: list[str]
    pagemaps: list[PagemapResult] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    findings_dropped: int = 0
    transients: list[Finding] = field(default_factory=list)
    not_applicable: list[dict[str, str]] = field(default_factory=list)
    passes: list[dict[str, Any]] = field(default_factory=list)
    kernel_log: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    scan_s: float = 0.0
    total_s: float = 0.0
    fail_on: str = "error"
    filters: dict[str, list[str]] = field(default_factory=dict)
    format: Optional[str] = None
    interrupted: bool = False
    baseline: Optional[BaselineResult] = None

    def __post_init__(self) -> None:
        self.pagemaps, self.findings = Listing(self.pagemaps), Listing(self.findings)
        self.transients = Listing(self.transients)

    def brief(self) -> str:
        """Target, verdict and sums."""
        return (
            f"of {self.path}: {self.verdict}, {self.pages} pages of {len(self.pagemaps)} pagemaps, "
            f"{len(self.findings)} findings"
        )

    @property
    def size(self) -> int:
        """Bytes of device memory that the pages are."""
        return sum(p.pagemap.size for p in self.pagemaps)

    @property
    def transient(self) -> int:
        """How many findings did not stand in a second sample of a live kernel."""
        return len(self.transients)

    @property
    def pages(self) -> int:
        """Pages of all pagemaps."""
        return sum(p.pagemap.pages for p in self.pagemaps)

    @property
    def classes(self) -> dict[str, int]:
        """Pages per class over all pagemaps."""
        return {c: sum(p.classes[c] for p in self.pagemaps) for c in CLASSES}

    def count(self, severity: str) -> int:
        """Pages with a finding of that severity; a finding on a pagemap counts as one.

        Summed up by the scan: right also where findings found no room in the list.
        """
        pages = sum(p.severities[severity] for p in self.pagemaps)
        return pages + sum(f.severity == severity for f in self.findings if f.pfn is None)

    def accepted(self, severity: str) -> int:
        """Of count(), what a baseline accepts."""
        mine = (f for f in self.findings if f.accepted and f.severity == severity)
        return sum(1 if f.pfn is None else f.pages for f in mine)

    def fresh(self, severity: str) -> int:
        """Of count(), what no baseline accepts; what found no room in the list is never accepted."""
        if self.baseline is None:
            return self.count(severity)
        listed = [f for f in self.findings if f.severity == severity and not f.accepted]
        pages = sum(1 if f.pfn is None else f.pages for f in listed)
        dropped = self.count(severity) - self.accepted(severity) if self.findings_dropped else 0
        return max(pages, dropped)

    def shown(self, severity: str) -> list[Finding]:
        """Findings of at least *severity* that the filters let pass; no sum is changed by either."""
        limit = SEVERITIES.index(severity)
        rules = self.filters.get("rule")
        return Listing(
            f
            for f in self.findings
            if SEVERITIES.index(f.severity) >= limit and (not rules or f.rule in rules)
        )

    @property
    def verdict(self) -> str:
        """clean, violations or incomplete."""
        limit = SEVERITIES.index(self.fail_on)
        if any(self.fresh(severity) for severity in SEVERITIES[limit:]):
            return "violations"
        classes = self.classes
        if classes["not-captured"] or classes["unreadable"] or self.problems or self.interrupted:
            return "incomplete"
        if self.pagemaps and (self.scheme.confidence == "low" or self.scheme.calibrated):
            return "incomplete"
        return "clean"

    @property
    def exit_code(self) -> int:
        """0 clean, 1 violations, 3 incomplete."""
        return EXIT_CODES[self.verdict]

    def __str__(self) -> str:
        from zonedev.report.text import audit_text

        return audit_text(self)
