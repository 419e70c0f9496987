"""The app: connects store, control, themes and screens."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import BindingType
from textual.driver import Driver
from textual.events import Event as TextualEvent
from textual.events import InputEvent, Key, MouseDown

from llmtop.config.key_table import Place
from llmtop.config.keymap import DEFAULT, Keymap
from llmtop.printable import clean
from llmtop.themes.theme import Theme, ThemeProblem, load_themes
from llmtop.tui.commands.control import Control, refusal
from llmtop.tui.keys.bindings import bindings
from llmtop.tui.layout.pace import FollowsSteps, Redraws
from llmtop.tui.layout.typing import Helped, TypedAhead
from llmtop.tui.screens.dashboard import Dashboard
from llmtop.tui.screens.inside.entry import EngineScreens
from llmtop.tui.store.store import Event, Store
from llmtop.tui.terminal.theming import textual_name, to_textual, variables
from llmtop.tui.textual_private.application import PrivateApp
from llmtop.tui.view.view import View
from llmtop.tui.widgets.glyphs import ASCII, UNICODE

if TYPE_CHECKING:
    from llmtop.config.file import Config
    from llmtop.tui.commands.palette import Entry
    from llmtop.tui.dashboard.tour import Tour

_THEME = "theme: "  # prefix of the toast that names a theme


class LlmtopApp(EngineScreens, PrivateApp):
    """The screen of llmtop.

    store: read only, except for events of errors in the app. interval: seconds between samples, and
    between two paints. themes: by name, from ``load_themes``; problems: rejected theme files, shown
    as events. gpu_hour: price of one GPU hour. low_bandwidth: paint rarely. zone: for times of day;
    None: the local time zone. background: runs while the screen is shown. keys: the key bindings.
    mouse: whether the app uses the mouse at first. config: named loads and prompts. tour: a
    scripted demonstration that runs until a key is pressed. clock: unix seconds, for the time axis
    and for events. wall: unix seconds, the clock of the engines' step times.
    """

    CSS_PATH = Path(__file__).with_name("llmtop.tcss")  # absolute, for subclasses in other folders
    TITLE = "llmtop"
    AUTO_FOCUS = None
    ENABLE_COMMAND_PALETTE = False
    ALLOW_SELECT = False
    ACTIONS: ClassVar[dict[str, str]] = {
        "log": "log",
        "why": "why",
        "steps": "steps",
        "requests": "requests",
        "palette": "palette",
        "help": "help",
        "theme": "next_theme",
        "mouse": "mouse",
        "quit": "ask_quit",
        "quit.now": "ask_quit",
        "suspend": "suspend_process",
    }
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTIONS)

    def __init__(
        self,
        store: Store,
        control: Control,
        *,
        interval: float = 1.0,
        themes: Mapping[str, Theme] | None = None,
        problems: Sequence[ThemeProblem] = (),
        theme: str | None = None,
        readonly: bool = False,
        ascii: bool = False,
        gpu_hour: float | None = None,
        low_bandwidth: bool = False,
        clock: Callable[[], float] = time.time,
        zone: tzinfo | None = None,
        background: Callable[[], Coroutine[Any, Any, None]] | None = None,
        keys: Keymap = DEFAULT,
        mouse: bool = True,
        config: Config | None = None,
        tour: Tour | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._themes = dict(themes) if themes else load_themes()[0]
        super().__init__()
        self.animation_level = "none"
        self.store = store
        self.control = control
        self._interval = interval
        self._readonly = readonly
        self._glyphs = ASCII if ascii else UNICODE
        self._gpu_hour = gpu_hour
        self._low_bandwidth = low_bandwidth
        self._now = clock
        self._wall = wall
        self._zone = zone
        self._background = background
        self.keys = keys
        self.mouse = mouse
        if config is None:
            from llmtop.config.file import Config

            config = Config()
        self.config = config
        self.tour = tour
        self._leaving = False
        self._last_key = ""
        self.interrupted = False  # the last attempt to quit was Ctrl+C
        self.set_keymap(keys.bindings)
        for each in self._themes.values():
            self.register_theme(to_textual(each))
        wanted = theme if theme in self._themes else "dark"
        self.theme = textual_name(wanted)
        if theme is not None and theme != wanted:
            words = f"no theme is called {clean(theme, 40)}; there are {', '.join(self._themes)}"
            store.events.append(Event(clock(), "warning", words))
        for problem in problems:
            words = clean(f"theme {problem.file} ignored: {problem.reason}")
            store.events.append(Event(clock(), "warning", words))

    def on_mount(self) -> None:
        """Start the background task."""
        if self._background is not None:
            self.run_worker(self._background(), group="background", exit_on_error=False)

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Variables of the stylesheet that Textual's own themes do not define."""
        return variables(self._themes["dark"])

    def get_driver_class(self) -> type[Driver]:
        """Textual's driver, with a keyboard thread that sleeps until there is input."""
        from textual.drivers.linux_driver import LinuxDriver

        from llmtop.tui.terminal.driver import QuietDriver

        chosen = super().get_driver_class()
        return QuietDriver if chosen is LinuxDriver else chosen

    def get_default_screen(self) -> Dashboard:
        """The dashboard, on which every other screen is shown."""
        return Dashboard(self.current_view, self.control, self._interval)

    async def on_key(self, event: Key) -> None:
        """Handle keys that no widget handled, before they are looked up as bindings."""
        screen = self.screen
        if isinstance(screen, TypedAhead) and await screen.typed_ahead(event):
            event.prevent_default()
        elif (
            # Textual hides the app's keys from modal screens, but ctrl+z must work there too.
            screen.is_modal
            and event.key not in screen.active_bindings
            and self.keys.command_of(Place.SCREEN, event.key) == "suspend"
        ):
            event.prevent_default()
            self.action_suspend_process()

    async def on_event(self, event: TextualEvent) -> None:
        """End the tour at a key or a mouse button; then handle the event.

        Input after the decision to quit is ignored: a screen that opens now would be removed before
        it is complete.
        """
        if (self._leaving or self.is_ending) and isinstance(event, InputEvent):
            return
        if isinstance(event, Key):
            self._last_key = event.key
        tour = self.tour
        if tour is not None and tour.running and not getattr(event, "is_forwarded", False):
            if (
                isinstance(event, Key)
                and self.keys.command_of(Place.LOAD, event.key) == "load.hold"
            ):
                self._take_over(tour)  # this holds the load, so the key has no further effect
                return
            if isinstance(event, Key | MouseDown):
                self._take_over(tour)
        await super().on_event(event)

    def _take_over(self, tour: Tour) -> None:
        self.run_worker(tour.stop(), group="tour", exit_on_error=False)
        self.show_now()

    @property
    def beat_s(self) -> float:
        """Seconds between two paints."""
        return self._interval

    def current_view(self) -> View:
        """The input of all panels at this moment."""
        return View(
            self.store,
            self._now(),
            self._interval,
            self._glyphs,
            self._readonly,
            self._zone,
            self._gpu_hour,
            self._low_bandwidth,
            self.keys,
            self.mouse,
            self.tour.caption if self.tour is not None else None,
            clock=self._wall,
            elsewhere=self.elsewhere,
        )

    @property
    def dashboard(self) -> Dashboard:
        """The bottom screen, below all others."""
        bottom = self.screen_stack[0]
        assert isinstance(bottom, Dashboard)
        return bottom

    def show_now(self) -> None:
        """Paint the store now, without waiting for the next beat."""
        for screen in self.screen_stack:
            if isinstance(screen, Redraws) and screen.is_seen:
                screen.redraw()

    def steps_read(self, name: str) -> None:
        """Repaint a screen that shows the steps of this engine, which were just read.

        Its next beat can be almost a second later.
        """
        top = self.screen_stack[-1] if self.screen_stack else None
        if name == self.store.selected and isinstance(top, FollowsSteps):
            top.steps_read()

    def action_help(self) -> None:
        """Open the help screen."""
        from llmtop.tui.screens.help import HelpScreen

        screen = self.screen
        if not isinstance(screen, HelpScreen):
            places = screen.help_places if isinstance(screen, Helped) else ()
            self.push_screen(HelpScreen(self.current_view, places))

    def action_palette(self) -> None:
        """Open the palette."""
        from llmtop.tui.screens.palette import PaletteScreen
        from llmtop.tui.screens.palette_entries import palette_entries
        from llmtop.tui.screens.question import Question

        if isinstance(self.screen, PaletteScreen | Question):
            return

        def chosen(entry: Entry | None) -> None:
            if entry is not None:
                # Close the palette first: the chosen command may save a picture of the screen.
                self.call_after_refresh(entry.run)

        here = self.screen
        self.push_screen(
            PaletteScreen(lambda text: palette_entries(self, here, text), self.current_view), chosen
        )

    def action_mouse(self) -> None:
        """Release the mouse, or use it again. The last line and a toast show the state."""
        self.mouse = not self.mouse
        self.take_mouse(take=self.mouse)
        words = "mouse on: llmtop uses it" if self.mouse else "mouse off: the terminal selects text"
        self.notify(words, markup=False, timeout=3)
        self.show_now()

    def choose_theme(self, name: str) -> None:
        """Use this theme. A toast with its name replaces the earlier one."""
        self.theme = textual_name(name)
        self.notify(f"{_THEME}{name}", markup=False, timeout=2)
        # Called later, because the new toast is not yet in the list of toasts.
        self.call_later(self.drop_older_toasts, _THEME)

    @property
    def theme_names(self) -> list[str]:
        """The available themes."""
        return list(self._themes)

    def save_picture(self) -> None:
        """Save the screen as SVG in the current folder, else in the state directory."""
        from llmtop.tui.terminal.picture import save

        try:
            path = save(self.export_screenshot(title="llmtop"), self._now())
        except OSError as error:
            words = f"no picture saved: {error.strerror or error}"
            self.notify(clean(words), severity="error", markup=False)
            return
        self.notify(clean(f"picture: {path}", 300), markup=False, timeout=8)

    def action_next_theme(self) -> None:
        """Use the next theme, with its name as a toast."""
        names = list(self._themes)
        shown = next((i for i, n in enumerate(names) if textual_name(n) == self.theme), 0)
        name = names[(shown + 1) % len(names)]
        self.choose_theme(name)

    def action_suspend_process(self) -> None:
        """Stop the whole foreground job like ctrl+z; under ``make demo`` this includes make."""
        self.suspend_job()

    def action_ask_quit(self) -> None:
        """Quit; ask first what happens to engines that would continue to run.

        A second ctrl+c answers the question: quit, and keep the engines running.
        """
        from llmtop.tui.screens.quit import QuitScreen

        self.interrupted = self._last_key == "ctrl+c"
        if isinstance(self.screen, QuitScreen):
            self.screen.action_answer(False)
            return
        if self.elsewhere:  # llmtop started none of these engines
            self._leave(False)
            return
        engines = [engine for engine in self.store.engines.values() if engine.owned and engine.runs]
        self.push_screen(QuitScreen(engines, self.current_view), self._leave)

    def _leave(self, stop: bool | None) -> None:
        if stop is not None:
            self._leaving = not stop  # stopping can take long: the operator may ask again
            self.run_worker(self._quit(stop), group="quit", exit_on_error=False)

    async def _quit(self, stop: bool) -> None:
        if stop:
            self.notify("stopping the engines", markup=False, timeout=60)
        try:
            if self.tour is not None:
                await self.tour.stop()
            await self.control.quit(stop)
        except Exception as error:
            words = clean(refusal(error))
            if not stop:  # quitting must always be possible
                self.exit(message=words)
                return
            self.store.events.append(Event(self._now(), "error", words))
            self.notify(words, severity="error", markup=False)
            return
        self._leaving = True
        self.exit()
