# SPDX-License-Identifier: LGPL-2.1-or-later
"""`zonedev scheme`: what it calls legal is what the rules let pass, and the documentation says the same."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from conftest import NAMES, ROOT, Zonedev, assert_one_line, open_vmcore
from drgn import Program, Symbol, SymbolBinding, SymbolKind
from pages import EVIDENCE, MAPPING, Machine

from zonedev import _zonedev
from zonedev.audit import scheme
from zonedev.kernel.scheme import has_symbol
from zonedev.states import State, legal_states

LETTERS = [letter for letter in _zonedev.SCHEMES if letter != "unknown"]
# anon_vma pointers are tagged
WORDS = {"NULL": 0, "the file's": MAPPING, "the device's": MAPPING, "anon_vma": MAPPING | 1}
EXTRA = {"C": (), "E": ("p2pmem_alloc_mmap",), "D": ("page.share",)}


def page_of(state: State, n: int) -> dict[str, Any]:
    """The words of a folio in a legal state, n times mapped."""
    terms = state.refcount.partition(" (")[0].split("+")
    refcount = sum(n if term.strip() == "n" else int(term) for term in terms)
    mapping = state.mapping.removeprefix("NULL, or ")
    maps = n if state.mapcount == "n" else int(state.mapcount)
    if state.name == "shared by files":
        tagged = mapping.startswith("mapping == 1")
        return {"refcount": refcount, "maps": maps, "mapping": int(tagged), "share": 2}
    flags = ("locked",) if state.name == "allocated, not mapped" else ()
    return {"refcount": refcount, "maps": maps, "mapping": WORDS[mapping], "flags": flags}


def cases() -> list[Any]:
    return [
        pytest.param(letter, state, id=f"{letter}-{type_[14:]}-{state.name.replace(' ', '-')}")
        for letter in LETTERS
        for type_ in _zonedev.TYPES
        for state in legal_states(Machine(letter, type_[14:], *EXTRA.get(letter, ())).scheme, type_)
    ]


@pytest.mark.parametrize(("letter", "state"), cases())
@pytest.mark.parametrize("n", [1, 3])
def test_rules_let_every_legal_state_pass(letter: str, state: State, n: int) -> None:
    machine = Machine(letter, state.type[14:], *EXTRA.get(letter, ()))
    page = page_of(state, n)
    found, classes = machine.judge(machine.page(**page))
    assert not [f for f in found if f[1] != "info"], page
    assert (classes == {"idle"}) == (state.name == "free" or looks_free(machine, state, page))
    if " (" in state.refcount:
        dying = Machine(letter, state.type[14:], ref="dying")
        assert dying.judge(dying.page(refcount=0)) == ([], {"idle"})


def looks_free(machine: Machine, state: State, page: dict[str, Any]) -> bool:
    """In use, and not to be told from a free page by its own words."""
    at_rest = page["refcount"] == machine.idle and not page["maps"]
    return at_rest and (not page["mapping"] or state.type == "MEMORY_DEVICE_GENERIC")


@pytest.mark.parametrize(("letter", "state"), cases())
def test_rules_see_a_reference_that_was_lost(letter: str, state: State) -> None:
    machine = Machine(letter, state.type[14:], *EXTRA.get(letter, ()))
    page = page_of(state, 2)
    page["refcount"] -= 1
    found, _ = machine.judge(machine.page(**page))
    worst = {severity for _, severity in found}
    ambiguous = machine.scheme.columns(state.type)["mapped_base"] < machine.idle or (
        state.name == "allocated, not mapped" and page["refcount"] == machine.idle
    )
    assert "error" in worst or ambiguous, (page, found)


@pytest.mark.parametrize("name", NAMES)
def test_scheme_of_a_core(zonedev: Zonedev, name: str) -> None:
    vmcore = open_vmcore(name)
    report = scheme(vmcore.prog)
    assert report.id == vmcore.kernel.info.id and report.audit
    for type_, counts in report.seen.items():
        at = max(counts, key=lambda key: counts[key])
        assert at == str(report.audit.scheme.idle[type_]) or "teardown" in name
    args = (vmcore.core, *vmcore.types)
    text = zonedev("scheme", *args)
    assert text.status == 0 and f"scheme {report.id} (high confidence)" in text.out
    for state in report.states:
        cells = (state.type[14:], *state[1:])
        assert re.search(r"\s+".join(map(re.escape, cells)), text.out)
    answer = json.loads(zonedev("scheme", *args, "--format", "json").out)
    assert answer["schema"] == "zonedev.scheme/1" and answer["kernel"] == report.audit.kernel
    (row,) = answer["schemes"]
    assert row["evidence"] and row["seen"] == report.seen
    assert [tuple(state.values()) for state in row["states"]] == report.states


def test_a_symbol_is_asked_for_once_but_again_of_new_symbols() -> None:
    asked = []

    def find(prog: Program, name: str | None, address: int | None, one: bool) -> list[Symbol]:
        asked.append(name)
        return []

    def find_late(prog: Program, name: str | None, address: int | None, one: bool) -> list[Symbol]:
        late = Symbol("late", 0x1000, 8, SymbolBinding.GLOBAL, SymbolKind.OBJECT)
        return [late] if name == "late" else []

    prog = Program()
    prog.register_symbol_finder("empty", find, enable_index=0)
    assert not has_symbol(prog, "late") and not has_symbol(prog, "late")
    assert asked.count("late") == 1
    prog.register_symbol_finder("late", find_late, enable_index=1)
    assert has_symbol(prog, "late")


def test_all_schemes_without_a_target(zonedev: Zonedev) -> None:
    text = zonedev("scheme").out
    assert re.findall(r"^scheme (\w+):", text, re.MULTILINE) == LETTERS
    rows = json.loads(zonedev("scheme", "--format", "json").out)["schemes"]
    assert [row["id"] for row in rows] == LETTERS and not any("seen" in row for row in rows)


def test_a_scheme_of_a_damaged_core_is_a_target_error(zonedev: Zonedev, tmp_path: Any) -> None:
    assert_one_line(zonedev("scheme", str(tmp_path / "none")), "no such file")


def test_named_schemes_are_the_table() -> None:
    for letter in EVIDENCE:
        row = _zonedev.Scheme.named(letter)
        assert (row.id, row.confidence) == (letter, "low")
    with pytest.raises(ValueError, match="'Q'"):
        _zonedev.Scheme.named("Q")


@pytest.mark.parametrize("letter", LETTERS)
def test_documentation_has_the_table(letter: str) -> None:
    lines = (ROOT / "docs" / "schemes.md").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"| {letter} |")]
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    row = _zonedev.Scheme.named(letter)
    assert cells[1] == row.kernels or row.kernels.startswith("never released")
    for type_, cell in zip(_zonedev.TYPES, cells[2:7]):
        idle = row.columns(type_)["idle"]
        assert str(idle) in cell.split()[:3] if idle >= 0 else cell == "-"
