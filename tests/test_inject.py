# SPDX-License-Identifier: LGPL-2.1-or-later
"""Faults injected into bundled cores of three schemes: each is found, each near miss is quiet.

One audit a round of faults that do not disturb each other. The truth is inject.py's, from the table of
faults.py; a rule of the auditor's table that no row covers must have an excuse there.
"""

from __future__ import annotations

import functools
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import score
from conftest import ROOT, open_vmcore
from coreedit import CannotEdit, CoreFile, Write, pack, unpack
from faults import EXCUSES, FAULTS, OF_BOOKS, SECOND_PASS, Fault
from inject import (
    Key,
    Outcome,
    Report,
    check,
    check_kernel,
    compare,
    findings_of,
    inject,
    is_met,
    writes_of,
)
from pages import scheme

from zonedev import _zonedev
from zonedev.second_pass import rules_of_pass

# With the DAX entries of all files; the others hold what an audit of struct pages reads.
ENTRIES = ["5.10-entries", "6.1-entries", "6.16-entries", "7.2-entries"]
# With the pool of peer-to-peer memory.
POOLS = ["6.16-p2p-leak", "7.2-p2p"]
# With lists of free pages, and the debug information of the module that keeps them.
LISTS = ["6.16-hmm-leak", "7.2-hmm"]
CORES = [
    "5.10-nvdimm",
    "6.1-nvdimm",
    "7.2-nvdimm",
    "7.2-p2p-hmm",
    *POOLS,
    *LISTS,
    *ENTRIES,
]
# Rules that rest on DAX entries.
OF_ENTRIES = rules_of_pass()
INJECT = ROOT / "scripts" / "lab" / "inject.py"

# Rules whose faults are found in cores with entries and stacks.
FOUND_WITH_ENTRIES = OF_ENTRIES | {"wrong-mapping"}
# Another scheme's, or a variant of one.
NO_CORE_HERE = {
    "map-unreferenced-anon": "private memory before 6.15",
    "over-put-private": "private memory before 5.18",
    "shared-by-nobody": "6.2 to 6.14",
}


class Injected:
    """A core with all faults, its truth and the report of the check."""

    def __init__(self, name: str, out: Path) -> None:
        vmcore = open_vmcore(name)
        self.source, self.out = Path(vmcore.core), out
        self.truth = inject(vmcore.core, vmcore.vmlinux, out, FAULTS, modules=vmcore.modules)
        self.hash = digest(out / "vmcore")
        self.report = check(out)
        self.kernel = vmcore.kernel
        self.prefixes = {p.type for p in vmcore.kernel.pagemaps}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="session")
def injected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    @functools.cache
    def make(name: str) -> Injected:
        return Injected(name, tmp_path_factory.mktemp(name))

    yield make


# ---------------------------------------------------------------- the cores


@pytest.mark.parametrize("name", CORES)
def test_every_fault_is_found_and_nothing_else(injected: Any, name: str) -> None:
    report = injected(name).report
    assert not list(report.differences())[:10]
    assert report.right
    for (_, rule, found_by), line in report.lines().items():
        assert line.right == line.injected, rule
        with_entries = name in ENTRIES
        known = found_by != SECOND_PASS or (with_entries and rule in FOUND_WITH_ENTRIES)
        known |= name in (*POOLS, *LISTS) and rule in OF_BOOKS
        assert not known or line.found == line.injected, rule
        assert line.quiet == line.near, rule


@pytest.mark.parametrize("name", CORES)
def test_every_fault_has_its_near_miss_beside_it(injected: Any, name: str) -> None:
    seen: dict[str, set[str]] = {}
    for one in injected(name).truth["injections"]:
        seen.setdefault(one["fault"], set()).add(one["case"])
    # These near misses split a range or use an altmap, which device-dax and pmem have.
    alone = {fault for fault, cases in seen.items() if cases != {"fault", "near miss"}}
    permitted = {"index-of-other", "memmap-unmapped", "range-too-short", "range-inside-out"}
    if name in (*LISTS, *POOLS):
        # Its near miss is on another memory type.
        permitted |= {"reserved-clear-split"}
    if name in LISTS:
        # Private memory alone: a member of dev_pagemap_ops of 6.19, and what other types may do.
        permitted |= {"dying", "ops-null", "ops-without-free"}
    assert alone <= (permitted if "hmm" in name or name in POOLS else set())


@pytest.mark.parametrize("name", CORES)
def test_truth_says_what_was_written(injected: Any, name: str) -> None:
    one = injected(name)
    applied = one.truth["applied"]
    edited, source = (one.out / "vmcore").read_bytes(), bytearray(one.source.read_bytes())
    for write in writes_of(one.truth, applied):
        assert source[write.offset : write.offset + len(write.old)] == write.old
        source[write.offset : write.offset + len(write.new)] = write.new
    assert source == edited
    for injection in one.truth["injections"]:
        assert injection["edits"] and injection["writes"]
        assert injection["pfn"] is not None or injection["pagemap"]


