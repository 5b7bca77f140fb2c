"""`refimpl check` and its report: compare, mend, compare again, move with the report; and reports that are none."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from refimpl.app.check import ChoicesFile, compare
from refimpl.checks.families import FAMILIES
from refimpl.cli import main
from refimpl.engine.backend import Capabilities
from refimpl.engine.store import GroupStore, MemoryStore
from refimpl.engine.timeline import VirtualTimeline
from refimpl.model.facts import Facts
from refimpl.model.group import Group
from refimpl.model.request import HandOver, MigrationRequest
from tests.builders import SETTINGS, request
from tests.scripted import ScriptedBackend

ID = "5f0c7a52-6f4e-4b7e-9d3f-0d3c1b2a4e61"
Data = dict[str, Any]


class World:
    """A world's file that a test changes, and the command on it."""

    def __init__(self, directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.file, self.report, self._capsys = directory / "world.json", directory / "web.report", capsys
        hosts = {n: {"memory_mib": 2048, "networks": {"m": f"192.0.2.{i}"}} for i, n in enumerate("abc", 1)}
        vm = {"name": "web", "id": ID, "host": "a", "memory_mib": 256, "disks": [{"path": "/s/web.raw"}]}
        self.data: Data = {"schema": 1, "hosts": hosts, "networks": {"m": {}}, "vms": [vm]}
        self.change(lambda _: None)

    def change(self, change: Callable[[Data], object]) -> None:
        change(self.data)
        self.file.write_text(json.dumps(self.data), "utf-8")

    def run(self, *arguments: object) -> tuple[int, str, str]:
        code = main([*map(str, arguments), "--backend", "simulated", "--world", str(self.file)])
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def json(self, *arguments: object) -> tuple[int, Data]:
        code, out, _ = self.run(*arguments, "--json")
        return code, json.loads(out)

    def kept(self, change: Callable[[Data], object] = lambda _: None) -> None:
        """Keep a report of the move of web to b, changed by hand."""
        self.run("check", "web", "b", "--save", self.report)
        data = json.loads(self.report.read_text("utf-8"))
        change(data)
        self.report.write_text(json.dumps(data), "utf-8")


@pytest.fixture
def world(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> World:
    return World(tmp_path, capsys)


def flawed(data: Data) -> None:
    data["hosts"]["b"] |= {"switches": [], "clock_skew_ms": 700}
    data["vms"][0]["disks"] = [{"path": "/s/web.vhdx", "content": "vhdx"}]


@pytest.mark.rule("R11")
def test_nothing_in_the_way_is_0_with_a_line_for_each_family(world: World) -> None:
    code, out, _ = world.run("check", "web", "b")
    assert code == 0
    assert out.splitlines()[0] == "VM 'web' from host a to host b: nothing stands in the way."
    assert "256 MiB needed, 2048 of 2048 MiB left on b" in out
    assert len(out.splitlines()) == 1 + len(FAMILIES)


@pytest.mark.rule("R11", "R19")
def test_every_finding_is_told_at_once_with_its_mend_and_ends_with_3(world: World) -> None:
    world.change(flawed)
    code, out, _ = world.run("check", "web", "b")
    assert code == 3
    assert "2 findings stand in the way" in out
    for said in (
        "[switch.missing]",
        "[disk.format]",
        "mend:   refimpl vm set web --adapter 1 --disconnect",
        "qemu-img",
    ):
        assert said in out
    assert "warning: The clocks of hosts" in out


@pytest.mark.rule("R11")
def test_json_is_the_report(world: World) -> None:
    world.change(flawed)
    code, data = world.json("check", "web", "b")
    assert code == 3
    assert {e["MessageId"] for e in data["Incompatibilities"]} == {33012, None}
    assert [w["id"] for w in data["Warnings"]] == ["clock.apart"]
    assert data["Compatible"] is False


def test_what_was_not_seen_is_told_as_that(world: World) -> None:
    world.change(lambda w: w["hosts"]["b"].update(switches=None))
    assert "not seen: switches" in world.run("check", "web", "b")[1]


@pytest.mark.rule("R11")
def test_compare_mend_compare_again_move_with_the_report(world: World) -> None:
    world.change(flawed)
    chosen = ("--encryption", "off", "--pass-limit", "3", "--performance-option", "TCPIP")
    assert world.run("check", "web", "b", *chosen, "--save", world.report)[0] == 3
    kept = world.report.read_text("utf-8")

    code, data = world.json("migrate", "--compatibility-report", world.report)
    assert code == 3, "what was not mended is refused again"
    assert {p["id"] for p in data["outcome"]["problems"]} == {"switch.missing", "disk.format"}

    world.change(lambda w: w["hosts"]["b"].update(switches=["lan"]))
    world.change(lambda w: w["vms"][0].update(disks=[{"path": "/s/web.qcow2", "format": "qcow2"}]))
    assert world.run("check", "--compatibility-report", world.report)[0] == 0
    assert world.report.read_text("utf-8") == kept, "a report is a snapshot"

    code, data = world.json("migrate", "--compatibility-report", world.report)
    assert code == 0
    outcome = data["outcome"]
    assert (outcome["end"], outcome["runs_on"]) == ("completed-with-warnings", "b")
    assert (outcome["encryption"], outcome["performance_option"]) == (False, "TCPIP")
    assert [w["id"] for w in outcome["warnings"]] == ["clock.apart"]


@pytest.mark.rule("R11")
def test_a_move_looks_anew_whatever_its_report_says(world: World) -> None:
    world.kept()
    world.change(lambda w: w["hosts"]["b"].update(memory_mib=100))
    code, data = world.json("migrate", "--compatibility-report", world.report)
    assert code == 3
    assert [p["id"] for p in data["outcome"]["problems"]] == ["memory.short"]


@pytest.mark.rule("R11")
@pytest.mark.error("report.stale")
def test_a_report_about_another_vm_of_the_same_name_is_stale(world: World) -> None:
    world.kept()
    world.change(lambda w: w["vms"][0].update(id="another"))
    for verb in ("check", "migrate"):
        code, out, _ = world.run(verb, "--compatibility-report", world.report)
        assert code == 3
        assert "[report.stale]" in out
        assert ID in out


@pytest.mark.error("report.other")
@pytest.mark.parametrize("named", [("db",), ("web", "c")])
def test_a_report_about_another_vm_or_destination(world: World, named: tuple[str, ...]) -> None:
    world.kept()
    for verb in ("check", "migrate"):
        code, _, told = world.run(verb, *named, "--compatibility-report", world.report)
        assert code == 2
        assert "[report.other]" in told
    assert world.run("check", "web", "b", "--compatibility-report", world.report)[0] == 0


def choose(**values: Any) -> Callable[[Data], object]:
    return lambda data: data["Choices"].update(values)


@pytest.mark.error("report.unreadable")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d.clear(), "'Choices' is missing"),
        (lambda d: d.update(schema=2), "schema 1"),
        (lambda d: d.update(Destination="c"), "not that of its Choices"),
        (lambda d: d["Incompatibilities"].append({"id": "no.such"}), "not known to this version"),
        (lambda d: d.update(Incompatibilities=[3]), "cannot be used"),
        (choose(pass_limit=0), "Choices.pass_limit: "),
        (choose(bandwidth_mib_s=-1), "Choices.bandwidth_mib_s: "),
        (choose(encryption="off"), "Choices.encryption: "),
        (choose(performance_option="SMB"), "Choices.performance_option: "),
        (choose(moon="full"), "Choices.moon: "),
    ],
)
def test_a_report_that_was_changed_by_hand(world: World, change: Callable[[Data], object], said: str) -> None:
    world.kept(change)
    code, _, told = world.run("migrate", "--compatibility-report", world.report)
    assert code == 2
    assert "[report.unreadable]" in told
    assert said in told
    assert "mend:" in told


