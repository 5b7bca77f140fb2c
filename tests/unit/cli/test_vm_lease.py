"""A VM that runs without its lease is said so in words, with the command that mends it; and no other VM is."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from refimpl.app.vm_network import Reach
from refimpl.backends.libvirt.vm_settings import Settings
from refimpl.cli import main
from refimpl.model.facts import LeaseFact, VmFacts, VmState
from tests.builders import host, vm

FREE, HELD, UNSEEN = (LeaseFact("/leases/web", held) for held in (False, True, None))
MEND = "VM web runs on a without its lease: a second copy could start. Mend: refimpl lab mend a"


@pytest.mark.parametrize(
    ("shown", "cell", "said"),
    [
        (vm(lease=FREE), "NOT HELD", True),
        (vm(lease=FREE, operation="0a1b2c3d"), "NOT HELD", False),
        (vm(lease=HELD), "held", False),
        (vm(lease=UNSEEN), "not seen", False),
        (vm(lease=FREE, state=VmState.OFF), "-", False),
        (vm(lease=FREE, state=VmState.PAUSED), "-", False),
        (vm(lease=None), "none", False),
    ],
)
def test_it_is_listed_and_shown(
    shown: VmFacts,
    cell: str,
    said: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    desk = SimpleNamespace(
        look=lambda: {"a": host("a", vms=(shown,))},
        find=lambda _: SimpleNamespace(host=SimpleNamespace(name="a"), facts=shown),
        reach=lambda _: Reach(None),
        record=lambda _: None,
        settings=lambda _: Settings(False, "bios", (), None, ()),
    )

    @contextmanager
    def desk_of(*_: Any) -> Any:
        yield desk

    monkeypatch.setattr("refimpl.cli.vm_show.desk_of", desk_of)
    for verb in (["list"], ["show", "web"]):
        assert main(["vm", *verb]) == 0
        told = capsys.readouterr()
        rows = [line for line in told.out.splitlines() if line.startswith(("web", "  lease"))]
        assert any(cell in row for row in rows)
        assert (MEND in told.err) is said
