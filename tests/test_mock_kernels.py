# SPDX-License-Identifier: LGPL-2.1-or-later
"""Schemes that no kernel at hand can boot, as cores of mock kernels (tests/mock_kernels/README.md).

Their pages are made up, their types, symbols and trees are not: they go the whole way of a vmcore, from
the file to the report.  What must come out stands in the rows of the C sources, never in the auditor.
"""

from __future__ import annotations

import functools
import json
import struct
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple, Optional

import pytest
from conftest import ROOT, Zonedev, assert_one_line

from zonedev.audit import audit
from zonedev.explain import Explainer
from zonedev.kernel.facts import Kernel, read_kernel
from zonedev.model import PRIVATE, Audit, Finding
from zonedev.page import folio_report
from zonedev.target import Target, open_target

sys.path.insert(0, str(ROOT / "tests" / "mock_kernels"))

from build import MOCKS, VARIANTS, build, compiler

pytestmark = pytest.mark.skipif(
    compiler() is None, reason="no C compiler for x86_64: mock kernels are built when tested"
)

NAMES = sorted(MOCKS)
BOTH = [(name, variant) for name in NAMES for variant in VARIANTS]

# Registries: sections and heights, sections, chunks of powers of two, an xarray; and what is set in a
# pointer to a node of theirs.
TREES = {"a-oldest": 1, "a": 1, "c14": 1, "d": 2}

PROBLEM_STATUS = (1, 3)


@functools.cache
def built(name: str) -> Path:
    return build(name, Path(built_root().name))


@functools.cache
def built_root() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="mock-kernels-")


class Opened(NamedTuple):
    """A mock kernel as an auditor sees it, and the truth about it."""

    args: tuple[str, ...]
    core: Path
    kernel: Kernel
    result: Audit
    truth: dict[str, Any]


@functools.cache
def opened(name: str, variant: str) -> Opened:
    directory = built(name)
    core, vmlinux = directory / variant / "vmcore", str(directory / "vmlinux")
    prog = open_target(Target(str(core), [vmlinux]))
    truth = json.loads((directory / variant / "truth-states.json").read_text())
    args = (str(core), "-s", vmlinux)
    return Opened(args, core, read_kernel(prog), audit(prog), truth)


class Expected(NamedTuple):
    """What a row says of a page."""

    class_: str
    rule: Optional[str]
    severity: Optional[str]
    why: str


def expected_pages(truth: dict[str, Any]) -> dict[int, Expected]:
    """Every page of every pagemap; where rows overlap, the later one was filled in."""
    pages: dict[int, Expected] = {}
    for pagemap in truth["pagemaps"]:
        rest = pagemap["rest_rule"]
        for pfn in range(pagemap["start_pfn"], pagemap["end_pfn"]):
            pages[pfn] = Expected(pagemap["rest_class"], rest, rest and "info", "at rest")
        for pfn in range(pagemap["start_pfn"], pagemap["first_pfn"]):
            pages[pfn] = Expected("skipped", None, None, "altmap")
    for state in truth["states"]:
        row = Expected(state["class"], state["rule"], state["severity"], state["why"])
        for pfn in range(state["pfn"], state["pfn"] + state["count"]):
            # A tail that is wrong makes its folio a violation, and is itself the finding.
            here = not state["tail"] or pfn == state["pfn"] + 2
            pages[pfn] = row if here else row._replace(rule=None, severity=None)
    return pages


def found_pages(findings: list[Finding]) -> dict[int, tuple[str, str]]:
    found: dict[int, tuple[str, str]] = {}
    for finding in findings:
        if finding.pfn is not None:
            for pfn in range(finding.pfn, finding.pfn + finding.pages):
                assert pfn not in found, "one finding names a page"
                found[pfn] = (finding.rule, finding.severity)
    return found


# ---------------------------------------------------------------- what a healthy and a broken kernel show


@pytest.mark.parametrize("name", NAMES)
def test_the_scheme_is_told_by_types_and_symbols(name: str) -> None:
    kernel, truth = opened(name, "healthy").kernel, opened(name, "healthy").truth
    assert kernel.info.id == truth["scheme"]
    assert kernel.info.confidence == "high"
    assert set(truth["evidence"]) <= set(kernel.info.evidence)
    assert any("zone bits: 3 at bit 55" in line for line in kernel.info.evidence)
    assert not opened(name, "healthy").result.scheme.calibrated


