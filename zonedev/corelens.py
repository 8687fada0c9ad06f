# SPDX-License-Identifier: LGPL-2.1-or-later
"""A corelens module (drgn-tools): `corelens VMCORE -M zonedev`, and part of its reports.

corelens finds modules that are imported, and imports its own only.  At drgn's prompt plugin.py does so; where corelens is
run as a program, `python -m zonedev.corelens VMCORE ...` is corelens with this module in it.
What it prints is what `zonedev audit` prints; violations are no error of corelens, whose exit status stays its own.
"""

from __future__ import annotations

import argparse

from drgn import Program
from drgn_tools.corelens import CorelensModule, main


class Zonedev(CorelensModule):  # type: ignore[misc]
    """Audit the struct pages of ZONE_DEVICE memory (pmem, DAX, device memory, P2PDMA)"""

    name = "zonedev"

    def add_args(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of zonedev audit that make sense in a report."""
        from zonedev.model import SEVERITIES

        parser.add_argument(
            "--severity",
            choices=SEVERITIES,
            default="warning",
            help="lowest severity to show (default: warning)",
        )
        parser.add_argument(
            "--quick", action="store_true", help="struct pages only, not files and drivers"
        )
        parser.add_argument(
            "--explain", action="store_true", help="who holds the pages of the worst findings"
        )

    def run(self, prog: Program, args: argparse.Namespace) -> None:
        """Print the report."""
        from zonedev.audit import audit
        from zonedev.report.text import audit_text

        result = audit(prog, quick=args.quick, explain=args.explain)
        print(audit_text(result, args.severity), end="")


if __name__ == "__main__":
    main()
