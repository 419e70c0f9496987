"""Engines that are not what they seem: each is named, with what to do about it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from llmtop import LlmtopError
from llmtop.cli.engines.once import sample_over
from llmtop.engines.core.adapter import Adapter
from llmtop.engines.core.conditions import (
    HUNG_S,
    Condition,
    Name,
    gravest_first,
    hung,
    missing_totals,
    old_version,
    renamed_series,
    router,
)
from llmtop.engines.core.endpoint import Endpoint
from llmtop.engines.core.samples import EngineSample
from llmtop.engines.core.versions import older
from llmtop.engines.metrics.detection import recognise
from llmtop.engines.metrics.exposition import ScrapeError
from llmtop.engines.metrics.scraper import HttpFetch, Scraper
from llmtop.engines.metrics.window import Window
from llmtop.engines.sglang import adapter as sglang
from llmtop.engines.vllm import adapter as vllm
from llmtop.operations.session import EngineSession
from llmtop.wording.report import sample_lines
from tests.fake_fetch import FakeFetch
from tests.llmtop_process import Home, free_port

URL = "http://127.0.0.1:9"
NOW = 1_800_000_000.0
ONE = 'engine="0",model_name="m"'


def page(
    labels: str = ONE,
    *,
    running: int = 3,
    waiting: int = 1,
    kv: float = 0.4,
    tokens: float = 1000,
    start: float | None = NOW - 900,
) -> str:
    lines = [f"process_start_time_seconds {start}"] if start is not None else []
    lines += [
        f"vllm:num_requests_running{{{labels}}} {running}",
        f"vllm:num_requests_waiting{{{labels}}} {waiting}",
        f"vllm:kv_cache_usage_perc{{{labels}}} {kv}",
        f"vllm:generation_tokens_total{{{labels}}} {tokens}",
        f"vllm:prompt_tokens_total{{{labels}}} {5 * tokens}",
    ]
    return "\n".join(lines) + "\n"


async def samples(
    *pages: str | ScrapeError, adapter: Adapter = vllm.ADAPTER, every_s: float = 1.0
) -> list[EngineSample]:
    """What each look at a scripted page says, one a second."""
    looks = iter(range(len(pages)))
    moment = 0.0

    def tick() -> float:
        nonlocal moment
        moment = next(looks) * every_s
        return moment

    fetch = FakeFetch({URL + "/metrics": pages})
    scraper = Scraper(adapter, URL, fetch, lambda: NOW + moment, tick)
    window = Window()
    return [window.add(await scraper.read()) for _ in pages]


def names(sample: EngineSample) -> list[Name]:
    return [one.name for one in sample.conditions]


async def test_an_engine_as_it_should_be_has_no_condition() -> None:
    for sample in await samples(*(page(tokens=1000 + 50 * n) for n in range(20))):
        assert sample.conditions == ()


async def test_gauges_of_one_engines_processes_are_not_averaged() -> None:
    silent = "".join(
        f'vllm:kv_cache_usage_perc{{{ONE},pid="{pid}"}} 0.0\n' for pid in range(271, 278)
    )
    text = page().replace(f"vllm:kv_cache_usage_perc{{{ONE}}} 0.4\n", silent)
    (sample,) = await samples(text + f'vllm:kv_cache_usage_perc{{{ONE},pid="300"}} 0.65\n')
    assert (sample.kv_usage, sample.kv_usage_fullest) == (0.65, None)
    many = "".join(f'vllm:num_requests_running{{{ONE},pid="{n}"}} {n}\n' for n in (0, 7))
    (sample,) = await samples(many)
    assert sample.running == 7


async def test_names_of_vllm_0_8_are_read_and_said() -> None:
    text = page().replace("kv_cache_usage_perc", "gpu_cache_usage_perc")
    (sample,) = await samples(text)
    assert sample.kv_usage == 0.4
    (found,) = sample.conditions
    assert found.name is Name.RENAMED_SERIES and "gpu_cache_usage_perc" in found.message


@pytest.mark.parametrize(
    ("adapter", "text"),
    [
        (vllm.ADAPTER, page().replace("vllm:", "vllm_")),
        (
            sglang.ADAPTER,
            'sglang_num_running_reqs{tp_rank="0"} 3\nsglang_num_queue_reqs{tp_rank="0"} 1\n'
            'sglang_token_usage{tp_rank="0"} 0.4\n',
        ),
    ],
)
async def test_names_without_a_colon_are_read_and_said(adapter: Adapter, text: str) -> None:
    (sample,) = await samples(text, adapter=adapter)
    assert (sample.running, sample.waiting, sample.kv_usage) == (3, 1, 0.4)
    assert names(sample) == [Name.RENAMED_SERIES]


async def test_another_program_with_like_names_changes_nothing() -> None:
    (sample,) = await samples(page() + f"vllm_num_requests_running{{{ONE}}} 90\n")
    assert (sample.running, sample.conditions) == (3, ())


async def test_tokens_of_an_older_sglang_are_those_of_its_front_end() -> None:
    def old(tokens: int) -> str:
        return (
            'sglang:num_running_reqs{tp_rank="0"} 3\n'
            f'sglang:generation_tokens_total{{model_name="m"}} {tokens}\n'
        )

    *_, sample = await samples(old(100), old(300), adapter=sglang.ADAPTER)
    assert (sample.output_tokens_per_s, sample.prompt_tokens_per_s) == (200, None)


async def test_counters_that_lost_their_total_are_read_and_said() -> None:
    def bare(tokens: int) -> str:
        return page(tokens=tokens).replace("_tokens_total", "_tokens")

    *_, sample = await samples(bare(100), bare(300))
    assert sample.output_tokens_per_s == 200
    (found,) = sample.conditions
    assert found.name is Name.MISSING_TOTALS
    assert "generation_tokens_total" in found.message and "read from" in found.message


def sglang_page(tokens: str = "") -> str:
    gauges = 'sglang:num_running_reqs{tp_rank="0"} 3\nsglang:gen_throughput{tp_rank="0"} 210\n'
    return gauges + tokens


async def test_totals_of_sglang_that_lost_their_ending_are_read_and_said() -> None:
    def bare(tokens: int) -> str:
        return sglang_page(
            f'sglang:realtime_tokens{{tp_rank="0",mode="decode"}} {tokens}\n'
            f'sglang:realtime_tokens{{tp_rank="0",mode="prefill_compute"}} {9 * tokens}\n'
        )

    *_, sample = await samples(bare(100), bare(300), adapter=sglang.ADAPTER)
    assert (sample.output_tokens_per_s, sample.prompt_tokens_per_s) == (200, 1800)
    assert names(sample) == [Name.MISSING_TOTALS]


async def test_an_sglang_that_makes_tokens_and_counts_none_is_not_at_zero() -> None:
    *_, sample = await samples(sglang_page(), sglang_page(), adapter=sglang.ADAPTER)
    assert sample.output_tokens_per_s is None
    assert names(sample) == [Name.MISSING_TOTALS]


async def test_totals_that_are_nowhere_are_missed() -> None:
    text = page().replace("generation_tokens_total", "something_else")
    (sample,) = await samples(text)
    assert names(sample) == [Name.MISSING_TOTALS] and "unknown" in sample.conditions[0].message


async def test_two_models_on_one_page_are_said_to_be_added_up() -> None:
    other = page('engine="0",model_name="b"', kv=0.9, start=None)
    (sample,) = await samples(page() + other)
    assert sample.running == 6
    (found,) = sample.conditions
    assert found.name is Name.SEVERAL_MODELS and "m, b" in found.message


async def test_the_fullest_rank_stands_beside_the_mean() -> None:
    other = page('engine="1",model_name="m"', kv=0.0, running=0, waiting=0, start=None)
    (sample,) = await samples(page(kv=1.0, waiting=60) + other)
    assert (sample.kv_usage, sample.kv_usage_fullest) == (0.5, 1.0)
    assert names(sample) == [Name.UNEVEN_RANKS]
    told = "\n".join(sample_lines("a", False, sample, (), ""))
    assert "KV cache 50%, fullest rank 100%" in told
    (even,) = await samples(page(kv=0.5) + page('engine="1",model_name="m"', kv=0.6, start=None))
    assert even.conditions == () and even.kv_usage_fullest == 0.6


async def test_ranks_of_sglang_too() -> None:
    text = "".join(
        f'sglang:num_running_reqs{{dp_rank="{rank}"}} 3\n'
        f'sglang:token_usage{{dp_rank="{rank}"}} {usage}\n'
        for rank, usage in enumerate((0.1, 0.9))
    )
    (sample,) = await samples(text, adapter=sglang.ADAPTER)
    assert (sample.kv_usage, sample.kv_usage_fullest) == (0.5, 0.9)
    assert names(sample) == [Name.UNEVEN_RANKS]


async def test_a_sleeping_engine_is_asleep_and_not_hung() -> None:
    state = "".join(
        f'vllm:engine_sleep_state{{{ONE},sleep_state="{word}"}} {on}\n'
        for word, on in (("awake", 0), ("weights_offloaded", 1), ("discard_all", 0))
    )
    found = await samples(*[page() + state] * 30)
    assert names(found[-1]) == [Name.ASLEEP]
    assert "weights offloaded" in found[-1].conditions[0].message


async def test_an_awake_engine_is_not_asleep() -> None:
    (sample,) = await samples(page() + f'vllm:engine_sleep_state{{{ONE},sleep_state="awake"}} 1\n')
    assert sample.conditions == ()


async def test_requests_that_only_wait_while_nothing_moves_are_hung_too() -> None:
    found = await samples(*[page(running=0, waiting=5)] * 11)
    assert names(found[10]) == [Name.HUNG] and "5 waiting" in found[10].conditions[0].message


@pytest.mark.parametrize("told", ["# HELP python_gc_objects\npython_gc_objects 1\n", ""])
async def test_log_stats_that_are_disabled_leave_no_metrics(told: str) -> None:
    (sample,) = await samples(told + f"process_start_time_seconds {NOW - 10}\n")
    (found,) = sample.conditions
    assert found.name is Name.NO_METRICS and "--disable-log-stats" in found.hint


async def test_sglang_without_metrics_says_how_to_get_them() -> None:
    fetch = FakeFetch({})
    session = EngineSession(Endpoint("s", sglang.ADAPTER, URL), fetch)
    with pytest.raises(ScrapeError, match="no metrics") as caught:
        await session.sample()
    assert "--enable-metrics" in caught.value.hint
    assert caught.value.condition is not None
    assert caught.value.condition.name is Name.NO_METRICS


@pytest.mark.parametrize(
    "text",
    [
        "sgl_router_requests_total 5\n",
        "smg_worker_pool_size 2\n",
        "litellm_requests_metric_total 1\n",
        "inference_pool_ready_pods 3\n",
        'vllm:current_qps{server="http://10.0.0.1:8000"} 3.0\n',
    ],
)
async def test_a_routers_page_is_named_and_an_engine_asked_for(text: str) -> None:
    (sample,) = await samples("# HELP x y\n" + text)
    assert names(sample) == [Name.ROUTER] and "behind it" in sample.conditions[0].hint
    fetch = FakeFetch({f"{URL}/metrics": [text]})
    with pytest.raises(LlmtopError, match="router") as caught:
        await recognise(URL, fetch)
    assert "behind it" in caught.value.hint


async def test_a_stacks_router_that_repeats_engines_gauges_is_a_router() -> None:
    text = page('server="http://10.0.0.1:8000"')
    (sample,) = await samples(text)
    assert Name.ROUTER in names(sample)


@pytest.mark.parametrize(
    ("version", "old"),
    [
        ("0.8.5", True),
        ("0.19.1.post2", True),
        ("0.20", False),
        ("0.33.0rc1", False),
        ("dev", False),
    ],
)
async def test_a_version_that_is_too_old_is_named(version: str, old: bool) -> None:
    assert older(version, "0.20") == old
    fetch = FakeFetch({URL + "/metrics": [page()]})
    endpoint = Endpoint("v", vllm.ADAPTER, URL, version=version)
    found = (await EngineSession(endpoint, fetch).sample()).conditions
    assert [one.name for one in found] == ([Name.OLD_VERSION] if old else [])
    assert all(version in one.message and "0.20" in one.message for one in found)


def test_each_finding_comes_once_and_the_gravest_first() -> None:
    calm = Condition(Name.UNEVEN_RANKS, "", "")
    assert gravest_first((calm, hung(1, 0, 9), hung(2, 0, 9))) == (hung(1, 0, 9), calm)


async def test_once_looks_longer_before_it_calls_an_engine_hung() -> None:
    now = 0.0
    told = Window()

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    def look_at(moves_at: float) -> Callable[[], object]:
        async def look() -> EngineSample:
            scraper = Scraper(
                vllm.ADAPTER,
                URL,
                FakeFetch({URL + "/metrics": [page(tokens=1 + (now >= moves_at))]}),
                lambda: NOW + now,
                lambda: now,
            )
            return told.add(await scraper.read())

        return look

    sample = await sample_over(look_at(99), 3.0, sleep, lambda: now)  # type: ignore[arg-type]
    assert names(sample) == [Name.HUNG] and now <= 10
    now, told = 0.0, Window()
    sample = await sample_over(look_at(5), 3.0, sleep, lambda: now)  # type: ignore[arg-type]
    assert sample.conditions == () and 5 <= now < HUNG_S


class Pages(BaseHTTPRequestHandler):
    """An engine whose numbers never move; with a key, every path wants it."""

    key = ""

    def do_GET(self) -> None:
        if self.key and self.headers["Authorization"] != f"Bearer {self.key}":
            self._answer(401, "{}")
        elif self.path == "/version":
            self._answer(200, '{"version": "0.28.0"}')
        elif self.path == "/v1/models":
            card = {"id": "m", "owned_by": "vllm"}
            self._answer(200, json.dumps({"data": [card]}))
        elif self.path == "/metrics":
            self._answer(200, page(running=64, waiting=0))
        else:
            self._answer(404, "")

    def _answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[[str], str]]:
    """``serve(key)``: the URL of such an engine."""
    servers = []

    def start(key: str = "") -> str:
        handler = type("Keyed", (Pages,), {"key": key})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_once_on_a_hung_engine_reports_stale_and_fails(
    serve: Callable[[str], str], tmp_path: Path
) -> None:
    done = Home.make(tmp_path).run("once", serve(""), "--window", "1", "--json")
    assert done.code == 1
    assert done.json["stale"] is True
    (found,) = done.json["conditions"]
    assert found["name"] == "hung" and "64 running" in found["message"] and found["hint"]
    assert "hung" in done.err


def test_a_key_on_every_path_is_asked_for(serve: Callable[[str], str], tmp_path: Path) -> None:
    home = Home.make(tmp_path)
    done = home.run("once", serve("k"), "--window", "0.2")
    assert done.code == 1
    assert "needs an API key" in done.err and "LLMTOP_API_KEY" in done.err


async def test_a_wrong_key_is_not_taken(serve: Callable[[str], str]) -> None:
    fetch = HttpFetch(api_key="other")
    try:
        with pytest.raises(LlmtopError, match="does not take this API key"):
            await recognise(serve("k"), fetch)
    finally:
        await fetch.close()


async def test_a_first_look_that_takes_long_still_leaves_a_window() -> None:
    now, looks = 0.0, 0

    async def look() -> EngineSample:
        nonlocal now, looks
        now, looks = now + 5.0, looks + 1
        return EngineSample(now, 0.0)

    async def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    await sample_over(look, 1.0, sleep, lambda: now)
    assert looks >= 2


@pytest.mark.more
def test_once_on_an_engine_that_a_signal_holds_says_so_and_fails(tmp_path: Path) -> None:
    home = Home.make(tmp_path)
    port = str(free_port())
    done = home.run("run", "sim", "--port", port, "--detach", "--json")
    try:
        assert done.code == 0, done.err
        pid = done.json["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            frozen = home.run("once", "sim", "--json")
        finally:
            os.kill(pid, signal.SIGCONT)
        assert frozen.code == 1
        assert "stale" in frozen.err and "SIGSTOP" in frozen.err and "kill -CONT" in frozen.err
    finally:
        home.stop_all()


def test_the_page_of_a_router_is_never_called_hung() -> None:
    found = gravest_first((hung(7, None, 9.0), router("vLLM's production stack")))
    assert [one.name for one in found] == [Name.ROUTER]


def test_the_page_of_a_router_is_not_said_to_have_lost_totals() -> None:
    lost = missing_totals(["vllm:generation_tokens_total"], [])
    found = gravest_first((lost, router("vLLM's production stack")))
    assert [one.name for one in found] == [Name.ROUTER]


def test_each_renamed_series_stands_beside_its_own_name() -> None:
    found = renamed_series({f"vllm:own_{n}": f"vllm:other_{n}" for n in range(4)})
    assert found.message.endswith(
        "vllm:other_0 for vllm:own_0, vllm:other_1 for vllm:own_1, "
        "vllm:other_2 for vllm:own_2 and 1 more"
    )


def test_an_old_version_is_not_said_to_hide_what_is_shown() -> None:
    assert "unknown names" in old_version("vLLM", "0.8.5", "0.20").hint
