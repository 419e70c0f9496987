"""Faults of an engine on demand, to test llmtop's reactions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from msgspec import Struct

KINDS = {
    "slow-start": 30.0,
    "fail-start": None,
    "crash": 5.0,
    "hang": 5.0,
    "refuse": 5.0,
    "metrics-500": 0.0,
    "metrics-frozen": 0.0,
    "metrics-nonsense": 0.0,
    "live-mute": None,
    "live-nonsense": None,
    "live-old": None,
    "live-half": None,
    "rank-mute": None,
    "rank-off": None,
    "stubborn": None,
    "slow-host": 0.01,
    "slow-front": 0.2,
}
"""Kind -> default seconds after ready (slow-...: seconds of delay); None: without seconds.

slow-start: a long start. fail-start: no memory for the KV cache, exit code 1. crash: exits while it
serves and breaks streams. hang: no answers, and it ignores SIGTERM. refuse: closes its port and
keeps running. metrics-500, metrics-frozen and metrics-nonsense (impossible numbers) break /metrics.
live-mute: the live-option socket accepts connections and does not answer. live-nonsense: invalid
answers. live-old: only protocol 1. live-half: closes the connection within an answer with steps.
rank-mute: only the last data-parallel rank accepts connections and does not answer. rank-off: that
rank refuses every change. stubborn: ignores SIGTERM until its clients are gone, like vLLM with open
streams. slow-host: this delay in each step, with an idle GPU. slow-front: this delay before each
request reaches the scheduler.
"""


class Misbehaviour(Struct, frozen=True):
    """One of ``KINDS`` and its seconds."""

    kind: str
    seconds: float = 0.0


def parse(texts: Sequence[str]) -> dict[str, Misbehaviour]:
    """Parse texts ``KIND[:SECONDS]``. Raises ValueError with a message for users."""
    found: dict[str, Misbehaviour] = {}
    for text in texts:
        kind, _, argument = text.partition(":")
        if kind not in KINDS:
            raise ValueError(f"unknown kind {kind!r} (choose from {', '.join(KINDS)})")
        default = KINDS[kind]
        if argument and default is None:
            raise ValueError(f"{kind} takes no seconds")
        try:
            seconds = float(argument) if argument else default or 0.0
        except ValueError:
            raise ValueError(f"{argument!r} is not a number of seconds") from None
        if not 0.0 <= seconds <= 86400.0:
            raise ValueError(f"{argument} s is not within a day")
        found[kind] = Misbehaviour(kind, seconds)
    return found


def impossible(page: str) -> str:
    """The page with impossible values of gauges and counters, in valid syntax."""
    lines = page.split("\n")
    wrong = itertools.cycle(("NaN", "-7", "1e300", "+Inf"))
    spoilt = [
        f"{line.rpartition(' ')[0]} {next(wrong)}" if line.startswith("vllm:") else line
        for line in lines
    ]
    return "\n".join(spoilt)
