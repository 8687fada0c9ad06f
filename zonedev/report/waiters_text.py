# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who waits, as text: a paragraph per pagemap, with call traces and the pages that are not free."""

from __future__ import annotations

from zonedev.model import Waiter, short_type
from zonedev.report.terminal import fill
from zonedev.report.text import device_name, finding_line, number, shown_runs, types_words
from zonedev.waiters import Held, WaitersReport


def _waiter(waiter: Waiter) -> list[str]:
    page = "" if waiter.pfn is None else f" for pfn {waiter.pfn:#x}"
    lines = [f"  {waiter.comm} (pid {waiter.pid}) waits in {waiter.function}(){page}"]
    if waiter.stack:
        lines.append(_trace(waiter.stack))
    return lines


def _trace(stack: tuple[str, ...]) -> str:
    """Callees before callers; a name and what marks it stay together."""
    text = " < ".join(name.replace(" ", "\0") for name in stack)
    wrapped = fill(text, "    ")
    return wrapped.replace("\0", " ")


def _pages(held: Held, device: str) -> list[str]:
    if held.unread and not held.busy:
        return [f"  {number(held.unread, 'page')} could not be read"]
    if not held.busy:
        return ["  no page of it is in use"]
    at = "?" if held.idle_refcount is None else held.idle_refcount
    what = "findings:" if held.out else "no finding on them"
    lines = [f"  {number(held.busy, 'page')} in use (free ones rest at {at}); {what}"]
    if held.unread:
        lines[0] += f" ({number(held.unread, 'page')} could not be read)"
    runs = (f"    {one.rule}; {finding_line(one, device)}" for one in held.out)
    return [*lines, *shown_runs(runs, len(held.out))]


def _paragraph(held: Held) -> str:
    pagemap = held.pagemap
    device, count = device_name(pagemap), pagemap.ref.count
    references = "? references" if count is None else number(count, "reference")
    title = f"{device} ({short_type(pagemap.type)}), {pagemap.ref.state}, {references}"
    waiters = [line for waiter in held.waiters for line in _waiter(waiter)]
    lines = [title, *(waiters or ["  no task was seen that waits for it"]), *_pages(held, device)]
    return "\n".join(lines)


def _searched(report: WaitersReport) -> str:
    """The closing line."""
    waiting = report.waiting
    if waiting.why:
        return f"who waits is not known: {waiting.why}"
    lost = f", the stacks of {waiting.lost} of them could not be read" if waiting.lost else ""
    found = sum(len(held.waiters) for held in report.held)
    pagemaps = number(report.pagemaps, "pagemap")
    waits = "waits" if found == 1 else "wait"
    return f"{number(waiting.tasks, 'task')}{lost}; {found} {waits} for pages of {pagemaps}"


def waiters_text(report: WaitersReport) -> str:
    """The report of `zonedev waiters`."""
    parts = [*map(_paragraph, report.held), *(f"problem: {one}" for one in report.problems)]
    return "\n\n".join([*parts, f"{_searched(report)}; {types_words(report.types_from)}"]) + "\n"
