#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Write docs/rules.md out of the rule table.

usage: rules_doc.py [FILE]     (default docs/rules.md; with a Python that has zonedev)
"""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path
from typing import Any

from zonedev import _zonedev
from zonedev.model import short_type

OUT = Path(__file__).resolve().parent.parent / "docs" / "rules.md"

HEAD = """\
<!-- SPDX-License-Identifier: LGPL-2.1-or-later -->
# Rules

What each rule finds: when it fires, for which memory types and ways of counting ([schemes](schemes.md)), what that means, and what looks like it and is
sound. `zonedev rules RULE` prints the same.

Written by `scripts/rules_doc.py` out of the table in `ext/core/rules.c`: change that, not this. The order is that of the table: the first
row that fires names a finding, others stand in `also`. Words: `base` is the refcount of a free folio of the memory type, `extra` what
the refcount has beyond base and maps, `pins` and `plain` its parts (1024 references of an order-0 folio are one pin).
"error": no kernel of the scheme permits the state; "warning": a defect leaves it behind, but a legal sequence can reach it, too; "info":
legal, and worth seeing.

"""


def level(row: dict[str, Any]) -> str:
    """Its severity, and that without its evidence."""
    without = row["severity_unproven"]
    if row["evidence"] == "none":
        return str(row["severity"])
    if without == row["severity"]:
        return f"{without} (evidence: {row['evidence']})"
    return f"{row['severity']}; {without} without {row['evidence']}"


def types(row: dict[str, Any]) -> str:
    names = [short_type(name) for name in row["types"]]
    return "all" if len(names) == len(_zonedev.TYPES) else ", ".join(names)


def schemes(row: dict[str, Any]) -> str:
    names = [name for name in row["schemes"] if name != "unknown"]
    return "all" if len(names) == len(_zonedev.SCHEMES) - 1 else ", ".join(names)


def cell(text: str) -> str:
    return text.replace("|", "\\\\|")


def chapter(id_: str, rows: list[dict[str, Any]]) -> str:
    """One rule: a table of its rows."""
    number = f" ({rows[0]['number']})" if rows[0]["number"] != "-" else ""
    lines = [f"## {id_}{number}", ""]
    lines.append("| level | memory types | schemes | when | means | near miss |")
    lines.append("|---|---|---|---|---|---|")
    for row in rows:
        words = (row["predicate"], row["meaning"], row["near_miss"])
        lines.append(
            "| " + " | ".join(map(cell, (level(row), types(row), schemes(row), *words))) + " |"
        )
    bugs = dict.fromkeys(row["bug_class"] for row in rows if row["bug_class"] != "none")
    if bugs:
        lines += ["", f"Bug classes: {'; '.join(bugs)}."]
    return "\n".join(lines) + "\n"


def document() -> str:
    """The whole file."""
    rows = _zonedev.rules()
    order = {row["id"]: i for i, row in reversed(list(enumerate(rows)))}
    rows.sort(key=lambda row: order[row["id"]])
    chapters = [chapter(id_, list(group)) for id_, group in groupby(rows, lambda row: row["id"])]
    return HEAD + "\n".join(chapters)


if __name__ == "__main__":
    (Path(sys.argv[1]) if len(sys.argv) > 1 else OUT).write_text(document())
