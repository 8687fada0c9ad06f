# SPDX-License-Identifier: LGPL-2.1-or-later
"""The shell scripts for others' test suites and for a nightly audit, run on bundled cores in place of a live kernel."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Answer, open_vmcore
from test_prometheus import parsed, promtool, values

HOOKS = ROOT / "scripts" / "hooks"
SYSTEMD = ROOT / "scripts" / "systemd"
CHECK, WRAP, LOOP = HOOKS / "zonedev-check", HOOKS / "zonedev-wrap", HOOKS / "xfstests-loop"
TEXTFILE = SYSTEMD / "zonedev-textfile"
CLEAN, LEAK, INCOMPLETE = "7.2-nvdimm", "7.2-nvdimm-leak", "7.2-ram-only"


class Machine:
    """A machine whose device memory is that of a core: environment of the scripts, and how they are run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "ZONEDEV": f"{sys.executable} -m zonedev",
            "ZONEDEV_RESULTS": str(directory / "results"),
            "ZONEDEV_TEXTFILES": str(directory),
            "ZONEDEV_REPORT": str(directory / "report.json"),
        }
        self.shows(CLEAN)

    def shows(self, name: str) -> None:
        """What it is now that an audit finds."""
        vmcore = open_vmcore(name)
        self.environment["ZONEDEV_TARGET"] = " ".join(["-c", vmcore.core, *vmcore.types])

    def run(self, *words: object, **more: str) -> Answer:
        environment = {**self.environment, **more}
        result = subprocess.run(
            [str(word) for word in words],
            env=environment,
            cwd=self.directory,
            capture_output=True,
            text=True,
            check=False,
        )
        return Answer(result.returncode, result.stdout, result.stderr)

    def report(self, name: str) -> dict[str, Any]:
        report: dict[str, Any] = json.loads((self.directory / "results" / name).read_text())
        return report


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


# ---------------------------------------------------------------- after a test


def test_each_finding_is_the_fault_of_one_test(machine: Machine) -> None:
    assert machine.run(CHECK, "--start") == Answer(0, "", "")
    assert machine.run(CHECK, "generic/001") == Answer(0, "", "")
    machine.shows(LEAK)
    text = machine.directory / "results" / "generic-002.txt"
    told = f"zonedev-check: generic-002: new findings, see {text}\n"
    assert machine.run(CHECK, "generic/002") == Answer(1, told, "")
    assert "violations: 6 pages with errors" in text.read_text()
    assert machine.run(CHECK, "generic/003") == Answer(0, "", "")
    assert machine.report("generic-003.json")["summary"]["accepted"]["errors"] == 6
    # What went and came back is new again.
    machine.shows(CLEAN)
    assert machine.run(CHECK, "generic/004").status == 0
    machine.shows(LEAK)
    assert machine.run(CHECK, "generic/005").status == 1


def test_what_is_wrong_from_the_start_is_known(machine: Machine) -> None:
    machine.shows(LEAK)
    answer = machine.run(CHECK, "--start")
    assert answer.status == 0 and "known from the start" in answer.out
    assert machine.run(CHECK, "align.sh") == Answer(0, "", "")
    # Without it, the first test is blamed; with another one, nobody is.
    (machine.directory / "results" / "+last.json").unlink()
    assert machine.run(CHECK, "align.sh").status == 1
    assert machine.run(CHECK, "--start").status == 0
    assert machine.run(CHECK, "align.sh").status == 0


def test_a_baseline_of_ones_own_is_never_changed(machine: Machine) -> None:
    accepted = machine.directory / "accepted"
    lines = "R01 *\ntail-refcount *\n"
    accepted.write_text(lines)
    machine.environment["ZONEDEV_BASELINE"] = str(accepted)
    machine.shows(LEAK)
    assert machine.run(CHECK, "dm.sh").status == 1
    assert machine.report("dm.sh.json")["summary"]["accepted"]["errors"] == 4
    assert accepted.read_text() == lines
    accepted.write_text(lines + "refcount-below-mapcount *\n")
    (machine.directory / "results" / "+last.json").unlink()
    assert machine.run(CHECK, "dm.sh").status == 0


