# SPDX-License-Identifier: LGPL-2.1-or-later
"""Paths of inodes and open files in made-up memory, whole and corrupt, and mappings in words there and in real cores."""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import VMCORES, fresh_vmcore, open_vmcore
from drgn import Object
from vfs import INTERNAL, Vfs

from zonedev.audit import dax_files
from zonedev.kernel import mapping as mapping_module
from zonedev.kernel import slab
from zonedev.kernel.dax import file_name
from zonedev.kernel.mapping import describe_mapping, mapping_words
from zonedev.kernel.paths import FilePath, inode_path, opened_path, path_in_file_system
from zonedev.kernel.slab import SlabObject, slab_object
from zonedev.model import DevDax

ENTRIES = ["5.10-entries", "6.1-entries", "6.16-entries", "7.2-entries"]


class World(Vfs):
    """pmem0, with dir/file and other, on /mnt/pmem0 if it is mounted there."""

    def __init__(self, new: bool) -> None:
        super().__init__(new)
        mnt = self.dentry("mnt", self.root_fs, self.root)
        self.places = {
            name: self.dentry(name, self.root_fs, mnt) for name in ("pmem0", "bind", "second")
        }
        self.pmem = self.file_system("pmem0", "ext4")
        self.top = self.dentry("/", self.pmem)
        self.dir = self.dentry("dir", self.pmem, self.top)
        self.inode_of_file, self.inode_of_other = self.inode(self.pmem, 13), self.inode(self.pmem)
        self.file = self.dentry("file", self.pmem, self.dir, self.inode_of_file)
        self.other = self.dentry("other", self.pmem, self.top, self.inode_of_other)

    def mounted(self, where: str = "pmem0", root: int = 0, namespace: int = -1) -> int:
        return self.mount(root or self.top, self.root_mount, self.places[where], namespace)

    def path(self, inode: int = 0) -> FilePath:
        return inode_path(self.object("inode", inode or self.inode_of_file))


@pytest.fixture(params=[False, True], ids=["old", "new"])
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param)


# ---------------------------------------------------------------- inodes


def test_a_path_begins_at_the_root_of_the_namespace(world: World) -> None:
    mount = world.mounted()
    assert world.path() == ("/mnt/pmem0/dir/file", False)
    assert str(world.path()) == "/mnt/pmem0/dir/file"
    inner = world.file_system("pmem1", "xfs")
    inode = world.inode(inner)
    top = world.dentry("/", inner)
    world.dentry("deep", inner, top, inode)
    # One that is mounted within, over the first of two that lie on each other.
    below = world.mount(world.dentry("/", world.root_fs), mount, world.dir)
    world.mount(top, below, world.memory.load(world.place("mount", below, "mnt.mnt_root")))
    assert world.path(inode) == ("/mnt/pmem0/dir/deep", False)
    reference = Object(world.prog, "struct inode", address=inode)
    assert inode_path(reference) == world.path(inode)


@pytest.mark.parametrize(
    ("mounts", "path", "other"),
    [
        ([], "pmem0:/dir/file", "pmem0:/other"),
        (["internal", "detached"], "pmem0:/dir/file", "pmem0:/other"),
        (["container"], "/mnt/second/dir/file", "/mnt/second/other"),
        (["bind"], "/mnt/bind/file", "pmem0:/other"),
        (["container", "bind"], "/mnt/bind/file", "/mnt/second/other"),
        (["container", "whole", "bind"], "/mnt/pmem0/dir/file", "/mnt/pmem0/other"),
        (["bind", "internal", "whole"], "/mnt/pmem0/dir/file", "/mnt/pmem0/other"),
        (["whole", "again"], "/mnt/pmem0/dir/file", "/mnt/pmem0/other"),
        (["again", "whole"], "/mnt/second/dir/file", "/mnt/second/other"),
    ],
)
def test_the_mount_that_names_a_file(
    world: World, mounts: list[str], path: str, other: str
) -> None:
    for what in mounts:
        if what == "internal":
            world.mount(world.top, namespace=INTERNAL)
        elif what == "detached":
            world.mounted("second", namespace=0)
        elif what == "container":
            world.mounted("second", namespace=world.new_namespace())
        elif what == "bind":
            world.mounted("bind", world.dir)
        else:
            world.mounted("second" if what == "again" else "pmem0")
    assert world.path().path == path
    assert world.path(world.inode_of_other).path == other


