# SPDX-License-Identifier: LGPL-2.1-or-later
"""The public API: pagemaps, folios, audits of a drgn Program.

Owns the order of events of an audit and the result that comes of it.  Knows no kernel history (kernel/),
reads no struct page (scanner.py), prints nothing (report/), decodes nothing (the C core).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Optional, Union

import drgn
from drgn import FaultError, Object, Program, ProgramFlags
from drgn.helpers.common.prog import takes_program_or_default

from zonedev import _zonedev
from zonedev._version import VERSION
from zonedev.baseline import Look, accept, read_baseline
from zonedev.cells import CellPlan
from zonedev.display import Listing
from zonedev.driver_pass import DriverPasses, FreeListPass, PoolPass
from zonedev.errors import TargetError, UsageError, ValidationError
from zonedev.explain import explain_findings
from zonedev.kernel.btf import types_from, with_types
from zonedev.kernel.dax import CannotWalk, DaxEntry, DaxFile, DaxWalk
from zonedev.kernel.facts import Kernel, Pagemaps, all_pagemaps, read_kernel
from zonedev.kernel.layout import kernel_layout
from zonedev.kernel.log import kernel_log_warnings
from zonedev.kernel.mapping import describe_mapping
from zonedev.kernel.registry import (
    NoRegistry,
    Registry,
    coverage_problems,
    overlap_problems,
    read_registry,
)
from zonedev.kernel.scheme import detect_scheme
from zonedev.kernel.sections import Sections
from zonedev.kernel.strings import text_of
from zonedev.kernel.vmemmap import is_drained
from zonedev.live import (
    SAMPLES,
    Confirmation,
    Pace,
    alarming,
    confirm_pagemaps,
    merge_findings,
)
from zonedev.model import FS_DAX, Audit, Finding, Pagemap, PagemapResult, PfnRange, short_type
from zonedev.page import FolioReport, What, folio_report
from zonedev.pagemap_rules import Case, Unjudged, judge_pagemap
from zonedev.scanner import Caps, Progress, Scanner
from zonedev.second_pass import DaxPass
from zonedev.states import SchemeReport, scheme_report
from zonedev.waiters import name_waiters

__all__ = (
    "audit",
    "dax_files",
    "dev_pagemap_ranges",
    "folio",
    "for_each_dax_entry",
    "for_each_dev_pagemap",
    "list_pagemaps",
    "rules_applicability",
    "scheme",
    "validate",
)

# Findings whose mapping is followed to its file; the others keep the bare pointer.
_DESCRIBED_MAX = 1000


@takes_program_or_default
def for_each_dev_pagemap(prog: Program) -> Iterator[Object]:
    """
    Iterate over all registered pagemaps, each once.

    Where the registry is not to be found, those that pages of ZONE_DEVICE name.

    :return: Iterator of ``struct dev_pagemap *`` objects.
    :raises TargetError: there is neither
    """
    with_types(prog)
    try:
        registry = read_registry(prog)
    except NoRegistry:
        registry = _pagemaps_of(prog).registry
    for address in registry.entries:
        yield Object(prog, "struct dev_pagemap *", value=address)


def _pagemaps_of(prog: Program) -> Pagemaps:
    with_types(prog)
    scheme, _ = detect_scheme(prog)
    return all_pagemaps(prog, kernel_layout(prog), scheme)


# ---------------------------------------------------------------- selection


def _is_of_type(pagemap: Pagemap, name: str) -> bool:
    return name.upper() in (pagemap.type, short_type(pagemap.type))


def _is_called(pagemap: Pagemap, name: str) -> bool:
    if name and name in (pagemap.device, pagemap.resource):
        return True
    try:
        number = int(name, 0)
    except ValueError:
        return False
    return number == pagemap.address or pagemap.covers(number)


Name = Union[str, int, Object]
Names = Union[Name, Iterable[Name], None]
"""A name, or several; None: all.  Numbers and objects are addresses or pfns."""


def _names(names: Names) -> list[str]:
    if names is None:
        return []
    several = [names] if isinstance(names, (str, int, Object)) else names
    return [one if isinstance(one, str) else hex(one) for one in several]


def _check_options(fail_on: str, resample_ms: int, samples: int) -> None:
    """
    That the options of an audit make sense.

    :raises UsageError: one of them does not
    """
    if fail_on not in _zonedev.SEVERITIES:
        known = ", ".join(_zonedev.SEVERITIES)
        raise UsageError(f"fail_on={fail_on!r} is no severity; the severities are: {known}")
    if resample_ms < 0 or samples < 2:
        raise UsageError(
            f"resample_ms={resample_ms} and samples={samples}: give 0 or more milliseconds, and 2 or more samples"
        )


def _select(kernel: Kernel, types: list[str], pgmaps: list[str]) -> list[Pagemap]:
    """The pagemaps that all filters let pass; a filter that matches nothing is an error."""
    if kernel.pagemaps:
        known = ", ".join(f"{p.device or '?'} ({p.address:#x}, {p.type})" for p in kernel.pagemaps)
        for name in types:
            if not any(_is_of_type(p, name) for p in kernel.pagemaps):
                raise UsageError(f"no pagemap has the type {name!r}; there are: {known}")
        for name in pgmaps:
            if not any(_is_called(p, name) for p in kernel.pagemaps):
                raise UsageError(f"no pagemap is called {name!r}; there are: {known}")
    selected = [
        p
        for p in kernel.pagemaps
        if (not types or any(_is_of_type(p, name) for name in types))
        and (not pgmaps or any(_is_called(p, name) for name in pgmaps))
    ]
    if kernel.pagemaps and not selected:
        raise UsageError(f"no pagemap is both of type {', '.join(types)} and {', '.join(pgmaps)}")
    return selected


# ---------------------------------------------------------------- what the report lists beside findings


Pass = Union[DaxPass, PoolPass, FreeListPass]


def _passes(scanner: Scanner) -> list[Pass]:
    """The passes that the pagemaps call for, whether they could be run or not."""
    drivers = scanner.drivers
    passes = (scanner.dax, drivers and drivers.pool, drivers and drivers.lists)
    return [one for one in passes if one]


def _without_evidence(row: dict[str, Any], passes: list[Pass]) -> Optional[str]:
    """What becomes of a row for want of its evidence, or None where it is there."""
    level = f"level {row['severity_unproven']}"
    if row["evidence"] == "none":
        return None
    then = "not applied" if row["requires_evidence"] else level
    one = next((p for p in passes if p.evidence == row["evidence"]), None)
    if one is None:
        return f"without {row['evidence']}: {then}"
    if one.why is not None:
        return f"without {row['evidence']}: {then} ({one.why})"
    where = one.lacking()
    if where is None:
        return None
    return f"not all {row['evidence']}{where} could be read: {level}, and no absence is concluded"


def _not_applicable(
    kernel: Kernel, scanner: Scanner, results: list[PagemapResult]
) -> list[dict[str, str]]:
    """Rules of which no row can apply, and rows that lack evidence or are switched off; with why."""
    rows = list(zip(_zonedev.rules(), _zonedev.why_not(kernel.layout.layout, kernel.scheme)))
    present = {r.pagemap.type for r in results}
    applicable = {row["id"] for row, why in rows if why is None and present & set(row["types"])}
    listed: dict[str, str] = {}
    for row, why in rows:
        if row["id"] not in applicable:
            listed.setdefault(row["id"], why or "no pagemap of its memory types")
    entries = [{"rule": id_, "why": why} for id_, why in listed.items()]
    passes = _passes(scanner)
    for row, why in rows:
        here = sorted(present & set(row["types"]))
        if why is not None or not here:
            continue
        names = ", ".join(map(short_type, here))
        lacking = _without_evidence(row, passes)
        if lacking:
            entries.append({"rule": row["id"], "why": f"{names}: {lacking}"})
        off = [short_type(t) for t in here if scanner.caps.get(t, Caps()).miscalibrated]
        if row["calibrated"] and off:
            text = f"{', '.join(off)}: calibration contradicts the scheme"
            entries.append({"rule": row["id"], "why": text})
    return entries


def _facts_lacking(results: list[PagemapResult]) -> list[dict[str, str]]:
    """Rules that ask for facts of a pagemap, where these are not to be had."""
    entries = []
    for result in results:
        pagemap, counts = result.pagemap, result.driver_data
        if isinstance(pagemap.dev_dax, str):
            entries.append(("gen-mapping", pagemap, pagemap.dev_dax))
        if counts.get("missing") and not pagemap.driver_data:
            why = f"{counts['missing']} of {sum(counts.values())} folios in use have no zone_device_data"
            entries.append(("zdd", pagemap, f"{why}: its driver does not set it"))
    return [
        {"rule": rule, "why": f"{p.device or hex(p.address)}: {why}"} for rule, p, why in entries
    ]


def _kernel_facts(kernel: Kernel) -> dict[str, Any]:
    prog = kernel.prog
    assert prog.platform is not None
    return {
        "release": text_of(prog["UTS_RELEASE"].string_()),
        "arch": prog.platform.arch.name.lower(),
        "page_size": 1 << kernel.layout.page_shift,
    }


def _target_path(prog: Program) -> str:
    path = prog.core_dump_path
    if path is None:
        return "/proc/kcore" if prog.flags & ProgramFlags.IS_LOCAL else "(custom target)"
    return str(path)


def _notes(kernel: Kernel) -> list[str]:
    if kernel.pagemaps or kernel.problems:
        return []
    return [
        "no dev_pagemap is registered: this machine has no device memory with struct pages "
        "(memory onlined as RAM by dax_kmem has none either)"
    ]


def _describe(prog: Program, findings: list[Finding]) -> None:
    """Say whose page it is, for the findings that people will read."""
    words: dict[int, str] = {}
    for finding in findings[:_DESCRIBED_MAX]:
        if finding.mapping:
            if finding.mapping not in words:
                words[finding.mapping] = describe_mapping(prog, finding.mapping)
            finding.detail = finding.detail or words[finding.mapping]


def _name_devices(kernel: Kernel, findings: Iterable[Finding]) -> None:
    """Say of which device a finding is, for whoever looks at one by itself."""
    devices = {p.address: p.device for p in kernel.pagemaps}
    for finding in findings:
        finding.device = devices.get(finding.pagemap)


def _severity_order(finding: Finding) -> tuple[int, int]:
    rank = _zonedev.SEVERITIES.index(finding.severity)
    return -rank, -1 if finding.pfn is None else finding.pfn


def _readers(kernel: Kernel) -> list[str]:
    """What memory was read through."""
    memory = kernel.memory
    return ["Program.read", *([memory.name] if memory and memory.used else [])]


# ---------------------------------------------------------------- the audit


def _sections(prog: Program) -> Union[Sections, Unjudged]:
    try:
        return Sections(prog)
    except LookupError as err:
        return Unjudged(f"memory sections are not known here: {err}")
    except FaultError as err:
        return Unjudged(f"memory sections cannot be read: {err}")


def _missing(
    sections: Union[Sections, Unjudged], pagemap: Pagemap
) -> Union[list[tuple[int, int]], Unjudged]:
    """Pfns without a struct page, or why that is not known."""
    if isinstance(sections, Unjudged):
        return sections
    try:
        return sections.missing(pagemap.ranges)
    except FaultError as err:
        return Unjudged(f"memory sections cannot be read: {err}")


def _coverage(
    registry: Registry, pagemap: Pagemap, overlaps: list[str]
) -> Union[list[str], Unjudged]:
    """What the registry and the ranges of others say against a pagemap."""
    if registry.is_there:
        return coverage_problems(registry, pagemap) + overlaps
    return overlaps or Unjudged(
        "the registry cannot be found, or not all of it: pagemaps are those that pages name"
    )


def _judge_pagemaps(
    kernel: Kernel, scanner: Scanner, results: list[PagemapResult], skipped: list[dict[str, str]]
) -> list[Finding]:
    """Findings on pagemaps; rules that could not be applied are added to *skipped*."""
    overlaps = overlap_problems([r.pagemap for r in results])
    sections = _sections(kernel.prog)
    findings = []
    for result in results:
        pagemap = result.pagemap
        coverage = _coverage(kernel.registry, pagemap, overlaps.get(pagemap.address, []))
        caps = scanner.caps.get(pagemap.type, Caps())
        cap = "warning" if scanner.scheme.id == "unknown" else caps.severity
        case = Case(
            result, scanner.scheme, kernel.layout.page_shift, coverage, _missing(sections, pagemap)
        )
        judged, unjudged = judge_pagemap(case, cap)
        findings += judged
        name = pagemap.device or hex(pagemap.address)
        skipped += [{"rule": rule, "why": f"{name}: {why}"} for rule, why in unjudged]
    return findings


def _judge_again(kernel: Kernel, scanner: Scanner, before: list[Finding]) -> list[Finding]:
    """Pagemap findings of a live kernel from a fresh registry, fresh references and a fresh scan.

    Where the registry cannot be read just now, the findings of *before* stand.
    """
    try:
        registry, pagemaps, *_ = all_pagemaps(kernel.prog, kernel.layout, kernel.scheme)
    except TargetError:
        return before
    known = {p.address: p for p in kernel.pagemaps}
    for pagemap in pagemaps:
        if pagemap.address in known:
            pagemap.node = known[pagemap.address].node
            pagemap.deduplicated = known[pagemap.address].deduplicated
            pagemap.dev_dax = known[pagemap.address].dev_dax
            pagemap.driver_data = known[pagemap.address].driver_data
        pagemap.drained = is_drained(kernel.prog, pagemap, kernel.layout)
    wanted = {s.result.pagemap.address for s in scanner.wanted}
    suspects = {f.pagemap for f in alarming(before)}
    kernel.registry = registry
    # Only the pages of suspects are scanned again, but ranges may overlap with anybody's.
    results = [
        scanner.scan(p).result if p.address in suspects else PagemapResult(p, None)
        for p in pagemaps
        if p.address in wanted
    ]
    if scanner.interrupted:
        return before
    judged = _judge_pagemaps(kernel, scanner, results, [])
    return [f for f in judged if f.pagemap in suspects]


def _confirm(
    kernel: Kernel,
    scanner: Scanner,
    on_pagemaps: list[Finding],
    resample_ms: int,
    samples: int,
) -> tuple[list[Finding], list[Finding]]:
    """Second looks: pagemap findings that stand, and all findings that do not.

    Ctrl-C ends them, and what was not looked at again stands.
    """
    transient: list[Finding] = []
    pace = Pace(resample_ms, samples)
    on_folios = [Confirmation(scanner, scanned) for scanned in scanner.wanted]
    try:
        while alarming(on_pagemaps) or any(alarming(s.findings) for s in scanner.wanted):
            if not pace.again(bool(transient)):
                break
            for confirmation in on_folios:
                transient += confirmation.again()
            if not pace.seldom:
                continue
            on_pagemaps, lost = confirm_pagemaps(
                on_pagemaps, partial(_judge_again, kernel, scanner, on_pagemaps)
            )
            transient += lost
        for confirmation in on_folios:
            transient += confirmation.finish()
    except KeyboardInterrupt:
        scanner.interrupted = True
    return on_pagemaps, transient


def _dax_pass(kernel: Kernel, pagemaps: list[Pagemap], quick: bool) -> Optional[DaxPass]:
    """The pass over DAX entries; None where no FS_DAX page is looked at."""
    return DaxPass(kernel, quick) if any(p.type == FS_DAX for p in pagemaps) else None


def _pageless(scanner: Scanner, pagemaps: list[Pagemap]) -> list[Finding]:
    """Findings on DAX entries that name no page of any FS_DAX pagemap."""
    if not scanner.dax or scanner.interrupted:
        return []
    cap = scanner.caps.get(FS_DAX, Caps()).severity
    severity = "warning" if scanner.scheme.id == "unknown" else cap
    wanted = {p.address for p in pagemaps}
    found = scanner.dax.outside(severity) + scanner.dax.locks()
    return [f for f in found if f.pagemap in wanted]


def _folio_again(
    scanner: Scanner, address: int, pfn: int, pages: int
) -> Optional[tuple[Optional[int], bytes]]:
    """Index and bytes of a folio that a run's later part begins with."""
    pagemap = next(p for p in scanner.pagemaps if p.address == address)
    found = (f for f in scanner.look(pagemap, pfn, pfn + pages) if f.pfn == pfn)
    return next(((f.index, f.raw) for f in found), None)


