# SPDX-License-Identifier: LGPL-2.1-or-later
"""How results show themselves at a prompt: the report where there is one, else a line; never a million of them.

repr() is one line.  drgn's prompt and IPython show str(), which is the report.  A long list shows its first items and how
many more there are.  Owns no words: what is told of an object is its own brief().
"""

from __future__ import annotations

import abc
import sys
from collections.abc import Iterable
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")

_ITEMS_SHOWN = 10


class Displayed(abc.ABC):
    """Base of results (their dataclasses have repr=False)."""

    @abc.abstractmethod
    def brief(self) -> str:
        """What it is, in one line."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.brief()}>"

    def __str__(self) -> str:
        return self.brief()

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """For IPython."""
        printer.text(repr(self) if cycle else str(self).rstrip("\n"))


class Listing(list[T]):
    """A list that shows its first items, one a line."""

    def __init__(self, items: Iterable[T] = ()) -> None:
        super().__init__(items)

    def __repr__(self) -> str:
        lines = [repr(item) for item in islice(self, _ITEMS_SHOWN)]
        if len(self) > _ITEMS_SHOWN:
            lines.append(f"... {len(self) - _ITEMS_SHOWN} more")
        return "[" + ",\n ".join(lines) + "]"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """For IPython."""
        printer.text(repr(self))


def _show_in_drgn() -> None:
    """Have drgn's prompt show str() of results, where there is a prompt: its module is not imported for that."""
    # Since drgn commit 0214900d ("cli: add a decorator to display types with str()") (in v0.1.0).
    cli = sys.modules.get("drgn.cli")
    if cli is not None and hasattr(cli, "display_str"):
        cli.display_str(Displayed)


_show_in_drgn()
