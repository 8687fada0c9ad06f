# SPDX-License-Identifier: LGPL-2.1-or-later
"""DAX entries in made-up trees: what is read of them, what is not believed, and what the rules make of it."""

from __future__ import annotations

import random
import time
from typing import Any, NamedTuple, Optional

import pytest
from pages import EVIDENCE, START, Machine
from trees import (
    COUNT,
    EMPTY,
    HEAD,
    HOST,
    LOCK,
    LOCKED,
    NODES,
    PARENT,
    PMD,
    S_DAX,
    SHIFT,
    SLOTS_AT,
    SPACES,
    ZERO,
    World,
)

from zonedev import _zonedev

# The mapping of the first file that a World makes, and of the next one.
A, B = SPACES, SPACES + 0x1000


def unmarked() -> Machine:
    """A kernel of 6.0 or 6.1, which counts sharers in the index."""
    machine = Machine("E", missing=("share",))
    evidence = dict.fromkeys((EVIDENCE["E"] - {"page.share"}) | {"dax_mapping_set_cow"}, True)
    machine.scheme = _zonedev.Scheme(evidence)
    return machine


def machine_of(letter: str) -> Machine:
    return unmarked() if letter == "6.1" else Machine(letter)


def idle_world(pages: int = 1200, letter: str = "E") -> World:
    machine = machine_of(letter)
    return World(machine, machine.page() * pages)


# ---------------------------------------------------------------- the walk


def test_entries_of_a_file() -> None:
    world = idle_world()
    mapping = world.file(
        {
            3: (START + 1, 0),
            64: (START + 7, LOCKED),
            512: (START + 512, PMD),
            2048: (99, PMD | ZERO),
            4096: (98, ZERO),
            4097: (0, EMPTY),
            200_000: (START + 2, 0),
        }
    )
    found, numbers = world.entries.of(mapping)
    assert found == [
        (3, START + 1, 0, ""),
        (64, START + 7, 0, "L"),
        (512, START + 512, 9, "P"),
        (2048, 99, 9, "PZ"),
        (4096, 98, 0, "Z"),
        (4097, 0, 0, "E"),
        (200_000, START + 2, 0, ""),
    ]
    assert numbers["why"] is None and numbers["nodes"] == len(world.nodes)
    names = ("entries", "pages", "pmd", "zero", "empty", "locked", "outside", "misplaced")
    assert [numbers[name] for name in names] == [7, 3 + 512, 2, 2, 1, 1, 0, 0]
    assert world.entries.of(mapping, [START + 600, START + 2])[0] == [found[2], found[6]]
    assert world.entries.of(mapping, [START])[0] == []


def test_a_file_of_one_entry_has_no_node() -> None:
    world = idle_world()
    mapping = world.file({})
    assert world.entries.of(mapping)[0] == []
    world.memory.word(mapping + HEAD, ((START + 5) << 4) << 1 | 1)
    assert world.entries.of(mapping)[0] == [(0, START + 5, 0, "")]


def test_inodes_of_a_list() -> None:
    world = idle_world()
    head = world.inode_list([(A, S_DAX), (B, 0), (B + 8, S_DAX | 1)])
    found, walk = world.entries.inodes(head)
    assert [mapping for _, mapping in found] == [A, B + 8]
    assert (walk["inodes"], walk["dax"], walk["why"]) == (3, 2, None)
    assert world.entries.inodes(world.inode_list([]))[1]["inodes"] == 0


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_inodes_of_a_list_that_is_lost(lost: int) -> None:
    world = idle_world()
    head = world.inode_list([(A, S_DAX)] * 3)
    address = head if lost == 0 else head + 0x1000 * lost
    del world.memory.pieces[address]
    found, walk = world.entries.inodes(head)
    assert walk["why"] and len(found) == max(lost - 1, 0)
    # Zeroes stand for memory that a dump does not hold.
    world.memory.put(address, bytes(64))
    found, walk = world.entries.inodes(head)
    assert walk["why"] and len(found) == max(lost - 1, 0)


def test_a_list_of_inodes_that_goes_round_in_itself_ends() -> None:
    world = idle_world()
    head = world.inode_list([(A, S_DAX)] * 5)
    world.memory.word(head + 0x4000 + 16, head + 0x2000 + 16)
    found, walk = world.entries.inodes(head)
    assert len(found) == 4 and "does not name the one before it" in walk["why"]


