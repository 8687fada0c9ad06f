# SPDX-License-Identifier: LGPL-2.1-or-later
"""--format prometheus: that it is the exposition format, and tells the numbers of the audit.

The format is checked here by its grammar (text format 0.0.4), and by promtool where that is installed.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from conftest import Vmcore, Zonedev, assert_one_line, open_vmcore

from zonedev.audit import audit
from zonedev.model import Audit, Finding
from zonedev.report.prometheus import audit_prometheus

LEAK = "7.2-nvdimm-leak"
_NAME = "[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
_SAMPLE = re.compile(
    rf"({_NAME})(?:\{{({_LABEL}(?:,{_LABEL})*)\}})? (-?[0-9]+(?:\.[0-9]+)?(?:e-?[0-9]+)?)"
)
Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Series:
    """Every series; that each family is told of once, before its samples, which stand together."""
    assert text.endswith("\n") and "\n\n" not in text
    series: Series = {}
    helped: list[str] = []
    typed: list[str] = []
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            helped.append(line.split(" ")[2])
            continue
        if line.startswith("# TYPE "):
            typed.append(line.split(" ")[2])
            assert typed[-1] == helped[-1] and line.endswith(" gauge")
            continue
        match = _SAMPLE.fullmatch(line)
        assert match, line
        assert match[1] == typed[-1], line
        labels = dict(one.split("=", 1) for one in re.findall(_LABEL, match[2] or ""))
        key = match[1], frozenset(labels.items())
        assert key not in series, line
        series[key] = float(match[3])
    assert len(set(typed)) == len(typed) and helped == typed
    return series


def values(series: Series, name: str, **labels: str) -> list[float]:
    wanted = {(key, f'"{text}"') for key, text in labels.items()}
    return [v for (n, own), v in series.items() if n == f"zonedev_{name}" and wanted <= own]


def promtool(text: str) -> None:
    """What Prometheus itself says of it, complaints about style included."""
    tool = shutil.which("promtool")
    if tool:
        result = subprocess.run(
            [tool, "check", "metrics"], input=text, capture_output=True, text=True
        )
        assert (result.returncode, result.stdout + result.stderr) == (0, "")


def test_it_tells_the_numbers_of_the_audit(vmcore: Vmcore) -> None:
    result = audit(vmcore.prog)
    series = parsed(audit_prometheus(result))
    assert values(series, "audit_exit_status") == [result.exit_code]
    for verdict in ("clean", "violations", "incomplete"):
        assert values(series, "audit_verdict", verdict=verdict) == [verdict == result.verdict]
    for class_, pages in result.classes.items():
        assert sum(values(series, "pages", **{"class": class_})) == pages
    for severity in ("info", "warning", "error"):
        pages = result.count(severity)
        assert values(series, "severity_pages", severity=severity, accepted="no") == [pages]
        listed = sum(values(series, "finding_pages", severity=severity))
        assert listed == pages or result.findings_dropped
    heads = sum(n for one in result.pagemaps for n in one.refcounts.values())
    assert sum(values(series, "folios")) == heads + sum(r.refcounts_other for r in result.pagemaps)
    assert values(series, "pagemaps") == [len(result.pagemaps)]
    assert sum(values(series, "pagemap_state")) == len(result.pagemaps)
    references = [r.pagemap.ref.count for r in result.pagemaps if r.pagemap.ref.count is not None]
    assert sorted(values(series, "pagemap_references")) == sorted(references)
    assert values(series, "audit_info", release=result.kernel["release"]) == [1]
    promtool(audit_prometheus(result))


def test_numbers_of_one_device() -> None:
    """Against what is known of that core: see the README of the bundled ones."""
    series = parsed(audit_prometheus(audit(open_vmcore(LEAK).prog)))
    own = {"device": "pmem0", "type": "FS_DAX", "start": "0x100000000"}
    assert values(series, "pages", **own, **{"class": "violation"}) == [515]
    assert values(series, "finding_pages", **own, rule="reference-on-free-folio") == [2]
    assert values(series, "idle_refcount", **own) == [0]
    assert values(series, "folios", **own, refcount="1024-") == [8]
    assert values(series, "pagemap_state", **own, state="live") == [1]
    assert values(series, "pagemap_references", **own) == [65537]


def damaged() -> Audit:
    """Names out of a damaged kernel, a pagemap that is there twice, and counts that found no room."""
    result = copy.copy(audit(open_vmcore(LEAK).prog))
    result.pagemaps = [copy.deepcopy(result.pagemaps[0]) for _ in range(3)]
    for i, one in enumerate(result.pagemaps):
        one.pagemap.address, one.pagemap.device = i, 'p"m\\e\nm'
    result.pagemaps[0].refcounts = dict.fromkeys(range(-5, 4000), 1)
    result.pagemaps[0].refcounts_other = 7
    result.findings = [
        Finding("tail-refcount", "error", address, pfn=1) for address in (0, 1, 7, 8)
    ]
    return result


def test_names_are_escaped_and_no_series_is_there_twice() -> None:
    text = audit_prometheus(damaged())
    series = parsed(text)
    assert 'device="p\\"m\\\\e\\nm"' in text
    starts = {dict(own)["start"] for name, own in series if name == "zonedev_idle_refcount"}
    assert starts == {'"0x100000000"', '"0x100000000#2"', '"0x100000000#3"'}
    assert values(series, "finding_pages", device="", start="") == [2]
    promtool(text)


def test_there_are_few_series_of_each_pagemap() -> None:
    """However many refcounts there are: each has its place."""
    series = parsed(audit_prometheus(damaged()))
    own = {"start": "0x100000000"}
    counts = {
        dict(labels)["refcount"].strip('"'): value
        for (name, labels), value in series.items()
        if name == "zonedev_folios" and ("start", '"0x100000000"') in labels
    }
    assert counts == {
        "negative": 5,
        "0": 1,
        "1": 1,
        "2": 1,
        "3-1023": 1021,
        "1024-": 2976,
        "not counted": 7,
    }
    assert len(values(series, "pages", **own)) == 6


def test_accepted_pages_are_apart(tmp_path: Path, zonedev: Zonedev) -> None:
    leak = open_vmcore(LEAK)
    path = tmp_path / "baseline"
    path.write_text("tail-refcount pmem0\ndying-busy pmem0\n")
    words = ["audit", leak.core, *leak.types, "--baseline", path, "--format", "prometheus"]
    answer = zonedev(*words)
    series = parsed(answer.out)
    assert answer.status == 1 and values(series, "audit_exit_status") == [1]
    assert values(series, "severity_pages", severity="error", accepted="yes") == [1]
    assert values(series, "severity_pages", severity="error", accepted="no") == [5]
    assert values(series, "finding_pages", rule="tail-refcount", accepted="yes") == [1]
    assert values(series, "finding_pages", rule="tail-refcount", accepted="no") == [1]
    assert values(series, "baseline_stale_entries") == [1]
    few = parsed(zonedev(*words, "--severity", "error").out)
    assert not values(few, "finding_pages", severity="info")
    assert values(few, "severity_pages", severity="info", accepted="no") == [2687]


def test_the_report_in_a_file_beside_it(tmp_path: Path, zonedev: Zonedev) -> None:
    """--json FILE: the same as --format json, of the same audit, as a whole or not at all."""
    leak = open_vmcore(LEAK)
    path = tmp_path / "report.json"
    path.write_text("before")
    link = tmp_path / "link"
    link.symlink_to(path)
    words = ["audit", leak.core, *leak.types]
    answer = zonedev(*words, "--severity", "error", "--json", link)
    assert answer.status == 1 and "violations" in answer.out and link.is_symlink()
    whole = zonedev(*words, "--format", "json").out

    def timeless(text: str) -> str:
        return re.sub(r'"timing": \{[^}]*\}', "", text)

    assert timeless(path.read_text()) == timeless(whole)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["link", "report.json"]
    for where, why in (
        (tmp_path / "none" / "x", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ):
        assert_one_line(
            zonedev(*words, "-q", "--json", where), f"{where}: cannot be written: {why}"
        )


def test_a_pipe_is_written_to(tmp_path: Path, zonedev: Zonedev) -> None:
    """As /dev/stdout and what a shell makes of >(...): it stays what it is."""
    leak = open_vmcore(LEAK)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True)
    try:
        assert zonedev("audit", leak.core, *leak.types, "-q", "--json", pipe).status == 1
        assert pipe.is_fifo()
        assert json.loads(reader.communicate(timeout=60)[0])["summary"]["errors"] == 6
    finally:
        reader.kill()
        reader.communicate()


def test_a_file_that_cannot_be_finished_stays_as_it_was(
    tmp_path: Path, zonedev: Zonedev, monkeypatch: Any
) -> None:
    leak = open_vmcore(LEAK)
    path = tmp_path / "report.json"
    path.write_text("before")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    answer = zonedev("audit", leak.core, *leak.types, "-q", "--json", path)
    assert_one_line(answer, "No space left on device")
    assert path.read_text() == "before" and [one.name for one in tmp_path.iterdir()] == [path.name]
