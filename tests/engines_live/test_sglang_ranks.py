"""A real SGLang split over two tensor-parallel ranks: what is changed reaches both, or neither."""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Callable

import pytest

from tests.engines_live.engine import Engine
from tests.engines_live.scenario import NAME, alive, drained, family, seen, told
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
        seen(functools.partial(applied, home, pair), 120)


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
        seen(lambda: running() >= 3, 120)
        turned(home, "max_running_requests=2", "chunked_prefill_size=64")
        before = len(pieces())
        seen(lambda: running() <= 2, 120)
        seen(lambda: len(pieces()) > before + 3, 120)
        assert max(pieces()[before + 1 :]) <= 64
        turned(home, "max_running_requests=8", "chunked_prefill_size=1024")
        seen(lambda: running() >= 3, 120)
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


def test_stop_leaves_no_process(home: Home, engine: Engine) -> None:
    pids = family(engine.pid)
    assert len(pids) >= 4  # HTTP server, two schedulers, detokenizer
    assert home.run("stop", NAME, timeout=60).code == 0
    assert [pid for pid in pids if alive(pid)] == []
