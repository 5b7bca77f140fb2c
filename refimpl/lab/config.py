"""The configuration files of a host, and the script that turns fresh namespaces into that host.

Pure text: what stands here can be read and tested without root. Paths in the files are paths as the host sees them.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from refimpl.lab.layout import HostPlan, LabPaths

CONDUCTOR_NAME = "conductor"

Setting = str | int | Sequence[str]


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """After how long a silent peer counts as dead: interval in seconds, times (count + 1)."""

    interval_s: int = 1
    count: int = 2

    @property
    def silence_s(self) -> int:
        """The longest silence in seconds that is borne."""
        return self.interval_s * (self.count + 1)

    @property
    def kernel(self) -> Mapping[str, int]:
        """The kernel's settings by which a connection is given up after as much silence or a little more.

        A migration stream has no other limit than these. The kernel repeats what is not acknowledged after 0.2 s, what
        begins a connection after 1 s, and waits twice as long each time.
        """
        return {
            "tcp_retries2": self._repeats(0.2),
            "tcp_syn_linear_timeouts": 0,
            "tcp_syn_retries": self._repeats(1.0),
        }

    def _repeats(self, first_s: float) -> int:
        return next(n for n in range(1, 32) if first_s * (2 ** (n + 1) - 1) >= self.silence_s)


@dataclass(frozen=True, slots=True)
class HostConfig:
    """What differs between hosts and labs in the configuration files.

    `check_own_certificate` off lets libvirtd start with a certificate that it would refuse, which only tests want.
    """

    lab: LabPaths
    host: HostPlan
    members: Sequence[str]
    keepalive: KeepAlive = field(default_factory=KeepAlive)
    check_own_certificate: bool = True

    def files(self) -> Mapping[str, str]:
        """Return the files of the host's /etc/libvirt by name."""
        return {
            "libvirtd.conf": render(self._libvirtd()),
            "qemu.conf": render(self._qemu()),
            "qemu-lockd.conf": render({"auto_disk_leases": 1, "file_lockspace_dir": str(self.lab.leases)}),
            "virtlockd.conf": render({"log_outputs": "3:stderr"}),
        }

    def _libvirtd(self) -> Mapping[str, Setting]:
        # Without listen_addr it listens on every address of the families that the kernel has, one socket for each.
        return {
            "listen_tls": 1,
            "listen_tcp": 0,
            "auth_tls": "none",
            "auth_unix_ro": "none",
            "auth_unix_rw": "none",
            "tls_no_verify_certificate": 0,
            "tls_no_sanity_certificate": 0 if self.check_own_certificate else 1,
            "tls_allowed_dn_list": [d for m in self.members for d in distinguished_names(self.lab.id, m)],
            "host_uuid": self.host.uuid,
            "keepalive_interval": self.keepalive.interval_s,
            "keepalive_count": self.keepalive.count,
            "log_outputs": "3:stderr",
        }

    def _qemu(self) -> Mapping[str, Setting]:
        return {
            "user": "root",
            "group": "root",
            "security_driver": "none",
            "cgroup_controllers": [],
            "namespaces": [],
            "remember_owner": 0,
            "stdio_handler": "file",
            "max_core": 0,
            "shared_filesystems": [str(self.lab.shared)],
            "lock_manager": "lockd",
            "default_tls_x509_cert_dir": "/etc/pki/qemu",
            "default_tls_x509_verify": 1,
            "keepalive_interval": self.keepalive.interval_s,
            "keepalive_count": self.keepalive.count,
        }


def render(settings: Mapping[str, Setting]) -> str:
    """Return settings in libvirt's configuration syntax, one on each line."""
    return "".join(f"{name} = {_value(value)}\n" for name, value in settings.items())


def distinguished_names(lab_id: str, name: str) -> list[str]:
    """Return the subject of a lab's certificate as libvirt compares it, in the order of old and of new GnuTLS."""
    organization, common_name = f"O=refimpl lab {lab_id}", f"CN={name}"
    return [f"{organization},{common_name}", f"{common_name},{organization}"]


def hosts_table(hosts: Sequence[HostPlan]) -> str:
    """Return the /etc/hosts by which the lab's hosts know each other."""
    lines = [f"{h.management_address} {h.name}" for h in hosts]
    return "\n".join(["127.0.0.1 localhost", *lines, ""])


def start_script(lab: LabPaths, host: HostPlan, init: Path, keepalive: KeepAlive) -> str:
    """Return the script that runs as the first process of a host: mounts, host name, then the init program.

    /etc is the machine's own, seen through a read-only overlay that adds what this host has of its own, so that no
    mount point has to be made on the machine. /run is empty at each start, as after a reboot. What the lab keeps of
    the other hosts and of the certificate authority is hidden. Where the kernel's settings cannot be written, a
    migration stream bears a longer silence than the control connections, and init's log says so.
    """
    paths, label = lab.host(host.name), f"refimpl:{lab.id}"
    binds = {
        paths.libvirt_config: "/etc/libvirt",
        paths.pki: "/etc/pki",
        paths.lib: "/var/lib/libvirt",
        paths.log: "/var/log/libvirt",
        paths.cache: "/var/cache/libvirt",
        paths.local: str(lab.local),
    }
    hidden = [lab.hosts, lab.authority.parent]
    commands = [
        *(["sh", "-c", f"echo {n} > /proc/sys/net/ipv4/{name} || true"] for name, n in keepalive.kernel.items()),
        ["mount", "-t", "sysfs", label, "/sys"],
        ["mount", "-t", "overlay", "-o", f"ro,lowerdir={paths.etc}:/etc", label, "/etc"],
        *(["mount", "--bind", str(source), target] for source, target in binds.items()),
        ["mount", "-t", "tmpfs", "-o", "mode=0755", label, "/run"],
        ["mkdir", "-p", "/run/libvirt", "/run/lock"],
        *(["mount", "-t", "tmpfs", "-o", "ro,mode=0700", label, str(directory)] for directory in hidden),
        ["hostname", host.name],
        ["exec", str(init), lab.id, host.name],
    ]
    return "\n".join(["#!/bin/sh", "set -eu", "cd /", *(shlex.join(c) for c in commands), ""])


def _value(value: Setting) -> str:
    match value:
        case str() | int():
            return json.dumps(value)
        case _:
            return "[ " + ", ".join(json.dumps(v) for v in value) + " ]" if value else "[]"
