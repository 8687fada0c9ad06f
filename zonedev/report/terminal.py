# SPDX-License-Identifier: LGPL-2.1-or-later
"""What stdout is, and what follows for text: how wide it may be, and whether it has colours.

On a terminal a report fits its columns.  In a file or a pipe it is always the same, whatever COLUMNS says, and nothing
of it is cut off.  sys.stdout is asked each time: drgn swaps it to redirect a command.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from typing import Optional

PROSE = 100
"""Columns of sentences where nothing else is known; on a wide terminal, too: longer lines are hard to read."""

_NARROWEST = 40
_HANGING = "    "
_COLOR = re.compile(r"\x1b\[[0-9;]*m")


def _is_terminal() -> bool:
    try:
        return sys.stdout.isatty()
    # Whatever stands in for stdout need not be a file, or may be closed.
    except (AttributeError, ValueError):
        return False


def columns() -> Optional[int]:
    """Columns of the terminal that stdout is (COLUMNS, where it is set); None where it is none."""
    if not _is_terminal():
        return None
    return max(_NARROWEST, shutil.get_terminal_size().columns)


def prose_width() -> int:
    """Columns of sentences."""
    return min(PROSE, columns() or PROSE)


def fill(text: str, first: str = "", rest: Optional[str] = None) -> str:
    """Sentences in lines; *first* stands before the first of them, *rest* before the others (default: the same)."""
    return textwrap.fill(
        text,
        prose_width(),
        initial_indent=first,
        subsequent_indent=first if rest is None else rest,
        break_long_words=False,
    )


def _seen(text: str) -> int:
    """Columns that text takes: colours take none."""
    return len(_COLOR.sub("", text))


def _folded(line: str, limit: int) -> str:
    """A line that is too long in several, broken at blanks; what hangs over is indented."""
    if _seen(line) <= limit:
        return line
    indent = line[: len(line) - len(line.lstrip())]
    lines, so_far = [], indent
    for blank, word in re.findall(r"( *)([^ ]+)", line[len(indent) :]):
        if so_far.strip() and _seen(so_far + blank + word) > limit:
            lines.append(so_far)
            so_far, blank = indent + _HANGING, ""
        so_far += blank + word
    return "\n".join([*lines, so_far])


def folded(text: str) -> str:
    """Text, with colours or without, whose lines fit the terminal; in files and pipes it is left alone."""
    limit = columns()
    if limit is None:
        return text
    return "\n".join(_folded(line, limit) for line in text.split("\n"))


def has_colors(choice: str) -> bool:
    """
    Whether text has colours.

    :param choice: "always", "never", or "auto": on a terminal that is not dumb, unless NO_COLOR is set (and not empty;
        https://no-color.org)
    """
    if choice != "auto":
        return choice == "always"
    return _is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
