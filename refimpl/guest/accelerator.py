"""Whether KVM runs the guest here: found out by booting the guest's own kernel on the machine type that VMs get,
not by the device being there.

The answer is kept for this boot of the machine, beside the guest's image.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from refimpl.backends.libvirt.domain import MACHINE
from refimpl.guest.image import GuestImage, build, cache_directory
from refimpl.guest.parameters import GuestParameters
from refimpl.hosts.process import boot_id
from refimpl.hosts.wait import until

DEVICE = Path("/dev/kvm")
DEADLINE_S = 20.0
_PROGRAM = "qemu-system-x86_64"
_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class KvmProbe:
    """Whether KVM boots the guest, and why that is believed."""

    usable: bool
    why: str


def probe(cache: Path | None = None) -> KvmProbe:
    """Return whether KVM boots the guest, found out once per boot of the machine (at most `DEADLINE_S` seconds)."""
    device = _device_fault()
    if device is not None:
        return KvmProbe(False, device)
    image = build(cache)
    kept = (cache or cache_directory()) / f"kvm-{boot_id()}-{MACHINE}-{image.version}.json"
    try:
        return KvmProbe(**json.loads(kept.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        pass
    found = boot_with_kvm(image)
    for old in kept.parent.glob("kvm-*.json"):
        old.unlink(missing_ok=True)
    kept.write_text(json.dumps(asdict(found)), "utf-8")
    return found


def boot_with_kvm(image: GuestImage, deadline_s: float = DEADLINE_S, program: str = _PROGRAM) -> KvmProbe:
    """Boot the guest with KVM and wait for its first line, at most so many seconds."""
    with tempfile.TemporaryDirectory(prefix="refimpl-kvm-") as directory:
        lines = Path(directory) / "lines"
        command = [program, *_arguments(image, lines)]
        begin = time.monotonic()
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
        except OSError as failure:
            return KvmProbe(False, f"QEMU cannot be started: {failure}")
        try:
            until(lambda: _said(lines) or process.poll() is not None, deadline_s, _PAUSE_S)
            heard = _said(lines)
        finally:
            process.kill()
            _, said = process.communicate()
    took_ms = (time.monotonic() - begin) * 1000
    if heard:
        return KvmProbe(True, f"the guest's own kernel booted with KVM in {took_ms:.0f} ms")
    reason = said.decode(errors="replace").strip().splitlines()[-1:] or [f"nothing was heard within {deadline_s:g} s"]
    return KvmProbe(False, f"{DEVICE} is there, but the guest's own kernel does not boot with it: {reason[0]}")


def _said(lines: Path) -> bool:
    return lines.exists() and lines.stat().st_size > 0


def _arguments(image: GuestImage, lines: Path) -> list[str]:
    command_line = GuestParameters(writer_working_set_mib=1, disk_period_ms=0).command_line()
    return [
        # The CPU is what libvirt's host-model is made from; what it makes of it, only libvirt itself can say.
        *f"-machine {MACHINE},accel=kvm -cpu host -m 128 -nodefaults -no-user-config -display none".split(),
        *("-kernel", str(image.kernel), "-initrd", str(image.initramfs), "-append", command_line),
        *("-serial", "null", "-serial", f"file:{lines}"),
    ]


def _device_fault() -> str | None:
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except OSError as failure:
        return f"{DEVICE} cannot be opened ({failure.strerror})"
    return None
