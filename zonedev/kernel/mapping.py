# SPDX-License-Identifier: LGPL-2.1-or-later
"""A folio's mapping word for people: whose page is it?

Follows struct address_space to its inode and super block, believing a pointer only where the inode
points back.  Never fails: what cannot be followed is described as such.
An audit's words (describe_mapping()) go by the inode and the super block alone, as slices hold them; mapping_words() says more
where the kernel's memory has it.
"""

from __future__ import annotations

from typing import Optional

from drgn import Object, Program

from zonedev.kernel.dev_dax import dev_dax_name
from zonedev.kernel.gaps import ERRORS
from zonedev.kernel.paths import inode_path
from zonedev.kernel.slab import slab_object
from zonedev.kernel.strings import text_at, text_of

ANON, TAGS = 1, 3
"""The low bits of a mapping word that make it no pointer to an address_space: of anonymous memory, and all of them."""

_MAX_NAME = 32


def _host(prog: Program, mapping: int) -> Optional[Object]:
    """The ``struct inode *`` of an address_space, None where it does not point back.

    :raises FaultError: it cannot be read
    """
    inode = Object(prog, "struct address_space *", value=mapping).host.read_()
    return inode if inode and int(inode.i_mapping) == mapping else None


def describe_mapping(prog: Program, mapping: int) -> str:
    """ "inode 13 of pmem0 (ext4)", "shared by several files", "anonymous memory", or why not; "" for 0."""
    if not mapping:
        return ""
    if mapping == 1:
        return "shared by several files"
    if mapping & TAGS:
        return "anonymous memory" if mapping & ANON else f"mapping {mapping:#x} with unknown tags"
    try:
        inode = _host(prog, mapping)
        if inode is None:
            return f"stale mapping {mapping:#x}: its inode does not point back"
        super_block = inode.i_sb.read_()
        device = text_of(super_block.s_id.string_()[:_MAX_NAME])
        kind = text_at(prog, int(super_block.s_type.name), _MAX_NAME)
        return f"inode {int(inode.i_ino)} of {device} ({kind})"
    except ERRORS:
        return f"mapping {mapping:#x} cannot be followed"


def host_inode(prog: Program, mapping: int) -> Optional[Object]:
    """The ``struct inode *`` of an address_space, None where it does not point back or cannot be read."""
    try:
        return _host(prog, mapping)
    except ERRORS:
        return None


def mapping_words(prog: Program, mapping: int) -> str:
    """What describe_mapping() says and, as far as that can be told, the path ("inode 13 of pmem0 (ext4),
    /mnt/pmem0/file") or the device ("inode 0 of dax (dax), dax0.0"), or whose memory a lost address_space has become."""
    words = describe_mapping(prog, mapping)
    if not mapping or mapping & TAGS:
        return words
    found = slab_object(prog, mapping)
    if found and found.allocated is False:
        return f"stale mapping {mapping:#x}: a freed object of {found.cache}"
    inode = host_inode(prog, mapping)
    if inode is not None:
        name = dev_dax_name(inode) or str(inode_path(inode))
        return f"{words}, {name}" if name else words
    return f"{words}, it lies in an object of {found.cache}" if found else words
