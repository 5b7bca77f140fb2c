"""The experiments: each takes its samples into the recorder and adds figures with their bounds.

Two sides of a pair move the same guest in turn, and who begins alternates, so that each goes in both directions equally
often. What both sides' times are made of are QEMU's events, heard by the same tap.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import Any

from refimpl.cli.operations import phases
from refimpl.guest import GuestParameters
from refimpl.lab import create
from refimpl.lab.layout import CACHE_VARIABLE
from refimpl.model.events import Kind
from refimpl.model.phase import Phase
from refimpl.model.request import PerformanceOption
from tests.bench.results import Figure, Recorder
from tests.bench.scene import IDLE, Moved, Scene, image_is_there, scene
from tests.bench.statistics import LEAST, ratios

KNOWN_HAND_OVER_MS = 15.0
"""What strict hand-over is known to cost more than plain libvirt's (ADR 0004)."""
LINK_MBIT_S = 100
LINK_BYTES_S = LINK_MBIT_S * 1e6 / 8
TEXT_MIB, TEXT_VM_MIB = 64, 128
PASS_LIMIT = 5
DIRTY_CASES = (
    ("a quarter of its memory", 128, 32, 3.0),
    ("all memory that it has to give", 256, 176, PASS_LIMIT + 1.0),
)
"""What is dirtied, of how many MiB, how many, and how many times memory ÷ link the move may take.

The built-in guest needs the rest for itself.
"""


@dataclass(frozen=True, slots=True)
class Bench:
    """What an experiment is given: how many pairs, where labs are made, and who keeps the samples."""

    pairs: int
    root: Path
    recorder: Recorder


Side = Callable[[Scene], Moved]


def pairs(bench: Bench, name: str, stage: Scene, ours: Side, theirs: Side) -> list[tuple[Moved, Moved]]:
    """Take pairs of moves; the first pair is not counted, as it finds everything cold."""
    found = []
    for number in range(bench.pairs + 1):
        sides = {"ours": ours, "theirs": theirs}
        order = ("ours", "theirs") if number % 2 else ("theirs", "ours")
        moved = {side: sides[side](stage) for side in order}
        for side in order:
            bench.recorder.sample(name, pair=number, side=side, counted=number > 0, **moved[side].to_json())
        if number:
            found.append((moved["ours"], moved["theirs"]))
            print(f"  {name}: pair {number} of {bench.pairs}", file=sys.stderr, flush=True)
    return found


def transfer(bench: Bench, encryption: bool) -> None:
    """Compare the product with `virsh migrate` with the same flags, and time the product's own CHECK and SETUP."""
    name = f"against virsh migrate, TCPIP, {'encrypted' if encryption else 'plain'}"
    with scene(bench.root, IDLE) as stage:
        found = pairs(
            bench,
            name,
            stage,
            lambda s: s.by_product(encryption=encryption),
            lambda s: s.by_virsh(encryption),
        )
    known = KNOWN_HAND_OVER_MS
    compared: Sequence[tuple[str, Callable[[Moved], float], float]] = (
        ("transfer begun to RESUME", lambda m: m.moments.transfer_ms, 0.0),
        (f"the same less the {known:.0f} ms of strict hand-over", lambda m: m.moments.transfer_ms, known),
        ("transfer begun to completed", lambda m: m.moments.to_completed_ms, 0.0),
    )
    for text, value, less_ms in compared:
        ratio = ratios((value(a) - less_ms, value(b)) for a, b in found)
        bound = None if text.endswith("begun to RESUME") else 1.05
        bench.recorder.add(name, Figure.of(f"{text}: refimpl ÷ virsh", ratio, at_most=bound))
    for side, index in (("refimpl", 0), ("virsh", 1)):
        moved = [pair[index] for pair in found]
        bench.recorder.add(
            name,
            Figure.of(f"transfer begun to RESUME, {side}", [m.moments.transfer_ms for m in moved], "ms"),
            Figure.of(f"completed to RESUME, {side}", [m.moments.hand_over_ms for m in moved], "ms"),
            Figure.of(f"blackout (STOP to RESUME), {side}", [m.moments.blackout_ms for m in moved], "ms"),
            Figure.of(f"of it STOP to device, {side}", [m.moments.to_device_ms for m in moved], "ms"),
            Figure.of(f"of it device to completed, {side}", [m.moments.device_ms for m in moved], "ms"),
            Figure.of(f"asked to RESUME, {side}", [m.from_ask_ms for m in moved], "ms"),
        )
    added = [a.moments.hand_over_ms - b.moments.hand_over_ms for a, b in found]
    bench.recorder.add(name, Figure.of("completed to RESUME, refimpl − virsh", added, "ms", at_most=known))
    for phase in (Phase.CHECK, Phase.SETUP):
        spent = [phase_ms(moved.events, phase) for moved, _ in found]
        bench.recorder.add(name, Figure.of(f"phase {phase}, refimpl", spent, "ms"))


