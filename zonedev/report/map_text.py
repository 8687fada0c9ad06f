# SPDX-License-Identifier: LGPL-2.1-or-later
"""The pages of pagemaps as a map in characters: rows of cells, each of them so many pages.

Owns which character a cell is, how many there are in a row, and colours.  Every class has a character of its
own, so that a map says the same without colour.  Reads no kernel memory; what is counted is cells.py's.
"""

from __future__ import annotations

import textwrap
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple, Optional

from zonedev.cells import CellPlan, Cells, Pfns
from zonedev.kernel.strings import printable
from zonedev.model import CLASSES, Audit, Finding, PagemapResult, short_type
from zonedev.report.text import closing, device_name, heading, number

ROWS = 16
"""Rows of a pagemap, about."""
WIDTH = 80
"""Columns, where there is no terminal."""

_WIDTH_MAX = 100
_ROW_SHIFT_MAX = 8
_RANGES_SHOWN = 64
# Columns of the pfn that a row begins with, of up to 40 bits, and a gap.
_LABEL = 14


class Mark(NamedTuple):
    """A character, its colour (parameters of the escape sequence), and what it means."""

    char: str
    colour: str
    meaning: str


# In the order in which they cover each other.
_MARKS = {
    "violation": Mark("X", "1;97;41", "violation"),
    "warning": Mark("w", "1;30;43", "warning"),
    "unreadable": Mark("!", "1;35", "unreadable"),
    "not-captured": Mark("?", "36", "not captured"),
    "full": Mark("#", "1;34", "half or more busy"),
    "busy": Mark("+", "34", "some busy"),
    "idle": Mark(".", "32", "idle"),
    "skipped": Mark("-", "2", "skipped"),
}
_COVERING = ("violation", "warning", "unreadable", "not-captured", "busy", "idle", "skipped")


def _row_shift(width: int) -> int:
    """How many cells fit beside the pfn of their row, as a power of two."""
    return min(max(width - _LABEL, 1).bit_length() - 1, _ROW_SHIFT_MAX)


def plan(width: int, pfns: Optional[Pfns] = None) -> CellPlan:
    """What is to be counted for a map that is so wide."""
    row = _row_shift(width)
    return CellPlan(ROWS << row, 1 << 30, row, pfns)


def _kind(classes: dict[str, int], warned: bool) -> str:
    """Which of the marks a cell gets: what covers everything else in it."""
    kind = next(name for name in _COVERING if classes.get(name) or (name == "warning" and warned))
    return "full" if kind == "busy" and classes["busy"] >= classes["idle"] else kind


