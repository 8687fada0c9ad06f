# SPDX-License-Identifier: LGPL-2.1-or-later
"""The pass over DAX entries on real cores: who claims which page, and what is said when entries are lost."""

from __future__ import annotations

import argparse
import json
import struct
from collections.abc import Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, Optional

import pytest
from conftest import ROOT, Vmcore, Zonedev, assert_one_line, fresh_vmcore, lay_over, open_vmcore
from drgn import Architecture, Object, Platform, Program, TypeMember, offsetof, sizeof
from trees import EMPTY, LOCKED, ZERO

from zonedev import _zonedev, commands, second_pass
from zonedev.audit import audit, dax_files, folio, for_each_dax_entry, open_dax_walk
from zonedev.kernel import dax_lock
from zonedev.kernel.btf import NAME
from zonedev.kernel.dax import (
    CannotWalk,
    DaxFile,
    DaxWalk,
    SuperBlock,
    _why_no_trees,
    file_name,
    inode_number,
    may_lie_on,
    super_blocks,
)
from zonedev.kernel.dax_lock import Lock, find_owners
from zonedev.kernel.facts import read_kernel
from zonedev.model import Audit
from zonedev.report.text import audit_text
from zonedev.second_pass import DaxPass, rules_of_pass

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
    return fresh_vmcore(vmcore.name).prog


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


def test_files_by_name_where_the_union_of_dentries_has_none() -> None:
    """As struct dentry is since 7.1."""
    vmcore = open_vmcore("6.1-entries")
    prog = fresh(vmcore)
    before = {file_name(prog, file) for file in dax_files(prog)}
    old = prog.type("struct dentry")
    members = [
        TypeMember(m.type, None if m.name == "d_u" else m.name, m.bit_offset)
        for m in old.members or ()
    ]
    new = prog.struct_type("dentry", old.size, members)
    prog.register_type_finder(
        "7.1", lambda *question: new if question[2] == "dentry" else None, enable_index=0
    )
    assert prog.type("struct dentry").has_member("d_alias")
    assert {file_name(prog, file) for file in dax_files(prog)} == before
    assert "/reflink_a" in before


