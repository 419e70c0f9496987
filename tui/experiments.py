"""Searches and comparisons as the screen knows them: what is asked for, and where each stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llmtop.loadgen.plan import Prompts
from llmtop.tui.words import value_words

if TYPE_CHECKING:
    from llmtop.engines.options import OptionValue
    from llmtop.loadgen.duel import CompareResult, Standing
    from llmtop.loadgen.saturate import Progress, SaturationResult
    from llmtop.loadgen.slo import Slo
    from llmtop.tui.curves import Curve

PREPARING = "starting the load"


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """A search for what ``engine`` holds. top: streams at most. seconds: of each level's window."""

    engine: str
    slo: Slo | None
    top: int = 1024
    seconds: float = 8.0
    prompts: Prompts = field(default_factory=Prompts)


@dataclass(frozen=True, slots=True)
class SearchState:
    """A search at one moment. result: what is known by now. progress: None before the first level
    and after the end. over: it has ended. trouble: why it ended early, "" when it was let go on or
    was stopped on purpose.
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
        """What it does, for who wants to do something else."""
        return f"a search on {self.plan.engine}"


@dataclass(frozen=True, slots=True)
class ComparisonPlan:
    """A against B: two values of a live option of ``engine``, or ``engine`` against ``other``.

    level: streams in every run. seconds: of each run's window. pairs: even.
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
        """What tells A from B."""
        if self.other is not None:
            return self.engine, self.other
        return f"{self.option}={_value(self, self.a)}", f"{self.option}={_value(self, self.b)}"


@dataclass(frozen=True, slots=True)
class ComparisonState:
    """A comparison at one moment. standing: None before the first run and after the end.

    back: what became of the option at the end, in words; "" before.
    """

    plan: ComparisonPlan
    began: float
    result: CompareResult
    standing: Standing | None = None
    over: bool = False
    trouble: str = ""
    back: str = ""

    @property
    def words(self) -> str:
        """What it does, for who wants to do something else."""
        return f"a comparison on {self.plan.engine}"


def _value(plan: ComparisonPlan, value: OptionValue) -> str:
    return value_words(plan.option, value)
