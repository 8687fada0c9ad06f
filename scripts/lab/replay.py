#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Replay the record of a lab run: what must every struct page of the devices hold at its end?

usage: replay.py truth.jsonl [-o truth-states.json]

Owns the expectation: the states of all pages, and who holds those that something was done to
(accounts_of(), for explained.py). It follows from the record (what was done, in order) and from the published
rules in rules_of(), never from a struct page: check_states.py compares the two, and when they
differ one of them is wrong (README.md has the cases so far).
Keep: no rule here may be derived from a core. Mirrors fs/dax.c, mm/memremap.c, mm/gup.c and
drivers/dax/device.c of the named versions.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

PAGE_SHIFT = 12
PMD_PAGES = 512
GUP_PIN_COUNTING_BIAS = 1024

Event = dict[str, Any]
File = tuple[str, int]  # path, inode number: a path may be created again

TYPES = ("fsdax", "devdax", "p2pdma", "private", "coherent")


@dataclasses.dataclass(frozen=True)
class Rules:
    """What a kernel version does, as far as this workload can tell the difference."""

    idle: dict[str, int]  # refcount of a free folio, by type
    counted: frozenset[str]  # types whose page table entries take a reference and a mapcount
    large: frozenset[str]  # types with folios above order 0
    dio_pins: bool  # O_DIRECT takes FOLL_PIN, not a plain reference
    shared_mark: bool  # a block of two files is marked shared also when it was only read
    dying_zero: bool  # removal puts the reference that every page was born with, then waits
    stale_share: bool  # a freed page of order 0 keeps its index, which reads as a share count


def rules_of(release: str) -> Rules:
    """Rules of kernel `release`; each line names the version that changed it."""
    match = re.match(r"(\d+)\.(\d+)", release)
    if not match:
        raise ValueError(f"not a kernel release: {release}")
    version = int(match[1]), int(match[2])
    zero_based = {"private", "coherent"} if version >= (6, 1) else set()  # ef233450898f
    counted = {"private", "coherent"}
    large: set[str] = set()
    if version >= (5, 17):  # compound devmaps
        large.add("devdax")
    if version >= (6, 15):  # fs/dax: properly refcount fs dax pages, and the series around it
        zero_based |= {"fsdax", "p2pdma"}
        counted |= {"fsdax", "devdax", "p2pdma"}
        large.add("fsdax")
    return Rules(
        idle={name: 0 if name in zero_based else 1 for name in TYPES},
        counted=frozenset(counted),
        large=frozenset(large),
        dio_pins=version >= (6, 3),  # iov_iter_extract_pages()
        shared_mark=version >= (6, 2),  # PAGE_MAPPING_DAX_SHARED; 6.0 and 6.1 mark writes only
        dying_zero=version < (5, 18),  # until one reference of the pagemap stood for all pages
        stale_share=(6, 15) <= version < (7, 1),  # until dax_folio_reset_order() cleared both
    )


def takes_pins(how: str, rules: Rules) -> bool:
    """Whether a holder takes FOLL_PIN, and not a plain reference."""
    return how != "vmsplice" and (how != "odirect" or rules.dio_pins)


def memparse(text: str) -> int:
    """A size of the kernel command line in bytes."""
    return int(text[:-1]) << {"K": 10, "M": 20, "G": 30}[text[-1]]


@dataclasses.dataclass
class Range:
    """A device: pages [start, end) of its pagemap, [data, end_data) handed out. Page frame numbers."""

    type: str
    path: str
    start: int
    end: int
    data: int
    order: int
    namespace: str = ""
    dying: bool = False  # removal has begun and has not come back


@dataclasses.dataclass(eq=False)
class Folio:
    """A folio that something was done to."""

    pfn: int
    order: int | None  # None: the record cannot know
    type: str
    # in order of association; the page of the file that the head is
    owners: dict[File, int] = dataclasses.field(default_factory=dict)
    shared: bool = False  # has had two owners, and has one still
    maps: int = 0
    refs: int = 0  # plain references held
    pins: int = 0  # FOLL_PIN, counted in pages
    # what the two above are, but for leaks: by how and pid
    held: Counter[tuple[str, int]] = dataclasses.field(default_factory=Counter)
    mapped_ever: bool = False
    uncertain: bool = False
    overwritten: int | None = None
    tail_refcounts: dict[int, int] = dataclasses.field(default_factory=dict)
    leaks: list[str] = dataclasses.field(default_factory=list)
    history: list[str] = dataclasses.field(default_factory=list)

    @property
    def nr_pages(self) -> int:
        return 1 << (self.order or 0)

    @property
    def leaked(self) -> int:
        """References taken and never returned; below 0: returned and never taken."""
        return self.leaks.count("get") - self.leaks.count("put")

    def note(self, text: str) -> None:
        if not self.history or self.history[-1] != text:
            self.history.append(text)


