"""The dashboard: all panels of the selected engine. Every control has a key."""

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
from llmtop.tui.panels.charts.chart_kinds import CHARTS
from llmtop.tui.panels.charts.chart_panel import ChartPanel
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

CHART_EDGE = 2 + GUTTER + 1  # cells of a chart's box beside its time axis
CHART_KEYS = (
    "left", "right", "back", "on", "wider", "narrower", "freeze", "enlarge", "now",
)  # fmt: skip
FIRST_NUMBERS_S = 0.1  # how long the first paint waits for the first numbers


class Dashboard(EngineCommands):
    """All panels. make_view: makes the view of this moment; the screen itself keeps no facts."""

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

    def __init__(self, make_view: Callable[[], View], control: Control, beat_s: float) -> None:
        super().__init__(make_view, control, beat_s)
        self._arranged: Facts | None = None
        self._pace = Pace([*CHARTS, "steps", *(BESIDE + name for name in PAIRED)])
        self._awaits_numbers = True  # until something is painted
        self._paired = False  # the next engine is shown beside the selected one
        self._panels: dict[str, Panel] = {}
        self._keys = KeysPanel(id="keys")
        self._charts = ChartNavigation()
        self._hidden_boxes = HiddenBoxFile()
        self._layout = BoxLayout(self._boxes)

    def compose(self) -> ComposeResult:
        """All panels. The layout shows those that have a box."""
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
        """Read the hidden boxes, and begin to redraw."""
        self._read_hidden_boxes()
        self._panels = {str(panel.id): panel for panel in self.query(Panel)}
        self._arranged = self._facts(self._make_view())
        self.begin_redraws()

    def update_node_styles(self, animate: bool = True) -> None:
        """As in Textual, but not for widgets that were mounted just now.

        When a new screen resumes, Textual computes the styles of all its widgets twice: 12 ms.
        """
        if self.compositor.begun:
            super().update_node_styles(animate)

    @property
    def layout(self) -> Layout:
        """llmtop's own layout. The stylesheet can name only those of Textual."""
        return self._layout

    @property
    def editing(self) -> bool:
        """Whether the options have the keyboard focus."""
        return isinstance(self.focused, OptionsPanel)

    @property
    def help_places(self) -> tuple[Place, ...]:
        """The places whose keys work now."""
        return (Place.OPTIONS,) if self.editing else DASHBOARD

    def _facts(self, view: View) -> Facts:
        engine, store = view.engine, view.store
        options = len(engine.options) if engine else 0
        if self.editing and engine is not None and engine.steps is not None:
            options += ROOM  # for the expected effect of a typed value
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
        return without(boxes, self._hidden_boxes.hidden)

    def _view(self, shown: Boxes) -> View:
        """The view of this moment, with the engine that is shown beside, if there is one."""
        view = replace(self._make_view(), axis=self._charts.axis)
        names = list(view.store.engines)
        if f"{BESIDE}pulse" not in shown or view.store.selected not in names:
            return view
        return replace(view, beside=names[(names.index(view.store.selected) + 1) % len(names)])

    def tick(self) -> None:
        """Redraw; a slow line does not get all panels each time."""
        self.redraw(whole=False)

    def redraw(self, *, whole: bool = True) -> None:
        """Paint what changed since the last redraw.

        whole: also the panels that a slow line gets less often.
        """
        if not self.is_mounted or self.away or self._first_paint_waits():
            return
        facts = self._facts(self._make_view())
        moving = facts != self._arranged
        if moving:
            self._arranged = facts
            whole = True
            # Through a child, because the screen itself would use its cache of arrangements.
            self._keys.refresh(layout=True)
        shown = self._boxes(self.size)
        view = self._view(shown)
        other = view.other
        slow_line, now = view.low_bandwidth and not whole, time.monotonic()
        with self.at_once(self._panels.values(), moving=moving):
            self._keys.editing = self.editing
            for name, panel in self._panels.items():
                seen = view
                if name.startswith(BESIDE):
                    if other is None:
                        continue
                    seen = other
                panel.view = seen  # for a panel that gets a box before the next redraw
                if name in shown and self._pace.due(name, now, slow_line=slow_line):
                    panel.show(seen)

    def on_descendant_focus(self) -> None:
        """The options got the keyboard focus, and need more room."""
        self.redraw()

    def on_descendant_blur(self) -> None:
        """The options lost the keyboard focus."""
        self.redraw()

    async def typed_ahead(self, event: Key) -> bool:
        """Give the options a key that was typed before they had the focus; False if it is not one.

        Textual sends a key to the widget that has the focus when the key is read, and looks up
        bindings later. So in a burst, the keys after ``o`` would act on the load.
        """
        panel = self.query_one(OptionsPanel)
        if self.focused is not panel or not panel.takes(event.key):
            return False
        await panel.on_key(event)
        return True

    def _first_paint_waits(self) -> bool:
        """Whether the first paint still waits for the first numbers. Else all is painted twice."""
        view = self._make_view()
        engine = view.engine
        coming = engine is not None and engine.sample is None and engine.stale_since is None
        if self._awaits_numbers and coming and view.stage is LifecycleView.RUNNING:
            self._awaits_numbers = False
            self.set_timer(FIRST_NUMBERS_S, self.redraw)
            return True
        self._awaits_numbers = False
        return False

    def action_load(self, what: str) -> None:
        """Handle a key of the load. what: the name of a method of the control."""
        self.act(getattr(self._control, what))

    def action_chart(self, what: str) -> None:
        """Handle a key of the charts: they move in time."""
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
        """The boxes without an enlarged chart. hidden: include those that the user has hidden."""
        facts = replace(self._facts(self._make_view()), enlarged=None)
        boxes = arrange(self.size.width, self.size.height, facts)
        return boxes if hidden else without(boxes, self._hidden_boxes.hidden)

    def _read_hidden_boxes(self) -> None:
        app = self.app
        if not isinstance(app, EngineScreens) or app.state_folder is None:
            return
        self._hidden_boxes = HiddenBoxFile(app.state_folder)
        if trouble := self._hidden_boxes.read():
            view = self._make_view()
            view.store.events.append(Event(view.now, "warning", f.clean(trouble, 300)))

    def action_boxes(self) -> None:
        """Open the list of boxes, where each can be hidden."""
        from llmtop.tui.screens.boxes.chooser import BoxesScreen

        def change(hidden: frozenset[str]) -> None:
            if trouble := self._hidden_boxes.change(hidden):
                self.notify(f.clean(trouble, 300), severity="warning", markup=False)
            self._arranged = None
            self.redraw()

        def here() -> list[str]:
            return [name for name in HIDEABLE if name in self._all_boxes()]

        self.app.push_screen(BoxesScreen(self._hidden_boxes.hidden, here, change, self._make_view))

    def action_record(self) -> None:
        """Start to record the screen into a file, or end the recording."""
        self.act(self._control.record, free=True)

    def action_options(self) -> None:
        """Give the keyboard focus to the options."""
        view = self._make_view()
        if view.elsewhere:
            self.refuse(view)
        elif view.engine is not None and view.stage is LifecycleView.RUNNING:
            self.query_one(OptionsPanel).open()

    async def action_next_engine(self, by: int) -> None:
        """Select the engine ``by`` places further. Awaited, because the next key counts from it."""
        store = self._make_view().store
        names = list(store.engines)
        if len(names) > 1 and store.selected in names:
            name = names[(names.index(store.selected) + by) % len(names)]
            self.set_focus(None)
            await self.perform(lambda: self._control.select(name))

    async def action_beside(self) -> None:
        """Show the next engine beside this one, or end that."""
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
                charts = [ChartPanel(CHARTS[name], id=BESIDE + name) for name in PAIRED]
                lines = [StatePanel(id=f"{BESIDE}state"), Pulse(id=f"{BESIDE}pulse")]
                await self.mount_all([*lines, *charts])
                self._panels = {str(panel.id): panel for panel in self.query(Panel)}
        self._paired = not self._paired
        self.redraw()

    def on_engines_panel_chosen(self, message: EnginesPanel.Chosen) -> None:
        """Select the engine whose row was clicked."""
        self.set_focus(None)
        self.act(lambda: self._control.select(message.engine), free=True)

    def shows_event(self, event: Event, view: View) -> bool:
        """Whether the whole text of the newest event is on the screen."""
        here = self.is_active and "events" in self._boxes(self.size)
        return here and self.query_one(EventsPanel).shows(event, view)
