"""One beat: the questions, their answers brought into a table of instances."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from llmtop import LlmtopError
from llmtop.engines.core.adapter import Adapter
from llmtop.engines.metrics.exposition import Exposition, under_own_names
from llmtop.fleet.instances import ORDER, RATE_S, WINDOW_S, Instance, Watched
from llmtop.fleet.pages import Pages
from llmtop.fleet.power import UNKNOWN, Prices, power_of, with_power
from llmtop.fleet.promql import Sample
from llmtop.fleet.questions import Questions
from llmtop.fleet.targets import Key, Target, targets_of
from llmtop.values import replace

YOUNG_S = 7.0  # an instance that was started a moment ago has rates too
ERRORS_EVERY_S = 10.0  # the list of targets is long: it is asked for when a new scrape fails
MOST_INSTANCES = 20_000


class Server(Protocol):
    """What is asked: ``promql.Prometheus``."""

    async def query(self, expression: str, time: float | None = None) -> list[Sample]:
        """The value of an expression at a moment."""

    async def scrape_errors(self) -> dict[tuple[str, str], str]:
        """What the last scrape of each failing target said."""


class Table(Struct, frozen=True):
    """The instances at one moment, the gravest state first. time: unix seconds of the Prometheus.

    trouble: why it is not of now, "" when it is; its instances are then those of ``time``.
    """

    time: float
    instances: tuple[Instance, ...] = ()
    trouble: str = ""
    hint: str = ""


class Observer:
    """Asks a Prometheus at each beat and keeps what it needs of the beats before.

    prices: of GPUs. wall: unix seconds.
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
        # The simulated engine's pages have the names of another engine and a mark of their own.
        self._adapters = sorted(
            (one for one in adapters if one.series is not None), key=lambda one: not one.simulated
        )
        self.questions = Questions(tuple(self._adapters), match)
        self._wall = wall
        self._watched: dict[Key, Watched] = {}
        self._pages, self._earlier = Pages(), Pages()
        self._errors: dict[tuple[str, str], str] = {}
        self._errors_at = float("-inf")
        self._failing: frozenset[tuple[str, str]] = frozenset()
        self._last: Table | None = None

    async def read_table(self) -> Table:
        """The table of now. A Prometheus that does not answer leaves the last one, and says why."""
        now = self._wall()
        try:
            if self._last is None:  # else the first table would have no rates and no percentiles
                for back in (WINDOW_S, RATE_S, YOUNG_S):
                    await self._beat(now - back)
            table = await self._beat(now)
        except LlmtopError as error:
            last = self._last or Table(now)
            return replace(last, trouble=error.message, hint=error.hint)
        self._last = table
        return table

    async def _beat(self, now: float) -> Table:
        asked = self.questions.all
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._ask(one, now)) for one in asked]
        answers = [task.result() for task in tasks]
        found = []
        for answer in answers:
            if isinstance(answer, LlmtopError):
                raise answer
            found.append(answer)
        values, buckets, up, scraped_at, scrape_s, started, gpus, remembered = found
        targets = targets_of(up, scraped_at, scrape_s) or _unscraped(values, now)
        samples = [*values, *buckets, *started]
        pages = self._pages.of(targets.values(), samples)
        earlier = self._earlier.of(targets.values(), remembered)
        await self._learn_errors(targets.values(), now)
        instances: list[Instance] = []
        for key, target in targets.items():
            watched = self._follow(key, target, pages.get(key), earlier.get(key), now)
            if watched is not None and len(instances) < MOST_INSTANCES:
                error = self._errors.get((_label(target, "job"), _label(target, "instance")), "")
                instances.append(watched.observe(target, now, error))
        for key in self._watched.keys() - targets.keys():
            del self._watched[key]
        rows = with_power(instances, power_of(gpus), self._prices)
        return Table(now, tuple(sorted(rows, key=lambda one: (ORDER[one.state], one.id))))

    async def _ask(self, expression: str, now: float) -> list[Sample] | LlmtopError:
        try:
            return await self._server.query(expression, now)
        except LlmtopError as error:
            return error

    def _follow(
        self,
        key: Key,
        target: Target,
        page: Exposition | None,
        earlier: Exposition | None,
        now: float,
    ) -> Watched | None:
        watched = self._watched.get(key)
        adapter = self._kind(page) or self._kind(earlier)
        if watched is None or (adapter is not None and adapter.kind != watched.kind):
            if adapter is None:
                return None
            watched = self._watched[key] = Watched(adapter.kind)
            watched.call(_model(earlier))
        at = target.scraped_at if target.scraped_at is not None else now
        if page is not None and adapter is not None and target.up and watched.is_new(at):
            watched.add(adapter.read(_renamed(page, adapter), at, at))
        return watched

    def _kind(self, page: Exposition | None) -> Adapter | None:
        """Whose page it is: by its gauge of running requests, else by any of its names."""
        if page is None:
            return None
        for adapter in self._adapters:
            if any(_has(page, name, adapter) for name in _running(adapter)):
                return adapter
        for adapter in self._adapters:
            if not adapter.simulated and any(_has(page, name, adapter) for name in _own(adapter)):
                return adapter
        return None

    async def _learn_errors(self, targets: Iterable[Target], now: float) -> None:
        """Ask why scrapes fail, where another set of targets fails than before."""
        failing = frozenset(
            (_label(one, "job"), _label(one, "instance")) for one in targets if not one.up
        )
        if not failing:
            self._errors, self._failing = {}, failing
        elif failing != self._failing or now - self._errors_at >= ERRORS_EVERY_S:
            self._errors = await self._server.scrape_errors()
            self._failing, self._errors_at = failing, now


def _model(page: Exposition | None) -> str | None:
    """The model that a gauge of running requests names."""
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


def _unscraped(values: Sequence[Sample], now: float) -> Mapping[Key, Target]:
    """Targets where no ``up`` is stored: engines that push, by the labels job and instance."""
    found: dict[Key, Target] = {}
    for one in values:
        labels = {name: one.labels.get(name, "") for name in ("job", "instance")}
        key = tuple(sorted(labels.items()))
        found.setdefault(key, Target(key, labels, up=True, scraped_at=now))
    return found
