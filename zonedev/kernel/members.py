# SPDX-License-Identifier: LGPL-2.1-or-later
"""Numbers out of many structs, each struct with one read: where thousands are looked at, objects are too slow.

Owns where members lie, and the byte order; what the members mean is the caller's.
"""

from __future__ import annotations

import struct
from typing import Optional, Union

from drgn import FaultError, PlatformFlags, Program, Type, TypeKind, sizeof


def _order(prog: Program) -> str:
    assert prog.platform is not None
    return "<" if prog.platform.flags & PlatformFlags.IS_LITTLE_ENDIAN else ">"


def words_of(prog: Program, raw: bytes) -> tuple[int, ...]:
    """The 64-bit words of some bytes; a rest that is no whole word is left out."""
    count = len(raw) // 8
    return struct.unpack_from(f"{_order(prog)}{count}Q", raw)


_FORMATS = {1: "B", 2: "H", 4: "I", 8: "Q"}


class Budget:
    """How much of something a search may look at: an untrusted dump may have any number of it."""

    def __init__(self, limit: int, what: str) -> None:
        self._limit = self._left = limit
        self._what = what

    def spend(self, number: int = 1) -> None:
        """Look at some more.

        :raises ValueError: they are too many
        """
        if number > self._left:
            self._left = 0
            raise ValueError(f"more than {self._limit} {self._what}")
        self._left -= number


def _place(type_: Type, path: str) -> tuple[int, int]:
    """Offset and size of a member, in bytes.

    :raises LookupError: there is none
    """
    offset = 0
    for name in path.split("."):
        while type_.kind == TypeKind.TYPEDEF:
            type_ = type_.type
        member = type_.member(name)
        offset += member.offset
        type_ = member.type
    return offset, sizeof(type_)


def _row_format(places: list[tuple[int, int]], size: int) -> str:
    """Members of a struct of some bytes in one format; "" where they do not follow each other."""
    row, end = "", 0
    for offset, length in places:
        if offset < end:
            return ""
        row += f"{offset - end}x{_FORMATS[length]}"
        end = offset + length
    return f"{row}{size - end}x"


class Members:
    """Members of one struct type, named by paths ("f_path.dentry"): numbers of 1, 2, 4 or 8 bytes, taken as unsigned.

    :raises LookupError: the type, or one of the members, is not known
    """

    def __init__(self, prog: Program, type_: Union[str, Type], *paths: str) -> None:
        self._prog = prog
        self.type = prog.type(type_) if isinstance(type_, str) else type_
        places = [_place(self.type, path) for path in paths]
        self._offsets = dict(zip(paths, (offset for offset, _ in places)))
        self._row = _row_format(places, sizeof(self.type))
        self._start = min(offset for offset, _ in places)
        self._size = max(offset + size for offset, size in places) - self._start
        order = _order(prog)
        self._unpack = [
            (struct.Struct(order + _FORMATS[size]), offset - self._start) for offset, size in places
        ]

    @property
    def size(self) -> int:
        """Bytes of the whole struct."""
        return int(sizeof(self.type))

    def offset(self, path: str) -> int:
        """Where a member lies, in bytes."""
        return self._offsets[path]

    def read(self, address: int) -> tuple[int, ...]:
        """The members of the struct at an address, in the order of the paths.

        :raises FaultError: it cannot be read
        """
        try:
            raw = self._prog.read(address + self._start, self._size)
        except (OverflowError, ValueError) as err:
            # Beyond the last address, or before the first.
            raise FaultError(f"no address: {err}", address % (1 << 64)) from None
        return tuple(one.unpack_from(raw, at)[0] for one, at in self._unpack)

    def each(self, raw: bytes) -> list[tuple[int, ...]]:
        """The same of an array of structs, given its bytes."""
        size = self.size
        if self._row:
            row = struct.Struct(_order(self._prog) + self._row)
            return list(row.iter_unpack(raw[: len(raw) // size * size]))
        return [
            tuple(one.unpack_from(raw, first + self._start + at)[0] for one, at in self._unpack)
            for first in range(0, len(raw) - size + 1, size)
        ]


def has_member(prog: Program, type_: str, path: str) -> bool:
    """Whether a type has a member."""
    try:
        _place(prog.type(type_), path)
    except LookupError:
        return False
    return True


def constant(prog: Program, name: str) -> Optional[int]:
    """Value of an enumerator; None where the kernel has none of the name."""
    try:
        return int(prog.constant(name))
    except LookupError:
        return None


def enumerator(prog: Program, type_: str, name: str) -> int:
    """
    Value of an enumerator of a type, which may be a module's.

    :raises LookupError: the type is not known, or has none of the name
    """
    for one in prog.type(type_).enumerators or ():
        if one.name == name:
            return int(one.value)
    raise LookupError(f"could not find {name!r} in {type_!r}")