@dataclasses.dataclass
class Entry:
    """A page table entry: `pages` from va on, frames from pfn on, pages of the file from index on."""

    pages: int
    pfn: int
    file: File
    index: int


class World:
    """The state that the record describes, event by event."""

    def __init__(self) -> None:
        self.release = ""
        self.scenario = ""
        self.rules = rules_of("0.0")
        self.ranges: list[Range] = []
        self.folio_at: dict[int, Folio] = {}  # every page of a touched folio
        self.entries: dict[int, dict[int, Entry]] = {}  # by pid, by first address
        self.clones: dict[File, File] = {}
        self.unlinked: set[File] = set()
        self.problems: list[str] = []

    # ---- pages ----

    def range_of(self, pfn: int) -> Range | None:
        return next((r for r in self.ranges if r.start <= pfn < r.end), None)

    def type_of(self, pfn: int, event: Event) -> str | None:
        """Memory type of a frame, None for System RAM."""
        found = self.range_of(pfn)
        if found:
            return found.type
        if event.get("swap"):
            return "private"
        if event["path"].endswith("/p2pmem/allocate"):
            return "p2pdma"
        return None

    def _new_folio(self, pfn: int, order: int | None, type_: str) -> Folio:
        folio = Folio(pfn, order, type_)
        for page in range(pfn, pfn + folio.nr_pages):
            old = self.folio_at.get(page)
            if old:
                if old.owners or old.maps or old.refs or old.pins:
                    self.problems.append(
                        f"pfn {page}: {'; '.join(old.history)}: in use when it became order {order}"
                    )
                folio.history = folio.history or list(old.history)
            self.folio_at[page] = folio
        return folio

    def folio(self, pfn: int, type_: str, entry_pages: int) -> Folio:
        """The folio of a page that is being mapped by an entry of `entry_pages` (0: unknown)."""
        old = self.folio_at.get(pfn)
        # a PMD entry of anonymous memory maps one folio, in all versions
        if entry_pages == PMD_PAGES and (
            type_ in ("private", "coherent") or type_ == "fsdax" in self.rules.large
        ):
            if old and old.order:
                return old
            return self._new_folio(pfn & -PMD_PAGES, 9, type_)
        if old:
            return old
        found = self.range_of(pfn)
        if type_ == "devdax" and found and type_ in self.rules.large:
            first = found.start
            return self._new_folio(pfn - (pfn - first) % (1 << found.order), found.order, type_)
        return self._new_folio(pfn, None if entry_pages == 0 else 0, type_)

    def free(self, file: File, text: str) -> None:
        """The blocks of `file` go back to the file system: no association, order 0."""
        for folio in dict.fromkeys(self.folio_at.values()):
            if file not in folio.owners:
                continue
            del folio.owners[file]
            folio.shared &= bool(folio.owners)
            folio.note(text)
            if folio.order and not folio.owners:
                for page in range(folio.pfn, folio.pfn + folio.nr_pages):
                    self.folio_at[page] = Folio(
                        page, 0, folio.type, mapped_ever=True, history=list(folio.history)
                    )

    # ---- page tables ----

    def _drop(self, pid: int, va: int) -> None:
        entry = self.entries[pid].pop(va)
        for folio in self.folios(entry):
            folio.maps -= 1

    def folios(self, entry: Entry) -> list[Folio]:
        """Folios below an entry: one, or all pages of a PMD where folios are of order 0."""
        return list(
            dict.fromkeys(self.folio_at[pfn] for pfn in range(entry.pfn, entry.pfn + entry.pages))
        )

    def unmap(self, pid: int, va: int, n: int, note: str = "") -> None:
        """Remove all entries that [va, va + n pages) touches: a file's PMD goes as a whole."""
        end = va + (n << PAGE_SHIFT)
        table = self.entries.get(pid, {})
        for first in [a for a, e in table.items() if a < end and a + (e.pages << PAGE_SHIFT) > va]:
            if note:
                for folio in self.folios(table[first]):
                    folio.note(note)
            self._drop(pid, first)

    def unmap_file(self, file: File, note: str) -> None:
        for pid, table in self.entries.items():
            for va in [a for a, e in table.items() if e.file == file]:
                for folio in self.folios(table[va]):
                    folio.note(note)
                self._drop(pid, va)

    def frame(self, pid: int, va: int) -> int | None:
        for first, entry in self.entries.get(pid, {}).items():
            if first <= va < first + (entry.pages << PAGE_SHIFT):
                return entry.pfn + ((va - first) >> PAGE_SHIFT)
        return None

    def map(self, event: Event, pid: int, va: int, pfn: int, pages: int) -> None:
        type_ = self.type_of(pfn, event)
        if type_ is None:
            return  # zero page, or copied to RAM
        file = (event["path"], event["ino"])
        index = event["off"] + ((va - event["va"]) >> PAGE_SHIFT)
        for page in range(pfn, pfn + pages):
            folio = self.folio(page, type_, event["entry"])
            folio.note(
                event["cat"]
                + (" mapped by a PMD" if pages == PMD_PAGES and type_ == "fsdax" else " mapped")
            )
            folio.mapped_ever = True
            folio.uncertain = event["entry"] == 0
            if type_ == "fsdax":
                self._associate(folio, file, index + folio.pfn - pfn)
        entry = Entry(pages, pfn, file, index)
        self.entries.setdefault(pid, {})[va] = entry
        for folio in self.folios(entry):
            folio.maps += 1

    def _associate(self, folio: Folio, file: File, index: int) -> None:
        if file in folio.owners:
            return
        if folio.owners and not any(self.clones.get(owner) == file for owner in folio.owners):
            self.problems.append(f"pfn {folio.pfn}: {file} got a block of {list(folio.owners)}")
        folio.owners[file] = index
        folio.shared = len(folio.owners) > 1

    # ---- events ----

    def on_boot(self, event: Event) -> None:
        self.release = event["release"]
        self.scenario = event["scenario"]
        self.rules = rules_of(self.release)
        if "spm_addr" not in event["cmdline"]:
            return
        # test_hmm takes the memory that the command line reserves for it
        for size, address in re.findall(r"memmap=(\w+)\$(\w+)", event["cmdline"]):
            start, pages = memparse(address) >> PAGE_SHIFT, memparse(size) >> PAGE_SHIFT
            self.ranges.append(Range("coherent", "", start, start + pages, start, 0))

    def on_range(self, event: Event) -> None:
        start, size, data = (
            event["start"] >> PAGE_SHIFT,
            event["size"] >> PAGE_SHIFT,
            event["data"] >> PAGE_SHIFT,
        )
        large = event["type"] == "devdax" and "devdax" in self.rules.large
        order = (event["align"] >> PAGE_SHIFT).bit_length() - 1 if large else 0
        # pages in front of the data are in the pagemap, unless they hold its struct pages
        first = data if event["map"] == "dev" else start
        self.ranges.append(
            Range(
                event["type"],
                event["path"],
                first,
                start + size,
                data,
                order,
                event.get("namespace", ""),
            )
        )

    def on_map(self, event: Event) -> None:
        pid, va, n, pfn, step = (
            event["pid"],
            event["va"],
            event["n"],
            event["pfn"],
            event.get("step", 0),
        )
        self.unmap(pid, va, n)
        entry = event["entry"]
        if pfn is None and entry > PMD_PAGES:  # 1 GiB: not in pagemap, but devdax is linear
            pfn, step = (
                next(r.data for r in self.ranges if r.path == event["path"]) + event["off"],
                1,
            )
        if pfn is None or (step == 0 and n > 1):
            return  # not present; zero page
        pages = max(entry, 1)
        for i in range(0, n, pages):
            self.map(event, pid, va + (i << PAGE_SHIFT), pfn + step * i, pages)

    def on_unmap(self, event: Event) -> None:
        self.unmap(event["pid"], event["va"], event["n"], "unmapped")

    def _pinned_folios(self, event: Event, n: int) -> Iterator[Folio]:
        for i in range(n):
            pfn = self.frame(event["pid"], event["va"] + (i << PAGE_SHIFT))
            if pfn is None:
                self.problems.append(f"pin of {event['path']}: page {i} is not mapped")
                continue
            yield self.folio_at[pfn]

    def on_pin(self, event: Event) -> None:
        if event["ret"] < 0:
            return
        how = event["how"]
        n = event["ret"] >> PAGE_SHIFT if how == "vmsplice" else event["n"]
        folios = list(self._pinned_folios(event, n))
        if how == "io_uring":  # keeps one pin a folio: io_coalesce_buffer()
            folios = list(dict.fromkeys(folios))
        for folio in folios:
            folio.note(f"pinned by {how}")
            folio.held[how, event["pid"]] += 1
            if takes_pins(how, self.rules):
                folio.pins += 1
            else:
                folio.refs += 1
            folio.uncertain |= how == "odirect"  # until the disk is seen to hold the request

    def on_inflight(self, event: Event) -> None:
        for folio in self.folio_at.values():
            if folio.uncertain and folio.history[-1] == "pinned by odirect":
                folio.uncertain = event["reads"] < 1

    def on_unpin(self, event: Event) -> None:
        self.problems.append(f"O_DIRECT read to {event['path']} came back: {event['ret']}")

    def on_begin(self, event: Event) -> None:
        # the mappings go first, then it waits for references: dax_layout_busy_page()
        self.unmap_file((event["path"], event["ino"]), f"{event['op']} started")

    def on_end(self, event: Event) -> None:
        if event["ret"]:
            return
        file = (event["path"], event["ino"])
        if event["op"] in ("truncate", "punch"):
            self.free(file, f"{event['op']} returned")
        elif event["op"] == "clone":
            self.clones[file] = (event["to"], event["to_ino"])
        elif event["op"] == "unlink":
            self.unlinked.add(file)

    def on_observe(self, event: Event) -> None:
        for i in range(event["n"]):
            va = event["va"] + (i << PAGE_SHIFT)
            seen = event["pfn"] + event["step"] * i if event["pfn"] is not None else None
            if seen is not None and not self.range_of(seen) and seen not in self.folio_at:
                seen = None  # RAM
            if seen != self.frame(event["pid"], va):
                self.problems.append(
                    f"pid {event['pid']} va {va:#x}: frame {seen} seen, {self.frame(event['pid'], va)} expected"
                )

    def on_leak(self, event: Event) -> None:
        pfn, what = event["pfn"], event["op"]
        folio = self.folio_at.get(pfn)
        if folio is None:
            found = self.range_of(pfn)
            if found is None:
                self.problems.append(f"leak at pfn {pfn}, which is in no device")
                return
            folio = self.folio(pfn, found.type, 1)
        folio.note(f"leak {what}")
        folio.leaks.append(what)
        if what == "set":
            if pfn == folio.pfn:
                folio.overwritten = event["val"]
            else:
                folio.tail_refcounts[pfn] = event["val"]
        else:
            folio.refs += 1 if what == "get" else -1

    def on_iomem(self, event: Event) -> None:
        # device-private memory takes free physical addresses, so it is known only at the end
        for first, last in re.findall(
            r"^ *([0-9a-f]+)-([0-9a-f]+) : hmm_dmirror$", event["text"], re.M
        ):
            start, end = int(first, 16) >> PAGE_SHIFT, (int(last, 16) + 1) >> PAGE_SHIFT
            self.ranges.append(Range("private", "", start, end, start, 0))

    def on_killed(self, event: Event) -> None:
        """The processes are gone, and what they mapped and pinned: what is left was leaked."""
        for pid, table in self.entries.items():
            for va in list(table):
                self._drop(pid, va)
        for folio in self.folio_at.values():
            folio.pins = 0
            folio.held.clear()
            folio.refs = folio.leaked
            folio.uncertain = False
            folio.note("its processes were killed")

    def on_blocked(self, event: Event) -> None:
        """A removal that waits for references; others wait for that one and have not begun."""
        if "memunmap_pages" not in event["stack"]:
            return
        for range_ in self.ranges:
            device = range_.path.removesuffix("p2pmem/allocate")
            if (range_.namespace or device) not in event["cmd"]:
                continue
            range_.dying = True
            if range_.type == "p2pdma":  # the mappings of peer-to-peer memory go first
                self.unmap_path(range_.path, "removal started")

    def unmap_path(self, path: str, note: str) -> None:
        entries = [entry for table in self.entries.values() for entry in table.values()]
        for file in {entry.file for entry in entries if entry.file[0] == path}:
            self.unmap_file(file, note)

    def on_removed(self, event: Event) -> None:
        if event["ret"]:
            self.problems.append(f"removal failed: {event}")
            return
        for file in dict.fromkeys(f for folio in self.folio_at.values() for f in folio.owners):
            if "mount" in event and file[0].startswith(event["mount"] + "/"):
                self.free(file, "unmounted")
        gone = self._removed(event)
        self.ranges = [range_ for range_ in self.ranges if range_ not in gone]
        self.folio_at = {
            pfn: folio
            for pfn, folio in self.folio_at.items()
            if not any(range_.start <= pfn < range_.end for range_ in gone)
        }

    def _removed(self, event: Event) -> list[Range]:
        """The ranges of a namespace or a device; none for a mount."""
        keys = [key for key in ("namespace", "path") if key in event]
        return [r for r in self.ranges if any(getattr(r, key) == event[key] for key in keys)]

    def on_failed(self, event: Event) -> None:
        self.problems.append(f"workload: {event}")

    def apply(self, event: Event) -> None:
        handler: Callable[[Event], None] | None = getattr(self, f"on_{event['ev']}", None)
        if handler:
            handler(event)