def _look(kernel: Kernel, scanner: Scanner, fail_on: str) -> Look:
    """What a baseline must know of the audit that it is laid beside."""
    lacking = {p.evidence for p in _passes(scanner) if p.why is not None or p.lacking() is not None}
    every = len(scanner.wanted) == len(kernel.pagemaps)
    return Look(
        fail_on,
        str(_kernel_facts(kernel)["release"]),
        every and not kernel.problems and not scanner.interrupted,
        frozenset(
            (row["id"], type_)
            for row in _zonedev.rules()
            for type_ in row["types"]
            if row["requires_evidence"] and row["evidence"] in lacking
        ),
        partial(_folio_again, scanner),
    )


@takes_program_or_default
def audit(
    prog: Program,
    *,
    types: Names = None,
    pgmaps: Names = None,
    fail_on: str = "error",
    resample_ms: int = 20,
    samples: int = SAMPLES,
    quick: bool = False,
    explain: bool = False,
    cells: Optional[CellPlan] = None,
    progress: Optional[Progress] = None,
    baseline: Union[str, Sequence[str]] = (),
) -> Audit:
    """
    Judge every struct page of every pagemap.

    The result's :attr:`~zonedev.model.Audit.verdict` is "clean", "violations" or "incomplete" (pages that could not be read
    or judged, and nothing worse); every page is in exactly one of its :attr:`~zonedev.model.Audit.classes`.

    >>> result = audit()
    >>> result.verdict
    'violations'
    >>> result.findings[0].rule
    'refcount-below-mapcount'

    :param types: Only pagemaps of this memory type, or these (enumerators, with or without MEMORY_DEVICE_).
    :param pgmaps: Only this pagemap, or these: device name, resource, address or a pfn (these two also as numbers or objects).
    :param fail_on: Lowest severity ("info", "warning", "error") that makes the verdict "violations".
    :param resample_ms: Live kernels: time between samples of what looks wrong, in milliseconds.
    :param samples: Live kernels: samples that must agree, 2 or more; four times as many where other
        findings of the audit turn out to be transient.
    :param quick: Leave out the passes over more than struct pages (DAX entries, pools and lists of drivers,
        stacks of tasks).
    :param explain: Say who holds the first folio of each finding, of the 20 most severe.
    :param cells: Count classes by place, too (PagemapResult.cells), so finely.
    :param progress: Called with (pages done, pages in all).
    :param baseline: Files of findings that are accepted (docs/baseline.md): the verdict is that of all others.
    :return: The report: ``str()`` of it is the text that ``zonedev audit`` prints.
    :raises TargetError: the target cannot be audited
    :raises UsageError: no pagemap matches, or a baseline cannot be read
    """
    begin = time.monotonic()
    _check_options(fail_on, resample_ms, samples)
    wanted = {"type": _names(types), "pgmap": _names(pgmaps)}
    files = _names(baseline)
    known = read_baseline(files) if files else None
    kernel = read_kernel(prog)
    selected = _select(kernel, wanted["type"], wanted["pgmap"])
    dax, drivers = _dax_pass(kernel, selected, quick), DriverPasses(kernel, selected, quick)
    scanner = Scanner(kernel, selected, progress, dax, drivers, cells)
    scan_begin = time.monotonic()
    scanner.run()
    scan_s = time.monotonic() - scan_begin
    results = [s.result for s in scanner.wanted]
    skipped: list[dict[str, str]] = []
    on_pagemaps = _judge_pagemaps(kernel, scanner, results, skipped)
    transient: list[Finding] = []
    if kernel.live and not scanner.interrupted:
        on_pagemaps, transient = _confirm(kernel, scanner, on_pagemaps, resample_ms, samples)
    findings = [f for s in scanner.wanted for f in s.findings]
    if kernel.live:
        findings = merge_findings(findings)
    findings += _pageless(scanner, selected)
    findings = sorted(findings + on_pagemaps + scanner.extra, key=_severity_order)
    accepted = None
    if known:
        findings, accepted = accept(known, findings, results, _look(kernel, scanner, fail_on))
    waiters = None if quick else name_waiters(kernel, on_pagemaps)
    _describe(prog, findings)
    _name_devices(kernel, (*findings, *transient))
    if scanner.dax:
        scanner.dax.describe(findings)
    extra = [waiters] if waiters else []
    if explain:
        # What is new first.
        extra.append(explain_findings(kernel, sorted(findings, key=lambda f: f.accepted)))
    return Audit(
        path=_target_path(prog),
        live=kernel.live,
        kernel=_kernel_facts(kernel),
        scheme=kernel.info,
        types_from=types_from(prog),
        readers=_readers(kernel),
        pagemaps=results,
        findings=findings,
        findings_dropped=sum(s.dropped for s in scanner.wanted),
        transients=transient,
        not_applicable=_not_applicable(kernel, scanner, results)
        + _facts_lacking(results)
        + skipped,
        passes=[*(one.summary() for one in _passes(scanner)), *extra],
        kernel_log=kernel_log_warnings(prog),
        problems=list(kernel.problems),
        notes=_notes(kernel),
        scan_s=scan_s,
        total_s=time.monotonic() - begin,
        fail_on=fail_on,
        filters={name: names for name, names in wanted.items() if names},
        interrupted=scanner.interrupted,
        baseline=accepted,
    )


