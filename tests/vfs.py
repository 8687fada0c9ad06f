# SPDX-License-Identifier: LGPL-2.1-or-later
"""Inodes, dentries, mounts and open files in made-up memory, in the forms that kernels have had.

A Vfs is a Program with the types that zonedev/kernel/paths.py and mapping.py ask for, laid out as it suits, and what was allocated.
"""

from __future__ import annotations

from typing import Any, Optional

from drgn import Object, Program, TypeMember, offsetof, sizeof
from made_up import Kernel

FIRST = 0xFFFF888100000000
INTERNAL = (1 << 64) - 22  # MNT_NS_INTERNAL

# Members and how they are spelled, all of them on 8 bytes; one without a name is an anonymous union of members.
Members = dict[str, Any]
_ALIAS = {"d_alias": "struct hlist_node", "d_in_lookup_hash": "struct hlist_bl_node"}
STRUCTS: dict[str, Members] = {
    "list_head": {"next": "struct list_head *", "prev": "struct list_head *"},
    "hlist_head": {"first": "struct hlist_node *"},
    "hlist_node": {"next": "struct hlist_node *", "pprev": "struct hlist_node **"},
    "hlist_bl_node": {"next": "struct hlist_bl_node *", "pprev": "struct hlist_bl_node **"},
    "qstr": {"hash_len": "unsigned long", "name": "const unsigned char *"},
    "path": {"mnt": "struct vfsmount *", "dentry": "struct dentry *"},
    "file_system_type": {"name": "const char *"},
    "super_block": {"s_id": "char [32]", "s_type": "struct file_system_type *"},
    "inode": {
        "i_sb": "struct super_block *",
        "i_ino": "unsigned long",
        "i_nlink": "unsigned int",
        "i_mapping": "struct address_space *",
        "i_dentry": "struct hlist_head",
        "i_private": "void *",
    },
    "address_space": {"host": "struct inode *"},
    "dentry": {
        "d_hash": "struct hlist_bl_node",
        "d_parent": "struct dentry *",
        "d_name": "struct qstr",
        "d_inode": "struct inode *",
        "d_sb": "struct super_block *",
    },
    "vfsmount": {"mnt_root": "struct dentry *", "mnt_sb": "struct super_block *"},
    "mount": {
        "mnt_parent": "struct mount *",
        "mnt_mountpoint": "struct dentry *",
        "mnt": "struct vfsmount",
        "mnt_ns": "struct mnt_namespace *",
        "mnt_id": "int",
    },
    "mnt_namespace": {"root": "struct mount *"},
    "nsproxy": {"mnt_ns": "struct mnt_namespace *"},
    "task_struct": {"nsproxy": "struct nsproxy *"},
    "proc_ns_operations": {"name": "const char *"},
    "ns_common": {"ops": "struct proc_ns_operations *"},
    "kobject": {"name": "const char *"},
    "device": {"kobj": "struct kobject"},
    "dax_device": {"private": "void *", "inode": "struct inode"},
    "dev_dax": {"dax_dev": "struct dax_device *", "dev": "struct device"},
    "file": {},
}
OLD: dict[str, Members] = {
    "super_block": {"s_mounts": "struct list_head"},
    "mount": {"mnt_instance": "struct list_head"},
    "dentry": {"d_u": _ALIAS},
    "file": {"f_path": "struct path"},
}
NEW: dict[str, Members] = {
    "super_block": {"s_mounts": "struct mount *"},
    "mount": {"mnt_next_for_sb": "struct mount *", "mnt_pprev_for_sb": "struct mount **"},
    "dentry": {"": _ALIAS},
    "file": {"": {"f_path": "const struct path", "__f_path": "struct path"}},
}


