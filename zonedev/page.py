# SPDX-License-Identifier: LGPL-2.1-or-later
"""One struct page: found by pfn or address, decoded and judged with its folio.

Owns what `zonedev page` and folio() say; the judging is the core's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Optional, Union

from drgn import FaultError, Object, TypeKind

from zonedev import _zonedev
from zonedev.driver_pass import DriverPasses
from zonedev.errors import TargetError, UsageError
from zonedev.kernel.btf import types_from
from zonedev.kernel.dax import DaxEntry
from zonedev.kernel.facts import Kernel
from zonedev.kernel.layout import KernelLayout
from zonedev.kernel.mapping import describe_mapping
from zonedev.kernel.registry import known_type
from zonedev.kernel.translate import physical_address
from zonedev.kernel.vmemmap import classify_fault, order_max
from zonedev.model import ANONYMOUS, FS_DAX, Finding, Pagemap, PfnRange
from zonedev.scanner import Caps, Scanner, calibrated, make_finding, pagemap_spec, scan_pages
from zonedev.second_pass import DaxPass

# Struct pages that members of struct folio reach to (ZD_FOLIO_PAGES of ext/core/zonedev.h).
_FOLIO_PAGES = 4

What = Union[str, int, Object]
"""How a page may be named: see :func:`find_page()`."""


@dataclass
class FolioReport:
    """What was asked for, the page's own words, its head's, and what is wrong with it."""

    asked: str
    pfn: int
    address: int
    pagemap: Pagemap
    page: dict[str, Any]
    head: dict[str, Any]
    head_address: int
    class_: str
    idle_refcount: Optional[int]
    flag_names: list[str]
    raw: bytes
    findings: list[Finding]
    owner: str
    scheme: str
    types_from: str
    # What files say of the page: its entries (for people, and as they are); "" and [] for other types.
    files: str = ""
    entries: list[DaxEntry] = field(default_factory=list)
    # What its driver says of the page: whether its pool has handed it out, or a list has it as free.
    driver: str = ""

    def __str__(self) -> str:
        from zonedev.report.text import folio_text

        return folio_text(self)


def _resolve_address(kernel: Kernel, address: int) -> tuple[int, str]:
    """pfn behind a kernel address: of a struct page, or of the memory mapped there."""
    offset = address - kernel.layout.vmemmap
    if offset >= 0:
        pfn = offset // kernel.layout.page_size
        if kernel.find(pfn):
            return pfn, f"{address:#x} is the struct page of pfn {pfn:#x}"
    try:
        physical = physical_address(kernel.prog, address)
    except (FaultError, LookupError) as err:
        raise TargetError(
            f"{address:#x} is neither a struct page of a pagemap nor mapped: {err}"
        ) from None
    pfn = physical >> kernel.layout.page_shift
    return pfn, f"{address:#x} is mapped to physical address {physical:#x}, pfn {pfn:#x}"


def _text(what: What) -> str:
    """What a user typed, or the same of a number or an object of drgn (a pointer, or what lies at an address)."""
    if isinstance(what, str):
        return what
    if isinstance(what, Object) and what.type_.kind in (TypeKind.STRUCT, TypeKind.UNION):
        what = what.address_of_()
    try:
        return hex(int(what))
    except (TypeError, ValueError, FaultError) as err:
        raise UsageError(f"{what!r} names no page: {err}") from None


def _resolve(kernel: Kernel, what: str) -> tuple[int, str]:
    """pfn for what a user typed, and the words for how it was understood."""
    text = what[5:] if what.startswith("phys:") else what
    try:
        number = int(text, 0)
    except ValueError:
        raise UsageError(f"{what!r} is not a pfn, an address (0x...) or phys:ADDRESS") from None
    if number < 0 or number >> 64:
        raise UsageError(f"{what!r} is not a pfn, an address (0x...) or phys:ADDRESS: out of range")
    if what.startswith("phys:"):
        pfn = number >> kernel.layout.page_shift
        return pfn, f"physical address {number:#x} is pfn {pfn:#x}"
    if number >> 63:
        return _resolve_address(kernel, number)
    return number, f"{what} is taken as a pfn"


def _read_struct_pages(kernel: Kernel, pfn: int, count: int) -> bytes:
    """Up to count struct pages; one where not all can be read."""
    address, size = kernel.layout.page_address(pfn), kernel.layout.page_size
    error: Exception = FaultError("nothing was read", address)
    for n in (count, 1):
        try:
            data: bytes = kernel.prog.read(address, n * size)
            return data
        except (FaultError, OSError, ValueError) as err:
            error = err
    class_, reason = classify_fault(error)
    raise TargetError(f"the struct page of pfn {pfn:#x} at {address:#x} is {class_}: {reason}")


class Place:
    """A page of a known pagemap, with what decoding it needs."""

    def __init__(
        self,
        kernel: Kernel,
        pagemap: Pagemap,
        range_: PfnRange,
        scheme: _zonedev.Scheme,
        caps: Caps,
        dax: Optional[DaxPass] = None,
        drivers: Optional[DriverPasses] = None,
    ) -> None:
        self.kernel, self.pagemap, self.range, self.scheme = kernel, pagemap, range_, scheme
        self.dax, self.drivers = dax, drivers
        self.spec = pagemap_spec(pagemap, caps)

    def decode(self, pfn: int) -> tuple[dict[str, Any], bytes]:
        """The struct page of a pfn in numbers, and its bytes."""
        layout, start, end = self.kernel.layout, self.range.start_pfn, self.range.end_pfn
        bounds = (start, end, layout.page_address(start))
        raw = _read_struct_pages(self.kernel, pfn, min(_FOLIO_PAGES, end - pfn))
        return _zonedev.decode(layout.layout, self.scheme, self.spec, bounds, pfn, raw), raw

    def scan(self, start: int, end: int) -> dict[str, Any]:
        """The tally of [start, end) by itself."""
        entries = self.dax.entries if self.dax else None
        bits = self.drivers.bits_of(self.pagemap) if self.drivers else {}
        pfns = start, end
        return scan_pages(self.kernel, self.scheme, self.pagemap, self.spec, pfns, entries, bits)

    def findings(self, start: int, end: int) -> list[Finding]:
        """What is wrong with the pages [start, end) by themselves."""
        whole = self.scan(start, end)
        return [make_finding(self.kernel, self.pagemap, raw) for raw in whole["findings"]]


def _judge(place: Place, head_pfn: int, end: int, pfn: int) -> tuple[str, list[Finding]]:
    """Class of the page at *pfn*, and the findings on it and (if it spans the page) its folio."""
    findings = place.findings(head_pfn, max(end, pfn + 1))
    if place.dax and place.dax.settle(findings):
        findings = place.findings(head_pfn, max(end, pfn + 1))
    mine = [f for f in findings if f.pfn == pfn or (pfn < end and f.folio_pfn == head_pfn)]
    # What a head is, its first tails say: these are looked at together, and share its class.
    together = min(head_pfn + _FOLIO_PAGES, end)
    begin, stop = (head_pfn, together) if pfn < together else (pfn, pfn + 1)
    before = place.scan(head_pfn, begin)["classes"]
    upto = place.scan(head_pfn, stop)["classes"]
    class_ = next((name for name in upto if upto[name] > before[name]), "skipped")
    # A defect anywhere in a folio is one of each of its pages that has memory of its own.
    if class_ in ("idle", "busy") and any(f.severity == "error" for f in mine):
        class_ = "violation"
    return class_, mine


def _learn_driver_data(kernel: Kernel, pagemap: Pagemap, head: dict[str, Any]) -> bool:
    """Look whether other pages in use have their driver's data, for one that has none; whether they do."""
    in_use = head["refcount"] > 0 or head["mapcount"] > 0
    if pagemap.type in ANONYMOUS and in_use and not head["zone_device_data"]:
        Scanner(kernel, [pagemap]).run()
    return pagemap.driver_data


