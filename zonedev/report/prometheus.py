# SPDX-License-Identifier: LGPL-2.1-or-later
"""An audit in the text format of Prometheus, for the textfile collector of its node exporter.

Every value is a gauge; pages, folios and references are counts, times are seconds.  A pagemap is named by device,
memory type and physical start, and by no kernel address, which would differ after each boot.
Invariant: however damaged the kernel, no series stands twice and there are few for each pagemap.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Union

from zonedev import _zonedev
from zonedev.model import EXIT_CODES, Audit, Finding, PagemapResult, short_type

Labels = dict[str, str]
Sample = tuple[Labels, Union[int, float]]

_STATES = ("live", "dying", "dead")
# Refcounts of a kind; a pin of an order-0 folio is 1024 references.
_REFCOUNTS = (
    ("negative", -(1 << 31), -1),
    ("0", 0, 0),
    ("1", 1, 1),
    ("2", 2, 2),
    ("3-1023", 3, 1023),
    ("1024-", 1024, 1 << 31),
)


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _metric(name: str, help_: str, samples: Iterable[Sample]) -> Iterator[str]:
    """A family of samples; nothing where there is none."""
    lines = []
    for labels, value in samples:
        words = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        lines.append(f"zonedev_{name}{{{words}}} {value}" if words else f"zonedev_{name} {value}")
    if lines:
        yield f"# HELP zonedev_{name} {help_}"
        yield f"# TYPE zonedev_{name} gauge"
        yield from lines


def _names(audit: Audit) -> dict[int, Labels]:
    """The labels of each pagemap; those that would be the same are numbered."""
    names: dict[int, Labels] = {}
    seen: dict[tuple[str, ...], int] = {}
    for result in audit.pagemaps:
        pagemap = result.pagemap
        first = min((r.start_pfn for r in pagemap.ranges), default=0)
        words = (
            pagemap.device or "",
            short_type(pagemap.type),
            f"{first * audit.kernel['page_size']:#x}",
        )
        seen[words] = seen.get(words, 0) + 1
        again = f"#{seen[words]}" if seen[words] > 1 else ""
        names[pagemap.address] = {"device": words[0], "type": words[1], "start": words[2] + again}
    return names


def _refcounts(result: PagemapResult) -> Iterator[tuple[str, int]]:
    for name, least, most in _REFCOUNTS:
        heads = (n for refcount, n in result.refcounts.items() if least <= refcount <= most)
        yield name, sum(heads)
    if result.refcounts_other:
        yield "not counted", result.refcounts_other


def _findings(findings: Iterable[Finding], names: Mapping[int, Labels]) -> Iterator[Sample]:
    """Pages by pagemap, rule, severity and whether they are accepted."""
    sums: dict[tuple[tuple[str, str], ...], int] = {}
    for f in findings:
        own = names.get(f.pagemap, dict.fromkeys(("device", "type", "start"), ""))
        labels = {**own, "rule": f.rule, "severity": f.severity, "accepted": _word(f.accepted)}
        key = tuple(labels.items())
        sums[key] = sums.get(key, 0) + (1 if f.pfn is None else f.pages)
    yield from ((dict(key), pages) for key, pages in sums.items())


def _word(accepted: bool) -> str:
    return "yes" if accepted else "no"


def _severities(audit: Audit) -> Iterator[Sample]:
    for severity in _zonedev.SEVERITIES:
        fresh = audit.fresh(severity) if audit.baseline else audit.count(severity)
        yield {"severity": severity, "accepted": "no"}, fresh
        if audit.baseline:
            yield {"severity": severity, "accepted": "yes"}, audit.accepted(severity)


def _about(audit: Audit) -> Labels:
    from zonedev.audit import tool_versions

    versions = tool_versions()
    return {
        "zonedev": versions["zonedev"],
        "drgn": versions["drgn"],
        "release": str(audit.kernel["release"]),
        "arch": str(audit.kernel["arch"]),
        "scheme": audit.scheme.id,
        "confidence": audit.scheme.confidence,
        "types_from": audit.types_from,
    }


def _of_audit(audit: Audit) -> Iterator[str]:
    """What there is one of."""
    verdicts = [({"verdict": name}, int(name == audit.verdict)) for name in EXIT_CODES]
    yield from _metric("audit_info", "What was audited, and by what.", [(_about(audit), 1)])
    yield from _metric("audit_verdict", "1 for the verdict of the last audit.", verdicts)
    for name, help_, value in (
        (
            "audit_exit_status",
            "0 clean, 1 violations, 2 the audit failed, 3 incomplete.",
            audit.exit_code,
        ),
        ("audit_timestamp_seconds", "When the last audit ended.", round(time.time(), 3)),
        ("audit_duration_seconds", "How long it took.", round(audit.total_s, 6)),
        ("audit_scan_duration_seconds", "Of that, the scan of pages.", round(audit.scan_s, 6)),
        ("audit_problems", "What could not be read or known, beside pages.", len(audit.problems)),
        (
            "audit_transient_findings",
            "Findings that did not stand in a later sample.",
            audit.transient,
        ),
        (
            "audit_findings_dropped",
            "Runs of findings that found no room and are only in sums.",
            audit.findings_dropped,
        ),
    ):
        yield from _metric(name, help_, [({}, value)])
    if audit.baseline:
        stale = len(audit.baseline.stale)
        yield from _metric("baseline_stale_entries", "Accepted, and gone.", [({}, stale)])


def audit_prometheus(audit: Audit, severity: str = "info") -> str:
    """The whole audit; series of findings below *severity* are left out, the sums are not changed by that."""
    names = _names(audit)
    each = [(names[r.pagemap.address], r) for r in audit.pagemaps]
    lines = [
        *_of_audit(audit),
        *_metric("severity_pages", "Pages by the severity of their finding.", _severities(audit)),
        *_metric(
            "finding_pages",
            "Pages by pagemap and finding; 1 for one on the pagemap itself.",
            _findings(audit.shown(severity), names),
        ),
        *_metric("pagemaps", "Pagemaps that were audited.", [({}, len(each))]),
        *_metric(
            "pages",
            "Pages of a pagemap by class.",
            (({**own, "class": c}, r.classes[c]) for own, r in each for c in r.classes),
        ),
        *_metric(
            "folios",
            "Folios of a pagemap by the refcount of their head.",
            (({**own, "refcount": n}, heads) for own, r in each for n, heads in _refcounts(r)),
        ),
        *_metric(
            "idle_refcount",
            "Refcount that free folios of a pagemap rest at.",
            ((own, r.idle_refcount) for own, r in each if r.idle_refcount is not None),
        ),
        *_metric(
            "folios_above_idle",
            "Folios of a pagemap with more references than a free one has.",
            ((own, r.heads_above_idle) for own, r in each),
        ),
        *_metric(
            "mapped_pages",
            "Pages of a pagemap that page tables map.",
            ((own, r.pages_mapped) for own, r in each),
        ),
        *_metric(
            "pagemap_references",
            "References of a pagemap, where they can be read.",
            ((own, r.pagemap.ref.count) for own, r in each if r.pagemap.ref.count is not None),
        ),
        *_metric(
            "pagemap_state",
            "1 for the state of the reference of a pagemap.",
            (
                ({**own, "state": s}, int(s == r.pagemap.ref.state))
                for own, r in each
                for s in _STATES
            ),
        ),
    ]
    return "\n".join(lines) + "\n"
