#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Writes faults into a copy of a vmcore, with the truth about them, and checks that an audit finds them.

usage: inject.py CORE VMLINUX OUT [--fault NAME ... | --all] [--module FILE] ... [--round N] [--seed N]
       inject.py --check OUT
       inject.py --list

Owns the plan (what goes where, in which round), the truth and the comparison; the table of faults is
faults.py, the states of pages places.py, what an edit does edits.py, the writing coreedit.py.

OUT/vmcore is the core with the faults of one round, OUT/truth.json says what was written where, what must
be found, by what and at which level. Faults that would disturb each other are in different rounds;
truth.json holds the writes of all of them, and --check goes through them in OUT/vmcore itself. Every fault
has its near miss: the same edit just inside of what is legal, somewhere else.

The pages are chosen by what they show in the core: the first that fits, or with a seed any of many. --module is the debug
file of a module, for faults that only its driver's lists show.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Optional

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from coreedit import CannotEdit, CoreFile, Memory, Write, copy_core, pack, unpack
from drgn import FaultError
from edits import Editor, Expect
from faults import ALL, EVERY, FAULTS, OF_BOOKS, OWN, SECOND_PASS, Case, Fault
from places import PLACES, Core, Find, Place, Runs, Survey

from zonedev.audit import audit
from zonedev.errors import TargetError
from zonedev.kernel.facts import Kernel, read_kernel
from zonedev.kernel.scheme import has_symbol
from zonedev.model import DevDax
from zonedev.target import Target, open_target

CORE, TRUTH = "vmcore", "truth.json"
FORMAT = "zonedev.inject/2"

# Places that are tried before a fault is left out: a slice lacks most frames.
_TRIES = 8
# With a seed: how many places may be passed over, and among how many one is chosen.
_PASSED, _DRAWN = 3000, 64
# Pages of a place that are compared with what files say of them; more of them are idle.
_COMPARED_MAX = 8
# Edits that truth.json describes in words; the writes are complete.
_DESCRIBED_MAX = 16


# ---------------------------------------------------------------- the plan


@dataclass
class Injection:
    """A fault or near miss in its place."""

    fault: Fault
    near: bool
    place: Place
    editor: Editor
    writes: list[Write]
    round: int = 0


class Task(NamedTuple):
    """A case of a row on a memory type."""

    fault: Fault
    near: bool
    type: str

    @property
    def case(self) -> Case:
        return self.fault.near if self.near else self.fault.case


@dataclass
class Claims:
    """What the injections of a round have taken for themselves."""

    whole: set[int] = field(default_factory=set)
    shared: set[int] = field(default_factory=set)
    pfns: set[int] = field(default_factory=set)
    gone: set[int] = field(default_factory=set)
    """Pages that their driver has written down as used."""

    def permit(self, place: Place) -> bool:
        mine = {place.survey.pagemap.address, *(p.address for p in place.others)}
        if place.whole:
            return not mine & (self.whole | self.shared)
        assert place.pfn is not None
        return not mine & self.whole and self.pfns.isdisjoint(
            range(place.pfn, place.pfn + place.pages)
        )

    def take(self, place: Place, editor: Editor) -> None:
        self.gone |= editor.gone
        mine = {place.survey.pagemap.address, *(p.address for p in place.others)}
        if place.whole:
            self.whole |= mine
            return
        assert place.pfn is not None
        self.shared |= mine
        self.pfns |= {*editor.touched, *range(place.pfn, place.pfn + place.pages)}


def is_met(kernel: Kernel, need: str) -> bool:
    """Whether a kernel has what a row of the table needs."""
    stale, share = kernel.scheme.stale_share, "share" in kernel.layout.fields
    return {
        "": True,
        "stale_share": stale,
        "no stale_share": not stale,
        "share": share,
        "share marked": kernel.scheme.id != "E" or share,
        "share unmarked": kernel.scheme.id == "E" and not share,
        "node": bool(kernel.layout.node[1]),
        "device": any(isinstance(p.dev_dax, DevDax) for p in kernel.pagemaps),
    }[need]


