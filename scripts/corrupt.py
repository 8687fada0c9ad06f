#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Corrupts bundled cores and audits them: no corruption may hang, kill or deceive the auditor.

usage: corrupt.py [--rounds N] [--first N] [--kind KIND] [CORE...]     cases of each kind on each core
       corrupt.py --case CORE:KIND:N                                   one case again, with its edits and answers

A case is told by its core, its kind and a number, and is always the same.  Each is audited in a process
of its own, with limits of time and memory.  What must hold of the answer is in judge().
Kinds: node, pagemap, ref, page, table (structures in the memory of an ELF core), read (whatever an audit
reads of it), frame (anything in it), notes, elf, kdump (headers of the file), cut (a shorter file).
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import pickle
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Optional

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts"), str(ROOT / "scripts" / "lab")]

from coreedit import PT_NOTE, CannotEdit, CoreFile, Memory, read_program_headers  # noqa: E402
from unpack_vmcore import unpack  # noqa: E402

from zonedev.cli import main as zonedev_main  # noqa: E402

VMCORES = ROOT / "tests" / "vmcores"
CORES = (
    *("5.10-nvdimm", "6.1-nvdimm", "6.12-nvdimm", "6.16-hmm", "7.2-nvdimm", "7.2-p2p-hmm"),
    *("7.3-p2p-teardown", "6.1-kdump-leak", "7.2-kdump-leak"),
)
MEMORY_KINDS = ("node", "pagemap", "ref", "page", "table", "read", "frame")
KINDS = (*MEMORY_KINDS, "notes", "elf", "kdump", "cut")

SECONDS = 30
ADDRESS_SPACE = 3 << 30
RESIDENT_MAX = 1 << 30

# Struct pages of one pagemap that are worth editing.
PAGES = 256
EDITS_MAX = 4


class Place(NamedTuple):
    """Bytes of the core that a kind of case edits; what a pointer to them looks like."""

    offset: int
    size: int
    address: int


class Plan(NamedTuple):
    """What is to be known of a core: its debug file, places by kind, and the answer to it as it is."""

    name: str
    core: Path
    vmlinux: Path
    places: dict[str, list[Place]]
    answer: Answer


class Answer(NamedTuple):
    """What became of one run."""

    signal: int
    status: int
    out: str
    err: str
    resident: int

    @property
    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self.out)
        return report


# ---------------------------------------------------------------- audits in processes of their own


def in_child(work: Callable[[], int]) -> tuple[int, int]:
    """Run *work* in a child; (wait status, bytes that it had in memory at most)."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            status = work()
        except BaseException:
            import traceback

            traceback.print_exc()
            status = 99
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    _, status, usage = os.wait4(pid, 0)
    return status, usage.ru_maxrss << 10


def found_in_child(find: Callable[[], Any], what: str) -> Any:
    """What *find* gives, of a child: a process in which drgn has started threads must not fork."""
    with tempfile.TemporaryFile() as file:

        def work() -> int:
            pickle.dump(find(), file)
            file.flush()
            return 0

        status, _ = in_child(work)
        assert status == 0, f"{what} cannot be found"
        file.seek(0)
        return pickle.load(file)


def _limited_run(words: list[str], out: int, err: int, limit: Callable[[], object]) -> int:
    os.dup2(out, 1)
    os.dup2(err, 2)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit()
    return zonedev_main(words)


def audit(core: Path, vmlinux: Path) -> Answer:
    """Audit a core within limits."""
    words = ["audit", str(core), "-s", str(vmlinux), "--format", "json"]
    return run_zonedev(words, lambda: signal.alarm(SECONDS))


def run_zonedev(words: list[str], limit: Callable[[], object]) -> Answer:
    """Run the program in a child, with limits of memory, and *limit* to set others."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        status, resident = in_child(lambda: _limited_run(words, out.fileno(), err.fileno(), limit))
        out.seek(0)
        err.seek(0)
        return Answer(
            os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
            os.WEXITSTATUS(status) if os.WIFEXITED(status) else -1,
            out.read().decode(errors="replace"),
            err.read().decode(errors="replace"),
            resident,
        )


# ---------------------------------------------------------------- where things lie


