"""Images of disks that move, made and removed by the program on the host: nothing that is not provably its own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from refimpl.backends.libvirt import imageside

OPERATION, OTHER = "0a1b2c3d", "ffffffff"
MIB = 1 << 20


def disk(path: Path, kind: str = "raw", size: int = 4 * MIB) -> dict[str, Any]:
    return {"path": str(path), "format": kind, "bytes": size}


def make(
    *disks: dict[str, Any], overwrite: bool = False, allowed: list[str] | None = None, by: str = OPERATION
) -> None:
    roots = allowed or imageside.folders_of(list(disks))
    imageside.make({"operation": by, "disks": list(disks), "allowed": roots, "overwrite": overwrite})


def ask(do: str, *folders: Path, by: str = OPERATION, used: tuple[Path, ...] = ()) -> dict[str, Any]:
    question = {
        "operation": by,
        "directories": [str(f) for f in folders],
        "used": dict.fromkeys(map(str, used), "qcow2"),
    }
    return dict(getattr(imageside, do)(question))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_made_then_taken_back(tmp_path: Path) -> None:
    make(disk(tmp_path / "a.raw"), disk(tmp_path / "b.qcow2", "qcow2", 5 * MIB))
    assert (tmp_path / "a.raw").stat().st_size == 4 * MIB
    shown = subprocess.run(
        ["qemu-img", "info", "--output=json", str(tmp_path / "b.qcow2")], capture_output=True, check=True
    )
    told = json.loads(shown.stdout)
    assert (told["format"], told["virtual-size"], "backing-filename" in told) == ("qcow2", 5 * MIB, False)
    assert ask("made", tmp_path) == {"left": [str(tmp_path / "a.raw"), str(tmp_path / "b.qcow2")]}
    assert ask("undo", tmp_path) == {"left": []}
    assert names(tmp_path) == []
    assert ask("undo", tmp_path) == {"left": []}


def test_made_twice_is_made_once(tmp_path: Path) -> None:
    make(disk(tmp_path / "a.raw"))
    first = (tmp_path / "a.raw").stat().st_ino
    make(disk(tmp_path / "a.raw"))
    assert (tmp_path / "a.raw").stat().st_ino == first


def test_adopted_nothing_is_left_of_the_making(tmp_path: Path) -> None:
    make(disk(tmp_path / "a.raw"))
    assert ask("adopt", tmp_path) == {"left": []}
    assert names(tmp_path) == ["a.raw"]
    assert ask("undo", tmp_path) == {"left": []}
    assert names(tmp_path) == ["a.raw"]


@pytest.mark.rule("R17")
def test_a_file_that_is_there_is_refused_and_what_was_made_before_it_is_gone(tmp_path: Path) -> None:
    (tmp_path / "b.raw").write_text("mine")
    with pytest.raises(OSError, match=r"b\.raw exists"):
        make(disk(tmp_path / "a.raw"), disk(tmp_path / "b.raw"))
    assert names(tmp_path) == ["b.raw"]
    assert (tmp_path / "b.raw").read_text() == "mine"


@pytest.mark.rule("R2")
def test_a_file_that_is_overwritten_comes_back(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_text("mine")
    make(disk(tmp_path / "a.raw"), overwrite=True)
    assert (tmp_path / "a.raw").stat().st_size == 4 * MIB
    assert ask("undo", tmp_path) == {"left": []}
    assert (names(tmp_path), (tmp_path / "a.raw").read_text()) == (["a.raw"], "mine")


def test_a_file_that_was_overwritten_is_gone_when_the_vm_has_moved(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_text("mine")
    make(disk(tmp_path / "a.raw"), overwrite=True)
    assert ask("adopt", tmp_path) == {"left": []}
    assert (names(tmp_path), (tmp_path / "a.raw").stat().st_size) == (["a.raw"], 4 * MIB)


def test_another_file_of_that_name_is_left_and_named(tmp_path: Path) -> None:
    make(disk(tmp_path / "a.raw"))
    (tmp_path / "a.raw").unlink()
    (tmp_path / "decoy").write_text("so that the number is not given again")
    (tmp_path / "a.raw").write_text("mine")
    assert ask("undo", tmp_path) == {"left": []}
    assert (tmp_path / "a.raw").read_text() == "mine"


def test_another_file_in_the_place_of_one_that_was_put_aside(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_text("old")
    make(disk(tmp_path / "a.raw"), overwrite=True)
    (tmp_path / "keep").write_text("")
    os.replace(tmp_path / "keep", tmp_path / "a.raw")
    (left,) = ask("undo", tmp_path)["left"]
    assert "there is another file now" in left
    assert any((tmp_path / name).read_text() == "old" for name in names(tmp_path))


def test_a_disk_of_a_vm_is_not_taken_back(tmp_path: Path) -> None:
    make(disk(tmp_path / "a.raw"))
    (left,) = ask("undo", tmp_path, used=(tmp_path / "a.raw",))["left"]
    assert "which is a disk of a VM" in left
    assert (tmp_path / "a.raw").exists()
    assert ask("undo", tmp_path) == {"left": []}
    assert names(tmp_path) == []


def test_what_another_operation_made_stays(tmp_path: Path) -> None:
    make(disk(tmp_path / "a.raw"))
    make(disk(tmp_path / "b.raw"), by=OTHER)
    assert ask("undo", tmp_path, by=OTHER) == {"left": []}
    assert "a.raw" in names(tmp_path)
    assert "b.raw" not in names(tmp_path)


def test_kept_it_is_told_and_forgotten(tmp_path: Path) -> None:
    (tmp_path / "b.raw").write_text("old")
    make(disk(tmp_path / "a.raw"), disk(tmp_path / "b.raw"), overwrite=True)
    told = ask("keep", tmp_path)
    assert [Path(path.split()[0]).name for path in told["kept"]] == ["a.raw", "b.raw", f".refimpl-aside-{OPERATION}-1"]
    assert ask("undo", tmp_path) == {"left": []}
    assert {"a.raw", "b.raw"} <= set(names(tmp_path))


@pytest.mark.parametrize("until", range(1, 40))
def test_killed_at_any_step_nothing_of_it_stays(tmp_path: Path, until: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever call of the system is the last one, what a later look removes is all that was made."""
    (tmp_path / "a.raw").write_text("mine")

    class Killed(BaseException):
        pass

    calls = 0

    def counted(real: Any) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == until:
                raise Killed
            return real(*given, **named)

        return call

    with monkeypatch.context() as patched:
        for name in ("open", "replace", "rename", "link", "unlink", "ftruncate", "fsync"):
            patched.setattr(imageside.os, name, counted(getattr(os, name)))
        try:
            make(disk(tmp_path / "a.raw"), disk(tmp_path / "b.raw"), overwrite=True)
        except Killed:
            pass
        else:
            assert calls < until, "there is nothing to be killed at any more"
    assert ask("undo", tmp_path) == {"left": []}
    assert (names(tmp_path), (tmp_path / "a.raw").read_text()) == (["a.raw"], "mine")


