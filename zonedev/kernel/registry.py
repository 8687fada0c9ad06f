# SPDX-License-Identifier: LGPL-2.1-or-later
"""The registry of pagemaps: which struct dev_pagemap exist, their ranges and what they say.

Owns the walk of pgmap_array and the reading of struct dev_pagemap in every shape; judging them is
pagemap_rules.py's, their struct pages are scanner.py's.  A pagemap stands in the array under many
indices (one per range, multi-index entries): pointers are what identifies it.  Counts read from the
dump are bounded before they are used.

Mirrors mm/memremap.c and include/linux/memremap.h.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple, Optional

from drgn import FaultError, Object, Program, TypeKind
from drgn.helpers.linux.kallsyms import module_kallsyms
from drgn.helpers.linux.module import address_to_module
from drgn.helpers.linux.xarray import xa_for_each, xa_load

from zonedev import _zonedev
from zonedev.errors import TargetError
from zonedev.kernel.device import DeviceNames
from zonedev.kernel.layout import KernelLayout
from zonedev.kernel.percpu_ref import read_percpu_ref
from zonedev.kernel.scheme import has_symbol
from zonedev.model import Pagemap, PfnRange, PgmapRef

# A macro in include/linux/memremap.h, and therefore in no debug information.
_PGMAP_ALTMAP_VALID = 1

# Bounds for numbers out of a dump.
_MAX_ENTRIES = 1 << 20
_MAX_RANGES = 1 << 16
_MAX_PROBLEMS = 20
_MAX_NODES = 1 << 16

# drivers/xen/unpopulated-alloc.c requests its range under this name.
_XEN_RESOURCE = "Xen scratch"

# Names of the types before they got the present ones.
_TYPE_ALIASES = {"MEMORY_DEVICE_DEVDAX": "MEMORY_DEVICE_GENERIC"}

_OPS_MEMBERS = {
    "free": ("folio_free", "page_free"),
    "migrate_to_ram": ("migrate_to_ram",),
}


class Registry(NamedTuple):
    """Pagemap address -> indices of its entries; the array, for lookups; and what is wrong with it."""

    array: Object
    entries: dict[int, list[int]]
    problems: list[str]

    def load(self, pfn: int) -> int:
        """Address of the pagemap that the kernel would find for a pfn, 0 for none."""
        return int(xa_load(self.array.address_of_(), pfn))


def _no_registry(prog: Program) -> TargetError:
    try:
        zones = {e.name for e in prog.type("enum zone_type").enumerators or ()}
    except LookupError:
        zones = set()
    if zones and "ZONE_DEVICE" not in zones:
        return TargetError(
            "this kernel was built without ZONE_DEVICE: it has no device memory with struct pages, "
            "and there is nothing to audit"
        )
    if has_symbol(prog, "pgmap_radix"):
        return TargetError(
            "this kernel keeps its pagemaps in a radix tree (pgmap_radix, before 5.3), which zonedev "
            "cannot walk yet"
        )
    return TargetError(
        "the pagemap registry cannot be found: no pgmap_array in the debug information or symbol "
        "table; use the vmlinux with debug information of exactly this kernel"
    )


def _node_problems(prog: Program, head: int) -> list[str]:
    """Nodes of an xarray that hold fewer entries than they count: a frame of zeroes hides pagemaps."""
    problems: list[str] = []
    seen: set[int] = set()
    stack = [head]
    while stack and len(seen) < _MAX_NODES:
        entry = stack.pop()
        # Internal entries have the low bits 10; small ones are siblings and the like.
        if entry & 3 != 2 or entry <= 4096 or entry in seen:
            continue
        seen.add(entry)
        node = Object(prog, "struct xa_node", address=entry - 2)
        slots = [int(slot) for slot in node.slots.read_()]
        filled = sum(1 for slot in slots if slot)
        if filled != int(node.count):
            problems.append(
                f"node {entry - 2:#x} of the registry counts {int(node.count)} entries and holds "
                f"{filled}: pagemaps may be missing"
            )
        stack += slots
    return problems


def read_registry(prog: Program) -> Registry:
    """Walk pgmap_array.

    :raises TargetError: there is none, or it cannot be read
    """
    try:
        # Since Linux 5.x pgmap_array is an xarray (mm/memremap.c); before, pgmap_radix.
        array = prog["pgmap_array"]
    except KeyError:
        raise _no_registry(prog) from None
    entries: dict[int, list[int]] = {}
    try:
        for count, (index, entry) in enumerate(xa_for_each(array.address_of_())):
            if count >= _MAX_ENTRIES:
                raise TargetError(
                    f"pgmap_array has more than {_MAX_ENTRIES} entries: it is corrupt"
                )
            entries.setdefault(int(entry), []).append(int(index))
        head = int(array.xa_head)
        problems = _node_problems(prog, head)
    except (FaultError, ValueError, OverflowError, RecursionError) as err:
        raise TargetError(
            f"the pagemap registry cannot be read: {err}; the core is damaged, cut off, or was filtered "
            "too hard (makedumpfile -d 23 keeps it where -d 31 may not)"
        ) from None
    if head and not entries:
        raise TargetError(
            f"the pagemap registry is damaged: its root is {head:#x}, but no entry can be found below it"
        )
    return Registry(array, entries, problems)


def unsupported_registries(prog: Program) -> list[str]:
    """Registries beside pgmap_array whose pagemaps are not audited."""
    names = ("device_private_pgmap_tree", "hmm_devmem_radix")
    return [
        f"this kernel registers device-private memory in {name}, which zonedev cannot walk yet"
        for name in names
        if has_symbol(prog, name)
    ]


def memory_types(prog: Program) -> dict[int, str]:
    """Value -> name of enum memory_type; the values shift between kernels."""
    try:
        enumerators = prog.type("enum memory_type").enumerators or ()
    except LookupError:
        return {}
    return {e.value: _TYPE_ALIASES.get(e.name, e.name) for e in enumerators}


def _ranges(pgmap: Object) -> Iterator[tuple[int, int]]:
    """(start, end) in bytes, end inclusive as in the kernel."""
    # Since commit b7b3c01b1915 ("mm/memremap_pages: support multiple ranges per invocation")
    # (in v5.10), there are nr_range ranges; before, one struct resource.
    if pgmap.type_.type.has_member("nr_range"):
        count = int(pgmap.nr_range)
        if count < 0 or count > _MAX_RANGES:
            return
        for i in range(count):
            range_ = pgmap.ranges[i] if count > 1 else pgmap.range
            yield int(range_.start), int(range_.end)
    else:
        yield int(pgmap.res.start), int(pgmap.res.end)


def _altmap(pgmap: Object) -> Optional[dict[str, int]]:
    if not pgmap.type_.type.has_member("flags"):
        return None
    if not int(pgmap.flags) & _PGMAP_ALTMAP_VALID:
        return None
    altmap = pgmap.altmap
    return {
        name: int(altmap.member_(name))
        for name in ("base_pfn", "reserve", "free", "align", "alloc")
    }


def _pfn_ranges(
    pgmap: Object, altmap: Optional[dict[str, int]], layout: KernelLayout
) -> list[PfnRange]:
    """The ranges that make sense: not empty, and with struct pages below the end of memory."""
    ranges = []
    page_shift = layout.page_shift
    end_of_memmap = ((1 << 64) - layout.vmemmap) // layout.page_size
    for i, (start, end) in enumerate(_ranges(pgmap)):
        start_pfn, end_pfn = start >> page_shift, (end >> page_shift) + 1
        if start_pfn >= end_pfn or end_pfn > end_of_memmap:
            continue
        # The head of range 0 holds the altmap's reserve and the memmap itself.
        reserved = altmap["reserve"] + altmap["free"] if altmap and i == 0 else 0
        ranges.append(PfnRange(start_pfn, end_pfn, min(start_pfn + reserved, end_pfn)))
    return ranges


def _symbol_name(prog: Program, address: int) -> Optional[str]:
    """Name of the object at an address: vmlinux, or a module through its own symbol table."""
    try:
        return str(prog.symbol(address).name)
    except LookupError:
        pass
    try:
        module = address_to_module(prog, address)
        if not module:
            return None
        for symbol in module_kallsyms(module):
            if symbol.address == address:
                return str(symbol.name)
        return f"[{module.name.string_().decode(errors='replace')}]"
    except (LookupError, FaultError, ValueError, AttributeError, TypeError):
        return None


def _ops(prog: Program, pgmap: Object) -> tuple[Optional[str], dict[str, bool]]:
    ops = pgmap.ops if pgmap.type_.type.has_member("ops") else None
    if not ops:
        return None, {}
    present: dict[str, bool] = {}
    for name, members in _OPS_MEMBERS.items():
        for member in members:
            if ops.type_.type.has_member(member):
                try:
                    present[name] = bool(ops.member_(member))
                except FaultError:
                    present[name] = False
                break
    return _symbol_name(prog, int(ops)) or hex(int(ops)), present


def _read_ref(pgmap: Object) -> PgmapRef:
    # Since commit b80892ca022e ("memremap: remove support for external pgmap refcounts")
    # (in v5.17), the percpu_ref is embedded.  Before, ref points to it: to internal_ref, or with
    # pmem to the usage counter of the request queue, which counts block I/O as well.
    ref = pgmap.ref
    if ref.type_.kind != TypeKind.POINTER:
        return read_percpu_ref(ref)
    internal = (
        pgmap.type_.type.has_member("internal_ref") and ref == pgmap.internal_ref.address_of_()
    )
    return read_percpu_ref(ref[0], shared=not internal)


def read_pagemap(
    prog: Program, address: int, indices: list[int], names: DeviceNames, layout: KernelLayout
) -> Pagemap:
    """One struct dev_pagemap.

    :raises FaultError: it cannot be read
    """
    pgmap = Object(prog, "struct dev_pagemap *", value=address)
    type_ = pgmap.type_.type
    value = int(pgmap.type) if type_.has_member("type") else 0
    altmap = _altmap(pgmap)
    ranges = list(_ranges(pgmap))
    # Since commit f894ddd5ff01 ("memremap: add an owner field to struct dev_pagemap") (in v5.7).
    owner = int(pgmap.owner) if type_.has_member("owner") else None
    shift = int(pgmap.vmemmap_shift) if type_.has_member("vmemmap_shift") else 0
    name = resource = None
    if ranges:
        resource = names.resource(*ranges[0])
        name = names.disk(address, owner or 0, ranges[0][0]) or names.pci(*ranges[0]) or resource
    ops, members = _ops(prog, pgmap)
    return Pagemap(
        address=address,
        type=memory_types(prog).get(value, f"unknown ({value})"),
        device=name,
        resource=resource,
        ranges=_pfn_ranges(pgmap, altmap, layout),
        ref=_read_ref(pgmap),
        vmemmap_shift=shift,
        altmap=altmap,
        owner=owner,
        ops=ops,
        ops_members=members,
        indices=sorted(indices),
        nr_range=int(pgmap.nr_range) if type_.has_member("nr_range") else 1,
        foreign_maps=resource == _XEN_RESOURCE,
    )


def known_type(pagemap: Pagemap) -> bool:
    """True where the core knows the memory type."""
    return pagemap.type in _zonedev.TYPES


def _outside(pagemap: Pagemap) -> Iterator[int]:
    """Indices of a pagemap's entries that none of its ranges holds."""
    ranges = sorted((r.start_pfn, r.end_pfn) for r in pagemap.ranges)
    starts = [start for start, _ in ranges]
    for index in pagemap.indices:
        i = bisect_right(starts, index) - 1
        if i < 0 or index >= ranges[i][1]:
            yield index


