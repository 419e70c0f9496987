"""``llmtop export --detach``: the history recorder serves the metrics while engines run."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING

from llmtop import LlmtopError, UsageError
from llmtop.cli.common.output import note
from llmtop.operations.monitoring import recorder_export
from llmtop.operations.recorder_process import SWITCH, is_wanted

if TYPE_CHECKING:
    from llmtop.operations.monitoring.recorder_export import RecorderExport
    from llmtop.operations.wiring import Wiring

WAIT_S = 30.0  # the recorder checks for the request every 3 s, then restarts to serve
POLL_S = 0.2


def begin(wiring: Wiring, export: RecorderExport, url: str) -> None:
    """Make the recorder serve, and wait until it does, unless no engine runs.

    Raises UsageError when the recorder is off, LlmtopError when it cannot serve.
    """
    if not is_wanted(wiring.environ):
        raise UsageError(f"{SWITCH} is off, so no recorder runs", "export without --detach")
    before = recorder_export.wanted(wiring.state.root)
    taken = before is None or (before.host, before.port) != (export.host, export.port)
    if taken and _answers(export):
        raise LlmtopError(f"another program already listens at {url}", "choose another --listen")
    try:
        wiring.state.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        recorder_export.want(wiring.state.root, export)
    except OSError as error:
        raise LlmtopError(f"{wiring.state.root} cannot be written: {error.strerror}") from None
    living = any(one.ended_at is None for one in wiring.supervisor.records())
    if not living:
        note(f"metrics will be at {url}/metrics while an engine runs")
        return
    ends = time.monotonic() + WAIT_S
    while time.monotonic() < ends:
        wiring.recorder.ensure_running()
        if _answers(export):
            wiring.recorder.detach()
            note(f"metrics at {url}/metrics while an engine runs; llmtop export --stop ends it")
            return
        time.sleep(POLL_S)
    recorder_export.end(wiring.state.root)
    raise LlmtopError(f"the recorder does not serve {url}", "export without --detach")


def end(wiring: Wiring) -> None:
    """Make the recorder stop serving."""
    if recorder_export.wanted(wiring.state.root) is None:
        note("the recorder serves no metrics")
        return
    recorder_export.end(wiring.state.root)
    note("the recorder no longer serves metrics")


def _answers(export: RecorderExport) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection((export.host, export.port), timeout=1.0).close()
        return True
    return False
