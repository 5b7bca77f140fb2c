"""`refimpl vm`: virtual machines on the hosts of a lab, with the built-in guest or one of the user's own."""

from __future__ import annotations

import click

from refimpl.cli.vm_create import create
from refimpl.cli.vm_life import pause, remove, resume, start, stop
from refimpl.cli.vm_set import set_
from refimpl.cli.vm_show import list_, show

SHORT = "Virtual machines: create, list, show, set, start, stop, pause, resume, remove."


@click.group(short_help=SHORT)
def vm() -> None:
    """Virtual machines: with the built-in guest, which works and proves afterwards what happened to it, or your own."""


for _verb in (create, list_, show, set_, start, stop, pause, resume, remove):
    vm.add_command(_verb)
