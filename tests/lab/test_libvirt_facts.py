"""The facts of a lab's hosts, and the probe that writes beside the VM's disk, tried where it cannot be done too."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from refimpl.backends.libvirt import hostside
from refimpl.backends.libvirt.backend import LibvirtBackend
from refimpl.model.facts import Facts, Scope
from refimpl.model.phase import Phase
from tests.lab.host_mounts import full_over, mounted_over
from tests.lab.moving import Moving, until

pytestmark = pytest.mark.lab


@pytest.fixture
def backend(moving: Moving) -> Iterator[LibvirtBackend]:
    backend = LibvirtBackend(moving.group, lambda _: None, time.time_ns)
    yield backend
    backend.close()


def disks(moving: Moving) -> Path:
    return Path(moving.spec.disk_path).parent


def files(moving: Moving) -> list[str]:
    return sorted(os.listdir(disks(moving)))


def probed(facts: Facts, moving: Moving) -> set[bool | None]:
    """Return what both hosts' facts say of the VM's disk."""
    return {host.disks[moving.spec.disk_path].probed for host in facts.hosts.values()}


@pytest.mark.rule("R5")
def test_a_healthy_pair_of_hosts_gives_whole_facts(moving: Moving, backend: LibvirtBackend) -> None:
    place, before = moving.place(), files(moving)
    facts = backend.probe("0a1b2c3d", moving.request())
    assert files(moving) == before
    for host in facts.hosts.values():
        assert host.reachable
        assert host.switches == {"vmswitch"}
        assert host.cpu is not None
        assert host.cpu.features
        assert {"pc", "pc-i440fx-10.0"} <= (host.machine_types or set())
        assert "tcg" in (host.accelerators or set())
        assert host.compression == ("zstd", "xbzrle")
        assert host.clock is not None
        assert host.clock_reference_s is not None
        assert abs(host.clock.now_s - host.clock_reference_s) <= host.clock.uncertainty_s + 0.001
        assert len(host.certificates) == 4
        assert host.lock_daemon_alive
        assert {"mgmt0", "mig0"} <= {address.link for address in host.addresses}
        assert "10.90.1.0/24" in host.routes
        disk = host.disks[moving.spec.disk_path]
        assert (disk.probed, disk.content, disk.cache, disk.shared_file_system) == (True, "raw", "none", True)
    here = facts.hosts[place].vm("web")
    assert here is not None
    assert (here.machine, here.accelerator, here.busy) == ("pc-i440fx-10.0", "tcg", "")
    assert [(nic.switch, nic.mac[:8]) for nic in here.nics] == [("vmswitch", "52:54:00")]
    assert (here.unmovable, here.snapshots, here.processor_compatibility) == ((), (), False)
    assert here.cpu is not None
    assert here.lease is not None
    assert here.lease.held
    # Under the claim nothing is written, and so nothing is known of it.
    assert probed(backend.observe(Scope(vm="web")), moving) == {None}


def test_a_directory_that_cannot_be_written_is_not_known_and_a_full_one_is_another(
    moving: Moving, backend: LibvirtBackend
) -> None:
    destination, request = moving.other(), moving.request()
    with mounted_over(moving, destination, disks(moving), disks(moving), read_only=True):
        assert probed(backend.probe("0a1b2c3d", request), moving) == {None}
    with full_over(moving, destination, disks(moving)):
        facts = backend.probe("0a1b2c3d", request)
    assert probed(facts, moving) == {False}
    assert facts.hosts[destination].disks[moving.spec.disk_path].identity is None


@pytest.mark.rule("R1")
def test_a_conductor_killed_while_its_probe_is_there_leaves_nothing(moving: Moving) -> None:
    source, before = moving.place(), files(moving)
    seen: list[str] = []
    operation = moving.kill_at("probing", then=lambda _: seen.extend(probe_files(moving)))
    assert len(seen) == 2
    assert all(operation.id in name for name in seen)
    until(lambda: files(moving) == before, "the probe's files going away")
    assert moving.recover().end is Phase.FAILED
    assert moving.place() == source


def probe_files(moving: Moving) -> list[str]:
    """Wait for the probe's files of both hosts, and return their names."""

    def both() -> list[str]:
        found = [name for name in files(moving) if name.startswith(hostside.PROBE_PREFIX)]
        return found if len(found) == len(moving.group.hosts) else []

    return list(until(both, "the probe's files"))
