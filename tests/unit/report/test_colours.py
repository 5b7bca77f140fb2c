"""Colours of the page: text 4.5 to 1 against what it lies on, shapes 3 to 1, in light and dark (WCAG 2)."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

STYLE = files("refimpl.report").joinpath("templates/page.css").read_text("utf-8")
BLOCKS = re.findall(r":root \{(.*?)\}", STYLE, re.S)[:2]
LIGHT, DARK = (dict(re.findall(r"--([\w-]+): (#\w+)", block)) for block in BLOCKS)
THEMES = {"light": LIGHT, "dark": {**LIGHT, **DARK}}
TEXTS = [(ink, ground) for ink in ("ink", "soft", "still") for ground in ("paper", "ground", "sunk")]
TEXTS += [(tone, f"{tone}-bg") for tone in ("good", "warn", "bad", "open")]
PHASES = re.findall(r"\.p-([a-z]+) \{", STYLE)
LINES = ("sent", "dirty", "left", "limit", "beat", "still")


def brightness(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted((brightness(one), brightness(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", THEMES)
def test_text_is_readable(theme):
    colours = THEMES[theme]
    low = {pair: contrast(colours[pair[0]], colours[pair[1]]) for pair in TEXTS}
    low |= {(phase, "its name"): contrast("#ffffff", colours[phase]) for phase in PHASES}
    assert {pair: ratio for pair, ratio in low.items() if ratio < 4.5} == {}


@pytest.mark.parametrize("theme", THEMES)
def test_shapes_are_seen(theme):
    colours = THEMES[theme]
    assert len(PHASES) == 11
    low = {name: contrast(colours[name], colours["paper"]) for name in (*PHASES, *LINES)}
    assert {name: ratio for name, ratio in low.items() if ratio < 3} == {}
