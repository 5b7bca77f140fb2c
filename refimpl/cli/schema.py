"""`refimpl schema`: the published shapes of everything that is printed as JSON."""

from __future__ import annotations

from pathlib import Path

import click

from refimpl.model.phase import ExitCode

SHORT = "Print the JSON Schema of what verbs print with --json."


@click.command(short_help=SHORT)
@click.argument("name", required=False)
@click.option(
    "--write",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIRECTORY",
    help="Write all of them there, a file each.",
)
def schema(name: str | None, directory: Path | None) -> int:
    """Print the JSON Schema NAME; without one, list what there is.

    There are schemas for moves, check, demo, operations list and show, host, network, vm list and show, lab up, status,
    list and fault, and doctor. Each carries its version in $id. Within a version values may be added, so ignore what
    you do not know; a schema that refuses what it does not name gets a new version instead.
    A verb that could not begin prints the `problems` of schema line instead. Corresponds to no cmdlet.

    \b
    Examples:
      refimpl schema
      refimpl schema line
    """
    from refimpl.report.schemas import SCHEMAS, text

    if name is not None and name not in SCHEMAS:
        raise click.UsageError(f"no schema named {name!r}; there are: {', '.join(SCHEMAS)}")
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        for each in [name] if name else SCHEMAS:
            (directory / f"{each}.json").write_text(text(each), "utf-8")
        return ExitCode.OK
    if name is not None:
        click.echo(text(name), nl=False)
        return ExitCode.OK
    width = max(map(len, SCHEMAS))
    for each, make in SCHEMAS.items():
        made = make()
        click.echo(f"{each:<{width}}  version {made['$id'].rpartition(':')[2]}  {made['title']}")
    return ExitCode.OK
