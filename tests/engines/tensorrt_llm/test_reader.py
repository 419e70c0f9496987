"""Reading TensorRT-LLM: a queue that each reading empties, merged with Prometheus.

The real server cannot run here. Its payloads are those of its documentation; the fake server keeps
their semantics and runs as a real process.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from llmtop.engines.core.samples import Counter, Latency, Reading
from llmtop.engines.metrics.exposition import ScrapeError
from llmtop.engines.metrics.scraper import Scraper, open_reader
from llmtop.engines.metrics.window import Window
from llmtop.engines.tensorrt_llm.reader import TensorRtReader
from tests.fake_fetch import FakeFetch
from tests.folders import TESTS

BASE = "http://127.0.0.1:8000"
QUEUE, PROMETHEUS = f"{BASE}/metrics", f"{BASE}/prometheus/metrics"
FAKE = TESTS / "fake_trtllm_serve.py"
DEADLINE_S = 30.0

# From the documentation of trtllm-serve.
DOCUMENTED = {
    "gpuMemUsage": 76665782272,
    "iter": 154,
    "iterLatencyMS": 7.00688362121582,
    "kvCacheStats": {
        "allocNewBlocks": 3126,
        "allocTotalBlocks": 3126,
        "cacheHitRate": 0.00128,
        "freeNumBlocks": 101253,
        "maxNumBlocks": 101256,
        "missedBlocks": 3121,
        "reusedBlocks": 4,
        "tokensPerBlock": 32,
        "usedNumBlocks": 3,
    },
    "numActiveRequests": 1,
}


def iteration(number: int, generating: int = 4, **changes: Any) -> dict[str, Any]:
    return {
        "iter": number,
        "numActiveRequests": generating,
        "numQueuedRequests": 2,
        "numCompletedRequests": 0,
        "inflightBatchingStats": {"numGenRequests": generating, "numPausedRequests": 0},
        "specDecodingStats": None,
        **changes,
    }


def ended(count: float, prefix: str = "trtllm_") -> str:
    labels = 'model_name="undefined",engine_type="undefined"'
    name = f"{prefix}time_to_first_token_seconds"
    return (
        f'{prefix}request_success_total{{{labels},finished_reason="length"}} {count}\n'
        f'{prefix}request_success_total{{{labels},finished_reason="cancelled"}} 1.0\n'
        f'{name}_bucket{{{labels},le="0.1"}} 0.0\n'
        f'{name}_bucket{{{labels},le="0.5"}} {count}\n'
        f'{name}_bucket{{{labels},le="+Inf"}} {count}\n'
        f"{name}_sum{{{labels}}} {count * 0.25}\n"
    )


class Clock:
    """Unix and monotonic seconds, set by the test."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def scripted(
    answers: Sequence[object], pages: Sequence[str | ScrapeError], clock: Clock | None = None
) -> tuple[TensorRtReader, FakeFetch]:
    texts = [
        answer if isinstance(answer, str | ScrapeError) else json.dumps(answer)
        for answer in answers
    ]
    fetch = FakeFetch({QUEUE: texts, PROMETHEUS: pages})
    tick = clock or Clock()
    return TensorRtReader(BASE, fetch, clock=tick, monotonic=tick), fetch


NO_PAGE = ScrapeError("answered with HTTP 404", status=404)


# What the pages say


async def test_the_documented_iteration() -> None:
    reader, _ = scripted([[DOCUMENTED]], [""])
    reading = await reader.read()
    assert reading.running == 1
    assert reading.waiting is None
    assert reading.kv_usage == pytest.approx(3 / 101256)
    assert reading.kv_tokens_total == 101256 * 32
    assert reading.counters[Counter.PREFIX_HITS] == 4 * 32
    assert reading.counters[Counter.PREFIX_QUERIES] == 3125 * 32
    assert Counter.OUTPUT_TOKENS not in reading.counters


async def test_nothing_is_known_before_the_first_request() -> None:
    reader, _ = scripted([[]], [""])
    assert await reader.read() == Reading(1000.0, 1000.0)
    assert reader.note == ""