def damaged(what: str) -> tuple[World, int]:
    """A file of three levels, of which the node of entries 64 and up is damaged; and its mapping."""
    world = idle_world()
    mapping = world.file({0: (START, 0), 64: (START + 1, 0), 4096: (START + 2, 0)})
    top = NODES
    node = world.slot(world.slot(top, 0) - 2, 1) - 2
    if what == "lost":
        del world.memory.pieces[node]
    elif what == "zeroes":
        world.memory.put(node, bytes(576))
    elif what == "parent":
        world.memory.word(node + PARENT, top)
    elif what == "slot":
        world.memory.pieces[node][1] = 2
    elif what == "level":
        world.memory.pieces[node][SHIFT] = 6
    elif what == "count":
        world.memory.pieces[node][COUNT] = 2
    elif what == "another tree":
        world.memory.word(node + PARENT + 8, mapping)
    elif what == "cycle":
        world.memory.word(world.slot(top, 0) - 2 + SLOTS_AT + 8, top | 2)
    return world, mapping


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ("lost", "the node cannot be read"),
        ("zeroes", "the node belongs to no or to another tree"),
        ("parent", "the node names another parent"),
        ("slot", "the node names another slot of its parent"),
        ("level", "the node lies at a wrong level"),
        ("count", "the node does not hold as many entries as it counts"),
        ("another tree", "the node belongs to no or to another tree"),
        ("cycle", "the node names another parent"),
    ],
)
def test_nodes_that_are_not_believed(what: str, why: str) -> None:
    world, mapping = damaged(what)
    found, numbers = world.entries.of(mapping)
    # The other subtrees are read.
    assert [entry[0] for entry in found] == [0, 4096]
    assert numbers["why"] == why and numbers["bad_node"]
    assert numbers["unreadable"] + numbers["corrupt"] == 1
    assert damaged("")[0].entries.of(mapping)[1]["why"] is None


@pytest.mark.parametrize("what", ["", "zeroes", "parent", "slot", "level", "count", "cycle"])
def test_nodes_that_are_read_together_are_believed_no_more(what: str) -> None:
    alone, mapping = damaged(what)
    together, _ = damaged(what)
    together.join()
    assert together.entries.of(mapping) == alone.entries.of(mapping)
    assert together.memory.reads < alone.memory.reads


def test_nodes_that_lie_together_are_read_at_once() -> None:
    world = idle_world()
    mapping = world.file({64 * i: (START + i, 0) for i in range(64)})
    alone = world.entries.of(mapping)
    # The address_space, the top, the node below it, all of its children in vain, and each.
    assert world.memory.reads == 4 + 64
    world.join()
    world.memory.reads = 0
    assert world.entries.of(mapping) == alone
    # 64 of them, 1 KiB apart, by at most 64 KiB.
    assert world.memory.reads == 4
    # Where a part of them is lost, the others are read by themselves.
    start, piece = world.memory.find(NODES)
    lost = sorted(world.nodes)[-1]
    world.memory.put(start, bytes(piece[: lost - start]))
    found, numbers = world.entries.of(mapping)
    assert found == alone[0][:-1]
    assert (numbers["unreadable"], numbers["bad_node"]) == (1, lost)


def test_an_exception_of_a_reader_of_many_nodes_ends_the_walk() -> None:
    world = idle_world()
    mapping = world.file({64 * i: (START + i, 0) for i in range(64)})
    world.join()

    sizes: list[int] = []

    def interrupted(address: int, size: int) -> Optional[bytes]:
        sizes.append(size)
        if size > 576:
            raise KeyboardInterrupt
        return world.memory.read(address, size)

    with pytest.raises(KeyboardInterrupt):
        world.make(read=interrupted).of(mapping)
    # Nothing is read after it.
    assert sizes[-1] > 576 and len(sizes) == 4


@pytest.mark.parametrize("size", ["small in large", "large in small", "unaligned"])
def test_entries_at_places_of_another_size(size: str) -> None:
    world = idle_world()
    mapping = world.file({512: (START, PMD), 4096: (START + 600, 0)})
    middle = world.slot(NODES, 0) - 2
    leaf = world.slot(world.slot(NODES, 1) - 2, 0) - 2
    if size == "small in large":
        world.slot(middle, 8, (START << 4) << 1 | 1)
    elif size == "large in small":
        world.slot(leaf, 0, (START << 4 | PMD) << 1 | 1)
    else:
        world.slot(middle, 16, 0)
        world.slot(middle, 9, (START << 4 | PMD) << 1 | 1)
    numbers = world.entries.add(mapping)
    assert numbers["misplaced"] >= 1
    assert world.entries.of(mapping)[1]["misplaced"] >= 1


