# SPDX-License-Identifier: LGPL-2.1-or-later
"""Rules on a whole pagemap: facts of the registry, the percpu_ref and the tally against each other.

Owns the predicates of rows P01 to P09 and R09; their words, types and schemes stand with all other
rules in the table of ext/core/rules.c.  Reads no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Optional, Union

from zonedev import _zonedev
from zonedev.kernel.vmemmap import SHIFT_MAX
from zonedev.model import (
    COHERENT,
    GENERIC,
    PCI_P2PDMA,
    PRIVATE,
    Finding,
    Pagemap,
    PagemapResult,
)

_SUBSECTION = 2 << 20

# Stretches that a finding names.
_SHOWN = 4


class Unjudged(NamedTuple):
    """A pagemap rule that could not be applied, and why."""

    why: str


class Case(NamedTuple):
    """What a pagemap rule may look at."""

    result: PagemapResult
    scheme: _zonedev.Scheme
    page_shift: int
    # What registry and other pagemaps say against its ranges, or why that is not known.
    coverage: Union[list[str], Unjudged]
    # Pfns [first, end) without a struct page by the kernel's own books, or why these were not read.
    missing: Union[list[tuple[int, int]], Unjudged] = Unjudged("not looked at")

    @property
    def pagemap(self) -> Pagemap:
        """The pagemap itself."""
        return self.result.pagemap

    @property
    def complete(self) -> bool:
        """Every page was read, so sums over pages can be compared."""
        classes = self.result.classes
        return not classes["not-captured"] and not classes["unreadable"]


class Verdict(NamedTuple):
    """A pagemap rule that fired; severity None is the row's own."""

    detail: str
    severity: Optional[str] = None


Answer = Union[Verdict, Unjudged]


def _altmap_sanity(altmap: dict[str, int], pages: int) -> Iterator[Answer]:
    """An altmap that leaves no page, or is overdrawn, would hide what it is the memmap of."""
    reserve, free, alloc = (altmap.get(name, 0) for name in ("reserve", "free", "alloc"))
    if reserve + free >= pages:
        yield Verdict(f"its altmap takes {reserve + free} of {pages} pages")
    if alloc > free:
        yield Verdict(f"its altmap gave {alloc} pages out of {free}")


def _sanity(case: Case) -> Iterator[Answer]:
    pagemap = case.pagemap
    if pagemap.nr_range == 0:
        yield Verdict("nr_range is 0: the pagemap is being added", "info")
        return
    if pagemap.type not in _zonedev.TYPES:
        yield Verdict(f"memory type {pagemap.type}")
    if pagemap.type in (PRIVATE, COHERENT):
        missing = [] if pagemap.ops else ["ops"]
        if pagemap.ops and not pagemap.ops_members.get("free"):
            missing.append("free callback")
        if (
            pagemap.ops
            and pagemap.type == PRIVATE
            and not pagemap.ops_members.get("migrate_to_ram")
        ):
            missing.append("migrate_to_ram")
        if pagemap.owner == 0:
            missing.append("owner")
        if missing:
            yield Verdict("without " + ", ".join(missing))
    if pagemap.vmemmap_shift > (SHIFT_MAX if pagemap.type == GENERIC else 0):
        yield Verdict(f"vmemmap_shift is {pagemap.vmemmap_shift}")
    if pagemap.nr_range > 1 and pagemap.altmap:
        yield Verdict(f"{pagemap.nr_range} ranges with an altmap")
    if pagemap.altmap and pagemap.ranges:
        yield from _altmap_sanity(pagemap.altmap, pagemap.ranges[0].pages)
    if len(pagemap.ranges) != pagemap.nr_range:
        yield Verdict(
            f"{pagemap.nr_range - len(pagemap.ranges)} of {pagemap.nr_range} ranges make no sense"
        )
    for range_ in pagemap.ranges:
        if (range_.start_pfn | range_.end_pfn) << case.page_shift & (_SUBSECTION - 1):
            yield Verdict(
                f"pfns {range_.start_pfn:#x}-{range_.end_pfn:#x} are not aligned to a subsection"
            )


