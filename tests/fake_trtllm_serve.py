"""A stand-in for trtllm-serve that keeps its documented semantics; not one line of it is theirs.

The port is bound at once and refuses until the model is loaded; /health is 200 from then on;
/metrics gives each iteration once, waits 2 s when there is none and then says []; statistics are
kept only if the configuration asks for them; /prometheus/metrics has no series before the first
request ended; an unknown key ends it as pydantic does. Its own are the flags ``--fake…``, and that
it refuses a knob that is told twice (real versions pick one of the two).
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import signal
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

STEP_S = 0.01
BLOCK_TOKENS = 32
MAX_BLOCKS = 1000
QUEUE_WAIT_S = 2.0
KEYS = {
    *("enable_iter_perf_stats", "return_perf_metrics", "iter_stats_max_iterations"),
    "perf_metrics_max_requests",
    *("max_batch_size", "max_num_tokens", "max_seq_len", "tensor_parallel_size"),
    *("kv_cache_config", "cuda_graph_config", "speculative_config", "scheduler_config"),
    *("disable_overlap_scheduler", "enable_chunked_prefill"),
}
LIMITS = ("Static", "TunerRecommended", "Runtime")
UNTOLD = [f"max{what}{how}" for what in ("BatchSize", "NumTokens") for how in LIMITS]
UNTOLD += ["cpuMemUsage", "pinnedMemUsage"]  # all left 0 by the PyTorch backend
SECTIONS = {
    "kv_cache_config": {"free_gpu_memory_fraction", "enable_block_reuse", "dtype", "max_tokens"},
    "cuda_graph_config": {"enable_padding", "max_batch_size"},
    "speculative_config": {"decoding_type", "max_draft_len", "speculative_model_dir"},
    "scheduler_config": {"capacity_scheduler_policy"},
}
FLAGS = {
    "max_batch_size": "max_batch_size",
    "max_num_tokens": "max_num_tokens",
    "max_seq_len": "max_seq_len",
    "tp_size": "tensor_parallel_size",
    "kv_cache_free_gpu_memory_fraction": "kv_cache_config.free_gpu_memory_fraction",
    "enable_chunked_prefill": "enable_chunked_prefill",
}
BUCKETS = {
    "time_to_first_token_seconds": (0.001, 0.01, 0.1, 0.5, 1.0, 2.5, 10.0),
    "time_per_output_token_seconds": (0.01, 0.025, 0.05, 0.1, 0.5, 2.5),
    "e2e_request_latency_seconds": (0.3, 0.5, 1.0, 2.0, 5.0, 60.0),
    "request_queue_time_seconds": (0.3, 0.5, 1.0, 2.0, 5.0, 60.0),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("model")
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=8000)
    for flag in ("--max_batch_size", "--max_num_tokens", "--max_seq_len"):
        parser.add_argument(flag, type=int)
    parser.add_argument("--tp_size", "--tensor_parallel_size", type=int)
    fraction = ("--kv_cache_free_gpu_memory_fraction", "--free_gpu_memory_fraction")
    parser.add_argument(*fraction, type=float)
    parser.add_argument("--enable_chunked_prefill", action="store_true", default=None)
    parser.add_argument("--extra_llm_api_options", "--config", type=Path)
    parser.add_argument("--fake_wait_for", type=Path)  # load until this file is there
    # newest: all series, as in 2026; drained: Prometheus takes the queue, as once.
    for what in ("oom", "bare_names", "no_prometheus", "newest", "drained"):
        parser.add_argument(f"--fake_{what}", action="store_true")
    known, unknown = parser.parse_known_args()
    if unknown:  # click's words
        sys.exit(
            f"Usage: trtllm-serve serve [OPTIONS] MODEL\n\nError: No such option: {unknown[0]}"
        )
    return known


def configuration(args: argparse.Namespace) -> dict[str, Any]:
    """The file, in as much of YAML as is needed: nested sections and JSON values."""
    section = settings = dict[str, Any]()
    path = args.extra_llm_api_options
    for line in path.read_text().splitlines() if path else ():
        key, _, value = line.strip().partition(":")
        if not key or key.startswith("#"):
            continue
        if not line.startswith(" "):
            section = settings
        if value.strip():
            section[key] = json.loads(value)
        else:
            section = settings[key] = {}
    check(settings)
    for flag, where in FLAGS.items():
        outer, _, inner = where.partition(".")
        told = settings.get(outer, {})
        twice = inner in told if inner else outer in settings
        if twice and getattr(args, flag) is not None:
            sys.exit(f"fake: {where} is told both by --{flag} and by {path}")
    return settings


def check(settings: dict[str, Any]) -> None:
    wrong = [(key, value) for key, value in settings.items() if key not in KEYS]
    for name, known in SECTIONS.items():
        inner = settings.get(name) or {}
        wrong += [(f"{name}.{key}", inner[key]) for key in inner if key not in known]
    if wrong:
        key, value = wrong[0]
        sys.exit(
            "Traceback (most recent call last):\n  File ...\npydantic_core.ValidationError: "
            f"{len(wrong)} validation error for TorchLlmArgs\n{key}\n"
            f"  Extra inputs are not permitted [type=extra_forbidden, input_value={value!r}, "
            f"input_type={type(value).__name__}]"
        )


class Request:
    """One request: prefilled in its first iteration, a token or more in each one after."""

    def __init__(self, prompt_tokens: int, max_tokens: int) -> None:
        self.prompt_tokens = prompt_tokens
        self.max_tokens = max_tokens
        self.tokens = 0
        self.arrived = time.monotonic()
        self.first_at = 0.0
        self.changed = threading.Condition()

    @property
    def blocks(self) -> int:
        return -(-(self.prompt_tokens + self.tokens) // BLOCK_TOKENS)


class Engine:
    """Iterates over its requests in a thread of its own and keeps its statistics."""

    def __init__(self, settings: dict[str, Any], args: argparse.Namespace) -> None:
        self.batch = args.max_batch_size or settings.get("max_batch_size", 64)
        self.drafts = (settings.get("speculative_config") or {}).get("max_draft_len", 0)
        self.keeps = bool(settings.get("enable_iter_perf_stats"))
        self.drained = args.fake_drained
        self.lock = threading.Condition()
        self.waiting: deque[Request] = deque()
        self.active: list[Request] = []
        self.stats: deque[dict[str, Any]] = deque(
            maxlen=settings.get("iter_stats_max_iterations", 1000)
        )
        self.requests: deque[dict[str, Any]] = deque(
            maxlen=settings.get("perf_metrics_max_requests", 0)
        )
        self.iteration = 100  # it has warmed up
        self.reused = self.missed = 0
        self.ended: dict[str, int] = {}
        self.observed: dict[str, list[float]] = {name: [] for name in BUCKETS}
        self.totals = {"prompt": 0, "generation": 0}
        threading.Thread(target=self.run, daemon=True).start()

    def submit(self, request: Request) -> None:
        with self.lock:
            self.waiting.append(request)
            self.lock.notify_all()

    def run(self) -> None:
        while True:
            with self.lock:
                while not self.active and not self.waiting:
                    self.lock.wait()
                self.step()
            time.sleep(STEP_S)

    def step(self) -> None:
        new = []
        while self.waiting and len(self.active) < self.batch:
            new.append(self.waiting.popleft())
            self.active.append(new[-1])
        active = len(self.active)
        generating = [request for request in self.active if request.tokens]
        accepted = self.drafts // 2
        done = []
        for request in self.active:
            with request.changed:
                if not request.tokens:
                    request.first_at = time.monotonic()
                    self.reused += request.prompt_tokens // BLOCK_TOKENS // 2
                    self.missed += request.blocks - request.prompt_tokens // BLOCK_TOKENS // 2
                request.tokens += 1 + (accepted if request in generating else 0)
                if request.tokens >= request.max_tokens:
                    done.append(request)
                request.changed.notify_all()
        self.active = [request for request in self.active if request not in done]
        used = sum(request.blocks for request in self.active)
        self.iteration += 1
        record: dict[str, Any] = {
            "timestamp": "11-22-2026 08:00:00.000000",
            "iter": self.iteration,
            "iterLatencyMS": STEP_S * 1e3,
            "newActiveRequestsQueueLatencyMS": 0.0,
            "numNewActiveRequests": len(new),
            "numActiveRequests": active,
            "numQueuedRequests": len(self.waiting),
            "numCompletedRequests": len(done),
            "maxNumActiveRequests": self.batch,
            **dict.fromkeys(UNTOLD, 0),
            "gpuMemUsage": 76665782272,
            "kvCacheStats": {
                "allocNewBlocks": self.missed,
                "allocTotalBlocks": self.missed,
                "cacheHitRate": self.reused / max(self.reused + self.missed, 1),
                "freeNumBlocks": MAX_BLOCKS - used,
                "maxNumBlocks": MAX_BLOCKS,
                "missedBlocks": self.missed,
                "reusedBlocks": self.reused,
                "tokensPerBlock": BLOCK_TOKENS,
                "usedNumBlocks": used,
            },
            "staticBatchingStats": {"numScheduledRequests": 0, "numContextRequests": 0},
            "inflightBatchingStats": {
                "numScheduledRequests": active,
                "numContextRequests": active - len(generating),
                "numGenRequests": len(generating),
                **dict.fromkeys(("numPausedRequests", "numCtxTokens", "microBatchId"), 0),
            },
            "specDecodingStats": None,
        }
        if self.drafts:
            record["specDecodingStats"] = {
                "numDraftTokens": self.drafts * len(generating),
                "numAcceptedTokens": accepted * len(generating),
                "numRequestsWithDraftTokens": len(generating),
                "acceptanceLength": 1.0 + accepted,
                "iterLatencyMS": 0.0,
                "draftOverhead": 0.0,
            }
        if self.keeps:
            self.stats.append(record)
        for request in done:
            self.end(request)
        self.lock.notify_all()

    def end(self, request: Request) -> None:
        now = time.monotonic()
        self.ended["length"] = self.ended.get("length", 0) + 1
        self.totals["prompt"] += request.prompt_tokens
        self.totals["generation"] += request.tokens
        self.observed["time_to_first_token_seconds"].append(request.first_at - request.arrived)
        self.observed["time_per_output_token_seconds"].append(
            (now - request.first_at) / max(request.tokens - 1, 1)
        )
        self.observed["e2e_request_latency_seconds"].append(now - request.arrived)
        self.observed["request_queue_time_seconds"].append(0.001)
        if self.drained:
            self.stats.clear()
        timing = {
            "server_arrival_time": request.arrived - 0.001,
            "arrival_time": request.arrived,
            "first_scheduled_time": request.arrived + 0.0005,
            "first_token_time": request.first_at,
            "server_first_token_time": request.first_at + 0.001,
            "last_token_time": now,
        }
        number, iteration = len(self.observed["e2e_request_latency_seconds"]), self.iteration
        metrics = {"first_iter": iteration, "last_iter": iteration, "timing_metrics": timing}
        self.requests.append({"request_id": number, "perf_metrics": metrics})

    def drain(self) -> list[dict[str, Any]]:
        """All that was not read before; when there is nothing, what comes within two seconds."""
        with self.lock:
            self.lock.wait_for(lambda: self.stats, QUEUE_WAIT_S)
            found = list(self.stats)
            self.stats.clear()
        return found

    def ended_requests(self) -> list[dict[str, Any]]:
        """Those that were not read before, as far as it keeps them."""
        with self.lock:
            found = list(self.requests)
            self.requests.clear()
        return found


def exposition(engine: Engine, prefix: str, newest: bool) -> str:
    labels = 'model_name="undefined",engine_type="undefined"'
    lines, name = [], f"{prefix}request_success_total"
    with engine.lock:
        for reason, count in engine.ended.items():
            lines.append(f'{name}{{{labels},finished_reason="{reason}"}} {count}.0')
        for base, values in engine.observed.items():
            name = prefix + base
            for bound in (*BUCKETS[base], float("inf")) if values else ():
                le = "+Inf" if bound == float("inf") else bound
                count = sum(value <= bound for value in values)
                lines.append(f'{name}_bucket{{{labels},le="{le}"}} {count}.0')
            if values:
                lines.append(f"{name}_sum{{{labels}}} {sum(values)}")
                lines.append(f"{name}_count{{{labels}}} {len(values)}.0")
        if newest and engine.ended:
            gauges = {
                "num_requests_running": len(engine.active),
                "num_requests_waiting": len(engine.waiting),
                "kv_cache_utilization": sum(r.blocks for r in engine.active) / MAX_BLOCKS,
                "kv_cache_max_blocks": MAX_BLOCKS,
                "kv_cache_tokens_per_block": BLOCK_TOKENS,
                "prompt_tokens_total": engine.totals["prompt"],
                "generation_tokens_total": engine.totals["generation"],
            }
            lines += [f"{prefix}{name}{{{labels}}} {value}" for name, value in gauges.items()]
    return "".join(f"{line}\n" for line in lines)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    engine: Engine
    prometheus: bool
    args: argparse.Namespace


class Answer(http.server.BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        match self.path:
            case "/health":
                self.tell(200, b"")
            case "/version":
                self.tell(200, b'{"version": "1.2.0"}')
            case "/v1/models":
                card = {"id": self.server.args.model, "owned_by": "tensorrt_llm"}
                self.tell(200, json.dumps({"data": [card]}).encode())
            case "/metrics":
                self.tell(200, json.dumps(self.server.engine.drain()).encode())
            case "/perf_metrics":
                self.tell(200, json.dumps(self.server.engine.ended_requests()).encode())
            case "/prometheus/metrics" if self.server.prometheus:
                prefix = "" if self.server.args.fake_bare_names else "trtllm_"
                text = exposition(self.server.engine, prefix, self.server.args.fake_newest)
                self.tell(200, text.encode())
            case _:
                self.tell(404, b'{"detail": "Not Found"}')

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/v1/completions"
        request = Request(max(len(str(asked["prompt"]).split()), 1), asked.get("max_tokens", 16))
        self.server.engine.submit(request)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        sent = 0
        while sent < request.max_tokens:
            with request.changed:
                request.changed.wait_for(lambda: request.tokens > sent)  # noqa: B023
                fresh = min(request.tokens, request.max_tokens) - sent
            sent += fresh
            chunk = {"choices": [{"index": 0, "text": " token" * fresh}]}
            self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        if asked.get("stream_options", {}).get("include_usage"):
            usage = {"prompt_tokens": request.prompt_tokens, "completion_tokens": sent}
            self.wfile.write(b"data: %s\n\n" % json.dumps({"choices": [], "usage": usage}).encode())
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def tell(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: object) -> None:
        pass


def say(*lines: str) -> None:
    print(*lines, sep="\n", flush=True)


def main() -> None:
    args = arguments()
    try:
        server = Server((args.host, args.port), Answer, bind_and_activate=False)
        server.server_bind()
    except OSError as error:
        sys.exit(f"RuntimeError: Failed to bind socket to {args.host}:{args.port}: {error}")
    say("[TensorRT-LLM] TensorRT-LLM version: 1.2.0")
    settings = configuration(args)
    say("rank 0 using MpiPoolSession to spawn MPI processes")
    parent, worker = os.getpid(), os.fork()
    while worker == 0 and os.getppid() == parent:
        time.sleep(0.2)
    if worker == 0:
        os._exit(1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        say("[11/22/2026-08:00:01] [TRT-LLM] [I] Use 15.00 GB for model weights.")
        say("Loading weights: 100%|#####| 801/801 [00:46<00:00, 17.29it/s]")
        if args.fake_oom:
            say("Executor creation failed due to insufficient GPU memory.", "")
            say("The following component could not be created: KV cache")
            say("Total GPU memory (GiB): 79.10")
            sys.exit("RuntimeError: Executor worker returned error")
        while args.fake_wait_for and not args.fake_wait_for.exists():
            time.sleep(0.02)
        say("[11/22/2026-08:00:02] [TRT-LLM] [I] Creating CUDA graph instances for 11 batch sizes.")
        server.engine = Engine(settings, args)
        told = settings.get("return_perf_metrics", False)
        server.prometheus = told and not args.fake_no_prometheus
        server.args = args
        server.server_activate()
        say(f"INFO:     Started server process [{os.getpid()}]")
        server.serve_forever()
    finally:
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)


if __name__ == "__main__":
    main()
