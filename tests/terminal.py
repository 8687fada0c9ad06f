# SPDX-License-Identifier: LGPL-2.1-or-later
"""A terminal for programs that look at one: what they show there, and what is typed."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence

import pytest

_SECONDS = 60


class Terminal:
    """A program on a pseudo-terminal of so many columns."""

    def __init__(self, words: Sequence[str], env: Mapping[str, str], columns: int = 100) -> None:
        try:
            self._fd, terminal = pty.openpty()
        except OSError as err:
            pytest.skip(f"this wants a terminal, and the system grants no pseudo-terminal: {err}")
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        self.process = subprocess.Popen(
            words, env=env, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
        )
        os.close(terminal)
        self._shown = b""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._fd)

    def _read(self) -> bool:
        """Read what there is; False at the end."""
        if not select.select([self._fd], [], [], 0.1)[0]:
            return True
        try:
            data = os.read(self._fd, 65536)
        except OSError:
            return False
        self._shown += data
        return bool(data)

    def until(self, pattern: str) -> str:
        """What is shown until something of it fits the pattern."""
        deadline = time.monotonic() + _SECONDS
        begin = len(self._shown)
        while time.monotonic() < deadline:
            going = self._read()
            text = plain(self._shown[begin:].decode(errors="replace"))
            if re.search(pattern, text):
                return text
            if not going:
                break
        raise AssertionError(f"{pattern!r} was not shown: {self._shown!r}")

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def rest(self) -> str:
        """All that is shown until the program ends, as it is."""
        deadline = time.monotonic() + _SECONDS
        while self._read():
            assert time.monotonic() < deadline, self._shown
        return self._shown.decode(errors="replace").replace("\r\n", "\n")


def plain(text: str) -> str:
    """Text without colours and other escapes."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "")
