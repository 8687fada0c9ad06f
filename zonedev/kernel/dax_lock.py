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
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple, Optional

from drgn import FaultError, Object, PlatformFlags, Program, StackFrame, offsetof, sizeof
from drgn.helpers.linux.pid import pid_task

from zonedev.kernel.btf import types_from
from zonedev.kernel.gaps import ERRORS
from zonedev.kernel.tree import walk_tree

_FRAMES_MAX = 64
_STACK_MAX = 1 << 20

# What lies between the symbols at the edges of the first task's stack: by its newer name, and its older.
_INIT_STACK = ("init_stack", "init_task")

# In the trace of a task that waits for somebody else to unlock an entry.
_WAITERS = frozenset(("get_unlocked_entry", "get_next_unlocked_entry", "wait_entry_unlocked"))

_ERRORS = (*ERRORS, OSError)


class Lock(NamedTuple):
    """A locked entry: its address_space, and the struct page of its first pfn, if it has one."""

    mapping: int
    page: Optional[int]


def _words(prog: Program, lock: Lock) -> set[bytes]:
    """What an owner has on its stack."""
    assert prog.platform is not None
    little = prog.platform.flags & PlatformFlags.IS_LITTLE_ENDIAN
    xarray = lock.mapping + offsetof(prog.type("struct address_space"), "i_pages")
    words = (xarray, lock.mapping, lock.page)
    return {struct.pack("<Q" if little else ">Q", word) for word in words if word is not None}


def call_trace(prog: Program, task: Object) -> list[StackFrame]:
    """The frames that a task is in, innermost first; none where there is nothing to unwind them by.

    Without unwind tables drgn believes frame pointers, which kernels do not keep.
    """
    if types_from(prog) != "dwarf":
        return []
    try:
        return list(islice(prog.stack_trace(task), _FRAMES_MAX))
    except _ERRORS:
        return []


def _waits(prog: Program, task: Object) -> bool:
    """Whether a task is known to wait for somebody else; who is not may be the owner."""
    return any(frame.name in _WAITERS for frame in call_trace(prog, task))


def stack_size(prog: Program) -> int:
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


def for_each_task(
    prog: Program, gap: Callable[[str], None] = lambda text: None
) -> Iterator[Object]:
    """Every ``struct task_struct *`` of the initial pid namespace: all but the idle tasks.

    drgn's helper follows a tree that leads into itself for ever.

    :param gap: called with what could not be read of them
    :raises FaultError: the pids cannot be read
    :raises ValueError: their tree is corrupt
    """
    kind = prog["PIDTYPE_PID"].value_()
    # Since commit 95846ecf9dac ("pid: replace pid bitmap implementation with IDR API") (in v4.15); an xarray
    # of DAX entries is younger.
    tree = walk_tree(prog["init_pid_ns"].idr.idr_rt)
    if tree.problems:
        gap("not all pids can be read: nodes of their tree do not hold what they count")
    for item in tree.items:
        task = pid_task(Object(prog, "struct pid *", value=item.value), kind)
        if task:
            yield task
        elif not any(prog.read(item.value, sizeof(prog.type("struct pid")))):
            gap("not all pids can be read: one reads as zeroes")


def each_stack(prog: Program) -> Iterator[tuple[Object, bytes]]:
    """Every task and its kernel stack; b"" for one that is not in the dump.

    :raises FaultError: the tasks cannot be walked
    :raises LookupError: neither can they, or the size of a stack is not known
    :raises ValueError: the tree of tasks is corrupt, or there are none
    """
    size, count = stack_size(prog), 0
    gaps: list[str] = []
    for task in for_each_task(prog, gaps.append):
        count += 1
        try:
            stack = prog.read(int(task.stack), size)
        except FaultError:
            stack = b""
        yield task, stack if any(stack) else b""
    if gaps or not count:
        raise ValueError(gaps[0] if gaps else "no tasks")


def find_owners(prog: Program, locks: Iterable[Lock]) -> Optional[dict[Lock, bool]]:
    """Per lock whether a task is there that may hold it; None where not all stacks can be read."""
    try:
        wanted = {lock: _words(prog, lock) for lock in locks}
        held = dict.fromkeys(wanted, False)
        for task, stack in each_stack(prog):
            if not stack:
                return None
            for lock, words in wanted.items():
                named = not held[lock] and any(word in stack for word in words)
                held[lock] |= named and not _waits(prog, task)
    except _ERRORS:
        return None
    return held
