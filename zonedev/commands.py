# SPDX-License-Identifier: LGPL-2.1-or-later
"""The verbs: their arguments, and what each prints; the same for `zonedev` and drgn's %zonedev.

Owns parsing and dispatch.  A verb takes a Program (the caller opens it), writes its report to
sys.stdout (drgn redirects by swapping that object) and returns the result object and an exit code.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Optional

from drgn import FaultError, Program, ProgramFlags

from zonedev import _zonedev
from zonedev.display import Listing
from zonedev.errors import TargetError, UsageError
from zonedev.examples import examples_text
from zonedev.kernel.btf import with_types
from zonedev.kernel.strings import printable
from zonedev.meter import meter
from zonedev.target import Target

if TYPE_CHECKING:
    from zonedev.kernel.dax import DaxWalk
    from zonedev.model import Audit

_INCOMPLETE = 3

# Verbs whose argument is a page.
_ONE_PAGE = ("page", "explain")

_WAIT_MAX = 1e6

# What argparse says where the verb is missing.
_NO_VERB = "the following arguments are required: VERB"
# Cells of a map in a browser, per pagemap.
_HTML_CELLS = 1 << 17
# Pages that --pfn shows around one of them.
_AROUND = 1 << 10

FORMATS = ("text", "json", "ndjson", "csv")
AUDIT_FORMATS = (*FORMATS, "prometheus")

COLORS = ("auto", "always", "never")

SLICE_EXTRAS = ("tasks", "explain")

_EPILOG = """\
exit status: 0 clean, 1 violations, 2 usage or target error, 3 incomplete
"""

# What the exit status of a verb says that gives no verdict.
_EPILOGS = {
    "list": "exit status: 0, 2 usage or target error, 3 not all pagemaps could be read",
    "page": "exit status: 0 whatever it finds, 2 usage or target error",
    "explain": "exit status: 0 the references add up, 1 they do not, 2 usage or target error, 3 they do not, and not"
    " everything could be looked at",
    "files": "exit status: 0, 2 usage or target error, 3 not all files could be read",
    "waiters": "exit status: 0 whoever waits, 2 usage or target error, 3 not everything could be looked at",
    "scheme": "exit status: 0, 2 usage or target error",
    "rules": "exit status: 0, 2 usage or target error",
    "map": _EPILOG.strip() + " (the verdict of zonedev audit)",
    "diff": "exit status: 0 nothing is new or worse, 1 something is, 2 usage or target error, 3 a report is incomplete, or"
    " they were not made alike",
    "slice": "exit status: 0 written, 2 usage or target error",
}


def _epilog(prog: str, verb: str, targets: bool) -> str:
    """Examples, and what the exit status says (drgn's commands have none)."""
    status = _EPILOGS.get(verb, _EPILOG)
    return "\n\n".join(
        filter(None, (examples_text(prog, verb, targets), status if targets else ""))
    )


class _Alone(argparse.Action):
    """An option of the program that stands alone: cli.py answers it before anything is parsed."""

    def __call__(
        self, parser: Any, namespace: Any, values: Any, option_string: Optional[str] = None
    ) -> None:
        given = f" {self.metavar}" if self.metavar else ""
        raise UsageError(f"{option_string} stands alone: {parser.prog} {option_string}{given}")


class _Formatter(argparse.HelpFormatter):
    """argparse's, which leaves examples as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = text.split("\n\n")
        return "\n\n".join(
            p if p.startswith("examples:") else super(_Formatter, self)._fill_text(p, width, indent)
            for p in paragraphs
        )


class Outcome(NamedTuple):
    """What a verb results in: an object for callers, a number for the shell."""

    result: Any
    exit_code: int = 0


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A word that is like the one that was typed, to be added to a message; "" where none is."""
    close = difflib.get_close_matches(word, [str(one) for one in known], 1)
    return f"; did you mean {close[0]}?" if close else ""


def help_words(words: Sequence[str]) -> list[str]:
    """`help`, `help VERB`, as in drgn's crash mode, in the words of argparse."""
    if words[:1] in (["help"], ("help",)):
        return [*words[1:2], "--help"]
    return list(words)


class Parser(argparse.ArgumentParser):
    """argparse that raises instead of exiting, so that it can be used inside of drgn."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with the message and the way to help."""
        if message == _NO_VERB:
            message = "no VERB: say what to do; audit judges every page, list shows what there is"
        raise UsageError(f"{message} (see {self.prog} --help)")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """argparse's, with the word that may have been meant."""
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as err:
            raise argparse.ArgumentError(
                action, err.message + did_you_mean(str(value), action.choices or ())
            ) from None

    def parse_args(self, args: Optional[Sequence[str]] = None) -> argparse.Namespace:  # type: ignore[override]
        """Parse a whole command line; what is left over is said with the verb that does not take it."""
        parsed, rest = self.parse_known_args(args)
        if rest:
            named_by_option = parsed.verb in _ONE_PAGE and hasattr(parsed, "core")
            core = "; a VMCORE is named with -c" if named_by_option else ""
            if not core and not rest[0].startswith("-") and hasattr(parsed, "vmcore"):
                core = "; there is one VMCORE at a time"
            raise UsageError(
                f"unrecognized arguments: {' '.join(rest)}{core} (see {self.prog} {parsed.verb} --help)"
            )
        return parsed


def _add_target(parser: argparse.ArgumentParser, positional: bool) -> None:
    group = parser.add_argument_group("target (one of VMCORE, -k, --qemu)")
    if positional:
        group.add_argument(
            "vmcore", metavar="VMCORE", nargs="?", help="core dump to read, same as -c"
        )
    group.add_argument("-c", "--core", metavar="VMCORE", help="core dump to read (ELF or kdump)")
    group.add_argument("-k", "--kernel", action="store_true", help="the running kernel (root)")
    group.add_argument(
        "--qemu", metavar="SOCKET", help="a QEMU guest, by the socket of its QMP monitor"
    )
    group.add_argument(
        "-s",
        "--symbols",
        metavar="FILE",
        action="append",
        default=[],
        help="debug file: vmlinux, or a module's; may be repeated",
    )
    group.add_argument(
        "--btf",
        action="store_true",
        default=None,
        help="the types and symbols that the kernel has of itself, even where debug information is installed",
    )


def _add_selection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what to look at")
    group.add_argument(
        "--type",
        metavar="TYPE",
        action="append",
        help="only pagemaps of this memory type (fs_dax, generic, private, coherent, pci_p2pdma)",
    )
    group.add_argument(
        "--pgmap",
        metavar="NAME",
        action="append",
        help="only this pagemap: device (pmem0), resource, address of its dev_pagemap, or a pfn in it",
    )


def _add_format(parser: argparse.ArgumentParser, formats: Sequence[str] = FORMATS) -> None:
    parser.add_argument(
        "--format", choices=formats, default="text", help="what to print (default: text)"
    )
    _add_color(parser, "colours in text")


def _add_color(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--color",
        choices=COLORS,
        default="auto",
        help=f"{what} (default: auto, on a terminal unless NO_COLOR is set)",
    )


def _add_severity(
    parser: argparse._ActionsContainer, name: str, what: str, default: Optional[str] = None
) -> None:
    parser.add_argument(
        name, choices=_zonedev.SEVERITIES, default=default, help=f"lowest severity {what}"
    )


def _add_audit(parser: argparse.ArgumentParser) -> None:
    _add_selection(parser)
    group = parser.add_argument_group("report")
    _add_format(parser, AUDIT_FORMATS)
    group.add_argument(
        "--json", metavar="FILE", help="write the report as JSON to FILE, too, all findings in it"
    )
    group.add_argument(
        "--rule",
        metavar="RULE",
        action="append",
        help="show only findings of this rule (id or number); the verdict is that of all",
    )
    _add_severity(group, "--severity", "to show (default: warning in text, info elsewhere)")
    fails = "for the verdict 'violations' and exit status 1 (default: error)"
    _add_severity(group, "--fail-on", fails, "error")
    group.add_argument(
        "--baseline",
        metavar="FILE",
        action="append",
        default=[],
        help="accept the findings of FILE (an earlier report in JSON, or lines of RULE PLACE): verdict and exit status are"
        " those of new ones; may be repeated",
    )
    group.add_argument(
        "--quick",
        action="store_true",
        help="struct pages only: leave out what files and drivers say of them",
    )
    group.add_argument(
        "--explain",
        action="store_true",
        help="say who holds the first folio of each finding (the 20 most severe)",
    )
    group.add_argument(
        "--html",
        metavar="FILE",
        help="also write the report as a page for a browser: one file, with maps of the pagemaps",
    )
    group.add_argument(
        "-q", "--quiet", action="store_true", help="print nothing; the exit status tells"
    )
    live = parser.add_argument_group("live kernels")
    live.add_argument(
        "--resample-ms",
        type=int,
        default=20,
        metavar="MS",
        help="time between two samples of what looks wrong (default: 20)",
    )
    live.add_argument(
        "--samples",
        type=int,
        default=64,
        metavar="N",
        help="samples that must agree (default: 64); 4 N where other states come and go",
    )


def _add_map(parser: argparse.ArgumentParser) -> None:
    _add_selection(parser)
    parser.add_argument(
        "--pfn",
        metavar="RANGE",
        help="only these pages, so much closer: START-END (as reports have it), or a PFN and what lies around it",
    )
    _add_color(parser, "colours, which say no more than the characters")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="struct pages only: leave out what files and drivers say of them",
    )


