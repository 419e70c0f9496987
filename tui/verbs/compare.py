"""``llmtop compare``: two settings of one engine, or two engines, in turns on the same machine."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from llmtop import LlmtopError, UsageError
from llmtop.engines.options import Applies, OptionValue, Outcome
from llmtop.tui.verbs.aim import (
    StatusLine,
    aim,
    asking,
    asking_options,
    energy_of,
    load_on,
    wait_a_beat,
)
from llmtop.tui.verbs.configured import read
from llmtop.tui.verbs.kinds import Real
from llmtop.tui.verbs.output import document, json_flag, note
from llmtop.tui.verbs.set import split

if TYPE_CHECKING:
    from llmtop.loadgen.duel import CompareResult, Duel
    from llmtop.loadgen.pool import Load
    from llmtop.tui.session import EngineSession

DRAIN_S = 30.0
WITH_RESTART = "compare two engines that run side by side: llmtop compare URL_A URL_B"
Settings = dict[str, OptionValue]


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
    help="Each run is measured this long, after its warm-up.",
)
@click.option(
    "--save",
    multiple=True,
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write the result: CSV to FILE.csv, else JSON. May be repeated.",
)
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
    as_json: bool,
    **shared: Any,
) -> int:
    """Compare two settings of NAME (--a and --b), or the engines at two URLs.

    A against itself first, for the noise; then A B B A, and again. Settings are put back at the
    end. Only options that apply live can be compared.
    """
    from llmtop.loadgen.duel import Duel
    from llmtop.loadgen.level import LoadClock
    from llmtop.tui.findings import comparison_sentence, finding_line, noise_line
    from llmtop.tui.verbs.saving import check, comparison_document, save_comparison
    from llmtop.tui.wiring import Wiring, fresh_seed

    one = _one_engine(targets, first, second)
    if pairs % 2:
        raise UsageError(
            f"--pairs is even, not {pairs}", "A B B A is two pairs, and drift cancels over them"
        )
    check(save)
    asked, wiring = asking(shared, read(shared["config_file"]), targets[0]), Wiring()
    # A hung-up terminal or a polite kill must put the options back too.
    for signum in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) is signal.SIG_DFL:  # under nohup it stays ignored
            signal.signal(signum, signal.default_int_handler)
    aims = [aim(wiring, text, asked, concurrency) for text in targets]
    energy = energy_of(aims[0]) if one else None
    clocks = {arm: LoadClock() for arm in ("A", "B")}
    playing = ["A"]
    duel = Duel(
        lambda: clocks[playing[0]].seconds(),
        level=concurrency,
        pairs=pairs,
        seconds=run_seconds,
        energy=energy or (lambda: None),
        seed=fresh_seed(),
    )

    def load(index: int, arm: str) -> Load:
        return load_on(aims[index], asked, clocks[arm], run_seconds, duel.take)

    with asyncio.Runner() as runner:
        if one:
            endpoint = aims[0].endpoint or runner.run(wiring.endpoint(targets[0]))
            session = wiring.session(endpoint)
            try:
                arms, before = runner.run(_read(session, first, second))
                loads = {"A": load(0, "A")}
                try:
                    place = _switching(runner, session, arms, loads["A"])
                    result, stopped = _run(duel, place, loads, playing, as_json)
                finally:
                    _close(loads)
                    _put_back(runner, session, before)
            finally:
                runner.run(session.close())
                runner.run(wiring.fetch.close())
                if energy is not None:
                    energy.close()
            labels = (_label(arms["A"]), _label(arms["B"]))
        else:
            loads = {"A": load(0, "A"), "B": load(1, "B")}
            try:
                result, stopped = _run(duel, _turning(loads, playing), loads, playing, as_json)
            finally:
                _close(loads)
            labels = (aims[0].name, aims[1].name)
    names = (aims[0].name, aims[-1].name)
    report = comparison_document(names, labels, any(a.simulated for a in aims), result)
    for path in save:
        save_comparison(path, report, result)
    if as_json:
        document(report)
    else:
        click.echo(comparison_sentence(result, *labels))
        for line in (*map(finding_line, result.findings), noise_line(result)):
            if line is not None:
                click.echo(line)
        if result.left_out:
            click.echo(f"  {result.left_out} pairs do not count: the client could not keep up")
    if stopped:
        return 130
    if not any(finding.n for finding in result.findings):
        raise LlmtopError(
            "no pair could be counted", "see `client` in --json, or try fewer streams"
        )
    return 0


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


async def _read(
    session: EngineSession, first: tuple[str, ...], second: tuple[str, ...]
) -> tuple[dict[str, Settings], Settings]:
    """Both settings, each complete, and the values that are in force now."""
    from llmtop.engines import settings

    options, why_not = await session.options()
    asked = {"A": dict(map(split, first)), "B": dict(map(split, second))}
    before: Settings = {}
    arms: dict[str, Settings] = {"A": {}, "B": {}}
    for name in {**asked["A"], **asked["B"]}:
        option = settings.find(options, name)
        before[name] = option.value
        for arm, wanted in asked.items():
            value = settings.parse(option, wanted[name]) if name in wanted else option.value
            reason = settings.refusal(option, value)
            if reason:
                restart = option.applies is Applies.RESTART
                if restart and why_not:
                    reason = f"{option.name} cannot be changed from here: {why_not}"
                raise UsageError(reason, WITH_RESTART if restart else "")
            arms[arm][name] = value
    if arms["A"] == arms["B"]:
        raise UsageError("A and B are the same", "give them different values")
    return arms, before


def _switching(
    runner: asyncio.Runner,
    session: EngineSession,
    arms: Mapping[str, Settings],
    load: Load,
) -> Callable[[str], Load]:
    def place(arm: str) -> Load:
        _apply(runner, session, arms[arm])
        return load

    return place


def _apply(runner: asyncio.Runner, session: EngineSession, wanted: Settings) -> None:
    for change in runner.run(session.change(wanted)):
        if change.outcome is Outcome.REFUSED:
            raise LlmtopError(
                f"{change.option} could not be set to {change.after}: {change.reason}",
                f"see `llmtop options {session.endpoint.name}`",
            )


def _put_back(runner: asyncio.Runner, session: EngineSession, before: Settings) -> None:
    try:
        _apply(runner, session, before)
    except LlmtopError as error:
        # The comparison is over either way, and what it found, or why it ended, comes first.
        note(f"llmtop: {error.message}: the options stay as they were last")


def _turning(loads: Mapping[str, Load], playing: list[str]) -> Callable[[str], Load]:
    """From one engine to the other: what is in flight ends first, they may share a GPU."""

    def place(arm: str) -> Load:
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
        return loads[arm]

    return place


def _run(
    duel: Duel,
    place: Callable[[str], Load],
    loads: Mapping[str, Load],
    playing: list[str],
    as_json: bool,
) -> tuple[CompareResult, bool]:
    """Run it to its end; (what was found, whether it was stopped by Ctrl+C)."""
    from llmtop.loadgen.duel import CompareResult, PairResult, Turn
    from llmtop.tui.findings import pair_line
    from llmtop.tui.format import duration

    line = StatusLine(quiet=as_json)
    try:
        while True:
            match fact := duel.beat():
                case CompareResult():
                    line.clear()
                    return fact, False
                case Turn(arm):
                    duel.placed(place(arm))
                case PairResult():
                    line.keep(pair_line(fact))
                case None:
                    if duel.running:
                        wait_a_beat(loads[playing[0]])
            if (now := duel.standing) is not None:
                line.show(
                    f"run {now.run} of {now.runs}: {now.arm}, {now.phase}, "
                    f"about {duration(now.left_s)} left"
                )
    except KeyboardInterrupt:
        line.keep("stopped; this is what is known so far")
        return duel.result(), True


def _close(loads: Mapping[str, Load]) -> None:
    for load in loads.values():
        load.close()


def _label(values: Settings) -> str:
    return ",".join(f"{name}={value}" for name, value in values.items())
