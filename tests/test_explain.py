# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who holds a page, on slices of real cores that hold what explains some of their pages, and with words laid over them.

Owns: the account and its words.  That holders are those of the record is compared page by page by
scripts/lab/explained.py, on these slices too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import ROOT, Vmcore, Zonedev, assert_one_line, fresh_vmcore, lay_over, open_vmcore
from drgn import Object, Program, sizeof
from jsonschema import validate

from zonedev._zonedev import Scheme
from zonedev.audit import audit, folio
from zonedev.errors import TargetError, UsageError
from zonedev.explain import Explainer, Explanation, Holder, explain
from zonedev.explain_maps import Folio
from zonedev.kernel import pagetable
from zonedev.kernel.dax import DaxWalk
from zonedev.kernel.held import Held
from zonedev.kernel.members import Members
from zonedev.kernel.rmap import Rmap, Vma
from zonedev.kernel.tasks import OpenFile, Tasks
from zonedev.model import PCI_P2PDMA, Finding
from zonedev.report.data import explain_dict
from zonedev.report.explain_text import explain_line, references

SCHEMA = json.loads((ROOT / "docs" / "explain.schema.json").read_text())
NAMES = ["5.10-explain", "6.1-btf-explain", "6.12-explain", "7.2-explain", "7.3-btf-explain"]
# Memory of the machine that no slice holds.
FRAME = 0x20000000

EVERY = [*NAMES, "7.2-hmm-explain", "7.2-p2p-explain"]


def pages(vmcore: Vmcore, *words: str) -> list[int]:
    """First pages of the runs of the record whose story ends with one of the words."""
    return [s["pfn"] for s in vmcore.states if s["why"].endswith(words)]


def page(vmcore: Vmcore, word: str) -> int:
    return pages(vmcore, word)[0]


def explained(name: str, word: str) -> Explanation:
    vmcore = open_vmcore(name)
    return explain(vmcore.prog, hex(page(vmcore, word)))


def of_kind(explanation: Explanation, kind: str) -> list[Holder]:
    return [holder for holder in explanation.holders if holder.kind == kind]


def files_of(prog: Program, op: str) -> Iterator[OpenFile]:
    """The descriptors of files with these operations."""
    address = prog.symbol(op).address
    return (file for file in Tasks(prog).open_files() if file.op == address)


# ---------------------------------------------------------------- the account


@pytest.mark.parametrize("name", EVERY)
def test_every_state_of_the_record_adds_up(name: str) -> None:
    vmcore = open_vmcore(name)
    states = {
        s["pfn"]: s
        for s in vmcore.states
        if s["why"] not in ("never mapped", "in front of the data")
    }
    first = {(s["type"], s["why"], s["order"]): pfn for pfn, s in reversed(states.items())}
    seen = 0
    for pfn, one in Explainer(vmcore.prog).explain_pfns(first.values()).items():
        state = states[pfn]
        validate(explain_dict(one), SCHEMA)
        assert one.complete, one.gaps
        assert one.refcount == one.base + one.explained + one.unexplained
        leaks = state["why"].count("leak get") - state["why"].count("leak put")
        if "leak set" not in state["why"]:
            assert one.unexplained == leaks, (hex(pfn), state["why"])
            seen += bool(leaks)
        if state["mapcount"] is not None and one.maps_count:
            assert one.maps == one.mapcount
    assert seen > 0


@pytest.mark.parametrize("name", NAMES)
def test_a_pipe_is_named_with_its_process(name: str) -> None:
    one = explained(name, "vmsplice_mapped mapped, pinned by vmsplice")
    (pipe,) = of_kind(one, "pipe")
    assert (pipe.refs, pipe.pins, pipe.comm) == (1, 0, "workload")
    assert "buffer 0 of 8" in pipe.object
    (file,) = one.files
    assert file.path.startswith("/mnt/pmem0/vmsplice_mapped") and file.offset == 0
    assert pipe.pid in {opener.pid for opener in file.openers}


