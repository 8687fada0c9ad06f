# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pins for devices that are driven from user space, which stay as long as the device may reach the memory: RDMA and VFIO.

Owns the ways from an open file to what it has pinned.  Of RDMA these are memory regions (struct ib_mr), not the queues
of a driver; of VFIO, the mappings of its type 1 IOMMU, and pages pinned one by one for emulated devices.

What VFIO has pinned only the IOMMU knows by now: the pages are looked up in the page tables of the process.  Where
they are not all mapped any more, that is a gap; that others are mapped there instead cannot be seen.

Mirrors drivers/vfio/vfio_iommu_type1.c, drivers/infiniband/core/umem.c, include/linux/scatterlist.h.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple, Optional

from drgn import Object, Program, offsetof

from zonedev.kernel.gaps import ERRORS
from zonedev.kernel.held import Held, Search, where
from zonedev.kernel.members import Members, enumerator, has_member
from zonedev.kernel.pagetable import EVERYWHERE_MAX, CannotWalk, Entry, PageTables, Pfns
from zonedev.kernel.strings import text_of
from zonedev.kernel.tasks import OpenFile

# Bounds for what an untrusted dump says.
_NODES_MAX = 1 << 20
_PIECES_MAX = 1 << 24

# The low bits of scatterlist.page_link.
_SG_CHAIN, _SG_END = 1, 2


def _each_node(prog: Program, root: int) -> Iterator[int]:
    """Addresses of the nodes of a struct rb_root, in no order.

    :raises ValueError: it is none
    """
    (node,), links = (
        Members(prog, "struct rb_root", "rb_node").read(root),
        Members(prog, "struct rb_node", "rb_left", "rb_right"),
    )
    seen: set[int] = set()
    stack = [node]
    while stack:
        at = stack.pop()
        if not at:
            continue
        if at in seen or len(seen) >= _NODES_MAX:
            raise ValueError(f"the tree is corrupt at {at:#x}")
        seen.add(at)
        yield at
        stack += links.read(at)


# ---------------------------------------------------------------- VFIO


class _Dma(NamedTuple):
    """A struct vfio_dma: its process's [vaddr, vaddr + size) is what the device sees at iova."""

    address: int
    iova: int
    vaddr: int
    size: int
    iommu_mapped: int
    owner: int


class Vfio:
    """
    Memory that VFIO has mapped for devices: a pin for each page.

    :raises LookupError: the types of its modules are not known
    """

    def __init__(self, search: Search) -> None:
        prog = search.prog
        self._search, self._seen = search, set[int]()
        self._container = Members(prog, "struct vfio_container", "iommu_driver", "iommu_data")
        self._driver = Members(prog, "struct vfio_iommu_driver", "ops")
        # Since commit 046eca5018f8 ("vfio/type1: prevent underflow of locked_vm via exec()") (in v6.3) a mapping keeps its
        # address space; before, its process.
        self._has_mm = has_member(prog, "struct vfio_dma", "mm")
        owner = "mm" if self._has_mm else "task"
        self._dma = Members(prog, "struct vfio_dma", "iova", "vaddr", "size", "iommu_mapped", owner)
        self._invalid: Optional[Members] = None
        if has_member(prog, "struct vfio_dma", "vaddr_invalid"):
            self._invalid = Members(prog, "struct vfio_dma", "vaddr_invalid")
        self._dma_list = offsetof(prog.type("struct vfio_iommu"), "dma_list")
        self._dma_node = offsetof(self._dma.type, "node")
        self._pfn_list = offsetof(self._dma.type, "pfn_list")
        self._pfn = Members(prog, "struct vfio_pfn", "iova", "pfn")
        self._pfn_node = offsetof(self._pfn.type, "node")
        self._mm = Members(prog, "struct task_struct", "mm")
        self._tables = PageTables(prog)
        self._pfns, self._left = Pfns(search.folios.pfns), [EVERYWHERE_MAX]
        self._shift = int(prog["PAGE_SHIFT"])

    def of(self, file: OpenFile) -> Iterator[Held]:
        """The pages that the container behind a descriptor has pinned."""
        container = file.private
        if container in self._seen:
            return
        self._seen.add(container)
        driver, data = self._container.read(container)
        if not driver:
            return
        name = self._search.symbol_at(self._driver.read(driver)[0])
        if name == "vfio_noiommu_ops":
            return
        if name != "vfio_iommu_driver_ops_type1":
            raise ValueError(f"nothing is known of its IOMMU driver {name}")
        for node in _each_node(self._search.prog, data + self._dma_list):
            address = node - self._dma_node
            dma = _Dma(address, *self._dma.read(address))
            text = f"container {container:#x} ({where(file)}), DMA address {dma.iova:#x}"
            try:
                yield from self._one_by_one(dma, text, file)
                if dma.iommu_mapped:
                    yield from self._mapped(dma, text, file)
            except (CannotWalk, *ERRORS) as err:
                self._search.gap(f"VFIO: {text}: {err}")

    def _one_by_one(self, dma: _Dma, text: str, file: OpenFile) -> Iterator[Held]:
        """Pages that were pinned for a device that the kernel emulates."""
        for node in _each_node(self._search.prog, dma.address + self._pfn_list):
            address = node - self._pfn_node
            _, pfn = self._pfn.read(address)
            for folio, count in self._search.folios.of_pfns(pfn, 1).items():
                yield Held("vfio", folio, count, True, address, f"{text}, one page", file.task)

    def _mapped(self, dma: _Dma, text: str, file: OpenFile) -> Iterator[Held]:
        """Pages that were pinned as the memory was mapped for a device."""
        if self._invalid and self._invalid.read(dma.address)[0]:
            raise ValueError("its process has taken the memory back for now")
        mm = dma.owner if self._has_mm else self._mm.read(dma.owner)[0]
        if not mm:
            raise ValueError("its process has no memory any more")
        pins: Counter[int] = Counter()
        mapped = [0]
        end = min(dma.vaddr + dma.size, self._tables.user_end)
        for entry in self._tables.entries(
            mm, dma.vaddr, end, self._pfns, self._left, mapped=mapped
        ):
            if entry.kind == "map":
                pins.update(self._inside(dma, entry))
        for folio, count in pins.items():
            words = f"{text}, {dma.size:#x} bytes from {dma.vaddr:#x}"
            yield Held("vfio", folio, count, True, dma.address, words, file.task)
        pages = dma.size >> self._shift
        if mapped[0] < pages:
            who = f"{file.task.comm}, pid {file.task.pid}"
            self._search.gap(
                f"VFIO: {text}: of {pages} pages that {who} had at {dma.vaddr:#x} when they were pinned, "
                f"{pages - mapped[0]} are not mapped there any more: which they are is not known"
            )

    def _inside(self, dma: _Dma, entry: Entry) -> dict[int, int]:
        """Per folio, how many of the pages of an entry a mapping for a device has."""
        start = max(entry.address, dma.vaddr)
        end = min(entry.address + (entry.pages << self._shift), dma.vaddr + dma.size)
        first = entry.pfn + ((start - entry.address) >> self._shift)
        return self._search.folios.of_pfns(first, (end - start) >> self._shift)


