"""Having QEMU tell the switch where the VM is: what it wanted to tell at the arrival may not have been let out."""

from __future__ import annotations

import json
from typing import Any

ANNOUNCE_TIMEOUT_S = 5.0
ANNOUNCE: dict[str, Any] = {
    "execute": "announce-self",
    "arguments": {"initial": 20, "max": 550, "rounds": 5, "step": 100},
}
"""QEMU's own times in ms, but for the first: several frames, as one can be lost."""


def announce(domain: Any) -> None:
    """Have QEMU announce its cards. libvirtError when it cannot."""
    import libvirt_qemu

    libvirt_qemu.qemuMonitorCommand(domain, json.dumps(ANNOUNCE), 0)
