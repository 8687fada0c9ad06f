# SPDX-License-Identifier: LGPL-2.1-or-later
"""The public API: pagemaps, folios, audits of a drgn Program.

Owns the order of events: layout and scheme, registry, scan, calibration, pagemap rules, second samples
of a live kernel.  Knows no kernel history (kernel/), prints nothing (report/), decodes nothing (the C
core, which works with the GIL released).

Invariant: every page of every pagemap is given to the scan exactly once, as bytes or as a hole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Optional

import drgn
from drgn import FaultError, Object, Program, ProgramFlags
from drgn.helpers.common.prog import takes_program_or_default
from drgn.helpers.linux.mm import follow_phys

from zonedev import _zonedev
from zonedev._version import VERSION
from zonedev.errors import TargetError, UsageError, ValidationError
from zonedev.kernel.device import DeviceNames
from zonedev.kernel.layout import KernelLayout, check_zone, kernel_layout, node_of
from zonedev.kernel.log import kernel_log_warnings
from zonedev.kernel.mapping import describe_mapping
from zonedev.kernel.registry import (
    Registry,
    coverage_problems,
    known_type,
    overlap_problems,
    read_pagemap,
    read_registry,
)
from zonedev.kernel.scheme import detect_scheme
from zonedev.kernel.vmemmap import (
    Hole,
    Pages,
    classify_fault,
    first_sample,
    is_deduplicated,
    read_memmap,
)
from zonedev.model import Audit, Finding, Pagemap, PagemapResult, PfnRange, SchemeInfo
from zonedev.pagemap_rules import Case, contradicted_types, judge_pagemap

__all__ = (
    "audit",
    "dev_pagemap_ranges",
    "folio",
    "for_each_dev_pagemap",
    "list_pagemaps",
    "rules_applicability",
    "validate",
)

Progress = Callable[[int, int], None]

_SEVERITIES = _zonedev.SEVERITIES

# A range of more pages than this is read only if the registry knows its last pfn, too.
_UNCONFIRMED_MAX = 1 << 26
_UNBELIEVABLE = "the registry does not know the end of this range"

# Findings whose mapping is followed to its file; the others keep the bare pointer.
_DESCRIBED_MAX = 1000


@takes_program_or_default
def for_each_dev_pagemap(prog: Program) -> Iterator[Object]:
    """
    Iterate over all registered pagemaps, each once.

    :return: Iterator of ``struct dev_pagemap *`` objects.
    """
    for address in read_registry(prog).entries:
        yield Object(prog, "struct dev_pagemap *", value=address)


@dataclass
class Kernel:
    """What is known of one kernel before any struct page is judged; made once per Program."""

    prog: Program
    layout: KernelLayout
    scheme: _zonedev.Scheme
    info: SchemeInfo
    registry: Registry
    pagemaps: list[Pagemap]
    problems: list[str]

    @property
    def live(self) -> bool:
        """True for a running kernel, whose pages change while they are read."""
        return bool(self.prog.flags & ProgramFlags.IS_LIVE)

    def find(self, pfn: int) -> Optional[Pagemap]:
        """The pagemap that holds a pfn."""
        return next((p for p in self.pagemaps if p.covers(pfn)), None)


def _read_pagemaps(
    prog: Program, registry: Registry, page_shift: int
) -> tuple[list[Pagemap], list[str]]:
    names = DeviceNames(prog)
    pagemaps: list[Pagemap] = []
    problems: list[str] = []
    for address, indices in registry.entries.items():
        try:
            pagemaps.append(read_pagemap(prog, address, indices, names, page_shift))
        except (FaultError, OverflowError, ValueError) as err:
            problems.append(
                f"dev_pagemap {address:#x} (pfn {indices[0]:#x}) cannot be read: {err}; its pages were not judged"
            )
    pagemaps.sort(key=lambda p: p.ranges[0].start_pfn if p.ranges else 0)
    return pagemaps, problems


def read_kernel(prog: Program) -> Kernel:
    """Layout, scheme and pagemaps of the kernel that *prog* is attached to.

    :raises TargetError: it is no kernel, has no types, or its registry cannot be read
    """
    if not prog.flags & ProgramFlags.IS_LINUX_KERNEL:
        raise TargetError(
            "the target is not a Linux kernel: zonedev needs a vmcore or a live kernel"
        )
    registry = read_registry(prog)
    layout = kernel_layout(prog)
    scheme, info = detect_scheme(prog)
    pagemaps, problems = _read_pagemaps(prog, registry, layout.page_shift)
    samples = [first_sample(prog, p, layout) for p in pagemaps]
    layout, evidence = check_zone(layout, samples)
    if pagemaps:
        info.evidence.append(evidence)
    for pagemap, sample in zip(pagemaps, samples):
        pagemap.node = node_of(layout, sample)
        pagemap.deduplicated = is_deduplicated(prog, pagemap, layout)
    return Kernel(prog, layout, scheme, info, registry, pagemaps, problems)


# ---------------------------------------------------------------- scanning


@dataclass
class _Caps:
    """What calibration takes away from a memory type."""

    severity: str = "error"
    miscalibrated: bool = False


def pagemap_spec(pagemap: Pagemap, caps: Optional[_Caps] = None) -> dict[str, Any]:
    """The facts of a pagemap as the core takes them."""
    caps = caps or _Caps()
    return {
        "address": pagemap.address,
        "type": pagemap.type,
        "ref": pagemap.ref.state,
        "vmemmap_shift": pagemap.vmemmap_shift,
        "node": -1 if pagemap.node is None else pagemap.node,
        "foreign_maps": pagemap.foreign_maps,
        "deduplicated": pagemap.deduplicated,
        "severity_cap": caps.severity,
        "miscalibrated": caps.miscalibrated,
    }


def _is_believable(kernel: Kernel, range_: PfnRange) -> bool:
    """False for a huge range that the registry does not confirm: reading it would take for ever."""
    if range_.pages <= _UNCONFIRMED_MAX:
        return True
    try:
        return bool(kernel.registry.load(range_.end_pfn - 1))
    except FaultError:
        return False


def _scan_range(
    kernel: Kernel,
    scan: _zonedev.Scan,
    range_: PfnRange,
    reasons: dict[str, int],
    progress: Callable[[int], None],
) -> int:
    """Scan one range; returns how many of its pages were holes of class not-captured."""
    layout = kernel.layout
    not_captured = 0
    scan.begin(range_.start_pfn, range_.end_pfn, layout.page_address(range_.start_pfn))
    if range_.first_pfn > range_.start_pfn:
        scan.hole(range_.first_pfn - range_.start_pfn, "skipped")
    if not _is_believable(kernel, range_):
        scan.hole(scan.left(), "unreadable")
        reasons[_UNBELIEVABLE] = reasons.get(_UNBELIEVABLE, 0) + range_.end_pfn - range_.first_pfn
        scan.end()
        return 0
    address = layout.page_address(range_.first_pfn)
    try:
        for piece in read_memmap(kernel.prog, address, scan.left(), layout):
            if isinstance(piece, Pages):
                scan.pages(piece.data)
                count = len(piece.data) // layout.page_size
            else:
                scan.hole(piece.pages, piece.class_)
                count = piece.pages
                reasons[piece.reason] = reasons.get(piece.reason, 0) + count
                not_captured += count if piece.class_ == "not-captured" else 0
            progress(count)
    except KeyboardInterrupt:
        left = scan.left()
        scan.hole(left, "unreadable")
        reasons["interrupted"] = reasons.get("interrupted", 0) + left
    scan.end()
    return not_captured


def _scan_unknown_type(result: PagemapResult) -> None:
    """Pages of a memory type that nobody knows are not judged, and counted as such."""
    result.classes["unreadable"] = result.pagemap.pages
    result.reasons["unknown memory type"] = result.pagemap.pages


def scan_pagemap(
    kernel: Kernel,
    pagemap: Pagemap,
    scheme: _zonedev.Scheme,
    caps: Optional[_Caps] = None,
    progress: Callable[[int], None] = lambda count: None,
) -> tuple[PagemapResult, list[Finding], int]:
    """Scan one pagemap: its tally, its findings (runs; single folios on a live kernel), runs dropped."""
    result = PagemapResult(pagemap, None)
    if not known_type(pagemap):
        _scan_unknown_type(result)
        return result, [], 0
    result.idle_refcount = scheme.idle(pagemap.type)
    scan = _zonedev.Scan(
        kernel.layout.layout, scheme, pagemap_spec(pagemap, caps), merge=not kernel.live
    )
    holes = sum(_scan_range(kernel, scan, r, result.reasons, progress) for r in pagemap.ranges)
    tally = scan.result()
    result.classes = tally["classes"]
    result.refcounts = tally["refcounts"]
    result.refcounts_other = tally["refcounts_other"]
    result.idle_looking = tally["idle_looking"]
    result.pages_referenced = tally["pages_referenced"]
    result.heads_above_idle = tally["heads_above_idle"]
    result.pages_mapped = tally["pages_mapped"]
    unseen = result.classes["not-captured"] - holes
    if unseen:
        result.reasons["all-zero struct pages, or tails whose head was not read"] = unseen
    findings = [_finding(kernel, pagemap, raw) for raw in tally["findings"]]
    return result, findings, tally["findings_dropped"]


def _finding(kernel: Kernel, pagemap: Pagemap, raw: dict[str, Any]) -> Finding:
    return Finding(pagemap=pagemap.address, flag_names=kernel.layout.flags(raw["flags"]), **raw)


# ---------------------------------------------------------------- live kernels


def _sample(kernel: Kernel, pfn: int) -> Optional[bytes]:
    try:
        data: bytes = kernel.prog.read(kernel.layout.page_address(pfn), kernel.layout.page_size)
        return data
    except (FaultError, OSError, ValueError):
        return None


def _retract(result: PagemapResult, finding: Finding) -> None:
    """A finding that did not stand: its folio is in use, not in violation."""
    if finding.severity == "error":
        pages = min(finding.pages, result.classes["violation"])
        result.classes["violation"] -= pages
        result.classes["busy"] += pages


def _confirm(
    kernel: Kernel,
    results: dict[int, PagemapResult],
    findings: list[Finding],
    resample_ms: int,
    samples: int,
) -> tuple[list[Finding], int]:
    """Findings of a live kernel that further samples agree with in every word; number of the others."""
    alarming = [f for f in findings if f.pfn is not None and f.severity != "info"]
    transient: set[int] = set()
    for _ in range(samples - 1 if alarming else 0):
        time.sleep(resample_ms / 1000)
        for finding in alarming:
            if id(finding) not in transient and _sample(kernel, finding.pfn or 0) != finding.raw:
                transient.add(id(finding))
                _retract(results[finding.pagemap], finding)
    return [f for f in findings if id(f) not in transient], len(transient)


def _same_state(a: Finding, b: Finding) -> bool:
    return all(
        getattr(a, name) == getattr(b, name)
        for name in (
            "rule",
            "severity",
            "pagemap",
            "also",
            "order",
            "refcount",
            "mapcount",
            "mapping",
            "flags",
        )
    )


def _merge(findings: Iterable[Finding]) -> list[Finding]:
    """Join findings of adjacent folios in one state into runs (the core does it for dumps)."""
    merged: list[Finding] = []
    for finding in findings:
        last = merged[-1] if merged else None
        if (
            last is not None
            and last.pfn is not None
            and finding.pfn == last.pfn + last.pages
            and _same_state(last, finding)
        ):
            merged[-1] = replace(last, count=last.count + finding.count)
        else:
            merged.append(finding)
    return merged


# ---------------------------------------------------------------- calibration


def _modal_idle(results: list[PagemapResult], type_: str) -> Optional[int]:
    zeros = sum(r.idle_looking["0"] for r in results if r.pagemap.type == type_)
    ones = sum(r.idle_looking["1"] for r in results if r.pagemap.type == type_)
    return None if not zeros and not ones else int(ones > zeros)


class _Scanner:
    """The scans of one audit, and what calibration makes of them."""

    def __init__(
        self, kernel: Kernel, pagemaps: list[Pagemap], progress: Optional[Progress]
    ) -> None:
        self.kernel = kernel
        self.pagemaps = pagemaps
        self.scheme = kernel.scheme
        self.caps: dict[str, _Caps] = {}
        self.results: list[PagemapResult] = []
        self.findings: list[list[Finding]] = []
        self.dropped: list[int] = []
        self.extra: list[Finding] = []
        self._total = sum(p.pages for p in pagemaps)
        self._done = 0
        self._progress = progress

    def _advance(self, count: int) -> None:
        self._done += count
        if self._progress:
            self._progress(min(self._done, self._total), self._total)

    def _scan(self, pagemap: Pagemap) -> tuple[PagemapResult, list[Finding], int]:
        caps = self.caps.get(pagemap.type)
        return scan_pagemap(self.kernel, pagemap, self.scheme, caps, self._advance)

    def run(self) -> None:
        """Scan everything; again where calibration says that the scheme does not fit."""
        for pagemap in self.pagemaps:
            result, findings, dropped = self._scan(pagemap)
            self.results.append(result)
            self.findings.append(findings)
            self.dropped.append(dropped)
        if self.scheme.id == "unknown":
            self._calibrate_unknown()
        else:
            self._check_calibration()

    def _rescan(self, types: Iterable[str]) -> None:
        for i, pagemap in enumerate(self.pagemaps):
            if pagemap.type in types:
                self.results[i], self.findings[i], self.dropped[i] = self._scan(pagemap)

    def _calibrate_unknown(self) -> None:
        types = {p.type for p in self.pagemaps if known_type(p)}
        for type_ in sorted(types):
            idle = _modal_idle(self.results, type_)
            if idle is not None:
                self.scheme = self.scheme.calibrated(type_, idle)
                self.kernel.info.calibrated.append(f"{type_} idles at {idle}")
                self.kernel.info.idle[type_] = idle
        self._rescan(types)

    def _check_calibration(self) -> None:
        contradicted = contradicted_types(self.results, self.scheme)
        for type_, (count, percent) in contradicted.items():
            self.caps[type_] = _Caps("warning", True)
            text = (
                f"scheme {self.scheme.id} says that free pages of {type_} rest at {self.scheme.idle(type_)}, "
                f"but {percent} % of its folios look idle at {count}"
            )
            self.kernel.info.calibrated.append(text)
            pagemap = next(p for p in self.pagemaps if p.type == type_)
            self.extra.append(
                Finding("idle-count-mismatch", "warning", pagemap.address, detail=text)
            )
        self._rescan(contradicted)


# ---------------------------------------------------------------- the audit


def _select(
    kernel: Kernel, types: Optional[list[str]], pgmaps: Optional[list[str]]
) -> list[Pagemap]:
    selected = []
    for pagemap in kernel.pagemaps:
        if types and not any(pagemap.type.lower().endswith(t.lower()) for t in types):
            continue
        if pgmaps and not any(_is_called(pagemap, name) for name in pgmaps):
            continue
        selected.append(pagemap)
    if not selected and kernel.pagemaps and (types or pgmaps):
        known = ", ".join(f"{p.device or '?'} ({p.address:#x}, {p.type})" for p in kernel.pagemaps)
        raise UsageError(
            f"no pagemap matches {', '.join((types or []) + (pgmaps or []))}; there are: {known}"
        )
    return selected


def _is_called(pagemap: Pagemap, name: str) -> bool:
    if name in (pagemap.device, pagemap.resource):
        return True
    try:
        number = int(name, 0)
    except ValueError:
        return False
    return number == pagemap.address or pagemap.covers(number)


def _not_applicable(kernel: Kernel, results: list[PagemapResult]) -> list[dict[str, str]]:
    """Rules of which no row can apply, and why; and rules that lack evidence, with their level."""
    rows = _zonedev.rules()
    reasons = _zonedev.why_not(kernel.layout.layout, kernel.scheme)
    present = {r.pagemap.type for r in results}
    why: dict[str, str] = {}
    applicable: set[str] = set()
    for row, reason in zip(rows, reasons):
        if reason is None and not present & set(row["types"]):
            reason = "no pagemap of its memory types"
        if reason is None:
            applicable.add(row["id"])
            if row["evidence"] != "none":
                why.setdefault(
                    row["id"] + "+", f"without {row['evidence']}: level {row['severity_unproven']}"
                )
        else:
            why.setdefault(row["id"], reason)
    listed = [{"rule": id_, "why": text} for id_, text in why.items() if id_[-1] != "+"]
    listed = [entry for entry in listed if entry["rule"] not in applicable]
    return listed + [{"rule": id_[:-1], "why": text} for id_, text in why.items() if id_[-1] == "+"]


def _kernel_facts(kernel: Kernel) -> dict[str, Any]:
    prog = kernel.prog
    assert prog.platform is not None
    return {
        "release": prog["UTS_RELEASE"].string_().decode(errors="replace"),
        "arch": prog.platform.arch.name.lower(),
        "page_size": 1 << kernel.layout.page_shift,
    }


def _target_path(prog: Program) -> str:
    path = prog.core_dump_path
    if path is None:
        return "/proc/kcore" if prog.flags & ProgramFlags.IS_LOCAL else "(custom target)"
    return str(path)


def _severity_order(finding: Finding) -> tuple[int, int]:
    return -_SEVERITIES.index(finding.severity), -1 if finding.pfn is None else finding.pfn


def _notes(kernel: Kernel) -> list[str]:
    if kernel.pagemaps or kernel.problems:
        return []
    return [
        "no dev_pagemap is registered: this machine has no device memory with struct pages "
        "(memory onlined as RAM by dax_kmem has none either)"
    ]


@takes_program_or_default
def audit(
    prog: Program,
    *,
    types: Optional[list[str]] = None,
    pgmaps: Optional[list[str]] = None,
    fail_on: str = "error",
    resample_ms: int = 20,
    samples: int = 2,
    progress: Optional[Progress] = None,
) -> Audit:
    """
    Judge every struct page of every pagemap.

    :param types: only pagemaps of these memory types (names or their ends, "fs_dax")
    :param pgmaps: only these pagemaps (device name, resource, address or a pfn)
    :param fail_on: lowest severity that makes the verdict "violations"
    :param resample_ms: live kernels: time between samples of a suspicious page, in milliseconds
    :param samples: live kernels: samples that must agree, 2 or more
    :param progress: called with (pages done, pages in all)
    :raises TargetError: the target cannot be audited
    :raises UsageError: no pagemap matches
    """
    begin = time.monotonic()
    kernel = read_kernel(prog)
    result = Audit(
        _target_path(prog),
        kernel.live,
        _kernel_facts(kernel),
        kernel.info,
        "dwarf",
        ["Program.read"],
        fail_on=fail_on,
    )
    pagemaps = _select(kernel, types, pgmaps)
    scan_begin = time.monotonic()
    scanner = _Scanner(kernel, pagemaps, progress)
    scanner.run()
    result.scan_s = time.monotonic() - scan_begin
    result.pagemaps = scanner.results
    findings = [f for some in scanner.findings for f in some]
    if kernel.live:
        by_address = {r.pagemap.address: r for r in scanner.results}
        findings, result.transient = _confirm(kernel, by_address, findings, resample_ms, samples)
        findings = _merge(findings)
    result.findings = sorted(
        findings + scanner.extra + _judge_pagemaps(kernel, scanner), key=_severity_order
    )
    _describe(prog, result.findings)
    result.findings_dropped = sum(scanner.dropped)
    result.interrupted = any("interrupted" in r.reasons for r in scanner.results)
    result.not_applicable = _not_applicable(kernel, scanner.results)
    result.problems = list(kernel.problems)
    result.notes = _notes(kernel)
    result.kernel_log = kernel_log_warnings(prog)
    result.total_s = time.monotonic() - begin
    return result


def _describe(prog: Program, findings: list[Finding]) -> None:
    """Say whose page it is, for the findings that people will read."""
    words: dict[int, str] = {}
    for finding in findings[:_DESCRIBED_MAX]:
        if finding.mapping:
            if finding.mapping not in words:
                words[finding.mapping] = describe_mapping(prog, finding.mapping)
            finding.detail = finding.detail or words[finding.mapping]


def _judge_pagemaps(kernel: Kernel, scanner: _Scanner) -> list[Finding]:
    overlaps = overlap_problems(kernel.pagemaps)
    findings = []
    for result in scanner.results:
        pagemap = result.pagemap
        coverage = coverage_problems(kernel.registry, pagemap) + overlaps.get(pagemap.address, [])
        caps = scanner.caps.get(pagemap.type, _Caps())
        cap = "warning" if scanner.scheme.id == "unknown" else caps.severity
        case = Case(result, scanner.scheme, kernel.layout.page_shift, coverage)
        findings += judge_pagemap(case, cap)
    return findings


@takes_program_or_default
def validate(prog: Program, **options: Any) -> Audit:
    """
    The same as :func:`audit()`, for scripts that want an exception.

    :raises ValidationError: the verdict is "violations"
    """
    result: Audit = audit(prog, **options)
    if result.verdict == "violations":
        worst = result.findings[0]
        place = f"pagemap {worst.pagemap:#x}" if worst.pfn is None else f"pfn {worst.pfn:#x}"
        raise ValidationError(
            f"{result.count('error')} pages in violation, {result.count('warning')} with warnings; "
            f"first: {worst.rule} at {place}",
            result,
        )
    return result


@takes_program_or_default
def list_pagemaps(prog: Program) -> list[Pagemap]:
    """
    All pagemaps with their device, ranges and reference, in the order of their pfns.

    :raises TargetError: the registry cannot be read
    """
    layout = kernel_layout(prog)
    pagemaps, problems = _read_pagemaps(prog, read_registry(prog), layout.page_shift)
    if problems:
        raise TargetError(problems[0])
    return pagemaps


@takes_program_or_default
def dev_pagemap_ranges(prog: Program, pgmap: Object) -> list[PfnRange]:
    """
    PFN ranges of a pagemap, half-open, with the first pfn behind an altmap's reserve.

    :param pgmap: ``struct dev_pagemap *``
    """
    address = int(pgmap)
    return next((p.ranges for p in list_pagemaps(prog) if p.address == address), [])


# ---------------------------------------------------------------- one folio


@dataclass
class FolioReport:
    """One struct page: what was asked for, its own words, its head's, and what is wrong with it."""

    asked: str
    pfn: int
    address: int
    pagemap: Pagemap
    page: dict[str, Any]
    head: dict[str, Any]
    head_address: int
    class_: str
    idle_refcount: Optional[int]
    flag_names: list[str]
    raw: bytes
    head_raw: bytes
    findings: list[Finding]
    owner: str

    def __str__(self) -> str:
        from zonedev.report.text import folio_text

        return folio_text(self)


