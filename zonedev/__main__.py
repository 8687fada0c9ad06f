# SPDX-License-Identifier: LGPL-2.1-or-later
"""python -m zonedev."""

import sys

from zonedev.cli import main

sys.exit(main())
