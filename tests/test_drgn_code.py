# SPDX-License-Identifier: LGPL-2.1-or-later
"""--drgn, crash mode, completion and corelens: what zonedev adds to prompts of others.

Owns: the Python that a verb prints is run, and does what the verb does.
Does not: %zonedev itself (test_plugin.py).
"""

from __future__ import annotations

import abc
import argparse
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Vmcore, Zonedev, open_vmcore
from terminal import Terminal

commands = pytest.importorskip("drgn.commands")
cli = pytest.importorskip("drgn.cli")

import drgn  # noqa: E402
from drgn import get_default_prog, set_default_prog  # noqa: E402

import zonedev.plugin  # noqa: E402
from zonedev.commands import build_parser  # noqa: E402
from zonedev.completion import bash_completion, candidates  # noqa: E402
from zonedev.drgn_code import VERBS, _literal  # noqa: E402

EXPLAIN, LEAK = "7.2-explain", "7.2-nvdimm-leak"


def environment(home: Path, **more: str) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "DEBUGINFOD_URLS": "",
        "DRGN_PLUGINS": "zonedev=zonedev.plugin",
        "HOME": str(home),
        "XDG_STATE_HOME": str(home),
        "TERM": "dumb",
        "PYTHON_BASIC_REPL": "1",
        **more,
    }


# ---------------------------------------------------------------- --drgn


@contextlib.contextmanager
def default_prog(prog: drgn.Program) -> Iterator[None]:
    try:
        before = get_default_prog()
    except drgn.NoDefaultProgramError:
        before = None
    set_default_prog(prog)
    try:
        yield
    finally:
        set_default_prog(before)


def run(vmcore: Vmcore, words: str) -> str:
    """What the command prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        commands.run_command(vmcore.prog, f"zonedev {words}")
    return out.getvalue()


def pasted(vmcore: Vmcore, code: str) -> str:
    """What the code prints at drgn's prompt."""
    with default_prog(vmcore.prog), contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, "<pasted>", "exec"), cli.default_globals(vmcore.prog))
    return out.getvalue()


def without_times(text: str) -> str:
    text = re.sub(r"[\d.]+ (s|M pages/s)\b", r"N \1", text)
    text = re.sub(r"(?m)^(zonedev\w*_seconds) .*$", r"\1 N", text)
    return re.sub(r'("(?:scan_s|total_s|pages_per_s)": )[\d.e-]+', r"\1N", text)


@pytest.mark.parametrize("core", [EXPLAIN, "5.10-nvdimm-leak"])
@pytest.mark.parametrize(
    "words",
    [
        "audit",
        "audit --severity info",
        "audit --severity error --quick",
        "audit --rule R01 --rule tail-refcount --type fs_dax --pgmap pmem0",
        "audit --fail-on warning --samples 3 --resample-ms 5",
        "audit --format json",
        "audit --format ndjson --severity error",
        "audit --format csv",
        "list --format json",
        "list --format ndjson",
        "list --format csv",
        "audit --format prometheus",
        "map",
        "map --pgmap pmem0 --pfn 0x101000-0x1013ff --quick",
        "page 0x101310",
        "page 0x101310 --quick --format json",
        "explain 0x101310 --budget 0",
        "explain 0x101310 --budget 0 --format json",
        "waiters",
        "waiters --format json",
        "scheme",
        "rules",
        "rules R01",
        "rules --format json",
        "rules tail-refcount --format json",
    ],
)
def test_the_code_prints_what_the_verb_prints(core: str, words: str) -> None:
    vmcore = open_vmcore(core)
    code = run(vmcore, f"{words} --drgn")
    assert code.startswith("from zonedev") and "\n\n" in code
    expected = run(vmcore, words)
    assert without_times(pasted(vmcore, code)) == without_times(expected) and expected


def test_the_code_has_the_budget_of_a_search() -> None:
    """Of a page whose references are not all explained, so that memory would be searched."""
    vmcore, words = open_vmcore(EXPLAIN), "explain 0x101215 --budget 0"
    out = pasted(vmcore, run(vmcore, f"{words} --drgn"))
    assert out == run(vmcore, words) and "memory: " not in out
    assert "memory: " in pasted(vmcore, run(vmcore, "explain 0x101215 --drgn"))


def test_the_code_of_a_list() -> None:
    vmcore = open_vmcore(EXPLAIN)
    expected = run(vmcore, "list")
    assert expected == pasted(vmcore, run(vmcore, "list --drgn")) + "\ntypes from DWARF\n"


