# SPDX-License-Identifier: LGPL-2.1-or-later
"""What drivers say of their pages: pools of peer-to-peer memory, lists of free pages.

States and their findings stand in the rows of tests/mock_kernels (d-drivers, f2-drivers); here is what
becomes of books that cannot be read or believed, and of those who ask for none.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Callable, Optional

import pytest
from conftest import VMCORES, Zonedev, lay_over, lose, open_vmcore
from drgn import Object, Program, cast, container_of, offsetof
from pages import START, Machine
from test_mock_kernels import opened
from test_mock_kernels import pytestmark as pytestmark

from zonedev import _zonedev
from zonedev.audit import audit
from zonedev.driver_pass import LIVE, QUICK, DriverPasses, FreeListPass, PoolPass
from zonedev.kernel.facts import Kernel, read_kernel
from zonedev.kernel.p2pdma import read_pool
from zonedev.model import Audit, Pagemap
from zonedev.page import folio_report
from zonedev.target import Target, open_target

MOCKS = ("d-drivers", "f2-drivers")
P2PDMA, PRIVATE = "MEMORY_DEVICE_PCI_P2PDMA", "MEMORY_DEVICE_PRIVATE"
UNMAPPED = 0xFFFF_C900_0000_0000


def fresh(name: str, variant: str = "healthy") -> Program:
    core = opened(name, variant)
    return open_target(Target(str(core.core), [core.args[2]]))


def pagemap_of(kernel: Kernel, type_: str) -> Pagemap:
    return next(p for p in kernel.pagemaps if p.type == type_)


def pgmap_of(prog: Program, type_: str) -> Object:
    pagemap = pagemap_of(read_kernel(prog), type_)
    return Object(prog, "struct dev_pagemap *", value=pagemap.address)


def pool_of(prog: Program) -> Object:
    wrapper = container_of(pgmap_of(prog, P2PDMA), "struct pci_p2pdma_pagemap", "pgmap")
    if not wrapper.type_.type.has_member("mem"):
        return wrapper.provider.p2pdma.pool
    return container_of(wrapper.mem.owner, "struct pci_dev", "dev").p2pdma.pool


def head_of(prog: Program) -> Object:
    """The head of test_hmm's list: the variable itself."""
    chunk = container_of(pgmap_of(prog, PRIVATE), "struct dmirror_chunk", "pagemap")
    return chunk.mdevice.free_pages


def next_of(prog: Program, page: Object) -> int:
    """Where the link of a page lies."""
    return int(page) + int(offsetof(prog.type("struct page"), "zone_device_data"))


def put(prog: Program, what: Object | int, word: int) -> None:
    address = what if isinstance(what, int) else int(what.address_ or 0)
    lay_over(prog, address, struct.pack("<Q", word & (1 << 64) - 1))


def audited(prog: Program, **options: Any) -> Audit:
    result: Audit = audit(prog, **options)
    return result


def the_pass(result: Audit, name: str) -> dict[str, Any]:
    return next(one for one in result.passes if one["pass"] == name)


def alarms(result: Audit) -> set[tuple[str, str, Optional[int]]]:
    return {(f.rule, f.severity, f.pfn) for f in result.findings if f.severity != "info"}


def why_of(result: Audit, rule: str) -> str:
    return "; ".join(one["why"] for one in result.not_applicable if one["rule"] == rule)


# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize("name", MOCKS)
def test_pools_and_lists_are_read(name: str) -> None:
    core = opened(name, "healthy")
    pool, lists = (the_pass(core.result, key) for key in ("gen-pool", "free-lists"))
    assert pool["ran"] and pool["complete"] and lists["ran"] and lists["complete"]
    used = [
        s["count"] for s in core.truth["states"] if pagemap_of(core.kernel, P2PDMA).covers(s["pfn"])
    ]
    assert pool["pages"] == 512 and pool["allocated"] == sum(used) > 4
    drivers = {"d-drivers": ["nouveau", "test_hmm"], "f2-drivers": ["nouveau", "test_hmm", "xen"]}
    assert lists["drivers"] == drivers[name]
    assert why_of(core.result, "pool-vs-pages") == why_of(core.result, "free-list-nonidle") == ""


