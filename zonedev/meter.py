# SPDX-License-Identifier: LGPL-2.1-or-later
"""How far something is, at what rate, and how long it will still take: one line on a terminal, gone at the end.

Owns the words and how often they change. Whoever looks at a file or a pipe instead of a terminal sees nothing of it.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Callable

# Seconds before the first line, and between two of them.
_FIRST, _BETWEEN = 0.3, 0.1

_PREFIXES = ("", "k", "M", "G", "T")


def _short(number: float) -> str:
    """Three digits and a prefix: 12.3 M."""
    prefixes = iter(_PREFIXES)
    prefix = next(prefixes)
    while number >= 999.5 and prefix != _PREFIXES[-1]:
        number, prefix = number / 1000, next(prefixes)
    digits = 0 if number >= 99.95 or not prefix else 1
    return f"{number:.{digits}f} {prefix}"


def _time(seconds: float) -> str:
    """Time to go, rounded up."""
    whole = int(seconds) + 1
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60}:{whole % 60:02} min" if whole < 3600 else f"{whole / 3600:.1f} h"


def line(what: str, unit: str, done: int, total: int, seconds: float) -> str:
    """What is shown after so many seconds."""
    text = f"zonedev: {what}: {100 * done // max(total, 1)} %"
    if done <= 0 or seconds <= 0:
        return text
    rate = done / seconds
    text += f", {_short(rate)}{unit}/s"
    return text if done >= total else f"{text}, {_time((total - done) / rate)} left"


@contextlib.contextmanager
def meter(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """Something to call with (done, total), which tells a person at a terminal; wiped away at the end."""
    begin = time.monotonic()
    due, shown = begin + _FIRST, False

    def tell(done: int, total: int) -> None:
        nonlocal due, shown
        now = time.monotonic()
        if now < due or sys.stderr is None or not sys.stderr.isatty():
            return
        sys.stderr.write(f"\r{line(what, unit, done, total, now - begin)}\x1b[K")
        sys.stderr.flush()
        due, shown = now + _BETWEEN, True

    try:
        yield tell
    finally:
        if shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
