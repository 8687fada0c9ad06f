#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Boot every kernel in every scenario, dump it, and compare what zonedev says with the record.

usage: lab.py [--kernels 6.1,7.2] [--scenarios nvdimm,leak] [--fresh] [--debug] [--no-modules] [--jobs N]
              [--support FILE]

Owns the order of things and the table at the end; each step is a program of this directory.  A kernel
is chosen by its release or the beginning of it.  Results lie in $LAB (default: lab-out):
cores/RELEASE/SCENARIO/ with the core, the record, the expectation, result.json.  A run whose core is
there is compared again, not booted again (--fresh does).  Exit status 1 if anything differs, or a run
did not come about.  A run keeps about two processors busy (TCG): as many runs at once as there are for,
or --jobs N; the next kernels are fetched meanwhile.
"""

from __future__ import annotations

import argparse
import csv
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import support

HERE = Path(__file__).resolve().parent
BUNDLED = HERE.parent.parent / "tests" / "vmcores"
LAB = Path(os.environ.get("LAB", "lab-out")).resolve()
BUILD_ROOT = Path(os.environ.get("BUILD_ROOT", LAB / "build-root"))

Row = dict[str, str]
Result = dict[str, Any]


class Failed(Exception):
    """A step of a run did not come about; says which."""


class Run(NamedTuple):
    """One kernel in one scenario."""

    release: str
    row: Row

    @property
    def directory(self) -> Path:
        return LAB / "cores" / self.release / self.row["name"]


def table(name: str) -> list[Row]:
    lines = (HERE / name).read_text().splitlines()
    return list(
        csv.DictReader((line for line in lines if not line.startswith("#")), delimiter="\t")
    )


def step(*words: object) -> None:
    """Run a program of the lab."""
    command = [str(word) for word in words]
    if subprocess.run(command, stdin=subprocess.DEVNULL).returncode:
        raise Failed(f"{Path(command[1] if command[0] == sys.executable else command[0]).name}")


def matches(release: str, wanted: str) -> bool:
    return release == wanted or release.startswith((f"{wanted}.", f"{wanted}-"))


def chosen(
    rows: list[Row], column: str, wanted: str, match: Callable[[str, str], bool]
) -> list[Row]:
    """The rows that a comma-separated list names; all for an empty list."""
    if not wanted:
        return rows
    for word in wanted.split(","):
        if not any(match(row[column], word) for row in rows):
            known = ", ".join(row[column] for row in rows)
            sys.exit(f"lab.py: there is no {column} {word!r}; there are: {known}")
    return [row for row in rows if any(match(row[column], word) for word in wanted.split(","))]


# ---------------------------------------------------------------- what a kernel has


def types_of(release: str) -> Path | None:
    """The debug file of a kernel: its debug package's, else that of a bundled vmcore of it."""
    full = LAB / "debug" / release / "vmlinux"
    if full.exists():
        return full
    bundled = [
        path
        for path in BUNDLED.glob("*/vmlinux")
        if f'"kernel": "{release}"'
        in path.with_name("truth-states.json").read_text().partition("\n")[0]
    ]
    # Each has what one audit asked for: the largest, that of the most memory types.
    return max(bundled, key=lambda path: path.stat().st_size, default=None)


def has(release: str, need: str) -> bool:
    """Whether a kernel has a module that was built, or an option of its configuration."""
    if not need.startswith("CONFIG_"):
        return (LAB / "kmod" / release / f"{need}.ko").exists()
    top = LAB / "kernels" / release
    places = top / "boot" / f"config-{release}", top / "usr/lib/modules" / release / "config"
    return any(f"\n{need}=" in path.read_text() for path in places if path.exists())


# By scenario, modules of the kernel whose types tell who holds pages.
TYPES_IN = {"pins": ("vfio", "vfio_iommu_type1", "ib_uverbs", "rdma_rxe")}


def module_options(run: Run) -> list[str]:
    """Modules of a run with their debug information, those that were built among them, as options of the checks."""
    built, debug = LAB / "kmod" / run.release, LAB / "debug" / run.release
    modules = [built / f"{need}.ko" for need in run.row["needs"].split(",")]
    for scenario in run.row["scenarios"].split(","):
        modules += [debug / f"{name}.ko" for name in TYPES_IN.get(scenario, ())]
    return [word for path in modules if path.exists() for word in ("--module", str(path))]


