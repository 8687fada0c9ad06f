# SPDX-License-Identifier: LGPL-2.1-or-later
"""Manners: colours, width, units, help with examples, and errors that say what to do.

Owns: how a report looks on a terminal and in a pipe, and what a user is told.
Does not: what reports say (test_cli.py, test_report.py).
Invariant: colours and folding take nothing away: the words of a report are those of the pipe.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Optional

import pytest
from conftest import ROOT, Vmcore, Zonedev, assert_one_line, open_vmcore
from terminal import Terminal, plain

from zonedev import commands
from zonedev.cli import main
from zonedev.errors import UsageError, ZonedevError
from zonedev.examples import EXAMPLES, command
from zonedev.report.color import colored
from zonedev.report.table import table
from zonedev.report.text import size

LEAK = "7.2-nvdimm-leak"
COLOR = re.compile(r"\x1b\[[0-9;]*m")

REPORTS = [
    (LEAK, ["audit", "--severity", "info"]),
    (LEAK, ["list"]),
    (LEAK, ["page", "0x1082fc"]),
    (LEAK, ["scheme"]),
    (LEAK, ["rules"]),
    (LEAK, ["rules", "R01"]),
    ("7.2-explain", ["explain", "0x101215", "--budget", "0"]),
    ("7.2-explain", ["files"]),
    ("5.10-teardown-tasks", ["waiters"]),
]


def words_of(name: str, words: list[str]) -> list[str]:
    vmcore = open_vmcore(name)
    return [*words, "-c", vmcore.core, *vmcore.types]


def environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LINES")}
    return {**kept, "PYTHONPATH": str(ROOT), "TERM": "xterm", **more}


def on_terminal(words: list[str], columns: int, **env: str) -> str:
    program = [sys.executable, "-m", "zonedev", *words]
    with Terminal(program, environment(**env), columns) as terminal:
        # How far it is, on a slow machine, is gone at the end.
        return re.sub(r"\r[^\r\n]*\x1b\[K", "", terminal.rest())


def without_times(text: str) -> str:
    """Seconds and rates, which no two runs share."""
    return re.sub(r"[\d.]+ (s|M pages/s)\b", r"N \1", text)


# ---------------------------------------------------------------- width


@pytest.mark.parametrize("columns", [60, 80, 200])
@pytest.mark.parametrize(
    ("name", "words"), REPORTS, ids=lambda v: v if isinstance(v, str) else v[0]
)
def test_reports_fit_and_lose_nothing(
    zonedev: Zonedev, name: str, words: list[str], columns: int
) -> None:
    words = words_of(name, words)
    piped = without_times(zonedev(*words).out)
    shown = without_times(plain(on_terminal(words, columns)))
    assert max(map(len, shown.splitlines())) <= columns
    # A folded table says its first column again, and a word that is too long for a column is cut.
    missing = Counter("".join(piped.split())) - Counter("".join(shown.split()))
    assert not missing, missing
    assert set(re.findall(r"0x[0-9a-f]{6,}", piped)) == set(re.findall(r"0x[0-9a-f]{6,}", shown))


def test_columns_are_respected(zonedev: Zonedev) -> None:
    words = words_of(LEAK, ["audit"])
    wide = on_terminal(words, 200)
    narrow = on_terminal(words, 200, COLUMNS="60")
    assert (
        max(map(len, plain(wide).splitlines()))
        > 100
        > 60
        >= max(map(len, plain(narrow).splitlines()))
    )
    # Sentences are no longer than they are good to read.
    assert 80 < len(wide.splitlines()[0]) <= 100


def test_tables_fold_on_a_terminal() -> None:
    words = words_of(LEAK, ["list"])
    headers = {
        columns: re.findall("^DEVICE.*", plain(on_terminal(words, columns)), re.MULTILINE)
        for columns in (80, 200)
    }
    assert len(headers[200]) == 1 and len(headers[80]) == 2
    assert {*" ".join(headers[80]).split()} == {*headers[200][0].split()}


def test_json_is_json_on_a_terminal() -> None:
    words = words_of(LEAK, ["audit", "--format", "json"])
    whole = json.loads(on_terminal(words, 60))
    assert max(len(rule["why"]) for rule in whole["not_applicable"]) > 60


def test_pipes_are_stable(zonedev: Zonedev, monkeypatch: pytest.MonkeyPatch) -> None:
    words = words_of(LEAK, ["list"])
    out = zonedev(*words).out
    for columns in ("40", "300"):
        monkeypatch.setenv("COLUMNS", columns)
        assert zonedev(*words).out == out
    assert max(map(len, out.splitlines())) > 120, "nothing is cut off or folded"


ROWS = [["NAME", "COUNT", "WHAT"], ["one", "1", "some words of it"], ["three", "33333", "others"]]


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (None, "NAME   COUNT  WHAT\none        1  some words of it\nthree  33333  others"),
        (30, "NAME   COUNT  WHAT\none        1  some words of it\nthree  33333  others"),
        (28, "NAME  COUNT WHAT\none       1 some words of it\nthree 33333 others"),
        (
            20,
            "NAME   COUNT\none        1\nthree  33333\n\n"
            "NAME   WHAT\none    some words of it\nthree  others",
        ),
    ],
)
def test_tables_fold(limit: Optional[int], expected: str) -> None:
    assert table(ROWS, (1,), limit) == expected


def test_words_of_the_last_column_wrap() -> None:
    rows = [["NAME", "WHAT"], ["one", "what is said in many words " * 2]]
    folded = table(rows, (), 30)
    assert folded.splitlines()[1:] == [
        "one   what is said in many",
        "      words what is said in",
        "      many words",
    ]


# ---------------------------------------------------------------- colour


@pytest.mark.parametrize(
    ("name", "words"), REPORTS, ids=lambda v: v if isinstance(v, str) else v[0]
)
def test_colour_changes_no_byte_of_the_text(zonedev: Zonedev, name: str, words: list[str]) -> None:
    words = words_of(name, words)
    out = zonedev(*words, "--color", "always").out
    plain_out = zonedev(*words, "--color", "never").out
    assert "\x1b" not in plain_out
    assert without_times(COLOR.sub("", out)) == without_times(plain_out)
    assert "\x1b" not in COLOR.sub("", out)


def test_what_has_colours(zonedev: Zonedev) -> None:
    out = zonedev(*words_of(LEAK, ["audit"]), "--color", "always").out
    painted = re.findall(r"\x1b\[([0-9;]+)m([^\x1b]+)\x1b\[0m", out)
    assert Counter(painted) == {
        ("1;31", "515"): 1,
        ("1;31", "128"): 1,
        ("1;31", "1"): 1,
        ("1;31", "644"): 1,
        ("1;31", "error"): 3,
        ("1;31", "violations"): 1,
    }
    dying = zonedev(*words_of("5.10-teardown-tasks", ["list"]), "--color", "always").out
    assert dying.count("\x1b[33mdying\x1b[0m") == 2
    clean = zonedev(*words_of("7.2-nvdimm", ["audit"]), "--color", "always").out
    assert clean.count("\x1b[") == 2 and "; \x1b[32mclean\x1b[0m: " in clean
    page = zonedev(*words_of(LEAK, ["page", "0x1082fc"]), "--color", "always").out
    assert "class       \x1b[1;31mviolation\x1b[0m;" in page
    assert "\n\x1b[1;31merror\x1b[0m       reference-on-free-folio: " in page


def test_words_from_a_dump_get_no_colour() -> None:
    text = (
        "    pmem0; pfn 0x1; error: rule, 3 pages; dying 1\n  sh -c 'problem: x' (pid 1, dead 2)\n"
    )
    assert colored(text) == text


@pytest.mark.parametrize("format_", ["json", "ndjson", "csv"])
def test_other_formats_have_none(zonedev: Zonedev, format_: str) -> None:
    words = words_of(LEAK, ["audit", "--format", format_, "--color", "always"])
    assert "\x1b" not in zonedev(*words).out


@pytest.mark.parametrize(
    ("env", "option", "colours"),
    [
        ({}, "auto", True),
        ({"NO_COLOR": "1"}, "auto", False),
        ({"NO_COLOR": ""}, "auto", True),
        ({"TERM": "dumb"}, "auto", False),
        ({"NO_COLOR": "1"}, "always", True),
        ({}, "never", False),
    ],
)
def test_colour_on_a_terminal(env: dict[str, str], option: str, colours: bool) -> None:
    shown = on_terminal(words_of(LEAK, ["audit", "--color", option]), 100, **env)
    assert bool(COLOR.search(shown)) is colours


def test_no_colour_in_a_pipe(zonedev: Zonedev) -> None:
    assert "\x1b" not in zonedev(*words_of(LEAK, ["audit"])).out


# ---------------------------------------------------------------- units


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (4096, "4 KiB"),
        (1536 << 10, "1.5 MiB"),
        (64 << 30, "64 GiB"),
        (5 << 50, "5120 TiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


def test_list_tells_sizes(zonedev: Zonedev) -> None:
    words = words_of(LEAK, ["list"])
    pages = {
        p["device"]: p["pages"]
        for p in json.loads(zonedev(*words, "--format", "json").out)["pagemaps"]
    }
    rows = [line.split("  ") for line in zonedev(*words).out.splitlines()[1 : 1 + len(pages)]]
    told = {row[0]: next(c.strip() for c in row if c.endswith("iB")) for row in rows}
    assert told == {device: size(n << 12) for device, n in pages.items()}


# ---------------------------------------------------------------- help


@pytest.fixture
def in_directory(tmp_path: Path, zonedev: Zonedev, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the files that examples name."""
    core = open_vmcore("7.2-explain")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "VMCORE").symlink_to(core.core)
    (tmp_path / "VMLINUX").symlink_to(core.vmlinux)
    report = zonedev("audit", "VMCORE", "-s", "VMLINUX", "--format", "json").out
    for name in ("before.json", "after.json"):
        (tmp_path / name).write_text(report)
    return tmp_path


