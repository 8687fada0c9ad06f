# SPDX-License-Identifier: LGPL-2.1-or-later
"""Second looks at a live kernel: a finding at warning or above stands only if later samples agree.

Owns resampling of folios and of pagemaps, and the books of what did not stand (transient).
Invariant: classes still add up afterwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Optional

from drgn import FaultError

from zonedev.kernel.facts import Kernel
from zonedev.model import Finding, PagemapResult
from zonedev.scanner import ScanResult

# Struct pages of a deduplicated compound that have memory of their own (4 KiB pages, 64 bytes each).
_UNIQUE_PAGES = 128


def _sample(kernel: Kernel, pfn: int) -> Optional[bytes]:
    """The words of a struct page now; None where they cannot be read any more."""
    try:
        data: bytes = kernel.prog.read(kernel.layout.page_address(pfn), kernel.layout.page_size)
        return data
    except (FaultError, OSError, ValueError):
        return None


def _move(result: PagemapResult, finding: Finding, to: str) -> None:
    """Take the folio of a finding out of class violation."""
    pages = min(finding.folio_pages, result.classes["violation"])
    if result.pagemap.deduplicated:
        # Only the first two vmemmap pages of a compound were booked.
        pages = min(pages, _UNIQUE_PAGES)
    result.classes["violation"] -= pages
    result.classes[to] += pages


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


def confirm_findings(kernel: Kernel, scanned: ScanResult, resample_ms: int, samples: int) -> int:
    """Drop the findings of one pagemap whose struct pages look otherwise now; returns how many."""
    transient: set[int] = set()
    alarming = [f for f in scanned.findings if f.severity != "info"]
    for _ in range(samples - 1 if alarming else 0):
        time.sleep(resample_ms / 1000)
        for folio in _by_folio(f for f in alarming if id(f) not in transient).values():
            now = {f.pfn: _sample(kernel, f.pfn or 0) for f in folio}
            gone = [f for f in folio if now[f.pfn] != f.raw]
            if gone:
                stand = [f for f in folio if now[f.pfn] == f.raw]
                readable = all(now[f.pfn] is not None for f in gone)
                _retract(scanned.result, gone, stand, readable)
                transient |= {id(f) for f in gone}
    scanned.findings = [f for f in scanned.findings if id(f) not in transient]
    return len(transient)


def _key(finding: Finding) -> tuple[object, ...]:
    """What a finding on a pagemap must agree in; where it compares counts, in these, too."""
    exact = finding.rule in ("ref-below-bias", "ref-versus-pages")
    return finding.rule, finding.pagemap, finding.severity, finding.detail if exact else ""


def confirm_pagemaps(
    findings: list[Finding],
    judge_again: Callable[[], list[Finding]],
    resample_ms: int,
    samples: int,
) -> tuple[list[Finding], int]:
    """Findings on pagemaps that hold when everything is read again; and how many do not."""
    transient = 0
    for _ in range(samples - 1):
        if not any(f.severity != "info" for f in findings):
            break
        time.sleep(resample_ms / 1000)
        now = {_key(f) for f in judge_again()}
        stand = [f for f in findings if f.severity == "info" or _key(f) in now]
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
