#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Precision and recall of every rule over faults in places that are drawn.

usage: score.py [--seeds N] [--first SEED] [--jobs N] [--write FILE] [NAME ...]   (with a Python that has zonedev)

NAMEs are bundled cores. Each seed draws other places for the whole table of faults (inject.py) in each core. recall: faults that
the audit named by their rule, of those injected. precision: findings that the truth asks for, of all that were not
there before. quiet: near misses that nothing was said of. Exit status 1 if anything came out wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

from faults import FAULTS
from inject import Report, check, inject

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from unpack_vmcore import unpack  # noqa: E402

VMCORES = ROOT / "tests" / "vmcores"

# All schemes and memory types that a bundled core shows, as ELF.
CORES = (
    "5.10-entries",
    "6.1-entries",
    "6.16-entries",
    "6.16-hmm-leak",
    "6.16-p2p-leak",
    "7.2-entries",
    "7.2-hmm",
    "7.2-p2p",
)

Row = tuple[str, str, str]


class Score(NamedTuple):
    """Of a rule: faults injected and named, near misses and those left alone, findings and wrong ones."""

    injected: int = 0
    found: int = 0
    near: int = 0
    quiet: int = 0
    findings: int = 0
    wrong: int = 0

    def __add__(self, other: object) -> Score:
        assert isinstance(other, Score)
        return Score(*(a + b for a, b in zip(self, other)))


def run(name: str, seed: int) -> Report:
    """Inject, and look for what was injected."""
    directory = VMCORES / name
    core = unpack(directory, ROOT / "build" / "vmcores")
    modules = [str(path) for path in sorted(directory.glob("*.ko.debug"))]
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "injected"
        inject(str(core), str(directory / "vmlinux"), out, FAULTS, seed=seed, modules=modules)
        return check(out)


def findings_of(report: Report) -> Iterator[tuple[str, Score]]:
    """Rule -> findings that the faults brought, and those of them that nobody asked for."""
    for outcome in report.outcomes.values():
        brought = Counter(key[0] for key in outcome.found - report.before)
        wrong = Counter(key[0] for key in outcome.unexpected)
        for rule in brought | wrong:
            yield rule, Score(findings=brought[rule], wrong=wrong[rule])


def add(total: dict[Row, Score], report: Report) -> None:
    rows: dict[str, Row] = {}
    for (number, rule, by), line in report.lines().items():
        row = (number, rule, by)
        rows.setdefault(rule, row)
        found = Score(line.injected, line.found, line.near, line.quiet)
        total[row] = total.get(row, Score()) + found
    for rule, score in findings_of(report):
        row = rows.get(rule, ("-", rule, "page"))
        total[row] = total.get(row, Score()) + score


def ratio(part: int, whole: int) -> str:
    return f"{part / whole:.4f}" if whole else ""


def table(total: dict[Row, Score]) -> str:
    lines = [
        "| no. | rule | found by | faults | recall | near misses | quiet | findings | precision |"
    ]
    lines.append("|---|---|---|---:|---:|---:|---:|---:|---:|")
    every = sum(total.values(), Score())
    for (number, rule, by), score in [*sorted(total.items()), (("", "all", ""), every)]:
        cells = [number, rule, by, score.injected, ratio(score.found, score.injected), score.near]
        cells += [score.quiet, score.findings, ratio(score.findings - score.wrong, score.findings)]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


HEAD = """\
<!-- SPDX-License-Identifier: LGPL-2.1-or-later -->
# Precision and recall

Written by `scripts/lab/score.py{arguments}`: {injected} faults and {near} near misses in drawn places of the bundled
cores {cores} ({seeds} seeds each). recall: faults that the audit named by their rule and level, of those injected; precision:
findings that the truth asks for, of all that were not there before; quiet: near misses that nothing was said of.
"found by second-pass" are faults that no page shows. A fault may bring findings on its neighbours, too, which its truth names.

"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=list(CORES), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    parser.add_argument("--write", type=Path, help="write the table to a file")
    options = parser.parse_args()
    total: dict[Row, Score] = {}
    right = True
    for name in options.names:
        unpack(VMCORES / name, ROOT / "build" / "vmcores")
    seeds = range(options.first, options.first + options.seeds)
    tasks = [(name, seed) for seed in seeds for name in options.names]
    with ProcessPoolExecutor(options.jobs) as pool:
        for (name, seed), report in zip(tasks, pool.map(run, *zip(*tasks))):
            right &= report.right
            for line in report.differences():
                print(f"{name}, seed {seed}: {line}", flush=True)
            add(total, report)
    every = sum(total.values(), Score())
    print(table(total))
    if options.write:
        arguments = f" --seeds {options.seeds}" if options.seeds > 1 else ""
        head = HEAD.format(
            arguments=arguments,
            injected=every.injected,
            near=every.near,
            cores=", ".join(options.names),
            seeds=options.seeds,
        )
        options.write.write_text(head + table(total))
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
