"""The process of the simulator: its start, its service and its shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import time
import traceback
from collections.abc import Coroutine, Mapping

from aiohttp import web

from llmtop.engines.simulated.simulator.arguments import Config
from llmtop.engines.simulated.simulator.http.metrics import CacheFacts, Metrics
from llmtop.engines.simulated.simulator.http.protocol import Rules
from llmtop.engines.simulated.simulator.http.ranks import Ranks, Sockets
from llmtop.engines.simulated.simulator.http.server import Server
from llmtop.engines.simulated.simulator.inside.introspection import SimulatorIntrospection
from llmtop.engines.simulated.simulator.model.blocks import BlockPool
from llmtop.engines.simulated.simulator.model.engine import REPORT_EVERY_S, Engine, Slowness
from llmtop.engines.simulated.simulator.model.hardware import BLOCK_SIZE
from llmtop.engines.simulated.simulator.model.live_options import LiveOptions
from llmtop.engines.simulated.simulator.model.log import log
from llmtop.engines.simulated.simulator.model.roofline import Roofline
from llmtop.engines.simulated.simulator.model.scheduler import Scheduler
from llmtop.engines.simulated.simulator.model.telemetry import Telemetry
from llmtop.engines.simulated.simulator.startup import StartFailed, log_configuration, start
from llmtop.engines.tuning.inside.llmtop_live.introspection import Introspection

SOCKET_VARIABLE = "LLMTOP_LIVE_SOCKET"
API_KEY_VARIABLE = "LLMTOP_SIMULATOR_API_KEY"  # not vLLM's, which may be set for a real vLLM
SHUTDOWN_TIMEOUT_S = 0.05  # short, because handlers get no more tokens after the engine's stop
BACKLOG = 2048
LIVE_FAULTS = ("live-mute", "live-nonsense", "live-old", "live-half")


async def serve(config: Config, environ: Mapping[str, str]) -> int:
    """Start, serve until SIGTERM or SIGINT, and stop. Returns the exit code."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    log_configuration(config)
    try:
        listener = _bind(config.host, config.port)
    except OSError as error:
        log(f"OSError: {error} ({config.host}:{config.port})", "ERROR")
        return 1
    with listener:
        try:
            blocks = await _result_unless_stopped(stop, start(config))
        except StartFailed as error:
            log(str(error), "ERROR")
            log("RuntimeError: Engine core initialization failed. See root cause above.", "ERROR")
            return 1
        if blocks is None:
            return 0
        return await _run(config, environ, listener, blocks, stop)


async def _run(
    config: Config,
    environ: Mapping[str, str],
    listener: socket.socket,
    blocks: int,
    stop: asyncio.Event,
) -> int:
    ranks = Ranks([_engine(config, blocks, rank) for rank in range(config.data_parallel)])
    cache = CacheFacts(config.utilization, config.blocks, config.max_model_len)
    metrics = Metrics(config.served_name, ranks.engines, cache, time.time())
    rules = Rules(config.served_name, config.max_model_len, config.model.vocabulary)
    misbehaviours = config.misbehaviours
    rng, api_key = random.Random(config.seed + 1), environ.get(API_KEY_VARIABLE, "")
    server = Server(ranks, metrics, rules, rng, misbehaviours, api_key)
    runner = web.AppRunner(
        server.application(),
        handler_cancellation=True,  # frees the blocks of a client that disconnects
        access_log=None,
        shutdown_timeout=SHUTDOWN_TIMEOUT_S,
    )
    await runner.setup()
    site = web.SockSite(runner, listener, backlog=BACKLOG)
    live = Sockets(ranks, _introspections(ranks), _socket_faults(config))
    if path := environ.get(SOCKET_VARIABLE):
        await live.open(path)
    stepping = asyncio.create_task(ranks.run())
    stepping.add_done_callback(lambda _: stop.set())
    reporting = asyncio.create_task(_report(ranks))
    # Connections inherit it. Without it they would block the port for a minute after the end.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    await site.start()
    host, port = listener.getsockname()[:2]
    log(f"Serving on http://{host}:{port}")
    log("Application startup complete.")
    _schedule_faults(config, site)

    await stop.wait()
    failed = stepping.done()
    if failed:  # the engine has died: log its exception
        with contextlib.suppress(asyncio.CancelledError):
            if error := stepping.exception():
                log("".join(traceback.format_exception(error)), "ERROR")
    log("Shutting down")
    stepping.cancel()
    reporting.cancel()
    await live.close()
    if "stubborn" in misbehaviours and not server.idle.is_set():
        log("Waiting for connections to close.")
        await site.stop()
        await server.idle.wait()
    await runner.cleanup()
    return 1 if failed else 0


