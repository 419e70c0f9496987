"""A fake Prometheus of any size, with synthetic engines, for the queries of the fleet table.

    python -m bench.fleet.synthetic --instances 500 --gpus 8

It recognises the eight queries by their text and answers from templates. So it needs little CPU
compared to the table that is measured.
"""

from __future__ import annotations

import argparse
import json
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from llmtop.fleet.queries import COUNTED

BOUNDS = (
    *("0.001", "0.005", "0.01", "0.02", "0.04", "0.06", "0.08", "0.1", "0.25", "0.5", "0.75"),
    *("1.0", "2.5", "5.0", "7.5", "10.0", "20.0", "40.0", "80.0", "160.0", "640.0", "2560.0"),
    "+Inf",
)
GAUGES = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
COUNTERS = (
    *("vllm:generation_tokens_total", "vllm:prompt_tokens_total", "vllm:num_preemptions_total"),
    *("vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"),
)


class SyntheticFleet:
    """The synthetic engines. started: when they started, unix seconds."""

    def __init__(self, instances: int, gpus: int) -> None:
        self.instances, self.gpus = instances, gpus
        self.started = time.time() - 3600

    def answer(self, query: str, now: float) -> bytes:
        """The body of the answer to a query. now: unix seconds."""
        rows = [
            json.dumps({"metric": labels, "value": [now, f"{value:.15g}"]})
            for labels, value in self._rows(query, now)
        ]
        head = '{"status":"success","data":{"resultType":"vector","result":['
        return (head + ",".join(rows) + "]}}").encode()

    def _rows(self, query: str, now: float) -> list[tuple[dict[str, str], float]]:
        found: list[tuple[dict[str, str], float]] = []
        age = now - self.started
        if query.startswith("sum by"):
            return [
                ({"Hostname": f"host{n:04}", **labels}, value)
                for n in range(self.instances)
                for labels, value in (
                    ({"__name__": "DCGM_FI_DEV_POWER_USAGE"}, 650.0 * self.gpus),
                    ({"__name__": "DCGM_FI_DEV_POWER_USAGE", COUNTED: "yes"}, float(self.gpus)),
                )
            ]
        for n in range(self.instances):
            target = {"job": "vllm", "instance": f"host{n:04}:8000", "node": f"host{n:04}"}
            own = {**target, "engine": "0", "model_name": f"model-{n % 5}"}
            if query.startswith("timestamp("):
                found.append((target, now - 1.0 - n % 4))
            elif query.startswith("up"):
                found.append(({"__name__": "up", **target}, 1.0))
            elif query.startswith("scrape_duration"):
                found.append(({"__name__": "scrape_duration_seconds", **target}, 0.02))
            elif query.startswith("process_start"):
                found.append(({"__name__": "process_start_time_seconds", **target}, self.started))
            elif query.startswith("last_over_time"):
                found.append(({"__name__": GAUGES[0], **own}, 30.0))
            elif "_bucket" in query:
                name = "vllm:time_to_first_token_seconds"
                for index, bound in enumerate(BOUNDS):
                    share = min(1.0, index / 14)
                    found.append(
                        ({"__name__": f"{name}_bucket", "le": bound, **own}, round(age * 3 * share))
                    )
                found.append(({"__name__": f"{name}_sum", **own}, age * 0.9))
            else:
                found += self._values(own, age, n)
        return found

    def _values(
        self, own: dict[str, str], age: float, n: int
    ) -> list[tuple[dict[str, str], float]]:
        gauges = dict(
            zip(GAUGES, (float(n % 60), float(n % 7 == 0), 0.3 + n % 50 / 100), strict=True)
        )
        found = [({"__name__": name, **own}, value) for name, value in gauges.items()]
        found += [({"__name__": name, **own}, round(age * (1000 + n))) for name in COUNTERS]
        found += [
            ({"__name__": "vllm:request_success_total", "finished_reason": reason, **own}, age)
            for reason in ("stop", "length", "abort", "error")
        ]
        info = {f"option_{k}": "some value of it" for k in range(24)}
        cache = {"num_gpu_blocks": "27000", "block_size": "16", **info}
        found.append(({"__name__": "vllm:cache_config_info", **cache, **own}, 1.0))
        found += [
            ({"__name__": "vllm:engine_sleep_state", "sleep_state": state, **own}, value)
            for state, value in (("awake", 1.0), ("weights_offloaded", 0.0), ("discard_all", 0.0))
        ]
        return found


def serve(fleet: SyntheticFleet) -> ThreadingHTTPServer:
    """The server, on a free port that the kernel chooses."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = urllib.parse.parse_qs(body)
            now = float(form["time"][0]) if "time" in form else time.time()
            answer = fleet.answer(form["query"][0], now)
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


def main() -> None:
    """Print the port, then serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--instances", type=int, default=500)
    parser.add_argument("--gpus", type=int, default=8)
    given = parser.parse_args()
    server = serve(SyntheticFleet(given.instances, given.gpus))
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
