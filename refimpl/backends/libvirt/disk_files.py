"""The files of disks that move with a VM: made at the destination, named in its definition, and removed where they go.

What is done on a host is done there by `imageside`, for as long as one call here takes. The rule about removal is kept
twice: the engine says by its command whose copy is the VM, and the host removes only what is provably meant.
"""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import Any
from xml.etree import ElementTree as ET

from refimpl.backends.libvirt import connection
from refimpl.backends.libvirt.domain import parse
from refimpl.backends.libvirt.look import Look
from refimpl.backends.libvirt.operation import Operation
from refimpl.hosts.channel import HostChannel
from refimpl.hosts.factory import channel_for
from refimpl.model.errors import Problem, Value
from refimpl.model.facts import DiskFact
from refimpl.model.group import HostEntry
from refimpl.model.phase import Side
from refimpl.model.storage import StoragePlan

ASK_TIMEOUT_S = 90.0
_FULL = ("No space left on device", "Disk quota exceeded")
_REFUSALS = {
    "exists": "storage.target_exists",
    "used": "storage.target_used",
    "outside": "storage.outside",
    "no_directory": "storage.no_directory",
    "no_writes": "storage.not_writable",
    "no_room": "storage.full",
}
"""What a host says of an image that it cannot make, and the problem that this is."""


class _Refused(OSError):
    """A host's no, with what kind of no it is."""

    def __init__(self, told: dict[str, Any]) -> None:
        super().__init__(told["why"])
        self.what: str = told["what"]
        self.values: dict[str, str] = told["values"]


@cache
def program() -> str:
    """Return the text of the program that runs on the host."""
    return files("refimpl.backends.libvirt").joinpath("imageside.py").read_text("utf-8")


def make(operation: Operation) -> Problem | None:
    """Make the images at the destination; return why they cannot be had. What fails leaves none."""
    storage, reach = operation.plan.storage, operation.reach
    if storage is None or not storage.disks:
        return None
    changed = _changed(operation, storage)
    if changed is not None:
        return changed
    directories = _directories(storage)
    disks = [
        {"path": disk.destination, "format": disk.format, "bytes": disk.virtual_size_bytes} for disk in storage.disks
    ]
    allowed = list(reach.destination.storage_directories) or directories
    wanted = {"disks": disks, "allowed": allowed, "overwrite": storage.allow_overwrite}
    names: dict[str, str] = {}
    try:
        with connection.fresh(reach.destination) as there:
            used = used_disks(there, names)
        _ask(reach.destination_channel, "make", operation.id, **wanted, used=used)
    except connection.failures() as error:
        return _not_made(operation, error, names)
    return None


def _not_made(operation: Operation, error: Exception, names: dict[str, str]) -> Problem:
    """Return the problem of an image that could not be made, by what the host said of it."""
    what, told = (error.what, error.values) if isinstance(error, _Refused) else ("", {})
    path = told.get("path", "")
    user = names.get(told.get("owner", ""), "?")
    more = {**told, "target": path, "directory": posixpath.dirname(path), "user": user}
    return operation.problem(
        _REFUSALS.get(what, "storage.not_made"), Side.DESTINATION, error, host=operation.plan.destination, **more
    )


def full(operation: Operation, error: Exception) -> Problem | None:
    """Return the problem when an error means that the destination's file system filled up, else None."""
    if operation.plan.storage is None or not any(text in str(error) for text in _FULL):
        return None
    return operation.problem("storage.full", Side.DESTINATION, error, host=operation.plan.destination)


def undo(operation: Operation) -> tuple[list[str], list[str]]:
    """Remove what was made at the destination, or leave it if the plan says so: what is left behind, what is kept."""
    storage, reach = operation.plan.storage, operation.reach
    if storage is None:
        return [], []
    do = "keep" if storage.keep_at_destination else "undo"
    told, why = _settled(reach.destination, reach.destination_channel, do, operation.id, storage)
    kept = [f"{path} on host {reach.destination.name}" for path in told.get("kept", ())]
    return _left(reach.destination, told, why), kept


def undecided(operation: Operation) -> list[str]:
    """Return the files that were made at the destination and that nothing is decided about."""
    storage, reach = operation.plan.storage, operation.reach
    if storage is None:
        return []
    told, why = _settled(reach.destination, reach.destination_channel, "made", operation.id, storage)
    return _left(reach.destination, told, why)


def finish(operation: Operation) -> list[str]:
    """Let the destination's VM have what was made, then remove at the source what the plan names; return what is left.

    Nothing is removed at the source before the destination is asked, and only while it has the VM.
    """
    storage, reach, plan = operation.plan.storage, operation.reach, operation.plan
    if storage is None:
        return []
    told, why = _settled(reach.destination, reach.destination_channel, "adopt", operation.id, storage)
    left = _left(reach.destination, told, why)
    names = [f"{file.path} on host {reach.source.name}" for file in storage.removed]
    try:
        with connection.fresh(reach.destination) as there:
            if connection.find(there, plan.vm_id) is None:
                return [*left, *(f"{name}: the VM was not found on host {plan.destination}" for name in names)]
        gone = [{"path": file.path, "identity": file.identity} for file in storage.removed]
        needed = _needed_elsewhere(operation, storage)
        with connection.fresh(reach.source) as here:
            used = used_disks(here)
        told = _ask(reach.source_channel, "retire", operation.id, files=gone, used=used, needed=needed)
    except connection.failures() as error:
        return [*left, *(f"{name}: {error}" for name in names)]
    return [*left, *_left(reach.source, told, None)]


