# SPDX-License-Identifier: LGPL-2.1-or-later
"""audit --html: what the page holds, and what it does in a browser."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Optional

import pytest
from browser import Browser, why_no_browser
from conftest import ROOT, Zonedev, assert_one_line, open_vmcore

from zonedev.audit import audit
from zonedev.cells import CellPlan
from zonedev.explanation import Holder
from zonedev.model import CLASSES, Audit, Finding, Waiter
from zonedev.report.html import audit_html
from zonedev.report.page_data import page_data

LEAK = "7.2-nvdimm-leak"
HOSTILE = "</script><img src=x onerror=pwned()>'\"&lt;<!--<script>pwned()</script>"
PAGE = ROOT / "zonedev" / "report" / "page"


def audited(name: str, **options: Any) -> Audit:
    result: Audit = audit(open_vmcore(name).prog, cells=CellPlan(1 << 17), **options)
    return result


def page_of(result: Audit, severity: str = "info") -> str:
    return "".join(audit_html(result, severity, ["zonedev", "-c", "vm core"]))


def written(result: Audit, path: Path, severity: str = "info") -> Path:
    path.write_text(page_of(result, severity), "ascii", "xmlcharrefreplace")
    return path


def hostile(name: str = LEAK) -> Audit:
    """An audit in which everything that a dump may have named is out to get the reader."""
    result = audited(name)
    result.path = HOSTILE
    result.kernel["release"] = HOSTILE
    result.scheme.evidence.append(HOSTILE)
    for list_ in (result.problems, result.notes, result.kernel_log):
        list_.append(HOSTILE)
    result.not_applicable.append({"rule": HOSTILE, "why": HOSTILE})
    for one in result.pagemaps:
        one.pagemap.device = HOSTILE
        one.reasons[HOSTILE] = 1
    for finding in result.findings:
        finding.detail = HOSTILE
        finding.flag_names = [HOSTILE]
        finding.waiters = [Waiter(1, HOSTILE, HOSTILE)]
    return result


def many(count: int) -> Audit:
    """So many findings, no two alike."""
    result = audited(LEAK)
    rng = random.Random(count)
    rules = ["reference-on-free-folio", "refcount-below-mapcount", "tail-refcount"]
    result.findings = []
    for severity in ("error", "warning"):
        places = sorted(
            (rng.randrange(one.pagemap.ranges[0].start_pfn, one.pagemap.ranges[0].end_pfn), i)
            for i, one in enumerate(rng.choices(result.pagemaps, k=count // 2))
        )
        for pfn, i in places:
            pagemap = next(one.pagemap for one in result.pagemaps if one.pagemap.covers(pfn))
            result.findings.append(
                Finding(
                    *(rng.choice(rules), severity, pagemap.address),
                    pfn=pfn,
                    refcount=rng.randrange(-9, 999),
                    mapcount=i % 7,
                    mapping=0xFFFF888000000000 + 64 * rng.randrange(1000),
                    index=rng.randrange(1 << 30),
                    flag_names=["reserved"],
                    expected=0,
                    detail=f"inode {rng.randrange(5000)} of pmem0 (ext4)",
                )
            )
    return result


# ---------------------------------------------------------------- what the page holds


class Text(HTMLParser):
    """The words of each element of a page, and all attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags = Counter[str]()
        self.attributes: list[tuple[str, Optional[str]]] = []
        self.words: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Optional[str]]]) -> None:
        self.tags[tag] += 1
        self.attributes += attrs
        if tag not in ("meta", "link", "input", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.words.append((self._open[-1] if self._open else "", data))

    def of(self, tag: str) -> list[str]:
        return [words for where, words in self.words if where == tag]


def data_of(page: str) -> dict[str, Any]:
    kind, content = re.findall(r'<script type="([a-z/]+)" id="data"[^>]*>(.*?)</script>', page)[0]
    if kind == "text/plain":
        content = zlib.decompress(base64.b64decode(content)).decode()
    data: dict[str, Any] = json.loads(content)
    return data


def pfns_of(data: dict[str, Any]) -> list[int]:
    pfns, pfn = [], 0
    for step in expanded(data, "pfn"):
        pfn += step
        pfns.append(pfn)
    return pfns


def expanded(data: dict[str, Any], name: str) -> list[Any]:
    column: list[Any] = data["columns"][name]
    return column * data["findings"] if len(column) == 1 else column


def test_the_verdict_is_first() -> None:
    for name, verdict in (
        (LEAK, "Violations"),
        ("7.2-nvdimm", "Clean"),
        ("7.2-ram-only", "Incomplete"),
    ):
        result = audited(name)
        text = Text(page_of(result))
        assert text.of("h1") == [verdict]
        first = [words for tag, words in text.words if tag in ("h1", "h2")]
        assert first[0] == verdict
        assert text.of("dd") == [f"{n:,}" for n in (result.pages, *result.classes.values())]


def test_the_account_is_that_of_the_text() -> None:
    page = Text(page_of(audited(LEAK)))
    words = " ".join(one for _, one in page.words)
    for told in (
        "6 pages with errors, 0 pages with warnings; with the folios that they are of, 644 pages.",
        "pmem0; pfn 0x1082fc-0x1082fd (2 pages); refcount 1 (expected 0), mapcount 0",
        "a free page still has references",
        "scheme H",
        "member folio.pgmap: present",
        "rules that did not apply",
        "live 65537",
    ):
        assert told in words
    assert page.of("code")[:3] == [
        "refcount-below-mapcount",
        "reference-on-free-folio",
        "tail-refcount",
    ]


def test_nothing_is_asked_of_a_network(vmcore: Any) -> None:
    page = page_of(audit(vmcore.prog, cells=CellPlan(1 << 10)))
    text = Text(page)
    assert not text.tags["img"] and not text.tags["iframe"] and text.tags["link"] == 1
    addresses = [v for k, v in text.attributes if k in ("src", "href", "action", "data", "srcset")]
    assert addresses == ["data:,", "#findings"]
    assert not re.search(r"@import|url\(|https?:|\bfetch\(|XMLHttpRequest", page)
    assert text.tags["style"] == 1 and text.tags["script"] == 2
    assert not [k for k, _ in text.attributes if k.startswith("on") or k == "style"]


def test_only_this_package_is_code() -> None:
    page = page_of(audited("7.2-nvdimm"))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy and "default-src 'none'" in policy[1]
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.S)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]


