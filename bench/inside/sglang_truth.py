"""Compares the introspection of a running SGLang with its counters and its client: tokens and TTFT.

    python -m bench.inside.sglang_truth NAME [--streams 1 8 32] [--seconds 20]

The SGLang must be started by `llmtop run` and have no other client. For each number of streams it
prints the tokens by the step ring, by the engine's counters and by the client. It also prints the
TTFT percentiles of the scheduler, of the HTTP process and of the client. The client's TTFT ends at
the first byte, by the kernel's receive time stamp. The first token would be later, because the
first tokens of a byte-level model may have no text.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.nearest_rank import nearest_rank
from llmtop.engines.core.latencies import LatencyHistogram
from llmtop.engines.state.state_directory import StateDirectory

COUNTERS = ("sglang:prompt_tokens_total", "sglang:generation_tokens_total")
QUANTILES = (0.5, 0.95, 0.99)


def ask(path: Path, **request: Any) -> dict[str, Any]:
    """Send a request to a socket of the plugin. Returns its answer, which must be ``ok``."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(json.dumps(request).encode() + b"\n")
        answer: dict[str, Any] = json.loads(connection.makefile().readline())
    assert answer["ok"], answer
    return answer


def steps(path: Path, since: int) -> tuple[int, list[dict[str, float]]]:
    """The steps after step ``since``. Returns the number of the last one, and the steps."""
    found: list[dict[str, float]] = []
    while True:
        answer = ask(path, op="steps", since=since)
        assert answer["lost"] == 0, "the ring was overwritten: read more often"
        raw, names = base64.b64decode(answer["data"]), answer["columns"]
        row = struct.Struct(f"<{len(names)}d")
        new = [dict(zip(names, values, strict=True)) for values in row.iter_unpack(raw)]
        found += new
        if not new:
            return since, found
        since = int(new[-1]["seq"])


def histogram(path: Path, name: str) -> LatencyHistogram:
    """The histogram of a latency so far."""
    found = ask(path, op="latencies")["histograms"][name]
    buckets = {int(index): int(count) for index, count in found["buckets"]}
    return LatencyHistogram(found["count"], found["sum_s"], found["min_s"], found["max_s"], buckets)


def counted(url: str) -> dict[str, float]:
    """The sums of the engine's own counters, by name."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    sums = dict.fromkeys(COUNTERS, 0.0)
    for line in text.splitlines():
        name = line.partition("{")[0]
        if name in sums:
            sums[name] += float(line.rpartition(" ")[2])
    return sums


def load(name: str, streams: int, seconds: float, saved: Path, more: Sequence[str]) -> None:
    """Send a closed-loop load. The requests and their results are saved to ``saved``."""
    flags = ("-c", str(streams), "-d", f"{seconds:g}", "--save", str(saved), "--json")
    command = [sys.executable, "-m", "llmtop", "load", name, *flags, *more]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def compare(
    engine: Mapping[str, LatencyHistogram], rows: Sequence[Mapping[str, Any]], streams: int
) -> None:
    """Print the TTFT percentiles of each place, and the difference between the HTTP process and the
    client."""
    client = [row["first_byte_s"] - row["sent_s"] for row in rows]
    print(f"{streams:4} streams, n={len(client)}: ttft in ms")
    for q in QUANTILES:
        inside = {name: found.quantile(q) for name, found in engine.items()}
        places = " ".join(f"{name} {(value or 0) * 1e3:9.1f}" for name, value in inside.items())
        client_s = nearest_rank(client, q)
        off = (inside["http"] or 0) - client_s
        print(f"     p{q * 100:<3g} {places}  client {client_s * 1e3:9.1f}", end="")
        print(f"  http - client {off * 1e3:+8.1f} ms ({off / client_s:+.1%})")


def main() -> None:
    """Measure and print each number of streams."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--saved", type=Path, default=Path("inside-truth.jsonl"))
    given, more = parser.parse_known_args()
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    record = StateDirectory(Path(state) / "llmtop").load(given.name)
    assert record is not None and record.live_socket is not None, "no such engine"
    path = Path(record.live_socket)
    front = path.with_name(f"{path.name}.front.0")
    places = {"scheduler": path, "http": front}
    since = 0
    for streams in given.streams:
        since, _ = steps(path, since)
        before = {place: histogram(where, "ttft") for place, where in places.items()}
        start = counted(record.url)
        load(given.name, streams, given.seconds, given.saved, more)
        time.sleep(1.5)  # until the last step and the counters of the last requests are known
        since, made = steps(path, since)
        end = counted(record.url)
        after = {place: histogram(where, "ttft") for place, where in places.items()}
        rows = [json.loads(line) for line in given.saved.read_text().splitlines()]
        rows = [row for row in rows if row["fate"] == "ok"]
        out = sum(row["output_tokens"] for row in made)
        prompt = sum(row["prefill_tokens"] + row["cached_tokens"] for row in made)
        truth = [end[name] - start[name] for name in COUNTERS]
        client = [sum(row[key] for row in rows) for key in ("prompt_tokens", "output_tokens")]
        print(f"{streams:4} streams, {len(made)} steps: tokens of ring / counters / client")
        print(f"     prompt {prompt:.0f} / {truth[0]:.0f} / {client[0]}", end="")
        print(f"   output {out:.0f} / {truth[1]:.0f} / {client[1]}")
        compare({place: after[place].minus(before[place]) for place in places}, rows, streams)


if __name__ == "__main__":
    main()
