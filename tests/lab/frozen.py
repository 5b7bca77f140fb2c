"""A daemon that is frozen at a moment of a move and goes on once the source has given the move up; always thawed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from refimpl.backends.libvirt import connection
from refimpl.backends.libvirt.status import read_status
from refimpl.backends.libvirt.tap import Taps
from refimpl.backends.libvirt.watch import NativeEvent
from refimpl.hosts.factory import channel_for
from refimpl.lab import Lab
from refimpl.model.request import HandOver, Plan
from tests.lab.libvirt_support import host_of

GIVEN_UP_TIMEOUT_S = 30.0
PERIOD_S = 0.02

Moment = Callable[[NativeEvent], bool]


def at_the_switch(native: NativeEvent) -> bool:
    """S2: the source has begun to send the last part of its memory."""
    return native.name == "MIGRATION" and native.details.get("status") == "device"


def at_the_end(hand_over: HandOver) -> Moment:
    """S4: the destination's copy runs; with strict hand-over, it has arrived. Either way its daemon is to answer."""
    if hand_over is HandOver.DELEGATED:
        return lambda native: native.name == "RESUME"
    return lambda native: (native.source, native.event, native.detail) == ("lifecycle", 3, 0)


class Freeze:
    """The freeze of a daemon. `seen`: it happened; `given_up`: the source closed its job meanwhile.

    The source's own daemon closes nothing while it is frozen: it goes on at the end of the block.
    """

    def __init__(self, lab: Lab, plan: Plan, of: str) -> None:
        daemon = lab.daemon(of, "libvirtd")
        assert daemon is not None
        self._pid = daemon.pid
        self._plan = plan
        self._source = channel_for(host_of(lab.group, plan.source))
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.seen = False
        self.given_up = False
        self.for_s = 0.0

    def begin(self) -> None:
        """Freeze it now, once, and thaw it when the source has no job any more."""
        if not self.seen:
            os.kill(self._pid, signal.SIGSTOP)
            self.seen = True
            self._thread = threading.Thread(target=self._wait, daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Have it go on, whatever happened."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        self._thaw()

    def _thaw(self) -> None:
        with suppress(ProcessLookupError):  # with its host, which was cut off
            os.kill(self._pid, signal.SIGCONT)

    def _wait(self) -> None:
        began_s = time.monotonic()
        while time.monotonic() < began_s + GIVEN_UP_TIMEOUT_S and not self._over.wait(PERIOD_S):
            try:
                seen = read_status(self._source, self._plan.vm)
            except OSError:
                return  # its host was cut off
            if seen is None or not seen.job:
                self.given_up = True
                break
        self.for_s = time.monotonic() - began_s
        self._thaw()


@contextmanager
def frozen_at(lab: Lab, plan: Plan, host: str, moment: Moment, of: str | None = None) -> Iterator[Freeze]:
    """Freeze the daemon `of` a host, the destination's otherwise, when `host` tells of that moment of a plan's VM."""
    freeze, taps = Freeze(lab, plan, of or plan.destination), Taps(time.time_ns)

    def listen(native: NativeEvent) -> None:
        if moment(native):
            freeze.begin()

    with ExitStack() as stack:
        taps.listen(host, plan.vm_id, listen)
        entry = host_of(lab.group, host)
        taps.attach(entry, stack.enter_context(connection.fresh(entry)))
        stack.callback(freeze.end)
        yield freeze
