"""Searches, comparisons and tunes on the screen: their parameters and their progress."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Struct, field

from llmtop.loadgen.workload.plan import Prompts
from llmtop.wording.sentences import value_words

if TYPE_CHECKING:
    from llmtop.engines.core.options import OptionValue
    from llmtop.loadgen.experiments.comparison import CompareResult, ComparisonProgress
    from llmtop.loadgen.experiments.saturation import Progress, SaturationResult
    from llmtop.loadgen.experiments.slo import Slo
    from llmtop.operations.curves import Curve
    from llmtop.operations.slo.tuner import Tried, TuneReport

PREPARING = "starting the load"
EVERY_ROLE = ("batch_limit", "queue_limit", "token_budget", "draft_tokens", "prefill_threshold")


class SearchPlan(Struct, frozen=True):
    """A search for the capacity of ``engine``.

    slo: latency limits; None: none. top: the highest number of streams. seconds: length of each
    level's window.
    """

    engine: str
    slo: Slo | None
    top: int = 1024
    seconds: float = 8.0
    prompts: Prompts = field(default_factory=Prompts)


class SearchState(Struct, frozen=True):
    """A search at one moment. began: on the screen's clock. result: so far.

    progress: None before the first level and after the end. over: it has ended. trouble: why it
    ended early; "" if it did not, or if the operator stopped it.
    """

    plan: SearchPlan
    began: float
    curve: Curve
    result: SaturationResult
    progress: Progress | None = None
    over: bool = False
    trouble: str = ""

    @property
    def words(self) -> str:
        """What is running, for the refusal of another command."""
        return f"a search on {self.plan.engine}"


class ComparisonPlan(Struct, frozen=True):
    """A against B: two values of a live option of ``engine``, or ``engine`` against ``other``.

    level: streams in every run. seconds: length of each run's window. pairs: number of run pairs,
    even. prompts: of all runs.
    """

    engine: str
    option: str = ""
    a: OptionValue = None
    b: OptionValue = None
    other: str | None = None
    level: int = 32
    pairs: int = 8
    seconds: float = 8.0
    prompts: Prompts = field(default_factory=Prompts)

    @property
    def labels(self) -> tuple[str, str]:
        """The names of A and B: the engines, or the option with each value."""
        if self.other is not None:
            return self.engine, self.other
        return f"{self.option}={_value(self, self.a)}", f"{self.option}={_value(self, self.b)}"


class ComparisonState(Struct, frozen=True):
    """A comparison at one moment. began: on the screen's clock.

    standing: the progress; None before the first run and after the end. trouble: why it ended
    early, "" if it did not. back: the final state of the option, in words; "" before the end.
    """

    plan: ComparisonPlan
    began: float
    result: CompareResult
    standing: ComparisonProgress | None = None
    over: bool = False
    trouble: str = ""
    back: str = ""

    @property
    def words(self) -> str:
        """What is running, for the refusal of another command."""
        return f"a comparison on {self.plan.engine}"


class TunePlan(Struct, frozen=True):
    """A search for the settings of ``engine`` that serve the most requests within limits.

    level: requests a second (``is_open``), or streams. seconds: length of each run. roles: the
    options that may be changed, by role: see ``EVERY_ROLE``. most_s: seconds after which the
    verdict is given at the latest; None: no limit.
    """

    engine: str
    slo: Slo
    level: float
    is_open: bool = True
    seconds: float = 8.0
    roles: tuple[str, ...] = EVERY_ROLE
    prompts: Prompts = field(default_factory=Prompts)
    most_s: float | None = None


class TuneState(Struct, frozen=True):
    """A tune at one moment. began: on the screen's clock. own: the operator's settings by option.

    tried: in the order of the search, the operator's own settings first. now: the settings that are
    measured; None between two runs. phase: the work between two runs. runs: completed runs. left:
    estimated runs left. left_s: estimated seconds left; None before an estimate exists. report: set
    at the end. launch_line: the command that launches the engine with the settings found, "" for
    none. trouble: why it ended early, "" if it did not. back: the final state of the options, in
    words; "" before the end.
    """

    plan: TunePlan
    began: float
    own: Mapping[str, int] = field(default_factory=dict)
    tried: tuple[Tried, ...] = ()
    now: Mapping[str, int] | None = None
    phase: str = PREPARING
    runs: int = 0
    left: int = 0
    left_s: float | None = None
    report: TuneReport | None = None
    launch_line: str = ""
    over: bool = False
    trouble: str = ""
    back: str = ""

    @property
    def words(self) -> str:
        """What is running, for the refusal of another command."""
        return f"a tune of {self.plan.engine}"


def _value(plan: ComparisonPlan, value: OptionValue) -> str:
    return value_words(plan.option, value)
