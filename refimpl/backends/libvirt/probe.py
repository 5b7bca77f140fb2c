"""The one look that writes: is the directory of a disk or of the lease the same on both hosts, media the same (R5).

At each host a file named by the operation is put beside the disks that the VM writes, and read at the other one. The
helper on the host has made it and takes it away when asked, or when nobody is there to ask any more. What cannot be
tried (a full disk, a directory that cannot be written) is not known; a file that was there and is not seen is a no.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from refimpl.backends.libvirt.facts import Looked, gathered, looking, put_disks
from refimpl.backends.libvirt.hostside import PROBE_PREFIX
from refimpl.backends.libvirt.look import Look
from refimpl.backends.libvirt.parallel import in_parallel
from refimpl.hosts.stops import stop_point
from refimpl.model.facts import Facts, Scope, VmFacts, VmState
from refimpl.model.group import Group
from refimpl.model.request import MigrationRequest
from refimpl.model.storage import targets

STOP_POINT = "probing"
HASH_LIMIT_BYTES = 8 << 30
HASH_LIMIT_S = 30.0

Told = Mapping[str, Any]
_hashes: dict[tuple[str, str, int], str] = {}
"""Hashes of media by host, identity and time of the last change."""


def probe(group: Group, operation: str, request: MigrationRequest, now_s: float) -> Facts:
    """Look at all hosts, and try the storage of the VM; whatever goes wrong with that is a fact."""
    with looking(group, Scope(vm=request.vm, request=request)) as looked:
        pair = _pair(looked, request)
        if pair is not None:
            vm, source, destination = pair
            try:
                probe_disks(operation, _staying(vm, request), source, destination)
            finally:
                in_parallel(_take_away, (source, destination))
            compare_media(vm, source, destination)
        return gathered(looked, now_s)


def file_name(operation: str, host: str) -> str:
    """Return the name of the file that an operation's probe puts beside disks at a host."""
    return f"{PROBE_PREFIX}{operation}-{hashlib.sha256(host.encode()).hexdigest()[:8]}"


def judge(written: Told | None, read: Told | None, text: str) -> bool | None:
    """Return whether what was written at one host was read at the other; None when it could not be tried."""
    if written is None or "why" in written or read is None:
        return None
    return read.get("text") == text


def both(there: bool | None, back: bool | None) -> bool | None:
    """Return what the two directions say together: a no of either is one, and only two of both are a yes."""
    if False in (there, back):
        return False
    return True if there and back else None


def _pair(looked: Sequence[Looked], request: MigrationRequest) -> tuple[VmFacts, Looked, Looked] | None:
    by_name = {one.host.name: one for one in looked if one.look is not None}
    having = [(one, vm) for one in by_name.values() if (vm := one.facts.vm(request.vm)) is not None]
    having = [(one, vm) for one, vm in having if request.source in (None, one.host.name)]
    having.sort(key=lambda pair: pair[1].state is VmState.OFF)
    destination = by_name.get(request.destination)
    if not having or destination is None or having[0][0] is destination:
        return None
    return having[0][1], having[0][0], destination


def _staying(vm: VmFacts, request: MigrationRequest) -> VmFacts:
    """Return a VM without the disks that it would take along: those are not meant to be shared."""
    paths = [disk.path for disk in vm.disks if disk.moves]
    going = targets(request.storage, paths) if request.storage is not None else {}
    return replace(vm, disks=tuple(disk for disk in vm.disks if disk.path not in going))


def probe_disks(operation: str, vm: VmFacts, source: Looked, destination: Looked) -> None:
    """Try the directories of the disks that the VM writes and of its lease, in both directions, for the facts."""
    ends = (source, destination)
    paths = [disk.path for disk in vm.disks if disk.identity is not None and not disk.read_only]
    spaces = [one.facts.lease_space for one in ends]
    paths += dict.fromkeys(space.path for space in spaces if space is not None and not space.wrong)
    if not paths:
        return
    names = [file_name(operation, one.host.name) for one in ends]
    texts = [f"{operation} {secrets.token_hex(16)}\n" for _ in ends]
    written = in_parallel(lambda n: _asked(ends[n], "write", paths=paths, name=names[n], text=texts[n]), (0, 1))
    stop_point(STOP_POINT)
    # At each end the file of the other one is looked for.
    read = in_parallel(lambda n: _asked(ends[n], "read", paths=paths, name=names[1 - n]), (0, 1))
    found = {
        path: {
            "probed": both(
                judge(written[0].get(path), read[1].get(path), texts[0]),
                judge(written[1].get(path), read[0].get(path), texts[1]),
            )
        }
        for path in paths
    }
    for one in ends:
        put_disks(one, found)
        _put_lease(one, found)


def _put_lease(one: Looked, found: Mapping[str, Mapping[str, bool | None]]) -> None:
    space = one.facts.lease_space
    if space is not None and space.path in found:
        one.facts = replace(one.facts, lease_space=replace(space, probed=found[space.path]["probed"]))


def _asked(one: Looked, do: str, **values: Any) -> Mapping[str, Told | None]:
    look = _look_of(one)
    try:
        answer: Mapping[str, Told | None] = look.ask(do, **values)
    except OSError:
        return {}
    return answer


def _take_away(one: Looked) -> None:
    _asked(one, "done")


def _look_of(one: Looked) -> Look:
    assert one.look is not None
    return one.look


def compare_media(vm: VmFacts, source: Looked, destination: Looked) -> None:
    """Hash the media that are other files of the same size on the two hosts: their content decides."""
    there = destination.facts.disks
    unclear = [
        disk.path
        for disk in vm.disks
        if disk.read_only
        and None not in (disk.identity, (seen := there[disk.path]).identity)
        and disk.identity != seen.identity
        and disk.size_bytes == seen.size_bytes
    ]
    if unclear:
        in_parallel(lambda one: put_disks(one, _hashed(one, unclear)), (source, destination))


def _hashed(one: Looked, paths: Sequence[str]) -> dict[str, dict[str, str]]:
    keys = {
        path: (one.host.control_uri, str(one.seen[path].fact.identity), one.seen[path].modified_ns) for path in paths
    }
    missing = [path for path in paths if keys[path] not in _hashes]
    if missing:
        limits = {"bytes": HASH_LIMIT_BYTES, "seconds": HASH_LIMIT_S}
        told = _asked(one, "hashes", timeout_s=2 * HASH_LIMIT_S, paths=missing, **limits)
        _hashes.update({keys[path]: str(told[path]) for path in missing if told.get(path)})
    return {path: {"content_hash": _hashes[keys[path]]} for path in paths if keys[path] in _hashes}
