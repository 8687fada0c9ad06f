# SPDX-License-Identifier: LGPL-2.1-or-later
"""Asks the kernel's types and symbols for what tells its refcount scheme.

Owns the asking; what to ask and what follows from the answers is the table in ext/core/scheme.c.
Never looks at a version number: distributions backport.
"""

from __future__ import annotations

from collections.abc import Callable

from drgn import Program

from zonedev import _zonedev
from zonedev.model import SchemeInfo

# Suffixes of clones that compilers make of one function.
_CLONES = ("", ".isra.0", ".constprop.0", ".part.0", ".cold")
_CACHE = "zonedev symbols"


def _has_member(prog: Program, name: str) -> bool:
    type_name, member = name.split(".")
    try:
        return bool(prog.type(f"struct {type_name}").has_member(member))
    except LookupError:
        return False


def _is_found(look: Callable[[str], object], name: str) -> bool:
    try:
        look(name)
        return True
    except LookupError:
        return False


def has_symbol(prog: Program, name: str) -> bool:
    """True where the symbol table has the name, or a compiler's clone of it."""
    answers = _answers(prog)
    if name not in answers:
        answers[name] = any(_is_found(prog.symbol, name + clone) for clone in _CLONES)
    return answers[name]


def _answers(prog: Program) -> dict[str, bool]:
    """What has_symbol() found in the symbol tables that the program has now.

    A name that none of them has costs a walk over all of them, in every audit of a series.
    """
    files = [(m.loaded_file_path, m.debug_file_path) for m in prog.modules()]
    tables = (prog.enabled_symbol_finders(), files)
    known = prog.cache.get(_CACHE)
    if known is None or known[0] != tables:
        known = prog.cache[_CACHE] = (tables, {})
    answers: dict[str, bool] = known[1]
    return answers


def _has_function(prog: Program, name: str) -> bool:
    """True for functions that are inlined everywhere, too (DWARF has them without an address)."""
    return _is_found(prog.function, name) or has_symbol(prog, name)


def _has_enumerator(prog: Program, name: str) -> bool:
    return _is_found(prog.constant, name)


_ASK: dict[str, Callable[[Program, str], bool]] = {
    "member": _has_member,
    "symbol": has_symbol,
    "function": _has_function,
    "enumerator": _has_enumerator,
}


def detect_scheme(prog: Program) -> tuple[_zonedev.Scheme, SchemeInfo]:
    """The scheme of the kernel, for the core and for people."""
    kinds = dict(_zonedev.probes())
    evidence = {name: _ASK[kind](prog, name) for name, kind in kinds.items()}
    scheme = _zonedev.Scheme(evidence)
    words = [
        f"{kinds[name]} {name}: {'present' if evidence[name] else 'absent'}"
        for name in scheme.decisive
    ]
    idle = {type_: scheme.idle(type_) for type_ in _zonedev.TYPES}
    return scheme, SchemeInfo(scheme.id, scheme.title, scheme.confidence, words, idle)
