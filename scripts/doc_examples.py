#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Run the examples of the documentation, and compare what they print with what the page shows.

usage: doc_examples.py [--write] [FILE.md ...]     (default: all pages; with a Python that has zonedev)
--write puts what is printed now into the pages, where they show something else.

An example is a fenced block; what is in it tells its kind, the first word behind the fence:

    console  lines that begin with "$ " are run, what follows is all that they print, errors too; nothing is
             shown where nothing is printed.  A line "[...]" stands for lines that are left out.  An exit status
             that is not 0 is either shown (echo $?) or follows from what is printed.
    python   is run, and what it prints is in the block of the kind "output" that follows
    pycon    lines that begin with ">>> " (and "... "), as in drgn's prompt: %commands, too; "%crash> " is its crash mode
    usage    each line is a command with WORDS to be filled in (PLACEHOLDERS), then two spaces and what it does;
             it is run with and without its [parts].  Of -k and --qemu only the words are checked.
    json     is parsed
    text     is no example: no line of it may look like a command

A page is one session: variables, files and names last to its end, in a directory of its own that looks like the
root of the project.  "<!-- core: 7.2-explain -->" gives Python blocks that bundled core as prog.  What cannot be
run has "<!-- not run: REASON -->" above it.  Measured figures (MEASURED) are compared as figures, not by value.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import difflib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import textwrap
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Optional

import drgn.cli  # before zonedev: what shows itself at drgn's prompt registers there
from unpack_vmcore import unpack

ROOT = Path(__file__).resolve().parent.parent
VMCORES = ROOT / "tests" / "vmcores"

# What a machine takes for something, and lines of the Makefile: the figure may differ, the words around it may not.
MEASURED = re.compile(r"\b\d+\.\d+ (?=s\b|M pages/s)|(?<=Makefile:)\d+")

ELISION = "[...]"

_FENCE = re.compile(r"^( *)(`{3,})(.*)$")
_MARK = re.compile(r"^ *<!-- (core|not run): (.+) -->$")
_INDENTED = re.compile(r"^ {4,}\S")
_CRASH = "%crash> "
_PYTHON = ">>> "

_LIST_ITEM = re.compile(r"^ *([-*]|\d+\.) ")
_COMMAND = re.compile(r"^ *(\$ |>>> |%crash> |%?zonedev [a-z]|make [a-z]|pip install|python3? )")

# Words of a usage line, and what they are filled in with; a core that is named without a VMLINUX has its types itself.
PLACEHOLDERS = {
    "VMCORE": "build/vmcores/7.2-explain/vmcore",
    "VMLINUX": "tests/vmcores/7.2-explain/vmlinux",
    "PFN": "0x108228",
    "RULE": "reference-on-free-folio",
    "DIR": "usage-dir",
    "BEFORE": "before.json",
    "AFTER": "after.json",
}
_WITH_TYPES = {"VMCORE": "build/vmcores/6.1-btf-explain/vmcore"}
_USAGE_CORE = "7.2-explain"
_AUDIT_TO = "zonedev audit {VMCORE} -s {VMLINUX} --format json > "
_LIVE = {"-k", "--kernel", "--qemu"}

# What a reader does once to have the program, and the runner has it already.
_AT_HAND = {". .venv/bin/activate"}


class DocError(Exception):
    """A page breaks the convention above."""


class Block(NamedTuple):
    """A fenced block: the number of its first line (from 0), its kind, its lines, its indentation."""

    first: int
    kind: str
    lines: list[str]
    indent: str
    not_run: Optional[str] = None
    core: Optional[str] = None

    @property
    def text(self) -> str:
        return "\n".join(line.removeprefix(self.indent) for line in self.lines) + "\n"


