"""What load is asked for: who gets it, of what kind, in what shape. Frozen; crosses every seam."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Loop(StrEnum):
    """Who decides when the next request goes out."""

    CLOSED = "closed"  # level = streams in flight; a finished one makes room for the next
    OPEN = "open"  # level = requests a second on an absolute schedule, whatever comes back


class Arrival(StrEnum):
    """How the requests of an open loop are spaced."""

    CONSTANT = "constant"  # evenly
    POISSON = "poisson"  # independently of each other, as many users do


@dataclass(frozen=True, slots=True)
class Target:
    """Where the requests go. url: scheme, host and port, no path. api_key is never shown."""

    url: str
    model: str
    chat: bool = False
    api_key: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Prompts:
    """What is asked: lengths in tokens, uniform between the bounds, both ends included.

    shared_prefix_tokens of every prompt are the same in a share (0..1) of the requests.
    repetitive: a text that repeats itself, which n-gram speculation guesses well.
    text: send words instead of token ids; lengths are then about right instead of exact. Chat is
    always text.
    """

    prompt_tokens: tuple[int, int] = (128, 128)
    output_tokens: tuple[int, int] = (128, 128)
    shared_prefix_tokens: int = 0
    shared_prefix_share: float = 0.0
    repetitive: bool = False
    temperature: float = 1.0
    text: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """The load over time. shape: the text of a shape, see ``shape.parse``.

    seed: prompts and arrivals; the same seed asks the same again, so an engine that caches prefixes
    remembers the run before. arrival: open loop only.
    """

    loop: Loop = Loop.CLOSED
    shape: str = "hold 1"
    seed: int = 0
    arrival: Arrival = Arrival.POISSON
