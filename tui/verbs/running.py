"""What an engine must be before it is asked anything: there."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from llmtop import LlmtopError
from llmtop.engines.records import EngineStatus, State
from llmtop.tui.format import duration

if TYPE_CHECKING:
    from llmtop.engines.endpoint import Endpoint
    from llmtop.tui.wiring import Wiring


def require_running(wiring: Wiring, endpoint: Endpoint) -> None:
    """Refuse an engine that does not serve: somebody else's may be at its address by now."""
    status = _absent(wiring, endpoint)
    if status is not None:
        raise LlmtopError(*absence(status, time.time()))


def why_absent(wiring: Wiring, endpoint: Endpoint) -> str:
    """The same as one line, for what can be told of an engine all the same; "" when it serves."""
    status = _absent(wiring, endpoint)
    return "; ".join(absence(status, time.time())) if status is not None else ""


def _absent(wiring: Wiring, endpoint: Endpoint) -> EngineStatus | None:
    if endpoint.record is None:
        return None
    status = wiring.supervisor.status(endpoint.record)
    return None if status.state in (State.READY, State.UNRESPONSIVE) else status


def absence(status: EngineStatus, now: float) -> tuple[str, str]:
    """Why an engine cannot be asked, since when, and what to do."""
    name, state = status.record.name, status.state
    passed = "" if status.since is None else duration(max(0.0, now - status.since))
    ago = f" {passed} ago" if passed else ""
    again, log = f"start it again: llmtop restart {name}", f"llmtop logs {name}"
    match state:
        case State.STOPPED:
            return f"{name} is stopped: it was asked to end{ago}", again
        case State.FAILED:
            why = f": {status.record.cause}" if status.record.cause else ""
            advice = f"{status.record.advice}; " if status.record.advice else ""
            return f"{name} failed{ago}{why}", f"{advice}its log: {log}; {again}"
        case State.LOST:
            why = f": {status.phase}" if status.phase else ""
            return f"{name} is lost{why}", f"its log: {log}; {again}"
        case State.STARTING:
            doing = ", ".join(word for word in (status.phase, passed) if word)
            return f"{name} is still starting: {doing}", "llmtop ps says when it is ready"
        case _:
            return f"{name} is {state.value}", "see `llmtop ps`"
