"""Hand-over and recovery, every order of events within small bounds: what each guard prevents, and what none does."""

from __future__ import annotations

from functools import cache

import pytest

from refimpl.model.phase import ENDS, Phase
from tests.handover_model.checker import Result, check, told
from tests.handover_model.model import DUAL, TWO_HISTORIES, Bounds, Model, violation
from tests.handover_model.world import Options, State, whole

DELEGATED = Options(strict=False)
LEASED = Options(strict=False, lease=True)
SHARED = Options(strict=False, shared_image=True)
STRICT = Options()
BOTH = Options(lease=True)
DISKS = Options(disks=True)
DYING = Bounds(faults=0, deaths=1, recoveries=0, hasty=1, cancels=1)


@cache
def free_of_violations(options: Options, bounds: Bounds) -> Result:
    model = Model(options, bounds)
    result = check(model, progress=True)
    assert result.violation is None, f"{result.violation}\n{told(model, result.trace)}"
    assert result.complete
    return result


def way_to(model: Model, first: State | None, what: str, **known: object) -> State:
    """Return the nearest state of which all this is true."""

    def there(_: Model, state: State) -> str | None:
        return what if all(getattr(state, name) == value for name, value in known.items()) else None

    found = check(model, first=first, judge=there)
    assert found.violation == what, f"the model never comes to: {what}"
    return found.last


@cache
def taken_back(options: Options) -> tuple[Model, State]:
    """S2: the source runs again, and a frozen destination has still to carry out that it shall finish."""
    model = Model(options, Bounds(faults=1, kinds=("freeze",)))
    where = {"sq": "running", "sran": True, "dd": "frozen", "dq": "incoming", "msg": "finish"}
    return model, way_to(model, None, "S2", **where)


def test_without_a_fault_every_order_of_events_completes() -> None:
    for options in (STRICT, BOTH, DELEGATED, LEASED, SHARED):
        assert set(free_of_violations(options, Bounds(faults=0)).ends) == {"completed"}


def test_s2_two_copies_when_neither_strict_nor_leased() -> None:
    model, frozen = taken_back(DELEGATED)
    result = check(model, first=frozen)
    assert result.violation == DUAL
    labels = [move.what for move in result.trace]
    thawed, runs = (
        labels.index(w) for w in ("REPAIR: destination daemon thaws", "destination daemon lets its copy run")
    )
    assert thawed < runs, told(model, result.trace, frozen)


def test_s4_two_copies_when_neither_strict_nor_leased() -> None:
    model = Model(DELEGATED, Bounds(faults=1, kinds=("freeze",)))
    result = check(model)
    assert result.violation == DUAL
    labels = [move.what for move in result.trace]
    order = [
        "destination daemon lets its copy run",
        "FAULT: destination daemon freezes",
        "source daemon lets its copy run again",
    ]
    assert [labels.index(what) for what in order] == sorted(labels.index(what) for what in order)
    assert labels[-1] == order[-1]


@pytest.mark.parametrize("options", [LEASED, SHARED, STRICT], ids=["lease", "image lock", "strict"])
def test_s2_is_prevented_by_each_guard_alone(options: Options) -> None:
    model, frozen = taken_back(options)
    result = check(model, first=frozen)
    assert result.complete, told(model, result.trace, frozen)


@pytest.mark.rule("R1")
@pytest.mark.parametrize("kind", ["crash", "qemu"])
@pytest.mark.parametrize("options", [STRICT, BOTH], ids=["strict", "strict and lease"])
def test_strict_holds_with_a_fault_and_ends(options: Options, kind: str) -> None:
    free_of_violations(options, Bounds(faults=1, kinds=(kind,)))


@pytest.mark.rule("R3")
@pytest.mark.rule("R17")
def test_no_file_goes_that_has_the_disk_as_it_was_last() -> None:
    """And what is of no use any more does go: the source's after a move, the copy after a failure."""
    for bounds in (Bounds(faults=0, deaths=1, cancels=1), Bounds(faults=1, kinds=("qemu",))):
        free_of_violations(DISKS, bounds)
    model = Model(DISKS, Bounds(faults=0, cancels=1))
    assert not way_to(model, None, "moved", sfile=False, dq="running", dfile="own", alive=False).taps
    assert not way_to(model, None, "undone", sq="running", dfile="", alive=False).taps


@pytest.mark.rule("R1")
def test_strict_holds_when_the_controller_dies_anywhere() -> None:
    ends = free_of_violations(STRICT, DYING).ends
    assert {"completed", "failed", "cancelled"} <= set(ends)
    assert "indeterminate" not in ends


def test_delegated_holds_with_a_lease_when_a_daemon_is_killed() -> None:
    free_of_violations(LEASED, Bounds(faults=1, kinds=("crash",)))


def test_delegated_never_holds_against_a_destination_that_dies_while_it_finishes() -> None:
    """No lock helps: the copy has run, its QEMU dies before the answer, the source's daemon resumes older memory."""
    result = check(Model(LEASED, Bounds(faults=1, kinds=("qemu",))))
    assert result.violation == TWO_HISTORIES
    assert any(move.what == "FAULT: destination QEMU is killed" for move in result.trace)


def test_a_lease_that_is_lost_silently_guards_nothing() -> None:
    model = Model(LEASED, Bounds(faults=2, kinds=("lock", "freeze")))
    ran = way_to(model, None, "runs unguarded", dq="running", lease="", sq="stopped", dd="frozen", dlock=False)
    assert check(model, first=ran).violation == DUAL
    strict = Model(BOTH, Bounds(faults=1, kinds=("lock",), deaths=1))
    result = check(strict)
    assert result.complete, told(strict, result.trace)


def test_every_end_is_met_within_the_bounds() -> None:
    """But for three: nothing refuses a transfer that has begun, two copies never run, and post-copy is left out."""
    met: set[str] = set()
    for bounds in (Bounds(faults=1, kinds=("qemu",)), Bounds(faults=1, kinds=("crash",)), DYING):
        met |= set(free_of_violations(STRICT, bounds).ends)
    assert met & ENDS == ENDS - {Phase.REFUSED, Phase.DUAL_RUN, Phase.POSTCOPY_PAUSED}


def taken_back_and_waiting(options: Options) -> tuple[Model, State]:
    """The source runs again, the other copy waits there as it arrived, and one fault more may come."""
    model = Model(options, Bounds(faults=1, kinds=("freeze",)))
    first = way_to(model, None, "waits", sq="running", sran=True, dd="up", dq="arrived", djob="", alive=True)
    model.bounds = Bounds(faults=1, kinds=("qemu",))
    return model, first._replace(faults=1)


def test_a_source_that_ran_on_and_died_is_no_bound_source() -> None:
    """Two faults: libvirt took the VM back while its peer was frozen, and the source's QEMU died afterwards."""
    model, first = taken_back_and_waiting(Options(death_binds=False, removes_blindly=False))
    result = check(model, first=first)
    assert result.complete, told(model, result.trace, first)


def test_it_would_be_taken_for_one_if_any_death_would_bind() -> None:
    model, first = taken_back_and_waiting(Options(death_binds=True))
    result = check(model, first=first)
    assert result.violation == TWO_HISTORIES
    assert whole(result.last)


def test_a_violation_is_told_as_a_trace_that_can_be_followed() -> None:
    model = Model(DELEGATED, Bounds(faults=1, kinds=("freeze",)))
    result = check(model)
    state = model.begin()
    for move in result.trace:
        assert violation(model, state) is None
        assert move.state in [possible.state for possible in model.moves(state)]
        state = move.state
    assert told(model, result.trace).count("\n") == 2 * len(result.trace)
