"""``llmtop set 'model=...' OPTION=VALUE --canary N``: change a few engines first, then the rest."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from llmtop import LlmtopError, UsageError
from llmtop.cli.options.canary_engine import CanaryEngine, selected
from llmtop.cli.options.canary_lock import locked
from llmtop.cli.options.canary_steps import CanarySteps, named, reason
from llmtop.fleet.canary import EARLY, Counts, Judgement, Verdict, batches, judge, total

if TYPE_CHECKING:
    from llmtop.engines.core.options import OptionValue
    from llmtop.engines.core.records import EngineRecord
    from llmtop.operations.wiring import Wiring

EVERY_S = 2.0  # interval of comparisons
SETTLE_S = 5.0  # wait after each batch of the rest


class Plan(Struct, frozen=True):
    """A canary rollout. select: the selection, such as ``model=llama-*``. options: values as text.

    canaries: number of engines to change first. watch_s: length of the comparison, in seconds.
    limits: the SLO, in seconds.
    """

    select: str
    options: Mapping[str, str]
    canaries: int
    watch_s: float
    limits: Mapping[str, float]

    @property
    def words(self) -> str:
        """The requested options as text: ``max_num_seqs=128``."""
        return ", ".join(f"{name}={text}" for name, text in self.options.items())

    @property
    def slo(self) -> str:
        """The limits as text: ``ttft=0.5s``."""
        return ", ".join(f"{name}={limit:g}s" for name, limit in self.limits.items())


class Result(Struct, frozen=True):
    """The result of a rollout. changed: engines with the new values. reverted: with the old ones
    again."""

    judgement: Judgement
    canaries: tuple[str, ...]
    changed: tuple[str, ...]
    reverted: tuple[str, ...]


async def carry_out(wiring: Wiring, plan: Plan, say: Callable[[str], None]) -> Result:
    """Change the canaries, compare them, then change the rest or revert the canaries.

    A signal also reverts all changes. say: receives one line for each step; each step is also an
    event of the engines. Raises UsageError when the selection does not fit, LlmtopError when a
    change is refused.
    """
    records = selected(plan.select, wiring.supervisor.records())
    if plan.canaries >= len(records):
        raise UsageError(
            f"{plan.canaries} canaries of {len(records)} engines leave none to compare with"
        )
    with locked([one.name for one in records], wiring.state.folder):
        return await _roll_out(wiring, plan, records, say)


async def _roll_out(
    wiring: Wiring, plan: Plan, records: Sequence[EngineRecord], say: Callable[[str], None]
) -> Result:
    steps = CanarySteps([one.name for one in records], say, wiring.state.folder)
    engines = [CanaryEngine(wiring, record) for record in records]
    canaries, others = engines[: plan.canaries], engines[plan.canaries :]
    changed: list[CanaryEngine] = []
    reverted: list[str] = []
    kept = False
    why = "the command was interrupted"
    try:
        wanted = await _resolved(engines, plan.options)
        first = named([one.name for one in canaries])
        steps.report(
            f"{plan.words} first on {first}, of {len(engines)} engines ({plan.select}), "
            f"by {wiring.who}"
        )
        for one in canaries:
            changed.append(one)
            await one.change(wanted[one.name])
            words = _words(wanted[one.name], one.before)
            steps.report(f"{one.name}: {words}", one.name, level="change")
        judgement = await _watch(canaries, others, plan, steps)
        steps.report_verdict(judgement)
        if judgement.verdict is Verdict.NOT_WORSE:
            problem = await _change_rest(others, canaries, wanted, changed, plan, steps)
            if problem:
                judgement = Judgement(Verdict.WORSE, problem, judgement.limits)
                steps.report_verdict(judgement)
            else:
                for one in engines:
                    one.keep()
                kept = True
        why = reason(judgement)
    except LlmtopError as error:
        why = error.message
        raise
    finally:
        if not kept:
            reverted = await asyncio.shield(_put_back(changed, why, steps))
        stays = [one.name for one in changed if one.name not in reverted]
        if changed:
            steps.report(_end(plan, stays, reverted))
        for one in engines:
            await one.close()
    return Result(judgement, tuple(one.name for one in canaries), tuple(stays), tuple(reverted))


def _end(plan: Plan, stays: Sequence[str], reverted: Sequence[str]) -> str:
    """The end of a rollout: which engines have the new values, and which have the old ones."""
    parts = [f"{named(stays)} with {plan.words}"] if stays else []
    parts += [f"{named(reverted)} with the old values"] if reverted else []
    return f"ended: {'; '.join(parts)}"


async def _resolved(
    engines: Sequence[CanaryEngine], asked: Mapping[str, str]
) -> dict[str, dict[str, OptionValue]]:
    """Parse the new values for each engine, and keep its current ones in ``before``.

    Raises UsageError for an unknown option or an invalid value.
    """
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
    canaries: Sequence[CanaryEngine],
    others: Sequence[CanaryEngine],
    plan: Plan,
    steps: CanarySteps,
) -> Judgement:
    """Compare both sides for ``plan.watch_s``. Clear harm ends the comparison sooner."""
    for one in (*canaries, *others):
        one.base = await one.counts(plan.limits)
    began = time.monotonic()
    sides_words = (named([one.name for one in side]) for side in (canaries, others))
    steps.report(f"watching {' beside '.join(sides_words)} for {plan.watch_s:g} s: {plan.slo}")
    while True:
        left = began + plan.watch_s - time.monotonic()
        await asyncio.sleep(max(0.0, min(EVERY_S, left)))
        for one in canaries:
            if problem := await one.problem():
                return Judgement(Verdict.WORSE, problem, {})
        sides = [await _since(side, plan.limits) for side in (canaries, others)]
        if left <= EVERY_S:
            return judge(sides[0], sides[1])
        early = judge(sides[0], sides[1], EARLY)
        if early.verdict is Verdict.WORSE:
            return early


async def _since(side: Sequence[CanaryEngine], limits: Mapping[str, float]) -> dict[str, Counts]:
    now = [await one.counts(limits) for one in side]
    return {
        name: total(
            counts[name].minus(one.base[name]) for one, counts in zip(side, now, strict=True)
        )
        for name in limits
    }


async def _change_rest(
    others: Sequence[CanaryEngine],
    canaries: Sequence[CanaryEngine],
    wanted: Mapping[str, Mapping[str, OptionValue]],
    changed: list[CanaryEngine],
    plan: Plan,
    steps: CanarySteps,
) -> str:
    """Change the rest in batches. Returns why it stopped, "" when all engines have the values."""
    by_name = {one.name: one for one in others}
    parts = batches(list(by_name), len(canaries))
    for number, names in enumerate(parts, 1):
        for name in names:
            changed.append(by_name[name])
            try:
                await by_name[name].change(wanted[name])
            except LlmtopError as error:
                return error.message
        words = f"batch {number} of {len(parts)} changed: {named(names)}: {plan.words}"
        steps.report(words, *names, level="change")
        await asyncio.sleep(min(SETTLE_S, plan.watch_s))
        for one in changed:
            if problem := await one.problem():
                return problem
    return ""


async def _put_back(changed: Sequence[CanaryEngine], why: str, steps: CanarySteps) -> list[str]:
    """Restore the old values. Returns the names of the engines that accepted them."""
    done = []
    for one in changed:
        try:
            await one.change(one.before)
        except LlmtopError as error:
            words = f"{one.name} could not be put back: {error.message}"
            steps.report(words, one.name, level="error")
            continue
        done.append(one.name)
        steps.report(f"{one.name}: put back, {why}", one.name, level="warning")
    return done


def _words(wanted: Mapping[str, OptionValue], before: Mapping[str, OptionValue]) -> str:
    from llmtop.wording import format as f

    pairs = (f"{name} {f.option(before[name])} -> {f.option(wanted[name])}" for name in wanted)
    return ", ".join(pairs)
