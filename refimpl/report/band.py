"""The phase band: what the move did with its time, to scale, and the stand-still of the VM magnified below it."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from refimpl.report.story import Mark, Span, StandStill
from refimpl.report.svg import Scale, picture, stretched, tag, ticks
from refimpl.report.words import duration, number

_BAR, _AXIS, _ABOVE = 40, 24, 22
_CHARACTER_PX, _NARROW_PX, _WIDE_PX = 7.4, 300, 960
_ROWS, _ROW_PX, _APART = 3, 24, 0.075


def time_axis(scale: Scale, y: float, most: int = 5, *, signed: bool = False) -> Markup:
    """Return ticks with times below `y`, in seconds, or in milliseconds where all are below two seconds."""
    factor, unit = (1000, "s") if max(scale.end, -scale.begin) >= 2000 else (1, "ms")
    shown = ticks(Scale(scale.begin / factor, scale.end / factor), most)
    parts = []
    for value in shown:
        share = scale.share(value * factor)
        anchor = "start" if share < 0.04 else "end" if share > 0.93 else "middle"
        text = f"{'+' if signed and value else ''}{number(round(value, 6))} {unit}"
        x = scale.percent(value * factor)
        parts.append(tag("line", x1=x, x2=x, y1=y, y2=y + 5, class_="axis"))
        parts.append(tag("text", text, x=x, y=y + 19, text_anchor=anchor, class_="tick"))
    return Markup("").join(parts)


def band(spans: Sequence[Span], length_ms: float, still: StandStill | None) -> Markup:
    """Return the band of all phases, the stand-still bracketed above it."""
    scale, top = Scale(0.0, length_ms), _ABOVE if still else 2
    parts = [_segment(span, scale, top) for span in spans]
    if still is not None:
        parts.append(_bracket(still, scale))
    parts.append(time_axis(scale, top + _BAR))
    text = "; ".join(f"{span.name} {duration(span.ms)}" for span in spans)
    return picture("Phases of the move, to scale", text, top + _BAR + _AXIS, *parts, class_="band")


def _segment(span: Span, scale: Scale, top: float) -> Markup:
    share = scale.share(span.end_ms) - scale.share(span.begin_ms)
    needed = len(span.name) * _CHARACTER_PX + 8
    size = "" if share * _NARROW_PX >= needed else "wide" if share * _WIDE_PX >= needed else None
    x, width = scale.percent(span.begin_ms), f"{100 * share:.3f}%"
    parts = [tag("rect", x=x, y=top, width=width, height=_BAR, class_=f"phase p-{span.name}")]
    if size is not None:
        middle = f"{100 * (scale.share(span.begin_ms) + share / 2):.3f}%"
        parts.append(tag("text", span.name, x=middle, y=top + 25, text_anchor="middle", class_=f"in-phase {size}"))
    return tag("g", tag("title", f"{span.name}: {duration(span.ms)}, {span.text}"), *parts)


def _bracket(still: StandStill, scale: Scale) -> Markup:
    begin, end = scale.share(still.begin_ms), scale.share(still.end_ms)
    middle = (begin + end) / 2
    anchor = "start" if middle < 0.15 else "end" if middle > 0.85 else "middle"
    width = f"{100 * (end - begin):.3f}%"
    return tag(
        "g",
        tag("rect", x=scale.percent(still.begin_ms), y=_ABOVE - 6, width=width, height=_BAR + 6, class_="still"),
        tag("text", name_of(still), x=f"{100 * middle:.3f}%", y=12, text_anchor=anchor, class_="bracket"),
    )


def name_of(still: StandStill) -> str:
    """Return what a stand-still is called, with its length."""
    if still.open:
        return "stands still, its end was not seen"
    return f"blackout {duration(still.ms)}" if still.moved else f"stood still {duration(still.ms)}"


def inset(spans: Sequence[Span], length_ms: float, still: StandStill) -> Markup:
    """Return the stand-still over the whole width, with numbered marks, led to from its place in the band."""
    scale, rows = Scale(still.begin_ms, still.end_ms), _rows(still)
    bar_y = 34
    depth = max(rows, default=0) + 1
    axis_y = bar_y + 30 + depth * _ROW_PX
    whole = Scale(0.0, length_ms)
    a, b = 1000 * whole.share(still.begin_ms), 1000 * whole.share(still.end_ms)
    parts = [stretched(tag("polygon", points=f"{a:.1f},0 {b:.1f},0 1000,100 0,100", class_="lead"), y=0, height=bar_y)]
    parts += [
        _part(span, scale, bar_y) for span in spans if span.end_ms > still.begin_ms and span.begin_ms < still.end_ms
    ]
    placed = [(order, mark, row) for order, (mark, row) in enumerate(zip(still.marks, rows, strict=True), 1)]
    parts += [_stem(mark, scale, bar_y, row) for _, mark, row in placed]
    parts += [_disc(order, mark, scale, bar_y, row) for order, mark, row in placed]
    parts.append(time_axis(Scale(0.0, still.ms), axis_y, signed=True))
    text = "; ".join(f"+{duration(mark.at_ms - still.begin_ms)} {mark.text}" for mark in still.marks)
    return picture(f"Magnified: {name_of(still)}", text, axis_y + _AXIS, *parts, class_="inset")


def _part(span: Span, scale: Scale, y: float) -> Markup:
    begin, end = scale.share(span.begin_ms), scale.share(span.end_ms)
    width = f"{100 * (end - begin):.3f}%"
    parts = [tag("rect", x=scale.percent(span.begin_ms), y=y, width=width, height=22, class_=f"phase p-{span.name}")]
    if (end - begin) * _NARROW_PX >= len(span.name) * _CHARACTER_PX + 8:
        x = f"{50 * (begin + end):.3f}%"
        parts.append(tag("text", span.name, x=x, y=y + 16, text_anchor="middle", class_="in-phase"))
    return tag("g", *parts)


def _rows(still: StandStill) -> list[int]:
    """Return for each mark the row in which its number has room, also on a narrow page."""
    scale, last, found = Scale(still.begin_ms, still.end_ms), [-1.0] * _ROWS, list[int]()
    for mark in still.marks:
        share = scale.share(mark.at_ms)
        row = next((r for r in range(_ROWS) if share - last[r] >= _APART), min(range(_ROWS), key=lambda r: last[r]))
        last[row] = share
        found.append(row)
    return found


def _stem(mark: Mark, scale: Scale, bar_y: float, row: int) -> Markup:
    x = scale.percent(mark.at_ms)
    return tag("line", x1=x, x2=x, y1=bar_y - 4, y2=_row_y(bar_y, row), class_="mark")


def _disc(order: int, mark: Mark, scale: Scale, bar_y: float, row: int) -> Markup:
    share, y = scale.share(mark.at_ms), _row_y(bar_y, row)
    x = f"{100 * share:.3f}%"
    # Numbers at the very edges stay whole.
    push = f"translate({9 if share < 0.03 else -9 if share > 0.97 else 0} 0)"
    return tag(
        "g",
        tag("title", mark.text),
        tag("circle", cx=x, cy=y, r=9, class_="mark-disc", transform=push),
        tag("text", order, x=x, y=y + 4, text_anchor="middle", class_="mark-number", transform=push),
    )


def _row_y(bar_y: float, row: int) -> float:
    return bar_y + 36 + row * _ROW_PX
