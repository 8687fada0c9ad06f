# SPDX-License-Identifier: LGPL-2.1-or-later
"""Second looks at a live kernel: a finding at warning or above stands only if later samples agree.

Owns resampling of folios and of pagemaps, and the books of what did not stand (transient).
Invariant: classes still add up afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import NamedTuple

from zonedev import _zonedev
from zonedev.kernel.facts import Kernel
from zonedev.model import Finding, Pagemap, PagemapResult
from zonedev.scanner import Caps, Scanner, ScanResult, feed, make_finding, pagemap_spec


class _Folio(NamedTuple):
    """A second look at one folio: its classes and findings now."""

    classes: dict[str, int]
    findings: list[Finding]


def _words(finding: Finding) -> tuple[object, ...]:
    """What must agree in two samples."""
    return finding.rule, finding.pfn, finding.raw, finding.order, finding.mapcount


def _look_again(
    kernel: Kernel, pagemap: Pagemap, scheme: _zonedev.Scheme, caps: Caps, finding: Finding
) -> _Folio:
    layout = kernel.layout
    spec = pagemap_spec(pagemap, caps)
    scan = _zonedev.Scan(layout.layout, scheme, spec, merge=False)
    start = finding.folio_pfn
    scan.begin(start, start + finding.folio_pages, layout.page_address(start))
    feed(kernel, scan, start, lambda pages: None)
    scan.end()
    tally = scan.result()
    findings = [make_finding(kernel, pagemap, raw) for raw in tally["findings"]]
    return _Folio(tally["classes"], findings)


def _rebook(result: PagemapResult, gone: list[Finding], now: _Folio, error_stands: bool) -> None:
    """Take findings that did not stand out of the books; the folio gets the class that it has now."""
    for finding in gone:
        pages = min(finding.pages, result.severities[finding.severity])
        result.severities[finding.severity] -= pages
    if error_stands or not any(f.severity == "error" for f in gone):
        return
    seen = sum(now.classes[c] for c in ("idle", "busy", "violation"))
    pages = min(seen, result.classes["violation"])
    result.classes["violation"] -= pages
    result.classes["idle" if now.classes["idle"] == seen else "busy"] += pages


def confirm_findings(
    kernel: Kernel, scanner: Scanner, scanned: ScanResult, resample_ms: int, samples: int
) -> int:
    """Drop the findings of one pagemap that do not stand; returns how many."""
    alarming = [f for f in scanned.findings if f.severity != "info"]
    pagemap = scanned.result.pagemap
    caps = scanner.caps.get(pagemap.type, Caps())
    transient = 0
    for _ in range(samples - 1):
        if not alarming:
            break
        time.sleep(resample_ms / 1000)
        folios = {f.folio_pfn: f for f in alarming}
        for pfn, one in folios.items():
            now = _look_again(kernel, pagemap, scanner.scheme, caps, one)
            seen = {_words(f) for f in now.findings}
            mine = [f for f in alarming if f.folio_pfn == pfn]
            gone = [f for f in mine if _words(f) not in seen]
            stand = [f for f in mine if _words(f) in seen]
            if gone:
                _rebook(scanned.result, gone, now, any(f.severity == "error" for f in stand))
                transient += len(gone)
                lost = {id(f) for f in gone}
                alarming = [f for f in alarming if id(f) not in lost]
                scanned.findings = [f for f in scanned.findings if id(f) not in lost]
    return transient


def confirm_pagemaps(
    findings: list[Finding],
    judge_again: Callable[[], list[Finding]],
    resample_ms: int,
    samples: int,
) -> tuple[list[Finding], int]:
    """Findings on pagemaps that say the same, numbers and all, when everything is read again."""
    transient = 0
    for _ in range(samples - 1):
        if not any(f.severity != "info" for f in findings):
            break
        time.sleep(resample_ms / 1000)
        now = {(f.rule, f.pagemap, f.detail) for f in judge_again()}
        stand = [
            f for f in findings if f.severity == "info" or (f.rule, f.pagemap, f.detail) in now
        ]
        transient += len(findings) - len(stand)
        findings = stand
    return findings, transient


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
