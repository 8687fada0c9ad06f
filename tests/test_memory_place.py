# SPDX-License-Identifier: LGPL-2.1-or-later
"""What lies around a word of memory, in words: struct pages and structures that are laid over a bundled core, and what
cannot be known."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any, Optional

import pytest
from conftest import fresh_vmcore, lay_over
from drgn import FaultError, Object, Program, TypeMember
from made_up import tell_objects, tell_symbols, tell_types
from test_memory_search import DIRECT_MAP, FRAME, START

from zonedev.kernel import memory_place
from zonedev.kernel.device import _Resource
from zonedev.kernel.memory_place import Place, Places
from zonedev.kernel.slab import SlabObject

WORD = START + 0x123 * 8
STACK = 0xFFFFC90000100000
USERS = "user memory or page cache"


class Around:
    """The frame of a word, in a Program of its own."""

    def __init__(self, name: str) -> None:
        self.vmcore = fresh_vmcore(name)
        self.prog, self.layout = self.vmcore.prog, self.vmcore.kernel.layout

    def page(self, at: int = START // FRAME, **words: int) -> None:
        """The struct page of the frame: a page in use of which nothing is known, but for some members."""
        data = bytearray(self.layout.page_size)
        for member, value in {"_refcount": 1, "_mapcount": -1, **words}.items():
            offset, size, _bits = self.layout.fields[member]
            data[offset : offset + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        lay_over(self.prog, self.layout.page_address(at), bytes(data))

    def flag(self, name: str) -> int:
        """A page flag."""
        return next(1 << bit for bit, flag in self.layout.flag_names.items() if flag == name)

    def of(self, tag: int = 0, direct_map: Optional[int] = DIRECT_MAP) -> Place:
        return Places(self.prog, self.layout, direct_map, [WORD]).of(WORD, tag)


@pytest.fixture
def around(monkeypatch: pytest.MonkeyPatch) -> Around:
    return nothing_else(monkeypatch, "7.2-nvdimm")


def nothing_else(monkeypatch: pytest.MonkeyPatch, name: str) -> Around:
    """A core of which only struct pages are known."""

    def unknown(*_arguments: Any) -> Any:
        raise LookupError("not known")

    for helper in ("physical_address", "slab_object", "for_each_task", "for_each_vmap_area"):
        monkeypatch.setattr(memory_place, helper, unknown)
    return Around(name)


def test_nothing_is_known(around: Around) -> None:
    assert around.of() == Place("not told", False)
    around.page()
    assert around.of() == Place("not told", False)
    assert around.of(tag=2) == Place("not told, low bits 2", False)


@pytest.mark.parametrize(
    ("name", "mapcount", "where", "certain"),
    [
        ("5.10-nvdimm", -129, "free page", False),
        ("5.10-nvdimm", ~0x400, "page of the kernel's, of type 0xfffffbff", False),
        ("7.2-nvdimm", -0x10000000, "free page", False),
        ("7.2-nvdimm", 0xF0000003 - (1 << 32), "free page", False),
        ("7.2-nvdimm", 0xF2FFFFFF - (1 << 32), "page table", True),
        ("7.2-nvdimm", 0xF1FFFFFF - (1 << 32), "page of type offline", True),
        ("7.2-nvdimm", 0xFDFFFFFF - (1 << 32), "page of the kernel's, of type 0xfdffffff", False),
    ],
)
def test_page_types(
    monkeypatch: pytest.MonkeyPatch, name: str, mapcount: int, where: str, certain: bool
) -> None:
    around = nothing_else(monkeypatch, name)
    around.page(_mapcount=mapcount)
    assert around.of() == Place(where, certain)


def test_memory_of_users(around: Around) -> None:
    around.page(mapping=0xFFFF888001234561)
    assert around.of() == Place(USERS, False)


def test_a_tail_is_what_its_head_is(monkeypatch: pytest.MonkeyPatch) -> None:
    around = nothing_else(monkeypatch, "6.1-nvdimm")
    around.page(pgmap=around.layout.page_address(START // FRAME - 3) + 1)
    assert around.of() == Place("not told", False)
    around.page(at=START // FRAME - 3, mapping=0xFFFF888001234560)
    assert around.of() == Place(USERS, False)


def test_a_page_that_nobody_holds_is_free(around: Around) -> None:
    around.page(_refcount=0)
    assert around.of() == Place("free page", False)
    around.page(_refcount=0, flags=around.flag("reserved"))
    assert around.of() == Place("memory reserved at boot", False)


# The slab allocator.


@pytest.mark.parametrize(
    ("allocated", "state"), [(True, ""), (False, "freed "), (None, "(freed?) ")]
)
def test_slab_objects(
    around: Around, monkeypatch: pytest.MonkeyPatch, allocated: Optional[bool], state: str
) -> None:
    address = DIRECT_MAP + WORD - 0x18
    info = SlabObject(address, "kmalloc-64", allocated)

    def object_at(prog: Program, at: int) -> Optional[SlabObject]:
        return info if at == DIRECT_MAP + WORD else None

    monkeypatch.setattr(memory_place, "slab_object", object_at)
    words = f"{state}object {address:#x} of slab cache kmalloc-64 at +0x18"
    around.page(mapping=1)
    assert around.of() == Place(words, bool(allocated))
    # An allocator that does not know where its objects begin.
    info = info._replace(address=0)
    assert around.of() == Place(USERS, False)
    info = info._replace(address=address)
    # Without a direct map nobody can be asked.
    assert around.of(direct_map=None) == Place(USERS, False)


SLAB_PAGES = [("6.1-nvdimm", -1, "slab"), ("7.2-nvdimm", 0xF5FFFFFF - (1 << 32), "")]


@pytest.mark.parametrize(("name", "mapcount", "flag"), SLAB_PAGES)
def test_a_slab_is_no_memory_of_users(
    monkeypatch: pytest.MonkeyPatch, name: str, mapcount: int, flag: str
) -> None:
    """Its page has other members where others have their mapping."""
    around = nothing_else(monkeypatch, name)
    flags = around.flag(flag) if flag else 0
    around.page(_mapcount=mapcount, flags=flags, mapping=0xFFFF888001234560)
    words = "object of the slab allocator, of a cache that is not told"
    assert around.of() == Place(words, False)


@pytest.mark.parametrize(("name", "mapcount", "flag"), SLAB_PAGES)
def test_objects_of_a_slab_by_its_own_words(
    monkeypatch: pytest.MonkeyPatch, name: str, mapcount: int, flag: str
) -> None:
    around = nothing_else(monkeypatch, name)
    lay_over(around.prog, 0xFFFF888000001000, b"kmalloc-64\0".ljust(128, b"\0"))
    cache = SimpleNamespace(name=0xFFFF888000001000, size=0x50)
    monkeypatch.setattr(memory_place, "_slab_cache", lambda head: cache)
    around.page(_mapcount=mapcount, flags=around.flag(flag) if flag else 0)
    address = DIRECT_MAP + START + WORD % FRAME // 0x50 * 0x50
    words = f"(freed?) object {address:#x} of slab cache kmalloc-64 at +0x8"
    assert around.of() == Place(words, False)


def test_a_helper_that_gives_up_keeps_nobody_else_from_telling(
    around: Around, monkeypatch: pytest.MonkeyPatch
) -> None:
    def corrupt(prog: Program, address: int) -> None:
        raise Exception("the free list is corrupt")

    monkeypatch.setattr(memory_place, "slab_object", corrupt)
    around.page(mapping=1)
    assert around.of() == Place(USERS, False)


# What the word looks like.


@pytest.fixture
def structs(around: Around) -> Around:
    """A core that knows struct bio_vec and struct pipe_buffer, and the operations of one pipe buffer."""
    prog = around.prog
    pointer = prog.pointer_type(prog.void_type())
    u32 = prog.int_type("unsigned int", 4, False)

    page = TypeMember(pointer, "page")
    bio_vec = [page, TypeMember(u32, "bv_len", 64), TypeMember(u32, "bv_offset", 96)]
    pipe_buffer = [page, TypeMember(u32, "offset", 64), TypeMember(u32, "len", 96)]
    pipe_buffer.append(TypeMember(pointer, "ops", 128))
    types = {
        "bio_vec": prog.struct_type("bio_vec", 16, bio_vec),
        "pipe_buffer": prog.struct_type("pipe_buffer", 40, pipe_buffer),
    }
    tell_types(prog, types)
    tell_symbols(
        prog,
        {"user_page_pipe_buf_ops": 0xFFFFFFFF82000000, "other_ops": 0xFFFFFFFF82100000},
        0x4000,
    )
    return around


@pytest.mark.parametrize(
    ("words", "looks"),
    [
        (struct.pack("<II", 4096, 0), ", looks like a bio_vec: 4096 bytes at 0"),
        (struct.pack("<II", 1 << 30, 4095), ", looks like a bio_vec: 1073741824 bytes at 4095"),
        (struct.pack("<II", (1 << 30) + 1, 0), ""),
        (struct.pack("<II", 4096, 4096), ""),
        (struct.pack("<II", 0, 0), ""),
        (struct.pack("<IIQ", 0, 100, 0xFFFFFFFF82100000), ""),
        (
            struct.pack("<IIQ", 16, 100, 0xFFFFFFFF82000000),
            ", looks like a pipe_buffer (user_page_pipe_buf_ops): 100 bytes at 16",
        ),
    ],
)
def test_what_a_word_looks_like(structs: Around, words: bytes, looks: str) -> None:
    data = bytearray(FRAME)
    data[WORD % FRAME + 8 : WORD % FRAME + 8 + len(words)] = words
    lay_over(structs.prog, START, bytes(data), physical=True)
    assert structs.of().where == "not told" + looks
    assert structs.of(tag=2).where == "not told, low bits 2"


# Who has mapped the frame.


def task(**members: Any) -> Any:
    comm = SimpleNamespace(string_=lambda: b"workload")
    return SimpleNamespace(stack=STACK, pid=12, comm=comm, **members)


@pytest.fixture
def tasks(around: Around, monkeypatch: pytest.MonkeyPatch) -> Around:
    """A task, the second frame of whose stack has the word."""
    area = SimpleNamespace(caller=0xFFFFFFFF81000000)
    monkeypatch.setattr(
        memory_place, "for_each_task", lambda prog: iter([task(stack_vm_area=area)])
    )
    monkeypatch.setattr(memory_place, "stack_size", lambda prog: 4 * FRAME)
    monkeypatch.setattr(memory_place, "physical_address", lambda prog, a: a - STACK - FRAME + START)
    around.page()
    return around


@pytest.mark.parametrize(
    ("below", "words", "certain"),
    [
        (None, ", which may have left that part of it", False),
        (-8, ", in a part that it has left", False),
        (0, ", in schedule", True),
        (8, ", in schedule", True),
        (0x20, ", in dax_break_layout", True),
    ],
)
def test_stacks(
    tasks: Around, monkeypatch: pytest.MonkeyPatch, below: Optional[int], words: str, certain: bool
) -> None:
    """By how far below the word the innermost frame begins."""
    trace = []
    if below is not None:
        sp = STACK + FRAME + WORD % FRAME - below
        names = {"schedule": sp, "dax_break_layout": sp + 0x18, "do_syscall_64": sp + 0x100}
        trace = [SimpleNamespace(name=name, sp=at) for name, at in names.items()]
        trace.append(SimpleNamespace(name="main", sp=0x7FFC00000000))
    monkeypatch.setattr(memory_place, "call_trace", lambda prog, task: trace)
    assert tasks.of() == Place("stack of workload (pid 12)" + words, certain)


class Area(SimpleNamespace):
    """A vmalloc area: nr_pages, pages (where their struct pages are named), caller."""

    def read_(self) -> Area:
        return self


def areas(around: Around, **members: int) -> Any:
    """One area that has the frame of the word, behind one that makes no sense."""
    page = around.layout.page_address(START // FRAME)
    lay_over(around.prog, 0xFFFF888000002000, struct.pack("<QQ", page - 64, page))
    good = {"nr_pages": 2, "pages": 0xFFFF888000002000, "caller": 0xFFFFFFFF81000010, **members}
    bad = {"nr_pages": 1 << 31, "pages": 0xFFFF888000002000, "caller": 0}
    each = [SimpleNamespace(vm=Area(**rest)) for rest in (bad, {"pages": 1}, good)]
    return lambda prog: iter(each)


def test_vmalloc_areas(around: Around, monkeypatch: pytest.MonkeyPatch) -> None:
    around.page()
    monkeypatch.setattr(memory_place, "for_each_vmap_area", areas(around))
    assert around.of() == Place("vmalloc area of 0xffffffff81000010", True)
    monkeypatch.setattr(memory_place, "for_each_vmap_area", areas(around, nr_pages=1))
    assert around.of() == Place("not told", False)
    monkeypatch.setattr(memory_place, "for_each_vmap_area", areas(around))
    monkeypatch.setattr(memory_place, "_AREA_PAGES_MAX", 1)
    assert around.of() == Place("not told", False)


def test_a_stack_of_no_task_is_told_by_who_allocated_it(
    tasks: Around, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_place, "stack_size", lambda prog: 0)
    monkeypatch.setattr(memory_place, "for_each_vmap_area", areas(tasks, caller=0xFFFFFFFF81000000))
    assert tasks.of() == Place("stack of no task: of one that is gone, or of an idle CPU", False)


def test_walks_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list that leads into itself is left after a while, or after so many."""
    monkeypatch.setattr(memory_place, "_WALK_MAX", 100)
    assert len(list(memory_place._for_a_while(iter(int, 1)))) == 100
    monkeypatch.setattr(memory_place, "_WALK_S", -1)
    assert not list(memory_place._for_a_while(iter(int, 1)))


