"""Options that take a VM's disks along: what request they make, and the command that a report says for it."""

from __future__ import annotations

import shlex

import click
import pytest
from click.testing import CliRunner

from refimpl.app.report import command
from refimpl.cli.choices import Choices, move_choices
from refimpl.model.request import MigrationRequest
from refimpl.model.storage import StorageWish
from refimpl.report.settings import settings


def asked(*options: str) -> MigrationRequest | None:
    """The request that options make; None: the command line was wrong."""
    made: list[MigrationRequest] = []

    @click.command()
    @move_choices
    def verb(choices: Choices) -> None:
        made.append(choices.request())

    code = CliRunner().invoke(verb, [*options, "web", "b"]).exit_code
    assert code == (0 if made else 2)
    return made[0] if made else None


CHOICES = [
    (["--include-storage"], StorageWish(include=True)),
    (
        ["--include-storage", "--destination-storage-path", "/big disks", "--allow-overwrite"],
        StorageWish(include=True, destination_path="/big disks", allow_overwrite=True),
    ),
    (
        ["--vhd", "/a/x=/b/x", "--vhd", "/a/y=/b/y", "--avoid-removing-vhds"],
        StorageWish(vhds=(("/a/x", "/b/x"), ("/a/y", "/b/y")), avoid_removing_vhds=True),
    ),
    (
        ["--include-storage", "--remove-source-unmanaged-vhds"],
        StorageWish(include=True, remove_source_unmanaged_vhds=True),
    ),
    (
        ["--include-storage", "--retain-vhd-copies-on-source"],
        StorageWish(include=True, retain_vhd_copies_on_source=True),
    ),
]


@pytest.mark.parametrize(("options", "wish"), CHOICES)
def test_options_make_the_request_and_a_report_says_the_same_command(options: list[str], wish: StorageWish) -> None:
    made = asked(*options)
    assert made is not None
    assert made.storage == wish
    words = shlex.split(command(made.to_json()))
    assert words[:2] == ["refimpl", "migrate"]
    assert asked(*words[2 : words.index("--")]) == made


def test_without_a_word_about_disks_they_stay() -> None:
    made = asked()
    assert made is not None
    assert made.storage is None


@pytest.mark.parametrize(
    "options",
    [
        ["--include-storage", "--vhd", "/a/x=/b/x"],
        ["--destination-storage-path", "/b"],
        ["--destination-storage-path", ""],
        ["--allow-overwrite"],
        ["--vhd", "/a/x"],
        ["--vhd", "/a/x=b/x"],
        ["--vhd", "=/b/x"],
        ["--include-storage", "--compatibility-report", "x.report"],
    ],
)
def test_what_cannot_be_meant_is_a_wrong_command_line(options: list[str]) -> None:
    assert asked(*options) is None


def test_a_report_says_where_disks_go_and_what_is_removed() -> None:
    storage = {
        "disks": [{"source": "/a/x", "destination": "/b/x", "format": "raw"}],
        "removed": [{"path": "/a/x", "identity": "1"}],
    }
    told = {row.name: row.value for row in settings({}, {"vm": "web", "storage": storage})}
    assert told == {"disk 1": "/a/x to /b/x (raw)", "removed at the source": "/a/x"}
    assert settings({}, {"vm": "web", "storage": None}) == []
