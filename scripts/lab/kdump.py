# SPDX-License-Identifier: LGPL-2.1-or-later
"""The scenario `kdump`: the guest panics, its crash kernel saves /proc/vmcore to a disk.

Owns the disks of that, which commands the crash kernel runs, and what comes out: core.NAME beside the
core that QEMU made of the same machine a moment before. What happens inside is guest/init's business:
it loads the crash kernel before it says READY, the panic comes from here as a non-maskable interrupt.
Keep: the crash kernel sees no device of the scenario but through /proc/vmcore.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from pathlib import Path
from typing import Any

LAB = Path(os.environ.get("LAB", "lab-out")).resolve()
GIB = 1 << 30
DISK_SIZE = 6 * GIB  # sparse
WORDS = ["crashkernel=256M"]
MEM = 512  # MiB more than the scenario needs: the crash kernel's, and what it is cut from

# name: what the crash kernel runs; the core is called core.NAME. makedumpfile is the machine's, which may
# lose kernel memory at -d31; makedumpfile/run is build-makedumpfile.sh's.
COMMANDS = {
    "kdump-d31": "/makedumpfile/run -c -d31 /proc/vmcore {core}",
    "kdump-machine-d31": "makedumpfile -c -d31 /proc/vmcore {core}",
    "kdump-d23": "makedumpfile -l -d23 /proc/vmcore {core}",
    "kdump-raw": "dd if=/proc/vmcore of={core} bs=1M",
}


def _commands() -> dict[str, str]:
    """What this lab's initramfs can run."""
    built = (LAB / "makedumpfile/run").exists()
    return {
        name: line.format(core=f"/mnt/core.{name}")
        for name, line in COMMANDS.items()
        if built or not line.startswith("/makedumpfile/")
    }


def _make_disk(out: Path) -> Path:
    content, disk = out / "dump.d", out / "dump.img"
    content.mkdir()
    lines = [f"{name} {line}" for name, line in _commands().items()]
    (content / "commands").write_text("\n".join(lines) + "\n")
    with disk.open("wb") as file:
        file.truncate(DISK_SIZE)
    subprocess.run(["/sbin/mkfs.ext4", "-q", "-F", "-d", content, disk], check=True)
    (content / "commands").unlink()
    content.rmdir()
    return disk


def arguments(out: Path, kernel: Path, initrd: Path) -> list[str]:
    """QEMU arguments: what the guest loads for the time after the panic, and where that writes."""
    disks = {"kernel": kernel, "initrd": initrd, "dump": _make_disk(out)}
    words = []
    for name, path in disks.items():
        read_only = "off" if name == "dump" else "on"
        words += ["-drive", f"if=none,id={name},format=raw,readonly={read_only},file={path}"]
        words += ["-device", f"virtio-blk-pci,drive={name},serial={name}"]
    return words


def crash(qmp: Any, process: subprocess.Popen[bytes], out: Path, timeout: int) -> dict[str, Any]:
    """Let the stopped guest go on, panic it, wait for the crash kernel's end, take the cores out."""
    start = time.time()
    qmp.command("cont")
    qmp.command("inject-nmi")
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout)
    console = (out / "console.log").read_text(errors="replace")
    found = re.findall(r"^LAB [\d.]+ CAPTURED (\S+) (\d+): (.*)", console, re.M)
    cores: dict[str, dict[str, Any]]
    cores = {name: {"status": int(rc), "said": said.strip()} for name, rc, said in found}
    if not re.search("CAPTURE-END", console):
        return {"failed": "the crash kernel did not finish", "cores": cores}
    for name, core in cores.items():
        core |= _take_out(out / "dump.img", out / f"core.{name}")
    (out / "dump.img").unlink()
    lost = [name for name in _commands() if cores.get(name, {}).get("status") != 0]
    failed = f"the crash kernel could not save {', '.join(lost)}" if lost else None
    return {"s": round(time.time() - start, 1), "failed": failed, "cores": cores}


def _take_out(disk: Path, core: Path) -> dict[str, int]:
    subprocess.run(
        ["/sbin/debugfs", "-R", f"dump {core.name} {core}", disk], check=True, capture_output=True
    )
    subprocess.run(["fallocate", "-d", core], check=True)
    status = core.stat()
    return {"size": status.st_size, "on_disk": status.st_blocks * 512}
