# SPDX-License-Identifier: LGPL-2.1-or-later
"""Results as text for people in a hurry.

One line on kernel and scheme, one row per pagemap, findings merged into runs with what they mean, one
closing line with the verdict.  Reads no kernel memory; every number comes from the result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from zonedev import _zonedev
from zonedev.model import Audit, Finding, Pagemap, PagemapResult, short_type
from zonedev.report.data import FILE_NUMBERS
from zonedev.report.table import table
from zonedev.report.terminal import fill

if TYPE_CHECKING:
    from zonedev.page import FolioReport
    from zonedev.states import SchemeReport

_SEVERITIES = _zonedev.SEVERITIES
_ALWAYS = ("idle", "busy", "violation")
_RUNS_SHOWN = 20

VERDICTS = {
    "clean": "clean: every page was read, and none breaks a rule",
    "violations": "violations",
    "incomplete": "incomplete: not every page could be judged",
}


def number(count: int, what: str) -> str:
    """ "1 page", "2 pages"."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def size(count: int) -> str:
    """ "12 KiB", "3.5 GiB"."""
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    exact = value < 10 and unit != "B" and value != int(value)
    return f"{value:.1f} {unit}" if exact else f"{value:.0f} {unit}"


def shown_runs(lines: Iterable[str], count: int) -> Iterator[str]:
    """The first of *count* lines, one a run, and how many more there are; the others are not made."""
    yield from islice(lines, _RUNS_SHOWN)
    if count > _RUNS_SHOWN:
        yield f"    ... and {count - _RUNS_SHOWN} more runs (--format json has all)"


def ref_text(pagemap: Pagemap) -> str:
    """State and count of a pagemap's reference."""
    count = "?" if pagemap.ref.count is None else str(pagemap.ref.count)
    return f"{pagemap.ref.state} {'~' if pagemap.ref.approximate else ''}{count}"


def device_name(pagemap: Pagemap) -> str:
    """What a pagemap is called."""
    return pagemap.device or f"{pagemap.address:#x}"


def types_words(types_from: str) -> str:
    """Where types and symbols came from."""
    return f"types from {'BTF, symbols from kallsyms' if types_from == 'btf' else 'DWARF'}"


def types_line(types_from: str) -> str:
    """The same as the closing line of a report."""
    return f"\n{types_words(types_from)}\n"


def heading(audit: Audit) -> str:
    """Kernel, scheme and type source in one line."""
    kernel, scheme = audit.kernel, audit.scheme
    live = ", live" if audit.live else ""
    return (
        f"Linux {kernel['release']} {kernel['arch']}{live}, {kernel['page_size'] // 1024} KiB pages; "
        f"scheme {scheme.id} ({scheme.confidence} confidence): {scheme.title}; {types_words(audit.types_from)}"
    )


def _pagemap_row(result: PagemapResult, classes: list[str]) -> list[str]:
    pagemap = result.pagemap
    idle = "?" if result.idle_refcount is None else str(result.idle_refcount)
    counts = [str(result.classes[c]) for c in classes]
    return [
        device_name(pagemap),
        short_type(pagemap.type),
        str(pagemap.pages),
        *counts,
        idle,
        ref_text(pagemap),
    ]


def pagemap_table(audit: Audit) -> str:
    """A row per pagemap and, for several, a row of totals; classes that are empty everywhere are left out."""
    totals = audit.classes
    classes = [c for c in _zonedev.CLASSES if c in _ALWAYS or totals[c]]
    rows = [["DEVICE", "TYPE", "PAGES", *(c.upper() for c in classes), "IDLE-AT", "PGMAP-REF"]]
    rows += [_pagemap_row(result, classes) for result in audit.pagemaps]
    if len(audit.pagemaps) > 1:
        rows.append(["total", "", str(audit.pages), *(str(totals[c]) for c in classes), "", ""])
    return table(rows, range(2, 4 + len(classes)))


def _pfns(finding: Finding) -> str:
    if finding.pfn is None:
        return "pagemap"
    if finding.pages == 1:
        return f"pfn {finding.pfn:#x}"
    last = finding.pfn + finding.pages - 1
    folios = (
        f"{number(finding.count, 'folio')} of order {finding.order}"
        if finding.order
        else f"{finding.count} pages"
    )
    return f"pfn {finding.pfn:#x}-{last:#x} ({folios})"


