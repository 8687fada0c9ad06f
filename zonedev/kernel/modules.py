# SPDX-License-Identifier: LGPL-2.1-or-later
"""What kernel modules know of themselves: their symbols and their BTF, for a Program without debug information.

Owns the walk of the two lists of modules and where the bytes lie; what symbols and types become is
kernel/symbols.py's and kernel/btf.py's.  A module that cannot be read is passed over: what it would tell is not
known then, and who asks for it says so.

Mirrors include/linux/module.h (struct mod_kallsyms), kernel/bpf/btf.c (struct btf_module).
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple, Optional

from drgn import Object, PlatformFlags, Program, ProgramFlags, offsetof
from drgn.helpers.linux.module import module_address_regions

from zonedev.kernel.gaps import ERRORS
from zonedev.kernel.strings import text_at

# What a module's type data has below /sys; that of the kernel itself is one of the files.
SYS_BTF = "/sys/kernel/btf"
VMLINUX = "vmlinux"

# More of them than any machine has loaded: a list of garbage ends.
_MODULES_MAX = 8192
_SYMBOLS_MAX = 1 << 20
_NAME_MAX = 512
# Of one module, in bytes.
_BTF_MAX = 64 << 20

_ERRORS = (*ERRORS, OSError)


class ModuleSymbol(NamedTuple):
    """A symbol of a module: its name, address, size in bytes and whether it is a function."""

    name: str
    address: int
    size: int
    is_function: bool


def _entries(prog: Program, name: str, type_: str, member: str) -> Iterator[Object]:
    """The elements of a kernel's list; it ends where it leads back to no one who leads there."""
    head = prog[name].address_of_()
    offset = offsetof(prog.type(type_), member)
    previous, node = head, head.next.read_()
    for _ in range(_MODULES_MAX):
        if node == head or node.prev != previous:
            return
        yield Object(prog, prog.pointer_type(prog.type(type_)), value=node.value_() - offset)
        previous, node = node, node.next.read_()


def each_module(prog: Program) -> Iterator[Object]:
    """Every ``struct module *``, as far as their list can be followed."""
    try:
        yield from _entries(prog, "modules", "struct module", "list")
    except _ERRORS:
        return


def _each_region(prog: Program) -> Iterator[tuple[Object, int, int]]:
    """Modules with [start, end) of their texts and data."""
    for module in each_module(prog):
        try:
            regions = module_address_regions(module)
        except _ERRORS:
            continue
        yield from ((module, start, start + size) for start, size in regions)


def module_regions(prog: Program) -> list[tuple[int, int]]:
    """[start, end) of the texts and data of all modules."""
    return [(start, end) for _, start, end in _each_region(prog)]


def module_at(prog: Program, address: int) -> Optional[Object]:
    """The module whose text or data an address lies in."""
    regions = _each_region(prog)
    return next((module for module, start, end in regions if start <= address < end), None)


class _Table:
    """The symbols of a module by their addresses."""

    # Elf64_Sym and Elf32_Sym: name, address, size and kind, wherever they stand.
    _FORMATS = {True: ("IBBHQQ", (0, 4, 5, 1)), False: ("IIIBBH", (0, 1, 2, 3))}  # noqa: RUF012
    _STT_FUNC = 2

    def __init__(self, module: Object) -> None:
        prog = module.prog_
        assert prog.platform is not None
        flags = prog.platform.flags
        little = bool(flags & PlatformFlags.IS_LITTLE_ENDIAN)
        words, order = self._FORMATS[bool(flags & PlatformFlags.IS_64_BIT)]
        row = struct.Struct(("<" if little else ">") + words)
        # Since commit 8244062ef1e5 ("modules: fix longstanding /proc/kallsyms vs module insertion race.") (in v4.5).
        kallsyms = module.kallsyms.read_()
        count = int(kallsyms.num_symtab)
        if not 0 <= count <= _SYMBOLS_MAX:
            raise ValueError(f"{count} symbols")
        data = prog.read(int(kallsyms.symtab), count * row.size)
        self._prog, self._names = prog, int(kallsyms.strtab)
        rows = ([fields[i] for i in order] for fields in row.iter_unpack(data))
        self._rows = sorted((address, name, size, kind) for name, address, size, kind in rows)

    def at(self, address: int) -> Optional[ModuleSymbol]:
        """The symbol that an address lies in."""
        i = bisect_right(self._rows, (address, 1 << 32)) - 1
        if i < 0:
            return None
        start, name, size, kind = self._rows[i]
        if not name or not (start <= address < start + size):
            return None
        text = text_at(self._prog, self._names + name, _NAME_MAX)
        return ModuleSymbol(text, start, size, kind & 0xF == self._STT_FUNC)


class ModuleSymbols:
    """Symbols of modules by address; a module's are read when they are first asked for."""

    def __init__(self, prog: Program) -> None:
        self._prog = prog
        self._tables: dict[int, Optional[_Table]] = {}

    def _table(self, module: Object) -> Optional[_Table]:
        key = int(module)
        if key not in self._tables:
            try:
                self._tables[key] = _Table(module)
            except _ERRORS:
                self._tables[key] = None
        return self._tables[key]

    def at(self, address: int) -> Optional[ModuleSymbol]:
        """The symbol of a module that an address lies in."""
        module = module_at(self._prog, address)
        table = self._table(module) if module is not None else None
        try:
            return table.at(address) if table is not None else None
        except _ERRORS:
            return None


# ---------------------------------------------------------------- BTF


def is_this_machine(prog: Program) -> bool:
    """Whether it is the running kernel that is looked at: what /sys says is true of it."""
    return bool(prog.flags & ProgramFlags.IS_LIVE and prog.flags & ProgramFlags.IS_LOCAL)


def sys_btf(name: str) -> Optional[bytes]:
    """BTF out of /sys; None where it is not there."""
    try:
        with open(os.path.join(SYS_BTF, name), "rb") as file:
            return file.read(_BTF_MAX)
    except OSError:
        return None


def _sys_modules() -> Iterator[bytes]:
    try:
        names = sorted(os.listdir(SYS_BTF))
    except OSError:
        return
    for name in names:
        data = sys_btf(name) if name != VMLINUX else None
        if data:
            yield data


def _loaded_modules(prog: Program) -> Iterator[bytes]:
    # Since commit 36e68442d1af ("bpf: Load and verify kernel module BTFs") (in v5.11).
    try:
        for module in _entries(prog, "btf_modules", "struct btf_module", "list"):
            btf = module.btf.read_()
            size = int(btf.data_size)
            if 0 < size <= _BTF_MAX:
                yield bytes(prog.read(int(btf.data), size))
    except _ERRORS:
        return


def each_module_btf(prog: Program) -> Iterator[bytes]:
    """The BTF of every module that has any, split from the kernel's own."""
    return _sys_modules() if is_this_machine(prog) else _loaded_modules(prog)
