"""Are the certificates of both hosts there, valid now, signed by the group's authority, and do they name the host."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial

from refimpl.checks.subject import Subject
from refimpl.model.errors import Problem
from refimpl.model.facts import CertificateFact, HostFacts

CONTROL_ROLES = ("control-server", "control-client")
_LAST_S = 253_402_300_799
"""The last second that has a date: the end of the year 9999."""
MIGRATION_ROLES = ("migration-server", "migration-client")


def check(s: Subject) -> Iterator[Problem]:
    """Yield what is wrong with certificates. A host that shows none at all has none by nature (simulated, Windows)."""
    roles = CONTROL_ROLES + (MIGRATION_ROLES if s.request.encryption else ())
    for host in (s.source, s.destination):
        if host is None or not host.certificates:
            continue
        shown = {c.role: c for c in host.certificates}
        for role in roles:
            if role not in shown:
                yield s.problem("certificate.missing", host.name, role=role)
            else:
                yield from _certificate(s, host, shown[role])


def told(s: Subject) -> str | None:
    """Say for what the certificates are good; None when not both hosts were seen."""
    if s.pair is None:
        return None
    if not (s.pair.source.certificates or s.pair.destination.certificates):
        return "these hosts have none to show"
    channel = "control connection and migration channel" if s.request.encryption else "control connection"
    off = "" if s.request.encryption else "; ENCRYPTION IS OFF for the memory"
    return f"valid, trusted and of the right names for {channel}{off}"


def _certificate(s: Subject, host: HostFacts, c: CertificateFact) -> Iterator[Problem]:
    found = partial(s.problem, role=c.role)
    if not c.trusted:
        yield found("certificate.untrusted", host.name)
    if not c.not_before_s <= s.facts.now_s <= c.not_after_s:
        times = {"not_before": _day(c.not_before_s), "not_after": _day(c.not_after_s), "now": _day(s.facts.now_s)}
        yield found("certificate.expired", host.name, **times)
    if not set(c.names) & set(host.names):
        names = {"names": ", ".join(c.names) or "nobody", "wanted": ", ".join(host.names)}
        yield found("certificate.wrong_name", host.name, **names)
    if not c.key_private:
        yield found("certificate.key_readable", host.name)


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(min(max(seconds, 0), _LAST_S), UTC).strftime("%Y-%m-%d %H:%M:%SZ")
