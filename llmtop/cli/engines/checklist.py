"""The report of ``llmtop doctor`` as text: facts by area, then each problem with its hint."""

from __future__ import annotations

from collections.abc import Iterator

import click

from llmtop.engines.core.samples import GpuSample
from llmtop.engines.doctor import Doctor, Weight
from llmtop.printable import clean
from llmtop.wording.format import ABSENT, duration, gib

_WORDS = {Weight.BLOCKS: "blocks", Weight.WARNS: "note"}
_LINE = 200  # longest line of a fact, in characters


def print_checkup(seen: Doctor) -> None:
    """Print the report, without the control characters that its sources may contain."""
    for head, lines in (
        ("driver", _driver(seen)),
        ("GPUs", _gpus(seen)),
        ("engines", _engines(seen)),
        ("ports", _ports(seen)),
        ("state", _state(seen)),
        ("orphans", _orphans(seen)),
    ):
        for number, line in enumerate(lines):
            click.echo(f"{head if number == 0 else '':<9}{clean(line, _LINE)}".rstrip())
    click.echo()
    for finding in seen.findings:
        click.echo(f"{_WORDS[finding.weight]:<9}{clean(finding.text)}")
        if finding.hint:
            click.echo(f"{'':<9}{clean(finding.hint)}")
    if not seen.blocked:
        click.echo("an engine can start on this machine")


def _driver(seen: Doctor) -> Iterator[str]:
    if seen.driver is None and not seen.gpus:
        yield seen.gpu_note or "no NVIDIA driver found"
    else:
        yield f"NVIDIA {seen.driver or ABSENT}, CUDA up to {seen.cuda or ABSENT}"


def _gpus(seen: Doctor) -> Iterator[str]:
    if not seen.gpus:
        yield "none"
    for gpu in seen.gpus:
        used, total = gpu.memory_used_bytes, gpu.memory_total_bytes
        whose = ", unified: the machine's memory" if gpu.unified else ""
        sizes = f"{gib(used)} of {gib(total)} GiB used, {_free(gpu)} free"
        yield f"{gpu.index} {gpu.name}: {sizes}{whose}"
        for held in seen.holders:
            if held.gpu == gpu.index:
                yield f"    {gib(held.memory_bytes)} GiB  {held.words}"
    if not seen.host_pids and any(gpu.processes for gpu in seen.gpus):
        yield "this is a container: the driver reports the host's pids, which are not valid here"
        for pid, command in seen.openers.items():
            yield f"    pid {pid} ({command}) has a GPU open; its amount of memory is unknown"


def _free(gpu: GpuSample) -> str:
    if gpu.memory_total_bytes is None or gpu.memory_used_bytes is None:
        return ABSENT
    return gib(gpu.memory_total_bytes - gpu.memory_used_bytes)


def _engines(seen: Doctor) -> Iterator[str]:
    if not seen.installed:
        yield "none on the PATH; give --bin or --python, or use the simulated engine (sim)"
    for engine in seen.installed:
        where = " (used before)" if engine.remembered else ""
        yield f"{engine.kind} {engine.version or ABSENT}  {engine.program}{where}"


def _ports(seen: Doctor) -> Iterator[str]:
    if not seen.ports:
        yield "none in use by an engine"
    for use in seen.ports:
        who = f"the engine {use.engine!r}" if use.engine else use.holder
        idle = "" if use.holder else ", which does not listen yet"
        yield f"{use.port} {who}{idle}"


def _state(seen: Doctor) -> Iterator[str]:
    state = seen.state
    can = "writable" if state.writable else "not writable"
    yield f"{state.folder}: {can}, {gib(state.free_bytes)} GiB free"
    if state.socket_folder is not None and state.socket_mode is not None:
        yield f"{state.socket_folder}: sockets, mode {state.socket_mode:04o}"


def _orphans(seen: Doctor) -> Iterator[str]:
    if not seen.orphans:
        yield "none"
    for one in seen.orphans:
        yield (
            f"pid {one.pid} {one.title}, user {one.user}, {duration(one.age_s)} old, "
            f"{gib(one.memory_bytes)} GiB of main memory"
        )
