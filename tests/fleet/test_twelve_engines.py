"""A real Prometheus scrapes twelve simulated engines: one each is killed, restarted, hung, mad."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from llmtop.engines.metrics.histograms import FEWEST_P95
from llmtop.engines.registry import ADAPTERS
from llmtop.fleet.groups import grouped
from llmtop.fleet.instances import Instance, State
from llmtop.fleet.observer import Observer, Table
from llmtop.fleet.promql import Prometheus
from tests.llmtop_process import Home, free_port
from tests.prometheus_server import Server, program, running

pytestmark = [pytest.mark.process, pytest.mark.more]
NAMES = [f"e{number}" for number in range(12)]
KILLED, RESTARTED, HANGING, MAD, LOADED = NAMES[:5]
SCRAPE_S = 2.0
LOOKS = 60
LOADS = 10
BEATS = 2  # of the fleet, after which its table must be right


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    program()
    made = Home.make(tmp_path_factory.mktemp("home"))
    yield made
    made.stop_all()


@pytest.fixture(scope="module")
def ports(home: Home) -> dict[str, int]:
    found = {name: free_port() for name in NAMES}
    lines = [
        f'[engines.{name}]\nengine = "sim"\nport = {port}\nargs = ["--startup-s", "0"]'
        for name, port in found.items()
    ]
    (home.folder / "llmtop.toml").write_text("\n".join(lines))
    done = home.run("up", timeout=280)
    assert done.code == 0, done.err
    return found


@pytest.fixture(scope="module")
def server(ports: dict[str, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    targets = [f"127.0.0.1:{port}" for port in ports.values()]
    job = {"job_name": "sim", "static_configs": [{"targets": targets}]}
    folder = tmp_path_factory.mktemp("prometheus")
    with running(folder, [job], interval_s=SCRAPE_S, timeout_s=SCRAPE_S - 0.1) as found:
        yield found


class Fleet:
    """The table, beat by beat."""

    def __init__(self, server: Server, ports: dict[str, int]) -> None:
        self._server, self._ports = server, ports
        self._loop = asyncio.new_event_loop()
        self._client = Prometheus(server.url)
        self._moment: float | None = None  # of the next refresh, None: now
        self._observer = Observer(
            self._client,
            list(ADAPTERS.values()),
            wall=lambda: time.time() if self._moment is None else self._moment,
        )

    def look(self) -> Table:
        self.last = self._loop.run_until_complete(self._observer.read_table())
        assert self.last.trouble == ""
        return self.last

    def states(self, table: Table) -> dict[str, State]:
        names = {f"127.0.0.1:{port}": name for name, port in self._ports.items()}
        return {names[one.instance]: one.state for one in table.instances}

    def after_change(
        self, name: str, series: str, changed: Callable[[float], bool], state: State
    ) -> Instance:
        """The row of an engine after a change: it must be right within two refreshes.

        They count from the first sample in which the Prometheus has the change. Each refresh asks
        for a moment: how long a scrape or a refresh takes on a full machine does not matter.
        """
        instance = f"127.0.0.1:{self._ports[name]}"
        first = self._first(f'{series}{{instance="{instance}"}}', changed)
        seen = []
        for beat in range(BEATS):
            self._moment = first + 0.001 + beat * SCRAPE_S
            while time.time() < self._moment:
                time.sleep(0.05)
            (row,) = (one for one in self.look().instances if one.instance == instance)
            seen.append((row.state, row.reason))
            if row.state is state:
                self._moment = None
                return row
        raise AssertionError((name, state, seen))

    def _first(self, series: str, changed: Callable[[float], bool]) -> float:
        """When the first sample since the last refresh was taken that shows a change."""
        began = self.last.time
        for _ in range(1800):
            for found in self._server.query(f"{series}[300s]"):
                for at, text in found["values"]:
                    if at > began and changed(float(text)):
                        return float(at)
            time.sleep(0.1)
        raise AssertionError(f"{series} does not change")

    def after(self, expected: Mapping[str, State]) -> Table:
        """The table once the engines are in these states, however full the machine is."""
        table = self.look()
        for _ in range(LOOKS):
            self.scrapes(next(iter(expected)), 1)
            table = self.look()
            found = self.states(table)
            if all(found.get(name) is state for name, state in expected.items()):
                return table
        raise AssertionError((expected, table.instances))

    def scrapes(self, name: str, count: int) -> None:
        """Wait for so many scrapes of an engine from now on, whether they succeed or not."""
        instance = f"127.0.0.1:{self._ports[name]}"
        asked = f'timestamp(up{{instance="{instance}"}})'
        seen: set[str] = set()
        for _ in range(1800):
            seen |= {one["value"][1] for one in self._server.query(asked)}
            if len(seen) > count:
                return
            time.sleep(0.1)
        raise AssertionError(f"{instance} is not scraped")

    def close(self) -> None:
        self._loop.run_until_complete(self._client.close())
        self._loop.close()


@pytest.fixture(scope="module")
def fleet(server: Server, ports: dict[str, int]) -> Iterator[Fleet]:
    found = Fleet(server, ports)
    yield found
    found.close()


def pid_of(home: Home, name: str) -> int:
    engines: list[dict[str, Any]] = home.run("ps", "--json").json["engines"]
    return int(next(one["pid"] for one in engines if one["name"] == name))


def test_all_are_ready(fleet: Fleet) -> None:
    table = fleet.after(dict.fromkeys(NAMES, State.READY))
    assert set(fleet.states(table)) == set(NAMES)
    assert {one.engine for one in table.instances} == {"sim"}


def raw_buckets(server: Server, at: str) -> dict[float, float]:
    """Requests by the bound of their bucket, over all engines, at a moment."""
    name = "vllm:time_to_first_token_seconds_bucket"
    return {
        float(one["metric"]["le"]): float(one["value"][1])
        for one in server.query(f"sum by (le) ({name})", time=at)
    }


def test_the_percentile_of_the_group_is_that_of_the_raw_buckets(
    fleet: Fleet, home: Home, server: Server
) -> None:
    for _ in range(LOADS):
        done = home.run("load", LOADED, "--shape", "hold 8 for 6s", "--json", timeout=280)
        assert done.code == 0, done.err
        fleet.scrapes(LOADED, 2)
        if raw_buckets(server, f"{time.time():.3f}").get(math.inf, 0) >= FEWEST_P95:
            break
    # No look was taken meanwhile: all that was ever observed was observed within the window.
    table = fleet.after({LOADED: State.READY})
    (group,) = grouped((one for one in table.instances if one.ttft is not None), ("model",))
    raw = raw_buckets(server, f"{table.time:.3f}")
    assert group.ttft is not None and group.ttft.n == raw[math.inf] >= FEWEST_P95
    rank = math.ceil(0.95 * raw[math.inf])
    bounds = sorted(raw)
    place = next(n for n, bound in enumerate(bounds) if raw[bound] >= rank)
    p95 = group.ttft.p95
    assert p95 is not None and p95.at_most == pytest.approx(bounds[place], rel=0.26)
    assert p95.at_least >= (bounds[place - 1] if place else 0.0)


def restarted(since: float) -> Callable[[float], bool]:
    return lambda started: started > since


def test_one_is_killed(fleet: Fleet, home: Home) -> None:
    fleet.after({KILLED: State.READY})
    os.kill(pid_of(home, KILLED), signal.SIGKILL)
    row = fleet.after_change(KILLED, "up", lambda up: up == 0, State.GONE)
    assert row.sample is None and row.reason


def test_one_is_restarted(fleet: Fleet, home: Home) -> None:
    fleet.after({RESTARTED: State.READY})
    began = time.time()
    done = home.run("restart", RESTARTED, "--yes", timeout=280)
    assert done.code == 0, done.err
    changed = restarted(began)
    row = fleet.after_change(RESTARTED, "process_start_time_seconds", changed, State.RESTARTED)
    assert row.sample is not None and (row.sample.output_tokens_per_s or 0.0) >= 0.0


def test_one_publishes_nonsense(fleet: Fleet, home: Home) -> None:
    fleet.after({MAD: State.READY})
    began = time.time()
    words = ("restart", MAD, "--yes", "--", "--misbehave", "metrics-nonsense")
    done = home.run(*words, timeout=280)
    assert done.code == 0, done.err
    changed = restarted(began)
    row = fleet.after_change(MAD, "process_start_time_seconds", changed, State.RESTARTED)
    assert "impossible values" in row.reason and row.sample is not None
    for value in (row.sample.running, row.sample.kv_usage, row.sample.output_tokens_per_s):
        assert value is None or 0 <= value < 1e9


def test_one_hangs(fleet: Fleet, home: Home) -> None:
    fleet.after({HANGING: State.READY})
    pid = pid_of(home, HANGING)
    os.kill(pid, signal.SIGSTOP)
    try:
        fleet.after_change(HANGING, "up", lambda up: up == 0, State.HUNG)
        fleet.after({HANGING: State.HUNG, KILLED: State.GONE, NAMES[-1]: State.READY})
    finally:
        os.kill(pid, signal.SIGCONT)


def test_the_command_prints_the_same(home: Home, server: Server) -> None:
    done = home.run("fleet", "--prometheus", server.url, "--once", "--json", timeout=280)
    assert done.code == 0, done.err
    document = done.json
    assert len(document["instances"]) == 12
    assert "gone" in {one["state"] for one in document["instances"]}
    (group,) = (one for one in document["groups"] if one["model"] == "llama-3.1-8b")
    assert group["engine"] == "sim" and group["states"]["gone"] >= 1
