# SPDX-License-Identifier: LGPL-2.1-or-later
"""What lies at a physical address of the kernel's memory, in words for people.

Owns the order in which it is asked: image, per-CPU data, then what the frame's struct page says (slab, page type,
mapping), then who has mapped the frame (task stacks, vmalloc areas, the memmap). Does not search memory
(memory_search.py).

Invariant: each step may fail, as on a dump that lacks memory or types, and then says nothing; what no step knows is
"not told". Lists and trees out of the dump are followed for a bounded number of steps and seconds.

Mirrors include/linux/page-flags.h, bvec.h, pipe_fs_i.h, mm/vmalloc.c, mm/slub.c (of newer kernels, an object that waits
for its reuse in a CPU's sheaf counts as allocated).
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from typing import NamedTuple, Optional, TypeVar

from drgn import FaultError, Object, PlatformFlags, Program, StackFrame, cast, offsetof
from drgn.helpers.linux.cpumask import for_each_possible_cpu
from drgn.helpers.linux.mm import for_each_vmap_area

from zonedev import _zonedev
from zonedev.kernel.by_pages import decode_anyones
from zonedev.kernel.dax_lock import call_trace, for_each_task, stack_size
from zonedev.kernel.device import read_resources
from zonedev.kernel.layout import KernelLayout
from zonedev.kernel.slab import SlabObject, slab_object
from zonedev.kernel.strings import text_at, text_of
from zonedev.kernel.symbols import vmcoreinfo_number, vmcoreinfo_symbol
from zonedev.kernel.translate import physical_address

# Helpers of drgn raise plain Exception, too: nothing that a dump holds may keep a word from being told.
_ERRORS = (Exception,)

# Bounds for what is walked: seconds for each of tasks, vmalloc areas and the memmap; how many; pages of one area.
_WALK_S = 2.0
_WALK_MAX = 1 << 20
_AREA_PAGES_MAX = 1 << 20
_NAME_MAX = 128

# Pages whose struct pages are mapped by one entry at once, where the memmap is large.
_MEMMAP_STEP = 2 << 20
_MEMMAP_STEPS = 1 << 14

# Parts of the image in the tree of struct resource.
_IMAGE = ("Kernel code", "Kernel rodata", "Kernel data", "Kernel bss")

# What enum pagetype calls what people call otherwise.
_TYPE_NAMES = {"buddy": "free page", "table": "page table"}
_FREE = "free page"

# More bytes are not described by one bio_vec.
_BVEC_MAX = 1 << 30

_T = TypeVar("_T")


class Place(NamedTuple):
    """Words, whether the memory is in use for what they say, and where the kernel has it, if not in the direct map."""

    where: str
    certain: bool
    address: Optional[int] = None


# What leads from a tail to its head is the same in all of them.
_ANY_SCHEME = _zonedev.Scheme.named("H")

_NOT_TOLD = Place("not told", False)


class _Stack(NamedTuple):
    """One frame of a task's stack."""

    task: Object
    address: int


def _for_a_while(items: Iterable[_T]) -> Iterator[_T]:
    """As many as there are, but not for ever."""
    end = time.monotonic() + _WALK_S
    for item in islice(items, _WALK_MAX):
        if time.monotonic() > end:
            return
        yield item


def _slab_cache(head: Object) -> Object:
    """``struct kmem_cache *`` of a slab's first page."""
    try:
        slab = cast("struct slab *", head)
    except LookupError:
        # Before commit d122019bf061 ("mm: Split slab into its own type") (in v5.17) struct page had its members.
        slab = head
    return slab.slab_cache


