"""Undoing a fault of a lab by its record, whoever did it: what was frozen runs, what was cut or mounted is as before.

Daemons that were killed are started as the lab starts them. When virtlockd was killed, its leases are lost silently and
come back in one order only: virtlockd, then libvirtd anew, then each running VM stands still for a moment (handover 3).
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from refimpl.hosts import process
from refimpl.hosts.namespace import enter_host
from refimpl.lab.errors import LabError
from refimpl.lab.faultbook import FaultBook, FaultRecord, UndoKind, unmount
from refimpl.lab.host import LIBVIRTD, VIRTLOCKD
from refimpl.lab.lab import Lab
from refimpl.lab.links import LinkState
from refimpl.lab.tools import run_tool
from refimpl.model.group import ProcessRef


def undo(lab: Lab, record: FaultRecord) -> None:
    """Undo a fault and forget it. LabError `fault.not_undone` says what could not be; its record then stays."""
    failed = []
    for step in record.undo:
        try:
            _HOW[step.kind](lab, record, step.values)
        except (LabError, OSError) as failure:
            failed.append(str(failure))
    if failed:
        raise LabError("fault.not_undone", fault=record.fault, target=record.target, detail="; ".join(failed))
    FaultBook(lab.paths).remove(record.id)


def undo_abandoned(lab: Lab, *, everything: bool = False) -> tuple[FaultRecord, ...]:
    """Undo the faults whose process is gone, or all that stand, and return them; errors as `undo`, at the first."""
    records = tuple(r for r in FaultBook(lab.paths).standing() if everything or r.abandoned)
    for record in records:
        undo(lab, record)
    return records


def mend_locks(lab: Lab, host: str) -> None:
    """Bring a host's virtlockd and the leases of its running VMs back. LabError when one cannot be had."""
    lab.stop_daemon(host, LIBVIRTD, signal.SIGKILL)
    if lab.daemon(host, VIRTLOCKD) is None:
        lab.stop_daemon(host, VIRTLOCKD)  # its socket, which a killed one leaves
    lab.start_daemons(host)
    virsh = partial(run_tool, *lab.shell_command(host, "virsh", "-q", "-c", "qemu:///system"), lab_id=lab.id)
    for name in virsh("list", "--name", "--state-running").splitlines():
        if name:
            virsh("suspend", "--domain", name)
            virsh("resume", "--domain", name)


def _thaw(_lab: Lab, _record: FaultRecord, values: Mapping[str, Any]) -> None:
    process.send_signal(ProcessRef.from_json(values["process"]), signal.SIGCONT)


def _link(lab: Lab, _record: FaultRecord, values: Mapping[str, Any]) -> None:
    lab.link(values["host"], values["network"]).restore(LinkState(values["up"], values["rate_mbit_s"]))


def _one_way(lab: Lab, _record: FaultRecord, values: Mapping[str, Any]) -> None:
    lab.link(values["host"], values["network"]).mend_one_way()


def _libvirtd(lab: Lab, _record: FaultRecord, values: Mapping[str, Any]) -> None:
    if _was_killed(lab, values):
        if lab.daemon(values["host"], LIBVIRTD) is None:
            lab.stop_daemon(values["host"], LIBVIRTD)  # its socket, which a killed one leaves
        lab.start_daemons(values["host"])


def _virtlockd(lab: Lab, _record: FaultRecord, values: Mapping[str, Any]) -> None:
    if _was_killed(lab, values):
        mend_locks(lab, values["host"])


def _unmount(lab: Lab, record: FaultRecord, values: Mapping[str, Any]) -> None:
    tag, host = FaultBook(lab.paths).tag(record.id), values["host"]
    if not host:
        unmount(tag, Path("/proc/self"), lab_id=lab.id)
    elif process.alive(init := _init(lab, host)):
        unmount(tag, Path(f"/proc/{init.pid}"), enter_host(init), lab.id)
    with contextlib.suppress(OSError):
        Path(values["disk"]).rmdir()


def _was_killed(lab: Lab, values: Mapping[str, Any]) -> bool:
    """Whether the daemon is gone and its host is not: a host that is off gets its daemons when it is switched on."""
    return process.alive(_init(lab, values["host"])) and not process.alive(ProcessRef.from_json(values["process"]))


def _init(lab: Lab, host: str) -> ProcessRef:
    entry = lab.group.host(host)
    if entry is None:
        raise LabError("lab.host_unknown", lab=lab.name, host=host, known=", ".join(h.name for h in lab.group.hosts))
    return entry.channel.init


_HOW: Mapping[UndoKind, Callable[[Lab, FaultRecord, Mapping[str, Any]], None]] = {
    UndoKind.THAW: _thaw,
    UndoKind.LINK: _link,
    UndoKind.ONE_WAY: _one_way,
    UndoKind.LIBVIRTD: _libvirtd,
    UndoKind.VIRTLOCKD: _virtlockd,
    UndoKind.UNMOUNT: _unmount,
}
