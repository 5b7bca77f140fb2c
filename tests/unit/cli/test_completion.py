"""Shell completion: a real bash sources the script and asks it; names come from files, and nothing is ever said."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from refimpl.app.settings import READERS
from refimpl.cli import completion, main
from refimpl.cli.root import COMPLETE_VARIABLE, VERBS
from refimpl.lab import layout
from refimpl.model.request import PerformanceOption
from tests.unit.cli.commands import HEAVY, all_commands, run_python

ASK = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
compopt() { :; }
_refimpl_completion refimpl
printf '%s\\n' "${COMPREPLY[@]}"
"""


class Shell:
    """A bash with the script, below a directory that has labs, VMs and operations."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.labs, self.home = folder / "labs", folder / "home"
        program = folder / "refimpl"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m refimpl "$@"\n')
        program.chmod(0o755)
        self.script = folder / "script"
        self.environment = os.environ | {
            "PATH": f"{folder}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "REFIMPL_LAB_ROOT": str(self.labs),
            "REFIMPL_HOME": str(self.home),
        }
        self.script.write_text(self.run("refimpl", "completion", "bash"))

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True, cwd=self.folder, timeout=60
        )
        assert done.stderr == ""
        return done.stdout

    def tab(self, *words: str) -> list[str]:
        return self.run("bash", "-c", ASK, "bash", str(self.script), "refimpl", *words).split()

    def lab(self, id: str, name: str, hosts: list[str], vms: list[str]) -> Path:
        directory = self.labs / id
        disks = directory / "disks"
        disks.mkdir(parents=True)
        for vm in vms:
            (disks / f"{vm}.json").write_text("{}")
        group = {
            "id": id,
            "name": name,
            "hosts": [{"name": host} for host in hosts],
            "labels": {"disk_directory": str(disks)},
            "shared_directory": str(disks),
        }
        (directory / "group.json").write_text(json.dumps(group))
        return directory


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed: the completion script is for it")
    made = Shell(tmp_path)
    made.lab("00000a", "spring", ["h1", "h2"], ["web", "mail", "web two\nlines"])
    made.lab("00000b", "autumn", ["n1"], ["weather"])
    return made


def test_verbs_options_and_choices(shell: Shell) -> None:
    assert {"demo", "migrate", "completion"} <= set(shell.tab(""))
    assert shell.tab("mi") == ["migrate"]
    assert "--encryption" in shell.tab("migrate", "--enc")
    assert shell.tab("migrate", "web", "h2", "--encryption", "o") == ["on", "off"]
    assert {"list", "show", "prune"} <= set(shell.tab("operations", ""))


def test_names_of_vms_hosts_and_labs(shell: Shell) -> None:
    assert sorted(shell.tab("migrate", "we")) == ["weather", "web"]
    assert sorted(shell.tab("migrate", "web", "")) == ["h1", "h2", "n1"]
    assert sorted(shell.tab("lab", "status", "")) == ["autumn", "spring"]
    assert shell.tab("migrate", "--lab", "au") == ["autumn"]


def test_the_lab_that_was_named_is_the_one_whose_names_are_offered(shell: Shell) -> None:
    assert shell.tab("migrate", "--lab", "autumn", "we") == ["weather"]
    assert shell.tab("migrate", "--lab", "autumn", "weather", "") == ["n1"]


def test_a_name_that_does_not_exist_yet_is_not_offered(shell: Shell) -> None:
    assert shell.tab("vm", "create", "w") == []
    assert shell.tab("lab", "up", "s") == []


def test_values_of_a_hosts_settings(shell: Shell) -> None:
    def offered(option: str, begun: str = "") -> list[str]:
        return shell.tab("host", "set", "h1", option, begun)

    assert offered("--use-any-network-for-migration") == ["true", "false"]
    assert offered("--virtual-machine-migration-enabled", "f") == ["false"]
    assert offered("--virtual-machine-migration-performance-option") == list(PerformanceOption)
    assert offered("--virtual-machine-migration-authentication-type", "K") == ["Kerberos"]
    assert offered("--maximum-storage-migrations") == []


@pytest.mark.parametrize("name", READERS)
def test_every_value_that_is_offered_for_a_setting_is_taken(name: str) -> None:
    for value in completion.setting_values(name):
        assert READERS[name](value) is not None


def test_operations_of_this_controller(shell: Shell) -> None:
    for id in ("0a1b2c3d", "0a999999", "ffffffff"):
        (shell.home / "operations" / id).mkdir(parents=True)
    assert sorted(shell.tab("attach", "0a")) == ["0a1b2c3d", "0a999999"]
    assert sorted(shell.tab("operations", "show", "")) == ["0a1b2c3d", "0a999999", "ffffffff"]


def test_whatever_is_wrong_there_is_silence(shell: Shell) -> None:
    assert shell.tab("attach", "") == []  # no home
    for broken in ("{", "[]", '{"name": 1}', '{"hosts": null, "labels": null}'):
        (shell.labs / "00000a" / "group.json").write_text(broken)
        assert shell.tab("migrate", "w") == []
    shutil.rmtree(shell.labs)
    assert shell.tab("migrate", "w") == []
    assert shell.tab("nonsense", "w") == []


@pytest.mark.parametrize("name", completion.SHELLS)
def test_every_shell_has_its_script(name: str, capsys) -> None:
    assert main(["completion", name]) == 0
    out = capsys.readouterr().out
    assert COMPLETE_VARIABLE in out
    assert "refimpl" in out


def test_another_shell_is_a_wrong_command_line(capsys) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert "bash" in capsys.readouterr().err


def test_a_tab_imports_nothing_heavy() -> None:
    code = (
        "import sys, atexit\n"
        f"atexit.register(lambda: print([m for m in {HEAVY} if m in sys.modules]))\n"
        "from refimpl.cli import main; main()"
    )
    for words in ("refimpl mi", "refimpl migrate w", "refimpl --he"):
        place = {COMPLETE_VARIABLE: "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        heavy = run_python(code, **place).stdout.splitlines()[-1]
        # Following a move needs its light parts; no backend, no lab and no library beside click is among them.
        assert set(json.loads(heavy.replace("'", '"'))) <= {"refimpl.app"}, (words, heavy)


def test_verbs_are_offered_without_importing_them() -> None:
    code = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('refimpl.cli.demo' in sys.modules))\n"
        "from refimpl.cli import main; main()"
    )
    place = {COMPLETE_VARIABLE: "bash_complete", "COMP_WORDS": "refimpl d", "COMP_CWORD": "1"}
    assert run_python(code, **place).stdout.split() == ["plain,demo", "plain,doctor", "False"]


def test_where_labs_are_is_the_same_here_and_in_the_lab() -> None:
    assert (completion.LAB_ROOT_VARIABLE, completion.LAB_ROOT) == (layout.ROOT_VARIABLE, layout.DEFAULT_ROOT)


NO_NAMES = {"command", "subnet"}
"""Arguments that are no names of anything that is kept in a small file."""
ELSEWHERE = {("", "schema", "name"), ("lab fault", "undo", "ids")}
"""Those whose names are only in a module that takes long to import; without one the verb lists them."""


@pytest.mark.parametrize(("name", "command"), all_commands(), ids=[name for name, _ in all_commands()])
def test_every_argument_of_every_verb_offers_something(name: str, command: click.Command) -> None:
    group, _, verb = name.rpartition(" ")
    for parameter in command.params:
        if not isinstance(parameter, click.Argument) or isinstance(parameter.type, click.Choice | click.Path):
            continue
        known = parameter.name or ""
        offered = completion.source_of(group, verb, known) is not None
        exempt = known in NO_NAMES or (group, verb, known) in completion.NEW_NAMES | ELSEWHERE
        assert offered or exempt, (name, known)


def test_every_verb_module_can_be_equipped() -> None:
    for module, _, attribute in (entry[0].partition(":") for entry in VERBS.values()):
        completion.equip(getattr(importlib.import_module(module), attribute))
