# SPDX-License-Identifier: LGPL-2.1-or-later
"""Entry point of the group drgn.plugins: registers %zonedev, in drgn and in its crash mode.

drgn imports this at every start, on user-space targets too: nothing heavy is imported here, and the
command is enabled for Linux kernels only.  The extension and the rest load when the command runs.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from typing import Any

_DESCRIPTION = "audit the struct pages of ZONE_DEVICE memory"
_VERBS = "list|audit|map|page|explain|files|waiters|scheme|rules|diff|help"
_ABOUT = (
    "This judges every struct page of every dev_pagemap (pmem, DAX, device memory, P2PDMA) and"
    " returns the result. Use {name} help for the verbs and their arguments, {name} help VERB for one of"
    " them; each takes --drgn, which prints the equivalent Python."
)


def _complete_at_prompt() -> None:
    if "drgn.internal.repl" in sys.modules:
        from zonedev.completion import complete_at_prompt

        complete_at_prompt()


def _run(name: str, prog: Any, args: Any) -> Any:
    """Run a verb; *name* is what the command is called at that prompt."""
    from drgn.commands import CommandArgumentError, CommandError

    from zonedev.commands import build_parser, help_words, run_verb
    from zonedev.errors import UsageError, ZonedevError

    _complete_at_prompt()
    try:
        words = help_words(list(args) or ["help"])
        return run_verb(prog, build_parser(name, False).parse_args(words)).result
    except UsageError as err:
        raise CommandArgumentError(str(err)) from None
    except ZonedevError as err:
        raise CommandError(str(err)) from None
    except SystemExit:
        # --help has printed what it had to.
        return None


def _register(decorator: Any, prompt_name: str) -> None:
    """Register the command with one of drgn's decorators."""
    from drgn.commands import parse_shell_command

    @decorator(  # type: ignore[untyped-decorator]
        name="zonedev",
        description=_DESCRIPTION,
        usage=f"**zonedev** {_VERBS} [*ARGUMENTS*]",
        long_description=_ABOUT.format(name=prompt_name),
        parse=parse_shell_command,
    )
    def _cmd_zonedev(prog: Any, name: str, args: Any, **kwargs: Any) -> Any:
        return _run(prompt_name, prog, args)


try:
    from drgn.commands.linux import linux_kernel_custom_command
except ImportError:
    # drgn before 0.0.33 has no commands; the Python API works there all the same.
    pass
else:
    _register(linux_kernel_custom_command, "%zonedev")


@functools.cache
def _register_in_crash_mode() -> None:
    """Crash mode has its commands apart, in a module that is private: where that changes, drgn's own command is left."""
    common: Any = sys.modules["drgn.commands._crash.common"]
    with contextlib.suppress(ImportError, AttributeError, TypeError):
        _register(common.crash_custom_command, "zonedev")


def drgn_prog_set(prog: Any) -> None:
    """Called by drgn when a Program has its target: what only a prompt and other plugins need."""
    from drgn import ProgramFlags

    if not prog.flags & ProgramFlags.IS_LINUX_KERNEL:
        return
    # All plugins are loaded by now, drgn's own crash mode among them: what is not loaded is not used.
    if "drgn.commands._crash.common" in sys.modules:
        _register_in_crash_mode()
    _complete_at_prompt()
    # Its modules find ours only where they are loaded already, as by its own plugin, which comes first.
    if "drgn_tools.corelens" in sys.modules:
        with contextlib.suppress(ImportError):
            import zonedev.corelens  # noqa: F401
