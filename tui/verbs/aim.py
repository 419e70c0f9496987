"""What the verbs that load an engine share: whom, with what, and may they."""

from __future__ import annotations

import asyncio
import errno
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from llmtop import LlmtopError, UsageError
from llmtop.loadgen.plan import Prompts, Target
from llmtop.tui.verbs.configured import config_flag
from llmtop.tui.verbs.kinds import TIMEOUT
from llmtop.tui.verbs.prompting import prompt_options, prompts_of
from llmtop.tui.verbs.running import require_running

if TYPE_CHECKING:
    from llmtop.engines.endpoint import Endpoint
    from llmtop.engines.energy import EngineEnergy
    from llmtop.loadgen.calibration import Calibration
    from llmtop.loadgen.level import LoadClock
    from llmtop.loadgen.pool import Load
    from llmtop.loadgen.results import RequestRecord
    from llmtop.tui.config.file import Config
    from llmtop.tui.wiring import Wiring

BEAT_S = 0.1


def stop_as_ctrl_c_does() -> None:
    """Have a polite kill and a hung-up terminal end what goes on as Ctrl+C does, with its result.

    Under nohup a hang-up stays ignored.
    """
    for signum in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) is signal.SIG_DFL:
            signal.signal(signum, signal.default_int_handler)


calibrate_option = click.option(
    "--calibrate/--no-calibrate",
    "anew",
    default=None,
    help="Try out anew what this client can carry, or not at all (default: once an hour).",
)


@dataclass(frozen=True, slots=True)
class Asking:
    """How requests are made: the options that the loading verbs share."""

    prompts: Prompts
    model: str | None
    workers: int | None
    timeout_s: float
    yes: bool


@dataclass(frozen=True, slots=True)
class Aim:
    """One engine to be loaded. endpoint: None for a URL that llmtop does not know."""

    name: str
    target: Target
    simulated: bool
    endpoint: Endpoint | None


