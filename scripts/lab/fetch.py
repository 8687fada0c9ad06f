#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Download the kernels of kernels.tsv from the Debian mirror and unpack what the lab needs.

usage: fetch.py [--debug] [--modules] [--record] [RELEASE...]         (default: all rows)

Owns $LAB/debs, $LAB/kernels/RELEASE (bootable kernel), with --debug $LAB/debug/RELEASE (vmlinux and
modules with debug information, 0.8-1.2 GB to download), with --modules the headers in $BUILD_ROOT
and $LAB/source/RELEASE (for build-kmod.sh). Files already there are not fetched again.
Every package is checked against a SHA-256: that of packages.sha256, where --record has put it, or
that of the suite's index. The indexes know only current versions, the mirror's pool keeps packages
longer: what is recorded is fetched from there. Set MIRROR to a snapshot of the archive for what has
gone from both.
"""

from __future__ import annotations

import argparse
import csv
import functools
import hashlib
import lzma
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

LAB = Path(os.environ.get("LAB", "lab-out")).resolve()
BUILD_ROOT = Path(os.environ.get("BUILD_ROOT", LAB / "build-root"))
MIRROR = os.environ.get("MIRROR", "http://deb.debian.org/debian")
TABLE = Path(__file__).with_name("kernels.tsv")
RECORDED = Path(__file__).with_name("packages.sha256")
DEBUG_MODULES = (
    *("nd_pmem", "libnvdimm", "device_dax", "dax_pmem"),
    *("vfio", "vfio_iommu_type1", "ib_uverbs", "rdma_rxe"),
)

Row = dict[str, str]


def rows() -> dict[str, Row]:
    lines = [line for line in TABLE.read_text().splitlines() if not line.startswith("#")]
    return {row["release"]: row for row in csv.DictReader(lines, delimiter="\t")}


def image_packages(row: Row) -> list[str]:
    release = row["release"]
    if row["flavour"] == "split":
        return [f"linux-{part}-{release}" for part in ("image", "base", "binary", "modules")]
    return [f"linux-image-{release}"]


def header_packages(row: Row) -> list[str]:
    return [
        f"linux-headers-{row['release']}",
        f"linux-headers-{row['common']}-common",
        f"linux-kbuild-{row['kbuild']}",
    ]


@functools.cache
def index(suite: str) -> dict[tuple[str, str], tuple[str, str]]:
    """(package, version) -> (file name on the mirror, SHA-256)."""
    name = f"{MIRROR}/dists/{suite}/main/binary-amd64/Packages.xz"
    try:
        with urllib.request.urlopen(name) as answer:
            text = lzma.decompress(answer.read()).decode()
    except (OSError, lzma.LZMAError) as err:
        sys.exit(f"fetch.py: {name}: {err}; change kernels.tsv or MIRROR")
    found = {}
    for stanza in text.split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Filename|SHA256): (.*)$", stanza, re.M))
        if len(fields) == 4:
            found[fields["Package"], fields["Version"]] = fields["Filename"], fields["SHA256"]
    return found


@functools.cache
def recorded() -> dict[tuple[str, str], tuple[str, str]]:
    """As index(), of packages.sha256: lines of sha256sum with names in the mirror's pool."""
    lines = [line for line in RECORDED.read_text().splitlines() if not line.startswith("#")]
    found = {}
    for digest, name in (line.split() for line in lines):
        package, version, _ = name.rsplit("/", 1)[1].split("_")
        found[package, version] = name, digest
    return found


def record(row: Row, package: str) -> None:
    """Add a package of the index to packages.sha256."""
    key = package, row["version"]
    if key in recorded():
        return
    name, digest = where(row, package)
    with RECORDED.open("a") as file:
        file.write(f"{digest}  {name}\n")


def where(row: Row, package: str) -> tuple[str, str]:
    """File name on the mirror and SHA-256 of a package."""
    key = package, row["version"]
    try:
        return recorded().get(key) or index(row["suite"])[key]
    except KeyError:
        sys.exit(
            f"fetch.py: {package} {row['version']} is neither in {RECORDED.name} nor in {row['suite']} of {MIRROR}: "
            "change kernels.tsv or MIRROR"
        )


