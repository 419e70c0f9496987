"""Durations of starts by program, model and flags, for the progress of the next start."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from llmtop.engines.core.records import LaunchSpec
from llmtop.engines.tuning.argv_parser import pairs

SCHEMA = 1
_KEPT = 200

# Flags with a large effect on the start-up time: parallelism, loaded parts, compilation, CUDA
# graphs, kernels. Limits such as --max-num-seqs have little effect.
_COUNTED = frozenset(
    {
        *("--tensor-parallel-size", "-tp", "--tp-size", "--tp", "--tensor-parallel"),
        *("--pipeline-parallel-size", "-pp", "--pp-size", "--pp"),
        *("--data-parallel-size", "-dp", "--dp-size", "--dp", "--enable-expert-parallel"),
        *("--ep-size", "--ep", "--expert-parallel-size", "--distributed-executor-backend"),
        *("--load-format", "--dtype", "--quantization", "-q", "--kv-cache-dtype", "--revision"),
        *("--model-loader-extra-config", "--cpu-offload-gb", "--device", "--backend", "--config"),
        *("--enforce-eager", "--no-enforce-eager", "--disable-cuda-graph", "--cuda-graph-max-bs"),
        *("--compilation-config", "-O", "-cc", "--optimization-level"),
        *(
            "--cudagraph-capture-sizes",
            "--enable-torch-compile",
            "--skip-server-warmup",
            "--attention-backend",
        ),
        *("--moe-runner-backend", "--moe-backend", "--all2all-backend", "--enable-lora"),
        *("--speculative-config", "-sc", "--speculative-algorithm"),
        *("--speculative-draft-model-path", "--speculative-num-draft-tokens"),
        *("--startup-s", "--gpu"),  # the simulated engine's
    }
)


def startup_key(spec: LaunchSpec) -> str:
    """The key of starts with similar durations: kind, program, model, flags.

    >>> startup_key(LaunchSpec("vllm", "a", "m", "h", 1, args=("--port", "2", "--enforce-eager")))
    'vllm m --enforce-eager'
    """
    flags = sorted({f"{name} {value}".strip() for name, value in pairs(spec.args)
                    if name in _COUNTED})  # fmt: skip
    program = " ".join(spec.program)
    return " ".join(part for part in (spec.kind, program, spec.model, *flags) if part)


class _File(msgspec.Struct):
    startups: dict[str, float]
    phases: dict[str, dict[str, float]] = {}
    schema: int = SCHEMA


# Created at import: the file is read on several threads, and msgspec 0.22 crashes (invalid pointer)
# when two threads are the first to use one class.
_read = msgspec.json.Decoder(_File).decode


class StartupTimes:
    """The file of start-up times in the state directory. Only estimates: never an error."""

    def __init__(self, path: Path, write: Callable[[Path, bytes], None]) -> None:
        self._path = path
        self._write = write

    def seconds(self, key: str) -> float | None:
        """How long the last start of this key (``startup_key``) took, seconds."""
        return self._load().startups.get(key)

    def phases(self, key: str) -> Mapping[str, float]:
        """How long each phase of that start took, seconds, as far as it was watched."""
        return self._load().phases.get(key, {})

    def remember(self, key: str, seconds: float, phases: Mapping[str, float] | None = None) -> None:
        """Keep a start-up time. Without ``phases`` those of an earlier start stay."""
        known = self._load()
        known.startups.pop(key, None)
        known.startups[key] = seconds
        if phases:
            known.phases[key] = dict(phases)
        kept = dict(list(known.startups.items())[-_KEPT:])
        kept_phases = {name: times for name, times in known.phases.items() if name in kept}
        with contextlib.suppress(OSError):
            self._write(self._path, msgspec.json.encode(_File(kept, kept_phases)))

    def _load(self) -> _File:
        try:
            return _read(self._path.read_bytes())
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            return _File({})
