# SPDX-License-Identifier: LGPL-2.1-or-later
"""The device-dax device behind a GENERIC pagemap: which mapping and index its pages have once they were mapped.

Owns the way from the inodes of all dax_devices to the struct dev_dax whose ranges lie in a pagemap.  Judging
is the core's (rule gen-mapping).  What cannot be read or told for certain is a reason, and then nothing is judged.

Invariant: the list of inodes is walked by nodes that name the one before them, so that it ends.
Mirrors drivers/dax/super.c (dax_superblock), drivers/dax/bus.c, drivers/dax/device.c (dax_set_mapping()).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Union

from drgn import Object, Program, container_of, offsetof

from zonedev.kernel.dax import CannotWalk, list_nodes
from zonedev.kernel.gaps import ERRORS
from zonedev.kernel.strings import text_at
from zonedev.model import GENERIC, DevDax, Pagemap

# Bounds for what an untrusted dump says.
_INODES_MAX = 1 << 16
_RANGES_MAX = 1 << 10
_NAME_MAX = 64


class _Range(NamedTuple):
    """Pfns [start_pfn, end_pfn) of a device; the first is page pgoff of its file."""

    start_pfn: int
    end_pfn: int
    pgoff: int


class _Device(NamedTuple):
    mapping: int
    ranges: list[_Range]


def _ranges(dev_dax: Object, page_shift: int) -> list[_Range]:
    """
    The device's ranges, as dax_pgoff_to_phys() goes through them.

    Since commit 60e93dc097f7 ("device-dax: add dis-contiguous resource support") (in v5.10); before, a device has
    one range, and no page offset.

    :raises ValueError: there are none, or too many
    """
    count = int(dev_dax.nr_range)
    if not 0 < count <= _RANGES_MAX:
        raise ValueError(f"{count} ranges")
    found = []
    for i in range(count):
        one = dev_dax.ranges[i]
        start, end = int(one.range.start) >> page_shift, (int(one.range.end) + 1) >> page_shift
        found.append(_Range(start, end, int(one.pgoff)))
    return found


def _dev_dax(dax_device: Object) -> Object:
    """
    The ``struct dev_dax *`` of a dax_device.

    :raises ValueError: it is one of another driver
    """
    dev_dax = Object(dax_device.prog_, "struct dev_dax *", value=int(dax_device.private))
    # Every driver keeps something else there: it must name the dax_device in its turn.
    if int(dev_dax.dax_dev) != dax_device.address_:
        raise ValueError("no struct dev_dax")
    return dev_dax


def _device(dax_device: Object, page_shift: int) -> _Device:
    """
    The device-dax device of a dax_device.

    :raises ValueError: it is one of another driver
    """
    dev_dax = _dev_dax(dax_device)
    # All opens of the device share the mapping of its inode: dax_open().
    return _Device(int(dax_device.inode.i_mapping), _ranges(dev_dax, page_shift))


def _devices(prog: Program, page_shift: int) -> Iterator[_Device]:
    """
    All device-dax devices.

    :raises LookupError: the types are missing
    :raises CannotWalk: the list of inodes cannot be walked
    """
    type_ = prog.type("struct dax_device")
    inode, node = offsetof(type_, "inode"), offsetof(prog.type("struct inode"), "i_sb_list")
    prog.type("struct dev_dax").member("ranges")
    super_block = prog["dax_superblock"]
    if not super_block:
        return
    for address in list_nodes(prog, super_block.s_inodes, _INODES_MAX):
        try:
            yield _device(Object(prog, type_, address=address - node - inode), page_shift)
        except ERRORS:
            continue


def dev_dax_name(inode: Object) -> str:
    """The name of the device-dax device ("dax0.0") that a ``struct inode *`` stands for, or "" where it is none."""
    prog = inode.prog_
    try:
        if inode.i_sb != prog["dax_superblock"]:
            return ""
        dax_device = container_of(inode, "struct dax_device", "inode")
        return text_at(prog, int(_dev_dax(dax_device[0]).dev.kobj.name), _NAME_MAX)
    except ERRORS:
        return ""


def _place(pagemap: Pagemap, devices: list[_Device]) -> DevDax:
    """
    The one device all of whose pagemap's ranges hold one range of it.

    :raises ValueError: there is none, or more than one
    """
    mappings, biases = set(), []
    for range_ in pagemap.ranges:
        inside = [
            (device.mapping, one)
            for device in devices
            for one in device.ranges
            if range_.start_pfn <= one.start_pfn < one.end_pfn <= range_.end_pfn
        ]
        if len(inside) != 1:
            raise ValueError(f"{len(inside)} ranges of device-dax devices lie in a range of it")
        mappings.add(inside[0][0])
        biases.append((inside[0][1].start_pfn - inside[0][1].pgoff) % (1 << 64))
    if len(mappings) != 1:
        raise ValueError("its ranges are those of several devices")
    return DevDax(mappings.pop(), tuple(biases))


def _find(prog: Program, page_shift: int) -> Union[list[_Device], str]:
    """All device-dax devices, or why they are not known."""
    try:
        return list(_devices(prog, page_shift))
    except LookupError as err:
        return f"types and symbols do not tell where the device-dax devices are: {err}"
    except (CannotWalk, *ERRORS) as err:
        return f"the device-dax devices cannot be found: {err}"


def _of(pagemap: Pagemap, devices: Union[list[_Device], str]) -> Union[DevDax, str]:
    if pagemap.foreign_maps:
        return "its pages are not those of a device-dax device"
    if isinstance(devices, str):
        return devices
    try:
        return _place(pagemap, devices)
    except ValueError as err:
        return f"its device-dax device is not known: {err}"


def set_dev_dax(prog: Program, pagemaps: list[Pagemap], page_shift: int) -> None:
    """Say of GENERIC pagemaps what their pages name once they were mapped, or why that is not known."""
    mine = [p for p in pagemaps if p.type == GENERIC]
    devices = _find(prog, page_shift) if mine else []
    for pagemap in mine:
        pagemap.dev_dax = _of(pagemap, devices)
