# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who holds a page by the lab's record, and that its comparison with explanations can fail."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import explained
import lab
import pytest
import replay

OLD, MIDDLE, NEW = (
    "5.10.0",
    "6.12.107",
    "7.2.12",
)  # before pins of O_DIRECT, with them, large folios

Event = dict[str, Any]

PMEM, DAX, CMB = 0x100000, 0x200000, 0x300000  # page frames where the devices begin
DIR, DEVICE, ALLOCATE = (
    "/mnt/pmem0",
    "/dev/dax1.0",
    "/sys/bus/pci/devices/0000:00:01.0/p2pmem/allocate",
)
FILE = (f"{DIR}/a", 12)
VA = 0x7F0000000000
MIB2 = 0x200000


def device(type_: str, path: str, pfn: int, align: int = 4096) -> Event:
    start = {"start": pfn << 12, "size": 1 << 28, "data": (pfn + 512) << 12}
    return {"ev": "range", "type": type_, "path": path, "map": "mem", "align": align, **start}


def mapped(pfn: Optional[int], n: int = 1, entry: int = 1, **changes: Any) -> Event:
    frames = {"pid": 7, "va": VA, "off": 0, "n": n, "pfn": pfn, "step": 1, "entry": entry}
    return {"ev": "map", "cat": "c", "path": FILE[0], "ino": FILE[1], **frames, **changes}


def pin(how: str, n: int = 1, ret: Optional[int] = None, **changes: Any) -> Event:
    done = ret if ret is not None else n << 12 if how == "vmsplice" else 0
    what = {"how": how, "pid": 7, "va": VA, "n": n, "ret": done}
    return {"ev": "pin", "path": FILE[0], "ino": FILE[1], **what, **changes}


def of_file(ev: str, op: str, **words: Any) -> Event:
    return {"ev": ev, "op": op, "path": FILE[0], "ino": FILE[1], "ret": 0, **words}


def leak(op: str, pfn: int, val: int = 0) -> Event:
    return {"ev": "leak", "op": op, "pfn": pfn, "val": val}


def accounts(release: str, *events: Event) -> dict[int, replay.Account]:
    """By page frame, what is to be said at the end of a record."""
    boot = {"ev": "boot", "release": release, "scenario": "nvdimm", "cmdline": ""}
    devices = [device("fsdax", DIR, PMEM), device("devdax", DEVICE, DAX, MIB2)]
    devices.append(device("p2pdma", ALLOCATE, CMB))
    lines = [json.dumps(event) for event in (boot, *devices, *events)]
    world = replay.world_of(lines)
    assert not world.problems
    return {account.pfn: account for account in replay.accounts_of(world)}


def holders(release: str, *events: Event, pfn: int = PMEM) -> list[tuple[Any, ...]]:
    return [tuple(holder) for holder in accounts(release, *events)[pfn].holders]


# ---------------------------------------------------------------- the record


@pytest.mark.parametrize(("release", "refs"), [(OLD, 0), (NEW, 1)])
def test_each_entry_of_each_process_is_a_holder(release: str, refs: int) -> None:
    two = accounts(release, mapped(PMEM, 2), mapped(PMEM, 1, pid=9, va=VA + MIB2))
    first = [("pte", 7, VA, refs, 0), ("pte", 9, VA + MIB2, refs, 0)]
    assert list(map(tuple, two[PMEM].holders)) == first
    assert list(map(tuple, two[PMEM + 1].holders)) == [("pte", 7, VA + 4096, refs, 0)]
    assert two[PMEM].refcount == (1 if release == OLD else 0) + 2 * refs
    assert two[PMEM].unexplained == 0 and two[PMEM].certain


def test_an_entry_is_at_the_address_of_the_page_and_of_its_level() -> None:
    small = accounts(MIDDLE, mapped(PMEM, 512, entry=512))
    assert len(small) == 512
    assert tuple(small[PMEM + 5].holders[0]) == ("pmd", 7, VA + (5 << 12), 0, 0)
    assert small[PMEM + 5].files == ((*FILE, 5 << 12, False),)
    large = accounts(NEW, mapped(PMEM, 512, entry=512))
    assert list(large) == [PMEM] and large[PMEM].order == 9
    assert list(map(tuple, large[PMEM].holders)) == [("pmd", 7, VA, 1, 0)]
    gig = mapped(None, 1 << 18, entry=1 << 18, path=DEVICE)
    (huge,) = (h for a in accounts(NEW, gig).values() for h in a.holders if h.address == VA)
    assert huge.kind == "pud"


