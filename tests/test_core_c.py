# SPDX-License-Identifier: LGPL-2.1-or-later
"""The core by itself under ASan and UBSan (ext/tests/test_core.c), and its rules of the house."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from conftest import ROOT

CORE = sorted((ROOT / "ext" / "core").glob("*.c"))


def test_core_under_sanitizers(tmp_path: Path) -> None:
    program = tmp_path / "test_core"
    subprocess.run(
        [
            os.environ.get("CC", "cc"),
            "-std=gnu11",
            "-g",
            "-O1",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-missing-field-initializers",
            "-fsanitize=address,undefined",
            "-fno-sanitize-recover=all",
            "-Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc",
            *map(str, CORE),
            str(ROOT / "ext" / "tests" / "test_core.c"),
            "-o",
            str(program),
        ],
        check=True,
    )
    result = subprocess.run([program], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "0 failures\n"


def test_core_needs_neither_python_nor_drgn() -> None:
    for path in [*CORE, *(ROOT / "ext" / "core").glob("*.h")]:
        includes = re.findall(r'#include [<"](.*?)[>"]', path.read_text())
        assert not {
            i for i in includes if "Python" in i or "drgn" in i or i.startswith("linux/")
        }, path


def test_every_file_has_its_licence_line() -> None:
    names = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    sources = [n for n in names if n.endswith((".py", ".c", ".h", ".sh", ".pyi", ".toml"))]
    assert sources
    for name in sources:
        head = (ROOT / name).read_text(errors="replace")[:300]
        assert "SPDX-License-Identifier" in head, name
