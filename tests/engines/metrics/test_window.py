"""What two readings tell, and what they do not; a real ramp against what its client counted."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from typing import Any

import pytest

from llmtop.engines.core.conditions import Name
from llmtop.engines.core.samples import (
    BucketHistogram,
    Counter,
    EngineSample,
    Latency,
    Quantile,
    Quantiles,
    Reading,
)
from llmtop.engines.metrics.exposition import Parser
from llmtop.engines.metrics.histograms import histogram, possible
from llmtop.engines.metrics.window import Window
from llmtop.values import replace
from tests.folders import TESTS

DATA = TESTS / "data" / "metrics"
INF = float("inf")


def reading(
    elapsed: float,
    *,
    running: int | None = 1,
    start: float | None = 1000.0,
    ttft: tuple[float, ...] | None = None,
    usage: float | None = None,
    time: float | None = None,
    positions: tuple[float, ...] = (),
    **counters: float,
) -> Reading:
    histograms = {}
    if ttft is not None:
        histograms[Latency.TTFT] = BucketHistogram((0.1, 0.2, 0.4, INF), ttft, sum(ttft) / 10)
    return Reading(
        time=1_800_000_000 + elapsed if time is None else time,
        elapsed=elapsed,
        model="m",
        running=running,
        waiting=0,
        kv_usage=usage,
        kv_tokens_total=25_600,
        counters={Counter(name): value for name, value in counters.items()},
        histograms=histograms,
        accepted_per_position=positions,
        process_start=start,
    )


def last(window: Window, *readings: Reading) -> EngineSample:
    for item in readings[:-1]:
        window.add(item)
    return window.add(readings[-1])


def test_a_first_reading_tells_gauges_and_no_rates() -> None:
    sample = Window().add(
        reading(5, usage=0.5, output_tokens=1e6, preemptions=3, ttft=(1, 2, 3, 4))
    )
    assert (sample.model, sample.running, sample.waiting) == ("m", 1, 0)
    assert (sample.kv_usage, sample.kv_tokens_used, sample.kv_tokens_total) == (0.5, 12_800, 25_600)
    assert sample.output_tokens_per_s is None
    assert sample.preemptions is None
    assert sample.latencies == {}
    assert (sample.window_s, sample.rate_window_s, sample.restarted) == (0, None, False)


@pytest.mark.parametrize("usage", [-5.0, 5.0])
def test_what_cannot_be_is_not_shown_as_a_fact(usage: float) -> None:
    sample = Window().add(reading(5, usage=usage, running=-3))
    assert (sample.running, sample.kv_usage, sample.kv_tokens_used) == (None, None, None)


def test_rates_are_over_three_seconds_and_the_rest_over_ten() -> None:
    # 100 tok/s for 20 s, then 400: the rate follows within its three seconds.
    totals = [100.0 * t for t in range(21)] + [2000.0 + 400 * t for t in range(1, 6)]
    window = Window()
    samples = [
        window.add(reading(t, output_tokens=total, preemptions=t, requests_ok=2.0 * t))
        for t, total in enumerate(totals)
    ]
    rates = [sample.output_tokens_per_s for sample in samples]
    assert rates[1:21] == [pytest.approx(100)] * 20
    assert rates[21:] == [pytest.approx(rate) for rate in (200, 300, 400, 400, 400)]
    assert samples[-1].requests_per_s == pytest.approx(2)
    assert (samples[-1].rate_window_s, samples[-1].window_s) == (3, 10)
    assert samples[-1].preemptions == 10
    assert (samples[4].rate_window_s, samples[4].window_s, samples[4].preemptions) == (3, 4, 4)


def test_numbers_that_stand_still_while_requests_run_mean_hung_within_ten_seconds() -> None:
    window = Window()
    told = [window.add(reading(t, running=64, output_tokens=9)).conditions for t in range(11)]
    assert told[:8] == [()] * 8
    (found,) = told[10]
    assert found.name is Name.HUNG
    assert "64 running" in found.message and "10s" in found.message and found.hint
    assert window.add(reading(11, running=64, output_tokens=10)).conditions == ()


def test_an_idle_engine_is_not_hung() -> None:
    window = Window()
    assert (
        last(window, *(reading(t, running=0, output_tokens=9) for t in range(60))).conditions == ()
    )


def test_a_late_beat_changes_the_window_and_not_the_rate() -> None:
    window = Window()
    for t in (0.0, 1.0, 2.1, 3.0, 4.6):
        sample = window.add(reading(t, output_tokens=50 * t))
    assert sample.output_tokens_per_s == pytest.approx(50)
    assert sample.rate_window_s == pytest.approx(2.5)  # 3.6 would be further from 3
    sample = window.add(reading(60, output_tokens=3000))
    assert sample.rate_window_s == sample.window_s == pytest.approx(55.4)
    assert sample.output_tokens_per_s == pytest.approx(50)


def test_a_step_of_the_wall_clock_does_no_harm() -> None:
    sample = last(
        Window(),
        reading(0, output_tokens=0),
        reading(1, output_tokens=80, time=1_000_000_000),
    )
    assert sample.output_tokens_per_s == pytest.approx(80)
    assert sample.time == 1_000_000_000


def test_two_readings_of_one_moment_make_no_rate() -> None:
    sample = last(Window(), reading(1, output_tokens=0), reading(1.01, output_tokens=50))
    assert sample.output_tokens_per_s is None


def test_distributions_are_of_the_window_alone() -> None:
    window = Window()
    # A thousand fast first tokens long ago, ten slow ones now: a lifetime p50 would still be fast.
    for t in range(30):
        window.add(reading(t, ttft=(1000, 1000, 1000, 1000)))
    sample = window.add(reading(30, ttft=(1000, 1000, 1010, 1010)))
    found = sample.latencies[Latency.TTFT]
    assert found.p50 == Quantile(0.2, "-", 0.4)
    assert (found.n, found.window_s) == (10, 10)
    sample = last(window, *(reading(t, ttft=(1000, 1000, 1010, 1010)) for t in range(31, 50)))
    found = sample.latencies[Latency.TTFT]
    assert (found.p50, found.p99, found.mean, found.n) == (None, None, None, 0)


def test_a_distribution_that_appears_late_counts_from_nothing() -> None:
    """SGLang shows ITL with its first observation: of 3,004 gaps 1.8k were counted."""
    window = Window()
    for t in range(8):
        window.add(reading(t))
    sample = window.add(reading(8, ttft=(1204, 1204, 1204, 1204)))
    found = sample.latencies[Latency.TTFT]
    assert (found.p50, found.n, found.window_s) == (Quantile(0.1, "<"), 1204, 8)
    sample = window.add(reading(9, ttft=(3004, 3004, 3004, 3004)))
    found = sample.latencies[Latency.TTFT]
    assert (found.n, found.window_s) == (3004, 9)
    # Once the window has left its beginning behind, it is like any other.
    for t in range(10, 25):
        sample = window.add(reading(t, ttft=(3004, 3004, 3004, 3004 + t)))
    assert sample.latencies[Latency.TTFT].n == 10


def test_a_counter_that_appears_late_counts_from_nothing() -> None:
    sample = last(
        Window(),
        reading(0),
        reading(2, output_tokens=500, drafts=10, positions=(9, 5)),
    )
    assert sample.output_tokens_per_s == 250
    assert sample.spec_acceptance_by_position == (0.9, 0.5)


@pytest.mark.parametrize(
    "before",
    [Reading(1.8e9, 0), replace(reading(0), partial=True)],
    ids=["empty page", "page failed"],
)
def test_after_half_a_reading_a_lifetime_is_not_taken_for_a_window(before: Reading) -> None:
    sample = last(Window(), before, reading(1, output_tokens=9_000_000, ttft=(1, 2, 9000, 9000)))
    assert sample.output_tokens_per_s is None
    assert Latency.TTFT not in sample.latencies


def test_a_distribution_that_is_missing_for_a_moment_keeps_what_is_known() -> None:
    sample = last(
        Window(),
        reading(0, ttft=(0, 0, 900, 900)),
        reading(1),
        reading(2, ttft=(0, 0, 905, 905)),
    )
    assert sample.latencies[Latency.TTFT].n == 5


def test_a_restarted_engine_does_not_count_from_the_old_one() -> None:
    window = Window()
    last(window, reading(0, output_tokens=100, start=1.0), reading(1, output_tokens=200, start=1.0))
    sample = window.add(reading(2, output_tokens=9, start=50.0, ttft=(1, 2, 700, 700)))
    assert sample.restarted and not sample.latencies


def queued(queue: Quantile, ttft: Quantile) -> Quantile | None:
    found = possible(
        {
            Latency.QUEUE: Quantiles(None, None, queue, 1.0, 200, 10.0),
            Latency.TTFT: Quantiles(None, None, ttft, 1.0, 200, 10.0),
        }
    )
    return found[Latency.QUEUE].p99


def test_a_queue_is_never_said_to_be_longer_than_the_wait_for_the_first_token() -> None:
    ranged = Quantile(5.0, "-", 10.0)
    assert queued(ranged, Quantile(2.5, "-", 5.0)) is None  # above 5 s, and at most 5 s
    assert queued(ranged, Quantile(4.0)) is None
    assert queued(Quantile(80.0, ">"), ranged) is None
    assert queued(ranged, Quantile(0.3, "<")) is None
    # What may be so stays.
    assert queued(ranged, Quantile(7.5, "-", 10.0)) == ranged
    assert queued(ranged, Quantile(80.0, ">")) == ranged
    assert queued(Quantile(0.3, "<"), Quantile(0.01, "-", 0.02)) == Quantile(0.3, "<")


def test_kv_tokens_are_unknown_where_the_share_is() -> None:
    known = replace(reading(0), kv_usage=0.5, kv_tokens_used=400, kv_tokens_total=1000)
    assert last(Window(), known).kv_tokens_used == 400
    for share in (None, 3.0, -1.0):
        sample = last(Window(), replace(known, kv_usage=share))
        assert (sample.kv_usage, sample.kv_tokens_used) == (None, None)
        assert sample.kv_tokens_total == 1000


def test_shares_are_of_the_window_and_none_of_nothing() -> None:
    first = reading(
        0, prefix_queries=1000, prefix_hits=1000, drafts=10, draft_tokens=40, accepted_tokens=40
    )
    later = reading(
        4, prefix_queries=1200, prefix_hits=1050, drafts=30, draft_tokens=120, accepted_tokens=100
    )
    sample = last(Window(), first, later)
    assert sample.prefix_hit_rate == pytest.approx(0.25)
    assert sample.spec_acceptance == pytest.approx(60 / 80)
    assert sample.spec_accepted_length == pytest.approx(1 + 60 / 20)
    sample = last(Window(), later, replace(later, elapsed=5))
    assert (sample.prefix_hit_rate, sample.spec_acceptance) == (None, None)
    assert sample.spec_accepted_length is None
    assert last(Window(), reading(0), reading(1)).prefix_hit_rate is None


def test_acceptance_by_position() -> None:
    sample = last(
        Window(),
        reading(0, drafts=10, positions=(10, 10, 10)),
        reading(1, drafts=30, positions=(28, 20, 10)),
    )
    assert sample.spec_acceptance_by_position == (0.9, 0.5, 0.0)
    # A draft length that was changed meanwhile leaves nothing to compare.
    sample = last(Window(), reading(0, drafts=1, positions=(1,)), reading(1, drafts=2))
    assert sample.spec_acceptance_by_position == ()


@pytest.mark.parametrize(
    "again",
    [
        reading(10, output_tokens=5),  # a counter went backwards
        # A new process that is ahead already.
        reading(10, output_tokens=5000, start=1_800_000_009.4),
    ],
)
def test_a_restart_begins_the_window_anew(again: Reading) -> None:
    window = Window()
    last(window, *(reading(t, output_tokens=100 * t, preemptions=7) for t in range(10)))
    sample = window.add(again)
    assert sample.restarted
    assert (sample.output_tokens_per_s, sample.preemptions, sample.window_s) == (None, None, 0)
    base = again.counters[Counter.OUTPUT_TOKENS]
    sample = window.add(reading(11, output_tokens=base + 30, start=again.process_start))
    assert not sample.restarted
    assert (sample.output_tokens_per_s, sample.window_s) == (30, 1)


def test_the_start_of_a_process_may_be_told_a_little_differently() -> None:
    sample = last(
        Window(),
        reading(0, output_tokens=0, start=1000.0),
        reading(1, output_tokens=9, start=1000.01),
        reading(2, output_tokens=18, start=None),
    )
    assert not sample.restarted
    assert sample.output_tokens_per_s == 9


def test_numbers_that_stand_still_while_requests_run_are_told() -> None:
    window = Window()
    assert (
        last(window, reading(0, output_tokens=1), reading(1, output_tokens=2)).unchanged_s is None
    )
    assert last(window, *(reading(t, output_tokens=2) for t in (2, 3, 9))).unchanged_s == 8
    assert window.add(reading(10, output_tokens=3)).unchanged_s is None
    idle = Window()
    assert (
        last(idle, *(reading(t, running=0, output_tokens=3) for t in range(60))).unchanged_s is None
    )
    unknown = Window()
    assert last(unknown, reading(0, running=None), reading(9, running=None)).unchanged_s is None


def test_memory_is_bounded_even_when_the_clock_stands() -> None:
    window = Window()
    for n in range(1500):
        window.add(reading(1, output_tokens=n))
    assert len(window._readings) <= 1000
    for n in range(100):
        window.add(reading(2 + n, output_tokens=5000 + n))
    assert len(window._readings) <= 12


def load(name: str) -> Any:
    return json.loads(gzip.decompress((DATA / name).read_bytes()))


def vllm(text: str, parser: Parser, elapsed: float) -> Reading:
    """As much of vLLM's numbers as these tests look at."""
    found = parser.parse(text)

    def counters(names: Mapping[Counter, str]) -> dict[Counter, float]:
        values = {name: found.value(f"vllm:{sample}") for name, sample in names.items()}
        return {name: value for name, value in values.items() if value is not None}

    running = found.value("vllm:num_requests_running")
    ttft = histogram(found, "vllm:time_to_first_token_seconds")
    assert running is not None and ttft is not None
    return Reading(
        time=elapsed,
        elapsed=elapsed,
        running=round(running),
        counters=counters(
            {
                Counter.OUTPUT_TOKENS: "generation_tokens_total",
                Counter.REQUESTS_OK: "request_success_total",
            }
        ),
        histograms={Latency.TTFT: ttft},
        process_start=found.value("process_start_time_seconds"),
    )


