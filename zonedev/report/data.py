# SPDX-License-Identifier: LGPL-2.1-or-later
"""Results as JSON, NDJSON and CSV: the names of docs/audit.schema.json, which stay.

Numbers are numbers, addresses and pfns are integers, end_pfn is exclusive.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Optional

from zonedev.model import SEVERITIES, Audit, Finding, Pagemap, PagemapResult, Waiter

if TYPE_CHECKING:
    from zonedev.diff import Change, Diff, PagemapChange
    from zonedev.explanation import Explanation, FileAt, Holder
    from zonedev.kernel.dax import DaxEntry, DaxFile
    from zonedev.kernel.memory_search import Searched
    from zonedev.page import FolioReport
    from zonedev.states import SchemeReport
    from zonedev.waiters import Held, WaitersReport

CSV_FIELDS = (
    "rule",
    "severity",
    "also",
    "device",
    "type",
    "pagemap",
    "pfn",
    "count",
    "pages",
    "order",
    "refcount",
    "expected",
    "mapcount",
    "mapping",
    "index",
    "flags",
    "detail",
    "waiters",
    "raw",
    "accepted",
)


def pagemap_dict(pagemap: Pagemap) -> dict[str, Any]:
    """One pagemap, without what a scan adds."""
    return {
        "address": pagemap.address,
        "type": pagemap.type,
        "device": pagemap.device,
        "resource": pagemap.resource,
        "ranges": [
            {"start_pfn": r.start_pfn, "end_pfn": r.end_pfn, "first_pfn": r.first_pfn}
            for r in pagemap.ranges
        ],
        "pages": pagemap.pages,
        "vmemmap_shift": pagemap.vmemmap_shift,
        "altmap": pagemap.altmap,
        "owner": pagemap.owner,
        "ops": pagemap.ops,
        "ref": {
            "state": pagemap.ref.state,
            "count": pagemap.ref.count,
            "approximate": pagemap.ref.approximate,
        },
    }


def result_dict(result: PagemapResult) -> dict[str, Any]:
    """One pagemap with its classes and refcounts."""
    return {
        **pagemap_dict(result.pagemap),
        "idle_refcount": result.idle_refcount,
        "classes": result.classes,
        "refcounts": {str(refcount): heads for refcount, heads in sorted(result.refcounts.items())},
        "refcounts_other": result.refcounts_other,
        "not_judged": result.reasons,
    }


def waiter_dict(waiter: Waiter) -> dict[str, Any]:
    """A task that waits; pfn and stack where they are known."""
    return {name: value for name, value in waiter._asdict().items() if value not in (None, ())}


def finding_dict(finding: Finding) -> dict[str, Any]:
    """One finding: count folios from pfn, 1 << order pages apart; pfn None: on the pagemap."""
    return {
        "rule": finding.rule,
        "severity": finding.severity,
        "also": finding.also,
        "pagemap": finding.pagemap,
        "pfn": finding.pfn,
        "count": finding.count,
        "pages": finding.pages,
        "order": finding.order,
        "refcount": finding.refcount,
        "mapcount": finding.mapcount,
        "mapping": finding.mapping,
        "index": finding.index,
        "flags": finding.flag_names,
        "expected": finding.expected,
        "raw": finding.raw.hex(),
        "detail": finding.detail,
        **(
            {"waiters": [waiter_dict(waiter) for waiter in finding.waiters]}
            if finding.waiters
            else {}
        ),
        **({"explanation": explain_dict(finding.explanation)} if finding.explanation else {}),
        **({"accepted": True} if finding.accepted else {}),
    }


def accepted_dict(audit: Audit) -> dict[str, int]:
    """How much of the totals a baseline accepts; findings are runs."""
    pages = {f"{severity}s": audit.accepted(severity) for severity in reversed(SEVERITIES)}
    return {**pages, "findings": sum(f.accepted for f in audit.findings)}


def summary_dict(audit: Audit) -> dict[str, Any]:
    """Totals and verdict; errors, warnings and infos count pages, accepted ones, too."""
    return {
        "pages": audit.pages,
        "classes": audit.classes,
        "errors": audit.count("error"),
        "warnings": audit.count("warning"),
        "infos": audit.count("info"),
        "findings": len(audit.findings),
        "findings_dropped": audit.findings_dropped,
        "transient": audit.transient,
        **({"accepted": accepted_dict(audit)} if audit.baseline else {}),
        "verdict": audit.verdict,
    }


# What comes with types of each source.
SYMBOLS_FROM = {"dwarf": "symtab", "btf": "kallsyms"}


def sources(types_from: str) -> dict[str, str]:
    """Where types and symbols came from, as every report has it."""
    return {"types_from": types_from, "symbols_from": SYMBOLS_FROM[types_from]}


def audit_dict(audit: Audit, severity: str = "info") -> dict[str, Any]:
    """The whole audit; findings below *severity* are left out, the sums are not changed by that."""
    from zonedev.audit import tool_versions

    rate = audit.pages / audit.scan_s if audit.scan_s > 0 else 0.0
    return {
        "schema": "zonedev.audit/1",
        "tool": {
            **tool_versions(),
            **sources(audit.types_from),
            "readers": audit.readers,
        },
        "filters": audit.filters,
        "target": {"path": audit.path, "live": audit.live, "format": audit.format},
        "kernel": audit.kernel,
        "scheme": {
            "id": audit.scheme.id,
            "title": audit.scheme.title,
            "confidence": audit.scheme.confidence,
            "evidence": audit.scheme.evidence,
            "calibrated": audit.scheme.calibrated,
        },
        "pagemaps": [result_dict(result) for result in audit.pagemaps],
        "findings": [finding_dict(finding) for finding in audit.shown(severity)],
        "not_applicable": audit.not_applicable,
        "passes": audit.passes,
        "kernel_log": audit.kernel_log,
        "problems": audit.problems,
        "notes": audit.notes,
        **({"baseline": vars(audit.baseline)} if audit.baseline else {}),
        "timing": {"scan_s": audit.scan_s, "total_s": audit.total_s, "pages_per_s": rate},
        "summary": summary_dict(audit),
    }


def to_json(value: dict[str, Any]) -> str:
    """Indented, keys in their order, a newline at the end."""
    return json.dumps(value, indent=1) + "\n"


def _lines(kind: str, values: list[dict[str, Any]]) -> Iterator[str]:
    for value in values:
        yield json.dumps({"kind": kind, **value}) + "\n"


def audit_ndjson(audit: Audit, severity: str = "info") -> str:
    """One object a line: pagemaps, findings, and the summary last."""
    whole = audit_dict(audit, severity)
    pagemaps, findings, summary = (whole.pop(key) for key in ("pagemaps", "findings", "summary"))
    return "".join(
        [
            *_lines("pagemap", pagemaps),
            *_lines("finding", findings),
            *_lines("summary", [{**whole, **summary}]),
        ]
    )


def audit_csv(audit: Audit, severity: str = "info") -> str:
    """A header, then one row a finding."""
    pagemaps = {r.pagemap.address: r.pagemap for r in audit.pagemaps}
    out = io.StringIO()
    writer = csv.DictWriter(out, CSV_FIELDS, lineterminator="\n")
    writer.writeheader()
    for finding in audit.shown(severity):
        row = finding_dict(finding)
        pagemap = pagemaps.get(finding.pagemap)
        row["device"] = pagemap.device if pagemap else None
        row["type"] = pagemap.type if pagemap else None
        row["also"] = " ".join(finding.also)
        row["flags"] = " ".join(finding.flag_names)
        row["accepted"] = "yes" if finding.accepted else None
        row["waiters"] = " ".join(f"{w.comm}:{w.pid}" for w in finding.waiters)
        writer.writerow(row)
    return out.getvalue()


def list_csv(pagemaps: list[Pagemap]) -> str:
    """A header, then one row a range."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        (
            "device",
            "type",
            "address",
            "start_pfn",
            "end_pfn",
            "first_pfn",
            "vmemmap_shift",
            "ref_state",
            "ref_count",
            "ops",
        )
    )
    for p in pagemaps:
        for r in p.ranges:
            writer.writerow(
                (
                    p.device,
                    p.type,
                    p.address,
                    r.start_pfn,
                    r.end_pfn,
                    r.first_pfn,
                    p.vmemmap_shift,
                    p.ref.state,
                    p.ref.count,
                    p.ops,
                )
            )
    return out.getvalue()


