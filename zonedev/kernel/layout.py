# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where the members of struct page and struct folio lie in the kernel at hand.

Owns the layout of one kernel, found by type and member, newest name first.  Does not decode (C core)
and does not choose a scheme (scheme.py).  A member that the kernel lacks is left out, which makes
the rules that need it not applicable.  Zone and node bits are computed from the types, and then
checked against pages of the pagemaps themselves: what disagrees is reported as unknown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional

from drgn import Architecture, FaultError, PlatformFlags, Program, Type, TypeKind, offsetof, sizeof

from zonedev import _zonedev
from zonedev.errors import TargetError

Field = tuple[int, int, int]

# Signed _mapcount values below this are page types, before enum pagetype had PGTY_* enumerators.
_PAGE_MAPCOUNT_RESERVE = -128


class _Place(NamedTuple):
    """A place to look for a member: type, member, struct pages to skip, low bits that count."""

    type: str
    member: str
    page: int = 0
    bits: int = 0


# Newest first.  For folio members of old kernels the tail's struct page is named instead.
_PLACES: dict[str, tuple[_Place, ...]] = {
    "flags": (_Place("struct page", "flags"),),
    "pgmap": (
        # Since commit 82ba975e4c43 ("mm: allow compound zone device pages") (in v6.15).
        _Place("struct folio", "pgmap"),
        _Place("struct page", "pgmap"),
    ),
    "zone_device_data": (
        _Place("struct folio", "zone_device_data"),
        _Place("struct page", "zone_device_data"),
    ),
    "mapping": (_Place("struct page", "mapping"),),
    "index": (
        # Since commit acc53a0b4c15 ("mm: rename page->index to page->__folio_index") (in v6.16).
        _Place("struct page", "__folio_index"),
        _Place("struct page", "index"),
    ),
    "share": (
        _Place("struct folio", "share"),
        # Since commit 169004265860 ("fsdax: introduce page->share for fsdax in reflink mode") (v6.2).
        _Place("struct page", "share"),
    ),
    "_mapcount": (_Place("struct page", "_mapcount"),),
    "_refcount": (
        _Place("struct page", "_refcount"),
        # Before commit 0139aa7b7fa1 ("mm: rename _count, field of the struct page, to _refcount") (in v4.7).
        _Place("struct page", "_count"),
    ),
    "memcg_data": (
        _Place("struct folio", "memcg_data"),
        # Since commit bcfe06bf2622 ("mm: memcontrol: Use helpers to read page's memcg data") (in v5.11).
        _Place("struct page", "memcg_data"),
        _Place("struct page", "mem_cgroup"),
    ),
    # _folio_order goes first: while it was there, the low bits of _flags_1 were page flags.
    "order": (
        _Place("struct folio", "_folio_order"),
        # Since commit ebc1baf5c9b4 ("mm: free up a word in the first tail page") (in v6.6).
        _Place("struct folio", "_flags_1", 0, 8),
        _Place("struct page", "compound_order", 1),
    ),
    "_large_mapcount": (
        # Since commit 05c5323b2a34 ("mm: track mapcount of large folios in single value") (in v6.10).
        _Place("struct folio", "_large_mapcount"),
        _Place("struct folio", "_entire_mapcount"),
        _Place("struct folio", "_total_mapcount"),
        _Place("struct page", "compound_mapcount", 1),
    ),
    "_pincount": (
        _Place("struct folio", "_pincount"),
        _Place("struct page", "compound_pincount", 1),
        _Place("struct page", "hpage_pinned_refcount", 2),
    ),
}


@dataclass
class KernelLayout:
    """The layout, and what goes with it for people and for the walk.

    vmemmap is the address of the struct page of pfn 0; flag_names maps bit to name without "PG_".
    """

    layout: _zonedev.Layout
    page_size: int
    page_shift: int
    vmemmap: int
    flag_names: dict[int, str]
    fields: dict[str, Field]
    pmd_order: int
    zone: tuple[int, int]
    node: tuple[int, int]
    zone_device: int
    spec: dict[str, Any]

    def page_address(self, pfn: int) -> int:
        """Address of the pfn's struct page."""
        return self.vmemmap + pfn * self.page_size

    def flags(self, word: int) -> list[str]:
        """Names of the page flags in a flags word; zone, node and what lies beyond are left out."""
        return [name for bit, name in sorted(self.flag_names.items()) if word >> bit & 1]

    def without_zone(self) -> KernelLayout:
        """The same layout with zone and node bits unknown."""
        return _make(self.spec, (0, 0), (0, 0), self)


