"""Connections to the daemons of the hosts: one event loop per process, kept and fresh connections, bounded calls.

libvirt offers no time limit on a call, and a frozen daemon never answers. So a call that may meet one is made in a
thread of its own and given up after a while; the thread ends when the connection's keepalive finds the daemon dead.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, TypeVar

from refimpl.model.errors import Native
from refimpl.model.group import HostEntry

T = TypeVar("T")

KEEPALIVE_INTERVAL_S = 1
KEEPALIVE_COUNT = 5
OPEN_TIMEOUT_S = 8.0
CLOSE_TIMEOUT_S = 2.0


@cache
def module() -> Any:
    """Return the libvirt module, imported and with its event loop running in a daemon thread."""
    import libvirt
    import libvirt_qemu  # noqa: F401  (registers its own callbacks before the loop runs)

    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=_run_events, args=(libvirt,), name="libvirt-events", daemon=True).start()
    return libvirt


def _run_events(libvirt: Any) -> None:
    while True:
        with contextlib.suppress(libvirt.libvirtError):
            libvirt.virEventRunDefaultImpl()


def failures() -> tuple[type[Exception], ...]:
    """Return the exceptions by which a host or its daemon says no or does not answer (a timeout is an OSError)."""
    return (module().libvirtError, OSError)


def code(error: Exception) -> int | None:
    """Return libvirt's error code, None when the error is not libvirt's."""
    found = error.get_error_code() if isinstance(error, module().libvirtError) else None
    return found if isinstance(found, int) else None


def native(error: Exception) -> Native:
    """Return what libvirt, or the host, said: domain `libvirt/N` with its code, or the name of the OS error."""
    number = code(error)
    if number is not None:
        return Native(f"libvirt/{error.get_error_domain()}", number, str(error))  # type: ignore[attr-defined]
    return Native("os", getattr(error, "errno", None) or type(error).__name__, str(error))


def bounded(work: Callable[[], T], timeout_s: float, what: str) -> T:
    """Return what `work` returns; TimeoutError when it takes longer. Its thread is left to end by itself."""
    answers: queue.SimpleQueue[tuple[T | None, Exception | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((work(), None))
        except failures() as error:
            answers.put((None, error))

    threading.Thread(target=run, name=f"libvirt {what}", daemon=True).start()
    try:
        value, failed = answers.get(timeout=timeout_s)
    except queue.Empty:
        raise TimeoutError(f"{what} did not end within {timeout_s:g} s") from None
    if failed is not None:
        raise failed
    return value  # type: ignore[return-value]


def open_connection(host: HostEntry, timeout_s: float = OPEN_TIMEOUT_S) -> Any:
    """Return a new connection to a host's daemon. libvirtError or TimeoutError when it does not answer."""
    libvirt = module()

    def open_it() -> Any:
        connection = libvirt.open(host.control_uri)
        connection.setKeepAlive(KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT)
        return connection

    return bounded(open_it, timeout_s, f"connection to host {host.name}")


@contextlib.contextmanager
def fresh(host: HostEntry, timeout_s: float = OPEN_TIMEOUT_S) -> Iterator[Any]:
    """Give a connection that nobody used before, closed at the end; errors as `open_connection`."""
    connection = open_connection(host, timeout_s)
    try:
        yield connection
    finally:
        close_quietly(connection)


def close_quietly(connection: Any) -> None:
    """Close a connection; a daemon that has gone away meanwhile is no error."""
    with contextlib.suppress(*failures()):
        connection.close()


def find(connection: Any, uuid: str) -> Any | None:
    """Return the domain with that id, None when there is none; libvirtError when the daemon cannot say."""
    libvirt = module()
    try:
        return connection.lookupByUUIDString(uuid)
    except libvirt.libvirtError as error:
        if code(error) == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


class Connections:
    """One kept connection per host, opened when first needed and again when it was found dead. Thread-safe.

    `on_open` is called with host and connection each time one was opened: whoever needs events registers there.
    """

    def __init__(self, on_open: Callable[[HostEntry, Any], None] = lambda _host, _connection: None) -> None:
        self._open: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._opening: dict[str, threading.Lock] = {}
        self._on_open = on_open

    def to(self, host: HostEntry) -> Any:
        """Return the kept connection to a host; errors as `open_connection`."""
        with self._lock:
            opening = self._opening.setdefault(host.name, threading.Lock())
        with opening:
            kept = self._open.get(host.name)
            if kept is None or not _alive(kept):
                kept = open_connection(host)
                self._on_open(host, kept)
                self._open[host.name] = kept
            return kept

    def close(self) -> None:
        """Close all kept connections; one whose daemon does not answer is given up."""
        with self._lock:
            kept, self._open = list(self._open.values()), {}
        for connection in kept:
            with contextlib.suppress(TimeoutError):
                bounded(lambda c=connection: close_quietly(c), CLOSE_TIMEOUT_S, "close")  # type: ignore[misc]


def _alive(connection: Any) -> bool:
    try:
        return bool(connection.isAlive())
    except module().libvirtError:
        return False
