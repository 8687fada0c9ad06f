# SPDX-License-Identifier: LGPL-2.1-or-later
"""Struct pages out of a dump's file itself: whatever it is, the answer is that of reading them through drgn."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import struct
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Optional

import big_core
import pytest
from conftest import Vmcore, fresh_vmcore, lay_over, needs_library, open_vmcore
from drgn import Program
from dump_files import FRAME, METHODS, Memmap, flatten, write_elf, write_kdump
from page_compression import FORMATS
from pages import MAPPING, START, Machine
from test_entries import idle_world
from test_scan import mutate, typical_pages

from zonedev import _zonedev
from zonedev.audit import audit
from zonedev.cells import CellPlan
from zonedev.kernel import dump_memory
from zonedev.kernel.dump_memory import READER, THREADS, DumpMemory, open_memory
from zonedev.report import data as report
from zonedev.scanner import Feed
from zonedev.target import Target, open_target

# Struct pages of a part that one thread takes, of a chunk and of a frame.
PART, CHUNK, IN_FRAME = (16 << 20) // 64, (256 << 10) // 64, FRAME // 64


# ---------------------------------------------------------------- real cores


def reports(prog: Program, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str, list[str]]:
    """The report as read through drgn, as read from the file, and the readers of the latter."""
    texts = []
    for reader in ("drgn", ""):
        monkeypatch.setenv(READER, reader)
        result = audit(prog, cells=CellPlan(1 << 12))
        found = report.audit_dict(result)
        found["cells"] = [[list(one.runs()) for one in p.cells] for p in result.pagemaps]
        del found["timing"]
        readers = found["tool"].pop("readers")
        texts.append(json.dumps(found))
    return texts[0], texts[1], readers


@pytest.mark.parametrize("threads", ["1", "3"])
def test_real_cores_give_the_same(
    vmcore: Vmcore, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(THREADS, threads)
    plain, fast, readers = reports(vmcore.prog, monkeypatch)
    assert plain == fast
    name = "zonedev:kdump" if "kdump" in vmcore.name else "zonedev:elf"
    if len(_zonedev.METHODS) == len(METHODS):
        assert readers == ["Program.read", *([name] if vmcore.kernel.pagemaps else [])]


@pytest.mark.parametrize("name", ["7.2-nvdimm-leak", "6.16-hmm-leak", "6.1-kdump-leak"])
def test_corrupt_cores_give_the_same(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = open_vmcore(name)
    memory = dump_memory.open_memory(core.prog)
    assert memory is not None
    rng = random.Random(name)
    path = tmp_path / "vmcore"
    used = 0
    for changes in (3, 10, 40, 200):
        shutil.copy(core.core, path)
        size = path.stat().st_size
        with open(path, "r+b") as file:
            for _ in range(changes):
                # Headers stay as they are: whether the core can be opened is another question.
                file.seek(rng.randrange(size // 4, size - 8))
                file.write(rng.randbytes(rng.choice((1, 8))))
        target = Target(str(path), core.debug_files)
        try:
            prog = open_target(target)
            plain, fast, readers = reports(prog, monkeypatch)
        except Exception as err:
            assert "\n" not in str(err)
            continue
        used += len(readers) == 2
        assert plain == fast
    assert used


# At the end of a dump: compressed pages, in the order of memory.
DAMAGED = 500 << 10


@pytest.mark.parametrize("method", [m for m in FORMATS if m in _zonedev.METHODS])
def test_damaged_pages_give_the_same(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages in files, no two frames alike, as they are and with compressed bytes changed."""
    path = tmp_path / "vmcore"
    with needs_library():
        vmlinux = big_core.make_core(path, 1, method, 100, False)
    whole = path.read_bytes()
    rng = random.Random(method)
    texts = set()
    for changes in (0, 1, 30, 300):
        damaged = bytearray(whole)
        for _ in range(changes):
            # Compressed bytes of the added memory.
            damaged[rng.randrange(len(whole) - DAMAGED, len(whole))] ^= 1 << rng.randrange(8)
        one = tmp_path / str(changes)
        one.write_bytes(damaged)
        plain, fast, readers = reports(open_target(Target(str(one), [vmlinux])), monkeypatch)
        assert plain == fast
        assert readers == ["Program.read", "zonedev:kdump"]
        texts.add(plain)
    assert len(texts) == 4


