"""From a host's description to the channel that reaches it."""

from __future__ import annotations

from refimpl.hosts.channel import HostChannel
from refimpl.hosts.local import LocalChannel
from refimpl.hosts.namespace import NamespaceChannel
from refimpl.model.group import HostEntry


def channel_for(host: HostEntry) -> HostChannel:
    """Return the channel to a host; ValueError when its kind is unknown or its init process is not named."""
    match host.channel.kind:
        case "local":
            return LocalChannel()
        case "namespace" if host.channel.init is not None:
            return NamespaceChannel(host.channel.init)
        case kind:
            raise ValueError(f"host {host.name}: no channel of kind {kind!r} for what is described")
