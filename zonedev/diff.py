# SPDX-License-Identifier: LGPL-2.1-or-later
"""What changed between two audits of a machine: findings that are new, gone or worse, and where pages went.

Owns the comparison of two reports as `zonedev audit --format json` writes them, and the check that what was read is
one; what is the same finding in both is told by stretches.py.  Says nothing of why.
Invariant: a page is "gone" only where the later report judged it; else it was not read again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Optional

from zonedev import _zonedev
from zonedev.errors import TargetError
from zonedev.kernel.strings import printable
from zonedev.kernel.vmemmap import SHIFT_MAX
from zonedev.stretches import (
    NO_RUNS,
    Key,
    Place,
    Stretch,
    against,
    by_place,
    is_worse,
    key_of,
    relocated,
    stretches_of,
)

_SCHEMA = "zonedev.audit/1"
_SIZE_MAX = 1 << 30
_FIRST = 4096

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
# Addresses are below it, and counts.
_NUMBER_END = 1 << 64
_NOT_READ = ("not-captured", "unreadable")


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
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _NUMBER_END


def _cleaned(value: Any) -> Any:
    """A report whose text can be printed."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_cleaned(one) for one in value]
    if isinstance(value, dict):
        return {_cleaned(key): _cleaned(one) for key, one in value.items()}
    return value


def _check(
    name: str, what: str, one: Any, members: Mapping[str, type], numbers: Iterable[str] = ()
) -> None:
    """That an object of the report has what is read of it."""
    good = isinstance(one, dict) and all(
        _number(one.get(key)) if type_ is int else isinstance(one.get(key), type_)
        for key, type_ in members.items()
    )
    if not good or not all(one.get(key) is None or _number(one[key]) for key in numbers):
        raise TargetError(f"{name}: {what} is not as `zonedev audit --format json` writes it")


def _check_values(name: str, finding: dict[str, Any]) -> None:
    """That a finding's numbers can be counted with, and its rules named."""
    also = finding.get("also", [])
    if not isinstance(also, list) or not all(isinstance(rule, str) for rule in also):
        raise TargetError(f"{name}: what else fired on a finding is no list of rules")
    if finding["severity"] not in _zonedev.SEVERITIES:
        raise TargetError(f"{name}: a finding has severity {finding['severity']!r}")
    if not 0 <= finding["order"] <= SHIFT_MAX or finding["pages"] < 0:
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
    try:
        return {key: _cleaned(report[key]) if key in sections else report[key] for key in report}
    except RecursionError:
        raise TargetError(f"{name}: its objects are nested too deeply") from None


def read_report(path: str, what: str = "report") -> dict[str, Any]:
    """A report out of a file.

    :param what: what errors call it
    :raises TargetError: it cannot be read, or is none
    """
    try:
        with open(path, "rb") as file:
            raw = file.read(_FIRST)
            # A core that was given instead is not read to its end.
            raw += b"" if b"\0" in raw else file.read(_SIZE_MAX)
        text = raw.decode()
        if "\0" in text:
            raise ValueError("it has zeroes")
    except OSError as err:
        raise TargetError(f"{what} {path}: {err.strerror or err}") from None
    except ValueError:
        raise TargetError(
            f"{what} {path}: not text; give what `zonedev audit --format json` wrote"
        ) from None
    try:
        report = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise TargetError(f"{what} {path}: not JSON ({err})") from None
    return checked(f"{what} {path}", report)


# ---------------------------------------------------------------- comparing


def _compare(diff: Diff, before: list[Stretch], after: list[Stretch], judged: set[Key]) -> None:
    """Fill in the findings; judged: pagemaps of which every page was judged later."""
    old, new = by_place(before), by_place(after)
    for one in after:
        for part, then in against(one, old.get(Place(one.rule, one.pagemap), NO_RUNS)):
            if one.leads and then is None:
                diff.new.append(Change(part))
            elif one.leads and then and is_worse(then, part):
                diff.worse.append(Change(part, then.refcount))
    for one in before:
        for part, now in against(one, new.get(Place(one.rule, one.pagemap), NO_RUNS)):
            if one.leads and now is None:
                gone = diff.gone if one.pagemap in judged else diff.not_read
                gone.append(Change(part, part.refcount))


def _extra(stretches: Iterable[Stretch]) -> dict[Key, int]:
    """References beyond what pages may have, of each pagemap."""
    sums: dict[Key, int] = {}
    for one in (one for one in stretches if one.leads):
        sums[one.pagemap] = sums.get(one.pagemap, 0) + (one.pages >> one.order) * max(one.extra, 0)
    return sums


def _ref_count(pagemap: Optional[dict[str, Any]]) -> Optional[int]:
    count: Optional[int] = pagemap["ref"].get("count") if pagemap else None
    return count


def _pagemaps(
    reports: tuple[dict[str, Any], dict[str, Any]], extra: tuple[dict[Key, int], dict[Key, int]]
) -> list[PagemapChange]:
    both = [{key_of(pagemap): pagemap for pagemap in report["pagemaps"]} for report in reports]
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


def _passes(report: dict[str, Any]) -> list[str]:
    """The passes that were run and that findings rest on: explanations change none."""
    passes = report.get("passes")
    listed = passes if isinstance(passes, list) else []
    return sorted(
        str(one.get("pass"))
        for one in listed
        if isinstance(one, dict) and one.get("ran") and one.get("pass") != "explain"
    )


def _leaves_out(report: dict[str, Any]) -> bool:
    """Whether findings were found that are not listed."""
    summary = report["summary"]
    found = summary.get("findings")
    return bool(summary.get("findings_dropped")) or (
        _number(found) and found > len(report["findings"])
    )


def _notes(before: dict[str, Any], after: dict[str, Any], releases: tuple[str, str]) -> list[str]:
    """Why the two may not be two reports of one machine, or not have all findings."""
    notes = []
    if releases[0] != releases[1]:
        notes.append(f"the kernels differ: {releases[0]} and {releases[1]}")
    for word, report in (("earlier", before), ("later", after)):
        if _leaves_out(report):
            notes.append(f"the {word} report leaves out findings (--severity, --rule, or too many)")
    if (before.get("filters") or {}) != (after.get("filters") or {}):
        notes.append("the reports were made with other filters (--type, --pgmap, --rule)")
    if _passes(before) != _passes(after):
        notes.append("the reports were made with other passes: some findings need one (--quick)")
    return notes


def _judged(before: dict[str, Any], after: dict[str, Any]) -> set[Key]:
    """Pagemaps of which the later report leaves no page open; one that is gone has none."""
    there = {key_of(pagemap): pagemap for pagemap in after["pagemaps"]}
    judged = {
        key
        for key, pagemap in there.items()
        if not any(pagemap["classes"].get(name) for name in _NOT_READ)
    }
    if after["summary"]["verdict"] != "incomplete":
        judged |= {key for key in map(key_of, before["pagemaps"]) if key not in there}
    return judged


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
    before = relocated(before, after["pagemaps"])
    stretches = stretches_of(before), stretches_of(after)
    releases = str(before["kernel"].get("release")), str(after["kernel"].get("release"))
    diff = Diff(
        names,
        releases,
        (before["summary"]["verdict"], after["summary"]["verdict"]),
        _pagemaps((before, after), (_extra(stretches[0]), _extra(stretches[1]))),
        notes=_notes(before, after, releases),
        fail_on=fail_on,
    )
    _compare(diff, *stretches, _judged(before, after))
    return diff
