# SPDX-License-Identifier: LGPL-2.1-or-later
"""Findings as pages: which rule fired on which pages of which pagemap, wherever the runs of a report begin and end.

Owns what makes two findings of two reports the same one, and where the pagemap of an earlier report is in a later
one; reads no file and prints nothing.  Reports are dicts as audit_dict() makes them.
Invariant: a stretch's pages are those of one finding; pages [start, end) are pfns.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Optional

from zonedev import _zonedev


class Key(NamedTuple):
    """A pagemap, as long as it is that of one device: its type, and where it begins."""

    type: str
    start_pfn: int


class Stretch(NamedTuple):
    """Pages [start, end) with one finding; start None: the pagemap itself.  refcount and expected are a folio's."""

    rule: str
    severity: str
    pagemap: Key
    start: Optional[int]
    end: int
    refcount: Optional[int]
    expected: Optional[int]
    order: int
    leads: bool = True
    """Names the finding; False: another rule does, and this one fired, too."""

    @property
    def pages(self) -> int:
        """How many; 0 for a finding on the pagemap itself."""
        return 0 if self.start is None else self.end - self.start

    @property
    def extra(self) -> int:
        """References of a folio beyond what it may have."""
        if self.refcount is None or self.expected is None:
            return 0
        return self.refcount - self.expected


def key_of(pagemap: dict[str, Any]) -> Key:
    """What a pagemap of a report is known by."""
    starts = [range_["start_pfn"] for range_ in pagemap["ranges"]]
    return Key(pagemap["type"], min(starts, default=0))


def stretches_of(report: dict[str, Any]) -> list[Stretch]:
    """A stretch for each rule that fired on a finding's pages."""
    keys = {pagemap["address"]: key_of(pagemap) for pagemap in report["pagemaps"]}
    found = []
    for f in report["findings"]:
        start: Optional[int] = f.get("pfn")
        pagemap = keys.get(f["pagemap"], Key("unknown", f["pagemap"]))
        pages = (start, (start or 0) + f["pages"], f.get("refcount"), f.get("expected"), f["order"])
        found.append(Stretch(f["rule"], f["severity"], pagemap, *pages))
        found += [
            Stretch(rule, f["severity"], pagemap, *pages, leads=False) for rule in f.get("also", ())
        ]
    return found


class Place(NamedTuple):
    """What is compared with each other: one rule on the pages of one pagemap, or on that itself."""

    rule: str
    pagemap: Key


class Runs:
    """The stretches of one place in rising order, those of the pagemap itself apart."""

    def __init__(self, stretches: Iterable[Stretch]) -> None:
        runs = [(one.start, one) for one in stretches if one.start is not None]
        runs.sort(key=lambda run: (run[0], run[1].end))
        self.starts = [start for start, _ in runs]
        self.runs = [one for _, one in runs]
        self.whole = [one for one in stretches if one.start is None]

    def overlaps(self, start: int, end: int) -> Iterator[tuple[int, int, Stretch]]:
        """Which pages of [start, end) are in which run: (first, last + 1, run), each page once."""
        for i in range(max(bisect_right(self.starts, start) - 1, 0), len(self.runs)):
            if self.starts[i] >= end:
                return
            first, last = max(start, self.starts[i]), min(end, self.runs[i].end)
            if first < last:
                yield first, last, self.runs[i]
                start = last


NO_RUNS = Runs(())


def by_place(stretches: Iterable[Stretch]) -> dict[Place, Runs]:
    """The stretches of each place."""
    places: dict[Place, list[Stretch]] = {}
    for one in stretches:
        places.setdefault(Place(one.rule, one.pagemap), []).append(one)
    return {place: Runs(mine) for place, mine in places.items()}


def against(one: Stretch, others: Runs) -> Iterator[tuple[Stretch, Optional[Stretch]]]:
    """The parts of a stretch, each with the one of the others that it is a part of, or None."""
    if one.start is None:
        yield one, next(iter(others.whole), None)
        return
    at = one.start
    for first, last, other in others.overlaps(one.start, one.end):
        if at < first:
            yield one._replace(start=at, end=first), None
        yield one._replace(start=first, end=last), other
        at = last
    if at < one.end:
        yield one._replace(start=at), None


