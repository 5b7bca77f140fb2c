"""The page itself: one HTML file with everything in it, for one move or several."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

import refimpl
from refimpl.report.data import ReportData
from refimpl.report.view import view
from refimpl.report.words import duration, label, size


def page(*moves: ReportData, title: str = "") -> str:
    """Return the HTML of a report of at least one move; `title` is that of several."""
    environment = Environment(
        loader=PackageLoader("refimpl.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(duration=duration, size=size, label=label)
    style = files("refimpl.report").joinpath("templates/page.css").read_text("utf-8")
    views = [view(move, f"move{number}") for number, move in enumerate(moves, 1)]
    return environment.get_template("page.html").render(
        moves=views, title=title or _title(moves), style=Markup(style), version=refimpl.__version__
    )


def _title(moves: Sequence[ReportData]) -> str:
    first = moves[0]
    return f"Live migration of {first.request.get('vm')} to {first.request.get('destination')}"
