"""TensorRT-LLM's /perf_metrics: moments of each request that ended, which every reading empties.

Source of the fields: tensorrt_llm/serve/openai_server.py (``get_perf_metrics``) and the keys that
tests/unittest/llmapi/apps/_test_openai_perf_metrics.py asserts. Every one may be missing. Moments
are seconds of one steady clock. The server keeps the last ``perf_metrics_max_requests`` of them,
in some versions not those of chats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmtop.engines.core.latencies import Latencies, LatencyHistogram, bucket_of
from llmtop.engines.core.live_protocol import LiveError
from llmtop.engines.tensorrt_llm.record import Record, number, part

PATH = "/perf_metrics"
SETTING = "perf_metrics_max_requests"
SERVER = "arrival at the server"
SCHEDULER = "arrival at the scheduler"
_LONGEST_S = 86_400.0  # a longer one is no measurement
SOME, PART = 10, 0.05  # requests that may be missing: the two pages are not of one moment
_FIRST_TOKEN = "first_token_time"
# Name of the latency: moments at which it begins and ends. Those of the server come first.
_SPANS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "ttft": (("server_arrival_time", "server_first_token_time"), ("arrival_time", _FIRST_TOKEN)),
    "e2e": (("server_arrival_time", "last_token_time"), ("arrival_time", "last_token_time")),
    "queue": (("arrival_time", "first_scheduled_time"),),
    "prefill": (("first_scheduled_time", _FIRST_TOKEN),),
}
MISSING = {
    "tpot": "TensorRT-LLM reports no number of tokens for a request",
    "itl": "TensorRT-LLM does not report it",
}


class RequestLatencies:
    """Exact latencies of the requests that ended since it was read first."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[int, int]] = {}
        self._sums: dict[str, float] = {}
        self._from_server = True
        self._seen = 0
        self._begin: tuple[float, int] | None = None  # ended and seen, when both were known first

    def add(self, records: Sequence[Record], kept: int, ended: float | None) -> None:
        """Take in one answer. kept: at most so many the server keeps. ended: how many ended by
        Prometheus before it was asked for; None: unknown.

        Raises LiveError where it is not all requests. Percentiles of a part are not the engine's.
        """
        lost = self._seen > 0 and len(records) >= kept
        self._take(records)
        if lost:
            self._begin = None
            raise LiveError(
                f"more than {kept} requests ended between two looks",
                f"give a larger one: --set {SETTING}={kept * 10}",
            )
        if ended is None or not self._seen:
            return
        if self._begin is None:
            self._begin = ended, self._seen
        since, seen = ended - self._begin[0], self._seen - self._begin[1]
        if since - seen > max(SOME, PART * since):
            raise LiveError(f"{PATH} has only {seen} of {since:.0f} requests")

    def _take(self, records: Sequence[Record]) -> None:
        self._seen += len(records)
        for record in records:
            times = part(part(record, "perf_metrics"), "timing_metrics")
            for name, spans in _SPANS.items():
                self._observe(name, [_between(times, *span) for span in spans])

    def _observe(self, name: str, found: list[float | None]) -> None:
        seconds = next((one for one in found if one is not None), None)
        if seconds is None:
            return
        if len(found) > 1 and found[0] is None:
            self._from_server = False
        counts = self._counts.setdefault(name, {})
        bucket = bucket_of(seconds)
        counts[bucket] = counts.get(bucket, 0) + 1
        self._sums[name] = self._sums.get(name, 0.0) + seconds

    def latencies(self, time: float) -> Latencies:
        """What was read so far. Nothing is known before the first request."""
        histograms = {
            name: LatencyHistogram(sum(counts.values()), self._sums[name], buckets=dict(counts))
            for name, counts in self._counts.items()
        }
        start = SERVER if self._from_server else SCHEDULER
        return Latencies(histograms, time, 1, MISSING, {"ttft": start, "e2e": start})


def _between(times: Record, begin: str, end: str) -> float | None:
    start, stop = number(times, begin), number(times, end)
    # A moment that did not come is 0.
    if not start or not stop or not 0 <= stop - start < _LONGEST_S:
        return None
    return stop - start