@pytest.mark.parametrize("seed", range(40))
def test_garbage_ends(seed: int) -> None:
    """Every slot, level and back pointer may be wrong: the walk ends after as many reads as there are nodes."""
    rng = random.Random(seed)
    world = idle_world()
    entries = {rng.randrange(1 << 18): (START + rng.randrange(1200), 0) for _ in range(200)}
    mapping = world.file(entries)
    nodes = list(world.nodes)
    for _ in range(rng.randrange(1, 60)):
        node = rng.choice(nodes)
        word = rng.choice((rng.choice(nodes) | 2, rng.getrandbits(64), 0, 6, 1))
        world.memory.word(node + 8 * rng.randrange(72), word)
    world.memory.reads = 0
    if seed % 2:
        world.join()
    found, numbers = world.entries.of(mapping)
    assert numbers["nodes"] <= len(nodes) * 64
    assert numbers["nodes"] - numbers["unreadable"] - numbers["corrupt"] <= len(nodes)
    assert len(found) <= 64 * len(nodes)
    world.entries.add(mapping)


def test_address_spaces_that_are_not_there() -> None:
    world = idle_world()
    assert world.entries.add(A)["no_space"]
    mapping = world.file({0: (START, 0)})
    world.memory.word(mapping + HOST, 0)
    assert world.entries.add(mapping)["no_space"]
    assert world.entries.mark(START)["count"] == 0  # type: ignore[index]


def test_what_the_reader_raises_ends_the_walk() -> None:
    world = idle_world()
    mapping = world.file({0: (START, 0), 64: (START + 1, 0)})

    def interrupted(address: int, size: int) -> Optional[bytes]:
        if address in world.nodes and world.nodes[address] == 0:
            raise KeyboardInterrupt
        return world.memory.read(address, size)

    for call in ("of", "add"):
        entries = world.make(read=interrupted)
        with pytest.raises(KeyboardInterrupt):
            getattr(entries, call)(mapping)
        # It can be used afterwards.
        assert entries.mark(START + 1) is not None
    with pytest.raises(TypeError, match="as many bytes"):
        world.make(read=lambda address, size: b"").of(mapping)


def test_calls_that_are_refused() -> None:
    world = idle_world()
    mapping = world.file({0: (START, 0)})

    def reenter(address: int, size: int) -> Optional[bytes]:
        entries.clear()
        return None

    entries = world.make(read=reenter)
    with pytest.raises(RuntimeError, match="being walked"):
        entries.add(mapping)
    scan = _zonedev.Scan(
        world.machine.layout, world.machine.scheme, world.machine.pagemap, entries=world.entries
    )
    with pytest.raises(RuntimeError, match="in use by a scan"):
        world.entries.add(mapping)
    del scan
    assert world.entries.add(mapping)["entries"] == 1
    for start, end in ((START, START + 8), (START + 2000, START + 2000), (START + 2000, 1 << 50)):
        with pytest.raises(ValueError, match="makes no sense"):
            world.entries.range(start, end, 0)
    for spec in (
        {"node": (576, 64, 576, 1, 2, 8, 16, 40)},
        {"node": (576, 63, 0, 1, 2, 8, 16, 40)},
    ):
        with pytest.raises(ValueError, match="xa_node"):
            world.make(**spec)
    with pytest.raises(ValueError, match="address_space"):
        world.make(space=(16, 0, 8, 16, 8))
    with pytest.raises(OverflowError):
        world.make(inode=(1 << 16, 0, 0, 0))


# ---------------------------------------------------------------- marks


def marks(world: World, pfn: int) -> str:
    """count, then M(atch) P(MD) L(ocked) F(lux) S(tuck)."""
    mark = world.entries.mark(pfn)
    assert mark is not None
    names = (("match", "M"), ("pmd", "P"), ("locked", "L"), ("flux", "F"), ("stuck", "S"))
    return str(mark["count"]) + "".join(letter for name, letter in names if mark[name])


