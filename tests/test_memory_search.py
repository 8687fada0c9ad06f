# SPDX-License-Identifier: LGPL-2.1-or-later
"""Searching memory for pointers to struct pages, on bundled cores, which hold little memory: what is to be found is
laid over it."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional

import pytest
from conftest import Vmcore, fresh_vmcore, lay_over, open_vmcore
from drgn import Program

from zonedev.diskdump import Dumped, read_dumped
from zonedev.kernel import memory_search
from zonedev.kernel.device import _Resource
from zonedev.kernel.memory_place import Place
from zonedev.kernel.memory_search import HITS_MAX, Searched, search_pointers, system_ram

FRAME = 4096
# Frames that no slice here holds.
START = 0x20000000
RAM = (START, START + 64 * FRAME)
DIRECT_MAP = 0xFFFF888000000000


class Case(NamedTuple):
    """A core, and pages of it that are looked for."""

    vmcore: Vmcore
    pfn: int
    pages: int

    def word(self, page: int, tag: int = 0) -> bytes:
        """What points to one of them, or beyond them."""
        address = self.vmcore.kernel.layout.page_address(self.pfn + page)
        return struct.pack("<Q", address + tag)

    def lay(self, physical: int, *words: tuple[int, bytes]) -> None:
        """Some frames that can be read: zeroes, and words at some offsets."""
        data = bytearray(-(-max((at + 8 for at, _word in words), default=1) // FRAME) * FRAME)
        for at, word in words:
            data[at : at + 8] = word
        lay_over(self.vmcore.prog, physical, bytes(data), physical=True)

    def search(self, **options: Any) -> Searched:
        layout = self.vmcore.kernel.layout
        return search_pointers(self.vmcore.prog, layout, self.pfn, self.pages, **options)


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch) -> Case:
    """16 pages of a devdax, and 64 frames of memory of which none can be read."""
    monkeypatch.setattr(memory_search, "system_ram", lambda prog, word_size: [RAM])
    monkeypatch.setattr(memory_search, "_direct_map", lambda prog: DIRECT_MAP)
    vmcore = fresh_vmcore("7.2-nvdimm")
    return Case(vmcore, vmcore.kernel.pagemaps[1].ranges[0].first_pfn + 512, 16)


def found(result: Searched) -> list[tuple[int, int, int]]:
    return [(hit.physical - START, hit.pfn, hit.tag) for hit in result.hits]


def test_words_are_found_and_what_cannot_be_read_is_counted(case: Case) -> None:
    assert case.search() == Searched(
        [], 0, 0, 64 * FRAME, 64 * FRAME, seconds=pytest.approx(0, abs=9)
    )
    case.lay(START, (0x10, case.word(0)), (0x18, case.word(16)), (0x7FF8, case.word(15, 2)))
    case.lay(START + 40 * FRAME, (0x800, case.word(3, 1)), (0x904, case.word(0)))
    result = case.search()
    first = case.pfn
    assert found(result) == [
        (0x10, first, 0),
        (0x7FF8, first + 15, 2),
        (40 * FRAME + 0x800, first + 3, 1),
    ]
    assert [hit.address - DIRECT_MAP - START for hit in result.hits] == [0x10, 0x7FF8, 0x28800]
    assert (result.read, result.unread, result.total) == (9 * FRAME, 55 * FRAME, 64 * FRAME)
    assert (result.more, result.why) == (0, None) and result.seconds > 0
    assert [hit.where for hit in result.hits] == [
        "not told",
        "not told, low bits 2",
        "not told, low bits 1",
    ]
    assert not any(hit.certain for hit in result.hits)


def test_words_that_are_accounted_for_are_left_out(case: Case) -> None:
    case.lay(START, (0x10, case.word(0)), (0x18, case.word(0)), (0x20, case.word(1)))
    known = frozenset({DIRECT_MAP + START + 0x10, DIRECT_MAP + START + 0x20, 0xFFFFC90000000000})
    assert found(case.search(known=known)) == [(0x18, case.pfn, 0)]


def test_what_is_accounted_for_may_be_mapped_elsewhere(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.lay(START, (0x10, case.word(0)))
    image = {0xFFFFFFFF82000010: START + 0x10}
    monkeypatch.setattr(memory_search, "physical_address", lambda prog, a: image[a])
    assert found(case.search()) and not found(case.search(known=frozenset(image)))


def test_hits_that_are_not_told_are_counted(case: Case) -> None:
    case.lay(START, *((8 * i, case.word(i % 16)) for i in range(200)))
    result = case.search(known=frozenset({DIRECT_MAP + START}))
    assert len(result.hits) == HITS_MAX and result.more == 200 - 1 - HITS_MAX


def test_so_many_that_not_even_the_core_has_room(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_search, "_FOUND_MAX", 10)
    case.lay(START, *((8 * i, case.word(0)) for i in range(200)))
    result = case.search()
    assert (len(result.hits), result.more) == (10, 190)


def test_a_budget_of_nothing_reads_nothing(case: Case) -> None:
    case.lay(START, (0x10, case.word(0)))
    result = case.search(budget_s=0)
    assert result.why == "the budget of 0 s is used up"
    assert (result.hits, result.read, result.unread, result.total) == ([], 0, 0, 64 * FRAME)


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 16 frames."""
    monkeypatch.setattr(memory_search, "_CHUNK", 16 * FRAME)


