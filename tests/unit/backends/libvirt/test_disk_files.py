"""Disks that move, as libvirt is told of them: flags, names, the definition at the destination, when they are seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from refimpl.backends.libvirt import disk_files
from refimpl.backends.libvirt.progress import disk_values
from refimpl.backends.libvirt.transfer import flags, parameters
from refimpl.backends.libvirt.watch import NativeEvent, Watch
from refimpl.model.events import Event, Kind
from refimpl.model.phase import Side
from refimpl.model.storage import DiskMove, StoragePlan
from tests.unit.backends.libvirt.recorded import PLAN, host

libvirt = pytest.importorskip("libvirt")

XML = """<domain><name>a</name><devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2' cache='none'/><source file='/data/a.qcow2' index='2'/>
<backingStore type='file' index='3'><format type='qcow2'/><source file='/data/base.qcow2'/></backingStore>
<target dev='vda' bus='virtio'/><address type='pci' slot='0x04'/></disk>
<disk type='block' device='disk'><source dev='/data/b.raw'/><target dev='vdb'/></disk>
<disk type='file' device='disk'><source file='/shared/c.raw'/><target dev='vdc'/></disk>
<disk type='file' device='cdrom'><target dev='sda'/></disk></devices></domain>"""

STORAGE = StoragePlan(
    (
        DiskMove("/data/a.qcow2", "/big/a.qcow2", "qcow2", 1 << 26, "1", ("/data/base.qcow2",)),
        DiskMove("/data/b.raw", "/big/b.raw", "raw", 1 << 20, "2"),
    )
)
MOVING = replace(PLAN, storage=STORAGE)


class Domain:
    def XMLDesc(self, _which: int) -> str:
        return XML


def test_disks_that_move_are_mirrored_at_both_hosts_from_the_beginning() -> None:
    both = libvirt.VIR_MIGRATE_NON_SHARED_DISK | libvirt.VIR_MIGRATE_NON_SHARED_SYNCHRONOUS_WRITES
    assert flags(MOVING) & both == both
    assert flags(PLAN) & both == 0
    assert flags(replace(PLAN, storage=StoragePlan(()))) & both == 0


def test_only_the_disks_of_the_plan_are_copied() -> None:
    found = parameters(MOVING, Domain(), host("h1"), host("h2"))
    assert found[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS] == ["vda", "vdb"]
    assert libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS not in parameters(PLAN, Domain(), host("h1"), host("h2"))


@pytest.mark.parametrize("name", ["destination_xml", "persistent_xml"])
def test_at_the_destination_disks_are_where_the_plan_puts_them_and_based_on_nothing(name: str) -> None:
    root = ET.fromstring(parameters(MOVING, Domain(), host("h1"), host("h2"))[name])
    first, second, third, drive = root.findall("devices/disk")
    assert [d.find("source").attrib for d in (first, second, third)] == [  # type: ignore[union-attr]
        {"file": "/big/a.qcow2"},
        {"file": "/big/b.raw"},
        {"file": "/shared/c.raw"},
    ]
    assert [len(d.findall("backingStore")) for d in (first, second, third, drive)] == [1, 1, 0, 0]
    assert len(first.find("backingStore")) == 0  # type: ignore[arg-type]
    assert second.get("type") == "file"
    assert first.find("address").attrib == {"type": "pci", "slot": "0x04"}  # type: ignore[union-attr]


def test_every_file_of_every_vm_of_a_host_is_in_use_with_the_format_of_its_disk() -> None:
    class Named(Domain):
        def isPersistent(self) -> bool:
            return True

    class Host:
        def listAllDomains(self) -> list[Named]:
            return [Named()]

    assert disk_files.used_disks(Host()) == {
        "/data/a.qcow2": "qcow2",
        "/data/base.qcow2": "qcow2",
        "/data/b.raw": "",
        "/shared/c.raw": "",
    }


def test_a_definition_whose_disks_stay_is_not_touched() -> None:
    assert disk_files.relocated(XML, None) == XML


def tell(watch: Watch, *names: tuple[str, str]) -> list[Event]:
    told = (NativeEvent("qmp", 1, name=name, details={"status": status}) for name, status in names)
    return [event for native in told for event in watch.tell(Side.SOURCE, native)]


def test_the_first_mirror_that_runs_begins_the_transfer() -> None:
    watch = Watch(MOVING, "job")
    watch.following = True
    jobs = [("JOB_STATUS_CHANGE", status) for status in ("created", "running", "running", "ready")]
    assert [e.kind for e in tell(watch, *jobs)] == [Kind.TRANSFER_STARTED, Kind.STORAGE_SEEN]
    assert (watch.sending, watch.in_memory_phase) == (True, False)
    assert [e.kind for e in tell(watch, ("MIGRATION", "setup"), ("MIGRATION", "active"))] == [Kind.MEMORY_SEEN]
    assert (watch.sending, watch.in_memory_phase) == (True, True)
    assert tell(watch, ("JOB_STATUS_CHANGE", "running")) == []


def test_block_jobs_of_a_move_without_disks_mean_nothing() -> None:
    watch = Watch(PLAN, "job")
    watch.following = True
    assert tell(watch, ("JOB_STATUS_CHANGE", "running")) == []
    assert not watch.sending


def test_progress_of_disks_by_libvirts_statistics() -> None:
    native: dict[str, Any] = {"disk_total": 10, "disk_remaining": 4, "disk_processed": 6, "disk_bps": 2}
    assert disk_values(native) == {
        "disks_total_bytes": 10,
        "disks_remaining_bytes": 4,
        "disks_sent_bytes": 6,
        "bytes_s": 2,
    }