def test_an_audit_that_fails_is_told_apart(machine: Machine) -> None:
    assert machine.run(CHECK, "--start").status == 0
    before = machine.report("+last.json")
    answer = machine.run(CHECK, "mmap.sh", ZONEDEV_TARGET="-c /nonexistent")
    told = "zonedev-check: mmap.sh: the audit failed (exit status 2): zonedev: error: "
    assert answer.status == 2 and answer.out == "" and answer.err.startswith(told)
    assert answer.err.count("\n") == 1 and "/nonexistent" in answer.err
    killed = machine.run(CHECK, "mmap.sh", ZONEDEV="sh -c 'kill -9 $$'")
    assert killed.status == 2 and "the audit failed" in killed.err
    assert machine.run(CHECK, "mmap.sh", ZONEDEV="/nonexistent").status == 2
    assert machine.report("+last.json") == before
    for words_ in ((), ("one", "two"), ("",), ("--help",)):
        answer = machine.run(CHECK, *words_)
        assert answer.status == 2 and "ZONEDEV_TARGET" in answer.err and answer.out == ""
    in_the_way = machine.directory / "file"
    in_the_way.write_text("")
    assert machine.run(CHECK, "mmap.sh", ZONEDEV_RESULTS=str(in_the_way / "x")).status == 2


def test_an_incomplete_audit_is_told_apart(machine: Machine) -> None:
    assert machine.run(CHECK, "--start").status == 0
    before = machine.report("+last.json")
    machine.shows(INCOMPLETE)
    answer = machine.run(CHECK, "dax-ext4.sh")
    assert answer.status == 3 and "incomplete" in answer.out
    assert machine.report("+last.json") == before
    answer = machine.run(CHECK, "dax-ext4.sh", ZONEDEV_ALLOW_INCOMPLETE="1")
    assert answer.status == 0 and "incomplete" in answer.out
    assert machine.run(CHECK, "--start").status == 0
    assert machine.report("+last.json")["summary"]["verdict"] == "incomplete"


def test_names_of_tests_stay_in_the_directory(machine: Machine) -> None:
    assert machine.run(CHECK, "../a b/$(x);*").status == 0
    names = sorted(path.name for path in (machine.directory / "results").iterdir())
    assert names == ["+last.json", "..-a-b---x---.json", "..-a-b---x---.txt"]
    assert sorted(path.name for path in machine.directory.iterdir()) == ["results"]


@pytest.mark.parametrize("name", ["start", "last", "+start", "+last", "--start "])
def test_names_of_tests_are_not_those_of_the_check(machine: Machine, name: str) -> None:
    assert machine.run(CHECK, "--start").status == 0
    machine.shows(LEAK)
    assert machine.run(CHECK, name).status == 1
    assert machine.run(CHECK, name).status == 0


def test_a_machine_without_device_memory_is_no_clean_one(machine: Machine) -> None:
    machine.shows("7.2-bare")
    for words in ("--start", "align.sh"):
        answer = machine.run(CHECK, words)
        assert answer.status == 0 and "there is no device memory" in answer.out
    assert "there is no device memory" in machine.run(WRAP, "true").out


# ---------------------------------------------------------------- around a test


def test_the_wrapper_keeps_what_the_test_says(machine: Machine) -> None:
    def wrapped(status: int) -> Answer:
        script = machine.directory / "sub.sh"
        script.write_text(f'#!/bin/sh\necho "ran $1"\nexit {status}\n')
        script.chmod(0o755)
        return machine.run(WRAP, script, "word")

    assert machine.run(CHECK, "--start").status == 0
    for status in (0, 1, 77, 99):
        assert wrapped(status) == Answer(status, "ran word\n", "")
    machine.shows(LEAK)
    last = machine.directory / "results" / "+last.json"
    clean = last.read_text()
    for status, expected in ((0, 1), (77, 1), (1, 1), (99, 99), (5, 5)):
        last.write_text(clean)
        answer = wrapped(status)
        assert answer.status == expected
        # The suite's log has the report.
        assert "ran word\nzonedev-check: sub.sh: new findings" in answer.out
        assert "violations: 6 pages with errors" in answer.out
    last.write_text(clean)
    answer = machine.run(WRAP, "true", ZONEDEV_TEST="generic/001")
    assert answer.status == 1 and "violations: 6 pages with errors" in answer.out
    machine.shows(INCOMPLETE)
    assert wrapped(0).status == 3
    machine.environment["ZONEDEV_TARGET"] = "-c /nonexistent"
    assert wrapped(0).status == 2
    assert machine.run(WRAP).status == 2


