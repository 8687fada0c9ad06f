# SPDX-License-Identifier: LGPL-2.1-or-later
"""Cut a vmcore and its debug files down to what one audit reads: a small pair to send or to keep.

Owns: recording an audit on a drgn Program, the sliced core, the check that the pair answers alike.
Does not: know what an audit is (the caller passes it), print, compress, or encode DWARF
(debugfile.py).
Invariant: a frame is in the slice only if the audit read it and the original core holds it;
nothing is put into the output directory before the pair gave the same report as the original.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, NamedTuple, TypeVar

import drgn
from drgn import FindObjectFlags, Object, Program, Symbol, Type, TypeKind, TypeKindSet, TypeMember

from zonedev.corefile import (
    FRAME_SHIFT,
    FrameSource,
    Machine,
    count_frames,
    write_core,
)
from zonedev.debugfile import DebugFile, ElfIdentity, is_tagged, read_elf_identity, type_key
from zonedev.errors import TargetError

T = TypeVar("T")

CORE_NAME = "vmcore"
DEBUG_NAME = "vmlinux"

_U64 = (1 << 64) - 1
# How often pointers are followed one level more when the pair gives another answer.
_POINTER_LEVELS = 2
_FINDER = "zonedev.slice"

_KEYWORDS = {
    TypeKind.STRUCT: "struct ",
    TypeKind.UNION: "union ",
    TypeKind.CLASS: "class ",
    TypeKind.ENUM: "enum ",
}


@dataclass(frozen=True)
class SliceResult(Generic[T]):
    """What slice_core() wrote. Sizes are in bytes; `report` is that of the original core."""

    core: str
    debug_files: tuple[str, ...]
    frames: int
    zero_filled_frames: int
    core_size: int
    debug_size: int
    report: T


def slice_core(
    core: str,
    debug_files: Sequence[str],
    out_dir: str,
    run: Callable[[Program], T],
    *,
    same: Callable[[T, T], bool] | None = None,
) -> SliceResult[T]:
    """Write out_dir/vmcore and out_dir/vmlinux: as much of `core` as `run` reads.

    `run` is called on three Programs: the original, one that records, and the written pair. What it
    gives on the first and on the last must be equal (so leave out the path and the time), or
    `same(original, pair)` must be true.
    A symbol that was looked up by an address in a kernel module needs a third file, named as the
    module: out_dir/nd_pmem.ko.debug. The same input gives the same bytes.

    Raises TargetError if the core or a debug file cannot be used, if `out_dir` holds the input, or
    if the pair gives another answer; then nothing was written. Lets through what `run` raises on
    the original.
    """
    refuse_to_overwrite(out_dir, [core, *debug_files])
    recorder = _Recorder(_open(core, debug_files))
    report = recorder.run_original(run)
    try:
        recorder.record(debug_files, run, core)
    except Exception as e:
        raise TargetError(f"the audit of {core} failed while it was recorded: {e}") from e
    os.makedirs(out_dir, exist_ok=True)
    source = FrameSource.open(
        core, recorder.original, recorder.vmcoreinfo, _machine(recorder.original)
    )
    pieces = source.pieces(recorder.frames)
    with tempfile.TemporaryDirectory(prefix=".slice-", dir=out_dir) as scratch:
        write_core(os.path.join(scratch, CORE_NAME), source, pieces)
        check = _Check(core, run, report, same if same is not None else _equal)
        names = _write_debug_files(scratch, recorder, check)
        for name in (CORE_NAME, *names):
            os.replace(os.path.join(scratch, name), os.path.join(out_dir, name))
    written = [os.path.join(out_dir, name) for name in (CORE_NAME, *names)]
    return SliceResult(
        core=written[0],
        debug_files=tuple(written[1:]),
        frames=len(recorder.frames),
        zero_filled_frames=count_frames(p for p in pieces if not p.in_file),
        core_size=os.path.getsize(written[0]),
        debug_size=sum(map(os.path.getsize, written[1:])),
        report=report,
    )


def _equal(a: object, b: object) -> bool:
    return a == b


def open_core(core: str) -> Program:
    """Open a core without any types; TargetError if drgn cannot, or it is no vmcore."""
    prog = Program()
    try:
        prog.set_core_dump(core)
    except Exception as e:  # drgn has no class for what libkdumpfile reports
        raise TargetError(f"cannot open {core}: {e}; give an ELF or kdump vmcore") from e
    if prog.flags & drgn.ProgramFlags.IS_LIVE:
        raise TargetError(f"{core} is a live kernel: its memory changes; give a vmcore")
    if not prog.flags & drgn.ProgramFlags.IS_LINUX_KERNEL:
        raise TargetError(f"{core} is not a Linux kernel core: it has no VMCOREINFO note")
    return prog


def _open(core: str, debug_files: Sequence[str]) -> Program:
    """Open a core with its debug files; TargetError if drgn cannot, or finds no vmlinux for it."""
    prog = open_core(core)
    _load_debug_info(prog, core, debug_files)
    return prog


def _load_debug_info(prog: Program, core: str, debug_files: Sequence[str]) -> None:
    for path in debug_files:  # drgn only logs what it cannot read
        try:
            with open(path, "rb"):
                pass
        except OSError as e:
            raise TargetError(f"cannot read {path}: {e.strerror}") from e
    try:
        prog.load_debug_info(list(debug_files))
    except Exception as e:
        raise TargetError(f"cannot use the debug files for {core}: {e}") from e
    if not _has_vmlinux(prog):
        files = ", ".join(debug_files) or "no file"
        raise TargetError(f"{files}: not the vmlinux of {core}; give the one with its build ID")


def _has_vmlinux(prog: Program) -> bool:
    try:
        return prog.main_module().debug_file_path is not None
    except LookupError:
        return False


def recording_program(original: Program, frames: set[int]) -> Program:
    """A Program without types that reads what `original` reads, and notes the page frames that could be read."""

    def read(address: int, count: int, offset: int, physical: bool) -> bytes:
        data: bytes = original.read(address, count, physical=True)
        frames.update(range(address >> FRAME_SHIFT, (address + count - 1 >> FRAME_SHIFT) + 1))
        return data

    prog = Program(original.platform)
    prog.add_memory_segment(0, _U64, read, True)
    prog.set_linux_kernel_custom(vmcoreinfo_of(original), False)
    return prog


def vmcoreinfo_of(prog: Program) -> bytes:
    """The bytes of the note that every vmcore has."""
    return bytes(prog.object("VMCOREINFO").to_bytes_())


def refuse_to_overwrite(out_dir: str, inputs: Sequence[str]) -> None:
    """Raises TargetError if an input lies in the output directory."""
    for path in inputs:
        places = {
            os.path.realpath(os.path.dirname(one) or ".") for one in (path, os.path.realpath(path))
        }
        if os.path.realpath(out_dir) in places:
            raise TargetError(f"{out_dir or '.'} holds the input {path}; give another directory")


# Recording


class _TypeMirror:
    """Copies of one Program's types in another.

    A member of a copy is copied when it is first used, so that `seen` holds the types that were
    used and what they point to, and not all that could be reached.
    """

    def __init__(self, prog: Program) -> None:
        self._prog = prog
        self._copies: dict[tuple[object, ...], Type] = {}
        self.seen: list[Type] = []

    def copy(self, type_: Type) -> Type:
        unqualified = type_.unqualified()
        copy = self._copy_tagged(unqualified) if is_tagged(unqualified) else self._make(unqualified)
        return copy.qualified(type_.qualifiers)

    def _copy_tagged(self, type_: Type) -> Type:
        key = type_key(type_)
        copy = self._copies.get(key)
        if copy is None:
            copy = self._copies[key] = self._make(type_)
            self.seen.append(type_)
        return copy

    def _make(self, type_: Type) -> Type:
        make = getattr(self, "_make_" + type_.kind.name.lower())
        copy = make(type_)
        assert isinstance(copy, Type)
        return copy

    def _make_void(self, _: Type) -> Type:
        return self._prog.void_type()

    def _make_int(self, type_: Type) -> Type:
        return self._prog.int_type(type_.name, type_.size, type_.is_signed, type_.byteorder)

    def _make_bool(self, type_: Type) -> Type:
        return self._prog.bool_type(type_.name, type_.size, type_.byteorder)

    def _make_float(self, type_: Type) -> Type:
        return self._prog.float_type(type_.name, type_.size, type_.byteorder)

    def _make_typedef(self, type_: Type) -> Type:
        return self._prog.typedef_type(type_.name, self.copy(type_.type))

    def _make_pointer(self, type_: Type) -> Type:
        return self._prog.pointer_type(self.copy(type_.type), type_.size, type_.byteorder)

    def _make_array(self, type_: Type) -> Type:
        return self._prog.array_type(self.copy(type_.type), type_.length)

    def _make_function(self, type_: Type) -> Type:
        parameters = [
            drgn.TypeParameter(lambda p=p: self.copy(p.type), p.name) for p in type_.parameters
        ]
        return self._prog.function_type(self.copy(type_.type), parameters, type_.is_variadic)

    def _make_enum(self, type_: Type) -> Type:
        if not type_.is_complete():
            return self._prog.enum_type(type_.tag)
        enumerators = [drgn.TypeEnumerator(e.name, e.value) for e in type_.enumerators or ()]
        return self._prog.enum_type(type_.tag, self.copy(type_.type), enumerators)

    def _make_struct(self, type_: Type) -> Type:
        if not type_.is_complete():
            return self._prog.struct_type(type_.tag)
        return self._prog.struct_type(type_.tag, type_.size, self._members(type_))

    def _make_union(self, type_: Type) -> Type:
        if not type_.is_complete():
            return self._prog.union_type(type_.tag)
        return self._prog.union_type(type_.tag, type_.size, self._members(type_))

    def _make_class(self, type_: Type) -> Type:
        if not type_.is_complete():
            return self._prog.class_type(type_.tag)
        return self._prog.class_type(type_.tag, type_.size, self._members(type_))

    def _members(self, type_: Type) -> list[TypeMember]:
        return [
            TypeMember(lambda m=m: self._member(m), m.name, m.bit_offset)
            for m in type_.members or ()
        ]

    def _member(self, member: TypeMember) -> Object:
        bits = member.bit_field_size
        return Object(self._prog, self.copy(member.type), bit_field_size=bits)


class _TypeQuestion(NamedTuple):
    kind: TypeKind
    name: str
    filename: str | None


class _ObjectQuestion(NamedTuple):
    name: str
    flags: FindObjectFlags
    filename: str | None


class _SymbolQuestion(NamedTuple):
    name: str | None
    address: int | None
    one: bool


@dataclass
class _Questions:
    """Every name and address that was asked for, with the answer; None or [] is an answer too."""

    prog: Program
    types: dict[_TypeQuestion, Type | None] = field(default_factory=dict)
    objects: dict[_ObjectQuestion, Object | None] = field(default_factory=dict)
    symbols: dict[_SymbolQuestion, list[Symbol]] = field(default_factory=dict)

    def type(self, question: _TypeQuestion) -> Type | None:
        if question not in self.types:
            self.types[question] = _find_type(self.prog, question)
        return self.types[question]

    def object(self, question: _ObjectQuestion) -> Object | None:
        if question not in self.objects:
            self.objects[question] = _find_object(self.prog, question)
        return self.objects[question]

    def symbol(self, question: _SymbolQuestion) -> list[Symbol]:
        if question.name is None and question.address is None:  # all: not for a small file
            return _find_symbols(self.prog, question)
        if question not in self.symbols:
            self.symbols[question] = _find_symbols(self.prog, question)
        return self.symbols[question]


def _sorted_kinds(kinds: TypeKindSet) -> list[TypeKind]:
    return sorted(kinds, key=lambda kind: kind.value)


def _find_type(prog: Program, question: _TypeQuestion) -> Type | None:
    try:
        type_ = prog.type(_KEYWORDS.get(question.kind, "") + question.name, question.filename)
    except (LookupError, SyntaxError):
        return None
    return type_ if type_.kind == question.kind else None


def _find_object(prog: Program, question: _ObjectQuestion) -> Object | None:
    try:
        return prog.object(question.name, question.flags, question.filename)
    except LookupError:
        return None


def _find_symbols(prog: Program, question: _SymbolQuestion) -> list[Symbol]:
    name, address, one = question
    key = address if address is not None else name
    if one and key is not None:
        try:
            found = [prog.symbol(key)]
        except LookupError:
            found = []
    else:
        found = prog.symbols(key)
    return [s for s in found if name is None or s.name == name]


class _Finders(NamedTuple):
    """Names of the enabled finders of a Program."""

    types: list[str]
    objects: list[str]
    symbols: list[str]


def _finders(prog: Program) -> _Finders:
    return _Finders(
        prog.enabled_type_finders(), prog.enabled_object_finders(), prog.enabled_symbol_finders()
    )


def _set_finders(prog: Program, finders: _Finders) -> None:
    prog.set_enabled_type_finders(finders.types)
    prog.set_enabled_object_finders(finders.objects)
    prog.set_enabled_symbol_finders(finders.symbols)


@dataclass
class _Listener:
    """Finders that find nothing, and note what they were asked for."""

    types: dict[_TypeQuestion, None] = field(default_factory=dict)
    objects: dict[_ObjectQuestion, None] = field(default_factory=dict)
    symbols: dict[_SymbolQuestion, None] = field(default_factory=dict)

    def register(self, prog: Program) -> None:
        prog.register_type_finder(_FINDER, self._type)
        prog.register_object_finder(_FINDER, self._object)
        prog.register_symbol_finder(_FINDER, self._symbol)

    def _type(self, _: Program, kinds: TypeKindSet, name: str, filename: str | None) -> Type | None:
        for kind in _sorted_kinds(kinds):
            self.types.setdefault(_TypeQuestion(kind, name, filename))
        return None

    def _object(
        self, _: Program, name: str, flags: FindObjectFlags, filename: str | None
    ) -> Object | None:
        self.objects.setdefault(_ObjectQuestion(name, flags, filename))
        return None

    def _symbol(
        self, _: Program, name: str | None, address: int | None, one: bool
    ) -> Sequence[Symbol]:
        self.symbols.setdefault(_SymbolQuestion(name, address, one))
        return []

    def ask(self, questions: _Questions) -> None:
        """Ask the questions that were noted."""
        for type_question in self.types:
            questions.type(type_question)
        for object_question in self.objects:
            questions.object(object_question)
        for symbol_question in self.symbols:
            questions.symbol(symbol_question)


class _Recorder:
    """Runs an audit on the original, and on a Program that asks it for every byte and name.

    The second run shows which frames and types are used: `frames` holds the page frame numbers (of
    4 KiB) that were read and could be read. The first only notes names, since an audit may ask
    other ones when there is a core file that it can open itself.
    """

    def __init__(self, original: Program) -> None:
        self.original = original
        self.frames: set[int] = set()
        self.questions = _Questions(original)
        self.vmcoreinfo = vmcoreinfo_of(original)
        self._prog = recording_program(original, self.frames)
        self._mirror = _TypeMirror(self._prog)

    def run_original(self, run: Callable[[Program], T]) -> T:
        """Return what `run` gives on the original, and note the names that it asks for."""
        prog = self.original
        finders = _finders(prog)
        # drgn's own objects (PAGE_SHIFT, vmemmap) need no debug info: any Program has them.
        own = [n for n in finders.objects if n == "linux"]
        others = [n for n in finders.objects if n != "linux"]
        listener = _Listener()
        listener.register(prog)
        _set_finders(
            prog,
            _Finders(
                [_FINDER, *finders.types], [*own, _FINDER, *others], [_FINDER, *finders.symbols]
            ),
        )
        result = run(prog)
        _set_finders(prog, _Finders(finders.types, others, finders.symbols))
        listener.ask(self.questions)
        return result

    @property
    def types_used(self) -> list[Type]:
        return self._mirror.seen

    def record(self, debug_files: Sequence[str], run: Callable[[Program], T], core: str) -> T:
        """Return what `run` gives on the recording Program."""
        prog = self._prog
        prog.register_type_finder(_FINDER, self._type_finder)
        prog.register_object_finder(_FINDER, self._object_finder)
        prog.register_symbol_finder(_FINDER, self._symbol_finder)
        _set_finders(prog, _Finders([_FINDER], ["linux", _FINDER], [_FINDER]))
        _load_debug_info(prog, core, debug_files)
        return run(prog)

    def _type_finder(
        self, prog: Program, kinds: TypeKindSet, name: str, filename: str | None
    ) -> Type | None:
        for kind in _sorted_kinds(kinds):
            question = _TypeQuestion(kind, name, filename)
            type_ = self.questions.type(question)
            if type_ is not None:
                return self._mirror.copy(type_)
        return None

    def _object_finder(
        self, prog: Program, name: str, flags: FindObjectFlags, filename: str | None
    ) -> Object | None:
        found = self.questions.object(_ObjectQuestion(name, flags, filename))
        if found is None:
            return None
        type_ = self._mirror.copy(found.type_)
        if found.absent_:
            return Object(prog, type_, absence_reason=found.absence_reason_)
        if found.address_ is not None:
            return Object(prog, type_, address=found.address_)
        return Object.from_bytes_(prog, type_, found.to_bytes_())

    def _symbol_finder(
        self, prog: Program, name: str | None, address: int | None, one: bool
    ) -> Sequence[Symbol]:
        return self.questions.symbol(_SymbolQuestion(name, address, one))


# The debug files


class _Addresses:
    """Converts addresses of the running kernel to those in the original vmlinux."""

    def __init__(self, main: drgn.Module) -> None:
        self._ranges = main.address_ranges or ()
        self._bias = main.debug_file_bias or 0

    def in_file(self, address: int) -> int:
        # Per-CPU offsets and kernel modules are outside, and drgn does not relocate them.
        inside = any(start <= address < end for start, end in self._ranges)
        return address - self._bias if inside else address

    def function_in_file(self, address: int) -> int:
        return address - self._bias & _U64  # drgn relocates these wherever they are


def _debug_files(recorder: _Recorder) -> dict[str, DebugFile]:
    """Return the debug files by name, the kernel's first, filled with what was asked for."""
    original = recorder.original
    main = original.main_module()
    addresses = _Addresses(main)
    identity = _identity(main)
    banner = _banner(original, recorder.vmcoreinfo)
    if banner is not None:
        identity = replace(identity, banner=(addresses.in_file(banner[0].address), banner[1]))
    kernel = DebugFile(identity)
    files = {DEBUG_NAME: kernel}
    for type_ in recorder.questions.types.values():
        if type_ is not None:
            kernel.add_type(type_)
    for question, found in recorder.questions.objects.items():
        if found is not None:
            _add_object(kernel, question.name, found, addresses)
    for type_ in recorder.types_used:
        kernel.add_type(type_)
    _add_symbols(files, recorder, addresses)
    if banner is not None:
        kernel.add_symbol(banner[0], addresses.in_file(banner[0].address))
    return files