def _files(dax: Optional[DaxPass], pfn: int) -> tuple[str, list[DaxEntry]]:
    """What files say of a page, and the entries that say so."""
    if dax is None:
        return "", []
    if dax.walk is None:
        return f"not read: {dax.why}", []
    owners = dax.owners_of([pfn]).get(pfn, [])
    return dax.words(owners, pfn), owners


class Found(NamedTuple):
    """A page that somebody asked for: how that was understood, and the pagemap and range that it is in."""

    pfn: int
    asked: str
    pagemap: Pagemap
    range: PfnRange


def _hint(kernel: Kernel, what: str, pfn: int) -> str:
    """That a number which is no pfn of a pagemap is a physical address of one."""
    frame = pfn >> kernel.layout.page_shift
    return f"; phys:{what} is pfn {frame:#x}" if kernel.find(frame) else ""


def find_page(kernel: Kernel, what: What) -> Found:
    """The ZONE_DEVICE page that a user means.

    :param what: a pfn, "phys:ADDRESS", or the address of a struct page or of mapped memory (0x...); the same as a
        number, or as an object of drgn: ``struct page *``, ``struct folio *``
    :raises UsageError: it is none of these
    :raises TargetError: it is not ZONE_DEVICE, or has no struct page
    """
    text = _text(what)
    pfn, asked = _resolve(kernel, text)
    pagemap = kernel.find(pfn)
    if pagemap is None:
        hint = "" if text.startswith("phys:") else _hint(kernel, text, pfn)
        raise TargetError(f"{asked}, and no pagemap covers it: it is not ZONE_DEVICE memory{hint}")
    if not known_type(pagemap):
        raise TargetError(
            f"{asked} of pagemap {pagemap.address:#x}, whose memory type is {pagemap.type}"
        )
    range_ = pagemap.range_of(pfn)
    assert range_ is not None
    if pfn < range_.first_pfn:
        raise TargetError(
            f"{asked}: it lies in the altmap head of {pagemap.device}, which has no struct pages"
        )
    return Found(pfn, asked, pagemap, range_)


