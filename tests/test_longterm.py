# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pins of RDMA devices and of VFIO, on slices of real cores: who has them is told, and what cannot be told is a gap.

The cores are of the lab's scenario pins: memory of two devdax devices (2M and 4K), registered with a soft RoCE device,
mapped by VFIO for a PCI device, both, and either of them unmapped by its process since.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from conftest import ROOT, Vmcore, fresh_vmcore, lay_over, open_vmcore
from drgn import Object, Program, container_of
from jsonschema import validate

from zonedev.explain import Explainer, Explanation, Holder, explain
from zonedev.kernel import holders, longterm
from zonedev.kernel.held import Folios, Search
from zonedev.kernel.holders import find_holders
from zonedev.kernel.tasks import Tasks
from zonedev.report.data import explain_dict

SCHEMA = json.loads((ROOT / "docs" / "explain.schema.json").read_text())
NAMES = ["5.10-pins", "7.2-btf-pins"]
PAGE = 4096
BIAS = 1024
RDMA, VFIO, BOTH = "pinned by rdma", "pinned by vfio", "pinned by rdma, pinned by vfio"
# Memory that no slice holds.
NOWHERE = 0xFFFF_C123_0000_0000


def page(vmcore: Vmcore, word: str) -> int:
    """The first page of order 0 whose story ends with a word."""
    found = (s["pfn"] for s in vmcore.states if not s["order"] and s["why"].endswith(word))
    return int(next(found))


def again(vmcore: Vmcore, word: str) -> Explanation:
    return explain(vmcore.prog, hex(page(vmcore, word)))


def only(explanation: Explanation, kind: str) -> Holder:
    (holder,) = [h for h in explanation.holders if h.kind == kind]
    return holder


def put(prog: Program, obj: Object, value: int, size: int = 8) -> None:
    """Lay a number over a member."""
    lay_over(prog, obj.address_, value.to_bytes(size, "little"))


def dma_of(vmcore: Vmcore) -> Object:
    """The struct vfio_dma of a page that only VFIO has pinned."""
    holder = only(again(vmcore, f"pins_mapped mapped, {VFIO}"), "vfio")
    return Object(vmcore.prog, "struct vfio_dma", address=holder.address)


def region_of(vmcore: Vmcore) -> tuple[Object, Object]:
    """The struct ib_mr and first struct scatterlist of a page that only RDMA has pinned."""
    holder = only(again(vmcore, f"pins_mapped mapped, {RDMA}"), "rdma-umem")
    mr = int(holder.object.split()[1], 16)
    prog = vmcore.prog
    piece = Object(prog, "struct scatterlist", address=holder.address)
    return Object(prog, "struct ib_mr", address=mr), piece


def umem_of(vmcore: Vmcore, mr: Object) -> Object:
    """The struct ib_umem of a struct ib_mr."""
    type_ = "struct rxe_mem" if vmcore.name.startswith("5.10") else "struct rxe_mr"
    return container_of(mr.address_of_(), type_, "ibmr").umem[0]


# ---------------------------------------------------------------- as recorded