def _first_of(result: Audit) -> str:
    """The worst of the violations, and where it is."""
    counted = _zonedev.SEVERITIES[_zonedev.SEVERITIES.index(result.fail_on) :]
    violations = (f for f in result.findings if not f.accepted and f.severity in counted)
    worst = next(violations, None)
    if worst is None:
        return "among those that found no room in the list"
    place = f"pagemap {worst.pagemap:#x}" if worst.pfn is None else f"pfn {worst.pfn:#x}"
    return f"{worst.rule} at {place}"


@takes_program_or_default
def validate(
    prog: Program,
    *,
    types: Names = None,
    pgmaps: Names = None,
    fail_on: str = "error",
    resample_ms: int = 20,
    samples: int = SAMPLES,
    quick: bool = False,
    explain: bool = False,
    cells: Optional[CellPlan] = None,
    progress: Optional[Progress] = None,
    baseline: Union[str, Sequence[str]] = (),
) -> Audit:
    """
    Validate every struct page of every pagemap: :func:`audit()` for scripts that want an exception.

    Parameters are those of :func:`audit()`.

    :return: The audit, whose verdict is "clean", or "incomplete" where not every page could be judged.
    :raises ValidationError: the verdict is "violations"; the audit is in its ``result``
    :raises TargetError: the target cannot be audited
    :raises UsageError: no pagemap matches, or a baseline cannot be read
    """
    result: Audit = audit(
        prog,
        types=types,
        pgmaps=pgmaps,
        fail_on=fail_on,
        resample_ms=resample_ms,
        samples=samples,
        quick=quick,
        explain=explain,
        cells=cells,
        progress=progress,
        baseline=baseline,
    )
    if result.verdict == "violations":
        raise ValidationError(
            f"{result.fresh('error')} pages in violation, {result.fresh('warning')} with warnings; "
            f"first: {_first_of(result)}",
            result,
        )
    return result


