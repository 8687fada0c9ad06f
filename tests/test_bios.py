# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which requests hold pages: disks, tags, requests and bios in made-up memory.

Synthetic, because split bios, clones of drivers, lost memory and kernels of each way to say who holds pages cannot be
had at a known place; direct I/O of real kernels is that of test_explain.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, Optional, cast

import pytest
from drgn import (
    Architecture,
    Object,
    Platform,
    Program,
    SymbolKind,
    Type,
    TypeEnumerator,
    TypeMember,
)
from made_up import tell_objects, tell_symbols, tell_types

from zonedev.kernel import bios
from zonedev.kernel.bios import Requests
from zonedev.kernel.held import Folios, Held, Search
from zonedev.kernel.tasks import Task, Tasks

BASE, SIZE = 0xFFFF888000000000, 1 << 20
PAGES, PFN, PAGE_SIZE = 0xFFFFEA0000000000, 0x1000, 64
PAGE = 4096
WRITE, DISCARD = 1, 3
IN_FLIGHT = 1

FUNCTIONS = (
    *("blkdev_bio_end_io", "blkdev_bio_end_io_async", "blkdev_bio_end_io_simple"),
    *("submit_bio_wait_endio", "iomap_dio_bio_end_io", "dio_bio_end_io", "dio_bio_end_aio"),
    *("bio_chain_endio", "clone_endio"),
)
END = {name: 0xFFFFFFFF81000000 + 16 * i for i, name in enumerate(FUNCTIONS)}

# Enumerators of kernels: those that say who holds pages, one that can say both, only who does not, and none.
PINS = {"BIO_PAGE_PINNED": 0, "BIO_CLONED": 1}
BOTH = {"BIO_PAGE_REFFED": 0, "BIO_PAGE_PINNED": 1, "BIO_CLONED": 2}
NO_REF = {"BIO_NO_PAGE_REF": 0, "BIO_CLONED": 1}
NONE: dict[str, int] = {}
CLONE = 1 << PINS["BIO_CLONED"]

Vector = list[tuple[int, int, int]]


def page(number: int) -> int:
    """The address of a struct page; the folio that is asked for has the first eight."""
    return PAGES + number * PAGE_SIZE


def types_of(prog: Program, queue: dict[str, int], done: str) -> dict[str, Type]:
    """The structs by name; queue has further members of a request_queue, pointers at these offsets; done is a bvec_iter's."""
    pointer = prog.pointer_type(prog.void_type())
    integers = {size: prog.int_type(f"u{8 * size}", size, False) for size in (2, 4, 8)}

    def struct(name: str, size: int, **members: tuple[int, Any]) -> Type:
        made = [
            TypeMember(integers.get(type_, type_), member, 8 * offset)
            for member, (offset, type_) in members.items()
        ]
        return prog.struct_type(name, size, made)

    numbers = {"bi_size": (8, 4), "bi_idx": (12, 4), done: (16, 4)}
    iter_ = struct("bvec_iter", 24, bi_sector=(0, 8), **numbers)
    queues = struct(
        "request_queue",
        64,
        nr_hw_queues=(0, 4),
        queue_hw_ctx=(8, pointer),
        **{name: (offset, pointer) for name, offset in queue.items()},
    )
    name = prog.array_type(prog.int_type("char", 1, True), 32)
    return {
        "bvec_iter": iter_,
        "page": struct("page", PAGE_SIZE),
        "bio_vec": struct("bio_vec", 16, bv_page=(0, 8), bv_len=(8, 4), bv_offset=(12, 4)),
        "bio": struct(
            "bio",
            64,
            **{"bi_next": (0, 8), "bi_opf": (8, 4), "bi_flags": (12, 2), "bi_vcnt": (14, 2)},
            **{"bi_io_vec": (16, 8), "bi_iter": (24, iter_)},
            **{"bi_end_io": (48, 8), "bi_private": (56, 8)},
        ),
        "request": struct("request", 32, q=(0, 8), bio=(8, 8), state=(16, 4)),
        "blk_mq_hw_ctx": struct("blk_mq_hw_ctx", 24, queue=(0, 8), tags=(8, 8), sched_tags=(16, 8)),
        "blk_mq_tags": struct("blk_mq_tags", 24, nr_tags=(0, 4), static_rqs=(8, 8), rqs=(16, 8)),
        "request_queue": queues,
        "gendisk": struct(
            "gendisk", 40, disk_name=(0, name), queue=(32, prog.pointer_type(queues))
        ),
    }