def _dead(case: Case) -> Iterator[Answer]:
    ref = case.pagemap.ref
    if ref.state == "dead":
        yield Verdict("its percpu_ref was exited")
    elif ref.state == "dying" and ref.count == 0:
        # Removal passes through this state on its way; only the tasks could tell.
        yield Verdict("its percpu_ref is dead at 0: torn down, or in the middle of it", "warning")


def _coverage(case: Case) -> Iterator[Answer]:
    if isinstance(case.coverage, Unjudged):
        yield case.coverage
        return
    for problem in case.coverage:
        yield Verdict(problem)


def _below_bias(case: Case) -> Iterator[Answer]:
    ref, pagemap = case.pagemap.ref, case.pagemap
    if ref.state != "live":
        return
    if ref.count is None or ref.approximate:
        yield Unjudged("its ref is not exact, or cannot be read")
        return
    needed = 1 + pagemap.folios
    # An mmapped P2PDMA page holds a reference of its own; allocations without a map cannot be seen here.
    if pagemap.type == PCI_P2PDMA and case.complete:
        needed += case.result.pages_mapped
    if ref.count < needed:
        yield Verdict(
            f"ref is {ref.count}, at least {needed} are held by the pagemap and its pages"
        )


def _removal_waits(case: Case) -> bool:
    """True where removal waits for pages that are held."""
    if case.scheme.id in ("E", "G", "H"):
        return case.pagemap.type in (PRIVATE, COHERENT, PCI_P2PDMA)
    # In D it waits for the pagemap's other users only, in the other schemes every held page is one.
    return case.scheme.id != "D"


def _dying_busy(case: Case) -> Iterator[Answer]:
    ref, result = case.pagemap.ref, case.result
    held = result.heads_above_idle
    if ref.state == "dying" and case.scheme.zero_when_dying and not case.pagemap.drained:
        yield Verdict(
            "its removal has begun, but most of its last pages still have a reference: it is in the middle of "
            "putting those that they were born with, or they are held",
            "warning",
        )
        return
    if ref.state == "live" or not held:
        return
    waits = _removal_waits(case)
    effect = "removal waits for them" if waits else "removal does not wait: use after free"
    count = "unknown" if ref.count is None else ref.count
    yield Verdict(f"{held} folios are held, ref is {count}: {effect}")


def _ref_of_old_pages(case: Case) -> Iterator[Answer]:
    """Schemes A and B: the least that the pages hold.  Others (a request queue) may hold more."""
    ref, result = case.pagemap.ref, case.result
    if ref.count is None or not case.complete or result.refcounts_other:
        yield Unjudged("its ref, or not all of its pages, could be read")
        return
    if case.scheme.id == "A":
        holders = sum((count - 1) * heads for count, heads in result.refcounts.items())
        what = f"its pages have {holders} references beyond their first, which hold one each"
    else:
        holders = result.pages_referenced
        what = f"{holders} pages hold one each"
    if ref.count - (1 if ref.state == "live" else 0) < holders:
        yield Verdict(f"ref is {ref.count}, and {what}")


def _ref_versus_pages(case: Case) -> Iterator[Answer]:
    ref, pagemap = case.pagemap.ref, case.pagemap
    if case.scheme.id in ("A", "B"):
        yield from _ref_of_old_pages(case)
        return
    by_use = case.scheme.private_refs_pgmap and pagemap.type in (PRIVATE, COHERENT)
    by_page = case.scheme.id == "C" and pagemap.type in (PRIVATE, GENERIC, PCI_P2PDMA)
    if not by_use and not by_page:
        return
    if ref.count is None or ref.approximate:
        yield Unjudged("its ref is not exact, or cannot be read")
        return
    if not case.complete:
        yield Unjudged("not all of its pages were read")
        return
    held = ref.count - (1 if ref.state == "live" else 0)
    # A page in use, or (scheme C) every folio that is not at 0 holds one; in C lookups and
    # allocations come on top.
    holders = case.result.pages_referenced >> (
        0 if by_use else min(pagemap.vmemmap_shift, SHIFT_MAX)
    )
    if held != holders if by_use else held < holders:
        yield Verdict(f"ref is {ref.count}, and {holders} pages hold one each")


