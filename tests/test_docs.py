# SPDX-License-Identifier: LGPL-2.1-or-later
"""The documentation: every example is run, and what is generated holds what it is generated from.

What a page shows anew is written into it by scripts/doc_examples.py --write; the convention stands there.
"""

from __future__ import annotations

import importlib
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Optional

import doc_examples
import pytest
from conftest import ROOT
from doc_examples import Block, DocError, blocks, is_example, replay_page

from zonedev.commands import build_parser
from zonedev.errors import UsageError

sys.path.append(str(ROOT / "docs"))
import generated

PAGES = [str(path.relative_to(ROOT)) for path in doc_examples.pages()]

# What keeps an example from being run here; every "not run" gives one of these.
REASONS = {
    "boots kernels": "make lab: QEMU, packages of kernels, minutes",
    "installs": "takes the network",
    "changes the machine": "units of systemd, files of the system",
    "takes minutes": "make bench",
    "needs root": "the running kernel",
    "needs drgn-tools": "corelens",
    "needs a test suite": "xfstests, the ndctl suite: devices, kernel modules",
}


def examples(page: str) -> list[Block]:
    return [block for block in blocks((ROOT / page).read_text()) if is_example(block)]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_shows_what_its_examples_print(page: str) -> None:
    try:
        difference = doc_examples.difference(ROOT / page)
    except DocError as err:
        pytest.fail(f"{page}: {err}")
    assert not difference, f"scripts/doc_examples.py --write {page} writes:\n{difference}"


@pytest.mark.parametrize("page", PAGES)
def test_no_example_shows_a_defect(page: str) -> None:
    """What is printed is written into pages: nobody may take an accident for the answer."""
    for word in ("Traceback (most", "internal error:", "UnsupportedOperation"):
        assert word not in (ROOT / page).read_text(), word


def test_what_is_not_run_says_why_and_is_little() -> None:
    every = [block for page in PAGES for block in examples(page)]
    not_run = [block.not_run for block in every if block.not_run]
    assert set(not_run) <= set(REASONS)
    assert len(every) > 20 and len(not_run) * 4 <= len(every)


# Commands within a sentence, with the words that stand for something.
_INLINE = re.compile(r"(?<!`)`%?(zonedev [a-z][^`]*)`(?!`)")
_WORDS = {"N": "1", "SECONDS": "1", "LEVEL": "info"}


@pytest.mark.parametrize("page", PAGES)
def test_commands_within_sentences_are_commands(page: str) -> None:
    parser = build_parser("zonedev", True)
    text = (ROOT / page).read_text()
    verbs = generated.verbs()
    for command in (re.sub(r"[][]|\.\.\.", "", match[1]) for match in _INLINE.finditer(text)):
        words = [_WORDS.get(word, word) for word in shlex.split(command)][1:]
        assert words[0] in verbs or words[0] == "--version", command
        try:
            parser.parse_args(words)
        except UsageError as err:
            # A sentence need not name all.
            assert "arguments are required" in str(err), f"{command}: {err}"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page: str) -> None:
    text = (ROOT / page).read_text()
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not re.match(r"[a-z]+:", link):
            assert ((ROOT / page).parent / link).exists(), link


# ---------------------------------------------------------------- docstrings


def differing_docstrings(source: str, names: dict[str, object], directory: Path) -> list[str]:
    """What examples in the docstrings of a module print, where that is not what they show."""
    found = doc_examples.docstring_examples(source)
    session = doc_examples.Session(directory)
    if found:
        session.take("7.2-explain")
    session.names.update(names)
    return [
        f"line {block.first + 1}: {now}"
        for block in found
        if (now := doc_examples.replay(session, block, None)) != block.lines
    ]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "zonedev").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT))
)
def test_examples_in_docstrings_print_what_they_show(path: Path, tmp_path: Path) -> None:
    source = path.read_text()
    if ">>> " not in source:
        return
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    assert not differing_docstrings(source, vars(module), tmp_path)


def test_an_example_in_a_docstring_is_found_and_told(tmp_path: Path) -> None:
    source = '''
class A:
    def b(self):
        """
        What it does.

        >>> prog["init_uts_ns"].name.release.string_().decode()
        '7.2.12+deb13-amd64'

        >>> n + 1
        1

        >>> for i in range(9):
        ...     i
        ...
        0
        ...
        8

        :raises B: >>> is no example
        """
'''
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    assert differing_docstrings(source, {"n": 0}, tmp_path / "1") == []
    (told,) = differing_docstrings(source, {"n": 1}, tmp_path / "2")
    assert told.startswith("line 4: ") and "'2'" in told and "'1'" not in told