def test_a_link_out_of_the_directory_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(OSError, match="is really"):
        make(disk(tmp_path / "link" / "a.raw"), allowed=[str(tmp_path / "link")])
    assert names(tmp_path / "real") == []


def test_a_link_in_place_of_the_disk_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.raw").symlink_to(tmp_path / "nothing")
    with pytest.raises(OSError, match=r"a\.raw exists"):
        make(disk(tmp_path / "a.raw"))
    assert names(tmp_path) == ["a.raw"]


def retire(*paths: Path, used: tuple[Path, ...] = (), identity: str | None = None, kind: str = "qcow2") -> list[str]:
    gone = [{"path": str(path), "identity": identity or imageside.identity(str(path))} for path in paths]
    have = dict.fromkeys(map(str, used), kind)
    told = imageside.retire({"operation": OPERATION, "files": gone, "used": have, "needed": []})
    return list(told["left"])


@pytest.mark.rule("R3")
def test_a_moved_disk_goes(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_text("old")
    assert retire(tmp_path / "a.raw") == []
    assert names(tmp_path) == []
    assert retire(tmp_path / "a.raw", identity="x") == []


@pytest.mark.rule("R3")
def test_what_is_another_file_by_now_stays(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_text("new")
    (left,) = retire(tmp_path / "a.raw", identity="fs:1:2")
    assert "another file by now" in left
    assert names(tmp_path) == ["a.raw"]


@pytest.mark.rule("R3")
def test_what_another_vm_has_stays_also_when_it_is_only_based_on_it(tmp_path: Path) -> None:
    base, overlay = tmp_path / "base.qcow2", tmp_path / "other.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(base), "1M"], check=True)
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "qcow2", str(overlay)], check=True
    )
    for used in (base, overlay):
        (left,) = retire(base, used=(used,))
        assert "which another VM has" in left
    assert base.exists()
    assert retire(base, used=(overlay,), kind="raw") == [], "a guest can write such a header to a raw disk"


@pytest.mark.rule("R3")
def test_nothing_goes_while_a_disk_of_another_vm_does_not_tell_what_it_is_based_on(tmp_path: Path) -> None:
    base, unclear = tmp_path / "base.qcow2", tmp_path / "other.qcow2"
    for path in (base, unclear):
        path.write_text("no image")
    with pytest.raises(OSError, match=r"other\.qcow2 is based on, a disk of another VM, cannot be told"):
        retire(base, used=(unclear,))
    assert base.exists()


def test_a_link_to_a_disk_stays(tmp_path: Path) -> None:
    (tmp_path / "real.raw").write_text("x")
    (tmp_path / "a.raw").symlink_to(tmp_path / "real.raw")
    (left,) = retire(tmp_path / "a.raw")
    assert "which is a link" in left
    assert names(tmp_path) == ["a.raw", "real.raw"]
