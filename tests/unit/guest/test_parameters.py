from __future__ import annotations

import re
from pathlib import Path

import pytest

import refimpl.guest
from refimpl.guest import GuestParameters, least_memory_mib

SOURCE = (Path(refimpl.guest.__file__).parent / "init.c").read_text()


def test_the_program_reads_every_name_that_is_written_and_no_other():
    full = GuestParameters(address="10.0.0.2/24", observer_address="10.0.0.1", marker="0f" * 16)
    read = set(re.findall(r'parameter\("(\w+)"', SOURCE))
    assert set(full.values()) == read


def test_the_command_line_carries_the_values():
    text = GuestParameters(address="10.9.0.2/16", writer_content="random", heartbeat_period_ms=1).command_line()
    words = text.split()
    for word in (
        "refimpl.address=10.9.0.2",
        "refimpl.netmask=255.255.0.0",
        "refimpl.content=random",
        "refimpl.beat_ms=1",
    ):
        assert word in words
    assert not any("observer" in word for word in words)


@pytest.mark.parametrize(
    "values",
    [
        {"heartbeat_period_ms": 0},
        {"writer_rate_pages_per_s": -1},
        {"writer_content": "noise"},
        {"address": "somewhere"},
        {"observer_address": "10.0.0.0/8"},
        {"disk_blocks": 0},
        {"marker": "0F" * 16},
        {"marker": "0f"},
    ],
)
def test_wrong_values_are_refused(values):
    with pytest.raises(ValueError):
        GuestParameters(**values)


@pytest.mark.parametrize(
    ("memory_mib", "working_set_mib", "works"),
    [(96, 16, True), (128, 64, True), (256, 176, True), (128, 72, False), (256, 192, False), (95, 1, False)],
)
def test_the_least_memory_fits_what_was_seen_to_work_and_to_end(
    memory_mib: int, working_set_mib: int, works: bool
) -> None:
    assert (least_memory_mib(working_set_mib) <= memory_mib) == works