def test_names_are_words() -> None:
    result = hostile()
    page = page_of(result)
    assert "<img" not in page and "<script>pwned" not in page
    text = Text(page)
    assert text.tags["script"] == 2 and not text.tags["img"]
    words = " ".join(one for tag, one in text.words if tag != "script")
    # Path, device, detail, problem, note, log, evidence: told as they are.
    assert words.count(HOSTILE) > 20
    data = data_of(page)
    assert data["pagemaps"][0]["name"].startswith(HOSTILE) and HOSTILE in data["texts"]


def test_why_it_is_incomplete() -> None:
    text = Text(page_of(audited("7.2-ram-only")))
    assert any("pages not judged: " in words for words in text.of("li"))


def test_a_machine_without_pagemaps() -> None:
    text = Text(page_of(audited("7.2-bare")))
    assert ("class", "maps hidden") in text.attributes
    assert any("no dev_pagemap is registered" in words for words in text.of("li"))


def test_findings_are_all_there() -> None:
    result = audited(LEAK)
    data = data_of(page_of(result))
    assert data["findings"] == len(result.findings) == 27
    assert pfns_of(data) == [f.pfn for f in result.findings]
    for name in ("count", "pages", "order", "refcount", "expected", "mapcount", "index"):
        assert expanded(data, name) == [getattr(f, name) for f in result.findings]
    kinds = [data["kinds"][i] for i in expanded(data, "kind")]
    assert [(k["rule"], k["severity"]) for k in kinds] == [
        (f.rule, f.severity) for f in result.findings
    ]
    assert all(kind["means"] and kind["when"] and kind["near"] for kind in kinds)
    assert [data["texts"][i] or "" for i in expanded(data, "detail")] == [
        f.detail for f in result.findings
    ]
    places = [data["pagemaps"][i]["address"] for i in expanded(data, "pagemap")]
    assert places == [hex(f.pagemap) for f in result.findings]
    mappings = [data["mappings"][i] for i in expanded(data, "mapping")]
    assert mappings == [hex(f.mapping or 0) for f in result.findings]


def test_findings_on_pagemaps_have_no_page() -> None:
    result = audited("7.3-p2p-teardown")
    assert any(f.pfn is None for f in result.findings)
    assert pfns_of(data_of(page_of(result))) == [
        -1 if f.pfn is None else f.pfn for f in result.findings
    ]