@pytest.mark.parametrize("name", NAMES)
def test_pins_are_those_of_the_record(name: str) -> None:
    vmcore = open_vmcore(name)
    states = {s["pfn"] + i: s for s in vmcore.states for i in (0, s["count"] - 1)}
    pinned = {pfn: s for pfn, s in states.items() if "pinned" in s["why"]}
    kinds = {RDMA: {"rdma-umem"}, VFIO: {"vfio"}, BOTH: {"rdma-umem", "vfio"}}
    seen = set[str]()
    for pfn, one in Explainer(vmcore.prog).explain_pfns(pinned).items():
        why = pinned[pfn]["why"]
        lost = why.endswith(f"{VFIO}, unmapped")
        pins = sum(holder.pins for holder in one.holders)
        refs = one.refcount - one.base - one.maps * one.maps_count
        # Where they are unmapped, VFIO's are not found, and that is said.
        assert one.unexplained == (refs if lost else 0), why
        assert one.exit_code == (3 if lost else 0)
        assert pins == (0 if lost else refs // (1 if one.order else BIAS))
        if one.order:
            assert one.pincount == (pinned[pfn]["pincount"] if lost else pins)
        found = {h.kind for h in one.holders if h.pins}
        words = why.removeprefix("pins_mapped mapped, ").removeprefix("pins_unmapped mapped, ")
        assert found == (set() if lost else kinds[words.removesuffix(", unmapped")]), why
        assert {(h.comm, h.pid) for h in one.holders if h.pins} <= {("pins", _pid(vmcore))}
        validate(explain_dict(one), SCHEMA)
        seen.add(words)
    assert seen == {RDMA, VFIO, BOTH, f"{RDMA}, unmapped", f"{VFIO}, unmapped"}


def _pid(vmcore: Vmcore) -> int:
    return next(task.pid for task in Tasks(vmcore.prog).tasks if task.comm == "pins")


@pytest.mark.parametrize("name", NAMES)
def test_who_has_a_pin_and_where(name: str) -> None:
    vmcore = open_vmcore(name)
    one = again(vmcore, f"pins_mapped mapped, {BOTH}")
    umem, dma = only(one, "rdma-umem"), only(one, "vfio")
    assert (umem.refs, umem.pins, dma.refs, dma.pins) == (BIAS, 1, BIAS, 1)
    assert "of rxe0 (descriptor 4)" in umem.object
    entry = next(h for h in one.holders if h.maps)
    # It lies first in what was mapped for the device.
    assert f"0x8000 bytes from {entry.address:#x}" in dma.object
    assert "(descriptor 6), DMA address 0x" in dma.object
    kinds = [holder["kind"] for holder in explain_dict(one)["holders"]]
    assert {"rdma-umem", "vfio"} <= set(kinds)


@pytest.mark.parametrize("name", NAMES)
def test_what_vfio_pinned_and_its_process_unmapped_is_a_gap(name: str) -> None:
    one = again(open_vmcore(name), f"{VFIO}, unmapped")
    lost = [gap for gap in one.gaps if gap.startswith("VFIO: container")]
    assert len(lost) == 2 == len(one.gaps)
    assert all("of 16 pages" in gap and "16 are not mapped there any more" in gap for gap in lost)


# ---------------------------------------------------------------- types that lack


@pytest.mark.parametrize("name", NAMES)
def test_without_the_types_of_its_module_an_open_file_is_a_gap(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(search: Search) -> Any:
        raise LookupError("could not find 'struct some'")

    rows = tuple(row._replace(make=make) if row.modules else row for row in holders._KINDS)
    monkeypatch.setattr(holders, "_KINDS", rows)
    one = again(open_vmcore(name), BOTH)
    pid = _pid(open_vmcore(name))
    assert (one.unexplained, one.exit_code) == (2 * BIAS, 3)
    assert {gap for gap in one.gaps if "give" in gap} == {
        f"RDMA: descriptor 4 of pins, pid {pid} cannot be read: could not find 'struct some': "
        "give the debug files of ib_uverbs",
        f"VFIO: descriptor 6 of pins, pid {pid} cannot be read: could not find 'struct some': "
        "give the debug files of vfio and vfio_iommu_type1",
    }


def test_files_of_iommufd_are_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {row.name: row for row in holders._KINDS}
    row = rows["iommufd"]._replace(ops=rows["VFIO"].ops, modules=rows["VFIO"].modules)
    monkeypatch.setattr(holders, "_KINDS", (row,))
    one = again(open_vmcore("7.2-btf-pins"), f"pins_mapped mapped, {VFIO}")
    assert any("what iommufd has pinned is not looked for" in gap for gap in one.gaps), one.gaps
    assert (one.unexplained, one.exit_code) == (BIAS, 3)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ((), "nothing is known of its regions"),
        ((longterm._Driver("RDMA_DRIVER_RXE", "struct nowhere"),), "give its debug file"),
    ],
)
def test_without_the_types_of_its_driver_a_region_is_a_gap(
    rows: Any, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(longterm, "_DRIVERS", rows)
    one = again(open_vmcore("7.2-btf-pins"), f"{RDMA}, unmapped")
    assert any(f"its driver is rdma_rxe: {words}" in gap for gap in one.gaps), one.gaps
    assert (one.unexplained, one.exit_code) == (BIAS, 3)


def test_modules_that_are_not_loaded_are_no_gap() -> None:
    vmcore = open_vmcore("7.2-explain")
    assert holders._Readers(Search(vmcore.prog, None, Folios([], 64)))._of_modules == []


# ---------------------------------------------------------------- VFIO, changed


@pytest.mark.parametrize("name", NAMES)
def test_the_memory_is_that_of_the_process_where_nothing_else_is_kept(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        longterm, "has_member", lambda prog, type_, path: path not in ("mm", "vaddr_invalid")
    )
    one = again(open_vmcore(name), f"pins_mapped mapped, {VFIO}")
    assert (only(one, "vfio").pins, one.unexplained) == (1, 0)


@pytest.mark.parametrize(
    ("member", "value", "size", "words"),
    [
        ("mm", 0, 8, "its process has no memory any more"),
        ("mm", NOWHERE, 8, "page tables cannot be read"),
        ("vaddr_invalid", 1, 1, "its process has taken the memory back for now"),
        ("size", 17 * PAGE, 8, ""),
        ("size", 1 << 60, 8, "page tables cannot be read"),
    ],
)
def test_mappings_for_a_device_that_cannot_be_looked_up(
    member: str, value: int, size: int, words: str
) -> None:
    vmcore = fresh_vmcore("7.2-btf-pins")
    put(vmcore.prog, dma_of(vmcore).member_(member), value, size)
    one = again(vmcore, f"pins_mapped mapped, {VFIO}")
    gaps = [gap for gap in one.gaps if "not mapped there any more" not in gap]
    if words:
        assert any(words in gap for gap in gaps), one.gaps
    else:
        assert not gaps and one.unexplained == 0


@pytest.mark.parametrize(("before", "pages", "pins"), [(0, 1, 1), (2, 3, 1), (3, 3, 0), (-1, 4, 0)])
def test_only_what_was_mapped_for_a_device_is_pinned(before: int, pages: int, pins: int) -> None:
    """A mapping that begins so many pages before the first of its pages."""
    vmcore = fresh_vmcore("7.2-btf-pins")
    dma = dma_of(vmcore)
    put(vmcore.prog, dma.vaddr, int(dma.vaddr) - before * PAGE)
    put(vmcore.prog, dma.size, pages * PAGE)
    one = again(vmcore, f"pins_mapped mapped, {VFIO}")
    assert sum(h.pins for h in one.holders if h.kind == "vfio") == pins


def test_a_mapping_that_no_device_has_pins_nothing() -> None:
    vmcore = fresh_vmcore("7.2-btf-pins")
    put(vmcore.prog, dma_of(vmcore).iommu_mapped, 0, 1)
    one = again(vmcore, f"pins_mapped mapped, {VFIO}")
    assert one.unexplained == BIAS and not any("DMA address 0x1000000" in g for g in one.gaps)


def test_pages_pinned_one_by_one() -> None:
    vmcore = fresh_vmcore("7.2-btf-pins")
    prog = vmcore.prog
    dma, wanted = dma_of(vmcore), page(vmcore, f"{VFIO}, unmapped")
    node = prog.type("struct vfio_pfn")
    offset = {member.name: member.offset for member in node.members}
    raw = bytearray(node.size or 0)
    raw[offset["pfn"] : offset["pfn"] + 8] = wanted.to_bytes(8, "little")
    lay_over(prog, NOWHERE, bytes(raw))
    put(prog, dma.pfn_list.rb_node, NOWHERE + offset["node"])
    one = again(vmcore, f"{VFIO}, unmapped")
    holder = only(one, "vfio")
    assert (holder.pins, holder.address, one.unexplained) == (1, NOWHERE, 0)
    assert "one page" in holder.object and holder.comm == "pins"


def test_a_tree_of_mappings_that_leads_into_itself_ends() -> None:
    vmcore = fresh_vmcore("7.2-btf-pins")
    node = dma_of(vmcore).node
    put(vmcore.prog, node.rb_left, node.address_)
    one = again(vmcore, f"pins_mapped mapped, {VFIO}")
    assert any(g.startswith("VFIO: descriptor 6") and "corrupt" in g for g in one.gaps), one.gaps


@pytest.mark.parametrize("name", NAMES)
def test_another_iommu_driver_is_a_gap(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = Search.symbol_at

    def other(self: Search, address: int) -> str:
        return known(self, address).replace("_type1", "_spapr")

    monkeypatch.setattr(Search, "symbol_at", other)
    one = again(open_vmcore(name), f"pins_mapped mapped, {VFIO}")
    words = "nothing is known of its IOMMU driver vfio_iommu_driver_ops_spapr"
    assert any(words in gap for gap in one.gaps), one.gaps


def test_a_container_without_an_iommu_maps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vmcore = open_vmcore("7.2-btf-pins")
    search = Search(vmcore.prog, Tasks(vmcore.prog), Folios([(1, NOWHERE, 1)], 64))
    files = [file for file in Tasks(vmcore.prog).open_files() if file.task.comm == "pins"]
    (container,) = [file for file in files if search.symbol_at(file.op) == "vfio_fops"]
    assert list(longterm.Vfio(search).of(container)) == [] != search.gaps
    search.gaps.clear()
    monkeypatch.setattr(Search, "symbol_at", lambda self, address: "vfio_noiommu_ops")
    assert list(longterm.Vfio(search).of(container)) == [] == search.gaps


# ---------------------------------------------------------------- RDMA, changed


@pytest.mark.parametrize("name", NAMES)
def test_memory_that_is_paged_in_on_demand_is_not_pinned(name: str) -> None:
    vmcore = fresh_vmcore(name)
    mr, _ = region_of(vmcore)
    umem = umem_of(vmcore, mr)
    flags = umem.address_ + umem.type_.member("is_odp").bit_offset // 8
    lay_over(vmcore.prog, flags, b"\x03")
    assert int(umem.is_odp) == 1
    one = again(vmcore, f"pins_mapped mapped, {RDMA}")
    assert one.unexplained == BIAS and not any(gap.startswith("RDMA") for gap in one.gaps)


def test_memory_of_another_device_is_not_pinned() -> None:
    vmcore = fresh_vmcore("7.2-btf-pins")
    umem = umem_of(vmcore, region_of(vmcore)[0])
    offset = umem.type_.member("is_dmabuf").bit_offset
    lay_over(vmcore.prog, umem.address_ + offset // 8, bytes([1 << offset % 8]))
    assert int(umem.is_dmabuf) == 1
    assert again(vmcore, f"pins_mapped mapped, {RDMA}").unexplained == BIAS


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("member", "value", "words"),
    [
        ("page_link", 0, "a piece without a page"),
        ("page_link", 2, "a piece without a page"),
        ("page_link", NOWHERE | 1, "cannot be read"),
    ],
)
def test_pieces_that_cannot_be_are_gaps(name: str, member: str, value: int, words: str) -> None:
    vmcore = fresh_vmcore(name)
    put(vmcore.prog, region_of(vmcore)[1].member_(member), value)
    one = again(vmcore, f"pins_mapped mapped, {RDMA}")
    assert any(g.startswith("RDMA: memory region") for g in one.gaps), one.gaps
    assert (one.unexplained, one.exit_code) == (BIAS, 3)
    if "page" in words:
        assert any(words in gap for gap in one.gaps), one.gaps


def counted(vmcore: Vmcore, mr: Object, count: int) -> None:
    """Let the memory of a region have so many pieces."""
    umem = umem_of(vmcore, mr)
    old = umem.type_.has_member("sg_head")
    put(vmcore.prog, umem.sg_nents if old else umem.sgt_append.sgt.orig_nents, count, 4)


@pytest.mark.parametrize("name", NAMES)
def test_a_list_of_pieces_that_ends_too_early(name: str) -> None:
    vmcore = fresh_vmcore(name)
    mr, _ = region_of(vmcore)
    counted(vmcore, mr, 40)
    one = again(vmcore, f"pins_mapped mapped, {RDMA}")
    assert any("too early" in gap for gap in one.gaps), one.gaps


@pytest.mark.parametrize("name", NAMES)
def test_more_pieces_than_can_be(name: str) -> None:
    vmcore = fresh_vmcore(name)
    mr, _ = region_of(vmcore)
    counted(vmcore, mr, (1 << 32) - 1)
    one = again(vmcore, f"pins_mapped mapped, {RDMA}")
    assert any("memory of 4294967295 pieces" in gap for gap in one.gaps), one.gaps


@pytest.mark.parametrize("name", NAMES)
def test_a_chained_list_of_pieces(name: str) -> None:
    """The first piece moves elsewhere, and a pointer to there takes its place."""
    vmcore = fresh_vmcore(name)
    prog = vmcore.prog
    _, piece = region_of(vmcore)
    raw = prog.read(piece.address_, piece.type_.size)
    lay_over(prog, NOWHERE, raw.ljust(PAGE, b"\0"))
    put(prog, piece.page_link, NOWHERE | 1)
    one = again(vmcore, f"pins_mapped mapped, {RDMA}")
    assert (only(one, "rdma-umem").address, one.unexplained) == (NOWHERE, 0)
    put(prog, Object(prog, piece.type_, address=NOWHERE).page_link, NOWHERE | 1)
    one = again(vmcore, f"pins_mapped mapped, {RDMA}")
    assert any("the list of its pieces is corrupt" in gap for gap in one.gaps), one.gaps


@pytest.mark.parametrize("name", NAMES)
def test_pages_of_a_piece_are_counted_by_its_length(name: str) -> None:
    vmcore = fresh_vmcore(name)
    piece = region_of(vmcore)[1]
    first = page(vmcore, f"pins_mapped mapped, {RDMA}")
    last = first + int(piece.length) // PAGE - 1
    assert piece.length >= 2 * PAGE
    assert explain(vmcore.prog, hex(last)).unexplained == 0
    put(vmcore.prog, piece.length, int(piece.length) - 1, 4)
    assert explain(vmcore.prog, hex(last)).unexplained == 0
    put(vmcore.prog, piece.length, int(piece.length) - PAGE + 1, 4)
    assert explain(vmcore.prog, hex(last)).unexplained == BIAS
    assert explain(vmcore.prog, hex(first)).unexplained == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_list_of_objects_that_leads_into_itself_ends(name: str) -> None:
    vmcore = fresh_vmcore(name)
    mr, _ = region_of(vmcore)
    link = mr.uobject.list
    put(vmcore.prog, link.next, link.address_)
    one = again(vmcore, f"pins_mapped mapped, {RDMA}")
    assert any("the list of its objects is corrupt" in gap for gap in one.gaps), one.gaps


# ---------------------------------------------------------------- what all kinds are given


def test_files_that_are_opened_twice_are_read_once() -> None:
    vmcore = open_vmcore("7.2-btf-pins")
    prog = vmcore.prog
    wanted = page(vmcore, BOTH)
    layout = vmcore.kernel.layout
    tasks = Tasks(prog)
    files = list(tasks.open_files())
    tasks.open_files = lambda: iter(files * 2)  # type: ignore[method-assign]
    folios = Folios([(wanted, layout.page_address(wanted), 1)], layout.page_size)
    found = Counter(held.kind for held in find_holders(Search(prog, tasks, folios), lambda _: None))
    assert found == {"rdma-umem": 1, "vfio": 1}


def test_symbols_of_modules_without_debug_files() -> None:
    class Stripped:
        def symbol(self, address: int) -> Any:
            raise LookupError

    vmcore = open_vmcore("7.2-btf-pins")
    search = Search(vmcore.prog, None, Folios([], 64))
    ops = {f.op for f in Tasks(vmcore.prog).open_files() if f.task.comm == "pins"}
    search.prog = Stripped()  # type: ignore[assignment]
    assert {search.symbol_at(op) for op in ops} >= {"vfio_fops", "uverbs_mmap_fops"}
    assert search.symbol_at(NOWHERE) == ""


def test_page_frames_of_folios() -> None:
    folios = Folios([(8, NOWHERE, 4), (16, NOWHERE + 8 * 64, 1)], 64)
    assert folios.pfns == [range(8, 12), range(16, 17)]
    assert folios.of_pfns(0, 8) == {} == folios.of_pfns(12, 4) == folios.of_pfns(17, 9)
    assert folios.of_pfns(0, 9) == {8: 1}
    assert folios.of_pfns(10, 100) == {8: 2, 16: 1}
