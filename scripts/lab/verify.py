#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Compare what zonedev says of a core with the replayed record: every page, every finding.

usage: verify.py CORE VMLINUX truth-states.json [-o RESULT.json]     (with a Python that has zonedev)

Owns the comparison; what must be there is replay.py's.  check_states.py is its independent twin: it
reads the same pages without zonedev, so that an error in either shows.
Compared: refcount, mapcount, order and mapping of each head; the class of each page; and the findings
above info, which must be exactly those pages that the record calls wrong; holders that the record
knows must be information.  Prints each difference, then one line; exit status 1 if there is any.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Optional

from drgn import Program

from zonedev import _zonedev
from zonedev.audit import audit
from zonedev.kernel.facts import Kernel, read_kernel
from zonedev.kernel.vmemmap import Hole, read_memmap
from zonedev.model import Audit, Finding, Pagemap
from zonedev.scanner import pagemap_spec
from zonedev.second_pass import FS_DAX, DaxPass
from zonedev.target import Target, open_target

# Only the pass over DAX entries can tell this from a block of one file.
NEEDS_ENTRIES = "block of two files, not marked shared"

# Struct pages read at once.
_CHUNK = 1 << 13

State = dict[str, Any]


@dataclasses.dataclass
class Comparison:
    """The result, as the lab's table and its JSON show it."""

    kernel: str
    scenario: str
    scheme: str
    verdict: str
    # pages by memory type and class
    classes: dict[str, dict[str, int]]
    records: int  # runs of equal state
    pages: int  # pages that they cover
    expected: int  # pages and pagemaps that the record calls wrong
    found: int  # pages and pagemaps with a finding above info
    rules: dict[str, int]  # findings above info by rule
    info: int  # findings that are information
    differences: list[str]


def pagemap_of(kernel: Kernel, pfn: int) -> Pagemap:
    """The pagemap of a page of the record.

    :raises LookupError: there is none
    """
    pagemap = kernel.find(pfn)
    if pagemap is None:
        raise LookupError(f"no pagemap covers pfn {pfn:#x} of the record")
    return pagemap


def classes_of(
    prog: Program,
    kernel: Kernel,
    pfn: int,
    count: int,
    entries: Optional[_zonedev.Entries] = None,
) -> dict[str, int]:
    """Scan the pages [pfn, pfn + count) by themselves: pages by class, none that is 0."""
    layout = kernel.layout
    pagemap = pagemap_of(kernel, pfn)
    scheme = kernel.scheme_of(pagemap, kernel.scheme)
    known = entries if pagemap.type == FS_DAX else None
    scan = _zonedev.Scan(layout.layout, scheme, pagemap_spec(pagemap), entries=known)
    scan.begin(pfn, pfn + count, layout.page_address(pfn), pagemap.index_bias(pfn))
    for piece in read_memmap(prog, layout.page_address(pfn), count, layout):
        if isinstance(piece, Hole):
            scan.hole(piece.pages, piece.class_)
        else:
            scan.pages(piece.data)
    scan.end()
    return {class_: n for class_, n in scan.result()["classes"].items() if n}


def _raw_heads(
    prog: Program, kernel: Kernel, pfn: int, end: int, step: int
) -> Iterator[tuple[int, bytes]]:
    """(pfn, struct page and up to three tails) of every head of [pfn, end)."""
    layout = kernel.layout
    size, words = layout.page_size, min(4, step)
    if step > 1:
        for head in range(pfn, end, step):
            yield head, prog.read(layout.page_address(head), words * size)
        return
    for first in range(pfn, end, _CHUNK):
        last = min(first + _CHUNK, end)
        data = prog.read(layout.page_address(first), (last - first) * size)
        for i in range(last - first):
            yield first + i, data[i * size : (i + 1) * size]


def heads(prog: Program, kernel: Kernel, state: State) -> Iterator[dict[str, Any]]:
    """Every head of a run of the record, decoded."""
    pagemap = pagemap_of(kernel, state["pfn"])
    spec, scheme = pagemap_spec(pagemap), kernel.scheme_of(pagemap, kernel.scheme)
    first, end = state["pfn"], state["pfn"] + state["count"]
    bounds = (first, end, kernel.layout.page_address(first))
    for pfn, raw in _raw_heads(prog, kernel, first, end, 1 << (state["order"] or 0)):
        yield _zonedev.decode(kernel.layout.layout, scheme, spec, bounds, pfn, raw)