@pytest.mark.error("report.unreadable")
@pytest.mark.parametrize("text", ["", "no JSON", "[]", "null", '{"schema": 1', "\x00"])
def test_a_file_that_is_no_report(world: World, text: str) -> None:
    world.report.write_text(text, "utf-8")
    assert world.run("check", "--compatibility-report", world.report)[0] == 2


@pytest.mark.error("report.unreadable")
def test_a_report_that_is_not_there_or_no_text(world: World) -> None:
    code, out, _ = world.run("check", "--compatibility-report", world.report, "--json")
    assert code == 2
    assert json.loads(out)["problems"][0]["id"] == "report.unreadable"
    world.report.write_bytes(b"\xff\xfe")
    assert world.run("check", "--compatibility-report", world.report)[0] == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("check",), "Missing argument 'VM'"),
        (("migrate", "web"), "Missing argument 'DESTINATION'"),
        (("check", "--compatibility-report", "x", "--source", "a"), "--source does not go with"),
        (("migrate", "--compatibility-report", "x", "--encryption", "on"), "--encryption does not go with"),
        (("check", "web", "b", "--save", "/no/such/directory/x"), "is not there or cannot be written"),
    ],
)
def test_half_a_command(world: World, arguments: tuple[str, ...], said: str) -> None:
    code, _, told = world.run(*arguments)
    assert code == 2
    assert said in told


@pytest.mark.error("host.unknown")
def test_the_group_is_called_as_its_user_called_it(monkeypatch, tmp_path, capsys) -> None:
    GroupStore(tmp_path / "group.db")
    made = Group("0a1b2c", "spring", (), str(tmp_path / "group.db"), "/shared", "/leases")
    can = Capabilities(HandOver.STRICT, True, True, True, True, True, True)
    seen = SimpleNamespace(probe=lambda _operation, _request: Facts({}, 0.0), capabilities=lambda: can)
    monkeypatch.setattr("refimpl.cli.check.require_root", lambda _: None)
    monkeypatch.setattr("refimpl.cli.check.open_lab", lambda _: SimpleNamespace(group=made))
    monkeypatch.setattr("refimpl.cli.check.backend_of", lambda _: nullcontext(seen))
    assert main(["check", "web", "h9", "--json"]) == 3
    data = json.loads(capsys.readouterr().out)
    assert data["Group"] == "spring"
    assert "Group 'spring' has no host named 'h9'" in data["Incompatibilities"][0]["Message"]


def test_a_world_goes_with_the_simulated_backend_only(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "web", "b", "--world", "x"]) == 2
    assert "--world does not go with --backend libvirt" in capsys.readouterr().err


def test_the_options_of_the_request_are_those_of_a_reports_file() -> None:
    assert set(ChoicesFile.model_fields) == {field.name for field in fields(MigrationRequest)}


@pytest.mark.rule("R11")
def test_comparing_gives_no_command_and_takes_no_claim() -> None:
    backend, store = ScriptedBackend(VirtualTimeline()), MemoryStore(SETTINGS)
    report = compare(backend, store, "lab", request())
    assert report.compatible
    assert (backend.told, store.claims()) == ([], ())
