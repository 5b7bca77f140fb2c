"""Status files as libvirt 11.3 wrote them during one encrypted strict move, shortened; and what unit tests share."""

from __future__ import annotations

from collections.abc import Sequence

from refimpl.hosts.channel import Completed
from refimpl.model.group import ChannelSpec, Group, HostEntry, MigrationNetwork, ProcessRef
from refimpl.model.request import Plan

_HEAD = """<!--
WARNING: THIS IS AN AUTO-GENERATED FILE. CHANGES TO IT ARE LIKELY TO BE
OVERWRITTEN AND LOST. Changes to this xml configuration should be made using:
  virsh edit a &amp; b
or other application using the libvirt API.
-->

"""
_BODY = """
  <taint flag='custom-monitor'/>
  <monitor path='/var/lib/libvirt/qemu/domain-1-a &amp; b/monitor.sock' type='unix'/>
{job}  <devices>
    <device alias='serial1'/>
    <device alias='virtio-disk0'/>
  </devices>
  <domain type='qemu' id='1'>
    <name>a &amp; b</name>
    <uuid>e56501d5-d362-4955-ae31-ab63d9826159</uuid>
  </domain>
</domstatus>
"""


def status_file(state: str, reason: str, pid: int, job: str = "") -> bytes:
    return f"{_HEAD}<domstatus state='{state}' reason='{reason}' pid='{pid}'>{_BODY.format(job=job)}".encode()


def _job(direction: str, phase: str) -> str:
    named = f" phase='{phase}'" if phase else ""
    return (
        f"  <job type='none' async='migration {direction}'{named} flags='0x1003b' asyncStarted='1795501135995'>\n"
        "    <disk dev='vda' migrating='no'/>\n    <migParams>\n"
        "      <param name='max-bandwidth' value='134217728'/>\n    </migParams>\n  </job>\n"
    )


BOOTED = status_file("running", "booted", 38)
SOURCE_BEGINS = status_file("running", "booted", 38, _job("out", ""))
SOURCE_SENDS = status_file("running", "booted", 38, _job("out", "perform3"))
SOURCE_STANDS = status_file("paused", "migration", 38, _job("out", "perform3"))
SOURCE_WAITS = status_file("paused", "migration", 38, _job("out", "perform3_done"))
SOURCE_BOUND = status_file("paused", "migration", 38, _job("out", "confirm3"))
SOURCE_DENIED = status_file("paused", "migration", 38, _job("out", "confirm3_cancelled"))
SOURCE_BACK = status_file("running", "migration-canceled", 38)
SOURCE_FORGOTTEN = status_file("paused", "migration", 38)
DESTINATION_STARTS = status_file("paused", "starting up", 54, _job("in", "prepare"))
DESTINATION_RECEIVES = status_file("paused", "migration", 54, _job("in", "prepare"))
DESTINATION_FINISHES = status_file("paused", "user", 54, _job("in", "finish3"))
DESTINATION_ARRIVED = status_file("paused", "user", 54)
DESTINATION_RUNS = status_file("running", "unpaused", 54)

VM_ID = "e56501d5-d362-4955-ae31-ab63d9826159"
PLAN = Plan("a & b", VM_ID, "h1", "h2", ("192.0.2.12",), memory_mib=128)


def host(name: str, switch: str = "vmswitch") -> HostEntry:
    return HostEntry(
        name=name,
        uuid="",
        control_uri=f"qemu+tls://{name}/system",
        peer_uri=f"qemu+tls://{name}/system",
        management_address="192.0.2.1",
        migration_networks=(MigrationNetwork("migration", "192.0.2.12"),),
        memory_mib=1024,
        channel=ChannelSpec("namespace", ProcessRef(1, 1, "b")),
        virtual_switch=switch,
        log_directory=f"/logs/{name}",
    )


GROUP = Group(
    id="0a1b2c",
    name="lab",
    hosts=(host("h1"), host("h2")),
    store_path="/g/store",
    shared_directory="/g/shared",
    lease_directory="/g/shared/leases",
)


class FakeChannel:
    """A host made of files; what is missing does not exist, and a host that is down raises."""

    def __init__(self, files: dict[str, bytes] | None = None, answers: dict[str, Completed] | None = None) -> None:
        self.files = files or {}
        self.answers = answers or {}
        self.down = False
        self.commands: list[list[str]] = []

    def run(self, command: Sequence[str], *, timeout_s: float = 30.0, stdin: str | None = None) -> Completed:
        if self.down:
            raise OSError("host is down")
        self.commands.append(list(command))
        return self.answers.get(command[0], Completed(0, "", ""))

    def read(self, path: str) -> bytes:
        if self.down:
            raise OSError("host is down")
        if path not in self.files:
            raise FileNotFoundError(path)
        return self.files[path]

    def write(self, path: str, data: bytes, *, mode: int = 0o644) -> None:
        self.files[path] = data

    def outer_pid(self, inner_pid: int) -> int | None:
        return None
