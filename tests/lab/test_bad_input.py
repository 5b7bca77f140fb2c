"""What stands in the way is found in CHECK and refused with exit code 3; nothing is changed, nothing is left."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from refimpl.app.home import Home
from refimpl.app.operations import start
from refimpl.backends.libvirt import vms
from refimpl.lab import CertificateKind
from refimpl.model.outcome import Outcome
from refimpl.model.phase import ExitCode, Phase, Side
from tests.lab.libvirt_support import host_of
from tests.lab.moving import Moving, kinds, wait_for

pytestmark = pytest.mark.lab


def refused(result: Outcome) -> set[str]:
    """Assert a refusal in CHECK or at the claim; return the ids of its problems, each with a mend."""
    assert (result.end, result.exit_code) == (Phase.REFUSED, ExitCode.REFUSED), result
    assert all(p.mend and p.why and p.phase for p in result.problems)
    return {p.id for p in result.problems}


@pytest.mark.parametrize(
    ("changes", "id"),
    [({"vm": "nobody"}, "vm.unknown"), ({"destination": "h9"}, "host.unknown"), ({"source": "h9"}, "host.unknown")],
)
def test_unknown_names(moving: Moving, changes: dict[str, str], id: str) -> None:
    assert refused(moving.start(**changes).wait()) == {id}


def test_destination_is_the_source(moving: Moving) -> None:
    assert refused(moving.start(destination=moving.place()).wait()) == {"host.same"}


@pytest.mark.rule("R19")
def test_destination_down(moving: Moving) -> None:
    source, destination = moving.place(), moving.other()
    moving.lab.host_power_off(destination)
    try:
        result = moving.start(source=source, destination=destination).wait()
    finally:
        moving.lab.host_power_on(destination)
    assert refused(result) == {"host.down"}
    assert (result.problems[0].side, result.problems[0].host) == (Side.DESTINATION, destination)
    assert result.problems[0].native is not None


@contextmanager
def certificate(moving: Moving, host: str, kind: CertificateKind) -> Iterator[None]:
    moving.lab.replace_certificate(host, kind)
    try:
        yield
    finally:
        moving.lab.replace_certificate(host, CertificateKind.GOOD)


@pytest.mark.parametrize(
    ("kind", "id"),
    [(CertificateKind.EXPIRED, "certificate.expired"), (CertificateKind.OTHER_NAME, "certificate.wrong_name")],
)
def test_certificate_of_the_destination(moving: Moving, kind: CertificateKind, id: str) -> None:
    source, destination = moving.place(), moving.other()
    with certificate(moving, destination, kind):
        result = moving.start(source=source, destination=destination).wait()
    assert id in refused(result)
    assert {p.host for p in result.problems} == {destination}


def test_a_vm_of_the_same_name_at_the_destination(moving: Moving) -> None:
    there = host_of(moving.group, moving.other())
    other = replace(moving.spec, id="0f0f0f0f-1111-4222-8333-444444444444")
    request = moving.request()
    vms.create(moving.group, there, other)
    try:
        result = start(moving.home, moving.group, request).wait()
    finally:
        vms.remove(moving.group, there, other.name)
    assert refused(result) == {"vm.name_taken"}


@pytest.mark.rule("R10")
@pytest.mark.parametrize("same_home", [True, False], ids=["one controller", "two controllers"])
def test_two_moves_of_one_vm_at_once(moving: Moving, same_home: bool) -> None:
    source, destination = moving.place(), moving.other()
    first = moving.start(bandwidth_mib_s=3)
    wait_for(first, "memory-seen")
    moving.hold_memory(source)
    home = moving.home if same_home else Home(moving.directory / "another home")
    second = moving.start(home, source=source, destination=destination).wait()
    assert refused(second) <= {"vm.stamped", "vm.migrating", "vm.name_taken"}
    assert "vm.stamped" in {p.id for p in second.problems}
    assert first.alive()
    moving.release_memory(source)
    assert first.wait().end is Phase.COMPLETED
    assert moving.place() == destination


@pytest.mark.rule("R10")
def test_two_controllers_that_both_passed_the_check(moving: Moving) -> None:
    """The claim decides when both have looked before either has touched anything."""
    source, destination = moving.place(), moving.other()
    with moving.stop_at("intended:claim") as stop:
        late = moving.start(Home(moving.directory / "another home"))
        stop.reached()
        os.environ["REFIMPL_TEST_STOP"] = "nowhere"
        first = moving.start(source=source, destination=destination, bandwidth_mib_s=3)
        wait_for(first, "memory-seen")
        moving.hold_memory(source)
        stop.go()
        assert refused(late.wait()) == {"vm.migrating"}
    assert "claim-refused" in kinds(late)
    moving.release_memory(source)
    assert first.wait().end is Phase.COMPLETED
