# SPDX-License-Identifier: LGPL-2.1-or-later
"""The files' side of FS_DAX: which DAX inodes there are, and which pages their entries name.

Owns the way from the super blocks to the trees of DAX files, and what of it could not be read (gaps):
where there are any, "no entry" is never concluded.  The walks of inodes and trees, and what is kept of
them, are the core's (ext/core/entries.h); judging is that of its rules.

Invariant: every list is walked by nodes that name the one before them, so that it ends.
Mirrors fs/super.c (super_blocks), fs/inode.c (s_inodes), fs/dax.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Optional

from drgn import FaultError, Object, Program, offsetof, sizeof

from zonedev import _zonedev
from zonedev.kernel.layout import KernelLayout
from zonedev.model import Pagemap

_FS_DAX = "MEMORY_DEVICE_FS_DAX"

# File systems in memory of their own or in none: no file of theirs lies on a device.  What is not
# named here is walked.
# fmt: off
_NO_DAX = frozenset((
    "aio", "anon_inodefs", "apparmorfs", "autofs", "bdev", "binder", "binfmt_misc", "bpf", "cgroup",
    "cgroup2", "configfs", "cpuset", "dax", "debugfs", "devpts", "devtmpfs", "dmabuf", "drm", "efivarfs",
    "fusectl", "guest-memfd", "hugetlbfs", "mqueue", "nsfs", "pidfs", "pipefs", "proc", "pstore", "ramfs",
    "resctrl", "rootfs", "rpc_pipefs", "securityfs", "selinuxfs", "sockfs", "sysfs", "tmpfs", "tracefs",
))
# fmt: on

_SUPER_BLOCKS_MAX = 1 << 16
_NAME_MAX = 256
_DEPTH_MAX = 64
_GAPS_MAX = 20

# A pagemap range of more pages than this is not marked (16 TiB of 4 KiB pages).
_RANGE_PAGES_MAX = 1 << 32


class CannotWalk(Exception):
    """The pass cannot be run; its argument says why."""


class SuperBlock(NamedTuple):
    """A mounted file system: its address, where its inodes hang, and what it is called."""

    address: int
    inodes: int
    device: str
    kind: str

    def __str__(self) -> str:
        return f"{self.device} ({self.kind})"


class DaxFile(NamedTuple):
    """A DAX inode and the address_space that holds its entries."""

    inode: int
    mapping: int
    super_block: Optional[SuperBlock]


@dataclass(frozen=True)
class DaxEntry:
    """Pages [pfn, pfn + pages) are those of a file from index on; zero and empty ones have no pfn."""

    file: DaxFile
    index: int
    pfn: int
    pages: int
    locked: bool
    pmd: bool
    zero: bool
    empty: bool


@dataclass
class Walked:
    """What a pass over all DAX entries has seen, and what it could not see."""

    file_systems: int = 0
    inodes: int = 0
    dax_inodes: int = 0
    files: int = 0
    counts: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            ("entries", "pages", "pmd", "zero", "empty", "locked", "outside"), 0
        )
    )
    gaps: list[str] = field(default_factory=list)

    def gap(self, text: str) -> None:
        """Note what could not be read; of many, how many there are."""
        if len(self.gaps) < _GAPS_MAX:
            self.gaps.append(text)
        elif len(self.gaps) == _GAPS_MAX:
            self.gaps.append("and more")


# ---------------------------------------------------------------- where members lie


def node_spec(prog: Program) -> tuple[int, ...]:
    """Where the members of struct xa_node lie, in bytes, as the core's Entries takes them.

    :raises LookupError: the debug file does not tell
    """
    node = prog.type("struct xa_node")
    slots = node.member("slots").type.length
    assert slots is not None
    members = ("shift", "offset", "count", "parent", "array", "slots")
    return sizeof(node), slots, *(offsetof(node, name) for name in members)


def space_spec(prog: Program) -> tuple[int, ...]:
    """Where the members of struct address_space lie, in bytes, as the core's Entries takes them.

    :raises LookupError: the debug file does not tell
    """
    space = prog.type("struct address_space")
    # Since commit f8d5d0cc145c ("xarray: Add definition of struct xarray") (in v4.20).
    host, xarray = offsetof(space, "host"), offsetof(space, "i_pages")
    head, lock = offsetof(space, "i_pages.xa_head"), offsetof(space, "i_pages.xa_lock")
    return max(host, head) + 8, host, xarray, head, lock


def inode_spec(prog: Program) -> tuple[int, ...]:
    """Where the members of struct inode lie, in bytes, as the core's Entries takes them.

    :raises LookupError: the debug file does not tell
    """
    inode = prog.type("struct inode")
    places = tuple(offsetof(inode, name) for name in ("i_sb_list", "i_mapping", "i_flags"))
    return max(places) + 16, *places


def reader(prog: Program) -> Callable[[int, int], Optional[bytes]]:
    """Program.read() whose failures are None."""
    read = prog.read

    def read_or_none(address: int, size: int) -> Optional[bytes]:
        try:
            data: bytes = read(address, size)
            return data
        except (FaultError, OSError, ValueError, OverflowError):
            return None

    return read_or_none


# ---------------------------------------------------------------- super blocks


def _text(prog: Program, address: int) -> str:
    raw: bytes = prog.read_c_string(address, max_size=_NAME_MAX)
    return raw.decode(errors="replace")


def list_nodes(prog: Program, head: Object, limit: int) -> Iterator[int]:
    """Addresses of the nodes of a list_head.

    :raises CannotWalk: the list is corrupt or cannot be read
    """
    address = int(head.address_ or 0)
    previous, node = address, int(head.next)
    for _ in range(limit):
        if node == address:
            return
        current = Object(prog, "struct list_head", address=node)
        if int(current.prev) != previous:
            raise CannotWalk(f"node {node:#x} does not name the one before it")
        yield node
        previous, node = node, int(current.next)
    raise CannotWalk(f"there are more than {limit} nodes")


def super_blocks(prog: Program) -> Iterator[SuperBlock]:
    """All super blocks whose files may lie in device memory.

    :raises CannotWalk: the list cannot be walked to its end
    """
    try:
        type_ = prog.type("struct super_block")
        head = prog["super_blocks"]
        offset, inodes = offsetof(type_, "s_list"), offsetof(type_, "s_inodes")
    except LookupError as err:
        raise CannotWalk(
            f"the debug file does not tell where the super blocks are: {err}"
        ) from None
    try:
        for node in list_nodes(prog, head, _SUPER_BLOCKS_MAX):
            one = Object(prog, type_, address=node - offset)
            kind = _text(prog, int(one.s_type.name))
            if kind not in _NO_DAX:
                device = one.s_id.string_()[:_NAME_MAX].decode(errors="replace")
                yield SuperBlock(node - offset, node - offset + inodes, device, kind)
    except (FaultError, ValueError, OverflowError) as err:
        raise CannotWalk(f"the list of super blocks cannot be read: {err}") from None
    except CannotWalk as err:
        raise CannotWalk(f"the list of super blocks is corrupt: {err}") from None


# ---------------------------------------------------------------- the pass


def _believable_ranges(pagemaps: Iterable[Pagemap], walked: Walked) -> list[tuple[int, int]]:
    """(start, end) of the FS_DAX ranges in rising order, without those that cannot be."""
    wanted: list[tuple[int, int]] = []
    ranges = [(r.start_pfn, r.end_pfn) for p in pagemaps if p.type == _FS_DAX for r in p.ranges]
    for start, end in sorted(ranges):
        if end <= start or end - start > _RANGE_PAGES_MAX or (wanted and start < wanted[-1][1]):
            walked.gap(f"pfns {start:#x}-{end - 1:#x} of a pagemap are no range to go by")
        else:
            wanted.append((start, end))
    return wanted


class DaxWalk:
    """One pass over the entries of all DAX files of a kernel.

    :raises CannotWalk: it cannot be had for this kernel or this dump
    """

    def __init__(
        self,
        prog: Program,
        layout: KernelLayout,
        scheme: _zonedev.Scheme,
        pagemaps: Iterable[Pagemap] = (),
    ) -> None:
        self.prog, self.layout = prog, layout
        self.walked = Walked()
        self._known: dict[int, DaxFile] = {}
        self._files: Optional[list[DaxFile]] = None
        try:
            self.entries = _zonedev.Entries(
                layout.layout,
                scheme,
                reader(prog),
                node=node_spec(prog),
                space=space_spec(prog),
                inode=inode_spec(prog),
            )
        except LookupError as err:
            raise CannotWalk(
                f"files of this kernel hold no xarray of pfns (before 4.20), or the debug file does not say: {err}"
            ) from None
        for start, end in _believable_ranges(pagemaps, self.walked):
            self.entries.range(start, end, layout.page_address(start))

    # ------------------------------------------------------------ files

    def files(self) -> list[DaxFile]:
        """Every DAX inode of every super block, each address_space once.

        :raises CannotWalk: there is no way to the super blocks
        """
        if self._files is None:
            self._files = []
            for super_block in super_blocks(self.prog):
                self._files += self._inodes(super_block)
        return self._files

    def _inodes(self, super_block: SuperBlock) -> list[DaxFile]:
        found, walk = self.entries.inodes(super_block.inodes)
        self.walked.file_systems += 1
        self.walked.inodes += walk["inodes"]
        self.walked.dax_inodes += walk["dax"]
        if walk["why"]:
            self.walked.gap(f"inodes of {super_block}: {walk['why']} ({walk['bad_node']:#x})")
        files = []
        for inode, mapping in found:
            if mapping not in self._known:
                self._known[mapping] = DaxFile(inode, mapping, super_block)
                files.append(self._known[mapping])
        return files

    def _account(self, file: DaxFile, tally: dict[str, Any]) -> bool:
        """Book what the walk of a file met; False where it is not whole."""
        walked = self.walked
        walked.files += tally["entries"] > 0
        for name in walked.counts:
            walked.counts[name] += tally[name]
        why = tally["why"]
        if tally["no_space"]:
            why = "its address_space is not in the dump"
        elif tally["misplaced"]:
            why = f"{tally['misplaced']} entries lie where none of their size can"
        if why and tally["flux"]:
            why = f"its tree was being changed; {why}"
        if why:
            where = f" ({tally['bad_node']:#x})" if tally["bad_node"] else ""
            walked.gap(f"{describe_file(self.prog, file)}: {why}{where}")
        return not why

    def run(self) -> None:
        """Mark the pages of all entries.

        :raises CannotWalk: there is no way to the super blocks
        """
        for file in self.files():
            self._add(file)
        self.entries.complete(not self.walked.gaps)

    def _add(self, file: DaxFile) -> None:
        tally = self.entries.add(file.mapping)
        if not self._account(file, tally) or tally["flux"]:
            self.entries.know(file.mapping, "unknown")

    # ------------------------------------------------------------ entries one by one

    def entries_of(self, file: DaxFile, pfns: Optional[list[int]] = None) -> list[DaxEntry]:
        """The entries of a file; with *pfns* only those that cover one of them."""
        found, _ = self.entries.of(file.mapping, pfns)
        return [
            DaxEntry(
                file,
                index,
                pfn,
                1 << order,
                "L" in flags,
                "P" in flags,
                "Z" in flags,
                "E" in flags,
            )
            for index, pfn, order, flags in found
        ]

    def owners(self, pfns: Iterable[int]) -> list[DaxEntry]:
        """The entries of all files that cover one of the pages."""
        wanted = sorted(set(pfns))
        return [e for file in self.files() for e in self.entries_of(file, wanted)] if wanted else []

    def count(self, file: DaxFile) -> dict[str, Any]:
        """Numbers of a file's entries; `why` says what could not be read of them, or is None."""
        tally = self.entries.of(file.mapping, [])[1]
        if tally["no_space"]:
            tally["why"] = "its address_space is not in the dump"
        return tally

    # ------------------------------------------------------------ mappings that pages name

    def settle(self, mappings: Iterable[int]) -> bool:
        """Look at mapping words of pages that have no entry in any file of a super block.

        An inode that is being evicted is off its super block's list while its pages still name it
        (evict() in fs/inode.c): its entries are added.  Returns whether anything was learned.
        """
        new = [m for m in sorted(set(mappings)) if m not in self._known]
        for mapping in new:
            self._known[mapping] = file = DaxFile(0, mapping, None)
            kind = self._kind(mapping)
            if kind == "plain":
                self._add(file)
            else:
                self.entries.know(mapping, kind)
        if new:
            self.entries.complete(not self.walked.gaps)
        return bool(new)

    def _kind(self, mapping: int) -> str:
        """plain: an address_space of a DAX inode; no-file: certainly not; unknown: cannot be told."""
        read, spec = reader(self.prog), inode_spec(self.prog)
        space = read(mapping, sizeof(self.prog.type("struct address_space")))
        if not space or not any(space):
            return "unknown"
        host = int(Object(self.prog, "struct address_space *", value=mapping).host)
        inode = read(host, spec[0])
        if inode is None:
            # Nothing in the kernel points to memory that nobody has mapped.
            return "unknown" if host >> 63 else "no-file"
        if not any(inode):
            return "unknown"
        one = Object(self.prog, "struct inode", address=host)
        dax = int(one.i_flags) & _S_DAX
        return "plain" if int(one.i_mapping) == mapping and dax else "no-file"


