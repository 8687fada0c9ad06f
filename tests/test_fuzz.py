# SPDX-License-Identifier: LGPL-2.1-or-later
"""Smoke runs of the fuzz targets in ext/fuzz: the corpus and always the same mutations, with sanitizers.

Long runs are `make fuzz`.  What the targets promise is said in each of them.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import ROOT, fresh_vmcore
from drgn import FaultError, Object, Program, offsetof, sizeof
from native import CORE, EXPAND, MEMORY, build, pkg_config, why_no_sanitizers

from zonedev import diskdump
from zonedev.kernel.tree import CorruptTree, Tree, walk_tree

EXT = ROOT / "ext"
CORPUS = ROOT / "tests" / "corpus"
CORPUS_MAX = 210 << 10

needs_sanitizers = pytest.mark.skipif(
    why_no_sanitizers() is not None, reason=str(why_no_sanitizers())
)


class Target(NamedTuple):
    """A target: its sources beside the core's errors, its libraries, mutations of each seed."""

    sources: tuple[Path, ...]
    runs: int
    libraries: tuple[str, ...] = ()
    defines: tuple[str, ...] = ()
    # libkdumpfile believes sizes, and loses memory when it is stopped (see fuzz_kdump.c).
    options: str = "allocator_may_return_null=1"


def core_sources(name: str) -> tuple[Path, ...]:
    """A part of the core that finds things by name, and what it needs."""
    return tuple(EXT / "core" / f"{part}.c" for part in ("error", "names", name))


TARGETS = {
    "scan": Target(tuple(CORE), 300),
    "entries": Target(tuple(CORE), 2000),
    "btf": Target(core_sources("btf"), 1500),
    "kallsyms": Target(core_sources("kallsyms"), 300),
    "elf": Target(
        (EXT / "core" / "error.c", EXT / "readers" / "elf.c"),
        1500,
        ("libelf",),
        ("-DHAVE_LIBELF=1",),
    ),
    "kdump": Target(
        (EXT / "core" / "error.c", EXT / "readers" / "kdump.c"),
        40,
        ("libkdumpfile",),
        ("-DHAVE_LIBKDUMPFILE=1",),
        "allocator_may_return_null=1:detect_leaks=0",
    ),
    "memory": Target(
        (EXT / "core" / "error.c", *MEMORY),
        700,
        ("libdeflate", "libzstd"),
        ("-DHAVE_LIBDEFLATE=1", "-DHAVE_LIBZSTD=1"),
    ),
    "expand": Target(
        (EXT / "core" / "error.c", *EXPAND),
        300,
        ("lzo2", "snappy", "libzstd"),
        ("-DHAVE_LIBZSTD=1",),
    ),
}


def build_target(name: str, directory: Path) -> Path:
    target = TARGETS[name]
    words: list[str] = []
    for library in target.libraries:
        found = pkg_config(library)
        if found is None:
            pytest.skip(
                f"this target calls {library}, which pkg-config does not find: zonedev built here does not call it, "
                "either (make test installs it where it may)"
            )
        words += found
    sources = [*target.sources, EXT / "fuzz" / f"fuzz_{name}.c", EXT / "fuzz" / "driver.c"]
    return build(directory / f"fuzz_{name}", *target.defines, *sources, *words)


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


# ---------------------------------------------------------------- inputs that Python reads


def mutated(dice: random.Random, data: bytes) -> bytes:
    """A few bytes or numbers changed, or the end cut off."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 6)):
        at = dice.randrange(min(len(changed), dice.choice((512, len(changed)))))
        number = dice.choice((0, 1, 3, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, dice.getrandbits(32)))
        changed[at : at + 4] = number.to_bytes(4, "little")
    return bytes(changed[: dice.randrange(len(changed))] if dice.randrange(8) == 0 else changed)


def test_any_bytes_may_be_a_kdump(tmp_path: Path) -> None:
    dice = random.Random(1)
    path = tmp_path / "dump"
    answers = set()
    for seed in seeds_of("kdump"):
        for _ in range(300):
            path.write_bytes(mutated(dice, seed.read_bytes()))
            sizes = diskdump.wanted_sizes(str(path))
            assert sizes is None or 0 <= sizes.headers <= sizes.data
            answers.add(
                (sizes is None, diskdump.is_part(str(path)), diskdump.is_flattened(str(path)))
            )
    assert len(answers) >= 3


class Nodes:
    """Memory full of nodes of an xarray that point anywhere, also at themselves."""

    BASE, COUNT = 0xFFFF8880_00100000, 24

    def __init__(self, prog: Program) -> None:
        self.prog = prog
        self.node = prog.type("struct xa_node")
        self.size = sizeof(self.node)
        self.memory = bytearray(self.size * self.COUNT + 64)
        self.root = self.BASE + self.size * self.COUNT
        prog.add_memory_segment(
            self.BASE,
            len(self.memory),
            lambda _address, count, offset, _physical: bytes(self.memory[offset : offset + count]),
        )

    def _store(self, node: int, member: str, value: int, size: int) -> None:
        at = node * self.size + offsetof(self.node, member)
        self.memory[at : at + size] = value.to_bytes(size, "little")

    def _entry(self, dice: random.Random) -> int:
        node = self.BASE + dice.randrange(self.COUNT) * self.size
        return dice.choice(
            (0, node | 2, node | 2, dice.randrange(64) << 2 | 2, node, dice.getrandbits(64), 0x402)
        )

    def fill(self, dice: random.Random) -> None:
        """Other nodes; most lie at the level that their number says, so that walks go deep."""
        for node in range(self.COUNT):
            shift = 6 * (self.COUNT - node) if dice.randrange(4) else dice.getrandbits(8)
            self._store(node, "shift", min(shift, 60) & 0xFF, 1)
            filled = dice.randrange(8)
            self._store(node, "count", filled, 1)
            for slot in range(64):
                self._store(node, f"slots[{slot}]", self._entry(dice) if slot < filled else 0, 8)

    def walk(self, head: int) -> Tree:
        at = self.root - self.BASE + offsetof(self.prog.type("struct xarray"), "xa_head")
        self.memory[at : at + 8] = head.to_bytes(8, "little")
        return walk_tree(Object(self.prog, "struct xarray", address=self.root))


def test_any_nodes_may_be_a_registry() -> None:
    dice = random.Random(1)
    nodes = Nodes(fresh_vmcore("7.2-nvdimm").prog)
    outcomes: Counter[str] = Counter()
    begin = time.monotonic()
    for _ in range(400):
        nodes.fill(dice)
        try:
            tree = nodes.walk(nodes.BASE + nodes.size * dice.randrange(nodes.COUNT) | 2)
        except (CorruptTree, FaultError) as err:
            outcomes[str(err).split(" ")[-1] if "twice" in str(err) else type(err).__name__] += 1
            continue
        outcomes["walked"] += 1
        assert all(item.value & 3 == 0 and item.start < item.end for item in tree.items)
    assert time.monotonic() - begin < 60
    assert set(outcomes) >= {"walked", "CorruptTree", "FaultError", "twice"}, outcomes


def test_the_corpus_is_small_and_every_target_has_seeds() -> None:
    assert {path.stem[5:] for path in (EXT / "fuzz").glob("fuzz_*.c")} == set(TARGETS)
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < CORPUS_MAX
    for name in TARGETS:
        assert seeds_of(name)
