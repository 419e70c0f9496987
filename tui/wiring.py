"""The real parts, made from the environment once: what verbs and the screen are built on.

Nothing below the command line reads the environment; it is read here and handed down.
"""

from __future__ import annotations

import getpass
import os
import re
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from platformdirs import user_config_path

from llmtop import UsageError
from llmtop.engines.catalog import ADAPTERS, adapter_named
from llmtop.engines.endpoint import Endpoint
from llmtop.engines.gpu import Gpus
from llmtop.engines.gpu_memory import GpuMemory
from llmtop.engines.live import LiveClient
from llmtop.engines.loans import Loans
from llmtop.engines.options import Applies
from llmtop.engines.processes import Processes
from llmtop.engines.recognise import recognise, same_server
from llmtop.engines.scraper import HttpFetch
from llmtop.engines.state import StateDirectory
from llmtop.engines.supervisor import Supervisor
from llmtop.engines.watch import identity
from llmtop.tui.session import EngineSession

if TYPE_CHECKING:
    from llmtop.engines.adapter import Live
    from llmtop.engines.records import EngineRecord, EngineStatus
    from llmtop.engines.restart import HandOver, OnPhase, Restarted, Wanted
    from llmtop.engines.window import Window

_T = TypeVar("_T")


def fresh_seed() -> int:
    """A seed that was not used before, so that no prompt was seen before by the engine's cache."""
    return int.from_bytes(os.urandom(4))


