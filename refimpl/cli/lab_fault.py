"""`refimpl lab fault`: what can be done to a lab on purpose, one verb per fault, made from the faults' declarations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from refimpl.cli.context import home, json_option, lab_option, open_lab, require_root
from refimpl.cli.failing import errors_as_json
from refimpl.cli.lab_link import asked_to_end
from refimpl.cli.say import as_json as print_json
from refimpl.cli.say import columns
from refimpl.model.phase import ExitCode

if TYPE_CHECKING:
    from refimpl.faults import Fault, Target
    from refimpl.lab.faultbook import FaultRecord

SHORT = "Break something in a lab on purpose, and undo it: list, undo, and a verb per fault."
MAX_SECONDS = 86_400.0
MAX_RATE_MBIT_S = 100_000


class FaultGroup(click.Group):
    """A group whose verbs are its own and one per fault; the faults are imported when one is looked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs, the group's own first."""
        from refimpl.faults import FAULTS

        return [*super().list_commands(ctx), *FAULTS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a verb, None when there is none of that name."""
        from refimpl.faults import FAULTS

        own = super().get_command(ctx, cmd_name)
        return own or (_command(FAULTS[cmd_name]) if cmd_name in FAULTS else None)


@click.group(cls=FaultGroup, short_help=SHORT)
def fault() -> None:
    """Break something in a lab on purpose. Each fault says what it does and may lead to, and undoes itself.

    It stands for so long as --for says, or until Ctrl-C. Whatever a command that was killed has left is undone by
    `refimpl lab fault undo`, and goes with the lab. Never on a machine's own libvirt. Corresponds to no cmdlet.
    """


@fault.command("list", short_help="List all faults, and those that stand.")
@json_option("fault-list")
@lab_option
def list_(as_json: bool, lab_name: str | None) -> int:
    """List all faults with what each may lead to, and those that stand in the lab, if one is up.

    Corresponds to no cmdlet.

    \b
    Example:
      refimpl lab fault list
    """
    from refimpl.faults import FAULTS

    with errors_as_json(as_json):
        standing = _standing(lab_name)
    if as_json:
        rows = [fault_row(each) for each in FAULTS.values()]
        print_json({"faults": rows, "standing": [record_row(record) for record in standing]})
        return ExitCode.OK
    click.echo(columns(("FAULT", "STRIKES", "MAY LEAD TO"), [_short(each) for each in FAULTS.values()]))
    if standing:
        click.echo("Standing now:")
        click.echo(_table(standing))
    return ExitCode.OK


@fault.command("undo", short_help="Undo faults whose command was killed.")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@json_option("faults-undone")
@lab_option
def undo(ids: Sequence[str], as_json: bool, lab_name: str | None) -> int:
    """Undo the faults named, or, without a name, all whose command is gone.

    One that is named is undone also while its command runs. Corresponds to no cmdlet.

    \b
    Example:
      sudo refimpl lab fault undo
    """
    from refimpl.lab.faultbook import FaultBook
    from refimpl.lab.undoing import undo as undo_one

    with errors_as_json(as_json):
        require_root("lab fault undo")
        found = open_lab(lab_name)
        records = FaultBook(found.paths).standing()
        unknown = sorted(set(ids) - {record.id for record in records})
        if unknown:
            known = ", ".join(record.id for record in records) or "none"
            raise click.UsageError(
                f"no fault of id {', '.join(unknown)} stands in lab {found.name!r}; standing: {known}"
            )
        chosen = [record for record in records if (record.id in ids if ids else record.abandoned)]
        for record in chosen:
            undo_one(found, record)
    if as_json:
        print_json({"undone": [record_row(record) for record in chosen]})
    elif chosen:
        click.echo(f"Undone:\n{_table(chosen)}")
    else:
        click.echo("No fault was left by a command that is gone.")
    return ExitCode.OK


def fault_row(each: Fault) -> dict[str, Any]:
    """Return a declaration as plain JSON values."""
    row = {"name": each.name, "strikes": each.target, "does": each.does, "may_lead_to": list(map(str, each.claims))}
    return {**row, "undone": each.undone, "needs": list(map(str, each.needs)), "may_lose_vm": each.may_lose_vm}


def record_row(record: FaultRecord) -> dict[str, Any]:
    """Return a fault that stands as plain JSON values."""
    return {"id": record.id, "fault": record.fault, "strikes": record.target, "abandoned": record.abandoned}


def _standing(lab_name: str | None) -> tuple[FaultRecord, ...]:
    """Return what stands in the lab that is named, or in the only one; nothing where none is up or may be looked at."""
    from refimpl.lab.faultbook import FaultBook
    from refimpl.model.errors import RefimplError

    try:
        return FaultBook(open_lab(lab_name).paths).standing()
    except RefimplError:
        if lab_name:
            raise
        return ()


def _table(records: Sequence[FaultRecord]) -> str:
    rows = [(r.id, r.fault, r.target, "GONE" if r.abandoned else f"pid {r.by.pid}") for r in records]
    return columns(("ID", "FAULT", "STRIKES", "COMMAND"), rows)


def _short(each: Fault) -> tuple[str, str, str]:
    worst = ", ".join(claim.name.lower() for claim in each.claims)
    return each.name, each.target.split(":")[0], worst


def _command(each: Fault) -> click.Command:
    from refimpl.faults.catalogue import Needs
    from refimpl.faults.target import Place
    from refimpl.lab.links import Direction

    given = {
        Needs.HOST: click.Option(["--host"], required=True, help="The host that is struck."),
        Needs.VM: click.Option(["--vm"], required=True, help="The VM, as that host has it."),
        Needs.NETWORK: click.Option(["--network"], required=True, help="A migration network, `management` or `vm`."),
        Needs.DIRECTION: click.Option(
            ["--direction"],
            type=click.Choice([*map(str, Direction)]),
            required=True,
            help="What is lost: to or from the host.",
        ),
        Needs.RATE: click.Option(
            ["--rate"], type=click.IntRange(1, MAX_RATE_MBIT_S), required=True, metavar="MBIT", help="Mbit/s each way."
        ),
        Needs.PLACE: click.Option(
            ["--place"], type=click.Choice([*map(str, Place)]), required=True, help="shared needs --host as well."
        ),
    }
    options = [given[need] for need in each.needs]
    if Needs.PLACE in each.needs:
        options.append(click.Option(["--host"], default="", help="The host that is to see it so."))
    if not each.needs:
        options.append(click.Option(["--operation"], default="", help="Whose; without it of the only move that runs."))
    if each.lasting:
        limit = click.FloatRange(0, MAX_SECONDS)
        options.append(click.Option(["--for", "seconds"], type=limit, metavar="SECONDS", help="Then undo it."))

    @json_option("fault")
    @lab_option
    def run(as_json: bool, lab_name: str | None, seconds: float | None = None, **told: Any) -> int:
        return _inflict(each, told, seconds, as_json, lab_name)

    made = click.command(each.name, short_help=each.title, help=_help(each))(run)
    made.params = [*options, *made.params]
    return made


def _help(each: Fault) -> str:
    needed = " ".join(f"--{need} {_EXAMPLES[str(need)]}" for need in each.needs)
    host = " --host h1" if "place" in map(str, each.needs) else ""
    lasts = " --for 5" if each.lasting else ""
    claims = "; ".join(claim.value for claim in each.claims)
    line = f"sudo refimpl lab fault {each.name} {needed}{host}{lasts}".rstrip()
    told = (
        each.title,
        f"Strikes {each.target}. It {each.does}.",
        f"May lead to: {claims}.",
        f"Undone: {each.undone}.",
        "Corresponds to no cmdlet.",
        f"\b\nExample:\n  {line}",
    )
    return "\n\n".join(told)


_EXAMPLES = {"host": "h1", "vm": "web", "network": "migration", "direction": "to", "rate": "10", "place": "shared"}


def _target(told: dict[str, Any]) -> Target:
    from refimpl.faults.target import Place, Target
    from refimpl.lab.links import Direction

    place = Place(told.get("place", Place.SHARED))
    return Target(
        host=told.get("host", ""),
        vm=told.get("vm", ""),
        network=told.get("network", ""),
        direction=Direction(told.get("direction", Direction.TO)),
        rate_mbit_s=told.get("rate", 1),
        place=place,
        home=home().path if place is Place.HOME else None,
        operation=told.get("operation", ""),
    )


def _inflict(each: Fault, told: dict[str, Any], seconds: float | None, as_json: bool, lab_name: str | None) -> int:
    from refimpl.faults import Inflicted

    with errors_as_json(as_json):
        require_root(f"lab fault {each.name}")
        try:
            wanted = Inflicted(open_lab(lab_name), each, _target(told))
        except ValueError as wrong:
            raise click.UsageError(str(wrong)) from None
        with asked_to_end() as ended, wanted as found:
            found.strike()
            if as_json:
                print_json(
                    {"fault": each.name, "strikes": found.target, "for_s": seconds, "undone_by_itself": each.lasting}
                )
            else:
                click.echo(_told(each, found.target, seconds))
            if each.lasting:
                ended.wait(seconds)
    if each.lasting and not as_json:
        click.echo("Undone.")
    return ExitCode.OK


def _told(each: Fault, target: str, seconds: float | None) -> str:
    if not each.lasting:
        return f"{each.name}: struck the {target}."
    until = f"for {seconds:g} s" if seconds is not None else "until Ctrl-C"
    return f"{each.name}: strikes the {target} {until}."
