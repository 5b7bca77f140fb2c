"""The parts of docs/ that are made from the program and its tests: errors, known faults, faults on purpose, the tables.

A file that is made as a whole says so at its top; a part of a page stands between two comments that name it. A test
keeps all of them current; `ci/docs` writes them anew.
"""

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from refimpl.checks.advisories import catalogue as known_faults
from refimpl.checks.version import Version
from refimpl.engine.phases import DEADLINES, TABLE
from refimpl.faults import FAULTS
from refimpl.model.errors import ErrorEntry, catalogue
from refimpl.model.events import Kind
from refimpl.model.phase import ENDS, EXIT_CODES, ExitCode, Phase

if TYPE_CHECKING:
    from tests.fault_table import Blow, Case, Row

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
_FAULT_TABLE = """# When something fails during a move

<!-- Made by ci/docs from tests/fault_table.py. -->

What can go wrong while a VM moves, row by row: what plain libvirt leaves behind (its own hand-over, and no lease unless
it is named), and how a move by refimpl ends. Every line is a test on two real hosts, which takes what it expects from
the same record as this page; the fault strikes at a moment that is held or told, not guessed.
`tests/lab/test_fault_table.py` also asserts that never two copies run (by the processors of both hosts, and by the
lines that the guest numbers), that the VM works where this says, with its lease held and all acknowledged writes on its
disk, that the owner record names that host, and that nothing is left behind. *Full*: in `ci/full`, not in `ci/test`.

*Verdict* is the last decision from what both hosts showed, with its reason; both stand in the report of a move. A VM
has a lease unless *no lease* is said: no user gets one without, and tests of such begin behind the checks.
"""
RECOVERY = frozenset({Kind.LOOK_AGAIN, Kind.NOTHING_TOUCHED, Kind.TIDY_AGAIN})
"""Decisions of a recovery: they lead in from nearly every phase and would hide the rest of the diagram."""

CODE_TEXTS: Mapping[ExitCode, str] = {
    ExitCode.OK: "done",
    ExitCode.INTERNAL: "internal error",
    ExitCode.USAGE: "the command line is wrong",
    ExitCode.REFUSED: "refused, nothing was changed",
    ExitCode.FAILED: "failed and rolled back",
    ExitCode.CANCELLED: "cancelled and rolled back",
    ExitCode.INDETERMINATE: "a person is needed",
    ExitCode.LOST: "lost, or two copies ran",
    ExitCode.ENVIRONMENT: "lab or machine broken",
    ExitCode.DETACHED: "detached, it goes on",
}


def diagram() -> str:
    """Return the engine's table as a Mermaid state diagram; events that change no phase are in the table only."""
    arrows: dict[tuple[Phase, Phase], list[str]] = {}
    for (phase, kind), row in TABLE.items():
        if row.phase is not phase and kind not in RECOVERY:
            arrows.setdefault((phase, row.phase), []).append(kind.value)
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {Phase.NEW.name}"]
    lines += [f'    state "{phase.value}" as {phase.name}' for phase in Phase]
    lines += [f"    {a.name} --> {b.name}: {', '.join(kinds)}" for (a, b), kinds in arrows.items()]
    lines += [f"    {phase.name} --> [*]" for phase in Phase if phase in ENDS]
    return "\n".join([*lines, "```"])


def table() -> str:
    """Return every row of the engine's table, and how long each phase may last."""
    lines = ["| in | on | to | commands |", "| --- | --- | --- | --- |"]
    for (phase, kind), row in TABLE.items():
        target = row.phase.value if row.phase is not phase else "same"
        lines.append(f"| {phase.value} | {kind.value} | {target} | {', '.join(c.value for c in row.commands)} |")
    lines += ["", "| phase | may last |", "| --- | --- |"]
    lines += [
        f"| {phase.value} | {deadline.after_ms // 1000} s{' without progress' if deadline.since_progress else ''} |"
        for phase, deadline in DEADLINES.items()
    ]
    return "\n".join(lines)