class Wiring:
    """Builds the supervisor, scrapers and clients; every verb makes one."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self.environ = dict(os.environ if environ is None else environ)

    @cached_property
    def state(self) -> StateDirectory:
        """Where engines are remembered, this user's own."""
        return StateDirectory()

    @cached_property
    def supervisor(self) -> Supervisor:
        """The owner of engine processes, on this user's state directory."""
        return Supervisor(
            self.state,
            ADAPTERS,
            environ=self.environ,
            processes=self.processes,
            gpu_memory=self.gpu_memory,
        )

    @cached_property
    def loans(self) -> Loans:
        """The options that a comparison or a tour has changed for a while."""
        return Loans(
            self.state,
            self.processes,
            lambda record: adapter_named(record.spec.kind).launch_options(record.spec.args),
        )

    def status(self, record: EngineRecord) -> EngineStatus:
        """What is true of an engine now, and what a killed llmtop left changed on it."""
        return self.loans.status(self.supervisor.status(record))

    def restart(
        self,
        record: EngineRecord,
        wanted: Wanted,
        hand_over: HandOver | None = None,
        *,
        ready_timeout_s: float | None = None,
        on_phase: OnPhase | None = None,
    ) -> Restarted:
        """Restart an engine because somebody said so; what a killed llmtop left on it is settled.

        As ``engines.restart.carry_out``, which blocks.
        """
        from llmtop.engines.restart import READY_TIMEOUT_S, carry_out

        self.loans.starting(record)
        done = carry_out(
            self.supervisor,
            record,
            wanted,
            hand_over,
            ready_timeout_s=READY_TIMEOUT_S if ready_timeout_s is None else ready_timeout_s,
            on_phase=on_phase,
        )
        if done.rolled_back:
            self.loans.told(done.record, {})
        else:
            self.loans.settle(done.record)
        return done

    def age_s(self, record: EngineRecord) -> float:
        """Seconds since an engine was started: of a living one by the clock that nobody sets."""
        leader = identity(record)
        if self.processes.alive(leader):
            return self.processes.age_s(leader)
        return max(0.0, time.time() - record.started_at)

    @cached_property
    def processes(self) -> Processes:
        """The processes of this machine."""
        return Processes()

    @cached_property
    def gpus(self) -> Gpus:
        """The GPUs, for what is asked once; the screen has its own, on its own beat."""
        return Gpus()

    @cached_property
    def gpu_memory(self) -> GpuMemory:
        """Who holds GPU memory."""
        return GpuMemory(self.gpus, self.processes)

    @cached_property
    def fetch(self) -> HttpFetch:
        """One HTTP client for all scrapes. The key is for engines that want one."""
        return HttpFetch(api_key=self.api_key)

    async def ask(self, question: Callable[[HttpFetch], Awaitable[_T]]) -> _T:
        """Ask an engine one thing and close the connection behind it."""
        try:
            return await question(self.fetch)
        finally:
            await self.fetch.close()

    @property
    def api_key(self) -> str:
        """LLMTOP_API_KEY: sent to engines as a bearer token, never shown."""
        key = self.environ.get("LLMTOP_API_KEY", "")
        if not (key.isascii() and key.isprintable()):
            # Not repeated: it is a secret all the same.
            raise UsageError("LLMTOP_API_KEY holds a character that no HTTP header can carry")
        return key

    def key_for(self, endpoint: Endpoint) -> str:
        """The API key for an engine: LLMTOP_API_KEY, else the one in the file that it was given."""
        path = endpoint.record.spec.api_key_file if endpoint.record is not None else ""
        if self.api_key or not path:
            return self.api_key
        from llmtop.tui.config.engines import read_key

        return read_key(path)

    def gpu_count(self) -> int:
        """How many GPUs this machine has; 0 when none tell."""
        from llmtop.engines.gpu import Gpus

        gpus = Gpus()
        try:
            return sum(gpu.mig_of is None for gpu in gpus.read())
        finally:
            gpus.close()

    @property
    def themes_folder(self) -> Path:
        """Where the operator's own themes are."""
        return user_config_path("llmtop") / "themes"

    @cached_property
    def who(self) -> str:
        """Who asks, for the event list of everybody who watches: user@terminal."""
        try:
            user = getpass.getuser()
        except (KeyError, OSError):
            user = str(os.getuid())
        try:
            where = os.ttyname(sys.stdin.fileno()).removeprefix("/dev/")
        except (OSError, ValueError):
            where = f"pid {os.getpid()}"
        return f"{user}@{where}"

    def is_url(self, text: str) -> bool:
        """Whether an argument is meant as an address and not as an engine's name.

        A number is a port of this machine, unless an engine was given it for its name.
        """
        if re.fullmatch("[0-9]{2,5}", text):
            return text not in self.supervisor.names
        return ":" in text or "/" in text

    def owned(self, name: str) -> Endpoint:
        """An engine that llmtop started, by name. UsageError when there is none."""
        return self.of(self.supervisor.find(name))

    def of(self, record: EngineRecord) -> Endpoint:
        """An engine that llmtop started, by its record."""
        return Endpoint(
            name=record.name,
            adapter=adapter_named(record.spec.kind),
            url=record.url,
            model=record.spec.model,
            version=record.version,
            record=record,
        )

    async def endpoint(self, name_or_url: str) -> Endpoint:
        """An engine by name, or whatever answers at a URL."""
        if not self.is_url(name_or_url):
            return self.owned(name_or_url)
        found = await recognise(name_or_url, self.fetch)
        if found.kind not in ADAPTERS:
            raise UsageError(
                f"{found.url} answers, but as {found.kind}, which this version cannot read",
                "it reads " + ", ".join(ADAPTERS),
            )
        for record in self.supervisor.records():
            if same_server(record.url, found.url) and record.ended_at is None:
                return self.owned(record.name)
        return Endpoint(
            name=found.url.removeprefix("http://"),
            adapter=ADAPTERS[found.kind],
            url=found.url,
            model=found.model,
            version=found.version,
        )

    def session(self, endpoint: Endpoint, window: Window | None = None) -> EngineSession:
        """All that it takes to read and change an engine, on real sockets."""
        changeable = any(o.applies is not Applies.RESTART for o in endpoint.adapter.options)
        path = endpoint.live_socket if changeable else None
        stock = endpoint.adapter.stock_live
        live: Live | None = None
        if stock is not None and endpoint.by_http:
            live = stock(endpoint.url, self.key_for(endpoint))
        elif path is not None:
            live = LiveClient(path)
        return EngineSession(
            endpoint,
            self.fetch,
            live=live,
            window=window,
            who=self.who,
            locks=self.state.locks,
            loans=self.loans,
        )
