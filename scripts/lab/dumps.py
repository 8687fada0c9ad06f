#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Every dump format that there is of a run: make each one, and hold zonedev's answer against the full core's.

usage: dumps.py RUN [--formats NAME,...] [--vmlinux FILE] [--keep]     (with a Python that has zonedev)

Owns the table of formats: how each is made and what it may lack.  RUN is a directory of boot.py, with
core.elf (QEMU's, which holds everything) and truth.jsonl; the cores of a crash kernel (kdump.py) are rows
like the others.  Whether core.elf is right is verify.py's business.
Compared: the bytes of every struct page that a dump holds; the classes of those pages; the findings on
them; and what the program says and exits with, pages that are not there being not judged. A core of a crash
kernel is compared with the record, too (check_states.py). Prints a table; exit status 1 upon a difference.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import logging
import os
import re
import shutil
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import elf_ramonly
import verify

from zonedev.audit import audit
from zonedev.errors import TargetError
from zonedev.kernel.facts import Kernel, read_kernel
from zonedev.kernel.vmemmap import Hole, read_memmap
from zonedev.model import Audit, PagemapResult
from zonedev.target import Target, open_target

HERE = Path(__file__).resolve().parent
REPO = HERE.parent.parent
LAB = Path(os.environ.get("LAB", "lab-out")).resolve()
FRAME = 4096
JUDGED = ("idle", "busy", "violation")

# What a dump may lack: nothing; the memory of devices, and with it the struct pages of an altmap; anything.
# Or the program cannot open it, and says so in one line.
NOTHING, DEVICES, ANYTHING, CANNOT = "nothing", "devices", "anything", "cannot be opened"

# Bits of a page descriptor's flags in a kdump-compressed file: its compression.
FLAGS = {"zlib": 1, "lzo": 2, "snappy": 4, "zstd": 32}


@dataclasses.dataclass(frozen=True)
class Format:
    """A row of the table.

    made: command with {mdf} (makedumpfile of build-makedumpfile.sh, if it is there), {old} (the machine's),
    {full}, {ram}, {devices} (ELF cores) and {out}; None for a file of the run itself.
    """

    name: str
    lacks: str
    made: str | None
    compression: str | None = None


def _kdump(name: str, option: str, level: int, source: str = "ram") -> Format:
    lacks = DEVICES if source == "ram" else NOTHING
    command = f"{{mdf}} {option} -d{level} {{{source}}} {{out}}"
    compression = name.split("-")[1]
    return Format(name, lacks, command, compression if compression in FLAGS else None)


FORMATS = (
    # The crash kernel's, as the run has them.
    Format("kdump-raw", DEVICES, None),
    Format("kdump-d23", DEVICES, None, "lzo"),
    Format("kdump-d31", DEVICES, None, "zlib"),
    Format("kdump-machine-d31", ANYTHING, None, "zlib"),
    # QEMU's own, flattened (boot.py --formats elf,kdump-zlib).
    Format("zlib", CANNOT, None),
    # ELF.
    Format("elf-ram", DEVICES, "elf_ramonly {full} {out}"),
    Format("elf-devices", NOTHING, "elf_ramonly {full} {out} --devices"),
    Format("elf-d31", DEVICES, "{mdf} -E -d31 {ram} {out}"),
    # kdump-compressed.
    _kdump("ram-plain-d23", "", 23),
    _kdump("ram-zlib-d23", "-c", 23),
    _kdump("ram-lzo-d23", "-l", 23),
    _kdump("ram-snappy-d23", "-p", 23),
    _kdump("ram-zstd-d23", "-z", 23),
    _kdump("ram-zlib-d31", "-c", 31),
    _kdump("ram-zstd-d31", "-z", 31),
    _kdump("devices-zlib-d31", "-c", 31, "devices"),
    _kdump("devices-lzo-d1", "-l", 1, "devices"),
    # As an older makedumpfile filters.
    Format("machine-d31", ANYTHING, "{old} -c -d31 {ram} {out}", "zlib"),
    # Flattened: what makedumpfile writes to a pipe; and put together again.
    Format("flat-zlib-d23", DEVICES, "{mdf} -F -c -d23 {ram} >{out}"),
    Format("flat-elf-d31", DEVICES, "{mdf} -F -E -d31 {ram} >{out}"),
    Format("flat-rearranged", DEVICES, "{mdf} -F -c -d23 {ram} | {mdf} -R {out}", "zlib"),
    # One of several files.
    Format("split", CANNOT, "{mdf} --split -c -d31 {ram} {out} {out}.2 && rm {out}.2"),
)


class NotMade(Exception):
    """A dump that cannot be made here; says why."""


@dataclasses.dataclass
class Row:
    """What came out for a format."""

    name: str
    size: int = 0
    status: int | None = None
    pages: int = 0
    lost: int = 0
    said: str = ""
    problems: list[str] = dataclasses.field(default_factory=list)
    not_made: str = ""
    differences: list[str] = dataclasses.field(default_factory=list)


# ---------------------------------------------------------------- making


class Maker:
    """Makes dumps of a run in a directory of its own; ELF cores that others are made of stay until the end."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.out = run / "dumps"
        self.out.mkdir(exist_ok=True)
        built = LAB / "makedumpfile/run"
        self.old = shutil.which("makedumpfile") or ""
        self.mdf = str(built) if built.exists() else self.old

    def lacks(self, row: Format) -> str:
        """What a dump may lack, depending on who filters."""
        careless = self.mdf == self.old and row.made and "-d31" in row.made
        return ANYTHING if careless and row.lacks != CANNOT else row.lacks

    def source(self, name: str) -> Path:
        """core.elf, or it cut down to what makedumpfile reads."""
        full = self.run / "core.elf"
        if name == "full":
            return full
        path = self.out / f"elf-{name}"
        if not path.exists():
            elf_ramonly.cut(full, self.run / "truth.jsonl", path, name == "devices")
        return path

    def make(self, row: Format) -> Path:
        """:raises NotMade: it cannot be made, or is not of the run"""
        if row.made is None:
            path = self.run / f"core.{row.name}"
            if not path.exists():
                raise NotMade("not of this run")
            return path
        out = self.out / row.name
        if row.made.startswith("elf_ramonly"):
            return self.source(row.name.removeprefix("elf-"))
        out.unlink(missing_ok=True)
        self._command(row.made, out)
        found = compressions(out) if row.compression else None
        if found is not None and row.compression not in found:
            raise NotMade(f"this makedumpfile cannot: compressed with {found or 'nothing'}")
        return out

    def _command(self, command: str, out: Path) -> None:
        words = {"mdf": self.mdf, "old": self.old, "out": str(out)}
        if not self.mdf:
            raise NotMade("no makedumpfile: run build-makedumpfile.sh, or install it")
        sources = {
            n: str(self.source(n)) for n in ("full", "ram", "devices") if f"{{{n}}}" in command
        }
        answer = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command.format(**words, **sources)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
        if answer.returncode:
            lines = (answer.stderr + answer.stdout).strip().splitlines()
            raise NotMade(f"{lines[-1] if lines else 'no word'} ({command})")


def compressions(path: Path) -> str:
    """Which compressions the pages of a kdump-compressed file have, those of few pages left out."""
    with path.open("rb") as file:
        header = file.read(440)
        block, sub_blocks, bitmap_blocks = struct.unpack_from("<iiI", header, 428)
        file.seek(block * (1 + sub_blocks + bitmap_blocks))
        data = file.read(24 << 14)
    flags = Counter(d[2] for d in struct.iter_unpack("<QIIQ", data[: len(data) // 24 * 24]))
    common = [flag for flag, n in flags.items() if n > len(data) // 24 // 10]
    return ",".join(name for name, flag in FLAGS.items() if flag in common)


# ---------------------------------------------------------------- comparing


Run = tuple[int, int]  # pages [pfn, end)


class Opened:
    """A core and what zonedev says of it; quick: without what files say of pages."""

    def __init__(self, core: Path, vmlinux: Path, quick: bool = False) -> None:
        self.core, self.vmlinux = core, vmlinux
        self.prog = open_target(Target(str(core), [str(vmlinux)]))
        self.kernel: Kernel = read_kernel(self.prog)
        self.result: Audit = audit(self.prog, quick=quick)

    @functools.cached_property
    def without_files(self) -> Opened:
        return Opened(self.core, self.vmlinux, quick=True)

    @property
    def knows_files(self) -> bool:
        """Whether every DAX entry of every file was read."""
        passes = [one for one in self.result.passes if one["pass"] == "dax-entries"]
        return all(one["ran"] and one["complete"] for one in passes)

    @functools.cache  # noqa: B019 lives as long as the program
    def frames(self, address: int) -> dict[int, bytes | None]:
        """Struct pages of the pagemap at an address, by the first pfn of each frame of them.

        None: not in the core. That goes for a frame of zeroes, too: no struct page of a device is all zero.
        """
        layout = self.kernel.layout
        unit = FRAME // layout.page_size
        found: dict[int, bytes | None] = {}
        (pagemap,) = (p for p in self.kernel.pagemaps if p.address == address)
        for range_ in pagemap.ranges:
            pfn, count = range_.first_pfn, range_.end_pfn - range_.first_pfn
            for piece in read_memmap(self.prog, layout.page_address(pfn), count, layout):
                hole = isinstance(piece, Hole)
                pages = piece.pages if hole else len(piece.data) // layout.page_size
                at, end = pfn, pfn + pages
                while pfn < end:
                    after = min(pfn // unit * unit + unit, end)
                    data = None
                    if not hole:
                        data = piece.data[
                            (pfn - at) * layout.page_size : (after - at) * layout.page_size
                        ]
                    found[pfn] = data if data and any(data) else None
                    pfn = after
        return found

    def classes(self, runs: Iterable[Run]) -> Counter[str]:
        """Pages by class in some runs, judged by themselves."""
        sums: Counter[str] = Counter()
        for pfn, end in runs:
            sums.update(verify.classes_of(self.prog, self.kernel, pfn, end - pfn))
        return sums

    def findings(self) -> set[tuple[str, str, int]]:
        """(rule, severity, pfn) of each folio with a finding."""
        return {
            (f.rule, f.severity, pfn)
            for f in self.result.findings
            if f.pfn is not None
            for pfn in range(f.pfn, f.pfn + (f.count << f.order), 1 << f.order)
        }

    def pagemap_findings(self) -> set[tuple[str, str, int]]:
        """(rule, severity, address) of the findings on pagemaps, lost memory left out."""
        return {
            (f.rule, f.severity, f.pagemap)
            for f in self.result.findings
            if f.pfn is None and f.rule != "memmap-unreadable"
        }


def runs_of(pfns: Iterable[tuple[int, int]]) -> Iterator[Run]:
    """Runs that touch become one."""
    start = end = -1
    for first, after in pfns:
        if first != end:
            if end > start:
                yield start, end
            start = first
        end = after
    if end > start:
        yield start, end


def lost_runs(dump: Opened, address: int) -> list[Run]:
    """Pages of a pagemap that the dump does not hold."""
    unit = FRAME // dump.kernel.layout.page_size
    ends = {r.end_pfn for p in dump.kernel.pagemaps if p.address == address for r in p.ranges}
    frames = dump.frames(address)
    return list(
        runs_of(
            (pfn, min([pfn // unit * unit + unit, *(e for e in ends if e > pfn)]))
            for pfn, data in frames.items()
            if data is None
        )
    )


def pagemap_differences(full: Opened, dump: Opened, one: PagemapResult) -> Iterator[str]:
    """Bytes and classes of one pagemap of a dump."""
    address, name = one.pagemap.address, one.pagemap.device
    whole = {p.pagemap.address: p for p in full.result.pagemaps}.get(address)
    if whole is None:
        yield f"{name}: the full core has no pagemap {address:#x}"
        return
    theirs = full.frames(address)
    changed = [pfn for pfn, data in dump.frames(address).items() if data not in (None, theirs[pfn])]
    if changed:
        yield f"{name}: {len(changed)} frames of struct pages differ, first of pfn {changed[0]:#x}"
    lost = full.classes(lost_runs(dump, address))
    for class_ in JUDGED:
        expected = whole.classes[class_] - lost[class_]
        if one.classes[class_] != expected:
            yield f"{name}: {one.classes[class_]} pages {class_}, expected {expected}"
    missing = one.classes["not-captured"] + one.classes["unreadable"]
    if missing != sum(lost[class_] for class_ in JUDGED):
        yield f"{name}: {missing} pages not judged, {lost} are not there"


def finding_differences(full: Opened, dump: Opened) -> Iterator[str]:
    """Findings of a dump that are not those of the full core on the same pages."""
    seen = {p.pagemap.address for p in dump.result.pagemaps}
    lost = [run for address in seen for run in lost_runs(dump, address)]

    def there(pfn: int) -> bool:
        pagemap = full.kernel.find(pfn)
        known = pagemap is not None and pagemap.address in seen
        return known and not any(start <= pfn < end for start, end in lost)

    expected = {f for f in full.findings() if there(f[2])}
    for what, findings in (
        ("not found", expected - dump.findings()),
        ("new", dump.findings() - expected),
    ):
        for rule, severity, pfn in sorted(findings)[:5]:
            yield f"{what}: {severity} {rule} at pfn {pfn:#x}, and {len(findings) - 1} more"
    of_pagemaps = {f for f in full.pagemap_findings() if f[2] in seen}
    if of_pagemaps != dump.pagemap_findings():
        yield f"findings on pagemaps: {dump.pagemap_findings()}, expected {of_pagemaps}"


def loss_differences(full: Opened, dump: Opened, lacks: str, lost: int) -> Iterator[str]:
    """More is missing than this format may lack."""
    absent = len(full.result.pagemaps) - len(dump.result.pagemaps)
    if absent > len(dump.result.problems):
        yield f"{absent} pagemaps are missing, and nothing is said of it"
    if lacks != ANYTHING and (absent or dump.result.problems):
        yield f"lost: {absent} pagemaps; {dump.result.problems}"
    if lacks == NOTHING and lost:
        yield f"{lost} pages are not in the dump"
    if lacks == DEVICES:
        for one in dump.result.pagemaps:
            if lost_runs(dump, one.pagemap.address) and not one.pagemap.altmap:
                yield f"{one.pagemap.device}: struct pages that lie in RAM are not in the dump"


def expected_status(dump: Opened, lost: int) -> int:
    """The contract's exit status."""
    if any(severity == "error" for _, severity, _ in dump.findings() | dump.pagemap_findings()):
        return 1
    return 3 if lost or dump.result.problems else 0


# ---------------------------------------------------------------- the program's answer


def answer_of(core: Path, vmlinux: Path) -> subprocess.CompletedProcess[str]:
    """`zonedev audit`, as a user runs it."""
    command = [sys.executable, "-m", "zonedev", "audit", str(core), "-s", str(vmlinux)]
    environment = os.environ | {"PYTHONPATH": str(REPO)}
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment
    )