def test_marks() -> None:
    machine = Machine("E")
    pages = machine.page(mapping=A, share=5) + machine.page(mapping=B, share=5) + machine.page() * 8
    world = World(machine, pages)
    entries = {5: (START, 0), 6: (START + 1, 0), 7: (START + 2, LOCKED)}
    world.entries.add(world.file(entries | {i: (START + 3, 0) for i in range(8, 30)}))
    assert [marks(world, START + i) for i in range(5)] == ["1M", "1", "1L", "7", "0"]
    assert world.entries.mark(START - 1) is None and world.entries.mark(START + 10) is None
    world.entries.lock_is(START, 10, True)
    assert [marks(world, START + i) for i in (2, 4)] == ["1LS", "0"]
    other = world.file({0: (START + 4, 0), 1: (START + 11, 0), 2: (START + 1, 0)})
    world.memory.word(other + LOCK, 1, 4)
    assert world.entries.add(other)["outside"] == 1
    assert [marks(world, START + i) for i in (1, 4)] == ["2F", "1F"]
    kept = world.entries.kept()
    assert [pfn for _, (_, pfn, _, _) in kept["locked"]] == [START + 2]
    assert kept["outside"] == [(other, (1, START + 11, 0, ""))] and kept["outside_count"] == 1
    world.entries.clear()
    assert {marks(world, START + i) for i in range(10)} == {"0"}


def test_marks_of_large_entries() -> None:
    # Before 6.15 every page of a PMD entry names its own index ...
    old = Machine("E")
    pages = b"".join(old.page(mapping=A, share=512 + i) for i in range(512))
    world = World(old, pages)
    world.entries.add(world.file({512: (START, PMD)}))
    assert {marks(world, START + i) for i in range(512)} == {"1MP"}
    assert world.scan()["classes"]["busy"] == 512
    assert world.scan() == world.scan(fast=False)
    # ... since then its folio names the first.
    new = Machine("H")
    world = World(new, new.folio(9, mapping=A, share=512))
    world.entries.add(world.file({512: (START, PMD)}))
    assert {marks(world, START + i) for i in range(512)} == {"1MP"}
    assert world.scan()["findings"] == []


def test_pages_whose_marks_no_template_has_are_looked_at_once() -> None:
    machine = Machine("E")
    count = 8192
    world = World(machine, b"".join(machine.page(mapping=A, share=i) for i in range(count)))
    for _ in range(2):
        world.entries.add(world.file({i: (START + i, 0) for i in range(count)}))

    def seconds(fast: bool) -> float:
        begin = time.thread_time()
        tally = world.scan(fast=fast)
        assert [(f["rule"], f["count"]) for f in tally["findings"]] == [
            ("multi-owner-unshared", count)
        ]
        return time.thread_time() - begin

    # Over and over is hundreds of times as slow.
    assert min(seconds(True) for _ in range(3)) < 10 * min(seconds(False) for _ in range(3))


def test_struct_pages_that_are_lost_match_nothing() -> None:
    machine = Machine("E")
    world = World(machine, machine.page(mapping=A, share=0) * 128)
    mapping = world.file({0: (START, 0), 64: (START + 64, 0)})
    # The second half of the struct pages is lost.
    world.memory.put(machine.memmap, world.pages[: 64 * 64 + 64])
    world.entries.add(mapping)
    assert [marks(world, START + i) for i in (0, 64, 65)] == ["1M", "1", "0"]