# ---- expectation ----


def idle_of(world: World, type_: str, pfn: int) -> int:
    """Refcount of a free page of a type, where it lies."""
    range_ = world.range_of(pfn)
    if range_ and range_.dying and world.rules.dying_zero:
        return 0
    return world.rules.idle[type_]


def refcount_of(folio: Folio, rules: Rules, idle: int) -> int:
    count = idle + folio.refs
    if folio.type in rules.counted:
        count += folio.maps
    return count + folio.pins * (1 if folio.order else GUP_PIN_COUNTING_BIAS)


def forgotten(folio: Folio, rules: Rules) -> bool:
    """Whether a page of one file has lost its association to the truncate of another.

    Without the mark the one word that there is goes with the first of the files.
    """
    return folio.shared and len(folio.owners) == 1 and not rules.shared_mark


def mapping_of(folio: Folio, rules: Rules) -> str:
    if folio.type == "fsdax":
        if folio.shared and rules.shared_mark:
            return "shared"
        if forgotten(folio, rules):
            return "none"
        freed = "any" if rules.stale_share and folio.mapped_ever else "none"
        return "file" if folio.owners else freed
    if folio.type == "devdax":
        return "any" if folio.mapped_ever else "none"  # set by the first fault, never cleared
    return "any" if folio.maps and folio.type != "p2pdma" else "none"


