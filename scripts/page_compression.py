# SPDX-License-Identifier: LGPL-2.1-or-later
"""Pages compressed as makedumpfile does it, by the libraries themselves: for cores that are made up.

Owns which methods there are; what a descriptor of a page looks like is the caller's.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import zlib
from collections.abc import Callable

# No page is larger compressed, by any of them.
_ROOM = 1 << 13

Compressor = Callable[[bytes], bytes]


class LibraryMissing(Exception):
    """A library that compresses is not installed; its argument says which."""


def _library(name: str) -> ctypes.CDLL:
    path = ctypes.util.find_library(name)
    if not path:
        raise LibraryMissing(f"lib{name} is not installed")
    return ctypes.CDLL(path)


def _lzo() -> Compressor:
    library = _library("lzo2")
    work, out = ctypes.create_string_buffer(1 << 18), ctypes.create_string_buffer(_ROOM)

    def compress(data: bytes) -> bytes:
        size = ctypes.c_size_t(len(out))
        library.lzo1x_1_compress(data, ctypes.c_size_t(len(data)), out, ctypes.byref(size), work)
        return out.raw[: size.value]

    return compress


def _snappy() -> Compressor:
    library, out = _library("snappy"), ctypes.create_string_buffer(_ROOM)

    def compress(data: bytes) -> bytes:
        size = ctypes.c_size_t(len(out))
        library.snappy_compress(data, ctypes.c_size_t(len(data)), out, ctypes.byref(size))
        return out.raw[: size.value]

    return compress


def _zstd() -> Compressor:
    library, out = _library("zstd"), ctypes.create_string_buffer(_ROOM)
    library.ZSTD_compress.restype = ctypes.c_size_t

    def compress(data: bytes) -> bytes:
        sizes = ctypes.c_size_t(len(out)), ctypes.c_size_t(len(data))
        size = library.ZSTD_compress(out, sizes[0], data, sizes[1], 1)
        return out.raw[:size]

    return compress


FORMATS: dict[str, tuple[int, Callable[[], Compressor]]] = {
    "zlib": (1, lambda: lambda data: zlib.compress(data, 1)),
    "lzo": (2, _lzo),
    "snappy": (4, _snappy),
    "zstd": (32, _zstd),
}
"""Name -> the flag of descriptors and of the header, and what makes a compressor (or raises LibraryMissing)."""
