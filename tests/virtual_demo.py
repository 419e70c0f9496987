"""The demo's own engine under the demo's own load, in virtual time."""

from __future__ import annotations

import heapq
import itertools
import random

from llmtop.diagnosis.moments import Moment
from llmtop.engines.simulated.simulator import arguments
from llmtop.engines.simulated.simulator.model.blocks import BlockPool
from llmtop.engines.simulated.simulator.model.hardware import BLOCK_SIZE
from llmtop.engines.simulated.simulator.model.request import Request
from llmtop.engines.simulated.simulator.model.roofline import FRONT_END_REQUEST_S, Roofline
from llmtop.engines.simulated.simulator.model.scheduler import Scheduler
from llmtop.engines.simulated.simulator.model.speculation import affinity
from llmtop.engines.simulated.simulator.model.tokens import GeneratedText, Token
from llmtop.loadgen.workload.prompts import PATTERN
from llmtop.loadgen.workload.shape import parse
from llmtop.operations.demonstration import ENGINE, PROMPTS, SHAPE
from llmtop.values import replace
from tests.closed_loop import ClosedLoop, Lengths, Stream, quantile


class Repeating(ClosedLoop):
    """Streams whose prompts repeat themselves, as those of the demo do; none is another's."""

    def _send(self) -> None:
        self._serial += 1
        pattern: list[Token] = [self._rng.randrange(1000, 100_000) for _ in range(PATTERN)]
        length = self._rng.randint(*self.lengths.prompt)
        prompt = (pattern * (length // PATTERN + 1))[:length]
        target = self._rng.randint(*self.lengths.output)
        request = Request(
            self._serial,
            prompt,
            target,
            GeneratedText(0),
            affinity=affinity(prompt, temperature=1.0),
        )
        stream = Stream(self.now)
        self.streams.append(stream)
        self._open[self._serial] = stream
        heapq.heappush(self._arrivals, (self.now + FRONT_END_REQUEST_S, self._serial, request))


class Demo:
    """The demo from its start, second by second."""

    def __init__(self) -> None:
        config = arguments.parse(ENGINE)
        assert config.speculation is not None
        lengths = PROMPTS.prompt_tokens, PROMPTS.output_tokens
        assert all(isinstance(bounds, tuple) for bounds in lengths)
        self.scheduler = Scheduler(
            config.limits,
            BlockPool(arguments.kv_blocks(config), BLOCK_SIZE),
            random.Random(config.seed),
            config.speculation,
            asynchronous=False,
        )
        self.loop = Repeating(
            self.scheduler,
            Roofline.of(config.gpu, config.model, method=config.speculation.method),
            Lengths(*lengths),  # type: ignore[arg-type]
            random.Random(1),
        )
        self.shape = parse(SHAPE)
        self.moments: list[Moment] = []

    def run(self, until: int) -> Demo:
        for second in range(len(self.moments), until):
            before = self.scheduler.totals.preemptions
            for part in range(4):
                self.loop.hold(int(self.shape.level(second + part / 4)), 0.25)
            self.moments.append(
                Moment(
                    float(second),
                    len(self.scheduler.running),
                    self.scheduler.queued,
                    self.scheduler.limits.max_num_seqs,
                    self.scheduler.pool.used / self.scheduler.pool.total,
                    (self.scheduler.totals.preemptions - before) * 60,
                )
            )
        return self

    def change(self, **limits: int) -> None:
        self.scheduler.limits = replace(self.scheduler.limits, **limits)

    def gap_ms(self, share: float, begin: float, end: float) -> float:
        """A quantile of the gaps between two pieces of an answer."""
        return 1000 * quantile(
            [
                b - a
                for stream in self.loop.streams
                for a, b in itertools.pairwise(stream.moments)
                if begin <= b < end and b > a
            ],
            share,
        )

    def tokens_per_s(self, begin: float, end: float) -> float:
        return self.loop.measure(0, begin, end).output_tokens_per_s

    def ttft_ms(self, begin: float, end: float) -> float:
        first = [s.moments[0] - s.sent for s in self.loop.streams if s.moments]
        at = [s.moments[0] for s in self.loop.streams if s.moments]
        return 1000 * quantile(
            [wait for wait, when in zip(first, at, strict=True) if begin <= when < end], 0.95
        )