@pytest.mark.parametrize(("name", "variant"), BOTH)
def test_every_pagemap_is_found_as_it_was_made(name: str, variant: str) -> None:
    core = opened(name, variant)
    seen = {
        p.address: {
            "name": p.device,
            "type": p.type,
            "start_pfn": p.ranges[0].start_pfn,
            "first_pfn": p.ranges[0].first_pfn,
            "end_pfn": p.ranges[0].end_pfn,
            "ref": p.ref.count,
            "ref_state": p.ref.state,
        }
        for p in core.kernel.pagemaps
    }
    wanted = {
        t["address"]: {key: t[key] for key in next(iter(seen.values()))}
        for t in core.truth["pagemaps"]
    }
    assert seen == wanted
    assert core.kernel.problems == []
    idle = {p.pagemap.address: p.idle_refcount for p in core.result.pagemaps}
    assert idle == {t["address"]: t["idle"] for t in core.truth["pagemaps"]}


@pytest.mark.parametrize(("name", "variant"), BOTH)
def test_every_page_has_the_class_of_its_row(name: str, variant: str) -> None:
    core = opened(name, variant)
    pages = expected_pages(core.truth)
    for one in core.result.pagemaps:
        range_ = one.pagemap.ranges[0]
        wanted = Counter(pages[pfn].class_ for pfn in range(range_.start_pfn, range_.end_pfn))
        assert {c: n for c, n in one.classes.items() if n} == dict(wanted), one.pagemap.device
    # The sums are right; and so is each row, asked for by itself.
    for state in core.truth["states"]:
        for pfn in {state["pfn"], state["pfn"] + state["count"] - 1}:
            report = folio_report(core.kernel, str(pfn))
            assert report.class_ == pages[pfn].class_, (hex(pfn), pages[pfn].why)


@pytest.mark.parametrize(("name", "variant"), BOTH)
def test_exactly_the_rows_that_call_for_a_finding_have_it(name: str, variant: str) -> None:
    core = opened(name, variant)
    found = found_pages(core.result.findings)
    pages = expected_pages(core.truth)
    wanted = {pfn: (e.rule, e.severity) for pfn, e in pages.items() if e.rule}
    wrong = {
        hex(pfn): (wanted.get(pfn), found.get(pfn), pages[pfn].why)
        for pfn in wanted.keys() | found.keys()
        if wanted.get(pfn) != found.get(pfn)
    }
    assert not wrong
    on_pagemaps = [(f.pagemap, f.rule, f.severity) for f in core.result.findings if f.pfn is None]
    assert sorted(on_pagemaps) == sorted(
        (t["address"], t["rule"], t["severity"]) for t in core.truth["pagemaps"] if t["rule"]
    )


@pytest.mark.parametrize("name", NAMES)
def test_healthy_mock_kernels_are_clean(name: str, zonedev: Zonedev) -> None:
    answer = zonedev("audit", *opened(name, "healthy").args, "--format", "json")
    assert answer.status == 0 and not answer.err
    summary = json.loads(answer.out)["summary"]
    assert (summary["verdict"], summary["errors"], summary["warnings"]) == ("clean", 0, 0)


@pytest.mark.parametrize("name", NAMES)
def test_broken_mock_kernels_are_not(name: str, zonedev: Zonedev) -> None:
    core = opened(name, "broken")
    answer = zonedev("audit", *core.args)
    assert answer.status == 1 and not answer.err
    assert f"Linux {core.truth['release']}" in answer.out
    listed = zonedev("list", *core.args)
    assert listed.status == 0
    for pagemap in core.truth["pagemaps"]:
        assert pagemap["name"] in listed.out
    state = next(s for s in core.truth["states"] if s["severity"] == "error")
    page = zonedev("page", state["pfn"], "-c", *core.args)
    assert "violation" in page.out and state["rule"] in page.out


@pytest.mark.parametrize("name", ["b", "c14", "f2", "f2-drivers"])
def test_a_slice_of_a_mock_kernel_says_the_same(
    name: str, zonedev: Zonedev, tmp_path: Path
) -> None:
    """It reads physical memory only: image and RAM are where the page tables say."""
    core = opened(name, "broken")
    answer = zonedev("slice", "-o", tmp_path / "small", *core.args)
    assert answer.status == 0, answer.err
    small = (tmp_path / "small" / "vmcore", "-s", tmp_path / "small" / "vmlinux")
    whole, cut = (
        json.loads(zonedev("audit", *args, "--format", "json").out) for args in (core.args, small)
    )
    assert cut["findings"] == whole["findings"] and cut["summary"] == whole["summary"]


def test_rows_say_what_they_must() -> None:
    """The sources state class and rule; each scheme has rows that alarm and rows that do not."""
    for name in NAMES:
        healthy, broken = (opened(name, variant).truth["states"] for variant in VARIANTS)
        assert {s["severity"] for s in healthy} <= {None, "info"}
        assert {s["severity"] for s in broken} >= {"error"}
        assert all(s["why"] and s["class"] for s in broken)
        assert {s["class"] for s in broken} >= {"busy", "violation"}


