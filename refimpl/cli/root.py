"""The top of the command: its verbs, its version, and what becomes of errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import TracebackType

import click

import refimpl
from refimpl.cli.lazy import LazyGroup
from refimpl.model.phase import ExitCode

INTERRUPTED = 128 + 2
NOT_READ = 128 + 13
DEBUG_VARIABLE = "REFIMPL_DEBUG"
COMPLETE_VARIABLE = "_REFIMPL_COMPLETE"
"""Set by a shell's completion script: print candidates, and nothing else."""

VERBS = {
    "demo": ("refimpl.cli.demo:demo", "Show the main job: a guest moves there and back, watched from outside."),
    "doctor": (
        "refimpl.cli.doctor:doctor",
        "Check what this machine has and lacks, each with its mend; --mend mends it.",
    ),
    "lab": (
        "refimpl.cli.lab:lab",
        "Hosts made out of nothing: up, status, mend, link, fault, power-on, shell, logs, down, reap, list.",
    ),
    "vm": ("refimpl.cli.vm:vm", "Virtual machines: create, list, show, set, start, stop, pause, resume, remove."),
    "host": ("refimpl.cli.host:host", "Settings of hosts for live migration: get, set (Get-/Set-VMHost)."),
    "network": (
        "refimpl.cli.network:network",
        "Migration networks of hosts: add, list, set, remove (*-VMMigrationNetwork).",
    ),
    "check": (
        "refimpl.cli.check:check",
        "Compare a VM with a destination: everything that stands in the way, and its mend (Compare-VM).",
    ),
    "migrate": ("refimpl.cli.migrate:migrate", "Move a running VM to another host (Move-VM)."),
    "attach": ("refimpl.cli.attach:attach", "Follow an operation that runs, or tell how it ended."),
    "cancel": ("refimpl.cli.cancel:cancel", "Ask a running move to stop and roll back."),
    "operations": ("refimpl.cli.operations:operations", "Moves of this controller: list, show, set, prune."),
    "recover": ("refimpl.cli.recover:recover", "End interrupted moves by evidence."),
    "report": ("refimpl.cli.report:report", "Write the report page of a move: one HTML file."),
    "schema": ("refimpl.cli.schema:schema", "Print the JSON Schema of what verbs print with --json."),
    "completion": ("refimpl.cli.completion:completion", "Print the completion script of a shell."),
}


@click.group(
    cls=LazyGroup,
    table=VERBS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 done, 1 internal error, 2 usage, 3 refused, 4 failed and rolled back, 5 cancelled, "
    "6 a person is needed, 7 lost or two copies ran, 8 lab or machine broken, 11 detached.",
)
@click.version_option(refimpl.__version__, prog_name="refimpl")
def root() -> None:
    """Live migration by Hyper-V's rules on QEMU virtual machines.

    \b
    Start here:
      refimpl demo --backend simulated   no root, no hypervisor
      sudo refimpl demo                  two hosts, a guest, a move there and back
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code. What nobody expected stays an exception, told by `excepthook`."""
    if COMPLETE_VARIABLE in os.environ:
        return _complete(arguments)
    from refimpl.cli.failing import EXPECTED, tell

    if not os.environ.get(DEBUG_VARIABLE):
        sys.excepthook = say_internal_error
    try:
        result = root.main(args=arguments, prog_name="refimpl", standalone_mode=False)
    except click.ClickException as wrong:
        wrong.show()
        return ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped by Ctrl-C", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain once more when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOT_READ
    except EXPECTED as failure:
        return tell(failure)
    return int(result) if isinstance(result, int) else 0


def _complete(arguments: Sequence[str] | None) -> int:
    """Print what fits at the cursor. A person is typing: whatever goes wrong stays unsaid."""
    from refimpl.cli.completion import equip

    if not os.environ.get(DEBUG_VARIABLE):
        sys.excepthook = lambda *_: None
    root.equip = equip
    root.main(args=arguments, prog_name="refimpl")
    return 0


def say_internal_error(kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
    """Say in one line that the program itself is wrong; Python then exits with 1."""
    click.echo(f"refimpl: internal error: {kind.__name__}: {error}", err=True)
    click.echo(f"  mend: report it with the traceback, which {DEBUG_VARIABLE}=1 shows", err=True)
