"""Results as JSON documents and files. docs/json.md and docs/schema describe the fields."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from llmtop import LlmtopError, UsageError
from llmtop.loadgen.compare import Finding
from llmtop.loadgen.duel import CompareResult
from llmtop.loadgen.export import bench_serve, levels_log, table
from llmtop.loadgen.level import LevelResult
from llmtop.loadgen.plan import Target
from llmtop.loadgen.saturate import SaturationResult
from llmtop.tui.findings import comparison_sentence, saturation_sentence
from llmtop.tui.verbs.aim import Aim, calibration_entry
from llmtop.tui.verbs.output import finite, latency


def level_entry(level: LevelResult, dollars_an_hour: float | None = None) -> dict[str, Any]:
    """One level, or one run of a comparison."""
    health = level.health
    return {
        "streams": level.level,
        "seconds": level.seconds,
        "warm_up_s": level.warm_up_s,
        "requests": {"ok": level.ok, "failed": level.failed, "cut": level.cut},
        "in_time": level.in_time,
        "goodput_per_s": level.goodput_per_s,
        "output_tokens_per_s": level.output_tokens_per_s,
        "output_tokens_error": level.error,
        "requests_per_s": level.requests_per_s,
        "ttft_s": latency(level.ttft),
        "tpot_s": latency(level.tpot),
        "itl_s": latency(level.itl),
        "e2e_s": latency(level.e2e),
        "in_flight": level.in_flight,
        "little": level.little,
        "steady": level.steady,
        "stalled": level.stalled,
        "client": {
            "verdict": health.verdict,
            "clock": health.clock,
            "lag_s": latency(health.lag) if health.lag else None,
            "cpu": health.cpu,
            "run_delay": health.run_delay,
        },
        "energy_j": level.energy_j,
        "tokens_per_joule": level.tokens_per_joule,
        "dollars_per_million_tokens": None
        if dollars_an_hour is None
        else level.dollars_per_million(dollars_an_hour),
        "gpu_idle": level.usage.gpu_idle,
        "kv_peak": level.usage.kv_peak,
    }


def saturation_document(
    found: Aim,
    result: SaturationResult,
    dollars_an_hour: float | None,
    kv_bytes: float | None = None,
) -> dict[str, Any]:
    """A whole search. kv_bytes: of the KV cache that the engine reserved on each GPU."""
    knee, peak = result.knee, result.kv_peak
    return {
        "kind": "saturation",
        "name": found.name,
        "model": found.target.model,
        "simulated": found.simulated,
        "time": time.time(),
        "summary": saturation_sentence(result),
        "complete": result.complete,
        "slo": {f"{name}_s": at for name, at in result.slo.limits.items()} if result.slo else None,
        "max_streams": result.top,
        "level_seconds": result.seconds,
        "answers": [
            {
                "share": answer.share,
                "end": answer.end.value,
                "streams": answer.level,
                "fails_at": answer.fails,
                "undecided_at": list(answer.undecided),
                "cliff": answer.cliff,
            }
            for answer in result.answers
        ],
        "knee": None
        if knee is None
        else {
            "streams": knee.level,
            "low": knee.low,
            "high": knee.high,
            "best_output_tokens_per_s": knee.best,
            "best_streams": knee.best_level,
            "still_rising": knee.open_end,
            "cliff_streams": knee.cliff,
            "cliff_share": knee.cliff_share,
        },
        "client_limit_streams": result.ceiling,
        "calibration": calibration_entry(result.calibration),
        "kv_cache": {
            "reserved_bytes": kv_bytes,
            "peak": peak,
            "unused_share": None if peak is None else 1 - peak,
            "unused_bytes": None if peak is None or kv_bytes is None else kv_bytes * (1 - peak),
        },
        "dollars_per_hour": dollars_an_hour,
        "levels": [level_entry(level, dollars_an_hour) for level in result.levels],
    }


def finding_entry(finding: Finding) -> dict[str, Any]:
    """One measure of a comparison."""
    return {
        "measure": finding.measure.value,
        "better_when": finding.measure.direction.value,
        "pairs": finding.n,
        "a": finding.a,
        "b": finding.b,
        "ratio": finding.ratio,
        "low": finding.low,
        "high": finding.high,
        "verdict": finding.verdict.value,
        "more_pairs": finding.more_pairs,
        "noise_ratio": finding.noise,
    }


def comparison_document(
    names: tuple[str, str],
    labels: tuple[str, str],
    simulated: bool,
    result: CompareResult,
    restarts: int = 0,
    calibration: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A whole comparison. names: the engines; labels: what tells A from B. restarts: for that.
    calibration: what the client was held against."""
    return {
        "kind": "comparison",
        "time": time.time(),
        "summary": comparison_sentence(result, *labels),
        "complete": result.complete,
        "simulated": simulated,
        "a": {"name": names[0], "label": labels[0]},
        "b": {"name": names[1], "label": labels[1]},
        "streams": result.level,
        "run_seconds": result.seconds,
        "pairs_left_out": result.left_out,
        "restarts": restarts,
        "calibration": calibration,
        "findings": [finding_entry(finding) for finding in result.findings],
        "pairs": [
            {
                "noise": pair.noise,
                "order": "".join(pair.arms),
                "counted": pair.counted,
                "runs": [level_entry(run) for run in pair.runs],
            }
            for pair in result.pairs
        ],
    }