class Kernel:
    """A Program with memory that structs are put into, one after the other; disks are those that were made."""

    def __init__(
        self, flags: Optional[dict[str, int]] = None, done: str = "bi_bvec_done", **queue: int
    ) -> None:
        self.prog = prog = Program(Platform(Architecture.X86_64))
        self.memory = bytearray(SIZE)
        self.disks: list[Object] = []
        self.lost = False
        self.asked: list[tuple[int, ...]] = []
        self._free = BASE + PAGE
        known = {**(PINS if flags is None else flags), "REQ_OP_DISCARD": DISCARD}
        enum = prog.enum_type(
            "flags",
            prog.int_type("unsigned int", 4, False),
            [TypeEnumerator(name, value) for name, value in known.items()],
        )

        objects = {name: Object(prog, enum, value) for name, value in known.items()}
        prog.add_memory_segment(BASE, SIZE, self._read)
        tell_types(prog, types_of(prog, queue, done))
        tell_objects(prog, {"PAGE_SHIFT": Object(prog, "int", 12), **objects})
        tell_symbols(prog, END, 16, SymbolKind.FUNC)

    def _read(self, address: int, count: int, offset: int, physical: bool) -> bytes:
        return bytes(self.memory[offset : offset + count])

    def put(self, address: int, data: bytes) -> None:
        self.memory[address - BASE : address - BASE + len(data)] = data

    def words(self, *words: int) -> int:
        """Words in memory of their own."""
        address, self._free = self._free, self._free + 8 * len(words)
        self.put(address, b"".join(word.to_bytes(8, "little") for word in words))
        return address

    def make(self, name: str, **members: int) -> int:
        """A struct with these members; those of the iterator by their own names."""
        type_ = self.prog.type(f"struct {name}")
        address = self._free
        self._free += type_.size or 0
        self.set(address, name, **members)
        return address

    def set(self, address: int, name: str, **members: int) -> None:
        for member, value in members.items():
            obj = Object(self.prog, f"struct {name}", address=address)
            if member in ("bi_size", "bi_idx", "bi_bvec_done", "bi_offset"):
                obj = obj.bi_iter
            obj = obj.member_(member)
            self.put(int(obj.address_ or 0), value.to_bytes(obj.type_.size or 8, "little"))

    def vector(self, pieces: Vector) -> int:
        return self.words(*(w for at, length, off in pieces for w in (at, length | off << 32)))

    def bio(self, pieces: Optional[Vector] = None, **members: int) -> int:
        """A bio that writes, with a vector; pinned by direct I/O to a block device unless told otherwise."""
        pieces = [(page(0), PAGE, 0)] if pieces is None else pieces
        size = sum(length for _, length, _ in pieces)
        own = {"bi_opf": WRITE, "bi_flags": 1, "bi_vcnt": len(pieces), "bi_size": size}
        ends = {"bi_end_io": END["blkdev_bio_end_io"], "bi_io_vec": self.vector(pieces)}
        return self.make("bio", **{**own, **ends, **members})

    def clone(self, bio: int, **members: int) -> int:
        """What bio_alloc_clone() makes of a bio."""
        own = Object(self.prog, "struct bio", address=bio)
        vecs, size = int(own.bi_io_vec), int(own.bi_iter.bi_size)
        same = {"bi_opf": WRITE, "bi_flags": CLONE, "bi_io_vec": vecs, "bi_size": size}
        return self.make("bio", **{**same, **members})

    def split(self, bio: int, pieces: int) -> int:
        """What bio_split() and bio_chain() make of a bio: the front part, of some whole pages; the bio is the rest."""
        size = int(Object(self.prog, "struct bio", address=bio).bi_iter.bi_size)
        end = END["bio_chain_endio"]
        front = self.clone(bio, bi_size=pieces * PAGE, bi_end_io=end, bi_private=bio)
        self.set(bio, "bio", bi_size=size - pieces * PAGE, bi_idx=pieces)
        return front

    def queue(self, **members: int) -> int:
        return self.make("request_queue", **members)

    def request(self, bio: int, queue: int, state: int = IN_FLIGHT) -> int:
        return self.make("request", q=queue, bio=bio, state=state)

    def tags(self, own: list[int], used: Iterable[int] = ()) -> int:
        used = [*used, *[0] * len(own)][: len(own)]
        tables = {"static_rqs": self.words(*own), "rqs": self.words(*used)}
        return self.make("blk_mq_tags", nr_tags=len(own), **tables)

    def hw_queue(self, queue: int, *tags: int) -> int:
        """The only hardware queue of a queue."""
        hctx = self.make("blk_mq_hw_ctx", queue=queue, **dict(zip(("tags", "sched_tags"), tags)))
        self.set(queue, "request_queue", nr_hw_queues=1, queue_hw_ctx=self.words(hctx))
        return hctx

    def disk(self, name: str, queue: int) -> None:
        address = self.make("gendisk", queue=queue)
        self.put(address, name.encode())
        self.disks.append(Object(self.prog, "struct gendisk *", value=address))

    def sda(self, *bios: int) -> tuple[int, list[int]]:
        """A disk with a request for each bio; gives its tags and requests."""
        queue = self.queue()
        requests = [self.request(bio, queue) for bio in bios]
        tags = self.tags(requests)
        self.hw_queue(queue, tags)
        self.disk("sda", queue)
        return tags, requests

    def _at(self, address: int) -> Optional[Task]:
        self.asked[-1] += (address,)
        return Task(address, 7, "dd", 0, 0, 0) if address == 0x77 else None

    def search(self) -> Search:
        self.asked.append(())
        tasks = cast(Tasks, SimpleNamespace(at=self._at))
        return Search(self.prog, tasks, Folios([(PFN, PAGES, 8)], PAGE_SIZE))

    def find(self, vecs: Iterable[int] = ()) -> tuple[list[Held], list[str]]:
        search = self.search()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bios, "each_disk", lambda prog: iter(self.disks))
            patch.setattr(bios, "disks_are_lost", lambda prog: self.lost)
            return list(Requests(search).run(set(vecs))), search.gaps


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


