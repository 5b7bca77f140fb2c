"""Building a lab as its user describes it: what a lab file says of hosts' settings is judged here, and put in force."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from refimpl.app.settings import READERS, SettingsDesk
from refimpl.lab.lab import Lab, create_as
from refimpl.lab.labfile import Finding, LabFile, load_lab
from refimpl.lab.steps import OnStep, Steps, no_report
from refimpl.lab.wish import DEFAULT_MEMORY_MIB, Wish, plain_wish

DEFAULT_NAME, DEFAULT_HOSTS = "lab", 2


def wish_of(name: str | None, hosts: int | None, memory_mib: int | None, file: Path | None) -> Wish:
    """Return the lab that is wished for: alike hosts, or, with a file, what it says; a name given here counts.

    RefimplError `lab.file_invalid` with every key of the file that is wrong, `lab.file_unreadable`.
    """
    if file is None:
        return plain_wish(name or DEFAULT_NAME, hosts or DEFAULT_HOSTS, memory_mib or DEFAULT_MEMORY_MIB)
    read = load_lab(file)
    wrong = list(_wrong_settings(read))
    if wrong:
        raise read.error(wrong)
    return replace(read.wish, name=name) if name else read.wish


def build(wish: Wish, on_step: OnStep = no_report, root: Path | None = None) -> Lab:
    """Build the lab, its hosts with their settings."""
    lab = create_as(wish, on_step=on_step, root=root)
    wanted = {host.name: _texts(host.settings) for host in wish.hosts if host.settings}
    if wanted:
        with Steps(on_step).step("settings"):
            desk = SettingsDesk(lab.group)
            for host, settings in wanted.items():
                desk.set(host, settings)
    return lab


def _wrong_settings(read: LabFile) -> Iterator[Finding]:
    readers = {name.lower(): reader for name, reader in READERS.items()}
    for number, host in enumerate(read.wish.hosts):
        for name, text in _texts(host.settings).items():
            at = ("hosts", number, "settings", name)
            if name.lower() not in readers:
                yield at, f"there is no such setting; known: {', '.join(READERS)}"
                continue
            try:
                readers[name.lower()](text)
            except ValueError as wrong:
                yield at, f"{text!r} is none of its values: {wrong}"


def _texts(settings: Mapping[str, object]) -> dict[str, str]:
    """Return values as they are typed on a command line."""
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in settings.items()}
