"""Starting, following, cancelling and listing operations: what the command line and the Python API share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refimpl.app import control
from refimpl.app.home import Home, OperationFiles, new_operation_id, write_json
from refimpl.engine.recording import superseding
from refimpl.engine.store import GroupStore
from refimpl.hosts.lock import tried
from refimpl.hosts.process import alive, here
from refimpl.hosts.wait import until
from refimpl.model.errors import RefimplError, error
from refimpl.model.group import Group
from refimpl.model.outcome import Outcome
from refimpl.model.phase import Phase
from refimpl.model.request import MigrationRequest, Plan, PostCopy
from refimpl.model.storage import wish_of

START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 10.0
_PAUSE_S = 0.01


@dataclass(frozen=True, slots=True)
class Summary:
    """One operation for a list. `alive`: its conductor runs now; `outcome` is None while it has not ended.

    `lab_gone`: its lab does not exist any more, and whatever it was about went with it. `began_ns` and `ended_ns` are
    nanoseconds since the epoch, None while that has not happened.
    """

    id: str
    vm: str
    source: str | None
    destination: str
    phase: Phase
    alive: bool
    outcome: Outcome | None
    lab_gone: bool = False
    lab: str = ""
    began_ns: int | None = None
    ended_ns: int | None = None

    @property
    def needs_recovery(self) -> bool:
        """Whether it was interrupted, or ended so that a person or a late host is needed, or left something behind."""
        if self.alive or self.lab_gone:
            return False
        if self.outcome is None:
            return True
        left_behind = any(warning.id == "cleanup.left_behind" for warning in self.outcome.warnings)
        return left_behind or self.outcome.end in (Phase.INDETERMINATE, Phase.POSTCOPY_PAUSED)


class Operation:
    """A handle of an operation, running or ended, in whatever process its conductor is."""

    def __init__(self, files: OperationFiles) -> None:
        self._files = files
        self._told: Outcome | None = None

    @property
    def id(self) -> str:
        """The operation's id."""
        return self._files.id

    def alive(self) -> bool:
        """Whether its conductor runs now."""
        return conductor_alive(self._files)

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield every event from the first on (as JSON values), live ones as they come, until the conductor ends."""
        seen = 0
        try:
            for message in control.follow(self._files.socket):
                if "event" in message:
                    seen = message["seq"]
                    yield message["event"]
                elif "outcome" in message:
                    self._told = Outcome.from_json(message["outcome"])
        except OSError:
            pass
        for _, line in self._files.lines(after=seen):
            yield json.loads(line)
        if self._told is not None:
            # It has told its end and is about to go: what is asked next, such as `recover`, is to find it gone.
            until(lambda: not self.alive(), END_TIMEOUT_S, _PAUSE_S)

    def wait(self) -> Outcome:
        """Wait for the end; `operation.no_end` when the conductor died without one."""
        for _ in self.events():
            pass
        return self.outcome()

    def outcome(self) -> Outcome:
        """Return how it ended; `operation.no_end` when its conductor has died without an end, with what it printed."""
        if self._told is not None:
            return self._told
        standing = self._files.standing()
        if standing is None or standing.outcome is None:
            said = self._files.log.read_text("utf-8", "replace").strip() if self._files.log.exists() else ""
            raise error("operation.no_end", operation=self.id, said=said or "nothing")
        return Outcome.from_json(standing.outcome)

    def cancel(self) -> None:
        """Ask for a cancel; what became of it is told by events and outcome."""
        self._ask(control.ask_cancel)

    def set_bandwidth(self, mib_s: int) -> None:
        """Ask for another limit of the transfer in MiB per second (0: none); what became of it is told by events."""
        self._ask(lambda socket: control.ask_bandwidth(socket, mib_s))

    def start_post_copy(self) -> None:
        """Ask for post-copy; what became of it is told by events. `post_copy.not_allowed` of a move without it."""
        request = MigrationRequest.from_json(self._files.read_spec()["request"])
        if request.post_copy is PostCopy.OFF:
            raise error("post_copy.not_allowed", vm=request.vm, operation=self.id)
        self._ask(control.ask_post_copy)

    def _ask(self, ask: Callable[[Path], None]) -> None:
        try:
            ask(self._files.socket)
        except OSError:
            summary = summarise(self._files)
            if summary.outcome is not None:
                raise error("operation.ended", operation=self.id, end=summary.outcome.end) from None
            raise error("operation.dead", operation=self.id) from None


def start(home: Home, group: Group, request: MigrationRequest, operation: str | None = None) -> Operation:
    """Start a migration in a conductor process of its own and return as soon as it can be followed.

    `store.missing`, `store.failed`: nothing is begun, where a conductor could only die without an end.
    """
    GroupStore.standing(Path(group.store_path))
    files = home.create(operation or new_operation_id())
    spec = _spec(home, group, request, files.id)
    return _launch(files, spec, fresh=True)


def recover(home: Home, group: Group, operation: str, plan: Plan | None = None, *, force: bool = False) -> Operation:
    """Start a conductor that finds out by evidence where an operation stands, and ends it.

    `plan`, which the claim or the VM's mark kept, serves when the journal is gone or does not tell. `force`: a host
    that does not answer is cut off by its fence. `owner.superseded` when a later move has decided about the VM.
    """
    files = home.create(operation)
    _refuse_if_alive(files, group)
    _refuse_if_superseded(files, group, plan)
    spec = _known_spec(files, plan)
    if spec is None and plan is None:
        raise error("operation.unknown", operation=operation, known=", ".join(f.id for f in home.all()) or "none")
    if spec is None and plan is not None:
        spec = _spec(home, group, request_of(plan), operation)
    kept = {"plan": plan.to_json()} if plan else {}
    return _launch(files, {**(spec or {}), **kept, "recover": True, "force": force, "group": group.to_json()})


def _known_spec(files: OperationFiles, plan: Plan | None) -> dict[str, Any] | None:
    """Return the spec, None when there is none, or one that cannot be read and a plan to go by instead."""
    if not files.spec.exists():
        return None
    try:
        return files.read_spec()
    except RefimplError:
        if plan is None:
            raise
        return None


def request_of(plan: Plan) -> MigrationRequest:
    """Return the request that a plan was made of, as far as the plan tells."""
    return MigrationRequest(
        vm=plan.vm,
        destination=plan.destination,
        source=plan.source,
        encryption=plan.encryption,
        performance_option=plan.performance_option,
        pass_limit=plan.pass_limit,
        bandwidth_mib_s=plan.bandwidth_mib_s,
        cancel_if_blackout_exceeds_ms=plan.cancel_if_blackout_exceeds_ms,
        storage=wish_of(plan.storage) if plan.storage is not None and plan.storage.disks else None,
        hand_over=plan.hand_over,
        post_copy=plan.post_copy,
    )


def summarise(files: OperationFiles) -> Summary:
    """Return one operation as a list shows it; `operation.unreadable` also for files of another version's shape."""
    try:
        return _summary(files, files.read_spec())
    except (KeyError, TypeError, ValueError) as failure:
        detail = f"their shape is not this version's ({type(failure).__name__}: {failure})"
        raise error("operation.unreadable", operation=files.id, detail=detail) from failure