def test_the_loop_around_xfstests(machine: Machine) -> None:
    """Beside a check of ours that lists and runs tests as that of xfstests does."""
    check = machine.directory / "check"
    core = open_vmcore(LEAK)
    check.write_text(
        "#!/bin/sh\n"
        'echo "check $*" >>log\n'
        'case $* in *-n*) printf "FSTYP -- xfs\\n\\ngeneric/001 \\ngeneric/002 3s ...\\nxfs/548 [expunged]\\nxfs/549 \\n"; exit;; esac\n'
        f'case $* in *002) ln -sf {core.core} now;; *549) exit "${{LAST:-0}}";; esac\n'
    )
    check.chmod(0o755)
    clean = open_vmcore(CLEAN)
    (machine.directory / "now").symlink_to(clean.core)
    machine.environment["ZONEDEV_TARGET"] = f"-c now {' '.join(clean.types)}"
    answer = machine.run(LOOP, "-g", "dax", XFSTESTS_FLAGS="-d")
    log = (machine.directory / "log").read_text()
    assert (
        log == "check -d -n -g dax\ncheck -d generic/001\ncheck -d generic/002\ncheck -d xfs/549\n"
    )
    assert answer.status == 1 and answer.out.count("new findings") == 1, answer
    assert "generic-002: new findings" in answer.out
    (machine.directory / "now").unlink()
    (machine.directory / "now").symlink_to(clean.core)
    check.write_text(check.read_text().replace("*002)", "*x)"))
    assert machine.run(LOOP, "-g", "dax").status == 0
    assert machine.run(LOOP, "-g", "dax", LAST="1").status == 1
    # A test that fails is worse than audits that are incomplete.
    (machine.directory / "now").unlink()
    (machine.directory / "now").symlink_to(open_vmcore(INCOMPLETE).core)
    assert machine.run(LOOP, "-g", "dax").status == 3
    assert machine.run(LOOP, "-g", "dax", LAST="1").status == 1
    check.write_text("#!/bin/sh\n")
    assert machine.run(LOOP, "-g", "none").status == 2
    check.unlink()
    assert "no ./check here" in machine.run(LOOP, "-g", "dax").err


# ---------------------------------------------------------------- every night


def test_the_textfile_is_that_of_the_audit(machine: Machine) -> None:
    for name, status in ((CLEAN, 0), (LEAK, 1), (INCOMPLETE, 3)):
        machine.shows(name)
        # Whatever root's umask is, the collector may read it.
        answer = machine.run("sh", "-c", f"umask 077; exec {TEXTFILE}")
        assert answer == Answer(status, "", "")
        path = machine.directory / "zonedev.prom"
        assert values(parsed(path.read_text()), "audit_exit_status") == [status]
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        report = json.loads((machine.directory / "report.json").read_text())
        assert report["kernel"]["release"].startswith("7.2")
    assert sorted(one.name for one in machine.directory.iterdir()) == [
        "report.json",
        "zonedev.prom",
    ]
    machine.shows(LEAK)
    accepted = machine.directory / "accepted"
    accepted.write_text("R01 *\ntail-refcount *\nrefcount-below-mapcount *\n")
    assert machine.run(TEXTFILE, ZONEDEV_BASELINE=str(accepted)).status == 0
    assert machine.run(TEXTFILE, ZONEDEV_FLAGS="--quick --severity error").status == 1
    assert "held-without-map" not in path.read_text()


