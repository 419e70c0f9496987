"""``llmtop set 'model=...' OPTION=VALUE --canary N``: on a few engines first, then on the rest."""

from __future__ import annotations

import asyncio
import fnmatch
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from llmtop import LlmtopError, UsageError
from llmtop.engines.core.conditions import STALE
from llmtop.engines.core.records import State
from llmtop.engines.core.samples import Latency
from llmtop.engines.state.temporary_changes import Purpose
from llmtop.fleet.canary import (
    EARLY,
    Counts,
    Judgement,
    Verdict,
    batches,
    bucket_counts,
    exact_counts,
    judge,
    total,
)

if TYPE_CHECKING:
    from llmtop.engines.core.adapter import Reader
    from llmtop.engines.core.options import OptionValue
    from llmtop.engines.core.records import EngineRecord
    from llmtop.engines.introspection.engine_inside import EngineInside
    from llmtop.operations.session import EngineSession
    from llmtop.operations.wiring import Wiring

KEYS = ("model", "engine", "name")
WORK = "the canary"  # how a change is called that a killed llmtop left
EVERY_S = 2.0
SETTLE_S = 5.0  # after each batch of the rest
PATIENCE_S = 5.0  # beside a start or on a full machine, an engine that serves answers late
AGAIN_S = 0.5


class Plan(Struct, frozen=True):
    """What is to be done. watch_s: how long the canaries are compared. limits: the SLO, seconds."""

    select: str
    options: Mapping[str, str]
    canaries: int
    watch_s: float
    limits: Mapping[str, float]


class Result(Struct, frozen=True):
    """What was done. changed: the engines that have the new value now."""

    judgement: Judgement
    canaries: tuple[str, ...]
    changed: tuple[str, ...]
    reverted: tuple[str, ...]


class Trouble(Struct, frozen=True):
    """Why an engine does not serve, "" when it does. passing: it may be over at the next look."""

    words: str = ""
    passing: bool = False


