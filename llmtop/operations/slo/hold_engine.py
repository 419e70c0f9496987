"""``hold`` on a real engine: the lock, the options that it sets, and the published state."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct, structs

from llmtop import LlmtopError
from llmtop.engines.core.options import Change, Option, OptionValue, RankValue
from llmtop.engines.state.temporary_changes import Purpose
from llmtop.operations.inside import require_inside
from llmtop.operations.slo.holder import Holder, HoldReport
from llmtop.operations.slo.holders import Action, HolderLock, HolderState
from llmtop.operations.slo.limits import Names, live_names, settings_of
from llmtop.slo_control.limits import (
    LEAST_BATCH,
    LEAST_BUDGET,
    LEAST_QUEUE,
    UNLIMITED,
    Goal,
    LimitValues,
    Range,
)

if TYPE_CHECKING:
    from llmtop.operations.session import EngineSession
    from llmtop.operations.wiring import Wiring

MOST_QUEUE = 4096
RECENT = 20  # number of published actions


class HoldPlan(Struct, frozen=True):
    """The request of the user. slo: as text. seconds: duration, None: until stopped.

    batch, queue, budget: bounds for the limits, None: the defaults. detached: runs in the
    background.
    """

    name: str
    slo: str
    goal: Goal
    seconds: float | None = None
    batch: tuple[int, int] | None = None
    queue: tuple[int, int] | None = None
    budget: tuple[int, int] | None = None
    detached: bool = False


class Prepared(Struct, frozen=True):
    """What a hold would change on this engine. names: its options. own: the operator's values.

    allowed: bounds. note: a warning for the operator, "" for none.
    """

    names: Names
    own: LimitValues
    allowed: Range
    note: str


class SessionChanger:
    """Changes options through a session."""

    def __init__(self, session: EngineSession) -> None:
        self._session = session

    async def change(
        self, wanted: Mapping[str, OptionValue], *, purpose: Purpose | None = None
    ) -> tuple[Change, ...]:
        """Change options; see ``rank_limits.Changer``."""
        return await self._session.change(wanted, purpose=purpose)

    async def values(self) -> Mapping[str, Sequence[OptionValue]]:
        """Read the values; see ``rank_limits.Changer``."""
        found = await self._session.read_options()
        if found.live is None:
            raise LlmtopError(found.why_not)
        return {option.name: _on_ranks(option) for option in found.options}


def _on_ranks(option: Option) -> tuple[OptionValue, ...]:
    """The value on each rank, or the pending one."""
    ranks = option.ranks or (RankValue(0, option.value, option.pending),)
    return tuple(one.value if one.pending is None else one.pending for one in ranks)


def prepared(options: tuple[Option, ...], why_not: str, plan: HoldPlan) -> Prepared:
    """Find the options and bounds. LlmtopError when neither batch nor queue limit is live."""
    options = tuple(o for o in options if type(o.value) is int)  # only these can be restored
    names = live_names(options)
    if not names.batch_limit and not names.queue_limit:
        raise LlmtopError(
            f"{plan.name} cannot be held: neither its batch limit nor a queue limit changes live"
            + (f" ({why_not})" if why_not else ""),
            "see `llmtop options`",
        )
    settings = settings_of(options, None)
    own = LimitValues(settings.batch_limit, settings.queue_limit, settings.token_budget)
    by_name = {option.name: option for option in options}
    batch = _bounds(
        by_name.get(names.batch_limit), plan.batch, (LEAST_BATCH, UNLIMITED), own.batch_limit
    )
    queue = _bounds(
        by_name.get(names.queue_limit), plan.queue, (LEAST_QUEUE, MOST_QUEUE), own.queue_limit
    )
    budget = _bounds(
        by_name.get(names.token_budget), plan.budget, (LEAST_BUDGET, UNLIMITED), own.token_budget
    )
    note = ""
    if not names.queue_limit:
        note = "this engine has no live queue limit: requests cannot be refused under overload"
    elif not names.batch_limit:
        note = "the batch limit of this engine does not change live: only the queue is limited"
    return Prepared(names, own, Range(*batch, *queue, *budget), note)


def _bounds(
    option: Option | None, asked: tuple[int, int] | None, usual: tuple[int, int], now: int
) -> tuple[int, int]:
    """The bounds of a limit: the requested or default ones, within those of the engine.

    option: None if it is not live; the bounds are then its current value.
    """
    if option is None:
        return now, now
    least, most = asked or usual
    if option.minimum is not None:
        least = max(least, int(option.minimum))
    if option.maximum:
        most = min(most, int(option.maximum))
    return min(max(1, least), most), most


async def hold(
    wiring: Wiring,
    plan: HoldPlan,
    stop: asyncio.Event,
    *,
    agree: Callable[[Prepared], bool],
    on_action: Callable[[Action], None] = lambda action: None,
    on_state: Callable[[HolderState], None] = lambda state: None,
) -> HoldReport | None:
    """Hold an engine until ``stop`` is set or the time is over.

    agree: asks for consent; without it the result is None. on_action: receives each action.
    on_state: receives the state at each interval. Raises LlmtopError when the engine cannot be
    held, or another process holds it.
    """
    endpoint = await wiring.endpoint(plan.name)
    session = wiring.session(endpoint)
    inside = require_inside(endpoint)
    lock = HolderLock(wiring.state.folder(endpoint.name))
    try:
        lock.take()
        options, why_not = await session.options()
        ready = prepared(options, why_not, plan)
        if not agree(ready):
            return None
        since = time.time()
        own = ready.names.of(structs.asdict(ready.own))

        recent: deque[Action] = deque(maxlen=RECENT)

        def act(action: Action) -> None:
            recent.append(action)
            on_action(action)

        def publish(limits: Mapping[str, int], engaged: bool, words: str, actions: int) -> None:
            state = HolderState(
                os.getpid(),
                wiring.who,
                plan.slo,
                since,
                time.time(),
                own,
                dict(limits),
                engaged,
                actions,
                plan.detached,
                words,
                tuple(recent),
            )
            lock.write(state)
            on_state(state)

        publish(own, False, "", 0)
        holder = Holder(
            inside,
            SessionChanger(session),
            ready.names,
            plan.goal,
            ready.own,
            ready.allowed,
            on_action=act,
            on_beat=publish,
        )
        return await holder.run(stop, plan.seconds)
    finally:
        lock.release()
        inside.close()
        with contextlib.suppress(LlmtopError):
            await session.close()
        await wiring.fetch.close()
