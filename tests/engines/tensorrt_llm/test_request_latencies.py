"""TensorRT-LLM's exact latencies of requests, in their documented form."""

from __future__ import annotations

from typing import Any

import pytest

from llmtop.engines.core.live_protocol import LiveError
from llmtop.engines.tensorrt_llm.adapter import ADAPTER
from llmtop.engines.tensorrt_llm.request_latencies import RequestLatencies

KEPT = 100


def request(begin: float, ttft: float, **changes: Any) -> dict[str, Any]:
    times = {
        "server_arrival_time": begin,
        "arrival_time": begin + 0.01,
        "first_scheduled_time": begin + 0.05,
        "first_token_time": begin + ttft - 0.02,
        "server_first_token_time": begin + ttft,
        "last_token_time": begin + 2.0,
        **changes,
    }
    return {"request_id": 3, "perf_metrics": {"first_iter": 1, "timing_metrics": times}}


def test_latencies_are_exact_and_begin_at_the_server() -> None:
    read = RequestLatencies()
    assert read.latencies(9.0).histograms == {}  # nothing is known, which is not 0 requests
    read.add([request(1000.0 + n, 0.1 * n) for n in range(1, 11)], KEPT, None)
    found = read.latencies(9.0)
    ttft, e2e = found.histograms["ttft"], found.histograms["e2e"]
    assert (ttft.count, e2e.count) == (10, 10)
    assert ttft.quantile(0.5) == pytest.approx(0.5, rel=0.01)
    assert e2e.mean_s == pytest.approx(2.0)
    assert found.histograms["queue"].quantile(0.5) == pytest.approx(0.04, rel=0.01)
    assert found.base["ttft"] == "arrival at the server"
    assert "tpot" not in found.histograms and "tokens" in found.missing["tpot"]


def test_without_the_servers_moments_they_begin_at_the_scheduler() -> None:
    gone = {"server_arrival_time": None, "server_first_token_time": None}
    read = RequestLatencies()
    read.add([request(1000.0, 0.5, **gone)], KEPT, None)
    found = read.latencies(9.0)
    assert found.base["ttft"] == "arrival at the scheduler"
    assert found.histograms["ttft"].quantile(0.5) == pytest.approx(0.47, rel=0.01)


@pytest.mark.parametrize("wrong", [0, -1, "soon", None, float("nan"), 1e300])
def test_a_moment_that_did_not_come_is_no_latency(wrong: object) -> None:
    read = RequestLatencies()
    changes = dict.fromkeys(("first_token_time", "server_first_token_time"), wrong)
    read.add([request(1000.0, 0.5, **changes), {}, {"perf_metrics": [1]}], KEPT, None)
    assert set(read.latencies(9.0).histograms) == {"e2e", "queue"}


def test_more_requests_than_are_kept_are_said_to_be_lost() -> None:
    read = RequestLatencies()
    read.add([request(1000.0, 0.5)] * KEPT, KEPT, 900)  # of before anybody read
    read.add([request(1000.0, 0.5)] * (KEPT - 1), KEPT, 999)
    with pytest.raises(LiveError, match="more than 100 requests") as caught:
        read.add([request(1000.0, 0.5)] * KEPT, KEPT, 1_500)
    assert "perf_metrics_max_requests=1000" in caught.value.hint
    read.add([request(1000.0, 0.5)] * 50, KEPT, 1_550)  # and again it is all of them


def test_percentiles_of_a_part_are_not_the_engines() -> None:
    read = RequestLatencies()
    read.add([request(1000.0, 0.5)], KEPT, 40)
    read.add([request(1000.0, 0.5)] * 2, KEPT, 51)  # a page that is a little ahead
    with pytest.raises(LiveError, match="has only 4 of 21 requests"):
        read.add([request(1000.0, 0.5)] * 2, KEPT, 61)


@pytest.mark.parametrize(
    ("args", "kept"),
    [
        (("--set", "perf_metrics_max_requests=5000"), 5000),
        ((), 0),
        (("--set", "perf_metrics_max_requests=0"), 0),
        (("--set", "perf_metrics_max_requests=many"), 0),
        (("--set", "perf_metrics_max_requests=5", "--set", "return_perf_metrics=false"), 0),
        (("--config", "mine.yaml", "--set", "perf_metrics_max_requests=5"), 0),
        (("--set", "perf_metrics_max_requests"), 0),
    ],
)
def test_the_operator_decides_whether_requests_are_kept(args: tuple[str, ...], kept: int) -> None:
    assert ADAPTER.kept_requests(args) == kept
