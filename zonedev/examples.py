# SPDX-License-Identifier: LGPL-2.1-or-later
"""The examples of --help, one table for the program and for drgn's command; each of them is run by a test.

@ stands for the words that name a target: none in drgn, where the kernel is what drgn was started on.
"""

from __future__ import annotations

from typing import NamedTuple


class Example(NamedTuple):
    """Words behind the program's name, and what they are good for."""

    words: str
    what: str


EXAMPLES: dict[str, tuple[Example, ...]] = {
    "": (
        Example("audit @", "is anything wrong? exit status 0: no"),
        Example("explain @ 0x101310", "who holds this page?"),
        Example("rules reference-on-free-folio", "what does this finding mean?"),
    ),
    "list": (
        Example("list @", "one row for each pagemap"),
        Example("list @ --format json", "the same for scripts"),
    ),
    "audit": (
        Example("audit @", "errors and warnings; what is legal is only counted"),
        Example("audit @ --severity info", "everything: held without a map, pinned, poisoned"),
        Example("audit @ --pgmap pmem0 --explain", "one device, and who holds what is wrong"),
        Example("audit @ --rule held-without-map --format csv", "one rule, for a spreadsheet"),
        Example("audit @ -q --fail-on warning", "print nothing; exit status 1 from a warning on"),
    ),
    "map": (
        Example("map @", "where is what is wrong?"),
        Example("map @ --pgmap pmem0 --pfn 0x101000-0x1013ff", "closer"),
    ),
    "page": (
        Example("page @ 0x101310", "by pfn"),
        Example("page @ phys:0x101310000", "by physical address, as in a machine check"),
        Example("page @ 0x101310 --format json", "for scripts"),
    ),
    "explain": (
        Example("explain @ 0x101310", "by pfn; also phys:ADDRESS or the address of a struct page"),
        Example("explain @ 0x101310 --budget 0", "without a search of memory: at once"),
    ),
    "files": (
        Example("files @", "the files that DAX memory is in use by"),
        Example("files @ --inode 12", "which pages of file 12 lie where"),
    ),
    "waiters": (Example("waiters @", "why does ndctl or umount hang?"),),
    "scheme": (
        Example("scheme @", "where do free pages rest in this kernel, and how is that known?"),
    ),
    "rules": (
        Example("rules", "all of them"),
        Example("rules R01", "one explained: when, what it means, what it is not"),
        Example("rules --format json", "for scripts"),
    ),
    "diff": (
        Example("diff before.json after.json", "two reports of audit --format json"),
        Example("diff before.json after.json --severity info", "also what is legal"),
    ),
    "slice": (
        Example("slice @ -o small", "a small core that may be sent to somebody"),
        Example("slice @ -o small --with explain", "with what explains its findings"),
    ),
}

_TARGET, _NAMED_TARGET = "VMCORE -s VMLINUX", "-c VMCORE -s VMLINUX"

# Their first argument is a page, so that the target is named by options.
_BY_OPTION = ("page", "explain")


def command(prog: str, example: Example, with_target: bool) -> str:
    """An example as it is typed."""
    verb = example.words.split()[0]
    target = _NAMED_TARGET if verb in _BY_OPTION else _TARGET
    words = example.words.replace(" @", f" {target}" if with_target else "")
    return f"{prog} {words}"


def examples_text(prog: str, verb: str, with_target: bool) -> str:
    """The part of --help."""
    lines = []
    for example in EXAMPLES.get(verb, ()):
        lines += [f"  # {example.what}", f"  {command(prog, example, with_target)}"]
    return "\n".join(["examples:", *lines]) if lines else ""
