"""Saved results as the commands write them, small and made up."""

from __future__ import annotations

from typing import Any

HOSTILE = '<script>alert(1)</script>\x1b[31m"|=cmd'


def latency(p50: float, p95: float, n: int = 100) -> dict[str, Any]:
    return {
        "p50": p50, "p95": p95, "p99": p95 * 1.2, "mean": p50 * 1.1, "min": p50 / 2,
        "max": p95 * 2, "std": 0.01, "n": n,
    }  # fmt: skip


def level(streams: int, tokens: float, ttft: float, verdict: str = "valid") -> dict[str, Any]:
    return {
        "streams": streams, "output_tokens_per_s": tokens, "output_tokens_error": 0.02,
        "requests": {"ok": 100, "failed": 0, "cut": 0}, "in_time": 95, "goodput_per_s": 10.0,
        "ttft_s": latency(ttft / 2, ttft), "tpot_s": latency(0.01, 0.02),
        "itl_s": latency(0.01, 0.02), "e2e_s": latency(1.0, 2.0), "steady": True,
        "client": {"verdict": verdict}, "dollars_per_million_tokens": 0.4,
        "tokens_per_joule": None,
    }  # fmt: skip


def setup(prompt_tokens: int = 512, command: str = "llmtop saturate vllm") -> dict[str, Any]:
    return {
        "llmtop": "0.2.0", "command": command,
        "host": {"cpu": "A CPU", "cores": 16, "memory_bytes": 2**37, "kernel": "6.1",
                 "load_average": 1.5},
        "gpus": [{"index": 0, "name": "NVIDIA H200", "memory_total_bytes": 150754820096,
                  "power_limit_w": 700.0, "driver": "570.86", "cuda": "12.8"}],
        "engine": {"kind": "vllm", "version": "0.32.0", "arguments": [], "started_at": 1.0,
                   "options": {"max_num_seqs": 64, "enable_prefix_caching": False}},
        "load": {"prompts": {"prompt_tokens": [prompt_tokens] * 2, "output_tokens": [128, 128],
                             "shared_prefix_tokens": 0, "dataset": "", "ignore_eos": True}},
    }  # fmt: skip


def saturation(**changed: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "kind": "saturation", "name": "vllm", "model": "llama", "simulated": False,
        "time": 1795326110.8, "summary": "Holds TTFT <= 500ms for 95% of requests up to 64 streams",
        "complete": True, "slo": {"ttft_s": 0.5}, "client_limited": False,
        "client_limit_streams": None, "dollars_per_hour": 3.5,
        "answers": [{"share": 0.95, "end": "found", "streams": 64, "fails_at": 96}],
        "knee": {"streams": 64, "low": 32, "high": 96},
        "levels": [
            level(8, 700.0, 0.05), level(64, 4000.0, 0.3), level(96, 4200.0, 1.4),
            level(128, 3000.0, 2.0, "not valid, because the client was short of a core"),
        ],
        "setup": setup(),
    }  # fmt: skip
    return {**found, **changed}


def comparison(**changed: Any) -> dict[str, Any]:
    finding = {
        "measure": "output_tokens_per_s", "better_when": "higher", "pairs": 4, "a": 1000.0,
        "b": 1120.0, "ratio": 1.12, "low": 1.05, "high": 1.2, "verdict": "better",
        "more_pairs": None, "noise_ratio": 1.03, "pairs_left_out": 0,
    }  # fmt: skip
    pair = {"noise": False, "order": "AB", "counted": True, "not_counted_for": [],
            "runs": [level(32, 1000.0, 0.2), level(32, 1120.0, 0.1)]}  # fmt: skip
    found: dict[str, Any] = {
        "kind": "comparison", "time": 1.0, "summary": "B is better", "complete": True,
        "simulated": True, "a": {"name": "vllm", "label": "max_num_seqs=8"},
        "b": {"name": "vllm", "label": "max_num_seqs=64"}, "streams": 32, "pairs_left_out": 1,
        "findings": [finding], "pairs": [pair], "setup": setup(), "setup_b": None,
    }  # fmt: skip
    return {**found, **changed}


