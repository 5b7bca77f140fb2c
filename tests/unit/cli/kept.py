"""What a controller's home keeps of an operation: one that was interrupted, or ended as a test wants it."""

from __future__ import annotations

import json
from pathlib import Path

from refimpl.app.home import Home
from refimpl.engine.journal import FileJournal
from refimpl.model.events import Event, Kind
from refimpl.model.ledger import Ledger
from refimpl.model.phase import Phase
from refimpl.model.request import Command, CommandKind, MigrationRequest
from tests.unit.cli.fakes import NOW_NS, outcome

REQUEST = MigrationRequest(vm="web", destination="h2", source="h1")
GROUP = {"id": "abc123", "name": "spring", "store_path": "/group.db"}


def operation(home: Home, id: str, end: Phase | None, ended_ns: int | None = None) -> Path:
    files = home.create(id)
    files.spec.write_text(json.dumps({"request": REQUEST.to_json(), "group": GROUP, "controller": "c"}), "utf-8")
    ledger = Ledger(operation=id, group="abc123", request=REQUEST, started_ns=NOW_NS, ended_ns=ended_ns)
    journal = FileJournal(files.journal)
    journal.note(Event(Kind.STARTED, NOW_NS, {"request": REQUEST}))
    journal.note(Event(Kind.PHASE_ENTERED, NOW_NS + 1_000_000, {"phase": Phase.CHECK}))
    journal.note(Event(Kind.PHASE_ENTERED, NOW_NS + 4_000_000, {"phase": Phase.SETUP}))
    journal.intend(Phase.SETUP, ledger, [Command(CommandKind.PREPARE, id, 3, REQUEST)])
    if end is not None:
        journal.end(end, ledger, outcome(end, operation=id).to_json())
    journal.close()
    return files.directory
