# SPDX-License-Identifier: LGPL-2.1-or-later
"""Page tables of user space: entries of all levels and forms, laid out by hand as x86-64 has them.

Synthetic, because no kernel at hand can be made to show each form at a known place; real ones are those of
test_explain.py.
"""

from __future__ import annotations

import struct
from typing import Optional

import pytest
from drgn import Architecture, Object, Platform, Program, TypeEnumerator, TypeMember
from made_up import tell_objects, tell_symbols, tell_types

from zonedev.kernel.pagetable import CannotWalk, Entry, PageTables, Pfns

PAGE = 4096
MM, PGD = 0xFFFF888000001000, 0xFFFF888000002000
PUD, PMD, PTE = 0x10000, 0x11000, 0x12000  # physical
PRESENT, WRITE, PSE, PROTNONE = 1, 2, 1 << 7, 1 << 8
TABLE = PRESENT | WRITE | 4
SWAP_FILES = 23
PFN = 0x123456
MASK = ((1 << 52) - 1) & ~0xFFF


def swap(type_: int, offset: int) -> int:
    """A swap entry as __swp_entry() of x86-64 makes it."""
    return ((~offset << 14) & ((1 << 64) - 1)) >> 5 | type_ << 59


class Kernel:
    """A Program with one process, whose tables are dictionaries slot -> word."""

    def __init__(
        self,
        exclusive: bool = True,
        hwpoison: bool = True,
        vmcoreinfo: str = "",
        arch: Architecture = Architecture.X86_64,
        functions: tuple[str, ...] = (),
    ) -> None:
        self.tables: dict[int, dict[int, int]] = {PGD: {511: TABLE}, PUD: {}, PMD: {}, PTE: {}}
        self.reads = 0
        self.prog = prog = Program(Platform(arch))
        prog.add_memory_segment(0, 1 << 32, self._physical, True)
        prog.add_memory_segment(MM, 2 * PAGE, self._virtual)
        void = prog.pointer_type(prog.void_type())
        mm = prog.struct_type("mm_struct", 8, (TypeMember(void, "pgd"),))
        flags = [TypeEnumerator("PG_locked", 0)] + [
            TypeEnumerator("PG_anon_exclusive", 17)
        ] * exclusive
        bits = prog.enum_type("pageflags", prog.int_type("unsigned int", 4, False), flags)
        files = Object(prog, prog.array_type(void, SWAP_FILES), address=PGD)
        text = vmcoreinfo.encode()
        info = Object(prog, prog.array_type(prog.int_type("char", 1, True), len(text)), text)
        objects = {"swap_info": files, "VMCOREINFO": info}
        if exclusive:
            objects["PG_anon_exclusive"] = Object(prog, bits, 17)
        known = (*functions, *["num_poisoned_pages"] * hwpoison)
        tell_types(prog, {"mm_struct": mm})
        tell_objects(prog, objects)
        tell_symbols(prog, dict.fromkeys(known, PGD), 8)

    def _table(self, address: int) -> bytes:
        slots = self.tables.get(address, {})
        return struct.pack("<512Q", *(slots.get(i, 0) for i in range(512)))

    def _physical(self, address: int, count: int, offset: int, physical: bool) -> bytes:
        self.reads += 1
        page = address & ~(PAGE - 1)
        return self._table(page)[address - page :][:count]

    def _virtual(self, address: int, count: int, offset: int, physical: bool) -> bytes:
        memory = struct.pack("<Q", PGD).ljust(PAGE, b"\0") + self._table(PGD)
        return memory[address - MM :][:count]

    def lead(self, *levels: int) -> None:
        """Make the first slots lead from table to table."""
        for table, below in zip((PGD, PUD, PMD), levels):
            self.tables[table][0] = below | TABLE

    def find(
        self, pfns: range, start: int = 0, end: int = 1 << 47, left: Optional[list[int]] = None
    ) -> list[Entry]:
        return list(PageTables(self.prog).entries(MM, start, end, Pfns([pfns]), left))


@pytest.fixture
def kernel() -> Kernel:
    kernel = Kernel()
    kernel.lead(PUD, PMD, PTE)
    return kernel


ONE = range(PFN, PFN + 1)


