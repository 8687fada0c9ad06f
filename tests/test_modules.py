# SPDX-License-Identifier: LGPL-2.1-or-later
"""What modules know of themselves, in made-up memory: symbols by address, and split BTF.

That of real kernels is compared with debug information by the lab (scripts/lab/btf_types.py).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, Optional

import pytest
from btf_samples import every_kind, split
from drgn import Program, TypeMember
from made_up import AMD64
from made_up import Kernel as MadeUp

from zonedev._zonedev import Btf
from zonedev.kernel import modules
from zonedev.kernel.btf import BtfTypes, ModuleTypes, type_finder
from zonedev.kernel.modules import ModuleSymbols, each_module, each_module_btf, module_at

HEAD, FIRST, BTF_HEAD = 0xFFFFFFFF_82000000, 0xFFFFFFFF_C0000000, 0xFFFFFFFF_82000100
FUNC, OBJECT = 2, 1
MODULE_SIZE, SPAN, CODE = 256, 0x10000, 0x1000

# Members by their offsets, as the structs of a kernel have them; the size is the last.
STRUCTS: dict[str, dict[str, tuple[str, int]]] = {
    "list_head": {
        "next": ("struct list_head *", 0),
        "prev": ("struct list_head *", 8),
        "": ("", 16),
    },
    "module_layout": {"base": ("void *", 0), "size": ("unsigned int", 8), "": ("", 16)},
    "mod_kallsyms": {
        "symtab": ("void *", 0),
        "num_symtab": ("unsigned int", 8),
        "strtab": ("char *", 16),
        "": ("", 24),
    },
    "module": {
        "list": ("struct list_head", 8),
        "core_layout": ("struct module_layout", 32),
        "init_layout": ("struct module_layout", 48),
        "kallsyms": ("struct mod_kallsyms *", 64),
        "": ("", MODULE_SIZE),
    },
    "btf": {"data": ("void *", 0), "data_size": ("unsigned int", 8), "": ("", 16)},
    "btf_module": {"list": ("struct list_head", 0), "btf": ("struct btf *", 24), "": ("", 32)},
}


class Kernel(MadeUp):
    """A Program with lists of modules."""

    def __init__(self) -> None:
        super().__init__()
        for name, head in {"modules": HEAD, "btf_modules": BTF_HEAD}.items():
            self.objects[name] = "struct list_head", head
            self.memory.put(head, bytes(16))
            self._link(head, [])

    def _find_type(self, prog: Program, kinds: Any, name: str, filename: Optional[str]) -> Any:
        if name not in STRUCTS:
            return None
        members = dict(STRUCTS[name])
        _, size = members.pop("")
        made = [
            TypeMember(self.late(prog, t), member, 8 * at) for member, (t, at) in members.items()
        ]
        return prog.struct_type(name, size, made)

    def _link(self, head: int, nodes: list[int]) -> None:
        ring = [head, *nodes]
        for i, node in enumerate(ring):
            self.memory.word(node, ring[(i + 1) % len(ring)])
            self.memory.word(node + 8, ring[i - 1])

    def modules(self, *tables: list[tuple[str, int, int, int]]) -> None:
        """One module after the other, each with symbols (name, offset in its code, size, kind)."""
        for i, rows in enumerate(tables):
            at = FIRST + i * SPAN
            names, symtab = b"\0", bytes(24)
            for name, offset, size, kind in rows:
                symtab += struct.pack("<IBBHQQ", len(names), kind, 0, 1, at + CODE + offset, size)
                names += name.encode() + b"\0"
            self.memory.put(at, bytes(MODULE_SIZE))
            self.memory.put(at + 0x200, bytes(24))
            self.memory.put(at + CODE, bytes(16))
            self.memory.put(at + 0x4000, symtab)
            self.memory.put(at + 0x8000, names)
            for offset, value in ((32, at + CODE), (64, at + 0x200)):
                self.memory.word(at + offset, value)
            self.memory.word(at + 40, 0x1000, 4)
            for offset, value in ((0, at + 0x4000), (8, len(rows) + 1), (16, at + 0x8000)):
                self.memory.word(at + 0x200 + offset, value)
        self._link(HEAD, [FIRST + i * SPAN + 8 for i in range(len(tables))])

    def btfs(self, *data: bytes) -> None:
        """Modules' BTF."""
        nodes = []
        for i, one in enumerate(data):
            at = BTF_HEAD + 0x1000 * (i + 1)
            self.memory.put(at, bytes(48))
            self.memory.put(at + 0x100, one)
            self.memory.word(at + 24, at + 32)
            self.memory.word(at + 32, at + 0x100)
            self.memory.word(at + 40, len(one), 4)
            nodes.append(at)
        self._link(BTF_HEAD, nodes)


OPS, CODE_ROW = ("pmem_ops", 0x80, 0x40, OBJECT), ("pmem_probe", 0x20, 0x20, FUNC)


