"""A VM that two hosts have while it is being moved: that is what is said of it, whatever is asked."""

from __future__ import annotations

from typing import Any

import pytest

from refimpl.app.vm_settings import Change, change
from refimpl.app.vms import VmDesk
from refimpl.model.facts import VmState
from tests.builders import vm
from tests.unit.app.test_vms import Hosts, desk, done, hosts, refused  # noqa: F401  (fixtures)


@pytest.mark.rule("R10")
@pytest.mark.error("vm.stamped")
@pytest.mark.parametrize("marks", [("0a1b2c3d", "0a1b2c3d"), (None, "0a1b2c3d"), ("0a1b2c3d", None)])
@pytest.mark.parametrize("verb", ["start", "stop", "remove", "pause", "resume", "change"])
def test_while_both_hosts_have_it_it_is_told_to_be_moved_and_nothing_is_done(
    verb: str,
    marks: tuple[str | None, str | None],
    desk: VmDesk,  # noqa: F811
    hosts: Hosts,  # noqa: F811
    done: list[str],  # noqa: F811
) -> None:
    hosts.put("a", vm(name="one", operation=marks[0]))
    hosts.put("b", vm(name="one", state=VmState.PLANNED, operation=marks[1]))
    act: Any = (lambda: change(desk, "one", Change(memory_mib=512))) if verb == "change" else getattr(desk, verb)
    text = refused("vm.stamped", act if verb == "change" else lambda: act("one"))
    assert "0a1b2c3d" in text
    assert done == []