def test_buffers_of_a_pipe_begin_at_its_tail() -> None:
    prog = fresh_vmcore("7.2-explain").prog
    pfn = page(open_vmcore("7.2-explain"), "vmsplice_mapped mapped, pinned by vmsplice")
    (before,) = of_kind(explain(prog, hex(pfn)), "pipe")
    assert before.object and before.address
    address = int(before.object.split()[1], 16)
    pipe = Object(prog, "struct pipe_inode_info", address=address)
    size, each = int(pipe.ring_size), sizeof(pipe.bufs[0])
    words = prog.read(int(pipe.bufs), size * each)
    lay_over(prog, int(pipe.bufs), words[-3 * each :] + words[: -3 * each])
    for member in (pipe.head, pipe.tail):
        lay_over(prog, member.address_, (int(member) + 3).to_bytes(4, "little"))
    (after,) = of_kind(explain(prog, hex(pfn)), "pipe")
    assert after == replace(before, address=before.address + 3 * each)


def test_a_map_that_is_found_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    vmcore = open_vmcore("7.2-explain")
    once = explain(vmcore.prog, hex(page(vmcore, "map4k mapped")))
    of_file = Rmap.of_file

    def twice(self: Rmap, mapping: int, first: int, last: int) -> Iterator[Vma]:
        for vma in of_file(self, mapping, first, last):
            yield from (vma, vma)

    monkeypatch.setattr(Rmap, "of_file", twice)
    assert explain(vmcore.prog, hex(once.pfn)) == once
    assert once.maps == 1


def test_a_migration_entry_is_no_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    vmcore = open_vmcore("7.2-explain")
    before = explain(vmcore.prog, hex(page(vmcore, "map4k mapped")))
    entries = pagetable.PageTables.entries

    def moving(self: pagetable.PageTables, *args: Any) -> Iterator[pagetable.Entry]:
        return (entry._replace(kind="migration") for entry in entries(self, *args))

    monkeypatch.setattr(pagetable.PageTables, "entries", moving)
    after = explain(vmcore.prog, hex(before.pfn))
    (entry,) = of_kind(after, "migration")
    assert (entry.refs, entry.maps) == (0, 0)
    assert after.unexplained == before.unexplained + 1


@pytest.mark.parametrize("name", NAMES)
def test_direct_io_belongs_to_the_process_that_waits_for_it(name: str) -> None:
    one = explained(name, "odirect_child mapped, pinned by odirect")
    (bio,) = of_kind(one, "bio")
    # By pins since 6.5.
    assert (bio.refs, bio.pins) in ((1, 0), (1024, 1))
    mapped = {holder.pid for holder in one.holders if holder.maps}
    assert len(mapped) == 2 and bio.pid == max(mapped)


def test_pins_of_large_folios_count_one_each() -> None:
    one = explained("7.2-explain", "devdax_two_again mapped, leak set")
    assert one.order == 9
    (ring,) = of_kind(one, "io_uring")
    umem = of_kind(one, "xdp-umem")
    assert (ring.refs, ring.pins) == (1, 1)
    assert [(holder.refs, holder.pins) for holder in umem] == [(1, 1)] * 16
    assert one.pincount == 17 == sum(holder.pins for holder in one.holders)


@pytest.mark.parametrize(("name", "has"), [(n, not n.startswith("7")) for n in NAMES])
def test_maps_of_device_memory_had_a_bit_of_their_own(name: str, has: bool) -> None:
    one = explained(name, "map4k mapped")
    (entry,) = [holder for holder in one.holders if holder.maps]
    assert ("devmap" in entry.object.split(", ")) == has


def test_a_page_of_two_files_has_two_places() -> None:
    one = explained("7.2-explain", "reflink_a mapped, reflink_b mapped")
    assert {file.path for file in one.files} == {"/mnt/pmem2/reflink_a", "/mnt/pmem2/reflink_b"}
    assert len(of_kind(one, "dax-entry")) == 2 and len(of_kind(one, "pte")) == 2
    assert one.mapping_words == ""


def test_a_file_that_was_unlinked_is_called_deleted() -> None:
    one = explained("7.2-explain", "unlinked_open mapped")
    (file,) = one.files
    assert file.deleted and file.path == "/mnt/pmem0/unlinked"
    assert "/mnt/pmem0/unlinked (deleted), offset 0x0" in str(one)