def _has(prog: Program, type_name: str, member: str) -> Optional[Type]:
    try:
        type_ = prog.type(type_name)
    except LookupError:
        return None
    return type_ if type_.has_member(member) else None


def _find_field(prog: Program, places: Iterable[_Place], page_size: int) -> Optional[Field]:
    for place in places:
        type_ = _has(prog, place.type, place.member)
        if type_ is None:
            continue
        size = sizeof(type_.member(place.member).type)
        return place.page * page_size + offsetof(type_, place.member), size, place.bits
    return None


def _enumerators(prog: Program, name: str) -> dict[str, int]:
    try:
        return {e.name: e.value for e in prog.type(f"enum {name}").enumerators or ()}
    except LookupError:
        return {}


def _page_type_limit(prog: Program) -> int:
    # Since commit 4ffca5a96678 ("mm: support only one page_type per page") (in v6.12), page types
    # are numbers in the top byte; the first that is none is PGTY_mapcount_underflow.
    try:
        top = int(prog.constant("PGTY_mapcount_underflow"))
    except LookupError:
        return _PAGE_MAPCOUNT_RESERVE
    return (top << 24) - (1 << 32)


def _log2_up(n: int) -> int:
    return max(n - 1, 0).bit_length()


def _nodes_shift(prog: Program) -> int:
    try:
        type_ = prog["node_data"].type_
    except KeyError:
        return 0
    while type_.kind == TypeKind.TYPEDEF:
        type_ = type_.type
    return _log2_up(type_.length or 1) if type_.kind == TypeKind.ARRAY else 0


def _zone_and_node(prog: Program, word_size: int) -> tuple[tuple[int, int], tuple[int, int], int]:
    """Zone and node bits as include/linux/page-flags-layout.h places them under SPARSEMEM_VMEMMAP."""
    zones = _enumerators(prog, "zone_type")
    if "ZONE_DEVICE" not in zones or "__MAX_NR_ZONES" not in zones:
        return (0, 0), (0, 0), 0
    count = zones["__MAX_NR_ZONES"]
    zone_width = 1 if count <= 2 else 2 if count <= 4 else 3
    node_width = _nodes_shift(prog)
    node_shift = 8 * word_size - node_width
    # A kernel without CONFIG_NUMA has no node bits at all.
    node = (node_shift, node_width) if node_width else (0, 0)
    return (node_shift - zone_width, zone_width), node, zones["ZONE_DEVICE"]


def _pmd_order(prog: Program, page_shift: int) -> int:
    """Order of a PMD mapping, 0 where it is not known."""
    assert prog.platform is not None
    arch = prog.platform.arch
    if arch == Architecture.S390X:
        return 8
    # With 64 KiB pages it depends on the MMU (radix or hash).
    if arch == Architecture.PPC64 and page_shift == 16:
        return 0
    # A page table page holds PAGE_SIZE / 8 entries.
    return page_shift - 3


def _make(
    spec: dict[str, Any],
    zone: tuple[int, int],
    node: tuple[int, int],
    like: KernelLayout,
) -> KernelLayout:
    layout = _zonedev.Layout(**spec, zone=zone, node=node)
    return KernelLayout(
        layout,
        like.page_size,
        like.page_shift,
        like.vmemmap,
        like.flag_names,
        like.fields,
        like.pmd_order,
        zone,
        node,
        like.zone_device,
        spec,
    )


def _vmemmap(prog: Program) -> int:
    try:
        vmemmap = int(prog["vmemmap"])
    except (LookupError, ValueError) as err:
        raise TargetError(
            "this kernel has no virtual memory map (CONFIG_SPARSEMEM_VMEMMAP): ZONE_DEVICE needs "
            f"one, so there is nothing to audit ({err})"
        ) from None
    except FaultError as err:
        raise TargetError(
            f"the memory map cannot be found: mem_section cannot be read ({err}); the core is damaged, "
            "cut off or filtered too hard"
        ) from None
    assert prog.platform is not None
    upper_half = prog.platform.arch != Architecture.S390X
    if vmemmap % 8 or not vmemmap or (upper_half and not vmemmap >> 63):
        raise TargetError(
            f"the memory map cannot be found: mem_section leads to {vmemmap:#x}, which is no address "
            "for it; the core is damaged"
        )
    return vmemmap


