"""The conductor process: one per operation, started by `refimpl.app.operations`, outlives the terminal.

`python -m refimpl.app.conduct DIRECTORY` reads the spec there, carries the migration out, or recovers it, and ends
with the exit code of its outcome.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from refimpl.app.backends import backend_for
from refimpl.app.control import ControlServer, EventLog
from refimpl.app.home import OperationFiles, write_json
from refimpl.app.real_time import RealTimeline
from refimpl.engine.backend import WORKER, Capabilities
from refimpl.engine.conductor import Conductor, Identity, StopPoint
from refimpl.engine.journal import FileJournal
from refimpl.engine.store import Claim, GroupStore
from refimpl.hosts import netns
from refimpl.hosts.lock import tried
from refimpl.hosts.process import here
from refimpl.hosts.stops import stop_point
from refimpl.model.errors import RefimplError, error
from refimpl.model.events import Event, Kind
from refimpl.model.group import Group, ProcessRef
from refimpl.model.ledger import Ledger
from refimpl.model.outcome import Outcome
from refimpl.model.phase import ExitCode, Phase
from refimpl.model.request import MigrationRequest, Plan


def conduct(files: OperationFiles, stop_point: StopPoint) -> Outcome:
    """Carry out or recover the operation in a directory. `operation.alive`: another process does so already."""
    with ExitStack() as stack:
        identity = _only_conductor(files, stack)
        spec = files.read_spec()
        group = Group.from_json(spec["group"])
        _enter(group, files.id)
        timeline = RealTimeline()
        journal = stack.enter_context(closing(FileJournal(files.journal, stop_point)))
        log = EventLog([line for _, line in journal.lines()])
        control = ControlServer(files.socket, log, partial(_wish, timeline))
        ended: list[Outcome] = []
        stack.callback(lambda: _hang_up(files, log, control, ended))
        backend = stack.enter_context(closing(backend_for(group, timeline.post)))
        store = GroupStore.standing(Path(group.store_path))
        phase, ledger, last_step = _standing(spec, journal, backend.capabilities())
        conductor = Conductor(
            ledger,
            backend,
            timeline,
            store=store,
            journal=journal,
            identity=Identity(spec["controller"], identity),
            phase=phase,
            last_step=last_step,
            listeners=[log.append],
            stop_point=stop_point,
        )
        if spec["recover"]:
            _take_over(store, ledger, conductor.identity)
        ended.append(conductor.recover(force=spec.get("force", False)) if spec["recover"] else conductor.start())
    return ended[0]


def _wish(timeline: RealTimeline, kind: Kind, values: Mapping[str, Any]) -> None:
    timeline.post(Event(kind, timeline.now_ns(), values))


def _only_conductor(files: OperationFiles, stack: ExitStack) -> ProcessRef:
    """Be the operation's only conductor until the end of the stack, and say by which process."""
    if not stack.enter_context(tried(files.lock)):
        standing = files.conductor()
        raise error("operation.alive", operation=files.id, pid=standing.pid if standing else None)
    identity = here(os.getpid())
    # A killed one left its socket; whoever sees this process's name is to find this process's socket only.
    files.socket.unlink(missing_ok=True)
    write_json(files.process, identity.to_json())
    return identity


def _hang_up(files: OperationFiles, log: EventLog, control: ControlServer, ended: list[Outcome]) -> None:
    """Tell the followers the end, after everything else was closed, and let them go."""
    log.close(ended[0].to_json() if ended else None)
    control.stop()
    files.socket.unlink(missing_ok=True)


def _enter(group: Group, operation: str) -> None:
    if group.management_netns is None:
        return
    try:
        netns.enter(group.management_netns)
    except OSError as failure:
        raise error("lab.gone", lab=group.name, operation=operation) from failure


def _standing(spec: dict[str, Any], journal: FileJournal, can: Capabilities) -> tuple[Phase, Ledger, int]:
    """Return where to begin: by the journal, or by the plan that the claim or the VM's own mark kept."""
    request = MigrationRequest.from_json(spec["request"])
    standing = journal.standing()
    kept = Plan.from_json(spec["plan"]) if spec.get("plan") else None
    if standing is not None and (standing.ledger.plan or not kept):
        return standing.phase, standing.ledger, standing.step
    hand_over = kept.hand_over if kept else can.chosen(request)
    ledger = Ledger(operation=spec["operation"], group=spec["group"]["name"], request=request, hand_over=hand_over)
    if kept is None:
        return Phase.NEW, ledger, 0
    return Phase.SETUP, replace(ledger, plan=kept, claimed=True), standing.step if standing else 0


def _take_over(store: GroupStore, ledger: Ledger, identity: Identity) -> None:
    if ledger.plan is None:
        return
    standing = store.claim(Claim(ledger.operation, identity.controller, identity.process, ledger.plan), bounded=False)
    if isinstance(standing, Claim):
        raise error("operation.alive", operation=standing.operation, pid=standing.process.pid)


def _end_with_worker(died: threading.ExceptHookArgs) -> None:
    """End this process when a defect ends a thread by which the backend answers: nothing would ever be told again.

    It is as if it had been killed: the VM is where it is, and a recovery finds that out.
    """
    threading.__excepthook__(died)
    if died.thread is not None and died.thread.name.startswith(WORKER):
        sys.stderr.flush()
        os._exit(ExitCode.INTERNAL)


def main(arguments: list[str]) -> int:
    """Entry of the process. A Ctrl-C in the starter's terminal is the starter's affair."""
    # A library that crashes the process would say nothing otherwise.
    faulthandler.enable()
    threading.excepthook = _end_with_worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        return int(conduct(OperationFiles(Path(arguments[0])), stop_point).exit_code)
    except RefimplError as failure:
        print(failure, file=sys.stderr)
        return int(failure.exit_code or ExitCode.INTERNAL)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
