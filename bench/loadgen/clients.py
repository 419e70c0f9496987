"""The Python clients of the benchmark, each a closed loop in a process of its own; prints JSON.

Usage: python clients.py ours|aiohttp|httpx PORT STREAMS SECONDS cost|truth. All run
without garbage collections. aiohttp and httpx split and decode every chunk with our code, so that
only the way to the bytes differs. "cost" measures CPU time; "truth" also reads the server's two
stamps out of each chunk, which costs some itself.

Usage: python clients.py pool PORT STREAMS SECONDS WORKERS. The load as users run it, in so many
worker processes; what each of them costs is read from outside.
"""

from __future__ import annotations

import asyncio
import gc
import json
import select
import sys
import time
from array import array
from collections.abc import AsyncIterator, Callable

import aiohttp
import httpx
import psutil

from llmtop.loadgen.client.socket_transport import SocketTransport
from llmtop.loadgen.core.results import Fate
from llmtop.loadgen.protocol.chunk import Chunk, decode
from llmtop.loadgen.protocol.request_state import RequestState
from llmtop.loadgen.protocol.sse import Splitter
from llmtop.loadgen.statistics.histogram import quantiles
from llmtop.loadgen.statistics.shared_counters import Cell, SharedCounters
from llmtop.loadgen.workers import scheduler as scheduler_module
from llmtop.loadgen.workers.load import Load
from llmtop.loadgen.workers.scheduler import Scheduler
from llmtop.loadgen.workload.plan import Plan, Prompts, Target
from llmtop.loadgen.workload.prompts import Bodies
from llmtop.loadgen.workload.schedule import Schedule

WARM_S = 2.0
TOKENS = 125  # of every request; the server is told so too
NS = 1_000_000_000
DIGITS = 16  # of each stamp, with a space before it
BODY = b'{"model":"m","prompt":[128,129,130],"max_tokens":125,"stream":true}'


def stamps(text: bytes) -> tuple[int, int]:
    """When the server read the request and when it sent this text, in ns, from the text itself."""
    return int(text[1 : 1 + DIGITS]), int(text[2 + DIGITS : 2 + 2 * DIGITS])


class Score:
    """What a client saw, and what it cost from the end of the warm-up on."""

    def __init__(self, seconds: float) -> None:
        self.begin = time.monotonic_ns() + int(WARM_S * NS)
        self.end = self.begin + int(seconds * NS)
        self.chunks = self.reads = self.lost = 0
        self.lags: list[int] = []
        self.ttft_errors: list[int] = []
        self._cpu = 0
        self._started = 0

    def chunk(self, sent_ns: int, at_ns: int) -> None:
        self.chunks += 1
        self.lags.append(at_ns - sent_ns)

    def first(self, ours_ns: int, theirs_ns: int) -> None:
        self.ttft_errors.append(ours_ns - theirs_ns)

    def start(self) -> None:
        self.chunks = self.reads = 0
        self.lags.clear()
        self.ttft_errors.clear()
        self._cpu, self._started = time.process_time_ns(), time.monotonic_ns()

    def report(self) -> dict[str, float]:
        span, cpu = time.monotonic_ns() - self._started, time.process_time_ns() - self._cpu
        self.lags.sort()
        self.ttft_errors.sort()

        def ms(values: list[int], share: float) -> float:
            return round(values[int(share * (len(values) - 1))] / 1e6, 4) if values else -1.0

        return {
            "chunks_per_s": round(self.chunks / span * NS),
            "us_per_chunk": round(cpu / 1000 / max(1, self.chunks), 2),
            "chunks_per_read": round(self.chunks / max(1, self.reads), 2),
            "cpu": round(cpu / span, 3),
            "lag_p50_ms": ms(self.lags, 0.5),
            "lag_p99_ms": ms(self.lags, 0.99),
            "ttft_error_p50_ms": ms(self.ttft_errors, 0.5),
            "ttft_error_p99_ms": ms(self.ttft_errors, 0.99),
        }