def list_with_problems(prog: Program) -> tuple[list[Pagemap], list[str]]:
    """All pagemaps in the order of their pfns, and what is wrong with those that cannot be read."""
    every = _pagemaps_of(prog)
    return every.pagemaps, every.problems + every.registry.problems


@takes_program_or_default
def list_pagemaps(prog: Program) -> list[Pagemap]:
    """
    Read all pagemaps: device, memory type, PFN ranges, reference, in the order of their pfns.

    >>> list_pagemaps()[0]
    device   pmem0
    type     FS_DAX
    ...

    :raises TargetError: the registry or a pagemap cannot be read
    """
    pagemaps, problems = list_with_problems(prog)
    if problems:
        raise TargetError(problems[0])
    return Listing(pagemaps)


@takes_program_or_default
def dev_pagemap_ranges(prog: Program, pgmap: Union[Object, int]) -> list[PfnRange]:
    """
    Get the PFN ranges of a pagemap.

    They are half-open, [start_pfn, end_pfn), while the kernel's ``struct range`` has its last byte; first_pfn is the first
    pfn behind an altmap's reserve, which has a struct page.

    :param pgmap: ``struct dev_pagemap *``, or its address
    :return: The ranges; [] where there is no such pagemap.
    :raises TargetError: the registry or a pagemap cannot be read
    """
    address = int(pgmap)
    return next((p.ranges for p in list_pagemaps(prog) if p.address == address), [])


