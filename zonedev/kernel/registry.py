# SPDX-License-Identifier: LGPL-2.1-or-later
"""The registry of pagemaps: which struct dev_pagemap exist, their ranges and what they say.

Owns which trees register pagemaps, what their entries and indices mean, and the reading of struct
dev_pagemap in every shape; judging them is pagemap_rules.py's, their struct pages are scanner.py's.
A pagemap stands in a tree under many indices (one per range, multi-index entries): pointers are what
identifies it.  Counts read from the dump are bounded before they are used.

Mirrors mm/memremap.c (kernel/memremap.c), mm/hmm.c and include/linux/memremap.h.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple, Optional

from drgn import FaultError, Object, Program, TypeKind, offsetof
from drgn.helpers.linux.kallsyms import module_kallsyms

from zonedev import _zonedev
from zonedev.errors import TargetError
from zonedev.kernel.device import DeviceNames
from zonedev.kernel.gaps import ERRORS
from zonedev.kernel.layout import KernelLayout
from zonedev.kernel.percpu_ref import read_percpu_ref, release_function
from zonedev.kernel.scheme import has_symbol
from zonedev.kernel.tree import Item, Tree, walk_tree
from zonedev.model import Pagemap, PfnRange, PgmapRef

# A macro in include/linux/memremap.h, and therefore in no debug information.
_PGMAP_ALTMAP_VALID = 1

# Bounds for numbers out of a dump.
_MAX_RANGES = 1 << 16
_MAX_PROBLEMS = 20
_MAX_SYMBOLS = 1 << 20

# Behind every pfn.
_BEYOND = 1 << 65

# drivers/xen/unpopulated-alloc.c requests its range under this name.
_XEN_RESOURCE = "Xen scratch"

# Names of the types before they got the present ones.  Memory that a device shares with the CPU was
# MEMORY_DEVICE_PUBLIC from 4.14 to 5.2, and came back as MEMORY_DEVICE_COHERENT in 6.0.
_TYPE_ALIASES = {
    "MEMORY_DEVICE_DEVDAX": "MEMORY_DEVICE_GENERIC",
    "MEMORY_DEVICE_PUBLIC": "MEMORY_DEVICE_COHERENT",
}

# What the counter of a request queue is released by: the reference that pmem lends to its pagemap.
_QUEUE_RELEASE = "blk_queue_usage_counter_release"

# In dev_pagemap_ops; before commit 1e240e8d4a7d ("memremap: move dev_pagemap callbacks into a separate
# structure") (in v5.3), in dev_pagemap itself.
_OPS_MEMBERS = {
    "free": ("folio_free", "page_free"),
    "migrate_to_ram": ("migrate_to_ram", "page_fault"),
}


class _Source(NamedTuple):
    """A tree that registers pagemaps.

    symbol: its root; wrapper, member: the struct that an entry points to and where it holds the
    dev_pagemap ("": the entry is one); by_section: indices are section numbers (None: its entries tell).
    """

    symbol: str
    wrapper: str = ""
    member: str = ""
    by_section: Optional[bool] = False


# Newest first.  Where a wrapper is not a type of the kernel, the row is not its.
_SOURCES = (
    # An xarray since 4.20; before, the radix tree pgmap_radix.
    _Source("pgmap_array"),
    # Before commit e8d513483300 ("memremap: change devm_memremap_pages interface to use struct
    # dev_pagemap") (in v4.16), memremap wrapped them.  Before commit ab1b597ee0e4 ("mm,
    # devm_memremap_pages: use multi-order radix for ZONE_DEVICE lookups") (in v4.14), which kernels got
    # without the rest of 4.14 and the other way round, an index was a section number.
    _Source("pgmap_radix", "page_map", "pgmap", None),
    _Source("pgmap_radix", by_section=None),
    # 4.14 to 4.20: memory of GPUs (mm/hmm.c).
    _Source("hmm_devmem_radix", "hmm_devmem", "pagemap", True),
)


class NoRegistry(TargetError):
    """The kernel has ZONE_DEVICE, but where its registry lies is not known."""


class Registry(NamedTuple):
    """Pagemap address -> first pfns of its entries; pfns that one index stands for; the items, by pfn; what is wrong
    with it; and whether there is one that can be believed: without, it says what pages say."""

    entries: dict[int, list[int]]
    units: dict[int, int]
    items: list[Item]
    problems: list[str]
    is_there: bool = True

    def load(self, pfn: int) -> int:
        """Address of the pagemap that the kernel would find for a pfn, 0 for none."""
        i = bisect_right(self.items, Item(pfn, _BEYOND, 0)) - 1
        return self.items[i].value if i >= 0 and pfn < self.items[i].end else 0

    def loads(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """What the kernel would find for the pfns [start, end): (first pfn, address or 0) of each stretch."""
        i = max(bisect_right(self.items, Item(start, _BEYOND, 0)) - 1, 0)
        pfn = start
        while pfn < end:
            while i < len(self.items) and self.items[i].end <= pfn:
                i += 1
            if i == len(self.items) or self.items[i].start > pfn:
                yield pfn, 0
                pfn = self.items[i].start if i < len(self.items) else end
            else:
                yield pfn, self.items[i].value
                pfn = self.items[i].end


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
    return NoRegistry(
        "the pagemap registry cannot be found: neither pgmap_array nor pgmap_radix in the debug information "
        "or symbol table; use the vmlinux with debug information of exactly this kernel"
    )


def _sources(prog: Program) -> Iterator[tuple[_Source, Object]]:
    """The trees of this kernel with their roots, each once."""
    seen: set[str] = set()
    for source in _SOURCES:
        if source.symbol in seen:
            continue
        try:
            if source.wrapper and not prog.type(f"struct {source.wrapper}").has_member(
                source.member
            ):
                continue
            root = prog[source.symbol]
        except LookupError:
            continue
        seen.add(source.symbol)
        yield source, root


def _walk(source: _Source, root: Object) -> Tree:
    """All items of a tree.

    :raises TargetError: it cannot be read
    """
    try:
        tree = walk_tree(root)
    except (FaultError, ValueError, OverflowError, AttributeError, LookupError) as err:
        raise TargetError(
            f"the pagemap registry {source.symbol} cannot be read: {err}; the core is damaged, cut off, or "
            "was filtered too hard (makedumpfile -d 23 keeps it where -d 31 may not)"
        ) from None
    if tree.head and not tree.items:
        raise TargetError(
            f"the pagemap registry {source.symbol} is damaged: its root is {tree.head:#x}, but no entry can be "
            "found below it"
        )
    return tree


def _unwrapped(prog: Program, source: _Source, item: Item) -> Item:
    """The item with the address of its dev_pagemap."""
    if not source.wrapper:
        return item
    offset = offsetof(prog.type(f"struct {source.wrapper}"), source.member)
    return item._replace(value=item.value + offset)


def _is_by_section(prog: Program, items: list[Item], shift: int, section: int) -> bool:
    """True where the indices of most pagemaps fit their ranges as section numbers and not as pfns."""
    votes = 0
    for item in {item.value: item for item in items}.values():
        try:
            ranges = list(_ranges(Object(prog, "struct dev_pagemap *", value=item.value)))
        except FaultError:
            continue
        for start, end in ranges:
            votes += start >> section <= item.start <= end >> section
            votes -= start >> shift <= item.start <= end >> shift
    return votes > 0


def _unit(prog: Program, source: _Source, items: list[Item]) -> int:
    """Pfns that one index stands for."""
    if source.by_section is False:
        return 1
    shift = int(prog["PAGE_SHIFT"])
    # PA_SECTION_SHIFT is the same number.
    section = int(prog["SECTION_SIZE_BITS"])
    by_section = source.by_section or _is_by_section(prog, items, shift, section)
    return 1 << (section - shift) if by_section else 1


def read_registry(prog: Program) -> Registry:
    """Walk every tree that registers pagemaps.

    :raises NoRegistry: where they lie is not known
    :raises TargetError: there is none, or it cannot be read
    """
    registry: Optional[Registry] = None
    for source, root in _sources(prog):
        tree = _walk(source, root)
        items = [_unwrapped(prog, source, item) for item in tree.items]
        unit = _unit(prog, source, items)
        registry = registry or Registry({}, {}, [], [])
        registry.problems.extend(tree.problems)
        for start, end, address in items:
            registry.items.append(Item(start * unit, end * unit, address))
            registry.entries.setdefault(address, []).append(start * unit)
            registry.units[address] = unit
    if registry is None:
        raise _no_registry(prog)
    registry.items.sort()
    return registry


def registry_of(pagemaps: list[Pagemap]) -> Registry:
    """What a registry of these would be."""
    registry = Registry({}, {}, [], [], is_there=False)
    for pagemap in pagemaps:
        starts = [range_.start_pfn for range_ in pagemap.ranges]
        registry.entries[pagemap.address] = starts
        registry.units[pagemap.address] = 1
        registry.items.extend(Item(r.start_pfn, r.end_pfn, pagemap.address) for r in pagemap.ranges)
    registry.items.sort()
    return registry


def unsupported_registries(prog: Program) -> list[str]:
    """Registries whose pagemaps are not audited."""
    names = ("device_private_pgmap_tree",)
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
    # (in v5.10), there are nr_range ranges; before, one struct resource; before 4.16, a pointer to it.
    if pgmap.type_.type.has_member("nr_range"):
        count = int(pgmap.nr_range)
        if count < 0 or count > _MAX_RANGES:
            return
        for i in range(count):
            range_ = pgmap.ranges[i] if count > 1 else pgmap.range
            yield int(range_.start), int(range_.end)
    else:
        yield int(pgmap.res.start), int(pgmap.res.end)


def _altmap_object(pgmap: Object) -> Optional[Object]:
    """The struct vmem_altmap in use, None for none."""
    type_ = pgmap.type_.type
    # Since commit 514caf23a70f ("memremap: replace the altmap_valid field with a PGMAP_ALTMAP_VALID
    # flag") (in v5.3) a flag says so; before, a bool; before 4.16, the pointer itself.
    if type_.has_member("flags"):
        return pgmap.altmap if int(pgmap.flags) & _PGMAP_ALTMAP_VALID else None
    if type_.has_member("altmap_valid"):
        return pgmap.altmap if pgmap.altmap_valid else None
    altmap = pgmap.altmap
    return altmap[0] if altmap.type_.kind == TypeKind.POINTER and altmap else None


def _altmap(pgmap: Object) -> Optional[dict[str, int]]:
    altmap = _altmap_object(pgmap)
    if altmap is None:
        return None
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
    # As drgn listed them when it looked for debug files: its address_to_module() follows mod_tree, which need
    # not end in a corrupt dump.
    try:
        module = prog.module(address)
    except LookupError:
        return None
    try:
        if int(module.object.kallsyms.num_symtab) < _MAX_SYMBOLS:
            for symbol in module_kallsyms(module.object):
                if symbol.address == address:
                    return str(symbol.name)
    except ERRORS:
        pass
    return f"[{module.name}]"


def _callbacks(holder: Object) -> dict[str, bool]:
    """Which callbacks a struct dev_pagemap_ops (or an old dev_pagemap) has."""
    present: dict[str, bool] = {}
    for name, members in _OPS_MEMBERS.items():
        member = next((m for m in members if holder.type_.type.has_member(m)), None)
        try:
            # What the kernel keeps elsewhere is not missing.
            present[name] = bool(holder.member_(member)) if member else name != "free"
        except FaultError:
            present[name] = False
    return present


def _ops(prog: Program, pgmap: Object) -> tuple[Optional[str], dict[str, bool]]:
    """Name of the ops, or of the free callback of old kernels, and which callbacks there are."""
    type_ = pgmap.type_.type
    if not type_.has_member("ops"):
        free = int(pgmap.page_free) if type_.has_member("page_free") else 0
        return ((_symbol_name(prog, free) or hex(free)), _callbacks(pgmap)) if free else (None, {})
    ops = pgmap.ops
    if not ops:
        return None, {}
    return _symbol_name(prog, int(ops)) or hex(int(ops)), _callbacks(ops)


def _lends_queue(prog: Program, ref: Object) -> bool:
    """True where the percpu_ref is the usage counter of a request queue."""
    try:
        return bool(prog.symbol(release_function(ref)).name == _QUEUE_RELEASE)
    except (LookupError, FaultError):
        return False


def _read_ref(prog: Program, pgmap: Object) -> tuple[PgmapRef, bool]:
    """The reference, and whether it is a request queue's."""
    # Since commit b80892ca022e ("memremap: remove support for external pgmap refcounts")
    # (in v5.17), the percpu_ref is embedded.  Before, ref points to it: to internal_ref (since 5.3),
    # to one of the driver, or with pmem to the usage counter of the request queue, which counts block
    # I/O as well.
    ref = pgmap.ref
    if ref.type_.kind != TypeKind.POINTER:
        return read_percpu_ref(ref), False
    queue = _lends_queue(prog, ref[0])
    if pgmap.type_.type.has_member("internal_ref"):
        return read_percpu_ref(ref[0], shared=ref != pgmap.internal_ref.address_of_()), queue
    return read_percpu_ref(ref[0], shared=queue), queue


