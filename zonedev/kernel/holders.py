# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who holds references on pages beside page tables: pipes, io_uring, AF_XDP, requests to disks, and devices.

Owns the ways to these and how many references each of their words stands for; each kind is a row of _KINDS.  All of
them are gone through once for many pages; what could not be is a gap.  Pins that devices need for as long as they are
driven from user space (RDMA, VFIO) are longterm.py's.

Mirrors fs/pipe.c, io_uring/rsrc.c, net/xdp/xdp_umem.c, block/bio.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Optional, Protocol

from drgn import Object, Program, TypeKind, sizeof
from drgn.helpers.linux.module import module_address_regions

from zonedev.kernel.device import each_disk
from zonedev.kernel.held import ERRORS, Held, Search, where
from zonedev.kernel.longterm import IommuFd, Rdma, Vfio
from zonedev.kernel.members import Members, constant, has_member, words_of
from zonedev.kernel.modules import each_module
from zonedev.kernel.strings import text_of
from zonedev.kernel.tasks import OpenFile
from zonedev.kernel.tree import walk_tree

# Bounds for what an untrusted dump says.
_RING_MAX = 1 << 20
_BUFFERS_MAX = 1 << 16
_PAGES_MAX = 1 << 28
_PIECE = 1 << 17
_BIOS_MAX = 1 << 14
_VECS_MAX = 1 << 16  # bi_vcnt is a short
_QUEUES_MAX = 1 << 12
_TAGS_MAX = 1 << 16

_AF_XDP = 44


def _symbol(prog: Program, name: str) -> Optional[int]:
    try:
        return int(prog.symbol(name).address)
    except LookupError:
        return None


# ---------------------------------------------------------------- pipes


class Pipes:
    """Buffers of pipes: each that was filled by vmsplice() or splice() holds a reference on its page."""

    def __init__(self, search: Search) -> None:
        prog = search.prog
        self._search, self._seen = search, set[int]()
        self._pipe = Members(prog, "struct pipe_inode_info", "head", "tail", "ring_size", "bufs")
        self._buffer = Members(prog, "struct pipe_buffer", "page")
        # They run over at their type's end.
        self._wrap = 1 << 8 * sizeof(self._pipe.type.member("head").type)

    def of(self, file: OpenFile) -> Iterator[Held]:
        """The buffers of the pipe behind a descriptor."""
        pipe = file.private
        if pipe in self._seen:
            return
        self._seen.add(pipe)
        head, tail, size, bufs = self._pipe.read(pipe)
        filled = (head - tail) % self._wrap
        if not 0 < size <= _RING_MAX or size & (size - 1) or filled > size:
            raise ValueError(f"{filled} of {size} buffers are filled")
        if not filled:
            return
        self._search.pieces.spend(size)
        raw = self._search.prog.read(bufs, size * self._buffer.size)
        pages = self._buffer.each(raw)
        for i in range(filled):
            slot = (tail + i) & (size - 1)
            if not pages[slot][0]:
                raise ValueError(f"buffer {i} of {filled} has no page")
            folio = self._search.folios.of(pages[slot][0])
            if folio is not None:
                address = bufs + slot * self._buffer.size + self._buffer.offset("page")
                text = f"pipe {pipe:#x} ({where(file)}), buffer {i} of {filled}"
                yield Held("pipe", folio, 1, False, address, text, file.task)


# ---------------------------------------------------------------- io_uring


