"""Checks that an engine runs, before a command asks it anything."""

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


FROZEN = "stopped by a signal"  # as ``supervision.health`` words it
SERVES = (State.READY, State.UNRESPONSIVE)


def require_running(wiring: Wiring, endpoint: Endpoint) -> str:
    """Raise LlmtopError for an engine that does not serve: another may have its address now.

    Returns why an engine that runs does not answer, as ``why_silent`` does; "" when it answers.
    """
    status = _status(wiring, endpoint)
    if status is not None and status.state not in SERVES:
        raise LlmtopError(*absence(status, time.time()))
    return why_silent(status)


def require_answering(wiring: Wiring, endpoint: Endpoint) -> str:
    """As ``require_running``; LlmtopError also when a signal has stopped the main process.

    If a signal has stopped only a child process, other ranks may answer.
    """
    status = _status(wiring, endpoint)
    silence = require_running(wiring, endpoint)
    if status is not None and status.phase.startswith(FROZEN):
        hint = f"let it continue: kill -CONT {status.record.pid}"
        raise LlmtopError(silence or status.phase, hint)
    return silence


def why_absent(wiring: Wiring, endpoint: Endpoint) -> str:
    """Why an engine does not serve, or does not answer, in one line; "" when it does."""
    status = _status(wiring, endpoint)
    if status is None or status.state in SERVES:
        return why_silent(status)
    return "; ".join(absence(status, time.time()))


def _status(wiring: Wiring, endpoint: Endpoint) -> EngineStatus | None:
    return None if endpoint.record is None else wiring.supervisor.status(endpoint.record)


def absence(status: EngineStatus, now: float) -> tuple[str, str]:
    """Return a message and a hint: why an engine does not serve, since when, and what to do.

    now: unix time.
    """
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
            return f"{name} is still starting: {doing}", "llmtop ps shows when it is ready"
        case _:
            return f"{name} is {state.value}", "see `llmtop ps`"