def _add_diff(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "reports",
        metavar="REPORT",
        nargs="*",
        help="the earlier and the later report of zonedev audit --format json; none: audit a live kernel twice",
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="live kernels: time between the two audits (default: 10)",
    )
    _add_severity(parser, "--severity", "that the text shows (default: warning)", "warning")
    fails = "of what is new or worse for exit status 1 (default: error)"
    _add_severity(parser, "--fail-on", fails, "error")
    _add_format(parser, ("text", "json"))


def _add_drgn(verbs: Mapping[str, argparse.ArgumentParser]) -> None:
    """--drgn, last as in all of drgn's commands, for verbs that have an equivalent in Python."""
    from zonedev.drgn_code import VERBS

    for name in VERBS:
        verbs[name].add_argument(
            "--drgn",
            action="store_true",
            help="print how to do the equivalent operation using drgn APIs",
        )


def build_parser(prog: str, targets: bool) -> Parser:
    """
    The parser of all verbs.

    :param targets: for the program: add the options that name a target; else for drgn, which has one: add --drgn
    """
    parser = Parser(
        prog=prog,
        description="Audits the struct pages of ZONE_DEVICE memory: pmem, DAX, device memory, P2PDMA.",
        epilog=_epilog(prog, "", targets),
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    if targets:
        parser.add_argument(
            "--version", action=_Alone, nargs=0, help="versions of zonedev, drgn and libraries"
        )
        parser.add_argument(
            "--completion",
            action=_Alone,
            nargs="?",
            metavar="bash",
            help='a script for the shell: eval "$(zonedev --completion bash)"',
        )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)

    def verb(
        name: str, help_: str, positional: bool = False, target: bool = True
    ) -> argparse.ArgumentParser:
        sub = verbs.add_parser(
            name,
            help=help_,
            description=help_,
            epilog=_epilog(prog, name, targets),
            formatter_class=_Formatter,
            allow_abbrev=False,
        )
        if targets and target:
            _add_target(sub, positional)
        return sub

    _add_format(verb("list", "list the pagemaps: device, type, pages, reference", True))
    _add_audit(verb("audit", "judge every struct page of every pagemap", True))
    _add_map(verb("map", "draw the pages of each pagemap by class: what is wrong, and where", True))
    page = verb("page", "decode and judge one struct page and its folio")
    page.add_argument(
        "what", metavar="PFN|ADDRESS", help="pfn, phys:ADDRESS, or a kernel address 0xffff..."
    )
    page.add_argument(
        "--quick", action="store_true", help="do not ask files and drivers what they say of it"
    )
    _add_format(page, ("text", "json"))
    explain = verb("explain", "account for the references of a page: who holds it")
    explain.add_argument(
        "what", metavar="PFN|ADDRESS", help="pfn, phys:ADDRESS, or a kernel address 0xffff..."
    )
    explain.add_argument(
        "--budget",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="how long memory may be searched for what points to a page whose references are not all"
        " explained (default: 10; 0: not at all)",
    )
    _add_format(explain, ("text", "json"))
    files = verb("files", "list the files in DAX memory, or the pages of one", True)
    files.add_argument(
        "--inode", type=int, metavar="N", help="the entries of the DAX inodes of this number"
    )
    _add_format(files, ("text", "json"))
    _add_format(
        verb("waiters", "name the tasks that wait for pages, or for a pagemap to go", True),
        ("text", "json"),
    )
    _add_format(
        verb(
            "scheme",
            "name the refcount scheme: evidence, legal states; without a target, all",
            True,
        ),
        ("text", "json"),
    )
    rules = verb("rules", "list the rules, or explain one")
    rules.add_argument(
        "rule",
        metavar="RULE",
        nargs="?",
        help="id or number of a rule (reference-on-free-folio, R01)",
    )
    _add_format(rules, ("text", "json"))
    _add_diff(verb("diff", "what changed between two audits: what leaked, and where it grows"))
    if targets:
        slice_ = verb(
            "slice", "write a small core (and debug file, with -s) that gives the same audit", True
        )
        slice_.add_argument(
            "-o", "--output", metavar="DIR", required=True, help="directory to write to"
        )
        slice_.add_argument(
            "--with",
            dest="extra",
            choices=SLICE_EXTRAS,
            action="append",
            default=[],
            help="tasks: the stacks of all tasks, which tell who holds a lock or waits; explain: what explains the"
            " findings (and each --page); may be repeated",
        )
        slice_.add_argument(
            "--page",
            metavar="PFN|ADDRESS",
            action="append",
            default=[],
            help="with what explains this page; may be repeated",
        )
    else:
        _add_drgn(verbs.choices)
    return parser


