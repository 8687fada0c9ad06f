# SPDX-License-Identifier: LGPL-2.1-or-later
"""Sphinx: how docs/*.md become HTML and the man page (make docs).

What is generated (generated.py) takes the place of a line "<!-- generated: NAME -->" in a page.  A page that is
new in docs/ is found by itself: in docs/howto/ among the how-tos, else among the topics.
"""

import os
import re
import sys
from pathlib import Path
from typing import Any

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

HERE = Path(__file__).resolve().parent
# How wide argparse writes usage.
os.environ["COLUMNS"] = "100"
sys.path[:0] = [str(HERE), str(HERE.parent)]

from generated import GENERATORS  # noqa: E402

from zonedev._version import VERSION  # noqa: E402

project = "zonedev"
author = "the zonedev authors"
copyright = "LGPL-2.1-or-later"
release = version = VERSION

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
myst_enable_extensions = ["deflist", "attrs_inline"]
myst_heading_anchors = 3
exclude_patterns = ["requirements.txt"]
if "man" not in tags:  # type: ignore[name-defined]  # noqa: F821
    exclude_patterns.append("man")
if not (HERE.parent / "CHANGELOG.md").exists():
    exclude_patterns.append("changelog.md")

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"zonedev {VERSION}"
html_static_path = ["_static"]
html_css_files = ["zonedev.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}
pygments_style = "default"
pygments_dark_style = "monokai"

man_pages = [("man/zonedev", "zonedev", "audit the struct pages of ZONE_DEVICE memory", "", 1)]
man_show_urls = False

_TOKEN = re.compile(r"^<!-- generated: ([a-z-]+) -->$", re.MULTILINE)
_PAGE = re.compile(r"\[([a-z]+)\.md\]\(\1\.md\)|(?<![\[`])`(?:docs/)?([a-z]+)\.md`(?!`)")
# Not in literals, whose backquotes follow or precede.
_ENDS_IN_UNDERSCORE = re.compile(r"(?<![`\w])(\w+)_(?![`\w])")


def link(named: "re.Match[str]") -> str:
    """The file name of a page as a link with its title, where there is a page of that name."""
    name = named[1] or named[2]
    return f"[](/{name}.md)" if (HERE / f"{name}.md").exists() else named[0]


def tidy(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: "list[str]") -> None:
    """Leave out what modules say of themselves, which is for those who change them; MEMORY_DEVICE_ is no link."""
    if what == "module":
        lines.clear()
    lines[:] = [_ENDS_IN_UNDERSCORE.sub(r"\1\\_", line) for line in lines]


def without_aliases(
    app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any
) -> "bool | None":
    """Leave out the fields of named tuples, which stand in their signatures."""
    return True if type(obj).__name__ == "_tuplegetter" else None


def fill_in(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put what is generated into a page that asks for it, and links where pages are named."""
    text = _TOKEN.sub(lambda token: GENERATORS[token[1]](), source[0])
    source[0] = _PAGE.sub(link, text)


def setup(app: Sphinx) -> None:
    """Register the lexers of examples, and the generators."""
    for kind in ("usage", "output"):
        app.add_lexer(kind, TextLexer)
    app.connect("source-read", fill_in)
    app.connect("autodoc-process-docstring", tidy)
    app.connect("autodoc-skip-member", without_aliases)
