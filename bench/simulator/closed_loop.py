"""Does the server in real time do what the scheduler does in virtual time?

Starts the engine and drives it over HTTP with a closed loop, the lengths of the calibration.

    python -m bench.simulator.closed_loop [--streams 1 8 ...] [--seconds 8] [engine flags]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time

from bench.simulator.engine import completion, serving
from tests.closed_loop import quantile

WARM_UP_S = 3.0  # of each step, as in the recording


class Window:
    """What all clients see between two moments; empty until it is set."""

    def __init__(self) -> None:
        self.set(0.0, 0.0)

    def set(self, begin: float, end: float) -> None:
        self.begin, self.end = begin, end
        self.tokens = 0
        self.ttft: list[float] = []
        self.gaps: list[float] = []

    def token(self, now: float, before: float, first: bool) -> None:
        if first and self.begin <= before < self.end:
            self.ttft.append(now - before)
        if self.begin <= now < self.end:
            self.tokens += 1
            if not first:
                self.gaps.append(now - before)


async def client(port: int, window: Window, rng: random.Random) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while True:
        prompt = [rng.randrange(1000, 100_000) for _ in range(rng.randint(448, 576))]
        asked = {"prompt": prompt, "max_tokens": rng.randint(112, 144)}
        before = time.perf_counter()
        writer.write(completion(asked))
        first = True
        while (line := await reader.readline()) != b"0\r\n":
            if line.startswith(b"data: {"):
                now = time.perf_counter()
                window.token(now, before, first)
                first, before = False, now
        await reader.readline()


async def measure(port: int, levels: list[int], seconds: float) -> None:
    window = Window()
    clients: list[asyncio.Task[None]] = []
    for streams in levels:  # ascending: those that run go on, the rest comes on top
        for seed in range(len(clients), streams):
            clients.append(asyncio.create_task(client(port, window, random.Random(seed))))
        begin = time.perf_counter() + WARM_UP_S
        window.set(begin, begin + seconds)
        await asyncio.sleep(WARM_UP_S + seconds)
        print(
            f"{streams:4d} streams: {window.tokens / seconds:7.0f} tok/s, "
            f"TTFT p50 {1e3 * quantile(window.ttft, 0.5):6.1f} ms (n {len(window.ttft)}), "
            f"ITL p50 {1e3 * quantile(window.gaps, 0.5):5.1f} ms",
            flush=True,
        )
    for task in clients:
        task.cancel()
    await asyncio.gather(*clients, return_exceptions=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32, 64, 128, 256])
    parser.add_argument("--seconds", type=float, default=8.0)
    given, flags = parser.parse_known_args()
    with serving(*flags) as port:
        asyncio.run(measure(port, sorted(given.streams), given.seconds))


if __name__ == "__main__":
    main()
