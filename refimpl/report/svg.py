"""Drawing that fits any width without scripts: places along x are percentages, along y pixels, text keeps its size.

Lines have no percentages in SVG, so they lie in an inner picture of 1000 by 100 units that is stretched to its frame.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import floor, log10

from markupsafe import Markup, escape

WIDE = 1000.0
"""Units across the inner, stretched picture."""


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """Return an element as markup; whatever is no markup yet is escaped. `_` in names of attributes means `-`."""
    given = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), value)
        for key, value in attributes.items()
        if value is not None
    )
    return Markup("<{}{}>{}</{}>").format(Markup(name), given, Markup("").join(map(escape, children)), Markup(name))


def picture(title: str, text: str, height: int, *children: object, class_: str = "") -> Markup:
    """Return a picture that takes the whole width, with a title and a description for those who do not see it."""
    head = (tag("title", title), tag("desc", text))
    return tag("svg", *head, *children, class_=class_, width="100%", height=height, role="img", aria_label=title)


def stretched(*children: object, y: float, height: float) -> Markup:
    """Return an inner picture of 1000 by 100 units over the whole width."""
    box = f"0 0 {WIDE:.0f} 100"
    return tag("svg", *children, x="0", y=y, width="100%", height=height, viewBox=box, preserveAspectRatio="none")


@dataclass(frozen=True, slots=True)
class Scale:
    """Values from `begin` to `end` along one direction."""

    begin: float
    end: float

    def share(self, value: float) -> float:
        """Return where a value lies, 0 at the begin and 1 at the end, never outside."""
        if self.end <= self.begin:
            return 0.0
        return min(1.0, max(0.0, (value - self.begin) / (self.end - self.begin)))

    def percent(self, value: float) -> str:
        """Return where a value lies as percentage."""
        return f"{100 * self.share(value):.3f}%"


def ticks(scale: Scale, most: int) -> list[float]:
    """Return round values within a scale, at most so many and one."""
    room = (scale.end - scale.begin) / most
    if room <= 0:
        return [scale.begin]
    power = 10.0 ** floor(log10(room))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= room * 0.999999)
    first = -(-scale.begin // step)
    count = int((scale.end - first * step) / step + 1e-9) + 1
    return [(first + number) * step for number in range(count)]


def path(points: Iterable[tuple[float, float]], class_: str) -> Markup:
    """Return a line through points given as shares (0 to 1) across and up."""
    steps = [f"{WIDE * x:.2f} {100 - 100 * y:.2f}" for x, y in points]
    return tag("path", d="M" + "L".join(steps), class_=class_, vector_effect="non-scaling-stroke", fill="none")
