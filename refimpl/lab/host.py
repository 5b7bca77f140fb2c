"""One host of a lab as processes: its init, which holds the namespaces, and its daemons libvirtd and virtlockd.

All of them live in the host's pid namespace. When its init ends, the kernel ends them and every virtual machine at
once: that is the host's power switch.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from refimpl.hosts import process
from refimpl.hosts.namespace import enter_host, enter_network
from refimpl.hosts.stops import stop_point
from refimpl.hosts.wait import until
from refimpl.lab import layout
from refimpl.lab.errors import LabError
from refimpl.lab.layout import HostPlan, LabPaths
from refimpl.lab.registry import Identity, Item, Kind, Registry
from refimpl.lab.tools import lab_environment, run_tool
from refimpl.model.group import ProcessRef

VIRTLOCKD = "virtlockd"
LIBVIRTD = "libvirtd"

_COMMANDS = {
    VIRTLOCKD: ("virtlockd", "-p", "/run/virtlockd.pid"),
    LIBVIRTD: ("libvirtd", "--listen", "-p", "/run/libvirtd.pid"),
}
_SOCKETS = {VIRTLOCKD: "run/libvirt/virtlockd-sock", LIBVIRTD: "run/libvirt/libvirt-sock"}
TLS_PORT = 16514
_LISTEN = "0A"  # the kernel's number of that state in /proc/net/tcp
_POLL_S = 0.02
_TERMINATE_S = 5.0

_LAST_LINES = 3


@dataclass(frozen=True, slots=True)
class HostRunner:
    """Starts and ends the processes of one host."""

    lab: LabPaths
    host: HostPlan
    registry: Registry
    deadline_s: float = 60.0

    def start_init(self) -> ProcessRef:
        """Make the host's namespaces and its init, and return the init. LabError when a mount fails."""
        script, log = self.lab.host(self.host.name).start_script, self.log_file("init")
        netns = layout.netns_name(self.lab.id, self.host.name)
        spaces = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
        command = [*enter_network(netns), *spaces, "/bin/sh", str(script)]
        item = Item(Kind.PROCESS, f"init {self.host.name}")
        self.registry.announce([item])
        stop_point("init.announced")
        outer = self._spawn(command, log, wait_for="ready\n")
        stop_point("init.unidentified")
        init = _only_child(outer)
        self._identify(item, init)
        return init

    def start_daemon(self, init: ProcessRef, name: str) -> ProcessRef:
        """Start a daemon on the host and return it when its socket is there. LabError when it ends or is too slow."""
        item = Item(Kind.PROCESS, f"{name} {self.host.name}")
        self.registry.announce([item])
        mark = {layout.DAEMON_VARIABLE: name}
        # setsid forks, so the daemon becomes a child of the host's init and no process of it stays outside.
        command = [*enter_host(init), "setsid", "--fork", *_COMMANDS[name]]
        _reap(self._spawn(command, self.log_file(name), **mark))
        daemon = self.find_daemon(init, name)
        if daemon is None:
            raise self._no_start(name)
        self._identify(item, daemon)
        stop_point(f"{name}.started")
        socket = Path(f"/proc/{init.pid}/root") / _SOCKETS[name]
        self._wait_until(lambda: socket.exists(), daemon, name)
        return daemon

    def stop_daemon(self, init: ProcessRef, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        """End a daemon, by force when it does not go in time; its socket is removed. Nothing when it is not there."""
        daemon = self.find_daemon(init, name)
        if daemon is not None:
            process.send_signal(daemon, number)
            if not process.wait_gone(daemon, _TERMINATE_S):
                process.kill(daemon)
        if process.alive(init):
            (Path(f"/proc/{init.pid}/root") / _SOCKETS[name]).unlink(missing_ok=True)
            self._wait_port_free(init)

    def _wait_port_free(self, init: ProcessRef) -> None:
        # A child that the daemon had just forked may hold its listening socket for a moment longer.
        until(
            lambda: self.find_daemon(init, LIBVIRTD) is not None or not _listens(init, TLS_PORT),
            self.deadline_s,
            _POLL_S,
        )

    def find_daemon(self, init: ProcessRef, name: str) -> ProcessRef | None:
        """Return the running daemon of that name, or None."""
        for child in _children(init):
            if process.environment_value(child, layout.DAEMON_VARIABLE) == name:
                try:
                    return process.here(child)
                except ProcessLookupError:
                    continue
        return None

    def answers(self, uri: str, timeout_s: float) -> bool:
        """Tell whether libvirt on the host answers at its control URI, asked from the management namespace."""
        try:
            self.ask(uri, timeout_s)
        except (LabError, TimeoutError):
            return False
        return True

    def ask(self, uri: str, timeout_s: float) -> str:
        """Ask libvirt at its control URI for its host name. LabError with its answer when it refuses."""
        command = self.from_conductor("virsh", "-q", "-c", uri, "hostname")
        return run_tool(*command, lab_id=self.lab.id, timeout_s=timeout_s).strip()

    def ask_locally(self, init: ProcessRef, timeout_s: float) -> str:
        """Ask libvirt for its host name on the host itself, where no certificate plays a part."""
        return run_tool(*self._virsh(init), "hostname", lab_id=self.lab.id, timeout_s=timeout_s).strip()

    def wait_for_vms(self, init: ProcessRef, timeout_s: float) -> None:
        """Wait until a libvirtd that was started anew has its virtual machines back.

        It answers before that. A command that comes in between may end a machine and then say that it never existed.
        """
        names = run_tool(*self._virsh(init), "list", "--name", lab_id=self.lab.id, timeout_s=timeout_s).split()
        for name in names:
            # Any question that needs the machine's monitor waits in line; the answer does not matter.
            with contextlib.suppress(LabError):
                run_tool(*self._virsh(init), "dommemstat", name, lab_id=self.lab.id, timeout_s=timeout_s)

    def from_conductor(self, *command: str) -> list[str]:
        """Return a command line that runs a program in the management network."""
        return [*enter_network(layout.netns_name(self.lab.id, layout.CONDUCTOR)), *command]

    def log_file(self, name: str) -> Path:
        """Return the file that holds what a process of the host said."""
        return self.lab.host(self.host.name).log / f"{name}.log"

    def _virsh(self, init: ProcessRef) -> list[str]:
        return [*enter_host(init), "virsh", "-q", "-c", "qemu:///system"]

    def _spawn(self, command: Sequence[str], log: Path, *, wait_for: str = "", **variables: str) -> int:
        """Start a process that outlives this one; with `wait_for`, return when it has written that."""
        environment = lab_environment(self.lab.id, **variables)
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
            actions = [
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, writer if wait_for else output, 1),
                (os.POSIX_SPAWN_DUP2, output, 2),
                # A descriptor that the caller was born with, such as somebody's lock, must not live as long as the lab.
                *((os.POSIX_SPAWN_CLOSE, number) for number in _inheritable()),
            ]
            pid = os.posix_spawnp(command[0], list(command), environment, file_actions=actions, setsid=True)
            os.close(output)
        finally:
            os.close(writer)
        with os.fdopen(reader) as answer:
            if wait_for and answer.readline() != wait_for:
                raise self._no_start("init")
        return pid

    def _identify(self, item: Item, ref: ProcessRef) -> None:
        identity: Identity = {"pid": ref.pid, "start_ticks": ref.start_ticks, "boot_id": ref.boot_id}
        self.registry.made({item: identity})

    def _wait_until(self, reached: Callable[[], bool], daemon: ProcessRef, name: str) -> None:
        until(lambda: reached() or not process.alive(daemon), self.deadline_s, _POLL_S)
        if not reached():
            raise self._no_start(name)

    def _no_start(self, name: str) -> LabError:
        log = self.log_file(name)
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        said = "\n".join(line for line in lines[-_LAST_LINES:] if line) or "nothing"
        return LabError("lab.process_failed", process=name, host=self.host.name, said=said)


def _children(init: ProcessRef) -> list[int]:
    if not process.alive(init):
        return []
    try:
        return [c.pid for c in psutil.Process(init.pid).children()]
    except psutil.NoSuchProcess:
        return []


def _listens(host: ProcessRef, port: int) -> bool:
    rows = (row for name in ("tcp", "tcp6") for row in _socket_table(Path(f"/proc/{host.pid}/net/{name}")))
    return any(int(row[1].rpartition(":")[2], 16) == port and row[3] == _LISTEN for row in rows)


def _socket_table(path: Path) -> list[list[str]]:
    try:
        return [line.split() for line in path.read_text(encoding="ascii").splitlines()[1:]]
    except OSError:
        return []


def _inheritable() -> list[int]:
    numbers = [int(n) for n in os.listdir("/proc/self/fd")]
    return [n for n in numbers if n > 2 and _is_inheritable(n)]


def _is_inheritable(number: int) -> bool:
    try:
        return os.get_inheritable(number)
    except OSError:
        return False


def _only_child(pid: int) -> ProcessRef:
    children = psutil.Process(pid).children()
    return process.here(children[0].pid)


def _reap(pid: int) -> None:
    os.waitpid(pid, 0)
