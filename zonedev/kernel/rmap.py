# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which mappings of user space may hold a page: the kernel's own way from a page to its VMAs.

Owns the walk of the interval trees: of an address_space (files), and of an anon_vma (anonymous memory).  Whether a VMA
really maps the page, its page tables tell (pagetable.py).

Invariant: no node is visited twice, so that a tree of garbage ends.
Mirrors mm/interval_tree.c, mm/rmap.c, lib/maple_tree.c.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from typing import NamedTuple, Optional

from drgn import FaultError, Program, offsetof, sizeof

from zonedev.kernel.mapping import ANON
from zonedev.kernel.members import Budget, Members, has_member, words_of

_NODES_MAX = 1 << 20

# The types that a node's pointer names in bits 3 to 6 (enum maple_type), and how nodes of them are laid out.
_MAPLE_LEAF = 1
_MAPLE_NODES = {1: "maple_range_64", 2: "maple_range_64", 3: "maple_arange_64"}
_MAPLE_NODE_MASK, _MAPLE_NODE_MIN = 255, 4096
_DEPTH_MAX = 32

_VM_FLAGS = ((1, "r"), (2, "w"), (4, "x"), (8, "s"))


class CannotWalk(Exception):
    """A tree cannot be walked to its end; its argument says why."""


class Vma(NamedTuple):
    """A struct vm_area_struct: [start, end) of an mm maps its object from page pgoff on."""

    address: int
    mm: int
    start: int
    end: int
    pgoff: int
    flags: int
    file: int

    @property
    def permission(self) -> str:
        """ "rw-s", as /proc/PID/maps has it."""
        letters = "".join(letter if self.flags & bit else "-" for bit, letter in _VM_FLAGS)
        return letters if letters[3] == "s" else letters[:3] + "p"

    def at(self, index: int, page_shift: int) -> int:
        """Where page *index* of the object is mapped, if inside."""
        return self.start + ((index - self.pgoff) << page_shift)


def _load(prog: Program, entry: int, index: int) -> int:
    """What a maple tree holds at an index, given its root; 0 for nothing.

    :raises FaultError: it cannot be read, or is none
    :raises LookupError: types lack for it
    """
    shapes = {}
    for type_, name in _MAPLE_NODES.items():
        node = prog.type(f"struct {name}")
        pivots, slots = (offsetof(node, member) for member in ("pivot", "slot"))
        shapes[type_] = sizeof(node), pivots, node.member("pivot").type.length or 0, slots
    # Only the root's pointer is tagged as that of a node: a tree of one entry has none.
    if entry & 3 != 2 or entry < _MAPLE_NODE_MIN:
        return entry if not entry & 3 else 0
    for _ in range(_DEPTH_MAX):
        type_ = entry >> 3 & 15
        if type_ not in shapes:
            break
        size, pivots, count, slots = shapes[type_]
        raw = prog.read(entry & ~_MAPLE_NODE_MASK, size)
        ends = words_of(prog, raw[pivots : pivots + 8 * count])
        # A pivot of 0 behind the first says that the node ends there.
        used = next((i for i, end in enumerate(ends) if i and not end), count)
        slot = bisect_left(ends[:used], index)
        entry = words_of(prog, raw[slots + 8 * slot : slots + 8 * slot + 8])[0]
        if type_ == _MAPLE_LEAF:
            return entry if not entry & 3 else 0
    raise FaultError("no maple tree", entry)


class Rmap:
    """
    The VMAs of pages of one kernel.

    :raises LookupError: types lack for it
    """

    def __init__(self, prog: Program, page_shift: int) -> None:
        self._prog, self._shift = prog, page_shift
        self._vma = Members(
            prog,
            "struct vm_area_struct",
            *("vm_mm", "vm_start", "vm_end", "vm_pgoff", "vm_flags", "vm_file"),
        )
        shared = "shared.rb" if has_member(prog, "struct vm_area_struct", "shared.rb") else "shared"
        self._in_file = Members(
            prog,
            "struct vm_area_struct",
            *(f"{shared}.rb_left", f"{shared}.rb_right", "shared.rb_subtree_last"),
        )
        self._file_node = offsetof(self._vma.type, shared)
        self._avc = Members(
            prog,
            "struct anon_vma_chain",
            *("rb.rb_left", "rb.rb_right", "rb_subtree_last", "vma"),
        )
        self._avc_node = offsetof(self._avc.type, "rb")
        self._nodes = Budget(_NODES_MAX, "mappings")

    def _read(self, address: int) -> Vma:
        return Vma(address, *self._vma.read(address))

    def _walk(
        self,
        root: int,
        node: int,
        members: Members,
        vma_of: Callable[[int, tuple[int, ...]], int],
        first: int,
        last: int,
    ) -> Iterator[Vma]:
        """The VMAs below the rb_node *root* that have one of the pages [first, last]."""
        seen: set[int] = set()
        stack = [root]
        while stack:
            at = stack.pop()
            if not at:
                continue
            if at in seen:
                raise CannotWalk(f"the tree of mappings is corrupt at {at:#x}")
            seen.add(at)
            self._spend()
            try:
                found = members.read(at - node)
                if found[2] < first:
                    continue
                vma = self._read(vma_of(at - node, found))
            except FaultError as err:
                raise CannotWalk(f"the tree of mappings cannot be read: {err}") from None
            if not vma.mm or vma.end <= vma.start:
                raise CannotWalk(f"the mapping at {vma.address:#x} is none: corrupt, or left out")
            if vma.pgoff <= last:
                stack.append(found[1])
                if first < vma.pgoff + ((vma.end - vma.start) >> self._shift):
                    yield vma
            stack.append(found[0])

    def at(self, mm: int, address: int) -> Optional[Vma]:
        """The VMA of a struct mm_struct that covers an address; None where there is none, or it cannot be found."""
        # Since commit d4af56c5c7c6 ("mm: start tracking VMAs with maple tree") (in v6.1).
        try:
            root = Members(self._prog, "struct mm_struct", "mm_mt.ma_root").read(mm)[0]
            found = _load(self._prog, root, address)
            vma = self._read(found) if found else None
        except (FaultError, LookupError):
            return None
        return vma if vma and vma.start <= address < vma.end else None

    def of_file(self, mapping: int, first: int, last: int) -> Iterator[Vma]:
        """The VMAs that have one of the pages [first, last] of a struct address_space.

        :raises CannotWalk: not all can be found; those before that stand
        """
        root = Members(self._prog, "struct address_space", "i_mmap.rb_root.rb_node")
        yield from self._walk(
            self._root(root, mapping),
            self._file_node,
            self._in_file,
            lambda address, _: address,
            first,
            last,
        )

    def of_anon(self, mapping: int, first: int, last: int) -> Iterator[Vma]:
        """The same of anonymous memory; mapping is the word of its pages, tag included."""
        root = Members(self._prog, "struct anon_vma", "rb_root.rb_root.rb_node")
        yield from self._walk(
            self._root(root, mapping - ANON),
            self._avc_node,
            self._avc,
            lambda _, found: found[3],
            first,
            last,
        )

    def _spend(self) -> None:
        try:
            self._nodes.spend()
        except ValueError as err:
            raise CannotWalk(f"the trees of mappings are too large: {err}") from None

    def _root(self, root: Members, address: int) -> int:
        self._spend()
        try:
            return root.read(address)[0]
        except FaultError as err:
            raise CannotWalk(f"the root of the tree of mappings cannot be read: {err}") from None
