"""Questions to the twin: answers with intervals, orders, and refusals."""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import median

import pytest
from msgspec.structs import replace

from llmtop.engines.core.steps import Step
from llmtop.engines.simulated.simulator.model.speculation import Speculation
from llmtop.forecast.estimates import NotFitted
from llmtop.forecast.figures import Limits, figures
from llmtop.forecast.fit import Fit, fit
from llmtop.forecast.knee_forecast import knee
from llmtop.forecast.load import Lengths, Load, Present, Settings
from llmtop.forecast.observed import observed, present
from llmtop.forecast.questions import Question, ask, claims
from llmtop.forecast.step_model import StepModel
from llmtop.forecast.twin import Engine, simulate
from llmtop.values import replace as replace_limits
from tests.closed_loop import Lengths as Chats
from tests.forecast.virtual_engine import (
    FRONT_END,
    NOISE,
    OUTPUT,
    OVERLAPPED,
    PROMPT,
    SETTINGS,
    TRUE,
    chat,
    steps_of,
)
from tests.virtual_steps import VirtualEngine

SLO = Limits(1.0, 0.05)


@pytest.fixture(scope="module")
def seen() -> Fit:
    """An engine that has served a calm load and an overload, so that large steps were seen."""
    calm = steps_of(TRUE, chat(40, "open"), 20.0)
    pressed = steps_of(TRUE, chat(80, "open"), 20.0)
    return fit([*calm, *(replace(step, seq=step.seq + 10**6) for step in pressed)], TRUE.context_s)


def true_figure(settings: Settings, load: Load, name: str) -> float:
    engine = Engine(TRUE, FRONT_END, NOISE)
    values = []
    for seed in range(50, 55):
        run = simulate(engine, settings, load, Present(), seed)
        values.append(getattr(figures(run, SLO), name))
    return float(median(values))


@pytest.mark.parametrize(
    ("settings", "rate"),
    [(SETTINGS, 40.0), (Settings(128, 8192, 16, 900_000), 80.0), (SETTINGS, 80.0)],
    ids=["below the knee", "overload with limits", "overload"],
)
def test_what_is_expected_is_what_the_engine_then_does(
    seen: Fit, settings: Settings, rate: float
) -> None:
    load = chat(rate, "open")
    answer = ask(seen, FRONT_END, Question(settings, load, SLO, horizon=20.0), draws=8)
    assert answer.refused is None
    for name in ("output_tokens_per_s", "goodput_per_s", "ttft_p95"):
        found = answer.expected[name]
        assert found.low <= found.value <= found.high
        true = true_figure(settings, load, name)
        assert found.low * 0.9 - 0.5 <= true <= found.high * 1.1 + 0.5, name


@pytest.mark.more
def test_an_order_is_claimed_only_where_the_difference_is_large(seen: Fit) -> None:
    load = chat(80, "open")
    default = ask(seen, FRONT_END, Question(SETTINGS, load, SLO), draws=8)
    limited = ask(seen, FRONT_END, Question(Settings(256, 8192, 16, 900_000), load, SLO), draws=8)
    assert claims(default, limited)["goodput_per_s"] == "more"
    calm = chat(30, "open")
    one = ask(seen, FRONT_END, Question(SETTINGS, calm, SLO), draws=8)
    other = ask(seen, FRONT_END, Question(Settings(512, 8192, 0, 900_000), calm, SLO), draws=8)
    assert set(claims(one, other).values()) == {"no claim"}


@pytest.mark.more
def test_replicas_share_the_load_and_add_up(seen: Fit) -> None:
    load = chat(80, "open")
    one = ask(seen, FRONT_END, Question(SETTINGS, load, SLO), draws=8)
    two = ask(seen, FRONT_END, Question(SETTINGS, load, SLO, replicas=2), draws=8)
    assert one.expected["goodput_per_s"].value < 10
    assert two.expected["goodput_per_s"].value == pytest.approx(80, rel=0.1)


def test_a_load_unlike_any_that_was_seen_is_refused() -> None:
    little = fit(steps_of(TRUE, chat(8, "open"), 30.0), TRUE.context_s)
    answer = ask(little, FRONT_END, Question(SETTINGS, chat(300), SLO), draws=8)
    assert answer.expected == {}
    assert answer.refused is not None and "would be needed" in answer.refused.reason
    assert "run a load as high as" in answer.refused.remedy


