"""Schemas of the short answers of verbs that do something, held against what is really printed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

from refimpl.app import vm_settings
from refimpl.app.accelerator import Accelerator
from refimpl.app.home import Home
from refimpl.app.vm_network import Reach
from refimpl.app.vm_record import NicRecord, VmRecord
from refimpl.cli import main
from refimpl.guest import GuestParameters
from refimpl.lab import Link, LinkState, Removal
from refimpl.lab.forward import Forward
from refimpl.lab.reaper import LeftBehind
from refimpl.model.facts import VmState
from refimpl.model.group import ProcessRef
from refimpl.model.phase import Phase
from refimpl.report import schemas
from tests.builders import vm
from tests.unit.cli.fakes import NOW_NS
from tests.unit.cli.kept import operation


def problems_of(name: str, value: Any) -> list[str]:
    judge = jsonschema.Draft202012Validator(schemas.SCHEMAS[name]())
    return [error.message[:300] for error in judge.iter_errors(value)]


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    assert main([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


BUILT_IN = VmRecord("web", "id", "10.0.0.5/24", 256, 1, "tcg", GuestParameters(address="10.0.0.5"))
OWN = VmRecord(
    *("web", "id", None, 1024, 2, "kvm", None),
    nics=(NicRecord("52:54:00:00:00:01", "lan", "10.0.0.6/24"),),
    disks=("/disks/web.d/disk1.qcow2",),
    forwards=(Forward(8080, 80),),
    maker=ProcessRef(1, 1, "boot"),
)


class Desk:
    """A VM that does whatever it is asked, or that no host has."""

    def __init__(self, record: VmRecord | None = BUILT_IN) -> None:
        self.kept = record
        self.place: Any = SimpleNamespace(host=SimpleNamespace(name="h1"), facts=vm(state=VmState.OFF))

    def start(self, _name: str, _limit: float = 0, *, force: bool = False) -> Any:
        return self.place

    stop = pause = resume = remove = find = start_and_wait = start

    def create(self, name: str, host: str | None, **_: Any) -> None:
        """Nothing is made."""

    def record(self, _: str) -> VmRecord | None:
        return self.kept

    def reach(self, _: str) -> Reach:
        return Reach("10.0.0.5", ((Forward(8080, 80), True),))


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    made = Desk()

    @contextmanager
    def desk_of(_verb: str, _lab: str | None) -> Iterator[Desk]:
        yield made

    for module in ("create", "life", "set"):
        monkeypatch.setattr(f"refimpl.cli.vm_{module}.desk_of", desk_of)
    monkeypatch.setattr(vm_settings, "change", lambda *_: made.place)
    monkeypatch.setattr("refimpl.app.accelerator.choose", lambda _: Accelerator("tcg", "no /dev/kvm"))
    return made


@pytest.mark.parametrize("record", [BUILT_IN, OWN, None], ids=["built-in guest", "own guest", "removed meanwhile"])
@pytest.mark.parametrize(("options", "state"), [((), "off"), (("--start",), "running")], ids=["off", "started"])
def test_a_vm_that_was_made_is_as_published(record, options, state, desk, capsys):
    desk.kept = record
    made = printed(capsys, "vm", "create", "web", *options)
    assert made["state"] == state
    assert problems_of("vm-created", made) == []
    assert problems_of("vm-created", {**made, "more": 1})
    if record is not None:
        assert problems_of("vm-created", {**made, "vm": {**made["vm"], "maker": None}})


STATES = {"start": "running", "stop": "off", "pause": "paused", "resume": "running", "remove": None}


@pytest.mark.parametrize(("verb", "state"), STATES.items())
def test_what_became_of_a_vm_is_as_published(verb, state, desk, capsys):
    told = printed(capsys, "vm", verb, "web")
    assert told == {"vm": "web", "host": "h1", "state": state}
    assert problems_of("vm-changed", told) == []
    assert problems_of("vm-changed", {**told, "state": "runs"})
    assert problems_of("vm-changed", {**told, "more": 1})


def test_what_was_left_of_a_vm_and_changed_settings_are_as_published(desk, capsys):
    changed = printed(capsys, "vm", "set", "web", "--eject")
    assert (changed["state"], problems_of("vm-changed", changed)) == ("off", [])
    desk.place = None
    removed = printed(capsys, "vm", "remove", "web")
    assert (removed["host"], problems_of("vm-changed", removed)) == (None, [])


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    made = SimpleNamespace(name="spring", removal=Removal("00000a"))
    made.down = lambda only_idle: made.removal
    for module in ("lab", "lab_link"):
        monkeypatch.setattr(f"refimpl.cli.{module}.open_lab", lambda _: made)
        monkeypatch.setattr(f"refimpl.cli.{module}.require_root", lambda _: None)
    return made


REMOVALS: Mapping[str, tuple[Removal, int]] = {
    "all of it": (Removal("00000a", ("namespace h1", "directory /labs/00000a")), 0),
    "not all of it": (Removal("00000a", (), (LeftBehind("process", "12", "it is somebody else's"),)), 8),
}


@pytest.mark.parametrize("case", REMOVALS)
def test_labs_that_were_taken_away_are_as_published(case, lab, monkeypatch, capsys):
    removal, code = REMOVALS[case]
    lab.removal = removal
    monkeypatch.setattr("refimpl.lab.reap", lambda _: (removal,))
    monkeypatch.setattr("refimpl.lab.leftovers", lambda _: [])
    for verb, title in (("down", "spring"), ("reap", "00000a")):
        told = printed(capsys, "lab", verb, code=code)
        assert told["labs"][0]["lab"] == title
        assert problems_of("lab-removals", told) == []
        assert problems_of("lab-removals", {"labs": [{**told["labs"][0], "more": 1}]})


def test_that_no_lab_was_broken_is_as_published(lab, monkeypatch, capsys):
    monkeypatch.setattr("refimpl.lab.reap", lambda _: ())
    told = printed(capsys, "lab", "reap")
    assert (told, problems_of("lab-removals", told)) == ({"labs": []}, [])


@pytest.mark.parametrize("options", [(), ("--rate", "100"), ("--down", "--for", "0")], ids=" ".join)
def test_a_link_is_as_published(options, lab, monkeypatch, capsys):
    state = LinkState("--down" not in options, 100 if "--rate" in options else 0)
    for act in ("shape", "cut", "mend"):
        monkeypatch.setattr(Link, act, lambda *_: None)
    monkeypatch.setattr(Link, "state", lambda _: state)
    monkeypatch.setattr(Link, "restored", lambda _: nullcontext())
    lab.link = lambda host, network: Link("abc", host, network, "", "p", "d")
    told = printed(capsys, "lab", "link", "h1", "--network", "vm", *options)
    assert (told["up"], told["rate_mbit_s"]) == (state.up, state.rate_mbit_s or None)
    assert problems_of("lab-link", told) == []
    assert problems_of("lab-link", {**told, "more": 1})


def test_operations_that_were_forgotten_are_as_published(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REFIMPL_HOME", str(tmp_path))
    operation(Home(tmp_path), "11111111", Phase.COMPLETED, NOW_NS)
    operation(Home(tmp_path), "22222222", None)
    told = printed(capsys, "operations", "prune", "--all")
    assert (told["removed"], list(told["kept"])) == (["11111111"], ["22222222"])
    assert problems_of("operations-pruned", told) == []
    assert problems_of("operations-pruned", {**told, "kept": {"22222222": None}})
    assert problems_of("operations-pruned", {**told, "more": 1})


def test_why_a_verb_did_not_come_to_an_end_is_as_published(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REFIMPL_HOME", str(tmp_path))
    told = printed(capsys, "operations", "show", "nothing", code=3)
    assert problems_of("problems", told) == []
    assert problems_of("problems", {**told, "operation": "0a1b2c3d"}) == []
    assert problems_of("problems", {**told, "problems": [{**told["problems"][0], "more": 1}]})
    assert problems_of("problems", {**told, "exit_code": 99})
