"""An engine whose step times are known exactly, and the steps that it would report."""

from __future__ import annotations

import random

from llmtop.engines.core.steps import Step
from llmtop.forecast.load import FrontEnd, Lengths, Load, Present, Settings, steady_state
from llmtop.forecast.scheduler import Plan
from llmtop.forecast.step_model import StepModel
from llmtop.forecast.twin import Engine, Noise, Twin

PROMPT, OUTPUT = Lengths.span(448, 576), Lengths.span(112, 144)
SETTINGS = Settings(1024, 8192, 0, 900_000)
TRUE = StepModel(5e-3, 2e-5, 3e-8, 2.3e-5, 3.7e-3)
OVERLAPPED = StepModel(5e-3, 2e-5, 3e-8, 2.3e-5, 3.7e-3, True, 0.011, 0.023, 5e-5, 0.8)
FRONT_END = FrontEnd(0.0, 0.0, 6e-3)
NOISE = Noise(decode=(0.97, 1.0, 1.0, 1.03), prefill=(0.95, 1.0, 1.05))


def chat(level: float, loop: str = "closed") -> Load:
    return Load("closed" if loop == "closed" else "open", level, PROMPT, OUTPUT)


class Reported:
    """Collects the steps of a twin as an engine reports them. model: whose launches are stamped."""

    def __init__(self, twin: Twin, model: StepModel | None = None) -> None:
        self._model = model
        self.steps: list[Step] = []
        self._twin, self._refused, self._last = twin, 0, 0.0
        twin.on_step = self._take

    def _take(self, at: float, plan: Plan) -> None:
        scheduler, refused = self._twin.scheduler, self._twin.refused
        took = max(at - self._last, 1e-6)
        step = Step(
            seq=len(self.steps) + 1,
            end=at,
            duration_s=took,
            requests=plan.requests,
            prefills=plan.requests - plan.decoding,
            prefill_tokens=plan.prefill_tokens,
            decode_tokens=plan.decoding,
            output_tokens=plan.decoding + len(plan.firsts),
            draft_tokens=0,
            accepted_tokens=0,
            running=scheduler.running,
            waiting=len(scheduler.waiting),
            kv_free_blocks=None,
            preempted=0,
            context_tokens=plan.context,
            schedule_s=None,
            update_s=None,
            launch_s=self._launch(plan),
            host_gap_s=0.0 if self._model is not None else None,
            idle_s=0.0,
            cached_tokens=0,
            refused=refused - self._refused,
        )
        self._refused, self._last = refused, at
        self.steps.append(step)

    def _launch(self, plan: Plan) -> float | None:
        if self._model is None:
            return None
        return self._model.hold(plan.requests, plan.tokens, plan.prefill_tokens)


def steps_of(
    model: StepModel,
    load: Load,
    seconds: float = 15.0,
    seed: int = 1,
    settings: Settings = SETTINGS,
    *,
    stamped: bool = False,
) -> list[Step]:
    engine = Engine(model, FRONT_END, NOISE)
    present = (
        steady_state(load, settings, random.Random(seed)) if load.loop == "closed" else Present()
    )
    twin = Twin(engine, settings, present, load, seed)
    found = Reported(twin, model if stamped else None)
    twin.advance(seconds)
    return found.steps[1:]