def _summary(files: OperationFiles, spec: Mapping[str, Any]) -> Summary:
    request = MigrationRequest.from_json(spec["request"])
    standing = files.standing()
    plan = standing.ledger.plan if standing else None
    return Summary(
        id=files.id,
        vm=request.vm,
        source=plan.source if plan else request.source,
        destination=request.destination,
        phase=standing.phase if standing else Phase.NEW,
        alive=conductor_alive(files),
        outcome=Outcome.from_json(standing.outcome) if standing and standing.outcome else None,
        lab_gone=_is_gone(Path(spec["group"]["store_path"]).parent),
        lab=spec["group"].get("name", ""),
        began_ns=standing.ledger.started_ns if standing else None,
        ended_ns=standing.ledger.ended_ns if standing else None,
    )


def _is_gone(directory: Path) -> bool:
    """Whether there is no such directory; one that cannot be looked at may be there."""
    try:
        directory.stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def conductor_alive(files: OperationFiles) -> bool:
    """Whether the conductor of an operation runs now."""
    reference = files.conductor()
    return reference is not None and alive(reference)


def _refuse_if_alive(files: OperationFiles, group: Group) -> None:
    reference = files.conductor()
    if reference is not None and alive(reference):
        raise error("operation.alive", operation=files.id, pid=reference.pid)
    standing = next((c for c in GroupStore.standing(Path(group.store_path)).claims() if c.operation == files.id), None)
    if standing is not None and alive(standing.process):
        raise error("operation.alive", operation=files.id, pid=standing.process.pid)


def _refuse_if_superseded(files: OperationFiles, group: Group, plan: Plan | None) -> None:
    """Leave a VM alone that another operation has moved since: by now what is seen of it says nothing of this one.

    A claim that this one has got meanwhile is given back, or nobody could move the VM any more.
    """
    known = None
    with suppress(RefimplError):
        standing = files.standing()
        known = standing.ledger if standing else None
    plan = (known.plan if known else None) or plan
    if plan is None:
        return
    store = GroupStore.standing(Path(group.store_path))
    later = superseding(store, plan, files.id, known.ownership if known else None)
    if later is not None:
        store.release(plan.vm_id, files.id)
        raise later


def _spec(home: Home, group: Group, request: MigrationRequest, operation: str) -> dict[str, Any]:
    return {
        "operation": operation,
        "controller": str(home.path),
        "request": request.to_json(),
        "group": group.to_json(),
        "recover": False,
    }


def _launch(files: OperationFiles, spec: Mapping[str, Any], *, fresh: bool = False) -> Operation:
    write_json(files.spec, spec)
    environment = os.environ | {"REFIMPL_LAB": spec["group"]["id"], "REFIMPL_OPERATION": files.id}
    with files.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "refimpl.app.conduct", str(files.directory)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=environment,
        )
    if fresh:
        # So that one that is just being started is not taken for interrupted; of a recovery only the conductor says it.
        write_json(files.process, here(process.pid).to_json())
    until(lambda: _conducts(files, process.pid) or process.poll() is not None, START_TIMEOUT_S, _PAUSE_S)
    if process.poll() is not None:
        # Another one may have been first: that is then the one to follow.
        until(lambda: files.socket.exists() or _unconducted(files), START_TIMEOUT_S, _PAUSE_S)
    return Operation(files)


def _unconducted(files: OperationFiles) -> bool:
    with tried(files.lock) as free:
        return free


def _conducts(files: OperationFiles, pid: int) -> bool:
    reference = files.conductor()
    return reference is not None and reference.pid == pid and files.socket.exists()
