"""A real Prometheus (Debian's package) for tests that check against it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from tests.llmtop_process import free_port

REQUIRED = "LLMTOP_REQUIRE_PROMETHEUS"


def major_version() -> int:
    """That of the Prometheus that is installed."""
    done = subprocess.run([program(), "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"version (\d+)\.", done.stdout + done.stderr)
    return int(found[1]) if found else 0


def program(name: str = "prometheus") -> str:
    """The path of ``prometheus`` or ``promtool``; the test is skipped where it is not installed,
    unless the variable says that it must be."""
    found = shutil.which(name)
    if found is None:
        reason = f"{name} is not installed (apt-get install prometheus)"
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return found


class Server(Struct, frozen=True):
    url: str
    folder: Path

    def get(self, path: str, **asked: str) -> Any:
        query = urllib.parse.urlencode(asked)
        with urllib.request.urlopen(f"{self.url}{path}?{query}", timeout=60) as answer:
            return json.load(answer)

    def query(self, expression: str, **asked: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("/api/v1/query", query=expression, **asked)["data"][
            "result"
        ]
        return found


@contextmanager
def running(
    folder: Path,
    jobs: Sequence[dict[str, Any]],
    *,
    interval_s: float = 2.0,
    timeout_s: float = 1.9,
    flags: Sequence[str] = (),
    rules: Sequence[Path] = (),
) -> Iterator[Server]:
    """A Prometheus that scrapes these jobs (its own configuration, as JSON, which is YAML)."""
    prometheus = program()
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "global": {
            "scrape_interval": f"{interval_s * 1000:.0f}ms",
            "scrape_timeout": f"{timeout_s * 1000:.0f}ms",
            "evaluation_interval": "1s",
        },
        "rule_files": [str(path) for path in rules],
        "scrape_configs": list(jobs),
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    port = free_port()
    arguments = [
        prometheus,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
        *flags,
    ]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(arguments, stdout=log, stderr=log, cwd=folder) as process,
    ):
        try:
            server = Server(f"http://127.0.0.1:{port}", folder)
            _wait(server, process)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError((server.folder / "log").read_text())
        try:
            with urllib.request.urlopen(f"{server.url}/-/ready", timeout=20):
                return
        except (OSError, urllib.error.URLError):
            time.sleep(0.1)
    raise AssertionError("prometheus is not ready after 120 s")
