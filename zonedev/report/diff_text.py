# SPDX-License-Identifier: LGPL-2.1-or-later
"""Two audits compared, as text: a row per pagemap that changed, then findings that are new, worse and gone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Optional

from zonedev import _zonedev
from zonedev.diff import Change, Diff, PagemapChange
from zonedev.kernel.strings import printable
from zonedev.model import short_type
from zonedev.report.table import table
from zonedev.report.text import number, shown_runs


def _step(before: Optional[int], after: Optional[int]) -> str:
    """ "12 (+3)"; what is not known is "?"."""
    if after is None:
        return "?"
    if before is None or before == after:
        return str(after)
    return f"{after} ({after - before:+})"


def _state(change: PagemapChange) -> str:
    before, after = change.classes
    if before is None:
        return "new"
    return "gone" if after is None else ""


def _row(change: PagemapChange, classes: list[str]) -> list[str]:
    before, after = ({} if side is None else side for side in change.classes)
    counts = [_step(before.get(name), after.get(name)) for name in classes]
    device = change.device or f"pfn {change.key.start_pfn:#x}"
    ref, extra = _step(*change.ref), _step(*change.extra)
    return [device, short_type(change.key.type), *counts, ref, extra, _state(change)]


def _table(changes: list[PagemapChange]) -> str:
    def moves(name: str) -> bool:
        return any(
            len({(side or {}).get(name) for side in change.classes}) > 1 for change in changes
        )

    classes = [name for name in _zonedev.CLASSES if moves(name)]
    header = ["DEVICE", "TYPE", *(name.upper() for name in classes), "PGMAP-REF", "EXTRA-REFS", ""]
    return table(
        [header, *(_row(change, classes) for change in changes)], range(2, len(header) - 1)
    )


def _line(change: Change, devices: dict[object, str]) -> str:
    one = change.stretch
    where = devices.get(one.pagemap, short_type(one.pagemap.type))
    if one.start is None:
        return f"    {where}; pagemap"
    last = f"-{one.end - 1:#x} ({one.pages} pages)" if one.pages > 1 else ""
    count = f"refcount {one.refcount} (expected {one.expected}"
    was = "" if change.before in (None, one.refcount) else f", was {change.before}"
    return f"    {where}; pfn {one.start:#x}{last}; {count}{was})"


def _section(title: str, changes: Iterable[Change], devices: dict[object, str]) -> list[str]:
    """Changes by rule, the most severe first."""
    groups: dict[tuple[str, str], list[Change]] = {}
    for change in changes:
        groups.setdefault((change.stretch.severity, change.stretch.rule), []).append(change)
    rank = _zonedev.SEVERITIES.index
    lines = []
    for (severity, rule), group in sorted(groups.items(), key=lambda item: -rank(item[0][0])):
        pages = sum(change.stretch.pages for change in group)
        where = number(pages, "page") if pages else "pagemap"
        lines.append(f"{title} {severity}: {rule}, {where}")
        lines += shown_runs((_line(change, devices) for change in group), len(group))
    return lines


def _shown(changes: Iterable[Change], severity: str) -> list[Change]:
    rank = _zonedev.SEVERITIES.index
    return [change for change in changes if rank(change.stretch.severity) >= rank(severity)]


def _sum(diff: Diff, severity: str) -> str:
    """The closing line."""
    kinds = [("new", diff.new), ("worse", diff.worse), ("gone", diff.gone)]
    if diff.not_read:
        kinds.append(("on pagemaps that were not read again as a whole", diff.not_read))
    shown = [(name, len(_shown(changes, severity))) for name, changes in kinds]
    hidden = sum(len(changes) for _, changes in kinds) - sum(n for _, n in shown)
    more = f"; {hidden} below {severity} (--severity info shows them)" if hidden else ""
    return "findings, in runs of pages: " + ", ".join(f"{n} {name}" for name, n in shown) + more


def diff_text(diff: Diff, severity: str = "warning") -> str:
    """Findings below *severity* are counted in the last line only."""
    devices: dict[object, str] = {one.key: one.device for one in diff.pagemaps if one.device}
    parts = [
        "\n".join(
            f"{word}: {printable(name)}, Linux {kernel}, {verdict}"
            for word, name, kernel, verdict in zip(
                ("before", "after"), diff.names, diff.kernels, diff.verdicts
            )
        )
    ]
    parts += [f"note: {note}" for note in diff.notes]
    changed = [one for one in diff.pagemaps if one.changed]
    parts.append(_table(changed) if changed else "no pagemap changed")
    sections = (
        ("new", diff.new),
        ("worse", diff.worse),
        ("gone", diff.gone),
        ("not read again:", diff.not_read),
    )
    for title, changes in sections:
        parts.append("\n".join(_section(title, _shown(changes, severity), devices)))
    parts.append(_sum(diff, severity))
    return "\n\n".join(filter(None, parts)) + "\n"
