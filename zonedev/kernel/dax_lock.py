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
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple, Optional

from drgn import FaultError, Object, Program, offsetof
from drgn.helpers.linux.pid import for_each_task

_TASKS_MAX = 1 << 20
_FRAMES_MAX = 64
_STACK_MAX = 1 << 20

# What lies between the symbols at the edges of the first task's stack: by its newer name, and its older.
_INIT_STACK = ("init_stack", "init_task")

# In the trace of a task that waits for somebody else to unlock an entry.
_WAITERS = frozenset(("get_unlocked_entry", "get_next_unlocked_entry", "wait_entry_unlocked"))

_ERRORS = (FaultError, LookupError, AttributeError, ValueError, OverflowError, TypeError, OSError)


class Lock(NamedTuple):
    """A locked entry: its address_space, and the struct page of its first pfn, if it has one."""

    mapping: int
    page: Optional[int]


def _words(prog: Program, lock: Lock) -> set[bytes]:
    """What an owner has on its stack."""
    xarray = lock.mapping + offsetof(prog.type("struct address_space"), "i_pages")
    words = (xarray, lock.mapping, lock.page)
    return {struct.pack("=Q", word) for word in words if word is not None}


def _waits(prog: Program, task: Object) -> bool:
    try:
        return any(frame.name in _WAITERS for frame in islice(prog.stack_trace(task), _FRAMES_MAX))
    except _ERRORS:
        return False


def _stack_size(prog: Program) -> int:
    """THREAD_SIZE, a macro: as large as the first task's stack in the image.

    :raises LookupError: the symbols around it are not known
    :raises ValueError: they make no sense
    """
    for what in _INIT_STACK:
        try:
            end, start = (prog.symbol(f"__{edge}_{what}").address for edge in ("end", "start"))
        except LookupError:
            continue
        size = int(end - start)
        if not 0 < size <= _STACK_MAX:
            raise ValueError(f"a stack of {size} bytes")
        return size
    raise LookupError("the size of a stack is not known")


def _stacks(prog: Program) -> Iterator[tuple[Object, bytes]]:
    """Every task and its kernel stack.

    :raises FaultError: a stack cannot be read
    :raises ValueError: a stack is not in the dump, or there are no tasks, or too many
    """
    size, count = _stack_size(prog), 0
    for task in islice(for_each_task(prog), _TASKS_MAX):
        stack = prog.read(int(task.stack), size)
        if not any(stack):
            raise ValueError("a stack of zeroes")
        count += 1
        yield task, stack
    if count in (0, _TASKS_MAX):
        raise ValueError(f"{count} tasks")


def find_owners(prog: Program, locks: Iterable[Lock]) -> Optional[dict[Lock, bool]]:
    """Per lock whether a task is there that may hold it; None where not all stacks can be read."""
    try:
        wanted = {lock: _words(prog, lock) for lock in locks}
        held = dict.fromkeys(wanted, False)
        for task, stack in _stacks(prog):
            for lock, words in wanted.items():
                named = not held[lock] and any(word in stack for word in words)
                held[lock] |= named and not _waits(prog, task)
    except _ERRORS:
        return None
    return held
