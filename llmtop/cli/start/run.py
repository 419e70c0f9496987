"""``llmtop run ENGINE [MODEL]``: start an engine, then open the dashboard or wait for readiness."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmtop import UsageError
from llmtop.cli.common.output import document, json_flag, note
from llmtop.cli.common.param_types import SECONDS
from llmtop.cli.screen.record_option import path_of, record_flag
from llmtop.cli.screen.screen_options import ScreenFlags, screen_flags
from llmtop.engines.core.records import EngineRecord, EngineStatus, LaunchSpec, State
from llmtop.values import replace

if TYPE_CHECKING:
    from llmtop.engines.supervision.supervisor import Supervisor

FLAGS = "llmtop.engine_flags"  # key of click's context for the arguments after --
LOOPBACK = "127.0.0.1"


class PassingFlags(click.Command):
    """A command that passes all arguments after ``--`` to the engine unchanged."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Move the engine's flags into the context, and parse the rest."""
        if "--" in args:
            cut = args.index("--")
            ctx.meta[FLAGS] = tuple(args[cut + 1 :])
            args = args[:cut]
        return super().parse_args(ctx, args)


def gpu_list(text: str | None) -> tuple[int, ...]:
    """Parse ``0,1`` as GPU indices. Raises UsageError for any other form."""
    if not text:
        return ()
    try:
        if not text.isascii():
            raise ValueError
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{text!r} is not a list of GPUs", "write --gpus 0,1") from None
    if len(set(found)) != len(found) or min(found) < 0:
        raise UsageError(f"{text!r} is not a list of GPUs", "write --gpus 0,1")
    return found


def program(python: str | None, binary: str | None, module: str) -> tuple[str, ...]:
    """The start of the engine's command line: Python with the module, or a program.

    Empty without both: the engine's default applies. UsageError for both, or a missing program.
    """
    if python and binary:
        raise UsageError("give --python or --bin, not both")
    if python:
        return (located(python, "--python"), "-m", module)
    if binary:
        return (located(binary, "--bin"),)
    return ()


def located(path: str, flag: str) -> str:
    """The absolute path of an executable. Raises UsageError when there is none."""
    found = shutil.which(path)
    if found is None:
        raise UsageError(f"{flag}: there is no program {path!r}")
    return str(Path(found).absolute())


def free_name(kind: str, taken: set[str]) -> str:
    """The first free name of ``vllm``, ``vllm-2``, ``vllm-3`` and so on, for the kind ``vllm``."""
    number = 1
    while (name := kind if number == 1 else f"{kind}-{number}") in taken:
        number += 1
    return name