def pages() -> list[Path]:
    """All pages whose examples are run."""
    found = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    return sorted(path for path in found if "_build" not in path.parts)


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page, of whatever kind.

    :raises DocError: a block does not end, or code is told by its indentation alone
    """
    found: list[Block] = []
    lines = text.splitlines()
    marks: dict[str, str] = {}
    in_list = False
    at = 0
    while at < len(lines):
        line = lines[at]
        if mark := _MARK.match(line):
            marks[mark[1]] = mark[2]
        elif fence := _FENCE.match(line):
            end = _end_of(lines, at, fence[2])
            found.append(
                Block(
                    at + 1,
                    fence[3].strip(),
                    lines[at + 1 : end],
                    fence[1],
                    marks.get("not run"),
                    marks.get("core"),
                )
            )
            marks = {}
            at = end
        elif _LIST_ITEM.match(line):
            in_list = True
        elif line.strip() and not line.startswith(" "):
            in_list, marks = False, {}
        elif _INDENTED.match(line) and not in_list and not lines[at - 1].strip():
            raise DocError(f"line {at + 1}: an indented block; give it a fence with its kind")
        at += 1
    return found


def _end_of(lines: list[str], first: int, fence: str) -> int:
    for at in range(first + 1, len(lines)):
        if lines[at].strip() == fence:
            return at
    raise DocError(f"line {first + 1}: the block does not end")


def docstring_examples(source: str) -> list[Block]:
    """The ">>> " examples in the docstrings of a module, each to the next empty line, as blocks of the kind pycon."""
    found: list[Block] = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            continue
        for paragraph in re.split(r"\n\s*\n", ast.get_docstring(node) or ""):
            lines = textwrap.dedent(paragraph.strip("\n")).splitlines()
            # What doctest calls an ellipsis, where it does not go on with a command.
            for at, line in enumerate(lines):
                if line == "..." and not lines[at - 1].startswith((">>> ", "... ")):
                    lines[at] = ELISION
            if lines and lines[0].startswith(">>> "):
                first = node.body[0].lineno if node.body else 0
                found.append(Block(first - 1, "pycon", lines, ""))
    return found


def is_example(block: Block) -> bool:
    """Whether a block is one of those that are looked at here; the others are MyST's."""
    return not block.kind.startswith("{") or block.kind.startswith("{code")


def as_compared(text: str) -> str:
    """Without what may differ from run to run."""
    return MEASURED.sub("#", text)


def agrees(shown: list[str], printed: list[str]) -> bool:
    """Whether printed lines are those that are shown, with at least one for each line that leaves lines out."""
    pattern = "".join(
        r"(?:.*\n)+?" if line == ELISION else re.escape(as_compared(line)) + r"\n" for line in shown
    )
    text = "".join(as_compared(line) + "\n" for line in printed)
    return re.fullmatch(pattern, text) is not None


def healed(shown: list[str], printed: list[str]) -> list[str]:
    """Lines of a page that agree with what is printed: its own where they do; what it leaves out stays left out."""
    if agrees(shown, printed):
        return shown
    if shown.count(ELISION) == 1:
        head = shown.index(ELISION)
        tail = len(shown) - head - 1
        if head + tail < len(printed):
            return [*printed[:head], ELISION, *printed[len(printed) - tail :]]
    return printed


# ---------------------------------------------------------------- running