def test_a_real_gpu_agrees_with_its_client_second_by_second() -> None:
    """vLLM on an H200, 32 then 64 streams, a stall of two seconds at the start.

    Stated tolerance: 1.5 % of the client's tok/s over the same three seconds; the number of first
    tokens in each window exactly.
    """
    trace = load("vllm_h200.json.gz")
    window, parser = Window(), Parser(("vllm:",))
    compared = 0
    for row in trace["samples"]:
        sample = window.add(vllm(row["text"], parser, row["t"]))
        if sample.rate_window_s is None:
            continue
        now = row["t"]
        # The client's tenths of a second begin where the recording's do, not where the scrape's do.
        since = now - sample.rate_window_s
        received = sum(n for t, n in trace["client_tokens"] if since - 0.03 <= t < now - 0.03)
        assert sample.output_tokens_per_s is not None
        if now > 4:
            assert sample.output_tokens_per_s == pytest.approx(
                received / sample.rate_window_s, rel=0.015
            )
            compared += 1
        ttft = sample.latencies[Latency.TTFT]
        since = now - ttft.window_s
        firsts = [waited for sent, waited in trace["client_ttft"] if since <= sent + waited < now]
        assert ttft.n == len(firsts)
        if firsts:  # the way to the client and back comes on top of what the engine sees
            assert ttft.mean is not None
            assert 0 < sum(firsts) / len(firsts) - ttft.mean < 0.008
    assert compared == 17


def test_a_real_ramp_adds_up() -> None:
    """vLLM on a CPU, 1 to 50 streams and down again: every token and every first token is there."""
    trace = load("vllm_cpu_ramp.json.gz")
    window, parser = Window(seconds=1000.0), Parser(("vllm:",))
    began = trace["samples"][0]["t"]
    for row in trace["samples"]:
        sample = window.add(vllm(row["text"], parser, row["t"] - began))
        assert not sample.restarted
    requests = trace["requests"]
    ttft = sample.latencies[Latency.TTFT]
    assert ttft.n == len(requests) == 1381
    assert sample.window_s == ttft.window_s == pytest.approx(trace["samples"][-1]["t"] - began)
    whole = Window(seconds=1000.0, rate_seconds=1000.0)
    texts = (trace["samples"][0], trace["samples"][-1])
    sample = last(whole, *(vllm(row["text"], parser, row["t"] - began) for row in texts))
    assert sample.output_tokens_per_s is not None and sample.requests_per_s is not None
    tokens = sample.output_tokens_per_s * sample.window_s
    assert tokens == pytest.approx(sum(row[3] for row in requests))
    assert sample.requests_per_s * sample.window_s == pytest.approx(1381)
