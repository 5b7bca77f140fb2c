"""Known faults of named versions: the data file is whole, and each kind of advisory does what it says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from refimpl.checks import advisories
from refimpl.checks.advisories import Advisory, Severity, catalogue
from refimpl.checks.version import parsed
from refimpl.model.errors import Problem
from refimpl.model.facts import CpuFact, Facts, VmState
from refimpl.model.phase import Side
from refimpl.model.request import HandOver, PerformanceOption, PostCopy
from tests.builders import FEATURES, request, vm
from tests.judging import asked, found, passed, seen, warned


def versions(libvirt: str, qemu: str = "11.0.0", **changes: Any) -> Facts:
    both = {"libvirt": libvirt, "qemu": qemu}
    return seen(vm(**changes), here={"versions": both}, versions=both)


def ids(shown: Facts, **wish: Any) -> set[str]:
    return {advisory.id for _, advisory in advisories.concerning(asked(shown, request(**wish)))}


def made(severity: Severity = Severity.WARNING, side: Side | None = None, **when: Any) -> Advisory:
    bounds = {"libvirt": (parsed("9.0"), parsed("9.2"))}
    return Advisory("test", bounds, side, severity, "it fails", "seen", "bring it to 9.2", when)


def told(shown: Facts, advisory: Advisory, **wish: Any) -> list[Problem]:
    return list(advisories.check(asked(shown, request(**wish)), (advisory,)))


def test_the_data_file_is_whole() -> None:
    known = catalogue()
    assert len({a.id for a in known}) == len(known)
    for advisory in known:
        assert advisory.effect
        assert advisory.mend
        assert not advisory.evidence.endswith(".")
        for first, fixed in advisory.versions.values():
            assert first or fixed
            assert not (first and fixed) or first < fixed


def test_a_condition_that_nobody_knows_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advisories.tomllib, "loads", lambda _: {"advisory": [{**_ROW, "when": {"moon": "full"}}]})
    with pytest.raises(ValueError, match="moon"):
        catalogue.__wrapped__()


_ROW = {"id": "x", "versions": {"qemu": ["", "1"]}, "side": "either", "severity": "refuse"}


@pytest.mark.error("advisory.refused", "advisory.warning")
def test_a_refusal_refuses_a_warning_warns_and_information_does_neither() -> None:
    shown = versions("9.1.3")
    assert [p.id for p in told(shown, made(Severity.REFUSE))] == ["advisory.refused"] * 2
    warning = told(shown, made(Severity.WARNING))[0]
    assert warning.id == "advisory.warning"
    assert "libvirt 9.1.3" in warning.text
    assert "it fails" in warning.text
    assert warning.mend == "bring it to 9.2"
    assert not warning.refuses
    assert told(shown, made(Severity.INFORMATION)) == []


@pytest.mark.parametrize(("version", "has"), [("8.9.9", 0), ("9.0.0", 2), ("9.1.9", 2), ("9.2.0", 0), ("unknown", 0)])
def test_from_the_first_version_on_and_before_the_one_without(version: str, has: int) -> None:
    assert len(told(versions(version), made())) == has


def test_only_the_side_that_it_is_about() -> None:
    assert [p.host for p in told(versions("9.1"), made(side=Side.DESTINATION))] == ["b"]
    assert [p.host for p in told(versions("9.1"), made(side=Side.SOURCE))] == ["a"]


def test_only_moves_that_it_is_about() -> None:
    shown = versions("9.1")
    assert told(shown, made(encryption=True))
    assert not told(shown, made(encryption=True), encryption=False)
    assert told(shown, made(compression=True))
    assert not told(shown, made(compression=True), performance_option=PerformanceOption.TCPIP)
    assert told(shown, made(memory_mib=256))
    assert not told(shown, made(memory_mib=257))
    assert told(shown, made(feature="avx"))
    assert not told(shown, made(feature="ht"))
    assert not told(shown, made(hand_over="delegated"))
    assert told(shown, made(hand_over="delegated"), hand_over=HandOver.DELEGATED)
    assert told(replace(shown, hand_overs=(HandOver.DELEGATED,)), made(hand_over="delegated"))
    assert not told(versions("9.1", state=VmState.OFF), made())


@pytest.mark.rule("R1")
def test_whoever_chooses_delegated_hand_over_is_told_what_it_cannot_exclude() -> None:
    shown = replace(versions("11.3.0"), hand_overs=(HandOver.STRICT, HandOver.DELEGATED))
    assert "delegated-older-source" not in ids(shown)
    assert "delegated-older-source" in ids(shown, hand_over=HandOver.DELEGATED)
    text = advisories.told(asked(shown, request(hand_over=HandOver.DELEGATED)))
    assert text is not None
    assert "undone behind its back" in text


def test_a_fault_of_two_components_needs_both() -> None:
    with_ht = CpuFact("Intel", "Skylake", FEATURES | {"ht"})
    there = CpuFact("Intel", "Cascadelake", FEATURES | {"ht"})
    both, one = {"libvirt": "11.9.0", "qemu": "10.0.0"}, {"libvirt": "11.9.0", "qemu": "9.2.0"}
    assert "libvirt-ht-flag" in ids(seen(vm(cpu=with_ht), cpu=there, versions=both))
    assert "libvirt-ht-flag" not in ids(seen(vm(cpu=with_ht), cpu=there, versions=one))


def test_the_crash_at_a_post_copy_resume_is_information_and_no_warning() -> None:
    assert "libvirt-postcopy-resume" in ids(versions("11.3.0"), post_copy=PostCopy.ALLOWED)
    assert "libvirt-postcopy-resume" not in ids(versions("11.4.0"), post_copy=PostCopy.ALLOWED)
    assert "libvirt-postcopy-resume" not in ids(versions("11.3.0"))
    assert passed(versions("11.3.0", "10.0.2"))
    wished = asked(versions("11.3.0"), request(post_copy=PostCopy.ALLOWED))
    assert "libvirt-postcopy-resume: " in str(advisories.told(wished))


def test_warnings_and_refusals_of_the_data_file_reach_the_decision() -> None:
    assert set(warned(versions("10.2.0"))) == {"advisory.warning"}
    long = request(performance_option=PerformanceOption.TCPIP)
    big = versions("12.6.0", "10.0.2", memory_mib=1 << 16)
    assert {p.values["advisory"] for p in told_all(big, long)} == {"tls-long-session"}
    assert told_all(big, request()) == []
    assert found(versions("12.6.0", "3.1.0"))["advisory.refused"].values["advisory"] == "qemu-too-old"


def told_all(shown: Facts, wish: Any) -> list[Problem]:
    return list(advisories.check(asked(shown, wish)))
