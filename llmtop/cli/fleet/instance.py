"""One instance of the fleet: its dashboard from the Prometheus, or llmtop on its host."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmtop import LlmtopError
from llmtop.cli.screen.screen_options import ScreenFlags
from llmtop.engines.core.endpoint import Endpoint
from llmtop.engines.core.samples import GpuSample
from llmtop.engines.gpu.devices import Gpus
from llmtop.engines.metrics.window import Window
from llmtop.engines.registry import ADAPTERS
from llmtop.fleet.instances import RATE_S, WINDOW_S
from llmtop.fleet.targets import host_of, port_of
from llmtop.operations.session import EngineSession
from llmtop.operations.wiring import Wiring
from llmtop.values import replace

if TYPE_CHECKING:
    from llmtop.engines.core.adapter import Reader
    from llmtop.engines.metrics.scraper import Fetch
    from llmtop.fleet.instances import Instance
    from llmtop.tui.store.store import Store

NOT_SHOWN = (1, 2)  # exit codes of an llmtop that cannot show an engine
LEAST_INTERVAL_S = 2.0  # a Prometheus scrapes less often than this, so faster queries are useless


class OtherGpus(Gpus):
    """The GPUs of another machine, which cannot be read here."""

    def read(self, *, fresh: bool = False) -> tuple[GpuSample, ...]:
        """Return no GPU, and set the note that explains it."""
        self.note = "the GPUs are in another machine: see the fleet's table"
        return ()


class InstanceWiring(Wiring):
    """The parts of a dashboard whose numbers come from a Prometheus."""

    reaches_engines = False

    def screen_gpus(self) -> Gpus:
        """No GPUs: those of this machine would be mistaken for the instance's."""
        return OtherGpus()

    def session(
        self, endpoint: Endpoint, window: Window | None = None, *args: Any, **more: Any
    ) -> EngineSession:
        """A session with a window that is longer than the usual scrape interval."""
        window = window or Window(WINDOW_S, RATE_S)
        return InstanceSession(endpoint, self.fetch, window=window, who=self.who)


class InstanceSession(EngineSession):
    """A session that never contacts the engine itself."""

    @property
    def why_not_live(self) -> str:
        """Why no options are shown, and the command that shows them."""
        return f"seen through a Prometheus; options: llmtop ssh://{self.host}"

    @property
    def host(self) -> str:
        """The host in the address of the instance."""
        return host_of(self.endpoint.url)


def endpoint_of(url: str, instance: Instance) -> Endpoint:
    """The instance as an endpoint for the dashboard. url: of the Prometheus."""
    adapter = ADAPTERS[instance.engine]
    address = instance.labels.get("instance", "")

    def make_reader(_: str, fetch: Fetch, locks: Path | None) -> Reader:
        from llmtop.cli.fleet.fleet import open_server
        from llmtop.fleet.single import PrometheusReader

        return PrometheusReader(open_server(url), adapter, instance.labels)

    # No live options over HTTP: they must be changed at the engine, not through a Prometheus.
    own = replace(adapter, make_reader=make_reader, stock_live=None)
    return Endpoint(
        name=instance.instance,
        adapter=own,
        url=f"http://{address}" if "//" not in address else address,
        model=instance.model,
        version=instance.version,
    )


def show_instance(url: str, instance: Instance, screen: ScreenFlags) -> None:
    """Show the dashboard of an instance until the user quits. url: of the Prometheus."""
    from llmtop.cli.fleet.fleet import open_server
    from llmtop.cli.screen import dashboard
    from llmtop.fleet.single import past

    if instance.engine not in ADAPTERS:
        return
    endpoint = endpoint_of(url, instance)

    async def fill(store: Store) -> None:
        server = open_server(url)
        try:
            points = await past(server, ADAPTERS[instance.engine], instance.labels, time.time())
        finally:
            await server.close()
        track = store.engines[endpoint.name]
        for at, values in points:
            for name, value in values.items():
                track.record(name, at, value)

    dashboard.show(
        InstanceWiring(),
        endpoints=[endpoint],
        select=endpoint.name,
        screen=replace(screen, interval=max(screen.interval, LEAST_INTERVAL_S)),
        fill=fill,
        alerts=False,  # the alerts of the file are about engines of this machine
        elsewhere=instance.host,
    )


def show_through_ssh(instance: Instance, environ: Mapping[str, str] | None = None) -> str:
    """Show the instance with llmtop on its host over ssh; if that fails, the host's dashboard.

    Returns the error, "" for none.
    """
    from llmtop.fleet.ssh import destination, run_there

    port = port_of(instance.labels.get("instance", ""))
    try:
        where = destination(instance.host)
        if port is None:
            return _ended(instance, run_there(where, [], terminal=True, environ=environ))
        code = run_there(where, ["attach", f":{port}"], terminal=True, environ=environ)
        if code not in NOT_SHOWN:
            return _ended(instance, code)
        # The engine listens at another address, needs an API key, or is behind a proxy.
        code = run_there(where, [], terminal=True, environ=environ)
    except LlmtopError as error:
        return f"{instance.host}: {error.message}"
    return _ended(instance, code) or f"llmtop on {instance.host} found no engine at :{port}"


def _ended(instance: Instance, code: int) -> str:
    return f"llmtop on {instance.host} ended with {code}" if code else ""
