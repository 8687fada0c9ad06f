# SPDX-License-Identifier: LGPL-2.1-or-later
"""--drgn: the Python that does what a verb does, for drgn's prompt or a script.

What it prints is what the verb prints (of a list of pagemaps or files: what is in it).  prog is drgn's; helpers take it by default.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple, Optional


def _literal(value: Any) -> str:
    """repr() in double quotes where that is the same."""
    text = repr(value)
    if isinstance(value, str) and text == f"'{value}'" and '"' not in value:
        return f'"{value}"'
    if isinstance(value, (list, tuple)):
        items = ", ".join(map(_literal, value))
        return f"[{items}]" if isinstance(value, list) else f"({items}{',' * (len(value) == 1)})"
    return text


class _Code:
    """Lines of Python, and what they import."""

    def __init__(self) -> None:
        self._names: dict[str, set[str]] = defaultdict(set)
        self._lines: list[str] = []

    def use(self, module: str, *names: str) -> None:
        """Import names of a module; without names, the module."""
        self._names[module].update(names)

    def add(self, *lines: str) -> None:
        self._lines += lines

    def call(self, name: str, words: list[str], defaults: dict[str, tuple[Any, Any]]) -> str:
        """A call of a helper; *defaults*: parameter -> its value and its default, where it need not be said."""
        self.use("zonedev.helpers", name)
        said = [f"{key}={_literal(v)}" for key, (v, default) in defaults.items() if v != default]
        return f"{name}({', '.join(words + said)})"

    def __str__(self) -> str:
        imports = []
        for module, names in sorted(self._names.items()):
            some = ", ".join(sorted(names))
            imports.append(f"from {module} import {some}" if names else f"import {module}")
        # The standard library stands first, as everywhere.
        imports.sort(key=lambda line: "zonedev" in line)
        return "\n".join([*imports, "", *self._lines]) + "\n"


class _Format(NamedTuple):
    """The function that makes a format of a result."""

    module: str
    name: str


def _print(code: _Code, how: Optional[_Format], what: str = "result", *words: str) -> None:
    """Print a result; None: str() of it."""
    if how is None:
        code.add(f'print({what}, end="")')
        return
    made = f"{how.name}({', '.join([what, *words])})"
    code.use(how.module, how.name)
    if how.name.endswith("_dict"):
        code.use(how.module, "to_json")
        made = f"to_json({made})"
    code.add(f'print({made}, end="")')


def _json(args: argparse.Namespace, name: str) -> Optional[_Format]:
    return _Format("zonedev.report.data", name) if args.format == "json" else None


_AUDIT_FORMATS = {
    "text": _Format("zonedev.report.text", "audit_text"),
    "json": _Format("zonedev.report.data", "audit_dict"),
    "ndjson": _Format("zonedev.report.data", "audit_ndjson"),
    "csv": _Format("zonedev.report.data", "audit_csv"),
    "prometheus": _Format("zonedev.report.prometheus", "audit_prometheus"),
}

_LIST_FORMATS = {
    "text": _Format("zonedev.report.text", "list_text"),
    "json": _Format("zonedev.report.data", "list_dict"),
    "ndjson": _Format("zonedev.report.data", "list_ndjson"),
    "csv": _Format("zonedev.report.data", "list_csv"),
}


def _list(code: _Code, args: argparse.Namespace) -> None:
    code.add(f"pagemaps = {code.call('list_pagemaps', [], {})}")
    words = []
    if args.format == "json":
        code.use("zonedev.kernel.btf", "types_from")
        words = ["types_from(prog)"]
    _print(code, _LIST_FORMATS[args.format], "pagemaps", *words)


def _audit(code: _Code, args: argparse.Namespace) -> None:
    options: dict[str, tuple[Any, Any]] = {
        "types": (args.type, None),
        "pgmaps": (args.pgmap, None),
        "fail_on": (args.fail_on, "error"),
        "resample_ms": (args.resample_ms, 20),
        "samples": (args.samples, 64),
        "quick": (args.quick, False),
        "explain": (args.explain, False),
        "baseline": (args.baseline, []),
    }
    words = []
    if args.html:
        code.use("zonedev.cells", "CellPlan")
        words = ["cells=CellPlan(1 << 17)"]
    code.add(f"result = {code.call('audit', words, options)}")
    if args.rule:
        from zonedev.commands import rule_ids

        code.add(f'result.filters["rule"] = {_literal(rule_ids(args.rule))}')
    if args.html:
        code.use("zonedev.report.html", "audit_html")
        page = f'audit_html(result, {_literal(args.severity or "info")}, ["%zonedev"])'
        code.add(
            f'with open({_literal(args.html)}, "w", encoding="ascii", errors="xmlcharrefreplace") as file:'
        )
        code.add(f"    file.writelines({page})")
    if args.json is not None:
        code.use("zonedev.report.data", "audit_dict", "to_json")
        code.add(f'with open({_literal(args.json)}, "w") as file:')
        code.add("    file.write(to_json(audit_dict(result)))")
    if args.quiet:
        code.add("# What -q leaves: result.verdict, result.exit_code")
        return
    if args.format == "text" and args.severity in (None, "warning"):
        _print(code, None)
        return
    severity = args.severity or "info"
    words = [] if severity == "info" and args.format != "text" else [_literal(severity)]
    _print(code, _AUDIT_FORMATS[args.format], "result", *words)


def _map(code: _Code, args: argparse.Namespace) -> None:
    from zonedev.commands import pfns_of

    options = {
        "types": (args.type, None),
        "pgmaps": (args.pgmap, None),
        "quick": (args.quick, False),
    }
    code.use("zonedev.report.map_text", "WIDTH", "map_text", "plan")
    pfns = (
        "".join(f", ({start:#x}, {end:#x})" for start, end in [pfns_of(args.pfn)])
        if args.pfn
        else ""
    )
    code.add(f"result = {code.call('audit', [f'cells=plan(WIDTH{pfns})'], options)}")
    code.add('print(map_text(result), end="")')


def _page(code: _Code, args: argparse.Namespace) -> None:
    call = code.call("folio", [_literal(args.what)], {"quick": (args.quick, False)})
    code.add(f"result = {call}")
    _print(code, _json(args, "folio_dict"))


def _explain(code: _Code, args: argparse.Namespace) -> None:
    call = code.call("explain", [_literal(args.what)], {"budget_s": (args.budget, 10.0)})
    code.add(f"result = {call}")
    _print(code, _json(args, "explain_dict"))


def _files(code: _Code, args: argparse.Namespace) -> None:
    files, entries = code.call("dax_files", [], {}), "for_each_dax_entry"
    code.use("zonedev.helpers", entries)
    code.use("zonedev.kernel.dax", "inode_number")
    if args.inode is not None:
        code.add(
            f"for file in {files}:",
            f"    if inode_number(prog, file) == {args.inode}:",
            f"        for entry in {entries}(inode=file.inode):",
            "            print(hex(entry.index), hex(entry.pfn), entry.pages)",
        )
        return
    code.use("collections", "Counter")
    code.use("zonedev.kernel.dax", "file_name")
    code.add(
        f"entries = Counter(entry.file for entry in {entries}())",
        f"for file in {files}:",
        "    print(inode_number(prog, file), entries[file], file_name(prog, file))",
    )


def _waiters(code: _Code, args: argparse.Namespace) -> None:
    code.add(f"result = {code.call('waiters', [], {})}")
    _print(code, _json(args, "waiters_dict"))


def _scheme(code: _Code, args: argparse.Namespace) -> None:
    code.add(f"result = {code.call('scheme', [], {})}")
    how = _json(args, "schemes_dict")
    _print(code, how, "[result]" if how else "result")


def _rules(code: _Code, args: argparse.Namespace) -> None:
    code.use("zonedev._zonedev", "rules")
    code.add(
        "rows = rules()",
        f"for row, why in zip(rows, {code.call('rules_applicability', [], {})}):",
        '    row["not_applicable"] = why',
    )
    if args.rule:
        from zonedev.commands import rule_ids

        code.add(f'rows = [row for row in rows if row["id"] in {_literal(rule_ids([args.rule]))}]')
    if args.format == "json":
        code.use("zonedev.report.data", "to_json")
        code.add('print(to_json({"schema": "zonedev.rules/1", "rules": rows}), end="")')
        return
    _print(code, _Format("zonedev.report.text", "rule_text" if args.rule else "rules_text"), "rows")


def _diff(code: _Code, args: argparse.Namespace) -> None:
    from zonedev.commands import check_diff

    check_diff(args)
    code.use("zonedev.diff", "compare_reports")
    if args.reports:
        code.use("zonedev.diff", "read_report")
        code.add(f"names = {_literal(tuple(args.reports))}")
        code.add("before, after = map(read_report, names)")
    else:
        code.use("time")
        code.use("zonedev.report.data", "audit_dict")
        audit = f"audit_dict({code.call('audit', [], {'fail_on': (args.fail_on, 'error')})})"
        code.add('names = ("first audit", "second audit")', f"before = {audit}")
        code.add(f"time.sleep({args.wait:g})", f"after = {audit}")
    code.add(f"result = compare_reports(before, after, names, {_literal(args.fail_on)})")
    how = _json(args, "diff_dict")
    if how or args.severity == "warning":
        _print(code, how)
    else:
        how = _Format("zonedev.report.diff_text", "diff_text")
        _print(code, how, "result", _literal(args.severity))


VERBS: dict[str, Callable[[_Code, argparse.Namespace], None]] = {
    "list": _list,
    "audit": _audit,
    "map": _map,
    "page": _page,
    "explain": _explain,
    "files": _files,
    "waiters": _waiters,
    "scheme": _scheme,
    "rules": _rules,
    "diff": _diff,
}
"""Verbs that have an equivalent in Python."""


def drgn_code(args: argparse.Namespace) -> str:
    """The Python that does what a parsed verb does.

    :raises UsageError: an argument makes no sense
    """
    code = _Code()
    VERBS[args.verb](code, args)
    return str(code)
