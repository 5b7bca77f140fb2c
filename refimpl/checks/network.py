"""Has the destination an address on a migration network (R13); whether it connects is proved in SETUP."""

from __future__ import annotations

from collections.abc import Iterator

from refimpl.checks.subject import Subject
from refimpl.model.errors import Problem


def check(s: Subject) -> Iterator[Problem]:
    """Yield a destination without a migration network."""
    host = s.destination
    if host is not None and host.reachable and not host.migration_addresses:
        yield s.problem("network.none", host.name)
