# SPDX-License-Identifier: LGPL-2.1-or-later
"""Opens what a user names: a vmcore, the live kernel, a QEMU guest; and its debug information.

Owns the checks that drgn leaves to logging: is the debug file of this very kernel, is the core whole?
A kernel without debug information is read by the types that it has of itself (kernel/btf.py); one with a debug file
that does not fit never does.
Every failure becomes one TargetError that says what, which file, why and what to do.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from drgn import Architecture, MissingDebugInfoError, Program, ProgramFlags

from zonedev import _zonedev, diskdump
from zonedev.errors import TargetError
from zonedev.kernel.btf import has_types, types_from, use_btf

_GIVE_VMLINUX = "give the vmlinux with debug information of exactly this kernel with -s"

# What drgn and its libraries say of files that hold no dump.
_NOT_A_CORE = ("not an ELF core", "not a core", "Unknown file format", "not in a recognized format")
# What it says of a kdump header without the kernel's names.
_NO_NAMES = "KDUMP_ATTR_ARCH_NAME"

# What to do where a file is not there.
_GIVE = {
    "core": "give the path of a vmcore, or -k for the running kernel",
    "debug file": "give the path of the vmlinux (or module) with debug information",
}

_ELF_MAGIC = b"\x7fELF"
_ELF_HEADER = 64


@dataclass
class Target:
    """What was asked for on the command line; exactly one of core, kernel and qemu is set.

    btf: True: types are those that the kernel has of itself; False: never; None: where no debug information is found.
    btf_file: a vmlinux whose BTF takes the place of debug information that it lacks, with offset and size in bytes.
    """

    core: Optional[str] = None
    symbols: Sequence[str] = ()
    kernel: bool = False
    qemu: Optional[str] = None
    problems: list[str] = field(default_factory=list)
    format: Optional[str] = None
    btf: Optional[bool] = None
    btf_file: Optional[tuple[str, int, int]] = None

    @property
    def path(self) -> str:
        """Where the memory comes from."""
        return self.core or self.qemu or "/proc/kcore"

    @property
    def words(self) -> list[str]:
        """What names it on the command line of a verb whose argument is a page."""
        place = ["-c", self.core] if self.core else ["--qemu", self.qemu] if self.qemu else ["-k"]
        symbols = [word for path in self.symbols for word in ("-s", path)]
        return [*place, *symbols, *(["--btf"] if self.btf else [])]

    @property
    def name(self) -> str:
        """The target in words."""
        return self.core or self.qemu or "the live kernel"


def _check_file(path: str, what: str) -> None:
    """A file that can be read, or a TargetError."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise TargetError(f"{what} {path}: is a directory; give a file")
        if not stat.S_ISREG(mode):
            raise TargetError(f"{what} {path}: not a regular file; write it to a file first")
        with open(path, "rb"):
            pass
    except FileNotFoundError:
        raise TargetError(f"{what} {path}: no such file; {_GIVE[what]}") from None
    except PermissionError:
        raise TargetError(f"{what} {path}: permission denied; try as root") from None
    except OSError as err:
        raise TargetError(f"{what} {path}: {err.strerror}") from None


def _elf_info(path: str) -> Optional[dict[str, Any]]:
    """What an ELF file says of itself; None for other files or without libelf."""
    if not _zonedev.features()["libelf"]:
        return None
    try:
        with open(path, "rb") as file:
            if file.read(4) != _ELF_MAGIC:
                return None
        return _zonedev.elf_info(path)
    except (OSError, ValueError):
        return None


def _cut_off(path: str, size: int, wanted: int) -> str:
    return f"core {path} is cut off: {size} of {wanted} bytes are there; copy it again"


def _elf_headers_size(path: str) -> int:
    """Bytes that an ELF file's header says its program headers reach to."""
    with open(path, "rb") as file:
        header = file.read(_ELF_HEADER)
    if header[:4] != _ELF_MAGIC:
        return 0
    if len(header) < _ELF_HEADER:
        return _ELF_HEADER
    order = ">" if header[5] == 2 else "<"
    offset, size, count = struct.unpack_from(order + "Q14xHH", header, 32)
    return int(offset + size * count)


