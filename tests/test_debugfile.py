# SPDX-License-Identifier: LGPL-2.1-or-later
"""Debug files: types, objects and symbols that drgn reads back are those that were put in.

Owns: the encoding, with a C program compiled by the host's compiler as the input.
Does not: open cores (test_slice.py does).
Invariant: each comparison is member by member, on what drgn gives for both files.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

drgn = pytest.importorskip("drgn")

from drgn import (  # noqa: E402
    Object,
    Program,
    Symbol,
    SymbolBinding,
    SymbolKind,
    Type,
    TypeKind,
)

from zonedev.debugfile import (  # noqa: E402
    DebugFile,
    ElfIdentity,
    Segment,
    read_elf_identity,
    type_key,
)

SOURCE = r"""
#include <stdbool.h>
struct far { long a; struct deeper { int b; } c; };
struct hidden;
enum colour { RED, GREEN = 5, BLUE };
enum sign { MINUS = -3, PLUS = 3 };
enum wide { HUGE_VALUE = 0xffffffffffffULL };
enum { NAMELESS = 77 };
typedef struct { int counter; } atomic_t;
typedef int (*callback_t)(struct far *, const char *fmt, ...);
struct inner { char tag[4]; unsigned short half; };
union both { long number; struct inner parts; };
struct everything {
	struct everything *self;
	struct far *far;
	struct hidden *hidden;
	union both both;
	atomic_t count;
	enum colour colour;
	enum sign sign;
	enum wide wide;
	bool flag;
	signed char small;
	unsigned char byte;
	char text[3][5];
	double real;
	const volatile unsigned long fixed;
	void *nothing;
	callback_t callback;
	struct { int x; union { int y; float z; }; };
	unsigned int low : 3, high : 7, : 0;
	int negative : 5;
	long zero[0];
	_Atomic int atomic;
	char *restrict exclusive;
	int tail[];
};
struct flexible { int n; struct inner items[]; };
struct everything global;
struct flexible flexible;
static const int constant = 42;
int use(const struct everything *e, ...) { return constant + (int)e->fixed + NAMELESS; }
static inline __attribute__((always_inline)) int inlined(int x) { return x * (int)global.fixed; }
int use_inlined(int y) { return inlined(y); }
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    # There is one: the extension that is under test was compiled.
    compiler = shutil.which("gcc") or shutil.which("cc") or "cc"
    directory = tmp_path_factory.mktemp("debugfile")
    (directory / "t.c").write_text(SOURCE)
    subprocess.run(
        [compiler, "-g", "-O1", "-shared", "-fPIC", "-o", "libt.so", "t.c"],
        cwd=directory,
        check=True,
    )
    return str(directory / "libt.so")


def open_file(path: str) -> Program:
    prog = Program(drgn.host_platform)
    module = prog.extra_module("test", create=True)
    module.address_range = (0x1000, 0x100000)
    module.try_file(path, force=True)
    assert module.debug_file_path is not None
    return prog


def identity(build_id: bytes = b"\x01\x02\x03\x04\x05") -> ElfIdentity:
    return ElfIdentity(62, 0, False, build_id, segments=(Segment(0x1000, 0x100000),))


def rebuild(file: DebugFile, tmp_path: Path) -> Program:
    path = tmp_path / "small.debug"
    path.write_bytes(file.build())
    return open_file(str(path))


def shape(type_: Type, pointers: int, seen: tuple[object, ...] = ()) -> object:
    """Everything that drgn knows about a type, following pointers `pointers` levels."""
    plain: list[object] = [type_.kind, type_.qualifiers, type_.language.name]
    if type_.kind in (TypeKind.INT, TypeKind.BOOL, TypeKind.FLOAT):
        signed = type_.is_signed if type_.kind == TypeKind.INT else None
        return (*plain, type_.name, type_.size, signed, type_.byteorder)
    if type_.kind == TypeKind.TYPEDEF:
        return (*plain, type_.name, shape(type_.type, pointers, seen))
    if type_.kind == TypeKind.POINTER:
        target = shape(type_.type, pointers - 1, seen) if pointers else type_.type.type_name()
        return (*plain, type_.size, target)
    if type_.kind == TypeKind.ARRAY:
        return (*plain, type_.length, shape(type_.type, pointers, seen))
    if type_.kind == TypeKind.FUNCTION:
        parameters = [(p.name, shape(p.type, 0, seen)) for p in type_.parameters]
        return (*plain, parameters, type_.is_variadic, shape(type_.type, 0, seen))
    if type_.kind == TypeKind.VOID:
        return plain
    plain.append(type_.tag)
    if not type_.is_complete() or type_key(type_) in seen:
        return (*plain, type_.is_complete())
    seen = (*seen, type_key(type_))
    if type_.kind == TypeKind.ENUM:
        return (*plain, type_.enumerators, shape(type_.type, pointers, seen))
    members = [
        (m.name, m.bit_offset, m.bit_field_size, shape(m.type, pointers, seen))
        for m in type_.members
    ]
    return (*plain, type_.size, members)


