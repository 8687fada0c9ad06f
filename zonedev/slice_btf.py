# SPDX-License-Identifier: LGPL-2.1-or-later
"""Cut a vmcore down to what one audit reads, types and symbols included: one file that needs no other.

Owns: recording an audit that takes its types out of BTF, and what stands in the slice where the kernel's BTF stood:
BTF of the types that were asked for (btffile.py), then kallsyms of the symbols that were (kallsymsfile.py), in the
formats that the kernel has them in.
Invariant: a frame is in the slice only if the audit read it, or types and symbols are found through it; nothing is put
into the output directory before the slice gave the same report as the original.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from drgn import Architecture, FaultError, PlatformFlags, Program

from zonedev import _zonedev
from zonedev.btffile import Key, thin
from zonedev.corefile import FRAME_SHIFT, FRAME_SIZE, FrameSource, Machine, count_frames, write_core
from zonedev.errors import TargetError
from zonedev.kallsymsfile import Format, Symbol, Tables
from zonedev.kernel.btf import BtfTypes, ModuleTypes, read_btf, register
from zonedev.kernel.symbols import IMAGE_STEP, Row, image_address, read_kallsyms
from zonedev.kernel.translate import physical_address
from zonedev.slice import (
    CORE_NAME,
    SliceResult,
    first_difference,
    open_core,
    recording_program,
    refuse_to_overwrite,
    vmcoreinfo_of,
)

T = TypeVar("T")

# e_machine of the architectures whose kernels zonedev has BTF of.
_MACHINES = {
    Architecture.X86_64: 62,
    Architecture.AARCH64: 183,
    Architecture.PPC64: 21,
    Architecture.S390X: 22,
}

# Where the kernel says that its BTF lies.
_START, _STOP = "__start_BTF", "__stop_BTF"

# Of BTF, in bytes: more is not believed (ext/core/btf.h).
_ROOM_MAX = 1 << 28

# A table of fewer symbols is not believed (ext/core/kallsyms.c).
_SYMBOLS_MIN = 256


class _Asked:
    """kallsyms that knows what it was asked for."""

    def __init__(self, table: _zonedev.Kallsyms) -> None:
        self._table = table
        self.rows: set[Row] = set()

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, i: int) -> Row:
        return self._table[i]

    def find(self, name: str) -> list[Row]:
        rows = self._table.find(name)
        self.rows.update(rows)
        return rows

    def at(self, address: int) -> Row | None:
        row = self._table.at(address)
        if row is not None:
            self.rows.add(row)
        return row


def _chosen(table: _zonedev.Kallsyms, asked: Iterable[Row]) -> list[Symbol]:
    """What was asked for, with the symbols that say where these end, in the kernel's order."""
    rows = [table[i] for i in range(len(table))]
    ends = sorted({row[1] for row in rows})
    wanted = {row[1] for row in asked}
    behind = {bisect_right(ends, address) for address in wanted}
    wanted |= {ends[i] for i in behind if i < len(ends)}
    missing = _SYMBOLS_MIN - len(wanted)
    wanted.update([address for address in ends if address not in wanted][: max(missing, 0)])
    return [(letter, name, address) for name, address, _, letter in rows if address in wanted]


class _Own:
    """A Program that takes types and symbols from the kernel itself, and knows which."""

    def __init__(
        self,
        prog: Program,
        table: _zonedev.Kallsyms,
        btf: _zonedev.Btf,
        modules: Iterable[_zonedev.Btf] | None = None,
    ) -> None:
        self.prog = prog
        self.symbols = _Asked(table)
        self._types = BtfTypes(prog, btf)
        self._modules = ModuleTypes(self._types, modules)
        register(self._types, self.symbols, self._modules)

    @property
    def btfs(self) -> list[_zonedev.Btf]:
        """The kernel's, and those of modules."""
        return [one.btf for one in (self._types, *self._modules)]

    def types(self) -> set[Key]:
        """The types that were asked for."""
        sources = enumerate((self._types, *self._modules))
        return {Key(source, id_) for source, types in sources for id_ in types.made}


def _open(core: str, data: bytes | None = None) -> tuple[Program, _zonedev.Kallsyms, _zonedev.Btf]:
    prog = open_core(core)
    table = read_kallsyms(prog)
    return prog, table, read_btf(prog, table, data)


def _is_little(prog: Program) -> bool:
    assert prog.platform is not None
    return bool(prog.platform.flags & PlatformFlags.IS_LITTLE_ENDIAN)


def _machine(prog: Program) -> Machine:
    assert prog.platform is not None
    number = _MACHINES.get(prog.platform.arch)
    if number is None:
        raise TargetError(
            f"slicing: not known how an ELF core of {prog.platform.arch.name} is marked"
        )
    return Machine(number, 0, not _is_little(prog))


