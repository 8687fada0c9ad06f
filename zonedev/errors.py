# SPDX-License-Identifier: LGPL-2.1-or-later
"""The errors that a user sees as one line: what, which file, why, what to do; exit code 2."""


class ZonedevError(Exception):
    """Base of the errors that are shown as one line and never as a traceback."""


class TargetError(ZonedevError):
    """The target cannot be audited: no such file, not a core, wrong debug file, ..."""


class UsageError(ZonedevError):
    """The command's words make no sense."""


class ValidationError(ZonedevError):
    """validate() found violations; the audit is in .result."""

    def __init__(self, message: str, result: object) -> None:
        super().__init__(message)
        self.result = result
