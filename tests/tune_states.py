"""A tune in the middle and at the end, for the tests of its screen."""

from __future__ import annotations

from llmtop.loadgen.experiments import slo
from llmtop.operations.slo.tuner import Tried, TuneReport
from llmtop.slo_control.pairs import Ratio
from llmtop.slo_control.search import Measured, Result, Verdict
from llmtop.tui.commands.experiment_requests import TunePlan, TuneState
from llmtop.values import replace

PLAN = TunePlan("llama", slo.parse("ttft=1s,tpot=50ms"), 80.0)
OWN = {"max_num_seqs": 256, "max_queued_requests": 0}
BEST = {"max_num_seqs": 128, "max_queued_requests": 16}
LINE = "llmtop run vllm org/model-8b -- --max-num-seqs 128"


def run(goodput: float) -> Measured:
    return Measured(goodput, goodput / 80.0, 480)


def tuning(began: float, *, over: bool = True, verdict: Verdict = Verdict.BETTER) -> TuneState:
    """The operator's settings and two candidates, one of which is measured several times."""
    tried = (
        Tried(OWN, None, (run(14.0), run(13.0), run(15.0))),
        Tried(BEST, 46.0, (run(46.4), run(44.0), run(47.0))),
        Tried({"max_num_seqs": 64, "max_queued_requests": 8}, 31.0, (run(30.0),)),
    )
    state = TuneState(
        PLAN, began, OWN, tried, now=BEST, phase="", runs=7, left=7, left_s=64.0
    )  # fmt: skip
    if not over:
        return state
    better = verdict is Verdict.BETTER
    settings = BEST if better else OWN
    result = Result(verdict, settings, Ratio(3.3, 2.9, 3.8, 3))
    report = TuneReport(OWN, result, tried, 98.0, True, 13, False, settings)
    return replace(
        state,
        now=None,
        report=report,
        launch_line=LINE if better else "",
        over=True,
        back="your settings are in force again",
    )
