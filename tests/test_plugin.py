# SPDX-License-Identifier: LGPL-2.1-or-later
"""%zonedev in drgn: the same verbs, output that pipes and redirects, the result as the value.

Owns: the command inside of drgn, and what drgn's start pays for it.
Does not: what the verbs print (test_cli.py).
Invariant: on a user-space target there is no command and no message.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Vmcore, open_vmcore
from terminal import Terminal, plain

commands = pytest.importorskip("drgn.commands")
pytest.importorskip("drgn.commands.linux")

import drgn  # noqa: E402

import zonedev.plugin  # noqa: E402, F401
from zonedev.audit import audit  # noqa: E402
from zonedev.cli import main  # noqa: E402
from zonedev.model import Audit, Pagemap  # noqa: E402
from zonedev.target import Target, open_target  # noqa: E402

LEAK = "5.10-nvdimm-leak"

# Modules that drgn must not pay for at its start.
HEAVY = {"zonedev._zonedev", "zonedev.audit", "zonedev.commands", "zonedev.report.text"}


LIGHT = {"zonedev", "zonedev.plugin", "zonedev.completion"}


def run(prog: Any, words: str) -> Any:
    return commands.run_command(prog, words)


def environment(**more: str) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "DEBUGINFOD_URLS": "",
        "DRGN_PLUGINS": "zonedev=zonedev.plugin",
        "TERM": "dumb",
        **more,
    }


# ---------------------------------------------------------------- values and output


def test_audit_is_the_value(newest: Vmcore, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(newest.prog, "zonedev audit")
    assert isinstance(result, Audit) and result.verdict == "clean"
    out, err = capsys.readouterr()
    assert out == str(result) and err == ""


def test_a_core_without_debug_information(capsys: pytest.CaptureFixture[str]) -> None:
    vmcore = open_vmcore("6.16-btf-p2p-leak")
    prog = drgn.Program()
    prog.set_core_dump(vmcore.core)
    result = run(prog, "zonedev audit")
    assert result.verdict == "violations" and result.types_from == "btf"
    # The user has them from then on.
    assert prog.type("struct dev_pagemap").has_member("ref")
    assert audit(prog).verdict == "violations"
    capsys.readouterr()


def test_a_core_with_no_types_at_all(newest: Vmcore) -> None:
    prog = drgn.Program()
    prog.set_core_dump(newest.core)
    with pytest.raises(
        commands.CommandError, match=r"no debug information is loaded.*kallsyms"
    ) as caught:
        run(prog, "zonedev audit")
    assert "\n" not in str(caught.value)


def test_list_is_the_value(newest: Vmcore, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(newest.prog, "zonedev list")
    assert [type(p) for p in result] == [Pagemap] * 6
    assert result[0].device == "pmem0"
    assert capsys.readouterr().out.count("\n") == 9


def test_page_is_the_value(newest: Vmcore, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(newest.prog, "zonedev page 0x100000")
    assert result.pfn == 0x100000
    assert capsys.readouterr().out == str(result)


def test_rules_are_the_value(newest: Vmcore, capsys: pytest.CaptureFixture[str]) -> None:
    rows = run(newest.prog, "zonedev rules refcount-below-idle")
    assert {row["id"] for row in rows} == {"refcount-below-idle"}
    assert capsys.readouterr().out.startswith("refcount-below-idle")


@pytest.mark.parametrize(
    "words",
    [
        "list",
        "list --format json",
        "list --format csv",
        "audit --format csv",
        "audit --format csv --severity error",
        "audit --format csv --rule held-without-map --type generic",
        "audit --format csv --pgmap pmem0",
        "page 0x101310",
        "page 0x101310 --format json",
        "rules",
        "rules --format json",
    ],
)
def test_same_arguments_same_output(capsys: pytest.CaptureFixture[str], words: str) -> None:
    vmcore = open_vmcore(LEAK)
    run(vmcore.prog, f"zonedev {words}")
    inside = capsys.readouterr()
    target = ["-c", vmcore.core, *vmcore.types]
    main([*words.split(), *target])
    assert capsys.readouterr() == inside and inside.out


def test_pictures(newest: Vmcore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(newest.prog, "zonedev map --pgmap pmem0")
    drawn = capsys.readouterr().out
    assert result.pagemaps[0].cells and "0x10f000      " in drawn and "\x1b" not in drawn
    path = tmp_path / "report.html"
    assert run(newest.prog, f"zonedev audit -q --html {path}").verdict == "clean"
    # Commands that go on from there are those of drgn's prompt.
    assert '"command":"%zonedev","target":""' in path.read_text()


def test_explanations_are_the_same_and_are_returned(capsys: pytest.CaptureFixture[str]) -> None:
    vmcore = open_vmcore("7.2-explain")
    for words in ("explain 0x101215 --budget 0", "explain 0x101215 --budget 0 --format json"):
        result = run(vmcore.prog, f"zonedev {words}")
        inside = capsys.readouterr()
        assert (result.pfn, result.unexplained) == (0x101215, 1)
        assert main([*words.split(), "-c", vmcore.core, *vmcore.types]) == 1
        assert capsys.readouterr() == inside and inside.out


def test_quiet(newest: Vmcore, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(newest.prog, "zonedev audit -q").verdict == "clean"
    assert capsys.readouterr() == ("", "")


def test_redirect(newest: Vmcore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a file"
    run(newest.prog, f"zonedev audit > '{file}'")
    assert capsys.readouterr().out == ""
    assert file.read_text().startswith("Linux 7.2") and "clean" in file.read_text()
    run(newest.prog, f"zonedev list >> '{file}'")
    assert file.read_text().splitlines()[-3].startswith("dax3.0")


def test_pipe(newest: Vmcore, capfd: pytest.CaptureFixture[str]) -> None:
    run(newest.prog, "zonedev list | wc -l")
    assert capfd.readouterr().out.strip() == "9"
    run(newest.prog, "zonedev audit --format json --severity info | head -1")
    assert capfd.readouterr() == ("{\n", "")


@pytest.mark.parametrize("words", ["", "help", "--help", "-h"])
def test_help(newest: Vmcore, capsys: pytest.CaptureFixture[str], words: str) -> None:
    assert run(newest.prog, f"zonedev {words}".strip()) is None
    out, err = capsys.readouterr()
    assert out.startswith("usage: %zonedev") and err == ""
    for verb in ("list", "audit", "page", "explain", "waiters", "diff", "rules"):
        assert re.search(rf"^ +{verb} ", out, re.MULTILINE)
    assert "slice" not in out


@pytest.mark.parametrize("verb", ["list", "audit", "page", "explain", "waiters", "diff", "rules"])
def test_help_of_a_verb(newest: Vmcore, capsys: pytest.CaptureFixture[str], verb: str) -> None:
    for words in (f"help {verb}", f"{verb} --help"):
        assert run(newest.prog, f"zonedev {words}") is None
        out = capsys.readouterr().out
        assert out.startswith(f"usage: %zonedev {verb}") and "--format" in out
        assert "--core" not in out, "drgn has the target"


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "words",
    [
        "frob",
        "help frob",
        "slice -o x",
        "page",
        "page 1 2",
        "audit --frob",
        "audit -s vmlinux",
        "audit -c core",
        "audit --rule frob",
        "audit --pgmap frob",
        "audit --fail-on frob",
        "page 1",
        "page frob",
        "explain",
        "explain 1",
        "explain frob",
        "explain 0x101310 --budget nan",
        "rules frob",
    ],
)
def test_errors_are_one_line(
    newest: Vmcore, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    with pytest.raises(commands.CommandError) as error:
        run(newest.prog, f"zonedev {words}")
    assert str(error.value) and "\n" not in str(error.value)
    assert capsys.readouterr() == ("", "")


def test_usage_is_told_from_failure(newest: Vmcore) -> None:
    with pytest.raises(commands.CommandArgumentError):
        run(newest.prog, "zonedev frob")
    with pytest.raises(commands.CommandError) as error:
        run(newest.prog, "zonedev page 1")
    assert not isinstance(error.value, commands.CommandArgumentError)


@pytest.mark.parametrize("verb", ["audit -q", "list", "page 0x100000"])
def test_damaged_core(newest: Vmcore, tmp_path: Path, verb: str) -> None:
    """Memory that cannot be read is an error of the command, not a traceback."""
    data = Path(newest.core).read_bytes()
    core = tmp_path / "core"
    section = newest.prog.read(int(newest.prog["mem_section"]) & ~4095, 4096)
    at = data.find(section)
    assert at > 0 and data.count(section) == 1
    core.write_bytes(data[:at] + b"\xff" * 4096 + data[at + 4096 :])
    prog = open_target(Target(str(core), [newest.vmlinux]))
    with pytest.raises(commands.CommandError) as error:
        run(prog, f"zonedev {verb}")
    assert "\n" not in str(error.value)


def test_without_debug_info(newest: Vmcore) -> None:
    prog = drgn.Program()
    prog.set_core_dump(newest.core)
    for verb in ("audit", "list", "page 0x100000"):
        with pytest.raises(commands.CommandError) as error:
            run(prog, f"zonedev {verb}")
        assert "debug information" in str(error.value)


# ---------------------------------------------------------------- drgn's start


def test_import_is_light() -> None:
    code = "import sys, zonedev.plugin; print(*(m for m in sys.modules if m.startswith('zonedev')))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) == {"zonedev", "zonedev.plugin"}
    assert done.stderr == ""


def test_no_command_on_user_space() -> None:
    prog = drgn.Program()
    prog.set_pid(os.getpid())
    with pytest.raises(commands.CommandNotFoundError):
        run(prog, "zonedev list")


SHOW_MODULES = "import sys; print('LOADED', *(m for m in sys.modules if m.startswith('zonedev')))"


def drgn_session(words: list[str], lines: list[str], env: dict[str, str]) -> str:
    """What drgn's own prompt shows, on a terminal, for lines that are typed."""
    with Terminal([sys.executable, "-m", "drgn", *words], env) as terminal:
        for line in [*lines, "exit()"]:
            terminal.until(r">>> *\Z")
            terminal.type(line + "\n")
        return plain(terminal.rest())


