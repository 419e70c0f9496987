"""Reads one instance from a Prometheus: the newest scrape, and the history for the charts."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from llmtop.analysis.series import SeriesName
from llmtop.engines.core.adapter import Adapter
from llmtop.engines.core.samples import EngineSample, Latency, Reading
from llmtop.engines.metrics.exposition import ScrapeError, under_own_names
from llmtop.engines.metrics.window import Window
from llmtop.fleet.faults import PrometheusError
from llmtop.fleet.instances import RATE_S, WINDOW_S
from llmtop.fleet.pages import pages_of
from llmtop.fleet.promql import Labels, Prometheus, Sample
from llmtop.fleet.queries import Queries
from llmtop.fleet.targets import Target, key_of, label_text, targets_of

PAST_S = 1200.0  # the history that the charts keep
STEP_S = 4.0  # a chart that is refreshed every 2 s draws longer pauses as gaps

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
Point = tuple[float, dict[SeriesName, float | None]]


def selector(labels: Labels) -> str:
    """The label matchers of one target. All labels are used: job and address may not be unique.

    Labels with other characters than letters, digits and _ are left out: not every PromQL parser
    accepts them.
    """
    own = {"job": labels.get("job", ""), "instance": labels.get("instance", "")}
    own |= {
        name: text
        for name, text in sorted(labels.items())
        if _NAME.fullmatch(name) and name != "__name__"
    }
    return ", ".join(f"{name}={_quoted(text)}" for name, text in own.items())


class PrometheusReader:
    """A ``Reader`` that reads an instance from a Prometheus instead of from the engine.

    A reading has the time of the scrape, and is repeated until the next scrape. server: ``close``
    closes it. labels: of the target.
    """

    steps = None

    def __init__(
        self,
        server: Prometheus,
        adapter: Adapter,
        labels: Labels,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._server = server
        self._adapter = adapter
        self._wall = wall
        self._queries = Queries((adapter,), selector(dict(key_of(labels))), tuple(Latency))
        self._address = label_text(labels.get("instance", ""))
        self.note = ""

    def give_way(self) -> None:
        """Nothing to release: any number of clients can query a Prometheus."""

    async def read(self) -> Reading:
        """The newest scrape. Raises ScrapeError if it failed or has no data of the instance."""
        return await self.at(self._wall())

    async def at(self, now: float) -> Reading:
        """The newest scrape at ``now`` (unix seconds). Raises ScrapeError as ``read`` does."""
        of = self._queries
        try:
            found: list[list[Sample]] = [
                await self._server.query(one, now)
                for one in (of.up, of.scraped_at, of.values, of.buckets, of.started)
            ]
        except PrometheusError as error:
            raise ScrapeError(error.message, error.hint) from error
        up, scraped_at, *series = found
        targets = targets_of(up, scraped_at, ())
        target = next(iter(targets.values()), None)
        if target is None:
            raise ScrapeError(
                f"{self._server.place} has no data of {self._address}", "is it still scraped?"
            )
        if not target.up:
            raise ScrapeError(
                f"the last scrape of {self._address} failed", "llmtop fleet shows why"
            )
        page = pages_of([target], [one for part in series for one in part]).get(target.key)
        if page is None:
            raise ScrapeError(f"the metrics page of {self._address} has no metrics of its engine")
        page = under_own_names(page.all, self._adapter.renamed)
        at = target.scraped_at if target.scraped_at is not None else now
        return self._adapter.read(page, at, at)

    async def close(self) -> None:
        """Close the connection to the Prometheus."""
        await self._server.close()


async def past(server: Prometheus, adapter: Adapter, labels: Labels, now: float) -> list[Point]:
    """The points of the charts before ``now`` (unix seconds), oldest first.

    Empty if the server has none or a query fails.
    """
    queries = Queries((adapter,), selector(labels))
    moments: dict[float, list[Sample]] = {}
    scraped: dict[float, float] = {}
    try:
        for one in (queries.values, queries.buckets):
            for series in await server.query_range(one, now - PAST_S, now, STEP_S):
                for at, value in series.points:
                    moments.setdefault(at, []).append(Sample(series.labels, value))
        for series in await server.query_range(queries.scraped_at, now - PAST_S, now, STEP_S):
            scraped.update(series.points)
    except PrometheusError:
        return []
    window = Window(WINDOW_S, RATE_S)
    target = Target((), labels, up=True)
    found: list[Point] = []
    for at in sorted(moments):
        page = pages_of([target], moments[at]).get(())
        if page is not None:
            own = under_own_names(page.all, adapter.renamed)
            time_of = scraped.get(at, at)
            found.append((at, charted(window.add(adapter.read(own, time_of, time_of)))))
    return found


def charted(sample: EngineSample) -> dict[SeriesName, float | None]:
    """The values of a sample that the charts show; None: a gap."""
    ttft = sample.latencies.get(Latency.TTFT)
    p95 = ttft.p95 if ttft is not None else None
    return {
        SeriesName.RUNNING: sample.running,
        SeriesName.WAITING: sample.waiting,
        SeriesName.KV_USAGE: sample.kv_usage,
        SeriesName.OUTPUT_TOKENS: sample.output_tokens_per_s,
        SeriesName.PROMPT_TOKENS: sample.prompt_tokens_per_s,
        SeriesName.TTFT_P95_LOW: p95.at_least if p95 is not None else None,
        SeriesName.TTFT_P95_HIGH: p95.at_most if p95 is not None else None,
        SeriesName.TTFT_MEAN: ttft.mean if ttft is not None else None,
    }


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
