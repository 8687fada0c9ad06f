#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes the seeds of the fuzz targets out of the bundled cores: tests/corpus/TARGET/NAME.

usage: fuzz_corpus.py [OUT]         (default: tests/corpus; PYTHONPATH must lead to zonedev)

Seeds are small: the headers of a core, and some struct pages of each kind with the layout that they have.
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import Any, Optional

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "scripts")]

from btf_samples import Writer, every_kind, split  # noqa: E402
from conftest import VMCORES, open_vmcore  # noqa: E402
from drgn import Program  # noqa: E402
from dump_files import FLAT_END, write_elf, write_kdump  # noqa: E402
from kallsyms_samples import BASE, SYMBOLS, sample  # noqa: E402
from kallsyms_samples import FORMATS as KALLSYMS_FORMATS  # noqa: E402
from page_compression import FORMATS  # noqa: E402

from zonedev import _zonedev  # noqa: E402
from zonedev.kernel import dax  # noqa: E402
from zonedev.kernel.facts import Kernel  # noqa: E402
from zonedev.model import Pagemap  # noqa: E402

CORES = ("5.10-nvdimm-leak", "6.1-nvdimm-leak", "7.2-p2p-hmm", "7.3-hmm-leak")
ENTRIES_CORES = ("7.2-entries",)
ELF_CORES = ("5.10-bare", "7.2-nvdimm")
KDUMPS = ("6.1-kdump-leak", "7.2-kdump-leak")

# Struct pages of one seed.
PAGES = 24
FILE_PAGES = 48

# Bytes of a file's beginning that hold its headers and notes.
ELF_HEAD = 6 << 10
KDUMP_HEAD = 12 << 10


def layout_bytes(spec: dict[str, Any], zone: tuple[int, int], node: tuple[int, int]) -> bytes:
    """A layout as ext/fuzz/fuzz_scan.c takes it."""
    data = struct.pack(
        "<BBBBBI",
        spec["page_size"],
        spec["word_size"],
        spec["big_endian"] | spec["compound_mask"] << 1,
        spec["page_shift"],
        spec["pmd_order"],
        spec["page_type_limit"] & 0xFFFFFFFF,
    )
    for member in _zonedev.MEMBERS:
        data += struct.pack("<HBB", *spec["fields"].get(member, (0, 0, 0)))
    for flag in _zonedev.FLAGS:
        data += struct.pack("<b", spec["flags"].get(flag, -1))
    return data + struct.pack("<BBBBI", *zone, *node, spec["zone_device"])


def scan_head(kernel: Kernel, pagemap: Pagemap, pfn: int) -> bytes:
    """All that stands before the pages of a seed of fuzz_scan."""
    layout = kernel.layout
    return (
        layout_bytes(layout.spec, layout.zone, layout.node)
        + struct.pack("<BI", _zonedev.SCHEMES.index(kernel.scheme.id), 0)
        + struct.pack(
            "<BBBBBiQ",
            _zonedev.TYPES.index(pagemap.type),
            ("live", "dying", "dead").index(pagemap.ref.state),
            pagemap.vmemmap_shift,
            _zonedev.SEVERITIES.index("error"),
            pagemap.foreign_maps | pagemap.deduplicated << 1,
            -1 if pagemap.node is None else pagemap.node,
            pagemap.address,
        )
        + struct.pack("<QQI", pfn, layout.page_address(pfn), pfn & 0xFFFF)
    )


