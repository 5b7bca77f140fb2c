"""A VM's second monitor socket: QEMU asked beside libvirt, for what libvirt cannot answer or do (libvirt-qemu 3.4; P4).

Its path is the same on every host and made of the VM's id, so that a copy that comes in has it, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import Any
from xml.etree import ElementTree as ET

from refimpl.hosts.channel import Answering, HostChannel

NAMESPACE = "http://libvirt.org/schemas/domain/qemu/1.0"
"""libvirt's namespace for arguments that it hands to QEMU as they are."""
ANSWER_TIMEOUT_S = 4.0
_START_S = 6.0


class Refused(OSError):
    """QEMU has answered and said no."""


def socket_path(vm_id: str) -> str:
    """Return the socket of a VM as its host sees it."""
    return f"/run/libvirt/qemu/refimpl-{vm_id}.qmp"


def add_to(root: ET.Element, vm_id: str) -> None:
    """Give a domain's definition the socket."""
    line = ET.SubElement(root, f"{{{NAMESPACE}}}commandline")
    for value in ("-qmp", f"unix:{socket_path(vm_id)},server=on,wait=off"):
        ET.SubElement(line, f"{{{NAMESPACE}}}arg", {"value": value})


def has_socket(root: ET.Element) -> bool:
    """Tell whether a domain's definition has the socket, under the path that is looked for."""
    wanted = f"unix:{socket_path(root.findtext('uuid', ''))},"
    return any(arg.get("value", "").startswith(wanted) for arg in root.iter(f"{{{NAMESPACE}}}arg"))


@cache
def program(name: str = "monitorside") -> str:
    """Return the text of a program that runs on the host."""
    return files("refimpl.backends.libvirt").joinpath(f"{name}.py").read_text("utf-8")


def held_path(vm_id: str) -> str:
    """Return the socket of whoever holds a VM's monitor."""
    return f"{socket_path(vm_id)}.held"


def hold(channel: HostChannel, vm_id: str) -> None:
    """Have a VM's monitor held on a host, until it ends or `release`. OSError when it cannot be had."""
    talk = channel.talk(program("keeperside"))
    try:
        told = talk.ask({"path": socket_path(vm_id), "held": held_path(vm_id)}, ANSWER_TIMEOUT_S + _START_S)
    finally:
        talk.close()
    if "why" in told:
        raise OSError(told["why"])


def release(channel: HostChannel, vm_id: str) -> None:
    """Have a VM's monitor let go. OSError when the host is down."""
    talk = channel.talk(program())
    try:
        talk.ask({"held": held_path(vm_id), "timeout": ANSWER_TIMEOUT_S}, ANSWER_TIMEOUT_S + _START_S)
    finally:
        talk.close()


class Monitor:
    """The monitor of one VM on one host, over a helper process there."""

    def __init__(self, talk: Answering, vm_id: str) -> None:
        self._talk = talk
        self._vm_id = vm_id

    def execute(self, command: str, arguments: Mapping[str, Any] | None = None, *, oob: bool = False) -> Any:
        """Return what QEMU returns; `oob`: taken although QEMU's main loop stands still.

        Refused when QEMU says no, another OSError when there is no QEMU or it does not answer in time.
        """
        places = {"path": socket_path(self._vm_id), "held": held_path(self._vm_id)}
        question = {**places, "execute": command, "arguments": dict(arguments or {}), "oob": oob}
        told = self._talk.ask({**question, "timeout": ANSWER_TIMEOUT_S}, ANSWER_TIMEOUT_S + _START_S)
        if "why" in told:
            raise OSError(told["why"])
        answer = told["answer"]
        if "error" in answer:
            raise Refused(str(answer["error"].get("desc", answer["error"])))
        return answer.get("return")


@contextmanager
def monitor(channel: HostChannel, vm_id: str) -> Iterator[Monitor]:
    """Give the monitor of a VM on a host, its helper ended afterwards. OSError when the host is down."""
    talk = channel.talk(program())
    try:
        yield Monitor(talk, vm_id)
    finally:
        talk.close()