@pytest.fixture
def entry_point(tmp_path: Path) -> dict[str, str]:
    """An environment in which the plugin is found by its entry point only."""
    info = tmp_path / "site" / "zonedev-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zonedev\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text("[drgn.plugins]\nzonedev = zonedev.plugin\n")
    env = environment(
        PYTHONPATH=f"{ROOT}{os.pathsep}{tmp_path / 'site'}",
        PYTHON_BASIC_REPL="1",
        HOME=str(tmp_path),
    )
    del env["DRGN_PLUGINS"]
    return env


def test_session_on_a_kernel(newest: Vmcore, entry_point: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "report"
    shown = drgn_session(
        ["-q", "-c", newest.core, "-s", newest.vmlinux],
        [
            SHOW_MODULES,
            "%zonedev list",
            f"%zonedev audit > {file}",
            "%zonedev audit | wc -l",
            "%zonedev page 1",
            "%zonedev frob",
            "print('STILL', 'here')",
        ],
        entry_point,
    )
    loaded = re.search(r"^LOADED (.*)$", shown, re.MULTILINE)
    assert loaded and set(loaded[1].split()) == LIGHT
    assert re.search(r"^pmem0 +FS_DAX +65536 ", shown, re.MULTILINE)
    assert "clean" in file.read_text()
    assert str(len(file.read_text().splitlines())) in shown.splitlines()
    assert "not ZONE_DEVICE" in shown and "invalid choice: 'frob'" in shown
    assert "Traceback" not in shown
    assert "STILL here" in shown


def test_session_on_a_process(entry_point: dict[str, str]) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            words, lines = ["-q", "-p", str(process.pid)], [SHOW_MODULES, "%zonedev list"]
            shown = drgn_session(words, lines, entry_point)
            entry_point["DRGN_DISABLE_PLUGINS"] = "*"
            plain = drgn_session(words, [], entry_point)
        finally:
            process.kill()
    loaded = re.search(r"^LOADED(.*)$", shown, re.MULTILINE)
    assert loaded and not set(loaded[1].split()) & HEAVY
    assert "command not found" in shown
    start = shown.split(">>>")[0]
    assert start == plain.split(">>>")[0], "drgn starts as it does without the plugin"
    assert "zonedev" not in start and "Traceback" not in shown
