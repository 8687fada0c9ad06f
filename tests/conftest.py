# SPDX-License-Identifier: LGPL-2.1-or-later
"""The bundled vmcores as fixtures: unpacked once below build/, opened once per test session."""

from __future__ import annotations

import contextlib
import functools
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, NamedTuple

import drgn.cli  # noqa: F401  (before zonedev: what shows itself at drgn's prompt registers there)
import pytest
from drgn import FaultError, Program

from zonedev.cli import main
from zonedev.kernel.facts import Kernel, read_kernel
from zonedev.target import Target, open_target

ROOT = Path(__file__).resolve().parent.parent
VMCORES = ROOT / "tests" / "vmcores"
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "scripts" / "lab")]

from page_compression import LibraryMissing  # noqa: E402
from unpack_vmcore import unpack  # noqa: E402

NAMES = sorted(path.parent.name for path in VMCORES.glob("*/vmcore.xz"))


class Vmcore(NamedTuple):
    """A bundled vmcore: files, Program, and what is known of its pages."""

    name: str
    core: str
    vmlinux: str
    """Empty where the core has its types itself."""
    modules: list[str]
    prog: Program
    kernel: Kernel
    truth: dict[str, Any]

    @property
    def debug_files(self) -> list[str]:
        return [self.vmlinux, *self.modules] if self.vmlinux else []

    @property
    def types(self) -> list[str]:
        """The words that name where its types are."""
        return ["-s", self.vmlinux] if self.vmlinux else ["--btf"]

    @property
    def states(self) -> list[dict[str, Any]]:
        states: list[dict[str, Any]] = self.truth["states"]
        return states


@functools.cache
def open_vmcore(name: str) -> Vmcore:
    directory = VMCORES / name
    core = str(unpack(directory, ROOT / "build" / "vmcores"))
    vmlinux = directory / "vmlinux"
    debug_file = str(vmlinux) if vmlinux.exists() else ""
    modules = [str(path) for path in sorted(directory.glob("*.ko.debug"))]
    target = Target(core, [debug_file, *modules]) if debug_file else Target(core, btf=True)
    prog = open_target(target)
    truth = json.loads((directory / "truth-states.json").read_text())
    return Vmcore(name, core, debug_file, modules, prog, read_kernel(prog), truth)


def fresh_vmcore(name: str) -> Vmcore:
    """The same, opened anew: what is laid over it is seen by nobody else."""
    return open_vmcore.__wrapped__(name)


def lay_over(prog: Program, address: int, data: bytes, physical: bool = False) -> None:
    """What reads of [address, address + len(data)) shall find."""
    prog.add_memory_segment(
        address,
        len(data),
        lambda _address, count, offset, _physical: data[offset : offset + count],
        physical,
    )


def lose(prog: Program, address: int, size: int) -> None:
    """Leave [address, address + size) out of the dump."""

    def missing(at: int, _count: int, _offset: int, _physical: bool) -> bytes:
        raise FaultError("could not find physical memory segment", at)

    prog.add_memory_segment(address, size, missing)


@contextlib.contextmanager
def needs_library() -> Iterator[None]:
    """Around the making of a compressed dump."""
    try:
        yield
    except LibraryMissing as err:
        pytest.skip(
            f"{err}: without it no dump of this kind can be made here to test with (make test installs it where it may)"
        )


@pytest.fixture
def newest() -> Vmcore:
    return open_vmcore("7.2-nvdimm")


@pytest.fixture(params=NAMES)
def vmcore(request: pytest.FixtureRequest) -> Vmcore:
    return open_vmcore(request.param)


class Answer(NamedTuple):
    """What the program answered: exit status, stdout, stderr."""

    status: int
    out: str
    err: str


Zonedev = Callable[..., Answer]


def assert_one_line(answer: Answer, *fragments: str) -> None:
    """A usage or target error: one line on stderr, nothing on stdout, exit status 2."""
    assert answer.status == 2, answer
    assert answer.out == ""
    assert answer.err.startswith("zonedev: error: "), answer.err
    assert answer.err.count("\n") == 1 and answer.err.endswith("\n"), answer.err
    for fragment in fragments:
        assert fragment in answer.err
    assert "Errno" not in answer.err


@pytest.fixture
def zonedev(capsys: pytest.CaptureFixture[str]) -> Zonedev:
    """The program, run in this process."""

    def run(*words: Any) -> Answer:
        capsys.readouterr()
        status = main([str(word) for word in words])
        return Answer(status, *capsys.readouterr())

    return run