def telling_pfns(name: str, pagemaps: list[Pagemap]) -> dict[tuple[str, ...], tuple[Pagemap, int]]:
    """Where seeds begin: the first page of each memory type, and of each class and order that the record
    knows of it."""
    pfns: dict[tuple[str, ...], tuple[Pagemap, int]] = {}
    for pagemap in pagemaps:
        pfns.setdefault((pagemap.type,), (pagemap, pagemap.ranges[0].first_pfn))
        for state in open_vmcore(name).states:
            key = (pagemap.type, state["class"], str(state["order"]))
            if pagemap.covers(state["pfn"]):
                pfns.setdefault(key, (pagemap, state["pfn"] // 4 * 4))
    return pfns


def scan_seeds(out: Path) -> None:
    for name in CORES:
        core = open_vmcore(name)
        layout = core.kernel.layout
        for pagemap, pfn in telling_pfns(name, core.kernel.pagemaps).values():
            pages = core.prog.read(layout.page_address(pfn), PAGES * layout.page_size)
            data = scan_head(core.kernel, pagemap, pfn) + pages
            (out / f"{name}-{pfn:x}").write_bytes(data)


class Recorder:
    """Reads a program's memory, and keeps what was read: address -> bytes."""

    def __init__(self, prog: Program) -> None:
        self.read_or_none = dax.memory_reader(prog)
        self.pieces: dict[int, bytes] = {}

    def read(self, address: int, size: int) -> Optional[bytes]:
        data = self.read_or_none(address, size)
        if data is not None:
            self.pieces[address] = data
        return data


def tie_knots(pieces: dict[int, bytes], node: tuple[int, ...], inode: tuple[int, ...]) -> None:
    """The tree's top becomes a child of itself, and the last inode of the list is followed by the first."""
    nodes = [at for at, data in pieces.items() if len(data) == node[0]]
    inodes = [at for at, data in pieces.items() if len(data) == inode[0]]
    for at, place, target in (
        (nodes[0], node[-1] + 8, nodes[0] | 2),
        (inodes[-1], inode[1], inodes[0] + inode[1]),
    ):
        data = pieces[at]
        pieces[at] = data[:place] + struct.pack("<Q", target) + data[place + 8 :]


def entries_seed(
    name: str, walk: dax.DaxWalk, file: dax.DaxFile, with_list: bool, knots: bool
) -> bytes:
    """One file as ext/fuzz/fuzz_entries.c takes it, its first pages, and the list of its inode."""
    core = open_vmcore(name)
    layout, memory = core.kernel.layout, Recorder(core.prog)
    pfn = walk.entries_of(file)[0].pfn
    pagemap = next(one for one in core.kernel.pagemaps if one.covers(pfn))
    specs = dax.node_spec(core.prog), dax.space_spec(core.prog), dax.inode_spec(core.prog)
    entries = _zonedev.Entries(
        layout.layout,
        core.kernel.scheme,
        memory.read,
        **dict(zip(("node", "space", "inode"), specs)),
    )
    entries.add(file.mapping)
    head = file.super_block.inodes if with_list and file.super_block else 0
    if head:
        entries.inodes(head)
    memory.read(layout.page_address(pfn), FILE_PAGES * layout.page_size)
    if knots:
        tie_knots(memory.pieces, specs[0], specs[2])
    numbers = [number for spec in specs for number in spec]
    return (
        scan_head(core.kernel, pagemap, pfn)
        + struct.pack(f"<{len(numbers)}HHQQ", *numbers, FILE_PAGES - 1, file.mapping, head)
        + struct.pack("<HBB", 0, 0, 1)
        + b"".join(struct.pack("<QH", at, len(data)) + data for at, data in memory.pieces.items())
    )


def entries_seeds(out: Path) -> None:
    """Of each core the file of most nodes, with the list of inodes; that of most PMD entries; and the
    first again with cycles."""
    for name in ENTRIES_CORES:
        core = open_vmcore(name)
        walk = dax.DaxWalk(core.prog, core.kernel.layout, core.kernel.scheme)
        tallies = [(walk.count(file), file) for file in walk.files()]
        # Holes have entries without a page.
        tallies = [(tally, file) for tally, file in tallies if not tally["zero"]]
        for kind, member in (("nodes", "nodes"), ("pmd", "pmd"), ("knots", "nodes")):
            file = max(tallies, key=lambda pair: pair[0][member])[1]
            data = entries_seed(name, walk, file, member == "nodes", kind == "knots")
            (out / f"{name}-{kind}").write_bytes(data)


def split_doubling(base: Writer) -> Writer:
    """Types close to the bounds: chains, and structs that have the one below twice."""
    w = Writer(base.order, base)
    for _ in range(40):
        w.refer("ptr", w.next_id - 1)
    w.int("u8", 1)
    for level in range(16):
        w.compound("union", "", 1, ("", w.next_id - 1, 0), ("", w.next_id - 1, level % 8))
    return w


def btf_seeds(out: Path) -> None:
    """BTF and what is split from it, as ext/fuzz/fuzz_btf.c takes them."""
    for name, order, word, make in (
        ("little", "<", 8, split),
        ("big-32-bit", ">", 4, split),
        ("bounds", "<", 8, split_doubling),
    ):
        base = every_kind(order)
        data = base.bytes()
        head = struct.pack("<BI", word == 4, len(data))
        (out / name).write_bytes(head + data + make(base).bytes())


def kallsyms_seeds(out: Path) -> None:
    """Tables of few symbols, as ext/fuzz/fuzz_kallsyms.c takes them."""
    for name in ("7.0", "6.4-per-cpu", "5.10-base", "absolute", "big-endian"):
        form = KALLSYMS_FORMATS[name]
        # The bytes in front of the tables tell nothing.
        front = 4096 - 64
        head = struct.pack("<BQQ", form.order == ">", BASE + front, BASE)
        (out / name).write_bytes(head + sample(form, SYMBOLS[:260] + SYMBOLS[-6:]).image[front:])


def file_seeds(out: Path, names: tuple[str, ...], size: int) -> None:
    for name in names:
        with open(open_vmcore(name).core, "rb") as file:
            (out / name).write_bytes(file.read(size))


def memory_seeds(out: Path) -> None:
    """Small dumps of each kind, with frames that repeat and frames that are not there."""
    frames = [bytes([i]) * 100 + bytes(4096 - 100) for i in (1, 2, 2, 2, 3, 4)]
    write_elf(out / "elf", {0x1000: frames[0]})
    whole = (out / "elf").read_bytes()
    pieces = {4096: whole[4096:], 0: whole[:128]}
    records = [struct.pack(">qq", at, len(data)) + data for at, data in pieces.items()]
    (out / "flat").write_bytes(b"FLAT" + b"".join(records) + FLAT_END)
    places = (0, 0x1000, 0x2000, 0x3000, 0x6000, 0x8000)
    write_kdump(out / "kdump", dict(zip(places, frames)), "zlib", "lzo", "snappy", "zstd")


def expand_seeds(out: Path) -> None:
    """Frames of a memmap: compressed, and as ext/fuzz/fuzz_expand.c makes them anew."""
    core = open_vmcore("7.2-nvdimm")
    layout = core.kernel.layout
    pages = core.kernel.pagemaps[0].ranges[0]
    memmap = core.prog.read(layout.page_address(pages.first_pfn), pages.pages * layout.page_size)
    frames = sorted(
        {memmap[i : i + 4096] for i in range(0, len(memmap), 4096)},
        key=lambda frame: (len(FORMATS["lzo"][1]()(frame)), frame),
    )
    # One that is regular, one of mixed pages, the one that is least like itself.
    frames = [frames[len(frames) // 4], frames[len(frames) * 3 // 4], frames[-1]]
    for number, method in enumerate(("lzo", "snappy", "zstd")):
        compress = FORMATS[method][1]()
        for i, frame in enumerate(frames):
            (out / f"{method}-{i}").write_bytes(bytes([number]) + compress(frame))
    # A whole page, and in place of the end a near match as far away as the end says it is.
    (out / "lzo-no-end").write_bytes(
        bytes([0]) + FORMATS["lzo"][1]()(frames[0])[:-3] + b"\x21\xfc\xff"
    )
    # More literals than a byte can number.
    many = bytes(i * i // 7 % 251 for i in range(600)) * 7
    (out / "zstd-many").write_bytes(bytes([2]) + FORMATS["zstd"][1]()(many[:4096]))
    (out / "page").write_bytes(bytes([3, 32, 1]) + frames[1][:64] + bytes([100, 0, 255, 1, 2, 9]))


def main() -> int:
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "tests" / "corpus"
    for target in ("scan", "entries", "btf", "kallsyms", "elf", "kdump", "memory", "expand"):
        (out / target).mkdir(parents=True, exist_ok=True)
    scan_seeds(out / "scan")
    entries_seeds(out / "entries")
    btf_seeds(out / "btf")
    kallsyms_seeds(out / "kallsyms")
    file_seeds(out / "elf", ELF_CORES, ELF_HEAD)
    with open(VMCORES / "7.2-bare" / "vmlinux", "rb") as file:
        (out / "elf" / "vmlinux").write_bytes(file.read())
    file_seeds(out / "kdump", KDUMPS, KDUMP_HEAD)
    memory_seeds(out / "memory")
    expand_seeds(out / "expand")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
