"""The page as a browser lays it out: at no width does anything have to be scrolled to sideways, or is hidden."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import escape
from pathlib import Path

import pytest

from refimpl.app.report import html
from refimpl.report import story
from refimpl.report.data import ReportData, Track
from tests.unit.report.pages import ended, moved

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PROBE = """<!DOCTYPE html><iframe style="width:WIDTHpx; height:900px; border:0" srcdoc="PAGE"></iframe><script>
onload = () => {
  const frame = document.querySelector("iframe").contentWindow, page = frame.document, root = page.documentElement;
  const all = selector => [...page.querySelectorAll(selector)], room = root.clientWidth, wide = root.scrollWidth;
  const beyond = e => { const b = e.getBoundingClientRect(); return b.width && (b.right > room + 1 || b.left < -1); };
  const out = all("h1, h2, section, header, dl, figure, svg.band, svg.plot").filter(beyond).map(e => e.tagName);
  const lost = all("svg text").filter(beyond).map(e => e.textContent);
  const small = all("svg text").filter(e => parseFloat(frame.getComputedStyle(e).fontSize) < 11).length;
  const thin = e => { const b = e.getBoundingClientRect(); return b.width > 0 && b.width < 12; };
  const cut = all("td, th, dd").filter(thin);
  const scrolled = all("section > .scroll").filter(e => e.scrollWidth > e.clientWidth).map(e => e.textContent.trim());
  const told = JSON.stringify({wide, room, out, small, lost, scrolled, cut: cut.length});
  document.documentElement.replaceChildren("told:" + told + ":told");
};
</script>"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")


def laid_out(data: ReportData, width: int, directory: Path) -> dict[str, object]:
    """What a browser says of the page at a width in pixels."""
    # In a frame: a window of its own is never as narrow as a telephone.
    file = directory / "page.html"
    file.write_text(PROBE.replace("WIDTH", str(width)).replace("PAGE", escape(html(data))), "utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
    options += [f"--user-data-dir={directory / 'profile'}", "--window-size=1500,1000", "--virtual-time-budget=2000"]
    command = [str(CHROMIUM), *options, "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    found = re.search(r"told:(.*):told", done.stdout)
    assert found, (done.returncode, done.stdout[-500:], done.stderr[-500:])
    told: dict[str, object] = json.loads(found[1].replace("&quot;", '"'))
    return told


@pytest.mark.parametrize("width", [360, 390, 1400])
def test_nothing_overflows(width, tmp_path):
    data = ended(tmp_path, "completed")
    zero = story.begin_ns(data.events)
    heard = Track("heartbeats", tuple(zero + n * 10_000_000 for n in range(600) if not 300 <= n < 330))
    verdict = {"name": "outside gap", "state": "not measured", "text": "x" * 90, "figures": {"outside_gap_ms": 310.0}}
    told = laid_out(replace(data, tracks=(heard,), verdicts=(verdict,)), width, tmp_path)
    assert told == {"wide": width, "room": width, "out": [], "small": 0, "lost": [], "scrolled": [], "cut": 0}


def test_long_names_break_instead_of_overflowing(tmp_path):
    data = moved(tmp_path, request_vm="nobody")
    assert data.outcome is not None
    name = "n" * 300
    long = replace(data, outcome=replace(data.outcome, vm=name), request={**data.request, "vm": name}, reproduce=name)
    told = laid_out(long, 360, tmp_path)
    assert (told["wide"], told["out"], told["scrolled"]) == (360, [], [])