@pytest.mark.parametrize("seed", range(20))
def test_marks_of_any_entries(seed: int) -> None:
    """Entries in any order, twice, over lost struct pages: as many reads as there are pages at most."""
    rng = random.Random(seed)
    machine = machine_of(rng.choice(("C", "E", "H")))
    owners = [(rng.choice((A, B)), rng.randrange(4000)) for _ in range(1000)]
    world = World(machine, b"".join(machine.page(mapping=m, share=index) for m, index in owners))
    size = machine.page_size
    lost = {pfn for pfn in range(1000) if pfn // 40 in rng.sample(range(25), rng.randrange(6))}
    del world.memory.pieces[machine.memmap]
    for start in range(1000):
        if start not in lost and (start == 0 or start - 1 in lost):
            end = next((i for i in range(start, 1000) if i in lost), 1000)
            world.memory.put(machine.memmap + start * size, world.pages[start * size : end * size])
    count, match = [0] * 1000, [False] * 1000
    for mapping in (A, B):
        entries = {rng.randrange(4000): rng.randrange(1000) for _ in range(rng.randrange(900))}
        entries |= {owners[pfn][1]: pfn for pfn in rng.sample(range(1000), 300)}
        world.memory.reads = 0
        assert world.file({index: (START + pfn, 0) for index, pfn in entries.items()}) == mapping
        world.entries.add(mapping)
        assert world.memory.reads <= 300 + 2 * len(entries)
        for index, pfn in entries.items():
            count[pfn] += 1
            match[pfn] |= owners[pfn] == (mapping, index) and pfn not in lost
    for pfn in range(1000):
        assert marks(world, START + pfn) == f"{min(count[pfn], 7)}{'M' * match[pfn]}"


def test_struct_pages_of_scattered_entries_are_read_in_the_order_of_memory() -> None:
    machine = Machine("H")
    world = World(machine, b"".join(machine.page(mapping=A, share=i) for i in range(2000)))
    places = list(range(2000))
    random.Random(1).shuffle(places)
    mapping = world.file({pfn: (START + pfn, 0) for pfn in places})
    other = world.file({i: (START + pfn, 0) for i, pfn in enumerate(places)})
    world.join()
    world.memory.reads = 0
    world.entries.add(other)
    # The address_space and three levels of nodes; and 125 KiB of struct pages, which one read takes.
    assert world.memory.reads == 5
    world.memory.reads = 0
    world.entries.add(mapping)
    assert world.memory.reads == 4
    assert {marks(world, START + i) for i in range(2000)} == {"2M"}


def test_completeness_is_of_a_range() -> None:
    machine = Machine("H")
    world = World(machine, machine.page(mapping=A) * 64)
    world.entries.range(START + 1000, START + 1100, machine.memmap + 64000)
    for mine, other, found in ((True, False, 1), (False, True, 0)):
        world.entries.complete(mine, START + 63)
        world.entries.complete(other, START + 1000)
        for fast in (True, False):
            scan = _zonedev.Scan(
                *(machine.layout, machine.scheme, machine.pagemap),
                fast=fast,
                entries=world.entries,
            )
            scan.begin(START, START + 64, machine.memmap)
            scan.pages(world.pages)
            scan.end()
            assert len(scan.result()["findings"]) == found
            del scan
    with pytest.raises(ValueError, match="lies in no range"):
        world.entries.complete(True, START + 64)


# ---------------------------------------------------------------- rules


class Case(NamedTuple):
    """A page, the entries of two files that cover it, and what the audit makes of it."""

    letter: str
    page: dict[str, Any]
    a: dict[int, int]  # index -> flags of the entry
    b: dict[int, int]
    rule: Optional[str]
    severity: Optional[str] = None
    class_: Optional[str] = None
    complete: bool = True


CACHED = {"mapping": A, "share": 3}
HELD = {"refcount": 1, "share": 7}
CASES = [
    Case("E", {}, {}, {}, None, None, "idle"),
    Case("E", CACHED, {3: 0}, {}, None, None, "busy"),
    # R32
    Case("E", CACHED, {}, {}, "mapping-without-entry", "error", "violation"),
    Case("C", CACHED, {}, {}, "mapping-without-entry", "error", "violation"),
    Case("H", CACHED, {}, {}, "mapping-without-entry", "error", "violation"),
    Case("H", CACHED, {}, {}, None, None, "busy", complete=False),
    # R33
    Case("E", CACHED, {4: 0}, {}, "entry-page-mismatch", "error", "violation"),
    Case("H", CACHED, {4: 0}, {}, "entry-page-mismatch", "error", "violation"),
    Case("H", CACHED, {4: 0}, {}, "entry-page-mismatch", "error", "violation", complete=False),
    Case("H", CACHED, {4: LOCKED}, {}, "dax-lock-stuck", "info", "busy"),
    Case("H", CACHED, {}, {3: 0}, "entry-page-mismatch", "error", "violation"),
    Case("H", {}, {3: 0}, {}, "entry-page-mismatch", "error", "violation"),
    Case("C", {}, {3: 0}, {}, "entry-page-mismatch", "error", "violation"),
    # 6.0 and 6.1 lose the mapping when one of two files is truncated
    Case("6.1", {}, {3: 0}, {}, "entry-page-mismatch", "warning", "idle"),
    Case("6.1", CACHED, {4: 0}, {}, "entry-page-mismatch", "error", "violation"),
    Case("6.1", CACHED, {4: 0}, {}, "entry-page-mismatch", "warning", "busy", complete=False),
    # R36
    Case("E", CACHED, {3: 0}, {9: 0}, "multi-owner-unshared", "error", "violation"),
    Case("C", CACHED, {3: 0, 4: 0}, {}, "multi-owner-unshared", "error", "violation"),
    Case("H", CACHED, {3: 0}, {9: 0}, "multi-owner-unshared", "error", "violation"),
    Case("H", {"share": 2}, {3: 0}, {9: 0}, None, None, "busy"),
    Case("E", {"mapping": 1, "share": 2}, {3: 0}, {9: 0}, None, None, "busy"),
    Case("6.1", CACHED, {3: 0}, {9: 0}, "multi-owner-unshared", "warning", "busy"),
    Case("6.1", {}, {3: 0}, {9: 0}, "multi-owner-unshared", "warning", "idle"),
    Case("6.1", CACHED, {2: 0}, {9: 0}, "multi-owner-unshared", "error", "violation"),
    # R34
    Case("E", {"mapping": 1}, {}, {}, "shared-state", "error", "violation"),
    Case("6.1", {"mapping": 1}, {}, {}, "shared-state", "info", "busy"),
    Case("6.1", {"mapping": 1, "share": 1}, {3: 0}, {}, None, None, "busy"),
    Case("H", {"share": 7}, {}, {}, "shared-state", "error", "violation"),
    Case("H", {"share": 7}, {}, {}, None, None, "busy", complete=False),
    Case("G", {"share": 7}, {}, {}, "shared-state", "info", "idle"),
    Case("G", {"share": 7}, {}, {}, None, None, "idle", complete=False),
    Case("G", {"share": 7}, {3: 0}, {}, None, None, "busy"),
    # R35
    Case("E", {"mapping": 1, "share": 1}, {3: 0}, {}, None, None, "busy"),
    Case("E", {"mapping": 1, "share": 2}, {3: 0}, {}, "share-vs-entries", "warning", "busy"),
    Case("E", {"mapping": 1, "share": 2}, {3: 0}, {}, None, None, "busy", complete=False),
    Case("E", {"mapping": 1, "share": 1}, {}, {}, "share-vs-entries", "warning", "busy"),
    Case("H", {"share": 3}, {3: 0}, {9: 0}, "share-vs-entries", "warning", "busy"),
    Case("H", {"share": 9}, dict.fromkeys(range(9), 0), {}, None, None, "busy"),
    Case("H", {"share": 6}, dict.fromkeys(range(9), 0), {}, "share-vs-entries", "warning"),
    Case("H", {"share": 3}, {3: LOCKED}, {}, "dax-lock-stuck", "info", "busy"),
    # R38, where nobody has looked for who holds the lock
    Case("E", CACHED, {3: LOCKED}, {}, "dax-lock-stuck", "info", "busy"),
    # R01 with what settles it
    Case("G", HELD, {}, {}, "reference-on-free-folio", "error", "violation"),
    Case("G", HELD, {}, {}, "reference-on-free-folio", "warning", "busy", complete=False),
    Case("G", HELD, {3: 0}, {}, "held-without-map", "info", "busy"),
    # R31
    Case("H", {"mapping": 0xFFFF888A00000000}, {}, {}, "mapping-without-entry", "error"),
]


def world_of(case: Case) -> World:
    machine = machine_of(case.letter)
    world = World(machine, machine.page(**case.page) + machine.page() * 63)
    for one in (case.a, case.b):
        world.entries.add(world.file({index: (START, flags) for index, flags in one.items()}))
    return world


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.letter}-{c.rule}-{c.page}-{c.a}-{c.b}")
def test_rules(case: Case) -> None:
    world = world_of(case)
    tally = world.scan(case.complete)
    first = tally["findings"][0] if tally["findings"] else None
    assert (first and (first["rule"], first["severity"])) == (
        (case.rule, case.severity) if case.rule else None
    )
    assert len(tally["findings"]) <= 1
    idle = tally["classes"]["idle"]
    assert idle == (64 if case.class_ == "idle" else 63)
    if case.class_:
        assert tally["classes"][case.class_] == (64 if case.class_ == "idle" else 1)
    assert world.scan(case.complete, fast=False) == tally


