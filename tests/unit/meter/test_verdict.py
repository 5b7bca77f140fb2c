from __future__ import annotations

import json

from refimpl.meter.verdict import State, Verdict, not_measured


def test_a_verdict_is_plain_json():
    verdict = Verdict("disk", State.BAD, "one block lost", {"lost": 1})
    assert json.loads(json.dumps(verdict.to_json())) == {
        "name": "disk",
        "state": "bad",
        "text": "one block lost",
        "figures": {"lost": 1},
        "samples": None,
    }
    assert Verdict.from_json(verdict.to_json()) == verdict


def test_not_measured_is_not_good():
    assert not not_measured("disk", "no image").good
    assert Verdict("disk", State.OK, "").good