def test_pages_of_one_folio_have_one_account() -> None:
    vmcore = open_vmcore("7.2-explain")
    head = page(vmcore, "devdax_two_again mapped, leak set")
    found = Explainer(vmcore.prog).explain_pfns([head + 9, head])
    assert [one.asked_pfn for one in found.values()] == [head + 9, head]
    assert {one.pfn for one in found.values()} == {head}
    a, b = (explain_dict(one) for one in found.values())
    # The record has 3 references on that tail.
    assert a.pop("asked") == {"pfn": head + 9, "offset": 9 * 4096, "refcount": 3}
    assert b.pop("asked") == {"pfn": head, "offset": 0, "refcount": a["refcount"]}
    assert a == b
    assert f"page 9 of 512 from {head:#x}" in str(found[head + 9])
    assert "offset 0x9000" in str(found[head + 9])


def test_every_way_to_name_a_page() -> None:
    vmcore = open_vmcore("7.2-explain")
    pfn = page(vmcore, "map4k mapped, leak get")
    address = vmcore.kernel.layout.page_address(pfn)
    pointers = [
        Object(vmcore.prog, f"struct {name} *", value=address) for name in ("page", "folio")
    ]
    names = [hex(pfn), str(pfn), f"phys:{pfn << 12:#x}", hex(address), pfn, address, *pointers]
    assert {explain(vmcore.prog, what, budget_s=0).asked_pfn for what in names} == {pfn}
    assert folio(vmcore.prog, pointers[0]).pfn == pfn
    with pytest.raises(
        TargetError, match=f"not ZONE_DEVICE memory; phys:{pfn << 12:#x} is pfn {pfn:#x}"
    ):
        explain(vmcore.prog, pfn << 12)
    with pytest.raises(TargetError, match=r"not ZONE_DEVICE memory; zonedev list shows the pfns"):
        explain(vmcore.prog, "phys:0x1000")


def test_without_types_of_page_tables_is_a_gap() -> None:
    """A debug file that has pages and no processes."""
    vmcore = open_vmcore("5.10-nvdimm-leak")
    account = explain(vmcore.prog, 0x101310, budget_s=0)
    assert (
        "types do not tell what page tables are: could not find 'struct mm_struct'" in account.gaps
    )
    assert not account.complete


def test_references_on_a_tail_do_not_add_up() -> None:
    vmcore = open_vmcore("7.2-explain")
    head = page(vmcore, "devdax_two_again mapped, leak set")
    bad, good, first = (explain(vmcore.prog, hex(head + n)) for n in (9, 10, 0))
    assert [one.strays for one in (bad, good, first)] == [3, 0, 0]
    assert [one.exit_code for one in (bad, good, first)] == [1, 0, 0]
    assert f"pfn {head + 9:#x} is a tail, and counts 3 by itself instead of 0" in str(bad)
    assert "is a tail" not in str(good) + str(first)
    assert explain_line(bad).startswith(f"head {head:#x}: refcount {bad.refcount} = base 1 + ")
    assert explain_line(first).startswith(f"refcount {bad.refcount} = base 1 + ")


