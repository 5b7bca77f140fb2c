"""The socket of a conductor: every follower gets every event and the outcome; a cancel reaches the conductor."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from refimpl.app.control import ControlServer, EventLog, ask_bandwidth, ask_cancel, follow
from refimpl.model.events import Kind
from tests.builders import event


def no_wish(kind: Kind, values: object) -> None:
    raise AssertionError(f"{kind} was wished")


def test_followers_get_everything_in_order(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    log = EventLog(['{"kind": "earlier"}'])
    server = ControlServer(deep / "socket", log, no_wish)
    got: list[list[object]] = [[], []]

    def read(number: int) -> None:
        got[number] = list(follow(deep / "socket"))

    followers = [threading.Thread(target=read, args=(n,)) for n in range(2)]
    for one in followers:
        one.start()
    log.append(event(Kind.MEMORY_SEEN))
    log.append(event(Kind.SWITCH_SEEN))
    log.close({"end": "completed"})
    for one in followers:
        one.join(20)
    server.stop()
    kinds = [[m.get("event", {}).get("kind") for m in one if "event" in m] for one in got]  # type: ignore[attr-defined]
    assert kinds == [["earlier", "memory-seen", "switch-seen"]] * 2
    assert got[0][-1] == {"outcome": {"end": "completed"}}
    assert [m["seq"] for m in got[1][:-1]] == [1, 2, 3]  # type: ignore[index]


def test_a_conductor_that_fails_does_not_keep_its_followers(tmp_path: Path) -> None:
    log = EventLog()
    server = ControlServer(tmp_path / "socket", log, no_wish)
    got: list[object] = []
    follower = threading.Thread(target=lambda: got.extend(follow(tmp_path / "socket")))
    follower.start()
    log.append(event(Kind.MEMORY_SEEN))
    log.close()
    log.close({"end": "too late to count"})
    follower.join(20)
    server.stop()
    assert len(got) == 1


def test_wishes_reach_the_conductor(tmp_path: Path) -> None:
    wished: list[tuple[Kind, dict[str, Any]]] = []
    server = ControlServer(tmp_path / "socket", EventLog(), lambda kind, values: wished.append((kind, dict(values))))
    ask_cancel(tmp_path / "socket")
    ask_bandwidth(tmp_path / "socket", 20)
    assert wished == [(Kind.CANCEL_WISHED, {}), (Kind.BANDWIDTH_WISHED, {"mib_s": 20})]
    server.stop()


def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        ask_cancel(tmp_path / "socket")


def test_nonsense_is_dropped_and_the_server_goes_on(tmp_path: Path) -> None:
    import socket

    wished: list[Kind] = []
    server = ControlServer(tmp_path / "socket", EventLog(), lambda kind, _: wished.append(kind))
    speeds = [b'{"do": "bandwidth", "mib_s": %s}\n' % mib_s for mib_s in (b"-1", b'"x"', b"true", b"1" + 30 * b"0")]
    for nonsense in (b"not json\n", b"[]\n", *speeds):
        with socket.socket(socket.AF_UNIX) as rude:
            rude.connect(str(tmp_path / "socket"))
            rude.sendall(nonsense)
            assert rude.recv(100) == b""
    ask_cancel(tmp_path / "socket")
    assert wished == [Kind.CANCEL_WISHED]
    server.stop()


def test_a_socket_that_can_be_seen_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    genuine = ControlServer.server_activate

    def slowly(server: ControlServer) -> None:
        seen.append((tmp_path / "socket").exists())
        genuine(server)

    monkeypatch.setattr(ControlServer, "server_activate", slowly)
    server = ControlServer(tmp_path / "socket", EventLog(), lambda kind, values: None)
    assert seen == [False]
    ask_cancel(tmp_path / "socket")
    server.stop()
    assert [path.name for path in tmp_path.iterdir()] == ["socket"]
