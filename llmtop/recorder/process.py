"""The recorder process. Each user has one at most; it runs while an engine runs."""

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

EXIT_AFTER_S = 10.0  # without a running engine. The restart of an engine takes less.
LOCK_WAIT_S = 1.0
CHECK_S = 3.0  # interval of the check for engines that have ended
FREEZE_AFTER_S = 20.0  # when all modules are imported
GC_THRESHOLD = 10_000  # new objects before a collection: one answer of an engine has thousands


def main() -> int:
    """Record until no engine runs. Returns the exit code. An error is one line on stderr."""
    os.umask(0o077)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    wiring = Wiring()
    try:
        wiring.state.refuse_strangers()
        folder = wiring.history
        lock = take_lock(folder, LOCK_WAIT_S)
        if lock is None:
            return 0  # another process records
        try:
            writer = HistoryWriter(folder)
        except DamagedHistory:
            set_aside(folder)
            writer = HistoryWriter(folder)
        try:
            asyncio.run(record(wiring, writer))
        except DamagedHistory:
            writer.close()
            set_aside(folder)  # otherwise the next recorder would fail on the same file
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
    """Write samples of the engines until none has run for ``EXIT_AFTER_S`` seconds.

    steady: a monotonic clock, in seconds. Raises HistoryError when the history cannot be written.
    """
    export = recorder_export.wanted(wiring.state.root)
    runtime = RecordedEngines(wiring)
    attached = AttachedSources(runtime, wiring, AttachedEngines(wiring.state.root))
    if export is not None:
        runtime.serve(export)
    source = HistorySource(runtime.store, writer, runtime.timeline.now)
    runtime.sampling.sources.append(source)
    sampling = asyncio.create_task(runtime.sampling.run())
    asyncio.get_running_loop().call_later(FREEZE_AFTER_S, _freeze_imports)
    idle_since = steady()
    try:
        while not sampling.done():
            await asyncio.sleep(CHECK_S)
            if source.error is not None:
                raise source.error
            living = await asyncio.to_thread(living_engines, wiring)
            urls = await attached.refresh()
            if living or urls:
                idle_since = steady()
                runtime.drop_ended({one.name for one in living})
                if recorder_export.wanted(wiring.state.root) != export:
                    restart_recorder()
            elif steady() - idle_since > EXIT_AFTER_S:
                return
    finally:
        sampling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sampling
        await runtime.sampling.close()
        await wiring.fetch.close()


def living_engines(wiring: Wiring) -> list[EngineRecord]:
    """The records of the engines that llmtop started and whose process runs."""
    return [
        one
        for one in wiring.state.scan()[0]
        if one.ended_at is None and (one.pid == 0 or wiring.processes.alive(identity(one)))
    ]


def restart_recorder() -> None:
    """Replace this process by a new recorder (execv), to apply a changed export of metrics.

    The lock is released with the old process image; the new one takes it again.
    """
    os.execv(sys.executable, [sys.executable, "-X", "no_debug_ranges", "-m", MODULE])


def _freeze_imports() -> None:
    """Exclude the imported modules from garbage collection, and return free memory to the system.

    Both keep the CPU time and the memory of the recorder low.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 20)
    import ctypes

    with contextlib.suppress(OSError, AttributeError):  # only glibc has malloc_trim
        ctypes.CDLL(None).malloc_trim(0)


def _fail(message: str) -> int:
    with contextlib.suppress(OSError):
        print(message[:500], file=sys.stderr, flush=True)
    return 1
