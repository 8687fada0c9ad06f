# SPDX-License-Identifier: LGPL-2.1-or-later
"""A refcount scheme for people: the legal states of each memory type, and what was seen of them.

Owns the words; every count in them follows from the columns of the scheme table (ext/core/scheme.c),
which the rules judge by, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Optional

from zonedev import _zonedev
from zonedev.display import Displayed
from zonedev.model import ANONYMOUS, FS_DAX, GENERIC, PCI_P2PDMA, Audit

_NULL = "NULL"


class State(NamedTuple):
    """A legal state; n is the number of page table entries that map the folio."""

    type: str
    name: str
    refcount: str
    mapcount: str
    mapping: str


def _file(type_: str, columns: dict[str, Any]) -> str:
    """What a page in use has in its mapping word."""
    if type_ in ANONYMOUS:
        return "anon_vma"
    if type_ == PCI_P2PDMA or columns["unassociated"]:
        return _NULL
    return "the file's" if type_ == FS_DAX else "the device's"


def _free(scheme: _zonedev.Scheme, type_: str, columns: dict[str, Any]) -> State:
    mapping = _NULL
    if type_ == GENERIC and not columns["unassociated"] and not columns["entry_takes_ref"]:
        # device-dax never clears what the first fault set.
        mapping = "NULL, or the device's"
    removal = " (0 during removal)" if scheme.zero_when_dying and columns["idle"] else ""
    return State(type_, "free", f"{columns['idle']}{removal}", "0", mapping)


def _unmapped(type_: str, columns: dict[str, Any]) -> Optional[State]:
    """In use and not mapped; None where that is no state of its own."""
    if type_ in ANONYMOUS:
        return State(type_, "allocated, not mapped", str(columns["mapped_base"] + 1), "0", _NULL)
    if type_ == PCI_P2PDMA:
        return State(type_, "allocated, not mapped", str(columns["idle"]), "0", _NULL)
    if type_ == FS_DAX or columns["entry_takes_ref"]:
        count = columns["idle"] + columns["entry_takes_ref"]
        return State(type_, "in a file, not mapped", str(count), "0", _file(type_, columns))
    return None


def _mapped(type_: str, columns: dict[str, Any]) -> Optional[State]:
    mapping = _file(type_, columns)
    if columns["maps_take_refs"]:
        base = f"{columns['mapped_base']} + n" if columns["mapped_base"] else "n"
        return State(type_, "mapped n times", base, "n", mapping)
    if columns["never_mapcount"]:
        count = columns["idle"] + columns["entry_takes_ref"]
        return State(type_, "mapped (not counted)", str(count), "0", mapping)
    return None


def _shared(scheme: _zonedev.Scheme, type_: str, columns: dict[str, Any]) -> Optional[State]:
    """A block of several files (reflink)."""
    if type_ != FS_DAX or not scheme.shared:
        return None
    mapped = _mapped(type_, columns)
    assert mapped is not None
    refcount = (
        f"{columns['idle']} + n" if columns["idle"] and mapped.mapcount == "n" else mapped.refcount
    )
    return State(type_, "shared by files", refcount, mapped.mapcount, scheme.shared)


def legal_states(scheme: _zonedev.Scheme, type_: str) -> list[State]:
    """The states of a memory type that no rule objects to, without pins and references in flight.

    Empty where the scheme does not know the type.
    """
    columns = scheme.columns(type_)
    if columns["idle"] < 0:
        return []
    states = (
        _free(scheme, type_, columns),
        _unmapped(type_, columns),
        _mapped(type_, columns),
        _shared(scheme, type_, columns),
    )
    return [state for state in states if state]


@dataclass(repr=False)
class SchemeReport(Displayed):
    """A scheme: its row of the table, its legal states, and where it is a kernel's, what speaks for it.

    seen: memory type -> refcount ("0", "1", "other") -> heads that look idle (unmapped, in no file).
    """

    id: str
    kernels: str
    title: str
    pgmap_ref: str
    shared: str
    states: list[State]
    seen: dict[str, dict[str, int]] = field(default_factory=dict)
    audit: Optional[Audit] = None

    def brief(self) -> str:
        """Letter and title."""
        return f"{self.id}: {self.title}"

    def __str__(self) -> str:
        from zonedev.report.text import scheme_text

        return scheme_text(self)


def _seen(audit: Audit) -> dict[str, dict[str, int]]:
    seen: dict[str, dict[str, int]] = {}
    for result in audit.pagemaps:
        counts = seen.setdefault(result.pagemap.type, {})
        for refcount, heads in result.idle_looking.items():
            counts[refcount] = counts.get(refcount, 0) + heads
    return seen


def scheme_report(scheme: _zonedev.Scheme, audit: Optional[Audit] = None) -> SchemeReport:
    """A scheme in words; with what an audit of a kernel that follows it has seen."""
    return SchemeReport(
        id=scheme.id,
        kernels=scheme.kernels,
        title=scheme.title,
        pgmap_ref=scheme.pgmap_ref,
        shared=scheme.shared,
        states=[state for type_ in _zonedev.TYPES for state in legal_states(scheme, type_)],
        seen=_seen(audit) if audit else {},
        audit=audit,
    )
