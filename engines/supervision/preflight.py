"""Checks before an engine starts, so that it fails early and with a clear message."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from llmtop import LlmtopError, UsageError
from llmtop.engines.core.adapter import Adapter
from llmtop.engines.core.records import EngineRecord, LaunchSpec
from llmtop.engines.host import ports
from llmtop.engines.host.safe_text import clean
from llmtop.trust import Trust
from llmtop.values import replace


class LaunchRefused(LlmtopError):
    """The engine was not started because it could not run; nothing was changed."""


def check_model(spec: LaunchSpec, folder: str = "") -> LaunchSpec:
    """UsageError when the model is a path that does not exist; ``~`` is resolved.

    Anything else may be a name on a hub, which only the engine can look up. folder: the engine's
    working directory, "" for the present one.
    """
    if not spec.model.startswith(("/", "./", "../", "~")):
        return spec
    try:
        path = Path(spec.model).expanduser()
        found = (Path(folder) / path).exists()
    except (OSError, RuntimeError, ValueError):
        path, found = Path(spec.model), False
    if not found:
        raise UsageError(
            f"there is no model at {clean(spec.model)}",
            "check the path, or name a model on the hub",
        )
    return replace(spec, model=str(path)) if spec.model.startswith("~") else spec


def check_certificate(path: str, folder: str = "") -> None:
    """LlmtopError when an engine's TLS certificate cannot be read.

    path: "" for none. folder: the engine's working directory, "" for the present one.
    """
    if path:
        Trust(pinned=str(Path(folder) / path)).context()


def find_program(adapter: Adapter, command: tuple[str, ...], environ: Mapping[str, str]) -> str:
    """The absolute path of the program; LaunchRefused when it cannot be executed."""
    program = command[0]
    if "/" not in program:
        import shutil  # only where an engine is started

        found = shutil.which(program, path=environ.get("PATH", ""))
        if found is None:
            raise LaunchRefused(
                f"the program {clean(program)!r} for {adapter.title} is not on the PATH",
                "give it with --bin PATH, or its environment's Python with --python PATH",
            )
        return str(Path(found).absolute())
    path = Path(program).expanduser()
    if not path.exists():
        raise LaunchRefused(f"there is no program at {clean(program)}", "check --bin or --python")
    import shutil

    if path.is_dir() or shutil.which(str(path)) is None:
        raise LaunchRefused(
            f"{clean(program)} is not an executable program", "check --bin or --python"
        )
    return str(path.absolute())


def check_port(spec: LaunchSpec, running: Iterable[EngineRecord]) -> None:
    """LaunchRefused when the port is taken, with its holder. running: llmtop's running engines."""
    if not 1 <= spec.port <= 65535:
        raise UsageError(f"{spec.port} is not a TCP port", "use one from 1024 to 65535")
    for record in running:
        # It may not be bound yet: SGLang loads the whole model first.
        if record.spec.port == spec.port:
            raise LaunchRefused(
                f"port {spec.port} belongs to the engine {record.name!r} (pid {record.pid})",
                _another(spec, f"stop it with: llmtop stop {record.name}"),
            )
    if not ports.is_free(spec.host, spec.port):
        holder = ports.holder(spec.port)
        who = str(holder) if holder is not None else "a process that has bound it"
        raise LaunchRefused(
            f"port {spec.port} is in use by {who}", _another(spec, "end that process")
        )


def _another(spec: LaunchSpec, otherwise: str) -> str:
    try:
        free = ports.next_free(spec.host, spec.port + 1)
    except LlmtopError:
        return otherwise
    return f"use another, such as --port {free}, or {otherwise}"
