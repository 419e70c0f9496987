"""Finds the knee of an engine's throughput, above which more load adds few tokens/s. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from llmtop.diagnosis.moments import Moment, mean, median

LEAST = 3  # newest moments for the present rate
# The two halves of this period are compared. Their ratios of load, tokens/s and TTFT decide. With a
# steady load, noise changes medians of 15 samples by less than these ratios. With the curve of an
# 8B model on one H200 (TTFT 54 -> 81 -> 180 ms, 5.2 -> 6.2 -> 6.6k tok/s at 64, 128, 256 streams)
# the bend is "near" at 128 and "flat" at 256.
BEND_S = 30.0
MORE, FLAT, RISING = 1.15, 1.08, 1.25  # flat: load at least, tokens/s at most, TTFT at least
MUCH_MORE, POOR = 1.25, 0.35  # near: load at least, increase of tokens/s per increase of load
FORGET = 1.15  # ratio of tokens/s to those at the bend above which the bend is dropped
MEMORY_S = 600.0  # age at which a bend is dropped, because loads change


class Bend(Struct, frozen=True):
    """The bend of the throughput curve. None means not seen.

    near, flat: requests in the engine (running and waiting) from which more load gave few, or no
    more tokens/s. tokens: the tokens/s there. seen: when it was seen, unix seconds, 0.0 for never.
    """

    near: float | None = None
    flat: float | None = None
    tokens: float = 0.0
    seen: float = 0.0


def bend_of(moments: Sequence[Moment], known: Bend) -> Bend:
    """The bend after these moments. moments: oldest first. known: the bend before them."""
    last = moments[-1]
    if known.seen and (last.time - known.seen > MEMORY_S or _straightened(moments, known)):
        known = Bend()
    start, middle = last.time - BEND_S, last.time - BEND_S / 2
    early = [m for m in moments if start <= m.time < middle]
    late = [m for m in moments if m.time >= middle]
    requests = median(m.requests for m in early), median(m.requests for m in late)
    tokens = median(m.tokens_per_s for m in early), median(m.tokens_per_s for m in late)
    ttft = median(m.ttft for m in early), median(m.ttft for m in late)
    if not (requests[0] and requests[1] and tokens[0] and tokens[1]):
        return known
    load, gain = requests[1] / requests[0], tokens[1] / tokens[0]
    slower = ttft[1] / ttft[0] if ttft[0] and ttft[1] else 0.0
    if load >= MORE and gain <= FLAT and slower >= RISING:
        flat = min(requests[1], known.flat or requests[1])
        near = min(requests[0], known.near or requests[0])
        return Bend(near, flat, max(tokens[1], known.tokens), last.time)
    if load >= MUCH_MORE and gain - 1 < POOR * (load - 1) and slower >= RISING:
        near = min(requests[1], known.near or requests[1])
        return Bend(near, known.flat, max(tokens[1], known.tokens), last.time)
    return known


def _straightened(moments: Sequence[Moment], known: Bend) -> bool:
    """Whether tokens/s are now clearly above those at the bend: then there is no bend there."""
    rate = mean([m.tokens_per_s for m in moments[-LEAST:]]) or 0.0
    if known.flat is not None:
        return rate > known.tokens * FORGET
    requests = mean([m.requests for m in moments[-LEAST:]]) or 0.0
    # "near" means that more load still gives a few more tokens/s. So the rate is compared relative
    # to the load.
    share = requests / known.near if known.near else 1.0
    return rate > known.tokens * FORGET * max(1.0, share)
