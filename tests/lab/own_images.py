"""A small guest of one's own, made from packages of the distribution: busybox with a web server, in several forms.

Kernel and modules are those of the built-in guest; a second archive behind its initramfs replaces the program that the
kernel starts. The BIOS image is a file system that SYSLINUX boots, the UEFI one a file system whose script the
firmware's shell runs: neither needs a partition table.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from refimpl.guest.image import build
from refimpl.guest.initramfs import write_cpio

PROGRAMS = {
    "busybox": "busybox-static",
    "mkfs.vfat": "dosfstools",
    "mcopy": "mtools",
    "syslinux": "syslinux",
    "dnsmasq": "dnsmasq-base",
}
"""What is needed, by the package that brings it."""
COMMAND_LINE = "console=ttyS0 quiet panic=1"
_IMAGE_MIB = 40

_INIT = b"""#!/modules/busybox sh
/modules/busybox mkdir -p /bin /www
/modules/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod /modules/$module; done
ip link set lo up
ip link set eth0 up
udhcpc -i eth0 -s /modules/lease -t 50 -T 1 -A 1
echo "boot $(cat /proc/sys/kernel/random/boot_id)" > /www/index.html
exec httpd -f -p 80 -h /www
"""
_LEASE = b"""#!/modules/busybox sh
[ "$1" != bound ] || /modules/busybox ip addr add "$ip/$mask" dev "$interface"
"""


@dataclass(frozen=True, slots=True)
class OwnImages:
    """The guest as kernel and initial RAM disk, as a qcow2 disk for BIOS, and as a raw one for UEFI."""

    kernel: Path
    initrd: Path
    bios: Path
    uefi: Path


def missing() -> list[str]:
    """Return the packages that have to be installed for this, empty when all are there."""
    path = "/usr/sbin:/sbin:/usr/bin:/bin"
    return [package for program, package in PROGRAMS.items() if shutil.which(program, path=path) is None]


def make(directory: Path) -> OwnImages:
    """Make all forms of the guest."""
    built = build()
    kernel, initrd = directory / "vmlinuz", directory / "initrd"
    shutil.copy(built.kernel, kernel)
    busybox = Path(shutil.which("busybox") or "/bin/busybox").read_bytes()
    files = {"init": (_INIT, 0o755), "modules/lease": (_LEASE, 0o755), "modules/busybox": (busybox, 0o755)}
    initrd.write_bytes(built.initramfs.read_bytes() + write_cpio(files))
    bios, uefi, qcow2 = directory / "bios.img", directory / "uefi.img", directory / "bios.qcow2"
    loader = f"DEFAULT own\nLABEL own\n KERNEL vmlinuz\n APPEND initrd=initrd {COMMAND_LINE}\n"
    _file_system(bios, {"vmlinuz": kernel, "initrd": initrd, "syslinux.cfg": _text(directory / "cfg", loader)})
    _run("syslinux", "--install", str(bios))
    _run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(bios), str(qcow2))
    script = f"\\vmlinuz initrd=\\initrd {COMMAND_LINE}\r\n"
    _file_system(uefi, {"vmlinuz": kernel, "initrd": initrd, "startup.nsh": _text(directory / "nsh", script)})
    return OwnImages(kernel, initrd, qcow2, uefi)


def _text(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def _file_system(image: Path, files: dict[str, Path]) -> None:
    with image.open("xb") as file:
        file.truncate(_IMAGE_MIB << 20)
    _run("mkfs.vfat", str(image))
    for name, path in files.items():
        _run("mcopy", "-i", str(image), str(path), f"::{name}")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
