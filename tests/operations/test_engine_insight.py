"""What the causes of an engine are judged by: its latencies have one reader."""

from __future__ import annotations

from llmtop.engines.core.latencies import Latencies, LatencyHistogram
from llmtop.engines.core.live_protocol import LiveGone
from llmtop.engines.core.requests import RequestSort, RequestTable
from llmtop.engines.core.steps import Steps
from llmtop.engines.introspection.exact_latencies import ExactLatencies
from llmtop.operations.insight.engine_insight import EngineInsight


class Inside:
    """An engine that counts its looks at the latencies."""

    def __init__(self) -> None:
        self.looks, self.gone = 0, False

    async def steps(self, newest: int = 0) -> Steps:
        return Steps((), 0, 1, time=100.0 + self.looks)

    async def latencies(self) -> Latencies:
        if self.gone:
            raise LiveGone("gone")
        self.looks += 1
        histogram = LatencyHistogram(self.looks, 1.0, buckets={300: self.looks})
        return Latencies({"ttft": histogram}, 100.0 + self.looks, 1, boots=("one",))

    async def requests(self, sort: RequestSort = "age", limit: int = 50) -> RequestTable:
        raise AssertionError("not asked for")

    def close(self) -> None:
        """Nothing is under way."""


async def test_latencies_that_another_reads_are_not_asked_for_again() -> None:
    inside = Inside()
    exact = ExactLatencies(inside.latencies, 10.0)
    insight = EngineInsight(inside, exact=lambda: exact)
    await insight.read()
    assert insight.recent("ttft") is None and not insight.missing and inside.looks == 0
    for _ in range(3):
        await exact.refresh()
        await insight.read()
        await insight.read()
    assert inside.looks == 3
    recent = insight.recent("ttft")
    assert recent is not None and recent.count == 2
    inside.gone = True
    await exact.refresh()
    await insight.read()
    assert insight.recent("ttft") is None and insight.missing["latencies"] == "gone"


async def test_alone_it_asks_itself() -> None:
    inside = Inside()
    insight = EngineInsight(inside)
    await insight.read()
    await insight.read()
    recent = insight.recent("ttft")
    assert inside.looks == 2 and recent is not None and recent.count == 1