def finding_line(finding: Finding, device: str) -> str:
    """Where and what, in one line."""
    parts = [device, _pfns(finding)]
    if finding.pfn is not None:
        parts.append(
            f"refcount {finding.refcount} (expected {finding.expected}), mapcount {finding.mapcount}"
        )
    if finding.detail:
        parts.append(finding.detail)
    if finding.flag_names:
        parts.append("flags " + ",".join(finding.flag_names))
    if finding.also:
        parts.append("also " + ", ".join(finding.also))
    return "; ".join(parts)


def rule_row(finding: Finding, type_: Optional[str], scheme: str) -> dict[str, Any]:
    """The row of the rule for that memory type, scheme and severity."""
    rows = [row for row in _zonedev.rules() if row["id"] == finding.rule]
    for is_its in (
        lambda row: type_ in row["types"],
        lambda row: scheme in row["schemes"],
        lambda row: finding.severity in (row["severity"], row["severity_unproven"]),
    ):
        rows = list(filter(is_its, rows)) or rows
    return rows[0]


def meaning(finding: Finding, type_: Optional[str], scheme: str) -> str:
    """What the rule means there."""
    return str(rule_row(finding, type_, scheme)["meaning"])


def finding_text(finding: Finding) -> str:
    """A finding by itself: where and what, what it means, and who holds it."""
    device = finding.device or f"pagemap {finding.pagemap:#x}"
    parts = [
        fill(
            f"{finding.severity}: {finding.rule}; {finding_line(finding, device)}",
            "",
            "  ",
        )
    ]
    parts.append(fill(meaning(finding, None, ""), "  "))
    if finding.explanation is not None:
        from zonedev.report.explain_text import explain_line

        parts.append(fill(explain_line(finding.explanation), "  "))
    return "\n".join(parts)


def groups(findings: Iterable[Finding]) -> list[list[Finding]]:
    """Findings by severity and rule, in their order."""
    by_rule: dict[tuple[str, str], list[Finding]] = {}
    for finding in findings:
        by_rule.setdefault((finding.severity, finding.rule), []).append(finding)
    return list(by_rule.values())


def _run(finding: Finding, device: str) -> str:
    """A run of findings, and who holds its first folio."""
    line = f"    {finding_line(finding, device)}"
    if finding.explanation is None:
        return line
    from zonedev.report.explain_text import explain_line

    return f"{line}\n{fill(explain_line(finding.explanation), '      ')}"


def findings_text(audit: Audit, severity: str) -> str:
    """Findings of at least *severity* that no baseline accepts, worst first: the rule and its meaning, then its runs."""
    pagemaps = {r.pagemap.address: r.pagemap for r in audit.pagemaps}

    def called(address: int) -> str:
        return device_name(pagemaps[address]) if address in pagemaps else hex(address)

    lines = []
    for group in groups(f for f in audit.shown(severity) if not f.accepted):
        first = group[0]
        pagemap = pagemaps.get(first.pagemap)
        pages = sum(f.pages for f in group)
        if first.pfn is not None:
            where = number(pages, "page")
        else:
            where = f"{len(group)} pagemaps" if group[1:] else "pagemap"
        lines.append(f"{first.severity}: {first.rule}, {where}")
        lines.append(fill(meaning(first, pagemap.type if pagemap else None, audit.scheme.id), "  "))
        runs = (_run(finding, called(finding.pagemap)) for finding in group)
        lines += shown_runs(runs, len(group))
    return "\n".join(lines)


def _hidden(audit: Audit, severity: str) -> str:
    """How many findings the text leaves out."""
    shown = {id(f) for f in audit.shown(severity)}
    hidden = groups(f for f in audit.findings if id(f) not in shown and not f.accepted)
    parts = [f"{group[0].rule} {sum(f.pages for f in group)}" for group in hidden]
    if not parts:
        return ""
    how = (
        "--rule and --severity choose"
        if audit.filters.get("rule")
        else "--severity info shows them"
    )
    return f"not shown (pages): {', '.join(parts)}; {how}"


