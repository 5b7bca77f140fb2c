"""Services of a lab: the configuration of DHCP, port forwards, and what becomes of one that does not start."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from refimpl.hosts import process
from refimpl.lab import relay
from refimpl.lab.errors import LabError
from refimpl.lab.forward import Forward
from refimpl.lab.guestnet import GuestNetwork, configuration
from refimpl.lab.layout import LabPaths
from refimpl.lab.reaper import recorded_processes
from refimpl.lab.registry import Item, Kind, Registry
from refimpl.lab.service import Services
from refimpl.model.group import ProcessRef


@pytest.mark.parametrize(("text", "found"), [("8080:80", Forward(8080, 80)), ("22", Forward(22, 22))])
def test_a_forward_is_read(text: str, found: Forward) -> None:
    assert Forward.parse(text) == found


@pytest.mark.parametrize("text", ["", "a", "0", "80:0", "65536", "80:80:80", "80:", ":80", "-1", "8O", "٨٠"])
def test_what_is_no_forward_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="PORT"):
        Forward.parse(text)


@contextlib.contextmanager
def relayed(port: int) -> Iterator[int]:
    """Give a port that is passed on to another, by the relay in a thread."""
    listener = socket.create_server(("127.0.0.1", 0))
    loop = asyncio.new_event_loop()
    serving = loop.create_task(relay.serve(listener, "127.0.0.1", port))

    def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(serving)

    thread = threading.Thread(target=run)
    own_port = int(listener.getsockname()[1])
    thread.start()
    try:
        yield own_port
    finally:
        loop.call_soon_threadsafe(serving.cancel)
        thread.join(10)
        loop.close()


def test_a_relay_passes_both_directions_on_and_closes_each_for_itself() -> None:
    sent, answer = b"question" * 50_000, b"answer" * 70_000
    with socket.create_server(("127.0.0.1", 0)) as server, relayed(server.getsockname()[1]) as port:
        server.settimeout(10)
        with socket.create_connection(("127.0.0.1", port), timeout=10) as here:
            there, _ = server.accept()
            with there:
                there.settimeout(10)
                writer = threading.Thread(target=lambda: (here.sendall(sent), here.shutdown(socket.SHUT_WR)))
                writer.start()
                assert b"".join(iter(lambda: there.recv(65536), b"")) == sent
                writer.join(10)
                back = threading.Thread(target=lambda: (there.sendall(answer), there.shutdown(socket.SHUT_WR)))
                back.start()
                assert b"".join(iter(lambda: here.recv(65536), b"")) == answer
                back.join(10)


def test_a_connection_that_the_guest_does_not_take_is_closed_and_the_next_one_tried(capsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port_of_nobody = int(gone.getsockname()[1])
    with relayed(port_of_nobody) as port:
        for _ in range(2):
            with socket.create_connection(("127.0.0.1", port), timeout=10) as here:
                assert here.recv(10) == b""
    assert capsys.readouterr().err.count(str(port_of_nobody)) >= 2


@pytest.mark.skipif(shutil.which("dnsmasq") is None, reason="needs dnsmasq (ci/setup installs it)")
def test_dnsmasq_takes_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "conf"
    path.write_text(configuration(tmp_path / "hosts", tmp_path / "leases"))
    done = subprocess.run(["dnsmasq", "--test", f"--conf-file={path}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert configuration(tmp_path / "hosts", tmp_path / "leases").startswith("port=0\n")


@pytest.fixture
def services(tmp_path: Path) -> Services:
    paths = LabPaths(tmp_path, "abc123")
    paths.directory.mkdir()
    paths.lock.touch()
    Registry(paths.registry).note("lab", label="x")
    return Services(paths)


def test_leases_are_read_and_no_file_means_none(services: Services) -> None:
    network = GuestNetwork(services)
    assert network.leased() == {}
    services.directory.mkdir()
    network.leases.write_text("1700000000 52:54:00:00:00:01 10.90.2.100 * 01:52\nduid 00:01\n")
    assert network.leased() == {"52:54:00:00:00:01": "10.90.2.100"}


class Recording(Services):
    """Services that only tell what they were asked for."""

    def find(self, name: str) -> None:
        return None

    def stop(self, name: str) -> bool:
        (self.directory / f"stopped {name}").touch()
        return True


def test_an_address_that_a_removed_adapter_had_is_free_for_another(services: Services) -> None:
    network = GuestNetwork(Recording(services.paths))
    services.directory.mkdir()
    rows = [f"1700000000 52:54:00:00:00:0{n} 10.90.2.10{n} * 01\n" for n in (1, 2)]
    network.leases.write_text("".join(rows))
    with contextlib.suppress(LabError):  # there is no network to start it in
        network.give(lambda: {"52:54:00:00:00:02": "10.90.2.102", "52:54:00:00:00:03": "10.90.2.101"})
    assert network.leases.read_text() == rows[1]
    assert (services.directory / "stopped dhcp").exists()
    assert "52:54:00:00:00:03,10.90.2.101\n" in (services.directory / "dhcp.hosts").read_text()


class Failing(Services):
    """Services whose programs end at once."""

    def start(self, name: str, command: Sequence[str], *, log: Path, inherited: int | None = None) -> ProcessRef:
        log.write_text("first\nno such program\n")
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
            return process.here(child.pid)


@pytest.mark.error("lab.service_failed")
def test_a_service_that_ends_at_once_is_an_error_with_what_it_said(services: Services) -> None:
    network = GuestNetwork(Failing(services.paths))
    with pytest.raises(LabError, match="no such program") as caught:
        network.give(lambda: {"52:54:00:00:00:01": "10.90.2.100"})
    assert caught.value.id == "lab.service_failed"


def test_nothing_is_started_in_a_lab_that_is_being_removed(services: Services) -> None:
    with services.held():
        pass
    Registry(services.paths.registry).note("removing")
    with pytest.raises(LabError, match=r"lab\.unfinished"), services.held():
        pytest.fail("the lab is on its way out")
    services.paths.lock.unlink()
    with pytest.raises(LabError, match=r"lab\.unfinished"), services.held():
        pytest.fail("the lab is gone")


def test_services_are_no_part_of_what_a_lab_has_to_have_but_go_with_it(services: Services) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        ref = process.here(child.pid)
        identity = {"pid": ref.pid, "start_ticks": ref.start_ticks, "boot_id": ref.boot_id}
        Registry(services.paths.registry).made({Item(Kind.SERVICE, "dhcp"): identity})
        content = Registry(services.paths.registry).read()
        assert recorded_processes(content) == []
        assert recorded_processes(content, Kind.SERVICE) == [ref]
        assert services.find("dhcp") == ref
        assert services.find("other") is None
        assert services.stop("dhcp")
    assert services.find("dhcp") is None
    assert not services.stop("dhcp")