class IommuFd:
    """Stands for iommufd, whose pins nobody looks for: what it says of them is spread over its areas and their domains."""

    def __init__(self, search: Search) -> None:
        pass

    def of(self, file: OpenFile) -> Iterator[Held]:
        """Say so."""
        raise ValueError("what iommufd has pinned is not looked for")


# ---------------------------------------------------------------- RDMA


class _Driver(NamedTuple):
    """Where a driver keeps the memory of a region: its name in enum rdma_driver_id, the struct, and, as members of that,
    the struct ib_mr and the pointer to the struct ib_umem."""

    id: str
    type: str
    mr: str = "ibmr"
    umem: str = "umem"


_DRIVERS = (
    _Driver("RDMA_DRIVER_RXE", "struct rxe_mr"),
    # Before commit 364e282c4fe7 ("RDMA/rxe: Split MEM into MR and MW") (in v5.13).
    _Driver("RDMA_DRIVER_RXE", "struct rxe_mem"),
    _Driver("RDMA_DRIVER_MLX5", "struct mlx5_ib_mr"),
    _Driver("RDMA_DRIVER_MLX4", "struct mlx4_ib_mr"),
    _Driver("RDMA_DRIVER_BNXT_RE", "struct bnxt_re_mr", "ib_mr", "ib_umem"),
    _Driver("RDMA_DRIVER_CXGB4", "struct c4iw_mr"),
    _Driver("RDMA_DRIVER_EFA", "struct efa_mr"),
    _Driver("RDMA_DRIVER_HFI1", "struct rvt_mr"),
    _Driver("RDMA_DRIVER_IRDMA", "struct irdma_mr", umem="region"),
    _Driver("RDMA_DRIVER_MANA", "struct mana_ib_mr"),
    _Driver("RDMA_DRIVER_MTHCA", "struct mthca_mr"),
    _Driver("RDMA_DRIVER_OCRDMA", "struct ocrdma_mr"),
    _Driver("RDMA_DRIVER_QEDR", "struct qedr_mr"),
)


class _Region(NamedTuple):
    """Where a driver's struct has its struct ib_mr and its pointer to a struct ib_umem, in bytes."""

    mr: int
    umem: Members


def _region(prog: Program, row: _Driver) -> Optional[_Region]:
    try:
        umem = Members(prog, row.type, row.umem)
        return _Region(offsetof(umem.type, row.mr), umem)
    except LookupError:
        return None