# The image, per-CPU data, the memmap.


def resources(*names: str) -> Any:
    rows = [_Resource(START, START + 0xFFF, 0, name) for name in names]
    return lambda prog: rows


def test_the_image(around: Around, monkeypatch: pytest.MonkeyPatch) -> None:
    text = 0xFFFFFFFF81000000
    monkeypatch.setattr(memory_place, "vmcoreinfo_symbol", lambda prog, name: text)
    monkeypatch.setattr(memory_place, "physical_address", lambda prog, a: START - 0x1000)
    monkeypatch.setattr(memory_place, "read_resources", resources("Kernel bss"))
    tell_symbols(around.prog, {"some_list": text + 0x1900}, 0x4000)
    around.page(flags=around.flag("reserved"))
    address = text + 0x1000 + WORD % FRAME
    assert around.of() == Place("kernel image: some_list+0x18", True, address)
    # What was given away after boot is memory like other memory.
    around.page(mapping=1)
    assert around.of() == Place(USERS, False)
    around.page(flags=around.flag("reserved"))
    monkeypatch.setattr(memory_place, "read_resources", resources("System RAM"))
    assert around.of() == Place("memory reserved at boot", False)


def test_data_of_a_cpu(around: Around, monkeypatch: pytest.MonkeyPatch) -> None:
    prog = around.prog
    bounds = {"__per_cpu_start": 0x10000, "__per_cpu_end": 0x20000}
    tell_symbols(prog, {"some_batch": 0x10900, **bounds}, 0x4000)
    long = prog.int_type("unsigned long", 8, False)
    offsets = [0, DIRECT_MAP + START - 0x10000]
    array = Object(prog, prog.array_type(long, 2), offsets)
    tell_objects(prog, {"__per_cpu_offset": array})
    monkeypatch.setattr(memory_place, "for_each_possible_cpu", lambda prog: range(2))
    assert around.of() == Place("per-CPU data of CPU 1: some_batch+0x18", True)


def test_the_memmap(around: Around, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = around.layout.page_address(0)
    frame = (WORD - START) // around.layout.page_size
    # Of two parts of it the first lies elsewhere, and is not asked for what is in the other.
    rows = [_Resource(at, at + 0xFFF, 0, "hmm_dmirror") for at in (0, START)]
    monkeypatch.setattr(memory_place, "read_resources", lambda prog: rows)
    unit = around.layout.page_address(START // FRAME >> 15 << 15)

    def translated(prog: Program, address: int) -> int:
        if address == pages:
            return START + (64 << 20)
        if not unit <= address < unit + (2 << 20):
            raise FaultError("not mapped", address)
        return address - unit + START

    monkeypatch.setattr(memory_place, "physical_address", translated)
    around.page()
    pfn = (unit - pages) // 64 + frame
    words = f"struct page memmap: struct page of pfn {pfn:#x}"
    assert around.of() == Place(words, False, unit + WORD - START)
    # A memmap of frames that lie elsewhere.
    monkeypatch.setattr(
        memory_place,
        "physical_address",
        lambda prog, a: translated(prog, a) + (FRAME if a % FRAME else 0),
    )
    assert around.of() == Place("not told", False)