def counts(found: list[Held]) -> list[tuple[int, bool]]:
    assert {held.kind for held in found} <= {"bio"} and {held.folio for held in found} <= {PFN}
    return [(held.number, held.pins) for held in found]


# ---------------------------------------------------------------- who holds the pages

REFERENCE, PIN = [(1, False)], [(1, True)]


@pytest.mark.parametrize(
    ("flags", "set_", "end", "expected"),
    [
        (PINS, 0b01, "clone_endio", PIN),
        (PINS, 0b00, "blkdev_bio_end_io", []),
        (BOTH, 0b10, "clone_endio", PIN),
        (BOTH, 0b01, "clone_endio", REFERENCE),
        (BOTH, 0b00, "blkdev_bio_end_io", []),
        (NO_REF, 0b01, "blkdev_bio_end_io", []),
        (NO_REF, 0b01, "clone_endio", []),
        *((NO_REF, 0, end, REFERENCE) for end in FUNCTIONS[:-2]),
        *((NONE, 0b11, end, REFERENCE) for end in FUNCTIONS[:-2]),
    ],
)
def test_who_holds_pages_is_told_by_flags_and_by_what_ends_the_bio(
    flags: dict[str, int], set_: int, end: str, expected: list[tuple[int, bool]]
) -> None:
    kernel = Kernel(flags)
    kernel.sda(kernel.bio(bi_flags=set_, bi_end_io=END[end]))
    found, gaps = kernel.find()
    assert counts(found) == expected and not gaps


