"""A search and a comparison in the middle and at the end, for the tests of their screens."""

from __future__ import annotations

import math

from llmtop.loadgen.core.results import ClientHealth, LatencySummary
from llmtop.loadgen.experiments import slo
from llmtop.loadgen.experiments.comparison import CompareResult, ComparisonProgress, PairResult
from llmtop.loadgen.experiments.level import LevelResult
from llmtop.loadgen.experiments.paired_test import Measure, PairedRatio, judge, noise_floor
from llmtop.loadgen.experiments.saturation import Progress, SaturationResult, trial
from llmtop.loadgen.experiments.search import Search
from llmtop.loadgen.workload.plan import Prompts
from llmtop.operations.curves import Curve
from llmtop.tui.commands.experiment_requests import (
    ComparisonPlan,
    ComparisonState,
    SearchPlan,
    SearchState,
)
from llmtop.values import replace

CAP = 128
LEVELS = (4, 8, 16, 32, 64, 128, 256, 192, 160, 144)
CLIENT = "client-bound, because a worker used 98 % of its core"
PROMPTS = Prompts(prompt_tokens=(448, 576), output_tokens=(112, 144))
PLAN = SearchPlan("llama", slo.parse("ttft=500ms,tpot=50ms"), 512, 8.0, PROMPTS)


def level(streams: int, scale: float = 1.0, *, valid: bool = True, cap: int = CAP) -> LevelResult:
    """One level of an engine that holds ``cap`` requests in its batch."""
    running = min(streams, cap)
    tokens = scale * 6900 * running / (running + 42)
    ttft = 0.03 + 0.0006 * running + 0.008 * max(0, streams - cap)
    n = 60 + 2 * streams
    late = 0 if 1.6 * ttft < 0.5 else n // 3

    def summary(p50: float) -> LatencySummary:
        return LatencySummary(p50, p50 * 1.6, p50 * 2.1, n)

    return LevelResult(
        level=streams, seconds=8.1, warm_up_s=1.2, ok=n, failed=0, cut=0, in_time=n - late,
        output_tokens_per_s=tokens, error=0.012, requests_per_s=tokens / 128,
        in_flight=float(streams), little=1.0, steady=True, stalled=False, ttft=summary(ttft),
        tpot=summary(0.006 + 1e-4 * running), e2e=summary(ttft + 1.2), itl=summary(0.006),
        health=ClientHealth(
            "valid" if valid else CLIENT, "kernel",
            causes=() if valid else ("a worker used 98 % of its core",),
        ),
    )  # fmt: skip


def searching(began: float, done: int = len(LEVELS), *, over: bool = True) -> SearchState:
    """A search after ``done`` levels; the one at 192 streams was spoilt by the client."""
    results = [level(one, valid=one != 192) for one in LEVELS[:done]]
    search = Search(top=PLAN.top)
    curve = Curve(began, "vllm", "org/model-8b", (), str(PLAN.slo), "448..576", "112..144")
    for one in results:
        search.feed(trial(one))
        curve = curve.with_level(one)
    result = SaturationResult(
        PLAN.slo, tuple(results), tuple(search.answer(share) for share in search.shares),
        search.knee(), search.ceiling, PLAN.top, PLAN.seconds, over,
    )  # fmt: skip
    under_way = LEVELS[done] if done < len(LEVELS) else 136
    progress = None if over else Progress(under_way, "measuring", done, 71.0, 64.0)
    return SearchState(PLAN, began, curve, result, progress, over)


def earlier(time: float, scale: float, cap: int) -> Curve:
    """A curve of another day, with another batch cap."""
    curve = Curve(
        time, "vllm", "org/model-8b", (), str(PLAN.slo), "448..576", "112..144",
        (("max_num_seqs", cap),),
    )  # fmt: skip
    for one in (4, 16, 64, 128, 256):
        curve = curve.with_level(level(one, scale, cap=cap))
    return curve


COMPARISON = ComparisonPlan(
    "llama", "max_num_seqs", 256, 64, level=192, pairs=8, seconds=8.0, prompts=PROMPTS
)


def _run(arm: str, number: int) -> LevelResult:
    """A run at 192 streams: B gives 8 % less tokens and lets wait longer; both are unsteady."""
    run, shaky = level(192, cap=192), 1 + 0.02 * math.sin(7.0 * number)
    b = arm == "B"

    def slower(summary: LatencySummary, by: float) -> LatencySummary:
        assert summary.p50 is not None and summary.p95 is not None
        return replace(summary, p50=summary.p50 * by, p95=summary.p95 * by**1.2)

    return replace(
        run,
        output_tokens_per_s=run.output_tokens_per_s * shaky * (0.92 if b else 1.0),
        ttft=slower(run.ttft, (1.14 if b else 1.0) * (2 - shaky)),
        tpot=slower(run.tpot, 1 + 0.3 * (shaky - 1) + (-0.002 if b else 0.0)),
    )


def comparing(began: float, done: int = 10, *, over: bool = True) -> ComparisonState:
    """A comparison after ``done`` pairs, two of which are A against A."""
    pairs: list[PairResult] = []
    for number in range(done):
        noise = number < 2
        arms = ("A", "A") if noise else ("A", "B") if number % 2 == 0 else ("B", "A")
        runs = [_run(arm, 2 * number + i) for i, arm in enumerate(arms)]
        pairs.append(PairResult(noise, arms, (runs[0], runs[1])))
    findings: list[PairedRatio] = []
    for measure in Measure:
        values = [v for p in pairs if not p.noise and (v := p.values(measure)) is not None]
        floor = noise_floor([v for p in pairs if p.noise and (v := p.values(measure)) is not None])
        findings.append(judge(measure, values, among=len(Measure), noise=floor))
    result = CompareResult(192, 8.0, tuple(pairs), tuple(findings), 0, over)
    runs_done = 2 * done
    standing = None if over else ComparisonProgress(runs_done + 1, 20, "B", "measuring", 64.0)
    back = "max_num_seqs is 256 again" if over else ""
    return ComparisonState(COMPARISON, began, result, standing, over, "", back)
