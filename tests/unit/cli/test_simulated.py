"""Moves in a simulated world from the command line: the demo from end to end, without root, Linux or a hypervisor."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from refimpl.cli import main

MISSING = ("fcntl", "libvirt", "cryptography", "termios", "grp", "pwd", "resource")


def world(tmp_path, *faults: dict) -> str:
    path = tmp_path / "world.json"
    networks = {"migration": {"bytes_s": 100_000_000}}
    hosts = {n: {"memory_mib": 2048, "networks": {"migration": f"192.0.2.{i}"}} for i, n in enumerate("ab", 1)}
    vm = {"name": "web", "id": "5f0c7a52-6f4e-4b7e-9d3f-0d3c1b2a4e61", "host": "a", "memory_mib": 256}
    text = json.dumps({"schema": 1, "hosts": hosts, "networks": networks, "vms": [vm], "faults": list(faults)})
    path.write_text(text, "utf-8")
    return str(path)


def run(*arguments: str, capsys) -> tuple[int, str, str]:
    code = main([*arguments, "--backend", "simulated"])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_demo_moves_there_and_back_and_says_that_it_is_simulated(capsys):
    code, out, _ = run("demo", capsys=capsys)
    assert code == 0
    assert "a to b" in out
    assert "b to a" in out
    assert out.splitlines()[0].startswith("SIMULATED")
    assert "all times above are virtual" in out
    assert "demo: GREEN" in out
    assert "memory verdict" not in out


def test_the_demo_runs_without_what_only_unix_has():
    # The libraries know this system for what it is; our own modules are to find what only Unix has missing.
    code = (
        "import os, sys, socketserver, subprocess, multiprocessing, click, pydantic, psutil;"
        f"sys.modules.update(dict.fromkeys({MISSING}));"
        "del os.geteuid, os.sched_getaffinity, socketserver.ThreadingUnixStreamServer;"
        "from refimpl.cli import main; sys.exit(main(['demo', '--backend', 'simulated', '--json']))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["report"]["green"] is True


def test_the_demo_as_json_lines_ends_with_the_report(capsys):
    code, out, _ = run("demo", "--jsonl", capsys=capsys)
    rows = [json.loads(line) for line in out.splitlines()]
    report = rows[-1]["report"]
    assert code == 0
    assert {row["kind"] for row in rows[:-1]} >= {"started", "pass-ended", "destination-ran"}
    assert [move["outcome"]["end"] for move in report["moves"]] == ["completed", "completed"]
    assert report["virtual_time"] is True


def test_a_demo_that_does_not_come_back_is_not_green(tmp_path, capsys):
    file = world(tmp_path, {"kind": "call-fails", "during": "memory"})
    code, out, _ = run("demo", "--world", file, capsys=capsys)
    assert code == 4
    assert "NOT GREEN" in out
    assert "[transfer.failed]" in out


def test_a_move_in_a_world_tells_its_end(tmp_path, capsys):
    code, out, err = run("migrate", "web", "b", "--world", world(tmp_path), capsys=capsys)
    assert code == 0
    assert "VM 'web' moved from a to b and runs there." in out
    assert "phase memory" in out
    assert "SIMULATED" in err


@pytest.mark.parametrize(("vm", "host", "id"), [("nobody", "b", "vm.unknown"), ("web", "a", "host.same")])
def test_what_the_checks_refuse_ends_with_3(vm, host, id, tmp_path, capsys):
    code, out, _ = run("migrate", vm, host, "--world", world(tmp_path), capsys=capsys)
    assert code == 3
    assert f"[{id}]" in out
    assert "mend:" in out


def test_json_is_one_line_and_nothing_else(tmp_path, capsys):
    code, out, _ = run("migrate", "web", "b", "--world", world(tmp_path), "--json", capsys=capsys)
    assert code == 0
    assert out.count("\n") == 1
    assert json.loads(out)["outcome"]["end"] == "completed"


def test_json_lines_end_with_the_outcome(tmp_path, capsys):
    _, out, _ = run("migrate", "web", "b", "--world", world(tmp_path), "--jsonl", capsys=capsys)
    rows = [json.loads(line) for line in out.splitlines()]
    assert rows[0]["kind"] == "started"
    assert [row["kind"] for row in rows].index("outcome") == len(rows) - 1
    assert rows[-1]["outcome"]["end"] == "completed"


def test_encryption_off_is_said_twice(tmp_path, capsys):
    _, out, _ = run("migrate", "web", "b", "--encryption", "off", "--world", world(tmp_path), capsys=capsys)
    assert out.count("OFF") == 2


@pytest.mark.error("world.invalid")
def test_a_world_that_is_not_there_ends_with_2(tmp_path, capsys):
    code, _, err = run("migrate", "web", "b", "--world", str(tmp_path / "none.toml"), capsys=capsys)
    assert code == 2
    assert "[world.invalid]" in err


@pytest.mark.error("vm.elsewhere")
def test_a_wrong_source_is_told_from_an_unknown_vm_and_is_not_believed(tmp_path, capsys):
    code, out, _ = run("migrate", "web", "a", "--source", "b", "--world", world(tmp_path), capsys=capsys)
    assert code == 3
    assert "it is on a. [vm.elsewhere]" in out.replace(" (seen at the source on host 'b')", "")
    assert "[vm.unknown]" not in out
    assert "runs on" not in out


@pytest.mark.parametrize("hand_over", ["strict", "delegated"])
def test_the_hand_over_that_was_chosen_is_what_is_done_and_told(tmp_path, capsys, hand_over):
    options = ["--world", world(tmp_path), "--hand-over", hand_over]
    code, out, _ = run("migrate", "web", "b", "--jsonl", *options, capsys=capsys)
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert lines[-1]["outcome"]["hand_over"] == hand_over
    kinds = {line["kind"] for line in lines}
    assert ("destination-arrived" in kinds) is (hand_over == "strict")
    assert "destination-ran" in kinds
    code, out, _ = run("check", "web", "b", *options, capsys=capsys)
    assert code == 0
    assert ["ok", "hand-over", hand_over] in [line.split() for line in out.splitlines()]
