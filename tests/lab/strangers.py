"""Strangers at the ports of a lab's host: which ports listen, and what one without a good certificate gets there."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from refimpl.hosts import netns
from refimpl.hosts.command import run_local
from refimpl.lab import Lab, layout
from refimpl.lab import certificates as pki
from refimpl.lab.certificates import Authority, Validity
from tests.lab.lab_support import run_on

CONTROL_PORT = 16514
INCOMING_PORTS = range(49152, 49216)
ADDRESS = "10.90.1.99"
TIMEOUT_S = 10.0
_TLS_ALERT = b"\x15\x03"
_LISTEN = "0A"


@dataclass(frozen=True)
class Answer:
    """What a stranger got: everything that came back, and whether the other side ended it."""

    data: bytes
    ended: bool

    @property
    def refused(self) -> bool:
        """He was shown the door, and was told nothing but that."""
        return self.ended and (not self.data or self.data.startswith(_TLS_ALERT))


def listening(lab: Lab, host: str) -> list[int]:
    """Return the TCP ports that listen in a host's network namespace."""
    text = run_on(lab, host, "cat", "/proc/net/tcp", "/proc/net/tcp6")
    rows = [line.split() for line in text.splitlines()]
    return sorted({int(row[1].rpartition(":")[2], 16) for row in rows if len(row) > 3 and row[3] == _LISTEN})


@contextmanager
def stranger(lab: Lab, host: str) -> Iterator[None]:
    """Be somebody else in the migration network: with an address of his own, behind the cable of a host."""
    name = layout.netns_name(lab.id, host)
    address = f"{ADDRESS}/{layout.PREFIX_LENGTH}"
    assert run_local(["ip", "-n", name, "address", "add", address, "dev", layout.migration_link(0)]).status == 0
    with open("/proc/thread-self/ns/net", "rb") as before:
        netns.enter(name)
        try:
            yield
        finally:
            netns.enter_open(before.fileno())
            run_local(["ip", "-n", name, "address", "delete", address, "dev", layout.migration_link(0)])


@contextmanager
def held_back(lab: Lab, source: str, destination: str) -> Iterator[None]:
    """Let nothing of the source come to the ports at which the destination's QEMU waits for a VM."""
    entry = lab.group.host(source)
    assert entry is not None
    ports = f"{INCOMING_PORTS.start}-{INCOMING_PORTS.stop - 1}"
    rules = (
        "add table inet strangers\n"
        "add chain inet strangers input { type filter hook input priority 0; }\n"
        f"add rule inet strangers input ip saddr {entry.migration_networks[0].address} tcp dport {ports} drop\n"
    )
    command = [*lab.shell_command(destination, "nft"), "-f", "-"]
    assert run_local(command, stdin=rules).status == 0
    try:
        yield
    finally:
        assert run_local(lab.shell_command(destination, "nft", "delete", "table", "inet", "strangers")).status == 0


def contexts(lab: Lab, directory: Path) -> dict[str, ssl.SSLContext | None]:
    """Return how strangers come: in the clear, without a certificate, with one of their own making in our names."""
    own = Authority.create(lab.id, Validity.around(pki.now()))
    pair = own.issue(lab.id, "conductor", ["10.90.0.1"], Validity.around(pki.now()))
    pki.write_files(directory, pki.client_files(own.pair.certificate, pair))
    forged = _context()
    forged.load_cert_chain(directory / "clientcert.pem", directory / "clientkey.pem")
    return {"in the clear": None, "without a certificate": _context(), "with a certificate of another CA": forged}


def member(lab: Lab) -> ssl.SSLContext:
    """Return how the conductor comes, who is no stranger: by this it is seen that a welcome is told from a refusal."""
    context = _context()
    directory = lab.paths.conductor_pki
    context.load_cert_chain(directory / "clientcert.pem", directory / "clientkey.pem")
    return context


def ask(address: str, port: int, context: ssl.SSLContext | None) -> Answer:
    """Come to a port as a stranger, say something, and take what comes back until the other side ends it."""
    with socket.create_connection((address, port), TIMEOUT_S, source_address=(ADDRESS, 0)) as plain:
        data = bytearray()
        try:
            with context.wrap_socket(plain) if context else plain as talk:
                talk.sendall(b"QEVM" + bytes(4096))
                while piece := talk.recv(65536):
                    data += piece
        except TimeoutError:
            return Answer(bytes(data), False)
        except OSError:
            pass  # refused in words of TLS, or reset
        return Answer(bytes(data), True)


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
