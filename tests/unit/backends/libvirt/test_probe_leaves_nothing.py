"""A probe takes back what it has written before it says what it has found, and also when it breaks off."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from refimpl.backends.libvirt import probe
from refimpl.backends.libvirt.facts import Looked
from refimpl.model.facts import DiskFact, VmFacts, VmState
from refimpl.model.request import MigrationRequest
from tests.unit.backends.libvirt.here import image, looked
from tests.unit.backends.libvirt.recorded import GROUP

REQUEST = MigrationRequest("web", "h2")


@pytest.fixture
def ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Looked]:
    """This machine as both hosts, the VM on h1 with one disk."""
    disk = DiskFact(image(tmp_path / "disk"), None)
    ends = [looked(name, disk) for name in ("h1", "h2")]
    moved = VmFacts("web", "id", VmState.RUNNING, 128, disks=(ends[0].facts.disks[disk.path],))
    ends[0].facts = replace(ends[0].facts, vms=(moved,))

    @contextmanager
    def looking(*_: Any) -> Iterator[list[Looked]]:
        try:
            yield ends
        finally:
            for end in ends:
                assert end.look is not None
                end.look.close()

    monkeypatch.setattr(probe, "looking", looking)
    return ends


@pytest.mark.rule("R5")
@pytest.mark.usefixtures("ends")
def test_there_is_nothing_left_when_the_facts_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[str]] = {}
    monkeypatch.setattr(probe, "stop_point", lambda _: seen.update(meanwhile=os.listdir(tmp_path)))
    monkeypatch.setattr(probe, "gathered", lambda *_: seen.update(told=os.listdir(tmp_path)))
    probe.probe(GROUP, "0a1b2c3d", REQUEST, 0.0)
    assert len(seen["meanwhile"]) == 3, "a file of each host was there"
    assert seen["told"] == ["disk"]


@pytest.mark.rule("R5")
@pytest.mark.usefixtures("ends")
def test_a_probe_that_breaks_off_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks_off(_point: str) -> None:
        raise OSError("broken off")

    monkeypatch.setattr(probe, "stop_point", breaks_off)
    with pytest.raises(OSError, match="broken off"):
        probe.probe(GROUP, "0a1b2c3d", REQUEST, 0.0)
    assert os.listdir(tmp_path) == ["disk"]
