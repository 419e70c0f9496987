"""The command line: vLLM's names for what it shares with vLLM, and the simulator's own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from msgspec import Struct

from llmtop import __version__
from llmtop.engines.simulated.simulator.http import misbehaviour
from llmtop.engines.simulated.simulator.http.misbehaviour import Misbehaviour
from llmtop.engines.simulated.simulator.model import hardware, speculation
from llmtop.engines.simulated.simulator.model.hardware import GPUS, MODELS, Gpu, ModelShape
from llmtop.engines.simulated.simulator.model.scheduler import Limits
from llmtop.engines.simulated.simulator.model.speculation import Speculation

PROGRAM = "llmtop-simulator"


class Config(Struct, frozen=True):
    """The validated command line.

    limits: the launch values. max_model_len: tokens. blocks: KV blocks; None sizes the cache by the
    GPU's memory. utilization: share of that memory that the engine may use. speed: virtual seconds
    per real second. startup_s: duration of the start.
    """

    host: str
    port: int
    gpu: Gpu
    model: ModelShape
    served_name: str
    tensor_parallel: int
    data_parallel: int
    limits: Limits
    max_model_len: int
    blocks: int | None
    utilization: float
    caching: bool
    speculation: Speculation | None
    speed: float
    seed: int
    startup_s: float
    misbehaviours: dict[str, Misbehaviour]


def parse(argv: Sequence[str] | None = None) -> Config:
    """Parse the command line. Unknown flags and invalid values end the program with code 2."""
    parser = _parser()
    given = parser.parse_args(argv)
    gpu = GPUS[given.gpu]
    try:
        speculative = (
            speculation.parse(given.speculative, given.acceptance) if given.speculative else None
        )
    except ValueError as error:
        parser.error(f"argument --speculative: {error}")
    try:
        misbehaviours = misbehaviour.parse(given.misbehave)
    except ValueError as error:
        parser.error(f"argument --misbehave: {error}")
    return Config(
        host=given.host,
        port=given.port,
        gpu=gpu,
        model=MODELS[given.model],
        served_name=given.served_model_name or given.model,
        tensor_parallel=given.tensor_parallel_size,
        data_parallel=given.data_parallel_size,
        limits=Limits(
            given.max_num_seqs or gpu.max_num_seqs,
            given.max_num_batched_tokens or gpu.max_num_batched_tokens,
            speculative.tokens if speculative else 0,
            given.max_queued_requests,
        ),
        max_model_len=given.max_model_len,
        blocks=given.num_gpu_blocks_override,
        utilization=given.gpu_memory_utilization,
        caching=given.enable_prefix_caching,
        speculation=speculative,
        speed=given.speed,
        seed=given.seed,
        startup_s=given.startup_s,
        misbehaviours=misbehaviours,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="A simulated LLM engine: vLLM's interface over a virtual GPU.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--version", action="version", version=__version__)
    add("--host", default="127.0.0.1")
    add("--port", type=_whole(0, 65535), default=8000, help="0: a free port, shown in the log")
    add("--gpu", choices=sorted(GPUS), default="h200", help="the virtual GPU (%(default)s)")
    add("--model", choices=sorted(MODELS), default="llama-3.1-8b", help="its shape (%(default)s)")
    add("--served-model-name", default="", help="the name that requests must give")
    add("--tensor-parallel-size", "-tp", type=_whole(1, 64), default=1)
    add("--data-parallel-size", "-dp", type=_whole(1, 64), default=1)
    add("--max-num-seqs", type=_whole(1, 1 << 16), help="default: vLLM's for the GPU")
    add("--max-num-batched-tokens", type=_whole(1, 1 << 20), help="default: vLLM's for the GPU")
    add("--max-queued-requests", type=_whole(0, 1 << 16), default=0, help="0: no limit")
    add("--max-model-len", type=_whole(16, 131072), default=8192)
    add("--num-gpu-blocks-override", type=_whole(1, 1 << 24), help="KV blocks of 16 tokens")
    add("--gpu-memory-utilization", type=_number(0.01, 1.0), default=0.92)
    caching = argparse.BooleanOptionalAction
    add("--enable-prefix-caching", action=caching, default=True)
    add("--speculative", default="", metavar="METHOD:TOKENS", help="ngram:4 or draft:4")
    add(
        "--acceptance",
        type=_number(0.0, 1.0),
        default=0.6,
        help="highest probability that a draft token is accepted (%(default)s)",
    )
    add("--speed", type=_number(0.01, 1000.0), default=1.0, help="virtual seconds per real second")
    add("--seed", type=_whole(0, 1 << 62), default=0)
    add("--startup-s", type=_number(0.0, 3600.0), default=2.0, help="how long the start takes")
    add(
        "--misbehave",
        action="append",
        default=[],
        metavar="KIND[:SECONDS]",
        help=f"for tests; any of {', '.join(misbehaviour.KINDS)}",
    )
    return parser


def _whole(least: int, most: int) -> type[int]:
    def whole(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{value} is not within {least}..{most}")
        return value

    whole.__name__ = "int"  # argparse names the type in its message
    return whole  # type: ignore[return-value]


def _number(least: float, most: float) -> type[float]:
    def number(text: str) -> float:
        value = float(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{value:g} is not within {least:g}..{most:g}")
        return value

    number.__name__ = "float"
    return number  # type: ignore[return-value]


def kv_blocks(config: Config) -> int:
    """KV blocks of this configuration: the override, or as many as fit into the GPU's memory."""
    if config.blocks is not None:
        return config.blocks
    gib = hardware.kv_cache_gib(
        config.gpu, config.model, config.utilization, config.tensor_parallel
    )
    return hardware.kv_blocks(gib, config.model, config.tensor_parallel)
