"""The search of tune: what it measures, and what it says in the end."""

from __future__ import annotations

import random

import pytest

from llmtop.slo_control.candidates import grid, narrowed, unforecast_variants
from llmtop.slo_control.pairs import ratio, spread
from llmtop.slo_control.search import BETTER_CONFIDENCE, LEAST_GAIN, Measured, Search, Verdict

OWN = {"batch_limit": 1024, "queue_limit": 0, "token_budget": 8192}
ROLES = ("batch_limit", "queue_limit", "token_budget")


def play(
    truth: dict[int, float], asked: float = 80.0, noise: float = 0.05, seed: int = 0
) -> tuple[Search, int]:
    """truth: goodput by candidate; 0 is the operator's own."""
    rng = random.Random(seed)
    search = Search(OWN, [{**OWN, "queue_limit": 8 * n} for n in range(1, len(truth))])
    runs = 0
    while (index := search.next()) is not None:
        runs += 1
        found = max(0.0, truth[index] * rng.gauss(1.0, noise))
        found = min(found, asked)
        search.take(Measured(found, found / asked, 400))
    return search, runs


def test_settings_that_serve_more_in_time_are_found() -> None:
    search, runs = play({0: 0.2, 1: 20.0, 2: 46.0, 3: 30.0, 4: 5.0})
    assert search.result is not None
    assert search.result.verdict is Verdict.BETTER
    assert search.result.settings["queue_limit"] == 16
    assert search.result.ratio is not None and search.result.ratio.low is not None
    assert search.result.ratio.low > 10
    assert runs <= 20


def test_one_run_is_enough_where_all_are_in_time() -> None:
    search, runs = play({0: 80.0, 1: 80.0}, noise=0.0)
    assert search.result is not None and search.result.verdict is Verdict.NOTHING
    assert search.result.settings == OWN
    assert runs == 1


def test_an_engine_without_requests_decides_nothing() -> None:
    search = Search(OWN, [{**OWN, "queue_limit": 8}])
    assert search.next() == 0
    search.take(Measured(0.0, 1.0, 0))
    assert search.next() is None
    assert search.result is not None and search.result.verdict is Verdict.UNKNOWN


def test_nothing_to_gain_is_said_where_it_is_true() -> None:
    verdicts = []
    for seed in range(10):
        search, _ = play({0: 60.0, 1: 59.5, 2: 60.0, 3: 50.0}, noise=0.015, seed=seed)
        assert search.result is not None
        verdicts.append(search.result.verdict)
    assert verdicts.count(Verdict.NOTHING) >= 9
    assert Verdict.BETTER not in verdicts


def test_what_cannot_be_told_is_not_told() -> None:
    search, _ = play({0: 50.0, 1: 55.0}, noise=0.35, seed=3)
    assert search.result is not None
    assert search.result.verdict is Verdict.UNKNOWN
    assert search.result.settings == OWN


def test_a_candidate_that_breaks_the_slo_at_once_is_out() -> None:
    search = Search(OWN, [{**OWN, "queue_limit": 8}, {**OWN, "queue_limit": 16}])
    search.take(Measured(40.0, 0.5, 100))
    assert search.next() == 1
    search.drop()
    assert search.next() == 2
    search.take(Measured(60.0, 0.75, 100))
    assert search.next() == 0  # pairs follow, with both finalists
    assert search.candidates[2]["queue_limit"] == 16


def test_pairs_are_measured_in_turns() -> None:
    search = Search(OWN, [{**OWN, "queue_limit": 8}])
    asked = []
    for _ in range(8):
        index = search.next()
        assert index is not None
        asked.append(index)
        search.take(Measured(30.0 + index, 0.5, 100))
    assert asked == [0, 1, 0, 1, 1, 0, 0, 1]