def order_of(head: dict[str, Any], pagemap: Pagemap, layout: KernelLayout) -> int:
    """Order of a folio; 0 where its head says what cannot be."""
    order: int = head["order"]
    return order if order <= order_max(pagemap, layout) else 0


def folio_report(kernel: Kernel, what: What, quick: bool = False) -> FolioReport:
    """Decode and judge one struct page and its folio (see :func:`zonedev.audit.folio()`)."""
    pfn, asked, pagemap, range_ = find_page(kernel, what)
    layout = kernel.layout
    scheme, caps = calibrated(kernel, pagemap)
    dax = DaxPass(kernel, quick) if pagemap.type == FS_DAX else None
    drivers = DriverPasses(kernel, [pagemap], quick)
    place = Place(kernel, pagemap, range_, scheme, caps, dax, drivers)
    page, raw = place.decode(pfn)
    head_pfn = page["head_pfn"] if page["head_pfn"] is not None else pfn
    head = page if head_pfn == pfn else place.decode(head_pfn)[0]
    if _learn_driver_data(kernel, pagemap, head):
        place = Place(kernel, pagemap, range_, scheme, caps, dax)
    end = min(head_pfn + (1 << order_of(head, pagemap, layout)), range_.end_pfn)
    class_, findings = _judge(place, head_pfn, end, pfn)
    return FolioReport(
        asked,
        pfn,
        layout.page_address(pfn),
        pagemap,
        page,
        head,
        layout.page_address(head_pfn),
        class_,
        scheme.idle(pagemap.type),
        layout.flags(page["flags"]),
        raw[: layout.page_size],
        findings,
        describe_mapping(kernel.prog, head["mapping"]),
        scheme.id,
        types_from(kernel.prog),
        *_files(dax, pfn),
        drivers.words(pagemap, pfn),
    )
