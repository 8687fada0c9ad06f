# SPDX-License-Identifier: LGPL-2.1-or-later
"""The BTF reader of the core: every kind, what is refused and why, bounds.

ext/fuzz/fuzz_btf.c feeds it anything at all.
"""

from __future__ import annotations

import gc
import random
from typing import Any, Callable

import pytest
from btf_samples import Writer, every_kind, split

from zonedev._zonedev import Btf, btf_size
from zonedev.btffile import KINDS

ORDERS = ("<", ">")
COMPOUNDS = ("struct", "union")


def refused(writer: Writer, word_size: int = 8) -> str:
    with pytest.raises(ValueError, match="BTF: ") as error:
        Btf(writer.bytes(), word_size)
    return str(error.value)


# ---------------------------------------------------------------- what is there


@pytest.mark.parametrize("order", ORDERS)
def test_every_kind_is_read(order: str) -> None:
    btf = Btf(every_kind(order).bytes())
    assert {btf.type(i)["kind"] for i in range(len(btf))} == set(KINDS)
    assert len(btf) == 31 and btf.first == 1

    def said(id_: int, *keys: str) -> tuple[Any, ...]:
        return tuple(btf.type(id_)[key] for key in keys)

    assert said(0, "kind", "name", "size", "items") == ("void", "", 0, [])
    assert said(1, "name", "size", "encoding", "bits", "bit_offset") == (
        *("long unsigned int", 8),
        *(0, 64, 0),
    )
    assert [said(i, "encoding")[0] for i in (2, 3, 4)] == [1, 3, 4]
    assert said(6, "kind", "size", "type") == ("ptr", 8, 5)
    assert said(7, "kind", "type", "length") == ("array", 2, 4)
    assert said(9, "items") == (
        [("flags", 1, 0, 0), ("", 8, 64, 0), ("list", 5, 128, 0), ("t", 28, 256, 0)],
    )
    assert said(11, "kind", "flag") == ("fwd", False) and said(12, "flag") == (True,)
    assert said(13, "flag", "items") == (False, [("ZONE_DMA", 0), ("ZONE_DEVICE", 4)])
    assert said(14, "flag", "items") == (True, [("BAD", -1), ("GOOD", 1)])
    assert said(15, "items") == ([("MOST", 1 << 63)],)
    assert said(16, "items") == ([("LEAST", -(1 << 62))],)
    assert said(17, "kind", "name", "type") == ("typedef", "callback_t", 20)
    assert said(19, "type", "items") == (2, [("page", 23), ("", 0)])
    assert said(24, "name", "type") == ("put_page", 19)
    assert said(26, "name", "size", "items") == (".data..percpu", 40, [(25, 0, 40)])
    assert said(27, "kind", "size") == ("float", 8)
    assert said(28, "flag", "items") == (
        True,
        [("a", 2, 0, 3), ("b", 2, 3, 29), ("c", 1, 64, 0)],
    )
    assert said(29, "kind", "type") == ("decl_tag", 24)


def test_types_are_found_by_name_and_kind() -> None:
    btf = Btf(every_kind().bytes())
    assert btf.find("page", COMPOUNDS) == [9]
    assert btf.find("page", ["union", "enum"]) == []
    assert btf.find("dev_pagemap", COMPOUNDS) == []
    assert btf.find("dev_pagemap", ["struct", "fwd"]) == [11]
    assert btf.find("", KINDS) == []
    assert btf.enumerator("ZONE_DEVICE") == (13, 1)
    assert btf.enumerator("MOST") == (15, 0)
    assert btf.enumerator("ZONE") is None


def test_several_types_of_one_name_come_in_their_order() -> None:
    w = Writer()
    for size in (4, 8, 12):
        w.compound("struct", "page", size)
    w.refer("typedef", 2, "page")
    btf = Btf(w.bytes())
    assert btf.find("page", ["struct"]) == [1, 2, 3]
    assert btf.find("page", KINDS) == [1, 2, 3, 4]


