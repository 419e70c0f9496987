"""Creates the real objects from the environment, for the commands and the screen.

Only this module and the command line read the environment. Other modules receive values.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from platformdirs import user_config_path

from llmtop import UsageError
from llmtop.engines.core.endpoint import Endpoint
from llmtop.engines.core.options import Applies
from llmtop.engines.gpu.devices import Gpus
from llmtop.engines.gpu.memory_guard import GpuMemory
from llmtop.engines.host.processes import Processes, identity
from llmtop.engines.metrics.detection import recognise, same_server
from llmtop.engines.metrics.scraper import HttpFetch
from llmtop.engines.registry import ADAPTERS, adapter_named
from llmtop.engines.state.sightings import Sightings
from llmtop.engines.state.state_directory import StateDirectory
from llmtop.engines.state.temporary_changes import TemporaryChanges
from llmtop.engines.supervision.supervisor import Supervisor
from llmtop.engines.tuning.front_ends import WithFrontEnds
from llmtop.engines.tuning.live_client import LiveClient
from llmtop.engines.tuning.live_exchange import TIMEOUT_S
from llmtop.engines.tuning.live_ranks import RankedLive
from llmtop.operations.inside import inside_of
from llmtop.operations.recorder_process import RecorderKeeper
from llmtop.operations.session import EngineSession
from llmtop.trust import Trust, Trusts, from_environment

if TYPE_CHECKING:
    from llmtop.engines.core.adapter import Live
    from llmtop.engines.core.records import EngineRecord, EngineStatus
    from llmtop.engines.metrics.window import Window
    from llmtop.engines.supervision.restart import HandOver, OnPhase, Restarted, Wanted

_T = TypeVar("_T")

CACERT = "llmtop.cacert"  # key of --cacert in click's context


def fresh_seed() -> int:
    """A random seed of 32 bits. A new seed makes prompts that no prefix cache contains."""
    return int.from_bytes(os.urandom(4))


class Wiring:
    """Creates the supervisor, scrapers and clients. Each command creates one Wiring.

    reaches_engines: False if the metrics come from a Prometheus, so that no recorder can read them.
    """

    reaches_engines = True

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self.environ = dict(os.environ if environ is None else environ)
        # Read it here, because click's context exists only in the command's thread. A process
        # without a command line does not import click.
        click = sys.modules.get("click")
        context = click.get_current_context(silent=True) if click is not None else None
        self._cacert: str = context.meta.get(CACERT, "") if context is not None else ""

    @cached_property
    def state(self) -> StateDirectory:
        """The state directory of this user. Raises ForeignState when it belongs to another user."""
        state = StateDirectory()
        state.refuse_strangers()
        return state

    @property
    def history(self) -> Path:
        """The folder of the history of the engines on this machine."""
        return self.state.root / "history"

    @cached_property
    def recorder(self) -> RecorderKeeper:
        """Starts the history recorder when needed."""
        return RecorderKeeper(self.history, self.environ)

    @cached_property
    def supervisor(self) -> Supervisor:
        """The owner of engine processes, on this user's state directory."""
        return Supervisor(
            self.state,
            ADAPTERS,
            environ=self.environ,
            processes=self.processes,
            gpu_memory=self.gpu_memory,
            trusts=self.trusts,
            launched=self.recorder.ensure_running,
        )

    @cached_property
    def sightings(self) -> Sightings:
        """The latest observations of engines by screens."""
        return Sightings(self.state)

    @cached_property
    def trusts(self) -> Trusts:
        """The certificates that encrypted connections trust, from --cacert or SSL_CERT_FILE."""
        return from_environment(self.environ, self._cacert)

    def trust(self, url: str) -> Trust:
        """The certificates that a connection to this URL trusts.

        For an engine that llmtop started, this includes the engine's own certificate.
        """
        if url.startswith("https:"):
            for record in self.supervisor.records():
                if record.ended_at is None:
                    self.trusts.pin(record.url, record.certificate)
        return self.trusts.of(url)

    @cached_property
    def temporary_changes(self) -> TemporaryChanges:
        """The options that a comparison, a tour, a tune or a hold has changed temporarily."""
        return TemporaryChanges(
            self.state,
            self.processes,
            lambda record: adapter_named(record.spec.kind).launch_options(record.spec.args),
        )

    def status(self, record: EngineRecord) -> EngineStatus:
        """The current status of an engine, with the options that a killed llmtop left changed."""
        return self.sightings.annotate(
            self.temporary_changes.status(self.supervisor.status(record))
        )

    def restart(
        self,
        record: EngineRecord,
        wanted: Wanted,
        hand_over: HandOver | None = None,
        *,
        ready_timeout_s: float | None = None,
        on_phase: OnPhase | None = None,
    ) -> Restarted:
        """Restart an engine for a user. Options that a killed llmtop left changed are settled.

        It blocks and raises as ``engines.supervision.restart.carry_out`` does.
        """
        from llmtop.engines.supervision.restart import READY_TIMEOUT_S, carry_out

        self.temporary_changes.starting(record)
        done = carry_out(
            self.supervisor,
            record,
            wanted,
            hand_over,
            ready_timeout_s=READY_TIMEOUT_S if ready_timeout_s is None else ready_timeout_s,
            on_phase=on_phase,
        )
        if done.rolled_back:
            self.temporary_changes.observe(done.record, {})
        else:
            self.temporary_changes.settle(done.record)
        return done

    def age_s(self, record: EngineRecord) -> float:
        """Seconds since the start of an engine; for a running one by CLOCK_BOOTTIME."""
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
        """The GPUs, for single queries. The screen has its own, which it reads periodically."""
        return Gpus()

    def screen_gpus(self) -> Gpus:
        """The GPUs that a dashboard shows."""
        return Gpus(rare_energy=True)

    @cached_property
    def gpu_memory(self) -> GpuMemory:
        """Reports which processes hold GPU memory."""
        return GpuMemory(self.gpus, self.processes)

    @cached_property
    def fetch(self) -> HttpFetch:
        """The HTTP client for all scrapes. It sends LLMTOP_API_KEY."""
        return HttpFetch(api_key=self.api_key, trusts=self.trusts)

    async def ask(self, question: Callable[[HttpFetch], Awaitable[_T]]) -> _T:
        """Run one query with the HTTP client, and close its connections afterwards."""
        try:
            return await question(self.fetch)
        finally:
            await self.fetch.close()

    @property
    def api_key(self) -> str:
        """LLMTOP_API_KEY, sent to engines as a bearer token and never shown.

        Raises UsageError for characters that an HTTP header cannot contain.
        """
        return self._key("LLMTOP_API_KEY")

    @property
    def admin_key(self) -> str:
        """LLMTOP_ADMIN_API_KEY: the key for changes of options of an SGLang with two keys."""
        return self._key("LLMTOP_ADMIN_API_KEY")

    def _key(self, variable: str) -> str:
        key = self.environ.get(variable, "")
        if not (key.isascii() and key.isprintable()):
            # The message does not contain the value, because it is a secret.
            raise UsageError(f"{variable} contains a character that is invalid in an HTTP header")
        return key

    def key_for(self, endpoint: Endpoint) -> str:
        """The API key for an engine: LLMTOP_API_KEY, else the one in the engine's key file."""
        path = endpoint.record.spec.api_key_file if endpoint.record is not None else ""
        if self.api_key or not path:
            return self.api_key
        from llmtop.config.engines import read_key

        return read_key(path)

    def gpu_count(self) -> int:
        """The number of GPUs of this machine, without MIG instances; 0 if unknown."""
        from llmtop.engines.gpu.devices import Gpus

        gpus = Gpus()
        try:
            return sum(gpu.mig_of is None for gpu in gpus.read())
        finally:
            gpus.close()

    @property
    def themes_folder(self) -> Path:
        """The folder of the operator's themes."""
        return user_config_path("llmtop") / "themes"

    @cached_property
    def who(self) -> str:
        """The user and terminal of this llmtop, for the event lists of other screens."""
        import getpass

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
        """Whether an argument is an address and not an engine's name.

        A number is a port of this machine, unless it is the name of an engine.
        """
        if re.fullmatch("[0-9]{2,5}", text):
            return text not in self.supervisor.names
        return ":" in text or "/" in text

    def owned(self, name: str) -> Endpoint:
        """An engine that llmtop started, by name. Raises UsageError when there is none."""
        return self.of(self.supervisor.find(name))

    def of(self, record: EngineRecord) -> Endpoint:
        """An engine that llmtop started, by its record."""
        self.trusts.pin(record.url, record.certificate)
        return Endpoint(
            name=record.name,
            adapter=adapter_named(record.spec.kind),
            url=record.url,
            model=record.spec.model,
            version=record.version,
            record=record,
        )

    async def endpoint(self, name_or_url: str) -> Endpoint:
        """The engine of a name or at a URL.

        Raises UsageError for an unknown name or an unsupported engine, LlmtopError when no engine
        answers at the URL.
        """
        if not self.is_url(name_or_url):
            return self.owned(name_or_url)
        self.trust(name_or_url)
        found = await recognise(name_or_url, self.fetch)
        if found.kind not in ADAPTERS:
            raise UsageError(
                f"{found.url} answers as {found.kind}, which this version does not support",
                "supported engines: " + ", ".join(ADAPTERS),
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

    def session(
        self,
        endpoint: Endpoint,
        window: Window | None = None,
        live_timeout_s: float = TIMEOUT_S,
    ) -> EngineSession:
        """Create a session with one engine.

        live_timeout_s: longest wait for an answer of its live-option socket.
        """
        changeable = any(o.applies is not Applies.RESTART for o in endpoint.adapter.options)
        path = endpoint.live_socket if changeable else None
        stock = endpoint.adapter.stock_live
        client = partial(LiveClient, timeout_s=live_timeout_s)
        live: Live | None = None
        if stock is not None and endpoint.by_http:
            key = self.admin_key or self.key_for(endpoint)
            live = stock(endpoint.url, key, self.trust(endpoint.url))
        elif path is not None:
            live = RankedLive(path, endpoint.live_ranks, client)
        if live is not None and path is not None:
            live = WithFrontEnds(live, path, client)
        return EngineSession(
            endpoint,
            self.fetch,
            live=live,
            window=window,
            who=self.who,
            locks=self.state.locks,
            temporary_changes=self.temporary_changes,
            inside=inside_of(endpoint, live_timeout_s),
        )
