"""Each fault does in a real lab what it declares, and all of it is undone: by its block, by anybody, with the lab."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from refimpl.app.home import Home
from refimpl.backends.libvirt import lease
from refimpl.engine.store import GroupStore
from refimpl.faults import FAULTS, Inflicted, Place, Target, inflicted
from refimpl.faults.moments import armed, hold, on_migration
from refimpl.faults.strikes import conductor, daemon, qemu
from refimpl.hosts import process
from refimpl.hosts.factory import channel_for
from refimpl.lab import LabError, leftovers
from refimpl.lab.faultbook import FaultBook
from refimpl.lab.host import LIBVIRTD, VIRTLOCKD
from refimpl.lab.lab import create
from refimpl.lab.links import Direction
from refimpl.model.errors import RefimplError
from refimpl.model.events import Kind
from refimpl.model.group import ProcessRef
from refimpl.model.phase import Phase
from tests.lab.cli_support import Command
from tests.lab.lab_support import run_on, state_directory
from tests.lab.libvirt_support import host_of
from tests.lab.moving import Moving, until
from tests.unit.faults.stand_in import state_of

pytestmark = pytest.mark.lab


def struck(moving: Moving, name: str, target: Target):
    return inflicted(moving.lab, FAULTS[name], target)


def here(moving: Moving) -> Target:
    """The host that has the VM, and what of it."""
    return Target(host=moving.place(), vm=moving.spec.name, network="migration")


def test_what_is_frozen_stands_still_and_runs_again(moving: Moving) -> None:
    target = here(moving)
    for what in ("qemu", LIBVIRTD, VIRTLOCKD):
        lab, host = moving.lab, target.host
        ref = qemu(lab, host, target.vm) if what == "qemu" else daemon(lab, host, what)
        with struck(moving, f"freeze-{what}", target):
            assert state_of(ref.pid) == "T", what
        assert until(lambda pid=ref.pid: state_of(pid) != "T", f"{what} runs again")
    assert FaultBook(moving.lab.paths).standing() == ()


def held(moving: Moving, host: str) -> bool | None:
    file = f"{moving.group.lease_directory}/{moving.spec.id}"
    return lease.held(channel_for(host_of(moving.group, host)), file)


@pytest.mark.parametrize("name", [LIBVIRTD, VIRTLOCKD])
def test_a_daemon_that_was_killed_is_started_again_and_the_lease_is_held(moving: Moving, name: str) -> None:
    target = here(moving)
    ref = daemon(moving.lab, target.host, name)
    guest = qemu(moving.lab, target.host, target.vm)
    with struck(moving, f"kill-{name}", target):
        assert not process.alive(ref)
        assert held(moving, target.host) is (name == LIBVIRTD)
        assert process.alive(guest)
    assert daemon(moving.lab, target.host, name) != ref
    assert held(moving, target.host) is True
    assert process.alive(guest)
    assert moving.place() == target.host


def test_a_link_is_cut_slowed_down_and_cut_one_way(moving: Moving) -> None:
    host, other = moving.place(), moving.other()
    link = moving.lab.link(host, "migration")
    before = link.state()
    address = moving.lab.link(other, "migration").address

    def answered() -> bool:
        connect = ["timeout", "1", "bash", "-c", 'exec 3<>"/dev/tcp/$1/16514"', "bash", address]
        return channel_for(host_of(moving.group, host)).run(connect).status == 0

    target = Target(host=host, network="migration", rate_mbit_s=5)
    assert answered()
    with struck(moving, "link-down", target):
        assert not link.state().up
        assert not answered()
    # The kernel takes up to a second to notice that a cable is back.
    until(answered, "an answer over the mended link")
    with struck(moving, "link-slow", target):
        assert link.state().rate_mbit_s == 5
    for direction in Direction:
        with struck(moving, "link-one-way", Target(host=host, network="migration", direction=direction)):
            assert link.lost_packets() == 0
            assert not answered()
            assert link.lost_packets()
        assert link.lost_packets() is None
        until(answered, "an answer over the mended link")
    assert link.state() == before


WRITE = 'echo x > "$1/of-the-fault"; s=$?; rm -f "$1/of-the-fault"; exit $s'


@pytest.mark.parametrize(("name", "says"), [("disk-full", "No space left"), ("disk-read-only", "Read-only")])
def test_a_directory_takes_nothing_any_more_and_loses_nothing(
    moving: Moving, name: str, says: str, tmp_path: Path
) -> None:
    host, other = moving.place(), moving.other()
    shared, files = moving.group.shared_directory, sorted(os.listdir(moving.group.shared_directory))
    write = ["bash", "-c", WRITE, "bash", shared]
    with struck(moving, name, Target(host=host, place=Place.SHARED)):
        done = channel_for(host_of(moving.group, host)).run(write)
        assert says in done.stderr
        assert sorted(run_on(moving.lab, host, "ls", shared).split()) == files
        run_on(moving.lab, other, *write)
    run_on(moving.lab, host, *write)
    assert sorted(os.listdir(shared)) == files

    store = GroupStore(Path(moving.group.store_path))
    settings = store.settings()
    with struck(moving, name, Target(place=Place.STORE)):
        with pytest.raises(RefimplError, match=r"store\.failed"):
            store.change_settings(host, lambda old: old)
    assert store.change_settings(host, lambda old: old) == settings[host]

    home = Home(tmp_path / "a home: with, odd\\ name")
    with struck(moving, name, Target(place=Place.HOME, home=home.path)):
        with pytest.raises((RefimplError, OSError)):
            (home.create("0a0a0a0a").directory / "file").write_text("x")
    assert (home.create("0b0b0b0b").directory / "file").write_text("x")


@pytest.mark.error("fault.no_process")
def test_only_what_is_there_can_be_struck(moving: Moving) -> None:
    target = Target(host=moving.other(), vm=moving.spec.name)
    with pytest.raises(LabError, match=r"fault\.no_process"), struck(moving, "kill-qemu", target):
        raise AssertionError("not reached")
    with pytest.raises(LabError, match=r"fault\.no_move"), struck(moving, "freeze-conductor", target):
        raise AssertionError("not reached")


def test_what_a_killed_command_left_is_listed_and_undone_by_another(moving: Moving, tmp_path: Path) -> None:
    host = moving.place()
    ref = daemon(moving.lab, host, LIBVIRTD)
    command = Command(moving.lab.paths.root, tmp_path / "home")
    with command.running("lab", "fault", "freeze-libvirtd", "--host", host, "--json") as running:
        running.wait_for("freeze-libvirtd")
        assert state_of(ref.pid) == "T"
        running.process.kill()
        running.end()
    assert state_of(ref.pid) == "T"
    (standing,) = command("lab", "fault", "list", "--json").json["standing"]
    assert (standing["fault"], standing["abandoned"]) == ("freeze-libvirtd", True)
    undone = command("lab", "fault", "undo", "--json")
    assert [row["id"] for row in undone.json["undone"]] == [standing["id"]]
    assert until(lambda: state_of(ref.pid) != "T", "libvirtd runs again")
    with command.running("lab", "fault", "link-down", "--host", host, "--network", "migration") as running:
        running.wait_for("until Ctrl-C")
        assert not moving.lab.link(host, "migration").state().up
        running.ctrl_c()
        assert running.end().code == 0
    assert moving.lab.link(host, "migration").state().up


def test_a_conductor_is_frozen_and_killed_in_a_phase_that_is_held(moving: Moving) -> None:
    source, destination = moving.place(), moving.other()
    operation = moving.start(bandwidth_mib_s=3)
    ref: list[ProcessRef] = []
    killer = Inflicted(moving.lab, FAULTS["kill-conductor"], Target(operation=operation.id))
    with hold(operation, Phase.MEMORY, host_of(moving.group, source), moving.spec.id), killer:
        ref.append(conductor(moving.lab))
        with struck(moving, "freeze-conductor", Target()):
            assert state_of(ref[0].pid) == "T"
        with armed(operation, Kind.MEMORY_SEEN, killer.strike) as trigger:
            assert trigger.fired.wait(60)
    assert trigger.failure is None
    until(lambda: not operation.alive(), "the end of the conductor")
    assert moving.recover().end is Phase.COMPLETED
    assert moving.place() == destination


def test_a_daemon_is_frozen_in_qemus_own_switch_and_the_move_goes_through(moving: Moving) -> None:
    source, destination = moving.place(), moving.other()
    ref = daemon(moving.lab, destination, LIBVIRTD)
    with Inflicted(moving.lab, FAULTS["freeze-libvirtd"], Target(host=destination)) as frozen:
        frozen.aim()
        entry = host_of(moving.group, source)
        with on_migration(entry, moving.spec.id, frozenset({"device"}), frozen.strike) as trigger:
            operation = moving.start()
            assert trigger.fired.wait(60)
        assert trigger.failure is None
        assert state_of(ref.pid) == "T"
        assert operation.alive()
    assert operation.wait().end is Phase.COMPLETED
    assert moving.place() == destination


def test_a_lab_goes_away_with_all_that_was_done_to_it(tmp_path: Path) -> None:
    with state_directory() as root:
        lab = create(root=root)
        faults = [
            ("freeze-libvirtd", Target(host="h1")),
            ("freeze-virtlockd", Target(host="h2")),
            ("kill-libvirtd", Target(host="h2")),
            ("link-one-way", Target(host="h1", network="management")),
            ("disk-full", Target(host="h2", place=Place.SHARED)),
            ("disk-full", Target(place=Place.STORE)),
            ("disk-read-only", Target(place=Place.HOME, home=tmp_path / "home")),
        ]
        for name, target in faults:
            Inflicted(lab, FAULTS[name], target).strike()
        assert len(FaultBook(lab.paths).standing()) == len(faults)
        removal = lab.down()
        assert removal.left_behind == ()
        assert leftovers(lab.id, root) == []
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    (tmp_path / "home" / "file").write_text("x")


def test_the_record_says_what_undoes_it(moving: Moving) -> None:
    target = Target(host=moving.place(), network="vm")
    with struck(moving, "link-down", target):
        (record,) = FaultBook(moving.lab.paths).standing()
        stored = json.loads((FaultBook(moving.lab.paths).directory / f"{record.id}.json").read_text())
        assert stored["by"]["pid"] == os.getpid()
        assert [undo["kind"] for undo in stored["undo"]] == ["link"]