ALL = [(verb, example) for verb, examples in EXAMPLES.items() for example in examples]


def test_every_verb_has_examples_and_shows_them(capsys: pytest.CaptureFixture[str]) -> None:
    for prog, targets in (("zonedev", True), ("%zonedev", False)):
        parser = commands.build_parser(prog, targets)
        verbs = next(a.choices for a in parser._actions if a.dest == "verb")
        assert verbs is not None and set(verbs) - {"slice"} == set(EXAMPLES) - {"", "slice"}
        for verb in ["", *verbs]:
            with pytest.raises(SystemExit):
                parser.parse_args([*([verb] if verb else []), "--help"])
            shown = capsys.readouterr().out
            for example in EXAMPLES[verb]:
                line = f"  # {example.what}\n  {command(prog, example, targets)}\n"
                assert line in shown, (verb, example)


@pytest.mark.parametrize(("verb", "example"), ALL, ids=lambda v: getattr(v, "words", v))
def test_examples_run(zonedev: Zonedev, in_directory: Path, verb: str, example: Any) -> None:
    program, *words = shlex.split(command("zonedev", example, True))
    answer = zonedev(*words)
    assert program == "zonedev" and answer.err == "" and answer.status in (0, 1, 3), answer
    assert bool(answer.out) is ("-q" not in words)


