# SPDX-License-Identifier: LGPL-2.1-or-later
"""The `zonedev` program: names a target, opens it, runs a verb, exits with its status.

The report goes to stdout, everything else to stderr.  An error is one line and exit status 2; only a
defect of zonedev itself shows a traceback.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from typing import Optional

from drgn import FaultError, Program

from zonedev import commands
from zonedev.errors import TargetError, UsageError, ZonedevError
from zonedev.target import Target, check_kernel, open_target

EXIT_ERROR = 2
EXIT_INCOMPLETE = 3


def version_text() -> str:
    """zonedev, drgn and the optional libraries that were built in."""
    from zonedev.audit import tool_versions

    versions = tool_versions()
    lines = [f"zonedev {versions['zonedev']}", f"drgn {versions['drgn']}"]
    for library in ("libelf", "libkdumpfile"):
        lines.append(f"{library} {versions[library] or 'not built in'}")
    return "\n".join(lines) + "\n"


def _target(args: argparse.Namespace) -> Target:
    core = getattr(args, "vmcore", None)
    named = [name for name in (core, args.core, args.kernel or None, args.qemu) if name is not None]
    if len(named) > 1:
        raise UsageError(
            "more than one target: give one of VMCORE (or -c VMCORE), -k and --qemu SOCKET"
        )
    if not named:
        raise UsageError(
            "no target: give a VMCORE, -k for the running kernel, or --qemu SOCKET for a guest"
        )
    return Target(core or args.core, args.symbols, args.kernel, args.qemu)


def _slice(target: Target, output: str) -> int:
    from zonedev.audit import audit
    from zonedev.report.data import audit_dict
    from zonedev.slice import slice_core

    if target.core is None:
        raise UsageError("slice needs a VMCORE: a live kernel cannot be cut")
    open_target(target)

    def run(prog: Program) -> dict[str, object]:
        check_kernel(prog, target)
        report = audit_dict(audit(prog))
        return {
            key: value for key, value in report.items() if key not in ("timing", "target", "tool")
        }

    result = slice_core(target.core, target.symbols, output, run)
    sys.stdout.write(f"{result.core}: {result.frames} page frames, {result.core_size} bytes\n")
    sys.stdout.write(f"{result.debug_files[0]}: {result.debug_size} bytes\n")
    return 0


def _run(argv: Sequence[str]) -> int:
    args = commands.build_parser("zonedev", True).parse_args(argv)
    if args.verb == "rules" and not (args.core or args.kernel or args.qemu):
        return commands.rules_verb(args).exit_code
    target = _target(args)
    if args.verb == "slice":
        return _slice(target, args.output)
    prog = open_target(target)
    return commands.run_verb(prog, args, target).exit_code


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the program; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    # What drgn logs about missing modules and wrong files is checked and said by target.py.
    logging.getLogger("drgn").setLevel(logging.CRITICAL)
    if list(argv) == ["--version"]:
        sys.stdout.write(version_text())
        return 0
    try:
        status = _run(argv)
        sys.stdout.flush()
        return status
    except ZonedevError as err:
        message = str(err)
    except BrokenPipeError:
        # The reader went away, as `| head` does; keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except FaultError as err:
        message = str(
            TargetError(
                f"memory that is needed cannot be read: {err}; the core is damaged or cut off"
            )
        )
    except KeyboardInterrupt:
        sys.stderr.write("zonedev: interrupted\n")
        return EXIT_INCOMPLETE
    sys.stderr.write(f"zonedev: error: {' '.join(message.split())}\n")
    return EXIT_ERROR


if __name__ == "__main__":
    sys.exit(main())
