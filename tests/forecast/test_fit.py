"""The model of a step's time, fitted to the steps of an engine that is known."""

from __future__ import annotations

from statistics import median

import pytest
from msgspec.structs import replace

from llmtop.engines.core.steps import Step
from llmtop.forecast.fit import Fit, NotFitted, fit
from llmtop.forecast.load import Lengths, Load
from llmtop.forecast.step_model import StepModel, predicted
from tests.forecast.virtual_engine import OVERLAPPED, PROMPT, TRUE, chat, steps_of


@pytest.fixture(scope="module", params=[TRUE, OVERLAPPED], ids=["plain", "overlapped"])
def fitted(request: pytest.FixtureRequest) -> tuple[StepModel, Fit]:
    model: StepModel = request.param
    return model, fit(steps_of(model, chat(40, "open"), 20.0), model.context_s)


def test_the_fit_finds_what_the_steps_were_made_of(fitted: tuple[StepModel, Fit]) -> None:
    true, found = fitted
    assert found.model.overlapped == true.overlapped
    for requests, context in ((10, 6_000), (40, 24_000)):
        wanted = true.decode(requests, context)
        assert found.model.decode(requests, context) == pytest.approx(wanted, rel=0.06)
    assert found.model.dense(2000) == pytest.approx(true.dense(2000), rel=0.15)
    if true.overlapped:
        assert found.model.hold(40, 1000, 900) == pytest.approx(true.hold(40, 1000, 900), rel=0.15)


def test_the_error_is_that_of_steps_which_the_fit_has_not_seen(
    fitted: tuple[StepModel, Fit],
) -> None:
    _, found = fitted
    assert found.median_error < 0.05
    assert found.median_error < found.p90_error < 0.25


def test_another_load_of_the_same_engine_is_predicted(fitted: tuple[StepModel, Fit]) -> None:
    true, found = fitted
    other = steps_of(true, chat(24), 8.0, seed=7)
    errors = sorted(abs(p.seconds / p.step.duration_s - 1) for p in predicted(found.model, other))
    assert errors[len(errors) // 2] < 0.06


def test_too_few_prefills_are_refused_with_a_remedy() -> None:
    steps = steps_of(TRUE, chat(4), 3.0)
    with pytest.raises(NotFitted) as caught:
        fit(steps, 3e-8)
    assert "steps with a prefill were seen, 30 are needed" in caught.value.reason
    assert "ask again" in caught.value.remedy


def test_an_idle_engine_is_refused() -> None:
    with pytest.raises(NotFitted) as caught:
        fit([], 3e-8)
    assert caught.value.reason == "only 0 steps without any prefill were seen, 100 are needed"


def test_stamped_launches_are_known_where_none_delays_a_step() -> None:
    """Where each step takes longer than a launch, no launch shows in its time."""
    slow = replace(OVERLAPPED, request_s=6e-4)
    load = Load("closed", 60, PROMPT, Lengths.span(350, 450))
    found = fit(steps_of(slow, load, 60.0, stamped=True), slow.context_s)
    assert found.model.overlapped
    assert found.model.hold(20, 1500, 1400) == pytest.approx(slow.hold(20, 1500, 1400), rel=0.2)
    assert found.seen.launches >= 30


def test_a_batch_beyond_the_weights_costs_more_for_each_request() -> None:
    """Small batches read the weights, large ones compute: a straight line would miss both."""
    found = fit(
        [*steps_of(TRUE, chat(40), 10.0), *again(steps_of(TRUE, chat(420), 20.0))], TRUE.context_s
    )
    for requests in (20, 400):
        wanted = TRUE.decode(requests, 576 * requests)
        assert found.model.decode(requests, 576 * requests) == pytest.approx(wanted, rel=0.06)


def test_slow_launches_follow_each_other_and_so_do_those_that_are_drawn() -> None:
    steps = steps_of(OVERLAPPED, chat(40, "open"), 20.0, stamped=True)
    slow = [
        replace(s, launch_s=(s.launch_s or 0.0) * (1.2 if s.seq > len(steps) // 2 else 1.0))
        for s in steps
    ]
    holds = fit(slow, OVERLAPPED.context_s).holds
    half = len(holds) // 2
    assert median(holds[half + 5 :]) > 1.1 * median(holds[: half - 5])


def again(steps: list[Step]) -> list[Step]:
    """Steps of a later time."""
    return [replace(step, seq=step.seq + 10**6) for step in steps]
