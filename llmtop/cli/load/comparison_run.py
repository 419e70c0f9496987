"""One comparison, run to its end: the variants in turn, restarts, and the status line."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import click
from msgspec import Struct

from llmtop import LlmtopError, UsageError
from llmtop.cli.common.output import note
from llmtop.cli.common.status_line import StatusLine
from llmtop.cli.load.load_target import (
    LoadTarget,
    RequestOptions,
    energy_of,
    load_on,
    wait_a_beat,
)

if TYPE_CHECKING:
    from llmtop.cli.load.repeated_prompts import DatasetRepeats
    from llmtop.engines.core.records import EngineStatus
    from llmtop.loadgen.core.client_capacity import Calibration
    from llmtop.loadgen.core.results import RequestRecord
    from llmtop.loadgen.experiments.comparison import CompareResult, Comparison
    from llmtop.loadgen.experiments.level import LoadClock
    from llmtop.loadgen.workers.load import Load
    from llmtop.operations.variant_switcher import VariantSwitcher
    from llmtop.operations.wiring import Wiring

DRAIN_S = 30.0
CUT_S = 5.0
Place = Callable[[str], bool]  # puts an arm in force; returns whether an engine was started for it


class ComparisonPlan(Struct, frozen=True):
    """What is compared, and with which load. targets: one engine, or two. calibration: returns
    the capacity of this client; the first call measures it. repeats: one for each target."""

    targets: list[LoadTarget]
    asked: RequestOptions
    streams: int
    pairs: int
    seconds: float
    as_json: bool
    calibration: Callable[[], Calibration | None]
    repeats: list[DatasetRepeats]

    def load(
        self, found: LoadTarget, clock: LoadClock, on_record: Callable[[RequestRecord], None]
    ) -> Load:
        """The load on one of them."""
        repeats = self.repeats[self.targets.index(found)]
        repeats.begin()
        take = repeats.counting(on_record)
        load = load_on(found, self.asked, clock, self.seconds, take, self.calibration())
        repeats.follow(load)
        return load


class Outcome(Struct, frozen=True):
    """The result of one comparison. labels: the settings or names of A and B. stopped: by Ctrl+C.
    failure: the engine did not start with an arm. restarts: how often it was started."""

    result: CompareResult
    labels: tuple[str, str]
    stopped: bool = False
    failure: LlmtopError | None = None
    restarts: int = 0


def compare_settings(
    plan: ComparisonPlan, wiring: Wiring, target: str, given: Mapping[str, Mapping[str, str]]
) -> Outcome:
    """Compare two settings of one engine. The engine is always left as it was found."""
    from llmtop.loadgen.experiments.comparison import Comparison
    from llmtop.loadgen.experiments.level import LoadClock
    from llmtop.operations.variant_switcher import VariantSwitcher
    from llmtop.operations.wiring import fresh_seed

    energy, clock, line = energy_of(plan.targets[0]), LoadClock(), StatusLine(quiet=plan.as_json)
    with asyncio.Runner() as runner:
        endpoint = plan.targets[0].endpoint or runner.run(wiring.endpoint(target))
        arms = VariantSwitcher.find(runner, wiring, endpoint, given)
        switch_s = (arms.startup_s or 0.0) + plan.seconds if arms.reasons else 0.0
        comparison = Comparison(
            clock.seconds,
            level=plan.streams,
            pairs=plan.pairs,
            seconds=plan.seconds,
            energy=energy or (lambda: None),
            seed=fresh_seed(),
            switch_s=switch_s,
        )
        try:
            if arms.reasons:
                _ask(arms, arms.starts(comparison.sequence), comparison, plan.asked.yes)
            load = plan.load(plan.targets[0], clock, comparison.take)
            try:
                place = _placing(arms, load, line)
                return _run(comparison, place, lambda: load, line, arms.labels)
            finally:
                # The load first: it would count the requests that the restart stops as failures.
                load.close()
                arms.put_back(note, _phase_on(line))
                line.clear()
        finally:
            arms.close()
            runner.run(wiring.fetch.close())
            if energy is not None:
                energy.close()


def _ask(arms: VariantSwitcher, starts: int, comparison: Comparison, yes: bool) -> None:
    """Show what the restarts cost, and ask for consent unless ``--yes`` was given."""
    from llmtop.wording.format import duration

    startup_s = arms.startup_s
    if startup_s is None:
        cost = "the time of one is not known"
    else:
        cost = f"about {duration(startup_s)} each, {duration(starts * startup_s)} in all"
    standing = comparison.standing
    whole = f"; the comparison takes about {duration(standing.left_s)}" if standing else ""
    words = (
        f"{'; '.join(arms.reasons)}: {arms.name} is restarted {starts} times, {cost}{whole}; "
        "other clients' requests are stopped each time"
    )
    if yes:
        note(words)
    elif not sys.stdin.isatty():
        raise UsageError(words, "add --yes to agree")
    else:
        click.confirm(f"{words}. Continue?", abort=True, err=True)


def _placing(arms: VariantSwitcher, load: Load, line: StatusLine) -> Place:
    """Return what puts an arm in force. No request is in flight while the engine restarts."""
    begun = [False]

    def place(arm: str) -> bool:
        if begun[0] and arms.starts_for(arm):
            load.stop(drain=False)
            until = time.monotonic() + CUT_S
            while not load.finished and time.monotonic() < until:
                wait_a_beat(load)
        begun[0] = True
        return arms.place(arm, _phase_on(line, arm))

    return place


def _phase_on(line: StatusLine, arm: str = "") -> Callable[[EngineStatus], None]:
    def show(status: EngineStatus) -> None:
        what = f"with {arm}" if arm else "as it was before"
        words = f"{status.record.name} starts {what}: {status.phase or status.state.value}"
        before = status.record.previous_startup_s
        line.show(words + (f", about {before:.0f} s" if before else ""), now=True)

    return show


def compare_engines(plan: ComparisonPlan) -> Outcome:
    """Compare two engines; only one gets load at a time."""
    from llmtop.loadgen.experiments.comparison import Comparison
    from llmtop.loadgen.experiments.level import LoadClock
    from llmtop.operations.wiring import fresh_seed

    clocks = {arm: LoadClock() for arm in ("A", "B")}
    playing = ["A"]
    comparison = Comparison(
        lambda: clocks[playing[0]].seconds(),
        level=plan.streams,
        pairs=plan.pairs,
        seconds=plan.seconds,
        seed=fresh_seed(),
    )
    loads = {
        arm: plan.load(found, clocks[arm], comparison.take)
        for arm, found in zip(clocks, plan.targets, strict=True)
    }
    labels = (plan.targets[0].name, plan.targets[1].name)
    line = StatusLine(quiet=plan.as_json)
    try:
        place = _turning(loads, playing)
        return _run(comparison, place, lambda: loads[playing[0]], line, labels)
    finally:
        for load in loads.values():
            load.close()


def _turning(loads: Mapping[str, Load], playing: list[str]) -> Place:
    """Return what moves the load to the other engine. Requests in flight end first, because the
    engines may share a GPU."""

    def place(arm: str) -> bool:
        other = loads["B" if arm == "A" else "A"]
        if playing[0] != arm:
            other.stop()
            until = time.monotonic() + DRAIN_S
            while not other.finished:
                wait_a_beat(other)
                if time.monotonic() > until:
                    other.stop(drain=False)
                    until = float("inf")
        playing[0] = arm
        return False

    return place


def _run(
    comparison: Comparison,
    place: Place,
    load: Callable[[], Load],
    line: StatusLine,
    labels: tuple[str, str],
) -> Outcome:
    """Run the comparison until it ends, is stopped, or an engine does not start."""
    from llmtop.loadgen.experiments.comparison import CompareResult, PairResult, Turn
    from llmtop.operations.variant_switcher import DidNotStart
    from llmtop.wording.findings import pair_line
    from llmtop.wording.sentences import remaining

    starts = 0
    try:
        while True:
            match fact := comparison.poll():
                case CompareResult():
                    line.clear()
                    return Outcome(fact, labels, restarts=starts)
                case Turn(arm):
                    fresh = place(arm)
                    starts += fresh
                    comparison.placed(load(), fresh=fresh)
                case PairResult():
                    line.keep(pair_line(fact))
                case None:
                    if comparison.running:
                        wait_a_beat(load())
            if (now := comparison.standing) is not None:
                line.show(
                    f"run {now.run} of {now.runs}: {now.arm}, {now.phase}, {remaining(now.left_s)}"
                )
    except DidNotStart as failure:
        return Outcome(comparison.result(), labels, failure=failure, restarts=starts)
    except KeyboardInterrupt:
        line.keep("stopped; these are the results so far")
        return Outcome(comparison.result(), labels, stopped=True, restarts=starts)
