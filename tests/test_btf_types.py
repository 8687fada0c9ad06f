# SPDX-License-Identifier: LGPL-2.1-or-later
"""Types out of BTF as drgn's: the same as those out of DWARF, of one object file.

Those of real kernels, and the reports out of both, are compared by the lab (scripts/lab/btf_types.py).
"""

from __future__ import annotations

import copy
import re
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import pytest
from btf_samples import Writer, every_kind
from btf_types import differences, report_differences, spelled
from conftest import open_vmcore
from drgn import (
    Architecture,
    FindObjectFlags,
    Object,
    Platform,
    PlatformFlags,
    Program,
    Qualifiers,
    Type,
    TypeKind,
    sizeof,
)
from kallsyms_samples import BASE, FORMATS, SYMBOLS, sample

from zonedev._zonedev import Btf, Kallsyms
from zonedev.audit import audit
from zonedev.errors import TargetError
from zonedev.kallsymsfile import Symbol
from zonedev.kernel import btf as kernel_btf
from zonedev.kernel.btf import BtfTypes, read_btf, register, type_finder, use_btf
from zonedev.kernel.symbols import Row, read_kallsyms, text_ranges
from zonedev.kernel.translate import physical_address
from zonedev.model import Finding
from zonedev.report.data import audit_dict
from zonedev.target import Target, open_target

AMD64 = Platform(Architecture.X86_64, PlatformFlags.IS_64_BIT | PlatformFlags.IS_LITTLE_ENDIAN)

# No array of arrays: gcc 12 writes their lengths in the wrong order.
SOURCE = """
enum sign { MINUS = -1, PLUS = 1 };
enum plain { ZERO, MANY = 1 << 30 };
struct later;
struct inner { int a; const char *name; };
typedef struct inner inner_t;
typedef int (*callback_t)(struct later *, const volatile unsigned long *, ...);
struct outer {
	struct outer *next, **pprev;
	union { inner_t in; struct { unsigned short x, y; struct later *later; }; };
	unsigned int low:3, high:29;
	_Bool flag:1;
	long long wide;
	signed char c; unsigned char uc; short s; float f; double d;
	enum sign sign; enum plain plain;
	callback_t call;
	void (*nothing)(void);
	void *const restrict pointer;
	inner_t rows[3];
	unsigned long tail[];
};
struct outer one;
"""


# ---------------------------------------------------------------- one object file


def section(path: Path, wanted: str) -> Optional[bytes]:
    """The bytes of a section of a 64-bit little-endian ELF file."""
    with path.open("rb") as file:
        header = file.read(64)
        (at,) = struct.unpack_from("<Q", header, 40)
        size, count, strings = struct.unpack_from("<HHH", header, 58)
        file.seek(at)
        table = file.read(size * count)
        rows = [struct.unpack_from("<IIQQQQ", table, i * size) for i in range(count)]
        file.seek(rows[strings][4])
        names = file.read(rows[strings][5])
        for name, _, _, _, offset, length in rows:
            if names[name:].split(b"\0", 1)[0].decode() == wanted:
                file.seek(offset)
                return file.read(length)
    return None


def with_dwarf(path: Path) -> Program:
    prog = Program(AMD64)
    module = prog.extra_module(str(path), create=True)
    # drgn 0.1 gives the module alone, later ones also say whether it is new.
    (module[0] if isinstance(module, tuple) else module).try_file(str(path), force=True)
    return prog


def with_btf(btf: Btf) -> Program:
    prog = Program(AMD64)
    prog.register_type_finder("btf", type_finder(BtfTypes(prog, btf)), enable_index=0)
    return prog


def test_differences_are_seen() -> None:
    def types(change: bool) -> Program:
        w = Writer()
        w.int("int", 4, 1)
        w.int("unsigned int", 4)
        w.compound("struct", "in", 8, ("a", 2 if change else 1, 0))
        w.compound("struct", "s", 32, ("x", 3, 0), ("y", 1, 128 if change else 64))
        return with_btf(Btf(w.bytes()))

    found = list(differences(types(False).type("struct s"), types(True).type("struct s"), "s"))
    assert len(found) == 2
    assert found[0].startswith("s.x.a: ") and found[1] == "s.y at 64 is y at 128"


