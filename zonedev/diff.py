# SPDX-License-Identifier: LGPL-2.1-or-later
"""What changed between two audits of a machine: findings that are new, gone or worse, and where pages went.

Owns the comparison of two reports as `zonedev audit --format json` writes them, and the check that what was read is
one; says nothing of why.
Invariant: a page is "gone" only where the later report judged it; else it was not read again.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Optional

from zonedev import _zonedev
from zonedev.errors import TargetError
from zonedev.kernel.vmemmap import SHIFT_MAX

_SCHEMA = "zonedev.audit/1"
_SIZE_MAX = 1 << 30

# A report names a finding by these; numbers that may be missing (of a whole pagemap) are None.
_FINDING = {
    "rule": str,
    "severity": str,
    "pagemap": int,
    "count": int,
    "pages": int,
    "order": int,
}
_NUMBERS = ("pfn", "refcount", "expected", "mapcount")
_PAGEMAP = {"address": int, "type": str, "pages": int, "classes": dict, "ranges": list, "ref": dict}
_PAGES_MAX = 1 << 64
_NOT_READ = ("not-captured", "unreadable")


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


class Change(NamedTuple):
    """A stretch of the later report, or of the earlier one where it is gone; before: its refcount then."""

    stretch: Stretch
    before: Optional[int] = None


@dataclass
class PagemapChange:
    """A pagemap in both reports; None where it was not there, or a number was not known."""

    key: Key
    device: Optional[str]
    classes: tuple[Optional[dict[str, int]], Optional[dict[str, int]]]
    ref: tuple[Optional[int], Optional[int]]
    extra: tuple[int, int] = (0, 0)
    """References beyond what pages may have, in findings of each."""

    @property
    def changed(self) -> bool:
        """Whether there is anything to tell."""
        return any(one != other for one, other in (self.classes, self.ref, self.extra))


@dataclass
class Diff:
    """Two reports compared."""

    names: tuple[str, str]
    kernels: tuple[str, str]
    verdicts: tuple[str, str]
    pagemaps: list[PagemapChange] = field(default_factory=list)
    new: list[Change] = field(default_factory=list)
    worse: list[Change] = field(default_factory=list)
    gone: list[Change] = field(default_factory=list)
    not_read: list[Change] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    fail_on: str = "error"

    @property
    def exit_code(self) -> int:
        """1: something at or above fail_on is new or worse; 3: not all could be compared; 0."""
        severities = _zonedev.SEVERITIES
        least = severities.index(self.fail_on)
        if any(severities.index(c.stretch.severity) >= least for c in (*self.new, *self.worse)):
            return 1
        return 3 if "incomplete" in self.verdicts or self.not_read or self.notes else 0


# ---------------------------------------------------------------- reading


def _number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check(
    name: str, what: str, one: Any, members: Mapping[str, type], numbers: Iterable[str] = ()
) -> None:
    """That an object of the report has what is read of it."""
    good = isinstance(one, dict) and all(
        isinstance(one.get(key), type_) and not isinstance(one[key], bool)
        for key, type_ in members.items()
    )
    if not good or not all(one.get(key) is None or _number(one[key]) for key in numbers):
        raise TargetError(f"{name}: {what} is not as `zonedev audit --format json` writes it")


def _check_values(name: str, finding: dict[str, Any]) -> None:
    """That a finding's numbers can be counted with."""
    if finding["severity"] not in _zonedev.SEVERITIES:
        raise TargetError(f"{name}: a finding has severity {finding['severity']!r}")
    if not 0 <= finding["order"] <= SHIFT_MAX or not 0 <= finding["pages"] < _PAGES_MAX:
        raise TargetError(
            f"{name}: a finding has {finding['pages']} pages of order {finding['order']}"
        )


