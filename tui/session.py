"""One engine, with all that it takes to read and change it. Used by verbs and by the screen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from msgspec import Struct

from llmtop import LlmtopError
from llmtop.engines import settings
from llmtop.engines.adapter import Live
from llmtop.engines.effective import read_effective
from llmtop.engines.endpoint import Endpoint
from llmtop.engines.evictions import Evictions
from llmtop.engines.live import LiveState
from llmtop.engines.loans import Loans, Purpose
from llmtop.engines.options import Applies, Change, Option, OptionValue, Outcome
from llmtop.engines.recognise import version_of
from llmtop.engines.samples import EngineSample
from llmtop.engines.scraper import Fetch, open_reader
from llmtop.engines.window import Window

DRAIN_BEAT_S = 0.2
NOT_OURS = "llmtop did not start it, so its launch values are not known"
NO_SOCKET = "the engine does not answer on its live-option socket"
NO_STOCK = "the engine does not tell which options it can change"


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
        loans: Loans | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.live = live
        self.window = window or Window()
        self.who = who
        self._fetch = fetch
        self._loans = loans
        self._reader = open_reader(endpoint.adapter, endpoint.url, fetch, locks)
        self._evictions = Evictions(live)
        self._effective: Mapping[str, OptionValue] = {}
        self._effective_of: float | None = None

    async def sample(self) -> EngineSample:
        """Scrape once and say what the window up to now holds. ScrapeError when it cannot."""
        return self.window.add(await self._evictions.out_of(await self._reader.read()))

    @property
    def why_not_live(self) -> str:
        """Why there is no live-option socket to ask."""
        title = self.endpoint.adapter.title
        if all(spec.applies is Applies.RESTART for spec in self.endpoint.adapter.options):
            never = f"{title} changes no option while it runs"
            return never if self.endpoint.owned else f"{NOT_OURS}; {never}"
        return f"{NOT_OURS}; {title} changes options as it runs only where llmtop started it"

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
        """The version that the engine itself tells; None when it does not."""
        return await version_of(self.endpoint.url, self._fetch)

    def assemble(self, live: LiveState | None) -> tuple[Option, ...]:
        """The options as they stand, given what the engine said last."""
        adapter, record = self.endpoint.adapter, self.endpoint.record
        launch: Mapping[str, OptionValue] = {}
        if record is not None:
            launch = {**adapter.launch_options(record.spec.args), **self._effective}
        return settings.assemble(adapter.options, launch, live, known=record is not None)

    async def look(self) -> Options:
        """Ask for the options as they stand. Raises nothing: why there is no answer is in it."""
        await self._learn_effective()
        if self.live is None:
            return Options(self.assemble(None), self.why_not_live)
        try:
            live = await self.live.get()
        except LlmtopError as error:
            silent = NO_STOCK if self.endpoint.by_http else NO_SOCKET
            return Options(self.assemble(None), f"{silent}: {error.message}")
        why_not = f"live options are off: {live.disabled}" if live.disabled else ""
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
        found = await self.look()
        return found.options, found.why_not

    async def change(
        self,
        wanted: Mapping[str, OptionValue],
        *,
        evict: bool = False,
        purpose: Purpose | None = None,
    ) -> tuple[Change, ...]:
        """Ask for changes; each gets its outcome, in the order asked.

        What cannot be asked of the running engine is refused here, with the reason, and the rest
        is sent. LiveError when the engine does not answer. purpose: what they are changed for, when
        that is for a while; it is written down first (LlmtopError where that cannot be), in case
        nobody is left to put them back.
        """
        options, why_not = await self.options()
        outcomes: dict[str, Change] = {}
        ask: dict[str, int] = {}
        for name, value in wanted.items():
            option = settings.find(options, name)
            reason = settings.refusal(option, value)
            if reason and self.live is None and not self.endpoint.owned:
                reason = f"it cannot be changed from here: {why_not}"
            elif reason and why_not:
                reason = f"{reason}; {why_not}"
            if reason:
                outcomes[name] = settings.refused(option, value, reason, self.who)
            elif isinstance(value, int):
                ask[name] = value
        if ask and self.live is not None:
            loans, record = self._loans, self.endpoint.record
            if loans is not None and record is not None and purpose is not None:
                await _aside(partial(loans.lend, record, purpose, ask))
            for change in await self.live.set(ask, evict=evict, by=self.who):
                outcomes[change.option] = change
            if loans is not None and record is not None:
                now = {
                    name: change.before if change.outcome is Outcome.REFUSED else change.after
                    for name, change in outcomes.items()
                    if name in ask
                }
                if purpose is not None:
                    await _aside(partial(loans.told, record, now))
                else:
                    chosen = [n for n in now if outcomes[n].outcome is not Outcome.REFUSED]
                    await _aside(partial(loans.settle, record, chosen))
        return tuple(outcomes[name] for name in wanted if name in outcomes)

    @property
    def note(self) -> str:
        """What cannot be read from this engine just now and why, "" when all is well."""
        return self._reader.note

    async def close(self) -> None:
        """Give the sockets back."""
        await self._reader.close()
        if self.live is not None:
            await self.live.close()


async def _aside(write: Callable[[], None]) -> None:
    """Wait for a disk without holding the screen up. It is over when this is, cancelled or not:
    what is written next must not be overtaken."""
    task = asyncio.create_task(asyncio.to_thread(write))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        with suppress(LlmtopError):
            await task
        raise
