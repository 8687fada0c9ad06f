# SPDX-License-Identifier: LGPL-2.1-or-later
"""The lab's results as a table: plain text for a terminal, Markdown for docs/.

Owns words and columns only.  A result is what lab.py stores in result.json: a comparison of verify.py
(kernel, scenario, scheme, verdict, classes by memory type, records, pages, expected, found, ...) with
`problems`; or kernel and scenario with `lacks`, or with `problems` alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

Result = dict[str, Any]

HEADER = (
    "kernel",
    "scheme",
    "scenario",
    "memory types",
    "pages by class",
    "records",
    "expected",
    "found",
    "info",
    "checks",
    "result",
)

_CLASSES = ("idle", "busy", "violation", "not-captured", "unreadable", "skipped")

# What no kernel that can be booted here shows, and what stands for it.
NOT_SHOWN = (
    (
        "schemes A, B, D, F1, F2",
        "no distribution kernel: tests/mock_kernels has cores of small programs with those structures",
    ),
    (
        "pgmap_radix, hmm_devmem_radix (before 4.20)",
        "the oldest kernel here is 5.10; tests/mock_kernels",
    ),
    ("DEVICE_PUBLIC", "removed in 5.3"),
    (
        "DEVICE_PRIVATE, DEVICE_COHERENT, PCI_P2PDMA on 5.10, 6.1, 6.12",
        "not configured in these kernels",
    ),
    ("virtio-fs DAX", "needs a DAX window of the device, which QEMU does not offer"),
    (
        "xen unpopulated memory, CXL, GPU drivers",
        "no such device can be had; the memory types are those of the scenarios",
    ),
    ("32-bit and big-endian kernels", "synthetic pages in tests/"),
)


def _number(n: int) -> str:
    return f"{n:,}"


def classes(result: Result) -> str:
    total: Counter[str] = Counter()
    for counts in result["classes"].values():
        total.update(counts)
    names = [*_CLASSES, *sorted(set(total) - set(_CLASSES))]
    return ", ".join(f"{name} {_number(total[name])}" for name in names if total[name])


def outcome(result: Result) -> str:
    """`passed`, `failed`, or `skipped` where the kernel cannot do the scenario."""
    return "failed" if result.get("problems") else "skipped" if "lacks" in result else "passed"


def verdict(result: Result) -> str:
    if "lacks" in result:
        return f"left out: no {result['lacks']}"
    problems = result["problems"]
    return "agrees" if not problems else f"DIFFERS: {problems[0]}"


def cells(result: Result) -> list[str]:
    """One row of the table, in the order of HEADER."""
    start = [result["kernel"], result.get("scheme", ""), result["scenario"]]
    checks = ", ".join(
        f"{name} {'ok' if how == 'ok' else 'FAILED'}"
        for name, how in result.get("checks", {}).items()
    )
    if "classes" not in result:
        return [*start, *[""] * (len(HEADER) - 5), checks, verdict(result)]
    return [
        *start,
        ", ".join(sorted(result["classes"])),
        classes(result),
        _number(result["records"]),
        _number(result["expected"]),
        _number(result["found"]),
        _number(result["info"]),
        checks,
        verdict(result),
    ]


def text(results: Sequence[Result]) -> str:
    """The table in columns."""
    rows = [list(HEADER), *map(cells, results)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in rows
    )


def _line(row: Iterable[str]) -> str:
    return "| " + " | ".join(row) + " |"


def markdown(results: Sequence[Result]) -> str:
    """docs/support.md."""
    lines = [
        "<!-- SPDX-License-Identifier: LGPL-2.1-or-later -->",
        "<!-- Written by scripts/lab/lab.py (option support): do not edit. -->",
        "# What zonedev was tried on",
        "",
        "Each row is a kernel that was booted in a scenario of `scripts/lab/`, and dumped. Every page of its pagemaps was compared",
        "with the record of what had been done to it: refcount, mapcount, order, mapping, class; and the findings above",
        "info with the pages that the record calls wrong. `records` are runs of pages in equal state, `expected` and `found` pages.",
        "",
        _line(HEADER),
        _line("---" for _ in HEADER),
        *(_line(cells(result)) for result in results),
        "",
        "## What no kernel here shows",
        "",
        _line(("what", "why, and what stands for it")),
        _line(("---", "---")),
        *(_line(row) for row in NOT_SHOWN),
    ]
    return "\n".join(lines) + "\n"