def list_ndjson(pagemaps: list[Pagemap]) -> str:
    """One pagemap a line."""
    return "".join(_lines("pagemap", [pagemap_dict(p) for p in pagemaps]))


def list_dict(pagemaps: list[Pagemap], types_from: str) -> dict[str, Any]:
    """All pagemaps."""
    return {
        "schema": "zonedev.list/1",
        **sources(types_from),
        "pagemaps": [pagemap_dict(p) for p in pagemaps],
    }


def scheme_dict(report: SchemeReport) -> dict[str, Any]:
    """A scheme with its legal states; of a kernel, what speaks for it and what was seen."""
    result: dict[str, Any] = {
        "id": report.id,
        "kernels": report.kernels,
        "title": report.title,
        "pgmap_ref": report.pgmap_ref,
        "shared": report.shared or None,
        "states": [state._asdict() for state in report.states],
    }
    if report.audit:
        info = report.audit.scheme
        result["confidence"] = info.confidence
        result["evidence"] = info.evidence
        result["calibrated"] = info.calibrated
        result["seen"] = report.seen
    return result


def schemes_dict(reports: list[SchemeReport]) -> dict[str, Any]:
    """Several schemes, or that of one kernel."""
    audit = reports[0].audit if len(reports) == 1 else None
    kernel = {"kernel": audit.kernel, **sources(audit.types_from)} if audit else {}
    return {"schema": "zonedev.scheme/1", **kernel, "schemes": [scheme_dict(r) for r in reports]}


