"""Vendor, features and accelerator: what a guest has seen has to be there; what is emulated is everywhere."""

from __future__ import annotations

from dataclasses import replace

import pytest

from refimpl.model.facts import CpuFact, VmState
from tests.builders import FEATURES, vm
from tests.judging import found, passed, seen

AMD = CpuFact("AMD", "EPYC", FEATURES | {"sse4a"})
OLD = CpuFact("Intel", "Nehalem", frozenset({"sse2"}))


@pytest.mark.rule("R5")
@pytest.mark.error("cpu.vendor")
@pytest.mark.parametrize("state", [VmState.RUNNING, VmState.PAUSED])
@pytest.mark.parametrize("compatible", [False, True])
def test_a_vm_never_crosses_vendors_whatever_its_settings(state: VmState, compatible: bool) -> None:
    shown = seen(vm(state=state, processor_compatibility=compatible), cpu=AMD)
    problem = found(shown)["cpu.vendor"]
    assert (problem.values["here"], problem.values["there"]) == ("Intel", "AMD")
    assert problem.object == ("VMProcessor", "web")


def test_a_vm_that_is_off_crosses_vendors_and_takes_fewer_features() -> None:
    assert passed(seen(vm(state=VmState.OFF), cpu=AMD))
    assert passed(seen(vm(state=VmState.OFF), cpu=OLD))


@pytest.mark.rule("R5")
@pytest.mark.error("cpu.features")
def test_a_feature_that_the_vm_sees_and_the_destination_lacks() -> None:
    problem = found(seen(cpu=OLD))["cpu.features"]
    assert problem.values["features"] == "avx"
    assert "processor-specific features not supported on host" in problem.text
    assert "refimpl vm set web --processor-compatibility on" in problem.mend
    assert problem.mend.index("vm stop") < problem.mend.index("--processor-compatibility")


def test_more_features_at_the_destination_do_no_harm() -> None:
    assert passed(seen(cpu=CpuFact("Intel", "Sapphire", FEATURES | {"amx"})))


@pytest.mark.error("cpu.baseline")
def test_with_processor_compatibility_only_the_baseline_counts() -> None:
    baseline = vm(processor_compatibility=True, cpu=CpuFact("Intel", "baseline", frozenset({"sse2"})))
    assert passed(seen(baseline, cpu=OLD))
    assert set(found(seen(baseline, cpu=replace(OLD, features=frozenset())))) == {"cpu.baseline"}


def test_what_is_emulated_is_the_same_everywhere() -> None:
    emulated = vm(accelerator="tcg", cpu=CpuFact("AMD", "qemu64", frozenset({"svm"})))
    assert passed(seen(emulated, here={"cpu": OLD}, cpu=AMD))


def test_a_processor_that_is_not_told_is_not_judged() -> None:
    assert passed(seen(cpu=None))
    assert passed(seen(vm(cpu=None)))
    assert passed(seen(cpu=replace(AMD, vendor="")))


@pytest.mark.rule("R5")
@pytest.mark.error("accelerator.missing")
@pytest.mark.parametrize("state", [VmState.RUNNING, VmState.OFF])
def test_kvm_has_to_be_there_for_a_vm_that_has_it(state: VmState) -> None:
    problem = found(seen(vm(state=state), accelerators=frozenset({"tcg"})))["accelerator.missing"]
    assert problem.values["known"] == "tcg"
    assert passed(seen(vm(state=state, accelerator="tcg"), accelerators=frozenset({"tcg"})))
    assert passed(seen(accelerators=None))
