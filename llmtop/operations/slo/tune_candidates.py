"""Chooses the settings that ``tune`` measures: the best of a grid by the forecast, and some that
the forecast cannot predict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from msgspec import Struct, structs

from llmtop.forecast.figures import Limits
from llmtop.forecast.load import Load, Present
from llmtop.forecast.questions import Question, ask
from llmtop.forecast.twin import Run, simulate
from llmtop.operations.slo.fitted_engine import FittedEngine
from llmtop.operations.slo.limits import ROLES
from llmtop.slo_control.candidates import Settings, grid, narrowed, unforecast_variants

FEW_DRAWS, DRAWS = 2, 8  # simulated draws for each candidate, and for the most promising ones
PROMISING = 16  # candidates with DRAWS
WARM_S = 2.0  # longest warm-up


class Chosen(Struct, frozen=True):
    """The candidates to measure. expected: goodput by the forecast, by position in the search.

    tried: number of settings that were simulated.
    """

    settings: list[Settings]
    expected: Mapping[int, float]
    tried: int


def choose(
    own: Mapping[str, int],
    most: Mapping[str, int],
    known: FittedEngine | None,
    limits: Limits,
    load: Load | None,
    run_s: float | None = None,
    run: Callable[..., Run] = simulate,
) -> Chosen:
    """Choose candidates: the best of a grid by the forecast, then some that it cannot predict.

    own: the operator's settings by role. most: highest values by role. known, load: None: no
    forecast. run_s: length of a run, in seconds, that starts at an idle engine; None: under real
    traffic. run: simulates one draw; it may raise to cancel the forecast.
    """
    limited = {role: value for role, value in own.items() if role in ROLES}
    other = {role: value for role, value in own.items() if role not in ROLES}
    candidates = grid(limited, list(limited)) if limited else []
    expected = expected_of(known, limits, candidates, load, run_s, run)
    best = narrowed(candidates, expected)
    values = {}
    for position, one in enumerate(best, start=1):
        value = expected[candidates.index(one)]
        if value is not None:
            values[position] = value
    settings: list[Settings] = [{**one, **other} for one in best]
    prompt = load.prompt.mean if load is not None else None
    settings += unforecast_variants(settings[0] if settings else own, own, most, prompt)
    return Chosen(settings, values, len(candidates))


def expected_of(
    known: FittedEngine | None,
    limits: Limits,
    candidates: Sequence[Settings],
    load: Load | None,
    run_s: float | None = None,
    run: Callable[..., Run] = simulate,
) -> list[float | None]:
    """The goodput of each candidate by the forecast; None without a forecast.

    FEW_DRAWS of each candidate select those that get DRAWS. The others count as 0.
    """
    if known is None or load is None:
        return [None] * len(candidates)
    first = [_goodput(known, limits, one, load, run_s, FEW_DRAWS, run) for one in candidates]
    order = sorted(range(len(first)), key=lambda i: -(first[i] or 0.0))
    found: list[float | None] = [None if one is None else 0.0 for one in first]
    for index in order[:PROMISING]:
        if first[index] is not None:
            found[index] = _goodput(known, limits, candidates[index], load, run_s, DRAWS, run)
    return found


def _goodput(
    known: FittedEngine,
    limits: Limits,
    candidate: Settings,
    load: Load,
    run_s: float | None,
    draws: int,
    run: Callable[..., Run],
) -> float | None:
    settings = structs.replace(known.settings, **candidate)
    question = Question(settings, load, limits, None, ranks=known.ranks)
    if run_s is not None:
        warm = warm_of(run_s) / run_s
        question = structs.replace(question, present=Present(), horizon=run_s, warm=warm)
    answer = ask(known.fit, known.front_end, question, draws=draws, run=run)
    if answer.drawn is None or "goodput_per_s" not in answer.expected:
        return None
    # The mean, not the median: near a limit some runs serve far fewer requests than others.
    known_good = [one.goodput_per_s for one in answer.drawn.draws if one.goodput_per_s is not None]
    return fmean(known_good) * known.ranks


def warm_of(run_s: float) -> float:
    """The warm-up of a run, in seconds. It is not counted, because the batch is not full yet."""
    return min(WARM_S, run_s / 4)
