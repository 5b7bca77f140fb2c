"""The settings of a move in Hyper-V's words, each with where its value came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from refimpl.model.request import PostCopy
from refimpl.report.words import POST_COPY_RISK, label


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: name, value in words, and where it came from (empty: nobody said)."""

    name: str
    value: str
    origin: str


def _mib_s(value: Any) -> str:
    return f"{value} MiB/s" if value else "none"


def _bound(value: Any) -> str:
    return "never" if value is None else f"{value} ms"


def _post_copy(value: Any) -> str:
    return str(value) if value == PostCopy.OFF else f"{label(value)}; {POST_COPY_RISK}"


_NAMES: Sequence[tuple[str, str, Callable[[Any], str]]] = (
    ("performance_option", "performance option", str),
    ("compression", "compression method", lambda value: str(value or "none")),
    ("encryption", "encryption", lambda value: "on" if value else "OFF"),
    ("pass_limit", "pre-copy pass limit", str),
    ("bandwidth_mib_s", "bandwidth limit", _mib_s),
    ("cancel_if_blackout_exceeds_ms", "cancel if the blackout exceeds", _bound),
    ("unexpected_blackout_ms", "a blackout is unexpected above", _bound),
    ("hand_over", "hand-over", str),
    ("post_copy", "post-copy", _post_copy),
    ("vm_state", "state of the VM", str),
    ("memory_mib", "memory of the VM", lambda value: f"{value} MiB"),
)


def settings(request: Mapping[str, Any], plan: Mapping[str, Any]) -> list[Setting]:
    """Return the settings of the plan, or as far as there is none, of the request."""
    origins, known = plan.get("origins") or {}, {**request, **plan}
    if known.get("hand_over") is None:
        # The backend's own is not known before the checks have passed.
        known.pop("hand_over", None)
    rows = [Setting(name, words(known[key]), _origin(key, origins)) for key, name, words in _NAMES if key in known]
    if not plan:
        # What was not asked for is not decided before the checks have passed.
        rows = [_asked(row) for row in rows]
    rows += _disks(plan.get("storage") or {})
    networks = plan.get("networks") or ()
    used = plan.get("network", 0)
    for order, address in enumerate(networks):
        word = "used" if order == used else "did not connect" if order < used else "not needed"
        rows.append(Setting(f"migration network {order + 1}", f"{address} ({word})", _origin("networks", origins)))
    return rows


def _disks(storage: Mapping[str, Any]) -> list[Setting]:
    """Return where each disk goes that moves, and which files are removed at the source afterwards."""
    rows = [
        Setting(f"disk {order}", f"{disk['source']} to {disk['destination']} ({disk['format']})", "request")
        for order, disk in enumerate(storage.get("disks") or (), 1)
    ]
    gone = [file["path"] for file in storage.get("removed") or ()]
    return [*rows, Setting("removed at the source", ", ".join(gone) or "nothing", "request")] if rows else []


def _asked(row: Setting) -> Setting:
    return Setting(row.name, "as the source host is set", "") if row.value == "None" else replace(row, origin="request")


def _origin(key: str, origins: Mapping[str, str]) -> str:
    return str(origins.get(key, ""))
