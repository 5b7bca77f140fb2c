"""A lab with one working guest that tests of the seam leave as they please: it is put in order after each of them."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from refimpl.backends.libvirt import connection, stamp, vms
from refimpl.backends.libvirt.domain import VmSpec
from refimpl.backends.libvirt.status import read_status
from refimpl.hosts.factory import channel_for
from refimpl.lab import Lab
from refimpl.model.group import HostEntry
from tests.lab.libvirt_support import host_of, until, wait_for_lines


class Bed:
    """A lab with one working guest that is on one of the two hosts, and nothing of it on the other."""

    def __init__(self, lab: Lab, spec: VmSpec) -> None:
        self.lab = lab
        self.spec = spec

    def place(self) -> str:
        """Return the host on which the VM is defined; there has to be exactly one."""
        (place,) = (host.name for host in self.lab.group.hosts if self._has(host))
        return place

    def other(self) -> str:
        """Return the host on which it is not."""
        place = self.place()
        return next(host.name for host in self.lab.group.hosts if host.name != place)

    def tidy(self) -> None:
        """Have one running copy, without a mark, whatever was left half-way."""
        for host in self.lab.group.hosts:
            self.lab.host_power_on(host.name)
        for host in self.lab.group.hosts:
            self._abort(host)
        until(lambda: not any(self._job(host) for host in self.lab.group.hosts), "the end of all jobs")
        if not any(self._has(host) for host in self.lab.group.hosts):
            # A backend that loses the VM fails its own test, not all that come after.
            vms.create(self.lab.group, self.lab.group.hosts[0], self.spec)
        keep, *others = sorted((h for h in self.lab.group.hosts if self._has(h)), key=self._worth)
        for host in others:
            self._remove(host)
        self._disk_back(keep)
        self._bring_up(keep)

    def domain_call(self, host: str, *calls: tuple[str, *tuple[int, ...]]) -> None:
        """Call methods of the VM's domain on a host."""
        with connection.fresh(host_of(self.lab.group, host)) as fresh:
            domain = fresh.lookupByUUIDString(self.spec.id)
            for name, *values in calls:
                getattr(domain, name)(*values)

    def _disk_back(self, host: HostEntry) -> None:
        """Put a disk that the VM has taken along back to where all hosts see it."""
        shared = Path(self.spec.disk_path)
        own = Path(host.local_directory) / shared.name
        if own.exists():
            self._remove(host)
            shutil.move(own, shared)
            vms.create(self.lab.group, host, self.spec)

    def _has(self, host: HostEntry) -> bool:
        with connection.fresh(host) as fresh:
            return connection.find(fresh, self.spec.id) is not None

    def _abort(self, host: HostEntry) -> None:
        """End a transfer from this host; the receiving side would keep the question waiting for half a minute."""
        if self._job(host) == "migration out":
            with suppress(*connection.failures()):
                self.domain_call(host.name, ("abortJob",))

    def _job(self, host: HostEntry) -> str:
        seen = read_status(channel_for(host), self.spec.name)
        return seen.job if seen is not None else ""

    def _worth(self, host: HostEntry) -> int:
        """Order copies: what runs is worth most, what is off least."""
        lv = connection.module()
        order = [lv.VIR_DOMAIN_RUNNING, lv.VIR_DOMAIN_PAUSED]
        with connection.fresh(host) as fresh:
            state = fresh.lookupByUUIDString(self.spec.id).state()[0]
        return order.index(state) if state in order else len(order)

    def _remove(self, host: HostEntry) -> None:
        with connection.fresh(host) as fresh:
            domain = connection.find(fresh, self.spec.id)
            if domain is not None and domain.isActive():
                domain.destroy()
            if domain is not None and connection.find(fresh, self.spec.id) is not None:
                domain.undefine()

    def _bring_up(self, host: HostEntry) -> None:
        with connection.fresh(host) as fresh:
            domain = fresh.lookupByUUIDString(self.spec.id)
            if not domain.isActive():
                domain.create()
            elif domain.state()[0] == connection.module().VIR_DOMAIN_PAUSED:
                domain.resume()
            marked = stamp.from_domain_xml(domain.XMLDesc(0))
            if marked is not None:
                stamp.take_off(domain, marked.operation)
        wait_for_lines(host, self.spec.name, 5)
