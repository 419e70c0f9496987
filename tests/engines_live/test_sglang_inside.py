"""The inside of a real SGLang on a CPU: steps, latencies, requests; aborts and the queue limit.

The tests take the engine that several modules share, and leave it as they found it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmtop.engines.core.steps import Step
from llmtop.engines.introspection.engine_inside import EngineInside
from tests.engines_live.engine import Engine
from tests.engines_live.scenario import NAME, seen
from tests.engines_live.sglang_inside import Answer, free_of_requests, opened, states, table
from tests.engines_live.sglang_served import CAP
from tests.llmtop_process import Home, command

COUNTERS = ("sglang:prompt_tokens_total", "sglang:generation_tokens_total")


@pytest.fixture(scope="module")
def engine(sglang_engine: Engine) -> Engine:
    return sglang_engine


@pytest.fixture
def inside(engine: Engine) -> Iterator[EngineInside]:
    with opened(engine) as found:
        yield found


def new_steps(inside: EngineInside) -> list[Step]:
    found = asyncio.run(inside.steps())
    assert found.lost == 0
    return list(found.steps)


def test_it_shows_all_of_its_inside(inside: EngineInside) -> None:
    found = asyncio.run(inside.abilities())
    assert found.abilities == {"steps", "latencies", "requests", "abort"}
    assert (found.ranks, found.front_ends) == (1, 1)


def test_its_steps_account_for_every_token(engine: Engine, inside: EngineInside) -> None:
    free_of_requests(engine, inside)
    asyncio.run(inside.steps(1))
    before, latencies = engine.metrics(*COUNTERS), asyncio.run(inside.latencies())
    with engine.under_load(streams=12, tokens=20) as load:
        seen(lambda: len(load.finished) >= 12)
    assert load.failed == []
    free_of_requests(engine, inside)
    prompt, output = (
        end - start for start, end in zip(before, engine.metrics(*COUNTERS), strict=True)
    )
    steps = new_steps(inside)
    assert sum(step.output_tokens or 0 for step in steps) == pytest.approx(output, rel=0.001)
    assert sum(s.prefill_tokens + (s.cached_tokens or 0) for s in steps) == pytest.approx(
        prompt, rel=0.001
    )
    assert max(step.running for step in steps) == CAP
    assert max(step.waiting for step in steps) >= 1
    assert all(step.duration_s > 0 and (step.launch_s or 0) > 0 for step in steps)
    # Each request once, and each of its tokens but the first has a time behind the one before.
    after = asyncio.run(inside.latencies())
    made = {
        name: found.minus(latencies.histograms[name]).count
        for name, found in after.histograms.items()
    }
    ended = len(load.finished)
    assert [made[name] for name in ("ttft", "queue", "prefill", "tpot", "e2e", "arrival_lag")] == [
        ended
    ] * 6
    assert made["itl"] == 19 * ended
    assert made["output_lag"] == ended


def test_requests_bear_the_ids_that_a_load_saves(
    engine: Engine, inside: EngineInside, sglang_home: Home, tmp_path: Path
) -> None:
    saved, shown = tmp_path / "saved.jsonl", set[str]()
    flags = ("-c", "4", "-d", "4", "--prompt-tokens", "16", "--output-tokens", "60")
    with subprocess.Popen(
        command("load", NAME, *flags, "--save", str(saved), "--json"),
        env=sglang_home.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as load:
        while load.poll() is None:
            shown |= set(states(inside))
    ids = {row["request_id"] for row in map(json.loads, saved.read_text().splitlines())}
    assert len(ids) >= 4
    assert len(shown & ids) >= 4 and shown <= ids


def test_an_abort_takes_exact_ids_and_the_clients_are_told(
    engine: Engine, inside: EngineInside
) -> None:
    free_of_requests(engine, inside)
    running = [Answer(engine, f"x-{n}") for n in (1, 10)]
    running += [Answer(engine, "plain", stream=False)]
    running += [Answer(engine, f"y-{n}") for n in range(CAP - 3)]
    seen(lambda: sum(s == "running" for s in states(inside).values()) == CAP)
    waiting = [Answer(engine, "w-1"), Answer(engine, "w-2", stream=False), Answer(engine, "w-10")]
    seen(lambda: sum(s == "waiting" for s in states(inside).values()) == 3)
    wanted = ("x-1", "plain", "w-1", "w-2", "nobody")
    done = asyncio.run(inside.abort(wanted, "ann@pts/3", "a test"))
    assert (done.aborted, done.ended_before, done.refused) == (wanted[:4], ("nobody",), ())
    for answer in (running[0], running[2]):
        assert answer.ended().status == 200 and '"finish_reason":"abort"' in answer.body
    # Where nothing was answered yet, an error: an empty success would be no answer.
    assert '"code": 503' in waiting[0].ended().body and "ann@pts/3" in waiting[0].body
    assert waiting[1].ended().status == 503
    left = states(inside)
    assert {"x-10", "w-10", *(f"y-{n}" for n in range(CAP - 3))} == set(left)
    done = asyncio.run(inside.abort(tuple(left), "ann"))
    assert set(done.aborted) == set(left)
    for answer in (*running, *waiting):
        answer.ended()
    free_of_requests(engine, inside)  # no token is leaked


def test_an_abort_within_a_prompt_leaves_no_block_and_no_wrong_step(
    engine: Engine, inside: EngineInside, sglang_home: Home
) -> None:
    def free() -> int | None:
        free_of_requests(engine, inside)
        assert engine.stream("count the blocks", 3).tokens == 3
        return new_steps(inside)[-1].kv_free_blocks

    free_of_requests(engine, inside)
    # Pieces so small that a prompt takes ten steps and more.
    assert sglang_home.run("set", NAME, "chunked_prefill_size=64").code == 0
    start = free()
    for stream in (True, False):
        text = " ".join(f"{stream} {n}" for n in range(130))  # no prefix of it is in the cache
        answer = Answer(engine, f"mid-{stream}", stream=stream, prompt=text)

        def within() -> bool:
            rows = table(inside).rows
            return any(row.phase == "prefill" and (row.kv_blocks or 0) > 0 for row in rows)

        seen(within)
        done = asyncio.run(inside.abort([f"mid-{stream}"], "ann"))
        assert done.aborted == (f"mid-{stream}",)
        # An error: it had no token yet, and an empty success would be no answer.
        assert '"code": 503' in answer.ended().body or answer.status == 503
        free_of_requests(engine, inside)
        steps = new_steps(inside)  # a count below 0 would fail this and each later look
        counts = ("requests", "prefill_tokens", "decode_tokens", "running", "waiting", "prefills")
        assert steps and all((getattr(step, n) or 0) >= 0 for step in steps for n in counts)
        assert sum(step.prefill_tokens for step in steps) > 0
        assert not sum(step.output_tokens or 0 for step in steps)
    assert sglang_home.run("set", NAME, "chunked_prefill_size=1024").code == 0
    assert free() == start


def test_above_the_queue_limit_a_503_for_streams_too(
    engine: Engine, inside: EngineInside, sglang_home: Home
) -> None:
    done = sglang_home.run("set", NAME, "max_queued_requests=2", "--json")
    assert done.code == 0, done.err
    running = [Answer(engine, f"a-{n}") for n in range(CAP)]
    seen(lambda: sum(s == "running" for s in states(inside).values()) == CAP)
    queued = [Answer(engine, f"b-{n}") for n in range(2)]
    seen(lambda: sum(s == "waiting" for s in states(inside).values()) == 2)
    for stream in (True, False):
        refused = Answer(engine, f"c-{stream}", stream=stream).ended()
        assert (refused.status, refused.headers.get("retry-after")) == (503, "1")
    asyncio.run(inside.abort([f"{p}-{n}" for p in "ab" for n in range(CAP)], "ann"))
    for answer in (*running, *queued):
        assert answer.ended().status == 200
    assert sglang_home.run("set", NAME, "max_queued_requests=0").code == 0
    assert Answer(engine, "again", tokens=2).ended().status == 200
    free_of_requests(engine, inside)
    assert sum(step.refused or 0 for step in new_steps(inside)) == 2


def test_the_order_of_the_queue_and_its_reserve_change_live(
    engine: Engine, sglang_home: Home
) -> None:
    for pair in ("schedule_policy=lof", "schedule_conservativeness=0.5"):
        done = sglang_home.run("set", NAME, pair, "--json")
        assert done.code == 0, done.err
    assert Answer(engine, "other", tokens=2).ended().status == 200
    for pair in ("schedule_policy=fcfs", "schedule_conservativeness=1"):
        assert sglang_home.run("set", NAME, pair).code == 0
