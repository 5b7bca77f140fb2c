"""Schemas of verbs beside moves, held against what is really printed; they refuse what they do not name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

from refimpl.app import doctor, labs, mending
from refimpl.app.home import Home
from refimpl.app.mending import Mended, Repair
from refimpl.app.vm_network import Reach
from refimpl.backends.libvirt.mend_leases import Did, HostMended, VmMended
from refimpl.backends.libvirt.vm_settings import Adapter, Settings
from refimpl.cli import main
from refimpl.engine.store import GroupStore
from refimpl.lab import HostStatus, LabState, Link, LinkState
from refimpl.lab.errors import LabError
from refimpl.lab.forward import Forward
from refimpl.lab.requirements import Finding
from refimpl.model.errors import Native, Problem
from refimpl.model.events import Event, Kind
from refimpl.model.facts import HostFacts, LeaseFact
from refimpl.model.group import ChannelSpec, Group, HostEntry, ProcessRef
from refimpl.model.phase import Phase
from refimpl.report import schemas, schemas_verbs
from tests.builders import host, vm
from tests.unit.cli.fakes import NOW_NS
from tests.unit.cli.kept import operation
from tests.unit.report.published import strict

CLOSED = ("operation", *schemas_verbs.SCHEMAS)
NOBODY = ChannelSpec("namespace", ProcessRef(1, 1, "boot"))
HOSTS = tuple(HostEntry(name, "", "", "", "", (), 2048, NOBODY) for name in ("h1", "h2"))


def problems_of(name: str, value: Any) -> list[str]:
    """What of a value is not as the published schema says, nothing added to it."""
    judge = jsonschema.Draft202012Validator(schemas.SCHEMAS[name]())
    return [error.message[:300] for error in judge.iter_errors(value)]


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    assert main([*arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Group:
    GroupStore(tmp_path / "group.db")
    made = Group("lab1", "lab", HOSTS, str(tmp_path / "group.db"), "/shared", "/leases")
    for module in ("host", "network"):
        monkeypatch.setattr(f"refimpl.cli.{module}.open_lab", lambda _: SimpleNamespace(group=made))
    return made


@pytest.mark.parametrize("name", CLOSED)
def test_nothing_that_is_not_named_is_let_in(name):
    made = schemas.SCHEMAS[name]()
    assert strict(made) == made
    assert "additionalProperties" in json.dumps(made)


def test_settings_of_hosts_are_as_published(group, capsys):
    assert main(["network", "add", "h1", "10.90.1.0/24", "--priority", "3"]) == 0
    capsys.readouterr()
    one, every = printed(capsys, "host", "get", "h1"), printed(capsys, "host", "get")
    changed = printed(capsys, "host", "set", "h2", "--virtual-machine-migration-performance-option", "TCPIP")
    assert (set(one), set(every)) == ({"h1"}, {"h1", "h2"})
    assert one["h1"]["MigrationNetworks"]
    for shown in (one, every, changed):
        assert problems_of("host-settings", shown) == []
    assert problems_of("host-settings", {**changed, "More": 1})
    assert problems_of("host-settings", {"h1": {**changed, "More": 1}})


def test_migration_networks_are_as_published(group, capsys):
    added = printed(capsys, "network", "add", "h1", "10.90.1.0/24")
    changed = printed(capsys, "network", "set", "h1", "10.90.1.0/24", "--priority", "7")
    listed = printed(capsys, "network", "list")
    removed = printed(capsys, "network", "remove", "h1", "10.90.1.0/24")
    assert (listed, removed) == ({**changed, "h2": []}, {"h1": []})
    for shown in (added, changed, listed, removed):
        assert problems_of("migration-networks", shown) == []
    assert problems_of("migration-networks", {"h1": [{"Subnet": "10.0.0.0/8", "Priority": "low"}]})


class Desk:
    """Two hosts, one of which does not answer, and a VM of one's own beside one that was not made here."""

    hosts = (
        host("a", vms=(vm(), vm(name="other", lease=LeaseFact("/leases/other", None), operation="0a1b2c3d"))),
        HostFacts("b", False, Native("libvirt", 38, "no route")),
    )

    def __init__(self, made_here: bool) -> None:
        self.made_here = made_here

    def look(self) -> dict[str, HostFacts]:
        return {shown.name: shown for shown in self.hosts}

    def find(self, name: str) -> Any:
        (facts,) = [each for each in self.hosts[0].vms if each.name == name]
        return SimpleNamespace(host=HOSTS[0], facts=facts)

    def reach(self, name: str) -> Reach:
        return Reach("10.0.0.5", ((Forward(8080, 80), True),)) if self.made_here else Reach(None)

    def record(self, name: str) -> Any:
        return SimpleNamespace(parameters=None, accelerator="tcg") if self.made_here else None

    def settings(self, place: Any) -> Settings:
        dvd, bridge = ("/seed.iso", "lan") if self.made_here else (None, None)
        return Settings(self.made_here, "uefi", ("/d.raw",), dvd, (Adapter("52:54:00:00:00:01", bridge),))


