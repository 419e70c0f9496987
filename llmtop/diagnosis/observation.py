"""The numbers of one engine from which its causes are computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct, field

from llmtop.diagnosis.moments import Moment, mean
from llmtop.diagnosis.state_rules import LoadState
from llmtop.diagnosis.steps.fit import StepFit
from llmtop.diagnosis.steps.window import StepWindow
from llmtop.engines.core.options import BATCH_LIMITS, Option
from llmtop.engines.core.requests import RequestTable
from llmtop.engines.core.samples import EngineSample, GpuSample

# Options by their names on the engines.
DRAFTS = ("num_speculative_tokens", "speculative_num_steps")
CACHES = ("gpu_memory_utilization", "mem_fraction_static", "free_gpu_memory_fraction")
EAGER = ("enforce_eager", "disable_cuda_graph")


class ClientView(Struct, frozen=True):
    """What llmtop's own load measures of the engine. Times are in seconds. None means unknown.

    in_flight: mean number of streams. alone: no other client is known to send to this engine.
    ttft_s, engine_ttft_s: TTFT at the client and in the engine, both as ``statistic``. e2e_s: mean
    or median of the end-to-end latency. bound: why the client cannot sustain this load, () if it
    can.
    """

    in_flight: float | None = None
    alone: bool = False
    ttft_s: float | None = None
    engine_ttft_s: float | None = None
    e2e_s: float | None = None
    statistic: str = "p50"
    bound: tuple[str, ...] = ()


class FrontEnd(Struct, frozen=True):
    """The time of a request outside the engine core: means in seconds, on the engine's own clock.

    arrival_s: from the arrival at the server to the scheduler. output_s: from the end of a step to
    the client's socket. e2e_s: the whole request. n: number of requests.
    """

    arrival_s: float
    output_s: float
    e2e_s: float
    n: int


class Observation(Struct, frozen=True):
    """The numbers of one engine over the last seconds. None means unknown.

    time: unix seconds. finding: its state by the rules of ``state_rules``. moments: oldest first.
    window: sums over the newest steps. fitted: the cost of the contents of steps. slowdown: the
    time of steps over that of similar steps before. sm_clock_highest: the highest SM clock seen on
    its GPUs, MHz. foreign: names of other processes on its GPUs. kv_usage: share of the KV cache in
    use, 0..1. kv_blocks: its size in blocks, all ranks together. missing: what could not be read,
    with the reasons.
    """

    time: float
    finding: LoadState
    moments: Sequence[Moment] = ()
    window: StepWindow | None = None
    fitted: StepFit | None = None
    slowdown: float | None = None
    sample: EngineSample | None = None
    options: Sequence[Option] = ()
    gpus: Sequence[GpuSample] = ()
    sm_clock_highest: float | None = None
    foreign: tuple[str, ...] = ()
    client: ClientView | None = None
    front_end: FrontEnd | None = None
    table: RequestTable | None = None
    kv_usage: float | None = None
    kv_blocks: float | None = None
    missing: Mapping[str, str] = field(default_factory=dict)

    def option(self, names: Sequence[str]) -> Option | None:
        """The engine's option with the first of these names that has a value; None without any."""
        for name in names:
            for option in self.options:
                if option.name == name and option.value is not None:
                    return option
        return None

    def number(self, names: Sequence[str]) -> float | None:
        """The value of that option if it is a number above 0, otherwise None."""
        option = self.option(names)
        value = option.value if option is not None else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value) if value > 0 else None

    @property
    def cap(self) -> float | None:
        """The batch limit of all ranks together: from the options, else from the samples."""
        option = self.option(BATCH_LIMITS)
        if option is not None and isinstance(option.total, int):
            return float(option.total)
        known = [moment.cap for moment in self.moments if moment.cap is not None]
        return known[-1] if known else None

    @property
    def running(self) -> float:
        """The mean number of requests in the batch, all ranks together."""
        if self.window is not None:
            return self.window.running
        return mean([m.running for m in self.moments[-5:]]) or 0.0

    @property
    def waiting(self) -> float:
        """The mean number of requests in the queue, all ranks together."""
        if self.window is not None:
            return self.window.waiting
        return mean([m.waiting for m in self.moments[-5:]]) or 0.0
