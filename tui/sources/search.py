"""Runs a search for an engine's capacity in the background, level by level."""

from __future__ import annotations

import asyncio

from llmtop.analysis.marks import Mark
from llmtop.loadgen.experiments.level import Energy, LevelResult, LoadClock
from llmtop.loadgen.experiments.saturation import Saturation, SaturationResult
from llmtop.operations.curves import Curve
from llmtop.tui.commands.experiment_requests import SearchPlan, SearchState
from llmtop.tui.sources.engine import EngineSource
from llmtop.tui.sources.experiment import BEAT_S, Experiment, Parts
from llmtop.values import replace
from llmtop.wording.findings import saturation_sentence
from llmtop.wording.sentences import lengths

MAX_OPTIONS = 12  # changed options that a curve records
CURVES = 32  # kept while the screen is open


class SearchRun(Experiment):
    """Runs one search and updates ``Store.search``."""

    screen = "saturation"

    def __init__(self, parts: Parts, source: EngineSource, plan: SearchPlan) -> None:
        super().__init__(parts)
        self._source, self._plan = source, plan
        self._clock = LoadClock()
        self._saturation = self._new(None)
        track = source.track
        changed = [(o.name, o.value) for o in track.options if o.value != o.launch]
        self._state = SearchState(
            plan,
            parts.now(),
            Curve(
                parts.now(),
                track.kind,
                track.model or "",
                slo=str(plan.slo or ""),
                prompt=lengths(plan.prompts.prompt_tokens),
                output=lengths(plan.prompts.output_tokens),
                options=tuple(changed[:MAX_OPTIONS]),
            ),
            self._saturation.result(),
        )
        self._publish(self._state)

    async def measure(self) -> None:
        """Measure level by level until the search is complete."""
        parts, plan, source = self.parts, self._plan, self._source
        energy = await asyncio.to_thread(parts.energy, source)
        try:
            self._saturation = saturation = self._new(energy)
            load = await self.begin_load(
                source,
                plan.prompts,
                clock=self._clock,
                window_s=plan.seconds,
                on_record=saturation.take,
            )
            self.show_load(load, source)
            source.track.marks.append(Mark(parts.now(), "search"))
            saturation.begin(load)
            while not self.stopping:
                self.check(load, source)
                fact = saturation.poll()
                state = replace(self._state, progress=saturation.progress)
                if isinstance(fact, LevelResult):
                    curve = state.curve.with_level(fact)
                    state = replace(state, curve=curve, result=saturation.result())
                self._publish(state)
                if isinstance(fact, LevelResult):
                    parts.repaint()
                if isinstance(fact, SaturationResult):
                    break
                await parts.sleep(BEAT_S)
        finally:
            if energy is not None:
                await asyncio.to_thread(energy.close)

    async def report_result(self, trouble: str) -> None:
        """Publish the result, its summary as an event, and archive the curve."""
        parts, name = self.parts, self._plan.engine
        result = self._saturation.result()
        if not trouble and result.levels and not any(level.ok for level in result.levels):
            trouble = "no request succeeded at any level"
        state = replace(self._state, result=result, progress=None, over=True, trouble=trouble)
        if trouble:
            self.report("error", f"the search on {name} ended early: {trouble}")
        elif not result.complete and not result.client_limited:
            self.report("info", f"the search on {name} was stopped; {saturation_sentence(result)}")
        else:
            self.report("info", f"{name}: {saturation_sentence(result)}")
        try:
            if result.knee is not None and any(level.ok for level in result.levels):
                self._source.track.marks.append(Mark(parts.now(), f"knee {result.knee.level}"))
                await self._archive(state.curve)
        finally:
            self._publish(state)  # last: after this another experiment may begin

    async def _archive(self, curve: Curve) -> None:
        store = self.parts.store
        store.curves = (*store.curves, curve)[-CURVES:]
        try:
            await asyncio.to_thread(self.parts.archive.keep, curve)
        except OSError as error:
            why = error.strerror or str(error)
            self.report("warning", f"the curve is not kept for later sessions: {why}")

    def _new(self, energy: Energy | None) -> Saturation:
        plan = self._plan
        return Saturation(
            plan.slo,
            self._clock.seconds,
            top=plan.top,
            seconds=plan.seconds,
            energy=energy or (lambda: None),
            seed=self.parts.seed(),
            keep_records=False,
        )

    def _publish(self, state: SearchState) -> None:
        self._state = self.parts.store.search = state
