"""This machine as a host, without namespaces: what a look's helper does is really done."""

from __future__ import annotations

import sys
from pathlib import Path

from refimpl.backends.libvirt.facts import Looked
from refimpl.backends.libvirt.look import Look
from refimpl.hosts.talk import Talk
from refimpl.model.facts import DiskFact, HostFacts
from tests.unit.backends.libvirt.recorded import FakeChannel, host


class HereChannel(FakeChannel):
    """Helpers run on this machine; the rest is as a fake channel has it."""

    def talk(self, program: str) -> Talk:
        """Start the program here."""
        return Talk([sys.executable, "-I", "-S", "-c", program])


def looked(name: str, *disks: DiskFact) -> Looked:
    """Return a host that is looked at, with the files as this machine sees them."""
    look = Look(HereChannel())
    seen = look.disks({disk.path: disk for disk in disks})
    facts = HostFacts(name, reachable=True, disks={path: one.fact for path, one in seen.items()})
    return Looked(host(name), look, facts, seen)


def image(path: Path, *parts: tuple[int, bytes], size: int = 4096) -> str:
    """Make a file of that size with bytes at offsets; return its path."""
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in parts:
            file.seek(offset)
            file.write(data)
    return str(path)
