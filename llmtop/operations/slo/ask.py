"""One forecast of a running engine, from the question to the answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from llmtop.engines.core.options import OptionValue
from llmtop.forecast.estimates import NotFitted
from llmtop.forecast.figures import Limits
from llmtop.forecast.knee_forecast import KneeForecast, knee
from llmtop.forecast.load import Lengths, Load, Present, Settings
from llmtop.forecast.questions import Answer, Question, Refusal, ask, claims
from llmtop.forecast.twin import Run, simulate
from llmtop.operations import shared_load
from llmtop.operations.slo.fitted_engine import FittedEngine
from llmtop.operations.slo.forecaster import Forecaster, not_forecast
from llmtop.operations.slo.limits import changed

if TYPE_CHECKING:
    from llmtop.engines.core.options import Option
    from llmtop.loadgen.workload.lengths import Lengths as AskedLengths
    from llmtop.operations.wiring import Wiring

CACHED = 0.05
"""From such a share of cached prompt tokens on, other prompts would be other work."""
TOP_STREAMS = 4096
SHARES = 64  # values that stand for a log-normal distribution


class Asked(Struct, frozen=True):
    """A question as it is typed. changes: options by name, as text. prompt, output: token ranges.
    factor: times the load."""

    changes: Mapping[str, str] = field(default_factory=dict)
    rate: float | None = None
    streams: int | None = None
    factor: float = 1.0
    replicas: int = 1
    prompt: tuple[int, int] | None = None
    output: tuple[int, int] | None = None
    limits: Limits | None = None
    knee: bool = True
    listen_s: float = 3.0


class Forecast(Struct, frozen=True):
    """An answer with what it rests on. now: with the present settings and the same load.
    claims: what may be said of the order of the two, by figure. knee_now: as ``knee``."""

    name: str
    known: FittedEngine | None = None
    load: Load | None = None
    settings: Mapping[str, int] = field(default_factory=dict)
    settings_now: Mapping[str, int] = field(default_factory=dict)
    answer: Answer | None = None
    now: Answer | None = None
    knee: KneeForecast | None = None
    knee_now: KneeForecast | None = None
    claims: Mapping[str, str] = field(default_factory=dict)
    refused: Refusal | None = None


async def answer_on(wiring: Wiring, name: str, asked: Asked) -> Forecast:
    """Read an engine and answer. LlmtopError where it cannot be read."""
    from llmtop.engines.tuning import resolution

    endpoint = await wiring.endpoint(name)
    for option in asked.changes:  # a wrong name costs a line, not the time to listen
        resolution.find(endpoint.adapter.options, option)
    session = wiring.session(endpoint)
    try:
        forecaster = Forecaster(wiring, endpoint, session)
        try:
            streams = asked.streams or streams_of(wiring, endpoint.name)
            known = await forecaster.gather(streams, asked.listen_s)
        except NotFitted as error:
            return Forecast(endpoint.name, refused=Refusal(error.reason, error.remedy))
        finally:
            forecaster.close()
        return await asyncio.to_thread(answer, known, asked)
    finally:
        await session.close()
        await wiring.fetch.close()


def streams_of(wiring: Wiring, name: str) -> float | None:
    """How many streams the llmtop that loads the engine keeps; None: not a closed loop, or none."""
    found = shared_load.read(wiring.state.folder(name), time.time())
    if found is None or not found.running or found.loop != "closed":
        return None
    return found.asked or None


def answer(
    known: FittedEngine,
    asked: Asked,
    *,
    now: Answer | None = None,
    run: Callable[..., Run] = simulate,
) -> Forecast:
    """Answer from what is known. now: the answer with the present settings, where an earlier
    question about the same has it. run: makes one draw; may raise to end it."""
    options = known.options
    changes = values(options, asked.changes)
    settings = changed(known.settings, changes)
    found = Forecast(
        known.name,
        known,
        settings=shown(settings),
        settings_now=shown(known.settings),
    )
    refusal = not_forecast(options, changes)
    load = load_of(known, asked)
    if isinstance(load, Refusal):
        return replace(found, refused=refusal or load)
    if refusal is not None:
        return replace(found, refused=refusal, load=load)
    limits = asked.limits or Limits()
    given = asked.rate is not None or asked.streams is not None
    begin = None if given or asked.factor != 1.0 else known.present(load)
    if now is None:
        as_it_is = question(known, known.settings, load, limits, begin)
        now = ask(known.fit, known.front_end, as_it_is, run=run)
    scaled = question(
        known, settings, load.scaled(asked.factor), limits, begin, replicas=asked.replicas
    )
    result = ask(known.fit, known.front_end, scaled, run=run)
    bend = None
    if asked.knee:
        top = min(TOP_STREAMS, settings.batch_limit * 2)
        bend = knee(known.fit, known.front_end, settings, load, top, run=run)
    if asked.limits is None:
        result, now = without_goodput(result), without_goodput(now)
    return replace(
        found,
        load=load.scaled(asked.factor),
        answer=result,
        now=now,
        knee=bend,
        claims=claims(now, result) if result.refused is None else {},
        refused=result.refused,
    )


def question(
    known: FittedEngine,
    settings: Settings,
    load: Load,
    limits: Limits,
    begin: Present | None,
    *,
    replicas: int = 1,
) -> Question:
    """A question about one engine."""
    return Question(settings, load, limits, begin, ranks=known.ranks, replicas=replicas)


def load_of(known: FittedEngine, asked: Asked) -> Load | Refusal:
    """The load in question: the present one, with what was given in its place."""
    seen = known.observed.load if known.observed is not None else None
    lengths = asked.prompt is not None and asked.output is not None
    given = asked.rate is not None or asked.streams is not None
    if seen is None and not (given and lengths):
        if known.no_load is not None:
            return Refusal(
                known.no_load.reason,
                "describe a load with --rate, --prompt-tokens and --output-tokens, or send one",
            )
        return Refusal("no load was seen", "send some load, then ask again")
    if asked.prompt is not None and seen is not None and seen.cached > CACHED:
        return Refusal(
            f"the prefix cache has {seen.cached:.0%} of the present prompts; how much of other"
            " prompts it would have is not known",
            "send such prompts for some seconds, then ask again without --prompt-tokens",
        )
    prompt = Lengths.span(*asked.prompt) if asked.prompt else seen.prompt if seen else None
    output = Lengths.span(*asked.output) if asked.output else seen.output if seen else None
    assert prompt is not None and output is not None
    cached = seen.cached if seen is not None else 0.0
    if asked.rate is not None:
        return Load("open", asked.rate, prompt, output, cached)
    if asked.streams is not None:
        return Load("closed", asked.streams, prompt, output, cached)
    assert seen is not None
    return Load(seen.loop, seen.level, prompt, output, cached, seen.counted)


def values(options: tuple[Option, ...], texts: Mapping[str, str]) -> dict[str, OptionValue]:
    """Typed values of options; UsageError for an unknown one."""
    from llmtop.engines.tuning import resolution

    return {
        name: resolution.parse(resolution.find(options, name), text) for name, text in texts.items()
    }


def shown(settings: Settings) -> dict[str, int]:
    """The settings that a forecast knows, by role."""
    return {
        "batch_limit": settings.batch_limit,
        "token_budget": settings.token_budget,
        "queue_limit": settings.queue_limit,
    }


def without_goodput(answer: Answer) -> Answer:
    """Without limits there is no goodput."""
    expected = {n: v for n, v in answer.expected.items() if n != "goodput_per_s"}
    return replace(answer, expected=expected, on_the_edge=False)


def assumed(asked: AskedLengths) -> Lengths:
    """The lengths that a forecast draws for a load that sends these."""
    if isinstance(asked, tuple):
        return Lengths.span(*asked)
    shares = ((n + 0.5) / SHARES for n in range(SHARES))
    return Lengths(tuple(max(1, round(asked.quantile(share))) for share in shares))