class IoUring:
    """Fixed buffers of io_uring: a pin for each bio_vec, whatever it spans (io_coalesce_buffer())."""

    def __init__(self, search: Search) -> None:
        prog = search.prog
        self._search, self._seen = search, set[int]()
        # Since commit 3597f2786b68 ("io_uring/rsrc: unify file and buffer resource tables") (in v6.13) a table of nodes;
        # before, an array of pointers to buffers.  Of its first form, an array of buffers (5.1 to 5.12), nothing is known.
        self._nodes = has_member(prog, "struct io_ring_ctx", "buf_table")
        names = (
            ("buf_table.nr", "buf_table.nodes") if self._nodes else ("nr_user_bufs", "user_bufs")
        )
        self._ctx = Members(prog, "struct io_ring_ctx", *names)
        self._node = Members(prog, "struct io_rsrc_node", "buf") if self._nodes else None
        self._buffer = Members(prog, "struct io_mapped_ubuf", "nr_bvecs")
        bvec = self._buffer.type.member("bvec")
        if bvec.type.kind != TypeKind.ARRAY:
            raise LookupError("fixed buffers of this kernel have another form")
        self._bvec = bvec.offset
        self._is_kernels = self._kernels_own(prog)
        self._rings: set[int] = set()
        self._page = Members(prog, "struct bio_vec", "bv_page")

    @staticmethod
    def _kernels_own(prog: Program) -> Callable[[int], bool]:
        """Tells buffers that a driver has lent (ublk): their pages are not pinned."""
        # Since commit 27cb27b6d5ea ("io_uring: add support for kernel registered bvecs") (in v6.15).
        for name in ("flags", "is_kbuf"):
            if has_member(prog, "struct io_mapped_ubuf", name):
                flag = Members(prog, "struct io_mapped_ubuf", name)
                # IO_REGBUF_F_KBUF is the lowest of the flags.
                return lambda buffer: bool(flag.read(buffer)[0] & 1)
        return lambda buffer: False

    def _buffers(self, ctx: int) -> Iterator[tuple[int, int]]:
        """(number, address) of the buffers that are registered."""
        count, table = self._ctx.read(ctx)
        if not any(self._search.prog.read(ctx, self._ctx.size)):
            raise ValueError("a ring reads as zeroes")
        if count > _BUFFERS_MAX:
            raise ValueError(f"{count} buffers are registered")
        words = (
            words_of(self._search.prog, self._search.prog.read(table, 8 * count)) if count else ()
        )
        for i, word in enumerate(words):
            if word and self._node:
                word = self._node.read(word)[0]
            if word and word not in self._seen:
                self._seen.add(word)
                yield i, word

    def of(self, file: OpenFile) -> Iterator[Held]:
        """The pages of the buffers of a ring."""
        if file.private in self._rings:
            return
        self._rings.add(file.private)
        for number, buffer in self._buffers(file.private):
            if self._is_kernels(buffer):
                continue
            count = self._buffer.read(buffer)[0]
            if count > _PAGES_MAX:
                raise ValueError(f"a buffer of {count} pieces")
            vecs = buffer + self._bvec
            for at, (page,) in self._search.array(vecs, count, self._page):
                if not page:
                    raise ValueError(f"fixed buffer {number} lacks a page")
                folio = self._search.folios.of(page)
                if folio is not None:
                    text = f"fixed buffer {number} of ring {file.private:#x} ({where(file)})"
                    yield Held("io_uring", folio, 1, True, at, text, file.task)


# ---------------------------------------------------------------- AF_XDP


class Xdp:
    """Memory of AF_XDP sockets: a pin for each page."""

    def __init__(self, search: Search) -> None:
        prog = search.prog
        self._search, self._seen = search, set[int]()
        self._socket = Members(prog, "struct socket", "sk")
        self._family = Members(prog, "struct sock", "__sk_common.skc_family")
        self._sock: Optional[Members] = None
        self._umem: Optional[Members] = None

    def of(self, file: OpenFile) -> Iterator[Held]:
        """The pages of a socket's umem."""
        prog = self._search.prog
        sk = self._socket.read(file.private)[0]
        family = self._family.read(sk)[0] if sk else None
        if family == 0:
            raise ValueError("a socket without a family")
        if family != _AF_XDP:
            return
        if self._sock is None or self._umem is None:
            self._sock = Members(prog, "struct xdp_sock", "umem")
            self._umem = Members(prog, "struct xdp_umem", "pgs", "npgs")
        umem = self._sock.read(sk)[0]
        if not umem or umem in self._seen:
            return
        self._seen.add(umem)
        pages, count = self._umem.read(umem)
        if count > _PAGES_MAX:
            raise ValueError(f"a umem of {count} pages")
        for first in range(0, count, _PIECE):
            here = pages + 8 * first
            some = min(_PIECE, count - first)
            self._search.pieces.spend(some)
            words = words_of(prog, prog.read(here, 8 * some))
            for i, page in enumerate(words):
                if not page:
                    raise ValueError(f"umem {umem:#x} lacks a page")
                folio = self._search.folios.of(page)
                if folio is not None:
                    text = f"umem {umem:#x} ({where(file)}), page {first + i}"
                    yield Held("xdp-umem", folio, 1, True, here + 8 * i, text, file.task)


