"""Steps of the simulated scheduler in virtual time, with faults to inject."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable

from msgspec import Struct

from llmtop.engines.core.requests import RequestRow, RequestTable
from llmtop.engines.core.steps import Step
from llmtop.engines.simulated.simulator.model.blocks import BlockPool
from llmtop.engines.simulated.simulator.model.hardware import BLOCK_SIZE, GPUS, MODELS
from llmtop.engines.simulated.simulator.model.request import Request, Stage
from llmtop.engines.simulated.simulator.model.roofline import Roofline
from llmtop.engines.simulated.simulator.model.scheduler import Limits, Plan, Scheduler
from llmtop.engines.simulated.simulator.model.speculation import Speculation
from tests.closed_loop import ClosedLoop, Lengths


class Faults(Struct):
    """What is wrong on purpose. gap_s: host time in each step. slow: times the GPU's own time."""

    gap_s: float = 0.0
    slow: float = 1.0


class VirtualEngine(ClosedLoop):
    """The scheduler under a closed or an open loop; ``steps`` is what its ring would hold."""

    def __init__(
        self,
        *,
        seqs: int = 512,
        budget: int = 8192,
        blocks: int = 57_000,
        lengths: Lengths | None = None,
        speculation: Speculation | None = None,
        faults: Faults | None = None,
        seed: int = 1,
    ) -> None:
        drafts = speculation.tokens if speculation is not None else 0
        scheduler = Scheduler(
            Limits(seqs, budget, drafts),
            BlockPool(blocks, BLOCK_SIZE, caching=False),
            random.Random(seed),
            speculation,
        )
        roofline = Roofline.of(GPUS["h200"], MODELS["llama-3.1-8b"])
        super().__init__(scheduler, roofline, lengths or Lengths(), random.Random(seed))
        self.faults = faults or Faults()
        self.steps: list[Step] = []
        self.ended = 0
        self.idle_s = 0.0
        self.arrived: dict[int, float] = {}

    def poisson(
        self, rate: float, seconds: float, burst: Callable[[float], float] = lambda now: 1.0
    ) -> None:
        """Requests at random moments, ``rate`` a second."""
        until, due = self.now + seconds, self.now
        while self.now < until:
            while due <= self.now:
                self._send()
                due += self._rng.expovariate(rate * burst(due))
            while self._arrivals and self._arrivals[0][0] <= self.now:
                self.scheduler.add(heapq.heappop(self._arrivals)[2])
            plan = self.scheduler.schedule()
            if plan is None:
                wake = min([due, *(at for at, _, _ in self._arrivals[:1])])
                self.idle_s += max(0.0, wake - self.now)
                self.now = max(self.now, wake)
                continue
            self._run(plan)

    def send_one(self, prompt_tokens: int, output_tokens: int, serial: int | None = None) -> None:
        """One request of this length, at once."""
        lengths, self.lengths = self.lengths, Lengths((prompt_tokens,) * 2, (output_tokens,) * 2)
        self._send()
        self.lengths = lengths

    def _run(self, plan: Plan) -> None:
        scheduler, totals = self.scheduler, self.scheduler.totals
        prefills = prompt = decode = 0
        for request, tokens, _ in plan.work:
            if request.generated and request.total - request.computed == 1:
                decode += tokens
            else:
                prefills += 1
                prompt += tokens
        drafted, accepted = totals.draft_tokens, totals.accepted_tokens
        seconds = self.faults.slow * self.roofline.seconds(plan.load) + self.faults.gap_s
        self.now += seconds
        emitted = 0
        for emission in scheduler.complete(plan):
            request = emission.request
            emitted += emission.tokens
            if request.generated >= request.target:
                self._open.pop(request.serial, None)
                self.ended += 1
        self.steps.append(
            Step(
                seq=len(self.steps) + 1, end=self.now, duration_s=seconds, requests=len(plan.work),
                prefills=prefills, prefill_tokens=prompt, decode_tokens=decode,
                output_tokens=emitted, draft_tokens=totals.draft_tokens - drafted,
                accepted_tokens=totals.accepted_tokens - accepted,
                running=len(scheduler.running), waiting=scheduler.queued,
                kv_free_blocks=scheduler.pool.free, preempted=len(plan.preempted),
                context_tokens=plan.load.context, schedule_s=0.0002, update_s=0.0002,
                launch_s=None, host_gap_s=self.faults.gap_s, idle_s=self.idle_s,
                cached_tokens=0, refused=0,
            )
        )  # fmt: skip
        self.idle_s = 0.0

    @property
    def kv_usage(self) -> float:
        """The share of the KV cache in use."""
        return self.scheduler.pool.used / self.scheduler.pool.total

    def table(self, limit: int = 50) -> RequestTable:
        """The requests that hold most of the cache, as the engine would list them."""
        scheduler = self.scheduler
        requests = [*scheduler.running, *scheduler.waiting]
        requests.sort(key=lambda request: len(request.blocks), reverse=True)
        rows = tuple(self._row(request) for request in requests[:limit])
        return RequestTable(self.now, len(scheduler.running), scheduler.queued, rows)

    def _row(self, request: Request) -> RequestRow:
        state = "running" if request.stage is Stage.RUNNING else "waiting"
        return RequestRow(
            id=f"req-{request.serial}", rank=0, state=state,  # type: ignore[arg-type]
            phase="decode" if request.generated else "prefill", age_s=1.0, waited_s=0.5,
            ttft_s=None, prompt_tokens=len(request.prompt), cached_tokens=request.hits,
            generated_tokens=request.generated, max_tokens=request.target,
            kv_blocks=len(request.blocks), preemptions=request.preemptions, priority=0,
        )  # fmt: skip
