"""Whether the source's daemon answers at all, asked only when a hand-over takes unusually long (handover 1, 5).

In an ordinary move the source is seen bound long before anybody asks. What is asked then is a new connection and
nothing about the VM: a daemon that is ending its copy does not answer questions about that for up to 200 ms.
"""

from __future__ import annotations

import threading
import time

from refimpl.backends.libvirt import connection
from refimpl.model.group import HostEntry

ASK_AFTER_S = 0.25
"""How long all has to have arrived, and the source not to be bound, before its daemon is asked for the first time."""
ASK_PERIOD_S = 0.1
FIRST_TOLD_MS = 250


def told_ms(silent_ms: int) -> int:
    """Return how long a silence is called: 0, 250, 500, 1000, 2000, ... ms; so that it is told seldom."""
    told = FIRST_TOLD_MS
    while told * 2 <= silent_ms:
        told *= 2
    return told if silent_ms >= told else 0


class Silence:
    """How long the daemon of a host has not answered. It is asked, in a thread of its own, from `begin` on."""

    def __init__(self, host: HostEntry, ended: threading.Event) -> None:
        """Ask nothing yet; `ended`: ask no more."""
        self._host = host
        self._ended = ended
        self._over = threading.Event()
        self._since_s: float | None = None
        self._began_s: float | None = None

    def waits(self, waiting: bool) -> int:
        """Say whether only the source is waited for now; return how long its daemon has not answered (`told_ms`)."""
        now_s = time.monotonic()
        if not waiting:
            self._began_s = None
        elif self._began_s is None:
            self._began_s = now_s
        elif self._since_s is None and now_s - self._began_s > ASK_AFTER_S:
            self._since_s = now_s
            threading.Thread(target=self._ask, name="libvirt-silence", daemon=True).start()
        since_s = self._since_s
        if not waiting or since_s is None:
            return 0
        return told_ms(int((now_s - since_s) * 1000))

    def close(self) -> None:
        """Ask no more."""
        self._over.set()

    def _ask(self) -> None:
        while not (self._over.is_set() or self._ended.wait(ASK_PERIOD_S)):
            asked_s = time.monotonic()
            try:
                with connection.fresh(self._host):
                    pass
            except connection.failures():
                continue
            # It lives: what may have gone by since then is what it has yet to answer.
            self._since_s = asked_s
