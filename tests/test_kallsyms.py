# SPDX-License-Identifier: LGPL-2.1-or-later
"""The reader of kallsyms: all formats, symbols by name and address, tables that do not agree."""

from __future__ import annotations

import random

import pytest
from drgn import Architecture, Platform, PlatformFlags, Program, SymbolBinding, SymbolKind
from kallsyms_samples import BASE, FORMATS, SYMBOLS, sample

from zonedev._zonedev import Kallsyms
from zonedev.kallsymsfile import Symbol, Tables
from zonedev.kernel.symbols import read_image, symbol_finder

KNOWN = ("_stext", BASE)


def read(tables: Tables, known: tuple[str, int] = KNOWN) -> Kallsyms:
    return Kallsyms(tables.image, tables.address, known, 8, tables.form.order == ">")


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_read(name: str) -> None:
    kallsyms = read(sample(FORMATS[name], SYMBOLS))
    assert [kallsyms[i][:2] for i in range(len(kallsyms))] == [
        (symbol, address) for _, symbol, address in SYMBOLS
    ]
    assert [kallsyms[i][3] for i in range(len(kallsyms))] == [letter for letter, _, _ in SYMBOLS]


def test_per_cpu_symbols_are_absolute() -> None:
    symbols: list[Symbol] = [("A", "per_cpu_start", 0), ("D", "counter", 0x1234), *SYMBOLS]
    for name in ("5.10", "6.2", "6.4-per-cpu"):
        kallsyms = read(sample(FORMATS[name], symbols))
        assert kallsyms.find("counter") == [("counter", 0x1234, BASE - 0x1234, "D")]


def test_symbols_are_found_by_name() -> None:
    kallsyms = read(sample(FORMATS["6.4"], SYMBOLS))
    assert kallsyms.find("pgmap_array") == [("pgmap_array", BASE + 0x200000, 16, "b")]
    assert [symbol[1] for symbol in kallsyms.find("twice")] == [BASE + 0x200010, BASE + 0x200020]
    assert kallsyms.find("pgmap") == [] and kallsyms.find("") == []


def test_symbols_are_found_by_address() -> None:
    kallsyms = read(sample(FORMATS["7.0"], SYMBOLS))
    assert kallsyms.at(BASE - 1) is None
    assert kallsyms.at(BASE) == ("_stext", BASE, 0x40, "T")
    assert kallsyms.at(BASE + 0x43) == ("function_0.isra.0", BASE + 0x40, 0x40, "t")
    found = kallsyms.at(BASE + 0x100004)
    assert found == ("alias_of_memremap_pages", BASE + 0x100000, 0x80000, "T")
    assert kallsyms.at((1 << 64) - 1) == ("_end", BASE + 0x300000, 0, "B")


def test_long_names_have_two_bytes_of_length() -> None:
    name = "x" * 300
    kallsyms = read(sample(FORMATS["6.4"], [*SYMBOLS, ("t", name, BASE + 0x400000)]))
    assert kallsyms.find(name)[0][1] == BASE + 0x400000
    with pytest.raises(ValueError, match="too long"):
        read(sample(FORMATS["6.4"], [*SYMBOLS, ("t", "function_" * 64, BASE + 0x400000)]))


def test_a_kernel_that_lies_elsewhere_is_read_where_it_lies() -> None:
    moved = 0x3C000000
    symbols = [(letter, name, address + moved) for letter, name, address in SYMBOLS]
    kallsyms = read(sample(FORMATS["7.0"], symbols, BASE + moved), ("_stext", BASE + moved))
    assert kallsyms.find("pgmap_array")[0][1] == BASE + moved + 0x200000


def test_the_known_symbol_must_lie_where_it_does() -> None:
    for form in FORMATS.values():
        tables = sample(form, SYMBOLS)
        with pytest.raises(ValueError, match="no table of addresses"):
            read(tables, ("_stext", BASE + 8))
        with pytest.raises(ValueError, match="not among the names"):
            read(tables, ("_edata", BASE))


@pytest.mark.parametrize("table", ["count", "markers", "tokens", "index"])
@pytest.mark.parametrize("name", ["7.0", "6.4", "5.10"])
def test_tables_that_disagree_are_not_believed(name: str, table: str) -> None:
    tables = sample(FORMATS[name], SYMBOLS)
    at = tables.at[table] + {"markers": 4, "tokens": 5, "index": 300}.get(table, 0)
    tables.image[at] = 0 if table == "tokens" else tables.image[at] ^ 1
    with pytest.raises(ValueError, match="no tables"):
        read(tables)


