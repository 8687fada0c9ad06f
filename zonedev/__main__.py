# SPDX-License-Identifier: LGPL-2.1-or-later
"""The program's beginning, and python -m zonedev: what has to be before drgn is loaded."""

import os
import sys


def main() -> int:
    """The `zonedev` program; returns its exit status."""
    # Once drgn has indexed debug information, threads of libgomp go on spinning, and take a processor from those that
    # read struct pages.  It asks for this when it is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from zonedev import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
