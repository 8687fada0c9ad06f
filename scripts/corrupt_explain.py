#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Corrupts bundled slices and asks who holds their pages: no corruption may hang, kill or deceive `zonedev explain`.

usage: corrupt_explain.py [--rounds N] [--first N] [--kind KIND] [CORE...]     cases of each kind on each core
       corrupt_explain.py --case CORE:KIND:N                                   one case again, with its edits and answers

Cases are those of corrupt.py, of other kinds and with other questions.  The question of a case (`explain` of one page,
`audit --explain` or `waiters`) goes by its number.  What must hold of the answer is in judge().
Kinds: only (what explanations read and audits do not), word (words of that alone that look like pointers), zero (frames of
it read as zeroes), swap (two of its pieces change places), frame (anything in the core), cut (a shorter file).

A holder that the whole core does not have is told, not counted as wrong: a pointer that leads to the page is all that
a genuine one has, too.
"""

from __future__ import annotations

import functools
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple, Optional

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "scripts"), str(ROOT / "scripts" / "lab")]

from coreedit import read_segments  # noqa: E402
from corrupt import (  # noqa: E402
    VMCORES,
    Answer,
    Edit,
    Place,
    apply,
    cases,
    command,
    found_in_child,
    make_value,
    misbehaved,
    place_of,
    run_zonedev,
)
from unpack_vmcore import unpack  # noqa: E402

CORES = (
    *("5.10-explain", "6.1-btf-explain", "6.12-explain", "7.2-explain"),
    *("7.2-hmm-explain", "7.2-p2p-explain"),
)
KINDS = ("only", "word", "zero", "swap", "frame", "cut")

SECONDS = 10
"""Of CPU time, the opening of the core included; twice as much of the clock."""

_FRAME = 4096
_BUDGET_S = 1
_PAGES_MAX = 8

Holders = frozenset[tuple[Any, ...]]


class Plan(NamedTuple):
    """What is to be known of a core: words that name it, places by kind, questions, and who holds which page of it."""

    name: str
    core: Path
    types: list[str]
    places: dict[str, list[Place]]
    questions: list[list[str]]
    holders: dict[int, Holders]


def holders_of(explanation: dict[str, Any]) -> Holders:
    """What holders of an explanation are called by: of several processes that have one, any may be told."""
    return frozenset((h["kind"], h["address"]) for h in explanation["holders"])


# ---------------------------------------------------------------- where things lie


def _reads_of(core: str, debug_files: list[str], pages: list[int]) -> tuple[list[Any], list[Any]]:
    """What an audit reads, and what explaining pages reads."""
    from overlay import Overlay

    from zonedev import target
    from zonedev.audit import audit
    from zonedev.explain import Explainer
    from zonedev.waiters import waiters

    asked = target.Target(core, debug_files, btf=not debug_files)
    prog = target.open_target(asked)
    overlay = Overlay(prog, core)
    audit(prog)
    audited = overlay.reads
    overlay.forget()
    Explainer(prog).explain_pfns(pages)
    audit(prog, explain=True)
    waiters(prog)
    return list(dict.fromkeys(audited)), list(dict.fromkeys(overlay.reads))


def _look(core: str, debug_files: list[str], truth: Path) -> tuple[Any, ...]:
    """Places by kind, pages that are worth asking for, and the holders of those of the record."""
    from zonedev.explain import Explainer
    from zonedev.report.data import explain_dict
    from zonedev.target import Target, open_target

    states = json.loads(truth.read_text())["states"]
    prog = open_target(Target(core, debug_files, btf=not debug_files))
    found, _ = Explainer(prog).explain_all(s["pfn"] for s in states)
    told = {pfn: explain_dict(one) for pfn, one in found.items()}
    by_kinds: dict[frozenset[str], int] = {}
    for pfn, one in told.items():
        by_kinds.setdefault(frozenset(h["kind"] for h in one["holders"]), pfn)
    pages = sorted(by_kinds.values())
    audited, explained = _reads_of(core, debug_files, pages)
    before = {offset // _FRAME for offset, _ in audited}
    places: dict[str, list[Place]] = {kind: [] for kind in KINDS}
    with open(core, "rb") as file:
        known = set(audited)
        for read in explained:
            offset, size = read
            if read in known:
                continue
            places["only"].append(place_of(file, offset, size))
            for at in range(offset & ~7, min(offset + size, offset + 512), 8):
                word = place_of(file, at, 8)
                if word.address:
                    places["word"].append(word)
        places["swap"] = places["only"]
        frames = {offset // _FRAME for offset, _ in explained} - before
        places["zero"] = [Place(n * _FRAME, _FRAME, 0) for n in sorted(frames)]
        places["frame"] = [
            Place(segment.offset + at - segment.start, _FRAME, 0)
            for segment in read_segments(core)
            for at in range(segment.start, segment.end, _FRAME)
        ]
    places["cut"] = [Place(0, os.path.getsize(core), 0)]
    return places, pages, {pfn: holders_of(one) for pfn, one in told.items()}


def make_plan(name: str, scratch: Path) -> Plan:
    """Copy a core to *scratch*, and look at it."""
    directory = VMCORES / name
    core = scratch / name
    shutil.copyfile(unpack(directory, ROOT / "build" / "vmcores"), core)
    debug_files = [
        str(path)
        for path in (directory / "vmlinux", *directory.glob("*.ko.debug"))
        if path.exists()
    ]
    look = functools.partial(_look, str(core), debug_files, directory / "truth-states.json")
    places, pages, holders = found_in_child(look, f"{name}: what explains its pages")
    budget = ["--budget", str(_BUDGET_S), "--format", "json"]
    questions = [["explain", *budget, hex(pfn)] for pfn in pages]
    dice = random.Random(name)
    dice.shuffle(questions)
    questions = questions[:_PAGES_MAX]
    questions += [["audit", "--explain", "--format", "json"], ["waiters", "--format", "json"]]
    types = [word for path in debug_files for word in ("-s", path)] or ["--btf"]
    return Plan(name, core, types, places, questions, holders)


# ---------------------------------------------------------------- cases


def make_edits(plan: Plan, kind: str, number: int) -> list[Edit]:
    """The edits of a case; a cut is one without bytes."""
    dice = random.Random(f"{plan.name}:{kind}:{number}")
    places = plan.places[kind]
    if kind == "cut":
        return [Edit(dice.randrange(places[0].size), b"")]
    if kind == "zero":
        return [
            Edit(one.offset, bytes(one.size)) for one in dice.sample(places, dice.randint(1, 3))
        ]
    if kind == "swap":
        one, other = dice.sample(places, 2)
        size = min(one.size, other.size)
        with open(plan.core, "rb") as file:
            datas = []
            for place in (one, other):
                file.seek(place.offset)
                datas.append(file.read(size))
        return [Edit(one.offset, datas[1]), Edit(other.offset, datas[0])]
    edits = []
    for _ in range(dice.choice((1, 2, 4, 16, 64))):
        place = dice.choice(places)
        data = make_value(dice, place, places)[: place.size]
        if kind == "word":
            data = data.ljust(place.size, b"\0")[: place.size]
        at = dice.randrange(place.size - len(data) + 1)
        edits.append(Edit(place.offset + (at & -min(len(data), 8)), data))
    return edits


def ask(plan: Plan, question: list[str]) -> Answer:
    """Ask one question of a core within limits."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
        signal.alarm(2 * SECONDS)

    verb, *rest = question
    words = [verb, "-c", str(plan.core), *plan.types, *rest]
    return run_zonedev(words, limit)


