"""A real Prometheus scrapes the exporter, and loads the rules and the dashboard's queries."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llmtop.exporter.engine_families import families
from llmtop.exporter.page import Page
from tests.exporter.test_forms import VALUES, facts
from tests.folders import ROOT
from tests.prometheus_server import Server, major_version, program, running

RULES = ROOT / "docs" / "monitoring" / "alerts.yml"
DASHBOARD = ROOT / "docs" / "monitoring" / "grafana.json"
pytestmark = pytest.mark.process


@contextmanager
def exporter() -> Iterator[int]:
    """The page of two engines, in a thread: its port."""
    started: list[int] = []
    ready, over = threading.Event(), threading.Event()

    async def serve() -> None:
        page = Page(lambda: families([facts(), facts("second")], 0))
        await page.start("127.0.0.1", 0)
        started.append(page.port)
        ready.set()
        await asyncio.to_thread(over.wait)
        await page.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(90)
        yield started[0]
    finally:
        over.set()
        thread.join(90)


def until(server: Server, expression: str) -> list[dict[str, Any]]:
    """What the expression finds; beside a busy machine a scrape may fail, and the next one not."""
    for _ in range(900):
        if found := server.query(expression):
            return found
        threading.Event().wait(0.1)
    raise AssertionError(f"no {expression}: {server.get('/api/v1/targets')}")


def test_promtool_takes_the_rules() -> None:
    done = subprocess.run(
        [program("promtool"), "check", "rules", str(RULES)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.mark.parametrize("is_native", [True, pytest.param(False, marks=pytest.mark.more)])
def test_a_real_prometheus_scrapes_it_and_loads_rules_and_queries(
    tmp_path: Path, is_native: bool
) -> None:
    if is_native and major_version() > 2:
        pytest.skip("this Prometheus takes native histograms by another setting")
    flags = ["--enable-feature=native-histograms"] if is_native else []
    with exporter() as port:
        job = {"job_name": "llmtop", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
        with running(tmp_path / "p", [job], flags=flags, rules=[RULES]) as server:
            assert until(server, "up == 1")
            until(server, 'llmtop_requests_refused_total{engine="llama"} == 3')
            until(server, 'llmtop_why{llmtop_why="batch_limit"} == 1')
            if is_native:
                (one,) = until(server, 'histogram_count(llmtop_ttft_seconds{engine="llama"})')
                assert float(one["value"][1]) == len(VALUES)
                (half,) = until(
                    server, 'histogram_quantile(0.5, llmtop_ttft_seconds{engine="llama"})'
                )
                assert float(half["value"][1]) == pytest.approx(0.02, rel=0.1)
            else:
                (one,) = until(server, 'llmtop_ttft_seconds_bucket{engine="llama",le="0.524288"}')
                assert float(one["value"][1]) == sum(value < 0.524288 for value in VALUES)
            rules = server.get("/api/v1/rules")["data"]["groups"][0]["rules"]
            assert len(rules) == 12 and {rule["health"] for rule in rules} <= {"ok", "unknown"}
            for query in queries():
                assert server.get("/api/v1/query", query=query)["status"] == "success", query


def queries() -> list[str]:
    """Those of the dashboard, with Grafana's variables filled in."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    found = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(found) > 15
    return [one.replace("$engine", ".*").replace("$__rate_interval", "1m") for one in found]
