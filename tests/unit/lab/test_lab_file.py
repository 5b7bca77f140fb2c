"""A lab file says what a lab shall be; a wrong one is told whole: every key that is wrong, with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refimpl.lab import layout
from refimpl.lab.config import KeepAlive
from refimpl.lab.labfile import load_lab, parse_lab
from refimpl.lab.tomllines import line_of, lines_of
from refimpl.lab.wish import HostWish, Wish
from refimpl.model.errors import RefimplError
from refimpl.model.phase import ExitCode

DOCS = Path(__file__).parents[3] / "docs"
HOSTS = '[[hosts]]\nname = "h1"\n[[hosts]]\nname = "h2"\n'


def wrong(text: str) -> dict[tuple[str, int | None], str]:
    """Return what is wrong with a lab file: by key and line."""
    with pytest.raises(RefimplError) as caught:
        parse_lab(text, "lab.toml")
    assert caught.value.exit_code is ExitCode.USAGE
    assert {p.id for p in caught.value.problems} == {"lab.file_invalid"}
    values = [p.values for p in caught.value.problems]
    return {(str(v.get("key")), v.get("line")): str(v["detail"]) for v in values}  # type: ignore[misc]


def test_the_commented_file_of_the_documentation_says_what_it_says() -> None:
    found = load_lab(DOCS / "lab.toml").wish
    assert found.host_names == ("h1", "h2")
    assert found.hosts[0].memory_mib == 4096
    assert found.hosts[0].settings["VirtualMachineMigrationPerformanceOption"] == "TCPIP"
    assert found.keepalive == KeepAlive()
    unlimited = tuple(layout.NetworkPlan(n.name, n.subnet, n.priority) for n in found.networks)
    assert unlimited == layout.DEFAULT_NETWORKS, "its comment says that these are those of every lab"
    assert [n.rate_mbit_s for n in found.networks] == [1000, 100]


def test_a_file_with_hosts_only_is_an_ordinary_lab() -> None:
    found = parse_lab(HOSTS, "lab.toml").wish
    assert found == Wish("lab", (HostWish("h1"), HostWish("h2")))
    assert found.with_networks(ipv6=True).networks == layout.DEFAULT_NETWORKS
    assert not any(":" in n.subnet for n in found.with_networks(ipv6=False).networks)


@pytest.mark.error("lab.file_invalid")
def test_everything_that_is_wrong_is_told_at_once_with_its_line() -> None:
    text = (
        'schema = 1\nname = "Lab"\ncolour = "red"\n'  # 1-3
        '[[networks]]\nname = "vm"\nsubnet = "10.90.1.0/24"\nrate_mbit_s = "fast"\n'  # 4-7
        '[[networks]]\nname = "second"\nsubnet = "10.90.2.128/25"\n'  # 8-10
        '[[hosts]]\nname = "h1"\nmemory_mib = 1\n'  # 11-13
        '[[hosts]]\nname = "sw"\n'  # 14-15
        "[[hosts]]\nmemory_mib = 128\n"  # 16-17
    )
    found = wrong(text)
    assert set(found) == {
        ("name", 2),
        ("colour", 3),
        ("networks.0.name", 5),
        ("networks.0.rate_mbit_s", 7),
        ("networks.1.subnet", 10),
        ("hosts.0.memory_mib", 13),
        ("hosts.1.name", 15),
        ("hosts.2.name", 16),
    }
    assert "the lab's own networks" in found["networks.1.subnet", 10]


@pytest.mark.parametrize(
    ("text", "key", "word"),
    [
        ("", "hosts", "required"),
        ("hosts = 3", "hosts", "tuple"),
        ("hosts = []", "hosts", "at least 1"),
        (HOSTS + '[[hosts]]\nname = "h1"\n', "hosts.2.name", "hosts.0"),
        (HOSTS + '[[networks]]\nname = "a"\nsubnet = "10.1.0.0/33"\n', "networks.0.subnet", "IPv6"),
        (HOSTS + '[[networks]]\nname = "a"\nsubnet = "10.1.0.1/24"\n', "networks.0.subnet", "host bits"),
        (HOSTS + '[[networks]]\nname = "a"\nsubnet = "10.1.0.0/29"\n', "networks.0.subnet", "no room"),
        (HOSTS + '[[networks]]\nname = "a"\nsubnet = "fe80::/64"\n', "networks.0.subnet", "no subnet for hosts"),
        (HOSTS + "[keepalive]\ninterval_s = 0\n", "keepalive.interval_s", "greater"),
        (HOSTS + "[management]\nrate_mbit_s = true\n", "management.rate_mbit_s", "integer"),
        ("schema = 2\n" + HOSTS, "schema", "1"),
        ('[[hosts]]\nname = "$(reboot)"\n', "hosts.0.name", "pattern"),
        ('[[hosts]]\nname = "h1\\n"\n', "hosts.0.name", "pattern"),
        (f'[[hosts]]\nname = "{"h" * 300}"\n', "hosts.0.name", "at most"),
        ('[[hosts]]\nname = "hôte"\n', "hosts.0.name", "pattern"),
    ],
)
def test_a_wrong_value_is_told_by_its_key(text: str, key: str, word: str) -> None:
    found = wrong(text)
    (detail,) = [detail for (name, _), detail in found.items() if name == key]
    assert word in detail


def test_two_networks_that_overlap_are_told_at_the_second() -> None:
    networks = '[[networks]]\nname = "a"\nsubnet = "10.1.0.0/16"\n[[networks]]\nname = "b"\nsubnet = "10.1.2.0/24"\n'
    assert wrong(HOSTS + networks) == {("networks.1.subnet", 10): "10.1.2.0/24 overlaps with network 'a'"}


def test_what_is_no_toml_is_told_with_line_and_column() -> None:
    (detail,) = wrong('name = "lab"\n[[hosts]\n').values()
    assert "line 2, column" in detail


@pytest.mark.error("lab.file_unreadable")
@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "lab.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RefimplError) as caught:
        load_lab(path)
    (problem,) = caught.value.problems
    assert problem.id == "lab.file_unreadable"
    assert str(path) in problem.text


def test_what_others_find_wrong_is_told_with_its_line_too() -> None:
    read = parse_lab(HOSTS + "[hosts.settings]\nMaximumStorageMigrations = 2\n", "lab.toml")
    failure = read.error([(("hosts", 1, "settings", "MaximumStorageMigrations"), "no")])
    assert "line 6" in failure.problems[0].text


def test_lines_are_found_where_people_write_keys_and_not_in_texts() -> None:
    text = (
        "a = 1 # [x]\n"
        'b.c = """\n'
        "[no]\n"
        "d = 3\n"
        '"""\n'
        " [ t . 'u v' ] # comment\n"
        '"k k" = [\n'
        "  1,\n"
        "]\n"
        "[[t.list]]\n"
        "x = 1\n"
        "[[t.list]]\n"
        "[t.list.sub]\n"
        "y = 2\n"
    )
    lines = lines_of(text)
    assert lines == {
        ("a",): 1,
        ("b", "c"): 2,
        ("t", "u v"): 6,
        ("t", "u v", "k k"): 7,
        ("t", "list"): 10,
        ("t", "list", 0): 10,
        ("t", "list", 0, "x"): 11,
        ("t", "list", 1): 12,
        ("t", "list", 1, "sub"): 13,
        ("t", "list", 1, "sub", "y"): 14,
    }
    assert line_of(lines, ("t", "u v", "k k", 0)) == 7
    assert line_of(lines, ("t", "list", 1, "missing")) == 12
    assert line_of(lines, ("nowhere",)) is None


@given(st.text())
def test_no_text_ends_the_search_for_lines_badly(text: str) -> None:
    assert all(1 <= line <= max(1, len(text.splitlines())) for line in lines_of(text).values())