def _adds_up(one: dict[str, Any]) -> bool:
    explained = sum(holder["refs"] for holder in one["holders"])
    total = one["base"] + one["explained"] + one["unexplained"]
    return explained == one["explained"] and one["refcount"] == total


def _explanations(verb: str, report: dict[str, Any]) -> list[dict[str, Any]]:
    if verb == "explain":
        return [report]
    if verb == "waiters":
        return []
    found = (finding.get("explanation") for finding in report["findings"])
    return [one for one in found if one]


def judge(question: list[str], answer: Answer) -> Optional[str]:
    """What is wrong with the answer to a question of a corrupt core; None for nothing."""
    wrong = misbehaved(answer, SECONDS, (signal.SIGALRM, signal.SIGXCPU, signal.SIGKILL))
    if wrong or answer.status == 2:
        return wrong
    for one in _explanations(question[0], answer.report):
        if not _adds_up(one):
            return f"the account of pfn {one['pfn']:#x} does not add up"
    if question[0] == "explain":
        report = answer.report
        expected = 0 if not report["unexplained"] else 1 if report["complete"] else 3
        if answer.status != expected:
            return f"exit status {answer.status} where {expected} was due"
    return None


def new_holders(plan: Plan, question: list[str], answer: Answer) -> list[tuple[Any, ...]]:
    """Holders that are named and that the whole core does not have, of pages whose holders are known."""
    if answer.status not in (0, 1, 3):
        return []
    new: list[tuple[Any, ...]] = []
    for one in _explanations(question[0], answer.report):
        was = plan.holders.get(one["asked"]["pfn"] if question[0] == "explain" else one["pfn"])
        if was is not None:
            new += [(one["pfn"], *holder) for holder in holders_of(one) - was]
    return new


