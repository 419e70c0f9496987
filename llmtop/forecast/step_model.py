"""The model of a step's duration: device time, and the time for which launches block the engine.

With asynchronous scheduling an engine launches step k+1 while step k runs. It processes the result
of step k after that launch, at

    U(k) = max(gpu_end(k), U(k-1) + hold(k+1))
    gpu_end(k) = max(gpu_end(k-1), U(k-2)) + gpu(k), and not before the end of its own launch

``hold`` is the time for which a launch blocks the engine's thread. So a part of a prefill's time is
in the step before it. Measured with vLLM 0.26 on an H200: without ``hold`` the error of steps with
prefills is 57 %, with it 9 % (docs/explanation/forecast.md). Without asynchronous scheduling
``hold`` is 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct

from llmtop.engines.core.steps import Step

GRAPH_TOKENS = 512
"""Steps with more tokens are launched kernel by kernel (vLLM's largest captured CUDA graph)."""
NEWEST_WEIGHT = 0.5
"""Weight of the newest launch in the running mean of measured over modelled launch times. Launches
are correlated: by 0.69 with the next one, by 0.34 with the tenth (vLLM 0.26 on an H200)."""
GRAPH_START = 0.6
"""Share of a decode step's launch after which its graph starts on the device. In the rest of the
launch the engine processes the results of the step before (stamps of vLLM 0.26 on an H200)."""
LAUNCH_VARIES = 1.1  # upper bound of a decode step's launch over the modelled one
AFTER_LAUNCH_S = 0.002  # device time of a prefill after the end of its launch


class StepModel(Struct, frozen=True):
    """The coefficients of the model, in seconds.

    gpu = base_s + request_s * requests + context_s * context + dense(tokens)
    dense = max(0, token_s * tokens - hidden_s)

    tokens: of prompts and answers. hidden_s: arithmetic that takes no time, because the weights are
    read meanwhile. overlapped: a step is launched while the one before runs. small_launch_s: how
    long the launch of a step with prompt tokens blocks the engine, up to GRAPH_TOKENS. Above, it is
    launch_s + launch_request_s * requests. floor_share: the same for a step without prompt tokens,
    over base_s + request_s * requests. other_host_s: the part of each launch that is not in the
    stamps for schedule, launch and update.
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
        """The device's time for a step without prompt tokens."""
        return self.gpu(requests, requests, context)

    def dense(self, tokens: float) -> float:
        """The time by which the arithmetic of tokens is longer than the read of the weights."""
        return max(0.0, self.token_s * tokens - self.hidden_s)

    def hold(self, requests: float, tokens: float, prefill_tokens: float) -> float:
        """How long the launch of a step blocks the engine; 0 without asynchronous scheduling."""
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
        """When the device ends a step.

        free: when it ended the step before. planned: when the launch began. launch_s: duration of
        the launch. The kernels of a prefill run while it is launched. A decode step is one graph,
        which starts after GRAPH_START of its launch.
        """
        if not prefill_tokens:
            return max(free, planned + GRAPH_START * launch_s) + gpu_s
        if not self.overlapped:
            return max(free, planned) + gpu_s
        return max(max(free, planned) + gpu_s, planned + launch_s + AFTER_LAUNCH_S)


class Predicted(Struct, frozen=True):
    """A measured step and its duration in the model, seconds.

    held: the launch of the next step determines its end, not the device.
    """

    step: Step
    seconds: float
    held: bool = False


def stretches(steps: Iterable[Step]) -> Iterator[list[Step]]:
    """Sequences of consecutive steps of one rank, without missing steps and idle time."""
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
    """Predict each step from the measured steps before it (one step ahead)."""
    for run in stretches(steps):
        yield from _one_ahead(model, run)


def _one_ahead(model: StepModel, run: list[Step]) -> Iterator[Predicted]:
    end = run[0].end  # when the device ends the last step
    slowness = 1.0  # measured over modelled times of recent launches, which are correlated
    for before, step, after in zip(run, run[1:], [*run[2:], None], strict=False):
        gpu = model.gpu(step.requests, tokens(step), step.context_tokens or 0)
        held = 0.0
        if after is not None:
            held = _hold(model, after, slowness)
        own = _hold(model, step, slowness)
        planned = before.end - before.duration_s if model.overlapped else before.end
        end = model.end(gpu, min(end, before.end), planned, own, step.prefill_tokens)
        result_at = max(end, before.end + held)
        late = end < before.end + held
        yield Predicted(step, max(result_at - before.end, 1e-6), late)
        # The measured end replaces the device's end, unless a launch hid it. The launch of a decode
        # step hardly varies, so a step that ends later was still on the device.
        over_s = step.end - before.end - LAUNCH_VARIES * held
        hidden = late and (after is None or after.prefill_tokens > 0 or over_s <= 0)
        end = min(end, step.end) if hidden else step.end
        measured = launched(step, model.other_host_s) if step.prefill_tokens else None
        if measured is not None and model.overlapped:
            slowness = _smoothed(slowness, measured / _hold(model, step, 1.0))
        elif late and after is not None and after.prefill_tokens and step.launch_s is None:
            slowness = _smoothed(slowness, step.duration_s / _hold(model, after, 1.0))


def _smoothed(slowness: float, ratio: float) -> float:
    """The running mean of slowness after a launch with ``ratio`` of measured over modelled time."""
    newest = min(2.0, max(0.5, ratio)) ** NEWEST_WEIGHT
    return float(newest * slowness ** (1 - NEWEST_WEIGHT))


def _hold(model: StepModel, step: Step, slowness: float) -> float:
    found = model.hold(step.requests, tokens(step), step.prefill_tokens)
    return max(found, 1e-6) * slowness if step.prefill_tokens else found


def launched(step: Step, other_s: float = 0.0) -> float | None:
    """How long the launch of a step blocked the engine's thread, from its stamps; None: unknown.

    other_s: host time that is not in the stamps.
    """
    if step.launch_s is None:
        return None
    return step.launch_s + (step.schedule_s or 0.0) + (step.update_s or 0.0) + other_s


def tokens(step: Step) -> int:
    """The tokens that a step computed."""
    return step.prefill_tokens + step.decode_tokens
