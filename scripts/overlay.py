# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reads of an ELF core through a function of one's own: to see which bytes count, and to let reads fail.

Owns the memory segments that it lays over those of a Program.  drgn has no way to take them off again, so
that a Program with an overlay is of no other use.
"""

from __future__ import annotations

import os
from typing import NamedTuple, Optional

from coreedit import Segment, read_segments
from drgn import FaultError, Program


class Read(NamedTuple):
    """Bytes of the file that were read."""

    offset: int
    size: int


class Overlay:
    """All physical memory of an ELF core, as one function reads it.

    reads: what was read since forget(), in order; fail_at: the number of the read that shall fail, from
    1 on (None: none); failed: its physical address, once it has.
    """

    def __init__(self, prog: Program, core: str) -> None:
        self.reads: list[Read] = []
        self.fail_at: Optional[int] = None
        self.failed: Optional[int] = None
        self._fd = os.open(core, os.O_RDONLY)
        for segment in read_segments(core):
            self._lay(prog, segment)

    def close(self) -> None:
        os.close(self._fd)

    def forget(self, fail_at: Optional[int] = None) -> None:
        """Count reads afresh."""
        self.reads, self.fail_at, self.failed = [], fail_at, None

    def _lay(self, prog: Program, segment: Segment) -> None:
        def read(address: int, count: int, offset: int, physical: bool) -> bytes:
            at = segment.offset + offset
            self.reads.append(Read(at, count))
            if len(self.reads) == self.fail_at:
                self.failed = address
                raise FaultError("made to fail", address)
            return os.pread(self._fd, count, at)

        prog.add_memory_segment(segment.start, segment.end - segment.start, read, True)
