"""The launch context of an engine, read from its running process: its record hides the secrets.

It stays in memory. It is never recorded, shown or logged.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from llmtop import LlmtopError
from llmtop.engines.core.records import EngineRecord, LaunchSpec
from llmtop.engines.host.processes import LOG_VARIABLE, PROC
from llmtop.engines.host.redaction import HIDDEN
from llmtop.engines.state.restart_journal import RestartEntry
from llmtop.values import Secretive, replace


class LaunchContextLost(LlmtopError):
    """The arguments of an engine contain secrets that are no longer available."""


class LaunchContext(Secretive, frozen=True):
    """spec: the operator's request, including secrets. environ: the engine's environment, None if
    unknown. folder: its working directory, the base of its relative paths; None if unknown.
    """

    secret: ClassVar[tuple[str, ...]] = ("spec", "environ")

    spec: LaunchSpec
    environ: Mapping[str, str] | None = None
    folder: str | None = None


def origin_of(record: EngineRecord, *, alive: bool) -> LaunchContext:
    """The launch context of a recorded engine.

    LaunchContextLost when the record hides a secret and the process cannot be read.
    """
    command = _entries(record.pid, "cmdline") if alive else ()
    spec = _revealed(record, command)
    if not alive:
        return LaunchContext(spec)
    pairs = (entry.partition("=") for entry in _entries(record.pid, "environ"))
    environ = {name: value for name, equals, value in pairs if equals}
    # A program that sets its title overwrites its environment.
    if LOG_VARIABLE not in environ:
        environ = {}
    try:
        folder = os.readlink(PROC / str(record.pid) / "cwd")
    except OSError:
        folder = None
    return LaunchContext(spec, environ or None, folder)


def before_restart(record: EngineRecord, cut: RestartEntry | None, *, alive: bool) -> LaunchContext:
    """The launch context of an engine; the last good one after an interrupted restart (``cut``).

    The journal has no secrets: they come from the process that was started instead, while it runs.
    Else LaunchContextLost.
    """
    if cut is None or cut.rolling:
        return origin_of(record, alive=alive)
    good, environ = cut.good, None
    if alive:
        now = origin_of(record, alive=True)
        secrets = _after(record.spec.program, now.spec.program)
        secrets |= _after(record.spec.args, now.spec.args)
        good = replace(
            good, program=_filled(good.program, secrets), args=_filled(good.args, secrets)
        )
        environ = now.environ
    if any(HIDDEN in word for word in (*good.program, *good.args)):
        raise _lost(record)
    return LaunchContext(good, environ, cut.folder)


def _after(hidden: Sequence[str], real: Sequence[str]) -> dict[tuple[str, str], str]:
    """The secrets of an argument vector, by the flag before them and their replacement."""
    before = ("", *hidden)
    pairs = zip(before, hidden, real, strict=False)
    return {(flag, shown): word for flag, shown, word in pairs if HIDDEN in shown}


def _filled(words: Sequence[str], secrets: Mapping[tuple[str, str], str]) -> tuple[str, ...]:
    before = ("", *words)
    return tuple(secrets.get(pair, pair[1]) for pair in zip(before, words, strict=False))


def surroundings(
    origin: LaunchContext | None, environ: Mapping[str, str]
) -> tuple[Mapping[str, str], str | None]:
    """Environment and folder for a start; default: ``environ`` and the present folder."""
    if origin is None:
        return environ, None
    return environ if origin.environ is None else origin.environ, origin.folder


def _revealed(record: EngineRecord, command: Sequence[str]) -> LaunchSpec:
    spec = record.spec
    wanted = [word for word in (*spec.program, *spec.args) if HIDDEN in word]
    if not wanted:
        return spec
    shown = record.command[1:]
    # An interpreter runs a script, so only the arguments after the program are equal.
    real = command[len(command) - len(shown) :] if len(command) > len(shown) else ()
    secrets = [
        (hidden, word) for hidden, word in zip(shown, real, strict=False) if HIDDEN in hidden
    ]
    same = len(real) == len(shown) and all(map(_fits, shown, real))
    if not real or not same or [hidden for hidden, _ in secrets] != wanted:
        raise _lost(record)
    words: Iterator[str] = iter([word for _, word in secrets])
    return replace(
        spec,
        program=tuple(next(words) if HIDDEN in word else word for word in spec.program),
        args=tuple(next(words) if HIDDEN in word else word for word in spec.args),
    )


def _fits(shown: str, real: str) -> bool:
    """Whether a word of a record can be this word of the process with its secret hidden."""
    parts = shown.split(HIDDEN)
    if len(parts) == 1:
        return shown == real
    return (
        len(real) >= sum(map(len, parts)) and real.startswith(parts[0]) and real.endswith(parts[-1])
    )


def _lost(record: EngineRecord) -> LaunchContextLost:
    return LaunchContextLost(
        f"the arguments of {record.name!r} contain secrets, which llmtop does not store, "
        "and its process cannot be read",
        f"stop it and start it again: llmtop run {record.spec.kind} … --name {record.name}",
    )


def _entries(pid: int, name: str) -> tuple[str, ...]:
    try:
        raw = (PROC / str(pid) / name).read_bytes()
    except OSError:
        return ()
    return tuple(os.fsdecode(entry) for entry in raw.removesuffix(b"\0").split(b"\0"))
