# SPDX-License-Identifier: LGPL-2.1-or-later
"""An audit as the data of its page for a browser: maps, reference counts, findings.

Owns the form that the scripts in page/ take data in. Findings stand in columns: what repeats is told once, by its number
in a table, and large data is deflated, so that a million of them can be loaded. The scripts rely on their order: worst
first, and then by their pfn.

Invariant: the text of the element is JSON without "<", or base64: no name out of a dump can end it.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections import Counter
from collections.abc import Sequence
from shlex import quote
from typing import Any, Optional

from zonedev.cells import Cells
from zonedev.model import CLASSES, SEVERITIES, Audit, Finding, PagemapResult, short_type
from zonedev.report import text

# Data of more than this (characters) is deflated.
_PLAIN_MAX = 1 << 18
# Integers from here on are not exact in a script.
_EXACT_MAX = 1 << 53
# Distinct texts that are kept; a finding with one more has none.
_TEXTS_MAX = 1 << 18


class _Table:
    """Values, each once; 0 is None."""

    def __init__(self) -> None:
        self.values: list[Any] = [None]
        self._numbers: dict[Any, int] = {None: 0, "": 0}

    def number(self, value: Any) -> int:
        """The place of a value."""
        known = self._numbers.get(value)
        if known is None:
            if len(self.values) > _TEXTS_MAX:
                return 0
            known = self._numbers[value] = len(self.values)
            self.values.append(value)
        return known


def _exact(value: Optional[int]) -> Any:
    """A number, or where a script could not hold it, what it looks like."""
    return hex(value) if value is not None and value >= _EXACT_MAX else value


def _cells_data(cells: Cells) -> dict[str, Any]:
    """Cells as runs of equal ones: how many, then pages per class of each, zeroes at the end left out."""
    runs = []
    for count, classes in cells.runs():
        row = [count, *classes]
        while row[-1] == 0:
            row.pop()
        runs.append(row)
    return {
        "start": cells.start_pfn,
        "end": cells.end_pfn,
        "shift": cells.shift,
        "runs": runs,
    }


def _pagemap_data(result: PagemapResult, alone: bool) -> dict[str, Any]:
    """A pagemap; one whose device others have, too, is told by its first pfn."""
    pagemap = result.pagemap
    name = text.device_name(pagemap)
    if not alone and pagemap.ranges:
        name += f" at {pagemap.ranges[0].start_pfn:#x}"
    return {
        "name": name,
        "type": short_type(pagemap.type),
        "address": hex(pagemap.address),
        "pages": pagemap.pages,
        "idle": result.idle_refcount,
        "classes": [result.classes[name] for name in CLASSES],
        "refcounts": sorted(result.refcounts.items()),
        "refcountsOther": result.refcounts_other,
        "ranges": [_cells_data(cells) for cells in result.cells],
    }


def _rule_row(finding: Finding, type_: Optional[str], scheme: str) -> dict[str, Any]:
    """What a finding means there."""
    row = text.rule_row(finding, type_, scheme)
    return {
        "rule": finding.rule,
        "number": row["number"],
        "severity": finding.severity,
        "when": row["predicate"],
        "means": row["meaning"],
        "bug": row["bug_class"],
        "near": row["near_miss"],
    }


def _more(finding: Finding) -> str:
    """What is known of one finding beside its words: who waits, and who holds its first folio."""
    lines = ["accepted by the baseline"] if finding.accepted else []
    lines += [f"{w.comm} (pid {w.pid}) waits in {w.function}()" for w in finding.waiters]
    if finding.explanation is not None:
        lines.append(str(finding.explanation).rstrip())
    return "\n".join(lines)


class _Findings:
    """Findings as columns, and the tables that their numbers are places of."""

    def __init__(self, audit: Audit) -> None:
        self._types = {r.pagemap.address: r.pagemap.type for r in audit.pagemaps}
        self._places = {r.pagemap.address: i for i, r in enumerate(audit.pagemaps)}
        self._scheme = audit.scheme.id
        self._kinds: dict[tuple[Any, ...], int] = {}
        self.kinds: list[dict[str, Any]] = []
        self.texts, self.mappings = _Table(), _Table()

    def _kind(self, finding: Finding) -> int:
        type_ = self._types.get(finding.pagemap)
        key = finding.rule, finding.severity, type_
        if key not in self._kinds:
            self._kinds[key] = len(self.kinds)
            self.kinds.append(_rule_row(finding, type_, self._scheme))
        return self._kinds[key]

    def columns(self, findings: Sequence[Finding]) -> dict[str, list[Any]]:
        """One array for each property, in the order of the findings; pfns as what they grow by."""
        number = self.texts.number
        columns: dict[str, list[Any]] = {
            "kind": [self._kind(f) for f in findings],
            "pagemap": [self._places.get(f.pagemap, -1) for f in findings],
            "count": [f.count for f in findings],
            "pages": [f.pages for f in findings],
            "order": [f.order for f in findings],
            "refcount": [f.refcount for f in findings],
            "expected": [f.expected for f in findings],
            "mapcount": [f.mapcount for f in findings],
            "index": [_exact(f.index) for f in findings],
            "mapping": [self.mappings.number(hex(f.mapping or 0)) for f in findings],
            "flags": [number(", ".join(f.flag_names)) for f in findings],
            "also": [number(", ".join(f.also)) for f in findings],
            "detail": [number(f.detail) for f in findings],
            "more": [number(_more(f)) for f in findings],
        }
        pfns = [-1 if f.pfn is None else f.pfn for f in findings]
        columns["pfn"] = [pfn - before for before, pfn in zip([0, *pfns], pfns)]
        return {name: _short(column) for name, column in columns.items()}


def _short(column: list[Any]) -> list[Any]:
    """A column that is the same all the way as one value."""
    return column[:1] if column and column.count(column[0]) == len(column) else column


def page_data(audit: Audit, severity: str, command: Sequence[str]) -> dict[str, Any]:
    """What the scripts draw."""
    shown = audit.shown(severity)
    names = Counter(text.device_name(result.pagemap) for result in audit.pagemaps)
    findings = _Findings(audit)
    columns = findings.columns(shown)
    return {
        "classes": list(CLASSES),
        "severities": list(SEVERITIES),
        "pageSize": audit.kernel["page_size"],
        "command": " ".join(map(quote, command[:1])),
        "target": " ".join(map(quote, command[1:])),
        "pagemaps": [
            _pagemap_data(result, names[text.device_name(result.pagemap)] == 1)
            for result in audit.pagemaps
        ],
        "kinds": findings.kinds,
        "texts": findings.texts.values,
        "mappings": findings.mappings.values,
        "findings": len(shown),
        "columns": columns,
    }


def data_element(data: dict[str, Any]) -> str:
    """The element that holds the data: JSON that no parser of HTML takes for a tag, or the same deflated."""
    plain = json.dumps(data, separators=(",", ":"))
    if len(plain) > _PLAIN_MAX:
        packed = base64.b64encode(zlib.compress(plain.encode(), 6)).decode()
        return f'<script type="text/plain" id="data" data-packed="deflate">{packed}</script>'
    for char in "<>&":
        plain = plain.replace(char, f"\\u{ord(char):04x}")
    return f'<script type="application/json" id="data">{plain}</script>'