def rounds_of(truth: dict[int, float], noise: float = 0.0, seed: int = 0) -> dict[int, list[int]]:
    """The candidates by round, in the order in which they are measured."""
    rng = random.Random(seed)
    search = Search(OWN, [{**OWN, "queue_limit": 8 * n} for n in range(1, len(truth))])
    found: dict[int, list[int]] = {}
    while (index := search.next()) is not None:
        found.setdefault(search.round, []).append(index)
        good = truth[index] * rng.gauss(1.0, noise)
        search.take(Measured(good, good / 80.0, 400))
    return found


def test_each_round_measures_own_settings_and_all_that_are_left() -> None:
    good = {0: 20.0, 1: 21.0, 2: 30.0, 3: 22.0, 4: 29.0, 5: 5.0, 6: 30.5, 7: 6.0}
    found = rounds_of(good)
    assert found[0] == list(range(8))
    assert sorted(found[1]) == [0, 2, 3, 4, 6]  # the better half
    assert sorted(found[2]) == [0, 2, 6]  # two finalists
    assert found[3] == found[2][::-1]  # forth and back


def test_finalists_that_are_alike_are_measured_until_the_choice_costs_nothing() -> None:
    """Own settings are certainly worse after two rounds: later rounds compare finalists alone."""
    chosen = []
    for seed in range(10):
        found = rounds_of({0: 1.0, 1: 44.0, 2: 50.0, 3: 49.0}, 0.03, seed)
        assert all(0 in found[number] for number in range(3))
        assert all(0 not in found[number] for number in found if number >= 4)
        search, _ = play({0: 1.0, 1: 44.0, 2: 50.0, 3: 49.0}, noise=0.03, seed=seed)
        assert search.result is not None and search.result.verdict is Verdict.BETTER
        chosen.append(search.result.settings["queue_limit"])
    assert 8 not in chosen


@pytest.mark.parametrize("roles", [ROLES, ("queue_limit",), ()])
def test_the_grid_changes_only_what_may_change(roles: tuple[str, ...]) -> None:
    found = grid(OWN, roles)
    for one in found:
        assert one != OWN
        assert all(one[role] == OWN[role] for role in OWN if role not in roles)
    assert bool(found) == bool(roles)


def test_the_forecast_narrows_the_grid() -> None:
    candidates = grid(OWN, ("queue_limit",))
    expected = [float(one["queue_limit"]) for one in candidates]
    assert [one["queue_limit"] for one in narrowed(candidates, expected, 2)] == [64, 32]
    assert len(narrowed(candidates, [None] * len(candidates), 2)) == 2


def test_candidates_that_differ_in_the_budget_alone_are_the_last() -> None:
    candidates = grid(OWN, ROLES)
    expected = [float(one["batch_limit"]) for one in candidates]
    chosen = narrowed(candidates, expected, 4)
    assert len({(one["batch_limit"], one["queue_limit"]) for one in chosen}) == 4


def test_what_no_forecast_knows_is_measured_beside_the_best() -> None:
    own = {**OWN, "draft_tokens": 4, "prefill_threshold": 0}
    best = {**own, "batch_limit": 128, "queue_limit": 16, "token_budget": 8192}
    found = unforecast_variants(best, own, {"draft_tokens": 4}, 4096.0)
    assert [one["draft_tokens"] for one in found] == [0, 2, 4]
    assert [one["prefill_threshold"] for one in found] == [0, 0, 2048]
    assert all(one["batch_limit"] == 128 for one in found)
    assert (
        unforecast_variants(best, own, {"draft_tokens": 4}, 300.0) == found[:2]
    )  # no prompt is that long
    assert unforecast_variants(OWN, OWN, {}, 4096.0) == []  # an engine without either


def test_drafts_that_are_off_are_tried_as_launched() -> None:
    own = {**OWN, "draft_tokens": 0}
    assert unforecast_variants(own, own, {"draft_tokens": 6}, None) == [{**own, "draft_tokens": 6}]
    assert unforecast_variants(own, own, {"draft_tokens": 0}, None) == []