def test_members_are_found_through_anonymous_ones() -> None:
    btf = Btf(every_kind().bytes())
    assert btf.member(9, "flags") == (1, 0, 0)
    assert btf.member(9, "pgmap") == (10, 64, 0)
    assert btf.member(9, "t") == (28, 256, 0)
    assert btf.member(30, "pgmap") == (10, 64, 0), "behind a tag"
    assert btf.member(28, "b") == (2, 3, 29)
    # Those of a member that has a name are not the struct's own.
    assert btf.member(9, "next") is None
    assert btf.member(9, "") is None
    assert btf.member(2, "flags") is None


def test_nested_offsets_add_up() -> None:
    w = Writer()
    w.int("u32", 4)
    w.compound("struct", "", 8, ("a", 1, 0), ("deep", 1, 32))
    w.refer("typedef", 2, "inner_t")
    w.compound("union", "", 12, ("", 3, 32))
    w.compound("struct", "outer", 32, ("x", 1, 0), ("", 4, 96), ("deep_y", 1, 192))
    btf = Btf(w.bytes())
    assert btf.member(5, "deep") == (1, 96 + 32 + 32, 0)
    assert btf.member(5, "deep_y") == (1, 192, 0)


def test_old_bit_fields_lie_in_small_ints() -> None:
    w = Writer()
    w.int("unsigned int", 4, bits=5, offset=3)
    w.refer("typedef", 1, "five_t")
    w.compound("struct", "s", 8, ("a", 2, 32))
    btf = Btf(w.bytes())
    assert btf.type(3)["items"] == [("a", 2, 35, 5)]
    assert btf.member(3, "a") == (2, 35, 5)


def test_sizes_go_through_typedefs_and_arrays() -> None:
    w = every_kind()
    rows = w.array(7, 3)
    alias = w.refer("const", w.refer("typedef", rows, "rows_t"))
    huge = w.array(w.array(w.array(1, 0xFFFFFFFF), 0xFFFFFFFF), 0xFFFFFFFF)
    btf = Btf(w.bytes())
    assert btf.sizeof(7) == 16 and btf.sizeof(alias) == 48
    assert btf.resolve(alias) == rows
    assert [btf.sizeof(i) for i in (0, 9, 11, 13, 19, 24, 27)] == [0, 40, 0, 4, 0, 0, 8]
    assert btf.sizeof(huge) == (1 << 64) - 1
    assert Btf(w.bytes(), 4).sizeof(6) == 4


@pytest.mark.parametrize("order", ORDERS)
def test_split_types_stand_on_their_base(order: str) -> None:
    base = every_kind(order)
    btf = Btf(base.bytes())
    module = Btf(split(base).bytes(), base=btf)
    first = len(btf)
    assert (module.first, len(module)) == (first, first + 3)
    assert module.find("mine", COMPOUNDS) == [first]
    assert module.find("page", COMPOUNDS) == [9]
    assert module.find("zone_type", ["enum"]) == [first + 2, 13], "its own come first"
    assert module.enumerator("ZONE_DEVICE") == (first + 2, 1)
    assert module.enumerator("ZONE_DMA") == (13, 0)
    assert module.member(first, "next") == (first + 1, 320, 0)
    assert module.member(9, "pgmap") == (10, 64, 0)
    assert module.type(9) == btf.type(9)
    assert btf.find("mine", COMPOUNDS) == []
    del btf
    gc.collect()
    assert module.type(9)["name"] == "page", "it keeps its base"


def test_what_is_no_text_can_still_be_asked_for() -> None:
    w = Writer()
    w.compound("struct", "page", 4)
    data = w.bytes().replace(b"page", b"p\xffge")
    name = b"p\xffge".decode(errors="surrogateescape")
    btf = Btf(data)
    assert btf.type(1)["name"] == name and btf.find(name, ["struct"]) == [1]


def test_the_length_is_told_by_the_header() -> None:
    for order in ORDERS:
        data = every_kind(order).bytes()
        assert btf_size(data) == btf_size(data[:24] + b"\xff" * 24) == len(data)
        assert btf_size(data[:23]) == 0
        assert btf_size(b"\0" + data) == 0
    assert btf_size(data[:2] + b"\2" + data[3:]) == 0
    assert btf_size(bytes(24)) == 0


