# SPDX-License-Identifier: LGPL-2.1-or-later
"""Second looks at a live kernel: a finding at warning or above stands only if later samples agree.

Owns resampling of folios and of pagemaps, and the books of what did not stand (transient).
Invariant: classes still add up afterwards.

Most transient states last microseconds, but a task that is preempted in one (or a virtual CPU that is)
keeps it for as long as others run: up to a second was seen.  And a page that is used in a loop may well
be in the same state at the next look, and at the one after.  So there are many looks, over a second and
more, and only what is alarming and still there pays for them: as bad in every sample, and with the
same words in two of them at least.

A scan reads pages one after the other while folios come and go: a page may look wrong beside a head
that was there a moment ago, and its own words are right and stay.  So each sample judges again the
whole block of pages that may be one folio with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from drgn import FaultError

from zonedev.cells import move_pages
from zonedev.kernel.facts import Kernel
from zonedev.kernel.vmemmap import order_max
from zonedev.model import Finding, Pagemap, PagemapResult
from zonedev.scanner import Scanner, ScanResult

# Samples of a live kernel that must agree: with 20 ms between them, over more than a second.
SAMPLES = 64

# Where states are seen to come and go, more are: a task may be held up in one.
_RESTLESS = 4

# Many suspects on a large device make samples slow: where they take longer than this (or than four
# waits), few must do.
_SLOW_S = 0.08
_SAMPLES_MIN = 4

# Struct pages of a deduplicated compound that have memory of their own (4 KiB pages, 64 bytes each).
_UNIQUE_PAGES = 128


def _is_readable(kernel: Kernel, pfn: int) -> bool:
    try:
        kernel.prog.read(kernel.layout.page_address(pfn), kernel.layout.page_size)
        return True
    except (FaultError, OSError, ValueError):
        return False


def _block(kernel: Kernel, pagemap: Pagemap, pfn: int) -> tuple[int, int]:
    """The pages [start, end) that may be one folio with a page: what it is depends on no others."""
    range_ = pagemap.range_of(pfn)
    assert range_ is not None
    order = order_max(pagemap, kernel.layout)
    start = pfn >> order << order
    return max(start, range_.first_pfn), min(start + (1 << order), range_.end_pfn)


def _sample(scanner: Scanner, pagemap: Pagemap, findings: Iterable[Finding]) -> list[Finding]:
    """What is wrong now with the pages around some findings."""
    blocks = {_block(scanner.kernel, pagemap, f.pfn or 0) for f in findings}
    return [f for start, end in sorted(blocks) for f in scanner.look(pagemap, start, end)]


def _move(result: PagemapResult, finding: Finding, to: str) -> None:
    """Take the folio of a finding out of class violation."""
    pages = min(finding.folio_pages, result.classes["violation"])
    if result.pagemap.deduplicated:
        # Only the first two vmemmap pages of a compound were booked.
        pages = min(pages, _UNIQUE_PAGES)
    result.classes["violation"] -= pages
    result.classes[to] += pages
    folio = finding.folio_pfn, finding.folio_pfn + finding.folio_pages
    move_pages(result.cells, folio, pages, "violation", to)


def _retract(
    result: PagemapResult, gone: list[Finding], stand: list[Finding], readable: bool
) -> None:
    """Take the findings on one folio that did not stand out of the books.

    What another finding on it still vouches for stays: the sums may then be too high, never too low.
    """
    kept = {f.severity for f in stand}
    for severity in {f.severity for f in gone} - kept:
        pages = max(f.pages for f in gone if f.severity == severity)
        result.severities[severity] -= min(pages, result.severities[severity])
    if "error" not in kept and any(f.severity == "error" for f in gone):
        _move(result, gone[0], "busy" if readable else "unreadable")


def _by_folio(findings: Iterable[Finding]) -> dict[int, list[Finding]]:
    folios: dict[int, list[Finding]] = {}
    for finding in findings:
        folios.setdefault(finding.folio_pfn, []).append(finding)
    return folios


class Pace:
    """When to look again, and when it was often enough."""

    def __init__(self, resample_ms: int, samples: int) -> None:
        self.taken = 1
        self._interval = resample_ms / 1000
        self._samples = samples
        self._begin = time.monotonic()

    def again(self, restless: bool) -> bool:
        """Wait for the next sample; False where enough were taken.

        :param restless: findings of this audit have already turned out to be transient
        """
        wanted = self._samples * (_RESTLESS if restless else 1)
        late = time.monotonic() - self._begin > wanted * max(_SLOW_S, 4 * self._interval)
        if self.taken >= (min(wanted, _SAMPLES_MIN) if late else wanted):
            return False
        time.sleep(self._interval)
        self.taken += 1
        return True

    @property
    def seldom(self) -> bool:
        """True for samples at growing distances (the 2nd, 3rd, 5th, 9th, ...): for what is expensive."""
        return (self.taken - 1) & (self.taken - 2) == 0


def alarming(findings: Iterable[Finding]) -> list[Finding]:
    """Those that need a second look."""
    return [f for f in findings if f.severity != "info"]


def _place(finding: Finding) -> tuple[object, ...]:
    """Which page of which folio is how bad: what all samples must agree in."""
    return finding.pfn, finding.severity, finding.folio_pfn, finding.folio_pages


def _words(finding: Finding) -> tuple[str, bytes]:
    return finding.rule, finding.raw


class Confirmation:
    """Second looks at the findings of one pagemap.

    A page that is in use may be as bad in every sample, with other words in each: what stands must be
    as bad in all of them, and at least two must agree in every word.
    """

    def __init__(self, scanner: Scanner, scanned: ScanResult) -> None:
        self._scanner, self._scanned = scanner, scanned
        self._seen = {_place(f): {_words(f)} for f in alarming(scanned.findings)}

    def again(self) -> list[Finding]:
        """Take another sample; drop the findings that are none now, and return them."""
        suspects = alarming(self._scanned.findings)
        sample = _sample(self._scanner, self._scanned.result.pagemap, suspects)
        now = {_place(f): f for f in sample}
        for finding in suspects:
            if _place(finding) in now:
                self._book(finding, now[_place(finding)])
        return self._drop(lambda f: _place(f) not in now)

    def finish(self) -> list[Finding]:
        """Drop the findings of whose words no two samples agreed, and return them."""
        return self._drop(lambda f: f.agreed < 2)

    def _book(self, finding: Finding, now: Finding) -> None:
        seen = self._seen[_place(finding)]
        samples, agreed = finding.samples + 1, finding.agreed
        if _words(now) == _words(finding):
            agreed += 1
        elif agreed == 1 and _words(now) in seen:
            vars(finding).update(vars(now))
            agreed = 2
        seen.add(_words(now))
        finding.samples, finding.agreed = samples, agreed

    def _drop(self, is_gone: Callable[[Finding], bool]) -> list[Finding]:
        """Take alarming findings out of the pagemap's result and its books; returns them."""
        scanned, kernel = self._scanned, self._scanner.kernel
        dropped: list[Finding] = []
        for folio in _by_folio(alarming(scanned.findings)).values():
            gone = [f for f in folio if is_gone(f)]
            if gone:
                readable = all(_is_readable(kernel, f.pfn or 0) for f in gone)
                _retract(scanned.result, gone, [f for f in folio if not is_gone(f)], readable)
                dropped += gone
        identities = {id(f) for f in dropped}
        scanned.findings = [f for f in scanned.findings if id(f) not in identities]
        return dropped


