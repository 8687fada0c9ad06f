# SPDX-License-Identifier: LGPL-2.1-or-later
"""The tables of kallsyms in the making, in the formats that they have had.

Owns the encoding; which symbols is for slice_btf.py to say.  Names are not made short, but for two tokens.  The tables
are read by ext/core/kallsyms.c.

Mirrors scripts/kallsyms.c.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

Symbol = tuple[str, str, int]


class Format(NamedTuple):
    """How the tables lie and what an entry of the addresses means."""

    encoding: str  # place, base, per-cpu or absolute
    behind: bool  # the addresses stand behind the tokens
    align: int = 8
    order: str = "<"
    seqs: bool = False  # three bytes for each symbol stand behind the markers


# Two tokens that stand for more than a character, at codes that no name uses.
TOKENS = {1: "function_", 2: ".isra."}

# Above the offsets of per-cpu variables.
_ABSOLUTE_END = 1 << 31


def compress(text: str) -> bytes:
    """A name as the tables have it."""
    data = text.encode("ascii")
    for code, token in TOKENS.items():
        data = data.replace(token.encode(), bytes([code]))
    return data


class Tables:
    """The tables of some symbols, and where each begins in *image*.

    :param symbols: with the letter of nm(1), as the kernel orders them
    :param address: of the image
    :param before: what the image begins with
    :param behind: and ends with
    :raises ValueError: an address is too far away for this format, or a name is not ASCII
    """

    def __init__(
        self,
        form: Format,
        symbols: Sequence[Symbol],
        address: int,
        before: bytes = b"",
        behind: bytes = b"",
    ) -> None:
        self.form = form
        self.symbols = symbols
        self.address = address
        self.image = bytearray(before)
        self.at: dict[str, int] = {}
        if not form.behind:
            self._addresses()
        self._names()
        if form.behind:
            self._addresses()
        self.image += behind

    def _begin(self, name: str) -> None:
        self.image += bytes(-len(self.image) % self.form.align)
        self.at[name] = len(self.image)

    def _put(self, letter: str, *numbers: int) -> None:
        try:
            self.image += struct.pack(f"{self.form.order}{len(numbers)}{letter}", *numbers)
        except struct.error as err:
            raise ValueError(
                f"kallsyms: a symbol is too far away for this format ({err})"
            ) from None

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
        base = min(
            (a for _, _, a in self.symbols if kind == "base" or a >= _ABSOLUTE_END), default=0
        )
        for i, (_, _, address) in enumerate(self.symbols):
            if kind == "absolute":
                self._put("Q", address)
            elif kind == "place":
                self._put("i", address - at - 4 * i)
            elif kind == "base":
                self._put("I", address - base)
            else:
                self._put("i", address if address < base else base - 1 - address)
        if kind in ("base", "per-cpu"):
            self._begin("base")
            self._put("Q", base)