# ---------------------------------------------------------------- requests to disks


class _Bios:
    """What bios hold: each page that they were given by a user of direct I/O, until they end."""

    def __init__(self, search: Search) -> None:
        prog = search.prog
        self._search = search
        self._bio = Members(
            prog,
            "struct bio",
            *("bi_next", "bi_flags", "bi_vcnt", "bi_io_vec", "bi_private"),
            *("bi_iter.bi_size", "bi_iter.bi_idx"),
        )
        self._vec = Members(prog, "struct bio_vec", "bv_page", "bv_len", "bv_offset")
        # Since commits e51bab4e2058 ("block: Replace BIO_NO_PAGE_REF with BIO_PAGE_REFFED with inverted logic") and
        # fd363244e883 ("block: Add BIO_PAGE_PINNED and associated infrastructure") (in v6.5) a bio says that it holds its
        # pages, and how; before, that it does not.
        self._pinned = constant(prog, "BIO_PAGE_PINNED")
        self._held = constant(prog, "BIO_PAGE_REFFED")
        self._not_held = constant(prog, "BIO_NO_PAGE_REF")
        self._cloned = constant(prog, "BIO_CLONED")
        self._seen: set[int] = set()
        self._bios: set[int] = set()
        self._shift = int(prog["PAGE_SHIFT"])

    def _holds(self, flags: int) -> Optional[bool]:
        """Whether a bio holds its pages, and by pins; None: by nothing."""

        def has(bit: Optional[int]) -> bool:
            return bit is not None and bool(flags >> bit & 1)

        if has(self._pinned):
            return True
        if self._not_held is not None:
            return None if has(self._not_held) else False
        return False if has(self._held) else None

    def of_chain(self, bio: int, disk: str) -> Iterator[Held]:
        """The pages of a request's bios."""
        for _ in range(_BIOS_MAX):
            if not bio:
                return
            if bio in self._bios:
                raise ValueError(f"bio {bio:#x} is reached twice")
            self._bios.add(bio)
            self._search.reads.spend()
            following, flags, count, vecs, private, size, index = self._bio.read(bio)
            if self._cloned is not None and flags >> self._cloned & 1:
                # It has the vector of the one that it was cloned from, which holds the pages.
                pins: Optional[bool] = self._pinned is not None
                pieces = self._cut(vecs + index * self._vec.size, size)
            else:
                pins = self._holds(flags)
                pieces = self._search.array(vecs, count, self._vec)
            if pins is not None and vecs not in self._seen:
                self._seen.add(vecs)
                task = self._search.task_at(bio, private)
                text = f"request to {disk}, bio {bio:#x}"
                for at, folio, pages in self._pages(pieces):
                    yield Held("bio", folio, pages, pins, at, text, task)
            bio = following
        raise ValueError(f"a request of more than {_BIOS_MAX} bios")

    def _cut(self, vec: int, size: int) -> Iterator[tuple[int, tuple[int, ...]]]:
        """As many elements of a vector as have a number of bytes."""
        for _ in range(_VECS_MAX):
            if size <= 0:
                return
            self._search.reads.spend()
            found = self._vec.read(vec)
            yield vec, found
            if not found[1]:
                raise ValueError("an empty piece in a vector")
            vec, size = vec + self._vec.size, size - found[1]
        raise ValueError(f"a bio of more than {_VECS_MAX} pieces")

    def _pages(
        self, pieces: Iterable[tuple[int, tuple[int, ...]]]
    ) -> Iterator[tuple[int, int, int]]:
        """(address of the bio_vec, folio, how many of its pages) of pieces of a vector."""
        mask = (1 << self._shift) - 1
        for at, (page, length, offset) in pieces:
            if not page:
                raise ValueError(f"a piece of a bio without a page, at {at:#x}")
            pages = ((offset & mask) + length + mask) >> self._shift
            for folio, count in self._search.folios.counts(page, pages).items():
                yield at, folio, count


