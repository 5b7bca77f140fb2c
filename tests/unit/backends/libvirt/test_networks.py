"""libvirt's own networks are asked for only where its network driver is: elsewhere the daemon logs each question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from refimpl.backends.libvirt import facts

IN_LIBVIRTD, OF_ITS_OWN = "/run/libvirt/network/driver.pid", "/run/libvirt/virtnetworkd-sock"


class Daemon:
    """Counts how often it is asked."""

    asked = 0

    def listNetworks(self) -> list[str]:
        self.asked += 1
        return ["default"]


class Look:
    """A host on which these files are."""

    def __init__(self, *files: str) -> None:
        self.files = files

    def modes(self, paths: Sequence[str]) -> Mapping[str, int]:
        return {path: 0o644 for path in paths if path in self.files}


@pytest.mark.parametrize("file", [IN_LIBVIRTD, OF_ITS_OWN])
def test_a_daemon_with_the_driver_tells_its_networks(file: str) -> None:
    daemon = Daemon()
    assert facts._networks(daemon, Look(file)) == {"default"}  # type: ignore[arg-type]
    assert daemon.asked == 1


def test_a_daemon_without_the_driver_is_not_asked() -> None:
    daemon = Daemon()
    assert facts._networks(daemon, Look("/run/libvirt/libvirt-sock")) == frozenset()  # type: ignore[arg-type]
    assert daemon.asked == 0
