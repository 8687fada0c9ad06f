# SPDX-License-Identifier: LGPL-2.1-or-later
"""An audit as a page for a browser: one file that needs nothing else, and asks no network for anything.

Owns what is in the page: the account in words is written here, so that it can be read without scripts; maps,
histograms and the list of findings are data (page_data.py), which the scripts in page/ draw.  Reads no kernel memory.

Invariant: what comes out of a dump is never code.  In HTML it is escaped, as data it is JSON without "<", and
the page's own policy (Content-Security-Policy) lets only the style and the script of this package run.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib.resources import files
from typing import Optional

from zonedev.model import CLASSES, Audit, Finding, Pagemap, PagemapResult, short_type
from zonedev.report import text
from zonedev.report.data import sources
from zonedev.report.page_data import data_element, page_data

_SCRIPTS = ("data.js", "map.js", "findings.js", "main.js")

# What the account in words tells: groups of findings, and devices of each.
_GROUPS_SHOWN, _PLACES_SHOWN = 40, 6

_HEADINGS = {
    "violations": "Violations",
    "incomplete": "Incomplete",
    "clean": "Clean",
}
_AMOUNTS = (("error", "errors"), ("warning", "warnings"))
_SIGNS = {"violations": "\u2716", "incomplete": "?", "clean": "\u2714"}
_SEVERITY_SIGNS = {"error": "\u2716", "warning": "\u25b2", "info": "i"}


# ---------------------------------------------------------------- the account in words


def _tag(name: str, content: str, **attributes: str) -> str:
    """An element; *content* is HTML already, attributes are not."""
    named = [(key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items()]
    words = "".join(f' {key}="{escape(value)}"' for key, value in named)
    return f"<{name}{words}>{content}</{name}>"


def _list(lines: Iterable[str], class_: str = "plain") -> str:
    return _tag("ul", "".join(_tag("li", escape(line)) for line in lines), class_=class_)


def _count(count: int) -> str:
    """A number with its thousands apart."""
    return f"{count:,}"


def _lead(audit: Audit) -> str:
    """The verdict in a sentence."""
    if audit.verdict == "violations":
        words = ", ".join(f"{text.amount(audit, name)} with {what}" for name, what in _AMOUNTS)
        pages = audit.classes["violation"]
        folios = (
            f"; with the folios that they are of, {text.number(pages, 'page')}" if pages else ""
        )
        limit = f" Findings count from {audit.fail_on} on." if audit.fail_on != "error" else ""
        return f"{words}{folios}.{limit}"
    lead = text.outcome(audit).partition(": ")[2]
    return f"{lead[0].upper()}{lead[1:]}."


def _tile(label: str, count: int, class_: str) -> str:
    value = _tag("dd", _count(count))
    return _tag("div", _tag("dt", escape(label)) + value, class_=f"tile {class_ if count else ''}")


def _tiles(audit: Audit) -> str:
    classes = audit.classes
    tiles = [_tile("pages", audit.pages, "")]
    tiles += [_tile(name.replace("-", " "), classes[name], name) for name in CLASSES]
    return _tag("dl", "".join(tiles), class_="tiles")


def _verdict(audit: Audit) -> str:
    verdict = audit.verdict
    sign = _tag("span", _SIGNS[verdict], class_="sign", aria_hidden="true")
    filters = "; ".join(f"{key} {', '.join(names)}" for key, names in audit.filters.items())
    only = [f"only: {filters}"] if filters else []
    notes = [*("problem: " + one for one in audit.problems), *audit.notes, *only]
    notes += ["calibration: " + one for one in audit.scheme.calibrated] + text.gaps(audit)
    return _tag(
        "section",
        _tag("h1", sign + _HEADINGS[verdict])
        + _tag("p", escape(_lead(audit)), class_="lead")
        + (_list(notes, "notes") if notes else "")
        + _tiles(audit),
        id="verdict",
        class_=f"verdict {verdict}",
    )


def _pagemap_of(audit: Audit, finding: Finding) -> Optional[Pagemap]:
    known = (r.pagemap for r in audit.pagemaps if r.pagemap.address == finding.pagemap)
    return next(known, None)


def _name_of(audit: Audit, finding: Finding) -> str:
    """The device of a finding."""
    pagemap = _pagemap_of(audit, finding)
    return text.device_name(pagemap) if pagemap else hex(finding.pagemap)


def _places(audit: Audit, group: Sequence[Finding]) -> str:
    """How many pages of which devices."""
    pages: dict[int, int] = {}
    for finding in group:
        count = finding.pages if finding.pfn is not None else 0
        pages[finding.pagemap] = pages.get(finding.pagemap, 0) + count
    first = {finding.pagemap: finding for finding in reversed(group)}
    words = [
        f"{_name_of(audit, first[address])}: {text.number(n, 'page') if n else 'the pagemap'}"
        for address, n in pages.items()
    ]
    more = f" and {len(words) - _PLACES_SHOWN} more" if len(words) > _PLACES_SHOWN else ""
    return ", ".join(words[:_PLACES_SHOWN]) + more


def _group(audit: Audit, group: Sequence[Finding]) -> str:
    """A rule that fired: how bad, where, what it means, and one case of it."""
    first = group[0]
    pagemap = _pagemap_of(audit, first)
    sign = _tag("span", _SEVERITY_SIGNS[first.severity], aria_hidden="true")
    badge = _tag("span", f"{sign} {first.severity}", class_=f"badge {first.severity}")
    means = text.meaning(first, pagemap.type if pagemap else None, audit.scheme.id)
    lines = [
        _tag("h3", f"{badge} {_tag('code', escape(first.rule))}"),
        _tag("p", escape(_places(audit, group)), class_="where"),
        _tag("p", escape(means)),
        _tag("p", escape(text.finding_line(first, _name_of(audit, first))), class_="case"),
    ]
    return _tag(
        "article",
        "".join(lines),
        class_=f"group {first.severity}",
        data_rule=first.rule,
        data_severity=first.severity,
    )


def _wrong(audit: Audit) -> str:
    """What is wrong: errors and warnings by rule; what is only information is named."""
    groups = text.groups(f for f in audit.shown("info") if not f.accepted)
    bad = [group for group in groups if group[0].severity != "info"]
    infos = [f"{g[0].rule} ({sum(f.pages for f in g)})" for g in groups if g[0].severity == "info"]
    lines = []
    accepted = text.baseline_text(audit)
    if not bad:
        other = "other " if accepted else ""
        lines.append(f"Nothing: no {other}finding is a warning or an error.")
    if len(bad) > _GROUPS_SHOWN:
        lines.append(f"... and {len(bad) - _GROUPS_SHOWN} more rules, below.")
    if infos:
        lines.append(f"Legal, and worth seeing (pages): {', '.join(infos)}.")
    if audit.findings_dropped:
        lines.append(f"{audit.findings_dropped} more runs found no room, and are only counted.")
    if audit.transient:
        lines.append(text.transient_text(audit))
    parts = [_tag("h2", "What is wrong, and where")]
    parts += [_group(audit, group) for group in bad[:_GROUPS_SHOWN]]
    parts += [_tag("p", escape(line), class_="muted") for line in lines]
    if accepted:
        parts.append(_details("what the baseline says", _tag("pre", escape(accepted)), True))
    return _tag("section", "".join(parts), id="wrong")


def _pagemap_row(result: PagemapResult) -> str:
    pagemap, idle = result.pagemap, result.idle_refcount
    cells = [
        _tag("th", escape(text.device_name(pagemap)), scope="row"),
        _tag("td", escape(short_type(pagemap.type))),
        _tag("td", _count(pagemap.pages), class_="num"),
    ]
    for name, count in result.classes.items():
        cells.append(_tag("td", _count(count), class_=f"num {name if count else 'zero'}"))
    cells.append(_tag("td", "?" if idle is None else str(idle), class_="num"))
    cells.append(_tag("td", escape(text.ref_text(pagemap)), class_=pagemap.ref.state))
    return _tag("tr", "".join(cells))


def _pagemaps(audit: Audit) -> str:
    """A row per pagemap."""
    numbers = ["pages", *(name.replace("-", " ") for name in CLASSES), "free at"]
    head = [_tag("th", name, scope="col") for name in ("device", "type")]
    head += [_tag("th", name, scope="col", class_="num") for name in numbers]
    head.append(_tag("th", "reference", scope="col"))
    rows = [_tag("tr", "".join(head)), *map(_pagemap_row, audit.pagemaps)]
    table = _tag("table", "".join(rows))
    attributes = {"class_": "wide", "tabindex": "0", "role": "region", "aria_label": "pagemaps"}
    return _tag("h2", "Pagemaps") + _tag("div", table, **attributes)


def _details(title: str, content: str, opened: bool = False) -> str:
    return (
        f"<details{' open' if opened else ''}>{_tag('summary', escape(title))}{content}</details>"
    )


def _scheme(audit: Audit) -> str:
    scheme = audit.scheme
    title = f"Scheme {scheme.id}, {scheme.confidence} confidence: {scheme.title}"
    idle = [
        f"{short_type(type_)} pages are free at {'?' if count is None else count}"
        for type_, count in scheme.idle.items()
    ]
    passes = [text.pass_text(one) for one in audit.passes]
    lacking = [f"{one['rule']}: {one['why']}" for one in audit.not_applicable]
    parts = [
        _tag("h2", "Scheme and evidence"),
        _tag("p", escape(title)),
        _details("evidence", _list([*scheme.evidence, *scheme.calibrated], "mono"), True),
        _details("where free pages rest", _list(idle)),
    ]
    if passes:
        parts.append(_details("what else was read", _list(passes), True))
    if lacking:
        parts.append(_details(f"rules that did not apply ({len(lacking)})", _list(lacking)))
    if audit.kernel_log:
        lines = _tag("pre", escape("\n".join(audit.kernel_log)))
        parts.append(_details("the kernel's log says", lines, True))
    return _tag("section", "".join(parts), id="scheme")


def _facts(audit: Audit) -> str:
    """The target in one line."""
    kernel = audit.kernel
    live = "live kernel, " if audit.live else ""
    return (
        f"{live}{audit.path} \u00b7 Linux {kernel['release']} {kernel['arch']} \u00b7 "
        f"scheme {audit.scheme.id} \u00b7 {text.types_words(audit.types_from)}"
    )


def _footer(audit: Audit) -> str:
    from zonedev.audit import tool_versions

    versions = tool_versions()
    source = sources(audit.types_from)
    words = (
        f"zonedev {versions['zonedev']}, drgn {versions['drgn']}; types from {source['types_from']}, symbols from "
        f"{source['symbols_from']}; read through {', '.join(audit.readers)}. {text.closing(audit)}."
    )
    return _tag("p", escape(words))


# ---------------------------------------------------------------- the page


def _part(name: str) -> str:
    """A file of the page."""
    return files(__package__).joinpath("page", name).read_text("ascii")


def _hash(content: str) -> str:
    """What the page's policy calls the content of an element by."""
    return base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def audit_html(audit: Audit, severity: str, command: Sequence[str]) -> Iterator[str]:
    """
    The page, in pieces.

    :param severity: the lowest one of findings that are in it; no sum is changed by that
    :param command: words of a command line that names the program and the target again
    """
    style, script = "\n" + _part("style.css"), "\n" + "".join(map(_part, _SCRIPTS))
    parts = {
        "style_hash": _hash(style),
        "script_hash": _hash(script),
        "title": escape(f"{audit.verdict}: {audit.path}"),
        "verdict": audit.verdict,
        "facts": escape(_facts(audit)),
        "style": style,
        "verdict_section": _verdict(audit),
        "wrong_section": _wrong(audit),
        "maps": "maps" if audit.pagemaps else "maps hidden",
        "pagemaps": _pagemaps(audit),
        "scheme_section": _scheme(audit),
        "footer": _footer(audit),
        "data": data_element(page_data(audit, severity, command)),
        "script": script,
    }
    for piece in _part("page.html").split("@@"):
        yield parts.get(piece, piece)
