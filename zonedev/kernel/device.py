# SPDX-License-Identifier: LGPL-2.1-or-later
"""The device behind a pagemap, by the name that its users know: pmem0, dax0.0, a PCI address.

Two sources need only the types of vmlinux: the tree of struct resource, whose names drivers choose
(namespace0.0, dax0.0, 0000:00:03.0), and the list of disks, whose private_data is the pmem device.
Neither is indispensable: what cannot be read leaves the name out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple, Optional

from drgn import FaultError, Object, Program
from drgn.helpers.linux.block import disk_name, for_each_disk
from drgn.helpers.linux.device import class_to_subsys

from zonedev.kernel.gaps import ERRORS
from zonedev.kernel.strings import text_at, text_of

# Bounds for a tree out of an untrusted dump.
_MAX_RESOURCES = 100_000
_MAX_DEPTH = 32
_MAX_DISKS = 10_000
_MAX_CLASSES = 10_000
_MAX_DEVICES = 100_000

# Bytes of a name that are believed.
_MAX_NAME = 128

_PCI_ADDRESS = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")

# struct pmem_device embeds its dev_pagemap and begins with the physical address.
_PMEM_DEVICE_MAX = 4096


class _Resource(NamedTuple):
    start: int
    end: int
    depth: int
    name: str


class _Disk(NamedTuple):
    name: str
    private: int
    first_word: Optional[int]


def _name(pointer: Object) -> str:
    """The string at a ``char *``, bounded; empty where it cannot be read."""
    try:
        return text_at(pointer.prog_, int(pointer), _MAX_NAME)
    except FaultError:
        return ""


def read_resources(prog: Program) -> list[_Resource]:
    """All resources below iomem_resource, parents before children; [] where they cannot be read."""
    resources: list[_Resource] = []
    try:
        stack = [(prog["iomem_resource"].child.read_(), 0)]
    except (KeyError, LookupError, FaultError):
        return []
    while stack and len(resources) < _MAX_RESOURCES:
        node, depth = stack.pop()
        if not node or depth > _MAX_DEPTH:
            continue
        try:
            name = _name(node.name) if node.name else ""
            resources.append(_Resource(int(node.start), int(node.end), depth, name))
            stack.append((node.sibling.read_(), depth))
            stack.append((node.child.read_(), depth + 1))
        except FaultError:
            continue
    return resources


def _is_endless(head: Object, limit: int) -> bool:
    """True where a list (*head* is its ``struct list_head``) does not come back to its head."""
    address, node = int(head.address_ or 0), head.next.read_()
    for _ in range(limit):
        if int(node) == address:
            return False
        node = node.next.read_()
    return True


def disks_are_lost(prog: Program) -> bool:
    """True where one of the lists that looking for disks walks does not come to an end: first that of
    classes, then that of block devices, of which partitions are skipped without an end.

    Since commit 2df418cf4b72 ("driver core: class: remove subsystem private pointer from struct class")
    (in v6.4) a class is found in class_kset.
    """
    try:
        if _is_endless(prog["class_kset"].list, _MAX_CLASSES):
            return True
    except (LookupError, AttributeError, FaultError):
        pass
    try:
        devices = class_to_subsys(prog["block_class"].address_of_()).klist_devices.k_list
        return _is_endless(devices, _MAX_DEVICES)
    except (LookupError, AttributeError, FaultError):
        return False


def each_disk(prog: Program) -> Iterator[Object]:
    """Every ``struct gendisk *``, a bounded number; none where a list of them does not come to its end."""
    if not disks_are_lost(prog):
        yield from islice(for_each_disk(prog), _MAX_DISKS)


def read_disks(prog: Program) -> list[_Disk]:
    """All disks with their private_data; [] where the kernel's types or memory do not give them."""
    disks: list[_Disk] = []
    try:
        for disk in each_disk(prog):
            private = int(disk.private_data)
            try:
                word: Optional[int] = prog.read_u64(private) if private else None
            except FaultError:
                word = None
            disks.append(_Disk(text_of(disk_name(disk)), private, word))
    except ERRORS:
        pass
    return disks


class DeviceNames:
    """Names of the devices of one kernel, read once."""

    def __init__(self, prog: Program) -> None:
        self._resources = read_resources(prog)
        self._disks = read_disks(prog)

    def resource(self, start: int, end: int) -> Optional[str]:
        """Name of the resource behind the bytes [start, end]: the deepest that shares most of them.

        A devdax pagemap spans the namespace's info block and the device: the device is larger.
        """
        shared = [
            (r.depth, min(r.end, end) - max(r.start, start), r.name)
            for r in self._resources
            if r.name and r.start <= end and start <= r.end
        ]
        return max(shared)[2] if shared else None

    def pci(self, start: int, end: int) -> Optional[str]:
        """Address of the PCI device in whose BAR the bytes [start, end] lie."""
        for r in self._resources:
            if r.start <= start and end <= r.end and _PCI_ADDRESS.fullmatch(r.name):
                return r.name
        return None

    def disk(self, pgmap: int, owner: int, start: int) -> Optional[str]:
        """Name of the pmem disk of a pagemap.

        Newer kernels (6.1) name the struct pmem_device as the owner; before, the pagemap lies
        inside of it, and its first word is the physical address.
        """
        for disk in self._disks:
            if owner and disk.private == owner:
                return disk.name
        for disk in self._disks:
            if disk.private < pgmap < disk.private + _PMEM_DEVICE_MAX and disk.first_word == start:
                return disk.name
        return None