# ---------------------------------------------------------------- verbs


def write_whole(path: str, text: Iterable[str]) -> None:
    """Write a file of UTF-8 that is there as a whole or not at all; what is no plain file is written to.

    :raises UsageError: it cannot be written
    """
    plain = not os.path.lexists(path) or os.path.isfile(path)
    part = f"{os.path.realpath(path)}.{os.getpid()}.part" if plain else path
    try:
        with open(part, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(text)
        if plain:
            os.replace(part, os.path.realpath(path))
    except OSError as err:
        if plain:
            with contextlib.suppress(OSError):
                os.unlink(part)
        raise UsageError(f"{path}: cannot be written: {err.strerror or err}") from None


def _print(text: str) -> None:
    sys.stdout.write(text)


def _show(text: str, args: argparse.Namespace) -> None:
    """Print a report: text fits a terminal, has the colours that were asked for and no escapes but these; all else is as it is."""
    from zonedev.report.color import colored
    from zonedev.report.terminal import folded, has_colors

    if args.format == "text":
        text = "\n".join(map(printable, text.split("\n")))
        text = folded(colored(text) if has_colors(args.color) else text)
    _print(text)


def _list(prog: Program, args: argparse.Namespace) -> Outcome:
    from zonedev.audit import list_with_problems
    from zonedev.kernel.btf import types_from
    from zonedev.report import data, text

    pagemaps, problems = list_with_problems(prog)
    source = types_from(prog)
    for problem in problems:
        sys.stderr.write(f"zonedev: {printable(problem)}\n")
    _show(
        {
            "text": lambda: text.list_text(pagemaps, bool(problems)) + text.types_line(source),
            "json": lambda: data.to_json(data.list_dict(pagemaps, source)),
            "ndjson": lambda: data.list_ndjson(pagemaps),
            "csv": lambda: data.list_csv(pagemaps),
        }[args.format](),
        args,
    )
    return Outcome(Listing(pagemaps), _INCOMPLETE if problems else 0)


def _rule_rows(name: str) -> list[dict[str, Any]]:
    rows = [r for r in _zonedev.rules() if name in (r["id"], r["number"]) and name != "-"]
    if not rows:
        like = did_you_mean(name, (row["id"] for row in _zonedev.rules()))
        raise UsageError(f"no rule {name!r}; zonedev rules lists them{like}")
    return rows


def rule_ids(names: Sequence[str]) -> list[str]:
    """Ids of the rules of these ids or numbers.

    :raises UsageError: there is none such
    """
    return sorted({row["id"] for name in names for row in _rule_rows(name)})


def _of_target(result: Audit, target: Optional[Target]) -> Audit:
    """An audit, with what is known of the file that it was made of."""
    if target:
        result.path = target.path
        result.format = target.format
        result.problems[:0] = target.problems
    return result


def _write_html(result: Audit, path: str, severity: str, target: Optional[Target]) -> None:
    from zonedev.report.html import audit_html

    command = ["zonedev", *target.words] if target else ["%zonedev"]
    page = audit_html(result, severity, command)
    # What is not ASCII is as HTML has it.
    write_whole(path, (piece.encode("ascii", "xmlcharrefreplace").decode() for piece in page))


def _audit(prog: Program, args: argparse.Namespace, target: Optional[Target]) -> Outcome:
    from zonedev.audit import audit
    from zonedev.cells import CellPlan
    from zonedev.report import data, text
    from zonedev.report.prometheus import audit_prometheus

    if args.resample_ms < 0 or args.samples < 2:
        raise UsageError(
            f"--resample-ms {args.resample_ms} --samples {args.samples}: give 0 or more milliseconds, and 2 or more samples"
        )
    wanted = rule_ids(args.rule or ())
    with meter("reading struct pages", "pages") as progress:
        result = audit(
            prog,
            types=args.type,
            pgmaps=args.pgmap,
            fail_on=args.fail_on,
            resample_ms=args.resample_ms,
            samples=args.samples,
            quick=args.quick,
            explain=args.explain,
            cells=CellPlan(_HTML_CELLS) if args.html else None,
            progress=progress,
            baseline=args.baseline,
        )
    _of_target(result, target)
    if wanted:
        result.filters["rule"] = wanted
    severity = args.severity or ("warning" if args.format == "text" else "info")
    if not args.quiet:
        _show(
            {
                "text": lambda: text.audit_text(result, severity),
                "json": lambda: data.to_json(data.audit_dict(result, severity)),
                "ndjson": lambda: data.audit_ndjson(result, severity),
                "csv": lambda: data.audit_csv(result, severity),
                "prometheus": lambda: audit_prometheus(result, severity),
            }[args.format](),
            args,
        )
    if args.html:
        _write_html(result, args.html, args.severity or "info", target)
    if args.json is not None:
        write_whole(args.json, [data.to_json(data.audit_dict(result))])
    return Outcome(result, result.exit_code)


def _number(text: str, option: str) -> int:
    try:
        number = int(text, 0)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 64:
        raise UsageError(f"{option}: {text!r} is no pfn")
    return number


def pfns_of(text: str) -> tuple[int, int]:
    """START-END, END inclusive, or the aligned block around a PFN: as [start, end)."""
    words = text.split("-")
    if len(words) > 2:
        raise UsageError(f"--pfn: {text!r} is neither START-END nor a PFN")
    numbers = [_number(word, "--pfn") for word in words]
    if len(numbers) == 1:
        start = numbers[0] // _AROUND * _AROUND
        return start, start + _AROUND
    if numbers[0] > numbers[1]:
        raise UsageError(f"--pfn: {text} ends before it begins")
    return numbers[0], numbers[1] + 1


def _map(prog: Program, args: argparse.Namespace, target: Optional[Target]) -> Outcome:
    from zonedev.audit import audit
    from zonedev.report.map_text import WIDTH, map_text, plan
    from zonedev.report.terminal import columns, has_colors

    pfns = pfns_of(args.pfn) if args.pfn else None
    width = columns() or WIDTH
    with meter("reading struct pages", "pages") as progress:
        result = audit(
            prog,
            types=args.type,
            pgmaps=args.pgmap,
            quick=args.quick,
            cells=plan(width, pfns),
            progress=progress,
        )
    if pfns and result.pagemaps and not any(one.cells for one in result.pagemaps):
        known = ", ".join(
            f"{r.start_pfn:#x}-{r.end_pfn - 1:#x}"
            for one in result.pagemaps[:20]
            for r in one.pagemap.ranges[:20]
        )
        raise UsageError(f"--pfn {args.pfn}: no pagemap has pages there; there are: {known}")
    _print(map_text(_of_target(result, target), width, has_colors(args.color)))
    return Outcome(result, result.exit_code)


def _page(prog: Program, args: argparse.Namespace) -> Outcome:
    from zonedev.audit import folio
    from zonedev.report import data, text

    report = folio(prog, args.what, quick=args.quick)
    _show(
        text.folio_text(report) if args.format == "text" else data.to_json(data.folio_dict(report)),
        args,
    )
    return Outcome(report)


def _explain(prog: Program, args: argparse.Namespace) -> Outcome:
    from zonedev.explain import Explainer
    from zonedev.report import data

    if not 0 <= args.budget < _WAIT_MAX:
        raise UsageError(
            f"--budget {args.budget:g}: give seconds, 0 or more and below {_WAIT_MAX:.0f}"
        )
    with meter("searching memory", "B") as progress:
        result = Explainer(prog).explain(args.what, args.budget, progress)
    _show(str(result) if args.format == "text" else data.to_json(data.explain_dict(result)), args)
    return Outcome(result, result.exit_code)


def _without_files(walk: DaxWalk) -> str:
    """Why a list of DAX files or of the entries of one is empty."""
    walked = walk.walked
    if walked.dax_inodes:
        return "the file holds no entry: none of its pages was used since it was opened"
    return (
        f"no file is in use by DAX: none of {walked.inodes} inodes of {walked.file_systems} file "
        "systems has S_DAX"
    )


def _files(prog: Program, args: argparse.Namespace) -> Outcome:
    from zonedev.audit import open_dax_walk
    from zonedev.kernel.btf import types_from
    from zonedev.kernel.dax import file_name, inode_number
    from zonedev.report import data, text

    walk = open_dax_walk(prog)
    files = [(file, inode_number(prog, file)) for file in walk.files()]
    if args.inode is None:
        rows = [
            data.file_dict(file, number, file_name(prog, file), walk.count(file))
            for file, number in files
        ]
    else:
        chosen = [file for file, number in files if number == args.inode]
        if not chosen:
            raise UsageError(f"there is no DAX inode {args.inode}; zonedev files lists them")
        rows = [data.entry_dict(entry) for file in chosen for entry in walk.entries_of(file)]
    for gap in walk.walked.gaps:
        sys.stderr.write(f"zonedev: {printable(gap)}\n")
    if not rows:
        sys.stderr.write(f"zonedev: {_without_files(walk)}\n")
    listed, source = "files" if args.inode is None else "entries", types_from(prog)
    if args.format == "json":
        report = {"schema": "zonedev.files/1", **data.sources(source), listed: rows}
        _show(data.to_json(report), args)
    else:
        as_text = text.files_text if listed == "files" else text.entries_text
        _show(as_text(rows) + text.types_line(source), args)
    return Outcome(Listing(rows), _INCOMPLETE if walk.walked.gaps else 0)


def _waiters(prog: Program, args: argparse.Namespace) -> Outcome:
    from zonedev.report import data
    from zonedev.waiters import waiters

    report = waiters(prog)
    _show(str(report) if args.format == "text" else data.to_json(data.waiters_dict(report)), args)
    return Outcome(report, 0 if report.complete else _INCOMPLETE)


def rules_verb(args: argparse.Namespace, prog: Optional[Program] = None) -> Outcome:
    """Print the rules or explain one; with a Program, say which apply to its kernel."""
    from zonedev.report import data, text

    rows = _zonedev.rules()
    if prog is not None:
        from zonedev.audit import rules_applicability

        for row, why in zip(rows, rules_applicability(prog)):
            row["not_applicable"] = why
    if args.rule:
        wanted = rule_ids([args.rule])
        rows = [row for row in rows if row["id"] in wanted]
    if args.format == "json":
        _show(data.to_json({"schema": "zonedev.rules/1", "rules": rows}), args)
    else:
        _show(text.rule_text(rows) if args.rule else text.rules_text(rows), args)
    return Outcome(Listing(rows))


def scheme_verb(args: argparse.Namespace, prog: Optional[Program] = None) -> Outcome:
    """Print the scheme of a Program's kernel; without a Program, all schemes."""
    from zonedev.audit import scheme
    from zonedev.report import data, text
    from zonedev.states import scheme_report

    if prog is None:
        letters = [letter for letter in _zonedev.SCHEMES if letter != "unknown"]
        reports = [scheme_report(_zonedev.Scheme.named(letter)) for letter in letters]
    else:
        reports = [scheme(prog)]
    if args.format == "json":
        _show(data.to_json(data.schemes_dict(reports)), args)
    else:
        _show("\n".join(map(text.scheme_text, reports)), args)
    return Outcome(reports[0] if prog else reports)


def _two_audits(prog: Program, args: argparse.Namespace) -> list[dict[str, Any]]:
    from zonedev.audit import audit
    from zonedev.report import data

    if not prog.flags & ProgramFlags.IS_LIVE:
        raise UsageError(
            "diff compares two REPORTs, or a live kernel with itself: a dump stays as it is; give reports of two"
            " dumps (zonedev audit VMCORE --format json)"
        )
    first = audit(prog, fail_on=args.fail_on)
    time.sleep(args.wait)
    return [data.audit_dict(one) for one in (first, audit(prog, fail_on=args.fail_on))]


_NO_REPORTS = (
    "diff needs two REPORTs of zonedev audit --format json, or a live kernel (-k); {} given"
)


def check_diff(args: argparse.Namespace) -> None:
    """
    That the words of a diff make sense.

    :raises UsageError: they do not
    """
    if args.reports and any(getattr(args, name, None) for name in ("core", "kernel", "qemu")):
        raise UsageError(
            "diff compares two REPORTs or audits a live kernel twice: give one of them"
        )
    if len(args.reports) not in (0, 2):
        raise UsageError(_NO_REPORTS.format(len(args.reports)))
    if not 0 <= args.wait < _WAIT_MAX:
        raise UsageError(f"--wait {args.wait:g}: give seconds, 0 or more and below {_WAIT_MAX:.0f}")


def diff_verb(args: argparse.Namespace, prog: Optional[Program] = None) -> Outcome:
    """Print what changed between two reports, or between two audits of a live kernel."""
    from zonedev.diff import compare_reports, read_report
    from zonedev.report import data
    from zonedev.report.diff_text import diff_text

    names = "first audit", "second audit"
    check_diff(args)
    if args.reports:
        names = args.reports[0], args.reports[1]
        reports = [read_report(path) for path in names]
    elif prog is None:
        raise UsageError(_NO_REPORTS.format(0))
    else:
        reports = _two_audits(prog, args)
    result = compare_reports(reports[0], reports[1], names, args.fail_on)
    if args.format == "json":
        _show(data.to_json(data.diff_dict(result)), args)
    else:
        _show(diff_text(result, args.severity), args)
    return Outcome(result, result.exit_code)


# Verbs that have something to say without a target.
WITHOUT_TARGET: dict[str, Callable[[argparse.Namespace], Outcome]] = {
    "diff": diff_verb,
    "rules": rules_verb,
    "scheme": scheme_verb,
}

# Verbs whose report names the target as its user did.
_WITH_TARGET: dict[str, Callable[[Program, argparse.Namespace, Optional[Target]], Outcome]] = {
    "audit": _audit,
    "map": _map,
}

_VERBS: dict[str, Callable[[Program, argparse.Namespace], Outcome]] = {
    "list": _list,
    "page": _page,
    "explain": _explain,
    "files": _files,
    "waiters": _waiters,
    "scheme": lambda prog, args: scheme_verb(args, prog),
    "rules": lambda prog, args: rules_verb(args, prog),
    "diff": lambda prog, args: diff_verb(args, prog),
}


def run_verb(prog: Program, args: argparse.Namespace, target: Optional[Target] = None) -> Outcome:
    """Run a parsed verb on a Program.

    :param target: what the Program was opened from, with what is known to be wrong with it
    :raises ZonedevError: one line for the user
    """
    if getattr(args, "drgn", False):
        from zonedev.drgn_code import drgn_code

        _print(drgn_code(args))
        return Outcome(None)
    if args.verb == "diff" and args.reports:
        return diff_verb(args)
    where = target.name if target else prog.core_dump_path or "the target"
    try:
        if target is None:
            with_types(prog)
        if args.verb in _WITH_TARGET:
            return _WITH_TARGET[args.verb](prog, args, target)
        return _VERBS[args.verb](prog, args)
    except TargetError as err:
        raise err if where in str(err) else TargetError(f"{where}: {err}") from None
    except FaultError as err:
        raise TargetError(
            f"{where}: memory that is needed cannot be read: {err}; the core is damaged or cut off"
        ) from None
