"""Each cause, injected into the simulated scheduler in virtual time, is named first within 5 s."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from llmtop.diagnosis.causes import Cause, Explanation
from llmtop.diagnosis.explanation import change_words, explain, state_reasons, with_reasons
from llmtop.diagnosis.load_state import LoadStates
from llmtop.diagnosis.moments import Moment
from llmtop.diagnosis.observation import ClientView, FrontEnd, Observation
from llmtop.diagnosis.state_rules import Level, LoadState
from llmtop.diagnosis.step_moments import moments_of
from llmtop.diagnosis.steps.history import StepHistory
from llmtop.engines.core.options import Applies, Option
from llmtop.engines.core.samples import EngineSample, GpuSample
from llmtop.engines.simulated.adapter import ADAPTER
from llmtop.engines.simulated.simulator.model.blocks import BlockPool
from llmtop.engines.simulated.simulator.model.hardware import BLOCK_SIZE
from llmtop.engines.simulated.simulator.model.speculation import Speculation
from llmtop.values import replace as changed
from tests.closed_loop import Lengths
from tests.virtual_steps import VirtualEngine

WITHIN_S = 5.0
Inject = Callable[[VirtualEngine], None]


def options(engine: VirtualEngine) -> tuple[Option, ...]:
    limits = engine.scheduler.limits
    values = {
        "max_num_seqs": limits.max_num_seqs,
        "max_num_batched_tokens": limits.max_num_batched_tokens,
        "num_speculative_tokens": limits.num_speculative_tokens,
    }
    return tuple(
        Option(spec, values[spec.name], values[spec.name], 0, None, Applies.LIVE)
        for spec in ADAPTER.options
        if spec.name in values
    )


def observe(engine: VirtualEngine, **more: Any) -> Observation:
    """What ``why`` would read of the engine now."""
    history, now = StepHistory(), engine.now
    history.extend(engine.steps)
    fitted, total = history.fitted(now), engine.scheduler.pool.total
    cap = engine.scheduler.limits.max_num_seqs
    moments = moments_of(list(history.steps), now, cap=cap, kv_blocks=total, fitted=fitted)
    states, finding = LoadStates(), LoadState(Level.HEADROOM, ("no load",), idle=True)
    for moment in moments[-40:]:
        finding = states.note(moment)
    return Observation(
        now, finding, moments[-40:], history.window(now), fitted, history.slowdown(now),
        options=options(engine), kv_usage=engine.kv_usage, kv_blocks=total, **more,
    )  # fmt: skip


def ordinary(streams: int = 48, **more: Any) -> VirtualEngine:
    engine = VirtualEngine(**more)
    for level in (8, 16, streams):
        engine.hold(level, 1.0)
    return engine


def lower_the_batch_limit(engine: VirtualEngine) -> None:
    engine.scheduler.limits = changed(engine.scheduler.limits, max_num_seqs=16)
    engine.hold(96, WITHIN_S)


def fill_the_cache(engine: VirtualEngine) -> None:
    engine.lengths = Lengths(output=(448, 576))
    engine.hold(120, WITHIN_S)


def long_prompts(engine: VirtualEngine) -> None:
    engine.lengths = Lengths((3000, 4000), (32, 64))
    engine.hold(32, WITHIN_S)


def lower_the_budget(engine: VirtualEngine) -> None:
    engine.scheduler.limits = changed(engine.scheduler.limits, max_num_batched_tokens=256)
    engine.lengths = Lengths(output=(32, 64))
    engine.hold(64, WITHIN_S)


def long_answers(engine: VirtualEngine) -> None:
    engine.lengths = Lengths((64, 96), (900, 1000))
    engine.hold(400, WITHIN_S)


def slow_host(engine: VirtualEngine) -> None:
    engine.faults.gap_s = 0.008
    engine.hold(48, WITHIN_S)


def bad_drafts(engine: VirtualEngine) -> None:
    engine.scheduler.speculation = Speculation("draft", 4, 0.1)
    engine.scheduler.totals.accepted_at = [0] * 4
    engine.scheduler.limits = changed(engine.scheduler.limits, num_speculative_tokens=4)
    engine.hold(120, WITHIN_S)


@pytest.mark.parametrize(
    ("cause", "inject", "setup"),
    [
        (Cause.BATCH_LIMIT, lower_the_batch_limit, {}),
        (Cause.KV_CACHE, fill_the_cache, {"blocks": 2400}),
        (Cause.PREFILL, long_prompts, {}),
        (Cause.TOKEN_BUDGET, lower_the_budget, {}),
        (Cause.DECODE, long_answers, {}),
        (Cause.HOST, slow_host, {}),
        (Cause.SPECULATION, bad_drafts, {"streams": 120}),
    ],
    ids=lambda value: value.value if isinstance(value, Cause) else "",
)
def test_a_cause_in_the_steps_is_named_first_within_5_s(
    cause: Cause, inject: Inject, setup: dict[str, int]
) -> None:
    engine = ordinary(**setup)
    assert cause not in {one.cause for one in explain(observe(engine)).causes}
    inject(engine)
    found = explain(observe(engine))
    assert found.main.cause is cause, [(one.cause, one.share) for one in found.causes]
    assert found.main.share is not None and 0.15 <= found.main.share <= 1
    assert found.main.evidence and found.main.words in " ".join(
        (*state_reasons(found), found.main.words)
    )
    shares = [one.share for one in found.causes if one.share is not None]
    assert shares == sorted(shares, reverse=True) and sum(shares) <= 1.001


def test_few_streams_of_long_contexts_are_decode_bound() -> None:
    engine = ordinary()  # short contexts, whose costs a fit without a term for contexts would keep
    engine.lengths = Lengths((4600, 5000), (1400, 1800))
    while len(engine.scheduler.running) < 96:
        engine.hold(96, 0.25)
    engine.hold(96, WITHIN_S)
    found = explain(observe(engine))
    assert found.main.cause is Cause.DECODE and found.level >= Level.NEAR_KNEE
    engine.hold(96, 10.0)  # and it stays the cause, when no prompt is in the window any more
    assert explain(observe(engine)).main.cause is Cause.DECODE


def test_a_cache_that_fills_in_the_middle_of_prefills_is_named_within_5_s_of_being_full() -> None:
    engine = VirtualEngine(blocks=12_000, lengths=Lengths((800, 1000), (500, 700)))
    while engine.kv_usage < 0.95:
        engine.hold(400, 0.25)
    engine.hold(400, WITHIN_S)
    assert explain(observe(engine)).main.cause is Cause.KV_CACHE


def test_few_long_requests_that_hold_the_cache_are_named() -> None:
    engine = VirtualEngine(blocks=6000)
    for _ in range(3):
        engine.send_one(24_000, 4_000)
    engine.hold(3, 4.0)
    engine.hold(80, WITHIN_S + 1)
    found = explain(observe(engine, table=engine.table()))
    assert found.main.cause is Cause.LONG_REQUESTS
    assert "req-1" in found.main.words and "of the KV cache" in found.main.words
    without = explain(observe(engine))
    assert without.main.cause is Cause.KV_CACHE


def test_a_slow_front_end_is_named_by_the_engines_own_stamps_or_by_the_client() -> None:
    engine = ordinary()
    engine.hold(24, WITHIN_S)
    stamps = FrontEnd(arrival_s=1.1, output_s=0.2, e2e_s=2.0, n=80)
    found = explain(observe(engine, front_end=stamps))
    assert found.main.cause is Cause.FRONT_END
    assert found.main.share == pytest.approx(0.65, abs=0.01)
    # The engine core has room; who asks for more would wait in front of it all the same.
    assert found.level is Level.SATURATED
    assert with_reasons(observe(engine).finding, found).level is Level.SATURATED
    alone = explain(observe(engine, front_end=FrontEnd(0.08, 0.03, 5.0, 80)))
    assert alone.level is observe(engine).finding.level < Level.SATURATED
    client = ClientView(24, True, ttft_s=1.4, engine_ttft_s=0.05, e2e_s=2.1)
    found = explain(observe(engine, client=client))
    assert found.main.cause is Cause.FRONT_END
    near = ClientView(24, True, ttft_s=0.09, engine_ttft_s=0.05, e2e_s=0.8)
    assert explain(observe(engine, client=near)).main.cause is Cause.NONE


def gpu(clock: int, *throttle: str) -> GpuSample:
    return GpuSample(0.0, 0, "H200", "uuid", sm_clock_mhz=clock, throttle=throttle)


def test_a_gpu_that_slows_the_same_steps_is_named_and_its_usual_power_cap_is_not() -> None:
    engine = ordinary()
    engine.hold(48, 5.0)
    capped = explain(observe(engine, gpus=(gpu(1530, "power cap"),), sm_clock_highest=1980.0))
    assert Cause.GPU_THROTTLED not in {one.cause for one in capped.causes}
    engine.faults.slow = 1.8
    engine.hold(48, WITHIN_S)
    slowed = observe(engine, gpus=(gpu(1000, "power cap"),), sm_clock_highest=1980.0)
    found = explain(slowed)
    assert found.main.cause is Cause.GPU_THROTTLED
    assert "power cap" in found.main.words and "x as long as before" in found.main.words
    shared = explain(observe(engine, gpus=(gpu(1900),), foreign=("python (pid 7)",)))
    assert shared.main.cause is Cause.GPU_THROTTLED and "shared with" in shared.main.words
    hidden = explain(observe(engine, gpus=(gpu(1900),))).main
    assert hidden.cause is Cause.GPU_THROTTLED and "another container" in " ".join(hidden.details)
    without_gpu = explain(observe(engine))  # an engine on a CPU
    assert Cause.GPU_THROTTLED not in {one.cause for one in without_gpu.causes}


def test_a_little_slower_without_any_sign_on_the_gpu_is_not_blamed_on_it() -> None:
    engine = ordinary()
    engine.hold(48, 9.0)
    engine.faults.slow = 1.35
    engine.hold(48, WITHIN_S)
    found = explain(observe(engine, gpus=(gpu(1900),)))
    assert Cause.GPU_THROTTLED not in {one.cause for one in found.causes}


def test_a_gpu_that_becomes_slow_under_a_load_that_never_changed_is_named() -> None:
    engine = VirtualEngine(lengths=Lengths((64, 128), (400, 600)))
    engine.hold(32, 20.0)  # as many requests in every step
    assert Cause.GPU_THROTTLED is not explain(observe(engine, gpus=(gpu(1900),))).main.cause
    engine.faults.slow = 2.0
    engine.hold(32, 3.0)
    assert explain(observe(engine, gpus=(gpu(1900),))).main.cause is Cause.GPU_THROTTLED


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize("streams", [80, 96, 112])
def test_a_steady_batch_of_long_contexts_is_decode_bound_from_its_own_steps_alone(
    streams: int, noise: float
) -> None:
    engine = VirtualEngine(lengths=Lengths((4600, 5000), (1400, 1800)))
    while len(engine.scheduler.running) < streams or engine.steps[-1].prefill_tokens:
        engine.hold(streams, 0.25)
    times = random.Random(7)
    for seconds in (WITHIN_S, 6.0, 6.0):  # the ramp is in the window of the first one at most
        known = len(engine.steps)
        engine.hold(streams, seconds)
        engine.steps[known:] = [
            changed(step, duration_s=step.duration_s * times.lognormvariate(0.0, noise))
            for step in engine.steps[known:]
        ]
        found = explain(observe(engine))
        assert found.main.cause is Cause.DECODE, (engine.now, found.causes)


def test_a_client_that_is_the_limit_is_named_before_an_engine_with_room() -> None:
    engine = ordinary(16)
    engine.hold(16, 9.0)
    client = ClientView(16, True, bound=("sends leave late",))
    found = explain(observe(engine, client=client))
    assert found.main.cause is Cause.CLIENT and "sends leave late" in found.main.words
    lower_the_batch_limit(engine)
    found = explain(observe(engine, client=client))
    assert [one.cause for one in found.causes][:2] == [Cause.BATCH_LIMIT, Cause.CLIENT]


def test_a_hang_is_the_only_cause() -> None:
    still = [Moment(float(s), 32, 0, 128, unchanged_s=float(s), hung=s > 8) for s in range(13)]
    states = LoadStates()
    for moment in still:
        finding = states.note(moment)
    sample = EngineSample(12.0, 1.0, running=32, waiting=0, unchanged_s=12.0)
    found = explain(Observation(12.0, finding, still, sample=sample))
    assert [one.cause for one in found.causes] == [Cause.HUNG]
    assert found.level is Level.HUNG and found.main.advice


def test_headroom_says_how_much_and_what_comes_first() -> None:
    engine = VirtualEngine()
    for level in range(1, 17):
        engine.hold(level, 0.5)
    found = explain(observe(engine))
    assert (found.level, found.main.cause) == (Level.HEADROOM, Cause.NONE)
    factor = found.main.evidence["headroom"]
    assert isinstance(factor, float) and 4 < factor < 20
    assert "x of this load until the knee" in state_reasons(found)[0]
    engine.scheduler.limits = changed(engine.scheduler.limits, max_num_seqs=24)
    found = explain(observe(engine))
    assert found.main.evidence["first_limit"] == "batch"
    running = found.main.evidence["running"]
    assert isinstance(running, float)
    assert found.main.evidence["headroom"] == pytest.approx(24 / running)


@pytest.mark.more
def test_two_causes_the_larger_first() -> None:
    engine = ordinary(seqs=128)
    engine.hold(384, WITHIN_S + 1)
    found = explain(observe(engine))
    assert [one.cause for one in found.causes][:2] == [Cause.BATCH_LIMIT, Cause.PREFILL]


@pytest.mark.more
def test_a_batch_limit_that_would_bring_nothing_is_no_cause() -> None:
    """At 384 running, steps take the time: half as many more would bring 3 % more tokens."""
    engine = ordinary(seqs=384)
    engine.hold(600, WITHIN_S + 2)
    found = explain(observe(engine))
    assert found.main.cause is Cause.PREFILL
    assert Cause.BATCH_LIMIT not in {one.cause for one in found.causes}


def test_the_knob_goes_as_far_as_it_can_live_and_says_what_to_expect() -> None:
    engine = ordinary()
    lower_the_batch_limit(engine)
    sample = EngineSample(engine.now, 5.0, requests_per_s=engine.ended / engine.now)
    found = explain(observe(engine, sample=sample))
    knob = found.main.knob
    assert knob is not None and (knob.option, knob.before, knob.after) == ("max_num_seqs", 16, 24)
    now = sum(step.output_tokens or 0 for step in engine.steps if step.end > engine.now - 5) / 5
    assert knob.expected["output_tokens_per_s"] > 1.2 * now
    assert "max_num_seqs 16 -> 24: " in change_words(found)
    engine.scheduler.limits = changed(engine.scheduler.limits, max_num_seqs=24)
    engine.hold(96, WITHIN_S)
    then = sum(step.output_tokens or 0 for step in engine.steps if step.end > engine.now - 4) / 4
    assert knob.expected["output_tokens_per_s"] == pytest.approx(then, rel=0.15)


def test_without_steps_only_what_metrics_show_is_said() -> None:
    missing = {"steps": "only for engines started by llmtop"}

    def seen(**values: Any) -> Explanation:
        moments = [Moment(float(s), **values) for s in range(20)]
        states = LoadStates()
        for moment in moments:
            finding = states.note(moment)
        return explain(Observation(19.0, finding, moments, missing=missing))

    found = seen(running=128, waiting=62, cap=128, kv_usage=0.3)
    assert found.main.cause is Cause.BATCH_LIMIT
    assert found.main.share == pytest.approx(62 / 190, abs=0.01)
    assert found.missing["steps"] == "only for engines started by llmtop"
    assert seen(running=90, waiting=30, cap=128, kv_usage=0.99).main.cause is Cause.KV_CACHE
    # The batch limit is not known: what the queue waits for cannot be said.
    found = seen(running=90, waiting=30, kv_usage=0.3)
    assert found.main.cause is Cause.UNKNOWN
    assert "cannot tell" in found.main.words
    found = seen(running=20, waiting=0, cap=128, kv_usage=0.1)
    assert found.main.cause is Cause.NONE and found.main.evidence["headroom"] is None
    idle = seen(running=0, waiting=0, cap=128)
    assert (idle.main.cause, idle.main.words) == (Cause.NONE, "no load")


@pytest.mark.parametrize("seed", range(4))
def test_no_steps_break_it(seed: int) -> None:
    """Steps of nonsense: any numbers, any order of magnitude."""
    rng = random.Random(seed)
    engine = VirtualEngine(seqs=rng.choice((1, 16)), blocks=rng.choice((200, 4000)))
    engine.scheduler.pool = BlockPool(engine.scheduler.pool.total, BLOCK_SIZE, caching=False)
    engine.hold(rng.randint(1, 30), 1.0)
    for step in list(engine.steps):
        holes: dict[str, Any] = {
            name: None
            for name in ("prefills", "output_tokens", "draft_tokens", "kv_free_blocks", "preempted",
                         "context_tokens", "host_gap_s", "idle_s")
            if rng.random() < 0.5
        }  # fmt: skip
        from llmtop.values import replace

        engine.steps[step.seq - 1] = replace(
            step, duration_s=step.duration_s * rng.choice((0.0, 1.0, 1000.0)), **holes
        )
    found = explain(observe(engine))
    assert found.causes and all(one.words for one in found.causes)
    assert sum(one.share or 0.0 for one in found.causes) <= 1.001
