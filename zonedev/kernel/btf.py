# SPDX-License-Identifier: LGPL-2.1-or-later
"""Types out of the kernel's BTF, as drgn's: for a Program without debug information.

Owns where the kernel's BTF comes from, and what becomes of it and its modules': a finder of types, and of the
objects whose types the kernel's tells (enumerators, functions, per-CPU variables) or that the table below names.
The format is read by ext/core/btf.c.
BTF has no variable but per-CPU ones, no inline function and no macro; and an array of arrays is one array there.

Mirrors include/uapi/linux/btf.h.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, Optional

from drgn import (
    FaultError,
    FindObjectFlags,
    Object,
    PlatformFlags,
    Program,
    ProgramFlags,
    Qualifiers,
    Type,
    TypeEnumerator,
    TypeKind,
    TypeMember,
    TypeParameter,
    sizeof,
)

from zonedev import _zonedev
from zonedev.errors import TargetError
from zonedev.kernel.modules import VMLINUX, ModuleSymbols, each_module_btf, is_this_machine, sys_btf
from zonedev.kernel.symbols import (
    SymbolTable,
    image_address,
    read_image,
    read_kallsyms,
    symbol_finder,
    text_ranges,
    vmcoreinfo_length,
    vmcoreinfo_symbol,
)

# How BTF begins, in either byte order: its magic number, version and flags.
_MAGICS = (b"\x9f\xeb\x01\x00", b"\xeb\x9f\x01\x00")
_TRIED_MAX = 16

# An int's encoding, as the format has it.
_SIGNED, _BOOL = 1, 4

_QUALIFIERS = {
    "const": Qualifiers.CONST,
    "volatile": Qualifiers.VOLATILE,
    "restrict": Qualifiers.RESTRICT,
}

# Kinds of BTF that can be one of drgn's.
_KINDS = {
    TypeKind.INT: ("int",),
    TypeKind.BOOL: ("int",),
    TypeKind.FLOAT: ("float",),
    TypeKind.STRUCT: ("struct",),
    TypeKind.UNION: ("union",),
    TypeKind.ENUM: ("enum", "enum64"),
    TypeKind.TYPEDEF: ("typedef",),
}

# MAX_NUMNODES of the largest machines is 1024; more are no number of nodes.
_NODES_MAX = 1 << 16

# Variables whose type no BTF tells; {nodes} is MAX_NUMNODES.  mem_section is that of CONFIG_SPARSEMEM_EXTREME.
_VARIABLES = {
    "pgmap_array": "struct xarray",
    "init_mm": "struct mm_struct",
    "init_task": "struct task_struct",
    "init_uts_ns": "struct uts_namespace",
    "init_pid_ns": "struct pid_namespace",
    "mem_section": "struct mem_section **",
    "node_data": "struct pglist_data *[{nodes}]",
    "node_states": "nodemask_t [{states}]",
    "super_blocks": "struct list_head",
    "dax_superblock": "struct super_block *",
    "iomem_resource": "struct resource",
    "class_kset": "struct kset *",
    "block_class": "struct class",
    "log_buf": "char *",
    "log_buf_len": "u32",
    "log_first_idx": "u32",
    "log_next_idx": "u32",
    "modules": "struct list_head",
    "slab_caches": "struct list_head",
    "btf_modules": "struct list_head",
    "nr_cpu_ids": "unsigned int",
    "__cpu_online_mask": "struct cpumask",
    "__cpu_possible_mask": "struct cpumask",
    "__per_cpu_offset": "unsigned long []",
    "prb": "struct printk_ringbuffer *",
    "clear_seq": "u64",
}


def _word_size(prog: Program) -> int:
    assert prog.platform is not None
    return 8 if prog.platform.flags & PlatformFlags.IS_64_BIT else 4


def _searched(prog: Program) -> _zonedev.Btf:
    """The largest BTF in the kernel's image: without CONFIG_KALLSYMS_ALL no symbol says where it lies.

    :raises TargetError: there is none
    """
    image = read_image(prog, image_address(prog))
    sizes = {}
    for magic in _MAGICS:
        at = image.find(magic)
        while at >= 0:
            size = _zonedev.btf_size(image[at : at + 24]) if at % 4 == 0 else 0
            if 0 < size <= len(image) - at:
                sizes[at] = size
            at = image.find(magic, at + 1)
    for at in sorted(sizes, key=sizes.__getitem__, reverse=True)[:_TRIED_MAX]:
        with contextlib.suppress(ValueError):
            return _zonedev.Btf(image[at : at + sizes[at]], _word_size(prog))
    raise TargetError("BTF: this kernel has none (CONFIG_DEBUG_INFO_BTF)")


def _bytes_in_memory(prog: Program, kallsyms: SymbolTable) -> Optional[bytes]:
    """Where symbols say; None where they do not.

    :raises TargetError: it is not there
    """
    start, stop = kallsyms.find("__start_BTF"), kallsyms.find("__stop_BTF")
    if not start or not stop:
        return None
    try:
        size = _zonedev.btf_size(prog.read(start[0][1], 24))
        if not size or size > stop[0][1] - start[0][1]:
            raise TargetError(f"BTF: at {start[0][1]:#x} there is no header of one that fits there")
        return bytes(prog.read(start[0][1], size))
    except FaultError as err:
        raise TargetError(f"BTF: it cannot be read ({err})") from None


def read_btf(prog: Program, kallsyms: SymbolTable, data: Optional[bytes] = None) -> _zonedev.Btf:
    """The BTF that a kernel has of itself: the running one's out of /sys, another's out of its memory.

    :param data: it was read elsewhere
    :raises TargetError: there is none, or it cannot be read or is damaged
    """
    if data is None and is_this_machine(prog):
        data = sys_btf(VMLINUX)
    data = data or _bytes_in_memory(prog, kallsyms)
    if data is None:
        return _searched(prog)
    try:
        return _zonedev.Btf(data, _word_size(prog))
    except ValueError as err:
        raise TargetError(str(err)) from None


class BtfTypes:
    """BTF as drgn's types, each made when it is first asked for."""

    def __init__(self, prog: Program, btf: _zonedev.Btf, base: Optional[BtfTypes] = None) -> None:
        """
        :param base: the types of what *btf* is split from
        """
        self.prog = prog
        self.btf = btf
        self._base = base
        self._types: dict[int, Type] = {}

    @property
    def made(self) -> list[int]:
        """Ids of the types that were asked for, and that these need; not the base's."""
        return list(self._types)

    def type(self, id_: int) -> Type:
        """The type of an id.  Structs are made without their members, so that this ends."""
        if self._base is not None and id_ < self.btf.first:
            return self._base.type(id_)
        type_ = self._types.get(id_)
        if type_ is None:
            facts = self.btf.type(id_)
            type_ = self._types[id_] = _MAKE[facts["kind"]](self, facts)
        return type_

    def find(self, name: str, *kinds: str) -> Optional[Type]:
        """The first type of a name that has a definition."""
        ids = self.btf.find(name, kinds)
        return self.type(ids[0]) if ids else None

    # ------------------------------------------------------------ kinds

    def _void(self, _facts: dict[str, Any]) -> Type:
        return self.prog.void_type()

    def _int(self, facts: dict[str, Any]) -> Type:
        if facts["encoding"] & _BOOL:
            return self.prog.bool_type(facts["name"], facts["size"])
        # BTF of older kernels does not say the sign of characters.
        signed = bool(facts["encoding"] & _SIGNED) or facts["name"] == "signed char"
        return self.prog.int_type(facts["name"], facts["size"], signed)

    def _float(self, facts: dict[str, Any]) -> Type:
        return self.prog.float_type(facts["name"], facts["size"])

    def _pointer(self, facts: dict[str, Any]) -> Type:
        return self.prog.pointer_type(self.type(facts["type"]), facts["size"])

    def _array(self, facts: dict[str, Any]) -> Type:
        # Length 0 is also what the format has for a flexible array.
        return self.prog.array_type(self.type(facts["type"]), facts["length"] or None)

    def _member(self, name: str, type_id: int, bit_offset: int, bit_size: int) -> TypeMember:
        if bit_size:
            return TypeMember(
                lambda: Object(self.prog, self.type(type_id), bit_field_size=bit_size),
                name or None,
                bit_offset,
            )
        return TypeMember(lambda: self.type(type_id), name or None, bit_offset)

    def _struct(self, facts: dict[str, Any]) -> Type:
        members = [self._member(*item) for item in facts["items"]]
        return self.prog.struct_type(facts["name"] or None, facts["size"], members)

    def _union(self, facts: dict[str, Any]) -> Type:
        members = [self._member(*item) for item in facts["items"]]
        return self.prog.union_type(facts["name"] or None, facts["size"], members)

    def _forward(self, facts: dict[str, Any]) -> Type:
        """A declaration: the definition where there is just one of that name."""
        kind = "union" if facts["flag"] else "struct"
        ids = self.btf.find(facts["name"], [kind])
        if len(ids) == 1:
            return self.type(ids[0])
        if facts["flag"]:
            return self.prog.union_type(facts["name"])
        return self.prog.struct_type(facts["name"])

    def _enum(self, facts: dict[str, Any]) -> Type:
        if not facts["items"]:
            return self.prog.enum_type(facts["name"] or None)
        names = {1: "char", 2: "short", 4: "int", 8: "long"}
        # Before enums told their sign, a value as large as this was most often a negative one.
        bits = 8 * min(facts["size"], 4)
        values = [value for _, value in facts["items"]]
        signed = facts["flag"] or (facts["kind"] == "enum" and max(values) >> (bits - 1) != 0)
        name = names[facts["size"]]
        compatible = self.prog.int_type(
            name if signed else f"unsigned {name}", facts["size"], signed
        )
        return self.prog.enum_type(
            facts["name"] or None,
            compatible,
            [
                TypeEnumerator(
                    key, value - (1 << bits) if signed and value >> (bits - 1) == 1 else value
                )
                for key, value in facts["items"]
            ],
        )

    def _typedef(self, facts: dict[str, Any]) -> Type:
        return self.prog.typedef_type(facts["name"], self.type(facts["type"]))

    def _qualified(self, facts: dict[str, Any]) -> Type:
        type_ = self.type(facts["type"])
        return type_.qualified(type_.qualifiers | _QUALIFIERS[facts["kind"]])

    def _behind(self, facts: dict[str, Any]) -> Type:
        return self.type(facts["type"])

    def _parameter(self, name: str, type_id: int) -> TypeParameter:
        return TypeParameter(lambda: self.type(type_id), name or None)

    def _function(self, facts: dict[str, Any]) -> Type:
        items = facts["items"]
        variadic = bool(items) and items[-1] == ("", 0)
        parameters = [self._parameter(*item) for item in (items[:-1] if variadic else items)]
        return self.prog.function_type(self.type(facts["type"]), parameters, variadic)