def test_too_many_entries_for_a_list_are_one_line(
    zonedev: Zonedev, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_many(mapping: int, pfns: Optional[list[int]]) -> None:
        raise ValueError("more than 16777216 entries")

    vmcore = open_vmcore("6.1-entries")
    walk = walk_of(vmcore)
    inode = inode_number(vmcore.prog, walk.files()[0])
    walk.entries = SimpleNamespace(of=too_many)  # type: ignore[assignment]
    monkeypatch.setattr("zonedev.audit.open_dax_walk", lambda prog: walk)
    answer = zonedev("files", vmcore.core, "-s", vmcore.vmlinux, "--inode", inode)
    assert_one_line(answer, f"inode {inode} of pmem", "cannot be listed", "16777216")
    assert "internal" not in answer.err


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
    assert len(listed["files"]) == len(text.out.splitlines()) - 3
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


def unlink(prog: Program, file: DaxFile) -> None:
    """Take an inode off the list of its super block."""
    node = file.inode + offsetof(prog.type("struct inode"), "i_sb_list")
    links = Object(prog, "struct list_head", address=node)
    after, ahead = int(links.next), int(links.prev)
    lay_over(prog, ahead, struct.pack("<Q", after))
    lay_over(prog, after + 8, struct.pack("<Q", ahead))


def test_an_inode_that_is_being_evicted_is_no_finding(core: Vmcore) -> None:
    """evict() takes it off its super block's list first, and truncates its pages later."""
    before = alarms(audited(core.prog))
    prog = fresh(core)
    file = some_file(core)
    unlink(prog, file)
    result = audited(prog)
    seen = the_pass(result)
    assert seen["complete"]
    assert seen["entries"] == the_pass(audited(core.prog))["entries"]
    assert alarms(result) == before


def test_a_page_of_a_freed_file_is_found(core: Vmcore) -> None:
    """The same, but the inode is somebody else's by now."""
    prog = fresh(core)
    file = some_file(core)
    unlink(prog, file)
    mapping = file.inode + offsetof(prog.type("struct inode"), "i_mapping")
    lay_over(prog, mapping, struct.pack("<Q", 0x1234))
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


# ---------------------------------------------------------------- one file system at a time


def mounted(device: str, kind: str, block: bool = True) -> SuperBlock:
    return SuperBlock(1, 2, device, kind, block)


@pytest.mark.parametrize(
    ("partial", "others", "disk", "may"),
    [
        # What lies on its own disk, and on that of another file system.
        (mounted("pmem0", "xfs"), [], "pmem0", True),
        (mounted("pmem0p1", "ext4"), [], "pmem0", True),
        (mounted("pmem0", "xfs"), [mounted("pmem1", "ext4")], "pmem1", False),
        # Nobody has mounted it: the realtime device of xfs may be any disk, ext4 has none.
        (mounted("pmem0", "xfs"), [], "pmem1", True),
        (mounted("pmem0", "ext4"), [], "pmem1", False),
        (mounted("dm-0", "ext4"), [], "pmem1", True),
        # A partition that is mounted leaves the others.
        (mounted("pmem0", "xfs"), [mounted("pmem1p1", "ext4")], "pmem1", True),
        (mounted("pmem10", "xfs"), [], "pmem1", True),
        (mounted("pmem10", "ext4"), [], "pmem1", False),
        # A name that is not one of a block device.
        (mounted("pmem0", "ext4", block=False), [], "pmem1", True),
        (mounted("pmem0", "xfs"), [mounted("pmem1", "fuse", block=False)], "pmem1", True),
        (mounted("pmem1", "fuse", block=False), [mounted("pmem1", "ext4")], "pmem1", False),
        # It is not known which, or where.
        (None, [mounted("pmem1", "ext4")], "pmem1", True),
        (mounted("pmem0", "ext4"), [mounted("pmem1", "ext4")], None, True),
    ],
)
def test_which_disks_files_may_lie_on(
    partial: Optional[SuperBlock], others: list[SuperBlock], disk: Optional[str], may: bool
) -> None:
    every = [*others, *([partial] if partial else [])]
    assert may_lie_on(partial, disk, every, ["pmem0", "pmem1", "pmem10"]) is may


def two_disks(vmcore: Vmcore) -> dict[str, DaxFile]:
    """A file with nodes of its own, on each of the two disks."""
    walk = walk_of(vmcore)
    files = [f for f in walk.files() if walk.entries.of(f.mapping)[1]["nodes"]]
    return {f.super_block.device: f for f in files if f.super_block}


def forget_tree(prog: Program, file: DaxFile) -> None:
    """As if a file had no entry."""
    space = prog.type("struct address_space")
    lay_over(prog, file.mapping + offsetof(space, "i_pages.xa_head"), bytes(8))


@pytest.mark.parametrize("name", ["6.1-entries", "7.2-entries"])
@pytest.mark.parametrize(
    ("lost", "freed", "found"),
    [
        # The inodes, or the entries, of the one; a file of the other, and of the same.
        ("inode of pmem0", "pmem2", True),
        ("node of pmem2", "pmem0", True),
        ("inode of pmem2", "pmem2", False),
        ("node of pmem0", "pmem0", False),
    ],
)
def test_a_gap_of_one_file_system_says_nothing_of_another(
    name: str, lost: str, freed: str, found: bool
) -> None:
    vmcore = open_vmcore(name)
    prog, files = fresh(vmcore), two_disks(vmcore)
    what, _, device = lost.split()
    gone = files[device]
    if what == "node":
        lay_over(prog, top_node(prog, gone), bytes(576))
    else:
        head = gone.super_block
        assert head
        # The list ends at its first inode.
        first = int(Object(prog, "struct list_head", address=head.inodes).next)
        lay_over(prog, first, bytes(16))
    if freed != device or what == "inode":
        forget_tree(prog, files[freed])
    else:
        others = [f for f in walk_of(vmcore).files() if f.super_block == gone.super_block]
        forget_tree(prog, next(f for f in others if f != gone and some_pages(vmcore, f)))
    result = audited(prog)
    seen = the_pass(result)
    assert seen["incomplete_devices"] == [device] and not seen["complete"]
    assert ("mapping-without-entry" in alarms(result)) is found
    assert result.verdict == ("violations" if found else "clean")
    whys = {one["rule"]: one["why"] for one in result.not_applicable}
    assert f"on {device} could be read" in whys["mapping-without-entry"]
    assert f"no page of {device} is said to lack one" in " ".join(audit_text(result).split())


def some_pages(vmcore: Vmcore, file: DaxFile) -> bool:
    """Whether a file has entries of pages that nobody shares."""
    walk = walk_of(vmcore)
    return any(not e.zero and not e.empty for e in walk.entries_of(file)) and not any(
        "reflink" in state["why"]
        for e in walk.entries_of(file)
        for state in vmcore.states
        if state["pfn"] <= e.pfn < state["pfn"] + state["count"]
    )


def test_a_range_that_is_none_is_one_of_its_pagemap() -> None:
    vmcore = open_vmcore("7.2-entries")
    kernel = read_kernel(vmcore.prog)
    first, second = (p for p in kernel.pagemaps if p.type == "MEMORY_DEVICE_FS_DAX")
    second.ranges = [replace(second.ranges[0], end_pfn=second.ranges[0].start_pfn)]
    dax = DaxPass(kernel)
    assert dax.incomplete() == [second.device]
    assert dax.words([], first.ranges[0].start_pfn + 5000) == "no entry"


def test_words_of_a_page_without_an_entry() -> None:
    """ "no entry" only where all of them were read."""
    vmcore = open_vmcore("7.2-entries")
    prog, files = fresh(vmcore), two_disks(vmcore)
    lay_over(prog, top_node(prog, files["pmem2"]), bytes(576))
    dax = DaxPass(read_kernel(prog))
    starts = {p.device: p.ranges[0].end_pfn - 1 for p in vmcore.kernel.pagemaps}
    assert dax.words([], starts["pmem0"]) == "no entry"
    assert dax.words([], starts["pmem2"]) == "no entry was read"


# ---------------------------------------------------------------- why nothing is listed


def test_files_that_cannot_be_read_are_said_so(zonedev: Zonedev) -> None:
    for name in ("7.2-nvdimm", "5.10-nvdimm"):
        vmcore = open_vmcore(name)
        answer = zonedev("files", vmcore.core, "-s", vmcore.vmlinux)
        assert answer.status == 2 and "super blocks" in answer.err
    vmcore = open_vmcore("7.2-entries")
    prog = fresh(vmcore)
    file = some_file(vmcore)
    lay_over(prog, top_node(prog, file), bytes(576))
    walk = open_dax_walk(prog)
    assert walk.walked.gaps == []
    walk.count(next(f for f in walk.files() if f == file))
    (gap,) = walk.walked.gaps
    assert "belongs to no" in gap
    walk.entries_of(file)
    assert walk.walked.gaps == [gap]


def test_why_there_are_no_files(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    vmcore = open_vmcore("7.2-entries")
    monkeypatch.setattr(DaxWalk, "files", lambda self: [])
    monkeypatch.setattr("zonedev.audit.open_dax_walk", walk_of_program(vmcore))
    args = argparse.Namespace(inode=None, format="text")
    assert commands._files(vmcore.prog, args).exit_code == 0
    assert "no file is in use by DAX" in capsys.readouterr().err


def walk_of_program(vmcore: Vmcore) -> Any:
    return lambda prog: walk_of(vmcore)


class OldSpace:
    """A kernel of before 4.20, or a debug file that tells nothing."""

    def __init__(self, name: str, type_: str) -> None:
        self.members = [SimpleNamespace(name=name)] if name else []
        self._type = SimpleNamespace(type_name=lambda: type_)

    def type(self, name: str) -> OldSpace:
        return self

    def member(self, name: str) -> Any:
        return SimpleNamespace(type=self._type)


@pytest.mark.parametrize(
    ("member", "type_", "why"),
    [
        ("page_tree", "struct radix_tree_root", "before 4.20"),
        ("i_pages", "struct radix_tree_root", "before 4.20"),
        ("i_pages", "struct xarray", "types and symbols do not tell"),
        ("", "", "types and symbols do not tell"),
    ],
)
def test_why_there_are_no_trees(member: str, type_: str, why: str) -> None:
    prog: Any = OldSpace(member, type_)
    assert why in _why_no_trees(prog, LookupError("x"))


# ---------------------------------------------------------------- locks


@pytest.mark.parametrize(
    ("flags", "owner", "found"),
    [
        (EMPTY | LOCKED, False, ("warning", "has no page yet")),
        (ZERO | LOCKED, False, ("warning", "is the zero page")),
        (EMPTY | LOCKED, None, ("info", "stacks of tasks are not in the dump")),
        # Somebody is there; nobody has locked it.
        (EMPTY | LOCKED, True, None),
        (EMPTY, False, None),
    ],
)
def test_a_locked_entry_without_a_page(
    flags: int,
    owner: Optional[bool],
    found: Optional[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vmcore = open_vmcore("7.2-entries")
    prog, file = fresh(vmcore), some_file(vmcore)
    space = prog.type("struct address_space")
    head = (0x77 << 4 | flags) << 1 | 1
    lay_over(prog, file.mapping + offsetof(space, "i_pages.xa_head"), struct.pack("<Q", head))
    asked: list[Lock] = []

    def owners(prog: Program, locks: Iterable[Lock]) -> Optional[dict[Lock, bool]]:
        asked.extend(locks)
        return None if owner is None else dict.fromkeys(asked, owner)

    monkeypatch.setattr(second_pass, "find_owners", owners)
    result = audited(prog)
    assert asked == ([Lock(file.mapping, None)] if flags & LOCKED else [])
    mine = [f for f in result.findings if f.rule == "dax-lock-stuck"]
    assert [(f.severity, f.pfn) for f in mine] == ([(found[0], None)] if found else [])
    if found:
        assert found[1] in mine[0].detail and "page 0x0" in mine[0].detail
        assert f"inode {inode_number(prog, file)} of {file.super_block}" in mine[0].detail


class Task:
    def __init__(self, stack: int, trace: list[str]) -> None:
        self.stack, self.trace = stack, trace


def test_who_may_hold_a_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    mapping, page = 0xFFFF888100000000, 0xFFFFEA0000000040
    lock = Lock(mapping, page)
    stacks: dict[int, bytes] = {}

    class FakeProgram:
        platform = Platform(Architecture.X86_64)
        finders: tuple[str, ...] = ("dwarf",)

        def enabled_type_finders(self) -> tuple[str, ...]:
            return self.finders

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
            stacks[i] = struct.pack("<QQQ", 1, 0, word)
            made.append(Task(i, trace))
        monkeypatch.setattr(dax_lock, "for_each_task", lambda prog, gap: iter(made))
        owners = find_owners(FakeProgram(), [lock])  # type: ignore[arg-type]
        return owners and owners[lock]

    monkeypatch.setattr(dax_lock, "stack_size", lambda prog: 24)
    monkeypatch.setattr(dax_lock, "offsetof", lambda type_, member: 8)
    assert ask((7, [])) is False
    # A lock without a page: a word of 0 on a stack is no owner.
    pageless = find_owners(FakeProgram(), [Lock(mapping, None)])  # type: ignore[arg-type]
    assert pageless == {Lock(mapping, None): False}
    for word in (mapping, mapping + 8, page):
        assert ask((7, []), (word, ["dax_iomap_pte_fault"])) is True
    # Words are those of the machine that was dumped.
    turned = int.from_bytes(struct.pack(">Q", page), "little")
    assert ask((turned, [])) is False
    FakeProgram.platform = Platform(Architecture.S390X)
    assert ask((turned, ["dax_iomap_pte_fault"])) is True
    FakeProgram.platform = Platform(Architecture.X86_64)
    # Who waits for it does not hold it.
    assert ask((mapping + 8, ["schedule", "get_unlocked_entry", "grab_mapping_entry"])) is False
    # Without debug information a trace is no proof of it.
    FakeProgram.finders = (NAME,)
    assert ask((mapping + 8, ["schedule", "get_unlocked_entry", "grab_mapping_entry"])) is True
    FakeProgram.finders = ("dwarf",)
    # A stack of zeroes is not in the dump.
    stacks_lost = [Task(9, [])]
    stacks[9] = bytes(16)
    monkeypatch.setattr(dax_lock, "for_each_task", lambda prog, gap: iter(stacks_lost))
    assert find_owners(FakeProgram(), [lock]) is None  # type: ignore[arg-type]
    monkeypatch.setattr(dax_lock, "for_each_task", lambda prog, gap: iter(()))
    assert find_owners(FakeProgram(), [lock]) is None  # type: ignore[arg-type]


def test_pids_that_lead_into_themselves_end(monkeypatch: pytest.MonkeyPatch) -> None:
    prog = fresh(open_vmcore("7.2-entries"))
    root, top, leaf = (0xFFFFFFFF_00000000 + i * 4096 for i in range(3))
    node = prog.type("struct xa_node")

    def lay_node(address: int, shift: int, *slots: int) -> None:
        data = bytearray(sizeof(node))
        data[offsetof(node, "shift")], data[offsetof(node, "count")] = shift, len(slots)
        struct.pack_into(f"<{len(slots)}Q", data, offsetof(node, "slots"), *slots)
        lay_over(prog, address, bytes(data))

    head = offsetof(prog.type("struct xarray"), "xa_head")
    lay_over(prog, root, bytes(head) + struct.pack("<Q", top | 2))
    pids = SimpleNamespace(idr=SimpleNamespace(idr_rt=Object(prog, "struct xarray", address=root)))

    class FakeProgram:
        def __getitem__(self, name: str) -> Any:
            return {"PIDTYPE_PID": Object(prog, "int", 0), "init_pid_ns": pids}[name]

        def type(self, name: str) -> Any:
            return prog.type(name)

        def read(self, address: int, size: int) -> bytes:
            return pid[:size].ljust(size, b"\0")

    pid = b"\1"
    fake: Any = FakeProgram()
    monkeypatch.setattr(
        dax_lock, "Object", lambda prog_, type_, value: Object(prog, "unsigned long", value)
    )
    # The last pid has no task of its own: only a session or a process group of that number is left.
    monkeypatch.setattr(dax_lock, "pid_task", lambda pid, kind: int(pid) % 0x3000)
    lay_node(top, 6, leaf | 2)
    lay_node(leaf, 0, 0x1000, 0x2000, 0x3000)
    gaps: list[str] = []
    assert list(dax_lock.for_each_task(fake, gaps.append)) == [0x1000, 0x2000]
    assert not gaps
    # Its memory may also have been left out of the dump.
    pid = b""
    assert list(dax_lock.for_each_task(fake, gaps.append)) == [0x1000, 0x2000]
    assert gaps == ["not all pids can be read: one reads as zeroes"]
    pid = b"\1"
    lay_over(prog, leaf + offsetof(node, "count"), b"\x05")
    assert list(dax_lock.for_each_task(fake, gaps.append)) == [0x1000, 0x2000]
    assert gaps[1:] == ["not all pids can be read: nodes of their tree do not hold what they count"]
    lay_node(leaf, 0, 0x1000, top | 2)
    with pytest.raises(ValueError, match="cannot lie"):
        list(dax_lock.for_each_task(fake))


def test_stacks_of_tasks_that_cannot_all_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were found are given, and then it is said."""
    prog: Any = SimpleNamespace(read=lambda _address, size: b"x" * size)
    task: Any = SimpleNamespace(stack=0x1000)
    lost: list[str] = []

    def each(_prog: Any, gap: Any) -> Any:
        yield from [task] * 2
        for text in lost:
            gap(text)

    monkeypatch.setattr(dax_lock, "stack_size", lambda _prog: 8)
    monkeypatch.setattr(dax_lock, "for_each_task", each)
    assert list(dax_lock.each_stack(prog)) == [(task, b"x" * 8)] * 2
    lost.append("not all pids can be read")
    stacks = dax_lock.each_stack(prog)
    assert [next(stacks), next(stacks)] == [(task, b"x" * 8)] * 2
    with pytest.raises(ValueError, match="not all pids"):
        next(stacks)
