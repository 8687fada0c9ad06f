# SPDX-License-Identifier: LGPL-2.1-or-later
"""Lists of what could not be read, as every look at a kernel's memory keeps one."""

from __future__ import annotations

_MORE = "and more"


def note(gaps: list[str], text: str, most: int = 20) -> None:
    """Add a gap, once; of more than *most*, that there are more."""
    if text in gaps:
        return
    if len(gaps) < most:
        gaps.append(text)
    elif len(gaps) == most:
        gaps.append(_MORE)