@takes_program_or_default
def folio(prog: Program, what: What, *, quick: bool = False) -> FolioReport:
    """
    Decode and judge one struct page and its folio.

    >>> folio(0x1082fc).class_
    'violation'

    :param what: A pfn, "phys:ADDRESS", or the address of a struct page or of mapped memory (0x...); the same as a
        number, or as a ``struct page *`` or ``struct folio *``.
    :param quick: Do not ask files and drivers what they say of the page.
    :return: The page, its head, its class and the findings on it: ``str()`` of it is what ``zonedev page`` prints.
    :raises TargetError: it is not ZONE_DEVICE, or cannot be read
    :raises UsageError: *what* names no page
    """
    return folio_report(read_kernel(prog), what, quick)


def open_dax_walk(prog: Program) -> DaxWalk:
    """A walk over the DAX files of a kernel; nothing is marked.

    :raises TargetError: the kernel is live, or the dump does not hold its super blocks
    """
    if prog.flags & ProgramFlags.IS_LIVE:
        raise TargetError(
            "DAX entries of a live kernel change while they are read; give a vmcore of it"
        )
    with_types(prog)
    try:
        walk = DaxWalk(prog, kernel_layout(prog), detect_scheme(prog)[0])
        walk.files()
    except (CannotWalk, MemoryError) as err:
        raise TargetError(
            f"DAX entries cannot be read: {err or 'no memory'}; what they need is in a whole vmcore and the vmlinux of its kernel"
        ) from None
    return walk


