"""How long a step takes: the device's time, and the time for which its launch holds the engine.

With asynchronous scheduling an engine launches step k+1 while step k runs, and takes in the result
of step k after that. So the result of k comes at

    U(k) = max(gpu_end(k), U(k-1) + hold(k+1))
    gpu_end(k) = max(gpu_end(k-1), U(k-2)) + gpu(k), and not before its own launch is over

and a part of a prefill's time falls on the step before it. Measured with vLLM 0.26 on an H200:
without ``hold`` the error of steps with prefills is 57 %, with it 9 %
(docs/explanation/forecast.md). Without asynchronous scheduling ``hold`` is 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from llmtop.engines.core.steps import Step

GRAPH_TOKENS = 512
"""Above so many tokens a step is launched kernel by kernel (vLLM's largest captured graph)."""
NEWEST_WEIGHT = 0.5
"""Weight of the newest launch in the mean of launch times over those of the model. Deviations last
long: correlated by 0.69 with the next launch, 0.34 with the tenth (vLLM 0.26 on an H200)."""
GRAPH_START = 0.6
"""Of the time for which a decode step's launch holds the engine: its graph begins then. The rest is
taking in the results of the step before (stamps of vLLM 0.26 on an H200)."""
LAUNCH_VARIES = 1.1  # a decode step's launch hardly takes longer than so many times the usual
AFTER_LAUNCH_S = 0.002  # of a prefill's work is still on the device when its launch is over


class StepModel(Struct, frozen=True):
    """Seconds. gpu = base_s + request_s * requests + context_s * context + dense(tokens).

    token_s, hidden_s: all tokens of a step, of prompts and answers, add token_s each, of which
    hidden_s cost nothing: the weights are read meanwhile anyway. overlapped: a step is launched
    while the one before runs. small_hold_s, hold_s, hold_request_s: how long a launch holds the
    engine, up to and above GRAPH_TOKENS. floor_share: the same for a step without prompt tokens, as
    a share of its time on the device. other_host_s: a part of each hold that is neither schedule,
    launch nor update.
    """

    base_s: float
    request_s: float
    context_s: float
    token_s: float
    hidden_s: float
    overlapped: bool = False
    small_launch_s: float = 0.0
    launch_s: float = 0.0
    launch_request_s: float = 0.0
    floor_share: float = 0.0
    other_host_s: float = 0.0

    def gpu(self, requests: float, tokens: float, context: float) -> float:
        """The device's time for a step."""
        read_s = self.base_s + self.request_s * requests + self.context_s * context
        return read_s + self.dense(tokens)

    def decode(self, requests: float, context: float) -> float:
        """Of a step without prompt tokens."""
        return self.gpu(requests, requests, context)

    def dense(self, tokens: float) -> float:
        """What the arithmetic of tokens adds to the reading of the weights."""
        return max(0.0, self.token_s * tokens - self.hidden_s)

    def hold(self, requests: float, tokens: float, prefill_tokens: float) -> float:
        """For how long the launch of a step holds the engine."""
        if not self.overlapped:
            return 0.0
        if prefill_tokens <= 0:
            return self.floor_share * (self.base_s + self.request_s * requests)
        if tokens <= GRAPH_TOKENS:
            return self.small_launch_s
        return self.launch_s + self.launch_request_s * requests

    def end(
        self, gpu_s: float, free: float, planned: float, launch_s: float, prefill_tokens: float
    ) -> float:
        """When the device is done with a step. free: when it was done with the one before.
        planned: when its launch began. A prefill's kernels run as they are launched; a decode step
        is one graph, which begins when its launch is over."""
        if not prefill_tokens:
            return max(free, planned + GRAPH_START * launch_s) + gpu_s
        if not self.overlapped:
            return max(free, planned) + gpu_s
        return max(max(free, planned) + gpu_s, planned + launch_s + AFTER_LAUNCH_S)


class Predicted(Struct, frozen=True):
    """A step as it was and as the model has it, seconds. held: the launch of the next step decides
    when it ends, not the device."""

    step: Step
    seconds: float
    held: bool = False


def stretches(steps: Iterable[Step]) -> Iterator[list[Step]]:
    """Consecutive steps of one rank, without a pause or a gap in between."""
    by_rank: dict[int, list[Step]] = {}
    for step in steps:
        by_rank.setdefault(step.rank, []).append(step)
    for found in by_rank.values():
        run: list[Step] = []
        for step in found:
            if run and (step.seq != run[-1].seq + 1 or (step.idle_s or 0.0) > 0.0):
                yield run
                run = []
            run.append(step)
        if run:
            yield run


def predicted(model: StepModel, steps: Iterable[Step]) -> Iterator[Predicted]:
    """Each step given those before it: how well the model does one step ahead."""
    for run in stretches(steps):
        yield from _one_ahead(model, run)


def _one_ahead(model: StepModel, run: list[Step]) -> Iterator[Predicted]:
    end = run[0].end  # of the device's work
    slowness = 1.0  # of the recent launches, over the model: slow ones follow each other
    for before, step, after in zip(run, run[1:], [*run[2:], None], strict=False):
        gpu = model.gpu(step.requests, tokens(step), step.context_tokens or 0)
        held = 0.0
        if after is not None:
            held = _hold(model, after, slowness)
        own = _hold(model, step, slowness)
        planned = before.end - before.duration_s if model.overlapped else before.end
        end = model.end(gpu, min(end, before.end), planned, own, step.prefill_tokens)
        told = max(end, before.end + held)
        late = end < before.end + held
        yield Predicted(step, max(told - before.end, 1e-6), late)
        # What was seen corrects the device's clock, except where a launch hid when it was ready.
        # The launch of a decode step hardly varies: a step that ends later was on the device.
        over_s = step.end - before.end - LAUNCH_VARIES * held
        hidden = late and (after is None or after.prefill_tokens > 0 or over_s <= 0)
        end = min(end, step.end) if hidden else step.end
        seen = launched(step, model.other_host_s) if step.prefill_tokens else None
        if seen is not None and model.overlapped:
            slowness = _smoothed(slowness, seen / _hold(model, step, 1.0))
        elif late and after is not None and after.prefill_tokens and step.launch_s is None:
            slowness = _smoothed(slowness, step.duration_s / _hold(model, after, 1.0))


def _smoothed(slowness: float, ratio: float) -> float:
    """The slowness after a launch that took ``ratio`` times as long as in the model."""
    newest = min(2.0, max(0.5, ratio)) ** NEWEST_WEIGHT
    return float(newest * slowness ** (1 - NEWEST_WEIGHT))


def _hold(model: StepModel, step: Step, slowness: float) -> float:
    found = model.hold(step.requests, tokens(step), step.prefill_tokens)
    return max(found, 1e-6) * slowness if step.prefill_tokens else found


def launched(step: Step, other_s: float = 0.0) -> float | None:
    """For how long a step held the engine's thread, by its own stamps; None: not known."""
    if step.launch_s is None:
        return None
    return step.launch_s + (step.schedule_s or 0.0) + (step.update_s or 0.0) + other_s


def tokens(step: Step) -> int:
    """Tokens that a step computed."""
    return step.prefill_tokens + step.decode_tokens
