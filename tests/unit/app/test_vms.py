"""Making, starting, pausing, stopping, removing VMs: what is refused, and that nothing half-made stays."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from refimpl.app import observed, vm_places, vm_record, vms
from refimpl.app.own_guest import OwnGuest
from refimpl.app.vm_network import Reach
from refimpl.app.vms import VmDesk
from refimpl.cli import main
from refimpl.engine.store import GroupStore
from refimpl.guest import GuestImage, GuestParameters, least_memory_mib
from refimpl.model.errors import RefimplError
from refimpl.model.facts import Facts, HostFacts, VmFacts, VmState
from refimpl.model.group import ChannelSpec, Group, HostEntry, ProcessRef
from refimpl.model.ownership import OwnerRecord
from tests.builders import host, vm

ADDRESSES = {"vm_network": "10.90.2.0/24", "observer_address": "10.90.2.1"}


def entry(name: str) -> HostEntry:
    channel = ChannelSpec("namespace", ProcessRef(1, 1, "b"))
    return HostEntry(name, f"uuid-{name}", "uri", "uri", "10.0.0.1", (), 2048, channel, "sw", f"/log/{name}")


class Hosts:
    """A backend that shows what a test put there."""

    def __init__(self, *shown: HostFacts) -> None:
        self.shown = {facts.name: facts for facts in shown}

    def observe(self, _scope: Any) -> Facts:
        return Facts(self.shown, 0.0)

    def put(self, name: str, *machines: VmFacts) -> None:
        self.shown[name] = replace(self.shown[name], vms=machines)


@pytest.fixture
def hosts() -> Hosts:
    return Hosts(host("a"), host("b", memory_used_mib=100))


@pytest.fixture
def done(monkeypatch) -> list[str]:
    """What libvirt was told; it refuses nothing."""
    told: list[str] = []
    for name in ("create", "start", "pause", "resume", "remove", "remove_lease"):
        monkeypatch.setattr(vms.vms, name, lambda *_, name=name: told.append(name))
    monkeypatch.setattr(vms.vms, "stop", lambda *_, force: told.append(f"stop force={force}") or force)
    monkeypatch.setattr(vms, "build", lambda: GuestImage(Path("kernel"), Path("initramfs"), "1"))
    monkeypatch.setattr(vm_places.connection, "failures", lambda: (OSError,))
    monkeypatch.setattr(vm_places.connection, "native", lambda _: None)
    return told


@pytest.fixture
def desk(tmp_path, tmp_path_factory, hosts, done) -> VmDesk:
    shared, store = str(tmp_path), tmp_path_factory.mktemp("store") / "group.db"
    GroupStore(store)
    group = Group("id", "lab", (entry("a"), entry("b")), str(store), shared, shared, labels=ADDRESSES)
    return VmDesk(group, hosts)  # type: ignore[arg-type]


def refused(id: str, work: Any) -> str:
    with pytest.raises(RefimplError) as caught:
        work()
    (problem,) = caught.value.problems
    assert problem.id == id
    assert "?" not in problem.text + problem.mend
    return problem.text


def test_a_vm_goes_to_the_host_with_the_most_memory_left_and_gets_an_address_of_its_own(desk, done, tmp_path):
    first, second = (desk.create(name, None, memory_mib=256) for name in ("one", "two"))
    assert (first.address, second.address) == ("10.90.2.100/24", "10.90.2.101/24")
    assert desk.record("two") == second
    assert (tmp_path / "one.raw").stat().st_size == first.parameters.disk_blocks * vms.BLOCK_BYTES
    assert done == ["create", "create"]


@pytest.mark.error("vm.no_address")
def test_when_all_addresses_are_taken_none_is_given_twice(desk, monkeypatch):
    monkeypatch.setattr(vm_record, "FIRST_ADDRESS", 254)
    desk.create("one", "a", memory_mib=256)
    refused("vm.no_address", lambda: desk.create("two", "a", memory_mib=256))


@pytest.mark.error("guest.memory_short")
def test_a_built_in_guest_is_not_made_with_less_memory_than_its_work_needs(desk, done, tmp_path):
    work = GuestParameters(writer_working_set_mib=192)
    said = refused("guest.memory_short", lambda: desk.create("one", "a", memory_mib=256, parameters=work))
    assert f"needs {least_memory_mib(192)} MiB" in said
    assert done == []
    desk.create("one", "a", memory_mib=least_memory_mib(192), parameters=work)
    desk.create("two", "a", memory_mib=64, own=OwnGuest())


@pytest.mark.error("vm.disk_exists")
def test_a_disk_is_never_overwritten(desk, done, tmp_path):
    (tmp_path / "one.raw").write_text("precious", "utf-8")
    assert "one.raw" in refused("vm.disk_exists", lambda: desk.create("one", "a", memory_mib=256))
    assert (tmp_path / "one.raw").read_text("utf-8") == "precious"
    assert done == []


@pytest.mark.error("vm.not_done")
def test_what_the_host_refuses_leaves_nothing_half_made(desk, monkeypatch, tmp_path):
    def no(*_: Any) -> None:
        raise OSError("no space")

    monkeypatch.setattr(vms.vms, "create", no)
    assert "no space" in refused("vm.not_done", lambda: desk.create("one", "a", memory_mib=256))
    assert [path.name for path in tmp_path.iterdir()] == [".addresses.lock"]


def test_names_are_taken_on_all_hosts(desk, hosts):
    hosts.put("b", vm(name="one"))
    refused("vm.name_taken", lambda: desk.create("one", "a", memory_mib=256))


def test_a_vm_that_does_not_fit_is_not_started(desk, hosts, done):
    hosts.put("a", vm(name="one", memory_mib=4096, state=VmState.OFF))
    assert "4096 MiB" in refused("memory.short", lambda: desk.start("one"))
    assert done == []


@pytest.mark.error("lease.left_locked")
def test_a_lease_that_a_host_keeps_of_a_vm_that_is_off_is_told_with_its_mend(desk, hosts, done, monkeypatch):
    def busy(*_):
        raise OSError("Lockspace resource is locked")

    hosts.put("a", vm(name="one", state=VmState.OFF))
    monkeypatch.setattr(vms.vms, "start", busy)
    monkeypatch.setattr(vms.vms, "keeps_lease", lambda *_: None)
    refused("vm.not_done", lambda: desk.start("one"))
    monkeypatch.setattr(vms.vms, "keeps_lease", lambda _, vm_id: "b" if vm_id == vm().id else None)
    assert "host 'b' still holds" in refused("lease.left_locked", lambda: desk.start("one"))


@pytest.mark.error("vm.does_not_stop")
def test_a_guest_that_does_not_stop_is_told_so_and_force_is_the_mend(desk, hosts, done):
    hosts.put("a", vm(name="one"))
    refused("vm.does_not_stop", lambda: desk.stop("one"))
    desk.stop("one", force=True)
    assert done == ["stop force=False", "stop force=True"]


@pytest.mark.error("vm.not_off")
def test_a_vm_that_runs_is_not_removed(desk, hosts, done):
    hosts.put("a", vm(name="one"))
    refused("vm.not_off", lambda: desk.remove("one"))
    assert done == []


class Killed(BaseException):
    """Nothing is undone: as if the process were gone."""


def half_made(desk: VmDesk, monkeypatch, **wish: Any) -> None:
    """Let a `vm create` end as with SIGKILL, right before a host is told."""

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(vms.vms, "create", killed)
        patched.setattr(vms.contextlib.ExitStack, "__exit__", lambda *_: None)
        with pytest.raises(Killed):
            desk.create("one", "a", memory_mib=256, **wish)


@pytest.mark.error("vm.being_made")
@pytest.mark.parametrize("wish", [{}, {"own": OwnGuest()}])
def test_what_a_killed_making_left_is_removed_but_not_while_it_is_made(wish, desk, done, monkeypatch, tmp_path):
    (tmp_path / "one.raw.bak").touch()
    half_made(desk, monkeypatch, **wish)
    assert len(list(tmp_path.iterdir())) == 4
    refused("vm.being_made", lambda: desk.remove("one"))
    monkeypatch.setattr(vms, "alive", lambda _: False)
    refused("vm.disk_exists", lambda: desk.create("one", "a", memory_mib=256))
    assert desk.remove("one") is None
    assert {path.name for path in tmp_path.iterdir()} == {".addresses.lock", "one.raw.bak"}
    assert done == ["remove_lease"]
    refused("vm.unknown", lambda: desk.remove("one"))


def test_a_vm_that_a_silent_host_may_have_is_not_taken_for_left_over(desk, hosts, done, tmp_path):
    desk.create("one", "b", memory_mib=256)
    hosts.shown["b"] = HostFacts("b", reachable=False)
    refused("host.down", lambda: desk.remove("one"))
    assert (tmp_path / "one.raw").exists()


def test_a_vm_under_another_name_keeps_its_files(desk, hosts, done, tmp_path):
    record = desk.create("one", "a", memory_mib=256)
    hosts.put("b", vm(name="renamed", id=record.id))
    refused("vm.unknown", lambda: desk.remove("one"))
    assert (tmp_path / "one.raw").exists()


@pytest.mark.rule("R10")
@pytest.mark.parametrize("verb", ["start", "stop", "remove", "pause", "resume"])
def test_a_vm_with_the_mark_of_a_move_is_left_to_recovery(verb, desk, hosts, done):
    hosts.put("a", vm(name="one", state=VmState.OFF, operation="0a1b2c3d"))
    refused("vm.stamped", lambda: getattr(desk, verb)("one"))
    assert done == []


@pytest.mark.error("vm.wrong_state")
@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_a_vm_that_is_off_is_neither_paused_nor_resumed(verb, desk, hosts, done):
    hosts.put("a", vm(name="one", state=VmState.OFF))
    assert "is off" in refused("vm.wrong_state", lambda: getattr(desk, verb)("one"))
    assert done == []


def test_pausing_and_resuming_twice_does_it_once(desk, hosts, done):
    for verb, before, after in (
        ("pause", VmState.RUNNING, VmState.PAUSED),
        ("resume", VmState.PAUSED, VmState.RUNNING),
    ):
        for state in (before, after):
            hosts.put("a", vm(name="one", state=state))
            getattr(desk, verb)("one")
    assert done == ["pause", "resume"]


def line(boot: str, sequence: int, kind: str) -> bytes:
    body = f"{boot} {sequence} {kind} 1 1 0 -"
    return f"~{body} *{zlib.crc32(body.encode()):08x}\n".encode()


def test_the_guest_works_when_this_boot_of_it_says_so(desk, hosts, done, monkeypatch, tmp_path):
    desk.create("one", "a", memory_mib=256)
    hosts.put("a", vm(name="one", state=VmState.OFF))
    said = tmp_path / "lines"
    said.write_bytes(line("aaaaaa", 1, "check-end"))
    monkeypatch.setattr(VmDesk, "line_files", lambda *_: {"a": said})
    refused("guest.not_heard", lambda: desk.start_and_wait("one", 0.0))
    monkeypatch.setattr(
        vms.vms, "start", lambda *_: said.write_bytes(said.read_bytes() + line("bbbbbb", 1, "check-end"))
    )
    assert desk.start_and_wait("one", 0.0).host.name == "a"


@pytest.mark.error("guest.no_address")
def test_a_guest_of_ones_own_is_waited_for_until_it_has_an_address(desk, hosts, done, monkeypatch, tmp_path):
    desk.create("one", "a", memory_mib=256, own=OwnGuest())
    hosts.put("a", vm(name="one", state=VmState.OFF))
    monkeypatch.setattr(VmDesk, "line_files", lambda *_: {})
    assert "'one' on host 'a'" in refused("guest.no_address", lambda: desk.start_and_wait("one", 0.0))
    assert done == ["create", "start"]
    monkeypatch.setattr(VmDesk, "reach", lambda *_: Reach("10.90.2.100"))
    assert desk.start_and_wait("one", 0.0).host.name == "a"


def test_a_vm_in_two_places_is_not_touched(desk, hosts, done):
    hosts.put("a", vm(name="one"))
    hosts.put("b", vm(name="one"))
    refused("vm.several", lambda: desk.stop("one"))
    assert done == []


@pytest.mark.error("guest.not_heard")
def test_a_guest_that_is_not_heard_has_an_error_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(observed, "HEARD_S", 0.0)
    silent = {"a": tmp_path / "lines"}
    assert "work of VM 'one'" in refused("guest.not_heard", lambda: observed.wait_for_work("one", silent))


@pytest.mark.error("lab.gone")
def test_recovery_of_a_move_whose_lab_is_gone_says_so(tmp_path, monkeypatch, capsys):
    from refimpl.app.home import Home

    monkeypatch.setenv("REFIMPL_HOME", str(tmp_path))
    monkeypatch.setattr("refimpl.cli.context.is_root", lambda: True)
    monkeypatch.setattr("refimpl.lab.list_labs", lambda: ())
    Home(tmp_path).create("0a1b2c3d").spec.write_text('{"group": {"id": "abc123"}}', "utf-8")
    assert main(["recover", "0a1b2c3d"]) == 8
    assert "[lab.gone]" in capsys.readouterr().err


@pytest.mark.rule("R1")
def test_a_vm_is_owned_by_its_host_from_the_beginning_to_its_removal(desk, hosts):
    record = desk.create("one", "b", memory_mib=256)
    owners = desk.places.owners
    assert owners.owner(record.id) == OwnerRecord(record.id, "b")
    hosts.put("b", vm(name="one", id=record.id, state=VmState.OFF))
    desk.remove("one")
    assert owners.owners() == ()


def test_a_vm_that_could_not_be_made_is_owned_by_nobody(desk, monkeypatch):
    def refuse(*_: Any) -> None:
        raise OSError("no room")

    monkeypatch.setattr(vms.vms, "create", refuse)
    refused("vm.not_done", lambda: desk.create("one", "b", memory_mib=256))
    assert desk.places.owners.owners() == ()


@pytest.mark.rule("R1")
@pytest.mark.error("owner.elsewhere")
@pytest.mark.parametrize(("verb", "state"), [("start", VmState.OFF), ("resume", VmState.PAUSED)])
def test_a_stale_copy_is_not_let_run_while_its_owner_is_silent(verb, state, desk, hosts, done):
    stale = vm(name="one", state=state)
    hosts.put("a", stale)
    desk.places.owners.swap_owner(None, OwnerRecord(stale.id, "b", 4))
    hosts.shown["b"] = HostFacts("b", reachable=False)
    refused("owner.elsewhere", lambda: getattr(desk, verb)("one"))
    assert done == []
    hosts.shown["b"] = host("b")
    getattr(desk, verb)("one")
    assert done == [verb], "the owner answers and has none: something else has moved the VM"
