"""A real vLLM's inside, as llmtop sees and changes it: what holds in each version of vLLM."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from llmtop.engines.core.options import Change, Outcome
from llmtop.engines.introspection.engine_inside import EngineInside
from llmtop.engines.tuning.live_client import LiveClient, LiveState
from tests.engines_live.engine import SENTENCE, Engine
from tests.engines_live.scenario import CHANGE_WAIT_S, NAME, PATIENT_S

SABOTEUR = Path(__file__).resolve().parent / "saboteur"
DRAFTS = "vllm:spec_decode_num_drafts_total"
DRAFT_TOKENS = "vllm:spec_decode_num_draft_tokens_total"
OUTPUT_TOKENS = "vllm:generation_tokens_total"
RUNNING = "vllm:num_requests_running"
BY_REQUEST = ("ttft", "queue", "prefill", "e2e", "tpot")  # latencies of which each request has one


def state(engine: Engine) -> LiveState:
    """What can be changed now, as the engine says."""
    return asyncio.run(LiveClient(engine.socket).get())


def change(engine: Engine, *, evict: bool = False, **changes: int) -> tuple[Change, ...]:
    """Ask for changes; each has its outcome."""
    client = LiveClient(engine.socket)
    return asyncio.run(client.set(changes, evict=evict, by="test", wait_s=CHANGE_WAIT_S))


def applied(engine: Engine, *, evict: bool = False, **changes: int) -> Change:
    """One change that must be in force now."""
    (done,) = change(engine, evict=evict, **changes)
    assert done.outcome is Outcome.APPLIED, done
    return done


def evicted(engine: Engine) -> int:
    """Lower the batch limit to 2 and put back those above it, under load; how many these were.

    Streams of equal length end together: for a moment there may be none above it.
    """
    counts = [0]

    def some() -> bool:
        applied(engine, max_num_seqs=16)
        engine.eventually(lambda: engine.metric(RUNNING) > 2)
        counts.append(applied(engine, max_num_seqs=2, evict=True).evicted)
        return counts[-1] > 0

    engine.eventually(some)
    return sum(counts)


def inside(engine: Engine) -> EngineInside:
    """A reader of its own, patient on a crowded machine."""
    return EngineInside(engine.socket, timeout_s=PATIENT_S)


def tokens(engine: Engine) -> dict[str, float]:
    """Tokens since the start by the engine's own counters."""
    names = ("output_tokens", "draft_tokens", "accepted_tokens", "prompt_tokens")
    accepted, prompt = "vllm:spec_decode_num_accepted_tokens_total", "vllm:prompt_tokens_total"
    return dict(
        zip(names, engine.metrics(OUTPUT_TOKENS, DRAFT_TOKENS, accepted, prompt), strict=True)
    )


def steps_hold_the_tokens(engine: Engine) -> None:
    """Tokens of the steps are those that vLLM counts, and each request has its latencies once."""
    follow = inside(engine)
    asyncio.run(follow.steps())
    before, latencies = tokens(engine), asyncio.run(follow.latencies())
    with engine.under_load(streams=6, tokens=30, repeats=4) as load:
        engine.eventually(lambda: len(load.finished) >= 6)
    engine.eventually(lambda: engine.metric(RUNNING) == 0)
    found = asyncio.run(follow.steps())
    assert found.lost == 0 and load.failed == []
    sums = {
        "output_tokens": sum(step.output_tokens or 0 for step in found.steps),
        "draft_tokens": sum(step.draft_tokens or 0 for step in found.steps),
        "accepted_tokens": sum(step.accepted_tokens or 0 for step in found.steps),
        "prompt_tokens": sum(s.prefill_tokens + (s.cached_tokens or 0) for s in found.steps),
    }
    assert sums == {name: total - before[name] for name, total in tokens(engine).items()}
    assert all(step.launch_s and step.duration_s > 0 for step in found.steps)

    def new() -> dict[str, int]:
        now = asyncio.run(follow.latencies()).histograms
        return {name: now[name].minus(latencies.histograms[name]).count for name in BY_REQUEST}

    # An answer is kept for 0.2 s.
    engine.eventually(lambda: new() == dict.fromkeys(BY_REQUEST, len(load.finished)))
    assert asyncio.run(follow.latencies()).histograms["output_lag"].count > 0


def aborted_and_told(engine: Engine) -> None:
    """Abort takes one exact id, frees its blocks, and its client gets its tokens and the reason."""
    follow = inside(engine)
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(engine.stream, "one long answer", 1500)
        engine.eventually(lambda: engine.metric(RUNNING) == 1)

        def answered() -> bool:
            return any(row.generated_tokens for row in asyncio.run(follow.requests()).rows)

        engine.eventually(answered)  # without a token its client would get an error
        (row,) = asyncio.run(follow.requests()).rows
        assert (row.state, row.max_tokens, row.rank) == ("running", 1500, 0)
        free = asyncio.run(follow.steps(1)).steps[-1].kv_free_blocks
        done = asyncio.run(follow.abort([row.id, row.id[:-1]], "test"))
        assert (done.aborted, done.ended_before) == ((row.id,), (row.id[:-1],))
        got = sent.result(PATIENT_S)
    assert (got.error, got.finish) == ("", "abort") and 0 < (got.tokens or 0) < 1500
    assert engine.stream("and on it goes", 3).tokens == 3
    after = asyncio.run(follow.steps(1)).steps[-1].kv_free_blocks
    assert free is not None and after is not None and after > free
    # An answer of the table is kept for 0.2 s.
    engine.eventually(lambda: asyncio.run(follow.requests()).rows == ())


