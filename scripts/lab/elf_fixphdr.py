#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Move the program headers of a QEMU ELF dump to directly behind the ELF header, in place.

usage: elf_fixphdr.py CORE...

QEMU since 7.1 writes a section header first (e_phoff = 192); makedumpfile assumes e_phoff = 64 and
says "Can't get the number of PT_LOAD". Nothing else of the file changes; a file that is already so
is left alone.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

EHDR_SIZE = 64
PHDR_SIZE = 56
PN_XNUM = 0xFFFF  # the real number is in a section header: that has to stay


def fix(path: Path) -> None:
    with path.open("r+b") as file:
        header = bytearray(file.read(EHDR_SIZE))
        (phoff,) = struct.unpack_from("<Q", header, 32)
        size, number = struct.unpack_from("<HH", header, 54)
        if phoff == EHDR_SIZE or number == PN_XNUM:
            return
        if size != PHDR_SIZE or phoff < EHDR_SIZE:
            raise ValueError(f"{path}: not a 64-bit ELF file as QEMU writes it")
        file.seek(phoff)
        program_headers = file.read(size * number)
        struct.pack_into("<QQ", header, 32, EHDR_SIZE, 0)
        struct.pack_into("<HHH", header, 58, 0, 0, 0)  # e_shentsize, e_shnum, e_shstrndx
        file.seek(0)
        file.write(header + program_headers + bytes(phoff - EHDR_SIZE))


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        fix(Path(argument))