def checked(name: str, report: Any) -> dict[str, Any]:
    """A report that has what is compared.

    :param name: for errors
    :raises TargetError: it is none, or of another version
    """
    schema = report.get("schema") if isinstance(report, dict) else None
    if schema != _SCHEMA:
        found = f"its schema is {schema!r}" if schema else "it has no schema"
        raise TargetError(f"{name}: not a report of `zonedev audit --format json` ({found})")
    sections = {"pagemaps": list, "findings": list, "summary": dict, "kernel": dict}
    _check(name, "the report", report, sections)
    _check(name, "the summary", report["summary"], {"verdict": str})
    for pagemap in report["pagemaps"]:
        _check(name, "a pagemap", pagemap, _PAGEMAP)
        if not isinstance(pagemap.get("device"), (str, type(None))):
            raise TargetError(f"{name}: a pagemap's device is no name")
        _check(name, "a pagemap's reference", pagemap["ref"], {}, ("count",))
        for range_ in pagemap["ranges"]:
            _check(name, "a range", range_, {"start_pfn": int, "end_pfn": int})
        _check(
            name, "a pagemap's classes", pagemap["classes"], dict.fromkeys(_zonedev.CLASSES, int)
        )
    for finding in report["findings"]:
        _check(name, "a finding", finding, _FINDING, _NUMBERS)
        _check_values(name, finding)
    return dict(report)


