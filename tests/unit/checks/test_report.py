"""The compatibility report: Hyper-V's fields, every family told, and the same after a way through JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from refimpl.checks.families import FAMILIES
from refimpl.checks.report import compared
from refimpl.model.compatibility import CompatibilityReport, Verdict
from refimpl.model.facts import DiskFact, Facts, VmState
from tests.builders import NOW_S, facts, host, request, vm
from tests.judging import asked, found, judged, passed, seen


def report(shown: Facts, **wish: Any) -> CompatibilityReport:
    return compared(asked(shown, request(**wish)))


def verdicts(made: CompatibilityReport) -> dict[str, Verdict]:
    return {checked.family: checked.verdict for checked in made.checked}


BAD = seen(switches=frozenset(), disks={}, versions={"libvirt": "10.2.0", "qemu": "10.9"}, clock=None)


@pytest.mark.rule("R11")
def test_a_healthy_pair_is_compatible_and_every_family_says_what_it_saw() -> None:
    made = report(facts())
    assert made.compatible
    assert made.problems == ()
    assert set(verdicts(made).values()) == {Verdict.OK}
    assert [c.family for c in made.checked] == [f.name for f in FAMILIES]
    texts = {c.family: c.text for c in made.checked}
    assert texts["memory"] == "256 MiB needed, 1792 of 2048 MiB left on b"
    assert texts["network"] == "in this order: 10.1.0.2, 10.2.0.2"
    assert "probed by writing" in texts["storage"]


@pytest.mark.rule("R11")
def test_it_has_hyper_vs_fields() -> None:
    data = report(BAD).to_json()
    first = ("VM", "OperationType", "Destination", "Path", "SnapshotPath", "VhdDestinationPath", "VhdSourcePath")
    assert [*data][1:9] == [*first, "Incompatibilities"]
    assert data["VM"] == {"Name": "web", "Id": vm().id}
    assert (data["Destination"], data["SourceHost"], data["ComparedAt"]) == ("b", "a", NOW_S)
    entries = {e["MessageId"]: e for e in data["Incompatibilities"]}
    assert set(entries) == {33012, 40010}
    assert entries[33012]["Source"] == {"Type": "VMNetworkAdapter", "Name": "adapter 1"}
    assert entries[33012]["Message"].startswith("Could not find Ethernet switch 'lan'")
    assert entries[40010]["Source"]["Type"] == "HardDiskDrive"
    assert {"id", "why", "mend", "values", "side", "host"} <= set(entries[33012])
    assert [w["MessageId"] for w in data["Warnings"]] == [None, None]


@pytest.mark.rule("R11")
def test_it_reads_back_from_json() -> None:
    made = report(BAD)
    assert CompatibilityReport.from_json(json.loads(json.dumps(made.to_json()))) == made


@pytest.mark.parametrize("wrong", [{"schema": 2}, {"OperationType": "ImportVirtualMachine"}])
def test_another_schema_is_not_read(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="schema 1"):
        CompatibilityReport.from_json(report(BAD).to_json() | wrong)


def test_warnings_are_told_and_do_not_make_it_incompatible() -> None:
    made = report(seen(versions={"libvirt": "12.6.0", "qemu": "10.9"}))
    assert made.compatible
    assert [p.id for p in made.warnings] == ["version.older"]
    assert verdicts(made)["versions"] is Verdict.WARNING


def test_what_was_not_seen_is_not_called_in_order() -> None:
    made = report(seen(clock=None, switches=None, cpu=None, here={"versions": {}}, versions={}))
    assert made.compatible
    unseen = {family for family, verdict in verdicts(made).items() if verdict is Verdict.NOT_SEEN}
    assert unseen == {"clocks", "switches", "processor", "versions", "advisories"}


def test_when_the_destination_is_down_nothing_else_is_called_in_order() -> None:
    made = report(facts(host("a", vms=(vm(),)), replace(host("b"), reachable=False)))
    assert verdicts(made).pop("identity") is Verdict.REFUSED
    assert {v for f, v in verdicts(made).items() if f not in ("identity", "devices")} == {Verdict.NOT_SEEN}


def test_an_unknown_vm_is_named_as_it_was_asked_for() -> None:
    data = report(facts(), vm="db").to_json()
    assert data["VM"] == {"Name": "db", "Id": None}
    assert data["Incompatibilities"][0]["Source"] == {"Type": "VirtualMachine", "Name": "db"}


@pytest.mark.rule("R11")
@pytest.mark.error("report.stale")
def test_its_choices_are_for_the_vm_of_that_id_alone() -> None:
    wish = report(facts(), encryption=False, bandwidth_mib_s=7).choices
    assert (wish.encryption, wish.bandwidth_mib_s, wish.vm_id) == (False, 7, vm().id)
    assert passed(facts(), wish)
    assert set(found(seen(vm(id="another")), wish)) == {"report.stale"}


def test_the_report_lists_exactly_what_the_judge_refuses() -> None:
    assert report(BAD).incompatibilities == judged(BAD).values["problems"]


def test_a_vm_that_is_off_says_so_where_nothing_is_needed() -> None:
    made = report(seen(vm(state=VmState.OFF), memory_used_mib=2048))
    assert made.compatible
    assert {c.family for c in made.checked if "off" in c.text} >= {"memory", "network", "compression", "processor"}


def test_an_unprobed_disk_is_told_as_such() -> None:
    path = vm().disks[0].path
    made = report(seen(disks={path: DiskFact(path, "fs7:42", 1 << 26)}))
    assert "not probed" in next(c.text for c in made.checked if c.family == "storage")
