#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""DAX entries per second: the walk of one large file and the scan that is judged with it.

usage: scripts/bench_dax.py [ENTRIES]        (default: 4194304, 16 GiB of 4 KiB pages; run it with .venv/bin/python)

The file, its tree and its struct pages are made up in memory; reading is a slice of a buffer behind a
Python call, about what Program.read costs on a mapped core.  Once its pages lie in the order of the file,
as extents do, and once scattered at random, which no file system does: then every entry reads a struct
page by itself.  Best of three rounds.
"""

from __future__ import annotations

import random
import struct
import sys
import time
from array import array
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Optional

from zonedev import _zonedev

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from pages import START, Machine
from trees import NODE_SIZE, NODES, SPACES, SPEC

ROUNDS = 3
BITS = 6
# The only file's.
MAPPING = SPACES


class Tree:
    """The nodes of an xarray of `count` entries, level by level, in one buffer."""

    def __init__(self, values: array[int]) -> None:
        self.buffer = bytearray()
        self.levels: list[tuple[int, int]] = []
        words: Iterable[int] = ((pfn << 5) | 1 for pfn in values)
        count, shift = len(values), 0
        while True:
            words, count = self._level(words, count, shift)
            shift += BITS
            if count == 1:
                break
        self.head = NODES + len(self.buffer) - NODE_SIZE | 2
        self._link()

    def _level(self, words: Iterable[int], count: int, shift: int) -> tuple[Iterable[int], int]:
        first, nodes = len(self.buffer), -(-count // 64)
        self.levels.append((first, nodes))
        source = iter(words)
        for i in range(nodes):
            filled = min(64, count - i * 64)
            slots = [next(source) for _ in range(filled)] + [0] * (64 - filled)
            header = struct.pack("<BBBxxxxxQQQQ", shift, i % 64, filled, 0, MAPPING + 8, 0, 0)
            self.buffer += (header + struct.pack("<64Q", *slots)).ljust(NODE_SIZE, b"\0")
        return (NODES + first + i * NODE_SIZE | 2 for i in range(nodes)), nodes

    def _link(self) -> None:
        """Every node names its parent."""
        for (first, nodes), (above, _) in zip(self.levels, self.levels[1:]):
            for i in range(nodes):
                parent = NODES + above + i // 64 * NODE_SIZE
                struct.pack_into("<Q", self.buffer, first + i * NODE_SIZE + 8, parent)


def make_world(pfns: array[int]) -> tuple[Machine, Tree, bytearray]:
    """A machine, the tree of a file whose page i lies at pfns[i], and all struct pages."""
    machine = Machine("H")
    pages = bytearray(machine.page(mapping=MAPPING) * len(pfns))
    for index, pfn in enumerate(pfns):
        struct.pack_into("<Q", pages, (pfn - START) * 64 + 32, index)
    return machine, Tree(pfns), pages


def reader(machine: Machine, tree: Tree, pages: bytearray) -> Callable[[int, int], Optional[bytes]]:
    space = struct.pack("<QQQQ", MAPPING + 0x800, 0, tree.head, 0)
    nodes, memmap = memoryview(tree.buffer), memoryview(pages)

    def read(address: int, size: int) -> Optional[bytes]:
        if address == MAPPING:
            return space
        if NODES <= address < NODES + len(nodes):
            return bytes(nodes[address - NODES : address - NODES + size])
        return bytes(memmap[address - machine.memmap : address - machine.memmap + size])

    return read


def best(work: Callable[[], None]) -> float:
    seconds = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def bench(name: str, pfns: array[int]) -> None:
    machine, tree, pages = make_world(pfns)
    count = len(pfns)
    read = reader(machine, tree, pages)
    entries = _zonedev.Entries(machine.layout, machine.scheme, read, **SPEC)
    entries.range(START, START + count, machine.memmap)

    def walk() -> None:
        entries.clear()
        tally = entries.add(MAPPING)
        assert tally["entries"] == count and tally["why"] is None
        entries.complete(True)

    def scan(known: Optional[_zonedev.Entries]) -> None:
        one = _zonedev.Scan(machine.layout, machine.scheme, machine.pagemap, entries=known)
        one.begin(START, START + count, machine.memmap)
        one.pages(pages)
        one.end()
        assert one.classes()["busy"] == count

    walked = best(walk)
    print(f"{name}: {count} entries")
    print(f"  walk                {count / walked / 1e6:7.2f} M entries/s")
    print(f"  scan without marks  {count / best(lambda: scan(None)) / 1e6:7.2f} M pages/s")
    print(f"  scan with marks     {count / best(lambda: scan(entries)) / 1e6:7.2f} M pages/s")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1 << 22
    pfns = array("Q", range(START, START + count))
    bench("in the order of the file", pfns)
    scattered = list(pfns)
    random.Random(1).shuffle(scattered)
    bench("scattered", array("Q", scattered))


if __name__ == "__main__":
    main()
