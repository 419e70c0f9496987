"""One instance over time: its readings, its sliding windows, and its state."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from enum import StrEnum

from msgspec import Struct, field

from llmtop.engines.core.conditions import Condition, Name
from llmtop.engines.core.samples import BucketHistogram, EngineSample, Latency, Reading
from llmtop.engines.metrics.histograms import difference
from llmtop.engines.metrics.window import Window
from llmtop.fleet.targets import MOST_LABEL, Key, Target, label_text
from llmtop.printable import printable

WINDOW_S = 60.0  # window of percentiles, prefix hits and preemptions
RATE_S = 20.0  # window of rates: longer than a usual scrape interval, so it has two scrapes
STALE_INTERVALS = 2.5  # scrape intervals without a scrape after which an instance is stale
UNKNOWN_INTERVAL_S = 30.0  # assumed scrape interval until two scrapes were seen
LEAST_STALE_S = 10.0
RESTARTED_S = 60.0  # how long a restart is shown
MOST_REASON = 3 * MOST_LABEL  # characters
TIMED_OUT_S = 0.9  # a failed scrape that took longer timed out; a faster one was refused


Id = tuple[str, str, Key]


class State(StrEnum):
    """The state of an instance, the most severe first."""

    GONE = "gone"  # nothing answers at its address
    HUNG = "hung"  # its page does not answer in time, or requests run and no metric changes
    STALE = "stale"  # its metrics are old, or its page cannot be read
    RESTARTED = "restarted"  # it runs, and its process is less than a minute old
    READY = "ready"


ORDER = {state: rank for rank, state in enumerate(State)}


class Instance(Struct, frozen=True):
    """One row of the table. None: not known.

    reason: why it is in this state. age_s: time since its last scrape. power_w: power of its own
    GPUs. shared_power: only the power of all GPUs of its host is known, and other engines use them
    too. dollars_per_hour: price of its GPUs. ttft: the buckets of the window of ttft_window_s,
    to be summed over instances.
    """

    instance: str
    job: str
    host: str
    engine: str
    model: str | None
    version: str | None
    state: State
    reason: str
    sample: EngineSample | None
    age_s: float | None
    power_w: float | None = None
    shared_power: bool = False
    gpus: int | None = None
    dollars_per_hour: float | None = None
    ttft: BucketHistogram | None = None
    ttft_window_s: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> Id:
        """A unique identifier: two instances may have the same job and address."""
        return self.job, self.instance, tuple(sorted(self.labels.items()))

    @property
    def dollars_per_million_tokens(self) -> float | None:
        """The price of a million generated tokens at the present rate."""
        rate = self.sample.output_tokens_per_s if self.sample is not None else None
        return per_million(self.dollars_per_hour, rate if self.fresh else None)

    @property
    def fresh(self) -> bool:
        """Whether its metrics are those of the present."""
        return self.state in (State.READY, State.RESTARTED)


def per_million(dollars_per_hour: float | None, tokens_per_s: float | None) -> float | None:
    """The price of a million tokens; None if a rate is not known or no token was generated."""
    if dollars_per_hour is None or not tokens_per_s:
        return None
    return dollars_per_hour / 3600 / tokens_per_s * 1e6


class InstanceTracker:
    """The readings of one instance over the polls. kind: of its engine."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.model: str | None = None
        self._window = Window(WINDOW_S, RATE_S)
        self._buckets: deque[tuple[float, BucketHistogram]] = deque(maxlen=200)
        self._sample: EngineSample | None = None
        self._scraped_at: float | None = None
        self._interval: float | None = None
        self._restarted_at: float | None = None

    @property
    def sample(self) -> EngineSample | None:
        """The newest sample."""
        return self._sample

    def is_new(self, scraped_at: float) -> bool:
        """Whether a scrape of this time (unix seconds) is newer than the last one."""
        return self._scraped_at is None or scraped_at > self._scraped_at

    def add(self, reading: Reading) -> None:
        """Add a reading. One of an old scrape is ignored."""
        if not self.is_new(reading.elapsed):
            return
        if self._scraped_at is not None:
            step = reading.elapsed - self._scraped_at
            # The shortest time between two scrapes: polls may have missed scrapes.
            self._interval = step if self._interval is None else min(step, self._interval)
        self._scraped_at = reading.elapsed
        self._sample = self._window.add(reading)
        self.set_model(reading.model)
        if self._sample.restarted:
            self._restarted_at = reading.elapsed
            self._buckets.clear()
        self._add_buckets(reading)

    def set_model(self, model: str | None) -> None:
        """Set the model's name, cleaned for display. None or "" keeps the last one."""
        self.model = label_text(model or "") or self.model

    def _add_buckets(self, reading: Reading) -> None:
        found = reading.histograms.get(Latency.TTFT)
        if found is None:
            return
        if self._buckets and difference(found, self._buckets[-1][1]) is None:
            self._buckets.clear()
        self._buckets.append((reading.elapsed, found))
        while len(self._buckets) > 2 and reading.elapsed - self._buckets[1][0] >= WINDOW_S:
            self._buckets.popleft()

    def ttft(self) -> tuple[BucketHistogram | None, float]:
        """The buckets of the observations in the window, and its length in seconds."""
        if len(self._buckets) < 2:
            return None, 0.0
        (began, old), (ended, new) = self._buckets[0], self._buckets[-1]
        return difference(new, old), ended - began

    def observe(self, target: Target, now: float, error: str = "") -> Instance:
        """The row at ``now``. error: the error of the last scrape, "" if it is not known."""
        age = None if target.scraped_at is None else max(0.0, now - target.scraped_at)
        state, reason = self._state(target, age, now, error)
        ttft, window_s = self.ttft()
        if ttft is not None and ttft.counts[-1] < 0.5:  # nothing was observed
            ttft = None
        return Instance(
            instance=target.instance,
            job=target.job,
            host=target.host,
            engine=self.kind,
            model=self.model,
            version=target.version,
            state=state,
            reason=printable(reason, MOST_REASON),
            sample=self._sample if state not in (State.GONE,) else None,
            age_s=age,
            ttft=ttft if state in (State.READY, State.RESTARTED) else None,
            ttft_window_s=window_s,
            labels=target.labels,
        )

    def _state(
        self, target: Target, age: float | None, now: float, error: str
    ) -> tuple[State, str]:
        if age is not None and age > self._stale_s():
            return State.STALE, f"not scraped for {age:.0f} s"
        if not target.up:
            return failed_scrape(target, error)
        found = {one.name: one for one in self._sample.conditions} if self._sample else {}
        if (hung := found.get(Name.HUNG)) is not None:
            return State.HUNG, hung.message.removeprefix("hung: ")
        if self._sample is None:
            return State.STALE, "its metrics page has no metrics of the engine"
        if self._restarted_at is not None and now - self._restarted_at <= RESTARTED_S:
            words = (
                f"restarted {now - self._restarted_at:.0f} s ago",
                _first(tuple(found.values())),
            )
            return State.RESTARTED, "; ".join(word for word in words if word)
        return State.READY, _first(found.values())

    def _stale_s(self) -> float:
        interval = self._interval or UNKNOWN_INTERVAL_S
        return max(LEAST_STALE_S, STALE_INTERVALS * interval)


def failed_scrape(target: Target, error: str) -> tuple[State, str]:
    """The state and its reason after a failed scrape. error: the message of the Prometheus."""
    lower = error.lower()
    took = f" ({target.scrape_s:.1f} s)" if target.scrape_s is not None else ""
    if "deadline exceeded" in lower or "timeout" in lower:
        return State.HUNG, f"its metrics page did not answer in time{took}"
    refused = ("refused", "no such host", "unreachable", "no route")
    if any(words in lower for words in refused):
        return State.GONE, "nothing answers at its address"
    if lower.endswith("eof") or "reset by peer" in lower:  # it was killed during the scrape
        return State.GONE, "it closed the connection without an answer"
    if error:
        return State.STALE, f"its page cannot be read: {error}"
    if target.scrape_s is not None and target.scrape_s >= TIMED_OUT_S:
        return State.HUNG, f"its metrics page did not answer in time{took}"
    return State.GONE, "the last scrape failed"


def _first(found: Iterable[Condition]) -> str:
    return next((one.message for one in found), "")
