"""Values that the verbs about VMs read from the command line: amounts of memory, disks, adapters, forwards."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from refimpl.app.own_guest import NicWish
    from refimpl.lab.forward import Forward

_AMOUNT = re.compile(r"(\d{1,9})(?:([MGT])(?:i?B)?)?", re.IGNORECASE)
_MIB = {"M": 1, "G": 1024, "T": 1024 * 1024}
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_MULTICAST = 1
_LARGEST_DISK_MIB = 64 * 1024 * 1024
LEAST_MEMORY_MIB = 32


class _Memory(click.ParamType):  # type: ignore[type-arg]  # older click has it without one
    """An amount of memory in MiB: `512`, `512M`, `2G`."""

    name = "MIB|2G"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return MiB."""
        if isinstance(value, int):
            return value
        found = _AMOUNT.fullmatch(value)
        amount = int(found[1]) * _MIB[(found[2] or "M").upper()] if found else 0
        if amount < LEAST_MEMORY_MIB:
            self.fail(f"{value!r} is no amount of memory of {LEAST_MEMORY_MIB} MiB or more, as 512 or 2G", param, ctx)
        return amount


class _Disk(click.ParamType):  # type: ignore[type-arg]  # older click has it without one
    """A disk: a size with its unit, or a file. A file that is named like a size is written with its directory."""

    name = "SIZE|FILE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return MiB or a path."""
        found = _AMOUNT.fullmatch(value)
        if not found:
            return Path(value)
        amount = int(found[1]) * _MIB[found[2].upper()] if found[2] else 0
        if not 1 <= amount <= _LARGEST_DISK_MIB:
            self.fail(f"{value!r} is no size from 1M to 64T with its unit; a file of that name: ./{value}", param, ctx)
        return amount


class _PathPair(click.ParamType):  # type: ignore[type-arg]  # older click has it without one
    """Two files: a disk, and where it is to go."""

    name = "SOURCE=DESTINATION"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return both paths."""
        if isinstance(value, tuple):
            return value
        source, sign, destination = value.partition("=")
        if not (source and sign and destination) or "=" in destination:
            self.fail(f"{value!r} is not SOURCE=DESTINATION, two files without '=' in their names", param, ctx)
        return source, destination


class _Nic(click.ParamType):  # type: ignore[type-arg]  # older click has it without one
    """A network adapter: a virtual switch, and a MAC address if one is wanted."""

    name = "SWITCH[,mac=MAC]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> NicWish:
        """Return the adapter that is wished for."""
        from refimpl.app.own_guest import NicWish

        switch, *options = value.split(",")
        mac = None
        for option in options:
            key, _, text = option.partition("=")
            mac = text.lower().replace("-", ":")
            if key != "mac" or not _MAC.fullmatch(mac) or int(mac[:2], 16) & _MULTICAST:
                self.fail(f"{option!r} is not mac= with the MAC address of one adapter", param, ctx)
        if not switch:
            self.fail("the virtual switch has no name", param, ctx)
        return NicWish(switch, mac)


class _Forward(click.ParamType):  # type: ignore[type-arg]  # older click has it without one
    """A port of this machine that leads to one of the guest."""

    name = "PORT[:GUESTPORT]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Forward:
        """Return the forward."""
        from refimpl.lab.forward import Forward

        try:
            return Forward.parse(value)
        except ValueError as failure:
            self.fail(str(failure), param, ctx)


MEMORY, DISK, NIC, FORWARD, PATH_PAIR = _Memory(), _Disk(), _Nic(), _Forward(), _PathPair()
