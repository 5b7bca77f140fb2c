"""A lab comes up whole, is taken away without trace, and touches nothing that is not its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from refimpl.hosts import process
from refimpl.hosts.factory import channel_for
from refimpl.lab import Lab, LabError, LabState, create, leftovers, list_labs
from refimpl.lab.host import HostRunner
from refimpl.model.group import Group, HostEntry, ProcessRef
from tests.healing import Healing
from tests.lab.lab_support import healthy, link_names, put, run_on, runner, start_vm, state_directory

pytestmark = pytest.mark.lab

MACHINE = ("/etc/libvirt", "/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt", "/run/libvirt", "/etc/pki")


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    with state_directory() as directory:
        yield directory


@contextlib.contextmanager
def made(root: Path) -> Iterator[Lab]:
    lab = create("shared", root=root)
    try:
        yield lab
    finally:
        lab.down()


@pytest.fixture(scope="module")
def labs(root: Path) -> Iterator[Healing[Lab]]:
    with contextlib.closing(Healing("the lab of this module", lambda: made(root), healthy)) as labs:
        yield labs


@pytest.fixture
def lab(labs: Healing[Lab], request: pytest.FixtureRequest) -> Iterator[Lab]:
    with labs.lent(request.node) as lab:
        yield lab


def entry(lab: Lab, host: str) -> HostEntry:
    found = lab.group.host(host)
    assert found is not None
    return found


def inhabitants(lab: Lab, host: str) -> list[ProcessRef]:
    """Return all living processes of a host's pid namespace."""
    init = entry(lab, host).channel.init
    assert init is not None
    space = process.namespace_inode(init.pid, "pid")
    assert space is not None
    found: list[ProcessRef] = []
    for pid in process.all_pids():
        with contextlib.suppress(ProcessLookupError):
            ref = process.here(pid)
            found += [ref] if process.namespace_inode(pid, "pid") == space else []
    return found


def machine() -> dict[str, tuple[int, int]]:
    """Return what the machine's own libvirt directories hold, with size and time of change."""
    files = [p for top in MACHINE for p in (Path(top), *Path(top).rglob("*")) if p.exists()]
    return {str(p): (p.lstat().st_size, p.lstat().st_mtime_ns) for p in files}


def test_every_host_is_healthy_and_declares_its_memory(lab: Lab, root: Path) -> None:
    assert [(s.name, s.healthy, s.memory_mib) for s in lab.status()] == [("h1", True, 2048), ("h2", True, 2048)]
    assert [(s.id, s.state) for s in list_labs(root) if s.name == "shared"] == [(lab.id, LabState.UP)]


def test_the_description_on_disk_is_the_group(lab: Lab) -> None:
    written = Group.from_json(json.loads(lab.paths.group.read_text()))
    assert written == lab.group == Lab.open("shared", lab.paths.root).group == Lab.open(lab.id, lab.paths.root).group
    assert Path(written.lease_directory).is_dir()
    assert written.management_netns
    assert link_names(written.management_netns) == {"lo", "mgmt0", "vm0"}


def test_each_host_is_a_machine_of_its_own(lab: Lab) -> None:
    for host in lab.group.hosts:
        assert run_on(lab, host.name, "hostname") == f"{host.name}\n"
        assert host.uuid in run_on(lab, host.name, "virsh", "-q", "capabilities")
        assert run_on(lab, host.name, "cat", "/proc/1/comm").startswith("init-")
        assert run_on(lab, host.name, "ls", "/run/libvirt/libvirt-sock")
        assert run_on(lab, host.name, "ls", str(lab.paths.hosts), str(lab.paths.authority.parent)).count(".pem") == 0
        assert Path(lab.group.shared_directory).name in run_on(lab, host.name, "ls", str(lab.paths.directory))


@pytest.mark.error("lab.host_unknown", "lab.exists")
def test_every_name_that_a_user_can_get_wrong_is_answered(lab: Lab, root: Path) -> None:
    for use in (lab.logs, lab.shell_command, lab.host_power_off):
        with pytest.raises(LabError, match="known: h1, h2") as caught:
            use("h9")
        assert caught.value.id == "lab.host_unknown"
    with pytest.raises(LabError) as caught:
        create("shared", root=root)
    assert caught.value.id == "lab.exists"


@pytest.mark.error("lab.process_failed")
def test_a_daemon_that_does_not_start_is_told_with_what_it_said(lab: Lab) -> None:
    config = lab.paths.host("h1").libvirt_config / "libvirtd.conf"
    good = config.read_text()
    lab.stop_daemon("h1", "libvirtd", signal.SIGKILL)
    config.write_text("no such setting = {\n")
    try:
        with pytest.raises(LabError, match=r"(?s)libvirtd of host 'h1' did not start: .*libvirtd\.conf"):
            lab.start_daemons("h1")
    finally:
        config.write_text(good)
        lab.start_daemons("h1")
    assert all(status.healthy for status in lab.status())


@pytest.mark.error("lab.wrong_answer")
def test_a_control_connection_that_leads_elsewhere_is_not_a_lab(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HostRunner, "ask", lambda *_: "elsewhere")
    with pytest.raises(LabError, match=r"answers as 'elsewhere'"):
        create("astray", root=root)
    assert [s.name for s in list_labs(root)] == ["shared"]