def load(**changed: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": "vllm", "simulated": False, "loop": "closed", "shape": "hold 32 for 20s",
        "seed": 7, "requests": {"ok": 590, "failed": 3, "cut": 0}, "errors": {"HTTP 503": 3},
        "duration_s": 20.0, "prompt_tokens": 1000, "cached_tokens": 250,
        "output_tokens_per_s": 3371.0, "requests_per_s": 26.3, "ttft_s": latency(0.04, 0.07),
        "tpot_s": latency(0.01, 0.02), "itl_s": latency(0.01, 0.02), "e2e_s": latency(1.0, 2.0),
        "client": {"verdict": "valid"}, "oversaturated": False, "setup": setup(),
    }  # fmt: skip
    return {**found, **changed}


def tuning(**changed: Any) -> dict[str, Any]:
    own = {"max_num_seqs": 256, "max_queued_requests": 0}
    best = {"max_num_seqs": 64, "max_queued_requests": 16}
    found: dict[str, Any] = {
        "kind": "tuning", "name": "vllm", "model": "llama", "simulated": False,
        "time": 1795326110.8, "loop": "open", "shape": "hold 80 for 8s",
        "summary": "vllm: max_num_seqs 64 serves 1.50 times (1.21 to 1.86) as many requests",
        "slo": "ttft=1s,tpot=50ms", "verdict": "better", "settings": best, "own_settings": own,
        "goodput_ratio": {"value": 1.5, "low": 1.21, "high": 1.86, "pairs": 3},
        "tried": [
            {"settings": own, "expected_goodput_per_s": 30.0, "goodput_per_s": [29.0, 31.0],
             "interval": [17.3, 42.7], "in_time_share": [0.4, 0.5], "requests": [640, 655]},
            {"settings": best, "expected_goodput_per_s": 47.5, "goodput_per_s": [45.0, 45.0],
             "interval": [45.0, 45.0], "in_time_share": [0.75, 0.75], "requests": [640, 640]},
            {"settings": {"max_num_seqs": 8}, "expected_goodput_per_s": None,
             "goodput_per_s": [0.0], "interval": None, "in_time_share": [None], "requests": [0]},
        ],
        "runs": 9, "seconds": 80.5, "restored": True, "stopped": False,
        "launch_line": "llmtop run vllm org/model -- --max-num-seqs 64",
        "setup": setup(command="llmtop tune vllm --rate 80"),
    }  # fmt: skip
    return {**found, **changed}


def hold(**changed: Any) -> dict[str, Any]:
    began = 1795326000.0
    found: dict[str, Any] = {
        "kind": "hold", "name": "vllm", "model": "llama", "simulated": False,
        "time": began + 120.0, "seconds": 120.0, "slo": "ttft=1s,tpot=50ms",
        "summary": "vllm was held for 2m00s within ttft=1s,tpot=50ms", "accepted": 5120,
        "ended": 5010, "refused": 1280, "late": 41, "late_ttft": 30, "late_tpot": 11,
        "goodput_per_s": 41.4, "own_settings": {"max_num_seqs": 1024, "max_queued_requests": 0},
        "actions": [
            {"time": began + 10, "option": "max_num_seqs", "from": 1024, "to": 223,
             "why": "a token takes 46 ms with 258 streams"},
            {"time": began + 11, "option": "max_queued_requests", "from": 0, "to": 16,
             "why": "a first token would take 1.4 s"},
            {"time": began + 60, "option": None, "from": None, "to": None,
             "why": "cannot hold: no setting keeps the latency limits"},
            {"time": began + 90, "option": "max_queued_requests", "from": 16, "to": 0,
             "why": "the load is low"},
        ],
        "restored": True, "not_restored": {}, "ended_because": None,
        "setup": {**setup(command="llmtop hold vllm"), "load": {"shape": "the traffic"}},
    }  # fmt: skip
    return {**found, **changed}