def _memory_type(prog: Program, pgmap: Object, queue: bool) -> str:
    """Name of the pagemap's memory type.

    Before commit 5042db43cc26 ("mm/ZONE_DEVICE: new type of ZONE_DEVICE for unaddressable memory") (in
    v4.14) there are no types, and up to 4.17 pmem and device-dax share MEMORY_DEVICE_HOST: pmem is told by
    the reference that it lends.  Up to 5.2, device-dax has the value 0 and no name.
    """
    names = memory_types(prog)
    value = int(pgmap.type) if pgmap.type_.type.has_member("type") else 0
    nameless = not {"MEMORY_DEVICE_GENERIC", "MEMORY_DEVICE_FS_DAX"} <= set(names.values())
    if value or not nameless:
        return names.get(value, f"unknown ({value})")
    return "MEMORY_DEVICE_FS_DAX" if queue else "MEMORY_DEVICE_GENERIC"


def _init_busy(pgmap: Object) -> Optional[bool]:
    """True for INIT_PAGEMAP_BUSY, None in kernels without init_mode (all that were released)."""
    # "mm/memremap_pages: Support initializing pages to a zero reference count" (2022, never merged).
    if not pgmap.type_.type.has_member("init_mode"):
        return None
    return int(pgmap.init_mode) == 0