def test_a_page_says_what_its_driver_says() -> None:
    kernel = opened("f2-drivers", "broken").kernel
    p2pdma, private = pagemap_of(kernel, P2PDMA), pagemap_of(kernel, PRIVATE)
    words = [
        (p2pdma, 0, "pool: free"),
        (p2pdma, 32, "pool: handed out"),
        (p2pdma, 48, "pool: free"),
        (private, 40, "free list: on it"),
        (private, 56, "free list: not on it"),
    ]
    for pagemap, at, text in words:
        report = folio_report(kernel, str(pagemap.ranges[0].start_pfn + at))
        assert report.driver == text and f"driver      {text}" in str(report)
    leaked = folio_report(kernel, str(p2pdma.ranges[0].start_pfn + 56))
    assert [f.rule for f in leaked.findings] == ["pool-vs-pages"]
    assert leaked.findings[0].also == ["reference-on-free-folio"]
    quick = folio_report(kernel, str(p2pdma.ranges[0].start_pfn + 56), quick=True)
    assert quick.driver == f"pool: not read: {QUICK}"
    assert [(f.rule, f.severity) for f in quick.findings] == [
        ("reference-on-free-folio", "warning")
    ]


# ---------------------------------------------------------------- not asked for, not possible


@pytest.mark.parametrize("name", MOCKS)
def test_quick_leaves_them_out(name: str, zonedev: Zonedev) -> None:
    core = opened(name, "broken")
    answer = zonedev("audit", *core.args, "--quick", "--format", "json")
    report = json.loads(answer.out)
    passes = {one["pass"]: one for one in report["passes"]}
    for key in ("gen-pool", "free-lists"):
        assert passes[key] == {"pass": key, "ran": False, "why": QUICK}
    found = {f["rule"] for f in report["findings"]}
    assert not found & {"pool-vs-pages", "free-list-nonidle"}
    listed = {one["rule"]: one["why"] for one in report["not_applicable"]}
    for rule in ("pool-vs-pages", "free-list-nonidle"):
        assert "not applied (left out (--quick))" in listed[rule]


def test_a_live_kernel_is_asked_for_its_pool_with_every_sample() -> None:
    prog = fresh("f2-drivers", "broken")
    kernel = read_kernel(prog)
    pagemap = pagemap_of(kernel, P2PDMA)
    pfn = pagemap.ranges[0].start_pfn + 48

    class Live(Kernel):
        live = True

    alive = Live(**vars(kernel))
    passes = DriverPasses(alive, alive.pagemaps)
    assert passes.lists is not None and passes.lists.summary() == {
        "pass": "free-lists",
        "ran": False,
        "why": LIVE,
    }
    before = passes.bits_of(pagemap)["allocated"]
    assert before is not None and before.test(pfn) is False
    # It is handed out again meanwhile.
    chunk = container_of(pool_of(prog).chunks.prev, "struct gen_pool_chunk", "next_chunk")
    put(prog, chunk.bits[0], int(chunk.bits[0]) | 1 << 48)
    now = passes.bits_of(pagemap)["allocated"]
    assert now is not None and now.test(pfn) is True and before.test(pfn) is False
    # And what cannot be read any more is not known: nothing is concluded from the last time.
    put(prog, pool_of(prog).chunks.next, UNMAPPED)
    assert passes.bits_of(pagemap)["allocated"] is None


# ---------------------------------------------------------------- books that cannot be believed

Damage = Callable[[Program], None]


def no_pool(prog: Program) -> None:
    put(prog, pool_of(prog), 0)


def endless_chunks(prog: Program) -> None:
    first = pool_of(prog).chunks.next
    put(prog, first.next, int(first))
    owner = container_of(first, "struct gen_pool_chunk", "next_chunk").owner
    put(prog, owner, 0)


def foreign_chunks(prog: Program) -> None:
    node = pool_of(prog).chunks.prev
    put(prog, container_of(node, "struct gen_pool_chunk", "next_chunk").owner, 1)


def short_chunk(prog: Program) -> None:
    chunk = container_of(pool_of(prog).chunks.prev, "struct gen_pool_chunk", "next_chunk")
    put(prog, chunk.end_addr, int(chunk.end_addr) - 4096)


def lost_chunks(prog: Program) -> None:
    put(prog, pool_of(prog).chunks.next, UNMAPPED)


def coarse_pool(prog: Program) -> None:
    order = pool_of(prog).min_alloc_order
    lay_over(prog, int(order.address_ or 0), struct.pack("<i", 16))


