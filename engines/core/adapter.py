"""The seam that an engine fits into: mostly tables, and two functions that build and read.

Adding an engine is one module that makes an ``Adapter`` and one line in ``registry``.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from msgspec import Struct, field

from llmtop.engines.core.live_protocol import LiveState
from llmtop.engines.core.options import Change, OptionSpec, OptionValue
from llmtop.engines.core.records import LaunchSpec
from llmtop.engines.core.samples import Latency, Reading
from llmtop.engines.core.steps import StepMoments
from llmtop.trust import Trust


class MetricText(Protocol):
    """Exposition text, parsed: what an adapter's ``read`` looks names up in."""

    def value(self, name: str, **labels: str) -> float | None:
        """Sum over the series of a sample name whose labels match; None when there is none."""

    def series(self, name: str) -> Sequence[tuple[Mapping[str, str], float]]:
        """All series of a sample name with their labels."""


class SeriesNames(Struct, frozen=True):
    """The sample names that an adapter's ``read`` looks up, in all versions that it reads.

    For who gets the samples elsewhere than from the engine's page, and must ask by name.
    running: the gauge of running requests, whose presence says that a page is this engine's.
    values: gauges and counters. histograms: by what they measure, without ``_bucket`` and ``_sum``.
    """

    running: tuple[str, ...]
    values: tuple[str, ...]
    histograms: Mapping[Latency, tuple[str, ...]]


class Reader(Protocol):
    """Reads one engine's numbers again and again; one reader for each engine, and one loop."""

    @property
    def note(self) -> str:
        """What cannot be read just now and why, in a few words; "" when all is well."""

    async def read(self) -> Reading:
        """One moment. Raises ScrapeError when the engine reports nothing at all."""

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


# (URL of the server, its API key or "", whom an encrypted connection believes)
MakeLive = Callable[[str, str, Trust], Live]

# (the operator's arguments, new values by option name) -> the arguments for a start with them
WithOptions = Callable[[Sequence[str], Mapping[str, OptionValue]], tuple[str, ...]]


class Phase(Struct, frozen=True):
    """A step of an engine's start: its word on screen and the log line at which it begins."""

    word: str
    begins: re.Pattern[str]


class Kind(StrEnum):
    """What a failure pattern recognises."""

    CAUSE = "cause"
    VAGUE = "vague"  # it names the tool that failed, and the reason stands elsewhere
    EFFECT = "effect"  # another error is the reason: never reported while there is a cause


class FailurePattern(Struct, frozen=True):
    """An error that explains why an engine died, in plain words, and what to try.

    cause and advice may name groups of the pattern as ``{name}``, and the engine's own words
    (``Adapter.failure_words``) too. Of the errors in a log llmtop takes the most certain one; of
    several, the innermost; then the earliest. In its text the patterns are tried in the order of
    the table: the first that matches wins. The text has several lines. Limit what a pattern skips,
    such as ``[^\\n]{0,60}``; allow a line end only where the pattern must cross one.
    """

    expression: str
    cause: str
    advice: str
    kind: Kind = Kind.CAUSE

    @property
    def pattern(self) -> re.Pattern[str]:
        """The expression, compiled when one looks: most engines never fail, and a table takes
        milliseconds that the first picture would wait for."""
        return re.compile(self.expression, re.MULTILINE)  # ^ and $ are those of each line


def _no_files(spec: LaunchSpec) -> Mapping[str, str]:
    return {}


def _full(flag: str) -> str:
    return flag


def _keeps_none(args: Sequence[str]) -> int:
    return 0


def _one_scheduler(args: Sequence[str]) -> tuple[int, ...]:
    return ()


def _plain(args: Sequence[str]) -> str:
    return ""


def _tells_nothing(command: Sequence[str]) -> Mapping[str, OptionValue]:
    return {}


class StepSums(Struct, frozen=True):
    """Where an engine reports sums over its decode steps without a plugin: a path of its server,
    and what reads the answer; () where it holds none."""

    path: str
    read: Callable[[str], tuple[StepMoments, ...]]


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
    renamed: another prefix and the original, for collectors that rename all metrics (``vllm_`` for
    ``vllm:``). without_metrics: advice when there is no metrics page: the flag that enables it.
    options: each option that llmtop can show or change. launch_options: their launch values by
    name, as far as the operator's arguments (``LaunchSpec.args``) tell them.
    with_options: the other way round, for a restart; None where each option has a flag of its own
    (``tuning.argv_editor``).
    long_flag: a flag's full name, for engines that take a second name for some.
    failures: what its log says of its own ends, tried before what any engine's may say.
    failure_words: its flags, for advice that holds for every engine (``failures.words``).
    effective: log lines in which a start reports what the engine itself decided for options, see
    ``logs.reported_options``.
    memory: log lines in which a start reports what its parts take of a GPU's memory, see
    ``logs.memory_report``.
    files: name and text of what is written into ``LaunchSpec.folder`` before the launch, for its
    owner alone; the command names them by that folder. make_reader: None where one GET of
    ``metrics_path`` and ``read`` tell all, which is so wherever asking changes nothing.
    kept_requests: how many requests that ended an engine with these arguments keeps the latencies
    of for its reader, which then has ``latencies``; 0: none.
    live_ranks: the data-parallel ranks that the operator's arguments start, each with a live-option
    socket of its own (``rank_sockets``); () where there is one scheduler, or they do not say.
    certificate: the file of the certificate that an engine with these arguments shows, "" when it
    serves plain HTTP; raises UsageError for arguments that cannot work.
    series: the names that ``read`` looks up; None: they are not known without its page.
    stock_live: for an engine that llmtop did not start, what it lets everybody with its key change
    over HTTP while it runs; None where it has no such thing.
    step_sums: where it reports sums over its steps; None where it does not.
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
    failure_words: Mapping[str, str] = MappingProxyType({})
    effective: tuple[re.Pattern[str], ...] = ()
    memory: tuple[re.Pattern[str], ...] = ()
    ready_path: str = "/health"
    metrics_path: str = "/metrics"
    simulated: bool = False
    default_model: str = ""
    min_version: str = ""
    renamed: Mapping[str, str] = field(default_factory=dict)
    without_metrics: str = ""
    program: tuple[str, ...] = ()
    module: str = ""
    api_key_variable: str = ""
    launch_options: Callable[[Sequence[str]], Mapping[str, OptionValue]] = _tells_nothing
    with_options: WithOptions | None = None
    long_flag: Callable[[str], str] = _full
    files: Callable[[LaunchSpec], Mapping[str, str]] = _no_files
    make_reader: MakeReader | None = None
    kept_requests: Callable[[Sequence[str]], int] = _keeps_none
    live_ranks: Callable[[Sequence[str]], tuple[int, ...]] = _one_scheduler
    certificate: Callable[[Sequence[str]], str] = _plain
    stock_live: MakeLive | None = None
    series: SeriesNames | None = None
    step_sums: StepSums | None = None
