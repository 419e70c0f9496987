"""Is the engine past its knee? Said only when the last half minute shows it."""

from __future__ import annotations

from collections.abc import Sequence

from llmtop.tui.panels.view import Stage, View
from llmtop.tui.series import SeriesName

WINDOW_S = 30.0
# Between the two halves of the window. Sampling noise at a steady load moves medians of fifteen
# samples by less than these; the curve of an 8B model on one H200 (54 -> 81 -> 180 ms and
# 5.2 -> 6.2 -> 6.6k tok/s from 64 to 128 to 256 streams) crosses them between 128 and 256.
FLAT = 0.08
RISING = 1.25
MORE = 1.15

Values = Sequence[float | None]


def verdict(
    ttft: tuple[Values, Values],
    tokens: tuple[Values, Values],
    running: tuple[Values, Values],
    waiting: tuple[Values, Values],
) -> str:
    """ "past knee", "queueing" or "": each argument is (earlier half, later half) of the window.

    past knee: TTFT rose by a quarter and output tokens/s stayed within 8 %, while more was asked
    of the engine (more running or waiting). queueing: requests waited in most of the later half.
    """
    before, after = _median(ttft[0]), _median(ttft[1])
    old_rate, rate = _median(tokens[0]), _median(tokens[1])
    asked_before = _sum(_median(running[0]), _median(waiting[0]))
    asked_after = _sum(_median(running[1]), _median(waiting[1]))
    if (
        before
        and after
        and old_rate
        and rate
        and asked_before
        and asked_after
        and after >= before * RISING
        and abs(rate - old_rate) <= old_rate * FLAT
        and asked_after >= asked_before * MORE
    ):
        return "past knee"
    late = [v for v in waiting[1] if v is not None]
    if len(late) >= 5 and sum(v >= 1 for v in late) >= 0.8 * len(late):
        return "queueing"
    return ""


def saturation(view: View) -> str:
    """The verdict on the selected engine; the client's TTFT where there is one, else its own."""
    if view.stage is not Stage.RUNNING or view.stale_s is not None:
        return ""  # what it said last says nothing of now
    middle = view.now - WINDOW_S / 2

    def halves(name: SeriesName) -> tuple[Values, Values]:
        points = view.points(name, view.now - WINDOW_S)
        return [v for t, v in points if t < middle], [v for t, v in points if t >= middle]

    running, waiting = halves(SeriesName.RUNNING), halves(SeriesName.WAITING)
    if not any(running[1]) and not any(waiting[1]):
        return ""  # nothing was asked of it: most engines, most of the time
    ttft = halves(SeriesName.CLIENT_TTFT_P95)
    if not all(sum(v is not None for v in half) >= 5 for half in ttft):
        ttft = halves(SeriesName.TTFT_P95)
    return verdict(ttft, halves(SeriesName.OUTPUT_TOKENS), running, waiting)


def _median(values: Values) -> float | None:
    known = [v for v in values if v is not None]
    if len(known) < 5:
        return None
    from statistics import median  # decimal and fractions, which the first paint does without

    return median(known)


def _sum(a: float | None, b: float | None) -> float | None:
    return None if a is None else a + (b or 0.0)