def finding_of(folio: Folio, refcount: int, rules: Rules, idle: int) -> dict[str, str] | None:
    """What an auditor has to say of a folio: the worst thing only; None for nothing at all."""
    floor = idle + (folio.maps if folio.type in rules.counted else 0)
    if folio.tail_refcounts:
        return {"name": "overwritten tail", "level": "error-or-warning"}
    if refcount < floor:
        return {"name": "over-put", "level": "error-or-warning"}
    # other types may be held without a mapping; peer-to-peer memory only for the time of a transfer
    if refcount > floor and (
        (folio.type == "fsdax" and not folio.owners)
        or (folio.type == "p2pdma" and folio.leaks and not folio.maps)
    ):
        name = (
            "leaked free page"
            if folio.refs == folio.leaks.count("get")
            else "held after its block was freed"
        )
        return {"name": name, "level": "error-or-warning"}
    if folio.shared and not rules.shared_mark:
        return {"name": "block of two files, not marked shared", "level": "error-or-warning"}
    if refcount > floor:
        return {"name": "pinned" if folio.pins else "held", "level": "info"}
    return None


def state_of(folio: Folio, rules: Rules, idle: int) -> dict[str, Any]:
    refcount = refcount_of(folio, rules, idle) if folio.overwritten is None else folio.overwritten
    mapcount = folio.maps if folio.type in rules.counted else 0
    associated = folio.owners and not forgotten(folio, rules)
    if refcount < idle + mapcount:
        class_ = "violation"
    else:
        class_ = "busy" if refcount > idle or mapcount or associated or folio.uncertain else "idle"
    state: dict[str, Any] = {
        "order": folio.order,
        "refcount": None if folio.uncertain else refcount,
        "mapcount": None if folio.order is None else mapcount,
        "mapping": mapping_of(folio, rules),
        "class": class_,
        "type": folio.type,
        "why": ", ".join(folio.history),
    }
    if rules.stale_share and folio.shared and class_ == "busy" and refcount == idle:
        state["needs"] = "dax-entries"
    if folio.order:
        state["pincount"] = folio.pins
    if folio.tail_refcounts:
        state["tail_refcounts"] = {str(pfn): count for pfn, count in folio.tail_refcounts.items()}
    if folio.leaks and folio.type in ("private", "coherent"):
        state["needs"] = "holders"
    finding = finding_of(folio, refcount, rules, idle)
    if finding:
        state["finding"] = finding
    return state