def _check_headers(path: str) -> None:
    """An ELF file must hold at least its own headers."""
    size, headers = os.path.getsize(path), _elf_headers_size(path)
    if headers and size < _ELF_HEADER:
        raise TargetError(f"core {path}: not a core: it ends within its ELF header; copy it again")
    if headers > size:
        raise TargetError(_cut_off(path, size, headers) + "; too little of it is left to open it")


def _check_kdump(target: Target) -> None:
    """A core that is no ELF file: is it whole, and what is it?

    No library opens it before its length is known: libkdumpfile maps such files.
    """
    path = target.core or ""
    size = os.path.getsize(path)
    sizes = diskdump.wanted_sizes(path)
    if sizes is None:
        target.format = "flattened" if diskdump.is_flattened(path) else _kdump_format(path)
        return
    if sizes.headers > size:
        raise TargetError(
            _cut_off(path, size, sizes.headers) + "; too little of it is left to open it"
        )
    if sizes.data > size:
        target.problems.append(_cut_off(path, size, sizes.data))
    if diskdump.is_part(path):
        raise TargetError(
            f"core {path}: one of several files of a dump (makedumpfile --split); "
            "put them together with makedumpfile --reassemble FILE... NEW, and give that"
        )
    target.format = _kdump_format(path)


def _kdump_format(path: str) -> Optional[str]:
    """Name of a dump format that libkdumpfile knows; None for other files or without it."""
    if not _zonedev.features()["libkdumpfile"]:
        return None
    try:
        return _zonedev.kdump_info(path)["format"] or None
    except (OSError, ValueError):
        return None


def _check_core(target: Target) -> None:
    assert target.core is not None
    _check_file(target.core, "core")
    if os.path.getsize(target.core) == 0:
        raise TargetError(
            f"core {target.core}: the file is empty: it was not written, or not copied; copy it again"
        )
    _check_headers(target.core)
    info = _elf_info(target.core)
    if info is None:
        _check_kdump(target)
        return
    target.format = "elf"
    if not info["core"]:
        raise TargetError(
            f"core {target.core}: an ELF file, but not a core dump (is it a vmlinux? that goes to -s)"
        )
    if info["wanted_size"] > info["file_size"]:
        target.problems.append(_cut_off(target.core, info["file_size"], info["wanted_size"]))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _reason(error: BaseException) -> str:
    """What went wrong, without an error number."""
    text = error.strerror if isinstance(error, OSError) else None
    return text or _first_line(error)


def _set_core(prog: Program, target: Target) -> None:
    path = target.core or ""
    try:
        _open_core(prog, path)
    except TargetError as err:
        # What is missing of the file explains more than what the libraries say.
        raise TargetError(target.problems[0] if target.problems else str(err)) from None


def _open_core(prog: Program, path: str) -> None:
    try:
        prog.set_core_dump(path)
    # drgn raises plain Exception for failures of its libraries.
    except Exception as err:
        reason = _first_line(err)
        if _NO_NAMES in reason:
            raise TargetError(
                f"core {path}: its header does not name the kernel, as in what QEMU writes with "
                "dump-guest-memory -z; dump the guest as ELF, without -z"
            ) from None
        if diskdump.is_flattened(path):
            raise TargetError(
                f"core {path}: in makedumpfile's flattened format, and cannot be opened as that ({reason}); "
                f"copy it again if it was cut off, or put it together with makedumpfile -R NEW <{path}"
            ) from None
        if any(text in reason for text in _NOT_A_CORE):
            raise TargetError(
                f"core {path}: not a core dump that drgn can open ({reason}); give a vmcore (ELF or kdump)"
            ) from None
        raise TargetError(
            f"core {path}: cannot be opened: {reason}; it is damaged, or of a format that drgn does not read"
        ) from None
    if not prog.flags & ProgramFlags.IS_LINUX_KERNEL:
        raise TargetError(
            f"core {path}: not a core of a Linux kernel (no VMCOREINFO in its notes); "
            "give a vmcore, not the core of a process"
        )


def _set_live(prog: Program) -> None:
    try:
        prog.set_kernel()
    except PermissionError:
        raise TargetError(
            "live kernel: /proc/kcore: permission denied; run as root (and without kernel lockdown)"
        ) from None
    except FileNotFoundError:
        raise TargetError(
            "live kernel: /proc/kcore: no such file; the kernel needs CONFIG_PROC_KCORE, and /proc mounted"
        ) from None
    except Exception as err:
        raise TargetError(
            f"live kernel: /proc/kcore cannot be opened: {_reason(err)}; "
            "run as root, and see that the kernel is not locked down"
        ) from None


