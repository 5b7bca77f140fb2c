"""The handle of a lab that is up: what it is made of, how its hosts are, and switching parts of it off and on."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from refimpl.backends.libvirt.lease import left_locked
from refimpl.backends.libvirt.running import running_vms
from refimpl.engine.store import Claim, GroupStore
from refimpl.hosts import process
from refimpl.hosts.factory import channel_for
from refimpl.hosts.namespace import enter_host, enter_network
from refimpl.lab import layout, shelf
from refimpl.lab.builder import (
    ANSWER_S,
    Builder,
    install_certificate,
    member_names,
    with_init,
    write_config,
    write_group,
)
from refimpl.lab.config import HostConfig, KeepAlive
from refimpl.lab.errors import LabError
from refimpl.lab.host import LIBVIRTD, VIRTLOCKD, HostRunner
from refimpl.lab.layout import HostPlan, LabPaths
from refimpl.lab.links import Link, links_of
from refimpl.lab.reaper import Removal
from refimpl.lab.registry import Registry
from refimpl.lab.steps import OnStep, Steps, no_report
from refimpl.lab.wish import Wish, plain_wish
from refimpl.model.group import Group, HostEntry, ProcessRef

_STATUS_S = 5.0


class CertificateKind(StrEnum):
    """Which certificate a host is given: a good one, one that has expired, or one that names another host."""

    GOOD = "good"
    EXPIRED = "expired"
    OTHER_NAME = "other-name"


@dataclass(frozen=True, slots=True)
class HostStatus:
    """How one host is: its processes, whether libvirt answers the conductor, and its declared memory in MiB.

    `daemons_in_order`: libvirtd began after virtlockd, which knows the lease space only then. `without_lease`: the VMs
    that run there and whose lease its virtlockd does not hold. `left_locked`: ids of VMs whose lease it holds and which
    are not on there: they can be started nowhere.
    """

    name: str
    init_alive: bool
    libvirtd_alive: bool
    libvirtd_answers: bool
    virtlockd_alive: bool
    daemons_in_order: bool
    without_lease: tuple[str, ...]
    left_locked: tuple[str, ...]
    memory_mib: int

    @property
    def healthy(self) -> bool:
        """Everything that the host is made of is there."""
        processes = self.init_alive and self.libvirtd_alive and self.libvirtd_answers and self.virtlockd_alive
        return processes and self.leased

    @property
    def leased(self) -> bool:
        """Leases can be taken there, every VM that runs has its own, and no other's is locked."""
        return self.daemons_in_order and not self.without_lease and not self.left_locked


def create(
    name: str = "lab",
    hosts: int = 2,
    memory_mib: int = 2048,
    *,
    root: Path | None = None,
    keepalive: KeepAlive | None = None,
    on_step: OnStep = no_report,
    new_id: Callable[[], str] = shelf.random_id,
) -> Lab:
    """Build a lab of `hosts` hosts, each declaring `memory_mib` MiB, and return it when libvirt answers on all.

    `on_step` is told the name and the seconds of each step. LabError `lab.requirements` names all that is missing;
    when building fails half-way, what was built is taken away again and the error goes on.
    """
    wish = plain_wish(name, hosts, memory_mib, keepalive)
    return create_as(wish, root=root, on_step=on_step, new_id=new_id)


def create_as(
    wish: Wish, *, root: Path | None = None, on_step: OnStep = no_report, new_id: Callable[[], str] = shelf.random_id
) -> Lab:
    """Build the lab that is wished for; otherwise as `create`."""
    steps = Steps(on_step)
    with steps.step("requirements"):
        wish = shelf.require(wish, root or layout.state_root())
    with steps.step("directory"):
        place = shelf.reserve(wish, root or layout.state_root(), new_id)
    with place, contextlib.ExitStack() as undo:
        undo.callback(shelf.remove_held, place.paths)
        Builder(place.paths, wish, steps).build()
        undo.pop_all()
    return Lab(place.paths)


