"""Explains once why an engine is slow, and formats the explanation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from llmtop.diagnosis.causes import Cause, CauseFound, Explanation
from llmtop.diagnosis.explanation import effect_words, state_reasons
from llmtop.diagnosis.load_state import LoadStates
from llmtop.diagnosis.moments import Moment
from llmtop.diagnosis.state_rules import Level, LoadState
from llmtop.diagnosis.step_moments import kv_blocks_of, moments_of
from llmtop.engines.core.conditions import HUNG_S, Name
from llmtop.engines.core.options import BATCH_LIMITS, Applies, Option
from llmtop.engines.core.samples import EngineSample, GpuSample, Latency
from llmtop.operations.inside import inside_of
from llmtop.operations.insight.engine_insight import EngineInsight
from llmtop.wording import format as f

if TYPE_CHECKING:
    from llmtop.engines.core.endpoint import Endpoint
    from llmtop.engines.logs.memory_report import MemoryReport
    from llmtop.operations.session import EngineSession
    from llmtop.operations.wiring import Wiring

SAMPLE_S = 1.0
SAMPLES = 3  # for an engine that shows its steps: the steps contain the past, and rates need two


async def explain_engine(
    wiring: Wiring,
    endpoint: Endpoint,
    session: EngineSession,
    window_s: float,
    wall: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Explanation:
    """Sample an engine for a few seconds and explain its state.

    window_s: sampling time for an engine that shows no steps. If requests run and no number
    changes, sampling continues until it is known whether the engine hangs (HUNG_S). wall: unix
    seconds. Raises ScrapeError when the engine does not answer.
    """
    insight = EngineInsight(inside_of(endpoint), wall)
    samples: list[EngineSample] = []
    try:
        taken = 0
        while True:
            samples.append(await session.sample())
            await insight.read(samples[-1].kv_usage)
            taken += 1
            enough = SAMPLES if insight.history.steps else 1 + round(window_s / SAMPLE_S)
            unchanged_s = samples[-1].unchanged_s
            undecided = taken > 1 and unchanged_s is not None and unchanged_s < HUNG_S
            if (taken >= enough and not undecided) or taken > 1 + enough + HUNG_S:
                break
            await sleep(SAMPLE_S)
        options, _ = await session.options()
    finally:
        insight.close()
    gpus, memory_report = await asyncio.to_thread(_machine, wiring, endpoint)
    moments = history(insight, samples, options, wall())
    states, finding = LoadStates(), LoadState(Level.UNKNOWN, ("no numbers yet",))
    for moment in moments:
        finding = states.note(moment)
    return insight.explain(finding, states.recent, samples[-1], options, gpus, memory_report)


def history(
    insight: EngineInsight,
    samples: Sequence[EngineSample],
    options: Sequence[Option],
    now: float,
) -> list[Moment]:
    """The moments that determine the state: from steps if the engine shows them, else samples.

    now: unix seconds.
    """
    cap = next((option.total for option in options if option.name in BATCH_LIMITS), None)
    last = _moment(samples[-1], cap)
    if last.hung or not insight.history.steps:
        return [_moment(sample, cap) for sample in samples]
    steps = list(insight.history.steps)
    found = moments_of(
        steps,
        now,
        cap=cap,
        kv_blocks=kv_blocks_of(steps[-200:], samples[-1].kv_usage),
        fitted=insight.history.fitted(now),
    )
    # Steps end with the load. The last sample shows whether the engine is idle now.
    return [one for one in found if one.time < samples[-1].time] + [last]


def _moment(sample: EngineSample, cap: float | None) -> Moment:
    ttft, preempted = sample.latencies.get(Latency.TTFT), sample.preemptions
    return Moment(
        sample.time,
        running=sample.running,
        waiting=sample.waiting,
        cap=cap,
        kv_usage=sample.kv_usage,
        preemptions_per_min=(
            None if preempted is None or not sample.window_s else preempted * 60 / sample.window_s
        ),
        tokens_per_s=sample.output_tokens_per_s,
        ttft=ttft.mean if ttft is not None else None,
        ttft_is="mean",
        unchanged_s=sample.unchanged_s,
        hung=any(one.name is Name.HUNG for one in sample.conditions),
    )


def _machine(
    wiring: Wiring, endpoint: Endpoint
) -> tuple[tuple[GpuSample, ...], MemoryReport | None]:
    """The GPUs that the engine runs on, as far as known, and the memory report of its log."""
    record = endpoint.record
    if record is None or endpoint.adapter.simulated:
        return (), None
    memory_report = wiring.supervisor.memory_report(record)
    gpus = [gpu for gpu in wiring.gpus.read() if gpu.mig_of is None]
    if record.spec.gpus:
        gpus = [gpu for gpu in gpus if gpu.index in record.spec.gpus]
    elif memory_report is not None and len(gpus) > 1:
        gpus = [gpu for gpu in gpus if memory_report.pids and memory_report.is_on(gpu.processes)]
    return tuple(gpus), memory_report


def report(name: str, simulated: bool, found: Explanation) -> list[str]:
    """The explanation as lines of text, with the largest cause first."""
    reasons = " · ".join(state_reasons(found)[:2])
    lines = [
        f"{f.clean(name)}  {found.level.word}  {reasons}{'  (simulated)' if simulated else ''}"
    ]
    for number, cause in enumerate(found.causes, 1):
        lines += ["", *_cause_lines(name, number, cause)]
    if found.not_limits:
        lines += ["", *(f"   {words}" for words in found.not_limits)]
    basis = f"from {found.steps:,} steps in {f.span(found.window_s)}"
    lines += ["", basis if found.steps else f"from metrics over {f.span(found.window_s)}"]
    lines += [f"not seen: {name}: {f.clean(why)}" for name, why in found.missing.items()]
    return lines


def _cause_lines(name: str, number: int, cause: CauseFound) -> list[str]:
    share = ""
    if cause.share is not None and cause.cause is not Cause.HUNG:
        share = f"  ({f.percent(cause.share)} of the time of a request)"
    lines = [f"{number}. {cause.words}{share}", *(f"   {words}" for words in cause.details)]
    knob = cause.knob
    if knob is not None:
        restart = knob.applies is Applies.RESTART
        change = f"{knob.option}={f.option(knob.after).replace(',', '')}"
        was = f"{f.option(knob.before)} now"
        flag = " --restart" if restart else ""
        lines.append(f"   try: llmtop set {f.clean(name)} {change}{flag}   ({was})")
        effects = effect_words(knob.expected)
        if effects:
            lines.append(f"   expected: {', '.join(effects)} ({knob.basis})")
        elif knob.basis:
            lines.append(f"   {knob.basis}")
    if cause.advice:
        lines.append(f"   helps: {cause.advice}")
    return lines
