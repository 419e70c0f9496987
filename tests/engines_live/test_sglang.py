"""A real SGLang on a CPU: its numbers under load, its live options, the guard around them, its end.

One engine serves the tests up to the guard's, in order; each leaves the launch values behind it,
and the last ones break the plugin for good, and then the server. A second engine drafts with
n-grams.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from llmtop.engines.core.options import Change, Outcome
from llmtop.engines.core.samples import Latency, Reading
from llmtop.engines.introspection.engine_inside import Abilities, EngineInside
from llmtop.engines.metrics.detection import recognise
from llmtop.engines.metrics.scraper import HttpFetch
from llmtop.engines.metrics.window import Window
from llmtop.engines.sglang.adapter import ADAPTER
from llmtop.engines.sglang.http_options import StockLive
from llmtop.engines.tuning.live_client import LiveClient, LiveState
from tests.engines_live.engine import Engine
from tests.engines_live.scenario import (
    CHANGE_WAIT_S,
    NAME,
    PATIENT_S,
    alive,
    child,
    family,
    seen,
    server_dies,
    told,
)
from tests.engines_live.sglang_inside import Answer as Sent
from tests.engines_live.sglang_inside import free_of_requests, opened, states
from tests.engines_live.sglang_saboteur.llmtop_saboteur import FATAL_HOOK, HOOKS
from tests.engines_live.sglang_served import EVERY_TWO_STEPS
from tests.metric_page import parse

Answer = TypeVar("Answer")

SABOTEUR = Path(__file__).resolve().parent / "sglang_saboteur"
TOKENS = 100
# As many numbers as make a prompt of several hundred tokens that no prefix in the cache begins.
LONG = " ".join(str(n) for n in range(150))


@pytest.fixture(scope="module")
def engine(start_sglang: Callable[..., Engine]) -> Engine:
    return start_sglang(*EVERY_TWO_STEPS, path=(SABOTEUR,))


def read(engine: Engine) -> Reading:
    with urllib.request.urlopen(f"{engine.url}/metrics", timeout=PATIENT_S) as answer:
        text = answer.read().decode()
    return ADAPTER.read(parse(text, ADAPTER.prefixes), time.time(), time.monotonic())


def running(engine: Engine) -> int:
    return read(engine).running or 0


def state(engine: Engine) -> LiveState:
    return asyncio.run(LiveClient(engine.socket).get())


def change(engine: Engine, **changes: int) -> tuple[Change, ...]:
    return asyncio.run(LiveClient(engine.socket).set(changes, by="test", wait_s=CHANGE_WAIT_S))


def applied(engine: Engine, **changes: int) -> Change:
    (done,) = change(engine, **changes)
    assert done.outcome is Outcome.APPLIED, done
    return done


def generated(inside: EngineInside, ident: str) -> int:
    """Tokens of a request's answer so far."""
    rows = asyncio.run(inside.requests(ids=[ident])).rows
    return next((row.generated_tokens or 0 for row in rows if row.id == ident), 0)


def stock(engine: Engine, ask: Callable[[StockLive], Awaitable[Answer]]) -> Answer:
    async def once() -> Answer:
        client = StockLive(engine.url)
        try:
            return await ask(client)
        finally:
            await client.close()

    return asyncio.run(once())


def prefills(engine: Engine) -> list[int]:
    """How many tokens each prefill so far computed, as the log tells it."""
    log = engine.log.read_text(errors="replace")
    return [int(count) for count in re.findall(r"Prefill batch, .*?#new-token: (\d+)", log)]


def prefilled(engine: Engine, prompt: str) -> list[int]:
    """The prefills that one request made."""
    before = len(prefills(engine))
    assert engine.stream(prompt, 2).tokens == 2
    return prefills(engine)[before:]


def test_it_is_recognised(engine: Engine) -> None:
    async def ask() -> tuple[str, str | None, str | None]:
        fetch = HttpFetch()
        found = await recognise(engine.url, fetch)
        await fetch.close()
        return found.kind, found.version, found.model

    assert asyncio.run(ask()) == ("sglang", "0.5.23", "small")


def test_it_tells_what_can_be_changed(engine: Engine) -> None:
    found = state(engine)
    assert (found.engine, found.version, found.disabled) == ("sglang", "0.5.23", None)
    assert {name: (o.launch, o.maximum) for name, o in found.options.items()} == {
        "max_running_requests": (8, 8),
        "chunked_prefill_size": (1024, 1024),
        "max_prefill_tokens": (16384, 16384),
        "schedule_policy": (1, 6),
        "schedule_conservativeness": (100, 1000),
    }
    assert engine.socket.stat().st_mode & 0o777 == 0o600
    assert engine.socket.parent.stat().st_mode & 0o777 == 0o700


