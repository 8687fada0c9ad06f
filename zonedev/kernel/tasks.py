# SPDX-License-Identifier: LGPL-2.1-or-later
"""All tasks of a kernel, read once: whose an address space is, whose files, whose stack.

Owns what is kept of a task, and the walk over open files.  A task is called by its process: the pid that users know
(tgid), and the name of its first thread.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple, Optional

from drgn import FaultError, Object, Program, offsetof

from zonedev.kernel.dax_lock import for_each_task, stack_size
from zonedev.kernel.gaps import note
from zonedev.kernel.members import Budget, Members, words_of
from zonedev.kernel.strings import text_of

_COMM_SIZE = 16
_FDS_MAX = 1 << 20

# Of all processes: slots of their tables, and descriptors, that are looked at; what is told of those that cannot be.
_SLOTS_IN_ALL = 1 << 26
_FILES_IN_ALL = 1 << 22
_GAPS_MAX = 64

# Files that are kept, as many processes have the same ones.
_KNOWN_MAX = 1 << 18


class Task(NamedTuple):
    """A process or thread: pid is that of the process; mm, files and stack are addresses, 0 for none."""

    address: int
    pid: int
    comm: str
    mm: int
    files: int
    stack: int


class OpenFile(NamedTuple):
    """A descriptor of a process, and its struct file; op, inode, mapping and private are members of it."""

    task: Task
    fd: int
    address: int
    op: int
    inode: int
    mapping: int
    private: int


def _first_of_each(tasks: list[Task], name: str) -> list[Task]:
    """The first task of each value of a member, in their order."""
    first: dict[int, Task] = {}
    for task in tasks:
        first.setdefault(getattr(task, name), task)
    return list(first.values())


class Tasks:
    """
    All tasks of a Program.

    :raises FaultError: the tasks cannot be walked
    :raises LookupError: types or symbols lack for it
    :raises ValueError: the tree of pids is corrupt
    """

    def __init__(self, prog: Program) -> None:
        self._prog = prog
        self.gaps: list[str] = []
        members = Members(prog, "struct task_struct", "tgid", "mm", "files", "stack")
        comm = offsetof(members.type, "comm")
        self._stack_size = stack_size(prog)
        self.tasks: list[Task] = []
        names: dict[int, str] = {}
        lost = 0
        for task in for_each_task(prog, self._gap):
            address = int(task)
            try:
                tgid, mm, files, stack = members.read(address)
                raw = prog.read(address + comm, _COMM_SIZE)
            except FaultError:
                lost += 1
                continue
            if not stack and not raw.strip(b"\0"):
                # A task has a stack until it is gone: its memory was left out.
                lost += 1
                continue
            names.setdefault(tgid, text_of(raw.split(b"\0")[0]))
            self.tasks.append(Task(address, tgid, names[tgid], mm, files, stack))
        if lost:
            self._gap(f"{lost} tasks cannot be read, nor what they map and have open")
        self._by_address = {one.address: one for one in self.tasks}
        self._stacks = sorted((one.stack, i) for i, one in enumerate(self.tasks))
        self._by_mm: dict[int, list[Task]] = {}
        for one in self.tasks:
            if one.mm:
                self._by_mm.setdefault(one.mm, []).append(one)

    def of_mm(self, mm: int) -> list[Task]:
        """Who has an address space: one task of each process."""
        return _first_of_each(self._by_mm.get(mm, []), "pid")

    @property
    def address_spaces(self) -> list[int]:
        """Every struct mm_struct that a task has."""
        return list(self._by_mm)

    def at(self, address: int) -> Optional[Task]:
        """The task that has an address on its kernel stack, or whose task_struct it is."""
        if address in self._by_address:
            return self._by_address[address]
        i = bisect_right(self._stacks, (address, 1 << 64)) - 1
        if i < 0 or address >= self._stacks[i][0] + self._stack_size:
            return None
        return self.tasks[self._stacks[i][1]]

    def open_files(self) -> Iterator[OpenFile]:
        """Every descriptor of every process; gaps says what could not be read.

        :raises ValueError: they are too many
        """
        table = Members(self._prog, "struct fdtable", "max_fds", "fd")
        file = Members(self._prog, "struct file", "f_op", "f_inode", "f_mapping", "private_data")
        known: dict[int, tuple[int, ...]] = {}
        slots = Budget(_SLOTS_IN_ALL, "slots for descriptors")
        files = Budget(_FILES_IN_ALL, "descriptors")
        for task in _first_of_each(self.tasks, "files"):
            if not task.files:
                continue
            whose = f"{task.comm} (pid {task.pid})"
            try:
                fds = self._descriptors(task, table, slots)
            except FaultError:
                self._gap(f"the open files of {whose} cannot be read")
                continue
            for fd, address in fds:
                files.spend()
                try:
                    found = known.get(address) or file.read(address)
                except FaultError:
                    found = ()
                if not any(found):
                    self._gap(f"descriptor {fd} of {whose} cannot be read")
                    continue
                if len(known) < _KNOWN_MAX:
                    known[address] = found
                yield OpenFile(task, fd, address, *found)

    def _gap(self, text: str) -> None:
        note(self.gaps, text, _GAPS_MAX)

    def _descriptors(self, task: Task, table: Members, slots: Budget) -> list[tuple[int, int]]:
        """(descriptor, address of its struct file) of a task.

        :raises FaultError: they cannot be read
        :raises ValueError: tables of all tasks are larger than can be
        """
        fdt = Object(self._prog, "struct files_struct *", value=task.files).fdt
        max_fds, fd = table.read(int(fdt))
        if not max_fds or not fd:
            raise FaultError("a table of descriptors reads as zeroes", int(fdt))
        if max_fds > _FDS_MAX:
            self._gap(f"{task.comm} (pid {task.pid}) has {max_fds} descriptors, which is too many")
            max_fds = _FDS_MAX
        slots.spend(max_fds)
        words = words_of(self._prog, self._prog.read(fd, 8 * max_fds))
        return [(i, word) for i, word in enumerate(words) if word]
