"""Restarts an engine from the screen: its load is interrupted, or moved to the new engine."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from llmtop.analysis.marks import Mark
from llmtop.engines.core.options import Change, Outcome
from llmtop.engines.core.records import EngineRecord, State
from llmtop.engines.host.safe_text import clean
from llmtop.values import replace
from llmtop.wording.sentences import change_words, flag_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmtop.engines.supervision.restart import HandOver, Restarted, Wanted
    from llmtop.loadgen.workers.load import Load
    from llmtop.tui.dashboard.observed_engines import ObservedEngines
    from llmtop.tui.sources.engine import EngineSource
    from llmtop.tui.sources.load import LoadSource

    RestartEngine = Callable[[EngineRecord, Wanted, HandOver | None], Restarted]

CUT_S = 5.0  # time limit until cancelled requests are counted
CUT_POLL_S = 0.02
DRAIN_S = 300.0  # time limit for the old engine to finish its requests in a rolling restart
DRAIN_POLL_S = 0.5


async def wait_until_counted(load: Load) -> None:
    """Wait until the cancelled requests are counted, at most ``CUT_S`` seconds."""
    for _ in range(round(CUT_S / CUT_POLL_S)):
        if load.finished:
            break
        await asyncio.sleep(CUT_POLL_S)


class LoadHandover:
    """Restarts engines. Their load is interrupted or moved before, and resumes afterwards.

    names: the engines that are restarting. interrupted: the load that waits for one of them; None
    if there is none. restart_engine: restarts an engine; blocks; the restart is rolling if it gets
    a ``HandOver``.
    """

    def __init__(
        self,
        engines: ObservedEngines,
        load_source: LoadSource,
        restart_engine: RestartEngine,
    ) -> None:
        self.names: set[str] = set()
        self.interrupted: Load | None = None
        self._engines = engines
        self._store = engines.store
        self._sampling = engines.sampling
        self._load_source = load_source
        self._restart_engine = restart_engine
        self._now = engines.timeline.now

    async def carry_out(
        self,
        source: EngineSource,
        record: EngineRecord,
        wanted: Wanted,
        *,
        rolling: bool,
    ) -> Restarted:
        """Restart an engine that is not in ``names``; return when an engine is ready, or raise."""
        engine = source.track.name
        self.names.add(engine)
        source.expected = True
        began = self._now()
        before = {option.name: option.value for option in source.track.options}
        changed = [
            change_words(Change(name, before.get(name), value, Outcome.APPLIED))
            for name, value in wanted.changes.items()
        ]
        asked = ", ".join(filter(None, [*changed, flag_words(wanted.flags)]))
        self._engines.report("change", f"{engine} restarts{': ' if asked else ''}{asked}")
        hand_over = None
        if rolling:
            from llmtop.engines.supervision.restart import room_beside

            hand_over = self._hand_over(source)
            wanted = replace(wanted, gpus=room_beside(record, self._store.gpus) or ())
        try:
            if not rolling:
                await self._interrupt(engine)
            done = await asyncio.to_thread(self._restart_engine, record, wanted, hand_over)
            self._report_result(source, done, asked, began)
            return done
        finally:
            self.names.discard(engine)
            source.paused = False
            await self._sampling.sample(source, again=True)
            source.expected = False
            self._resume_load(source)

    async def _interrupt(self, engine: str) -> None:
        """Cancel the load's requests before their engine ends, so that none of them fails."""
        load = self._loading(engine)
        if load is None:
            return
        load.interrupt()
        self.interrupted = load
        await wait_until_counted(load)
        self._refresh_load()

    def _resume_load(self, source: EngineSource) -> None:
        if self._store.load_target != source.track.name:
            return
        load, self.interrupted = self.interrupted, None
        if load is None or self._load_source.load is not load:
            return
        status = source.track.status
        if status is not None and status.state is State.READY:
            load.go_on()
            self._engines.report("info", "the load resumes")
        else:
            self._engines.report(
                "warning", f"the load stays stopped: {source.track.name} does not run"
            )
        self._refresh_load()

    def _hand_over(self, source: EngineSource) -> HandOver:
        loop = asyncio.get_running_loop()

        def hand_over(fresh: EngineRecord) -> None:
            asyncio.run_coroutine_threadsafe(self._move(source, fresh.url), loop).result()

        return hand_over

    async def _move(self, source: EngineSource, url: str) -> None:
        """Send the load to the new engine and wait until the old one has no request."""
        name = source.track.name
        load = self._loading(name)
        if load is not None:
            load.retarget(url)
            self._engines.report("info", f"the load moves to {url}")
        deadline = time.monotonic() + DRAIN_S
        while True:
            before = source.track.sample
            # A sample that was started before the move could report an idle engine too early.
            await self._sampling.sample(source, again=True)
            sample = source.track.sample
            fresh = sample is not before and source.track.trouble == ""
            if fresh and sample is not None and sample.running == 0 and not sample.waiting:
                break
            if time.monotonic() >= deadline:
                self._engines.report(
                    "warning", f"{name} still had requests after {DRAIN_S:.0f} s: cut"
                )
                break
            await asyncio.sleep(DRAIN_POLL_S)
        source.paused = True

    def _report_result(
        self, source: EngineSource, done: Restarted, asked: str, began: float
    ) -> None:
        track, engine = source.track, source.track.name
        if done.rolled_back:
            track.marks.append(Mark(self._now(), "rolled back"))
            why = f"{done.failure}; {done.advice}" if done.advice else done.failure
            words = "keeps running unchanged" if done.down_s == 0 else "runs as before again"
            self._engines.report(
                "error", clean(f"{engine} {words}: the new configuration failed, {why}")
            )
            return
        if asked:
            track.marks.append(Mark(self._now(), asked, effect=True, since=began))
        self._engines.report(
            "info", f"{engine} restarted in {done.took_s:.0f}s, down for {done.down_s:.0f}s"
        )

    def _loading(self, engine: str) -> Load | None:
        """The load that runs on this engine; None if there is none."""
        load = self._load_source.load
        runs = load is not None and not load.finished and self._store.load_target == engine
        return load if runs else None

    def _refresh_load(self) -> None:
        self._sampling.sample(self._load_source, again=True)
