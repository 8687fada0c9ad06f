# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who holds a page, of dumps that were made to take for ever, to fill memory or to deceive.

Owns: bounds of what explanations look at, and words on the command line that make no sense.  Damage without intent is
that of scripts/corrupt_explain.py, of which a few cases are run here.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    Vmcore,
    Zonedev,
    assert_one_line,
    fresh_vmcore,
    lay_over,
    open_vmcore,
)
from corrupt import Answer
from corrupt_explain import judge
from drgn import FaultError, Program, offsetof, sizeof
from test_corrupt import corrupt
from test_explain import files_of, page

import zonedev.explain as explain_module
from zonedev import explain_maps
from zonedev.explain import Explainer, Explanation, explain
from zonedev.kernel import held, memory_place, pagetable, rmap, slab, tasks
from zonedev.kernel.bios import Requests
from zonedev.kernel.held import Folios, Search
from zonedev.kernel.members import Budget, Members
from zonedev.kernel.slab import slab_object
from zonedev.kernel.tasks import Tasks

NAME = "7.2-explain"
PIPE = "vmsplice_mapped mapped, pinned by vmsplice"

# Addresses that nothing is at.
NOWHERE = 0xFFFFA00000000000
FRAME = 0x7000000000


def explained(vmcore: Vmcore, word: str = PIPE) -> Explanation:
    one = explain(vmcore.prog, hex(page(vmcore, word)), budget_s=0)
    assert one.refcount == one.base + one.explained + one.unexplained
    return one