def check(files: Sequence[str], folder: str | None = None) -> None:
    """Refuse what could not be written before anything is measured."""
    for path in map(Path, files):
        if not path.parent.is_dir():
            raise UsageError(f"there is no folder {path.parent} for {path.name}")
    if folder is not None and not Path(folder).parent.is_dir():
        raise UsageError(f"there is no folder {Path(folder).parent} for {Path(folder).name}")


def save_saturation(path: str, report: dict[str, Any], result: SaturationResult) -> None:
    """Write a search: CSV, one row a level; an HdrHistogram log; or the JSON document."""
    if path.endswith(".hlog"):
        ends = [r.last for level in result.levels for r in level.records if r.last is not None]
        write(Path(path), levels_log(result.levels, start=report["time"] - max(ends, default=0.0)))
    elif path.endswith(".csv"):
        write(Path(path), table(((), level) for level in result.levels))
    else:
        write(Path(path), dumps(report))


def save_comparison(path: str, report: dict[str, Any], result: CompareResult) -> None:
    """Write a comparison: CSV, one row a run, or the JSON document."""
    if not path.endswith(".csv"):
        write(Path(path), dumps(report))
        return
    rows = [
        ((number + 1, pair.noise, arm), run)
        for number, pair in enumerate(result.pairs)
        for arm, run in zip(pair.arms, pair.runs, strict=True)
    ]
    write(Path(path), table(rows, ("pair", "noise", "arm")))


def save_levels(folder: str, result: SaturationResult, target: Target) -> None:
    """Write each level into a file of its own, as ``vllm bench serve`` would."""
    at = datetime.now()
    try:
        Path(folder).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise LlmtopError(f"{folder} cannot be made: {error.strerror}") from None
    for number, level in enumerate(result.levels, 1):
        if level.ok:
            name = f"llmtop-{number:02}-concurrency{level.level}.json"
            found = bench_serve(
                level,
                model=target.model,
                chat=target.chat,
                at=at,
                limits=result.slo is not None,
            )
            write(Path(folder) / name, dumps(found))


def dumps(value: Any) -> str:
    """A JSON document for a file."""
    return json.dumps(finite(value), indent=1, allow_nan=False) + "\n"


def write(path: Path, text: str) -> None:
    """Write a file, or say why not."""
    try:
        path.write_text(text, encoding="utf-8", newline="")
    except OSError as error:
        raise LlmtopError(f"{path} cannot be written: {error.strerror}") from None