def test_small_entries_below_a_large_folio_are_counted_one_by_one() -> None:
    halves = [
        mapped(PMEM, 512, entry=512),
        {"ev": "unmap", "pid": 7, "va": VA, "n": 512},
        mapped(PMEM + 256, 2, off=256, va=VA + (256 << 12)),
    ]
    (folio,) = accounts(NEW, *halves).values()
    middle = VA + (256 << 12)
    assert [h[:3] for h in folio.holders] == [("pte", 7, middle), ("pte", 7, middle + 4096)]
    assert folio.files == ((*FILE, 0, False),)  # the head's place, which no entry maps


@pytest.mark.parametrize(
    ("how", "release", "expected"),
    [
        ("vmsplice", NEW, ("pipe", 7, None, 1, 0)),
        ("io_uring", NEW, ("io_uring", 7, None, 1024, 1)),
        ("xdp_umem", OLD, ("xdp-umem", 7, None, 1024, 1)),
        ("odirect", OLD, ("bio", 7, None, 1, 0)),
        ("odirect", MIDDLE, ("bio", 7, None, 1024, 1)),
        ("rdma", OLD, ("rdma-umem", 7, None, 1024, 1)),
        ("vfio", NEW, ("vfio", 7, None, 1024, 1)),
    ],
)
def test_pins_and_references_have_kind_and_process(
    how: str, release: str, expected: tuple[Any, ...]
) -> None:
    reads = {"ev": "inflight", "disk": "/dev/sda", "reads": 1}
    account = accounts(release, mapped(PMEM), pin(how), reads)[PMEM]
    assert tuple(account.holders[-1]) == expected and len(account.holders) == 2
    assert account.certain and account.unexplained == 0


def test_pins_of_a_large_folio_are_references() -> None:
    words = {"path": DEVICE, "ino": 3}
    many = [mapped(DAX + 512, 512, 512, **words), pin("xdp_umem", 16, **words)]
    many.append(pin("io_uring", 16, **words))
    assert holders(NEW, *many, pfn=DAX + 512)[1:] == [
        ("io_uring", 7, None, 1, 1),
        ("xdp-umem", 7, None, 16, 16),
    ]


def test_a_pin_that_failed_holds_nothing() -> None:
    assert len(holders(NEW, mapped(PMEM), pin("io_uring", ret=-95))) == 1


def test_holders_outlive_the_mapping_and_the_file() -> None:
    gone = {"ev": "unmap", "pid": 7, "va": VA, "n": 1}
    pinned = [mapped(PMEM), pin("vmsplice")]
    assert holders(NEW, *pinned, gone) == [("pipe", 7, None, 1, 0)]
    waits = accounts(NEW, *pinned, of_file("begin", "truncate"))[PMEM]
    assert [h.kind for h in waits.holders] == ["pipe"] and len(waits.files) == 1
    ended = accounts(OLD, *pinned, of_file("begin", "truncate"), of_file("end", "truncate"))[PMEM]
    assert [h.kind for h in ended.holders] == ["pipe"] and not ended.files


@pytest.mark.parametrize(("how", "told"), [("rdma", True), ("vfio", False)])
def test_vfio_does_not_know_what_its_process_has_unmapped(how: str, told: bool) -> None:
    gone = {"ev": "unmap", "pid": 7, "va": VA, "n": 1}
    account = accounts(NEW, mapped(PMEM), pin("vmsplice"), pin(how), gone)[PMEM]
    assert {h.kind for h in account.holders} == {"pipe"} | ({"rdma-umem"} if told else set())
    assert account.unexplained == (0 if told else 1024) and account.refcount == 1025
    other = mapped(PMEM, pid=8)
    assert accounts(NEW, mapped(PMEM), other, pin(how), gone)[PMEM].unexplained == (not told) * 1024


def test_killed_processes_hold_nothing_and_leaks_stay() -> None:
    held = [mapped(PMEM), pin("vmsplice"), pin("io_uring"), leak("get", PMEM), leak("get", PMEM)]
    account = accounts(NEW, *held, {"ev": "killed"})[PMEM]
    assert not account.holders and account.unexplained == 2 and account.refcount == 2


@pytest.mark.parametrize(
    ("leaks", "unexplained"),
    [
        ([leak("get", PMEM)], 1),
        ([leak("put", PMEM)], -1),
        ([leak("get", PMEM), leak("get", PMEM), leak("put", PMEM)], 1),
        ([leak("set", PMEM, 5)], 5 - 2),
        ([leak("get", PMEM), leak("set", PMEM, 0)], -2),
    ],
)
def test_leaks_are_what_stays_unexplained(leaks: list[Event], unexplained: int) -> None:
    account = accounts(NEW, mapped(PMEM), pin("vmsplice"), *leaks)[PMEM]
    assert account.unexplained == unexplained
    assert account.refcount == 2 + unexplained


