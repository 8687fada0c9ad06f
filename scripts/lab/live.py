#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Audit a running kernel again and again while its device pages churn, and check what the audits said.

usage: live.py audit (-k | --qemu SOCKET) [options] (VMLINUX... | --btf)   (with a Python that has zonedev)
       live.py check DIRECTORY                                             (a run of boot.py --audits N)

audit: opens the kernel once (of the files VMLINUX, the one with the kernel's build id; or by the types that it has
of itself) and audits it N times as zonedev's users do, one JSON line an audit: what was alarming at first (candidates), what stood,
and how many operations churn.c did meanwhile. Then explains pages that the record says are held, one of each sort,
and compares (explained.py). Runs inside of the guest, or beside it through QMP.
check: prints one line a series of audits, and a table of the churn. A finding above info must be one that
the record expects (replay.py), and each audit must have all of those. Exit status 1 for anything else, for
audits under which nothing churned, and for explanations that are not what the record says.

Owns the series of audits and their judgement; the virtual machine is boot.py's, the record replay.py's.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drgn import Program
    from replay import Account

    from zonedev.model import Audit, Finding

HERE = Path(__file__).resolve().parent
REPO = HERE.parent.parent

# struct counter of guest/churn.c: a name, operations done and failed.
COUNTER = struct.Struct("40sQQ")

# Findings of one kind that a line of the series tells in full; the others only count.
_TOLD_MAX = 8

Event = dict[str, Any]


# ---------------------------------------------------------------- churn meanwhile


