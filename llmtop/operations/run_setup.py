"""The setup of a measurement: machine, GPUs, engine, options, load, and the command.

Saved results contain it, so that a report can show it and a check can repeat the load. It contains
no secrets: arguments and URLs are redacted, and prompts are described, not quoted.
"""

from __future__ import annotations

import asyncio
import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
import psutil

from llmtop import LlmtopError, __version__
from llmtop.engines.host.redaction import conceal, redact
from llmtop.printable import clean

if TYPE_CHECKING:
    from llmtop.engines.core.endpoint import Endpoint
    from llmtop.loadgen.workload.plan import Prompts
    from llmtop.operations.wiring import Wiring

COMMAND_LIMIT = 2000  # characters


def run_setup(
    wiring: Wiring,
    endpoint: Endpoint | None,
    prompts: Prompts | None,
    argv: Sequence[str],
    load: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The setup of one run as JSON. prompts: None if llmtop sent no load. argv: the arguments of
    the command. load: the rest of the load, such as shape and seed."""
    described = {"prompts": load_prompts(prompts)} if prompts is not None else {}
    return {
        "llmtop": __version__,
        "command": shown_command(argv),
        "host": _host(),
        "gpus": _gpus() if endpoint is None or not endpoint.adapter.simulated else [],
        "engine": _engine(wiring, endpoint),
        "load": {**described, **(load or {})},
    }


def load_prompts(prompts: Prompts) -> dict[str, Any]:
    """Prompts as JSON. A JSON schema becomes true, the path of a dataset its file name."""
    found = msgspec.to_builtins(prompts)
    found["json_schema"] = bool(prompts.json_schema)
    found["dataset"] = os.path.basename(prompts.dataset)
    return dict(found)


def shown_command(argv: Sequence[str]) -> str:
    """The command that repeats this run, quoted for a shell, without secrets."""
    return conceal(shlex.join(("llmtop", *redact(argv))))[:COMMAND_LIMIT]


def _host() -> dict[str, Any]:
    """The machine that llmtop runs on; the load generator runs there too."""
    return {
        "cpu": _processor(),
        "cores": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "kernel": platform.release(),
        "load_average": os.getloadavg()[0],
    }


def _processor() -> str:
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if line.startswith("model name"):
                return clean(line.partition(":")[2].strip(), 80)
    return clean(platform.machine(), 80)


def _gpus() -> list[dict[str, Any]]:
    from llmtop.engines.gpu.devices import Gpus

    gpus = Gpus()
    try:
        found = gpus.read()
        driver, cuda = gpus.versions()
    finally:
        gpus.close()
    return [
        {
            "index": gpu.index,
            "name": clean(gpu.name, 80),
            "memory_total_bytes": gpu.memory_total_bytes,
            "power_limit_w": gpu.power_limit_w,
            "driver": driver,
            "cuda": cuda,
        }
        for gpu in found
    ]


def _engine(wiring: Wiring, endpoint: Endpoint | None) -> dict[str, Any] | None:
    """The engine and the options that its launch or a change set; None for a bare URL."""
    if endpoint is None:
        return None
    record = endpoint.record
    return {
        "kind": endpoint.adapter.kind,
        "version": endpoint.version or (record.version if record is not None else None),
        "arguments": list(redact(record.spec.args)) if record is not None else None,
        "started_at": record.started_at if record is not None else None,
        "options": asyncio.run(_options(wiring, endpoint)),
    }


async def _options(wiring: Wiring, endpoint: Endpoint) -> dict[str, Any] | None:
    """The options in force that differ from the engine's defaults; None if it reports none."""
    session = wiring.session(endpoint)
    try:
        options, _ = await session.options()
    except LlmtopError:
        return None
    finally:
        await session.close()
    return {
        option.name: option.value
        for option in options
        if option.value is not None and option.value != option.spec.default
    }