# ---------------------------------------------------------------- an object file


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Program, Program]:
    """The same types out of DWARF and out of BTF."""
    path = tmp_path_factory.mktemp("btf") / "types.so"
    words = ("-g", "-gbtf", "-fPIC", "-shared", "-nostdlib", "-Wl,--build-id", "-x", "c", "-")
    compiler = shutil.which("gcc")
    built = compiler and subprocess.run(
        [compiler, *words, "-o", path], input=SOURCE.encode(), capture_output=True, check=False
    )
    btf = section(path, ".BTF") if built and built.returncode == 0 else None
    if btf is None:
        pytest.skip(
            "one source as DWARF and as BTF takes gcc 12 or later, which writes both; zonedev itself needs no compiler "
            "to read them, and the other tests here use BTF that they write themselves"
        )
    return with_dwarf(path), with_btf(Btf(btf))


@pytest.mark.parametrize("name", ["struct outer", "inner_t", "enum sign", "enum plain"])
def test_btf_and_dwarf_say_the_same(both: tuple[Program, Program], name: str) -> None:
    dwarf, btf = (prog.type(name) for prog in both)
    assert list(differences(dwarf, btf, name)) == []
    assert sizeof(dwarf) == sizeof(btf)
    assert re.sub(r"\[0?\]", "[]", str(btf)) == str(dwarf)


def test_declarations_are_spelled_the_same(both: tuple[Program, Program]) -> None:
    names = [[spelled(m.type) for m in prog.type("struct outer").members] for prog in both]
    assert names[0] == names[1]


# ---------------------------------------------------------------- every kind


def test_every_kind_becomes_one_of_drgns() -> None:
    w = every_kind()
    prog = Program(AMD64)
    types = BtfTypes(prog, Btf(w.bytes()))
    kinds = {types.type(i).kind for i in range(31)}
    assert kinds == set(TypeKind) - {TypeKind.CLASS}
    page = types.type(9)
    assert [m.name for m in page.members] == ["flags", None, "list", "t"]
    assert page.member("pgmap").bit_offset == 64
    assert page.member("pgmap").type.type.tag == "dev_pagemap"
    assert not page.member("pgmap").type.type.is_complete()
    assert types.type(12).kind == TypeKind.UNION
    assert types.type(28).member("b").bit_field_size == 29
    assert types.type(15).enumerators[0].value == 1 << 63
    assert types.type(16).enumerators[0].value == -(1 << 62)
    assert types.type(19).is_variadic and len(types.type(19).parameters) == 1
    assert types.type(21).qualifiers == Qualifiers.VOLATILE
    assert types.type(20) is types.type(20)


def test_types_are_found_by_their_kind() -> None:
    prog = with_btf(Btf(every_kind().bytes()))
    assert prog.type("struct page").size == 40
    assert prog.type("unsigned long").size == 8
    assert prog.type("_Bool").kind == TypeKind.BOOL
    assert prog.type("callback_t").kind == TypeKind.TYPEDEF
    assert prog.type("struct list_head *").type.tag == "list_head"
    for name in ("union page", "struct dev_pagemap", "enum page", "page"):
        with pytest.raises(LookupError):
            prog.type(name)
    with pytest.raises(LookupError):
        prog.type("struct page", "mm_types.h")


def test_a_declaration_is_its_only_definition() -> None:
    def pointer_to(*sizes: int) -> Type:
        w = Writer()
        for size in sizes:
            w.compound("struct", "dev_pagemap", size)
        w.refer("ptr", w.add("fwd", "dev_pagemap", 0))
        return BtfTypes(Program(AMD64), Btf(w.bytes())).type(len(sizes) + 2).type

    assert pointer_to(8).is_complete() and pointer_to(8).size == 8
    assert not pointer_to().is_complete()
    assert not pointer_to(8, 16).is_complete()


def test_signed_char_is_signed_where_btf_leaves_that_out() -> None:
    w = Writer()
    w.int("signed char", 1)
    w.int("unsigned char", 1)
    types = BtfTypes(Program(AMD64), Btf(w.bytes()))
    assert types.type(1).is_signed and not types.type(2).is_signed


def test_old_enums_with_high_values_are_signed() -> None:
    w = Writer()
    w.enum("old", 4, MINUS=-1, ONE=1)
    w.enum("flags", 4, LOW=1, HIGH=1 << 30)
    types = BtfTypes(Program(AMD64), Btf(w.bytes()))
    assert [e.value for e in types.type(1).enumerators] == [-1, 1]
    assert types.type(1).type.is_signed and not types.type(2).type.is_signed


# ---------------------------------------------------------------- a kernel's memory


