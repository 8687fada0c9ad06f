# SPDX-License-Identifier: LGPL-2.1-or-later
"""The contract of the C core's binding.

Layout and Scheme are immutable and may be shared between threads; a Scan belongs to one thread at a
time.  Integers are range-checked: OverflowError or ValueError for what does not fit.
"""

from collections.abc import Callable, Sequence
from typing import Any, Optional

from typing_extensions import Buffer

TYPES: tuple[str, ...]
"""Memory types: the kernel's enumerators, in an order of zonedev's own."""
CLASSES: tuple[str, ...]
"""idle, busy, violation, not-captured, unreadable, skipped."""
SEVERITIES: tuple[str, ...]
"""info, warning, error: in rising order."""
SCHEMES: tuple[str, ...]
"""Letters of the refcount schemes, oldest first; the last is "unknown"."""
MEMBERS: tuple[str, ...]
"""Names of the members that a Layout may have."""
FLAGS: tuple[str, ...]
"""Page flags that rules look at, as named in enum pageflags."""

class Layout:
    """Where the members of struct page and struct folio lie in one kernel."""

    def __new__(
        cls,
        *,
        page_size: int,
        word_size: int,
        big_endian: bool,
        page_shift: int,
        pmd_order: int,
        compound_mask: bool,
        page_type_limit: int,
        fields: dict[str, tuple[int, int, int]],
        flags: dict[str, int],
        zone: tuple[int, int],
        node: tuple[int, int],
        zone_device: int,
    ) -> Layout:
        """
        :param page_size: sizeof(struct page), bytes
        :param word_size: 4 or 8, bytes
        :param compound_mask: a tail's word may be an alignment mask (compound_info)
        :param page_type_limit: raw _mapcount below this is a page type
        :param fields: member -> (offset and size in bytes, low bits that count or 0 for all)
        :param flags: enumerator of enum pageflags -> bit
        :param zone: (shift, width) of the zone bits in flags; width 0: unknown
        :param node: the same for the node
        :raises ValueError: a member lies outside of its struct, or an indispensable one is missing
        """

class Scheme:
    """The refcount scheme that evidence tells."""

    id: str
    title: str
    kernels: str
    pgmap_ref: str
    private_refs_pgmap: bool
    stale_share: bool
    zero_when_dying: bool
    large_private: bool
    counts_pins: bool
    shared: str
    confidence: str
    decisive: list[str]

    def __new__(cls, evidence: dict[str, bool]) -> Scheme:
        """
        :param evidence: probe name (see probes()) -> present; missing ones are absent
        """

    def idle(self, type: str, /) -> Optional[int]:
        """Refcount of a free folio of a memory type; None where the scheme does not know."""

    def columns(self, type: str, /) -> dict[str, Any]:
        """What the scheme says of a memory type: idle (-1 unknown), mapped_base, maps_take_refs,
        never_mapcount, unassociated, entry_takes_ref (struct zd_scheme_type has what they mean)."""

    @classmethod
    def named(cls, letter: str, /) -> Scheme:
        """The row of the table, without what varies within a scheme; low confidence.

        :raises ValueError: no such scheme
        """

    def calibrated(self, type: str, idle: int, /) -> Scheme:
        """The same scheme with another idle count for a type, and low confidence."""

    def drained(self) -> Scheme:
        """The scheme as a pagemap has it whose removal has put the reference that each page was born with.

        The same where removal does not put them (all but B and C).
        """

    def with_init_mode(self, type: str, busy: bool, /) -> Scheme:
        """The scheme as a pagemap of a type has it whose init_mode is INIT_PAGEMAP_BUSY, or IDLE (scheme F1)."""

METHODS: tuple[str, ...]
"""Compressions of kdump-compressed dumps that a Memory knows; "none" is one of them."""

class Memory:
    """The physical memory of a dump: an ELF core of a 64-bit little-endian machine, or a kdump-compressed file."""

    def __new__(cls, fd: int) -> Memory:
        """
        :param fd: a descriptor of the file; it may be closed afterwards
        :raises ValueError: a file of another kind, a damaged one, or one that is not read here
        """
    format: str
    """elf or kdump."""

    def has_virtual(self, start: int, end: int, /) -> bool:
        """Whether the file itself says what lies at some of these virtual addresses."""

    def frame(self, address: int, /) -> Optional[bytes]:
        """The 4096 bytes at a physical address, None where the dump does not hold them.

        :raises ValueError: that is not certain
        """