_MAKE: dict[str, Callable[[BtfTypes, dict[str, Any]], Type]] = {
    "void": BtfTypes._void,
    "int": BtfTypes._int,
    "ptr": BtfTypes._pointer,
    "array": BtfTypes._array,
    "struct": BtfTypes._struct,
    "union": BtfTypes._union,
    "enum": BtfTypes._enum,
    "enum64": BtfTypes._enum,
    "fwd": BtfTypes._forward,
    "typedef": BtfTypes._typedef,
    "volatile": BtfTypes._qualified,
    "const": BtfTypes._qualified,
    "restrict": BtfTypes._qualified,
    "func": BtfTypes._behind,
    "func_proto": BtfTypes._function,
    "var": BtfTypes._behind,
    "datasec": BtfTypes._void,
    "float": BtfTypes._float,
    "decl_tag": BtfTypes._behind,
    "type_tag": BtfTypes._behind,
}


class ModuleTypes:
    """The types of modules, read when the kernel's own do not have one that is asked for."""

    def __init__(self, base: BtfTypes, btfs: Optional[Iterable[_zonedev.Btf]] = None) -> None:
        """
        :param btfs: they were read elsewhere
        """
        self._base = base
        self._btfs = btfs
        self._types: Optional[list[BtfTypes]] = None

    def __iter__(self) -> Iterator[BtfTypes]:
        if self._types is None:
            # Types of the kernel are asked for while modules are looked for.
            self._types = []
            btfs = self._read() if self._btfs is None else self._btfs
            self._types = [BtfTypes(self._base.prog, btf, self._base) for btf in btfs]
        return iter(self._types)

    def _read(self) -> Iterator[_zonedev.Btf]:
        for data in each_module_btf(self._base.prog):
            with contextlib.suppress(ValueError):
                yield _zonedev.Btf(data, _word_size(self._base.prog), self._base.btf)


