from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from refimpl.meter.heartbeat import continuity
from refimpl.meter.lines import join, parse_line, read_log
from tests.unit.meter.guest_lines import BOOT, beats, line, log_of, said


def test_a_line_is_parsed_into_its_parts():
    found = parse_line(line(7, "disk 3 2 00ff00ff"), "h1")
    assert found is not None
    assert (found.boot, found.sequence, found.kind, found.fields) == (BOOT, 7, "disk", ("3", "2", "00ff00ff"))
    assert found.host == "h1"


def test_a_line_that_is_changed_in_one_byte_is_no_line():
    good = line(7, "beat 3")
    for position in range(len(good) - 1):
        bad = good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :]
        assert parse_line(bad) is None, bad


def test_a_torn_line_is_put_together_again():
    content = b"".join(beats(1, 20))
    cut = content.index(b"beat 12") + 3
    log = join({"a": content[:cut], "b": content[cut:]})
    assert [entry.sequence for entry in log.lines] == list(range(1, 21))
    assert (log.torn, log.unreadable) == (1, ())


def test_the_parts_of_different_lines_are_not_taken_for_one():
    log = join({"a": line(1, "beat 1")[:-6], "b": line(2, "beat 2")[9:]})
    assert log.lines == ()
    assert len(log.unreadable) == 2


@given(st.integers(10, 60), st.data())
def test_there_and_back_loses_nothing_wherever_the_files_are_cut(count, data):
    lines = beats(1, count)
    torn = sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=4)))
    cuts = [sum(map(len, lines[:i])) + data.draw(st.integers(0, len(lines[i]) - 1)) for i in torn]
    content = b"".join(lines)
    parts = [content[a:b] for a, b in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    log = join({"a": b"".join(parts[::2]), "b": b"".join(parts[1::2])})
    assert [entry.sequence for entry in log.lines] == list(range(1, count + 1))
    assert continuity(log, BOOT).duplicated == 0


def test_boots_are_ordered_by_the_guest_s_clock_and_not_by_host():
    later, earlier = said("boot time_s=200", boot="000001"), said("boot time_s=100", boot="ffffff")
    assert log_of(a=later, b=earlier).boots == ("ffffff", "000001")


def test_a_file_that_is_not_there_is_empty(tmp_path):
    (tmp_path / "a").write_bytes(line(1, "beat 1"))
    assert len(read_log({"a": tmp_path / "a", "b": tmp_path / "b"}).lines) == 1


def test_many_moves_that_each_tear_a_line_lose_nothing():
    lines = beats(1, 1000)
    ends = [sum(map(len, lines[: 10 * i])) - 3 - i % (len(lines[-1]) - 6) for i in range(1, 100)]
    content = b"".join(lines)
    parts = [content[a:b] for a, b in zip([0, *ends], [*ends, len(content)], strict=True)]
    log = join({"a": b"".join(parts[::2]), "b": b"".join(parts[1::2])})
    assert [entry.sequence for entry in log.lines] == list(range(1, 1001))
    assert (log.torn, log.unreadable) == (99, ())
