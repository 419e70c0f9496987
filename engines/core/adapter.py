"""The interface of an engine: tables, a function that builds the command, and one that reads.

A new engine is one folder with an ``Adapter``, and one line in ``registry``.
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
from llmtop.engines.core.steps import StepMoments, Steps
from llmtop.trust import Trust


class MetricText(Protocol):
    """Parsed exposition text, in which an adapter's ``read`` looks up names."""

    def value(self, name: str, **labels: str) -> float | None:
        """Sum over the series of a sample name whose labels match; None when there is none."""

    def series(self, name: str) -> Sequence[tuple[Mapping[str, str], float]]:
        """All series of a sample name with their labels."""


class SeriesNames(Struct, frozen=True):
    """The sample names that an adapter's ``read`` looks up, in all versions that it reads.

    A Prometheus server needs these names: it returns series by name, not the engine's page.
    running: the gauge of running requests, whose presence says that a page is this engine's.
    values: gauges and counters. histograms: by what they measure, without ``_bucket`` and ``_sum``.
    """

    running: tuple[str, ...]
    values: tuple[str, ...]
    histograms: Mapping[Latency, tuple[str, ...]]


class Reader(Protocol):
    """Reads one engine's numbers repeatedly. Each engine has its own reader, used in one loop."""

    @property
    def note(self) -> str:
        """What cannot be read at present and why, in a few words; "" without a problem."""

    @property
    def steps(self) -> Steps | None:
        """The newest steps, where the engine's own page reports them; else None."""

    def give_way(self) -> None:
        """From now on leave to others what only one may read, as soon as they want it."""

    async def read(self) -> Reading:
        """One reading. Raises ScrapeError when the engine reports nothing."""

    async def close(self) -> None:
        """Release connections and files. The reader is not used again."""


# (URL of the server, GET of a text, folder of locks that every llmtop of this user knows or None)
MakeReader = Callable[[str, Callable[[str], Awaitable[str]], Path | None], Reader]


class Live(Protocol):
    """Reads and changes the options of a running engine. Every failure raises LiveError."""

    async def get(self) -> LiveState:
        """The options that the engine can change, with the values in force."""

    async def set(
        self,
        changes: Mapping[str, int],
        *,
        evict: bool = False,
        by: str = "",
        wait_s: float = 1.0,
    ) -> tuple[Change, ...]:
        """Request changes. Returns one ``Change`` for each, in the order given."""

    async def close(self) -> None:
        """Close the connections."""


# (URL of the server, its API key or "", the certificates to trust over TLS)
MakeLive = Callable[[str, str, Trust], Live]

# (the operator's arguments, new values by option name) -> the arguments with these values
WithOptions = Callable[[Sequence[str], Mapping[str, OptionValue]], tuple[str, ...]]


class Phase(Struct, frozen=True):
    """A phase of an engine's start: its name on screen and the log line at which it begins."""

    word: str
    begins: re.Pattern[str]


class Kind(StrEnum):
    """What kind of error a failure pattern recognises."""

    CAUSE = "cause"
    VAGUE = "vague"  # names the tool that failed; another error gives the reason
    EFFECT = "effect"  # a result of another error: never reported if there is a cause


class FailurePattern(Struct, frozen=True):
    """An error that explains why an engine failed, in plain words, and what to try.

    cause and advice may contain groups of the pattern as ``{name}``, and the engine's words
    (``Adapter.failure_words``). llmtop chooses the most certain error of a log, then the innermost,
    then the earliest. It tries the patterns on the text of that error in the order of the table:
    the first match wins. The text has several lines. Limit what a pattern skips, such as
    ``[^\\n]{0,60}``. Match a line end only where the pattern must cross one.
    """

    expression: str
    cause: str
    advice: str
    kind: Kind = Kind.CAUSE

    @property
    def pattern(self) -> re.Pattern[str]:
        """The expression, compiled at first use: most engines never fail, and compiling a table
        would delay the first screen by milliseconds."""
        return re.compile(self.expression, re.MULTILINE)  # ^ and $ match at each line


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
    """Where an engine reports sums over its decode steps without a plugin.

    path: of its server. read: parses the response; () where it has no sums.
    """

    path: str
    read: Callable[[str], tuple[StepMoments, ...]]


class Adapter(Struct, frozen=True):
    """Everything that llmtop knows about one kind of engine.

    command: the argument vector for a launch: ``LaunchSpec.program``, the engine's subcommand,
    its arguments. environment: variables to add, from the path of the live-option socket and the
    environment to which they are added.
    default_model: the model that is served when the operator names none; "" when a model is
    required.
    program: the default program. module: its module for ``PYTHON -m``, "" when it has none.
    ``--bin PATH`` makes the program (PATH,) and ``--python PATH`` makes it (PATH, "-m", module).
    api_key_variable: the environment variable with its API key; "" when the engine has only a flag,
    which every user of the machine can read.
    prefixes: of the exposition lines to parse. read: (parsed text, unix seconds, monotonic
    seconds) -> Reading. min_version: the oldest version that the adapter supports.
    renamed: another prefix and the original, for collectors that rename all metrics (``vllm_`` for
    ``vllm:``). without_metrics: advice when there is no metrics page: the flag that enables it.
    options: the options that llmtop can show or change. launch_options: their launch values by
    name, as far as the operator's arguments (``LaunchSpec.args``) contain them.
    with_options: the reverse, for a restart; None where each option has its own flag
    (``tuning.argv_editor``).
    long_flag: a flag's full name, for engines whose flags have aliases.
    failures: patterns of this engine's errors, tried before the general ones.
    failure_words: its flags, for advice that holds for every engine (``failures.words``).
    effective: log lines of a start that report option values which the engine chose, see
    ``logs.reported_options``.
    memory: log lines of a start that report the GPU memory of its parts, see
    ``logs.memory_report``.
    files: names and texts of files that are written into ``LaunchSpec.folder`` before the launch.
    Only their owner can read them. make_reader: None where one GET of ``metrics_path`` and ``read``
    suffice: wherever a GET has no side effect.
    kept_requests: for how many finished requests an engine with these arguments keeps latencies
    for its reader, which then has ``latencies``; 0: none.
    live_ranks: the data-parallel ranks that the operator's arguments start. Each has its own
    live-option socket (``rank_sockets``). () with one scheduler, or if the arguments do not say.
    certificate: the TLS certificate file of an engine with these arguments, "" when it serves
    plain HTTP; raises UsageError for invalid arguments.
    series: the names that ``read`` looks up; None: unknown without its page.
    stock_live: what anyone with the API key can change over HTTP in a running engine that llmtop
    did not start; None where the engine has no such interface.
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
