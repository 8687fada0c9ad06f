# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who may hold the lock of a DAX entry: a search of the stacks of all tasks.

Owns the search and what it takes for an owner. A task between the locking and the unlocking of an entry
(dax_iomap_fault(), memory_failure()) has the file's tree, its mapping or the page on its stack; one that
waits for the lock (wait_entry_unlocked()) has them, too, and is told by its call trace.

Invariant: a task whose stack or trace cannot be read is a possible owner.
Mirrors fs/dax.c (grab_mapping_entry(), get_unlocked_entry()).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple, Optional

from drgn import FaultError, Object, Program, offsetof, sizeof
from drgn.helpers.linux.pid import for_each_task

_TASKS_MAX = 1 << 20
_FRAMES_MAX = 64

# In the trace of a task that waits for somebody else to unlock an entry.
_WAITERS = frozenset(("get_unlocked_entry", "get_next_unlocked_entry", "wait_entry_unlocked"))

_ERRORS = (FaultError, LookupError, AttributeError, ValueError, OverflowError, TypeError, OSError)


class Lock(NamedTuple):
    """A locked entry: its address_space, and the struct page of its first pfn."""

    mapping: int
    page: int


def _words(prog: Program, lock: Lock) -> set[bytes]:
    """What an owner has on its stack."""
    xarray = lock.mapping + offsetof(prog.type("struct address_space"), "i_pages")
    return {struct.pack("=Q", word) for word in (xarray, lock.mapping, lock.page)}


def _waits(prog: Program, task: Object) -> bool:
    try:
        return any(frame.name in _WAITERS for frame in islice(prog.stack_trace(task), _FRAMES_MAX))
    except _ERRORS:
        return False


def _stacks(prog: Program) -> Optional[list[tuple[Object, bytes]]]:
    """Every task and its kernel stack; None where one cannot be read."""
    size = sizeof(prog.type("union thread_union"))
    stacks = []
    for task in islice(for_each_task(prog), _TASKS_MAX):
        stack = prog.read(int(task.stack), size)
        if not any(stack):
            return None
        stacks.append((task, stack))
    return stacks if 0 < len(stacks) < _TASKS_MAX else None


def find_owners(prog: Program, locks: Iterable[Lock]) -> Optional[dict[Lock, bool]]:
    """Per lock whether a task is there that may hold it; None where not all stacks can be read."""
    locks = list(locks)
    try:
        stacks = _stacks(prog)
        wanted = {lock: _words(prog, lock) for lock in locks}
    except _ERRORS:
        return None
    if stacks is None:
        return None
    return {
        lock: any(
            any(word in stack for word in words) and not _waits(prog, task)
            for task, stack in stacks
        )
        for lock, words in wanted.items()
    }
