"""Building a lab, step by step; each step's time is told to whoever asked.

Everything that is made outside the lab's directory is in the registry before it exists, so a builder that is killed at
any instant leaves nothing that the reaper cannot find.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from refimpl.engine.store import GroupStore
from refimpl.hosts.command import replace_file
from refimpl.hosts.wait import until
from refimpl.lab import capabilities, layout, links
from refimpl.lab.config import CONDUCTOR_NAME, HostConfig, hosts_table, start_script
from refimpl.lab.errors import LabError
from refimpl.lab.host import LIBVIRTD, VIRTLOCKD, HostRunner
from refimpl.lab.layout import HostPlan, LabPaths
from refimpl.lab.network import Network
from refimpl.lab.registry import Registry
from refimpl.lab.steps import Steps
from refimpl.lab.tools import build_init, run_tool
from refimpl.lab.wish import HostWish, Wish
from refimpl.model.group import ChannelSpec, Group, HostEntry, MigrationNetwork, ProcessRef
from refimpl.model.settings import MigrationSubnet

if TYPE_CHECKING:
    from refimpl.lab.certificates import Authority, KeyPair

T = TypeVar("T")
R = TypeVar("R")
ANSWER_S = 30.0
ASKED_EVERY_S = 0.1


@dataclass(slots=True)
class Builder:
    """Builds one lab in a directory that its caller has made, registered and locked."""

    lab: LabPaths
    wish: Wish
    steps: Steps
    registry: Registry = field(init=False)
    plans: tuple[HostPlan, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.registry = Registry(self.lab.registry)
        self.plans = layout.plan_hosts(self.lab.id, self.wish.host_names, self.wish.networks)

    def build(self) -> Group:
        """Build everything, write the group's description and return it. LabError when a step fails."""
        with self.steps.step("init-program"):
            program = build_init(self.lab.id)
        with self.steps.step("certificates"):
            self._make_certificates()
        with self.steps.step("files"):
            warm = self._write_files(program)
        with self.steps.step("networks"):
            Network(self.lab.id, self.plans, self.wish.networks, self.registry).make()
            self._shape_links()
        with self.steps.step("hosts"):
            inits = self._on_each(self.plans, lambda p: self._runner(p).start_init())
        with self.steps.step("virtlockd"):
            self._start(VIRTLOCKD, inits)
        with self.steps.step("libvirtd"):
            self._start_libvirtd(inits, warm)
        with self.steps.step("control-connections"):
            self._on_each(self.plans, self._require_answer)
        with self.steps.step("group"):
            group = self._group(inits)
            write_group(self.lab, group)
            self._enable_migration(group)
            self.registry.note("complete")
        return group

    def _make_certificates(self) -> None:
        # Here and not above: without this package `lab up` and the doctor can still say that it is what is missing.
        from refimpl.lab import certificates

        validity = certificates.Validity.around(certificates.now())
        authority = certificates.Authority.create(self.lab.id, validity)
        authority.save(self.lab.authority)
        own = authority.issue(self.lab.id, CONDUCTOR_NAME, [layout.conductor_address()], validity)
        files = certificates.client_files(authority.pair.certificate, own)
        certificates.write_files(self.lab.conductor_pki, files)
        for plan in self.plans:
            pair = authority.issue(self.lab.id, plan.name, plan.addresses, validity)
            install_certificate(self.lab, plan, authority, pair)

    def _write_files(self, program: Path) -> bool:
        for directory in (self.lab.leases, self.lab.disks, self.lab.store.parent, self.lab.local):
            directory.mkdir(parents=True)
        for plan in self.plans:
            paths = self.lab.host(plan.name)
            for directory in (paths.libvirt_config, paths.pki, paths.lib, paths.log, paths.cache, paths.local):
                directory.mkdir(parents=True, exist_ok=True)
            write_config(HostConfig(self.lab, plan, member_names(self.plans), self.wish.keepalive))
            (paths.etc / "hosts").write_text(hosts_table(self.plans), encoding="ascii")
            (paths.etc / "hostname").write_text(f"{plan.name}\n", encoding="ascii")
            (paths.etc / "machine-id").write_text(plan.uuid.replace("-", "") + "\n", encoding="ascii")
            paths.start_script.write_text(start_script(self.lab, plan, program, self.wish.keepalive), encoding="utf-8")
        return self._lend_to(self.plans)

    def _shape_links(self) -> None:
        speeds = {network.name: network.rate_mbit_s for network in self.wish.networks}
        speeds |= {links.MANAGEMENT_NETWORK: self.wish.management_rate_mbit_s}
        self.registry.note("speeds", **{name: rate for name, rate in speeds.items() if rate})
        names = [network.name for network in self.wish.networks]
        for link in links.links_of(self.lab.id, self.plans, names, speeds):
            if link.speed_mbit_s:
                link.shape(link.speed_mbit_s)

    def _lend_to(self, plans: Sequence[HostPlan]) -> bool:
        lent = [capabilities.lend(self.lab.host(p.name).cache) for p in plans]
        return all(lent)

    def _start_libvirtd(self, inits: Sequence[ProcessRef], warm: bool) -> None:
        if warm:
            self._start(LIBVIRTD, inits)
            return
        # Nothing is known about QEMU yet: one host finds it out for all, as two would only hinder each other.
        first, others = self.plans[0], self.plans[1:]
        runner = self._runner(first)
        runner.start_daemon(inits[0], LIBVIRTD)
        uri = layout.control_uri(first, self.lab.conductor_pki)
        run_tool(*runner.from_conductor("virsh", "-q", "-c", uri, "domcapabilities"), lab_id=self.lab.id)
        capabilities.keep(self.lab.host(first.name).cache)
        self._lend_to(others)
        self._on_each(list(zip(others, inits[1:], strict=True)), lambda p: self._start_one(LIBVIRTD, *p))

    def _start(self, daemon: str, inits: Sequence[ProcessRef]) -> None:
        self._on_each(list(zip(self.plans, inits, strict=True)), lambda p: self._start_one(daemon, *p))

    def _start_one(self, daemon: str, plan: HostPlan, init: ProcessRef) -> ProcessRef:
        return self._runner(plan).start_daemon(init, daemon)

    def _require_answer(self, plan: HostPlan) -> None:
        said = self._answer(plan)
        if said != plan.name:
            raise LabError("lab.wrong_answer", host=plan.name, said=said)

    def _answer(self, plan: HostPlan) -> str:
        """Return who a host says it is. Its daemon opens the port for controllers a moment after its own socket."""
        uri, answers = layout.control_uri(plan, self.lab.conductor_pki), list[str]()

        def asked() -> bool:
            try:
                answers.append(self._runner(plan).ask(uri, ANSWER_S))
            except LabError as failure:
                if "Connection refused" not in str(failure):
                    raise
            return bool(answers)

        if not until(asked, ANSWER_S, ASKED_EVERY_S):
            answers.append(self._runner(plan).ask(uri, ANSWER_S))
        return answers[0]

    def _runner(self, plan: HostPlan) -> HostRunner:
        return HostRunner(self.lab, plan, self.registry)

    def _enable_migration(self, group: Group) -> None:
        """Set every host up for live migration on the lab's networks, which no host is by itself."""
        networks = tuple(MigrationSubnet(n.subnet, n.priority) for n in self.wish.networks)
        store = GroupStore(self.lab.store)
        for host in group.hosts:
            store.change_settings(host.name, lambda old: replace(old, migration_enabled=True, networks=networks))

    def _group(self, inits: Sequence[ProcessRef]) -> Group:
        return Group(
            id=self.lab.id,
            name=self.wish.name,
            hosts=tuple(map(self._entry, self.plans, self.wish.hosts, inits)),
            store_path=str(self.lab.store),
            shared_directory=str(self.lab.shared),
            lease_directory=str(self.lab.leases),
            management_netns=layout.netns_name(self.lab.id, layout.CONDUCTOR),
            labels={
                "observer_address": layout.observer_address(),
                "vm_network": f"{layout.VM_SUBNET}.0/{layout.PREFIX_LENGTH}",
                "disk_directory": str(self.lab.disks),
            },
        )

    def _entry(self, plan: HostPlan, wish: HostWish, init: ProcessRef) -> HostEntry:
        networks = zip(self.wish.networks, plan.migration_addresses, strict=True)
        return HostEntry(
            name=plan.name,
            uuid=plan.uuid,
            control_uri=layout.control_uri(plan, self.lab.conductor_pki),
            peer_uri=layout.peer_uri(plan),
            management_address=plan.management_address,
            migration_networks=tuple(MigrationNetwork(n.name, address, n.priority) for n, address in networks),
            memory_mib=wish.memory_mib,
            channel=ChannelSpec("namespace", init),
            virtual_switch=layout.VIRTUAL_SWITCH,
            log_directory=str(self.lab.host(plan.name).log),
            storage_directories=(str(self.lab.local), str(self.lab.disks)),
            local_directory=str(self.lab.host(plan.name).local),
        )

    def _on_each(self, things: Sequence[T], work: Callable[[T], R]) -> list[R]:
        with ThreadPoolExecutor(max_workers=max(1, len(things))) as pool:
            return list(pool.map(work, things))