def test_what_lies_behind_is_left_alone() -> None:
    assert len(Btf(every_kind().bytes() + b"more")) == 31


# ---------------------------------------------------------------- what is refused


def test_wrong_questions_are_refused() -> None:
    btf = Btf(every_kind().bytes())
    for ask in (btf.type, btf.resolve, btf.sizeof, lambda i: btf.member(i, "flags")):
        with pytest.raises(IndexError, match="31"):
            ask(31)
        with pytest.raises(OverflowError):
            ask(-1)
    with pytest.raises(ValueError, match="class: no kind"):
        btf.find("page", ["class"])
    with pytest.raises(TypeError):
        btf.enumerator(b"ZONE_DMA")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Btf(every_kind().bytes(), base="base")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pointers of 2 bytes"):
        Btf(every_kind().bytes(), 2)


def damage(at: int, *numbers: int) -> Callable[[Writer], bytes]:
    """The bytes with other words at an offset of the types."""

    def change(w: Writer) -> bytes:
        data = bytearray(w.bytes())
        data[24 + at : 24 + at + 4 * len(numbers)] = w.words(*numbers)
        return bytes(data)

    return change


def test_every_cut_is_refused() -> None:
    data = every_kind().bytes()
    for size in range(len(data)):
        with pytest.raises(ValueError, match="BTF: "):
            Btf(data[:size])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (damage(0, 0xFFFFFF), "type 1 has no proper name"),
        (damage(4, 20 << 24), "type 1 is of the unknown kind 20"),
        (damage(4, 0), "type 1 is of the unknown kind 0"),
        (damage(8, 17), "type 1 is an int of 17 bytes"),
        (damage(8, 0), "type 1 is an int of 0 bytes"),
        (damage(12, 65), "type 1 is an int of 8 bytes and 65 bits"),
        (damage(4, 4 << 24 | 0xFFFF), "type 1 is cut off"),
    ],
)
def test_damaged_records_are_refused(change: Callable[[Writer], bytes], words: str) -> None:
    with pytest.raises(ValueError, match=f"BTF: {words}"):
        Btf(change(every_kind()))


@pytest.mark.parametrize("field", range(4))
def test_sections_lie_inside(field: int) -> None:
    for number in (1 << 20, 0xFFFFFFFF, 0x80000000):
        data = bytearray(every_kind().bytes())
        data[8 + 4 * field : 12 + 4 * field] = number.to_bytes(4, "little")
        with pytest.raises(ValueError, match="the header tells of"):
            Btf(data)


def test_strings_end() -> None:
    data = every_kind().bytes()
    with pytest.raises(ValueError, match="begin and end with a zero"):
        Btf(data[:-1] + b"x")
    w = every_kind()
    w.strings = b"x" + w.strings[1:]
    assert "begin and end with a zero" in refused(w)
    w = Writer()
    w.compound("struct", "n" * 512, 4)
    assert "type 1 has no proper name" in refused(w)
    w = Writer()
    w.compound("struct", "n" * 511, 4)
    assert len(Btf(w.bytes())) == 2


def test_references_lead_to_types() -> None:
    for kind in ("ptr", "typedef", "const", "func", "type_tag"):
        w = Writer()
        w.refer(kind, 2, "name")
        assert "type 1 refers to type 2" in refused(w)
    w = Writer()
    w.array(7, 1)
    assert "type 1 refers to type 7" in refused(w)
    w = Writer()
    w.compound("struct", "s", 8, ("a", 5, 0))
    assert "item 0 of type 1 is of type 5" in refused(w)
    w = Writer()
    w.proto(0, ("a", 0), ("b", 9))
    assert "item 1 of type 1 is of type 9" in refused(w)
    w = Writer()
    w.datasec("d", 8, (4, 0, 8))
    assert "item 0 of type 1 is of type 4" in refused(w)


