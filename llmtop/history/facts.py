"""The lines of a recording as values (docs/reference/recording.md). One fact is one line.

Times are unix seconds on the clock of the process that recorded. ``None`` means unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct, field

from llmtop.analysis.cost import Cost
from llmtop.analysis.events import Event
from llmtop.analysis.marks import Mark
from llmtop.diagnosis.causes import Explanation
from llmtop.diagnosis.state_rules import LoadState
from llmtop.engines.core.conditions import Condition
from llmtop.engines.core.options import Applies, OptionValue, RankValue
from llmtop.engines.core.records import EngineStatus
from llmtop.engines.core.samples import EngineSample, GpuSample
from llmtop.engines.logs.memory_report import MemoryReport
from llmtop.history.load_rows import LoadRow

FORMAT = 1


class Fact(Struct, frozen=True, tag_field="kind", omit_defaults=True):
    """One line. time: the moment at which it was true."""

    time: float


class Host(Struct, frozen=True):
    """The machine that recorded. driver: the version of its GPU driver."""

    system: str = ""
    cores: int | None = None
    memory_bytes: int | None = None
    driver: str = ""


class Head(Fact, frozen=True, tag="head"):
    """The first line of each member.

    llmtop: the version that wrote the file. began: when the recording began. interval: seconds
    between two samples. source: where the numbers come from, "" for llmtop's own sampling.
    """

    format: int = FORMAT
    llmtop: str = ""
    began: float = 0.0
    interval: float = 1.0
    title: str = ""
    source: str = ""
    host: Host = field(default_factory=Host)


class OptionFact(Struct, frozen=True, omit_defaults=True):
    """One option of an engine. launch: its value at the launch. type: int, float, bool or str."""

    name: str
    value: OptionValue = None
    launch: OptionValue = None
    applies: Applies = Applies.RESTART
    flag: str = ""
    summary: str = ""
    type: str = "int"
    default: OptionValue = None
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    pending: OptionValue = None
    note: str = ""
    obstacle: str = ""
    ranks: tuple[RankValue, ...] = ()


class EngineFact(Fact, frozen=True, tag="engine"):
    """The identity of an engine, and its options. engine: its kind, such as vllm."""

    name: str
    engine: str
    title: str = ""
    url: str = ""
    owned: bool = False
    simulated: bool = False
    version: str | None = None
    model: str | None = None
    options: tuple[OptionFact, ...] = ()
    options_note: str = ""


class StatusFact(Fact, frozen=True, tag="status"):
    """The state of an engine that llmtop started."""

    name: str
    status: EngineStatus


class SampleFact(Fact, frozen=True, tag="sample"):
    """One sample of an engine. sample None: the engine no longer reports numbers."""

    name: str
    sample: EngineSample | None


class SeriesFact(Fact, frozen=True, tag="series"):
    """One point of each series of an engine's charts, by series name. None is a gap."""

    name: str
    values: Mapping[str, float | None]


class StateFact(Fact, frozen=True, tag="state"):
    """The state of an engine: its diagnosis, its errors, and since when its numbers are stale."""

    name: str
    finding: LoadState | None = None
    stale_since: float | None = None
    trouble: str = ""
    conditions: tuple[Condition, ...] = ()
    log_tail: str = ""
    memory: MemoryReport | None = None
    cost: Cost | None = None


class GpusFact(Fact, frozen=True, tag="gpus"):
    """All GPUs of the machine. note: why no GPU is shown."""

    gpus: tuple[GpuSample, ...] = ()
    note: str = ""


class LoadFact(Fact, frozen=True, tag="load"):
    """The load that llmtop sends. target: the name of the engine that gets it."""

    load: LoadRow
    target: str | None = None


class MarkFact(Fact, frozen=True, tag="mark"):
    """A change of an engine or of its load."""

    name: str
    mark: Mark


class EventFact(Fact, frozen=True, tag="event"):
    """A line of the event list."""

    event: Event


class LogFact(Fact, frozen=True, tag="log"):
    """Lines of an engine's log, with secrets redacted."""

    name: str
    lines: tuple[str, ...]


class SelectFact(Fact, frozen=True, tag="select"):
    """The engine that the screen shows in detail."""

    name: str | None


class StepsFact(Fact, frozen=True, tag="steps"):
    """Scheduler steps of one rank, by column. All columns have the same length.

    A column that is absent is unknown. lost: steps since the previous line that were not read.
    read: when the engine was asked, in seconds relative to ``time``. coded, same: how the file
    stores the columns (``step_columns``). ``decode`` restores the columns and returns the fact with
    coded 0 and same {}.
    """

    name: str
    columns: Mapping[str, tuple[float | None, ...]]
    rank: int = 0
    lost: int = 0
    read: float = 0.0
    coded: int = 0
    same: Mapping[str, float | None] = {}


class CausesFact(Fact, frozen=True, tag="causes"):
    """The causes of an engine's state. since: when the present main cause became the main one."""

    name: str
    why: Explanation | None = None
    since: float | None = None


class OtherProcessesFact(Fact, frozen=True, tag="company"):
    """What other processes do with an engine.

    hold: the status of a ``hold``, as that process reports it. shared_load: the load of another
    llmtop, as that process reports it. steps_missing: why the engine's steps are not shown.
    """

    name: str
    hold: Mapping[str, Any] | None = None
    shared_load: Mapping[str, Any] | None = None
    steps_missing: str = ""


class SeriesSummary(Struct, frozen=True, array_like=True):
    """The values of one series in one minute: lowest, mean, highest. n: the number of points."""

    low: float
    mean: float
    high: float
    n: int


class SummaryFact(Fact, frozen=True, tag="summary"):
    """An engine's charts in the ``span_s`` seconds before ``time``, by series name."""

    name: str
    values: Mapping[str, SeriesSummary]
    span_s: float = 60.0


class OutcomeFact(Fact, frozen=True, tag="outcome"):
    """The result of a command: the document that its ``--json`` prints.

    command: load, saturate, compare, tune or hold. name: the engine. histograms: the latencies of
    the answered requests of a load, by ``ttft``, ``tpot`` and ``e2e``. Each is a list of pairs: the
    upper bound of a bucket in seconds, and its count.
    """

    command: str
    name: str
    document: msgspec.Raw = msgspec.Raw(b"null")
    histograms: Mapping[str, tuple[tuple[float, int], ...]] = {}


class EndFact(Fact, frozen=True, tag="end"):
    """The last line of a complete recording. reason: why it ended, in a few words."""

    reason: str = ""


KINDS: tuple[type[Fact], ...] = (
    Head, EngineFact, StatusFact, SampleFact, SeriesFact, StateFact, GpusFact, LoadFact, MarkFact,
    EventFact, LogFact, SelectFact, StepsFact, CausesFact, OtherProcessesFact, SummaryFact,
    OutcomeFact, EndFact,
)  # fmt: skip
