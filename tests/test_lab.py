# SPDX-License-Identifier: LGPL-2.1-or-later
"""The lab without its virtual machines: its tables, and that its comparison can fail."""

from __future__ import annotations

import argparse
import copy
import fcntl
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Optional

import boot
import lab
import pytest
import support
import verify
from conftest import Vmcore, open_vmcore

from zonedev.audit import audit
from zonedev.model import Finding


@pytest.fixture
def leak() -> Vmcore:
    return open_vmcore("7.3-nvdimm-leak")


def findings_of(vmcore: Vmcore) -> list[Finding]:
    findings: list[Finding] = audit(vmcore.prog).findings
    return findings


def differences(vmcore: Vmcore, truth: dict[str, Any]) -> list[str]:
    return list(verify.differences(vmcore.prog, vmcore.kernel, truth, findings_of(vmcore)))


def first(truth: dict[str, Any], **wanted: Any) -> dict[str, Any]:
    state: dict[str, Any] = next(
        s for s in truth["states"] if all(s.get(key) == value for key, value in wanted.items())
    )
    return state


@pytest.mark.parametrize(
    ("wanted", "change"),
    [
        ({"class": "busy", "order": 0}, {"refcount": 77}),
        ({"class": "busy", "order": 0}, {"mapcount": 77}),
        ({"class": "busy", "order": 9, "type": "fsdax"}, {"order": 0}),
        ({"class": "busy", "mapping": "file", "type": "fsdax"}, {"mapping": "none"}),
        ({"class": "idle"}, {"class": "busy"}),
        ({"class": "violation"}, {"class": "idle"}),
        ({"class": "violation"}, {"finding": None}),
        ({"class": "idle"}, {"finding": {"name": "leak", "level": "error-or-warning"}}),
        ({"class": "idle"}, {"finding": {"name": "held", "level": "info"}}),
    ],
)
def test_comparison_sees_a_wrong_record(
    leak: Vmcore, wanted: dict[str, Any], change: dict[str, Any]
) -> None:
    truth = copy.deepcopy(leak.truth)
    state = first(truth, **wanted)
    truth["states"] = [state]
    state.update(change)
    assert differences(leak, truth)


def test_comparison_sees_findings_that_should_not_be_there(leak: Vmcore) -> None:
    states = [s for s in leak.states if not verify.finding_level(s)]
    wrong = list(verify.finding_differences(states, findings_of(leak)))
    assert len(wrong) == len(verify.alarming(leak.states)) > 0


def test_comparison_sees_what_is_wrong_with_whole_pagemaps() -> None:
    vmcore = open_vmcore("5.10-teardown")
    findings, expected = findings_of(vmcore), vmcore.truth["pagemaps"]
    assert not list(verify.pagemap_differences(vmcore.kernel, expected, findings))
    (unexpected,) = verify.pagemap_differences(vmcore.kernel, [], findings)
    assert "dying-busy" in unexpected
    (missing,) = verify.pagemap_differences(vmcore.kernel, expected, [])
    assert "nothing found" in missing


def test_pages_that_were_not_looked_at_are_a_difference(
    leak: Vmcore, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = first(leak.truth, **{"class": "idle"})
    monkeypatch.setattr(verify, "classes_of", lambda *_: Counter(skipped=state["count"]))
    assert list(verify.class_differences(leak.prog, leak.kernel, state, []))


def test_a_dump_that_did_not_come_about_fails_the_run() -> None:
    good, bad = {"error": None, "size": 7}, {"error": "No space left on device"}
    assert boot.failure_of({"elf": good}) is None and boot.failure_of({}) is None
    assert boot.failure_of({"elf": good, "kdump-zlib": bad}) == "No space left on device"


@pytest.mark.parametrize(
    ("consoles", "failures", "boots"),
    [
        (["Kernel panic", "LAB 1.0 READY"], ["panic", None], 2),
        (["", "Kernel panic"], ["exit", "panic"], 2),
        (["LAB 1.0 mounts\nKernel panic"], ["panic"], 1),
        (["Kernel panic"], ["timeout"], 1),
        (["LAB 1.0 READY"], [None], 1),
    ],
)
def test_only_a_kernel_that_dies_before_its_init_is_booted_again(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    consoles: list[str],
    failures: list[Optional[str]],
    boots: int,
) -> None:
    done: list[Optional[str]] = []

    def run(options: Any, out: Path) -> dict[str, Any]:
        (out / "console.log").write_text(consoles[len(done)])
        done.append(failures[len(done)])
        return {"failed": done[-1]}

    monkeypatch.setattr(boot, "run", run)
    meta = boot.run_again(argparse.Namespace(release="7.2"), tmp_path)
    assert len(done) == boots and meta["failed"] == failures[-1]
    assert meta.get("first") == (failures[0] if boots == 2 else None)


def test_a_machine_that_cannot_build_modules_is_told_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse() -> None:
        raise lab.Failed("build-root.sh")

    monkeypatch.setattr(lab, "prepare_root", refuse)
    monkeypatch.setattr(lab, "LAB", tmp_path)
    monkeypatch.setattr(sys, "argv", ["lab.py"])
    with pytest.raises(SystemExit, match=r"^lab\.py: build-root\.sh failed: .*--no-modules$"):
        lab.main()


def test_two_labs_do_not_work_in_one_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(lab, "LAB", tmp_path)
    monkeypatch.setattr(sys, "argv", ["lab.py", "--no-modules"])
    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SystemExit, match="another lab"):
            lab.main()