def _resolve_address(kernel: Kernel, address: int) -> tuple[int, str]:
    """pfn behind a kernel address: of a struct page, or of the memory mapped there."""
    offset = address - kernel.layout.vmemmap
    if offset >= 0:
        pfn = offset // kernel.layout.page_size
        if kernel.find(pfn):
            return pfn, f"{address:#x} is the struct page of pfn {pfn:#x}"
    try:
        mm = kernel.prog["init_mm"].address_of_()
        physical = int(follow_phys(mm, address))
    except (FaultError, LookupError, NotImplementedError) as err:
        raise TargetError(
            f"{address:#x} is neither a struct page of a pagemap nor mapped: {err}"
        ) from None
    pfn = physical >> kernel.layout.page_shift
    return pfn, f"{address:#x} is mapped to physical address {physical:#x}, pfn {pfn:#x}"


def _resolve(kernel: Kernel, what: str) -> tuple[int, str]:
    """pfn for what a user typed, and the words for how it was understood."""
    text = what[5:] if what.startswith("phys:") else what
    try:
        number = int(text, 0)
    except ValueError:
        raise UsageError(f"{what} is not a pfn, an address (0x...) or phys:ADDRESS") from None
    if number < 0 or number >> 64:
        raise UsageError(f"{what} is not a pfn, an address (0x...) or phys:ADDRESS: out of range")
    if what.startswith("phys:"):
        pfn = number >> kernel.layout.page_shift
        return pfn, f"physical address {number:#x} is pfn {pfn:#x}"
    if number >> 63:
        return _resolve_address(kernel, number)
    return number, f"{what} is taken as a pfn"


