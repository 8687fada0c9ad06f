# SPDX-License-Identifier: LGPL-2.1-or-later
"""Builds the one extension from ext/; everything else stands in pyproject.toml.

Libraries are found with pkg-config and are optional: without libelf (elfutils) and libkdumpfile zonedev says
less about files that it cannot open; without libdeflate or zlib (the first is faster), or without libzstd, it reads
dumps of that compression the slow way.
"""

import glob
import os
import shlex
import subprocess

from setuptools import Extension, setup

OPTIONAL = {
    "libelf": "HAVE_LIBELF",
    "libkdumpfile": "HAVE_LIBKDUMPFILE",
    "libdeflate": "HAVE_LIBDEFLATE",
    "zlib": "HAVE_ZLIB",
    "libzstd": "HAVE_LIBZSTD",
}


def pkg_config(package: str, *options: str) -> "list[str] | None":
    """The words that pkg-config prints, or None where the package is not installed."""
    command = [os.environ.get("PKG_CONFIG", "pkg-config"), *options, package]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    return shlex.split(result.stdout) if result.returncode == 0 else None


def extension() -> Extension:
    """The extension with whatever optional library this machine has."""
    compile_args = [
        "-std=gnu11",
        "-O3",
        "-pthread",
        "-fvisibility=hidden",
        "-Wall",
        "-Wextra",
        "-Wno-missing-field-initializers",
    ]
    compile_args += shlex.split(os.environ.get("ZONEDEV_CFLAGS", ""))
    link_args = shlex.split(os.environ.get("ZONEDEV_LDFLAGS", ""))
    macros = []
    without = os.environ.get("ZONEDEV_WITHOUT", "").split(",")
    for package, macro in OPTIONAL.items():
        cflags = pkg_config(package, "--cflags")
        libs = pkg_config(package, "--libs")
        if cflags is None or libs is None or package in without:
            print(f"zonedev: building without {package}")
            continue
        compile_args += cflags
        link_args += libs
        macros.append((macro, "1"))
    return Extension(
        "zonedev._zonedev",
        sources=sorted(
            glob.glob("ext/core/*.c") + glob.glob("ext/readers/*.c") + glob.glob("ext/python/*.c")
        ),
        depends=sorted(glob.glob("ext/*/*.h")),
        define_macros=macros,
        extra_compile_args=compile_args,
        extra_link_args=link_args,
    )


setup(ext_modules=[extension()])
