# SPDX-License-Identifier: LGPL-2.1-or-later
"""What speed is measured with: cores with more device memory than the bundled ones, and where their pages lie."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, Optional

import bench_peers
import big_core
import pytest
from bench_growth import SIZES, Point, Series, draw_growth, print_growth
from conftest import needs_library

from zonedev.audit import audit
from zonedev.target import Target, open_target

PAGES = 1 << 18  # of 1 GiB


def make(
    path: Path, format_: str = "elf", busy: int = 0, shared: bool = False, gib: int = 1
) -> str:
    with needs_library():
        return big_core.make_core(path, gib, format_, busy, shared)


def facts_of(report: Any) -> tuple[Any, ...]:
    """What an audit says of everything but the added pagemap, addresses left out."""
    others = [p for p in report.pagemaps if p.pagemap.ranges[0].start_pfn != big_core.DEVICE_PFN]
    return (
        [(p.pagemap.device, p.pagemap.pages, p.classes, p.refcounts) for p in others],
        [(f.rule, f.pfn, f.count) for f in report.findings],
        [sorted(one.items()) for one in report.passes],
    )


def added(report: Any) -> Any:
    (one,) = (p for p in report.pagemaps if p.pagemap.ranges[0].start_pfn == big_core.DEVICE_PFN)
    return one


def audit_of(path: Path, vmlinux: str) -> Any:
    return audit(open_target(Target(str(path), [vmlinux])))


def base_report(busy: int) -> Any:
    base = big_core.base_of(busy)
    core = big_core.unpack(base, big_core.ROOT / "build" / "vmcores")
    return audit_of(core, str(base / "vmlinux"))


@pytest.mark.parametrize(
    "format_, busy",
    [("elf", 0), ("elf", 3), ("elf", 100), ("zlib", 3), ("lzo", 0), ("snappy", 3), ("zstd", 100)],
)
def test_the_added_memory_is_audited_whole(tmp_path: Path, format_: str, busy: int) -> None:
    path = tmp_path / "core"
    report = audit_of(path, make(path, format_, busy))
    one = added(report)
    in_files = PAGES * busy // 100 // 64 * 64
    expected = {"idle": PAGES - in_files, "busy": in_files}
    assert {k: v for k, v in one.classes.items() if v} == {k: v for k, v in expected.items() if v}
    assert one.pagemap.ref.count == PAGES + 1
    assert report.verdict == "clean" and not report.problems
    assert facts_of(report) == facts_of(base_report(busy))


def test_rules_find_what_they_need_in_an_idle_core(tmp_path: Path) -> None:
    path = tmp_path / "core"
    report = audit_of(path, make(path))
    plain = base_report(0)
    assert report.not_applicable == plain.not_applicable


@pytest.mark.parametrize("format_", ["elf", "zlib"])
def test_shared_bytes_are_the_same_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_: str
) -> None:
    monkeypatch.setattr(big_core, "SHARED_BYTES", 2 << 20)
    whole, shared = tmp_path / "whole", tmp_path / "shared"
    make(whole, format_)
    vmlinux = make(shared, format_, shared=True)
    assert os.stat(shared).st_size < os.stat(whole).st_size - (PAGES // 64 - 512) * 20
    assert added(audit_of(shared, vmlinux)).classes["idle"] == PAGES


@pytest.mark.parametrize("gib", [2, 256])
def test_entries_of_the_registry_cover_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gib: int
) -> None:
    monkeypatch.setattr(big_core, "SHARED_BYTES", 8 << 20)
    path = tmp_path / "core"
    report = audit_of(path, make(path, shared=True, gib=gib))
    assert added(report).classes["idle"] == gib * PAGES
    assert report.verdict == "clean" and facts_of(report) == facts_of(base_report(0))


def test_frames_in_files_are_all_different(tmp_path: Path) -> None:
    memmap = big_core.make_machine(1, 100).memmap
    assert len({memmap.frame(i) for i in range(memmap.frames)}) == memmap.frames == PAGES // 64


@pytest.mark.parametrize("format_", ["elf", "zlib"])
def test_segments_are_the_struct_pages_of_the_core(tmp_path: Path, format_: str) -> None:
    path = tmp_path / "core"
    subject = bench_peers.open_subject("", str(path), make(path, format_, 100))
    last = subject.segments[-1]
    assert (last.physical, last.size) == (big_core.MEMMAP_PHYSICAL, PAGES * 64)
    assert subject.is_elf == (format_ == "elf")
    whole = path.read_bytes()
    for segment in subject.segments:
        data = subject.kernel.prog.read(segment.virtual, segment.size)
        assert data == subject.kernel.prog.read(segment.physical, segment.size, physical=True)
        if subject.is_elf:
            assert whole.startswith(data, segment.offset)


def seconds_or_reason(run: Any, subject: bench_peers.Subject) -> Optional[str]:
    """None where a peer ran."""
    try:
        assert run(subject) > 0
    except bench_peers.LeftOut as err:
        return str(err)
    return None


@pytest.mark.parametrize("format_", ["elf", "zlib"])
def test_a_peer_runs_or_says_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format_: str
) -> None:
    monkeypatch.setattr(bench_peers, "OBJECT_PAGES", 10)
    path = tmp_path / "core"
    subject = bench_peers.open_subject("", str(path), make(path, format_))
    said = {name: seconds_or_reason(run, subject) for name, run in bench_peers.peers_of(subject)}
    assert [name for name in list(said)[:2] if said[name]] == []
    assert said["chunked Program.read"] is None
    assert "slice" in (said["crash kmem -p (per page)"] or "")
    assert all(why for why in said.values() if why is not None)


def series(last: float) -> list[Series]:
    points = [Point(gib, gib > 64, gib / 100, gib / 200, 40.0) for gib in SIZES]
    return [Series("ELF", [*points[:-1], points[-1]._replace(mib=last)])]


def test_growth_says_whether_memory_is_flat(capsys: pytest.CaptureFixture[str]) -> None:
    print_growth(series(71.9))
    out = capsys.readouterr().out
    assert "| 1024 GiB (*) | 16 GiB | 10.24 | 71.9 |" in out and out.endswith(
        "ELF: 1024 GiB takes 31.9 MiB more than 1 GiB: flat.\n"
    )
    print_growth(series(72.0))
    assert "NOT flat" in capsys.readouterr().out


def test_the_plot_shows_every_point() -> None:
    drawn = ElementTree.fromstring(draw_growth(series(40.0)))
    circles = [one for one in drawn if one.tag.endswith("circle")]
    assert len(circles) == 2 * len(SIZES)
    # More device memory is further to the right, and more seconds are further up.
    xs, ys = ([float(one.attrib[key]) for one in circles[: len(SIZES)]] for key in ("cx", "cy"))
    assert xs == sorted(xs) and ys == sorted(ys, reverse=True)
    assert len(set(float(one.attrib["cy"]) for one in circles[len(SIZES) :])) == 1
