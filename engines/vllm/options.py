"""vLLM's options: names, flags, and their values in a launch command."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from llmtop import UsageError
from llmtop.engines.core.options import Applies, OptionSpec, OptionValue
from llmtop.engines.tuning.argv_editor import flag_with_value, replace_flags, with_changed_flags
from llmtop.engines.tuning.argv_parser import launch_values, pairs, read_value

_LIVE = Applies.LIVE_UP_TO_LAUNCH
_RESTART = Applies.RESTART
_SPECULATIVE = "--speculative-config"
_QUEUE_LIMIT = "max_queued_requests"
_DRAFTING = ("num_speculative_tokens", "speculative_method")
_WITH_MODEL = ("draft_model", "eagle", "eagle3", "medusa", "mlp_speculator")

OPTIONS = (
    OptionSpec(
        "max_num_seqs",
        "--max-num-seqs",
        "Requests in the running batch; the rest wait in the queue.",
        _LIVE,
        int,
        minimum=1,
    ),
    OptionSpec(
        "max_num_batched_tokens",
        "--max-num-batched-tokens",
        "Token budget of one step: smaller steps keep streams even, larger ones prefill faster.",
        _LIVE,
        int,
        minimum=1,
    ),
    OptionSpec(
        "num_speculative_tokens",
        _SPECULATIVE,
        "Draft tokens a step and request; 0 is speculation off.",
        _LIVE,
        int,
        minimum=0,
    ),
    OptionSpec(
        _QUEUE_LIMIT,
        "",  # vLLM has no such flag: its own limit counts running requests too
        "Requests that may wait; more are refused at once with HTTP 503. 0 is no limit.",
        Applies.LIVE,
        int,
        minimum=0,
        default=0,
    ),
    OptionSpec(
        "long_prefill_token_threshold",
        "--long-prefill-token-threshold",
        "Longest chunk of one prompt in a step, so that other requests progress too; 0 is off.",
        Applies.LIVE,
        int,
        minimum=0,
        default=0,
    ),
    OptionSpec(
        "speculative_method",
        _SPECULATIVE,
        "Source of draft tokens: n-grams of the prompt, a small model, or trained heads.",
        _RESTART,
        str,
        choices=("ngram", "draft_model", "eagle", "eagle3", "medusa", "mlp_speculator", "suffix"),
    ),
    OptionSpec(
        "enable_prefix_caching",
        "--enable-prefix-caching",
        "Keep the KV cache of prompts and reuse it where a new prompt begins the same.",
        _RESTART,
        bool,
    ),
    OptionSpec(
        "gpu_memory_utilization",
        "--gpu-memory-utilization",
        "Share of each GPU's memory that this engine may use in total.",
        _RESTART,
        float,
        minimum=0.0,
        maximum=1.0,
    ),
    OptionSpec(
        "max_model_len",
        "--max-model-len",
        "Longest request, prompt and output together, in tokens.",
        _RESTART,
        int,
        minimum=1,
    ),
    OptionSpec(
        "scheduling_policy",
        "--scheduling-policy",
        "Scheduling order: first come first served, or lower priority number first.",
        Applies.LIVE,
        str,
        choices=("fcfs", "priority"),
        default="fcfs",
    ),
    OptionSpec(
        "tensor_parallel_size",
        "--tensor-parallel-size",
        "GPUs over which each layer is split.",
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
        choices=("auto", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2"),
        default="auto",
    ),
    OptionSpec(
        "enforce_eager",
        "--enforce-eager",
        "Disable compilation and CUDA graphs: faster start, slower decoding.",
        _RESTART,
        bool,
        default=False,
    ),
    OptionSpec(
        "async_scheduling",
        "--async-scheduling",
        "Schedule the next step while this one runs on the GPU.",
        _RESTART,
        bool,
    ),
)

_ALIASES = {
    "-tp": "--tensor-parallel-size",
    "-q": "--quantization",
    "-sc": _SPECULATIVE,
    "-dp": "--data-parallel-size",
    "-dpl": "--data-parallel-size-local",
    "-pp": "--pipeline-parallel-size",
    "--device-memory-utilization": "--gpu-memory-utilization",
}


def launch_options(command: Sequence[str]) -> dict[str, OptionValue]:
    """Launch values by option name, from vLLM's arguments; vLLM chose the others."""
    args = [long_flag(argument) for argument in command]
    plain = [spec for spec in OPTIONS if spec.flag not in ("", _SPECULATIVE)]
    return {**launch_values(plain, args), **_speculation(args)}