def _entries(what: str, entries: list[dict[str, Any]]) -> list[str]:
    """Entries of a baseline that met no finding."""
    if not entries:
        return []
    lines = (f"    {entry['rule']} {entry['place']}" for entry in entries)
    return [what, *shown_runs(lines, len(entries))]


def baseline_text(audit: Audit) -> str:
    """What a baseline accepts by severity and rule, and which of its entries met nothing."""
    baseline = audit.baseline
    if baseline is None:
        return ""
    known = groups(f for f in audit.findings if f.accepted)
    accepted = [f"    {group[0].severity} {group[0].rule}, {_extent(group)}" for group in known]
    names = ", ".join(baseline.files)
    return "\n".join(
        [
            fill("; ".join([f"baseline {names}", *baseline.notes]))
            + (" accepts" if accepted else " accepts nothing"),
            *accepted,
            *_entries("stale, and to be taken out of the baseline:", baseline.stale),
            *_entries("accepted, but not looked at again:", baseline.not_read_again),
        ]
    )


def _extent(group: list[Finding]) -> str:
    """How many pages have a finding, or how many pagemaps as a whole."""
    if group[0].pfn is None:
        return number(len(group), "pagemap")
    return number(sum(f.pages for f in group), "page")


def gaps(audit: Audit) -> list[str]:
    """Why pages could not be judged, device by device."""
    lines = []
    for result in audit.pagemaps:
        for reason, count in result.reasons.items():
            lines.append(f"{device_name(result.pagemap)}: {count} pages not judged: {reason}")
    return lines


def amount(audit: Audit, severity: str, accepted: bool = False) -> str:
    """How many pages, and how many pagemaps as a whole, have findings of a severity, accepted ones or others."""
    pagemaps = sum(
        f.severity == severity and f.accepted == accepted for f in audit.findings if f.pfn is None
    )
    count = audit.accepted(severity) if accepted else audit.fresh(severity)
    pages = count - pagemaps
    amounts = [(pages, "page")] * (pages > 0 or not pagemaps) + [(pagemaps, "pagemap")] * (
        pagemaps > 0
    )
    return " and ".join(number(n, what) for n, what in amounts)


def closing(audit: Audit) -> str:
    """Pages, time, rate and verdict in one line."""
    rate = audit.pages / audit.scan_s / 1e6 if audit.scan_s > 0 else 0.0
    of = f" ({size(audit.size)})" if audit.pages else ""
    text = f"{audit.pages} pages{of} in {audit.scan_s:.2f} s ({rate:.1f} M pages/s); "
    if audit.verdict == "violations":
        counts = f"{amount(audit, 'error')} with errors, {amount(audit, 'warning')} with warnings"
        if audit.fail_on == "info":
            counts += f", {amount(audit, 'info')} with information"
        return text + f"{VERDICTS['violations']}: {counts}{_known(audit)}"
    return text + outcome(audit)


def outcome(audit: Audit) -> str:
    """A verdict other than violations in words, and what there is all the same."""
    known = _known(audit)
    warnings = f"; {amount(audit, 'warning')} with warnings" if audit.fresh("warning") else ""
    if audit.verdict != "clean" or not (warnings or known):
        return VERDICTS[audit.verdict] + warnings + known
    if known:
        what = "no violation is new" if warnings else "nothing is new"
    else:
        what = "none is in violation"
    return f"clean: every page was read, and {what}{warnings}{known}"


def _known(audit: Audit) -> str:
    """What a baseline accepts, at the end of a line."""
    counts = [
        f"{amount(audit, severity, True)} with {word}"
        for severity, word in (("error", "errors"), ("warning", "warnings"))
        if audit.accepted(severity)
    ]
    return f"; accepted: {', '.join(counts)}" if counts else ""


def transient_text(audit: Audit) -> str:
    """What did not stand: states that a page passes through while it is used."""
    rules = Counter(f.rule for f in audit.transients)
    names = ", ".join(f"{rule} {n}" for rule, n in rules.most_common())
    return f"transient, gone or changed in a later sample: {names}"


