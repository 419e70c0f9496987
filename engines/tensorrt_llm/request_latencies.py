"""TensorRT-LLM's /perf_metrics: timestamps of each finished request; every read empties it.

Source of the fields: tensorrt_llm/serve/openai_server.py (``get_perf_metrics``) and the keys that
tests/unittest/llmapi/apps/_test_openai_perf_metrics.py asserts. Each may be missing. Timestamps are
seconds of one steady clock. The server keeps the last ``perf_metrics_max_requests`` requests; some
versions do not keep chat requests.
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
_LONGEST_S = 86_400.0  # a longer latency is invalid
SOME, PART = 10, 0.05  # number and share of requests that may differ: the pages are read in turn
_FIRST_TOKEN = "first_token_time"
# Latency: timestamps of its begin and end. The server's timestamps are preferred.
_SPANS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "ttft": (("server_arrival_time", "server_first_token_time"), ("arrival_time", _FIRST_TOKEN)),
    "e2e": (("server_arrival_time", "last_token_time"), ("arrival_time", "last_token_time")),
    "queue": (("arrival_time", "first_scheduled_time"),),
    "prefill": (("first_scheduled_time", _FIRST_TOKEN),),
}
MISSING = {
    "tpot": "TensorRT-LLM does not report the number of tokens of a request",
    "itl": "TensorRT-LLM does not report it",
}


class RequestLatencies:
    """Exact latencies of the requests that ended since the first read."""

    def __init__(self) -> None:
        self._counts: dict[str, dict[int, int]] = {}
        self._sums: dict[str, float] = {}
        self._from_server = True
        self._seen = 0
        self._begin: tuple[float, int] | None = None  # (ended, seen) when both were first known

    def add(self, records: Sequence[Record], kept: int, ended: float | None) -> None:
        """Add the requests of one answer.

        kept: how many requests the server keeps. ended: requests that had ended before the read,
        according to Prometheus; None: unknown. Raises LiveError if requests are missing, because
        percentiles of a part are not those of the engine.
        """
        lost = self._seen > 0 and len(records) >= kept
        self._add(records)
        if lost:
            self._begin = None
            raise LiveError(
                f"more than {kept} requests ended between two reads",
                f"give a larger number: --set {SETTING}={kept * 10}",
            )
        if ended is None or not self._seen:
            return
        if self._begin is None:
            self._begin = ended, self._seen
        since, seen = ended - self._begin[0], self._seen - self._begin[1]
        if since - seen > max(SOME, PART * since):
            raise LiveError(f"{PATH} has only {seen} of {since:.0f} requests")

    def _add(self, records: Sequence[Record]) -> None:
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
        """The latencies of all requests that were read. time: unix seconds."""
        histograms = {
            name: LatencyHistogram(sum(counts.values()), self._sums[name], buckets=dict(counts))
            for name, counts in self._counts.items()
        }
        start = SERVER if self._from_server else SCHEDULER
        return Latencies(histograms, time, 1, MISSING, {"ttft": start, "e2e": start})


def _between(times: Record, begin: str, end: str) -> float | None:
    start, stop = number(times, begin), number(times, end)
    # 0 means that the event did not happen.
    if not start or not stop or not 0 <= stop - start < _LONGEST_S:
        return None
    return stop - start