def _beyond(registry: Registry, pagemap: Pagemap) -> list[str]:
    """Pfns just outside of the ranges that load the pagemap all the same: a range is too short."""
    problems = []
    for range_ in pagemap.ranges[:_MAX_PROBLEMS]:
        for pfn in (range_.start_pfn - 1, range_.end_pfn):
            if pfn < 0 or pagemap.covers(pfn):
                continue
            try:
                stray = registry.load(pfn) == pagemap.address
            except FaultError:
                continue
            if stray:
                problems.append(f"pfn {pfn:#x} loads it, too, and lies outside of its ranges")
    return problems


def coverage_problems(registry: Registry, pagemap: Pagemap) -> list[str]:
    """What the registry says of a pagemap's pfns that it should not (rule registry-coverage)."""
    if pagemap.nr_range == 0:
        # Being added: its entries are made before its ranges count.
        return []
    problems = [
        f"index {index:#x} of the registry lies outside of its ranges"
        for index in islice(_outside(pagemap), _MAX_PROBLEMS)
    ]
    problems += _beyond(registry, pagemap)
    for range_ in pagemap.ranges:
        for pfn in sorted({range_.start_pfn, range_.end_pfn - 1}):
            if len(problems) >= _MAX_PROBLEMS:
                return problems
            try:
                found = registry.load(pfn)
            except FaultError as err:
                problems.append(f"the registry cannot be read at pfn {pfn:#x}: {err}")
                continue
            # Removal deletes range after range.
            if found != pagemap.address and (found or pagemap.ref.state == "live"):
                problems.append(
                    f"pfn {pfn:#x} loads {found:#x}" if found else f"pfn {pfn:#x} loads nothing"
                )
    return problems


def overlap_problems(pagemaps: list[Pagemap]) -> dict[int, list[str]]:
    """Ranges that overlap: address of a pagemap -> what it shares with the one before it."""
    problems: dict[int, list[str]] = {}
    furthest, owner = -1, 0
    for start, end, address in sorted(
        (r.start_pfn, r.end_pfn, p.address) for p in pagemaps for r in p.ranges
    ):
        if start < furthest:
            problems.setdefault(address, []).append(
                f"its pfns from {start:#x} on overlap those of pagemap {owner:#x}"
            )
        if end > furthest:
            furthest, owner = end, address
    return problems