def asking_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the shared options to a verb; ``asking`` makes an Asking of them."""
    for option in (
        config_flag,
        click.option("--yes", is_flag=True, help="Do not ask."),
        click.option(
            "--timeout",
            default=120.0,
            show_default=True,
            type=TIMEOUT,
            help="Of a request, seconds.",
        ),
        click.option("--workers", type=click.IntRange(1, 64), help="Load processes."),
        prompt_options,
    ):
        function = option(function)
    return function


def asking(given: dict[str, Any], config: Config, target: str) -> Asking:
    """The shared options as they were given; flags go before what a named set of prompts says."""
    if given["timeout"] <= 0:
        raise UsageError("--timeout is more than 0 seconds")
    prompts = prompts_of(given, config, target)
    if prompts.think_s != (0.0, 0.0):
        raise UsageError(
            "streams that think are not in flight, so a level of streams could not be measured",
            "leave the think time out; `llmtop load` takes it",
        )
    return Asking(
        prompts,
        given["model"],
        given["workers"],
        given["timeout"],
        given["yes"],
    )


def aim(wiring: Wiring, text: str, asked: Asking, highest: float, known: bool = True) -> Aim:
    """Find the engine behind a name or a URL, and ask before another machine is loaded.

    highest: the most streams, or requests a second, that it will be asked for. known: an engine of
    ours is recognised by its URL too, and then gets its own key.
    """
    from llmtop.engines.recognise import is_simulator, normalise, same_server
    from llmtop.loadgen.discovery import discover_model
    from llmtop.loadgen.transport import is_modest

    endpoint: Endpoint | None = None
    if wiring.is_url(text):
        url, name, key = normalise(text), text, wiring.api_key
        simulated = asyncio.run(wiring.ask(lambda fetch: is_simulator(url, fetch)))
        for record in wiring.supervisor.records() if known else ():
            if same_server(record.url, url) and record.ended_at is None:
                endpoint = wiring.owned(record.name)
                key = wiring.key_for(endpoint)
    else:
        endpoint = wiring.owned(text)
        require_running(wiring, endpoint)
        url, name, simulated = endpoint.url, endpoint.name, endpoint.adapter.simulated
        key = wiring.key_for(endpoint)
    if not is_modest(url, highest) and not asked.yes:
        if not sys.stdin.isatty():
            raise UsageError(
                f"{url} is another machine", "add --yes to load it without being asked"
            )
        click.confirm(f"{url} is another machine. Send load to it?", abort=True, err=True)
    served = asked.model or discover_model(url, key)
    target = Target(url=url, model=served, chat=asked.prompts.as_chat, api_key=key)
    return Aim(name, target, simulated, endpoint)


def load_on(
    found: Aim,
    asked: Asking,
    clock: LoadClock,
    window_s: float,
    on_record: Callable[[RequestRecord], None],
    calibration: Calibration | None = None,
) -> Load:
    """A load on an engine, on that clock. Its live figures are over ``window_s``. calibration: what
    its client is held against."""
    from llmtop.loadgen.pool import Load

    return Load(
        found.target,
        asked.prompts,
        workers=asked.workers,
        timeout_s=asked.timeout_s,
        window_s=window_s,
        on_record=on_record,
        calibration=calibration,
        monotonic=clock.ns,
    )


def energy_of(found: Aim) -> EngineEnergy | None:
    """The energy meter under an engine; None for one of which only a URL is known."""
    from llmtop.engines.energy import EngineEnergy
    from llmtop.engines.gpu import Gpus
    from llmtop.engines.processes import Processes

    record = found.endpoint.record if found.endpoint is not None else None
    return EngineEnergy(record, Gpus(), Processes()) if record is not None else None


def calibration_for(
    wiring: Wiring, workers: int | None, *, anew: bool | None, quiet: bool
) -> Calibration | None:
    """What this client can carry; None where it is not to be tried out (anew is False), and, with a
    note, when it could not be."""
    from llmtop.tui.calibrated import calibrated, calibration_words
    from llmtop.tui.verbs.output import note

    if anew is False:
        return None
    line = StatusLine(quiet=quiet)
    try:
        found, _ = calibrated(
            wiring.state.root,
            wiring.processes.boot_id,
            workers,
            anew=bool(anew),
            on_left=lambda left: line.show(f"calibrating this client, {left:.0f}s left"),
        )
    except LlmtopError as error:
        line.clear()
        note(f"{error.message}; nothing is held against it")
        return None
    line.keep(calibration_words(found))
    return found


def calibration_entry(found: Calibration | None) -> dict[str, Any] | None:
    """What the client was found to carry, as documents show it; None: it was not tried out."""
    if found is None:
        return None
    return {
        "chunks_per_s": found.chunks_per_s,
        "workers": found.workers,
        "us_per_chunk": found.us_per_chunk,
        "waited": found.waited,
        "time": found.at,
    }


def wait_a_beat(load: Load) -> None:
    """A tenth of a second, taking in what the workers say meanwhile. LlmtopError when one died."""
    until = time.monotonic() + BEAT_S
    while (left := until - time.monotonic()) > 0:
        select.select([load], [], [], left)
        load.poll()
    if load.troubles:
        raise LlmtopError(load.troubles[0], "try again with fewer streams or --workers")


class StatusLine:
    """One line on stderr: it rewrites itself on a terminal, elsewhere it comes now and then."""

    def __init__(self, quiet: bool, every_s: float = 5.0) -> None:
        self._live = sys.stderr.isatty()
        self._quiet = quiet and not self._live
        self._every_s = 0.5 if self._live else every_s
        self._said = -1e9

    @property
    def due(self) -> bool:
        """Whether words would be shown now."""
        return not self._quiet and time.monotonic() - self._said >= self._every_s

    def show(self, words: str, *, now: bool = False) -> None:
        """Say where it stands, now and then. now: at once, it is news."""
        if self._quiet or not (now or self.due):
            return
        self._said = time.monotonic()
        self._write(f"\r\x1b[K{words}" if self._live else words, nl=not self._live)

    def keep(self, words: str) -> None:
        """Say something that stays."""
        if not self._quiet:
            self.clear()
            self._write(words)

    def clear(self) -> None:
        """Take the line away."""
        if self._live and not self._quiet:
            self._write("\r\x1b[K", nl=False)

    def _write(self, words: str, *, nl: bool = True) -> None:
        try:
            click.echo(words, nl=nl, err=True)
        except OSError as error:
            if error.errno != errno.EIO:  # a terminal that has hung up: nobody looks any more
                raise
