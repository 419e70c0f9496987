"""``llmtop watch`` on simulated engines: each kind of condition begins once and ends once."""

from __future__ import annotations

import itertools
import json
import os
import queue
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.llmtop_process import Home, command, free_port

pytestmark = [pytest.mark.process, pytest.mark.more]
PATIENCE_S = 120.0
RULES = """
[engines.one]
engine = "sim"
port = {ports[0]}
args = ["--startup-s", "0"]

[engines.stuck]
engine = "sim"
port = {ports[1]}
args = ["--startup-s", "0"]

[alerts.slow]
when = "slo.ttft_p95 > 1ms for 1s"
engines = ["one"]
webhook = "{url}/secret"

[alerts.full]
when = "kv > 0% for 1s"
engines = ["one"]
webhook = "{url}/secret"

[alerts.still]
when = "hung"
webhook = "{url}/secret"

[alerts.dead]
when = "state = failed"
engines = ["stuck"]
webhook = "{url}/secret"
"""
PARTS = ("generation", "prompt")
Posted = tuple[str, str]  # rule, begins or ends


@contextmanager
def webhook() -> Iterator[tuple[str, queue.Queue[dict[str, Any]]]]:
    """Its address, and what was posted to it. The first post of all is refused with 503."""
    posted: queue.Queue[dict[str, Any]] = queue.Queue()
    refused = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if refused.is_set():
                posted.put(document)
            self.send_response(204 if refused.is_set() else 503)
            self.end_headers()
            refused.set()

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", posted
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def frozen_engine() -> Iterator[tuple[str, threading.Event]]:
    """Its address: it answers with 200 and no number moves, until the event is set."""
    moving = threading.Event()
    tokens = itertools.count(1)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made = next(tokens) if moving.is_set() else 0
            labels = '{engine="0",model_name="m"}'
            lines = [f"vllm:num_requests_running{labels} 3"]
            lines += [f"vllm:{name}_tokens_total{labels} {made}" for name in PARTS]
            body = ("\n".join(lines) + "\n").encode() if self.path == "/metrics" else b"{}"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", moving
        finally:
            server.shutdown()
            thread.join()


def test_each_condition_begins_once_and_ends_once(tmp_path: Path) -> None:
    home = Home.make(tmp_path)
    said = tmp_path / "said"
    with (
        webhook() as (url, posted),
        frozen_engine() as (other, moving),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd,
    ):
        rules = RULES.format(ports=[free_port(), free_port()], url=url)
        (tmp_path / "llmtop.toml").write_text(rules)
        done = home.run("up", timeout=PATIENCE_S)
        assert done.code == 0, done.err
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE_S)
        environ = {**home.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        seen: list[Posted] = []
        engines = {"dead": "stuck", "still": other.removeprefix("http://")}

        def until(*wanted: Posted) -> None:
            while not set(wanted) <= set(seen):
                found = posted.get(timeout=PATIENCE_S)
                seen.append((found["rule"], found["status"]))
                assert found["engine"] == engines.get(found["rule"], "one")

        with (
            said.open("wb") as out,
            subprocess.Popen(
                command("watch", "one", "stuck", other),
                env=environ,
                cwd=tmp_path,
                stdout=out,
                stderr=out,
            ) as watch,
        ):
            try:
                assert systemd.recv(1000) == b"READY=1"
                with subprocess.Popen(
                    command("load", "one", "--shape", "hold 8 for 500s"), env=home.environ,
                    cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                ) as load:  # fmt: skip
                    until(("slow", "begins"), ("full", "begins"))
                    load.send_signal(signal.SIGINT)
                until(("slow", "ends"), ("full", "ends"))
                until(("still", "begins"))
                moving.set()
                until(("still", "ends"))
                records = home.run("ps", "--json").json["engines"]
                pid = next(one["pid"] for one in records if one["name"] == "stuck")
                os.kill(pid, signal.SIGKILL)
                until(("dead", "begins"))
                again = home.run("up", "stuck", timeout=PATIENCE_S)
                assert again.code == 0, again.err
                until(("dead", "ends"))
                assert b"WATCHDOG=1" in systemd.recv(1000)
            finally:
                watch.terminate()
                watch.wait(PATIENCE_S)
                home.stop_all()
    assert len(seen) == len(set(seen)) == 8
    text = said.read_text()
    assert "secret" not in text
    for rule in ("slow", "full", "still", "dead"):
        assert text.count(f"  {rule}  ") == 2, text
