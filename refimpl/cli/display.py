"""Showing a move while it runs: live on a terminal, one plain line per event elsewhere, JSON lines, or nothing."""

from __future__ import annotations

import sys
from typing import Protocol

import click

from refimpl.app.live import JsonEvent, Progress, fold, line, status
from refimpl.cli.say import as_json


class Display(Protocol):
    """Is told every event as JSON values, and notes of the command itself."""

    def event(self, event: JsonEvent) -> None:
        """Show one more event."""
        ...

    def note(self, text: str) -> None:
        """Say something that is no event."""
        ...

    def close(self) -> None:
        """Show no more; harmless a second time."""
        ...


class Lines:
    """One plain line for each event that a person wants, with the seconds since the first event."""

    def __init__(self) -> None:
        self.progress = Progress()

    def event(self, event: JsonEvent) -> None:
        """Print the event's line, if it is worth one."""
        self.progress = fold(self.progress, event)
        text = line(event, self.progress)
        if text is not None:
            self.write(f"{self.progress.elapsed_s:8.2f} s  {text}")

    def note(self, text: str) -> None:
        """Print a note."""
        self.write(text)

    def write(self, text: str) -> None:
        """Print a line."""
        click.echo(text)

    def close(self) -> None:
        """Nothing to end."""


class Live(Lines):
    """The same lines, and below them one that always tells where the move stands."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.live import Live as RichLive
        from rich.spinner import Spinner

        self._console = Console(highlight=False, markup=False)
        self._spinner = Spinner("dots", text="")
        self._live = RichLive(self._spinner, console=self._console, refresh_per_second=8, transient=True)
        self._live.start()

    def event(self, event: JsonEvent) -> None:
        """Print the event's line and renew the status."""
        super().event(event)
        self._spinner.update(text=self._fitted(status(self.progress)))

    def write(self, text: str) -> None:
        """Print a line above the status."""
        self._console.print(text)

    def close(self) -> None:
        """Take the status away."""
        self._live.stop()

    def _fitted(self, text: str) -> str:
        room = self._console.width - 3
        return text if len(text) <= room else text[: room - 1] + "…"


class JsonLines:
    """Every event as one JSON line; notes go to standard error."""

    def event(self, event: JsonEvent) -> None:
        """Print the event."""
        as_json(event)

    def note(self, text: str) -> None:
        """Print a note beside the stream."""
        click.echo(text, err=True)

    def close(self) -> None:
        """Nothing to end."""


class Silent:
    """Shows no event; notes go to standard error."""

    def event(self, event: JsonEvent) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        """Print a note on standard error."""
        click.echo(text, err=True)

    def close(self) -> None:
        """Nothing to end."""


def display_for(*, json: bool = False, jsonl: bool = False) -> Display:
    """Return the display that fits what was asked for and where the output goes."""
    if jsonl:
        return JsonLines()
    if json:
        return Silent()
    return Live() if sys.stdout.isatty() else Lines()
