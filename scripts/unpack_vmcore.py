# SPDX-License-Identifier: LGPL-2.1-or-later
"""Unpacks a bundled vmcore (vmcore.xz) below a directory of build products; quick the second time.

usage: unpack_vmcore.py tests/vmcores/NAME OUT        -> OUT/NAME/vmcore
"""

from __future__ import annotations

import lzma
import os
import shutil
import sys
from pathlib import Path


def unpack(source: Path, out: Path) -> Path:
    """Path of the unpacked core; written anew only when the packed one is newer."""
    packed = source / "vmcore.xz"
    target = out / source.name / "vmcore"
    if target.exists() and target.stat().st_mtime >= packed.stat().st_mtime:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = target.with_suffix(f".{os.getpid()}")
    with lzma.open(packed) as data, open(scratch, "wb") as file:
        shutil.copyfileobj(data, file, 1 << 20)
    os.replace(scratch, target)
    return target


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    unpack(Path(sys.argv[1]), Path(sys.argv[2]))
