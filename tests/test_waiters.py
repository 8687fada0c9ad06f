# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who waits for a dying pagemap: on a real removal, with stacks that are lost, and with made-up words."""

from __future__ import annotations

import dataclasses
import json
import struct
from types import SimpleNamespace
from typing import Any, Literal, Optional

import pytest
from conftest import ROOT, Vmcore, Zonedev, lay_over, lose, open_vmcore
from drgn import Architecture, Object, Platform, PlatformFlags, Program
from drgn.helpers.linux.pid import find_task
from jsonschema import validate

from zonedev.audit import audit
from zonedev.errors import UsageError
from zonedev.kernel import dax_lock, removal
from zonedev.kernel.facts import read_kernel
from zonedev.kernel.removal import _Text, _Wanted
from zonedev.model import Audit, Finding, Waiter
from zonedev.target import Target, open_target
from zonedev.waiters import waiters

NAME = "5.10-teardown-tasks"


def fresh(vmcore: Vmcore) -> Program:
    return open_target(Target(vmcore.core, [vmcore.vmlinux]))


def dying(result: Audit) -> list[Finding]:
    return [f for f in result.findings if f.rule == "dying-busy"]


def the_pass(result: Audit) -> dict[str, Any]:
    (one,) = [one for one in result.passes if one["pass"] == "removal-waiters"]
    return one


def stack_of(prog: Program, pid: int) -> tuple[int, bytes]:
    """Where a task's stack lies, and what it holds."""
    address = int(find_task(prog, pid).stack)
    return address, prog.read(address, dax_lock.stack_size(prog))


def replaced(data: bytes, old: range, new: int) -> bytes:
    """The words of *data*, those in *old* by another one."""
    words = struct.unpack(f"<{len(data) // 8}Q", data)
    return struct.pack(f"<{len(words)}Q", *(new if word in old else word for word in words))


# ---------------------------------------------------------------- truncates that wait

TRUNCATES = "6.12-explain"


def begun(vmcore: Vmcore) -> set[int]:
    """First pages of the files whose truncate has begun by the record, and has not come back."""
    states = (s for s in vmcore.states if s["why"].endswith("truncate started"))
    return {state["pfn"] for state in states}


def test_truncates_that_wait_in_modules_without_debug_files_are_found() -> None:
    """Nothing but the key that they sleep on tells: the functions are those of ext4 and xfs."""
    vmcore = open_vmcore(TRUNCATES)
    report = waiters(vmcore.prog)
    assert report.complete
    told = {w.pfn: w for held in report.held for w in held.waiters}
    assert told.keys() == begun(vmcore) and len(told) == 2
    assert {w.function for w in told.values()} == {"ext4_break_layouts", "xfs_break_dax_layouts"}
    assert {w.comm for w in told.values()} == {"workload"}


