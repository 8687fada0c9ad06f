# SPDX-License-Identifier: LGPL-2.1-or-later
"""The errors that a user sees as one line: what, which file, why, what to do; exit code 2."""

from __future__ import annotations

from typing import TYPE_CHECKING

import drgn.helpers

from zonedev.kernel.strings import printable

if TYPE_CHECKING:
    from zonedev.model import Audit


class ZonedevError(Exception):
    """Base of the errors that are shown as one line and never as a traceback.

    What stands in it may come out of a dump or be the name of a file: it does not write to a terminal.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(" ".join(message.splitlines())))


class TargetError(ZonedevError):
    """The target cannot be audited: no such file, not a core, wrong debug file, ..."""


class UsageError(ZonedevError):
    """The command's words make no sense."""


class ValidationError(ZonedevError, drgn.helpers.ValidationError):
    """validate() found violations: a :class:`drgn.helpers.ValidationError` with the audit in .result."""

    def __init__(self, message: str, result: Audit) -> None:
        super().__init__(message)
        self.result = result
