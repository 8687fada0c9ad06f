# SPDX-License-Identifier: LGPL-2.1-or-later
"""The judgement of the lab's live audits: what must make a run fail, and what must not."""

from __future__ import annotations

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