def phase_ms(events: Sequence[Mapping[str, Any]], phase: str) -> float:
    """Return how long a move was in a phase, in ms."""
    return float(sum(row["ms"] for row in phases(events) if row["phase"] == phase and row["ms"] is not None))


def compression(bench: Bench) -> None:
    """Compare Compression with TCPIP on memory full of text-like content, over a shaped link: bytes and time."""
    name = f"Compression against TCPIP, {TEXT_MIB} MiB of text-like content, {LINK_MBIT_S} Mbit/s"
    guest = replace(IDLE, writer_working_set_mib=TEXT_MIB, writer_content="text", check_pages_per_s=4096)
    with scene(bench.root, guest, TEXT_VM_MIB, LINK_MBIT_S) as stage:
        found = pairs(
            bench,
            name,
            stage,
            lambda s: s.by_product(performance_option=PerformanceOption.COMPRESSION),
            lambda s: s.by_product(performance_option=PerformanceOption.TCPIP),
        )
    sent = ratios((a.payload_bytes, b.payload_bytes) for a, b in found)
    took = ratios((a.moments.transfer_ms, b.moments.transfer_ms) for a, b in found)
    bench.recorder.add(
        name,
        Figure.of("bytes on the link, Compression ÷ TCPIP", sent, at_most=0.45),
        Figure.of("transfer begun to RESUME, Compression ÷ TCPIP", took, at_most=0.5),
        Figure.of("bytes on the link, TCPIP", [b.payload_bytes / 2**20 for _, b in found], "MiB"),
        Figure.of("bytes on the link, Compression", [a.payload_bytes / 2**20 for a, _ in found], "MiB"),
        Figure.of("transfer begun to RESUME, TCPIP", [b.moments.transfer_ms for _, b in found], "ms"),
        Figure.of("transfer begun to RESUME, Compression", [a.moments.transfer_ms for a, _ in found], "ms"),
    )


def payload(bench: Bench) -> None:
    """Compare what an idle guest's move sends with what of its memory is resident and not zero, just before it."""
    name = "payload of an idle guest's move"
    with scene(bench.root, IDLE) as stage:
        for encryption in (True, False):
            found = []
            for _ in range(bench.pairs):
                held = stage.nonzero_bytes()
                moved = stage.by_product(encryption=encryption)
                found.append((float(moved.payload_bytes), float(held)))
                bench.recorder.sample(name, encryption=encryption, nonzero_bytes=held, **moved.to_json())
            text = "encrypted" if encryption else "plain"
            figure = Figure.of(f"TCP payload ÷ resident non-zero memory, {text}", ratios(found), at_most=1.10)
            held_mib = [held / 2**20 for _, held in found]
            bench.recorder.add(name, figure, Figure.of(f"resident non-zero memory, {text}", held_mib, "MiB"))
    bench.recorder.note(
        name,
        "Payload: counters of the source's migration links, less 66 bytes of headers for each packet that the kernel "
        "handed to the link. Resident and not zero: pages of 4 KiB of the guest's memory in its QEMU "
        "(`/proc/PID/pagemap`, `/proc/PID/mem`), counted just before the move.",
    )


