# SPDX-License-Identifier: LGPL-2.1-or-later
"""zonedev.helpers: the one import of users; how its results look at a prompt; its types.

Owns: what a script or a session relies on without looking further.
Does not: check what audits and explanations find (test_vmcores.py, test_explain.py).
"""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import drgn
import pytest
from conftest import ROOT, Vmcore, open_vmcore
from drgn import Object, get_default_prog, set_default_prog

import zonedev.helpers
from zonedev.display import Displayed, Listing
from zonedev.errors import ZonedevError
from zonedev.helpers import (
    UsageError,
    ValidationError,
    audit,
    dax_files,
    dev_pagemap_ranges,
    explain,
    folio,
    for_each_dax_entry,
    for_each_dev_pagemap,
    list_pagemaps,
    rules_applicability,
    scheme,
    validate,
    waiters,
)
from zonedev.model import Audit

LEAK = "7.2-nvdimm-leak"

FUNCTIONS = {
    name: value
    for name in zonedev.helpers.__all__
    if inspect.isfunction(value := getattr(zonedev.helpers, name))
}


@pytest.fixture
def default() -> Any:
    """A core as drgn's prompt has it: as the default program."""
    try:
        before = get_default_prog()
    except drgn.NoDefaultProgramError:
        before = None
    vmcore = open_vmcore("7.2-explain")
    set_default_prog(vmcore.prog)
    yield vmcore
    set_default_prog(before)


# ---------------------------------------------------------------- the helpers


def test_names_do_not_hide_those_of_drgn() -> None:
    import drgn.helpers.common
    import drgn.helpers.linux

    theirs = {*drgn.helpers.common.__all__, *drgn.helpers.linux.__all__}  # type: ignore[attr-defined]
    assert not theirs & set(zonedev.helpers.__all__)


def answer(function: Any, *words: Any) -> str:
    try:
        result = function(*words)
    except ValidationError as err:
        return str(err)
    return repr(list(result) if inspect.isgenerator(result) else result)


def test_prog_may_be_left_out(default: Vmcore) -> None:
    pgmaps = list(for_each_dev_pagemap())
    calls: dict[str, tuple[Any, ...]] = {
        "dev_pagemap_ranges": (pgmaps[0],),
        "explain": (0x101310,),
        "folio": (0x101310,),
    }
    for name, function in FUNCTIONS.items():
        words = calls.get(name, ())
        first, second = answer(function, *words), answer(function, default.prog, *words)
        assert first == second and first, name


def test_docstrings_are_as_those_of_drgn() -> None:
    for name, function in FUNCTIONS.items():
        text = inspect.getdoc(function) or ""
        assert text.splitlines()[0].endswith("."), name
        for parameter in inspect.signature(function).parameters:
            if name == "validate" and parameter != "prog":
                assert "Parameters are those of :func:`audit()`" in text
            else:
                assert f":param {parameter}:" in text, (name, parameter)
        assert ":raises" in text and (":return" in text or name != "audit"), name


def test_pagemaps_by_number_and_by_object(newest: Vmcore) -> None:
    pgmap = next(iter(for_each_dev_pagemap(newest.prog)))
    (one,) = [p for p in list_pagemaps(newest.prog) if p.address == int(pgmap)]
    said: list[Any] = [pgmap, int(pgmap), one.ranges[0].start_pfn, one.device]
    for what in [*said, said]:
        result = audit(newest.prog, pgmaps=what, quick=True)
        assert [p.pagemap.address for p in result.pagemaps] == [one.address]


def test_the_kernels_own_types_do() -> None:
    """A Program without debug information: each helper may be the first."""
    core = open_vmcore("6.16-btf-p2p-leak").core
    first: dict[str, Callable[[drgn.Program], Any]] = {
        "audit": lambda prog: audit(prog).verdict,
        "list_pagemaps": list_pagemaps,
        "for_each_dev_pagemap": lambda prog: list(for_each_dev_pagemap(prog)),
        "scheme": scheme,
        "rules_applicability": rules_applicability,
        "waiters": waiters,
        "folio": lambda prog: folio(prog, 1015845),
    }
    answers: dict[str, str] = {}
    for name, helper in first.items():
        prog = drgn.Program()
        prog.set_core_dump(core)
        answers[name] = str(helper(prog))
        assert answers[name] == str(helper(prog)), name
    assert answers["audit"] == "violations"


def test_validation(newest: Vmcore) -> None:
    assert validate(newest.prog).verdict == "clean"
    with pytest.raises(drgn.helpers.ValidationError) as caught:
        validate(open_vmcore(LEAK).prog, quick=True)
    assert isinstance(caught.value, ValidationError) and isinstance(caught.value, ZonedevError)
    assert caught.value.result.verdict == "violations"
    assert caught.value.result.not_applicable, "it is the whole audit"
    with pytest.raises(ValidationError):
        validate(newest.prog, fail_on="info")