def test_every_rule_that_needs_entries_is_tried_here() -> None:
    rows = [row for row in _zonedev.rules() if row["evidence"] == "DAX entries of inodes"]
    wanted = {(row["id"], row["severity"]) for row in rows if row["requires_evidence"]}
    elsewhere = {("entry-order-vs-folio", "warning"), ("dax-lock-stuck", "warning")}
    assert wanted - elsewhere <= {(case.rule, case.severity) for case in CASES}


def test_what_is_known_of_a_mapping() -> None:
    world = world_of(Case("H", {"mapping": B + 0x5000}, {}, {}, None))
    for kind, found in (
        ("plain", [("mapping-without-entry", "error")]),
        ("unknown", []),
        ("no-file", [("wrong-mapping", "error")]),
    ):
        world.entries.know(B + 0x5000, kind)
        for fast in (True, False):
            findings = world.scan(fast=fast)["findings"]
            assert [(f["rule"], f["severity"]) for f in findings] == found
    with pytest.raises(ValueError, match="no kind"):
        world.entries.know(1, "odd")


def test_a_stuck_lock() -> None:
    world = world_of(Case("H", CACHED, {3: LOCKED}, {}, None))
    world.entries.lock_is(START, 1, False)
    assert world.scan()["findings"] == []
    world = world_of(Case("H", CACHED, {3: LOCKED}, {}, None))
    world.entries.lock_is(START, 1, True)
    (finding,) = world.scan()["findings"]
    assert (finding["rule"], finding["severity"]) == ("dax-lock-stuck", "warning")
    # Nobody is about to change it: what it says counts.
    world = world_of(Case("H", CACHED, {4: LOCKED}, {}, None))
    world.entries.lock_is(START, 1, True)
    (finding,) = world.scan()["findings"]
    assert finding["rule"] == "entry-page-mismatch" and finding["also"] == ["dax-lock-stuck"]