def read_pagemap(
    prog: Program, address: int, indices: list[int], names: DeviceNames, layout: KernelLayout
) -> Pagemap:
    """One struct dev_pagemap.

    :raises FaultError: it cannot be read
    """
    pgmap = Object(prog, "struct dev_pagemap *", value=address)
    type_ = pgmap.type_.type
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
    ref, queue = _read_ref(prog, pgmap)
    return Pagemap(
        address=address,
        type=_memory_type(prog, pgmap, queue),
        device=name,
        resource=resource,
        ranges=_pfn_ranges(pgmap, altmap, layout),
        ref=ref,
        vmemmap_shift=shift,
        altmap=altmap,
        owner=owner,
        ops=ops,
        ops_members=members,
        indices=sorted(indices),
        nr_range=int(pgmap.nr_range) if type_.has_member("nr_range") else 1,
        foreign_maps=resource == _XEN_RESOURCE,
        init_busy=_init_busy(pgmap),
        page_size=1 << layout.page_shift,
    )


def known_type(pagemap: Pagemap) -> bool:
    """True where the core knows the memory type."""
    return pagemap.type in _zonedev.TYPES


def _outside(pagemap: Pagemap, unit: int) -> Iterator[int]:
    """Pfns of a pagemap's entries none of whose *unit* pages lies in one of its ranges."""
    ranges = sorted((r.start_pfn, r.end_pfn) for r in pagemap.ranges)
    starts = [start for start, _ in ranges]
    for pfn in pagemap.indices:
        i = bisect_right(starts, pfn + unit - 1) - 1
        if i < 0 or pfn >= ranges[i][1]:
            yield pfn


