# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a row of faults.py may do to its place: edits of struct page, struct dev_pagemap, its percpu_ref,
the registry, page tables and DAX entries, by the kernel's names.

Owns the way from a member to an address (zonedev's layout, drgn's types) and the findings that an edit
says must follow. Bytes are written by coreedit.py; which place it is, is places.py's.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Optional

from coreedit import CannotEdit, Memory, section_size_bits
from drgn import Object, Program, TypeKind, offsetof, sizeof
from places import PLACES, SUBSECTION, Core, Folio, Place, read_words

from zonedev.kernel.layout import KernelLayout
from zonedev.model import Pagemap

# R09 rewrites half of a memory type: not more heads than this.
_MASS_MAX = 50_000

_ATOMIC, _ATOMIC_DEAD = 1, 3
# TAIL_MAPPING of include/linux/poison.h with the POISON_POINTER_DELTA of x86-64.
_TAIL_MAPPING = 0xDEAD_0000_0000_0400


class Expect(NamedTuple):
    """A finding that must be there, on count pages from pfn, or (pfn None) on a pagemap."""

    rule: str
    level: str
    pfn: Optional[int]
    count: int
    pagemap: int


# ---------------------------------------------------------------- xarrays


class Slot(NamedTuple):
    """A slot of an xarray node: its address, and the node's."""

    address: int
    node: int


def find_slot(prog: Program, head: int, index: int) -> Slot:
    """The slot for an index, siblings not resolved; of the lowest node."""
    node_type = prog.type("struct xa_node")
    slots = offsetof(node_type, "slots")
    found = None
    entry = head
    while entry & 3 == 2 and entry > 4096:
        node = Object(prog, "struct xa_node", address=entry - 2)
        i = index >> int(node.shift) & (len(node.slots) - 1)
        found = Slot(entry - 2 + slots + 8 * i, entry - 2)
        entry = int(node.slots[i])
    if found is None:
        raise CannotEdit("the xarray has no node: its one entry stands in its head")
    return found


# ---------------------------------------------------------------- the edits


