"""What no engine can have is unknown, and is said to be."""

from __future__ import annotations

import pytest

from llmtop.engines.core.conditions import Name
from llmtop.engines.core.samples import Counter, EngineSample, Reading
from llmtop.engines.metrics.plausibility import LIMITS, plausible
from llmtop.engines.metrics.window import Window


def test_a_rate_of_3e14_tokens_a_second_is_unknown_with_a_note() -> None:
    window = Window()
    window.add(Reading(0.0, 0.0, counters={Counter.OUTPUT_TOKENS: 0.0, Counter.REQUESTS_OK: 1.0}))
    counters = {Counter.OUTPUT_TOKENS: 9e14, Counter.REQUESTS_OK: 4.0}
    sample = window.add(Reading(3.0, 3.0, counters=counters))
    assert sample.output_tokens_per_s is None
    assert sample.requests_per_s == 1.0
    (found,) = sample.conditions
    assert found.name is Name.IMPOSSIBLE and "output tokens/s 3e+14" in found.message


@pytest.mark.parametrize("field", LIMITS)
@pytest.mark.parametrize("wrong", ["above", "below"])
def test_each_field_has_a_limit_on_both_sides(field: str, wrong: str) -> None:
    most = LIMITS[field][1]
    value = most * 2 if wrong == "above" else -1.0
    sample = plausible(EngineSample(0.0, 1.0, **{field: value}))  # type: ignore[arg-type]
    assert getattr(sample, field) is None
    assert LIMITS[field][0] in sample.conditions[0].message


def test_the_fastest_engine_there_is_stays_as_it_is() -> None:
    sample = EngineSample(
        0.0, 1.0, output_tokens_per_s=2e6, prompt_tokens_per_s=2e7, prefix_hit_rate=1.0
    )
    assert plausible(sample) is sample


def test_gauges_that_no_engine_can_have_are_named_and_are_no_hang() -> None:
    window = Window()
    for second in range(20):
        sample = window.add(
            Reading(second, second, running=5_000_000_000, waiting=-7, kv_usage=3.0)
        )
    assert (sample.running, sample.waiting, sample.kv_usage) == (None, None, None)
    (found,) = sample.conditions
    assert found.name is Name.IMPOSSIBLE
    for words in ("running requests 5e+09", "waiting requests -7", "KV cache in use 3"):
        assert words in found.message
