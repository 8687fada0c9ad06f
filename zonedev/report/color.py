# SPDX-License-Identifier: LGPL-2.1-or-later
"""Colours for a report that is text already: severities, verdicts, and the classes that matter.

Colour adds nothing that the words do not say: without it the text is the same, byte for byte.  It goes to words at
places of lines that only zonedev writes; what comes out of a dump stands elsewhere, and holds no escapes (kernel/strings.py).
"""

from __future__ import annotations

import re
from typing import NamedTuple

_RED, _GREEN, _YELLOW, _CYAN = "1;31", "32", "33", "36"

_STYLES = {
    "error": _RED,
    "violation": _RED,
    "violations": _RED,
    "warning": _YELLOW,
    "incomplete": _YELLOW,
    "not-captured": _YELLOW,
    "unreadable": _YELLOW,
    "problem": _YELLOW,
    "calibration": _YELLOW,
    "dying": _YELLOW,
    "dead": _YELLOW,
    "info": _CYAN,
    "busy": _CYAN,
    "clean": _GREEN,
    "idle": _GREEN,
    "it adds up": _GREEN,
    "missing, put too often": _RED,
    "without a known holder": _YELLOW,
}

_SEVERITY = r"(?P<word>error|warning|info)"
_VERDICT = r"(?P<word>clean|violations|incomplete)"


class _Place(NamedTuple):
    """Where a word stands: what its line begins with, and what follows it."""

    line: str
    word: str


_PLACES = (
    # audit, diff: "error: rule, 3 pages"; page: "error       rule: meaning".
    _Place(r"(?:new |worse |gone |not read again: )?", _SEVERITY + r"(?=: [\w-]+, )"),
    _Place("", _SEVERITY + r"(?= {2,}[\w-]+: )"),
    _Place("", r"(?P<word>problem|calibration)(?=: )"),
    # The closing line of audit; the first lines of diff.
    _Place(r"\d+ pages .*?in [\d.]+ s \([\d.]+ M pages/s\); ", _VERDICT + r"(?=:)"),
    _Place(r"(?:before|after): .*, ", _VERDICT + "$"),
    _Place("class {7}", r"(?P<word>idle|busy|violation)(?=;)"),
    # explain: the account.
    _Place(
        r"refcount .* unexplained: .*?",
        "(?P<word>it adds up|missing, put too often|without a known holder)",
    ),
    # rules: the table, and a row explained.
    _Place(r"[\w-]+ +(?:[RP]\d+|-) +", _SEVERITY + r"(?= )"),
    _Place("", _SEVERITY + r"(?=(?: \([^)]*\))? for )"),
    # The reference of a pagemap: in tables, page and waiters.
    _Place(r"(?=\S).*?(?:  |ref |\), )", r"(?P<word>dying|dead)(?=,? ~?[\d?])"),
)
_PATTERNS = tuple(re.compile(f"^(?P<line>{p.line}){p.word}") for p in _PLACES)

# Columns of the table of pagemaps in which any number but 0 matters.
_COUNTED = ("VIOLATION", "NOT-CAPTURED", "UNREADABLE")


def _painted(word: str, style: str) -> str:
    return f"\x1b[{style}m{word}\x1b[0m"


class _Column(NamedTuple):
    """A right-aligned column: where its numbers end in a line, and their colour."""

    end: int
    style: str


def _columns(header: str) -> list[_Column]:
    """Columns that are looked at, from the right to the left, so that what is added moves none of them."""
    found = [m for m in re.finditer(r"\S+", header) if m[0] in _COUNTED]
    return [_Column(m.end(), _STYLES[m[0].lower()]) for m in reversed(found)]


def _row(line: str, columns: list[_Column]) -> str:
    """A row of the table of pagemaps with colours on its counts."""
    for column in columns:
        count = re.search(r"[1-9]\d*$", line[: column.end])
        if count:
            line = line[: count.start()] + _painted(count[0], column.style) + line[column.end :]
    return line


def _line(line: str) -> str:
    for pattern in _PATTERNS:
        match = pattern.search(line)
        if match:
            word = match["word"]
            start, end = match.span("word")
            return line[:start] + _painted(word, _STYLES[word]) + line[end:]
    return line


def colored(text: str) -> str:
    """A report with colours."""
    lines, columns = [], list[_Column]()
    for line in text.split("\n"):
        if line.startswith("DEVICE "):
            columns = _columns(line)
        elif not line:
            columns = []
        # Words first: what they match begins behind the counts, or where there are none.
        lines.append(_row(_line(line), columns) if columns else _line(line))
    return "\n".join(lines)
