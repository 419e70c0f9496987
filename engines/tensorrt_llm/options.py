"""TensorRT-LLM's options. All need a restart: no known version changes one at run time.

An option is set by its own flag, or else by ``--set PATH=VALUE`` in the file that llmtop writes
(``config_file``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llmtop import UsageError
from llmtop.engines.core.options import Applies, OptionSpec, OptionValue
from llmtop.engines.tensorrt_llm.config_file import (
    FLAG_PATHS,
    OWN_FILE,
    SET,
    read,
    split_arguments,
)
from llmtop.engines.tuning.argv_parser import flag_name, pairs, read_value

_OFF = "off"
_SPECULATION = "speculative_config"
_CUDA_GRAPHS = "cuda_graph_config"


def _flag(
    name: str,
    flag: str,
    summary: str,
    kind: type[int] | type[float] | type[bool],
    minimum: float | None = None,
    maximum: float | None = None,
    default: OptionValue = None,
) -> OptionSpec:
    return OptionSpec(name, flag, summary, Applies.RESTART, kind, minimum, maximum, default=default)


def _set(
    name: str,
    path: str,
    summary: str,
    kind: type[int] | type[bool] | type[str],
    minimum: float | None = None,
    choices: tuple[str, ...] = (),
    default: OptionValue = None,
) -> OptionSpec:
    return OptionSpec(
        name,
        f"{SET} {path}",
        summary,
        Applies.RESTART,
        kind,
        minimum,
        choices=choices,
        default=default,
    )


OPTIONS = (
    _flag(
        "max_batch_size",
        "--max_batch_size",
        "Requests in the running batch; the rest wait in the queue.",
        int,
        1,
    ),
    _flag(
        "max_num_tokens",
        "--max_num_tokens",
        "Token budget of one step: smaller steps keep streams even, larger ones prefill faster.",
        int,
        1,
    ),
    _flag(
        "max_seq_len",
        "--max_seq_len",
        "Longest request, prompt and output together, in tokens.",
        int,
        1,
    ),
    _flag("tp_size", "--tp_size", "GPUs over which each layer is split.", int, 1, None, 1),
    _flag(
        "kv_cache_free_gpu_memory_fraction",
        "--kv_cache_free_gpu_memory_fraction",
        "Share of the memory that the weights leave free, for the KV cache.",
        float,
        0.0,
        1.0,
        0.9,
    ),
    _flag(
        "enable_chunked_prefill",
        "--enable_chunked_prefill",
        "Split long prompts into chunks that share a step with decoding.",
        bool,
    ),
    _set(
        "kv_cache_dtype",
        "kv_cache_config.dtype",
        "Number format of the KV cache; 8 bits hold twice the tokens of 16.",
        str,
        choices=("auto", "fp8", "nvfp4"),
        default="auto",
    ),
    _set(
        "enable_block_reuse",
        "kv_cache_config.enable_block_reuse",
        "Keep the KV cache of prompts and reuse it where a new prompt begins the same.",
        bool,
        default=True,
    ),
    _set(
        "decoding_type",
        f"{_SPECULATION}.decoding_type",
        "Source of draft tokens: n-grams of the prompt, a small model, or trained heads.",
        str,
        choices=(_OFF, "NGram", "MTP", "Eagle3", "DraftTarget", "PARD", "DFlash", "SA"),
        default=_OFF,
    ),
    _set(
        "max_draft_len",
        f"{_SPECULATION}.max_draft_len",
        "Draft tokens a step and request; 0 is speculation off.",
        int,
        0,
        default=0,
    ),
    _set(
        "cuda_graphs",
        _CUDA_GRAPHS,
        "Use CUDA graphs for decoding; without them: faster start, slower decoding.",
        bool,
        default=True,
    ),
    _set(
        "cuda_graph_max_batch_size",
        f"{_CUDA_GRAPHS}.max_batch_size",
        "Largest batch with a CUDA graph; larger batches run without one.",
        int,
        1,
    ),
    _set(
        "disable_overlap_scheduler",
        "disable_overlap_scheduler",
        "Do not prepare the next step while this one runs; some drafting methods need this.",
        bool,
        default=False,
    ),
    _set(
        "capacity_scheduler_policy",
        "scheduler_config.capacity_scheduler_policy",
        "Admit only requests that can finish, or fill the KV cache and pause requests when full.",
        str,
        choices=("GUARANTEED_NO_EVICT", "MAX_UTILIZATION", "STATIC_BATCH"),
        default="GUARANTEED_NO_EVICT",
    ),
)
_BY_NAME = {spec.name: spec for spec in OPTIONS}


def launch_options(args: Sequence[str]) -> dict[str, OptionValue]:
    """Launch values by option name, from the operator's arguments.

    Values in the operator's own configuration file are unknown.
    """
    try:
        arguments = split_arguments(args)
    except UsageError:
        return {}
    flags = {
        FLAG_PATHS[name]: value for name, value in pairs(arguments.flags) if name in FLAG_PATHS
    }
    found: dict[str, OptionValue] = {}
    for spec in OPTIONS:
        path = _path(spec)
        setting = _find(arguments.settings or {}, path)
        if path in flags:
            value = True if spec.kind is bool else read_value(flags[path], spec.kind)
        elif setting is None:
            continue
        elif path == _CUDA_GRAPHS:
            value = setting[0] is not None
        else:
            value = _as(setting[0], spec.kind)
        if value is not None:
            found[spec.name] = value
    return found


def with_option(args: Sequence[str], name: str, value: OptionValue) -> tuple[str, ...]:
    """The arguments for a restart with one option changed; None leaves it to the engine.

    UsageError for an unknown option, and if the operator's own configuration file sets it.
    """
    spec = _BY_NAME.get(name)
    if spec is None:
        raise UsageError(f"TensorRT-LLM has no option {name!r}", f"it has: {', '.join(_BY_NAME)}")
    path = _path(spec)
    off = value in (0, _OFF, None) and path.startswith(_SPECULATION + ".")
    left = _without(args, _SPECULATION if off else path)
    if off or value is None or (path == _CUDA_GRAPHS and value is True):
        return left
    if not spec.flag.startswith(SET):
        if spec.kind is bool:
            return (*left, spec.flag) if value else left
        return (*left, spec.flag, str(value))
    if any(flag_name(argument) in OWN_FILE for argument in args):
        raise UsageError(
            f"{name} is set in the configuration file given at launch",
            f"set {path} in that file and restart the engine",
        )
    word = None if path == _CUDA_GRAPHS else value
    return (*left, SET, f"{path}={word if isinstance(word, str) else json.dumps(word)}")


def with_options(args: Sequence[str], changes: Mapping[str, OptionValue]) -> tuple[str, ...]:
    """The arguments for a restart with several options changed; see ``with_option``."""
    changed = tuple(args)
    for name, value in changes.items():
        changed = with_option(changed, name, value)
    return changed


def _without(args: Sequence[str], path: str) -> tuple[str, ...]:
    """The arguments without those that set ``path`` or a setting inside it."""
    kept: list[str] = []
    rest = iter(args)
    for argument in rest:
        name, equals, setting = argument.partition("=")
        if name == SET:
            pair = (argument,) if equals else (argument, next(rest, ""))
            own_path, _, word = (setting if equals else pair[-1]).partition("=")
            replaces_section = path.startswith(own_path + ".") and not isinstance(read(word), dict)
            if own_path != path and not own_path.startswith(path + ".") and not replaces_section:
                kept += pair
        elif FLAG_PATHS.get(flag_name(argument) or "") != path:
            kept.append(argument)
        elif not equals and path not in _SWITCHES:
            next(rest, None)
    return tuple(kept)


def _path(spec: OptionSpec) -> str:
    if spec.flag.startswith(SET):
        return spec.flag.removeprefix(SET + " ")
    return FLAG_PATHS[spec.flag.replace("_", "-")]


_SWITCHES = {_path(spec) for spec in OPTIONS if spec.kind is bool}


def _find(settings: Mapping[str, Any], path: str) -> tuple[Any] | None:
    """The value at ``path`` in a tuple, because the value may be None; None if it is not set."""
    found: Any = settings
    for key in path.split("."):
        if not isinstance(found, Mapping) or key not in found:
            return None
        found = found[key]
    return (found,)


def _as(value: object, kind: type) -> OptionValue:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, bool) is not (kind is bool) or not isinstance(value, int | float | str):
        return None
    return value if isinstance(value, kind) else None
