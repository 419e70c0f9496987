"""The assumptions of a forecast: load, lengths, settings, and the requests in the engine."""

from __future__ import annotations

import random
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace


class Lengths(Struct, frozen=True):
    """A distribution of numbers of tokens, from which a forecast draws.

    values: equally likely. between: the two values are the bounds of a uniform distribution.
    """

    values: tuple[int, ...]
    between: bool = False

    @classmethod
    def span(cls, low: int, high: int) -> Lengths:
        """The uniform distribution from low to high."""
        return cls((low, high), between=True)

    def draw(self, rng: random.Random) -> int:
        """Draw a number of tokens, at least 1."""
        if self.between:
            return max(1, rng.randint(self.values[0], self.values[-1]))
        return max(1, self.values[int(rng.random() * len(self.values))])

    @property
    def mean(self) -> float:
        """The mean number of tokens."""
        return sum(self.values) / len(self.values)


class Load(Struct, frozen=True):
    """The load of an engine.

    loop "closed": each of ``level`` streams sends its next request when it has an answer. loop
    "open": ``level`` requests per second arrive. prompt, output: lengths in tokens. cached: share
    of the prompt tokens in the prefix cache, 0..1. counted: number of arrivals from which the rate
    was estimated; 0: the rate is exact.
    """

    loop: Literal["closed", "open"]
    level: float
    prompt: Lengths
    output: Lengths
    cached: float = 0.0
    counted: int = 0

    def scaled(self, factor: float) -> Load:
        """The same load with ``factor`` times the level."""
        return replace(self, level=self.level * factor)


class PresentRequest(Struct, frozen=True):
    """A request in the engine. prompt: tokens. generated, target: output tokens so far and in all.

    waited_s: seconds since it arrived.
    """

    prompt: int
    generated: int
    target: int
    waited_s: float = 0.0


class Present(Struct, frozen=True):
    """The requests in the engine at the start of a forecast. waiting: in order of arrival."""

    running: tuple[PresentRequest, ...] = ()
    waiting: tuple[PresentRequest, ...] = ()


class Settings(Struct, frozen=True):
    """The scheduler options that a forecast models.

    batch_limit: requests in a step. token_budget: tokens in a step. queue_limit: waiting requests,
    0 for no limit. kv_tokens: size of the KV cache.
    """

    batch_limit: int
    token_budget: int
    queue_limit: int = 0
    kv_tokens: int = 1 << 40


class FrontEnd(Struct, frozen=True):
    """The HTTP server in front of the engine, a single server. Times in seconds.

    request_s: service time of a request. latency_s: delay from there to the scheduler. token_s:
    service time of an output token.
    """

    request_s: float = 1.4e-3
    token_s: float = 1.0e-4
    latency_s: float = 4.0e-3

    def scaled(self, factor: float) -> FrontEnd:
        """The same front end with ``factor`` times the service times."""
        return FrontEnd(self.request_s * factor, self.token_s * factor, self.latency_s)


def steady_state(load: Load, settings: Settings, rng: random.Random) -> Present:
    """The requests in the engine in the steady state of a closed loop: at random progress.

    Empty for an open loop.
    """
    if load.loop == "open":
        return Present()
    streams = max(1, round(load.level))
    running, waiting = [], []
    for index in range(streams):
        prompt, target = load.prompt.draw(rng), load.output.draw(rng)
        if index < settings.batch_limit:
            running.append(PresentRequest(prompt, int(rng.random() * target), target))
        else:
            waiting.append(PresentRequest(prompt, 0, target))
    return Present(tuple(running), tuple(waiting))