@pytest.mark.parametrize("prefix", ["trtllm_", ""])
async def test_prometheus_is_read_with_and_without_the_prefix(prefix: str) -> None:
    reader, _ = scripted([[]], [ended(8, prefix)])
    reading = await reader.read()
    assert reading.histograms[Latency.TTFT].counts == (0, 8, 8)
    assert reading.histograms[Latency.TTFT].total == 2.0
    assert reading.counters == {Counter.REQUESTS_OK: 8, Counter.REQUESTS_FAILED: 1}
    assert reading.model is None  # "undefined" is no model


async def test_the_newest_prometheus_tells_all_by_itself() -> None:
    text = (
        'trtllm_num_requests_running{pid="7"} 3\ntrtllm_num_requests_running{pid="6"} 0\n'
        "trtllm_num_requests_waiting 2\ntrtllm_kv_cache_utilization 0.5\n"
        "trtllm_kv_cache_max_blocks 100\ntrtllm_kv_cache_tokens_per_block 32\n"
        "trtllm_generation_tokens_total 70\ntrtllm_prompt_tokens_total 30\n"
        "trtllm_prompt_cached_tokens_total 10\ntrtllm_request_error_total 2\n"
        'trtllm_request_success_total{finished_reason="stop",model_name="llama"} 4\n'
    )
    reader, _ = scripted([[]], [text])
    reading = await reader.read()
    assert (reading.running, reading.waiting, reading.kv_usage) == (3, 2, 0.5)
    assert (reading.kv_tokens_total, reading.model) == (3200, "llama")
    assert reading.counters == {
        Counter.OUTPUT_TOKENS: 70,
        Counter.PROMPT_TOKENS: 30,
        Counter.PREFIX_QUERIES: 30,
        Counter.PREFIX_HITS: 10,
        Counter.REQUESTS_OK: 4,
        Counter.REQUESTS_FAILED: 2,
    }


async def test_what_was_taken_off_the_queue_is_added_up() -> None:
    spec = {"numDraftTokens": 12, "numAcceptedTokens": 6, "numRequestsWithDraftTokens": 4}
    first = [iteration(1), iteration(2, numCompletedRequests=1)]
    second = [iteration(3, 3, specDecodingStats=spec, numQueuedRequests=0)]
    paused = {"numGenRequests": 1, "numPausedRequests": 2, "numCtxTokens": 500}
    third = [iteration(4, 1, inflightBatchingStats=paused, numCompletedRequests=1)]
    reader, _ = scripted([first, second, third, []], [NO_PAGE])
    counters = [(await reader.read()).counters for _ in range(2)]
    assert counters[0][Counter.OUTPUT_TOKENS] == 4 + 4 + 1
    assert counters[1][Counter.OUTPUT_TOKENS] == 9 + 3 + 6
    assert counters[1][Counter.DRAFTS] == 4
    assert counters[1][Counter.DRAFT_TOKENS] == 12
    assert counters[1][Counter.ACCEPTED_TOKENS] == 6
    assert Counter.PROMPT_TOKENS not in counters[1]  # never told, which is not zero
    last = await reader.read()
    assert last.counters[Counter.PREEMPTIONS] == 2
    assert last.counters[Counter.PROMPT_TOKENS] == 500
    assert last.counters[Counter.REQUESTS_OK] == 2
    assert (last.running, last.waiting) == (0, 2)  # its only request completed in it
    assert (await reader.read()).counters == last.counters


async def test_ranks_of_attention_data_parallel_are_laid_together() -> None:
    kv = {"maxNumBlocks": 100, "tokensPerBlock": 10}
    ranks = [
        iteration(1, 3, attentionDpRank=0, kvCacheStats={**kv, "usedNumBlocks": 50}),
        iteration(1, 5, attentionDpRank=1, kvCacheStats={**kv, "usedNumBlocks": 100}),
    ]
    reader, _ = scripted([ranks], [""])
    reading = await reader.read()
    assert (reading.running, reading.waiting) == (8, 4)
    assert (reading.kv_usage, reading.kv_tokens_total) == (0.75, 2000)


# When a page is missing, slow or nonsense


