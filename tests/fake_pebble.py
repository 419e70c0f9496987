"""The imaginary engine of docs/adding-an-engine.md: ``serve MODEL --host H --port P``."""

from __future__ import annotations

import argparse
import http.server
import sys

METRICS = """\
# TYPE pebble_running gauge
pebble_running 3
pebble_kv_usage 0.25
pebble_tokens_total {tokens}
pebble_ttft_seconds_bucket{{le="0.1"}} {fast}
pebble_ttft_seconds_bucket{{le="+Inf"}} {all}
pebble_ttft_seconds_sum {seconds}
"""


class Answer(http.server.BaseHTTPRequestHandler):
    """Its totals grow with each reading: an engine that runs requests without a change is hung."""

    readings = 0

    def do_GET(self) -> None:
        body = b""
        if self.path == "/metrics":
            Answer.readings += 1
            n = Answer.readings
            body = METRICS.format(tokens=1200 * n, fast=5 * n, all=8 * n, seconds=1.5 * n).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=("serve",))
    parser.add_argument("model")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--max-requests", type=int, default=32)
    args = parser.parse_args()
    print("loading shard 7 of 7", flush=True)
    if args.model == "huge":
        sys.exit("cannot fit 800 GiB")
    with http.server.ThreadingHTTPServer((args.host, args.port), Answer) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
