"""One engine on the way into the store: its track, and the source that keeps it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from llmtop.operations.wiring import Wiring
from llmtop.tui.sources.engine import EngineSource
from llmtop.tui.store.store import EngineTrack, Store

if TYPE_CHECKING:
    from llmtop.engines.core.endpoint import Endpoint
    from llmtop.engines.core.records import EngineRecord
    from llmtop.operations.session import EngineSession

LIVE_TIMEOUT_S = 2.0  # of option values: numbers are read after them, and must not wait longer
RECORDED_S = 1.9  # between two looks of the recorder at exact latencies: half of its work


def open_source(
    wiring: Wiring,
    endpoint: Endpoint,
    store: Store,
    now: Callable[[], float],
    *,
    judge: Callable[[EngineTrack], None],
    news: Callable[[], None] = lambda: None,
    recorder: bool = False,
) -> EngineSource:
    """Put an engine into the store. The source is the caller's: it beats and closes it.

    judge, news: of ``EngineSource``. recorder: the track keeps what is newest only; exact latencies
    are read less often; and what only one may read is left to other llmtops.
    """

    def session(of: Endpoint) -> EngineSession:
        found = wiring.session(of, live_timeout_s=LIVE_TIMEOUT_S)
        if recorder:
            found.give_way()
            if found.exact is not None:
                found.exact.refresh_every(RECORDED_S)
        return found

    def reopen(record: EngineRecord) -> EngineSession:
        return session(wiring.of(record))

    own = endpoint.record is not None
    track = EngineTrack(
        name=endpoint.name,
        kind=endpoint.adapter.kind,
        title=endpoint.adapter.title,
        url=endpoint.url,
        owned=endpoint.owned,
        simulated=endpoint.adapter.simulated,
        version=endpoint.version,
        model=endpoint.model,
        brief=recorder,
    )
    store.engines[endpoint.name] = track
    return EngineSource(
        session(endpoint),
        track,
        store,
        wiring.status if own else None,
        now,
        wiring.supervisor.learn,
        news,
        wiring.supervisor.anatomy,
        reopen,
        judge=judge,
        seen=wiring.sightings.note,
    )
