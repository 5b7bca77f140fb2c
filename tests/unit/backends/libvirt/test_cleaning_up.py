"""Cleaning up: the mark is taken off at both hosts and what was made for the port is removed, or it is named."""

from __future__ import annotations

from typing import Any

import pytest

from refimpl.backends.libvirt import settle
from refimpl.hosts.channel import Completed
from refimpl.model.events import Kind
from tests.unit.backends.libvirt import recorded as r
from tests.unit.backends.libvirt.test_settle import RUNNING, FakeDomain, World, libvirt, world  # noqa: F401  (fixture)

TABLE = ["nft", "-f", "-"]


@pytest.fixture
def cleaned(world: World, monkeypatch: pytest.MonkeyPatch) -> World:  # noqa: F811
    """Hosts that note which mark is written: None takes it off."""

    def write(domain: FakeDomain, _kind: int, text: str | None, *_: Any) -> None:
        domain._world.done.append(f"{'take off' if text is None else 'put'} {domain._host}")
        domain._operation = domain._operation if text else None

    monkeypatch.setattr(FakeDomain, "setMetadata", write)
    monkeypatch.setattr(FakeDomain, "autostart", lambda _: 0, raising=False)
    return world


@pytest.mark.rule("R2")
@pytest.mark.parametrize("host", ["h1", "h2"])
def test_the_mark_is_taken_off_wherever_the_vm_is_now(cleaned: World, host: str) -> None:
    cleaned.put(host, RUNNING, r.SOURCE_BACK)
    assert cleaned.give(settle.clean_up).kind is Kind.CLEANED
    assert set(cleaned.done) == {f"take off {host}"}
    assert TABLE in cleaned.channels["h2"].commands
    assert TABLE not in cleaned.channels["h1"].commands
    before = list(cleaned.done)
    assert cleaned.give(settle.clean_up).kind is Kind.CLEANED
    assert cleaned.done == before, "twice is the same as once"


def test_the_mark_of_another_operation_stays(cleaned: World) -> None:
    cleaned.put("h1", RUNNING, r.SOURCE_BACK, operation="other")
    assert cleaned.give(settle.clean_up).kind is Kind.CLEANED
    assert cleaned.done == []


@pytest.mark.rule("R2")
def test_what_could_not_be_removed_is_named_with_its_host(cleaned: World) -> None:
    cleaned.put("h1", RUNNING, r.SOURCE_BACK)
    cleaned.silent.add("h1")
    cleaned.channels["h2"].answers["nft"] = Completed(1, "", "Operation not permitted\n")
    left = cleaned.give(settle.clean_up)
    assert left.kind is Kind.LEFT_BEHIND
    marked, shut = left["items"]
    assert "VM 'a & b' on host h1" in marked
    assert "on host h2: the table cannot be removed: Operation not permitted" in shut
