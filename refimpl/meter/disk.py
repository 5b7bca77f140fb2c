"""The disk journal: is every block that the guest acknowledged on the storage, or a later one in its place?

The guest writes blocks of 4096 bytes round robin over the first slots of its disk, flushes, reads back, and only then
writes a `disk` line. A block (integers little-endian)::

    0   8  magic REFMBLK1
    8   8  boot id, six characters, two zero bytes
    16  8  write number, from 1 in each boot
    24  8  slot
    32  4  CRC-32 of the whole block with these four bytes 0
    36  4  zero
    40 16  the guest's marker with all its bits turned (all 1 when it has none)
    56     made from the write number

This reads the raw image on the storage, not what the guest sees. While the guest runs, one slot may change under the
reader: a block that looks wrong is read again a few times.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from refimpl.meter.lines import JoinedLog
from refimpl.meter.verdict import Figure, State, Verdict, not_measured

NAME = "disk"
BLOCK_BYTES = 4096
MAGIC = b"REFMBLK1"
_HEADER = struct.Struct("<8s6s2xQQII")
_ATTEMPTS = 3


class Finding(StrEnum):
    """What stands in a slot, compared with the newest acknowledged write there."""

    SAME = "same"
    LATER = "later"
    LOST = "lost"
    CORRUPT = "corrupt"


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """One acknowledged write: place of its boot in the order of boots, boot id, write number, slot, CRC-32."""

    order: int
    boot: str
    number: int
    slot: int
    crc: int


@dataclass(frozen=True, slots=True)
class Block:
    """The header of a block whose checksum is right."""

    boot: str
    number: int
    slot: int
    crc: int


def parse_block(data: bytes) -> Block | None:
    """Return what a block says of itself, None when it is not one of the guest's or its checksum is wrong."""
    if len(data) != BLOCK_BYTES:
        return None
    magic, boot, number, slot, crc, _ = _HEADER.unpack_from(data)
    if magic != MAGIC or zlib.crc32(data[:32] + bytes(4) + data[36:]) != crc:
        return None
    return Block(boot.decode("ascii", "replace"), number, slot, crc)


def newest_acknowledged(log: JoinedLog) -> dict[int, Acknowledged]:
    """Return the newest acknowledged write of each slot, over all boots."""
    newest: dict[int, Acknowledged] = {}
    for line in log.of_kind("disk"):
        number, slot, crc = int(line.fields[0]), int(line.fields[1]), int(line.fields[2], 16)
        found = Acknowledged(log.boots.index(line.boot), line.boot, number, slot, crc)
        present = newest.get(slot)
        if present is None or (found.order, found.number) > (present.order, present.number):
            newest[slot] = found
    return newest


def judge_block(data: bytes, wanted: Acknowledged, boots: tuple[str, ...]) -> Finding:
    """Compare what is in a slot with what was acknowledged there."""
    block = parse_block(data)
    if block is None or block.slot != wanted.slot:
        return Finding.CORRUPT
    if (block.boot, block.number) == (wanted.boot, wanted.number):
        return Finding.SAME if block.crc == wanted.crc else Finding.CORRUPT
    order = boots.index(block.boot) if block.boot in boots else -1
    return Finding.LATER if (order, block.number) > (wanted.order, wanted.number) else Finding.LOST


def disk_verdict(log: JoinedLog, image: Path, *, boot: str | None = None) -> Verdict:
    """Judge a raw image against the acknowledged writes; not measured when there are none or it cannot be read.

    Errors that the guest itself met (`disk-error`) are bad too. With `boot`, at least one write of that boot has to
    have been acknowledged.
    """
    newest = newest_acknowledged(log)
    acknowledged = len(log.of_kind("disk"))
    errors = log.of_kind("disk-error")
    if not errors and not log.of_kind("disk", boot=boot):
        return not_measured(NAME, "the guest acknowledged no write")
    try:
        with image.open("rb", buffering=0) as file:
            findings = {slot: _judge_slot(file.seek, file.read, a, log.boots) for slot, a in newest.items()}
    except OSError as exc:
        return not_measured(NAME, f"the image cannot be read: {exc}")
    lost = [slot for slot, finding in findings.items() if finding is Finding.LOST]
    corrupt = [slot for slot, finding in findings.items() if finding is Finding.CORRUPT]
    figures: dict[str, Figure] = {
        "acknowledged": acknowledged,
        "slots": len(newest),
        "lost": len(lost),
        "corrupt": len(corrupt),
        "guest_errors": len(errors),
    }
    faults = [_describe("lost", lost, newest), _describe("corrupt", corrupt, newest)]
    if errors:
        faults.append(f"{len(errors)} errors in the guest, the first: write {' '.join(errors[0].fields)}")
    text = "; ".join(filter(None, faults))
    if text:
        return Verdict(NAME, State.BAD, text, figures)
    return Verdict(NAME, State.OK, f"{acknowledged} writes acknowledged, all {len(newest)} slots right", figures)


def _judge_slot(
    seek: Callable[[int], int], read: Callable[[int], bytes | None], wanted: Acknowledged, boots: tuple[str, ...]
) -> Finding:
    finding = Finding.CORRUPT
    for _ in range(_ATTEMPTS):
        seek(wanted.slot * BLOCK_BYTES)
        finding = judge_block(read(BLOCK_BYTES) or b"", wanted, boots)
        if finding in (Finding.SAME, Finding.LATER):
            break
    return finding


def _describe(what: str, slots: list[int], newest: dict[int, Acknowledged]) -> str:
    if not slots:
        return ""
    first = newest[slots[0]]
    noun = "block" if len(slots) == 1 else "blocks"
    return f"{len(slots)} acknowledged {noun} {what}, the first is write {first.number} in slot {first.slot}"
