"""A sliding window over an engine's readings: what happened lately, never since the start.

An engine only ever tells totals. Two of its readings laid side by side tell what happened between
them, and over how long: that is all that is shown, so that an hour of calm cannot hide a minute of
overload.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from llmtop.engines.histograms import difference, summary
from llmtop.engines.samples import Counter, EngineSample, Latency, Quantiles, Reading

# Below this two readings are one moment: a rate over it would be noise of the scrape's own timing.
MIN_SPAN_S = 0.05
# A process's start is told to a hundredth of a second; no engine restarts within one.
_MOST = 10**9  # requests; no queue is longer
_FULL = 1.01  # a share of 1 may be rounded up
_SAME_START_S = 1.0


class Window:
    """Makes a sample of each reading of one engine. Holds the readings of the last ``seconds``.

    seconds: what quantiles, shares and counts look back on. rate_seconds: what rates look back on:
    three beats are enough to even out the engine's steps, ten would hide a change for ten seconds.
    Each compares the newest reading with the one whose age comes nearest to that, so a missed beat
    makes a window longer or shorter, and the sample says how long it truly was. All ages are on
    the readings' monotonic clock.
    """

    def __init__(self, seconds: float = 10.0, rate_seconds: float = 3.0) -> None:
        self._seconds = seconds
        self._rate_seconds = min(rate_seconds, seconds)
        # Oldest first, the newest is in it; bounded also where the clock does not move.
        self._readings: deque[Reading] = deque(maxlen=1000)
        self._moved: float | None = None  # when something last differed from the reading before

    def add(self, reading: Reading) -> EngineSample:
        """Take a reading in, and say what it and the ones before it tell.

        After the first reading, and after a restart, rates and distributions are unknown.
        """
        last = self._readings[-1] if self._readings else None
        restarted = last is not None and _restarted(reading, last)
        if restarted or (last is not None and reading.elapsed < last.elapsed):
            self._readings.clear()
            last = None
        if last is None or _moved(reading, last):
            self._moved = reading.elapsed
        self._keep(reading)
        long = self._base(self._readings, self._seconds)
        short = self._base(self._readings, self._rate_seconds)
        return EngineSample(
            time=reading.time,
            window_s=_span(reading, long),
            rate_window_s=_span(reading, short) if short is not None else None,
            model=reading.model,
            running=_possible(reading.running),
            waiting=_possible(reading.waiting),
            kv_usage=_share_of(reading.kv_usage),
            kv_tokens_used=_tokens_used(reading),
            kv_tokens_evictable=reading.kv_tokens_evictable,
            kv_tokens_total=reading.kv_tokens_total,
            output_tokens_per_s=_rate(reading, short, Counter.OUTPUT_TOKENS),
            prompt_tokens_per_s=_rate(reading, short, Counter.PROMPT_TOKENS),
            requests_per_s=_rate(reading, short, Counter.REQUESTS_OK),
            prefix_hit_rate=_share(reading, long, Counter.PREFIX_HITS, Counter.PREFIX_QUERIES),
            preemptions=_count(reading, long, Counter.PREEMPTIONS),
            spec_acceptance=_acceptance(reading, long),
            spec_accepted_length=_accepted_length(reading, long),
            spec_acceptance_by_position=_by_position(reading, long),
            latencies={
                latency: found
                for latency in reading.histograms
                if (found := self._quantiles(reading, latency, long)) is not None
            },
            restarted=restarted,
            unchanged_s=self._unchanged(reading),
        )

    def _keep(self, reading: Reading) -> None:
        self._readings.append(reading)
        # One reading from before the window stays: without it a window after a gap would be empty.
        while (
            len(self._readings) > 2 and reading.elapsed - self._readings[1].elapsed >= self._seconds
        ):
            self._readings.popleft()

    def _base(self, readings: Sequence[Reading], seconds: float) -> Reading | None:
        """The reading to compare the newest one with."""
        newest = self._readings[-1]
        spans = [(newest.elapsed - old.elapsed, old) for old in readings]
        usable = [(abs(span - seconds), old) for span, old in spans if span >= MIN_SPAN_S]
        return min(usable, key=lambda pair: pair[0])[1] if usable else None

    def _quantiles(
        self, reading: Reading, latency: Latency, long: Reading | None
    ) -> Quantiles | None:
        # Some engines show a distribution only once it has an observation (SGLang, TensorRT-LLM):
        # it is laid against the readings that have it, and its own window is the shorter one.
        base = long
        if long is None or latency not in long.histograms:
            having = [old for old in self._readings if latency in old.histograms]
            base = self._base(having, self._seconds)
        if base is None:
            return None
        between = difference(reading.histograms[latency], base.histograms[latency])
        return summary(between, _span(reading, base)) if between is not None else None

    def _unchanged(self, reading: Reading) -> float | None:
        if not reading.running or self._moved is None or reading.elapsed <= self._moved:
            return None
        return reading.elapsed - self._moved


def _restarted(new: Reading, old: Reading) -> bool:
    starts = (new.process_start, old.process_start)
    # Counters alone do not tell: a busy new process may have overtaken the old one's totals.
    if starts[0] is not None and starts[1] is not None:
        return abs(starts[0] - starts[1]) > _SAME_START_S or _fell(new, old)
    return _fell(new, old)


def _fell(new: Reading, old: Reading) -> bool:
    return any(value < old.counters.get(name, value) for name, value in new.counters.items())


def _moved(new: Reading, old: Reading) -> bool:
    return (
        (new.running, new.waiting, new.kv_usage) != (old.running, old.waiting, old.kv_usage)
        or new.counters != old.counters
        or new.histograms != old.histograms
    )


def _possible(count: int | None) -> int | None:
    """A number of requests as it can be; None for what somebody's exposition text makes up."""
    return count if count is not None and 0 <= count < _MOST else None