@pytest.mark.parametrize("name", CORES)
def test_the_check_leaves_the_core_as_it_was(injected: Any, name: str) -> None:
    one = injected(name)
    assert digest(one.out / "vmcore") == one.hash


def test_a_write_to_aliased_struct_pages_is_one_finding(injected: Any) -> None:
    one = injected("7.2-nvdimm")
    (alias,) = [
        i
        for i in one.truth["injections"]
        if i["fault"] == "tail-reference-alias" and i["case"] == "fault"
    ]
    start, stop, step = alias["aliases"]
    vmcore = open_vmcore("7.2-nvdimm")
    layout = vmcore.kernel.layout
    words = {vmcore.prog.read(layout.page_address(p), 64) for p in range(start, stop, step)}
    assert words == {vmcore.prog.read(layout.page_address(alias["pfn"]), 64)}
    found = one.report.outcomes[alias["round"]].found
    hit = {key[2] for key in found if key[0] == "tail-refcount"}
    assert alias["pfn"] in hit
    assert not hit & set(range(start, stop, step))


def test_one_fault_alone_is_one_finding(tmp_path: Path) -> None:
    vmcore = open_vmcore("7.2-nvdimm")
    (zone,) = [fault for fault in FAULTS if fault.name == "zone"]
    only = zone._replace(types=("FS_DAX",))
    truth = inject(vmcore.core, vmcore.vmlinux, tmp_path, [only])
    (one,) = [i for i in truth["injections"] if i["case"] == "fault"]
    new = findings_of(str(tmp_path / "vmcore"), [vmcore.vmlinux])
    new -= findings_of(vmcore.core, [vmcore.vmlinux])
    assert new == {("wrong-zone", "error", one["pfn"], None)}


# ---------------------------------------------------------------- the table


def types_of(row: dict[str, Any]) -> set[str]:
    return {type_.replace("MEMORY_DEVICE_", "") for type_ in row["types"]}


def rows_for(rule: str, type_: str, scheme: str) -> list[Fault]:
    return [
        f
        for f in FAULTS
        if f.rule == rule
        and type_ in f.types
        and scheme in f.schemes
        and (f.found_by != SECOND_PASS or rule in OF_ENTRIES)
    ]


def excused(rule: str, type_: str, scheme: str) -> bool:
    return any(
        e.rule == rule and type_ in e.types and scheme in e.schemes and e.why for e in EXCUSES
    )


@pytest.mark.parametrize("name", CORES)
def test_every_rule_is_injected_on_every_type_of_the_core(injected: Any, name: str) -> None:
    one = injected(name)
    scheme, prefixes = one.truth["scheme"], one.prefixes
    done = {(i["expect"], i["type"]) for i in one.truth["injections"] if i["case"] == "fault"}
    tried = {(i["fault"], i["type"]) for i in one.truth["not_injected"]}
    lacking = []
    why_not = _zonedev.why_not(one.kernel.layout.layout, one.kernel.scheme)
    for row, why in zip(_zonedev.rules(), why_not):
        if why is not None:
            continue
        for type_ in types_of(row) & {p.replace("MEMORY_DEVICE_", "") for p in prefixes}:
            if (row["id"], type_) in done or excused(row["id"], type_, scheme):
                continue
            rows = rows_for(row["id"], type_, scheme)
            faults = [f for f in rows if is_met(one.kernel, f.needs)]
            if {f.needs for f in rows} == {"device"} and not faults:
                continue
            # Rows there are, but this core has no such page, and says so.
            if not faults or not all((f.name, type_) in tried for f in faults):
                lacking.append((row["id"], type_))
    assert not lacking


def test_every_rule_has_a_fault_or_an_excuse(injected: Any) -> None:
    numbers = {row["number"]: row["id"] for row in _zonedev.rules()}
    ids = {row["id"] for row in _zonedev.rules()}
    for group in (range(1, 16), range(20, 29), range(30, 43)):
        assert {f"R{n:02}" for n in group} <= set(numbers)
    assert {f"P{n:02}" for n in range(1, 11)} <= set(numbers)
    shown = {
        i["expect"]
        for name in CORES
        for i in injected(name).truth["injections"]
        if i["case"] == "fault"
    }
    elsewhere = {f.rule for f in FAULTS if f.name in NO_CORE_HERE}
    assert ids <= shown | elsewhere | {e.rule for e in EXCUSES if e.why}
    assert shown <= ids


def test_every_row_is_injected_somewhere(injected: Any) -> None:
    shown = {i["fault"] for name in CORES for i in injected(name).truth["injections"]}
    assert {f.name for f in FAULTS} - shown == set(NO_CORE_HERE)


