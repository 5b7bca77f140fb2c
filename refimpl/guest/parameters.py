"""What one guest is told to do: the parameters that reach it on its kernel command line.

`init.c` reads the same names; the two files are kept together by a test that looks for each name in the C source.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal

WriterContent = Literal["zero", "text", "random"]

_KERNEL_OPTIONS = (
    "console=ttyS0",
    "quiet",
    "panic=1",
    "oops=panic",
    "ipv6.disable=1",
    "mitigations=off",
    "random.trust_cpu=1",
)


LEAST_MEMORY_MIB = 96
"""With less the guest's kernel and program do not begin to work."""
_ITS_OWN_MIB = 48
_ITS_SHARE = 8

_MARKER = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class GuestParameters:
    """Work of one guest; times in milliseconds, rates in 4 KiB pages per second.

    `writer_content` zero, text and random say how well the pages compress: each page keeps a header of 48 bytes that
    is never zero (number, generation, checksum, marker). `disk_period_ms` 0 turns the disk worker off; it owns the
    first `disk_blocks` blocks of 4 KiB of the first virtio disk and overwrites what is there. `check_pages_per_s` paces
    the check of the working set that goes on all the time. Without an `address` the guest has no network: no heartbeat
    by UDP, no commands, no stream. `marker` (32 hexadecimal digits) makes 16 bytes that stand in every page of the
    working set, in 256 KiB of noise, which no compression hides, and with all their bits turned in every disk block:
    who finds them on a network has seen the guest's own data. Wrong values are a ValueError.
    """

    heartbeat_period_ms: int = 10
    writer_rate_pages_per_s: int = 1000
    writer_working_set_mib: int = 16
    writer_content: WriterContent = "text"
    check_pages_per_s: int = 4096
    disk_period_ms: int = 100
    disk_blocks: int = 256
    address: str | None = None
    observer_address: str | None = None
    observer_port: int = 7000
    marker: str | None = None

    def __post_init__(self) -> None:
        positive = (self.heartbeat_period_ms, self.writer_working_set_mib, self.check_pages_per_s, self.disk_blocks)
        if min(positive) < 1 or min(self.writer_rate_pages_per_s, self.disk_period_ms) < 0:
            raise ValueError(f"guest parameters out of range: {self}")
        if self.writer_content not in ("zero", "text", "random"):
            raise ValueError(f"writer_content is zero, text or random, not {self.writer_content!r}")
        if self.marker is not None and not _MARKER.fullmatch(self.marker):
            raise ValueError(f"marker is 32 hexadecimal digits, not {self.marker!r}")
        if self.address is not None:
            ipaddress.IPv4Interface(self.address)
        if self.observer_address is not None:
            ipaddress.IPv4Address(self.observer_address)

    def values(self) -> dict[str, str]:
        """Return the parameters by the names that the guest's program reads."""
        named: dict[str, object] = {
            "beat_ms": self.heartbeat_period_ms,
            "rate": self.writer_rate_pages_per_s,
            "set_mib": self.writer_working_set_mib,
            "content": self.writer_content,
            "check_pages": self.check_pages_per_s,
            "disk_ms": self.disk_period_ms,
            "disk_blocks": self.disk_blocks,
        }
        if self.address is not None:
            interface = ipaddress.IPv4Interface(self.address)
            named |= {"address": interface.ip, "netmask": interface.netmask}
        if self.marker is not None:
            named["marker"] = self.marker
        if self.observer_address is not None:
            named |= {"observer": self.observer_address, "observer_port": self.observer_port}
        return {name: str(value) for name, value in named.items()}

    def command_line(self) -> str:
        """Return the whole kernel command line. `address` is written as `10.0.0.2/24`."""
        return " ".join((*_KERNEL_OPTIONS, *(f"refimpl.{name}={value}" for name, value in self.values().items())))


def least_memory_mib(working_set_mib: int) -> int:
    """Return how much memory a VM needs for the built-in guest to work with such a working set.

    The rest, 48 MiB and an eighth of all, is for kernel and program: a working set of 64 of 128 MiB and one of 176 of
    256 MiB were seen to work, 72 and 192 to end without memory.
    """
    needed_mib = -(-(working_set_mib + _ITS_OWN_MIB) * _ITS_SHARE // (_ITS_SHARE - 1))
    return max(LEAST_MEMORY_MIB, needed_mib)
