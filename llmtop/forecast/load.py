"""The load that a forecast assumes: arrivals or streams, lengths, and what is there already."""

from __future__ import annotations

import random
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace


class Lengths(Struct, frozen=True):
    """Numbers of tokens that were seen, each as likely as the others; a forecast draws from them.

    Two numbers stand for every whole number between them.
    """

    values: tuple[int, ...]
    between: bool = False

    @classmethod
    def span(cls, low: int, high: int) -> Lengths:
        """Any number of tokens from low to high."""
        return cls((low, high), between=True)

    def draw(self, rng: random.Random) -> int:
        """One number of tokens, at least 1."""
        if self.between:
            return max(1, rng.randint(self.values[0], self.values[-1]))
        return max(1, self.values[int(rng.random() * len(self.values))])

    @property
    def mean(self) -> float:
        """The mean."""
        return sum(self.values) / len(self.values)


class Load(Struct, frozen=True):
    """loop: "closed", where each of ``level`` streams asks again when it has its answer, or "open",
    where ``level`` requests arrive a second. prompt, output: tokens. cached: share of the prompt
    tokens that the prefix cache has. counted: arrivals that the rate was counted from; 0: it is
    given."""

    loop: Literal["closed", "open"]
    level: float
    prompt: Lengths
    output: Lengths
    cached: float = 0.0
    counted: int = 0

    def scaled(self, factor: float) -> Load:
        """So much more of the same."""
        return replace(self, level=self.level * factor)


class PresentRequest(Struct, frozen=True):
    """A request that the engine has. generated, target: output tokens so far and in all.
    waited_s: since it arrived."""

    prompt: int
    generated: int
    target: int
    waited_s: float = 0.0


class Present(Struct, frozen=True):
    """What the engine is doing when the forecast begins; the first of ``waiting`` came first."""

    running: tuple[PresentRequest, ...] = ()
    waiting: tuple[PresentRequest, ...] = ()


class Settings(Struct, frozen=True):
    """The options that a forecast knows. queue_limit 0: none. kv_tokens: of the KV cache."""

    batch_limit: int
    token_budget: int
    queue_limit: int = 0
    kv_tokens: int = 1 << 40


class FrontEnd(Struct, frozen=True):
    """The server in front of the engine, in seconds: a request takes request_s and then latency_s
    to the scheduler; each token takes token_s on its way out. It does one thing at a time."""

    request_s: float = 1.4e-3
    token_s: float = 1.0e-4
    latency_s: float = 4.0e-3

    def slower(self, factor: float) -> FrontEnd:
        """As it might be in another session."""
        return FrontEnd(self.request_s * factor, self.token_s * factor, self.latency_s)


def steady(load: Load, settings: Settings, rng: random.Random) -> Present:
    """A closed loop that has been running for a while: every stream at a place of its own."""
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