def test_unlinked_files(world: World) -> None:
    world.mounted()
    inode = world.inode(world.pmem, links=0)
    assert world.path(inode) == ("", True)
    world.dentry("gone", world.pmem, world.dir, inode, hashed=False)
    assert world.path(inode) == ("/mnt/pmem0/dir/gone", True)
    assert str(world.path(inode)) == "/mnt/pmem0/dir/gone (deleted)"
    assert world.path(world.inode(world.pmem)) == ("", False)
    # A link is left, though not under the name that is known.
    linked = world.inode(world.pmem, links=1)
    world.dentry("gone", world.pmem, world.top, linked, hashed=False)
    assert world.path(linked) == ("/mnt/pmem0/gone", True)
    world.dentry("there", world.pmem, world.top, linked)
    world.dentry("lost", world.pmem, world.top, linked, hashed=False)
    assert world.path(linked) == ("/mnt/pmem0/there", False)
    # The root of a tree is in no hash, and nobody has unlinked it.
    root = world.inode(world.pmem)
    world.dentry("/", world.pmem, 0, root)
    assert world.path(root) == ("pmem0:/", False)


# ---------------------------------------------------------------- open files


def test_open_files(world: World) -> None:
    mount, container = world.mounted(), world.new_namespace()
    other_root = world.mount(world.dir, namespace=container)
    assert opened_path(world.open(mount, world.file)) == ("/mnt/pmem0/dir/file", False)
    assert opened_path(world.open(mount, world.top)) == ("/mnt/pmem0", False)
    assert opened_path(world.open(world.root_mount, world.root)) == ("/", False)
    # The mount says where, not the best one.
    assert opened_path(world.open(other_root, world.file)) == ("/file", False)
    world.set("dentry", world.file, "d_hash.pprev", 0)
    assert opened_path(world.open(mount, world.file)) == ("/mnt/pmem0/dir/file", True)
    # umount -l
    world.set("mount", mount, "mnt_ns", 0)
    world.set("mount", mount, "mnt_parent", mount)
    assert opened_path(world.open(mount, world.other)) == ("pmem0:/other", False)


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("pipefs", "", "pipe:[1234]"),
        ("sockfs", "TCP", "socket:[1234]"),
        ("anon_inodefs", "[io_uring]", "anon_inode:[io_uring]"),
        ("pidfs", "", "anon_inode:[pidfd]"),
        ("nsfs", "", "mnt:[1234]"),
    ],
)
def test_what_has_no_path_is_called_as_the_kernel_does(
    world: World, kind: str, name: str, expected: str
) -> None:
    file_system = world.file_system(kind, kind)
    inode = world.inode(file_system, 1234)
    operations = world.make("proc_ns_operations", name=world.text("mnt"))
    world.set("inode", inode, "i_private", world.make("ns_common", ops=operations))
    mount = world.mount(world.dentry("/", file_system), namespace=INTERNAL)
    opened = world.open(mount, world.dentry(name, file_system, 0, inode))
    assert opened_path(opened) == (expected, False)
    world.set("dentry", int(opened.f_path.dentry), "d_inode", 0x10)
    assert opened_path(opened).path == (expected if kind in ("anon_inodefs", "pidfs") else "")


def test_a_file_that_never_had_a_name(world: World) -> None:
    memory = world.file_system("tmpfs", "tmpfs")
    mount = world.mount(world.dentry("/", memory), namespace=INTERNAL)
    made = world.dentry("memfd:x", memory, 0, world.inode(memory))
    assert opened_path(world.open(mount, made)) == ("/memfd:x", True)


# ---------------------------------------------------------------- corrupt memory


def test_parents_in_a_circle(world: World) -> None:
    mount = world.mounted()
    world.set("dentry", world.dir, "d_parent", world.file)
    assert world.path() == ("", False)
    assert path_in_file_system(world.object("inode", world.inode_of_file)) == ""
    assert opened_path(world.open(mount, world.file)) == ("", False)
    assert world.path(world.inode_of_other).path == "/mnt/pmem0/other"
    assert world.memory.reads < 30_000


def test_mounts_in_a_circle(world: World) -> None:
    mount = world.mounted()
    world.set("mount", world.root_mount, "mnt_parent", mount)
    world.set("mount", world.root_mount, "mnt_mountpoint", world.dir)
    assert world.path() == ("pmem0:/dir/file", False)
    assert opened_path(world.open(mount, world.file)) == ("", False)
    assert world.memory.reads < 30_000
    # The next best will do.
    world.mount(world.top, namespace=world.new_namespace())
    assert world.path() == ("/dir/file", False)


def test_a_list_of_mounts_without_an_end(world: World) -> None:
    mount = world.mounted(namespace=0)
    if world.new:
        world.set("mount", mount, "mnt_next_for_sb", mount)
    else:
        node = world.place("mount", mount, "mnt_instance")
        world.memory.word(node, node)
    assert world.path() == ("pmem0:/dir/file", False)
    assert world.memory.reads < 30_000
    # What was met before counts.
    world.set("mount", mount, "mnt_ns", world.namespace)
    assert world.path() == ("/mnt/pmem0/dir/file", False)


