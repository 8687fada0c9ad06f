# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who holds references on pages beside page tables: pipes, io_uring, AF_XDP, requests to disks, and devices.

Owns the ways to the first three and how many references each of their words stands for; each kind is a row of _KINDS.
All of them are gone through once for many pages; what could not be is a gap.  Pins that devices need for as long as
they are driven from user space (RDMA, VFIO) are longterm.py's, requests bios.py's.

Mirrors fs/pipe.c, io_uring/rsrc.c, net/xdp/xdp_umem.c.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Optional, Protocol

from drgn import Program, TypeKind, sizeof
from drgn.helpers.linux.module import module_address_regions

from zonedev.kernel.bios import Requests
from zonedev.kernel.gaps import ERRORS
from zonedev.kernel.held import Held, Search, where
from zonedev.kernel.longterm import IommuFd, Rdma, Vfio
from zonedev.kernel.members import Members, has_member, words_of
from zonedev.kernel.modules import each_module
from zonedev.kernel.strings import text_of
from zonedev.kernel.tasks import OpenFile

# Bounds for what an untrusted dump says.
_RING_MAX = 1 << 20
_BUFFERS_MAX = 1 << 16
_PAGES_MAX = 1 << 28
_PIECE = 1 << 17
_VECS_IN_ALL = 1 << 18

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
    # Vectors of fixed buffers are also those of the bios that they are used for.
    vecs: set[int] = set()
    try:
        for held in _of_files(search, opened):
            if held.kind == "io_uring" and len(vecs) < _VECS_IN_ALL:
                vecs.add(held.address)
            yield held
    except ERRORS as err:
        search.gap(f"open files cannot be read: {err}")
    if search.tasks is not None:
        search.gaps += search.tasks.gaps
    try:
        yield from Requests(search).run(vecs)
    except ERRORS as err:
        search.gap(f"requests to disks cannot be read: {err}")
