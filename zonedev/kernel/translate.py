# SPDX-License-Identifier: LGPL-2.1-or-later
"""Physical addresses out of the kernel's own page tables.

Owns what is asked for them where the symbols do not tell of init_mm.
"""

from __future__ import annotations

from drgn import Object, Program
from drgn.helpers.linux.mm import follow_phys

from zonedev.kernel.symbols import vmcoreinfo_symbol


def _kernel_mm(prog: Program) -> Object:
    """``init_mm``, or what of it leads to page tables: VMCOREINFO names the kernel's page directory."""
    try:
        return prog["init_mm"].address_of_()
    except LookupError:
        told = vmcoreinfo_symbol(prog, "swapper_pg_dir")
        if told is None:
            raise
        return Object(prog, "struct mm_struct", {"pgd": told})


def physical_address(prog: Program, address: int) -> int:
    """Where memory lies that the kernel has mapped.

    :raises FaultError: it is not mapped
    :raises LookupError: types or symbols lack for it, or drgn cannot walk this machine's page tables
    """
    try:
        return int(follow_phys(_kernel_mm(prog), address))
    except NotImplementedError as err:
        raise LookupError(str(err)) from None
