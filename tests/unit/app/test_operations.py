"""Operations and homes without a lab: what cannot be read, started, recovered or found is said with its id."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from refimpl.app import conduct as conduct_module
from refimpl.app import control, operations
from refimpl.app.backends import backend_for
from refimpl.app.conduct import conduct
from refimpl.app.home import Home, OperationFiles, write_json
from refimpl.app.operations import Operation, recover, summarise
from refimpl.app.recovery import Interrupted, interrupted, recover_one
from refimpl.engine import recording
from refimpl.engine.backend import Capabilities
from refimpl.engine.conductor import no_stop
from refimpl.engine.journal import FileJournal
from refimpl.engine.store import Claim, GroupStore
from refimpl.hosts.lock import tried
from refimpl.hosts.process import here, kill
from refimpl.hosts.wait import until
from refimpl.model.errors import RefimplError
from refimpl.model.events import Kind
from refimpl.model.group import Group, ProcessRef
from refimpl.model.learning import record
from refimpl.model.outcome import outcome
from refimpl.model.phase import ExitCode, Phase
from refimpl.model.request import HandOver
from tests.builders import event, ledger, plan, request

DEAD = ProcessRef(pid=1, start_ticks=1, boot_id="another boot")


@pytest.fixture
def group(tmp_path: Path) -> Group:
    GroupStore(tmp_path / "group.db")
    return Group("lab1", "lab", (), str(tmp_path / "group.db"), "/shared", "/leases")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def begun(home: Home, group: Group, id: str = "0a1b2c3d") -> OperationFiles:
    files = home.create(id)
    spec = {"operation": id, "controller": str(home.path), "request": request().to_json(), "group": group.to_json()}
    files.spec.write_text(json.dumps(spec | {"recover": False}))
    return files


def journal(files: OperationFiles, phase: Phase, *, ended: bool = False) -> None:
    file = FileJournal(files.journal)
    known = ledger(operation=files.id)
    file.intend(phase, known, [])
    if ended:
        file.end(phase, known, outcome(known, phase).to_json())
    file.close()


@pytest.mark.error("home.unusable")
def test_a_home_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RefimplError, match=r"home\.unusable") as raised:
        Home(tmp_path / "file").create("x")
    assert raised.value.exit_code is ExitCode.ENVIRONMENT


@pytest.mark.error("operation.unknown")
def test_an_operation_is_found_by_the_beginning_of_its_id(home: Home, group: Group) -> None:
    begun(home, group, "0a1b2c3d")
    begun(home, group, "0affffff")
    assert home.find("0a1").id == "0a1b2c3d"
    for name in ("0a", "", "ffff"):
        with pytest.raises(RefimplError, match=r"operation\.unknown"):
            home.find(name)


@pytest.mark.error("operation.unreadable")
def test_a_spec_that_cannot_be_read(home: Home, group: Group) -> None:
    files = begun(home, group)
    files.spec.write_text("{")
    with pytest.raises(RefimplError, match=r"operation\.unreadable"):
        summarise(files)


@pytest.mark.error("operation.ended", "operation.dead")
def test_cancelling_what_does_not_run(home: Home, group: Group) -> None:
    files = begun(home, group)
    journal(files, Phase.MEMORY)
    with pytest.raises(RefimplError, match=r"operation\.dead"):
        Operation(files).cancel()
    journal(files, Phase.COMPLETED, ended=True)
    with pytest.raises(RefimplError, match=r"operation\.ended"):
        Operation(files).cancel()


@pytest.mark.error("operation.alive")
def test_a_living_conductor_is_not_recovered(home: Home, group: Group) -> None:
    files = begun(home, group)
    write_json(files.process, here(os.getpid()).to_json())
    with pytest.raises(RefimplError, match=r"operation\.alive"):
        recover(home, group, files.id)


@pytest.mark.error("operation.alive")
def test_nor_one_whose_claim_is_that_of_a_living_process(home: Home, group: Group) -> None:
    files = begun(home, group)
    GroupStore(Path(group.store_path)).claim(Claim(files.id, "elsewhere", here(os.getpid()), plan()))
    with pytest.raises(RefimplError, match=r"operation\.alive"):
        recover(home, group, files.id)


@pytest.mark.error("operation.elsewhere")
def test_from_here_another_machines_controller_cannot_be_called_dead(home: Home, group: Group) -> None:
    item = Interrupted("0a1b2c3d", "web", "claim", plan(), "/other/home", elsewhere=True)
    with pytest.raises(RefimplError, match=r"operation\.elsewhere"):
        recover_one(home, group, item)


def test_nothing_is_known_of_an_operation_without_spec_and_plan(home: Home, group: Group) -> None:
    with pytest.raises(RefimplError, match=r"operation\.unknown"):
        recover(home, group, "ffffffff")


@pytest.mark.rule("R1")
@pytest.mark.error("owner.superseded")
@pytest.mark.parametrize("with_journal", [True, False], ids=["journal", "mark"])
def test_a_vm_that_was_moved_on_since_is_no_longer_an_old_moves_to_recover(
    home: Home, group: Group, with_journal: bool
) -> None:
    """It left something behind on a host that was silent; by now the VM is another move's, and stays free to move."""
    store = GroupStore(Path(group.store_path))
    old, later = "0a1b2c3d", "ffffffff"
    ended = recording.decide(store, plan(), old, plan().destination, recording.begin(store, plan(), old))
    if with_journal:
        files = begun(home, group, old)
        file = FileJournal(files.journal)
        known = ledger(operation=old, plan=plan(), ownership=ended, claimed=True, left_behind=("a file",))
        file.end(Phase.COMPLETED_WITH_WARNINGS, known, outcome(known, Phase.COMPLETED_WITH_WARNINGS).to_json())
        file.close()
    onward = plan(source=plan().destination, destination="h3", epoch=ended.epoch)
    moved = recording.decide(store, onward, later, "h3", recording.begin(store, onward, later))
    store.claim(Claim(old, "/some/home", DEAD, plan()))
    with pytest.raises(RefimplError, match=r"owner\.superseded"):
        recover(home, group, old, None if with_journal else plan())
    assert (store.owner(plan().vm_id), store.claims()) == (moved, ())


