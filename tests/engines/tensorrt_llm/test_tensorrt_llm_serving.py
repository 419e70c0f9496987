"""Reading TensorRT-LLM end to end: a real server process that keeps the real one's semantics."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from llmtop.engines.core.endpoint import Endpoint
from llmtop.engines.core.records import EngineRecord, LaunchSpec
from llmtop.engines.core.samples import Counter, Latency
from llmtop.engines.metrics.scraper import HttpFetch, open_reader
from llmtop.engines.tensorrt_llm.adapter import ADAPTER
from llmtop.engines.tensorrt_llm.reader import TensorRtReader
from llmtop.operations.session import EngineSession
from llmtop.tui.sources.engine import EngineSource
from llmtop.tui.store.store import EngineTrack, Store
from tests.folders import TESTS
from tests.llmtop_process import free_port
from tests.tiers import first

pytestmark = pytest.mark.process

FAKE = TESTS / "fake_trtllm_serve.py"
DEADLINE_S = 30.0


@pytest.fixture
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    settings: dict[str, object] = {"enable_iter_perf_stats": True, "return_perf_metrics": True}
    file = tmp_path / "c.yaml"
    flags = list(getattr(request, "param", ()))
    if "--spec" in flags:
        flags.remove("--spec")
        settings["speculative_config"] = {"decoding_type": "NGram", "max_draft_len": 4}
    if "--keep-requests" in flags:
        flags.remove("--keep-requests")
        settings["perf_metrics_max_requests"] = 1000
    file.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items()))
    port = free_port()
    command = [sys.executable, str(FAKE), "tiny", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--extra_llm_api_options", str(file), *flags]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/health").status_code == 200:
                    break
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        yield url
        process.terminate()
        assert process.wait(DEADLINE_S) == 0


@asynccontextmanager
async def reading(url: str, locks: Path | None = None) -> AsyncIterator[TensorRtReader]:
    fetch = HttpFetch()
    reader = open_reader(ADAPTER, url, fetch, locks)
    assert isinstance(reader, TensorRtReader)
    try:
        yield reader
    finally:
        await reader.close()
        await fetch.close()


async def load(url: str, requests: int, tokens: int, prompt: int = 64) -> None:
    async with httpx.AsyncClient(timeout=DEADLINE_S) as client:
        body = {"prompt": "a " * prompt, "max_tokens": tokens, "stream": True}
        answers = [client.post(f"{url}/v1/completions", json=body) for _ in range(requests)]
        for answer in await asyncio.gather(*answers):
            assert answer.text.count(" token") == tokens


@pytest.mark.parametrize(
    "server",
    first(
        2, [(), ("--fake_newest",), ("--fake_bare_names",), ("--fake_no_prometheus",), ("--spec",)]
    ),
    indirect=True,
)
async def test_every_version_is_counted_exactly(
    server: str, request: pytest.FixtureRequest
) -> None:
    flags = request.node.callspec.params["server"]
    latencies = "--fake_no_prometheus" not in flags
    # Three tokens a step after the first: 10 steps make the 30, the last one makes 31.
    tokens = 6 * (31 if "--spec" in flags else 30)
    async with reading(server) as reader:
        under_way = asyncio.create_task(load(server, requests=6, tokens=30))
        busiest, occupied, reading_ = 0, 0.0, await reader.read()
        deadline = time.monotonic() + DEADLINE_S
        while (
            reading_.counters.get(Counter.REQUESTS_OK) != 6
            or reading_.counters.get(Counter.OUTPUT_TOKENS, 0) < tokens
        ):
            assert time.monotonic() < deadline
            reading_ = await reader.read()
            busiest = max(busiest, reading_.running or 0)
            occupied = max(occupied, reading_.kv_usage or 0.0)
        await under_way
        assert 0 < busiest <= 6
        assert 0 < occupied < 0.1
        assert reading_.kv_tokens_total == 32_000
        assert reading_.running == 0
        assert reading_.counters[Counter.OUTPUT_TOKENS] == tokens
        if "--spec" in flags:
            assert reading_.counters[Counter.DRAFTS] == 60
            assert reading_.counters[Counter.DRAFT_TOKENS] == 240
            assert reading_.counters[Counter.ACCEPTED_TOKENS] == 120
        else:
            assert Counter.DRAFTS not in reading_.counters
        assert (Latency.TTFT in reading_.histograms) is latencies
        assert ("no latencies" in reader.note) is not latencies
        if latencies:
            assert reading_.histograms[Latency.TTFT].counts[-1] == 6
            assert reading_.histograms[Latency.TPOT].counts[-1] == 6


@pytest.mark.parametrize("server", [("--fake_drained", "--fake_newest")], indirect=True)
async def test_a_version_whose_prometheus_empties_the_queue(server: str) -> None:
    async with reading(server) as reader:
        await load(server, requests=4, tokens=3)
        deadline = time.monotonic() + DEADLINE_S
        while (found := await reader.read()).counters.get(Counter.REQUESTS_OK) != 4:
            assert time.monotonic() < deadline
        assert found.counters[Counter.OUTPUT_TOKENS] == 12  # from Prometheus
        assert found.kv_tokens_total == 32_000
        assert found.running == 0


@pytest.mark.parametrize("server", [()], indirect=True)
async def test_two_llmtops_on_one_server(server: str, tmp_path: Path) -> None:
    async with reading(server, tmp_path / "r") as first, reading(server, tmp_path / "r") as second:
        await first.read()
        await load(server, requests=2, tokens=10)
        deadline = time.monotonic() + DEADLINE_S
        while (await second.read()).counters.get(Counter.REQUESTS_OK) != 2:
            assert time.monotonic() < deadline
        assert second.note == ""  # it shows what the first one read
        while (await first.read()).counters.get(Counter.OUTPUT_TOKENS) != 20:
            assert time.monotonic() < deadline


@pytest.mark.parametrize("server", [("--fake_no_prometheus",)], indirect=True)
async def test_the_screen_is_told_once_what_is_missing(server: str, tmp_path: Path) -> None:
    fetch = HttpFetch()
    session = EngineSession(Endpoint("a", ADAPTER, server), fetch, locks=tmp_path)
    store, track = Store(), EngineTrack("a", ADAPTER.kind, ADAPTER.title, server, owned=False)
    source = EngineSource(session, track, store, None, time.time)
    await load(server, requests=1, tokens=2)
    await source.sample()
    await source.sample()
    assert [event.text.partition(" (")[0] for event in store.events] == [
        "a: no latencies: /prometheus/metrics does not exist"
    ]
    assert track.sample is not None and track.sample.running == 0
    await source.close()
    async with reading(server, tmp_path) as next_one:  # the right to read was given back
        await next_one.read()
        assert "another llmtop" not in next_one.note
    await fetch.close()


@pytest.mark.parametrize("server", [("--keep-requests",)], indirect=True)
async def test_percentiles_of_an_engine_of_ours_that_keeps_its_requests_are_exact(
    server: str, tmp_path: Path
) -> None:
    args = ("--set", "perf_metrics_max_requests=1000")
    spec = LaunchSpec(ADAPTER.kind, "a", "tiny", "127.0.0.1", 8000, args=args)
    record = EngineRecord(spec, (), (), 7, 1, "boot", server, "/no/log", None, 0.0)
    fetch = HttpFetch()
    session = EngineSession(Endpoint("a", ADAPTER, server, record=record), fetch, locks=tmp_path)

    async def exact() -> bool:
        await load(server, requests=2, tokens=3)
        latency = (await session.sample()).latencies.get(Latency.TTFT)
        return latency is not None and latency.exact is not None and latency.n > 0

    async with asyncio.timeout(DEADLINE_S):
        while not await exact():
            pass
    await session.close()
    await fetch.close()
