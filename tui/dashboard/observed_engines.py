"""The engines that a screen or the recorder looks at: their sources, steps and states."""

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

LIVE_TIMEOUT_S = 2.0  # of option values: numbers are read after them, and must not wait longer
RECORDED_S = 1.9  # between two looks of the recorder at exact latencies: half of its work


class ObservedEngines:
    """A store, and the source of each engine in it. ``sampling`` is beaten and closed by its owner.

    ``insights`` reads their steps once it is among the sources. ``known``: the names of all that
    were added. news: of ``EngineSource``. recorder: a track keeps what is newest only; exact
    latencies are read less often; and what only one may read is left to other llmtops.
    """

    def __init__(
        self,
        wiring: Wiring,
        interval: float = 1.0,
        *,
        news: Callable[[], None] = lambda: None,
        recorder: bool = False,
    ) -> None:
        self._wiring, self._news, self._recorder = wiring, news, recorder
        self.store, self.timeline = Store(), Timeline()
        self.known: set[str] = set()
        self.sampling = Sampling([], interval, on_fault=self._fault)
        self.insights = InsightSource(self.store, self.named)
        self.states = EngineStates(self.store, self.timeline.now, self.insights.of)
        self.insights.judge = self.states.explain

    def add(self, endpoint: Endpoint) -> None:
        """Look at one more engine."""
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
            self._news,
            wiring.supervisor.anatomy,
            self._reopen,
            judge=self.states.observe,
            seen=wiring.sightings.note,
        )
        self.known.add(endpoint.name)
        self.store.engines[endpoint.name] = track
        self.sampling.sources.append(source)

    def named(self, name: str | None) -> EngineSource | None:
        """The source of the engine of this name."""
        return next((one for one in self if one.track.name == name), None)

    def __iter__(self) -> Iterator[EngineSource]:
        """The source of each engine."""
        return (one for one in self.sampling.sources if isinstance(one, EngineSource))

    def report(self, level: str, text: str) -> None:
        """Make an event of now."""
        self.store.events.append(Event(self.timeline.now(), level, text))

    def _session(self, endpoint: Endpoint) -> EngineSession:
        found = self._wiring.session(endpoint, live_timeout_s=LIVE_TIMEOUT_S)
        if self._recorder:
            found.give_way()
            if found.exact is not None:
                found.exact.refresh_every(RECORDED_S)
        return found

    def _reopen(self, record: EngineRecord) -> EngineSession:
        return self._session(self._wiring.of(record))

    def _fault(self, source: Source, error: Exception) -> None:
        text = f"a fault in {type(source).__name__}: {type(error).__name__}: {error}"
        self.report("error", clean(text))
