# SPDX-License-Identifier: LGPL-2.1-or-later
"""A folio's mapping word for people: whose page is it?

Follows struct address_space to its inode and super block, believing a pointer only where the inode
points back.  Never fails: what cannot be followed is described as such.
"""

from __future__ import annotations

from drgn import FaultError, Object, Program

from zonedev.kernel.strings import text_of

_ANON = 1
_TAGS = 3
_MAX_NAME = 32


def describe_mapping(prog: Program, mapping: int) -> str:
    """ "inode 13 of pmem0 (ext4)", "shared by several files", "anonymous memory", or why not; "" for 0."""
    if not mapping:
        return ""
    if mapping == 1:
        return "shared by several files"
    if mapping & _TAGS:
        return "anonymous memory" if mapping & _ANON else f"mapping {mapping:#x} with unknown tags"
    try:
        inode = Object(prog, "struct address_space *", value=mapping).host.read_()
        if not inode or int(inode.i_mapping) != mapping:
            return f"stale mapping {mapping:#x}: its inode does not point back"
        super_block = inode.i_sb.read_()
        device = text_of(super_block.s_id.string_()[:_MAX_NAME])
        kind = prog.read_c_string(int(super_block.s_type.name), max_size=_MAX_NAME)
        return f"inode {int(inode.i_ino)} of {device} ({text_of(kind)})"
    except (FaultError, LookupError, AttributeError, TypeError, ValueError, OverflowError):
        return f"mapping {mapping:#x} cannot be followed"
