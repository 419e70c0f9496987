"""A real Prometheus scrapes twelve simulated engines: one each is killed, restarted, hung, mad."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from llmtop.engines.metrics.histograms import FEWEST_P95
from llmtop.engines.registry import ADAPTERS
from llmtop.fleet.groups import grouped
from llmtop.fleet.instances import State
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


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    program()
    made = Home.make(tmp_path_factory.mktemp("home"))
    yield made
    made.stop_all()


@pytest.fixture(scope="module")
def ports(home: Home) -> dict[str, int]:
    found = {name: free_port() for name in NAMES}
    lines = []
    for name, port in found.items():
        mad = ', "--misbehave", "metrics-nonsense"' if name == MAD else ""
        lines += [
            f"[engines.{name}]",
            f'engine = "sim"\nport = {port}\nargs = ["--startup-s", "0"{mad}]',
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
        self._observer = Observer(self._client, list(ADAPTERS.values()))

    def look(self) -> Table:
        table = self._loop.run_until_complete(self._observer.read_table())
        assert table.trouble == ""
        return table

    def states(self, table: Table) -> dict[str, State]:
        names = {f"127.0.0.1:{port}": name for name, port in self._ports.items()}
        return {names[one.instance]: one.state for one in table.instances}

    def after(self, expected: Mapping[str, State]) -> Table:
        """The table once the engines are in these states.

        On a machine with time to spare it is right two scrapes after it happened. Beside other work
        a scrape of a healthy engine may come too late, and the table then shows that.
        """
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


def test_all_are_ready_and_the_mad_one_has_no_numbers(fleet: Fleet) -> None:
    table = fleet.after({name: State.READY for name in NAMES if name != MAD})
    assert set(fleet.states(table)) == set(NAMES)
    assert {one.engine for one in table.instances} == {"sim"}
    (mad,) = (one for one in table.instances if one.instance.endswith(str(fleet._ports[MAD])))
    assert mad.sample is not None
    for value in (mad.sample.running, mad.sample.kv_usage, mad.sample.output_tokens_per_s):
        assert value is None or 0 <= value < 1e9


def raw_buckets(server: Server, at: str) -> dict[float, float]:
    """Requests by the bound of their bucket, over all engines, at a moment."""
    name = "vllm:time_to_first_token_seconds_bucket"
    return {
        float(one["metric"]["le"]): float(one["value"][1])
        for one in server.query(f"sum by (le) ({name} < 1e15)", time=at)
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


def test_one_is_killed(fleet: Fleet, home: Home) -> None:
    os.kill(pid_of(home, KILLED), signal.SIGKILL)
    fleet.after({KILLED: State.GONE})


def test_one_is_restarted(fleet: Fleet, home: Home) -> None:
    done = home.run("restart", RESTARTED, "--yes", timeout=280)
    assert done.code == 0, done.err
    table = fleet.after({RESTARTED: State.RESTARTED})
    (one,) = (one for one in table.instances if one.instance.endswith(str(fleet._ports[RESTARTED])))
    assert one.sample is not None and (one.sample.output_tokens_per_s or 0.0) >= 0.0


def test_one_hangs(fleet: Fleet, home: Home) -> None:
    pid = pid_of(home, HANGING)
    os.kill(pid, signal.SIGSTOP)
    try:
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