@pytest.mark.parametrize("flags", [NO_REF, NONE])
@pytest.mark.parametrize("end", ["clone_endio", "bio_chain_endio", None])
def test_a_bio_of_others_may_hold_its_pages_or_not(
    flags: dict[str, int], end: Optional[str]
) -> None:
    kernel = Kernel(flags)
    address = END[end] if end else 0
    kernel.sda(kernel.bio([(page(8), PAGE, 0)], bi_flags=0, bi_end_io=address))
    assert kernel.find() == ([], [])
    bio = kernel.bio([(page(7), PAGE, 0)], bi_flags=0, bi_end_io=address)
    kernel.sda(bio)
    assert kernel.find() == (
        [],
        [
            f"request to sda: bio {bio:#x}, ended by {end or '0x0'}, names pfn {PFN:#x}; "
            "who holds it for that is not known"
        ],
    )


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([(page(0), PAGE, 0), (page(9), PAGE, 0)], [1]),
        ([(page(6), 4 * PAGE, 0)], [2]),
        ([(page(1), 2, PAGE - 1)], [2]),
        ([(page(1), 1, PAGE - 1), (page(1), 512, 0)], [1, 1]),
        # The offset is one from the folio's first page.
        ([(page(5), PAGE, 2 * PAGE)], [1]),
        ([(page(5), PAGE, 3 * PAGE)], []),
        ([(page(1), PAGE, 2 * PAGE)], [1]),
        ([(page(5), PAGE, PAGE + 512)], [2]),
        ([(page(5), PAGE, 2 * PAGE + 512)], [1]),
    ],
)
def test_pages_of_a_vector(kernel: Kernel, pieces: Vector, expected: list[int]) -> None:
    kernel.sda(kernel.bio(pieces))
    found, gaps = kernel.find()
    assert [held.number for held in found] == expected and not gaps


def test_the_whole_vector_is_held_until_the_end(kernel: Kernel) -> None:
    bio = kernel.bio([(page(i), PAGE, 0) for i in range(3)], bi_size=512, bi_idx=2)
    kernel.sda(bio)
    vecs = int(Object(kernel.prog, "struct bio", address=bio).bi_io_vec)
    assert [held.address - vecs for held in kernel.find()[0]] == [0, 16, 32]


def test_bios_of_a_request(kernel: Kernel) -> None:
    bio = kernel.bio(bi_next=kernel.bio([(page(1), PAGE, 0)]))
    kernel.sda(bio)
    assert len(kernel.find()[0]) == 2


# ---------------------------------------------------------------- clones


def test_a_fixed_buffer_is_held_by_its_ring(kernel: Kernel) -> None:
    """Direct I/O from one has the vector of the buffer, and counts it."""
    bio = kernel.bio([(page(i), PAGE, 0) for i in range(2)], bi_flags=CLONE, bi_size=PAGE)
    kernel.sda(bio)
    vecs = int(Object(kernel.prog, "struct bio", address=bio).bi_io_vec)
    assert kernel.find([vecs, vecs + 16]) == ([], [])
    for known in ([], [vecs], [vecs + 16]):
        found, gaps = kernel.find(known)
        assert not found and len(gaps) == 1 and "is not known" in gaps[0]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("flags", [PINS, NO_REF, NONE])
def test_parts_of_a_split_bio_are_one_holder(flags: dict[str, int], order: Any) -> None:
    kernel = Kernel(flags)
    own = kernel.bio([(page(i), PAGE, 0) for i in range(3)], bi_flags=int(flags is PINS))
    parts = (kernel.split(own, 1), own)
    if flags is NONE:
        kernel.set(parts[0], "bio", bi_flags=0)
    kernel.sda(*(parts[i] for i in order))
    found, gaps = kernel.find()
    assert [held.number for held in found] == [1, 1, 1] and not gaps
    assert {held.object for held in found} == {f"request to sda, bio {own:#x}"}


