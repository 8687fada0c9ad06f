# SPDX-License-Identifier: LGPL-2.1-or-later
"""What could not be read: what drgn raises then, and the list that every look at a kernel's memory keeps of it."""

from __future__ import annotations

from drgn import FaultError

ERRORS = (FaultError, LookupError, AttributeError, ValueError, OverflowError, TypeError)
"""What drgn raises for memory that is not there, or makes no sense."""

_MORE = "and more"


def note(gaps: list[str], text: str, most: int = 20) -> None:
    """Add a gap, once; of more than *most*, that there are more."""
    if text in gaps:
        return
    if len(gaps) < most:
        gaps.append(text)
    elif len(gaps) == most:
        gaps.append(_MORE)
