"""A tune's options: what an engine took only in part is asked for again, and is put back."""

from __future__ import annotations

import signal
from collections.abc import Mapping

import pytest

from llmtop import LlmtopError
from llmtop.engines.core.options import Change, Outcome
from llmtop.engines.state.temporary_changes import Purpose
from llmtop.operations.slo.limits import Names
from llmtop.operations.slo.tune_runs import TimeLimit
from llmtop.operations.slo.tuner import Tuner
from llmtop.operations.variant_switcher import undisturbed
from llmtop.slo_control.search import Measured, Search
from tests.slo_control.test_search import OWN

NAMES = Names("max_num_seqs", "max_num_batched_tokens", "max_queued_requests")


class FakeRanks:
    """An engine of two ranks, of which the second refuses what ``refused`` holds."""

    def __init__(self, **refused: int) -> None:
        self.values = [NAMES.of(OWN), NAMES.of(OWN)]
        self.refused = refused
        self.interrupting = False  # Ctrl+C is pressed again as the own values are put back
        self.silent = 0  # of the next questions, so many get no answer although they are obeyed

    def set(self, wanted: Mapping[str, int], purpose: Purpose) -> tuple[Change, ...]:
        if self.interrupting and self.values[0] != NAMES.of(OWN):
            signal.raise_signal(signal.SIGINT)
        found = []
        for name, value in wanted.items():
            before = self.values[0][name]
            self.values[0][name] = value
            partly = self.refused.get(name) == value
            if not partly:
                self.values[1][name] = value
            outcome = Outcome.PARTIAL if partly else Outcome.APPLIED
            found.append(Change(name, before, value, outcome, "rank 1: too few blocks"))
        if self.silent:
            self.silent -= 1
            raise LlmtopError("the engine does not answer")
        return tuple(found)


def tuner(engine: FakeRanks, *, stopped: bool = False) -> Tuner:
    def measure(*, own: bool, arrivals: int) -> Measured:
        if stopped and not own:
            raise KeyboardInterrupt
        return Measured(10.0, 0.5, 100)

    search = Search(OWN, [{**OWN, "batch_limit": 64, "queue_limit": 8}])
    return Tuner(search, NAMES, engine.set, measure, restoring=lambda: undisturbed(print))


def test_what_one_rank_took_and_another_did_not_is_put_back() -> None:
    engine = FakeRanks(max_num_seqs=64)
    with pytest.raises(LlmtopError, match="max_num_seqs cannot be set to 64: rank 1"):
        tuner(engine).run()
    assert engine.values == [NAMES.of(OWN), NAMES.of(OWN)]


def test_what_was_set_without_an_answer_is_put_back() -> None:
    engine = FakeRanks()
    engine.silent = 2  # the candidate, and the first try to put the values back
    with pytest.raises(LlmtopError, match="does not answer"):
        tuner(engine).run()
    assert engine.values == [NAMES.of(OWN), NAMES.of(OWN)]


def test_an_engine_that_does_not_take_its_own_values_again_is_not_called_restored() -> None:
    engine = FakeRanks(max_num_seqs=OWN["batch_limit"])
    report = tuner(engine, stopped=True).run()
    assert report.stopped and not report.restored
    assert engine.values[1]["max_num_seqs"] == 64
    assert engine.values[1]["max_queued_requests"] == OWN["queue_limit"]  # the rest is back


def test_a_second_ctrl_c_waits_until_the_values_are_back() -> None:
    engine = FakeRanks()
    engine.interrupting = True
    report = tuner(engine, stopped=True).run()
    assert report.stopped and report.restored
    assert engine.values == [NAMES.of(OWN), NAMES.of(OWN)]


def test_no_run_begins_for_which_no_time_is_left() -> None:
    """Runs of 10 s and a limit of 75 s: the verdict comes at the end of the seventh."""
    engine, now = FakeRanks(), [100.0]

    def measure(*, own: bool, arrivals: int) -> Measured:
        now[0] += 10.0
        return Measured(2.0 if own else 40.0 + 0.1 * arrivals, 0.5, 400)

    search = Search(OWN, [{**OWN, "queue_limit": 8 * n} for n in (1, 2, 3, 4)])
    report = Tuner(
        search, NAMES, engine.set, measure, limit=TimeLimit(75.0), clock=lambda: now[0]
    ).run()
    assert report.runs == 7 and report.seconds == 70.0 and report.time_up
    assert report.restored and report.result is not None
