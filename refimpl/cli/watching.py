"""`refimpl migrate --watch`: observers around the move, and after its end what they saw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from refimpl.cli.context import home, open_lab
from refimpl.cli.say import columns

if TYPE_CHECKING:
    from refimpl.app.watched import Prepared
    from refimpl.meter.verdict import Verdict


@contextmanager
def observers(vm: str, lab_name: str | None) -> Iterator[Prepared]:
    """Give observers that are ready for the move of a VM; who waits for them is told on standard error."""
    from refimpl.app.watched import subject_of, watching

    lab = open_lab(lab_name)
    subject = subject_of(lab.group, vm)
    click.echo(f"observers of VM {vm!r} start; before the move they listen for about two seconds", err=True)
    with watching(lab, home(), subject) as prepared:
        yield prepared


def verdicts_text(verdicts: Sequence[Verdict], directory: Path) -> str:
    """Return what the observers found, one line each, and where the samples are."""
    colours = {"ok": "green", "bad": "red", "not measured": "yellow"}
    rows = [(f"  {v.name}", click.style(str(v.state).ljust(12), fg=colours[v.state]), v.text) for v in verdicts]
    table = columns((), rows) if rows else "  nothing: the move was not completed"
    return f"\nseen from outside:\n{table}\n  every sample: {directory}"
