# SPDX-License-Identifier: LGPL-2.1-or-later
"""Corrupt cores: what hid pages, hung or broke the auditor once; and a few cases of scripts/corrupt.py.

Bytes are laid over healthy bundled cores.  A corruption never ends as clean where pages were not judged.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, fresh_vmcore, lay_over
from corrupt import Answer, judge
from drgn import Object, Program, sizeof

from zonedev.audit import audit, list_pagemaps
from zonedev.kernel import device, log
from zonedev.kernel.registry import read_registry

SECONDS = 10


def lay_word(prog: Program, address: int, word: int, size: int = 8) -> None:
    lay_over(prog, address, (word % (1 << 8 * size)).to_bytes(size, "little"))


def slots_of_leaf(prog: Program) -> Object:
    """Slots of a node of the registry that hold pagemaps."""
    entry = int(prog["pgmap_array"].xa_head)
    while True:
        node = Object(prog, "struct xa_node", address=entry & ~3)
        entry = next(int(slot) for slot in node.slots if slot)
        if entry & 3 == 0:
            return node.slots


def test_an_entry_that_is_no_pagemap_is_a_problem() -> None:
    core = fresh_vmcore("6.16-hmm")
    slots = slots_of_leaf(core.prog)
    slot = next(i for i, entry in enumerate(slots) if entry)
    lay_word(core.prog, slots[slot].address_, 0x1197BE49B766F4BF)
    result = audit(core.prog)
    assert len(result.pagemaps) < len(core.kernel.pagemaps)
    assert result.verdict == "incomplete"
    text = f"slot {slot} of node"
    assert any(
        text in p and "holds 0x1197be49b766f4bf, which is no pagemap" in p for p in result.problems
    )


@pytest.mark.parametrize("entry", [0x402, 0x406])
def test_entries_that_stand_for_nothing_are_none(entry: int) -> None:
    core = fresh_vmcore("6.16-hmm")
    before = read_registry(core.prog)
    slots = slots_of_leaf(core.prog)
    free = next(i for i, value in enumerate(slots) if not value)
    lay_word(core.prog, slots[free].address_, entry)
    assert read_registry(core.prog).entries == before.entries
    assert not any("is no pagemap" in p for p in read_registry(core.prog).problems)


def test_a_range_that_begins_too_early_is_not_walked() -> None:
    core = fresh_vmcore("6.16-hmm")
    pagemap = core.kernel.pagemaps[-1]
    range_ = Object(core.prog, "struct dev_pagemap *", value=pagemap.address).range
    lay_word(core.prog, range_.start.address_, 1 << 30)
    begin = time.monotonic()
    result = audit(core.prog)
    assert time.monotonic() - begin < SECONDS
    mine = next(r for r in result.pagemaps if r.pagemap.address == pagemap.address)
    assert mine.reasons == {"the registry does not know the ends of this range": mine.pagemap.pages}
    assert mine.classes["unreadable"] == mine.pagemap.pages > 1 << 22


def test_an_altmap_does_not_hide_pages() -> None:
    core = fresh_vmcore("5.10-nvdimm")
    pagemap = next(p for p in core.kernel.pagemaps if p.altmap)
    assert audit(core.prog).verdict == "clean"
    altmap = Object(core.prog, "struct dev_pagemap *", value=pagemap.address).altmap
    lay_word(core.prog, altmap.free.address_, int(altmap.free) + 3)
    result = audit(core.prog)
    assert result.verdict == "incomplete"
    assert [
        p for p in result.problems if "3 pages that its altmap takes out" in p
    ] == result.problems


# ---------------------------------------------------------------- logs and lists without an end


def test_a_log_whose_numbers_cannot_be_is_not_walked() -> None:
    core = fresh_vmcore("7.2-nvdimm")
    ring = core.prog["prb"].desc_ring
    assert log._has_end(core.prog)
    tail = int(ring.tail_id.counter)
    lay_word(core.prog, ring.tail_id.address_, tail - (1 << 40))
    begin = time.monotonic()
    assert log.kernel_log_warnings(core.prog) == []
    assert time.monotonic() - begin < SECONDS
    assert not log._has_end(core.prog)
    lay_word(core.prog, ring.tail_id.address_, tail)
    assert log._has_end(core.prog)


@pytest.mark.parametrize("member", ["desc_ring.count_bits", "text_data_ring.size_bits"])
def test_a_log_without_bounds_is_not_walked(member: str) -> None:
    core = fresh_vmcore("7.2-nvdimm")
    bits = core.prog["prb"]
    for name in member.split("."):
        bits = bits.member_(name)
    lay_word(core.prog, bits.address_, 1 << 31, sizeof(bits))
    assert not log._has_end(core.prog)
    assert log.kernel_log_warnings(core.prog) == []


class OldLog:
    """What the log of a kernel before 5.10 looks like to a walk: lengths of records at their places."""

    def __init__(self, lengths: dict[int, int], first: int, end: int) -> None:
        self.lengths = lengths
        self.values = {"log_first_idx": first, "log_next_idx": end}

    def __getitem__(self, name: str) -> int:
        if name not in self.values:
            raise KeyError(name)
        return self.values[name]

    def object(self, name: str, filename: str) -> int:
        assert (name, filename) == ("log_buf", "printk.c")
        return 1 << 20

    def read_u16(self, address: int) -> int:
        return self.lengths[address - (1 << 20) - 8]


@pytest.mark.parametrize(
    ("lengths", "first", "end", "ends"),
    [
        ({0: 32, 32: 48}, 0, 80, True),
        ({}, 16, 16, True),
        ({64: 32, 96: 0, 0: 16}, 64, 16, True),  # goes on at the beginning
        ({0: 32, 32: 64}, 0, 80, False),  # leads past the end
        ({0: 0}, 0, 80, False),  # begins again and again
    ],
)
def test_an_old_log_is_walked_if_it_has_an_end(
    lengths: dict[int, int], first: int, end: int, ends: bool
) -> None:
    prog: Any = OldLog(lengths, first, end)
    assert log._has_end(prog) is ends


def test_a_list_of_block_devices_without_an_end_is_not_walked() -> None:
    core = fresh_vmcore("7.2-nvdimm")
    assert len(device.read_disks(core.prog)) == 3
    head = device.class_to_subsys(core.prog["block_class"].address_of_()).klist_devices.k_list
    first = head.next.read_()
    lay_word(core.prog, first.next.address_of_().value_(), int(first))
    begin = time.monotonic()
    assert device.read_disks(core.prog) == []
    assert time.monotonic() - begin < SECONDS


def test_a_tree_of_modules_that_leads_into_itself_is_not_walked() -> None:
    core = fresh_vmcore("7.2-nvdimm")
    trees = core.prog["mod_tree"].root.tree
    for tree in trees:
        node = tree.rb_node.read_()
        for child in (node.rb_left, node.rb_right):
            lay_word(core.prog, child.address_, int(node))
    seen = threading.Event()
    names: list[Any] = []

    def look() -> None:
        names.extend(p.ops for p in list_pagemaps(core.prog))
        seen.set()

    threading.Thread(target=look, daemon=True).start()
    assert seen.wait(SECONDS)
    assert "fsdax_pagemap_ops" in names


# ---------------------------------------------------------------- random corruption


def corrupt(*words: str, script: str = "corrupt.py") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / script, *words],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("name", ["7.2-nvdimm", "7.2-kdump-leak"])
def test_random_corruption_neither_hangs_nor_deceives(name: str) -> None:
    result = corrupt("--rounds", "2", name)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "wrong" not in result.stdout


def test_the_judge_of_corrupt_cores_is_strict() -> None:
    def report(verdict: str, pages: int, skipped: int = 0) -> str:
        classes = f'{{"idle": {pages - skipped}, "skipped": {skipped}}}'
        return f'{{"summary": {{"verdict": "{verdict}", "pages": {pages}, "classes": {classes}}}}}'

    line = "zonedev: error: core x: it is damaged\n"
    whole = Answer(0, 0, report("clean", 8), "", 0)
    right = [
        whole,
        Answer(0, 2, "", line, 0),
        Answer(0, 3, report("incomplete", 4), "", 0),
        Answer(0, 1, report("violations", 8), "", 0),
    ]
    wrong = [
        Answer(0, 0, report("clean", 7), "", 0),
        Answer(0, 0, report("clean", 8, 1), "", 0),
        Answer(14, -1, "", "", 0),
        Answer(11, -1, "", "", 0),
        Answer(0, 2, "", line * 2, 0),
        Answer(0, 2, "", "zonedev: error: internal error: KeyError: 1\n", 0),
        Answer(0, 1, "", "Traceback (most recent call last)\n", 0),
        Answer(0, 0, report("incomplete", 8), "", 0),
        Answer(0, 0, report("clean", 8), "", 2 << 30),
        Answer(0, 7, "", "", 0),
    ]
    assert [judge(whole, answer) for answer in right] == [None] * len(right)
    assert all(judge(whole, answer) for answer in wrong)


def test_a_case_is_always_the_same(tmp_path: Path) -> None:
    first, second = (corrupt("--case", "7.2-kdump-leak:kdump:3").stdout for _ in range(2))
    edits = [line for line in first.splitlines() if line.startswith("offset ")]
    assert edits
    assert edits == [line for line in second.splitlines() if line.startswith("offset ")]
