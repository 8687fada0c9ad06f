# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who holds pages for requests that disks have not answered: the bios of direct I/O, until they end.

Owns the way from disks by their tags and requests to bios, and which bio holds the pages of its vector.  A clone holds
nothing: it has the vector of another, who does, and who is looked for.  What is in no request (bios that a driver
keeps for later) is not found.
Invariant: a bio is booked once, with its whole vector, however many requests its parts are in.

Mirrors block/bio.c, block/fops.c, block/blk-mq.c, fs/iomap/direct-io.c, fs/direct-io.c.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum
from typing import NamedTuple, Optional

from drgn import Object, Program, sizeof

from zonedev.kernel.device import disks_are_lost, each_disk
from zonedev.kernel.gaps import ERRORS
from zonedev.kernel.held import Held, Search
from zonedev.kernel.members import Members, constant, has_member, words_of
from zonedev.kernel.strings import text_of
from zonedev.kernel.tree import walk_tree

# Bounds for what an untrusted dump says.
_BIOS_MAX = 1 << 14
_VECS_MAX = 1 << 16  # bi_vcnt is a short
_CHAIN_MAX = 64
_UNOWNED_MAX = 1 << 14
_QUEUES_MAX = 1 << 12
_TAGS_MAX = 1 << 16

# How a kernel that does not say it by flags tells bios of direct I/O, which took references: by what ends them.
_ENDS_OF_DIRECT_IO = (
    # block/fops.c, before fs/block_dev.c.
    "blkdev_bio_end_io",
    "blkdev_bio_end_io_async",
    "blkdev_bio_end_io_simple",
    # Its simple form, where it waits like others; these have memory of the kernel's, of which nobody asks.
    "submit_bio_wait_endio",
    "iomap_dio_bio_end_io",
    # fs/direct-io.c.
    "dio_bio_end_io",
    "dio_bio_end_aio",
)

# Operations whose size is that of the disk's blocks, and not of pages.
_OPS_WITHOUT_PAGES = (
    *("REQ_OP_DISCARD", "REQ_OP_SECURE_ERASE"),
    *("REQ_OP_WRITE_ZEROES", "REQ_OP_WRITE_SAME"),
)
_OP_MASK = 0xFF

# A bio_vec: where it lies, and its members.
_Piece = tuple[int, tuple[int, ...]]


class _Holds(Enum):
    """What a bio has of each page of its vector; OTHERS: whoever it is, it is somebody else."""

    PIN = "pin"
    REFERENCE = "reference"
    NOTHING = "nothing"
    OTHERS = "others"


class _Bio(NamedTuple):
    """A struct bio: number is that of the elements of its vector, first the element that is next."""

    address: int
    following: int
    op: int
    flags: int
    number: int
    vecs: int
    private: int
    end: int
    size: int
    first: int
    done: int


class _Unowned(NamedTuple):
    """A piece that names a page of a folio, for which a bio does not hold it."""

    at: int
    folio: int
    bio: _Bio
    disk: str


