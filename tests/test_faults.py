# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reads of a core fail, one by one, through a whole audit of a healthy kernel; and allocations of the binding.

Whatever cannot be read, the answer is one line or a report; never a false alarm, and clean only where
every page was read all the same.  Failed allocations of the C core are in ext/tests/test_core.c.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, Optional

import pytest
from conftest import fresh_vmcore, open_vmcore
from overlay import Overlay, Read

from zonedev import _zonedev
from zonedev.audit import audit
from zonedev.errors import TargetError
from zonedev.model import Audit
from zonedev.scanner import pagemap_spec

# Cases over the reads of one audit, evenly spread: all of them take minutes.
CASES = 150


def spread(reads: list[Read]) -> list[int]:
    """Numbers (from 1 on) of reads to fail: of each place in the core its first one, evenly spread."""
    first: dict[Read, int] = {}
    for number, read in enumerate(reads, 1):
        first.setdefault(read, number)
    numbers = sorted(first.values())
    return numbers[:: max(len(numbers) // CASES, 1)]


def facts(result: Audit) -> dict[str, Any]:
    """What a clean report says of pages: what it may not have lost."""
    return {
        "pagemaps": sorted(
            (p.pagemap.address, p.pagemap.type, p.pagemap.pages, str(p.pagemap.ref))
            for p in result.pagemaps
        ),
        "seen": sum(count for name, count in result.classes.items() if name != "skipped"),
        "violation": result.classes["violation"],
    }


def judge(whole: Audit, result: Audit) -> Optional[str]:
    """What is wrong with an audit of a healthy kernel of which a read failed; None for nothing."""
    if result.verdict == "violations":
        return f"false alarm: {result.findings[0]}"
    if result.verdict == "clean":
        was, now = facts(whole), facts(result)
        # Without page tables, aliases of struct pages are judged one by one.
        if now["seen"] >= was["seen"] and now["pagemaps"] == was["pagemaps"]:
            return None
        return f"clean, but {now} was {was}"
    unread = result.classes["not-captured"] + result.classes["unreadable"]
    reasons = sum(sum(p.reasons.values()) for p in result.pagemaps)
    if unread != reasons:
        return f"{unread} pages were not read, reasons are given for {reasons}"
    calibrated = result.scheme.calibrated
    return None if unread or result.problems or calibrated else "incomplete without a reason"


@pytest.mark.parametrize("name", ["6.16-hmm", "6.1-nvdimm-swapped"])
def test_every_read_may_fail(name: str) -> None:
    core = fresh_vmcore(name)
    whole = audit(core.prog)
    assert whole.verdict == "clean"
    overlay = Overlay(core.prog, core.core)
    audit(core.prog)
    numbers = spread(overlay.reads)
    assert len(numbers) >= CASES
    outcomes: Counter[str] = Counter()
    wrong = []
    for number in numbers:
        overlay.forget(fail_at=number)
        try:
            result = audit(core.prog)
        except TargetError as err:
            assert "\n" not in str(err)
            outcomes["one line"] += 1
            continue
        assert overlay.failed is not None
        outcomes[result.verdict] += 1
        if problem := judge(whole, result):
            wrong.append((number, hex(overlay.failed), problem))
    overlay.close()
    assert not wrong
    assert outcomes["one line"] and outcomes["incomplete"]


# ---------------------------------------------------------------- allocations of the binding


def calls() -> dict[str, Callable[[], Any]]:
    """What the binding makes and converts, on a core's own layout and pages."""
    core = open_vmcore("7.2-nvdimm")
    layout, pagemap = core.kernel.layout, core.kernel.pagemaps[0]
    pfn = pagemap.ranges[0].first_pfn
    pages = core.prog.read(layout.page_address(pfn), 64 * layout.page_size)
    scheme, spec = core.kernel.scheme, pagemap_spec(pagemap)
    bounds = (pfn, pfn + 64, layout.page_address(pfn))
    evidence = dict.fromkeys((name for name, _ in _zonedev.probes()), True)

    def scan() -> Any:
        scan = _zonedev.Scan(layout.layout, scheme, spec)
        scan.begin(*bounds)
        scan.pages(b"\xff" * len(pages))
        scan.end()
        return scan.result()

    def flags() -> Any:
        made = _zonedev.Layout(**layout.spec, zone=layout.zone, node=layout.node)
        # A flag that got lost would show here.
        return _zonedev.decode(made, scheme, spec, bounds, pfn, pages), _zonedev.why_not(
            made, scheme
        )

    return {
        "layout": flags,
        "scheme": lambda: _zonedev.Scheme(evidence).decisive,
        "scan": scan,
        "decode": lambda: _zonedev.decode(layout.layout, scheme, spec, bounds, pfn, pages),
        "flags_of": lambda: _zonedev.flags_of(layout.layout, pages),
        "rules": _zonedev.rules,
        "probes": _zonedev.probes,
        "elf_info": lambda: _zonedev.elf_info(core.core),
    }


@pytest.mark.parametrize("name", calls())
def test_every_allocation_of_the_binding_may_fail(name: str) -> None:
    testcapi = pytest.importorskip("_testcapi", reason="this Python has no _testcapi")
    call = calls()[name]
    expected = call()
    failed = succeeded = 0
    early = late = 0
    for number in range(1, 20000):
        testcapi.set_nomemory(number, number + 1)
        try:
            result = call()
        except MemoryError:
            failed += 1
            late = sys.getallocatedblocks()
            early = late if failed == 25 else early
            continue
        finally:
            testcapi.remove_mem_hooks()
        # What is swallowed must not change the answer; a few calls that need no more end it.
        assert result == expected
        del result
        succeeded += 1
        if succeeded > 5:
            break
    assert failed and succeeded
    if failed > 50:
        # Nothing is kept of calls that failed, however late.
        assert late - early < failed // 4
