"""The dashboard: one beat, one engine in the middle, every knob under a key."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.events import Key
from textual.geometry import Size
from textual.layout import Layout

from llmtop.engines.options import Applies, Change, Option, OptionValue, Outcome
from llmtop.tui import format as f
from llmtop.tui.bindings import bindings
from llmtop.tui.control import Control, refusal
from llmtop.tui.panels.caption import CaptionPanel
from llmtop.tui.panels.charts import CHARTS, ChartPanel
from llmtop.tui.panels.engines import EnginesPanel
from llmtop.tui.panels.events import EventsPanel
from llmtop.tui.panels.gpu import GpuPanel
from llmtop.tui.panels.keys import KeysPanel
from llmtop.tui.panels.load import LoadPanel
from llmtop.tui.panels.options import OptionsPanel, answer_words, restarted_words
from llmtop.tui.panels.panel import Panel
from llmtop.tui.panels.per_token import CostPanel, PerTokenPanel
from llmtop.tui.panels.pulse import Pulse
from llmtop.tui.panels.speculation import speculates
from llmtop.tui.panels.startup import SmallPanel, StartupPanel, WelcomePanel
from llmtop.tui.panels.view import Stage, View
from llmtop.tui.screens.arrangement import BESIDE, NORMAL, PAIRED, Boxes, Facts, arrange, pairs
from llmtop.tui.screens.beating import BeatingScreen
from llmtop.tui.screens.boxed import BoxLayout
from llmtop.tui.screens.pace import Pace
from llmtop.tui.store import EngineTrack, Event
from llmtop.tui.widgets.row import MUTED
from llmtop.tui.words import change_words, cost_words, flag_words
from llmtop.values import replace

FIRST_NUMBERS_S = 0.1  # an engine that has not answered by then is shown without


class Dashboard(BeatingScreen):
    """All panels. look: makes the view of this moment; the screen itself keeps no facts."""

    ACTIONS: ClassVar[dict[str, str]] = {
        "load.more": "load('more')",
        "load.less": "load('less')",
        "load.hold": "load('hold')",
        "load.burst": "load('burst')",
        "load.loop": "load('switch_loop')",
        "load.stop": "load('stop_load')",
        "load.cut": "load('cut_load')",
        "options": "options",
        "saturation": "app.saturation",
        "compare": "app.compare",
        "engine.restart": "restart",
        "engine.stop": "stop",
        "engine.next": "next_engine(1)",
        "engine.before": "next_engine(-1)",
        "engine.beside": "beside",
    }
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTIONS)

    def __init__(self, look: Callable[[], View], control: Control, beat_s: float) -> None:
        super().__init__(beat_s, begun=False)
        self._look = look
        self._control = control
        self._arranged: Facts | None = None
        self._pace = Pace([*CHARTS, *(BESIDE + name for name in PAIRED)])
        self._patient = True  # until something is painted
        self._paired = False  # the next engine stands beside the selected one
        self._panels: dict[str, Panel] = {}
        self._keys = KeysPanel(id="keys")
        self._layout = BoxLayout(self._boxes)

    def compose(self) -> ComposeResult:
        """Every panel; the layout shows those that have a box."""
        yield Pulse(id="pulse")
        yield EnginesPanel(id="engines")
        for name, kind in CHARTS.items():
            yield ChartPanel(kind, id=name)
        yield GpuPanel(id="gpu")
        yield PerTokenPanel(id="token")
        yield CostPanel(id="cost")
        yield LoadPanel(id="load")
        yield OptionsPanel(id="options")
        yield EventsPanel(id="events")
        yield StartupPanel(id="startup")
        yield WelcomePanel(id="welcome")
        yield SmallPanel(id="small")
        yield self._keys
        yield CaptionPanel(id="caption")

    def on_mount(self) -> None:
        """Begin the beat."""
        self._panels = {str(panel.id): panel for panel in self.query(Panel)}
        self._arranged = self._facts(self._look())
        self.begin_beats()

    def update_node_styles(self, animate: bool = True) -> None:
        """As ever, but not again for the widgets that were mounted just now: Textual resumes a new
        screen with the styles of all of its widgets worked out a second time, 12 ms."""
        if self._compositor.begun:
            super().update_node_styles(animate)

    @property
    def layout(self) -> Layout:
        """The stylesheet can only name Textual's own layouts; this one is ours."""
        return self._layout

    @property
    def editing(self) -> bool:
        """Whether the options have the keyboard."""
        return isinstance(self.focused, OptionsPanel)

    def _facts(self, view: View) -> Facts:
        engine, store = view.engine, view.store
        return Facts(
            view.stage,
            engines=len(store.engines) + len(store.missing),
            gpus=len(store.gpus),
            options=len(engine.options) if engine else 0,
            editing=self.editing,
            speculates=speculates(engine),
            beside=self._paired and len(store.engines) > 1,
            told=view.caption is not None,
        )

    def _boxes(self, size: Size) -> Boxes:
        return arrange(size.width, size.height, self._facts(self._look()))

    def _view(self, shown: Boxes) -> View:
        """This moment's view; with the engine that stands beside, where one does."""
        view = self._look()
        names = list(view.store.engines)
        if f"{BESIDE}pulse" not in shown or view.store.selected not in names:
            return view
        return replace(view, beside=names[(names.index(view.store.selected) + 1) % len(names)])

    def tick(self) -> None:
        """A slow line does not get all of it at each beat."""
        self.beat(whole=False)

    def beat(self, *, whole: bool = True) -> None:
        """One look at the store; what changed is painted, nothing else.

        whole: also what a slow line gets only now and then.
        """
        if not self.is_mounted or self.away or self._waits():
            return
        facts = self._facts(self._look())
        moving = facts != self._arranged
        if moving:
            self._arranged = facts
            whole = True
            # Asked through a child: the screen would answer from its cache of arrangements.
            self._keys.refresh(layout=True)
        shown = self._boxes(self.size)
        view = self._view(shown)
        other = view.other
        seldom, steady = view.low_bandwidth and not whole, time.monotonic()
        with self.at_once(self._panels.values(), moving=moving):
            self._keys.editing = self.editing
            for name, panel in self._panels.items():
                seen = view
                if name.startswith(BESIDE):
                    if other is None:
                        continue
                    seen = other
                panel.view = seen  # for those that get a box before the next beat
                if name in shown and self._pace.due(name, steady, seldom=seldom):
                    panel.show(seen)

    def on_descendant_focus(self) -> None:
        """The options got the keyboard, and more room."""
        self.beat()

    def on_descendant_blur(self) -> None:
        """They gave it back."""
        self.beat()

    async def typed_ahead(self, event: Key) -> bool:
        """A key that was typed for the options before they had the keyboard; False when it is not.

        Textual sends a key to what has the focus when the key is read, and looks bindings up later:
        in a burst, what follows ``o`` would be taken for keys of the load.
        """
        panel = self.query_one(OptionsPanel)
        if self.focused is not panel or not panel.takes(event.key):
            return False
        await panel.on_key(event)
        return True

    def _waits(self) -> bool:
        """The first numbers are just coming: without them all would be painted twice."""
        view = self._look()
        engine = view.engine
        coming = engine is not None and engine.sample is None and engine.stale_since is None
        if self._patient and coming and view.stage is Stage.RUNNING:
            self._patient = False
            self.set_timer(FIRST_NUMBERS_S, self.beat)
            return True
        self._patient = False
        return False

    def action_load(self, what: str) -> None:
        """A key of the load."""
        self.act(getattr(self._control, what))

    def action_options(self) -> None:
        """Give the keyboard to the options."""
        view = self._look()
        if view.engine is not None and view.stage is Stage.RUNNING:
            self.query_one(OptionsPanel).open()

    async def action_next_engine(self, by: int) -> None:
        """Select the engine after (or before) this one. Done here: the next key counts from it."""
        store = self._look().store
        names = list(store.engines)
        if len(names) > 1 and store.selected in names:
            name = names[(names.index(store.selected) + by) % len(names)]
            self.set_focus(None)
            await self._perform(lambda: self._control.select(name))

    async def action_beside(self) -> None:
        """The next engine beside this one, and back."""
        if not self._paired:
            refused = ""
            if len(self._look().store.engines) < 2:
                refused = "side by side: there is only one engine"
            elif not pairs(self.size.width, self.size.height):
                refused = f"side by side needs a terminal of {NORMAL[0]}x{NORMAL[1]} or more"
            if refused:
                self.notify(refused, markup=False, timeout=4)
                return
            if not self.query(f"#{BESIDE}pulse"):
                twins = [ChartPanel(CHARTS[name], id=BESIDE + name) for name in PAIRED]
                await self.mount_all([Pulse(id=f"{BESIDE}pulse"), *twins])
                self._panels = {str(panel.id): panel for panel in self.query(Panel)}
        self._paired = not self._paired
        self.beat()

    def on_engines_panel_chosen(self, message: EnginesPanel.Chosen) -> None:
        """A click on an engine's row."""
        self.set_focus(None)
        self.act(lambda: self._control.select(message.engine), free=True)

    def action_stop(self) -> None:
        """Stop the selected engine, once that is confirmed."""
        engine = self._ours("stop")
        if engine is None:
            return
        view, name = self._look(), engine.name

        def answered(yes: bool | None) -> None:
            if yes:
                self.act(lambda: self._control.stop_engine(name))

        from llmtop.tui.screens.stop import StopScreen

        self.app.push_screen(StopScreen(engine, view), answered)

    def action_restart(self, *flags: str) -> None:
        """Restart the selected engine, once that is confirmed. flags: in place of those it has."""
        engine = self._ours("restart")
        if engine is None:
            return
        name = engine.name

        def answered(way: str | None) -> None:
            if way is not None:
                rolling = way == "rolling"
                self.act(lambda: self._control.restart(name, {}, flags=flags, rolling=rolling))

        words = flag_words(flags) or "with the options that it was started with"
        self._ask_way(engine, words, answered)

    def _ours(self, verb: str) -> EngineTrack | None:
        """The selected engine, where it may be stopped or restarted; else why not is said."""
        view = self._look()
        engine = view.engine
        if engine is None:
            return None
        why = ""
        if view.readonly:
            why = "read-only"
        elif engine.status is None or not engine.owned:
            why = f"llmtop did not start {engine.name}, so it does not {verb} it"
        elif not engine.runs:
            why = f"{engine.name} does not run"
        if why:
            self.notify(f.clean(why), markup=False, timeout=4)
        return None if why else engine

    def on_options_panel_asked(self, message: OptionsPanel.Asked) -> None:
        """A new value from the panel."""
        engine = self._look().engine
        if engine is not None:
            self.change(engine, message.option, message.value, evict=message.evict)

    def change(
        self, engine: EngineTrack, wanted: str, value: OptionValue, *, evict: bool = False
    ) -> None:
        """A new value for an option: ask the engine, show its answer. A restart asks first."""
        name, panel = engine.name, self.query_one(OptionsPanel)
        option = next((one for one in engine.options if one.name == wanted), None)
        if option is not None and option.applies is Applies.RESTART:
            self._ask_restart(engine, option, value)
            return

        async def ask() -> None:
            try:
                change = await self._control.set_option(name, wanted, value, evict=evict)
            except Exception:
                panel.say(f"{wanted} stays as it is", "bad")
                raise
            panel.say(*answer_words(change))

        self.act(ask)

    def _ask_restart(self, engine: EngineTrack, option: Option, value: OptionValue) -> None:
        """Say what a restart will cost; do it when that is wanted."""
        panel = self.query_one(OptionsPanel)
        if engine.status is None or value == option.value:
            panel.say(f"{option.name} is {f.option(option.value)} already", MUTED)
            return
        name = engine.name

        async def restart(rolling: bool) -> None:
            panel.say(f"{option.name} = {f.option(value)}: {name} restarts", MUTED)
            try:
                done = await self._control.restart(name, {option.name: value}, rolling=rolling)
            except Exception:
                panel.say(f"{option.name}: the restart of {name} failed", "bad")
                raise
            panel.say(*restarted_words(option.name, value, done))

        def answered(way: str | None) -> None:
            if way is None:
                panel.say(f"{option.name} stays {f.option(option.value)}", MUTED)
            else:
                self.act(lambda: restart(way == "rolling"))

        words = change_words(Change(option.name, option.value, value, Outcome.APPLIED))
        self._ask_way(engine, f.clean(words), answered)

    def _ask_way(
        self, engine: EngineTrack, change: str, answered: Callable[[str | None], None]
    ) -> None:
        """The question before a restart: what it costs, in place and rolling."""
        from llmtop.engines.restart import room_beside
        from llmtop.tui.screens.restart import RestartScreen

        view, sample = self._look(), engine.sample
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
        self.app.push_screen(RestartScreen(engine, change, cost, rolling, view), answered)

    def act(self, command: Callable[[], Awaitable[object]], *, free: bool = False) -> None:
        """Run a command of the control; what goes wrong becomes an event.

        A toast repeats it only where the event cannot be read: it would cover the keys and the GPU.
        free: also allowed when read-only.
        """
        if self._look().readonly and not free:
            self.notify("read-only", markup=False, timeout=2)
            return
        self.run_worker(self._perform(command), group="commands", exit_on_error=False)

    async def _perform(self, command: Callable[[], Awaitable[object]]) -> None:
        view = self._look()
        try:
            await command()
        except Exception as error:
            words = f.clean(refusal(error))
            event = Event(self._look().now, "error", words)
            view.store.events.append(event)
            if not self._shows(event, view):
                self.notify(words, severity="error", markup=False)
        self.beat()

    def _shows(self, event: Event, view: View) -> bool:
        """Whether the newest event can be read whole on the screen."""
        here = self.is_active and "events" in self._boxes(self.size)
        return here and self.query_one(EventsPanel).shows(event, view)