def mapping_kind(state: State, folio: dict[str, Any]) -> str:
    """The mapping word in the words of the record."""
    # A free private page keeps the index of its last user in that word.
    shared = folio["mapping"] == 1 or (not folio["mapping"] and folio["share"])
    if shared and state["type"] == "fsdax":
        return "shared"
    return "file" if folio["mapping"] else "none"


def covered(finding: Finding) -> range:
    """The pages of a finding."""
    assert finding.pfn is not None
    return range(finding.pfn, finding.pfn + finding.pages)


def _overlap(a: range, b: range) -> bool:
    return a.start < b.stop and b.start < a.stop


def level_of(findings: Iterable[Finding], pfns: range) -> set[str]:
    """Severities of the findings on some pages."""
    return {f.severity for f in findings if f.pfn is not None and _overlap(covered(f), pfns)}


def finding_level(state: State) -> Optional[str]:
    """`info`, `error-or-warning` or None."""
    return (state.get("finding") or {}).get("level")


def alarming(states: Iterable[State], entries: bool = False) -> set[int]:
    """Pages that the record calls wrong; without DAX entries as far as a page's own state can show it."""
    pfns: set[int] = set()
    for state in states:
        shown = entries or (state.get("finding") or {}).get("name") != NEEDS_ENTRIES
        if finding_level(state) == "error-or-warning" and shown:
            tails = [int(pfn) for pfn in state.get("tail_refcounts", {})]
            end = state["pfn"] + state["count"]
            pfns |= set(tails or range(state["pfn"], end, 1 << (state["order"] or 0)))
    return pfns


def reported(findings: Iterable[Finding]) -> set[int]:
    """Pages with a finding above info."""
    return {
        pfn for f in findings if f.severity != "info" and f.pfn is not None for pfn in covered(f)
    }


def alarming_pagemaps(findings: Iterable[Finding]) -> dict[int, Finding]:
    """Address of a pagemap -> a finding above info on it as a whole."""
    return {f.pagemap: f for f in findings if f.severity != "info" and f.pfn is None}


def count_differences(prog: Program, kernel: Kernel, state: State) -> Iterator[str]:
    """Heads of a run whose counts, order or mapping are not the record's."""
    for folio in heads(prog, kernel, state):
        seen = {
            "refcount": folio["refcount"],
            "mapcount": folio["mapcount"],
            "order": folio["order"],
            "mapping": mapping_kind(state, folio),
        }
        for key, value in seen.items():
            if state[key] not in (None, "any", value):
                yield (
                    f"pfn {folio['pfn']:#x}: {key} is {value}, the record says {state[key]} ({state['why']})"
                )


def class_differences(
    prog: Program,
    kernel: Kernel,
    state: State,
    findings: Iterable[Finding],
    entries: Optional[_zonedev.Entries] = None,
) -> Iterator[str]:
    """A run whose pages are not all of the record's class."""
    classes = classes_of(prog, kernel, state["pfn"], state["count"], entries)
    # Struct pages that share their memory with ones already read are counted by themselves.
    classes.pop("skipped", None)
    # What the record calls wrong is a violation where this kernel permits it in no way (error).
    wrong = finding_level(state) == "error-or-warning"
    pfns = range(state["pfn"], state["pfn"] + state["count"])
    expected = "violation" if wrong and "error" in level_of(findings, pfns) else state["class"]
    # Its own words are those of a freed page: only the entries of its files tell.
    accepted = [{expected}] + [{"idle"}] * (state.get("needs") == "dax-entries" and not entries)
    if set(classes) not in accepted:
        yield f"pfn {state['pfn']:#x}: class {classes}, the record says {expected} ({state['why']})"


def finding_differences(
    states: list[State], findings: list[Finding], entries: bool = False
) -> Iterator[str]:
    """Findings on pages that should be there and are not, and the reverse."""
    expected, seen = alarming(states, entries), reported(findings)
    for pfn in sorted(expected - seen):
        yield f"pfn {pfn:#x}: not found; the record calls it wrong"
    for pfn in sorted(seen - expected):
        rules = {f.rule for f in findings if f.pfn is not None and pfn in covered(f)}
        yield f"pfn {pfn:#x}: {', '.join(sorted(rules))}: the record calls it right"
    for state in states:
        pfns = range(state["pfn"], state["pfn"] + state["count"])
        if state.get("needs") == "holders":
            continue  # one reference more than mappings: nothing in the page says whose
        if finding_level(state) == "info" and level_of(findings, pfns) != {"info"}:
            yield f"pfn {state['pfn']:#x}: {state['why']}: is not reported as held"