def _identity(module: drgn.Module) -> ElfIdentity:
    path = module.debug_file_path or module.loaded_file_path
    if path is None or module.build_id is None:
        raise TargetError(f"{module.name}: no debug file with a build ID is loaded for it")
    try:
        return read_elf_identity(path, module.build_id)
    except (OSError, ValueError) as e:
        raise TargetError(f"cannot slice {path}: {e}") from e


def _machine(prog: Program) -> Machine:
    identity = _identity(prog.main_module())
    return Machine(identity.machine, identity.flags, identity.big_endian)


def _banner(prog: Program, vmcoreinfo: bytes) -> tuple[Symbol, bytes] | None:
    """Return linux_banner and its bytes; None if the core names a build ID, which drgn prefers."""
    if b"BUILD-ID=" in vmcoreinfo:
        return None
    try:
        symbol = prog.symbol("linux_banner")
        return symbol, prog.read(symbol.address, symbol.size)
    except (LookupError, drgn.FaultError):
        return None


def _add_object(file: DebugFile, name: str, found: Object, addresses: _Addresses) -> None:
    type_ = found.type_
    address = found.address_
    if type_.kind == TypeKind.FUNCTION:
        where = None if address is None else addresses.function_in_file(address)
        file.add_function(name, type_, address=where)
    elif type_.kind == TypeKind.ENUM and any(e.name == name for e in type_.enumerators or ()):
        file.add_type(type_)
    elif address is not None:
        file.add_variable(name, type_, address=addresses.in_file(address))
    else:
        value = None if found.absent_ else found.to_bytes_()
        file.add_variable(name, type_, value=value)