def lab_up(bench: Bench) -> None:
    """Time each step of building a lab of two hosts, with empty caches and with full ones."""
    runs = max(LEAST, bench.pairs // 2)
    image_is_there()
    for state in ("cold", "warm"):
        name = f"lab of two hosts up, {state}"
        steps: dict[str, list[float]] = {}
        for number in range(runs):
            taken = _lab_steps(bench.root, cold=state == "cold")
            bench.recorder.sample(name, run=number, steps_s=taken)
            for step, took_s in {"all": sum(taken.values()), **taken}.items():
                steps.setdefault(step, []).append(took_s)
        for step, samples in steps.items():
            shares = [took / whole for took, whole in zip(samples, steps["all"], strict=True)]
            share = f" ({sorted(shares)[len(shares) // 2]:.0%})" if step != "all" else ""
            bound = 15.0 if step == "all" else None
            bench.recorder.add(name, Figure.of(f"{step}{share}", samples, "s", at_most=bound))
        what = "empty" if state == "cold" else "filled"
        bench.recorder.note(name, f"Packages in place, the cache directory {what}; the guest's image is no part of it.")


def _lab_steps(root: Path, *, cold: bool) -> dict[str, float]:
    steps: dict[str, float] = {}
    before = os.environ.get(CACHE_VARIABLE)
    with tempfile.TemporaryDirectory() as cache:
        if cold:
            os.environ[CACHE_VARIABLE] = cache
        try:
            lab = create("bench", root=root, on_step=lambda step, took_s: steps.update({step: took_s}))
        finally:
            if cold:
                os.environ.pop(CACHE_VARIABLE)
            if cold and before is not None:
                os.environ[CACHE_VARIABLE] = before
        lab.down()
    return steps


def convergence(bench: Bench) -> None:
    """Move a guest that dirties at twice the link's speed, a quarter of its memory and all that it can."""
    runs = max(LEAST, bench.pairs // 4)
    pages_s = round(2 * LINK_BYTES_S / 4096)
    for text, memory_mib, set_mib, bound in DIRTY_CASES:
        whole_s = memory_mib * 2**20 / LINK_BYTES_S
        name = f"guest that dirties {text} at twice the speed of a link of {LINK_MBIT_S} Mbit/s"
        guest = GuestParameters(
            heartbeat_period_ms=100,
            writer_rate_pages_per_s=pages_s,
            writer_working_set_mib=set_mib,
            writer_content="zero",
            check_pages_per_s=1,
            disk_period_ms=1000,
            disk_blocks=64,
        )
        with scene(bench.root, guest, memory_mib, LINK_MBIT_S) as stage:
            found = []
            for _ in range(runs):
                written = stage.dirty_mib_s()
                moved = stage.by_product(pass_limit=PASS_LIMIT)
                passes = sum(e["kind"] == Kind.PASS_ENDED for e in moved.events)
                bench.recorder.sample(name, dirty_mib_s=written, passes=passes, **moved.to_json())
                found.append((moved.moments.transfer_ms / 1000 / whole_s, written * 2**20 / LINK_BYTES_S))
        figure = Figure.of("transfer begun to RESUME ÷ (memory ÷ link)", [t for t, _ in found], at_most=bound)
        seen = Figure.of("dirtied in the second before the move, by QEMU's sampling ÷ link", [d for _, d in found])
        bench.recorder.add(name, figure, seen)
        bench.recorder.note(
            name,
            f"Working set {set_mib} of {memory_mib} MiB; the guest is told to write {pages_s} pages of 4 KiB a "
            f"second; pass limit {PASS_LIMIT}; memory ÷ link is {whole_s:.1f} s.",
        )


def start_up(bench: Bench) -> None:
    """Compare the processor time of `refimpl --help` with that of an interpreter that does nothing."""
    name = "refimpl --help"
    found = []
    for number in range(bench.pairs + 1):
        ours, empty = _cpu_s("-m", "refimpl", "--help"), _cpu_s("-c", "pass")
        if number:
            found.append((ours, empty))
            bench.recorder.sample(name, pair=number, help_s=ours, empty_s=empty)
    bench.recorder.add(
        name,
        Figure.of("processor time, refimpl --help ÷ empty interpreter", ratios(found), at_most=10.0),
        Figure.of("processor time, refimpl --help", [1000 * ours for ours, _ in found], "ms"),
        Figure.of("processor time, empty interpreter", [1000 * empty for _, empty in found], "ms"),
    )


def _cpu_s(*arguments: str) -> float:
    before = getrusage(RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True, timeout=60)
    after = getrusage(RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
