"""What the registry says after every kind of interruption."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from refimpl.lab.registry import Item, Kind, Registry

NETNS = Item(Kind.NETNS, "refimpl-abc123-h1")
LINK = Item(Kind.LINK, "abc123-vm", within="refimpl-abc123-sw")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry.jsonl")


def test_no_file_says_nothing(registry: Registry) -> None:
    assert registry.read().entries == ()
    assert registry.read().notes == {}


def test_what_is_only_announced_has_no_identity(registry: Registry) -> None:
    registry.announce([NETNS, LINK])
    assert [(e.item, e.identities) for e in registry.read().entries] == [(NETNS, ()), (LINK, ())]


def test_what_was_made_twice_has_both_identities(registry: Registry) -> None:
    registry.announce([NETNS])
    registry.made({NETNS: {"inode": 1}})
    registry.announce([NETNS])
    registry.made({NETNS: {"inode": 2}})
    (entry,) = registry.read().of(Kind.NETNS)
    assert entry.identities == ({"inode": 1}, {"inode": 2})
    assert registry.read().of(Kind.PROCESS) == ()


def test_notes_are_kept_apart_from_things(registry: Registry) -> None:
    registry.note("lab", label="mine", hosts=2)
    registry.note("complete")
    assert registry.read().notes == {"lab": {"label": "mine", "hosts": 2}, "complete": {}}
    assert registry.read().entries == ()


def test_a_line_cut_at_any_byte_is_as_if_never_written(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "registry.jsonl"
    registry.announce([NETNS])
    before = path.read_bytes()
    registry.made({NETNS: {"inode": 7}})
    whole = path.read_bytes()
    for length in range(len(before), len(whole)):
        path.write_bytes(whole[:length])
        (entry,) = registry.read().entries
        assert entry.identities == ()
    path.write_bytes(whole)
    assert registry.read().entries[0].identities == ({"inode": 7},)


def test_records_after_a_cut_line_are_not_swallowed_by_it(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "registry.jsonl"
    registry.announce([NETNS])
    path.write_bytes(path.read_bytes() + b'{"record": "int')
    registry.note("removing")
    registry.announce([LINK])
    assert "removing" in registry.read().notes
    assert [e.item for e in registry.read().entries] == [NETNS, LINK]


def test_many_threads_lose_nothing(registry: Registry) -> None:
    items = [Item(Kind.PROCESS, f"p{n}") for n in range(50)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: registry.announce([i]), items))
    assert {e.item for e in registry.read().entries} == set(items)


def test_only_its_owner_reads_it(registry: Registry, tmp_path: Path) -> None:
    registry.note("lab")
    assert (tmp_path / "registry.jsonl").stat().st_mode & 0o777 == 0o600
