"""The `refimpl` command. Verbs are loaded when used; an exit code says how a verb ended (docs/how-it-works.md)."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (None: the process's own) and return its exit code."""
    from refimpl.cli.root import run

    return run(arguments)