def kernel(
    btf: bytes,
    size: Optional[int] = None,
    missing: bool = False,
    symbols: Sequence[Symbol] = (),
) -> Program:
    """A Program whose memory has BTF where its symbols say."""
    at = BASE + 0x400000
    every = [
        *SYMBOLS,
        *symbols,
        ("d", "per_cpu_page", BASE + 0x3FF000),
        ("T", "put_page", BASE + 0x101000),
        ("T", "_sinittext", BASE + 0x3F1000),
        ("T", "vmemmap_populate", BASE + 0x3F2000),
        ("T", "_einittext", BASE + 0x3F3000),
        ("R", "__start_BTF", at),
        ("R", "__stop_BTF", at + (len(btf) if size is None else size)),
    ]
    tables = sample(FORMATS["7.0"], every)
    prog = Program(AMD64)
    if not missing:
        prog.add_memory_segment(
            at, len(btf), lambda _a, count, offset, _p: btf[offset : offset + count]
        )
    kallsyms = Kallsyms(tables.image, BASE, ("_stext", BASE))
    register(BtfTypes(prog, read_btf(prog, kallsyms)), kallsyms)
    return prog


def test_objects_are_those_of_symbols_and_btf() -> None:
    prog = kernel(every_kind().bytes())
    assert prog["ZONE_DEVICE"].value_() == 4 and prog["BAD"].value_() == -1
    assert prog.constant("MOST").value_() == 1 << 63
    variable = prog.variable("per_cpu_page")
    assert variable.address_ == BASE + 0x3FF000 and variable.type_.tag == "page"
    assert prog.function("put_page").address_ == BASE + 0x101000
    assert prog.function("put_page").type_.parameters[0].name == "page"
    assert prog.function("vmemmap_populate").type_.is_variadic, "a function that BTF leaves out"
    for wrong in ("pgmap_array", "per_cpu", "twice", "misnamed"):
        with pytest.raises(LookupError):
            prog.object(wrong, FindObjectFlags.ANY)
    with pytest.raises(LookupError):
        prog.function("pgmap_array")
    with pytest.raises(LookupError):
        prog.constant("ZONE_DEVICE", "mmzone.h")


def test_variables_of_the_table_have_its_types() -> None:
    w = every_kind()
    w.compound("struct", "xarray", 16, ("xa_head", 1, 64))
    prog = kernel(w.bytes())
    assert prog["pgmap_array"].address_ == BASE + 0x200000
    assert prog["pgmap_array"].type_.tag == "xarray"


@pytest.mark.parametrize(
    ("told", "mask", "room", "nodes"),
    [
        ("LENGTH(node_data)=16", 8, 64, 16),
        ("LENGTH(node_data)=999999999", 8, 16, 16),
        ("", 128, 16, 1024),
        ("", 8, 16, 16),
        ("", 8, 24, 16),
        ("", 8, 200, 64),
        ("", 8, 0, 64),
    ],
)
def test_number_of_nodes(told: str, mask: int, room: int, nodes: int) -> None:
    """VMCOREINFO's, those of a large mask, or those that there is room for."""
    w = every_kind()
    w.enum("node_states", 4, N_ONLINE=0, NR_NODE_STATES=6)
    w.compound("struct", "pglist_data", 64)
    mask_id = w.array(1, mask // 8)
    w.refer("typedef", w.compound("struct", "nodemask", mask, ("bits", mask_id, 0)), "nodemask_t")
    at = BASE + 0x3F0000
    more = [("b", "behind", at + 8 * room)] if room else []
    prog = kernel(w.bytes(), symbols=[("b", "node_data", at), *more])
    tell(prog, told)
    found = prog["node_data"]
    assert (found.address_, found.type_.length) == (at, nodes)


def test_btf_of_memory_must_be_whole() -> None:
    data = every_kind().bytes()
    for btf, size, missing, words in (
        (data, len(data) - 1, False, "no header of one that fits there"),
        (b"\0" + data[1:], None, False, "no header of one that fits there"),
        (data[:-1] + b"x", None, False, "begin and end with a zero"),
        (data, None, True, "cannot be read"),
    ):
        with pytest.raises(TargetError, match=f"BTF: .*{words}"):
            kernel(btf, size, missing)


def tell(prog: Program, text: str) -> None:
    """Give a Program a VMCOREINFO."""
    info = prog.array_type(prog.int_type("char", 1, True), len(text) + 1)
    prog.register_object_finder(
        "info",
        lambda p, name, *_: (
            Object(p, info, text.encode() + b"\0") if name == "VMCOREINFO" else None
        ),
        enable_index=0,
    )


def of_functions_only(btf: bytes) -> Program:
    """A Program of a kernel without CONFIG_KALLSYMS_ALL, whose memory holds its image."""
    tables = sample(FORMATS["7.0"], [row for row in SYMBOLS if row[0] in "tT"])
    decoy = b"\x9f\xeb\x01\x00" + bytes(60)
    image = tables.image + bytes(-len(tables.image) % 8) + decoy + btf
    image += bytes(-len(image) % 4096)
    prog = Program(AMD64)
    prog.add_memory_segment(
        BASE, len(image), lambda _a, count, offset, _p: image[offset : offset + count]
    )
    told = {"_stext": BASE, "mem_section": 0xFFFF88813FFD7000, "init_uts_ns": BASE + 0x2000}
    tell(prog, "".join(f"SYMBOL({name})={at:x}\n" for name, at in told.items()))
    return prog


def test_a_kernel_whose_symbols_are_its_functions() -> None:
    w = every_kind()
    w.compound("struct", "mem_section", 32)
    w.compound("struct", "uts_namespace", 400)
    prog = of_functions_only(w.bytes())
    use_btf(prog)
    assert prog.type("struct page").size == 40
    assert prog.symbol("memremap_pages").address == BASE + 0x100000
    assert prog["mem_section"].value_() == 0xFFFF88813FFD7000
    assert prog["init_uts_ns"].address_ == BASE + 0x2000
    with pytest.raises(LookupError):
        prog["pgmap_array"]


def test_a_kernel_whose_symbols_are_its_functions_and_that_has_no_btf() -> None:
    with pytest.raises(TargetError, match="BTF: this kernel has none"):
        use_btf(of_functions_only(b""))


class FunctionsOnly:
    """The symbols that a kernel has without CONFIG_KALLSYMS_ALL."""

    def __init__(self, table: Kallsyms) -> None:
        self._table = table
        self._texts = text_ranges(table)

    def _has(self, row: Row) -> bool:
        inside = any(start <= row[1] < end for start, end in self._texts)
        return inside or row[0] in ("_etext", "_einittext")

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, i: int) -> Row:
        return self._table[i]

    def find(self, name: str) -> list[Row]:
        return [row for row in self._table.find(name) if self._has(row)]

    def at(self, address: int) -> Optional[Row]:
        row = self._table.at(address)
        return row if row and self._has(row) else None


