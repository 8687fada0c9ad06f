# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is known of one kernel before any struct page is judged: layout, scheme, registry, pagemaps.

Owns the order in which these are asked for, and the list of what could not be known (problems): an
audit with problems is incomplete.  Judges nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Optional

from drgn import FaultError, Program, ProgramFlags

from zonedev import _zonedev
from zonedev.errors import TargetError
from zonedev.kernel.btf import with_types
from zonedev.kernel.by_pages import Found, find_by_pages
from zonedev.kernel.dev_dax import set_dev_dax
from zonedev.kernel.device import DeviceNames
from zonedev.kernel.dump_memory import DumpMemory, open_memory
from zonedev.kernel.layout import KernelLayout, check_zone, kernel_layout, node_of
from zonedev.kernel.registry import (
    NoRegistry,
    Registry,
    read_pagemap,
    read_registry,
    registry_of,
    unsupported_registries,
)
from zonedev.kernel.scheme import detect_scheme
from zonedev.kernel.vmemmap import (
    first_sample,
    hidden_by_altmap,
    is_deduplicated,
    is_drained,
    zone_device_spans,
)
from zonedev.model import Pagemap, SchemeInfo


@dataclass
class Kernel:
    """One kernel, as its types, symbols and registry tell it."""

    prog: Program
    layout: KernelLayout
    scheme: _zonedev.Scheme
    info: SchemeInfo
    registry: Registry
    pagemaps: list[Pagemap]
    problems: list[str]
    memory: Optional[DumpMemory] = None
    """Where struct pages are read without drgn."""

    def scheme_of(self, pagemap: Pagemap, scheme: _zonedev.Scheme) -> _zonedev.Scheme:
        """*scheme* as this pagemap has it: where its pages rest is its own in F1, and changes at removal."""
        if pagemap.drained:
            scheme = scheme.drained()
        if pagemap.init_busy is None:
            return scheme
        return scheme.with_init_mode(pagemap.type, pagemap.init_busy)

    @property
    def live(self) -> bool:
        """True for a running kernel, whose pages change while they are read."""
        return bool(self.prog.flags & ProgramFlags.IS_LIVE)

    def find(self, pfn: int) -> Optional[Pagemap]:
        """The pagemap that holds a pfn."""
        return next((p for p in self.pagemaps if p.covers(pfn)), None)


def read_pagemaps(
    prog: Program, registry: Registry, layout: KernelLayout
) -> tuple[list[Pagemap], list[str]]:
    """All registered pagemaps, and problems with those that cannot be read."""
    names = DeviceNames(prog)
    pagemaps: list[Pagemap] = []
    problems: list[str] = []
    for address, indices in registry.entries.items():
        try:
            pagemaps.append(read_pagemap(prog, address, indices, names, layout))
        except (FaultError, OverflowError, ValueError, LookupError, AttributeError) as err:
            problems.append(
                f"dev_pagemap {address:#x} (pfn {indices[0]:#x}) cannot be read: {err}; "
                "its pages were not judged"
            )
    return pagemaps, problems


class Pagemaps(NamedTuple):
    """All pagemaps in the order of their pfns, the registry or what stands for it, what is wrong with them, and what a
    search through pages gave beside (None: it could not be made)."""

    registry: Registry
    pagemaps: list[Pagemap]
    problems: list[str]
    found: Optional[Found]


def _search(
    prog: Program, layout: KernelLayout, scheme: _zonedev.Scheme, known: list[Pagemap]
) -> Optional[Found]:
    try:
        return find_by_pages(prog, layout, scheme, known)
    except (FaultError, LookupError, ValueError, OverflowError):
        return None


def _beside_registry(
    prog: Program, layout: KernelLayout, scheme: _zonedev.Scheme, registry: Registry
) -> Pagemaps:
    """Those of the registry, and those that pages name and it does not have."""
    pagemaps, problems = read_pagemaps(prog, registry, layout)
    found = _search(prog, layout, scheme, pagemaps)
    strays = found.pagemaps if found else []
    if strays and prog.flags & ProgramFlags.IS_LIVE:
        # Added meanwhile.
        later = read_registry(prog).entries
        strays = [pagemap for pagemap in strays if pagemap.address not in later]
    if strays and (registry.problems or not registry.entries):
        # Not the kernel has lost them, but the dump.
        problems.append(
            f"the pagemap registry is {'damaged' if registry.entries else 'empty'}, and pages name {len(strays)} pagemaps "
            "that it does not have: it, or a part of it, may have been left out of the dump"
        )
        stand_in = registry_of(pagemaps + strays)
        registry = stand_in._replace(problems=registry.problems)
    return Pagemaps(registry, pagemaps + strays, problems, found)


def _unread(found: Found, spans: Optional[list[tuple[int, int]]]) -> list[tuple[int, int]]:
    """Sections that were not searched, and may hold pages of devices: *spans* are those of their zones, if known."""
    return [
        (first, last)
        for first, last in found.unread
        if spans is None or any(first < end and start < last for start, end in spans)
    ]


