"""``--record`` of a command that measures: a dashboard without a screen, in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
import msgspec

from llmtop import LlmtopError
from llmtop.analysis.marks import Mark
from llmtop.cli.common.output import finite, note
from llmtop.cli.screen.record_option import path_of
from llmtop.history.facts import OutcomeFact

if TYPE_CHECKING:
    from llmtop.loadgen.core.results import LoadSnapshot
    from llmtop.loadgen.workers.load import Load
    from llmtop.operations.wiring import Wiring
    from llmtop.tui.dashboard.runtime import DashboardRuntime

PATH = "llmtop.record"  # key of the file's path in click's context
RUNNING = "llmtop.recording"  # key of the BackgroundRecording in click's context
TIMEOUT_S = 30.0  # of each call into the thread: to find an engine, to close the file
OnSnapshot = Callable[["LoadSnapshot"], None]
Histograms = Mapping[str, tuple[tuple[float, int], ...]]


def record_load_flag(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--record`` to a command that measures an engine. ``recorded`` starts the recording."""

    def keep(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
        path = path_of(value)
        if path is not None:
            ctx.meta[PATH] = path

    return click.option(
        "--record",
        metavar="FILE",
        type=click.Path(dir_okay=False),
        expose_value=False,
        callback=keep,
        help="Record the whole run into FILE (.llmtop), for `llmtop replay`.",
    )(command)


def recorded(wiring: Wiring, target: str, on_snapshot: OnSnapshot | None) -> OnSnapshot | None:
    """Start recording an engine if the user asked for it.

    Returns the receiver of the load's snapshots: ``on_snapshot``, with a recording both of them.
    Raises LlmtopError when the recording cannot start.
    """
    context = click.get_current_context(silent=True)
    if context is None or PATH not in context.meta:
        return on_snapshot
    recording = context.meta.get(RUNNING)
    if recording is None:
        recording = BackgroundRecording(wiring.environ, context.meta[PATH])
        context.meta[RUNNING] = recording
        context.call_on_close(recording.finish)
    name = recording.watch(target)

    def both(load: LoadSnapshot) -> None:
        if on_snapshot is not None:
            on_snapshot(load)
        recording.take_load(name, load)

    return both


def recording_path() -> Path | None:
    """The file that this command is recorded into; None without a recording."""
    context = click.get_current_context(silent=True)
    return context.meta.get(PATH) if context is not None else None


def is_recorded() -> bool:
    """Whether this command is recorded."""
    return recording_path() is not None


def add_outcome(
    command: str, name: str, document: Any, histograms: Histograms | None = None
) -> None:
    """Add a command's result to its recording, if there is one.

    document: the JSON document. histograms: latency counts of a load, by measure.
    """
    context = click.get_current_context(silent=True)
    recording = context.meta.get(RUNNING) if context is not None else None
    if recording is not None:
        recording.outcome(command, name, document, histograms or {})


class _RemoteLoad:
    """A load that another thread controls. This one only receives its snapshots."""

    def __init__(self, newest: LoadSnapshot) -> None:
        self.newest = newest

    def snapshot(self) -> LoadSnapshot:
        return self.newest

    def stop(self, drain: bool = True) -> None:
        """Do nothing: the load belongs to the other thread."""

    def close(self) -> None:
        """Do nothing: the load belongs to the other thread."""


class BackgroundRecording:
    """Records engines into ``path`` until ``finish``. Methods raise LlmtopError on failure."""

    def __init__(self, environ: dict[str, str], path: Path) -> None:
        from llmtop.operations.wiring import Wiring

        self._path = path
        self._wiring = Wiring(environ)  # a new one: sockets belong to one event loop
        self._loop = asyncio.new_event_loop()
        self._runtime: DashboardRuntime | None = None
        self._load: _RemoteLoad | None = None
        self._shape = ""
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._sampling: asyncio.Task[None] | None = None

    def watch(self, target: str) -> str:
        """Record this engine too. target: name or URL. Returns the engine's name."""
        return cast(str, self._do(self._watch(target)))

    def take_load(self, name: str, load: LoadSnapshot) -> None:
        """Record a snapshot of the load on an engine. name: of the engine."""
        self._loop.call_soon_threadsafe(self._take, name, load)

    def outcome(self, command: str, name: str, document: Any, histograms: Histograms) -> None:
        """Record the result of the command; see ``add_outcome``."""
        text = msgspec.Raw(msgspec.json.encode(finite(document)))
        self._do(self._write_outcome(command, name, text, histograms))

    def finish(self) -> None:
        """Close the file and print its path."""
        try:
            ended = cast(list[str], self._do(self._end()))
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(TIMEOUT_S)
        for line in ended:
            note(line)

    def _do(self, coroutine: Coroutine[Any, Any, object]) -> object:
        """Run a coroutine in the thread and return its result."""
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(TIMEOUT_S)
        except TimeoutError:
            raise LlmtopError("the recording does not answer") from None

    async def _watch(self, target: str) -> str:
        from llmtop.tui.dashboard.runtime import DashboardRuntime

        endpoint = await self._wiring.endpoint(target)
        if self._runtime is None:
            self._runtime = DashboardRuntime(self._wiring, [endpoint])
            self._runtime.recordings.begin(self._path)
            self._sampling = asyncio.create_task(self._runtime.sampling.run())
        elif endpoint.name not in self._runtime.store.engines:
            self._runtime.add(endpoint)
        return endpoint.name

    def _take(self, name: str, load: LoadSnapshot) -> None:
        if self._runtime is None:
            return
        store, now = self._runtime.store, self._runtime.timeline.now()
        if self._load is None:
            self._load = _RemoteLoad(load)
            self._runtime.load_source.load = cast("Load", self._load)
        self._load.newest, store.load_target = load, name
        track = store.engines.get(name)
        if track is not None and load.running and load.shape != self._shape:
            self._shape = load.shape
            track.marks.append(Mark(now, "load", load=True))

    async def _write_outcome(
        self, command: str, name: str, document: msgspec.Raw, histograms: Histograms
    ) -> None:
        source = self._runtime.recordings.source if self._runtime is not None else None
        if self._runtime is not None and source is not None:
            now = self._runtime.timeline.now()
            source.write([OutcomeFact(now, command, name, document, histograms)])

    async def _end(self) -> list[str]:
        runtime = self._runtime
        if runtime is None:
            return []
        runtime.recordings.end()
        if self._sampling is not None:
            self._sampling.cancel()
            await asyncio.gather(self._sampling, return_exceptions=True)
        runtime.load_source.load = None
        await runtime.sampling.close()
        await self._wiring.fetch.close()
        return runtime.recordings.ended
