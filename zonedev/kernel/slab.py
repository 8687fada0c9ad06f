# SPDX-License-Identifier: LGPL-2.1-or-later
"""The slab object that an address lies in: of which cache, and whether it is in use.

Owns what is believed of the answer; the looking is drgn's (drgn.helpers.linux.slab), which goes by what sheaves say of
themselves: a cache with sheaves of a size that none has is not looked at.  Never fails: what cannot be told is None.
Mirrors mm/slub.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple, Optional

from drgn import Object, Program
from drgn.helpers import ValidationError
from drgn.helpers.linux.cpumask import for_each_online_cpu
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.nodemask import for_each_online_node
from drgn.helpers.linux.percpu import per_cpu_ptr
from drgn.helpers.linux.slab import find_containing_slab_cache, slab_object_info

from zonedev.kernel.gaps import ERRORS
from zonedev.kernel.strings import text_at

_NAME_MAX = 64

# Objects of a sheaf, and full sheaves of a node: MAX_FULL_SHEAVES is 10.
_OBJECTS_MAX = 1 << 12
_SHEAVES_MAX = 1 << 10

_ERRORS = (*ERRORS, ValidationError)


class SlabObject(NamedTuple):
    """An object of a slab: its address, the cache's name, and whether it is in use (None: that cannot be told)."""

    address: int
    cache: str
    allocated: Optional[bool]


def _sheaves(cache: Object) -> Iterator[Object]:
    """The sheaves of a ``struct kmem_cache *`` that hold free objects.

    Since commit 2d517aa09bbc ("slab: add opt-in caching layer of percpu sheaves") (in v6.18).
    """
    prog = cache.prog_
    for cpu in for_each_online_cpu(prog):
        cpu_sheaves = per_cpu_ptr(cache.cpu_sheaves, cpu)
        yield from (one for one in (cpu_sheaves.main.read_(), cpu_sheaves.spare.read_()) if one)
    # Since commit 5ba6bc27b1f9 ("slab: decouple pointer to barn from kmem_cache_node") (in v7.1).
    nodes = cache.per_node if hasattr(cache, "per_node") else cache.node
    for node in for_each_online_node(prog):
        barn = nodes[node].barn.read_()
        if barn:
            full = list_for_each_entry(
                "struct slab_sheaf", barn.sheaves_full.address_of_(), "barn_list"
            )
            yield from islice(full, _SHEAVES_MAX)


def _is_believable(cache: Object) -> bool:
    """Whether the sheaves of a cache have sizes that can be."""
    if not hasattr(cache, "cpu_sheaves") or not cache.cpu_sheaves:
        return True
    return all(int(sheaf.size) <= _OBJECTS_MAX for sheaf in _sheaves(cache))


def slab_object(prog: Program, address: int) -> Optional[SlabObject]:
    """The slab object at an address of kernel memory; None where there is none, or it cannot be told."""
    try:
        cache = find_containing_slab_cache(prog, address)
        if not cache or not _is_believable(cache):
            return None
        found = slab_object_info(prog, address)
        if found is None:
            return None
        name = text_at(prog, int(cache.name), _NAME_MAX)
        return SlabObject(found.address, name, found.allocated)
    except _ERRORS:
        return None
