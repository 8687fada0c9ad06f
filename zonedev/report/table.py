# SPDX-License-Identifier: LGPL-2.1-or-later
"""Rows as aligned columns, which fit a terminal and lose nothing.

In a file or a pipe each row is one line.  On a terminal that is too narrow columns move together, then the words of the
last one are wrapped within it, then the columns go below each other in parts that each begin with the first one.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Optional

from zonedev.report.terminal import columns

_GAP = 2
# Columns that words in the last column need to be readable.
_WORDS = 20

Rows = Sequence[Sequence[str]]


def _width(widths: Sequence[int], gap: int) -> int:
    return sum(widths) + gap * (len(widths) - 1)


def _lines(rows: Rows, widths: Sequence[int], right: set[int], gap: int) -> str:
    lines = []
    for row in rows:
        cells = [
            c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths))
        ]
        lines.append((" " * gap).join(cells).rstrip())
    return "\n".join(lines)


def _with_wrapped_end(rows: Rows, width: int) -> Rows:
    """The rows, with words of their last cell that are too many in rows below."""
    wrapped: list[Sequence[str]] = []
    for row in rows:
        words = textwrap.wrap(row[-1], width, break_on_hyphens=False) or [""]
        wrapped.append([*row[:-1], words[0]])
        wrapped += [[*[""] * (len(row) - 1), more] for more in words[1:]]
    return wrapped


def _parts(widths: Sequence[int], limit: int) -> list[list[int]]:
    """Columns of each part: the first one, and as many others as fit beside it."""
    parts: list[list[int]] = []
    for i in range(1, len(widths)):
        part = [*(parts[-1] if parts else [0]), i]
        if parts and _width([widths[j] for j in part], _GAP) <= limit:
            parts[-1] = part
        else:
            parts.append([0, i])
    return parts


def _in_parts(rows: Rows, widths: Sequence[int], right: set[int], limit: int) -> str:
    texts = []
    for part in _parts(widths, limit):
        some = [[row[i] for i in part] for row in rows]
        aligned = {at for at, i in enumerate(part) if i in right}
        texts.append(_lines(some, [widths[i] for i in part], aligned, _GAP))
    return "\n\n".join(texts)


def table(rows: Rows, right: Iterable[int] = (), limit: Optional[int] = None) -> str:
    """
    Rows as aligned columns, the first row being the header.

    :param right: columns that are right-aligned
    :param limit: how wide it may be (default: the terminal's columns; in a file or a pipe, as wide as it is)
    """
    aligned = set(right)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    limit = columns() if limit is None else limit
    if limit is None or _width(widths, _GAP) <= limit:
        return _lines(rows, widths, aligned, _GAP)
    if _width(widths, 1) <= limit:
        return _lines(rows, widths, aligned, 1)
    last = len(widths) - 1
    words = limit - _width(widths[:-1], _GAP) - _GAP
    if last not in aligned and words >= _WORDS:
        return _lines(_with_wrapped_end(rows, words), [*widths[:-1], words], aligned, _GAP)
    return _in_parts(rows, widths, aligned, limit)