def idle_state(range_: Range, idle: int, reserved: bool) -> dict[str, Any]:
    state: dict[str, Any] = {
        "order": range_.order,
        "refcount": idle,
        "mapcount": 0,
        "mapping": "none",
        "class": "idle",
        "type": range_.type,
        "why": "in front of the data" if reserved else "never mapped",
    }
    if range_.order:
        state["pincount"] = 0
    return state


def runs_of(world: World) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """(pfn, pages, state), sorted, each folio or stretch of untouched pages once."""
    touched = sorted({f.pfn: f for f in world.folio_at.values()}.items())
    ranges = sorted(world.ranges, key=lambda r: r.start)
    at = 0
    for pfn, folio in [*touched, (1 << 64, Folio(0, 0, "fsdax"))]:
        for range_ in ranges:
            for start, end, reserved in (
                (range_.start, range_.data, True),
                (range_.data, range_.end, False),
            ):
                first, last = max(start, at), min(end, pfn)
                if first < last:
                    yield (
                        first,
                        last - first,
                        idle_state(range_, idle_of(world, range_.type, first), reserved),
                    )
        if pfn < 1 << 64:
            yield pfn, folio.nr_pages, state_of(folio, world.rules, idle_of(world, folio.type, pfn))
            at = pfn + folio.nr_pages