def type_finder(types: BtfTypes, modules: Iterable[BtfTypes] = ()) -> Callable[..., Optional[Type]]:
    """What Program.register_type_finder() takes."""

    def find(_prog: Program, kinds: Any, name: str, filename: Optional[str]) -> Optional[Type]:
        if filename is not None:
            return None
        for one in chain((types,), modules):
            for kind in kinds:
                type_ = one.find(name, *_KINDS[kind]) if kind in _KINDS else None
                if type_ is not None and type_.kind == kind:
                    return type_
        return None

    return find


class _Objects:
    """Objects that symbols and BTF tell together."""

    def __init__(self, types: BtfTypes, kallsyms: SymbolTable) -> None:
        self.types = types
        self.kallsyms = kallsyms
        self._texts = text_ranges(kallsyms)

    def _is_text(self, address: int) -> bool:
        return any(start <= address < end for start, end in self._texts)

    def _at_symbol(self, prog: Program, name: str, type_: Type) -> Optional[Object]:
        symbols = self.kallsyms.find(name)
        if symbols:
            return Object(prog, type_, address=symbols[0][1])
        # Without CONFIG_KALLSYMS_ALL, only functions have symbols; VMCOREINFO names some variables.
        told = vmcoreinfo_symbol(prog, name)
        if told is None:
            return None
        # Of an array, it is where that begins, which is what the pointer to a dynamic one holds.
        by_value = type_.kind == TypeKind.POINTER
        return Object(prog, type_, value=told) if by_value else Object(prog, type_, address=told)

    def constant(self, prog: Program, name: str) -> Optional[Object]:
        """An enumerator."""
        found = self.types.btf.enumerator(name)
        if found is None:
            return None
        type_ = self.types.type(found[0])
        assert type_.enumerators is not None
        return Object(prog, type_, type_.enumerators[found[1]].value)

    def function(self, prog: Program, name: str) -> Optional[Object]:
        """A function that is not inlined everywhere; void (...) where BTF leaves it out, as those of .init.text."""
        symbols = [row for row in self.kallsyms.find(name) if self._is_text(row[1])]
        if not symbols:
            return None
        type_ = self.types.find(name, "func")
        if type_ is None:
            type_ = prog.function_type(prog.void_type(), (), True)
        return Object(prog, type_, address=symbols[0][1])

    def _variable_type(self, prog: Program, name: str) -> Optional[Type]:
        spelled = _VARIABLES.get(name)
        if spelled is None:
            return self.types.find(name, "var")
        try:
            return prog.type(spelled.format(**self._lengths(prog)) if "{" in spelled else spelled)
        except LookupError:
            return None

    def _lengths(self, prog: Program) -> dict[str, int]:
        states = prog.type("enum node_states").enumerators or ()
        return {
            "nodes": self._nodes(prog),
            "states": max((e.value for e in states if e.name == "NR_NODE_STATES"), default=0),
        }

    def _nodes(self, prog: Program) -> int:
        """MAX_NUMNODES: VMCOREINFO has it (x86), else a nodemask_t has so many bits.

        Of a word, not all may be used: there is room for so many nodes before the next symbol, and zone bits that
        lie elsewhere for it are not believed (layout.py).
        """
        told = vmcoreinfo_length(prog, "node_data")
        if told and told <= _NODES_MAX:
            return told
        word, bits = _word_size(prog), 8 * int(sizeof(prog.type("nodemask_t")))
        symbols = self.kallsyms.find("node_data")
        room = symbols[0][2] // word if symbols else 0
        return bits if bits > 8 * word or not room else min(bits, 1 << room.bit_length() - 1)

    def variable(self, prog: Program, name: str) -> Optional[Object]:
        """A per-CPU variable, or one of the table."""
        type_ = self._variable_type(prog, name)
        return self._at_symbol(prog, name, type_) if type_ is not None else None

    def find(
        self, prog: Program, name: str, flags: FindObjectFlags, filename: Optional[str]
    ) -> Optional[Object]:
        """What Program.register_object_finder() takes."""
        found = None
        if filename is None and flags & FindObjectFlags.CONSTANT:
            found = self.constant(prog, name)
        if found is None and filename is None and flags & FindObjectFlags.FUNCTION:
            found = self.function(prog, name)
        if found is None and filename is None and flags & FindObjectFlags.VARIABLE:
            found = self.variable(prog, name)
        return found


