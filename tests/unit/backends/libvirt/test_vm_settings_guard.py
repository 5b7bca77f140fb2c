"""The definition of a VM that is on is not changed, whoever asks and whatever was seen of it before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from refimpl.backends.libvirt import connection
from refimpl.backends.libvirt import vm_settings as v
from tests.unit.backends.libvirt.recorded import GROUP

libvirt = pytest.importorskip("libvirt")

XML = "<domain type='kvm'><name>one</name><memory>1</memory><vcpu>1</vcpu><cpu mode='host-model'/></domain>"


class Daemon:
    """The daemon of a host with one VM, and the only domain of it."""

    def __init__(self, on: bool) -> None:
        self.on = on
        self.defined: list[str] = []

    def lookupByName(self, _name: str) -> Daemon:
        return self

    def isActive(self) -> int:
        return int(self.on)

    def XMLDesc(self, _which: int) -> str:
        return XML

    def defineXML(self, xml: str) -> None:
        self.defined.append(xml)


@pytest.mark.rule("R20")
@pytest.mark.parametrize("wanted", [{"compatible": True}, {"compatible": False}, {"memory_mib": 512}, {"vcpus": 2}])
def test_a_vm_that_was_switched_on_meanwhile_keeps_its_definition(
    monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any]
) -> None:
    """It was seen off, and was started since by somebody else."""
    daemon = Daemon(on=True)

    @contextmanager
    def fresh(_host: object) -> Iterator[Daemon]:
        yield daemon

    monkeypatch.setattr(connection, "fresh", fresh)
    with pytest.raises(OSError, match="VM 'one' is on; its definition is not changed"):
        v.define(GROUP.hosts[0], "one", **wanted)
    assert daemon.defined == []
    daemon.on = False
    v.define(GROUP.hosts[0], "one", **wanted)
    (xml,) = daemon.defined
    assert v.settings_of(xml).processor_compatibility is (wanted.get("compatible") is True)
