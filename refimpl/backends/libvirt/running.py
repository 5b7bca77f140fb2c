"""The VMs that are on, as a host's status files show them, with their leases: it needs no daemon of libvirt's."""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree as ET

from refimpl.backends.libvirt import lease, stamp
from refimpl.backends.libvirt.domain import describe, parse
from refimpl.backends.libvirt.status import STATUS_DIRECTORY, domain_part, parse_status, read_text
from refimpl.hosts.channel import HostChannel
from refimpl.model.facts import VmState

MENDING_NAMESPACE = "urn:refimpl:lease:1"
"""The namespace of the element that a VM carries while it is paused so that its lease is taken again."""

_MENDING = f"metadata/{{{MENDING_NAMESPACE}}}mending"
_SUFFIX = ".xml"


@dataclass(frozen=True, slots=True)
class RunningVm:
    """A VM that is on. `lease`: its file, None without one; `held`: whether the host's lock daemon holds it.

    `pid`: of its QEMU, as its host counts. `operation`: the mark of a move. `epoch`: of the owner record, as it carries
    it. `mending`: it carries the mark of a mending of its lease that was made while this process of it ran.
    """

    name: str
    id: str
    state: VmState
    pid: int
    lease: str | None = None
    held: bool | None = None
    operation: str | None = None
    epoch: int = 0
    mending: bool = False

    @property
    def unprotected(self) -> bool:
        """Whether it runs and its lease is seen not to be held."""
        return self.state is VmState.RUNNING and self.lease is not None and self.held is False


def running_vms(channel: HostChannel) -> tuple[RunningVm, ...]:
    """Return the VMs that are on, by name. OSError when the host is down."""
    listed = channel.run(["ls", "-1", "--", STATUS_DIRECTORY])
    files = [line for line in listed.stdout.splitlines() if line.endswith(_SUFFIX)] if listed.status == 0 else []
    seen = (running_vm(channel, file.removesuffix(_SUFFIX)) for file in sorted(files))
    return tuple(vm for vm in seen if vm is not None)


def mending_xml(pid: int) -> str:
    """Return the element that is stored on a VM while it is paused for its lease."""
    return ET.tostring(ET.Element("mending", {"pid": str(pid)}), encoding="unicode")


def running_vm(channel: HostChannel, name: str) -> RunningVm | None:
    """Return one VM by name, None when it is not on. OSError when the host is down."""
    text = read_text(channel, name)
    status = parse_status(text) if text is not None else None
    xml = domain_part(text) if text is not None else ""
    if status is None or not xml:
        return None
    described, marked = describe(xml), stamp.from_domain_xml(xml)
    element = parse(xml).find(_MENDING)
    return RunningVm(
        name=described.name,
        id=described.id,
        state=status.vm_state,
        pid=status.pid,
        lease=described.lease,
        held=lease.held(channel, described.lease) if described.lease is not None else None,
        operation=marked.operation if marked else None,
        epoch=stamp.epoch(xml),
        mending=element is not None and element.get("pid") == str(status.pid),
    )
