# SPDX-License-Identifier: LGPL-2.1-or-later
"""The pool that peer-to-peer memory is allocated from: which pages of a P2PDMA pagemap are handed out.

Owns the way from a pagemap to its gen_pool and the reading of the pool's bitmap. A PCI device has one
pool, with a chunk for each of its pagemaps.  What follows from a bit is the core's to judge.

Mirrors drivers/pci/p2pdma.c and lib/genalloc.c.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from drgn import FaultError, Object, Program, TypeKind, cast, container_of, sizeof

from zonedev.kernel.layout import KernelLayout
from zonedev.model import Pagemap

# Bounds for what is read from a dump: pieces of a device's BARs, and pages of one of them (4 TiB).
_CHUNKS_MAX = 256
_PAGES_MAX = 1 << 30


class CannotRead(Exception):
    """The pool cannot be read; its argument says why."""


class Pool(NamedTuple):
    """Which pages are handed out: bit i % 8 of byte i // 8 is page start_pfn + i; the kernel's lies at address."""

    start_pfn: int
    pages: int
    bitmap: bytes
    address: int


def _pci_dev(pgmap: Object) -> Object:
    """``struct pci_dev *`` whose memory a P2PDMA pagemap is."""
    wrapper = container_of(pgmap, "struct pci_p2pdma_pagemap", "pgmap")
    # Since commit f58ef9d1d135 ("PCI/P2PDMA: Separate the mmap() support from the core logic") (in v6.19),
    # its provider of memory names a device; before, the pagemap names the PCI device.
    if wrapper.type_.type.has_member("mem"):
        return container_of(wrapper.mem.owner.read_(), "struct pci_dev", "dev")
    return wrapper.provider.read_()


def _chunks(pool: Object) -> Iterator[Object]:
    """``struct gen_pool_chunk *`` of a pool, a bounded number."""
    head = pool.chunks.address_of_()
    node = head.next.read_()
    for _ in range(_CHUNKS_MAX):
        if node == head:
            return
        yield container_of(node, "struct gen_pool_chunk", "next_chunk")
        node = node.next.read_()
    raise CannotRead(f"its pool has more than {_CHUNKS_MAX} chunks")


def _owner(pgmap: Object) -> int:
    """What a chunk of the pool names as its owner: the pagemap's reference."""
    # Since commit b80892ca022e ("memremap: remove support for external pgmap refcounts") (in v5.17) it is
    # embedded; before, a pointer.
    ref = pgmap.ref
    return int(
        ref if ref.type_.kind == TypeKind.POINTER else cast("unsigned long", ref.address_of_())
    )


def _bitmap(prog: Program, address: int, pages: int) -> bytes:
    """A chunk's bits, lowest page first."""
    size = sizeof(prog.type("unsigned long"))
    words = -(-pages // (8 * size))
    raw: bytes = prog.read(address, words * size)
    platform = prog.platform
    assert platform is not None
    if not platform.flags & platform.flags.IS_LITTLE_ENDIAN:
        raw = b"".join(raw[i : i + size][::-1] for i in range(0, len(raw), size))
    return raw


def _pool(prog: Program, pagemap: Pagemap, layout: KernelLayout) -> Pool:
    pgmap = Object(prog, "struct dev_pagemap *", value=pagemap.address)
    if len(pagemap.ranges) != 1:
        raise CannotRead(f"it has {len(pagemap.ranges)} ranges")
    p2pdma = _pci_dev(pgmap).p2pdma.read_()
    if not p2pdma or not p2pdma.pool:
        raise CannotRead("its device has no pool")
    pool = p2pdma.pool.read_()
    if int(pool.min_alloc_order) != layout.page_shift:
        raise CannotRead("its pool does not hand out single pages")
    # Since commit 795ee30648c7 ("lib/genalloc: introduce chunk owners") (in v5.3).
    owner, range_ = _owner(pgmap), pagemap.ranges[0]
    for chunk in _chunks(pool):
        pages = (int(chunk.end_addr) - int(chunk.start_addr) + 1) >> layout.page_shift
        if int(chunk.owner) == owner and pages == range_.pages <= _PAGES_MAX:
            address = int(chunk.bits.address_of_())
            return Pool(range_.start_pfn, pages, _bitmap(prog, address, pages), address)
    raise CannotRead("no chunk of its pool is its own")


def read_pool(prog: Program, pagemap: Pagemap, layout: KernelLayout) -> Pool:
    """Which pages of a P2PDMA pagemap are handed out.

    :raises CannotRead: the pool, or the types that lead to it, are not there
    """
    try:
        return _pool(prog, pagemap, layout)
    except (LookupError, AttributeError) as err:
        raise CannotRead(f"types and symbols do not tell where its pool is: {err}") from None
    except (FaultError, ValueError, OverflowError) as err:
        raise CannotRead(f"its pool cannot be read: {err}") from None