def test_pages_outside_of_every_pagemap_are_a_difference(leak: Vmcore) -> None:
    truth = copy.deepcopy(leak.truth)
    truth["states"] = [{**first(truth, **{"class": "idle"}), "pfn": 1, "count": 1}]
    assert any("no pagemap covers" in text for text in differences(leak, truth))


def test_every_package_of_every_kernel_is_recorded() -> None:
    fetch = pytest.importorskip("fetch")
    rows = fetch.rows().values()
    assert rows
    missing = [
        (package, row["version"])
        for row in rows
        for package in fetch.all_packages(row)
        if (package, row["version"]) not in fetch.recorded()
    ]
    assert not missing


def test_kernels_are_named_by_how_their_release_begins() -> None:
    rows = lab.table("kernels.tsv")
    chosen = [r["release"] for r in lab.chosen(rows, "release", "6.1,7.3", lab.matches)]
    assert [release.split("-")[0] for release in chosen] == ["6.1.0", "7.3"]
    assert lab.chosen(rows, "release", "", lab.matches) == rows
    with pytest.raises(SystemExit, match=r"'6\.2'; there are: 5\.10"):
        lab.chosen(rows, "release", "6.2", lab.matches)


def test_every_scenario_row_is_whole() -> None:
    for row in lab.table("scenarios.tsv"):
        assert None not in row.values() and None not in row
        assert set(row["checks"].split(",")) <= {"-", *lab.CHECKS}


def test_a_kernel_with_a_bundled_core_needs_no_debug_package() -> None:
    for row in lab.table("kernels.tsv"):
        path = lab.types_of(row["release"])
        # That of a machine without device memory would not do for one with.
        assert path is not None and path.parent.name.partition("-")[2] != "bare"


RESULT = {
    "kernel": "7.3-amd64",
    "scenario": "nvdimm",
    "scheme": "H",
    "classes": {"FS_DAX": {"idle": 1000, "busy": 2}, "GENERIC": {"idle": 500}},
    "records": 3,
    "expected": 1,
    "found": 1,
    "info": 0,
    "problems": [],
    "checks": {"faults": "ok"},
}


def test_table_tells_what_failed() -> None:
    failed = {**RESULT, "problems": ["verify.py: 2 differences"]}
    left_out = {"kernel": "5.10", "scenario": "hmm", "lacks": "test_hmm"}
    broken = {"kernel": "6.1", "scenario": "-", "problems": ["fetch.py"]}
    results = [RESULT, failed, left_out, broken]
    assert list(map(support.outcome, results)) == ["passed", "failed", "skipped", "failed"]
    text = support.text(results).splitlines()
    assert "idle 1,500, busy 2" in text[1] and text[1].endswith("agrees")
    assert "faults ok" in text[1]
    assert text[2].endswith("DIFFERS: verify.py: 2 differences")
    assert text[3].endswith("left out: no test_hmm")
    assert text[4].endswith("DIFFERS: fetch.py")
    rows = [line for line in support.markdown(results).splitlines() if line.startswith("| ")]
    assert all(line.count("|") == len(support.HEADER) + 1 for line in rows[:6])
