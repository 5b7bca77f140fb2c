"""Listening to a host: libvirt's life-cycle and job events and QEMU's own, passed on to whoever wants a VM's.

libvirt takes one registration of a kind for each connection, so there is one tap per kept connection and listeners
are kept here; a connection that was opened again gets its tap before anybody uses it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

from refimpl.backends.libvirt.connection import module
from refimpl.backends.libvirt.watch import NativeEvent
from refimpl.model.group import HostEntry

Listener = Callable[[NativeEvent], None]


class Taps:
    """Listeners by host and VM id. Callbacks come in the event thread: a listener must not call libvirt."""

    def __init__(self, now_ns: Callable[[], int]) -> None:
        """`now_ns` gives the time of events that carry none."""
        self._now_ns = now_ns
        self._listeners: dict[tuple[str, str], list[Listener]] = {}
        self._lock = threading.Lock()

    def listen(self, host: str, vm_id: str, listener: Listener) -> None:
        """Have the events of a VM on a host told to a listener."""
        with self._lock:
            self._listeners.setdefault((host, vm_id), []).append(listener)

    def forget(self, host: str, vm_id: str, listener: Listener) -> None:
        """Tell a listener nothing more; harmless when it is unknown."""
        with self._lock:
            kept = [each for each in self._listeners.get((host, vm_id), ()) if each != listener]
            self._listeners[host, vm_id] = kept

    def attach(self, host: HostEntry, connection: Any) -> None:
        """Register for a host's events on a connection just opened; libvirtError when it cannot be done."""
        import libvirt_qemu

        libvirt = module()
        libvirt_qemu.qemuMonitorEventRegister(connection, None, None, self._qmp, host.name, 0)
        for id, callback in (
            (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._lifecycle),
            (libvirt.VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, self._job),
        ):
            connection.domainEventRegisterAny(None, id, callback, host.name)

    def _qmp(self, _conn: Any, domain: Any, name: str, s: int, us: int, details: str | None, host: str) -> None:
        values = json.loads(details) if details else {}
        at_ns = s * 1_000_000_000 + us * 1000 if us >= 0 else self._now_ns()
        self._pass_on(host, NativeEvent("qmp", at_ns, name=name, details=values, domain=domain))

    def _lifecycle(self, _conn: Any, domain: Any, event: int, detail: int, host: str) -> None:
        self._pass_on(host, NativeEvent("lifecycle", self._now_ns(), event=event, detail=detail, domain=domain))

    def _job(self, _conn: Any, domain: Any, statistics: dict[str, Any], host: str) -> None:
        self._pass_on(host, NativeEvent("job", self._now_ns(), details=statistics, domain=domain))

    def _pass_on(self, host: str, native: NativeEvent) -> None:
        with self._lock:
            listeners = list(self._listeners.get((host, native.domain.UUIDString()), ()))
        for listener in listeners:
            listener(native)
