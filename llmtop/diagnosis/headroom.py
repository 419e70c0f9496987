"""How much more load fits before the knee, and what is reached first. Pure."""

from __future__ import annotations

from msgspec import Struct

from llmtop.diagnosis.observation import Observation
from llmtop.diagnosis.state_rules import KV_FULL, MARGINAL_FLAT, MARGINAL_NEAR

KNEE = (MARGINAL_NEAR + MARGINAL_FLAT) / 2  # of a step's time that grows with the load
MOST = 100.0  # times the load: larger factors are not shown as a number


class Headroom(Struct, frozen=True):
    """factor: requests in the engine at the knee over those of now. running: these requests.

    first: what is reached first, "steps", "batch" or "kv". None: not known.
    """

    factor: float | None = None
    running: float | None = None
    first: str | None = None


def headroom_of(seen: Observation) -> Headroom:
    """The minimum that batch limit, KV cache and step times leave; it needs running requests."""
    running = seen.running
    if running < 0.5:
        return Headroom()
    limits: list[tuple[float, str]] = []
    if seen.cap:
        limits.append((seen.cap / running, "batch"))
    if seen.kv_usage and seen.kv_usage > 0.001:
        limits.append((KV_FULL / seen.kv_usage, "kv"))
    window, fitted = seen.window, seen.fitted
    if window is not None and fitted is not None:
        each = fitted.per_stream_s(window.per_request)
        if each > 0:
            knee = KNEE / (1 - KNEE) * fitted.fixed_s / each
            # While the engine is partly idle, the batch is smaller than at a continuous load.
            limits.append((max(1, window.ranks) * knee / running, "steps"))
    if not limits:
        return Headroom()
    factor, first = min(limits)
    if first != "steps" and not any(name == "steps" for _, name in limits):
        # Without step times only limits are known: the knee may be far below them.
        return Headroom(None, None, first)
    factor = max(1.0, min(MOST, factor))
    return Headroom(factor, factor * running, first)