def _range_of(pagemap: Pagemap, pfn: int) -> PfnRange:
    return next(r for r in pagemap.ranges if r.start_pfn <= pfn < r.end_pfn)


def _read_struct_pages(kernel: Kernel, pfn: int, count: int) -> bytes:
    """Up to count struct pages; as many as can be read, at least one."""
    address, size = kernel.layout.page_address(pfn), kernel.layout.page_size
    try:
        data: bytes = kernel.prog.read(address, count * size)
        return data
    except (FaultError, OSError, ValueError):
        pass
    try:
        data = kernel.prog.read(address, size)
        return data
    except (FaultError, OSError, ValueError) as err:
        class_, reason = classify_fault(err)
        raise TargetError(
            f"the struct page of pfn {pfn:#x} at {address:#x} is {class_}: {reason}"
        ) from None


def _judge_folio(
    kernel: Kernel, pagemap: Pagemap, start: int, end: int, pfn: int
) -> tuple[str, list[Finding]]:
    """Scan [start, end): class of the page at *pfn* and the findings on its folio."""
    layout = kernel.layout
    scan = _zonedev.Scan(layout.layout, kernel.scheme, pagemap_spec(pagemap), merge=False)
    scan.begin(start, end, layout.page_address(start))
    for piece in read_memmap(kernel.prog, layout.page_address(start), end - start, layout):
        if isinstance(piece, Hole):
            scan.hole(piece.pages, piece.class_)
        else:
            scan.pages(piece.data)
    scan.end()
    tally = scan.result()
    findings = [_finding(kernel, pagemap, raw) for raw in tally["findings"]]
    classes = {name: n for name, n in tally["classes"].items() if n and name != "skipped"}
    # The folio's class: it is the only one, or the worst where pages of it fall apart.
    for name in ("violation", "not-captured", "unreadable", "busy", "idle"):
        if name in classes:
            return name, [f for f in findings if f.pfn in (start, pfn) or f.severity == "error"]
    return "skipped", findings