def place_of(file: BinaryIO, offset: int, size: int) -> Place:
    """A place in a file; with the pointer that it begins with, if it does, for an address."""
    file.seek(offset)
    word = int.from_bytes(file.read(min(size, 8)), "little")
    return Place(offset, min(size, 4096), word if word >> 47 == 0x1FFFF else 0)


def _read_places(core: str, vmlinux: str) -> list[Place]:
    """What opening and auditing an ELF core read, once each, in the order of the first reads."""
    from drgn import Program
    from overlay import Overlay

    from zonedev import target
    from zonedev.audit import audit as audit_program

    overlays = []
    set_core = target._set_core

    def set_core_and_overlay(prog: Program, asked: target.Target) -> None:
        set_core(prog, asked)
        overlays.append(Overlay(prog, core))

    target._set_core = set_core_and_overlay
    audit_program(target.open_target(target.Target(core, [vmlinux])))
    with open(core, "rb") as file:
        return [place_of(file, *read) for read in dict.fromkeys(overlays[0].reads)]


def _memory_places(core: str, vmlinux: str) -> dict[str, list[Place]]:
    """Structures that an audit goes by, in an ELF core."""
    from drgn import Object, sizeof

    places: dict[str, list[Place]] = {kind: [] for kind in MEMORY_KINDS}
    from zonedev.kernel.facts import read_kernel
    from zonedev.target import Target, open_target

    places["read"] = _read_places(core, vmlinux)
    prog = open_target(Target(core, [vmlinux]))
    kernel = read_kernel(prog)
    file = CoreFile(core)
    memory = Memory(prog, file)

    def add(kind: str, address: int, size: int) -> None:
        try:
            offset = file.offset(memory.translate(address), size)
            places[kind].append(Place(offset, size, address))
        except CannotEdit:
            pass

    array = kernel.prog["pgmap_array"]
    add("node", int(array.address_of_()), sizeof(array))
    stack = [int(array.xa_head)]
    while stack:
        entry = stack.pop()
        if entry & 3 == 2 and entry > 4096:
            node = Object(prog, "struct xa_node", address=entry & ~3)
            add("node", entry & ~3, sizeof(node))
            stack += [int(slot) for slot in node.slots]
    for pagemap in kernel.pagemaps:
        pgmap = Object(prog, "struct dev_pagemap *", value=pagemap.address)
        add("pagemap", pagemap.address, sizeof(pgmap[0]))
        ref = pgmap.ref if pgmap.type_.type.has_member("internal_ref") else pgmap.ref.address_of_()
        add("ref", int(ref), sizeof(ref[0]))
        add("ref", int(ref.data), sizeof(ref.data[0]))
        for range_ in pagemap.ranges:
            for pfn in range(range_.first_pfn, min(range_.end_pfn, range_.first_pfn + PAGES)):
                add("page", kernel.layout.page_address(pfn), kernel.layout.page_size)
            first = kernel.layout.page_address(range_.first_pfn)
            entry, _ = memory.page_table_entry(first)
            places["table"].append(Place(file.offset(entry, 8), 8, first))
    for segment in file.segments:
        for physical in range(segment.start, segment.end, 4096):
            places["frame"].append(
                Place(
                    segment.offset + physical - segment.start, 4096, 0xFFFF888000000000 + physical
                )
            )
    return places


def _file_places(core: Path) -> dict[str, list[Place]]:
    """Headers of the file itself."""
    size = core.stat().st_size
    cut = [Place(0, size, 0)]
    try:
        headers = read_program_headers(str(core))
    except CannotEdit:
        return {
            "kdump": [
                *([Place(0, 512, 0)] * 3),  # header
                *([Place(4096, 256, 0)] * 3),  # sub header
                Place(0, min(size, 1 << 16), 0),
                Place(0, size, 0),
            ],
            "cut": cut,
        }
    table, first = Place(headers.offset, headers.size, 0), Place(headers.offset, 56 * 4, 0)
    notes = [Place(row.offset, row.filesz, 0) for row in headers.rows if row.kind == PT_NOTE]
    return {"elf": [Place(0, 64, 0), first, table], "notes": notes, "cut": cut}