def test_a_tree_that_is_being_changed_says_nothing() -> None:
    for page, entries in (({}, {3: 0}), (CACHED, {4: 0}), (CACHED, {3: 0, 4: 0})):
        machine = Machine("H")
        world = World(machine, machine.page(**page) + machine.page() * 63)
        mapping = world.file({index: (START, flags) for index, flags in entries.items()})
        world.memory.word(mapping + LOCK, 1, 4)
        world.entries.add(mapping)
        assert world.scan()["findings"] == []
        world.entries.clear()
        world.memory.word(mapping + LOCK, 0, 4)
        world.entries.add(mapping)
        assert world.scan()["findings"]


@pytest.mark.parametrize(
    ("folio", "entry", "rule"),
    [
        ({"mapping": A, "share": 512}, PMD, None),
        ({}, None, "entry-order-vs-folio"),
        ({"share": 2}, None, "shared-state"),
        ({"mapping": A, "share": 512}, None, "mapping-without-entry"),
    ],
)
def test_large_folios(folio: dict[str, int], entry: Optional[int], rule: Optional[str]) -> None:
    machine = Machine("H")
    world = World(machine, machine.folio(9, **folio))
    world.entries.add(world.file({512: (START, entry)} if entry is not None else {}))
    tally = world.scan()
    assert [f["rule"] for f in tally["findings"]] == ([rule] if rule else [])
    assert world.scan(fast=False) == tally
    assert world.scan(complete=False)["findings"] == []


def test_a_folio_that_was_split_under_its_entry() -> None:
    machine = Machine("H")
    world = World(machine, machine.page(mapping=A, share=512) + machine.page() * 511)
    world.entries.add(world.file({512: (START, PMD)}))
    tally = world.scan()
    assert {(f["rule"], f["severity"]) for f in tally["findings"]} == {
        ("entry-order-vs-folio", "warning")
    }
    assert sum(f["pages"] for f in tally["findings"]) == 512
    assert world.scan(fast=False) == tally


SPLIT = ("entry-order-vs-folio", "warning")