def test_memory_of_ones_own_is_not_read_past(monkeypatch: pytest.MonkeyPatch) -> None:
    core = fresh_vmcore("7.2-nvdimm")
    pagemap, layout = core.kernel.pagemaps[0], core.kernel.layout
    assert open_memory(core.prog) is not None
    assert "zonedev:elf" in audit(core.prog).readers
    address = layout.page_address(pagemap.ranges[0].first_pfn + 5000)
    lay_over(core.prog, address, b"\xff" * layout.page_size)
    found = audit(core.prog)
    assert found.readers == ["Program.read"]
    assert found.verdict == "violations"
    # Also where the kernel was looked at before.
    assert not dump_memory._is_untouched(core.prog)


def test_what_a_program_holds_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert dump_memory._shows_callables()
    core = open_vmcore("7.2-nvdimm")
    monkeypatch.setattr(dump_memory.gc, "get_referents", lambda _prog: [])
    dump_memory._shows_callables.cache_clear()
    assert open_memory(core.prog) is None
    dump_memory._shows_callables.cache_clear()


def test_another_file_of_the_same_name_is_not_read(tmp_path: Path) -> None:
    core = open_vmcore("7.2-nvdimm")
    path = tmp_path / "vmcore"
    shutil.copy(core.core, path)
    prog = open_target(Target(str(path), core.debug_files))
    assert open_memory(prog) is not None
    shutil.copy(core.core, tmp_path / "other")
    os.replace(tmp_path / "other", path)
    assert open_memory(prog) is None


# ---------------------------------------------------------------- made cores


class Case:
    """Struct pages of a machine in a dump, read as an audit would."""

    def __init__(self, machine: Machine, memmap: Memmap, pages: int, first: int = 0) -> None:
        self.machine, self.memmap, self.pages, self.first = machine, memmap, pages, first
        # Dumps of which anything could be read from the file.
        self.used = 0

    def kernel(self, memory: Optional[DumpMemory]) -> Any:
        layout = SimpleNamespace(
            page_size=64,
            page_shift=12,
            page_address=lambda pfn: self.machine.memmap + (pfn - START) * 64,
        )
        return SimpleNamespace(prog=self.memmap, layout=layout, memory=memory)

    def feed(
        self,
        memory: Optional[DumpMemory],
        fast: bool = True,
        merge: bool = True,
        entries: Optional[_zonedev.Entries] = None,
    ) -> Any:
        machine = self.machine
        scan = _zonedev.Scan(
            machine.layout, machine.scheme, machine.pagemap, merge, fast, entries=entries
        )
        scan.begin(START, START + self.pages, machine.memmap)
        scan.count_cells(START + 5, START + self.pages - 5, 4)
        if self.first:
            scan.hole(self.first, "skipped")
        fed = Feed(self.kernel(memory), scan, START + self.first, lambda pages: None)
        fed.run()
        scan.end()
        return scan.result(), fed.reasons, fed.not_captured, scan.cells()

    def open(self, path: Path, method: Optional[str] = None) -> DumpMemory:
        if method:
            write_kdump(path, self.memmap.memory(), method)
        else:
            write_elf(path, self.memmap.memory())
        with open(path, "rb") as file:
            memory = _zonedev.Memory(file.fileno())
        return DumpMemory(memory, self.memmap.root, self.memmap.levels)

    def check(self, path: Path, monkeypatch: pytest.MonkeyPatch, merge: bool = True) -> Any:
        """All ways give one answer; returns that."""
        monkeypatch.setattr(dump_memory, "_is_untouched", lambda _prog: True)
        monkeypatch.setattr(
            dump_memory, "physical_address", lambda _prog, address: self.memmap.translate(address)
        )
        plain = self.feed(None, merge=merge)
        for method in (None, "zlib", "none"):
            memory = self.open(path, method)
            for threads in ("1", "4"):
                monkeypatch.setenv(THREADS, threads)
                assert self.feed(memory, merge=merge) == plain, (method, threads)
            self.used += memory.used
        return plain