def _beyond(registry: Registry, pagemap: Pagemap, unit: int) -> list[str]:
    """Pfns just outside of the ranges that load the pagemap all the same: a range is too short."""
    problems = []
    for range_ in pagemap.ranges[:_MAX_PROBLEMS]:
        start, end = range_.start_pfn // unit * unit, -(-range_.end_pfn // unit) * unit
        for pfn in (start - 1, end):
            if pfn < 0 or pagemap.covers(pfn):
                continue
            if registry.load(pfn) == pagemap.address and not _touches(pagemap, pfn, unit):
                problems.append(f"pfn {pfn:#x} loads it, too, and lies outside of its ranges")
    return problems


def _touches(pagemap: Pagemap, pfn: int, unit: int) -> bool:
    """True where a range of the pagemap has pages in the unit of a pfn."""
    start = pfn // unit * unit
    return any(r.start_pfn < start + unit and start < r.end_pfn for r in pagemap.ranges)


def coverage_problems(registry: Registry, pagemap: Pagemap) -> list[str]:
    """What the registry says of a pagemap's pfns that it should not (rule registry-coverage)."""
    if pagemap.nr_range == 0:
        # Being added: its entries are made before its ranges count.
        return []
    unit = registry.units.get(pagemap.address, 1)
    problems = [
        f"index {pfn:#x} of the registry lies outside of its ranges"
        for pfn in islice(_outside(pagemap, unit), _MAX_PROBLEMS)
    ]
    problems += _beyond(registry, pagemap, unit)
    for range_ in pagemap.ranges:
        for pfn, found in registry.loads(range_.start_pfn, range_.end_pfn):
            if len(problems) >= _MAX_PROBLEMS:
                return problems
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