def test_a_tail_that_was_overwritten_is_not_its_folios_count() -> None:
    account = accounts(NEW, mapped(PMEM, 512, entry=512), leak("set", PMEM + 7, 5))[PMEM]
    assert account.unexplained == 0 and account.refcount == 1


def test_an_unlinked_file_keeps_its_pages() -> None:
    account = accounts(NEW, mapped(PMEM), of_file("end", "unlink"))[PMEM]
    assert account.files == ((*FILE, 0, True),)
    failed = accounts(NEW, mapped(PMEM), of_file("end", "unlink", ret=-1))[PMEM]
    assert failed.files == ((*FILE, 0, False),)


def test_a_block_of_two_files_has_both() -> None:
    other = (f"{DIR}/b", 13)
    clone = of_file("end", "clone", to=other[0], to_ino=other[1])
    second = mapped(PMEM, 1, path=other[0], ino=other[1], va=VA + MIB2, off=3)
    account = accounts(NEW, mapped(PMEM), clone, second)[PMEM]
    assert account.files == ((*FILE, 0, False), (*other, 3 << 12, False))


def test_offsets_are_those_of_the_head_in_the_file() -> None:
    account = accounts(NEW, mapped(PMEM, 4, off=16))
    assert account[PMEM + 3].files == ((*FILE, 19 << 12, False),)


def test_files_of_device_memory() -> None:
    devdax = accounts(NEW, mapped(DAX + 512 + 1024, 512, 512, path=DEVICE, ino=3))[DAX + 1536]
    assert devdax.files == ((DEVICE, None, 1024 << 12, False),)
    words = {"path": ALLOCATE, "ino": 4}
    mine = mapped(CMB + 512, 2, **words)
    assert accounts(NEW, mine)[CMB + 513].files == ((ALLOCATE, None, 4096, False),)
    gone = {"ev": "unmap", "pid": 7, "va": VA, "n": 2}
    assert accounts(NEW, mine, gone)[CMB + 513].files == ()


def test_anonymous_memory_of_a_device_has_no_file() -> None:
    swapped = mapped(0x900000, 2, path="/dev/hmm_dmirror0", swap=1)
    account = accounts(NEW, swapped)[0x900001]
    assert account.files == ()
    assert list(map(tuple, account.holders)) == [("device-private", 7, VA + 4096, 1, 0)]


def test_what_the_record_cannot_know_is_not_certain() -> None:
    unknown = accounts(NEW, mapped(0x900000, 2, 0, swap=1))[0x900000]
    assert not unknown.certain and unknown.order is None and unknown.refcount is None
    asked = accounts(NEW, mapped(PMEM), pin("odirect"))[PMEM]
    assert not asked.certain


# ---------------------------------------------------------------- the comparison


def explanation_of(account: replay.Account) -> dict[str, Any]:
    """The explanation that agrees with the record."""
    keys = ("kind", "pid", "address", "refs", "pins")
    files = [dict(f._asdict(), size=1 << 20, inode=f.inode or 77) for f in account.files]
    held = sum(holder.refs for holder in account.holders)
    base = (account.refcount or held) - held - account.unexplained
    return {
        "pfn": account.pfn,
        "order": account.order or 0,
        "refcount": account.refcount or held,
        "base": base,
        "holders": [dict(zip(keys, h), comm="workload") for h in account.holders],
        "explained": held,
        "unexplained": account.unexplained,
        "file": files[0] if files else None,
        "files": files,
        "gaps": [],
    }


def shared() -> replay.Account:
    """A page that two files have, mapped twice, pinned, leaked."""
    clone = of_file("end", "clone", to=f"{DIR}/b", to_ino=13)
    second = mapped(PMEM, 1, path=f"{DIR}/b", ino=13, va=VA + MIB2)
    events = mapped(PMEM), pin("vmsplice"), pin("io_uring"), clone, second, leak("get", PMEM)
    return accounts(NEW, *events)[PMEM]


def wrong(account: replay.Account, explanation: Optional[dict[str, Any]]) -> list[str]:
    return list(explained.differences(account, explanation))


@pytest.mark.parametrize(
    "account",
    [
        shared(),
        accounts(NEW, mapped(DAX + 512, 512, 512, path=DEVICE, ino=3))[DAX + 512],
        accounts(NEW, mapped(CMB + 512, 1, path=ALLOCATE, ino=4))[CMB + 512],
        accounts(NEW, mapped(0x900000, 1, swap=1))[0x900000],
    ],
)
def test_what_agrees_with_the_record_is_no_difference(account: replay.Account) -> None:
    assert wrong(account, explanation_of(account)) == []


