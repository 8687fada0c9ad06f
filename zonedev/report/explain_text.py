# SPDX-License-Identifier: LGPL-2.1-or-later
"""One explanation as text: whose page it is, a row per holder, and the account."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby, islice

from zonedev.explanation import GUP_PIN_COUNTING_BIAS, Explanation, FileAt, Holder, is_map
from zonedev.kernel.memory_search import Searched
from zonedev.model import short_type
from zonedev.report.table import table
from zonedev.report.text import device_name, number, size, types_words

_ROWS_SHOWN = 20
_OPENERS_SHOWN = 3
_TERMS_SHOWN = 4


def _file(file: FileAt, inside: int = 0) -> list[str]:
    """A place in a file, *inside* bytes behind the folio's head, and who has it open."""
    name = file.path or f"a file whose name is not known (address_space {file.mapping:#x})"
    if file.deleted:
        name += " (deleted)"
    of = f" of {file.size:#x}" if file.size else ""
    inode = f", inode {file.inode}" if file.inode else ""
    lines = [f"{name}, offset {file.offset + inside:#x}{of}{inode}"]
    if file.openers:
        shown = [
            f"{o.comm} (pid {o.pid}, descriptor {o.fd})" for o in file.openers[:_OPENERS_SHOWN]
        ]
        more = len(file.openers) - len(shown)
        lines.append(f"  open: {', '.join(shown)}{f' and {more} more' if more else ''}")
    return lines


def _who(holder: Holder) -> str:
    return "-" if holder.pid is None else f"{holder.comm} (pid {holder.pid})"


def _where(holders: list[Holder]) -> str:
    """Where the holders of one row are."""
    first = holders[0]
    words = [f"at {first.address:#x}"] if first.address is not None and is_map(first) else []
    words += [first.object] if first.object else []
    if len(holders) > 1:
        words.append(f"and {len(holders) - 1} more like it")
    return ", ".join(words)


def _rows(explanation: Explanation) -> Iterator[list[str]]:
    """What several holders of one process and kind hold is one row."""
    ordered = sorted(explanation.holders, key=lambda h: (-(h.refs > 0), h.kind, h.pid or 0))
    for (kind, _), group in groupby(ordered, key=lambda h: (h.kind, h.pid)):
        same = list(group)
        refs, pins = (sum(getattr(h, name) for h in same) for name in ("refs", "pins"))
        yield [str(refs), str(pins) if pins else "", kind, _who(same[0]), _where(same)]


def _holders(explanation: Explanation) -> list[str]:
    rows = list(_rows(explanation))
    if not rows:
        return ["nobody was found that holds or maps it"]
    shown = [["refs", "pins", "kind", "who", "where"], *islice(rows, _ROWS_SHOWN)]
    lines = [table(shown, right=(0, 1))]
    if len(rows) > _ROWS_SHOWN:
        lines.append(f"... and {len(rows) - _ROWS_SHOWN} more rows (--format json has all)")
    return lines


def references(count: int, order: int) -> str:
    """A number of references; of a folio of one page, pins are told by their number."""
    words = number(count, "reference")
    if order or count < GUP_PIN_COUNTING_BIAS:
        return words
    pins, plain = divmod(count, GUP_PIN_COUNTING_BIAS)
    return f"{words} (as {number(pins, 'pin')} and {plain} others would be)"


def _searched(searched: Searched) -> list[str]:
    """What a search of memory found, how far it came, and that a word is no proof."""
    found = len(searched.hits) + searched.more
    lines = [
        f"memory: {number(found, 'word')} beside those of holders {'points' if found == 1 else 'point'} to it"
        f" ({size(searched.read)} of {size(searched.total)} searched in {searched.seconds:.1f} s)"
    ]
    for hit in searched.hits[:_ROWS_SHOWN]:
        stale = "" if hit.certain else " (may be stale)"
        lines.append(f"  {hit.address or hit.physical:#x}: {hit.where}{stale}")
    if found > _ROWS_SHOWN:
        lines.append(f"  ... and {found - _ROWS_SHOWN} more")
    if searched.unread:
        lines.append(f"  not searched: {size(searched.unread)} that cannot be read")
    if searched.why:
        lines.append(f"  not all was searched: {searched.why}")
    return lines


