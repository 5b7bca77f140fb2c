"""The choices of a move, which `check` and `migrate` share: given by options, or kept in a compatibility report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from refimpl.model.request import MOST_BANDWIDTH_MIB_S, HandOver, MigrationRequest, PerformanceOption

Verb = Callable[..., Any]

_OPTIONS = (
    click.argument("vm", required=False),
    click.argument("destination", required=False),
    click.option("--source", metavar="HOST", help="Refuse the move unless the VM runs there. [default: where it runs]"),
    click.option(
        "--encryption",
        type=click.Choice(["on", "off"]),
        default="on",
        show_default=True,
        help="TLS with both ends proved. off: memory crosses the network in clear, and every report says so.",
    ),
    click.option(
        "--performance-option",
        type=click.Choice([option.value for option in PerformanceOption], case_sensitive=False),
        metavar="|".join(PerformanceOption),
        help="As of Set-VMHost -VirtualMachineMigrationPerformanceOption. [default: as the source host is set]",
    ),
    click.option(
        "--pass-limit",
        type=click.IntRange(1, 100),
        help="Passes over the memory after which the switch is forced. [default: as the source host is set]",
    ),
    click.option(
        "--bandwidth",
        type=click.IntRange(0, MOST_BANDWIDTH_MIB_S),
        default=0,
        metavar="MIB_S",
        help="Limit in MiB per second; with Compression a low one is overshot. [default: none]",
    ),
    click.option(
        "--cancel-if-blackout-exceeds",
        type=click.IntRange(1),
        metavar="MS",
        help="Cancel at the last pass if the VM would stand still for longer (CancelIfBlackoutThresholdExceeded).",
    ),
    click.option(
        "--hand-over",
        type=click.Choice([HandOver.STRICT.value, HandOver.DELEGATED.value]),
        help="Who lets the VM run at the destination: refimpl, once the source cannot run again; or libvirt. "
        "[default: strict]",
    ),
    click.option(
        "--compatibility-report",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Take VM, destination and all choices from a report of `refimpl check --save`; all is checked anew.",
    ),
)
_CARRIED = (
    "source",
    "encryption",
    "performance_option",
    "pass_limit",
    "bandwidth",
    "cancel_if_blackout_exceeds",
    "hand_over",
)
"""What a report carries, so that it cannot be said beside it."""


@dataclass(frozen=True, slots=True)
class Choices:
    """What was chosen on the command line."""

    vm: str | None
    destination: str | None
    source: str | None
    encryption: str
    performance_option: str | None
    pass_limit: int | None
    bandwidth: int
    cancel_if_blackout_exceeds: int | None
    hand_over: str | None
    compatibility_report: Path | None

    def request(self) -> MigrationRequest:
        """Return the request that they make. RefimplError `report.*` when the report is not what is meant."""
        if self.compatibility_report is not None:
            from refimpl.app.check import choices_of

            return choices_of(self.compatibility_report, self.vm, self.destination)
        assert self.vm is not None
        assert self.destination is not None
        option = self.performance_option
        return MigrationRequest(
            vm=self.vm,
            destination=self.destination,
            source=self.source,
            encryption=self.encryption == "on",
            performance_option=PerformanceOption(option) if option else None,
            pass_limit=self.pass_limit,
            bandwidth_mib_s=self.bandwidth,
            cancel_if_blackout_exceeds_ms=self.cancel_if_blackout_exceeds,
            hand_over=HandOver(self.hand_over) if self.hand_over else None,
        )


def move_choices(function: Verb) -> Verb:
    """Give a verb VM, DESTINATION and the options of a move; it is called with `choices` in their place."""

    @wraps(function)
    def verb(**given: Any) -> Any:
        choices = Choices(**{name: given.pop(name) for name in Choices.__slots__})
        _refuse_half(choices, click.get_current_context())
        return function(choices=choices, **given)

    for option in reversed(_OPTIONS):
        verb = option(verb)
    return verb


def _refuse_half(choices: Choices, context: click.Context) -> None:
    if choices.compatibility_report is None:
        for name in ("vm", "destination"):
            if getattr(choices, name) is None:
                raise click.UsageError(f"Missing argument '{name.upper()}'.")
        return
    for name in _CARRIED:
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            option = "--" + name.replace("_", "-")
            raise click.UsageError(f"{option} does not go with --compatibility-report, which carries that choice")