def entry_dict(entry: DaxEntry) -> dict[str, Any]:
    """One DAX entry: pages [pfn, pfn + pages) are those of the file from index on."""
    return {
        "inode": entry.file.inode,
        "mapping": entry.file.mapping,
        "index": entry.index,
        "pfn": entry.pfn,
        "pages": entry.pages,
        "locked": entry.locked,
        "pmd": entry.pmd,
        "zero": entry.zero,
        "empty": entry.empty,
    }


FILE_NUMBERS = ("entries", "pages", "pmd", "zero", "empty", "locked")


def file_dict(
    file: DaxFile, number: Optional[int], name: str, tally: dict[str, Any]
) -> dict[str, Any]:
    """One DAX file: addresses, inode number, path as far as it is known, and numbers of its entries."""
    super_block = file.super_block
    return {
        "device": super_block.device if super_block else None,
        "file_system": super_block.kind if super_block else None,
        "inode": file.inode,
        "mapping": file.mapping,
        "number": number,
        "name": name,
        **{key: tally[key] for key in FILE_NUMBERS},
        "problem": tally["why"],
    }


def change_dict(change: Change) -> dict[str, Any]:
    """Pages with one finding in the later report (of those that are gone: in the earlier one)."""
    one = change.stretch
    return {
        "rule": one.rule,
        "severity": one.severity,
        "type": one.pagemap.type,
        "pfn": one.start,
        "pages": one.pages,
        "order": one.order,
        "refcount": one.refcount,
        "expected": one.expected,
        "refcount_before": change.before,
    }


def pagemap_change_dict(change: PagemapChange) -> dict[str, Any]:
    """A pagemap in the earlier and in the later report; None where it was not there."""
    before, after = (
        {"classes": classes, "ref_count": ref, "extra_references": extra}
        for classes, ref, extra in zip(change.classes, change.ref, change.extra)
    )
    return {
        "type": change.key.type,
        "start_pfn": change.key.start_pfn,
        "device": change.device,
        "before": before,
        "after": after,
    }


def diff_dict(diff: Diff) -> dict[str, Any]:
    """Two reports compared."""
    return {
        "schema": "zonedev.diff/1",
        "before": {"name": diff.names[0], "kernel": diff.kernels[0], "verdict": diff.verdicts[0]},
        "after": {"name": diff.names[1], "kernel": diff.kernels[1], "verdict": diff.verdicts[1]},
        "pagemaps": [pagemap_change_dict(one) for one in diff.pagemaps],
        "new": [change_dict(one) for one in diff.new],
        "worse": [change_dict(one) for one in diff.worse],
        "gone": [change_dict(one) for one in diff.gone],
        "not_read_again": [change_dict(one) for one in diff.not_read],
        "notes": diff.notes,
    }