class Places:
    """What lies at some physical addresses; what is walked for it is walked once, when it is needed."""

    def __init__(
        self,
        prog: Program,
        layout: KernelLayout,
        direct_map: Optional[int],
        physical: Sequence[int],
    ) -> None:
        """
        :param direct_map: address of physical address 0
        :param physical: what will be asked for
        """
        assert prog.platform is not None
        self._prog, self._layout, self._direct_map = prog, layout, direct_map
        self._frame = 1 << layout.page_shift
        self._frames = {at >> layout.page_shift for at in physical}
        self._little = bool(prog.platform.flags & PlatformFlags.IS_LITTLE_ENDIAN)
        self._word = "Q" if prog.platform.flags & PlatformFlags.IS_64_BIT else "I"

    def of(self, physical: int, tag: int = 0) -> Place:
        """What a word lies in that points to a struct page, with *tag* in its low bits."""
        place = self._try(self._steps(), physical) or _NOT_TOLD
        looks = [] if tag else self._looks_like(physical)
        words = [place.where, *looks, *([f"low bits {tag}"] if tag else [])]
        return place._replace(where=", ".join(words))

    def _steps(self) -> tuple[Callable[[int], Optional[Place]], ...]:
        return (
            *(self._in_image, self._in_percpu, self._in_slab, self._in_slab_page),
            *(
                self._of_a_type,
                self._of_users,
                self._in_stack,
                self._in_vmalloc,
                self._in_memmap,
                self._unused,
                self._reserved,
            ),
        )

    def _try(
        self, steps: Iterable[Callable[[int], Optional[Place]]], physical: int
    ) -> Optional[Place]:
        for step in steps:
            try:
                place = step(physical)
            except _ERRORS:
                continue
            if place is not None:
                return place
        return None

    # What the word itself looks like.

    def _u(self, physical: int, type_name: str, member: str) -> int:
        """A number of a struct that begins at a physical address."""
        type_ = self._prog.type(type_name)
        size = type_.member(member).type.size
        assert size is not None
        data = self._prog.read(physical + offsetof(type_, member), size, True)
        return int.from_bytes(data, "little" if self._little else "big")

    def _looks_like(self, physical: int) -> list[str]:
        for look in (self._pipe_buffer, self._bio_vec):
            try:
                words = look(physical)
            except _ERRORS:
                continue
            if words:
                return [words]
        return []

    def _pipe_buffer(self, physical: int) -> Optional[str]:
        name = "struct pipe_buffer"
        ops = self._prog.symbol(self._u(physical, name, "ops")).name
        if not ops.endswith("pipe_buf_ops"):
            return None
        length, offset = (self._u(physical, name, member) for member in ("len", "offset"))
        return f"looks like a pipe_buffer ({ops}): {length} bytes at {offset}"

    def _bio_vec(self, physical: int) -> Optional[str]:
        length, offset = (
            self._u(physical, "struct bio_vec", name) for name in ("bv_len", "bv_offset")
        )
        if not 0 < length <= _BVEC_MAX or offset >= self._frame:
            return None
        return f"looks like a bio_vec: {length} bytes at {offset}"

    # The image and per-CPU data.

    @cached_property
    def _image(self) -> tuple[int, list[tuple[int, int]]]:
        """Virtual less physical address of the image, and physical [start, end) of its parts."""
        text = vmcoreinfo_symbol(self._prog, "_stext")
        if text is None:
            text = self._prog.symbol("_stext").address
        parts = [(r.start, r.end + 1) for r in read_resources(self._prog) if r.name in _IMAGE]
        return text - physical_address(self._prog, text), parts

    def _symbol(self, address: int) -> str:
        try:
            symbol = self._prog.symbol(address)
        except LookupError:
            return f"{address:#x}"
        return f"{symbol.name}+{address - symbol.address:#x}"

    def _in_image(self, physical: int) -> Optional[Place]:
        offset, parts = self._image
        if not any(start <= physical < end for start, end in parts):
            return None
        # What of the image is not needed after boot was given away, to become anything.
        if not self._is_reserved(self._head(physical)):
            return None
        address = physical + offset
        return Place(f"kernel image: {self._symbol(address)}", True, address)

    @cached_property
    def _percpu(self) -> list[tuple[int, int, int]]:
        """CPU, and [start, end) in the direct map, of the per-CPU variables of the image."""
        start, end = (self._prog.symbol(f"__per_cpu_{edge}").address for edge in ("start", "end"))
        offsets = self._prog["__per_cpu_offset"]
        each = ((cpu, int(offsets[cpu])) for cpu in for_each_possible_cpu(self._prog))
        mask = (1 << 8 * struct.calcsize(self._word)) - 1
        return [(cpu, start + at & mask, end + at & mask) for cpu, at in each]

    def _in_percpu(self, physical: int) -> Optional[Place]:
        address = self._virtual(physical)
        base = self._prog.symbol("__per_cpu_start").address
        for cpu, start, end in self._percpu:
            if start <= address < end:
                name = self._symbol(base + address - start)
                return Place(f"per-CPU data of CPU {cpu}: {name}", True)
        return None

    # What the struct page of the frame says.

    def _virtual(self, physical: int) -> int:
        if self._direct_map is None:
            raise LookupError("the direct map is not known")
        return self._direct_map + physical

    def _head(self, physical: int) -> Object:
        """The struct page, of a compound page the first one."""
        pfn = physical >> self._layout.page_shift
        # Not by drgn's helper: an older one does not know how newer kernels name the head.
        page = decode_anyones(self._prog, self._layout, _ANY_SCHEME, pfn, 0, pfn + 1)
        head = page["head_pfn"] if page["tail"] and page["head_pfn"] is not None else pfn
        return Object(self._prog, "struct page *", value=self._layout.page_address(head))

    def _member(self, page: Object, name: str, signed: bool = False) -> int:
        offset, size, _bits = self._layout.fields[name]
        data = self._prog.read(int(page) + offset, size)
        return int.from_bytes(data, "little" if self._little else "big", signed=signed)

    def _in_slab(self, physical: int) -> Optional[Place]:
        address = self._virtual(physical)
        found = slab_object(self._prog, address)
        if found is None or not found.address:
            return None
        return self._object(found, address)

    @staticmethod
    def _object(found: SlabObject, address: int) -> Place:
        state = {True: "", False: "freed ", None: "(freed?) "}[found.allocated]
        at = f"at +{address - found.address:#x}"
        where = f"{state}object {found.address:#x} of slab cache {found.cache} {at}"
        return Place(where, found.allocated is True)

    def _is_slab(self, head: Object) -> bool:
        mapcount = self._member(head, "_mapcount", signed=True)
        if "slab" in self._layout.flags(self._member(head, "flags")):
            return True
        try:
            return self._types.get(mapcount >> 24 & 0xFF) == "slab"
        except LookupError:
            return mapcount == vmcoreinfo_number(self._prog, "PAGE_SLAB_MAPCOUNT_VALUE")

    def _in_slab_page(self, physical: int) -> Optional[Place]:
        """Without the variables that drgn asks for: the cache and the object, but not whether that is in use."""
        head = self._head(physical)
        if not self._is_slab(head):
            return None
        try:
            cache = _slab_cache(head)
            first = (int(head) - self._layout.vmemmap) // self._layout.page_size * self._frame
            offset = (physical - first) % int(cache.size)
            address = self._virtual(physical)
            name = text_at(self._prog, int(cache.name), _NAME_MAX)
            return self._object(SlabObject(address - offset, name, None), address)
        except _ERRORS:
            return Place("object of the slab allocator, of a cache that is not told", False)

    @cached_property
    def _types(self) -> dict[int, str]:
        """Top byte of _mapcount -> name of the page type."""
        # Since commit 4ffca5a96678 ("mm: support only one page_type per page") (in v6.12).
        each = self._prog.type("enum pagetype").enumerators or ()
        return {e.value: e.name[5:] for e in each if e.name.startswith("PGTY_")}

    def _of_a_type(self, physical: int) -> Optional[Place]:
        mapcount = self._member(self._head(physical), "_mapcount", signed=True)
        # What dumps are filtered by says what a free page looks like, in every kernel.
        if mapcount == vmcoreinfo_number(self._prog, "PAGE_BUDDY_MAPCOUNT_VALUE"):
            return Place(_FREE, False)
        if mapcount >= self._layout.spec["page_type_limit"]:
            return None
        try:
            name = self._types.get(mapcount >> 24 & 0xFF)
        except LookupError:
            name = None
        if name is None:
            return Place(f"page of the kernel's, of type {mapcount & 0xFFFFFFFF:#x}", False)
        return Place(_TYPE_NAMES.get(name, f"page of type {name}"), name != "buddy")

    def _of_users(self, physical: int) -> Optional[Place]:
        if not self._member(self._head(physical), "mapping"):
            return None
        return Place("user memory or page cache", False)

    def _unused(self, physical: int) -> Optional[Place]:
        head = self._head(physical)
        if self._member(head, "_refcount", signed=True) or self._is_reserved(head):
            return None
        return Place(_FREE, False)

    def _is_reserved(self, page: Object) -> bool:
        return "reserved" in self._layout.flags(self._member(page, "flags"))

    def _reserved(self, physical: int) -> Optional[Place]:
        if not self._is_reserved(self._head(physical)):
            return None
        return Place("memory reserved at boot", False)

    # Who has mapped the frame.

    @cached_property
    def _stack_size(self) -> int:
        return stack_size(self._prog)

    @cached_property
    def _stacks(self) -> dict[int, _Stack]:
        """Frames that were asked for -> whose stack they are."""
        found: dict[int, _Stack] = {}
        for task in _for_a_while(for_each_task(self._prog)):
            stack = int(task.stack)
            for address in range(stack, stack + self._stack_size, self._frame):
                try:
                    frame = physical_address(self._prog, address) >> self._layout.page_shift
                except FaultError:
                    continue
                if frame in self._frames:
                    found[frame] = _Stack(task, address)
        return found

    def _in_stack(self, physical: int) -> Optional[Place]:
        stack = self._stacks.get(physical >> self._layout.page_shift)
        if stack is None:
            return None
        address = stack.address + physical % self._frame
        task = stack.task
        name = f"stack of {text_of(task.comm.string_())} (pid {int(task.pid)})"
        trace = call_trace(self._prog, task)
        if not trace:
            return Place(f"{name}, which may have left that part of it", False)
        if address < self._sp(trace[0]):
            return Place(f"{name}, in a part that it has left", False)
        # Each frame begins where the one that it called ends; a system call's caller has another stack.
        start = int(task.stack)
        inner = [f.name for f in trace if start <= self._sp(f) <= address]
        return Place(f"{name}, in {inner[-1]}" if inner and inner[-1] else name, True)

    @staticmethod
    def _sp(frame: StackFrame) -> int:
        """Where a frame begins; above all stacks, where that is not known."""
        try:
            return int(frame.sp)
        except _ERRORS:
            return 1 << 64

    @cached_property
    def _stack_callers(self) -> set[int]:
        """Who allocates stacks: of tasks that are gone, some are kept for the next ones."""
        callers = set()
        for task in islice(for_each_task(self._prog), 1):
            callers.add(int(task.stack_vm_area.caller))
        return callers

    def _pages_of(self, area: Object) -> list[int]:
        """Frames of a vmalloc area that were asked for."""
        count = int(area.nr_pages)
        if not area.pages or not 0 < count <= _AREA_PAGES_MAX:
            return []
        form = f"{'<' if self._little else '>'}{count}{self._word}"
        pages = struct.unpack(form, self._prog.read(int(area.pages), struct.calcsize(form)))
        vmemmap, size = self._layout.vmemmap, self._layout.page_size
        return [(page - vmemmap) // size for page in self._wanted.intersection(pages)]

    @cached_property
    def _wanted(self) -> set[int]:
        """Struct pages of the frames that were asked for."""
        return {self._layout.page_address(frame) for frame in self._frames}

    @cached_property
    def _areas(self) -> dict[int, Place]:
        """Frames that were asked for -> the vmalloc area that they are of."""
        found: dict[int, Place] = {}
        for vmap_area in _for_a_while(for_each_vmap_area(self._prog)):
            try:
                area = vmap_area.vm.read_()
                frames = self._pages_of(area) if area else []
                place = self._area_place(area) if frames else _NOT_TOLD
            except _ERRORS:
                continue
            found.update(dict.fromkeys(frames, place))
        return found

    def _area_place(self, area: Object) -> Place:
        caller = int(area.caller)
        try:
            is_stack = caller in self._stack_callers
        except _ERRORS:
            is_stack = False
        if is_stack:
            return Place("stack of no task: of one that is gone, or of an idle CPU", False)
        return Place(f"vmalloc area of {self._symbol(caller).partition('+')[0]}", True)

    def _in_vmalloc(self, physical: int) -> Optional[Place]:
        return self._areas.get(physical >> self._layout.page_shift)

    @cached_property
    def _memmap(self) -> list[tuple[int, int]]:
        """Where the memmap lies: (virtual, physical) of its steps, for everything that has an address."""
        unit = self._frame * _MEMMAP_STEP // self._layout.page_size
        first = (r for r in read_resources(self._prog) if not r.depth)
        addresses = (
            self._layout.page_address(at >> self._layout.page_shift)
            for r in first
            for at in range(r.start // unit * unit, r.end + 1, unit)
        )
        steps = []
        for address in islice(_for_a_while(addresses), _MEMMAP_STEPS):
            try:
                steps.append((address, physical_address(self._prog, address)))
            except FaultError:
                continue
        return steps

    def _in_memmap(self, physical: int) -> Optional[Place]:
        layout = self._layout
        for virtual, first in self._memmap:
            address = virtual + physical - first
            if not 0 <= physical - first < _MEMMAP_STEP:
                continue
            if physical_address(self._prog, address) == physical:
                pfn = (address - layout.vmemmap) // layout.page_size
                return Place(f"struct page memmap: struct page of pfn {pfn:#x}", False, address)
        return None
