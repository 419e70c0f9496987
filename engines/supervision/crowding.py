"""Checks whether the GPUs of a launch are free, and which processes hold their memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from llmtop.engines.core.adapter import Adapter
from llmtop.engines.core.records import LaunchSpec
from llmtop.engines.gpu.memory_guard import GpuMemory, chosen_gpus
from llmtop.engines.tuning.parallelism import gpus_needed


def crowding_before(
    memory: GpuMemory,
    adapter: Adapter,
    spec: LaunchSpec,
    environ: Mapping[str, str],
    members: Callable[[], Mapping[int, str]],
) -> tuple[str, ...]:
    """A sentence for each GPU of a launch whose memory is not free, with the processes.

    members: names of llmtop's living engines by pid.
    """
    # Only its flags: the complete command needs facts that only a launch has.
    launch = adapter.launch_options(spec.args)
    share = launch.get("gpu_memory_utilization")
    tensor = launch.get("tensor_parallel_size") or launch.get("tp_size")
    wanted = chosen_gpus(spec, gpus_needed(spec.args, tensor), environ)
    return memory.crowding(wanted, members, share if isinstance(share, float) else None)
