"""A guest of the user's own: what is asked for, looked at as a whole, and put where all hosts see it.

Everything that is wrong is said at once. What belongs to the VM is copied into its directory, so that the files that
were named can be moved, changed or removed afterwards; disks that are to stay where they are, are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from refimpl.app import seed, vm_disks
from refimpl.app.kernel_file import require_kernel
from refimpl.app.vm_disks import Image
from refimpl.hosts.command import replace_file
from refimpl.model.errors import Problem, RefimplError, error

T = TypeVar("T")

REFUSED_DEVICES = {
    "--vtpm": ("a virtual TPM", "its state stands on its host and would not be there at the destination"),
    "--host-device": ("a device of its host", "the destination has another one, in another state"),
    "--shared-folder": ("a folder of its host", "the process that serves it holds open files that do not move"),
}
"""What would tie a VM to its host, by option: refused by name rather than found out at the move."""


@dataclass(frozen=True, slots=True)
class NicWish:
    """A network adapter that is asked for: the virtual switch, and its MAC address if one was named."""

    switch: str
    mac: str | None = None


@dataclass(frozen=True, slots=True)
class OwnGuest:
    """What a guest of the user's own is to be made of.

    `disks` after the boot disk: a file, or a size in MiB. `nics` None: one on the host's virtual switch.
    """

    image: Path | None = None
    in_place: bool = False
    disks: tuple[Path | int, ...] = ()
    kernel: Path | None = None
    initrd: Path | None = None
    append: str = ""
    nics: tuple[NicWish, ...] | None = None
    uefi: bool = False
    user_data: Path | None = None
    network_config: Path | None = None
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Examined:
    """The same after it was looked at: disks in their order (the image first), and what the seed is to hold."""

    wish: OwnGuest
    disks: tuple[Image | int, ...]
    user_data: bytes | None
    network_config: bytes | None

    @property
    def kept(self) -> tuple[str, ...]:
        """Return the paths of disks that stay where they are."""
        return tuple(str(disk.path) for disk in self.disks if isinstance(disk, Image)) if self.wish.in_place else ()


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the parts of a guest are now, the same for all hosts; None: it has no such part."""

    disks: tuple[Image, ...]
    kernel: Path | None
    initrd: Path | None
    dvd: Path | None
    nvram: Path | None


@dataclass(slots=True)
class _Findings:
    """Gathers problems instead of stopping at the first."""

    problems: list[Problem] = field(default_factory=list)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        try:
            yield
        except RefimplError as failure:
            self.problems += failure.problems

    def of(self, work: Callable[[], T]) -> T | None:
        with self.gathered():
            return work()
        return None


def examine(wish: OwnGuest, vm: str, shared: Path) -> Examined:
    """Look at everything that was named. RefimplError with all problems at once. Nothing is changed."""
    findings = _Findings()
    for option in wish.refused:
        device, detail = REFUSED_DEVICES[option]
        findings.problems.append(
            Problem("vm.device_refused", {"vm": vm, "device": device, "detail": detail, "option": option})
        )
    named = (*((wish.image,) if wish.image is not None else ()), *wish.disks)
    disks = [findings.of(lambda d=disk: _disk(d, wish, vm, shared)) for disk in named]  # type: ignore[misc]
    if wish.kernel is not None:
        kernel = wish.kernel
        findings.of(lambda: require_kernel(kernel, vm))
    if wish.initrd is not None:
        initrd = wish.initrd
        findings.of(lambda: vm_disks.require_file(initrd, "initial RAM disk", vm))
    user_data = network = None
    if wish.user_data is not None:
        path = wish.user_data
        user_data = findings.of(lambda: seed.read_user_data(path, vm))
    if wish.network_config is not None:
        config = wish.network_config
        network = findings.of(lambda: seed.read_network_config(config, vm))
    if findings.problems:
        raise RefimplError(*findings.problems)
    return Examined(wish, tuple(disk for disk in disks if disk is not None), user_data, network)


def put(examined: Examined, folder: Path, vm: str, vm_id: str) -> Placed:
    """Put everything into the VM's directory, which has to be empty: `vm.copy_failed`."""
    wish = examined.wish
    kernel = vm_disks.copy_file(wish.kernel, folder / "kernel", "kernel", vm) if wish.kernel else None
    initrd = vm_disks.copy_file(wish.initrd, folder / "initrd", "initial RAM disk", vm) if wish.initrd else None
    return Placed(
        disks=tuple(_put(disk, number, examined, folder, vm) for number, disk in enumerate(examined.disks, 1)),
        kernel=kernel,
        initrd=initrd,
        dvd=_put_seed(examined, folder / "seed.iso", vm, vm_id),
        nvram=folder / "nvram.fd" if wish.uefi else None,
    )


def _disk(disk: Path | int, wish: OwnGuest, vm: str, shared: Path) -> Image | int:
    if isinstance(disk, int):
        return disk
    image = vm_disks.examine(disk, "disk", vm)
    if wish.in_place and not image.path.is_relative_to(shared.resolve()):
        raise error("vm.image_not_shared", path=str(disk), directory=str(shared))
    return image


def _put(disk: Image | int, number: int, examined: Examined, folder: Path, vm: str) -> Image:
    if isinstance(disk, int):
        return vm_disks.make(disk, folder / f"disk{number}.raw", vm)
    if examined.wish.in_place:
        return disk
    return vm_disks.copy(disk, folder / f"disk{number}.{disk.format}", vm)


def _put_seed(examined: Examined, path: Path, vm: str, vm_id: str) -> Path | None:
    if examined.user_data is None:
        return None
    try:
        replace_file(path, seed.seed(examined.user_data, examined.network_config, vm=vm, vm_id=vm_id), 0o600)
    except OSError as failure:
        raise error("vm.copy_failed", what="seed", vm=vm, detail=str(failure), directory=str(path.parent)) from failure
    return path
