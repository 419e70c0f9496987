"""Commands down: what the keys can ask for, and a fake that remembers being asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from llmtop import LlmtopError
from llmtop.engines.options import Change, OptionValue, Outcome
from llmtop.engines.records import EngineRecord, LaunchSpec

if TYPE_CHECKING:
    from llmtop.engines.loans import Purpose
    from llmtop.engines.restart import Restarted
    from llmtop.loadgen.plan import Plan, Prompts
    from llmtop.tui.experiments import ComparisonPlan, SearchPlan


class EngineLog(Protocol):
    """A log that is read on and on."""

    async def more(self) -> list[str]:
        """What came since the last call, at first the log's end; the screen cleans it."""


class Control(Protocol):
    """All that the screen can do to the world. What comes of it returns through the store.

    Every method raises ``LlmtopError`` when it cannot be done; the screen words it as an event.
    """

    async def more(self) -> None:
        """One level more load; without a load, start one at its lowest level."""

    async def less(self) -> None:
        """One level less load."""

    async def hold(self) -> None:
        """Hold the load where it is; if it is held, let its shape go on."""

    async def burst(self) -> None:
        """A short burst on top of the load."""

    async def stop_load(self) -> None:
        """Send nothing more; requests in flight finish."""

    async def cut_load(self) -> None:
        """End the load at once; requests in flight are cut."""

    async def switch_loop(self) -> None:
        """From streams to requests a second or back, holding what is achieved now."""

    async def freeze(self) -> None:
        """Hold the load where it is; nothing where none runs, or it is held already."""

    async def load(self, plan: Plan, prompts: Prompts | None = None) -> None:
        """Load the selected engine in this shape; a running load takes it over.

        prompts: what is asked from now on, None for what was asked so far. A running load is then
        cut: its requests are of another kind.
        """

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

    async def start_search(self, plan: SearchPlan) -> None:
        """Begin a search for what an engine holds; a load that runs is stopped first.

        It goes on by itself, in ``Store.search``. Until its end load and options are its own.
        """

    async def start_comparison(self, plan: ComparisonPlan) -> None:
        """Begin a comparison, in ``Store.comparison``; a load that runs is stopped first."""

    async def stop_experiment(self) -> None:
        """End the search or comparison that runs; what is known is kept, options are put back."""

    async def recall_curves(self, engine: str) -> None:
        """Bring the curves of earlier sessions on this kind of engine into ``Store.curves``."""

    async def stop_engine(self, engine: str) -> None:
        """End an engine that llmtop started, after the load on it."""

    def open_log(self, engine: str, count: int) -> EngineLog:
        """An engine's log from its last ``count`` lines on."""

    async def select(self, engine: str) -> None:
        """Make an engine the one that the screen and the load keys are about."""

    async def quit(self, stop_engines: bool) -> None:
        """End the load and, if asked to, the engines that llmtop started. The app ends after it."""


class FakeControl:
    """Remembers each call as a tuple; raises ``error`` instead when one is set."""

    def __init__(self, log: list[str] | None = None) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.log = log if log is not None else []
        self.error: Exception | None = None
        self.outcome = Outcome.APPLIED
        self.reason: str | None = None
        self.failure = ""

    def _note(self, *call: object) -> None:
        self.calls.append(call)
        if self.error is not None:
            raise self.error

    async def more(self) -> None:
        """Note the call."""
        self._note("more")

    async def less(self) -> None:
        """Note the call."""
        self._note("less")

    async def hold(self) -> None:
        """Note the call."""
        self._note("hold")

    async def burst(self) -> None:
        """Note the call."""
        self._note("burst")

    async def stop_load(self) -> None:
        """Note the call."""
        self._note("stop_load")

    async def cut_load(self) -> None:
        """Note the call."""
        self._note("cut_load")

    async def switch_loop(self) -> None:
        """Note the call."""
        self._note("switch_loop")

    async def freeze(self) -> None:
        """Note the call."""
        self._note("freeze")

    async def load(self, plan: Plan, prompts: Prompts | None = None) -> None:
        """Note the call."""
        self._note("load", plan, prompts)

    async def stop_engine(self, engine: str) -> None:
        """Note the call."""
        self._note("stop_engine", engine)

    async def set_option(
        self,
        engine: str,
        option: str,
        value: OptionValue,
        *,
        evict: bool = False,
        purpose: Purpose | None = None,
    ) -> Change:
        """Note the call and answer with the outcome that was set."""
        self._note("set_option", engine, option, value, evict)
        return Change(option, None, value, self.outcome, self.reason, ack_ms=12.0)

    async def restart(
        self,
        engine: str,
        changes: Mapping[str, OptionValue],
        *,
        flags: tuple[str, ...] = (),
        rolling: bool = False,
    ) -> Restarted:
        """Note the call; rolled back when a ``failure`` was set."""
        self._note("restart", engine, dict(changes), *([flags] if flags else []), rolling)
        spec = LaunchSpec("fake", engine, "model", "127.0.0.1", 8000)
        url = "http://127.0.0.1:8000"
        record = EngineRecord(spec, (), (), 1, 1, "", url, "", None, 0.0)
        from llmtop.engines.restart import Restarted

        return Restarted(record, url, took_s=38.0, down_s=38.0, failure=self.failure)

    async def start_search(self, plan: SearchPlan) -> None:
        """Note the call."""
        self._note("start_search", plan)

    async def start_comparison(self, plan: ComparisonPlan) -> None:
        """Note the call."""
        self._note("start_comparison", plan)

    async def stop_experiment(self) -> None:
        """Note the call."""
        self._note("stop_experiment")

    async def recall_curves(self, engine: str) -> None:
        """Not noted: a screen asks for it by itself."""

    def open_log(self, engine: str, count: int) -> EngineLog:
        """The log that was given; lines appended to it come later."""
        return FakeLog(self, count)

    async def select(self, engine: str) -> None:
        """Note the call."""
        self._note("select", engine)

    async def quit(self, stop_engines: bool) -> None:
        """Note the call."""
        self._note("quit", stop_engines)


class FakeLog:
    """The lines of a ``FakeControl``, each once."""

    def __init__(self, control: FakeControl, count: int) -> None:
        self._control = control
        self._at = max(0, len(control.log) - count)

    async def more(self) -> list[str]:
        """What was appended since."""
        if self._control.error is not None:
            raise self._control.error
        found = self._control.log[self._at :]
        self._at = len(self._control.log)
        return found


def refusal(error: Exception) -> str:
    """What went wrong with a command, in one line: the message and the way out."""
    if isinstance(error, LlmtopError):
        return f"{error.message}: {error.hint}" if error.hint else error.message
    return f"{type(error).__name__}: {error}"