def lacks(release: str, row: Row) -> str:
    """What a kernel lacks for a scenario; empty for nothing."""
    needs = row["needs"].split(",")
    return ", ".join(need for need in needs if need != "-" and not has(release, need))


def prepare(release: str, scenarios: list[Row], options: argparse.Namespace) -> None:
    """Packages, modules and initramfs of a kernel."""
    fetch = [HERE / "fetch.py", release]
    # These ask for more types than a bundled debug file has.
    whole = any(WHOLE_TYPES & set(row["checks"].split(",")) for row in scenarios)
    if options.debug or whole or types_of(release) is None:
        fetch.append("--debug")
    if options.modules:
        fetch.append("--modules")
    step(sys.executable, *fetch)
    if options.modules:
        step(HERE / "build-kmod.sh", release)
    step(HERE / "mkinitramfs.sh", release)


# ---------------------------------------------------------------- a run


def boot(run: Run) -> None:
    words = [run.release, run.row["scenarios"], "--name", run.row["name"]]
    step(sys.executable, HERE / "boot.py", *words, *run.row["options"].split())


def replay(run: Run) -> None:
    record = run.directory / "truth.jsonl"
    step(sys.executable, HERE / "replay.py", record, "-o", run.directory / "truth-states.json")


def python_check(program: str, *words: object) -> str | None:
    """Run a check; its last line where it fails."""
    answer = subprocess.run(
        [sys.executable, str(HERE / program), *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if answer.returncode == 0:
        return None
    print(answer.stdout, end="")
    return f"{program}: {(answer.stdout.strip().splitlines() or ['no output'])[-1]}"


def compare(run: Run, vmlinux: Path) -> Result:
    """Both comparisons with the record: zonedev's pages and findings, and the twin's raw words."""
    out = run.directory / "compared.json"
    out.unlink(missing_ok=True)
    core, states = run.directory / "core.elf", run.directory / "truth-states.json"
    problems = [
        python_check("verify.py", core, vmlinux, states, "-o", out, *module_options(run)),
        python_check("check_states.py", vmlinux, core, states),
    ]
    if not out.exists():
        raise Failed(problems[0] or "verify.py")
    result: Result = json.loads(out.read_text())
    return result | {"problems": [problem for problem in problems if problem]}


def faults(run: Run, vmlinux: Path) -> str | None:
    """Faults injected into a copy of the core, and looked for."""
    out = run.directory / "injected"
    shutil.rmtree(out, ignore_errors=True)
    core = run.directory / "core.elf"
    modules = module_options(run)
    problem = python_check("inject.py", core, vmlinux, out, "--all", *modules) or python_check(
        "inject.py", "--check", out
    )
    if not problem:
        shutil.rmtree(out)
    return problem


def explain(run: Run, vmlinux: Path) -> str | None:
    """Who holds each page, by zonedev and by the record."""
    files = run.directory / "core.elf", vmlinux, run.directory / "truth.jsonl"
    out = run.directory / "explained.json"
    return python_check("explained.py", *files, "-o", out, *module_options(run))


# Checks of a row of scenarios.tsv beside the record: each returns what is wrong, or None.
CHECKS: dict[str, Callable[[Run, Path], str | None]] = {
    "faults": faults,
    "dumps": lambda run, vmlinux: python_check("dumps.py", run.directory, "--vmlinux", vmlinux),
    "live": lambda run, vmlinux: python_check("live.py", "check", run.directory),
    "btf": lambda run, vmlinux: python_check(
        "btf_types.py", run.directory / "core.elf", vmlinux, *module_options(run)
    ),
    "explain": explain,
}
WHOLE_TYPES = {"live", "btf", "explain"}


def prepare_root() -> None:
    """The chroot with compilers; makedumpfile with every compression, if its source can be had."""
    step(HERE / "build-root.sh")
    if not (LAB / "makedumpfile").exists():
        try:
            step(HERE / "build-makedumpfile.sh")
        except Failed as err:
            print(f"lab.py: {err} failed: the machine's makedumpfile has to do", file=sys.stderr)


def do_run(run: Run, fresh: bool) -> Result:
    """Boot, replay, compare; a result with its problems, whatever happens."""
    result: Result = {"problems": []}
    try:
        if fresh or not run.directory.exists():
            boot(run)
        vmlinux = types_of(run.release)
        if vmlinux is None:
            raise Failed("no debug information for this kernel")
        if "--formats -" not in run.row["options"]:
            replay(run)
            result = compare(run, vmlinux)
        for name in run.row["checks"].split(","):
            if name != "-":
                problem = CHECKS[name](run, vmlinux)
                result.setdefault("checks", {})[name] = problem or "ok"
                result["problems"] += [problem] if problem else []
    except Failed as err:
        result["problems"].append(str(err))
    result |= {"kernel": run.release, "scenario": run.row["name"]}
    if run.directory.exists():
        (run.directory / "result.json").write_text(json.dumps(result, indent=1) + "\n")
    return result


def submit_runs(options: argparse.Namespace, pool: ThreadPoolExecutor) -> Iterator[Future[Result]]:
    """Prepare one kernel after the other, and leave its runs to the pool; in the order of the tables."""
    scenarios = chosen(table("scenarios.tsv"), "name", options.scenarios, str.__eq__)
    for kernel in chosen(table("kernels.tsv"), "release", options.kernels, matches):
        release = kernel["release"]
        try:
            prepare(release, scenarios, options)
        except Failed as err:
            yield pool.submit(dict, kernel=release, scenario="-", problems=[str(err)])
            continue
        for row in scenarios:
            lacking = lacks(release, row)
            if lacking:
                yield pool.submit(dict, kernel=release, scenario=row["name"], lacks=lacking)
            else:
                yield pool.submit(do_run, Run(release, row), options.fresh)


def results_of(options: argparse.Namespace) -> list[Result]:
    pool = ThreadPoolExecutor(options.jobs)
    try:
        return [run.result() for run in list(submit_runs(options, pool))]
    finally:
        # Nothing is left to cancel unless this was interrupted.
        pool.shutdown(cancel_futures=True)


def at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def stored() -> list[Result]:
    """What $LAB holds of every row of the two tables: the last result of each run."""
    results: list[Result] = []
    for kernel in table("kernels.tsv"):
        for row in table("scenarios.tsv"):
            run = Run(kernel["release"], row)
            path = run.directory / "result.json"
            if path.exists():
                results.append(json.loads(path.read_text()))
            elif lacks(run.release, row):
                results.append(
                    {
                        "kernel": run.release,
                        "scenario": row["name"],
                        "lacks": lacks(run.release, row),
                    }
                )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kernels", default="", help="releases, or how they begin; default all")
    parser.add_argument("--scenarios", default="", help="names of scenarios.tsv; default all")
    parser.add_argument("--fresh", action="store_true", help="boot again what has a core")
    parser.add_argument("--debug", action="store_true", help="fetch debug packages in any case")
    parser.add_argument(
        "--no-modules", dest="modules", action="store_false", help="build no guest modules"
    )
    parser.add_argument(
        "--jobs",
        type=at_least_one,
        default=max(1, (os.cpu_count() or 1) // 2),
        help="runs at once (default: one for every two processors)",
    )
    parser.add_argument(
        "--support", type=Path, help="write the last results of all runs in $LAB to this file"
    )
    options = parser.parse_args()
    LAB.mkdir(parents=True, exist_ok=True)
    lock = (LAB / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit(
            f"lab.py: another lab.py works in {LAB}; wait for it, or set LAB to another directory"
        )
    if options.modules:
        try:
            prepare_root()
        except Failed as err:
            sys.exit(
                f"lab.py: {err} failed: guest modules need root and debootstrap, or LABFLAGS=--no-modules"
            )
    results = results_of(options)
    print(support.text(results))
    if options.support:
        options.support.write_text(support.markdown(stored()))
    counts = Counter(map(support.outcome, results))
    print(
        f"lab: {counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped "
        "(runs; skipped: the kernel cannot do it)"
    )
    sys.exit(1 if counts["failed"] else 0)


if __name__ == "__main__":
    main()
