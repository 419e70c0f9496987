"""``llmtop run ENGINE [MODEL]``: start an engine; watch it, or come back when it is ready."""

from __future__ import annotations

import asyncio
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llmtop import UsageError
from llmtop.engines.records import EngineRecord, EngineStatus, LaunchSpec, State
from llmtop.tui.verbs.output import document, json_flag, note
from llmtop.tui.verbs.screen import ScreenFlags, screen_flags

if TYPE_CHECKING:
    from llmtop.engines.supervisor import Supervisor

FLAGS = "llmtop.engine_flags"


class PassingFlags(click.Command):
    """A command that hands everything after ``--`` on to the engine, untouched."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Set the engine's flags aside before click reads the rest."""
        if "--" in args:
            cut = args.index("--")
            ctx.meta[FLAGS] = tuple(args[cut + 1 :])
            args = args[:cut]
        return super().parse_args(ctx, args)


def gpu_list(text: str | None) -> tuple[int, ...]:
    """``0,1`` as indices."""
    if not text:
        return ()
    try:
        found = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{text!r} is not a list of GPUs", "write --gpus 0,1") from None
    if len(set(found)) != len(found) or min(found) < 0:
        raise UsageError(f"{text!r} is not a list of GPUs", "write --gpus 0,1")
    return found


def program(python: str | None, binary: str | None, module: str) -> tuple[str, ...]:
    """The words that begin the command line: a Python and the engine's module, or a program."""
    if python and binary:
        raise UsageError("give --python or --bin, not both")
    if python:
        return (located(python, "--python"), "-m", module)
    if binary:
        return (located(binary, "--bin"),)
    return ()


def located(path: str, flag: str) -> str:
    """The absolute path of an executable. UsageError when there is none."""
    found = shutil.which(path)
    if found is None:
        raise UsageError(f"{flag}: there is no program {path!r}")
    return str(Path(found).absolute())


def free_name(kind: str, taken: set[str]) -> str:
    """The kind itself, or the kind and a number when it is taken."""
    number = 1
    while (name := kind if number == 1 else f"{kind}-{number}") in taken:
        number += 1
    return name


@click.command(cls=PassingFlags)
@click.argument("engine")
@click.argument("model", required=False)
@click.option("--name", help="What to call it (default: the engine's kind).")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Default: the engine's own, or the next."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve on.")
@click.option("--gpus", metavar="0,1", help="Which GPUs it may use (default: all).")
@click.option("--python", metavar="PATH", help="Start the engine with this Python.")
@click.option("--bin", "binary", metavar="PATH", help="Start the engine with this program.")
@click.option("--detach", is_flag=True, help="Come back when it is ready; it goes on running.")
@click.option("--ready-timeout", default=1800.0, show_default=True, metavar="SECONDS")
@json_flag
@screen_flags
@click.pass_context
def command(
    ctx: click.Context,
    engine: str,
    model: str | None,
    name: str | None,
    port: int | None,
    host: str,
    gpus: str | None,
    python: str | None,
    binary: str | None,
    detach: bool,
    ready_timeout: float,
    as_json: bool,
    screen: ScreenFlags,
) -> None:
    """Start an engine (sim, vllm or tensorrt-llm) and open the dashboard on it.

    Everything after -- goes to the engine as it is:

        llmtop run vllm Qwen/Qwen2.5-7B-Instruct -- --max-num-seqs 512

    The engine goes on running when llmtop ends; `llmtop stop NAME` ends it.
    """
    from llmtop.engines.catalog import adapter_named
    from llmtop.engines.ports import next_free
    from llmtop.engines.recognise import version_of
    from llmtop.tui.wiring import Wiring

    if as_json and not detach:
        raise UsageError("--json goes with --detach")
    adapter = adapter_named(engine)
    if model is None:
        if not adapter.default_model:
            raise UsageError(f"{adapter.kind} needs a model", f"llmtop run {adapter.kind} MODEL")
        model = adapter.default_model
    wiring = Wiring()
    supervisor = wiring.supervisor
    living = {record.name for record in supervisor.records() if record.ended_at is None}
    taken = {record.spec.port for record in supervisor.records() if record.ended_at is None}
    spec = LaunchSpec(
        kind=adapter.kind,
        name=name or free_name(adapter.kind, living),
        model=model,
        host=host,
        port=port or next_free(host, adapter.default_port, taken),
        program=program(python, binary, adapter.module),
        gpus=gpu_list(gpus),
        args=ctx.meta.get(FLAGS, ()),
    )
    for line in supervisor.crowding(spec):
        note(f"llmtop: {line}")
    record = supervisor.launch(spec)
    if not detach:
        from llmtop.tui.verbs import dashboard

        dashboard.show(
            wiring, endpoints=[wiring.owned(record.name)], select=record.name, screen=screen
        )
        return
    note(f"{record.name}: starting, pid {record.pid}, {record.url}, log {record.log_path}")
    status = wait(supervisor, record, ready_timeout)
    version = asyncio.run(wiring.ask(lambda fetch: version_of(record.url, fetch)))
    if version:
        status = replace(status, record=supervisor.learn(record, version))
    if as_json:
        from llmtop.tui.verbs.ps import entry

        document(entry(status))
    else:
        note(f"{record.name} is ready at {record.url}")


def progress(status: EngineStatus) -> str:
    """The phase of a start, and how far it is against this model's last one."""
    from llmtop.tui.words import startup_words

    if status.state is not State.STARTING:
        return status.state.value
    record = status.record
    elapsed = max(0.0, time.time() - record.started_at)
    words = startup_words(elapsed, record.previous_startup_s)
    return f"{status.phase or 'starting'}, {words}"


def wait(supervisor: Supervisor, record: EngineRecord, timeout: float) -> EngineStatus:
    """Wait until it is ready, saying each phase once. Ctrl+C leaves it starting."""
    try:
        return supervisor.wait_ready(
            record,
            timeout,
            on_phase=lambda now: note(f"{record.name}: {progress(now)}"),
        )
    except KeyboardInterrupt:
        note(f"{record.name} goes on starting; `llmtop ps` shows it, `llmtop stop` ends it")
        raise
