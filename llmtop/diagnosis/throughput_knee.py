"""The knee of an engine's throughput: from here on more load adds few tokens/s. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from llmtop.diagnosis.moments import Moment, mean, median

LEAST = 3
# The bend of the throughput curve, between the two halves of half a minute. Noise at a steady load
# moves medians of fifteen samples by less; the curve of an 8B model on one H200 (TTFT 54 -> 81 ->
# 180 ms, 5.2 -> 6.2 -> 6.6k tok/s at 64, 128, 256 streams) is "near" at 128 and "flat" at 256.
BEND_S = 30.0
MORE, FLAT, RISING = 1.15, 1.08, 1.25
MUCH_MORE, POOR = 1.25, 0.35  # so much more load brought less than a third of it in tokens
FORGET = 1.15  # tokens/s so far above the bend: it was none
MEMORY_S = 600.0  # loads change


class Bend(Struct, frozen=True):
    """Where the throughput was seen to bend. near, flat: running and waiting requests from which
    on more load brought little, or nothing. tokens: the rate there. seen: when, unix seconds."""

    near: float | None = None
    flat: float | None = None
    tokens: float = 0.0
    seen: float = 0.0


def bend_of(moments: Sequence[Moment], known: Bend) -> Bend:
    """The bend as it is known after these moments; ``known`` is what was seen before."""
    last = moments[-1]
    if known.seen and (last.time - known.seen > MEMORY_S or _straightened(moments, known)):
        known = Bend()
    start, middle = last.time - BEND_S, last.time - BEND_S / 2
    early = [m for m in moments if start <= m.time < middle]
    late = [m for m in moments if m.time >= middle]
    asked = median(m.asked for m in early), median(m.asked for m in late)
    tokens = median(m.tokens_per_s for m in early), median(m.tokens_per_s for m in late)
    ttft = median(m.ttft for m in early), median(m.ttft for m in late)
    if not (asked[0] and asked[1] and tokens[0] and tokens[1]):
        return known
    load, gain = asked[1] / asked[0], tokens[1] / tokens[0]
    slower = ttft[1] / ttft[0] if ttft[0] and ttft[1] else 0.0
    if load >= MORE and gain <= FLAT and slower >= RISING:
        flat = min(asked[1], known.flat or asked[1])
        near = min(asked[0], known.near or asked[0])
        return Bend(near, flat, max(tokens[1], known.tokens), last.time)
    if load >= MUCH_MORE and gain - 1 < POOR * (load - 1) and slower >= RISING:
        near = min(asked[1], known.near or asked[1])
        return Bend(near, known.flat, max(tokens[1], known.tokens), last.time)
    return known


def _straightened(moments: Sequence[Moment], known: Bend) -> bool:
    """Whether tokens/s have since grown beyond the bend: then there was no bend, or it has
    moved."""
    rate = mean([m.tokens_per_s for m in moments[-LEAST:]]) or 0.0
    if known.flat is not None:
        return rate > known.tokens * FORGET
    asked = mean([m.asked for m in moments[-LEAST:]]) or 0.0
    # Beside the load: that more of it still brings a little more is what "near" says.
    share = asked / known.near if known.near else 1.0
    return rate > known.tokens * FORGET * max(1.0, share)