def tasks_of(core: Core, faults: Iterable[Fault]) -> Iterator[Task]:
    """Cases that the kernel's scheme and pagemaps permit."""
    present = {survey.type for survey in core.surveys}
    for fault in faults:
        if core.kernel.scheme.id not in fault.schemes or not is_met(core.kernel, fault.needs):
            continue
        for near in (False, True):
            types = (fault.near.types if near else None) or fault.types
            for type_ in types:
                if type_ in present:
                    yield Task(fault, near, type_)


class Planner:
    """Finds a place for every task, writes it, and divides the injections into rounds."""

    def __init__(self, core: Core, memory: Memory, draw: Optional[random.Random] = None) -> None:
        self.core, self.memory, self.draw = core, memory, draw
        self.rounds: list[list[Injection]] = []
        self.left_out: list[tuple[Task, str]] = []

    def run(self, tasks: Iterable[Task]) -> None:
        pending = list(tasks)
        while pending:
            claims, placed, rest = Claims(), [], []
            for task in pending:
                made = self._place(task, claims)
                if isinstance(made, Injection):
                    claims.take(made.place, made.editor)
                    placed.append(made)
                elif claims.whole or claims.shared:
                    rest.append(task)
                else:
                    self.left_out.append((task, made))
            for injection in reversed(placed):
                self.memory.core.undo(injection.writes)
            if placed:
                self.rounds.append(placed)
            pending = rest

    def _place(self, task: Task, claims: Claims) -> Injection | str:
        """The first place that can be had, or why there is none."""
        why = f"no {task.type} is in the state {task.case.where!r}"
        tries = 0
        for place in self._places(task):
            if not claims.permit(place):
                why = "its places are taken"
                continue
            made = self._write(task, place, claims.gone)
            if isinstance(made, Injection):
                return made
            why, tries = made, tries + 1
            if tries == _TRIES:
                break
        return why

    def _places(self, task: Task) -> Iterator[Place]:
        find = PLACES[task.case.where]
        surveys = self.core.of_type(task.type)
        # Edits of whole pagemaps from the last one on, so that those of pages fit beside them.
        probe = next((p for s in surveys for p in find(self.core, s)), None)
        for survey in self._in_order(surveys, bool(probe and probe.whole)):
            for place in self._drawn(find, survey):
                if self._takes_faults(place):
                    yield place

    def _in_order(self, surveys: list[Survey], whole: bool) -> list[Survey]:
        if self.draw:
            return self.draw.sample(surveys, len(surveys))
        return surveys[::-1] if whole else surveys

    def _drawn(self, find: Find, survey: Survey) -> Iterator[Place]:
        """All places in their order, or some in any."""
        if not self.draw:
            yield from find(self.core, survey)
            return
        first = self.draw.randrange(_PASSED)
        places = list(islice(find(self.core, survey), first, first + _DRAWN))
        places = places or list(islice(find(self.core, survey), _DRAWN))
        yield from self.draw.sample(places, len(places))

    def _takes_faults(self, place: Place) -> bool:
        """A pagemap in removal permits what no other does: in scheme C on its pages, too."""
        mine = (place.survey.pagemap, *place.others)
        live = all(pagemap.ref.state == "live" for pagemap in mine)
        if not live and (place.whole or self.core.kernel.scheme.id == "C"):
            return False
        if place.pfn is None or place.whole or place.folio or place.pages > _COMPARED_MAX:
            return True
        pfns = range(place.pfn, place.pfn + place.pages)
        # Of files that share a page, the page names none: whether that is right is what is tested.
        shared = place.pfn in place.survey.states.get("shared", ())
        return shared or all(self.core.agrees(place.survey, pfn) for pfn in pfns)

    def _write(self, task: Task, place: Place, gone: set[int]) -> Injection | str:
        self.memory.begin()
        editor = Editor(self.core, self.memory, place)
        try:
            task.case.edit(editor)
            if task.fault.rule not in OF_BOOKS:
                editor.use_pages(gone)
        except (CannotEdit, FaultError, LookupError) as err:
            self.memory.core.undo(self.memory.log)
            return str(err)
        for rule, level in task.case.found(self.core.entries is not None):
            own = (rule, level) in OWN
            pfn = None if place.whole else editor.subject
            fault = task.fault
            editor.also(fault.rule if own else rule, fault.level if own else level, pfn)
        return Injection(task.fault, task.near, place, editor, self.memory.log)


