# SPDX-License-Identifier: LGPL-2.1-or-later
"""Compiling C for tests: with sanitizers where the compiler has them."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Optional

from conftest import ROOT

CORE = sorted((ROOT / "ext" / "core").glob("*.c"))
EXPANDERS = [ROOT / "ext" / "readers" / f"{name}.c" for name in ("lzo", "snappy", "recipe")]
EXPAND = [ROOT / "ext" / "readers" / "decompress.c", *EXPANDERS]
MEMORY = [
    *(
        ROOT / "ext" / "readers" / f"{name}.c"
        for name in ("memory", "view", "extents", "flat", "core", "diskdump")
    ),
    *EXPAND,
]

WARNINGS = (
    *("-std=gnu11", "-g", "-O1", "-Wall", "-Wextra", "-Werror"),
    "-Wno-missing-field-initializers",
)
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def compiler() -> Optional[str]:
    return shutil.which(os.environ.get("CC", "cc"))


@functools.cache
def why_no_sanitizers() -> Optional[str]:
    """None where programs can be built with ASan and UBSan, and run; else why not."""
    command = compiler()
    if command is None:
        return "no C compiler"
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "program"
        source = program.with_suffix(".c")
        source.write_text("int main(void) { return 0; }\n")
        built = subprocess.run(
            [command, *SANITIZE, str(source), "-o", str(program)], capture_output=True, check=False
        )
        if built.returncode or subprocess.run([program], check=False).returncode:
            return f"{command} has no address and undefined behaviour sanitizers that run here"
    return None


def pkg_config(package: str) -> Optional[list[str]]:
    """Words that compile and link with a library; None where it is not installed."""
    try:
        result = subprocess.run(
            ["pkg-config", "--cflags", "--libs", package],
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return None
    return result.stdout.split() if result.returncode == 0 else None


def build(program: Path, *words: object) -> Path:
    """Compile and link a program with sanitizers."""
    command = compiler()
    assert command
    subprocess.run(
        [command, *WARNINGS, *SANITIZE, *map(str, words), "-o", str(program)], check=True
    )
    return program
