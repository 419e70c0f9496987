"""Splits the arguments of trtllm-serve into flags and the settings of a YAML file.

TensorRT-LLM has flags for only a few of its settings. The others are written ``--set PATH=VALUE``,
which is the syntax of the newest trtllm-serve (``--set kv_cache_config.enable_block_reuse=false``).
llmtop writes them into a file, because 1.0 can read that too. No setting may be in both: whether
the file or the flag has precedence differs between versions.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from llmtop import UsageError
from llmtop.engines.tuning.argv_parser import flag_name

FILE = "trtllm-serve.yaml"
OWN_FILE = ("--extra-llm-api-options", "--config")
SET = "--set"

# Without the first, /metrics is always empty. Without the second, /prometheus/metrics is missing.
DEFAULTS: Mapping[str, Any] = {"enable_iter_perf_stats": True, "return_perf_metrics": True}

KV_CACHE = "kv_cache_config"
KV_FRACTION = f"{KV_CACHE}.free_gpu_memory_fraction"

# Flags, and the path of the same setting in the file (serve.py, 1.0 to 1.3).
FLAG_PATHS = {
    "--max-batch-size": "max_batch_size",
    "--max-num-tokens": "max_num_tokens",
    "--max-seq-len": "max_seq_len",
    "--max-beam-width": "max_beam_width",
    "--tp-size": "tensor_parallel_size",
    "--tensor-parallel-size": "tensor_parallel_size",
    "--pp-size": "pipeline_parallel_size",
    "--pipeline-parallel-size": "pipeline_parallel_size",
    "--ep-size": "moe_expert_parallel_size",
    "--gpus-per-node": "gpus_per_node",
    "--kv-cache-free-gpu-memory-fraction": KV_FRACTION,
    "--free-gpu-memory-fraction": KV_FRACTION,
    "--num-postprocess-workers": "num_postprocess_workers",
    "--trust-remote-code": "trust_remote_code",
    "--revision": "revision",
    "--tokenizer": "tokenizer",
    "--backend": "backend",
    "--enable-chunked-prefill": "enable_chunked_prefill",
}

_PATH = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_WORDS = {"true": True, "false": False, "null": None, "none": None, "~": None}


class SplitArguments(Struct, frozen=True):
    """flags: for the command line. settings: for llmtop's file.

    settings is None if the operator names a file: trtllm-serve accepts only one, and llmtop never
    changes the operator's file.
    """

    flags: tuple[str, ...]
    settings: Mapping[str, Any] | None


def split_arguments(args: Sequence[str]) -> SplitArguments:
    """Split the operator's arguments. UsageError for invalid or contradictory settings."""
    if any(flag_name(argument) in OWN_FILE for argument in args):
        return SplitArguments(tuple(args), None)
    flags, paths = split_settings(args)
    by_flag = {
        FLAG_PATHS[name]: argument.partition("=")[0]
        for argument in flags
        if (name := flag_name(argument)) in FLAG_PATHS
    }
    for path in paths:
        if path in by_flag:
            raise UsageError(
                f"{path} is given twice: as {by_flag[path]} and as {SET} {path}",
                "omit one of them",
            )
    if KV_FRACTION in by_flag and any(_within(path, KV_CACHE) for path in paths):
        # Up to 1.1, a section in the file replaces the whole section, including the flag's value.
        flags, fraction = _pop_flag(flags, KV_FRACTION)
        paths = {**paths, KV_FRACTION: fraction}
    settings: dict[str, Any] = dict(DEFAULTS)
    for path, value in paths.items():
        _set_path(settings, path, value)
    return SplitArguments(tuple(flags), settings)


def kept_requests(args: Sequence[str]) -> int:
    """The number of finished requests whose latencies the server keeps for one reader.

    0 unless the operator sets it: 1.0 does not know the setting and would not start with it.
    """
    try:
        settings = split_arguments(args).settings or {}
    except UsageError:
        return 0
    kept = settings.get("perf_metrics_max_requests")
    on = settings.get("return_perf_metrics") is True
    return kept if on and isinstance(kept, int) and kept > 0 else 0


def split_settings(args: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The arguments without ``--set``, and the settings by path; the last value of a path counts.

    UsageError if a setting is not PATH=VALUE.
    """
    flags: list[str] = []
    paths: dict[str, Any] = {}
    rest = iter(args)
    for argument in rest:
        if argument == SET:
            setting = next(rest, "")
        elif argument.startswith(SET + "="):
            setting = argument.removeprefix(SET + "=")
        else:
            flags.append(argument)
            continue
        path, equals, value = setting.partition("=")
        if not equals or not _PATH.fullmatch(path):
            raise UsageError(
                f"{SET} {setting[:200]!r} is not PATH=VALUE",
                f"write it like: {SET} {KV_CACHE}.enable_block_reuse=false",
            )
        paths.pop(path, None)
        paths[path] = read(value)
    return flags, paths


def read(text: str) -> Any:
    """Parse a typed value: JSON, one of YAML's words for true, false and null, or plain text."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return json.loads(text, parse_constant=str)
    except (ValueError, RecursionError):
        return text


def text(settings: Mapping[str, Any]) -> str:
    """The text of the file. JSON is valid YAML, so only nested sections need YAML syntax."""
    head = f"# Written by llmtop at each start of this engine. To change it: {SET} PATH=VALUE\n"
    return head + "".join(line + "\n" for line in _lines(settings, ""))


def _lines(settings: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, value in settings.items():
        if isinstance(value, dict) and value and all(_PATH.fullmatch(inner) for inner in value):
            yield f"{indent}{key}:"
            yield from _lines(value, indent + "  ")
        else:
            yield f"{indent}{key}: {_leaf(value)}"


def _leaf(value: object) -> str:
    shown = json.dumps(value, ensure_ascii=False)
    # YAML does not allow all control characters that JSON allows.
    return shown if shown.isprintable() else json.dumps(value)


def _within(path: str, section: str) -> bool:
    return path == section or path.startswith(section + ".")


def _pop_flag(flags: Sequence[str], path: str) -> tuple[list[str], Any]:
    """The flags without the one for ``path``, and its value."""
    kept: list[str] = []
    value: Any = None
    rest = iter(flags)
    for argument in rest:
        if FLAG_PATHS.get(flag_name(argument) or "") == path:
            value = read(argument.partition("=")[2] if "=" in argument else next(rest, ""))
        else:
            kept.append(argument)
    return kept, value


def _set_path(settings: dict[str, Any], path: str, value: Any) -> None:
    *sections, name = path.split(".")
    parent = settings
    for section in sections:
        inner = parent.setdefault(section, {})
        if not isinstance(inner, dict):
            raise UsageError(
                f"{path} cannot be set: {section} is set to {_leaf(inner)[:100]}",
                "omit one of the two",
            )
        parent = inner
    if isinstance(value, dict) and isinstance(parent.get(name), dict):
        parent[name].update(value)
    else:
        parent[name] = value