class Requests:
    """Requests that disks have not answered yet: their bios hold pages of direct I/O."""

    def __init__(self, search: Search) -> None:
        prog = search.prog
        self._search = search
        self._bios = _Bios(search)
        self._request = Members(prog, "struct request", "bio", "state")
        self._idle = constant(prog, "MQ_RQ_IDLE") or 0
        self._hctx = Members(prog, "struct blk_mq_hw_ctx", "tags", "sched_tags")
        self._tags = Members(prog, "struct blk_mq_tags", "nr_tags", "static_rqs", "rqs")
        self._seen: set[int] = set()

    def run(self) -> Iterator[Held]:
        """The pages of all requests of all disks."""
        for disk in each_disk(self._search.prog):
            name = text_of(disk.disk_name.string_())
            try:
                for hctx in self._hw_queues(disk.queue.read_()):
                    yield from self._of_hw_queue(hctx, name)
            except ERRORS as err:
                self._search.gap(f"requests to {name} cannot be read: {err}")

    def _hw_queues(self, queue: Object) -> Iterator[int]:
        """Addresses of the struct blk_mq_hw_ctx of a disk."""
        count = int(queue.nr_hw_queues)
        if count > _QUEUES_MAX:
            raise ValueError(f"{count} hardware queues")
        # An xarray from commit 4e5cc99e1e48 ("blk-mq: manage hctx map via xarray") (in v5.18) on, until commit
        # d0c98769ee7d ("blk-mq: use array manage hctx map instead of xarray") (in v6.19).
        if queue.type_.type.has_member("hctx_table"):
            yield from (item.value for item in walk_tree(queue.hctx_table).items)
        elif queue.queue_hw_ctx:
            raw = self._search.prog.read(int(queue.queue_hw_ctx), 8 * count)
            yield from filter(None, words_of(self._search.prog, raw))

    def _of_hw_queue(self, hctx: int, name: str) -> Iterator[Held]:
        for tags in filter(None, self._hctx.read(hctx)):
            count, *tables = self._tags.read(tags)
            if count > _TAGS_MAX:
                raise ValueError(f"{count} tags")
            for table in filter(None, tables):
                for request in words_of(
                    self._search.prog, self._search.prog.read(table, 8 * count)
                ):
                    yield from self._of_request(request, name)

    def _of_request(self, request: int, name: str) -> Iterator[Held]:
        if not request or request in self._seen:
            return
        self._seen.add(request)
        self._search.requests.spend()
        bio, state = self._request.read(request)
        if bio and state != self._idle:
            yield from self._bios.of_chain(bio, name)


# ---------------------------------------------------------------- all of them


class _ByFile(Protocol):
    def of(self, file: OpenFile) -> Iterator[Held]:
        """What is behind a descriptor."""


class _Kind(NamedTuple):
    """What is told by the operations of an open file: its name, their symbols (newest first, of which a kernel has at least
    one), and what reads such files.

    type: one that kernels without it lack. modules: where the operations are in a module, its name, and those of the
    others whose types are asked for; their types are not known before somebody gives their debug files.
    """

    name: str
    ops: tuple[str, ...]
    type: str
    make: Callable[[Search], _ByFile]
    modules: tuple[str, ...] = ()