def free_blocks(engine: Engine, follow: EngineInside) -> int:
    """Free KV blocks at the end of a short request on an engine that is else idle."""
    engine.eventually(lambda: asyncio.run(follow.requests()).rows == ())
    assert engine.stream("count the blocks", 3).tokens == 3
    found = asyncio.run(follow.steps(1)).steps[-1].kv_free_blocks
    assert found is not None
    return found


def aborted_wherever_they_are(engine: Engine) -> None:
    """Aborts within a prompt, in the queue, of a preempted and of a running request: each client is
    told, an id that has ended is told apart, and no block is lost."""
    follow = inside(engine)
    applied(engine, max_num_seqs=16)
    start = free_blocks(engine, follow)

    def abort(ident: str) -> None:
        done = asyncio.run(follow.abort([ident], "test"))
        assert (done.aborted, done.ended_before, done.refused) == ((ident,), (), ()), done
        again = asyncio.run(follow.abort([ident], "test"))
        assert (again.aborted, again.ended_before) == ((), (ident,)), again

    def one(**wanted: object) -> str:
        """The id of a request of which this is true, once there is one."""
        found: list[str] = []

        def there() -> bool:
            rows = asyncio.run(follow.requests()).rows
            found[:] = [r.id for r in rows if all(getattr(r, n) == v for n, v in wanted.items())]
            return bool(found)

        engine.eventually(there)
        return found[0]

    with ThreadPoolExecutor(4) as pool:
        applied(engine, max_num_batched_tokens=16)  # a hundred steps for the prompt
        sent = pool.submit(engine.stream, "within the prompt " + 120 * SENTENCE, 50)
        abort(one(state="running", phase="prefill"))
        assert sent.result(PATIENT_S).error  # an empty success would be no answer
        applied(engine, max_num_batched_tokens=2048)

        applied(engine, max_num_seqs=2)
        two = [pool.submit(engine.stream, f"long answer {n}", 1500) for n in (1, 2)]

        def both() -> bool:
            rows = asyncio.run(follow.requests()).rows
            return sum(bool(r.generated_tokens) for r in rows) == 2

        engine.eventually(both)
        queued = pool.submit(engine.stream, "it waits", 50)
        abort(one(state="waiting"))
        assert queued.result(PATIENT_S).error
        assert applied(engine, max_num_seqs=1, evict=True).evicted == 1
        abort(one(state="preempted"))
        abort(one(state="running"))
        for answer in two:
            got = answer.result(PATIENT_S)
            assert (got.error, got.finish) == ("", "abort") and 0 < (got.tokens or 0) < 1500
    applied(engine, max_num_seqs=16)
    found = asyncio.run(inside(engine).steps()).steps
    assert all(min(s.requests, s.prefill_tokens, s.decode_tokens, s.waiting) >= 0 for s in found)
    assert free_blocks(engine, follow) == start


def refused_above_the_limit(engine: Engine) -> None:
    """Requests above the queue limit are refused, the others are served."""
    done = engine.home.run("set", NAME, "max_num_seqs=2", "max_queued_requests=1")
    assert done.code == 0, done.err
    with engine.under_load(streams=8, tokens=30, repeats=1) as load:
        engine.eventually(lambda: "503" in " ".join(one.error for one in load.finished))
        served = engine.metric(OUTPUT_TOKENS)
        engine.eventually(lambda: engine.metric(OUTPUT_TOKENS) > served + 30)
    refused = [one for one in load.finished if "503" in one.error]
    assert len(refused) < len(load.finished)  # the others are served to their end
    assert all(one.tokens == 30 for one in load.finished if one not in refused)
    done = engine.home.run("set", NAME, "max_num_seqs=16", "max_queued_requests=0")
    assert done.code == 0, done.err
    with engine.under_load(streams=8, tokens=5, repeats=1) as load:
        engine.eventually(lambda: len(load.finished) >= 8)
    assert load.failed == []


def introspection_breaks(engine: Engine) -> None:
    """A hook that raises ends introspection, names the reason, and no request fails."""
    with engine.under_load(streams=4, tokens=30) as load:
        engine.eventually(lambda: engine.metric(RUNNING) >= 3)
        applied(engine, long_prefill_token_threshold=1777)  # the saboteur raises from now on

        def off() -> bool:
            return "steps" not in asyncio.run(inside(engine).abilities()).abilities

        engine.eventually(off)
        missing = asyncio.run(inside(engine).abilities()).missing
        assert "sabotaged" in missing["steps"] and "sabotaged" in missing["requests"]
        applied(engine, max_num_seqs=2)
        ended = len(load.finished)
        engine.eventually(lambda: len(load.finished) >= ended + 4)
    change(engine, max_num_seqs=16, long_prefill_token_threshold=0)
    assert load.failed == []
    assert "introspection is off" in engine.log.read_text(errors="replace")
