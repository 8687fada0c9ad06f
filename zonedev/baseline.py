# SPDX-License-Identifier: LGPL-2.1-or-later
"""Known findings that are accepted, so that an audit tells what is new.

Owns the files that name them (a report of `zonedev audit --format json`, or lines of rules and places), and which
findings of an audit they mean; what makes two findings the same one is told by stretches.py.
Invariant: what a file does not name for certain is new.  Nothing here changes what was read and what was not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Callable, NamedTuple, Optional, Union

from zonedev import _zonedev
from zonedev.diff import read_report
from zonedev.errors import TargetError, UsageError
from zonedev.kernel.strings import printable
from zonedev.model import BaselineResult, Finding, Pagemap, PagemapResult, short_type
from zonedev.stretches import (
    NO_RUNS,
    Key,
    Place,
    Runs,
    Stretch,
    against,
    by_place,
    is_worse,
    key_of,
    offsets_of,
    pfns_of,
    relocated,
    stretches_of,
)

_SIZE_MAX = 1 << 24
_NOT_READ = ("not-captured", "unreadable")
_RANK = _zonedev.SEVERITIES.index

_NUMBER = r"(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,19})"
_RANGE = re.compile(rf"{_NUMBER}(?:-{_NUMBER})?")
_EVERYWHERE, _BY_PFN = "*", "pfn:"

Again = Callable[[int, int, int], Optional[tuple[Optional[int], bytes]]]
"""Index and bytes of the struct page of a folio: of which pagemap, its first pfn, its pages."""


class Line(NamedTuple):
    """A line of a file: the rule that is accepted on pages [first, end) of a place; end None: wherever it fires there.

    place: a device, a resource, a memory type, `*`, or `pfn:` (pages are pfns then).
    """

    text: str
    rule: str
    place: str
    first: int
    end: Optional[int]

    def means(self, pagemap: Pagemap) -> bool:
        """Whether a pagemap is one that it names."""
        type_ = pagemap.type
        names = (_EVERYWHERE, _BY_PFN, pagemap.device, pagemap.resource, type_)
        return self.place in names or self.place.upper() == short_type(type_)

    def pfns(self, pagemap: Pagemap) -> list[tuple[int, int]]:
        """The pfns [start, end) of a pagemap that it names."""
        ranges = [{"start_pfn": r.start_pfn, "end_pfn": r.end_pfn} for r in pagemap.ranges]
        if self.end is None:
            return [(r["start_pfn"], r["end_pfn"]) for r in ranges]
        if self.place != _BY_PFN:
            return list(pfns_of(ranges, self.first, self.end))
        cut = [(max(self.first, r["start_pfn"]), min(self.end, r["end_pfn"])) for r in ranges]
        return [(start, end) for start, end in cut if start < end]


@dataclass
class Baseline:
    """What the files of a baseline say; entries of reports are their findings."""

    files: list[str]
    reports: list[dict[str, Any]]
    lines: list[Line]


# ---------------------------------------------------------------- reading


def _number(text: str) -> int:
    return int(text, 16 if text[:2].lower() == "0x" else 10)


def _place(where: str, word: str) -> tuple[str, int, Optional[int]]:
    """A place, and pages [first, end) of it; end None: all."""
    by_pfn = word.startswith(_BY_PFN)
    place, numbers = (_BY_PFN, word[len(_BY_PFN) :]) if by_pfn else word.rpartition("+")[::2]
    match = _RANGE.fullmatch(numbers) if place else None
    if match is None and not by_pfn and not numbers[:1].isdigit():
        return word, 0, None
    first = _number(match[1]) if match else 0
    last = _number(match[2]) if match and match[2] else first
    if match is None or last < first or place == _EVERYWHERE:
        raise UsageError(f"{where}: {printable(word[:80])!r} names no pages")
    return place, first, last + 1


def _line(where: str, text: str, rules: dict[str, str]) -> Line:
    words = text.split()
    if len(words) != 2:
        raise UsageError(
            f"{where}: {printable(text[:80])!r} is not RULE PLACE; a place is DEVICE, DEVICE+PAGE, DEVICE+FIRST-LAST, "
            "pfn:FIRST-LAST, a memory type, or *"
        )
    rule = rules.get(words[0])
    if rule is None:
        raise UsageError(f"{where}: no rule {printable(words[0][:80])!r}; zonedev rules lists them")
    return Line(text, rule, *_place(where, words[1]))


def _lines(path: str, text: str) -> list[Line]:
    rules = {name: row["id"] for row in _zonedev.rules() for name in (row["id"], row["number"])}
    rules.pop("-", None)
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#", 1)[0].strip()
        if words:
            lines.append(_line(f"baseline {path}, line {number}", words, rules))
    return lines


def _text_of(path: str) -> str:
    """The first bytes of a file, as text."""
    try:
        with open(path, "rb") as file:
            raw = file.read(_SIZE_MAX + 1)
        text = raw.decode()
    except OSError as err:
        raise UsageError(f"baseline {path}: {err.strerror or err}") from None
    except UnicodeDecodeError:
        text = "\0"
    if text.lstrip().startswith("{"):
        return text
    if "\0" in text or len(raw) > _SIZE_MAX:
        raise UsageError(
            f"baseline {path}: neither a report of `zonedev audit --format json` nor lines of RULE PLACE"
        )
    return text


def read_baseline(paths: Sequence[str]) -> Baseline:
    """What files accept.

    :raises UsageError: one cannot be read, or is no baseline
    """
    baseline = Baseline([printable(path) for path in paths], [], [])
    for path in paths:
        text = _text_of(path)
        if text.lstrip().startswith("{"):
            try:
                baseline.reports.append(read_report(path, "baseline"))
            except TargetError as err:
                raise UsageError(str(err)) from None
        else:
            baseline.lines += _lines(path, text)
    return baseline


# ---------------------------------------------------------------- what is accepted where


def _key(pagemap: Pagemap) -> Key:
    return Key(pagemap.type, min((r.start_pfn for r in pagemap.ranges), default=0))


def _ranges(pagemap: Pagemap) -> list[dict[str, Any]]:
    return [{"start_pfn": r.start_pfn, "end_pfn": r.end_pfn} for r in pagemap.ranges]


def _entry(rule: str, place: str, pages: int) -> dict[str, Any]:
    return {"rule": rule, "place": place, "pages": pages}


class _ByReport:
    """What a report accepts: the pages that had the finding, where it did not become worse since."""

    def __init__(self, report: dict[str, Any], pagemaps: list[Pagemap], least: int) -> None:
        there = [
            {"address": p.address, "type": p.type, "device": p.device, "ranges": _ranges(p)}
            for p in pagemaps
        ]
        report = relocated(report, there)
        self._pagemaps = {key_of(p): p for p in report["pagemaps"]}
        self._stretches = [s for s in stretches_of(report) if _RANK(s.severity) >= least]
        self._places = by_place(self._stretches)
        self._left = {place: len(runs.whole) for place, runs in self._places.items()}

    def __len__(self) -> int:
        return sum(one.leads for one in self._stretches)

    def pages(self, one: Stretch) -> list[tuple[int, int]]:
        """Of the pages of a stretch, those that it accepts."""
        assert one.start is not None
        runs = self._places.get(Place(one.rule, one.pagemap), NO_RUNS)
        overlaps = runs.overlaps(one.start, one.end)
        return [(first, last) for first, last, then in overlaps if not is_worse(then, one)]

    def whole(self, one: Stretch) -> bool:
        """Whether it accepts a finding on the pagemap itself: as many as it has."""
        place = Place(one.rule, one.pagemap)
        then = next(iter(self._places.get(place, NO_RUNS).whole), None)
        if then is None or not self._left[place] or is_worse(then, one):
            return False
        self._left[place] -= 1
        return True

    def gone(self, now: dict[Place, Runs]) -> Iterator[tuple[Optional[Key], dict[str, Any]]]:
        """What it accepts and is no longer there, each with its pagemap."""
        for one in (one for one in self._stretches if one.leads):
            place = Place(one.rule, one.pagemap)
            for part, then in against(one, now.get(place, NO_RUNS)):
                if then is None:
                    yield one.pagemap, _entry(one.rule, self._words(part), part.pages)

    def _words(self, one: Stretch) -> str:
        """The place of a stretch as a line of a file has it."""
        pagemap = self._pagemaps.get(one.pagemap, {})
        name = pagemap.get("device") or short_type(one.pagemap.type).lower()
        if one.start is None:
            return str(name)
        offset, end = next(offsets_of(pagemap.get("ranges", []), one.start, one.end), (0, 0))
        last = f"-{end - 1:#x}" if end - offset > 1 else ""
        return f"{name}+{offset:#x}{last}"


class _ByLines:
    """What lines accept: every finding of the rule at the place."""

    def __init__(self, lines: list[Line], pagemaps: list[Pagemap]) -> None:
        self._lines = lines
        self._used: set[Line] = set()
        self._named: dict[Line, list[Key]] = {line: [] for line in lines}
        self._places: dict[Place, list[tuple[int, int, Line]]] = {}
        for line in lines:
            for pagemap in filter(line.means, pagemaps):
                pfns = line.pfns(pagemap)
                if pfns:
                    self._named[line].append(_key(pagemap))
                place = self._places.setdefault(Place(line.rule, _key(pagemap)), [])
                place += [(start, end, line) for start, end in pfns]

    def __len__(self) -> int:
        return len(self._lines)

    def pages(self, one: Stretch) -> list[tuple[int, int]]:
        """Of the pages of a stretch, those that are accepted."""
        assert one.start is not None
        found = []
        for start, end, line in self._places.get(Place(one.rule, one.pagemap), ()):
            first, last = max(start, one.start), min(end, one.end)
            if first < last:
                self._used.add(line)
                found.append((first, last))
        return found

    def whole(self, one: Stretch) -> bool:
        """Whether a finding on the pagemap itself is accepted: by lines that name no pages."""
        lines = self._places.get(Place(one.rule, one.pagemap), ())
        mine = [line for _, _, line in lines if line.end is None]
        self._used.update(mine)
        return bool(mine)

    def gone(self, now: dict[Place, Runs]) -> Iterator[tuple[Optional[Key], dict[str, Any]]]:
        """Lines that no finding was met by, with each pagemap that they name."""
        for line in self._lines:
            if line in self._used:
                continue
            entry = _entry(line.rule, line.text.split()[1], (line.end or line.first) - line.first)
            for key in self._named[line] or (None,):
                yield key, entry


# ---------------------------------------------------------------- accepting


class Look(NamedTuple):
    """How an audit looked at what a baseline may mean.

    complete: every pagemap was looked at and none may be missing; lacking: rules and memory types that could not be
    judged for want of evidence; again: a folio's index and bytes.
    """

    fail_on: str
    release: str
    complete: bool
    lacking: frozenset[tuple[str, str]]
    again: Again


def _stretches(findings: Iterable[Finding], keys: dict[int, Key]) -> Iterator[Stretch]:
    """The same as stretches_of(), of findings."""
    for f in findings:
        one = _stretch(f, keys)
        yield one
        yield from (one._replace(rule=rule, leads=False) for rule in f.also)


def _stretch(f: Finding, keys: dict[int, Key]) -> Stretch:
    pagemap = keys.get(f.pagemap, Key("unknown", f.pagemap))
    end = (f.pfn or 0) + f.pages
    return Stretch(f.rule, f.severity, pagemap, f.pfn, end, f.refcount, f.expected, f.order)


def _joined(pages: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Ranges that may overlap, as ranges that do not."""
    begin = end = 0
    for start, stop in sorted(pages):
        if start > end or begin == end:
            if begin < end:
                yield begin, end
            begin, end = start, stop
        end = max(end, stop)
    if begin < end:
        yield begin, end


