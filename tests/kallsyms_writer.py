# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes the tables of kallsyms as scripts/kallsyms.c does, in the formats that it has had."""

from __future__ import annotations

import struct
from typing import NamedTuple

BASE = 0xFFFFFFFF_81000000

Symbol = tuple[str, str, int]

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


class Format(NamedTuple):
    """How the tables lie and what an entry of the addresses means."""

    encoding: str  # place, base, per-cpu or absolute
    behind: bool  # the addresses stand behind the tokens
    align: int = 8
    order: str = "<"
    seqs: bool = False  # three bytes for each symbol stand behind the markers


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

# Two tokens that stand for more than a character, at codes that no name uses.
TOKENS = {1: "function_", 2: ".isra."}


def compress(text: str) -> bytes:
    data = text.encode()
    for code, token in TOKENS.items():
        data = data.replace(token.encode(), bytes([code]))
    return data


class Tables:
    """An image that begins at *address*, with the tables behind some other bytes."""

    def __init__(self, form: Format, symbols: list[Symbol], address: int = BASE) -> None:
        self.form = form
        self.symbols = symbols
        self.address = address
        self.image = bytearray(b"\xcc" * 4096)
        self.at: dict[str, int] = {}
        if not form.behind:
            self._addresses()
        self._names()
        if form.behind:
            self._addresses()
        self.image += b"\xcc" * 512

    def _begin(self, name: str) -> None:
        self.image += bytes(-len(self.image) % self.form.align)
        self.at[name] = len(self.image)

    def _put(self, letter: str, *numbers: int) -> None:
        self.image += struct.pack(f"{self.form.order}{len(numbers)}{letter}", *numbers)

    def _names(self) -> None:
        self._begin("count")
        self._put("I", len(self.symbols))
        self._begin("names")
        markers = []
        for i, (letter, name, _) in enumerate(self.symbols):
            if i % 256 == 0:
                markers.append(len(self.image) - self.at["names"])
            data = compress(letter + name)
            length = len(data)
            self.image += bytes([length] if length < 128 else [length & 127 | 128, length >> 7])
            self.image += data
        self._begin("markers")
        self._put("I", *markers)
        if self.form.seqs:
            self._begin("seqs")
            for i in range(len(self.symbols)):
                self.image += i.to_bytes(3, "big")
        self._begin("tokens")
        places = []
        for code in range(256):
            places.append(len(self.image) - self.at["tokens"])
            token = TOKENS.get(code, chr(code) if 32 < code < 127 else "")
            self.image += token.encode() + b"\0"
        self._begin("index")
        self._put("H", *places)

    def _addresses(self) -> None:
        self._begin("addresses")
        at, kind = self.address + self.at["addresses"], self.form.encoding
        for i, (_, _, address) in enumerate(self.symbols):
            if kind == "absolute":
                self._put("Q", address)
            elif kind == "place":
                self._put("i", address - at - 4 * i)
            elif kind == "base":
                self._put("I", address - BASE)
            else:
                self._put("i", address if address < BASE else BASE - 1 - address)
        if kind in ("base", "per-cpu"):
            self._begin("base")
            self._put("Q", BASE)
