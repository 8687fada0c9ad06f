# SPDX-License-Identifier: LGPL-2.1-or-later
"""The `zonedev` program: names a target, opens it, runs a verb, exits with its status.

The report goes to stdout, everything else to stderr.  An error is one line and exit status 2, and so
is a defect of zonedev itself (ZONEDEV_DEBUG=1 shows its traceback).
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Optional

from drgn import FaultError, Program

from zonedev import _zonedev, commands
from zonedev.errors import UsageError, ZonedevError
from zonedev.kernel.btf import types_from
from zonedev.kernel.strings import printable
from zonedev.target import Target, btf_of_file, check_kernel, open_target

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


def completion_text() -> str:
    """The script that has bash complete verbs, options and their values."""
    from zonedev.completion import bash_completion

    return bash_completion(commands.build_parser("zonedev", True))


# Words that stand alone, and what they print.
_ALONE: dict[tuple[str, ...], Callable[[], str]] = {
    ("--version",): version_text,
    ("--completion", "bash"): completion_text,
}


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
    if args.btf and args.symbols:
        raise UsageError(
            "--btf takes the types that the kernel has of itself, -s those of a debug file: give one of them"
        )
    return Target(core or args.core, args.symbols, args.kernel, args.qemu, btf=args.btf)


def _read_stacks(prog: Program) -> None:
    """Read the stacks of all tasks, for those who record what is read."""
    from zonedev.kernel.dax_lock import each_stack

    try:
        for _ in each_stack(prog):
            pass
    except (FaultError, LookupError, ValueError) as err:
        raise UsageError(f"--with tasks: the stacks of tasks cannot be found: {err}") from None


def _slice(target: Target, args: argparse.Namespace) -> int:
    from zonedev.audit import audit
    from zonedev.explain import Explainer
    from zonedev.report.data import audit_dict, explain_dict
    from zonedev.slice import slice_core
    from zonedev.slice_btf import slice_btf
    from zonedev.waiters import waiters

    if target.core is None:
        raise UsageError("slice needs a VMCORE: a live kernel cannot be cut")
    core = target.core
    by_btf = types_from(open_target(target)) == "btf"
    if not by_btf and not target.symbols:
        # What drgn finds by itself is not cut; the types that the kernel has are.
        target.btf = by_btf = True
        open_target(target)

    def run(prog: Program) -> dict[str, object]:
        check_kernel(prog, target)
        if "tasks" in args.extra:
            _read_stacks(prog)
            waiters(prog)
        report = audit_dict(audit(prog, explain="explain" in args.extra))
        if args.page:
            explainer = Explainer(prog)
            report["pages"] = [explain_dict(explainer.explain(page)) for page in args.page]
        return {
            key: value for key, value in report.items() if key not in ("timing", "target", "tool")
        }

    try:
        if by_btf:
            result = slice_btf(core, args.output, run, btf_of_file(target))
        else:
            result = slice_core(core, target.symbols, args.output, run)
    except OSError as err:
        raise UsageError(
            f"-o {args.output}: cannot be written: {err.strerror or err}; give a directory, or the name of a new one"
        ) from None
    sys.stdout.write(f"{result.core}: {result.frames} page frames, {result.core_size} bytes\n")
    if result.debug_files:
        sys.stdout.write(f"{result.debug_files[0]}: {result.debug_size} bytes\n")
    return 0


def _run(argv: Sequence[str]) -> int:
    parser = commands.build_parser("zonedev", True)
    args = parser.parse_args(commands.help_words(argv))
    without_target = commands.WITHOUT_TARGET.get(args.verb)
    target_given = args.core or args.kernel or args.qemu or getattr(args, "vmcore", None)
    if without_target and (not target_given or getattr(args, "reports", None)):
        return without_target(args).exit_code
    target = _target(args)
    if args.verb == "slice":
        return _slice(target, args)
    prog = open_target(target)
    return commands.run_verb(prog, args, target).exit_code


def _fail(message: str) -> int:
    """One line on stderr."""
    if sys.stderr is not None:
        sys.stderr.write(f"zonedev: error: {printable(' '.join(message.splitlines()))}\n")
    return EXIT_ERROR


def _silence_stdout() -> None:
    """Keep Python from complaining at exit about a stdout that is gone or full."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _guarded(argv: Sequence[str]) -> int:
    """Run, and turn what is the user's or the file's fault into one line."""
    try:
        status = _run(argv)
        sys.stdout.flush()
        return status
    except ZonedevError as err:
        return _fail(str(err))
    except BrokenPipeError:
        # The reader went away, as `| head` does.
        _silence_stdout()
        return EXIT_ERROR
    except OSError as err:
        _silence_stdout()
        return _fail(f"{err.filename or 'stdout'}: {err.strerror or err}; nothing more was written")
    except FaultError as err:
        return _fail(f"memory that is needed cannot be read: {err}; the core is damaged or cut off")
    except KeyboardInterrupt:
        sys.stderr.write("zonedev: interrupted\n")
        return EXIT_INCOMPLETE


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the program; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    # What drgn logs about missing modules and wrong files is checked and said by target.py.
    logging.getLogger("drgn").setLevel(logging.CRITICAL)
    if sys.stdout is None:
        return _fail("stdout is closed; give it somewhere to go")
    # libkdumpfile maps dumps: what a damaged one points to may not be there.
    _zonedev.guard_sigbus(
        "zonedev: error: the core points behind its own end: it is damaged or cut off; copy it again\n"
    )
    try:
        if tuple(argv) in _ALONE:
            sys.stdout.write(_ALONE[tuple(argv)]())
            return 0
        return _guarded(argv)
    # A defect of zonedev must not look like a verdict (exit status 1).
    except Exception as err:
        if os.environ.get("ZONEDEV_DEBUG"):
            raise
        return _fail(
            f"internal error: {type(err).__name__}: {err}; ZONEDEV_DEBUG=1 shows where, please report it"
        )


if __name__ == "__main__":
    sys.exit(main())