def test_a_budget_ends_it_between_chunks(
    case: Case, chunks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    case.lay(START, (0x10, case.word(0)), (63 * FRAME, case.word(1)))
    clock = iter(range(100))
    monkeypatch.setattr(memory_search.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(memory_search, "Places", NoPlaces)
    result = case.search(budget_s=3.5)
    assert result.why == "the budget of 3.5 s is used up"
    assert found(result) == [(0x10, case.pfn, 0)]
    assert result.read == 3 * 16 * FRAME


class NoPlaces:
    """Knows no place, and is interrupted at the nth."""

    interrupt: Optional[int] = None

    def __init__(self, *_facts: Any) -> None:
        self._left = self.interrupt

    def of(self, _physical: int, _tag: int) -> Place:
        if self._left == 0:
            raise KeyboardInterrupt
        self._left = None if self._left is None else self._left - 1
        return Place("somewhere", True)


def test_progress_tells_all_bytes(case: Case, chunks: None) -> None:
    case.lay(START, (0x10, case.word(0)))
    seen: list[tuple[int, int]] = []
    case.search(progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n * 16 * FRAME, 64 * FRAME) for n in (1, 2, 3, 4)]


def test_an_interrupt_leaves_what_was_found(case: Case, chunks: None) -> None:
    case.lay(START, (0x10, case.word(0)), (63 * FRAME, case.word(1)))

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    result = case.search(progress=interrupt)
    assert result.why == "interrupted" and found(result) == [(0x10, case.pfn, 0)]
    assert result.read == 16 * FRAME


def test_an_interrupt_while_places_are_told_leaves_the_words(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(NoPlaces):
        interrupt = 1

    monkeypatch.setattr(memory_search, "Places", Interrupted)
    case.lay(START, *((8 * i, case.word(i)) for i in range(3)))
    result = case.search()
    assert result.why == "interrupted" and result.read == FRAME
    told = [(hit.physical - START, hit.where, hit.certain) for hit in result.hits]
    assert told == [(0, "somewhere", True), (8, "not told", False), (16, "not told", False)]


def test_words_that_the_kernel_has_elsewhere_have_that_address(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Image(NoPlaces):
        def of(self, physical: int, _tag: int) -> Place:
            return Place("kernel image", True, physical - START + 0xFFFFFFFF81000000)

    monkeypatch.setattr(memory_search, "Places", Image)
    case.lay(START, (0x10, case.word(0)))
    assert [hit.address for hit in case.search().hits] == [0xFFFFFFFF81000010]


def test_without_a_direct_map_words_have_no_address(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_search, "_direct_map", lambda prog: None)
    case.lay(START, (0x10, case.word(0)))
    (hit,) = case.search().hits
    assert (hit.address, hit.physical) == (0, START + 0x10)


def test_a_running_kernel_without_physical_addresses_has_the_direct_map(case: Case) -> None:
    class Live:
        flags = memory_search.ProgramFlags.IS_LIVE

        def read(self, address: int, size: int, physical: bool = False) -> bytes:
            if physical:
                raise memory_search.FaultError("no physical addresses", address)
            return struct.pack("<Q", address) * (size // 8)

    prog: Any = Live()
    memory = memory_search._Memory(prog, DIRECT_MAP)
    assert memory.read(START, 8) == struct.pack("<Q", DIRECT_MAP + START)
    prog.flags = memory_search.ProgramFlags.IS_LINUX_KERNEL
    assert memory_search._Memory(prog, DIRECT_MAP).read(START, 8) is None
    assert memory_search._Memory(prog, None).read(START, 8) is None


# The folio's own struct pages.


def tails(case: Case) -> Sequence[tuple[int, bytes]]:
    """Struct pages of a frame, all but the first of them tails that name it."""
    return [(64 * i + 8, case.word(0, 1)) for i in range(1, 16)]


def test_frames_of_its_own_struct_pages_are_left_out(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = START + 5 * FRAME
    case.lay(own, *tails(case), (0x800, case.word(0)))
    # A word like that of a tail, elsewhere.
    case.lay(START, (0x10, case.word(0)), (0x48, case.word(0, 1)))
    frames = case.vmcore.kernel.layout.page_address(case.pfn) & -FRAME
    monkeypatch.setattr(
        memory_search,
        "physical_address",
        lambda prog, a: a - frames + own if a >= frames else 1 / 0,
    )
    result = case.search()
    assert found(result) == [(0x10, case.pfn, 0), (0x48, case.pfn, 1)]
    assert (result.read, result.total) == (FRAME, 63 * FRAME)
    # So many that nobody asks for all of their frames.
    monkeypatch.setattr(memory_search, "_FRAMES_MAX", 0)
    assert case.search().total == 64 * FRAME


def test_tails_are_told_by_their_words_where_their_frames_are_not_known(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(prog: Program, address: int) -> int:
        raise LookupError("no page tables")

    monkeypatch.setattr(memory_search, "physical_address", lost)
    other = [(0x800, case.word(0, 1)), (0x848, case.word(1, 1)), (0x888, case.word(0))]
    case.lay(START, *tails(case), *other)
    assert [at for at, _pfn, _tag in found(case.search())] == [0x800, 0x848, 0x888]


# Which memory.


def test_memory_of_slices() -> None:
    """Two ranges, whose ends are no whole words and frames."""
    assert system_ram(open_vmcore("5.10-nvdimm").prog) == [
        (0x1000, 0x9FC00),
        (0x100000, 0x3FFDF000),
    ]


def resources(*rows: tuple[int, int, str]) -> list[_Resource]:
    return [_Resource(start, end, 0, name) for start, end, name in rows]


def test_memory_of_another_kernel_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = resources(
        (0x1001, 0x1FFB, "System RAM"),
        (0x10000, 0x1FFFF, "System RAM"),
        (0x13000, 0x13FFF, "Crash kernel"),
        (0x14000, 0x17FFF, "Crash kernel (low)"),
        (0x18000, 0x18FFF, "Kernel code"),
        (0x1A000, 0x1AFFF, "System RAM"),
        (0x1F000, 0x2FFFF, "System RAM (kmem)"),
        (0x40000, 0x4FFFF, "Persistent Memory"),
        (0x60000, 0x50000, "System RAM"),
        (0x70000, 0x70FFF, "System RAM"),
        (0x70000, 0x7FFFF, "Crash kernel"),
    )
    monkeypatch.setattr(memory_search, "read_resources", lambda prog: rows)
    prog: Any = None
    assert system_ram(prog) == [(0x1008, 0x1FF8), (0x10000, 0x13000), (0x18000, 0x30000)]


def test_ranges() -> None:
    """[start, end), of which empty ones and those that end before they begin are none."""
    assert memory_search._disjoint([(5, 3), (7, 7), (8, 9), (9, 12), (1, 2)]) == [(1, 2), (8, 12)]
    holes = [(0, 2), (4, 5), (6, 8), (9, 20)]
    assert list(memory_search._without([(1, 7), (8, 10)], holes)) == [(2, 4), (5, 6), (8, 9)]


def test_memory_that_is_not_known_is_no_memory_that_was_searched(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_search, "system_ram", lambda prog, word_size: [])
    result = case.search()
    assert result.why and "RAM ranges are not known" in result.why and result.total == 0


def test_a_whole_slice() -> None:
    """The words of a real kernel: a task that waits for a page has it on its stack."""
    vmcore = open_vmcore("6.1-entries")
    range_ = vmcore.kernel.pagemaps[0].ranges[0]
    pages = range_.end_pfn - range_.first_pfn
    layout = vmcore.kernel.layout
    result = search_pointers(vmcore.prog, layout, range_.first_pfn, pages, budget_s=60)
    assert result.why is None and result.read + result.unread == result.total
    assert 0 < result.read < result.unread
    (hit,) = result.hits
    assert hit.where.startswith("stack of workload (pid ") and not hit.certain


# Dumps that say which pages they hold.


@pytest.mark.parametrize("name", ["6.1-kdump-leak", "7.2-kdump-leak"])
def test_pages_that_a_dump_does_not_hold_are_not_asked_for(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vmcore = open_vmcore(name)
    assert memory_search._dumped(vmcore.prog) is not None
    (first, _), *_rest = system_ram(vmcore.prog)[1:]
    monkeypatch.setattr(
        memory_search, "system_ram", lambda prog, word_size: [(first + 8, first + (32 << 20) - 8)]
    )
    asked: list[Optional[bytes]] = []
    read = memory_search._Memory.read

    def count(memory: Any, physical: int, size: int) -> Optional[bytes]:
        asked.append(read(memory, physical, size))
        return asked[-1]

    monkeypatch.setattr(memory_search._Memory, "read", count)
    layout = vmcore.kernel.layout
    # The struct page of pfn 0 and those behind it: memory has pointers to them.
    told = search_pointers(vmcore.prog, layout, 0, 1 << 18, budget_s=99)
    assert asked and None not in asked
    monkeypatch.setattr(memory_search, "_dumped", lambda prog: None)
    asked.clear()
    by_asking = search_pointers(vmcore.prog, layout, 0, 1 << 18, budget_s=99)
    assert None in asked and told.read and told.unread
    told.seconds = by_asking.seconds
    assert told == by_asking


def test_a_bitmap_of_pages() -> None:
    dumped = Dumped(FRAME, bytes([0b11100001, 0, 0xFF]))
    assert list(dumped.runs(0, 16)) == [(0, 1, True), (1, 5, False), (5, 8, True), (8, 16, False)]
    assert list(dumped.runs(6, 10)) == [(6, 8, True), (8, 10, False)]
    assert list(dumped.runs(9, 15)) == [(9, 15, False)]
    assert list(dumped.runs(9, 20)) == [(9, 16, False), (16, 20, True)]
    assert list(dumped.runs(20, 40)) == [(20, 24, True), (24, 40, False)]
    assert list(dumped.runs(100, 200)) == [(100, 200, False)]


def test_files_without_such_a_bitmap(tmp_path: Path) -> None:
    assert read_dumped(open_vmcore("7.2-nvdimm").core) is None
    with open(open_vmcore("7.2-kdump-leak").core, "rb") as file:
        data = file.read(1 << 20)
    whole = read_dumped(open_vmcore("7.2-kdump-leak").core)
    assert whole and whole.block_size == FRAME and any(whole.bitmap)
    cut = tmp_path / "cut"
    # Cut off, and with a header that tells of no bitmap.
    for part in (data[:100], data[: 3 * FRAME], data[:436] + bytes(4) + data[440:]):
        cut.write_bytes(part)
        assert read_dumped(str(cut)) is None