def _needed_elsewhere(operation: Operation, storage: StoragePlan) -> list[str]:
    """Return the identities of all files that VMs of other hosts of the group have, or are based on.

    Only where parents are to go: they may lie on storage that other hosts share. OSError when a host does not tell.
    """
    own = {disk.source for disk in storage.disks}
    if all(file.path in own for file in storage.removed):
        return []
    needed: set[str] = set()
    for host in operation.reach.group.hosts:
        if host.name != operation.reach.source.name:
            try:
                with connection.fresh(host) as fresh:
                    used = used_disks(fresh)
                needed |= set(_ask(channel_for(host), "needed", operation.id, used=used)["identities"])
            except connection.failures() as error:
                raise OSError(f"host {host.name} does not tell which files its VMs need: {error}") from error
    return sorted(needed)


def relocated(xml: str, storage: StoragePlan | None) -> str:
    """Return a definition with the disks that move where they go, based on nothing, and otherwise as it was."""
    if storage is None or not storage.disks:
        return xml
    root = parse(xml)
    going = {disk.source: disk.destination for disk in storage.disks}
    for element, source in _disks(root):
        path = going.get(source.get("file") or source.get("dev") or "")
        if path is None:
            continue
        for name in ("backingStore", "mirror"):
            for found in element.findall(name):
                element.remove(found)
        element.set("type", "file")
        source.attrib.pop("dev", None)
        source.attrib.pop("index", None)
        source.set("file", path)
        element.insert(list(element).index(source) + 1, ET.Element("backingStore"))
    return ET.tostring(root, encoding="unicode")


def device_names(xml: str, storage: StoragePlan) -> list[str]:
    """Return what libvirt calls the disks that move: the names of their targets."""
    going = {disk.source for disk in storage.disks}
    found = []
    for element, source in _disks(parse(xml)):
        target = element.find("target")
        if target is not None and (source.get("file") or source.get("dev")) in going:
            found.append(target.get("dev", ""))
    return found


def used_disks(fresh: Any, names: dict[str, str] | None = None) -> dict[str, str]:
    """Return the files of the disks of all VMs of a host, as they run and as they are stored, with their formats.

    `names` is given the name of the VM that has each of them.
    """
    lv = connection.module()
    found: dict[str, str] = {}
    for domain in fresh.listAllDomains():
        flags = (lv.VIR_DOMAIN_XML_INACTIVE, 0) if domain.isPersistent() else (0,)
        for which in flags:
            # One that goes away meanwhile has no disks any more.
            with contextlib.suppress(lv.libvirtError):
                files = _files_of(parse(domain.XMLDesc(which)))
                found |= files
                if names is not None:
                    names |= dict.fromkeys(files, domain.name())
    return found


def _files_of(root: ET.Element) -> dict[str, str]:
    found: dict[str, str] = {}
    for element in root.iter("disk"):
        driver = element.find("driver")
        for source in element.iter("source"):
            path = source.get("file") or source.get("dev")
            if path:
                found[path] = "" if driver is None else driver.get("type", "")
    return found


def _disks(root: ET.Element) -> Iterator[tuple[ET.Element, ET.Element]]:
    for element in root.iterfind("devices/disk"):
        source = element.find("source")
        if source is not None:
            yield element, source


def _changed(operation: Operation, storage: StoragePlan) -> Problem | None:
    """Return the problem when a source's file is not the one of the plan any more. OSError when it cannot be seen."""
    look = Look(operation.reach.source_channel)
    try:
        asked = {disk.source: DiskFact(disk.source, None, format=disk.format) for disk in storage.disks}
        seen = look.disks(asked)
    finally:
        look.close()
    for disk in storage.disks:
        now = seen[disk.source].fact
        before = (disk.identity, disk.virtual_size_bytes)
        if (now.identity, now.virtual_size_bytes) != before:
            values: dict[str, Value] = {
                "vm": operation.plan.vm,
                "host": operation.plan.source,
                "path": disk.source,
                "before": f"file {before[0]}, {before[1]} bytes",
                "now": f"file {now.identity}, {now.virtual_size_bytes} bytes",
            }
            return Problem("storage.changed", values, side=Side.SOURCE, host=operation.plan.source)
    return None


def _directories(storage: StoragePlan) -> list[str]:
    return list(dict.fromkeys(posixpath.dirname(disk.destination) for disk in storage.disks))


def _settled(
    host: HostEntry, channel: HostChannel, do: str, operation: str, storage: StoragePlan
) -> tuple[dict[str, Any], str | None]:
    """Ask for what is to be done with the files of an operation: the answer, or why there is none."""
    try:
        with connection.fresh(host) as fresh:
            used = used_disks(fresh)
        return _ask(channel, do, operation, directories=_directories(storage), used=used), None
    except connection.failures() as error:
        return {}, str(error)


def _left(host: HostEntry, told: dict[str, Any], why: str | None) -> list[str]:
    if why is not None:
        return [f"copied disks on host {host.name}: {why}"]
    return [f"disk on host {host.name}: {item}" for item in told.get("left", ())]


def _ask(channel: HostChannel, do: str, operation: str, **values: Any) -> dict[str, Any]:
    talk = channel.talk(program())
    try:
        told = talk.ask({"do": do, "operation": operation, **values}, ASK_TIMEOUT_S)
    finally:
        talk.close()
    if "what" in told:
        raise _Refused(told)
    if "why" in told:
        raise OSError(told["why"])
    answer: dict[str, Any] = told["answer"]
    return answer