@pytest.fixture
def functions_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        kernel_btf, "read_kallsyms", lambda prog: FunctionsOnly(read_kallsyms(prog))
    )


def key(finding: Finding) -> tuple[Any, ...]:
    return finding.rule, finding.pfn, finding.count, finding.severity


@pytest.mark.parametrize("name", ["6.16-btf-p2p-leak", "7.3-btf-hmm-leak"])
def test_a_core_whose_symbols_are_its_functions(functions_only: None, name: str) -> None:
    vmcore = open_vmcore(name)
    prog = open_target(Target(vmcore.core, btf=True))
    with pytest.raises(LookupError):
        prog.symbol("pgmap_array")
    found = audit(prog)
    assert found.verdict == "violations" and found.problems
    whole = audit(vmcore.prog)
    assert [p.pagemap.address for p in found.pagemaps] == [
        p.pagemap.address for p in whole.pagemaps
    ]
    errors = [
        sorted(key(f) for f in one.findings if f.severity == "error") for one in (found, whole)
    ]
    assert errors[0] == errors[1] and errors[0]


def test_page_tables_are_found_without_init_mm(functions_only: None) -> None:
    vmcore = open_vmcore("6.16-btf-p2p-leak")
    prog = open_target(Target(vmcore.core, btf=True))
    with pytest.raises(LookupError):
        prog["init_mm"]
    first = vmcore.kernel.pagemaps[0].ranges[0].start_pfn
    address = vmcore.kernel.layout.page_address(first)
    assert physical_address(prog, address) == physical_address(vmcore.prog, address)


# ---------------------------------------------------------------- the lab's comparison of reports


def test_reports_that_differ_are_told() -> None:
    vmcore = open_vmcore("7.2-nvdimm-leak")
    report = audit_dict(audit(vmcore.prog))
    other = copy.deepcopy(report)
    assert list(report_differences(report, other)) == []
    other["pagemaps"][0]["ops"] = "0xffffffff81000000"
    other["findings"][0]["detail"] = "in other words"
    other["not_applicable"][0]["why"] = "in other words"
    assert list(report_differences(report, other)) == []
    other["findings"][0]["refcount"] += 1
    other["pagemaps"][0]["classes"]["idle"] -= 1
    other["not_applicable"].append({"rule": "wrong-zone", "why": "no types"})
    told = [line.split(":")[0] for line in report_differences(report, other)]
    assert told == ["pagemaps", "findings", "rules that do not apply"]
