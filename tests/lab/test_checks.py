"""What stands in the way on real hosts is found before anything is touched: storage, media, formats, switches.

A refusal leaves nothing: no claim, no mark, no file of a probe, and the VM runs on (the fixture looks at its end).
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from refimpl.app.operations import start
from refimpl.backends.libvirt import vms
from refimpl.backends.libvirt.domain import NicSpec, VmSpec, mac_address
from refimpl.model.phase import ExitCode, Phase, Side
from refimpl.model.request import MigrationRequest
from tests.lab.cli_support import Command, Done
from tests.lab.host_mounts import mounted_over
from tests.lab.lab_support import run_on
from tests.lab.libvirt_support import host_of
from tests.lab.moving import Moving

pytestmark = pytest.mark.lab

VM = "odd"
SWITCH = "private"


def checked(moving: Moving, vm: str, destination: str) -> Done:
    command = Command(moving.lab.paths.root, moving.home.path)
    return command("check", vm, destination, "--json", "--lab", moving.lab.name)


def found(done: Done) -> dict[str, Any]:
    """Return the incompatibilities by their id."""
    assert done.code == ExitCode.REFUSED, done
    return {entry["id"]: entry for entry in json.loads(done.out)["Incompatibilities"]}


def refused(moving: Moving, request: MigrationRequest) -> set[str]:
    result = start(moving.home, moving.group, request).wait()
    assert (result.end, result.exit_code) == (Phase.REFUSED, ExitCode.REFUSED), result
    assert all(problem.mend and problem.why for problem in result.problems)
    return {problem.id for problem in result.problems}


@pytest.mark.rule("R5", "R11")
def test_a_destination_that_has_not_mounted_the_storage(moving: Moving, tmp_path: Path) -> None:
    destination, disk = moving.other(), Path(moving.spec.disk_path)
    before = sorted(os.listdir(disk.parent))
    private = tmp_path / "private"
    private.mkdir()
    with mounted_over(moving, destination, disk.parent, private):
        assert refused(moving, moving.request(destination=destination)) == {"disk.missing"}
        shutil.copy(disk, private / disk.name)
        assert set(found(checked(moving, moving.spec.name, destination))) == {"disk.different"}
    with mounted_over(moving, destination, disk.parent, disk.parent, read_only=True):
        assert refused(moving, moving.request(destination=destination)) == {"disk.read_only"}
    assert os.listdir(private) == [disk.name]
    assert sorted(os.listdir(disk.parent)) == before


@contextmanager
def odd_vm(moving: Moving, host: str) -> Iterator[VmSpec]:
    """Give a VM without a guest that has what cannot move: a VHDX file for a disk, and a switch of its host alone."""
    directory = Path(moving.spec.disk_path).parent / VM
    directory.mkdir()
    vhdx, iso = directory / "disk.vhdx", directory / "medium.iso"
    vhdx.write_bytes(b"vhdxfile".ljust(1 << 20, b"\0"))
    iso.write_bytes(b"one medium".ljust(64 << 10, b"\0"))
    id = str(uuid.uuid4())
    cards = (NicSpec(mac_address(id), SWITCH),)
    spec = VmSpec(VM, id, 32, str(vhdx), "", "", "", cards=cards, dvd=str(iso), line_channel=False)
    run_on(moving.lab, host, "ip", "link", "add", SWITCH, "type", "bridge")
    entry = host_of(moving.group, host)
    try:
        vms.create(moving.group, entry, spec)
        vms.start(entry, VM)
        yield spec
    finally:
        vms.stop(entry, VM, force=True)
        vms.remove(moving.group, entry, VM)
        run_on(moving.lab, host, "ip", "link", "delete", SWITCH)
        shutil.rmtree(directory)


@pytest.mark.rule("R5", "R11", "R19")
def test_everything_that_cannot_move_is_found_at_once(moving: Moving, tmp_path: Path) -> None:
    source, destination = moving.place(), moving.other()
    with odd_vm(moving, source) as spec:
        assert spec.dvd is not None
        other = tmp_path / "medium.iso"
        other.write_bytes(b"another one".ljust(64 << 10, b"\0"))
        told = found(checked(moving, VM, destination))
        assert set(told) == {"disk.format", "switch.missing"}
        assert told["switch.missing"]["MessageId"] == 33012
        with mounted_over(moving, destination, Path(spec.dvd), other):
            result = start(moving.home, moving.group, MigrationRequest(VM, destination)).wait()
    assert result.end is Phase.REFUSED
    by_id = {problem.id: problem for problem in result.problems}
    assert set(by_id) == {"disk.format", "media.different", "switch.missing"}
    switch, medium, disk = by_id["switch.missing"], by_id["media.different"], by_id["disk.format"]
    assert (switch.side, switch.host) == (Side.DESTINATION, destination)
    assert SWITCH in switch.text
    assert "vmswitch" in switch.text
    assert (medium.side, len(str(medium.values["here"]))) == (Side.DESTINATION, 64)
    assert medium.values["here"] != medium.values["there"]
    assert (disk.side, disk.values["format"]) == (Side.SOURCE, "vhdx")
