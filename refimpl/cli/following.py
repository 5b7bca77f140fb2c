"""Following a move to its end. Ctrl-C asks for a cancel with roll-back, a second one detaches and lets it go on.

SIGTERM detaches at once: whoever ends the follower has not asked for a cancel.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import click

from refimpl.app.live import Followed, JsonEvent
from refimpl.cli.display import Display
from refimpl.model.errors import RefimplError
from refimpl.model.outcome import Outcome


@dataclass(frozen=True, slots=True)
class _Ended:
    failure: Exception | None = None


class _CtrlC:
    pass


class _Terminated:
    pass


Inbox = queue.SimpleQueue[JsonEvent | _Ended | _CtrlC | _Terminated]


@contextmanager
def ctrl_c_into_inbox() -> Iterator[Inbox]:
    """Give an inbox into which every Ctrl-C, and SIGTERM, is put from now on, instead of ending the command."""
    inbox: Inbox = queue.SimpleQueue()
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: inbox.put(_CtrlC())),
        signal.SIGTERM: signal.signal(signal.SIGTERM, lambda *_: inbox.put(_Terminated())),
    }
    try:
        yield inbox
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def follow(operation: Followed, display: Display, inbox: Inbox) -> Outcome | None:
    """Show an operation until its end and return how it ended; None: detached, it goes on without us."""
    threading.Thread(target=_read, args=(operation, inbox), name="follow", daemon=True).start()
    presses = 0
    try:
        while True:
            match inbox.get():
                case _CtrlC():
                    presses += 1
                    if presses == 2:
                        return None
                    display.note(
                        "Ctrl-C: asking for a cancel with roll-back; a second one detaches, the cancel stays asked for"
                    )
                    # That it has ended meanwhile, or that its conductor is dead, is told by its end.
                    with suppress(RefimplError):
                        operation.cancel()
                case _Terminated():
                    return None
                case _Ended(failure):
                    if failure is not None:
                        raise failure
                    return operation.outcome()
                case event:
                    display.event(event)
    except BrokenPipeError:
        # Whoever read what we print has gone; the move has not.
        click.echo(f"nobody reads the output any more; operation {operation.id} goes on", err=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return None
    finally:
        display.close()


def _read(operation: Followed, inbox: Inbox) -> None:
    try:
        for event in operation.events():
            inbox.put(event)
    except (RefimplError, OSError) as failure:
        inbox.put(_Ended(failure))
        return
    inbox.put(_Ended())
