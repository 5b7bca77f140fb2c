"""Parents of a disk that moved are removed only when no VM of any host of the group needs them."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from refimpl.backends.libvirt import connection, disk_files, imageside
from refimpl.model.group import HostEntry
from refimpl.model.storage import DiskMove, SourceFile, StoragePlan
from tests.unit.backends.libvirt import recorded as r
from tests.unit.backends.libvirt.here import HereChannel
from tests.unit.backends.libvirt.mover import Move
from tests.unit.backends.libvirt.test_bad_targets import Domain


class Shared:
    """A VM that has moved from h1 to h2, and one of h3 that is based on the same image, on storage that all see."""

    def __init__(self, patch: pytest.MonkeyPatch, directory: Path) -> None:
        self.base, self.disk, other = (directory / f"{name}.qcow2" for name in ("base", "web", "other"))
        _create(self.base)
        _create(self.disk, self.base)
        _create(other, self.base)
        self.silent = ""
        self.domains: dict[str, list[Domain]] = {"h3": [Domain(other, "qcow2")]}
        patch.setattr(connection, "fresh", self._fresh)
        patch.setattr(connection, "find", lambda *_: True)
        patch.setattr(disk_files, "channel_for", lambda _: HereChannel())
        self._patch = patch

    def finish(self, *, parents: bool = True) -> list[str]:
        disk, base = (SourceFile(str(path), str(imageside.identity(str(path)))) for path in (self.disk, self.base))
        move = DiskMove(disk.path, "/there/web.qcow2", "qcow2", 1 << 20, disk.identity, (base.path,))
        made = Move(self._patch, storage=StoragePlan((move,), (disk, base) if parents else (disk,)))
        reach = made.operation.reach
        reach.group = replace(r.GROUP, hosts=(*r.GROUP.hosts, r.host("h3")))
        reach.source_channel = reach.destination_channel = HereChannel()
        return disk_files.finish(made.operation)

    @contextlib.contextmanager
    def _fresh(self, host: HostEntry) -> Iterator[Any]:
        if host.name == self.silent:
            raise OSError("no route to host")
        yield _Daemon(self.domains.get(host.name, []))


class _Daemon:
    def __init__(self, domains: list[Domain]) -> None:
        self._domains = domains

    def listAllDomains(self) -> list[Domain]:
        return self._domains


def _create(path: Path, base: Path | None = None) -> None:
    based = [] if base is None else ["-b", str(base), "-F", "qcow2"]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *based, str(path), "1M"], check=True)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shared:
    return Shared(monkeypatch, tmp_path)


@pytest.mark.rule("R3")
def test_what_a_vm_of_a_third_host_is_based_on_stays(shared: Shared) -> None:
    (left,) = shared.finish()
    assert "base.qcow2, which another VM has" in left
    assert (shared.disk.exists(), shared.base.exists()) == (False, True)


@pytest.mark.rule("R3")
def test_what_nobody_needs_any_more_goes(shared: Shared) -> None:
    shared.domains = {}
    assert shared.finish() == []
    assert (shared.disk.exists(), shared.base.exists()) == (False, False)


@pytest.mark.rule("R3")
def test_nothing_goes_while_a_host_does_not_tell(shared: Shared) -> None:
    shared.silent = "h3"
    left = shared.finish()
    assert len(left) == 2
    assert all("host h3 does not tell which files its VMs need: no route to host" in item for item in left)
    assert shared.base.exists()


@pytest.mark.rule("R3")
def test_where_no_parent_goes_nobody_else_is_asked(shared: Shared) -> None:
    shared.silent = "h3"
    assert shared.finish(parents=False) == []
    assert (shared.disk.exists(), shared.base.exists()) == (False, True)
