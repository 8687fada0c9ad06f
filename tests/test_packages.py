# SPDX-License-Identifier: LGPL-2.1-or-later
"""What is handed out: an sdist from which everything can be built, a wheel out of it, and one version in all places."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT, open_vmcore

from zonedev._version import VERSION

# What a checkout has for those who host it.
_NOT_HANDED_OUT = (".ci/", ".gitignore", ".editorconfig")


def run(*words: object, cwd: Path, **environment: str) -> str:
    result = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what git has, as building writes into the tree."""
    try:
        names = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a checkout: which files are the project's is told by git")
    copy = tmp_path_factory.mktemp("checkout")
    for name in filter(None, names.split("\0")):
        if (ROOT / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "setup.py", "-q", "sdist", "--formats=tar", "-d", where, cwd=checkout)
    (made,) = where.iterdir()
    assert made.name == f"zonedev-{VERSION}.tar"
    with tarfile.open(made) as tar:
        tar.extractall(where)
    return where / f"zonedev-{VERSION}"


def test_an_sdist_has_all_there_is(checkout: Path, sdist: Path) -> None:
    def files(root: Path) -> set[str]:
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}

    made = {"PKG-INFO", "setup.cfg"}
    mine = {name for name in files(checkout) if not name.startswith(_NOT_HANDED_OUT)}
    own = {name for name in files(sdist) if ".egg-info" not in name}
    assert own - made == {name for name in mine if ".egg-info" not in name}
    for name in ("ext/readers/format.h", "scripts/hooks/zonedev-check", "debian/rules"):
        assert os.access(sdist / name, os.X_OK) == os.access(checkout / name, os.X_OK)


def test_a_wheel_out_of_the_sdist(sdist: Path, tmp_path: Path) -> None:
    """Built outside of the tree; what it has is all that runs."""
    pip = "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--disable-pip-version-check"
    run(sys.executable, *pip, "-q", "-w", tmp_path, sdist, cwd=tmp_path, ZONEDEV_CFLAGS="-O0")
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.startswith(f"zonedev-{VERSION}-cp")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
        names = set(archive.namelist())
    package = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "zonedev").rglob("*")
        if path.is_file() and path.suffix not in (".so", ".pyc")
    }
    assert package <= names and len(package) > 50
    assert any(name.endswith(".so") for name in names) and "zonedev/py.typed" in names
    about = f"zonedev-{VERSION}.dist-info"
    entry_points = (tmp_path / "site" / about / "entry_points.txt").read_text()
    assert "zonedev = zonedev.__main__:main" in entry_points
    assert "[drgn.plugins]\nzonedev = zonedev.plugin" in entry_points
    assert any(name.startswith(about) and name.endswith("LICENSE") for name in names)
    site = {"PYTHONPATH": str(tmp_path / "site")}
    words = sys.executable, "-m", "zonedev"
    assert run(*words, "--version", cwd=tmp_path, **site).startswith(f"zonedev {VERSION}\n")
    clean = open_vmcore("7.2-nvdimm")
    report = run(*words, "audit", clean.core, *clean.types, cwd=tmp_path, **site)
    assert "clean: every page was read" in report


def test_the_version_is_the_same_everywhere(checkout: Path) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)
    words = run(sys.executable, "setup.py", "-q", "--version", cwd=checkout).splitlines()
    assert words[-1] == VERSION
    first = (ROOT / "debian" / "changelog").read_text().splitlines()[0]
    assert first.startswith(f"zonedev ({VERSION}) ")
    # Under it, or not yet under any.
    sections = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections[0] == "Unreleased" and sections[1] == VERSION
    pages = [ROOT / "docs" / "conf.py", ROOT / "docs" / "man" / "zonedev.md"]
    for page in (page for page in pages if page.exists()):
        numbers = re.findall(
            r"zonedev,? (\d+\.\d+\.\d+)|release = .*\"(\d+\.\d+\.\d+)\"", page.read_text()
        )
        assert {number for pair in numbers for number in pair if number} <= {VERSION}


def test_no_other_file_states_the_version() -> None:
    """But what its own format wants it in; "v0.1.0" is another program's."""
    stated = re.compile(rf"(?<![\d.v]){re.escape(VERSION)}(?![\d.])")
    files = [
        *ROOT.glob("*.toml"),
        *ROOT.glob("*.py"),
        ROOT / "Makefile",
        ROOT / "debian" / "control",
    ]
    files += [*ROOT.glob("zonedev/**/*.py*"), *ROOT.glob("ext/*/*.[ch]")]
    found = [
        p.relative_to(ROOT)
        for p in files
        if p.is_file() and stated.search(p.read_text("utf-8", "replace"))
    ]
    assert [str(path) for path in found if path.suffix != ".pyc"] == ["zonedev/_version.py"]
