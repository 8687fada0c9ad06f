# SPDX-License-Identifier: LGPL-2.1-or-later
"""The second pass: what the files say of FS_DAX pages, beside what the pages say of themselves.

Owns whether the pass is run, what it says of itself in the report, and findings that no page carries.
How files are found is kernel/dax.py's, judging with what they say is the core's.

Not run on a live kernel: trees and pages change between two reads, and what stands must have been the
same in both. A pass that was not run takes nothing away from the verdict; the rules that need it are
listed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple, Optional

from zonedev import _zonedev
from zonedev.kernel.dax import CannotWalk, DaxEntry, DaxFile, DaxWalk, describe_entry, describe_file
from zonedev.kernel.dax_lock import Lock, find_owners
from zonedev.kernel.facts import Kernel
from zonedev.kernel.mapping import TAGS
from zonedev.kernel.registry import known_type
from zonedev.model import FS_DAX, Finding, Pagemap

EVIDENCE = "DAX entries of inodes"
MISMATCH, WITHOUT_ENTRY = "entry-page-mismatch", "mapping-without-entry"
STUCK, ORDER = "dax-lock-stuck", "entry-order-vs-folio"

LIVE = "not applicable: live kernel, whose entries change while they are read"
QUICK = "left out (--quick)"

# Findings whose files are looked up, those of them whose whole folio is, and files that are named for one page.
_NAMED_PAGES_MAX = 1000
_NAMED_FOLIOS_MAX = 8
_OWNERS_MAX = 4


def rules_of_pass() -> set[str]:
    """Ids of the rules that rest on DAX entries."""
    rows = (row for row in _zonedev.rules() if row["evidence"] == EVIDENCE)
    return {row["id"] for row in rows if row["requires_evidence"]}


class PagelessLock(NamedTuple):
    """A locked entry that no page tells of: of what kind, where, and whether nobody is there who holds it."""

    mapping: int
    page_index: int
    zero: bool
    stuck: Optional[bool]  # None: not known

    def __str__(self) -> str:
        kind = "is the zero page" if self.zero else "has no page yet"
        who = "no task's stack names its file's tree"
        if self.stuck is None:
            who = "the stacks of tasks are not in the dump"
        return f"the entry of page {self.page_index:#x} is locked and {kind}, and {who}"


class DaxPass:
    """The pass over DAX entries of one audit: run, or with the reason why not."""

    evidence = EVIDENCE

    def __init__(self, kernel: Kernel, quick: bool = False) -> None:
        self._kernel = kernel
        self.walk: Optional[DaxWalk] = None
        self.why: Optional[str] = None
        self._pageless: list[PagelessLock] = []
        if quick:
            self.why = QUICK
        elif kernel.live:
            self.why = LIVE
        else:
            self._run()

    def _run(self) -> None:
        kernel = self._kernel
        try:
            walk = DaxWalk(kernel.prog, kernel.layout, kernel.scheme, kernel.pagemaps)
            walk.run()
        except CannotWalk as err:
            self.why = str(err)
            return
        except (ValueError, MemoryError) as err:
            self.why = f"the walk gave up: {err or 'no memory'}"
            return
        self.walk = walk
        self._look_at_locks()

    @property
    def entries(self) -> Optional[_zonedev.Entries]:
        """What scans are to be given; None where the pass was not run."""
        return self.walk.entries if self.walk else None

    @property
    def complete(self) -> bool:
        """Whether every entry of every file was read."""
        return self.walk is not None and not self.walk.walked.gaps

    def incomplete(self) -> list[str]:
        """Devices of the pagemaps of which no page is said to lack an entry: not all were read."""
        if not self.walk:
            return []
        pagemaps = [p for p in self._kernel.pagemaps if p.type == FS_DAX]
        lost = [p for p in pagemaps if not self.walk.is_complete(p)]
        return [p.device or f"pagemap {p.address:#x}" for p in lost]

    def lacking(self) -> Optional[str]:
        """Where entries are missing, in words; None: nowhere."""
        lost = self.incomplete()
        return f" on {', '.join(lost)}" if lost else None

    def _look_at_locks(self) -> None:
        assert self.walk
        locked = self.walk.entries.kept()["locked"]
        locks = [self._lock(mapping, entry) for mapping, entry in locked]
        owners = find_owners(self._kernel.prog, locks) if locks else None
        for lock, (mapping, (index, pfn, order, flags)) in zip(locks, locked):
            stuck = None if owners is None else not owners[lock]
            if lock.page is None:
                self._pageless.append(PagelessLock(mapping, index, "Z" in flags, stuck))
            elif stuck is not None:
                self.walk.entries.lock_is(pfn, 1 << order, stuck)

    def _lock(self, mapping: int, entry: tuple[int, int, int, str]) -> Lock:
        _, pfn, _, flags = entry
        pageless = set("ZE") & set(flags)
        return Lock(mapping, None if pageless else self._kernel.layout.page_address(pfn))

    def settle(self, findings: Iterable[Finding]) -> bool:
        """Look at mappings that findings say no file has; whether pages must be judged again."""
        if not self.walk:
            return False
        rules = {MISMATCH, WITHOUT_ENTRY}
        mappings = {f.mapping for f in findings if f.mapping and rules & {f.rule, *f.also}}
        return self.walk.settle(m for m in mappings if m & TAGS == 0)

    # ------------------------------------------------------------ findings that no page carries

    def _pagemap_of(self, file: DaxFile) -> Optional[Pagemap]:
        candidates = [p for p in self._kernel.pagemaps if p.type == FS_DAX]
        device = file.super_block.device if file.super_block else None
        named = [p for p in candidates if p.device == device]
        return next(iter(named or candidates), None)

    def _is_strange(self, pfn: int) -> bool:
        """Whether the kernel would find no pagemap for a pfn, or one of another memory type."""
        address = self._kernel.registry.load(pfn)
        known = next((p for p in self._kernel.pagemaps if p.address == address), None)
        return not address or (known is not None and known_type(known) and known.type != FS_DAX)

    def outside(self, severity: str) -> list[Finding]:
        """Entries that name pfns of no FS_DAX pagemap, a finding per file; none where pagemaps may be missing."""
        if not self.walk or self._kernel.problems:
            return []
        kept = [one for one in self.walk.entries.kept()["outside"] if self._is_strange(one[1][1])]
        counts = Counter(mapping for mapping, _ in kept)
        first = {mapping: entry for mapping, entry in reversed(kept)}
        findings = []
        for file in self.walk.files():
            pagemap = self._pagemap_of(file)
            if file.mapping not in counts or pagemap is None:
                continue
            index, pfn = first[file.mapping][:2]
            text = (
                f"{describe_file(self._kernel.prog, file)}: {counts[file.mapping]} entries name pfns of no FS_DAX "
                f"pagemap, page {index:#x} pfn {pfn:#x}"
            )
            findings.append(Finding(MISMATCH, severity, pagemap.address, detail=text))
        return findings

    def locks(self) -> list[Finding]:
        """Locked entries without a page that nobody may hold, or where that is not known; one per file."""
        if not self.walk:
            return []
        first = {lock.mapping: lock for lock in reversed(self._pageless) if lock.stuck is not False}
        findings = []
        for file in self.walk.files():
            lock, pagemap = first.get(file.mapping), self._pagemap_of(file)
            if lock is not None and pagemap is not None:
                severity = "warning" if lock.stuck else "info"
                text = f"{describe_file(self._kernel.prog, file)}: {lock}"
                findings.append(Finding(STUCK, severity, pagemap.address, detail=text))
        return findings

    # ------------------------------------------------------------ words

    def describe(self, findings: Iterable[Finding]) -> None:
        """Say which files claim the first page of findings that rest on entries."""
        if not self.walk:
            return
        rules = rules_of_pass()
        mine = [f for f in findings if f.pfn is not None and rules & {f.rule, *f.also}]
        mine = mine[:_NAMED_PAGES_MAX]
        owners = self.owners_of([f.pfn for f in mine if f.pfn is not None])
        for finding in mine:
            assert finding.pfn is not None
            text = self.words(owners.get(finding.pfn, []), finding.pfn)
            finding.detail = "; ".join(filter(None, (finding.detail, text)))
        folios = [f for f in mine if f.order and ORDER in (f.rule, *f.also)]
        for finding in folios[:_NAMED_FOLIOS_MAX]:
            self._describe_parts(finding)

    def _describe_parts(self, finding: Finding) -> None:
        """Name the files whose entries lead to a part of a folio."""
        assert self.walk and finding.pfn is not None
        pages = 1 << finding.order
        entries = self.walk.owners(range(finding.pfn, finding.pfn + pages))
        parts = [e for e in entries if e.pfn != finding.pfn or e.pages != pages]
        if parts:
            text = "parts of the folio: " + self._list(parts, finding.pfn)
            finding.detail = "; ".join(filter(None, (finding.detail, text)))

    def owners_of(self, pfns: list[int]) -> dict[int, list[DaxEntry]]:
        """The entries that cover each of the pages."""
        owners: dict[int, list[DaxEntry]] = {}
        if not self.walk:
            return owners
        for entry in self.walk.owners(pfns):
            for pfn in pfns:
                if entry.pfn <= pfn < entry.pfn + entry.pages:
                    owners.setdefault(pfn, []).append(entry)
        return owners

    def words(self, owners: list[DaxEntry], pfn: int) -> str:
        """ "entries: inode 13 of pmem0 (ext4), /a, page 0x2", or that there is none."""
        if owners:
            return "entries: " + self._list(owners, pfn)
        pagemap = self._kernel.find(pfn)
        known = self.walk is not None and pagemap is not None and self.walk.is_complete(pagemap)
        return "no entry" if known else "no entry was read"

    def _list(self, entries: list[DaxEntry], pfn: int) -> str:
        """The files of some entries, and the pages in them that begin at a pfn."""
        named = entries[:_OWNERS_MAX]
        texts = [describe_entry(self._kernel.prog, e, max(pfn, e.pfn)) for e in named]
        more = [f"{len(entries) - _OWNERS_MAX} more"] if len(entries) > _OWNERS_MAX else []
        return "; ".join(texts + more)

    def summary(self) -> dict[str, Any]:
        """The pass in the report: whether it was run, what it saw, and what it could not read."""
        summary: dict[str, Any] = {"pass": "dax-entries", "ran": self.walk is not None}
        if not self.walk:
            return {**summary, "why": self.why}
        walked = self.walk.walked
        return {
            **summary,
            "complete": self.complete,
            "incomplete_devices": self.incomplete(),
            "file_systems": walked.file_systems,
            "inodes": walked.inodes,
            "dax_inodes": walked.dax_inodes,
            "files": walked.files,
            **walked.counts,
            "gaps": walked.gaps,
        }
