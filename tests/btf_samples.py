# SPDX-License-Identifier: LGPL-2.1-or-later
"""BTF as text says it, and some of it in the ways that kernels use it.  Nothing is checked: tests write nonsense, too."""

from __future__ import annotations

from zonedev.btffile import BtfWriter

SIGNED, CHAR, BOOL = 1, 2, 4

Member = tuple[str, int, int]


class Writer(BtfWriter):
    """One call a type."""

    def int(self, name: str, size: int, encoding: int = 0, bits: int = 0, offset: int = 0) -> int:
        data = encoding << 24 | offset << 16 | (bits or 8 * size)
        return self.add("int", name, size, self.words(data))

    def refer(self, kind: str, target: int, name: str = "") -> int:
        """ptr, typedef, volatile, const, restrict, func, type_tag."""
        return self.add(kind, name, target)

    def array(self, element: int, length: int, index: int = 0) -> int:
        return self.add("array", "", 0, self.words(element, index, length))

    def compound(
        self, kind: str, name: str, size: int, *members: Member, bits: tuple[int, ...] = ()
    ) -> int:
        """Members are (name, type, bit offset); *bits* are their widths, for a struct with bit fields."""
        items = b"".join(
            self.words(self.name(member), type_, offset | (bits[i] << 24 if bits else 0))
            for i, (member, type_, offset) in enumerate(members)
        )
        return self.add(kind, name, size, items, len(members), bool(bits))

    def enum(self, name: str, size: int, signed: bool = False, **values: int) -> int:
        items = b"".join(self.words(self.name(key), value) for key, value in values.items())
        return self.add("enum", name, size, items, len(values), signed)

    def enum64(self, name: str, signed: bool = False, **values: int) -> int:
        items = b"".join(
            self.words(self.name(key), value, value >> 32) for key, value in values.items()
        )
        return self.add("enum64", name, 8, items, len(values), signed)

    def proto(self, result: int, *parameters: tuple[str, int]) -> int:
        items = b"".join(self.words(self.name(name), type_) for name, type_ in parameters)
        return self.add("func_proto", "", result, items, len(parameters))

    def datasec(self, name: str, size: int, *variables: tuple[int, int, int]) -> int:
        items = b"".join(self.words(*variable) for variable in variables)
        return self.add("datasec", name, size, items, len(variables))

    def bytes(self) -> bytes:
        return self.build()


def every_kind(order: str = "<") -> Writer:
    """A type of every kind, in the way that kernels use them; ids 1 to 30."""
    w = Writer(order)
    w.int("long unsigned int", 8)  # 1
    w.int("int", 4, SIGNED)
    w.int("char", 1, SIGNED | CHAR)
    w.int("_Bool", 1, BOOL)
    w.compound("struct", "list_head", 16, ("next", 6, 0), ("prev", 6, 64))  # 5
    w.refer("ptr", 5)
    w.array(2, 4, 1)
    w.compound("union", "", 8, ("lru", 1, 0), ("pgmap", 10, 0))
    w.compound("struct", "page", 40, ("flags", 1, 0), ("", 8, 64), ("list", 5, 128), ("t", 28, 256))
    w.refer("ptr", 11)  # 10
    w.add("fwd", "dev_pagemap", 0)
    w.add("fwd", "either", 0, flag=True)
    w.enum("zone_type", 4, ZONE_DMA=0, ZONE_DEVICE=4)
    w.enum("state", 4, True, BAD=-1, GOOD=1)
    w.enum64("wide", MOST=1 << 63)  # 15
    w.enum64("wide_signed", True, LEAST=-(1 << 62))
    w.refer("typedef", 20, "callback_t")
    w.refer("const", 5)
    w.proto(2, ("page", 23), ("", 0))
    w.refer("ptr", 19)  # 20
    w.refer("volatile", 1)
    w.refer("restrict", 6)
    w.refer("ptr", 9)
    w.refer("func", 19, "put_page")
    w.add("var", "per_cpu_page", 9, w.words(1))  # 25
    w.datasec(".data..percpu", 40, (25, 0, 40))
    w.add("float", "double", 8)
    w.compound("struct", "bits", 8, ("a", 2, 0), ("b", 2, 3), ("c", 1, 64), bits=(3, 29, 0))
    w.add("decl_tag", "kfunc", 24, w.words(-1))
    w.refer("type_tag", 9, "user")  # 30
    return w


def split(base: Writer) -> Writer:
    """A module's types on those of every_kind()."""
    w = Writer(base.order, base)
    w.compound("struct", "mine", 48, ("page", 9, 0), ("next", base.next_id + 1, 320))
    w.refer("ptr", base.next_id)
    w.enum("zone_type", 4, ZONE_MINE=9, ZONE_DEVICE=5)
    return w
