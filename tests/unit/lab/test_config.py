"""The files of a host: what protects it and what keeps it apart from the machine stands in them."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from refimpl.lab import layout
from refimpl.lab.config import HostConfig, KeepAlive, hosts_table, render, start_script
from refimpl.lab.layout import LabPaths

LAB = LabPaths(Path("/var/lib/refimpl/labs"), "abc123")
HOSTS = layout.plan_hosts("abc123", ("h1", "h2"))


def settings(name: str, config: HostConfig | None = None) -> dict[str, str]:
    text = (config or HostConfig(LAB, HOSTS[0], ["conductor", "h1"])).files()[name]
    return dict(line.split(" = ", 1) for line in text.splitlines())


def test_libvirt_listens_with_tls_only_and_verifies_its_clients() -> None:
    found = settings("libvirtd.conf")
    assert (found["listen_tls"], found["listen_tcp"]) == ("1", "0")
    assert found["tls_no_verify_certificate"] == "0"
    assert found["tls_no_sanity_certificate"] == "0"
    assert '"O=refimpl lab abc123,CN=conductor"' in found["tls_allowed_dn_list"]
    assert "h2" not in found["tls_allowed_dn_list"]


def test_a_test_can_have_libvirt_not_look_at_its_own_certificate() -> None:
    config = HostConfig(LAB, HOSTS[0], [], check_own_certificate=False)
    assert settings("libvirtd.conf", config)["tls_no_sanity_certificate"] == "1"


def test_hosts_have_uuids_of_their_own_that_stay() -> None:
    uuids = {h.uuid for h in (*HOSTS, *layout.plan_hosts("abc124", ("h1", "h2")))}
    assert len(uuids) == 4
    assert settings("libvirtd.conf")["host_uuid"] == f'"{HOSTS[0].uuid}"'
    assert layout.plan_hosts("abc123", ("h1", "h2")) == HOSTS


def test_silence_counts_as_death_after_what_was_asked_for_in_both_directions() -> None:
    config = HostConfig(LAB, HOSTS[0], [], KeepAlive(interval_s=3, count=7))
    for name in ("libvirtd.conf", "qemu.conf"):
        found = settings(name, config)
        assert (found["keepalive_interval"], found["keepalive_count"]) == ("3", "7")


@pytest.mark.parametrize(("interval_s", "count", "retries", "begins"), [(1, 2, 3, 1), (1, 0, 2, 1), (5, 5, 7, 4)])
def test_a_migration_stream_bears_no_less_silence_than_a_control_connection(
    interval_s: int, count: int, retries: int, begins: int
) -> None:
    keepalive = KeepAlive(interval_s, count)
    script = start_script(LAB, HOSTS[0], Path("/cache/init"), keepalive)
    assert f"echo {retries} > /proc/sys/net/ipv4/tcp_retries2" in script
    assert f"echo {begins} > /proc/sys/net/ipv4/tcp_syn_retries" in script


def test_qemu_needs_nothing_of_the_machine_and_verifies_its_peer() -> None:
    found = settings("qemu.conf")
    assert found["default_tls_x509_verify"] == "1"
    assert found["lock_manager"] == '"lockd"'
    assert found["shared_filesystems"] == '[ "/var/lib/refimpl/labs/abc123/shared" ]'
    assert found["cgroup_controllers"] == "[]"
    assert "migrate_tls_force" not in found


def test_leases_live_in_the_shared_directory() -> None:
    found = settings("qemu-lockd.conf")
    assert found == {"auto_disk_leases": "1", "file_lockspace_dir": '"/var/lib/refimpl/labs/abc123/shared/leases"'}


def test_text_is_quoted() -> None:
    assert render({"a": 'x"y', "b": ["1", "2"]}) == 'a = "x\\"y"\nb = [ "1", "2" ]\n'


def test_the_start_script_mounts_over_everything_of_the_machines_libvirt_and_then_becomes_init() -> None:
    lines = [
        shlex.split(line) for line in start_script(LAB, HOSTS[0], Path("/cache/init"), KeepAlive()).splitlines()[1:]
    ]
    targets = [line[-1] for line in lines if line[0] == "mount"]
    for target in ("/etc/libvirt", "/etc/pki", "/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt", "/run"):
        assert target in targets
    assert targets.index("/etc") < targets.index("/etc/libvirt")
    assert str(LAB.authority.parent) in targets
    assert lines[-1] == ["exec", "/cache/init", "abc123", "h1"]


def test_hosts_know_each_other_by_name() -> None:
    assert hosts_table(HOSTS).splitlines() == ["127.0.0.1 localhost", "10.90.0.11 h1", "10.90.0.12 h2"]


def test_no_link_name_is_too_long_for_the_kernel_and_none_comes_twice() -> None:
    hosts = layout.plan_hosts("abc123", layout.host_names(layout.MAX_HOSTS))
    keys = ["mgmt", "vm", *(layout.migration_key(index) for index in range(layout.MAX_NETWORKS))]
    names = [layout.switch_bridge("abc123", n) for n in keys]
    owners = ["c", *(str(h.number) for h in hosts)]
    names += [layout.switch_port("abc123", o, n) for o in owners for n in keys]
    assert max(map(len, names)) <= 15
    assert len(set(names)) == len(names)
    assert len({h.management_address for h in hosts}) == layout.MAX_HOSTS


@pytest.mark.parametrize("count", [0, -1, layout.MAX_HOSTS + 1])
def test_a_lab_of_no_or_too_many_hosts_is_refused(count: int) -> None:
    with pytest.raises(ValueError):
        layout.host_names(count)


@pytest.mark.parametrize(
    ("text", "is_id"), [("abc123", True), ("abc123x", False), ("ABC123", False), ("abc12", False), (".lock", False)]
)
def test_a_lab_id_is_six_hexadecimal_digits(text: str, is_id: bool) -> None:
    assert layout.is_lab_id(text) is is_id
