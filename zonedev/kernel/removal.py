# SPDX-License-Identifier: LGPL-2.1-or-later
"""Which tasks wait for the pages of a pagemap: those that remove it, and those that wait until a DAX page is idle.

Owns the search through the stacks of all tasks and what it takes for a waiter: an address in one of the functions
below, and on the same stack the pagemap (which memunmap_pages() keeps while it waits) or a struct page of it (the
key that a DAX waiter sleeps on).  No call trace decides on it: frames of modules without debug files would end it.

Invariant: a stack that was not read is counted, so that "nobody waits" is never concluded from it.
Mirrors mm/memremap.c (memunmap_pages()), fs/dax.c (dax_break_layout()), and what file systems had before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import NamedTuple, Optional

from drgn import Object, Program, StackFrame, SymbolKind, offsetof

from zonedev.kernel.dax_lock import call_trace, each_stack
from zonedev.kernel.gaps import ERRORS
from zonedev.kernel.layout import KernelLayout
from zonedev.kernel.members import words_of
from zonedev.kernel.modules import ModuleSymbols, module_regions
from zonedev.kernel.strings import text_of
from zonedev.model import Pagemap, Waiter

_REMOVAL = ("memunmap_pages",)

# Since the series of commit 38607c62b34b ("fs/dax: properly refcount fs dax pages") (in v6.15) all file systems wait
# in fs/dax.c; before, in functions of their own.
_DAX_WAITS = (
    *("dax_break_layout", "dax_break_layout_final"),
    *("ext4_break_layouts", "xfs_break_dax_layouts", "xfs_break_layouts", "fuse_dax_break_layouts"),
)

# What wakes a task that waits for a variable, whatever function of whatever module it does so in.
_WAKE = "var_wake_function"

_COMM_MAX = 16
_FUNCTION_MAX = 1 << 16
_WAITERS_MAX = 64
_FRAMES_MAX = 64

# Names of one function: it may have been cloned.
_SYMBOLS_MAX = 8

_ERRORS = (*ERRORS, OSError)


class _Text(NamedTuple):
    """Where a function lies: addresses behind a call in it are in (start, end]."""

    start: int
    end: int
    name: str


class _Wanted(NamedTuple):
    """What a waiter for a pagemap has on its stack: one of the words, or a struct page (or its refcount) in one of the
    stretches [start, end), whose first pfn is known."""

    words: frozenset[int]
    memmap: list[tuple[int, int, int]]
    page_size: int
    keys: frozenset[int]

    def pfn(self, word: int) -> Optional[int]:
        """Of the page that a word names."""
        for start, end, pfn in self.memmap:
            if start <= word < end and (word - start) % self.page_size in self.keys:
                return pfn + (word - start) // self.page_size
        return None


@dataclass
class Waiting:
    """Who waits for which pagemap, and of how many tasks the stack was read or not."""

    waiters: dict[int, list[Waiter]] = field(default_factory=dict)
    tasks: int = 0
    lost: int = 0
    why: Optional[str] = None


def _functions(prog: Program, names: Iterable[str]) -> list[_Text]:
    """Those of the functions that there are symbols of."""
    found = []
    for name in names:
        try:
            symbols = prog.symbols(name)[:_SYMBOLS_MAX]
        except LookupError:
            continue
        found += [_Text(s.address, s.address + min(s.size, _FUNCTION_MAX), name) for s in symbols]
    return found


def _wanted(prog: Program, pagemap: Pagemap, layout: KernelLayout) -> _Wanted:
    pgmap = Object(prog, "struct dev_pagemap *", value=pagemap.address)
    words = {pagemap.address}
    try:
        words.add(int(pgmap.done.address_of_()))
        # What the entry of a waiter is linked to, in the kernels that have swait queues.
        words.add(int(pgmap.done.wait.task_list.address_of_()))
    except (LookupError, AttributeError):
        pass
    memmap = [
        (layout.page_address(r.first_pfn), layout.page_address(r.end_pfn), r.first_pfn)
        for r in pagemap.ranges
    ]
    # Newer kernels wait on the page, older ones on its refcount.
    keys = frozenset((0, layout.fields["_refcount"][0]))
    return _Wanted(frozenset(words), memmap, layout.page_size, keys)


def _depth(task: Object, stack: bytes) -> int:
    """Bytes of the stack that a sleeping task has left behind; 0 where its stack pointer is not known."""
    for path in ("sp", "cpu_context.sp"):
        sp = task.thread
        try:
            for name in path.split("."):
                sp = sp.member_(name)
            depth = int(sp) - int(task.stack)
        except _ERRORS:
            continue
        return depth if 0 < depth < len(stack) else 0
    return 0


def _words(task: Object, stack: bytes) -> tuple[int, ...]:
    """The words of the frames that a task is in, innermost first."""
    return words_of(task.prog_, stack[_depth(task, stack) & ~7 :])


def _innermost(words: tuple[int, ...], functions: list[_Text]) -> Optional[str]:
    low = min((text.start for text in functions), default=0)
    high = max((text.end for text in functions), default=0)
    for word in words:
        if not low < word <= high:
            continue
        for text in functions:
            if text.start < word <= text.end:
                return text.name
    return None


class _Called(NamedTuple):
    """The innermost function of either kind that a task is in."""

    removal: Optional[str]
    dax: Optional[str]


def _function(
    words: tuple[int, ...], wanted: _Wanted, called: _Called
) -> tuple[Optional[str], Optional[int]]:
    """In which function a task waits for a pagemap, and for which page; None, None: it does not."""
    if called.removal and wanted.words.intersection(words):
        return called.removal, None
    pfns = map(wanted.pfn, words) if called.dax else ()
    pfn = next((pfn for pfn in pfns if pfn is not None), None)
    return (None, None) if pfn is None else (called.dax, pfn)


class _VarWait(NamedTuple):
    """How a task sleeps until a variable changes (___wait_var_event()): the entry that it leaves on its stack has the
    variable's address, some words behind that the task, and the function that wakes it."""

    task: int
    function: int
    wake: int

    def pfn(self, words: tuple[int, ...], task: int, wanted: _Wanted) -> Optional[int]:
        """Of the page that a task sleeps on."""
        for i in range(len(words) - self.function):
            if words[i + self.function] == self.wake and words[i + self.task] == task:
                return wanted.pfn(words[i])
        return None


