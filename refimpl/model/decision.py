"""The shape of a decision: an event's kind and values, to which the conductor adds the time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from refimpl.model.events import Kind


class Decision(NamedTuple):
    """A decision event in the making."""

    kind: Kind
    values: Mapping[str, Any]


def decision(kind: Kind, **values: Any) -> Decision:
    """Return a decision."""
    return Decision(kind, values)
