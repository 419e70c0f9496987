"""Runs one comparison: switches the variants, restarts the engine, shows the progress."""

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
    poll_load,
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

DRAIN_S = 30.0  # longest wait for requests in flight before they are aborted
ABORT_S = 5.0  # longest wait for aborted requests
Switch = Callable[[str], bool]  # applies variant "A" or "B"; returns whether an engine was started


class ComparisonPlan(Struct, frozen=True):
    """What is compared, and with which load. targets: one engine or two. seconds: length of a run.

    calibration: returns the capacity of this client; the first call measures it. repeats: one for
    each target.
    """

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
        """Create the load on one of the targets, with its requests counted."""
        repeats = self.repeats[self.targets.index(found)]
        repeats.begin()
        take = repeats.counting(on_record)
        load = load_on(found, self.asked, clock, self.seconds, take, self.calibration())
        repeats.follow(load)
        return load


class Outcome(Struct, frozen=True):
    """The result of a comparison. labels: the settings or names of A and B. stopped: by Ctrl+C.

    failure: why the engine did not start with a variant. restarts: number of starts.
    """

    result: CompareResult
    labels: tuple[str, str]
    stopped: bool = False
    failure: LlmtopError | None = None
    restarts: int = 0


def compare_settings(
    plan: ComparisonPlan, wiring: Wiring, target: str, settings: Mapping[str, Mapping[str, str]]
) -> Outcome:
    """Compare two settings of one engine. At the end the engine always has its own settings again.

    settings: option values as text, for "A" and "B".
    """
    from llmtop.loadgen.experiments.comparison import Comparison
    from llmtop.loadgen.experiments.level import LoadClock
    from llmtop.operations.variant_switcher import VariantSwitcher
    from llmtop.operations.wiring import fresh_seed

    energy, clock, line = energy_of(plan.targets[0]), LoadClock(), StatusLine(quiet=plan.as_json)
    with asyncio.Runner() as runner:
        endpoint = plan.targets[0].endpoint or runner.run(wiring.endpoint(target))
        variants = VariantSwitcher.find(runner, wiring, endpoint, settings)
        switch_s = (variants.startup_s or 0.0) + plan.seconds if variants.reasons else 0.0
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
            if variants.reasons:
                _ask(variants, variants.starts(comparison.sequence), comparison, plan.asked.yes)
            load = plan.load(plan.targets[0], clock, comparison.take)
            try:
                switch = _restarting_switch(variants, load, line)
                return _run(comparison, switch, lambda: load, line, variants.labels)
            finally:
                # Close the load first. Else it counts requests aborted by the restart as failures.
                load.close()
                variants.restore(note, _phase_on(line))
                line.clear()
        finally:
            variants.close()
            runner.run(wiring.fetch.close())
            if energy is not None:
                energy.close()


def _ask(variants: VariantSwitcher, starts: int, comparison: Comparison, yes: bool) -> None:
    """Show the cost of the restarts, and ask for consent unless ``yes``.

    Raises UsageError without a terminal.
    """
    from llmtop.wording.format import duration

    startup_s = variants.startup_s
    if startup_s is None:
        cost = "the duration of a restart is not known"
    else:
        cost = f"about {duration(startup_s)} each, {duration(starts * startup_s)} in all"
    standing = comparison.standing
    whole = f"; the comparison takes about {duration(standing.left_s)}" if standing else ""
    words = (
        f"{'; '.join(variants.reasons)}: {variants.name} is restarted {starts} times, "
        f"{cost}{whole}; each restart aborts the requests of other clients"
    )
    if yes:
        note(words)
    elif not sys.stdin.isatty():
        raise UsageError(words, "add --yes to agree")
    else:
        click.confirm(f"{words}. Continue?", abort=True, err=True)


def _restarting_switch(variants: VariantSwitcher, load: Load, line: StatusLine) -> Switch:
    """Return the switch for one engine. Before a restart it ends the requests in flight."""
    begun = [False]

    def switch(arm: str) -> bool:
        if begun[0] and variants.starts_for(arm):
            load.stop(drain=False)
            until = time.monotonic() + ABORT_S
            while not load.finished and time.monotonic() < until:
                poll_load(load)
        begun[0] = True
        return variants.apply(arm, _phase_on(line, arm))

    return switch


def _phase_on(line: StatusLine, arm: str = "") -> Callable[[EngineStatus], None]:
    """Return a callback that shows the phase of a start on the status line."""

    def show(status: EngineStatus) -> None:
        what = f"with {arm}" if arm else "with its own settings"
        words = f"{status.record.name} starts {what}: {status.phase or status.state.value}"
        before = status.record.previous_startup_s
        line.show(words + (f", about {before:.0f} s" if before else ""), now=True)

    return show


def compare_engines(plan: ComparisonPlan) -> Outcome:
    """Compare two engines. Only one of them receives load at a time."""
    from llmtop.loadgen.experiments.comparison import Comparison
    from llmtop.loadgen.experiments.level import LoadClock
    from llmtop.operations.wiring import fresh_seed

    clocks = {arm: LoadClock() for arm in ("A", "B")}
    active = ["A"]
    comparison = Comparison(
        lambda: clocks[active[0]].seconds(),
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
        switch = _draining_switch(loads, active)
        return _run(comparison, switch, lambda: loads[active[0]], line, labels)
    finally:
        for load in loads.values():
            load.close()


def _draining_switch(loads: Mapping[str, Load], active: list[str]) -> Switch:
    """Return the switch for two engines. It first waits for the requests in flight, because the
    engines may share a GPU."""

    def switch(arm: str) -> bool:
        other = loads["B" if arm == "A" else "A"]
        if active[0] != arm:
            other.stop()
            until = time.monotonic() + DRAIN_S
            while not other.finished:
                poll_load(other)
                if time.monotonic() > until:
                    other.stop(drain=False)
                    until = float("inf")
        active[0] = arm
        return False

    return switch


def _run(
    comparison: Comparison,
    switch: Switch,
    load: Callable[[], Load],
    line: StatusLine,
    labels: tuple[str, str],
) -> Outcome:
    """Run the comparison until it ends, Ctrl+C stops it, or an engine does not start."""
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
                    fresh = switch(arm)
                    starts += fresh
                    comparison.placed(load(), fresh=fresh)
                case PairResult():
                    line.keep(pair_line(fact))
                case None:
                    if comparison.running:
                        poll_load(load())
            if (now := comparison.standing) is not None:
                line.show(
                    f"run {now.run} of {now.runs}: {now.arm}, {now.phase}, {remaining(now.left_s)}"
                )
    except DidNotStart as failure:
        return Outcome(comparison.result(), labels, failure=failure, restarts=starts)
    except KeyboardInterrupt:
        line.keep("stopped; these are the results so far")
        return Outcome(comparison.result(), labels, stopped=True, restarts=starts)