class Bios:
    """What bios hold: each page that they were given by a user of direct I/O, until they end."""

    def __init__(self, search: Search) -> None:
        prog = search.prog
        self._search = search
        # Renamed after 7.2, with the same meaning: the offset in the element that is next (include/linux/bvec.h, struct
        # bvec_iter of 7.3-rc7).
        done = "bi_offset" if has_member(prog, "struct bvec_iter", "bi_offset") else "bi_bvec_done"
        self._bio = Members(
            prog,
            "struct bio",
            *("bi_next", "bi_opf", "bi_flags", "bi_vcnt", "bi_io_vec", "bi_private", "bi_end_io"),
            *("bi_iter.bi_size", "bi_iter.bi_idx", f"bi_iter.{done}"),
        )
        self._vec = Members(prog, "struct bio_vec", "bv_page", "bv_len", "bv_offset")
        # Since commits e51bab4e2058 ("block: Replace BIO_NO_PAGE_REF with BIO_PAGE_REFFED with inverted logic") and
        # fd363244e883 ("block: Add BIO_PAGE_PINNED and associated infrastructure") (in v6.5) a bio says that it holds its
        # pages, and how; before (5.1 to 6.4), only that it does not; before that, all of these were macros.
        self._pinned = constant(prog, "BIO_PAGE_PINNED")
        self._held = constant(prog, "BIO_PAGE_REFFED")
        self._not_held = constant(prog, "BIO_NO_PAGE_REF")
        self._cloned = constant(prog, "BIO_CLONED")
        self._direct = _addresses(prog, _ENDS_OF_DIRECT_IO)
        self._chained = _addresses(prog, ("bio_chain_endio",))
        self._without_pages = {constant(prog, op) for op in _OPS_WITHOUT_PAGES}
        self._shift = int(prog["PAGE_SHIFT"])
        self._page_size = sizeof(prog.type("struct page"))
        self._met: set[int] = set()
        self._owners: set[int] = set()
        self._vecs: set[int] = set()
        self._unowned: list[_Unowned] = []

    def of_chain(self, address: int, disk: str) -> Iterator[Held]:
        """The pages of a request's bios."""
        for _ in range(_BIOS_MAX):
            if not address:
                return
            if address in self._met:
                raise ValueError(f"bio {address:#x} is reached twice")
            self._met.add(address)
            bio = self._read(address)
            yield from self._of(self._owner(bio), disk)
            address = bio.following
        raise ValueError(f"a request of more than {_BIOS_MAX} bios")

    def tell_unowned(self, vecs: set[int]) -> None:
        """
        Note which pages bios name without anybody who holds them for it.

        :param vecs: addresses of bio_vecs of other holders, which clones may share
        """
        for at, folio, bio, disk in self._unowned:
            if at not in self._vecs and at not in vecs:
                end = self._search.symbol_at(bio.end) or f"{bio.end:#x}"
                self._search.gap(
                    f"request to {disk}: bio {bio.address:#x}, ended by {end}, names pfn {folio:#x}; "
                    "who holds it for that is not known"
                )

    def _read(self, address: int) -> _Bio:
        self._search.reads.spend()
        found = self._bio.read(address)
        if not any(found):
            raise ValueError(f"bio {address:#x} reads as zeroes")
        following, opf, *others = found
        return _Bio(address, following, opf & _OP_MASK, *others)

    def _is_clone(self, bio: _Bio) -> bool:
        if self._cloned is not None:
            return bool(bio.flags >> self._cloned & 1)
        return not bio.number and bool(bio.vecs) and bool(bio.size)

    def _owner(self, bio: _Bio) -> _Bio:
        """The bio that another was split from (bio_split(), bio_chain()), as far as that is known."""
        for _ in range(_CHAIN_MAX):
            if not self._is_clone(bio) or bio.end not in self._chained:
                return bio
            bio = self._read(bio.private)
        raise ValueError(f"a chain of more than {_CHAIN_MAX} bios")

    def _holds(self, bio: _Bio) -> _Holds:
        def has(bit: Optional[int]) -> bool:
            return bit is not None and bool(bio.flags >> bit & 1)

        # Since commit c42bca92be92 ("bio: don't copy bvec for direct IO") (in v5.12), also direct I/O from a fixed buffer
        # of io_uring, which holds the pages, is a clone.
        if self._is_clone(bio):
            return _Holds.NOTHING if bio.op in self._without_pages else _Holds.OTHERS
        if has(self._pinned):
            return _Holds.PIN
        if self._pinned is not None or self._held is not None:
            return _Holds.REFERENCE if has(self._held) else _Holds.NOTHING
        if has(self._not_held):
            return _Holds.NOTHING
        return _Holds.REFERENCE if bio.end in self._direct else _Holds.OTHERS

    def _of(self, bio: _Bio, disk: str) -> Iterator[Held]:
        if bio.address in self._owners:
            return
        self._owners.add(bio.address)
        holds = self._holds(bio)
        if holds is _Holds.NOTHING:
            return
        text = f"request to {disk}, bio {bio.address:#x}"
        for at, folio, pages in self._pages(self._pieces(bio)):
            if holds is _Holds.OTHERS:
                if len(self._unowned) >= _UNOWNED_MAX:
                    raise ValueError(f"more than {_UNOWNED_MAX} pieces of bios that hold nothing")
                self._unowned.append(_Unowned(at, folio, bio, disk))
                continue
            self._vecs.add(at)
            task = self._search.task_at(bio.address, bio.private)
            yield Held("bio", folio, pages, holds is _Holds.PIN, at, text, task)

    def _pieces(self, bio: _Bio) -> Iterator[_Piece]:
        """The vector of a bio: whole, as it holds all of it until it ends; that of a clone as far as it is known."""
        if bio.number or not self._is_clone(bio):
            yield from self._search.array(bio.vecs, bio.number, self._vec)
            return
        left = bio.size + bio.done
        for i in range(_VECS_MAX):
            if i >= bio.first and left <= 0:
                return
            self._search.reads.spend()
            at = bio.vecs + i * self._vec.size
            found = self._vec.read(at)
            yield at, found
            left -= found[1] if i >= bio.first else 0
        raise ValueError(f"a bio of more than {_VECS_MAX} pieces")

    def _pages(self, pieces: Iterable[_Piece]) -> Iterator[tuple[int, int, int]]:
        """(address of the bio_vec, folio, how many of its pages) of pieces of a vector."""
        mask = (1 << self._shift) - 1
        for at, (page, length, offset) in pieces:
            if not page or not length:
                raise ValueError(f"a piece of a bio without a page, at {at:#x}")
            # Before commit 26064d3e2b4d ("block: fix adding folio to bio") (in v6.15) the offset may be one from the
            # first page of a large folio.
            page += (offset >> self._shift) * self._page_size
            pages = ((offset & mask) + length + mask) >> self._shift
            for folio, count in self._search.folios.counts(page, pages).items():
                yield at, folio, count


def _addresses(prog: Program, names: Iterable[str]) -> set[int]:
    """Addresses of those functions that a kernel has."""
    found: set[int] = set()
    for name in names:
        try:
            found.update(int(symbol.address) for symbol in prog.symbols(name))
        except LookupError:
            continue
    return found