def kernel_layout(prog: Program) -> KernelLayout:
    """The layout of the kernel that prog is attached to.

    :raises TargetError: struct page is not known, or lacks an indispensable member
    """
    try:
        page = prog.type("struct page")
    except LookupError as err:
        raise TargetError(
            f"no type is known of struct page ({err}); load the kernel's debug information, or take its own types: "
            "zonedev.kernel.btf.use_btf(prog)"
        ) from None
    assert prog.platform is not None
    flags = prog.platform.flags
    word_size = 8 if flags & PlatformFlags.IS_64_BIT else 4
    page_shift = int(prog["PAGE_SHIFT"])
    fields: dict[str, Field] = {}
    for name, places in _PLACES.items():
        found = _find_field(prog, places, page.size)
        if found is not None:
            fields[name] = found
    names = {k: v for k, v in _enumerators(prog, "pageflags").items() if k.startswith("PG_")}
    zone, node, zone_device = _zone_and_node(prog, word_size)
    spec: dict[str, Any] = {
        "page_size": page.size,
        "word_size": word_size,
        "big_endian": not flags & PlatformFlags.IS_LITTLE_ENDIAN,
        "page_shift": page_shift,
        "pmd_order": _pmd_order(prog, page_shift),
        # Since commit 8c846c879e22 ("mm: rework compound_head() for power-of-2 sizeof(struct page)"),
        # a tail may hold an alignment mask instead of its head's address.
        "compound_mask": page.has_member("compound_info"),
        "page_type_limit": _page_type_limit(prog),
        "fields": fields,
        "flags": names,
        "zone_device": zone_device,
    }
    try:
        layout = _zonedev.Layout(**spec, zone=zone, node=node)
    except (ValueError, OverflowError) as err:
        raise TargetError(f"the kernel's struct page makes no sense: {err}") from None
    limit = zone[0] if zone[1] else 8 * word_size
    return KernelLayout(
        layout,
        page.size,
        page_shift,
        _vmemmap(prog),
        _flag_bits(names, limit),
        fields,
        _pmd_order(prog, page_shift),
        zone,
        node,
        zone_device,
        spec,
    )


def _flag_bits(names: dict[str, int], limit: int) -> dict[int, str]:
    """Bit -> name; of aliases of one bit the first (the generic name) wins."""
    bits: dict[int, str] = {}
    for name, bit in names.items():
        if bit < limit and bit < names.get("__NR_PAGEFLAGS", limit):
            bits.setdefault(bit, name[3:])
    return bits


def check_zone(layout: KernelLayout, samples: Sequence[bytes]) -> tuple[KernelLayout, str]:
    """Check the zone bits against struct pages of pagemaps; (layout, evidence in words).

    Where most of them are not in ZONE_DEVICE the bits are taken as unknown rather than guessed.
    """
    shift, width = layout.zone
    if not width:
        return layout, "zone bits: not known from the types"
    seen: Counter[int] = Counter()
    for sample in samples:
        for word in _zonedev.flags_of(layout.layout, sample):
            if word:
                seen[word >> shift & ((1 << width) - 1)] += 1
    total = sum(seen.values())
    right = seen[layout.zone_device]
    if total and right * 2 <= total:
        return layout.without_zone(), (
            f"zone bits: only {right} of {total} sampled pages show ZONE_DEVICE at bit {shift}; not used"
        )
    return (
        layout,
        f"zone bits: {width} at bit {shift}, ZONE_DEVICE on {right} of {total} sampled pages",
    )


def node_of(layout: KernelLayout, sample: bytes) -> Optional[int]:
    """The node that most of the sampled struct pages lie on; None where nobody can know."""
    shift, width = layout.node
    if not width:
        return None
    words = [w for w in _zonedev.flags_of(layout.layout, sample) if w]
    nodes = Counter(w >> shift & ((1 << width) - 1) for w in words)
    return nodes.most_common(1)[0][0] if nodes else None
