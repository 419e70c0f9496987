"""What a request costs an engine, from its own steps: how far a batch may grow before its tokens
come too late.

A step with ``r`` requests that decode takes ``base_s + request_s * r``, and each prompt token in it
adds ``token_s``. A batch that is always full gets a new request for each that ends. So one decode
step brings ``r / steps`` new prompts, and the mean time between two tokens of a stream is

    gap(r) = base_s + r * (request_s + token_s * prompt / steps)

a straight line in r. Its two numbers hold for any batch, so they are known before the batch
changes, and they do not depend on whether the batch grows or shrinks at the moment.
"""

from __future__ import annotations

import math

from msgspec import Struct

from llmtop.engines.core.steps import Step

MEMORY = 10.0  # time scales, after which a step counts for a third
PRIOR = 0.5  # the weight of an assumed step without requests, in steps
PRIOR_SHARE = 0.7  # of the shortest decode step: what it would take without requests
LEAST_STEPS = 5  # before costs are known
LEAST_ENDED = 3.0  # requests, before the length of answers is known
USUAL_STEPS = 128.0  # of a request, until then


class StepCosts(Struct, frozen=True):
    """Seconds; see the module. prompt: prompt tokens that a request makes the engine compute.
    steps: decode steps of a request. emitted: tokens that a stream gets in one of them, more than
    one with speculation."""

    base_s: float
    request_s: float
    token_s: float
    prompt: float
    steps: float
    emitted: float = 1.0

    @property
    def each_s(self) -> float:
        """By how much one more request in the batch lengthens the mean step."""
        return max(1e-7, self.request_s + self.token_s * self.prompt / self.steps)

    def batch_of(self, gap_s: float) -> float:
        """The batch with this mean time between two tokens of a stream; 0: none is so quick."""
        return max(0.0, (gap_s * self.emitted - self.base_s) / self.each_s)

    def served_per_s(self, batch: float) -> float:
        """Requests that end in a second when the batch is always full."""
        return batch / (self.steps * (self.base_s + batch * self.each_s))

    def step_s(self, running: float) -> float:
        """A step without prompts."""
        return self.base_s + self.request_s * running

    def budget_of(self, step_s: float, running: float) -> float:
        """Tokens of a step that takes so long."""
        spare = step_s - self.step_s(running)
        return running + max(0.0, spare) / max(self.token_s, 1e-9)

    def prefill_s(self, running: float, budget: float) -> float:
        """How long the engine is busy with one prompt, when prompts wait for the token budget."""
        room = max(1.0, budget - running)
        return self.prompt * (self.token_s + self.step_s(running) / room)


class CostMeter:
    """Learns the costs of one rank. time_scale_s: see ``controller.Goal``."""

    def __init__(self, time_scale_s: float = 1.0) -> None:
        self._memory_s = MEMORY * time_scale_s
        self._last: Step | None = None
        self._seen = 0
        self._n = self._x = self._y = self._xx = self._xy = 0.0
        self._shortest = math.inf
        self._excess = self._prompts = 0.0
        self._firsts = self._ended = self._decoded = self._tokens = 0.0

    def add(self, step: Step) -> None:
        """The next step of the rank."""
        before, self._last = self._last, step
        if before is None:
            return
        self._forget(step.duration_s)
        self._seen += 1
        firsts = first_tokens(step)
        self._firsts += firsts
        self._ended += before.running + firsts - (step.preempted or 0) - step.running
        self._decoded += decoding(step)
        if step.output_tokens is not None:
            self._tokens += max(0, step.output_tokens - firsts)
        # Under asynchronous scheduling the launch of a prefill delays the end of the step before.
        self._time(before, launched=bool(step.prefill_tokens))

    def costs(self) -> StepCosts | None:
        """What is known; None: too little."""
        if self._seen < LEAST_STEPS or not self._prompts or not self._decoded:
            return None
        base, slope = self._line()
        # While a batch grows, more requests begin than end; for a steady growth the mean is exact.
        steps = self._decoded / max(0.5 * (self._firsts + self._ended), 0.5)
        if self._ended < LEAST_ENDED:
            steps = max(steps, USUAL_STEPS)
        return StepCosts(
            base_s=base,
            request_s=slope,
            token_s=max(0.0, self._excess / self._prompts) if self._prompts else 0.0,
            prompt=self._prompts / max(self._firsts, 0.5),
            steps=max(1.0, steps),
            emitted=max(1.0, self._tokens / self._decoded),
        )

    def _time(self, step: Step, *, launched: bool) -> None:
        running = float(decoding(step))
        if step.prefill_tokens or launched:
            base, slope = self._line()
            # SGLang computes prompts in steps of their own: other streams wait for all of it.
            alone = not running and step.running > (step.prefills or 0)
            self._excess += step.duration_s - (0.0 if alone else base + slope * running)
            self._prompts += step.prefill_tokens
            return
        self._n += 1
        self._x += running
        self._y += step.duration_s
        self._xx += running * running
        self._xy += running * step.duration_s
        self._shortest = min(self._shortest, step.duration_s)

    def _line(self) -> tuple[float, float]:
        """(seconds of a step without requests, seconds that each adds)."""
        if not self._n:
            return (PRIOR_SHARE * self._shortest if self._shortest < math.inf else 0.0), 0.0
        assumed = PRIOR_SHARE * self._shortest
        n, y = self._n + PRIOR, self._y + PRIOR * assumed
        spread = n * self._xx - self._x**2
        slope = (n * self._xy - self._x * y) / spread if spread > 0 else 0.0
        slope = max(0.0, slope)
        base = (y - slope * self._x) / n
        if base <= 0.0:
            return 0.0, self._xy / self._xx if self._xx else 0.0
        return base, slope

    def _forget(self, seconds: float) -> None:
        share = math.exp(-seconds / self._memory_s)
        for name in ("_n", "_x", "_y", "_xx", "_xy", "_excess", "_prompts"):
            setattr(self, name, getattr(self, name) * share)
        self._firsts *= share
        self._ended *= share
        self._decoded *= share
        self._tokens *= share


def first_tokens(step: Step) -> int:
    """Requests that got their first token in a step."""
    if step.output_tokens is None or step.draft_tokens:
        return step.prefills or 0
    return max(0, step.output_tokens - step.decode_tokens)


def decoding(step: Step) -> int:
    """Requests of a step that got a further token."""
    if step.prefills is None:
        return step.decode_tokens
    return max(0, step.requests - step.prefills)
