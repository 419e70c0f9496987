"""A real SGLang over two ranks, tensor- or data-parallel: changes reach both, and both are seen."""

from __future__ import annotations

import asyncio
import functools
import re
import subprocess
from collections.abc import Callable

import pytest

from tests.engines_live.engine import Engine
from tests.engines_live.scenario import NAME, alive, drained, family, seen, told
from tests.engines_live.sglang_inside import Answer, opened, states
from tests.engines_live.sglang_served import EVERY_TWO_STEPS, TWO_RANKS
from tests.llmtop_process import Home, command


@pytest.fixture(scope="module")
def engine(start_sglang: Callable[..., Engine]) -> Engine:
    return start_sglang(*EVERY_TWO_STEPS, "--tp-size", "2", **TWO_RANKS)


@pytest.fixture
def home(engine: Engine) -> Home:
    return engine.home


def turned(home: Home, *pairs: str) -> None:
    # An answer waits for the end of a batch, and two ranks on two cores may take their time.
    for pair in pairs:
        seen(functools.partial(applied, home, pair))


def applied(home: Home, pair: str) -> bool:
    return home.run("set", NAME, pair).code == 0


def test_limits_change_under_load_on_both_ranks(home: Home, engine: Engine) -> None:
    options = {o["name"]: o for o in home.run("options", NAME, "--json").json["options"]}
    assert options["max_running_requests"]["applies"] == "drains"
    assert options["chunked_prefill_size"]["applies"] == "live, up to the launch value"
    assert options["tp_size"]["value"] == 2

    def running() -> float:
        # The first rank alone tells its numbers.
        return engine.metric("sglang:num_running_reqs")

    def pieces() -> list[int]:
        return [
            int(tokens)
            for tokens in re.findall(
                r"Prefill batch.*?#new-token: (\d+)", engine.log.read_text(errors="replace")
            )
        ]

    flags = ("-c", "4", "-d", "300", "--prompt-tokens", "200", "--output-tokens", "20")
    with subprocess.Popen(
        command("load", NAME, *flags, "--json"),
        env=home.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as load:
        seen(lambda: running() >= 3)
        turned(home, "max_running_requests=2", "chunked_prefill_size=64")
        before = len(pieces())
        seen(lambda: running() <= 2)
        seen(lambda: len(pieces()) > before + 3)
        assert max(pieces()[before + 1 :]) <= 64
        turned(home, "max_running_requests=8", "chunked_prefill_size=1024")
        seen(lambda: running() >= 3)
        report = drained(load)
    assert report["requests"]["failed"] == 0, report["errors"]
    assert report["requests"]["ok"] > 6
    # Each rank says what it took, in the same order.
    took = re.findall(
        r"TP(\d)\].*?llmtop: chunked_prefill_size -> (\d+) on this rank", engine.log.read_text()
    )
    for rank in "01":
        assert [to for which, to in took if which == rank][:1] == ["64"]
        assert [to for which, to in took if which == rank][-1:] == ["1024"]


def test_what_the_ranks_refuse_stays_as_it_was(home: Home, engine: Engine) -> None:
    done = home.run("set", NAME, "chunked_prefill_size=2048")
    assert done.code == 1 and "1 to 1,024, the launch value" in done.err
    assert told(home)["state"] == "ready"


def test_both_ranks_end_a_request_in_the_same_round(home: Home, engine: Engine) -> None:
    answers = [Answer(engine, f"x-{n}") for n in (1, 10)]
    with opened(engine) as inside:
        assert asyncio.run(inside.abilities()).ranks == 1  # the first one speaks for both
        seen(lambda: set(states(inside)) >= {"x-1", "x-10"})
        seen(lambda: set(states(inside).values()) == {"running"})
        done = asyncio.run(inside.abort(("x-1", "nobody"), "ann"))
        assert (done.aborted, done.ended_before) == (("x-1",), ("nobody",))
        assert '"finish_reason":"abort"' in answers[0].ended().body
        assert set(states(inside)) == {"x-10"}
        asyncio.run(inside.abort(("x-10",), "ann"))
        answers[1].ended()
    assert engine.stream("go on", 3).tokens == 3  # they still compute together


def test_stop_leaves_no_process(home: Home, engine: Engine) -> None:
    pids = family(engine.pid)
    assert len(pids) >= 4  # HTTP server, two schedulers, detokenizer
    assert home.run("stop", NAME).code == 0
    assert [pid for pid in pids if alive(pid)] == []


@pytest.fixture(scope="module")
def two(start_sglang: Callable[..., Engine]) -> Engine:
    """Two data-parallel ranks."""
    return start_sglang("--dp-size", "2", **TWO_RANKS)


def test_each_data_parallel_rank_takes_changes_and_shows_its_inside(two: Engine) -> None:
    home = two.home
    done = home.run("set", NAME, "max_running_requests=4", "chunked_prefill_size=64", "--json")
    assert done.code == 0, done.err
    for change in done.json["changes"]:
        assert [one["outcome"] for one in change["ranks"]] == ["applied", "applied"], change
    with opened(two) as inside:
        found = asyncio.run(inside.abilities())
        assert (found.ranks, found.front_ends) == (2, 1)
        asyncio.run(inside.steps(1))
        answers = [Answer(two, f"d-{n}", tokens=20) for n in range(6)]
        for answer in answers:
            assert answer.ended().status == 200
        seen(lambda: not states(inside))
        steps = asyncio.run(inside.steps())
        assert steps.ranks == 2 and {step.rank for step in steps.steps} == {0, 1}
        assert sum(step.output_tokens or 0 for step in steps.steps) == 6 * 20
        assert max(step.prefill_tokens for step in steps.steps) <= 64
    assert home.run("set", NAME, "max_queued_requests=3").code == 0
    options = home.run("options", NAME).out
    assert "chunked_prefill_size: for each of 2 data-parallel ranks" in options
    assert home.run("stop", NAME).code == 0
