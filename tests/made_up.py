# SPDX-License-Identifier: LGPL-2.1-or-later
"""Programs with types, objects, symbols and memory that tests have made up; what is told goes before what was known."""

from __future__ import annotations

import abc
import itertools
from collections.abc import Callable, Mapping
from typing import Any, Optional

from drgn import (
    Architecture,
    FaultError,
    Object,
    Platform,
    PlatformFlags,
    Program,
    Symbol,
    SymbolBinding,
    SymbolKind,
    Type,
)
from trees import Memory

AMD64 = Platform(Architecture.X86_64, PlatformFlags.IS_64_BIT | PlatformFlags.IS_LITTLE_ENDIAN)
_numbers = itertools.count()


def _name() -> str:
    """A finder's, which a Program has only one of."""
    return f"made-up {next(_numbers)}"


def tell_types(prog: Program, types: Mapping[str, Type]) -> None:
    """Types by their names, without "struct" and the like."""
    prog.register_type_finder(_name(), lambda _p, _k, name, _f: types.get(name), enable_index=0)


def tell_objects(prog: Program, objects: Mapping[str, Object]) -> None:
    prog.register_object_finder(_name(), lambda _p, name, *_: objects.get(name), enable_index=0)


def tell_symbols(
    prog: Program, addresses: Mapping[str, int], size: int, kind: SymbolKind = SymbolKind.OBJECT
) -> None:
    """Symbols of so many bytes each."""
    every = [Symbol(name, at, size, SymbolBinding.GLOBAL, kind) for name, at in addresses.items()]

    def find(_: Program, name: Optional[str], address: Optional[int], one: bool) -> list[Symbol]:
        found = (
            symbol
            for symbol in every
            if symbol.name == name or (address is not None and 0 <= address - symbol.address < size)
        )
        return list(itertools.islice(found, 1 if one else None))

    prog.register_symbol_finder(_name(), find, enable_index=0)


class Kernel(abc.ABC):
    """A Program with memory in pieces, and objects by name: how their types are spelled, and addresses."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.prog = Program(AMD64)
        self.objects: dict[str, tuple[str, int]] = {}
        self.prog.register_type_finder(_name(), self._find_type, enable_index=0)
        self.prog.register_object_finder(_name(), self._find_object, enable_index=0)
        self.prog.add_memory_segment(0, 0xFFFFFFFFFFFFFFFF, self._read)

    def _read(self, address: int, count: int, _offset: int, _physical: bool) -> bytes:
        data = self.memory.read(address, count)
        if data is None:
            raise FaultError("not there", address)
        return data

    @abc.abstractmethod
    def _find_type(
        self, prog: Program, kinds: Any, name: str, filename: Optional[str]
    ) -> Optional[Type]:
        """A struct by its name; of members that may be late()."""

    @staticmethod
    def late(prog: Program, spelled: str) -> Callable[[], Type]:
        """A type of a member, which is asked for when it is needed."""
        return lambda: prog.type(spelled)

    def _find_object(self, prog: Program, name: str, *_: object) -> Optional[Object]:
        if name not in self.objects:
            return None
        type_, address = self.objects[name]
        return Object(prog, type_, address=address)
