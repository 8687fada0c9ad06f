#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Compare what zonedev explains of pages with the record: who holds each folio, and where in which file is it?

usage: explained.py CORE VMLINUX truth.jsonl [--module FILE] ... [-o RESULT.json]     (with a Python that has zonedev)

Owns the comparison; who must be named is replay.py's (accounts_of()).  Of each folio that the record has done
something to: the refcount adds up, and what is left unexplained are the references that were leaked; every page
table entry with its process, user address and level, and no other; pins and references by kind and process;
every file with path, inode and offset.  Long runs of like folios are sampled, which is said.  Prints each
difference, then one line with figures; exit status 1 if there is a difference, or one page takes minutes.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from replay import Account, FileOffset, accounts_of, world_of

Explanation = dict[str, Any]

# Holders that are page table entries.
MAPS = frozenset(("pte", "pmd", "pud", "device-private", "migration"))

# Folios of a run that are alike and are all explained; of a longer run SAMPLES are, its ends among them.
LONGEST = 4096
SAMPLES = 5

# Folios of one pass over the kernel.
BATCH = 4096

# What explaining a single page may take, and all of this.
MOST_SECONDS = 60
MOST_MIB = 2048


# ---------------------------------------------------------------- one folio


def place(path: str, type_: str) -> str:
    """A path as far as record and kernel must agree: sysfs has links, and a device's node may lie anywhere."""
    components = {"devdax": 1, "p2pdma": 3}.get(type_, 0)
    return "/".join(path.split("/")[-components:])


def map_differences(account: Account, explanation: Explanation) -> Iterator[str]:
    """Page table entries that are named and not recorded, and the reverse."""
    expected = Counter(h[:4] for h in account.holders if h.address is not None)
    seen = Counter(
        (h["kind"], h["pid"], h["address"], h["refs"])
        for h in explanation["holders"]
        if h["kind"] in MAPS
    )
    for wrong, what in ((expected - seen, "not found"), (seen - expected, "the record has none")):
        if what == "not found" or account.certain:
            for kind, pid, address, refs in wrong:
                yield f"{kind} of pid {pid} at {address:#x} (refs {refs}): {what}"


def sums(holders: Iterable[tuple[str, int, int, int]]) -> dict[tuple[str, int], tuple[int, int]]:
    """(kind, pid) -> (refs, pins), of holders (kind, pid, refs, pins); none that holds nothing."""
    total: dict[tuple[str, int], tuple[int, int]] = {}
    for kind, pid, refs, pins in holders:
        before = total.get((kind, pid), (0, 0))
        total[kind, pid] = before[0] + refs, before[1] + pins
    return {who: held for who, held in total.items() if held != (0, 0)}


def pin_differences(account: Account, explanation: Explanation) -> Iterator[str]:
    """Holders beside page table entries: references and pins of each kind and process."""
    if not account.certain:
        return
    expected = sums((h.kind, h.pid, h.refs, h.pins) for h in account.holders if h.address is None)
    seen = sums(
        (h["kind"], h["pid"], h["refs"], h["pins"])
        for h in explanation["holders"]
        if h["kind"] not in MAPS
    )
    for who in sorted(expected.keys() | seen.keys(), key=str):
        if expected.get(who) != seen.get(who):
            yield (
                f"{who[0]} of pid {who[1]}: (refs, pins) are {seen.get(who)}, "
                f"the record says {expected.get(who)}"
            )


def same_file(file: dict[str, Any], expected: FileOffset, type_: str) -> bool:
    return (
        place(file["path"] or "", type_) == place(expected.path, type_)
        and expected.inode in (None, file["inode"])
        and file["offset"] == expected.offset
        and file["deleted"] == expected.deleted
    )


def file_differences(account: Account, explanation: Explanation) -> Iterator[str]:
    """Files that are named and not recorded, and the reverse."""
    files, first = explanation["files"], explanation["file"]
    for expected in account.files:
        if not any(same_file(file, expected, account.type) for file in files):
            yield f"not among its files, which are {files}: {expected}"
    for file in files:
        if not any(same_file(file, expected, account.type) for expected in account.files):
            yield f"a file that the record does not have: {file}; but {account.files}"
    if first not in (files or [None]):
        yield f"file is {first}, files are {files}"


def count_differences(account: Account, explanation: Explanation) -> Iterator[str]:
    """Numbers: the folio, its counts, and whether they add up."""
    recorded = {
        "pfn": account.pfn if account.order is not None else None,
        "order": account.order,
        "refcount": account.refcount,
        "unexplained": account.unexplained,
    }
    for key, value in recorded.items():
        if value not in (None, explanation[key]):
            yield f"{key} is {explanation[key]}, the record says {value}"
    parts = {key: explanation[key] for key in ("base", "explained", "unexplained")}
    if explanation["refcount"] != sum(parts.values()):
        yield f"refcount {explanation['refcount']} is not the sum of {parts}"
    held = sum(holder["refs"] for holder in explanation["holders"])
    if explanation["explained"] != held:
        yield f"explained is {explanation['explained']}, its holders have {held}"


def name_differences(account: Account, explanation: Explanation) -> Iterator[str]:
    """Processes without a name."""
    for holder in explanation["holders"]:
        if holder["pid"] is not None and not holder["comm"]:
            yield f"{holder['kind']}: pid {holder['pid']} has no name"


CHECKS: tuple[Callable[[Account, Explanation], Iterator[str]], ...] = (
    count_differences,
    map_differences,
    pin_differences,
    file_differences,
    name_differences,
)


