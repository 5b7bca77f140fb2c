"""A VM in two halves, on hosts that are only played: how it is seen, followed, resumed and ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from refimpl.backends.libvirt import halves, post_copy
from refimpl.backends.libvirt.monitor import Refused
from refimpl.backends.libvirt.transfer import flags, parameters
from refimpl.backends.libvirt.watch import NativeEvent, Watch
from refimpl.model.events import Kind
from refimpl.model.facts import Half
from refimpl.model.phase import Side
from refimpl.model.request import HandOver, PostCopy
from tests.unit.backends.libvirt.recorded import PLAN, FakeChannel, host, status_file

libvirt = pytest.importorskip("libvirt")
S, D = Side.SOURCE, Side.DESTINATION
WISHED = replace(PLAN, post_copy=PostCopy.ALLOWED, hand_over=HandOver.DELEGATED, bandwidth_mib_s=3)


@pytest.mark.parametrize(
    ("told", "reason", "half"),
    [
        ("postcopy-active", "post-copy", Half.FLOWS),
        ("postcopy-active", "post-copy failed", Half.FLOWS),
        ("postcopy-recover", "post-copy failed", Half.FLOWS),
        ("postcopy-paused", "post-copy", Half.BROKEN),
        ("completed", "post-copy failed", None),
        ("failed", "post-copy failed", Half.BROKEN),
        ("failed", "booted", None),
        ("active", "booted", None),
        ("device", "migration", None),
    ],
)
def test_qemus_word_counts_and_not_libvirts(told: str, reason: str, half: Half | None) -> None:
    assert halves.half(told, reason) is half


@pytest.mark.parametrize(
    ("reason", "half"), [("post-copy failed", Half.BROKEN), ("post-copy", Half.FLOWS), ("migrated", None)]
)
def test_where_qemu_is_silent_libvirts_word_counts(
    reason: str, half: Half | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*_: Any) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr(halves, "migration", silent)
    channel = FakeChannel({f"/run/libvirt/qemu/{PLAN.vm}.xml": status_file("running", reason, 54)})
    operation: Any = SimpleNamespace(plan=WISHED)
    assert halves.half_of(operation, channel) is half  # type: ignore[arg-type]


def test_without_the_choice_no_qemu_is_asked() -> None:
    assert halves.both(SimpleNamespace(plan=PLAN)) == (None, None)  # type: ignore[arg-type]


def qmp(name: str, **details: Any) -> NativeEvent:
    return NativeEvent("qmp", 7, name=name, details=details)


def test_the_order_of_its_events() -> None:
    watch = Watch(WISHED, "it")
    watch.following = True
    told = [
        (S, qmp("MIGRATION", status="active")),
        (S, qmp("STOP")),
        (S, qmp("MIGRATION", status="device")),
        (S, qmp("MIGRATION", status="postcopy-active")),
        (D, qmp("RESUME")),
        (S, qmp("MIGRATION", status="postcopy-paused")),
        (S, qmp("MIGRATION", status="postcopy-paused")),
        (D, qmp("MIGRATION", status="completed")),
    ]
    kinds = [event.kind for side, native in told for event in watch.tell(side, native)]
    assert kinds == [
        Kind.TRANSFER_STARTED,
        Kind.MEMORY_SEEN,
        Kind.SOURCE_STOPPED,
        Kind.SWITCH_SEEN,
        Kind.POSTCOPY_SEEN,
        Kind.DESTINATION_RAN,
        Kind.POSTCOPY_BROKEN,
        Kind.POSTCOPY_ENDED,
    ]
    assert not watch.in_halves


def test_broken_again_after_it_was_resumed_is_said_again() -> None:
    watch = Watch(WISHED, "it")
    watch.adopt_halves()
    assert watch.in_halves
    assert watch.broke(1, "why")
    assert not watch.broke(2, "why")
    watch.mended()
    assert watch.broke(3, "why")


def test_a_completed_move_without_it_ends_no_post_copy() -> None:
    watch = Watch(PLAN, "it")
    watch.following = True
    assert watch.tell(D, qmp("MIGRATION", status="completed")) == []


def test_what_libvirt_is_told_of_the_choice() -> None:
    assert flags(WISHED) & libvirt.VIR_MIGRATE_POSTCOPY
    assert not flags(WISHED) & libvirt.VIR_MIGRATE_PAUSED
    assert not flags(replace(PLAN, hand_over=HandOver.DELEGATED)) & libvirt.VIR_MIGRATE_POSTCOPY
    domain = SimpleNamespace(XMLDesc=lambda _: "<domain><devices/></domain>")
    assert parameters(WISHED, domain, host("h1"), host("h2"))[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH_POSTCOPY] == 3
    assert libvirt.VIR_MIGRATE_PARAM_BANDWIDTH_POSTCOPY not in parameters(
        replace(PLAN, bandwidth_mib_s=3), domain, host("h1"), host("h2")
    )


class Qemu:
    """One QEMU: what it answers to a command by name (the last answer stays), and what it was told."""

    def __init__(self, **answers: list[Any]) -> None:
        self.answers = {name.replace("_", "-"): list(given) for name, given in answers.items()}
        self.told: list[tuple[str, Mapping[str, Any], bool]] = []

    def execute(self, command: str, arguments: Mapping[str, Any] | None = None, *, oob: bool = False) -> Any:
        self.told.append((command, dict(arguments or {}), oob))
        given = self.answers.get(command, [{}])
        answer = given.pop(0) if len(given) > 1 else given[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def commands(self) -> list[str]:
        return [command for command, _, _ in self.told]


BROKEN = {"status": "postcopy-paused"}
FLOWS = {"status": "postcopy-active", "ram": {"remaining": 9}}


def resumed(source: Qemu, destination: Qemu, monkeypatch: pytest.MonkeyPatch, **plan: Any) -> bool:
    here, there = object(), object()

    @contextmanager
    def monitor(channel: object, _: str) -> Iterator[Qemu]:
        yield source if channel is here else destination

    monkeypatch.setattr(post_copy, "monitor", monitor)
    monkeypatch.setattr(post_copy.time, "sleep", lambda _: None)
    monkeypatch.setattr(halves, "both", lambda _: (Half.BROKEN, Half.BROKEN))
    reach = SimpleNamespace(source_channel=here, destination_channel=there)
    operation: Any = SimpleNamespace(reach=reach, plan=replace(WISHED, **plan), listen=lambda: None)
    return post_copy._recover(operation)


def test_it_is_resumed_by_a_new_connection_on_the_migration_network(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Qemu(query_migrate=[BROKEN, BROKEN, FLOWS], query_migrate_parameters=[{"tls-creds": "tls0"}])
    source.answers["migrate-pause"] = [Refused("only in post-copy")]
    silent = OSError("timed out")
    destination = Qemu(query_migrate=[silent], query_migrate_parameters=[silent])
    destination.answers["migrate-recover"] = [Refused("Address already in use"), {}]
    assert resumed(source, destination, monkeypatch)
    assert ("migrate", {"uri": "tcp:192.0.2.12:49214", "resume": True}, False) in source.told
    assert {(command, oob) for command, _, oob in destination.told} == {
        ("migrate-pause", True),
        ("migrate-recover", True),
    }


def test_it_is_not_resumed_in_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Qemu(query_migrate=[BROKEN], query_migrate_parameters=[{"tls-creds": ""}])
    with pytest.raises(OSError, match="in clear"):
        resumed(source, Qemu(), monkeypatch)
    assert "migrate" not in source.commands
    source.answers["query-migrate"] = [BROKEN, BROKEN, FLOWS]
    assert resumed(source, Qemu(), monkeypatch, encryption=False)


def test_what_moves_by_itself_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    less = {"status": "postcopy-active", "ram": {"remaining": 8}}
    source = Qemu(query_migrate=[FLOWS, less])
    assert not resumed(source, Qemu(), monkeypatch)
    assert set(source.commands) == {"query-migrate"}


def test_a_source_that_does_not_get_through_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = BROKEN | {"error-desc": "Failed to connect"}
    source = Qemu(query_migrate=[BROKEN, BROKEN, refused], query_migrate_parameters=[{"tls-creds": "tls0"}])
    with pytest.raises(OSError, match="Failed to connect"):
        resumed(source, Qemu(), monkeypatch)


@pytest.mark.rule("R1")
@pytest.mark.parametrize(
    ("here", "there", "seen", "torn"),
    [
        (True, True, (Half.BROKEN, Half.BROKEN), False),
        (False, True, (None, Half.BROKEN), True),
        (False, True, (None, Half.FLOWS), False),
        (False, True, (None, None), False),
        (True, False, (Half.BROKEN, None), True),
        (True, False, (None, None), False),
        (False, False, (None, None), True),
    ],
)
def test_what_may_be_ended(
    here: bool, there: bool, seen: tuple[Half | None, Half | None], torn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(halves, "both", lambda _: seen)
    monkeypatch.setattr(post_copy, "_has_process", lambda _, side: here if side is S else there)
    operation: Any = SimpleNamespace()
    if torn:
        post_copy._require_torn(operation)
    else:
        with pytest.raises(OSError, match="not seen to be halves"):
            post_copy._require_torn(operation)
