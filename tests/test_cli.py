# SPDX-License-Identifier: LGPL-2.1-or-later
"""The command line: words, options, formats, exit status.

Owns: what a user types on a good target, and what comes out in which format.
Does not: open bad targets (test_target.py) or check the truth of a report (test_vmcores.py).
Invariant: every format tells the same numbers; status 2 is one line on stderr and nothing on stdout.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Optional

import pytest
from conftest import NAMES, ROOT, Answer, Vmcore, Zonedev, assert_one_line, open_vmcore

from zonedev import _zonedev
from zonedev.cli import main
from zonedev.report.text import size as text_size

LEAK = "5.10-nvdimm-leak"


@pytest.fixture
def leak() -> Vmcore:
    """A core with errors, warnings and infos."""
    return open_vmcore(LEAK)


def args(vmcore: Vmcore) -> tuple[str, ...]:
    return "-c", vmcore.core, *vmcore.types


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "zonedev", *words]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def report_of(answer: Answer) -> dict[str, Any]:
    assert answer.err == ""
    report: dict[str, Any] = json.loads(answer.out)
    return report


# ---------------------------------------------------------------- words that make no sense


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        ([], "VERB"),
        (["frob"], "frob"),
        (["--frob", "audit"], "--frob"),
        (["audit"], "no target"),
        (["list"], "no target"),
        (["page"], "PFN|ADDRESS"),
        (["page", "1"], "no target"),
        (["slice", "core"], "--output"),
        (["slice", "-k", "-o", "out"], ""),
        (["audit", "core", "-c", "core"], "more than one target"),
        (["audit", "core", "-k"], "more than one target"),
        (["audit", "-k", "--qemu", "socket"], "more than one target"),
        (["audit", "core", "core"], "core"),
        (["audit", "core", "--frob"], "--frob"),
        (["audit", "core", "--format", "xml"], "xml"),
        (["audit", "core", "--severity", "fatal"], "fatal"),
        (["audit", "core", "--fail-on", "fatal"], "fatal"),
        (["audit", "core", "--samples", "many"], "many"),
        (["audit", "core", "--sev", "info"], "--sev"),
        (["page", "1", "--format", "csv"], "csv"),
        (["list", "core", "--rule", "x"], "--rule"),
        (["rules", "frob"], "frob"),
        (["rules", "-"], "no rule"),
        (["rules", "R01", "R02"], "R02"),
        (["rules", "--format", "csv"], "csv"),
        (["--version", "audit"], ""),
    ],
)
def test_usage(zonedev: Zonedev, words: list[str], fragment: str) -> None:
    assert_one_line(zonedev(*words), fragment)


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (["--rule", "frob"], "no rule 'frob'"),
        (["--rule", "-"], "no rule"),
        (["--pgmap", "frob"], "no pagemap is called 'frob'"),
        (["--pgmap", "0x1"], "no pagemap is called '0x1'"),
        (["--pgmap", ""], "no pagemap is called ''"),
        (["--type", "frob"], "no pagemap has the type 'frob'"),
        (["--type", "private"], "no pagemap has the type 'private'"),
        (["--type", "ax"], "no pagemap has the type 'ax'"),
        (["--type", ""], "no pagemap has the type ''"),
        (["--type", "generic", "--pgmap", "pmem0"], "no pagemap is both"),
        (["--samples", "1"], "--samples"),
        (["--resample-ms", "-1"], "--resample-ms"),
    ],
)
@pytest.mark.parametrize("quiet", [[], ["-q"]])
def test_selection_of_nothing(
    zonedev: Zonedev, newest: Vmcore, words: list[str], fragment: str, quiet: list[str]
) -> None:
    assert_one_line(zonedev("audit", *args(newest), *words, *quiet), fragment)


def test_no_pagemap_matches_names_those_that_are_there(zonedev: Zonedev, newest: Vmcore) -> None:
    answer = zonedev("audit", *args(newest), "--pgmap", "pmem9")
    assert_one_line(answer, "pmem0", "pmem2", "dax1.0", "dax3.0", "MEMORY_DEVICE_FS_DAX")


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--help"], "3 incomplete"),
        (["audit", "--help"], "3 incomplete"),
        (["page", "-h"], "0 whatever it finds"),
        (["explain", "-h"], "1 they do not"),
    ],
)
def test_help(
    zonedev: Zonedev, capsys: pytest.CaptureFixture[str], words: list[str], status: str
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(words)
    assert exit_.value.code in (0, None)
    assert status in " ".join(capsys.readouterr().out.split())


def test_version(zonedev: Zonedev) -> None:
    answer = zonedev("--version")
    assert answer.status == 0 and answer.err == ""
    names = [line.split()[0] for line in answer.out.splitlines()]
    assert names == ["zonedev", "drgn", "libelf", "libkdumpfile"]


def test_module_is_the_program(leak: Vmcore) -> None:
    done = subprocess.run(
        command("audit", *args(leak), "-q"), env=environment(), capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


# ---------------------------------------------------------------- output that cannot be written


@pytest.mark.parametrize("format_", ["text", "json", "csv", "ndjson"])
def test_broken_pipe(leak: Vmcore, format_: str) -> None:
    words = command("audit", *args(leak), "--format", format_, "--severity", "info")
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run(words, env=environment(), stdout=closed, stderr=subprocess.PIPE)
    assert done.stderr == b""
    assert done.returncode == 2


def test_head_gets_its_line(leak: Vmcore) -> None:
    words = command("audit", *args(leak), "--format", "json", "--severity", "info")
    with subprocess.Popen(
        words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline() == b"{\n"
        process.stdout.close()
        assert process.stderr.read() == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("verb", ["audit", "list", "rules"])
def test_full_disk(leak: Vmcore, verb: str) -> None:
    words = command(verb, *(args(leak) if verb != "rules" else ()))
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            words, env=environment(), stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert_one_line(Answer(done.returncode, "", done.stderr), "No space left")


@pytest.mark.parametrize("where", ["file", "below a file", "read-only"])
def test_slice_that_cannot_be_written(
    zonedev: Zonedev, newest: Vmcore, tmp_path: Path, where: str
) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    output = {"file": file, "below a file": file / "x", "read-only": Path("/proc/zonedev")}[where]
    assert_one_line(zonedev("slice", *args(newest), "-o", output), str(output))


def test_slice_with_tasks_of_a_core_that_has_none(
    zonedev: Zonedev, newest: Vmcore, tmp_path: Path
) -> None:
    answer = zonedev("slice", "--with", "tasks", *args(newest), "-o", tmp_path / "out")
    assert_one_line(answer, "--with tasks: the stacks of tasks cannot be found")
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- exit status and quiet


@pytest.mark.parametrize("name", NAMES)
def test_status_is_the_verdict(zonedev: Zonedev, name: str) -> None:
    vmcore = open_vmcore(name)
    answer = zonedev("audit", *args(vmcore), "--format", "json")
    summary = report_of(answer)["summary"]
    assert answer.status == {"clean": 0, "violations": 1, "incomplete": 3}[summary["verdict"]]
    missing = summary["classes"]["not-captured"] + summary["classes"]["unreadable"]
    expected = "violations" if summary["errors"] else "incomplete" if missing else "clean"
    assert summary["verdict"] == expected
    for words in (["-q"], ["-q", "--format", "json"], ["-q", "--severity", "info"]):
        assert zonedev("audit", *args(vmcore), *words) == Answer(answer.status, "", "")


@pytest.mark.parametrize("name", ["6.1-ram-only", "7.2-ram-only"])
def test_missing_memmap_is_never_clean(zonedev: Zonedev, name: str) -> None:
    vmcore = open_vmcore(name)
    answer = zonedev("audit", *args(vmcore))
    assert answer.status == 3
    assert "NOT-CAPTURED" in answer.out and "not in the dump" in answer.out
    assert "incomplete" in answer.out.splitlines()[-1] and "clean" not in answer.out
    # Violations beat incomplete.
    assert zonedev("audit", *args(vmcore), "-q", "--fail-on", "info").status == 1


@pytest.mark.parametrize(
    ("name", "fail_on", "status"),
    [
        (LEAK, "error", 1),
        (LEAK, "warning", 1),
        (LEAK, "info", 1),
        ("6.1-nvdimm", "error", 0),
        ("6.1-nvdimm", "warning", 1),
        ("7.2-nvdimm", "warning", 0),
        ("7.2-nvdimm", "info", 1),
    ],
)
def test_fail_on(zonedev: Zonedev, name: str, fail_on: str, status: int) -> None:
    vmcore = open_vmcore(name)
    for words in ([], ["--severity", "error"], ["--format", "json", "--severity", "error"]):
        answer = zonedev("audit", *args(vmcore), "--fail-on", fail_on, *words)
        assert answer.status == status, "what is shown does not change the verdict"
    last = zonedev("audit", *args(vmcore), "--fail-on", fail_on).out.splitlines()[-1]
    assert ("violations" in last) == (status == 1)


# ---------------------------------------------------------------- what is shown


@pytest.mark.parametrize("severity", _zonedev.SEVERITIES)
def test_severity(zonedev: Zonedev, leak: Vmcore, severity: str) -> None:
    limit = _zonedev.SEVERITIES.index(severity)
    everything = report_of(zonedev("audit", *args(leak), "--format", "json"))
    some = report_of(zonedev("audit", *args(leak), "--format", "json", "--severity", severity))
    expected = [
        f for f in everything["findings"] if _zonedev.SEVERITIES.index(f["severity"]) >= limit
    ]
    assert expected and some["findings"] == expected
    assert some["summary"] == everything["summary"]
    text = zonedev("audit", *args(leak), "--severity", severity).out
    shown = set(re.findall(r"^(info|warning|error): ", text, re.MULTILINE))
    assert shown == {f["severity"] for f in expected}


def test_text_hides_info_and_counts_it(zonedev: Zonedev, leak: Vmcore) -> None:
    report = report_of(zonedev("audit", *args(leak), "--format", "json"))
    text = " ".join(zonedev("audit", *args(leak)).out.split())
    pages: dict[str, int] = {}
    for f in report["findings"]:
        if f["severity"] == "info":
            pages[f["rule"]] = pages.get(f["rule"], 0) + f["pages"]
    assert sum(pages.values()) == report["summary"]["infos"] > 0
    for rule, count in pages.items():
        assert f"{rule} {count}" in text
    assert "--severity info shows them" in text
    assert "not shown" not in zonedev("audit", *args(leak), "--severity", "info").out


@pytest.mark.parametrize("word", ["reference-outlives-mapping", "refcount-below-idle"])
def test_rule(zonedev: Zonedev, leak: Vmcore, word: str) -> None:
    everything = report_of(zonedev("audit", *args(leak), "--format", "json"))
    answer = zonedev("audit", *args(leak), "--format", "json", "--rule", word)
    some = report_of(answer)
    expected = [f for f in everything["findings"] if f["rule"] == word]
    assert expected and some["findings"] == expected
    assert some["pagemaps"] == everything["pagemaps"]
    # What is shown is chosen, what is judged is not: a filter must not turn a kernel clean.
    assert answer.status == 1
    assert some["summary"] == everything["summary"]


def test_rule_by_number_and_repeated(zonedev: Zonedev, leak: Vmcore) -> None:
    numbers = {row["id"]: row["number"] for row in _zonedev.rules()}
    ids = ["reference-outlives-mapping", "refcount-below-idle"]
    by_id = zonedev("audit", *args(leak), "--format", "csv", "--rule", ids[0], "--rule", ids[1])
    words = [word for id_ in ids for word in ("--rule", numbers[id_])]
    found = {row["rule"] for row in csv.DictReader(io.StringIO(by_id.out))}
    assert found == set(ids)
    by_number = zonedev("audit", *args(leak), "--format", "csv", *words)
    assert found <= {row["rule"] for row in csv.DictReader(io.StringIO(by_number.out))}


def test_rule_does_not_hide_that_pages_are_in_violation(zonedev: Zonedev, leak: Vmcore) -> None:
    """Pages of class violation stand in the table: the closing line must not deny them."""
    text = zonedev("audit", *args(leak), "--rule", "held-without-map").out
    assert "none breaks a rule" not in text and "none is in violation" not in text


def test_verdict_names_what_it_counts(zonedev: Zonedev, newest: Vmcore) -> None:
    last = zonedev("audit", *args(newest), "--fail-on", "info").out.splitlines()[-1]
    assert "violations" in last
    assert re.search(r"[1-9]\d* (pages )?with info", last), last


@pytest.mark.parametrize(
    ("words", "devices"),
    [
        (["--type", "fs_dax"], {"pmem0", "pmem2"}),
        (["--type", "FS_DAX"], {"pmem0", "pmem2"}),
        (["--type", "MEMORY_DEVICE_GENERIC"], {"dax1.0", "dax1.1", "dax1.2", "dax3.0"}),
        (["--pgmap", "pmem0"], {"pmem0"}),
        (["--pgmap", "pmem0", "--pgmap", "dax1.0"], {"pmem0", "dax1.0"}),
        (["--pgmap", "0x100000"], {"pmem0"}),
        (["--pgmap", "1048576"], {"pmem0"}),
        (["--type", "fs_dax", "--pgmap", "pmem2"], {"pmem2"}),
        (["--type", "fs_dax", "--type", "generic"], None),
    ],
)
def test_type_and_pgmap(zonedev: Zonedev, newest: Vmcore, words: list[str], devices: Any) -> None:
    whole = report_of(zonedev("audit", *args(newest), "--format", "json"))
    some = report_of(zonedev("audit", *args(newest), "--format", "json", *words))
    names = {p["device"] for p in whole["pagemaps"]} if devices is None else devices
    assert {p["device"] for p in some["pagemaps"]} == names
    assert some["pagemaps"] == [p for p in whole["pagemaps"] if p["device"] in names]
    kept = {p["address"] for p in some["pagemaps"]}
    assert some["findings"] == [f for f in whole["findings"] if f["pagemap"] in kept]


def test_pgmap_by_address_and_resource(zonedev: Zonedev, newest: Vmcore) -> None:
    whole = report_of(zonedev("list", *args(newest), "--format", "json"))["pagemaps"]
    for pagemap in whole:
        some = report_of(
            zonedev("audit", *args(newest), "--format", "json", "--pgmap", hex(pagemap["address"]))
        )
        assert [p["address"] for p in some["pagemaps"]] == [pagemap["address"]]
        named = report_of(
            zonedev("audit", *args(newest), "--format", "json", "--pgmap", pagemap["resource"])
        )
        assert pagemap["address"] in [p["address"] for p in named["pagemaps"]]


# ---------------------------------------------------------------- formats


KEYS = {
    "": "schema tool target kernel scheme pagemaps findings not_applicable timing summary",
    "tool": "zonedev drgn types_from symbols_from readers",
    "target": "path live",
    "kernel": "release arch page_size",
    "scheme": "id confidence evidence",
    "timing": "scan_s total_s pages_per_s",
    "summary": "pages classes errors warnings infos verdict",
}
PAGEMAP_KEYS = "address type device ranges pages idle_refcount ref classes refcounts"
FINDING_KEYS = (
    "rule severity also pagemap pfn count order refcount mapcount mapping index flags expected raw"
)


@pytest.mark.parametrize("name", NAMES)
def test_json_has_the_names_of_the_contract(zonedev: Zonedev, name: str) -> None:
    vmcore = open_vmcore(name)
    report = report_of(zonedev("audit", *args(vmcore), "--format", "json"))
    assert report["schema"] == "zonedev.audit/1"
    for part, keys in KEYS.items():
        assert set(keys.split()) <= set(report[part] if part else report)
    assert (report["target"]["path"], report["target"]["live"]) == (vmcore.core, False)
    assert report["kernel"]["page_size"] == 4096 and report["kernel"]["arch"] == "x86_64"
    classes = ["idle", "busy", "violation", "unreadable", "not-captured", "skipped"]
    for pagemap in report["pagemaps"]:
        assert set(PAGEMAP_KEYS.split()) <= set(pagemap)
        assert sorted(pagemap["classes"]) == sorted(classes)
        spans = sum(r["end_pfn"] - r["start_pfn"] for r in pagemap["ranges"])
        assert spans == pagemap["pages"] == sum(pagemap["classes"].values())
        assert pagemap["ref"]["state"] in ("live", "dying", "dead")
        assert {"state", "count"} <= set(pagemap["ref"])
        assert all(
            isinstance(n, int) and int(k) is not None for k, n in pagemap["refcounts"].items()
        )
        assert isinstance(pagemap["address"], int) and pagemap["address"] >> 63
    for finding in report["findings"]:
        assert set(FINDING_KEYS.split()) <= set(finding)
        assert finding["severity"] in _zonedev.SEVERITIES and finding["count"] >= 1
        assert isinstance(finding["also"], list) and isinstance(finding["flags"], list)
        if finding["pfn"] is not None:
            assert len(bytes.fromhex(finding["raw"])) == 64
            assert isinstance(finding["refcount"], int) and isinstance(finding["expected"], int)
    for entry in report["not_applicable"]:
        assert {"rule", "why"} <= set(entry)
    total = {c: sum(p["classes"][c] for p in report["pagemaps"]) for c in classes}
    assert report["summary"]["classes"] == total
    assert report["summary"]["pages"] == sum(total.values())


@pytest.mark.parametrize("name", NAMES)
def test_formats_agree(zonedev: Zonedev, name: str) -> None:
    vmcore = open_vmcore(name)
    whole = report_of(zonedev("audit", *args(vmcore), "--format", "json"))
    lines = [
        json.loads(line)
        for line in zonedev("audit", *args(vmcore), "--format", "ndjson").out.splitlines()
    ]
    kinds = [line.pop("kind") for line in lines]
    assert kinds == (
        ["pagemap"] * len(whole["pagemaps"]) + ["finding"] * len(whole["findings"]) + ["summary"]
    )
    assert lines[: len(whole["pagemaps"])] == whole["pagemaps"]
    assert lines[len(whole["pagemaps"]) : -1] == whole["findings"]
    assert {k: lines[-1][k] for k in whole["summary"]} == whole["summary"]
    rows = list(csv.DictReader(io.StringIO(zonedev("audit", *args(vmcore), "--format", "csv").out)))
    assert len(rows) == len(whole["findings"])
    for row, finding in zip(rows, whole["findings"]):
        waiters = [f"{w['comm']}:{w['pid']}" for w in finding.get("waiters", ())]
        assert row["waiters"].split() == waiters
    for row, finding in zip(rows, whole["findings"]):
        assert (row["rule"], row["severity"], row["raw"]) == (
            finding["rule"],
            finding["severity"],
            finding["raw"],
        )
        for key in (
            "pfn",
            "count",
            "order",
            "refcount",
            "mapcount",
            "mapping",
            "pagemap",
            "expected",
        ):
            assert row[key] == ("" if finding[key] is None else str(finding[key])), key
        assert row["flags"].split() == finding["flags"] and row["also"].split() == finding["also"]


@pytest.mark.parametrize("name", NAMES)
def test_text_tells_the_same_numbers(zonedev: Zonedev, name: str) -> None:
    vmcore = open_vmcore(name)
    whole = report_of(zonedev("audit", *args(vmcore), "--format", "json"))
    text = zonedev("audit", *args(vmcore)).out
    lines = text.splitlines()
    assert whole["kernel"]["release"] in lines[0] and f"scheme {whole['scheme']['id']} " in text
    tops = [i for i, line in enumerate(lines) if line.startswith("DEVICE")]
    assert len(tops) == bool(whole["pagemaps"])
    for top, (i, pagemap) in itertools.product(tops, enumerate(whole["pagemaps"])):
        header, row = lines[top].split(), lines[top + 1 + i].split()
        assert row[0] == pagemap["device"]
        cells = dict(zip(header, row))
        assert int(cells["PAGES"]) == pagemap["pages"]
        for class_, pages in pagemap["classes"].items():
            assert int(cells.get(class_.upper(), 0)) == pages
        assert row[header.index("PGMAP-REF")] == pagemap["ref"]["state"]
    summary = whole["summary"]
    size = f" ({text_size(summary['pages'] << 12)})" if summary["pages"] else ""
    assert lines[-1].startswith(f"{summary['pages']} pages{size} in ")
    assert summary["verdict"] in lines[-1]
    shown: dict[str, int] = {}
    # A finding on a pagemap counts for one page.
    heads = r"^(error|warning): \S+, (?:(\d+) (?:pages?|pagemaps)|pagemap)$"
    for severity, pages in re.findall(heads, text, re.MULTILINE):
        shown[severity] = shown.get(severity, 0) + int(pages or 1)
    assert shown.get("error", 0) == summary["errors"]
    assert shown.get("warning", 0) == summary["warnings"]
    assert max(map(len, lines)) < 400 and "\t" not in text


def test_findings_are_worst_first(zonedev: Zonedev, leak: Vmcore) -> None:
    report = report_of(zonedev("audit", *args(leak), "--format", "json"))
    order = [-_zonedev.SEVERITIES.index(f["severity"]) for f in report["findings"]]
    assert order == sorted(order) and len(set(order)) == 3


def test_list_formats_agree(zonedev: Zonedev, newest: Vmcore) -> None:
    whole = report_of(zonedev("list", *args(newest), "--format", "json"))
    assert whole["schema"] == "zonedev.list/1"
    lines = zonedev("list", *args(newest), "--format", "ndjson").out.splitlines()
    assert [json.loads(line) for line in lines] == [
        {"kind": "pagemap", **p} for p in whole["pagemaps"]
    ]
    rows = list(csv.DictReader(io.StringIO(zonedev("list", *args(newest), "--format", "csv").out)))
    assert [
        (r["device"], int(r["address"]), int(r["start_pfn"]), int(r["end_pfn"])) for r in rows
    ] == [
        (p["device"], p["address"], r["start_pfn"], r["end_pfn"])
        for p in whole["pagemaps"]
        for r in p["ranges"]
    ]
    text = zonedev("list", newest.core, "-s", newest.vmlinux).out.splitlines()
    assert [line.split()[0] for line in text[1:-2]] == [p["device"] for p in whole["pagemaps"]]
    assert text[-1] == "types from DWARF"
    for line, pagemap in zip(text[1:], whole["pagemaps"]):
        assert str(pagemap["pages"]) in line.split() and f"{pagemap['address']:#x}" in line


def test_core_as_argument_and_as_option(zonedev: Zonedev, newest: Vmcore) -> None:
    for verb in ("list", "audit"):
        one = zonedev(verb, newest.core, "-s", newest.vmlinux, "--format", "csv")
        other = zonedev(verb, "-s", newest.vmlinux, "-c", newest.core, "--format", "csv")
        assert one == other and one.status == 0


# ---------------------------------------------------------------- page


def test_page_says_what_it_took(zonedev: Zonedev, newest: Vmcore) -> None:
    layout = newest.kernel.layout
    pfn = newest.kernel.pagemaps[0].ranges[0].start_pfn
    forms = {
        hex(pfn): "pfn",
        str(pfn): "pfn",
        f"phys:{pfn << 12:#x}": "physical address",
        hex(layout.page_address(pfn)): "struct page",
        hex(layout.page_address(pfn) + 8): "struct page",
    }
    for form, word in forms.items():
        answer = zonedev("page", form, *args(newest))
        assert answer.status == 0 and word in answer.out.splitlines()[0], form
        report = report_of(zonedev("page", form, *args(newest), "--format", "json"))
        assert report["schema"] == "zonedev.page/1"
        assert (report["pfn"], report["address"]) == (pfn, layout.page_address(pfn))
        assert f"class       {report['class']}" in answer.out


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("0", "not ZONE_DEVICE"),
        ("0x1", "not ZONE_DEVICE"),
        ("0x100000000", "not ZONE_DEVICE"),
        ("phys:0", "not ZONE_DEVICE"),
        ("phys:0xffffffffffffffff", "not ZONE_DEVICE"),
        ("0xffffffffffffffff", "neither"),
        ("0x8000000000000000", "neither"),
        ("-1", "out of range"),
        ("99999999999999999999999", "out of range"),
        ("phys:0x10000000000000000", "out of range"),
        ("frob", "'frob' is not a pfn"),
        ("0x", "'0x' is not a pfn"),
        ("1.5", "'1.5' is not a pfn"),
        ("phys:", "'phys:' is not a pfn"),
        ("", "not a pfn"),
        ("0x111000", "altmap"),
    ],
)
def test_page_that_is_none(zonedev: Zonedev, newest: Vmcore, what: str, why: str) -> None:
    assert_one_line(zonedev("page", what, *args(newest)), why)


def test_page_agrees_with_audit(zonedev: Zonedev, leak: Vmcore) -> None:
    report = report_of(zonedev("audit", *args(leak), "--format", "json"))
    for finding in [f for f in report["findings"] if f["severity"] != "info"][:8]:
        page = report_of(zonedev("page", finding["pfn"], *args(leak), "--format", "json"))
        assert [f["rule"] for f in page["findings"]] == [finding["rule"]]
        assert page["raw"] == finding["raw"]
        assert page["class"] == ("violation" if finding["severity"] == "error" else "busy")
        assert finding["rule"] in zonedev("page", finding["pfn"], *args(leak)).out


# ---------------------------------------------------------------- rules


def test_rules_need_no_target(zonedev: Zonedev) -> None:
    answer = zonedev("rules")
    assert answer.status == 0
    ids = {row["id"] for row in _zonedev.rules()}
    assert {line.split()[0] for line in answer.out.splitlines()[1:]} == ids
    rows = report_of(zonedev("rules", "--format", "json"))["rules"]
    assert [row["id"] for row in rows] == [row["id"] for row in _zonedev.rules()]


@pytest.mark.parametrize("id_", sorted({row["id"] for row in _zonedev.rules()}))
def test_every_rule_is_explained(zonedev: Zonedev, id_: str) -> None:
    answer = zonedev("rules", id_)
    assert answer.status == 0 and answer.out.startswith(id_)
    for word in ("when", "means", "bug class"):
        assert f"  {word}" in answer.out
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", id_)


@pytest.mark.parametrize("policy", [None, "active"])
def test_threads_of_others_do_not_spin(policy: Optional[str]) -> None:
    """libgomp reads how its threads wait when drgn loads it; what the user says goes first."""
    code = (
        "import os, sys; from zonedev.__main__ import main; before = 'drgn' in sys.modules; sys.argv[1:] = ['rules'];"
        "status = main(); print(before, status, 'drgn' in sys.modules, os.environ['OMP_WAIT_POLICY'])"
    )
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    environment |= {"PYTHONPATH": str(ROOT)} | ({"OMP_WAIT_POLICY": policy} if policy else {})
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == f"False 0 True {policy or 'passive'}"
