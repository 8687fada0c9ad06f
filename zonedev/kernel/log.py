# SPDX-License-Identifier: LGPL-2.1-or-later
"""Warnings of the device-memory code that are still in the kernel's log buffer.

The kernel often said itself what went wrong: a WARN of fs/dax.c or mm/memremap.c is quoted beside
the findings.  A log that cannot be read is no error.
"""

from __future__ import annotations

import re

from drgn import FaultError, Program
from drgn.helpers.linux.printk import get_printk_records

_MAX_LINES = 50

# Source files whose warnings are about ZONE_DEVICE pages.
_SOURCES = re.compile(
    r"\b(?:fs/dax\.c|mm/memremap\.c|kernel/memremap\.c|mm/memory-failure\.c|mm/migrate_device\.c"
    r"|mm/sparse-vmemmap\.c|drivers/dax/|drivers/nvdimm/|drivers/pci/p2pdma\.c)"
)


def kernel_log_warnings(prog: Program) -> list[str]:
    """Lines of the log that speak of device memory, "[seconds] text", oldest first, at most 50."""
    lines = []
    try:
        for record in get_printk_records(prog):
            text = record.text.decode(errors="replace")
            if ("WARNING:" in text or "BUG" in text) and _SOURCES.search(text):
                lines.append(f"[{record.timestamp / 1e9:13.6f}] {text}")
    except (LookupError, FaultError, ValueError, AttributeError, TypeError):
        return lines[:_MAX_LINES]
    return lines[:_MAX_LINES]
