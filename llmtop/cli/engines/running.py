"""What an engine must be before it is asked anything: there."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from llmtop import LlmtopError
from llmtop.engines.core.records import EngineStatus, State
from llmtop.wording.format import duration
from llmtop.wording.sentences import why_silent

if TYPE_CHECKING:
    from llmtop.engines.core.endpoint import Endpoint
    from llmtop.operations.wiring import Wiring


FROZEN = "stopped by a signal"  # in the words of ``supervision.health``
SERVES = (State.READY, State.UNRESPONSIVE)


def require_running(wiring: Wiring, endpoint: Endpoint) -> str:
    """Refuse an engine that does not serve: another engine may have its address now.

    Returns why one that runs does not answer, as ``why_silent``.
    """
    status = _status(wiring, endpoint)
    if status is not None and status.state not in SERVES:
        raise LlmtopError(*absence(status, time.time()))
    return why_silent(status)


def require_answering(wiring: Wiring, endpoint: Endpoint) -> str:
    """The same, and refuse one whose main process a signal has stopped. Where only a child of it
    is stopped, other ranks may answer."""
    status = _status(wiring, endpoint)
    trouble = require_running(wiring, endpoint)
    if status is not None and status.phase.startswith(FROZEN):
        hint = f"let it continue: kill -CONT {status.record.pid}"
        raise LlmtopError(trouble or status.phase, hint)
    return trouble


def why_absent(wiring: Wiring, endpoint: Endpoint) -> str:
    """Why an engine does not serve, or does not answer, in one line; "" when it does."""
    status = _status(wiring, endpoint)
    if status is None or status.state in SERVES:
        return why_silent(status)
    return "; ".join(absence(status, time.time()))


def _status(wiring: Wiring, endpoint: Endpoint) -> EngineStatus | None:
    return None if endpoint.record is None else wiring.supervisor.status(endpoint.record)


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
