"""Building or removing a lab is killed at chosen places: reaping removes exactly what was made, look-alikes survive."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from refimpl.hosts.command import run_local
from refimpl.lab import LabState, create, leftovers, list_labs, reap
from tests.lab.lab_support import BUILD, DOWN, decoys, kill_at, link_names, state_directory

pytestmark = pytest.mark.lab

ID = "fade01"
BUILDING = (
    "directory.made",
    "directory",
    "init-program",
    "certificates",
    "files",
    "netns.announced",
    "netns.unidentified",
    "links.made",
    "networks",
    "init.announced",
    "init.unidentified",
    "hosts",
    "virtlockd.started",
    "virtlockd",
    "libvirtd.started",
    "libvirtd",
    "control-connections",
)
REMOVING = ("removing.processes-ended", "removing.networks-gone")


@pytest.fixture
def root() -> Iterator[Path]:
    with state_directory() as directory:
        yield directory


@pytest.mark.parametrize("stop", BUILDING)
def test_a_builder_killed_half_way_is_reaped_whole(root: Path, stop: str) -> None:
    with decoys(root, ID):
        kill_at(stop, BUILD, root, ID)
        assert [s.state for s in list_labs(root)] == [LabState.BROKEN]
        assert leftovers(ID, root)
        (removal,) = reap(root=root)
        assert removal.left_behind == ()
        assert leftovers(ID, root) == []
        assert reap(root=root) == ()


@pytest.mark.parametrize("stop", REMOVING)
def test_a_removal_killed_half_way_is_finished_by_reaping(root: Path, stop: str) -> None:
    create(root=root, new_id=lambda: ID)
    with decoys(root, ID):
        kill_at(stop, DOWN, root, ID)
        assert [s.state for s in list_labs(root)] == [LabState.BROKEN]
        assert leftovers(ID, root)
        reap(root=root)
        assert leftovers(ID, root) == []


def test_reaping_leaves_a_lab_that_is_in_use(root: Path) -> None:
    lab = create(root=root)
    kill_at("networks", "import sys,pathlib,refimpl.lab as l;l.create('x',root=pathlib.Path(sys.argv[1]))", root, ID)
    assert len(reap(root=root)) == 1
    assert all(s.healthy for s in lab.status())
    assert [s.id for s in list_labs(root)] == [lab.id]


def test_a_namespace_of_the_right_name_and_another_identity_is_reported_and_left(root: Path) -> None:
    kill_at("networks", BUILD, root, ID)
    name = f"refimpl-{ID}-h1"
    # Made before the other one goes, as otherwise the kernel may give it the same inode.
    assert run_local(["ip", "netns", "add", "refimpl-test-stranger"]).status == 0
    for command in (["delete", name], ["attach", name, ""], ["delete", "refimpl-test-stranger"]):
        if command[0] == "attach":
            replaced = ["mount", "--bind", "/run/netns/refimpl-test-stranger", f"/run/netns/{name}"]
            Path(f"/run/netns/{name}").touch()
            assert run_local(replaced).status == 0
        else:
            assert run_local(["ip", "netns", *command]).status == 0
    (removal,) = reap(root=root)
    assert [(item.kind, item.name) for item in removal.left_behind] == [("network namespace", name)]
    assert link_names(name) == {"lo"}
    assert set(leftovers(ID, root)) == {f"network namespace {name}", f"directory {root / ID}"}
    assert run_local(["ip", "netns", "delete", name]).status == 0
    (removal,) = reap(root=root)
    assert removal.left_behind == ()
    assert leftovers(ID, root) == []


def test_a_namespace_that_was_only_announced_is_taken_only_while_it_is_empty(root: Path) -> None:
    kill_at("netns.announced", BUILD, root, ID)
    name = f"refimpl-{ID}-sw"
    assert run_local(["ip", "netns", "add", name]).status == 0
    assert run_local(["ip", "-n", name, "link", "add", "mine0", "type", "bridge"]).status == 0
    (removal,) = reap(root=root)
    assert [item.name for item in removal.left_behind] == [name]
    assert "mine0" in link_names(name)
    assert run_local(["ip", "-n", name, "link", "delete", "mine0"]).status == 0
    (removal,) = reap(root=root)
    assert removal.left_behind == ()
    assert leftovers(ID, root) == []


def test_a_namespace_that_the_lab_never_announced_is_left_whatever_its_name(root: Path) -> None:
    create(root=root, new_id=lambda: ID)
    stranger = f"refimpl-{ID}-h9"
    assert run_local(["ip", "netns", "add", stranger]).status == 0
    try:
        reap((ID,), root)
        assert leftovers(ID, root) == [f"network namespace {stranger}"]
    finally:
        assert run_local(["ip", "netns", "delete", stranger]).status == 0


def test_a_stranger_inside_a_namespace_of_the_lab_is_reported_and_lives(root: Path) -> None:
    lab = create(root=root, new_id=lambda: ID)
    command = [*lab.conductor_command(), "sh", "-c", "echo in; exec cat"]
    stranger = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert stranger.stdout is not None
        assert stranger.stdout.readline() == "in\n"
        removal = lab.down()
        assert ("process", str(stranger.pid)) in [(i.kind, i.name) for i in removal.left_behind]
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.communicate()
    reap(root=root)
    assert leftovers(ID, root) == []
