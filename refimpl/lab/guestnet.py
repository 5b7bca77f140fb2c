"""Addresses for guests that ask for one: dnsmasq in the lab's management network, bound to its link to the VM network.

It answers only guests whose adapters it was told of, gives each its own address, and nothing else: no name service, no
router, no way out of the lab. It is started with the first guest that needs it and ends with the lab.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from refimpl.hosts import process
from refimpl.hosts.command import replace_file
from refimpl.hosts.wait import until
from refimpl.lab import layout
from refimpl.lab.service import Services
from refimpl.model.group import ProcessRef

SERVICE = "dhcp"
_READY_S = 15.0
_POLL_S = 0.02
# Root, as only root may look into a lab's directory; but with no more of root's rights than it needs.
_FEW_RIGHTS = ("setpriv", "--bounding-set", "-all,+net_admin,+net_raw,+net_bind_service,+setgid")
_DHCP_PORT = "0043"  # 67, as the kernel's table of UDP sockets writes it


@dataclass(frozen=True, slots=True)
class GuestNetwork:
    """The address service of one lab."""

    services: Services

    @property
    def leases(self) -> Path:
        """The file in which dnsmasq keeps what it has given."""
        return self.services.directory / "dhcp.leases"

    def give(self, wanted: Callable[[], Mapping[str, str]]) -> None:
        """Serve exactly the addresses wanted (MAC address -> IPv4 address) from now on; starts the service if need be.

        They are asked for while nobody else changes them. LabError `lab.service_failed` when it does not come up.
        """
        with self.services.held():
            addresses = wanted()
            text = "".join(f"{mac},{address}\n" for mac, address in sorted(addresses.items()))
            replace_file(self._file("hosts"), text.encode(), 0o644)
            self._forget_leases(addresses)
            running = self.services.find(SERVICE)
            if running is not None:
                process.send_signal(running, signal.SIGHUP)
            elif addresses:
                self._start()

    def leased(self) -> Mapping[str, str]:
        """Return the addresses that guests have taken: MAC address -> IPv4 address."""
        try:
            rows = [line.split() for line in self.leases.read_text("ascii", "replace").splitlines()]
        except OSError:
            return {}
        return {row[1]: row[2] for row in rows if len(row) > 2}

    def _forget_leases(self, addresses: Mapping[str, str]) -> None:
        """End the service when it keeps an address for an adapter that is gone: it would give it to no other."""
        if all(addresses.get(mac) == address for mac, address in self.leased().items()):
            return
        self.services.stop(SERVICE)
        rows = self.leases.read_text("ascii").splitlines(keepends=True)
        kept = "".join(row for row in rows if len(row.split()) > 2 and addresses.get(row.split()[1]) == row.split()[2])
        replace_file(self.leases, kept.encode(), 0o644)

    def _start(self) -> None:
        log = self._file("log")
        replace_file(self._file("conf"), configuration(self._file("hosts"), self.leases).encode(), 0o644)
        command = [*_FEW_RIGHTS, "dnsmasq", "--keep-in-foreground", f"--conf-file={self._file('conf')}"]
        daemon = self.services.start(SERVICE, command, log=log)
        until(lambda: _serves(daemon) or not process.alive(daemon), _READY_S, _POLL_S)
        if not _serves(daemon):
            process.kill(daemon)
            raise self.services.failed(SERVICE, log)

    def _file(self, kind: str) -> Path:
        return self.services.directory / f"dhcp.{kind}"


def configuration(hosts: Path, leases: Path) -> str:
    """Return dnsmasq's configuration. It reads `hosts` again on SIGHUP; options without a value are not sent."""
    network = f"{layout.VM_SUBNET}.0"
    lines = (
        "port=0",
        f"interface={layout.VM_LINK}",
        "except-interface=lo",
        "bind-interfaces",
        f"dhcp-range={network},static,255.255.255.0,12h",
        "dhcp-authoritative",
        "no-ping",
        "dhcp-option=option:router",
        "dhcp-option=option:dns-server",
        f"dhcp-hostsfile={hosts}",
        f"dhcp-leasefile={leases}",
        "log-facility=-",
        "pid-file",
        "user=root",
        "group=root",
    )
    return "\n".join((*lines, ""))


def _serves(daemon: ProcessRef) -> bool:
    try:
        table = Path(f"/proc/{daemon.pid}/net/udp").read_text(encoding="ascii")
    except OSError:
        return False
    return any(line.split()[1].endswith(f":{_DHCP_PORT}") for line in table.splitlines()[1:])
