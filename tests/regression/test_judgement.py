"""What a check answers, and how often it is wrong."""

from __future__ import annotations

import math
import random
from xml.etree import ElementTree

import pytest

from llmtop import LlmtopError, UsageError
from llmtop.cli.recordings.check import CHECK_S, runs_within
from llmtop.regression.baseline import load_of, pairs, runs_of, values
from llmtop.regression.budget import Budget, parse_budget
from llmtop.regression.judgement import Verdict, judge_pairs, judge_runs, overall
from llmtop.regression.summary import junit, markdown, sentence
from llmtop.report.runs import Run
from tests.report.results import HOSTILE, load

DEFAULT = parse_budget("tok_s=-3%,ttft_p95=+10%,tpot_p50=+5%")
TOKENS = Budget("tok_s", 0.03)


def noisy(chance: random.Random, level: float, spread: float, runs: int) -> list[float]:
    return [level * math.exp(chance.gauss(0, spread)) for _ in range(runs)]


def test_budgets_are_read_and_written_alike() -> None:
    assert [one.words for one in DEFAULT] == ["tok_s=-3%", "ttft_p95=+10%", "tpot_p50=+5%"]
    assert [round(one.limit, 9) for one in DEFAULT] == [0.97, 1.1, 1.05]
    assert parse_budget(" ttft_p95 = 5 % ")[0].limit == pytest.approx(1.05)


@pytest.mark.parametrize(
    "text", ["", "ttft=5%", "ttft_p95", "ttft_p95=-5%", "tok_s=+3%", "tok_s=-3%,tok_s=-4%",
             "ttft_p95=nan%", "tok_s=-100%", "ttft_p95=0%", HOSTILE],
)  # fmt: skip
def test_a_budget_that_cannot_be_meant_costs_one_line(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_budget(text)
    assert raised.value.hint and "\n" not in raised.value.message


@pytest.mark.parametrize("spread", [0.005, 0.02, 0.08])
def test_the_same_engine_is_called_worse_in_at_most_5_of_100(spread: float) -> None:
    chance = random.Random(11)
    worse = 0
    for _ in range(100):
        judgements = [
            judge_runs(one, noisy(chance, 1, spread, 8), noisy(chance, 1, spread, 8), 3)
            for one in DEFAULT
        ]
        worse += overall(judgements) is Verdict.WORSE
    assert worse <= 5


def test_even_at_the_budget_itself_worse_is_said_in_at_most_5_of_100() -> None:
    chance = random.Random(12)
    said = {
        paired: sum(
            (
                judge_pairs(TOKENS, list(zip(old, new, strict=True)), 1)
                if paired
                else judge_runs(TOKENS, old, new, 1)
            ).verdict
            is Verdict.WORSE
            for _ in range(400)
            for old, new in [(noisy(chance, 1, 0.01, 8), noisy(chance, 0.97, 0.01, 8))]
        )
        for paired in (True, False)
    }
    assert all(many <= 32 for many in said.values()), said  # 20 expected, P(more than 32) < 0.4 %


def test_a_slowdown_of_5_percent_is_found_where_runs_differ_by_1_percent() -> None:
    chance = random.Random(13)
    found = sum(
        judge_runs(
            TOKENS, noisy(chance, 1, 0.01, 8), noisy(chance, 0.95, 0.01, 8), len(DEFAULT)
        ).verdict
        is Verdict.WORSE
        for _ in range(200)
    )
    assert found >= 160


def test_a_baseline_of_one_run_borrows_the_spread_and_dares_less() -> None:
    new = [0.90, 0.91, 0.92, 0.90, 0.91, 0.92]
    one = judge_runs(TOKENS, [1.0], new, 1)
    several = judge_runs(TOKENS, [1.0, 1.01, 0.99, 1.0, 1.01, 0.99], new, 1)
    assert one.low is not None and several.low is not None
    assert one.low < several.low
    assert several.verdict is Verdict.WORSE


def test_more_runs_are_asked_for_and_would_settle_it() -> None:
    chance = random.Random(14)
    old, new = noisy(chance, 1, 0.02, 40), noisy(chance, 0.95, 0.02, 40)
    few = judge_runs(TOKENS, old[:4], new[:4], 1)
    assert few.verdict is Verdict.CANNOT_TELL
    assert few.runs_needed is None or few.runs_needed > 4
    assert judge_runs(TOKENS, old, new, 1).verdict is Verdict.WORSE


def test_too_few_values_cannot_tell() -> None:
    for found in (judge_runs(TOKENS, [], [1, 2], 1), judge_runs(TOKENS, [1], [1], 1),
                  judge_pairs(TOKENS, [(1, 1)], 1)):  # fmt: skip
        assert found.verdict is Verdict.CANNOT_TELL and found.ratio is None
    assert "too few runs count" in sentence("vllm", Verdict.CANNOT_TELL, [found])


def test_one_worse_measure_makes_all_worse_and_one_open_one_leaves_it_open() -> None:
    good = judge_runs(TOKENS, [1.0, 1.001, 0.999], [1.0, 1.001, 0.999], 1)
    worse = judge_runs(TOKENS, [1.0, 1.001, 0.999], [0.5, 0.501, 0.499], 1)
    open_ = judge_runs(TOKENS, [1.0], [1.0], 1)
    assert overall([good, good]) is Verdict.GOOD
    assert overall([good, open_]) is Verdict.CANNOT_TELL
    assert overall([good, open_, worse]) is Verdict.WORSE


def test_values_that_the_client_moved_do_not_count() -> None:
    spoilt = load(client={"measures": {"ttft": {"p95": {"valid": False}}}})
    assert values([load(), spoilt], "ttft_p95") == [0.07]
    assert values([load(), spoilt], "tok_s") == [3371.0, 3371.0]
    assert pairs([load(), load()], [spoilt, load()], "ttft_p95") == [(0.07, 0.07)]
    assert values([load(output_tokens_per_s=0), load(output_tokens_per_s="x")], "tok_s") == []


def test_a_file_without_a_load_cannot_be_repeated() -> None:
    with pytest.raises(LlmtopError, match="does not record its load"):
        load_of(Run("load", "old", load()))
    assert runs_of(Run("baseline", "old", {"runs": [load(), 3]})) == [load()]


def test_ci_gets_junit_and_markdown() -> None:
    judgements = [
        judge_runs(TOKENS, [1.0, 1.001, 0.999], [0.5, 0.501, 0.499], 2),
        judge_runs(Budget("ttft_p95", 0.05), [1.0], [1.0], 2),
    ]
    suite = ElementTree.fromstring(junit(HOSTILE + "\x00", judgements, 12.0))
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("2", "1", "1")
    failure = suite.find("testcase/failure")
    assert failure is not None and "-50.0 %" in (failure.get("message") or "")
    told = markdown(sentence(HOSTILE, Verdict.WORSE, judgements), judgements)
    assert "<script>" not in told and "| tok\\_s |" not in told and "| tok_s |" in told
    assert "worse than the baseline: tok_s -50.0 %" in sentence("x", Verdict.WORSE, judgements)


def test_short_loads_are_repeated_as_often_as_five_minutes_hold() -> None:
    for each_s in (4.9, 6.0, 10.0):
        runs = runs_within(CHECK_S, each_s, 2)
        assert 12 <= runs <= 30 and (2 * runs + 2) * each_s < 300
    assert runs_within(CHECK_S, 6.0, 2) >= 22  # of which the power is known
    assert runs_within(CHECK_S, 60.0, 2) == 8  # long ones take longer
    assert runs_within(CHECK_S, 6.0, 1) == 30
