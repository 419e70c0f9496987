"""The state of each instance, as it follows from what a Prometheus stored."""

from __future__ import annotations

import pytest

from llmtop.engines.core.samples import Latency
from llmtop.engines.registry import ADAPTERS
from llmtop.fleet.groups import grouped
from llmtop.fleet.instances import State
from llmtop.fleet.observer import Observer, Table
from llmtop.fleet.power import Prices
from llmtop.fleet.promql import Sample
from llmtop.fleet.queries import COUNTED
from llmtop.fleet.words import cells
from llmtop.values import replace
from tests.fleet.fake_prometheus import FakePrometheus, Scraped

START = 1_800_000_000.0
BOUNDS = ("0.1", "0.25", "0.5", "1.0", "+Inf")


def page(
    tokens: float,
    *,
    running: float = 1,
    waiting: float = 0,
    kv: float = 0.2,
    ttft: tuple[float, ...] = (0, 0, 0, 0, 0),
    start: float = START - 900,
) -> dict[str, float]:
    model = 'engine="0",model_name="llama"'
    buckets = {
        f'vllm:time_to_first_token_seconds_bucket{{le="{bound}",{model}}}': count
        for bound, count in zip(BOUNDS, ttft, strict=True)
    }
    return {
        f"vllm:num_requests_running{{{model}}}": running,
        f"vllm:num_requests_waiting{{{model}}}": waiting,
        f"vllm:kv_cache_usage_perc{{{model}}}": kv,
        f"vllm:generation_tokens_total{{{model}}}": tokens,
        f"vllm:prompt_tokens_total{{{model}}}": tokens,
        f"vllm:time_to_first_token_seconds_sum{{{model}}}": ttft[-1] * 0.3,
        "process_start_time_seconds": start,
        **buckets,
    }


async def looked(*moments: dict[str, Scraped], **more: object) -> Table:
    """The table after these moments, the first three of them before llmtop came."""
    server = FakePrometheus(list(moments), **more)  # type: ignore[arg-type]
    now = START
    observer = Observer(server, [ADAPTERS["vllm"], ADAPTERS["sglang"]], wall=lambda: now)
    server.order = observer.queries.all
    table = await observer.read_table()
    for _ in moments[4:]:
        now += 5.0
        table = await observer.read_table()
    return table


def steady(rate: float, **more: object) -> list[dict[str, Scraped]]:
    """Four moments of one instance, 60, 20, 7 and 0 s ago, with so many tokens a second."""
    return [
        {"a:1": Scraped(page(10_000 - back * rate, **more))}  # type: ignore[arg-type]
        for back in (60, 20, 7, 0)
    ]


async def test_the_first_table_has_rates() -> None:
    table = await looked(*steady(50.0))
    (one,) = table.instances
    assert (one.state, one.engine, one.model) == (State.READY, "vllm", "llama")
    assert one.sample is not None and one.sample.output_tokens_per_s == pytest.approx(50.0)


async def test_requests_without_tokens_are_called_hung() -> None:
    table = await looked(*steady(0.0, running=3))
    assert table.instances[0].state is State.HUNG
    assert "3 running" in table.instances[0].reason


async def test_a_new_process_is_called_restarted_and_its_rates_are_not_negative() -> None:
    before = steady(50.0)
    new = {"a:1": Scraped(page(20.0, start=START + 3))}
    table = await looked(*before, new)
    assert table.instances[0].state is State.RESTARTED
    sample = table.instances[0].sample
    assert sample is not None and (sample.output_tokens_per_s or 0.0) >= 0.0


@pytest.mark.parametrize(
    ("error", "took_s", "state"),
    [
        ('Get "http://a:1/metrics": dial tcp: connect: connection refused', 0.01, State.GONE),
        ('Get "http://a:1/metrics": EOF', 0.01, State.GONE),
        ("read tcp 127.0.0.1:1: read: connection reset by peer", 0.01, State.GONE),
        ('Get "http://a:1/metrics": context deadline exceeded', 3.0, State.HUNG),
        ('expected a valid start token, got "<"', 0.01, State.STALE),
        ("", 0.01, State.GONE),
        ("", 3.0, State.HUNG),
    ],
)
async def test_a_failed_scrape_says_what_is_wrong(error: str, took_s: float, state: State) -> None:
    failed = {"a:1": Scraped(page(1.0), up=False, took_s=took_s)}
    errors = {("vllm", "a:1"): error} if error else {}
    table = await looked(*steady(50.0), failed, errors=errors)
    (one,) = table.instances
    assert one.state is state and one.reason and one.model == "llama"


