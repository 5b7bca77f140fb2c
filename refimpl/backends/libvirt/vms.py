"""Making, starting, pausing, stopping and removing the VMs of a group. They are listed by `LibvirtBackend.observe`.

What a host refuses, or that it does not answer, is raised as `connection.failures()`.
"""

from __future__ import annotations

import threading

from refimpl.backends.libvirt import connection, lease
from refimpl.backends.libvirt.domain import VmSpec, domain_xml
from refimpl.backends.libvirt.mend_leases import unmark
from refimpl.backends.libvirt.running import running_vms
from refimpl.backends.libvirt.status import process_gone, read_status
from refimpl.hosts.factory import channel_for
from refimpl.model.group import Group, HostEntry

STOP_TIMEOUT_S = 30.0
_PERIOD_S = 0.05


def create(group: Group, host: HostEntry, spec: VmSpec) -> None:
    """Define a VM on a host, with its lease file; it is off, and never starts by itself."""
    lease.make(channel_for(host), lease.path(group, spec.id))
    with connection.fresh(host) as fresh:
        fresh.defineXML(domain_xml(spec, group, host)).setAutostart(0)


def start(host: HostEntry, vm: str) -> None:
    """Start a VM that is off; nothing when it is on."""
    with connection.fresh(host) as fresh:
        domain = fresh.lookupByName(vm)
        if not domain.isActive():
            domain.create()


def keeps_lease(group: Group, vm_id: str) -> str | None:
    """Return the name of the host whose lock daemon holds the lease of a VM that is not on there, None without one."""
    for host in group.hosts:
        channel = channel_for(host)
        try:
            on = {vm.id for vm in running_vms(channel)}
            if vm_id in lease.left_locked(channel, group.lease_directory, on):
                return host.name
        except OSError:
            continue
    return None


def pause(host: HostEntry, vm: str) -> None:
    """Let no processor of a running VM run; its memory stays."""
    with connection.fresh(host) as fresh:
        fresh.lookupByName(vm).suspend()


def resume(host: HostEntry, vm: str) -> None:
    """Let a paused VM go on."""
    with connection.fresh(host) as fresh:
        domain = fresh.lookupByName(vm)
        domain.resume()
        # One that was paused for its lease was that until now: whoever pauses it next means it.
        unmark(domain)


def stop(host: HostEntry, vm: str, *, force: bool = False, timeout_s: float = STOP_TIMEOUT_S) -> bool:
    """Switch a VM off and wait until its process has ended: by asking the guest, or with `force` at once.

    False when the guest has not switched itself off in time; a VM that is off is True.
    """
    with connection.fresh(host) as fresh:
        domain = fresh.lookupByName(vm)
        before = read_status(channel_for(host), vm)
        if domain.isActive():
            domain.destroy() if force else domain.shutdown()
        return before is None or _ended(host, vm, before.pid, timeout_s)


def remove(group: Group, host: HostEntry, vm: str) -> None:
    """Take a VM that is off out of a host's definitions, with its lease file; its disk stays."""
    lv = connection.module()
    with connection.fresh(host) as fresh:
        domain = fresh.lookupByName(vm)
        if domain.isActive():
            raise OSError(f"VM {vm!r} is on; it is not removed")
        id = domain.UUIDString()
        domain.undefineFlags(lv.VIR_DOMAIN_UNDEFINE_NVRAM)
    remove_lease(group, host, id)


def remove_lease(group: Group, host: HostEntry, id: str) -> None:
    """Remove the lease file of the VM with that id, which no host has any more."""
    channel_for(host).run(["rm", "-f", "--", lease.path(group, id)])


def _ended(host: HostEntry, vm: str, pid: int, timeout_s: float) -> bool:
    channel = channel_for(host)
    pause = threading.Event()
    for _ in range(int(timeout_s / _PERIOD_S)):
        seen = read_status(channel, vm)
        if (seen is None or seen.pid != pid) and process_gone(channel, pid):
            return True
        pause.wait(_PERIOD_S)
    return False