def test_a_list_of_mounts_that_breaks_off(world: World) -> None:
    first, second = world.mounted(), world.mounted("second")
    last, member = (first, "mnt_next_for_sb") if world.new else (second, "mnt_instance.next")
    world.set("mount", last, member, 0x10)
    assert world.path() == ("/mnt/pmem0/dir/file", False)


def test_aliases_without_an_end(world: World) -> None:
    world.mounted()
    world.set("dentry", world.file, "d_hash.pprev", 0)
    head = world.memory.load(world.place("inode", world.inode_of_file, "i_dentry"))
    world.memory.word(head, head)
    assert world.path() == ("/mnt/pmem0/dir/file", True)
    assert world.memory.reads < 5_000


def test_a_dentry_below_no_mount(world: World) -> None:
    mount = world.mounted()
    loose = world.dentry("dir", world.pmem, world.dentry("x", world.pmem))
    assert opened_path(world.open(mount, loose)) == ("", False)
    assert world.memory.reads < 100


def test_mounts_of_other_parts_do_not_hide_the_one(world: World) -> None:
    for i in range(20):
        world.mounted("second", world.dentry(f"part{i}", world.pmem, world.top))
    world.mounted("bind", world.dir)
    assert world.path() == ("/mnt/bind/file", False)


@pytest.mark.parametrize("depth", [255, 256])
def test_depth_has_a_bound(world: World, depth: int) -> None:
    inode, parent = world.inode(world.pmem), world.top
    for _ in range(depth - 1):
        parent = world.dentry("d", world.pmem, parent)
    world.dentry("f", world.pmem, parent, inode)
    expected = "pmem0:" + "/d" * (depth - 1) + "/f" if depth < 256 else ""
    assert world.path(inode) == (expected, False)


def test_names_are_bounded_and_printable(world: World) -> None:
    world.set("dentry", world.file, "d_name.name", world.text("x" * 1000))
    assert world.path().path == "pmem0:/dir/" + "x" * 256
    world.set("dentry", world.file, "d_name.name", world.text("\x1b[2J\n"))
    assert world.path().path == r"pmem0:/dir/\x1b[2J\n"


@pytest.mark.parametrize("member", ["d_parent", "d_name.name", "d_sb"])
@pytest.mark.parametrize("value", [0, 0x10])
def test_a_pointer_that_leads_nowhere(world: World, member: str, value: int) -> None:
    mount = world.mounted()
    world.set("dentry", world.file, member, value)
    assert world.path() == ("", False)
    assert opened_path(world.open(mount, world.file)).path == ""
    assert opened_path(world.object("file", value)) == ("", False)
    assert inode_path(world.object("inode", value)) == ("", False)


# ---------------------------------------------------------------- mappings in words


def mapping_of(world: World, inode: int) -> int:
    return world.memory.load(world.place("inode", inode, "i_mapping"))


def test_a_mapping_has_the_path_of_its_file(world: World) -> None:
    mapping = mapping_of(world, world.inode_of_file)
    assert describe_mapping(world.prog, mapping) == "inode 13 of pmem0 (ext4)"
    assert mapping_words(world.prog, mapping) == "inode 13 of pmem0 (ext4), pmem0:/dir/file"
    world.mounted()
    assert mapping_words(world.prog, mapping) == "inode 13 of pmem0 (ext4), /mnt/pmem0/dir/file"
    world.set("inode", world.inode_of_file, "i_nlink", 0)
    assert mapping_words(world.prog, mapping).endswith(", /mnt/pmem0/dir/file (deleted)")
    world.set("inode", world.inode_of_file, "i_dentry.first", 0)
    assert mapping_words(world.prog, mapping) == "inode 13 of pmem0 (ext4)"


@pytest.mark.parametrize("mapping", [0, 1, 0x1001, 0x1002, 0x10000])
def test_words_that_stay(world: World, mapping: int) -> None:
    words = mapping_words(world.prog, mapping)
    assert words == describe_mapping(world.prog, mapping)
    assert bool(words) == bool(mapping)


