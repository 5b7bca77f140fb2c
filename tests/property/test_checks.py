"""Whatever facts hosts show, the checks come to a decision; it is the report's, and every finding can be read."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from refimpl.checks.judge import judge
from refimpl.checks.report import compared
from refimpl.checks.subject import subject
from refimpl.model.compatibility import CompatibilityReport
from refimpl.model.events import Kind
from refimpl.model.facts import (
    AddressFact,
    CertificateFact,
    ClockFact,
    CpuFact,
    DeviceFact,
    DiskFact,
    Facts,
    HostFacts,
    LeaseFact,
    NicFact,
    VmFacts,
    VmState,
)
from refimpl.model.request import MigrationRequest, PerformanceOption
from refimpl.model.settings import HostSettings, MigrationSubnet
from tests.builders import OPERATION, event, ledger

WORDS = st.sampled_from(["web", "a", "b", "lan", "", "it's", "{x}", "\n", "ü"])
FEATURES = st.frozensets(st.sampled_from(["avx", "sse2", "ht"]))
VERSIONS = st.sampled_from(["", "3.1", "6.0.0", "8.8.0", "10.2.0", "11.3.0", "12.6.0", "9" * 30, "x"])
NUMBERS = st.integers(0, 1 << 40)
TIMES = st.floats(-1e18, 1e18)
ADDRESSES = st.ip_addresses().map(str)


def maybe(of: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | of


def some(of: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(of, max_size=2).map(tuple)


CPU = st.builds(CpuFact, st.sampled_from(["Intel", "AMD"]), WORDS, FEATURES)
PATHS = st.sampled_from(["/a", "/b.vhdx", "relative", ""])
DISK = st.builds(
    DiskFact,
    path=PATHS,
    identity=maybe(st.sampled_from(["1", "2"])),
    size_bytes=maybe(st.integers(0, 2)),
    device=st.sampled_from(["disk", "cdrom", "floppy"]),
    format=maybe(st.sampled_from(["raw", "qcow2", "vhdx"])),
    content=maybe(st.sampled_from(["raw", "vhd"])),
    cache=maybe(st.sampled_from(["none", "writeback"])),
    read_only=st.booleans(),
    transient=st.booleans(),
    chain=some(PATHS),
    probed=maybe(st.booleans()),
    content_hash=maybe(st.sampled_from(["aa", "bb"])),
    shared_file_system=maybe(st.booleans()),
)
VM = st.builds(
    VmFacts,
    name=st.sampled_from(["web", "db"]),
    id=st.sampled_from(["1", "2"]),
    state=st.sampled_from(VmState),
    memory_mib=st.integers(0, 1 << 20),
    disks=some(DISK),
    lease=maybe(st.builds(LeaseFact, PATHS, maybe(st.booleans()))),
    operation=maybe(st.sampled_from([OPERATION, "ffffffff"])),
    nics=some(st.builds(NicFact, WORDS, WORDS, maybe(WORDS))),
    cpu=maybe(CPU),
    processor_compatibility=st.booleans(),
    machine=st.sampled_from(["", "pc", "q35"]),
    accelerator=st.sampled_from(["", "kvm", "tcg"]),
    unmovable=some(st.builds(DeviceFact, WORDS, WORDS, WORDS)),
    snapshots=some(WORDS),
    busy=WORDS,
)
CERTIFICATE = st.builds(
    CertificateFact,
    role=st.sampled_from(["control-server", "migration-client"]),
    names=some(WORDS),
    not_before_s=TIMES,
    not_after_s=TIMES,
    trusted=st.booleans(),
    key_private=st.booleans(),
)
HOST = st.builds(
    HostFacts,
    name=st.sampled_from("abc"),
    reachable=st.booleans() | st.just(True),
    names=some(WORDS),
    memory_mib=NUMBERS,
    memory_used_mib=NUMBERS,
    vms=some(VM),
    disks=st.dictionaries(PATHS, DISK),
    certificates=some(CERTIFICATE),
    lock_daemon_alive=maybe(st.booleans()),
    addresses=some(st.builds(AddressFact, ADDRESSES, st.just(24))),
    routes=some(st.ip_addresses().map(lambda a: f"{a}/{a.max_prefixlen // 2}")),
    switches=maybe(st.frozensets(WORDS)),
    cpu=maybe(CPU),
    machine_types=maybe(st.frozensets(st.sampled_from(["pc", "q35"]))),
    accelerators=maybe(st.frozensets(st.sampled_from(["kvm", "tcg"]))),
    compression=some(st.sampled_from(["zstd", "xbzrle"])),
    clock=maybe(st.builds(ClockFact, TIMES, TIMES)),
    clock_reference_s=maybe(TIMES),
    versions=st.dictionaries(st.sampled_from(["libvirt", "qemu"]), VERSIONS),
)
SETTINGS = st.builds(
    HostSettings,
    migration_enabled=st.booleans(),
    maximum_migrations=st.integers(0, 3),
    performance_option=st.sampled_from(PerformanceOption),
    use_any_network=st.booleans(),
    networks=some(st.builds(MigrationSubnet, ADDRESSES, st.integers(0, 2))),
)
FACTS = st.builds(
    Facts,
    hosts=st.fixed_dictionaries({}, optional={"a": HOST, "b": HOST, "c": HOST}),
    now_s=TIMES,
    settings=st.dictionaries(st.sampled_from("ab"), SETTINGS),
    moving=st.dictionaries(st.sampled_from("ab"), some(WORDS)),
)
REQUEST = st.builds(
    MigrationRequest,
    vm=st.just("web"),
    destination=st.sampled_from("bc"),
    source=maybe(st.sampled_from("abz")),
    encryption=st.booleans(),
    performance_option=maybe(st.sampled_from(PerformanceOption)),
    vm_id=maybe(st.just("1")),
)


@hypothesis_settings(max_examples=400, deadline=None)
@given(FACTS, REQUEST)
def test_no_combination_of_facts_is_too_much_for_the_checks(facts: Facts, request: MigrationRequest) -> None:
    made = judge(ledger(plan=None, request=request), event(Kind.FACTS_SEEN, facts=facts))
    assert made.kind in (Kind.CHECKS_PASSED, Kind.CHECKS_REFUSED)
    report = compared(subject(request, OPERATION, "lab", facts))
    assert report.compatible == (made.kind is Kind.CHECKS_PASSED)
    assert report.incompatibilities == made.values.get("problems", ())
    for problem in report.problems:
        assert problem.text
        assert problem.mend
        assert problem.object[1] != "?"
    assert CompatibilityReport.from_json(json.loads(json.dumps(report.to_json()))) == report