def pagemap_differences(
    kernel: Kernel, pagemaps: list[State], findings: list[Finding]
) -> Iterator[str]:
    """Findings on whole pagemaps: of each pagemap that the record names, and of no other."""
    expected = {pagemap_of(kernel, state["pfn"]).address: state for state in pagemaps}
    seen = alarming_pagemaps(findings)
    for address in sorted(expected.keys() - seen.keys()):
        state = expected[address]
        yield f"pagemap of pfn {state['pfn']:#x}: nothing found; it is {state['finding']['name']}"
    for address in sorted(seen.keys() - expected.keys()):
        finding = seen[address]
        yield f"pagemap {address:#x}: {finding.rule}: {finding.detail}: the record calls it right"


def entries_of(kernel: Kernel) -> Optional[_zonedev.Entries]:
    """What the files say of FS_DAX pages, where the core holds all of it."""
    dax = DaxPass(kernel)
    return dax.entries if dax.complete else None


def differences(
    prog: Program,
    kernel: Kernel,
    truth: dict[str, Any],
    findings: list[Finding],
    entries: Optional[_zonedev.Entries] = None,
) -> Iterator[str]:
    """All differences, page by page."""
    states: list[State] = truth["states"]
    for state in states:
        try:
            yield from count_differences(prog, kernel, state)
            yield from class_differences(prog, kernel, state, findings, entries)
        except LookupError as err:
            yield str(err)
    yield from finding_differences(states, findings, entries is not None)
    yield from pagemap_differences(kernel, truth.get("pagemaps", []), findings)


def classes_by_type(result: Audit) -> dict[str, dict[str, int]]:
    """Pages by memory type and class, classes without pages left out."""
    table: dict[str, Counter[str]] = {}
    for one in result.pagemaps:
        table.setdefault(one.pagemap.type.replace("MEMORY_DEVICE_", ""), Counter()).update(
            one.classes
        )
    return {type_: {c: n for c, n in counts.items() if n} for type_, counts in table.items()}


def compare(prog: Program, truth: dict[str, Any]) -> Comparison:
    """Audit a core and compare it with truth-states.json."""
    kernel = read_kernel(prog)
    result: Audit = audit(prog)
    states, entries = truth["states"], entries_of(kernel)
    wrong = list(differences(prog, kernel, truth, result.findings, entries))
    wrong += [f"the record contradicts itself: {problem}" for problem in truth["problems"]]
    return Comparison(
        kernel=truth["kernel"],
        scenario=truth["scenario"],
        scheme=kernel.info.id,
        verdict=result.verdict,
        classes=classes_by_type(result),
        records=len(states),
        pages=sum(state["count"] for state in states),
        expected=len(alarming(states, entries is not None)) + len(truth.get("pagemaps", [])),
        found=len(reported(result.findings)) + len(alarming_pagemaps(result.findings)),
        rules=dict(Counter(f.rule for f in result.findings if f.severity != "info")),
        info=sum(1 for f in result.findings if f.severity == "info"),
        differences=wrong,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("core")
    parser.add_argument("vmlinux")
    parser.add_argument("states", type=Path)
    parser.add_argument("--module", action="append", default=[], help="debug file of a module")
    parser.add_argument("-o", "--output", type=Path, help="the comparison as JSON")
    options = parser.parse_args()
    prog = open_target(Target(options.core, [options.vmlinux, *options.module]))
    result = compare(prog, json.loads(options.states.read_text()))
    if options.output:
        options.output.write_text(json.dumps(dataclasses.asdict(result), indent=1) + "\n")
    for line in result.differences[:20]:
        print(f"verify.py: {line}")
    print(
        f"verify.py: {result.records} records, {result.pages} pages, findings {result.found} of "
        f"{result.expected}, {len(result.differences)} differences"
    )
    sys.exit(1 if result.differences else 0)


if __name__ == "__main__":
    main()