# S_DAX of inode.i_flags: a macro, which debug information lacks; as in the core.
_S_DAX = 1 << 13


# ---------------------------------------------------------------- names


def _path(prog: Program, inode: Object) -> str:
    """The names from the root of the file system to an inode, as far as dentries are cached; or ""."""
    dentries = inode.i_dentry.first.read_()
    if not dentries:
        return ""
    type_ = prog.type("struct dentry")
    # Since commit 3b7d764a37d0 ("struct dentry: make ->d_u anonymous") (in v7.1).
    alias = "d_alias" if type_.has_member("d_alias") else "d_u.d_alias"
    address = int(dentries) - offsetof(type_, alias)
    names: list[str] = []
    for _ in range(_DEPTH_MAX):
        dentry = Object(prog, type_, address=address)
        parent = int(dentry.d_parent)
        if parent == address:
            return "/" + "/".join(reversed(names))
        names.append(_text(prog, int(dentry.d_name.name)))
        address = parent
    return ""


def file_name(prog: Program, file: DaxFile) -> str:
    """Path of a file within its file system, or "" where it is not cached or cannot be read."""
    try:
        return _path(prog, _inode(prog, file))
    except (FaultError, LookupError, AttributeError, ValueError, OverflowError):
        return ""


def _inode(prog: Program, file: DaxFile) -> Object:
    if file.inode:
        return Object(prog, "struct inode", address=file.inode)
    return Object(prog, "struct address_space *", value=file.mapping).host[0]


def inode_number(prog: Program, file: DaxFile) -> Optional[int]:
    """i_ino, or None where it cannot be read."""
    try:
        return int(_inode(prog, file).i_ino)
    except (FaultError, LookupError, AttributeError, ValueError, OverflowError):
        return None


def describe_file(prog: Program, file: DaxFile) -> str:
    """ "inode 13 of pmem0 (ext4), /a/b", as far as that can be read."""
    number = inode_number(prog, file)
    text = f"inode {'?' if number is None else number}"
    if file.super_block:
        text += f" of {file.super_block}"
    name = file_name(prog, file)
    return f"{text}, {name}" if name else text


def describe_entry(prog: Program, entry: DaxEntry, pfn: int) -> str:
    """Whose page a pfn of an entry is: file, page index and what is special about the entry."""
    special = [name for name in ("locked", "pmd") if getattr(entry, name)]
    text = f"{describe_file(prog, entry.file)}, page {entry.index + pfn - entry.pfn:#x}"
    return f"{text} ({', '.join(special)})" if special else text
