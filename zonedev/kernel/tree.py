# SPDX-License-Identifier: LGPL-2.1-or-later
"""Bounded walk of an xarray, or of the radix tree that it replaced, out of an untrusted dump.

Owns the shapes of nodes and entries; what the entries mean is registry.py's.  Every node is visited
once and lies below its parent, so that a tree of garbage ends: as an error, or as a problem.

Mirrors lib/xarray.c and, before it, lib/radix-tree.c.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

from drgn import FaultError, Object, Program, Type, offsetof, sizeof

_MAX_NODES = 1 << 16
_MAX_ITEMS = 1 << 20
_MAX_SHIFT = 64

# Internal entries of an xarray have the low bits 10: pointers to nodes, and below this, siblings.
_XA_NODE_MIN = 4096
_XA_SIBLING_MAX = 256

# XA_RETRY_ENTRY and XA_ZERO_ENTRY: nothing is stored where they stand.
_XA_NOTHING = (256 << 2 | 2, 257 << 2 | 2)


class CorruptTree(ValueError):
    """The tree is none; says which node tells."""


class Item(NamedTuple):
    """What is stored at the indices [start, end)."""

    start: int
    end: int
    value: int


class Tree(NamedTuple):
    """The root's entry, items in the order of their indices, and what is wrong with nodes that could be read."""

    head: int
    items: list[Item]
    problems: list[str]


class _Shape(NamedTuple):
    """What differs between the trees: the node's type, the tag of a pointer to one, and the level of
    the top node where nodes do not say their own."""

    node: Type
    tag: int
    top_shift: Optional[int]

    def is_node(self, entry: int, shift: int) -> bool:
        if self.tag == 2:
            return entry & 3 == 2 and entry > _XA_NODE_MIN
        # 4.5 and 4.6 do not tag pointers in slots; whatever lies above the lowest level is one.
        return entry & 3 == 1 or bool(self.top_shift is not None and shift and entry)

    def sibling(self, entry: int, slots_at: int, length: int) -> Optional[int]:
        """The slot that holds the item which an entry continues, None for other entries."""
        if self.tag == 2:
            return entry >> 2 if entry & 3 == 2 and entry < _XA_SIBLING_MAX else None
        # Before commit 02c02bf12c5d ("xarray: Change definition of sibling entries") (in v4.20).
        offset = (entry & ~1) - slots_at
        if entry & 1 and 0 <= offset < 8 * length and offset % 8 == 0:
            return offset // 8
        return None


class _Node(NamedTuple):
    address: int
    first: int
    shift: int
    slots_at: int
    slots: list[int]
    problems: list[str]


def _shape(prog: Program, root: Object) -> tuple[_Shape, int]:
    """Shape and first entry of a tree."""
    # Since commit f8d5d0cc145c ("xarray: Add definition of struct xarray") (in v4.20) the radix tree is
    # an xarray, too.
    if root.type_.has_member("xa_head"):
        return _Shape(prog.type("struct xa_node"), 2, None), int(root.xa_head)
    node = root.rnode.type_.type
    top = None
    if not node.has_member("shift"):
        # 4.5 to 4.7: the root says how high the tree is.
        bits = (node.member("slots").type.length or 1).bit_length() - 1
        top = (int(root.height) - 1) * bits
    return _Shape(node, 1, top), int(root.rnode)


def _read_node(prog: Program, shape: _Shape, entry: int, index: int, below: Optional[int]) -> _Node:
    """The node that an entry points to; below is the shift of its parent.

    :raises CorruptTree: it cannot lie there
    :raises FaultError: it cannot be read, or reads as zeroes
    """
    address = entry & ~3
    data = prog.read(address, sizeof(shape.node))
    if not any(data):
        # An empty node is freed; memory that was left out of a dump may look so.
        raise FaultError("a node reads as zeroes", address)
    node = Object.from_bytes_(prog, shape.node, data)
    slots = [int(slot) for slot in node.slots.read_()]
    bits = len(slots).bit_length() - 1
    if shape.top_shift is not None:
        shift = shape.top_shift if below is None else below - bits
    else:
        shift = int(node.shift)
    if shift < 0 or shift % bits or shift >= _MAX_SHIFT or (below is not None and shift >= below):
        raise CorruptTree(f"node {address:#x} cannot lie at level {shift}, below {below}")
    # Before 4.10 the upper bits of the count count something else.
    count, filled = int(node.count) & (2 * len(slots) - 1), sum(1 for slot in slots if slot)
    problems = []
    if filled != count:
        problems.append(
            f"node {address:#x} of the registry counts {count} entries and holds {filled}: "
            "pagemaps may be missing"
        )
    return _Node(address, index, shift, address + offsetof(shape.node, "slots"), slots, problems)


def _node_items(shape: _Shape, node: _Node) -> tuple[list[Item], list[tuple[int, int]]]:
    """Items of a node, and its children as (entry, first index)."""
    items: list[Item] = []
    children: list[tuple[int, int]] = []
    last_slot = -1
    for slot, entry in enumerate(node.slots):
        index = node.first + (slot << node.shift)
        sibling = shape.sibling(entry, node.slots_at, len(node.slots))
        if sibling is not None:
            if items and sibling == last_slot:
                items[-1] = items[-1]._replace(end=index + (1 << node.shift))
            else:
                node.problems.append(
                    f"slot {slot} of node {node.address:#x} of the registry continues slot {sibling}, "
                    "which holds nothing before it: pagemaps may be missing"
                )
        elif shape.is_node(entry, node.shift):
            children.append((entry, index))
        elif entry and entry & 3 == 0:
            items.append(Item(index, index + (1 << node.shift), entry))
            last_slot = slot
        elif entry and entry not in _XA_NOTHING:
            # Anything with low bits is no pointer, and what stood there is lost.
            node.problems.append(
                f"slot {slot} of node {node.address:#x} of the registry holds {entry:#x}, which is no "
                "pagemap: pagemaps may be missing"
            )
    return items, children


def walk_tree(root: Object) -> Tree:
    """
    Everything stored in a ``struct xarray`` or ``struct radix_tree_root``.

    :raises CorruptTree: a node is reached twice, or lies where none can
    :raises FaultError: a node cannot be read, or reads as zeroes
    """
    prog = root.prog_
    shape, head = _shape(prog, root)
    if not head:
        return Tree(0, [], [])
    if not shape.is_node(head, _MAX_SHIFT if shape.top_shift else 0):
        return Tree(head, [Item(0, 1, head)] if head & 3 == 0 else [], [])
    items: list[Item] = []
    problems: list[str] = []
    seen: set[int] = set()
    stack: list[tuple[int, int, Optional[int]]] = [(head, 0, None)]
    while stack:
        entry, index, below = stack.pop()
        node = _read_node(prog, shape, entry, index, below)
        if node.address in seen:
            raise CorruptTree(f"node {node.address:#x} is reached twice")
        seen.add(node.address)
        found, children = _node_items(shape, node)
        problems += node.problems
        items += found
        stack += [(child, first, node.shift) for child, first in children]
        if len(seen) > _MAX_NODES or len(items) > _MAX_ITEMS:
            raise CorruptTree(
                f"more than {_MAX_NODES} nodes or {_MAX_ITEMS} entries cannot be there"
            )
    return Tree(head, sorted(items), problems)
