#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Boot one kernel in QEMU (TCG), wait for the workload, dump guest memory.

usage: boot.py [options] RELEASE SCENARIO[,SCENARIO...]

Owns the virtual machine: its devices, the dump formats, what is kept of a run. Everything goes to
$LAB/cores/RELEASE/NAME/: core.elf, truth.jsonl (the record), console.log, meta.json (command line,
times, sizes). What happens inside the guest is guest/init's business.
Keep: the directory appears only when the dump is complete; a failed run stays in NAME.part.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import elf_fixphdr
import kdump
import live

LAB = Path(os.environ.get("LAB", "lab-out")).resolve()
MIB = 1 << 20
GIB = 1 << 30

# MiB; guest/init finds its regions by these sizes: fsdax map=mem, fsdax map=dev, devdax, 1 GiB devdax
NVDIMMS = (256, 448, 640)
NVDIMM_GIG = 3072
# the same for what churns: ext4 map=mem, xfs map=mem, ext4 map=dev, devdax
CHURN_NVDIMMS = (192, 320, 224, 512)
# the same for what is pinned by devices: devdax
PINS_NVDIMM = 160
# the one of scenario big: xfs map=mem
BIG = 64 * 1024
# device memory starts here as long as the guest has less than 2816 MiB
NVDIMM_BASE = 4 * GIB

# scenario: (QEMU arguments, kernel command line)
EXTRAS: dict[str, tuple[list[str], list[str]]] = {
    "legacy": ([], ["memmap=128M!512M", "memmap=64M!704M"]),
    "p2p": (["-device", "nvme,serial=lab,cmb_size_mb=64,id=nvme0"], []),
    "hmmcoh": (
        [],
        [
            "memmap=256M$1G",
            "memmap=256M$1536M",
            "lab.hmm=spm_addr_dev0=0x40000000,spm_addr_dev1=0x60000000",
        ],
    ),
    "nokaslr": ([], ["nokaslr"]),
    # VFIO asks for an IOMMU that remaps interrupts and keeps caches coherent; edu is some device behind it.
    "pins": (
        ["-device", "intel-iommu,intremap=on,snoop-control=on", "-device", "edu"],
        ["intel_iommu=on"],
    ),
    "kdump": ([], kdump.WORDS),
}


