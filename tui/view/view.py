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
    """What the screen shows, from the selected engine's state."""

    EMPTY = "empty"  # no engine at all
    STARTING = "starting"
    RUNNING = "running"  # also: unresponsive, stopping; its history is worth looking at
    ENDED = "ended"


class ReplayPosition(Struct, frozen=True):
    """The position of a replay. at, length: seconds from its beginning. places: marks and events.

    typed: a time that is being typed, or None. remark: the problem of the file. pair: it is two
    recordings.
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
    """The view at one beat. zone: None for the operator's own.

    keys: the key bindings. mouse: whether the app uses it; else the terminal selects text with it.
    caption: of a tour, or None.
    """

    store: Store
    now: float
    interval: float = 1.0
    glyphs: Glyphs = UNICODE
    readonly: bool = False
    zone: tzinfo | None = None
    gpu_hour: float | None = None  # what one GPU costs an hour
    low_bandwidth: bool = False  # painted seldom
    keys: Keymap = DEFAULT
    mouse: bool = True
    caption: Caption | None = None
    subject: str | None = None  # the engine it is about, None: the selected one
    beside: str | None = None  # another one, that is shown beside it on the same axes
    axis: ChartAxis = ChartAxis()
    replay: ReplayPosition | None = None  # it is a recording; None: it is now
    clock: Callable[[], float] = time.time  # unix seconds, which stamp the steps of engines
    elsewhere: str = ""  # the host of an engine that is seen through a Prometheus; then readonly

    @property
    def wall(self) -> float:
        """Unix seconds now: ``now`` is a clock of the screen's own, which is never stepped."""
        return self.clock()

    @property
    def engine(self) -> EngineTrack | None:
        """The engine that it is about."""
        name = self.subject or self.store.selected
        return self.store.engines.get(name) if name else None

    @property
    def other(self) -> View | None:
        """The same look at the engine beside it; None when there is none."""
        engine = self.engine
        if engine is None or self.beside not in self.store.engines:
            return None
        return replace(self, subject=self.beside, beside=engine.name)

    @property
    def load(self) -> LoadSnapshot | None:
        """The load, when it goes to the selected engine."""
        engine = self.engine
        if engine is not None and self.store.loads:
            return self.store.loads.get(engine.name)
        if engine is None or self.store.load_target not in (None, engine.name):
            return None
        return self.store.load

    @property
    def client(self) -> LoadSnapshot | None:
        """The load while its latencies are about now: it runs, or its last streams do."""
        load = self.load
        return load if load is not None and (load.running or load.in_flight) else None

    @property
    def stage(self) -> LifecycleView:
        """What the dashboard shows."""
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
        """A series of the selected engine, None when there is none."""
        engine = self.engine
        return engine.series.get(name) if engine else None

    def points(self, name: SeriesName, since: float) -> Sequence[tuple[float, float | None]]:
        """A series of the selected engine from ``since`` on; empty when there is none."""
        series = self.series(name)
        return series.since(since) if series else ()

    @property
    def sample(self) -> EngineSample | None:
        """The selected engine's newest sample; None for one that does not run: it would be old."""
        engine = self.engine
        return engine.sample if engine is not None and self.stage is LifecycleView.RUNNING else None

    def value(self, name: SeriesName) -> float | None:
        """The newest value of a series of the selected engine, None when it does not run."""
        engine = self.engine if self.stage is LifecycleView.RUNNING else None
        series = engine.series.get(name) if engine else None
        return series.last if series else None

    @property
    def kv_tokens_used(self) -> int | None:
        """Tokens in the KV cache; None while the share beside them is not known."""
        sample = self.sample
        known = sample is not None and self.value(SeriesName.KV_USAGE) is not None
        return sample.kv_tokens_used if sample is not None and known else None

    @property
    def stale_s(self) -> float | None:
        """How long the selected engine's numbers have been stale; None while they are fresh."""
        engine = self.engine
        if engine is None or engine.stale_since is None:
            return None
        return max(0.0, self.now - engine.stale_since)
