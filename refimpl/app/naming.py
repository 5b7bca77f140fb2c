"""Which operation is meant by a word: its id or the beginning of it, or the name of the VM that it moves now."""

from __future__ import annotations

from refimpl.app.home import Home, OperationFiles
from refimpl.app.operations import conductor_alive, summarise
from refimpl.model.errors import RefimplError, error


def named(home: Home, word: str) -> OperationFiles:
    """Return the operation that is meant. A whole id comes first, then a VM, then the beginning of an id.

    `operation.unknown`; `operation.none_runs` or `operation.several_run` for the name of a VM that was moved before.
    """
    known = list(home.all())
    of_vm = [files for files in known if files.id == word] or [files for files in known if _vm(files) == word]
    running = [files for files in of_vm if files.id == word or conductor_alive(files)]
    if len(running) == 1:
        return running[0]
    if running:
        raise error("operation.several_run", vm=word, operations=", ".join(files.id for files in running))
    if of_vm and not any(files.id.startswith(word) for files in known):
        raise error("operation.none_runs", vm=word, operation=of_vm[-1].id, state=_state(of_vm[-1]))
    return home.find(word)


def _vm(files: OperationFiles) -> str | None:
    """Return which VM an operation is about, None when that cannot be read."""
    try:
        return str(files.read_spec()["request"]["vm"])
    except (RefimplError, KeyError, TypeError):
        return None


def _state(files: OperationFiles) -> str:
    try:
        outcome = summarise(files).outcome
    except RefimplError:
        return "unreadable"
    return "interrupted" if outcome is None else str(outcome.end)
