"""Watching the lock daemons of both hosts while a VM is moved: their end is no event of libvirt's (handover 3).

Each is held by a pidfd, which is ready the moment its process ends; a thread of its own waits for all of them.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable

from refimpl.backends.libvirt import lease
from refimpl.hosts.channel import HostChannel
from refimpl.model.phase import Side


class LockWatch:
    """Calls `gone`, in its own thread, once for each side whose lock daemon has ended while its host is up."""

    def __init__(self, gone: Callable[[Side], None]) -> None:
        """Watch nothing yet."""
        self._gone = gone
        self._held: dict[int, tuple[Side, HostChannel]] = {}
        self._wake, self._woken = os.pipe2(os.O_CLOEXEC)

    def hold(self, side: Side, channel: HostChannel) -> bool:
        """Watch the lock daemon of a host from now on; False when none runs there.

        A host that is down, or whose processes cannot be held from here, is True, and not watched.
        """
        try:
            pid = lease.daemon_pid(channel)
            outer = None if pid is None else channel.outer_pid(pid)
            if outer is None:
                return pid is not None
            return self._open(outer, pid, side, channel)
        except ProcessLookupError:
            return False
        except OSError:
            return True

    def _open(self, outer: int, pid: int | None, side: Side, channel: HostChannel) -> bool:
        descriptor = os.pidfd_open(outer)
        # What was opened is the daemon only if it is still there: a pid may be given to another process.
        if lease.daemon_pid(channel) != pid:
            os.close(descriptor)
            return False
        self._held[descriptor] = (side, channel)
        return True

    def start(self) -> None:
        """Begin to wait; hold nothing more after this."""
        threading.Thread(target=self._wait, name="libvirt-lock-watch", daemon=True).start()

    def close(self) -> None:
        """Wait no more. To be called once, and only after `start`."""
        os.close(self._woken)

    def _wait(self) -> None:
        poller = select.poll()
        for descriptor in (self._wake, *self._held):
            poller.register(descriptor, select.POLLIN)
        ended = False
        while not ended:
            for descriptor, _ in poller.poll():
                if descriptor == self._wake:
                    ended = True
                    continue
                poller.unregister(descriptor)
                self._tell(*self._held[descriptor])
        for descriptor in (self._wake, *self._held):
            os.close(descriptor)

    def _tell(self, side: Side, channel: HostChannel) -> None:
        """Tell it, unless the whole host has ended: then it is no matter of leases."""
        if lease.daemon_alive(channel) is not None:
            self._gone(side)
