"""The whole memory of the VM is taken at the destination before a page is sent (R6, handover 4).

The destination's copy is started with its memory allocated at once; without that nothing is reserved and a shortage
would show in mid-move or later. It concerns the copy that is made for the move: the stored definition stays as it is.
"""

from __future__ import annotations

from xml.etree import ElementTree as ET

from refimpl.backends.libvirt import connection
from refimpl.backends.libvirt.domain import parse
from refimpl.backends.libvirt.operation import Operation
from refimpl.model.errors import Problem
from refimpl.model.phase import Side

INTERNAL, FROM_QEMU = 1, 10
"""libvirt's code and domain for a QEMU that does not start."""
_NO_MEMORY = "Cannot allocate memory"
_WITHOUT_A_WORD = "process exited while connecting to monitor"


def reserved(xml: str) -> str:
    """Return a definition whose memory is allocated when it is started."""
    root = parse(xml)
    backing = root.find("memoryBacking")
    backing = ET.SubElement(root, "memoryBacking") if backing is None else backing
    for allocation in backing.findall("allocation"):
        backing.remove(allocation)
    ET.SubElement(backing, "allocation", {"mode": "immediate"})
    return ET.tostring(root, encoding="unicode")


def shortage(operation: Operation, error: Exception) -> Problem | None:
    """Return the problem when an error means that the destination does not have the memory, else None.

    A QEMU that the kernel ends for want of memory says nothing; one that ends for another reason says which.
    """
    native = connection.native(error)
    if (native.code, native.domain) != (INTERNAL, f"libvirt/{FROM_QEMU}"):
        return None
    silent = native.text.rstrip(" :").endswith(_WITHOUT_A_WORD)
    if not silent and _NO_MEMORY not in native.text:
        return None
    return operation.problem("memory.not_reserved", Side.DESTINATION, error, needed_mib=operation.plan.memory_mib)
