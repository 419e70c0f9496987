"""Decides the state of an engine from its newest numbers, with the reasons in words. Pure.

The reasons name only known numbers: without a known batch limit, none is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from msgspec import Struct

from llmtop.diagnosis.moments import Moment, mean, newest
from llmtop.diagnosis.throughput_knee import Bend
from llmtop.wording import format as f

RECENT_S = 5.0  # the duration of a standing queue: the engine admits a burst of arrivals sooner
LEAST = 3  # moments at least, for a long interval
STANDING = 0.8  # share of the recent moments with a queue, for a standing queue
GROWTH_S = 15.0  # period in which the growth of the queue is measured
IN_TRANSIT = 0.05  # share of the running requests that may wait for the next step without a limit
INTERMITTENT = 0.3  # share of the moments with a queue, for an intermittent queue
KV_NEAR, KV_FULL = 0.85, 0.95  # usage of the KV cache; above the second, vLLM begins to preempt
CAP_NEAR, CAP_FULL = 0.85, 0.95  # of the batch limit: requests end before others join the batch
# The share of a step's time that grows with the load. Twice the load gives 2 / (1 + share) times
# the tokens: 18 % more at the first value, 8 % more at the second. On one H200 these are 128 and
# 256 streams of an 8B model. The bend of its throughput (``throughput_knee``) is at the same loads.
MARGINAL_NEAR, MARGINAL_FLAT = 0.7, 0.85

MOST_QUEUED = 8  # a queue of fewer requests is no overload, however small the batch is


class Level(IntEnum):
    """The states of an engine, ordered: each is worse than the one before."""

    UNKNOWN = 0
    HEADROOM = 1
    NEAR_KNEE = 2
    SATURATED = 3
    OVERLOADED = 4
    HUNG = 5

    @property
    def word(self) -> str:
        """The name for people: ``NEAR KNEE``."""
        return self.name.replace("_", " ")


class LoadState(Struct, frozen=True):
    """A state with its reasons, the most important first. idle: the engine has no requests.

    limits: the limits that are reached: "batch", "kv". growth: of the queue, requests per second.
    """

    level: Level
    reasons: tuple[str, ...]
    idle: bool = False
    limits: tuple[str, ...] = ()
    growth: float = 0.0


class _Now(Struct, frozen=True):
    """The numbers that the rules use, of the last seconds: means, if no comment says otherwise."""

    running: float
    waiting: float
    last: tuple[float, float]  # running and waiting at the last moment, for the reasons
    cap: float | None
    kv: float | None
    last_kv: float | None  # kv at the last moment, for the reasons
    preempted: float
    oldest: float | None
    ttft: float | None
    ttft_is: str
    lasting: bool  # there is a standing queue
    comes_and_goes: bool  # there is an intermittent queue
    growth: float  # of the queue, requests per second; 0.0 where it does not grow
    marginal: float | None

    @property
    def batch(self) -> float | None:
        """The share of the batch limit in use; None for unknown."""
        return self.running / self.cap if self.cap else None

    @property
    def kv_full(self) -> bool:
        """Whether requests compete for KV blocks."""
        return (self.kv or 0.0) >= KV_FULL

    @property
    def batch_full(self) -> bool:
        """Whether the batch is at its limit."""
        return bool(self.cap) and max(self.running, self.last[0]) >= CAP_FULL * (self.cap or 0.0)


def finding(moments: Sequence[Moment], bend: Bend | None = None, least: int = LEAST) -> LoadState:
    """The state at the last moment.

    moments: oldest first. bend: the known bend of the throughput. least: moments that a standing
    queue needs; 1 accepts a single moment.
    """
    if not moments:
        return LoadState(Level.UNKNOWN, ("no numbers yet",))
    last = moments[-1]
    if last.running is None and last.waiting is None:
        return LoadState(Level.UNKNOWN, ("the engine does not report running or waiting requests",))
    if last.hung:
        return LoadState(Level.HUNG, _hung(last))
    if all(not m.running and not m.waiting for m in moments[-least:]):
        return LoadState(Level.HEADROOM, ("no load",), idle=True)
    now = _now(moments, least)
    limits = (("batch",) if now.batch_full else ()) + (("kv",) if now.kv_full else ())
    found = (
        _overloaded(now)
        or _saturated(now, bend or Bend())
        or _near(now, bend or Bend())
        or LoadState(Level.HEADROOM, _calm(now))
    )
    return LoadState(found.level, found.reasons, limits=limits, growth=now.growth)


def _hung(last: Moment) -> tuple[str, ...]:
    parts = [f"{f.count(last.running)} running"] if last.running else []
    parts += [f"{f.count(last.waiting)} waiting"] if last.waiting else []
    since = f" for {f.duration(last.unchanged_s)}" if last.unchanged_s else ""
    return (f"{', '.join(parts) or 'requests run'}, no number moved{since}",)


def _overloaded(now: _Now) -> LoadState | None:
    if not now.lasting:
        return None
    longer = now.waiting >= max(MOST_QUEUED, now.running)
    if not now.growth and not longer:
        return None
    reasons = [f"queue grows {f.rate(now.growth)}/s"] if now.growth else []
    reasons.append(_queue_words(now))
    if longer and not now.growth and now.running >= 1:
        # By Little's law, the times in the queue and in the batch are proportional to their sizes.
        reasons.append("a request waits longer than it runs")
    return LoadState(Level.OVERLOADED, (*reasons, *_delay(now)))


def _saturated(now: _Now, bend: Bend) -> LoadState | None:
    if now.lasting:
        return LoadState(Level.SATURATED, (_queue_words(now), *_delay(now)))
    if now.preempted > 0 and (now.kv or 0.0) >= KV_NEAR:
        words = f"KV {_full(now)}, {_preemptions(now)}"
        return LoadState(Level.SATURATED, (words, *_delay(now)))
    asked = now.running + now.waiting
    if bend.flat is not None and asked >= 0.9 * bend.flat:
        words = f"more load brings no more tok/s (flat at {f.rate(bend.tokens)})"
        return LoadState(Level.SATURATED, (words, *_calm(now)))
    if now.marginal is not None and now.marginal >= MARGINAL_FLAT:
        return LoadState(Level.SATURATED, (_more_load(now.marginal), *_calm(now)))
    return None


def _near(now: _Now, bend: Bend) -> LoadState | None:
    reasons = []
    if (now.batch or 0.0) >= CAP_NEAR:
        reasons.append(f"{f.count(now.last[0])} of {f.count(now.cap)} running")
    if (now.kv or 0.0) >= KV_NEAR:
        reasons.append(f"KV {f.percent(now.last_kv)}")
    if now.comes_and_goes:
        reasons.append("a queue comes and goes")
    asked = now.running + now.waiting
    if not reasons and bend.near is not None and asked >= 0.9 * bend.near:
        reasons.append("more load brings few more tok/s")
    if not reasons and now.marginal is not None and now.marginal >= MARGINAL_NEAR:
        reasons.append(_more_load(now.marginal))
    return LoadState(Level.NEAR_KNEE, (*reasons, *_delay(now))) if reasons else None


def _more_load(marginal: float) -> str:
    more = 2 / (1 + marginal) - 1
    return f"twice the load adds ~{f.percent(more)} tok/s"


def _calm(now: _Now) -> tuple[str, ...]:
    of = f" of {f.count(now.cap)}" if now.cap is not None else ""
    reasons = [f"{f.count(now.last[0])}{of} running"]
    if now.kv is not None:
        reasons.append(f"KV {f.percent(now.last_kv)}")
    if not round(now.waiting):
        reasons.append("nothing waits")
    return tuple(reasons)


def _queue_words(now: _Now) -> str:
    """The limits that are reached and the length of the queue; without a limit, the batch."""
    waiting = f"{f.count(now.last[1])} waiting"
    limits = []
    if now.batch_full:
        limits.append(f"batch limit {f.count(now.cap)} reached")
    if now.kv_full or now.preempted > 0:
        limits.append(f"KV {_full(now)}")
    if now.preempted > 0:
        limits.append(_preemptions(now))
    if limits:
        return ", ".join((*limits, waiting))
    if round(now.running) == 0:
        return f"{waiting}, none running"
    of = f" of {f.count(now.cap)}" if now.cap is not None else ""
    kv = f", KV {f.percent(now.last_kv)}" if now.kv is not None else ""
    return f"{waiting} at {f.count(now.last[0])}{of} running{kv}"


def _full(now: _Now) -> str:
    return "full" if (now.kv or 0.0) >= 0.985 or now.kv is None else f.percent(now.last_kv)


def _preemptions(now: _Now) -> str:
    return f"{f.short(now.preempted)} preemptions/min"


def _delay(now: _Now) -> tuple[str, ...]:
    if now.oldest is not None and now.oldest >= 0.5:
        return (f"oldest {f.latency(now.oldest)}",)
    return (f"TTFT {now.ttft_is} {f.latency(now.ttft)}",) if now.ttft is not None else ()


def _now(moments: Sequence[Moment], least: int) -> _Now:
    last = moments[-1]
    recent = [m for m in moments if m.time > last.time - RECENT_S]
    recent = list(moments[-least:]) if len(recent) < least else recent
    running = mean([m.running for m in recent]) or 0.0
    cap = newest(m.cap for m in recent)
    if cap and running > cap * 1.05:
        cap = None  # more requests run: it is the limit of one rank, or it is not in force
    kv = mean([m.kv_usage for m in recent])
    full = (kv or 0.0) >= KV_FULL or (cap and running >= CAP_FULL * cap)
    # New requests wait for the end of the running step. So a few wait even without a limit.
    queued = 1.0 if full else max(2.0, IN_TRANSIT * running)
    past = [m for m in moments if m.time > last.time - GROWTH_S]
    return _Now(
        running,
        mean([m.waiting for m in recent]) or 0.0,
        (last.running or 0.0, last.waiting or 0.0),
        cap,
        kv,
        newest(m.kv_usage for m in recent),
        last.preemptions_per_min or 0.0,
        last.oldest_wait,
        last.ttft,
        last.ttft_is,
        len(recent) >= least and _share_queued(recent, queued) >= STANDING,
        len(past) >= 2 * LEAST and _share_queued(past, queued) >= INTERMITTENT,
        _growth(past, running),
        mean([m.marginal for m in recent]),
    )


def _growth(moments: Sequence[Moment], running: float) -> float:
    """How fast the queue grows, in requests per second.

    0.0 where it does not grow from each third of the time to the next, or where it grew by less
    than a tenth of the running requests.
    """
    queue = [(m.time, m.waiting) for m in moments if m.waiting is not None]
    third = len(queue) // 3
    if third < 2:
        return 0.0
    parts = queue[:third], queue[third : 2 * third], queue[2 * third :]
    first, middle, last = (mean([value for _, value in part]) or 0.0 for part in parts)
    half = len(parts[2]) // 2
    before, now = (
        mean([value for _, value in part]) for part in (parts[2][:half], parts[2][half:])
    )
    seconds = mean([time for time, _ in parts[2]]) or 0.0
    seconds -= mean([time for time, _ in parts[0]]) or 0.0
    if not (first < middle < last and (before or 0.0) < (now or 0.0)):
        return 0.0  # a burst: the queue grew once and has not grown since
    if last - first < max(4.0, 0.1 * running) or seconds <= 0:
        return 0.0
    return (last - first) / seconds


def _share_queued(moments: Sequence[Moment], queued: float) -> float:
    """The share of moments in which at least ``queued`` requests wait."""
    return sum((m.waiting or 0.0) >= queued for m in moments) / len(moments)