def test_rows_have_names_of_their_own() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(names) == len(set(names))
    numbers = {row["id"]: row["number"] for row in _zonedev.rules()}
    for fault in FAULTS:
        assert fault.number == numbers[fault.rule], fault.name


def test_what_needs_a_second_pass_is_no_error_today() -> None:
    for fault in FAULTS:
        if fault.found_by == SECOND_PASS:
            assert all(level != "error" for _, level in fault.case.finds), fault.name
            assert bool(fault.case.with_entries) == (
                fault.rule in OF_ENTRIES
                or fault.name in ("mapping-not-a-file", "share-left-behind")
            ), fault.name
        else:
            assert fault.case.finds or fault.name == "head-lost"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.name)
def test_near_misses_are_quiet_of_their_own_rule(fault: Fault) -> None:
    assert all(rule != fault.rule or level == "info" for rule, level in fault.near.finds)


# ---------------------------------------------------------------- the comparison


def injection(**changes: Any) -> dict[str, Any]:
    today = [{"rule": "zone", "level": "error", "pfn": 8, "count": 2, "pagemap": 1}]
    made = {"fault": "f", "case": "fault", "round": 1, "number": "R21", "expect": "zone"}
    made |= {"level": "error", "found_by": "page", "pagemap": 1, "pfn": 8, "ranges": [(0, 64)]}
    return made | {"today": today, "hides": [], "touches": [(8, 10)]} | changes


BASE: set[Key] = {("held", "info", 3, None), ("held", "info", 9, None)}
FOUND: set[Key] = {
    ("held", "info", 3, None),
    ("zone", "error", 8, None),
    ("zone", "error", 9, None),
}


@pytest.mark.parametrize(
    ("after", "missing", "unexpected"),
    [
        (FOUND, set(), set()),
        (FOUND - {("zone", "error", 9, None)}, {("zone", "error", 9, None)}, set()),
        (FOUND | {("zone", "error", 10, None)}, set(), {("zone", "error", 10, None)}),
        # What was there before must stay, but on edited pages.
        (FOUND - {("held", "info", 3, None)}, {("held", "info", 3, None)}, set()),
        (FOUND | {("held", "info", 9, None)}, set(), {("held", "info", 9, None)}),
        (FOUND | {("ref", "error", None, 1)}, set(), {("ref", "error", None, 1)}),
        # The level counts.
        (
            FOUND - {("zone", "error", 8, None)} | {("zone", "warning", 8, None)},
            {("zone", "error", 8, None)},
            {("zone", "warning", 8, None)},
        ),
    ],
)
def test_comparison(after: set[Key], missing: set[Key], unexpected: set[Key]) -> None:
    outcome = compare(BASE, after, [injection()])
    assert (outcome.missing, outcome.unexpected) == (missing, unexpected)
    report = Report({"injections": [injection()], "rounds": 1}, {1: outcome}, set())
    assert report.right == (not missing and not unexpected)


def test_hidden_findings_may_go() -> None:
    one = injection(hides=[(0, 64)], touches=[], today=[])
    assert compare(BASE, set(), [one]) == Outcome(set(), set(), set())
    assert compare(BASE, BASE, [one]).unexpected == set()
    assert compare(BASE, FOUND, [one]).unexpected == FOUND - BASE


def test_a_second_pass_is_welcome() -> None:
    one = injection(found_by=SECOND_PASS, today=[])
    needs, found = set(BASE), BASE | {("zone", "error", 8, None)}
    for after, line in ((needs, 0), (found, 1)):
        outcome = compare(
            BASE - {("held", "info", 9, None)}, after - {("held", "info", 9, None)}, [one]
        )
        report = Report({"injections": [one], "rounds": 1}, {1: outcome}, set())
        assert report.right
        assert [entry.found for entry in report.lines().values()] == [line]


# ---------------------------------------------------------------- files and program


def test_runs_of_writes() -> None:
    writes = [Write(100 + 64 * i, b"\0", b"\1") for i in range(5)] + [Write(7, b"ab", b"cd")]
    assert pack(writes) == [(100, 64, 5, "00", "01"), (7, 0, 1, "6162", "6364")]
    assert unpack(pack(writes)) == writes
    twice = [Write(8, b"\0", b"\1"), Write(8, b"\0", b"\1")]
    assert unpack(pack(twice)) == twice


