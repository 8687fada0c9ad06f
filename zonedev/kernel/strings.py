# SPDX-License-Identifier: LGPL-2.1-or-later
"""Text out of a kernel's memory, or out of a file: whoever named a task or a device does not write to the terminal."""

from __future__ import annotations

from drgn import Program


def printable(text: str) -> str:
    """The same, with escapes for what is not printed as itself."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def text_of(raw: bytes) -> str:
    """Bytes of the kernel as printable text."""
    return printable(raw.decode(errors="replace"))


def text_at(prog: Program, address: int, limit: int) -> str:
    """
    The string at an address, of at most *limit* bytes, as printable text.

    :raises FaultError: it cannot be read
    """
    raw: bytes = prog.read_c_string(address, max_size=limit)
    return text_of(raw)
