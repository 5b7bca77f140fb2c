"""The choices of a move, which `check` and `migrate` share: given by options, or kept in a compatibility report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from refimpl.cli.vm_types import PATH_PAIR
from refimpl.model.request import MOST_BANDWIDTH_MIB_S, HandOver, MigrationRequest, PerformanceOption, PostCopy
from refimpl.model.storage import StorageWish, conflict

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
    click.option("--include-storage", is_flag=True, help="Move the VM's disks with it, by mirroring them first."),
    click.option(
        "--destination-storage-path",
        metavar="DIR",
        help="With --include-storage: the directory for all disks. [default: the destination's own, else as they are]",
    ),
    click.option(
        "--vhd",
        "vhds",
        multiple=True,
        type=PATH_PAIR,
        help="Move this disk only, to this file of the same name; may be repeated (-VHDs).",
    ),
    click.option(
        "--retain-vhd-copies-on-source",
        is_flag=True,
        help="Keep what a differencing disk is based on at the source; so it is without this, too.",
    ),
    click.option(
        "--remove-source-unmanaged-vhds",
        is_flag=True,
        help="After the move remove at the source also what the disks are based on, if no VM of the group needs it.",
    ),
    click.option(
        "--avoid-removing-vhds",
        is_flag=True,
        help="Remove no disk: not the source's after the move, not the copy after a failure (AvoidRemovingVHDs).",
    ),
    click.option(
        "--allow-overwrite",
        is_flag=True,
        help="Replace files that are where disks go; they come back if the move fails (AllowOverwriteExistingFile).",
    ),
    click.option(
        "--hand-over",
        type=click.Choice([HandOver.STRICT.value, HandOver.DELEGATED.value]),
        help="Who lets the VM run at the destination: refimpl, once the source cannot run again; or libvirt. "
        "[default: strict]",
    ),
    click.option(
        "--post-copy",
        type=click.Choice([option.value for option in PostCopy]),
        default=PostCopy.OFF.value,
        show_default=True,
        help="Let the VM run at the destination before its memory is there: when `operations post-copy` asks for it, "
        "or also at the pass limit. No way back, and until all has come the end of either QEMU loses the VM.",
    ),
    click.option(
        "--compatibility-report",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Take VM, destination and all choices from a report of `refimpl check --save`; all is checked anew.",
    ),
)
_STORAGE = (
    "include_storage",
    "destination_storage_path",
    "vhds",
    "retain_vhd_copies_on_source",
    "remove_source_unmanaged_vhds",
    "avoid_removing_vhds",
    "allow_overwrite",
)
_CARRIED = (
    "source",
    "encryption",
    "performance_option",
    "pass_limit",
    "bandwidth",
    "cancel_if_blackout_exceeds",
    *_STORAGE,
    "hand_over",
    "post_copy",
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
    include_storage: bool
    destination_storage_path: str | None
    vhds: tuple[tuple[str, str], ...]
    retain_vhd_copies_on_source: bool
    remove_source_unmanaged_vhds: bool
    avoid_removing_vhds: bool
    allow_overwrite: bool
    hand_over: str | None
    post_copy: str
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
            storage=self.storage(),
            hand_over=HandOver(self.hand_over) if self.hand_over else None,
            post_copy=PostCopy(self.post_copy),
        )

    def storage(self) -> StorageWish | None:
        """Return what is to become of the disks, None when nothing was said; click.UsageError for what cannot be."""
        if all(getattr(self, name) in (False, None, ()) for name in _STORAGE):
            return None
        wish = StorageWish(
            include=self.include_storage,
            destination_path=self.destination_storage_path,
            vhds=self.vhds,
            retain_vhd_copies_on_source=self.retain_vhd_copies_on_source,
            remove_source_unmanaged_vhds=self.remove_source_unmanaged_vhds,
            avoid_removing_vhds=self.avoid_removing_vhds,
            allow_overwrite=self.allow_overwrite,
        )
        wrong = conflict(wish)
        if wrong is not None:
            raise click.UsageError(wrong)
        return wish


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
            option = "--vhd" if name == "vhds" else "--" + name.replace("_", "-")
            raise click.UsageError(f"{option} does not go with --compatibility-report, which carries that choice")