def make_plan(name: str, scratch: Path) -> Plan:
    """Copy a core to *scratch*, and look at it."""
    vmlinux = VMCORES / name / "vmlinux"
    core = scratch / name
    shutil.copyfile(unpack(VMCORES / name, ROOT / "build" / "vmcores"), core)
    places = _file_places(core)
    if "elf" in places:
        look = functools.partial(_memory_places, str(core), str(vmlinux))
        places.update(found_in_child(look, f"{name}: its structures"))
    answer = audit(core, vmlinux)
    assert answer.signal == 0 and answer.status in (0, 1), answer
    return Plan(name, core, vmlinux, places, answer)


# ---------------------------------------------------------------- cases


class Edit(NamedTuple):
    """Bytes to write at an offset of the file."""

    offset: int
    data: bytes


def _word(value: int) -> bytes:
    return struct.pack("<Q", value % (1 << 64))


def make_value(dice: random.Random, place: Place, places: list[Place]) -> bytes:
    """Bytes that are often believed: numbers at ends, pointers to things of the same kind, noise."""
    choice = dice.randrange(10)
    if choice == 0:
        return struct.pack("<Q", dice.choice((0, 1, 2, 3, 1 << 63, (1 << 64) - 1, 1 << 62)))
    if choice == 1:
        return _word(dice.choice(places).address + dice.choice((0, 0, 1, 2, 2, 8)))
    if choice == 2:
        return _word(place.address + dice.choice((0, 1, 2, place.size)))
    if choice == 3:
        return dice.randbytes(8)
    if choice == 4:
        return struct.pack("<I", dice.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 255)))
    if choice == 5:
        return bytes([dice.randrange(256)])
    if choice == 6:
        return struct.pack("<Q", dice.randrange(1 << dice.randrange(1, 64)))
    if choice == 7:
        return dice.randbytes(1) * dice.choice((8, 64, 512))
    # What was read shortly before or after it: lists turn back on themselves.
    i = places.index(place) + dice.randint(-30, 30)
    return struct.pack("<Q", places[max(0, min(i, len(places) - 1))].address)


def make_edits(plan: Plan, kind: str, number: int) -> list[Edit]:
    """The edits of a case; a cut is one without bytes."""
    dice = random.Random(f"{plan.name}:{kind}:{number}")
    places = plan.places[kind]
    if kind == "cut":
        size = places[0].size
        reach = dice.choice((512, 16 << 10, size))
        return [Edit(dice.randrange(min(reach, size)), b"")]
    edits = []
    for _ in range(dice.randint(1, EDITS_MAX)):
        place = dice.choice(places)
        data = make_value(dice, place, places)[: place.size]
        at = dice.randrange(place.size - len(data) + 1)
        edits.append(Edit(place.offset + (at & -min(len(data), 8)), data))
    return edits


def apply(core: Path, edits: list[Edit]) -> Callable[[], None]:
    """Edit the file; returns what takes it back."""
    if edits and not edits[0].data:
        spare = core.with_suffix(".whole")
        os.rename(core, spare)
        with open(spare, "rb") as whole, open(core, "wb") as cut:
            cut.write(whole.read(edits[0].offset))
        return lambda: os.replace(spare, core)
    fd = os.open(core, os.O_RDWR)
    old = []
    for edit in edits:
        old.append(Edit(edit.offset, os.pread(fd, len(edit.data), edit.offset)))
        os.pwrite(fd, edit.data, edit.offset)

    def undo() -> None:
        for edit in reversed(old):
            os.pwrite(fd, edit.data, edit.offset)
        os.close(fd)

    return undo


def _hidden(before: dict[str, Any], after: dict[str, Any]) -> Optional[str]:
    """What a clean report no longer says of the pages that the whole core has."""
    was, now = before["summary"], after["summary"]
    if now["pages"] < was["pages"]:
        return f"clean over {now['pages']} of {was['pages']} pages"
    if now["classes"]["skipped"] > was["classes"]["skipped"]:
        return f"clean with {now['classes']['skipped']} skipped pages, {was['classes']['skipped']} before"
    return None