def test_a_goodput_of_nothing_has_a_ratio() -> None:
    found = ratio([{0: 0.0, 1: 46.0}, {0: 0.0, 1: 45.0}], 1, 0)
    assert found.value > 50 and found.low is not None and found.low > 1
    assert ratio([{0: 0.0, 1: 0.0}, {0: 0.0, 1: 0.0}], 1, 0).value == 1.0


def test_a_goodput_that_may_be_nothing_has_a_ratio_without_an_upper_end() -> None:
    rounds = [{0: 0.0, 1: 46.0}, {0: 12.0, 1: 45.0}, {0: 1.0, 1: 47.0}]
    found = ratio(rounds, 1, 0)
    assert found.low is not None and found.low > 1 and found.high is None


def test_the_interval_of_a_ratio_covers_it() -> None:
    """An independent check: the true ratio of means lies inside as often as is said."""
    rng = random.Random(7)
    inside = 0
    for _ in range(1000):
        rounds = []
        for _ in range(5):
            arrivals = rng.gauss(1.0, 0.1)
            rounds.append({0: rng.gauss(40, 2) * arrivals, 1: rng.gauss(50, 2) * arrivals})
        found = ratio(rounds, 1, 0, spread(rounds, [0, 1]))
        assert found.low is not None and found.high is not None
        inside += found.low <= 50.5 / 40.5 <= found.high
    assert 860 <= inside <= 940


def test_settings_that_are_alike_are_hardly_ever_called_better() -> None:
    """Whatever runs differ by: at most one search in twenty."""
    for noise in (0.02, 0.05, 0.15):
        verdicts = []
        for seed in range(300):
            search, _ = play(dict.fromkeys(range(5), 50.0), noise=noise, seed=seed)
            assert search.result is not None
            verdicts.append(search.result.verdict)
        assert verdicts.count(Verdict.BETTER) <= 15


def test_a_search_without_more_time_decides_by_what_it_has() -> None:
    truth = {0: 2.0, 1: 48.0, 2: 50.0}
    search = Search(OWN, [{**OWN, "queue_limit": 8 * n} for n in (1, 2)])
    for number in range(7):  # a round that screens, one that decides, and a run of the next
        index = search.next()
        assert index is not None
        search.take(Measured(truth[index] + 0.1 * number, 0.5, 400))
    search.finish()
    assert search.next() is None and search.result is not None
    assert search.result.verdict is Verdict.BETTER
    assert search.result.settings["queue_limit"] == 16
    assert search.result.ratio is not None and search.result.ratio.confidence == BETTER_CONFIDENCE


@pytest.mark.parametrize("runs", [0, 1, 2, 3])
def test_a_search_that_is_ended_after_a_few_runs_cannot_tell(runs: int) -> None:
    search = Search(OWN, [{**OWN, "queue_limit": 8 * n} for n in (1, 2)])
    for _ in range(runs):
        search.next()
        search.take(Measured(30.0 * LEAST_GAIN, 0.5, 400))
    search.finish()
    assert search.result is not None and search.result.verdict is Verdict.UNKNOWN
    assert search.result.settings == OWN and search.result.ratio is not None


def test_runs_that_differ_too_much_are_not_repeated_in_vain() -> None:
    """After five rounds it shows that three more could not decide either."""
    runs = [play({0: 50.0, 1: 55.0, 2: 52.0}, noise=0.4, seed=seed)[1] for seed in range(20)]
    assert sorted(runs)[10] <= 3 * 6


def test_a_search_that_is_ended_early_hardly_ever_calls_alike_settings_better() -> None:
    rng, verdicts = random.Random(5), []
    for _ in range(300):
        search = Search(OWN, [{**OWN, "queue_limit": 8 * n} for n in (1, 2, 3, 4)])
        for _ in range(12):
            if search.next() is not None:
                found = 50.0 * rng.gauss(1.0, 0.08)
                search.take(Measured(found, found / 80, 400))
        search.finish()
        assert search.result is not None
        verdicts.append(search.result.verdict)
    assert verdicts.count(Verdict.BETTER) <= 15