def test_maps_add_up(vmcore: Any) -> None:
    result: Audit = audit(vmcore.prog, cells=CellPlan(1 << 10))
    for one, told in zip(result.pagemaps, page_data(result, "info", ["zonedev"])["pagemaps"]):
        sums = Counter[str]()
        for range_ in told["ranges"]:
            for count, *classes in range_["runs"]:
                for name, pages in zip(CLASSES, classes):
                    sums[name] += count * pages
        assert {name: sums[name] for name in CLASSES} == one.classes
        assert dict(told["refcounts"]) == one.refcounts


def test_large_data_is_packed() -> None:
    result = many(6000)
    page = page_of(result)
    assert 'id="data" data-packed="deflate"' in page
    assert pfns_of(data_of(page)) == [f.pfn for f in result.findings]
    assert len(page) < 400_000


def test_numbers_that_a_script_cannot_hold() -> None:
    result = audited(LEAK)
    result.findings[0].index = (1 << 64) - 1
    result.findings[1].index = (1 << 53) - 1
    assert expanded(data_of(page_of(result)), "index")[:2] == [hex((1 << 64) - 1), (1 << 53) - 1]


def test_explanations_are_told() -> None:
    result = audited("7.2-explain", explain=True)
    told = data_of(page_of(result))["texts"]
    explained = [f.explanation for f in result.findings if f.explanation]
    assert explained and all(isinstance(h, Holder) for h in explained[0].holders)
    assert all(str(one).rstrip() in told for one in explained)


def test_what_is_to_be_shown() -> None:
    result = audited(LEAK)
    assert data_of(page_of(result, "error"))["findings"] == 5
    result.filters["rule"] = ["tail-refcount"]
    page = page_of(result)
    assert data_of(page)["findings"] == 2
    assert "only: rule tail-refcount" in page and "644" in page


def test_the_option(zonedev: Zonedev, tmp_path: Path) -> None:
    vmcore = open_vmcore(LEAK)
    path = tmp_path / "report.html"
    words = ["audit", vmcore.core, "-s", vmcore.vmlinux, "--html", path]
    plain = zonedev(*words[:-2])
    answer = zonedev(*words)

    def without_time(text: str) -> str:
        return text.rpartition("\n\n")[0]

    assert without_time(answer.out) == without_time(plain.out) and answer.status == 1
    page = path.read_text()
    data = data_of(page)
    assert data["target"] == f"-c {vmcore.core} -s {vmcore.vmlinux}"
    # Fine enough to see each page.
    assert all(one["ranges"][0]["shift"] == 0 for one in data["pagemaps"])
    quiet = zonedev(*words, "-q", "--severity", "error")
    assert quiet.out == "" and data_of(path.read_text())["findings"] == 5


def test_a_page_that_cannot_be_written(zonedev: Zonedev, tmp_path: Path) -> None:
    vmcore = open_vmcore("7.2-nvdimm")
    missing = tmp_path / "nowhere" / "report.html"
    answer = zonedev("audit", vmcore.core, "-s", vmcore.vmlinux, "--html", missing)
    # What was read is not lost.
    assert "clean: every page was read" in answer.out
    answer = zonedev("audit", vmcore.core, "-s", vmcore.vmlinux, "-q", "--html", missing)
    assert_one_line(answer, f"{missing}: cannot be written", "No such file or directory")


