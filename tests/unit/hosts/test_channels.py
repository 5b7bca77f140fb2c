"""Programs run and files replaced here, the channel to a host of namespaces, links below another root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from refimpl.hosts import process
from refimpl.hosts.command import replace_file, run_local
from refimpl.hosts.factory import channel_for
from refimpl.hosts.namespace import NamespaceChannel, _resolve
from refimpl.model.group import ChannelSpec, HostEntry, ProcessRef


def host(channel: ChannelSpec) -> HostEntry:
    return HostEntry("h1", "u", "control", "peer", "10.90.0.11", (), 1024, channel)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    (tmp_path / "run/libvirt").mkdir(parents=True)
    (tmp_path / "run/libvirt/vm.xml").write_text("inside")
    (tmp_path / "var").mkdir()
    (tmp_path / "var/run").symlink_to("/run")
    (tmp_path / "var/up").symlink_to("../../../run/libvirt")
    (tmp_path / "loop").symlink_to("/loop")
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor, tmp_path
    os.close(descriptor)


def test_a_command_gives_status_and_both_outputs() -> None:
    done = run_local(["sh", "-c", "cat; echo err >&2; exit 3"], stdin="in")
    assert (done.status, done.stdout, done.stderr) == (3, "in", "err\n")


def test_without_input_a_command_reads_nothing() -> None:
    assert run_local(["cat"]).stdout == ""


def test_a_command_that_takes_too_long_is_a_timeout() -> None:
    with pytest.raises(TimeoutError):
        run_local(["sleep", "60"], timeout_s=0.01)


def test_a_program_that_does_not_exist_is_an_oserror() -> None:
    with pytest.raises(OSError):
        run_local(["/nonexistent/program"])


def test_a_file_is_replaced_whole_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("old and much longer")
    replace_file(path, b"new", 0o600)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["key"]


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError):
        replace_file(tmp_path / "taken", b"x", 0o600)
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


def test_links_are_followed_as_the_host_would(root: tuple[int, Path]) -> None:
    assert _resolve(root[0], "/var/run/libvirt/vm.xml") == "run/libvirt/vm.xml"
    assert _resolve(root[0], "/var/up/vm.xml") == "run/libvirt/vm.xml"
    assert _resolve(root[0], "/../../run/./libvirt") == "run/libvirt"
    assert _resolve(root[0], "/run/libvirt/not-there") == "run/libvirt/not-there"
    assert _resolve(root[0], "/") == "."


def test_a_circle_of_links_is_an_error(root: tuple[int, Path]) -> None:
    with pytest.raises(OSError, match="symbolic links"):
        _resolve(root[0], "/loop/x")


def test_a_relative_path_is_a_mistake_of_the_caller(root: tuple[int, Path]) -> None:
    with pytest.raises(ValueError):
        _resolve(root[0], "run/libvirt")


def test_a_host_whose_init_has_ended_is_down() -> None:
    ended = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    ref = process.here(ended.pid)
    ended.communicate()
    channel = NamespaceChannel(ref)
    for use in (
        lambda: channel.run(["true"]),
        lambda: channel.read("/etc/hostname"),
    ):
        with pytest.raises(OSError, match="host is down"):
            use()
    assert channel.outer_pid(1) is None


def test_a_reused_pid_is_not_taken_for_the_host() -> None:
    me = process.here(os.getpid())
    stranger = ProcessRef(me.pid, me.start_ticks - 1, me.boot_id)
    with pytest.raises(OSError, match="host is down"):
        NamespaceChannel(stranger).read("/etc/hostname")


def test_the_channel_follows_from_the_description() -> None:
    init = ChannelSpec("namespace", process.here(os.getpid()))
    assert isinstance(channel_for(host(init)), NamespaceChannel)


def test_a_kind_of_channel_that_is_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="h1"):
        channel_for(host(ChannelSpec("telepathy", process.here(os.getpid()))))
