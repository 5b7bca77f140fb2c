"""Status files of libvirt: read as they were recorded, and judged by handover 1.2."""

from __future__ import annotations

import pytest

from refimpl.backends.libvirt import status
from refimpl.backends.libvirt.status import Status, judge_binding, parse_status
from refimpl.model.facts import VmState
from tests.unit.backends.libvirt import recorded as r


def read(text: bytes) -> Status:
    found = parse_status(text)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r.BOOTED, Status("running", "booted", 38)),
        (r.SOURCE_BEGINS, Status("running", "booted", 38, "migration out", "")),
        (r.SOURCE_SENDS, Status("running", "booted", 38, "migration out", "perform3")),
        (r.SOURCE_BOUND, Status("paused", "migration", 38, "migration out", "confirm3")),
        (r.SOURCE_BACK, Status("running", "migration-canceled", 38)),
        (r.DESTINATION_STARTS, Status("paused", "starting up", 54, "migration in", "prepare")),
        (r.DESTINATION_ARRIVED, Status("paused", "user", 54)),
    ],
)
def test_a_recorded_file_is_read(text: bytes, expected: Status) -> None:
    assert read(text) == expected


def test_what_is_no_status_file_is_none() -> None:
    assert parse_status(b"<domain type='qemu'/>") is None


@pytest.mark.parametrize(
    ("text", "state"),
    [
        (r.BOOTED, VmState.RUNNING),
        (r.SOURCE_STANDS, VmState.PAUSED),
        (r.DESTINATION_STARTS, VmState.PLANNED),
        (r.DESTINATION_RECEIVES, VmState.PLANNED),
        (r.DESTINATION_FINISHES, VmState.PAUSED),
        (r.DESTINATION_ARRIVED, VmState.PAUSED),
        (r.status_file("shutoff", "shutdown", 0), VmState.OFF),
        (r.status_file("novel", "unknown", 3), VmState.UNKNOWN),
    ],
)
def test_the_state_is_told_in_the_models_words(text: bytes, state: VmState) -> None:
    assert read(text).vm_state is state


UNKNOWN_PHASE = r.SOURCE_BOUND.replace(b"confirm3", b"confirm9")


@pytest.mark.rule("R1")
@pytest.mark.parametrize(
    ("source", "destination", "gone", "bound"),
    [
        (r.SOURCE_BOUND, r.DESTINATION_ARRIVED, False, True),
        (None, r.DESTINATION_ARRIVED, False, True),
        (r.SOURCE_WAITS, r.DESTINATION_ARRIVED, True, True),
        (r.SOURCE_FORGOTTEN, r.DESTINATION_ARRIVED, True, True),
        (r.SOURCE_WAITS, r.DESTINATION_ARRIVED, False, None),
        (r.SOURCE_STANDS, r.DESTINATION_RECEIVES, False, None),
        (r.SOURCE_FORGOTTEN, r.DESTINATION_ARRIVED, False, None),
        (UNKNOWN_PHASE, r.DESTINATION_ARRIVED, False, None),
        (r.SOURCE_BOUND, r.DESTINATION_FINISHES, False, None),
        (r.SOURCE_BOUND, r.DESTINATION_FINISHES, True, None),
        (r.SOURCE_BOUND, None, False, None),
        (None, None, True, None),
        (r.SOURCE_DENIED, r.DESTINATION_ARRIVED, False, False),
        (r.SOURCE_BACK, r.DESTINATION_ARRIVED, False, False),
        (r.SOURCE_BACK, None, False, False),
    ],
)
def test_the_source_is_bound_only_with_the_destination_closed(
    source: bytes | None, destination: bytes | None, gone: bool, bound: bool | None
) -> None:
    judged, reason = judge_binding(
        read(source) if source else None, read(destination) if destination else None, source_gone=gone
    )
    assert judged is bound
    assert reason


def test_the_domain_is_cut_out_of_the_file() -> None:
    part = status.domain_part(r.BOOTED)
    assert part.startswith("<domain type='qemu' id='1'>")
    assert part.endswith("</domain>")
    assert status.domain_part(b"<domstatus/>") == ""


def test_a_file_that_is_not_there_is_a_vm_that_is_not_active() -> None:
    channel = r.FakeChannel({status.status_path("a & b"): r.BOOTED})
    assert status.read_status(channel, "a & b") == read(r.BOOTED)
    assert status.read_status(channel, "other") is None
    channel.down = True
    with pytest.raises(OSError, match="down"):
        status.read_status(channel, "a & b")


@pytest.mark.parametrize(
    ("stat", "gone"),
    [(b"54 (qemu) x) S 1 54", False), (b"54 (qemu) Z 1 54", True), (None, True)],
)
def test_a_process_is_gone_when_it_is_a_zombie_or_not_listed(stat: bytes | None, gone: bool) -> None:
    channel = r.FakeChannel({"/proc/54/stat": stat} if stat else {})
    assert status.process_gone(channel, 54) is gone
