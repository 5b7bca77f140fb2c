"""How each fault is done: what it finds out first, what undoes it, and the one short act.

Processes are found by the lab's records and a host's pid namespace, never by their names on the machine; what is found
is held as a `ProcessRef`, so that no other process can be struck in its place.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from refimpl.backends.libvirt.status import STATUS_DIRECTORY, read_status
from refimpl.faults.target import Place, Target
from refimpl.hosts import process
from refimpl.hosts.namespace import NamespaceChannel, enter_host
from refimpl.hosts.wait import until
from refimpl.lab import Lab, LabError
from refimpl.lab.faultbook import FaultBook, Undo, UndoKind
from refimpl.lab.host import LIBVIRTD, VIRTLOCKD
from refimpl.lab.links import Direction
from refimpl.lab.reaper import carriers
from refimpl.lab.tools import run_tool
from refimpl.model.group import HostEntry, ProcessRef

OPERATION_VARIABLE = "REFIMPL_OPERATION"
"""In the environment of every conductor: which operation it conducts."""

_DISK_BYTES = 64 << 10
_STANDING = frozenset("TtZXx")
_STANDS_S, _POLL_S = 2.0, 0.0005


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault that is ready: what it strikes in words, the act, and what undoes it, in this order."""

    target: str
    act: Callable[[], None]
    undo: tuple[Undo, ...] = ()


Ready = Callable[[Lab, Target, str], Strike]
"""Makes a strike ready in a lab, under the id that it is registered by. LabError or OSError when it cannot be."""


def qemu(lab: Lab, host: str, vm: str) -> ProcessRef:
    """Return the QEMU process of a VM on a host. LabError `fault.no_process` when there is none."""
    entry = _entry(lab, host)
    channel = NamespaceChannel(entry.channel.init)
    status = read_status(channel, vm)
    outer = channel.outer_pid(status.pid) if status is not None and status.pid else None
    if outer is None:
        names = channel.run(["find", STATUS_DIRECTORY, "-maxdepth", "1", "-name", "*.xml", "-printf", "%f\n"]).stdout
        known = ", ".join(sorted(name.removesuffix(".xml") for name in names.splitlines())) or "none"
        raise LabError("fault.no_process", process=f"QEMU of VM {vm!r}", host=host, lab=lab.name, known=known)
    return process.here(outer)


def daemon(lab: Lab, host: str, name: str) -> ProcessRef:
    """Return a running daemon of a host. LabError `fault.no_process` when it does not run."""
    found = lab.daemon(host, name)
    if found is None:
        running = [each for each in (LIBVIRTD, VIRTLOCKD) if lab.daemon(host, each) is not None]
        known = ", ".join(running) or "none"
        raise LabError("fault.no_process", process=name, host=host, lab=lab.name, known=known)
    return found


def conductor(lab: Lab, operation: str = "") -> ProcessRef:
    """Return the conductor of an operation, or of the only one that runs. LabError `fault.no_move`."""
    found = {p: process.environment_value(p, OPERATION_VARIABLE) for p in carriers(lab.id)}
    wanted = [p for p, id in found.items() if id and id.startswith(operation)]
    # A program that a conductor has started carries the same; the conductor is the one that none of these started.
    leading = [p for p in wanted if _parent(p) not in wanted]
    if len(leading) != 1:
        running = ", ".join(sorted({id for id in found.values() if id})) or "none"
        raise LabError("fault.no_move", lab=lab.name, running=running)
    return process.here(leading[0])


def _parent(pid: int) -> int | None:
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def _state(pid: int) -> str:
    fields = _stat(pid)
    return fields[0] if fields else "X"