def _add_symbols(files: dict[str, DebugFile], recorder: _Recorder, addresses: _Addresses) -> None:
    """Add the symbols that were found. drgn looks up an address in the module that contains it."""
    questions = recorder.questions.symbols
    in_modules: set[tuple[str, int]] = set()
    for question, found in questions.items():
        for symbol in found if question.address is not None else ():
            file = _module_file(files, recorder.original, symbol)
            if file is not None:
                file.add_symbol(symbol, symbol.address)
                in_modules.add((symbol.name, symbol.address))
    # Of two equally good symbols at one address drgn takes the first: answers by address go first.
    for question in sorted(questions, key=lambda q: q.address is None):
        for symbol in questions[question]:
            if (symbol.name, symbol.address) not in in_modules:
                files[DEBUG_NAME].add_symbol(symbol, addresses.in_file(symbol.address))


def _module_file(files: dict[str, DebugFile], prog: Program, symbol: Symbol) -> DebugFile | None:
    """Return the debug file for the kernel module that contains a symbol, None for vmlinux."""
    try:
        module = prog.module(symbol.address)
    except LookupError:
        return None
    if module == prog.main_module():
        return None
    name = f"{module.name}.ko.debug"
    if name not in files:
        files[name] = DebugFile(replace(_identity(module), relocatable=True, segments=()))
    return files[name]