@pytest.fixture(params=[True, False], ids=["made here", "a stranger"])
def desk(request, monkeypatch) -> Desk:
    made = Desk(request.param)

    @contextmanager
    def desk_of(_verb: str, _lab: str | None) -> Iterator[Desk]:
        yield made

    monkeypatch.setattr("refimpl.cli.vm_show.desk_of", desk_of)
    return made


def test_vms_are_as_published(desk, capsys):
    listed = printed(capsys, "vm", "list", code=8)
    assert (len(listed["hosts"]), len(listed["vms"])) == (2, 2)
    assert problems_of("vm-list", listed) == []
    shown = printed(capsys, "vm", "show", "web")
    assert problems_of("vm", shown) == []
    assert problems_of("vm", {"vm": {**shown["vm"], "more": 1}})
    assert problems_of("vm-list", {**listed, "vms": [{**listed["vms"][0], "state": "elsewhere"}]})


@pytest.mark.parametrize("remarks", [(), ("a host declares more than there is",)])
def test_a_lab_that_was_built_is_as_published(remarks, group, monkeypatch, capsys):
    def build(_wish: Any, on_step: Any) -> Any:
        on_step("networks", 0.25)
        paths = SimpleNamespace(group=Path("/run/lab/group.json"))
        return SimpleNamespace(name="lab", id="abc", group=group, paths=paths, remarks=remarks)

    monkeypatch.setattr(labs, "build", build)
    monkeypatch.setattr("refimpl.cli.lab.require_root", lambda _: None)
    made = printed(capsys, "lab", "up")
    assert made["steps"]
    assert problems_of("lab", made) == []
    assert problems_of("lab", {**made, "more": 1})


@pytest.mark.parametrize(
    ("answers", "ordered", "bare", "locked", "code"),
    [
        (True, True, (), (), 0),
        (False, True, (), (), 8),
        (True, False, (), (), 8),
        (True, True, ("web",), (), 8),
        (True, True, (), ("an-id",), 8),
    ],
)
def test_how_a_lab_is_is_as_published(answers, ordered, bare, locked, code, monkeypatch, capsys):
    links = [Link("abc", "h1", network, address, "p", "d") for network, address in (("vm", ""), ("mig", "10.0.0.1"))]
    states = iter([LinkState(), LinkState(False, 100)] * 2)
    monkeypatch.setattr(Link, "state", lambda _: next(states))
    status = [HostStatus("h1", True, True, answers, True, ordered, bare, locked, 2048)]
    paths = SimpleNamespace(directory="/run/lab")
    found = SimpleNamespace(name="lab", id="abc", paths=paths, status=lambda: status, links=lambda: links)
    monkeypatch.setattr("refimpl.cli.lab.open_lab", lambda _: found)
    monkeypatch.setattr("refimpl.cli.lab.require_root", lambda _: None)
    shown = printed(capsys, "lab", "status", code=code)
    assert [link["rate_mbit_s"] for link in shown["links"]] == [None, 100]
    assert problems_of("lab-status", shown) == []
    assert problems_of("lab-status", {**shown, "healthy": "yes"})
    assert main(["lab", "status"]) == code
    told = capsys.readouterr().out
    assert ("refimpl lab mend h1" in told) == (not ordered or bool(bare or locked))
    assert ("NOT HELD: web" in told) == bool(bare)
    assert ("LEFT LOCKED: an-id" in told) == bool(locked)


@pytest.mark.parametrize("was_off", [True, False])
def test_a_host_that_is_switched_on_is_as_published(was_off, tmp_path, monkeypatch, capsys):
    found = SimpleNamespace(name="lab", host_power_on=lambda host: was_off)
    monkeypatch.setattr("refimpl.cli.lab_power.open_lab", lambda _: found)
    monkeypatch.setattr("refimpl.cli.lab_power.require_root", lambda _: None)
    monkeypatch.setattr("refimpl.cli.lab_power.home", lambda: Home(tmp_path))
    monkeypatch.setattr("refimpl.app.recovery.needs_attention", lambda _: ["0a1b2c3d"])
    shown = printed(capsys, "lab", "power-on", "h1")
    assert (shown["switched_on"], problems_of("lab-power", shown)) == (was_off, [])
    assert problems_of("lab-power", {**shown, "more": 1})
    assert main(["lab", "power-on", "h1"]) == 0
    told = capsys.readouterr().out
    assert ("is on again" in told, "nothing was done" in told) == (was_off, not was_off)
    assert "Next: refimpl recover 0a1b2c3d" in told