def _by_pages_alone(
    prog: Program, layout: KernelLayout, scheme: _zonedev.Scheme, why: NoRegistry
) -> Pagemaps:
    """What pages name, where the registry is not to be found, and what they leave open."""
    found = _search(prog, layout, scheme, [])
    if found is None:
        raise why
    lost = _unread(found, zone_device_spans(prog))
    if not found.pagemaps and (found.rest or lost):
        raise why
    problems = []
    if found.rest:
        problems.append(
            f"the pagemap registry cannot be found, and the page at pfn {found.rest[0]:#x} and {len(found.rest) - 1} more "
            "do not say whose they are: there may be other pagemaps"
        )
    if lost:
        problems.append(
            f"the pagemap registry cannot be found, and {len(lost)} memory sections cannot be read: there may be other "
            "pagemaps"
        )
    return Pagemaps(registry_of(found.pagemaps), found.pagemaps, problems, found)


def all_pagemaps(prog: Program, layout: KernelLayout, scheme: _zonedev.Scheme) -> Pagemaps:
    """Those of the registry and those that only pages name.

    :raises TargetError: there is no registry, and pages cannot tell either
    """
    try:
        registry = read_registry(prog)
    except NoRegistry as err:
        every = _by_pages_alone(prog, layout, scheme, err)
    else:
        every = _beside_registry(prog, layout, scheme, registry)
    every.pagemaps.sort(key=lambda p: p.ranges[0].start_pfn if p.ranges else 0)
    return every


def _lost_registry(kernel: Kernel, found: Optional[Found]) -> list[str]:
    """An empty registry may be a page of zeroes that stands for a lost one: unless no device has struct pages."""
    if kernel.pagemaps or kernel.problems or kernel.live:
        return []
    spans = zone_device_spans(kernel.prog)
    if spans is None:
        return [
            "no dev_pagemap is registered, and the zones of ZONE_DEVICE cannot be read: the registry may have "
            "been left out of the dump"
        ]
    pages = sum(end - start for start, end in spans)
    nothing = found is not None and not found.rest and not _unread(found, spans)
    if not pages or nothing:
        return []
    return [
        f"no dev_pagemap is registered, but the zones of ZONE_DEVICE span {pages} pages: either all "
        "devices were removed before the dump, or the registry was left out of it"
    ]


def _unfinished(pagemaps: list[Pagemap]) -> list[str]:
    return [
        f"dev_pagemap {p.address:#x} ({p.device or p.type}) is being added: its pages were not judged"
        for p in pagemaps
        if p.nr_range == 0
    ]


def _ref_problems(pagemaps: list[Pagemap]) -> list[str]:
    return [
        f"dev_pagemap {p.address:#x} ({p.device or p.type}): its reference count cannot be read"
        for p in pagemaps
        if p.ref.count is None
    ]


def _hidden_pages(prog: Program, pagemaps: list[Pagemap], layout: KernelLayout) -> list[str]:
    hidden = [(p, hidden_by_altmap(prog, p, layout)) for p in pagemaps]
    return [
        f"dev_pagemap {p.address:#x} ({p.device or p.type}): {count} pages that its altmap takes out have "
        "struct pages of this pagemap, and were not judged"
        for p, count in hidden
        if count
    ]


def read_kernel(prog: Program) -> Kernel:
    """Layout, scheme and pagemaps of the kernel that *prog* is attached to.

    :raises TargetError: it is no kernel, has no types, or its registry cannot be read
    """
    if not prog.flags & ProgramFlags.IS_LINUX_KERNEL:
        raise TargetError(
            "the target is not a Linux kernel: zonedev needs a vmcore or a live kernel"
        )
    with_types(prog)
    layout = kernel_layout(prog)
    scheme, info = detect_scheme(prog)
    registry, pagemaps, problems, found = all_pagemaps(prog, layout, scheme)
    samples = [first_sample(prog, p, layout) for p in pagemaps]
    layout, evidence = check_zone(layout, samples)
    kernel = Kernel(prog, layout, scheme, info, registry, pagemaps, problems)
    if pagemaps:
        info.evidence.append(evidence)
        if not layout.zone[1]:
            problems.append(f"no page can be positively identified as ZONE_DEVICE ({evidence})")
    problems += unsupported_registries(prog) + _ref_problems(pagemaps) + registry.problems
    problems += _unfinished(pagemaps) + _hidden_pages(prog, pagemaps, layout)
    problems += _lost_registry(kernel, found)
    set_dev_dax(prog, pagemaps, layout.page_shift)
    for pagemap, sample in zip(pagemaps, samples):
        pagemap.node = node_of(layout, sample)
        pagemap.deduplicated = is_deduplicated(prog, pagemap, layout)
        pagemap.drained = is_drained(prog, pagemap, layout)
    kernel.memory = open_memory(prog) if pagemaps else None
    return kernel
