"""A forecast of an engine from what was read of it: questions, refusals, words."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from llmtop import UsageError
from llmtop.diagnosis.causes import Cause, CauseFound, Explanation, Knob
from llmtop.diagnosis.explanation import effect_words
from llmtop.diagnosis.state_rules import Level
from llmtop.engines.core.options import Applies, Option, OptionSpec
from llmtop.forecast.figures import Limits
from llmtop.forecast.fit import fit
from llmtop.forecast.observed import observed
from llmtop.operations.insight.knob_forecast import forecast_knobs
from llmtop.operations.slo.ask import Asked, Forecast, answer
from llmtop.operations.slo.fitted_engine import FittedEngine, bandwidth_of, newest
from llmtop.operations.slo.limits import live_names, settings_of
from llmtop.operations.slo.words import forecast_lines
from tests.forecast.virtual_engine import FRONT_END, TRUE, chat, steps_of


def option(name: str, value: int | None, maximum: int | None, applies: Applies) -> Option:
    spec = OptionSpec(name, f"--{name}", "", applies, int, minimum=0)
    return Option(spec, value, value, 0, maximum, applies)


OPTIONS = (
    option("max_num_seqs", 512, 512, Applies.LIVE_UP_TO_LAUNCH),
    option("max_num_batched_tokens", 8192, 8192, Applies.LIVE_UP_TO_LAUNCH),
    option("max_queued_requests", 0, 65536, Applies.LIVE),
    option("num_speculative_tokens", 4, 4, Applies.LIVE_UP_TO_LAUNCH),
    option("max_model_len", 8192, None, Applies.RESTART),
)


@pytest.fixture(scope="module")
def known() -> FittedEngine:
    calm = steps_of(TRUE, chat(40, "open"), 20.0)
    pressed = [replace(s, seq=s.seq + 10**6) for s in steps_of(TRUE, chat(80, "open"), 15.0)]
    return FittedEngine(
        name="one",
        simulated=False,
        fit=fit([*calm, *pressed], TRUE.context_s),
        front_end=FRONT_END,
        options=OPTIONS,
        settings=settings_of(OPTIONS, 900_000),
        observed=observed(calm[200:], None),
        no_load=None,
        table=None,
        running=40,
        waiting=0,
        ranks=1,
        measured={},
    )


@pytest.fixture(scope="module")
def limited(known: FittedEngine) -> Forecast:
    """What 16 requests at a time would bring."""
    asked = Asked({"max_num_seqs": "16"}, limits=Limits(1.0, 0.05), knee=False)
    return answer(known, asked)


def test_an_answer_has_figures_for_now_and_for_the_question(limited: Forecast) -> None:
    found = limited
    assert found.refused is None and found.answer is not None and found.now is not None
    assert found.settings["batch_limit"] == 16 and found.settings_now["batch_limit"] == 512
    assert found.now.expected["goodput_per_s"].value > 30
    assert found.claims["ttft_p95"] == "more"
    lines = forecast_lines(found)
    assert lines[0].startswith("one: fitted on")
    assert any("settings in question: batch limit 16" in line for line in lines)
    assert any(line.strip().startswith("TTFT p95") and "higher" in line for line in lines)


@pytest.mark.more
def test_without_limits_there_is_no_goodput(known: FittedEngine) -> None:
    found = answer(known, Asked(knee=False))
    assert found.answer is not None and "goodput_per_s" not in found.answer.expected


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"max_num_seqs": "1024"}, "max_num_seqs can be at most 512 on this engine"),
        ({"max_num_seqs": "-1"}, "max_num_seqs cannot be -1: 0 is its lowest value"),
        ({"num_speculative_tokens": "0"}, "changes how steps are launched or computed"),
        ({"max_model_len": "4096"}, "changes how steps are launched or computed"),
    ],
)
def test_what_no_step_shows_is_refused(
    known: FittedEngine, changes: dict[str, str], reason: str
) -> None:
    found = answer(known, Asked(changes, knee=False))
    assert found.answer is None
    assert found.refused is not None and reason in found.refused.reason
    assert found.refused.remedy


@pytest.mark.more
def test_the_present_value_of_any_option_is_no_change(known: FittedEngine) -> None:
    assert answer(known, Asked({"num_speculative_tokens": "4"}, knee=False)).refused is None


def test_other_prompts_are_refused_where_the_prefix_cache_matters(known: FittedEngine) -> None:
    assert known.observed is not None
    load = replace(known.observed.load, cached=0.4)
    cached = replace(known, observed=replace(known.observed, load=load))
    found = answer(cached, Asked(prompt=(64, 64), knee=False))
    assert found.refused is not None and "40% of the current prompts" in found.refused.reason


def test_steps_that_do_not_follow_the_model_carry_no_forecast(known: FittedEngine) -> None:
    wild = replace(known, fit=replace(known.fit, median_error=0.7))
    found = answer(wild, Asked(knee=False))
    assert found.refused is not None and "median error is 70%" in found.refused.reason


def explained(*knobs: Knob) -> Explanation:
    causes = tuple(CauseFound(Cause.BATCH_LIMIT, 0.5, "batch limit", knob=knob) for knob in knobs)
    return Explanation(0.0, 5.0, Level.SATURATED, ("saturated",), causes)


def test_the_effect_of_what_why_advises_is_a_forecast(
    known: FittedEngine, limited: Forecast
) -> None:
    knob = Knob("max_num_seqs", 512, 16, Applies.LIVE, {"tpot_s": 1.0}, "estimate")
    drafts = Knob("num_speculative_tokens", 4, 0, Applies.LIVE, {"output_tokens_per_s": 9.0}, "x")
    first, second = forecast_knobs(explained(knob, drafts), known).causes
    assert first.knob is not None and first.knob.basis.startswith("forecast from")
    assert limited.answer is not None
    assert first.knob.expected["ttft_p50_s"] == limited.answer.expected["ttft_p50"].value
    assert "tpot_s" not in first.knob.expected
    assert second.knob == drafts  # no forecast knows it: the estimate stays
    assert any("TTFT p50 ~" in words for words in effect_words(first.knob.expected))


def test_an_effect_without_a_forecast_is_an_estimate_and_says_why(known: FittedEngine) -> None:
    knob = Knob("max_num_seqs", 512, 2048, Applies.RESTART, {"tpot_s": 1.0}, "estimate")
    (cause,) = forecast_knobs(explained(knob), known).causes
    assert cause.knob is not None and cause.knob.expected == {"tpot_s": 1.0}
    assert cause.knob.basis.startswith("estimate; no forecast: max_num_seqs can be at most 512")
    (cause,) = forecast_knobs(explained(replace(knob, expected={}, basis="")), known).causes
    assert cause.knob is not None and cause.knob.basis.startswith("no forecast: max_num_seqs can")


def test_an_unknown_option_is_named(known: FittedEngine) -> None:
    with pytest.raises(UsageError, match="there is no option 'max_seqs'"):
        answer(known, Asked({"max_seqs": "4"}))


def test_only_what_changes_live_has_a_name() -> None:
    assert live_names(OPTIONS).queue_limit == "max_queued_requests"
    fixed = tuple(replace(one, applies=Applies.RESTART) for one in OPTIONS)
    assert live_names(fixed).batch_limit == ""


def test_bandwidths_are_of_known_cards_only() -> None:
    assert bandwidth_of("NVIDIA H200") == pytest.approx(4.32e12)
    assert bandwidth_of("NVIDIA H100 80GB HBM3") == pytest.approx(3.0e12, rel=0.01)
    assert bandwidth_of("Some Other Card") is None


def test_old_steps_are_forgotten() -> None:
    steps = steps_of(TRUE, chat(20, "open"), 10.0)
    assert newest([], 5.0) == []
    assert min(step.end for step in newest(steps, 2.0)) > steps[-1].end - 2.0