# ---------------------------------------------------------------- registries out of untrusted dumps


class Damage:
    """A broken copy of a mock's core, and the nodes of its registry."""

    def __init__(self, name: str, tmp_path: Path) -> None:
        core = opened(name, "healthy")
        self.data = bytearray(core.core.read_bytes())
        self.nodes = core.truth["nodes"]
        self.path = tmp_path / "vmcore"
        self.args = (str(self.path), *core.args[1:])
        self.tag = TREES[name]
        self.top = max(self.nodes, key=lambda n: self.level(n))

    def level(self, node: dict[str, int]) -> int:
        """Height (old) or shift of a node."""
        return self.data[node["offset"]]

    def slots(self, node: dict[str, int]) -> dict[int, int]:
        """File offset -> word of the slots in use."""
        at = node["offset"] + node["slots"]
        words = struct.unpack_from("<64Q", self.data, at)
        return {at + 8 * i: word for i, word in enumerate(words) if word}

    def put(self, offset: int, word: int) -> None:
        struct.pack_into("<Q", self.data, offset, word)

    def audit(self, zonedev: Zonedev) -> Any:
        self.path.write_bytes(self.data)
        begin = time.monotonic()
        answer = zonedev("audit", *self.args)
        assert time.monotonic() - begin < 10, "a walk must end"
        return answer


@pytest.fixture(params=TREES)
def damage(request: pytest.FixtureRequest, tmp_path: Path) -> Damage:
    return Damage(request.param, tmp_path)


def test_an_unharmed_copy_is_clean(damage: Damage, zonedev: Zonedev) -> None:
    assert damage.audit(zonedev).status == 0


def test_a_node_that_points_to_itself(damage: Damage, zonedev: Zonedev) -> None:
    for offset in damage.slots(damage.top):
        damage.put(offset, damage.top["address"] | damage.tag)
    assert_one_line(damage.audit(zonedev), "registry", "cannot be read", "node", str(damage.path))


def test_a_node_with_two_parents(damage: Damage, zonedev: Zonedev) -> None:
    slots = damage.slots(damage.top)
    child = next(word for word in slots.values())
    free = max(slots) + 8
    assert free not in slots
    damage.put(free, child)
    damage.put(free + 8, child)
    assert_one_line(damage.audit(zonedev), "registry", "reached twice")


# Up to 4.7 the root alone says how high its tree is: no word of a node is asked.
@pytest.mark.parametrize("damage", [name for name in TREES if name != "a-oldest"], indirect=True)
@pytest.mark.parametrize("level", [0xFF, 7, 0])
def test_a_node_at_no_level(damage: Damage, zonedev: Zonedev, level: int) -> None:
    damage.data[damage.top["offset"]] = level
    assert_one_line(damage.audit(zonedev), "registry", "cannot")


@pytest.mark.parametrize("target", [0xFFFF_8801_0000_0000, 0xFFFF_FFFF_FFFF_F000, 0x1_0000])
def test_a_child_that_is_not_there(damage: Damage, zonedev: Zonedev, target: int) -> None:
    offset = next(iter(damage.slots(damage.top)))
    damage.put(offset, target | damage.tag)
    assert_one_line(damage.audit(zonedev), "registry", "cannot be read")


def test_a_slot_that_was_lost(damage: Damage, zonedev: Zonedev) -> None:
    lowest = min(damage.nodes, key=lambda n: damage.level(n))
    damage.put(next(iter(damage.slots(lowest))), 0)
    answer = damage.audit(zonedev)
    assert answer.status in PROBLEM_STATUS and not answer.err
    words = " ".join(answer.out.split())
    assert "pagemaps may be missing" in words or "loads nothing" in words


@pytest.mark.parametrize("fill", [0x00, 0x55, 0xFF])
def test_a_node_that_was_overwritten(damage: Damage, zonedev: Zonedev, fill: int) -> None:
    node = damage.top
    size = node["slots"] + 64 * 8
    damage.data[node["offset"] : node["offset"] + size] = bytes([fill]) * size
    answer = damage.audit(zonedev)
    if answer.status == 2:
        assert_one_line(answer, "registry")
    else:
        # What the other tree of 4.14 holds was read; that this one is damaged is said.
        assert answer.status in PROBLEM_STATUS


@pytest.mark.parametrize("word", [0xFFFF_8800_0900_0000, 0x1000, 0xFFFF_8800_0800_0000])
def test_an_item_that_is_no_pagemap(damage: Damage, zonedev: Zonedev, word: int) -> None:
    lowest = min(damage.nodes, key=lambda n: damage.level(n))
    offset, _ = next((o, w) for o, w in damage.slots(lowest).items() if w & 3 == 0)
    damage.put(offset, word)
    answer = damage.audit(zonedev)
    assert answer.status in PROBLEM_STATUS and not answer.err


