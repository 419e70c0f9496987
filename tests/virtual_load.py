"""A load in virtual time: the simulated engine's bare scheduler behind the face of a ``Load``."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from llmtop.engines.simulated.simulator.model.blocks import BlockPool
from llmtop.engines.simulated.simulator.model.hardware import BLOCK_SIZE, GPUS, MODELS
from llmtop.engines.simulated.simulator.model.roofline import Roofline, StepLoad
from llmtop.engines.simulated.simulator.model.scheduler import Limits, Scheduler
from llmtop.loadgen.core.results import (
    ClientHealth,
    Fate,
    LatencySummary,
    LoadSnapshot,
    RequestRecord,
)
from llmtop.loadgen.workload.plan import Plan
from llmtop.loadgen.workload.shape import parse
from llmtop.values import replace
from tests.closed_loop import ClosedLoop, Lengths, Stream

NOTHING = LatencySummary(None, None, None, 0)
LENGTHS = Lengths((16, 32), (24, 40))


class Shaking:
    """How far off each step is: a clock that wanders (AR(1)) and noise, both as shares of a step.

    pace: how slow this engine is at the moment, 1.0 as the roofline says.
    """

    def __init__(self, rng: random.Random, wander: float, noise: float) -> None:
        self._rng, self._wander, self._noise, self._drift = rng, wander, noise, 0.0
        self.pace = 1.0

    def factor(self) -> float:
        memory = 0.999  # the drift forgets itself in about a thousand steps
        step = self._wander * (1 - memory**2) ** 0.5 * self._rng.gauss(0, 1)
        self._drift = memory * self._drift + step
        return self.pace * math.exp(self._drift + self._noise * self._rng.gauss(0, 1))


class Unsteady(Roofline, frozen=True):
    """A GPU that is not always equally fast."""

    shaking: Shaking | None = None

    def seconds(self, load: StepLoad) -> float:
        factor = 1.0 if self.shaking is None else self.shaking.factor()
        return super().seconds(load) * factor


class VirtualLoad:
    """Streams against the scheduler. ``pass_time`` lets it run; records go to on_record."""

    def __init__(
        self,
        seed: int,
        max_num_seqs: int = 48,
        *,
        verdict: Callable[[int], str] = lambda level: "valid",
        lengths: Lengths = LENGTHS,
        blocks: int = 4000,
        wander: float = 0.0,
        noise: float = 0.0,
    ) -> None:
        self.scheduler = Scheduler(
            Limits(max_num_seqs, 2048), BlockPool(blocks, BLOCK_SIZE), random.Random(seed)
        )
        self.shaking = Shaking(random.Random(seed + 2), wander, noise)
        roofline = replace(Unsteady.of(GPUS["h200"], MODELS["llama-3.1-8b"]), shaking=self.shaking)
        self.loop = ClosedLoop(self.scheduler, roofline, lengths, random.Random(seed + 1))
        self.on_record: Callable[[RequestRecord], None] = lambda record: None
        self.level = 0
        self.levels: list[int] = []
        self._verdict = verdict
        self._ended: set[int] = set()
        self._running: list[Stream] = []
        self._ended_tokens = 0
        self._seen = 0

    def now(self) -> float:
        return self.loop.now

    def start(self, plan: Plan) -> None:
        self.level = int(parse(plan.shape).level(0.0))
        self.levels.append(self.level)

    def stop(self, drain: bool = True) -> None:
        self.level = 0

    def pass_time(self, seconds: float = 0.1) -> None:
        if self.level or self.loop._open:
            self.loop.hold(self.level, seconds)
            while len(self.loop._open) < self.level:  # at once, not with the next step
                self.loop._send()
        else:
            self.loop.now += seconds
        self._running += self.loop.streams[self._seen :]
        self._seen = len(self.loop.streams)
        in_flight = set(map(id, self.loop._open.values()))
        ended = [stream for stream in self._running if id(stream) not in in_flight]
        self._running = [stream for stream in self._running if id(stream) in in_flight]
        for stream in ended:
            moments = stream.moments
            self._ended_tokens += len(moments)
            self.on_record(
                RequestRecord(
                    stream.sent, stream.sent, moments[0], moments[0], moments[-1],
                    24, len(moments), False, Fate.OK, ended=moments[-1],
                )
            )  # fmt: skip

    @property
    def requests(self) -> int:
        return len(self.loop.streams)

    def snapshot(self) -> LoadSnapshot:
        tokens = self._ended_tokens + sum(len(stream.moments) for stream in self._running)
        return LoadSnapshot(
            time=self.now(), loop="closed", shape="", running=True, held=False,
            asked=float(self.level), in_flight=len(self._running), waiting_first=0,
            sent=self._seen, ok=self._seen - len(self._running), failed=0, cut=0, window_s=1.0,
            requests_per_s=None, output_tokens_per_s=None, oldest_wait_s=None,
            ttft=NOTHING, tpot=NOTHING, itl=NOTHING, e2e=NOTHING,
            health=ClientHealth(self._verdict(self.level), "kernel"), output_tokens=tokens,
            oldest_s=self.now() - min((one.sent for one in self._running), default=self.now()),
        )  # fmt: skip