@pytest.mark.parametrize(("flags", "expected"), [(PINS, PIN), (NONE, REFERENCE)])
def test_the_rest_of_a_split_bio_has_ended_before_its_front(
    flags: dict[str, int], expected: list[tuple[int, bool]]
) -> None:
    kernel = Kernel(flags)
    own = kernel.bio([(page(i), PAGE, 0) for i in range(3)])
    front = kernel.split(own, 1)
    kernel.set(own, "bio", bi_size=0, bi_idx=3)
    kernel.sda(front)
    assert counts(kernel.find()[0]) == 3 * expected


@pytest.mark.parametrize("flags", [PINS, NO_REF, NONE])
def test_a_bio_without_pages_has_no_vector(flags: dict[str, int]) -> None:
    kernel = Kernel(flags)
    kernel.sda(kernel.bio([], bi_opf=DISCARD, bi_io_vec=0, bi_size=PAGE))
    assert kernel.find() == ([], [])


def test_parts_of_a_split_clone_lead_to_whom_they_were_cloned_from(kernel: Kernel) -> None:
    own = kernel.bio([(page(0), PAGE, 0), (page(1), PAGE, 0)])
    clone = kernel.clone(own, bi_end_io=END["clone_endio"])
    parts = [kernel.split(clone, 1), clone]
    kernel.sda(*parts)
    found, gaps = kernel.find()
    # Whoever waits for the clone is not known.
    assert not found and len(gaps) == 1 and f"{clone:#x}, ended by clone_endio" in gaps[0]
    kernel.sda(own)
    found, gaps = kernel.find()
    assert counts(found) == 2 * PIN and not gaps


@pytest.mark.parametrize("done", ["bi_bvec_done", "bi_offset"])
@pytest.mark.parametrize(
    ("clone", "first", "second"),
    [
        ({}, True, True),
        # The first piece is done, and whoever has them all still holds it.
        ({"bi_idx": 1, "bi_size": PAGE}, True, True),
        ({"bi_idx": 2, "bi_size": 0}, True, True),
        ({"bi_size": 1, "done": PAGE - 1}, True, False),
        ({"bi_size": 1, "done": PAGE}, True, True),
        ({"bi_opf": WRITE | 1 << 8}, True, True),
        ({"bi_opf": DISCARD}, False, False),
        ({"bi_opf": DISCARD | 1 << 8}, False, False),
    ],
)
def test_a_clone_of_a_driver(done: str, clone: dict[str, int], first: bool, second: bool) -> None:
    """Whether it is said that nobody is known who holds its first piece, or its second."""
    kernel = Kernel(done=done)
    clone = {done if name == "done" else name: value for name, value in clone.items()}
    pieces, end = [(page(0), PAGE, 0), (page(8), PAGE, 0)], END["clone_endio"]
    kernel.sda(kernel.clone(kernel.bio(pieces), bi_end_io=end, **clone))
    found, gaps = kernel.find()
    assert not found and len(gaps) == first
    kernel.disks.clear()
    kernel.sda(kernel.clone(kernel.bio(pieces[::-1]), bi_end_io=end, **clone))
    found, gaps = kernel.find()
    assert not found and len(gaps) == second


def test_chains_end(kernel: Kernel) -> None:
    own = kernel.bio()
    bio = kernel.split(own, 1)
    kernel.set(bio, "bio", bi_private=bio)
    kernel.sda(bio)
    other = kernel.bio(bi_next=own)
    kernel.set(own, "bio", bi_next=other)
    kernel.sda(other)
    found, gaps = kernel.find()
    assert len(found) == 2
    assert gaps == [
        "requests to sda cannot be read: a chain of more than 64 bios",
        f"requests to sda cannot be read: bio {other:#x} is reached twice",
    ]


def test_pieces_without_an_owner_have_a_bound(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bios, "_UNOWNED_MAX", 3)
    kernel.sda(kernel.bio([(page(0), PAGE, 0)] * 3, bi_flags=CLONE))
    (gap,) = kernel.find()[1]
    assert "is not known" in gap
    kernel.sda(kernel.bio(bi_flags=CLONE))
    assert any("more than 3 pieces" in gap for gap in kernel.find()[1])