def _var_wait(prog: Program) -> Optional[_VarWait]:
    """What stands behind the key of an entry; None where types or symbols do not tell."""
    # Since commit 6b2bb7265f0b ("sched/wait: Introduce wait_var_event()") (in v4.17).
    try:
        entry = prog.type("struct wait_bit_queue_entry")
        key = offsetof(entry, "key.flags")
        task, function = (offsetof(entry, f"wq_entry.{name}") for name in ("private", "func"))
        return _VarWait((task - key) // 8, (function - key) // 8, prog.symbol(_WAKE).address)
    except LookupError:
        return None


def _of_module(prog: Program, modules: ModuleSymbols, words: Iterable[int]) -> str:
    """The innermost function of a module that a task is in; one that waits for DAX pages goes before others."""
    regions = module_regions(prog)
    inside = (word for word in words if any(start < word <= end for start, end in regions))
    found = [m.name for m in map(modules.at, islice(inside, _FRAMES_MAX)) if m and m.is_function]
    return next((name for name in found if name in _DAX_WAITS), found[0] if found else "?")


def _functions_on(prog: Program, words: Iterable[int]) -> Iterator[str]:
    """The functions that words on a stack are return addresses of, if they are any."""
    for word in words:
        if not word >> 63:
            continue
        try:
            symbol = prog.symbol(word)
        except LookupError:
            continue
        if symbol.kind == SymbolKind.FUNC and word > symbol.address:
            yield symbol.name


def _frame_name(frame: StackFrame, modules: ModuleSymbols) -> str:
    """What a frame is in; of a module without a debug file, as it knows itself."""
    # Of what it does not know drgn says the address.
    if frame.name and not frame.name.startswith("0x"):
        return str(frame.name)
    found = modules.at(frame.pc)
    return found.name if found else hex(frame.pc)


def _trace(task: Object, words: Iterable[int], modules: ModuleSymbols) -> tuple[str, ...]:
    """The call trace of a task; where it cannot be unwound, what looks like one, marked as the kernel marks it."""
    frames = takewhile(lambda frame: frame.pc >> 63, call_trace(task.prog_, task))
    unwound = tuple(_frame_name(frame, modules) for frame in frames)
    if all(name.startswith("0x") for name in unwound):
        # Without unwind tables, as in a slice, one frame may lead anywhere.
        unwound = ()
    on_stack = islice(_functions_on(task.prog_, words), _FRAMES_MAX)
    return unwound or tuple(f"? {name}" for name in on_stack)


def _comm(task: Object) -> str:
    try:
        return text_of(task.comm.string_()[:_COMM_MAX])
    except _ERRORS:
        return "?"


def _waiter(task: Object, function: str, pfn: Optional[int], stack: tuple[str, ...]) -> Waiter:
    return Waiter(int(task.pid), _comm(task), function, pfn, stack)


def _each_waiter(
    prog: Program,
    wanted: dict[int, _Wanted],
    known: dict[str, list[_Text]],
    waiting: Waiting,
    stacks: bool,
) -> Iterator[tuple[int, Waiter]]:
    modules, var_wait = ModuleSymbols(prog), _var_wait(prog)
    for task, stack in each_stack(prog):
        waiting.tasks += 1
        if not stack:
            waiting.lost += 1
            continue
        words = _words(task, stack)
        called = _Called(*(_innermost(words, known[kind]) for kind in _Called._fields))
        sleeps = var_wait if var_wait and var_wait.wake in words else None
        for address, one in wanted.items() if any(called) or sleeps else ():
            function, pfn = _function(words, one, called)
            if not function and sleeps:
                pfn = sleeps.pfn(words, int(task), one)
                function = None if pfn is None else _of_module(prog, modules, words)
            if function:
                trace = _trace(task, words, modules) if stacks else ()
                yield address, _waiter(task, function, pfn, trace)


def find_waiters(
    prog: Program, pagemaps: Iterable[Pagemap], layout: KernelLayout, stacks: bool = False
) -> Waiting:
    """The tasks that wait for pages of each pagemap, up to 64 of one, by their pids.

    :param stacks: with their call traces
    """
    waiting = Waiting()
    try:
        wanted = {p.address: _wanted(prog, p, layout) for p in pagemaps}
        known = {"removal": _functions(prog, _REMOVAL), "dax": _functions(prog, _DAX_WAITS)}
        if not known["removal"]:
            waiting.why = "the symbol memunmap_pages is not known"
            return waiting
        for address, waiter in _each_waiter(prog, wanted, known, waiting, stacks):
            mine = waiting.waiters.setdefault(address, [])
            if len(mine) < _WAITERS_MAX:
                mine.append(waiter)
    except KeyboardInterrupt:
        waiting.why = "interrupted"
        return waiting
    except _ERRORS as err:
        waiting.why = f"the tasks cannot be walked: {err}"
        return waiting
    if waiting.lost == waiting.tasks:
        waiting.why = "the stacks of tasks are not in the dump"
    for mine in waiting.waiters.values():
        mine.sort()
    return waiting