async def test_a_version_without_prometheus_is_no_error() -> None:
    reader, _ = scripted([[iteration(1)]], [NO_PAGE])
    assert (await reader.read()).running == 4
    assert "no latencies" in reader.note


@pytest.mark.parametrize(
    "answer",
    [
        ScrapeError("answered /metrics with HTTP 500", status=500),
        *("<html>", "{}", "[" * 100_000),
    ],
)
async def test_a_queue_that_fails_takes_only_its_own_numbers_away(answer: object) -> None:
    reader, _ = scripted([[iteration(1)], answer, [iteration(2)]], [ended(8)])
    assert (await reader.read()).running == 4
    reading = await reader.read()
    assert reading.running is None  # what was last heard of may be long over
    assert Latency.TTFT in reading.histograms
    assert reader.note
    assert (await reader.read()).running == 4
    assert reader.note == ""


async def test_nobody_there_is_an_error() -> None:
    gone = ScrapeError("nothing listens")
    reader, _ = scripted([gone], [gone])
    with pytest.raises(ScrapeError, match="nothing listens"):
        await reader.read()
    reader, _ = scripted(["<html>"], [NO_PAGE])
    with pytest.raises(ScrapeError, match="list of iterations"):
        await reader.read()


async def test_nonsense_in_an_iteration_costs_that_number_alone() -> None:
    nonsense = iteration(
        2,
        numActiveRequests="many",
        numQueuedRequests=-1,
        numCompletedRequests=1e300,
        inflightBatchingStats=[1],
        kvCacheStats={"maxNumBlocks": 0, "usedNumBlocks": 1, "tokensPerBlock": 32},
        specDecodingStats="on",
    )
    reader, _ = scripted([[iteration(1), 7, None, nonsense]], [""])
    reading = await reader.read()
    assert (reading.running, reading.waiting, reading.kv_usage) == (None, None, None)
    assert reading.kv_tokens_total is None
    assert reading.counters[Counter.OUTPUT_TOKENS] == 4