def is_worse(before: Stretch, after: Stretch) -> bool:
    """True where a finding became more severe, or has more references beyond what may be (or fewer)."""
    rank = _zonedev.SEVERITIES.index
    if rank(after.severity) > rank(before.severity):
        return True
    return abs(after.extra) > abs(before.extra)


# ---------------------------------------------------------------- pagemaps that moved

Move = tuple[dict[str, Any], dict[str, Any]]
"""A pagemap as the earlier report has it, and as the later one has it."""


def _unmatched(
    pagemaps: Iterable[dict[str, Any]], others: Iterable[dict[str, Any]]
) -> dict[tuple[object, ...], list[dict[str, Any]]]:
    """By type and device, the pagemaps that do not begin where one of the others does."""
    keys = {key_of(pagemap) for pagemap in others}
    named: dict[tuple[object, ...], list[dict[str, Any]]] = {}
    for pagemap in pagemaps:
        if key_of(pagemap) not in keys:
            named.setdefault((pagemap["type"], pagemap.get("device")), []).append(pagemap)
    return named


def moves(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[Move]:
    """The pagemaps that lie elsewhere now: the only one of a device and memory type there was, and there is."""
    there = _unmatched(after, before)
    return [
        (mine[0], there[name][0])
        for name, mine in _unmatched(before, after).items()
        if len(mine) == 1 and len(there.get(name, ())) == 1
    ]


def offsets_of(ranges: list[dict[str, Any]], start: int, end: int) -> Iterator[tuple[int, int]]:
    """Where pfns [start, end) are in a pagemap: pages [first, last) of it, its ranges counted one after the other."""
    at = 0
    for range_ in ranges:
        first, last = max(start, range_["start_pfn"]), min(end, range_["end_pfn"])
        if first < last:
            yield at + first - range_["start_pfn"], at + last - range_["start_pfn"]
        at += range_["end_pfn"] - range_["start_pfn"]


def pfns_of(ranges: list[dict[str, Any]], start: int, end: int) -> Iterator[tuple[int, int]]:
    """The pfns [first, last) of pages [start, end) of a pagemap; what is behind its end is left out."""
    at = 0
    for range_ in ranges:
        pages = range_["end_pfn"] - range_["start_pfn"]
        first, last = max(start, at), min(end, at + pages)
        if first < last:
            yield range_["start_pfn"] + first - at, range_["start_pfn"] + last - at
        at += pages


def _moved(finding: dict[str, Any], move: Move) -> Iterator[dict[str, Any]]:
    """A finding on a pagemap that moved: on the same pages of it, as far as these are still there."""
    if finding.get("pfn") is None:
        yield finding
        return
    before, after = (pagemap["ranges"] for pagemap in move)
    for offsets in offsets_of(before, finding["pfn"], finding["pfn"] + finding["pages"]):
        for start, end in pfns_of(after, *offsets):
            yield {**finding, "pfn": start, "pages": end - start}


def relocated(report: dict[str, Any], pagemaps: list[dict[str, Any]]) -> dict[str, Any]:
    """A report as if its pagemaps lay where those of a later one do.

    A pagemap is the same one where its memory type and first pfn are; else where its type and device are, if
    there is one such pagemap before and one after.
    """
    moved = {move[0]["address"]: move for move in moves(report["pagemaps"], pagemaps)}
    if not moved:
        return report
    then = [
        {**p, "ranges": moved[p["address"]][1]["ranges"]} if p["address"] in moved else p
        for p in report["pagemaps"]
    ]
    found = [
        one
        for f in report["findings"]
        for one in (_moved(f, moved[f["pagemap"]]) if f["pagemap"] in moved else (f,))
    ]
    return {**report, "pagemaps": then, "findings": found}
