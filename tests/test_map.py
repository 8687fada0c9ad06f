# SPDX-License-Identifier: LGPL-2.1-or-later
"""zonedev map: each page is in one character, whatever the width, with and without colour."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections import Counter
from dataclasses import replace
from typing import Optional

import pytest
from conftest import ROOT, Vmcore, Zonedev, assert_one_line, open_vmcore

from zonedev.audit import audit
from zonedev.cells import CellPlan, Cells
from zonedev.model import Audit, Finding
from zonedev.report.map_text import map_text, plan

LEAK = "7.2-nvdimm-leak"
ROW = re.compile(r"^(0x[0-9a-f]+) +(\S.*)$", re.M)
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")
CHARACTERS = {
    "X": "violation",
    "!": "unreadable",
    "?": "not-captured",
    "#": "busy",
    "+": "busy",
    ".": "idle",
    "-": "skipped",
}


def words(name: str) -> list[str]:
    vmcore = open_vmcore(name)
    symbols = [word for path in vmcore.debug_files for word in ("-s", path)]
    return [vmcore.core, *(symbols or ["--btf"])]


def drawn(name: str, width: int, pfns: Optional[tuple[int, int]] = None) -> tuple[Audit, str]:
    result: Audit = audit(open_vmcore(name).prog, cells=plan(width, pfns))
    return result, map_text(result, width)


def rows(text: str) -> dict[int, str]:
    """What stands behind each pfn."""
    return {
        int(line[:14], 16): line[14:]
        for line in text.split("\n")
        if re.match(r"0x[0-9a-f]+ ", line)
    }


# ---------------------------------------------------------------- what is drawn


def test_every_page_has_its_character() -> None:
    """One page a character: the map says the class of each."""
    start, end = 0x108200, 0x108400
    result, text = drawn(LEAK, 80, (start, end))
    (cells,) = result.pagemaps[0].cells
    assert cells.shift == 0
    seen = "".join(rows(text).values())
    assert len(seen) == end - start
    for i, char in enumerate(seen):
        assert cells.classes(i)[["idle", "busy", "violation"].index(CHARACTERS[char])] == 1
    assert [start + i for i, char in enumerate(seen) if char == "X"] == [
        0x108245,
        0x1082FC,
        0x1082FD,
    ]


@pytest.mark.parametrize("width", [16, 40, 80, 120, 300])
def test_maps_fit(vmcore: Vmcore, width: int) -> None:
    result: Audit = audit(vmcore.prog, cells=plan(width))
    text = map_text(result, width)
    for pfn, row in rows(text).items():
        assert 14 + len(row) <= width
        assert any(one.pagemap.covers(pfn) or row[0] == " " for one in result.pagemaps)
    for one in result.pagemaps:
        height = sum(1 for pfn in rows(text) if one.pagemap.covers(pfn))
        assert height <= max(16, 2 * len(one.cells))
    if width >= 80:
        assert max(map(len, text.split("\n"))) <= width


def test_rows_are_aligned() -> None:
    _, text = drawn(LEAK, 80)
    drawn_rows = rows(text)
    assert drawn_rows[0x108000].count("X") == 10 and drawn_rows[0x107000] == "." * 64
    # pmem2 begins in the middle of a row.
    assert drawn_rows[0x110000].startswith(" " * 32 + "-" * 16 + ".")


def test_characters_are_what_covers_the_others() -> None:
    result, _ = drawn("7.2-nvdimm", 80)
    one = result.pagemaps[0]
    names = ["idle", "busy", "violation", "not-captured", "unreadable", "skipped"]
    for counts, char in (
        ({"idle": 4, "busy": 1, "violation": 1, "unreadable": 1}, "X"),
        ({"idle": 4, "not-captured": 1, "unreadable": 1}, "!"),
        ({"busy": 5, "not-captured": 1}, "?"),
        ({"busy": 4, "idle": 5}, "+"),
        ({"busy": 4, "idle": 4}, "#"),
        ({"idle": 1, "skipped": 7}, "."),
        ({"skipped": 8}, "-"),
    ):
        cells = Cells.of_class((64, 128), 3, "idle")
        cells.counts[:6] = type(cells.counts)("Q", [counts.get(name, 0) for name in names])
        text = map_text(replace(result, pagemaps=[replace(one, cells=[cells])]), 80)
        assert rows(text) == {0: " " * 8 + char + "." * 7}
        assert (f"{char} " in text.split("\n\n")[-2]) and "X violation" not in text.replace(
            "X violation", "", char == "X"
        )


def test_warnings_are_seen() -> None:
    result, _ = drawn("7.2-nvdimm", 80)
    one = replace(result.pagemaps[0], cells=[Cells.of_class((64, 192), 0, "idle")])
    address = one.pagemap.address
    found = [
        Finding("pinned-after-truncate", "warning", address, pfn=66, pages=40),
        Finding("pinned-after-truncate", "warning", address, pfn=70, pages=2),
        Finding("held-without-map", "info", address, pfn=120),
    ]
    text = map_text(replace(result, pagemaps=[one], findings=found), 80)
    assert rows(text) == {64: ".." + "w" * 40 + "." * 22, 128: "." * 64}
    assert "w warning" in text


def test_many_ranges_are_not_all_drawn() -> None:
    result, _ = drawn("7.2-nvdimm", 80)
    cells = [Cells.of_class((i * 64, i * 64 + 1), 0, "idle") for i in range(70)]
    text = map_text(replace(result, pagemaps=[replace(result.pagemaps[0], cells=cells)]), 80)
    assert len(rows(text)) == 64 and "... and 6 more ranges" in text


def test_the_units_of_a_cell() -> None:
    result, _ = drawn("7.2-nvdimm", 80)
    for shift, told in (
        (0, "1 page (4 KiB)"),
        (9, "512 pages (2 MiB)"),
        (19, "524288 pages (2 GiB)"),
    ):
        cells = (
            Cells.of_class((0, 1 << 20), shift, "idle")
            if shift
            else Cells.of_class((0, 9), 0, "idle")
        )
        one = replace(result.pagemaps[0], cells=[cells])
        assert told in map_text(replace(result, pagemaps=[one]), 200)


# ---------------------------------------------------------------- the verb


def test_the_verb_gives_the_verdict(zonedev: Zonedev) -> None:
    answer = zonedev("map", *words(LEAK))
    assert answer.status == 1 and answer.err == "" and "\x1b" not in answer.out
    assert "violations: 6 pages with errors" in answer.out.replace("\n", " ")
    assert "closer: --pfn 0x108000-0x1083ff" in answer.out
    assert zonedev("map", *words("7.2-nvdimm"), "--quick").status == 0
    bare = zonedev("map", *words("7.2-bare"))
    assert bare.status == 0 and "no dev_pagemap is registered" in bare.out.replace("\n", " ")


def test_colours_say_the_same(zonedev: Zonedev) -> None:
    plain = zonedev("map", *words(LEAK), "--pgmap", "pmem0").out
    coloured = zonedev("map", *words(LEAK), "--pgmap", "pmem0", "--color", "always").out
    assert "\x1b[1;97;41mX" in coloured

    def without_time(text: str) -> str:
        return re.sub(r"in [\d.]+ s \([\d.]+ M pages/s\)", "", ESCAPE.sub("", text))

    assert without_time(coloured).split() == without_time(plain).split()
    assert zonedev("map", *words(LEAK), "--color", "never").out.count("\x1b") == 0


def test_only_some_pages(zonedev: Zonedev) -> None:
    answer = zonedev("map", *words(LEAK), "--pfn", "0x108240-0x10827f")
    assert rows(answer.out) == {0x108240: "#####X" + "#" * 58}
    # A page alone: what lies around it; numbers may be decimal.
    around = zonedev("map", *words(LEAK), "--pfn", str(0x108245))
    assert set(rows(around.out)) == set(range(0x108000, 0x108400, 64))
    assert around.status == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0x10-0xf", "ends before it begins"),
        ("pmem0", "'pmem0' is no pfn"),
        ("1-2-3", "neither START-END nor a PFN"),
        ("0x10000000000000000", "is no pfn"),
        ("-1", "is no pfn"),
        ("1", "no pagemap has pages there; there are: 0x100000-0x10ffff"),
    ],
)
def test_pfns_that_are_none(zonedev: Zonedev, text: str, told: str) -> None:
    assert_one_line(zonedev("map", *words(LEAK), f"--pfn={text}"), told)


def in_terminal(width: int, *more: str, **environment: str) -> str:
    """What the program writes to a terminal of so many columns."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    env = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR", "TERM")}
    process = subprocess.Popen(
        [sys.executable, "-m", "zonedev", "map", *words("7.2-nvdimm"), "--pgmap", "pmem0", *more],
        stdout=follower,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env={**env, "TERM": "xterm", **environment},
    )
    os.close(follower)
    text = b""
    while True:
        try:
            piece = os.read(leader, 1 << 16)
        except OSError:
            break
        if not piece:
            break
        text += piece
    os.close(leader)
    assert process.wait(60) == 0
    return text.decode().replace("\r\n", "\n")


@pytest.mark.parametrize(("width", "columns"), [(30, 16), (60, 32), (80, 64), (150, 128)])
def test_a_map_is_as_wide_as_its_terminal(width: int, columns: int) -> None:
    text = in_terminal(width)
    assert "\x1b[32m" in text
    lengths = Counter(len(row) for row in rows(ESCAPE.sub("", text)).values())
    assert max(lengths) == columns


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_terminals_without_colours(environment: dict[str, str]) -> None:
    assert "\x1b" not in in_terminal(80, **environment)


def test_the_plan_is_what_is_drawn() -> None:
    assert plan(80) == CellPlan(16 * 64, 1 << 30, 6, None)
    assert plan(10).row == 0


def test_names_do_not_write_to_the_terminal() -> None:
    result = audit(open_vmcore(LEAK).prog, cells=plan(80))
    evil = "\x1b]0;title\x07"
    result.problems.append(evil)
    result.notes.append(evil)
    result.pagemaps[0].pagemap.device = evil
    text = map_text(result, 80)
    assert "\x1b" not in text and text.count(r"\x1b]0;title\x07") == 3
