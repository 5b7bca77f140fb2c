"""The world file: what it may hold, and that whatever is wrong is said with its key path."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from refimpl.backends.simulated import default_world, load_world, parse_world
from refimpl.model.errors import RefimplError
from refimpl.model.phase import ExitCode

WORLD = """
schema = 1
seed = 7
jitter = 0.1
[hosts.a]
memory_mib = 2048
networks = { lm = "192.0.2.1" }
[hosts.b]
memory_mib = 2048
networks = { lm = "192.0.2.2" }
[networks.lm]
bytes_s = 1_000_000
[[vms]]
name = "web"
id = "1"
host = "a"
memory_mib = 256
dirty_bytes_s = [[0, 0], [2.5, 1000]]
[[faults]]
kind = "host-dies"
host = "b"
during = "memory"
"""


def good() -> dict[str, Any]:
    import tomllib

    return tomllib.loads(WORLD)


def test_a_world_from_toml_and_from_json_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "w.toml").write_text(WORLD)
    (tmp_path / "w.json").write_text(json.dumps(good()))
    world = load_world(tmp_path / "w.toml")
    assert world == load_world(tmp_path / "w.json")
    assert world.vms[0].dirty_bytes_s == ((0.0, 0), (2.5, 1000))


def test_the_built_in_world_is_valid() -> None:
    world = default_world()
    assert set(world.hosts) == {"a", "b"}
    assert [vm.host for vm in world.vms] == ["a"]


@pytest.mark.error("world.invalid")
@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("hosts.a.memory_mib", lambda w: w["hosts"]["a"].update(memory_mib=-1)),
        ("hosts.a.colour", lambda w: w["hosts"]["a"].update(colour="red")),
        ("hosts", lambda w: w.pop("hosts")),
        ("vms.0.host", lambda w: w["vms"][0].update(host="c")),
        ("hosts.b.networks", lambda w: w["hosts"]["b"].update(networks={"other": "192.0.2.2"})),
        ("vms.0", lambda w: w["vms"][0].update(dirty_bytes_s=[[5, 1], [1, 1]])),
        ("faults.0.host", lambda w: w["faults"][0].update(host="c")),
        ("faults.0", lambda w: w["faults"][0].update(during=None)),
        ("faults.0", lambda w: w["faults"][0].update(host=None)),
        ("faults.0", lambda w: w["faults"][0].update(kind="prepare-fails")),
        ("faults.0.kind", lambda w: w["faults"][0].update(kind="earthquake")),
        ("jitter", lambda w: w.update(jitter=1)),
        ("schema", lambda w: w.update(schema=2)),
        ("hand_over", lambda w: w.update(hand_over="opaque")),
        ("vms", lambda w: w["vms"].append(w["vms"][0])),
    ],
)
def test_what_is_wrong_is_said_with_its_key(key: str, change: Any) -> None:
    world = good()
    change(world)
    with pytest.raises(RefimplError) as caught:
        parse_world(world, "w.toml")
    problem = caught.value.problems[0]
    assert problem.id == "world.invalid"
    assert key in problem.text
    assert "w.toml" in problem.text
    assert caught.value.exit_code is ExitCode.USAGE


def test_all_that_is_wrong_is_said_at_once() -> None:
    world = good()
    world["jitter"], world["vms"][0]["memory_mib"] = 5, "much"
    with pytest.raises(RefimplError) as caught:
        parse_world(world)
    assert [p.values["key"] for p in caught.value.problems] == ["jitter", "vms.0.memory_mib"]


@pytest.mark.parametrize(("name", "text"), [("w.toml", "hosts = ["), ("w.json", "{"), ("w.toml", None)])
def test_a_file_that_cannot_be_read_is_said(tmp_path: Path, name: str, text: str | None) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    with pytest.raises(RefimplError) as caught:
        load_world(path)
    assert caught.value.problems[0].values["file"] == str(path)