def test_members_lie_in_their_struct() -> None:
    w = Writer()
    w.int("u32", 4)
    w.compound("struct", "s", 8, ("a", 1, 0), ("end", 1, 64))
    assert Btf(w.bytes()).member(2, "end") == (1, 64, 0)
    w = Writer()
    w.int("u32", 4)
    w.compound("struct", "s", 8, ("a", 1, 65))
    assert "item 0 of type 2 lies outside" in refused(w)
    w = Writer()
    w.int("u32", 4)
    w.compound("struct", "s", 8, ("a", 1, 65), bits=(1,))
    assert "item 0 of type 2 lies outside" in refused(w)
    w = Writer()
    w.enum("e", 3, A=1)
    assert "type 1 is an enum of 3 bytes" in refused(w)


@pytest.mark.parametrize(
    "make",
    [
        lambda w: w.refer("typedef", 1, "self"),
        lambda w: w.refer("ptr", 1),
        lambda w: (w.refer("const", 2), w.refer("volatile", 1)),
        lambda w: w.array(1, 2),
        lambda w: w.compound("struct", "s", 8, ("", 1, 0)),
        lambda w: (w.compound("struct", "s", 8, ("a", 2, 0)), w.array(1, 1)),
        lambda w: (w.refer("ptr", 2), w.proto(0, ("a", 1))),
        lambda w: (w.refer("ptr", 2), w.proto(1)),
    ],
)
def test_circles_are_refused(make: Callable[[Writer], Any]) -> None:
    w = Writer()
    make(w)
    assert "leads back to itself" in refused(w)


def test_a_struct_may_point_to_itself() -> None:
    w = Writer()
    w.compound("struct", "s", 8, ("next", 2, 0), ("call", 3, 0))
    w.refer("ptr", 1)
    w.refer("ptr", 4)
    w.proto(2, ("s", 2))
    assert len(Btf(w.bytes())) == 5


@pytest.mark.parametrize("kind", ["ptr", "const", "typedef"])
@pytest.mark.parametrize("downward", [True, False])
def test_long_chains_are_refused(kind: str, downward: bool) -> None:
    def chain(length: int) -> Writer:
        w = Writer()
        ids = range(1, length + 1)
        for id_ in ids:
            w.refer(kind, id_ - 1 if downward else (id_ + 1) % (length + 1), "t")
        return w

    assert len(Btf(chain(90).bytes())) == 91
    assert "leads to too many others" in refused(chain(101))
    assert "leads to too many others" in refused(chain(30000))


def test_types_that_double_at_every_level_are_refused() -> None:
    def doubling(levels: int, make: Callable[[Writer, int], Any]) -> Writer:
        w = Writer()
        w.int("u8", 1)
        for level in range(1, levels + 1):
            make(w, level)
        return w

    def struct(w: Writer, below: int) -> None:
        w.compound("struct", "", 1 << below, ("", below, 0), ("", below, 0))

    def proto(w: Writer, below: int) -> None:
        w.proto(below, ("a", below))

    for make in (struct, proto):
        assert len(Btf(doubling(18, make).bytes())) == 20
        assert "leads to too many others" in refused(doubling(40, make))


def test_a_base_must_fit() -> None:
    base = every_kind("<")
    with pytest.raises(ValueError, match="does not fit to its base"):
        Btf(split(every_kind(">")).bytes(), base=Btf(base.bytes()))
    # Without its base the ids lead nowhere.
    with pytest.raises(ValueError, match="BTF: "):
        Btf(split(base).bytes())


def test_any_change_is_refused_or_harmless() -> None:
    dice = random.Random(1)
    seed = every_kind().bytes()
    outcomes = set()
    for _ in range(3000):
        data = bytearray(seed)
        for _ in range(dice.randint(1, 4)):
            data[dice.randrange(len(data))] = dice.choice((0, 1, 5, 127, 128, 255))
        try:
            btf = Btf(bytes(data))
        except ValueError as error:
            outcomes.add(str(error).split(" ", 3)[-1])
            continue
        outcomes.add("fine")
        for id_ in range(len(btf)):
            type_ = btf.type(id_)
            assert len(type_["items"]) < len(data)
            btf.member(id_, "pgmap")
    assert "fine" in outcomes and len(outcomes) > 10, outcomes
