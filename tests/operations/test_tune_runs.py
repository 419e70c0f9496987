"""The first run of a tune: one that is short beside its requests decides nothing."""

from __future__ import annotations

import pytest

from llmtop.cli.forecast.tune_meters import LoadMeter, LoadOf
from llmtop.forecast.figures import Limits
from llmtop.loadgen.core.results import Fate, RequestRecord
from llmtop.loadgen.experiments.level import LoadClock
from llmtop.loadgen.experiments.slo import Slo
from llmtop.loadgen.workload.plan import Prompts
from llmtop.operations.slo.tune_runs import TimeLimit, drain_s, in_time, next_length
from llmtop.slo_control.search import Measured, Search, Verdict
from tests.slo_control.test_search import OWN

SLO = Slo(1.0, 0.05, None)


def request(at: float, took: float) -> RequestRecord:
    """A request of 100 tokens that was in time."""
    return RequestRecord(
        at, at, at + 0.1, at + 0.1, at + took, 500, 100, True, Fate.OK, ended=at + took
    )


def run(took: float, seconds: float, *, is_open: bool = True) -> Measured:
    """80 requests a second that each took so many seconds."""
    records = [request(n / 80, took) for n in range(round(80 * seconds))]
    return in_time(records, SLO, 0.0, seconds, is_open=is_open)


@pytest.mark.parametrize(
    ("took", "seconds", "is_open", "longer"),
    [
        (3.0, 4.0, True, 8.0),
        (3.0, 8.0, True, None),
        (3.0, 4.0, False, None),
        (4.5, 20.0, True, None),
    ],
)
def test_a_run_that_ends_before_a_queue_can_grow_is_repeated_longer(
    took: float, seconds: float, is_open: bool, longer: float | None
) -> None:
    first = run(took, seconds, is_open=is_open)
    assert first.share == 1.0
    assert next_length(first, seconds) == longer


def test_the_longest_run_is_not_repeated_and_does_not_decide_alone() -> None:
    first = Measured(80.0, 1.0, 2400, settled=False)
    assert next_length(first, 16.0) == 30.0
    assert next_length(first, 30.0) is None
    search = Search(OWN, [{**OWN, "queue_limit": 8}])
    assert search.next() == 0
    search.take(first)
    assert search.result is None and search.next() == 1  # the candidate is measured, too


def test_requests_that_were_late_decide_nothing_either_and_need_no_longer_run() -> None:
    late = Measured(10.0, 0.125, 320, settled=False)
    assert next_length(late, 4.0) is None


class ScriptedMeter(LoadMeter):
    """Its runs take what is given, by their length."""

    def __call__(self, *, own: bool, arrivals: int) -> Measured:
        assert own and arrivals == 0
        return run(3.0, self.asked.seconds)


@pytest.mark.parametrize(("shape", "seconds"), [(None, 8.0), ("hold 80 for 4s", 4.0)])
def test_all_runs_are_as_long_as_the_first_one_that_told_enough(
    shape: str | None, seconds: float
) -> None:
    asked = LoadOf(80.0, None, shape, True, 4.0)
    meter = ScriptedMeter(asked, Limits(1.0, 0.05, None), LoadClock(), Prompts())
    told: list[str] = []
    first = meter.first(told.append)
    assert meter.asked.seconds == seconds
    assert told[1:] == (
        [] if shape else ["requests take long compared with the run: again, with 8 s per run"]
    )
    search = Search(OWN, [{**OWN, "queue_limit": 8}])
    search.next()
    search.take(first)
    found = search.result.verdict if search.result else None
    assert found is (None if shape else Verdict.NOTHING)


def test_the_first_run_is_not_repeated_where_no_time_is_left_for_it() -> None:
    asked = LoadOf(80.0, None, None, True, 4.0)
    meter = ScriptedMeter(asked, Limits(1.0, 0.05, None), LoadClock(), Prompts())
    limit = TimeLimit(13.0)
    told: list[str] = []
    first = meter.first(told.append, lambda seconds: limit.has(4.0, seconds))
    assert meter.asked.seconds == 4.0 and len(told) == 1 and not first.settled


@pytest.mark.parametrize(
    ("slo", "prompts", "seconds"),
    [
        (SLO, Prompts(output_tokens=(112, 144)), 1.0 + 0.05 * 144 + 0.5),
        (SLO, Prompts(output_tokens=(2000, 2000)), 20.0),
        (SLO, Prompts(output_tokens=(8, 8), turns=3), 20.0),
        (Slo(None, 0.05, None), Prompts(), 20.0),
        (Slo(None, None, 2.0), Prompts(), 2.5),
    ],
)
def test_answers_that_are_late_whenever_they_end_are_not_waited_for(
    slo: Slo, prompts: Prompts, seconds: float
) -> None:
    assert drain_s(slo, prompts) == pytest.approx(seconds)
