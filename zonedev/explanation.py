# SPDX-License-Identifier: LGPL-2.1-or-later
"""What an explanation results in: who holds a folio, and the account; plain data, no kernel memory behind it.

Invariant: refcount = base + explained + unexplained.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from zonedev.display import Displayed, Listing
from zonedev.kernel.memory_search import Searched
from zonedev.model import EXIT_CODES, Pagemap

GUP_PIN_COUNTING_BIAS = 1024
"""What a pin adds to the refcount of a folio of one page (include/linux/mm.h); to a larger one's, 1."""

_MAPS = frozenset(("pte", "pmd", "pud", "device-private", "migration"))


@dataclass
class Holder:
    """Something that names a folio: kind (pte, pmd, pud, dax-entry, device-private, migration, pipe, io_uring, bio,
    xdp-umem, rdma-umem, vfio, driver), and what it is worth in this scheme.

    refs: references it holds; pins: how many of them are pins (of a folio of one page, each is worth 1024). maps:
    mappings it counts as. address: of a map, where the process has it; else, where the word lies that names the page.
    """

    kind: str
    refs: int = 0
    pins: int = 0
    maps: int = 0
    pid: Optional[int] = None
    comm: Optional[str] = None
    address: Optional[int] = None
    object: str = ""


def is_map(holder: Holder) -> bool:
    """Whether a holder is an entry of a process's page tables, and its address one of the process."""
    return holder.kind in _MAPS


@dataclass
class Opener:
    """A descriptor of a file."""

    pid: int
    comm: str
    fd: int


@dataclass
class FileAt:
    """A place in a file: path "" where it is not known; offset of the folio's head and size in bytes."""

    path: str
    deleted: bool
    inode: Optional[int]
    offset: int
    size: Optional[int]
    mapping: int
    openers: list[Opener] = field(default_factory=list)


@dataclass(repr=False)
class Explanation(Displayed):
    """The account of one folio. pfn is its first, asked_refcount the count of the page that was asked for, which is 0 in
    a sound tail; mapping_words say whose its mapping (the word itself) is, driver what
    its driver says.

    maps_count: the scheme counts maps of this memory type. gaps: what could not be looked at; with gaps, what is
    unexplained may be held by what they name. searched: words of memory that point to it, where references were left.
    asked: how what was asked for was understood.
    """

    asked_pfn: int
    asked_refcount: int
    pfn: int
    pagemap: Pagemap
    order: int
    refcount: int
    mapcount: int
    pincount: Optional[int]
    idle_refcount: Optional[int]
    base: int
    flag_names: list[str]
    mapping: int
    mapping_words: str
    driver: str
    scheme: str
    types_from: str
    page_size: int
    maps_count: bool
    holders: list[Holder] = field(default_factory=list)
    files: list[FileAt] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    searched: Optional[Searched] = None
    asked: str = ""

    def __post_init__(self) -> None:
        self.holders, self.files = Listing(self.holders), Listing(self.files)

    def brief(self) -> str:
        """The account, and how many holders were found."""
        return (
            f"of pfn {self.asked_pfn:#x}: refcount {self.refcount} = base {self.base} + {self.explained} explained + "
            f"{self.unexplained} unexplained, {len(self.holders)} holders"
        )

    @property
    def explained(self) -> int:
        """References of the holders that were found."""
        return sum(holder.refs for holder in self.holders)

    @property
    def unexplained(self) -> int:
        """References that nobody was found for; negative where some are missing."""
        return self.refcount - self.base - self.explained

    @property
    def maps(self) -> int:
        """Mappings that were found."""
        return sum(holder.maps for holder in self.holders)

    @property
    def complete(self) -> bool:
        """Whether everything that is known to hold pages was looked at."""
        return not self.gaps

    @property
    def strays(self) -> int:
        """References that were taken (or, negative, returned) on the tail that was asked for instead of on the head."""
        return self.asked_refcount if self.asked_pfn != self.pfn else 0

    @property
    def exit_code(self) -> int:
        """0: the references add up; 1: some do not, though everything was looked at; 3: and not everything was."""
        if self.strays:
            return EXIT_CODES["violations"]
        if not self.unexplained:
            return 0
        return EXIT_CODES["violations" if self.complete else "incomplete"]

    def __str__(self) -> str:
        from zonedev.report.explain_text import explain_text

        return explain_text(self)
