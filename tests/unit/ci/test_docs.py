"""The documentation: what is generated is current, links lead somewhere, and the commands in it exist."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

from refimpl.cli.root import root
from refimpl.engine.phases import TABLE
from refimpl.model.errors import catalogue
from tests.unit.ci.machine import ROOT

DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"])
TEXTS = (".py", ".md", ".toml", ".c", ".h")
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_maker", ROOT / "ci" / "docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["errors.md", "advisories.md", "faults.md", "fault-table.md", "how-it-works.md"])
def test_generated_parts_are_current(maker: ModuleType, name: str) -> None:
    text = (DOCS / name).read_text("utf-8")
    assert maker.current(name, text) == text, "run ci/docs"


def test_check_says_what_is_old_and_writes_nothing(maker: ModuleType, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(maker, "DOCS", tmp_path)
    (tmp_path / "how-it-works.md").write_text((DOCS / "how-it-works.md").read_text("utf-8"), "utf-8")
    assert maker.main(["--check"]) == 1
    assert "docs/errors.md is not current" in capsys.readouterr().out
    assert not (tmp_path / "errors.md").exists()
    assert maker.main([]) == 0
    assert maker.main(["--check"]) == 0


def test_a_page_without_a_place_for_its_part_is_an_error(maker: ModuleType) -> None:
    with pytest.raises(ValueError, match="no place for diagram"):
        maker.current("how-it-works.md", "# How it works\n")


def test_every_error_has_its_section() -> None:
    text = (DOCS / "errors.md").read_text("utf-8")
    assert re.findall(r"^### `(.*)`$", text, re.MULTILINE) == sorted(catalogue())


def test_the_diagram_has_every_row_that_leads_elsewhere(maker: ModuleType) -> None:
    drawn = set()
    for line in maker.diagram().splitlines():
        found = re.fullmatch(r"\s*(\w+) --> (\w+): (.*)", line)
        if found:
            drawn |= {(found[1], kind, found[2]) for kind in found[3].split(", ")}
    leading = {(p.name, k.value, r.phase.name) for (p, k), r in TABLE.items() if r.phase is not p}
    assert leading - drawn == {arrow for arrow in leading if arrow[1] in maker.RECOVERY}
    assert drawn <= leading


def test_what_markdown_would_take_for_its_own_is_escaped(maker: ModuleType) -> None:
    assert maker.escaped("a_b *c* <d> [e]|f") == r"a\_b \*c\* \<d\> \[e\]\|f"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = _FENCE.sub("", page.read_text("utf-8"))
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for link in _LINK.findall(_FENCE.sub("", page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_reached_from_the_index() -> None:
    index = DOCS / "README.md"
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in _LINK.findall(index.read_text("utf-8"))}
    wanted = {*DOCS.glob("*.md"), *DOCS.glob("*.toml")} - {index}
    assert wanted <= linked, wanted - linked


def references(text: str) -> set[str]:
    """The references to rows of docs/sources.md in a text, one by one."""
    found = re.findall(r"\b(semantics|libvirt-qemu|handover|rule) (\d[\d.]*(?:(?:, | and )\d[\d.]*)*)", text)
    return {f"{sheet} {row.rstrip('.')}" for sheet, rows in found for row in re.split(", | and ", rows)}


def test_every_reference_in_the_code_is_explained() -> None:
    files = [f for where in ("refimpl", "tests", "docs/adr") for f in (ROOT / where).rglob("*.*") if f.suffix in TEXTS]
    used = set().union(*(references(f.read_text("utf-8")) for f in files if f != Path(__file__)))
    explained = re.findall(r"^\| ([a-z-]+ [\d.]+) \|", (DOCS / "sources.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(used) == sorted(explained)


def test_references_are_found_one_by_one() -> None:
    text = "so (libvirt-qemu 3.3, 9; R5) and handover 1.1 and 1.2. Not rules 5, nor rule R1."
    assert references(text) == {"libvirt-qemu 3.3", "libvirt-qemu 9", "handover 1.1", "handover 1.2"}


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the `refimpl` commands in a page's shell blocks."""
    for language, block in _FENCE.findall(page.read_text("utf-8")):
        for line in block.replace("\\\n", " ").splitlines() if language == "sh" else ():
            words = shlex.split(line.replace("<(", " ").replace(")", " "), comments=True)
            names = [word.rpartition("/")[2] for word in words]
            if "refimpl" in names and "ln" not in names:
                yield words[names.index("refimpl") + 1 :]


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_exist_with_their_options(name: str) -> None:
    for words in commands(ROOT / name):
        command: click.Command = root
        context = click.Context(root, info_name="refimpl")
        rest = list(words)
        while isinstance(command, click.Group) and rest:
            found = command.get_command(context, rest[0])
            assert found is not None, words
            command, rest = found, rest[1:]
            context = click.Context(command, info_name=command.name, parent=context)
        if "--help" not in rest:
            command.parse_args(context, rest)


def test_a_command_that_does_not_exist_would_be_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```sh\nsudo .venv/bin/refimpl lab up --nonsense 'a b'  # so\n```\n```yaml\nrefimpl x\n```\n")
    assert list(commands(page)) == [["lab", "up", "--nonsense", "a b"]]
