"""One step of SGLang's scheduler while it is under way, and what is measured around its result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llmtop_live.step_ring import UNKNOWN


class LaunchedStep:
    """A step that was launched and is not yet in the ring."""

    __slots__ = (
        "accepted",
        "cached",
        "context",
        "decodes",
        "device_done",
        "done",
        "drafts",
        "empty",
        "finish",
        "free",
        "gap",
        "idle",
        "launch",
        "middle",
        "output",
        "preempted",
        "prefill_tokens",
        "prefills",
        "ready",
        "requests",
        "running",
        "schedule",
        "started",
        "update",
        "waiting",
    )

    def __init__(self, started: float) -> None:
        self.started = started
        self.finish: float | None = None  # the next launch, or the end of its own result
        self.done: float | None = None  # its result was taken up
        self.device_done: float | None = None  # when it was first seen that the device had it done
        self.ready: Callable[[], bool] | None = None  # asks the device for that
        self.empty = False
        self.middle: Any = None  # the request of which it computes a middle piece of the prompt
        self.prefills = self.prefill_tokens = self.decodes = self.requests = 0
        self.running = self.waiting = self.preempted = 0
        self.output = self.drafts = self.accepted = 0
        self.cached = self.context = self.free = UNKNOWN
        self.gap = self.launch = self.update = self.schedule = UNKNOWN
        self.idle = 0.0


class Waited:
    """Stands in for a result's event: how long the scheduler waited for the device."""

    __slots__ = ("clock", "ended", "event", "seconds")

    def __init__(self, event: Any, clock: Callable[[], float]) -> None:
        self.event = event
        self.clock = clock
        self.seconds = 0.0
        self.ended: float | None = None

    def synchronize(self) -> Any:
        """Wait, as the event does."""
        begun = self.clock()
        answer = self.event.synchronize()
        self.ended = self.clock()
        self.seconds += self.ended - begun
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.event, name)


class Taking:
    """A result that is being taken up. live: rows that get a token. tokens: what its requests had
    before, where it may be several a step. begun: when."""

    __slots__ = ("begun", "live", "tokens", "waited")

    def __init__(self, live: int, tokens: int, waited: Waited | None, begun: float) -> None:
        self.live = live
        self.tokens = tokens
        self.waited = waited
        self.begun = begun