def test_a_page_is_there_as_a_whole_or_not_at_all(
    zonedev: Zonedev, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vmcore, path = open_vmcore("7.2-nvdimm"), tmp_path / "report.html"
    path.write_text("old")

    def half(*_: Any) -> Iterator[str]:
        yield "new"
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("zonedev.report.html.audit_html", half)
    answer = zonedev("audit", vmcore.core, "-s", vmcore.vmlinux, "-q", "--html", path)
    assert_one_line(answer, f"{path}: cannot be written", "No space left")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["report.html"]


def test_what_a_baseline_accepts_is_told_apart(tmp_path: Path) -> None:
    accepted = tmp_path / "accepted"
    accepted.write_text("reference-on-free-folio *\nrefcount-below-mapcount *\ndying-busy *\n")
    page = page_of(audited(LEAK, baseline=[str(accepted)]))
    assert "2 pages with errors, 0 pages with warnings" in page
    assert re.findall(r'data-rule="([^"]*)" data-severity="error"', page) == ["tail-refcount"]
    assert "error reference-on-free-folio, 2 pages" in page and "dying-busy" in page
    accepted.write_text(accepted.read_text() + "tail-refcount *\n")
    page = page_of(audited(LEAK, baseline=[str(accepted)]))
    assert "Every page was read, and nothing is new; accepted: 6 pages with errors." in page
    assert "no other finding is a warning or an error" in page
    assert "none breaks a rule" not in page


def test_names_of_other_scripts(tmp_path: Path) -> None:
    result = audited("7.2-nvdimm")
    result.path = "/tmp/\u0434\u0430\u043c\u043f\udc80"
    path = written(result, tmp_path / "report.html")
    assert b"&#1076;&#1072;&#1084;&#1087;" in path.read_bytes()


def test_every_part_has_its_licence_line() -> None:
    parts = sorted(PAGE.iterdir())
    assert len(parts) == 6
    for part in parts:
        text = part.read_text("ascii")
        assert "SPDX-License-Identifier: LGPL-2.1-or-later" in "".join(text.splitlines()[:2])


def test_a_wheel_has_the_parts(tmp_path: Path) -> None:
    command = [sys.executable, "setup.py", "-q", "build_py", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    built = tmp_path / "zonedev" / "report" / "page"
    assert {part.name for part in built.iterdir()} == {part.name for part in PAGE.iterdir()}


# ---------------------------------------------------------------- colours


def themes() -> dict[str, dict[str, str]]:
    css = (PAGE / "style.css").read_text()
    light = css.split("{", 1)[1].split("}")[0]
    dark = css.split('[data-theme="dark"] {')[1].split("}")[0]
    preferred = css.split("prefers-color-scheme: dark")[1].split("{", 2)[2].split("}")[0]
    assert preferred.split() == dark.split()
    return {
        name: dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block))
        for name, block in (("light", light), ("dark", dark))
    }


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast(theme: str) -> None:
    """WCAG 2.1: 4.5 for words, 3 for what is drawn."""
    colours = themes()[theme]
    words = ("ink", "muted", "violation", "warning", "info", "clean", "incomplete", "accent")
    for name in words:
        for ground in ("card", "strong"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    assert contrast(colours["mark"], colours["violation"]) >= 4.5
    for one, other in (
        ("busy", "idle"),
        ("violation", "idle"),
        ("violation", "card"),
        ("on-busy", "busy"),
        ("not-captured", "idle"),
        ("unreadable", "idle"),
    ):
        assert contrast(colours[one], colours[other]) >= 3, (one, other)


# ---------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if why_no_browser():
        pytest.skip(str(why_no_browser()))
    one = Browser()
    yield one
    one.close()


@pytest.fixture(scope="module")
def leak(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(audited(LEAK), tmp_path_factory.mktemp("html") / "leak.html")


def assert_silent(browser: Browser, path: Path) -> None:
    """No error, no word on the console, and nothing asked for but the page."""
    assert browser.messages == []
    assert browser.requests == [path.as_uri()]


def texts(browser: Browser, selector: str) -> list[str]:
    found = f"[...document.querySelectorAll({json.dumps(selector)})]"
    told: list[str] = browser.run(f"{found}.map((one) => one.innerText.trim())")
    return told


def text_of(browser: Browser, id_: str) -> str:
    return str(browser.run(f"by({json.dumps(id_)}).textContent"))


def set_filter(browser: Browser, id_: str, value: str) -> str:
    """Fill in a part of the filter; how many are left."""
    kind = "value" if id_ in ("query", "rule", "device") else "checked"
    target = f"by('{id_}')" if kind == "value" else f"document.querySelector('input[value={id_}]')"
    browser.run(
        f"new Promise((done) => {{ {target}.{kind} = {value}; "
        f"{target}.dispatchEvent(new Event('input', {{bubbles: true}})); setTimeout(done, 200); }})"
    )
    return text_of(browser, "count")


def centre(browser: Browser, pfn: int) -> tuple[float, float]:
    """The place in the window of the cell that holds a page."""
    x, y = browser.run(
        "(() => { by('grid').scrollIntoView({block: 'center'}); "
        "const box = by('grid').getBoundingClientRect(), "
        f"[x, y] = page.maps.placeOf({pfn}); "
        "return [box.left + x + page.maps.grid.width / 2, box.top + y + 8]; })()"
    )
    return x, y


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("name", [LEAK, "7.2-p2p-hmm", "7.2-ram-only", "7.2-bare"])
def test_it_opens(browser: Browser, tmp_path: Path, name: str, dark: bool) -> None:
    result = audited(name)
    path = written(result, tmp_path / "report.html")
    browser.open(path, dark=dark)
    assert_silent(browser, path)
    ground = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 384) == dark
    assert texts(browser, "dl.tiles dd") == [
        f"{n:,}" for n in (result.pages, *result.classes.values())
    ]
    ranges = sum(len(one.cells) for one in result.pagemaps)
    assert len(texts(browser, ".range")) == ranges
    rows = texts(browser, "#list tbody tr.finding")
    assert len(rows) == min(len(result.findings), 100)
    severities = [
        f"{name} ({sum(f.severity == name for f in result.findings)})"
        for name in ("error", "warning", "info")
    ]
    assert texts(browser, "#severities label") == severities
    for one, told in zip(result.pagemaps, texts(browser, ".range")):
        assert f"{one.pagemap.pages:,} page" in told
        wrong = one.classes["violation"]
        assert (f"{wrong:,} page" in told) if wrong else ("no violation" in told)


def test_the_map_shows_what_was_counted(browser: Browser, leak: Path) -> None:
    browser.open(leak)
    assert text_of(browser, "map-title").startswith("pmem0 \u00b7 pfn 0x100000-0x10ffff")
    # The cursor is at the first finding.
    assert "violation 1" in text_of(browser, "grid-cell")
    assert "error: refcount-below-mapcount at pfn 0x108245" in text_of(browser, "grid-cell")
    browser.run("page.maps.zoom(1 / 64)")
    (cells,) = audited(LEAK).pagemaps[0].cells
    for pfn in range(0x108240, 0x108260, 4):
        told = browser.run(f"page.maps.words({pfn})[0]")
        each = browser.run("page.maps.grid.each")
        assert each == 1
        names = [f"{n} {c}" for n, c in zip(CLASSES, cells.classes(pfn - cells.start_pfn)) if c]
        assert told == f"pfn {pfn:#x}, 1 page: {names[0]}"


def is_near(pixel: list[int], colour: str) -> bool:
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return all(abs(a - b) <= 2 for a, b in zip(pixel, wanted))


def test_the_map_is_painted(browser: Browser, tmp_path: Path) -> None:
    result = audited(LEAK)
    warned = replace(
        result.findings[4], severity="warning", pfn=0x108220, pagemap=result.findings[0].pagemap
    )
    result.findings.insert(5, warned)
    browser.open(written(result, tmp_path / "warned.html"))
    browser.run("page.maps.show(page.maps.range, 0x108200, 0x108400)")

    def colour(pfn: int) -> list[int]:
        pixel: list[int] = browser.run(
            f"(() => {{ const [x, y] = page.maps.placeOf({pfn}); return "
            "[...by('grid').getContext('2d').getImageData(x + 1, y + 12, 1, 1).data]; })()"
        )
        return pixel[:3]

    colours = themes()["light"]
    for pfn, name in (
        (0x108300, "busy"),
        (0x108210, "idle"),
        (0x1082FD, "violation"),
        (0x108220, "warning"),
    ):
        assert is_near(colour(pfn), colours[name]), (name, colour(pfn))


def test_arrows_below_strips(browser: Browser, tmp_path: Path) -> None:
    """A finding is seen in a strip, however small it is beside the pagemap."""
    result = audited(LEAK)
    first = result.findings[0].pagemap
    warned = replace(result.findings[4], severity="warning", pfn=0x104000, pagemap=first)
    result.findings.insert(5, warned)
    browser.open(written(result, tmp_path / "warned.html"))

    def arrows(strip: int) -> list[list[int]]:
        """Colours at the foot of a strip."""
        data: list[int] = browser.run(
            f"(() => {{ const one = page.maps.strips[{strip}].canvas; return "
            "[...one.getContext('2d').getImageData(0, 32, one.width, 1).data]; })()"
        )
        return [data[i : i + 3] for i in range(0, len(data), 4) if data[i + 3] == 255]

    colours = themes()["light"]
    for strip, names in ((0, {"violation", "warning"}), (1, set()), (4, {"violation"})):
        seen = {
            n for n in ("violation", "warning") for a in arrows(strip) if is_near(a, colours[n])
        }
        assert seen == names


def test_zooming_by_keys(browser: Browser, leak: Path) -> None:
    browser.open(leak)
    whole = text_of(browser, "map-title")
    browser.run("by('grid').focus()")
    for key in "+++":
        browser.key(key)
    assert browser.run("[page.maps.to - page.maps.from, page.maps.cursor]") == [65536 / 8, 0x108245]
    at = browser.run("page.maps.cellAt(page.maps.cursor)[0]")
    browser.key("ArrowRight")
    browser.key("ArrowDown")
    each, columns = browser.run("[page.maps.grid.each, page.maps.grid.columns]")
    assert browser.run("page.maps.cursor") == at + each * (1 + columns)
    browser.key("-")
    assert browser.run("page.maps.to - page.maps.from") == 65536 / 4
    browser.key("Home")
    assert text_of(browser, "map-title") == whole
    # Enter: the findings of the cell, and no others.
    browser.run("page.maps.cursor = 0x1082fc; page.maps.draw(); by('grid').focus()")
    browser.key("Enter")
    assert texts(browser, "#list tbody tr.finding td.pfn") == ["0x1082fc-0x1082fd"]
    browser.run("by('within').click()")
    assert text_of(browser, "count") == "1 to 27 of 27 runs of findings"
    assert_silent(browser, leak)


def test_zooming_by_mouse(browser: Browser, leak: Path) -> None:
    browser.open(leak)
    start, end = centre(browser, 0x108000), centre(browser, 0x108FFF)
    browser.mouse("mousePressed", *start)
    browser.mouse("mouseMoved", *end, buttons=1)
    browser.mouse("mouseReleased", *end)
    assert browser.run("[page.maps.from, page.maps.to]") == [0x108000, 0x109000]
    x, y = centre(browser, 0x108245)
    browser.mouse("mouseMoved", x, y)
    assert browser.run("by('tip').hidden") is False
    assert "refcount-below-mapcount at pfn 0x108245" in text_of(browser, "tip")
    browser.mouse("mouseWheel", x, y, deltaX=0, deltaY=-100, modifiers=2)
    browser.run("new Promise((done) => setTimeout(done, 100))")
    low, high = browser.run("[page.maps.from, page.maps.to]")
    assert low <= 0x108245 < high and high - low == 0x800
    browser.mouse("mousePressed", *centre(browser, 0x108300))
    browser.mouse("mouseReleased", *centre(browser, 0x108300))
    assert text_of(browser, "grid-cell") == "pfn 0x108300, 1 page: busy 1"
    assert_silent(browser, leak)


def test_the_buttons_of_the_map(browser: Browser, leak: Path) -> None:
    browser.open(leak)
    seen = []
    for _ in range(4):
        browser.run("by('zoom-worst').click()")
        seen.append(browser.run("page.maps.cursor"))
    # Three places of pmem0, and again.
    assert seen == [0x1082FC, 0x108A07, 0x108245, 0x1082FC]
    browser.run("by('zoom-on').click()")
    after = browser.run("page.maps.from")
    browser.run("by('zoom-back').click()")
    assert browser.run("page.maps.from") < after
    browser.run("by('zoom-all').click()")
    assert browser.run("by('zoom-out').disabled") is True
    browser.run("document.querySelectorAll('.range')[2].click()")
    assert text_of(browser, "map-title").startswith("dax1.0")
    assert text_of(browser, "histogram-title").startswith("dax1.0")
    assert browser.run("document.querySelectorAll('.range[aria-pressed=true]').length") == 1
    rows = texts(browser, "#histogram .row")
    (dax,) = [one for one in audited(LEAK).pagemaps if one.pagemap.device == "dax1.0"]
    assert len(rows) == len(dax.refcounts)
    assert rows[0].split() == [
        str(min(dax.refcounts)),
        "(free)",
        str(dax.refcounts[min(dax.refcounts)]),
    ]


def test_filters(browser: Browser, leak: Path) -> None:
    browser.open(leak)
    assert text_of(browser, "count") == "1 to 27 of 27 runs of findings"
    assert set_filter(browser, "query", "'0x1082fd'").startswith("1 to 1 of 1 run")
    assert texts(browser, "#list tbody td.pfn") == ["0x1082fc-0x1082fd"]
    low, high = 0x108245, 0x108A07
    some = [
        f.pfn for f in audited(LEAK).findings if f.pfn and f.pfn <= high and f.pfn + f.pages > low
    ]
    told = set_filter(browser, "query", f"'{low:#x}-{high:#X}'")
    assert len(some) == 6 and told == "1 to 6 of 6 runs of findings (of 27)"
    assert set_filter(browser, "query", "'TAIL-ref'").startswith("1 to 2 of 2 runs")
    assert set_filter(browser, "query", "'inode 13 of pmem0'").startswith("1 to 1 of 1 run")
    assert set_filter(browser, "query", "'no such words'") == "no finding is like that"
    set_filter(browser, "query", "''")
    assert set_filter(browser, "info", "false") == "1 to 5 of 5 runs of findings (of 27)"
    assert set_filter(browser, "rule", "'tail-refcount'").startswith("1 to 2 of 2 runs")
    assert set_filter(browser, "device", "'2'").startswith("1 to 1 of 1 run")
    browser.run("document.querySelector('button[type=reset]').click()")
    browser.run("new Promise((done) => setTimeout(done, 100))")
    assert text_of(browser, "count") == "1 to 27 of 27 runs of findings"
    # From what is wrong to its list.
    browser.run("document.querySelectorAll('.group .show')[1].click()")
    assert texts(browser, "#list tbody td:nth-child(2)") == ["reference-on-free-folio"]
    assert_silent(browser, leak)


def test_a_finding_opens(browser: Browser, leak: Path) -> None:
    browser.open(leak)
    browser.run("document.querySelector('#list .open').click()")
    told = texts(browser, "#list tr.more")[0]
    for words in (
        "fewer references than maps",
        "maps take references, mapcount > 0 and refcount < base + mapcount",
        "lost or over-put reference",
        "zonedev page -c 'vm core' 0x108245",
        "zonedev explain -c 'vm core' 0x108245",
    ):
        assert words in told
    assert browser.run("document.querySelector('#list .open').ariaExpanded") == "true"
    browser.run("document.querySelectorAll('.range')[4].click()")
    browser.run("document.querySelector('.locate').click()")
    assert text_of(browser, "map-title").startswith("pmem0") and "a cell is 1 page" in text_of(
        browser, "map-title"
    )
    assert browser.run("page.maps.cursor") == 0x108245
    browser.run("document.querySelector('#list .open').click()")
    assert texts(browser, "#list tr.more") == []


def test_a_finding_on_a_pagemap_opens(browser: Browser, tmp_path: Path) -> None:
    path = written(audited("7.3-p2p-teardown"), tmp_path / "report.html")
    browser.open(path, width=1000)
    assert texts(browser, "#list tbody td.pfn") == ["the pagemap", "0xf8023"]
    (strip,) = texts(browser, ".range")
    assert "warnings" in strip and "violation" not in strip
    browser.run("document.querySelector('#list .open').click()")
    told = texts(browser, "#list tr.more")[0]
    assert "removal waits for these pages" in told and "zonedev page" not in told
    # What a rule says is not cut off.
    wide = "[...document.querySelectorAll('#list .more dd')].map((one) => one.scrollWidth - one.clientWidth)"
    assert set(browser.run(wide)) == {0}
    assert_silent(browser, path)


def test_sorting(browser: Browser, leak: Path) -> None:
    browser.open(leak)
    result = audited(LEAK)
    browser.run("document.querySelector('#list th button[data-by=pages]').click()")
    assert browser.run(
        "document.querySelector('#list th[aria-sort=descending]').innerText"
    ).startswith("pages")
    told = [int(one) for one in texts(browser, "#list tbody td:nth-child(5)") if one]
    assert told == sorted((f.pages for f in result.findings), reverse=True)
    browser.run("document.querySelector('#list th button[data-by=pfn]').click()")
    told = [int(one.split("-")[0], 16) for one in texts(browser, "#list tbody td.pfn")]
    assert told == sorted(f.pfn or 0 for f in result.findings)


def test_runs_within_each_other(browser: Browser, leak: Path) -> None:
    """Where there is a finding, and which one is next: also behind the end of a short run in a long one."""
    browser.open(leak)
    browser.run(
        "window.some = new Findings({findings: 5, severities: ['info', 'warning', 'error'], "
        "kinds: [{severity: 'error'}, {severity: 'warning'}], columns: {kind: [0, 0, 0, 1, 1], "
        "pfn: [-1, 11, 5, 5, 80], pages: [1, 50, 1, 2, 1]}})"
    )

    def has(severity: int, start: int, end: int) -> bool:
        told: bool = browser.run(f"some.has({severity}, {start}, {end})")
        return told

    # Errors on a pagemap, 10-59 and 15; warnings on 20-21 and 100.
    assert browser.run("[...some.pfns]") == [-1, 10, 15, 20, 100]
    assert [has(2, *pfns) for pfns in ((0, 10), (9, 11), (40, 41), (60, 70))] == [0, 1, 1, 0]
    assert [has(1, *pfns) for pfns in ((100, 101), (101, 102))] == [1, 0]
    assert [browser.run(f"some.next({pfn}, 0, 60)") for pfn in (0, 11, 16, 21)] == [1, 2, 3, -1]


def test_the_switch_of_themes(browser: Browser, leak: Path) -> None:
    browser.open(leak)
    seen = []
    for _ in range(4):
        seen.append((text_of(browser, "theme"), browser.run("page.maps.colours.card")))
        browser.run("by('theme').click()")
    light, dark = (themes()[name]["card"] for name in ("light", "dark"))
    assert seen == [
        ("theme: auto", light),
        ("theme: light", light),
        ("theme: dark", dark),
        ("theme: auto", light),
    ]
    browser.run("by('theme').click(); by('theme').click()")
    assert text_of(browser, "theme") == "theme: auto"


@pytest.mark.parametrize("width", [360, 800, 1920])
def test_no_window_is_too_narrow(browser: Browser, leak: Path, width: int) -> None:
    browser.open(leak, width=width)
    assert browser.run("document.documentElement.scrollWidth") <= width
    columns = browser.run("page.maps.grid.columns")
    assert columns == {360: 16, 800: 64, 1920: 128}[width]
    assert_silent(browser, leak)


def test_hostile_names_stay_words(browser: Browser, tmp_path: Path) -> None:
    path = written(hostile(), tmp_path / "hostile.html")
    browser.call(
        "Page.addScriptToEvaluateOnNewDocument", source="window.pwned = () => { window.was = 1; };"
    )
    browser.open(path)
    browser.run("document.querySelectorAll('#list .open').forEach((one) => one.click())")
    browser.run(
        "page.maps.nextFinding(); document.querySelectorAll('.range').forEach((one) => one.click())"
    )
    assert browser.run("typeof window.pwned") == "function" and browser.run("window.was || 0") == 0
    assert browser.run("document.querySelectorAll('img, script').length") == 2
    assert HOSTILE in text_of(browser, "map-title")
    assert browser.run("document.querySelectorAll('#list tr.more').length") == 27
    assert_silent(browser, path)


def test_many_findings(browser: Browser, tmp_path: Path) -> None:
    path = written(many(100_000), tmp_path / "many.html")
    assert path.stat().st_size < 3_000_000
    browser.open(path)
    assert_silent(browser, path)
    assert text_of(browser, "count") == "1 to 100 of 100,000 runs of findings"
    assert browser.run("document.querySelectorAll('*').length") < 5000
    browser.run("by('end').click()")
    assert text_of(browser, "count") == "99,901 to 100,000 of 100,000 runs of findings"
    browser.run("by('at').value = 500; by('at').dispatchEvent(new Event('change'))")
    assert text_of(browser, "count").startswith("49,901 to 50,000")
    took = browser.run(
        "(() => { const from = performance.now(); by('query').value = 'tail'; page.list.filter(); return performance.now() - from; })()"
    )
    assert took < 2000
    assert 30_000 < browser.run("page.list.shown") < 36_000
    browser.run("by('end').click()")
    told = set_filter(browser, "error", "false")
    assert told.startswith("1 to 100 of ") and told.endswith(" (of 100,000)")
    assert_silent(browser, path)


def test_a_page_without_scripts(browser: Browser, leak: Path) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.call("Page.navigate", url=leak.as_uri())
        words = ""
        for _ in range(100):
            time.sleep(0.05)
            words = browser.run("document.querySelector('footer') && document.body.innerText") or ""
            if "need JavaScript" in words:
                break
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert "Violations" in words and "need JavaScript" in words and "515" in words


def test_a_browser_that_cannot_unpack(browser: Browser, tmp_path: Path) -> None:
    path = written(many(6000), tmp_path / "many.html")
    script = "if (location.href.endsWith('many.html')) delete window.DecompressionStream;"
    added = browser.call("Page.addScriptToEvaluateOnNewDocument", source=script)
    try:
        browser.open(path)
    finally:
        browser.call("Page.removeScriptToEvaluateOnNewDocument", **added)
    assert "cannot unpack the data of this page" in texts(browser, "#problem")[0]
    assert "Violations" in texts(browser, "h1")[0]