def test_the_code_of_a_quiet_audit(newest: Vmcore) -> None:
    code = run(newest, "audit -q --drgn")
    assert pasted(newest, code) == "" and "result = audit()" in code


def test_the_code_of_audits_that_write_files(tmp_path: Path) -> None:
    vmcore = open_vmcore(LEAK)
    one, two, page, report = (tmp_path / name for name in ("one.json", "two.json", "page", "json"))
    run(vmcore, f"audit -q --json {one}")
    words = f"audit -q --baseline {one} --html {page} --json {report} --severity error"
    code = run(vmcore, f"{words} --drgn")
    assert not page.exists() and pasted(vmcore, code) == ""
    made, told = page.read_text(), json.loads(report.read_text())
    assert told["summary"]["verdict"] != "violations", "all of it is accepted"
    run(vmcore, f"{words.replace(str(report), str(two))}")
    assert len(page.read_text()) == pytest.approx(len(made), abs=100)
    expected = json.loads(two.read_text())
    assert told["findings"] == expected["findings"] and told["summary"] == expected["summary"]


def test_the_code_of_files() -> None:
    vmcore = open_vmcore(EXPLAIN)
    files = json.loads(run(vmcore, "files --format json"))["files"]
    lines = pasted(vmcore, run(vmcore, "files --drgn")).splitlines()
    assert len(files) > 3
    assert lines == [f"{f['number']} {f['entries']} {f['name']}" for f in files]
    entries = json.loads(run(vmcore, "files --inode 12 --format json"))["entries"]
    lines = pasted(vmcore, run(vmcore, "files --inode 12 --drgn")).splitlines()
    assert len(entries) > 3
    assert lines == [f"{e['index']:#x} {e['pfn']:#x} {e['pages']}" for e in entries]


def test_the_code_of_a_diff(zonedev: Zonedev, tmp_path: Path) -> None:
    before, after = tmp_path / "before it's", tmp_path / 'after "it"'
    for path, name in ((before, "7.2-nvdimm"), (after, LEAK)):
        core = open_vmcore(name)
        path.write_text(zonedev("audit", "-c", core.core, *core.types, "--format", "json").out)
    vmcore = open_vmcore(LEAK)
    for options in ("", "--severity info", "--format json", "--fail-on info"):
        words = f"diff {drgn_quoted(before)} {drgn_quoted(after)} {options}"
        expected = run(vmcore, words)
        assert pasted(vmcore, run(vmcore, f"{words} --drgn")) == expected and expected


def drgn_quoted(path: Path) -> str:
    return re.sub(r"([\s'\"])", r"\\\1", str(path))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("a.json", "1 given"),
        ("a b c", "3 given"),
        ("--wait -1", "--wait -1"),
        ("--wait nan", "nan"),
    ],
)
def test_no_code_of_a_diff_that_makes_no_sense(words: str, why: str) -> None:
    with pytest.raises(commands.CommandError, match=why):
        run(open_vmcore("7.2-nvdimm"), f"diff {words} --drgn")


def test_literals() -> None:
    for value in ((), ("a",), ("a", "b"), [], ["a"], "'\"", None, 0x10):
        assert eval(_literal(value)) == value