# ---------------------------------------------------------------- truth.json


def _joined(expects: list[Expect]) -> list[Expect]:
    """Findings on pages in a row as one."""
    joined: list[Expect] = []
    for one in expects:
        last = joined[-1] if joined else None
        if (
            last is not None
            and last.pfn is not None
            and one.pfn == last.pfn + last.count
            and last._replace(pfn=0, count=0) == one._replace(pfn=0, count=0)
        ):
            joined[-1] = last._replace(count=last.count + one.count)
        else:
            joined.append(one)
    return joined


def _pfn_runs(pfns: Iterable[int]) -> list[list[int]]:
    """[start, end] of pfns in a row."""
    runs = Runs()
    for pfn in sorted(pfns):
        runs.add(pfn)
    return runs.runs


def _describe(injection: Injection) -> dict[str, Any]:
    fault, editor, place = injection.fault, injection.editor, injection.place
    case = fault.near if injection.near else fault.case
    pfn = editor.subject
    aliases = editor.aliases_of(pfn) if pfn is not None else range(0)
    return {
        "fault": fault.name,
        "case": "near miss" if injection.near else "fault",
        "round": injection.round,
        "number": fault.number,
        "expect": fault.rule,
        "level": fault.level,
        "found_by": fault.found_by,
        "type": place.survey.type,
        "pagemap": place.survey.pagemap.address,
        "device": place.survey.pagemap.device,
        "ranges": [(r.start_pfn, r.end_pfn) for r in place.survey.pagemap.ranges],
        "pfn": pfn,
        "state": case.where,
        "edits": editor.edits[:_DESCRIBED_MAX],
        "edits_left_out": max(len(editor.edits) - _DESCRIBED_MAX, 0),
        "aliases": [aliases.start, aliases.stop, aliases.step] if aliases else None,
        "today": [one._asdict() for one in _joined(editor.expects)],
        "hides": editor.hidden,
        "touches": _pfn_runs(editor.touched),
        "writes": pack(injection.writes),
    }


def check_kernel(core: str, kernel: Kernel) -> None:
    """Only kernels that the table of faults was written for.

    :raises CannotEdit: another one
    """
    if not kernel.pagemaps:
        raise CannotEdit(f"{core}: no dev_pagemap is registered, so there is nothing to edit")
    if kernel.scheme.id not in EVERY or not has_symbol(kernel.prog, "pgmap_array"):
        raise CannotEdit(
            f"{core}: scheme {kernel.scheme.id}, or a registry before 5.3: the faults are those of "
            f"schemes {', '.join(EVERY)}; tests/mock_kernels/ has others"
        )


