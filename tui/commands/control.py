"""Commands down: what the keys can ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn, Protocol

from llmtop import LlmtopError
from llmtop.engines.core.options import Change, OptionValue

if TYPE_CHECKING:
    from llmtop.engines.core.requests import Aborted, RequestSort, RequestTable
    from llmtop.engines.state.temporary_changes import Purpose
    from llmtop.engines.supervision.restart import Restarted
    from llmtop.loadgen.workload.plan import Plan, Prompts
    from llmtop.tui.commands.experiment_requests import ComparisonPlan, SearchPlan, TunePlan
    from llmtop.tui.commands.forecast_requests import CurveQuestion, EffectQuestion


class EngineLog(Protocol):
    """A log that is read on and on."""

    async def more(self) -> list[str]:
        """What came since the last call, at first the log's end; the screen cleans it."""


class Control:
    """All that the screen can do to the world. What comes of it returns through the store.

    Every method raises ``LlmtopError`` when it cannot be done; the screen words it as an event. A
    control overrides what it can do: all else is refused.
    """

    def _refuse(self) -> NoReturn:
        raise LlmtopError("this screen cannot do that")

    async def more(self) -> None:
        """One level more load; without a load, start one at its lowest level."""
        self._refuse()

    async def less(self) -> None:
        """One level less load."""
        self._refuse()

    async def hold(self) -> None:
        """Hold the load at its level; if it is held, continue its shape."""
        self._refuse()

    async def burst(self) -> None:
        """A short burst on top of the load."""
        self._refuse()

    async def stop_load(self) -> None:
        """Send nothing more; requests in flight finish."""
        self._refuse()

    async def start_again(self) -> None:
        """The last load once more: its shape from the beginning, or the level it was held at."""
        self._refuse()

    async def cut_load(self) -> None:
        """End the load at once; requests in flight are cut."""
        self._refuse()

    async def switch_loop(self) -> None:
        """From streams to requests a second or back, holding what is achieved now."""
        self._refuse()

    async def freeze(self) -> None:
        """Hold the load where it is; nothing where none runs, or it is held already."""
        self._refuse()

    async def load(self, plan: Plan, prompts: Prompts | None = None) -> None:
        """Load the selected engine in this shape; a running load takes it over.

        prompts: what is asked from now on, None for what was asked so far. A running load is then
        cut: its requests are of another kind.
        """
        self._refuse()

    async def set_option(
        self,
        engine: str,
        option: str,
        value: OptionValue,
        *,
        evict: bool = False,
        purpose: Purpose | None = None,
    ) -> Change:
        """Change an option of a running engine. evict: put running requests back to make room.

        purpose: what it is changed for, when that is for a while.
        """
        self._refuse()

    async def restart(
        self,
        engine: str,
        changes: Mapping[str, OptionValue],
        *,
        flags: tuple[str, ...] = (),
        rolling: bool = False,
    ) -> Restarted:
        """Restart an engine with new option values. Its load stops cleanly and comes back after.

        flags: of the engine, as they are, in place of what it got for the same ones. rolling: start
        the new one beside it and move the load over; nothing is cut. Returns when an engine is
        ready: the new one, or the last good one when the new one did not start.
        """
        self._refuse()

    async def start_search(self, plan: SearchPlan) -> None:
        """Begin a search for what an engine holds; a load that runs is stopped first.

        It runs in the background, in ``Store.search``. Until its end load and options are its own.
        """
        self._refuse()

    async def start_comparison(self, plan: ComparisonPlan) -> None:
        """Begin a comparison, in ``Store.comparison``; a load that runs is stopped first."""
        self._refuse()

    async def start_tune(self, plan: TunePlan) -> None:
        """Begin a tune, in ``Store.tune``; a load that runs is stopped first.

        However it ends, the options are put back.
        """
        self._refuse()

    async def stop_experiment(self) -> None:
        """End the search or comparison that runs; what is known is kept, options are put back."""
        self._refuse()

    async def recall_curves(self, engine: str) -> None:
        """Bring the curves of earlier sessions on this kind of engine into ``Store.curves``."""
        self._refuse()

    async def stop_engine(self, engine: str) -> None:
        """End an engine that llmtop started, after the load on it."""
        self._refuse()

    async def start_hold(self, engine: str, slo: str) -> None:
        """Keep an engine within latency limits, by a process in the background."""
        self._refuse()

    async def end_hold(self, engine: str) -> None:
        """End that; the operator's values return."""
        self._refuse()

    def expect(self, question: EffectQuestion | None) -> None:
        """Forecast what a value would do, in ``Store.effect``, in place of what was asked before.

        None: nothing is asked any more.
        """
        self._refuse()

    def expect_curve(self, question: CurveQuestion) -> None:
        """Forecast the throughput at each number of streams, in ``Store.curve_forecast``."""
        self._refuse()

    def expect_advised(self, engine: str) -> None:
        """Forecast what the changes that ``why`` advises would bring, in the engine's track."""
        self._refuse()

    async def requests(self, engine: str, sort: RequestSort, limit: int) -> RequestTable:
        """The requests inside an engine, sorted and cut by the engine."""
        self._refuse()

    async def abort(self, engine: str, ids: Sequence[str]) -> Aborted:
        """End requests by their ids."""
        self._refuse()

    def open_log(self, engine: str, count: int) -> EngineLog:
        """An engine's log from its last ``count`` lines on."""
        self._refuse()

    async def record(self) -> None:
        """Begin to record what is seen into a file, or end the recording that runs."""
        self._refuse()

    async def select(self, engine: str) -> None:
        """Make an engine the one that the screen and the load keys are about."""
        self._refuse()

    async def quit(self, stop_engines: bool) -> None:
        """End the load and, if asked to, the engines that llmtop started. The app ends after it."""
        self._refuse()


def refusal(error: Exception) -> str:
    """What went wrong with a command, in one line: the message and the way out."""
    if isinstance(error, LlmtopError):
        return f"{error.message}: {error.hint}" if error.hint else error.message
    return f"{type(error).__name__}: {error}"
