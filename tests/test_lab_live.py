# SPDX-License-Identifier: LGPL-2.1-or-later
"""The judgement of the lab's live audits: what must make a run fail, and what must not."""

from __future__ import annotations

import json
from typing import Any

import live
import pytest

FOLIO = live.Page(0x1009, range(0x1000, 0x1200))


def finding(pfn: int, pages: int = 1, **changes: Any) -> dict[str, Any]:
    words = {"rule": "tail-refcount", "severity": "error", "refcount": 3, "mapcount": 0}
    return {"pfn": pfn, "pages": pages, **words, **changes}


def on_pagemap(start: int, end: int) -> dict[str, Any]:
    words = {"rule": "ref-versus-pages", "severity": "warning", "detail": "ref is 3"}
    return {"pfn": None, "ranges": [(start, end)], **words}


def event(*standing: dict[str, Any], **changes: Any) -> dict[str, Any]:
    made = {"ev": "audit", "n": 0, "s": 0.3, "standing": list(standing), "problems": [], "lost": []}
    return made | {"churn": {"pmem0.map4k": 7}} | changes


@pytest.mark.parametrize(
    ("audit", "expected", "wrong"),
    [
        (event(), [], None),
        (event(finding(0x1009)), [FOLIO], None),
        # the head of the folio may be named as well, a page beside it not
        (event(finding(0x1009), finding(0x1000, 512)), [FOLIO], None),
        (event(finding(0x1009), finding(0x11FF, 2)), [FOLIO], "error tail-refcount at pfn 0x11ff"),
        (event(finding(0x2000)), [], "error tail-refcount at pfn 0x2000: refcount 3, mapcount 0"),
        (event(), [FOLIO], "pfn 0x1009 was not found"),
        (event(finding(0x1000)), [FOLIO], "pfn 0x1009 was not found"),
        # its memmap cannot be read from there; that of another pagemap does not excuse it
        (event(lost=[(0x1000, 0x2000)]), [FOLIO], None),
        (event(lost=[(0x2000, 0x3000)]), [FOLIO], "pfn 0x1009 was not found"),
        # a planted count upsets the sum over the pages of its pagemap, and of no other
        (event(finding(0x1009), on_pagemap(0x1000, 0x2000)), [FOLIO], None),
        (event(finding(0x1009), on_pagemap(0x2000, 0x3000)), [FOLIO], "ref-versus-pages on a pag"),
        (event(on_pagemap(0, 1)), [], "ref-versus-pages on a pagemap: ref is 3"),
        (event(problems=["dev_pagemap 0x1 cannot be read"]), [], "dev_pagemap 0x1 cannot be read"),
        (event(problems=["dev_pagemap 0x1 (None) is being added: ..."]), [], None),
        ({"ev": "audit", "n": 0, "error": "FaultError: gone"}, [], "failed: FaultError: gone"),
    ],
)
def test_one_audit(audit: dict[str, Any], expected: list[Any], wrong: str | None) -> None:
    found = live.judge(audit, expected)
    assert len(found) == (wrong is not None)
    assert wrong is None or found[0].startswith(wrong)


def series(audits: list[dict[str, Any]], wanted: int = 4) -> Any:
    one = live.Series("inside", wanted, ["pmem0"], audits)
    live.check_series(one, [], True)
    return one


def test_a_series_is_complete_and_churned_upon() -> None:
    assert series([event() for _ in range(4)]).problems == []
    assert series([event() for _ in range(3)]).problems == ["3 audits of 4"]
    still = [event(), event(churn={}), event(), event()]
    assert series(still).problems == ["nothing churned under 1 audits: [0]"]
    hung = [event(), event(), event(churn={"pmem1.punch": 1}), event(churn={"pmem1.punch": 1})]
    assert series(hung).problems == ["nothing churned on pmem0 in the end"]


def test_expected_pages_are_those_that_the_record_calls_wrong() -> None:
    wrong = {"name": "overwritten tail", "level": "error-or-warning"}
    states = [
        {"pfn": 0x1000, "count": 512, "order": 9, "finding": wrong, "tail_refcounts": {"4105": 3}},
        {"pfn": 0x3000, "count": 2, "order": 0, "finding": {"name": "held", "level": "info"}},
        {"pfn": 0x4000, "count": 2, "order": 0, "finding": {"name": "over-put", "level": wrong["level"]}},
    ]  # fmt: skip
    single = [live.Page(pfn, range(pfn, pfn + 1)) for pfn in (0x4000, 0x4001)]
    assert live.expectation(states) == [FOLIO, *single]