@pytest.mark.parametrize(
    ("found", "words", "lost"),
    [
        (None, "{path}", "{stale}"),
        (SlabObject(0, "ext4_inode_cache", True), "{path}", "{stale}, {lies}"),
        (SlabObject(0, "ext4_inode_cache", None), "{path}", "{stale}, {lies}"),
        (SlabObject(0, "ext4_inode_cache", False), "{freed}", "{freed}"),
    ],
)
def test_a_stale_mapping_says_what_it_is_now(
    world: World, monkeypatch: pytest.MonkeyPatch, found: Any, words: str, lost: str
) -> None:
    mapping = mapping_of(world, world.inode_of_file)
    texts = {
        "path": "inode 13 of pmem0 (ext4), pmem0:/dir/file",
        "stale": f"stale mapping {mapping:#x}: its inode does not point back",
        "lies": "it lies in an object of ext4_inode_cache",
        "freed": f"stale mapping {mapping:#x}: a freed object of ext4_inode_cache",
    }
    monkeypatch.setattr(mapping_module, "slab_object", lambda _prog, _address: found)
    assert mapping_words(world.prog, mapping) == words.format(**texts)
    assert mapping_words(world.prog, mapping + 1) == "anonymous memory"
    world.set("inode", world.inode_of_file, "i_mapping", mapping + 8)
    assert mapping_words(world.prog, mapping) == lost.format(**texts)


def test_a_device_has_its_name(world: World) -> None:
    dax = world.file_system("dax", "dax")
    world.objects["dax_superblock"] = ("struct super_block *", world.put(dax.to_bytes(8, "little")))
    device = world.make("dax_device")
    inode = world.place("dax_device", device, "inode")
    mapping = world.make("address_space", host=inode)
    for member, value in (("i_sb", dax), ("i_mapping", mapping)):
        world.set("inode", inode, member, value)
    name = world.text("dax0.0")
    device_dax = world.make("dev_dax", dax_dev=device, dev__kobj__name=name)
    world.set("dax_device", device, "private", device_dax)
    assert mapping_words(world.prog, mapping) == "inode 0 of dax (dax), dax0.0"
    # A pmem device's keeps something else there.
    world.set("dev_dax", device_dax, "dax_dev", device + 8)
    assert mapping_words(world.prog, mapping) == "inode 0 of dax (dax)"
    world.set("dev_dax", device_dax, "dax_dev", device)
    # The same bytes in another file system are no device.
    world.set("inode", inode, "i_sb", world.pmem)
    assert mapping_words(world.prog, mapping) == "inode 0 of pmem0 (ext4)"


def test_sheaves_of_no_believable_size_are_not_looked_through(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cache:
        cpu_sheaves, name = 1, world.text("inode_cache")

    asked = []

    def info(_prog: object, address: int) -> SlabObject:
        asked.append(address)
        return SlabObject(address, "", False)

    sizes = [60]
    monkeypatch.setattr(slab, "find_containing_slab_cache", lambda _prog, _address: Cache)
    monkeypatch.setattr(slab, "slab_object_info", info)
    monkeypatch.setattr(
        slab, "_sheaves", lambda _: (type("Sheaf", (), {"size": size}) for size in sizes)
    )
    assert slab_object(world.prog, 0x1000) == SlabObject(0x1000, "inode_cache", False)
    sizes.append(1 << 31)
    assert slab_object(world.prog, 0x2000) is None
    assert asked == [0x1000]


# ---------------------------------------------------------------- real cores


def recorded(name: str) -> dict[str, bool]:
    """Paths of all files that the record names, and whether they were unlinked."""
    rows = [json.loads(line) for line in (VMCORES / name / "truth.jsonl").open()]
    paths = {row[key] for row in rows for key in ("path", "to") if key in row}
    gone = {row["path"] for row in rows if row.get("op") == "unlink"}
    return {path: path in gone for path in paths}


@pytest.mark.parametrize("name", ENTRIES)
def test_files_of_real_cores(name: str) -> None:
    """They hold neither mounts nor slabs, and dentries only of files that a finding names and of their neighbours."""
    prog = fresh_vmcore(name).prog
    files, record = list(dax_files(prog)), recorded(name)
    assert len(files) > 40
    named = set()
    for file in files:
        said, words = describe_mapping(prog, file.mapping), mapping_words(prog, file.mapping)
        assert said.endswith(f" of {file.super_block}")
        path = file_name(prog, file)
        if not path:
            assert words == said
            continue
        assert file.super_block is not None
        device = file.super_block.device
        gone = " (deleted)" if record[f"/mnt/{device}{path}"] else ""
        assert words == f"{said}, {device}:{path}{gone}"
        named.add(path)
    if name.startswith("6.1-"):
        assert {"/reflink_a", "/reflink_cached_b", "/unlinked"} < named


def test_devices_of_a_real_core() -> None:
    vmcore = open_vmcore("7.2-entries")
    mappings = {
        p.dev_dax.mapping: p.device for p in vmcore.kernel.pagemaps if isinstance(p.dev_dax, DevDax)
    }
    assert len(mappings) == 4
    words = {mapping_words(vmcore.prog, mapping) for mapping in mappings}
    assert words == {f"inode 0 of dax (dax), {name}" for name in mappings.values()}
