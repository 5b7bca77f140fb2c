"""What is known of a fence: how a host is cut off that does not answer, and that this was tried (ADR 15)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OWN, NONE = "own", "none"


@dataclass(frozen=True, slots=True)
class FenceSetting:
    """How a host is fenced. `agent`: `own` (what belongs to its kind of host), `none`, or the path of a fence agent.

    `options`: what the agent is told beside the action, as `name=value` words. `tried_ns`: when it last told that the
    host is on, nanoseconds since the epoch; None: never, with this agent and these options.
    """

    agent: str = OWN
    options: str = ""
    tried_ns: int | None = None

    @property
    def exists(self) -> bool:
        """Whether there is one at all."""
        return self.agent != NONE

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values that `from_json` reads back."""
        return {"agent": self.agent, "options": self.options, "tried_ns": self.tried_ns}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> FenceSetting:
        """Build a setting from what `to_json` gave."""
        return cls(**data)


OWN_FENCE = FenceSetting()
"""What a host has whose setting nobody has changed."""


@dataclass(frozen=True, slots=True)
class FenceOrder:
    """The order to cut a host off, and how."""

    host: str
    setting: FenceSetting