def test_validation_takes_what_an_audit_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, wanted = (list(inspect.signature(f).parameters.values()) for f in (validate, audit))
    assert asked == wanted
    options = {one.name: object() for one in wanted if one.kind is one.KEYWORD_ONLY}
    said: list[tuple[Any, ...]] = []

    def stand_in(*words: Any, **named: Any) -> Audit:
        said.append((words, named))
        raise LookupError

    prog = drgn.Program()
    monkeypatch.setattr("zonedev.audit.audit", stand_in)
    with pytest.raises(LookupError):
        validate(prog, **options)
    assert said == [((prog,), options)] and len(options) > 8


def test_ranges_of_a_pagemap(newest: Vmcore) -> None:
    pgmaps = list(for_each_dev_pagemap(newest.prog))
    assert [p.type_.type_name() for p in pgmaps] == ["struct dev_pagemap *"] * 6
    listed = {p.address: p for p in list_pagemaps(newest.prog)}
    for pgmap in pgmaps:
        ranges = dev_pagemap_ranges(pgmap)
        assert ranges == dev_pagemap_ranges(newest.prog, int(pgmap)) == listed[int(pgmap)].ranges
        assert ranges[0].start_pfn == int(pgmap.range.start) >> 12
        assert ranges[0].end_pfn == (int(pgmap.range.end) >> 12) + 1
    assert dev_pagemap_ranges(Object(newest.prog, "struct dev_pagemap *", value=1)) == []


def test_one_name_is_as_good_as_a_list(newest: Vmcore) -> None:
    one = audit(newest.prog, types="fs_dax", pgmaps="pmem0", quick=True)
    many = audit(newest.prog, types=["fs_dax"], pgmaps=("pmem0",), quick=True)
    assert one.pages == many.pages == 65536
    assert one.filters == many.filters == {"type": ["fs_dax"], "pgmap": ["pmem0"]}


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        ({"fail_on": "fatal"}, "fail_on='fatal' is no severity; .*info, warning, error"),
        ({"samples": 1}, "samples=1: give 0 or more milliseconds, and 2 or more"),
        ({"resample_ms": -1}, "resample_ms=-1"),
        ({"types": "frob"}, "no pagemap has the type 'frob'"),
    ],
)
def test_options_that_make_no_sense(newest: Vmcore, options: dict[str, Any], fragment: str) -> None:
    for function in (audit, validate):
        with pytest.raises(UsageError, match=fragment):
            function(newest.prog, **options)


def test_findings_name_their_device() -> None:
    result = audit(open_vmcore("5.10-teardown-tasks").prog)
    devices = {r.pagemap.address: r.pagemap.device for r in result.pagemaps}
    assert {f.device for f in result.findings} == {"namespace0.0", "dax1.0"}
    assert all(f.device == devices[f.pagemap] for f in result.findings)


# ---------------------------------------------------------------- at a prompt


def results() -> list[Displayed]:
    vmcore, prog = open_vmcore("7.2-explain"), open_vmcore(LEAK).prog
    result = audit(prog)
    report = waiters(open_vmcore("5.10-teardown-tasks").prog)
    return [
        result,
        result.findings[0],
        result.pagemaps[0],
        result.pagemaps[0].pagemap,
        folio(prog, 0x1082FC),
        explain(vmcore.prog, 0x101310, budget_s=0),
        report,
        report.held[0],
        scheme(prog),
    ]


class Printer:
    """What IPython gives to _repr_pretty_()."""

    def __init__(self) -> None:
        self.shown = ""

    def text(self, text: str) -> None:
        self.shown += text


def test_repr_is_a_line_and_str_is_the_report() -> None:
    for result in results():
        line, name = repr(result), type(result).__name__
        assert line.startswith(f"<{name} ") and line.endswith(">"), line
        assert "\n" not in line and len(line) < 250, line
        printer = Printer()
        result._repr_pretty_(printer, False)
        assert printer.shown == str(result).rstrip("\n") and printer.shown


def test_what_lines_say() -> None:
    made, finding, on_pagemap, pagemap, page, account, waiting, held, kernel = map(repr, results())
    core = open_vmcore(LEAK).core
    assert made == f"<Audit of {core}: violations, 303104 pages of 5 pagemaps, 27 findings>"
    assert finding == (
        "<Finding error refcount-below-mapcount at pfn 0x108245 of pmem0, refcount 1 (expected 2), mapcount 2>"
    )
    assert pagemap == "<Pagemap pmem0 FS_DAX, 65536 pages from pfn 0x100000, live>"
    assert on_pagemap == (
        "<PagemapResult pmem0 FS_DAX, 65536 pages from pfn 0x100000, live: 60398 idle, 4623 busy, 515 violation>"
    )
    assert page == (
        "<FolioReport of pfn 0x1082fc (pmem0): violation, refcount 1, mapcount 0: reference-on-free-folio>"
    )
    assert account.startswith("<Explanation of pfn 0x101310: refcount ")
    assert waiting.startswith("<WaitersReport of 5 pagemaps: 1 for namespace0.0 FS_DAX, ")
    assert held.endswith("dying: 1 tasks wait, 2 pages in use>")
    assert kernel.startswith("<SchemeReport H: ")


