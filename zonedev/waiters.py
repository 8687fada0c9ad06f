# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who waits for the pages of a dying pagemap: a pass over the stacks of all tasks.

Owns whether it is run and what it says in findings and report.  How waiters are told is kernel/removal.py's.
It adds words to findings and no finding: the verdict does not rest on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Optional

from zonedev.kernel.facts import Kernel
from zonedev.kernel.removal import Waiting, find_waiters
from zonedev.model import Finding

_RULES = frozenset(("dying-busy", "dead-in-registry"))

_NAMED_MAX = 3


def _text(finding: Finding, waiting: Waiting) -> str:
    if not finding.waiters:
        if waiting.why:
            return f"who waits is not known: {waiting.why}"
        lost = f" whose stack could be read ({waiting.lost} could not)" if waiting.lost else ""
        return f"no task{lost} waits for it"
    named = [f"{w.comm} (pid {w.pid}, {w.function})" for w in finding.waiters[:_NAMED_MAX]]
    more = len(finding.waiters) - len(named)
    return "waiting: " + ", ".join(named) + (f" and {more} more" if more else "")


def name_waiters(kernel: Kernel, findings: Iterable[Finding]) -> Optional[dict[str, Any]]:
    """Add the tasks that wait to findings on dying pagemaps; the pass in the report, None if there is none such."""
    mine = [f for f in findings if f.rule in _RULES]
    addresses = {f.pagemap for f in mine}
    if not mine:
        return None
    dying = [p for p in kernel.pagemaps if p.address in addresses]
    waiting = find_waiters(kernel.prog, dying, kernel.layout)
    for finding in mine:
        finding.waiters = waiting.waiters.get(finding.pagemap, [])
        finding.detail = "; ".join(filter(None, (finding.detail, _text(finding, waiting))))
    summary: dict[str, Any] = {"pass": "removal-waiters", "ran": waiting.why is None}
    if waiting.why:
        return {**summary, "why": waiting.why}
    return {
        **summary,
        "complete": not waiting.lost,
        "pagemaps": len(dying),
        "tasks": waiting.tasks,
        "lost": waiting.lost,
        "waiters": sum(len(one) for one in waiting.waiters.values()),
    }
