"""A group's description is read back as it was written, by this version and by those that come after."""

from __future__ import annotations

import json

import pytest

from refimpl.model.group import Group
from tests.unit.backends.libvirt.recorded import GROUP


def test_a_group_is_read_back_as_it_was_written() -> None:
    assert Group.from_json(json.loads(json.dumps(GROUP.to_json()))) == GROUP


def test_a_group_that_still_names_the_conductors_certificates_is_read() -> None:
    assert Group.from_json({**GROUP.to_json(), "client_pki": "/g/pki"}) == GROUP


def test_anything_else_that_is_not_known_is_an_error() -> None:
    with pytest.raises(TypeError, match="certificates"):
        Group.from_json({**GROUP.to_json(), "certificates": "/g/pki"})