def test_a_finding_by_itself() -> None:
    finding = audit(open_vmcore(LEAK).prog).findings[0]
    assert str(finding).splitlines() == [
        "error: refcount-below-mapcount; pmem0; pfn 0x108245; refcount 1 (expected 2), mapcount 2; inode 13",
        "  of pmem0 (ext4); flags reserved",
        "  fewer references than maps: the next unmap frees a page that is still mapped",
    ]


def test_a_pagemap_by_itself(newest: Vmcore) -> None:
    lines = str(list_pagemaps(newest.prog)[1]).splitlines()
    assert lines[:7] == [
        "device   pmem2",
        "type     FS_DAX",
        "pages    114688 (448 MiB)",
        "pfns     0x111000-0x12cfff",
        "order    0",
        "memmap   altmap (2048 pages)",
        "ref      live 112641",
    ]


def test_a_million_findings_do_not_flood_a_prompt() -> None:
    result: Audit = audit(open_vmcore(LEAK).prog, quick=True)
    many = [result.findings[0]] * 1_000_000
    large = Audit(**{**vars(result), "findings": many})
    assert len(large.findings) == 1_000_000 and large.findings == many
    for shown in (repr(large), repr(large.findings), str(large), repr(large.shown("info"))):
        assert len(shown) < 10_000
    assert repr(large.findings).endswith(",\n ... 999990 more]")
    printer = Printer()
    large.findings._repr_pretty_(printer, False)  # type: ignore[attr-defined]
    assert printer.shown == repr(large.findings)


@pytest.mark.parametrize(
    ("items", "text"),
    [
        ([], "[]"),
        ([1], "[1]"),
        ([1, 2], "[1,\n 2]"),
        (range(12), "[" + ",\n ".join(map(str, range(10))) + ",\n ... 2 more]"),
    ],
)
def test_listing(items: Any, text: str) -> None:
    made: Listing[int] = Listing(items)
    assert made == list(items) and repr(made) == text


def test_long_lists_of_results_are_listings(default: Vmcore) -> None:
    result = audit()
    made = (
        list_pagemaps(),
        dax_files(),
        result.pagemaps,
        result.findings,
        result.shown("info"),
        explain(0x101310, budget_s=0).holders,
        waiters().held,
    )
    assert {type(one) for one in made} == {Listing}
    assert sum(1 for _ in for_each_dax_entry()) > 10 and len(rules_applicability()) > 50


# ---------------------------------------------------------------- types


def python(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=cwd, capture_output=True, text=True, check=False
    )


USER = """\
from collections.abc import Iterator

from drgn import Object, Program

from zonedev.helpers import (
    ValidationError,
    audit,
    dev_pagemap_ranges,
    explain,
    folio,
    for_each_dev_pagemap,
    validate,
    waiters,
)
from zonedev.model import Audit, Finding


def pages(prog: Program) -> int:
    pgmaps: Iterator[Object] = for_each_dev_pagemap(prog)
    return sum(r.pages for pgmap in pgmaps for r in dev_pagemap_ranges(pgmap))


def nightly(prog: Program) -> list[Finding]:
    try:
        result: Audit = validate(prog, fail_on="warning", types="fs_dax")
    except ValidationError as err:
        result = err.result
    return [f for f in result.findings if f.pfn is not None and folio(prog, f.pfn).findings]


def at_the_prompt(page: Object) -> int:
    return explain(page).unexplained + audit(quick=True).count("error") + len(waiters().held)
"""


def test_a_typed_script_of_a_user(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    (tmp_path / "good.py").write_text(USER)
    bad = USER.replace('types="fs_dax"', "kinds=1").replace(".unexplained", ".unknown")
    (tmp_path / "bad.py").write_text(bad)
    (tmp_path / "mypy.ini").write_text(f"[mypy]\nstrict = true\nmypy_path = {ROOT}\n")
    good = python("mypy", "good.py", cwd=tmp_path)
    assert good.returncode == 0, good.stdout + good.stderr
    bad_run = python("mypy", "bad.py", cwd=tmp_path)
    assert '"kinds"' in bad_run.stdout and '"unknown"' in bad_run.stdout, bad_run.stdout


def test_the_stub_is_that_of_the_extension() -> None:
    pytest.importorskip("mypy.stubtest")
    done = python("mypy.stubtest", "zonedev._zonedev", cwd=ROOT)
    assert done.returncode == 0, done.stdout