class _Room:
    """Where the kernel's BTF lies, for what stands there in the slice."""

    def __init__(self, core: str, table: _zonedev.Kallsyms) -> None:
        start, stop = table.find(_START), table.find(_STOP)
        if not start or not stop:
            raise TargetError(
                f"cannot slice {core}: its kallsyms do not say where its BTF lies ({_START})"
            )
        self._core = core
        self.symbols = {*start, *stop}
        self.address, self._end = start[0][1], stop[0][1]
        if not 0 < self._end - self.address <= _ROOM_MAX:
            raise TargetError(
                f"cannot slice {core}: its BTF would lie at {self.address:#x}-{self._end:#x}"
            )

    def fill(self, btf: bytes, form: Format, symbols: list[Symbol]) -> bytes:
        """Both, for the address."""
        btf += bytes(-(self.address + len(btf)) % 8)
        try:
            tables = Tables(form, symbols, self.address + len(btf))
        except ValueError as err:
            raise TargetError(f"cannot slice {self._core}: {err}") from None
        data = btf + bytes(tables.image)
        if len(data) > self._end - self.address:
            raise TargetError(
                f"cannot slice {self._core}: its BTF leaves no room for what the audit asked for"
            )
        return data

    def physical(self, prog: Program) -> dict[int, int]:
        """The physical address of each of its pages."""
        first = self.address // FRAME_SIZE * FRAME_SIZE
        return {page: physical_address(prog, page) for page in range(first, self._end, FRAME_SIZE)}


def _in_pages(address: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    """Page by page: (address, bytes)."""
    at = 0
    while at < len(data):
        size = FRAME_SIZE - (address + at) % FRAME_SIZE
        yield address + at, data[at : at + size]
        at += size


def _lead_to(prog: Program, address: int) -> None:
    """Read something of the kernel's image, often enough that it is followed up to an address."""
    for at in range(image_address(prog), address, IMAGE_STEP):
        with contextlib.suppress(FaultError):
            prog.read(at, FRAME_SIZE)


def _lay_over(prog: Program, address: int, data: bytes) -> None:
    """Let reads of physical memory find it."""
    prog.add_memory_segment(
        address, len(data), lambda _address, count, at, _physical: data[at : at + count], True
    )


def _difference(path: str, run: Callable[[Program], T], report: T, asked: Iterable[Row]) -> str:
    """How a slice differs from what it was cut out of; "" if it does not."""
    own = _Own(*_open(path))
    try:
        again = run(own.prog)
    except Exception as err:
        return f"{type(err).__name__}: {err}"
    if again != report:
        return first_difference(report, again)
    other = (row[0] for row in asked if row not in own.symbols.find(row[0]))
    return next((f"symbol {name} is not the same" for name in other), "")


def _put_tables(
    core: str, table: _zonedev.Kallsyms, original: _Own, recorded: _Own, frames: set[int]
) -> set[Row]:
    """Lay types and symbols that were asked for over the original's, and name the frames; the symbols."""
    room = _Room(core, table)
    physical = room.physical(recorded.prog)
    order = "<" if _is_little(original.prog) else ">"
    own = thin(original.btfs, original.types() | recorded.types(), order)
    asked = original.symbols.rows | recorded.symbols.rows | room.symbols
    data = room.fill(own, Format(*table.form, order), _chosen(table, asked))
    _lead_to(recorded.prog, room.address)
    for address, part in _in_pages(room.address, data):
        at = physical[address // FRAME_SIZE * FRAME_SIZE] + address % FRAME_SIZE
        frames.add(at >> FRAME_SHIFT)
        _lay_over(original.prog, at, part)
    return asked


def slice_btf(
    core: str, out_dir: str, run: Callable[[Program], T], btf: bytes | None = None
) -> SliceResult[T]:
    """Write out_dir/vmcore: as much of `core` as `run` reads, and the types and symbols that it asks for.

    `run` is called on three Programs: the original, one that records, and the slice. What it gives on the first and
    on the last must be equal. `btf`: the kernel's, if it was read elsewhere.

    Raises TargetError if the core cannot be used or has no types or symbols of its own, if `out_dir` holds it, or if
    the slice gives another answer; then nothing was written. Lets through what `run` raises on the original.
    """
    refuse_to_overwrite(out_dir, [core])
    prog, table, types = _open(core, btf)
    original = _Own(prog, table, types)
    report = run(prog)
    frames: set[int] = set()
    recorded = _Own(recording_program(prog, frames), table, types, original.btfs[1:])
    try:
        run(recorded.prog)
    except Exception as err:
        raise TargetError(f"the audit of {core} failed while it was recorded: {err}") from err
    asked = _put_tables(core, table, original, recorded, frames)
    source = FrameSource.open(core, prog, vmcoreinfo_of(prog), _machine(prog))
    pieces = source.pieces(frames)
    os.makedirs(out_dir, exist_ok=True)
    path = os.path.join(out_dir, CORE_NAME)
    with tempfile.TemporaryDirectory(prefix=".slice-", dir=out_dir) as scratch:
        made = os.path.join(scratch, CORE_NAME)
        write_core(made, source, pieces)
        difference = _difference(made, run, report, asked)
        if difference:
            raise TargetError(
                f"the slice of {core} gives another answer than the core: {difference}; nothing was written"
            )
        os.replace(made, path)
    return SliceResult(
        core=path,
        debug_files=(),
        frames=len(frames),
        zero_filled_frames=count_frames(p for p in pieces if not p.in_file),
        core_size=os.path.getsize(path),
        debug_size=0,
        report=report,
    )
