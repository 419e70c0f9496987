"""What a streamed chunk costs the simulated engine: 256 streams at 40 tokens/s each.

Starts the engine as a child process, slowed down so that a decode step of all streams takes 25 ms,
reads the streams from this process and relates the CPU time of the child to the chunks that came.

    python -m bench.simulator.streams [--streams 256] [--rate 40] [--seconds 15]
"""

from __future__ import annotations

import argparse
import selectors
import socket
import time
import urllib.request

from msgspec import Struct

from bench.simulator.engine import completion, serving
from llmtop.engines.simulated.simulator.model.hardware import GPUS, MODELS
from llmtop.engines.simulated.simulator.model.roofline import Roofline, StepLoad

PROMPT, OUTPUT = 512, 4000
SETTLE_S = 3.0  # until all prefills are through


class Moment(Struct, frozen=True):
    wall: float
    cpu: float
    chunks: int


def main() -> None:
    given = _arguments()
    with serving(*_flags(given.streams, given.rate)) as port:
        streams = [_open(port, seed) for seed in range(given.streams)]
        chunks = _read(streams, SETTLE_S)
        before = Moment(time.perf_counter(), _cpu(port), chunks)
        chunks += _read(streams, given.seconds)
        after = Moment(time.perf_counter(), _cpu(port), chunks)
        lag = _metric(port, "llmtop_simulator_lag_seconds{")
        lost = _metric(port, "llmtop_simulator_lost_seconds_total{")
    wall, cpu = after.wall - before.wall, after.cpu - before.cpu
    came = after.chunks - before.chunks
    print(f"{given.streams} streams, {came} chunks in {wall:.1f} s = {came / wall:,.0f} chunks/s,")
    print(f"{came / wall / given.streams:.1f} tokens/s a stream; asked: {given.rate:g}")
    print(f"CPU of the engine: {1e6 * cpu / came:.1f} us a chunk, {cpu / wall:.2f} of a core;")
    print(f"a whole core would carry {came / cpu:,.0f} chunks/s")
    print(f"lag at the end {1e3 * lag:.1f} ms, schedule given up {lost:.2f} s")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--rate", type=float, default=40.0, help="tokens/s a stream")
    parser.add_argument("--seconds", type=float, default=15.0)
    return parser.parse_args()


def _flags(streams: int, rate: float) -> tuple[str, ...]:
    roofline = Roofline.of(GPUS["h200"], MODELS["llama-3.1-8b"])
    context = streams * (PROMPT + 400)  # about what it is in the middle of the measurement
    step = roofline.seconds(StepLoad(streams, context, context, streams))
    return ("--speed", f"{step * rate:.4f}", "--max-num-seqs", str(max(streams, 1)))


def _open(port: int, seed: int) -> socket.socket:
    asked = {"prompt": [seed * 16 + i % 16 for i in range(PROMPT)], "max_tokens": OUTPUT}
    stream = socket.create_connection(("127.0.0.1", port))
    stream.sendall(completion(asked))
    stream.setblocking(False)
    return stream


def _read(streams: list[socket.socket], seconds: float) -> int:
    chunks = 0
    until = time.perf_counter() + seconds
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            selector.register(stream, selectors.EVENT_READ)
        while (left := until - time.perf_counter()) > 0:
            for key, _ in selector.select(left):
                data = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                if not data:
                    raise SystemExit("a stream ended early")
                chunks += data.count(b"data: {")
    return chunks


def _metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


def _metric(port: int, start: str) -> float:
    lines = [line for line in _metrics(port).splitlines() if line.startswith(start)]
    return float(lines[0].rsplit(" ", 1)[1])


def _cpu(port: int) -> float:
    return _metric(port, "process_cpu_seconds_total")


if __name__ == "__main__":
    main()
