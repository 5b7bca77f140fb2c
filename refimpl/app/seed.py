"""The seed of cloud-init's NoCloud source: a small disc labelled `cidata` with what a guest is told at its first boot.

A guest whose image has cloud-init finds it in its DVD drive. Its instance id is the VM's id, so cloud-init does its
work once for a VM, wherever that is moved.
"""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

from refimpl.app.vm_disks import require_file
from refimpl.model.errors import error

_LARGEST_BYTES = 1 << 20
_BEGINNINGS = (
    b"#cloud-config",
    b"#!",
    b"#include",
    b"#cloud-boothook",
    b"#part-handler",
    b"## template:",
    b"Content-Type:",
)
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def read_user_data(path: Path, vm: str) -> bytes:
    """Return what cloud-init is to do: `vm.seed_invalid` when it would not understand it, `vm.file_unusable`."""
    data = _read(path, "user data", vm)
    first = data.split(b"\n", 1)[0].strip()
    if not first.startswith(_BEGINNINGS):
        detail = f"its first line is {first[:40].decode('utf-8', 'replace')!r}"
        raise error("vm.seed_invalid", path=str(path), what="user data", detail=detail)
    return data


def read_network_config(path: Path, vm: str) -> bytes:
    """Return how the guest's adapters are to be set up, as cloud-init's file `network-config` has it."""
    return _read(path, "network configuration", vm)


def seed(user_data: bytes, network_config: bytes | None, *, vm: str, vm_id: str) -> bytes:
    """Return the whole disc (ISO 9660 with Joliet and Rock Ridge names)."""
    import pycdlib

    host_name = vm if _HOST_NAME.fullmatch(vm) else f"vm-{vm_id[:8]}"
    files = {"meta-data": json.dumps({"instance-id": vm_id, "local-hostname": host_name}).encode() + b"\n"}
    files["user-data"] = user_data
    if network_config is not None:
        files["network-config"] = network_config
    disc = pycdlib.PyCdlib()
    disc.new(vol_ident="cidata", joliet=3, rock_ridge="1.09")
    for number, (name, data) in enumerate(files.items()):
        old = f"/FILE{number}.;1"
        disc.add_fp(io.BytesIO(data), len(data), iso_path=old, rr_name=name, joliet_path=f"/{name}")
    written = io.BytesIO()
    disc.write_fp(written)
    disc.close()
    return written.getvalue()


def _read(path: Path, what: str, vm: str) -> bytes:
    require_file(path, what, vm)
    if path.stat().st_size > _LARGEST_BYTES:
        detail = f"it has more than {_LARGEST_BYTES} bytes"
        raise error("vm.seed_invalid", path=str(path), what=what, detail=detail)
    try:
        return path.read_bytes()
    except OSError as failure:
        raise error("vm.file_unusable", path=str(path), what=what, vm=vm, detail=str(failure)) from failure