@pytest.mark.parametrize(
    "name",
    [
        "struct everything",
        "struct flexible",
        "union both",
        "enum colour",
        "enum sign",
        "enum wide",
        "atomic_t",
        "callback_t",
    ],
)
def test_type_is_the_same_member_by_member(library: str, tmp_path: Path, name: str) -> None:
    want = open_file(library).type(name)
    file = DebugFile(identity())
    file.add_type(want)
    got = rebuild(file, tmp_path).type(name)
    assert shape(got, 0) == shape(want, 0)


def test_comparison_sees_a_moved_member(library: str) -> None:
    prog = open_file(library)
    inner = prog.type("struct inner")
    first, second = inner.members
    moved = prog.struct_type("inner", inner.size, [drgn.TypeMember(first.type, "tag", 8), second])
    assert shape(moved, 0) != shape(inner, 0)


def test_pointer_target_is_a_declaration_until_followed(library: str, tmp_path: Path) -> None:
    want = open_file(library).type("struct everything")
    file = DebugFile(identity())
    file.add_type(want)
    far = rebuild(file, tmp_path).type("struct everything").member("far").type.type
    assert (far.tag, far.is_complete()) == ("far", False)
    file.follow_pointers()
    prog = rebuild(file, tmp_path)
    assert shape(prog.type("struct everything"), 1) == shape(want, 1)
    assert prog.type("struct far").is_complete()
    assert not prog.type("struct everything").member("hidden").type.type.is_complete()


def test_type_that_was_not_added_is_not_found(library: str, tmp_path: Path) -> None:
    file = DebugFile(identity())
    file.add_type(open_file(library).type("struct inner"))
    prog = rebuild(file, tmp_path)
    assert prog.type("struct inner").size == 6
    for name in ("struct far", "union both", "atomic_t"):
        with pytest.raises(LookupError):
            prog.type(name)


def test_first_of_two_definitions_is_found_by_name(tmp_path: Path) -> None:
    source = Program(drgn.host_platform)
    u32 = source.int_type("unsigned int", 4, False)
    first = source.struct_type("twice", 4, [drgn.TypeMember(u32, "a", 0)])
    second = source.struct_type("twice", 8, [drgn.TypeMember(u32, "b", 32)])
    pointer = source.pointer_type(second)
    holder = source.struct_type("holder", 8, [drgn.TypeMember(pointer, "p", 0)])
    file = DebugFile(identity())
    file.add_type(first)
    file.add_type(holder)
    prog = rebuild(file, tmp_path)
    # drgn completes a declaration by its tag alone: the pointer must not become one to the first.
    assert prog.type("struct holder").member("p").type.type.members[0].name == "b"
    assert prog.type("struct twice").members[0].name == "a"


def test_constant_is_found_with_its_enumeration(library: str, tmp_path: Path) -> None:
    original = open_file(library)
    file = DebugFile(identity())
    file.add_type(original.constant("NAMELESS").type_)
    file.add_type(original.type("enum sign"))
    prog = rebuild(file, tmp_path)
    assert prog.constant("NAMELESS").value_() == 77
    assert prog.constant("MINUS").value_() == -3
    with pytest.raises(LookupError):
        prog.constant("GREEN")


