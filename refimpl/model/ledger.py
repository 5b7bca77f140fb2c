"""What the engine has learned of one migration so far: a fold over its events, the input of every policy.

The ledger knows no phase and decides nothing. What an event adds to it is in `learning`; the journal keeps it as JSON,
so a recovery starts from the same knowledge (rule 6).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from refimpl.model.errors import Problem
from refimpl.model.events import Kind, plain
from refimpl.model.ownership import OwnerRecord
from refimpl.model.request import HandOver, MigrationRequest, Plan


@dataclass(frozen=True, slots=True)
class Ledger:
    """Knowledge of one migration. Times are nanoseconds since the epoch, each by the clock of the host that told it.

    `group` is the group's name, as findings tell it.
    `problems` say why it will not end as completed, `warnings` what a user has to know although it does.
    `owner` is the last decision of reconciliation. `interrupted`: its controller died and was recovered. `switched`:
    the switch was seen to begin. `claimed`: the VM was claimed, and only then anything on a host may have been touched.
    `blackout_refused`: a policy asked for the cancel, as the blackout would be too long; `cancel_asked_ns`: when it did
    so last, `cancels_unheeded`: how often it asked again for one that had not been refused; `lease_unsafe`: as a lock
    daemon had ended. `port_ms`: how long opening the destination's switch port took, most of it while the copy began to
    run. `ownership`: the owner record as
    it stands for this operation. `left_on`: the host that has the definition of a VM that was lost. `source_ran_on`:
    the source was seen to take the VM back after all had arrived at the destination. `source_older`: a
    copy was found there although the VM had run at the destination since. `ends_source`: the
    silent source's process is to be ended and no answer to that has come yet.
    `forced`: a host that does not answer may be fenced; `to_fence`: it is to be; `fenced`: those that were. `stood`: of
    a fenced source, whether its copy was seen not to have been taken back, in the instant in which it was ended.
    `remaining_bytes`, `bytes_s` and `sent_so_far_bytes` are the latest figures of the transfer. `stalls`: how often it
    was to be broken off because it carried nothing.
    `post_copy`: the VM was seen in post-copy, since `post_copy_ns`, and whole since `whole_ns`. `post_copy_wished`: a
    person asked for it; `post_copy_asked`: the transfer was asked for it, which it `post_copy_refused`.
    `post_copy_stuck`: it carries nothing. `post_copy_recoveries`: how often it was resumed since a person said so.
    """

    operation: str
    group: str
    request: MigrationRequest
    hand_over: HandOver = HandOver.STRICT
    plan: Plan | None = None
    ownership: OwnerRecord | None = None
    left_on: str | None = None
    source_ran_on: bool = False
    ends_source: bool = False
    source_older: bool = False
    forced: bool = False
    to_fence: str | None = None
    fenced: tuple[str, ...] = ()
    stood: bool | None = None
    owner: Kind | None = None
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    refused: bool = False
    interrupted: bool = False
    switched: bool = False
    claimed: bool = False
    both_ran: bool = False
    cancel_wished: bool = False
    cancel_accepted: bool = False
    cancel_too_late: bool = False
    blackout_refused: bool = False
    cancel_asked_ns: int | None = None
    cancels_unheeded: int = 0
    lease_unsafe: bool = False
    left_paused: bool = False
    passes: int = 0
    steered: bool = False
    run_refusals: int = 0
    looks: int = 0
    silent_looks: int = 0
    networks_tried: tuple[str, ...] = ()
    left_behind: tuple[str, ...] = ()
    started_ns: int | None = None
    stop_ns: int | None = None
    resume_ns: int | None = None
    ended_ns: int | None = None
    remaining_bytes: int | None = None
    bytes_s: float | None = None
    sent_so_far_bytes: int | None = None
    disks_sent_bytes: int | None = None
    stalls: int = 0
    port_ms: float | None = None
    sent_bytes: int | None = None
    qemu_downtime_ms: float | None = None
    commit_cost_ms: float | None = None
    post_copy: bool = False
    post_copy_wished: bool = False
    post_copy_asked: bool = False
    post_copy_refused: bool = False
    post_copy_stuck: bool = False
    post_copy_recoveries: int = 0
    post_copy_ns: int | None = None
    whole_ns: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary that `from_json` reads back."""
        return {name: plain(getattr(self, name)) for name in self.__slots__}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Ledger:
        """Build a ledger from what `to_json` gave."""
        values = dict(data)
        values["request"] = MigrationRequest.from_json(values["request"])
        values["plan"] = Plan.from_json(values["plan"]) if values["plan"] else None
        recorded = values["ownership"]
        values["ownership"] = OwnerRecord.from_json(recorded) if recorded else None
        values["hand_over"] = HandOver(values["hand_over"])
        values["owner"] = Kind(values["owner"]) if values["owner"] else None
        for name in ("problems", "warnings"):
            values[name] = tuple(Problem.from_json(p) for p in values[name])
        for name in ("networks_tried", "left_behind", "fenced"):
            values[name] = tuple(values[name])
        return cls(**values)
