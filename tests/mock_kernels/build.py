#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Builds the mock kernels: for each a vmlinux (the program itself), and of two variants the core and truth.

    build.py OUT [NAME...]      OUT/NAME/vmlinux, OUT/NAME/{healthy,broken}/{vmcore,truth-states.json}

Owns the table of mocks and the way of compiling them; what they hold is in their sources.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple, Optional

HERE = Path(__file__).resolve().parent

VARIANTS = ("healthy", "broken")

# Low addresses, which VMCOREINFO's KERNELOFFSET lifts to a kernel's (see mock.h).
_FLAGS = (
    *("-std=gnu11", "-g", "-O0", "-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers"),
    *("-fno-pie", "-no-pie", "-Wl,-Ttext-segment=0x1000000"),
)


class Mock(NamedTuple):
    """A source and the macros that it is compiled with."""

    source: str
    defines: tuple[str, ...] = ()


MOCKS = {
    "a": Mock("a.c"),
    "a-oldest": Mock("a.c", ("-DOLDEST",)),
    "b": Mock("b.c"),
    "c14": Mock("c14.c"),
    "c19": Mock("c19.c"),
    "d": Mock("d.c"),
    "d-drivers": Mock("d.c", ("-DDRIVERS",)),
    "f1": Mock("f1.c"),
    "f2": Mock("f2.c"),
    "f2-drivers": Mock("f2.c", ("-DDRIVERS",)),
}


def compiler() -> Optional[str]:
    """A C compiler, None where there is none that makes programs for the mocks' machine."""
    if platform.machine() != "x86_64":
        return None
    return shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")


def build_id(mock: Mock) -> str:
    """Changes with everything that the program is made of."""
    digest = hashlib.sha1(" ".join((mock.source, *mock.defines)).encode())
    for path in [HERE / mock.source, *sorted(HERE.glob("*.h"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def build(name: str, out: Path) -> Path:
    """Make OUT/NAME, and return it."""
    mock, directory = MOCKS[name], out / name
    vmlinux, id_ = directory / "vmlinux", build_id(MOCKS[name])
    directory.mkdir(parents=True, exist_ok=True)
    command = compiler()
    assert command, "no C compiler for x86_64"
    subprocess.run(
        [
            command,
            *_FLAGS,
            *mock.defines,
            f"-Wl,--build-id=0x{id_}",
            str(HERE / mock.source),
            "-o",
            str(vmlinux),
        ],
        check=True,
    )
    for variant in VARIANTS:
        (directory / variant).mkdir(exist_ok=True)
        subprocess.run([vmlinux, id_, variant, directory / variant], check=True)
    return directory


def main() -> int:
    if len(sys.argv) < 2 or not set(sys.argv[2:]) <= set(MOCKS):
        print(f"usage: build.py OUT [{'|'.join(MOCKS)}]...", file=sys.stderr)
        return 2
    if not compiler():
        print("build.py: no C compiler for x86_64; install gcc", file=sys.stderr)
        return 1
    for name in sys.argv[2:] or MOCKS:
        print(build(name, Path(sys.argv[1])))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