def test_writes_go_by_physical_address_and_state_what_they_replace(tmp_path: Path) -> None:
    source = Path(open_vmcore("7.2-nvdimm").core)
    copy = tmp_path / "vmcore"
    copy.write_bytes(source.read_bytes())
    file = CoreFile(str(copy))
    first = file.segments[0]
    at = file.offset(first.start + 8, 4)
    assert at == first.offset + 8
    old = file.read(at, 4)
    file.apply([Write(at, old, b"\1\2\3\4")])
    assert copy.read_bytes()[at : at + 4] == b"\1\2\3\4"
    with pytest.raises(CannotEdit, match="changed by others"):
        file.apply([Write(at, old, b"\0\0\0\0")])
    file.undo([Write(at, old, b"\1\2\3\4")])
    assert digest(copy) == digest(source)
    with pytest.raises(CannotEdit, match="not in the core"):
        file.offset(first.end - 2, 4)
    file.close()


def test_kernels_of_other_schemes_are_refused() -> None:
    kernel = open_vmcore("7.2-nvdimm").kernel
    check_kernel("core", kernel)
    with pytest.raises(
        CannotEdit, match=r"core: scheme D.* schemes C, E, G, H; tests/mock_kernels/"
    ):
        check_kernel("core", replace(kernel, scheme=scheme("D")))
    with pytest.raises(CannotEdit, match="no dev_pagemap is registered"):
        check_kernel("core", replace(kernel, pagemaps=[]))


def run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(INJECT), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_program(tmp_path: Path) -> None:
    vmcore = open_vmcore("6.1-nvdimm")
    made = run(vmcore.core, vmcore.vmlinux, tmp_path, "--fault", "zone", "over-put")
    assert made.returncode == 0, made.stderr
    assert "6 of 6 injections (round 1 of 1)" in made.stdout
    good = run("--check", tmp_path)
    assert good.returncode == 0, good.stdout + good.stderr
    assert "R21   wrong-zone" in good.stdout
    # A truth that says something else is a difference.
    truth = json.loads((tmp_path / "truth.json").read_text())
    (one,) = [
        i
        for i in truth["injections"]
        if (i["fault"], i["type"], i["case"]) == ("zone", "FS_DAX", "fault")
    ]
    one["today"][0]["rule"] = "wrong-node"
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    bad = run("--check", tmp_path)
    assert bad.returncode == 1
    assert f"unexpected: error wrong-zone at pfn {one['pfn']:#x} (zone, fault)" in bad.stdout
    assert "missing: error wrong-node" in bad.stdout


def test_list_of_faults() -> None:
    listed = run("--list")
    assert listed.returncode == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [f.name for f in FAULTS]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{core}", "{vmlinux}", "{out}", "--fault", "nonsense"], "no fault is called 'nonsense'"),
        (
            ["{core}", "{vmlinux}", "{out}", "--fault", "lru", "--round", "9"],
            "round 9: there are 1",
        ),
        (["{vmlinux}", "{vmlinux}", "{out}", "--all"], "not a core"),
        (["{core}", "{vmlinux}", "{out}", "--fault", "leak-anon"], "nothing could be injected"),
        (["--check", "{out}"], "no such file; inject first"),
    ],
)
def test_errors_are_one_line(tmp_path: Path, words: list[str], message: str) -> None:
    vmcore = open_vmcore("6.1-nvdimm")
    names = {"core": vmcore.core, "vmlinux": vmcore.vmlinux, "out": tmp_path / "out"}
    answer = run(*(word.format(**names) for word in words))
    assert answer.returncode == 2, answer
    assert answer.stderr.startswith("inject.py: error: ") and answer.stderr.count("\n") == 1
    assert message in answer.stderr


def test_a_seed_draws_other_places_and_draws_them_again(tmp_path: Path) -> None:
    vmcore = open_vmcore("6.1-nvdimm")
    faults = [fault for fault in FAULTS if fault.number in ("R05", "R14", "R20")]
    places = []
    for i, seed in enumerate((None, 1, 2, 1)):
        out = tmp_path / str(i)
        truth = inject(vmcore.core, vmcore.vmlinux, out, faults, seed=seed)
        places.append([one["pfn"] for one in truth["injections"]])
        assert check(out).right and truth["seed"] == seed
    assert places[1] == places[3] and places[0] != places[1] != places[2]


def test_score_counts_findings_that_nobody_asked_for(injected: Any) -> None:
    report = injected("7.2-nvdimm").report
    total: dict[score.Row, score.Score] = {}
    score.add(total, report)
    every = sum(total.values(), score.Score())
    assert every.injected > 50 and every.wrong == 0 and every.quiet == every.near
    key = ("wrong-zone", "error", 1, None)
    outcome = Outcome(set(), {key}, {key})
    score.add(total, Report({**report.truth, "injections": []}, {1: outcome}, set()))
    row = total["-", "wrong-zone", "page"]
    assert row == score.Score(findings=1, wrong=1)
    line = next(text for text in score.table(total).splitlines() if "| - | wrong-zone" in text)
    assert line.split("|")[-2].strip() == "0.0000"