@pytest.mark.parametrize(
    ("entries", "flags", "found"),
    [
        # Two sharers, of which one has an entry of a page: of a tail, of the head.
        ({}, 0, []),
        ({0: (START + 5, 0)}, 0, [SPLIT]),
        ({0: (START, 0)}, 0, [SPLIT]),
        ({0: (START + 511, 0)}, 0, [SPLIT]),
        # It is about to be changed, or the whole tree is.
        ({0: (START + 5, LOCKED)}, 0, []),
        ({0: (START + 5, 0)}, 1, []),
        # Of the next folio, which is one page.
        ({0: (START + 512, 0)}, 0, []),
        # A PMD entry that begins in the middle.
        ({512: (START + 5, PMD)}, 0, [SPLIT]),
    ],
)
@pytest.mark.parametrize("complete", [True, False])
def test_entries_of_a_part_of_a_folio(
    entries: dict[int, tuple[int, int]],
    flags: int,
    found: list[tuple[str, str]],
    complete: bool,
) -> None:
    machine = Machine("H")
    sharers = 2 if entries and flags == 0 and START + 512 not in dict(entries.values()) else 1
    after = machine.page(mapping=B) if START + 512 in dict(entries.values()) else machine.page()
    world = World(machine, machine.folio(9, share=sharers) + after + machine.page() * 600)
    world.entries.add(world.file({512: (START, PMD)}))
    other = world.file(entries)
    world.memory.word(other + LOCK, flags, 4)
    world.entries.add(other)
    for fast in (True, False):
        findings = world.scan(complete, fast=fast)["findings"]
        # Beside what the pages behind the folio say of an entry that reaches them.
        of_folio = [f for f in findings if f["pfn"] == START]
        about_orders = [f for f in of_folio if SPLIT[0] in (f["rule"], *f["also"])]
        assert [(SPLIT[0], f["severity"]) for f in about_orders] == found


def test_a_part_of_a_folio_that_cannot_be_read_says_nothing() -> None:
    machine = Machine("H")
    world = World(machine, machine.folio(9, share=2))
    world.memory.put(machine.memmap, world.pages[: 5 * 64])
    world.entries.add(world.file({512: (START, PMD), 2048: (START + 5, 0)}))
    assert SPLIT[0] not in {f["rule"] for f in world.scan(complete=False)["findings"]}
    world.entries.clear()
    world.memory.put(machine.memmap, world.pages)
    world.entries.add(A)
    assert SPLIT[0] in {f["rule"] for f in world.scan(complete=False)["findings"]}
    world.entries.clear()
    assert world.scan(complete=False)["findings"] == []


def test_entries_of_pages_of_a_pmd_before_folios() -> None:
    machine = Machine("E")
    world = World(machine, machine.page(mapping=1, share=2) * 512)
    world.entries.add(world.file({512: (START, PMD)}))
    world.entries.add(world.file({i: (START + i, 0) for i in range(512)}))
    assert world.scan()["findings"] == []


def test_an_entry_that_begins_in_the_middle_of_a_folio_matches_no_other_folio() -> None:
    machine = Machine("H")
    pages = machine.folio(9, mapping=A, share=512) + machine.folio(9, mapping=A, share=1024)
    world = World(machine, pages)
    world.entries.add(world.file({512: (START + 1, PMD)}))
    assert marks(world, START) == "0"
    assert marks(world, START + 1) == "1P"
    assert marks(world, START + 512) == "1P"


def test_locked_entries_without_a_page_are_kept() -> None:
    world = idle_world()
    mapping = world.file(
        {3: (0, EMPTY | LOCKED), 4: (99, ZERO | LOCKED), 5: (0, EMPTY), 6: (98, ZERO)}
    )
    numbers = world.entries.add(mapping)
    assert (numbers["locked"], numbers["empty"], numbers["zero"]) == (2, 2, 2)
    assert world.entries.kept()["locked"] == [
        (mapping, (3, 0, 0, "LE")),
        (mapping, (4, 99, 0, "LZ")),
    ]
    assert world.entries.kept()["outside"] == []


@pytest.mark.parametrize("letter", ["C", "E", "6.1", "G", "H"])
def test_templates_agree_with_decoding(letter: str) -> None:
    rng = random.Random(letter)
    for _ in range(12):
        machine = machine_of(letter)
        pages = bytearray()
        for i in range(600):
            state = rng.choice(
                ({}, {"mapping": A, "share": i}, {"mapping": B, "share": i}, {"share": 2})
            )
            if letter in "GH" and state.get("mapping") and rng.random() < 0.3:
                state = dict(state, refcount=1, maps=1)
            pages += machine.page(**state)
        world = World(machine, bytes(pages))
        for _ in range(2):
            covered = rng.sample(range(600), 300)
            world.entries.add(
                world.file({i: (START + i, LOCKED * (rng.random() < 0.02)) for i in covered})
            )
        for complete in (True, False):
            assert world.scan(complete, fast=True) == world.scan(complete, fast=False)
