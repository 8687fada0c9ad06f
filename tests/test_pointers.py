# SPDX-License-Identifier: LGPL-2.1-or-later
"""find_pointers(): what the binding takes and gives.  The search itself is tested in C (ext/tests/test_core.c)."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from zonedev import _zonedev

LO, STEP = 0xFFFFEA0004000000, 64
HI = LO + 512 * STEP


def find(data: Any, limit: int = 8, **changes: Any) -> Any:
    what = {"lo": LO, "hi": HI, "step": STEP, "word_size": 8, "big_endian": False, **changes}
    return _zonedev.find_pointers(data, *what.values(), limit)


def pack(form: str, *words: int) -> bytes:
    return b"".join(struct.pack(form, word) for word in words)


@pytest.mark.parametrize(
    ("form", "lo"), [("<Q", LO), (">Q", LO), ("<I", 0xF7000000), (">I", 0xF7000000)]
)
def test_words_of_every_machine(form: str, lo: int) -> None:
    words = (0, lo, lo + 5 * STEP + 2, lo + 4, lo - STEP, lo + 511 * STEP + 1, lo + 512 * STEP)
    size, big = struct.calcsize(form), form[0] == ">"
    what = {"lo": lo, "hi": lo + 512 * STEP, "word_size": size}
    found, more = find(pack(form, *words), big_endian=big, **what)
    assert found == [(size, 0, 0), (2 * size, 5, 2), (5 * size, 511, 1)] and more == 0
    assert find(pack(form, *words), big_endian=not big, **what) == ([], 0)


def test_only_aligned_words_count_and_a_rest_is_none() -> None:
    word = struct.pack("<Q", LO)
    assert find(b"\0" * 4 + word + b"\0" * 4) == ([], 0)
    assert find(word + word[:7]) == ([(0, 0, 0)], 0)
    # Where the buffer itself begins does not matter.
    assert find(memoryview(b"\0" + word)[1:]) == ([(0, 0, 0)], 0)
    assert find(b"") == ([], 0)


def test_what_finds_no_room_is_counted() -> None:
    words = pack("<Q", *range(LO, LO + 100 * STEP, STEP))
    found, more = find(words, limit=8)
    assert found == [(8 * i, i, 0) for i in range(8)] and more == 92
    assert find(words, limit=0) == ([], 100)
    assert find(words, limit=100)[1] == 0


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"hi": LO}, ValueError),
        ({"step": 0}, ValueError),
        ({"word_size": 2}, ValueError),
        ({"limit": (1 << 20) + 1}, ValueError),
        ({"lo": -1}, (ValueError, OverflowError)),
        ({"hi": 1 << 64}, (ValueError, OverflowError)),
        ({"step": 1 << 32}, (ValueError, OverflowError)),
    ],
)
def test_what_makes_no_sense_is_refused(changes: dict[str, Any], error: Any) -> None:
    with pytest.raises(error):
        find(bytes(8), **changes)
