"""How much more load an engine can take before the knee, and which limit it reaches first. Pure."""

from __future__ import annotations

from msgspec import Struct

from llmtop.diagnosis.observation import Observation
from llmtop.diagnosis.state_rules import KV_FULL, MARGINAL_FLAT, MARGINAL_NEAR

KNEE = (MARGINAL_NEAR + MARGINAL_FLAT) / 2  # share of a step's time that grows with the load
MOST = 100.0  # times the load: a larger factor is reported as this


class Headroom(Struct, frozen=True):
    """The distance to the knee. None means unknown.

    factor: running requests at the knee over those now. running: requests at the knee. first: the
    limit that is reached first: "steps" (their time), "batch" or "kv".
    """

    factor: float | None = None
    running: float | None = None
    first: str | None = None


def headroom_of(seen: Observation) -> Headroom:
    """The smallest headroom of batch limit, KV cache and step times. Unknown while no request
    runs."""
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
            # While the engine is partly idle, its batches are smaller than under continuous load.
            limits.append((max(1, window.ranks) * knee / running, "steps"))
    if not limits:
        return Headroom()
    factor, first = min(limits)
    if first != "steps" and not any(name == "steps" for _, name in limits):
        # Only the limits are known. Without step times, the knee may be far below them.
        return Headroom(None, None, first)
    factor = max(1.0, min(MOST, factor))
    return Headroom(factor, factor * running, first)
