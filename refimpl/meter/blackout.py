"""The blackout: the time in which no virtual CPU of the guest ran, from QEMU's own events on both hosts.

It begins with STOP at the source and ends with RESUME at the destination; Hyper-V means the same by the word (event
20415). Both times are clocks of hosts: on one machine they are the same clock, on several their difference is an error
of the figure. What a listener outside noticed is `outside_gap`; it is never mixed with this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from refimpl.meter.verdict import State, Verdict, not_measured
from refimpl.model.events import Kind

NAME = "blackout"


def blackout(events: Iterable[Mapping[str, Any]], source: str, destination: str) -> Verdict:
    """Return `blackout_ms` of a move, or *not measured* when the events (as plain JSON values) do not hold it.

    The last run at the destination counts, and the last stop at the source before it. A source that ran again in
    between makes the figure meaningless.
    """
    known = [(event["kind"], event["host"], event["at_ns"]) for event in events]
    runs = [at for kind, host, at in known if (kind, host) == (Kind.DESTINATION_RAN, destination)]
    if not runs:
        return not_measured(NAME, f"host {destination} never said that the guest runs there")
    stops = [at for kind, host, at in known if (kind, host) == (Kind.SOURCE_STOPPED, source)]
    before = [at for at in stops if at <= runs[-1]]
    if not before:
        late = "only after it ran at the destination" if stops else "never"
        return not_measured(NAME, f"host {source} said {late} that the guest stopped")
    begin, end = max(before), runs[-1]
    if any(kind == Kind.SOURCE_RESUMED and host == source and begin < at < end for kind, host, at in known):
        return not_measured(NAME, f"the guest ran again on host {source} before it ran on host {destination}")
    blackout_ms = (end - begin) / 1e6
    return Verdict(
        NAME,
        State.OK,
        f"no virtual CPU ran for {blackout_ms:.1f} ms",
        {"blackout_ms": blackout_ms, "stopped_at_ns": begin, "ran_at_ns": end},
    )
