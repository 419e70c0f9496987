"""Shared by the commands that send load: the target, its requests, and the user's consent."""

from __future__ import annotations

import asyncio
import select
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click
from msgspec import Struct

from llmtop import LlmtopError, UsageError
from llmtop.cli.common.configured import config_flag
from llmtop.cli.common.output import note
from llmtop.cli.common.param_types import TIMEOUT
from llmtop.cli.common.status_line import StatusLine, soon
from llmtop.cli.engines.running import require_running
from llmtop.cli.load.prompting import exact_answers, prompt_options, prompts_of
from llmtop.cli.screen.background_recording import recorded
from llmtop.loadgen.workload.plan import Prompts, Target
from llmtop.operations.shared_load import LoadNotices

if TYPE_CHECKING:
    from llmtop.config.file import Config
    from llmtop.engines.core.endpoint import Endpoint
    from llmtop.engines.core.records import EngineRecord
    from llmtop.engines.gpu.energy import EngineEnergy
    from llmtop.loadgen.core.client_capacity import Calibration
    from llmtop.loadgen.core.results import LoadSnapshot, RequestRecord
    from llmtop.loadgen.experiments.level import LoadClock
    from llmtop.loadgen.workers.load import Load
    from llmtop.operations.wiring import Wiring
    from llmtop.trust import Trust

POLL_S = 0.1
# With ignore_eos, SGLang's admission reserves memory for all output tokens of a request.
RESERVED = (
    "answers cannot end early (ignore_eos), so SGLang reserves memory for the full length:"
    " this load never causes a retraction; use --natural-end to allow one"
)


calibrate_option = click.option(
    "--calibrate/--no-calibrate",
    "recalibrate",
    default=None,
    help="Measure the capacity of this client again, or skip it (default: once an hour).",
)


report_option = click.option(
    "--report",
    "report_file",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write a report of the result: .html, .md, .json or .csv.",
)


class RequestOptions(Struct, frozen=True):
    """How requests are made: the options that these commands share. workers: processes."""

    prompts: Prompts
    model: str | None
    workers: int | None
    timeout_s: float
    yes: bool


class LoadTarget(Struct, frozen=True):
    """The engine that receives the load. endpoint: None for a URL that llmtop does not know.

    engine: its identity; a restart changes it. notes: what its kind means for the load.
    on_snapshot: receives the state of the load once a second; None: nobody needs it.
    """

    name: str
    target: Target
    simulated: bool
    endpoint: Endpoint | None
    engine: str = ""
    notes: tuple[str, ...] = ()
    on_snapshot: Callable[[LoadSnapshot], None] | None = None


