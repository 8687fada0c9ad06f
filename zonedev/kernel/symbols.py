# SPDX-License-Identifier: LGPL-2.1-or-later
"""The kernel's symbols out of its own memory, for a Program without debug information.

Owns reading the kernel's image, and the symbol finder, which asks modules (kernel/modules.py) for addresses that are
not the kernel's.  The tables are found and read by ext/core/kallsyms.c.
Invariant: nothing is taken for the kernel's image but what its VMCOREINFO says where it begins.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Optional, Protocol

from drgn import FaultError, PlatformFlags, Program, Symbol, SymbolBinding, SymbolKind

from zonedev import _zonedev
from zonedev.errors import TargetError
from zonedev.kernel.modules import ModuleSymbol, ModuleSymbols
from zonedev.kernel.strings import printable

# The symbol that every VMCOREINFO names: where the kernel's text begins, with the tables behind it.
KNOWN = "_stext"

# How much of the image is read: text and read-only data of large kernels, in pieces.
_IMAGE_MAX = 96 << 20
_PIECE = 1 << 20
_PAGE = 4096
# Pieces that may be missing between text and data, which are aligned to large pages.
_GAP = 4
IMAGE_STEP = _GAP * _PIECE
"""An image goes on where something of it can be read so many bytes further."""

# Where functions lie.  Letters do not tell: where the linker marks .data as executable, a variable's letter is that of
# a function.
_TEXTS = (("_stext", "_etext"), ("_sinittext", "_einittext"))

_DATA = "tTbBdDrR"

Row = tuple[str, int, int, str]


class SymbolTable(Protocol):
    """What _zonedev.Kallsyms has."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> Row: ...

    def find(self, name: str, /) -> list[Row]:
        """All symbols of a name."""

    def at(self, address: int, /) -> Optional[Row]:
        """The last symbol at or below an address."""


SymbolFinder = Callable[[Program, Optional[str], Optional[int], bool], list[Symbol]]


def _vmcoreinfo(prog: Program, what: str, name: str, digits: str) -> Optional[str]:
    try:
        text = prog["VMCOREINFO"].string_().decode(errors="replace")
    except LookupError:
        return None
    match = re.search(rf"^{what}\({re.escape(name)}\)=({digits})$", text, re.MULTILINE)
    return match[1] if match else None


def vmcoreinfo_symbol(prog: Program, name: str) -> Optional[int]:
    """Address of a symbol that VMCOREINFO names, None where it does not."""
    found = _vmcoreinfo(prog, "SYMBOL", name, "[0-9a-f]{1,16}")
    return int(found, 16) if found else None


def vmcoreinfo_length(prog: Program, name: str) -> Optional[int]:
    """How many elements VMCOREINFO says that an array has, None where it does not."""
    found = _vmcoreinfo(prog, "LENGTH", name, "[0-9]{1,9}")
    return int(found) if found else None


def vmcoreinfo_number(prog: Program, name: str) -> Optional[int]:
    """A number that VMCOREINFO tells, None where it does not."""
    found = _vmcoreinfo(prog, "NUMBER", name, "-?[0-9]{1,19}")
    return int(found) if found else None


def _read_or_none(prog: Program, address: int, size: int) -> Optional[bytes]:
    try:
        return bytes(prog.read(address, size))
    except (FaultError, OSError, ValueError, OverflowError):
        return None


def _read_piece(prog: Program, address: int) -> Optional[bytes]:
    """Memory with zeroes for the pages that are not there; None where none is."""
    whole = _read_or_none(prog, address, _PIECE)
    if whole is not None:
        return whole
    pages = [_read_or_none(prog, address + at, _PAGE) for at in range(0, _PIECE, _PAGE)]
    return b"".join(page or bytes(_PAGE) for page in pages) if any(pages) else None


def read_image(prog: Program, address: int, size: int = _IMAGE_MAX) -> bytes:
    """The kernel's image from an address on, as long as it goes on; pages that cannot be read are zero."""
    data = bytearray()
    missing = 0
    for at in range(address, address + size, _PIECE):
        piece = _read_piece(prog, at)
        missing = 0 if piece else missing + 1
        if missing > _GAP:
            break
        data += piece or bytes(_PIECE)
    return bytes(data)


def image_address(prog: Program) -> int:
    """Where the kernel's image begins, with its text.

    :raises TargetError: that is not known
    """
    known = vmcoreinfo_symbol(prog, KNOWN)
    if known is None or known % 8:
        raise TargetError(f"kallsyms: VMCOREINFO does not say where the kernel lies ({KNOWN})")
    return known


def read_kallsyms(prog: Program) -> _zonedev.Kallsyms:
    """The symbols that the kernel keeps of itself.

    :raises TargetError: they are not there, or cannot be read
    """
    assert prog.platform is not None
    flags = prog.platform.flags
    known = image_address(prog)
    try:
        return _zonedev.Kallsyms(
            read_image(prog, known),
            known,
            (KNOWN, known),
            8 if flags & PlatformFlags.IS_64_BIT else 4,
            not flags & PlatformFlags.IS_LITTLE_ENDIAN,
        )
    except ValueError as err:
        raise TargetError(str(err)) from None


def text_ranges(kallsyms: SymbolTable) -> list[tuple[int, int]]:
    """Addresses [start, end) at which the kernel's functions lie."""
    ends = [[kallsyms.find(name) for name in names] for names in _TEXTS]
    return [(start[0][1], end[0][1]) for start, end in ends if start and end]


def _symbol(name: str, address: int, size: int, letter: str, is_text: bool) -> Symbol:
    if letter in "wWvV":
        binding = SymbolBinding.WEAK
    else:
        binding = SymbolBinding.GLOBAL if letter.isupper() else SymbolBinding.LOCAL
    kind = SymbolKind.OBJECT if letter in _DATA else SymbolKind.UNKNOWN
    name = printable(name)
    return Symbol(name, address, size, binding, SymbolKind.FUNC if is_text else kind)


def _module_symbol(found: ModuleSymbol) -> Symbol:
    kind = SymbolKind.FUNC if found.is_function else SymbolKind.OBJECT
    return Symbol(found.name, found.address, found.size, SymbolBinding.UNKNOWN, kind)


def symbol_finder(kallsyms: SymbolTable, modules: Optional[ModuleSymbols] = None) -> SymbolFinder:
    """What Program.register_symbol_finder() takes.  Symbols of modules are found by their addresses only."""
    texts = text_ranges(kallsyms)

    def is_text(address: int) -> bool:
        return any(start <= address < end for start, end in texts)

    def by_address(address: int) -> list[Row]:
        found = kallsyms.at(address)
        return [found] if found and address < found[1] + found[2] else []

    def find(
        _prog: Program, name: Optional[str], address: Optional[int], one: bool
    ) -> list[Symbol]:
        if name is not None:
            found = kallsyms.find(name)
        elif address is not None:
            found = by_address(address)
            of_module = modules.at(address) if modules and not found else None
            if of_module is not None:
                return [_module_symbol(of_module)]
        else:
            found = [kallsyms[i] for i in range(len(kallsyms))]
        return [_symbol(*row, is_text(row[1])) for row in (found[:1] if one else found)]

    return find