# The check


@dataclass(frozen=True)
class _Check(Generic[T]):
    """Opens a written pair and says how it differs from the original."""

    core: str
    run: Callable[[Program], T]
    report: T
    same: Callable[[T, T], bool]

    def difference(self, directory: str, names: Sequence[str], questions: _Questions) -> str:
        """Return how the pair in `directory` differs, "" if it does not."""
        try:
            prog = _open(
                os.path.join(directory, CORE_NAME), [os.path.join(directory, n) for n in names]
            )
            report = self.run(prog)
        except Exception as e:
            return f"{type(e).__name__}: {e}"
        if not self.same(self.report, report):
            return first_difference(self.report, report)
        return next(_other_answers(prog, questions), "")


def _write_debug_files(directory: str, recorder: _Recorder, check: _Check[T]) -> list[str]:
    """Write the debug files next to the core and return their names.

    The types used are known from the recording. What it cannot see (a size, a name that was looked
    for in a type) shows as a difference: then pointers are followed one level more.
    """
    files = _debug_files(recorder)
    difference = ""
    for _ in range(1 + _POINTER_LEVELS):
        for name, file in files.items():
            with open(os.path.join(directory, name), "wb") as out:
                out.write(file.build())
        difference = check.difference(directory, list(files), recorder.questions)
        if not difference:
            return list(files)
        files[DEBUG_NAME].follow_pointers()
    raise TargetError(
        f"the slice of {check.core} gives another answer than the core: {difference}; "
        "nothing was written"
    )


