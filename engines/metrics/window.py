"""A sliding window over an engine's readings: recent values, not totals since the start.

An engine reports only totals. The difference of two readings shows what happened between them. The
screen shows only such differences, so an hour of low load cannot hide a minute of overload.

Some engines show a series only after its first event (SGLang, TensorRT-LLM). A series that appears
while llmtop watches counts from 0: its first value happened since the reading before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from llmtop.engines.core import conditions
from llmtop.engines.core.conditions import HUNG_S, UNEVEN, Condition, Name
from llmtop.engines.core.samples import Counter, EngineSample, Latency, Quantiles, Reading
from llmtop.engines.metrics.histograms import difference, empty, possible, summary
from llmtop.engines.metrics.plausibility import plausible
from llmtop.engines.metrics.replicas import Answerer, Replicas
from llmtop.values import replace

# Closer readings count as one moment: a rate between them would be timing noise.
MIN_SPAN_S = 0.05
_MOST = 10**9  # requests: no queue is longer
_FULL = 1.01  # a share of 1 may be rounded up


class Window:
    """Makes a sample of each reading of one engine. Holds the readings of the last ``seconds``.

    seconds: the window of quantiles, shares and counts. rate_seconds: the window of rates: three
    readings smooth the engine's steps, ten would hide a change for ten seconds. Each compares the
    newest reading with the one whose age is closest to the window. A missed reading makes a window
    longer or shorter; the sample has its true length. All ages use the readings' monotonic clock.
    """

    def __init__(self, seconds: float = 10.0, rate_seconds: float = 3.0) -> None:
        self._seconds = seconds
        self._rate_seconds = min(rate_seconds, seconds)
        # Oldest first, including the newest; bounded even if the clock stands still.
        self._readings: deque[Reading] = deque(maxlen=1000)
        self._moved: float | None = None  # when a value last differed from the reading before
        self._appeared: dict[Counter | Latency, float] = {}  # series missing in the first reading
        self._seen: set[Counter | Latency] = set()
        self._replicas = Replicas()

    @property
    def seconds(self) -> float:
        """The window of quantiles, shares and counts."""
        return self._seconds

    def add(self, reading: Reading) -> EngineSample:
        """Add a reading and return the sample of the window.

        After the first reading, after a restart, and after the answer of another server, rates and
        distributions are unknown.
        """
        last = self._readings[-1] if self._readings else None
        answered = self._replicas.identify(reading)
        if answered is not Answerer.SAME or (last is not None and reading.elapsed < last.elapsed):
            self._readings.clear()
            self._appeared.clear()
            self._seen.clear()
            last = None
        self._note_new(reading, last)
        if last is None or _moved(reading, last):
            self._moved = reading.elapsed
        self._keep(reading)
        long = self._base(self._readings, self._seconds)
        short = self._base(self._readings, self._rate_seconds)
        since, recent = self._filled(reading, long), self._filled(reading, short)
        sample = EngineSample(
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
            output_tokens_per_s=_rate(reading, recent, Counter.OUTPUT_TOKENS),
            prompt_tokens_per_s=_rate(reading, recent, Counter.PROMPT_TOKENS),
            requests_per_s=_rate(reading, recent, Counter.REQUESTS_OK),
            prefix_hit_rate=_share(reading, since, Counter.PREFIX_HITS, Counter.PREFIX_QUERIES),
            preemptions=_count(reading, since, Counter.PREEMPTIONS),
            spec_acceptance=_acceptance(reading, since),
            spec_accepted_length=_accepted_length(reading, since),
            spec_acceptance_by_position=_by_position(reading, since),
            latencies=possible(
                {
                    latency: found
                    for latency in reading.histograms
                    if (found := self._quantiles(reading, latency, since)) is not None
                }
            ),
            restarted=answered is Answerer.RESTARTED,
            unchanged_s=self._unchanged(reading),
            still_s=None if self._moved is None else max(0.0, reading.elapsed - self._moved),
            conditions=self._conditions(reading),
            kv_usage_fullest=_share_of(reading.kv_usage_fullest),
        )
        return plausible(sample, _impossible(reading))

    def _note_new(self, reading: Reading, last: Reading | None) -> None:
        names: set[Counter | Latency] = {*reading.counters, *reading.histograms}
        for name in names - self._seen:
            self._seen.add(name)
            if last is not None and not _is_incomplete(last):
                self._appeared[name] = reading.elapsed

    def _filled(self, reading: Reading, base: Reading | None) -> Reading | None:
        """The reading to compare with, and 0 for every series that appeared after it."""
        if base is None or not self._appeared:
            return base
        late = {name for name, at in self._appeared.items() if base.elapsed < at}
        counters = {name: 0.0 for name in late if isinstance(name, Counter)}
        shown = {name: empty(hist) for name, hist in reading.histograms.items() if name in late}
        if not counters and not shown:
            return base
        positions = reading.accepted_per_position if Counter.DRAFTS in late else ()
        return replace(
            base,
            counters={**base.counters, **counters},
            histograms={**base.histograms, **shown},
            accepted_per_position=base.accepted_per_position or (0.0,) * len(positions),
        )

    def _keep(self, reading: Reading) -> None:
        self._readings.append(reading)
        # One reading from before the window stays: without it a window after a gap would be empty.
        while (
            len(self._readings) > 2 and reading.elapsed - self._readings[1].elapsed >= self._seconds
        ):
            self._readings.popleft()

    def _base(self, readings: Sequence[Reading], seconds: float) -> Reading | None:
        """The reading to compare with the newest one."""
        newest = self._readings[-1]
        spans = [(newest.elapsed - old.elapsed, old) for old in readings]
        usable = [(abs(span - seconds), old) for span, old in spans if span >= MIN_SPAN_S]
        return min(usable, key=lambda pair: pair[0])[1] if usable else None

    def _quantiles(
        self, reading: Reading, latency: Latency, long: Reading | None
    ) -> Quantiles | None:
        # A series that was missing for a moment is compared with the readings that have it, in a
        # shorter window.
        base = long
        if long is None or latency not in long.histograms:
            having = [old for old in self._readings if latency in old.histograms]
            base = self._base(having, self._seconds)
        if base is None:
            return None
        between = difference(reading.histograms[latency], base.histograms[latency])
        return summary(between, _span(reading, base)) if between is not None else None

    def _unchanged(self, reading: Reading) -> float | None:
        busy = _possible(reading.running) or _possible(reading.waiting)
        if not busy or self._moved is None or reading.elapsed <= self._moved:
            return None
        return reading.elapsed - self._moved

    def _conditions(self, reading: Reading) -> tuple[Condition, ...]:
        found = list(reading.conditions)
        still_s = self._unchanged(reading)
        asleep = any(one.name is Name.ASLEEP for one in found)
        if still_s is not None and still_s >= HUNG_S and not asleep:
            running, waiting = _possible(reading.running), _possible(reading.waiting)
            found.append(conditions.hung(running, waiting, still_s))
        if self._replicas.several(reading.elapsed):
            found.append(conditions.several_servers())
        mean, fullest = _share_of(reading.kv_usage), _share_of(reading.kv_usage_fullest)
        ranks = all(one.name is not Name.SEVERAL_MODELS for one in found)
        if ranks and mean is not None and fullest is not None and fullest - mean >= UNEVEN:
            found.append(conditions.uneven_ranks(mean, fullest))
        return conditions.gravest_first(found)


def _is_incomplete(reading: Reading) -> bool:
    """Whether a missing series may exist: a page failed, or was empty."""
    gauges = (reading.running, reading.waiting, reading.kv_usage, reading.kv_tokens_total)
    nothing = not reading.counters and not reading.histograms and set(gauges) == {None}
    return reading.partial or nothing


def _moved(new: Reading, old: Reading) -> bool:
    return (
        (new.running, new.waiting, new.kv_usage) != (old.running, old.waiting, old.kv_usage)
        or new.counters != old.counters
        or new.histograms != old.histograms
    )


def _possible(count: int | None) -> int | None:
    """A plausible number of requests; None for an impossible one."""
    return count if count is not None and 0 <= count < _MOST else None


def _impossible(reading: Reading) -> dict[str, float]:
    """Gauges that no engine can have, by their names in a message."""
    gauges: dict[str, tuple[float | None, float | None]] = {
        "running requests": (reading.running, _possible(reading.running)),
        "waiting requests": (reading.waiting, _possible(reading.waiting)),
        "KV cache in use": (reading.kv_usage, _share_of(reading.kv_usage)),
    }
    return {
        name: value
        for name, (value, possible) in gauges.items()
        if value is not None and possible is None
    }


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
    """Part / total in the window; None for a total of 0: that has no share."""
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
    """None too if the share is unknown: a count beside ``--`` would look up to date."""
    usage = _share_of(reading.kv_usage)
    if usage is None:
        return None
    if reading.kv_tokens_used is not None:
        return reading.kv_tokens_used
    if reading.kv_tokens_total is None:
        return None
    return round(usage * reading.kv_tokens_total)