def test_tables_are_found_behind_others_that_are_none() -> None:
    tables = sample(FORMATS["6.4"], SYMBOLS)
    tables.image[:21] = b"\0" + b"".join(b"%d\0" % n for n in range(10))
    assert len(read(tables)) == len(SYMBOLS)


def test_an_image_without_tables_is_refused() -> None:
    for data in (b"", bytes(4096), b"\0" + b"".join(b"%d\0" % n for n in range(10)) * 2000):
        with pytest.raises(ValueError, match="no tables"):
            Kallsyms(data, BASE, KNOWN)
    with pytest.raises(ValueError, match="words of 2 bytes"):
        Kallsyms(b"", BASE, KNOWN, 2)
    with pytest.raises(ValueError, match="image"):
        Kallsyms(b"", BASE + 4, KNOWN)


def test_every_cut_and_any_change_is_refused_or_harmless() -> None:
    dice = random.Random(1)
    outcomes = set()
    for form in FORMATS.values():
        seed = sample(form, SYMBOLS)
        begin, end = min(seed.at.values()) - 8, len(seed.image) - 512
        for _ in range(60):
            image = seed.image[:]
            for _ in range(dice.randint(1, 3)):
                image[dice.randrange(begin, end)] = dice.choice((0, 1, 127, 128, 255))
            if dice.randrange(4) == 0:
                del image[dice.randrange(begin, end) :]
            try:
                kallsyms = Kallsyms(image, BASE, KNOWN, 8, form.order == ">")
            except ValueError as error:
                outcomes.add(str(error))
                continue
            outcomes.add("fine")
            for i in range(len(kallsyms)):
                kallsyms.at(kallsyms[i][1])
    assert "fine" in outcomes and len(outcomes) >= 3, outcomes


# ---------------------------------------------------------------- as drgn's


def program(data: bytes, address: int) -> Program:
    flags = PlatformFlags.IS_64_BIT | PlatformFlags.IS_LITTLE_ENDIAN
    prog = Program(Platform(Architecture.X86_64, flags))
    prog.add_memory_segment(
        address,
        len(data),
        lambda _address, count, offset, _physical: data[offset : offset + count],
    )
    return prog


def test_drgn_finds_symbols() -> None:
    prog = program(b"", 0)
    prog.register_symbol_finder(
        "kallsyms", symbol_finder(read(sample(FORMATS["6.4"], SYMBOLS))), enable_index=0
    )
    symbol = prog.symbol("pgmap_array")
    assert (symbol.address, symbol.size) == (BASE + 0x200000, 16)
    assert (symbol.binding, symbol.kind) == (SymbolBinding.LOCAL, SymbolKind.OBJECT)
    symbol = prog.symbol(BASE + 0x100001)
    assert symbol.name == "alias_of_memremap_pages" and symbol.kind == SymbolKind.FUNC
    assert symbol.binding == SymbolBinding.GLOBAL
    assert prog.symbol("misnamed").kind == SymbolKind.OBJECT, "outside of the text"
    assert len(prog.symbols("twice")) == 2
    assert len(prog.symbols()) == len(SYMBOLS)
    for wrong in ("pgmap", BASE - 1, BASE + 0x300000):
        with pytest.raises(LookupError):
            prog.symbol(wrong)


def test_names_of_symbols_are_printable() -> None:
    prog, address = program(b"", 0), BASE + 0x200000
    tables = sample(FORMATS["6.4"], SYMBOLS)
    # As a crafted dump may have it: the token that stands for "g" is an escape.
    assert tables.image.count(b"f\0g\0h\0") == 1
    tables.image = tables.image.replace(b"f\0g\0h\0", b"f\0\x1b\0h\0")
    prog.register_symbol_finder("kallsyms", symbol_finder(read(tables)), enable_index=0)
    assert prog.symbol(address).name == r"p\x1bmap_array"


def test_the_image_is_read_across_what_is_missing() -> None:
    data = bytes(range(1, 251)) * 9000
    prog = program(data, BASE)
    image = read_image(prog, BASE)
    # The last piece is not whole: its pages are read one by one, up to the last whole one.
    whole = len(data) // 4096 * 4096
    assert image[:whole] == data[:whole] and not any(image[whole:])
    assert len(image) < 16 << 20
    later = BASE + (4 << 20)
    prog.add_memory_segment(later, 1 << 20, lambda _a, count, _o, _p: b"x" * count)
    assert read_image(prog, BASE)[4 << 20 : 5 << 20] == b"x" * (1 << 20)