def repeat(prog: Program, address: int, size: int, word: int, physical: bool = False) -> list[int]:
    """Let memory hold one word again and again; gives the addresses of the reads of it, as they come."""
    reads: list[int] = []
    raw = struct.pack("<Q", word)

    def read(at: int, count: int, offset: int, _physical: bool) -> bytes:
        reads.append(at)
        if len(reads) > 1 << 18:
            raise FaultError("nobody reads that much", at)
        return (raw * (count // 8 + 2))[offset % 8 : offset % 8 + count]

    prog.add_memory_segment(address, size, read, physical)
    return reads


def set_member(prog: Program, members: Members, address: int, path: str, value: int) -> None:
    """Lay a number over a member of a struct."""
    type_ = members.type
    for name in path.split("."):
        type_ = type_.member(name).type
    lay_over(prog, address + members.offset(path), value.to_bytes(sizeof(type_), "little"))


def has_gap(explanation: Explanation, words: str) -> bool:
    return not explanation.complete and any(words in gap for gap in explanation.gaps)


# ---------------------------------------------------------------- numbers without an end


def test_a_budget_is_for_all_that_is_looked_at() -> None:
    budget = Budget(4, "things")
    budget.spend(3)
    budget.spend()
    for _ in range(2):
        with pytest.raises(ValueError, match="more than 4 things"):
            budget.spend()


def test_descriptors_of_all_processes_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    vmcore = fresh_vmcore(NAME)
    every = len(list(Tasks(vmcore.prog).open_files()))
    monkeypatch.setattr(tasks, "_FILES_IN_ALL", every)
    assert explained(vmcore).complete
    monkeypatch.setattr(tasks, "_FILES_IN_ALL", every - 1)
    assert has_gap(explained(vmcore), f"more than {every - 1} descriptors")
    monkeypatch.setattr(tasks, "_SLOTS_IN_ALL", 100)
    assert has_gap(explained(vmcore), "more than 100 slots")


def test_pages_of_a_ring_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each buffer of a ring may claim 2^28 pieces, and memory may be such that there are."""
    vmcore = fresh_vmcore(NAME)
    prog = vmcore.prog
    ctx = Members(prog, "struct io_ring_ctx", "buf_table.nr", "buf_table.nodes")
    buffer = Members(prog, "struct io_mapped_ubuf", "nr_bvecs")
    tables = (ctx.read(file.private) for file in files_of(prog, "io_uring_fops"))
    nodes = next(table for count, table in tables if count)
    repeat(prog, NOWHERE, 1 << 33, 0xFFFFEA0000000040)
    set_member(prog, buffer, NOWHERE, "nr_bvecs", 1 << 28)
    node = int.from_bytes(prog.read(nodes, 8), "little")
    set_member(prog, Members(prog, "struct io_rsrc_node", "buf"), node, "buf", NOWHERE)
    monkeypatch.setattr(held, "_PIECES_IN_ALL", 1 << 18)
    assert has_gap(explained(vmcore), f"more than {1 << 18} pages")


Bio = tuple[Vmcore, Any, int]


@pytest.fixture
def bio() -> Bio:
    """A slice with a request; what reads its bios, and its first bio."""
    vmcore = fresh_vmcore(NAME)
    pfn = page(vmcore, PIPE)
    folios = Folios([(pfn, vmcore.kernel.layout.page_address(pfn), 1)], 64)
    reader = Requests(Search(vmcore.prog, Tasks(vmcore.prog), folios))
    list(reader.run(set()))
    first = min(reader._bios._met)
    return vmcore, reader._bios, first


def test_pieces_of_a_clone_have_a_bound(bio: Bio) -> None:
    """4 GiB in pieces of one byte."""
    vmcore, reader, address = bio
    prog = vmcore.prog
    flags = reader._read(address).flags | 1 << reader._cloned
    reads = repeat(prog, NOWHERE, 1 << 37, 0x100000001)
    for path, value in {
        "bi_flags": flags,
        "bi_vcnt": 0,
        "bi_io_vec": NOWHERE,
        "bi_iter.bi_size": 0xFFFFFFFF,
        "bi_iter.bi_idx": 0,
    }.items():
        set_member(prog, reader._bio, address, path, value)
    assert has_gap(explained(vmcore), "a bio of more than 65536 pieces")
    assert len(reads) <= 1 << 16


def test_a_bio_is_looked_at_once(bio: Bio) -> None:
    vmcore, reader, address = bio
    set_member(vmcore.prog, reader._bio, address, "bi_next", address)
    assert has_gap(explained(vmcore), f"bio {address:#x} is reached twice")


def test_bios_and_requests_have_a_bound(bio: Bio, monkeypatch: pytest.MonkeyPatch) -> None:
    vmcore, reader, _ = bio
    monkeypatch.setattr(held, "_READS_IN_ALL", len(reader._met) - 1)
    assert has_gap(explained(vmcore), "bios and their pieces")
    monkeypatch.setattr(held, "_REQUESTS_IN_ALL", 3)
    assert has_gap(explained(vmcore), "more than 3 requests")


def test_gaps_have_a_bound() -> None:
    """Each of a million descriptors may have one, and each is compared with those before."""
    search = Search(open_vmcore(NAME).prog, None, Folios([], 64))
    for i in range(1 << 10):
        search.gap(f"descriptor {i}")
    assert len(search.gaps) == 65 and search.gaps[-1] == "and more"


# ---------------------------------------------------------------- mappings


def test_mappings_of_all_files_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    vmcore = fresh_vmcore(NAME)
    monkeypatch.setattr(rmap, "_NODES_MAX", 1)
    assert has_gap(explained(vmcore), "the trees of mappings are too large")


def test_a_walk_outside_of_a_table_costs_nothing() -> None:
    """Addresses above those of processes must not give back what others have used up."""
    vmcore = open_vmcore(NAME)
    mm = next(task.mm for task in Tasks(vmcore.prog).tasks if task.comm == "workload")
    left = [1000]
    found = pagetable.PageTables(vmcore.prog).entries(
        mm, 1 << 62, (1 << 64) - 1, pagetable.Pfns([range(1)]), left
    )
    assert list(found) == [] and left == [1000]


def directories(prog: Program) -> list[int]:
    """Page directories of the processes whose mm is in the slice."""
    pgd, found = Members(prog, "struct mm_struct", "pgd"), []
    for mm in Tasks(prog).address_spaces:
        try:
            found.append(pgd.read(mm)[0])
        except FaultError:
            continue
    return found


def count_more_maps(vmcore: Vmcore, pfn: int) -> None:
    layout = vmcore.kernel.layout
    at = layout.page_address(pfn) + layout.fields["_mapcount"][0]
    lay_over(vmcore.prog, at, (5).to_bytes(4, "little"))


def test_tables_that_are_one_table_do_not_fill_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    vmcore = fresh_vmcore(NAME)
    prog, pfn = vmcore.prog, page(vmcore, PIPE)
    count_more_maps(vmcore, pfn)
    # Each of the 2^36 pages of each process is this one.
    levels = [FRAME | 0x67, FRAME + 4096 | 0x67, FRAME + 2 * 4096 | 0x67, pfn << 12 | 0x67]
    for directory in directories(prog):
        repeat(prog, directory, 4096, levels[0])
    for number, word in enumerate(levels[1:]):
        repeat(prog, FRAME + number * 4096, 4096, word, True)
    monkeypatch.setattr(explain_maps, "_HOLDERS_MAX", 256)
    monkeypatch.setattr(explain_maps, "EVERYWHERE_MAX", 1 << 20)
    kept = []
    real = Explainer._explanation

    def explanation(self: Explainer, folio: Any, *rest: Any) -> Explanation:
        kept.append(len(folio.mapped_at))
        return real(self, folio, *rest)

    monkeypatch.setattr(Explainer, "_explanation", explanation)
    one = explained(vmcore)
    assert has_gap(one, "it has more than 256 holders")
    assert has_gap(one, "there is more mapped than can be looked through")
    assert len(one.holders) == 256 and kept == [256]


def test_an_address_space_that_cannot_be_read_hides_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stray maps are looked for in all processes, whichever of them comes first."""
    vmcore = fresh_vmcore(NAME)
    prog, pfn = vmcore.prog, page(vmcore, PIPE)
    (mapped,) = [holder for holder in explained(vmcore).holders if holder.maps]
    address = mapped.address or 0
    count_more_maps(vmcore, pfn)
    first = Tasks(prog).address_spaces[0]
    assert mapped.pid not in {task.pid for task in Tasks(prog).tasks if task.mm == first}
    real = pagetable.PageTables.entries

    def entries(self: pagetable.PageTables, mm: int, start: int, end: int, *rest: Any) -> Any:
        """Of a slice, which has few tables of each process."""
        if mm == first:
            raise pagetable.CannotWalk("lost")
        return real(self, mm, max(start, address), min(end, address + 4096), *rest)

    monkeypatch.setattr(pagetable.PageTables, "entries", entries)
    monkeypatch.setattr(rmap.Rmap, "of_file", lambda self, mapping, first, last: iter(()))
    one = explained(vmcore)
    assert has_gap(one, f"not all processes were searched for maps: lost (mm {first:#x})")
    assert [holder.address for holder in one.holders if holder.maps] == [address]


def test_places_in_files_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain_module, "_PLACES_MAX", 1)
    one = explained(fresh_vmcore(NAME), "reflink_a mapped, reflink_b mapped")
    assert has_gap(one, "2 DAX entries name it: 1 are told") and len(one.files) == 1


# ---------------------------------------------------------------- memory


def test_sheaves_of_any_size_are_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a word lies in is asked of those who look at sheaves before they are read."""
    asked = []

    def is_believable(cache: object) -> bool:
        asked.append(cache)
        return False

    def info(prog: Program, address: int) -> object:
        raise AssertionError("a cache is read that is not to be believed")

    monkeypatch.setattr(slab, "find_containing_slab_cache", lambda prog, address: object())
    monkeypatch.setattr(slab, "_is_believable", is_believable)
    monkeypatch.setattr(slab, "slab_object_info", info)
    vmcore = open_vmcore(NAME)
    places = memory_place.Places(vmcore.prog, vmcore.kernel.layout, 1 << 47, [0x1000])
    assert places._in_slab(0x1000) is None and asked
    assert slab_object(vmcore.prog, 0x1000) is None


# ---------------------------------------------------------------- members of arrays


def test_members_of_an_array_are_those_of_each_struct() -> None:
    prog = open_vmcore(NAME).prog
    paths = ("bv_page", "bv_len", "bv_offset")
    raw = bytes(range(48)) + b"rest"
    assert sizeof(prog.type("struct bio_vec")) == 16
    for chosen in (paths, paths[1:], paths[:1], paths[::-1]):
        got = Members(prog, "struct bio_vec", *chosen).each(raw)
        form = {"bv_page": "Q", "bv_len": "I", "bv_offset": "I"}
        type_ = prog.type("struct bio_vec")
        expected = [
            tuple(
                struct.unpack_from(f"<{form[p]}", raw, 16 * i + offsetof(type_, p))[0]
                for p in chosen
            )
            for i in range(3)
        ]
        assert got == expected


# ---------------------------------------------------------------- the command line


@pytest.mark.parametrize("budget", ["nan", "inf", "-inf", "-1", "1e99", "1e6", "", "ten", "0x10"])
def test_a_budget_that_is_none(zonedev: Zonedev, budget: str) -> None:
    vmcore = open_vmcore(NAME)
    pfn = hex(page(vmcore, PIPE))
    answer = zonedev("explain", "-c", vmcore.core, *vmcore.types, f"--budget={budget}", pfn)
    assert_one_line(answer, "--budget")


NO_PAGES = ["", " ", "0x", "-1", "9" * 30, "phys:", "phys:-1", "1e5", "0x10 0x11", "0" * 5000, "5"]


@pytest.mark.parametrize("what", [*NO_PAGES, "18446744073709551615", "phys:0xffffffffffffffff"])
def test_a_page_that_is_none(zonedev: Zonedev, what: str) -> None:
    vmcore = open_vmcore(NAME)
    assert_one_line(zonedev("explain", "-c", vmcore.core, *vmcore.types, "--", what))


def test_words_that_are_too_many_or_too_few(zonedev: Zonedev) -> None:
    vmcore = open_vmcore(NAME)
    target = ("-c", vmcore.core, *vmcore.types)
    pfn = hex(page(vmcore, PIPE))
    assert_one_line(zonedev("explain", *target, pfn, pfn), "unrecognized arguments")
    assert_one_line(zonedev("explain", *target), "PFN|ADDRESS")
    assert_one_line(zonedev("explain", pfn), "no target")
    assert_one_line(zonedev("waiters", *target, "--format", "csv"), "--format")
    assert_one_line(zonedev("waiters"), "no target")


def test_pages_of_a_slice_that_are_none(zonedev: Zonedev, tmp_path: Path) -> None:
    vmcore = open_vmcore(NAME)
    words = ("slice", vmcore.core, *vmcore.types, "-o", tmp_path / "out")
    for what in ("ten", "", "-1", "5"):
        assert_one_line(zonedev(*words, "--with", "explain", f"--page={what}"))
    assert_one_line(zonedev(*words, "--with", "all"), "--with")
    assert not list(tmp_path.glob("out/*"))


# ---------------------------------------------------------------- random corruption


@pytest.mark.parametrize("name", [NAME, "6.1-btf-explain"])
def test_random_corruption_neither_hangs_nor_deceives(name: str) -> None:
    result = corrupt("--rounds", "1", name, script="corrupt_explain.py")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "6 cases" in result.stdout and "wrong" not in result.stdout


def test_the_judge_of_explanations_is_strict() -> None:
    def report(refcount: int, refs: int, unexplained: int, **more: Any) -> str:
        one = {"pfn": 1, "base": 0, "holders": [{"refs": refs}], "explained": refs}
        return json.dumps(
            {**one, "refcount": refcount, "unexplained": unexplained, "complete": True, **more}
        )

    question = ["explain", "0x1"]
    line = "zonedev: error: core x: it is damaged\n"
    right = [
        Answer(0, 0, report(2, 2, 0), "", 0),
        Answer(0, 1, report(3, 2, 1), "", 0),
        Answer(0, 3, report(3, 2, 1, complete=False), "", 0),
        Answer(0, 2, "", line, 0),
    ]
    wrong = [
        Answer(0, 0, report(3, 2, 0), "", 0),
        Answer(0, 0, report(2, 2, 0, explained=1), "", 0),
        Answer(0, 0, report(3, 2, 1), "", 0),
        Answer(0, 1, report(3, 2, 1, complete=False), "", 0),
        Answer(0, 2, "", line * 2, 0),
        Answer(0, 2, "", "zonedev: error: internal error: KeyError: 1\n", 0),
        Answer(0, 0, report(2, 2, 0), "Traceback (most recent call last)\n", 0),
        Answer(0, 0, report(2, 2, 0), "", 2 << 30),
        Answer(0, 7, "", "", 0),
        Answer(14, -1, "", "", 0),
        Answer(24, -1, "", "", 0),
        Answer(11, -1, "", "", 0),
    ]
    assert [judge(question, answer) for answer in right] == [None] * len(right)
    assert all(judge(question, answer) for answer in wrong)
    inside = json.dumps({"findings": [{"explanation": json.loads(report(3, 2, 0))}]})
    assert judge(["audit", "--explain"], Answer(0, 1, inside, "", 0))