def inject(
    core: str,
    vmlinux: str,
    out: Path,
    faults: Iterable[Fault],
    round_: int = 1,
    seed: Optional[int] = None,
    modules: Sequence[str] = (),
) -> dict[str, Any]:
    """Write OUT/vmcore and OUT/truth.json; gives the truth.

    :param modules: debug files of modules
    :param seed: draws the places; None takes the first that fit
    :raises CannotEdit: nothing could be injected, or the core cannot be edited
    :raises TargetError: the core cannot be read
    """
    debug_files = [vmlinux, *modules]
    kernel = read_kernel(open_target(Target(core, debug_files)))
    check_kernel(core, kernel)
    copy_core(core, out / CORE)
    file = CoreFile(str(out / CORE))
    try:
        surveyed = Core(kernel)
        draw = None if seed is None else random.Random(seed)
        planner = Planner(surveyed, Memory(kernel.prog, file), draw)
        planner.run(tasks_of(surveyed, faults))
        if not planner.rounds:
            reasons = "; ".join(f"{task.fault.name}: {why}" for task, why in planner.left_out)
            raise CannotEdit(f"{core}: nothing could be injected ({reasons or 'no fault fits'})")
        if not 1 <= round_ <= len(planner.rounds):
            raise CannotEdit(f"round {round_}: there are {len(planner.rounds)}")
        for number, injections in enumerate(planner.rounds, 1):
            for injection in injections:
                injection.round = number
        truth = {
            "schema": FORMAT,
            "core": str(core),
            "debug_files": [str(Path(file).resolve()) for file in debug_files],
            "kernel": kernel.prog["UTS_RELEASE"].string_().decode(errors="replace"),
            "scheme": kernel.scheme.id,
            "rounds": len(planner.rounds),
            "applied": round_,
            "seed": seed,
            "injections": [_describe(one) for each in planner.rounds for one in each],
            "not_injected": [
                {"fault": t.fault.name, "near": t.near, "type": t.type, "why": why}
                for t, why in planner.left_out
            ],
        }
        file.apply(writes_of(truth, round_))
    finally:
        file.close()
    (out / TRUTH).write_text(json.dumps(truth, indent=1) + "\n")
    return truth


def writes_of(truth: dict[str, Any], round_: int) -> list[Write]:
    """All writes of a round, in their order."""
    return [
        write
        for one in truth["injections"]
        if one["round"] == round_
        for write in unpack(tuple(run) for run in one["writes"])
    ]


# ---------------------------------------------------------------- the check

Key = tuple[str, str, Optional[int], Optional[int]]


def findings_of(core: str, debug_files: Sequence[str]) -> set[Key]:
    """(rule, level, pfn, None) of every page, (rule, level, None, pagemap) of every pagemap."""
    keys: set[Key] = set()
    for one in audit(open_target(Target(core, list(debug_files)))).findings:
        if one.pfn is None:
            keys.add((one.rule, one.severity, None, one.pagemap))
        else:
            step = 1 << one.order
            keys |= {(one.rule, one.severity, one.pfn + i * step, None) for i in range(one.count)}
    return keys


def _keys(one: dict[str, Any]) -> set[Key]:
    """What today's audit must say of an injection."""
    keys: set[Key] = set()
    for e in one["today"]:
        if e["pfn"] is None:
            keys.add((e["rule"], e["level"], None, e["pagemap"]))
        else:
            keys |= {(e["rule"], e["level"], e["pfn"] + i, None) for i in range(e["count"])}
    return keys


def _inside(key: Key, runs: Iterable[tuple[int, int]]) -> bool:
    return key[2] is not None and any(start <= key[2] < end for start, end in runs)


@dataclass
class Outcome:
    """A round: what was expected and is missing, what nobody expected, and all that was found."""

    missing: set[Key]
    unexpected: set[Key]
    found: set[Key]


def _later(one: dict[str, Any]) -> Optional[Key]:
    """What an audit with a second pass says of a fault that needs one."""
    if one["found_by"] != SECOND_PASS or one["case"] != "fault":
        return None
    pfn = one["pfn"]
    return one["expect"], one["level"], pfn, one["pagemap"] if pfn is None else None


def compare(before: set[Key], after: set[Key], injections: list[dict[str, Any]]) -> Outcome:
    """The findings of an edited core with those of the unedited one and the truth."""
    touched = [tuple(run) for one in injections for run in one["touches"]]
    hidden = [tuple(run) for one in injections for run in one["hides"]]
    stay = {key for key in before if not _inside(key, touched)}
    unjudged = {one["pagemap"] for one in injections if one["pfn"] is None and one["hides"]}
    optional = {key for key in stay if _inside(key, hidden) or key[3] in unjudged}
    wanted = stay - optional
    # A type that calibration caps keeps its findings at a lower level.
    optional |= {
        (rule, level, *place) for rule, _, *place in optional for level in ("info", "warning")
    }
    for one in injections:
        later, today = _later(one), _keys(one)
        wanted |= {later} if later in after and later not in today else today
    return Outcome(wanted - after, after - wanted - optional, after)