@pytest.mark.parametrize("lost", ["var_wake_function", "the task", "the page"])
def test_a_task_that_does_not_sleep_on_the_page_does_not_wait_for_it(
    lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vmcore = open_vmcore(TRUNCATES)
    real = removal._VarWait.pfn

    def pfn(
        self: removal._VarWait, words: tuple[int, ...], task: int, one: _Wanted
    ) -> Optional[int]:
        if lost == "var_wake_function":
            words = tuple(0 if word == self.wake else word for word in words)
        if lost == "the page":
            words = tuple(0 if one.pfn(word) else word for word in words)
        return real(self, words, task + (lost == "the task"), one)

    monkeypatch.setattr(removal._VarWait, "pfn", pfn)
    assert not [w for held in waiters(vmcore.prog).held for w in held.waiters]


# ---------------------------------------------------------------- a removal that waits


def test_both_removals_are_named() -> None:
    result = audit(fresh(open_vmcore(NAME)))
    findings = dying(result)
    assert len(findings) == 2
    named = {waiter for f in findings for waiter in f.waiters}
    assert {(w.comm, w.function) for w in named} == {("ndctl", "memunmap_pages")}
    assert len(named) == 2 and all(len(f.waiters) == 1 for f in findings)
    for f in findings:
        assert f.detail.endswith(f"; waiting: ndctl (pid {f.waiters[0].pid}, memunmap_pages)")
    seen = the_pass(result)
    assert seen["ran"] and seen["complete"] and seen["waiters"] == 2 and seen["tasks"] > 40


def test_report(zonedev: Zonedev) -> None:
    vmcore = open_vmcore(NAME)
    words = ("audit", vmcore.core, "-s", vmcore.vmlinux)
    report = json.loads(zonedev(*words, "--format", "json").out)
    validate(report, json.loads((ROOT / "docs" / "audit.schema.json").read_text()))
    found = [f["waiters"] for f in report["findings"] if f["rule"] == "dying-busy"]
    assert [(w["comm"], w["function"]) for (w,) in found] == [("ndctl", "memunmap_pages")] * 2
    assert all("waiters" not in f for f in report["findings"] if f["rule"] != "dying-busy")
    text = " ".join(zonedev(*words).out.split())
    assert "memunmap_pages)" in text and "removal waiters: 2 of" in text
    quick = json.loads(zonedev(*words, "--quick", "--format", "json").out)
    assert all("waiters" not in f for f in quick["findings"])
    assert "removal-waiters" not in [one["pass"] for one in quick["passes"]]


@pytest.mark.parametrize("what", ["stack lost", "other pagemap", "other function"])
def test_a_stack_that_says_something_else_is_no_waiter(what: str) -> None:
    vmcore = open_vmcore(NAME)
    prog = fresh(vmcore)
    gone, stays = dying(audit(prog))
    pid, pgmap = gone.waiters[0].pid, gone.pagemap
    address, data = stack_of(prog, pid)
    if what == "stack lost":
        data = bytes(len(data))
    elif what == "other pagemap":
        size = prog.type("struct dev_pagemap").size
        data = replaced(data, range(pgmap, pgmap + size), 1)
    else:
        symbol = prog.symbol("memunmap_pages")
        data = replaced(data, range(symbol.address, symbol.address + symbol.size + 1), 1)
    lay_over(prog, address, data)
    result = audit(prog)
    found = {f.pagemap: f for f in dying(result)}
    assert found[pgmap].waiters == [] and found[stays.pagemap].waiters == stays.waiters
    lost = what == "stack lost"
    words = (
        "no task whose stack could be read (1 could not) waits for it" if lost else "no task waits"
    )
    assert words in found[pgmap].detail
    assert the_pass(result)["complete"] == (not lost)
    assert result.verdict == "violations"


def test_frames_that_a_task_has_left_are_not_looked_at() -> None:
    """What is below the stack pointer may be of a removal that is over."""
    vmcore = open_vmcore(NAME)
    prog = fresh(vmcore)
    gone = dying(audit(prog))[0]
    task = find_task(prog, gone.waiters[0].pid)
    sp = task.thread.sp
    lay_over(prog, sp.address_, struct.pack("<Q", int(task.stack) + 0x3FF0))
    assert {f.pagemap: f.waiters for f in dying(audit(prog))}[gone.pagemap] == []


# ---------------------------------------------------------------- dumps that cannot tell


@pytest.mark.parametrize("name", ["5.10-teardown", "7.3-p2p-teardown"])
def test_without_stacks_the_finding_says_so(name: str) -> None:
    result = audit(fresh(open_vmcore(name)))
    (finding,) = dying(result)
    assert "; who waits is not known: " in finding.detail and finding.waiters == []
    seen = the_pass(result)
    assert not seen["ran"] and seen["why"]


def test_without_a_dying_pagemap_there_is_no_pass() -> None:
    names = [one["pass"] for one in audit(fresh(open_vmcore("6.1-nvdimm-leak"))).passes]
    assert "removal-waiters" not in names


def test_an_interrupted_search_is_no_lost_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    def each(prog: Program) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(removal, "each_stack", each)
    result = audit(fresh(open_vmcore(NAME)))
    assert all(f.detail.endswith("not known: interrupted") for f in dying(result))
    assert result.verdict == "violations"


def test_all_stacks_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    prog = fresh(open_vmcore(NAME))
    tasks = [(Object(prog, "int", 0), b"")] * 3
    monkeypatch.setattr(removal, "each_stack", lambda prog: iter(tasks))
    result = audit(prog)
    assert all(f.detail.endswith("the stacks of tasks are not in the dump") for f in dying(result))


# ---------------------------------------------------------------- what it takes

REMOVING = _Text(0x1000, 0x1100, "memunmap_pages")
BREAKING = _Text(0x2000, 0x2100, "dax_break_layout")
KNOWN = {"removal": [REMOVING], "dax": [BREAKING]}
WANTED = _Wanted(frozenset((0xA0, 0xA8)), [(0x9000, 0x9400, 0x100)], 64, frozenset((0, 0x34)))


def waits_in(words: tuple[int, ...]) -> tuple[str | None, int | None]:
    called = removal._Called(*(removal._innermost(words, KNOWN[kind]) for kind in KNOWN))
    return removal._function(words, WANTED, called)


@pytest.mark.parametrize(
    ("words", "function"),
    [
        ((0x1050, 0xA0), "memunmap_pages"),
        ((0xA8, 7, 0x1100), "memunmap_pages"),
        # An address behind the call: the first of the function is none, the one behind its end may be.
        ((0x1000, 0xA0), None),
        ((0x1101, 0xA0), None),
        ((0x1050, 0xA1), None),
        ((0xA0,), None),
        # A DAX waiter's key is a struct page, or its refcount.
        ((0x9034, 0x2010), "dax_break_layout"),
        ((0x9400, 0x2010), None),
        ((0x9034, 0x1010), None),
        ((0x2010,), None),
        ((0x2010, 0x9000, 0x1010, 0xA0), "memunmap_pages"),
    ],
)
def test_what_it_takes_for_a_waiter(words: tuple[int, ...], function: str | None) -> None:
    assert waits_in(words)[0] == function


@pytest.mark.parametrize(
    ("word", "pfn"),
    [(0x9000, 0x100), (0x9034, 0x100), (0x9374, 0x10D), (0x9010, None), (0x9400, None)],
)
def test_the_page_that_is_waited_for(word: int, pfn: int | None) -> None:
    expected = (None, None) if pfn is None else ("dax_break_layout", pfn)
    assert waits_in((7, 0x2010, word)) == expected


@pytest.mark.parametrize("machine", [Architecture.X86_64, Architecture.S390X])
def test_words_of_a_stack_have_the_byte_order_of_the_machine_that_was_dumped(
    machine: Architecture,
) -> None:
    platform = Platform(machine)
    order: Literal["little", "big"] = (
        "little" if platform.flags & PlatformFlags.IS_LITTLE_ENDIAN else "big"
    )
    stack = b"".join(word.to_bytes(8, order) for word in (1, 2, 3)) + b"rest"
    task: Any = SimpleNamespace(prog_=Program(platform), thread=None)
    assert removal._words(task, stack) == (1, 2, 3)


def test_many_waiters_are_few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    prog = fresh(open_vmcore(NAME))
    made = [Waiter(pid, f"task{pid}", "dax_break_layout") for pid in range(100, 0, -1)]

    def each(
        prog: Program, wanted: dict[int, Any], known: Any, waiting: removal.Waiting, stacks: bool
    ) -> Any:
        waiting.tasks = 100
        yield from ((min(wanted), one) for one in made)

    monkeypatch.setattr(removal, "_each_waiter", each)
    (finding,) = [f for f in dying(audit(prog)) if f.waiters]
    assert len(finding.waiters) == 64
    assert finding.detail.endswith(" and 61 more") and finding.detail.count("pid") == 3


# ---------------------------------------------------------------- zonedev waiters

WITHOUT_DEBUG_FILE = "6.16-btf-p2p-teardown-tasks"


def test_a_removal_without_any_debug_file(zonedev: Zonedev) -> None:
    core = open_vmcore(WITHOUT_DEBUG_FILE).core
    report = json.loads(zonedev("waiters", core, "--format", "json").out)
    assert report["schema"] == "zonedev.waiters/1" and report["types_from"] == "btf"
    (held,) = report["held"]
    assert (
        held["pagemap"]["ref"]["state"] == "dying" and held["pagemap"]["device"] == "0000:00:01.0"
    )
    (waiter,) = held["waiters"]
    assert (waiter["comm"], waiter["function"]) == ("dd", "memunmap_pages")
    # Callees first; what the record did: dd writes to the device's file "remove".
    stack = [name.removeprefix("? ") for name in waiter["stack"]]
    wanted = ["__schedule", "memunmap_pages", "pci_stop_bus_device", "remove_store", "ksys_write"]
    assert [name for name in stack if name in wanted] == wanted
    assert all(name.startswith("? ") for name in waiter["stack"])
    ((pfn, count, refcount),) = [(f["pfn"], f["count"], f["refcount"]) for f in held["out"]]
    assert (count, refcount, held["busy"], held["idle_refcount"]) == (1, 1, 1, 0)
    states = open_vmcore(WITHOUT_DEBUG_FILE).states
    assert [state["pfn"] for state in states if state["refcount"]] == [pfn]


def test_text(zonedev: Zonedev) -> None:
    answer = zonedev("waiters", open_vmcore(WITHOUT_DEBUG_FILE).core)
    assert answer.status == 0
    lines = answer.out.splitlines()
    assert lines[0] == "0000:00:01.0 (PCI_P2PDMA), dying, 1 reference"
    assert lines[1].startswith("  dd (pid ") and lines[1].endswith(") waits in memunmap_pages()")
    assert lines[2].startswith("    ? __schedule < ? schedule < ")
    assert not any(line.endswith("?") for line in lines)
    assert lines[-1].endswith(
        " tasks; 1 waits for pages of 1 pagemap; types from BTF, symbols from kallsyms"
    )


def test_two_removals(zonedev: Zonedev) -> None:
    vmcore = open_vmcore(NAME)
    report = json.loads(zonedev("waiters", vmcore.core, *vmcore.types, "--format", "json").out)
    held = {one["pagemap"]["device"]: one for one in report["held"]}
    assert set(held) == {"namespace0.0", "dax1.0"} and report["pagemaps"] == 5
    assert all([w["comm"] for w in one["waiters"]] == ["ndctl"] for one in held.values())
    assert {name: sum(f["count"] for f in one["out"]) for name, one in held.items()} == {
        "namespace0.0": 2,
        "dax1.0": 1,
    }


def test_a_dump_without_stacks_does_not_tell(zonedev: Zonedev) -> None:
    vmcore = open_vmcore("5.10-teardown")
    answer = zonedev("waiters", vmcore.core, *vmcore.types)
    assert answer.status == 3
    assert "no task was seen that waits for it" in answer.out
    assert "who waits is not known: " in answer.out


def test_nobody_waits(zonedev: Zonedev, monkeypatch: pytest.MonkeyPatch) -> None:
    vmcore = open_vmcore(NAME)
    monkeypatch.setattr(removal, "_functions", lambda prog, names: [_Text(0, 0, names[0])])
    answer = zonedev("waiters", vmcore.core, *vmcore.types)
    assert answer.status == 0
    assert answer.out.count("no task was seen that waits for it") == 2
    assert answer.out.endswith("; 0 wait for pages of 5 pagemaps; types from DWARF\n")


def test_a_page_that_a_truncate_waits_for() -> None:
    """On a live pagemap: words on a real stack, made those of a waiter."""
    vmcore = open_vmcore(NAME)
    prog = fresh(vmcore)
    kernel = read_kernel(prog)
    live = next(p for p in kernel.pagemaps if p.ref.state == "live")
    pid = dying(audit(prog))[0].waiters[0].pid
    address, data = stack_of(prog, pid)
    words = list(struct.unpack(f"<{len(data) // 8}Q", data))
    symbol = prog.symbol("memunmap_pages")
    old = {p.address + i for p in kernel.pagemaps for i in range(512)}
    page = kernel.layout.page_address(live.ranges[0].first_pfn + 5)
    words = [page if word in old else word for word in words]
    lay_over(prog, address, struct.pack(f"<{len(words)}Q", *words))
    text = _Text(symbol.address, symbol.address + symbol.size, "xfs_break_dax_layouts")
    known = {"removal": [_Text(1, 2, "memunmap_pages")], "dax": [text]}
    wanted = {p.address: removal._wanted(prog, p, kernel.layout) for p in kernel.pagemaps}
    found = dict(removal._each_waiter(prog, wanted, known, removal.Waiting(), False))
    waiter = found[live.address]
    assert (waiter.pid, waiter.function) == (pid, "xfs_break_dax_layouts")
    assert waiter.pfn == live.ranges[0].first_pfn + 5


def test_pages_that_cannot_be_read_are_not_free() -> None:
    """A dump without the memmap of the pagemap that is waited for."""
    prog = open_target(Target(open_vmcore(WITHOUT_DEBUG_FILE).core, btf=True))
    kernel = read_kernel(prog)
    range_ = kernel.pagemaps[0].ranges[0]
    start, size = kernel.layout.page_address(range_.start_pfn), kernel.layout.page_size
    lose(prog, start, range_.pages * size)
    report = waiters(prog)
    assert report.held[0].unread == 16384 and not report.complete
    assert "  16384 pages could not be read\n" in str(report)
    assert "in use" not in str(report)


def test_a_pagemap_that_goes_while_it_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    vmcore = open_vmcore(WITHOUT_DEBUG_FILE)
    whole = audit(vmcore.prog)
    for left in (lambda prog, **how: dataclasses.replace(whole, pagemaps=[]), refuse):
        monkeypatch.setattr("zonedev.audit.audit", left)
        (held,) = waiters(vmcore.prog).held
        assert [w.comm for w in held.waiters] == ["dd"] and not held.out and not held.busy


def refuse(prog: Program, **how: Any) -> Any:
    raise UsageError("no pagemap is called that")


def test_a_name_does_not_write_to_the_terminal(zonedev: Zonedev) -> None:
    prog = open_target(Target(open_vmcore(WITHOUT_DEBUG_FILE).core, btf=True))
    pid = waiters(prog).held[0].waiters[0].pid
    lay_over(prog, find_task(prog, pid).comm.address_, b"\x1b[2J\nfake: x\0")
    text = str(waiters(prog))
    assert "\\x1b[2J\\nfake: x (pid " in text
    assert "\x1b" not in text


def test_a_waiter_whose_name_is_lost_is_still_one() -> None:
    prog = open_target(Target(open_vmcore(WITHOUT_DEBUG_FILE).core, btf=True))
    pid = waiters(prog).held[0].waiters[0].pid
    lose(prog, find_task(prog, pid).comm.address_, 16)
    assert [(w.pid, w.comm) for w in waiters(prog).held[0].waiters] == [(pid, "?")]
