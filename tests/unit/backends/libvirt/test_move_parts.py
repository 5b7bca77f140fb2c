"""Compression, reservation of memory and the destination's port: what can be seen without a host."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from refimpl.backends.libvirt import compression, connection, port, reservation
from refimpl.backends.libvirt.connection import Connections
from refimpl.backends.libvirt.operation import Operation, Reach
from refimpl.backends.libvirt.tap import Taps
from refimpl.backends.libvirt.transfer import USUAL_DOWNTIME_MS, as_planned, flags, most_downtime_ms, parameters
from refimpl.hosts.channel import Completed
from refimpl.model.errors import Native
from refimpl.model.request import HandOver, VmState
from tests.unit.backends.libvirt.recorded import GROUP, PLAN, host

libvirt = pytest.importorskip("libvirt")

XML = """<domain><name>a</name><devices>
<interface type='bridge'><mac address='52:54:00:AA:00:01'/><source bridge='vmswitch'/></interface>
<interface type='bridge'><mac address='52:54:00:aa:00:02'/><source bridge='vmswitch'/></interface>
<interface type='user'><mac address='52:54:00:aa:00:03'/></interface></devices></domain>"""


class XmlDomain:
    def XMLDesc(self, _which: int) -> str:
        return XML


class Host:
    """A host that notes its commands and answers each as it is told."""

    def __init__(self, *answers: Completed) -> None:
        self.commands: list[str] = []
        self.answers = list(answers)

    def run(self, command: Any, *, timeout_s: float = 30.0, stdin: str | None = None) -> Completed:
        self.commands.append(" ".join(command) + ("" if stdin is None else f" <<{stdin}"))
        return self.answers.pop(0) if self.answers else Completed(0, "", "")

    def read(self, path: str) -> bytes:
        raise FileNotFoundError(path)

    def outer_pid(self, _inner_pid: int) -> int | None:
        return None


def test_zstd_goes_over_parallel_channels_and_xbzrle_over_the_one() -> None:
    zstd, xbzrle = (replace(PLAN, compression=method) for method in ("zstd", "xbzrle"))
    both = libvirt.VIR_MIGRATE_PARALLEL | libvirt.VIR_MIGRATE_COMPRESSED
    assert (compression.flags(PLAN), compression.flags(zstd)) == (0, both)
    assert compression.flags(xbzrle) == libvirt.VIR_MIGRATE_COMPRESSED
    assert flags(zstd) & both == both
    assert compression.parameters(PLAN) == {}
    assert compression.parameters(xbzrle) == {"compression": ["xbzrle"]}
    found = parameters(zstd, XmlDomain(), host("h1"), host("h2"))
    assert (found["compression"], found["compression.zstd.level"]) == (["zstd"], compression.ZSTD_LEVEL)
    assert found["parallel.connections"] == compression.CHANNELS
    assert found["tls.destination"] == "h2", "QEMU opens these channels itself and proves the name on each"


def test_a_method_that_is_not_known_is_no_method() -> None:
    with pytest.raises(ValueError, match="lzma"):
        compression.flags(replace(PLAN, compression="lzma"))


def test_packed_the_wire_carries_more_memory_than_its_bytes() -> None:
    native = {"memory_bps": 100, "memory_processed": 50, "memory_normal_bytes": 150}
    assert compression.memory_rate(PLAN, native) == 100
    assert compression.memory_rate(replace(PLAN, compression="zstd"), native) == 300
    assert compression.memory_rate(PLAN, {}) is None


@pytest.mark.rule("R8")
@pytest.mark.parametrize(
    ("limit_ms", "most_ms"), [(None, USUAL_DOWNTIME_MS), (50, 50), (5000, USUAL_DOWNTIME_MS), (0, 1)]
)
def test_qemu_never_begins_the_switch_beyond_the_limit(limit_ms: int | None, most_ms: int) -> None:
    assert most_downtime_ms(replace(PLAN, cancel_if_blackout_exceeds_ms=limit_ms)) == most_ms


@pytest.mark.rule("R1")
def test_with_the_strict_hand_over_the_copy_arrives_paused() -> None:
    paused = {
        hand_over: flags(replace(PLAN, hand_over=hand_over)) & libvirt.VIR_MIGRATE_PAUSED for hand_over in HandOver
    }
    assert paused[HandOver.STRICT] == libvirt.VIR_MIGRATE_PAUSED
    assert paused[HandOver.DELEGATED] == 0


@pytest.mark.rule("R13")
def test_the_destination_listens_in_the_network_of_the_plan_alone() -> None:
    found = parameters(replace(PLAN, networks=("10.1.0.2", "fd00::2"), network=1), XmlDomain(), host("h1"), host("h2"))
    assert (found["listen_address"], found["migrate_uri"]) == ("fd00::2", "tcp://[fd00::2]")


def test_a_vm_that_is_off_is_moved_as_its_definition_alone() -> None:
    off = replace(PLAN, vm_state=VmState.OFF, compression="zstd")
    wanted = ("OFFLINE", "PEER2PEER", "PERSIST_DEST", "UNDEFINE_SOURCE")
    assert flags(off) == sum(getattr(libvirt, f"VIR_MIGRATE_{name}") for name in wanted)
    assert set(parameters(off, XmlDomain(), host("h1"), host("h2"))) == {"persistent_xml"}


class StateDomain:
    def __init__(self, state: int) -> None:
        self._state = state

    def state(self) -> list[int]:
        return [self._state, 1]


@pytest.mark.parametrize("planned", [VmState.OFF, VmState.PAUSED, VmState.RUNNING])
def test_a_vm_whose_state_was_changed_since_it_was_planned_is_not_moved(
    monkeypatch: pytest.MonkeyPatch, planned: VmState
) -> None:
    native = {
        VmState.OFF: libvirt.VIR_DOMAIN_SHUTOFF,
        VmState.PAUSED: libvirt.VIR_DOMAIN_PAUSED,
        VmState.RUNNING: libvirt.VIR_DOMAIN_RUNNING,
    }
    monkeypatch.setattr(connection, "find", lambda found, _id: found)
    for state, number in native.items():
        if state is planned:
            as_planned(replace(PLAN, vm_state=planned), StateDomain(number))
            continue
        with pytest.raises(OSError, match=f"the VM is {state} on host h1 and not {planned} any more"):
            as_planned(replace(PLAN, vm_state=planned), StateDomain(number))
    with pytest.raises(OSError, match="no VM with the id"):
        as_planned(PLAN, None)


@pytest.mark.rule("R6")
def test_memory_is_taken_at_once_for_the_move_and_the_stored_definition_is_left() -> None:
    found = parameters(PLAN, XmlDomain(), host("h1"), host("h2"))
    for _ in range(2):
        allocation = ET.fromstring(found["destination_xml"]).findall("memoryBacking/allocation")
        assert [a.get("mode") for a in allocation] == ["immediate"]
        found["destination_xml"] = reservation.reserved(found["destination_xml"])
    assert "memoryBacking" not in found["persistent_xml"]


@pytest.mark.rule("R16")
def test_the_switches_and_addresses_of_a_vm_are_read_from_its_definition() -> None:
    assert port.switches(XML) == ("vmswitch",)
    assert port.addresses(XML) == ("52:54:00:aa:00:01", "52:54:00:aa:00:02", "52:54:00:aa:00:03")


@pytest.mark.rule("R16")
def test_a_port_that_is_proved_is_taken_away_whatever_became_of_it() -> None:
    there = Host(Completed(1, "", "Cannot find device\nmore"))
    with pytest.raises(OSError, match=r"no port on the virtual switch 'vmswitch': Cannot find device$"):
        port.prove(there, "0a1b2c3d", ("vmswitch",))
    (command,) = there.commands
    assert command.startswith("ip -force")
    assert command.rstrip().endswith("link delete dev rp0a1b2c3d")


@pytest.mark.rule("R16")
def test_what_an_earlier_move_of_the_vm_left_shut_is_opened_and_no_other_vms() -> None:
    tables = Completed(0, "table bridge refimpl_old\ntable bridge refimpl_else\ntable bridge mine\n", "")
    there = Host(
        tables, Completed(0, "ether saddr 52:54:00:aa:00:01 drop", ""), Completed(0, "", ""), Completed(0, "", "")
    )
    port.shut(there, "new", port.addresses(XML))
    deleted = [c for c in there.commands if "delete table" in c]
    assert any("delete table bridge refimpl_old" in c for c in deleted)
    assert not any("refimpl_else" in c for c in deleted)
    assert "add table bridge refimpl_new" in there.commands[-1]
    assert "52:54:00:aa:00:01, 52:54:00:aa:00:02" in there.commands[-1]


@pytest.mark.rule("R16")
def test_a_vm_without_a_card_has_no_port_to_shut() -> None:
    there = Host()
    port.shut(there, "op", ())
    port.prove(there, "op", ())
    assert there.commands == []


@pytest.mark.rule("R16")
def test_opening_twice_is_the_same_as_once_and_a_refusal_is_told() -> None:
    port.open_again(Host(Completed(1, "", "Error: No such file or directory\n")), "op")
    with pytest.raises(OSError, match="the port cannot be opened: Error: Operation not permitted"):
        port.open_again(Host(Completed(1, "", "Error: Operation not permitted\n")), "op")
    with pytest.raises(OSError, match="status 127"):
        port.clear(Host(Completed(0, "", ""), Completed(127, "", "")), "op")


@pytest.mark.rule("R6")
@pytest.mark.parametrize(
    ("code", "domain", "text", "short"),
    [
        (1, 10, "QEMU: cannot set up guest memory 'pc.ram': Cannot allocate memory", True),
        (1, 10, "internal error: process exited while connecting to monitor", True),
        (1, 10, "internal error: process exited while connecting to monitor: unknown device", False),
        (1, 7, "client socket is closed: Cannot allocate memory", False),
        (9, 10, "operation failed: Cannot allocate memory", False),
    ],
)
def test_a_destination_that_cannot_start_for_want_of_memory_is_told_from_other_reasons(
    monkeypatch: pytest.MonkeyPatch, code: int, domain: int, text: str, short: bool
) -> None:
    native = Native(f"libvirt/{domain}", code, text)
    monkeypatch.setattr(connection, "native", lambda _: native)
    operation = Operation("op", PLAN, Reach(GROUP, PLAN, Connections(), Taps(lambda: 0)), lambda _: None, lambda: 0)
    problem = reservation.shortage(operation, OSError(text))
    assert (problem is not None) == short
    if problem is not None:
        assert (problem.id, problem.host, problem.native) == ("memory.not_reserved", PLAN.destination, native)
        assert f"{PLAN.memory_mib} MiB" in problem.text


@pytest.mark.rule("R16")
def test_a_shut_port_drops_the_vms_own_frames_and_lets_the_uplinks_pass() -> None:
    told = Host()
    port.shut(told, "op", ("52:54:00:aa:00:01",))
    assert 'ports meta iifkind "tun" ether saddr { 52:54:00:aa:00:01 } drop\n' in told.commands[-1]