def test_asking_whether_it_is_ready_costs_no_generation(engine: Engine) -> None:
    before = len(prefills(engine)), engine.steps
    begun = time.monotonic()
    assert engine.healthy()
    assert time.monotonic() - begun < 0.9  # a generated answer takes a second at least
    assert (len(prefills(engine)), engine.steps) == before


def test_its_numbers_under_load(engine: Engine) -> None:
    window = Window()
    with engine.under_load(streams=12, tokens=TOKENS) as load:
        engine.eventually(lambda: running(engine) == 8)
        reading = read(engine)
        assert reading.waiting == 4
        assert reading.kv_tokens_total == 8192
        assert reading.kv_usage is not None and 0.01 < reading.kv_usage < 0.5
        window.add(reading)
        engine.eventually(lambda: len(load.finished) >= 12)
        sample = window.add(read(engine))
    assert load.failed == []
    assert sample.output_tokens_per_s is not None and sample.output_tokens_per_s > 5
    for latency in (Latency.TTFT, Latency.ITL, Latency.E2E, Latency.TPOT):
        assert sample.latencies[latency].n > 0, latency
    assert sample.prefix_hit_rate is not None
    engine.eventually(lambda: running(engine) == 0)
    idle = read(engine)
    assert idle.kv_tokens_used == 0
    assert idle.kv_tokens_evictable is not None and idle.kv_tokens_evictable > 100


def test_the_cap_goes_down_and_up_under_load(engine: Engine) -> None:
    with engine.under_load(streams=12, tokens=TOKENS) as load:
        engine.eventually(lambda: running(engine) == 8)
        lowered = applied(engine, max_running_requests=3)
        assert (lowered.before, lowered.after) == (8, 3)
        engine.eventually(lambda: 0 < running(engine) <= 3)  # as the others finish
        raised = applied(engine, max_running_requests=8)
        assert raised.ack_ms is not None
        engine.soon(lambda: running(engine) == 8)
    assert load.failed == []
    past = state(engine).history[-2:]
    assert [(one.by, one.before, one.after) for one in past] == [("test", 8, 3), ("test", 3, 8)]