def read_report(path: str) -> dict[str, Any]:
    """A report out of a file.

    :raises TargetError: it cannot be read, or is none
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_SIZE_MAX)
    except OSError as err:
        raise TargetError(f"report {path}: {err.strerror or err}") from None
    except UnicodeDecodeError:
        raise TargetError(
            f"report {path}: not text; give what `zonedev audit --format json` wrote"
        ) from None
    try:
        report = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise TargetError(f"report {path}: not JSON ({err})") from None
    return checked(f"report {path}", report)


# ---------------------------------------------------------------- comparing


def _key(pagemap: dict[str, Any]) -> Key:
    starts = [range_["start_pfn"] for range_ in pagemap["ranges"]]
    return Key(pagemap["type"], min(starts, default=0))


def _stretches(report: dict[str, Any]) -> list[Stretch]:
    keys = {pagemap["address"]: _key(pagemap) for pagemap in report["pagemaps"]}
    return [
        Stretch(
            *(f["rule"], f["severity"], keys.get(f["pagemap"], Key("unknown", f["pagemap"]))),
            *(f.get("pfn"), (f.get("pfn") or 0) + f["pages"]),
            *(f.get("refcount"), f.get("expected"), f["order"]),
        )
        for f in report["findings"]
    ]


class _Place(NamedTuple):
    """What is compared with each other: one rule on the pages of one memory type, or on one pagemap."""

    rule: str
    pagemap: Key


def _by_place(stretches: Iterable[Stretch]) -> dict[_Place, list[Stretch]]:
    """Stretches of each rule in rising order."""
    places: dict[_Place, list[Stretch]] = {}
    for one in stretches:
        places.setdefault(_Place(one.rule, one.pagemap), []).append(one)
    for mine in places.values():
        mine.sort(key=lambda one: (-1 if one.start is None else one.start, one.end))
    return places


def _overlaps(one: Stretch, others: Sequence[Stretch]) -> Iterator[Stretch]:
    """Those of some disjoint stretches in rising order that share pages with one."""
    assert one.start is not None
    i = (
        bisect_right([-1 if other.start is None else other.start for other in others], one.start)
        - 1
    )
    for other in others[max(i, 0) :]:
        if other.start is None or other.end <= one.start:
            continue
        if other.start >= one.end:
            return
        yield other


def _against(
    one: Stretch, others: Sequence[Stretch]
) -> Iterator[tuple[Stretch, Optional[Stretch]]]:
    """The parts of a stretch, each with the one of the others that it is a part of, or None."""
    if one.start is None:
        yield one, next((other for other in others if other.start is None), None)
        return
    at = one.start
    for other in _overlaps(one, others):
        assert other.start is not None
        if at < other.start:
            yield one._replace(start=at, end=other.start), None
        start = max(at, other.start)
        at = min(one.end, other.end)
        yield one._replace(start=start, end=at), other
    if at < one.end:
        yield one._replace(start=at), None


def _worse(before: Stretch, after: Stretch) -> bool:
    severities = _zonedev.SEVERITIES
    if severities.index(after.severity) > severities.index(before.severity):
        return True
    return abs(after.extra) > abs(before.extra)


def _compare(diff: Diff, before: list[Stretch], after: list[Stretch], lost: set[Key]) -> None:
    old, new = _by_place(before), _by_place(after)
    for place, stretches in new.items():
        for stretch in stretches:
            for part, then in _against(stretch, old.get(place, [])):
                if then is None:
                    diff.new.append(Change(part))
                elif _worse(then, part):
                    diff.worse.append(Change(part, then.refcount))
    for place, stretches in old.items():
        for stretch in stretches:
            for part, now in _against(stretch, new.get(place, [])):
                if now is None:
                    gone = diff.not_read if place.pagemap in lost else diff.gone
                    gone.append(Change(part, part.refcount))


def _extra(stretches: Iterable[Stretch]) -> dict[Key, int]:
    """References beyond what pages may have, of each pagemap."""
    sums: dict[Key, int] = {}
    for one in stretches:
        sums[one.pagemap] = sums.get(one.pagemap, 0) + (one.pages >> one.order) * max(one.extra, 0)
    return sums


def _ref_count(pagemap: Optional[dict[str, Any]]) -> Optional[int]:
    count: Optional[int] = pagemap["ref"].get("count") if pagemap else None
    return count


def _pagemaps(
    reports: tuple[dict[str, Any], dict[str, Any]], extra: tuple[dict[Key, int], dict[Key, int]]
) -> list[PagemapChange]:
    both = [{_key(pagemap): pagemap for pagemap in report["pagemaps"]} for report in reports]
    changes = []
    for key in dict.fromkeys([*both[0], *both[1]]):
        one, other = (side.get(key) for side in both)
        newest = other or one
        assert newest is not None
        changes.append(
            PagemapChange(
                key,
                newest.get("device"),
                (one["classes"] if one else None, other["classes"] if other else None),
                (_ref_count(one), _ref_count(other)),
                (extra[0].get(key, 0), extra[1].get(key, 0)),
            )
        )
    return changes


def _notes(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Why the two may not be two reports of one machine, or not have all findings."""
    notes = []
    releases = [str(report["kernel"].get("release")) for report in (before, after)]
    if releases[0] != releases[1]:
        notes.append(f"the kernels differ: {releases[0]} and {releases[1]}")
    for word, report in (("earlier", before), ("later", after)):
        if report["summary"].get("findings_dropped"):
            notes.append(f"the {word} report does not have all its findings")
    if (before.get("filters") or {}) != (after.get("filters") or {}):
        notes.append("the reports were made with other --type or --pgmap")
    return notes


def compare_reports(
    before: dict[str, Any],
    after: dict[str, Any],
    names: tuple[str, str] = ("before", "after"),
    fail_on: str = "error",
) -> Diff:
    """Compare two reports (as audit_dict() makes them, or read_report() reads them).

    :param names: what they are called in the result
    :param fail_on: severity from which what is new or worse makes exit_code 1
    """
    stretches = _stretches(before), _stretches(after)
    lost = {
        _key(pagemap)
        for pagemap in after["pagemaps"]
        if any(pagemap["classes"].get(name) for name in _NOT_READ)
    }
    diff = Diff(
        names,
        (str(before["kernel"].get("release")), str(after["kernel"].get("release"))),
        (before["summary"]["verdict"], after["summary"]["verdict"]),
        _pagemaps((before, after), (_extra(stretches[0]), _extra(stretches[1]))),
        notes=_notes(before, after),
        fail_on=fail_on,
    )
    _compare(diff, *stretches, lost)
    return diff
