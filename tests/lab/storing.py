"""A guest whose disks are on its host's own storage, and what the tests of such moves look at."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from refimpl.backends.libvirt import vms
from refimpl.backends.libvirt.domain import DiskSpec, VmSpec
from refimpl.guest.image import build
from refimpl.guest.parameters import GuestParameters
from refimpl.meter.disk import disk_verdict
from refimpl.meter.verdict import State
from refimpl.model.group import Group, HostEntry
from refimpl.model.outcome import Outcome
from refimpl.model.storage import StorageWish
from tests.lab.libvirt_support import DISK_MIB, MARKER, host_of, made_lab, placed, wait_for_lines
from tests.lab.moving import Moving, joined_log

NAME = "vault"
RAW = "vault.raw"


class Storing(Moving):
    """A guest with two disks on its host's own storage: one that it writes, and one that is based on another file."""

    def local(self, host: str) -> Path:
        """Return the own storage of a host, as it is seen here."""
        return Path(host_of(self.group, host).local_directory)

    def files(self, host: str) -> set[str]:
        """Return what lies on the own storage of a host."""
        return {str(path.relative_to(self.local(host))) for path in self.local(host).rglob("*") if path.is_file()}

    def take(self, **wish: Any) -> Outcome:
        """Move the VM with its disks, and wait for the end."""
        changes = {name: wish.pop(name) for name in ("encryption", "bandwidth_mib_s") if name in wish}
        return self.start(**changes, storage=StorageWish(**({"include": True} | wish))).wait()

    def seen_here(self, path: str, host: str) -> str:
        """Return where a file of a host's own storage is seen here."""
        return str(self.local(host) / Path(path).name)

    def new_directory(self, host: str) -> str:
        """Make another directory on the own storage of a host, and return its path there."""
        name = f"to-{uuid.uuid4().hex[:8]}"
        (self.local(host) / name).mkdir()
        return f"{host_of(self.group, host).storage_directories[0]}/{name}"

    def whole_disk(self, path: Path) -> None:
        """Every write that the guest was told is done is in a file."""
        log = joined_log(self)
        verdict = disk_verdict(log, path, boot=log.boots[-1])
        assert verdict.state is State.OK, verdict

    def whole(self) -> None:
        """The guest works, and nothing that an operation made for itself is left."""
        super().whole()
        for host in self.group.hosts:
            assert not [name for name in self.files(host.name) if ".refimpl-" in name]


@contextmanager
def storing_guest(directory: Path, format: str = "raw", **told: Any) -> Iterator[Storing]:
    """Make a lab with one such guest. `told`: what its guest is told to do besides."""
    with made_lab() as lab, placed(lab) as group:
        yield Storing(lab, make_storing(group, host_of(group, "h1"), format=format, **told), directory)


def make_storing(
    group: Group, host: HostEntry, more_disks: tuple[DiskSpec, ...] = (), format: str = "raw", **told: Any
) -> VmSpec:
    """Create the VM with a disk that its guest writes, start it, and wait until it works."""
    image, name = build(), f"{NAME}.{format}"
    disk = Path(host.local_directory) / name
    subprocess.run(["qemu-img", "create", "-q", "-f", format, str(disk), f"{DISK_MIB}M"], check=True)
    parameters = GuestParameters(**{"address": "10.90.2.51/24", "marker": MARKER, **told})
    spec = VmSpec(
        NAME,
        "5a3c7f0e-3d1b-4a52-9d7e-0c5a6c1e9a51",
        128,
        f"{host.storage_directories[0]}/{name}",
        str(image.kernel),
        str(image.initramfs),
        parameters.command_line(),
        disk_format=format,
        more_disks=more_disks,
    )
    vms.create(group, host, spec)
    vms.start(host, NAME)
    wait_for_lines(host, NAME, 50)
    return spec