def error_differences(answer: subprocess.CompletedProcess[str]) -> Iterator[str]:
    """An error is one line."""
    if answer.stdout:
        yield f"exit status 2, but it printed {answer.stdout.splitlines()[0]!r}"
    if "internal error" in answer.stderr:
        yield answer.stderr.strip()
    if not answer.stderr.startswith("zonedev: error: ") or answer.stderr.count("\n") != 1:
        yield f"not one line: {answer.stderr!r}"


def record_differences(core: Path, vmlinux: Path, states: Path) -> Iterator[str]:
    """A core of a crash kernel was not made of core.elf: it is held against the record itself."""
    answer = subprocess.run(
        [sys.executable, HERE / "check_states.py", vmlinux, core, states],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    if answer.returncode:
        yield (answer.stdout + answer.stderr).strip().splitlines()[-1]


def lacks_of(format_: Format, core: Path, full: Opened) -> str:
    """What a dump lacks; libkdumpfile opens none whose release does not begin with three numbers.

    That of a release candidate does not: "7.3-amd64".
    """
    with core.open("rb") as file:
        elf = file.read(4) == b"\x7fELF"
    release = full.prog["UTS_RELEASE"].string_().decode()
    return format_.lacks if elf or re.match(r"\d+\.\d+\.\d+", release) else CANNOT


def compare(row: Row, format_: Format, core: Path, vmlinux: Path, full: Opened) -> None:
    """Fill a row with what a dump says."""
    format_ = dataclasses.replace(format_, lacks=lacks_of(format_, core, full))
    answer = answer_of(core, vmlinux)
    row.size, row.status = core.stat().st_blocks * 512, answer.returncode
    row.said = (answer.stderr or answer.stdout).strip().splitlines()[-1]
    if answer.returncode == 2:
        row.differences += error_differences(answer)
        if format_.lacks not in (CANNOT, ANYTHING):
            row.differences.append("cannot be audited")
        return
    if format_.lacks == CANNOT:
        row.differences.append(
            f"expected that it cannot be opened, but exit status {answer.returncode}"
        )
    dump = Opened(core, vmlinux)
    pagemaps = dump.result.pagemaps
    row.pages = sum(dump.result.classes[class_] for class_ in JUDGED)
    lost = sum(end - pfn for p in pagemaps for pfn, end in lost_runs(dump, p.pagemap.address))
    row.lost, row.problems = lost, dump.result.problems
    held, whole = dump, full
    if format_.lacks == ANYTHING and not dump.knows_files:
        # The files' side may be lost like anything else: pages are judged by themselves then, and no worse.
        held, whole = dump.without_files, full.without_files
        worse = {f for f in dump.findings() - full.findings() if f[1] != "info"}
        row.differences += [f"new: {severity} {rule} at pfn {p:#x}" for rule, severity, p in worse]
    for one in held.result.pagemaps:
        row.differences += pagemap_differences(whole, held, one)
    row.differences += finding_differences(whole, held)
    row.differences += loss_differences(full, dump, format_.lacks, lost)
    if answer.returncode != expected_status(dump, lost):
        row.differences.append(
            f"exit status {answer.returncode}, expected {expected_status(dump, lost)}"
        )
    if format_.made is None and not row.problems:
        row.differences += record_differences(core, vmlinux, core.with_name("truth-states.json"))


def check(run: Path, vmlinux: Path, formats: Iterable[Format], keep: bool = False) -> list[Row]:
    """Make each dump of a run and compare it with core.elf."""
    maker, rows = Maker(run), []
    full = Opened(run / "core.elf", vmlinux)
    for format_ in formats:
        row = Row(format_.name)
        try:
            core = maker.make(format_)
            lacks = maker.lacks(format_)
            compare(row, dataclasses.replace(format_, lacks=lacks), core, vmlinux, full)
            if not keep and core.name == format_.name and not core.name.startswith("elf-"):
                core.unlink()
        except NotMade as err:
            row.not_made = str(err)
        except TargetError as err:
            row.differences.append(str(err))
        print(line_of(row), flush=True)
        rows.append(row)
    if not keep:
        shutil.rmtree(maker.out)
    return rows


def line_of(row: Row) -> str:
    """A line of the table."""
    if row.not_made:
        return f"{row.name:18} not made: {row.not_made}"
    size = f"{row.size / 1e6:8.1f} MB"
    line = f"{row.name:18}{size}  status {row.status}  judged {row.pages:8}  not there {row.lost:7}"
    verdict = f"{len(row.differences)} differences" if row.differences else "agrees"
    if row.status == 2 or row.problems:
        verdict += f": {row.problems[0] if row.problems else row.said}"
    return "\n".join([f"{line}  {verdict}", *(f"    {d}" for d in row.differences[:10])])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--formats", help="names of the table; default all")
    parser.add_argument("--vmlinux", type=Path, help="default: debug/RELEASE/vmlinux below $LAB")
    parser.add_argument("--keep", action="store_true", help="keep the dumps, below RUN/dumps")
    options = parser.parse_args()
    logging.getLogger("drgn").setLevel(logging.CRITICAL)  # missing modules, flattened files
    names = options.formats.split(",") if options.formats else [f.name for f in FORMATS]
    unknown = set(names) - {f.name for f in FORMATS}
    if unknown:
        sys.exit(
            f"dumps.py: no format {', '.join(unknown)}; there are: {', '.join(f.name for f in FORMATS)}"
        )
    meta = json.loads((options.run / "meta.json").read_text())
    vmlinux = options.vmlinux or LAB / "debug" / meta["release"] / "vmlinux"
    rows = check(options.run, vmlinux, [f for f in FORMATS if f.name in names], options.keep)
    made = [row for row in rows if not row.not_made]
    wrong = [row.name for row in rows if row.differences]
    print(
        f"dumps.py: {len(made)} dumps, {len(rows) - len(made)} not made, {len(wrong)} differ"
        + (f": {', '.join(wrong)}" if wrong else "")
    )
    sys.exit(1 if wrong or not made else 0)


if __name__ == "__main__":
    main()
