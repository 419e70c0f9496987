"""The cost of a request in step time, learned from the engine's own steps.

It shows how large a batch may become before its tokens are too late. A step with ``r`` decoding
requests takes ``base_s + request_s * r``. Each prompt token in it adds ``token_s``. A batch that is
always full gets a new request for each one that ends. So a decode step brings ``r / steps`` new
prompts, and the mean time between two tokens of a stream is linear in r:

    gap(r) = base_s + r * (request_s + token_s * prompt / steps)

Both coefficients are the same for every batch size. So the gap of another batch size is known
before the batch changes. It does not depend on whether the batch grows or shrinks now.
"""

from __future__ import annotations

import math

from msgspec import Struct

from llmtop.engines.core.steps import Step

MEMORY = 10.0  # time scales after which the weight of a step has fallen to 1 / e
# A fictitious step without requests takes part in the fit, with a weight of PRIOR steps. Its time
# is PRIOR_SHARE of the shortest decode step. It keeps the fit stable while all batches are alike.
PRIOR = 0.5
PRIOR_SHARE = 0.7
LEAST_STEPS = 5  # for known costs
LEAST_ENDED = 3.0  # ended requests for a known length of answers
USUAL_STEPS = 128.0  # assumed decode steps of a request, at least, until then


class StepCosts(Struct, frozen=True):
    """The costs in the formula of this module.

    base_s, request_s, token_s: seconds. prompt: prompt tokens that the engine computes for a
    request. steps: decode steps of a request. emitted: tokens that a stream gets in a decode step,
    more than 1 with speculative decoding.
    """

    base_s: float
    request_s: float
    token_s: float
    prompt: float
    steps: float
    emitted: float = 1.0

    @property
    def each_s(self) -> float:
        """The seconds by which one more request in the batch lengthens the mean step."""
        return max(1e-7, self.request_s + self.token_s * self.prompt / self.steps)

    def batch_of(self, gap_s: float) -> float:
        """The batch size with this mean time between two tokens of a stream, in seconds; 0 where
        every batch has a longer one."""
        return max(0.0, (gap_s * self.emitted - self.base_s) / self.each_s)

    def served_per_s(self, batch: float) -> float:
        """The requests that end per second when the batch is always full."""
        return batch / (self.steps * (self.base_s + batch * self.each_s))

    def step_s(self, running: float) -> float:
        """The seconds of a step without prompt tokens."""
        return self.base_s + self.request_s * running

    def budget_of(self, step_s: float, running: float) -> float:
        """The tokens, prompt and decode, of a step that takes ``step_s`` seconds."""
        spare = step_s - self.step_s(running)
        return running + max(0.0, spare) / max(self.token_s, 1e-9)

    def prefill_s(self, running: float, budget: float) -> float:
        """The seconds that the engine needs for one prompt while the token budget limits prefill.

        budget: tokens in a step.
        """
        room = max(1.0, budget - running)
        return self.prompt * (self.token_s + self.step_s(running) / room)


class CostMeter:
    """Learns the costs of one rank from its steps. time_scale_s: see ``limits.Goal``."""

    def __init__(self, time_scale_s: float = 1.0) -> None:
        self._memory_s = MEMORY * time_scale_s
        self._last: Step | None = None
        self._seen = 0
        self._n = self._x = self._y = self._xx = self._xy = 0.0
        self._shortest = math.inf
        self._excess = self._prompts = 0.0
        self._firsts = self._ended = self._decoded = self._tokens = 0.0

    def add(self, step: Step) -> None:
        """Add the next step of the rank."""
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
        # With asynchronous scheduling, the launch of a prefill delays the end of the step before.
        self._time(before, launched=bool(step.prefill_tokens))

    def costs(self) -> StepCosts | None:
        """The costs as known now; None while too few steps are known."""
        if self._seen < LEAST_STEPS or not self._prompts or not self._decoded:
            return None
        base, slope = self._line()
        # While a batch grows, more requests begin than end. Their mean is exact at steady growth.
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
            # SGLang computes prompts in separate steps, for which all other streams wait. The whole
            # time of such a step is a cost of its prompts.
            separate = not running and step.running > (step.prefills or 0)
            self._excess += step.duration_s - (0.0 if separate else base + slope * running)
            self._prompts += step.prefill_tokens
            return
        self._n += 1
        self._x += running
        self._y += step.duration_s
        self._xx += running * running
        self._xy += running * step.duration_s
        self._shortest = min(self._shortest, step.duration_s)

    def _line(self) -> tuple[float, float]:
        """The least-squares line: (seconds of a step without requests, seconds of each request)."""
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
    """The number of requests that got their first token in a step."""
    if step.output_tokens is None or step.draft_tokens:
        return step.prefills or 0
    return max(0, step.output_tokens - step.decode_tokens)


def decoding(step: Step) -> int:
    """The number of requests that decoded in a step, after their first token."""
    if step.prefills is None:
        return step.decode_tokens
    return max(0, step.requests - step.prefills)
