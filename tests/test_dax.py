# SPDX-License-Identifier: LGPL-2.1-or-later
"""The pass over DAX entries on real cores: who claims which page, and what is said when entries are lost."""

from __future__ import annotations

import json
import struct
from typing import Any, Optional

import pytest
from conftest import ROOT, Vmcore, Zonedev, lay_over, open_vmcore
from drgn import Object, Program, offsetof

from zonedev import _zonedev
from zonedev.audit import audit, dax_files, folio, for_each_dax_entry
from zonedev.kernel import dax_lock
from zonedev.kernel.dax import CannotWalk, DaxFile, DaxWalk, file_name, inode_number, super_blocks
from zonedev.kernel.dax_lock import Lock, find_owners
from zonedev.kernel.facts import read_kernel
from zonedev.model import Audit
from zonedev.second_pass import DaxPass, rules_of_pass
from zonedev.target import Target, open_target

ENTRIES = ["5.10-entries", "6.1-entries", "6.16-entries", "7.2-entries"]
WITHOUT = ["5.10-nvdimm", "6.1-nvdimm", "7.2-nvdimm", "7.3-nvdimm"]


# What is known of a page of two files that says it is shared.
MARK_OF_TWO = {
    "count": 2,
    "match": False,
    "pmd": False,
    "locked": False,
    "flux": False,
    "stuck": False,
}


@pytest.fixture(params=ENTRIES)
def core(request: pytest.FixtureRequest) -> Vmcore:
    return open_vmcore(request.param)


def fresh(vmcore: Vmcore) -> Program:
    """A Program of the same core, to lay something over."""
    return open_target(Target(vmcore.core, [vmcore.vmlinux]))


def audited(prog: Program, **options: Any) -> Audit:
    result: Audit = audit(prog, **options)
    return result


def alarms(result: Audit) -> set[str]:
    return {f.rule for f in result.findings if f.severity != "info"}


def the_pass(result: Audit) -> dict[str, Any]:
    (one,) = result.passes
    return one


def walk_of(vmcore: Vmcore) -> DaxWalk:
    return DaxWalk(vmcore.prog, vmcore.kernel.layout, vmcore.kernel.scheme, vmcore.kernel.pagemaps)


# ---------------------------------------------------------------- both directions


def test_what_was_read(core: Vmcore) -> None:
    seen = the_pass(audited(core.prog))
    assert seen["ran"] and seen["complete"] and seen["gaps"] == []
    # pmem0 and pmem2, and what the kernel mounts for itself
    assert 2 < seen["file_systems"] < 6
    walk = walk_of(core)
    walk.run()
    entries = [entry for file in walk.files() for entry in walk.entries_of(file)]
    assert len(entries) == seen["entries"] > 1000
    assert sum(e.pages for e in entries if not e.zero and not e.empty) == seen["pages"] > 10_000
    assert sum(e.pmd for e in entries) == seen["pmd"] > 10
    assert len({e.file for e in entries}) == seen["files"] >= 40
    # 22 of the zero page of a PMD or of a page, and reservations that never became pages
    assert seen["zero"] and seen["empty"] and not seen["locked"] and not seen["outside"]


def test_pages_that_the_record_gives_to_files_have_entries(core: Vmcore) -> None:
    walk = walk_of(core)
    walk.run()
    several = 0
    for state in core.states:
        if state["type"] != "fsdax":
            continue
        shared = "reflink" in state["why"] and not core.name.startswith("5.10")
        for pfn in range(state["pfn"], state["pfn"] + state["count"]):
            mark = walk.entries.mark(pfn)
            assert mark is not None
            several += mark["count"] > 1
            if shared:
                assert mark["count"] or core.name.startswith("6.1") or state["mapping"] != "shared"
                continue
            owned = state["mapping"] == "file"
            assert (mark["count"], mark["match"]) == (owned, owned), hex(pfn)
            assert mark["pmd"] <= owned
    assert several == (0 if core.name.startswith("5.10") else 24)


def test_from_page_to_file_and_back(core: Vmcore) -> None:
    entries = list(for_each_dax_entry(core.prog))
    assert {e.file for e in entries} <= set(dax_files(core.prog))
    names = {file_name(core.prog, file): file for file in dax_files(core.prog)}
    # Only what an audit reads is in the core: names of files that a finding is about.
    assert len(names) >= 1
    large = next(e for e in entries if e.pmd and not e.zero)
    report = folio(core.prog, str(large.pfn + 5))
    assert report.entries == [large]
    number = inode_number(core.prog, large.file)
    assert f"inode {number} of {large.file.super_block}" in report.files
    assert report.files.endswith(f"page {large.index + 5:#x} (pmd)")
    mine = list(for_each_dax_entry(core.prog, large.file.inode))
    assert mine == [e for e in entries if e.file == large.file]
    quick = folio(core.prog, str(large.pfn), quick=True)
    assert quick.entries == [] and "--quick" in quick.files
    free = next(s for s in core.states if s["type"] == "fsdax" and s["mapping"] == "none")
    if core.name.startswith("5.10"):
        assert folio(core.prog, str(free["pfn"])).files == "no entry"


