# SPDX-License-Identifier: LGPL-2.1-or-later
"""The value and state of a struct percpu_ref, in every shape that it had.

Mirrors include/linux/percpu-refcount.h and lib/percpu-refcount.c: the low bits of
percpu_count_ptr say ATOMIC (1) and DEAD (2); the atomic count carries a bias of LONG_MIN while
the per-CPU counters are in use.
"""

from __future__ import annotations

from drgn import FaultError, Object, Program
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.percpu import per_cpu_ptr

from zonedev.model import PgmapRef

_ATOMIC = 1
_DEAD = 2
_WORD = 1 << 64
_BIAS = 1 << 63


def _signed(value: int) -> int:
    value %= _WORD
    return value - _WORD if value >= _WORD // 2 else value


def _percpu_sum(prog: Program, pointer: int) -> int:
    counter = Object(prog, "unsigned long *", value=pointer & ~(_ATOMIC | _DEAD))
    return sum(int(per_cpu_ptr(counter, cpu)[0]) for cpu in for_each_possible_cpu(prog))


def _holder(ref: Object) -> Object:
    """What holds the count and the callbacks."""
    # Since commit 2b0d3d3e4fcf ("percpu_ref: reduce memory footprint of percpu_ref in fast path")
    # (in v5.10), percpu_ref.data, which percpu_ref_exit() frees.
    return ref.data if ref.type_.has_member("data") else ref


def release_function(ref: Object) -> int:
    """Address of the function that is called when *ref* (``struct percpu_ref``) falls to 0.

    :raises FaultError: it cannot be read, or the reference was exited
    """
    return int(_holder(ref).release)


def read_percpu_ref(ref: Object, shared: bool = False) -> PgmapRef:
    """State and value of *ref* (``struct percpu_ref``).

    dead: percpu_ref_exit() ran; dying: percpu_ref_kill() ran and references may be left.

    :param shared: others than the pagemap use it, too: its value says little of the pages
    """
    prog = ref.prog_
    pointer = int(ref.percpu_count_ptr)
    dead = bool(pointer & _DEAD)
    holder = _holder(ref)
    if ref.type_.has_member("data") and not holder:
        return PgmapRef("dead", pointer >> 2)
    try:
        count = int(holder.count.counter) % _WORD
    except FaultError:
        # It lies in a slab of its own, which a dump may lack where the pagemap is there.
        return PgmapRef("dying" if dead else "live", None, True)
    # While the bias is in, the count is near 1 << 63; an underflow is near the top.
    pending = abs(count - _BIAS) < 1 << 62
    if not pointer & _ATOMIC or pending:
        try:
            total = _signed(count + _percpu_sum(prog, pointer) - _BIAS)
        except (FaultError, LookupError):
            # Or no symbol says where the CPUs have their own.
            return PgmapRef("dying" if dead else "live", None, True)
        return PgmapRef("dying" if dead else "live", total, shared or bool(pointer & _ATOMIC))
    return PgmapRef("dying" if dead else "live", _signed(count), shared)