def folio_report(kernel: Kernel, what: str) -> FolioReport:
    """Decode and judge one struct page and its folio (see :func:`folio()`)."""
    pfn, asked = _resolve(kernel, what)
    pagemap = kernel.find(pfn)
    if pagemap is None:
        raise TargetError(f"{asked}, and no pagemap covers it: it is not ZONE_DEVICE memory")
    if not known_type(pagemap):
        raise TargetError(
            f"{asked} of pagemap {pagemap.address:#x}, whose memory type is {pagemap.type}"
        )
    range_ = _range_of(pagemap, pfn)
    if pfn < range_.first_pfn:
        raise TargetError(
            f"{asked}: it lies in the altmap head of {pagemap.device}, which has no struct pages"
        )
    layout = kernel.layout
    spec = pagemap_spec(pagemap)
    bounds = (range_.start_pfn, range_.end_pfn, layout.page_address(range_.start_pfn))

    def decode(at: int) -> tuple[dict[str, Any], bytes]:
        raw = _read_struct_pages(kernel, at, min(4, range_.end_pfn - at))
        return _zonedev.decode(layout.layout, kernel.scheme, spec, bounds, at, raw), raw

    page, raw = decode(pfn)
    head_pfn = page["head_pfn"] if page["head_pfn"] is not None else pfn
    head, head_raw = decode(head_pfn) if head_pfn != pfn else (page, raw)
    end = min(max(head_pfn + (1 << min(head["order"], 30)), pfn + 1), range_.end_pfn)
    class_, findings = _judge_folio(kernel, pagemap, head_pfn, end, pfn)
    return FolioReport(
        asked,
        pfn,
        layout.page_address(pfn),
        pagemap,
        page,
        head,
        layout.page_address(head_pfn),
        class_,
        kernel.scheme.idle(pagemap.type),
        layout.flags(page["flags"]),
        raw[: layout.page_size],
        head_raw[: layout.page_size],
        findings,
        describe_mapping(kernel.prog, head["mapping"]),
    )


@takes_program_or_default
def rules_applicability(prog: Program) -> list[Optional[str]]:
    """
    Per row of the rule table: None, or why it is not applicable to the kernel.

    :raises TargetError: the target cannot be audited
    """
    kernel = read_kernel(prog)
    return _zonedev.why_not(kernel.layout.layout, kernel.scheme)


@takes_program_or_default
def folio(prog: Program, what: str) -> FolioReport:
    """
    Decode and judge one struct page and its folio.

    :param what: a pfn, "phys:ADDRESS", or the address of a struct page or of mapped memory (0x...)
    :raises TargetError: it is not ZONE_DEVICE, or cannot be read
    """
    return folio_report(read_kernel(prog), what)


def tool_versions() -> dict[str, Any]:
    """Versions of what makes a report."""
    return {"zonedev": VERSION, "drgn": drgn.__version__, **_zonedev.features()}
