# SPDX-License-Identifier: LGPL-2.1-or-later
"""Small ELF debug files: chosen types, variables, functions and symbols of a kernel.

Owns: the DWARF 4 and ELF encoding of what a caller gives as drgn objects, and of nothing else.
Does not: decide what is needed or read a core (slice.py does), or know a kernel type by name.
Invariant: a type that is emitted complete has the members, offsets and enumerators that drgn gave;
every other type is a declaration. The same calls in the same order give the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Optional, Union

from drgn import Symbol, SymbolBinding, Type, TypeKind, TypeMember

_COMPOUND_TAGS = {TypeKind.STRUCT: 0x13, TypeKind.UNION: 0x17, TypeKind.CLASS: 0x02}
_ENUM_TAG = 0x04
_QUALIFIER_TAGS = ((1, 0x26), (2, 0x35), (4, 0x37), (8, 0x47))  # drgn.Qualifiers bit, DW_TAG_*

_TAG_ARRAY, _TAG_PARAMETER, _TAG_MEMBER, _TAG_POINTER = 0x01, 0x05, 0x0D, 0x0F
_TAG_COMPILE_UNIT, _TAG_SUBROUTINE, _TAG_TYPEDEF, _TAG_UNSPECIFIED = 0x11, 0x15, 0x16, 0x18
_TAG_SUBRANGE, _TAG_BASE, _TAG_ENUMERATOR, _TAG_SUBPROGRAM, _TAG_VARIABLE = (
    0x21,
    0x24,
    0x28,
    0x2E,
    0x34,
)

_AT_LOCATION, _AT_NAME, _AT_BYTE_SIZE, _AT_LOW_PC, _AT_LANGUAGE = 0x02, 0x03, 0x0B, 0x11, 0x13
_AT_CONST_VALUE, _AT_PROTOTYPED, _AT_COUNT, _AT_BIT_SIZE = 0x1C, 0x27, 0x37, 0x0D
_AT_MEMBER_LOCATION, _AT_DECLARATION, _AT_ENCODING, _AT_EXTERNAL = 0x38, 0x3C, 0x3E, 0x3F
_AT_TYPE, _AT_DATA_BIT_OFFSET = 0x49, 0x6B

_FORM_ADDR, _FORM_BLOCK, _FORM_SDATA, _FORM_STRP, _FORM_UDATA = 0x01, 0x09, 0x0D, 0x0E, 0x0F
_FORM_REF4, _FORM_EXPRLOC, _FORM_FLAG_PRESENT = 0x13, 0x18, 0x19

_LANGUAGE_C99 = 0x0C
_OP_ADDR = b"\x03"
_CU_HEADER_SIZE = 11  # unit_length, version, debug_abbrev_offset, address_size
_U64 = (1 << 64) - 1

_SHT_PROGBITS, _SHT_SYMTAB, _SHT_STRTAB, _SHT_NOTE, _SHT_NOBITS = 1, 2, 3, 7, 8
_SHF_ALLOC, _SHF_EXECINSTR, _SHF_MERGE_STRINGS = 2, 4, 0x30
_SHN_ABS = 0xFFF1
_ET_REL = 1
_PT_LOAD = 1


class _Ref(NamedTuple):
    """A reference to the type with this node number."""

    node: int


_Attr = tuple[int, int, Union[int, str, bytes, _Ref, None]]


class _Die(NamedTuple):
    """One debugging information entry; hashable, so that equal unnamed types share a node."""

    tag: int
    attrs: tuple[_Attr, ...]
    children: tuple[_Die, ...] = ()


_TypeKey = tuple[str, Optional[str], tuple[object, ...]]


def type_key(type_: Type) -> _TypeKey:
    """Return what makes two tagged types the same definition: kind, tag and shape."""
    kind = type_.kind
    if not type_.is_complete():
        shape: tuple[object, ...] = ()
    elif kind == TypeKind.ENUM:
        shape = tuple((e.name, e.value) for e in type_.enumerators or ())
    else:
        shape = (type_.size, *((m.name, m.bit_offset) for m in type_.members or ()))
    return (kind.name, type_.tag, shape)


def is_tagged(type_: Type) -> bool:
    """Return whether a type is a struct, union, class or enum that has a tag."""
    if type_.kind in _COMPOUND_TAGS or type_.kind == TypeKind.ENUM:
        return type_.tag is not None
    return False


@dataclass
class _Tagged:
    """A tagged type that was reached: a declaration until something needs it complete."""

    type: Type
    complete: bool = False


@dataclass
class _TypeGraph:
    """Types as numbered nodes; a node is a finished DIE or a tagged type still to be expanded."""

    nodes: list[_Die | _Tagged] = field(default_factory=list)
    _shared: dict[_Die, int] = field(default_factory=dict)
    _tagged: dict[_TypeKey, int] = field(default_factory=dict)

    def add(self, type_: Type, *, by_value: bool = True) -> int | None:
        """Return the node of a type, None for void. By value, a tagged type is needed complete."""
        unqualified = type_.unqualified()
        node = self._add_unqualified(unqualified, by_value)
        for bit, tag in _QUALIFIER_TAGS:
            if type_.qualifiers.value & bit:
                node = self._share(_Die(tag, self._type_attr(node)))
        return node

    def _add_unqualified(self, type_: Type, by_value: bool) -> int | None:
        if type_.kind == TypeKind.VOID:
            return None
        if is_tagged(type_):
            return self._add_tagged(type_, by_value)
        return self._share(self._die(type_, by_value))

    def _add_tagged(self, type_: Type, by_value: bool) -> int:
        key = type_key(type_)
        node = self._tagged.get(key)
        if node is None:
            node = self._tagged[key] = len(self.nodes)
            self.nodes.append(_Tagged(type_))
        entry = self.nodes[node]
        if by_value and isinstance(entry, _Tagged) and type_.is_complete():
            entry.complete = True
        return node

    def _share(self, die: _Die) -> int:
        node = self._shared.get(die)
        if node is None:
            node = self._shared[die] = len(self.nodes)
            self.nodes.append(die)
        return node

    def _type_attr(self, node: int | None) -> tuple[_Attr, ...]:
        return () if node is None else ((_AT_TYPE, _FORM_REF4, _Ref(node)),)

    def _die(self, type_: Type, by_value: bool) -> _Die:
        kind = type_.kind
        if kind in (TypeKind.INT, TypeKind.BOOL, TypeKind.FLOAT):
            return _base_die(type_)
        if kind == TypeKind.TYPEDEF:
            target = self.add(type_.type, by_value=by_value)
            return _Die(_TAG_TYPEDEF, (_name(type_.name), *self._type_attr(target)))
        if kind == TypeKind.POINTER:
            size = (_AT_BYTE_SIZE, _FORM_UDATA, type_.size)
            return _Die(
                _TAG_POINTER, (size, *self._type_attr(self.add(type_.type, by_value=False)))
            )
        if kind == TypeKind.ARRAY:
            count = () if type_.length is None else ((_AT_COUNT, _FORM_UDATA, type_.length),)
            element = self._type_attr(self.add(type_.type, by_value=by_value))
            return _Die(_TAG_ARRAY, element, (_Die(_TAG_SUBRANGE, count),))
        if kind == TypeKind.FUNCTION:
            return _Die(_TAG_SUBROUTINE, *self.signature(type_))
        if kind == TypeKind.ENUM:
            return self._enum_die(type_)
        return self._compound_die(type_)

    def signature(self, type_: Type) -> tuple[tuple[_Attr, ...], tuple[_Die, ...]]:
        """Return the attributes and children that a function type and a function share."""
        attrs = (
            (_AT_PROTOTYPED, _FORM_FLAG_PRESENT, None),
            *self._type_attr(self.add(type_.type, by_value=False)),
        )
        children = [
            _Die(
                _TAG_PARAMETER,
                (*_optional_name(p.name), *self._type_attr(self.add(p.type, by_value=False))),
            )
            for p in type_.parameters
        ]
        if type_.is_variadic:
            children.append(_Die(_TAG_UNSPECIFIED, ()))
        return attrs, tuple(children)

    def _enum_die(self, type_: Type) -> _Die:
        name = _optional_name(type_.tag)
        if not type_.is_complete() or type_.type is None or type_.enumerators is None:
            return _Die(_ENUM_TAG, (*name, (_AT_DECLARATION, _FORM_FLAG_PRESENT, None)))
        form = _FORM_SDATA if type_.type.is_signed else _FORM_UDATA
        size = (_AT_BYTE_SIZE, _FORM_UDATA, type_.type.size)
        children = tuple(
            _Die(_TAG_ENUMERATOR, (_name(e.name), (_AT_CONST_VALUE, form, e.value)))
            for e in type_.enumerators
        )
        return _Die(_ENUM_TAG, (*name, size, *self._type_attr(self.add(type_.type))), children)

    def _compound_die(self, type_: Type) -> _Die:
        name = _optional_name(type_.tag)
        tag = _COMPOUND_TAGS[type_.kind]
        if not type_.is_complete() or type_.members is None:
            return _Die(tag, (*name, (_AT_DECLARATION, _FORM_FLAG_PRESENT, None)))
        size = (_AT_BYTE_SIZE, _FORM_UDATA, type_.size)
        return _Die(tag, (*name, size), tuple(self._member_die(m) for m in type_.members))

    def _member_die(self, member: TypeMember) -> _Die:
        where: tuple[_Attr, ...]
        if member.bit_field_size is None:
            where = ((_AT_MEMBER_LOCATION, _FORM_UDATA, member.offset),)
        else:
            where = (
                (_AT_DATA_BIT_OFFSET, _FORM_UDATA, member.bit_offset),
                (_AT_BIT_SIZE, _FORM_UDATA, member.bit_field_size),
            )
        type_attr = self._type_attr(self.add(member.type))
        return _Die(_TAG_MEMBER, (*_optional_name(member.name), *where, *type_attr))

    def complete_all(self) -> None:
        """Need every type complete that is only declared so far: follow pointers one level more."""
        self.expand()
        for entry in list(self.nodes):
            if isinstance(entry, _Tagged) and entry.type.is_complete():
                entry.complete = True

    def expand(self) -> dict[int, _Die]:
        """Return the DIEs of all tagged nodes. Expanding one may add nodes, until none is new.

        drgn completes a declaration by its tag alone. So of two definitions with one tag either
        both are complete in the file, or neither.
        """
        done: dict[int, _Die] = {}
        while True:
            tags = self._complete_tags()
            todo = [
                (number, entry.type)
                for number, entry in enumerate(self.nodes)
                if isinstance(entry, _Tagged) and number not in done
                if entry.complete or (entry.type.is_complete() and _tag(entry.type) in tags)
            ]
            if not todo:
                break
            for number, type_ in todo:
                done[number] = self._die(type_, True)
        for number, entry in enumerate(self.nodes):
            if isinstance(entry, _Tagged) and number not in done:
                done[number] = _declaration(entry.type)
        return done

    def _complete_tags(self) -> set[tuple[TypeKind, str | None]]:
        return {_tag(e.type) for e in self.nodes if isinstance(e, _Tagged) and e.complete}


def _tag(type_: Type) -> tuple[TypeKind, str | None]:
    return (type_.kind, type_.tag)


def _name(name: str) -> _Attr:
    return (_AT_NAME, _FORM_STRP, name)


def _optional_name(name: str | None) -> tuple[_Attr, ...]:
    return () if name is None else (_name(name),)


def _declaration(type_: Type) -> _Die:
    tag = _ENUM_TAG if type_.kind == TypeKind.ENUM else _COMPOUND_TAGS[type_.kind]
    attrs = (*_optional_name(type_.tag), (_AT_DECLARATION, _FORM_FLAG_PRESENT, None))
    return _Die(tag, attrs)


def _base_die(type_: Type) -> _Die:
    if type_.kind == TypeKind.BOOL:
        encoding = 0x02
    elif type_.kind == TypeKind.FLOAT:
        encoding = 0x04
    else:  # DW_ATE_signed, _signed_char, _unsigned, _unsigned_char
        encoding = (0x05 if type_.is_signed else 0x07) + (type_.name.endswith("char"))
    size = (_AT_BYTE_SIZE, _FORM_UDATA, type_.size)
    return _Die(_TAG_BASE, (_name(type_.name), size, (_AT_ENCODING, _FORM_UDATA, encoding)))


def _uleb(value: int) -> bytes:
    if value < 0:
        raise ValueError("ULEB128 cannot hold a negative number")
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def _sleb(value: int) -> bytes:
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        done = value == (-1 if low & 0x40 else 0)
        out.append(low if done else low | 0x80)
        if done:
            return bytes(out)


@dataclass
class _Strings:
    """A string table; each distinct string once, the empty one at offset 0."""

    data: bytearray = field(default_factory=lambda: bytearray(1))
    _offsets: dict[str, int] = field(default_factory=lambda: {"": 0})

    def offset(self, string: str) -> int:
        offset = self._offsets.get(string)
        if offset is None:
            offset = self._offsets[string] = len(self.data)
            self.data += string.encode() + b"\0"
        return offset


class _Encoder:
    """Serialise DIEs into .debug_info, .debug_abbrev and .debug_str."""

    def __init__(self, order: str) -> None:
        self.order = order
        self.info = bytearray()
        self.abbrev = bytearray()
        self.strings = _Strings()
        self._codes: dict[tuple[object, ...], int] = {}
        self._offsets: dict[int, int] = {}
        self._fixups: list[tuple[int, int]] = []

    def open_unit(self) -> None:
        attrs: tuple[_Attr, ...] = ((_AT_LANGUAGE, _FORM_UDATA, _LANGUAGE_C99),)
        self._put(_Die(_TAG_COMPILE_UNIT, attrs), has_children=True)

    def put(self, die: _Die, node: int | None = None) -> None:
        """Append a DIE with its children; `node` is the number by which references know it."""
        if node is not None:
            self._offsets[node] = _CU_HEADER_SIZE + len(self.info)
        self._put(die, has_children=bool(die.children))
        for child in die.children:
            self._put(child, has_children=False)
        if die.children:
            self.info += b"\0"

    def close_unit(self) -> None:
        self.info += b"\0"
        self.abbrev += b"\0"
        for position, node in self._fixups:
            struct.pack_into(self.order + "I", self.info, position, self._offsets[node])
        length = _CU_HEADER_SIZE - 4 + len(self.info)
        self.info[:0] = struct.pack(self.order + "IHIB", length, 4, 0, 8)

    def _put(self, die: _Die, *, has_children: bool) -> None:
        self.info += _uleb(self._code(die, has_children))
        for _, form, value in die.attrs:
            if isinstance(value, _Ref):
                self._fixups.append((len(self.info), value.node))
                self.info += bytes(4)
            else:
                self.info += self._value(form, value)

    def _code(self, die: _Die, has_children: bool) -> int:
        shape = (die.tag, has_children, tuple((at, form) for at, form, _ in die.attrs))
        code = self._codes.get(shape)
        if code is None:
            code = self._codes[shape] = len(self._codes) + 1
            self.abbrev += _uleb(code) + _uleb(die.tag) + bytes([has_children])
            for at, form, _ in die.attrs:
                self.abbrev += _uleb(at) + _uleb(form)
            self.abbrev += b"\0\0"
        return code

    def _value(self, form: int, value: int | str | bytes | None) -> bytes:
        if value is None:
            return b""
        if isinstance(value, str):
            return struct.pack(self.order + "I", self.strings.offset(value))
        if isinstance(value, bytes):
            return _uleb(len(value)) + value
        if form == _FORM_ADDR:
            return struct.pack(self.order + "Q", value & _U64)
        return _sleb(value) if form == _FORM_SDATA else _uleb(value)


class Segment(NamedTuple):
    """Addresses that the original file loads at: half-open [start, end), before relocation."""

    start: int
    end: int


@dataclass(frozen=True)
class ElfIdentity:
    """What ties a debug file to its kernel: ELF64 header fields, load addresses, build ID.

    A kernel module is relocatable: it has no segments, and its addresses are final.
    """

    machine: int
    flags: int
    big_endian: bool
    build_id: bytes
    relocatable: bool = False
    segments: tuple[Segment, ...] = ()
    banner: tuple[int, bytes] | None = None  # address and bytes of linux_banner


def read_elf_identity(path: str, build_id: bytes) -> ElfIdentity:
    """Return the identity of the ELF64 file at `path`, as far as its headers tell.

    Raises ValueError if the file is not ELF64 or ends early, OSError if it cannot be read.
    """
    with open(path, "rb") as file:
        header = file.read(64)
        if len(header) != 64 or header[:4] != b"\x7fELF" or header[4] != 2:
            raise ValueError("not a 64-bit ELF file")
        order = ">" if header[5] == 2 else "<"
        kind, machine = struct.unpack_from(order + "HH", header, 16)
        (phoff,) = struct.unpack_from(order + "Q", header, 32)
        (flags,) = struct.unpack_from(order + "I", header, 48)
        (phnum,) = struct.unpack_from(order + "H", header, 56)
        file.seek(phoff)
        table = file.read(56 * phnum)
    if len(table) != 56 * phnum:
        raise ValueError("the program header table ends early")
    segments = tuple(
        Segment(vaddr, vaddr + memsz)
        for type_, _, _, vaddr, _, _, memsz, _ in struct.iter_unpack(order + "IIQQQQQQ", table)
        if type_ == _PT_LOAD and memsz
    )
    return ElfIdentity(machine, flags, order == ">", build_id, kind == _ET_REL, segments)


class _Section(NamedTuple):
    name: str
    type: int
    flags: int = 0
    address: int = 0
    data: bytes = b""
    size: int | None = None  # None: len(data)
    link: int = 0
    info: int = 0
    align: int = 1
    entsize: int = 0


class DebugFile:
    """Collects types, objects and symbols; `build()` returns the ELF file.

    Addresses given here are those of the file, before relocation. Of two types with one name the
    first that was added is the one that drgn finds by name.
    """

    def __init__(self, identity: ElfIdentity) -> None:
        self._identity = identity
        self._order = ">" if identity.big_endian else "<"
        self._graph = _TypeGraph()
        self._objects: list[_Die] = []
        self._symbols: dict[tuple[str, int, int, SymbolBinding, int], None] = {}

    def add_type(self, type_: Type) -> None:
        """Add a type, and complete what it contains by value."""
        self._graph.add(type_)

    def add_variable(
        self,
        name: str,
        type_: Type,
        *,
        address: int | None = None,
        value: bytes | None = None,
    ) -> None:
        """Add a variable at an address, with a constant value, or (neither given) optimised out."""
        where: tuple[_Attr, ...] = ()
        if address is not None:
            location = _OP_ADDR + struct.pack(self._order + "Q", address & _U64)
            where = ((_AT_LOCATION, _FORM_EXPRLOC, location),)
        elif value is not None:
            where = ((_AT_CONST_VALUE, _FORM_BLOCK, value),)
        node = self._graph.add(type_)
        type_attr: tuple[_Attr, ...] = () if node is None else ((_AT_TYPE, _FORM_REF4, _Ref(node)),)
        attrs = (_name(name), (_AT_EXTERNAL, _FORM_FLAG_PRESENT, None), *type_attr, *where)
        self._objects.append(_Die(_TAG_VARIABLE, attrs))

    def add_function(self, name: str, type_: Type, *, address: int | None = None) -> None:
        """Add a function; without an address it is one that was inlined everywhere."""
        where: tuple[_Attr, ...] = ()
        if address is not None:
            where = ((_AT_LOW_PC, _FORM_ADDR, address),)
        attrs, children = self._graph.signature(type_)
        external: _Attr = (_AT_EXTERNAL, _FORM_FLAG_PRESENT, None)
        self._objects.append(
            _Die(_TAG_SUBPROGRAM, (_name(name), external, *where, *attrs), children)
        )

    def add_symbol(self, symbol: Symbol, address: int) -> None:
        """Add an ELF symbol like `symbol` at a file address; a second equal one is ignored."""
        key = (symbol.name, address & _U64, symbol.size, symbol.binding, symbol.kind.value)
        self._symbols.setdefault(key)

    def follow_pointers(self) -> None:
        """Add every type that is only a declaration so far: one more level of pointers."""
        self._graph.complete_all()

    def build(self) -> bytes:
        """Return the file."""
        dwarf = self._encode_dwarf()
        sections = [_Section("", 0), *self._load_sections()]
        sections.append(
            _Section(".note.gnu.build-id", _SHT_NOTE, _SHF_ALLOC, data=self._note(), align=4)
        )
        sections.append(_Section(".debug_info", _SHT_PROGBITS, data=bytes(dwarf.info)))
        sections.append(_Section(".debug_abbrev", _SHT_PROGBITS, data=bytes(dwarf.abbrev)))
        strings = bytes(dwarf.strings.data)
        sections.append(
            _Section(".debug_str", _SHT_PROGBITS, _SHF_MERGE_STRINGS, data=strings, entsize=1)
        )
        sections += self._symbol_sections(len(sections), sections)
        return self._encode_elf(sections)

    def _encode_dwarf(self) -> _Encoder:
        encoder = _Encoder(self._order)
        encoder.open_unit()
        tagged = self._graph.expand()
        for number, node in enumerate(self._graph.nodes):
            encoder.put(node if isinstance(node, _Die) else tagged[number], number)
        for die in self._objects:
            encoder.put(die)
        encoder.close_unit()
        return encoder

    def _load_sections(self) -> list[_Section]:
        if self._identity.relocatable:
            return []
        # drgn takes a file with .init.text for a vmlinux, and linux_banner for its release.
        start, end = self._load_range()
        flags = _SHF_ALLOC | _SHF_EXECINSTR
        sections = [
            _Section(".text", _SHT_NOBITS, flags, start, size=end - start),
            _Section(".init.text", _SHT_PROGBITS, flags, start),
        ]
        if self._identity.banner is not None:
            address, banner = self._identity.banner
            sections.append(_Section(".rodata", _SHT_PROGBITS, _SHF_ALLOC, address, banner))
        return sections

    def _load_range(self) -> Segment:
        """Return the range that drgn takes for a vmlinux's: first to last segment."""
        segments = self._identity.segments
        if not segments:
            return Segment(0, 0)
        return Segment(segments[0].start, max(segments[0].start, segments[-1].end))

    def _note(self) -> bytes:
        build_id = self._identity.build_id
        header = struct.pack(self._order + "III", 4, len(build_id), 3)
        return header + b"GNU\0" + build_id + bytes(-len(build_id) % 4)

    def _symbol_sections(self, index: int, sections: Sequence[_Section]) -> list[_Section]:
        """Return .symtab, at section number `index`, and .strtab. Local symbols come first."""
        strings = _Strings()
        local, others = bytearray(24), bytearray()
        for name, address, size, binding, kind in self._symbols:
            shndx = self._symbol_section(name, address, size, sections)
            info = (binding.value - 1) << 4 | kind
            entry = struct.pack(
                self._order + "IBBHQQ", strings.offset(name), info, 0, shndx, address, size
            )
            (local if binding == SymbolBinding.LOCAL else others).extend(entry)
        data = bytes(local + others)
        return [
            _Section(
                ".symtab",
                _SHT_SYMTAB,
                data=data,
                link=index + 1,
                info=len(local) // 24,
                align=8,
                entsize=24,
            ),
            _Section(".strtab", _SHT_STRTAB, data=bytes(strings.data)),
        ]

    def _symbol_section(
        self, name: str, address: int, size: int, sections: Sequence[_Section]
    ) -> int:
        # In a section, drgn lets a symbol of size 0 reach to the next symbol. Here its neighbours
        # are missing, so that it would reach too far: such a symbol is absolute.
        wanted = ".rodata" if name == "linux_banner" else ".text"
        for index, section in enumerate(sections):
            length = len(section.data) if section.size is None else section.size
            inside = section.address <= address < section.address + length
            if section.name == wanted and inside and size:
                return index
        return _SHN_ABS

    def _encode_elf(self, sections: list[_Section]) -> bytes:
        names = _Strings()
        for section in [*sections, _Section(".shstrtab", _SHT_STRTAB)]:
            names.offset(section.name)
        sections = [*sections, _Section(".shstrtab", _SHT_STRTAB, data=bytes(names.data))]
        segments = self._identity.segments
        body, table = bytearray(64 + 56 * len(segments)), bytearray()
        for section in sections:
            body += bytes(-len(body) % section.align)
            size = len(section.data) if section.size is None else section.size
            table += struct.pack(
                self._order + "IIQQQQIIQQ",
                names.offset(section.name),
                section.type,
                section.flags,
                section.address,
                len(body) if section.type else 0,
                size,
                section.link,
                section.info,
                section.align if section.type else 0,
                section.entsize,
            )
            body += section.data
        body += bytes(-len(body) % 8)
        body[: 64 + 56 * len(segments)] = self._headers(len(body), len(sections))
        return bytes(body + table)

    def _headers(self, shoff: int, shnum: int) -> bytes:
        identity = self._identity
        data_encoding = b"\x02" if identity.big_endian else b"\x01"
        ident = b"\x7fELF\x02" + data_encoding + b"\x01" + bytes(9)
        segments = identity.segments
        header = struct.pack(
            self._order + "HHIQQQIHHHHHH",
            _ET_REL if identity.relocatable else 2,
            identity.machine,
            1,
            0,
            64 if segments else 0,
            shoff,
            identity.flags,
            64,
            56 if segments else 0,
            len(segments),
            64,
            shnum,
            shnum - 1,
        )
        load = b"".join(
            struct.pack(
                self._order + "IIQQQQQQ", _PT_LOAD, 5, 0, s.start, s.start, 0, s.end - s.start, 4096
            )
            for s in segments
        )
        return ident + header + load