def test_the_code_of_a_live_diff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two audits with a pause between: run on a dump, on which nothing changes."""
    vmcore = open_vmcore(EXPLAIN)
    code = run(vmcore, "diff --wait 0.5 --fail-on warning --drgn")
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    out = pasted(vmcore, code)
    assert pauses == [0.5] and "no pagemap changed" in out and "first audit" in out


def test_every_verb_has_its_code_or_says_that_it_has_none() -> None:
    parser = build_parser("%zonedev", False)
    verbs = next(a.choices for a in parser._actions if a.dest == "verb")
    assert verbs is not None
    with_code = {name for name, sub in verbs.items() if "--drgn" in sub.format_help()}
    assert with_code == set(VERBS) == set(verbs)
    for name, sub in verbs.items():
        assert sub._actions[-1].option_strings == ["--drgn"], f"{name}: last, as drgn has it"


def test_the_program_has_no_drgn_option(zonedev: Zonedev, newest: Vmcore) -> None:
    assert zonedev("list", newest.core, *newest.types, "--drgn").status == 2


@pytest.mark.parametrize("word", ["audit --rule frob --drgn", "rules frob --drgn"])
def test_words_are_checked_all_the_same(newest: Vmcore, word: str) -> None:
    with pytest.raises(commands.CommandArgumentError, match="no rule 'frob'"):
        run(newest, word)


# ---------------------------------------------------------------- crash mode


def drgn_crash(vmcore: Vmcore, home: Path, lines: list[str], **env: str) -> str:
    pytest.importorskip("drgn.internal.crashcli")
    done = subprocess.run(
        [sys.executable, "-m", "drgn.internal.crashcli", vmcore.vmlinux, vmcore.core],
        env=environment(home, **env),
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_crash_mode(tmp_path: Path) -> None:
    vmcore, file, count = open_vmcore(LEAK), tmp_path / "report", tmp_path / "count"
    shown = drgn_crash(
        vmcore,
        tmp_path,
        [
            "zonedev list",
            f"zonedev audit > {file}",
            f"zonedev audit --format csv | wc -l >{count}",
            "zonedev page 1",
            "zonedev frob",
            "zonedev explain 0x1082fc --drgn",
            "help zonedev",
            "zonedev help page",
            "drgn print('STILL', 'here')",
        ],
    )
    assert re.search(r"^(%crash> )?DEVICE +TYPE +PAGES ", shown, re.MULTILINE)
    assert "violations: 6 pages with errors" in file.read_text()
    assert count.read_text().strip() == "28", "27 findings and a header"
    assert "zonedev list shows the pfns" in shown and "did you mean" not in shown
    assert "invalid choice: 'frob'" in shown and "(see zonedev --help)" in shown
    assert 'result = explain("0x1082fc")' in shown
    assert "zonedev - audit the struct pages" in shown and "zonedev help VERB" in shown
    assert "usage: zonedev page" in shown and "%zonedev" not in shown
    assert "STILL here" in shown and "Traceback" not in shown


def test_crash_mode_from_drgn(newest: Vmcore, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("drgn.commands._crash.common")
    # As drgn does for the plugins that it loads.
    zonedev.plugin.drgn_prog_set(newest.prog)
    result = commands.run_command(newest.prog, "crash zonedev list")
    assert [p.device for p in result][:2] == ["pmem0", "pmem2"]
    assert capsys.readouterr().out.startswith("DEVICE ")


def test_without_crash_mode(newest: Vmcore, tmp_path: Path) -> None:
    """Its module is private: where it is another one, %zonedev is there, and drgn says nothing."""
    code = (
        "import drgn, sys, types\n"
        "sys.modules['drgn.commands._crash.common'] = types.ModuleType('common')\n"
        "import zonedev.plugin\n"
        f"prog = drgn.Program(); prog.set_core_dump({newest.core!r})\n"
        "zonedev.plugin.drgn_prog_set(prog)\n"
        "from drgn.commands import DEFAULT_COMMAND_NAMESPACE as n\n"
        "print('zonedev' in n._commands)"
    )
    env = environment(tmp_path, DRGN_DISABLE_PLUGINS="*")
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


# ---------------------------------------------------------------- completion


@pytest.mark.parametrize(
    ("words", "word", "found"),
    [
        ([], "", "audit diff explain files help list map page rules scheme waiters"),
        ([], "ex", "explain"),
        (["help"], "w", "waiters"),
        (["audit"], "--se", "--severity"),
        (["audit", "--severity"], "", "error info warning"),
        (["audit", "--type"], "p", "pci_p2pdma private"),
        (["audit", "--rule"], "tail", "tail-refcount"),
        (["audit", "--quick"], "--qui", "--quick --quiet"),
        (["audit", "--samples"], "", ""),
        (["rules"], "dax", "dax-lock-stuck"),
        (["list"], "", "--color --drgn --format --help -h"),
        (["list"], "x", ""),
        (["frob"], "", ""),
    ],
)
def test_candidates(words: list[str], word: str, found: str) -> None:
    assert candidates(build_parser("%zonedev", False), words, word) == found.split()


def test_completion_at_prompts(tmp_path: Path) -> None:
    """Tab completes our command in drgn and in crash mode, and Python as before."""
    vmcore = open_vmcore(LEAK)
    words = [sys.executable, "-m", "drgn", "-q", "-c", vmcore.core, "-s", vmcore.vmlinux]
    with Terminal(words, environment(tmp_path)) as terminal:
        terminal.until(r">>> $")
        for keys, shown in (
            ("%zonedev exp\t0x1082fc --bud\t0\n", r"%zonedev explain 0x1082fc --budget 0"),
            ("print(prog.main_mod\t))\n", r"print\(prog.main_module\(\)\)"),
            ("%crash zonedev rul\tR01 --form\tjs\t| wc -c\n", r"rules R01 --format json \| wc -c"),
            ("%crash\n", "%crash> $"),
            ("zonedev lis\t| cat\n", r"zonedev list \| cat\s+DEVICE"),
        ):
            terminal.type(keys)
            terminal.until(shown)


def test_completion_in_crash(tmp_path: Path) -> None:
    vmcore = open_vmcore(LEAK)
    words = [sys.executable, "-m", "drgn.internal.crashcli", vmcore.vmlinux, vmcore.core]
    with Terminal(words, environment(tmp_path)) as terminal:
        terminal.until("%crash> $")
        terminal.type("zone\t\x20sche\t--format js\t| head -2\n")
        terminal.until(r"zonedev +scheme --format json")
        terminal.until(r'"schema": "zonedev.scheme')


BASH = """\
source {script}
try() {{ COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _zonedev; echo "${{COMPREPLY[*]}}"; }}
try zonedev ""
try zonedev sl
try zonedev audit --for
try zonedev audit --format ""
try zonedev audit --rule tail
try zonedev rules R
try zonedev rules dirty
try zonedev help sl
try zonedev slice core --with ta
try zonedev audit /tmp
"""


def test_bash(zonedev: Zonedev, tmp_path: Path) -> None:
    script = tmp_path / "script"
    answer = zonedev("--completion", "bash")
    assert (answer.status, answer.err) == (0, "")
    assert answer.out == bash_completion(build_parser("zonedev", True))
    script.write_text(answer.out)
    done = subprocess.run(
        ["bash", "-c", BASH.format(script=script)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "list audit map page explain files waiters scheme rules diff slice help",
        "slice",
        "--format",
        "text json ndjson csv prometheus",
        "tail-refcount",
        "",
        "dirty-free-state",
        "slice",
        "tasks",
        "",
    ]


# ---------------------------------------------------------------- corelens


@pytest.fixture
def corelens(monkeypatch: pytest.MonkeyPatch) -> Any:
    """drgn_tools.corelens, or where it is not installed, a module that stands for it."""
    monkeypatch.delitem(sys.modules, "zonedev.corelens", raising=False)
    try:
        import drgn_tools.corelens as real
    except ImportError:
        pass
    else:
        return real

    class CorelensModule(abc.ABC):
        name = ""

        @abc.abstractmethod
        def run(self, prog: drgn.Program, args: argparse.Namespace) -> None: ...

        def add_args(self, parser: argparse.ArgumentParser) -> None:  # noqa: B027
            """None, where a module has none."""

    stand_in: Any = types.ModuleType("drgn_tools.corelens")
    stand_in.CorelensModule, stand_in.main = CorelensModule, lambda: None
    stand_in.all_corelens_modules = lambda: {
        one.name: one() for one in CorelensModule.__subclasses__()
    }
    package: Any = types.ModuleType("drgn_tools")
    package.corelens = stand_in
    monkeypatch.setitem(sys.modules, "drgn_tools", package)
    monkeypatch.setitem(sys.modules, "drgn_tools.corelens", stand_in)
    return stand_in


def test_corelens_finds_the_module(corelens: Any, capsys: pytest.CaptureFixture[str]) -> None:
    vmcore = open_vmcore(LEAK)
    zonedev.plugin.drgn_prog_set(vmcore.prog)
    module = corelens.all_corelens_modules()["zonedev"]
    parser = argparse.ArgumentParser()
    module.add_args(parser)
    assert module.run(vmcore.prog, parser.parse_args([])) is None
    out = capsys.readouterr().out
    assert without_times(out) == without_times(run(vmcore, "audit"))
    module.run(vmcore.prog, parser.parse_args(["--severity", "info", "--quick", "--explain"]))
    out = capsys.readouterr().out
    expected = run(vmcore, "audit --severity info --quick --explain")
    assert without_times(out) == without_times(expected)


def test_corelens_is_not_loaded_for_its_own_sake(newest: Vmcore) -> None:
    code = (
        "import drgn, sys, zonedev.plugin\n"
        f"prog = drgn.Program(); prog.set_core_dump({newest.core!r})\n"
        "zonedev.plugin.drgn_prog_set(prog)\n"
        "print(*(m for m in sys.modules if m.startswith(('drgn_tools', 'zonedev'))))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "DRGN_DISABLE_PLUGINS": "*"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) == {"zonedev", "zonedev.plugin"}


def test_a_corelens_that_is_another_one(newest: Vmcore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "zonedev.corelens", raising=False)
    monkeypatch.setitem(sys.modules, "drgn_tools.corelens", types.ModuleType("drgn_tools.corelens"))
    zonedev.plugin.drgn_prog_set(newest.prog)