@click.command(cls=PassingFlags)
@click.argument("engine", metavar="ENGINE|NAME")
@click.argument("model", required=False)
@click.option("--name", help="Name of the engine (default: its kind).")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="Port (default: that of the kind, or the next free one).",
)
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--gpus", metavar="0,1", help="GPUs that the engine may use (default: all).")
@click.option("--python", metavar="PATH", help="Python interpreter that runs the engine.")
@click.option("--bin", "binary", metavar="PATH", help="Program that runs the engine.")
@click.option(
    "--detach", is_flag=True, help="Return when ready; keep it running in the background."
)
@click.option(
    "--ready-timeout",
    default=1800.0,
    show_default=True,
    type=SECONDS,
    help="With --detach: time to wait for readiness.",
)
@json_flag
@record_flag
@screen_flags
@click.pass_context
def command(
    ctx: click.Context,
    engine: str,
    model: str | None,
    name: str | None,
    port: int | None,
    host: str | None,
    gpus: str | None,
    python: str | None,
    binary: str | None,
    detach: bool,
    ready_timeout: float,
    as_json: bool,
    screen: ScreenFlags,
    record_file: str | None,
) -> None:
    """Start an engine and open the dashboard on it.

    ENGINE is a kind (sim, vllm, sglang, tensorrt-llm) or an engine that llmtop.toml defines.
    Options and MODEL override the file. Everything after -- is passed to the engine unchanged:

        llmtop run vllm Qwen/Qwen2.5-7B-Instruct -- --max-num-seqs 512

    The engine keeps running when llmtop ends; `llmtop stop NAME` stops it.
    """
    from llmtop.config.engines import launch_spec
    from llmtop.config.file import Config
    from llmtop.engines.host.ports import next_free
    from llmtop.engines.metrics.detection import version_of
    from llmtop.engines.registry import ADAPTERS, adapter_named
    from llmtop.operations.fleet import Fleet
    from llmtop.operations.wiring import Wiring

    if record_file and detach:
        raise UsageError("--record needs the dashboard", "without it: llmtop record NAME -o FILE")
    if as_json and not detach:
        raise UsageError("--json needs --detach")
    wiring = Wiring()
    supervisor = wiring.supervisor
    living = [record for record in supervisor.records() if record.ended_at is None]
    config = screen.config or Config()
    table = config.table.engines.get(engine)
    if table is not None:
        spec = launch_spec(config, engine, wiring.environ)
    else:
        if engine not in ADAPTERS and config.table.engines:
            config.engine(engine)
        kind = adapter_named(engine).kind
        spec = LaunchSpec(kind, free_name(kind, {one.name for one in living}), "", LOOPBACK, 0)
    adapter = ADAPTERS[spec.kind]
    spec = replace(
        spec,
        name=name or spec.name,
        model=model or spec.model or adapter.default_model,
        host=host or spec.host,
        port=port or spec.port,
        program=program(python, binary, adapter.module) or spec.program,
        gpus=gpu_list(gpus) or spec.gpus,
        args=(*spec.args, *ctx.meta.get(FLAGS, ())),
    )
    if not spec.model:
        raise UsageError(f"{adapter.kind} needs a model", f"llmtop run {adapter.kind} MODEL")
    if not spec.port:
        taken = {record.spec.port for record in living}
        spec = replace(spec, port=next_free(spec.host, adapter.default_port, taken))
    for line in supervisor.crowding(spec):
        note(f"llmtop: {line}")
    record = supervisor.launch(spec)
    for line in Fleet(supervisor, note, gpu_count=wiring.gpu_count).crowds():
        note(f"warning: {line}")
    if not detach:
        from llmtop.cli.screen import dashboard

        dashboard.show(
            wiring,
            endpoints=[wiring.owned(record.name)],
            select=record.name,
            launched=record,
            prompts=config.prompts(table.prompts) if table is not None and table.prompts else None,
            screen=screen,
            record=path_of(record_file),
        )
        return
    note(f"{record.name}: pid {record.pid}, {record.url}, log {record.log_path}")
    status = wait(supervisor, record, ready_timeout)
    version = asyncio.run(wiring.ask(lambda fetch: version_of(record.url, fetch)))
    if version:
        status = replace(status, record=supervisor.learn(record, version))
    if as_json:
        from llmtop.cli.engines.ps import entry

        document(entry(status))
    else:
        note(f"{record.name} is ready at {record.url}")


def progress(status: EngineStatus) -> str:
    """The phase of a start, and the time so far compared with the last start of this model."""
    from llmtop.wording.sentences import startup_words

    if status.state is not State.STARTING:
        return status.state.value
    record = status.record
    elapsed = max(0.0, time.time() - record.started_at)
    words = startup_words(elapsed, record.previous_startup_s)
    return f"{status.phase or 'starting'}, {words}"


def wait(supervisor: Supervisor, record: EngineRecord, timeout: float) -> EngineStatus:
    """Wait until the engine is ready, and print each phase once. Ctrl+C does not stop the engine.

    timeout: seconds. Raises LlmtopError when it fails or the time is over.
    """
    try:
        return supervisor.wait_ready(
            record,
            timeout,
            on_phase=lambda now: note(f"{record.name}: {progress(now)}"),
        )
    except KeyboardInterrupt:
        note(f"{record.name} is still starting; `llmtop ps` shows it, `llmtop stop` stops it")
        raise
