"""Cutting a host off that does not answer: told and done out of band, never by the host itself.

A fence is a narrow thing: it tells whether the host has power, and takes that away. A host of a lab has one of its
own, which ends the host's init process and with it, by the kernel, every process of the host. Others have an agent,
by the convention of the fence-agents: a program that reads `name=value` lines, `action=status` or `action=off` among
them; status ends with 0 for on and with 2 for off.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from typing import Protocol

from refimpl.hosts.process import alive, kill
from refimpl.model.fencing import NONE, OWN, FenceSetting
from refimpl.model.group import HostEntry, ProcessRef

AGENT_TIMEOUT_S = 60.0
OFF_TIMEOUT_S = 10.0
_ON, _OFF = 0, 2


class Fence(Protocol):
    """What cuts one host off. OSError when that cannot be told or done."""

    @property
    def name(self) -> str:
        """What it is, in words."""
        ...

    def on(self) -> bool:
        """Whether the host has power. Harmless: a fence is tried by this."""
        ...

    def off(self) -> None:
        """Take its power; when it returns, what ran on the host is to be over. Nothing when it is off."""
        ...


class LabPower:
    """The power of a lab's host: its init process."""

    def __init__(self, host: str, init: ProcessRef) -> None:
        """Only remember the process."""
        self.name = f"the power of host {host} in its lab"
        self._init = init

    def on(self) -> bool:
        """Whether that process lives."""
        return alive(self._init)

    def off(self) -> None:
        """End it through a pidfd; the kernel reports its end when all processes of the host have ended."""
        if not kill(self._init, OFF_TIMEOUT_S):
            raise OSError(f"process {self._init.pid}, the init of the host, does not end")


class Agent:
    """A fence agent: a program of somebody else's."""

    def __init__(self, program: str, options: Sequence[str]) -> None:
        """Only remember what to run, and what to tell it beside the action."""
        self.name = f"fence agent {program}"
        self._program = program
        self._options = tuple(options)

    def on(self) -> bool:
        """Ask for the status."""
        status, said = self._run("status")
        if status not in (_ON, _OFF):
            raise OSError(f"{self.name} ended with {status} when asked for the status: {said}")
        return status == _ON

    def off(self) -> None:
        """Have it switch the host off."""
        status, said = self._run("off")
        if status != 0:
            raise OSError(f"{self.name} ended with {status} when it was to switch the host off: {said}")

    def _run(self, action: str) -> tuple[int, str]:
        told = "".join(f"{line}\n" for line in (*self._options, f"action={action}"))
        try:
            done = subprocess.run(
                [self._program],
                input=told,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                check=False,
                timeout=AGENT_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.name} did not end within {AGENT_TIMEOUT_S:g} s ({action})") from None
        said = (done.stderr.strip() or done.stdout.strip()).rpartition("\n")[2]
        return done.returncode, said or "it said nothing"


def fence_of(host: HostEntry, setting: FenceSetting) -> Fence | None:
    """Return the fence of a host, None when it has none."""
    if setting.agent == NONE:
        return None
    if setting.agent == OWN:
        return LabPower(host.name, host.channel.init) if host.channel.kind == "namespace" else None
    return Agent(setting.agent, setting.options.split())
