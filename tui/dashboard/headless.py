"""A dashboard without a screen, for the recorder and for commands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llmtop.tui.dashboard.runtime import DashboardRuntime
from llmtop.tui.sources import CostSource, GpuSource

if TYPE_CHECKING:
    from llmtop.engines.core.endpoint import Endpoint
    from llmtop.operations.monitoring.recorder_export import RecorderExport
    from llmtop.operations.wiring import Wiring


@contextmanager
def watch(
    wiring: Wiring, endpoints: Sequence[Endpoint] | None = None, interval: float = 1.0
) -> Iterator[DashboardRuntime]:
    """The sources of a screen. The caller runs ``sampling`` and closes it.

    endpoints: these, with the GPUs; None: all engines of llmtop, as the recorder watches them.
    """
    recorder = endpoints is None
    if endpoints is None:
        records = [one for one in wiring.supervisor.records() if one.ended_at is None]
        endpoints = [wiring.of(one) for one in records]
    runtime = DashboardRuntime(
        wiring, endpoints, interval=interval, follow_new=recorder, recorder=recorder
    )
    try:
        yield runtime
    finally:
        runtime.release()


def serve(runtime: DashboardRuntime, wiring: Wiring, export: RecorderExport) -> None:
    """Let the recorder serve metrics too: it then reads GPUs, steps and causes as well."""
    from llmtop.tui.monitoring.export_source import ExportSource
    from llmtop.tui.monitoring.watches import Watches

    store, now = runtime.store, runtime.timeline.now
    watches = Watches(store, runtime.insights, wiring, count_orphans=True)
    runtime.sampling.sources += [
        GpuSource(wiring.screen_gpus(), store),
        runtime.insights,
        CostSource(store, now),
        ExportSource(store, watches, export, now),
    ]
