"""Little's law as a check: time in flight by the records, against that by the counter.

J. D. C. Little and S. C. Graves, "Little's Law", in Building Intuition (2008): over any interval
the mean number in a system is the arrival rate times the mean time spent in it. As an identity
(S. Stidham, 1974): the integral of the number in flight is the sum of what each request spent in
the interval. The edges of a window are what makes X R / N noisy, so they are cut exactly.
"""

from __future__ import annotations

from itertools import pairwise

from msgspec import Struct

from llmtop.loadgen.core.results import Fate, RequestRecord

LEAST_SAMPLES = 10  # of the counter: between two of them it is taken to go straight
LEAST_ENDED = 20


class Balance(Struct, frozen=True):
    """ratio: time in flight by the records over that by the counter; 1 when nothing is missing.

    seconds: of the interval in which both are whole. ended: requests that ended in it.
    """

    ratio: float
    seconds: float
    ended: int

    @property
    def conclusive(self) -> bool:
        """Whether enough requests went into it for a verdict."""
        return self.ended >= LEAST_ENDED


class InFlightAccount:
    """Takes every record and samples of the counter from one moment on.

    All moments in seconds on the records' clock.
    """

    def __init__(self) -> None:
        self._lives: list[tuple[float, float]] = []
        self._samples: list[tuple[float, int]] = []
        self._whole = True

    def take(self, record: RequestRecord) -> None:
        """A request has ended. One that failed or was cut leaves its stream silent for a while,
        which samples of the counter do not show: then there is no balance."""
        if record.ended is None or record.fate is not Fate.OK:
            self._whole = False
        else:
            self._lives.append((record.intended, record.ended))

    def sample(self, at: float, in_flight: int) -> None:
        """So many requests are in flight."""
        self._samples.append((at, in_flight))

    def balance(self, oldest_at: float | None) -> Balance | None:
        """The account from the first sample until the intended moment of the oldest request that
        is still in flight (None: none is): all that was in flight before has its record. None when
        that is too short, or a request did not end well."""
        if not self._whole or not self._samples:
            return None
        begin, end = self._samples[0][0], self._samples[-1][0]
        if oldest_at is not None:
            end = min(end, oldest_at)
        samples = [sample for sample in self._samples if sample[0] <= end]
        if len(samples) < LEAST_SAMPLES:
            return None
        end = samples[-1][0]
        counted = sum((n + m) / 2 * (t - s) for (s, n), (t, m) in pairwise(samples))
        if counted <= 0:
            return None
        recorded = sum(max(0.0, min(last, end) - max(first, begin)) for first, last in self._lives)
        ended = sum(begin < last <= end for _, last in self._lives)
        return Balance(recorded / counted, end - begin, ended)
