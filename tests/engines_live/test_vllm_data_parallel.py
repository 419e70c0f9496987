"""Two data-parallel ranks of a real vLLM: what is set reaches both, or the rank is named.

One engine with two engine cores serves the whole file. The tests run in order: the last but one
breaks our part of one rank for good, and the last one kills that rank.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llmtop.engines.core.options import Outcome
from llmtop.engines.host.rank_sockets import rank_sockets, socket_of
from llmtop.engines.introspection.engine_inside import EngineInside
from llmtop.engines.tuning.live_client import LiveClient
from llmtop.engines.tuning.live_ranks import RankedLive
from tests.engines_live.conftest import Start
from tests.engines_live.engine import Engine
from tests.engines_live.scenario import CHANGE_WAIT_S, NAME, PATIENT_S, child, died, family
from tests.engines_live.vllm_served import FLAGS, WITH_WORKER
from tests.llmtop_process import Done

SABOTEUR = Path(__file__).resolve().parent / "saboteur"
RUNNING = "vllm:num_requests_running"
CAP = 16  # of each rank at launch
STREAMS = 24
AT_ONCE = 6  # vLLM's balancer may send two requests to one rank: it knows the ranks' loads late
RANKS = (
    *(*FLAGS, "--data-parallel-size", "2", "--distributed-executor-backend"),
    "vllm.v1.executor.uniproc_executor.UniProcExecutor",
)


@pytest.fixture(scope="module")
def engine(start_vllm: Start) -> Engine:
    # A core for each engine core, as far as the clients leave them.
    return start_vllm(
        *RANKS, path=(SABOTEUR,), **WITH_WORKER | {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    )


@pytest.fixture(autouse=True)
def launch_values(engine: Engine) -> None:
    """One test that fails half way does not fail those after it."""
    run(engine, "set", NAME, f"max_num_seqs={CAP}")


def run(engine: Engine, *args: str) -> Done:
    return engine.home.run(*args)


def change(done: Done) -> dict[str, Any]:
    (found,) = done.json["changes"]
    return dict(found)


def running(engine: Engine) -> list[float]:
    """Requests that run on each rank, as vLLM's own page tells them."""
    return engine.by_rank(RUNNING)


def full(engine: Engine) -> bool:
    """Whether both ranks run more than the caps that are set here; a rank that never had a request
    has no number yet."""
    found = running(engine)
    return len(found) == 2 and min(found) >= 8


def caps(engine: Engine) -> list[object]:
    state = asyncio.run(RankedLive(engine.socket, (0, 1)).get())
    return [one.value for one in state.options["max_num_seqs"].ranks]


def outcomes(found: dict[str, Any]) -> list[object]:
    return [one["outcome"] for one in found["ranks"]]


def set_rank(engine: Engine, rank: int, **changes: int) -> Outcome:
    """Change one rank alone, as no llmtop does any more."""
    client = LiveClient(socket_of(engine.socket, rank), timeout_s=PATIENT_S)
    (done,) = asyncio.run(client.set(changes, by="test", wait_s=CHANGE_WAIT_S))
    return done.outcome


def test_each_rank_has_a_socket_and_options_say_how_many_there_are(engine: Engine) -> None:
    assert rank_sockets(engine.socket) == [0, 1]
    for rank in (0, 1):
        assert socket_of(engine.socket, rank).stat().st_mode & 0o777 == 0o600
    listed = run(engine, "options", NAME)
    assert "max_num_seqs: for each of 2 data-parallel ranks" in listed.out
    assert caps(engine) == [CAP, CAP]


def test_a_lower_cap_reaches_both_ranks_with_eviction_and_without(engine: Engine) -> None:
    with engine.under_load(streams=STREAMS, repeats=1) as load:
        # Requests that began together end together: a command can meet a rank between two waves.
        evicted = [0, 0]
        for _ in range(8):
            assert run(engine, "set", NAME, f"max_num_seqs={CAP}").code == 0
            engine.eventually(lambda: full(engine))
            found = change(run(engine, "set", NAME, "max_num_seqs=3", "--evict", "--json"))
            assert (found["outcome"], outcomes(found)) == ("applied", ["applied", "applied"]), found
            evicted = [one["evicted"] for one in found["ranks"]]
            if min(evicted) > 0:
                break
        assert min(evicted) > 0 and found["evicted"] == sum(evicted)
        engine.eventually(lambda: max(running(engine)) <= 3)

        still = None
        for _ in range(8):
            done = run(engine, "set", NAME, f"max_num_seqs={CAP}")
            assert done.code == 0
            assert f"max_num_seqs 3 -> {CAP}: applied on 2 of 2 ranks in " in done.err
            engine.eventually(lambda: full(engine))

            done = run(engine, "set", NAME, "max_num_seqs=3")
            assert "applied on 2 of 2 ranks" in done.err and "put back" not in done.err
            still = re.search(r"still running: \d+ on rank [01]", done.err)
            if still:
                break
        assert still, done.err
        engine.eventually(lambda: max(running(engine)) <= 3)  # as they finish
        assert run(engine, "set", NAME, f"max_num_seqs={CAP}").code == 0
    assert load.failed == []


def test_what_differs_is_shown_and_is_made_alike(engine: Engine) -> None:
    with engine.under_load(streams=STREAMS, repeats=1) as load:
        engine.eventually(lambda: full(engine))
        assert set_rank(engine, 1, max_num_seqs=5) is Outcome.APPLIED
        listed = run(engine, "options", NAME)
        assert re.search(rf"^max_num_seqs +{CAP}/5 ", listed.out, re.MULTILINE), listed.out
        assert f"the ranks differ: {CAP} on rank 0, 5 on rank 1" in listed.out
        done = run(engine, "set", NAME, "max_num_seqs=5")
        assert done.code == 0
        assert f"max_num_seqs {CAP} on rank 0, 5 on rank 1 -> 5: applied on 2 of 2" in done.err
        assert caps(engine) == [5, 5]
        assert run(engine, "set", NAME, f"max_num_seqs={CAP}").code == 0
    assert load.failed == []


