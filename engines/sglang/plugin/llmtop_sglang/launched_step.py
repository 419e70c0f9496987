"""A step of SGLang's scheduler that is in progress, and the processing of its result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llmtop_live.step_ring import UNKNOWN


class LaunchedStep:
    """A step that was launched and is not yet in the ring. Times are perf_counter seconds."""

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
        self.done: float | None = None  # when its result was processed
        self.device_done: float | None = None  # when the plugin first saw that the device finished
        self.ready: Callable[[], bool] | None = None  # whether the device has finished
        self.empty = False
        self.middle: Any = None  # the request whose prompt chunk in this step is not the last one
        self.prefills = self.prefill_tokens = self.decodes = self.requests = 0
        self.running = self.waiting = self.preempted = 0
        self.output = self.drafts = self.accepted = 0
        self.cached = self.context = self.free = UNKNOWN
        self.gap = self.launch = self.update = self.schedule = UNKNOWN
        self.idle = 0.0


class TimedEvent:
    """Replaces the event of a result, and measures how long the scheduler waits for the device."""

    __slots__ = ("clock", "ended", "event", "seconds")

    def __init__(self, event: Any, clock: Callable[[], float]) -> None:
        self.event = event
        self.clock = clock
        self.seconds = 0.0
        self.ended: float | None = None

    def synchronize(self) -> Any:
        """Wait for the event."""
        begun = self.clock()
        answer = self.event.synchronize()
        self.ended = self.clock()
        self.seconds += self.ended - begun
        return answer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.event, name)


class ResultProcessing:
    """The processing of one result.

    live: rows that get a token. tokens: output tokens of its requests before it, 0 without
    speculation. begun: when it began, perf_counter seconds.
    """

    __slots__ = ("begun", "live", "tokens", "waited")

    def __init__(self, live: int, tokens: int, waited: TimedEvent | None, begun: float) -> None:
        self.live = live
        self.tokens = tokens
        self.waited = waited
        self.begun = begun