def merged(runs: Iterable[tuple[int, int, dict[str, Any]]]) -> list[dict[str, Any]]:
    states: list[dict[str, Any]] = []
    for pfn, count, state in runs:
        last = states[-1] if states else None
        if (
            last
            and last["pfn"] + last["count"] == pfn
            and {k: v for k, v in last.items() if k not in ("pfn", "count")} == state
        ):
            last["count"] += count
        else:
            states.append({"pfn": pfn, "count": count, **state})
    return states


# ---- holders ----

# What zonedev calls the holders of the record, and the levels of page tables by their pages.
KINDS = {
    "vmsplice": "pipe",
    "io_uring": "io_uring",
    "xdp_umem": "xdp-umem",
    "odirect": "bio",
    "rdma": "rdma-umem",
    "vfio": "vfio",
}
LEVELS = {1: "pte", PMD_PAGES: "pmd", PMD_PAGES * PMD_PAGES: "pud"}


class Holder(NamedTuple):
    """Who holds a folio: a page table entry, or what keeps pages of a process."""

    kind: str
    pid: int
    address: int | None  # where an entry maps the first page below it of the folio; else None
    refs: int  # of the refcount
    pins: int  # FOLL_PIN, among refs


class FileOffset(NamedTuple):
    """A folio's place in a file."""

    path: str
    inode: int | None  # None: the record does not have it
    offset: int  # bytes, of the folio's head
    deleted: bool


@dataclasses.dataclass(frozen=True)
class Account:
    """What an explanation of a folio has to say."""

    pfn: int
    order: int | None  # None: the record cannot know
    type: str
    certain: bool  # otherwise more entries may map it, and its pins may have come back
    refcount: int | None
    unexplained: int
    holders: tuple[Holder, ...]
    files: tuple[FileOffset, ...]
    why: str


def map_of(world: World, folio: Folio, pid: int, va: int, entry: Entry) -> Holder:
    """The holder that a page table entry is to a folio below it."""
    kind = "device-private" if folio.type == "private" else LEVELS[entry.pages]
    address = va + (max(folio.pfn - entry.pfn, 0) << PAGE_SHIFT)
    return Holder(kind, pid, address, int(folio.type in world.rules.counted), 0)


def pins_of(folio: Folio, rules: Rules) -> Iterator[Holder]:
    """The holders of a folio that are no page table entries."""
    for (how, pid), count in sorted(folio.held.items()):
        pins = count if takes_pins(how, rules) else 0
        refs = pins * GUP_PIN_COUNTING_BIAS if pins and not folio.order else count
        yield Holder(KINDS[how], pid, None, refs, pins)


