"""What benchmarks that run on a rented GPU make of their measurements: it must not fail there."""

from __future__ import annotations

import json

import pytest

from bench.gpu import why_causes
from bench.inside import vllm_cost


def pair(on: float, off: float) -> vllm_cost.Pair:
    """Windows of ten seconds with so many tokens each."""
    return {
        arm: vllm_cost.window(10.0, tokens, tokens / 2, 1.0)
        for arm, tokens in (("on", on), ("off", off))
    }


def test_a_window_without_a_token_is_left_out_and_counted() -> None:
    found = vllm_cost.compare([pair(990, 1000), pair(0, 1000), pair(990, 1000), pair(0, 0)])
    tokens = found["tokens_per_s"]
    assert (tokens["n"], tokens["left_out"]) == (2, 2)
    assert tokens["value"] == pytest.approx(0.99)
    assert tokens["low"] == pytest.approx(0.99) and tokens["high"] == pytest.approx(0.99)
    assert found["step_s"]["value"] == pytest.approx(1 / 0.99)


@pytest.mark.parametrize("pairs", [[], [pair(0, 0)]])
def test_of_no_pair_nothing_is_known(pairs: list[vllm_cost.Pair]) -> None:
    found = vllm_cost.compare(pairs)
    assert [one["value"] for one in found.values()] == [None] * 3
    json.dumps(found, allow_nan=False)


def test_one_pair_has_no_interval() -> None:
    tokens = vllm_cost.compare([pair(500, 1000)])["tokens_per_s"]
    assert tokens["value"] == pytest.approx(0.5)
    assert (tokens["low"], tokens["high"]) == (None, None)


def entry(at_s: float, *causes: str) -> dict[str, object]:
    found = [{"cause": one, "share": 0.5, "words": one, "knob": None} for one in causes]
    return why_causes.entry(at_s, {"state": "near_knee", "causes": found, "steps": 9})


def test_the_first_cause_counts_and_answers_without_any_are_no_failure() -> None:
    seen = [entry(0.5), entry(1.5, "decode", "prefill"), entry(2.5, "prefill")]
    seen.append(entry(3.5, "prefill"))
    found = why_causes.verdict("prefill", seen)
    assert (found["first_right_s"], found["share_of_looks_right"]) == (2.5, 0.5)
    assert found["named_first"] == {"nothing": 1, "decode": 1, "prefill": 2}
    assert "first right after 2.5 s, 50% of answers" in why_causes.line(
        {"cause": "prefill", **found}
    )


def test_a_scenario_without_an_answer_and_one_that_failed_are_named() -> None:
    none = why_causes.line({"cause": "decode", **why_causes.verdict("decode", [])})
    assert "never right, no answer" in none
    failed = why_causes.line({"cause": "decode", "failed": "llmtop why why-causes --json"})
    assert "failed: llmtop why" in failed
