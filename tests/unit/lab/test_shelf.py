"""Finding, listing, refusing and removing labs, as far as it needs no root: the directories, the lock, the registry."""

from __future__ import annotations

import subprocess
import sys
from itertools import chain, repeat
from pathlib import Path

import pytest

from refimpl.lab import LabError, LabState, list_labs, reap, shelf
from refimpl.lab.builder import Wish
from refimpl.lab.layout import LabPaths
from refimpl.lab.registry import Registry


def reserve(root: Path, lab_id: str, name: str = "mine") -> LabPaths:
    """Reserve a lab and let go of it at once, as a killed builder does."""
    with shelf.reserve(Wish(name), root, lambda: lab_id) as place:
        return place.paths


def identifier(error: pytest.ExceptionInfo[LabError]) -> str:
    return error.value.id


def test_no_state_directory_means_no_labs(tmp_path: Path) -> None:
    assert list_labs(tmp_path / "none") == ()
    assert reap(root=tmp_path / "none") == ()


@pytest.mark.error("lab.busy")
def test_a_lab_under_construction_is_seen_and_left_alone(tmp_path: Path) -> None:
    with shelf.reserve(Wish("mine"), tmp_path, lambda: "abc123"):
        (summary,) = list_labs(tmp_path)
        assert (summary.name, summary.state, summary.complete) == ("mine", LabState.BUILDING, False)
        assert reap(root=tmp_path) == ()
        with pytest.raises(LabError) as caught:
            shelf.remove(LabPaths(tmp_path, "abc123"))
        assert identifier(caught) == "lab.busy"
    assert list_labs(tmp_path)[0].state is LabState.BROKEN


def test_what_a_killed_builder_left_is_reaped(tmp_path: Path) -> None:
    paths = reserve(tmp_path, "abc123")
    (paths.hosts / "h1").mkdir(parents=True)
    (removal,) = reap(root=tmp_path)
    assert removal.left_behind == ()
    assert removal.removed == (f"directory {paths.directory}",)
    assert not paths.directory.exists()
    assert shelf.remove(paths).removed == ()


def test_only_the_named_lab_is_reaped(tmp_path: Path) -> None:
    reserve(tmp_path, "abc123", "one")
    other = reserve(tmp_path, "abc124", "two")
    assert [r.lab_id for r in reap(("one",), tmp_path)] == ["abc123"]
    assert other.directory.exists()


def test_look_alikes_in_the_state_directory_survive(tmp_path: Path) -> None:
    reserve(tmp_path, "abc123")
    for name in ("abc123x", "abc12", "refimpl-abc123", "ABCDEF"):
        (tmp_path / name).mkdir()
    (tmp_path / "abcdef").write_text("a file, not a lab")
    reap(root=tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"abc123x", "abc12", "refimpl-abc123", "ABCDEF", "abcdef", ".lock"}


def test_an_empty_directory_of_a_lab_id_was_left_by_a_builder_killed_at_its_first_step(tmp_path: Path) -> None:
    (tmp_path / "abc123").mkdir()
    reap(root=tmp_path)
    assert not (tmp_path / "abc123").exists()


def test_a_directory_of_a_lab_id_with_content_but_no_registry_is_reported_and_kept(tmp_path: Path) -> None:
    (tmp_path / "abc123").mkdir()
    (tmp_path / "abc123/thesis.txt").write_text("not a lab")
    (removal,) = reap(root=tmp_path)
    assert [(i.kind, i.name) for i in removal.left_behind] == [("directory", str(tmp_path / "abc123"))]
    assert (tmp_path / "abc123/thesis.txt").read_text() == "not a lab"


def test_a_copy_of_a_lab_in_its_place_is_reported_and_kept(tmp_path: Path) -> None:
    paths = reserve(tmp_path, "abc123")
    subprocess.run(["cp", "-a", paths.directory, tmp_path / "copy"], check=True)
    paths.directory.rename(tmp_path / "moved")
    (tmp_path / "copy").rename(paths.directory)
    (removal,) = reap(root=tmp_path)
    assert [i.reason for i in removal.left_behind] == ["it is not the directory that the lab made"]
    assert paths.registry.exists()


def test_a_link_below_the_lab_is_removed_and_not_followed(tmp_path: Path) -> None:
    paths = reserve(tmp_path / "labs", "abc123")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").write_text("kept")
    (paths.directory / "link").symlink_to(tmp_path / "precious")
    reap(root=tmp_path / "labs")
    assert (tmp_path / "precious/file").read_text() == "kept"
    assert not paths.directory.exists()


@pytest.mark.error("lab.exists")
def test_a_name_is_taken_until_the_lab_is_gone(tmp_path: Path) -> None:
    reserve(tmp_path, "abc123")
    with pytest.raises(LabError) as caught:
        reserve(tmp_path, "abc124")
    assert identifier(caught) == "lab.exists"
    assert not (tmp_path / "abc124").exists()
    reap(root=tmp_path)
    reserve(tmp_path, "abc124")


def test_an_id_that_is_taken_is_not_used_twice(tmp_path: Path) -> None:
    reserve(tmp_path, "abc123")
    ids = chain(repeat("abc123", 3), ["abc124"])
    with shelf.reserve(Wish("other"), tmp_path, lambda: next(ids)) as place:
        assert place.paths.id == "abc124"
    with pytest.raises(RuntimeError, match="taken"):
        shelf.reserve(Wish("third"), tmp_path, lambda: "abc123")


@pytest.mark.error("lab.unknown")
def test_an_unknown_lab_is_named_with_those_that_are_known(tmp_path: Path) -> None:
    reserve(tmp_path, "abc123", "mine")
    with pytest.raises(LabError, match="known: mine") as caught:
        shelf.find("yours", tmp_path)
    assert identifier(caught) == "lab.unknown"
    assert shelf.find("mine", tmp_path) == shelf.find("abc123", tmp_path)


@pytest.mark.error("lab.unfinished")
def test_a_half_made_lab_is_not_opened(tmp_path: Path) -> None:
    from refimpl.lab import Lab

    reserve(tmp_path, "abc123")
    with pytest.raises(LabError) as caught:
        Lab.open("mine", tmp_path)
    assert identifier(caught) == "lab.unfinished"


def test_a_lab_of_an_earlier_boot_is_broken_and_one_that_is_switched_off_is_not(tmp_path: Path) -> None:
    from refimpl.hosts.process import boot_id
    from refimpl.lab.registry import Item, Kind

    for lab_id, boot in (("abc123", "an-earlier-boot"), ("abc124", boot_id())):
        paths = reserve(tmp_path, lab_id, lab_id)
        registry = Registry(paths.registry)
        registry.made({Item(Kind.PROCESS, "init h1"): {"pid": 2**22 + 1, "start_ticks": 1, "boot_id": boot}})
        registry.note("complete")
    assert [s.state for s in list_labs(tmp_path)] == [LabState.BROKEN, LabState.OFF]
    assert [r.lab_id for r in reap(root=tmp_path)] == ["abc123"]


def test_a_process_that_is_killed_frees_its_lock(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from refimpl.lab import shelf; from refimpl.lab.builder import Wish\n"
        "with shelf.reserve(Wish('mine'), pathlib.Path(sys.argv[1]), lambda: 'abc123'):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert list_labs(tmp_path)[0].state is LabState.BUILDING
    holder.kill()
    holder.communicate()
    assert list_labs(tmp_path)[0].state is LabState.BROKEN