def test_an_audit_that_fails_leaves_no_numbers_of_an_earlier_one(machine: Machine) -> None:
    assert machine.run(TEXTFILE).status == 0
    answer = machine.run(TEXTFILE, ZONEDEV_TARGET="-c /nonexistent")
    assert answer.status == 2 and "no such file" in answer.err.lower()
    text = (machine.directory / "zonedev.prom").read_text()
    series = parsed(text)
    promtool(text)
    assert values(series, "audit_exit_status") == [2] and len(series) == 2
    assert machine.run(TEXTFILE, ZONEDEV="sh -c 'kill -9 $$'").status == 2
    assert machine.run(TEXTFILE, ZONEDEV_TEXTFILES="/nonexistent").status == 2
    assert machine.run(TEXTFILE, "word").status == 2


def test_a_collector_never_sees_a_part(machine: Machine) -> None:
    """While an audit runs the file is the one of before; what it writes has another ending."""
    old = machine.directory / "zonedev.prom"
    old.write_text("old\n")
    spy = machine.directory / "spy"
    spy.write_text(
        "#!/bin/sh\necho new\nsleep 0.2\ncat zonedev.prom >seen; ls *.prom >>seen\nexit 1\n"
    )
    spy.chmod(0o755)
    assert machine.run(TEXTFILE, ZONEDEV=str(spy)).status == 1
    assert (machine.directory / "seen").read_text() == "old\nzonedev.prom\n"
    assert old.read_text() == "new\n"
    # Nor is one left where it is stopped.
    spy.write_text("#!/bin/sh\nkill $PPID\necho half\nexit 0\n")
    assert machine.run(TEXTFILE, ZONEDEV=str(spy)).status == 2
    assert old.read_text() == "new\n"
    names = sorted(path.name for path in machine.directory.iterdir())
    assert names == ["seen", "spy", "zonedev.prom"]


def test_units_are_as_systemd_wants_them(machine: Machine) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip(
            "systemd-analyze, which judges the units, is not installed: it is part of systemd, and a machine that "
            "is run by something else has no use for the units (elsewhere: apt-get install systemd)"
        )
    for unit in SYSTEMD.glob("zonedev-audit.*"):
        text = unit.read_text()
        # Where an administrator puts it.
        assert unit.suffix == ".timer" or "ExecStart=/usr/local/bin/zonedev-textfile\n" in text
        (machine.directory / unit.name).write_text(text.replace("/usr/local/bin", str(SYSTEMD)))
    units = sorted(str(path) for path in machine.directory.glob("zonedev-audit.*"))
    assert len(units) == 2
    answer = machine.run("systemd-analyze", "verify", "--man=no", *units)
    # Other units of the machine that are wrong are none of ours.
    assert "zonedev" not in answer.err and answer.status == 0, answer
    broken = Path(units[0])
    broken.write_text(broken.read_text().replace("Type=oneshot", "Typ=oneshot"))
    assert "zonedev" in machine.run("systemd-analyze", "verify", "--man=no", *units).err


def test_the_service_can_read_what_it_must() -> None:
    """Settings that hide /proc/kcore or debug files, or forbid to write the report."""
    text = (SYSTEMD / "zonedev-audit.service").read_text()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for word in ("ProtectKernelTunables", "PrivateDevices", "ProtectKernelModules", "DynamicUser"):
        assert not any(line.startswith(word) for line in lines)
    assert "StateDirectory=zonedev" in lines
    assert "ReadWritePaths=-/var/lib/prometheus/node-exporter" in lines


@pytest.mark.parametrize("script", [CHECK, WRAP, LOOP, TEXTFILE], ids=lambda path: path.name)
def test_shell(script: Path) -> None:
    assert os.access(script, os.X_OK) and script.read_text().startswith("#!/bin/sh\n# SPDX-")
    if not shutil.which("shellcheck"):
        pytest.skip(
            "shellcheck is not installed, and could not be (make test installs it where it may); the other tests run "
            "the scripts all the same"
        )
    result = subprocess.run(["shellcheck", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout
