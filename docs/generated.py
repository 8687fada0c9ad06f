# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pages that are made out of what they describe, as Markdown: commands, schemas, the list of topics.

commands: out of the parser of zonedev/commands.py, so that a new verb or option is there by itself.
schemas: out of docs/*.schema.json.  topics: the pages of docs/ that stand nowhere else.
"""

from __future__ import annotations

import argparse
import json
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

from zonedev.commands import build_parser

HERE = Path(__file__).resolve().parent

# Pages of docs/ that have their place in index.md.
PLACED = {"index", "tutorial", "rules", "schemes", "design"}

# Pages in the order in which they are listed; others follow by name.
HOWTOS = ("hung-removal", "blocked-truncate", "device-memory", "nightly", "after-each-test")
TOPICS = ("drgn", "explain", "diff", "pictures", "scripts", "btf", "entries", "drivers", "passes")
RESULTS = ("support", "precision", "performance", "reading", "corrections", "changelog")


# ---------------------------------------------------------------- commands


def verbs() -> dict[str, tuple[str, argparse.ArgumentParser]]:
    """What is said of each verb, and its parser."""
    parser = build_parser("zonedev", True)
    (action,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    said = {choice.dest: choice.help or "" for choice in action._choices_actions}
    return {name: (said[name], sub) for name, sub in action.choices.items()}


def escape(text: str) -> str:
    """Text of a help string as Markdown: its words, with no markup but that of options."""
    text = re.sub(r"([\\`*_<>\[\]|])", r"\\\1", text)
    return re.sub(r"(?<![\w-])(--?[a-z][a-z-]*)", r"`\1`", text)


def option_names(action: argparse.Action) -> str:
    """How an argument is written: `-s FILE, --symbols FILE`."""
    if action.choices and action.option_strings:
        value = "|".join(map(str, action.choices))
    elif isinstance(action.metavar, str):
        value = action.metavar
    else:
        value = action.dest.upper() if action.nargs != 0 else ""
    if not action.option_strings:
        return value
    return ", ".join(f"{name} {value}".strip() for name in action.option_strings)


def option_text(action: argparse.Action) -> str:
    """What is said of an argument."""
    return escape((action.help or "") % {**vars(action), "prog": "zonedev"})


def epilog(text: str) -> Iterator[str]:
    """What stands below the options of a verb: words, and indented lines as they are."""
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        for is_code, lines in _runs(paragraph.splitlines()):
            body = "\n".join(lines)
            yield f"```text\n{textwrap.dedent(body)}\n```" if is_code else _sentence(body)


def _runs(lines: list[str]) -> Iterator[tuple[bool, list[str]]]:
    run: list[str] = []
    for line in lines:
        if run and run[0].startswith(" ") != line.startswith(" "):
            yield run[0].startswith(" "), run
            run = []
        run.append(line)
    if run:
        yield run[0].startswith(" "), run


def _sentence(text: str) -> str:
    """Words of a help text as a sentence."""
    text = escape(text.strip())
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", ":")) else ".")


def verb_markdown(name: str, said: str, parser: argparse.ArgumentParser, level: int) -> str:
    """One verb: what it does, how it is called, its arguments by groups, its exit status."""
    hashes = "#" * level
    usage = parser.format_usage().removeprefix("usage: ").rstrip()
    parts = [f"{hashes} zonedev {name}", _sentence(said), f"```text\n{usage}\n```"]
    if any(map(_is_target, parser._action_groups)):
        parts.append("Takes a [target](#target).")
    for group in parser._action_groups:
        title = {"positional arguments": "arguments"}.get(group.title or "", group.title or "")
        if _is_target(group):
            continue
        if arguments := list(_arguments(group)):
            parts += [f"**{title[:1].upper()}{title[1:]}**", *arguments]
    parts += epilog(parser.epilog or "")
    return "\n\n".join(parts)


def _is_target(group: argparse._ArgumentGroup) -> bool:
    return (group.title or "").startswith("target")


def _arguments(group: argparse._ArgumentGroup) -> Iterator[str]:
    """The arguments of a group, each with what is said of it."""
    for action in group._group_actions:
        if action.help is not argparse.SUPPRESS and action.dest != "help":
            yield f"`{option_names(action)}`\n: {option_text(action) or 'see above'}"


def target_options() -> str:
    """What names a target, the same for each verb that takes one."""
    groups = [group for _, parser in verbs().values() for group in parser._action_groups]
    targets = [list(_arguments(group)) for group in groups if _is_target(group)]
    return "\n\n".join(max(targets, key=len))


def commands(level: int = 2) -> str:
    """All verbs."""
    return "\n\n".join(
        verb_markdown(name, said, parser, level) for name, (said, parser) in verbs().items()
    )


def command_list() -> str:
    """The verbs in a table."""
    rows = [f"| [zonedev {n}](#zonedev-{n}) | {escape(said)} |" for n, (said, _) in verbs().items()]
    return "\n".join(["| | |", "|---|---|", *rows])


def man_commands() -> str:
    """All verbs, as sections of the man page."""
    return commands(3)


# ---------------------------------------------------------------- schemas


def _resolved(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        name = node["$ref"].rsplit("/", 1)[1]
        more = {key: value for key, value in node.items() if key != "$ref"}
        node = {**schema["$defs"][name], **more}
    return node


def type_words(schema: dict[str, Any], node: dict[str, Any]) -> str:
    """What a field may be, in words."""
    node = _resolved(schema, node)
    if "const" in node:
        return f"`{json.dumps(node['const'])}`"
    if "enum" in node:
        return ", ".join(f"`{json.dumps(value)}`" for value in node["enum"])
    if "oneOf" in node or "anyOf" in node:
        return " or ".join(type_words(schema, one) for one in node.get("oneOf") or node["anyOf"])
    kind = node.get("type", "any")
    kinds = kind if isinstance(kind, list) else [kind]
    words = " or ".join("null" if one == "null" else str(one) for one in kinds)
    if node.get("minimum") == 0:
        words = words.replace("integer", "integer, 0 or more")
    if kind == "array":
        items = _resolved(schema, node.get("items", {}))
        return f"array of {_plural(type_words(schema, items))}"
    return words


def _plural(words: str) -> str:
    return re.sub(r"^(object|string|integer|number|array)\b", r"\1s", words)


def fields(
    schema: dict[str, Any], node: dict[str, Any], path: str = ""
) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """The fields of an object and of what is in them: path, its schema, whether it is always there."""
    node = _resolved(schema, node)
    for branch in (*node.get("oneOf", ()), *node.get("anyOf", ())):
        yield from fields(schema, branch, path)
    if node.get("type") == "array" or "items" in node:
        yield from fields(schema, node.get("items", {}), f"{path}[]")
    required = node.get("required", ())
    for name, child in node.get("properties", {}).items():
        where = f"{path}.{name}" if path else name
        yield where, child, name in required
        yield from fields(schema, child, where)


def schema_markdown(path: Path) -> str:
    """One schema: a table of its fields."""
    schema = json.loads(path.read_text())
    parts = [
        f"## {schema['title']}",
        f"{escape(schema.get('description', ''))} Schema: `docs/{path.name}`.",
    ]
    rows = ["| field | what it may be | |", "|---|---|---|"]
    seen: set[str] = set()
    for where, node, always in fields(schema, schema):
        if where in seen:
            continue
        seen.add(where)
        said = node.get("description", "")
        text = "; ".join(filter(None, (said, "" if always else "may be absent")))
        rows.append(
            f"| `{where}` | {escape_cell(type_words(schema, node))} | {escape_cell(text)} |"
        )
    return "\n\n".join([*parts, "\n".join(rows)])


def escape_cell(text: str) -> str:
    """Text of a cell."""
    return text.replace("|", "\\|")


def schemas() -> str:
    """All schemas."""
    return "\n\n".join(schema_markdown(path) for path in sorted(HERE.glob("*.schema.json")))


# ---------------------------------------------------------------- topics


def _toctree(caption: str, known: tuple[str, ...], folder: str = "", rest: bool = False) -> str:
    """A list of pages in the sidebar: the known ones that are there, then the rest of the folder by name."""
    there = sorted(path.stem for path in (HERE / folder).glob("*.md"))
    if not (HERE.parent / "CHANGELOG.md").exists():
        there = [name for name in there if name != "changelog"]
    names = [name for name in known if name in there]
    if rest:
        placed = {*PLACED, *TOPICS, *RESULTS, *HOWTOS}
        names += [name for name in there if name not in placed]
    lines = "\n".join(f"{folder}{name}" for name in names)
    return f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{lines}\n```"


def howtos() -> str:
    """The pages of docs/howto/."""
    return _toctree("How to", HOWTOS, "howto/", rest=True)


def topics() -> str:
    """The pages on how zonedev works and is used."""
    return _toctree("In depth", TOPICS, rest=True)


def results() -> str:
    """The pages on what was measured and tried."""
    return _toctree("Tried and measured", RESULTS)


GENERATORS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "command-list": command_list,
    "man-commands": man_commands,
    "target": target_options,
    "schemas": schemas,
    "howtos": howtos,
    "topics": topics,
    "results": results,
}
