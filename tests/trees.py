# SPDX-License-Identifier: LGPL-2.1-or-later
"""Files in made-up memory: address_spaces with xarrays of DAX entries, as fs/dax.c builds them.

A World is a Machine's struct pages, files with entries, and the Entries that walk them.  Everything but the
struct pages is of 64 bits, in the machine's byte order.
"""

from __future__ import annotations

from typing import Any, Literal, Optional

from pages import START, Machine

from zonedev import _zonedev

NODE_SIZE, SLOTS = 576, 64
SHIFT, OFFSET, COUNT, PARENT, ARRAY, SLOTS_AT = 0, 1, 2, 8, 16, 40
SPACE_SIZE, HOST, XARRAY, HEAD, LOCK = 32, 0, 8, 16, 8
INODE_SIZE, SB_LIST, MAPPING_AT, FLAGS_AT = 64, 16, 40, 12
S_DAX = 1 << 13
# As Entries takes them.
SPEC = {
    "node": (NODE_SIZE, SLOTS, SHIFT, OFFSET, COUNT, PARENT, ARRAY, SLOTS_AT),
    "space": (SPACE_SIZE, HOST, XARRAY, HEAD, LOCK),
    "inode": (INODE_SIZE, SB_LIST, MAPPING_AT, FLAGS_AT),
}
NODES, SPACES, INODES = 0xFFFF888100000000, 0xFFFF888200000000, 0xFFFF888300000000

LOCKED, PMD, ZERO, EMPTY = 1, 2, 4, 8


class Memory:
    """Pieces of memory by address."""

    def __init__(self, big_endian: bool = False) -> None:
        self.pieces: dict[int, bytearray] = {}
        self.reads = 0
        self._order: Literal["little", "big"] = "big" if big_endian else "little"

    def put(self, address: int, data: bytes) -> None:
        self.pieces[address] = bytearray(data)

    def word(self, address: int, value: int, size: int = 8) -> None:
        start, piece = self.find(address)
        piece[address - start : address - start + size] = value.to_bytes(size, self._order)

    def load(self, address: int) -> int:
        start, piece = self.find(address)
        return int.from_bytes(piece[address - start : address - start + 8], self._order)

    def find(self, address: int) -> tuple[int, bytearray]:
        for start, piece in self.pieces.items():
            if start <= address < start + len(piece):
                return start, piece
        raise KeyError(hex(address))

    def read(self, address: int, size: int) -> Optional[bytes]:
        self.reads += 1
        try:
            start, piece = self.find(address)
        except KeyError:
            return None
        data = bytes(piece[address - start : address - start + size])
        return data if len(data) == size else None


class World:
    """Struct pages, files and their walk."""

    def __init__(self, machine: Machine, pages: bytes) -> None:
        self.machine, self.memory = machine, Memory(machine.big_endian)
        self.pages = pages
        self.count = len(pages) // machine.page_size
        self.memory.put(machine.memmap, pages)
        self.nodes: dict[int, int] = {}
        self.files = 0
        self.entries = self.make()

    def make(self, **changes: Any) -> _zonedev.Entries:
        spec = {"read": self.memory.read, **SPEC, **changes}
        read = spec.pop("read")
        entries = _zonedev.Entries(self.machine.layout, self.machine.scheme, read, **spec)
        entries.range(START, START + self.count, self.machine.memmap)
        return entries

    def _node(self, array: int, parent: int, slot: int, shift: int) -> int:
        address = NODES + 1024 * len(self.nodes)
        node = bytearray(NODE_SIZE)
        node[SHIFT], node[OFFSET] = shift, slot
        self.memory.put(address, bytes(node))
        self.memory.word(address + PARENT, parent)
        self.memory.word(address + ARRAY, array)
        self.nodes[address] = shift
        return address

    def slot(self, node: int, slot: int, value: Optional[int] = None) -> int:
        """Load a slot, or store one and count it."""
        address = node + SLOTS_AT + 8 * slot
        old = self.memory.load(address)
        if value is not None:
            self.memory.pieces[node][COUNT] += (value != 0) - (old != 0)
            self.memory.word(address, value)
        return old

    def _store(self, mapping: int, head: int, index: int, entry: int, order: int) -> None:
        node = head - 2
        shift = self.nodes[node]
        while shift > order - order % 6:
            slot = index >> shift & 63
            child = self.slot(node, slot)
            if not child:
                child = self._node(mapping + XARRAY, node, slot, shift - 6) | 2
                self.slot(node, slot, child)
            node, shift = child - 2, shift - 6
        slot = index >> shift & 63
        self.slot(node, slot, entry)
        for sibling in range(1, 1 << order - shift):
            self.slot(node, slot + sibling, slot << 2 | 2)

    def file(self, entries: dict[int, tuple[int, int]], levels: int = 3, mapping: int = 0) -> int:
        """A file with entries, index -> (pfn, flags); its mapping, which may be chosen."""
        mapping = mapping or SPACES + 0x1000 * self.files
        self.files += 1
        self.memory.put(mapping, bytes(SPACE_SIZE))
        self.memory.word(mapping + HOST, mapping + 0x800)
        head = self._node(mapping + XARRAY, 0, 0, 6 * (levels - 1)) | 2 if entries else 0
        self.memory.word(mapping + HEAD, head)
        for index, (pfn, flags) in entries.items():
            value = (pfn << 4 | flags) << 1 | 1
            order = self.machine.layout_spec["pmd_order"] if flags & PMD else 0
            self._store(mapping, head, index, value, order)
        return mapping

    def join(self) -> None:
        """Lay all nodes into one piece of memory, as slabs do."""
        pieces = {address: self.memory.pieces.pop(address) for address in self.nodes}
        whole = bytearray(max(pieces) + NODE_SIZE - NODES)
        for address, piece in pieces.items():
            whole[address - NODES : address - NODES + NODE_SIZE] = piece
        self.memory.put(NODES, bytes(whole))

    def inode_list(self, inodes: list[tuple[int, int]]) -> int:
        """A list of inodes (i_mapping, i_flags); the address of its head."""
        head = INODES
        nodes = [head] + [INODES + 0x1000 * (i + 1) + SB_LIST for i in range(len(inodes))]
        self.memory.put(head, bytes(16))
        for i, (mapping, flags) in enumerate(inodes):
            inode = INODES + 0x1000 * (i + 1)
            self.memory.put(inode, bytes(INODE_SIZE))
            self.memory.word(inode + MAPPING_AT, mapping)
            self.memory.word(inode + FLAGS_AT, flags, 4)
        for i, node in enumerate(nodes):
            self.memory.word(node, nodes[(i + 1) % len(nodes)])
            self.memory.word(node + 8, nodes[i - 1])
        return head

    def scan(self, complete: bool = True, fast: bool = True, merge: bool = True) -> dict[str, Any]:
        """The tally of all pages, judged with the entries."""
        self.entries.complete(complete)
        return self.machine.scan(self.pages, fast, merge, self.entries)