class Lab:
    """A lab that was built to its end. What it does on the machine raises LabError or OSError when it fails."""

    def __init__(self, paths: LabPaths) -> None:
        """Use `create` or `Lab.open`, which find the paths."""
        self.paths = paths
        self._registry = Registry(paths.registry)

    @classmethod
    def open(cls, name_or_id: str, root: Path | None = None) -> Lab:
        """Return the lab of that name or id. LabError `lab.unknown`, or `lab.unfinished` when it is half-made."""
        summary = shelf.find(name_or_id, root)
        if not summary.complete:
            raise LabError("lab.unfinished", lab=summary.name, lab_id=summary.id)
        return cls(LabPaths(root or layout.state_root(), summary.id))

    def down(self, on_step: OnStep = no_report, *, only_idle: bool = False) -> Removal:
        """Take the lab away, virtual machines and all; a second time there is nothing to do.

        With `only_idle`, LabError `lab.moving` while one of its virtual machines is being moved.
        """
        moves = self.moves() if only_idle else ()
        if moves:
            told = ", ".join(f"{m.operation} (VM {m.plan.vm}, {m.plan.source} to {m.plan.destination})" for m in moves)
            raise LabError("lab.moving", lab=self.name, moves=told, operation=moves[0].operation)
        return shelf.remove(self.paths, on_step)

    def moves(self) -> tuple[Claim, ...]:
        """Return the claims of the moves that run in the lab, of every controller; interrupted ones do not run."""
        if not self.paths.store.exists():
            return ()
        return tuple(claim for claim in GroupStore.standing(self.paths.store).claims() if process.alive(claim.process))

    @property
    def id(self) -> str:
        """The lab's id, which everything of it carries."""
        return self.paths.id

    @property
    def name(self) -> str:
        """The name that its user gave it."""
        return self.group.name

    @property
    def group(self) -> Group:
        """The group's description as it is now; the init of a host changes when the host is switched on again."""
        return Group.from_json(json.loads(self.paths.group.read_text(encoding="utf-8")))

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the lab's user should know that is otherwise than in every lab."""
        return tuple(self._registry.read().notes.get("remark", {}).values())

    def status(self) -> tuple[HostStatus, ...]:
        """Look at every host now."""
        group = self.group
        with ThreadPoolExecutor(max_workers=len(group.hosts)) as pool:
            return tuple(pool.map(self._host_status, group.hosts))

    def shell_command(self, host: str, *command: str) -> list[str]:
        """Return the command line of a shell on a host, or of a command there."""
        if command:
            return [*enter_host(self._init(host)), *command]
        # A terminal of the host's own: one of outside cannot be controlled from its pid namespace.
        shell = f"PS1='[{self._entry(host).name}] # ' exec /bin/sh -i"
        return [*enter_host(self._init(host)), "script", "-qec", shell, "/dev/null"]

    def conductor_command(self) -> list[str]:
        """Return the beginning of a command line that runs what follows in the management network."""
        return enter_network(layout.netns_name(self.id, layout.CONDUCTOR))

    def links(self) -> tuple[Link, ...]:
        """Return the links of all hosts to all networks of the lab."""
        names = [network.name for network in self.group.hosts[0].migration_networks]
        return links_of(self.id, self._plans(), names, self._registry.read().notes.get("speeds", {}))

    def link(self, host: str, network: str) -> Link:
        """Return a host's link to a network: a migration network by its name, `management`, or `vm`."""
        self._entry(host)
        mine = {link.network: link for link in self.links() if link.host == host}
        if network not in mine:
            raise LabError("lab.network_unknown", lab=self.name, network=network, known=", ".join(mine))
        return mine[network]

    def logs(self, host: str) -> tuple[Path, ...]:
        """Return the log files of a host, those of its virtual machines among them."""
        return tuple(sorted(Path(self._entry(host).log_directory).rglob("*.log")))

    def daemon(self, host: str, name: str) -> ProcessRef | None:
        """Return the running daemon (`libvirtd` or `virtlockd`) of a host, or None."""
        return self._runner(host).find_daemon(self._init(host), name)

    def daemons_in_order(self, host: str) -> bool:
        """Tell whether a host's daemons run and libvirtd began after virtlockd: otherwise no lease can be taken."""
        lock, libvirtd = self.daemon(host, VIRTLOCKD), self.daemon(host, LIBVIRTD)
        return lock is not None and libvirtd is not None and libvirtd.start_ticks >= lock.start_ticks

    def host_power_off(self, host: str) -> None:
        """End a host as a power failure does: all its processes at once, its network stays cabled."""
        process.kill(self._init(host))

    def host_power_on(self, host: str) -> bool:
        """Start a host that is off, with its daemons, and return True; nothing when it is on. Its VMs stay off."""
        if process.alive(self._init(host)):
            return False
        init = self._runner(host).start_init()
        write_group(self.paths, with_init(self.group, host, init))
        self.start_daemons(host)
        return True

    def start_daemons(self, host: str) -> None:
        """Start those daemons of a host that do not run, virtlockd first, and wait until libvirt answers."""
        for name in (VIRTLOCKD, LIBVIRTD):
            if self.daemon(host, name) is None:
                self._runner(host).start_daemon(self._init(host), name)
        self._runner(host).ask_locally(self._init(host), ANSWER_S)
        self._runner(host).wait_for_vms(self._init(host), ANSWER_S)

    def stop_daemon(self, host: str, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        """End a daemon of a host with a signal, by force when it does not go; the virtual machines run on."""
        self._runner(host).stop_daemon(self._init(host), name, number)

    def restart_libvirtd(self, host: str) -> None:
        """End libvirtd of a host by force and start it again; it reads its configuration and certificate anew.

        By force because SIGTERM sometimes takes it many seconds; what it knows of its virtual machines is on the disk.
        """
        self.stop_daemon(host, LIBVIRTD, signal.SIGKILL)
        self.start_daemons(host)

    def replace_certificate(self, host: str, kind: CertificateKind) -> None:
        """Give a host another certificate, for libvirt and QEMU, and restart its libvirtd. For tests.

        With a certificate that it would refuse itself, libvirtd is told not to look at its own.
        """
        from refimpl.lab.certificates import Authority, Validity, now

        plan, authority = self._plan(host), Authority.load(self.paths.authority)
        name, addresses = plan.name, plan.addresses
        if kind is CertificateKind.OTHER_NAME:
            name, addresses = "elsewhere.invalid", ("192.0.2.1",)
        span = Validity.expired if kind is CertificateKind.EXPIRED else Validity.around
        pair = authority.issue(self.id, name, addresses, span(now()))
        install_certificate(self.paths, plan, authority, pair)
        members = member_names(self._plans())
        check = kind is CertificateKind.GOOD
        keepalive = KeepAlive(**self._registry.read().notes["keepalive"])
        write_config(HostConfig(self.paths, plan, members, keepalive, check_own_certificate=check))
        self.restart_libvirtd(host)

    def _host_status(self, host: HostEntry) -> HostStatus:
        init = self._init(host.name)
        runner = self._runner(host.name)
        libvirtd = runner.find_daemon(init, LIBVIRTD)
        without, left = _leases(host, self.group.lease_directory)
        return HostStatus(
            name=host.name,
            init_alive=process.alive(init),
            libvirtd_alive=libvirtd is not None,
            libvirtd_answers=libvirtd is not None and runner.answers(host.control_uri, _STATUS_S),
            virtlockd_alive=runner.find_daemon(init, VIRTLOCKD) is not None,
            daemons_in_order=self.daemons_in_order(host.name),
            without_lease=without,
            left_locked=left,
            memory_mib=host.memory_mib,
        )

    def _runner(self, host: str) -> HostRunner:
        return HostRunner(self.paths, self._plan(host), self._registry)

    def _plans(self) -> tuple[HostPlan, ...]:
        return tuple(layout.plan_of(number, host) for number, host in enumerate(self.group.hosts, 1))

    def _plan(self, host: str) -> HostPlan:
        self._entry(host)
        return next(p for p in self._plans() if p.name == host)

    def _init(self, host: str) -> ProcessRef:
        return self._entry(host).channel.init

    def _entry(self, host: str) -> HostEntry:
        group = self.group
        found = group.host(host)
        if found is None:
            known = ", ".join(h.name for h in group.hosts)
            raise LabError("lab.host_unknown", lab=group.name, host=host, known=known)
        return found


def _leases(host: HostEntry, directory: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of VMs that run without their lease, and the ids of those whose lease has outlived them."""
    channel = channel_for(host)
    try:
        vms = running_vms(channel)
        unprotected = tuple(vm.name for vm in vms if vm.unprotected)
        return unprotected, left_locked(channel, directory, {vm.id for vm in vms})
    except OSError:
        return (), ()