def test_the_channel_runs_reads_and_maps_pids(lab: Lab) -> None:
    channel = channel_for(entry(lab, "h1"))
    inner = int(channel.read("/var/run/libvirtd.pid"))
    daemon = lab.daemon("h1", "libvirtd")
    assert daemon is not None
    assert channel.outer_pid(inner) == daemon.pid != inner
    put(channel, "/run/note", b"for h1")
    assert channel.read("/run/note") == b"for h1"
    assert not Path("/run/note").exists()
    with pytest.raises(FileNotFoundError):
        channel_for(entry(lab, "h2")).read("/run/note")
    assert channel.run(["cat"], stdin="through").stdout == "through"
    assert channel.run(["no-such-program"]).status == 127


def test_a_command_that_takes_too_long_does_not_stay_on_the_host(lab: Lab) -> None:
    before = set(inhabitants(lab, "h1"))
    with pytest.raises(TimeoutError):
        channel_for(entry(lab, "h1")).run(["sleep", "600"], timeout_s=0.1)
    for ref in set(inhabitants(lab, "h1")) - before:
        assert process.wait_gone(ref, 10)


def test_vm_networks_of_all_hosts_are_one_and_learn(lab: Lab) -> None:
    start_vm(lab, "h1", "talker")
    ports = run_on(lab, "h1", "bridge", "link", "show")
    assert "vnet0" in ports
    assert "vm0" in ports
    assert run_on(lab, "h2", "bridge", "link", "show").count("master vmswitch") == 1
    run_on(lab, "h1", "virsh", "-q", "destroy", "talker")
    assert "10.90.2" not in run_on(lab, "h1", "ip", "-br", "address")


def test_libvirtd_can_be_restarted_under_a_running_vm(lab: Lab) -> None:
    start_vm(lab, "h2", "stays")
    before = lab.daemon("h2", "libvirtd")
    lab.restart_libvirtd("h2")
    assert before != lab.daemon("h2", "libvirtd")
    assert run_on(lab, "h2", "virsh", "-q", "domstate", "stays").strip() == "running"
    run_on(lab, "h2", "virsh", "-q", "destroy", "stays")
    assert all(s.healthy for s in lab.status())


def test_a_power_failure_takes_everything_on_the_host_and_nothing_else(lab: Lab) -> None:
    start_vm(lab, "h2", "doomed")
    victims = inhabitants(lab, "h2")
    others = [lab.daemon("h1", "libvirtd"), lab.daemon("h1", "virtlockd"), entry(lab, "h1").channel.init]
    names = {Path(f"/proc/{v.pid}/comm").read_text().strip() for v in victims}
    assert any(n.startswith("qemu") for n in names)
    assert {"libvirtd", "virtlockd"} <= names
    lab.host_power_off("h2")
    assert not [v for v in victims if process.alive(v)]
    assert all(o is not None and process.alive(o) for o in others)
    assert [(s.init_alive, s.libvirtd_answers, s.virtlockd_alive) for s in lab.status()] == [
        (True, True, True),
        (False, False, False),
    ]
    assert [lab.host_power_on("h2"), lab.host_power_on("h2")] == [True, False]
    assert all(s.healthy for s in lab.status())
    assert run_on(lab, "h2", "virsh", "-q", "list", "--name").strip() == ""
    assert not runner(lab, "h2").find_daemon(victims[0], "libvirtd")


def test_the_look_for_leftovers_sees_every_kind_of_thing_while_the_lab_is_up(lab: Lab, root: Path) -> None:
    found = leftovers(lab.id, root)
    for kind in ("process ", "network namespace ", "link ", "mount ", "directory "):
        assert [f for f in found if f.startswith(kind)], kind
    assert leftovers("000000", root) == []


@pytest.mark.parametrize("with_vm", [False, True])
def test_down_leaves_nothing_and_the_machines_libvirt_untouched(root: Path, with_vm: bool) -> None:
    before = machine()
    steps: list[str] = []
    gone = create("gone", hosts=1, root=root, on_step=lambda name, _: steps.append(name))
    if with_vm:
        start_vm(gone, "h1")
    removal = gone.down()
    assert removal.left_behind == ()
    assert leftovers(gone.id, root) == []
    assert machine() == before
    assert steps[:2] == ["requirements", "directory"]
    assert steps[-1] == "group"
    assert gone.down().removed == ()


def test_two_labs_side_by_side_do_not_know_each_other(lab: Lab, root: Path) -> None:
    other = create("other", root=root, memory_mib=512)
    assert [s.healthy for s in (*lab.status(), *other.status())] == [True] * 4
    assert [s.memory_mib for s in other.status()] == [512, 512]
    assert {h.uuid for h in lab.group.hosts}.isdisjoint(h.uuid for h in other.group.hosts)
    start_vm(other, "h1", "elsewhere")
    assert "elsewhere" not in run_on(lab, "h1", "virsh", "-q", "list", "--name")
    other.down()
    assert leftovers(other.id, root) == []
    assert all(s.healthy for s in lab.status())


def test_nothing_that_the_builder_was_born_with_stays_open_in_the_lab(root: Path) -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    os.set_blocking(reader, False)
    try:
        lab = create("closed", hosts=1, root=root)
        lab.restart_libvirtd("h1")
        os.close(writer)
        assert os.read(reader, 1) == b""
        lab.down()
    finally:
        os.close(reader)


def test_a_lab_that_cannot_be_built_is_taken_away_again(root: Path) -> None:
    def fail(name: str, _seconds: float) -> None:
        if name == "virtlockd":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        create("never", root=root, new_id=lambda: "0badc0", on_step=fail)
    assert leftovers("0badc0", root) == []
