# SPDX-License-Identifier: LGPL-2.1-or-later
"""Symbols, and the formats that kallsyms has had."""

from __future__ import annotations

from zonedev.kallsymsfile import Format, Symbol, Tables

BASE = 0xFFFFFFFF_81000000

SYMBOLS: list[Symbol] = [
    ("T", "_stext", BASE),
    *(("t", f"function_{n}.isra.{n % 7}", BASE + 0x40 * (n + 1)) for n in range(900)),
    ("T", "memremap_pages", BASE + 0x100000),
    ("T", "alias_of_memremap_pages", BASE + 0x100000),
    ("T", "_etext", BASE + 0x180000),
    ("T", "misnamed", BASE + 0x190000),
    ("b", "pgmap_array", BASE + 0x200000),
    ("d", "twice", BASE + 0x200010),
    ("d", "twice", BASE + 0x200020),
    ("B", "_end", BASE + 0x300000),
]


FORMATS = {
    "7.0": Format("place", True, 4),
    "6.4": Format("base", True),
    "6.4-per-cpu": Format("per-cpu", True),
    "6.2": Format("per-cpu", False, seqs=True),
    "5.10": Format("per-cpu", False),
    "5.10-base": Format("base", False),
    "absolute": Format("absolute", False),
    "absolute-behind": Format("absolute", True),
    "big-endian": Format("base", True, order=">"),
    "big-endian-7.0": Format("place", True, 4, ">"),
}


def sample(form: Format, symbols: list[Symbol], address: int = BASE) -> Tables:
    """An image that begins at *address*, with the tables in the middle of other bytes."""
    return Tables(form, symbols, address, b"\xcc" * 4096, b"\xcc" * 512)