# ---------------------------------------------------------------- disks, tags and requests


def test_a_request_is_called_by_its_queue(kernel: Kernel) -> None:
    """Disks of one controller have their tags in common."""
    queues = [kernel.queue() for _ in range(3)]
    tags = kernel.tags([kernel.request(kernel.bio(), queue) for queue in queues])
    for queue in queues:
        kernel.hw_queue(queue, tags)
    kernel.disk("sda", queues[0])
    kernel.disk("sdb", queues[1])
    found, gaps = kernel.find()
    names = [held.object.split(",")[0] for held in found]
    assert names == ["request to sda", "request to sdb", f"request to queue {queues[2]:#x}"]
    assert not gaps


def test_requests_of_a_scheduler_and_of_others(kernel: Kernel) -> None:
    """rqs names requests that belong to the scheduler's tags, and those of flushes, which belong to none."""
    queue = kernel.queue()
    one, two, three = (kernel.request(kernel.bio(), queue) for _ in range(3))
    idle = kernel.request(kernel.bio(), queue, state=0)
    kernel.hw_queue(queue, kernel.tags([idle, idle], [one, two]), kernel.tags([one, three]))
    kernel.disk("sda", queue)
    found, gaps = kernel.find()
    assert len(found) == 3 and not gaps


def test_who_waits_is_asked_for_only_where_a_page_is_held(kernel: Kernel) -> None:
    hit = kernel.bio(bi_private=0x77)
    kernel.sda(kernel.bio([(page(8), PAGE, 0)], bi_private=0x77), hit)
    (held,) = kernel.find()[0]
    assert held.task is not None and held.task.pid == 7
    assert kernel.asked == [(hit, 0x77)]


def test_a_disk_without_hardware_queues_answers_by_itself(kernel: Kernel) -> None:
    kernel.disk("pmem0", kernel.queue())
    assert kernel.find() == ([], [])


# ---------------------------------------------------------------- lost memory


def gap_of(kernel: Kernel, holders: int = 1) -> str:
    """What is said of a disk whose other requests are found."""
    found, gaps = kernel.find()
    assert len(found) == holders and len(gaps) == 1, gaps
    return gaps[0].replace("requests to sda cannot be read: ", "")


def test_a_bio_of_zeroes(kernel: Kernel) -> None:
    lost = kernel.make("bio")
    kernel.sda(lost, kernel.bio())
    assert gap_of(kernel) == f"bio {lost:#x} reads as zeroes"


def test_a_bio_that_one_was_split_from_is_lost(kernel: Kernel) -> None:
    front = kernel.split(kernel.bio(), 1)
    lost = kernel.make("bio")
    kernel.set(front, "bio", bi_private=lost)
    kernel.sda(front, kernel.bio())
    assert gap_of(kernel) == f"bio {lost:#x} reads as zeroes"


@pytest.mark.parametrize("piece", [(0, PAGE, 0), (page(0), 0, 0)])
@pytest.mark.parametrize("clone", [False, True])
def test_a_piece_of_zeroes(kernel: Kernel, piece: tuple[int, int, int], clone: bool) -> None:
    bio = kernel.bio([piece])
    kernel.set(bio, "bio", bi_size=PAGE)
    kernel.sda(kernel.clone(bio) if clone else bio, kernel.bio())
    assert gap_of(kernel).startswith("a piece of a bio without a page")


def test_memory_that_is_not_there(kernel: Kernel) -> None:
    kernel.sda(kernel.bio(bi_io_vec=BASE + SIZE), BASE - PAGE, kernel.bio())
    found, gaps = kernel.find()
    assert len(found) == 1 and len(gaps) == 2


