# SPDX-License-Identifier: LGPL-2.1-or-later
"""The core by itself under ASan and UBSan (ext/tests/test_core.c), and its rules of the house."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT
from native import CORE, EXPANDERS, MEMORY, build, why_no_sanitizers

FAILING_CALLS = "-Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc"

needs_sanitizers = pytest.mark.skipif(
    why_no_sanitizers() is not None, reason=str(why_no_sanitizers())
)


def check(directory: Path, name: str, *words: object) -> None:
    """Build ext/tests/NAME.c, and run it."""
    program = build(directory / name, *words, ROOT / "ext" / "tests" / f"{name}.c")
    result = subprocess.run([program], capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "0 failures\n"


@needs_sanitizers
@pytest.mark.parametrize("options", [[], ["-DZD_NARROW"]], ids=["", "narrow"])
def test_core_under_sanitizers(tmp_path: Path, options: list[str]) -> None:
    check(tmp_path, "test_core", *options, FAILING_CALLS, *CORE)


@needs_sanitizers
def test_readers_under_sanitizers(tmp_path: Path) -> None:
    failing = f"{FAILING_CALLS},--wrap=pread,--wrap=pread64,--wrap=pthread_create"
    bulk = ROOT / "ext" / "readers" / "bulk.c"
    check(tmp_path, "test_readers", "-pthread", failing, *CORE, *MEMORY, bulk)


@needs_sanitizers
def test_compressed_pages_under_sanitizers(tmp_path: Path) -> None:
    check(tmp_path, "test_expand", FAILING_CALLS, *EXPANDERS)


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
    sources = [
        n
        for n in names
        if n.endswith((".py", ".c", ".h", ".sh", ".pyi", ".toml", ".js", ".css", ".html"))
    ]
    assert sources
    for name in sources:
        head = (ROOT / name).read_text(errors="replace")[:300]
        assert "SPDX-License-Identifier" in head, name
