"""``llmtop compare``: two settings of one engine, or two engines, in turns on the same machine."""

from __future__ import annotations

import asyncio
import functools
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from llmtop import LlmtopError, UsageError
from llmtop.tui.verbs.aim import (
    Aim,
    Asking,
    StatusLine,
    aim,
    asking,
    asking_options,
    calibrate_option,
    calibration_entry,
    calibration_for,
    energy_of,
    load_on,
    stop_as_ctrl_c_does,
    wait_a_beat,
)
from llmtop.tui.verbs.changes import split
from llmtop.tui.verbs.configured import read
from llmtop.tui.verbs.kinds import Real
from llmtop.tui.verbs.output import document, json_flag, note

if TYPE_CHECKING:
    from llmtop.engines.records import EngineStatus
    from llmtop.loadgen.calibration import Calibration
    from llmtop.loadgen.duel import CompareResult, Duel
    from llmtop.loadgen.level import LoadClock
    from llmtop.loadgen.pool import Load
    from llmtop.loadgen.results import RequestRecord
    from llmtop.tui.arms import Arms
    from llmtop.tui.wiring import Wiring

DRAIN_S = 30.0
CUT_S = 5.0
Place = Callable[[str], bool]  # puts an arm in force; whether an engine was started for it


@click.command()
@click.argument("targets", metavar="NAME | URL_A URL_B", nargs=-1, required=True)
@click.option("--a", "first", multiple=True, metavar="OPTION=VALUE", help="A, of one engine.")
@click.option("--b", "second", multiple=True, metavar="OPTION=VALUE", help="B, of one engine.")
@click.option(
    "--pairs", default=8, show_default=True, type=click.IntRange(4, 200), help="An even number."
)
@click.option(
    "-c",
    "--concurrency",
    default=32,
    show_default=True,
    type=click.IntRange(1, 20000),
    help="Streams in flight in every run.",
)
@click.option(
    "--run-seconds",
    default=8.0,
    show_default=True,
    type=Real(0.5, 3600),
    help="Each run is measured this long after its warm-up, or until 20 requests have ended,"
    " three times as long at most.",
)
@click.option(
    "--save",
    multiple=True,
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write the result: CSV to FILE.csv, else JSON. May be repeated.",
)
@calibrate_option
@asking_options
@json_flag
def command(
    targets: tuple[str, ...],
    first: tuple[str, ...],
    second: tuple[str, ...],
    pairs: int,
    concurrency: int,
    run_seconds: float,
    save: tuple[str, ...],
    anew: bool | None,
    as_json: bool,
    **shared: Any,
) -> int:
    """Compare two settings of NAME (--a and --b), or the engines at two URLs.

    A against itself first, for the noise; then A B B A, and again. Options that apply live are
    switched as NAME runs. Others restart it, as seldom as the order allows: what that will cost is
    said beforehand and asked about (--yes). At the end everything is as it
    was before. After a SIGKILL of llmtop itself, `llmtop ps` says what is left changed.
    """
    from llmtop.tui.findings import comparison_sentence, finding_line, gave_up, noise_line
    from llmtop.tui.verbs.saving import check, comparison_document, save_comparison
    from llmtop.tui.wiring import Wiring

    one = _one_engine(targets, first, second)
    if pairs % 2:
        raise UsageError(
            f"--pairs is even, not {pairs}", "A B B A is two pairs, and drift cancels over them"
        )
    check(save)
    if any(path.endswith(".hlog") for path in save):
        raise UsageError("a comparison has no .hlog", "save it as .csv or .json")
    asked, wiring = asking(shared, read(shared["config_file"]), targets[0]), Wiring()
    stop_as_ctrl_c_does()  # they must put the options back too
    aims = [aim(wiring, text, asked, concurrency) for text in targets]
    # Once, and only when nothing is left that could be refused.
    calibration = functools.cache(
        lambda: calibration_for(wiring, asked.workers, anew=anew, quiet=as_json)
    )
    fight = Fight(aims, asked, concurrency, pairs, run_seconds, as_json, calibration)
    if one:
        given = {"A": dict(map(split, first)), "B": dict(map(split, second))}
        outcome = _switched(fight, wiring, targets[0], given)
    else:
        outcome = _side_by_side(fight)
    result, labels = outcome.result, outcome.labels
    names = (aims[0].name, aims[-1].name)
    simulated = any(found.simulated for found in aims)
    report = comparison_document(
        names, labels, simulated, result, outcome.restarts, calibration_entry(calibration())
    )
    for path in save:
        save_comparison(path, report, result)
    if as_json:
        document(report)
    elif result.pairs or outcome.failure is None:
        click.echo(comparison_sentence(result, *labels))
        for line in (*map(finding_line, result.findings), noise_line(result)):
            if line is not None:
                click.echo(line)
        if result.left_out:
            many = "1 pair does" if result.left_out == 1 else f"{result.left_out} pairs do"
            click.echo(f"  {many} not count: the client could not keep up")
    if outcome.failure is not None:
        raise outcome.failure
    if outcome.stopped:
        return 130
    if result.gave_up:
        raise LlmtopError(
            f"stopped early: {gave_up(result)}", f"try fewer streams; {result.gave_up}"
        )
    if not any(finding.n for finding in result.findings):
        raise LlmtopError(
            "no pair could be counted", "see `client` in --json, or try fewer streams"
        )
    return 0


