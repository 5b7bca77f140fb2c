"""The heartbeat strip: every heartbeat that was heard outside is a tick, so that a silence is a hole one can see."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from refimpl.report.band import time_axis
from refimpl.report.data import Track
from refimpl.report.story import StandStill
from refimpl.report.svg import Scale, picture, stretched, tag
from refimpl.report.words import duration

_TOP, _BAR, _AXIS = 20, 30, 24
_AROUND = 4.0


@dataclass(frozen=True, slots=True)
class Strip:
    """The strip of all samples of a track, its part around the longest silence magnified, and that silence (ms)."""

    name: str
    whole: Markup
    near: Markup
    gap_ms: float
    count: int


def strip(track: Track, zero_ns: int, length_ms: float, still: StandStill | None) -> Strip | None:
    """Return the strip, None when fewer than two samples touch the move. Times count from its start, `zero_ns`."""
    times = sorted((at_ns - zero_ns) / 1e6 for at_ns in track.times_ns)
    around = [pair for pair in itertools.pairwise(times) if pair[1] >= 0 and pair[0] <= length_ms]
    if not around:
        return None
    begin, end = max(around, key=lambda pair: pair[1] - pair[0])
    gap = end - begin
    room = max(_AROUND * gap, 1.0)
    whole = Scale(min(times[0], 0.0), max(times[-1], length_ms))
    near = Scale(max(whole.begin, begin - room), min(whole.end, end + room))
    title = f"{len(times)} {track.name} heard, the longest silence {duration(gap)}"
    return Strip(
        track.name,
        _strip(title, times, whole, (begin, end), still),
        _strip(f"Magnified: {duration(gap)} of silence", times, near, (begin, end), still),
        gap,
        len(times),
    )


def _strip(
    title: str, times: Sequence[float], scale: Scale, gap: tuple[float, float], still: StandStill | None
) -> Markup:
    within = [time for time in times if scale.begin <= time <= scale.end]
    steps = "".join(f"M{1000 * scale.share(time):.2f} 0V100" for time in within)
    ticks = tag("path", d=steps, class_="beat", vector_effect="non-scaling-stroke")
    parts = [stretched(ticks, y=_TOP, height=_BAR)]
    if still is not None:
        share = scale.share(still.end_ms) - scale.share(still.begin_ms)
        x, width = scale.percent(still.begin_ms), f"{100 * share:.3f}%"
        parts.append(tag("rect", x=x, y=_TOP + _BAR - 8, width=width, height=8, class_="still"))
    middle = (scale.share(gap[0]) + scale.share(gap[1])) / 2
    anchor = "start" if middle < 0.15 else "end" if middle > 0.85 else "middle"
    words = f"silence {duration(gap[1] - gap[0])}"
    parts.append(tag("text", words, x=f"{100 * middle:.3f}%", y=13, text_anchor=anchor, class_="bracket"))
    parts.append(time_axis(scale, _TOP + _BAR))
    return picture(title, f"{len(within)} samples; {words}", _TOP + _BAR + _AXIS, *parts, class_="strip")