class Editor:
    """What a row of the table may do to its place, and what it says must be found.

    Members are those of zonedev's layout by name; values are written as they are.
    """

    def __init__(self, core: Core, memory: Memory, place: Place, shift: int = 0) -> None:
        self.core, self.memory, self.place = core, memory, place
        self.kernel, self.prog, self.survey = core.kernel, core.kernel.prog, place.survey
        self.pagemap: Pagemap = place.survey.pagemap
        self.layout: KernelLayout = core.layout
        self._shift = shift
        self.expects: list[Expect] = []
        self.hidden: list[tuple[int, int]] = []
        self.touched: set[int] = set()
        self.gone: set[int] = set()
        """Pages that were taken off their driver's list, or handed out by its pool."""
        self.edits: list[dict[str, Any]] = []
        self.subject = place.pfn

    # ------------------------------------------------------------ what is there

    @property
    def pfn(self) -> int:
        assert self.place.pfn is not None
        return self.place.pfn + self._shift

    @property
    def folio(self) -> Folio:
        assert self.place.folio is not None
        return self.place.folio

    @property
    def idle(self) -> int:
        """The idle count of the memory type."""
        return self.survey.idle

    @property
    def full(self) -> int:
        """The refcount that the idle count and the page's maps ask for."""
        return self.survey.full(read_words(self.core, self.survey, self.pfn))

    @property
    def start_pfn(self) -> int:
        return self.pagemap.ranges[0].start_pfn

    @property
    def end_pfn(self) -> int:
        return self.pagemap.ranges[-1].end_pfn

    @property
    def page_type_limit(self) -> int:
        return int(self.layout.spec["page_type_limit"])

    @property
    def page_bytes(self) -> int:
        return 1 << self.layout.page_shift

    @property
    def subsection(self) -> int:
        return SUBSECTION

    @property
    def some_file(self) -> int:
        """The mapping of a page that has one."""
        for pfn in self.survey.states.get("associated", ()):
            return read_words(self.core, self.survey, pfn).mapping
        raise CannotEdit("no page of this pagemap belongs to a file")

    def page_address(self, pfn: int) -> int:
        return self.layout.page_address(pfn)

    @property
    def has_entries(self) -> bool:
        """Whether the audit knows every DAX entry of every file."""
        return self.core.entries is not None

    # ------------------------------------------------------------ what must be found

    def also(self, rule: str, level: str, pfn: Optional[int] = None, count: int = 1) -> None:
        """Another finding of this edit: on pages, or on the pagemap."""
        self.expects.append(Expect(rule, level, pfn, count, self.pagemap.address))

    def also_on(self, other: Pagemap, rule: str, level: str) -> None:
        """A finding on another pagemap."""
        self.expects.append(Expect(rule, level, None, 1, other.address))

    def hide(self, start: int, end: int) -> None:
        """Pages that are judged no more: what was found on them may go."""
        self.hidden.append((start, end))

    def hide_all(self) -> None:
        for range_ in self.pagemap.ranges:
            self.hide(range_.start_pfn, range_.end_pfn)

    def about(self, pfn: int) -> None:
        """The page that the fault shows at, where it is not the edited one."""
        self.subject = pfn

    def _note(self, where: str, field: str, old: int, new: int) -> None:
        self.edits.append({"where": where, "field": field, "old": old, "new": new})

    # ------------------------------------------------------------ struct page

    def at(self, shift: int) -> Editor:
        """The same for a page further on; what it does is booked here."""
        return self._book_here(Editor(self.core, self.memory, self.place, self._shift + shift))

    def _page(self, pfn: int) -> Editor:
        """The same for one page of the pagemap that is edited as a whole."""
        return self._book_here(Editor(self.core, self.memory, self.place._replace(pfn=pfn)))

    def _book_here(self, other: Editor) -> Editor:
        other.edits, other.touched = self.edits, self.touched
        return other

    def _touch(self, offset: int) -> None:
        pfn = self.pfn + offset // self.layout.page_size
        self.touched.add(pfn)
        self.touched |= set(self.aliases_of(pfn))

    def aliases_of(self, pfn: int) -> range:
        """Pfns whose struct page is the same memory (vmemmap dedup), itself left out."""
        frame = self.page_bytes // self.layout.page_size
        if not self.pagemap.deduplicated:
            return range(0)
        pages = 1 << self.pagemap.vmemmap_shift
        head = self.start_pfn + (pfn - self.start_pfn) // pages * pages
        if pfn - head < frame:
            return range(0)
        return range(pfn + frame, head + pages, frame)

    def _field(self, member: str) -> tuple[int, int, int]:
        try:
            return self.layout.fields[member]
        except KeyError:
            raise CannotEdit(f"this kernel's struct page has no {member}") from None

    def get(self, member: str) -> int:
        offset, size, bits = self._field(member)
        value = self.memory.load(self.page_address(self.pfn) + offset, size)
        return value & ((1 << bits) - 1) if bits else value

    def put(self, member: str, value: int) -> None:
        """Store a member; of one that shares its word only its bits."""
        offset, size, bits = self._field(member)
        address = self.page_address(self.pfn) + offset
        if bits:
            mask = (1 << bits) - 1
            value = self.memory.load(address, size) & ~mask | value & mask
        old = self.memory.store(address, size, value)
        self._note(f"page {self.pfn:#x}", member, old, value & ((1 << 8 * size) - 1))
        self._touch(offset)

    def add(self, member: str, delta: int) -> None:
        self.put(member, self.get(member) + delta)

    def beside(self, value: int) -> None:
        """The value into a word where it is legal: the driver's, or (private) the stale index."""
        anon = self.survey.type in ("PRIVATE", "COHERENT")
        self.put("index" if anon else "zone_device_data", value)

    def _bit(self, name: str) -> int:
        bit = self.layout.spec["flags"].get(name)
        if bit is None:
            raise CannotEdit(f"this kernel has no {name}")
        return 1 << int(bit)

    def flag(self, *names: str) -> None:
        self.put("flags", self.get("flags") | sum(self._bit(name) for name in names))

    def unflag(self, name: str) -> None:
        self.put("flags", self.get("flags") & ~self._bit(name))

    def flip(self, bit: int) -> None:
        self.put("flags", self.get("flags") ^ 1 << bit)

    def bits(self, which: str, value: int) -> None:
        """Zone or node bits."""
        shift, width = self.layout.zone if which == "zone" else self.layout.node
        if not width:
            raise CannotEdit(f"the {which} bits of this kernel are not known")
        mask = (1 << width) - 1 << shift
        self.put("flags", self.get("flags") & ~mask | value << shift)

    def _put_raw(self, raw: bytes) -> None:
        old = self.memory.write(self.page_address(self.pfn), raw)
        self._note(f"page {self.pfn:#x}", "all; first byte", old[0], raw[0])
        self._touch(0)

    def fill(self, byte: int) -> None:
        self._put_raw(bytes([byte]) * self.layout.page_size)

    def template(self) -> None:
        """An idle page of order 0 as this pagemap has them."""
        if not self.survey.idle_raw:
            raise CannotEdit("no page of this pagemap is idle")
        self._put_raw(self.survey.idle_raw)

    def tail_of(self, head_pfn: int) -> None:
        self.put("pgmap", self.page_address(head_pfn) | 1)

    def compound(self, order: int, tails: Optional[int] = None) -> None:
        """A folio of idle pages, or as many of its tails as are asked for."""
        self.flag("PG_head")
        for i in range(1, (1 << order if tails is None else tails + 1)):
            tail = self.at(i)
            tail.tail_of(self.pfn)
            tail.put("mapping", _TAIL_MAPPING)
            tail.put("_refcount", 0)
        self.put("order", order)
        if order:
            self.put("_large_mapcount", -1)
            self.put("_pincount", 0)

    # ------------------------------------------------------------ struct dev_pagemap

    def _object(self, pagemap: Optional[Pagemap] = None) -> Object:
        address = (pagemap or self.pagemap).address
        return Object(self.prog, "struct dev_pagemap", address=address)

    def _store(self, where: str, field: str, obj: Object, value: int) -> None:
        old = self.memory.store(obj.address_, sizeof(obj), value)
        self._note(where, field, old, value & ((1 << 8 * sizeof(obj)) - 1))

    @property
    def _name(self) -> str:
        return f"dev_pagemap {self.pagemap.address:#x}"

    def _path(self, path: str) -> Object:
        obj = self._object()
        try:
            for name in path.split("."):
                obj = obj.member_(name)
        except LookupError:
            raise CannotEdit(f"this kernel's struct dev_pagemap has no {path}") from None
        return obj

    def member(self, path: str, value: int) -> None:
        """A member of the struct dev_pagemap."""
        self._store(self._name, path, self._path(path), value)

    def member_value(self, path: str) -> int:
        return int(self._path(path).value_())

    @property
    def range_start(self) -> int:
        return self.member_value("range.start")

    @property
    def range_end(self) -> int:
        """Inclusive, as in the kernel."""
        return self.member_value("range.end")

    def altmap(self, name: str) -> int:
        assert self.pagemap.altmap is not None
        return self.pagemap.altmap[name]

    def split_range(self) -> None:
        """One range becomes two that lie side by side; the second stands behind the first."""
        start, end = self.range_start, self.range_end
        unit = max(SUBSECTION, self.page_bytes << self.pagemap.vmemmap_shift)
        middle = start + (end + 1 - start) // 2 // unit * unit
        if middle == start:
            raise CannotEdit("the range is one folio")
        if self.survey.type != "GENERIC":
            raise CannotEdit("what lies behind the range of such a dev_pagemap is another's")
        range_ = self._path("range")
        second = range_.address_ + sizeof(range_)
        self.member("range.end", middle - 1)
        for at, value in (("start", middle), ("end", end)):
            where = Object(self.prog, "u64", address=second + offsetof(range_.type_, at))
            self._store(self._name, f"ranges[1].{at}", where, value)
        self.member("nr_range", 2)

    @property
    def other(self) -> Pagemap:
        found = self.core.other(self.pagemap)
        if found is None:
            raise CannotEdit("there is one pagemap only")
        return found

    # ------------------------------------------------------------ ops

    def _ops(self) -> Object:
        ops = self._object().ops
        if not ops:
            raise CannotEdit("this pagemap has no ops")
        return ops[0]

    def has_op(self, name: str) -> bool:
        return bool(self._ops().type_.has_member(name))

    def op(self, name: str, value: int) -> None:
        ops = self._ops()
        if not self.has_op(name):
            raise CannotEdit(f"this kernel's dev_pagemap_ops have no {name}")
        self._store(f"{self.pagemap.ops}", name, ops.member_(name), value)

    def sharing_ops(self) -> list[Pagemap]:
        mine = (self.pagemap, *self.place.others)
        return [p for p in mine if p.type.endswith(("_PRIVATE", "_COHERENT"))]

    def ops_without(self, name: str) -> int:
        """Another pagemap's ops that lack a callback, but can free."""
        for other in self.kernel.pagemaps:
            if other.ops_members.get("free") and not other.ops_members.get(name):
                return int(self._object(other).ops)
        raise CannotEdit(f"no pagemap of this core has ops without {name}")

    # ------------------------------------------------------------ percpu_ref

    def _ref(self) -> Object:
        ref = self._object().ref
        return ref[0] if ref.type_.kind == TypeKind.POINTER else ref

    def _count(self) -> Object:
        ref = self._ref()
        holder = ref.data[0] if ref.type_.has_member("data") else ref
        return holder.count.counter

    @property
    def ref_count(self) -> int:
        """The value of the reference before any edit."""
        if self.pagemap.ref.count is None or self.pagemap.ref.state != "live":
            raise CannotEdit("the reference of this pagemap is not live, or cannot be read")
        return self.pagemap.ref.count

    @property
    def ref_needed(self) -> int:
        """What the pagemap and its pages hold at least."""
        if not self.survey.complete:
            raise CannotEdit("not every page of this pagemap can be read")
        if self.kernel.scheme.id == "C":
            return 1 + self.survey.pages_referenced
        mapped = self.survey.pages_mapped if self.survey.type == "PCI_P2PDMA" else 0
        return 1 + self.pagemap.folios + mapped

    def ref(self, delta: int) -> None:
        """References of the pagemap taken or put; right in per-CPU and in atomic mode."""
        counter = self._count()
        value = self.memory.load(counter.address_, sizeof(counter))
        self._store(self._name, "ref", counter, value + delta)

    def set_ref(self, value: int) -> None:
        self.ref(value - self.ref_count)

    @property
    def puts_at_removal(self) -> bool:
        """Whether removal puts a reference of every page; no edit here does."""
        return self.kernel.scheme.id == "C"

    def _dead(self, pointer: int) -> None:
        # Where removal puts the reference of every page, 0 is legal from now on.
        if self.puts_at_removal:
            self.hide_all()
        self._store(
            self._name,
            "ref.percpu_count_ptr",
            self._ref().percpu_count_ptr,
            pointer,
        )

    def kill(self, count: int) -> None:
        """Killed and switched to atomic mode, with references left."""
        self._store(self._name, "ref", self._count(), count)
        self._dead(int(self._ref().percpu_count_ptr) | _ATOMIC_DEAD)

    def atomic(self, count: int) -> None:
        """Switched to atomic mode, and alive."""
        self._store(self._name, "ref", self._count(), count)
        ref = self._ref()
        pointer = int(ref.percpu_count_ptr) | _ATOMIC
        self._store(self._name, "ref.percpu_count_ptr", ref.percpu_count_ptr, pointer)

    def exit(self, count: int) -> None:
        """Exited: the count stands in the pointer's place."""
        ref = self._ref()
        if not ref.type_.has_member("data"):
            raise CannotEdit("this kernel's percpu_ref has no data of its own")
        self._dead(count << 2 | _ATOMIC_DEAD)
        self._store(self._name, "ref.data", ref.data, 0)

    def any_held(self) -> bool:
        return self.survey.held

    def release_all(self) -> None:
        """Every page that is held or mapped is let go."""
        for pfn, order in self.survey.above_idle:
            page = self._page(pfn)
            page.put("_refcount", self.idle)
            if order:
                page.put("_large_mapcount", -1)
                page.put("_pincount", 0)
            else:
                page.put("_mapcount", -1)

    # ------------------------------------------------------------ more than one page or pagemap

    def mass(self, more_than_half: bool) -> None:
        """Idle pages at the other count: just more, or not more, than half of the type's heads."""
        surveys = self.core.of_type(self.survey.type)
        heads, other = sum(s.heads for s in surveys), 1 - self.idle
        if heads > _MASS_MAX or not all(s.complete for s in surveys):
            raise CannotEdit(f"half of {heads} folios would have to be rewritten")
        count = heads // 2 - sum(s.resting[other] for s in surveys) + more_than_half
        pfns = [pfn for survey in surveys for pfn in survey.states.get("idle", ())][:count]
        if len(pfns) < count:
            raise CannotEdit(f"{len(pfns)} of {heads} folios are idle: fewer than half")
        for pfn in pfns:
            self._page(pfn).put("_refcount", other)
        if more_than_half:
            for survey in surveys:
                self.hidden += [(r.start_pfn, r.end_pfn) for r in survey.pagemap.ranges]
            return
        for pfn in pfns:
            rule = "reference-on-free-folio" if other else "refcount-below-idle"
            level = "error" if not other or self.survey.type == "FS_DAX" else "warning"
            self.also(rule, level, pfn)

    def last_slot(self, value: int) -> None:
        """The registry's slot for the last pfn: erased, or another pagemap's."""
        array = self.prog["pgmap_array"]
        slot = find_slot(self.prog, int(array.xa_head), self.end_pfn - 1)
        first = find_slot(self.prog, int(array.xa_head), self.start_pfn)
        if slot == first:
            raise CannotEdit("the registry holds this pagemap in one slot")
        old = self.memory.store(slot.address, 8, value)
        self._note("pgmap_array", f"slot of pfn {self.end_pfn - 1:#x}", old, value)
        if not value:
            count = Object(self.prog, "struct xa_node", address=slot.node).count
            self._store(f"xa_node {slot.node:#x}", "count", count, int(count) - 1)

    def unmap_memmap(self) -> None:
        """The page table entry that maps the page's struct page is cleared."""
        size = self.layout.page_size
        entry, frames = self.memory.page_table_entry(self.page_address(self.pfn))
        pages = frames * self.page_bytes // size
        first = (self.page_address(self.pfn) - self.page_address(0)) // size // pages * pages
        inside = self.pagemap.ranges[0]
        end = inside.end_pfn if self.pfn >= inside.first_pfn else inside.first_pfn
        if not (inside.start_pfn <= first and first + pages <= end):
            raise CannotEdit(f"one page table entry maps {pages} struct pages, others' as well")
        self._note("page table", "entry of the memmap", self.memory.clear_physical(entry, 8), 0)
        self.hide(first, first + pages)

    def clear_section(self) -> None:
        """section_mem_map of the section that holds the page."""
        bits = section_size_bits(self.prog)
        if not bits:
            raise CannotEdit("VMCOREINFO does not say how large a section is")
        section = self.pfn >> bits - self.layout.page_shift
        per_root = self.page_bytes // self.prog.type("struct mem_section").size
        pfns = 1 << bits - self.layout.page_shift
        first = section * pfns
        whole = any(r.start_pfn <= first and first + pfns <= r.end_pfn for r in self.pagemap.ranges)
        if self.pagemap.covers(self.pfn) and not whole:
            raise CannotEdit("no section lies in this pagemap as a whole")
        root = self.prog["mem_section"][section // per_root]
        if not root:
            raise CannotEdit("there are no sections so high up")
        self._store(
            f"mem_section {section:#x}",
            "section_mem_map",
            root[section % per_root].section_mem_map,
            0,
        )

    # ------------------------------------------------------------ what drivers write down

    def use_pages(self, gone: set[int]) -> None:
        """The driver knows that the edited pages are in use; *gone* are off its list already."""
        books = self.core.books
        for pfn, written in books.use(self.memory, self.pagemap, self.touched, gone):
            self._note(*written)
            self.gone.add(pfn)

    # ------------------------------------------------------------ DAX entries

    def _entry_slot(self, pfn: int) -> Slot:
        words = read_words(self.core, self.survey, pfn)
        mapping = Object(self.prog, "struct address_space *", value=words.mapping)
        return find_slot(self.prog, int(mapping.i_pages.xa_head), words.index)

    @property
    def entry_value(self) -> int:
        return self.memory.load(self._entry_slot(self.pfn).address, 8)

    @property
    def entry_page(self) -> int:
        """What one pfn more adds to an entry."""
        return 1 << 5

    @property
    def free_pfn(self) -> int:
        """An idle page of this pagemap, which is then taken by this edit."""
        for place in PLACES["last-idle"](self.core, self.survey):
            assert place.pfn is not None
            if self.core.agrees(self.survey, place.pfn):
                self.touched.add(place.pfn)
                return place.pfn
        raise CannotEdit("no page of this pagemap is idle")

    def entry(self, value: int) -> None:
        slot = self._entry_slot(self.pfn)
        old = self.memory.store(slot.address, 8, value)
        self._note("i_pages", f"entry of pfn {self.pfn:#x}", old, value)

    def entry_of_another(self) -> int:
        """The entry of another page of this pagemap, which the fault is then about."""
        # The last one, which no other edit of the round is likely to have.
        others = [p.pfn for p in PLACES["entry"](self.core, self.survey) if p.pfn is not None]
        if others and others[-1] > self.pfn:
            self.about(others[-1])
            self.touched.add(others[-1])
            return self.memory.load(self._entry_slot(others[-1]).address, 8)
        raise CannotEdit("no other page with an entry is in the core")
