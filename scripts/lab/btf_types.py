#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Compare what zonedev says of a core by its own BTF and kallsyms with what it says by DWARF.

usage: btf_types.py CORE VMLINUX [--module FILE] ...      (with a Python that has zonedev; whole debug files)

Owns the comparison of two sources of types: the types that the package and drgn's helpers ask for, member by
member, and both reports. Left out are words that tell what was missing, and names of operations of modules whose
debug file was not given. Prints each difference, then one line; exit status 1 if there is any.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from typing import Any

from drgn import Program, Qualifiers, Type, TypeKind

from zonedev.audit import audit
from zonedev.report.data import audit_dict
from zonedev.target import Target, open_target

# What the package asks types for, and what drgn's helpers do for it.
KERNEL_TYPES = (
    *("struct page", "struct folio", "struct dev_pagemap", "struct dev_pagemap_ops"),
    *("struct vmem_altmap", "struct xarray", "struct xa_node", "struct percpu_ref"),
    *("struct percpu_ref_data", "struct address_space", "struct inode", "struct super_block"),
    *("struct mem_section", "struct mem_section_usage", "struct pglist_data", "struct zone"),
    *("struct mm_struct", "struct device", "struct resource", "struct task_struct"),
    *("struct range", "struct dentry", "struct kobject", "struct class", "struct module"),
    *("enum memory_type", "enum zone_type", "enum pageflags", "enum node_states"),
    *("nodemask_t", "atomic_t", "spinlock_t"),
    # Of modules, which have BTF since 5.11.
    *("struct dmirror_device", "struct dmirror_chunk"),
)

# Parts of a report that must be the same, and words in them that need not be.
PARTS = ("scheme", "pagemaps", "findings", "summary", "passes")
SILENT = ("ops", "detail")


# ---------------------------------------------------------------- types


def unqualified(type_: Type) -> Type:
    return type_.unqualified() if type_.qualifiers else type_


def spelled(type_: Type) -> str:
    """A type in words; how an array of no length and an enum's integer are spelled differs."""
    name = type_.type_name() if type_.kind != TypeKind.ENUM or type_.tag else "enum <anonymous>"
    return re.sub(r"\[0?\]", "[]", name)


def flattened(type_: Type) -> tuple[Type, int]:
    """Elements that are no arrays, and how many: pahole writes an array of arrays as one."""
    count = 1
    while type_.kind == TypeKind.ARRAY:
        count *= type_.length or 0
        type_ = unqualified(type_.type)
    return type_, count


def facts(type_: Type) -> tuple[Any, ...]:
    """What must agree of two types, without what they refer to."""
    kind = type_.kind
    if kind in (TypeKind.STRUCT, TypeKind.UNION):
        return kind, type_.tag, type_.size, len(type_.members or ())
    if kind == TypeKind.ENUM:
        return kind, type_.tag, [(e.name, e.value) for e in type_.enumerators or ()]
    if kind in (TypeKind.INT, TypeKind.BOOL, TypeKind.FLOAT):
        # Of char, BTF of 5.10 does not say the sign.
        return kind, type_.size, kind == TypeKind.INT and type_.size > 1 and type_.is_signed
    if kind == TypeKind.ARRAY:
        return kind, flattened(type_)[1]
    return (kind,)


def differences(one: Type, other: Type, where: str, depth: int = 0) -> Iterator[str]:
    """Where two types differ, member by member; struct members by value are gone into, pointers are not."""
    if facts(one) != facts(other):
        yield f"{where}: {facts(one)} is {facts(other)}"
        return
    if one.kind == TypeKind.TYPEDEF:
        yield from differences(unqualified(one.type), unqualified(other.type), where, depth)
    if one.kind == TypeKind.ARRAY:
        yield from differences(flattened(one)[0], flattened(other)[0], where, depth)
    if one.kind not in (TypeKind.STRUCT, TypeKind.UNION) or one.members is None:
        return
    for mine, its in zip(one.members, other.members):
        at = f"{where}.{mine.name or '<anonymous>'}"
        if (mine.name, mine.bit_offset, mine.bit_field_size) != (
            *(its.name, its.bit_offset),
            its.bit_field_size,
        ):
            yield f"{at} at {mine.bit_offset} is {its.name} at {its.bit_offset}"
        elif mine.type.qualifiers & ~Qualifiers.ATOMIC != its.type.qualifiers:
            yield f"{at}: {mine.type.qualifiers} is {its.type.qualifiers}"
        elif depth < 12:
            yield from differences(unqualified(mine.type), unqualified(its.type), at, depth + 1)


def type_differences(dwarf: Program, btf: Program) -> Iterator[str]:
    """Of each type that one of them has."""
    for name in KERNEL_TYPES:
        found = []
        for prog in (dwarf, btf):
            try:
                found.append(prog.type(name))
            except LookupError:
                continue
        if len(found) == 1:
            yield f"{name}: only one of them has it"
        elif found:
            yield from differences(found[0], found[1], name)


# ---------------------------------------------------------------- reports


def without_words(value: Any) -> Any:
    """A part of a report, without what may be worded in other ways."""
    if isinstance(value, dict):
        return {k: without_words(v) for k, v in value.items() if k not in SILENT}
    return [without_words(one) for one in value] if isinstance(value, list) else value


def report_differences(dwarf: dict[str, Any], btf: dict[str, Any]) -> Iterator[str]:
    for part in PARTS:
        if without_words(dwarf[part]) != without_words(btf[part]):
            yield f"{part}: {btf[part]}, by DWARF {dwarf[part]}"
    rules = [sorted({one["rule"] for one in report["not_applicable"]}) for report in (dwarf, btf)]
    if rules[0] != rules[1]:
        yield f"rules that do not apply: {rules[1]}, by DWARF {rules[0]}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("core")
    parser.add_argument("vmlinux")
    parser.add_argument("--module", action="append", default=[], help="debug file of a module")
    options = parser.parse_args()
    dwarf = open_target(Target(options.core, [options.vmlinux, *options.module]))
    btf = open_target(Target(options.core, btf=True))
    found = [
        *type_differences(dwarf, btf),
        *report_differences(audit_dict(audit(dwarf)), audit_dict(audit(btf))),
    ]
    for line in found:
        print(line)
    print(f"btf_types.py: {len(KERNEL_TYPES)} types and both reports, {len(found)} differences")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
