"""Taking the lease of a source again that runs on without it, when its move is rolled back.

QEMU lets its guest run on by itself when a transfer fails between its stop and its end. libvirt gave the lease back at
the stop and takes it only where it resumes the guest itself; it finds that running, does nothing, and says nothing.
"""

from __future__ import annotations

from refimpl.backends.libvirt import lease
from refimpl.backends.libvirt.mend_leases import Did, Place, VmMended, mend_vm
from refimpl.backends.libvirt.operation import Operation
from refimpl.backends.libvirt.running import RunningVm, running_vm
from refimpl.hosts.channel import HostChannel
from refimpl.hosts.factory import channel_for
from refimpl.model.facts import VmState


class _AsSeen:
    """The daemons of a host, as its own files show them."""

    def __init__(self, channel: HostChannel) -> None:
        self._channel = channel

    def in_order(self) -> bool:
        return lease.in_order(self._channel)


def source_lease(operation: Operation) -> VmMended | None:
    """Pause and resume a running source whose lease is seen not to be held; None when there is nothing to do.

    To be called only when no copy can run at the destination. What stands in the way is the answer's `problem`; the VM
    then runs on without its lease, unless it was paused before that was known. OSError as a channel raises it.
    """
    channel = operation.reach.source_channel
    vm = running_vm(channel, operation.plan.vm)
    if vm is None or vm.held is not False or not _runs_or_was_paused_for_it(vm):
        return None
    done = mend_vm(_place(operation), _AsSeen(channel), vm)
    return None if done.did is Did.HELD else done


def _runs_or_was_paused_for_it(vm: RunningVm) -> bool:
    return vm.state is VmState.RUNNING or vm.mending


def _place(operation: Operation) -> Place:
    """The source, with every other host of the group as one that may hold the lease; the VM is this operation's."""
    reach = operation.reach
    others = {host.name: channel_for(host) for host in reach.group.hosts if host.name != reach.source.name}
    others[reach.destination.name] = reach.destination_channel
    return Place(reach.source, reach.source_channel, others, reach.group.lease_directory, lambda _: None)