@pytest.mark.error("lab.host_unknown")
def test_a_host_that_the_lab_does_not_have_is_not_switched_on(monkeypatch, capsys):
    def unknown(host: str) -> bool:
        raise LabError("lab.host_unknown", lab="lab", host=host, known="h1, h2")

    monkeypatch.setattr("refimpl.cli.lab_power.open_lab", lambda _: SimpleNamespace(host_power_on=unknown))
    monkeypatch.setattr("refimpl.cli.lab_power.require_root", lambda _: None)
    (problem,) = printed(capsys, "lab", "power-on", "h9", code=3)["problems"]
    assert (problem["id"], problem["values"]["known"]) == ("lab.host_unknown", "h1, h2")


def test_mended_leases_are_as_published(monkeypatch, capsys):
    vms = [
        VmMended("web", Did.TAKEN, 24.25),
        VmMended("db", Did.TAKEN, resumed=True),
        VmMended("ok", Did.HELD),
        VmMended("moving", Did.SPARED, problem=Problem("vm.stamped", {"vm": "moving", "operation": "0a1b2c3d"})),
    ]
    found = HostMended("h1", True, True, tuple(vms), ("an-id",), ("another",))
    monkeypatch.setattr("refimpl.cli.lab_mend.open_lab", lambda _: SimpleNamespace(name="lab", group=None))
    monkeypatch.setattr("refimpl.cli.lab_mend.require_root", lambda _: None)
    monkeypatch.setattr("refimpl.cli.lab_mend.backend_of", lambda _: nullcontext())
    monkeypatch.setattr("refimpl.app.leases.mend_leases", lambda *_: found)
    shown = printed(capsys, "lab", "mend", "h1", code=8)
    assert problems_of("lab-mended", shown) == []
    assert problems_of("lab-mended", {**shown, "more": 1})
    assert main(["lab", "mend", "h1"]) == 8
    told = capsys.readouterr()
    assert "lock daemon started, libvirtd started anew" in told.out
    assert {"web", "db", "ok", "moving"} < {line.split()[0] for line in told.out.splitlines()[2:]}
    assert "VM an-id, which is not on there, was given back" in told.out
    assert "24.2 ms" in told.out
    assert "refimpl recover 0a1b2c3d" in told.err
    found = replace(found, vms=(), left_locked=())
    assert main(["lab", "mend", "h1"]) == 0
    assert "No VM runs there." in capsys.readouterr().out


def test_the_list_of_labs_is_as_published(monkeypatch, capsys):
    rows = [SimpleNamespace(id="abc", name="lab", state=state, directory=Path("/run/lab")) for state in LabState]
    monkeypatch.setattr("refimpl.lab.list_labs", lambda: rows)
    shown = printed(capsys, "lab", "list")
    assert len(shown["labs"]) == len(LabState)
    assert problems_of("lab-list", shown) == []
    assert problems_of("lab-list", {"labs": [{**shown["labs"][0], "state": "elsewhere"}]})


def test_findings_of_the_doctor_are_as_published(monkeypatch, capsys):
    found = [Finding("ip", True, "there"), Finding("gcc", False, "not installed", "ci/setup", "packages")]
    monkeypatch.setattr(doctor, "examine", lambda _: iter(found))
    shown = printed(capsys, "doctor", code=8)
    assert problems_of("doctor", shown) == []
    monkeypatch.setattr("refimpl.cli.doctor.require_root", lambda _: None)
    monkeypatch.setattr(mending, "repairs", lambda _: (Repair("packages", "installs", lambda: ""),))
    done = [Mended("packages", "installs", ""), Mended("modules", "loads", "no such module")]
    monkeypatch.setattr(mending, "carry_out", lambda _: iter(done))
    mended = printed(capsys, "doctor", "--mend", "--yes", code=8)
    assert [row["ok"] for row in mended["mended"]] == [True, False]
    assert problems_of("doctor", mended) == []
    assert problems_of("doctor", {**shown, "more": 1})


@pytest.mark.parametrize("end", [Phase.COMPLETED, Phase.FAILED, None])
def test_an_operation_is_as_published(end, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("REFIMPL_HOME", str(tmp_path))
    operation(Home(tmp_path), "11111111", end)
    shown = printed(capsys, "operations", "show", "1")
    assert len(shown["events"]) == 3
    assert (shown["outcome"] is None) == (end is None)
    assert problems_of("operation", shown) == []
    assert problems_of("operation", {**shown, "job": {**shown["job"], "PercentComplete": 101}})
    wrong = Event(Kind.PHASE_ENTERED, NOW_NS, {"phase": Phase.CHECK}).to_json() | {"values": {"phase": "elsewhere"}}
    assert problems_of("operation", {**shown, "events": [wrong]})