@takes_program_or_default
def dax_files(prog: Program) -> list[DaxFile]:
    """
    Find the DAX inodes of all super blocks.

    :return: Addresses of ``struct inode`` and ``struct address_space``, and the super block.
    :raises TargetError: the kernel is live, or the dump does not hold its super blocks
    """
    return Listing(open_dax_walk(prog).files())


@takes_program_or_default
def for_each_dax_entry(prog: Program, inode: Optional[int] = None) -> Iterator[DaxEntry]:
    """
    Iterate over the DAX entries of all files: which pages of which file lie where.

    :param inode: Only those of the file whose ``struct inode`` lies at this address
    :raises TargetError: the kernel is live, the dump does not hold its super blocks, or a file has more than
        16 million entries
    """
    walk = open_dax_walk(prog)
    for file in walk.files():
        if inode is None or file.inode == int(inode):
            yield from walk.entries_of(file)


@takes_program_or_default
def rules_applicability(prog: Program) -> list[Optional[str]]:
    """
    Tell which rules apply to the kernel.

    :return: Per row of the rule table: None, or why it is not applicable.
    :raises TargetError: the target cannot be audited
    """
    kernel = read_kernel(prog)
    return _zonedev.why_not(kernel.layout.layout, kernel.scheme)


@takes_program_or_default
def scheme(prog: Program) -> SchemeReport:
    """
    Tell the refcount scheme of the kernel: its evidence, its legal states, and where its free pages rest.

    :return: The report: ``str()`` of it is what ``zonedev scheme`` prints.
    :raises TargetError: the target cannot be audited
    """
    result = audit(prog, quick=True)
    return scheme_report(detect_scheme(prog)[0], result)


def tool_versions() -> dict[str, Any]:
    """Versions of what makes a report."""
    return {"zonedev": VERSION, "drgn": drgn.__version__, **_zonedev.features()}