class _Pass(NamedTuple):
    """What a pass saw, and what follows where it did not see everything."""

    saw: str
    incomplete: str


_PASSES = {
    "dax-entries": _Pass(
        "{entries} entries of {files} files read (of {dax_inodes} DAX inodes in {file_systems} file systems)",
        "not all could be",
    ),
    "gen-pool": _Pass(
        "{allocated} of {pages} pages are handed out",
        "not every pool could be read, and their pages are judged without",
    ),
    "explain": _Pass(
        "{explained} of {findings} runs of findings, of every severity, are explained",
        "the others are less severe, or cannot be",
    ),
    "free-lists": _Pass(
        "{pages} pages on {lists} lists",
        "not every one could be found and read to its end",
    ),
}


def pass_text(one: dict[str, Any]) -> str:
    """What a pass saw, or why it was not run."""
    name = str(one["pass"]).replace("-", " ")
    if not one["ran"]:
        return f"{name}: not read: {one['why']}"
    if one["pass"] == "removal-waiters":
        lost = f"; the stacks of {one['lost']} could not be read" if one["lost"] else ""
        return f"{name}: {one['waiters']} of {one['tasks']} tasks{lost}"
    words = _PASSES[one["pass"]]
    text = f"{name}: {words.saw.format(**one)}"
    if one["complete"]:
        return text
    devices = ", ".join(one.get("incomplete_devices", ()))
    then = f", so that no page of {devices} is said to lack one" if devices else ""
    why = f": {'; '.join(one['gaps'])}" if one["gaps"] else ""
    return f"{text}; {words.incomplete}{then}{why}"


def audit_text(audit: Audit, severity: str = "warning") -> str:
    """The whole report; findings below *severity* are only counted."""
    blocks = [fill(heading(audit))]
    blocks += [fill("problem: " + text) for text in audit.problems]
    blocks += [fill(text) for text in audit.notes]
    if audit.filters:
        chosen = "; ".join(f"{key} {', '.join(names)}" for key, names in audit.filters.items())
        blocks.append(fill(f"only: {chosen}"))
    blocks += [fill("calibration: " + text) for text in audit.scheme.calibrated]
    if audit.pagemaps:
        blocks.append(pagemap_table(audit))
    blocks.append("\n".join(gaps(audit)))
    blocks += [fill(pass_text(one)) for one in audit.passes]
    blocks.append(findings_text(audit, severity))
    blocks.append(baseline_text(audit))
    blocks.append(fill(_hidden(audit, severity)))
    if audit.findings_dropped:
        blocks.append(f"{audit.findings_dropped} more runs found no room and are only counted")
    if audit.transient:
        blocks.append(fill(transient_text(audit)))
    if audit.kernel_log:
        blocks.append(
            "the kernel's log says:\n" + "\n".join("    " + line for line in audit.kernel_log)
        )
    blocks.append(closing(audit))
    return "\n\n".join(block for block in blocks if block) + "\n"


# ---------------------------------------------------------------- list


def _range_text(pagemap: Pagemap) -> str:
    return ", ".join(f"{r.start_pfn:#x}-{r.end_pfn - 1:#x}" for r in pagemap.ranges)


def _memmap(pagemap: Pagemap) -> str:
    """Where its struct pages lie."""
    skipped = sum(r.first_pfn - r.start_pfn for r in pagemap.ranges)
    return f"altmap ({skipped} pages)" if pagemap.altmap else "RAM"


def list_text(pagemaps: list[Pagemap], incomplete: bool = False) -> str:
    """One row per pagemap."""
    if not pagemaps and incomplete:
        return "no dev_pagemap could be read\n"
    if not pagemaps:
        return "no dev_pagemap is registered: this machine has no device memory with struct pages\n"
    rows = [
        [
            "DEVICE",
            "TYPE",
            "PAGES",
            "SIZE",
            "PFNS",
            "ORDER",
            "MEMMAP",
            "PGMAP-REF",
            "OPS",
            "ADDRESS",
        ]
    ]
    for pagemap in pagemaps:
        rows.append(
            [
                device_name(pagemap),
                short_type(pagemap.type),
                str(pagemap.pages),
                size(pagemap.size),
                _range_text(pagemap),
                str(pagemap.vmemmap_shift),
                _memmap(pagemap),
                ref_text(pagemap),
                pagemap.ops or "-",
                f"{pagemap.address:#x}",
            ]
        )
    return table(rows, (2, 3, 5)) + "\n"