def test_files_by_name() -> None:
    """The files of the one finding that names them."""
    vmcore = open_vmcore("6.1-entries")
    (first, second) = (f for f in audited(vmcore.prog).findings if f.rule == "multi-owner-unshared")
    assert "/reflink_cached_b, page 0x0" in first.detail
    assert "/reflink_cached_a, page 0x0" in first.detail
    assert "/reflink_a, page 0x0" in second.detail
    assert (first.severity, first.count, second.count) == ("warning", 8, 16)
    page = folio(vmcore.prog, str(first.pfn))
    assert len(page.entries) == 2
    assert [f.rule for f in page.findings] == ["multi-owner-unshared"]


def test_files_verb(zonedev: Zonedev) -> None:
    vmcore = open_vmcore("6.1-entries")
    target = (vmcore.core, "-s", vmcore.vmlinux)
    text = zonedev("files", *target)
    assert text.status == 0
    assert text.out.splitlines()[0].split() == [
        "DEVICE", "TYPE", "INODE", "ENTRIES", "PAGES", "PMD", "ZERO", "EMPTY", "LOCKED", "NAME",
    ]  # fmt: skip
    listed = json.loads(zonedev("files", *target, "--format", "json").out)
    assert listed["schema"] == "zonedev.files/1"
    assert len(listed["files"]) == len(text.out.splitlines()) - 1
    seen = the_pass(audited(vmcore.prog))
    assert sum(file["entries"] for file in listed["files"]) == seen["entries"]
    one = max(listed["files"], key=lambda file: int(file["entries"]))
    only = json.loads(zonedev("files", *target, "--inode", one["number"], "--format", "json").out)[
        "entries"
    ]
    assert len(only) >= one["entries"]
    assert sum(e["pages"] for e in only if not e["zero"] and not e["empty"]) >= one["pages"]
    assert f"{only[0]['pfn']:#x}" in zonedev("files", *target, "--inode", one["number"]).out
    unknown = zonedev("files", *target, "--inode", 1 << 40)
    assert unknown.status == 2 and "no DAX inode" in unknown.err


# ---------------------------------------------------------------- what the report says


def test_quick_leaves_it_out(core: Vmcore, zonedev: Zonedev) -> None:
    result = audited(core.prog, quick=True)
    assert the_pass(result) == {
        "pass": "dax-entries",
        "ran": False,
        "why": "left out (--quick)",
    }
    assert not alarms(result) & rules_of_pass()
    listed = {one["rule"] for one in result.not_applicable if "--quick" in one["why"]}
    rows = _zonedev.rules()
    why_not = _zonedev.why_not(core.kernel.layout.layout, core.kernel.scheme)
    mine = rules_of_pass()
    wanted = {
        r["id"]
        for r, why in zip(rows, why_not)
        if r["requires_evidence"] and r["id"] in mine and not why
    }
    assert len(wanted) >= 4 and wanted <= listed
    answer = zonedev("audit", core.core, "-s", core.vmlinux, "--quick")
    assert "dax entries: not read: left out (--quick)" in answer.out
    assert "entries of" in zonedev("audit", core.core, "-s", core.vmlinux).out


@pytest.mark.parametrize("name", WITHOUT)
def test_cores_without_the_data_say_so(name: str) -> None:
    result = audited(open_vmcore(name).prog)
    seen = the_pass(result)
    assert not seen["ran"] and "super blocks" in seen["why"]
    assert not alarms(result) & rules_of_pass()
    assert result.verdict == "clean"
    whys = {one["rule"]: one["why"] for one in result.not_applicable}
    assert "not applied" in whys["mapping-without-entry"]
    assert seen["why"] in whys["mapping-without-entry"]


def test_no_pass_where_no_page_is_fsdax() -> None:
    assert "dax-entries" not in {
        one["pass"] for one in audited(open_vmcore("6.16-hmm").prog).passes
    }
    assert "dax-entries" not in {
        one["pass"] for one in audited(open_vmcore("6.1-entries").prog, types=["generic"]).passes
    }


