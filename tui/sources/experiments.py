"""Runs one experiment at a time and refuses commands that would disturb it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from llmtop import LlmtopError
from llmtop.config.keymap import DEFAULT, Keymap
from llmtop.engines.core.records import State

if TYPE_CHECKING:
    from llmtop.tui.commands.experiment_requests import ComparisonPlan, SearchPlan
    from llmtop.tui.sources.engine import EngineSource
    from llmtop.tui.sources.experiment import Experiment, Parts


class Experiments:
    """Starts, guards and ends experiments. It is a source, so the screen closes it."""

    def __init__(self, parts: Parts) -> None:
        self.keys: Keymap = DEFAULT  # for hints that name a key
        self.parts = parts
        self._running: Experiment | None = None
        self._task: asyncio.Task[None] | None = None
        self._recalled: set[tuple[str, str]] = set()

    def start_search(self, source: EngineSource, plan: SearchPlan) -> None:
        """Begin a search. Raises LlmtopError if an experiment runs or the engine is not ready."""
        from llmtop.tui.sources.search import SearchRun  # imported late: it is slow to import

        self.begin(SearchRun(self.parts, source, plan), source)

    def start_comparison(
        self, source: EngineSource, other: EngineSource | None, plan: ComparisonPlan
    ) -> None:
        """Begin a comparison. Raises LlmtopError as ``start_search`` does."""
        from llmtop.tui.sources.comparison import ComparisonRun

        both = [source, *([other] if other is not None else [])]
        self.begin(ComparisonRun(self.parts, source, other, plan), *both)

    def begin(self, experiment: Experiment, *sources: EngineSource) -> None:
        """Begin any experiment. Raises LlmtopError if one runs or an engine is not ready."""
        self._may_start(*sources)
        self._start(experiment)

    def stop(self) -> None:
        """End the experiment soon and keep its results. Raises LlmtopError if none runs."""
        if self._running is None:
            raise LlmtopError("no search, comparison or tune is running")
        self._running.stop()

    async def recall(self, source: EngineSource) -> None:
        """Load the earlier curves of an engine's kind and model into the store, once."""
        track, store = source.track, self.parts.store
        key = track.kind, track.model or ""
        if key in self._recalled:
            return
        self._recalled.add(key)
        known = {curve.time for curve in store.curves if curve.key == key}
        found = await asyncio.to_thread(self.parts.archive.earlier, *key)
        earlier = [curve for curve in found if curve.time not in known]
        store.curves = tuple(sorted((*earlier, *store.curves), key=lambda curve: curve.time))

    def guard(self) -> None:
        """Raise LlmtopError while an experiment runs; the hint says how to stop it."""
        if self._running is not None and self._running.screen == "saturation":
            raise LlmtopError(
                "a search is running and controls the load", self._stop_hint("saturation")
            )
        if self._running is not None:
            screen = self._running.screen
            name = "tune" if screen == "tune" else "comparison"
            words = f"a {name} is running and controls load and options"
            raise LlmtopError(words, self._stop_hint(screen))

    def _stop_hint(self, screen: str) -> str:
        return f"{self.keys.label(screen)}, then {self.keys.label('experiment.stop')} stops it"

    async def sample(self) -> None:
        """Do nothing: an experiment polls its load itself."""

    async def close(self) -> None:
        """End the experiment and wait until its load has ended and its options are restored."""
        if self._running is not None:
            self._running.stop()
        if self._task is not None:
            await asyncio.wait([self._task])

    def release(self) -> None:
        """End the experiment if the event loop has ended before ``close``. Blocks."""
        if self._running is not None:
            self._running.release()
            self._running = None

    def _may_start(self, *sources: EngineSource) -> None:
        self.guard()
        for source in sources:
            status = source.track.status
            if status is not None and status.state is not State.READY:
                raise LlmtopError(f"{source.track.name} is {status.state.value}")

    def _start(self, experiment: Experiment) -> None:
        self._running = experiment
        self._task = asyncio.create_task(self._run(experiment))

    async def _run(self, experiment: Experiment) -> None:
        try:
            await experiment.run()
        except Exception as error:
            experiment.report("error", f"{type(error).__name__}: {error}")
            await asyncio.to_thread(experiment.release)
        # Not reached if cancelled: then ``release`` does the rest.
        self._running = None