NAME = "zonedev-btf"


def register(types: BtfTypes, kallsyms: SymbolTable, modules: Optional[ModuleTypes] = None) -> None:
    """Let the types' Program find types, objects and symbols in these, behind all other finders."""
    prog = types.prog
    finder = type_finder(types, modules or ModuleTypes(types))
    prog.register_type_finder(NAME, finder, enable_index=-1)
    prog.register_object_finder(NAME, _Objects(types, kallsyms).find, enable_index=-1)
    symbols = symbol_finder(kallsyms, ModuleSymbols(prog))
    prog.register_symbol_finder(NAME, symbols, enable_index=-1)


def types_from(prog: Program) -> str:
    """Where a Program's types come from: "dwarf", or "btf" since use_btf() gave it what it had not."""
    return "btf" if NAME in prog.enabled_type_finders() else "dwarf"


def use_btf(prog: Program, data: Optional[bytes] = None) -> BtfTypes:
    """Let a Program without debug information find what the kernel knows of itself.

    :param data: the BTF of its vmlinux; None: that of the running kernel, or in its memory
    :raises TargetError: the kernel has no BTF or kallsyms, or they cannot be read
    """
    kallsyms = read_kallsyms(prog)
    types = BtfTypes(prog, read_btf(prog, kallsyms, data))
    register(types, kallsyms)
    return types


def has_types(prog: Program) -> bool:
    """Whether a Program knows what an audit looks at."""
    try:
        prog.type("struct page")
    except LookupError:
        return False
    return True


def with_types(prog: Program) -> None:
    """Give a kernel that somebody else opened its own types, where it has no other.

    :raises TargetError: the kernel has none either
    """
    if not prog.flags & ProgramFlags.IS_LINUX_KERNEL or has_types(prog):
        return
    try:
        use_btf(prog)
    except TargetError as err:
        raise TargetError(
            f"no debug information is loaded, and the kernel has no types in its own memory ({err}); "
            "load its vmlinux (prog.load_debug_info())"
        ) from None
