"""What trtllm-serve gets: flags on its command line, everything else in a YAML file of ours.

Flags cover little of what TensorRT-LLM can be told. The rest is written ``--set PATH=VALUE``, as
the newest trtllm-serve spells it (``--set kv_cache_config.enable_block_reuse=false``); llmtop puts
it into the file, which 1.0 reads as well. No option is set twice: versions differ in whether
the file or the flag wins.
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

# Without the first /metrics is always empty, without the second there is no /prometheus/metrics.
DEFAULTS: Mapping[str, Any] = {"enable_iter_perf_stats": True, "return_perf_metrics": True}

KV_CACHE = "kv_cache_config"
KV_FRACTION = f"{KV_CACHE}.free_gpu_memory_fraction"

# Flags and the place of the same knob in the file (serve.py, 1.0 to 1.3).
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


class Told(Struct, frozen=True):
    """flags: what goes on the command line. settings: what goes into our file.

    settings is None when the operator named a file: trtllm-serve takes one only, and theirs stays
    exactly as they wrote it.
    """

    flags: tuple[str, ...]
    settings: Mapping[str, Any] | None


def told(args: Sequence[str]) -> Told:
    """Sort the operator's arguments. UsageError when they cannot be meant."""
    if any(flag_name(argument) in OWN_FILE for argument in args):
        return Told(tuple(args), None)
    flags, paths = separate(args)
    by_flag = {
        FLAG_PATHS[name]: argument.partition("=")[0]
        for argument in flags
        if (name := flag_name(argument)) in FLAG_PATHS
    }
    for path in paths:
        if path in by_flag:
            raise UsageError(
                f"{path} is given twice: as {by_flag[path]} and as {SET} {path}",
                "leave one of them out",
            )
    if KV_FRACTION in by_flag and any(_within(path, KV_CACHE) for path in paths):
        # Up to 1.1 the file's whole section takes the place of the one made from the flag.
        flags, fraction = _take_out(flags, KV_FRACTION)
        paths = {**paths, KV_FRACTION: fraction}
    settings: dict[str, Any] = dict(DEFAULTS)
    for path, value in paths.items():
        _put(settings, path, value)
    return Told(tuple(flags), settings)


def kept_requests(args: Sequence[str]) -> int:
    """How many requests that ended the server keeps the latencies of, for one reader; 0: none.

    The operator decides: 1.0 does not know the setting, and would not start with it.
    """
    try:
        settings = told(args).settings or {}
    except UsageError:
        return 0
    kept = settings.get("perf_metrics_max_requests")
    on = settings.get("return_perf_metrics") is True
    return kept if on and isinstance(kept, int) and kept > 0 else 0


def separate(args: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """The arguments without ``--set``, and what was set, by path; of one path the last counts."""
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
    """A value as it is typed: JSON, one of YAML's words for true, false and null, or plain text."""
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        return json.loads(text, parse_constant=str)
    except (ValueError, RecursionError):
        return text


def text(settings: Mapping[str, Any]) -> str:
    """The file. JSON is YAML, so only the nesting of our own paths is written YAML's way."""
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
    # YAML refuses control characters that JSON lets through.
    return shown if shown.isprintable() else json.dumps(value)


def _within(path: str, section: str) -> bool:
    return path == section or path.startswith(section + ".")


def _take_out(flags: Sequence[str], path: str) -> tuple[list[str], Any]:
    left: list[str] = []
    value: Any = None
    rest = iter(flags)
    for argument in rest:
        if FLAG_PATHS.get(flag_name(argument) or "") == path:
            value = read(argument.partition("=")[2] if "=" in argument else next(rest, ""))
        else:
            left.append(argument)
    return left, value


def _put(settings: dict[str, Any], path: str, value: Any) -> None:
    *sections, name = path.split(".")
    where = settings
    for section in sections:
        inner = where.setdefault(section, {})
        if not isinstance(inner, dict):
            raise UsageError(
                f"{path} cannot be set: {section} is set to {_leaf(inner)[:100]}",
                "leave one of the two out",
            )
        where = inner
    if isinstance(value, dict) and isinstance(where.get(name), dict):
        where[name].update(value)
    else:
        where[name] = value