def can_be_told(holder: Holder, maps: list[tuple[int, int, Entry]]) -> bool:
    """VFIO keeps addresses of its process, and does not know the page that the process has unmapped since."""
    return holder.kind != KINDS["vfio"] or holder.pid in {pid for pid, _, _ in maps}


def files_of(world: World, folio: Folio, entries: Iterable[Entry]) -> tuple[FileOffset, ...]:
    """The files that a folio belongs to; `entries` map it."""
    if folio.type == "fsdax":
        return tuple(
            FileOffset(file[0], file[1], index << PAGE_SHIFT, file in world.unlinked)
            for file, index in folio.owners.items()
        )
    range_ = world.range_of(folio.pfn)
    if folio.type == "devdax" and range_:  # linear; the inode is the device's, not of a file
        return (FileOffset(range_.path, None, (folio.pfn - range_.data) << PAGE_SHIFT, False),)
    if folio.type == "p2pdma":  # a page is of the mapping that allocated it, one entry each
        return tuple(FileOffset(e.file[0], None, e.index << PAGE_SHIFT, False) for e in entries)
    return ()


def account_of(world: World, folio: Folio, maps: list[tuple[int, int, Entry]]) -> Account:
    """What is to be said of a folio; `maps` are (pid, va, entry)."""
    rules = world.rules
    counted = refcount_of(folio, rules, idle_of(world, folio.type, folio.pfn))
    refcount = counted if folio.overwritten is None else folio.overwritten
    pins = list(pins_of(folio, rules))
    told = [holder for holder in pins if can_be_told(holder, maps)]
    lost = sum(holder.refs for holder in pins) - sum(holder.refs for holder in told)
    return Account(
        pfn=folio.pfn,
        order=folio.order,
        type=folio.type,
        certain=folio.order is not None and not folio.uncertain,
        refcount=None if folio.uncertain else refcount,
        unexplained=folio.leaked + lost + refcount - counted,
        holders=(
            *sorted(map_of(world, folio, *found) for found in maps),
            *told,
        ),
        files=files_of(world, folio, [entry for _, _, entry in maps]),
        why=", ".join(folio.history),
    )


def accounts_of(world: World) -> Iterator[Account]:
    """Every folio that something was done to, in the order of pages."""
    maps: dict[Folio, list[tuple[int, int, Entry]]] = {}
    for pid, table in world.entries.items():
        for va, entry in table.items():
            for folio in world.folios(entry):
                maps.setdefault(folio, []).append((pid, va, entry))
    for folio in sorted(dict.fromkeys(world.folio_at.values()), key=lambda folio: folio.pfn):
        yield account_of(world, folio, maps.get(folio, []))


def dying_pagemaps(world: World, states: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Pagemaps whose removal has begun and waits: what has to be said of them as a whole."""
    found = []
    for range_ in world.ranges:
        held = sum(
            state["count"] >> (state["order"] or 0)
            for state in states
            if range_.start <= state["pfn"] < range_.end
            and (state["refcount"] or 0) > idle_of(world, range_.type, range_.start)
        )
        if range_.dying:
            finding = {"name": f"dying with {held} folios held", "level": "error-or-warning"}
            found.append({"pfn": range_.start, "state": "dying", "finding": finding})
    return found


def world_of(lines: Iterable[str]) -> World:
    """The state at the end of a record."""
    world = World()
    for line in lines:
        event = json.loads(line)
        if "ev" in event:
            world.apply(event)
    return world


def replay(lines: Iterable[str]) -> dict[str, Any]:
    """States of truth-states.json; README.md describes them."""
    world = world_of(lines)
    states = merged(runs_of(world))
    return {
        "kernel": world.release,
        "scenario": world.scenario,
        "states": states,
        "pagemaps": dying_pagemaps(world, states),
        "problems": world.problems,
    }


def write(result: dict[str, Any], path: Path | None) -> None:
    states = ",\n".join(json.dumps(state) for state in result["states"])
    head = json.dumps({key: value for key, value in result.items() if key != "states"})
    text = f'{head[:-1]}, "states": [\n{states}\n]}}\n'
    if path:
        path.write_text(text)
    else:
        sys.stdout.write(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("record", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    result = replay(options.record.read_text(errors="replace").splitlines())
    write(result, options.output)
    for problem in result["problems"]:
        print(f"replay.py: {problem}", file=sys.stderr)
    sys.exit(1 if result["problems"] else 0)


if __name__ == "__main__":
    main()
