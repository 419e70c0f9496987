"""The engines of a screen or of the recorder: their sources, steps and states."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from llmtop.engines.host.safe_text import clean
from llmtop.operations.wiring import Wiring
from llmtop.tui.sources.engine import EngineSource
from llmtop.tui.sources.insight import InsightSource
from llmtop.tui.sources.load_state import EngineStates
from llmtop.tui.sources.sampling import Sampling, Source
from llmtop.tui.store.store import EngineTrack, Event, Store
from llmtop.tui.store.timeline import Timeline

if TYPE_CHECKING:
    from llmtop.engines.core.endpoint import Endpoint
    from llmtop.engines.core.records import EngineRecord
    from llmtop.operations.session import EngineSession

LIVE_TIMEOUT_S = 2.0  # for option values; the metrics are read after them
RECORDED_S = 1.9  # between two reads of exact latencies: they are half of the recorder's work


class ObservedEngines:
    """A store, and the source of each engine in it. The owner runs and closes ``sampling``.

    interval: seconds between samples. repaint: see ``EngineSource``. recorder: a track keeps only
    the newest values, exact latencies are read less often, and data that only one process may read
    is left to others. insights: reads the engines' steps; the owner adds it to the sources. known:
    the names of all engines that were added.
    """

    def __init__(
        self,
        wiring: Wiring,
        interval: float = 1.0,
        *,
        repaint: Callable[[], None] = lambda: None,
        recorder: bool = False,
    ) -> None:
        self._wiring, self._repaint, self._recorder = wiring, repaint, recorder
        self.store, self.timeline = Store(), Timeline()
        self.known: set[str] = set()
        self.sampling = Sampling([], interval, on_fault=self._fault)
        self.insights = InsightSource(self.store, self.named)
        self.states = EngineStates(self.store, self.timeline.now, self.insights.of)
        self.insights.judge = self.states.explain

    def add(self, endpoint: Endpoint) -> None:
        """Add an engine to the store, with its source."""
        wiring = self._wiring
        track = EngineTrack(
            name=endpoint.name,
            kind=endpoint.adapter.kind,
            title=endpoint.adapter.title,
            url=endpoint.url,
            owned=endpoint.owned,
            simulated=endpoint.adapter.simulated,
            version=endpoint.version,
            model=endpoint.model,
            brief=self._recorder,
        )
        source = EngineSource(
            self._session(endpoint),
            track,
            self.store,
            None if endpoint.record is None else wiring.status,
            self.timeline.now,
            wiring.supervisor.learn,
            self._repaint,
            wiring.supervisor.memory_report,
            self._reopen,
            judge=self.states.observe,
            seen=wiring.sightings.note,
        )
        self.known.add(endpoint.name)
        self.store.engines[endpoint.name] = track
        self.sampling.sources.append(source)

    def named(self, name: str | None) -> EngineSource | None:
        """The source of an engine; None if there is none of this name."""
        return next((one for one in self if one.track.name == name), None)

    def __iter__(self) -> Iterator[EngineSource]:
        """The source of each engine."""
        return (one for one in self.sampling.sources if isinstance(one, EngineSource))

    def report(self, level: str, text: str) -> None:
        """Add an event at the present time."""
        self.store.events.append(Event(self.timeline.now(), level, text))

    def _session(self, endpoint: Endpoint) -> EngineSession:
        session = self._wiring.session(endpoint, live_timeout_s=LIVE_TIMEOUT_S)
        if self._recorder:
            session.give_way()
            if session.exact is not None:
                session.exact.refresh_every(RECORDED_S)
        return session

    def _reopen(self, record: EngineRecord) -> EngineSession:
        return self._session(self._wiring.of(record))

    def _fault(self, source: Source, error: Exception) -> None:
        text = f"a fault in {type(source).__name__}: {type(error).__name__}: {error}"
        self.report("error", clean(text))
