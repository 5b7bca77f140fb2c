"""Machine type and versions: the configuration has to be known there; versions compare as numbers."""

from __future__ import annotations

import pytest

from refimpl.checks.version import parsed
from refimpl.model.facts import VmState
from tests.builders import vm
from tests.judging import found, passed, seen, warned


@pytest.mark.rule("R5")
@pytest.mark.error("machine.unsupported")
@pytest.mark.parametrize("state", [VmState.RUNNING, VmState.PAUSED, VmState.OFF])
def test_a_machine_type_that_an_older_qemu_lacks(state: VmState) -> None:
    older = {"machine_types": frozenset({"pc-q35-7.2"}), "versions": {"libvirt": "12.6.0", "qemu": "7.2.0"}}
    problems = found(seen(vm(state=state), **older))
    assert set(problems) == {"machine.unsupported"}
    assert "QEMU 7.2.0" in problems["machine.unsupported"].text
    assert "QEMU 11.0.0" in problems["machine.unsupported"].text


def test_machine_types_that_are_not_told_are_not_judged() -> None:
    assert passed(seen(machine_types=None))


@pytest.mark.error("version.older")
def test_an_older_qemu_that_knows_the_machine_type_is_a_warning() -> None:
    shown = seen(versions={"libvirt": "12.6.0", "qemu": "10.9.9"})
    assert warned(shown)["version.older"].values["there"] == "10.9.9"
    assert passed(seen(here={"versions": {"qemu": "10.9.9"}}))
    assert passed(seen(vm(state=VmState.OFF), versions={"qemu": "10.9.9"}))
    assert passed(seen(versions={"qemu": "of my own"}))


def test_versions_compare_as_numbers() -> None:
    assert parsed("9.2.0") < parsed("10.0") < parsed("10.0.2 (Debian 1:10.0.2)") < parsed("10.1.0")
    assert parsed("11.0.0") == parsed("11")
    assert parsed("") is None
    assert parsed("v9") is None