def test_what_was_interrupted_is_found_by_journal_or_claim_and_once(home: Home, group: Group) -> None:
    journal(begun(home, group, "aaaaaaaa"), Phase.MEMORY)
    journal(begun(home, group, "bbbbbbbb"), Phase.COMPLETED, ended=True)
    journal(begun(home, group, "cccccccc"), Phase.INDETERMINATE, ended=True)
    journal(begun(home, replace(group, id="another lab"), "dddddddd"), Phase.MEMORY)
    store = GroupStore(Path(group.store_path))
    for id in ("aaaaaaaa", "eeeeeeee"):
        store.claim(Claim(id, "/some/home", DEAD, plan(vm_id=id)))
    found = {item.operation: (item.found_by, item.elsewhere) for item in interrupted(home, group)}
    assert found == {
        "aaaaaaaa": ("journal", False),
        "cccccccc": ("journal", False),
        "eeeeeeee": ("claim", True),
    }


@pytest.mark.error("backend.unknown")
def test_an_unknown_backend(group: Group) -> None:
    with pytest.raises(RefimplError, match=r"backend\.unknown"):
        backend_for(replace(group, backend="simulated"), lambda _: None)


@pytest.mark.error("backend.not_installed")
def test_a_backend_whose_library_is_missing(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libvirt", None)
    for name in [n for n in sys.modules if n.startswith("refimpl.backends.libvirt")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(RefimplError, match=r"backend\.not_installed"):
        backend_for(group, lambda _: None)


@pytest.mark.error("lab.gone")
def test_a_conductor_whose_lab_went_away_says_so(home: Home, group: Group) -> None:
    files = begun(home, replace(group, management_netns="refimpl-no-such-lab"))
    with pytest.raises(RefimplError, match=r"lab\.gone"):
        conduct(files, no_stop)


def test_an_operation_that_is_just_being_started_can_be_listed(home: Home, group: Group) -> None:
    files = begun(home, group)
    assert summarise(files).phase is Phase.NEW
    files.journal.touch()
    assert (summarise(files).phase, files.lines()) == (Phase.NEW, [])
    assert files.journal.stat().st_size == 0


def test_reading_a_journal_does_not_write_it(home: Home, group: Group) -> None:
    files = begun(home, group)
    journal(files, Phase.MEMORY)
    before = (files.journal.read_bytes(), sorted(files.directory.iterdir()))
    with files.reading() as reader:
        assert reader is not None
        with pytest.raises(RefimplError, match=r"readonly"):
            reader.end(Phase.FAILED, ledger(), {})
    assert (files.journal.read_bytes(), sorted(files.directory.iterdir())) == before


def test_a_journal_is_read_while_it_is_written_and_after_its_writer_was_killed(home: Home, group: Group) -> None:
    files, killed = begun(home, group), begun(home, group, "11111111")
    writer = FileJournal(files.journal)
    writer.intend(Phase.MEMORY, ledger(), [])
    assert summarise(files).phase is Phase.MEMORY
    # What stands on the disk when its writer was killed and the machine's memory is gone: no index beside the log.
    for path in (files.journal, files.journal.with_name("journal.db-wal")):
        (killed.directory / path.name).write_bytes(path.read_bytes())
    writer.close()
    assert summarise(killed).phase is Phase.MEMORY


@pytest.mark.error("journal.failed")
def test_a_journal_that_is_none_is_said_with_its_path(home: Home, group: Group) -> None:
    files = begun(home, group)
    files.journal.write_text("no database at all, but long enough to be looked at" * 20)
    with pytest.raises(RefimplError, match=r"journal\.failed"):
        files.standing()


def test_a_reader_sees_the_whole_file_or_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"number": 1})
    with path.open() as reader:
        write_json(path, {"number": 2})
        assert json.load(reader) == {"number": 1}
    assert json.loads(path.read_text()) == {"number": 2}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.error("operation.alive")