def _verdict(explanation: Explanation) -> str:
    left = explanation.unexplained
    account = f"refcount {explanation.refcount} = base {explanation.base} + {explanation.explained} explained + {left} unexplained: "
    if not left:
        return account + "it adds up"
    if left < 0:
        return account + f"{number(-left, 'reference')} missing, put too often"
    words = f"{references(left, explanation.order)} without a known holder"
    if explanation.gaps:
        return account + words + ", as far as could be looked"
    if _points_nowhere(explanation):
        words += "; nothing in memory points to it: leaked, or kept by its pfn or a DMA address"
    return account + words


def _points_nowhere(explanation: Explanation) -> bool:
    """Whether all of memory was searched, and nothing in it points to the folio."""
    searched = explanation.searched
    return searched is not None and not (
        searched.hits or searched.more or searched.unread or searched.why
    )


def _strays(explanation: Explanation) -> list[str]:
    """That references of the page that was asked for are not where they belong."""
    if not explanation.strays:
        return []
    return [
        f"pfn {explanation.asked_pfn:#x} is a tail, and counts {explanation.strays} by itself instead of 0: references were taken or returned"
        " there and not on the head"
    ]


def explain_line(explanation: Explanation) -> str:
    """The account in one line, and the place in its file."""
    rows = [row for row in _rows(explanation) if row[0] != "0"]
    terms = [f"base {explanation.base}"]
    for refs, _, kind, who, _ in rows[:_TERMS_SHOWN]:
        terms.append(f"{refs} {kind}" + (f" of {who}" if who != "-" else ""))
    if len(rows) > _TERMS_SHOWN:
        terms.append(f"{sum(int(row[0]) for row in rows[_TERMS_SHOWN:])} of others")
    head = f"head {explanation.pfn:#x}: " if explanation.asked_pfn != explanation.pfn else ""
    words = [
        f"{head}refcount {explanation.refcount} = {' + '.join(terms)} + {explanation.unexplained} unexplained"
    ]
    words += [_file(file)[0] for file in explanation.files[:_TERMS_SHOWN]]
    if explanation.gaps:
        words.append(f"not looked at: {explanation.gaps[0]}")
    return "; ".join(words)


def _maps(explanation: Explanation) -> list[str]:
    """That the mapcount is another one than that of the maps that were found."""
    if not explanation.maps_count or explanation.maps == explanation.mapcount:
        return []
    return [f"mapcount {explanation.mapcount}, but {number(explanation.maps, 'map')} found"]


def explain_text(explanation: Explanation) -> str:
    """The report of `zonedev explain`."""
    pagemap, pages = explanation.pagemap, 1 << explanation.order
    asked = explanation.asked_pfn - explanation.pfn
    free_at = "?" if explanation.idle_refcount is None else explanation.idle_refcount
    counts = "" if explanation.maps_count else ", in which maps take no reference"
    of_folio = f", page {asked} of {pages} from {explanation.pfn:#x}" if explanation.order else ""
    lines = [explanation.asked] if explanation.asked else []
    lines += [
        f"pfn {explanation.asked_pfn:#x} ({device_name(pagemap)}, {short_type(pagemap.type)}){of_folio}: refcount"
        f" {explanation.refcount}, mapcount {explanation.mapcount}; free at {free_at} (scheme"
        f" {explanation.scheme}{counts})"
    ]
    inside = asked * explanation.page_size
    lines += [line for file in explanation.files for line in _file(file, inside)]
    if explanation.mapping and explanation.mapping not in {f.mapping for f in explanation.files}:
        lines.append(f"mapping: {explanation.mapping_words}")
    lines += [explanation.driver] if explanation.driver else []
    lines += ["", *_holders(explanation), "", *_maps(explanation), *_strays(explanation)]
    lines += [f"not looked at: {gap}" for gap in explanation.gaps]
    lines += _searched(explanation.searched) if explanation.searched else []
    lines.append(f"{_verdict(explanation)}; {types_words(explanation.types_from)}")
    return "\n".join(lines) + "\n"
