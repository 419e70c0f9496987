"""vLLM 0.20 and later: how it is started, what is put beside it, and how its numbers are read."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from llmtop import UsageError
from llmtop.engines.adapter import Adapter, MetricText
from llmtop.engines.argv import given
from llmtop.engines.histograms import histogram
from llmtop.engines.records import LaunchSpec
from llmtop.engines.samples import Counter, Latency, Reading
from llmtop.engines.vllm_log import EFFECTIVE, FAILURES, MEMORY, PHASES
from llmtop.engines.vllm_options import OPTIONS, launch_options, with_options

PLUGINS = Path(__file__).resolve().parent / "plugins"
PLUGIN_FOLDERS = (PLUGINS / "vllm", PLUGINS / "live")
PLUGIN_NAME = "llmtop"  # in entry_points.txt of the plugin

# Both are in every version since 0.20. The scraper asks once a second, which would bury the log.
QUIET = ("--disable-access-log-for-endpoints", "/metrics,/health,/version,/v1/models")
ACCESS_LOG_FLAGS = (
    "--disable-access-log-for-endpoints",
    "--disable-uvicorn-access-log",
    "--no-disable-uvicorn-access-log",
    "--uvicorn-log-level",
)

# vLLM's names, 0.20 to 0.32.
COUNTERS = {
    Counter.OUTPUT_TOKENS: "vllm:generation_tokens_total",
    Counter.PROMPT_TOKENS: "vllm:prompt_tokens_total",
    Counter.PREFIX_QUERIES: "vllm:prefix_cache_queries_total",
    Counter.PREFIX_HITS: "vllm:prefix_cache_hits_total",
    Counter.PREEMPTIONS: "vllm:num_preemptions_total",
    Counter.DRAFTS: "vllm:spec_decode_num_drafts_total",
    Counter.DRAFT_TOKENS: "vllm:spec_decode_num_draft_tokens_total",
    Counter.ACCEPTED_TOKENS: "vllm:spec_decode_num_accepted_tokens_total",
}
HISTOGRAMS = {
    Latency.TTFT: "vllm:time_to_first_token_seconds",
    Latency.ITL: "vllm:inter_token_latency_seconds",
    Latency.TPOT: "vllm:request_time_per_output_token_seconds",
    Latency.E2E: "vllm:e2e_request_latency_seconds",
    Latency.QUEUE: "vllm:request_queue_time_seconds",
}
FINISHED = "vllm:request_success_total"  # despite its name it counts every ending, by reason
FINISHED_BADLY = frozenset({"abort", "error"})
ACCEPTED_BY_POSITION = "vllm:spec_decode_num_accepted_tokens_per_pos_total"


def command(spec: LaunchSpec) -> tuple[str, ...]:
    """``vllm serve MODEL --host --port``, the operator's arguments last.

    spec.program is everything before ``serve``: ("vllm",), a path to it, or (PYTHON, "-m", MODULE).
    """
    if given(spec.args, "--host", "--port", "--uds"):
        raise UsageError(
            "llmtop must know where the engine listens",
            "give --port to llmtop itself, before the --",
        )
    if spec.model.startswith("-"):
        raise UsageError(f"{spec.model} is a flag, not a model", "flags go behind a --")
    quiet = () if given(spec.args, *ACCESS_LOG_FLAGS) else QUIET
    program = spec.program or ADAPTER.program
    where = ("--host", spec.host, "--port", str(spec.port))
    return (*program, "serve", spec.model, *where, *quiet, *spec.args)


def environment(spec: LaunchSpec, live_socket: Path, base: Mapping[str, str]) -> dict[str, str]:
    """What the engine's environment needs besides ``base``: the plugin and the choice of GPUs."""
    folders = [str(folder) for folder in PLUGIN_FOLDERS]
    # At a restart the base is the environment of the engine before, with the plugin in it.
    inherited = base.get("PYTHONPATH", "").split(os.pathsep)
    folders += [folder for folder in inherited if folder and folder not in folders]
    added = {
        "PYTHONPATH": os.pathsep.join(folders),
        "LLMTOP_LIVE_SOCKET": str(live_socket),
        "PYTHONUNBUFFERED": "1",  # the log is a file, and its last lines tell why an engine died
    }
    if "VLLM_PLUGINS" in base:  # a list of those that may load; without it all may
        allowed = [name for name in base["VLLM_PLUGINS"].split(",") if name]
        if PLUGIN_NAME not in allowed:
            added["VLLM_PLUGINS"] = ",".join([*allowed, PLUGIN_NAME])
    if spec.gpus:
        added["CUDA_VISIBLE_DEVICES"] = ",".join(str(index) for index in spec.gpus)
        # Else CUDA counts the fastest GPU first, and its 0 is not the 0 of nvidia-smi and of ours.
        if "CUDA_DEVICE_ORDER" not in base:
            added["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    return added


def read(text: MetricText, time: float, elapsed: float) -> Reading:
    """One moment of the whole server: data-parallel engines, each a label, are laid together."""
    capacity = _capacity(text)
    return Reading(
        time=time,
        elapsed=elapsed,
        model=_model(text),
        running=_whole(_value(text, "vllm:num_requests_running")),
        waiting=_whole(_value(text, "vllm:num_requests_waiting")),
        kv_usage=_kv_usage(text, capacity),
        kv_tokens_total=sum(capacity.values()) if capacity else None,
        counters=_counters(text),
        histograms={
            latency: merged
            for latency, name in HISTOGRAMS.items()
            if (merged := histogram(text, name)) is not None
        },
        accepted_per_position=_accepted(text),
        process_start=_value(text, "process_start_time_seconds"),
    )


def _model(text: MetricText) -> str | None:
    series = text.series("vllm:num_requests_running")
    return next((labels["model_name"] for labels, _ in series if "model_name" in labels), None)


def _capacity(text: MetricText) -> dict[str, int]:
    """Tokens that each engine's KV cache holds. Values are labels, and may be the word None."""
    found: dict[str, int] = {}
    for labels, _ in text.series("vllm:cache_config_info"):
        tokens = _label_count(labels, "kv_cache_size_tokens")
        if tokens is None:  # older versions tell only the blocks
            blocks, size = (
                _label_count(labels, "num_gpu_blocks"),
                _label_count(labels, "block_size"),
            )
            tokens = blocks * size if blocks is not None and size is not None else None
        if tokens:
            found[labels.get("engine", "0")] = tokens
    return found


def _kv_usage(text: MetricText, capacity: Mapping[str, int]) -> float | None:
    """Mean over the engines, weighted by what each can hold where all of that is known."""
    usage = [
        (labels.get("engine", "0"), value)
        for labels, value in text.series("vllm:kv_cache_usage_perc")
        if math.isfinite(value)
    ]
    if not usage:
        return None
    known = all(engine in capacity for engine, _ in usage)
    weights = [capacity[engine] if known else 1 for engine, _ in usage]
    pairs = zip(weights, usage, strict=True)
    return sum(weight * value for weight, (_, value) in pairs) / sum(weights)


def _counters(text: MetricText) -> dict[Counter, float]:
    found = {}
    for counter, name in COUNTERS.items():
        value = _value(text, name)
        if value is not None:
            found[counter] = value
    finished = text.series(FINISHED)
    if finished:
        found[Counter.REQUESTS_OK] = found[Counter.REQUESTS_FAILED] = 0.0
    for labels, value in finished:
        badly = labels.get("finished_reason") in FINISHED_BADLY
        found[Counter.REQUESTS_FAILED if badly else Counter.REQUESTS_OK] += value
    return found


def _accepted(text: MetricText) -> tuple[float, ...]:
    by_position: defaultdict[int, float] = defaultdict(float)
    for labels, value in text.series(ACCEPTED_BY_POSITION):
        position = _label_count(labels, "position")
        if position is not None:
            by_position[position] += value
    return tuple(by_position[position] for position in sorted(by_position))


def _value(text: MetricText, name: str) -> float | None:
    value = text.value(name)
    return value if value is not None and math.isfinite(value) else None


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _label_count(labels: Mapping[str, str], name: str) -> int | None:
    value = labels.get(name, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 16 else None


ADAPTER = Adapter(
    kind="vllm",
    title="vLLM",
    default_port=8000,
    program=("vllm",),
    module="vllm.entrypoints.cli.main",
    api_key_variable="VLLM_API_KEY",  # api_server.py: used where --api-key is not given
    command=command,
    environment=environment,
    read=read,
    prefixes=("vllm:", "process_start_time_seconds"),
    options=OPTIONS,
    launch_options=launch_options,
    with_options=with_options,
    phases=PHASES,
    failures=FAILURES,
    effective=EFFECTIVE,
    memory=MEMORY,
    min_version="0.20",
)
