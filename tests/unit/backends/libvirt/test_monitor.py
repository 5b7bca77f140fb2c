"""The second monitor socket: its place in a definition, and a question put to a QEMU that is only played."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from refimpl.backends.libvirt import definition, monitor
from refimpl.backends.libvirt.domain import VmSpec, domain_xml
from refimpl.backends.libvirt.look import Look
from refimpl.backends.libvirt.monitor import Refused
from refimpl.hosts.wait import until
from tests.unit.backends.libvirt.here import HereChannel
from tests.unit.backends.libvirt.recorded import GROUP, VM_ID, host

GREETING = {"QMP": {"version": {}, "capabilities": ["oob"]}}
EVENT = {"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 2}}


@contextmanager
def played(path: Path, *answers: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """Play a QEMU that gives these answers, one for each connection after its greeting, and note what it was told."""
    told: list[dict[str, Any]] = []
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()

    def serve() -> None:
        for answer in answers:
            connection, _ = listening.accept()
            with connection, connection.makefile("rw") as stream:
                stream.write(json.dumps(GREETING) + "\n")
                stream.flush()
                for reply in ({"return": {}}, answer):
                    told.append(json.loads(stream.readline()))
                    stream.write(json.dumps(EVENT) + "\n" + json.dumps(reply) + "\n")
                    stream.flush()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        listening.close()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "qmp"
    monkeypatch.setattr(monitor, "socket_path", lambda _: str(path))
    return path


@contextmanager
def standing_still(path: Path) -> Iterator[list[dict[str, Any]]]:
    """Play a QEMU whose main loop stands still once its one client is there: it answers only what passes that by."""
    told: list[dict[str, Any]] = []
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    closed = threading.Event()

    def serve() -> None:
        connection, _ = listening.accept()
        with connection, connection.makefile("rw") as stream:
            stream.write(json.dumps(GREETING) + "\n")
            stream.flush()
            for line in stream:
                told.append(json.loads(line))
                if "exec-oob" in told[-1] or told[-1]["execute"] == "qmp_capabilities":
                    stream.write(json.dumps(EVENT) + "\n" + json.dumps({"return": {}, "id": told[-1]["id"]}) + "\n")
                    stream.flush()
                if "exec-oob" in told[-1] and told[-1]["exec-oob"] == "quit":
                    break
        closed.set()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield told
    finally:
        listening.close()


def test_questions_are_put_and_answered_past_events(path: Path) -> None:
    answers = {"return": {"status": "active"}}, {"return": {}}
    with played(path, *answers) as told, monitor.monitor(HereChannel(), VM_ID) as own:
        assert own.execute("query-migrate") == {"status": "active"}
        assert own.execute("migrate-recover", {"uri": "tcp:192.0.2.1:1"}, oob=True) == {}
    assert told[0]["arguments"] == {"enable": ["oob"]}
    assert told[1] == {"execute": "query-migrate", "arguments": {}}
    assert told[3] == {"exec-oob": "migrate-recover", "arguments": {"uri": "tcp:192.0.2.1:1"}}


def test_a_no_is_told_in_qemus_words(path: Path) -> None:
    answer = {"error": {"class": "GenericError", "desc": "migrate-pause is currently only supported in post-copy"}}
    with played(path, answer), monitor.monitor(HereChannel(), VM_ID) as own, pytest.raises(Refused, match="post-copy"):
        own.execute("migrate-pause", oob=True)


def test_no_socket_and_no_answer_are_errors_of_the_host(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitor, "ANSWER_TIMEOUT_S", 0.2)
    with monitor.monitor(HereChannel(), VM_ID) as own:
        with pytest.raises(OSError, match="No such file"):
            own.execute("query-migrate")
        with socket.socket(socket.AF_UNIX) as silent:
            silent.bind(str(path))
            silent.listen()
            with pytest.raises(OSError, match="timed out"):
                own.execute("query-migrate")


def defined() -> ET.Element:
    spec = VmSpec("a", VM_ID, 128, "", "/k", "/i", "")
    return ET.fromstring(domain_xml(spec, GROUP, host("h1")))


def test_a_vm_that_is_made_here_has_the_socket_wherever_it_is() -> None:
    root = defined()
    assert monitor.has_socket(root)
    assert monitor.has_socket(ET.fromstring(ET.tostring(root)))
    assert monitor.socket_path(VM_ID) == f"/run/libvirt/qemu/refimpl-{VM_ID}.qmp"


def test_one_without_it_or_under_another_name_has_none() -> None:
    root = defined()
    other = next(arg for arg in root.iter(f"{{{monitor.NAMESPACE}}}arg") if arg.get("value") != "-qmp")
    other.set("value", "unix:/tmp/mine,server=on,wait=off")
    assert not monitor.has_socket(root)
    assert not monitor.has_socket(ET.fromstring(f"<domain><uuid>{VM_ID}</uuid></domain>"))


@pytest.mark.parametrize(
    ("inner", "told"),
    [
        ("", ""),
        ("<memoryBacking><allocation mode='immediate'/></memoryBacking>", ""),
        ("<memoryBacking><source type='anonymous'/><access mode='private'/></memoryBacking>", ""),
        ("<memoryBacking><hugepages/></memoryBacking>", "huge pages"),
        (
            "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>",
            "memfd memory, shared access",
        ),
        ("<devices><memory model='dimm'/></devices>", "a memory device"),
    ],
)
def test_what_memory_is_made_of(inner: str, told: str) -> None:
    assert definition.memory_backing(ET.fromstring(f"<domain>{inner}</domain>")) == told


def test_whether_a_user_can_be_told_of_missing_pages_is_tried_as_that_user() -> None:
    look = Look(HereChannel())
    try:
        assert look.ask("user_faults", uid=0, gid=0) in (True, False)
    finally:
        look.close()


def test_held_it_takes_what_passes_the_main_loop_by_and_does_not_fill_up(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "ANSWER_TIMEOUT_S", 0.2)
    here = HereChannel()
    with standing_still(path) as told:
        monitor.hold(here, VM_ID)
        held = Path(monitor.held_path(VM_ID))
        assert held.is_socket()
        with monitor.monitor(here, VM_ID) as own:
            for _ in range(10):
                with pytest.raises(OSError, match="timed out"):
                    own.execute("query-migrate")
            assert own.execute("migrate-recover", {"uri": "tcp:192.0.2.1:1"}, oob=True) == {}
        assert [next(iter(one)) for one in told] == ["execute", "execute", "exec-oob"]
        monitor.release(here, VM_ID)
        assert until(lambda: not held.exists(), 5.0, 0.01)
        monitor.release(here, VM_ID)


def test_the_keeper_ends_with_its_qemu(path: Path) -> None:
    here = HereChannel()
    with standing_still(path):
        monitor.hold(here, VM_ID)
        with monitor.monitor(here, VM_ID) as own:
            own.execute("quit", oob=True)
        assert until(lambda: not Path(monitor.held_path(VM_ID)).exists(), 5.0, 0.01)


def test_a_monitor_that_is_not_there_cannot_be_held(path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        monitor.hold(HereChannel(), VM_ID)
