# SPDX-License-Identifier: LGPL-2.1-or-later
"""scripts/triage: which files are vmcores, whose debug files are found, and that a broken file is a line and not an end."""

from __future__ import annotations

import importlib.util
import json
import lzma
import os
import shutil
import subprocess
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import ROOT, Answer, Vmcore, open_vmcore

TRIAGE = ROOT / "scripts" / "triage"
LEAK, BTF, INCOMPLETE = "7.2-nvdimm-leak", "7.3-btf-hmm-leak", "7.2-ram-only"
Results = dict[str, dict[str, Any]]


def load() -> ModuleType:
    loader = SourceFileLoader("triage", str(TRIAGE))
    spec = importlib.util.spec_from_loader("triage", loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    sys.modules["triage"] = module
    loader.exec_module(module)
    return module


def run(*words: object, **environment: str) -> Answer:
    result = subprocess.run(
        [sys.executable, str(TRIAGE), *(str(word) for word in words)],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return Answer(result.returncode, result.stdout, result.stderr)


def results_of(answer: Answer) -> tuple[Results, dict[str, Any]]:
    """The lines by the last two words of their paths, and the summary."""
    lines = [json.loads(line) for line in answer.out.splitlines()]
    assert [line["kind"] for line in lines] == ["vmcore"] * (len(lines) - 1) + ["summary"]
    return {"/".join(Path(line["file"]).parts[-2:]): line for line in lines[:-1]}, lines[-1]


def put(vmcore: Vmcore, directory: Path, name: str = "vmcore", debug: bool = True) -> None:
    """A core as kdump leaves it, and its debug files beside it."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).symlink_to(vmcore.core)
    for file in vmcore.debug_files if debug else ():
        (directory / Path(file).name).symlink_to(file)


@pytest.fixture(scope="module")
def crashes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As /var/crash may be: nested, with files that are none, and with damaged ones."""
    root = tmp_path_factory.mktemp("crashes")
    put(open_vmcore(LEAK), root / "host" / "leak")
    shutil.copy(open_vmcore(LEAK).core, root / "copy")
    (root / "copy").replace(root / "host" / "leak" / "vmcore")
    put(open_vmcore("7.2-nvdimm"), root / "clean", "core.elf")
    put(open_vmcore(BTF), root / "btf", "no-name-that-says-so")
    put(open_vmcore(INCOMPLETE), root / "part", "dump.202601010000")
    broken = root / "broken"
    broken.mkdir()
    whole = Path(open_vmcore(LEAK).core).read_bytes()
    (broken / "vmcore-cut").write_bytes(whole[: len(whole) // 3])
    (broken / "vmcore-short").write_bytes(whole[:64])
    (broken / "vmcore-incomplete").write_bytes(b"")
    (broken / "vmcore.xz").write_bytes(lzma.compress(b"x"))
    (broken / "vmcore").write_bytes(b"\0" * 4096)
    (broken / "vmcore-dmesg.txt").write_text("[    0.0] Linux")
    (broken / "README").write_text("none")
    (broken / "vmcore-gone").symlink_to(root / "nowhere")
    (broken / "core.again").symlink_to(root / "host" / "leak" / "vmcore")
    return root


VERDICTS = {
    "broken/vmcore": "error",
    "broken/vmcore-cut": "error",
    "broken/vmcore-gone": "error",
    "broken/vmcore-incomplete": "error",
    "broken/vmcore-short": "error",
    "broken/vmcore.xz": "error",
    "btf/no-name-that-says-so": "violations",
    "clean/core.elf": "clean",
    "leak/vmcore": "violations",
    "part/dump.202601010000": "incomplete",
}


def test_every_vmcore_is_a_line(crashes: Path) -> None:
    answer = run(crashes, "--json", "-j", 2)
    results, summary = results_of(answer)
    assert {name: one["verdict"] for name, one in results.items()} == VERDICTS
    assert answer.status == 1 and answer.err == ""
    leak = results["leak/vmcore"]
    assert (leak["release"], leak["scheme"], leak["errors"]) == ("7.2.12+deb13-amd64", "H", 6)
    assert leak["rules"] == ["refcount-below-mapcount", "reference-on-free-folio", "tail-refcount"]
    assert leak["seconds"] > 0
    assert results["btf/no-name-that-says-so"]["types_from"] == "btf"
    assert "97280 not-captured" in results["part/dump.202601010000"]["note"]
    for name, words in (
        ("vmcore", "not a core dump that drgn can open"),
        ("vmcore-gone", "No such file or directory"),
        ("vmcore-incomplete", "the file is empty"),
        ("vmcore-short", "is cut off: 64 of"),
        ("vmcore.xz", "compressed with xz"),
    ):
        note = results[f"broken/{name}"]["note"]
        assert words in note and str(crashes) not in note and "\n" not in note
    assert summary["vmcores"] == 10 and summary["exit_status"] == 1
    assert summary["verdicts"] == {"clean": 1, "violations": 2, "error": 6, "incomplete": 1}
    assert summary["rules"]["tail-refcount"] == 1


def test_lines_for_people(crashes: Path) -> None:
    answer = run(crashes / "host", crashes / "clean" / "core.elf", "-j", 1)
    assert answer.err == ""
    header, clean, leak, empty, *summary = answer.out.splitlines()
    assert header.split() == ["FILE", "RELEASE", "VERDICT", "ERRORS", "WARNINGS", "TIME"]
    path = str(crashes / "host" / "leak" / "vmcore")
    words = [path, "7.2.12+deb13-amd64", "violations", "6", "0"]
    assert leak.split()[:5] == words and clean.split()[2:5] == ["clean", "0", "0"]
    assert leak.endswith("refcount-below-mapcount 2, reference-on-free-folio 2, tail-refcount 2")
    assert header.index("ERRORS") + 5 == leak.index(" 6 ") + 1
    assert empty == "" and summary[0].startswith("2 vmcores in ")
    assert summary[0].endswith(": 1 clean, 1 violations, 0 error, 0 incomplete")
    assert "       1  tail-refcount" in summary


@pytest.mark.parametrize(
    ("names", "status"),
    [
        (["clean"], 0),
        (["clean", "part"], 3),
        (["part", "broken/vmcore.xz"], 2),
        (["part", "host"], 1),
    ],
)
def test_the_exit_status_is_that_of_the_worst(crashes: Path, names: list[str], status: int) -> None:
    assert run(*(crashes / name for name in names)).status == status


def test_a_directory_that_cannot_be_read_is_told(
    crashes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    triage = load()
    walk = os.walk

    def closed(root: Path, onerror: Any) -> Any:
        onerror(PermissionError(13, "Permission denied", f"{root}/closed"))
        return walk(root)

    monkeypatch.setattr("os.walk", closed)
    monkeypatch.setattr("sys.argv", ["triage", str(crashes / "clean")])
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert triage.main() == 2
    out, err = capsys.readouterr()
    assert "1 clean" in out and err == f"triage: {crashes}/clean/closed: Permission denied\n"


def test_known_findings(crashes: Path, tmp_path: Path) -> None:
    path = tmp_path / "accepted"
    path.write_text("tail-refcount *\nR01 *\n")
    words = [crashes / "host", "--json", "--baseline", path]
    (one,) = results_of(run(*words))[0].values()
    assert one["accepted"]["errors"] == 4 and one["note"] == "refcount-below-mapcount 2"
    path.write_text("tail-refcount *\nR01 *\nrefcount-below-mapcount *\n")
    assert run(*words).status == 0
    assert run(crashes / "clean", "--fail-on", "info", "--quick").status == 1


def test_nothing_to_do(tmp_path: Path) -> None:
    (tmp_path / "vmcore-dmesg.txt").write_text("")
    answer = run(tmp_path)
    assert answer == Answer(2, "", "triage: error: no vmcore is there\n")
    answer = run(tmp_path / "none")
    assert answer.status == 2 and "no such file or directory" in answer.err
    for words in ((), (tmp_path, "-j", 0), (tmp_path, "--timeout", 0)):
        assert run(*words).status == 2


# ---------------------------------------------------------------- debug files


def test_debug_files_are_found_by_build_id(tmp_path: Path) -> None:
    """Below --symbols, whatever they are called; of another kernel, none is taken."""
    leak, other = open_vmcore(LEAK), open_vmcore("6.1-nvdimm-leak")
    put(leak, tmp_path / "crash", debug=False)
    symbols = tmp_path / "debug"
    put(other, symbols / "7.2.12+deb13-amd64")
    without = run(tmp_path / "crash", "--json", "--symbols", symbols)
    (one,) = results_of(without)[0].values()
    assert (one["symbols"], one["verdict"]) == ([], "error") and without.status == 2
    (symbols / "deep" / "down").mkdir(parents=True)
    (symbols / "deep" / "down" / "vmlinux.debug").symlink_to(leak.vmlinux)
    (one,) = results_of(run(tmp_path / "crash", "--json", "--symbols", symbols))[0].values()
    assert one["symbols"] == [str(symbols / "deep" / "down" / "vmlinux.debug")]
    assert (one["verdict"], one["types_from"]) == ("violations", "dwarf")


def test_modules_beside_the_vmlinux_are_taken(tmp_path: Path) -> None:
    hmm = open_vmcore("7.2-hmm-explain")
    assert hmm.modules
    put(hmm, tmp_path)
    (one,) = results_of(run(tmp_path, "--json"))[0].values()
    assert sorted(Path(path).name for path in one["symbols"]) == ["test_hmm.ko.debug", "vmlinux"]


def test_types_of_the_kernel_itself(tmp_path: Path) -> None:
    """--btf, although debug files are there: this core holds none of its kernel's own types."""
    put(open_vmcore(LEAK), tmp_path)
    (one,) = results_of(run(tmp_path, "--json", "--btf"))[0].values()
    assert one["symbols"] == [] and "--btf" in one["note"]


def test_which_of_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    triage = load()
    ids = {"one": "aa", "two": "aa", "three": "bb", "4.19.0": "", "boot": ""}
    monkeypatch.setattr(triage, "build_id_of", lambda path: ids[path.parent.name])
    for i, name in enumerate(ids):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vmlinux").write_text("x" * (10 + i))
    old = tmp_path / "boot" / "vmlinux-4.14.0"
    (tmp_path / "boot" / "vmlinux").rename(old)
    symbols = triage.symbols_below([tmp_path])

    def chosen(core: str, build_id: str, release: str = "") -> Any:
        path = triage.vmlinux_of(symbols, Path(core), {"build_id": build_id, "release": release})
        return path and str(path.relative_to(tmp_path))

    assert chosen("/x/vmcore", "bb") == "three/vmlinux"
    # The largest has most in it; but one that is put as the core is was meant.
    assert chosen("/x/vmcore", "aa") == "two/vmlinux"
    assert chosen("/x/one/vmcore", "aa") == "one/vmlinux"
    assert chosen("/x/vmcore", "cc", "three") is None
    assert chosen("/x/vmcore", "", "4.19.0") == "4.19.0/vmlinux"
    assert chosen("/x/vmcore", "", "4.14.0") == "boot/vmlinux-4.14.0"
    assert chosen("/x/vmcore", "", "") is None


# ---------------------------------------------------------------- what goes wrong


def test_what_kills_zonedev_is_a_line(crashes: Path, tmp_path: Path) -> None:
    """Beside a drgn of ours that dies, or never comes back."""
    (tmp_path / "drgn.py").write_text("import os\nos.kill(os.getpid(), 11)\n")
    words = crashes / "clean", "--json"
    (one,) = results_of(run(*words, PYTHONPATH=f"{tmp_path}:{ROOT}"))[0].values()
    assert (one["verdict"], one["note"]) == ("error", "zonedev was killed by SIGSEGV")
    (tmp_path / "drgn.py").write_text("import time\ntime.sleep(60)\n")
    answer = run(*words, "--timeout", "0.5", PYTHONPATH=f"{tmp_path}:{ROOT}")
    (one,) = results_of(answer)[0].values()
    assert one["verdict"] == "error" and "--timeout" in one["note"] and one["seconds"] < 30


def test_it_is_executable() -> None:
    assert os.access(TRIAGE, os.X_OK)


def test_a_python_without_zonedev_is_told(crashes: Path) -> None:
    """-I: no PYTHONPATH, no user's packages; -S: none of the environment's."""
    words = [sys.executable, "-I", "-S", str(TRIAGE), str(crashes)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert f"{sys.executable} has no zonedev" in done.stderr
