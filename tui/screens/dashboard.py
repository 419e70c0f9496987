"""The dashboard: one beat, one engine in the middle, every knob under a key."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import BindingType
from textual.events import Key
from textual.geometry import Size
from textual.layout import Layout

from llmtop.config.key_table import DASHBOARD, Place
from llmtop.tui.commands.control import Control
from llmtop.tui.keys.bindings import bindings
from llmtop.tui.layout.arrangement import BESIDE, NORMAL, PAIRED, Boxes, Facts, arrange, pairs
from llmtop.tui.layout.boxed import BoxLayout
from llmtop.tui.layout.chart_navigation import ChartNavigation
from llmtop.tui.layout.hidden_box_file import HiddenBoxFile
from llmtop.tui.layout.hidden_boxes import HIDEABLE, without
from llmtop.tui.layout.pace import Pace
from llmtop.tui.panels.caption import CaptionPanel
from llmtop.tui.panels.charts import CHARTS, ChartPanel
from llmtop.tui.panels.engines import EnginesPanel
from llmtop.tui.panels.events import EventsPanel
from llmtop.tui.panels.gpu import GpuPanel
from llmtop.tui.panels.keys import KeysPanel
from llmtop.tui.panels.load import LoadPanel
from llmtop.tui.panels.options import OptionsPanel
from llmtop.tui.panels.per_token import CostPanel, PerTokenPanel
from llmtop.tui.panels.pulse import Pulse
from llmtop.tui.panels.speculation import speculates
from llmtop.tui.panels.startup import SmallPanel, StartupPanel, WelcomePanel
from llmtop.tui.panels.state import StatePanel
from llmtop.tui.plots.step_panel import StepsPanel
from llmtop.tui.screens.engine_commands import EngineCommands
from llmtop.tui.screens.inside.entry import EngineScreens
from llmtop.tui.store.store import Event
from llmtop.tui.view.effect_rows import ROOM
from llmtop.tui.view.panel import Panel
from llmtop.tui.view.view import LifecycleView, View
from llmtop.tui.widgets.chart import GUTTER
from llmtop.values import replace
from llmtop.wording import format as f

CHART_EDGE = 2 + GUTTER + 1  # cells of a chart's box that are no time
CHART_KEYS = (
    "left", "right", "back", "on", "wider", "narrower", "freeze", "enlarge", "now",
)  # fmt: skip
FIRST_NUMBERS_S = 0.1  # an engine that has not answered by then is shown without


class Dashboard(EngineCommands):
    """All panels. look: makes the view of this moment; the screen itself keeps no facts."""

    ACTIONS: ClassVar[dict[str, str]] = {
        "load.more": "load('more')",
        "load.less": "load('less')",
        "load.hold": "load('hold')",
        "load.burst": "load('burst')",
        "load.loop": "load('switch_loop')",
        "load.stop": "load('stop_load')",
        "load.again": "load('start_again')",
        "load.cut": "load('cut_load')",
        "options": "options",
        "saturation": "app.saturation",
        "compare": "app.compare",
        "tune": "app.tune",
        "engine.hold": "hold",
        "engine.restart": "restart",
        "engine.stop": "stop",
        "engine.next": "next_engine(1)",
        "engine.before": "next_engine(-1)",
        "engine.beside": "beside",
        "record": "record",
        "boxes": "boxes",
        **{f"chart.{what}": f"chart('{what}')" for what in CHART_KEYS},
    }
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTIONS)

    def __init__(self, look: Callable[[], View], control: Control, beat_s: float) -> None:
        super().__init__(look, control, beat_s)
        self._arranged: Facts | None = None
        self._pace = Pace([*CHARTS, "steps", *(BESIDE + name for name in PAIRED)])
        self._patient = True  # until something is painted
        self._paired = False  # the next engine stands beside the selected one
        self._panels: dict[str, Panel] = {}
        self._keys = KeysPanel(id="keys")
        self._charts = ChartNavigation()
        self._memory = HiddenBoxFile()
        self._layout = BoxLayout(self._boxes)

    def compose(self) -> ComposeResult:
        """Every panel; the layout shows those that have a box."""
        yield StatePanel(id="state")
        yield Pulse(id="pulse")
        yield EnginesPanel(id="engines")
        for name, kind in CHARTS.items():
            yield ChartPanel(kind, id=name)
        yield StepsPanel(id="steps")
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
        self._remember()
        self._panels = {str(panel.id): panel for panel in self.query(Panel)}
        self._arranged = self._facts(self._make_view())
        self.begin_redraws()

    def update_node_styles(self, animate: bool = True) -> None:
        """As ever, but not again for the widgets that were mounted just now: Textual resumes a new
        screen with the styles of all of its widgets worked out a second time, 12 ms."""
        if self.compositor.begun:
            super().update_node_styles(animate)

    @property
    def layout(self) -> Layout:
        """The stylesheet can only name Textual's own layouts; this one is ours."""
        return self._layout

    @property
    def editing(self) -> bool:
        """Whether the options have the keyboard."""
        return isinstance(self.focused, OptionsPanel)

    @property
    def help_places(self) -> tuple[Place, ...]:
        """The keys that work now."""
        return (Place.OPTIONS,) if self.editing else DASHBOARD

    def _facts(self, view: View) -> Facts:
        engine, store = view.engine, view.store
        options = len(engine.options) if engine else 0
        if self.editing and engine is not None and engine.steps is not None:
            options += ROOM  # for what a typed value is expected to do
        return Facts(
            view.stage,
            engines=len(store.engines) + len(store.missing),
            gpus=len(store.gpus),
            options=options,
            editing=self.editing,
            speculates=speculates(engine),
            beside=self._paired and len(store.engines) > 1,
            captioned=view.caption is not None,
            enlarged=self._charts.enlarged,
            steps=engine is not None and engine.steps is not None,
        )

    def _boxes(self, size: Size) -> Boxes:
        facts = self._facts(self._make_view())
        boxes = arrange(size.width, size.height, facts)
        if facts.editing or facts.enlarged is not None:
            return boxes
        return without(boxes, self._memory.hidden)

    def _view(self, shown: Boxes) -> View:
        """This moment's view; with the engine that stands beside, where one does."""
        view = replace(self._make_view(), axis=self._charts.axis)
        names = list(view.store.engines)
        if f"{BESIDE}pulse" not in shown or view.store.selected not in names:
            return view
        return replace(view, beside=names[(names.index(view.store.selected) + 1) % len(names)])

    def tick(self) -> None:
        """A slow line does not get all of it at each beat."""
        self.redraw(whole=False)

    def redraw(self, *, whole: bool = True) -> None:
        """One look at the store; what changed is painted, nothing else.

        whole: also what a slow line gets only now and then.
        """
        if not self.is_mounted or self.away or self._waits():
            return
        facts = self._facts(self._make_view())
        moving = facts != self._arranged
        if moving:
            self._arranged = facts
            whole = True
            # Asked through a child: the screen would answer from its cache of arrangements.
            self._keys.refresh(layout=True)
        shown = self._boxes(self.size)
        view = self._view(shown)
        other = view.other
        slow_line, steady = view.low_bandwidth and not whole, time.monotonic()
        with self.at_once(self._panels.values(), moving=moving):
            self._keys.editing = self.editing
            for name, panel in self._panels.items():
                seen = view
                if name.startswith(BESIDE):
                    if other is None:
                        continue
                    seen = other
                panel.view = seen  # for those that get a box before the next beat
                if name in shown and self._pace.due(name, steady, slow_line=slow_line):
                    panel.show(seen)

    def on_descendant_focus(self) -> None:
        """The options got the keyboard, and more room."""
        self.redraw()

    def on_descendant_blur(self) -> None:
        """They gave it back."""
        self.redraw()

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
        view = self._make_view()
        engine = view.engine
        coming = engine is not None and engine.sample is None and engine.stale_since is None
        if self._patient and coming and view.stage is LifecycleView.RUNNING:
            self._patient = False
            self.set_timer(FIRST_NUMBERS_S, self.redraw)
            return True
        self._patient = False
        return False

    def action_load(self, what: str) -> None:
        """A key of the load."""
        self.act(getattr(self._control, what))

    def action_chart(self, what: str) -> None:
        """A key of the charts: they move in time, and nothing else changes."""
        charts, now = self._charts, self._make_view().now
        shown = self._boxes(self.size)
        box = next((shown[name] for name in CHARTS if name in shown), None)
        cells = max(1, box.width - CHART_EDGE) if box is not None else 1
        match what:
            case "left" | "right":
                charts.move(1 if what == "right" else -1, now, cells)
            case "back" | "on":
                charts.pan(1 if what == "on" else -1, now)
            case "wider" | "narrower":
                charts.zoom(1 if what == "wider" else -1)
            case "freeze":
                charts.freeze(now)
            case "enlarge":
                charts.enlarge([name for name in CHARTS if name in self._all_boxes(hidden=False)])
            case _:
                charts.back()
        self.redraw()

    def _all_boxes(self, *, hidden: bool = True) -> Boxes:
        """The boxes as they are without a large chart; hidden: those too that are not shown."""
        facts = replace(self._facts(self._make_view()), enlarged=None)
        boxes = arrange(self.size.width, self.size.height, facts)
        return boxes if hidden else without(boxes, self._memory.hidden)

    def _remember(self) -> None:
        app = self.app
        if not isinstance(app, EngineScreens) or app.state_folder is None:
            return
        self._memory = HiddenBoxFile(app.state_folder)
        if trouble := self._memory.read():
            view = self._make_view()
            view.store.events.append(Event(view.now, "warning", f.clean(trouble, 300)))

    def action_boxes(self) -> None:
        """The list of boxes: each can be hidden."""
        from llmtop.tui.screens.boxes.chooser import BoxesScreen

        def change(hidden: frozenset[str]) -> None:
            if trouble := self._memory.change(hidden):
                self.notify(f.clean(trouble, 300), severity="warning", markup=False)
            self._arranged = None
            self.redraw()

        def here() -> list[str]:
            return [name for name in HIDEABLE if name in self._all_boxes()]

        self.app.push_screen(BoxesScreen(self._memory.hidden, here, change, self._make_view))

    def action_record(self) -> None:
        """Record what is seen into a file, or end that."""
        self.act(self._control.record, free=True)

    def action_options(self) -> None:
        """Give the keyboard to the options."""
        view = self._make_view()
        if view.elsewhere:
            self.refuse(view)
        elif view.engine is not None and view.stage is LifecycleView.RUNNING:
            self.query_one(OptionsPanel).open()

    async def action_next_engine(self, by: int) -> None:
        """Select the engine after (or before) this one. Done here: the next key counts from it."""
        store = self._make_view().store
        names = list(store.engines)
        if len(names) > 1 and store.selected in names:
            name = names[(names.index(store.selected) + by) % len(names)]
            self.set_focus(None)
            await self.perform(lambda: self._control.select(name))

    async def action_beside(self) -> None:
        """The next engine beside this one, and back."""
        if not self._paired:
            refused = ""
            if len(self._make_view().store.engines) < 2:
                refused = "side by side: there is only one engine"
            elif not pairs(self.size.width, self.size.height):
                refused = f"side by side needs a terminal of {NORMAL[0]}x{NORMAL[1]} or more"
            if refused:
                self.notify(refused, markup=False, timeout=4)
                return
            if not self.query(f"#{BESIDE}pulse"):
                twins = [ChartPanel(CHARTS[name], id=BESIDE + name) for name in PAIRED]
                above = [StatePanel(id=f"{BESIDE}state"), Pulse(id=f"{BESIDE}pulse")]
                await self.mount_all([*above, *twins])
                self._panels = {str(panel.id): panel for panel in self.query(Panel)}
        self._paired = not self._paired
        self.redraw()

    def on_engines_panel_chosen(self, message: EnginesPanel.Chosen) -> None:
        """A click on an engine's row."""
        self.set_focus(None)
        self.act(lambda: self._control.select(message.engine), free=True)

    def shows_event(self, event: Event, view: View) -> bool:
        """Whether the newest event can be read whole on the screen."""
        here = self.is_active and "events" in self._boxes(self.size)
        return here and self.query_one(EventsPanel).shows(event, view)
