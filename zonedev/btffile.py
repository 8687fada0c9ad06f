# SPDX-License-Identifier: LGPL-2.1-or-later
"""BTF in the making: types one by one, or chosen ones of a kernel and its modules.

Owns the encoding, and what a chosen type needs beside itself.  Who chooses is slice_btf.py; the format is read by
ext/core/btf.c.
Invariant of thin(): a chosen type has the size, members, offsets and enumerators that it had; what is only pointed
to is a declaration; the types of one name keep their order.

Mirrors include/uapi/linux/btf.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Optional

from zonedev import _zonedev

KINDS = (
    *("void", "int", "ptr", "array", "struct", "union", "enum", "fwd", "typedef", "volatile"),
    *("const", "restrict", "func", "func_proto", "var", "datasec", "float", "decl_tag"),
    *("type_tag", "enum64"),
)


class BtfWriter:
    """BTF in the making: one call a type, ids in the order of the calls.  Nothing is checked.

    Names of a split one go on behind the base's, as its ids do.
    """

    def __init__(self, order: str = "<", base: Optional[BtfWriter] = None) -> None:
        self.order = order
        self.types = b""
        self.strings = b"" if base else b"\0"
        self.first_string: int = base.first_string + len(base.strings) if base else 0
        self.next_id: int = base.next_id if base else 1

    def words(self, *numbers: int) -> bytes:
        """Words of 32 bits."""
        return struct.pack(f"{self.order}{len(numbers)}I", *(n & 0xFFFFFFFF for n in numbers))

    def name(self, text: str) -> int:
        """Where a name stands."""
        if not text and not self.first_string:
            return 0
        at = self.first_string + len(self.strings)
        self.strings += text.encode("utf-8", "surrogateescape") + b"\0"
        return at if text else 0

    def add(
        self,
        kind: str,
        name: str,
        third: int,
        items: bytes = b"",
        count: int = 0,
        flag: bool = False,
    ) -> int:
        """A record, and what stands behind it; its id.  *third*: a size in bytes, or the id of a type."""
        info = flag << 31 | KINDS.index(kind) << 24 | count
        self.types += self.words(self.name(name), info, third) + items
        self.next_id += 1
        return self.next_id - 1

    def header(self) -> bytes:
        """What BTF begins with, if nothing is added any more."""
        sizes = self.words(24, 0, len(self.types), len(self.types), len(self.strings))
        return struct.pack(f"{self.order}HBB", 0xEB9F, 1, 0) + sizes

    def build(self) -> bytes:
        """All of it."""
        return self.header() + self.types + self.strings


class Key(NamedTuple):
    """A type: of which BTF (0: the kernel's own, then modules'), and its id there."""

    source: int
    id: int


# Their members are a part of them; behind a pointer a declaration will do, if they have a name.
_COMPOUNDS = ("struct", "union")
_BEHIND = ("typedef", "volatile", "const", "restrict", "type_tag")
# What a record says the size of.
_SIZED = ("int", "struct", "union", "enum", "enum64", "float")
_VOID = Key(0, 0)


class _Chosen:
    """The types that thin BTF has: whole ones, and what these lead to."""

    def __init__(self, sources: Sequence[_zonedev.Btf]) -> None:
        self._sources = sources
        self.facts: dict[Key, dict[str, Any]] = {}
        self.whole: set[Key] = set()
        self._todo: list[tuple[Key, bool]] = []

    def key(self, source: int, id_: int) -> Key:
        """Ids below a module's first are the kernel's."""
        if not id_:
            return _VOID
        return Key(source if id_ >= self._sources[source].first else 0, id_)

    def add(self, keys: Iterable[Key]) -> None:
        """Types with all that they hold by value; what these point to is declared."""
        self._todo += [(key, True) for key in keys]
        while self._todo:
            self._take(*self._todo.pop())
            if not self._todo:
                self._todo += [(key, True) for key in self._also_declared()]

    def _take(self, key: Key, whole: bool) -> None:
        if key == _VOID or key in self.whole or (key in self.facts and not whole):
            return
        facts = self.facts.setdefault(key, self._sources[key.source].type(key.id))
        # What has no name cannot be declared.
        may_be_less = facts["kind"] in _BEHIND or (facts["kind"] in _COMPOUNDS and facts["name"])
        whole = whole or not may_be_less
        if whole:
            self.whole.add(key)
        if whole or facts["kind"] in _BEHIND:
            self._todo += [(one, whole and by_value) for one, by_value in self._parts(key, facts)]

    def _parts(self, key: Key, facts: dict[str, Any]) -> list[tuple[Key, bool]]:
        """What a type refers to, and whether by value."""
        kind, source = facts["kind"], key.source
        if kind in _COMPOUNDS:
            return [(self.key(source, item[1]), True) for item in facts["items"]]
        parts = [(self.key(source, facts["type"]), kind not in ("ptr", "func_proto"))]
        if kind == "func_proto":
            parts += [(self.key(source, item[1]), False) for item in facts["items"]]
        return parts

    def _also_declared(self) -> list[Key]:
        """Declared types that share their name with a whole one: a declaration would be taken for that."""
        named = {(self.facts[key]["kind"], self.facts[key]["name"]) for key in self.whole}
        return [
            key
            for key, facts in self.facts.items()
            if key not in self.whole
            and facts["kind"] in _COMPOUNDS
            and (facts["kind"], facts["name"]) in named
        ]


class _Thin:
    """Writes chosen types with ids of their own."""

    def __init__(self, chosen: _Chosen, order: str) -> None:
        self._chosen = chosen
        self._writer = BtfWriter(order)
        self._keys = sorted(chosen.facts)
        self._ids = {key: i for i, key in enumerate(self._keys, 1)} | {_VOID: 0}

    def build(self) -> bytes:
        """All of them, by rising ids of the kernel's, then of modules'."""
        for key in self._keys:
            facts = self._chosen.facts[key]
            if facts["kind"] in _COMPOUNDS and key not in self._chosen.whole:
                self._writer.add("fwd", facts["name"], 0, flag=facts["kind"] == "union")
            else:
                self._write(key, facts)
        return self._writer.build()

    def _id(self, key: Key, id_: int) -> int:
        return self._ids[self._chosen.key(key.source, id_)]

    def _write(self, key: Key, facts: dict[str, Any]) -> None:
        kind = facts["kind"]
        words = _EXTRA.get(kind, _nothing)(self, key, facts)
        third = self._third(key, facts)
        self._writer.add(kind, facts["name"], third, words, len(facts["items"]), facts["flag"])

    def _third(self, key: Key, facts: dict[str, Any]) -> int:
        """A record's third word: a size, or a type; an array has that behind it."""
        if facts["kind"] in _SIZED:
            return int(facts["size"])
        return 0 if facts["kind"] == "array" else self._id(key, facts["type"])

    # ------------------------------------------------------------ what stands behind a record

    def _of_int(self, _key: Key, facts: dict[str, Any]) -> bytes:
        return self._writer.words(
            facts["encoding"] << 24 | facts["bit_offset"] << 16 | facts["bits"]
        )

    def _of_array(self, key: Key, facts: dict[str, Any]) -> bytes:
        return self._writer.words(self._id(key, facts["type"]), 0, facts["length"])

    def _of_members(self, key: Key, facts: dict[str, Any]) -> bytes:
        return b"".join(
            self._writer.words(self._writer.name(name), self._id(key, type_), bits << 24 | offset)
            for name, type_, offset, bits in facts["items"]
        )

    def _of_enum(self, _key: Key, facts: dict[str, Any]) -> bytes:
        write = self._writer
        return b"".join(write.words(write.name(name), value) for name, value in facts["items"])

    def _of_enum64(self, _key: Key, facts: dict[str, Any]) -> bytes:
        write = self._writer
        return b"".join(
            write.words(write.name(name), value, value >> 32) for name, value in facts["items"]
        )

    def _of_function(self, key: Key, facts: dict[str, Any]) -> bytes:
        write = self._writer
        return b"".join(
            write.words(write.name(name), self._id(key, type_)) for name, type_ in facts["items"]
        )

    def _of_variable(self, _key: Key, _facts: dict[str, Any]) -> bytes:
        # global
        return self._writer.words(1)


def _nothing(_thin: _Thin, _key: Key, _facts: dict[str, Any]) -> bytes:
    return b""


_EXTRA = {
    "int": _Thin._of_int,
    "array": _Thin._of_array,
    "struct": _Thin._of_members,
    "union": _Thin._of_members,
    "enum": _Thin._of_enum,
    "enum64": _Thin._of_enum64,
    "func_proto": _Thin._of_function,
    "var": _Thin._of_variable,
}


def thin(sources: Sequence[_zonedev.Btf], chosen: Iterable[Key], order: str) -> bytes:
    """BTF of the chosen types alone, those of modules among the kernel's.

    :param sources: the kernel's own BTF, then modules' that are split from it
    :param order: "<" or ">"
    """
    all_of_them = _Chosen(sources)
    all_of_them.add(chosen)
    return _Thin(all_of_them, order).build()