def request_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the shared options to a command; ``request_options`` converts them."""
    for option in (
        config_flag,
        click.option("--yes", is_flag=True, help="Do not ask for confirmation."),
        click.option(
            "--timeout",
            default=120.0,
            show_default=True,
            type=TIMEOUT,
            help="Timeout of one request.",
        ),
        click.option(
            "--workers",
            type=click.IntRange(1, 64),
            help="Number of load processes (default: spare cores).",
        ),
        prompt_options,
    ):
        function = option(function)
    return function


def request_options(params: dict[str, Any], config: Config, target: str) -> RequestOptions:
    """Convert the shared options. Options override those of a named set of prompts.

    target: the engine's name; its table in the file may name the prompts. Raises UsageError.
    """
    if params["timeout"] <= 0:
        raise UsageError("--timeout must be more than 0 seconds")
    prompts = prompts_of(params, config, target)
    if prompts.think_s != (0.0, 0.0):
        raise UsageError(
            "think time reduces the streams in flight, so a level cannot be measured",
            "omit the think time; `llmtop load` accepts it",
        )
    return RequestOptions(
        prompts,
        params["model"],
        params["workers"],
        params["timeout"],
        params["yes"],
    )


def find_target(
    wiring: Wiring, text: str, asked: RequestOptions, highest: float, known: bool = True
) -> LoadTarget:
    """Find the engine behind a name or a URL. Ask for consent to load another machine.

    highest: the highest number of streams, or requests per second, of the load. known: recognise
    an engine of llmtop by its URL too, and use its API key. Raises LlmtopError, UsageError.
    """
    from llmtop.engines.metrics.detection import is_simulator, normalise, same_server
    from llmtop.loadgen.client.transport import is_modest

    endpoint: Endpoint | None = None
    engine = owner = ""
    if wiring.is_url(text):
        url, name, key = normalise(text), text, wiring.api_key
        engine = url
        simulated = asyncio.run(wiring.ask(lambda fetch: is_simulator(url, fetch)))
        for record in wiring.supervisor.records():
            if same_server(record.url, url) and record.ended_at is None:
                engine = _identity(record)
                if known:
                    endpoint = wiring.owned(record.name)
                    key = wiring.key_for(endpoint)
    else:
        endpoint = wiring.owned(text)
        require_running(wiring, endpoint)
        url, name, simulated = endpoint.url, endpoint.name, endpoint.adapter.simulated
        key = wiring.key_for(endpoint)
    if not is_modest(url, highest) and not asked.yes:
        if not sys.stdin.isatty():
            raise UsageError(f"{url} is another machine", "add --yes to send load to it")
        click.confirm(f"{url} is another machine. Send load to it?", abort=True, err=True)
    if endpoint is not None:
        owner = endpoint.adapter.kind
        engine = _identity(endpoint.record) if endpoint.record is not None else url
    trust = wiring.trust(url)
    served, owner = _served(asked.model, url, key, owner, trust)
    chat, of_sglang = asked.prompts.as_chat, owner == "sglang"
    target = Target(url=url, model=served, chat=chat, api_key=key, trust=trust, rid=of_sglang)
    notes = (RESERVED,) if of_sglang and exact_answers(asked.prompts) else ()
    for words in notes:
        note(words)
    on_snapshot: Callable[[LoadSnapshot], None] | None = None
    if endpoint is not None and endpoint.record is not None:
        on_snapshot = LoadNotices(wiring.state.folder(endpoint.record.name)).publish
    on_snapshot = recorded(wiring, text, on_snapshot)
    return LoadTarget(name, target, simulated, endpoint, engine, notes, on_snapshot)


def _served(model: str | None, url: str, key: str, owner: str, trust: Trust) -> tuple[str, str]:
    """The model to request and the kind of engine. Asks the server for what is unknown.

    model: as the user gave it. owner: the kind of engine, "" if unknown.
    """
    from llmtop.loadgen.client.model_discovery import discover

    if not model:
        model, found = discover(url, key, trust=trust)
        return model, owner or found
    if not owner:
        with suppress(LlmtopError):
            owner = discover(url, key, trust=trust)[1]
    return model, owner


def _identity(record: EngineRecord) -> str:
    """The identity of a running engine. A restart changes it, because it empties the cache."""
    return f"{record.name} {record.pid} {record.started_at}"


def limit_streams(streams: int, workers: int | None) -> int | None:
    """Return the highest possible number of streams and print a note; None if all are possible.

    Each stream needs a socket. The limit of open files applies, after each worker has raised its
    soft limit.
    """
    from llmtop.loadgen.client.file_limit import most_streams
    from llmtop.loadgen.workers.load import default_workers

    most = most_streams(default_workers() if workers is None else max(1, workers))
    if streams <= most:
        return None
    note(
        f"limited to {most:,} of {streams:,} streams by the limit of open files;"
        " raise it with ulimit -n"
    )
    return most


def load_on(
    found: LoadTarget,
    asked: RequestOptions,
    clock: LoadClock,
    window_s: float,
    on_record: Callable[[RequestRecord], None],
    calibration: Calibration | None = None,
) -> Load:
    """Create a load on an engine; it is not started. window_s: window of live measures, in seconds.

    calibration: the capacity of this client, to detect a load that exceeds it.
    """
    from llmtop.loadgen.workers.load import Load

    return Load(
        found.target,
        asked.prompts,
        workers=asked.workers,
        timeout_s=asked.timeout_s,
        window_s=window_s,
        on_record=on_record,
        calibration=calibration,
        monotonic=clock.ns,
        on_snapshot=found.on_snapshot,
    )


def energy_of(found: LoadTarget) -> EngineEnergy | None:
    """The energy meter of an engine's GPUs; None for an engine that llmtop did not start."""
    from llmtop.engines.gpu.devices import Gpus
    from llmtop.engines.gpu.energy import EngineEnergy
    from llmtop.engines.host.processes import Processes

    record = found.endpoint.record if found.endpoint is not None else None
    return EngineEnergy(record, Gpus(), Processes()) if record is not None else None


def calibration_for(
    wiring: Wiring, workers: int | None, *, recalibrate: bool | None, quiet: bool
) -> Calibration | None:
    """The load that this client can send; measured, or kept from the last hour.

    recalibrate: True measures it again, False returns None. Also returns None, with a note, when
    the measurement fails.
    """
    from llmtop.operations.calibrated import calibrated, calibration_words

    if recalibrate is False:
        return None
    line = StatusLine(quiet=quiet)
    try:
        found, _ = calibrated(
            wiring.state.root,
            wiring.processes.boot_id,
            workers,
            recalibrate=bool(recalibrate),
            on_left=lambda left: line.show(f"calibrating this client, {soon(left)}"),
        )
    except LlmtopError as error:
        line.clear()
        note(f"{error.message}; the load is not compared with this client's capacity")
        return None
    line.keep(calibration_words(found))
    return found


def calibration_entry(found: Calibration | None) -> dict[str, Any] | None:
    """The capacity of the client as JSON; None when it was not measured."""
    if found is None:
        return None
    return {
        "chunks_per_s": found.chunks_per_s,
        "workers": found.workers,
        "us_per_chunk": found.us_per_chunk,
        "waited": found.waited,
        "time": found.at,
    }


def poll_load(load: Load) -> None:
    """Process the messages of the workers for POLL_S seconds. LlmtopError when a worker died."""
    until = time.monotonic() + POLL_S
    while (left := until - time.monotonic()) > 0:
        select.select([load], [], [], left)
        load.poll()
    if load.troubles:
        raise LlmtopError(load.troubles[0], "try again with fewer streams or --workers")