POOLS: dict[str, tuple[Damage, str]] = {
    "no pool": (no_pool, "its device has no pool"),
    "endless": (endless_chunks, "more than 256 chunks"),
    "of another pagemap": (foreign_chunks, "no chunk of its pool is its own"),
    "too short": (short_chunk, "no chunk of its pool is its own"),
    "unreadable": (lost_chunks, "its pool cannot be read"),
    "not of pages": (coarse_pool, "does not hand out single pages"),
}


@pytest.mark.parametrize("name", MOCKS)
@pytest.mark.parametrize("damage", POOLS)
def test_a_pool_that_cannot_be_read(name: str, damage: str) -> None:
    """No page is in violation for it, what is left of the rules is said, and the verdict stays."""
    spoil, reason = POOLS[damage]
    prog = fresh(name, "broken")
    spoil(prog)
    result = audited(prog)
    one = the_pass(result, "gen-pool")
    assert not one["ran"] and reason in one["why"] and "0000:00:03.0" in one["why"]
    assert f"gen pool: not read: {one['why'][:20]}" in str(result)
    assert "pool-vs-pages" not in {f.rule for f in result.findings}
    assert "not applied" in why_of(result, "pool-vs-pages")
    healthy = fresh(name)
    spoil(healthy)
    after = audited(healthy)
    assert (after.verdict, alarms(after)) == ("clean", set())


def cycle(prog: Program) -> None:
    first = head_of(prog)
    put(prog, next_of(prog, first.zone_device_data), int(first))


def astray(prog: Program) -> None:
    put(prog, next_of(prog, head_of(prog).zone_device_data), UNMAPPED)


def between(prog: Program) -> None:
    first = head_of(prog)
    put(prog, next_of(prog, first), int(first) + 8)


def lost_link(prog: Program) -> None:
    page = cast("unsigned long", head_of(prog).zone_device_data)
    lose(prog, int(page) & ~4095, 4096)


LISTS: dict[str, tuple[Damage, str, int]] = {
    "a cycle": (cycle, "a page is linked twice", 2),
    "astray": (astray, "a link leads to no page of these pagemaps", 2),
    "between pages": (between, "a link leads to no page of these pagemaps", 1),
    "unreadable": (lost_link, "a struct page cannot be read", 0),
}


@pytest.mark.parametrize("name", MOCKS)
@pytest.mark.parametrize("damage", LISTS)
def test_a_list_that_cannot_be_walked_to_its_end(name: str, damage: str) -> None:
    spoil, reason, met = LISTS[damage]
    prog = fresh(name)
    spoil(prog)
    lists = FreeListPass(read_kernel(prog))
    one = lists.summary()
    assert one["ran"] and not one["complete"]
    (gap,) = one["gaps"]
    assert reason in gap and "test_hmm" in gap and f"after {met} pages" in gap
    result = audited(prog)
    assert alarms(result) == set()
    assert reason in " ".join(str(result).split())
    assert "not all driver free list could be read" in why_of(result, "free-list-nonidle")


def test_what_was_seen_of_a_list_counts() -> None:
    """A page that is listed and in use is found though the list is corrupt behind it."""
    prog = fresh("f2-drivers", "broken")
    before = {f.pfn for f in audited(prog).findings if f.rule == "free-list-nonidle"}
    head = head_of(prog)
    put(prog, head, int(head) - 64)
    pagemap = pagemap_of(read_kernel(prog), PRIVATE)
    start = pagemap.ranges[0].start_pfn
    assert {start + 40, start + 48} <= before
    page = Object(prog, "struct page *", value=int(head) - 64 * (pagemap.pages - 1) + 64 * 30)
    put(prog, next_of(prog, page), UNMAPPED)
    now = {f.pfn for f in audited(prog).findings if f.rule == "free-list-nonidle"}
    assert now == before


def test_a_driver_whose_types_are_not_known() -> None:
    kernel = read_kernel(fresh("f2-drivers"))
    for pagemap in kernel.pagemaps:
        if pagemap.type == PRIVATE:
            pagemap.ops = "svm_migrate_pgmap_ops"
    lists = FreeListPass(kernel)
    assert lists.why is None and not lists.complete
    assert "(svm_migrate_pgmap_ops) keeps no list that is known" in lists.summary()["gaps"][0]
    private = pagemap_of(kernel, PRIVATE)
    assert lists.bits_of(private) is None
    assert "not read" in lists.words(private, private.ranges[0].start_pfn)
    plain = read_kernel(
        open_target(Target(str(opened("f2", "healthy").core), [opened("f2", "healthy").args[2]]))
    )
    for one in (PoolPass(plain), FreeListPass(plain)):
        assert one.why is not None and not one.complete and not one.summary()["ran"]