class Vfs(Kernel):
    """A kernel with a root file system ("rootfs", mounted on /) and whatever else is made."""

    def __init__(self, new: bool) -> None:
        super().__init__()
        self.new, self.forms = new, NEW if new else OLD
        self._next = FIRST
        self.ids = 0
        self.namespace = self.new_namespace()
        proxy = self.make("nsproxy", mnt_ns=self.namespace)
        self.objects["init_task"] = ("struct task_struct", self.make("task_struct", nsproxy=proxy))
        self.root_fs = self.file_system("rootfs", "rootfs")
        self.root = self.dentry("/", self.root_fs)
        self.root_mount = self.mount(self.root)

    # ------------------------------------------------------------ the Program

    def _members(self, prog: Program, members: Members) -> tuple[list[TypeMember], int]:
        made, at = [], 0
        for name, spelled in members.items():
            if isinstance(spelled, dict):
                every = [self._members(prog, {one: text}) for one, text in spelled.items()]
                size = max(size for _, size in every)
                type_: Any = prog.union_type(None, size, [one for (one,), _ in every])
            else:
                type_ = self.late(prog, spelled)
                size = 8 if spelled.endswith("*") else sizeof(type_())
            made.append(TypeMember(type_, name or None, 8 * at))
            at += -(-size // 8) * 8
        return made, at

    def _find_type(self, prog: Program, _kinds: Any, name: str, _file: Optional[str]) -> Any:
        if name not in STRUCTS:
            return None
        members, size = self._members(prog, {**STRUCTS[name], **self.forms.get(name, {})})
        return prog.struct_type(name, size, members)

    # ------------------------------------------------------------ memory

    def put(self, data: bytes) -> int:
        address = self._next
        self._next += len(data) + 64 & ~7
        self.memory.put(address, data)
        return address

    def text(self, text: str) -> int:
        return self.put(text.encode() + b"\0")

    def place(self, kind: str, address: int, member: str) -> int:
        return address + int(offsetof(self.prog.type(f"struct {kind}"), member))

    def set(self, kind: str, address: int, member: str, value: int) -> None:
        self.memory.word(self.place(kind, address, member), value)

    def make(self, kind: str, **members: int) -> int:
        """A struct of a kind; ``a__b`` is the member ``a.b``."""
        address = self.put(bytes(sizeof(self.prog.type(f"struct {kind}"))))
        for name, value in members.items():
            self.set(kind, address, name.replace("__", "."), value)
        return address

    def object(self, kind: str, address: int) -> Object:
        return Object(self.prog, f"struct {kind} *", value=address)

    # ------------------------------------------------------------ file systems

    def new_namespace(self) -> int:
        return self.make("mnt_namespace")

    def file_system(self, device: str, kind: str) -> int:
        type_ = self.make("file_system_type", name=self.text(kind))
        address = self.make("super_block", s_type=type_)
        start, piece = self.memory.find(self.place("super_block", address, "s_id"))
        at = self.place("super_block", address, "s_id") - start
        piece[at : at + 32] = device.encode().ljust(32, b"\0")
        if not self.new:
            head = self.place("super_block", address, "s_mounts")
            self.memory.word(head, head)
            self.memory.word(head + 8, head)
        return address

    def inode(self, super_block: int, number: int = 7, links: int = 1) -> int:
        inode = self.make("inode", i_sb=super_block, i_ino=number, i_nlink=links)
        self.set("inode", inode, "i_mapping", self.make("address_space", host=inode))
        return inode

    def dentry(
        self, name: str, super_block: int, parent: int = 0, inode: int = 0, hashed: bool = True
    ) -> int:
        """One that is the first alias of *inode*; its own parent without *parent*."""
        address = self.make("dentry", d_sb=super_block, d_name__name=self.text(name), d_inode=inode)
        self.set("dentry", address, "d_parent", parent or address)
        if parent and hashed:
            self.set("dentry", address, "d_hash.pprev", FIRST)
        if inode:
            head = self.place("inode", inode, "i_dentry")
            alias = self.place("dentry", address, "d_alias" if self.new else "d_u.d_alias")
            self.memory.word(alias, self.memory.load(head))
            self.memory.word(head, alias)
        return address

    def mount(self, root: int, parent: int = 0, at: int = 0, namespace: int = -1) -> int:
        """A mount of what is below *root* at a dentry of *parent*, in init's namespace if not told; the file system's
        last."""
        super_block = self.memory.load(self.place("dentry", root, "d_sb"))
        self.ids += 1
        namespace = self.namespace if namespace < 0 else namespace
        words = {"mnt_ns": namespace, "mnt__mnt_root": root, "mnt__mnt_sb": super_block}
        mount = self.make("mount", mnt_mountpoint=at, mnt_id=self.ids, **words)
        self.set("mount", mount, "mnt_parent", parent or mount)
        head = self.place("super_block", super_block, "s_mounts")
        if self.new:
            self.set("mount", mount, "mnt_next_for_sb", self.memory.load(head))
            self.memory.word(head, mount)
        else:
            node, last = self.place("mount", mount, "mnt_instance"), self.memory.load(head + 8)
            for where, value in ((node, head), (node + 8, last), (last, node), (head + 8, node)):
                self.memory.word(where, value)
        return mount

    def open(self, mount: int, dentry: int) -> Object:
        """A ``struct file *``."""
        words = {"mnt": self.place("mount", mount, "mnt"), "dentry": dentry}
        file = self.make("file")
        for name, value in words.items():
            self.set("file", file, f"f_path.{name}", value)
        return self.object("file", file)
