"""Are the certificates of both hosts there, valid now, signed by the group's authority, and do they name the host."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from refimpl.checks.subject import Subject
from refimpl.model.errors import Problem
from refimpl.model.facts import CertificateFact, HostFacts
from refimpl.model.phase import Side

CONTROL_ROLES = ("control-server", "control-client")
MIGRATION_ROLES = ("migration-server", "migration-client")


def check(s: Subject) -> Iterator[Problem]:
    """Yield what is wrong with certificates. A host that shows none at all has none by nature (simulated, Windows)."""
    roles = CONTROL_ROLES + (MIGRATION_ROLES if s.request.encryption else ())
    for host, side in ((s.source, Side.SOURCE), (s.destination, Side.DESTINATION)):
        if host is None or not host.certificates:
            continue
        shown = {c.role: c for c in host.certificates}
        for role in roles:
            if role not in shown:
                values = {"host": host.name, "role": role}
                yield Problem(id="certificate.missing", values=values, side=side, host=host.name)
            else:
                yield from _certificate(host, side, shown[role], s.facts.now_s)


def _certificate(host: HostFacts, side: Side, c: CertificateFact, now_s: float) -> Iterator[Problem]:
    values = {"host": host.name, "role": c.role}
    if not c.trusted:
        yield Problem(id="certificate.untrusted", values=values, side=side, host=host.name)
    if not c.not_before_s <= now_s <= c.not_after_s:
        times = {"not_before": _day(c.not_before_s), "not_after": _day(c.not_after_s), "now": _day(now_s)}
        yield Problem(id="certificate.expired", values=values | times, side=side, host=host.name)
    if not set(c.names) & set(host.names):
        names = {"names": ", ".join(c.names) or "nobody", "wanted": ", ".join(host.names)}
        yield Problem(id="certificate.wrong_name", values=values | names, side=side, host=host.name)
    if not c.key_private:
        yield Problem(id="certificate.key_readable", values=values, side=side, host=host.name)


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