async def test_one_that_was_gone_before_llmtop_came_is_shown_by_its_last_series() -> None:
    failed = {"a:1": Scraped(page(1.0), up=False)}
    table = await looked(failed)
    assert [(one.state, one.engine, one.model) for one in table.instances] == [
        (State.GONE, "vllm", "llama")
    ]


async def test_an_old_scrape_is_stale() -> None:
    old = [{"a:1": replace(one["a:1"], at=START - 200)} for one in steady(50.0)]
    table = await looked(*old)
    assert table.instances[0].state is State.STALE and "200 s" in table.instances[0].reason


async def test_impossible_numbers_are_not_shown() -> None:
    moments = steady(50.0)
    moments[-1]["a:1"] = Scraped(page(1e29, running=-5, kv=70.0))
    (one,) = (await looked(*moments)).instances
    assert one.sample is not None
    assert (one.sample.running, one.sample.kv_usage, one.sample.output_tokens_per_s) == (
        None,
        None,
        None,
    )
    assert "impossible" in one.reason


async def test_a_prometheus_that_fails_leaves_the_last_table_and_says_why() -> None:
    server = FakePrometheus(steady(50.0))
    observer = Observer(server, [ADAPTERS["vllm"]], wall=lambda: START)
    server.order = observer.queries.all
    first = await observer.read_table()
    server.down = True
    second = await observer.read_table()
    assert second.instances == first.instances and second.time == first.time
    assert "did not answer" in second.trouble


async def test_the_number_of_queries_does_not_depend_on_the_number_of_instances() -> None:
    counts = []
    for instances in (1, 50):
        moment = {f"h{n}:1": Scraped(page(100.0)) for n in range(instances)}
        server = FakePrometheus([moment])
        observer = Observer(server, [ADAPTERS["vllm"]], wall=lambda: START)
        server.order = observer.queries.all
        await observer.read_table()
        server.asked.clear()
        await observer.read_table()
        counts.append(len(server.asked))
    assert counts == [8, 8]


async def test_two_servers_that_scrape_one_target_count_it_once() -> None:
    first, second = (
        Scraped(page(100.0, running=4), labels={"replica": name}, at=START - age)
        for name, age in (("a", 9.0), ("b", 1.0))
    )

    class Both(FakePrometheus):
        async def query(self, expression: str, time: float | None = None) -> list[Sample]:
            found = []
            for one in (first, second):
                self.moments = [{"a:1": one}]
                found += await FakePrometheus.query(self, expression, time)
            return found

    server = Both([{"a:1": first}])
    observer = Observer(server, [ADAPTERS["vllm"]], wall=lambda: START)
    server.order = observer.queries.all
    table = await observer.read_table()
    assert [one.sample.running for one in table.instances if one.sample] == [4]


async def test_power_is_that_of_the_host_where_one_engine_has_it_alone() -> None:
    watts = [
        Sample({"__name__": "DCGM_FI_DEV_POWER_USAGE", "Hostname": host}, 700.0)
        for host in ("a", "b")
    ]
    moment = {name: Scraped(page(100.0)) for name in ("a:1", "b:1", "b:2")}
    table = await looked(moment, gpus=watts)
    found = {one.instance: (one.power_w, one.shared_power) for one in table.instances}
    assert found == {"a:1": (700.0, False), "b:1": (None, True), "b:2": (None, True)}


