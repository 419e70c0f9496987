"""The commands that keys can trigger."""

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
    """A log that is read continuously."""

    async def more(self) -> list[str]:
        """The lines since the last call; the first call returns the log's end.

        The lines are raw: control characters are not removed.
        """


class Control:
    """All commands of the screen. Their results appear in the store.

    Every method raises ``LlmtopError`` on failure; the screen shows the error as an event. A
    subclass overrides the commands that it supports; all others are refused.
    """

    def _refuse(self) -> NoReturn:
        raise LlmtopError("this screen cannot do that")

    async def more(self) -> None:
        """Raise the load by one level; without a load, start one at the lowest level."""
        self._refuse()

    async def less(self) -> None:
        """Lower the load by one level."""
        self._refuse()

    async def hold(self) -> None:
        """Hold the load at its level; if it is held already, continue its shape."""
        self._refuse()

    async def burst(self) -> None:
        """Raise the load for a few seconds, then return to the level before."""
        self._refuse()

    async def stop_load(self) -> None:
        """Send nothing more; requests in flight finish."""
        self._refuse()

    async def start_again(self) -> None:
        """Repeat the last load: its shape from the beginning, or the level it was held at."""
        self._refuse()

    async def cut_load(self) -> None:
        """End the load at once; requests in flight are cancelled."""
        self._refuse()

    async def switch_loop(self) -> None:
        """Switch between streams and requests a second, and hold the achieved level."""
        self._refuse()

    async def freeze(self) -> None:
        """Hold the load at its present level; no effect without a load, or if it is held."""
        self._refuse()

    async def load(self, plan: Plan, prompts: Prompts | None = None) -> None:
        """Load the selected engine with this plan; a running load continues with it.

        prompts: the new prompts, None for the present ones. New prompts cancel a running load,
        because its requests have other prompts.
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
        """Change an option of a running engine.

        evict: move running requests back to the queue where the new value needs it. purpose: why
        a change is temporary; None: it is permanent.
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
        """Restart an engine with new option values. Its load stops before and resumes after.

        flags: of the engine; they replace earlier values of the same flags. rolling: start the new
        engine beside the old one and move the load over; no request is cancelled. Returns when an
        engine is ready: the new one, or the last good one if the new one did not start.
        """
        self._refuse()

    async def start_search(self, plan: SearchPlan) -> None:
        """Begin a search for an engine's capacity; a running load is stopped first.

        It runs in the background and writes ``Store.search``. Until its end it controls the load
        and the options.
        """
        self._refuse()

    async def start_comparison(self, plan: ComparisonPlan) -> None:
        """Begin a comparison; a running load is stopped first. It writes ``Store.comparison``."""
        self._refuse()

    async def start_tune(self, plan: TunePlan) -> None:
        """Begin a tune; a running load is stopped first. It writes ``Store.tune``.

        At its end the options are restored in every case.
        """
        self._refuse()

    async def stop_experiment(self) -> None:
        """End the running search, comparison or tune.

        The results so far are kept, and the options are restored.
        """
        self._refuse()

    async def recall_curves(self, engine: str) -> None:
        """Load the curves of earlier sessions on this kind of engine into ``Store.curves``."""
        self._refuse()

    async def stop_engine(self, engine: str) -> None:
        """Stop the load of an engine that llmtop started, then the engine."""
        self._refuse()

    async def start_hold(self, engine: str, slo: str) -> None:
        """Start a background process that holds an engine within latency limits."""
        self._refuse()

    async def end_hold(self, engine: str) -> None:
        """End the hold; the operator's values are restored."""
        self._refuse()

    def expect(self, question: EffectQuestion | None) -> None:
        """Forecast the effect of a value and write it to ``Store.effect``.

        The request replaces an earlier one; None ends it.
        """
        self._refuse()

    def expect_curve(self, question: CurveQuestion) -> None:
        """Forecast the throughput by number of streams and write ``Store.curve_forecast``."""
        self._refuse()

    def expect_advised(self, engine: str) -> None:
        """Forecast the changes that ``why`` advises and write ``EngineTrack.why_forecasts``."""
        self._refuse()

    async def requests(self, engine: str, sort: RequestSort, limit: int) -> RequestTable:
        """The requests inside an engine: the first ``limit`` in the order of ``sort``."""
        self._refuse()

    async def abort(self, engine: str, ids: Sequence[str]) -> Aborted:
        """Abort requests by their ids."""
        self._refuse()

    def open_log(self, engine: str, count: int) -> EngineLog:
        """An engine's log, starting with its last ``count`` lines."""
        self._refuse()

    async def record(self) -> None:
        """Start a recording into a file, or end the running one."""
        self._refuse()

    async def select(self, engine: str) -> None:
        """Select an engine for the screen and the load keys."""
        self._refuse()

    async def quit(self, stop_engines: bool) -> None:
        """End the load and, on request, the engines that llmtop started. The app exits after it."""
        self._refuse()


def refusal(error: Exception) -> str:
    """The error of a command in one line: message and hint."""
    if isinstance(error, LlmtopError):
        return f"{error.message}: {error.hint}" if error.hint else error.message
    return f"{type(error).__name__}: {error}"
