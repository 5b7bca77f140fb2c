"""What the doctor can mend by himself: packages, Python packages, kernel modules, the guest, labs left half-made.

Only what is safe: nothing that runs is ended, no virtual machine is touched. What it is going to do is said before.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import refimpl
from refimpl.app.doctor import GUEST, LABS
from refimpl.lab.requirements import MODULE, PACKAGES, PYTHON, Finding
from refimpl.model.errors import RefimplError

SETUP_SCRIPT = Path(refimpl.__file__).resolve().parents[1] / "ci" / "setup"
"""The script that knows the packages; an installed package has none, and then a person has to."""

MENDED_IN_S = 1800.0
_STDERR = 2


@dataclass(frozen=True, slots=True)
class Repair:
    """One thing to do: what it is for a person, and doing it, which returns what was said when it failed."""

    name: str
    does: str
    run: Callable[[], str | None]


@dataclass(frozen=True, slots=True)
class Mended:
    """How a repair ended; `said` is empty when it went well."""

    name: str
    does: str
    said: str

    @property
    def ok(self) -> bool:
        """It went well."""
        return not self.said


def repairs(findings: Iterable[Finding], setup: Path = SETUP_SCRIPT) -> tuple[Repair, ...]:
    """Return what can be done about these findings, each thing once, in the order in which it has to be done."""
    wanted = {found.repair: None for found in findings if found.repair}
    return tuple(repair for make in (_packages, _modules, _python, _guest, _labs) for repair in make(wanted, setup))


def carry_out(planned: Iterable[Repair]) -> Iterator[Mended]:
    """Do one after the other; one that fails does not keep the others from being done."""
    for repair in planned:
        try:
            said = repair.run()
        except (RefimplError, OSError, subprocess.TimeoutExpired) as failure:
            said = str(failure) or type(failure).__name__
        yield Mended(repair.name, repair.does, said or "")


def _packages(wanted: Iterable[str], setup: Path) -> Iterator[Repair]:
    if PACKAGES in wanted and setup.is_file():
        command = [str(setup), "--packages-only", "--yes"]
        yield Repair(PACKAGES, f"install packages: {' '.join(command)}", partial(_run, command))


def _modules(wanted: Iterable[str], _setup: Path) -> Iterator[Repair]:
    for name in _named(wanted, MODULE):
        command = ["modprobe", name]
        yield Repair(f"{MODULE}:{name}", f"load the kernel module: {' '.join(command)}", partial(_run, command))


def _python(wanted: Iterable[str], _setup: Path) -> Iterator[Repair]:
    names = list(_named(wanted, PYTHON))
    if names:
        command = [sys.executable, "-m", "pip", "install", "--quiet"]
        text = f"install Python packages: {' '.join([*command, *names])}"
        # When it is done and not before: the binding must not be newer than the library, which may come only now.
        yield Repair(PYTHON, text, lambda: _run([*command, *map(_requirement, names)]))


def _guest(wanted: Iterable[str], _setup: Path) -> Iterator[Repair]:
    if GUEST in wanted:
        yield Repair(GUEST, "build the guest that VMs boot: fetch a kernel by apt, compile its program", _build_guest)


def _labs(wanted: Iterable[str], _setup: Path) -> Iterator[Repair]:
    if LABS in wanted:
        yield Repair(LABS, "take away labs that were left half-made: refimpl lab reap", _reap)


def _named(wanted: Iterable[str], kind: str) -> Iterator[str]:
    return (repair.partition(":")[2] for repair in wanted if repair.startswith(f"{kind}:"))


def _requirement(distribution: str) -> str:
    if distribution != "libvirt-python":
        return distribution
    try:
        asked = subprocess.run(["pkg-config", "--modversion", "libvirt"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return distribution
    return f"{distribution}<={asked.stdout.strip()}"


def _run(command: list[str]) -> str | None:
    """Run a program; what it says goes to standard error, as our own output may be JSON."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=_STDERR, check=False, timeout=MENDED_IN_S)
    return f"{command[0]} ended with {done.returncode}; its account is above" if done.returncode else None


def _build_guest() -> str | None:
    from refimpl.guest import GuestBuildError
    from refimpl.guest.image import build

    try:
        build()
    except GuestBuildError as failure:
        return str(failure)
    return None


def _reap() -> str | None:
    from refimpl.lab import leftovers, reap

    removals = reap()
    left = [f"{x.kind} {x.name}: {x.reason}" for removal in removals for x in removal.left_behind]
    left += [item for removal in removals for item in leftovers(removal.lab_id)]
    return f"left behind: {'; '.join(left)}" if left else None