def test_which_bit_is_which_page() -> None:
    kernel = opened("f2-drivers", "broken").kernel
    pool = read_pool(kernel.prog, pagemap_of(kernel, P2PDMA), kernel.layout)
    assert (pool.pages, len(pool.bitmap)) == (512, 64)
    used = {
        8 * i + bit for i, byte in enumerate(pool.bitmap) for bit in range(8) if byte >> bit & 1
    }
    assert used == {16, 32, 33, 34, 35, 40, 41, 42, 43}


# ---------------------------------------------------------------- the bits themselves


def bits(machine: Machine, read: Any = lambda address, size: None) -> _zonedev.PageBits:
    made = _zonedev.PageBits(machine.layout, read)
    made.range(START, START + 100, machine.memmap)
    made.range(START + 200, START + 300, machine.memmap + 200 * machine.page_size)
    return made


def test_bits_of_pages() -> None:
    made = bits(Machine())
    made.set(START + 95, b"\xff\xff", 10)
    assert [pfn for pfn in range(START + 90, START + 210) if made.test(pfn)] == [
        *range(START + 95, START + 100)
    ]
    assert made.count() == 5 and made.test(START + 150) is None and made.test(START + 250) is False
    made.set(START + 95, b"\x01", 1)
    assert made.count() == 5
    for wrong in ((START, START + 1), (START + 300, START + 300), (START + 400, 1 << 60)):
        with pytest.raises(ValueError, match="makes no sense"):
            made.range(*wrong, 0)
    for count in (9, 1 << 63):
        with pytest.raises(ValueError, match="so many bits"):
            made.set(START, b"\0", count)


@pytest.mark.parametrize("options", [{}, {"word": 4}, {"big_endian": True}], ids=str)
def test_a_list_through_pages(options: dict[str, Any]) -> None:
    m = Machine("H", "PRIVATE", **options)
    order = [5, 99, 250, 7, 201]
    pages = {pfn: bytearray(m.page()) for pfn in range(300)}
    for here, there in zip(order, order[1:]):
        m.put(pages[here], "zone_device_data", m.memmap + there * m.page_size)
    reads = []

    def read(address: int, size: int) -> Optional[bytes]:
        reads.append(size)
        first, count = (address - m.memmap) // m.page_size, size // m.page_size
        # Some neighbours are not there.
        return (
            None
            if first <= 6 < first + count
            else b"".join(bytes(pages[first + i]) for i in range(count))
        )

    made = bits(m, read)
    assert made.walk(m.memmap + 5 * m.page_size) == {"pages": 5, "why": None, "link": 0}
    assert [pfn - START for pfn in range(START, START + 300) if made.test(pfn)] == sorted(order)
    assert made.walk(0) == {"pages": 0, "why": None, "link": 0}
    again = made.walk(m.memmap + 7 * m.page_size)
    assert again["why"] == "a page is linked twice" and again["pages"] == 0
    assert max(reads) <= 4096


def test_a_kernel_without_zone_device_data() -> None:
    m = Machine("C", "PRIVATE", missing=("zone_device_data",))
    walked = bits(m, lambda address, size: bytes(size)).walk(m.memmap)
    assert walked["why"] == "pages have no zone_device_data" and not walked["pages"]


def test_a_read_that_raises_ends_the_walk() -> None:
    m = Machine()

    def read(address: int, size: int) -> bytes:
        raise KeyboardInterrupt

    made = bits(m, read)
    with pytest.raises(KeyboardInterrupt):
        made.walk(m.memmap)
    with pytest.raises(TypeError):
        bits(m, lambda address, size: "text").walk(m.memmap)


def test_bits_are_not_changed_under_a_scan() -> None:
    m = Machine("H", "PRIVATE")
    made = bits(m)
    scan = _zonedev.Scan(m.layout, m.scheme, m.pagemap, listed=made)
    for change in (
        lambda: made.set(START, b"\1", 1),
        lambda: made.walk(0),
        lambda: made.range(1 << 40, 2 << 40, 0),
    ):
        with pytest.raises(RuntimeError, match="in use by a scan"):
            change()
    del scan
    made.set(START, b"\1", 1)
    with pytest.raises(TypeError, match="PageBits"):
        _zonedev.Scan(m.layout, m.scheme, m.pagemap, allocated=b"")  # type: ignore[arg-type]

    def reenter(address: int, size: int) -> bytes:
        walked.count()
        return bytes(size)

    walked = bits(m, reenter)
    with pytest.raises(RuntimeError, match="being walked"):
        walked.walk(m.memmap)


