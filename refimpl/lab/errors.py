"""The errors of the lab: an id, values, and for each id a text, why it matters and what mends it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorText:
    """What is said for one id; `{names}` are filled from the values of the error."""

    text: str
    why: str
    mend: str


ERRORS: Mapping[str, ErrorText] = {
    "lab.requirements": ErrorText(
        "A lab needs what this machine has not: {missing}.",
        "Hosts out of nothing need root rights, network namespaces, libvirt and QEMU.",
        "Run as root: ci/setup",
    ),
    "lab.exists": ErrorText(
        "A lab named {lab!r} exists already (id {lab_id}, {state}).",
        "A name means one lab on a machine.",
        "refimpl lab down {lab}, or choose another name",
    ),
    "lab.unknown": ErrorText(
        "There is no lab {lab!r}; known: {known}.",
        "Only a lab of this state directory can be used.",
        "refimpl lab up",
    ),
    "lab.unfinished": ErrorText(
        "Lab {lab!r} (id {lab_id}) was not built to its end, or is half removed.",
        "Parts of it are missing, so nothing that is seen on it would mean anything.",
        "refimpl lab reap, then refimpl lab up",
    ),
    "lab.busy": ErrorText(
        "Lab {lab_id} is being built or removed by another process.",
        "Two at once would undo each other's work.",
        "Wait until the other has ended, then try again",
    ),
    "lab.host_unknown": ErrorText(
        "Lab {lab!r} has no host {host!r}; known: {known}.",
        "The host has to be one of the lab's.",
        "refimpl lab status",
    ),
    "lab.process_failed": ErrorText(
        "{process} of host {host!r} did not start: {said}",
        "Without it the host cannot run or move virtual machines.",
        "refimpl doctor; the log of the process says more",
    ),
    "lab.wrong_answer": ErrorText(
        "libvirt of host {host!r} answers as {said!r}.",
        "The control connection leads to another host than it should.",
        "refimpl lab down, then refimpl lab up",
    ),
    "lab.command_failed": ErrorText(
        "{command!r} failed with status {status}: {said}",
        "The lab could not be built, looked at or removed as asked.",
        "refimpl doctor",
    ),
}


class LabError(Exception):
    """The lab or its environment is broken or was asked for something that it has not: not a virtual machine's fault.

    `id` names the entry of `ERRORS`, `values` fill its text.
    """

    def __init__(self, id: str, **values: str | int) -> None:
        self.id = id
        self.values = values
        entry = ERRORS[id]
        super().__init__(f"{entry.text.format_map(values)} [{id}] Mend: {entry.mend.format_map(values)}")
