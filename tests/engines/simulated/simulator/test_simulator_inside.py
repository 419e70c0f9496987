"""What the simulated engine shows of its inside, over the real socket and the real client."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from llmtop.engines.core.requests import RequestTable
from llmtop.engines.core.steps import Step
from llmtop.engines.introspection.engine_inside import EngineInside
from llmtop.engines.introspection.errors import NotShown, OlderPlugin
from llmtop.engines.simulated.simulator.http.ranks import Ranks, Sockets
from llmtop.engines.simulated.simulator.http.streams import TokenCounter
from llmtop.engines.simulated.simulator.inside.introspection import SimulatorIntrospection
from llmtop.engines.simulated.simulator.inside.request_view import EngineRequests
from llmtop.engines.simulated.simulator.model.blocks import BlockPool
from llmtop.engines.simulated.simulator.model.engine import NOT_SLOW, Engine, Slowness
from llmtop.engines.simulated.simulator.model.hardware import GPUS, MODELS
from llmtop.engines.simulated.simulator.model.live_options import LiveOptions
from llmtop.engines.simulated.simulator.model.request import Request, Stage
from llmtop.engines.simulated.simulator.model.roofline import Roofline
from llmtop.engines.simulated.simulator.model.scheduler import Limits, Scheduler
from llmtop.engines.simulated.simulator.model.speculation import Speculation
from llmtop.engines.simulated.simulator.model.telemetry import Telemetry
from llmtop.engines.simulated.simulator.model.tokens import GeneratedText
from llmtop.engines.tuning.inside.llmtop_live.request_table import table

PATIENCE_S = 60.0
SPEED = 20.0


class Lab:
    """Simulated ranks that run in this process, and what looks at them."""

    def __init__(
        self,
        path: Path,
        ranks: int = 1,
        blocks: int = 1000,
        budget: int = 256,
        drafts: int = 0,
        wall: Callable[[], float] = lambda: 1000.0,
        manner: str = "",
        slowness: Slowness = NOT_SLOW,
    ) -> None:
        self.wall = wall
        self.engines = [self._engine(blocks, budget, drafts, slowness) for _ in range(ranks)]
        self.observers = [
            SimulatorIntrospection(engine, rank, wall=lambda: self.wall())
            for rank, engine in enumerate(self.engines)
        ]
        for engine, observer in zip(self.engines, self.observers, strict=True):
            engine.observer = observer
        self.ranks = Ranks(self.engines)
        shown = [observer.introspection for observer in self.observers]
        self.sockets = Sockets(self.ranks, shown, [manner] * ranks)
        self.path = path
        self.inside = EngineInside(path, timeout_s=PATIENCE_S)
        self.clients: dict[str, TokenCounter] = {}
        self.requests: dict[str, Request] = {}

    def _engine(self, blocks: int, budget: int, drafts: int, slowness: Slowness) -> Engine:
        speculation = Speculation("draft", drafts, 0.7) if drafts else None
        limits = Limits(16, budget, drafts)
        pool = BlockPool(blocks, 16)
        scheduler = Scheduler(limits, pool, random.Random(3), speculation)
        roofline = Roofline.of(GPUS["h200"], MODELS["llama-3.1-8b"])
        live = LiveOptions(scheduler)
        return Engine(scheduler, roofline, live, Telemetry(), SPEED, slowness=slowness)

    async def __aenter__(self) -> Lab:
        await self.sockets.open(str(self.path))
        self._running = asyncio.create_task(self.ranks.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        await self.sockets.close()

    def send(self, ident: str, prompt: int = 40, target: int = 30) -> TokenCounter:
        serial = len(self.requests) + 1
        tokens = [serial * 1000 + i for i in range(prompt)]
        request = Request(serial, tokens, target, GeneratedText(serial), affinity=0.5, ident=ident)
        self.requests[ident], self.clients[ident] = request, TokenCounter()
        self.ranks.submit(request, target, self.clients[ident])
        return self.clients[ident]

    async def all_done(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            for client in self.clients.values():
                await client.done.wait()

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not true():  # noqa: ASYNC110
                await asyncio.sleep(0)

    def nothing_leaked(self) -> bool:
        return all(engine.scheduler.pool.used == 0 for engine in self.engines)


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with Lab(tmp_path / "live") as lab:
        yield lab


async def all_steps(lab: Lab) -> tuple[Step, ...]:
    found = await lab.inside.steps()
    assert found.lost == 0
    return found.steps


async def test_tokens_over_the_ring_are_those_of_the_counters(tmp_path: Path) -> None:
    async with Lab(tmp_path / "live", ranks=2, drafts=3, blocks=60) as lab:
        for number in range(24):
            lab.send(f"r{number}", prompt=100 + number, target=40)
        await lab.all_done()
        steps = await all_steps(lab)
        for rank, engine in enumerate(lab.engines):
            mine = [step for step in steps if step.rank == rank]
            totals, telemetry = engine.scheduler.totals, engine.telemetry
            assert [step.seq for step in mine] == list(range(1, len(mine) + 1))
            assert sum(step.output_tokens or 0 for step in mine) == telemetry.generation_tokens
            assert sum(step.draft_tokens or 0 for step in mine) == totals.draft_tokens > 0
            assert sum(step.accepted_tokens or 0 for step in mine) == totals.accepted_tokens
            assert sum(step.preempted or 0 for step in mine) == totals.preemptions > 0
            computed = sum(step.prefill_tokens + step.decode_tokens for step in mine)
            assert computed == telemetry.step_tokens.total
            assert mine[-1].kv_free_blocks == engine.scheduler.pool.total == 60
            assert (mine[-1].running, mine[-1].waiting) == (0, 0)
        assert sum(client.tokens for client in lab.clients.values()) == 24 * 40


async def test_a_step_has_its_content_and_its_time(lab: Lab) -> None:
    lab.send("first", prompt=100, target=3)
    await lab.all_done()
    await lab.inside.steps()
    lab.send("second", prompt=300, target=3)
    await lab.all_done()
    found = await lab.inside.steps()
    first, second, third, *_ = found.steps
    assert (first.requests, first.prefills, first.prefill_tokens) == (1, 1, 256)  # the budget
    assert (second.prefill_tokens, second.output_tokens) == (44, 1)
    assert (third.prefills, third.decode_tokens, third.context_tokens) == (0, 1, 301)
    assert first.idle_s is not None and first.idle_s > 0.0
    assert second.idle_s == 0.0
    assert first.duration_s > 0.0
    assert first.launch_s is None
    assert "launch_s" in found.missing


async def test_a_clock_that_jumps_moves_ends_and_no_duration(lab: Lab) -> None:
    lab.send("first", target=20)
    await lab.all_done()
    before = len(await all_steps(lab))
    lab.wall = lambda: -5000.0 + 5100.0  # set back by a quarter of an hour
    lab.send("second", target=20)
    await lab.all_done()
    after = (await lab.inside.steps()).steps
    assert before == len(after) == 20
    assert all(step.end == 100.0 for step in after)
    assert all(0.0 <= step.duration_s < PATIENCE_S for step in after)
    assert [step.seq for step in after] == list(range(21, 41))


async def test_latencies_are_those_of_all_ranks(tmp_path: Path) -> None:
    async with Lab(tmp_path / "live", ranks=2) as lab:
        for number in range(10):
            lab.send(f"r{number}")
        await lab.all_done()
        found = await lab.inside.latencies()
        exact = found.histograms
        plain = [engine.telemetry for engine in lab.engines]
    assert (exact["ttft"].count, exact["e2e"].count, exact["tpot"].count) == (10, 10, 10)
    assert exact["itl"].count == 10 * 29
    assert exact["arrival_lag"].count == exact["queue"].count == exact["prefill"].count == 10
    assert exact["ttft"].sum_s == pytest.approx(sum(p.time_to_first_token.total for p in plain))
    assert found.base["ttft"] == "arrival at the server"
    assert "output_lag" in found.missing


async def test_the_table_is_the_schedulers(lab: Lab) -> None:
    for number in range(20):  # 16 run
        lab.send(f"r{number}", prompt=20 + number, target=200)
    scheduler = lab.engines[0].scheduler
    await lab.until(lambda: len(scheduler.running) == 16 and scheduler.queued == 4)
    told = table(EngineRequests(lab.engines[0]), 0.0, 1, "kv")  # between two steps of this loop
    assert (told["running"], told["waiting"]) == (16, 4)
    rows = {row["id"]: row for row in told["requests"]}
    for ident, request in lab.requests.items():
        row = rows[ident]
        running = request.stage is Stage.RUNNING
        assert row["state"] == ("running" if running else "waiting")
        assert row["kv_blocks"] == len(request.blocks)
        assert (row["prompt_tokens"], row["max_tokens"]) == (len(request.prompt), 200)
        assert row["generated_tokens"] == request.generated
        assert (row["ttft_s"] is None) == (not request.generated)
    sizes = [row["kv_blocks"] for row in told["requests"]]
    assert sizes == sorted(sizes, reverse=True)
    over_the_socket = await lab.inside.requests("wait", 3)
    assert [row.state for row in over_the_socket.rows] == ["waiting"] * 3
    assert over_the_socket.step


async def test_a_queue_of_a_hundred_thousand(lab: Lab) -> None:
    scheduler = lab.engines[0].scheduler
    for number in range(16):
        lab.send(f"r{number}", target=600)
    await lab.until(lambda: len(scheduler.running) == 16)
    first = lab.send("queued")
    await lab.until(lambda: scheduler.queued == 1)
    scheduler.late.extend([lab.requests["queued"]] * 100_000)
    found = await lab.inside.requests("tokens", 50)
    assert found.waiting == 100_001
    assert found.waiting_looked_at == 2048
    assert len(found.rows) == 50
    scheduler.late.clear()
    assert not first.aborted


async def aborted(lab: Lab, *ids: str) -> None:
    done = await lab.inside.abort(ids, "ann")
    assert done.aborted == ids
    assert (done.ended_before, done.refused) == ((), ())


def others(lab: Lab, *ids: str) -> list[TokenCounter]:
    return [client for ident, client in lab.clients.items() if ident not in ids]


async def test_an_abort_of_a_decoding_request(lab: Lab) -> None:
    lab.send("long", target=5000)
    lab.send("other", target=300)
    await lab.until(lambda: lab.clients["long"].tokens > 3)
    await aborted(lab, "long")
    await lab.all_done()
    assert lab.clients["long"].aborted
    assert lab.clients["other"].tokens == 300
    assert lab.nothing_leaked()
    telemetry = lab.engines[0].telemetry
    assert (telemetry.finished["abort"], telemetry.finished["length"]) == (1, 1)
    assert sum(telemetry.e2e_latency.counts) == 1  # the aborted one is no observation
    table = await lab.inside.requests()
    assert (table.running, table.waiting, table.rows) == (0, 0, ())


async def test_an_abort_in_prefill_adds_no_false_latency(tmp_path: Path) -> None:
    async with Lab(tmp_path / "live", budget=32) as lab:
        lab.send("long", prompt=8000)
        lab.send("other")
        await lab.until(lambda: lab.requests["long"].computed > 64)
        await aborted(lab, "long")
        await lab.all_done()
        assert (lab.clients["long"].tokens, lab.clients["other"].tokens) == (0, 30)
        assert lab.nothing_leaked()
        telemetry = lab.engines[0].telemetry
        assert sum(telemetry.time_to_first_token.counts) == 1
        assert sum(telemetry.prefill_time.counts) == 1
        assert (await lab.inside.latencies()).histograms["ttft"].count == 1


async def test_an_abort_while_preempted(tmp_path: Path) -> None:
    async with Lab(tmp_path / "live", blocks=40) as lab:
        for number in range(8):
            lab.send(f"r{number}", prompt=48, target=200)

        def preempted() -> list[str]:
            return [
                ident
                for ident, request in lab.requests.items()
                if request.preemptions and request.stage is Stage.WAITING
            ]

        await lab.until(lambda: bool(preempted()))
        table: RequestTable = await lab.inside.requests("wait")
        assert "preempted" in {row.state for row in table.rows}
        victim = preempted()[-1]
        await aborted(lab, victim)
        await lab.all_done()
        assert lab.clients[victim].aborted
        assert all(client.tokens == 200 for client in others(lab, victim))
        assert lab.nothing_leaked()


async def test_an_abort_under_speculation(tmp_path: Path) -> None:
    async with Lab(tmp_path / "live", drafts=4) as lab:
        lab.send("long", target=5000)
        lab.send("other", target=200)
        await lab.until(lambda: lab.clients["long"].tokens > 3)
        await aborted(lab, "long")
        await lab.all_done()
        assert lab.clients["other"].tokens == 200
        assert lab.nothing_leaked()


async def test_an_abort_on_rank_1_and_of_one_that_ended(tmp_path: Path) -> None:
    async with Lab(tmp_path / "live", ranks=2) as lab:
        for ident in ("zero", "one"):
            lab.send(ident, target=5000)
        lab.send("short", target=1)
        await lab.until(lambda: all(len(e.scheduler.running) == 1 for e in lab.engines))
        await lab.clients["short"].done.wait()
        assert lab.engines[1].find("one") is not None
        done = await lab.inside.abort(["one", "short", "never"], "ann")
        assert done.aborted == ("one",)
        assert done.ended_before == ("short", "never")
        assert lab.clients["one"].aborted
        assert not lab.clients["zero"].done.is_set()
        await aborted(lab, "zero")
        assert lab.nothing_leaked()


async def test_an_abort_before_the_scheduler_knows_the_request(tmp_path: Path) -> None:
    async with Lab(tmp_path / "live", slowness=Slowness(front_s=600.0)) as lab:
        client = lab.send("early")
        await aborted(lab, "early")
        assert client.aborted
        assert not await all_steps(lab)


async def test_a_slow_host_and_a_slow_front_end_show_where_they_are(tmp_path: Path) -> None:
    async with Lab(tmp_path / "live", slowness=Slowness(0.004, 0.03)) as lab:
        lab.send("only")
        await lab.all_done()
        assert {step.host_gap_s for step in await all_steps(lab)} == {0.004}
        lag = (await lab.inside.latencies()).histograms["arrival_lag"]
        assert lag.min_s is not None and lag.min_s >= 0.03


async def test_a_failing_recorder_costs_no_token(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    client = lab.send("only", target=400)
    await lab.until(lambda: client.tokens > 5)
    monkeypatch.setattr(lab.observers[0], "_recorder", None)
    await lab.all_done()
    assert client.tokens == 400
    assert lab.nothing_leaked()
    with pytest.raises(NotShown, match="AttributeError in llmtop's part of a step"):
        await lab.inside.steps()
    assert not (await lab.inside.abilities()).abilities


async def test_an_older_simulator(tmp_path: Path) -> None:
    async with Lab(tmp_path / "live", manner="live-old") as lab:
        with pytest.raises(OlderPlugin):
            await lab.inside.steps()


async def test_half_an_answer(tmp_path: Path) -> None:
    async with Lab(tmp_path / "live", manner="live-half") as lab:
        lab.send("only")
        with pytest.raises(Exception, match="closed the connection"):
            await lab.inside.steps()
        assert (await lab.inside.requests()).running <= 1
