"""SGLang's options: names, flags, and their values in a launch command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmtop.engines.core.options import Applies, OptionSpec, OptionValue
from llmtop.engines.tuning.argv_editor import with_changed_flags
from llmtop.engines.tuning.argv_parser import launch_values

_RESTART = Applies.RESTART
_POLICIES = (
    *("fcfs", "lpm", "random", "dfs-weight", "lof", "priority", "routing-key"),
    *("hrrn", "shortest-prefill-first"),
)

OPTIONS = (
    OptionSpec(
        "max_running_requests",
        "--max-running-requests",
        "Requests in the running batch; the rest wait in the queue.",
        Applies.DRAINS,
        int,
        minimum=1,
    ),
    OptionSpec(
        "chunked_prefill_size",
        "--chunked-prefill-size",
        "Longest chunk of a prompt in one batch: short chunks keep streams even; -1 is off.",
        Applies.LIVE_UP_TO_LAUNCH,
        int,
        minimum=-1,
    ),
    OptionSpec(
        "max_prefill_tokens",
        "--max-prefill-tokens",
        "Prompt tokens of one batch, over all its requests.",
        Applies.LIVE_UP_TO_LAUNCH,
        int,
        minimum=1,
        default=16384,
    ),
    OptionSpec(
        "max_queued_requests",
        "--max-queued-requests",
        "Requests that may wait; more are refused at once with HTTP 503. 0 is no limit.",
        Applies.LIVE,
        int,
        minimum=0,
    ),
    OptionSpec(
        "speculative_algorithm",
        "--speculative-algorithm",
        "Source of draft tokens: n-grams of the text so far, a small model, or trained heads.",
        _RESTART,
        str,
        choices=("EAGLE", "EAGLE3", "NEXTN", "STANDALONE", "NGRAM"),
    ),
    OptionSpec(
        "speculative_num_draft_tokens",
        "--speculative-num-draft-tokens",
        "Tokens that one verification checks, including the certain one.",
        _RESTART,
        int,
        minimum=1,
    ),
    OptionSpec(
        "speculative_num_steps",
        "--speculative-num-steps",
        "Steps that the drafter works ahead (EAGLE and STANDALONE).",
        _RESTART,
        int,
        minimum=1,
    ),
    OptionSpec(
        "disable_radix_cache",
        "--disable-radix-cache",
        "Disable the prefix cache, which keeps the KV cache of prompts for reuse.",
        _RESTART,
        bool,
        default=False,
    ),
    OptionSpec(
        "mem_fraction_static",
        "--mem-fraction-static",
        "Share of each GPU's memory for weights and KV cache.",
        _RESTART,
        float,
        minimum=0.0,
        maximum=1.0,
    ),
    OptionSpec(
        "context_length",
        "--context-length",
        "Longest request, prompt and output together, in tokens.",
        _RESTART,
        int,
        minimum=1,
    ),
    OptionSpec(
        "schedule_policy",
        "--schedule-policy",
        "Scheduling order: first come first served, or longest cached prefix first, ...",
        Applies.LIVE,
        str,
        choices=_POLICIES,
        default="fcfs",
    ),
    OptionSpec(
        "schedule_conservativeness",
        "--schedule-conservativeness",
        "Share of a request's maximum output that is reserved; lower values admit more requests.",
        Applies.LIVE,
        float,
        minimum=0.0,
        default=1.0,
    ),
    OptionSpec(
        "tp_size",
        "--tp-size",
        "GPUs over which each layer is split.",
        _RESTART,
        int,
        minimum=1,
        default=1,
    ),
    OptionSpec(
        "dp_size",
        "--dp-size",
        "Copies of the model, each on its own GPUs, that share the requests.",
        _RESTART,
        int,
        minimum=1,
        default=1,
    ),
    OptionSpec(
        "pp_size",
        "--pp-size",
        "GPUs over which the layers are distributed, in sequence.",
        _RESTART,
        int,
        minimum=1,
        default=1,
    ),
    OptionSpec(
        "quantization",
        "--quantization",
        "Quantisation of the weights; by default the model's configuration decides.",
        _RESTART,
        str,
    ),
    OptionSpec(
        "kv_cache_dtype",
        "--kv-cache-dtype",
        "Number format of the KV cache; 8 bits hold twice the tokens of 16.",
        _RESTART,
        str,
        choices=("auto", "bfloat16", "fp8_e4m3", "fp8_e5m2"),
        default="auto",
    ),
    OptionSpec(
        "disable_cuda_graph",
        "--disable-cuda-graph",
        "Disable CUDA graphs: faster start, slower decoding.",
        _RESTART,
        bool,
        default=False,
    ),
    OptionSpec(
        "disable_overlap_schedule",
        "--disable-overlap-schedule",
        "Do not schedule the next batch while this one runs on the GPU.",
        _RESTART,
        bool,
        default=False,
    ),
)

# The first three are prefixes of the flag, which SGLang's parser accepts.
ALIASES = {
    "--tp": "--tp-size",
    "--dp": "--dp-size",
    "--pp": "--pp-size",
    "--tensor-parallel-size": "--tp-size",
    "--data-parallel-size": "--dp-size",
    "--pipeline-parallel-size": "--pp-size",
}


def launch_options(command: Sequence[str]) -> dict[str, OptionValue]:
    """Launch values by option name, from SGLang's arguments; SGLang chose the others."""
    return launch_values(OPTIONS, [long_flag(argument) for argument in command])


def with_options(args: Sequence[str], changes: Mapping[str, OptionValue]) -> tuple[str, ...]:
    """The arguments for a restart with these options changed; None leaves one to SGLang.

    For no queue limit the flag is omitted: SGLang 0.5.12 refuses 0, and later versions exit with 0
    if requests have priorities.
    """
    kept = {
        name: None if name == "max_queued_requests" and value == 0 else value
        for name, value in changes.items()
    }
    return with_changed_flags(OPTIONS, args, kept, long_flag)


def long_flag(argument: str) -> str:
    """The argument, with an alias of a flag replaced by the flag's name in this table."""
    name, equals, value = argument.partition("=")
    return f"{ALIASES.get(name, name)}{equals}{value}"
