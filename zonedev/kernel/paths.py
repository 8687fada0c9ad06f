# SPDX-License-Identifier: LGPL-2.1-or-later
"""The path of an inode or of an open file, with the mount point before it, as its users know it.

Owns the way from dentries over mounts up to the root of a mount namespace.  Never fails: what cannot be read, or
does not come to an end, has no path ("").  What the inode is a file of is for others (mapping.py, dax.py).

Invariant: every walk takes a bounded number of steps, whatever the memory holds.
Mirrors fs/d_path.c (prepend_path(), simple_dname()), fs/mount.h, fs/pipe.c, net/socket.c, fs/anon_inodes.c, fs/nsfs.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple, Optional

from drgn import Object, TypeKind, container_of, offsetof
from drgn.helpers.linux.list import list_for_each_entry

from zonedev.kernel.gaps import ERRORS
from zonedev.kernel.strings import text_at, text_of

# NAME_MAX and a NUL.
_NAME_MAX = 256
_DEPTH_MAX = 256
# Names and mounts from a file up to the root of its namespace.
_STEPS_MAX = 1024
_ALIASES_MAX = 64
_MOUNTS_MAX = 1024
# Mounts of one file system that are followed to the root, best first.
_TRIES_MAX = 4

# Pointers from here on are errors: MAX_ERRNO of include/linux/err.h.
_ERR_PTR = (1 << 64) - 4095


class FilePath(NamedTuple):
    """Where a file is, or was."""

    path: str
    """The whole path ("/mnt/pmem0/dir/file"); "pmem0:/dir/file" where only the path in its file system is known or the
    file system is not mounted (any more); a name like "pipe:[1234]"; "" where it is not known."""
    deleted: bool
    """It was unlinked: nobody finds it by this name."""

    def __str__(self) -> str:
        return f"{self.path} (deleted)" if self.path and self.deleted else self.path


# ---------------------------------------------------------------- dentries


def _name(dentry: Object) -> str:
    return text_at(dentry.prog_, int(dentry.d_name.name), _NAME_MAX)


def _is_unlinked(dentry: Object) -> bool:
    """As d_unlinked(): it is in no hash, and no root, which never is in one."""
    return not dentry.d_hash.pprev and dentry.d_parent != dentry


def _aliases(inode: Object) -> Iterator[Object]:
    """The cached ``struct dentry *`` of an inode, at most _ALIASES_MAX."""
    prog = inode.prog_
    node = inode.i_dentry.first.read_()
    if not node:
        return
    type_ = prog.type("struct dentry")
    # Since commit 3b7d764a37d0 ("struct dentry: make ->d_u anonymous") (in v7.1).
    alias = "d_alias" if type_.has_member("d_alias") else "d_u.d_alias"
    offset = offsetof(type_, alias)
    for _ in range(_ALIASES_MAX):
        if not node:
            return
        yield Object(prog, prog.pointer_type(type_), value=int(node) - offset)
        node = node.next.read_()


def _alias(inode: Object) -> Optional[Object]:
    """The dentry to name an inode by: one that can be found, where there are several; None where none is cached."""
    found = list(_aliases(inode))
    if len(found) > 1:
        return next((one for one in found if not _is_unlinked(one)), found[0])
    return found[0] if found else None


def _way_up(dentry: Object) -> list[Object]:
    """
    A dentry and what is above it, the root of its tree last.

    :raises ValueError: there is no end
    """
    way = []
    for _ in range(_DEPTH_MAX):
        way.append(dentry)
        parent = dentry.d_parent.read_()
        if parent == dentry:
            return way
        dentry = parent
    raise ValueError(f"more than {_DEPTH_MAX} dentries")


def _path(way: list[Object]) -> str:
    return "/" + "/".join(_name(dentry) for dentry in reversed(way[:-1]))


def path_in_file_system(inode: Object) -> str:
    """The names from the root of its file system to a ``struct inode``, or "" where they are not cached or cannot be
    read."""
    try:
        dentry = _alias(inode)
        return _path(_way_up(dentry)) if dentry is not None else ""
    except ERRORS:
        return ""


# ---------------------------------------------------------------- mounts


def _mounts(super_block: Object) -> Iterator[Object]:
    """The ``struct mount *`` of a super block, at most _MOUNTS_MAX."""
    mounts = super_block.s_mounts
    # Since commit 09a1b33c080f ("preparations to taking MNT_WRITE_HOLD out of ->mnt_flags") (in v6.18).
    if mounts.type_.kind == TypeKind.POINTER:
        mount = mounts.read_()
        for _ in range(_MOUNTS_MAX):
            if not mount:
                return
            yield mount
            mount = mount.mnt_next_for_sb.read_()
    else:
        every = list_for_each_entry("struct mount", mounts.address_of_(), "mnt_instance")
        yield from islice(every, _MOUNTS_MAX)


def _is_mounted(mount: Object) -> bool:
    """Whether it is in a mount namespace: neither taken out of it nor the kernel's own (MNT_NS_INTERNAL)."""
    return 0 < int(mount.mnt_ns) < _ERR_PTR