def _set_qemu(prog: Program, address: str) -> None:
    if not hasattr(prog, "set_qemu_qmp"):
        raise TargetError("--qemu: this drgn has no QMP support; drgn 0.2 or later has it")
    try:
        prog.set_qemu_qmp(address)
    except Exception as err:
        raise TargetError(
            f"QEMU {address}: {_reason(err)}; give the socket of -qmp unix:SOCKET,server=on,wait=off"
        ) from None
    if not prog.flags & ProgramFlags.IS_LINUX_KERNEL:
        raise TargetError(
            f"QEMU {address}: the guest is not known as a Linux kernel; start QEMU with -device vmcoreinfo"
        )


def kernel_build_id(prog: Program) -> Optional[bytes]:
    """Build id out of VMCOREINFO, None where the kernel has none there (before 5.9)."""
    try:
        text = prog["VMCOREINFO"].string_().decode(errors="replace")
    except LookupError:
        return None
    match = re.search(r"^BUILD-ID=([0-9a-f]+)$", text, re.MULTILINE)
    return bytes.fromhex(match[1]) if match and len(match[1]) % 2 == 0 else None


def _release(prog: Program) -> str:
    try:
        return str(prog["UTS_RELEASE"].string_().decode(errors="replace"))
    except LookupError:
        return "unknown"


def _is_module(path: str) -> bool:
    return re.search(r"\.ko(\.debug)?$", path) is not None


def _check_symbols(prog: Program, target: Target) -> bool:
    """Check debug files by build id before drgn sees them; True where one is the kernel's own."""
    wanted = kernel_build_id(prog)
    own = False
    for path in target.symbols:
        _check_file(path, "debug file")
        if not _zonedev.features()["libelf"]:
            own = True
            continue
        info = _elf_info(path)
        if info is None:
            raise TargetError(f"debug file {path}: not an ELF file; {_GIVE_VMLINUX}")
        if info["core"]:
            raise TargetError(f"debug file {path}: a core dump; {_GIVE_VMLINUX}")
        if _is_module(path):
            continue
        if not info["has_debug_info"] and not info["btf"][1]:
            raise TargetError(
                f"debug file {path}: has no debug information (neither .debug_info nor .BTF); {_GIVE_VMLINUX}"
            )
        if wanted and info["build_id"] != wanted:
            raise TargetError(
                f"debug file {path}: of another kernel: its build id is {info['build_id'].hex() or 'missing'}, "
                f"that of {target.name} is {wanted.hex()} (Linux {_release(prog)}); {_GIVE_VMLINUX}"
            )
        own = True
        if not info["has_debug_info"]:
            target.btf_file = (path, *info["btf"])
    return own


def _load_debug_info(prog: Program, target: Target) -> None:
    default = not (target.symbols and _check_symbols(prog, target))
    try:
        prog.load_debug_info(target.symbols, default=default)
    except MissingDebugInfoError:
        pass
    # drgn and its libraries fail in many ways over a damaged list of modules.
    except Exception as err:
        _load_vmlinux_only(prog, target, _first_line(err))


def _load_vmlinux_only(prog: Program, target: Target, reason: str) -> None:
    """Without modules there are types and symbols enough; what is lost is said."""
    try:
        module = prog.main_module()
        for path in target.symbols:
            module.try_file(path)
    except Exception as err:
        raise TargetError(f"debug information of {target.name}: {_first_line(err)}") from None
    target.problems.append(f"{target.name}: its kernel modules cannot be listed: {reason}")


def _check_modules(prog: Program, target: Target) -> None:
    """A module's debug file must be of the module that is loaded in the dump."""
    names = {
        path: os.path.basename(path).split(".ko")[0].replace("-", "_")
        for path in target.symbols
        if _is_module(path)
    }
    loaded = {m.name: m.build_id for m in prog.modules()} if names else {}
    for path, name in names.items():
        info = _elf_info(path)
        wanted = loaded.get(name)
        if info and wanted and info["build_id"] != wanted:
            raise TargetError(
                f"debug file {path}: of another build of module {name}: its build id is "
                f"{info['build_id'].hex() or 'missing'}, that in {target.name} is {wanted.hex()}; "
                "give the module's file of exactly this kernel, or leave it out"
            )


