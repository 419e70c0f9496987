"""Commands to an engine from the screen: confirm a stop or a restart, run, report."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

from llmtop import LlmtopError
from llmtop.engines.core.options import Applies, Change, Option, OptionValue, Outcome
from llmtop.tui.commands.control import Control, refusal
from llmtop.tui.commands.forecast_requests import EffectQuestion
from llmtop.tui.layout.periodic_screen import PeriodicScreen
from llmtop.tui.panels.options import OptionsPanel
from llmtop.tui.store.store import EngineTrack, Event
from llmtop.tui.view.elsewhere import long_reason
from llmtop.tui.view.option_words import answer_words, restarted_words
from llmtop.tui.view.view import View
from llmtop.tui.widgets.row import MUTED
from llmtop.wording import format as f
from llmtop.wording.sentences import change_words, cost_words, flag_words


class EngineCommands(PeriodicScreen):
    """A screen whose keys change the selected engine. make_view: makes the view of this moment."""

    def __init__(self, make_view: Callable[[], View], control: Control, beat_s: float) -> None:
        super().__init__(beat_s, begun=False)
        self._make_view = make_view
        self._control = control

    def shows_event(self, event: Event, view: View) -> bool:
        """Whether the whole text of the newest event is on the screen."""
        raise NotImplementedError

    def action_stop(self) -> None:
        """Stop the selected engine, once that is confirmed."""
        engine = self._owned_engine("stop")
        if engine is None:
            return
        name = engine.name

        def answered(yes: bool | None) -> None:
            if yes:
                self.act(lambda: self._control.stop_engine(name))

        from llmtop.tui.screens.stop import StopScreen

        self.app.push_screen(StopScreen(engine, self._make_view), answered)

    def action_restart(self, *flags: str) -> None:
        """Restart the selected engine, once that is confirmed. flags: replace its own ones."""
        engine = self._owned_engine("restart")
        if engine is None:
            return
        name = engine.name

        def answered(method: str | None) -> None:
            if method is not None:
                rolling = method == "rolling"
                self.act(lambda: self._control.restart(name, {}, flags=flags, rolling=rolling))

        words = flag_words(flags) or "with the options that it was started with"
        self._ask_how_to_restart(engine, words, answered)

    def action_hold(self) -> None:
        """Hold the selected engine within limits, or end the hold, once that is confirmed."""
        engine = self._owned_engine("hold")
        if engine is None:
            return
        from llmtop.tui.screens.inside.entry import EngineScreens
        from llmtop.tui.screens.inside.hold import EndHoldScreen, HoldScreen

        app, make_view, name, hold = self.app, self._make_view, engine.name, engine.hold
        assert isinstance(app, EngineScreens)

        def answered(slo: str | None) -> None:
            if slo is not None:
                self.notify(f.clean(f"{name}: the hold begins"), markup=False, timeout=3)
                self.act(lambda: self._control.start_hold(name, slo))

        def ended(yes: bool | None) -> None:
            if yes:
                self.act(lambda: self._control.end_hold(name))

        if hold is None:
            app.push_screen(HoldScreen(engine, app.config, make_view), answered)
        else:
            app.push_screen(EndHoldScreen(engine, hold, make_view), ended)

    def _owned_engine(self, verb: str) -> EngineTrack | None:
        """The selected engine if llmtop may do this to it; else None, and a toast says why."""
        view = self._make_view()
        engine = view.engine
        if engine is None:
            return None
        why = ""
        if view.readonly:
            self.refuse(view)
            return None
        if engine.status is None or not engine.owned:
            why = f"llmtop did not start {engine.name}, so it does not {verb} it"
        elif not engine.runs:
            why = f"{engine.name} does not run"
        if why:
            self.notify(f.clean(why), markup=False, timeout=4)
        return None if why else engine

    def on_options_panel_asked(self, message: OptionsPanel.Asked) -> None:
        """Set the value that was entered in the panel."""
        engine = self._make_view().engine
        if engine is not None:
            self.change(engine, message.option, message.value, evict=message.evict)

    def on_options_panel_typed(self, message: OptionsPanel.Typed) -> None:
        """Ask for the expected effect of the typed value. The panel shows the answer."""
        engine = self._make_view().engine
        question = None
        if engine is not None and message.value is not None:
            question = self._question(engine, message.option, message.value)
        with suppress(LlmtopError):  # without a forecast, no effect is shown
            self._control.expect(question)

    def _question(self, engine: EngineTrack, option: str, value: OptionValue) -> EffectQuestion:
        from llmtop.tui.screens.inside.entry import EngineScreens
        from llmtop.tui.screens.inside.hold import limits_in_force

        app = self.app
        assert isinstance(app, EngineScreens)
        held = engine.hold.slo if engine.hold is not None else ""
        return EffectQuestion(engine.name, option, value, limits_in_force(held, app.config))

    def change(
        self, engine: EngineTrack, wanted: str, value: OptionValue, *, evict: bool = False
    ) -> None:
        """Set an option and show the result. A change that needs a restart is confirmed first."""
        name, panel = engine.name, self.query_one(OptionsPanel)
        option = next((one for one in engine.options if one.name == wanted), None)
        if option is not None and option.applies is Applies.RESTART:
            self._ask_restart(engine, option, value)
            return

        async def ask() -> None:
            try:
                change = await self._control.set_option(name, wanted, value, evict=evict)
            except Exception:
                panel.show_result(f"{wanted} stays as it is", "bad")
                raise
            panel.show_result(*answer_words(change))

        self.act(ask)

    def _ask_restart(self, engine: EngineTrack, option: Option, value: OptionValue) -> None:
        """Show the cost of a restart; restart with the new value once that is confirmed."""
        panel = self.query_one(OptionsPanel)
        if engine.status is None or value == option.value:
            panel.show_result(f"{option.name} is {f.option(option.value)} already", MUTED)
            return
        name = engine.name

        async def restart(rolling: bool) -> None:
            panel.show_result(f"{option.name} = {f.option(value)}: {name} restarts", MUTED)
            try:
                done = await self._control.restart(name, {option.name: value}, rolling=rolling)
            except Exception:
                panel.show_result(f"{option.name}: the restart of {name} failed", "bad")
                raise
            panel.show_result(*restarted_words(option.name, value, done))

        def answered(method: str | None) -> None:
            if method is None:
                panel.show_result(f"{option.name} stays {f.option(option.value)}", MUTED)
            else:
                self.act(lambda: restart(method == "rolling"))

        words = change_words(Change(option.name, option.value, value, Outcome.APPLIED))
        self._ask_how_to_restart(engine, f.clean(words), answered)

    def _ask_how_to_restart(
        self, engine: EngineTrack, change: str, answered: Callable[[str | None], None]
    ) -> None:
        """Ask whether to restart, with the cost in place and rolling."""
        from llmtop.engines.supervision.restart import room_beside
        from llmtop.tui.screens.restart import RestartScreen

        view, sample = self._make_view(), engine.sample
        record = engine.status.record if engine.status else None
        if record is None:
            return
        in_flight = None
        if sample is not None and sample.running is not None:
            in_flight = sample.running + (sample.waiting or 0)
        expected_s = record.startup_s or record.previous_startup_s
        room = room_beside(record, view.store.gpus)
        rolling = cost_words(expected_s, in_flight, rolling=True) if room is not None else ""
        cost = cost_words(expected_s, in_flight)
        question = RestartScreen(engine, change, cost, rolling, self._make_view)
        self.app.push_screen(question, answered)

    def act(self, command: Callable[[], Awaitable[object]], *, free: bool = False) -> None:
        """Run a command of the control in the background. An error becomes an event.

        A toast repeats the error only if the event is not visible, because it covers other panels.
        free: also allowed when read-only.
        """
        view = self._make_view()
        if view.readonly and not free:
            self.refuse(view)
            return
        self.run_worker(self.perform(command), group="commands", exit_on_error=False)

    def refuse(self, view: View) -> None:
        """Show a toast that nothing can be changed from here."""
        words = long_reason(view) if view.elsewhere else "read-only"
        self.notify(f.clean(words), markup=False, timeout=5 if view.elsewhere else 2)

    async def perform(self, command: Callable[[], Awaitable[object]]) -> None:
        """Run a command and wait for it. An error becomes an event."""
        view = self._make_view()
        try:
            await command()
        except Exception as error:
            words = f.clean(refusal(error))
            event = Event(self._make_view().now, "error", words)
            view.store.events.append(event)
            if not self.shows_event(event, view):
                self.notify(words, severity="error", markup=False)
        self.redraw()
