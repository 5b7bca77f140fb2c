"""All commands of the command line, and Python processes in which nothing is imported yet."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys

import click

from refimpl.cli.root import VERBS

HEAVY = (
    "rich",
    "pydantic",
    "libvirt",
    "cryptography",
    "jinja2",
    "psutil",
    "refimpl.lab",
    "refimpl.app",
    "refimpl.backends",
)


def command_of(name: str) -> click.Command:
    module, _, attribute = VERBS[name][0].partition(":")
    found = getattr(importlib.import_module(module), attribute)
    assert isinstance(found, click.Command)
    return found


def all_commands() -> list[tuple[str, click.Command]]:
    return [found for name in VERBS for found in _below(name, command_of(name))]


def _below(name: str, command: click.Command) -> list[tuple[str, click.Command]]:
    verbs = command.commands if isinstance(command, click.Group) else {}
    return [(name, command), *(found for verb in verbs for found in _below(f"{name} {verb}", verbs[verb]))]


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    full = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | environment
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=full, check=False
    )
