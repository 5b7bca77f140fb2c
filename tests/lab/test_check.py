"""Comparing a VM of a real lab with its other host: in order, then not, then mended; and no trace of having looked."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from refimpl.app.check import choices_of, compare, save_report
from refimpl.backends.libvirt.backend import LibvirtBackend
from refimpl.engine.store import GroupStore
from refimpl.model.compatibility import CompatibilityReport, Verdict
from refimpl.model.request import MigrationRequest
from tests.lab.moving import Moving

pytestmark = pytest.mark.lab


def compared(moving: Moving, request: MigrationRequest) -> CompatibilityReport:
    backend = LibvirtBackend(moving.group, lambda _: None, time.time_ns)
    try:
        return compare(backend, GroupStore(Path(moving.group.store_path)), moving.group.id, request)
    finally:
        backend.close()


@pytest.mark.rule("R11")
@pytest.mark.rule("R5")
def test_compare_mend_and_compare_again_on_a_lab(moving: Moving, tmp_path: Path) -> None:
    there, shared = moving.other(), Path(moving.group.shared_directory)
    before = sorted(shared.rglob("*"))
    report = compared(moving, moving.request())
    assert report.problems == ()
    verdicts = {checked.family: checked.verdict for checked in report.checked}
    assert set(verdicts.values()) == {Verdict.OK}, report.checked
    assert "probed by writing" in next(c.text for c in report.checked if c.family == "storage")

    store = GroupStore(Path(moving.group.store_path))
    store.change_settings(there, lambda settings: replace(settings, migration_enabled=False))
    try:
        found = compared(moving, moving.request())
    finally:
        store.change_settings(there, lambda settings: replace(settings, migration_enabled=True))
    assert [(p.id, p.host) for p in found.incompatibilities] == [("migration.disabled", there)]
    save_report(tmp_path / "web.report", found)
    assert compared(moving, choices_of(tmp_path / "web.report", None, None)).compatible

    vm = moving.hosts()[moving.place()].vm(moving.spec.name)
    assert vm is not None
    assert (vm.operation, store.claims()) == (None, ())
    assert sorted(shared.rglob("*")) == before
