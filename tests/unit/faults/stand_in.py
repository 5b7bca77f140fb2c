"""A lab that is only what faults need of one: a directory, daemons that are the test's processes, and one link."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from refimpl.hosts.process import here
from refimpl.lab.layout import LabPaths
from refimpl.lab.links import Direction, LinkState
from refimpl.model.group import ChannelSpec, Group, HostEntry, ProcessRef

LAB_ID = "abc123"
HOSTS = ("h1", "h2")


class StandInLink:
    """A link that does nothing but remember how it is."""

    def __init__(self) -> None:
        self.now = LinkState(rate_mbit_s=7)
        self.lost: Direction | None = None

    def state(self) -> LinkState:
        return self.now

    def cut(self) -> None:
        self.now = LinkState(False, self.now.rate_mbit_s)

    def shape(self, rate_mbit_s: int) -> None:
        self.now = LinkState(self.now.up, rate_mbit_s)

    def restore(self, state: LinkState) -> None:
        self.now = state

    def cut_one_way(self, direction: Direction) -> None:
        self.lost = direction

    def mend_one_way(self) -> None:
        self.lost = None


class StandInLab:
    """A lab whose daemons are given processes; what is done to them is noted in `done`."""

    def __init__(self, root: Path, init: ProcessRef) -> None:
        self.paths = LabPaths(root, LAB_ID)
        self.paths.store.parent.mkdir(parents=True)
        self.id, self.name = LAB_ID, "lab"
        self.daemons: dict[tuple[str, str], ProcessRef] = {}
        self.the_link = StandInLink()
        self.done: list[str] = []
        hosts = [HostEntry(h, h, "", "", "", (), 1, ChannelSpec("namespace", init)) for h in HOSTS]
        self.group = Group(LAB_ID, "lab", tuple(hosts), str(self.paths.store), "", "", "")

    def daemon(self, host: str, name: str) -> ProcessRef | None:
        return self.daemons.get((host, name))

    def link(self, host: str, network: str) -> StandInLink:
        return self.the_link

    def stop_daemon(self, host: str, name: str, number: int = 15) -> None:
        self.done.append(f"stop {name}")
        self.daemons.pop((host, name), None)

    def start_daemons(self, host: str) -> None:
        self.done.append("start")

    def shell_command(self, host: str, *command: str) -> list[str]:
        return ["echo", "-n"]


@contextmanager
def running() -> Iterator[tuple[subprocess.Popen[bytes], ProcessRef]]:
    """Give a process of the test that does nothing; it is ended at the end."""
    process = subprocess.Popen(["sleep", "600"])
    try:
        yield process, here(process.pid)
    finally:
        process.kill()
        process.wait()


def state_of(pid: int) -> str:
    """Return the state letter of a process: T is stopped, S sleeps."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