def _folios(finding: Finding, pages: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The folios [first, last) of a finding of which every page is in one of the ranges."""
    assert finding.pfn is not None
    whole = finding.pages
    for start, end in _joined(pages):
        first, last = start - finding.pfn, end - finding.pfn
        if finding.count == 1:
            if first == 0 and last == whole:
                yield 0, 1
            continue
        first = -(-first >> finding.order)
        last = finding.count if last == whole else last >> finding.order
        if first < last:
            yield first, last


def _part(finding: Finding, first: int, last: int, again: Again) -> Finding:
    """Folios [first, last) of a run."""
    if (first, last) == (0, finding.count):
        return finding
    assert finding.pfn is not None
    skipped, end = first << finding.order, min(last << finding.order, finding.pages)
    part = replace(finding, pfn=finding.pfn + skipped, count=last - first, pages=end - skipped)
    if first:
        part.folio_pfn += skipped
        # The run has those of its first folio.
        seen = again(finding.pagemap, finding.pfn + skipped, 1 << finding.order)
        part.index, part.raw = seen or (None, b"")
    return part


def _divided(
    finding: Finding, accepted: Iterable[tuple[int, int]], again: Again
) -> Iterator[Finding]:
    """A finding as what is accepted of it and what is not."""
    at = 0
    for first, last in accepted:
        if at < first:
            yield _part(finding, at, first, again)
        yield replace(_part(finding, first, last, again), accepted=True)
        at = last
    if at < finding.count:
        yield _part(finding, at, finding.count, again)


def _unread(results: list[PagemapResult]) -> set[Key]:
    """Pagemaps of which not every page was judged."""
    return {_key(r.pagemap) for r in results if any(r.classes[name] for name in _NOT_READ)}


Source = Union[_ByReport, _ByLines]


def _marked(
    findings: list[Finding], sources: list[Source], keys: dict[int, Key], again: Again
) -> list[Finding]:
    """The findings, each as what is accepted of it and what is not."""
    marked: list[Finding] = []
    for finding in findings:
        one = _stretch(finding, keys)
        if one.start is None:
            # Each source counts its own.
            met = [source.whole(one) for source in sources]
            marked.append(replace(finding, accepted=any(met)))
        else:
            pages = [part for source in sources for part in source.pages(one)]
            marked += _divided(finding, _folios(finding, pages), again)
    return marked


def accept(
    baseline: Baseline, findings: list[Finding], results: list[PagemapResult], look: Look
) -> tuple[list[Finding], BaselineResult]:
    """Findings with those marked that the baseline accepts; runs are divided where only a part is."""
    pagemaps = [r.pagemap for r in results]
    keys = {p.address: _key(p) for p in pagemaps}
    least = min(_RANK("warning"), _RANK(look.fail_on))
    sources: list[Source] = [_ByReport(report, pagemaps, least) for report in baseline.reports]
    sources.append(_ByLines(baseline.lines, pagemaps))
    marked = _marked(findings, sources, keys, look.again)
    result = BaselineResult(baseline.files, sum(map(len, sources)))
    now, there, unread = by_place(_stretches(findings, keys)), set(keys.values()), _unread(results)
    for source in sources:
        for key, entry in source.gone(now):
            sure = key not in unread and (key in there or look.complete)
            sure = sure and (entry["rule"], key.type if key else None) not in look.lacking
            listed = result.stale if sure else result.not_read_again
            if entry not in listed[-1:]:
                listed.append(entry)
    for report in baseline.reports:
        release = str(report["kernel"].get("release"))
        if release != look.release:
            result.notes.append(f"it is of Linux {printable(release)}")
    return marked, result