def _stat(pid: int) -> list[str]:
    """Return the fields of a process behind its name, nothing when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return []


def _frozen(ref: ProcessRef, target: str) -> Strike:
    return Strike(target, partial(_freeze, ref), (Undo(UndoKind.THAW, {"process": ref.to_json()}),))


def _freeze(ref: ProcessRef) -> None:
    """Stop a process and wait until it stands: the signal is taken when its thread comes to it."""
    if process.send_signal(ref, signal.SIGSTOP):
        until(lambda: _state(ref.pid) in _STANDING, _STANDS_S, _POLL_S)


def _killed(ref: ProcessRef, target: str, undo: tuple[Undo, ...] = ()) -> Strike:
    def act() -> None:
        process.kill(ref)

    return Strike(target, act, undo)


def _kill_qemu(lab: Lab, target: Target, _id: str) -> Strike:
    return _killed(qemu(lab, target.host, target.vm), f"QEMU of VM {target.vm!r} on host {target.host}")


def _freeze_qemu(lab: Lab, target: Target, _id: str) -> Strike:
    return _frozen(qemu(lab, target.host, target.vm), f"QEMU of VM {target.vm!r} on host {target.host}")


def _kill_daemon(name: str, kind: UndoKind) -> Ready:
    def ready(lab: Lab, target: Target, _id: str) -> Strike:
        ref = daemon(lab, target.host, name)
        undo = Undo(kind, {"host": target.host, "process": ref.to_json()})
        return _killed(ref, f"{name} of host {target.host}", (undo,))

    return ready


def _freeze_daemon(name: str) -> Ready:
    return lambda lab, target, _id: _frozen(daemon(lab, target.host, name), f"{name} of host {target.host}")


def _kill_conductor(lab: Lab, target: Target, _id: str) -> Strike:
    return _killed(conductor(lab, target.operation), f"conductor of operation {target.operation or '(the only one)'}")


def _freeze_conductor(lab: Lab, target: Target, _id: str) -> Strike:
    return _frozen(conductor(lab, target.operation), f"conductor of operation {target.operation or '(the only one)'}")


def _link(lab: Lab, target: Target, act: Callable[[], None]) -> Strike:
    before = lab.link(target.host, target.network).state()
    values = {"host": target.host, "network": target.network, "up": before.up, "rate_mbit_s": before.rate_mbit_s}
    return Strike(_link_name(target), act, (Undo(UndoKind.LINK, values),))


def _link_down(lab: Lab, target: Target, _id: str) -> Strike:
    return _link(lab, target, lab.link(target.host, target.network).cut)


def _link_slow(lab: Lab, target: Target, _id: str) -> Strike:
    return _link(lab, target, partial(lab.link(target.host, target.network).shape, target.rate_mbit_s))


def _link_one_way(lab: Lab, target: Target, _id: str) -> Strike:
    found = lab.link(target.host, target.network)
    way = "to" if target.direction is Direction.TO else "from"
    undo = Undo(UndoKind.ONE_WAY, {"host": target.host, "network": target.network})
    return Strike(f"{_link_name(target)}, {way} the host", partial(found.cut_one_way, target.direction), (undo,))


def _link_name(target: Target) -> str:
    return f"link of host {target.host} to network {target.network}"


def _disk_full(lab: Lab, target: Target, id: str) -> Strike:
    return _over(lab, target, id, "upperdir={disk}/upper,workdir={disk}/work,lowerdir={path}", fill=True)


def _disk_read_only(lab: Lab, target: Target, id: str) -> Strike:
    return _over(lab, target, id, "lowerdir={path}:{disk}/empty", fill=False)


_COVER = r"""
set -eu
tag=$1 path=$2 disk=$3 options=$4 fill=$5 bytes=$6 leases=$7
[ -z "$leases" ] || exec 9<"$leases"
mount -t tmpfs -o "mode=0700,size=$bytes" "$tag" "$disk"
mkdir "$disk/upper" "$disk/work" "$disk/empty"
chmod --reference="$path" "$disk/upper"
[ "$fill" = no ] || dd if=/dev/zero of="$disk/ballast" bs=4096 2>/dev/null || true
mount -t overlay -o "$options" "$tag" "$path"
[ -n "$leases" ] || exit 0
mount --no-canonicalize --bind /proc/self/fd/9 "$leases"
[ "$fill" = yes ] || mount -o remount,bind,ro "$leases"
"""


def _over(lab: Lab, target: Target, id: str, options: str, *, fill: bool) -> Strike:
    """Cover a directory with itself: what is written goes to a disk without room, or nowhere.

    A file system of the machine's cannot be filled, and one that hides what was there would be another fault. Leases
    are not covered: a lock that is taken on a copy of the file is not seen by the other hosts.
    """
    path, host = _path(lab, target), target.host if target.place is Place.SHARED else ""
    book = FaultBook(lab.paths)
    disk = book.directory / f"{id}.disk"
    enter = enter_host(_entry(lab, host).channel.init) if host else []
    named = options.format(disk=_escaped(disk), path=_escaped(path))
    leases = lab.group.lease_directory if target.place is Place.SHARED else ""
    script = ("sh", "-c", _COVER, "sh", book.tag(id), str(path), str(disk), named, "yes" if fill else "no")

    def act() -> None:
        disk.mkdir(mode=0o700, parents=True, exist_ok=True)
        run_tool(*enter, *script, str(_DISK_BYTES), leases, lab_id=lab.id)

    told = f"{target.place} directory {path}" + (f" as host {host} sees it" if host else "")
    return Strike(told, act, (Undo(UndoKind.UNMOUNT, {"host": host, "disk": str(disk)}),))


def _escaped(path: Path) -> str:
    """Return a path as an option of the overlay takes it."""
    return "".join(f"\\{letter}" if letter in "\\:," else letter for letter in str(path))


def _path(lab: Lab, target: Target) -> Path:
    if target.place is Place.HOME:
        if target.home is None:
            raise ValueError("the controller's home has to be named")
        target.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        return target.home
    return lab.paths.store.parent if target.place is Place.STORE else lab.paths.shared


def _entry(lab: Lab, host: str) -> HostEntry:
    found = lab.group.host(host)
    if found is None:
        raise LabError("lab.host_unknown", lab=lab.name, host=host, known=", ".join(h.name for h in lab.group.hosts))
    return found


STRIKES: Mapping[str, Ready] = {
    "kill-qemu": _kill_qemu,
    "freeze-qemu": _freeze_qemu,
    "kill-libvirtd": _kill_daemon(LIBVIRTD, UndoKind.LIBVIRTD),
    "freeze-libvirtd": _freeze_daemon(LIBVIRTD),
    "kill-virtlockd": _kill_daemon(VIRTLOCKD, UndoKind.VIRTLOCKD),
    "freeze-virtlockd": _freeze_daemon(VIRTLOCKD),
    "kill-conductor": _kill_conductor,
    "freeze-conductor": _freeze_conductor,
    "link-down": _link_down,
    "link-one-way": _link_one_way,
    "link-slow": _link_slow,
    "disk-full": _disk_full,
    "disk-read-only": _disk_read_only,
}
"""What each fault of the catalogue does."""