@dataclass(frozen=True, slots=True)
class Fight:
    """What is to be compared, with what. aims: one engine, or two. calibration: tells what the
    client is held against, and finds it out when first asked."""

    aims: list[Aim]
    asked: Asking
    streams: int
    pairs: int
    seconds: float
    as_json: bool
    calibration: Callable[[], Calibration | None]

    def load(
        self, found: Aim, clock: LoadClock, on_record: Callable[[RequestRecord], None]
    ) -> Load:
        """The load on one of them."""
        return load_on(found, self.asked, clock, self.seconds, on_record, self.calibration())


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it. labels: what tells A from B. stopped: by Ctrl+C. failure: an arm with which
    the engine does not start, None when both do. restarts: how often it was started."""

    result: CompareResult
    labels: tuple[str, str]
    stopped: bool = False
    failure: LlmtopError | None = None
    restarts: int = 0


def _one_engine(targets: tuple[str, ...], first: tuple[str, ...], second: tuple[str, ...]) -> bool:
    """Whether two settings of one engine are meant; UsageError when neither can be."""
    if len(targets) == 1 and first and second:
        return True
    if len(targets) == 2 and not first and not second:
        return False
    raise UsageError(
        "give one engine with --a and --b, or two engines without",
        "llmtop compare NAME --a max_num_seqs=64 --b max_num_seqs=256",
    )


def _switched(
    fight: Fight, wiring: Wiring, target: str, given: Mapping[str, Mapping[str, str]]
) -> Outcome:
    """Two settings of one engine, whatever happens put back at the end."""
    from llmtop.loadgen.duel import Duel
    from llmtop.loadgen.level import LoadClock
    from llmtop.tui.arms import Arms
    from llmtop.tui.wiring import fresh_seed

    energy, clock, line = energy_of(fight.aims[0]), LoadClock(), StatusLine(quiet=fight.as_json)
    with asyncio.Runner() as runner:
        endpoint = fight.aims[0].endpoint or runner.run(wiring.endpoint(target))
        arms = Arms.find(runner, wiring, endpoint, given)
        switch_s = (arms.startup_s or 0.0) + fight.seconds if arms.reasons else 0.0
        duel = Duel(
            clock.seconds,
            level=fight.streams,
            pairs=fight.pairs,
            seconds=fight.seconds,
            energy=energy or (lambda: None),
            seed=fresh_seed(),
            switch_s=switch_s,
        )
        try:
            if arms.reasons:
                _ask(arms, arms.starts(duel.sequence), duel, fight.asked.yes)
            load = fight.load(fight.aims[0], clock, duel.take)
            try:
                place = _placing(arms, load, line)
                return _run(duel, place, lambda: load, line, arms.labels)
            finally:
                # The load first: it would take the way back for failures.
                load.close()
                arms.put_back(note, _phase_on(line))
                line.clear()
        finally:
            arms.close()
            runner.run(wiring.fetch.close())
            if energy is not None:
                energy.close()


def _ask(arms: Arms, starts: int, duel: Duel, yes: bool) -> None:
    """Say what the restarts will cost; ask a person, unless it was agreed to beforehand."""
    from llmtop.tui.format import duration

    startup_s = arms.startup_s
    if startup_s is None:
        cost = "how long one takes is not known"
    else:
        cost = f"about {duration(startup_s)} each, {duration(starts * startup_s)} in all"
    standing = duel.standing
    whole = f"; the comparison takes about {duration(standing.left_s)}" if standing else ""
    words = (
        f"{'; '.join(arms.reasons)}: {arms.name} is restarted {starts} times, {cost}{whole}; "
        "requests of others end each time"
    )
    if yes:
        note(words)
    elif not sys.stdin.isatty():
        raise UsageError(words, "add --yes to do it without being asked")
    else:
        click.confirm(f"{words}. Go on?", abort=True, err=True)


def _placing(arms: Arms, load: Load, line: StatusLine) -> Place:
    """Puts an arm in force; nothing is in flight while the engine is away."""
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


def _side_by_side(fight: Fight) -> Outcome:
    """Two engines, one at work at a time."""
    from llmtop.loadgen.duel import Duel
    from llmtop.loadgen.level import LoadClock
    from llmtop.tui.wiring import fresh_seed

    clocks = {arm: LoadClock() for arm in ("A", "B")}
    playing = ["A"]
    duel = Duel(
        lambda: clocks[playing[0]].seconds(),
        level=fight.streams,
        pairs=fight.pairs,
        seconds=fight.seconds,
        seed=fresh_seed(),
    )
    loads = {
        arm: fight.load(found, clocks[arm], duel.take)
        for arm, found in zip(clocks, fight.aims, strict=True)
    }
    labels = (fight.aims[0].name, fight.aims[1].name)
    line = StatusLine(quiet=fight.as_json)
    try:
        place = _turning(loads, playing)
        return _run(duel, place, lambda: loads[playing[0]], line, labels)
    finally:
        for load in loads.values():
            load.close()


def _turning(loads: Mapping[str, Load], playing: list[str]) -> Place:
    """From one engine to the other: what is in flight ends first, they may share a GPU."""

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
    duel: Duel,
    place: Place,
    load: Callable[[], Load],
    line: StatusLine,
    labels: tuple[str, str],
) -> Outcome:
    """Run it to its end, or as far as it goes."""
    from llmtop.loadgen.duel import CompareResult, PairResult, Turn
    from llmtop.tui.arms import DidNotStart
    from llmtop.tui.findings import pair_line
    from llmtop.tui.format import duration

    starts = 0
    try:
        while True:
            match fact := duel.beat():
                case CompareResult():
                    line.clear()
                    return Outcome(fact, labels, restarts=starts)
                case Turn(arm):
                    fresh = place(arm)
                    starts += fresh
                    duel.placed(load(), fresh=fresh)
                case PairResult():
                    line.keep(pair_line(fact))
                case None:
                    if duel.running:
                        wait_a_beat(load())
            if (now := duel.standing) is not None:
                line.show(
                    f"run {now.run} of {now.runs}: {now.arm}, {now.phase}, "
                    f"about {duration(now.left_s)} left"
                )
    except DidNotStart as failure:
        return Outcome(duel.result(), labels, failure=failure, restarts=starts)
    except KeyboardInterrupt:
        line.keep("stopped; this is what is known so far")
        return Outcome(duel.result(), labels, stopped=True, restarts=starts)