def test_not_on_a_live_kernel(core: Vmcore, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = read_kernel(core.prog)
    monkeypatch.setattr(type(kernel), "live", True)
    dax = DaxPass(kernel)
    assert dax.walk is None and "live" in (dax.why or "")
    assert dax.summary()["ran"] is False and not dax.settle([])


def test_json(core: Vmcore, zonedev: Zonedev) -> None:
    import jsonschema

    schema = json.loads((ROOT / "docs" / "audit.schema.json").read_text())
    for extra in ([], ["--quick"]):
        answer = zonedev("audit", core.core, "-s", core.vmlinux, "--format", "json", *extra)
        report = json.loads(answer.out)
        jsonschema.validate(report, schema)
        assert report["passes"][0]["pass"] == "dax-entries"
    assert "passes" in schema["properties"]


# ---------------------------------------------------------------- entries that are lost


def some_file(vmcore: Vmcore) -> DaxFile:
    """A file with nodes of its own."""
    walk = walk_of(vmcore)
    return next(f for f in walk.files() if walk.entries.of(f.mapping)[1]["nodes"])


def top_node(prog: Program, file: DaxFile) -> int:
    mapping = Object(prog, "struct address_space *", value=file.mapping)
    return int(mapping.i_pages.xa_head) - 2


def test_a_lost_node_is_a_gap_and_no_finding(core: Vmcore) -> None:
    before = alarms(audited(core.prog))
    prog = fresh(core)
    file = some_file(core)
    lay_over(prog, top_node(prog, file), bytes(576))
    result = audited(prog)
    seen = the_pass(result)
    assert not seen["complete"] and "belongs to no" in seen["gaps"][0]
    assert alarms(result) == before
    assert result.verdict == "clean"
    assert any("no absence is concluded" in one["why"] for one in result.not_applicable)


def test_a_sharer_that_is_lost_is_not_missed() -> None:
    """One of two files of a shared extent cannot be read: its pages count more sharers than are seen."""
    vmcore = open_vmcore("7.2-entries")
    walk = walk_of(vmcore)
    walk.run()
    entries = [e for f in walk.files() for e in walk.entries_of(f)]
    shared = next(e for e in entries if walk.entries.mark(e.pfn) == MARK_OF_TWO)
    prog = fresh(vmcore)
    lay_over(prog, top_node(prog, shared.file), bytes(576))
    result = audited(prog)
    assert not the_pass(result)["complete"]
    assert alarms(result) == alarms(audited(vmcore.prog)) == set()


def test_a_lost_inode_is_a_gap_and_no_finding(core: Vmcore) -> None:
    before = alarms(audited(core.prog))
    prog = fresh(core)
    file = some_file(core)
    node = file.inode + offsetof(prog.type("struct inode"), "i_sb_list")
    lay_over(prog, node, bytes(16))
    result = audited(prog)
    assert not the_pass(result)["complete"]
    assert "does not name the one before it" in the_pass(result)["gaps"][0]
    assert alarms(result) <= before
    assert result.verdict == "clean"


def test_a_lost_list_of_super_blocks(core: Vmcore) -> None:
    prog = fresh(core)
    head = int(prog["super_blocks"].address_)
    lay_over(prog, head, bytes(16))
    seen = the_pass(audited(prog))
    assert not seen["ran"] and "super blocks" in seen["why"]
    # One that goes round in itself.
    prog = fresh(core)
    first = int(prog["super_blocks"].next)
    second = int(Object(prog, "struct list_head", address=first).next)
    lay_over(prog, second, struct.pack("<Q", first))
    with pytest.raises(CannotWalk, match=r"corrupt: .* does not name the one before it"):
        list(super_blocks(prog))


def test_an_inode_that_is_being_evicted_is_no_finding(core: Vmcore) -> None:
    """evict() takes it off its super block's list first, and truncates its pages later."""
    before = alarms(audited(core.prog))
    prog = fresh(core)
    file = some_file(core)
    node = file.inode + offsetof(prog.type("struct inode"), "i_sb_list")
    links = Object(prog, "struct list_head", address=node)
    after, ahead = int(links.next), int(links.prev)
    lay_over(prog, ahead, struct.pack("<Q", after))
    lay_over(prog, after + 8, struct.pack("<Q", ahead))
    result = audited(prog)
    seen = the_pass(result)
    assert seen["complete"]
    assert seen["entries"] == the_pass(audited(core.prog))["entries"]
    assert alarms(result) == before


def test_a_page_of_a_freed_file_is_found(core: Vmcore) -> None:
    """The same, but the inode is somebody else's by now."""
    prog = fresh(core)
    file = some_file(core)
    type_ = prog.type("struct inode")
    node = file.inode + offsetof(type_, "i_sb_list")
    links = Object(prog, "struct list_head", address=node)
    after, ahead = int(links.next), int(links.prev)
    lay_over(prog, ahead, struct.pack("<Q", after))
    lay_over(prog, after + 8, struct.pack("<Q", ahead))
    lay_over(prog, file.inode + offsetof(type_, "i_mapping"), struct.pack("<Q", 0x1234))
    result = audited(prog)
    assert "wrong-mapping" in alarms(result)
    assert result.verdict == "violations"


def test_a_tree_that_is_being_changed_is_no_finding(core: Vmcore) -> None:
    before = alarms(audited(core.prog))
    file = some_file(core)
    space = core.prog.type("struct address_space")
    locked = fresh(core)
    lay_over(locked, file.mapping + offsetof(space, "i_pages.xa_lock"), b"\1\0\0\0")
    lay_over(locked, file.mapping + offsetof(space, "i_pages.xa_head"), bytes(8))
    result = audited(locked)
    assert the_pass(result)["complete"] and alarms(result) == before
    unlocked = fresh(core)
    lay_over(unlocked, file.mapping + offsetof(space, "i_pages.xa_head"), bytes(8))
    result = audited(unlocked)
    assert alarms(result) == before | {"mapping-without-entry"}
    assert result.verdict == "violations"


def test_entries_outside_of_every_pagemap(core: Vmcore) -> None:
    prog = fresh(core)
    file = some_file(core)
    space = core.prog.type("struct address_space")
    head = (0x123 << 4) << 1 | 1
    lay_over(prog, file.mapping + offsetof(space, "i_pages.xa_head"), struct.pack("<Q", head))
    result = audited(prog)
    (finding,) = (f for f in result.findings if f.rule == "entry-page-mismatch" and f.pfn is None)
    assert finding.severity == "error"
    assert "pfn 0x123" in finding.detail and f"inode {inode_number(prog, file)}" in finding.detail
    # A registry that may lack pagemaps says nothing of what lies outside.
    kernel = read_kernel(prog)
    kernel.problems.append("a pagemap cannot be read")
    assert DaxPass(kernel).outside("error") == []


# ---------------------------------------------------------------- locks


class Task:
    def __init__(self, stack: int, trace: list[str]) -> None:
        self.stack, self.trace = stack, trace


def test_who_may_hold_a_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    mapping, page = 0xFFFF888100000000, 0xFFFFEA0000000040
    lock = Lock(mapping, page)
    stacks: dict[int, bytes] = {}

    class FakeProgram:
        def type(self, name: str) -> str:
            return name

        def read(self, address: int, size: int) -> bytes:
            return stacks[address]

        def stack_trace(self, task: Task) -> list[Any]:
            frame = type("Frame", (), {})
            frames = []
            for name in task.trace:
                one = frame()
                one.name = name
                frames.append(one)
            return frames

    def ask(*tasks: tuple[int, list[str]]) -> Optional[bool]:
        stacks.clear()
        made = []
        for i, (word, trace) in enumerate(tasks, 1):
            stacks[i] = struct.pack("<QQ", 1, word)
            made.append(Task(i, trace))
        monkeypatch.setattr(dax_lock, "for_each_task", lambda prog: iter(made))
        owners = find_owners(FakeProgram(), [lock])  # type: ignore[arg-type]
        return owners and owners[lock]

    monkeypatch.setattr(dax_lock, "_stack_size", lambda prog: 16)
    monkeypatch.setattr(dax_lock, "offsetof", lambda type_, member: 8)
    assert ask((7, [])) is False
    for word in (mapping, mapping + 8, page):
        assert ask((7, []), (word, ["dax_iomap_pte_fault"])) is True
    # Who waits for it does not hold it.
    assert ask((mapping + 8, ["schedule", "get_unlocked_entry", "grab_mapping_entry"])) is False
    # A stack of zeroes is not in the dump.
    stacks_lost = [Task(9, [])]
    stacks[9] = bytes(16)
    monkeypatch.setattr(dax_lock, "for_each_task", lambda prog: iter(stacks_lost))
    assert find_owners(FakeProgram(), [lock]) is None  # type: ignore[arg-type]
    monkeypatch.setattr(dax_lock, "for_each_task", lambda prog: iter(()))
    assert find_owners(FakeProgram(), [lock]) is None  # type: ignore[arg-type]