def test_prompts_are_cut_as_told(engine: Engine) -> None:
    (whole,) = prefilled(engine, f"a {LONG}")
    assert whole > 300
    applied(engine, chunked_prefill_size=64)
    pieces = prefilled(engine, f"b {LONG}")
    assert pieces[:-1] == [64] * (len(pieces) - 1)
    assert len(pieces) == -(-sum(pieces) // 64) > 4
    applied(engine, chunked_prefill_size=1024)
    assert len(prefilled(engine, f"c {LONG}")) == 1


def test_what_cannot_be_is_refused_and_the_engine_goes_on(engine: Engine) -> None:
    (done,) = change(engine, max_running_requests=9)
    assert (done.outcome, done.reason) == (
        Outcome.REFUSED,
        "must lie between 1 and 8 (the launch value)",
    )
    assert engine.stream("go on", 2).tokens == 2


def test_sglangs_own_way_and_ours_agree(engine: Engine) -> None:
    (done,) = stock(engine, lambda client: client.set({"max_running_requests": 5}, by="other"))
    assert (done.outcome, done.before, done.after) == (Outcome.APPLIED, 8, 5)
    engine.soon(lambda: state(engine).options["max_running_requests"].value == 5)
    assert state(engine).history[-1].by == "/set_internal_state"
    applied(engine, max_running_requests=8)
    told = stock(engine, lambda client: client.get())
    assert told.options["max_running_requests"].value == 8
    assert told.version == "0.5.23"
    (refused,) = stock(engine, lambda client: client.set({"chunked_prefill_size": 64}))
    assert refused.outcome is Outcome.REFUSED
    assert state(engine).options["chunked_prefill_size"].value == 1024


@pytest.mark.parametrize("hook", range(len(HOOKS)), ids=[name for _, name in HOOKS])
def test_a_failure_in_any_hook_is_not_the_engines(engine: Engine, hook: int) -> None:
    def abilities() -> Abilities:
        inside = EngineInside(engine.socket, timeout_s=PATIENT_S)
        try:
            return asyncio.run(inside.abilities())
        finally:
            inside.close()

    applied(engine, max_prefill_tokens=FATAL_HOOK + hook)
    assert engine.stream(f"go on in spite of {hook}", 6).tokens == 6
    engine.eventually(lambda: "abort" not in abilities().abilities)
    assert f"sabotaged {HOOKS[hook][1]}" in abilities().missing["steps"]
    applied(engine, max_prefill_tokens=16384)  # options are another matter
    assert engine.stream("and again", 3).tokens == 3
    assert abilities().abilities >= {"steps", "requests", "abort"}  # the saboteur built it again


def test_a_failure_of_the_plugin_is_not_the_engines(engine: Engine) -> None:
    with engine.under_load(streams=10, tokens=TOKENS) as load:
        applied(engine, max_running_requests=4)
        applied(engine, max_prefill_tokens=5000)
        engine.eventually(lambda: 0 < running(engine) <= 4)
        (broken,) = change(engine, chunked_prefill_size=777)
        assert broken.outcome is Outcome.REFUSED
        assert broken.reason is not None and "sabotaged" in broken.reason
        engine.soon(lambda: running(engine) == 8)  # the launch value is back
    assert load.failed == []
    found = state(engine)
    assert found.disabled is not None and "TypeError" in found.disabled
    assert all(option.value == option.launch for option in found.options.values())
    (refused,) = change(engine, max_running_requests=2)
    assert refused.outcome is Outcome.REFUSED
    assert len(prefilled(engine, f"d {LONG}")) == 1  # 1024 again, not 777
    assert engine.healthy()


def test_what_a_killed_server_leaves_behind_is_ended(engine: Engine) -> None:
    # More lines of its log than those that are looked into for why: it outlived the saboteur's.
    assert engine.stream("go on", 250).tokens == 250
    server_dies(engine.home)


@pytest.fixture(scope="module")
def drafting(start_sglang: Callable[..., Engine]) -> Engine:
    flags = (
        *("--speculative-algorithm", "NGRAM", "--speculative-num-draft-tokens", "4"),
        # A chain, which is all that the stand-in for the kernels verifies; and little memory.
        *("--speculative-ngram-max-bfs-breadth", "1", "--speculative-ngram-capacity", "100000"),
    )
    return start_sglang(*EVERY_TWO_STEPS, *flags)


def test_ngram_speculation_is_measured(drafting: Engine) -> None:
    engine = drafting
    assert "num_speculative_tokens" not in state(engine).options
    with engine.under_load(streams=4, tokens=TOKENS) as load:
        engine.eventually(lambda: (read(engine).spec_accepted_length or 0) > 1)
        reading = read(engine)
        if reading.spec_accepted_length is not None:
            assert 1 <= reading.spec_accepted_length <= 4
        applied(engine, max_running_requests=2)
        engine.eventually(lambda: 0 < running(engine) <= 2)
    assert load.failed == []


def test_aborts_while_it_drafts_and_reads_prompts_leak_nothing(drafting: Engine) -> None:
    engine = drafting
    applied(engine, max_running_requests=8)
    with opened(engine) as inside:
        free_of_requests(engine, inside)
        asyncio.run(inside.steps(1))
        # Pieces so small that a prompt takes ten steps and more.
        applied(engine, chunked_prefill_size=64)
        drafted = [Sent(engine, f"s-{n}", tokens=1900) for n in range(2)]
        neighbour = Sent(engine, "n", tokens=300)
        seen(lambda: all(generated(inside, f"s-{n}") > 4 for n in range(2)))
        prompts = [Sent(engine, f"p-{n}", prompt=f"{n} {LONG}") for n in range(3)]
        wanted = {"s-0", "s-1", *(f"p-{n}" for n in range(3))}
        seen(lambda: wanted <= set(states(inside)))
        done = asyncio.run(inside.abort(sorted(wanted), "ann"))
        assert (set(done.aborted), done.refused) == (wanted, ())
        for sent in (*drafted, *prompts):
            told_why = '"finish_reason":"abort"', '"code": 503'
            assert any(why in sent.ended().body for why in told_why), sent.body
        assert '"finish_reason":"length"' in neighbour.ended().body
        free_of_requests(engine, inside)
        assert asyncio.run(inside.steps()).lost == 0
    applied(engine, chunked_prefill_size=1024)
    assert engine.stream("go on", 5).tokens == 5


def test_without_its_detokenizer_it_can_be_stopped(drafting: Engine) -> None:
    engine = drafting
    # SGLang waits for more than a minute then, for dumps that nobody asked for.
    pids = family(engine.pid)
    assert len(pids) >= 3  # the server, its scheduler and its detokenizer at least
    os.kill(child(pids, "sglang::detokenizer"), signal.SIGKILL)
    seen(lambda: told(engine.home)["state"] == "unresponsive")
    done = engine.home.run("stop", NAME, "--grace", "2")
    assert done.code == 0, done.err
    assert [pid for pid in pids if alive(pid)] == []
    assert told(engine.home)["state"] == "stopped"