def first_difference(expected: object, got: object) -> str:
    """Where two reports begin to differ, in words."""
    a, b = (str(report).splitlines() for report in (expected, got))
    for line, (x, y) in enumerate(zip(a, b), 1):
        if x != y:
            at = next((i for i, (c, d) in enumerate(zip(x, y)) if c != d), min(len(x), len(y)))
            window = slice(max(at - 40, 0), at + 80)
            return f"line {line} of the report has {y[window]!r} instead of {x[window]!r}"
    return f"the report has {len(b)} lines instead of {len(a)}, or differs where it prints the same"


def _other_answers(prog: Program, questions: _Questions) -> Iterator[str]:
    """Yield what a Program answers in another way than was recorded."""
    for type_question, type_ in questions.types.items():
        if _type_facts(_find_type(prog, type_question)) != _type_facts(type_):
            yield f"type {type_question.name} is not the same"
    for object_question, found in questions.objects.items():
        if _object_facts(_find_object(prog, object_question)) != _object_facts(found):
            yield f"object {object_question.name} is not the same"
    for symbol_question, symbols in questions.symbols.items():
        if _find_symbols(prog, symbol_question) != symbols:
            name, address, _ = symbol_question
            yield f"symbol {name or hex(address or 0)} is not the same"


def _type_facts(type_: Type | None) -> object:
    if type_ is None:
        return None
    return type_key(type_) if is_tagged(type_) else type_.type_name()


def _object_facts(found: Object | None) -> object:
    if found is None:
        return None
    value = None
    if not found.absent_ and found.address_ is None:
        value = found.to_bytes_()
    return (found.type_.type_name(), found.absent_, found.address_, value)
