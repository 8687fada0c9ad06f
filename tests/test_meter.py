# SPDX-License-Identifier: LGPL-2.1-or-later
"""The line on a terminal that says how far a scan is."""

from __future__ import annotations

import io
import sys

import pytest
from conftest import open_vmcore

from zonedev import meter
from zonedev.cli import main


@pytest.mark.parametrize(
    ("done", "total", "seconds", "text"),
    [
        (0, 0, 0.0, "zonedev: x: 0 %"),
        (0, 10, 5.0, "zonedev: x: 0 %"),
        (5, 10, 1.0, "zonedev: x: 50 %, 5 pages/s, 2 s left"),
        (10, 10, 1.0, "zonedev: x: 100 %, 10 pages/s"),
        (25_000_000, 100_000_000, 1.0, "zonedev: x: 25 %, 25.0 Mpages/s, 4 s left"),
        (123_400, 10**9, 1.0, "zonedev: x: 0 %, 123 kpages/s, 2.3 h left"),
        (1_000_000, 100_000_000, 1.0, "zonedev: x: 1 %, 1.0 Mpages/s, 1:40 min left"),
        (999_999, 10**6, 1.0, "zonedev: x: 99 %, 1.0 Mpages/s, 1 s left"),
    ],
)
def test_words(done: int, total: int, seconds: float, text: str) -> None:
    assert meter.line("x", "pages", done, total, seconds) == text


class Terminal(io.StringIO):
    """A stderr that people look at."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("terminal", [True, False])
def test_an_audit_tells_a_terminal_only(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    core = open_vmcore("7.2-nvdimm")
    stderr = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(meter, "_FIRST", 0)
    monkeypatch.setattr(meter, "_BETWEEN", 0)
    assert main(["audit", core.core, *core.types, "--quick"]) == 0
    text = stderr.getvalue()
    if not terminal:
        assert "%" not in text
        return
    lines = text.split("\r")
    assert any("struct pages: " in one and "pages/s" in one for one in lines)
    # It goes away.
    assert lines[-1] == "\x1b[K"