class Session:
    """What lasts from one block of a page to the next."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.variables: dict[str, str] = {}
        self.status = 0
        self.names: dict[str, Any] = {"__name__": "__example__"}
        (ROOT / "build").mkdir(exist_ok=True)
        for entry in ROOT.iterdir():
            if not entry.name.startswith("."):
                (directory / entry.name).symlink_to(entry)
        # Stands for the virtual environment that make sets up.
        programs = directory / ".venv" / "bin"
        programs.mkdir(parents=True)
        for name, module in (("zonedev", "-m zonedev"), ("python", ""), ("python3", "")):
            script = programs / name
            script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {module} "$@"\n')
            script.chmod(0o755)
        for done in (".created", ".built"):
            (programs.parent / done).touch()
        # What make tells its own children would be told to an example's, too.
        inherited = {key: value for key, value in os.environ.items() if "MAKE" not in key}
        self._environment = {
            **inherited,
            "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYTHONPATH": str(ROOT),
            "LC_ALL": "C.UTF-8",
        }

    @contextlib.contextmanager
    def _here(self, out: io.StringIO, err: io.StringIO) -> Iterator[None]:
        """In the page's directory, with what is printed kept."""
        before = os.getcwd()
        os.chdir(self.directory)
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                yield
        finally:
            os.chdir(before)

    # ------------------------------------------------------------ a shell

    def shell(self, command: str) -> str:
        """What a line of a shell prints, errors among it; its exit status is kept."""
        if command == "echo $?":
            return f"{self.status}\n"
        if command in _AT_HAND:
            self.status = 0
            return ""
        if re.search(r"[|;&<`\n]|\$\(|2>", command):
            return self._sh(command)
        words = shlex.split(self._expanded(command))
        if all(re.match(r"[A-Z_]+=", word) for word in words):
            self.variables.update(word.split("=", 1) for word in words)
            self.status = 0
            return ""
        if words[0] == "zonedev":
            return self._zonedev(words[1:])
        return self._sh(command)

    def _expanded(self, command: str) -> str:
        for name in re.findall(r"\$([A-Z_]+)", command):
            if name not in self.variables:
                raise DocError(f"${name} is not set on this page: {command}")
        return re.sub(r"\$([A-Z_]+)", lambda m: shlex.quote(self.variables[m[1]]), command)

    def _zonedev(self, words: list[str]) -> str:
        from zonedev.cli import main

        target = None
        if len(words) > 1 and words[-2] in (">", ">>"):
            *words, how, target = words
        out = io.StringIO()
        err = io.StringIO() if target else out
        unpack_named(words)
        with self._here(out, err):
            try:
                self.status = main(words)
            except SystemExit as end:
                # argparse ends so behind --help
                self.status = int(end.code or 0)
        if target is None:
            return out.getvalue()
        with open(self.directory / target, "a" if how == ">>" else "w") as file:
            file.write(out.getvalue())
        return err.getvalue()

    def _sh(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-uc", command],
            cwd=self.directory,
            env={**self._environment, **self.variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.status = done.returncode
        return done.stdout

    # ------------------------------------------------------------ Python

    def take(self, core: str) -> None:
        """Make a bundled core the page's prog, and drgn's default."""
        import zonedev.plugin  # noqa: F401
        from zonedev.target import Target, open_target

        path = str(unpack(VMCORES / core, ROOT / "build" / "vmcores"))
        files = [VMCORES / core / "vmlinux", *sorted((VMCORES / core).glob("*.ko.debug"))]
        files = [str(file) for file in files if file.exists()]
        prog = open_target(Target(path, files) if files else Target(path, btf=True))
        self.names["prog"] = prog
        drgn.set_default_prog(prog)

    def python(self, source: str) -> str:
        """What a block of Python prints; an exception as Python's prompt shows it."""
        out = io.StringIO()
        with self._here(out, out):
            try:
                tree = ast.parse(source)
                exec(compile(tree, "<example>", "exec"), self.names)
            except Exception as err:
                out.write("".join(traceback.format_exception_only(type(err), err)))
        return out.getvalue()

    def _command(self, source: str) -> Any:
        """The value of a %command, or of what is typed behind "%crash> "."""
        from drgn.commands import run_command

        run, words = run_command, source[1:]
        if source.startswith(_CRASH):
            from drgn.commands._crash.common import CRASH_COMMAND_NAMESPACE

            run, words = CRASH_COMMAND_NAMESPACE.run, source.removeprefix(_CRASH)
        return run(self.names["prog"], words, globals=self.names)

    def prompt(self, source: str) -> str:
        """What drgn's prompt prints for a statement or a %command."""
        out = io.StringIO()
        hook = sys.displayhook
        with self._here(out, out):
            try:
                sys.displayhook = drgn.cli._displayhook
                if source.startswith("%"):
                    builtins._ = self._command(source)  # type: ignore[attr-defined]
                else:
                    exec(compile(source, "<example>", "single"), self.names)
            except Exception as err:
                out.write("".join(traceback.format_exception_only(type(err), err)))
            finally:
                sys.displayhook = hook
        return out.getvalue()


def unpack_named(words: list[str]) -> None:
    """Unpack the bundled cores that a command names."""
    for word in words:
        named = re.search(r"build/vmcores/([^/]+)/vmcore$", word)
        if named and (VMCORES / named[1]).is_dir():
            unpack(VMCORES / named[1], ROOT / "build" / "vmcores")


# ---------------------------------------------------------------- blocks


class Step(NamedTuple):
    """A command and what its page shows of it."""

    source: list[str]
    shown: list[str]


def _steps(block: Block, first: tuple[str, ...], more: str) -> Iterator[Step]:
    """Commands begin with *first*; lines with *more* go on with one, as does what follows a backslash."""
    step: Optional[Step] = None
    lines = block.text.splitlines()
    for line in lines:
        if line.startswith(first):
            if step:
                yield step
            step = Step([line], [])
        elif step is None:
            raise DocError(f"line {block.first + 1}: output without a command")
        elif not step.shown and (
            step.source[-1].endswith("\\") or (more and f"{line} ".startswith(more))
        ):
            step.source.append(line)
        else:
            step.shown.append(line)
    if step:
        yield step


def _console(session: Session, block: Block) -> Iterator[tuple[Step, str]]:
    steps = list(_steps(block, ("$ ",), "> "))
    for step, after in zip(steps, [*steps[1:], None]):
        first, *more = step.source
        lines = [first[2:], *(line.removeprefix("> ") for line in more)]
        printed = session.shell("\n".join(lines).replace("\\\n", ""))
        asked = after is not None and after.source == ["$ echo $?"]
        if session.status and not printed and not asked:
            raise DocError(
                f"{lines[0]}: exit status {session.status} and nothing printed: show it with echo $?"
            )
        yield step, printed


def _pycon(session: Session, block: Block) -> Iterator[tuple[Step, str]]:
    for step in _steps(block, (_PYTHON, _CRASH), "... "):
        source = "\n".join(
            line if line.startswith(_CRASH) else line[len(_PYTHON) :] for line in step.source
        )
        yield step, session.prompt(source if len(step.source) == 1 else source + "\n")


def _replayed(session: Session, block: Block, run: Any) -> list[str]:
    """A block as its page would show it now: its own lines where they agree."""
    lines: list[str] = []
    for step, printed in run(session, block):
        lines += [*step.source, *healed(step.shown, printed.splitlines())]
    return indented(block, lines)


def indented(block: Block, lines: list[str]) -> list[str]:
    """Lines as they stand in the block."""
    return [f"{block.indent}{line}".rstrip() for line in lines]


def usage_commands(line: str) -> list[str]:
    """A usage line with every [part] and without any."""
    command = re.split(r"  +", line.strip(), maxsplit=1)[0]
    return list(dict.fromkeys([re.sub(r"[][]", "", command), re.sub(r" *\[[^]]*\]", "", command)]))


def check_usage(session: Session, line: str) -> None:
    """Run a usage line, or check the words of one that needs a live kernel.

    :raises DocError: it is refused
    """
    from zonedev.commands import build_parser

    for command in usage_commands(line):
        words = shlex.split(command)
        filled = PLACEHOLDERS if "VMLINUX" in words else {**PLACEHOLDERS, **_WITH_TYPES}
        if _LIVE & set(words):
            build_parser("zonedev", True).parse_args(words[1:])
            continue
        if "diff" in words:
            for report in ("BEFORE", "AFTER"):
                session.shell(_AUDIT_TO.format(**PLACEHOLDERS) + PLACEHOLDERS[report])
        words = [filled.get(word, word) for word in words]
        if words[0].startswith("%"):
            if "prog" not in session.names:
                session.take(_USAGE_CORE)
            printed = session.prompt(" ".join(words))
            failed = "Error: " in printed
        elif words[0] == "zonedev":
            printed = session.shell(shlex.join(words).replace("'>'", ">"))
            failed = session.status == 2
        else:
            raise DocError(f"{command}: usage is of zonedev only")
        if failed:
            raise DocError(f"{command}: {printed.strip()}")


def replay(session: Session, block: Block, output: Optional[Block]) -> Optional[list[str]]:
    """Run one block: its lines (or those of its block of output) as they are printed now.

    :raises DocError: it is not an example as they are to be, or fails
    """
    if block.core:
        session.take(block.core)
    if block.kind == "console":
        return _replayed(session, block, _console)
    if block.kind == "pycon":
        return _replayed(session, block, _pycon)
    if block.kind == "python":
        printed = session.python(block.text).splitlines()
        if output:
            return indented(output, healed(output.text.splitlines(), printed))
        if printed:
            raise DocError("it prints, and no block of the kind output follows: " + printed[0])
        return None
    if block.kind == "usage":
        for line in block.text.splitlines():
            if line.startswith(("zonedev ", "%zonedev ")):
                check_usage(session, line)
            elif line.strip() and not line.startswith("  "):
                raise DocError(f"{line}: usage is of zonedev only")
    elif block.kind == "json":
        json.loads(block.text)
    elif block.kind == "text":
        commands = [line for line in block.text.splitlines() if _COMMAND.match(line)]
        if commands:
            raise DocError(f"looks like a command in a block of text: {commands[0]}")
    else:
        raise DocError(
            f"a block of the kind {block.kind!r}; kinds are told in scripts/doc_examples.py"
        )
    return None


def replay_page(text: str) -> str:
    """A page as it would read with what its examples print now.

    :raises DocError: an example is refused, with its line
    """
    lines = text.splitlines()
    shift = 0
    with tempfile.TemporaryDirectory(prefix="zonedev-docs-") as directory:
        session = Session(Path(directory))
        found = [block for block in blocks(text) if is_example(block)]
        for block, after in zip(found, [*found[1:], None]):
            if block.not_run or block.kind == "output":
                continue
            output = after if after and after.kind == "output" else None
            try:
                now = replay(session, block, output)
            except DocError as err:
                raise DocError(f"line {block.first + 1}: {err}") from None
            if now is None:
                continue
            shown = output if block.kind == "python" and output else block
            begin = shown.first + shift
            lines[begin : begin + len(shown.lines)] = now
            shift += len(now) - len(shown.lines)
    return "\n".join(lines) + "\n"


def difference(path: Path) -> str:
    """What a page shows, against what its examples print; empty where they agree."""
    text = path.read_text()
    name = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
    again = replay_page(text)
    return "".join(
        difflib.unified_diff(
            text.splitlines(True),
            again.splitlines(True),
            f"{name}, as shown",
            f"{name}, as printed",
        )
    )


def main(words: list[str]) -> int:
    """The program: exit status 1 where a page shows something else than is printed."""
    write = "--write" in words
    named = [Path(word).resolve() for word in words if word != "--write"]
    status = 0
    for path in named or pages():
        try:
            if write:
                path.write_text(replay_page(path.read_text()))
            elif text := difference(path):
                status = 1
                print(text, end="")
        except DocError as err:
            status = 1
            print(f"{path}: {err}")
    return status


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main(sys.argv[1:]))
