#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""DAX entries per second: the walk of one large file and the scan that is judged with it.

usage: scripts/bench_dax.py [ENTRIES [BUILD...]]   (default: 4194304, 16 GiB of 4 KiB pages; run it with .venv/bin/python)

The file, its tree and its struct pages are made up in memory.  Its pages lie in the order of the file, as
extents do, or are scattered at random, which no file system does; its nodes lie in the order of their making,
or are scattered.  Reading is a slice of a buffer behind a Python call: nearly free, or with a pause of 5
microseconds, about what Program.read takes to find an address in the page tables of a dump.

BUILD is the path of another _zonedev*.so: the builds take turns, so that their ratio holds on a busy
machine.  Seconds are of CPU time.  Best of three rounds.
"""

from __future__ import annotations

import importlib.util
import random
import struct
import sys
import time
from array import array
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, Optional

from zonedev import _zonedev

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
import pages as machines
from pages import START, Machine
from trees import NODE_SIZE, NODES, SPACES, SPEC

ROUNDS = 3
PAUSE_S = 5e-6
BITS = 6
# The only file's.
MAPPING = SPACES


class Tree:
    """The nodes of an xarray of the values, level by level, in one buffer, in order or not."""

    def __init__(self, values: array[int], scattered: bool) -> None:
        self.levels: list[tuple[int, int]] = []
        count = nodes = len(values)
        while nodes > 1 or not self.levels:
            nodes = -(-nodes // 64)
            self.levels.append((sum(n for _, n in self.levels), nodes))
        self.places = list(range(sum(nodes for _, nodes in self.levels)))
        if scattered:
            random.Random(2).shuffle(self.places)
        self.buffer = bytearray(NODE_SIZE * len(self.places))
        words: Iterable[int] = ((pfn << 5) | 1 for pfn in values)
        for level in range(len(self.levels)):
            words, count = self._fill(level, words, count), self.levels[level][1]
        (self.head,) = words

    def _address(self, number: int) -> int:
        return NODES + NODE_SIZE * self.places[number]

    def _fill(self, level: int, words: Iterable[int], count: int) -> Iterable[int]:
        """Make the nodes of a level that hold the words; the words that lead to them."""
        first, nodes = self.levels[level]
        source = iter(words)
        for i in range(nodes):
            filled = min(64, count - i * 64)
            slots = [next(source) for _ in range(filled)] + [0] * (64 - filled)
            top = level + 1 == len(self.levels)
            parent = 0 if top else self._address(self.levels[level + 1][0] + i // 64)
            struct.pack_into(
                *("<BBBxxxxxQQQQ64Q", self.buffer, self._address(first + i) - NODES),
                *(level * BITS, i % 64, filled, parent, MAPPING + 8, 0, 0, *slots),
            )
        return [self._address(first + i) | 2 for i in range(nodes)]


class World(NamedTuple):
    """A file whose page i lies at pfns[i], and all struct pages."""

    count: int
    tree: Tree
    pages: bytearray


def make_world(pfns: array[int], scattered: bool) -> World:
    pages = bytearray(Machine("H").page(mapping=MAPPING) * len(pfns))
    for index, pfn in enumerate(pfns):
        struct.pack_into("<Q", pages, (pfn - START) * 64 + 32, index)
    return World(len(pfns), Tree(pfns, scattered), pages)


def wait(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


class Reader:
    """Reads of a world's memory, how many there were, and how many bytes."""

    def __init__(self, machine: Machine, world: World, pause: float) -> None:
        self.space = struct.pack("<QQQQ", MAPPING + 0x800, 0, world.tree.head, 0)
        self.nodes, self.memmap = memoryview(world.tree.buffer), memoryview(world.pages)
        self.start, self.pause = machine.memmap, pause
        self.reads = self.bytes = 0

    def __call__(self, address: int, size: int) -> Optional[bytes]:
        self.reads += 1
        self.bytes += size
        if self.pause:
            wait(self.pause)
        if address == MAPPING:
            return self.space
        if NODES <= address < NODES + len(self.nodes):
            data = self.nodes[address - NODES : address - NODES + size]
        else:
            data = self.memmap[address - self.start : address - self.start + size]
        return bytes(data) if len(data) == size else None


class Build:
    """One build of the extension: the walk and the scan of a world, and the best times of both."""

    def __init__(self, module: ModuleType, world: World, pause: float) -> None:
        machines._zonedev = module
        self.module, self.world, self.machine = module, world, Machine("H")
        self.reader = Reader(self.machine, world, pause)
        self.entries = module.Entries(
            *(self.machine.layout, self.machine.scheme, self.reader),
            **SPEC,
        )
        self.entries.range(START, START + world.count, self.machine.memmap)
        self.walk_s = self.plain_s = self.marked_s = float("inf")

    def _walk(self) -> None:
        self.entries.clear()
        self.reader.reads = self.reader.bytes = 0
        tally = self.entries.add(MAPPING)
        assert tally["entries"] == self.world.count and tally["why"] is None
        self.entries.complete(True)

    def _scan(self, known: Optional[_zonedev.Entries]) -> None:
        machine, end = self.machine, START + self.world.count
        one = self.module.Scan(machine.layout, machine.scheme, machine.pagemap, entries=known)
        one.begin(START, end, machine.memmap)
        one.pages(self.world.pages)
        one.end()
        assert one.classes()["busy"] == self.world.count

    def round(self) -> None:
        self.walk_s = min(self.walk_s, timed(self._walk))
        self.plain_s = min(self.plain_s, timed(lambda: self._scan(None)))
        self.marked_s = min(self.marked_s, timed(lambda: self._scan(self.entries)))


def timed(work: Callable[[], None]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin


def bench(name: str, world: World, modules: list[ModuleType], pause: float) -> None:
    builds = [Build(module, world, pause) for module in modules]
    for _ in range(ROUNDS):
        for build in builds:
            build.round()
    print(f"{name}{', 5 us a read' if pause else ''}")
    for build in builds:
        rates = [world.count / s / 1e6 for s in (build.walk_s, build.plain_s, build.marked_s)]
        reads = build.reader.reads / world.count * 1000
        print(
            f"  {'this' if build is builds[0] else 'other':5} walk {rates[0]:6.2f} M entries/s, "
            f"{builds[-1].walk_s / build.walk_s:5.2f} times the last; {reads:6.1f} reads, "
            f"{build.reader.bytes / world.count:4.1f} kB per 1000 entries; "
            f"scan {rates[1]:.0f}, with marks {rates[2]:.0f} M pages/s"
        )


def load(path: str) -> ModuleType:
    """Another build of the extension."""
    spec = importlib.util.spec_from_file_location("_zonedev", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1 << 22
    modules = [_zonedev, *map(load, sys.argv[2:])]
    in_order = array("Q", range(START, START + count))
    shuffled = list(in_order)
    random.Random(1).shuffle(shuffled)
    for name, pfns, scattered in (
        ("in the order of the file", in_order, False),
        ("nodes scattered", in_order, True),
        ("pages scattered", array("Q", shuffled), False),
        ("nodes and pages scattered", array("Q", shuffled), True),
    ):
        world = make_world(pfns, scattered)
        for pause in (0, PAUSE_S):
            bench(name, world, modules, pause)


if __name__ == "__main__":
    main()