class _Warned:
    """Where findings are that are a warning, and no more."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        runs = sorted(
            (f.pfn, f.pfn + f.pages)
            for f in findings
            if f.pfn is not None and f.severity == "warning"
        )
        self._starts = [start for start, _ in runs]
        # The furthest end so far: runs may lie within each other.
        self._ends: list[int] = []
        for _, end in runs:
            self._ends.append(max(end, self._ends[-1] if self._ends else 0))

    def has(self, pfns: Pfns) -> bool:
        """True where one of them has a page in [start, end)."""
        i = bisect_right(self._starts, pfns[1] - 1)
        return bool(i) and self._ends[i - 1] > pfns[0]


def _paint(kinds: Sequence[Optional[str]], colour: bool) -> str:
    """Characters of a row; None: no page."""
    parts = []
    for kind, run in groupby(kinds):
        text = (_MARKS[kind].char if kind else " ") * sum(1 for _ in run)
        parts.append(f"\x1b[{_MARKS[kind].colour}m{text}\x1b[0m" if kind and colour else text)
    return "".join(parts).rstrip()


def _rows(cells: Cells, row: int, warned: _Warned) -> Iterator[tuple[int, list[Optional[str]]]]:
    """The first pfn of each row, and its cells."""
    first = cells.start_pfn >> cells.shift
    lead = first & ((1 << row) - 1)
    kinds: list[Optional[str]] = [None] * lead
    for i in range(len(cells)):
        classes = dict(zip(CLASSES, cells.classes(i)))
        kinds.append(_kind(classes, warned.has(cells.pfns(i))))
    for i in range(0, len(kinds), 1 << row):
        yield (first - lead + i) << cells.shift, kinds[i : i + (1 << row)]


def _size(count: int, page_size: int) -> str:
    """Bytes of so many pages, in the units of memory."""
    size, units = count * page_size, ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and size % 1024 == 0 and len(units) > 1:
        size, units = size // 1024, units[1:]
    return f"{size} {units[0]}"


def _fill(text: str, width: int) -> str:
    """Sentences in lines, without escapes: names in them come out of dumps."""
    return textwrap.fill(
        printable(" ".join(text.split())), min(width, _WIDTH_MAX), break_long_words=False
    )


def _title(result: PagemapResult, audit: Audit, width: int) -> str:
    """What a map is of: the pagemap, its classes, and what a character stands for."""
    pagemap, cells = result.pagemap, result.cells[0]
    ranges = ", ".join(f"{c.start_pfn:#x}-{c.end_pfn - 1:#x}" for c in result.cells[:4])
    more = f" and {len(result.cells) - 4} more ranges" if len(result.cells) > 4 else ""
    counts = {name: sum(c.sums()[name] for c in result.cells) for name in CLASSES}
    told = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    each = 1 << cells.shift
    size = _size(each, audit.kernel["page_size"])
    text = (
        f"{device_name(pagemap)}, {short_type(pagemap.type)}, pfn {ranges}{more}: {told}; "
        f"a character is {number(each, 'page')} ({size})"
    )
    return _fill(text, width)


def _grid(
    result: PagemapResult, row: int, warned: _Warned, colour: bool, used: set[str]
) -> Iterator[str]:
    """The rows of a pagemap, each behind its first pfn; marks are added to those that are used."""
    for cells in result.cells[:_RANGES_SHOWN]:
        for pfn, kinds in _rows(cells, row, warned):
            used.update(kind for kind in kinds if kind)
            yield f"{pfn:#x}".ljust(_LABEL) + _paint(kinds, colour)
    if len(result.cells) > _RANGES_SHOWN:
        yield f"... and {len(result.cells) - _RANGES_SHOWN} more ranges"


def _legend(used: set[str], colour: bool, width: int) -> str:
    """What the characters mean that were drawn."""
    words = []
    for kind, mark in _MARKS.items():
        if kind in used:
            words.append(f"{mark.char}\0{mark.meaning.replace(' ', chr(0))}")
    lines = textwrap.wrap("   ".join(words), min(width, _WIDTH_MAX))
    text = "\n".join(lines).replace("\0", " ")
    if colour:
        for mark in (mark for kind, mark in _MARKS.items() if kind in used):
            plain = f"{mark.char} {mark.meaning}"
            text = text.replace(plain, f"\x1b[{mark.colour}m{mark.char}\x1b[0m {mark.meaning}", 1)
    return text


def _closer(audit: Audit, shown: Sequence[PagemapResult]) -> str:
    """How to look closer at the worst that is on a map where a character is many pages."""
    for finding in audit.shown("warning"):
        for cells in (cells for result in shown for cells in result.cells):
            if finding.pfn is None or not cells.start_pfn <= finding.pfn < cells.end_pfn:
                continue
            if not cells.shift:
                return ""
            start = finding.pfn >> (cells.shift + 4) << (cells.shift + 4)
            end = start + (1 << (cells.shift + 4)) - 1
            return f"{finding.severity}: {finding.rule} at pfn {finding.pfn:#x}; closer: --pfn {start:#x}-{end:#x}"
    return ""


def map_text(audit: Audit, width: int = WIDTH, colour: bool = False) -> str:
    """A map of each pagemap whose cells were counted as planned for this width."""
    shown = [result for result in audit.pagemaps if result.cells]
    row, warned = _row_shift(width), _Warned(audit.findings)
    used: set[str] = set()

    blocks = [_fill(heading(audit), width)]
    blocks += [_fill("problem: " + text, width) for text in audit.problems]
    blocks += [_fill(text, width) for text in audit.notes]
    for result in shown:
        rows = _grid(result, row, warned, colour, used)
        blocks.append("\n".join([_title(result, audit, width), *rows]))
    blocks += [_legend(used, colour, width), _fill(_closer(audit, shown), width)]
    blocks.append(_fill(closing(audit), width))
    return "\n\n".join(block for block in blocks if block) + "\n"
