"""Preemptions of the engine's own, with those that an operator's --evict caused left out."""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import pytest

from llmtop.engines.core.live_protocol import LiveError, LiveState
from llmtop.engines.core.options import Change
from llmtop.engines.core.samples import Counter, Reading
from llmtop.engines.metrics.evictions import Evictions
from llmtop.operations.wiring import Wiring
from tests.llmtop_process import Home, command, free_port

pytestmark = pytest.mark.process


class Counts:
    """A live engine that tells how many it evicted, or does not answer; ``asked`` counts."""

    def __init__(self) -> None:
        self.evicted: int | None = 0
        self.asked = 0

    async def get(self) -> LiveState:
        self.asked += 1
        if self.evicted is None:
            raise LiveError("it is silent")
        return LiveState(
            engine="x", version="1", pid=None, options={}, history=(), evicted_total=self.evicted
        )

    async def set(
        self, changes: Mapping[str, int], *, evict: bool = False, by: str = "", wait_s: float = 1.0
    ) -> tuple[Change, ...]:
        return ()

    async def close(self) -> None:
        pass


async def shown(out: Evictions, counted: float) -> float:
    reading = Reading(0.0, 0.0, counters={Counter.PREEMPTIONS: counted})
    return (await out.out_of(reading)).counters[Counter.PREEMPTIONS]


async def test_ours_are_taken_out_and_its_own_remain() -> None:
    live = Counts()
    out = Evictions(live)
    live.evicted = 3  # before anybody looked
    assert await shown(out, 5) == 2
    live.evicted = 17
    assert await shown(out, 19) == 2
    assert await shown(out, 20) == 3


async def test_an_engine_whose_count_stands_still_is_not_asked() -> None:
    live = Counts()
    out = Evictions(live)
    for _ in range(10):
        await shown(out, 4)
    assert live.asked == 1


async def test_without_an_answer_the_count_never_goes_back() -> None:
    live = Counts()
    out = Evictions(live)
    live.evicted = None
    assert await shown(out, 14) == 14
    live.evicted = 14
    assert await shown(out, 15) == 14  # else it would look like another process
    live.evicted = 0
    assert await shown(out, 1) == 1  # as this is one


async def test_what_is_not_counted_stays_unknown() -> None:
    assert (await Evictions(Counts()).out_of(Reading(0.0, 0.0))).counters == {}
    assert await shown(Evictions(None), 7) == 7


def start_load(home: Home) -> subprocess.Popen[bytes]:
    flags = ("-c", "16", "-d", "60", "--prompt-tokens", "32", "--output-tokens", "4000")
    return subprocess.Popen(
        command("load", "one", *flags),
        env=home.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.mark.more
async def test_a_sample_does_not_blame_the_kv_cache_for_an_evict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home.make(tmp_path)
    for name, text in home.environ.items():
        monkeypatch.setenv(name, text)
    started = home.run(
        *("run", "sim", "--detach", "--json", "--name", "one", "--port", str(free_port())),
        *("--", "--startup-s", "0.2"),
    )
    assert started.code == 0, started.err
    url = started.json["url"]

    def metric(name: str) -> float:
        with urllib.request.urlopen(f"{url}/metrics", timeout=10) as answer:
            found = re.search(rf"^vllm:{name}\S* (\S+)$", answer.read().decode(), re.M)
        return float(found[1]) if found else 0.0

    def until(name: str, least: float) -> None:
        deadline = time.monotonic() + 60
        while metric(name) < least:
            assert time.monotonic() < deadline, f"no {name}"
            time.sleep(0.05)

    load = start_load(home)
    wiring = Wiring(home.environ)
    session = wiring.session(wiring.owned("one"))
    try:
        await asyncio.to_thread(until, "num_requests_running", 16)
        await session.sample()
        done = await asyncio.to_thread(home.run, "set", "one", "max_num_seqs=2", "--evict")
        assert done.code == 0, done.err
        await asyncio.to_thread(until, "num_preemptions_total", 14)
        sample = await session.sample()
        assert (sample.preemptions, sample.waiting) == (0, 14)
    finally:
        load.kill()
        load.wait(60)
        await session.close()
        await wiring.fetch.close()
        home.stop_all()
