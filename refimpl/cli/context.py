"""What verbs need before they can begin: root, the lab that is meant, a backend that reaches its hosts."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from refimpl.cli.failing import own_command
from refimpl.model.errors import error

if TYPE_CHECKING:
    from refimpl.app.home import Home, OperationFiles
    from refimpl.engine.backend import Backend
    from refimpl.lab import Lab
    from refimpl.model.group import Group

Verb = TypeVar("Verb", bound=Callable[..., Any])


def lab_option(function: Verb) -> Verb:
    """Give a verb the option `--lab`."""
    text = "The lab's name or id; without it the only lab that is up."
    return click.option("--lab", "lab_name", metavar="NAME", help=text)(function)


class JsonOption(click.Option):
    """The option `--json` of a verb. `schema`: the name under which what it prints is published."""

    def __init__(self, *args: Any, schema: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.schema = schema


def json_option(schema: str) -> Callable[[Verb], Verb]:
    """Give a verb the option `--json`, which prints what is published as that schema."""

    text = f"Print one JSON value (its shape: refimpl schema {schema})."
    return click.option("--json", "as_json", cls=JsonOption, schema=schema, is_flag=True, help=text)


def world_option(function: Verb) -> Verb:
    """Give a verb the option `--world`."""
    return click.option(
        "--world",
        type=click.Path(path_type=Path, dir_okay=False),
        help="With --backend simulated: the world's TOML or JSON file. [default: a small built-in one]",
    )(function)


def require_root(verb: str) -> None:
    """Go on only as root: `root.needed` names the command to run. Where there are no user ids, nobody is root."""
    if not is_root():
        raise error("root.needed", verb=f"refimpl {verb}", command=own_command())


def is_root() -> bool:
    """Whether this process has root's user id."""
    return sys.platform != "win32" and os.geteuid() == 0


def home() -> Home:
    """Return this controller's home."""
    from refimpl.app.home import Home, default_home

    return Home(default_home())


def operation_argument(function: Verb) -> Verb:
    """Give a verb the argument OPERATION|VM, for `operation_named`."""
    return click.argument("operation_id", metavar="OPERATION|VM")(function)


def operation_named(word: str) -> OperationFiles:
    """Return the operation of this controller that is meant: by its id, the beginning of it, or its VM while it runs.

    `operation.unknown`, `operation.none_runs`, `operation.several_run`.
    """
    from refimpl.app.naming import named

    return named(home(), word)


@contextmanager
def root_where_needed() -> Iterator[None]:
    """Go on without root as far as that goes: `root.needed` where the system says no."""
    try:
        yield
    except PermissionError:
        if is_root():
            raise
        raise error("root.needed", verb=click.get_current_context().command_path, command=own_command()) from None


def open_lab(name: str | None) -> Lab:
    """Return the lab of that name or id, or the only one that is up; `root.needed` where only root may look."""
    with root_where_needed():
        return _opened(name)


def _opened(name: str | None) -> Lab:
    from refimpl.lab import Lab, LabState, list_labs

    if name is not None:
        return Lab.open(name)
    labs = list_labs()
    up = [lab for lab in labs if lab.state in (LabState.UP, LabState.DEGRADED)]
    if not up:
        known = ", ".join(f"{lab.name} ({lab.state})" for lab in labs)
        raise error("lab.none_up", known=known or "none")
    if len(up) > 1:
        raise error("lab.several_up", labs=", ".join(lab.name for lab in up))
    return Lab.open(up[0].id)


@contextmanager
def backend_of(group: Group) -> Iterator[Backend]:
    """Give a backend that only looks. The process stays in the group's management network for good.

    To be called in the main thread before any other thread is started, as a thread inherits its network.
    """
    from refimpl.app.backends import backend_for
    from refimpl.hosts import netns

    if group.management_netns is not None:
        netns.enter(group.management_netns)
    backend = backend_for(group, lambda _: None)
    try:
        yield backend
    finally:
        backend.close()