class Scan:
    """One walk, upward, over the struct pages of a pagemap."""

    def __new__(
        cls,
        layout: Layout,
        scheme: Scheme,
        pagemap: dict[str, Any],
        merge: bool = True,
        fast: bool = True,
        entries: Optional[Entries] = None,
        allocated: Optional[PageBits] = None,
        listed: Optional[PageBits] = None,
    ) -> Scan:
        """
        :param pagemap: address, type; ref ("live", "dying", "dead"), vmemmap_shift, node (-1 unknown),
            foreign_maps, deduplicated, severity_cap, miscalibrated, driver_data, dax_mapping (0 unknown)
        :param merge: join findings of adjacent folios in one state
        :param fast: let templates tell common states without decoding (the result is the same)
        :param entries: what files say of the pages; not to be changed as long as the Scan lives
        :param allocated: the pages that the pool of their device has handed out; also not to be changed
        :param listed: the pages that are on a list of free ones
        """

    def begin(self, start_pfn: int, end_pfn: int, memmap: int, index_bias: int = 0, /) -> None:
        """The next range; memmap is the address of the first pfn's struct page, index_bias a page's pfn less its
        index in dax_mapping (modulo 1 << 64)."""

    def count_cells(self, start_pfn: int, end_pfn: int, shift: int, /) -> None:
        """Count the classes of these pages of the range by place, too, in cells of 1 << shift pages that are
        aligned to their size; right after begin(), for this range.

        :raises ValueError: not in the range; more than 262144 cells; shift above 63
        """

    def cells(self) -> bytes:
        """After end(): pages per cell and class (in the order of CLASSES), as native unsigned 64-bit numbers."""

    def pages(self, buffer: Buffer, /) -> None:
        """The next struct pages; the GIL is released.

        :raises ValueError: not whole struct pages, or more than the range has
        """

    def read(
        self,
        memory: Memory,
        root: int,
        levels: int,
        threads: int,
        holes: bool = False,
        progress: Optional[Callable[[int], object]] = None,
    ) -> int:
        """Go on with the struct pages in a dump's memory, up to the end of the range or to a chunk of them of which
        anything is not certain; the GIL is released.

        The next struct page must begin a page of the vmemmap.

        :param root: physical address of the kernel's top page table (x86-64)
        :param levels: of page tables, 4 or 5
        :param threads: 1 to 64
        :param holes: what the dump does not hold is not-captured (see absent()); if not, it is not certain
        :param progress: called with pages that are done, now and then
        :return: pages that progress was not called for
        :raises ValueError: struct pages do not lie in pages of 4096 bytes
        :raises KeyboardInterrupt: Ctrl-C; the scan has come to where it was stopped
        """

    def absent(self) -> int:
        """Pages of holes that read() has found so far."""

    def hole(self, count: int, class_: str, /) -> None:
        """The next *count* pages are of this class without being looked at."""

    def end(self) -> None:
        """The range is done.

        :raises ValueError: pages are missing
        """

    def left(self) -> int:
        """Pages of the range that are still missing."""

    def classes(self) -> dict[str, int]:
        """Pages per class so far; the page at hand is booked by end()."""

    def result(self) -> dict[str, Any]:
        """The tally: classes and severities (pages), refcounts (heads), idle_looking, driver_data, pages_referenced,
        heads_above_idle, pages_mapped, findings (list of dicts), findings_dropped."""

