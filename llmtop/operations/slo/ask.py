"""Makes one forecast of a running engine."""

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
"""Share of cached prompt tokens from which other prompts would mean a different prefill load."""
TOP_STREAMS = 4096
SHARES = 64  # number of quantiles that represent a log-normal distribution


class Asked(Struct, frozen=True):
    """A question of the user. changes: option values as text. rate: requests per second.

    factor: multiplies the load. prompt, output: ranges of tokens; None: as observed. knee: also
    find the knee. listen_s: how long to observe the engine first, in seconds.
    """

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
    """A forecast with its input. answer: with the asked settings and load. now: with the current
    settings and the load before ``factor``.

    claims: by figure, which of both is higher, if that is certain. knee_now: of the current
    settings. refused: why there is no forecast.
    """

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
    """Read an engine and make the forecast.

    Raises UsageError for an unknown option, LlmtopError when the engine cannot be read.
    """
    from llmtop.engines.tuning import resolution

    endpoint = await wiring.endpoint(name)
    for option in asked.changes:  # report an unknown option before the time of listening
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
    """The number of streams of another llmtop's closed loop on the engine; None without one."""
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
    """Make the forecast from a fitted engine. Takes CPU time: call it in a thread.

    now: the answer with the current settings, if an earlier question with the same load has it.
    run: simulates one draw; it may raise to cancel the forecast.
    """
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
    has_load = asked.rate is not None or asked.streams is not None
    begin = None if has_load or asked.factor != 1.0 else known.present(load)
    if now is None:
        current = question(known, known.settings, load, limits, begin)
        now = ask(known.fit, known.front_end, current, run=run)
    scaled = question(
        known, settings, load.scaled(asked.factor), limits, begin, replicas=asked.replicas
    )
    result = ask(known.fit, known.front_end, scaled, run=run)
    found_knee = None
    if asked.knee:
        top = min(TOP_STREAMS, settings.batch_limit * 2)
        found_knee = knee(known.fit, known.front_end, settings, load, top, run=run)
    if asked.limits is None:
        result, now = without_goodput(result), without_goodput(now)
    return replace(
        found,
        load=load.scaled(asked.factor),
        answer=result,
        now=now,
        knee=found_knee,
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
    """Create a question about one engine. begin: its state at the start; None: idle."""
    return Question(settings, load, limits, begin, ranks=known.ranks, replicas=replicas)


def load_of(known: FittedEngine, asked: Asked) -> Load | Refusal:
    """The observed load, with the parts that the question replaces. Refusal if it is unknown."""
    seen = known.observed.load if known.observed is not None else None
    lengths = asked.prompt is not None and asked.output is not None
    has_load = asked.rate is not None or asked.streams is not None
    if seen is None and not (has_load and lengths):
        if known.no_load is not None:
            return Refusal(
                known.no_load.reason,
                "describe a load with --rate, --prompt-tokens and --output-tokens, or send one",
            )
        return Refusal("no load was observed", "send some load, then ask again")
    if asked.prompt is not None and seen is not None and seen.cached > CACHED:
        return Refusal(
            f"the prefix cache contains {seen.cached:.0%} of the current prompts; how much of other"
            " prompts it would contain is not known",
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
    """Parse option values. Raises UsageError for an unknown option or an invalid value."""
    from llmtop.engines.tuning import resolution

    return {
        name: resolution.parse(resolution.find(options, name), text) for name, text in texts.items()
    }


def shown(settings: Settings) -> dict[str, int]:
    """The settings that a forecast can change, by role."""
    return {
        "batch_limit": settings.batch_limit,
        "token_budget": settings.token_budget,
        "queue_limit": settings.queue_limit,
    }


def without_goodput(answer: Answer) -> Answer:
    """Remove the goodput, which is not defined without limits."""
    expected = {n: v for n, v in answer.expected.items() if n != "goodput_per_s"}
    return replace(answer, expected=expected, on_the_edge=False)


def assumed(asked: AskedLengths) -> Lengths:
    """The length distribution of the forecast for a load with these lengths."""
    if isinstance(asked, tuple):
        return Lengths.span(*asked)
    shares = ((n + 0.5) / SHARES for n in range(SHARES))
    return Lengths(tuple(max(1, round(asked.quantile(share))) for share in shares))