def misbehaved(answer: Answer, seconds: int, limits: Container[int]) -> Optional[str]:
    """What is wrong with any answer, whatever it says; *limits* are the signals that end one after so many seconds."""
    if answer.signal in limits:
        return f"took longer than {seconds} s"
    if answer.signal:
        return f"killed by signal {answer.signal}"
    if answer.resident > RESIDENT_MAX:
        return f"had {answer.resident >> 20} MiB in memory"
    if "Traceback" in answer.err or "internal error" in answer.err:
        return "an error of its own"
    if answer.status not in (0, 1, 2, 3):
        return f"exit status {answer.status}"
    is_line = answer.err.count("\n") == 1 and answer.err.startswith("zonedev: error: ")
    if answer.status == 2 and (answer.out or not is_line):
        return "an error that is not one line"
    return None


def judge(before: Answer, after: Answer) -> Optional[str]:
    """What is wrong with the answer to a corrupt core; None for nothing."""
    wrong = misbehaved(after, SECONDS, (signal.SIGALRM,))
    if wrong or after.status == 2:
        return wrong
    verdict = after.report["summary"]["verdict"]
    if {"clean": 0, "violations": 1, "incomplete": 3}[verdict] != after.status:
        return f"exit status {after.status} with verdict {verdict}"
    if sum(after.report["summary"]["classes"].values()) != after.report["summary"]["pages"]:
        return "the classes do not add up"
    return _hidden(before.report, after.report) if verdict == "clean" else None


def run_case(plan: Plan, kind: str, number: int) -> tuple[list[Edit], Answer, Optional[str]]:
    """Audit one corrupt core: its edits, the answer, and what is wrong with that."""
    edits = make_edits(plan, kind, number)
    undo = apply(plan.core, edits)
    try:
        answer = audit(plan.core, plan.vmlinux)
    finally:
        undo()
    return edits, answer, judge(plan.answer, answer)


def cases(
    places: dict[str, list[Place]], kinds: list[str], first: int, rounds: int
) -> Iterator[tuple[str, int]]:
    """Kinds and numbers; of kinds that the core has places for."""
    for number in range(first, first + rounds):
        for kind in kinds:
            if places.get(kind):
                yield kind, number


def _run_all(names: list[str], kinds: list[str], first: int, rounds: int, scratch: Path) -> int:
    outcomes: Counter[str] = Counter()
    for name in names:
        plan = make_plan(name, scratch)
        for kind, number in cases(plan.places, kinds, first, rounds):
            _, answer, wrong = run_case(plan, kind, number)
            outcomes["wrong" if wrong else f"exit {answer.status}"] += 1
            if wrong:
                line = answer.err.strip().splitlines()[-1:] or [""]
                print(f"{name}:{kind}:{number}: {wrong}: {line[0][:300]}", flush=True)
        plan.core.unlink()
    print(
        f"{sum(outcomes.values())} cases:",
        ", ".join(f"{v} {k}" for k, v in sorted(outcomes.items())),
    )
    return 1 if outcomes["wrong"] or not outcomes else 0


def _show(case: str, scratch: Path) -> int:
    name, kind, number = case.split(":")
    edits, answer, wrong = run_case(make_plan(name, scratch), kind, int(number))
    for edit in edits:
        print(f"offset {edit.offset:#x}: {edit.data.hex() or 'cut here'}")
    print(
        answer.out
        + answer.err
        + f"status {answer.status}, signal {answer.signal}: {wrong or 'as it must be'}"
    )
    return 1 if wrong else 0


RunAll = Callable[[list[str], list[str], int, int, Path], int]


def command(
    usage: str,
    cores: tuple[str, ...],
    kinds: tuple[str, ...],
    rounds: int,
    run_all: RunAll,
    show: Callable[[str, Path], int],
) -> int:
    """The command line of a script that corrupts cores: *cores*, *kinds* and *rounds* are those where none are named."""
    parser = argparse.ArgumentParser(
        description=usage, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("cores", nargs="*", metavar="CORE", help=f"default: {' '.join(cores)}")
    parser.add_argument(
        "--rounds", type=int, default=rounds, help="cases of each kind on each core"
    )
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--kind", action="append", choices=kinds)
    parser.add_argument("--case", metavar="CORE:KIND:N")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="zonedev-corrupt-") as scratch:
        if args.case:
            return show(args.case, Path(scratch))
        names, chosen = args.cores or list(cores), args.kind or list(kinds)
        return run_all(names, chosen, args.first, args.rounds, Path(scratch))


if __name__ == "__main__":
    raise SystemExit(command(__doc__, CORES, KINDS, 100, _run_all, _show))
