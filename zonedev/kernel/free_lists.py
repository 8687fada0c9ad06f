# SPDX-License-Identifier: LGPL-2.1-or-later
"""The lists on which drivers keep their free pages, as far as types tell where they are.

Owns the way from a pagemap to the heads of its driver's lists.  The lists are linked through
page->zone_device_data; walking them is the core's (ext/core/pagebits.h), judging that of its rules.
A driver is told by its dev_pagemap_ops, as its types are by the debug information of its module.

Mirrors lib/test_hmm.c, drivers/gpu/drm/nouveau/nouveau_dmem.c, drivers/xen/unpopulated-alloc.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from drgn import FaultError, FindObjectFlags, Object, Program, TypeKind, container_of

from zonedev.model import Pagemap

# Heads of lists: of single pages, and since 6.19 of large folios.
_HEADS = ("free_pages", "free_folios")


class CannotFind(Exception):
    """No list of a pagemap's driver is known; its argument says why."""


class FreeList(NamedTuple):
    """A list of free pages: whose it is, where its head lies, and the first struct page on it (0: none)."""

    driver: str
    head: int
    first: int


class _Driver(NamedTuple):
    """A driver that keeps lists: its name, and the way from its pagemap to what holds their heads."""

    name: str
    holder: Callable[[Object], Object]


def _dmirror_device(pgmap: Object) -> Object:
    # Since commit b2ef9f5a5cb3 ("mm/hmm/test: add selftest driver for HMM") (in v5.8).
    return container_of(pgmap, "struct dmirror_chunk", "pagemap").mdevice.read_()


def _nouveau_dmem(pgmap: Object) -> Object:
    return container_of(pgmap, "struct nouveau_dmem_chunk", "pagemap").drm.dmem.read_()


_DRIVERS = {
    "dmirror_devmem_ops": _Driver("test_hmm", _dmirror_device),
    "nouveau_dmem_pagemap_ops": _Driver("nouveau", _nouveau_dmem),
}


def _heads(prog: Program, pagemap: Pagemap) -> Iterator[FreeList]:
    driver = _DRIVERS.get(pagemap.ops or "")
    if driver is None:
        raise CannotFind(f"its driver ({pagemap.ops or 'without ops'}) keeps no list that is known")
    holder = driver.holder(Object(prog, "struct dev_pagemap *", value=pagemap.address))
    names = [name for name in _HEADS if holder.type_.type.has_member(name)]
    if not names:
        raise CannotFind(f"{driver.name} keeps no list of single pages")
    for name in names:
        head = holder.member_(name)
        yield FreeList(driver.name, int(head.address_ or 0), int(head))


def _xen_list(prog: Program) -> Iterator[FreeList]:
    head = prog.object("page_list", FindObjectFlags.VARIABLE)
    # Since commit ee32f32335e8 ("xen: don't use page->lru for ZONE_DEVICE memory") (in v5.10), a chain; before,
    # a list_head, which destroys the pgmap of its pages.
    if head.type_.kind != TypeKind.POINTER:
        raise CannotFind("Xen's list is linked through page->lru")
    yield FreeList("xen", int(head.address_ or 0), int(head))


def find_lists(prog: Program, pagemap: Pagemap) -> list[FreeList]:
    """The lists that pages of a pagemap may be on.

    :raises CannotFind: there are none that types tell, or they cannot be read
    """
    try:
        return list(_xen_list(prog) if pagemap.foreign_maps else _heads(prog, pagemap))
    except (LookupError, AttributeError) as err:
        raise CannotFind(f"the debug information of its driver is not there: {err}") from None
    except (FaultError, ValueError, OverflowError) as err:
        raise CannotFind(f"the head of its list cannot be read: {err}") from None