class SlowQueue:
    """Answers for Prometheus at once and for the queue when told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.given_up = False

    async def __call__(self, url: str) -> str:
        if url == PROMETHEUS:
            return ended(3)
        self.asked += 1
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.given_up = True
            raise
        return json.dumps([iteration(1)])


async def test_an_idle_queue_does_not_hold_up_the_rest_and_loses_nothing() -> None:
    slow = SlowQueue()
    reader = TensorRtReader(BASE, slow, patience_s=0.0)
    for _ in range(3):
        reading = await reader.read()
        assert reading.running is None
        assert reading.histograms[Latency.TTFT].counts[-1] == 3
    assert (slow.asked, slow.given_up) == (1, False)
    slow.go.set()
    await asyncio.sleep(0)
    assert (await reader.read()).running == 4
    slow.go.clear()
    await reader.read()
    await reader.close()
    assert slow.given_up  # only now


async def test_a_reading_that_is_given_up_loses_no_iteration() -> None:
    slow = SlowQueue()
    reader = TensorRtReader(BASE, slow, patience_s=DEADLINE_S)
    reading = asyncio.create_task(reader.read())
    await slow.begun.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    slow.go.set()
    assert (await reader.read()).counters[Counter.OUTPUT_TOKENS] == 4
    assert not slow.given_up
    await reader.close()


# Numbers that are honest over time


async def test_iterations_that_somebody_else_took_make_sums_unknown_for_a_while() -> None:
    clock, window = Clock(), Window(10.0, 3.0)
    script = [[iteration(n)] for n in (1, 2, 3, 50, *range(51, 80))]
    reader, _ = scripted(list(script), [NO_PAGE], clock)
    rates = []
    for _ in script:
        sample = window.add(await reader.read())
        rates.append(sample.output_tokens_per_s)
        assert not sample.restarted
        clock.now += 1.0
    assert rates[1:3] == [4.0, 4.0]
    assert set(rates[3:19]) == {None}
    # Known again once a whole window lies behind the hole, and without a jump.
    assert rates[-1] == 4.0
    assert set(rates[19:]) == {None, 4.0}


async def test_prometheus_takes_over_where_the_queue_has_a_hole() -> None:
    clock, window = Clock(), Window(10.0, 3.0)
    pages = [f"trtllm_generation_tokens_total {100 + 4 * n}\n" for n in range(8)]
    script = [[iteration(n)] for n in (1, 2, 3, 50, 51, 52, 53, 54)]
    reader, _ = scripted(list(script), list(pages), clock)
    totals = []
    for _ in script:
        reading = await reader.read()
        totals.append(reading.counters[Counter.OUTPUT_TOKENS])
        assert not window.add(reading).restarted
        clock.now += 1.0
    assert totals == [4, 8, 12, 12, 16, 20, 24, 28]


async def test_prometheus_that_drains_the_queue_is_found_out() -> None:
    answers = [[iteration(1)], [], [], [], [iteration(90, 7)]]
    reader, _ = scripted(answers, [ended(n) for n in (1, 2, 3, 4, 5)])
    running, notes = [], []
    for _ in answers:
        running.append((await reader.read()).running)
        notes.append("reports no iterations" in reader.note)
    assert running == [4, 4, None, None, 7]
    assert notes == [False, False, True, True, False]


async def test_an_idle_engine_keeps_what_it_last_told() -> None:
    reader, _ = scripted([[iteration(1, numCompletedRequests=4)], []], [ended(1)])
    for _ in range(4):
        assert (await reader.read()).running == 0
        assert reader.note == ""


async def test_a_restarted_engine_is_noticed() -> None:
    clock, window = Clock(), Window()
    reader, _ = scripted([[iteration(900)], [iteration(901)], [iteration(3, 2)]], [NO_PAGE], clock)
    restarted = []
    for _ in range(3):
        restarted.append(window.add(await reader.read()).restarted)
        clock.now += 1.0
    assert restarted == [False, False, True]


# One reader


def busy_step(number: int) -> dict[str, Any]:
    return iteration(number, iterLatencyMS=12.5)


async def test_a_second_llmtop_leaves_the_queue_to_the_first(tmp_path: Path) -> None:
    locks = tmp_path / "state" / "readers"
    clock = Clock()
    pages: dict[str, Any] = {QUEUE: [json.dumps([busy_step(1)])], PROMETHEUS: [ended(3)]}
    first = TensorRtReader(BASE, FakeFetch(dict(pages)), locks, clock=clock, monotonic=clock)
    whole = await first.read()
    # The same server by another of its names.
    other = "http://localhost:8000"
    fetch = FakeFetch({url.replace(BASE, other): told for url, told in pages.items()})
    second = TensorRtReader(other, fetch, locks, clock=clock, monotonic=clock)
    reading = await second.read()
    # It shows what the first one read, its steps too, and asks for nothing but Prometheus.
    assert (reading.running, reading.waiting) == (whole.running, whole.waiting) == (4, 2)
    assert reading.counters == whole.counters and Latency.TTFT in reading.histograms
    assert [step.seq for step in second.steps.steps] == [1] and second.note == ""
    assert f"{other}/metrics" not in fetch.asked
    # The first one no longer looks: what it read is old.
    clock.now += 60
    reading = await second.read()
    assert reading.running is None and "another llmtop" in second.note
    await first.close()
    assert (await second.read()).running == 4
    assert second.note == ""
    await second.close()


async def test_steps_of_another_reader_are_taken_once(tmp_path: Path) -> None:
    clock = Clock()
    answers = [json.dumps([busy_step(n), busy_step(n + 1)]) for n in (1, 3)]
    pages: dict[str, Any] = {QUEUE: answers, PROMETHEUS: [ended(3)]}
    first = TensorRtReader(BASE, FakeFetch(pages), tmp_path, clock=clock, monotonic=clock)
    second = TensorRtReader(
        BASE, FakeFetch({PROMETHEUS: [ended(3)]}), tmp_path, clock=clock, monotonic=clock
    )
    for _ in range(2):
        await first.read()
        await second.read()
        await second.read()
        clock.now += 1
    assert [step.seq for step in second.steps.steps] == [1, 2, 3, 4]
    await first.close()
    await second.close()


def damage_lock(folder: Path, damage: bytes) -> None:
    (file,) = folder.glob("*.lock")
    file.write_bytes(damage)


@pytest.mark.parametrize("damage", [b"", b"00000000 {}", b"\xff" * 400, b"[" * 5000])
async def test_a_damaged_file_of_the_reader_is_not_read(tmp_path: Path, damage: bytes) -> None:
    clock = Clock()
    pages: dict[str, Any] = {QUEUE: [json.dumps([busy_step(1)])], PROMETHEUS: [ended(3)]}
    first = TensorRtReader(BASE, FakeFetch(pages), tmp_path, clock=clock, monotonic=clock)
    await first.read()
    damage_lock(tmp_path, damage)
    second = TensorRtReader(BASE, FakeFetch(pages), tmp_path, clock=clock, monotonic=clock)
    assert (await second.read()).running is None
    assert "another llmtop" in second.note
    await first.close()
    await second.close()


async def test_the_recorder_gives_the_queue_to_whoever_wants_it(tmp_path: Path) -> None:
    clock = Clock()

    def reader() -> TensorRtReader:
        pages: dict[str, Any] = {QUEUE: [json.dumps([busy_step(1)])], PROMETHEUS: [ended(3)]}
        return TensorRtReader(BASE, FakeFetch(pages), tmp_path, clock=clock, monotonic=clock)

    recorder, screen = reader(), reader()
    recorder.give_way()
    assert (await recorder.read()).running == 4  # nobody else is there
    await screen.read()
    assert "another llmtop" in screen.note
    await recorder.read()  # hears of the screen
    assert (await screen.read()).running == 4 and screen.note == ""
    clock.now += 1
    assert (await recorder.read()).running == 4 and recorder.note == ""  # as the screen read it
    await screen.close()
    clock.now += 60
    assert (await recorder.read()).running == 4 and recorder.note == ""  # its own again
    await recorder.close()


async def test_a_handover_is_no_burst_and_no_restart(tmp_path: Path) -> None:
    clock = Clock()

    def reader(first: int) -> TensorRtReader:
        answers = [json.dumps([busy_step(first + n)]) for n in range(6)]
        pages: dict[str, Any] = {QUEUE: answers, PROMETHEUS: [ended(3)]}
        return TensorRtReader(BASE, FakeFetch(pages), tmp_path, clock=clock, monotonic=clock)

    recorder, screen = reader(1), reader(900)
    recorder.give_way()
    tokens = [(await recorder.read()).counters[Counter.OUTPUT_TOKENS] for _ in range(3)]
    await screen.read()
    for _ in range(3):
        tokens.append((await recorder.read()).counters.get(Counter.OUTPUT_TOKENS, tokens[-1]))
        await screen.read()
    await screen.close()
    tokens.append((await recorder.read()).counters[Counter.OUTPUT_TOKENS])
    assert all(0 <= after - before <= 8 for before, after in itertools.pairwise(tokens))
    await recorder.close()


async def test_a_second_llmtop_without_prometheus_says_why_it_knows_nothing(
    tmp_path: Path,
) -> None:
    clock = Clock()
    first = TensorRtReader(BASE, FakeFetch({QUEUE: ["[]"]}), tmp_path, monotonic=clock)
    await first.read()
    clock.now += 60
    second = TensorRtReader(BASE, FakeFetch({}), tmp_path, monotonic=clock)
    with pytest.raises(ScrapeError, match="another llmtop reads this engine's iterations, and"):
        await second.read()
    elsewhere = TensorRtReader(BASE.replace("8000", "8001"), FakeFetch({}), tmp_path)
    with pytest.raises(ScrapeError, match="404"):  # another server, another right to read
        await elsewhere.read()
    for reader in (first, second, elsewhere):
        await reader.close()


async def test_other_engines_have_the_plain_reader() -> None:
    from llmtop.engines.vllm.adapter import ADAPTER as VLLM

    reader = open_reader(VLLM, BASE, FakeFetch({}))
    assert isinstance(reader, Scraper)
    assert reader.note == ""
    await reader.close()
