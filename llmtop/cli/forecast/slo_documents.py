"""The JSON documents of ``tune`` and ``hold``: they are printed, recorded and put into reports."""

from __future__ import annotations

import asyncio
import math
import sys
import time
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from llmtop.loadgen.statistics.student import t_quantile
from llmtop.operations.run_setup import run_setup

if TYPE_CHECKING:
    from llmtop.engines.core.endpoint import Endpoint
    from llmtop.loadgen.workload.plan import Prompts
    from llmtop.operations.slo.hold_engine import HoldPlan
    from llmtop.operations.slo.holder import HoldReport
    from llmtop.operations.slo.tuner import Tried, TuneReport
    from llmtop.operations.wiring import Wiring

CONFIDENCE = 0.95
REAL_TRAFFIC = "the real traffic"


def tune_document(
    name: str, slo: str, report: TuneReport, line: str, endpoint: Endpoint
) -> dict[str, Any]:
    """The document of a tune, without its setup. line: the launch command, "" for none."""
    from msgspec import to_builtins

    from llmtop.operations.slo.words import tune_sentence
    from llmtop.slo_control.search import LEAST_GAIN

    result = report.result
    ratio = result.ratio if result is not None else None
    return {
        "kind": "tuning",
        **_engine(name, endpoint),
        "summary": tune_sentence(name, slo, report),
        "slo": slo,
        "verdict": result.verdict.value if result is not None else None,
        "margin": round(LEAST_GAIN - 1, 6),
        "time_up": report.time_up,
        "settings": dict(report.settings),
        "own_settings": dict(report.own),
        "goodput_ratio": None if ratio is None else to_builtins(ratio),
        "tried": [tried_entry(one) for one in report.tried],
        "runs": report.runs,
        "seconds": report.seconds,
        "launch_line": line or None,
        "restored": report.restored,
        "stopped": report.stopped,
    }


def tried_entry(one: Tried) -> dict[str, Any]:
    """One candidate: each of its runs, and the confidence interval of their mean."""
    interval = mean_interval(one.goodput_per_s)
    return {
        "settings": dict(one.settings),
        "expected_goodput_per_s": one.expected,
        "goodput_per_s": list(one.goodput_per_s),
        "interval": None if interval is None else list(interval),
        "in_time_share": [run.share if run.n else None for run in one.measured],
        "requests": [run.n for run in one.measured],
    }


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % confidence interval of the mean (Student's t), cut at 0; None for under two runs.

    mean ± t(0.975, n - 1) · s / √n.
    """
    if len(values) < 2:
        return None
    half = t_quantile(1 - (1 - CONFIDENCE) / 2, len(values) - 1) * stdev(values)
    half /= math.sqrt(len(values))
    return max(0.0, fmean(values) - half), fmean(values) + half


def hold_document(plan: HoldPlan, report: HoldReport, endpoint: Endpoint) -> dict[str, Any]:
    """The document of a hold, without its setup."""
    from llmtop.operations.slo.words import hold_sentence

    outcomes = report.outcomes
    return {
        "kind": "hold",
        **_engine(plan.name, endpoint),
        "summary": hold_sentence(plan.name, plan.slo, report),
        "slo": plan.slo,
        "seconds": report.seconds,
        "accepted": outcomes.accepted,
        "ended": outcomes.ended,
        "refused": report.refused,
        "late": outcomes.late,
        "late_ttft": outcomes.late_ttft,
        "late_tpot": outcomes.late_tpot,
        "goodput_per_s": report.goodput_per_s,
        "own_settings": dict(report.own),
        "actions": [
            {
                "time": one.time,
                "option": one.option or None,
                "from": one.before,
                "to": one.after,
                "why": one.why,
            }
            for one in report.actions
        ],
        "restored": report.restored,
        "not_restored": dict(report.not_restored),
        "ended_because": report.ended or None,
    }


def setup_of(
    wiring: Wiring,
    endpoint: Endpoint,
    prompts: Prompts | None = None,
    load: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The setup of a run. prompts, load: None when llmtop sent no load."""
    return run_setup(wiring, endpoint, prompts, sys.argv[1:], load or {"shape": REAL_TRAFFIC})


def engine_of(wiring: Wiring, name: str) -> Endpoint:
    """The engine behind a name or a URL. Raises LlmtopError when there is none."""
    if not wiring.is_url(name):
        return wiring.owned(name)
    from llmtop.operations.wiring import Wiring

    fresh = Wiring(wiring.environ)  # sockets belong to one event loop
    return asyncio.run(fresh.ask(lambda _: fresh.endpoint(name)))


def _engine(name: str, endpoint: Endpoint) -> dict[str, Any]:
    return {
        "name": name,
        "model": endpoint.model,
        "simulated": endpoint.adapter.simulated,
        "time": time.time(),
    }
