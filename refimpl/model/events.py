"""The one event stream: progress, log, JSON lines, reports and checkers all read these events (rule 5).

An event is a fact reported by a backend, a wish of a person or of the clock, a decision of a policy, or a note of the
engine itself. `FIELDS` lists for each kind which values it carries; an event with other values cannot be made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from enum import StrEnum
from typing import Any

from refimpl.model.errors import Native
from refimpl.model.phase import Side

SCHEMA_VERSION = 1


class Kind(StrEnum):
    """What happened."""

    # person and clock
    STARTED = "started"
    CANCEL_WISHED = "cancel-wished"
    BANDWIDTH_WISHED = "bandwidth-wished"
    POSTCOPY_WISHED = "post-copy-wished"
    RECOVER_WISHED = "recover-wished"
    DEADLINE = "deadline"
    LOOK_DUE = "look-due"
    # facts from a backend (claims and owner records: from the group store)
    FACTS_SEEN = "facts-seen"
    CLAIMED = "claimed"
    CLAIM_REFUSED = "claim-refused"
    PENDING_RECORDED = "pending-recorded"
    COMMIT_RECORDED = "commit-recorded"
    POSTCOPY_RECORDED = "post-copy-recorded"
    SOURCE_RECORDED = "source-recorded"
    DESTINATION_RECORDED = "destination-recorded"
    RECORD_REFUSED = "record-refused"
    PREPARED = "prepared"
    NETWORK_FAILED = "network-failed"
    PREPARE_FAILED = "prepare-failed"
    NATIVE_REFUSAL = "native-refusal"
    TRANSFER_STARTED = "transfer-started"
    STORAGE_SEEN = "storage-seen"
    MEMORY_SEEN = "memory-seen"
    SWITCH_SEEN = "switch-seen"
    POSTCOPY_SEEN = "post-copy-seen"
    POSTCOPY_BROKEN = "post-copy-broken"
    POSTCOPY_ENDED = "post-copy-ended"
    POSTCOPY_RESUMED = "post-copy-resumed"
    POSTCOPY_NOT_RESUMED = "post-copy-not-resumed"
    PASS_ENDED = "pass-ended"
    PROGRESS = "progress"
    SOURCE_STOPPED = "source-stopped"
    SOURCE_RESUMED = "source-resumed"
    DESTINATION_ARRIVED = "destination-arrived"
    BINDING_SEEN = "binding-seen"
    SOURCE_ENDED = "source-ended"
    SOURCE_NOT_ENDED = "source-not-ended"
    SOURCE_GOES_ON = "source-goes-on"
    FENCED = "fenced"
    FENCE_FAILED = "fence-failed"
    SOURCE_FOUND_RUNNING = "source-found-running"
    DESTINATION_RAN = "destination-ran"
    LEFT_PAUSED = "left-paused"
    RUN_REFUSED = "run-refused"
    SOURCE_GONE = "source-gone"
    CANCEL_ACCEPTED = "cancel-accepted"
    CANCEL_TOO_LATE = "cancel-too-late"
    CANCEL_UNSUPPORTED = "cancel-unsupported"
    STEERED = "steered"
    NOT_STEERABLE = "not-steerable"
    CALL_RETURNED = "call-returned"
    LOCK_DAEMON_GONE = "lock-daemon-gone"
    LEASE_SPACE_GONE = "lease-space-gone"
    EVIDENCE_SEEN = "evidence-seen"
    ADOPTED_STORAGE = "adopted-storage"
    ADOPTED_MEMORY = "adopted-memory"
    ADOPTED_SWITCH = "adopted-switch"
    ADOPTED_POSTCOPY = "adopted-post-copy"
    HALVES_ENDED = "halves-ended"
    SETTLED = "settled"
    CANNOT_SETTLE = "cannot-settle"
    CLEANED = "cleaned"
    LEFT_BEHIND = "left-behind"
    # decisions of policies
    NOTHING_TOUCHED = "nothing-touched"
    LOOK_AGAIN = "look-again"
    TIDY_AGAIN = "tidy-again"
    CHECKS_PASSED = "checks-passed"
    CHECKS_REFUSED = "checks-refused"
    NEXT_NETWORK = "next-network"
    NO_NETWORK_LEFT = "no-network-left"
    PASS_LIMIT_REACHED = "pass-limit-reached"
    BLACKOUT_TOO_LONG = "blackout-too-long"
    POSTCOPY_DUE = "post-copy-due"
    POSTCOPY_NOT_STARTED = "post-copy-not-started"
    LEASE_UNSAFE = "lease-unsafe"
    SOURCE_BOUND = "source-bound"
    SOURCE_SILENT = "source-silent"
    FENCE_DUE = "fence-due"
    SOURCE_OWNS = "source-owns"
    DESTINATION_OWNS = "destination-owns"
    JOB_STILL_RUNS = "job-still-runs"
    BOTH_RAN = "both-ran"
    MEMORY_GONE = "memory-gone"
    POSTCOPY_PENDING = "post-copy-pending"
    POSTCOPY_RECOVERABLE = "post-copy-recoverable"
    POSTCOPY_LOST = "post-copy-lost"
    GUEST_ENDED = "guest-ended"
    HOST_SILENT = "host-silent"
    UNKNOWN = "unknown"
    UNDONE_REFUSED = "undone-refused"
    UNDONE_FAILED = "undone-failed"
    UNDONE_CANCELLED = "undone-cancelled"
    FINISHED = "finished"
    FINISHED_WITH_WARNINGS = "finished-with-warnings"
    SETTLED_LOST = "settled-lost"
    SETTLED_DUAL_RUN = "settled-dual-run"
    # notes of the engine: never in the table
    PHASE_ENTERED = "phase-entered"
    COMMANDED = "commanded"
    JOURNAL_LOST = "journal-lost"


_PERSON = (
    Kind.STARTED,
    Kind.CANCEL_WISHED,
    Kind.BANDWIDTH_WISHED,
    Kind.POSTCOPY_WISHED,
    Kind.RECOVER_WISHED,
    Kind.DEADLINE,
    Kind.LOOK_DUE,
)
_ENGINE = (Kind.PHASE_ENTERED, Kind.COMMANDED, Kind.JOURNAL_LOST)
DECISIONS = frozenset(list(Kind)[list(Kind).index(Kind.NOTHING_TOUCHED) : list(Kind).index(Kind.PHASE_ENTERED)])
NOTES = frozenset(_ENGINE)
WISHES = frozenset(_PERSON)

FIELDS: dict[Kind, tuple[str, ...]] = {
    Kind.STARTED: ("request",),
    Kind.BANDWIDTH_WISHED: ("mib_s",),
    Kind.DEADLINE: ("name", "problem"),
    Kind.FACTS_SEEN: ("facts",),
    Kind.CLAIM_REFUSED: ("problem",),
    Kind.PENDING_RECORDED: ("ownership",),
    Kind.COMMIT_RECORDED: ("cost_ms", "ownership"),
    Kind.POSTCOPY_RECORDED: ("ownership",),
    Kind.SOURCE_RECORDED: ("ownership",),
    Kind.DESTINATION_RECORDED: ("ownership",),
    Kind.RECORD_REFUSED: ("problem",),
    Kind.PREPARED: ("address",),
    Kind.NETWORK_FAILED: ("address", "problem"),
    Kind.PREPARE_FAILED: ("problem",),
    Kind.NATIVE_REFUSAL: ("problem",),
    Kind.TRANSFER_STARTED: ("reference",),
    Kind.POSTCOPY_BROKEN: ("reason",),
    Kind.POSTCOPY_NOT_RESUMED: ("problem",),
    Kind.PASS_ENDED: ("number", "remaining_bytes", "bytes_s"),
    Kind.PROGRESS: (
        "total_bytes",
        "remaining_bytes",
        "sent_bytes",
        "dirty_bytes_s",
        "bytes_s",
        "disks_total_bytes",
        "disks_remaining_bytes",
        "disks_sent_bytes",
    ),
    Kind.BINDING_SEEN: ("bound", "reason", "silent_ms"),
    Kind.SOURCE_NOT_ENDED: ("reason",),
    Kind.FENCED: ("proof", "stood"),
    Kind.FENCE_FAILED: ("problem",),
    Kind.DESTINATION_RAN: ("port_ms",),
    Kind.RUN_REFUSED: ("problem",),
    Kind.CANCEL_TOO_LATE: ("reason",),
    Kind.CANCEL_UNSUPPORTED: ("reason",),
    Kind.STEERED: ("what",),
    Kind.NOT_STEERABLE: ("what", "reason"),
    Kind.CALL_RETURNED: ("ok", "problem", "sent_bytes", "qemu_downtime_ms", "disks_sent_bytes"),
    Kind.LEASE_SPACE_GONE: ("path", "detail"),
    Kind.EVIDENCE_SEEN: ("evidence",),
    Kind.SETTLED: ("lease_taken", "pause_ms"),
    Kind.CANNOT_SETTLE: ("problem",),
    Kind.CLEANED: ("kept",),
    Kind.LEFT_BEHIND: ("items", "kept"),
    Kind.CHECKS_PASSED: ("plan", "warnings", "checked"),
    Kind.CHECKS_REFUSED: ("problems", "checked"),
    Kind.NEXT_NETWORK: ("plan",),
    Kind.NO_NETWORK_LEFT: ("problem",),
    Kind.PASS_LIMIT_REACHED: ("passes",),
    Kind.BLACKOUT_TOO_LONG: ("problem",),
    Kind.POSTCOPY_DUE: ("why",),
    Kind.LEASE_UNSAFE: ("problem",),
    Kind.SOURCE_BOUND: ("why",),
    Kind.SOURCE_SILENT: ("why",),
    Kind.FENCE_DUE: ("why", "host"),
    Kind.RECOVER_WISHED: ("force", "ownership"),
    Kind.SOURCE_OWNS: ("why", "may_have_run"),
    Kind.DESTINATION_OWNS: ("why", "state"),
    Kind.JOB_STILL_RUNS: ("why",),
    Kind.BOTH_RAN: ("why",),
    Kind.MEMORY_GONE: ("why", "host", "older"),
    Kind.POSTCOPY_PENDING: ("why",),
    Kind.POSTCOPY_RECOVERABLE: ("why",),
    Kind.POSTCOPY_LOST: ("why", "host"),
    Kind.GUEST_ENDED: ("why",),
    Kind.HOST_SILENT: ("why",),
    Kind.UNKNOWN: ("why",),
    Kind.FINISHED_WITH_WARNINGS: ("warnings",),
    Kind.PHASE_ENTERED: ("phase",),
    Kind.COMMANDED: ("command",),
    Kind.JOURNAL_LOST: ("problem",),
}


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `at_ns`: nanoseconds since the epoch by the clock of `host` (virtual time in the simulated backend).

    Optional values may be left out or None. `native` is what the system below said, word for word.
    """

    kind: Kind
    at_ns: int
    values: Mapping[str, Any] = field(default_factory=dict)
    side: Side | None = None
    host: str | None = None
    native: Native | None = None

    def __post_init__(self) -> None:
        extra = set(self.values) - set(FIELDS.get(self.kind, ()))
        if extra:
            raise ValueError(f"event {self.kind} does not carry {sorted(extra)}")

    def __getitem__(self, name: str) -> Any:
        """Return a value of the event, None when it was left out."""
        if name not in FIELDS.get(self.kind, ()):
            raise KeyError(f"event {self.kind} has no value {name!r}")
        return self.values.get(name)

    @property
    def origin(self) -> str:
        """Who says so: `wish` (person, clock), `fact` (backend), `decision` (policy) or `note` (engine)."""
        for name, kinds in (("wish", WISHES), ("decision", DECISIONS), ("note", NOTES)):
            if self.kind in kinds:
                return name
        return "fact"

    def to_json(self) -> dict[str, Any]:
        """Return the event as plain JSON values, keys in a fixed order, with the schema's version."""
        return {
            "schema": SCHEMA_VERSION,
            "kind": self.kind,
            "origin": self.origin,
            "at_ns": self.at_ns,
            "side": self.side,
            "host": self.host,
            "values": {name: plain(value) for name, value in self.values.items()},
            "native": None if self.native is None else plain(self.native),
        }


def plain(value: Any) -> Any:
    """Turn model values into plain JSON values."""
    if hasattr(value, "to_json") and not isinstance(value, type):
        return plain(value.to_json())
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, frozenset | set):
        return sorted(plain(v) for v in value)
    return value