@pytest.mark.parametrize(
    ("verb", "example"), [a for a in ALL if a[0] != "slice"], ids=lambda v: getattr(v, "words", v)
)
def test_examples_run_in_drgn(
    in_directory: Path, capsys: pytest.CaptureFixture[str], verb: str, example: Any
) -> None:
    run_command = pytest.importorskip("drgn.commands").run_command
    import zonedev.plugin  # noqa: F401

    line = command("%zonedev", example, False)
    assert line.startswith("%")
    run_command(open_vmcore("7.2-explain").prog, line[1:])
    out, err = capsys.readouterr()
    assert err == "" and bool(out) is ("-q" not in line)


@pytest.mark.parametrize("words", [["help"], ["help", "audit"], ["help", "frob"]])
def test_help_is_a_word(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    if words[1:] == ["frob"]:
        assert main(words) == 2
        return
    with pytest.raises(SystemExit) as exit_:
        main(words)
    assert not exit_.value.code
    assert capsys.readouterr().out.startswith(f"usage: zonedev {' '.join(words[1:])}")


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("words", "what", "next_"),
    [
        ([], "no VERB", "audit judges every page"),
        (["audti"], "'audti'", "did you mean audit?"),
        (["audit"], "no target", "give a VMCORE"),
        (["audit", "nosuch"], "core nosuch: no such file", "give the path of a vmcore"),
        (["audit", "{dir}"], "is a directory", "give a file"),
        (["audit", "{empty}"], "the file is empty", "copy it again"),
        (["audit", "{text}"], "not a core dump", "give a vmcore"),
        (["audit", "{half}", "{types}"], "cannot be read", "is cut off: 200000 of"),
        (["audit", "{vmlinux}"], "an ELF file, but not a core dump", "that goes to -s"),
        (["audit", "{core}", "-s", "nosuch"], "debug file nosuch: no such file", "give the path"),
        (["audit", "{core}", "-s", "{text}"], "not an ELF file", "give the vmlinux"),
        (["audit", "{core}", "-s", "{core}"], "a core dump", "give the vmlinux"),
        (["audit", "{core}", "-s", "{other}"], "of another kernel", "give the vmlinux"),
        (["audit", "{foreign}", "{types}"], "architecture", "it knows x86_64"),
        (["audit", "{core}", "{core}"], "unrecognized", "one VMCORE at a time"),
        (["audit", "{core}", "{types}", "--severity", "eror"], "'eror'", "did you mean error?"),
        (
            ["audit", "{core}", "{types}", "--rule", "tail-refcuont"],
            "no rule",
            "did you mean tail-refcount?",
        ),
        (["audit", "{core}", "{types}", "--rule", "zzz"], "no rule 'zzz'", "zonedev rules lists"),
        (
            ["audit", "{core}", "{types}", "--pgmap", "pmem9"],
            "no pagemap is called",
            "there are: pmem0",
        ),
        (["audit", "{core}", "{types}", "--samples", "1"], "--samples 1", "2 or more"),
        (["page", "-c", "{core}", "{types}", "1"], "no pagemap covers it", "zonedev list shows"),
        (
            ["page", "-c", "{core}", "{types}", "pmem0"],
            "'pmem0' is not a pfn",
            "zonedev list shows",
        ),
        (
            ["page", "-c", "{core}", "{types}", "0x111001"],
            "altmap head",
            "first pfn with one is 0x111800",
        ),
        (
            ["page", "-c", "{core}", "{types}", "0x1082fc000"],
            "no pagemap covers",
            "phys:0x1082fc000 is",
        ),
        (["page", "{core}", "{types}", "0x1082fc"], "unrecognized", "a VMCORE is named with -c"),
        (
            ["explain", "-c", "{core}", "{types}", "0x1082fc", "--budget", "-1"],
            "--budget -1",
            "0 or more",
        ),
        (["files", "{core}", "{types}"], "DAX entries cannot be read", "a whole vmcore"),
        (["diff"], "0 given", "two REPORTs"),
        (["diff", "nosuch", "nosuch"], "report nosuch: No such file", "audit --format json"),
        (["diff", "{text}", "{text}"], "not JSON", "audit --format json"),
        (["diff", "-c", "{core}", "{types}"], "a dump stays as it is", "give reports of two dumps"),
        (["slice", "{core}", "{types}", "-o", "{text}"], "cannot be written", "give a directory"),
        (["--version", "audit"], "--version stands alone", "zonedev --version"),
        (["--completion", "zsh"], "--completion stands alone", "zonedev --completion bash"),
    ],
)
def test_errors_say_what_and_what_next(
    zonedev: Zonedev, tmp_path: Path, words: list[str], what: str, next_: str
) -> None:
    vmcore, data = open_vmcore(LEAK), Path(open_vmcore(LEAK).core).read_bytes()
    names = ("dir", "empty", "text", "half", "foreign")
    files = {name: tmp_path / name for name in names}
    files["dir"].mkdir()
    files["empty"].write_bytes(b"")
    files["text"].write_text("some text that is no dump\n")
    files["half"].write_bytes(data[:200000])
    files["foreign"].write_bytes(data[:18] + (9999).to_bytes(2, "little") + data[20:])
    files["core"], files["vmlinux"] = Path(vmcore.core), Path(vmcore.vmlinux)
    files["other"] = Path(open_vmcore("5.10-nvdimm").vmlinux)
    typed: list[str] = []
    for word in words:
        typed += vmcore.types if word == "{types}" else [word.format(**files)]
    assert_one_line(zonedev(*typed), what, next_)