@pytest.mark.parametrize(("gpu_hour", "known"), [(3.6, True), (None, False)])
async def test_cost_is_that_of_the_gpus_that_are_known(gpu_hour: float | None, known: bool) -> None:
    """1,000 tokens a second on two GPUs at 3.60 an hour: 2 dollars a million."""
    moments = [
        {
            "a:1": Scraped(page(100_000 - back * 1000.0)),
            "idle:1": Scraped(page(5.0, running=0), labels={"node": "idle"}),
            "far:1": Scraped(page(9_000 - back * 10.0)),
        }
        for back in (60, 20, 7, 0)
    ]
    names = {"__name__": "DCGM_FI_DEV_POWER_USAGE"}
    gpus = [
        sample
        for host in ("a", "idle")
        for sample in (
            Sample({**names, "Hostname": host}, 1400.0),
            Sample({**names, "Hostname": host, COUNTED: "yes"}, 2.0),
        )
    ]
    server = FakePrometheus(moments, gpus=gpus)
    observer = Observer(server, [ADAPTERS["vllm"]], prices=Prices(gpu_hour), wall=lambda: START)
    server.order = observer.queries.all
    table = await observer.read_table()
    found = {one.instance: one for one in table.instances}
    assert [found[name].gpus for name in ("a:1", "idle:1", "far:1")] == [2, 2, None]
    assert found["a:1"].power_w == 1400.0
    price = found["a:1"].dollars_per_million_tokens
    assert price == (pytest.approx(2.0) if known else None)
    assert found["idle:1"].dollars_per_million_tokens is None
    assert found["far:1"].dollars_per_million_tokens is None
    # The idle one costs too; one whose GPUs are not known leaves the whole unknown.
    (group,) = grouped([found["a:1"], found["idle:1"]], ("model",))
    assert group.dollars_per_million_tokens == (pytest.approx(4.0) if known else None)
    (group,) = grouped(table.instances, ("model",))
    assert group.dollars_per_million_tokens is None
    assert ("2.00" if known else "--") in cells(found["a:1"])


async def test_cost_without_an_exporter_of_gpus() -> None:
    moments = [
        {
            "a:1": Scraped(page(100_000 - back * 1000.0)),
            "shared:1": Scraped(page(100_000 - back * 500.0)),
            "shared:2": Scraped(page(5.0)),
        }
        for back in (60, 20, 7, 0)
    ]
    names = {"__name__": "DCGM_FI_DEV_POWER_USAGE", "Hostname": "shared"}
    gpus = [Sample(names, 1400.0), Sample({**names, COUNTED: "yes"}, 8.0)]
    server = FakePrometheus(moments, gpus=gpus)
    prices = Prices(3.6, gpus=2)
    observer = Observer(server, [ADAPTERS["vllm"]], prices=prices, wall=lambda: START)
    server.order = observer.queries.all
    found = {one.instance: one for one in (await observer.read_table()).instances}
    assert [one.gpus for one in found.values()] == [2, 2, 2]
    assert found["a:1"].power_w is None
    assert found["a:1"].dollars_per_million_tokens == pytest.approx(2.0)
    assert found["shared:1"].shared_power
    assert found["shared:1"].dollars_per_million_tokens == pytest.approx(4.0)


async def test_a_group_has_the_percentile_of_the_summed_buckets() -> None:
    # 100 quick answers at one, 100 slow ones at the other: half of all are slow.
    before = {name: Scraped(page(1.0)) for name in ("a:1", "b:1")}
    now = {
        "a:1": Scraped(page(500.0, ttft=(100, 100, 100, 100, 100))),
        "b:1": Scraped(page(500.0, ttft=(0, 0, 0, 100, 100))),
    }
    table = await looked(before, before, before, now)
    (group,) = grouped(table.instances, ("model",))
    assert group.ttft is not None and group.ttft.n == 200
    p50, p95 = group.ttft.p50, group.ttft.p95
    assert p50 is not None and (p50.relation, p50.seconds) == ("<", 0.1)
    assert p95 is not None and (p95.relation, p95.at_least, p95.at_most) == ("-", 0.5, 1.0)
    single = table.instances[0].sample
    assert single is not None and single.latencies[Latency.TTFT].n == 100


async def test_what_is_uneven_is_named() -> None:
    moments = [
        {
            "a:1": Scraped(page(tokens, running=60, waiting=30, kv=0.9)),
            "b:1": Scraped(page(tokens, running=0, waiting=0, kv=0.1)),
            "c:1": Scraped(page(tokens, running=4, waiting=0, kv=0.1)),
        }
        for tokens in (100.0, 200.0, 300.0, 400.0)
    ]
    (group,) = grouped((await looked(*moments)).instances, ("model",))
    words = " / ".join(group.imbalance)
    assert "a:1 has 90 requests, the median is 4" in words
    assert "KV cache of a:1 90%" in words and "30 requests wait at a:1, b:1 is idle" in words
