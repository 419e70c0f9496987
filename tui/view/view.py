"""The input of a panel: the store, the time, the operator's settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import tzinfo
from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec import Struct

from llmtop.analysis.series import SeriesName
from llmtop.config.keymap import DEFAULT, Keymap
from llmtop.engines.core.records import State
from llmtop.tui.view.caption import Caption
from llmtop.tui.view.chart_axis import ChartAxis
from llmtop.tui.widgets.glyphs import UNICODE, Glyphs
from llmtop.values import replace

if TYPE_CHECKING:
    from llmtop.engines.core.samples import EngineSample
    from llmtop.loadgen.core.results import LoadSnapshot
    from llmtop.tui.store.store import EngineTrack, Series, Store


class LifecycleView(StrEnum):
    """The form of the dashboard, derived from the selected engine's state."""

    EMPTY = "empty"  # no engine at all
    STARTING = "starting"
    RUNNING = "running"  # also: unresponsive, stopping; the charts stay visible
    ENDED = "ended"


class ReplayPosition(Struct, frozen=True):
    """The position of a replay. speed: a factor. at, length: seconds from its beginning.

    places: seconds of marks and events. remark: a problem of the file, "" for none. typed: the time
    that is being typed; None if none is. pair: two recordings are shown.
    """

    title: str
    playing: bool
    speed: float
    at: float
    length: float
    places: tuple[float, ...] = ()
    remark: str = ""
    typed: str | None = None
    pair: bool = False


class View(Struct, frozen=True):
    """The input of all panels at one beat.

    now: unix seconds, on the screen's clock. interval: seconds between two beats. zone: for times
    of day; None: the local time zone. keys: the key bindings. mouse: whether the app uses the
    mouse; else the terminal selects text with it. caption: of a tour; None: no tour.
    """

    store: Store
    now: float
    interval: float = 1.0
    glyphs: Glyphs = UNICODE
    readonly: bool = False
    zone: tzinfo | None = None
    gpu_hour: float | None = None  # price of one GPU hour
    low_bandwidth: bool = False  # paint less often
    keys: Keymap = DEFAULT
    mouse: bool = True
    caption: Caption | None = None
    subject: str | None = None  # the engine to show; None: the selected one
    beside: str | None = None  # a second engine, shown beside it on the same axes
    axis: ChartAxis = ChartAxis()
    replay: ReplayPosition | None = None  # of a recording; None: live data
    clock: Callable[[], float] = time.time  # unix seconds, the clock of the engines' step times
    elsewhere: str = ""  # the host of an engine whose data comes from a Prometheus; then readonly

    @property
    def wall(self) -> float:
        """Unix seconds of the wall clock; ``now`` is the screen's clock, which is never stepped."""
        return self.clock()

    @property
    def engine(self) -> EngineTrack | None:
        """The engine to show; None if there is none."""
        name = self.subject or self.store.selected
        return self.store.engines.get(name) if name else None

    @property
    def other(self) -> View | None:
        """The same view of the second engine; None if there is none."""
        engine = self.engine
        if engine is None or self.beside not in self.store.engines:
            return None
        return replace(self, subject=self.beside, beside=engine.name)

    @property
    def load(self) -> LoadSnapshot | None:
        """The load on the engine to show; None if there is none."""
        engine = self.engine
        if engine is not None and self.store.loads:
            return self.store.loads.get(engine.name)
        if engine is None or self.store.load_target not in (None, engine.name):
            return None
        return self.store.load

    @property
    def client(self) -> LoadSnapshot | None:
        """The load while its latencies are current: it runs, or its last requests do."""
        load = self.load
        return load if load is not None and (load.running or load.in_flight) else None

    @property
    def stage(self) -> LifecycleView:
        """The form of the dashboard."""
        engine = self.engine
        if engine is None:
            return LifecycleView.EMPTY
        state = engine.status.state if engine.status else State.READY
        if state is State.STARTING:
            return LifecycleView.STARTING
        if state in (State.STOPPED, State.FAILED, State.LOST):
            return LifecycleView.ENDED
        return LifecycleView.RUNNING

    def series(self, name: SeriesName) -> Series | None:
        """A series of the engine to show; None if there is none."""
        engine = self.engine
        return engine.series.get(name) if engine else None

    def points(self, name: SeriesName, since: float) -> Sequence[tuple[float, float | None]]:
        """The points of a series at or after ``since``, unix seconds; empty if there is none."""
        series = self.series(name)
        return series.since(since) if series else ()

    @property
    def sample(self) -> EngineSample | None:
        """The newest sample of the engine to show; None if it does not run, as it would be old."""
        engine = self.engine
        return engine.sample if engine is not None and self.stage is LifecycleView.RUNNING else None

    def value(self, name: SeriesName) -> float | None:
        """The newest value of a series; None if the engine to show does not run."""
        engine = self.engine if self.stage is LifecycleView.RUNNING else None
        series = engine.series.get(name) if engine else None
        return series.last if series else None

    @property
    def kv_tokens_used(self) -> int | None:
        """Tokens in the KV cache; None while the usage in per cent is not known."""
        sample = self.sample
        known = sample is not None and self.value(SeriesName.KV_USAGE) is not None
        return sample.kv_tokens_used if sample is not None and known else None

    @property
    def stale_s(self) -> float | None:
        """Seconds since the numbers of the engine to show are stale; None while they are fresh."""
        engine = self.engine
        if engine is None or engine.stale_since is None:
            return None
        return max(0.0, self.now - engine.stale_since)
