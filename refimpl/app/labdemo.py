"""The demo in a lab of its own: it touches no other lab, and takes its own away however it ends."""

from __future__ import annotations

import contextlib
import secrets
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import TypeVar

from refimpl.app.accelerator import Accelerator, choose
from refimpl.app.backends import backend_for
from refimpl.app.demo import DemoReport, Teller, WatchedMove, follow
from refimpl.app.home import Home
from refimpl.app.machine import machine
from refimpl.app.observed import BEATS_BEFORE, wait_for_work
from refimpl.app.report import operation_report
from refimpl.app.vms import VmDesk
from refimpl.app.watched import Subject, subject_of, watching
from refimpl.guest import GuestParameters, build
from refimpl.hosts import netns
from refimpl.lab import Lab, create, leftovers
from refimpl.lab.layout import state_root
from refimpl.lab.shelf import require
from refimpl.lab.steps import Steps
from refimpl.lab.wish import Wish
from refimpl.model.errors import Problem, RefimplError
from refimpl.model.group import Group
from refimpl.model.request import MigrationRequest, PerformanceOption

VM = "demo"
MEMORY_MIB = 128
HOST_MEMORY_MIB = 512
GUEST = GuestParameters(writer_working_set_mib=8, writer_rate_pages_per_s=500, disk_period_ms=50, disk_blocks=64)
MODES = tuple((option, encryption) for option in PerformanceOption for encryption in (True, False))
"""Every way in which memory can go: performance option, and whether it is encrypted."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Scene:
    """The lab, and what is known of the VM in it."""

    lab: Lab
    home: Home
    subject: Subject


def lab_demo(teller: Teller, *, keep: bool = False, quick: bool = False) -> DemoReport:
    """Run the whole demo, in every mode there and back; `quick`: in one, as a host is set.

    RefimplError and LabError when it cannot come to its end; the lab is gone all the same.
    """
    teller.say("measuring this machine")
    report = DemoReport("libvirt", machine())
    watch = Steps(partial(_step, report, teller))
    teller.say(report.machine.text)
    require(Wish(VM), state_root())
    with watch.step("guest image"):
        build()
    with watch.step("accelerator"):
        accelerator = choose("auto")
    report.accelerator = f"{accelerator.name}: {accelerator.why}"
    teller.say(f"accelerator {report.accelerator}")
    with _ends_like_ctrl_c(), _lab(report, watch, teller, keep) as lab:
        scene = _scene(lab, accelerator, watch, teller)
        first, second = (host.name for host in lab.group.hosts)
        modes = ((None, True),) if quick else MODES
        ways = [(mode, way) for mode in modes for way in ((first, second), (second, first))]
        report.planned = len(ways)
        for (option, encryption), (source, destination) in ways:
            request = MigrationRequest(VM, destination, source, encryption, option)
            move = _move(scene, request, source, watch, teller)
            report.moves.append(move)
            if not move.outcome.completed:
                break
    return report


def _step(report: DemoReport, teller: Teller, name: str, took_s: float) -> None:
    report.steps[name] = report.steps.get(name, 0.0) + took_s
    teller.step(name, took_s)


@contextlib.contextmanager
def _lab(report: DemoReport, watch: Steps, teller: Teller, keep: bool) -> Iterator[Lab]:
    name = f"demo-{secrets.token_hex(2)}"
    teller.say(f"lab {name!r}: two hosts out of nothing, each with a libvirt of its own")
    with watch.step("lab up"):
        lab = create(name, 2, HOST_MEMORY_MIB)
    report.lab = lab.id
    try:
        yield lab
    finally:
        if keep:
            report.left = None
            teller.say(f"lab {name!r} is kept: refimpl lab status {name}; take it away with refimpl lab down {name}")
            teller.say(f"its moves: REFIMPL_HOME={_home(lab).path} refimpl operations list")
        else:
            with _uninterrupted(), watch.step("lab down"):
                removal = lab.down()
                report.left = [f"{x.kind} {x.name}: {x.reason}" for x in removal.left_behind] + leftovers(lab.id)


def _scene(lab: Lab, accelerator: Accelerator, watch: Steps, teller: Teller) -> _Scene:
    group = lab.group
    teller.say(f"VM {VM!r} on host {group.hosts[0].name}: writes memory and disk blocks, sends heartbeats")
    with watch.step("guest up"):
        subject = _in_a_process(_make_vm, group, accelerator.name)
        assert subject.probe is not None
        wait_for_work(VM, subject.probe.files)
    return _Scene(lab, _home(lab), subject)


def _home(lab: Lab) -> Home:
    """Return a home inside the lab's own directory: the demo leaves no trace in the user's."""
    return Home(lab.paths.directory / "home")


def _make_vm(group: Group, accelerator: str) -> Subject:
    """Make and start the VM. Runs in a process of its own, which alone is in the lab's network and ends with it."""
    if group.management_netns is not None:
        netns.enter(group.management_netns)
    backend = backend_for(group, lambda _: None)
    try:
        desk = VmDesk(group, backend)
        host = group.hosts[0].name
        desk.create(VM, host, memory_mib=MEMORY_MIB, accelerator=accelerator, parameters=GUEST)
        desk.start(VM)
        return subject_of(group, VM)
    finally:
        backend.close()


def _in_a_process(work: Callable[[Group, str], T], group: Group, accelerator: str) -> T:
    spawn, deaf = get_context("spawn"), (signal.SIGINT, signal.SIG_IGN)
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn, initializer=signal.signal, initargs=deaf) as pool:
        result = pool.submit(_caught, work, group, accelerator).result()
    if isinstance(result, _Failed):
        raise RefimplError(*result.problems)
    return result


@dataclass(frozen=True, slots=True)
class _Failed:
    problems: tuple[Problem, ...]


def _caught(work: Callable[[Group, str], T], group: Group, accelerator: str) -> T | _Failed:
    try:
        return work(group, accelerator)
    except RefimplError as failure:
        return _Failed(failure.problems)


def _move(scene: _Scene, request: MigrationRequest, source: str, watch: Steps, teller: Teller) -> WatchedMove:
    destination, option = request.destination, request.performance_option
    mode = f"{option or 'as the host is set'}, {'encrypted' if request.encryption else 'plain'}"
    with contextlib.ExitStack() as observers:
        with watch.step(f"{BEATS_BEFORE} heartbeats before the move"):
            prepared = observers.enter_context(watching(scene.lab, scene.home, scene.subject))
        teller.say(f"move of VM {VM!r} from host {source} to host {destination} ({mode})")
        with watch.step(f"move {source} to {destination} ({mode})"):
            operation = prepared.start(request)
            outcome, _ = follow(operation, teller)
        if outcome.completed:
            teller.say("observers: heartbeats, disk blocks, the guest's check of its memory, TCP stream, switch, wire")
        with watch.step(f"observers after {source} to {destination} ({mode})"):
            verdicts = operation.verdicts()
        page = operation_report(scene.home.find(operation.id))
        return WatchedMove(source, destination, outcome, verdicts, page)


@contextlib.contextmanager
def _ends_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the demo as Ctrl-C does: with everything taken away."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let no signal of a person stop what is done inside."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