class Entries:
    """The files' view of FS_DAX pages: one byte per page that has an entry in a file's tree."""

    def __new__(
        cls,
        layout: Layout,
        scheme: Scheme,
        read: Callable[[int, int], Optional[bytes]],
        *,
        node: tuple[int, ...],
        space: tuple[int, ...],
        inode: tuple[int, ...],
    ) -> Entries:
        """
        :param read: (address, size) -> bytes, or None where they cannot be had; what it raises ends the walk
        :param node: struct xa_node: size, number of slots, offsets of shift, offset, count, parent, array, slots
        :param space: struct address_space: bytes to read, offsets of host, i_pages, its xa_head and xa_lock
        :param inode: struct inode: bytes to read, offsets of i_sb_list, i_mapping, i_flags
        :raises ValueError: a member lies outside of its struct
        """

    def range(self, start_pfn: int, end_pfn: int, memmap: int, /) -> None:
        """A range of FS_DAX pages, above those before; memmap is the address of the first struct page.

        :raises ValueError: it is empty, huge, or not above the last one
        """

    def inodes(self, head: int, /) -> tuple[list[tuple[int, int]], dict[str, Any]]:
        """(inode, mapping) of the DAX inodes in the list (super_block.s_inodes) whose head lies there; and
        inodes, dax (numbers), bad_node and why (None, or why the walk ended early)."""

    def add(self, mapping: int, /) -> dict[str, Any]:
        """Mark the pages that the entries of an address_space name.

        Numbers of entries, pages, pmd, zero, empty, locked, outside, misplaced, nodes, unreadable, corrupt;
        flux (its lock is held), no_space (it cannot be read); bad_node and why (of the first bad node).
        """

    def of(
        self, mapping: int, pfns: Optional[Sequence[int]] = None, /
    ) -> tuple[list[tuple[int, int, int, str]], dict[str, Any]]:
        """(index, pfn, order, flags) of the entries of an address_space, all or those that cover one of
        *pfns*, and the numbers of add(); flags are of L (locked), P (PMD), Z (zero page), E (empty).

        :raises ValueError: more than 16 million
        """

    def kept(self) -> dict[str, Any]:
        """locked and outside: the first 256 of (mapping, entry) each; locked_count, outside_count."""

    def lock_is(self, pfn: int, pages: int, stuck: bool, /) -> None:
        """Locked entries of these pages: nobody is there who holds the lock (stuck), or somebody may be."""

    def know(self, mapping: int, kind: str, /) -> None:
        """What a mapping word is that pages name: plain, unknown or no-file."""

    def complete(self, complete: bool, pfn: Optional[int] = None, /) -> None:
        """Whether every entry was read that may name a page of the range around *pfn*, or of any range.

        :raises ValueError: the pfn lies in no range
        """

    def clear(self) -> None:
        """Forget all entries; ranges and mappings stay."""

    def mark(self, pfn: int, /) -> Optional[dict[str, Any]]:
        """count (7: or more), match, pmd, locked, flux, stuck of a page; None outside of all ranges."""

class Btf:
    """Types out of BTF.  Ids are numbers from 0 (void) on; len() is one more than the last.

    Immutable; wrong ids raise IndexError.
    """

    first: int
    """The first id that is its own and not its base's."""

    def __new__(cls, data: Buffer, word_size: int = 8, base: Optional[Btf] = None) -> Btf:
        """
        :param data: all of it, header first; copied
        :param word_size: 4 or 8, bytes of a pointer
        :param base: what a module's BTF is split from
        :raises ValueError: it is damaged: a record, a name or a reference makes no sense, types lead in a circle
        """

    def __len__(self) -> int: ...
    def type(self, id: int, /) -> dict[str, Any]:
        """kind, name; size (bytes), type (what it refers to), length (of an array), encoding, bits, bit_offset
        (of an int), flag (struct zd_btf_type has what they mean); items: of a struct or union (name, type, bit offset,
        bit size or 0), of an enum (name, value), of a func_proto (name, type), of a datasec (type, offset, size).
        """

    def find(self, name: str, kinds: Sequence[str], /) -> list[int]:
        """Types of a name and one of the kinds (void, int, ptr, array, struct, union, enum, fwd, typedef, volatile,
        const, restrict, func, func_proto, var, datasec, float, decl_tag, type_tag, enum64); own ones first."""

    def member(self, id: int, name: str, /) -> Optional[tuple[int, int, int]]:
        """(type, offset in bits, bits of a bit field or 0), also of a member of an anonymous struct within."""

    def enumerator(self, name: str, /) -> Optional[tuple[int, int]]:
        """The enum that has it, and its place there."""

    def resolve(self, id: int, /) -> int:
        """The type behind typedefs, qualifiers and tags."""

    def sizeof(self, id: int, /) -> int:
        """Bytes; 0 for what has no size."""

class Kallsyms:
    """Symbols that a kernel keeps of itself, each (name, address, size up to the next in bytes, letter of nm(1)).

    len() and numbers: all of them, in the kernel's order.  Immutable.
    """

    form: tuple[str, bool, int]
    """What entries of the table of addresses mean (place, base, per-cpu, absolute), whether that stands behind the
    tokens, and what tables are aligned to."""

    def __new__(
        cls,
        image: Buffer,
        address: int,
        known: tuple[str, int],
        word_size: int = 8,
        big_endian: bool = False,
    ) -> Kallsyms:
        """
        :param image: a copy of the kernel's image that has all tables; not kept
        :param address: where it lies, a multiple of 8
        :param known: name and address of a symbol that must be among them
        :raises ValueError: the tables are not found, or the known symbol lies elsewhere
        """

    def __len__(self) -> int: ...
    def __getitem__(self, i: int, /) -> tuple[str, int, int, str]: ...
    def find(self, name: str, /) -> list[tuple[str, int, int, str]]:
        """All symbols of a name."""

    def at(self, address: int, /) -> Optional[tuple[str, int, int, str]]:
        """The last symbol at or below an address."""

