"""Gauges of an engine by its own page: a look costs no command."""

from __future__ import annotations

import re
import urllib.request


def gauge(url: str, name: str) -> list[float]:
    """One gauge of a vLLM page, such as ``num_requests_running``, of each rank in its order."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    assert text.count(f"# TYPE vllm:{name} ") == 1
    found = re.findall(rf'^vllm:{name}\{{engine="(\d+)".*\}} (\S+)$', text, re.MULTILINE)
    return [float(value) for _, value in sorted(found)]


def running(url: str) -> int:
    """How many requests run, on all ranks."""
    return int(sum(gauge(url, "num_requests_running")))