@pytest.mark.parametrize(("takes", "status"), [(True, 3), (False, 1)])
def test_entries_that_hold_pages_are_a_gap_where_they_are_not_read(
    takes: bool, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a live kernel; in the schemes in which a DAX entry takes a reference."""
    vmcore = fresh_vmcore("7.2-explain")
    explainer, word = Explainer(vmcore.prog), "map4k mapped, leak get"
    explainer._dax.walk, explainer._dax.why = None, "not applicable"
    real = Explainer._folio

    def folio(self: Explainer, pfn: int) -> Any:
        made = real(self, pfn)
        columns = {**made.columns, "entry_takes_ref": takes}
        monkeypatch.setattr(type(made), "columns", columns, raising=False)
        return made

    monkeypatch.setattr(Explainer, "_folio", folio)
    one = explainer.explain(hex(page(vmcore, word)))
    assert one.files and one.unexplained == 1
    assert one.gaps == (["DAX entries were not read: not applicable"] if takes else [])
    assert one.exit_code == status


def test_device_private_memory_is_held_by_entries_that_do_not_map_it() -> None:
    one = explained("7.2-hmm-explain", "hmm_quarter_back mapped, leak get")
    vmcore = open_vmcore("7.2-hmm-explain")
    kinds = set()
    for pfn in pages(vmcore, "leak get", "leak put"):
        one = explain(vmcore.prog, hex(pfn))
        kinds |= {holder.kind for holder in one.holders if holder.maps}
        (entry,) = [holder for holder in one.holders if holder.maps]
        assert entry.refs == 1
        if one.mapping:
            assert one.mapping_words == f"anonymous memory of workload (pid {entry.pid})"
    assert kinds == {"pte", "device-private"}


def test_a_map_that_nothing_leads_to_is_found_in_page_tables() -> None:
    """A page that was freed while mapped has no anon_vma any more."""
    one = explained("7.2-hmm-explain", "leak put")
    assert one.mapping == 0 and one.mapcount == 1 and one.unexplained == -1
    (entry,) = [holder for holder in one.holders if holder.maps]
    assert entry.comm == "workload" and entry.object == "rw-p"
    assert "1 reference missing, put too often" in str(one)


def test_peer_to_peer_memory_is_found_with_its_file() -> None:
    one = explained("7.2-p2p-explain", "leak get")
    assert [file.path.split("/")[-2:] for file in one.files] == [["p2pmem", "allocate"]]
    assert [holder.kind for holder in one.holders] == ["pte", "driver"]
    assert (one.unexplained, one.holders[1].refs) == (1, 0)


@pytest.mark.parametrize(
    ("refcount", "mapcount", "found", "base"),
    [
        (1, 0, 0, 1),  # free
        (1, 1, 1, 0),  # its one reference is that of the map
        (2, 1, 2, 0),
        (1, 0, 1, 0),  # unmapped while a pipe has it
        (2, 0, 1, 0),  # a leak, or the pool's user has it: said
        (1025, 0, 1024, 0),
        (2, 0, 2, 0),
        (0, 0, 0, 1),
    ],
)
def test_who_gets_the_reference_of_peer_to_peer_memory(
    refcount: int, mapcount: int, found: int, base: int
) -> None:
    """6.2 to 6.14, of which no kernel at hand has any."""
    scheme = Scheme.named("E")
    columns = {**scheme.columns(PCI_P2PDMA), "mapped_base": 0, "maps_take_refs": True}
    gaps: list[str] = []
    folio: Any = SimpleNamespace(
        columns=columns,
        scheme=scheme,
        pagemap=SimpleNamespace(type=PCI_P2PDMA, foreign_maps=False),
        gap=gaps.append,
        head={"refcount": refcount, "mapcount": mapcount},
        holders=[Holder("pte", refs=found)],
    )
    assert Explainer._base(object.__new__(Explainer), folio) == base
    assert bool(gaps) == (not mapcount and 0 < found < refcount)
    # Whose free pages others have in use keep theirs.
    folio.pagemap.foreign_maps = True
    assert Explainer._base(object.__new__(Explainer), folio) == columns["idle"]


# ---------------------------------------------------------------- what is lost


def test_tasks_that_were_left_out_are_a_gap() -> None:
    vmcore = fresh_vmcore("7.2-explain")
    prog = vmcore.prog
    victims = [t for t in Tasks(prog).tasks if t.comm == "workload"]
    size = Members(prog, "struct task_struct", "mm").size
    for victim in victims:
        lay_over(prog, victim.address, bytes(size))
    one = explain(prog, hex(page(vmcore, "vmsplice_mapped mapped, pinned by vmsplice")))
    assert f"{len(victims)} tasks cannot be read, nor what they map and have open" in one.gaps
    # The file still leads to the map, if not to its process.
    assert [(h.kind, h.pid, h.refs) for h in one.holders if h.refs] == [("pte", None, 1)]
    assert "of no task" in one.holders[0].object
    assert (one.unexplained, one.exit_code) == (1, 3)
    assert "as far as could be looked" in str(one)


def test_descriptors_that_read_as_zeroes_are_a_gap() -> None:
    vmcore = fresh_vmcore("7.2-explain")
    prog, pfn = vmcore.prog, page(vmcore, "vmsplice_mapped mapped, pinned by vmsplice")
    (pipe,) = of_kind(explain(prog, hex(pfn)), "pipe")
    file = next(f for f in files_of(prog, "pipeanon_fops") if f.task.pid == pipe.pid)
    lay_over(prog, file.address, bytes(Members(prog, "struct file", "f_op").size))
    one = explain(prog, hex(pfn))
    assert f"descriptor {file.fd} of workload (pid {pipe.pid}) cannot be read" in one.gaps
    files = Object(prog, "struct files_struct *", value=file.task.files)
    lay_over(prog, int(files.fdt), bytes(sizeof(files.fdt[0])))
    one = explain(prog, hex(pfn))
    assert f"the open files of workload (pid {pipe.pid}) cannot be read" in one.gaps


def test_a_page_within_a_large_entry_has_its_own_offset() -> None:
    vmcore = open_vmcore("5.10-explain")
    state = next(s for s in vmcore.states if s["why"] == "pmd mapped by a PMD")
    within = range(state["pfn"], state["pfn"] + state["count"])
    head = next(pfn for pfn in within if pfn % 512 == 0)
    first, later = (explain(vmcore.prog, hex(pfn)).files[0] for pfn in (head, head + 3))
    assert first.path == later.path
    assert later.offset == first.offset + 3 * 4096


def test_entries_that_could_not_all_be_read_are_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    vmcore = open_vmcore("7.2-explain")
    pfn = hex(page(vmcore, "map4k mapped"))
    assert explain(vmcore.prog, pfn).gaps == []
    monkeypatch.setattr(DaxWalk, "is_complete", lambda _self, _pagemap: False)
    assert "not all DAX entries could be read" in explain(vmcore.prog, pfn).gaps


def test_a_process_without_page_tables_is_a_gap() -> None:
    vmcore = fresh_vmcore("7.2-explain")
    prog = vmcore.prog
    one = explain(prog, hex(page(vmcore, "map4k mapped")))
    mm = next(t.mm for t in Tasks(prog).tasks if t.pid == one.holders[0].pid)
    pgd = int(Object(prog, "struct mm_struct *", value=mm).pgd)
    lay_over(prog, pgd, bytes(4096))
    one = explain(prog, hex(one.pfn))
    assert (one.maps, one.unexplained) == (0, 1)
    assert any("page directory reads as zeroes" in gap for gap in one.gaps)


def test_trees_of_mappings_that_lead_into_themselves_end() -> None:
    vmcore = fresh_vmcore("7.2-explain")
    prog = vmcore.prog
    one = explain(prog, hex(page(vmcore, "map4k_two mapped, map4k_two_child mapped")))
    vma = next(iter(Rmap(prog, 12).of_file(one.mapping, 0, 0)))
    node = Object(prog, "struct vm_area_struct", address=vma.address).shared.rb
    for child in (node.rb_left, node.rb_right):
        lay_over(prog, child.address_, node.address_.to_bytes(8, "little"))
    again = explain(prog, hex(one.pfn))
    assert any("the tree of mappings is corrupt" in gap for gap in again.gaps)


@pytest.mark.parametrize(
    ("member", "value"),
    [("ring_size", 0), ("ring_size", 3), ("ring_size", 1 << 31), ("head", 1 << 30)],
)
def test_a_pipe_that_cannot_be_is_a_gap(member: str, value: int) -> None:
    vmcore = fresh_vmcore("7.2-explain")
    prog = vmcore.prog
    pipe = Object(
        prog, "struct pipe_inode_info", address=next(files_of(prog, "pipeanon_fops")).private
    )
    lay_over(prog, pipe.member_(member).address_, value.to_bytes(4, "little"))
    one = explain(prog, hex(page(vmcore, "vmsplice_mapped mapped, pinned by vmsplice")))
    assert any(gap.startswith("pipes: descriptor") for gap in one.gaps), one.gaps


@pytest.mark.parametrize(
    ("type_", "member", "size"),
    [("struct io_ring_ctx", "buf_table.nr", 4), ("struct io_mapped_ubuf", "nr_bvecs", 4)],
)
def test_too_many_fixed_buffers_are_a_gap(type_: str, member: str, size: int) -> None:
    vmcore = fresh_vmcore("7.2-explain")
    prog = vmcore.prog
    rings = [
        Object(prog, "struct io_ring_ctx", address=file.private)
        for file in files_of(prog, "io_uring_fops")
    ]
    ring = next(ring for ring in rings if ring.buf_table.nr)
    buffer = int(ring.buf_table.nodes[0].buf)
    address = buffer if type_ == "struct io_mapped_ubuf" else int(ring.address_ or 0)
    offset = Members(prog, type_, member).offset(member)
    lay_over(prog, address + offset, b"\xff" * size)
    one = explain(prog, hex(page(vmcore, "devdax_two_again mapped, leak set")))
    assert any(gap.startswith("io_uring: descriptor") for gap in one.gaps), one.gaps


def test_buffers_that_a_driver_has_lent_are_not_pinned() -> None:
    vmcore = fresh_vmcore("7.2-explain")
    prog, pfn = vmcore.prog, hex(page(vmcore, "devdax_two_again mapped, leak set"))
    rings = [
        Object(prog, "struct io_ring_ctx", address=file.private)
        for file in files_of(prog, "io_uring_fops")
    ]
    for ring in rings:
        if ring.buf_table.nr and ring.buf_table.nodes[0]:
            flags = ring.buf_table.nodes[0].buf.flags
            lay_over(prog, flags.address_, b"\1")
    before, after = explain(open_vmcore("7.2-explain").prog, pfn), explain(prog, pfn)
    assert of_kind(before, "io_uring") and not of_kind(after, "io_uring")
    assert after.unexplained == before.unexplained + 1


def test_entries_that_cannot_be_told_are_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pagetable, "_swap_types", lambda prog: None)
    vmcore = open_vmcore("7.2-hmm-explain")
    private = [pfn for pfn in pages(vmcore, "leak get") if pfn > 1 << 24]
    (pfn,) = private
    one = explain(vmcore.prog, hex(pfn), budget_s=0)
    assert (one.unexplained, one.exit_code) == (2, 3)
    assert any("swap_info is not known" in gap for gap in one.gaps)


@pytest.mark.parametrize(
    ("scheme", "order", "refs"), [("H", 0, 2048), ("H", 9, 2), ("C", 0, 2), ("C", 9, 2)]
)
def test_what_a_pin_is_worth(scheme: str, order: int, refs: int) -> None:
    """Before 5.7, of which no kernel is at hand, pins were plain references."""
    folio: Any = SimpleNamespace(scheme=Scheme.named(scheme), head={"order": order})
    held = Held("xdp-umem", 1, 2, True, 0x1000, "")
    holder = Explainer._holder(object.__new__(Explainer), folio, held)
    assert (holder.refs, holder.pins) == (refs, 2)


def test_maps_of_foreign_memory_take_references() -> None:
    """Xen's pages are mapped like memory, in every scheme; what they rest at stays theirs."""
    columns = {"maps_take_refs": False}
    for foreign in (True, False):
        folio: Any = SimpleNamespace(columns=columns, pagemap=SimpleNamespace(foreign_maps=foreign))
        assert Folio.maps_take_refs.fget(folio) is foreign  # type: ignore[attr-defined]


def test_a_descriptor_table_that_cannot_be_read_is_a_gap() -> None:
    vmcore = fresh_vmcore("7.2-explain")
    prog = vmcore.prog
    task = next(t for t in Tasks(prog).tasks if t.comm == "workload")
    fdt = Object(prog, "struct files_struct *", value=task.files).fdt
    lay_over(prog, fdt.fd.address_, (1 << 40).to_bytes(8, "little"))
    one = explain(prog, hex(page(vmcore, "vmsplice_mapped mapped, pinned by vmsplice")))
    assert f"the open files of workload (pid {task.pid}) cannot be read" in one.gaps


def test_slices_without_tasks_say_what_they_lack() -> None:
    vmcore = open_vmcore("7.2-nvdimm")
    one = explain(vmcore.prog, hex(page(vmcore, "map4k mapped")))
    assert (one.unexplained, one.exit_code, one.complete) == (1, 3, False)
    assert any("tasks cannot be walked" in gap for gap in one.gaps)
    validate(explain_dict(one), SCHEMA)


# ---------------------------------------------------------------- the search of memory


def test_what_is_left_is_searched_for() -> None:
    vmcore = fresh_vmcore("7.2-explain")
    prog = vmcore.prog
    one = explain(prog, hex(page(vmcore, "map4k mapped, leak get")))
    assert one.searched and not one.searched.hits
    # A slice holds next to nothing of the machine's memory.
    assert one.searched.unread > 0.9 * one.searched.total
    assert "memory: 0 words beside those of holders point to it" in str(one)
    assert "nothing in memory points to it" not in str(one)
    all_of_it = replace(one, searched=replace(one.searched, unread=0))
    assert "known holder; nothing in memory points to it: leaked, or kept by" in str(all_of_it)
    word = vmcore.kernel.layout.page_address(one.pfn).to_bytes(8, "little")
    lay_over(prog, FRAME, word.rjust(4096, b"\0"), physical=True)
    again = explain(prog, hex(one.pfn))
    assert again.searched
    assert [hit.physical for hit in again.searched.hits] == [FRAME + 4088]
    assert "memory: 1 word beside" in str(again) and "(may be stale)" in str(again)
    assert again.unexplained == one.unexplained == 1
    validate(explain_dict(again), SCHEMA)


def test_words_of_holders_are_not_told_again() -> None:
    """A reference more than the pipe's: its buffer's word is accounted for."""
    vmcore = fresh_vmcore("7.2-explain")
    prog = vmcore.prog
    one = explain(prog, hex(page(vmcore, "vmsplice_mapped mapped, pinned by vmsplice")))
    refcount = Object(prog, "struct page", address=vmcore.kernel.layout.page_address(one.pfn))
    lay_over(prog, refcount._refcount.address_, (one.refcount + 1).to_bytes(4, "little"))
    again = explain(prog, hex(one.pfn))
    assert again.unexplained == 1 and again.searched
    (pipe,) = of_kind(again, "pipe")
    assert pipe.address and prog.read_u64(pipe.address) == vmcore.kernel.layout.page_address(
        one.pfn
    )
    assert again.searched.read > 0 and not again.searched.hits and not again.searched.more


def test_nothing_is_searched_for_where_nothing_is_left() -> None:
    vmcore = open_vmcore("7.2-explain")
    for word in ("vmsplice_mapped mapped, pinned by vmsplice", "leak put"):
        assert explain(vmcore.prog, hex(page(vmcore, word))).searched is None
    pfn = hex(page(vmcore, "map4k mapped, leak get"))
    assert explain(vmcore.prog, pfn, budget_s=0).searched is None
    short = explain(vmcore.prog, pfn, budget_s=1e-9).searched
    assert short and short.read == 0 and short.why and "budget" in short.why


# ---------------------------------------------------------------- words


def test_the_verb_prints_the_account(zonedev: Zonedev) -> None:
    vmcore = open_vmcore("7.2-explain")
    target = ("-c", vmcore.core, *vmcore.types)
    pfn = hex(page(vmcore, "odirect_child mapped, pinned by odirect"))
    answer = zonedev("explain", *target, pfn)
    assert (answer.status, answer.err) == (0, "")
    assert (
        "1024     1  bio " in answer.out
        and "/mnt/pmem0/odirect, offset 0x0 of 0x8000" in answer.out
    )
    assert "refcount 1026 = base 0 + 1026 explained + 0 unexplained: it adds up" in answer.out
    report = json.loads(zonedev("explain", *target, pfn, "--format", "json").out)
    validate(report, SCHEMA)
    assert report["file"]["path"] == "/mnt/pmem0/odirect"
    leaked = zonedev("explain", *target, hex(page(vmcore, "map4k mapped, leak get")))
    assert leaked.status == 1 and "1 reference without a known holder" in leaked.out
    assert_one_line(zonedev("explain", *target, "0x10"), "no pagemap covers it")
    assert_one_line(zonedev("explain", *target, "ten"), "'ten' is not a pfn")
    assert_one_line(zonedev("explain", vmcore.core, pfn), f"{pfn}; a VMCORE is named with -c")
    assert_one_line(
        zonedev("audit", vmcore.core, pfn), f"{pfn}; there is one VMCORE at a time (see"
    )


def test_a_page_may_be_named_in_any_way() -> None:
    vmcore = open_vmcore("7.2-explain")
    prog, pfn = vmcore.prog, page(vmcore, "map4k mapped")
    address = vmcore.kernel.layout.page_address(pfn)
    pointer = Object(prog, "struct page *", value=address)
    for what in (pfn, hex(pfn), f"phys:{pfn << 12:#x}", hex(address), address, pointer, pointer[0]):
        one = explain(prog, what)
        assert (one.pfn, one.unexplained) == (pfn, 0)
    assert f"{address:#x} is the struct page of pfn {pfn:#x}\n" in str(explain(prog, pointer))
    for what in (1.5, Object(prog, "int", 3) / 2, prog.type("int")):
        with pytest.raises((UsageError, TargetError)):
            explain(prog, what)


def test_an_audit_explains_its_findings(zonedev: Zonedev) -> None:
    vmcore = open_vmcore("7.2-explain")
    target = ("-c", vmcore.core, *vmcore.types)
    result = audit(vmcore.prog, explain=True)
    on_pages = [finding for finding in result.findings if finding.pfn is not None]
    told = [finding for finding in on_pages if finding.explanation]
    assert told == on_pages[: len(told)] and len(told) == min(20, len(on_pages))
    (one,) = [one for one in result.passes if one["pass"] == "explain"]
    assert (one["explained"], one["findings"]) == (len(told), len(on_pages))
    for finding in told:
        assert finding.explanation and finding.explanation.asked_pfn == finding.pfn
    answer = zonedev("audit", *target, "--explain")
    first = told[0].explanation
    assert first and explain_line(first).split("; ")[0] in " ".join(answer.out.split())
    report = json.loads(zonedev("audit", *target, "--explain", "--format", "json").out)
    validate(report["findings"][0]["explanation"], SCHEMA)
    plain = json.loads(zonedev("audit", *target, "--format", "json").out)
    assert not any("explanation" in finding for finding in plain["findings"])
    for finding in report["findings"]:
        finding.pop("explanation", None)
    assert report["findings"] == plain["findings"] and report["summary"] == plain["summary"]


def test_what_cannot_be_explained_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    vmcore = open_vmcore("7.2-explain")
    real = Explainer._folio

    def folio(self: Explainer, pfn: int) -> Any:
        if pfn % 2:
            raise TargetError(f"pfn {pfn:#x} cannot be read")
        return real(self, pfn)

    monkeypatch.setattr(Explainer, "_folio", folio)
    result = audit(vmcore.prog, explain=True)
    (one,) = [one for one in result.passes if one["pass"] == "explain"]
    assert not one["complete"] and one["gaps"] and all("cannot be read" in g for g in one["gaps"])
    first: list[Finding] = [f for f in result.findings if f.pfn is not None][:20]
    assert [f.explanation is None for f in first] == [bool(f.pfn and f.pfn % 2) for f in first]
    assert "cannot be read" in str(result)


@pytest.mark.parametrize(
    ("count", "order", "words"),
    [
        (1, 0, "1 reference"),
        (3, 0, "3 references"),
        (1024, 0, "1024 references (as 1 pin and 0 others would be)"),
        (2049, 0, "2049 references (as 2 pins and 1 others would be)"),
        (1024, 9, "1024 references"),
    ],
)
def test_references_in_words(count: int, order: int, words: str) -> None:
    assert references(count, order) == words


# ---------------------------------------------------------------- kernels that do not stand still


@pytest.mark.parametrize(
    ("refcounts", "looks", "status", "moved"),
    [
        ([2, 2, 2, 2], 4, 1, False),
        ([2, 1], 2, 0, False),
        ([1], 1, 0, False),
        ([2, 2, 3], 3, 3, True),
    ],
)
def test_live_an_account_that_does_not_add_up_is_made_again(
    refcounts: list[int],
    looks: int,
    status: int,
    moved: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A leaked page's account, as if its count were another one at each look."""
    vmcore = open_vmcore("7.2-explain")
    explainer, pfn = Explainer(vmcore.prog), page(vmcore, "map4k mapped, leak get")
    real, seen = explainer._look, list[int]()

    def look(pfns: list[int]) -> dict[int, Explanation]:
        seen.append(refcounts[len(seen)])
        return {pfn: replace(one, refcount=seen[-1]) for pfn, one in real(pfns).items()}

    monkeypatch.setattr(explainer, "_look", look)
    assert explainer.explain_pfns([pfn])[pfn].refcount == refcounts[0] and len(seen) == 1
    seen.clear()
    monkeypatch.setattr(type(explainer._kernel), "live", property(lambda _kernel: True))
    one = explainer.explain_pfns([pfn])[pfn]
    assert (len(seen), one.exit_code) == (looks, status)
    assert ("who holds the page changed while it was looked at" in one.gaps) == moved