def _first_namespace(mount: Object) -> int:
    """The mount namespace that init was started in, or 0."""
    try:
        return int(mount.prog_["init_task"].nsproxy.mnt_ns)
    except ERRORS:
        return 0


def _mounts_above(way: list[Object]) -> list[Object]:
    """Mounts that a dentry can be reached through, best first, and not many.

    Init's namespace comes before those of containers, the whole file system before a part of it, and an old mount
    before a new one.
    """
    above = {int(dentry) for dentry in way}
    root = int(way[-1])
    found = []
    try:
        for mount in _mounts(way[0].d_sb):
            at = int(mount.mnt.mnt_root)
            if at in above and _is_mounted(mount):
                elsewhere = int(mount.mnt_ns) != _first_namespace(mount)
                found.append((elsewhere, at != root, int(mount.mnt_id), mount))
    except ERRORS:
        pass
    return [row[-1] for row in sorted(found, key=lambda row: row[:-1])[:_TRIES_MAX]]


def _whole_path(mount: Object, dentry: Object) -> str:
    """
    The path of a dentry from the root of the namespace that a mount is in, or from what is not mounted anywhere.

    :raises ValueError: it does not lie below the root of the mount, or there is no end
    """
    names: list[str] = []
    for _ in range(_STEPS_MAX):
        if dentry == mount.mnt.mnt_root:
            parent = mount.mnt_parent.read_()
            if parent == mount:
                path = "/" + "/".join(reversed(names))
                return path if _is_mounted(mount) else _unmounted(dentry, path)
            dentry, mount = mount.mnt_mountpoint.read_(), parent
            continue
        parent = dentry.d_parent.read_()
        if parent == dentry:
            raise ValueError("it does not lie below the root of its mount")
        names.append(_name(dentry))
        dentry = parent
    raise ValueError(f"more than {_STEPS_MAX} dentries and mounts")


def _unmounted(dentry: Object, path: str) -> str:
    """A path in a file system that is mounted nowhere, or not known to be."""
    device = text_of(dentry.d_sb.s_id.string_()[:_NAME_MAX])
    return f"{device}:{path}"


def _path_of(dentry: Object) -> str:
    """The path of a dentry of no certain mount."""
    way = _way_up(dentry)
    for mount in _mounts_above(way):
        try:
            return _whole_path(mount, dentry)
        except ERRORS:
            continue
    return _unmounted(dentry, _path(way))


def _has_no_links(inode: Object) -> bool:
    try:
        return not inode.i_nlink
    except ERRORS:
        return False


def inode_path(inode: Object) -> FilePath:
    """The path of a ``struct inode`` by one of its cached dentries and one of the mounts of its file system: of init's
    namespace, where it is mounted there."""
    unlinked = _has_no_links(inode)
    try:
        dentry = _alias(inode)
        if dentry is None:
            return FilePath("", unlinked)
        return FilePath(_path_of(dentry), unlinked or _is_unlinked(dentry))
    except ERRORS:
        return FilePath("", unlinked)


# ---------------------------------------------------------------- open files


def _numbered(kind: str) -> Callable[[Object], str]:
    return lambda dentry: f"{kind}:[{int(dentry.d_inode.i_ino)}]"


def _namespace(dentry: Object) -> str:
    inode = dentry.d_inode
    namespace = Object(inode.prog_, "struct ns_common *", value=int(inode.i_private))
    kind = text_at(inode.prog_, int(namespace.ops.name), _NAME_MAX)
    return f"{kind}:[{int(inode.i_ino)}]"


# File systems whose files have no place, and what /proc/PID/fd calls them (d_dname of struct dentry_operations).
_NAMELESS: dict[str, Callable[[Object], str]] = {
    "anon_inodefs": lambda dentry: f"anon_inode:{_name(dentry)}",
    "nsfs": _namespace,
    "pidfs": lambda dentry: "anon_inode:[pidfd]",
    "pipefs": _numbered("pipe"),
    "sockfs": _numbered("socket"),
}


def _opened(path: Object) -> FilePath:
    """What a ``struct path`` names."""
    dentry = path.dentry.read_()
    kind = text_at(dentry.prog_, int(dentry.d_sb.s_type.name), _NAME_MAX)
    if kind in _NAMELESS:
        return FilePath(_NAMELESS[kind](dentry), False)
    mount = container_of(path.mnt, "struct mount", "mnt")
    if dentry.d_parent == dentry and dentry != mount.mnt.mnt_root:
        # Made to be opened and never linked, as by memfd_create(): simple_dname().
        return FilePath(f"/{_name(dentry)}", True)
    return FilePath(_whole_path(mount, dentry), _is_unlinked(dentry))


def opened_path(file: Object) -> FilePath:
    """What a ``struct file *`` was opened by, as /proc/PID/fd shows it to a task of the same mount namespace that has
    the namespace's root for its own."""
    try:
        return _opened(file.f_path)
    except ERRORS:
        return FilePath("", False)
