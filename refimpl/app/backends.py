"""Which backend drives a group, and the parts that go with it. Backends are imported only when they are chosen."""

from __future__ import annotations

import time

from refimpl.engine.backend import Backend, Post
from refimpl.model.errors import error
from refimpl.model.group import Group


def backend_for(group: Group, post: Post) -> Backend:
    """Return the backend that the group names. The simulated one is never chosen this way."""
    if group.backend != "libvirt":
        raise error("backend.unknown", backend=group.backend, known="libvirt")
    try:
        from refimpl.backends.libvirt.backend import LibvirtBackend

        return LibvirtBackend(group, post, time.time_ns)
    except ImportError as failure:
        raise error("backend.not_installed", backend=group.backend, detail=str(failure)) from failure
