from __future__ import annotations

from pathlib import Path

import pytest

from refimpl.guest.tamper import flip_in_file
from refimpl.meter.disk import BLOCK_BYTES, disk_verdict
from refimpl.meter.lines import JoinedLog
from refimpl.meter.verdict import State
from tests.unit.meter.guest_lines import BOOT, block, block_crc, log_of, said

SLOTS = 4


def acknowledged(last: int) -> list[str]:
    return [f"disk {n} {(n - 1) % SLOTS} {block_crc(block(n, (n - 1) % SLOTS)):08x}" for n in range(1, last + 1)]


@pytest.fixture
def log() -> JoinedLog:
    return log_of(a=said("boot time_s=100", *acknowledged(10)))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """What is on the storage after ten writes to four slots."""
    path = tmp_path / "disk.raw"
    path.write_bytes(b"".join(block(number, (number - 1) % SLOTS) for number in (9, 10, 7, 8)))
    return path


def put(image: Path, slot: int, data: bytes) -> None:
    with image.open("r+b") as file:
        file.seek(slot * BLOCK_BYTES)
        file.write(data)


def test_all_acknowledged_blocks_there_is_ok(log, image):
    verdict = disk_verdict(log, image)
    assert (verdict.state, verdict.figures["acknowledged"], verdict.figures["slots"]) == (State.OK, 10, 4)


@pytest.mark.parametrize("offset", [0, 9, 20, 26, 33, 100, BLOCK_BYTES - 1])
def test_one_bit_anywhere_in_a_block_is_found(log, image, offset):
    flip_in_file(image, 2 * BLOCK_BYTES + offset, mask=1)
    verdict = disk_verdict(log, image)
    assert (verdict.state, verdict.figures["corrupt"], verdict.figures["lost"]) == (State.BAD, 1, 0)
    assert "write 7 in slot 2" in verdict.text


def test_an_older_block_in_place_of_an_acknowledged_one_is_lost(log, image):
    put(image, 0, block(5, 0))
    verdict = disk_verdict(log, image)
    assert (verdict.state, verdict.figures["lost"], verdict.figures["corrupt"]) == (State.BAD, 1, 0)


def test_a_later_block_that_is_not_acknowledged_yet_is_right(log, image):
    put(image, 2, block(11, 2))
    assert disk_verdict(log, image).state is State.OK


def test_a_whole_block_in_the_wrong_slot_is_corrupt(log, image):
    put(image, 1, block(9, 0))
    assert disk_verdict(log, image).figures["corrupt"] == 1


def test_an_image_that_ends_too_early_is_corrupt(log, image):
    image.write_bytes(image.read_bytes()[: 3 * BLOCK_BYTES])
    assert disk_verdict(log, image).figures["corrupt"] == 1


def test_writes_of_a_new_boot_take_the_place_of_the_old_ones(image):
    again = said("boot time_s=200", f"disk 1 0 {block_crc(block(1, 0, 'ffffff')):08x}", boot="ffffff")
    log = log_of(a=said("boot time_s=100", *acknowledged(10)), b=again)
    assert disk_verdict(log, image).figures["lost"] == 1
    put(image, 0, block(1, 0, "ffffff"))
    assert disk_verdict(log, image).state is State.OK


def test_the_guest_s_own_errors_are_bad(image):
    log = log_of(a=said(*acknowledged(10), "disk-error 11 2 differs"))
    verdict = disk_verdict(log, image)
    assert (verdict.state, verdict.figures["guest_errors"]) == (State.BAD, 1)


def test_nothing_acknowledged_or_no_image_is_not_measured(log, image, tmp_path):
    assert disk_verdict(log_of(a=said("beat 1")), image).state is State.NOT_MEASURED
    assert disk_verdict(log, tmp_path / "absent").state is State.NOT_MEASURED
    assert disk_verdict(log, image, boot="ffffff").state is State.NOT_MEASURED
    assert disk_verdict(log, image, boot=BOOT).state is State.OK
