"""A report in a real browser at the width of a desk and of a phone, where one is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmtop.report.formats.stylesheet import STYLE
from llmtop.report.runs import Run
from llmtop.report.write import write_report
from tests.report.results import HOSTILE, hold, saturation, tuning

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
LEAST_CONTRAST = 7.0  # WCAG 2.2, level AAA for text


@pytest.mark.more
@pytest.mark.process
@pytest.mark.skipif(BROWSER is None, reason="no chromium is installed")
@pytest.mark.parametrize("width", [500, 1200])
@pytest.mark.parametrize(
    ("kind", "make"), [("saturation", saturation), ("tuning", tuning), ("hold", hold)]
)
def test_nothing_is_wider_than_the_window(
    tmp_path: Path, width: int, kind: str, make: Callable[..., dict[str, Any]]
) -> None:
    found = make(name=HOSTILE, summary="a" * 300)
    write_report(str(tmp_path / "r.html"), [Run(kind, "run", found)], 1795326110.0)
    # The frame measures the page as it is laid out; its policy allows no script of its own.
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<iframe id="f" style="border:0;width:{width - 40}px;height:600px" src="r.html"></iframe>'
        "<script>onload=()=>{const d=f.contentDocument.documentElement;"
        "document.title=d.scrollWidth+' '+d.clientWidth+' '+d.querySelectorAll('svg path').length}"
        "</script>"
    )
    done = subprocess.run(
        [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu",
         "--allow-file-access-from-files",
         f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},800",
         "--virtual-time-budget=5000", "--dump-dom", str(frame)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    told = re.search(r"<title>(\d+) (\d+) (\d+)</title>", done.stdout)
    assert told is not None, done.stdout[-500:] + done.stderr[-500:]
    wide, window, drawn = map(int, told.groups())
    assert wide <= window and drawn > 4


def test_text_has_contrast_in_light_and_dark() -> None:
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.S)[:2]
    for scheme in (light, dark):
        colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", scheme))
        for name in ("ink", "soft"):
            assert contrast(colours[name], colours["paper"]) >= LEAST_CONTRAST
        assert contrast(colours["warn"], colours["warnpaper"]) >= LEAST_CONTRAST
        assert contrast(colours["main"], colours["paper"]) >= 4.5
        assert contrast(colours["ink"], colours["panel"]) >= LEAST_CONTRAST


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2.2."""
    lights = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lights[0] + 0.05) / (lights[1] + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
