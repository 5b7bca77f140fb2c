"""What a forced take-over risks is named before; a fence is tried without harm, and that is kept."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from refimpl.app import fencing
from refimpl.app.fencing import fence_setting, risk, try_fence
from refimpl.app.home import Home
from refimpl.app.recovery import Interrupted
from refimpl.app.settings import SettingsDesk
from refimpl.cli import main
from refimpl.engine.store import GroupStore
from refimpl.hosts.process import here
from refimpl.model.errors import RefimplError
from refimpl.model.facts import Facts, HostFacts, Scope
from refimpl.model.group import ChannelSpec, Group, HostEntry, ProcessRef
from tests.builders import OPERATION, plan

NOBODY = ProcessRef(1, 1, "boot")


class Looks:
    """A backend whose hosts answer, or not."""

    def __init__(self, **answers: bool) -> None:
        self._answers = answers

    def observe(self, scope: Scope) -> Facts:
        return Facts({name: HostFacts(name, self._answers[name]) for name in scope.hosts}, 0.0)


def made(directory: Path, init: ProcessRef = NOBODY) -> Group:
    GroupStore(directory / "group.db")
    channel = ChannelSpec("namespace", init)
    hosts = tuple(HostEntry(name, "", "", "", "", (), 2048, channel) for name in ("a", "b"))
    return Group("lab1", "lab", hosts, str(directory / "group.db"), "/shared", "/leases")


@pytest.fixture
def group(tmp_path: Path) -> Group:
    return made(tmp_path)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


ITEM = Interrupted(OPERATION, "web", "claim", plan(), "home")


def refused(home: Home, group: Group, **answers: bool) -> str:
    with pytest.raises(RefimplError) as failure:
        risk(home, group, Looks(**answers), ITEM)  # type: ignore[arg-type]
    return failure.value.problems[0].id


def test_the_risks_are_named(home: Home, group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fencing, "_running_on", lambda _entry: ["db", "web"])
    found = risk(home, group, Looks(a=False, b=True), ITEM)  # type: ignore[arg-type]
    assert (found.host, found.stays, found.others) == ("a", "b", ("db",))
    said = " ".join(found.lines)
    for part in ("Host a does not answer", "the power of host a", "never tried", "beside 'web': db", "is lost"):
        assert part in said
    tried = replace(found, tried_ns=1, others=())
    assert "last tried 1970" in tried.lines[0]
    assert "none that can be seen" in tried.lines[1]


@pytest.mark.error("fence.needless")
def test_hosts_that_answer_are_not_cut_off(home: Home, group: Group) -> None:
    assert refused(home, group, a=True, b=True) == "fence.needless"


@pytest.mark.error("fence.both_silent")
def test_nothing_goes_on_where_neither_answers(home: Home, group: Group) -> None:
    assert refused(home, group, a=False, b=False) == "fence.both_silent"


@pytest.mark.error("fence.none")
def test_without_a_fence_it_is_refused(home: Home, group: Group) -> None:
    SettingsDesk(group).set("b", {"Fence": "none"})
    assert refused(home, group, a=True, b=False) == "fence.none"


def test_what_nobody_knows_cannot_be_forced(home: Home, group: Group) -> None:
    with pytest.raises(RefimplError, match="its hosts are not known"):
        risk(home, group, Looks(), replace(ITEM, plan=None))  # type: ignore[arg-type]


@pytest.fixture
def powered(tmp_path: Path) -> Iterator[Group]:
    with subprocess.Popen(["sleep", "60"]) as child:
        yield made(tmp_path, here(child.pid))
        child.kill()


def test_a_trial_that_goes_well_is_kept(powered: Group) -> None:
    name, at_ns = try_fence(powered, "a")
    assert "power of host a" in name
    assert fence_setting(powered, "a").tried_ns == at_ns
    assert fence_setting(powered, "b").tried_ns is None


@pytest.mark.error("fence.useless")
@pytest.mark.parametrize("agent", ["own", "none", "/nowhere/agent"])
def test_one_that_does_not_work_is_told(group: Group, agent: str) -> None:
    SettingsDesk(group).set("a", {"Fence": agent})
    with pytest.raises(RefimplError) as failure:
        try_fence(group, "a")
    assert (failure.value.problems[0].id, failure.value.exit_code) == ("fence.useless", 8)
    assert fence_setting(group, "a").tried_ns is None


def test_the_command_tells_it(powered: Group, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("refimpl.cli.host.open_lab", lambda _: SimpleNamespace(group=powered))
    monkeypatch.setattr("refimpl.cli.host.require_root", lambda _: None)
    assert main(["host", "try-fence", "a"]) == 0
    assert "says that the host is on" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--force"], ["3fa9", "--force"], ["3fa9", "--force", "--json"]])
def test_force_wants_one_operation_and_somebody_to_ask(arguments: list[str], capsys: Any) -> None:
    assert main(["recover", *arguments]) == 2
    assert "--force" in capsys.readouterr().err
