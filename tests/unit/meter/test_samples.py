from __future__ import annotations

import json

import pytest

from refimpl.meter.samples import Samples, read_samples


@pytest.fixture
def path(tmp_path):
    with (tmp_path / "stream.jsonl").open("w") as output:
        samples = Samples(output, "stream", period_ms=20)
        samples.add("record", 5, number=1)
        samples.add("ended", 6, why='it said "record"')
    return tmp_path / "stream.jsonl"


def test_samples_are_json_lines_below_a_header(path):
    head, *rest = path.read_text().splitlines()
    assert json.loads(head) == {"schema": 1, "observer": "stream", "period_ms": 20}
    assert [json.loads(line)["kind"] for line in rest] == ["record", "ended"]


def test_they_are_read_all_or_by_kind(path):
    assert [s["at_ns"] for s in read_samples(path)] == [5, 6]
    assert read_samples(path, "record") == [{"kind": "record", "at_ns": 5, "number": 1}]
    assert read_samples(path, "other") == []


def test_a_last_line_that_is_not_whole_is_left_out_and_no_file_holds_none(path, tmp_path):
    path.write_bytes(path.read_bytes()[:-3])
    assert [s["kind"] for s in read_samples(path)] == ["record"]
    assert read_samples(tmp_path / "none") == []


def test_another_schema_is_refused(path):
    path.write_text(path.read_text().replace('"schema":1', '"schema":2'))
    with pytest.raises(ValueError, match="schema 1"):
        read_samples(path)