def test_a_sibling_without_an_item(zonedev: Zonedev, tmp_path: Path) -> None:
    for name in ("c14", "d"):
        damage = Damage(name, tmp_path)
        node, siblings = next(
            (n, [o for o, w in damage.slots(n).items() if is_sibling(damage, n, w)])
            for n in damage.nodes
            if any(is_sibling(damage, n, w) for w in damage.slots(n).values())
        )
        # It continues the last slot of the node, which is empty.
        last = 63 << 2 | 2 if damage.tag == 2 else node["address"] + node["slots"] + 63 * 8 | 1
        damage.put(siblings[-1], last)
        answer = damage.audit(zonedev)
        assert answer.status in PROBLEM_STATUS and not answer.err
        assert "loads nothing" in answer.out


def is_sibling(damage: Damage, node: dict[str, int], word: int) -> bool:
    if damage.tag == 2:
        return word & 3 == 2 and word < 256
    slots = node["address"] + node["slots"]
    return bool(word & 1) and slots <= word < slots + 64 * 8


# ---------------------------------------------------------------- which tree, which key


def test_both_trees_of_4_14_are_walked() -> None:
    kernel = opened("c14", "healthy").kernel
    units = {kernel.registry.units[p.address] for p in kernel.pagemaps if "PRIVATE" not in p.type}
    assert (
        kernel.registry.units[next(p for p in kernel.pagemaps if "PRIVATE" in p.type).address]
        == 1 << 15
    )
    assert units == {1, 1 << 15}
    # 512, 1024 and 512 pages: one item each.
    pmem = next(p for p in kernel.pagemaps if p.device == "namespace0.0")
    assert pmem.indices == [0x100200, 0x100400, 0x100800]


def test_section_numbers_are_told_from_pfns() -> None:
    for name, pfns in (("a", [0x240000, 0x248000]), ("a-oldest", [0x240000, 0x248000])):
        kernel = opened(name, "healthy").kernel
        devdax = next(p for p in kernel.pagemaps if p.device == "dax1.0")
        assert devdax.indices == pfns
        assert set(kernel.registry.units.values()) == {1 << 15}
        assert kernel.registry.load(devdax.ranges[0].start_pfn) == devdax.address
        assert kernel.registry.load(0x250000) == 0


def test_a_request_queue_tells_pmem_from_devdax() -> None:
    for name in ("a", "b", "c14"):
        kernel = opened(name, "healthy").kernel
        refs = {p.device: (p.type, p.ref.approximate) for p in kernel.pagemaps}
        assert refs["namespace0.0"] == ("MEMORY_DEVICE_FS_DAX", True)
        assert refs["dax1.0"] == ("MEMORY_DEVICE_GENERIC", False)


def test_pagemaps_of_one_type_with_different_init_modes() -> None:
    core = opened("f1", "healthy")
    idle = {p.pagemap.device: p.idle_refcount for p in core.result.pagemaps}
    assert (idle["namespace0.0"], idle["0000:00:02.0"]) == (0, 1)
    assert (idle["gpu"], idle["hmm_dmirror"]) == (1, 0)


# ---------------------------------------------------------------- explanations


@pytest.mark.parametrize("name", NAMES)
def test_free_pages_need_no_holder(name: str) -> None:
    """Whatever the scheme: what a free page rests at is the base, and in use it is what was not handed over."""
    mock = opened(name, VARIANTS[0])
    explainer = Explainer(mock.kernel.prog, mock.kernel)
    wanted = {
        pfn: row for pfn, row in expected_pages(mock.truth).items() if row.class_ != "skipped"
    }
    at_rest = [pfn for pfn, row in wanted.items() if row.why == "at rest" and row.class_ == "idle"]
    firsts = {mock.kernel.find(pfn).address: pfn for pfn in reversed(at_rest)}
    for one in explainer.explain_pfns(firsts.values()).values():
        assert (one.base, one.unexplained) == (one.refcount, 0)
        assert one.idle_refcount == one.refcount


def test_the_reference_of_private_memory_is_handed_over() -> None:
    mock = opened("d", VARIANTS[0])
    explainer = Explainer(mock.kernel.prog, mock.kernel)
    private = {p.address for p in mock.kernel.pagemaps if p.type == PRIVATE}
    assert private
    seen = set()
    for pfn, row in expected_pages(mock.truth).items():
        pagemap = mock.kernel.find(pfn)
        if pagemap is None or pagemap.address not in private or row.class_ != "busy":
            continue
        one = explainer.explain_pfns([pfn])[pfn]
        assert one.base == (0 if one.mapcount else 1)
        assert one.unexplained == one.refcount - one.base and not one.complete
        seen.add(one.base)
    assert 0 in seen