def free_blocks(engine: Engine, follow: EngineInside) -> dict[int, int | None]:
    """Free KV blocks of each rank when the last of its requests has ended."""
    engine.eventually(lambda: asyncio.run(follow.requests()).rows == ())
    free: dict[int, int | None] = {}

    def both() -> bool:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            sent = [pool.submit(engine.stream, f"count {n}", 30) for n in range(AT_ONCE)]
            assert {one.result(PATIENT_S).tokens for one in sent} == {30}
        engine.eventually(lambda: asyncio.run(follow.requests()).rows == ())
        steps = asyncio.run(follow.steps()).steps
        free.update({step.rank: step.kv_free_blocks for step in steps})
        return {step.rank for step in steps} == {0, 1}

    engine.eventually(both)
    return free


def test_each_rank_shows_its_steps_and_an_abort_on_rank_1_frees_its_blocks(engine: Engine) -> None:
    follow = EngineInside(engine.socket, (0, 1), timeout_s=PATIENT_S)
    asyncio.run(follow.steps())
    start = free_blocks(engine, follow)
    assert None not in start.values()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        sent = [pool.submit(engine.stream, f"long answer {n}", 1500) for n in range(AT_ONCE)]

        def rows() -> dict[str, int]:
            return {row.id: row.rank for row in asyncio.run(follow.requests()).rows}

        engine.eventually(lambda: len(rows()) == AT_ONCE and set(rows().values()) == {0, 1})
        known = rows()
        first = next(ident for ident, rank in known.items() if rank == 1)
        assert asyncio.run(follow.abort([first], "test")).aborted == (first,)
        engine.eventually(lambda: rows().keys() == known.keys() - {first})
        others = sorted(known.keys() - {first})
        assert sorted(asyncio.run(follow.abort(others, "test")).aborted) == others
        assert all((one.result(PATIENT_S).tokens or 0) < 1500 for one in sent)
    found = asyncio.run(follow.steps())
    assert found.ranks == 2 and {step.rank for step in found.steps} == {0, 1}
    assert free_blocks(engine, follow) == start


def test_a_queue_limit_is_one_of_each_rank(engine: Engine) -> None:
    done = run(engine, "set", NAME, "max_num_seqs=2", "max_queued_requests=1")
    assert done.code == 0, done.err
    with engine.under_load(streams=12, tokens=60, repeats=1) as load:
        engine.eventually(lambda: any("503" in one.error for one in load.finished))
        assert sum(running(engine)) <= 4
    done = run(engine, "set", NAME, f"max_num_seqs={CAP}", "max_queued_requests=0")
    assert done.code == 0, done.err
    served = [one for one in load.finished if "503" not in one.error]
    assert served and all(one.tokens == 60 for one in served)


def test_a_frozen_rank_is_named_and_takes_the_change_when_it_goes_on(engine: Engine) -> None:
    with engine.under_load(streams=STREAMS, repeats=1) as load:
        engine.eventually(lambda: full(engine))
        second = child(family(engine.pid), "VLLM::EngineCore_DP1")
        os.kill(second, signal.SIGSTOP)
        try:
            done = run(engine, "set", NAME, "max_num_seqs=6")
        finally:
            os.kill(second, signal.SIGCONT)
        assert done.code == 1
        assert "applied on 1 of 2 ranks; rank 1: " in done.err and "does not answer" in done.err
        assert f"its process VLLM::EngineCore_DP1 (pid {second}) is stopped" in done.err
        engine.eventually(lambda: caps(engine) == [6, 6])
        assert run(engine, "set", NAME, f"max_num_seqs={CAP}").code == 0
    assert load.failed == []


def test_a_rank_that_refuses_is_named(engine: Engine) -> None:
    with engine.under_load(streams=STREAMS, repeats=1) as load:
        engine.eventually(lambda: full(engine))
        # The saboteur raises in our part of that rank, whose guard then switches it off.
        assert set_rank(engine, 1, max_num_batched_tokens=777) is Outcome.REFUSED
        done = run(engine, "set", NAME, "max_num_seqs=6", "--evict", "--json")
        found = change(done)
        assert (done.code, found["outcome"]) == (1, "partial")
        assert outcomes(found) == ["applied", "refused"]
        assert found["reason"].startswith("rank 1 refused: live options are switched off: ")
        assert "sabotaged" in run(engine, "options", NAME).err
        assert caps(engine) == [6, CAP]
        engine.eventually(lambda: running(engine)[0] <= 6 < running(engine)[1])
    assert load.failed == []


def test_a_killed_rank_is_the_end_of_the_engine_and_is_said(engine: Engine) -> None:
    pids = family(engine.pid)
    os.kill(child(pids, "VLLM::EngineCore_DP1"), signal.SIGKILL)
    done = run(engine, "set", NAME, "max_num_seqs=4")
    assert done.code == 1
    # vLLM ends the rest of it at once: rank 1 alone is gone, or all are, or the engine is.
    assert "live-option socket is gone" in done.err or "died" in done.err
    assert "takes effect only at a restart" not in done.err
    assert died(engine.home, pids)["detail"] == "the engine core died"
    assert rank_sockets(engine.socket) == []