def download(row: Row, package: str) -> Path:
    local = list((LAB / "debs").glob(f"{package}_{row['version']}_*.deb"))
    if local:
        return local[0]
    name, digest = where(row, package)
    path = LAB / "debs" / name.rsplit("/", 1)[1]
    part = path.with_suffix(".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    print(f"fetch.py: {path.name}", flush=True)
    try:
        with urllib.request.urlopen(f"{MIRROR}/{name}") as answer, part.open("wb") as file:
            shutil.copyfileobj(answer, file)
    except OSError as err:
        sys.exit(f"fetch.py: {MIRROR}/{name}: {err}; change kernels.tsv or MIRROR")
    with part.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != digest:
            sys.exit(f"fetch.py: {part} is damaged")
    return part.rename(path)


def unpack(package: Path, to: Path, *patterns: str) -> None:
    """All of a package, or what fits the patterns."""
    to.mkdir(parents=True, exist_ok=True)
    # Not dpkg-deb -x: it makes a directory of a link like /lib, which the build root needs as it is.
    options = ["--wildcards", *patterns] if patterns else ["--keep-directory-symlink"]
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as tar:
        subprocess.run(["tar", "x", "-C", to, *options], stdin=tar.stdout, check=True)


def all_packages(row: Row) -> list[str]:
    packages = [*image_packages(row), f"linux-image-{row['release']}-dbg", *header_packages(row)]
    return packages if row["hmm"] == "-" else [*packages, row["hmm"]]


def fetch_image(row: Row) -> None:
    target = LAB / "kernels" / row["release"]
    if not target.exists():
        scratch = target.with_name(f"{target.name}.part")
        shutil.rmtree(scratch, ignore_errors=True)
        for path in [download(row, package) for package in image_packages(row)]:
            unpack(path, scratch)
        scratch.rename(target)


def fetch_debug(row: Row) -> None:
    release = row["release"]
    target, scratch = LAB / "debug" / release, LAB / "debug" / f"{release}.part"
    if all((target / name).exists() for name in ("vmlinux", f"{DEBUG_MODULES[-1]}.ko")):
        return
    patterns = [
        f"*/modules/{release}/vmlinux",
        "*/vmlinux-*",
        *(f"*/{name}.ko*" for name in DEBUG_MODULES),
    ]
    unpack(download(row, f"linux-image-{release}-dbg"), scratch, *patterns)
    target.mkdir(parents=True, exist_ok=True)
    for path in scratch.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.rename(target / ("vmlinux" if path.name.startswith("vmlinux") else path.name))
    shutil.rmtree(scratch)


def fetch_modules(row: Row) -> None:
    if not (BUILD_ROOT / "usr/src" / f"linux-headers-{row['release']}").exists():
        for path in [download(row, package) for package in header_packages(row)]:
            unpack(path, BUILD_ROOT)
    if row["hmm"] == "-" or (LAB / "source" / row["release"]).exists():
        return
    scratch = LAB / "source" / f"{row['release']}.part"
    unpack(download(row, row["hmm"]), scratch, f"*/{row['hmm']}.tar.xz")
    target = LAB / "source" / row["release"]
    target.mkdir(parents=True, exist_ok=True)
    (archive,) = scratch.rglob("*.tar.xz")
    what = ["--wildcards", "*/lib/test_hmm.c", "*/lib/test_hmm_uapi.h"]
    subprocess.run(["tar", "xf", archive, "-C", target, "--strip-components=1", *what], check=True)
    shutil.rmtree(scratch)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--debug", action="store_true", help="debug information too")
    parser.add_argument("--modules", action="store_true", help="what build-kmod.sh needs too")
    parser.add_argument("--record", action="store_true", help="only add lines to packages.sha256")
    parser.add_argument("release", nargs="*")
    options = parser.parse_args()
    table = rows()
    for release in options.release or table:
        if release not in table:
            sys.exit(f"fetch.py: no kernel {release} in {TABLE.name}")
        row = table[release]
        if options.record:
            for package in all_packages(row):
                record(row, package)
            continue
        fetch_image(row)
        if options.debug:
            fetch_debug(row)
        if options.modules:
            fetch_modules(row)


if __name__ == "__main__":
    main()
