"""What libvirt's status file of a domain shows: state, process and migration job, without asking the daemon.

Between the hand-over and its end the source's daemon does not answer questions about the domain, and its job phase
is told nowhere else (handover 1, 1.2). The format is private to libvirt, and the same in 9.0 and 11.3: an unknown
phase means *not yet*, never *bound*.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from refimpl.hosts.channel import HostChannel
from refimpl.model.facts import VmState

STATUS_DIRECTORY = "/run/libvirt/qemu"
BOUND_PHASE = "confirm3"
DENIED_PHASE = "confirm3_cancelled"

_STATUS = re.compile(rb"<domstatus state='([a-z ]+)' reason='([^']*)'(?: pid='(\d+)')?")
_JOB = re.compile(rb"<job type='[^']*' async='([^']*)'(?: phase='([^']*)')?")
_DOMAIN = re.compile(rb"<domain [^>]*>.*</domain>", re.DOTALL)
_DEAD = frozenset("ZXx")


@dataclass(frozen=True, slots=True)
class Status:
    """One status file: state and reason in libvirt's words, QEMU's pid on its host, the migration job if there is one.

    `job` is empty, `migration out`, `migration in` or another long job of libvirt.
    """

    state: str
    reason: str
    pid: int
    job: str = ""
    phase: str = ""

    @property
    def vm_state(self) -> VmState:
        """The state in the model's words: a copy that was made for an incoming migration is planned until arrival."""
        if self.state == "paused":
            arrived = self.reason not in ("migration", "starting up")
            return VmState.PAUSED if arrived or self.job != "migration in" else VmState.PLANNED
        return _STATES.get(self.state, VmState.UNKNOWN)

    @property
    def bound(self) -> bool:
        """Whether this is a source that its daemon is to end, whatever happens now."""
        return (self.job, self.phase) == ("migration out", BOUND_PHASE)

    @property
    def arrived(self) -> bool:
        """Whether this is a strict destination with the whole VM in it, not yet let run."""
        return (self.state, self.reason) == ("paused", "user")

    @property
    def waits(self) -> bool:
        """Whether this is such a destination whose daemon has closed its part of the move as well."""
        return self.arrived and not self.job


_STATES = {
    "running": VmState.RUNNING,
    "idle": VmState.RUNNING,
    "in shutdown": VmState.RUNNING,
    "shutdown": VmState.RUNNING,
    "pmsuspended": VmState.PAUSED,
    "shutoff": VmState.OFF,
    "crashed": VmState.OFF,
}


def status_path(vm: str) -> str:
    """Return the status file of a domain, as its host sees it."""
    return f"{STATUS_DIRECTORY}/{vm}.xml"


def parse_status(text: bytes) -> Status | None:
    """Read a status file; None when it is not one (it is replaced in one step, so it is never half)."""
    status = _STATUS.search(text)
    if status is None:
        return None
    job = _JOB.search(text)
    kind = job.group(1).decode() if job else ""
    return Status(
        state=status.group(1).decode(),
        reason=status.group(2).decode(),
        pid=int(status.group(3) or 0),
        job="" if kind == "none" else kind,
        phase=(job.group(2) or b"").decode() if job else "",
    )


def read_status(channel: HostChannel, vm: str) -> Status | None:
    """Return what the status file shows, None when the domain is not active there. OSError: the host is down."""
    text = read_text(channel, vm)
    return None if text is None else parse_status(text)


def read_text(channel: HostChannel, vm: str) -> bytes | None:
    """Return the status file itself, None when there is none."""
    try:
        return channel.read(status_path(vm))
    except FileNotFoundError:
        return None


def domain_part(text: bytes) -> str:
    """Return the domain's own XML out of a status file; empty when there is none."""
    found = _DOMAIN.search(text)
    return found.group(0).decode(errors="replace") if found else ""


def process_gone(channel: HostChannel, pid: int) -> bool:
    """Tell whether a process of that host has ended (`pid` as the host counts); OSError: the host is down."""
    state = _process_state(channel, pid)
    return not state or state in _DEAD


def process_stopped(channel: HostChannel, pid: int) -> bool:
    """Tell whether a process of that host was stopped by a signal; OSError as `process_gone`."""
    return _process_state(channel, pid) == "T"


def _process_state(channel: HostChannel, pid: int) -> str:
    """Return the letter of a process's state, nothing when there is none."""
    try:
        stat = channel.read(f"/proc/{pid}/stat").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return stat[stat.rindex(")") + 2 :][:1]


def judge_binding(source: Status | None, destination: Status | None, source_gone: bool) -> tuple[bool | None, str]:
    """Return whether the source is bound: True, False for denied, None for not yet; with the reason (handover 1.2).

    The destination must have arrived with its own job closed; before that, its daemon's death ends its copy, and the
    source's copy may be the last one.
    """
    if source is not None and not source_gone:
        if source.phase == DENIED_PHASE:
            return False, f"the source takes the VM back ({source.phase})"
        if not source.job and (source.state == "running" or (source.state, source.reason) == ("paused", "user")):
            return False, f"the source is {source.state} ({source.reason}), and no migration has it any more"
    if destination is None:
        return None, "there is no copy at the destination"
    if not destination.waits:
        return None, f"the destination is {_words(destination)}"
    if source_gone or source is None:
        return True, "the source's process is gone"
    if source.bound:
        return True, f"the source is to end its copy ({source.phase})"
    return None, f"the source is {_words(source)}"


def _words(status: Status) -> str:
    return " ".join(word for word in (status.state, status.reason, status.job, status.phase) if word)
