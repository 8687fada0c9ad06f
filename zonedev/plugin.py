# SPDX-License-Identifier: LGPL-2.1-or-later
"""Entry point of the group drgn.plugins: registers %zonedev.

drgn imports this at every start, on user-space targets too: nothing heavy is imported here, and the
command is enabled for Linux kernels only.  The extension and the rest load when the command runs.
"""

from __future__ import annotations

from typing import Any

try:
    from drgn.commands import parse_shell_command
    from drgn.commands.linux import linux_kernel_custom_command
except ImportError:
    # drgn before 0.0.33 has no commands; the Python API works there all the same.
    pass
else:

    @linux_kernel_custom_command(  # type: ignore[untyped-decorator]
        name="zonedev",
        description="audit the struct pages of ZONE_DEVICE memory",
        usage="**zonedev** list|audit|map|page|explain|files|waiters|scheme|rules|diff|help [*ARGUMENTS*]",
        long_description=(
            "This judges every struct page of every dev_pagemap (pmem, DAX, device memory, P2PDMA) and"
            " returns the result. Use `%zonedev help` for the verbs and their arguments."
        ),
        parse=parse_shell_command,
    )
    def _cmd_zonedev(
        prog: Any, name: str, args: Any, *, parser: Any, globals: Any, **kwargs: Any
    ) -> Any:
        from drgn.commands import CommandArgumentError, CommandError

        from zonedev.commands import build_parser, run_verb
        from zonedev.errors import UsageError, ZonedevError

        words = list(args)
        if not words or words[0] in ("help", "--help", "-h"):
            words = [*words[1:2], "--help"]
        try:
            parsed = build_parser("%zonedev", False).parse_args(words)
            return run_verb(prog, parsed).result
        except UsageError as err:
            raise CommandArgumentError(str(err)) from None
        except ZonedevError as err:
            raise CommandError(str(err)) from None
        except SystemExit:
            # --help has printed what it had to.
            return None