def test_counters_of_the_churn() -> None:
    data = live.COUNTER.pack(b"pmem0.map4k", 5, 2) + live.COUNTER.pack(b"", 9, 9)
    assert live.read_counters(data + b"cut off") == {"pmem0.map4k": 5, "failed": 2}
    assert live.difference({"a": 3, "b": 1}, {"a": 1, "b": 1}) == {"a": 2}
    assert live.device_of("dax3.0.io_uring") == "dax3.0"


def record(*events: dict[str, Any]) -> list[str]:
    boot = {"ev": "boot", "release": "7.2.12+deb13-amd64", "scenario": "nvdimm", "cmdline": ""}
    range_ = {"ev": "range", "type": "devdax", "path": "/dev/dax1.0", "map": "mem", "align": 4096}
    memory = {"start": 0x100000, "size": 0x40000, "data": 0x100000, "data_size": 0x40000}
    return [json.dumps(one) for one in (boot, range_ | memory, *events)]


def mapped(pfn: int, pid: int) -> dict[str, Any]:
    words = {"ev": "map", "cat": "hold", "path": "/dev/dax1.0", "ino": 3, "entry": 1, "faults": 1}
    return words | {"pid": pid, "va": pfn << 12, "off": 0, "pfn": pfn, "n": 1, "step": 1}


def explanation(pfn: int, **changes: Any) -> dict[str, Any]:
    map_ = {"kind": "pte", "pid": 7, "comm": "churn", "address": pfn << 12, "refs": 1, "pins": 0}
    file = {"path": "dax1.0", "inode": 1, "offset": (pfn - 0x100) << 12, "deleted": False}
    numbers = {"pfn": pfn, "order": 0, "refcount": 2, "base": 1, "explained": 1, "unexplained": 0}
    return numbers | {"holders": [map_], "files": [file], "file": file, "gaps": []} | changes


def test_one_held_page_of_each_sort_is_explained() -> None:
    free = {"ev": "unmap", "path": "/dev/dax1.0", "pid": 7, "va": 0x100 << 12, "n": 1}
    held = mapped(0x101, 7), mapped(0x102, 7), mapped(0x103, 7), mapped(0x103, 8)
    lines = record(mapped(0x100, 7), free, *held)
    assert [account.pfn for account in live.held_pages(lines)] == [0x101, 0x103]


@pytest.mark.parametrize(
    ("explanations", "told", "wrong"),
    [
        ({0x101: explanation(0x101)}, (1, 0), []),
        ({}, (0, 0), []),
        ({0x101: explanation(0x101, unexplained=1, refcount=3)}, (1, 0), ["refcount is 3", "unexplained is 1"]),
        ({0x101: explanation(0x101, gaps=["DAX entries were not read: live"], files=[])}, (0, 1), []),
        ({0x101: explanation(0x101, gaps=["tasks were not read"], files=[], file=None)}, (1, 0), ["not among its files"]),
    ],
)  # fmt: skip
def test_explanations_are_compared(
    explanations: dict[int, Any], told: tuple[int, int], wrong: list[str]
) -> None:
    accounts = live.held_pages(record(mapped(0x101, 7)))
    found = live.explained_event(accounts, explanations)
    assert (found["pages"], found["blind"]) == told
    assert len(found["differences"]) == len(wrong)
    for text, words in zip(found["differences"], wrong):
        assert words in text


def test_a_series_that_explains_has_explained_something() -> None:
    def problems(**event: Any) -> list[str]:
        begun = {"ev": "audits", "from": "inside", "count": 0, "devices": [], "explains": True}
        (one,) = live.series_of([begun, {"ev": "explained", "from": "inside", **event}])
        return list(live.check_explained(one))

    assert problems(pages=1, differences=[]) == []
    assert problems(pages=0, differences=[]) == ["no page was explained"]
    assert problems(pages=1, differences=["pfn 0x1"]) == ["explained: pfn 0x1"]
    (old,) = live.series_of([{"ev": "audits", "from": "inside", "count": 0, "devices": []}])
    assert list(live.check_explained(old)) == []