_KINDS = (
    # Since commit 262b2fa99cbe ("pipe: introduce struct file_operations pipeanon_fops") (in v6.15) those without a name
    # have operations of their own.
    _Kind("pipes", ("pipeanon_fops", "pipefifo_fops"), "struct pipe_inode_info", Pipes),
    _Kind("io_uring", ("io_uring_fops",), "struct io_ring_ctx", IoUring),
    _Kind("AF_XDP", ("socket_file_ops",), "struct xdp_sock", Xdp),
    _Kind("VFIO", ("vfio_fops",), "", Vfio, ("vfio", "vfio_iommu_type1")),
    _Kind("RDMA", ("uverbs_fops", "uverbs_mmap_fops"), "", Rdma, ("ib_uverbs",)),
    _Kind("iommufd", ("iommufd_fops",), "", IommuFd, ("iommufd",)),
)


class _Lacking:
    """Stands for a reader whose types are not known."""

    def __init__(self, kind: _Kind, err: LookupError) -> None:
        self._text = f"{err}: give the debug files of {' and '.join(kind.modules)}"

    def of(self, file: OpenFile) -> Iterator[Held]:
        raise ValueError(self._text)


class _Readers:
    """What reads open files, by the addresses of their operations."""

    def __init__(self, search: Search) -> None:
        self._search = search
        self._made: dict[int, Optional[tuple[str, _ByFile]]] = {}
        self._of_symbols: dict[int, _Kind] = {}
        for kind in _KINDS:
            ops = list(filter(None, (_symbol(search.prog, op) for op in kind.ops)))
            if kind.modules:
                self._of_symbols.update(dict.fromkeys(ops, kind))
            else:
                self._make_known(kind, ops)
        self._of_modules = list(self._loaded())

    def _make_known(self, kind: _Kind, ops: list[int]) -> None:
        try:
            self._search.prog.type(kind.type)
        except LookupError:
            return
        try:
            if not ops:
                raise LookupError(f"the symbol {kind.ops[-1]} is not known")
            self._made.update(dict.fromkeys(ops, (kind.name, kind.make(self._search))))
        except LookupError as err:
            self._search.gap(f"{kind.name}: {err}")

    def _loaded(self) -> Iterator[tuple[int, int, _Kind]]:
        """(start, end, kind) of the memory of modules that have operations."""
        kinds = {kind.modules[0]: kind for kind in _KINDS if kind.modules}
        for module in each_module(self._search.prog):
            try:
                kind = kinds.get(text_of(module.name.string_()))
                if kind:
                    for start, size in module_address_regions(module):
                        yield start, start + size, kind
            except ERRORS as err:
                self._search.gap(f"a module cannot be read: {err}")

    def _kind(self, op: int) -> Optional[_Kind]:
        """The kind of operations that a module has."""
        if op in self._of_symbols:
            return self._of_symbols[op]
        for start, end, kind in self._of_modules:
            if start <= op < end:
                return kind if self._search.symbol_at(op) in kind.ops else None
        return None

    def of(self, op: int) -> Optional[tuple[str, _ByFile]]:
        """(name, reader) of the files with these operations; None where they hold nothing that is known."""
        if op in self._made:
            return self._made[op]
        kind, made = self._kind(op), None
        if kind:
            try:
                made = kind.name, kind.make(self._search)
            except LookupError as err:
                made = kind.name, _Lacking(kind, err)
        self._made[op] = made
        return made


def _of_files(search: Search, opened: Callable[[OpenFile], None]) -> Iterator[Held]:
    if search.tasks is None:
        return
    readers = _Readers(search)
    for file in search.tasks.open_files():
        opened(file)
        found = readers.of(file.op)
        if found is None:
            continue
        name, reader = found
        try:
            yield from reader.of(file)
        except ERRORS as err:
            who = f"{file.task.comm}, pid {file.task.pid}"
            search.gap(f"{name}: descriptor {file.fd} of {who} cannot be read: {err}")


def find_holders(search: Search, opened: Callable[[OpenFile], None]) -> Iterator[Held]:
    """
    Everything that is known to hold one of the folios, page tables excepted.

    :param opened: called with each open file of each task
    """
    try:
        yield from _of_files(search, opened)
    except ERRORS as err:
        search.gap(f"open files cannot be read: {err}")
    if search.tasks is not None:
        search.gaps += search.tasks.gaps
    try:
        yield from Requests(search).run()
    except ERRORS as err:
        search.gap(f"requests to disks cannot be read: {err}")
