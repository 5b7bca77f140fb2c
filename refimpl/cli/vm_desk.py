"""What the verbs about VMs share: the desk that carries them out, and telling where a VM is and how it is reached."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from refimpl.cli.context import backend_of, open_lab, require_root
from refimpl.cli.say import as_json as print_json
from refimpl.model.phase import ExitCode
from refimpl.model.request import VmState

if TYPE_CHECKING:
    from refimpl.app.vm_network import Reach
    from refimpl.app.vms import VmDesk

_OWN_NETWORK = "/proc/thread-self/ns/net"


@contextmanager
def desk_of(verb: str, lab_name: str | None) -> Iterator[VmDesk]:
    """Give the desk of a lab's VMs. The process stays in the lab's management network for good."""
    require_root(verb)
    lab = open_lab(lab_name)
    # Kept open before the lab's network is entered: ports that lead to guests are made out here.
    with open(_OWN_NETWORK, "rb") as outside, backend_of(lab.group) as backend:
        from refimpl.app.vms import VmDesk

        yield VmDesk(lab.group, backend, lab.paths, outside.fileno())


def tell_done(name: str, host: str | None, state: VmState | None, as_json: bool, text: str = "") -> int:
    """Print what was done to a VM and return the exit code for that. `host` None: none has it; `state` None: removed.

    `text` is said to a person in place of the state.
    """
    if as_json:
        print_json({"vm": name, "host": host, "state": state})
    else:
        place = "no host" if host is None else f"host {host}"
        click.echo(f"VM {name!r} on {place}: {text or state or 'removed'}")
    return ExitCode.OK


def reach_json(reach: Reach) -> dict[str, Any]:
    """Return how a guest is reached as plain values."""
    rows = [{"port": f.port, "guest_port": f.guest_port, "up": up} for f, up in reach.forwards]
    return {"address": reach.address, "forwards": rows}


def forwards_text(reach: Reach) -> str:
    """Return a guest's forwards in a few characters, those that are down marked."""
    return ", ".join(f"{f.port}:{f.guest_port}" + ("" if up else " (down)") for f, up in reach.forwards) or "-"


def say_reach(reach: Reach, netns: str | None) -> None:
    """Print how a person reaches a guest from this machine."""
    if reach.address is not None:
        enter = f"ip netns exec {netns} " if netns else ""
        click.echo(f"address of its guest in the lab: {reach.address}; from here: {enter}ping {reach.address}")
    for forward, up in reach.forwards:
        click.echo(f"127.0.0.1:{forward.port} leads to its port {forward.guest_port}" + ("" if up else ": DOWN"))