def test_a_page_is_found_where_it_is_mapped(kernel: Kernel) -> None:
    kernel.tables[PTE] = {
        3: (PFN - 1) << 12 | PRESENT,
        4: PFN << 12 | PRESENT | WRITE | 1 << 63,
        9: PFN << 12 | PRESENT,
        10: (PFN + 1) << 12 | PRESENT,
    }
    assert kernel.find(ONE) == [
        Entry("pte", "map", PFN, 4 * PAGE, 1, True),
        Entry("pte", "map", PFN, 9 * PAGE, 1, False),
    ]


def test_only_the_addresses_that_were_asked_for(kernel: Kernel) -> None:
    kernel.tables[PTE] = {i: PFN << 12 | PRESENT for i in range(8)}
    found = kernel.find(ONE, start=2 * PAGE, end=5 * PAGE)
    assert [entry.address // PAGE for entry in found] == [2, 3, 4]


@pytest.mark.parametrize(
    ("table", "level", "shift"), [(PMD, "pmd", 21), (PUD, "pud", 30)], ids=["pmd", "pud"]
)
def test_large_entries(kernel: Kernel, table: int, level: str, shift: int) -> None:
    pages = 1 << (shift - 12)
    first = 4 * pages
    # Bit 12 of a large entry is no address (PAT).
    kernel.tables[table][5] = first << 12 | 1 << 12 | PRESENT | PSE | WRITE
    for pfn in (first, first + 1, first + pages - 1):
        found = kernel.find(range(pfn, pfn + 1))
        assert found == [Entry(level, "map", first, 5 << shift, pages, True)]
    assert not kernel.find(range(first - 1, first)) and not kernel.find(
        range(first + pages, first + pages + 1)
    )


def test_a_large_entry_that_is_being_split_is_one_still(kernel: Kernel) -> None:
    kernel.tables[PMD][5] = (~(512 << 12) & MASK & ~0x1FFFFF) | PSE
    assert [e.pfn for e in kernel.find(range(512, 1024))] == [512]


def test_a_large_entry_without_access_is_inverted(kernel: Kernel) -> None:
    kernel.tables[PMD][5] = (~(1024 << 12) & MASK & ~0x1FFFFF) | PSE | PROTNONE
    kernel.tables[PMD][6] = 1024 << 12 | PSE | PROTNONE
    assert [(e.pfn, e.address >> 21) for e in kernel.find(range(1024, 1536))] == [(1024, 5)]


def test_protection_without_access_keeps_the_page_inverted(kernel: Kernel) -> None:
    kernel.tables[PTE] = {2: (~(PFN << 12) & MASK) | PROTNONE, 3: PFN << 12 | PROTNONE}
    assert [e.address // PAGE for e in kernel.find(ONE)] == [2]


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("hwpoison", [True, False])
def test_entries_that_name_a_page_without_mapping_it(exclusive: bool, hwpoison: bool) -> None:
    kernel = Kernel(exclusive, hwpoison)
    kernel.lead(PUD, PMD, PTE)
    kernel.tables[PTE] = {i: swap(i, PFN) for i in range(32)}
    kinds = {entry.address // PAGE: entry.kind for entry in kernel.find(ONE)}
    first = SWAP_FILES + hwpoison
    device = first + (3 if exclusive else 2)
    # Below them are pages that went to a swap file, at an offset that may be any number.
    assert kinds == {
        **dict.fromkeys(range(first, device), "migration"),
        **dict.fromkeys(range(device, 32), "device-private"),
    }


def test_bits_above_the_page_of_a_migration_entry_are_not_its_own(kernel: Kernel) -> None:
    kernel.tables[PTE] = {0: swap(24, PFN | 3 << 34)}
    assert [(e.kind, e.pfn) for e in kernel.find(ONE)] == [("migration", PFN)]


def test_a_device_private_entry_of_a_whole_table(kernel: Kernel) -> None:
    kernel.tables[PMD][7] = swap(SWAP_FILES + 4, 512)
    assert kernel.find(range(700, 701)) == [
        Entry("pmd", "device-private", 512, 7 << 21, 512, False)
    ]


def test_memory_encryption_is_no_part_of_an_address() -> None:
    kernel = Kernel(vmcoreinfo=f"NUMBER(sme_mask)={1 << 47}\n")
    kernel.lead(PUD | 1 << 47, PMD | 1 << 47, PTE | 1 << 47)
    kernel.tables[PTE] = {1: PFN << 12 | 1 << 47 | PRESENT}
    assert [e.address for e in kernel.find(ONE)] == [PAGE]


def test_five_levels() -> None:
    kernel = Kernel(vmcoreinfo="NUMBER(pgtable_l5_enabled)=1\n")
    p4d = 0x13000
    kernel.tables[p4d] = {1: PUD | TABLE}
    kernel.tables[PGD][2] = p4d | TABLE
    kernel.tables[PUD][0], kernel.tables[PMD][0] = PMD | TABLE, PTE | TABLE
    kernel.tables[PTE] = {3: PFN << 12 | PRESENT}
    address = 2 << 48 | 1 << 39 | 3 << 12
    assert [e.address for e in kernel.find(ONE, end=1 << 56)] == [address]


@pytest.mark.parametrize(("functions", "bit"), [((), 58), (("arch_check_zapped_pte",), 57)])
def test_the_bit_of_device_maps_where_a_kernel_has_it(functions: tuple[str, ...], bit: int) -> None:
    kernel = Kernel(functions=functions)
    kernel.lead(PUD, PMD, PTE)
    kernel.tables[PTE] = {i: PFN << 12 | PRESENT | 1 << i for i in (57, 58)}
    kernel.tables[PTE][60] = swap(SWAP_FILES + 8, PFN) | 1 << bit
    found = {e.address // PAGE: e.devmap for e in kernel.find(ONE)}
    assert found[bit] and not found[115 - bit] and not any(found[i] for i in found if i > 58)


def test_several_folios_at_once(kernel: Kernel) -> None:
    kernel.tables[PTE] = {i: (0x1000 + i) << 12 | PRESENT for i in range(512)}
    wanted = Pfns([range(0x1100, 0x1102), range(0x1004, 0x1005), range(0x5000, 0x6000)])
    found = list(PageTables(kernel.prog).entries(MM, 0, 1 << 47, wanted))
    assert [e.pfn for e in found] == [0x1004, 0x1100, 0x1101]


@pytest.mark.parametrize(
    ("start", "end", "pages"),
    [
        (0, 1 << 47, 4 + 512),
        (2 * PAGE, 9 * PAGE, 2),
        (9 * PAGE, 1 << 21, 2),
        ((1 << 21) - PAGE, (1 << 21) + 3 * PAGE, 3),
        ((2 << 21) - PAGE, 3 << 21, 1),
    ],
)
def test_what_is_mapped_is_counted_whatever_it_is(
    kernel: Kernel, start: int, end: int, pages: int
) -> None:
    kernel.tables[PTE] = {
        1: swap(24, PFN),
        3: PFN << 12 | PRESENT,
        4: 7 << 12 | PRESENT | WRITE,
        9: (~(PFN << 12) & MASK) | PROTNONE,
        10: 8 << 12 | PRESENT,
    }
    kernel.tables[PMD][1] = 512 << 12 | PRESENT | PSE
    mapped = [0]
    list(PageTables(kernel.prog).entries(MM, start, end, Pfns([ONE]), mapped=mapped))
    assert mapped == [pages]


def test_tables_that_lead_into_themselves_end(kernel: Kernel) -> None:
    for table in (PUD, PMD):
        kernel.tables[table] = {i: PUD | TABLE for i in range(512)}
    with pytest.raises(CannotWalk, match="more mapped than can be looked through"):
        kernel.find(ONE)
    assert kernel.reads < 1 << 17


def test_no_more_entries_than_are_left(kernel: Kernel) -> None:
    kernel.tables[PTE] = {1: PFN << 12 | PRESENT}
    left = [4 * 512]
    assert kernel.find(ONE, left=left) and left[0] < 512
    with pytest.raises(CannotWalk):
        kernel.find(ONE, left=left)


def test_a_directory_that_was_left_out(kernel: Kernel) -> None:
    kernel.tables[PGD] = {}
    with pytest.raises(CannotWalk, match="reads as zeroes"):
        kernel.find(ONE)


def test_tables_outside_of_memory(kernel: Kernel) -> None:
    kernel.tables[PMD][1] = 1 << 40 | TABLE
    with pytest.raises(CannotWalk, match="cannot be read"):
        kernel.find(ONE)


def test_a_machine_whose_tables_are_not_known() -> None:
    kernel = Kernel(arch=Architecture.RISCV64)
    with pytest.raises(CannotWalk):
        kernel.find(ONE, end=PAGE)
