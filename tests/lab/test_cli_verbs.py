"""The verbs as a user types them, on a real lab: labs, VMs, moves, cancel, attach, operations, recover."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from refimpl.backends.libvirt.domain import line_file
from refimpl.meter.samples import read_samples
from tests.healing import Healing
from tests.lab.cli_support import Command, Done, command_with_lab
from tests.lab.moving import until

pytestmark = pytest.mark.lab

SLOW = ("--bandwidth", "1")
"""So slow that the memory phase lasts until something else ends it."""


@contextmanager
def made(home: Path) -> Iterator[Command]:
    """Make a lab with a VM, as a user would."""
    with command_with_lab(home, "cli", 512) as command:
        done = command("vm", "create", "web", "--memory", "128", "--working-set", "8", "--host", "h1", "--start")
        assert done.code == 0, done
        yield command


def whole(refimpl: Command) -> None:
    """The VM runs in one place, and there is no other."""
    (web,) = refimpl("vm", "list", "--json").json["vms"]
    assert (web["name"], web["state"], web["lease_held"], web["operation"]) == ("web", "running", True, None)


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Healing[Command]]:
    with closing(Healing("this module's lab", lambda: made(tmp_path_factory.mktemp("home")), whole)) as commands:
        yield commands


@pytest.fixture
def refimpl(commands: Healing[Command], request: pytest.FixtureRequest) -> Iterator[Command]:
    """The command, with a lab and a VM that runs before and after."""
    with commands.lent(request.node) as command:
        yield command


@pytest.fixture
def web(refimpl: Command) -> str:
    """The name of that VM."""
    return "web"


def place(refimpl: Command) -> str:
    return str(refimpl.vm("web")["host"])


def other(refimpl: Command) -> str:
    return {"h1": "h2", "h2": "h1"}[place(refimpl)]


def ids(done: Done) -> list[str]:
    return [problem["id"] for problem in done.json["outcome"]["problems"]]


def newest(refimpl: Command) -> dict[str, object]:
    return dict(refimpl("operations", "list", "--json").json["operations"][-1])


def test_a_lab_is_seen_entered_and_read(refimpl: Command) -> None:
    status = refimpl("lab", "status", "--json")
    assert (status.code, [host["healthy"] for host in status.json["hosts"]]) == (0, [True, True])
    assert [lab["state"] for lab in refimpl("lab", "list", "--json").json["labs"]] == ["up"]
    assert refimpl("lab", "link", "h1", "--network", "vm", "--json").json["up"] is True
    assert refimpl("lab", "shell", "h2", "--", "hostname").out.strip() == "h2"
    assert refimpl("lab", "shell", "h2", "--", "false").code == 1
    assert refimpl("lab", "logs", "h1").code == 0


def test_a_second_lab_of_the_same_name_is_refused(refimpl: Command) -> None:
    again = refimpl("lab", "up", "cli")
    assert again.code == 8
    assert "[lab.exists]" in again.err


def test_unknown_names_all_end_with_3(refimpl: Command) -> None:
    assert refimpl("lab", "status", "--lab", "nowhere").code == 3
    assert refimpl("lab", "shell", "h9").code == 3
    assert refimpl("vm", "stop", "nobody").code == 3
    assert refimpl("vm", "create", "x", "--host", "h9").code == 3
    assert refimpl("attach", "0a1b2c3d").code == 3


def test_the_life_of_a_vm(refimpl: Command) -> None:
    made = refimpl("vm", "create", "short", "--memory", "128", "--working-set", "8", "--json")
    assert made.code == 0, made
    host = made.json["host"]
    assert refimpl.vm("short")["state"] == "off"
    again = refimpl("vm", "create", "short")
    assert (again.code, "[vm.name_taken]" in again.err) == (3, True)
    for _ in range(2):
        assert refimpl("vm", "start", "short", "--json").json == {"vm": "short", "host": host, "state": "running"}
    refused = refimpl("vm", "remove", "short")
    assert (refused.code, "[vm.not_off]" in refused.err) == (3, True)
    for options in (("--force",), ()):
        assert refimpl("vm", "stop", "short", *options, "--json").json["state"] == "off"
    assert refimpl("vm", "remove", "short", "--json").json["state"] is None
    assert [vm["name"] for vm in refimpl("vm", "list", "--json").json["vms"] if vm["name"] == "short"] == []
    left = [path for path in refimpl.root.rglob("short*") if "log" not in path.parts and path.suffix != ".log"]
    assert left == []


def test_a_vm_that_does_not_fit_is_not_started(refimpl: Command) -> None:
    assert refimpl("vm", "create", "huge", "--memory", "600").code == 0
    refused = refimpl("vm", "start", "huge")
    assert (refused.code, "[memory.short]" in refused.err, "600 MiB" in refused.err) == (3, True, True)
    assert refimpl("vm", "remove", "huge").code == 0


@pytest.mark.parametrize("name", ['quote\'s "$(id)"', "two\nlines", "n" * 300, "ü"])
def test_unknown_vms_and_hosts_whatever_they_are_called(refimpl: Command, name: str) -> None:
    assert "[vm.unknown]" in refimpl("vm", "stop", name).err
    assert "[host.unknown]" in refimpl("vm", "create", "x", "--host", name).err


def test_a_guest_switches_itself_off_when_it_is_told(refimpl: Command, web: str) -> None:
    # It has said that it works before it is told anything.
    lines = next(refimpl.root.rglob(f"hosts/{place(refimpl)}/log/{line_file(web)}"))
    until(lambda: b" beat " in lines.read_bytes(), "a heartbeat")
    assert refimpl("vm", "stop", web).code == 0
    assert refimpl.vm(web)["state"] == "off"
    assert refimpl("vm", "start", web).code == 0


def test_a_move_tells_its_figures_and_stays_readable(refimpl: Command, web: str) -> None:
    destination = other(refimpl)
    done = refimpl("migrate", web, destination)
    assert done.code == 0, done
    assert re.search(rf"runs on +{destination}\n", done.out)
    assert "phase memory" in done.out
    assert "not measured" not in done.out
    assert place(refimpl) == destination
    shown = refimpl("operations", "show", str(newest(refimpl)["operation"]), "--json").json
    assert shown["state"] == "completed"
    assert "allow-run" in [row["kind"] for row in shown["intentions"]]
    attached = refimpl("attach", str(newest(refimpl)["operation"]))
    assert (attached.code, "runs there" in attached.out) == (0, True)


def test_json_lines_end_with_the_outcome(refimpl: Command, web: str) -> None:
    done = refimpl("migrate", web, other(refimpl), "--jsonl")
    assert (done.code, done.json["outcome"]["end"], done.err) == (0, "completed", "")


def test_a_watched_move_says_what_was_seen_and_keeps_every_sample(refimpl: Command, web: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = refimpl("migrate", web, other(refimpl), "--watch", "--jsonl", "--report", str(page))
    assert (done.code, done.json["outcome"]["end"]) == (0, "completed"), done
    seen = json.loads(done.out.splitlines()[-2])
    assert {verdict["state"] for verdict in seen["verdicts"]} == {"ok"}, seen
    kept = Path(seen["directory"])
    assert json.loads((kept / "verdicts.json").read_text())["verdicts"] == seen["verdicts"]
    assert all(read_samples(kept / verdict["samples"]) for verdict in seen["verdicts"] if verdict["samples"])
    assert "outside gap" in page.read_text("utf-8").lower()
    unknown = refimpl("migrate", "nobody", "h1", "--watch", "--json")
    assert (unknown.code, [problem["id"] for problem in unknown.json["problems"]]) == (8, ["watch.no_record"])


def test_what_is_refused_changes_nothing(refimpl: Command, web: str) -> None:
    here = place(refimpl)
    for destination, id in ((here, "host.same"), ("h9", "host.unknown")):
        done = refimpl("migrate", web, destination, "--json")
        assert (done.code, ids(done)) == (3, [id])
    done = refimpl("migrate", "nobody", here, "--json")
    assert (done.code, ids(done)) == (3, ["vm.unknown"])
    assert place(refimpl) == here


def test_detached_then_cancelled_by_another_command(refimpl: Command, web: str) -> None:
    here = place(refimpl)
    detached = refimpl("migrate", web, other(refimpl), *SLOW, "--detach", "--json")
    assert detached.code == 11
    operation = detached.json["detached"]["operation"]
    with refimpl.running("attach", operation) as attached:
        attached.wait_for("phase memory")
        cancelled = refimpl("cancel", operation)
        assert cancelled.code == 0, cancelled
        assert attached.end().code == 5
    assert place(refimpl) == here
    late = refimpl("cancel", operation)
    assert (late.code, "[operation.ended]" in late.err) == (2, True)


@pytest.mark.rule("R4")
def test_ctrl_c_rolls_back(refimpl: Command, web: str) -> None:
    here = place(refimpl)
    with refimpl.running("migrate", web, other(refimpl), *SLOW) as move:
        move.wait_for("phase memory")
        move.ctrl_c()
        done = move.end()
    assert done.code == 5, done
    assert "Ctrl-C" in done.out
    assert re.search(rf"runs on +{here}\n", done.out)
    assert place(refimpl) == here


def test_a_second_ctrl_c_detaches_and_the_cancel_goes_on(refimpl: Command, web: str, tmp_path: Path) -> None:
    stop = {"REFIMPL_TEST_STOP": "memory", "REFIMPL_TEST_STOP_FILE": str(tmp_path / "stop")}
    with refimpl.running("migrate", web, other(refimpl), *SLOW, **stop) as move:
        until((tmp_path / "stop").exists, "the conductor in phase memory")
        move.ctrl_c()
        move.wait_for("Ctrl-C")
        move.ctrl_c()
        done = move.end()
    assert done.code == 11
    operation = str(newest(refimpl)["operation"])
    assert f"refimpl attach {operation}" in done.out
    (tmp_path / "stop.go").touch()
    assert refimpl("attach", operation).code == 5


def test_a_conductor_that_dies_is_told_reported_and_recovered(refimpl: Command, web: str, tmp_path: Path) -> None:
    destination = other(refimpl)
    marker = tmp_path / "stop"
    stop = {"REFIMPL_TEST_STOP": "committed", "REFIMPL_TEST_STOP_FILE": str(marker)}
    with refimpl.running("migrate", web, destination, **stop) as move:
        until(marker.exists, "the conductor in phase committed")
        os.kill(int(marker.read_text().split()[-1]), signal.SIGKILL)
        done = move.end()
    operation = str(newest(refimpl)["operation"])
    assert done.code == 6, done
    assert f"refimpl recover {operation}" in done.err
    listed = refimpl("operations", "list")
    assert "interrupted" in listed.out
    assert "refimpl recover" in listed.out
    assert refimpl("doctor").code == 8
    refused = refimpl("vm", "remove", web)
    assert "[vm.stamped]" in refused.err
    recovered = refimpl("recover")
    assert recovered.code == 0, recovered
    assert "found by its journal" in recovered.out
    assert "recovered after its conductor died" in recovered.out
    assert place(refimpl) == destination
    nothing = refimpl("recover")
    assert (nothing.code, "Nothing was interrupted" in nothing.out) == (0, True)
    assert refimpl("recover", operation).code == 0
