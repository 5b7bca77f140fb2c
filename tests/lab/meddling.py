"""What can be done to a lab's networks so that an observer of the network has to notice."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from refimpl.backends.libvirt.domain import mac_address
from refimpl.guest.commands import STREAM_PORT
from refimpl.hosts import netns
from refimpl.lab import layout
from refimpl.meter.frames import mac_bytes
from tests.lab.moving import Moving
from tests.unit.meter.packets import ethernet, tcp_frame

_TABLE = "refimpl_reset"


def send_on(moving: Moving, host: str, link: str, frame: bytes) -> None:
    """Send a frame by a host's link, so that it comes in at the port of the lab's switch."""

    def send() -> None:
        netns.enter(layout.netns_name(moving.lab.id, host))
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
            sock.bind((link, 0))
            sock.send(frame)

    with ThreadPoolExecutor(max_workers=1) as pool:  # a thread of its own: it stays in the host's network
        pool.submit(send).result()


def speak_as_the_vm(moving: Moving, host: str) -> None:
    """Let a host send a frame with the VM's MAC address, as a copy that runs there would."""
    frame = ethernet(b"\xff" * 6, mac_bytes(mac_address(moving.spec.id)), 0x88B5, bytes(46))
    send_on(moving, host, layout.VM_LINK, frame)


def leak(moving: Moving, host: str, secret: bytes) -> None:
    """Send something in clear by a host's first migration network."""
    send_on(moving, host, layout.migration_link(0), tcp_frame(b"in clear: " + secret))


@contextmanager
def connections_reset() -> Iterator[None]:
    """Reset TCP connections to the guest's stream from where the caller is, as a firewall that forgot them would."""
    chain = f"add table ip {_TABLE}; add chain ip {_TABLE} out {{ type filter hook output priority 0; }}"
    _nft(f"{chain}; add rule ip {_TABLE} out tcp dport {STREAM_PORT} reject with tcp reset")
    try:
        yield
    finally:
        _nft(f"delete table ip {_TABLE}")


def _nft(commands: str) -> None:
    subprocess.run(["nft", commands], check=True)
