"""The recorder's life: one of a user, for as long as an engine lives."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import time
from collections.abc import Callable

from llmtop import LlmtopError
from llmtop.engines.core.records import EngineRecord
from llmtop.engines.host.processes import identity
from llmtop.engines.state.attached_engines import AttachedEngines
from llmtop.history.database import DamagedHistory, set_aside
from llmtop.history.history_writer import HistoryWriter
from llmtop.operations.monitoring import recorder_export
from llmtop.operations.recorder_process import MODULE, take_lock
from llmtop.operations.wiring import Wiring
from llmtop.recorder.attached_sources import AttachedSources
from llmtop.recorder.history_source import HistorySource
from llmtop.recorder.recorded_engines import RecordedEngines

ALONE_S = 10.0  # without a living engine: a restart takes less
LOCK_WAIT_S = 1.0
LOOK_S = 3.0  # at the records, for engines that have ended
SETTLED_S = 20.0
GARBAGE = 10_000  # objects more before the collector looks: one answer has thousands


def main() -> int:
    """Record until no engine lives; the exit code. What goes wrong is one line on stderr."""
    os.umask(0o077)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    wiring = Wiring()
    try:
        wiring.state.refuse_strangers()
        folder = wiring.history
        lock = take_lock(folder, LOCK_WAIT_S)
        if lock is None:
            return 0  # another one records
        try:
            writer = HistoryWriter(folder)
        except DamagedHistory:
            set_aside(folder)
            writer = HistoryWriter(folder)
        try:
            asyncio.run(record(wiring, writer))
        except DamagedHistory:
            writer.close()
            set_aside(folder)  # or the next recorder would end in the same way
            raise
        finally:
            writer.close()
            os.close(lock)
    except LlmtopError as error:
        return _fail(error.message)
    except OSError as error:
        return _fail(f"no history is kept: {(error.strerror or str(error)).lower()}")
    return 0


async def record(
    wiring: Wiring, writer: HistoryWriter, steady: Callable[[], float] = time.monotonic
) -> None:
    """Write what the engines do, until none has lived for ``ALONE_S`` seconds."""
    export = recorder_export.wanted(wiring.state.root)
    runtime = RecordedEngines(wiring)
    attached = AttachedSources(runtime, wiring, AttachedEngines(wiring.state.root))
    if export is not None:
        runtime.serve(export)
    source = HistorySource(runtime.store, writer, runtime.timeline.now)
    runtime.sampling.sources.append(source)
    beats = asyncio.create_task(runtime.sampling.run())
    asyncio.get_running_loop().call_later(SETTLED_S, _settle)
    alone_since = steady()
    try:
        while not beats.done():
            await asyncio.sleep(LOOK_S)
            if source.trouble is not None:
                raise source.trouble
            living = await asyncio.to_thread(living_engines, wiring)
            urls = await attached.refresh()
            if living or urls:
                alone_since = steady()
                runtime.drop_ended({one.name for one in living})
                if recorder_export.wanted(wiring.state.root) != export:
                    again()
            elif steady() - alone_since > ALONE_S:
                return
    finally:
        beats.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beats
        await runtime.sampling.close()
        await wiring.fetch.close()


def living_engines(wiring: Wiring) -> list[EngineRecord]:
    """The engines of llmtop whose process is there."""
    return [
        one
        for one in wiring.state.scan()[0]
        if one.ended_at is None and (one.pid == 0 or wiring.processes.alive(identity(one)))
    ]


def again() -> None:
    """Become another recorder. The lock goes with this image and is taken again."""
    os.execv(sys.executable, [sys.executable, "-X", "no_debug_ranges", "-m", MODULE])


def _settle() -> None:
    """What was imported stays: the collector need not look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE, 20, 20)
    import ctypes

    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)  # what the imports left goes back to the system


def _fail(message: str) -> int:
    with contextlib.suppress(OSError):
        print(message[:500], file=sys.stderr, flush=True)
    return 1
