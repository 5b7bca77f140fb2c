"""Shell completion: the script for a shell, and what fits at the cursor: verbs, options, names that exist now.

A Tab has to be quick and must never say anything but candidates. So names are read from small files (groups of labs,
records beside disks, directories of operations), no host and no libvirt is asked, and whatever goes wrong ends without
a word and without candidates (`refimpl.cli.root` sees to that).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem, get_completion_class

from refimpl.cli.root import COMPLETE_VARIABLE, root
from refimpl.model.fencing import NONE, OWN
from refimpl.model.phase import ExitCode
from refimpl.model.settings import FENCE, NAMES, HostSettings

SHORT = "Print the completion script of a shell."
SHELLS = ("bash", "zsh", "fish")
LAB_ROOT_VARIABLE, LAB_ROOT = "REFIMPL_LAB_ROOT", Path("/var/lib/refimpl/labs")
"""As in `refimpl.lab.layout`, which would take longer to import than everything else here (a test keeps them alike)."""


@click.command(short_help=SHORT)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> int:
    """Print the completion script of SHELL: verbs, options, and names of VMs, hosts, labs and operations.

    Corresponds to what Register-ArgumentCompleter does in PowerShell.

    \b
    Examples:
      refimpl completion bash > /etc/bash_completion.d/refimpl
      refimpl completion zsh > "${fpath[1]}/_refimpl"
      refimpl completion fish > ~/.config/fish/completions/refimpl.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(root, {}, "refimpl", COMPLETE_VARIABLE).source())
    return ExitCode.OK


def lab_names(_lab: str | None = None) -> Iterator[str]:
    """Yield the names of the labs that were built to their end."""
    for group in _groups(None):
        yield str(group["name"])


def host_names(lab: str | None = None) -> Iterator[str]:
    """Yield the names of the hosts of a lab, or of all labs."""
    for group in _groups(lab):
        yield from (str(host["name"]) for host in group["hosts"])


def vm_names(lab: str | None = None) -> Iterator[str]:
    """Yield the names of the VMs of a lab, or of all labs, that have a record beside their disks."""
    for group in _groups(lab):
        directory = Path(group["labels"].get("disk_directory") or group["shared_directory"])
        yield from (path.stem for path in directory.glob("*.json"))


def operation_ids(_lab: str | None = None) -> Iterator[str]:
    """Yield the ids of this controller's operations, the newest first."""
    from refimpl.app.home import default_home

    with os.scandir(default_home() / "operations") as entries:
        found = [(entry.stat().st_mtime_ns, entry.name) for entry in entries if entry.is_dir()]
    yield from (name for _, name in sorted(found, reverse=True))


def _groups(lab: str | None) -> Iterator[dict[str, Any]]:
    root = Path(os.environ.get(LAB_ROOT_VARIABLE) or LAB_ROOT)
    for path in sorted(root.glob("*/group.json")):
        group = json.loads(path.read_text("utf-8"))
        if lab is None or lab in (group["name"], group["id"]):
            yield group


Source = Callable[[str | None], Iterator[str]]
SOURCES: Mapping[tuple[str, str], Source] = {
    ("", "vm"): vm_names,
    ("", "destination"): host_names,
    ("", "source"): host_names,
    ("", "host"): host_names,
    ("", "operation_id"): operation_ids,
    ("", "lab_name"): lab_names,
    ("vm", "name"): vm_names,
    ("lab", "name"): lab_names,
    ("lab", "names"): lab_names,
    ("host", "name"): host_names,
}
"""Whose names an argument or option takes, by the group of its verb (empty: any) and its own name."""

NEW_NAMES = frozenset({("vm", "create", "name"), ("lab", "up", "name")})
"""Arguments that take a name which does not exist yet."""


def equip(command: click.Command, group: str = "") -> None:
    """Let the arguments and options of a verb, and of the verbs below it, offer the names that exist now."""
    if isinstance(command, click.Group):
        for below in command.commands.values():
            equip(below, command.name or "")
        return
    for parameter in command.params:
        source = source_of(group, command.name or "", parameter.name or "")
        if source is not None:
            setattr(parameter, "shell_complete", _completer(source))  # noqa: B010  (a method, for this one only)


def source_of(group: str, verb: str, parameter: str) -> Source | None:
    """Return whose names, or which values, a parameter takes; None when no names that exist."""
    if (group, verb, parameter) in NEW_NAMES:
        return None
    if (group, verb) == ("host", "set") and parameter in NAMES:
        values = setting_values(parameter)
        return (lambda _lab: iter(values)) if values else None
    return SOURCES.get((group, parameter)) or SOURCES.get(("", parameter))


def setting_values(name: str) -> tuple[str, ...]:
    """Return the values that a host's setting can have, by its Hyper-V name; none where it is a number."""
    if name == FENCE:
        return (OWN, NONE)
    default = getattr(HostSettings(), NAMES.get(name, ""), None)
    if isinstance(default, bool):
        return ("true", "false")
    return tuple(type(default)) if isinstance(default, StrEnum) else ()


def _completer(source: Source) -> Callable[[click.Context, str], list[CompletionItem]]:
    def complete(context: click.Context, incomplete: str) -> list[CompletionItem]:
        names = source(context.params.get("lab_name"))
        # One candidate is one line: a name with a line's end in it cannot be offered.
        found = dict.fromkeys(name for name in names if name.startswith(incomplete) and name.isprintable())
        return [CompletionItem(name) for name in found]

    return complete
