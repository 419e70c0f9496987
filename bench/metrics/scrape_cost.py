"""What reading one engine costs: parsing, the window, the imports and one fetch over loopback.

    PYTHONPATH=. python bench/metrics/scrape_cost.py [TEXT.gz]

Prints CPU milliseconds (the best of many, the machine may be busy) and KiB of resident memory.
The whole of llmtop may take 25 ms of CPU a second; one engine is read once a second.
"""

from __future__ import annotations

import asyncio
import gzip
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from llmtop.engines.core.samples import Counter, Latency, Reading
from llmtop.engines.metrics.exposition import Parser
from llmtop.engines.metrics.histograms import histogram
from llmtop.engines.metrics.scraper import HttpFetch
from llmtop.engines.metrics.window import Window

TEXT = Path(__file__).resolve().parents[2] / "tests" / "data" / "metrics" / "vllm_spec.txt.gz"
PREFIXES = ("vllm:",)
NAMES = {
    Latency.TTFT: "vllm:time_to_first_token_seconds",
    Latency.ITL: "vllm:inter_token_latency_seconds",
    Latency.TPOT: "vllm:request_time_per_output_token_seconds",
    Latency.E2E: "vllm:e2e_request_latency_seconds",
    Latency.QUEUE: "vllm:request_queue_time_seconds",
}
# Run in a process of its own: what an import adds to one that has Textual and asyncio already.
IMPORT = """
import sys, time, textual.app, asyncio
def rss(): return int(open("/proc/self/statm").read().split()[1]) * 4
before, began = rss(), time.process_time()
{statement}
print(f"{{1000 * (time.process_time() - began):.0f}} {{rss() - before}}")
"""


def best(action: Callable[[], object], repeat: int = 200) -> float:
    """Milliseconds of CPU, the best of ``repeat``."""
    found = float("inf")
    for _ in range(repeat):
        began = time.process_time_ns()
        action()
        found = min(found, (time.process_time_ns() - began) / 1e6)
    return found


def whole(text: str) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    for family in text_string_to_metric_families(text):
        list(family.samples)


def filtered(text: str) -> None:
    lines = (line for line in text.split("\n") if line.startswith(PREFIXES))
    whole("\n".join(line for line in lines if "_created" not in line) + "\n")


def reading(parser: Parser, text: str, elapsed: float) -> Reading:
    found = parser.parse(text)
    tokens = found.value("vllm:generation_tokens_total") or 0.0
    histograms = {name: histogram(found, sample) for name, sample in NAMES.items()}
    return Reading(
        time=elapsed,
        elapsed=elapsed,
        counters={Counter.OUTPUT_TOKENS: tokens},
        histograms={name: hist for name, hist in histograms.items() if hist is not None},
    )


async def fetch_cost(text: str, count: int = 100) -> float:
    """Milliseconds of CPU a fetch, our side alone: the server runs in another process."""
    server = (
        "import http.server, sys\n"
        "body = sys.stdin.buffer.read()\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "    protocol_version = 'HTTP/1.1'\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.send_header('Content-Length', str(len(body)))\n"
        "        self.end_headers(); self.wfile.write(body)\n"
        "    def log_message(self, *a): pass\n"
        "s = http.server.ThreadingHTTPServer(('127.0.0.1', 0), H)\n"
        "print(s.server_address[1], flush=True); s.serve_forever()\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", server, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(text.encode())
        process.stdin.write_eof()
        url = f"http://127.0.0.1:{int(await process.stdout.readline())}/metrics"
        fetch = HttpFetch()
        for _ in range(5):
            await fetch(url)
        began = time.process_time()
        for _ in range(count):
            await fetch(url)
        used = time.process_time() - began
        await fetch.close()
        return 1000 * used / count
    finally:
        process.kill()
        await process.wait()


def main() -> None:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else TEXT
    text = gzip.decompress(path.read_bytes()).decode()
    print(f"{path.name}: {len(text):,} characters, {text.count(chr(10))} lines")
    parser, window = Parser(PREFIXES), Window()
    clock = iter(range(10**9))
    rows = [
        ("prometheus_client, whole text", best(lambda: whole(text), 30)),
        ("prometheus_client, our lines alone", best(lambda: filtered(text), 30)),
        ("Parser, first text", best(lambda: Parser(PREFIXES).parse(text), 30)),
        ("Parser, every later text", best(lambda: parser.parse(text))),
        ("  + reading with 5 histograms", best(lambda: reading(parser, text, 0.0))),
        (
            "  + window, ten readings long",
            best(lambda: window.add(reading(parser, text, float(next(clock))))),
        ),
        ("HttpFetch over loopback", asyncio.run(fetch_cost(text))),
    ]
    for name, cost in rows:
        print(f"{name:40} {cost:8.2f} ms CPU")
    client = "httpx.AsyncClient(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), trust_env=False)"
    for name, statement in (
        ("import httpx, and a client", f"import httpx, ssl; {client}"),
        ("import prometheus_client.parser", "import prometheus_client.parser"),
        ("  the same after httpx", "import prometheus_client.parser"),
        ("import pynvml", "import pynvml"),
    ):
        source = IMPORT.format(statement=statement)
        if name.startswith("  "):
            source = source.replace("import sys,", "import httpx, sys,", 1)
        out = subprocess.run([sys.executable, "-c", source], capture_output=True, check=True)
        used, size = out.stdout.split()
        print(f"{name:40} {int(used):8d} ms CPU {int(size):8,d} KiB")


if __name__ == "__main__":
    main()