def with_options(args: Sequence[str], changes: Mapping[str, OptionValue]) -> tuple[str, ...]:
    """The arguments for a restart with these options changed; None leaves one to vLLM."""
    if changes.get(_QUEUE_LIMIT):
        raise UsageError(
            f"vLLM cannot be started with {_QUEUE_LIMIT}: it has no flag for that",
            f"set it when the engine runs: llmtop set NAME {_QUEUE_LIMIT}=…",
        )
    elsewhere = (*_DRAFTING, _QUEUE_LIMIT)
    plain = {name: value for name, value in changes.items() if name not in elsewhere}
    new = with_changed_flags(OPTIONS, args, plain, long_flag)
    drafting = {name: value for name, value in changes.items() if name in _DRAFTING}
    if not drafting:
        return new
    config = drafted(_speculation_settings([long_flag(argument) for argument in args]), drafting)
    words = flag_with_value(_SPECULATIVE, json.dumps(config)) if config else ()
    return replace_flags(new, (_SPECULATIVE, _SPECULATIVE + "."), words, long=long_flag)


def drafted(config: Mapping[str, object], changes: Mapping[str, OptionValue]) -> dict[str, object]:
    """A speculative configuration with another method or number of tokens; {} for no speculation.

    If only a number is given, the method is n-grams, because it needs nothing else. A change of the
    method drops the settings of the old one (its draft model, its bounds). UsageError if the number
    or the draft model is missing.
    """
    method = changes.get("speculative_method", config.get("method"))
    tokens = changes.get("num_speculative_tokens", config.get("num_speculative_tokens"))
    if tokens == 0 or ("num_speculative_tokens" in changes and tokens is None):
        return {}
    if tokens is None:
        raise UsageError(
            "speculation needs a number of draft tokens too", "add num_speculative_tokens=4"
        )
    if method is None and "model" not in config:
        method = "ngram"
    if method == config.get("method") or "speculative_method" not in changes:
        new = {**config, "num_speculative_tokens": tokens}
    else:
        new = {"num_speculative_tokens": tokens}
    if method == "ngram" and config.get("method") != "ngram":
        # vLLM's default bounds (5 and 5) find only long repetitions.
        new |= {"prompt_lookup_min": 1, "prompt_lookup_max": 4}
    if method in _WITH_MODEL and "model" not in new:
        raise UsageError(
            f"the method {method} needs a draft model",
            'restart with: -- --speculative-config \'{"method": …, "model": …, '
            '"num_speculative_tokens": …}\'',
        )
    return {**new, "method": method} if method is not None else new


def long_flag(argument: str) -> str:
    """The argument, with an alias of a flag replaced by the flag's full name."""
    name, equals, value = argument.partition("=")
    head, dot, key = name.partition(".")
    return f"{_ALIASES.get(head, head)}{dot}{key}{equals}{value}"


def _speculation_settings(args: Sequence[str]) -> dict[str, object]:
    """The settings in ``--speculative-config JSON`` or ``--speculative-config.key value``."""
    settings: dict[str, object] = {}
    for name, value in pairs(args):
        if name == _SPECULATIVE:
            try:
                config = json.loads(value)
            except (ValueError, RecursionError):
                continue
            settings.update(config if isinstance(config, dict) else {})
        elif name.startswith(_SPECULATIVE + "."):
            key = name.removeprefix(_SPECULATIVE + ".").replace("-", "_")
            settings[key] = read_value(value, int) if key == "num_speculative_tokens" else value
    return settings


def _speculation(args: Sequence[str]) -> dict[str, OptionValue]:
    settings = _speculation_settings(args)
    found: dict[str, OptionValue] = {}
    drafts, method = settings.get("num_speculative_tokens"), settings.get("method")
    if isinstance(drafts, int) and not isinstance(drafts, bool):
        found["num_speculative_tokens"] = drafts
    if isinstance(method, str):
        found["speculative_method"] = method
    return found