# ---------------------------------------------------------------- the runner


def page(*lines: str) -> str:
    return "\n".join(lines) + "\n"


def console(*lines: str) -> str:
    return page("```console", *lines, "```")


@pytest.mark.parametrize(
    "shown",
    [
        console("$ zonedev rules R01", "reference-on-free-folio (R01)", "[...]"),
        console("$ WHAT=1", "$ test $WHAT = 1", "$ echo $?", "0"),
        console("$ echo a | cat", "a"),
        console("$ echo a \\", "    b", "a b"),
        console("$ for i in 1 2", "> do echo $((i+1))", "> done", "2", "3"),
        console("$ zonedev rules --format json > r.json", "$ head -c 1 r.json", "{"),
        console("$ echo 'read in 0.5 s'", "read in 0.7 s"),
        console("$ false", "$ echo $?", "1"),
        page(
            "```python", "x = 1", "```", "```python", "print(x)", "```", "", "```output", "1", "```"
        ),
        page(
            "```pycon",
            ">>> 1 + 1",
            "2",
            ">>> for i in (1, 2):",
            "...     i",
            "...",
            "1",
            "2",
            "```",
        ),
        page(
            "<!-- core: 7.2-bare -->",
            "```pycon",
            ">>> %zonedev list",
            "[...]",
            ">>> _",
            "[]",
            "```",
        ),
        page(
            "<!-- core: 7.2-explain -->",
            "```pycon",
            "%crash> whatis list_head",
            "[...]",
            "SIZE: 16",
            "```",
        ),
        page("```usage", "zonedev rules [RULE] [--format json]   of rules", "```"),
        page(
            "```usage", "%zonedev rules RULE", "zonedev audit -k    live", "      more of it", "```"
        ),
        page("```json", '{"a": [1]}', "```"),
        page("```text", "words", "```"),
        page("<!-- not run: needs root -->", "```console", "$ exit 1", "```"),
        page("- a list", "", "    goes on", "", "```{note}", "$ of MyST", "```"),
    ],
)
def test_examples_that_are_sound_stay_as_they_are(shown: str) -> None:
    assert replay_page(shown) == shown


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        (console("$ echo b", "a"), console("$ echo b", "b")),
        (console("$ echo b"), console("$ echo b", "b")),
        (console("$ true", "a"), console("$ true")),
        (console("$ echo b", "b", "[...]"), console("$ echo b", "b")),
        (console("$ echo b", "b", "", "c"), console("$ echo b", "b")),
        (console("$ echo 'read 0.5 pages'", "read 0.7 pages"), console("$ echo 'read 0.5 pages'", "read 0.5 pages")),
        (console("$ echo 'in 0.5 s'", "at 0.5 s"), console("$ echo 'in 0.5 s'", "in 0.5 s")),
        (console("$ seq 4", "1", "[...]", "3"), console("$ seq 4", "1", "[...]", "4")),
        (page("- a", "  ```console", "  $ echo b", "  ```"), page("- a", "  ```console", "  $ echo b", "  b", "  ```")),
        (console("$ false", "$ echo $?", "0"), console("$ false", "$ echo $?", "1")),
        (console("$ zonedev rules R99", "x"), None),
        (page("```pycon", ">>> 1 + 1", "3", "```"), page("```pycon", ">>> 1 + 1", "2", "```")),
        (page("```pycon", ">>> 1 / 0", "```"), None),
        (page("```python", "1 / 0", "```", "", "```output", "1", "```"), None),
        (page("```python", "1", "```", "", "```output", "1", "```"), page("```python", "1", "```", "", "```output", "```")),
    ],
)  # fmt: skip
def test_examples_that_show_something_else_are_told(shown: str, printed: Optional[str]) -> None:
    again = replay_page(shown)
    assert again != shown
    assert printed is None or again == printed