class Rdma:
    """
    Memory that was registered with RDMA devices: a pin for each page of the memory of a region.

    :raises LookupError: the types of the module are not known
    """

    def __init__(self, search: Search) -> None:
        prog = search.prog
        self._search, self._seen = search, set[int]()
        self._uobjects = offsetof(prog.type("struct ib_uverbs_file"), "uobjects")
        self._list = Members(prog, "struct list_head", "next")
        self._uobject = Members(prog, "struct ib_uobject", "object", "uapi_object", "list.next")
        self._kind = Members(prog, "struct uverbs_api_object", "id")
        self._mr = Members(prog, "struct ib_mr", "device")
        self._ops = Members(prog, "struct ib_device", "ops.driver_id", "ops.owner")
        self._sg = Members(prog, "struct scatterlist", "page_link", "offset", "length")
        self._is_mr = enumerator(prog, "enum uverbs_default_objects", "UVERBS_OBJECT_MR")
        self._regions: dict[int, _Region] = {}
        self._page = int(prog["PAGE_SIZE"])

    def of(self, file: OpenFile) -> Iterator[Held]:
        """The memory of the regions that a descriptor of a device has registered."""
        if file.private in self._seen:
            return
        self._seen.add(file.private)
        for mr in self._each_mr(file.private):
            device = self._mr.read(mr)[0]
            try:
                region = self._region_of(device)
                umem = region.umem.read(mr - region.mr)[0]
                if umem:
                    name = text_of(self._device(device).name.string_())
                    text = f"region {mr:#x} of {name} ({where(file)})"
                    yield from self._of_umem(umem, text, file)
            except ERRORS as err:
                self._search.gap(f"RDMA: memory region {mr:#x} cannot be read: {err}")

    def _each_mr(self, ufile: int) -> Iterator[int]:
        """Addresses of the struct ib_mr of a struct ib_uverbs_file."""
        head = ufile + self._uobjects
        at, link = self._list.read(head)[0], self._uobject.offset("list.next")
        seen: set[int] = set()
        while at != head:
            if at in seen or len(seen) >= _NODES_MAX:
                raise ValueError(f"the list of its objects is corrupt at {at:#x}")
            seen.add(at)
            mr, kind, at = self._uobject.read(at - link)
            if mr and self._kind.read(kind)[0] == self._is_mr:
                yield mr

    def _device(self, device: int) -> Object:
        return Object(self._search.prog, "struct ib_device *", value=device)

    def _region_of(self, device: int) -> _Region:
        """How the driver of a struct ib_device keeps its regions.

        :raises LookupError: that is not known
        """
        prog = self._search.prog
        number, owner = self._ops.read(device)
        if number not in self._regions:
            ids = prog.type("enum rdma_driver_id").enumerators or ()
            names = [one.name for one in ids if one.value == number]
            rows = [row for row in _DRIVERS if row.id in names]
            found = list(filter(None, (_region(prog, row) for row in rows)))
            if not found:
                module = Object(prog, "struct module *", value=owner).name.string_()
                lack = "give its debug file" if rows else "nothing is known of its regions"
                raise LookupError(f"its driver is {text_of(module)}: {lack}")
            self._regions[number] = found[0]
        return self._regions[number]

    def _of_umem(self, address: int, text: str, file: OpenFile) -> Iterator[Held]:
        """The pages of a struct ib_umem."""
        umem = Object(self._search.prog, "struct ib_umem *", value=address)
        has = umem.type_.type.has_member
        # Memory that is paged in on demand, or another device's, is not pinned.
        if umem.is_odp or (has("is_dmabuf") and umem.is_dmabuf):
            return
        # Since commit 79fbd3e1241c ("RDMA: Use the sg_table directly and remove the opencoded version from umem") (in
        # v5.15) the table counts its pieces itself.
        if has("sgt_append"):
            table = umem.sgt_append.sgt
            count = int(table.orig_nents)
        else:
            table = umem.sg_head
            count = int(umem.sg_nents)
        for at, (page, offset, length) in self._pieces(int(table.sgl), count):
            pages = -(-(offset + length) // self._page)
            for folio, number in self._search.folios.counts(page, pages).items():
                yield Held("rdma-umem", folio, number, True, at, text, file.task)

    def _pieces(self, at: int, count: int) -> Iterator[tuple[int, tuple[int, int, int]]]:
        """(address, (page, offset, length)) of the elements of a chained scatterlist.

        :raises ValueError: it is none
        """
        if count > _PIECES_MAX:
            raise ValueError(f"memory of {count} pieces")
        chained: set[int] = set()
        while count > 0:
            # A part of the list does not go beyond a page; a pointer to the next part is its last element.
            room = max((self._page - at % self._page) // self._sg.size, 1)
            raw = self._search.prog.read(at, min(room, count + 1) * self._sg.size)
            for link, offset, length in self._sg.each(raw):
                here, at = at, at + self._sg.size
                if link & _SG_CHAIN:
                    at = link & ~(_SG_CHAIN | _SG_END)
                    if at in chained or len(chained) >= _NODES_MAX:
                        raise ValueError(f"the list of its pieces is corrupt at {here:#x}")
                    chained.add(at)
                    break
                if not link & ~_SG_END:
                    raise ValueError(f"a piece without a page, at {here:#x}")
                count -= 1
                yield here, (link & ~_SG_END, offset, length)
                if not count:
                    return
                if link & _SG_END:
                    raise ValueError(f"the list of its pieces ends {count} too early")
