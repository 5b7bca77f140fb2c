"""What is kept of a VM: names that it can have, addresses, and what no two of them may share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from refimpl.app.vm_record import NicRecord, VmRecord, VmShelf, require_name
from refimpl.guest import GuestParameters
from refimpl.lab.forward import Forward
from refimpl.model.errors import RefimplError
from refimpl.model.phase import ExitCode

OWN = VmRecord(
    "shop",
    "0f0f0f0f-1111-4222-8333-444444444444",
    "10.90.2.100/24",
    512,
    2,
    "tcg",
    nics=(NicRecord("52:54:00:00:00:01", "vmswitch", "10.90.2.100/24"),),
    disks=("/shared/a.raw",),
    forwards=(Forward(8080, 80),),
)


@pytest.fixture
def shelf(tmp_path: Path) -> VmShelf:
    return VmShelf(tmp_path, "10.90.2.0/24")


@pytest.mark.parametrize(
    "name",
    ["web1", 'quote\'s "$(touch x)" `id`; a,b=c', "<ü> & Größe", "虚拟机", "a.b_c-d", "n" * 100, "€" * 66],
)
def test_names_that_a_vm_can_have_come_back_from_the_shelf(name: str, shelf: VmShelf) -> None:
    record = shelf.reserve(lambda _: replace(OWN, name=require_name(name)))
    assert list(shelf.all()) == [record]
    assert shelf.record(name) == record
    shelf.forget(name)
    assert [path.name for path in shelf.directory.iterdir()] == [".addresses.lock"]


@pytest.mark.error("vm.name_invalid")
@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("", "empty"),
        ("a/b", "has a /"),
        ("..", "dot"),
        (".hidden", "dot"),
        ("-rf", "dash"),
        (" a", "space"),
        ("a ", "space"),
        ("two\nlines", "control"),
        ("a\x00b", "control"),
        ("a\u2028b", "control"),
        ("n" * 300, "300 characters"),
        ("€" * 67, "201 bytes"),
        ("\udcff", "UTF-8"),
    ],
)
def test_names_that_no_vm_can_have_are_refused_with_the_rule(name: str, rule: str) -> None:
    with pytest.raises(RefimplError) as caught:
        require_name(name)
    (problem,) = caught.value.problems
    assert (problem.id, caught.value.exit_code) == ("vm.name_invalid", ExitCode.USAGE)
    assert rule in problem.text
    assert "\n" not in problem.text


@pytest.mark.parametrize("record", [OWN, replace(OWN, parameters=GuestParameters(), nics=(), forwards=())])
def test_a_record_reads_back(record: VmRecord) -> None:
    assert VmRecord.from_json(record.to_json()) == record


def free_address(shelf: VmShelf) -> str:
    found: list[str] = []

    def make(free: Iterator[str]) -> VmRecord:
        found.append(next(free))
        return replace(OWN, name="probe", nics=(), disks=(), forwards=())

    shelf.reserve(make)
    shelf.forget("probe")
    return found[0]


def test_the_addresses_of_all_adapters_are_taken(shelf: VmShelf) -> None:
    second = NicRecord("52:54:00:00:00:02", "vmswitch", "10.90.2.101/24")
    shelf.reserve(lambda _: replace(OWN, nics=(*OWN.nics, second)))
    assert free_address(shelf) == "10.90.2.102/24"
    shelf.forget(OWN.name)
    assert free_address(shelf) == "10.90.2.100/24"


@pytest.mark.parametrize(
    ("shared", "id"),
    [
        pytest.param({"nics": OWN.nics}, "vm.mac_taken", marks=pytest.mark.error("vm.mac_taken")),
        pytest.param({"disks": OWN.disks}, "vm.disk_in_use", marks=pytest.mark.error("vm.disk_in_use")),
        pytest.param({"forwards": OWN.forwards}, "forward.port_taken", marks=pytest.mark.error("forward.port_taken")),
    ],
)
def test_what_two_vms_cannot_share_is_refused(shared: dict[str, Any], id: str, shelf: VmShelf) -> None:
    shelf.reserve(lambda _: OWN)
    alone = replace(OWN, name="other", nics=(), disks=(), forwards=())
    with pytest.raises(RefimplError) as caught:
        shelf.reserve(lambda _: replace(alone, **shared))
    assert caught.value.problems[0].id == id
    assert "'shop'" in caught.value.problems[0].text
    assert [record.name for record in shelf.all()] == ["shop"]


def test_the_files_of_another_vm_are_never_taken_over(shelf: VmShelf) -> None:
    shelf.folder("shop").mkdir()
    (shelf.folder("shop") / "precious").touch()
    with pytest.raises(RefimplError, match=r"vm\.disk_exists"):
        shelf.reserve(lambda _: OWN)
    assert (shelf.folder("shop") / "precious").exists()


def test_what_was_not_made_for_a_vm_is_never_removed_with_it(shelf: VmShelf) -> None:
    shelf.reserve(lambda _: OWN)
    for name in ("shop", "stranger"):
        shelf.disk(name).touch()
        shelf.forget(name)
        assert shelf.disk(name).exists()
    assert not shelf.folder("shop").exists()