@pytest.mark.parametrize(
    ("shown", "why"),
    [
        (console("$ false"), "exit status 1 and nothing printed"),
        (console("$ echo $NOBODY"), "$NOBODY is not set"),
        (console("words", "$ true"), "output without a command"),
        (page("```", "words", "```"), "kind ''"),
        (page("```sh", "true", "```"), "kind 'sh'"),
        (page("```{code-block} sh", "true", "```"), "kind '{code-block} sh'"),
        (page("words", "", "    true"), "line 3: an indented block"),
        (page("```console", "$ true"), "does not end"),
        (page("```text", "zonedev audit", "```"), "looks like a command"),
        (page("```text", "$ true", "```"), "looks like a command"),
        (page("```text", "%crash> sys", "```"), "looks like a command"),
        (page("```python", "print(1)", "```"), "no block of the kind output"),
        (page("```python", "1 / 0", "```"), "ZeroDivisionError"),
        (page("```usage", "ls DIR", "```"), "usage is of zonedev only"),
        (page("```usage", "zonedev rules NONE", "```"), "no rule 'NONE'"),
        (page("```usage", "zonedev rules [NONE]", "```"), "no rule 'NONE'"),
        (page("```usage", "zonedev [rules] RULE", "```"), "reference-on-free-folio"),
        (page("```usage", "zonedev audit -k --nothing", "```"), "--nothing"),
        (page("```usage", "%zonedev nothing", "```"), "nothing"),
    ],
)
def test_examples_that_are_not_to_be_are_refused(shown: str, why: str) -> None:
    with pytest.raises((DocError, UsageError)) as caught:
        replay_page(shown)
    assert why in str(caught.value)


def test_a_reason_holds_for_the_next_block_only() -> None:
    text = page("<!-- not run: needs root -->", "```text", "```", "```console", "$ echo a", "```")
    assert [block.not_run for block in blocks(text)] == ["needs root", None]
    text = page("<!-- not run: needs root -->", "words", "```console", "$ echo a", "```")
    assert [block.not_run for block in blocks(text)] == [None]


def test_the_program_tells_and_heals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.md"
    file.write_text(console("$ seq 2", "a") + console("$ echo c", "d") + "end\n")
    assert doc_examples.main([str(file)]) == 1
    told = capsys.readouterr().out.splitlines()
    assert "-a" in told and "+2" in told
    assert doc_examples.main(["--write", str(file)]) == 0
    assert file.read_text() == console("$ seq 2", "1", "2") + console("$ echo c", "c") + "end\n"
    assert doc_examples.main([str(file)]) == 0


# ---------------------------------------------------------------- what is generated


def test_the_reference_has_every_verb_and_argument() -> None:
    text = generated.commands()
    verbs = generated.verbs()
    assert {"audit", "explain", "waiters", "slice"} <= set(verbs)
    for name, (said, parser) in verbs.items():
        assert f"\n## zonedev {name}\n" in "\n" + text
        assert said and f"(#zonedev-{name})" in generated.command_list()
        chapter = text.split(f"## zonedev {name}\n")[1].split("\n## ")[0]
        chapter += generated.target_options()
        for action in parser._actions:
            if action.dest != "help":
                assert f"`{generated.option_names(action)}`" in chapter


def test_help_texts_are_no_markup() -> None:
    assert generated.escape("a_b *c* <d>|`e`") == r"a\_b \*c\* \<d\>\|\`e\`"
    assert (
        generated.escape("-k, with --fail-on x: read-only") == "`-k`, with `--fail-on` x: read-only"
    )
    told = "\n\n".join(generated.epilog("examples:\n  zonedev a\n    zonedev b\n\nexit status: 0"))
    assert told == "Examples:\n\n```text\nzonedev a\n  zonedev b\n```\n\nExit status: 0."


@pytest.mark.parametrize(
    "path", sorted((ROOT / "docs").glob("*.schema.json")), ids=lambda p: p.name
)
def test_the_reference_has_every_field(path: Path) -> None:
    text = generated.schema_markdown(path)
    names = set(re.findall(r'"([a-z_]+)": \{', path.read_text()))
    schema = json.loads(path.read_text())
    names -= {"properties", "items", *schema["$defs"]} - set(schema["properties"])
    names -= {"propertyNames", "additionalProperties"}
    shown = set(re.findall(r"^\| `(?:[^`]*\.)?([a-z_]+)` \|", text, re.MULTILINE))
    assert names and names <= shown
    assert "`findings[].waiters[].pid`" in text or "`holders[].pid`" in text


def test_pages_are_found_by_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs" / "howto").mkdir(parents=True)
    for name in ("zebra", "explain", "rules", "support", "changelog", "howto/nightly", "howto/a"):
        (tmp_path / "docs" / f"{name}.md").touch()
    monkeypatch.setattr(generated, "HERE", tmp_path / "docs")
    assert generated.topics().endswith("\n\nexplain\nzebra\n```")
    assert generated.results().endswith("\n\nsupport\n```")
    assert generated.howtos().endswith("\n\nhowto/nightly\nhowto/a\n```")
    (tmp_path / "CHANGELOG.md").touch()
    assert generated.results().endswith("\n\nsupport\nchangelog\n```")
