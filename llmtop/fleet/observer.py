"""Polls a Prometheus and makes a table of instances from its answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from llmtop import LlmtopError
from llmtop.engines.core.adapter import Adapter
from llmtop.engines.metrics.exposition import Exposition, under_own_names
from llmtop.fleet.instances import ORDER, RATE_S, WINDOW_S, Instance, InstanceTracker
from llmtop.fleet.pages import Pages
from llmtop.fleet.power import UNKNOWN, Prices, power_of, with_power
from llmtop.fleet.promql import Sample
from llmtop.fleet.queries import Queries
from llmtop.fleet.targets import Key, Target, targets_of
from llmtop.values import replace

YOUNG_S = 7.0  # an earlier poll, so that an instance that has just started has rates too
ERRORS_EVERY_S = 10.0  # between two queries of the long list of targets, while scrapes fail
MOST_INSTANCES = 20_000


class Server(Protocol):
    """The queried server: the methods of ``promql.Prometheus`` that an observer uses."""

    async def query(self, expression: str, time: float | None = None) -> list[Sample]:
        """The value of an expression at a time, unix seconds; None: now."""

    async def scrape_errors(self) -> dict[tuple[str, str], str]:
        """The error of the last scrape of each failing target, by job and instance."""


class Table(Struct, frozen=True):
    """The instances at ``time`` (unix seconds), the most severe state first.

    trouble, hint: why the last poll failed and what to do; "" if it succeeded. After a failed poll
    the table is that of the last successful one.
    """

    time: float
    instances: tuple[Instance, ...] = ()
    trouble: str = ""
    hint: str = ""


class Observer:
    """Polls a Prometheus and keeps the state of each instance between polls.

    match: label matchers of the instances, "" for all. prices: of GPUs. wall: the clock, unix
    seconds.
    """

    def __init__(
        self,
        server: Server,
        adapters: Sequence[Adapter],
        match: str = "",
        *,
        prices: Prices = UNKNOWN,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._server, self._prices = server, prices
        # A simulated engine's page has the metric names of another engine. It also has a metric of
        # its own, so its adapter must be tried first.
        self._adapters = sorted(
            (one for one in adapters if one.series is not None), key=lambda one: not one.simulated
        )
        self.queries = Queries(tuple(self._adapters), match)
        self._wall = wall
        self._trackers: dict[Key, InstanceTracker] = {}
        self._pages, self._earlier_pages = Pages(), Pages()
        self._errors: dict[tuple[str, str], str] = {}
        self._errors_at = float("-inf")
        self._failing: frozenset[tuple[str, str]] = frozenset()
        self._last: Table | None = None

    async def read_table(self) -> Table:
        """Poll the Prometheus. If that fails, return the last table with the reason in it."""
        now = self._wall()
        try:
            if self._last is None:  # earlier polls give the first table rates and percentiles
                for back in (WINDOW_S, RATE_S, YOUNG_S):
                    await self._poll(now - back)
            table = await self._poll(now)
        except LlmtopError as error:
            last = self._last or Table(now)
            return replace(last, trouble=error.message, hint=error.hint)
        self._last = table
        return table

    async def _poll(self, now: float) -> Table:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._query(one, now)) for one in self.queries.all]
        answers = [task.result() for task in tasks]
        found = []
        for answer in answers:
            if isinstance(answer, LlmtopError):
                raise answer
            found.append(answer)
        values, buckets, up, scraped_at, scrape_s, started, gpus, remembered = found
        targets = targets_of(up, scraped_at, scrape_s) or _pushed_targets(values, now)
        samples = [*values, *buckets, *started]
        pages = self._pages.of(targets.values(), samples)
        earlier = self._earlier_pages.of(targets.values(), remembered)
        await self._update_errors(targets.values(), now)
        instances: list[Instance] = []
        for key, target in targets.items():
            tracker = self._updated_tracker(key, target, pages.get(key), earlier.get(key), now)
            if tracker is not None and len(instances) < MOST_INSTANCES:
                error = self._errors.get((_label(target, "job"), _label(target, "instance")), "")
                instances.append(tracker.observe(target, now, error))
        for key in self._trackers.keys() - targets.keys():
            del self._trackers[key]
        rows = with_power(instances, power_of(gpus), self._prices)
        return Table(now, tuple(sorted(rows, key=lambda one: (ORDER[one.state], one.id))))

    async def _query(self, expression: str, now: float) -> list[Sample] | LlmtopError:
        try:
            return await self._server.query(expression, now)
        except LlmtopError as error:
            return error

    def _updated_tracker(
        self,
        key: Key,
        target: Target,
        page: Exposition | None,
        earlier: Exposition | None,
        now: float,
    ) -> InstanceTracker | None:
        """The tracker of a target, with a new scrape added; None if the target is no engine."""
        tracker = self._trackers.get(key)
        adapter = self._adapter_of(page) or self._adapter_of(earlier)
        if tracker is None or (adapter is not None and adapter.kind != tracker.kind):
            if adapter is None:
                return None
            tracker = self._trackers[key] = InstanceTracker(adapter.kind)
            tracker.set_model(_model(earlier))
        at = target.scraped_at if target.scraped_at is not None else now
        if page is not None and adapter is not None and target.up and tracker.is_new(at):
            tracker.add(adapter.read(_renamed(page, adapter), at, at))
        return tracker

    def _adapter_of(self, page: Exposition | None) -> Adapter | None:
        """The adapter of a page: by its gauge of running requests, else by any of its metrics."""
        if page is None:
            return None
        for adapter in self._adapters:
            if any(_has(page, name, adapter) for name in _running(adapter)):
                return adapter
        for adapter in self._adapters:
            if not adapter.simulated and any(_has(page, name, adapter) for name in _own(adapter)):
                return adapter
        return None

    async def _update_errors(self, targets: Iterable[Target], now: float) -> None:
        """Query why scrapes fail, if the set of failing targets changed or 10 s have passed."""
        failing = frozenset(
            (_label(one, "job"), _label(one, "instance")) for one in targets if not one.up
        )
        if not failing:
            self._errors, self._failing = {}, failing
        elif failing != self._failing or now - self._errors_at >= ERRORS_EVERY_S:
            self._errors = await self._server.scrape_errors()
            self._failing, self._errors_at = failing, now


def _model(page: Exposition | None) -> str | None:
    """The model in the labels of the gauge of running requests."""
    series = [labels for found in page.all.values() for labels, _ in found] if page else []
    return next((labels["model_name"] for labels in series if labels.get("model_name")), None)


def _running(adapter: Adapter) -> tuple[str, ...]:
    return adapter.series.running if adapter.series is not None else ()


def _own(adapter: Adapter) -> tuple[str, ...]:
    values = adapter.series.values if adapter.series is not None else ()
    return tuple(name for name in values if name.startswith(adapter.prefixes[0]))


def _has(page: Exposition, name: str, adapter: Adapter) -> bool:
    if page.series(name):
        return True
    return any(
        page.series(other + name.removeprefix(own))
        for other, own in adapter.renamed.items()
        if name.startswith(own)
    )


def _renamed(page: Exposition, adapter: Adapter) -> Exposition:
    return under_own_names(page.all, adapter.renamed) if adapter.renamed else page


def _label(target: Target, name: str) -> str:
    return target.labels.get(name, "")


def _pushed_targets(values: Sequence[Sample], now: float) -> Mapping[Key, Target]:
    """Targets by the labels job and instance, if no ``up`` is stored because engines push."""
    found: dict[Key, Target] = {}
    for one in values:
        labels = {name: one.labels.get(name, "") for name in ("job", "instance")}
        key = tuple(sorted(labels.items()))
        found.setdefault(key, Target(key, labels, up=True, scraped_at=now))
    return found