@pytest.mark.parametrize(("used", "lost"), [(False, False), (True, True)])
def test_a_request_of_zeroes_has_never_been_used(kernel: Kernel, used: bool, lost: bool) -> None:
    queue, zeroes = kernel.queue(), kernel.make("request")
    kernel.hw_queue(
        queue, kernel.tags([kernel.request(kernel.bio(), queue), zeroes], [zeroes] * used)
    )
    kernel.disk("sda", queue)
    found, gaps = kernel.find()
    assert len(found) == 1
    assert gaps == ["requests to sda cannot be read: 1 of 2 are not there"] * lost


def test_a_request_is_missing(kernel: Kernel) -> None:
    tags, requests = kernel.sda(kernel.bio(), kernel.bio())
    kernel.set(tags, "blk_mq_tags", static_rqs=kernel.words(0, requests[1]))
    assert gap_of(kernel) == "1 of 2 are not there"


@pytest.mark.parametrize("number", [0, (1 << 16) + 1])
def test_a_number_of_tags_that_cannot_be(kernel: Kernel, number: int) -> None:
    kernel.sda(kernel.bio())
    tags, _ = kernel.sda(kernel.bio())
    kernel.set(tags, "blk_mq_tags", nr_tags=number)
    assert gap_of(kernel) == f"{number} tags"


def test_a_hardware_queue_of_zeroes(kernel: Kernel) -> None:
    kernel.sda(kernel.bio())
    queue = kernel.queue()
    hctx = kernel.hw_queue(queue)
    kernel.disk("sda", queue)
    # One that no processor uses has no tags.
    assert kernel.find()[1] == []
    kernel.set(hctx, "blk_mq_hw_ctx", queue=0)
    assert gap_of(kernel) == f"a hardware queue reads as zeroes, at {hctx:#x}"


def test_a_hardware_queue_is_missing(kernel: Kernel) -> None:
    kernel.sda(kernel.bio())
    queue = int(kernel.disks[0].queue)
    hctx = int(kernel.disks[0].queue.queue_hw_ctx)
    first = int.from_bytes(kernel.prog.read(hctx, 8), "little")
    kernel.set(queue, "request_queue", nr_hw_queues=2, queue_hw_ctx=kernel.words(0, first))
    assert gap_of(kernel) == "1 of 2 hardware queues are not there"
    kernel.set(queue, "request_queue", nr_hw_queues=4097)
    assert gap_of(kernel, 0) == "4097 hardware queues"


@pytest.mark.parametrize(
    ("missing", "problems", "gap"),
    [
        (0, [], None),
        (0, ["a node"], "the tree of its hardware queues is damaged"),
        (1, [], "1 of 2 hardware queues are not there"),
    ],
)
def test_hardware_queues_in_a_tree(
    missing: int, problems: list[str], gap: Optional[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(hctx_table=16)
    kernel.sda(kernel.bio())
    queue = kernel.disks[0].queue
    hctx = int.from_bytes(kernel.prog.read(int(queue.queue_hw_ctx), 8), "little")
    kernel.set(int(queue), "request_queue", nr_hw_queues=1 + missing, queue_hw_ctx=0)
    tree = SimpleNamespace(items=[SimpleNamespace(value=hctx)], problems=problems)
    monkeypatch.setattr(bios, "walk_tree", lambda root: tree)
    found, gaps = kernel.find()
    assert len(found) == 1
    assert gaps == ([f"requests to sda cannot be read: {gap}"] if gap else [])


def test_requests_that_are_in_no_hardware_queue() -> None:
    kernel = Kernel(request_fn=24)
    kernel.sda(kernel.bio())
    assert kernel.find()[1] == []
    kernel.disk("sda", kernel.queue(request_fn=END["clone_endio"]))
    assert gap_of(kernel) == "they are in no hardware queue"


def test_disks_that_are_lost(kernel: Kernel) -> None:
    kernel.sda(kernel.bio())
    kernel.lost = True
    assert kernel.find() == (
        [],
        ["requests to disks cannot be read: the list of them does not come to its end"],
    )
    kernel.lost = False
    kernel.disks.append(Object(kernel.prog, "struct gendisk *", value=BASE - PAGE))
    found, gaps = kernel.find()
    assert len(found) == 1 and len(gaps) == 1 and "requests to disks" in gaps[0]
