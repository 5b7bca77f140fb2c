"""The scene of a soak on real hosts: a lab, one guest that writes memory and disk, and what looks at them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from refimpl.app.accelerator import choose
from refimpl.app.home import Home
from refimpl.app.recovery import Interrupted, interrupted
from refimpl.app.vms import VmDesk
from refimpl.app.watched import ProbeFiles, subject_of
from refimpl.backends.libvirt.backend import LibvirtBackend
from refimpl.engine.store import GroupStore
from refimpl.guest import GuestParameters, build
from refimpl.hosts import netns
from refimpl.hosts.factory import channel_for
from refimpl.hosts.wait import until
from refimpl.lab import Lab, create, leftovers
from refimpl.lab.faultbook import FaultBook
from refimpl.meter.lines import JoinedLog, read_log
from refimpl.model.errors import RefimplError
from refimpl.model.facts import HostFacts, Scope, VmFacts, VmState
from refimpl.model.group import Group, HostEntry

VM = "soak"
MEMORY_MIB, HOST_MEMORY_MIB = 128, 1024
GUEST = GuestParameters(writer_working_set_mib=8, writer_rate_pages_per_s=1000, disk_period_ms=20, disk_blocks=64)
WORKS_S = 60.0


@dataclass
class Scene:
    """A lab with one guest; the calling thread is in the lab's management network."""

    lab: Lab
    home: Home
    vm_id: str
    probe: ProbeFiles
    files: Sequence[str]
    """The files of the shared directory as they have to be between moves."""

    @property
    def group(self) -> Group:
        """The lab's group as it is now."""
        return self.lab.group

    def host(self, name: str) -> HostEntry:
        """Return a host."""
        found = self.group.host(name)
        assert found is not None
        return found

    @contextmanager
    def backend(self) -> Iterator[LibvirtBackend]:
        """Give a backend of this process, for looking."""
        with closing(LibvirtBackend(self.group, lambda _: None, time.time_ns)) as backend:
            yield backend

    def look(self) -> dict[str, HostFacts]:
        """Look at the hosts over fresh connections."""
        with self.backend() as backend:
            return dict(backend.observe(Scope()).hosts)

    def copies(self) -> dict[str, VmFacts]:
        """Return the copies of the VM by host."""
        found = {name: facts.vm(VM) for name, facts in self.look().items()}
        return {name: vm for name, vm in found.items() if vm is not None}

    def running(self) -> list[str]:
        """Return on which hosts a copy runs."""
        return [name for name, vm in self.copies().items() if vm.state is VmState.RUNNING]

    def log(self) -> JoinedLog:
        """Return all that the guest has said."""
        return read_log(self.probe.files)

    def works(self, host: str) -> bool:
        """Whether the guest says something new on a host."""
        file = self.probe.files[host]
        before = file.stat().st_size if file.exists() else 0
        return until(lambda: file.exists() and file.stat().st_size > before + 500, WORKS_S, 0.05)

    def start_again(self) -> None:
        """Start the VM where it is defined, after its memory was lost."""
        with self.backend() as backend:
            VmDesk(self.group, backend).start_and_wait(VM)

    def interrupted(self) -> tuple[Interrupted, ...]:
        """Return what is to be recovered."""
        with self.backend() as backend:
            return interrupted(self.home, self.group, backend)

    def left(self) -> list[str]:
        """Return what should not be there when no move is under way."""
        store = Path(self.group.store_path)
        left = [f"claim of {c.operation}" for c in GroupStore(store).claims()]
        left += [f"lock file {p.name}" for p in store.parent.glob(f"{store.name}.*.lock")]
        left += [f"fault {r.fault} of {r.target}" for r in FaultBook(self.lab.paths).standing()]
        left += [f"interrupted operation {item.operation} (by its {item.found_by})" for item in self.interrupted()]
        for name, vm in self.copies().items():
            left += [f"mark of {vm.operation} on host {name}"] if vm.operation else []
            left += [f"copy on host {name} ({vm.state})"] if vm.state is not VmState.RUNNING else []
            if vm.state is VmState.RUNNING and (vm.lease is None or not vm.lease.held):
                left.append(f"no lease held on host {name}")
        left += [f"file {p}" for p in shared_files(self.group) if p not in self.files]
        left += [f"missing file {p}" for p in self.files if p not in shared_files(self.group)]
        left += [f"host {s.name} not healthy: {s}" for s in self.lab.status() if not s.healthy]
        for host in self.group.hosts:
            tables = channel_for(host).run(["nft", "list", "tables"]).stdout
            left += [f"{line} on host {host.name}" for line in tables.splitlines() if "refimpl_" in line]
        return left


def shared_files(group: Group) -> list[str]:
    """Return the files below the directory that the hosts share."""
    top = Path(group.shared_directory)
    return sorted(str(p.relative_to(top)) for p in top.rglob("*") if p.is_file())


@contextmanager
def scene(root: Path) -> Iterator[Scene]:
    """Give a scene; at the end its lab is gone, with all that was left in it."""
    build()
    accelerator = choose("auto")
    lab = create("soak", 2, HOST_MEMORY_MIB, root=root)
    try:
        group = lab.group
        assert group.management_netns is not None
        with open("/proc/thread-self/ns/net", "rb") as before:
            netns.enter(group.management_netns)
            try:
                with closing(LibvirtBackend(group, lambda _: None, time.time_ns)) as backend:
                    desk = VmDesk(group, backend)
                    first = group.hosts[0].name
                    made = desk.create(VM, first, memory_mib=MEMORY_MIB, accelerator=accelerator.name, parameters=GUEST)
                    desk.start_and_wait(VM)
                subject = subject_of(group, VM)
                assert subject.probe is not None
                yield Scene(lab, Home(root / "home"), made.id, subject.probe, shared_files(group))
            finally:
                netns.enter_open(before.fileno())
    finally:
        lab.down()
        left = leftovers(lab.id, root)
        if left:
            raise LabLeft(left)


class LabLeft(RuntimeError):
    """Something of the lab is left after it was taken away."""

    def __init__(self, left: Sequence[str]) -> None:
        super().__init__("; ".join(left))


FAILURES = (RefimplError, OSError, TimeoutError)
"""What looking at hosts that are struck may raise."""
