# SPDX-License-Identifier: LGPL-2.1-or-later
"""The binding with ASan and UBSan: built apart, and run through tests that call all of it.

Python's own allocator is off, so that a byte behind a buffer is seen.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Optional

import pytest
from conftest import ROOT
from native import compiler, why_no_sanitizers

CASES = [
    ("test_bulk.py", "random_pages and E-FS_DAX or cut_off or refused or shrinks or sense"),
    ("test_cells.py", "cannot or nothing or one_range or templates or some_pages"),
    ("test_pointers.py", ""),
    ("test_rules.py", ""),
    ("test_scan.py", "not real_cores or 7.2-nvdimm"),
    ("test_vmcores.py", "(7.2-nvdimm or 7.2-kdump-leak) and not recorded_counts"),
]


def why_not() -> Optional[str]:
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.exists():
        return f"{header} is missing: the binding cannot be built"
    return why_no_sanitizers() or (None if run_time() else "no libasan to preload")


def run_time() -> Optional[str]:
    """The sanitizers' run time, which must be loaded before Python."""
    result = subprocess.run(
        [str(compiler()), "-print-file-name=libasan.so"],
        capture_output=True,
        text=True,
        check=False,
    )
    path = result.stdout.strip()
    return path if os.path.isabs(path) else None


pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with zonedev and an extension with sanitizers."""
    directory = tmp_path_factory.mktemp("sanitized")
    flags = "-g -O1 -fsanitize=address,undefined"
    subprocess.run(
        [
            *(sys.executable, "setup.py", "-q", "build_ext"),
            *("--build-lib", directory / "lib", "--build-temp", directory / "build"),
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "CFLAGS": "",
            "ZONEDEV_CFLAGS": flags + " -fno-sanitize-recover=undefined",
            "ZONEDEV_LDFLAGS": flags,
        },
        capture_output=True,
        check=True,
    )
    shutil.copytree(
        ROOT / "zonedev",
        directory / "lib" / "zonedev",
        ignore=shutil.ignore_patterns("*.so", "__pycache__"),
        dirs_exist_ok=True,
    )
    return directory


def run(package: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=package,
        env={
            **os.environ,
            "PYTHONPATH": str(package / "lib"),
            "PYTHONMALLOC": "malloc",
            "LD_PRELOAD": str(run_time()),
            # What Python keeps until it ends looks like leaks.
            "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        },
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_sanitizers_watch_the_binding(package: Path) -> None:
    source = (
        "import zonedev._zonedev as z; print(z.__file__); print(open('/proc/self/maps').read())"
    )
    lines = run(package, "-c", source).stdout.splitlines()
    assert lines[0].startswith(str(package))
    assert any("libasan" in line for line in lines)
    assert b"__asan_report_load" in Path(lines[0]).read_bytes()


@pytest.mark.parametrize(("file", "filter_"), CASES)
def test_the_binding_under_sanitizers(package: Path, file: str, filter_: str) -> None:
    result = run(
        package,
        *("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"),
        *("-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)),
        *(str(ROOT / "tests" / file), "-k", filter_),
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