# ---------------------------------------------------------------- real cores


def edited(name: str, pfn: int, **words: int) -> Audit:
    """An audit of a bundled core, of which members of one struct page are other than they are."""
    vmcore = open_vmcore(name)
    modules = map(str, sorted((VMCORES / name).glob("*.ko.debug")))
    prog = open_target(Target(vmcore.core, [vmcore.vmlinux, *modules]))
    layout = vmcore.kernel.layout
    for member, value in words.items():
        offset, size, _ = layout.fields[member]
        address = layout.page_address(pfn) + offset
        lay_over(prog, address, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))
    return audited(prog)


def test_the_pool_of_a_real_controller_memory_buffer() -> None:
    """32 pages are the controller's queues, which nobody references, and 16 were mapped; one was over-put."""
    vmcore = open_vmcore("6.16-p2p-leak")
    result = audited(vmcore.prog)
    assert the_pass(result, "gen-pool") == {
        "pass": "gen-pool",
        "ran": True,
        "complete": True,
        "pagemaps": 1,
        "pages": 16384,
        "allocated": 47,
        "gaps": [],
    }
    (finding,) = [f for f in result.findings if f.severity == "error"]
    assert finding.rule == "mapped-without-reference" and "pool-vs-pages" in finding.also
    start = pagemap_of(vmcore.kernel, P2PDMA).ranges[0].start_pfn
    pool = PoolPass(vmcore.kernel)
    used = [
        i for i in range(16384) if "handed out" in pool.words(vmcore.kernel.pagemaps[0], start + i)
    ]
    assert used == [i for i in range(48) if start + i != finding.pfn]
    before = alarms(result)
    free, queue = start + 1000, start + 3
    held = edited("6.16-p2p-leak", free, _refcount=1)
    assert alarms(held) - before == {("pool-vs-pages", "error", free)}
    mapped = edited("6.16-p2p-leak", free, _refcount=1, _mapcount=0)
    assert alarms(mapped) - before == {("pool-vs-pages", "error", free)}
    leaked = edited("6.16-p2p-leak", queue, _refcount=1)
    assert alarms(leaked) - before == {("reference-on-free-folio", "warning", queue)}
    assert alarms(edited("6.16-p2p-leak", queue, _refcount=1, _mapcount=0)) == before


def test_the_lists_of_real_private_and_coherent_memory() -> None:
    """Every idle page is on one of four lists, and the two over-put ones, which are still mapped."""
    vmcore = open_vmcore("6.16-hmm-leak")
    result = audited(vmcore.prog)
    one = the_pass(result, "free-lists")
    assert one["ran"] and one["complete"] and one["drivers"] == ["test_hmm"] and one["lists"] == 4
    errors = [f for f in result.findings if f.severity == "error"]
    assert one["pages"] == result.classes["idle"] + len(errors)
    assert [f.rule for f in errors] == ["mapped-without-reference"] * 2
    assert all("free-list-nonidle" in f.also for f in errors)
    before = alarms(result)
    listed, used = (
        next(s["pfn"] for s in vmcore.states if s["class"] == c) for c in ("idle", "busy")
    )
    held = edited("6.16-hmm-leak", listed, _refcount=1)
    assert ("free-list-nonidle", "error", listed) in alarms(held) - before
    # One reference more on a page that is not listed is somebody's.
    more = edited("6.16-hmm-leak", used, _refcount=2)
    assert {a for a in alarms(more) - before if a[2] is not None} == set()


def test_without_the_types_of_a_module_its_lists_are_not_read(zonedev: Zonedev) -> None:
    vmcore = open_vmcore("6.16-hmm-leak")
    report = json.loads(zonedev("audit", vmcore.core, "-s", vmcore.vmlinux, "--format", "json").out)
    (one,) = report["passes"]
    assert one["pass"] == "free-lists" and not one["ran"] and "3 more" in one["why"]
    assert not any("free-list-nonidle" in (f["rule"], *f["also"]) for f in report["findings"])