class _Disk(NamedTuple):
    name: str
    queue: Object


class Requests:
    """Requests that disks have not answered yet."""

    def __init__(self, search: Search) -> None:
        prog = search.prog
        self._search = search
        self._bios = Bios(search)
        self._request = Members(prog, "struct request", "q", "bio", "state")
        self._idle = constant(prog, "MQ_RQ_IDLE") or 0
        self._hctx = Members(prog, "struct blk_mq_hw_ctx", "queue", "tags", "sched_tags")
        self._tags = Members(prog, "struct blk_mq_tags", "nr_tags", "static_rqs", "rqs")
        self._names: dict[int, str] = {}
        self._tables: set[int] = set()
        self._seen: set[int] = set()
        self._unused: set[int] = set()

    def run(self, vecs: set[int]) -> Iterator[Held]:
        """
        The pages of all requests of all disks; gaps says what could not be looked at.

        :param vecs: addresses of the bio_vecs of holders that bios may have the vectors of
        :raises ValueError: they are too many
        """
        disks = self._disks()
        # Several disks may have their tags, and so their requests, in common: whose a request is, its queue tells.
        self._names = {int(disk.queue): disk.name for disk in disks}
        for disk in disks:
            try:
                queues = self._hw_queues(disk)
            except ERRORS as err:
                self._gap(disk.name, err)
                continue
            for hctx in queues:
                yield from self._of_hw_queue(hctx, disk.name)
        self._bios.tell_unowned(vecs)

    def _gap(self, name: str, err: Exception) -> None:
        self._search.gap(f"requests to {name} cannot be read: {err}")

    def _disks(self) -> list[_Disk]:
        prog, found = self._search.prog, list[_Disk]()
        try:
            if disks_are_lost(prog):
                raise ValueError("the list of them does not come to its end")
            for disk in each_disk(prog):
                found.append(_Disk(text_of(disk.disk_name.string_()), disk.queue.read_()))
        except ERRORS as err:
            self._gap("disks", err)
        return found

    def _hw_queues(self, disk: _Disk) -> list[int]:
        """Addresses of the struct blk_mq_hw_ctx of a disk; none of one that answers each bio by itself."""
        queue, found = disk.queue, list[int]()
        type_ = queue.type_.type
        if type_.has_member("request_fn") and queue.request_fn:
            raise ValueError("they are in no hardware queue")
        count = int(queue.nr_hw_queues)
        if count > _QUEUES_MAX:
            raise ValueError(f"{count} hardware queues")
        # An xarray from commit 4e5cc99e1e48 ("blk-mq: manage hctx map via xarray") (in v5.18) on, until commit
        # d0c98769ee7d ("blk-mq: use array manage hctx map instead of xarray") (in v6.19).
        if type_.has_member("hctx_table"):
            tree = walk_tree(queue.hctx_table)
            found = [item.value for item in tree.items]
            if tree.problems:
                self._gap(disk.name, ValueError("the tree of its hardware queues is damaged"))
        elif count:
            raw = self._search.prog.read(int(queue.queue_hw_ctx), 8 * count)
            found = list(filter(None, words_of(self._search.prog, raw)))
        if len(found) < count:
            lost = f"{count - len(found)} of {count} hardware queues are not there"
            self._gap(disk.name, ValueError(lost))
        return found

    def _of_hw_queue(self, hctx: int, name: str) -> Iterator[Held]:
        try:
            queue, *tables = self._hctx.read(hctx)
            if not queue:
                raise ValueError(f"a hardware queue reads as zeroes, at {hctx:#x}")
        except ERRORS as err:
            self._gap(name, err)
            return
        for tags in filter(None, tables):
            if tags not in self._tables:
                self._tables.add(tags)
                yield from self._of_tags(tags, name)

    def _of_tags(self, tags: int, name: str) -> Iterator[Held]:
        try:
            own, used = self._requests(tags)
        except ERRORS as err:
            self._gap(name, err)
            return
        for request in filter(None, (*own, *used)):
            if request not in self._seen:
                self._seen.add(request)
                self._search.requests.spend()
                yield from self._of_request(request)
        # One that never had a tag may be all zero; one that is named for a tag has had its queue entered.
        lost = own.count(0) + len(self._unused.intersection(used))
        if lost:
            self._gap(name, ValueError(f"{lost} of {len(own)} are not there"))

    def _requests(self, tags: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Addresses of requests by their tags: those that belong to the tags, and those that have had them last."""
        prog = self._search.prog
        count, *tables = self._tags.read(tags)
        if not 0 < count <= _TAGS_MAX:
            raise ValueError(f"{count} tags")
        own, used = (words_of(prog, prog.read(table, 8 * count)) for table in tables)
        return own, used

    def _of_request(self, request: int) -> Iterator[Held]:
        name = "disks"
        try:
            queue, bio, state = self._request.read(request)
            if not queue:
                self._unused.add(request)
            name = self._names.get(queue, f"queue {queue:#x}")
            if state != self._idle:
                yield from self._bios.of_chain(bio, name)
        except ERRORS as err:
            self._gap(name, err)