def test_there_is_one_conductor_at_a_time(home: Home, group: Group) -> None:
    files = begun(home, group)
    with tried(files.lock) as held:
        assert held
        with pytest.raises(RefimplError, match=r"operation\.alive"):
            conduct(files, no_stop)


@pytest.mark.error("store.missing")
def test_a_conductor_that_cannot_begin_lets_its_followers_go(
    home: Home, group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Idle:
        def close(self) -> None:
            """Nothing is open."""

    followed: list[object] = []
    files = begun(home, replace(group, store_path="/nonexistent/group.db"))
    file = FileJournal(files.journal)
    file.note(event(Kind.STARTED))
    file.flush(Phase.NEW, ledger(plan=None))
    file.close()

    def backend(*_: object) -> Idle:
        follower.start()
        assert until(lambda: bool(followed), 10.0, 0.01)
        return Idle()

    follower = threading.Thread(target=lambda: followed.extend(control.follow(files.socket)))
    monkeypatch.setattr(conduct_module, "backend_for", backend)
    with pytest.raises(RefimplError, match=r"store\.missing"):
        conduct(files, no_stop)
    follower.join(20)
    assert not follower.is_alive()
    assert not files.socket.exists()


@pytest.mark.error("store.missing", "store.failed")
def test_without_a_group_store_that_can_be_used_no_move_is_begun(home: Home, group: Group, tmp_path: Path) -> None:
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"this is no database" * 100)
    for path, id in (("/nonexistent/group.db", "store.missing"), (str(broken), "store.failed")):
        with pytest.raises(RefimplError) as refused:
            operations.start(home, replace(group, store_path=path), request())
        assert refused.value.problems[0].id == id
    assert list(home.all()) == []


def test_the_plan_of_the_claim_serves_when_only_the_journal_is_gone(home: Home, group: Group) -> None:
    begun(home, group, "aaaaaaaa")
    GroupStore(Path(group.store_path)).claim(Claim("aaaaaaaa", "/some/home", DEAD, plan(vm_id="aaaaaaaa")))
    (item,) = interrupted(home, group)
    assert (item.found_by, item.plan) == ("claim", plan(vm_id="aaaaaaaa"))


def test_one_that_cannot_be_read_does_not_keep_the_others(home: Home, group: Group) -> None:
    begun(home, group, "aaaaaaaa").spec.write_text("{")
    journal(begun(home, group, "bbbbbbbb"), Phase.MEMORY)
    assert [item.operation for item in interrupted(home, group)] == ["bbbbbbbb"]


def test_what_left_something_behind_can_be_recovered(home: Home, group: Group) -> None:
    files = begun(home, group)
    left = record(ledger(operation=files.id), event(Kind.LEFT_BEHIND, items=["a mark"]), Phase.CLEANUP)
    file = FileJournal(files.journal)
    file.end(Phase.FAILED, left, outcome(left, Phase.FAILED).to_json())
    file.close()
    assert summarise(files).needs_recovery


def test_half_a_line_of_a_killed_conductor_ends_the_following(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    listener.listen()

    def die_in_the_middle() -> None:
        connection, _ = listener.accept()
        connection.recv(1000)
        connection.sendall(b'{"seq": 1, "event": {}}\n{"seq": 2, "ev')
        connection.close()

    conductor = threading.Thread(target=die_in_the_middle)
    conductor.start()
    assert list(control.follow(tmp_path / "socket")) == [{"seq": 1, "event": {}}]
    conductor.join()
    listener.close()


def test_of_a_lab_that_is_gone_nothing_is_left_to_recover(home: Home, group: Group) -> None:
    files = begun(home, replace(group, store_path="/nonexistent/lab/group.db"))
    journal(files, Phase.MEMORY)
    assert summarise(files).lab_gone
    assert not summarise(files).needs_recovery


def test_one_that_is_just_being_started_is_not_interrupted(
    home: Home, group: Group, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    seen: list[bool] = []

    def look(*_: object) -> bool:
        (files,) = home.all()
        seen.append(summarise(files).needs_recovery)
        reference = files.conductor()
        assert reference is not None
        kill(reference)
        return True

    monkeypatch.setattr(sys, "executable", str(slow))
    monkeypatch.setattr(operations, "until", look)
    operations.start(home, group, request())
    assert seen[0] is False


@pytest.mark.error("operation.unreadable")
def test_files_of_another_version_are_said_to_be_such(home: Home, group: Group) -> None:
    files = begun(home, group)
    spec = files.read_spec()
    files.spec.write_text(json.dumps(spec | {"request": {"vm": "web", "shape": "older"}}))
    with pytest.raises(RefimplError, match="not this version's") as caught:
        summarise(files)
    assert caught.value.problems[0].id == "operation.unreadable"


STRICT_ONLY = Capabilities(HandOver.STRICT, True, True, True, True, True, True)


def test_a_move_calls_its_group_as_the_user_called_it(home: Home, group: Group) -> None:
    files = begun(home, group)
    journal = FileJournal(files.journal)
    _, known, _ = conduct_module._standing(files.read_spec(), journal, STRICT_ONLY)
    journal.close()
    assert known.group == group.name
