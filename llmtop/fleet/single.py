"""One instance from its Prometheus: readings for the dashboard, the recent past for the charts."""

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
from llmtop.fleet.questions import Questions
from llmtop.fleet.targets import Target, key_of, targets_of, word

PAST_S = 1200.0  # as much as the charts keep
STEP_S = 4.0  # below what a chart draws as a gap, at the beat of an instance (2 s)

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
Point = tuple[float, dict[SeriesName, float | None]]


def selector(labels: Labels) -> str:
    """The label matchers of one target: others may have the same job and address.

    A name that is no plain one is left out: it could not be written in every PromQL.
    """
    own = {"job": labels.get("job", ""), "instance": labels.get("instance", "")}
    own |= {
        name: text
        for name, text in sorted(labels.items())
        if _NAME.fullmatch(name) and name != "__name__"
    }
    return ", ".join(f"{name}={_quoted(text)}" for name, text in own.items())


class PrometheusReader:
    """The ``Reader`` of an instance that is asked for at a Prometheus instead of at itself.

    A reading has the time of the scrape: between two scrapes the same one comes again. server: is
    closed with it. labels: of its target.
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
        self._questions = Questions((adapter,), selector(dict(key_of(labels))), tuple(Latency))
        self._address = word(labels.get("instance", ""))
        self.note = ""

    def give_way(self) -> None:
        """Everybody may ask a Prometheus."""

    async def read(self) -> Reading:
        """The newest scrape. Raises ScrapeError where it failed or nothing is known of it."""
        return await self.at(self._wall())

    async def at(self, now: float) -> Reading:
        """The newest scrape at a moment."""
        asked = self._questions
        try:
            found: list[list[Sample]] = [
                await self._server.query(one, now)
                for one in (asked.up, asked.scraped_at, asked.values, asked.buckets, asked.started)
            ]
        except PrometheusError as error:
            raise ScrapeError(error.message, error.hint) from error
        up, scraped_at, *series = found
        targets = targets_of(up, scraped_at, ())
        target = next(iter(targets.values()), None)
        if target is None:
            raise ScrapeError(
                f"{self._server.place} knows nothing of {self._address}", "is it still scraped?"
            )
        if not target.up:
            raise ScrapeError(
                f"the last scrape of {self._address} failed", "llmtop fleet shows why"
            )
        page = pages_of([target], [one for part in series for one in part]).get(target.key)
        if page is None:
            raise ScrapeError(f"the page of {self._address} has none of its engine's numbers")
        page = under_own_names(page.all, self._adapter.renamed)
        at = target.scraped_at if target.scraped_at is not None else now
        return self._adapter.read(page, at, at)

    async def close(self) -> None:
        """Close the connection to the Prometheus."""
        await self._server.close()


async def past(server: Prometheus, adapter: Adapter, labels: Labels, now: float) -> list[Point]:
    """The series of the charts before ``now``, oldest first; [] where the server has none."""
    asked = Questions((adapter,), selector(labels))
    moments: dict[float, list[Sample]] = {}
    scraped: dict[float, float] = {}
    try:
        for one in (asked.values, asked.buckets):
            for series in await server.query_range(one, now - PAST_S, now, STEP_S):
                for at, value in series.points:
                    moments.setdefault(at, []).append(Sample(series.labels, value))
        for series in await server.query_range(asked.scraped_at, now - PAST_S, now, STEP_S):
            scraped.update(series.points)
    except PrometheusError:
        return []  # the charts begin empty then
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
    """What the charts show of a sample."""
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
