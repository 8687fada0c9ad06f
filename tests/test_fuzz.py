# SPDX-License-Identifier: LGPL-2.1-or-later
"""Smoke runs of the fuzz targets in ext/fuzz: the corpus and always the same mutations, with sanitizers.

Long runs are `make fuzz`.  What the targets promise is said in each of them.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple, Optional

import pytest
from conftest import ROOT
from native import CORE, build, pkg_config, why_no_sanitizers

EXT = ROOT / "ext"
CORPUS = ROOT / "tests" / "corpus"
CORPUS_MAX = 200 << 10

needs_sanitizers = pytest.mark.skipif(
    why_no_sanitizers() is not None, reason=str(why_no_sanitizers())
)


class Target(NamedTuple):
    """A target: its sources beside the core's errors, its library, mutations of each seed."""

    sources: tuple[Path, ...]
    runs: int
    library: Optional[str] = None
    define: str = ""
    # libkdumpfile believes sizes, and loses memory when it is stopped (see fuzz_kdump.c).
    options: str = "allocator_may_return_null=1"


TARGETS = {
    "scan": Target(tuple(CORE), 300),
    "elf": Target(
        (EXT / "core" / "error.c", EXT / "readers" / "elf.c"),
        1500,
        "libelf",
        "-DHAVE_LIBELF=1",
    ),
    "kdump": Target(
        (EXT / "core" / "error.c", EXT / "readers" / "kdump.c"),
        40,
        "libkdumpfile",
        "-DHAVE_LIBKDUMPFILE=1",
        "allocator_may_return_null=1:detect_leaks=0",
    ),
}


def build_target(name: str, directory: Path) -> Path:
    target = TARGETS[name]
    libraries = pkg_config(target.library) if target.library else []
    if libraries is None:
        pytest.skip(f"{target.library} is not installed")
    words = [target.define] if target.define else []
    sources = [*target.sources, EXT / "fuzz" / f"fuzz_{name}.c", EXT / "fuzz" / "driver.c"]
    return build(directory / f"fuzz_{name}", *words, *sources, *libraries)


def run_target(
    name: str, program: Path, runs: int, seeds: list[Path]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, f"-runs={runs}", *map(str, seeds)],
        cwd=program.parent,
        env={**os.environ, "ASAN_OPTIONS": TARGETS[name].options},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def seeds_of(name: str) -> list[Path]:
    return sorted((CORPUS / name).iterdir())


@needs_sanitizers
@pytest.mark.parametrize("name", TARGETS)
def test_a_target_keeps_its_promises(name: str, tmp_path: Path) -> None:
    seeds = seeds_of(name)
    program = build_target(name, tmp_path)
    result = run_target(name, program, TARGETS[name].runs, seeds)
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stdout == f"{TARGETS[name].runs * len(seeds)} mutations\n"


@needs_sanitizers
def test_the_driver_reports_and_keeps_what_a_target_dies_of(tmp_path: Path) -> None:
    (tmp_path / "fuzz_scan.c").write_text(
        '#include "fuzz.h"\n'
        "int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)\n"
        "{\n\tPROMISE(size < 2 || data[1] != 7);\n\treturn 0;\n}\n"
    )
    for name in ("fuzz.h", "driver.c"):
        (tmp_path / name).write_text((EXT / "fuzz" / name).read_text())
    seed = tmp_path / "seed"
    seed.write_bytes(bytes([1, 5, 0, 0]))
    program = build(tmp_path / "fuzz", tmp_path / "fuzz_scan.c", tmp_path / "driver.c")
    result = run_target("scan", program, 5000, [seed])
    assert result.returncode < 0
    assert "broken: size < 2 || data[1] != 7" in result.stderr
    assert (tmp_path / "crash").read_bytes()[1] == 7


def test_the_corpus_is_small_and_every_target_has_seeds() -> None:
    assert {path.stem[5:] for path in (EXT / "fuzz").glob("fuzz_*.c")} == set(TARGETS)
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < CORPUS_MAX
    for name in TARGETS:
        assert seeds_of(name)