def pagemap_text(pagemap: Pagemap) -> str:
    """One pagemap by itself."""
    facts = (
        ("device", device_name(pagemap)),
        ("type", short_type(pagemap.type)),
        ("pages", f"{pagemap.pages} ({size(pagemap.size)})"),
        ("pfns", _range_text(pagemap)),
        ("order", str(pagemap.vmemmap_shift)),
        ("memmap", _memmap(pagemap)),
        ("ref", ref_text(pagemap)),
        ("ops", pagemap.ops or "-"),
        ("resource", pagemap.resource or "-"),
        ("address", f"{pagemap.address:#x}"),
    )
    return "\n".join(f"{name:<9}{value}" for name, value in facts)


# ---------------------------------------------------------------- files


def files_text(files: list[dict[str, Any]]) -> str:
    """One row per DAX file (see file_dict())."""
    rows = [["DEVICE", "TYPE", "INODE", *(name.upper() for name in FILE_NUMBERS), "NAME"]]
    for file in files:
        name = file["name"] + (f" ({file['problem']})" if file["problem"] else "")
        inode = "?" if file["number"] is None else str(file["number"])
        counts = [str(file[key]) for key in FILE_NUMBERS]
        rows.append([file["device"] or "?", file["file_system"] or "?", inode, *counts, name])
    return table(rows, range(2, 9)) + "\n"


def entries_text(entries: list[dict[str, Any]]) -> str:
    """One row per DAX entry (see entry_dict())."""
    rows = [["PAGE", "PFN", "PAGES", "KIND"]]
    for entry in entries:
        kinds = [name for name in ("locked", "pmd", "zero", "empty") if entry[name]]
        rows.append(
            [f"{entry['index']:#x}", f"{entry['pfn']:#x}", str(entry["pages"]), ",".join(kinds)]
        )
    return table(rows, range(3)) + "\n"


# ---------------------------------------------------------------- page


def _hexdump(raw: bytes, address: int) -> str:
    lines = []
    for i in range(0, len(raw), 16):
        words = [raw[j : j + 8] for j in range(i, min(i + 16, len(raw)), 8)]
        lines.append(f"  {address + i:#x}  " + "  ".join(w.hex(" ") for w in words))
    return "\n".join(lines)


def folio_text(report: FolioReport) -> str:
    """One struct page, decoded and judged."""
    pagemap, page, head = report.pagemap, report.page, report.head
    lines = [
        report.asked,
        f"device      {device_name(pagemap)}, {short_type(pagemap.type)}, pagemap {pagemap.address:#x}, ref {ref_text(pagemap)}",
        f"page        {report.address:#x}" + (", tail" if page["tail"] else ""),
    ]
    if page["tail"]:
        known = page["head_pfn"] is not None
        lines.append(
            f"head        {report.head_address:#x}, pfn {page['head_pfn']:#x}"
            if known
            else "head        not valid"
        )
        lines.append(f"tail        refcount {page['refcount']}, word {page['word1']:#x}")
    if not (page["tail"] and page["head_pfn"] is None):
        parts = f"base {head['base']} + maps {head['mapcount']} + plain {head['plain']} + pins {head['pin']}"
        lines += [
            f"refcount    {head['refcount']} ({parts}; free pages rest at {report.idle_refcount})",
            f"mapcount    {head['mapcount']}"
            + (" (page type in _mapcount)" if head["has_type"] else ""),
            f"mapping     {head['mapping']:#x}" + (f", {report.owner}" if report.owner else ""),
            f"index       {head['index']:#x}",
            f"order       {head['order']}",
        ]
    if report.files:
        lines.append(f"files       {report.files}")
    if report.driver:
        lines.append(f"driver      {report.driver}")
    lines.append(
        f"flags       {','.join(report.flag_names) or '-'}; zone {page['zone']}, node {page['node']}"
    )
    lines.append(f"class       {report.class_}; {types_words(report.types_from)}")
    for finding in report.findings:
        lines.append(
            f"{finding.severity:<11} {finding.rule}: {meaning(finding, pagemap.type, report.scheme)}"
        )
    lines.append("raw")
    lines.append(_hexdump(report.raw, report.address))
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------- schemes

