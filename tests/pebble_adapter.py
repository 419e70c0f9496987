"""Pebble 2.0 and later: how it is started and how its numbers are read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from llmtop.engines.core.adapter import Adapter, FailurePattern, MetricText, Phase
from llmtop.engines.core.options import Applies, OptionSpec, OptionValue
from llmtop.engines.core.records import LaunchSpec
from llmtop.engines.core.samples import Counter, Latency, Reading
from llmtop.engines.metrics.histograms import histogram
from llmtop.engines.tuning.argv_parser import launch_values

OPTIONS = (
    OptionSpec(
        "max_requests",
        "--max-requests",
        "Requests in the running batch; the rest wait in the queue.",
        Applies.RESTART,
        int,
        minimum=1,
        default=32,
    ),
)


def command(spec: LaunchSpec) -> tuple[str, ...]:
    """``pebble serve MODEL``, the operator's own arguments last."""
    where = ("--host", spec.host, "--port", str(spec.port))
    return (*(spec.program or ("pebble",)), "serve", spec.model, *where, *spec.args)


def environment(spec: LaunchSpec, live_socket: Path, base: Mapping[str, str]) -> dict[str, str]:
    """Unbuffered output: the last lines of the log show why an engine died."""
    return {"PYTHONUNBUFFERED": "1"}


def read(text: MetricText, time: float, elapsed: float) -> Reading:
    """A sample that is missing in the text stays None: unknown is not zero."""
    running, tokens = text.value("pebble_running"), text.value("pebble_tokens_total")
    ttft = histogram(text, "pebble_ttft_seconds")
    return Reading(
        time=time,
        elapsed=elapsed,
        running=None if running is None else round(running),
        kv_usage=text.value("pebble_kv_usage"),
        counters={} if tokens is None else {Counter.OUTPUT_TOKENS: tokens},
        histograms={} if ttft is None else {Latency.TTFT: ttft},
    )


def launch_options(args: Sequence[str]) -> dict[str, OptionValue]:
    """What the options panel shows as launch values."""
    return launch_values(OPTIONS, args)


ADAPTER = Adapter(
    kind="pebble",
    title="Pebble",
    default_port=9100,
    program=("pebble",),
    command=command,
    environment=environment,
    read=read,
    prefixes=("pebble_",),
    options=OPTIONS,
    launch_options=launch_options,
    phases=(
        # With the groups done and total the screen shows progress: "weights 3/7".
        Phase("weights", re.compile(r"loading shard (?P<done>\d+) of (?P<total>\d+)")),
        Phase("warm-up", re.compile(r"warming up")),
    ),
    failures=(
        # Compared with the text of each error in the log. The first pattern that matches wins.
        # If the error is only a result of another error, set ``kind=Kind.EFFECT``.
        FailurePattern(
            r"cannot fit (?P<need>\d{1,6}) GiB",
            "the model needs {need} GiB of GPU memory",
            "take a smaller model, or give the engine more GPUs",
        ),
    ),
    min_version="2.0",
)