def ours(port: int, streams: int, seconds: float, truth: bool) -> dict[str, float]:
    """The worker's own scheduler and transport; the reply also reads the server's stamps."""
    score = Score(seconds)

    class CountedReply(RequestState):
        __slots__ = ()

        def _conclude(self, fate: Fate, error: str) -> None:
            super()._conclude(fate, error)
            if fate is not Fate.CUT:
                score.lost += TOKENS - self.chunks

    class StampedReply(CountedReply):
        __slots__ = ()

        def chunk(self, chunk: Chunk, at_ns: int) -> None:
            before = self.chunks
            super().chunk(chunk, at_ns)
            if self.chunks > before and chunk.choices:
                read_ns, sent_ns = stamps((chunk.choices[0].text or "").encode())
                score.chunk(sent_ns, at_ns)
                if before == 0:
                    score.first(at_ns - self.sent_ns, sent_ns - read_ns)

    scheduler_module.__dict__["RequestState"] = StampedReply if truth else CountedReply
    counters = SharedCounters()
    target = Target(f"http://127.0.0.1:{port}", "m")
    bodies = Bodies(Prompts((3, 3), (125, 125)), target, 0)
    transport = SocketTransport(target, counters)
    scheduler = Scheduler(
        transport, counters, bodies, lambda _: None, zero_ns=0, timeout_s=600, limit=8000
    )
    now = time.monotonic_ns()
    scheduler.steer(Schedule(Plan(shape=f"hold {streams}"), now, now))
    started, chunks, reads = False, 0, 0
    while now < score.end:
        if not started and now >= score.begin:
            started = True
            chunks, reads = counters.cells[Cell.TOKENS], counters.cells[Cell.READS]
            score.start()
        transport.turn(scheduler.tick())
        now = time.monotonic_ns()
    score.chunks = counters.cells[Cell.TOKENS] - chunks
    score.reads = counters.cells[Cell.READS] - reads
    report = score.report()
    report["failed"], report["lost"] = counters.cells[Cell.FAILED], score.lost
    (p50, p99), _ = quantiles(array("q", counters.lag.counts), (0.5, 0.99))
    report["unread_p50_ms"], report["unread_p99_ms"] = 1e3 * (p50 or 0.0), 1e3 * (p99 or 0.0)
    scheduler.cut()
    transport.close()
    return report


async def _streams(
    score: Score, streams: int, truth: bool, request: Callable[[], AsyncIterator[bytes]]
) -> dict[str, float]:
    async def stream() -> None:
        while time.monotonic_ns() < score.end:
            sent, splitter, begun = time.monotonic_ns(), Splitter(), False
            async for data in request():
                at = time.monotonic_ns()
                score.reads += 1
                for event in splitter.feed(data):
                    if event == b"[DONE]":
                        continue
                    chunk = decode(event)
                    text = chunk.choices[0].text if chunk.choices else None
                    if not text:
                        continue
                    if not truth:
                        score.chunks += 1
                        continue
                    read_ns, sent_ns = stamps(text.encode())
                    score.chunk(sent_ns, at)
                    if not begun:
                        begun = True
                        score.first(at - sent, sent_ns - read_ns)

    tasks = [asyncio.create_task(stream()) for _ in range(streams)]
    await asyncio.sleep((score.begin - time.monotonic_ns()) / NS)
    score.start()
    await asyncio.sleep((score.end - time.monotonic_ns()) / NS)
    report = score.report()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return report


async def with_aiohttp(port: int, streams: int, seconds: float, truth: bool) -> dict[str, float]:
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None)
    ) as session:

        async def request() -> AsyncIterator[bytes]:
            url = f"http://127.0.0.1:{port}/v1/completions"
            async with session.post(url, data=BODY) as response:
                async for data in response.content.iter_any():
                    yield data

        return await _streams(Score(seconds), streams, truth, request)


async def with_httpx(port: int, streams: int, seconds: float, truth: bool) -> dict[str, float]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=None, trust_env=False) as client:

        async def request() -> AsyncIterator[bytes]:
            url = f"http://127.0.0.1:{port}/v1/completions"
            async with client.stream("POST", url, content=BODY) as response:
                async for data in response.aiter_raw():
                    yield data

        return await _streams(Score(seconds), streams, truth, request)


def pool(port: int, streams: int, seconds: float, workers: int) -> dict[str, float]:
    """What each worker of a real load costs."""
    target = Target(f"http://127.0.0.1:{port}", "m")
    with Load(target, Prompts((3, 3), (TOKENS, TOKENS)), workers=workers) as load:

        def spend(span: float) -> None:
            until = time.monotonic() + span
            while (left := until - time.monotonic()) > 0:
                select.select([load], [], [], left)
                load.poll()

        def cpu() -> list[float]:
            times = [psutil.Process(pid).cpu_times() for pid in load.pids]
            return [time.user + time.system for time in times]

        load.start(Plan(shape=f"hold {streams}"))
        spend(WARM_S)
        begun, before, chunks = time.monotonic(), cpu(), load.snapshot().output_tokens
        spend(seconds)
        took, now = time.monotonic() - begun, load.snapshot()
        used = [after - earlier for earlier, after in zip(before, cpu(), strict=True)]
    grown = now.output_tokens - chunks
    return {
        "chunks_per_s": round(grown / took),
        "us_per_chunk": round(1e6 * sum(used) / max(1, grown), 2),
        "busiest": round(max(used) / took, 3),
        "capacity": round(grown / max(used)),
        "failed": now.failed,
    }


def main() -> None:
    kind, port, streams, seconds = sys.argv[1], *map(int, sys.argv[2:5])
    truth = sys.argv[5] == "truth"
    if kind != "pool":  # whose workers do so themselves
        gc.freeze()
        gc.disable()
    if kind == "pool":
        report = pool(port, streams, seconds, int(sys.argv[5]))
    elif kind == "ours":
        report = ours(port, streams, seconds, truth)
    else:
        client = with_aiohttp if kind == "aiohttp" else with_httpx
        report = asyncio.run(client(port, streams, seconds, truth))
    print(json.dumps(report))


if __name__ == "__main__":
    main()