def _no_debug_info(prog: Program, target: Target, why_no_btf: str = "") -> TargetError:
    useless = f"{', '.join(target.symbols)} has none for this kernel; " if target.symbols else ""
    neither = f", and no types in its own memory ({why_no_btf})" if why_no_btf else ""
    return TargetError(
        f"no debug information for {target.name} (Linux {_release(prog)}){neither}: {useless}install the kernel's "
        "debug package (linux-image-...-dbg, kernel-debuginfo), or " + _GIVE_VMLINUX
    )


def btf_of_file(target: Target) -> Optional[bytes]:
    """The section .BTF of the vmlinux that was named; None where types are those of the kernel's memory."""
    if target.btf_file is None:
        return None
    path, offset, size = target.btf_file
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(min(size, os.fstat(file.fileno()).st_size))
    except OSError as err:
        raise TargetError(f"debug file {path}: {err.strerror or err}") from None


def _load_btf(prog: Program, target: Target) -> None:
    try:
        use_btf(prog, btf_of_file(target))
        if has_types(prog):
            return
        reason = "BTF: it has no struct page"
    except TargetError as err:
        reason = str(err)
    if target.btf:
        raise TargetError(f"{target.name}: --btf: {reason}; {_GIVE_VMLINUX}")
    raise _no_debug_info(prog, target, reason)


def _load_types(prog: Program, target: Target) -> None:
    """Debug information; the kernel's own types where these are asked for, or nothing else was named or found."""
    if not target.btf:
        _load_debug_info(prog, target)
    may_be_btf = (target.btf_file or not target.symbols) and target.btf is not False
    if may_be_btf and (target.btf or not has_types(prog)):
        _load_btf(prog, target)
    check_kernel(prog, target)
    _check_modules(prog, target)


def check_kernel(prog: Program, target: Target) -> None:
    """The types are there and of this kernel: what is read through them agrees with the dump."""
    if not has_types(prog):
        raise _no_debug_info(prog, target)
    source = "BTF and kallsyms" if types_from(prog) == "btf" else "the debug information"
    blame = "" if types_from(prog) == "btf" else ", or the debug file is of another kernel"
    try:
        release = prog["init_uts_ns"].name.release.string_().decode(errors="replace")
    except Exception as err:
        if "Invalid kernel version" in str(err):
            # libkdumpfile wants three numbers, which a release candidate may not have ("7.3-amd64").
            raise TargetError(
                f"{target.name}: libkdumpfile, through which drgn reads this format, cannot tell a kernel version from "
                f"{_release(prog)!r}; save the dump as ELF (makedumpfile -E, or a copy of /proc/vmcore)"
            ) from None
        raise TargetError(
            f"{target.name}: the kernel's memory cannot be read through {source} "
            f"({_first_line(err)}); the core is damaged or cut off{blame}"
        ) from None
    if release != _release(prog):
        raise TargetError(
            f"{target.name} is of Linux {_release(prog)}, but {source} finds {release!r} there: "
            "it is of another kernel; " + _GIVE_VMLINUX
        )


def open_target(target: Target) -> Program:
    """A Program with types and symbols: those of debug information, or the kernel's own.

    :raises TargetError: it cannot be opened, is no kernel, or has no fitting debug information
    """
    prog = Program()
    if target.kernel:
        _set_live(prog)
    elif target.qemu:
        _set_qemu(prog, target.qemu)
    else:
        _check_core(target)
        assert target.core is not None
        _set_core(prog, target)
    if prog.platform is None or prog.platform.arch == Architecture.UNKNOWN:
        known = ", ".join(a.name.lower() for a in Architecture if a != Architecture.UNKNOWN)
        raise TargetError(
            f"{target.name}: of an architecture that drgn does not know; it knows {known}"
        )
    try:
        _load_types(prog, target)
    except TargetError as err:
        # That a core is cut off explains more than what could not be found in it.
        more = [problem for problem in target.problems if problem not in str(err)]
        raise TargetError("; ".join([str(err), *more])) from None
    return prog