class Qmp:
    """A QEMU machine protocol connection; answers only, events are dropped."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._file = self._socket.makefile("r")
        self._file.readline()
        self.command("qmp_capabilities")

    def command(self, name: str, **arguments: Any) -> dict[str, Any]:
        request = {"execute": name, "arguments": arguments}
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            answer: dict[str, Any] = json.loads(self._file.readline())
            if "event" not in answer:
                return answer


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("release")
    parser.add_argument("scenario")
    parser.add_argument("--name", help="directory below cores/RELEASE (default: the scenarios)")
    parser.add_argument("--mem", type=int, default=1024, help="MiB")
    parser.add_argument(
        "--formats", default="elf", help="formats of dump-guest-memory: elf,kdump-zlib; - for none"
    )
    parser.add_argument("--append", default="", help="more words for the kernel command line")
    parser.add_argument("--timeout", type=int, default=400, help="seconds to wait for the guest")
    parser.add_argument("--qemu", default=os.environ.get("QEMU", "qemu-system-x86_64"))
    parser.add_argument("--cpu", default="max,la57=off")
    parser.add_argument("--no-gig", action="store_true", help="no NVDIMM for 1 GiB pages")
    parser.add_argument(
        "--live-cmd", help="scenario live: shell command to run in a chroot to this machine's root"
    )
    parser.add_argument(
        "--audits", type=int, default=0, help="scenario live: audits from inside (live.py)"
    )
    parser.add_argument("--outside", type=int, default=0, help="audits through QMP (live.py)")
    parser.add_argument(
        "--by-btf", type=int, default=0, help="so many more from both, without debug information"
    )
    return parser.parse_args()


def find_vmlinuz(release: str) -> Path:
    top = LAB / "kernels" / release
    for path in (top / f"boot/vmlinuz-{release}", top / f"usr/lib/modules/{release}/vmlinuz"):
        if path.exists():
            return path
    sys.exit(f"boot.py: no kernel {release} below {LAB}/kernels: run fetch.py {release}")


def nvdimm_sizes(options: argparse.Namespace, scenarios: list[str]) -> list[int]:
    """MiB of each NVDIMM of the scenarios."""
    sizes = list(CHURN_NVDIMMS) if "churn" in scenarios else []
    if "nvdimm" in scenarios:
        sizes += [*NVDIMMS] if options.no_gig else [*NVDIMMS, NVDIMM_GIG]
    if "big" in scenarios:
        sizes.append(BIG)
    return [*sizes, PINS_NVDIMM] if "pins" in scenarios else sizes


def nvdimm_arguments(out: Path, mem: int, sizes: list[int]) -> list[str]:
    """-m and NVDIMM devices backed by sparse files in `out`; sizes in MiB.

    The label area is cut from the end and the rest rounded down: 2 MiB more keep a region of exactly
    that size. Addresses are explicit, because the kernel wants regions aligned to 16 MiB.
    """
    arguments = ["-m", f"{mem}M,slots={len(sizes) + 1},maxmem={mem + sum(sizes) + 16384}M"]
    address = NVDIMM_BASE
    for i, size in enumerate(sizes):
        if size >= NVDIMM_GIG:
            address = (address + GIB - 1) // GIB * GIB
        backing = out / f"nvdimm{i}.img"
        with backing.open("wb") as file:
            file.truncate((size + 2) * MIB)
        memory = (
            f"memory-backend-file,id=nv{i},share=on,mem-path={backing},size={size + 2}M,align=2M"
        )
        device = f"nvdimm,id=nvdimm{i},memdev=nv{i},label-size=128K,slot={i},addr={address:#x}"
        arguments += ["-object", memory, "-device", device]
        address += (size + 16) * MIB
    return arguments


def live_arguments(out: Path, command: str | None) -> tuple[list[str], list[str]]:
    script = out / "live.sh"
    script.write_text(
        f"export HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PATH={os.environ['PATH']}\n{command or 'true'}\n"
    )
    script.chmod(0o755)
    root = os.environ.get("HOSTROOT", "/")
    share = f"local,path={root},security_model=none,readonly=on,mount_tag=host,multidevs=remap"
    return ["-virtfs", share], [f"lab.cmd={script}"]


def guest_command(options: argparse.Namespace, out: Path) -> str | None:
    """What scenario live runs inside of the guest."""
    if options.live_cmd or not options.audits:
        given: str | None = options.live_cmd
        return given
    # guest/init binds its /dev into the chroot: the counters of the churn lie there, too.
    target: list[object] = ["-k", "--counters", "/dev/churn", "-o", "/dev/ttyS1"]
    target += ["--explain", out / "truth.jsonl"]
    series = [shlex.join(words) for words in audit_commands(options, options.audits, target)]
    return f"cd {live.REPO}; export PYTHONPATH={live.REPO}; {' && '.join(series)}"


def audit_commands(
    options: argparse.Namespace, count: int, target: list[object]
) -> list[list[str]]:
    """A series with debug information, and one without."""
    series = [(count, False), (options.by_btf, True)]
    return [live.command(LAB, options.release, n, btf, *target) for n, btf in series if n]


def audit_from_outside(options: argparse.Namespace, out: Path) -> None:
    """Audit the running guest through QMP; what the audits say goes to outside.jsonl."""
    target: list[object] = [
        *("--qemu", out / "qmp", "--record", out / "truth.jsonl", "-o", out / "outside.jsonl"),
        *("--explain", out / "truth.jsonl"),
    ]
    for words in audit_commands(options, options.outside, target):
        subprocess.run(words, env=os.environ | {"PYTHONPATH": str(live.REPO)}, check=True)


def qemu_command(options: argparse.Namespace, out: Path) -> list[str]:
    scenarios = options.scenario.split(",")
    sizes = nvdimm_sizes(options, scenarios)
    append = [
        "console=ttyS0",
        "panic=-1",
        "oops=panic",
        "loglevel=4",
        f"lab.scenario={options.scenario}",
    ]
    command = [
        options.qemu,
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
        "-accel",
        "tcg,thread=multi",
    ]
    command += ["-cpu", options.cpu, "-smp", "2", "-machine", "q35,nvdimm=on" if sizes else "q35"]
    command += ["-device", "vmcoreinfo", "-kernel", str(find_vmlinuz(options.release))]
    command += ["-initrd", str(LAB / f"initramfs/{options.release}.cpio.gz")]
    command += ["-chardev", f"file,id=con,path={out}/console.log", "-serial", "chardev:con"]
    command += ["-chardev", f"file,id=tru,path={out}/truth.jsonl", "-serial", "chardev:tru"]
    command += ["-qmp", f"unix:{out}/qmp,server=on,wait=off"]
    mem = max(options.mem, 2560) if "live" in scenarios else options.mem
    if "kdump" in scenarios:
        mem += kdump.MEM
        initrd = LAB / f"initramfs/{options.release}.cpio.gz"
        command += kdump.arguments(out, find_vmlinuz(options.release), initrd)
    if sizes:
        command += nvdimm_arguments(out, mem, sizes)
    else:
        command += ["-m", f"{mem}M"]
    extras = [EXTRAS[scenario] for scenario in scenarios if scenario in EXTRAS]
    if "live" in scenarios:
        extras.append(live_arguments(out, guest_command(options, out)))
    for arguments, words in extras:
        command += arguments
        append += words
    return [*command, "-append", " ".join([*append, options.append]).strip()]


def wait_ready(process: subprocess.Popen[bytes], console: Path, deadline: float) -> str | None:
    """Wait for the guest's READY; return what went wrong."""
    while True:
        time.sleep(0.3)
        text = console.read_text(errors="replace") if console.exists() else ""
        if re.search(r"^LAB [\d.]+ READY", text, re.M):
            return None
        if "Kernel panic" in text:
            return "panic"
        if process.poll() is not None:
            return "exit"
        if time.time() > deadline:
            return "timeout"