def test_steps_of_another_launch_regime_are_refused() -> None:
    """Up to 512 tokens a step is one graph; above, its kernels are launched one by one."""
    quick = replace(OVERLAPPED, small_launch_s=4e-3)
    short = Load("closed", 1, Lengths.span(350, 400), Lengths.span(20, 30))
    little = fit(steps_of(quick, short, 15.0, stamped=True), quick.context_s)
    assert ask(little, FRONT_END, Question(SETTINGS, short, SLO), draws=4).refused is None
    longer = Load("closed", 1, Lengths.span(900, 1000), short.output)
    other = ask(little, FRONT_END, Question(SETTINGS, longer, SLO), draws=4)
    assert other.expected == {}
    assert other.refused is not None
    assert "steps above 512 are launched in another way" in other.refused.reason
    assert "send longer prompts" in other.refused.remedy


@pytest.mark.more
def test_the_knee_is_named_or_said_to_lie_beyond_what_was_seen(seen: Fit) -> None:
    found = knee(seen, FRONT_END, SETTINGS, chat(64), 1024, draws=2)
    assert found.streams is not None
    assert 40 < found.streams.low <= found.streams.value <= found.streams.high < 400
    assert found.curve[0].streams == 1
    little = fit(steps_of(TRUE, chat(8, "open"), 30.0), TRUE.context_s)
    unknown = knee(little, FRONT_END, SETTINGS, chat(64), 1024, draws=2)
    assert unknown.streams is None
    assert unknown.refused is not None and "still grows" in unknown.refused.reason