def test_symbols_of_a_module_by_address() -> None:
    kernel = Kernel()
    kernel.modules([("other", 0, 16, FUNC)], [OPS, CODE_ROW])
    symbols, base = ModuleSymbols(kernel.prog), FIRST + SPAN + CODE
    found = symbols.at(base + 0x80)
    assert found == ("pmem_ops", base + 0x80, 0x40, False)
    assert symbols.at(base + 0xBF) == found
    assert symbols.at(base + 0x20) == ("pmem_probe", base + 0x20, 0x20, True)
    # Before the first, between two, behind the last, of no module.
    for address in (base, base + 0x40, base + 0xC0, FIRST + 4 * SPAN, HEAD):
        assert symbols.at(address) is None
    first = symbols.at(FIRST + CODE)
    assert first is not None and first.name == "other"


@pytest.mark.parametrize("what", ["count", "table", "names", "kallsyms"])
def test_symbols_of_a_damaged_module(what: str) -> None:
    kernel = Kernel()
    kernel.modules([OPS], [CODE_ROW])
    words = {
        "count": (FIRST + 0x208, 0xFFFFFFFF),
        "table": (FIRST + 0x200, 0x1000),
        "names": (FIRST + 0x210, 0x1000),
        "kallsyms": (FIRST + 64, 0),
    }
    kernel.memory.word(words[what][0], words[what][1])
    symbols = ModuleSymbols(kernel.prog)
    assert symbols.at(FIRST + CODE + 0x80) is None
    assert symbols.at(FIRST + SPAN + CODE + 0x20) is not None


@pytest.mark.parametrize("what", ["into itself", "lost", "no list"])
def test_a_list_of_modules_that_is_damaged_ends(what: str) -> None:
    kernel = Kernel()
    kernel.modules([OPS], [CODE_ROW], [])
    if what == "into itself":
        kernel.memory.word(FIRST + SPAN + 8, FIRST + 8)
    elif what == "lost":
        kernel.memory.word(FIRST + SPAN + 8, 0x1000)
    else:
        kernel.memory.word(HEAD, 0x1000)
    assert len(list(each_module(kernel.prog))) == (0 if what == "no list" else 2)
    assert module_at(kernel.prog, FIRST + 2 * SPAN + CODE) is None
    assert list(each_module(Program(AMD64))) == []


def finder(prog: Program) -> Program:
    """The Program, with the BTF of every_kind() and its modules."""
    types = BtfTypes(prog, Btf(every_kind().bytes()))
    prog.register_type_finder("btf", type_finder(types, ModuleTypes(types)), enable_index=-1)
    return prog


def test_types_of_modules_stand_behind_the_kernels() -> None:
    kernel = Kernel()
    kernel.btfs(b"garbage", split(every_kind()).bytes())
    prog = finder(kernel.prog)
    mine = prog.type("struct mine")
    assert mine.size == 48 and mine.member("page").type.size == 40
    assert mine.member("next").type.type.tag == "mine"
    # The kernel's own one of that name.
    assert [e.name for e in prog.type("enum zone_type").enumerators] == ["ZONE_DMA", "ZONE_DEVICE"]
    with pytest.raises(LookupError):
        prog.type("struct nobodys")


def test_types_of_modules_are_read_when_the_kernel_has_none() -> None:
    kernel = Kernel()
    kernel.btfs(split(every_kind()).bytes())
    prog = finder(kernel.prog)
    kernel.memory.reads = 0
    assert prog.type("struct page").size == 40
    assert not kernel.memory.reads
    assert prog.type("struct mine").size == 48
    read = kernel.memory.reads
    assert read
    with pytest.raises(LookupError):
        prog.type("struct nobodys")
    assert kernel.memory.reads == read


@pytest.mark.parametrize("size", [0, 1 << 31])
def test_btf_of_a_module_without_a_sensible_size(size: int) -> None:
    kernel = Kernel()
    kernel.btfs(b"garbage", split(every_kind()).bytes())
    kernel.memory.word(BTF_HEAD + 0x1000 + 40, size, 4)
    assert len(list(each_module_btf(kernel.prog))) == 1


def test_types_of_the_running_kernel_are_those_of_sys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vmlinux").write_bytes(every_kind().bytes())
    (tmp_path / "mine").write_bytes(split(every_kind()).bytes())
    monkeypatch.setattr(modules, "SYS_BTF", str(tmp_path))
    monkeypatch.setattr(modules, "is_this_machine", lambda _: True)
    prog = finder(Kernel().prog)
    assert prog.type("struct mine").size == 48
    assert modules.sys_btf("vmlinux") == every_kind().bytes()
    assert modules.sys_btf("nobody") is None
    monkeypatch.setattr(modules, "SYS_BTF", str(tmp_path / "none"))
    assert list(each_module_btf(prog)) == []


def test_a_core_is_not_this_machine() -> None:
    assert not modules.is_this_machine(Program(AMD64))