def _share_of(share: float | None) -> float | None:
    return share if share is not None and 0.0 <= share <= _FULL else None


def _span(new: Reading, old: Reading | None) -> float:
    return new.elapsed - old.elapsed if old is not None else 0.0


def _growth(new: Reading, old: Reading | None, counter: Counter) -> float | None:
    if old is None or counter not in new.counters or counter not in old.counters:
        return None
    return new.counters[counter] - old.counters[counter]


def _rate(new: Reading, old: Reading | None, counter: Counter) -> float | None:
    growth = _growth(new, old, counter)
    return growth / _span(new, old) if growth is not None else None


def _count(new: Reading, old: Reading | None, counter: Counter) -> int | None:
    growth = _growth(new, old, counter)
    return round(growth) if growth is not None else None


def _share(new: Reading, old: Reading | None, part: Counter, whole: Counter) -> float | None:
    """Part over whole in the window; None when the whole is nothing: no share of nothing is 0 %."""
    some, all_of_it = _growth(new, old, part), _growth(new, old, whole)
    return some / all_of_it if some is not None and all_of_it else None


def _acceptance(new: Reading, old: Reading | None) -> float | None:
    if new.spec_acceptance is not None:
        return new.spec_acceptance
    return _share(new, old, Counter.ACCEPTED_TOKENS, Counter.DRAFT_TOKENS)


def _accepted_length(new: Reading, old: Reading | None) -> float | None:
    if new.spec_accepted_length is not None:
        return new.spec_accepted_length
    accepted = _share(new, old, Counter.ACCEPTED_TOKENS, Counter.DRAFTS)
    return 1.0 + accepted if accepted is not None else None


def _by_position(new: Reading, old: Reading | None) -> tuple[float, ...]:
    drafts = _growth(new, old, Counter.DRAFTS)
    if (
        old is None
        or not drafts
        or len(new.accepted_per_position) != len(old.accepted_per_position)
    ):
        return ()
    pairs = zip(new.accepted_per_position, old.accepted_per_position, strict=True)
    return tuple((after - before) / drafts for after, before in pairs)


def _tokens_used(reading: Reading) -> int | None:
    if reading.kv_tokens_used is not None:
        return reading.kv_tokens_used
    usage = _share_of(reading.kv_usage)
    if usage is None or reading.kv_tokens_total is None:
        return None
    return round(usage * reading.kv_tokens_total)