def _socket_faults(config: Config) -> list[str]:
    """The fault of each rank's live-option socket, "" for none."""
    wanted = config.misbehaviours
    every = next((kind for kind in LIVE_FAULTS if kind in wanted), "")
    last = "live-mute" if "rank-mute" in wanted else every
    return [*[every] * (config.data_parallel - 1), last]


def _engine(config: Config, blocks: int, rank: int) -> Engine:
    method = config.speculation.method if config.speculation else ""
    scheduler = Scheduler(
        config.limits,
        BlockPool(blocks, BLOCK_SIZE, config.caching),
        random.Random(config.seed + 1000 * rank),
        config.speculation,
        asynchronous=method != "ngram",
    )
    roofline = Roofline.of(config.gpu, config.model, config.tensor_parallel, method)
    live = LiveOptions(scheduler)
    if "rank-off" in config.misbehaviours and rank == config.data_parallel - 1:
        live.disabled = "switched off on this rank (--misbehave)"
    slow = (config.misbehaviours.get(kind) for kind in ("slow-host", "slow-front"))
    slowness = Slowness(*(found.seconds if found else 0.0 for found in slow))
    return Engine(scheduler, roofline, live, Telemetry(), config.speed, slowness=slowness)


def _introspections(ranks: Ranks) -> list[Introspection]:
    found = []
    for rank, engine in enumerate(ranks.engines):
        engine.observer = observer = SimulatorIntrospection(engine, rank)
        found.append(observer.introspection)
    return found


def _bind(host: str, port: int) -> socket.socket:
    """A bound socket that does not listen yet: it reserves the port and refuses connections.

    The first attempt is without SO_REUSEADDR: with it, Linux lets two sockets bind one address if
    neither listens yet. The second attempt has it, for connections of an earlier engine that remain
    in TIME_WAIT. Raises OSError.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    for shared in (False, True):
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, shared)
            listener.bind(address)
        except OSError:
            listener.close()
            if shared:
                raise
        else:
            break
    return listener


async def _result_unless_stopped(
    stop: asyncio.Event, work: Coroutine[None, None, int]
) -> int | None:
    """The result of a coroutine; None if the stop came first."""
    task = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if task.done():
        return task.result()
    task.cancel()
    return None


async def _report(ranks: Ranks) -> None:
    while True:
        await asyncio.sleep(REPORT_EVERY_S)
        ranks.report()


def _schedule_faults(config: Config, site: web.SockSite) -> None:
    loop = asyncio.get_running_loop()
    refusing: set[asyncio.Task[None]] = set()
    for kind, act in (
        ("crash", _crash),
        ("hang", _hang),
        ("refuse", lambda: refusing.add(asyncio.ensure_future(site.stop()))),
    ):
        if fault := config.misbehaviours.get(kind):
            loop.call_later(fault.seconds, act)


def _crash() -> None:
    log("EngineDeadError: EngineCore died unexpectedly (simulated)", "ERROR")
    os._exit(1)


def _hang() -> None:
    while True:  # blocks the signal handlers too, so only SIGKILL ends it
        time.sleep(3600)