def _concerns(key: Key, one: dict[str, Any]) -> bool:
    """A finding on the pages or the pagemap of an injection."""
    if key in _keys(one):
        return True
    if key[2] is None:
        return key[3] == one["pagemap"]
    runs = [*one["touches"], *one["hides"]]
    return _inside(key, runs + one["ranges"] if one["pfn"] is None else runs)


class Line(NamedTuple):
    """What became of a rule's faults and near misses.

    right: the audit says what the truth says; found: and it names the fault.
    """

    injected: int
    right: int
    found: int
    near: int
    quiet: int


_ROW = "{:6}{:28}{:13}{:>9}{:>8}{:>13}{:>7}"


@dataclass
class Report:
    """All rounds of an injected core."""

    truth: dict[str, Any]
    outcomes: dict[int, Outcome]
    before: set[Key]

    @property
    def right(self) -> bool:
        return not any(o.missing or o.unexpected for o in self.outcomes.values())

    def is_right(self, one: dict[str, Any]) -> bool:
        outcome = self.outcomes[one["round"]]
        return not any(_concerns(key, one) for key in outcome.missing | outcome.unexpected)

    def is_found(self, one: dict[str, Any]) -> bool:
        """A fault that came out right, and not only because its second pass is missing."""
        later = _later(one)
        found = later is None or later in self.outcomes[one["round"]].found
        return found and self.is_right(one)

    def lines(self) -> dict[tuple[str, str, str], Line]:
        """(number, rule, found by) -> what became of it."""
        counts: dict[tuple[str, str, str], Counter[str]] = {}
        for one in self.truth["injections"]:
            count = counts.setdefault((one["number"], one["expect"], one["found_by"]), Counter())
            if one["case"] == "fault":
                count.update(injected=1, right=self.is_right(one), found=self.is_found(one))
            else:
                count.update(near=1, quiet=self.is_right(one))
        order = sorted(counts.items())
        return {key: Line(*(c[name] for name in Line._fields)) for key, c in order}

    def differences(self) -> Iterator[str]:
        """One line for pages in a row."""
        for number, outcome in sorted(self.outcomes.items()):
            mine = [one for one in self.truth["injections"] if one["round"] == number]
            for what, keys in (("missing", outcome.missing), ("unexpected", outcome.unexpected)):
                for rule, level, place, key in _placed(keys):
                    names = "; ".join(
                        f"{o['fault']}, {o['case']}" for o in mine if _concerns(key, o)
                    )
                    yield f"round {number}: {what}: {level} {rule} at {place} ({names})"

    def __str__(self) -> str:
        lines = [
            f"{self.truth['kernel']}, scheme {self.truth['scheme']}: "
            f"{len(self.truth['injections'])} injections in {self.truth['rounds']} rounds",
            _ROW.format("", "rule", "found by", "injected", "found", "near misses", "quiet"),
        ]
        for (number, rule, by), line in self.lines().items():
            row = _ROW.format(number, rule, by, line.injected, line.found, line.near, line.quiet)
            needs = by == SECOND_PASS and line.found < line.injected
            lines.append(row + ("  needs second-pass" if needs else ""))
        return "\n".join(lines)


def _placed(keys: set[Key]) -> Iterator[tuple[str, str, str, Key]]:
    """(rule, level, where in words, the first of them); pages in a row as one."""
    for rule, level in sorted({key[:2] for key in keys}):
        mine = [key for key in keys if key[:2] == (rule, level)]
        for key in mine:
            if key[2] is None:
                yield rule, level, f"pagemap {key[3]:#x}", key
        for start, end in _pfn_runs(key[2] for key in mine if key[2] is not None):
            place = f"pfn {start:#x}" + (f"-{end - 1:#x}" if end - start > 1 else "")
            yield rule, level, place, (rule, level, start, None)