def test_objects_keep_address_value_and_absence(library: str, tmp_path: Path) -> None:
    original = open_file(library)
    file = DebugFile(identity())
    file.add_variable("global", original.type("struct everything"), address=0x4321)
    file.add_variable("constant", original.type("int"), value=b"\x2a\0\0\0")
    file.add_variable("gone", original.type("struct inner"))
    file.add_variable("empty", original.array_type(original.type("int"), 0), address=0x4000)
    file.add_variable("unknown", original.array_type(original.type("int")), address=0x4000)
    use, inlined = original.function("use"), original.function("inlined")
    file.add_function("use", use.type_, address=0x2345)
    file.add_function("inlined", inlined.type_)
    prog = rebuild(file, tmp_path)
    assert prog.variable("global").address_ == 0x4321
    assert prog.variable("constant").value_() == 42
    assert prog.variable("gone").absent_
    assert prog.variable("empty").type_.length == 0
    assert prog.variable("unknown").type_.length is None
    assert prog.function("use").address_ == 0x2345
    assert shape(prog.function("use").type_, 0) == shape(use.type_, 0)
    assert inlined.absent_ and prog.function("inlined").absent_
    with pytest.raises(LookupError):
        prog.object("use_inlined")


def symbol(name: str, address: int, size: int, binding: SymbolBinding) -> Symbol:
    return Symbol(name, address, size, binding, SymbolKind.OBJECT)


def test_symbols_by_name_and_address(tmp_path: Path) -> None:
    symbols = [
        symbol("visible", 0x3000, 0x20, SymbolBinding.GLOBAL),
        symbol("local", 0x3040, 0x10, SymbolBinding.LOCAL),
        symbol("weak", 0x3060, 8, SymbolBinding.WEAK),
    ]
    file = DebugFile(identity())
    for s in symbols:
        file.add_symbol(s, s.address)
    prog = rebuild(file, tmp_path)
    for s in symbols:
        assert prog.symbol(s.name) == s
        assert prog.symbol(s.address + s.size - 1) == s
    for missing in ("absent", 0x3020, 0x2FFF):
        with pytest.raises(LookupError):
            prog.symbol(missing)


def test_symbol_without_size_does_not_reach_further(tmp_path: Path) -> None:
    file = DebugFile(identity())
    file.add_symbol(symbol("marker", 0x3000, 0, SymbolBinding.GLOBAL), 0x3000)
    prog = rebuild(file, tmp_path)
    assert prog.symbol("marker").address == 0x3000
    with pytest.raises(LookupError):
        prog.symbol(0x3004)


def test_identity_survives(library: str, tmp_path: Path) -> None:
    want = read_elf_identity(library, b"\xaa" * 20)
    assert want.segments and not want.relocatable
    path = tmp_path / "small"
    path.write_bytes(DebugFile(want).build())
    assert read_elf_identity(str(path), b"\xaa" * 20) == want
    module = Program(drgn.host_platform).extra_module("test", create=True)
    module.build_id = b"\xaa" * 20
    module.try_file(str(path))  # not forced: drgn compares the build ID
    assert module.debug_file_path == str(path)


def test_wrong_build_id_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "small"
    path.write_bytes(DebugFile(identity(b"\xaa" * 20)).build())
    module = Program(drgn.host_platform).extra_module("test", create=True)
    module.build_id = b"\xab" * 20
    module.try_file(str(path))
    assert module.debug_file_path is None


def test_same_calls_give_same_bytes(library: str) -> None:
    def build() -> bytes:
        prog = open_file(library)
        file = DebugFile(identity())
        file.add_type(prog.type("struct everything"))
        file.add_variable("flexible", prog.type("struct flexible"), address=1)
        return file.build()

    assert build() == build()


@pytest.mark.parametrize("data", [b"", b"not ELF" * 20, b"\x7fELF\x01" + bytes(80)])
def test_other_file_is_no_identity(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    with pytest.raises(ValueError):
        read_elf_identity(str(path), b"")


def test_cut_off_program_headers_are_no_identity(library: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(Path(library).read_bytes()[:100])
    with pytest.raises(ValueError, match="ends early"):
        read_elf_identity(str(path), b"")


def test_object_of_a_rebuilt_type_decodes_memory(library: str, tmp_path: Path) -> None:
    original = open_file(library)
    file = DebugFile(identity())
    file.add_type(original.type("struct everything"))
    prog = rebuild(file, tmp_path)
    data = bytes(i * 37 & 0xFF for i in range(original.type("struct everything").size))
    want, got = (Object.from_bytes_(p, "struct everything", data) for p in (original, prog))
    for name in ("low", "high", "negative", "real", "y", "sign", "text", "fixed"):
        assert want.member_(name).value_() == got.member_(name).value_(), name