def ends() -> str:
    """Return the ends of a move with their exit codes."""
    rows = [f"| {phase.value} | {int(code)} | {CODE_TEXTS[code]} |" for phase, code in EXIT_CODES.items()]
    return "\n".join(["| end | exit code | of that code |", "| --- | --- | --- |", *rows])


def errors() -> str:
    """Return the page of all errors, a section for each, under the first word of their ids."""
    families: dict[str, list[ErrorEntry]] = {}
    for entry in catalogue().values():
        families.setdefault(entry.id.partition(".")[0], []).append(entry)
    lines = [
        "# Errors",
        "",
        "<!-- Made by ci/docs from refimpl/model/errors.toml. -->",
        "",
        "Every error has an id that stays. Words in braces stand for what was measured or named. Where Hyper-V has a",
        "code, message or event for the same thing, it is given; a dash means that none is known.",
        "",
    ]
    for family in sorted(families):
        lines += [f"## {family.replace('_', ' ')}", ""]
        for entry in sorted(families[family], key=lambda e: e.id):
            lines += _section(entry)
    return "\n".join(lines).rstrip() + "\n"


def _section(entry: ErrorEntry) -> list[str]:
    code = f"{int(entry.exit)} ({CODE_TEXTS[entry.exit]})"
    return [
        f"### `{entry.id}`",
        "",
        f"> {escaped(_plain(entry.text))}",
        "",
        f"Why: {escaped(_plain(entry.why))}  ",
        f"Mend: {escaped(_plain(entry.mend))}  ",
        f"Exit code: {code}. Hyper-V: {escaped(entry.hyperv) or '-'}",
        "",
    ]


def _plain(template: str) -> str:
    """Return a template with its placeholders as bare names in braces."""
    return " ".join(re.sub(r"\{(\w+)[^{}]*\}", r"{\1}", template).split())


def escaped(text: str) -> str:
    """Return a text in which Markdown and HTML see nothing of theirs."""
    return re.sub(r"([\\`*_<>|#\[\]])", r"\\\1", text)


