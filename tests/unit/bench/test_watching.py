"""What is read of a move from outside: QEMU's events by host and time, payload of a link, memory that is not zero."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

import pytest

from refimpl.backends.libvirt.watch import NativeEvent
from refimpl.model.group import ChannelSpec, HostEntry, ProcessRef
from tests.bench import watching
from tests.bench.watching import moments, nonzero_bytes, sent_payload_bytes

MS = 1_000_000


def qmp(name: str, at_ms: int, status: str = "") -> NativeEvent:
    return NativeEvent("qmp", at_ms * MS, name=name, details={"status": status} if status else {})


SOURCE = [
    qmp("MIGRATION", 10, "setup"),
    qmp("MIGRATION", 12, "active"),
    qmp("STOP", 200),
    qmp("MIGRATION", 203, "device"),
    qmp("MIGRATION", 300, "completed"),
]
DESTINATION = [qmp("MIGRATION", 301, "completed"), qmp("RESUME", 320)]


def test_the_moments_are_those_of_the_side_that_says_them():
    found = moments(SOURCE, DESTINATION, 0)
    assert found is not None
    assert (found.transfer_ms, found.to_completed_ms) == (310.0, 290.0)
    assert (found.blackout_ms, found.hand_over_ms) == (120.0, 20.0)
    assert (found.to_device_ms, found.device_ms) == (3.0, 97.0)


def test_events_of_an_earlier_move_do_not_count():
    again = [qmp(e.name, e.at_ns // MS + 1000, str(e.details.get("status", ""))) for e in SOURCE]
    assert moments([*SOURCE, *again], DESTINATION, 500 * MS) is None
    found = moments([*SOURCE, *again], [*DESTINATION, qmp("RESUME", 1350)], 500 * MS)
    assert found is not None
    assert found.transfer_ms == 340.0


@pytest.mark.parametrize("missing", range(5))
def test_without_one_of_them_there_is_no_figure(missing):
    wanted = [SOURCE[0], *SOURCE[2:], DESTINATION[1]]
    del wanted[missing]
    assert moments([e for e in wanted if e.name != "RESUME"], [e for e in wanted if e.name == "RESUME"], 0) is None


def test_payload_is_what_the_migration_links_sent_less_headers(monkeypatch, tmp_path):
    (tmp_path / "net").mkdir()
    row = "{}: 9 9 0 0 0 0 0 0 {} {} 0 0 0 0 0 0"
    rows = ["a", "b", row.format("mig0", 1000, 5), row.format("mig1", 200, 1), row.format("mgmt0", 10**6, 1)]
    (tmp_path / "net/dev").write_text("\n".join(rows))
    monkeypatch.setattr(watching, "Path", lambda text: tmp_path / "net/dev" if text.endswith("net/dev") else Path(text))
    host = HostEntry("h1", "u", "c", "p", "m", (), 1, ChannelSpec("namespace", ProcessRef(1, 1, "b")))
    assert sent_payload_bytes(host) == 1200 - 6 * watching.HEADER_BYTES


def test_memory_that_was_never_touched_or_holds_zeros_does_not_count():
    size_mib = 37  # as large as no other mapping of this process is likely to be
    memory = mmap.mmap(-1, (size_mib << 20) + 8192, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    # Other protections at its ends make it a mapping of exactly its size, as QEMU's is.
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(ctypes.c_void_p(begin), 4096, 0) == 0
    assert libc.mprotect(ctypes.c_void_p(begin + 4096 + (size_mib << 20)), 4096, 0) == 0
    memory[4096 + 10 * 4096] = 1
    memory[4096 + 20 * 4096 + 4095] = 1
    memory[4096 + 30 * 4096] = 0
    assert nonzero_bytes(os.getpid(), size_mib) == 2 * 4096
    with open("/proc/self/pagemap", "rb") as map:
        map.seek((begin // 4096 + 1 + 40) * 8)
        never_touched = int.from_bytes(map.read(8), "little")
    assert never_touched >> 63 == 0, "looking must not make memory resident"