def _missing(case: Case) -> Iterator[Answer]:
    if isinstance(case.missing, Unjudged):
        yield case.missing
        return
    # Removal takes the memmap away before the entry in the registry.
    if case.pagemap.ref.state != "live" or not case.missing:
        return
    first = [f"{start:#x}-{end - 1:#x}" for start, end in case.missing[:_SHOWN]]
    more = len(case.missing) - len(first)
    pages = sum(end - start for start, end in case.missing)
    yield Verdict(f"{pages} pages: pfns {', '.join(first)}" + (f" and {more} more" if more else ""))


def _altmap_overrun(case: Case) -> Iterator[Answer]:
    alloc = (case.pagemap.altmap or {}).get("alloc", 0)
    if case.pagemap.ref.state == "dead" and alloc:
        yield Verdict(f"its altmap still has {alloc} pages out")


def _unreadable(case: Case) -> Iterator[Answer]:
    for reason, count in case.result.reasons.items():
        yield Verdict(f"{count} struct pages: {reason}")


_PREDICATES: dict[str, Callable[[Case], Iterator[Answer]]] = {
    "pgmap-sanity": _sanity,
    "dead-in-registry": _dead,
    "registry-coverage": _coverage,
    "ref-below-bias": _below_bias,
    "dying-busy": _dying_busy,
    "ref-versus-pages": _ref_versus_pages,
    "memmap-missing": _missing,
    "altmap-overrun": _altmap_overrun,
    "memmap-unreadable": _unreadable,
}


def judge_pagemap(case: Case, cap: str) -> tuple[list[Finding], list[tuple[str, str]]]:
    """Findings on one pagemap, in the order of the table, no severity above *cap*; and the rules
    that could not be applied, with why."""
    findings: list[Finding] = []
    unjudged: list[tuple[str, str]] = []
    limit = _zonedev.SEVERITIES.index(cap)
    for row in _zonedev.rules():
        predicate = _PREDICATES.get(row["id"]) if row["scope"] == "pagemap" else None
        known = case.pagemap.type in row["types"] or case.pagemap.type not in _zonedev.TYPES
        if predicate is None or not known or case.scheme.id not in row["schemes"]:
            continue
        for verdict in predicate(case):
            if isinstance(verdict, Unjudged):
                unjudged.append((row["id"], verdict.why))
                continue
            severity = verdict.severity or row["severity"]
            severity = _zonedev.SEVERITIES[min(limit, _zonedev.SEVERITIES.index(severity))]
            findings.append(
                Finding(row["id"], severity, case.pagemap.address, detail=verdict.detail)
            )
    return findings, unjudged


def contradicted_types(
    results: list[PagemapResult], scheme: _zonedev.Scheme
) -> dict[str, tuple[int, int]]:
    """Memory types most of whose idle-looking heads rest at another count than the scheme's.

    type -> (count that most rest at, percent of them).  Most folios of the type, over all its pagemaps,
    must agree: a few leaked pages, or a pagemap in full use, cannot pass for another scheme.
    """
    contradicted = {}
    for type_ in _zonedev.TYPES:
        idle = scheme.idle(type_)
        if idle is None:
            continue
        # The pages of a dying pagemap may all rest at 0.
        live = [r for r in results if r.pagemap.ref.state == "live"]
        # What a pagemap chose for itself (scheme F1) contradicts nothing.
        mine = [r for r in live if r.pagemap.type == type_ and r.pagemap.init_busy is None]
        heads = sum(sum(r.refcounts.values()) + r.refcounts_other for r in mine)
        other = sum(r.idle_looking["1" if idle == 0 else "0"] for r in mine)
        if other * 2 > heads:
            contradicted[type_] = (1 - idle, 100 * other // heads)
    return contradicted