def btf_size(header: Buffer, /) -> int:
    """Bytes that BTF takes which begins so (24 bytes at least); 0 where it does not look like BTF."""

class PageBits:
    """One bit per page, what its driver says of it: handed out by a pool, or listed as free."""

    def __new__(cls, layout: Layout, read: Callable[[int, int], Optional[bytes]]) -> PageBits:
        """
        :param read: (address, size) -> bytes, or None where they cannot be had; what it raises ends the walk
        """

    def range(self, start_pfn: int, end_pfn: int, memmap: int, /) -> None:
        """A range of pages, above those before, all clear; memmap is the address of the first struct page.

        :raises ValueError: it is empty, huge, or not above the last one
        """

    def set(self, pfn: int, bitmap: Buffer, count: int, /) -> None:
        """Set the bits of *count* pages from *pfn* on that are set in a bitmap, lowest bit of a byte first.

        :raises ValueError: the bitmap is shorter
        """

    def walk(self, head: int, /) -> dict[str, Any]:
        """Set the bits of the pages of a list that is linked through zone_device_data; head is the address of
        the first one's struct page, or 0.

        pages: met; why: None, or why it was left before its end; link: the one that was not followed.
        """

    def test(self, pfn: int, /) -> Optional[bool]:
        """A page's bit; None outside of all ranges."""

    def count(self) -> int:
        """Bits that are set."""

def find_pointers(
    buffer: Buffer,
    lo: int,
    hi: int,
    step: int,
    word_size: int,
    big_endian: bool,
    limit: int,
    /,
) -> tuple[list[tuple[int, int, int]], int]:
    """Aligned words of a buffer that are one of the addresses lo, lo + step, ... below hi, but for their two low bits
    (tags, as of page_link in a scatterlist); the GIL is released.

    (offset in bytes, index of the address, tag) of the first *limit* of them, and how many there are beyond these.

    :param word_size: 4 or 8, bytes
    :param limit: at most 1 << 20
    :raises ValueError: no address, no step, words of another size, too high a limit
    """

def rules() -> list[dict[str, Any]]:
    """The rows of the rule table in their order: id, number, scope, severity, evidence,
    severity_unproven, types, schemes, needs, requires_evidence (not applied without), calibrated, predicate, meaning, bug_class, near_miss."""

def why_not(layout: Layout, scheme: Scheme, /) -> list[Optional[str]]:
    """Per row of rules(): None, or why it is not applicable to the kernel."""

def probes() -> list[tuple[str, str]]:
    """(name, kind) of what a Scheme is told from; kind is member, symbol, function or enumerator."""

def decode(
    layout: Layout,
    scheme: Scheme,
    pagemap: dict[str, Any],
    range: tuple[int, int, int],
    pfn: int,
    buffer: Buffer,
    /,
) -> dict[str, Any]:
    """One struct page: *buffer* begins with it, and may go on with the following ones (a folio's own
    members lie in up to three tails); *range* is (start_pfn, end_pfn, memmap)."""

def flags_of(layout: Layout, buffer: Buffer, /) -> list[int]:
    """The flags words of the struct pages in a buffer."""

def features() -> dict[str, Optional[str]]:
    """libelf and libkdumpfile: version that was built in, or None."""

def guard_sigbus(message: str, /) -> None:
    """For programs: on SIGBUS (a mapped file ends early) write *message* to stderr and exit with 2."""

def elf_info(path: str, /) -> dict[str, Any]:
    """core, has_debug_info, machine, bits, file_size, wanted_size (bytes), build_id (bytes), btf (offset in the file and
    size of the section .BTF, in bytes; size 0: none).

    :raises OSError: cannot be opened
    :raises ValueError: not an ELF file, or built without libelf
    """

def kdump_info(path: str, /) -> dict[str, str]:
    """format, arch, release of a dump that libkdumpfile knows.

    :raises OSError: cannot be opened
    :raises ValueError: unknown format, or built without libkdumpfile
    """