async def lasting(
    look: Callable[[], Awaitable[Trouble]],
    *,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> str:
    """The words of a trouble that lasts: one that may pass is looked at again for PATIENCE_S."""
    began = monotonic()
    while True:
        found = await look()
        if not (found.words and found.passing) or monotonic() - began >= PATIENCE_S:
            return found.words
        await sleep(AGAIN_S)


def is_selection(text: str) -> bool:
    """Whether a name means several engines: ``model=llama-*``."""
    return text.partition("=")[0] in KEYS and "=" in text


def selected(text: str, records: Sequence[EngineRecord]) -> list[EngineRecord]:
    """The living engines that a selection means. UsageError where there are fewer than two."""
    key, _, pattern = text.partition("=")
    fields: dict[str, Callable[[EngineRecord], str]] = {
        "model": lambda one: one.spec.model,
        "engine": lambda one: one.spec.kind,
        "name": lambda one: one.name,
    }
    living = [one for one in records if one.ended_at is None]
    found = [one for one in living if fnmatch.fnmatchcase(fields[key](one), pattern)]
    if len(found) < 2:
        shown = ", ".join(one.name for one in found) or "none"
        raise UsageError(
            f"a canary needs two engines or more, and {text} means {shown}", "see `llmtop ps`"
        )
    return found


class _Engine:
    """One engine of the selection: its session, and what its requests kept to so far."""

    def __init__(self, wiring: Wiring, record: EngineRecord) -> None:
        from llmtop.engines.metrics.scraper import open_reader
        from llmtop.operations.inside import inside_of

        endpoint = wiring.of(record)
        self.name = record.name
        self._wiring, self._record = wiring, record
        self.session: EngineSession = wiring.session(endpoint)
        self._inside: EngineInside | None = inside_of(endpoint)
        self._reader: Reader = open_reader(
            endpoint.adapter, endpoint.url, wiring.fetch, wiring.state.locks
        )
        self._exact: bool | None = None
        self.before: dict[str, OptionValue] = {}
        self.base: dict[str, Counts] = {}

    async def counts(self, limits: Mapping[str, float]) -> dict[str, Counts]:
        """Requests in time since the engine started, for each limit; exact where it shows them."""
        if self._exact is None:  # one source for all looks: their counts are compared
            self._exact = await self._shows(limits)
        if self._exact and self._inside is not None:
            found = (await self._inside.latencies()).histograms
            return {
                name: exact_counts(found[name], limit) if name in found else Counts()
                for name, limit in limits.items()
            }
        reading = await self._reader.read()
        return {
            name: bucket_counts(reading.histograms[Latency(name)], limit)
            if Latency(name) in reading.histograms
            else Counts()
            for name, limit in limits.items()
        }

    async def _shows(self, limits: Mapping[str, float]) -> bool:
        """Whether it shows exact latencies for all limits."""
        if self._inside is None:
            return False
        try:
            found = await self._inside.latencies()
        except LlmtopError:
            return False
        return all(name in found.histograms for name in limits)

    async def trouble(self) -> str:
        """Why it does not serve, "" when it does. One that is silent gets a few seconds."""
        return await lasting(self._observe)

    async def _observe(self) -> Trouble:
        status = await asyncio.to_thread(self._wiring.supervisor.status, self._record)
        if status.state is not State.READY:
            silent = status.state is State.UNRESPONSIVE
            return Trouble(f"{self.name} is {status.state.value}", passing=silent)
        try:
            sample = await self.session.sample()
        except LlmtopError as error:
            return Trouble(f"{self.name}: {error.message}", passing=True)
        hung = [one.message for one in sample.conditions if one.name in STALE]
        return Trouble(f"{self.name}: {hung[0]}" if hung else "")

    def keep(self) -> None:
        """What was changed is to stay, whatever becomes of this llmtop."""
        self._wiring.temporary_changes.keep(self._record, tuple(self.before))

    async def change(self, wanted: Mapping[str, OptionValue]) -> None:
        """Change options; if this llmtop is killed, the next one reports what is left changed.

        LlmtopError when a change is refused.
        """
        for change in await self.session.change(wanted, purpose=Purpose(WORK, self.before)):
            if change.failed:
                raise LlmtopError(f"{self.name}: {change.option}: {change.reason or 'refused'}")

    async def close(self) -> None:
        await self._reader.close()
        await self.session.close()


async def carry_out(wiring: Wiring, plan: Plan, say: Callable[[str], None]) -> Result:
    """Change the canaries, watch, then change the rest or put the canaries back.

    What was changed is put back too when this is ended by a signal. say: takes each step.
    """
    records = selected(plan.select, wiring.supervisor.records())
    if plan.canaries >= len(records):
        raise UsageError(
            f"{plan.canaries} canaries of {len(records)} engines leave none to compare with"
        )
    engines = [_Engine(wiring, record) for record in records]
    changed: list[_Engine] = []
    kept = False
    try:
        wanted = await _resolved(engines, plan.options)
        canaries, others = engines[: plan.canaries], engines[plan.canaries :]
        for one in canaries:
            changed.append(one)
            await one.change(wanted[one.name])
            say(f"{one.name}: {_words(wanted[one.name], one.before)}")
        judgement = await _watch(canaries, others, plan, say)
        if judgement.verdict is Verdict.NOT_WORSE:
            trouble = await _the_rest(others, canaries, wanted, changed, plan, say)
            if trouble:
                judgement = Judgement(Verdict.WORSE, trouble, judgement.limits)
            else:
                for one in engines:
                    one.keep()
                kept = True
    finally:
        reverted = [] if kept else await asyncio.shield(_put_back(changed, say))
        for one in engines:
            await one.close()
    names = tuple(one.name for one in changed if one.name not in reverted)
    return Result(judgement, tuple(one.name for one in canaries), names, tuple(reverted))


async def _resolved(
    engines: Sequence[_Engine], asked: Mapping[str, str]
) -> dict[str, dict[str, OptionValue]]:
    """The values for each engine; notes what each has now. UsageError for what cannot be meant."""
    from llmtop.engines.tuning import resolution

    found: dict[str, dict[str, OptionValue]] = {}
    for one in engines:
        options, why_not = await one.session.options()
        if why_not:
            raise LlmtopError(f"{one.name}: {why_not}")
        picked = {name: resolution.find(options, name) for name in asked}
        found[one.name] = {name: resolution.parse(picked[name], asked[name]) for name in asked}
        one.before = {name: option.value for name, option in picked.items()}
    return found


async def _watch(
    canaries: Sequence[_Engine],
    others: Sequence[_Engine],
    plan: Plan,
    say: Callable[[str], None],
) -> Judgement:
    """Compare both sides for the time of the watch; a clear verdict ends it sooner."""
    for one in (*canaries, *others):
        one.base = await one.counts(plan.limits)
    began = time.monotonic()
    say(f"watching for {plan.watch_s:g} s")
    while True:
        left = began + plan.watch_s - time.monotonic()
        await asyncio.sleep(max(0.0, min(EVERY_S, left)))
        for one in canaries:
            if trouble := await one.trouble():
                return Judgement(Verdict.WORSE, trouble, {})
        sides = [await _since(side, plan.limits) for side in (canaries, others)]
        if left <= EVERY_S:
            return judge(sides[0], sides[1])
        early = judge(sides[0], sides[1], EARLY)
        if early.verdict is Verdict.WORSE:
            return early


async def _since(side: Sequence[_Engine], limits: Mapping[str, float]) -> dict[str, Counts]:
    now = [await one.counts(limits) for one in side]
    return {
        name: total(
            counts[name].minus(one.base[name]) for one, counts in zip(side, now, strict=True)
        )
        for name in limits
    }


async def _the_rest(
    others: Sequence[_Engine],
    canaries: Sequence[_Engine],
    wanted: Mapping[str, Mapping[str, OptionValue]],
    changed: list[_Engine],
    plan: Plan,
    say: Callable[[str], None],
) -> str:
    """Change the rest in batches; why it was stopped, "" when all have it."""
    by_name = {one.name: one for one in others}
    for names in batches(list(by_name), len(canaries)):
        for name in names:
            changed.append(by_name[name])
            try:
                await by_name[name].change(wanted[name])
            except LlmtopError as error:
                return error.message
            say(f"{name}: {_words(wanted[name], by_name[name].before)}")
        await asyncio.sleep(min(SETTLE_S, plan.watch_s))
        for one in changed:
            if trouble := await one.trouble():
                return trouble
    return ""


async def _put_back(changed: Sequence[_Engine], say: Callable[[str], None]) -> list[str]:
    """Give each engine the values that it had; those that do not take them are named."""
    done = []
    for one in changed:
        try:
            await one.change(one.before)
        except LlmtopError as error:
            say(f"{one.name} could not be put back: {error.message}")
            continue
        done.append(one.name)
        say(f"{one.name}: put back")
    return done


def _words(wanted: Mapping[str, OptionValue], before: Mapping[str, OptionValue]) -> str:
    from llmtop.wording import format as f

    pairs = (f"{name} {f.option(before[name])} -> {f.option(wanted[name])}" for name in wanted)
    return ", ".join(pairs)