def read_counters(data: bytes) -> dict[str, int]:
    """Operations done, by name; "failed" is the sum of those that were not."""
    counts: Counter[str] = Counter()
    for name, done, failed in COUNTER.iter_unpack(data[: len(data) // COUNTER.size * COUNTER.size]):
        if name.strip(b"\0"):
            counts[name.rstrip(b"\0").decode()] += done
            counts["failed"] += failed
    return dict(counts)


def counters_of_file(name: str) -> Callable[[], dict[str, int]]:
    path = Path(name)
    return lambda: read_counters(path.read_bytes()) if path.exists() else {}


def counters_of_record(name: str) -> Callable[[], dict[str, int]]:
    """As churn.c tells them in the record, twice a second."""
    path = Path(name)

    def last() -> dict[str, int]:
        lines = re.findall(r'^\{"ev":"churn",.*\}$', path.read_text(errors="replace"), re.M)
        event = json.loads(lines[-1]) if lines else {}
        return {name: event[name] for name in ("done", "failed") if name in event}

    return last


def device_of(name: str) -> str:
    """The device of a counter, which is called DEVICE.OPERATION."""
    return name.rpartition(".")[0]


def difference(now: dict[str, int], before: dict[str, int]) -> dict[str, int]:
    return {name: n - before.get(name, 0) for name, n in now.items() if n != before.get(name, 0)}


def wait_for_change(counters: Callable[[], dict[str, int]], before: dict[str, int]) -> None:
    """Let the churn go on, for no longer than a few seconds: it is told of at intervals only."""
    for _ in range(50):
        if counters() != before:
            return
        time.sleep(0.1)


# ---------------------------------------------------------------- explanations


def held_pages(lines: Iterable[str]) -> list[Account]:
    """Folios of a record that are held: the first of each sort, which is who holds how much of what."""
    import replay

    first: dict[tuple[Any, ...], Account] = {}
    for account in replay.accounts_of(replay.world_of(lines)):
        held = sorted((holder.kind, holder.refs, holder.pins) for holder in account.holders)
        if account.certain and (held or account.unexplained):
            first.setdefault((account.type, account.unexplained, *held), account)
    return list(first.values())


def is_blind(explanation: Event) -> bool:
    """True where an explanation rests on DAX entries, which are not read of a running kernel."""
    return any(gap.startswith("DAX entries were not read") for gap in explanation["gaps"])


def explained_event(accounts: Iterable[Account], explanations: dict[int, Event]) -> Event:
    """How explanations compare with the record; a page may be unreadable from inside."""
    import explained

    seen = [account for account in accounts if account.pfn in explanations]
    sighted = [account for account in seen if not is_blind(explanations[account.pfn])]
    wrong = [
        text for a in sighted for text in explained.differences(a, explanations[a.pfn])
    ]  # fmt: skip
    return {
        "ev": "explained",
        "pages": len(sighted),
        "blind": len(seen) - len(sighted),
        "differences": wrong,
    }


def explain_record(prog: Program, path: Path) -> Event:
    """Explain held pages of a record that is still being written."""
    from zonedev.errors import ZonedevError
    from zonedev.explain import Explainer
    from zonedev.report.data import explain_dict

    lines = path.read_text(errors="replace").splitlines(keepends=True)
    accounts = held_pages(line for line in lines if line.endswith("}\n"))
    start = time.monotonic()
    try:
        found, lost = Explainer(prog).explain_all(account.pfn for account in accounts)
    except (ZonedevError, LookupError, ValueError, OSError) as err:
        return {"ev": "explained", "pages": 0, "differences": [f"{type(err).__name__}: {err}"]}
    seconds = round(time.monotonic() - start, 3)
    explanations = {pfn: explain_dict(explanation) for pfn, explanation in found.items()}
    return explained_event(accounts, explanations) | {"s": seconds, "unreadable": len(lost)}


# ---------------------------------------------------------------- the audits


def matching(prog: Program, candidates: Sequence[str]) -> str:
    """The debug file of this very kernel."""
    from zonedev import _zonedev
    from zonedev.target import kernel_build_id

    wanted = kernel_build_id(prog)
    for path in candidates:
        if _zonedev.elf_info(path)["build_id"] == wanted:
            return path
    sys.exit(f"live.py: of {len(candidates)} debug files, none is of the kernel with build id "
             f"{wanted.hex() if wanted else 'unknown'}; run fetch.py --debug")  # fmt: skip


def ranges_of(result: Audit, address: int) -> list[tuple[int, int]]:
    pagemaps = [p.pagemap for p in result.pagemaps if p.pagemap.address == address]
    return [(r.start_pfn, r.end_pfn) for p in pagemaps for r in p.ranges]


def told(finding: Finding, result: Audit) -> Event:
    """A finding as the series tells it."""
    event: Event = {"rule": finding.rule, "severity": finding.severity, "pagemap": finding.pagemap}
    if finding.pfn is None:
        ranges = ranges_of(result, finding.pagemap)
        return event | {"pfn": None, "detail": finding.detail, "ranges": ranges}
    names = ("pfn", "count", "pages", "order", "refcount", "mapcount", "mapping", "index")
    return event | {name: getattr(finding, name) for name in names} | {"raw": finding.raw.hex()}


def rules(findings: Iterable[Finding]) -> dict[str, int]:
    return dict(Counter(finding.rule for finding in findings))


def audit_event(result: Audit, seconds: float) -> Event:
    """One line of the series."""
    standing = [f for f in result.findings if f.severity != "info"]
    return {
        "ev": "audit",
        "s": round(seconds, 3),
        "scan_s": round(result.scan_s, 3),
        "pages": result.pages,
        "classes": {name: n for name, n in result.classes.items() if n},
        "verdict": result.verdict,
        "problems": result.problems,
        "lost": [
            (r.start_pfn, r.end_pfn)
            for p in result.pagemaps
            for r in p.pagemap.ranges
            if p.classes["not-captured"]
        ],
        "info": sum(f.count for f in result.findings if f.severity == "info"),
        "candidates": rules([*result.transients, *standing]),
        "samples": dict(Counter(str(f.samples) for f in result.transients)),
        "transient": [told(f, result) for f in result.transients[:_TOLD_MAX]],
        "standing": [told(f, result) for f in standing],
    }


def series(
    prog: Program,
    count: int,
    counters: Callable[[], dict[str, int]],
    say: Callable[[Event], None],
    **how: Any,
) -> None:
    """Audit `count` times; an audit that fails is a line with its error."""
    from zonedev.audit import audit
    from zonedev.errors import ZonedevError

    before = counters()
    for n in range(count):
        wait_for_change(counters, before)
        start = time.monotonic()
        try:
            event = audit_event(audit(prog, **how), time.monotonic() - start)
        except (ZonedevError, LookupError, ValueError, OSError) as err:
            event = {"ev": "audit", "error": f"{type(err).__name__}: {err}"}
        now = counters()
        say(event | {"n": n, "churn": difference(now, before)})
        before = now


def run_audits(options: argparse.Namespace) -> None:
    from zonedev.target import Target, open_target

    def say(event: Event) -> None:
        # one write a line: others write to the guest's record, too
        line = json.dumps(event | {"from": place})
        os.write(out, line.encode() + b"\n")

    place = ("outside" if options.qemu else "inside") + (" by BTF" if options.btf else "")
    out = os.open(options.output, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY, 0o644)
    start = time.monotonic()
    target = Target(kernel=options.kernel, qemu=options.qemu)
    if options.btf:
        target.btf = True
    else:
        target.symbols = [matching(attached(target), options.vmlinux)]
    prog = open_target(target)
    opened = round(time.monotonic() - start, 1)
    counters = options.churn
    devices = sorted({device_of(name) for name in counters()} - {""})
    explains = options.explain is not None
    say(
        {
            "ev": "audits",
            "count": options.count,
            "open_s": opened,
            "devices": devices,
            "explains": explains,
        }
    )
    how = {"samples": options.samples, "resample_ms": options.resample_ms}
    series(prog, options.count, counters, say, **{k: v for k, v in how.items() if v is not None})
    if explains:
        say(explain_record(prog, options.explain))


def attached(target: Any) -> Program:
    """The kernel without its types: enough for its build id."""
    from drgn import Program

    prog = Program()
    if target.qemu:
        prog.set_qemu_qmp(target.qemu)
    else:
        prog.set_kernel()
    return prog


# ---------------------------------------------------------------- command lines for boot.py


def candidates(lab: Path, release: str) -> list[Path]:
    """Debug files that may be a kernel's: its debug package's, else those of the bundled vmcores.

    A bundled one has the types that the audit of its core asked for; an audit of a running kernel may ask
    for more.
    """
    full = lab / "debug" / release / "vmlinux"
    bundled = (REPO / "tests" / "vmcores").glob("*/vmlinux")
    return [full] if full.exists() else sorted(bundled, key=lambda path: -path.stat().st_size)


def command(lab: Path, release: str, count: int, btf: bool, *target: object) -> list[str]:
    """The words of `live.py audit`."""
    python = os.environ.get("PYTHON", sys.executable)
    types = ["--btf"] if btf else candidates(lab, release)
    words = [python, HERE / "live.py", "audit", "-n", count, *target, *types]
    return [str(word) for word in words]


# ---------------------------------------------------------------- the check


@dataclasses.dataclass
class Series:
    """The audits of one run from one place, and what is wrong with them."""

    name: str
    wanted: int
    devices: list[str]
    audits: list[Event] = dataclasses.field(default_factory=list)
    explains: bool = False  # announced that it explains pages
    explained: list[Event] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)

    def total(self, name: str) -> Counter[str]:
        """Sum over the audits of a member that counts by name."""
        total: Counter[str] = Counter()
        for event in self.audits:
            total.update(event.get(name, {}))
        return total


def series_of(events: Iterable[Event]) -> list[Series]:
    found: dict[str, Series] = {}
    for event in events:
        if event.get("ev") == "audits":
            one = Series(event["from"], event["count"], event["devices"])
            one.explains = event.get("explains", False)
            found[event["from"]] = one
        elif event.get("ev") == "audit":
            found[event["from"]].audits.append(event)
        elif event.get("ev") == "explained":
            found[event["from"]].explained.append(event)
    return list(found.values())


def in_ranges(pfn: int, ranges: Iterable[Sequence[int]]) -> bool:
    return any(start <= pfn < end for start, end in ranges)


def covered(finding: Event) -> range:
    return range(finding["pfn"], finding["pfn"] + finding["pages"])


@dataclasses.dataclass(frozen=True)
class Page:
    """A page that the record calls wrong."""

    pfn: int
    folio: range  # a finding on any page of it is no false alarm


def is_consequence(finding: Event, expected: list[Page]) -> bool:
    """True for a sum over a pagemap's pages that a planted count must upset."""
    inside = [page for page in expected if in_ranges(page.pfn, finding["ranges"])]
    return bool(finding["rule"] == "ref-versus-pages" and inside)


def unexpected(event: Event, expected: list[Page]) -> Iterator[str]:
    """Findings above info that the record does not call for, and what could not be judged."""
    legal = {pfn for page in expected for pfn in page.folio}
    for finding in event["standing"]:
        if finding["pfn"] is None:
            if not is_consequence(finding, expected):
                yield f"{finding['rule']} on a pagemap: {finding['detail']}"
        elif set(covered(finding)) - legal:
            yield (
                f"{finding['severity']} {finding['rule']} at pfn {finding['pfn']:#x}: "
                f"refcount {finding['refcount']}, mapcount {finding['mapcount']}"
            )
    # test_hmm adds pagemaps while it is used.
    yield from (text for text in event["problems"] if "is being added" not in text)


def unread(event: Event, page: Page) -> bool:
    """True where the page's pagemap was not read as a whole: its memmap lies on the device."""
    return in_ranges(page.pfn, event["lost"])


def judge(event: Event, expected: list[Page]) -> list[str]:
    """What is wrong with one audit."""
    if "error" in event:
        return [f"failed: {event['error']}"]
    seen = {pfn for f in event["standing"] if f["pfn"] is not None for pfn in covered(f)}
    missed = [page for page in expected if page.pfn not in seen and not unread(event, page)]
    return [
        *unexpected(event, expected),
        *(f"pfn {page.pfn:#x} was not found" for page in missed),
    ]


def expectation(states: Iterable[Event]) -> list[Page]:
    """Pages that the record calls wrong, in the order of their pfns."""
    import verify

    pages = []
    for state in states:
        size = 1 << (state["order"] or 0)
        for pfn in sorted(verify.alarming([state])):
            head = state["pfn"] + (pfn - state["pfn"]) // size * size
            pages.append(Page(pfn, range(head, head + size)))
    return pages


def stalled(one: Series) -> list[str]:
    """Devices on which the last quarter of the audits saw no operation."""
    last = one.audits[-(len(one.audits) // 4 + 1) :]
    moving = {device_of(name) for event in last for name in event.get("churn", {})}
    return [device for device in one.devices if device not in moving]


def check_explained(one: Series) -> Iterator[str]:
    """What is wrong with the explanations of a series."""
    if one.explains and not any(event["pages"] for event in one.explained):
        yield "no page was explained"
    for event in one.explained:
        yield from (f"explained: {text}" for text in event["differences"])


def check_series(one: Series, expected: list[Page], churns: bool) -> None:
    """Fill in the problems of a series."""
    for event in one.audits:
        one.problems += [f"audit {event['n']}: {text}" for text in judge(event, expected)]
    if len(one.audits) != one.wanted:
        one.problems.append(f"{len(one.audits)} audits of {one.wanted}")
    still = [event["n"] for event in one.audits if not event.get("churn")]
    if churns and still:
        one.problems.append(f"nothing churned under {len(still)} audits: {still[:10]}")
    one.problems += [f"nothing churned on {device} in the end" for device in stalled(one)]
    one.problems += check_explained(one)


def named(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.most_common() if n) or "none"


def spread(numbers: Sequence[float]) -> str:
    ordered = sorted(numbers) or [0]
    return f"{ordered[len(ordered) // 2]:g} ({ordered[0]:g} to {ordered[-1]:g})"


def operations(event: Event) -> int:
    return sum(n for name, n in event.get("churn", {}).items() if name != "failed")


def figures(one: Series, expected: list[Page]) -> list[str]:
    """What a series looked like, for people."""
    audits = [event for event in one.audits if "error" not in event]
    standing = Counter(f["rule"] for event in audits for f in event["standing"])
    lasted = {int(n): count for n, count in one.total("samples").items()}
    blind = [page for page in expected if any(unread(event, page) for event in audits)]
    return [
        f"{one.name}: {len(one.audits)} audits, seconds each {spread([e['s'] for e in audits])}",
        f"  operations an audit {spread([operations(e) for e in one.audits])}, in all "
        f"{sum(map(operations, one.audits))}, failed {one.total('churn')['failed']}",
        f"  transient: {named(one.total('candidates') - standing)}; the same in a second sample: "
        f"{sum(n for samples, n in lasted.items() if samples > 1)}, at most {max(lasted, default=0)} samples",
        f"  standing: {named(standing)}; planted: {len(expected)} pages, of which {len(blind)} "
        "may be unreadable from there",
        *(
            f"  explained: {event['pages']} pages in {event.get('s')} s, {len(event['differences'])} differences; "
            f"{event.get('blind', 0)} more rest on DAX entries, {event.get('unreadable', 0)} are unreadable from there"
            for event in one.explained
        ),
    ]


def churn_table(one: Series) -> list[str]:
    """Operations over all devices, where they are told by name."""
    churn: Counter[str] = Counter()
    for name, n in one.total("churn").items():
        if "." in name:
            churn[name.rsplit(".", 1)[1]] += n
    return [f"  churn: {named(churn)}"] if churn else []


def events_of(path: Path) -> list[Event]:
    if not path.exists():
        return []
    lines = path.read_text(errors="replace").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def check(directory: Path) -> int:
    """Judge a run of boot.py; prints its figures, returns the exit status."""
    import replay

    record = (directory / "truth.jsonl").read_text(errors="replace").splitlines()
    truth = replay.replay(record)
    expected = expectation(truth["states"])
    churns = "churn" in truth["scenario"].split(",")
    found = series_of(
        [*events_of(directory / "truth.jsonl"), *events_of(directory / "outside.jsonl")]
    )
    problems = [f"the record contradicts itself: {text}" for text in truth["problems"]]
    problems += [] if found else ["there are no audits in it"]
    print(f"{truth['kernel']}: {truth['scenario']}")
    for one in found:
        check_series(one, expected, churns)
        print("\n".join([*figures(one, expected), *churn_table(one)]))
        problems += [f"{one.name}: {text}" for text in one.problems]
    for text in problems[:40]:
        print(f"live.py: {text}")
    print(f"live.py: {directory.name}: {len(problems)} problems")
    return 1 if problems else 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    audits = verbs.add_parser("audit")
    target = audits.add_mutually_exclusive_group(required=True)
    target.add_argument("-k", "--kernel", action="store_true", help="the running kernel")
    target.add_argument(
        "--qemu", metavar="SOCKET", help="a guest, by the socket of its QMP monitor"
    )
    audits.add_argument("-n", "--count", type=int, default=100, help="audits")
    audits.add_argument("-o", "--output", default="/dev/stdout", help="where the lines go")
    churn = audits.add_mutually_exclusive_group(required=True)
    churn.add_argument(
        "--counters", dest="churn", type=counters_of_file, metavar="FILE", help="of churn.c"
    )
    churn.add_argument(
        "--record", dest="churn", type=counters_of_record, metavar="FILE",
        help="truth.jsonl that tells of the churn",
    )  # fmt: skip
    audits.add_argument(
        "--explain", type=Path, metavar="FILE", help="truth.jsonl: explain pages that are held"
    )
    audits.add_argument("--samples", type=int, help="samples that must agree (default: zonedev's)")
    audits.add_argument("--resample-ms", type=int, help="time between them (default: zonedev's)")
    types = audits.add_mutually_exclusive_group(required=True)
    types.add_argument("--btf", action="store_true", help="types that the kernel has of itself")
    types.add_argument(
        "vmlinux", nargs="*", default=[], help="debug files; the kernel's own is taken"
    )
    verbs.add_parser("check").add_argument("directory", type=Path)
    options = parser.parse_args()
    if options.verb == "check":
        sys.exit(check(options.directory))
    run_audits(options)


if __name__ == "__main__":
    main()
