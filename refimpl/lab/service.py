"""Processes of a lab that belong to no host, such as the DHCP service of its VM network: they end with the lab.

Each is announced in the lab's registry before it is started, identified there afterwards, and carries the lab's id in
its environment, so that whoever takes the lab away finds it by what it is and never by its name.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from refimpl.hosts import process
from refimpl.hosts.lock import locked
from refimpl.hosts.namespace import enter_network
from refimpl.hosts.stops import stop_point
from refimpl.lab import layout
from refimpl.lab.errors import LabError
from refimpl.lab.layout import LabPaths
from refimpl.lab.registry import Identity, Item, Kind, Registry
from refimpl.lab.tools import lab_environment
from refimpl.model.group import ProcessRef

INHERITED = 3
"""The number under which a service finds the one descriptor that it was given."""
_LAST_LINES = 3


@dataclass(frozen=True, slots=True)
class Services:
    """Starts, finds and ends the services of one lab. They run in its management network, which sees the VM network."""

    paths: LabPaths

    @property
    def directory(self) -> Path:
        """Where services keep their files and logs, below the lab's own directory."""
        return self.paths.directory / "services"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let nobody else start or end services inside, and the lab not be removed.

        LabError `lab.busy` while the lab is being removed, `lab.unfinished` when a removal of it was begun.
        """
        with self._lab_stays():
            self.directory.mkdir(mode=0o755, exist_ok=True)
            with locked(self.directory / "lock"):
                yield

    def find(self, name: str) -> ProcessRef | None:
        """Return the service of that name if it runs."""
        entries = [e for e in Registry(self.paths.registry).read().of(Kind.SERVICE) if e.item.name == name]
        refs = [as_process(identity) for entry in entries for identity in entry.identities]
        return next((ref for ref in reversed(refs) if process.alive(ref)), None)

    def start(self, name: str, command: Sequence[str], *, log: Path, inherited: int | None = None) -> ProcessRef:
        """Start a service that outlives this process, with one descriptor of ours if one is named; call it `held`.

        LabError `lab.service_failed` when it ends at once.
        """
        registry, item = Registry(self.paths.registry), Item(Kind.SERVICE, name)
        registry.announce([item])
        stop_point("service.announced")
        whole = [*enter_network(layout.netns_name(self.paths.id, layout.CONDUCTOR)), *command]
        pid = _spawn(whole, self.paths.id, log, inherited)
        try:
            ref = process.here(pid)
        except ProcessLookupError:
            raise self.failed(name, log) from None
        identity: Identity = {"pid": ref.pid, "start_ticks": ref.start_ticks, "boot_id": ref.boot_id}
        registry.made({item: identity})
        return ref

    def stop(self, name: str) -> bool:
        """End a service at once; False when it did not run."""
        found = self.find(name)
        return found is not None and process.kill(found)

    def failed(self, name: str, log: Path) -> LabError:
        """Return the error of a service that did not come up, with the last that it said."""
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        said = "\n".join(line for line in lines[-_LAST_LINES:] if line) or "nothing"
        return LabError("lab.service_failed", service=name, said=said)

    @contextlib.contextmanager
    def _lab_stays(self) -> Iterator[None]:
        try:
            descriptor = os.open(self.paths.lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise LabError("lab.unfinished", lab=self.paths.id, lab_id=self.paths.id) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if "removing" in Registry(self.paths.registry).read().notes:
                raise LabError("lab.unfinished", lab=self.paths.id, lab_id=self.paths.id)
            yield
        except BlockingIOError as error:
            raise LabError("lab.busy", lab_id=self.paths.id) from error
        finally:
            os.close(descriptor)


def as_process(identity: Identity) -> ProcessRef:
    """Return the process that a registry's identity stands for."""
    return ProcessRef(int(identity["pid"]), int(identity["start_ticks"]), str(identity["boot_id"]))


def _spawn(command: Sequence[str], lab_id: str, log: Path, inherited: int | None) -> int:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    try:
        actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, output, 1),
            (os.POSIX_SPAWN_DUP2, output, 2),
        ]
        # A descriptor that this process was born with, such as somebody's lock, must not live as long as the lab.
        born_with = (n for n in map(int, os.listdir("/proc/self/fd")) if n > 2 and n != inherited and _stays_open(n))
        actions += [(os.POSIX_SPAWN_CLOSE, number) for number in born_with]
        if inherited is not None:
            actions.append((os.POSIX_SPAWN_DUP2, inherited, INHERITED))
        environment = lab_environment(lab_id)
        return os.posix_spawnp(command[0], list(command), environment, file_actions=actions, setsid=True)
    finally:
        os.close(output)


def _stays_open(number: int) -> bool:
    try:
        return os.get_inheritable(number)
    except OSError:
        return False
