# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who waits for the pages of a pagemap: a pass over the stacks of all tasks, and a report of its own.

Owns whether the pass is run and what it says in findings and report, and what `zonedev waiters` tells.  How waiters are
told is kernel/removal.py's.  The pass adds words to findings and no finding: the verdict does not rest on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Optional

from drgn import Program
from drgn.helpers.common.prog import takes_program_or_default

from zonedev.display import Displayed, Listing
from zonedev.errors import UsageError
from zonedev.kernel.btf import types_from
from zonedev.kernel.facts import Kernel, read_kernel
from zonedev.kernel.removal import Waiting, find_waiters
from zonedev.model import Finding, Pagemap, Waiter

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


# ---------------------------------------------------------------- zonedev waiters


@dataclass(repr=False)
class Held(Displayed):
    """A pagemap that tasks wait for, or that is on its way out: who waits, and which of its pages are not free.

    out has the findings (of any severity) on folios with more references than a free one; busy counts pages that are in
    use, with a finding or without; unread, those that could not be read. idle_refcount None: it is not known.
    """

    pagemap: Pagemap
    waiters: list[Waiter]
    out: list[Finding]
    busy: int
    unread: int
    idle_refcount: Optional[int]

    def __post_init__(self) -> None:
        self.waiters, self.out = Listing(self.waiters), Listing(self.out)

    def brief(self) -> str:
        """The pagemap, and how many tasks wait for how many pages."""
        return f"{self.pagemap.brief()}: {len(self.waiters)} tasks wait, {self.busy} pages in use"


@dataclass(repr=False)
class WaitersReport(Displayed):
    """The tasks that wait for pages of pagemaps; pagemaps: how many there are."""

    held: list[Held]
    pagemaps: int
    waiting: Waiting
    types_from: str
    problems: list[str]

    def __post_init__(self) -> None:
        self.held = Listing(self.held)

    def brief(self) -> str:
        """How many tasks wait for which pagemaps."""
        waits = ", ".join(f"{len(one.waiters)} for {one.pagemap.brief()}" for one in self.held)
        return f"of {self.pagemaps} pagemaps: {waits or 'nobody waits'}"

    @property
    def complete(self) -> bool:
        """Whether the stacks of all tasks were searched, for all pagemaps, and every page in question was read."""
        lost = self.waiting.lost or any(held.unread for held in self.held)
        return self.waiting.why is None and not lost and not self.problems

    def __str__(self) -> str:
        from zonedev.report.waiters_text import waiters_text

        return waiters_text(self)


def _held(prog: Program, pagemap: Pagemap, waiters: list[Waiter]) -> Held:
    """What is out of a pagemap, read anew: of a running kernel, it may be gone by now."""
    from zonedev.audit import audit

    try:
        found = audit(prog, pgmaps=[hex(pagemap.address)], quick=True)
    except UsageError:
        return Held(pagemap, waiters, [], 0, 0, None)
    result = next((r for r in found.pagemaps if r.pagemap.address == pagemap.address), None)
    if result is None:
        return Held(pagemap, waiters, [], 0, 0, None)
    idle = result.idle_refcount
    out = [
        one
        for one in found.findings
        if one.pagemap == pagemap.address
        and one.pfn is not None
        and one.refcount is not None
        and one.refcount > (idle or 0)
    ]
    classes = result.classes
    busy = classes["busy"] + classes["violation"]
    return Held(pagemap, waiters, out, busy, classes["not-captured"] + classes["unreadable"], idle)


@takes_program_or_default
def waiters(prog: Program) -> WaitersReport:
    """
    Name the tasks that wait for pages of pagemaps, and for pagemaps to go: who, where, and for which pages.

    :return: The report: ``str()`` of it is what ``zonedev waiters`` prints.
    :raises TargetError: the target cannot be audited
    """
    kernel = read_kernel(prog)
    waiting = find_waiters(prog, kernel.pagemaps, kernel.layout, stacks=True)
    wanted = [p for p in kernel.pagemaps if p.address in waiting.waiters or p.ref.state != "live"]
    return WaitersReport(
        [_held(prog, p, waiting.waiters.get(p.address, [])) for p in wanted],
        len(kernel.pagemaps),
        waiting,
        types_from(prog),
        list(kernel.problems),
    )
