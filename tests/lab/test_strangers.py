"""Whoever has no good certificate gets nothing at any port that listens, in SETUP and in MEMORY.

Moves without encryption are the one exception, by nature: QEMU's port is then open to everybody, and it is shown here.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from refimpl.model.phase import Phase
from tests.lab import strangers
from tests.lab.libvirt_support import host_of
from tests.lab.moving import Moving, until, wait_for

pytestmark = pytest.mark.lab


def all_answers(moving: Moving, behind: str, ports: dict[str, list[int]], directory: Path) -> dict[str, bool]:
    """Come to every port of every host in every way; return who was refused."""
    found = {}
    ways = strangers.contexts(moving.lab, directory / "forged")
    with strangers.stranger(moving.lab, behind):
        for host, numbers in ports.items():
            address = host_of(moving.group, host).migration_networks[0].address
            for port in numbers:
                for way, context in ways.items():
                    found[f"{way} at port {port} of {host}"] = strangers.ask(address, port, context).refused
    return found


def ports_of(moving: Moving) -> dict[str, list[int]]:
    return {host.name: strangers.listening(moving.lab, host.name) for host in moving.group.hosts}


def incoming(ports: list[int]) -> list[int]:
    return [port for port in ports if port in strangers.INCOMING_PORTS]


@pytest.mark.parametrize("option", ["TCPIP", "Compression"])
def test_in_setup_no_stranger_gets_anything(moving: Moving, tmp_path: Path, option: str) -> None:
    source, destination = moving.place(), moving.other()
    with strangers.held_back(moving.lab, source, destination):
        operation = moving.start(source=source, destination=destination, performance_option=option)
        until(lambda: incoming(strangers.listening(moving.lab, destination)), "the port of the destination's QEMU")
        ports = ports_of(moving)
        assert all(strangers.CONTROL_PORT in numbers for numbers in ports.values())
        answers = all_answers(moving, source, ports, tmp_path)
        assert incoming(strangers.listening(moving.lab, destination)), "QEMU waits on"
    assert answers
    assert [who for who, refused in answers.items() if not refused] == []
    result = operation.wait()
    assert result.end is Phase.COMPLETED, result
    assert moving.place() == destination


def test_in_memory_no_stranger_gets_anything_and_the_move_goes_on(moving: Moving, tmp_path: Path) -> None:
    source, destination = moving.place(), moving.other()
    operation = moving.start(source=source, destination=destination, bandwidth_mib_s=3)
    wait_for(operation, "memory-seen")
    moving.hold_memory(source)
    ports = ports_of(moving)
    assert all(strangers.CONTROL_PORT in numbers for numbers in ports.values())
    assert incoming(ports[destination])
    answers = all_answers(moving, source, ports, tmp_path)
    assert answers
    assert [who for who, refused in answers.items() if not refused] == []
    with strangers.stranger(moving.lab, source):
        address = host_of(moving.group, destination).migration_networks[0].address
        welcomed = strangers.ask(address, strangers.CONTROL_PORT, strangers.member(moving.lab))
    assert not welcomed.refused, "a refusal would not be told from a welcome"
    moving.release_memory(source)
    assert operation.wait().end is Phase.COMPLETED
    assert moving.place() == destination


def test_without_encryption_qemus_port_is_open_to_everybody_and_the_outcome_says_so(moving: Moving) -> None:
    source, destination = moving.place(), moving.other()
    address = host_of(moving.group, destination).migration_networks[0].address
    with strangers.held_back(moving.lab, source, destination):
        operation = moving.start(source=source, destination=destination, encryption=False, performance_option="TCPIP")
        until(lambda: incoming(strangers.listening(moving.lab, destination)), "the port of the destination's QEMU")
        (port,) = incoming(strangers.listening(moving.lab, destination))
        with strangers.stranger(moving.lab, source):
            strangers.ask(address, port, None)
    result = operation.wait()
    # What the stranger said was taken for the VM: the move is spoilt, and nothing else.
    assert (result.end, result.encryption) == (Phase.FAILED, False), result
    assert moving.place() == source
