# SPDX-License-Identifier: LGPL-2.1-or-later
"""The files' side of FS_DAX: which DAX inodes there are, and which pages their entries name.

Owns the way from the super blocks to the trees of DAX files, and what of it could not be read (gaps):
of a pagemap that files of a gap's file system may lie in, "no entry" is never concluded.  The walks of inodes and trees, and what is kept of
them, are the core's (ext/core/entries.h); judging is that of its rules.

Invariant: every list is walked by nodes that name the one before them, so that it ends.
Mirrors fs/super.c (super_blocks), fs/inode.c (s_inodes), fs/dax.c.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Optional

from drgn import FaultError, Object, Program, offsetof, sizeof

from zonedev import _zonedev
from zonedev.errors import TargetError
from zonedev.kernel.gaps import note
from zonedev.kernel.layout import KernelLayout
from zonedev.kernel.paths import path_in_file_system
from zonedev.kernel.strings import text_at, text_of
from zonedev.model import FS_DAX, Pagemap

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

# Their files lie on the device that they are mounted from, whatever else they use (a journal, say).
_ONE_DEVICE = frozenset(("ext2", "ext4"))

_SUPER_BLOCKS_MAX = 1 << 16
_NAME_MAX = 256

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
    # It is mounted from a block device, which device (s_id) names.
    block: bool

    def __str__(self) -> str:
        return f"{self.device} ({self.kind})"


def _is_part(device: str, disk: str) -> bool:
    """Whether a block device is a disk or a partition of it."""
    return re.fullmatch(re.escape(disk) + r"(p\d+)?", device) is not None


def may_lie_on(
    one: Optional[SuperBlock],
    disk: Optional[str],
    mounted: Iterable[SuperBlock],
    disks: Iterable[str],
) -> bool:
    """Whether files of a file system may have pages on a disk; yes, where that cannot be told.

    A file system claims its block devices for itself (FMODE_EXCL), xfs its realtime device, too, and a
    device mapper what it maps: of a disk that is mounted as a whole there is one file system.

    :param one: None, where it is not known which file system it is
    :param mounted: all super blocks
    :param disks: names of all disks with DAX pages
    """
    if one is None or disk is None or (one.block and _is_part(one.device, disk)):
        return True
    if one.block and one.kind in _ONE_DEVICE and any(_is_part(one.device, d) for d in disks):
        return False
    return not any(other.block and other.device == disk for other in mounted)


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
    # File systems with gaps (None: one that is not known), and pagemaps that are not marked at all.
    partial: set[Optional[SuperBlock]] = field(default_factory=set)
    unmarked: set[int] = field(default_factory=set)

    def gap(self, text: str) -> None:
        """Note what could not be read, once; of many, that there are more."""
        note(self.gaps, text)


# ---------------------------------------------------------------- where members lie


def node_spec(prog: Program) -> tuple[int, ...]:
    """Where the members of struct xa_node lie, in bytes, as the core's Entries takes them.

    :raises LookupError: types and symbols do not tell
    """
    node = prog.type("struct xa_node")
    slots = node.member("slots").type.length or 0
    members = ("shift", "offset", "count", "parent", "array", "slots")
    return sizeof(node), slots, *(offsetof(node, name) for name in members)


def _why_no_trees(prog: Program, err: Exception) -> str:
    """Why entries cannot be found in the memory of this kernel."""
    try:
        space = prog.type("struct address_space")
        names = {member.name for member in space.members or ()}
        old = "i_pages" not in names or space.member("i_pages").type.type_name() != "struct xarray"
        if names and old:
            return "files of this kernel hold no xarray of pfns (before 4.20)"
    except LookupError:
        pass
    return f"types and symbols do not tell how files hold their pages: {err}"


def space_spec(prog: Program) -> tuple[int, ...]:
    """Where the members of struct address_space lie, in bytes, as the core's Entries takes them.

    :raises LookupError: types and symbols do not tell
    """
    space = prog.type("struct address_space")
    # Since commit f8d5d0cc145c ("xarray: Add definition of struct xarray") (in v4.20).
    host, xarray = offsetof(space, "host"), offsetof(space, "i_pages")
    head, lock = offsetof(space, "i_pages.xa_head"), offsetof(space, "i_pages.xa_lock")
    return max(host, head) + 8, host, xarray, head, lock


def inode_spec(prog: Program) -> tuple[int, ...]:
    """Where the members of struct inode lie, in bytes, as the core's Entries takes them.

    :raises LookupError: types and symbols do not tell
    """
    inode = prog.type("struct inode")
    places = tuple(offsetof(inode, name) for name in ("i_sb_list", "i_mapping", "i_flags"))
    return max(places) + 16, *places


def memory_reader(prog: Program) -> Callable[[int, int], Optional[bytes]]:
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
    except (LookupError, TypeError) as err:
        raise CannotWalk(
            f"types and symbols do not tell where the super blocks are: {err}"
        ) from None
    try:
        for node in list_nodes(prog, head, _SUPER_BLOCKS_MAX):
            one = Object(prog, type_, address=node - offset)
            kind = text_at(prog, int(one.s_type.name), _NAME_MAX)
            if kind not in _NO_DAX:
                device = text_of(one.s_id.string_()[:_NAME_MAX])
                block = bool(one.s_bdev)
                yield SuperBlock(node - offset, node - offset + inodes, device, kind, block)
    except (LookupError, AttributeError, TypeError) as err:
        raise CannotWalk(f"types and symbols do not tell what super blocks are: {err}") from None
    except (FaultError, ValueError, OverflowError) as err:
        raise CannotWalk(f"the list of super blocks cannot be read: {err}") from None
    except CannotWalk as err:
        raise CannotWalk(f"the list of super blocks is corrupt: {err}") from None


# ---------------------------------------------------------------- the pass


def _believable_ranges(pagemaps: Iterable[Pagemap], walked: Walked) -> list[tuple[int, int]]:
    """(start, end) of the FS_DAX ranges in rising order, without those that cannot be."""
    wanted: list[tuple[int, int]] = []
    ranges = [(r.start_pfn, r.end_pfn, p.address) for p in pagemaps for r in p.ranges]
    for start, end, pagemap in sorted(ranges):
        if end <= start or end - start > _RANGE_PAGES_MAX or (wanted and start < wanted[-1][1]):
            walked.gap(f"pfns {start:#x}-{end - 1:#x} of a pagemap are no range to go by")
            walked.unmarked.add(pagemap)
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
        self._super_blocks: list[SuperBlock] = []
        self._pagemaps = [p for p in pagemaps if p.type == FS_DAX]
        try:
            self.entries = _zonedev.Entries(
                layout.layout,
                scheme,
                memory_reader(prog),
                node=node_spec(prog),
                space=space_spec(prog),
                inode=inode_spec(prog),
            )
        except (LookupError, TypeError, ValueError, OverflowError) as err:
            raise CannotWalk(_why_no_trees(prog, err)) from None
        for start, end in _believable_ranges(self._pagemaps, self.walked):
            self.entries.range(start, end, layout.page_address(start))

    # ------------------------------------------------------------ files

    def files(self) -> list[DaxFile]:
        """Every DAX inode of every super block, each address_space once.

        :raises CannotWalk: there is no way to the super blocks
        """
        if self._files is None:
            self._super_blocks = list(super_blocks(self.prog))
            self._files = [file for one in self._super_blocks for file in self._inodes(one)]
        return self._files

    def _inodes(self, super_block: SuperBlock) -> list[DaxFile]:
        found, walk = self.entries.inodes(super_block.inodes)
        self.walked.file_systems += 1
        self.walked.inodes += walk["inodes"]
        self.walked.dax_inodes += walk["dax"]
        if walk["why"]:
            self.walked.gap(f"inodes of {super_block}: {walk['why']} ({walk['bad_node']:#x})")
            self.walked.partial.add(super_block)
        files = []
        for inode, mapping in found:
            if mapping not in self._known:
                self._known[mapping] = DaxFile(inode, mapping, super_block)
                files.append(self._known[mapping])
        return files

    def _check(self, file: DaxFile, tally: dict[str, Any]) -> bool:
        """Whether the walk of a file was whole; what was not is a gap."""
        why = tally["why"]
        if tally["no_space"]:
            why = "its address_space is not in the dump"
        elif tally["misplaced"]:
            why = f"{tally['misplaced']} entries lie where none of their size can"
        if why and tally["flux"]:
            why = f"its tree was being changed; {why}"
        if why:
            where = f" ({tally['bad_node']:#x})" if tally["bad_node"] else ""
            self.walked.gap(f"{describe_file(self.prog, file)}: {why}{where}")
            self.walked.partial.add(file.super_block)
        return not why

    def _account(self, file: DaxFile, tally: dict[str, Any]) -> bool:
        """Book what the walk of a file met; False where it is not whole."""
        walked = self.walked
        walked.files += tally["entries"] > 0
        for name in walked.counts:
            walked.counts[name] += tally[name]
        return self._check(file, tally)

    def run(self) -> None:
        """Mark the pages of all entries.

        :raises CannotWalk: there is no way to the super blocks
        """
        for file in self.files():
            self._add(file)
        self._conclude()

    def is_complete(self, pagemap: Pagemap) -> bool:
        """Whether every entry that may name a page of an FS_DAX pagemap was read."""
        disks = [p.device for p in self._pagemaps if p.device]
        return pagemap.address not in self.walked.unmarked and not any(
            may_lie_on(one, pagemap.device, self._super_blocks, disks)
            for one in self.walked.partial
        )

    def _conclude(self) -> None:
        """Let it be said that pages lack an entry, of the pagemaps that are known completely."""
        for pagemap in self._pagemaps:
            if pagemap.address not in self.walked.unmarked:
                for range_ in pagemap.ranges:
                    self.entries.complete(self.is_complete(pagemap), range_.start_pfn)

    def _add(self, file: DaxFile) -> None:
        tally = self.entries.add(file.mapping)
        if not self._account(file, tally) or tally["flux"]:
            self.entries.know(file.mapping, "unknown")

    # ------------------------------------------------------------ entries one by one

    def entries_of(self, file: DaxFile, pfns: Optional[list[int]] = None) -> list[DaxEntry]:
        """The entries of a file; with *pfns* only those that cover one of them.

        :raises TargetError: there are too many (16 million) for a list
        """
        try:
            found, tally = self.entries.of(file.mapping, pfns)
        except (ValueError, MemoryError) as err:
            name = describe_file(self.prog, file)
            raise TargetError(
                f"{name}: its entries cannot be listed: {err or 'no memory'}"
            ) from None
        self._check(file, tally)
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
        self._check(file, tally)
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
            kind = self._kind(mapping)
            home = self._home(mapping) if kind == "plain" else None
            self._known[mapping] = file = DaxFile(0, mapping, home)
            if kind == "plain":
                self._add(file)
            else:
                self.entries.know(mapping, kind)
        if new:
            self._conclude()
        return bool(new)

    def _home(self, mapping: int) -> Optional[SuperBlock]:
        """The file system of an inode that no super block lists, or None where it is none of them."""
        try:
            host = Object(self.prog, "struct address_space *", value=mapping).host
            address = int(host.i_sb)
        except (FaultError, LookupError, AttributeError):
            return None
        return next((one for one in self._super_blocks if one.address == address), None)

    def _kind(self, mapping: int) -> str:
        """plain: an address_space of a DAX inode; no-file: certainly not; unknown: cannot be told."""
        read, spec = memory_reader(self.prog), inode_spec(self.prog)
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


def file_name(prog: Program, file: DaxFile) -> str:
    """Path of a file within its file system, or "" where it is not cached or cannot be read."""
    try:
        return path_in_file_system(_inode(prog, file))
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