def held_dict(held: Held) -> dict[str, Any]:
    """A pagemap that tasks wait for or that goes: who waits, and findings on the folios that are out."""
    return {
        "pagemap": pagemap_dict(held.pagemap),
        "waiters": [waiter_dict(waiter) for waiter in held.waiters],
        "idle_refcount": held.idle_refcount,
        "busy": held.busy,
        "unread": held.unread,
        "out": [finding_dict(finding) for finding in held.out],
    }


def waiters_dict(report: WaitersReport) -> dict[str, Any]:
    """Who waits for pages; why: the search was not made."""
    waiting = report.waiting
    return {
        "schema": "zonedev.waiters/1",
        **sources(report.types_from),
        "pagemaps": report.pagemaps,
        "held": [held_dict(one) for one in report.held],
        "tasks": waiting.tasks,
        "lost": waiting.lost,
        "why": waiting.why,
        "problems": report.problems,
    }


def holder_dict(holder: Holder) -> dict[str, Any]:
    """One holder of a folio."""
    return {
        "kind": holder.kind,
        "refs": holder.refs,
        "pins": holder.pins,
        "maps": holder.maps,
        "pid": holder.pid,
        "comm": holder.comm,
        "address": holder.address,
        "object": holder.object,
    }


def file_at_dict(file: FileAt) -> dict[str, Any]:
    """The place of a folio in a file."""
    return {
        "path": file.path or None,
        "deleted": file.deleted,
        "inode": file.inode,
        "offset": file.offset,
        "size": file.size,
        "mapping": file.mapping,
        "open": [{"pid": one.pid, "comm": one.comm, "fd": one.fd} for one in file.openers],
    }


def searched_dict(searched: Searched) -> dict[str, Any]:
    """A search of memory for words that point to a folio."""
    return {
        **{name: value for name, value in vars(searched).items() if name != "hits"},
        "hits": [hit._asdict() for hit in searched.hits],
    }


def explain_dict(explanation: Explanation) -> dict[str, Any]:
    """The account of a folio, as zonedev.explain/1."""
    files = [file_at_dict(file) for file in explanation.files]
    inside = (explanation.asked_pfn - explanation.pfn) * explanation.page_size
    return {
        "schema": "zonedev.explain/1",
        **sources(explanation.types_from),
        "scheme": explanation.scheme,
        "pfn": explanation.pfn,
        "asked": {
            "pfn": explanation.asked_pfn,
            "offset": files[0]["offset"] + inside if files else None,
            "refcount": explanation.asked_refcount,
        },
        "type": explanation.pagemap.type,
        "device": explanation.pagemap.device,
        "order": explanation.order,
        "refcount": explanation.refcount,
        "mapcount": explanation.mapcount,
        "pincount": explanation.pincount,
        "flags": explanation.flag_names,
        "idle_refcount": explanation.idle_refcount,
        "base": explanation.base,
        "holders": [holder_dict(holder) for holder in explanation.holders],
        "explained": explanation.explained,
        "unexplained": explanation.unexplained,
        "maps": explanation.maps,
        "maps_count": explanation.maps_count,
        "mapping": explanation.mapping,
        "mapping_words": explanation.mapping_words or None,
        "driver": explanation.driver or None,
        "file": files[0] if files else None,
        "files": files,
        "complete": explanation.complete,
        "gaps": explanation.gaps,
        "searched": searched_dict(explanation.searched) if explanation.searched else None,
    }


def folio_dict(report: FolioReport) -> dict[str, Any]:
    """One struct page with its folio, class and findings."""
    return {
        "schema": "zonedev.page/1",
        **sources(report.types_from),
        "asked": report.asked,
        "pfn": report.pfn,
        "address": report.address,
        "pagemap": pagemap_dict(report.pagemap),
        "page": report.page,
        "head": report.head,
        "class": report.class_,
        "idle_refcount": report.idle_refcount,
        "owner": report.owner,
        "files": report.files,
        "driver": report.driver,
        "entries": [entry_dict(entry) for entry in report.entries],
        "flags": report.flag_names,
        "raw": report.raw.hex(),
        "findings": [finding_dict(finding) for finding in report.findings],
    }
