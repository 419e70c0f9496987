"""The adapter of the simulated engine. llmtop marks its numbers as simulated everywhere."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from llmtop import UsageError
from llmtop.engines.core.adapter import Adapter, FailurePattern, Phase
from llmtop.engines.core.options import Applies, OptionSpec, OptionValue
from llmtop.engines.core.records import LaunchSpec
from llmtop.engines.tuning.argv_editor import replace_flags, with_changed_flags
from llmtop.engines.tuning.argv_parser import has_flag, last_value, launch_values, read_value
from llmtop.engines.vllm import adapter, failures, log_patterns, metrics, options, ranks
from llmtop.interpreter import for_own_code
from llmtop.values import replace

KIND = "sim"
DEFAULT_MODEL = "llama-3.1-8b"
MARK = "llmtop_simulator_lag_seconds"  # a gauge that no other engine has
_DRAFTING = ("num_speculative_tokens", "speculative_method")


def command(spec: LaunchSpec) -> tuple[str, ...]:
    """The command of the simulator: with llmtop's own Python, or with ``spec.program``."""
    if has_flag(spec.args, "--host", "--port"):
        raise UsageError(
            "llmtop must know where the engine listens",
            "put --port before the --, as an option of llmtop",
        )
    program = spec.program or (sys.executable, "-P", "-m", "llmtop.engines.simulated.simulator")
    served = ("--model", spec.model, "--host", spec.host, "--port", str(spec.port))
    return (*program, *served, *spec.args)


def environment(spec: LaunchSpec, live_socket: Path, base: Mapping[str, str]) -> dict[str, str]:
    """Variables to add to ``base``: the live-option socket, and unbuffered output."""
    added = {"LLMTOP_LIVE_SOCKET": str(live_socket), "PYTHONUNBUFFERED": "1"}
    return added if spec.program else {**added, **for_own_code(base)}


def launch_options(command: Sequence[str]) -> Mapping[str, OptionValue]:
    """Launch values by option name, from the simulator's arguments."""
    found = dict(launch_values(OPTIONS, command))
    if has_flag(command, "--speculative"):
        method, _, tokens = (last_value(command, "--speculative") or "").partition(":")
        found["speculative_method"] = method
        found["num_speculative_tokens"] = read_value(tokens, int) if tokens else None
    return found


def with_options(args: Sequence[str], changes: Mapping[str, OptionValue]) -> tuple[str, ...]:
    """The arguments for a restart with these options changed; None leaves one to the simulator."""
    plain = {name: value for name, value in changes.items() if name not in _DRAFTING}
    new = with_changed_flags(OPTIONS, args, plain, long_flag)
    drafting = {name: value for name, value in changes.items() if name in _DRAFTING}
    if not drafting:
        return new
    wanted = {**launch_options(args), **drafting}
    method, tokens = (wanted.get(name) for name in ("speculative_method", "num_speculative_tokens"))
    if tokens is None and "num_speculative_tokens" not in drafting:
        raise UsageError(
            "speculation needs a number of draft tokens too", "add num_speculative_tokens=4"
        )
    words = ("--speculative", f"{method or 'ngram'}:{tokens}") if tokens else ()
    return replace_flags(new, ("--speculative",), words)


def long_flag(name: str) -> str:
    """A flag's full name."""
    return "--tensor-parallel-size" if name == "-tp" else name


# Options shared with vLLM, with the simulator's defaults; None: the default depends on the GPU.
_SHARED: dict[str, OptionValue] = {
    "max_num_seqs": None,
    "max_num_batched_tokens": None,
    "enable_prefix_caching": True,
    "gpu_memory_utilization": 0.92,
    "max_model_len": 8192,
    "tensor_parallel_size": 1,
}

OPTIONS = (
    *(
        replace(spec, default=_SHARED[spec.name])
        for spec in options.OPTIONS
        if spec.name in _SHARED
    ),
    OptionSpec(
        "num_speculative_tokens",
        "--speculative",
        "Draft tokens a step and request; 0 is speculation off.",
        Applies.LIVE_UP_TO_LAUNCH,
        int,
        minimum=0,
    ),
    OptionSpec(
        "max_queued_requests",
        "--max-queued-requests",
        "Requests that may wait; more are refused at once with status 503. 0 is no limit.",
        Applies.LIVE,
        int,
        minimum=0,
        default=0,
    ),
    OptionSpec(
        "speculative_method",
        "--speculative",
        "Source of draft tokens: n-grams of the prompt, or a small model.",
        Applies.RESTART,
        str,
        choices=("ngram", "draft"),
    ),
)

PHASES = (
    Phase("weights", re.compile(r"Starting to load model")),
    Phase("KV cache", re.compile(r"Model loading took")),
    Phase("CUDA graphs", re.compile(r"Capturing CUDA graphs")),
    Phase("API server", re.compile(r"init engine took")),
)

FAILURES = (
    FailurePattern(
        r"error: (?P<what>(?:argument|unrecognized arguments|ambiguous).*)",
        "the simulated engine does not accept a flag: {what}",
        "see `python -m llmtop.engines.simulated.simulator --help`",
    ),
    *failures.FAILURES,
)

ADAPTER = Adapter(
    kind=KIND,
    title="simulator",
    default_port=8000,
    command=command,
    environment=environment,
    read=metrics.read,
    prefixes=adapter.ADAPTER.prefixes,
    options=OPTIONS,
    phases=PHASES,
    failures=FAILURES,
    failure_words=failures.WORDS,
    memory=log_patterns.MEMORY,
    simulated=True,
    default_model=DEFAULT_MODEL,
    api_key_variable="LLMTOP_SIMULATOR_API_KEY",
    launch_options=launch_options,
    with_options=with_options,
    live_ranks=ranks.live_ranks,
    long_flag=long_flag,
    series=replace(metrics.SERIES, running=(MARK,), values=(*metrics.SERIES.values, MARK)),
)