def _load(out: Path) -> dict[str, Any]:
    try:
        truth: dict[str, Any] = json.loads((out / TRUTH).read_text())
    except FileNotFoundError:
        raise CannotEdit(f"{out / TRUTH}: no such file; inject first") from None
    if truth.get("schema") != FORMAT:
        raise CannotEdit(f"{out / TRUTH}: not written by this program; inject again")
    return truth


def check(out: Path) -> Report:
    """Audit every round of an injected core; the core is left as it was.

    :raises CannotEdit: the core is not what truth.json says
    """
    truth = _load(out)
    core, debug_files = str(out / CORE), truth["debug_files"]
    file = CoreFile(core)
    applied: list[Write] = writes_of(truth, truth["applied"])
    outcomes = {}
    try:
        file.undo(applied)
        applied = []
        before = findings_of(core, debug_files)
        for number in range(1, truth["rounds"] + 1):
            writes = writes_of(truth, number)
            file.apply(writes)
            applied = writes
            after = findings_of(core, debug_files)
            file.undo(writes)
            applied = []
            mine = [one for one in truth["injections"] if one["round"] == number]
            outcomes[number] = compare(before, after, mine)
    finally:
        file.undo(applied)
        file.apply(writes_of(truth, truth["applied"]))
        file.close()
    return Report(truth, outcomes, before)


# ---------------------------------------------------------------- the program


def _list() -> None:
    for fault in FAULTS:
        types = "all" if set(fault.types) == set(ALL) else ",".join(fault.types)
        print(
            f"{fault.name:28}{fault.number:5}{fault.rule:28}{fault.level:9}{fault.found_by:13}"
            f"{types}; schemes {','.join(fault.schemes)}; {fault.case.where}"
        )


def _chosen(names: list[str]) -> list[Fault]:
    known = {fault.name: fault for fault in FAULTS}
    for name in names:
        if name not in known:
            raise CannotEdit(f"no fault is called {name!r}; --list shows them")
    return [known[name] for name in names]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("core", nargs="?")
    parser.add_argument("vmlinux", nargs="?")
    parser.add_argument("out", nargs="?", type=Path)
    parser.add_argument("--fault", nargs="+", default=[], metavar="NAME")
    parser.add_argument("--all", action="store_true", help="every fault that the core can show")
    parser.add_argument("--module", action="append", default=[], metavar="FILE")
    parser.add_argument("--round", type=int, default=1, help="the round that OUT/vmcore shows")
    parser.add_argument("--seed", type=int, help="draw the places (default: the first that fit)")
    parser.add_argument("--list", action="store_true", help="the table of faults")
    parser.add_argument("--check", type=Path, metavar="OUT", help="audit an injected core")
    options = parser.parse_args()
    if not options.list and not options.check:
        if not options.out:
            parser.error("CORE, VMLINUX and OUT are needed")
        if bool(options.fault) == options.all:
            parser.error("say which faults: --fault NAME ... or --all")
    return options


def _run(options: argparse.Namespace) -> int:
    if options.list:
        _list()
        return 0
    if options.check:
        report = check(options.check)
        print(report)
        for line in report.differences():
            print(line)
        return 0 if report.right else 1
    faults = _chosen(options.fault) if options.fault else FAULTS
    truth = inject(
        *(options.core, options.vmlinux, options.out, faults),
        round_=options.round,
        seed=options.seed,
        modules=options.module,
    )
    shown = [one for one in truth["injections"] if one["round"] == truth["applied"]]
    print(
        f"{options.out / CORE}: {len(shown)} of {len(truth['injections'])} injections "
        f"(round {truth['applied']} of {truth['rounds']})"
    )
    for one in truth["not_injected"]:
        print(
            f"not injected: {one['fault']}{' (near miss)' if one['near'] else ''} {one['type']}: {one['why']}"
        )
    return 0


def main() -> int:
    try:
        return _run(_arguments())
    except (CannotEdit, TargetError) as err:
        print(f"inject.py: error: {err}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
