"""Runs a tune: the forecast, the runs and the progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmtop.cli.common.status_line import StatusLine
from llmtop.cli.forecast.tune_engine import Engine
from llmtop.cli.forecast.tune_meters import LoadMeter, LoadOf
from llmtop.cli.load.load_target import RequestOptions, find_target, load_on
from llmtop.forecast.figures import Limits
from llmtop.forecast.load import Lengths, Load
from llmtop.loadgen.experiments.level import LoadClock
from llmtop.operations.inside import require_inside
from llmtop.operations.slo.fitted_engine import FittedEngine
from llmtop.operations.slo.limits import Names
from llmtop.operations.slo.tune_candidates import choose
from llmtop.operations.slo.tune_runs import TimeLimit
from llmtop.operations.slo.tuner import Tuner, TuneReport
from llmtop.operations.slo.watch_meter import WatchMeter
from llmtop.operations.variant_switcher import undisturbed
from llmtop.operations.wiring import Wiring
from llmtop.slo_control.limits import Goal
from llmtop.slo_control.search import Measured, Search


def tune_under_load(
    wiring: Wiring,
    name: str,
    limits: Limits,
    roles: Sequence[str],
    load: LoadOf,
    asked: RequestOptions,
    *,
    most_s: float | None,
    quiet: bool,
) -> tuple[TuneReport, str]:
    """Tune with a load that llmtop sends. Returns the result and the launch command.

    most_s: time limit, in seconds; None: no limit. quiet: show no progress.
    """
    target = find_target(wiring, name, asked, load.rate or load.streams or 1.0)
    engine = Engine(wiring, name)
    clock, line = LoadClock(), StatusLine(quiet=quiet)
    meter = LoadMeter(load, limits, clock, asked.prompts)
    try:
        own, names = engine.own(roles)
        with load_on(target, asked, clock, load.seconds, meter.take) as generator:
            meter.load = generator
            began, limit = time.monotonic(), TimeLimit(most_s)
            first = meter.first(
                lambda words: line.show(words, now=True),
                lambda seconds: limit.has(time.monotonic() - began, seconds),
            )
            known = engine.known(load.streams)
            assumed = _assumed(load, asked, known)
            line.show("a forecast chooses the candidates", now=True)
            run_s = meter.asked.duration_s
            chosen = choose(own, engine.most(names), known, limits, assumed, run_s)
            search = Search(own, chosen.settings)
            if search.next() == 0:
                search.take(first)
            report = _run(
                search, names, engine, meter, chosen.expected, line, began, 1, limit=limit
            )
        return report, engine.launch_line(report.settings)
    finally:
        line.clear()
        engine.close()


def _assumed(load: LoadOf, asked: RequestOptions, known: FittedEngine | None) -> Load | None:
    """The load of the runs, as input of the forecast; None if its lengths are unknown."""
    if known is None or (load.rate is None and load.streams is None):
        return known.observed.load if known is not None and known.observed is not None else None
    seen = known.observed.load if known.observed is not None else None
    prompt, output = asked.prompts.prompt_tokens, asked.prompts.output_tokens
    lengths = [
        Lengths.span(*bounds) if isinstance(bounds, tuple) and len(bounds) == 2 else None
        for bounds in (prompt, output)
    ]
    prompts = lengths[0] or (seen.prompt if seen is not None else None)
    outputs = lengths[1] or (seen.output if seen is not None else None)
    if prompts is None or outputs is None:
        return None
    if load.rate is not None:
        return Load("open", load.rate, prompts, outputs)
    return Load("closed", float(load.streams or 1), prompts, outputs)


def tune_watching(
    wiring: Wiring,
    name: str,
    limits: Limits,
    roles: Sequence[str],
    seconds: float,
    *,
    most_s: float | None,
    quiet: bool,
) -> tuple[TuneReport, str]:
    """Tune under the real traffic. Returns the result and the launch command.

    seconds: length of each run. most_s, quiet: as in ``tune_under_load``.
    """
    engine = Engine(wiring, name)
    line = StatusLine(quiet=quiet)
    try:
        own, names = engine.own(roles)
        known = engine.known(None)
        load = known.observed.load if known is not None and known.observed is not None else None
        chosen = choose(own, engine.most(names), known, limits, load)
        search = Search(own, chosen.settings)
        inside = require_inside(engine.endpoint)
        meter = WatchMeter(inside, Goal(limits.ttft, limits.tpot), seconds)

        def measure(*, own: bool, arrivals: int) -> Measured | None:  # arrivals: cannot be chosen
            return engine.runner.run(meter.measure(own=own))

        def recover() -> None:
            engine.runner.run(meter.recover())

        try:
            began = time.monotonic()
            report = _run(
                search, names, engine, measure, chosen.expected, line, began, 0, recover,
                limit=TimeLimit(most_s),
            )  # fmt: skip
        finally:
            inside.close()
        return report, engine.launch_line(report.settings)
    finally:
        line.clear()
        engine.close()


def _run(
    search: Search,
    names: Names,
    engine: Engine,
    meter: Any,
    expected: Mapping[int, float],
    line: StatusLine,
    began: float,
    before: int,
    recover: Callable[[], None] = lambda: None,
    *,
    limit: TimeLimit,
) -> TuneReport:
    """Run the search, with its progress on the status line. before: number of runs already done."""

    def on_run(number: int, left: int, settings: Mapping[str, int]) -> None:
        spent = time.monotonic() - began
        each = spent / (number - 1) if number > 1 else 0.0
        rest = f", about {limit.left(spent, each * left):.0f} s left" if each else ""
        line.show(f"run {number}: {words_of(settings)}{rest}", now=True)

    def on_result(settings: Mapping[str, int], found: Measured | None) -> None:
        result = "broke the limits" if found is None else f"{found.goodput_per_s:.1f} in time/s"
        line.keep(f"{words_of(settings)}: {result}")

    tuner = Tuner(
        search,
        names,
        engine.set,
        meter,
        expected=expected,
        began=began,
        runs=before,
        recover=recover,
        restoring=lambda: undisturbed(lambda words: line.show(words, now=True)),
        on_run=on_run,
        on_result=on_result,
        limit=limit,
    )
    return tuner.run()


def words_of(settings: Mapping[str, int]) -> str:
    """Format settings as ``name=value`` pairs."""
    return " ".join(f"{name}={value}" for name, value in settings.items())