def differences(account: Account, explanation: Explanation | None) -> Iterator[str]:
    """Whatever an explanation has wrong."""
    if explanation is None:
        yield f"pfn {account.pfn:#x}: not explained ({account.why})"
        return
    for check in CHECKS:
        for text in check(account, explanation):
            gaps = f"; gaps: {', '.join(explanation['gaps'])}" if explanation["gaps"] else ""
            yield f"pfn {account.pfn:#x}: {text} ({account.why}{gaps})"


# ---------------------------------------------------------------- all of them


def likeness(account: Account) -> tuple[Any, ...]:
    """What the folios of a run have in common: all but where they are."""
    holders = [(h.kind, h.pid, h.refs, h.pins) for h in account.holders]
    files = [(f.path, f.inode, f.deleted) for f in account.files]
    counts = (account.order, account.type, account.certain, account.refcount, account.unexplained)
    return (*counts, holders, files, account.why)


def runs(accounts: Iterable[Account]) -> Iterator[list[Account]]:
    """Folios side by side that are alike."""
    run: list[Account] = []
    for account in accounts:
        if run:
            last = run[-1]
            beside = last.pfn + (1 << (last.order or 0)) == account.pfn
            if not beside or likeness(last) != likeness(account):
                yield run
                run = []
        run.append(account)
    if run:
        yield run


def sampled(run: list[Account]) -> list[Account]:
    """A run, or of a long one some folios: its first and last, and others evenly spread between them."""
    if len(run) <= LONGEST:
        return run
    return [run[i * (len(run) - 1) // (SAMPLES - 1)] for i in range(SAMPLES)]


class Result(NamedTuple):
    """The figures, as the JSON has them."""

    touched: int  # folios of the record
    folios: int  # those of them that were explained
    maps: int
    pins: int  # holders that are no page table entries
    leaks: int  # folios with references that nobody holds, or that are missing
    seconds_first: float  # of a page by itself, with all that an explanation has to find out first
    seconds_each: float  # of the others, many in one pass
    peak_mib: int  # of this program, with the debug information
    differences: list[str]

    @property
    def line(self) -> str:
        return (
            f"{self.folios} folios of {self.touched}, {self.maps} maps, {self.pins} pins, {self.leaks} leaks, "
            f"{self.seconds_first:.2f} s the first, {self.seconds_each * 1000:.2f} ms each, "
            f"{self.peak_mib} MiB, {len(self.differences)} differences"
        )


Explain = Callable[[list[int]], dict[int, Explanation]]


def timed(explain: Explain, accounts: list[Account], wrong: list[str]) -> float:
    """Explain some folios in one pass and compare them; seconds that it took."""
    begun = time.monotonic()
    explanations = explain([account.pfn for account in accounts])
    took = time.monotonic() - begun
    for account in accounts:
        wrong += differences(account, explanations.get(account.pfn))
    return took


def peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def limit_differences(seconds: float, mib: int) -> Iterator[str]:
    if seconds > MOST_SECONDS:
        yield f"one page took {seconds:.0f} s, {MOST_SECONDS} are allowed"
    if mib > MOST_MIB:
        yield f"used {mib} MiB, {MOST_MIB} are allowed"


def compare(explain: Explain, accounts: Iterable[Account]) -> Result:
    """Explain every folio, the first by itself, and compare all."""
    all_runs = list(runs(accounts))
    chosen = [account for run in all_runs for account in sampled(run)]
    wrong = [] if chosen else ["the record has done nothing to any page"]
    first = timed(explain, chosen[:1], wrong)
    rest, seconds = iter(chosen[1:]), 0.0
    while batch := list(islice(rest, BATCH)):
        seconds += timed(explain, batch, wrong)
    wrong += limit_differences(first, peak_mib())
    return Result(
        touched=sum(map(len, all_runs)),
        folios=len(chosen),
        maps=sum(h.address is not None for a in chosen for h in a.holders),
        pins=sum(h.address is None for a in chosen for h in a.holders),
        leaks=sum(a.unexplained != 0 for a in chosen),
        seconds_first=first,
        seconds_each=seconds / max(len(chosen) - 1, 1),
        peak_mib=peak_mib(),
        differences=wrong,
    )


def explain_core(core: str, debug_files: list[str]) -> Explain:
    """What explains pages of a core; it is opened with the first."""
    from zonedev.explain import Explainer
    from zonedev.report.data import explain_dict
    from zonedev.target import Target, open_target

    explainers: list[Explainer] = []

    def explain(pfns: list[int]) -> dict[int, Explanation]:
        if not explainers:
            explainers.append(Explainer(open_target(Target(core, debug_files))))
        found = explainers[0].explain_pfns(pfns)
        return {pfn: explain_dict(explanation) for pfn, explanation in found.items()}

    return explain


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("core")
    parser.add_argument("vmlinux")
    parser.add_argument("record", type=Path, help="truth.jsonl")
    parser.add_argument("--module", action="append", default=[], help="debug file of a module")
    parser.add_argument("-o", "--output", type=Path, help="the figures and differences as JSON")
    options = parser.parse_args()
    world = world_of(options.record.read_text(errors="replace").splitlines())
    explain = explain_core(options.core, [options.vmlinux, *options.module])
    result = compare(explain, accounts_of(world))
    if options.output:
        options.output.write_text(json.dumps(result._asdict(), indent=1) + "\n")
    for text in result.differences[:20]:
        print(f"explained.py: {text}")
    if result.folios < result.touched:
        print(f"explained.py: of runs of more than {LONGEST} like folios, {SAMPLES} were explained")
    print(f"explained.py: {result.line}")
    sys.exit(1 if result.differences else 0)


if __name__ == "__main__":
    main()