def test_the_present_load_is_read_from_the_steps() -> None:
    steps = steps_of(TRUE, chat(40, "open"), 20.0)
    found = observed(steps[len(steps) // 4 :], None)
    assert found.load.loop == "open"
    assert found.load.level == pytest.approx(40, rel=0.2)
    assert found.load.prompt.mean == pytest.approx(PROMPT.mean, rel=0.05)
    assert found.load.output.mean == pytest.approx(OUTPUT.mean, rel=0.15)
    held = present(60, 5, None, found.load, ranks=2)
    assert (len(held.running), len(held.waiting)) == (30, 2)
    assert all(0 < one.generated < one.target or one.target == 1 for one in held.running)


@pytest.mark.parametrize("streams", [1, 16, 120])
def test_a_closed_loop_is_known_by_the_constant_number_in_flight(streams: int) -> None:
    steps = steps_of(TRUE, chat(streams), 20.0)
    found = observed(steps[len(steps) // 4 :], None).load
    assert found.loop == "closed"
    assert found.level == pytest.approx(streams, rel=0.02)


@pytest.mark.parametrize("context", [True, False], ids=["context known", "context unknown"])
def test_the_length_of_answers_is_that_of_those_that_ended(context: bool) -> None:
    """In an overload the batch grows: what it holds belongs to answers that have not ended."""
    steps = steps_of(TRUE, chat(54, "open"), 9.0)
    if not context:
        steps = [replace(step, context_tokens=None) for step in steps]
    assert steps[-1].running > 3 * steps[10].running
    assert observed(steps[10:], None).load.output.mean == pytest.approx(128, rel=0.1)


def test_speculation_does_not_lengthen_prompts_and_answers() -> None:
    """Several prompts may end in one step, also where the others check drafts."""
    steps = steps_of(TRUE, chat(40, "closed"), 20.0)
    assert max(step.prefills or 0 for step in steps) > 1
    drafting = [
        replace(
            step,
            decode_tokens=5 * step.decode_tokens,
            draft_tokens=4 * step.decode_tokens,
            accepted_tokens=2 * step.decode_tokens,
            output_tokens=(step.output_tokens or 0) + 2 * step.decode_tokens,
        )
        for step in steps
    ]
    found = observed(drafting, None, 40.0).load
    assert found.prompt.mean == pytest.approx(PROMPT.mean, rel=0.05)
    assert found.output.mean == pytest.approx(3 * OUTPUT.mean, rel=0.1)


@pytest.mark.more
def test_a_saturated_engine_with_speculation_is_predicted_from_its_own_steps() -> None:
    """Drafts are computed too, and who is preempted is prefilled again: neither may be left out."""
    drafting = Speculation("ngram", 4, 0.85)
    engine = VirtualEngine(
        seqs=96, blocks=6800, lengths=Chats((768, 1280), (160, 224), (0.0,)), speculation=drafting
    )
    engine.hold(160, 60.0)
    steps = [step for step in engine.steps if step.end > 20.0]
    fitted = fit(steps, 3e-8, 3.7e-3, launches=False)
    load = observed(steps, engine.table()).load
    assert load.loop == "closed"
    assert load.level == pytest.approx(160, rel=0.02)
    assert load.prompt.mean == pytest.approx(1024, rel=0.03)
    assert load.output.mean == pytest.approx(192, rel=0.04)
    began, before = engine.now, len(engine.steps)
    settings = Settings(96, 8192, 0, 6800 * 16)
    held = present(96, 64, engine.table(160), load, ranks=1)
    answer = ask(fitted, FRONT_END, Question(settings, load, present=held, horizon=20.0), draws=6)
    engine.hold(160, 20.0)
    tokens = sum(step.output_tokens or 0 for step in engine.steps[before:])
    expected = answer.expected["output_tokens_per_s"]
    assert expected.value == pytest.approx(tokens / (engine.now - began), rel=0.06)
    # Batches were of one size only; smaller ones are known by the time to read the weights.
    lower = ask(
        fitted,
        FRONT_END,
        Question(Settings(32, 8192, 0, 6800 * 16), load, present=held, horizon=20.0),
        draws=6,
    )
    engine.scheduler.limits = replace_limits(engine.scheduler.limits, max_num_seqs=32)
    engine.hold(160, 10.0)
    began, before = engine.now, len(engine.steps)
    engine.hold(160, 20.0)
    tokens = sum(step.output_tokens or 0 for step in engine.steps[before:])
    expected = lower.expected["output_tokens_per_s"]
    assert expected.value == pytest.approx(tokens / (engine.now - began), rel=0.15)


def test_lengths_are_not_guessed_before_answers_end() -> None:
    steps = steps_of(TRUE, chat(60, "open"), 0.5)
    with pytest.raises(NotFitted) as caught:
        observed(steps, None)
    assert "answers have ended" in caught.value.reason
    assert "wait until" in caught.value.remedy


def test_a_slow_engine_is_looked_at_for_longer() -> None:
    slow = StepModel(*(10 * getattr(TRUE, name) for name in TRUE.__struct_fields__[:5]))
    found = fit(steps_of(slow, chat(4, "open"), 200.0), slow.context_s)
    answer = ask(found, FRONT_END, Question(SETTINGS, chat(4, "open"), SLO), draws=4)
    assert answer.expected["output_tokens_per_s"].value == pytest.approx(4 * 128, rel=0.15)


def refusal_of(steps: Sequence[Step]) -> str:
    """Reason and remedy of the refusal of a question about these steps."""
    question = Question(SETTINGS, chat(40, "open"), SLO, Present())
    answer = ask(fit(steps, TRUE.context_s, launches=False), FRONT_END, question)
    assert answer.refused is not None
    return f"{answer.refused.reason}; {answer.refused.remedy}"


def test_an_engine_that_does_not_get_its_cpu_is_told_to_be_late() -> None:
    rng = random.Random(3)
    calm = steps_of(TRUE, chat(40, "open"), 40.0)
    late = [replace(s, duration_s=s.duration_s * rng.lognormvariate(0.7, 0.8)) for s in calm]
    told = refusal_of(late)
    assert "steps of the same content took" in told and "so the engine was delayed" in told
    assert "the machine is busy" in told and "doctor" not in told


def test_a_device_that_waits_for_its_host_is_told() -> None:
    rng = random.Random(3)
    calm = steps_of(TRUE, chat(40, "open"), 40.0)
    waiting = []
    for step in calm:
        gap = step.duration_s * rng.lognormvariate(0.0, 1.0)
        waiting.append(replace(step, duration_s=step.duration_s + gap, host_gap_s=gap))
    told = refusal_of(waiting)
    assert "waited for the host in" in told and "the host is busy" in told
