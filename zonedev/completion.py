# SPDX-License-Identifier: LGPL-2.1-or-later
"""Completion of verbs, options and their values: at drgn's prompt, in its crash mode, and in bash.

All of it is asked of the parser.  drgn completes Python only: its completer is kept, and asked for every line that is not
ours.  Imported at drgn's start: what it needs of zonedev loads when somebody presses Tab.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Optional

_OURS = re.compile(r"\s*%?(?:crash\s+)?zonedev\s+(?P<words>.*)")

Complete = Callable[[str, int], Optional[str]]


def _subparsers(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices
    return {}


def _values(action: argparse.Action) -> list[str]:
    """What may follow an option, or stand as an argument, as far as it is known."""
    from zonedev import _zonedev
    from zonedev.model import short_type

    if action.choices is not None:
        return list(map(str, action.choices))
    if action.metavar == "RULE":
        return list(dict.fromkeys(row["id"] for row in _zonedev.rules()))
    if action.metavar == "TYPE":
        return [short_type(name).lower() for name in _zonedev.TYPES]
    return []


def _options(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    return {name: action for action in parser._actions for name in action.option_strings}


def _arguments(parser: argparse.ArgumentParser) -> list[str]:
    """What is known of arguments that are no options."""
    return [v for action in parser._actions if not action.option_strings for v in _values(action)]


def candidates(parser: argparse.ArgumentParser, words: Sequence[str], word: str) -> list[str]:
    """
    What a word may become.

    :param words: those before it, behind the program's name
    :param word: as far as it was typed
    """
    verbs = _subparsers(parser)
    if not words or words == ["help"]:
        found: Iterable[str] = verbs if words else [*verbs, "help"]
    elif words[0] not in verbs:
        found = []
    else:
        options = _options(verbs[words[0]])
        last = options.get(words[-1])
        if last is not None and last.nargs != 0:
            found = _values(last)
        elif word.startswith("-"):
            found = options
        else:
            found = _arguments(verbs[words[0]]) or (options if not word else [])
    return sorted(one for one in found if one.startswith(word))


# ---------------------------------------------------------------- drgn's prompt


class _Completer:
    """Completes lines that are ours, and leaves the others to whom they were left before."""

    def __init__(self, readline: Any, inner: Optional[Complete]) -> None:
        self._readline, self._inner = readline, inner
        self._found: Optional[list[str]] = None

    def _matches(self, text: str) -> Optional[list[str]]:
        """Completions of *text*, the end of the last word; None where the line is not ours."""
        line = self._readline.get_line_buffer()[: self._readline.get_endidx()]
        match = _OURS.fullmatch(line)
        if match is None:
            return None
        from zonedev.commands import build_parser

        *words, word = match["words"].split(" ")
        words = [one for one in words if one]
        found = candidates(build_parser("%zonedev", False), words, word)
        # Readline begins a new word at a hyphen, too.
        return [one[len(word) - len(text) :] + " " for one in found]

    def __call__(self, text: str, state: int) -> Optional[str]:
        if state == 0:
            self._found = self._matches(text)
        if self._found is None:
            return self._inner(text, state) if self._inner else None
        return self._found[state] if state < len(self._found) else None


def complete_at_prompt() -> None:
    """Have drgn's prompt complete our command: now where it has begun, and from its next line on."""
    try:
        from drgn.internal.repl import readline
    except ImportError:
        return

    def wrap() -> None:
        inner = readline.get_completer()
        if inner is not None and not isinstance(inner, _Completer):
            readline.set_completer(_Completer(readline, inner))

    wrap()
    # drgn and its crash mode set their completers when they begin: after us.
    if hasattr(readline, "set_startup_hook"):
        readline.set_startup_hook(wrap)


# ---------------------------------------------------------------- bash

_BASH = """\
# bash completion of zonedev: eval "$(zonedev --completion bash)"
_zonedev() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} words=
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        words="{verbs}"
    else
        case ${{COMP_WORDS[1]}}:$prev in
{values}
        *)
            case ${{COMP_WORDS[1]}}:$cur in
{options}
            esac ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
}}
complete -o default -F _zonedev zonedev
"""


def bash_completion(parser: argparse.ArgumentParser) -> str:
    """A script for bash, which knows what the parser knows."""
    values, options = [], []
    for verb, sub in _subparsers(parser).items():
        for name, action in _options(sub).items():
            if action.nargs != 0:
                words = " ".join(_values(action))
                values.append(f'        {verb}:{name}) words="{words}" ;;')
        options.append(f'            {verb}:-*) words="{" ".join(_options(sub))}" ;;')
        arguments = " ".join(_arguments(sub))
        if arguments:
            options.append(f'            {verb}:*) words="{arguments}" ;;')
    verbs = " ".join(_subparsers(parser))
    options.append(f'            help:*) words="{verbs}" ;;')
    return _BASH.format(verbs=f"{verbs} help", values="\n".join(values), options="\n".join(options))