def member_names(plans: Sequence[HostPlan]) -> list[str]:
    """Return the names in the certificates that a lab's libvirt daemons accept from a client."""
    return [CONDUCTOR_NAME, *(p.name for p in plans)]


def write_config(config: HostConfig) -> None:
    """Write the files of a host's /etc/libvirt."""
    directory = config.lab.host(config.host.name).libvirt_config
    for name, text in config.files().items():
        replace_file(directory / name, text.encode(), 0o644)


def install_certificate(lab: LabPaths, plan: HostPlan, authority: Authority, pair: KeyPair) -> None:
    """Write a host's /etc/pki; daemons that run go on with what they have read."""
    from refimpl.lab import certificates

    files = certificates.host_files(authority.pair.certificate, pair)
    certificates.write_files(lab.host(plan.name).pki, files)


def write_group(lab: LabPaths, group: Group) -> None:
    """Write the group's description for everybody who uses the lab."""
    text = json.dumps(group.to_json(), indent=2, sort_keys=True) + "\n"
    replace_file(lab.group, text.encode(), 0o644)


def with_init(group: Group, host: str, init: ProcessRef) -> Group:
    """Return the description with another init process for one host."""
    hosts = tuple(replace(h, channel=ChannelSpec("namespace", init)) if h.name == host else h for h in group.hosts)
    return replace(group, hosts=hosts)
