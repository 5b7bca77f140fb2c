"""What a lab file says of hosts' settings is judged before anything is built, and told with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from refimpl.app.labs import wish_of
from refimpl.cli import main
from refimpl.lab.wish import plain_wish
from refimpl.model.errors import RefimplError

HOSTS = '[[hosts]]\nname = "h1"\n[hosts.settings]\n'


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "lab.toml"
    path.write_text(text)
    return path


def test_without_a_file_the_hosts_are_alike() -> None:
    assert wish_of(None, None, None, None) == plain_wish("lab", 2, 2048)
    assert wish_of("mine", 3, 512, None).hosts[2].memory_mib == 512


def test_a_name_given_on_the_command_line_counts(tmp_path: Path) -> None:
    assert wish_of("mine", None, None, written(tmp_path, HOSTS)).name == "mine"


@pytest.mark.error("lab.file_invalid")
def test_every_wrong_setting_is_told_with_its_line(tmp_path: Path) -> None:
    text = (
        'MaximumVirtualMachineMigrations = -1\nVirtualMachineMigrationPerformanceOption = "Fast"\n'
        'Colour = "red"\nusEAnynetworkformigration = true\nMigrationNetworks = []\nPreCopyPassLimit = 2.5\n'
    )
    with pytest.raises(RefimplError) as caught:
        wish_of(None, None, None, written(tmp_path, HOSTS + text))
    wrong = {(p.values["key"], p.values["line"]): str(p.values["detail"]) for p in caught.value.problems}
    assert set(wrong) == {
        ("hosts.0.settings.MaximumVirtualMachineMigrations", 4),
        ("hosts.0.settings.VirtualMachineMigrationPerformanceOption", 5),
        ("hosts.0.settings.Colour", 6),
        ("hosts.0.settings.MigrationNetworks", 8),
        ("hosts.0.settings.PreCopyPassLimit", 9),
    }
    assert "TCPIP" in wrong["hosts.0.settings.VirtualMachineMigrationPerformanceOption", 5]


def test_the_command_ends_with_usage_and_says_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, HOSTS + "Colour = 3\nSize = 4\n")
    assert main(["lab", "up", "--file", str(path)]) == 2
    said = capsys.readouterr().err
    assert "line 4 at hosts.0.settings.Colour" in said
    assert "line 5 at hosts.0.settings.Size" in said


def test_a_file_and_options_that_it_replaces_do_not_go_together(tmp_path: Path) -> None:
    assert main(["lab", "up", "--file", str(written(tmp_path, HOSTS)), "--hosts", "3"]) == 2
