# SPDX-License-Identifier: LGPL-2.1-or-later
"""Slices that need no debug file: the same report, the same types, and nothing written where that cannot be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import btf_types
import pytest
from btf_samples import Writer, every_kind, split
from conftest import Zonedev, assert_one_line, open_vmcore
from drgn import Program
from kallsyms_samples import FORMATS, SYMBOLS, sample

from zonedev import cli, slice_btf
from zonedev._zonedev import Btf, Kallsyms
from zonedev.btffile import Key, thin
from zonedev.errors import TargetError

# Of one kernel, but of two boots: types out of BTF, and out of DWARF.
PAIRS = {
    "5.10-btf-nvdimm-leak": "5.10-nvdimm-leak",
    "6.16-btf-p2p-leak": "6.16-p2p-leak",
    "7.3-btf-hmm-leak": "7.3-hmm-leak",
}
SMALL = "6.16-btf-p2p-leak"


def both(name: str) -> tuple[Program, Program]:
    return open_vmcore(PAIRS[name]).prog, open_vmcore(name).prog


def in_both(name: str, type_: str) -> bool:
    try:
        return all(prog.type(type_).is_complete() for prog in both(name))
    except LookupError:
        return False


# ---------------------------------------------------------------- bundled cores


@pytest.mark.parametrize("name", PAIRS)
def test_types_are_those_of_debug_information(name: str) -> None:
    common = [one for one in btf_types.KERNEL_TYPES if in_both(name, one)]
    assert {"struct page", "struct dev_pagemap", "enum memory_type"} < set(common)
    assert len(common) > 15
    dwarf, btf = both(name)
    for one in common:
        assert list(btf_types.differences(dwarf.type(one), btf.type(one), one)) == []


@pytest.mark.parametrize("name", PAIRS)
def test_layouts_are_those_of_debug_information(name: str) -> None:
    dwarf, btf = (open_vmcore(one).kernel for one in (PAIRS[name], name))
    assert btf.layout.spec == dwarf.layout.spec
    assert (btf.info.id, btf.info.evidence) == (dwarf.info.id, dwarf.info.evidence)


@pytest.mark.parametrize("name", PAIRS)
def test_reports_say_where_types_come_from(zonedev: Zonedev, name: str) -> None:
    # No --btf: there is nothing else.
    report = json.loads(zonedev("audit", open_vmcore(name).core, "--format", "json").out)
    tool = report["tool"]
    assert tool["types_from"] == "btf" and tool["symbols_from"] == "kallsyms"


# ---------------------------------------------------------------- slicing


def report_of(zonedev: Zonedev, core: object) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(zonedev("audit", core, "--btf", "--format", "json").out)
    return {key: value for key, value in report.items() if key not in ("timing", "target", "tool")}


@pytest.mark.parametrize("name", PAIRS)
def test_a_slice_gives_the_same_report(zonedev: Zonedev, tmp_path: Path, name: str) -> None:
    core = open_vmcore(name).core
    answer = zonedev("slice", core, "-o", tmp_path)
    assert answer.status == 0 and answer.out.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["vmcore"]
    assert report_of(zonedev, tmp_path / "vmcore") == report_of(zonedev, core)


def test_debug_information_that_is_installed_is_not_needed(
    zonedev: Zonedev, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = iter(("dwarf", "btf", "btf", "btf", "btf", "btf"))
    monkeypatch.setattr(cli, "types_from", lambda prog: next(found))
    answer = zonedev("slice", open_vmcore(SMALL).core, "-o", tmp_path)
    assert answer.status == 0
    assert [path.name for path in tmp_path.iterdir()] == ["vmcore"]


def test_a_slice_has_the_symbols_with_their_sizes(tmp_path: Path) -> None:
    core = open_vmcore(SMALL)

    def run(prog: Program) -> list[tuple[int, int]]:
        found = [prog.symbol(name) for name in ("pgmap_array", "_stext")]
        return [(symbol.address, symbol.size) for symbol in found]

    result = slice_btf.slice_btf(core.core, str(tmp_path), run)
    prog = slice_btf._open(result.core)[1]
    assert [prog.find(name)[0][1:3] for name in ("pgmap_array", "_stext")] == result.report
    assert len(prog) < 400


def test_another_answer_is_not_written(tmp_path: Path) -> None:
    answers = iter((1, 1, 2))
    with pytest.raises(TargetError, match="another answer"):
        slice_btf.slice_btf(open_vmcore(SMALL).core, str(tmp_path), lambda _prog: next(answers))
    assert list(tmp_path.iterdir()) == []


def test_the_same_core_gives_the_same_bytes(zonedev: Zonedev, tmp_path: Path) -> None:
    outs = [tmp_path / name for name in ("a", "b")]
    for out in outs:
        assert zonedev("slice", open_vmcore(SMALL).core, "-o", out).status == 0
    one, other = ((out / "vmcore").read_bytes() for out in outs)
    assert one == other


def test_a_slice_does_not_replace_what_it_is_cut_from(zonedev: Zonedev) -> None:
    core = open_vmcore(SMALL).core
    assert_one_line(zonedev("slice", core, "-o", Path(core).parent), "holds the input")


def test_nor_what_a_link_leads_to(zonedev: Zonedev, tmp_path: Path) -> None:
    (tmp_path / "dumps").mkdir()
    real = tmp_path / "dumps" / "vmcore"
    real.write_bytes(Path(open_vmcore(SMALL).core).read_bytes())
    (tmp_path / "link").symlink_to(real)
    before = real.stat()
    answer = zonedev("slice", tmp_path / "link", "-o", tmp_path / "dumps")
    assert_one_line(answer, "holds the input")
    assert real.stat().st_size == before.st_size and real.stat().st_ino == before.st_ino


def kallsyms(*names: str) -> Kallsyms:
    last = SYMBOLS[-1][2]
    symbols = [*SYMBOLS, *(("d", name, last + 16 * i) for i, name in enumerate(names, 1))]
    image = sample(FORMATS["6.4"], symbols)
    return Kallsyms(image.image, image.address, SYMBOLS[0][1:])


def test_symbols_keep_their_sizes() -> None:
    table = kallsyms()
    chosen = slice_btf._chosen(table, table.find("pgmap_array"))
    again = sample(FORMATS["6.4"], chosen)
    thin_table = Kallsyms(again.image, again.address, SYMBOLS[0][1:])
    assert len(thin_table) < len(table)
    assert thin_table.find("pgmap_array") == table.find("pgmap_array")


@pytest.mark.parametrize(
    "names, why",
    [
        ((), "where its BTF lies"),
        (("__start_BTF", "__stop_BTF"), "leaves no room"),
        (("__stop_BTF", "__start_BTF"), "would lie at"),
    ],
)
def test_what_cannot_be_sliced_is_said(names: tuple[str, ...], why: str) -> None:
    with pytest.raises(TargetError, match=why):
        slice_btf._Room("core", kallsyms(*names)).fill(b"\0" * 8, FORMATS["6.4"], SYMBOLS[:300])


# ---------------------------------------------------------------- thin BTF


def named(btf: Btf, name: str, *kinds: str) -> dict[str, Any]:
    """A type, with names where it has ids."""
    (id_,) = btf.find(name, kinds)
    return spelled(btf, id_)


def spelled(btf: Btf, id_: int) -> dict[str, Any]:
    facts = btf.type(id_)
    to = btf.type(facts["type"])
    items = [
        tuple(
            btf.type(part)["kind"] if i == 1 and facts["kind"] not in ("enum", "enum64") else part
            for i, part in enumerate(item)
        )
        for item in facts["items"]
    ]
    return facts | {"type": (to["kind"], to["name"]), "items": items}


@pytest.mark.parametrize("order", ["<", ">"])
def test_every_kind_comes_through(order: str) -> None:
    btf = Btf(every_kind(order).bytes())
    of_datasec = {i for i in range(1, len(btf)) if btf.type(i)["kind"] in ("datasec", "decl_tag")}
    ids = [i for i in range(1, len(btf)) if i not in of_datasec]
    again = Btf(thin([btf], [Key(0, i) for i in ids], order))
    assert [spelled(again, i) for i in range(1, len(again))] == [spelled(btf, i) for i in ids]


def test_what_is_pointed_to_is_declared() -> None:
    btf = Btf(every_kind().bytes())
    (page,) = btf.find("page", ("struct",))
    again = Btf(thin([btf], [Key(0, page)], "<"))
    assert named(again, "page", "struct") == named(btf, "page", "struct")
    assert again.find("dev_pagemap", ("fwd",)) and not again.find("zone_type", ("enum",))
    # By value: the whole of it, with its pointers to itself.
    assert named(again, "list_head", "struct")["size"] == 16


def test_a_declaration_beside_a_definition_of_its_name() -> None:
    def two() -> Writer:
        w = Writer()
        w.int("int", 4, 1)
        w.compound("struct", "twice", 4, ("first", 1, 0))
        w.compound("struct", "twice", 8, ("second", 1, 0))
        w.refer("ptr", 3)
        w.compound("struct", "holder", 8, ("to", 4, 0))
        return w

    btf = Btf(two().bytes())
    again = Btf(thin([btf], [Key(0, 2), Key(0, 5)], "<"))
    # The pointer leads to the second, which would be taken for the first if it were declared only.
    sizes = [again.type(i)["size"] for i in again.find("twice", ("struct",))]
    assert sizes == [4, 8]
    (holder,) = again.find("holder", ("struct",))
    pointer = again.type(again.type(holder)["items"][0][1])
    assert again.type(pointer["type"])["size"] == 8


def test_types_of_modules_stand_behind_the_kernels() -> None:
    base = every_kind()
    btf = Btf(base.bytes())
    module = Btf(split(base).bytes(), 8, btf)
    (mine,) = module.find("mine", ("struct",))
    kernels = btf.find("zone_type", ("enum",))[0]
    own = module.find("zone_type", ("enum",))[0]
    again = Btf(thin([btf, module], [Key(1, own), Key(1, mine), Key(0, kernels)], "<"))
    assert named(again, "mine", "struct") == spelled(module, mine)
    first, second = again.find("zone_type", ("enum",))
    assert spelled(again, first) == spelled(btf, kernels)
    assert spelled(again, second) == spelled(module, own)


def test_the_formats_of_kallsyms_are_told() -> None:
    for form in FORMATS.values():
        tables = sample(form, SYMBOLS)
        found = Kallsyms(tables.image, tables.address, SYMBOLS[0][1:], 8, form.order == ">")
        # Without symbols of CPUs, both mean the same; what is tried first is told.
        same = {"per-cpu": ("per-cpu", "base")}.get(form.encoding, (form.encoding,))
        assert found.form[0] in same and found.form[1:] == (form.behind, form.align)


def test_bundled_cores_keep_the_form_of_their_kernel() -> None:
    forms = {name: slice_btf._open(open_vmcore(name).core)[1].form for name in PAIRS}
    assert forms == {
        "5.10-btf-nvdimm-leak": ("per-cpu", False, 8),
        "6.16-btf-p2p-leak": ("base", True, 8),
        "7.3-btf-hmm-leak": ("place", True, 4),
    }
