"""A session with one engine: reads its numbers and options, and changes options."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from msgspec import Struct

from llmtop import LlmtopError
from llmtop.engines.core.adapter import Live
from llmtop.engines.core.conditions import Condition, gravest_first, old_version
from llmtop.engines.core.endpoint import Endpoint
from llmtop.engines.core.latencies import Latencies
from llmtop.engines.core.live_protocol import named_change
from llmtop.engines.core.options import Applies, Change, Option, OptionValue, Outcome
from llmtop.engines.core.samples import EngineSample
from llmtop.engines.core.steps import Steps
from llmtop.engines.core.versions import older
from llmtop.engines.introspection.engine_inside import EngineInside
from llmtop.engines.introspection.exact_latencies import ExactLatencies
from llmtop.engines.logs.reported_options import read_effective
from llmtop.engines.metrics.detection import version_of
from llmtop.engines.metrics.evictions import Evictions
from llmtop.engines.metrics.scraper import Fetch, open_reader
from llmtop.engines.metrics.window import Window
from llmtop.engines.state.temporary_changes import Purpose, TemporaryChanges
from llmtop.engines.tuning import resolution
from llmtop.engines.tuning.live_client import LiveState
from llmtop.values import replace

DRAIN_BEAT_S = 0.2
NOT_OURS = "llmtop did not start it, so its launch values are not known"
NOT_NOW = "it cannot be changed now"
NO_SOCKET = "the engine does not answer on its live-option socket"
NO_STOCK = "the engine does not report which options it can change"


class Options(Struct, frozen=True):
    """An engine's options at one moment.

    why_not: why none can be changed as it runs, "" when some can. live: what the engine itself
    said of them, None when it said nothing.
    """

    options: tuple[Option, ...]
    why_not: str
    live: LiveState | None = None


class EngineSession:
    """Reads one engine's numbers and options, and changes what can be changed as it runs."""

    def __init__(
        self,
        endpoint: Endpoint,
        fetch: Fetch,
        *,
        live: Live | None = None,
        window: Window | None = None,
        who: str = "",
        locks: Path | None = None,
        temporary_changes: TemporaryChanges | None = None,
        inside: EngineInside | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.live = live
        self.window = window or Window()
        self.who = who
        self._fetch = fetch
        self._temporary_changes = temporary_changes
        self._reader = open_reader(endpoint.adapter, endpoint.url, fetch, locks)
        self._evictions = Evictions(live)
        self.inside = inside
        latencies = self._reported_latencies() if inside is None else inside.latencies
        self.exact = None if latencies is None else ExactLatencies(latencies, self.window.seconds)
        self._effective: Mapping[str, OptionValue] = {}
        self._effective_of: float | None = None
        self._version: str | None = None  # as it was asked for

    def _reported_latencies(self) -> Callable[[], Awaitable[Latencies]] | None:
        """Exact latencies that an engine of ours reports without a plugin; None of others."""
        record = self.endpoint.record
        kept = 0 if record is None else self.endpoint.adapter.kept_requests(record.spec.args)
        read = getattr(self._reader, "latencies", None)
        return partial(read, kept) if kept and read is not None else None

    @property
    def reported_steps(self) -> Steps | None:
        """The steps that the engine's own page reported; None of engines that report none."""
        return self._reader.steps

    def give_way(self) -> None:
        """From now on leave to other llmtops what only one may read."""
        self._reader.give_way()

    async def sample(self) -> EngineSample:
        """Scrape once and say what the window up to now holds. ScrapeError when it cannot."""
        if self.exact is None:
            reading = await self._reader.read()
        else:  # together: the engine's own page may take longer than a second
            reading, _ = await asyncio.gather(self._reader.read(), self.exact.refresh())
        sample = self.window.add(await self._evictions.out_of(reading))
        if self.exact is not None:
            sample = self.exact.into(sample)
        old = self._old_version()
        if old is None:
            return sample
        return replace(sample, conditions=gravest_first((*sample.conditions, old)))

    def _old_version(self) -> Condition | None:
        adapter = self.endpoint.adapter
        version = self._version or self.endpoint.version
        if not version or not adapter.min_version or not older(version, adapter.min_version):
            return None
        return old_version(adapter.title, version, adapter.min_version)

    @property
    def why_not_live(self) -> str:
        """Why there is no live-option socket to ask."""
        title = self.endpoint.adapter.title
        if all(spec.applies is Applies.RESTART for spec in self.endpoint.adapter.options):
            never = f"{title} changes no option while it runs"
            return never if self.endpoint.owned else f"{NOT_OURS}; {never}"
        return f"{NOT_OURS}; {title} changes options live only if llmtop started it"

    async def drained(self, patience_s: float) -> bool:
        """Wait until the engine has no request left, by its own numbers; False: it still has."""
        deadline = time.monotonic() + patience_s
        while True:
            with suppress(LlmtopError):
                sample = await self.sample()
                if sample.running == 0 and not sample.waiting:
                    return True
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(DRAIN_BEAT_S)

    async def version(self) -> str | None:
        """The version that the engine itself reports; None when it does not."""
        self._version = await version_of(self.endpoint.url, self._fetch)
        return self._version

    def assemble(self, live: LiveState | None, *, silent: str = "") -> tuple[Option, ...]:
        """The options as they stand, given what the engine said last. silent: why it says nothing,
        although it has a way to change options."""
        adapter, record = self.endpoint.adapter, self.endpoint.record
        launch: Mapping[str, OptionValue] = {}
        if record is not None:
            launch = {**adapter.launch_options(record.spec.args), **self._effective}
        known = record is not None
        return resolution.assemble(adapter.options, launch, live, known=known, silent=silent)

    async def read_options(self) -> Options:
        """Ask for the options as they stand. Raises nothing: why there is no answer is in it."""
        await self._learn_effective()
        if self.live is None:
            return Options(self.assemble(None), self.why_not_live)
        try:
            live = await self.live.get()
        except LlmtopError as error:
            silent = NO_STOCK if self.endpoint.by_http else NO_SOCKET
            options = self.assemble(None, silent=f"{NOT_NOW}: {error.message}")
            return Options(options, f"{silent}: {error.message}")
        why_not = f"live options are off: {live.disabled}" if live.disabled else rank_trouble(live)
        return Options(self.assemble(live), why_not, live)

    async def _learn_effective(self) -> None:
        record, adapter = self.endpoint.record, self.endpoint.adapter
        if record is None or self._effective_of == record.started_at:
            return
        log, began = Path(record.log_path), record.started_at
        self._effective = await asyncio.to_thread(
            read_effective, log, began, adapter.effective, adapter.options
        )
        self._effective_of = began

    async def options(self) -> tuple[tuple[Option, ...], str]:
        """The options, and why none can be changed live ("" when some can)."""
        found = await self.read_options()
        return found.options, found.why_not

    async def change(
        self,
        wanted: Mapping[str, OptionValue],
        *,
        evict: bool = False,
        purpose: Purpose | None = None,
        trouble: str = "",
        wait_s: float = 1.0,
    ) -> tuple[Change, ...]:
        """Ask for changes; each gets its outcome, in the order asked.

        What cannot be asked of the running engine is refused here, with the reason, and the rest is
        sent. LiveError when the engine does not answer. purpose: what they are changed for, when
        that is for a while; it is recorded first (LlmtopError where that fails), so that the next
        llmtop can report them if this process is killed. trouble: what is wrong with the engine by
        its processes, "" when nothing is; it is the reason where the engine does not answer.
        wait_s: how long the engine may wait for its next step before it answers "pending".
        """
        found = await self.read_options()
        options, why_not = found.options, found.why_not
        offered = found.live.options if found.live is not None else {}
        outcomes: dict[str, Change] = {}
        ask: dict[str, int] = {}
        notes: dict[str, str] = {}
        for name, value in wanted.items():
            option = resolution.find(options, name)
            reason = self._refusal(option, value, why_not, trouble)
            if reason:
                outcomes[name] = resolution.refused_change(option, value, reason, self.who)
            elif name in offered and (number := offered[name].number(value)) is not None:
                ask[name], notes[name] = number, option.note
        if ask and self.live is not None:
            temporary_changes, record = self._temporary_changes, self.endpoint.record
            if temporary_changes is not None and record is not None and purpose is not None:
                await _aside(
                    partial(temporary_changes.lend, record, purpose, {n: wanted[n] for n in ask})
                )
            made = await self.live.set(ask, evict=evict, by=self.who, wait_s=wait_s)
            made = tuple(named_change(one, offered.get(one.option)) for one in made)
            if any(notes[one.option] or one.ranks or resolution.drains(one) for one in made):
                notes |= await self._notes()
            for change in made:
                outcomes[change.option] = replace(change, note=notes[change.option])
            if temporary_changes is not None and record is not None:
                now = {  # of a partial change a rank still has the value that is on record
                    name: change.before if change.outcome is Outcome.REFUSED else change.after
                    for name, change in outcomes.items()
                    if name in ask and change.outcome is not Outcome.PARTIAL
                }
                if purpose is not None:
                    await _aside(partial(temporary_changes.observe, record, now))
                else:
                    chosen = [name for name in now if not outcomes[name].failed]
                    await _aside(partial(temporary_changes.settle, record, chosen))
        return tuple(outcomes[name] for name in wanted if name in outcomes)

    async def _notes(self) -> dict[str, str]:
        """What is to be known of each option now: how many requests still run above a limit."""
        options, _ = await self.options()
        return {option.name: option.note for option in options if not option.obstacle}

    def _refusal(self, option: Option, value: OptionValue, why_not: str, trouble: str) -> str:
        """Why a change is not sent, in words; "" when it is."""
        reason = resolution.refusal(option, value)
        if reason is None:
            return ""
        if option.obstacle:
            return f"{NOT_NOW}: {trouble}" if trouble else reason
        if self.live is None and not self.endpoint.owned:
            return f"it cannot be changed from here: {why_not}"
        return f"{reason}; {why_not}" if why_not else reason

    @property
    def note(self) -> str:
        """What cannot be read from this engine just now and why, "" when all is well."""
        return self._reader.note

    async def close(self) -> None:
        """Give the sockets back."""
        await self._reader.close()
        if self.live is not None:
            await self.live.close()
        if self.inside is not None:
            self.inside.close()


def rank_trouble(live: LiveState) -> str:
    """Which data-parallel ranks cannot be changed now and why; "" when all can."""
    words = [
        f"rank {one.rank}: {one.trouble or f'live options are off: {one.disabled}'}"
        for one in live.ranks
        if one.trouble or one.disabled
    ]
    return "; ".join(words)


async def _aside(write: Callable[[], None]) -> None:
    """Wait for a disk without blocking the screen. It is over when this is, cancelled or not: what
    is written next must not be overtaken."""
    task = asyncio.create_task(asyncio.to_thread(write))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        with suppress(LlmtopError):
            await task
        raise
