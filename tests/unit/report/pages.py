"""Report pages of simulated moves that end in every way, and what a test wants of a page: its text by section."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import html5lib

from refimpl.app.report import html
from refimpl.app.simulated import SimulatedOperation, open_world
from refimpl.model.phase import Phase
from refimpl.model.request import MigrationRequest
from refimpl.report.data import ReportData

XHTML = "{http://www.w3.org/1999/xhtml}"
FAULTS: dict[str, list[dict[str, Any]]] = {
    "completed": [],
    "refused": [{"kind": "native-refusal"}],
    "failed": [{"kind": "call-fails", "during": "memory"}],
    "lost": [{"kind": "source-dies", "during": "memory"}],
    "indeterminate": [{"kind": "prepare-fails"}, {"kind": "settle-fails"}],
    "dual-run": [{"kind": "both-run", "during": "arrived"}],
}


def world(directory: Path, *faults: dict[str, Any], vm: str = "web", state: str = "running") -> Path:
    """A world file with two hosts and a VM that writes."""
    path = directory / "world.json"
    hosts = {n: {"memory_mib": 2048, "networks": {"migration": f"192.0.2.{i}"}} for i, n in enumerate("ab", 1)}
    one = {"name": vm, "id": "5f0c7a52-6f4e-4b7e-9d3f-0d3c1b2a4e61", "host": "a", "memory_mib": 256, "state": state}
    writing = {"working_set_mib": 64, "dirty_bytes_s": [[0, 30_000_000]]}
    networks = {"migration": {"bytes_s": 100_000_000}}
    data = {"schema": 1, "hosts": hosts, "networks": networks, "vms": [one | writing], "faults": list(faults)}
    path.write_text(json.dumps(data), "utf-8")
    return path


def moved(
    directory: Path,
    *faults: dict[str, Any],
    vm: str = "web",
    request_vm: str = "",
    vm_state: str = "running",
    **request: Any,
) -> ReportData:
    """The data of a simulated move of a VM from a to b."""
    asked = MigrationRequest(vm=request_vm or vm, destination="b", **request)
    operation = SimulatedOperation(open_world(world(directory, *faults, vm=vm, state=vm_state)), asked)
    for _ in operation.events():
        pass
    return operation.report()


def ended(directory: Path, end: str) -> ReportData:
    """The data of a move that ended in that way."""
    if end == "cancelled":
        data = moved(directory, *FAULTS["failed"])
        assert data.outcome is not None
        return replace(data, outcome=replace(data.outcome, end=Phase.CANCELLED, problems=()))
    return moved(directory, *FAULTS[end])


class Page:
    """A page, parsed as strictly as browsers would like it."""

    def __init__(self, *moves: ReportData) -> None:
        self.html = html(*moves)
        self.tree: Element = html5lib.HTMLParser(strict=True).parse(self.html)

    def all(self, name: str) -> list[Element]:
        """Every element of that name, of HTML or SVG."""
        return [e for e in self.tree.iter() if isinstance(e.tag, str) and e.tag.rpartition("}")[2] == name]

    def text(self, element: Element | None = None) -> str:
        """What a person reads, blanks collapsed, styles left out."""
        parts = (self.tree if element is None else element).itertext()
        return " ".join(" ".join(parts).split())

    def section(self, name: str, move: int = 1) -> str:
        """The text of a section."""
        (found,) = (e for e in self.tree.iter() if e.get("id") == f"move{move}-{name}")
        return self.text(found)

    def figures(self) -> dict[str, str]:
        """The figures that stand out, by name."""
        (shown, *_) = (e for e in self.all("dl") if e.get("class") == "figures")
        rows = [list(row) for row in shown]
        return {self.text(row[0]): self.text(row[1]) for row in rows}