def test_a_place_is_what_record_and_kernel_must_agree_on() -> None:
    devdax = accounts(NEW, mapped(DAX + 512, 512, 512, path=DEVICE, ino=3))[DAX + 512]
    p2p = accounts(NEW, mapped(CMB + 512, 1, path=ALLOCATE, ino=4))[CMB + 512]
    real = f"/sys/devices/pci0000:00/{ALLOCATE.partition('devices/')[2]}"
    for account, path, other in (
        (devdax, "dax1.0", "dax1.1"),
        (p2p, real, real.replace("1.0", "2.0")),
    ):
        explanation = explanation_of(account)
        explanation["file"]["path"] = path
        assert wrong(account, explanation) == []
        explanation["file"]["path"] = other
        assert wrong(account, explanation)
    ours = shared()
    explanation = explanation_of(ours)
    explanation["file"]["path"] = "a"  # of a file, all of it
    assert wrong(ours, explanation)


def without(holders: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    gone = next(holder for holder in holders if holder["kind"] == kind)
    return [holder for holder in holders if holder is not gone]


CHANGES: list[Callable[[dict[str, Any]], Any]] = [
    lambda e: e.update(pfn=e["pfn"] - 1),
    lambda e: e.update(order=9),
    lambda e: e.update(refcount=e["refcount"] + 1),
    lambda e: e.update(base=e["base"] + 1),
    lambda e: e.update(refcount=e["refcount"] + 1, base=e["base"] + 1),
    lambda e: e.update(unexplained=e["unexplained"] + 1, refcount=e["refcount"] + 1),
    lambda e: e.update(unexplained=e["unexplained"] + 1, base=e["base"] - 1),
    lambda e: e.update(explained=e["explained"] - 1, base=e["base"] + 1),
    lambda e: e["holders"][0].update(pid=8),
    lambda e: e["holders"][0].update(address=VA + 4096),
    lambda e: e["holders"][0].update(kind="pmd"),
    lambda e: e["holders"][0].update(comm=None),
    lambda e: e["holders"][-1].update(pid=8),
    lambda e: e["holders"][-1].update(kind="bio"),
    lambda e: e["holders"][-1].update(pins=1),
    lambda e: e.update(holders=without(e["holders"], "pte")),
    lambda e: e.update(holders=without(e["holders"], "pipe")),
    lambda e: e["holders"].append(dict(e["holders"][0], refs=0)),
    lambda e: e["holders"].append(dict(e["holders"][-1], kind="driver")),
    lambda e: e["files"][0].update(path=f"{DIR}/c"),
    lambda e: e["files"][1].update(offset=4096),
    lambda e: e["files"][1].update(inode=99),
    lambda e: e["files"][1].update(deleted=True),
    lambda e: e["files"].pop(),
    lambda e: e["files"].append(dict(e["files"][0], inode=99)),
    lambda e: e.update(file=None),
]


@pytest.mark.parametrize("change", CHANGES)
def test_comparison_sees_a_wrong_explanation(change: Callable[[dict[str, Any]], Any]) -> None:
    account = shared()
    explanation = copy.deepcopy(explanation_of(account))
    change(explanation)
    assert wrong(account, explanation)


def test_a_page_that_was_not_explained_is_a_difference() -> None:
    assert wrong(shared(), None)


def test_pieces_of_one_holder_are_added_up() -> None:
    account = shared()
    explanation = explanation_of(account)
    pipe = next(h for h in explanation["holders"] if h["kind"] == "pipe")
    explanation["holders"] += [dict(pipe, refs=3), dict(pipe, refs=-3)]
    explanation["holders"].append(dict(pipe, kind="dax-entry", refs=0))  # holds nothing
    assert wrong(account, explanation) == []


def test_where_the_order_is_unknown_more_entries_may_map_the_folio() -> None:
    account = accounts(NEW, mapped(0x900001, 1, 0, swap=1))[0x900001]
    explanation = explanation_of(account)
    other = dict(explanation["holders"][0], address=VA - 4096)
    explanation.update(pfn=0x900000, order=1, refcount=2, explained=2)
    explanation["holders"].append(other)
    assert wrong(account, explanation) == []
    explanation["holders"] = [other, other]
    assert wrong(account, explanation)


def many(n: int) -> list[replay.Account]:
    return list(accounts(NEW, mapped(PMEM, n), pin("vmsplice", va=VA + (3 << 12))).values())


def test_runs_are_of_like_folios() -> None:
    runs = list(explained.runs(many(8)))
    assert [[account.pfn - PMEM for account in run] for run in runs] == [
        [0, 1, 2],
        [3],
        [4, 5, 6, 7],
    ]


def test_like_folios_apart_are_two_runs() -> None:
    apart = mapped(PMEM), mapped(PMEM + 2, va=VA + MIB2)
    assert len(list(explained.runs(accounts(NEW, *apart).values()))) == 2


def test_long_runs_are_sampled_with_their_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    (run,) = explained.runs(accounts(NEW, mapped(PMEM, 100)).values())
    assert explained.sampled(run) == run
    monkeypatch.setattr(explained, "LONGEST", 99)
    assert [a.pfn - PMEM for a in explained.sampled(run)] == [0, 24, 49, 74, 99]


def test_every_folio_is_explained_once_and_every_difference_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(explained, "BATCH", 3)
    expected = {account.pfn: account for account in many(8)}
    asked: list[list[int]] = []

    def explain(pfns: list[int]) -> dict[int, dict[str, Any]]:
        asked.append([pfn - PMEM for pfn in pfns])
        found = {pfn: explanation_of(expected[pfn]) for pfn in pfns if pfn != PMEM + 6}
        if PMEM + 2 in found:
            found[PMEM + 2]["unexplained"] += 1
        return found

    result = explained.compare(explain, expected.values())
    assert asked == [[0], [1, 2, 3], [4, 5, 6], [7]]
    assert (result.touched, result.folios, result.maps, result.pins) == (8, 8, 8, 1)
    assert {text.split(":")[0] for text in result.differences} == {"pfn 0x100002", "pfn 0x100006"}
    assert result.line.endswith(f"{len(result.differences)} differences")


def test_a_record_of_no_page_is_a_difference() -> None:
    assert len(explained.compare(lambda pfns: {}, []).differences) == 1


def test_minutes_for_one_page_are_a_difference() -> None:
    assert list(explained.limit_differences(59, 300)) == []
    assert len(list(explained.limit_differences(61, 3000))) == 2


@pytest.mark.parametrize(("files", "status"), [(None, 0), ([], 1)])
def test_exit_status_tells_of_differences(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    files: Optional[list[Any]],
    status: int,
) -> None:
    boot = {"ev": "boot", "release": NEW, "scenario": "nvdimm", "cmdline": ""}
    events = boot, device("fsdax", DIR, PMEM), mapped(PMEM)
    (account,) = accounts(NEW, mapped(PMEM)).values()
    explanation = explanation_of(account)
    if files is not None:
        explanation.update(files=files, file=None)
    record, out = tmp_path / "truth.jsonl", tmp_path / "explained.json"
    record.write_text("".join(json.dumps(event) + "\n" for event in events))
    monkeypatch.setattr(explained, "explain_core", lambda *_: lambda _: {PMEM: explanation})
    monkeypatch.setattr(
        sys, "argv", ["explained.py", "core", "vmlinux", str(record), "-o", str(out)]
    )
    with pytest.raises(SystemExit) as raised:
        explained.main()
    assert raised.value.code == status
    assert len(json.loads(out.read_text())["differences"]) == status
    assert f"{status} differences" in capsys.readouterr().out


def test_the_lab_explains_every_kind_of_memory() -> None:
    rows = [
        row["name"] for row in lab.table("scenarios.tsv") if "explain" in row["checks"].split(",")
    ]
    assert rows == ["nvdimm", "nvdimm-leak", "p2p", "p2p-leak", "pins", "hmm", "hmm-leak"]
    assert "explain" in lab.CHECKS and "explain" in lab.WHOLE_TYPES


def test_a_run_brings_the_types_that_tell_who_holds_its_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab, "LAB", tmp_path)
    names = "vfio", "vfio_iommu_type1", "ib_uverbs"  # the kernel has no fourth one
    for path in (*(f"debug/r/{name}.ko" for name in names), "kmod/r/zdleak.ko", "debug/r/x.ko"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    found = {
        scenarios: lab.module_options(lab.Run("r", {"needs": needs, "scenarios": scenarios}))
        for scenarios, needs in (("pins", "CONFIG_VFIO"), ("nvdimm,leak", "zdleak"))
    }
    paths = [f"{tmp_path}/debug/r/{name}.ko" for name in names]
    assert found["pins"] == [word for path in paths for word in ("--module", path)]
    assert found["nvdimm,leak"] == ["--module", f"{tmp_path}/kmod/r/zdleak.ko"]