_OTHER_REFERENCES = (
    "Every other reference (a lookup, an I/O in flight) adds 1. A DMA pin (since 5.7) adds 1024 to a folio of "
    "order 0, 1 and a pincount to a larger one."
)


def _seen_text(report: SchemeReport, audit: Audit) -> str:
    """Where pages rest that look idle, beside where the scheme has them rest."""
    rows = [["TYPE", "IDLE-AT", "SEEN AT 0", "AT 1", "ELSEWHERE"]]
    for type_, counts in report.seen.items():
        idle = audit.scheme.idle.get(type_)
        cells = [str(counts.get(key, 0)) for key in ("0", "1", "other")]
        rows.append([short_type(type_), "?" if idle is None else str(idle), *cells])
    return table(rows, (1, 2, 3, 4))


def scheme_text(report: SchemeReport) -> str:
    """A scheme: evidence, what was seen, and the legal states as a table."""
    audit = report.audit
    blocks = [fill(heading(audit) if audit else f"scheme {report.id}: {report.title}")]
    facts = [("kernels", report.kernels), ("pagemap", report.pgmap_ref), ("shared", report.shared)]
    blocks.append("\n".join(f"{name:<9}{value}" for name, value in facts if value))
    if audit:
        blocks += [fill("problem: " + text) for text in audit.problems]
        blocks.append("\n".join(["evidence", *("  " + text for text in audit.scheme.evidence)]))
        blocks += [fill("calibration: " + text) for text in audit.scheme.calibrated]
    if audit and report.seen:
        blocks.append(
            "folios that look idle (not mapped, in no file)\n" + _seen_text(report, audit)
        )
    if report.states:
        rows = [["TYPE", "LEGAL STATE", "REFCOUNT", "MAPCOUNT", "MAPPING"]]
        rows += [[short_type(state.type), *state[1:]] for state in report.states]
        blocks += [table(rows), fill(_OTHER_REFERENCES)]
    return "\n\n".join(block for block in blocks if block) + "\n"


# ---------------------------------------------------------------- rules


def _types_text(row: dict[str, Any]) -> str:
    types = [short_type(t) for t in row["types"]]
    return "all types" if len(types) == len(_zonedev.TYPES) else ", ".join(types)


def _schemes_text(row: dict[str, Any]) -> str:
    schemes = [s for s in row["schemes"] if s != "unknown"]
    return (
        "all schemes"
        if len(schemes) == len(_zonedev.SCHEMES) - 1
        else "schemes " + ", ".join(schemes)
    )


def rules_text(rows: list[dict[str, Any]]) -> str:
    """The table of rules, one line per row; for a kernel, with what applies to it."""
    known = any("not_applicable" in row for row in rows)
    lines = [["RULE", "NO.", "SEVERITY", "TYPES", "SCHEMES", *(["HERE"] if known else [])]]
    for row in rows:
        cells = [row["id"], row["number"], row["severity"], _types_text(row), _schemes_text(row)]
        lines.append([*cells, *([row["not_applicable"] or "applies"] if known else [])])
    return table(lines) + "\n"


def rule_text(rows: list[dict[str, Any]]) -> str:
    """One rule with all its rows explained."""
    first = rows[0]
    lines = [f"{first['id']} ({first['number']})" if first["number"] != "-" else first["id"]]
    for row in rows:
        level = row["severity"]
        if row["evidence"] != "none" and row["severity_unproven"] != level:
            level += f" ({row['severity_unproven']} without {row['evidence']})"
        lines.append("")
        lines.append(f"{level} for {_types_text(row)}, {_schemes_text(row)}")
        for label, key in (
            ("when", "predicate"),
            ("means", "meaning"),
            ("bug class", "bug_class"),
            ("near miss", "near_miss"),
        ):
            lines.append(fill(row[key], f"  {label:<11}", " " * 13))
    return "\n".join(lines) + "\n"
