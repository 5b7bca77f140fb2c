"""Figures of the transfer over time: rates, and what is left to send, each with its axis and unit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from refimpl.report.band import time_axis
from refimpl.report.story import Point, StandStill
from refimpl.report.svg import Scale, picture, stretched, tag, ticks
from refimpl.report.words import byte_unit, number

_TOP, _PLOT, _AXIS = 18, 150, 26
LEAST_POINTS = 2
_ROOM = 0.05
"""Share of the width that the number of a pass needs, on a narrow page too."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart: its name, the class that it is drawn by, and its values (time in ms, bytes or bytes/s)."""

    name: str
    class_: str
    values: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart as the page shows it: title with unit, names and classes of its lines, the axis and the plot."""

    title: str
    legend: tuple[tuple[str, str], ...]
    axis: Markup
    plot: Markup


def charts(
    points: Sequence[Point], passes: Sequence[tuple[int, float]], still: StandStill | None, limit_bytes_s: float
) -> list[Chart]:
    """Return the charts that the figures suffice for. `limit_bytes_s`: the bandwidth limit, 0 without."""
    rates = [_line("sent", "sent", points, lambda p: p.bytes_s)]
    rates.append(_line("written by the guest", "dirty", points, lambda p: p.dirty_bytes_s))
    if limit_bytes_s and points:
        rates.append(Line("limit", "limit", tuple((p.at_ms, limit_bytes_s) for p in points)))
    left = [_line("left to send", "left", points, lambda p: p.remaining_bytes)]
    wanted = (("Rates", "/s", rates), ("Left to send", "", left))
    times = [point.at_ms for point in points] + [at for _, at in passes]
    if not times:
        return []
    scale = Scale(min(times), max([*times, still.end_ms if still else 0.0]))
    return [
        _chart(title, per, lines, scale, passes, still)
        for title, per, lines in wanted
        if any(len(line.values) >= LEAST_POINTS for line in lines)
    ]


def _line(name: str, class_: str, points: Sequence[Point], value: Callable[[Point], float | None]) -> Line:
    known = ((point.at_ms, value(point)) for point in points)
    return Line(name, class_, tuple((at, float(v)) for at, v in known if v is not None))


def _chart(
    title: str,
    per: str,
    lines: Sequence[Line],
    scale: Scale,
    passes: Sequence[tuple[int, float]],
    still: StandStill | None,
) -> Chart:
    shown = [line for line in lines if line.values]
    largest = max(value for line in shown for _, value in line.values)
    unit, count = byte_unit(largest)
    up = Scale(0.0, largest * 1.06 or 1.0)
    rows = [(value * count, number(round(value, 6))) for value in ticks(Scale(0.0, up.end / count), 4)]
    parts = [_grid(up, rows), *(_pass(number_, at, scale, passes) for number_, at in passes)]
    if still is not None:
        begin, end = scale.share(still.begin_ms), scale.share(still.end_ms)
        width = f"{100 * max(end - begin, 0.002):.3f}%"
        parts.append(tag("rect", x=scale.percent(still.begin_ms), y=_TOP, width=width, height=_PLOT, class_="still"))
    parts += [_drawn(line, scale, up) for line in shown]
    parts.append(time_axis(scale, _TOP + _PLOT))
    text = "; ".join(_in_words(line, unit + per, count) for line in shown)
    plot = picture(f"{title} over time, {unit}{per}", text, _TOP + _PLOT + _AXIS, *parts, class_="plot")
    legend = tuple((line.name, line.class_) for line in shown) if len(shown) > 1 else ()
    return Chart(f"{title}, {unit}{per}", legend, _labels(up, rows), plot)


def _in_words(line: Line, unit: str, count: int) -> str:
    values = [value / count for _, value in line.values]
    return f"{line.name}: from {values[0]:.1f} to {values[-1]:.1f} {unit}, at most {max(values):.1f}"


def _y(up: Scale, value: float) -> float:
    return _TOP + _PLOT * (1 - up.share(value))


def _grid(up: Scale, rows: Sequence[tuple[float, str]]) -> Markup:
    lines = (tag("line", x1="0", x2="100%", y1=_y(up, v), y2=_y(up, v), class_="grid") for v, _ in rows)
    return Markup("").join(lines)


def _labels(up: Scale, rows: Sequence[tuple[float, str]]) -> Markup:
    texts = (tag("text", text, x="100%", y=_y(up, v) + 4, text_anchor="end", class_="tick") for v, text in rows)
    return tag("svg", *texts, width="100%", height=_TOP + _PLOT + _AXIS, class_="y-axis", aria_hidden="true")


def _pass(order: int, at: float, scale: Scale, passes: Sequence[tuple[int, float]]) -> Markup:
    x, share = scale.percent(at), scale.share(at)
    parts = [tag("line", x1=x, x2=x, y1=_TOP, y2=_TOP + _PLOT, class_="pass")]
    nearest = min((abs(scale.share(other) - share) for n, other in passes if n > order), default=1.0)
    if nearest >= _ROOM:
        parts.append(tag("text", order, x=x, y=11, text_anchor="middle", class_="tick"))
    return tag("g", tag("title", f"pass {order} ended"), *parts)


def _drawn(line: Line, scale: Scale, up: Scale) -> Markup:
    shares = [(scale.share(at), up.share(value)) for at, value in line.values]
    steps = "L".join(f"{1000 * x:.2f} {100 - 100 * y:.2f}" for x, y in shares)
    drawn = tag("path", d=f"M{steps}", class_=f"line l-{line.class_}", vector_effect="non-scaling-stroke", fill="none")
    dots = (
        []
        if len(shares) > 24
        else [
            tag("circle", cx=f"{100 * x:.3f}%", cy=_TOP + _PLOT * (1 - y), r=2.5, class_=f"dot d-{line.class_}")
            for x, y in shares
        ]
    )
    return tag("g", stretched(drawn, y=_TOP, height=_PLOT), *dots)