def test_names_of_files_do_not_write_to_the_terminal(zonedev: Zonedev, tmp_path: Path) -> None:
    name = tmp_path / "a  \x1b[31mred\nname"
    assert_one_line(zonedev("audit", name), r"a  \x1b[31mred", "no such file")
    for error in (UsageError, ZonedevError):
        assert str(error("\x1b]0;title\x07 x\ny")) == r"\x1b]0;title\x07 x y"


@pytest.mark.parametrize("color", ["never", "always"])
def test_symbols_do_not_write_to_the_terminal(
    zonedev: Zonedev, monkeypatch: pytest.MonkeyPatch, color: str
) -> None:
    """Names of symbols are not looked at where they are read: they may be those of a debug file."""
    evil = "\x1b]0;title\x07ops"
    monkeypatch.setattr("zonedev.kernel.registry._symbol_name", lambda prog, address: evil)
    answer = zonedev(*words_of(LEAK, ["list"]), "--color", color)
    assert answer.out.count(r"\x1b]0;title\x07ops") == 2 and "\x1b" not in answer.out


def test_reports_of_names_with_escapes(zonedev: Zonedev, tmp_path: Path, newest: Vmcore) -> None:
    report = tmp_path / "re\x1b[31mport"
    report.write_text(zonedev("audit", "-c", newest.core, *newest.types, "--format", "json").out)
    answer = zonedev("diff", report, report)
    assert answer.status == 0 and "\x1b" not in answer.out and r"re\x1b[31mport" in answer.out