def advisories() -> str:
    """Return the page of known faults of named versions."""
    lines = [
        "# Known faults of named versions",
        "",
        "<!-- Made by ci/docs from refimpl/checks/advisories.toml. -->",
        "",
        "Before each move, and by `refimpl check`, the versions of both hosts are compared with this list. *refuse*:",
        "the move cannot be made; *warning*: it is made, and the warning stays with its outcome; *information*: only",
        "shown.",
        "",
        "| id | versions | where | what | effect | mend | known from |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in known_faults():
        versions = ", ".join(f"{name} {_range(*bounds)}" for name, bounds in row.versions.items())
        cells = (row.side or "either host", row.severity, row.effect + _when(row.when), row.mend, row.evidence)
        lines.append(f"| `{row.id}` | {versions} | {' | '.join(escaped(str(cell)) for cell in cells)} |")
    return "\n".join(lines) + "\n"


def faults() -> str:
    """Return the page of all faults, a section for each."""
    lines = [
        "# Faults on purpose",
        "",
        "<!-- Made by ci/docs from refimpl/faults/catalogue.py. -->",
        "",
        "`sudo refimpl lab fault NAME` strikes one thing of a lab and undoes it: after `--for` seconds, or on Ctrl-C.",
        "It is written down in the lab before it is done, so what a command that was killed has left is undone by",
        "`refimpl lab fault undo`, and goes with the lab. What a fault *may lead to* is all that it may lead to: two",
        "running copies are under no claim, and a VM is lost only where it says so. In Python:",
        "",
        "```python",
        "from refimpl.faults import FAULTS, Target, inflicted",
        "from refimpl.lab import Lab",
        "",
        'with inflicted(Lab.open("lab"), FAULTS["freeze-libvirtd"], Target(host="h2")):',
        "    ...",
        "```",
        "",
        "`refimpl.faults.moments` holds or awaits the moment: the memory phase by limits, a conductor's steps by stop",
        "points, QEMU's switch by its MIGRATION event, anything else by an event of the operation.",
        "",
    ]
    for fault in FAULTS.values():
        lines += [
            f"## {fault.name}",
            "",
            f"Strikes {escaped(fault.target)}. It {escaped(fault.does)}.",
            "",
            f"May lead to: {'; '.join(escaped(claim.value) for claim in fault.claims)}.  ",
            f"Undone: {escaped(fault.undone)}.",
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


def fault_table() -> str:
    """Return the page of the fault tables, a section for each row, from the records that the tests assert."""
    sys.path.insert(0, str(ROOT))
    from tests.fault_table import ROWS

    lines = [_FAULT_TABLE]
    for row in ROWS.values():
        lines += _fault_row(row)
    return "\n".join(lines).rstrip() + "\n"


def _fault_row(row: "Row") -> list[str]:
    columns = ("move", "what is done", "verdict", "end (exit code)", "VM in the end", "test")
    lines = [f"## {row.id}", "", f"{row.what}  ", f"Plain libvirt: {row.plain}", ""]
    lines += [f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    return [*lines, *(f"| {' | '.join(_fault_case(row.id, case))} |" for case in row.cases), ""]


def _fault_case(row: str, case: "Case") -> tuple[str, ...]:
    from tests.fault_table import shown_by

    had = ", ".join([str(case.disk), *([] if case.lease else ["no lease"])])
    done = "; ".join(_blow(blow) for blow in case.blows) or "its own test says"
    said = ", ".join(f"`{id}`" for id in (*case.problems, *case.warnings))
    why = re.sub(r"\\w\+", "…", case.why).format(source="(source)", destination="(destination)")
    then = "".join(f"; then `{step}`" for step in case.then) + (f": {case.recovered}" if case.recovered else "")
    at = f"runs at the {case.vm_at}" if case.vm_at else "lost; runs at the source once started again"
    test = f"`{shown_by(f'{row}-{case.name}')}`" + (", full" if case.full else "")
    end = f"**{case.end}** ({int(case.code)})" + (f": {said}" if said else "") + then
    verdict = str(case.verdict).replace("-", " ") + (f": {why}" if why else "")
    return (f"{case.hand_over}, {had}", done, verdict, end, at, test)


def _blow(blow: "Blow") -> str:
    of = f" ({blow.network})" if blow.network else ""
    side = "" if blow.does == "cancel" else f" at the {blow.side}"
    return f"`{blow.does}`{of}{side} {blow.at}" + (f", {blow.until}" if blow.until else "")


def _range(first: Version | None, fixed: Version | None) -> str:
    begin, end = (".".join(map(str, version)) if version else "" for version in (first, fixed))
    return " and ".join(part for part in (f"from {begin}" if begin else "", f"before {end}" if end else "") if part)


def _when(conditions: Mapping[str, object]) -> str:
    told = ", ".join(f"{name} {str(value).lower()}" for name, value in conditions.items())
    return f" (with {told})" if told else ""


PAGES: Mapping[str, Callable[[], str]] = {
    "errors.md": errors,
    "advisories.md": advisories,
    "faults.md": faults,
    "fault-table.md": fault_table,
}
PARTS: Mapping[str, Mapping[str, Callable[[], str]]] = {
    "how-it-works.md": {"diagram": diagram, "table": table, "ends": ends}
}


def current(name: str, text: str) -> str:
    """Return a page of docs/ as it has to be; ValueError when a part that belongs in it has no place there."""
    if name in PAGES:
        return PAGES[name]()
    for part, make in PARTS[name].items():
        begin, end = f"<!-- begin {part}, made by ci/docs -->", f"<!-- end {part} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"{name} has no place for {part}: {begin} ... {end}")
        text = f"{before}{begin}\n\n{make()}\n\n{end}{after}"
    return text


def main(arguments: list[str]) -> int:
    """Write what is not current, or with `--check` end with 1 when there is such a page."""
    old = []
    for name in (*PAGES, *PARTS):
        path = DOCS / name
        text = path.read_text("utf-8") if path.exists() else ""
        wanted = current(name, text)
        if wanted != text:
            old.append(name)
            if "--check" not in arguments:
                path.write_text(wanted, "utf-8")
    for name in old:
        print(f"docs/{name} {'is not current: run ci/docs' if '--check' in arguments else 'written'}")
    return 1 if old and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