def _key(finding: Finding) -> tuple[object, ...]:
    """What a finding on a pagemap must agree in; where it compares counts, in these, too."""
    exact = finding.rule in ("ref-below-bias", "ref-versus-pages")
    return finding.rule, finding.pagemap, finding.severity, finding.detail if exact else ""


def confirm_pagemaps(
    findings: list[Finding], judge_again: Callable[[], list[Finding]]
) -> tuple[list[Finding], list[Finding]]:
    """Findings on pagemaps that hold when everything is read again; and those that do not."""
    if not alarming(findings):
        return findings, []
    now = {_key(f) for f in judge_again()}
    transient = []
    for finding in alarming(findings):
        if _key(finding) in now:
            finding.samples += 1
        else:
            transient.append(finding)
    return [f for f in findings if f not in transient], transient


_STATE = (
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


def _continues(run: Finding, finding: Finding) -> bool:
    same = all(getattr(run, name) == getattr(finding, name) for name in _STATE)
    return same and run.pfn is not None and finding.pfn == run.pfn + run.pages


def merge_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Join findings of adjacent folios in one state into runs (the core does it for dumps)."""
    merged: list[Finding] = []
    for finding in findings:
        if merged and _continues(merged[-1], finding):
            last = merged[-1]
            count, pages = last.count + finding.count, last.pages + finding.pages
            merged[-1] = replace(last, count=count, pages=pages)
        else:
            merged.append(finding)
    return merged