def run_case(
    plan: Plan, kind: str, number: int
) -> tuple[list[Edit], list[str], Answer, Optional[str]]:
    """Ask one corrupt core: its edits, the question, the answer, and what is wrong with that."""
    edits = make_edits(plan, kind, number)
    question = plan.questions[number % len(plan.questions)]
    undo = apply(plan.core, edits)
    try:
        answer = ask(plan, question)
    finally:
        undo()
    return edits, question, answer, judge(question, answer)


def _run_all(names: list[str], kinds: list[str], first: int, rounds: int, scratch: Path) -> int:
    outcomes: Counter[str] = Counter()
    strange = 0
    for name in names:
        begun = time.monotonic()
        plan = make_plan(name, scratch)
        for kind, number in cases(plan.places, kinds, first, rounds):
            _, question, answer, wrong = run_case(plan, kind, number)
            outcomes["wrong" if wrong else f"exit {answer.status}"] += 1
            case = f"{name}:{kind}:{number}"
            if wrong:
                line = answer.err.strip().splitlines()[-1:] or [""]
                print(f"{case}: {wrong}: {' '.join(question)}: {line[0][:300]}", flush=True)
                continue
            new = new_holders(plan, question, answer)
            if new:
                strange += 1
                print(f"{case}: names {len(new)} new holders, as {new[0]}", flush=True)
        plan.core.unlink()
        print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)
    total = sum(outcomes.values())
    words = ", ".join(f"{v} {k}" for k, v in sorted(outcomes.items()))
    print(f"{total} cases: {words}; new holders in {strange}")
    return 1 if outcomes["wrong"] or not outcomes else 0


def _show(case: str, scratch: Path) -> int:
    name, kind, number = case.split(":")
    plan = make_plan(name, scratch)
    edits, question, answer, wrong = run_case(plan, kind, int(number))
    for edit in edits:
        print(f"offset {edit.offset:#x}: {edit.data.hex() or 'cut here'}")
    print(" ".join(question))
    print(
        answer.out
        + answer.err
        + f"status {answer.status}, signal {answer.signal}: {wrong or 'as it must be'}"
    )
    for holder in new_holders(plan, question, answer):
        print(f"new holder: {holder}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(command(__doc__, CORES, KINDS, 50, _run_all, _show))
