# SPDX-License-Identifier: LGPL-2.1-or-later
"""Warnings of the device-memory code that are still in the kernel's log buffer.

The kernel often said itself what went wrong: a WARN of fs/dax.c or mm/memremap.c is quoted beside
the findings.  A log that cannot be read is no error.
"""

from __future__ import annotations

import re

from drgn import Program, sizeof
from drgn.helpers.linux.printk import get_printk_records

from zonedev.kernel.gaps import ERRORS
from zonedev.kernel.strings import text_of

_MAX_LINES = 50

# Bounds for numbers out of a dump; the largest log buffer that can be configured has 2 GiB.
_MAX_BITS = 31
_MAX_RECORDS = 1 << 20

# The two highest bits of a descriptor's number are its state (include/linux/printk_ringbuffer.h).
_STATE_BITS = 2

# Where a record of an old log says in two bytes how long it is: behind the time stamp.
_LENGTH_AT = 8

# Source files whose warnings are about ZONE_DEVICE pages.
_SOURCES = re.compile(
    r"\b(?:fs/dax\.c|mm/memremap\.c|kernel/memremap\.c|mm/memory-failure\.c|mm/migrate_device\.c"
    r"|mm/sparse-vmemmap\.c|drivers/dax/|drivers/nvdimm/|drivers/pci/p2pdma\.c)"
)


def _ring_ends(prog: Program) -> bool:
    """False where the numbers of a ring of descriptors (since 5.10) cannot be: walking it would not end."""
    ring, text = prog["prb"].desc_ring, prog["prb"].text_data_ring
    bits = int(ring.count_bits)
    if bits > _MAX_BITS or int(text.size_bits) > _MAX_BITS:
        return False
    word = 8 * sizeof(ring.head_id)
    distance = int(ring.head_id.counter) - int(ring.tail_id.counter)
    return bool(distance % (1 << word - _STATE_BITS) < 1 << bits)


def _chain_ends(prog: Program) -> bool:
    """False where the records of an old log do not lead from the first to behind the last."""
    buffer = int(prog.object("log_buf", filename="printk.c"))
    index, end = int(prog["log_first_idx"]), int(prog["log_next_idx"])
    for _ in range(_MAX_RECORDS):
        if index == end:
            return True
        length = prog.read_u16(buffer + index + _LENGTH_AT)
        if index < end < index + length:
            return False
        # A record of no length says that the next one stands at the beginning.
        index = index + length if length else 0
    return False


def _has_end(prog: Program) -> bool:
    """True where a walk over the records comes to an end."""
    try:
        prog["prb"]
    except LookupError:
        return _chain_ends(prog)
    return _ring_ends(prog)


def kernel_log_warnings(prog: Program) -> list[str]:
    """Lines of the log that speak of device memory, "[seconds] text", oldest first, at most 50."""
    lines: list[str] = []
    try:
        if not _has_end(prog):
            return lines
        for record in get_printk_records(prog):
            text = text_of(record.text)
            if ("WARNING:" in text or "BUG" in text) and _SOURCES.search(text):
                lines.append(f"[{record.timestamp / 1e9:13.6f}] {text}")
    except ERRORS:
        return lines[:_MAX_LINES]
    return lines[:_MAX_LINES]
