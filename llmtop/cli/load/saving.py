"""Results as JSON documents and files. docs/reference/json.md describes the fields."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from llmtop import LlmtopError, UsageError
from llmtop.cli.common.output import finite, latency
from llmtop.cli.load.client_report import client_entry
from llmtop.cli.load.load_entry import repeats_entry
from llmtop.cli.load.load_target import LoadTarget, calibration_entry
from llmtop.loadgen.core.results import tokens_per_chunk
from llmtop.loadgen.experiments.comparison import CompareResult
from llmtop.loadgen.experiments.level import LevelResult
from llmtop.loadgen.experiments.paired_test import PairedRatio
from llmtop.loadgen.experiments.saturation import SaturationResult
from llmtop.loadgen.export.formats import bench_serve, levels_log, table
from llmtop.loadgen.workload.plan import Target
from llmtop.operations.repeats import Repeats
from llmtop.output_file import open_output
from llmtop.wording.findings import comparison_sentence, saturation_sentence


def level_entry(level: LevelResult, dollars_an_hour: float | None = None) -> dict[str, Any]:
    """One level of a search, or one run of a comparison, as JSON."""
    return {
        "streams": level.level,
        "seconds": level.seconds,
        "warm_up_s": level.warm_up_s,
        "requests": {
            "ok": level.ok,
            "refused": level.refused,
            "failed": level.failed,
            "cut": level.cut,
        },
        "in_time": level.in_time,
        "goodput_per_s": level.goodput_per_s,
        "output_tokens_per_s": level.output_tokens_per_s,
        "output_tokens_error": level.error,
        "requests_per_s": level.requests_per_s,
        "ttft_s": latency(level.ttft),
        "tpot_s": latency(level.tpot),
        "itl_s": latency(level.itl),
        "tokens_per_chunk": tokens_per_chunk(level.records),
        "e2e_s": latency(level.e2e),
        "in_flight": level.in_flight,
        "little": level.little,
        "steady": level.steady,
        "stalled": level.stalled,
        "client": client_entry(level.health),
        "energy_j": level.energy_j,
        "tokens_per_joule": level.tokens_per_joule,
        "dollars_per_million_tokens": None
        if dollars_an_hour is None
        else level.dollars_per_million(dollars_an_hour),
        "gpu_idle": level.usage.gpu_idle,
        "kv_peak": level.usage.kv_peak,
    }


def saturation_document(
    found: LoadTarget,
    result: SaturationResult,
    dollars_an_hour: float | None,
    kv_bytes: float | None = None,
    held_to: int | None = None,
    repeats: Repeats | None = None,
) -> dict[str, Any]:
    """The document of a search. kv_bytes: size of the KV cache on each GPU.

    held_to: the number of streams to which the limit of open files reduced the search, else None.
    repeats: None unless the prompts came from a dataset.
    """
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
        "held_to": held_to,
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
        "client_limited": result.client_limited,
        "calibration": calibration_entry(result.calibration),
        "repeated_prompts": None if repeats is None else repeats_entry(repeats),
        "kv_cache": {
            "reserved_bytes": kv_bytes,
            "peak": peak,
            "unused_share": None if peak is None else 1 - peak,
            "unused_bytes": None if peak is None or kv_bytes is None else kv_bytes * (1 - peak),
        },
        "dollars_per_hour": dollars_an_hour,
        "levels": [level_entry(level, dollars_an_hour) for level in result.levels],
    }


def finding_entry(finding: PairedRatio) -> dict[str, Any]:
    """One measure of a comparison, as JSON."""
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
        "pairs_left_out": finding.left_out,
    }


def comparison_document(
    names: tuple[str, str],
    labels: tuple[str, str],
    simulated: bool,
    result: CompareResult,
    restarts: int = 0,
    calibration: dict[str, Any] | None = None,
    held_to: int | None = None,
    repeats: Repeats | None = None,
) -> dict[str, Any]:
    """The document of a comparison. names: the engines. labels: the settings or names of A and B.

    restarts: number of starts of the engine. calibration: capacity of the client. held_to,
    repeats: as in ``saturation_document``.
    """
    return {
        "kind": "comparison",
        "time": time.time(),
        "summary": comparison_sentence(result, *labels),
        "complete": result.complete,
        "simulated": simulated,
        "a": {"name": names[0], "label": labels[0]},
        "b": {"name": names[1], "label": labels[1]},
        "streams": result.level,
        "held_to": held_to,
        "run_seconds": result.seconds,
        "pairs_left_out": result.left_out,
        "restarts": restarts,
        "calibration": calibration,
        "repeated_prompts": None if repeats is None else repeats_entry(repeats),
        "findings": [finding_entry(finding) for finding in result.findings],
        "pairs": [
            {
                "noise": pair.noise,
                "order": "".join(pair.arms),
                "counted": pair.counted,
                "not_counted_for": [measure.value for measure in pair.left_out],
                "runs": [level_entry(run) for run in pair.runs],
            }
            for pair in result.pairs
        ],
    }


def check(files: Sequence[str], folder: str | None = None, report_file: str | None = None) -> None:
    """Raise UsageError for a file or folder that cannot be written, before the measurement.

    files: their folders must exist, and they must not be folders. folder: its parent must exist.
    report_file: as files; its suffix must be known.
    """
    if report_file is not None:
        from llmtop.report.write import check_name

        check_name(report_file)
    for path in map(Path, files):
        if str(path) == "-":
            raise UsageError("'-' is not a file name here", "print the result with --json")
        if not path.parent.is_dir():
            raise UsageError(f"there is no folder {path.parent} for {path.name}")
        _check_access(path)
    if report_file is not None:
        _check_access(Path(report_file))
    if folder is not None and not Path(folder).parent.is_dir():
        raise UsageError(f"there is no folder {Path(folder).parent} for {Path(folder).name}")


def _check_access(path: Path) -> None:
    if path.is_dir():
        raise UsageError(f"{path} cannot be written: it is a folder", "choose a file name")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise UsageError(f"{path} cannot be written: permission denied", "choose another file")


def first_failure(writes: Iterable[Callable[[], object]]) -> LlmtopError | None:
    """Call each write. Returns the first error, for the caller to raise after it has printed.

    So one file that cannot be written loses neither the other files nor the result on screen.
    """
    first = None
    for each in writes:
        try:
            each()
        except LlmtopError as error:
            first = first or error
    return first


def write_run(path: str, found: Mapping[str, Any]) -> None:
    """Write a report of one result. found: the JSON document of the result."""
    from llmtop.report.runs import Run, kind_of
    from llmtop.report.write import write_report

    document = finite(found)
    kind = kind_of(document)
    if kind is not None:
        name = document.get("name") or "comparison"
        write_report(path, [Run(kind, str(name), document)], time.time())


def save_saturation(path: str, report: dict[str, Any], result: SaturationResult) -> None:
    """Write a search: .csv with one row per level, .hlog as an HdrHistogram log, else JSON."""
    if path.endswith(".hlog"):
        ends = [r.last for level in result.levels for r in level.records if r.last is not None]
        write(Path(path), levels_log(result.levels, start=report["time"] - max(ends, default=0.0)))
    elif path.endswith(".csv"):
        write(Path(path), table(((), level) for level in result.levels))
    else:
        write(Path(path), dumps(report))


def save_comparison(path: str, report: dict[str, Any], result: CompareResult) -> None:
    """Write a comparison: .csv with one row per run, else JSON."""
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
    """Write one file per level in the format of ``vllm bench serve --save-result``."""
    at = datetime.now()
    try:
        Path(folder).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise LlmtopError(f"{folder} cannot be created: {error.strerror}") from None
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
    """Format a JSON document for a file. NaN and infinity become null."""
    return json.dumps(finite(value), indent=1, allow_nan=False) + "\n"


def write(path: Path, text: str, *, append: bool = False) -> None:
    """Write a text file. Raises LlmtopError when it cannot be written."""
    try:
        with open_output(path, append=append) as file:
            file.write(text)
    except OSError as error:
        raise LlmtopError(f"{path} cannot be written: {error.strerror}") from None