def memmap_of(machine: Machine, data: bytes, levels: int = 4) -> Case:
    return Case(machine, Memmap(machine.memmap, data, levels), len(data) // 64)


@pytest.mark.parametrize("type_", ["PRIVATE", "FS_DAX", "GENERIC", "PCI_P2PDMA"])
@pytest.mark.parametrize("letter", ["C", "E", "G", "H"])
def test_random_pages(
    letter: str, type_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(f"{letter}{type_}")
    used = 0
    for options in ({}, {"vmemmap_shift": 9, "deduplicated": True}, {"vmemmap_shift": 9}):
        machine = Machine(letter, type_, **options)
        data = typical_pages(machine, rng, 5000) + machine.page() * (6 * CHUNK) + bytes(640)
        case = memmap_of(machine, mutate(data, rng, 40), rng.choice((4, 5)))
        case.first = rng.choice((0, 7, 64))
        for _ in range(rng.randrange(5)):
            case.memmap.unmap(rng.randrange(len(case.memmap.physical)))
        for _ in range(30):
            index = rng.randrange(1, len(case.memmap.physical))
            if None not in (case.memmap.physical[index], case.memmap.physical[index - 1]):
                case.memmap.share(index, index - 1)
        for index in rng.sample(range(len(case.memmap.physical)), rng.randrange(8)):
            if case.memmap.physical[index] is not None:
                case.memmap.lose(index)
        case.check(tmp_path / "core", monkeypatch)
        used += case.used
    assert used


def over_border(kind: str, machine: Machine, rng: random.Random, border: int) -> tuple[int, bytes]:
    """Where something begins that reaches over the border of a part, and its struct pages."""
    if kind == "run":
        return border - 100, machine.page(refcount=machine.idle + 3) * 200
    if kind == "index":
        # A run whose index counts, and one that goes on otherwise behind the border.
        ahead = rng.choice((1, 2, 3))
        step = rng.choice((0, 1))
        shares = [*range(1, 1 + ahead), *(1 + ahead + i * step for i in range(20))]
        refcount = machine.idle + 5
        pages = [machine.page(refcount=refcount, mapping=MAPPING, share=i) for i in shares]
        return border - ahead, b"".join(pages)
    if kind == "folio":
        return border - 256, machine.folio(9, START + border - 256, refcount=machine.idle)
    if kind == "tails":
        return border, machine.folio(9, START + border - 512)[64:]
    return border - 300, mutate(typical_pages(machine, rng, 600), rng, 60)


@pytest.mark.parametrize("merge", [True, False])
@pytest.mark.parametrize("lost", [None, 0, 2])
@pytest.mark.parametrize("kind", ["run", "index", "folio", "tails", "random"])
def test_parts_of_a_range(
    kind: str, lost: Optional[int], merge: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Findings in runs, folios and holes over the borders at which threads divide a range.

    lost: of the frames from the one on that the first of them begins in, one that the dump lacks
    """
    rng = random.Random(f"{kind}{lost}{merge}")
    machine = Machine(rng.choice("EGH"), rng.choice(("FS_DAX", "GENERIC", "PRIVATE")))
    data = bytearray(machine.page() * (3 * PART))
    places = []
    for border in (PART, 2 * PART):
        at, piece = over_border(kind, machine, rng, border)
        data[at * 64 : at * 64 + len(piece)] = piece
        places.append(at)
    case = memmap_of(machine, bytes(data))
    if lost is not None:
        case.memmap.lose(places[0] // IN_FRAME + lost)
    result, *_ = case.check(tmp_path / "core", monkeypatch, merge)
    assert result["findings"] or lost is not None
    assert case.used >= 2


def test_more_refcounts_than_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of them find room is a matter of their order."""
    machine = Machine("H", "FS_DAX")
    data = bytearray(machine.page() * (2 * PART))
    for i in range(6000):
        at = (PART - 3000 + i) * 64
        data[at : at + 64] = machine.page(refcount=10 + i * 7 % 6000)
    case = memmap_of(machine, bytes(data))
    result, *_ = case.check(tmp_path / "core", monkeypatch)
    assert result["refcounts_other"]


@pytest.mark.parametrize("method", [m for m in METHODS if m in _zonedev.METHODS])
def test_every_byte_of_a_repeated_frame(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frame that repeats one found clean is not decoded; one that differs in a bit is."""
    monkeypatch.setattr(dump_memory, "_is_untouched", lambda _prog: True)
    machine = Machine("H", "FS_DAX")
    idle = machine.page() * IN_FRAME
    frames = []
    for byte in range(64):
        for bit in (0, 7):
            changed = bytearray(idle)
            changed[(byte * 37 + bit) % IN_FRAME * 64 + byte] ^= 1 << bit
            frames += [idle, idle, idle, bytes(changed), bytes(changed), idle]
    case = memmap_of(machine, b"".join(frames))
    with needs_library():
        memory = case.open(tmp_path / "core", method)
    assert case.feed(memory) == case.feed(None) == case.feed(None, fast=False)
    assert case.feed(memory)[0]["findings"]


@pytest.mark.parametrize("method", [None, "zlib"])
def test_every_byte_of_a_frame(
    method: Optional[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a frame that was found clean: one that differs in any of its bytes is decoded."""
    monkeypatch.setattr(dump_memory, "_is_untouched", lambda _prog: True)
    machine = Machine("H", "FS_DAX")
    idle = machine.page() * IN_FRAME
    frames = []
    for byte in range(FRAME):
        changed = bytearray(idle)
        changed[byte] ^= 1 << byte % 7
        frames += [idle, bytes(changed)]
    case = memmap_of(machine, b"".join(frames))
    memory = case.open(tmp_path / "core", method)
    decoded = case.feed(None, fast=False)
    assert case.feed(memory) == case.feed(None) == decoded
    assert memory.used
    # Of each word that the rules look at, some byte.
    assert len({finding["pfn"] % 64 for finding in decoded[0]["findings"]}) == IN_FRAME


def test_files_tell_repeated_frames_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What files say of a page is asked for each, also where its frame repeats another one."""
    monkeypatch.setattr(dump_memory, "_is_untouched", lambda _prog: True)
    world = idle_world(10 * IN_FRAME)
    world.entries.add(world.file({0: (START + 5 * IN_FRAME + 3, 0), 1: (START + 8 * IN_FRAME, 0)}))
    case = memmap_of(world.machine, world.machine.page() * (10 * IN_FRAME))
    memory = case.open(tmp_path / "core", "none")
    plain = case.feed(None, entries=world.entries)
    assert case.feed(memory, entries=world.entries) == plain
    assert len(plain[0]["findings"]) == 2
    assert case.feed(memory)[0]["findings"] == []


def test_a_head_at_the_end_of_a_repeated_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its order lies in the frame behind it."""
    monkeypatch.setattr(dump_memory, "_is_untouched", lambda _prog: True)
    machine = Machine("H", "FS_DAX")
    frame = machine.page() * (IN_FRAME - 1) + machine.folio(2)[:64]
    case = memmap_of(machine, machine.page() * IN_FRAME + 3 * frame + machine.page() * IN_FRAME)
    plain = case.feed(None)
    assert case.feed(case.open(tmp_path / "core", "none")) == plain
    assert plain[0]["classes"]["not-captured"] == 0


# ---------------------------------------------------------------- damage, and what is not certain


def small_case() -> Case:
    machine = Machine("H", "FS_DAX")
    return memmap_of(machine, machine.page() * (3 * CHUNK))


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("method", [None, "zlib"])
def test_a_file_cut_off_anywhere(
    method: Optional[str], flat: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies behind its end is read otherwise, and never taken for anything."""
    monkeypatch.setattr(dump_memory, "_is_untouched", lambda _prog: True)
    monkeypatch.setattr(
        dump_memory, "physical_address", lambda _prog, address: case.memmap.translate(address)
    )
    case, path = small_case(), tmp_path / "core"
    case.open(path, method)
    if flat:
        flatten(path, tmp_path / "flat")
        path = tmp_path / "flat"
    whole, plain = path.read_bytes(), case.feed(None)
    opened = 0
    for size in sorted({0, 7, 64, 100, *range(0, len(whole), max(len(whole) // 60, 1))}):
        path.write_bytes(whole[:size])
        with open(path, "rb") as file:
            try:
                memory = _zonedev.Memory(file.fileno())
            except ValueError:
                continue
        opened += 1
        assert case.feed(DumpMemory(memory, case.memmap.root, 4)) == plain
    # A flattened dump says where it ends.
    assert bool(opened) is not flat


@pytest.mark.parametrize("method", [None, "zlib", "none"])
def test_flattened_dumps(
    method: Optional[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records in any order, some written over by later ones."""
    monkeypatch.setattr(dump_memory, "_is_untouched", lambda _prog: True)
    rng = random.Random(str(method))
    machine = Machine("H", "FS_DAX")
    case = memmap_of(machine, mutate(typical_pages(machine, rng, 5000), rng, 40))
    plain = case.feed(None)
    case.open(tmp_path / "core", method)
    for seed in range(20):
        flatten(tmp_path / "core", tmp_path / "flat", rng=random.Random(seed))
        with open(tmp_path / "flat", "rb") as file:
            memory = DumpMemory(_zonedev.Memory(file.fileno()), case.memmap.root, 4)
        assert case.feed(memory) == plain
        assert memory.used


def test_a_flattened_dump_that_lacks_a_record(tmp_path: Path) -> None:
    """What lies around it is there."""
    case = small_case()
    case.open(tmp_path / "core", "none")
    flatten(tmp_path / "core", tmp_path / "flat")
    whole = (tmp_path / "flat").read_bytes()
    record = 16 + 3 * FRAME
    # The first one may be short: it is the end of the dump.
    second = FRAME + 16 + struct.unpack_from(">q", whole, FRAME + 8)[0]
    (tmp_path / "flat").write_bytes(whole[: second + record] + whole[second + 2 * record :])
    with open(tmp_path / "flat", "rb") as file:
        memory = _zonedev.Memory(file.fileno())
    there = []
    for at in case.memmap.physical:
        assert at is not None
        try:
            assert memory.frame(at) == case.memmap.frames[at]
            there.append(True)
        except ValueError:
            there.append(False)
    # Three frames' worth of pages, in four of them.
    assert there.count(False) in (3, 4)


def test_flattened_dumps_that_make_no_sense(tmp_path: Path) -> None:
    core, path = tmp_path / "core", tmp_path / "flat"
    small_case().open(core)
    flatten(core, path)
    whole, size = path.read_bytes(), path.stat().st_size
    for place, number in (
        *((16, 2), (24, 2)),
        *((FRAME, -1), (FRAME, (1 << 63) - 9), (FRAME + 8, 0), (FRAME + 8, -1), (FRAME + 8, size)),
        (size - 8, 5),
        # The last record has the beginning of the dump.
        (size - 2 * 16 - 3 * FRAME, 1 << 30),
    ):
        content = bytearray(whole)
        struct.pack_into(">q", content, place, number)
        path.write_bytes(content)
        with open(path, "rb") as file, pytest.raises(ValueError, match=r"flattened|not read here"):
            _zonedev.Memory(file.fileno())
    # Records that all overlap.
    record = struct.pack(">qq", 0, 2 * FRAME) + bytes(2 * FRAME)
    path.write_bytes(whole[:FRAME] + record * 2049 + struct.pack(">qq", -1, -1))
    with open(path, "rb") as file, pytest.raises(ValueError, match="overlap"):
        _zonedev.Memory(file.fileno())


@pytest.mark.parametrize("member", ["offset", "size", "flags"])
@pytest.mark.parametrize("number", [1, 65, 100])
def test_a_descriptor_unlike_those_around_it(
    member: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it says that a page lies elsewhere, that page is read; where it makes no sense, drgn reads it."""
    monkeypatch.setattr(dump_memory, "_is_untouched", lambda _prog: True)
    case, path = small_case(), tmp_path / "core"
    memory = case.memmap.memory()
    write_kdump(path, memory, "none")
    at = case.memmap.physical[number]
    assert at is not None
    content = bytearray(path.read_bytes())
    blocks = (max(memory) // FRAME + 8 * FRAME) // (8 * FRAME)
    descriptor = FRAME * (2 + 2 * blocks) + 24 * list(memory).index(at)
    place, type_, value = {
        "offset": (0, "<Q", len(content)),
        "size": (8, "<I", FRAME - 1),
        "flags": (12, "<I", 1 << 7),
    }[member]
    struct.pack_into(type_, content, descriptor + place, value)
    case.memmap.frames[at] = case.machine.page(refcount=case.machine.idle + 7) * IN_FRAME
    path.write_bytes(bytes(content) + case.memmap.frames[at])
    with open(path, "rb") as file:
        changed = DumpMemory(_zonedev.Memory(file.fileno()), case.memmap.root, 4)
    assert case.feed(changed) == case.feed(None)
    assert case.feed(changed)[0]["findings"]


def test_a_file_that_shrinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dump_memory, "_is_untouched", lambda _prog: True)
    case, path = small_case(), tmp_path / "core"
    memory = case.open(path)
    os.truncate(path, 4 * FRAME)
    assert case.feed(memory) == case.feed(None)


def test_file_size_below_memory_size_is_not_zeroes(tmp_path: Path) -> None:
    case, path = small_case(), tmp_path / "core"
    write_elf(path, case.memmap.memory())
    content = bytearray(path.read_bytes())
    # The last segment's p_filesz.
    count = struct.unpack_from("<H", content, 56)[0]
    struct.pack_into("<Q", content, 64 + 56 * (count - 1) + 32, 5 * FRAME + 100)
    path.write_bytes(content)
    with open(path, "rb") as file:
        memory = _zonedev.Memory(file.fileno())
    first = case.memmap.physical[0]
    assert first is not None
    assert memory.frame(first + 4 * FRAME) == case.memmap.frames[first + 4 * FRAME]
    for index in (5, 6, 100):
        with pytest.raises(ValueError, match="not certain"):
            memory.frame(first + index * FRAME)
    assert memory.frame(first + (1 << 40)) is None


def test_the_last_of_segments_that_overlap_counts(tmp_path: Path) -> None:
    path = tmp_path / "core"
    write_elf(path, {0x1000: b"a" * FRAME, 0x3000: b"b" * FRAME})
    content = bytearray(path.read_bytes())
    struct.pack_into("<Q", content, 64 + 56 + 24, 0x1000)
    path.write_bytes(content)
    with open(path, "rb") as file:
        memory = _zonedev.Memory(file.fileno())
    assert memory.frame(0x1000) == b"b" * FRAME


def test_what_is_no_dump_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"", b"\x7fELF", b"KDUMP   ", b"x" * 9000, b"\x7fELF\x02\x01\x01".ljust(64)):
        path.write_bytes(content)
        with open(path, "rb") as file, pytest.raises(ValueError, match=r"dump|core"):
            _zonedev.Memory(file.fileno())
    with pytest.raises(OSError, match="descriptor"):
        _zonedev.Memory(-1)


# ---------------------------------------------------------------- being stopped


def large_scan(path: Path) -> tuple[_zonedev.Scan, _zonedev.Memory, Case]:
    """A memmap of 4 GiB in a sparse file, all of it one frame's zeroes: slow to judge."""
    machine = Machine("H", "FS_DAX")
    case = memmap_of(machine, machine.page() * CHUNK)
    # One page of 1 GiB after the other: entries of the table below the top, for the same place.
    memory = case.memmap.memory()
    slot = machine.memmap >> 39 & 511
    middle = struct.unpack_from("<512Q", memory[case.memmap.root])[slot] & ~(FRAME - 1)
    entries = [(1 << 40) | 0xE3] * 512
    memory[middle] = struct.pack("<512Q", *entries)
    write_elf(path, memory)
    content = bytearray(path.read_bytes())
    count = struct.unpack_from("<H", content, 56)[0]
    # The last segment becomes 1 GiB at 1 TiB.
    struct.pack_into("<QQQQ", content, 64 + 56 * (count - 1) + 24, 1 << 40, 1 << 30, 1 << 30, 0)
    path.write_bytes(content)
    offset = struct.unpack_from("<Q", content, 64 + 56 * (count - 1) + 8)[0]
    os.truncate(path, offset + (1 << 30))
    pages = (64 << 30) // 64
    scan = _zonedev.Scan(machine.layout, machine.scheme, machine.pagemap)
    scan.begin(START, START + pages, machine.memmap)
    with open(path, "rb") as file:
        opened = _zonedev.Memory(file.fileno())
    return scan, opened, case


@pytest.mark.parametrize("threads", [1, 3])
def test_ctrl_c_stops_within_a_second(threads: int, tmp_path: Path) -> None:
    scan, memory, case = large_scan(tmp_path / "core")
    total, told, sent = scan.left(), [], []

    def progress(pages: int) -> None:
        if not told:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
        told.append(pages)

    def interrupt(_number: int, _frame: Any) -> None:
        sent.append(time.monotonic())
        raise KeyboardInterrupt

    old = signal.signal(signal.SIGALRM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            scan.read(memory, case.memmap.root, 4, threads, False, progress)
    finally:
        signal.signal(signal.SIGALRM, old)
    assert time.monotonic() - sent[0] < 1
    done = total - scan.left()
    assert 0 < sum(told) <= done < total
    scan.hole(scan.left(), "unreadable")
    scan.end()
    assert sum(scan.classes().values()) == total


def test_progress_may_fail(tmp_path: Path) -> None:
    scan, memory, case = large_scan(tmp_path / "core")

    def progress(pages: int) -> None:
        raise LookupError("told")

    with pytest.raises(LookupError, match="told"):
        scan.read(memory, case.memmap.root, 4, 2, False, progress)


def test_calls_that_make_no_sense(tmp_path: Path) -> None:
    case = small_case()
    memory = case.open(tmp_path / "core").memory
    machine = case.machine
    for levels, threads, first in ((3, 1, 0), (6, 1, 0), (4, 0, 0), (4, 65, 0), (4, 1, 1)):
        scan = _zonedev.Scan(machine.layout, machine.scheme, machine.pagemap)
        scan.begin(START, START + case.pages, machine.memmap)
        if first:
            scan.hole(first, "skipped")
        with pytest.raises(ValueError, match="do not lie"):
            scan.read(memory, case.memmap.root, levels, threads)
