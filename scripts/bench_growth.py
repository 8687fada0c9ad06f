# SPDX-License-Identifier: LGPL-2.1-or-later
"""How time and memory of an audit grow with the device memory: measured, as a table, and drawn.

Owns the series of sizes, the audit in a process of its own, and the plot (SVG, both axes logarithmic).
Peak memory is the kernel's high-water mark of that process, file pages that it has mapped included.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from big_core import GIB, SHARED_BYTES, make_core

ROOT = Path(__file__).resolve().parent.parent
SIZES = (1, 4, 16, 64, 256, 1024)
# What takes longer is measured once.
SLOW_S = 10
# What 1 TiB may take more than 1 GiB.
FLAT_MIB = 32

_AUDIT = """
import re, sys
from zonedev.cli import main
status = main(sys.argv[1:])
sys.stdout.flush()
with open("/proc/self/status") as file:
    print(re.search(r"VmHWM:\\s*(\\d+) kB", file.read())[1], file=sys.stderr)
sys.exit(status)
"""


class Point(NamedTuple):
    """An audit of so many GiB: best seconds of the process and of its scan, most MiB; shared: see big_core.py."""

    gib: int
    shared: bool
    process_s: float
    scan_s: float
    mib: float


class Series(NamedTuple):
    """One format, and its points in the order of their sizes."""

    name: str
    points: list[Point]

    @property
    def rise(self) -> float:
        """MiB that the largest takes more than the smallest."""
        return self.points[-1].mib - self.points[0].mib


def _audit(core: Path, vmlinux: str) -> tuple[float, float, float]:
    """(seconds in all, seconds of the scan, MiB) of one process."""
    words = [sys.executable, "-c", _AUDIT, "audit", str(core), "-s", vmlinux, "--format", "json"]
    done = subprocess.run(
        words, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    if done.returncode:
        raise SystemExit(f"bench: {core}: {done.stderr.strip() or done.stdout[-200:]}")
    said = json.loads(done.stdout)
    timing = said["timing"]
    return timing["total_s"], timing["scan_s"], int(done.stderr.split()[-1]) / 1024


def _must_share(directory: Path, gib: int, format_: str) -> bool:
    """True where the file would not fit well on the disk, or in memory."""
    size = gib * GIB // 64
    free = shutil.disk_usage(directory).free
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return format_ == "elf" and size > max(SHARED_BYTES, min(free, memory) // 3)


def _point(directory: Path, format_: str, gib: int, rounds: int) -> Point:
    core = directory / f"growth-{gib}.{format_}"
    shared = _must_share(directory, gib, format_)
    vmlinux = make_core(core, gib, format_, shared=shared)
    try:
        with core.open("rb", buffering=0) as file:
            while file.read(1 << 24):
                pass
        runs = [_audit(core, vmlinux)]
        while len(runs) < rounds and runs[0][0] < SLOW_S:
            runs.append(_audit(core, vmlinux))
    finally:
        core.unlink()
    process_s, scan_s = min(run[0] for run in runs), min(run[1] for run in runs)
    return Point(gib, shared, process_s, scan_s, max(run[2] for run in runs))


def measure_growth(directory: Path, rounds: int) -> list[Series]:
    """All sizes as ELF and as zlib, idle."""
    series = []
    for name, format_ in (("ELF", "elf"), ("kdump, zlib", "zlib")):
        print(f"measuring {name}", file=sys.stderr)
        points = [_point(directory, format_, gib, rounds) for gib in SIZES]
        series.append(Series(name, points))
    return series


def print_growth(series: list[Series]) -> None:
    """The table, and whether memory stays flat."""
    names = [f"{one.name}: {what}" for one in series for what in ("seconds", "peak MiB")]
    print(f"| device memory | memmap | {' | '.join(names)} |")
    print(f"|--:|--:|{'--:|' * len(names)}")
    for row in zip(*(one.points for one in series)):
        cells = [cell for p in row for cell in (f"{p.process_s:.2f}", f"{p.mib:.1f}")]
        star = " (*)" if any(point.shared for point in row) else ""
        memmap = row[0].gib * 16
        size = f"{memmap} MiB" if memmap < 1024 else f"{memmap // 1024} GiB"
        print(f"| {row[0].gib} GiB{star} | {size} | {' | '.join(cells)} |")
    if any(point.shared for one in series for point in one.points):
        print(f"\n(*) ELF: {SHARED_BYTES >> 20} MiB of the file stand for the rest of the memmap.")
    print()
    for one in series:
        verdict = "flat" if one.rise < FLAT_MIB else f"NOT flat (less than {FLAT_MIB} is wanted)"
        ends = (
            f"{one.points[-1].gib} GiB takes {one.rise:.1f} MiB more than {one.points[0].gib} GiB"
        )
        print(f"{one.name}: {ends}: {verdict}.")


# ---------------------------------------------------------------- the plot

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 320, 220, 60, 40, 90
_COLOURS = ("#0b62a4", "#c2500a", "#3a7d2c", "#7a3e9d")


class _Axis(NamedTuple):
    """A logarithmic axis of a panel."""

    low: float
    high: float
    start: float
    length: float

    def at(self, value: float) -> float:
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + share * self.length


def _decades(values: list[float]) -> tuple[float, float]:
    """Powers of ten around them."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return 10.0**low, 10.0 ** max(high, low + 1)


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#ccc"/>'


def _grid(title: str, x: _Axis, y: _Axis) -> Iterator[str]:
    yield _text(x.start + x.length / 2, _TOP - 14, title)
    for gib in SIZES:
        yield _line(x.at(gib), y.start, x.at(gib), y.start + y.length)
        yield _text(x.at(gib), y.start + 18, str(gib))
    yield _text(x.start + x.length / 2, y.start + 38, "GiB of device memory")
    value = y.low
    while value <= y.high * 1.001:
        yield _line(x.start, y.at(value), x.start + x.length, y.at(value))
        yield _text(x.start - 6, y.at(value) + 4, f"{value:g}", "end")
        value *= 10


def _curve(points: list[tuple[float, float]], colour: str) -> Iterator[str]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    for x, y in points:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'


def _panel(number: int, title: str, curves: list[list[float]]) -> Iterator[str]:
    x = _Axis(SIZES[0], SIZES[-1], _LEFT + number * (_WIDTH + _GAP), _WIDTH)
    low, high = _decades([value for curve in curves for value in curve])
    y = _Axis(low, high, _TOP + _HEIGHT, -_HEIGHT)
    yield from _grid(title, x, y)
    for colour, curve in zip(_COLOURS, curves):
        yield from _curve([(x.at(g), y.at(v)) for g, v in zip(SIZES, curve)], colour)


def draw_growth(series: list[Series]) -> str:
    """Two panels, time and memory, as SVG."""
    width, height = _LEFT + 2 * _WIDTH + _GAP + 20, _TOP + _HEIGHT + 80
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        "<!-- SPDX-License-Identifier: LGPL-2.1-or-later; drawn by scripts/bench growth -->",
        f'<rect width="{width}" height="{height}" fill="white"/>',
        *_panel(0, "seconds of an audit", [[p.process_s for p in s.points] for s in series]),
        *_panel(1, "peak memory, MiB", [[p.mib for p in s.points] for s in series]),
    ]
    for i, (one, colour) in enumerate(zip(series, _COLOURS)):
        x, y = _LEFT + i * 160, _TOP + _HEIGHT + 66
        parts.append(f'<rect x="{x}" y="{y - 9}" width="18" height="4" fill="{colour}"/>')
        parts.append(_text(x + 24, y, one.name, "start"))
    return "\n".join([*parts, "</svg>", ""])
