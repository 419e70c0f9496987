"""The number of GPUs of a launch, from its arguments: parts of the model times its copies.

Names: vLLM 0.32 (engine/arg_utils.py), SGLang 0.5.23 (server_args.py, whose parser also accepts
prefixes of flags, such as ``--tp``), TensorRT-LLM 1.0 (commands/serve.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from llmtop.engines.tuning.argv_parser import has_flag, last_value, read_value

TENSOR = ("--tensor-parallel-size", "-tp", "--tp-size", "--tp")
PIPELINE = ("--pipeline-parallel-size", "-pp", "--pp-size", "--pp")
COPIES = ("--data-parallel-size", "-dp", "--dp-size", "--dp")
COPIES_HERE = ("--data-parallel-size-local", "-dpl")
NODES = ("--nnodes",)
SHARED = "--enable-dp-attention"  # SGLang's: the copies share the GPUs of the one model
_MOST = 4096


def gpus_needed(args: Sequence[str], tensor: object = None) -> int:
    """GPUs of this machine that an engine with these arguments uses, at least 1.

    tensor: parts of each layer, if given by something other than a flag.
    """
    parts = _count(args, TENSOR) or (tensor if isinstance(tensor, int) and tensor > 0 else 1)
    copies = _count(args, COPIES_HERE) or _count(args, COPIES) or 1
    whole = parts * (_count(args, PIPELINE) or 1) * (1 if has_flag(args, SHARED) else copies)
    return max(1, min(whole // (_count(args, NODES) or 1), _MOST))


def _count(args: Sequence[str], flags: tuple[str, ...]) -> int | None:
    value = read_value(last_value(args, *flags) or "", int)
    return value if isinstance(value, int) and 0 < value <= _MOST else None
