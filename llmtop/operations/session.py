"""A session with one engine: reads its metrics and options, and changes options."""

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

DRAIN_POLL_S = 0.2
NOT_OURS = "llmtop did not start it, so its launch values are not known"
NOT_NOW = "it cannot be changed now"
NO_SOCKET = "the engine does not answer on its live-option socket"
NO_STOCK = "the engine does not report which options it can change"


class Options(Struct, frozen=True):
    """An engine's options at one moment.

    why_not: why no option can be changed live, "" when some can. live: the engine's own answer,
    None without one.
    """

    options: tuple[Option, ...]
    why_not: str
    live: LiveState | None = None


class EngineSession:
    """Reads the metrics and options of one engine, and changes live options.

    live: the client for live options, None if the engine has none. who: the user, for the event
    lists of others. locks: folder of locks for metrics that only one process may read. inside: the
    client for steps and requests, None if the engine has none.
    """

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
        self._version: str | None = None  # the last answer of ``version``

    def _reported_latencies(self) -> Callable[[], Awaitable[Latencies]] | None:
        """The source of exact latencies of an engine that reports them without a plugin, else None.

        Only for engines that llmtop started.
        """
        record = self.endpoint.record
        kept = 0 if record is None else self.endpoint.adapter.kept_requests(record.spec.args)
        read = getattr(self._reader, "latencies", None)
        return partial(read, kept) if kept and read is not None else None

    @property
    def reported_steps(self) -> Steps | None:
        """The steps that the engine reported over HTTP; None for engines that report none."""
        return self._reader.steps

    def give_way(self) -> None:
        """From now on let another llmtop read the metrics that only one process may read."""
        self._reader.give_way()

    async def sample(self) -> EngineSample:
        """Scrape once, and return the sample over the window up to now.

        Raises ScrapeError when the scrape fails.
        """
        if self.exact is None:
            reading = await self._reader.read()
        else:  # at the same time: the engine's metrics page may take longer than a second
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
        """Why the engine has no live options."""
        title = self.endpoint.adapter.title
        if all(spec.applies is Applies.RESTART for spec in self.endpoint.adapter.options):
            never = f"{title} changes no option while it runs"
            return never if self.endpoint.owned else f"{NOT_OURS}; {never}"
        return f"{NOT_OURS}; {title} changes options live only if llmtop started it"

    async def drained(self, timeout_s: float) -> bool:
        """Wait until the engine reports no requests. False if it still has some at the timeout."""
        deadline = time.monotonic() + timeout_s
        while True:
            with suppress(LlmtopError):
                sample = await self.sample()
                if sample.running == 0 and not sample.waiting:
                    return True
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(DRAIN_POLL_S)

    async def version(self) -> str | None:
        """Ask the engine for its version; None when it does not report one."""
        self._version = await version_of(self.endpoint.url, self._fetch)
        return self._version

    def assemble(self, live: LiveState | None, *, silent: str = "") -> tuple[Option, ...]:
        """The current options. live: the engine's last answer, None without one.

        silent: why an engine with live options does not answer, "" otherwise.
        """
        adapter, record = self.endpoint.adapter, self.endpoint.record
        launch: Mapping[str, OptionValue] = {}
        if record is not None:
            launch = {**adapter.launch_options(record.spec.args), **self._effective}
        known = record is not None
        return resolution.assemble(adapter.options, launch, live, known=known, silent=silent)

    async def read_options(self) -> Options:
        """Ask for the current options. Never raises LlmtopError: the result has the reason."""
        await self._learn_effective()
        if self.live is None:
            return Options(self.assemble(None), self.why_not_live)
        try:
            live = await self.live.get()
        except LlmtopError as error:
            silent = NO_STOCK if self.endpoint.by_http else NO_SOCKET
            options = self.assemble(None, silent=f"{NOT_NOW}: {error.message}")
            return Options(options, f"{silent}: {error.message}")
        why_not = f"live options are off: {live.disabled}" if live.disabled else rank_errors(live)
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
        """Change options. Returns an outcome for each, in the order of ``wanted``.

        An option that cannot change live is refused here, with the reason; the rest is sent. Raises
        LiveError when the engine does not answer.

        evict: a lower limit also applies to running requests. purpose: the reason of a temporary
        change. It is recorded first, so that the next llmtop can report the change if this process
        is killed; LlmtopError when that fails. trouble: what is wrong with the engine's processes,
        "" for nothing; it becomes the reason if the engine does not answer. wait_s: how long the
        engine may wait for its next step before it answers "pending".
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
                await _in_thread(
                    partial(temporary_changes.lend, record, purpose, {n: wanted[n] for n in ask})
                )
            made = await self.live.set(ask, evict=evict, by=self.who, wait_s=wait_s)
            made = tuple(named_change(one, offered.get(one.option)) for one in made)
            if any(notes[one.option] or one.ranks or resolution.drains(one) for one in made):
                notes |= await self._notes()
            for change in made:
                outcomes[change.option] = replace(change, note=notes[change.option])
            if temporary_changes is not None and record is not None:
                now = {  # after a partial change, some rank still has the recorded value
                    name: change.before if change.outcome is Outcome.REFUSED else change.after
                    for name, change in outcomes.items()
                    if name in ask and change.outcome is not Outcome.PARTIAL
                }
                if purpose is not None:
                    await _in_thread(partial(temporary_changes.observe, record, now))
                else:
                    chosen = [name for name in now if not outcomes[name].failed]
                    await _in_thread(partial(temporary_changes.settle, record, chosen))
        return tuple(outcomes[name] for name in wanted if name in outcomes)

    async def _notes(self) -> dict[str, str]:
        """The note of each live option, such as how many requests still run above a limit."""
        options, _ = await self.options()
        return {option.name: option.note for option in options if not option.obstacle}

    def _refusal(self, option: Option, value: OptionValue, why_not: str, trouble: str) -> str:
        """Why a change cannot be sent; "" when it can."""
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
        """What cannot be read from this engine now, and why; "" when everything can."""
        return self._reader.note

    async def close(self) -> None:
        """Close the sockets."""
        await self._reader.close()
        if self.live is not None:
            await self.live.close()
        if self.inside is not None:
            self.inside.close()


def rank_errors(live: LiveState) -> str:
    """Which data-parallel ranks cannot be changed now, and why; "" when all can."""
    words = [
        f"rank {one.rank}: {one.trouble or f'live options are off: {one.disabled}'}"
        for one in live.ranks
        if one.trouble or one.disabled
    ]
    return "; ".join(words)


async def _in_thread(write: Callable[[], None]) -> None:
    """Run a file write in a thread, so that it does not block the screen.

    Returns after the write even if it is cancelled: a later write must not overtake this one.
    """
    task = asyncio.create_task(asyncio.to_thread(write))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        with suppress(LlmtopError):
            await task
        raise