def dump(qmp: Qmp, out: Path, name: str) -> dict[str, Any]:
    path = out / f"core.{name.removeprefix('kdump-')}"
    start = time.time()
    answer = qmp.command("dump-guest-memory", protocol=f"file:{path}", paging=False, format=name)
    result = {"s": round(time.time() - start, 1), "error": answer.get("error", {}).get("desc")}
    if path.exists():
        path.chmod(0o644)
        if name == "elf":
            # QEMU writes zero pages out
            subprocess.run(["fallocate", "-d", path], check=True)
            elf_fixphdr.fix(path)
        status = path.stat()
        result |= {"size": status.st_size, "on_disk": status.st_blocks * 512}
    return result


def dump_all(qmp: Qmp, out: Path, formats: str) -> dict[str, Any]:
    qmp.command("stop")
    return {name: dump(qmp, out, name) for name in formats.split(",") if name != "-"}


def failure_of(dumps: dict[str, Any]) -> str | None:
    """What QEMU said of the dumps that did not come about; None for nothing."""
    return "; ".join(d["error"] for d in dumps.values() if d["error"]) or None


def run(options: argparse.Namespace, out: Path) -> dict[str, Any]:
    start = time.time()
    command = qemu_command(options, out)
    meta: dict[str, Any] = {
        "release": options.release,
        "scenario": options.scenario,
        "command": command,
    }
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        meta["failed"] = wait_ready(process, out / "console.log", start + options.timeout)
        meta["ready_s"] = round(time.time() - start, 1)
        if process.poll() is None:
            if options.outside and not meta["failed"]:
                audit_from_outside(options, out)
            qmp = Qmp(out / "qmp")
            meta["dumps"] = dump_all(qmp, out, options.formats)
            meta["failed"] = meta["failed"] or failure_of(meta["dumps"])
            if "kdump" in options.scenario.split(",") and not meta["failed"]:
                meta["kdump"] = kdump.crash(qmp, process, out, options.timeout)
                meta["failed"] = meta["kdump"]["failed"]
            else:
                qmp.command("quit")
                process.wait(30)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    meta["total_s"] = round(time.time() - start, 1)
    return meta


def reached_init(out: Path) -> bool:
    """Whether the guest's own programs ran at all."""
    console = out / "console.log"
    return console.exists() and "LAB " in console.read_text(errors="replace")


def run_again(options: argparse.Namespace, out: Path) -> dict[str, Any]:
    """run(), once more where the kernel died on its way up: TCG trips over a text that is being patched."""
    meta = run(options, out)
    if meta["failed"] in ("panic", "exit") and not reached_init(out):
        first = meta["failed"]
        (out / "console.log").rename(out / "console-first.log")
        print(f"boot.py: {options.release}: {first} before init; booted again", file=sys.stderr)
        meta = run(options, out) | {"first": first}
    return meta


def main() -> None:
    options = parse_arguments()
    final = LAB / "cores" / options.release / (options.name or options.scenario.replace(",", "-"))
    out = final.with_name(final.name + ".part")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    meta = run_again(options, out)
    for path in [*out.glob("nvdimm*.img"), *out.glob("qmp")]:
        path.unlink()
    (out / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")
    print(
        json.dumps(
            {
                key: meta.get(key)
                for key in ("release", "scenario", "failed", "ready_s", "total_s", "dumps", "kdump")
            }
        )
    )
    if meta["failed"]:
        sys.exit(1)
    shutil.rmtree(final, ignore_errors=True)
    out.rename(final)


if __name__ == "__main__":
    main()
