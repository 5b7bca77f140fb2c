"""The journal on a real disk: what was intended is there after the process is gone, noted events with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from refimpl.engine.journal import FileJournal
from refimpl.model.errors import RefimplError
from refimpl.model.events import Kind
from refimpl.model.phase import Phase
from refimpl.model.request import Command, CommandKind
from tests.builders import event, ledger, plan, request
from tests.scripted import Run


def command(kind: CommandKind, step: int) -> Command:
    return Command(kind, "op", step, request(), plan())


def test_an_empty_journal_stands_nowhere(tmp_path: Path) -> None:
    assert FileJournal(tmp_path / "j.db").standing() is None


def test_what_was_intended_is_read_back(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "j.db")
    known = ledger(passes=3, owner=Kind.SOURCE_OWNS)
    journal.note(event(Kind.MEMORY_SEEN))
    journal.intend(Phase.MEMORY, known, [command(CommandKind.STEER_SWITCH, 7)])
    journal.note(event(Kind.STEERED, what="not flushed"))
    other = FileJournal(tmp_path / "j.db")
    standing = other.standing()
    assert standing is not None
    assert (standing.phase, standing.ledger, standing.step, standing.outcome) == (Phase.MEMORY, known, 7, None)
    assert [line for _, line in other.lines()] == [
        '{"schema": 1, "kind": "memory-seen", "origin": "fact", "at_ns": 1, "side": null, "host": null, '
        '"values": {}, "native": null}'
    ]
    assert other.intentions() == [(7, "memory", {"kind": "steer-switch", "step": 7})]


def test_a_stop_point_is_told_of_every_entry_once_it_is_written(tmp_path: Path) -> None:
    told = []
    path = tmp_path / "j.db"

    def stop_point(name: str) -> None:
        told.append((name, len(FileJournal(path).lines())))

    journal = FileJournal(path, stop_point)
    both = [command(CommandKind.REQUEST_CANCEL, 1), command(CommandKind.INSPECT, 2)]
    journal.intend(Phase.RECONCILE, ledger(), both)
    journal.flush(Phase.RECONCILE, ledger())
    for kind in (Kind.PROGRESS, Kind.PASS_ENDED, Kind.PROGRESS):
        journal.note(event(kind))
        journal.flush(Phase.MEMORY, ledger())
    journal.end(Phase.FAILED, ledger(), {"end": "failed"})
    assert told == [
        ("entry:reconcile:request-cancel+inspect", 0),
        ("entry:memory:progress", 1),
        ("entry:memory:pass-ended", 2),
        ("entry:memory:progress#2", 3),
        ("entry:failed:end", 3),
    ]


def test_durable_against_sigkill(tmp_path: Path) -> None:
    """The writer is ended without any chance to close the file."""
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from refimpl.engine.journal import FileJournal\n"
        "from refimpl.model.phase import Phase\n"
        "from tests.builders import ledger\n"
        "FileJournal(Path(sys.argv[1])).intend(Phase.COMMITTED, ledger(), [])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = tmp_path / "j.db"
    ended = subprocess.run([sys.executable, "-c", program, str(path)], check=False)
    assert ended.returncode == -9
    standing = FileJournal(path).standing()
    assert standing is not None
    assert standing.phase is Phase.COMMITTED


def test_a_whole_move_is_readable_after_its_end(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "j.db")
    run = Run(journal=journal)
    result = run.conductor.start()
    standing = FileJournal(tmp_path / "j.db").standing()
    assert standing is not None
    assert standing.outcome == result.to_json()
    assert len(journal.lines()) == len(run.events)
    kinds = [command["kind"] for _, _, command in journal.intentions()]
    assert kinds == [
        "claim",
        "record-pending",
        "prepare",
        "start-transfer",
        "record-commit",
        "allow-run",
        "record-destination",
        "settle-destination",
        "clean-up-moved",
        "release",
    ]


@pytest.mark.error("journal.failed")
def test_a_journal_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(RefimplError, match=r"journal\.failed"):
        FileJournal(tmp_path / "missing" / "j.db")


@pytest.mark.error("journal.failed")
def test_a_journal_that_cannot_be_written(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "j.db")
    journal.close()
    with pytest.raises(RefimplError, match=r"journal\.failed"):
        journal.intend(Phase.SETUP, ledger(), [])
