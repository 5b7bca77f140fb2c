"""From a host's description to the channel that reaches it."""

from __future__ import annotations

from refimpl.hosts.channel import HostChannel
from refimpl.hosts.namespace import NamespaceChannel
from refimpl.model.group import HostEntry


def channel_for(host: HostEntry) -> HostChannel:
    """Return the channel to a host; ValueError when its kind is unknown."""
    if host.channel.kind != "namespace":
        raise ValueError(f"host {host.name}: no channel of kind {host.channel.kind!r}")
    return NamespaceChannel(host.channel.init)
