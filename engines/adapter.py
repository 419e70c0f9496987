"""The seam that an engine fits into: mostly tables, and two functions that build and read.

Adding an engine is one module that makes an ``Adapter`` and one line in ``catalog``.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from llmtop.engines.live_answer import LiveState
from llmtop.engines.options import Change, OptionSpec, OptionValue
from llmtop.engines.records import LaunchSpec
from llmtop.engines.samples import Reading


class MetricText(Protocol):
    """Exposition text, parsed: what an adapter's ``read`` looks names up in."""

    def value(self, name: str, **labels: str) -> float | None:
        """Sum over the series of a sample name whose labels match; None when there is none."""

    def series(self, name: str) -> Sequence[tuple[Mapping[str, str], float]]:
        """All series of a sample name with their labels."""


class Reader(Protocol):
    """Reads one engine's numbers again and again; one reader for each engine, and one loop."""

    @property
    def note(self) -> str:
        """What cannot be read just now and why, in a few words; "" when all is well."""

    async def read(self) -> Reading:
        """One moment. Raises ScrapeError when the engine tells nothing at all."""

    async def close(self) -> None:
        """Let go of whatever is held. The reader is not used again."""


# (URL of the server, GET of a text, folder of locks that every llmtop of this user knows or None)
MakeReader = Callable[[str, Callable[[str], Awaitable[str]], Path | None], Reader]


class Live(Protocol):
    """Asks a running engine for its options and changes them; every failure is a LiveError."""

    async def get(self) -> LiveState:
        """What the engine can change, and what is in force."""

    async def set(
        self,
        changes: Mapping[str, int],
        *,
        evict: bool = False,
        by: str = "",
        wait_s: float = 1.0,
    ) -> tuple[Change, ...]:
        """Ask for changes; one ``Change`` for each, in the order given."""

    async def close(self) -> None:
        """Give the connections back."""


# (URL of the server, its API key or "")
MakeLive = Callable[[str, str], Live]

# (the operator's arguments, new values by option name) -> the arguments for a start with them
WithOptions = Callable[[Sequence[str], Mapping[str, OptionValue]], tuple[str, ...]]


class Phase(Struct, frozen=True):
    """A step of an engine's start: its word on screen and the log line at which it begins."""

    word: str
    begins: re.Pattern[str]


class FailurePattern(Struct, frozen=True):
    """A log line that explains why an engine died, in plain words, and what to try.

    cause and advice may name groups of the pattern as ``{name}``. Patterns are tried in the order
    of the table over the whole log: the first pattern that matches anywhere wins.
    """

    expression: str
    cause: str
    advice: str

    @property
    def pattern(self) -> re.Pattern[str]:
        """The expression, compiled when one looks: most engines never fail, and a table takes
        milliseconds that the first picture would wait for."""
        return re.compile(self.expression)


def _no_files(spec: LaunchSpec) -> Mapping[str, str]:
    return {}


def _tells_nothing(command: Sequence[str]) -> Mapping[str, OptionValue]:
    return {}


class Adapter(Struct, frozen=True):
    """All that llmtop knows about one kind of engine.

    command: the argument vector for a launch; it puts the engine's own subcommand behind
    ``LaunchSpec.program``. environment: what to add to the environment, given the path of the
    live-option socket and the environment that it will be added to.
    default_model: what is served when no model is named, "" when one must be.
    program: how the engine is called when nothing else is said. module: what stands for it behind
    ``PYTHON -m``, "" when it has none; ``--bin PATH`` makes the program (PATH,) and
    ``--python PATH`` makes it (PATH, "-m", module).
    api_key_variable: the environment variable that it takes its API key from, "" when it only has
    a flag for it, which everybody on the machine can read.
    prefixes: exposition lines that begin with one of these are worth parsing. read: (parsed text,
    unix seconds, monotonic seconds) -> Reading. min_version: the oldest that it was built for.
    options: each option that llmtop can show or change. launch_options: their launch values by
    name, as far as the operator's arguments (``LaunchSpec.args``) tell them.
    with_options: the other way round, for a restart; None where each option has a flag of its own
    (``rewrite.rewritten``).
    effective: log lines in which a start tells what the engine itself decided for options, see
    ``effective.find_effective``.
    memory: log lines in which a start reports what its parts take of a GPU's memory, see
    ``anatomy.find_anatomy``.
    files: name and text of what is written into ``LaunchSpec.folder`` before the launch, for its
    owner alone; the command names them by that folder. make_reader: None where one GET of
    ``metrics_path`` and ``read`` tell all, which is so wherever asking changes nothing.
    stock_live: for an engine that llmtop did not start, what it lets everybody with its key change
    over HTTP while it runs; None where it has no such thing.
    """

    kind: str
    title: str
    default_port: int
    command: Callable[[LaunchSpec], tuple[str, ...]]
    environment: Callable[[LaunchSpec, Path, Mapping[str, str]], dict[str, str]]
    read: Callable[[MetricText, float, float], Reading]
    prefixes: tuple[str, ...]
    options: tuple[OptionSpec, ...]
    phases: tuple[Phase, ...] = ()
    failures: tuple[FailurePattern, ...] = ()
    effective: tuple[re.Pattern[str], ...] = ()
    memory: tuple[re.Pattern[str], ...] = ()
    ready_path: str = "/health"
    metrics_path: str = "/metrics"
    simulated: bool = False
    default_model: str = ""
    min_version: str = ""
    program: tuple[str, ...] = ()
    module: str = ""
    api_key_variable: str = ""
    launch_options: Callable[[Sequence[str]], Mapping[str, OptionValue]] = _tells_nothing
    with_options: WithOptions | None = None
    files: Callable[[LaunchSpec], Mapping[str, str]] = _no_files
    make_reader: MakeReader | None = None
    stock_live: MakeLive | None = None
