"""The app: wires store, control, themes and screens. It does nothing itself."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import App
from textual.binding import BindingType
from textual.driver import Driver
from textual.events import Event as TextualEvent
from textual.events import InputEvent, Key, MouseDown

from llmtop.themes.theme import Theme, ThemeProblem, load_themes
from llmtop.tui.bindings import bindings
from llmtop.tui.control import Control, refusal
from llmtop.tui.format import clean
from llmtop.tui.keymap import DEFAULT, Keymap, Place
from llmtop.tui.panels.view import View
from llmtop.tui.screens.dashboard import Dashboard
from llmtop.tui.screens.pace import Beating
from llmtop.tui.screens.typing import TypedAhead
from llmtop.tui.store import Event, Store
from llmtop.tui.theming import textual_name, to_textual, variables
from llmtop.tui.widgets.glyphs import ASCII, UNICODE

if TYPE_CHECKING:
    from llmtop.tui.config.file import Config
    from llmtop.tui.palette import Entry
    from llmtop.tui.tour import Tour

_THEME = "theme: "  # how the toast begins that names a theme


class LlmtopApp(App[None]):
    """The screen of llmtop.

    store: read only, but for events of what went wrong here. interval: seconds between samples,
    and between two paints. themes: by name, as ``load_themes`` gives them; problems: theme files
    that were left out, shown as events. gpu_hour: what one GPU costs an hour. low_bandwidth: paint
    seldom. zone: for times of day, None is the operator's own. background: runs beside the screen
    for as long as it is shown. keys: those in force. mouse: whether it is ours at first. config:
    the loads and prompts that have names. tour: a show that runs until a key is pressed.
    """

    CSS_PATH = Path(__file__).with_name("llmtop.tcss")  # whole: subclasses may live elsewhere
    TITLE = "llmtop"
    AUTO_FOCUS = None
    ENABLE_COMMAND_PALETTE = False
    ALLOW_SELECT = False
    ACTIONS: ClassVar[dict[str, str]] = {
        "log": "log",
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
        self._zone = zone
        self._background = background
        self.keys = keys
        self.mouse = mouse
        if config is None:
            from llmtop.tui.config.file import Config

            config = Config()
        self.config = config
        self.tour = tour
        self._leaving = False
        self.set_keymap(keys.bindings)
        for each in self._themes.values():
            self.register_theme(to_textual(each))
        wanted = theme if theme in self._themes else "dark"
        self.theme = textual_name(wanted)
        if theme is not None and theme != wanted:
            words = f"no theme is called {clean(theme, 40)}; there are {', '.join(self._themes)}"
            store.events.append(Event(clock(), "warning", words))
        for problem in problems:
            words = clean(f"theme {problem.file} left out: {problem.reason}")
            store.events.append(Event(clock(), "warning", words))

    def on_mount(self) -> None:
        """Start what runs beside the screen."""
        if self._background is not None:
            self.run_worker(self._background(), group="background", exit_on_error=False)

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Our words for Textual's own themes, without which the stylesheet could not be read."""
        return variables(self._themes["dark"])

    def get_driver_class(self) -> type[Driver]:
        """Textual's choice, but that its thread for the keyboard sleeps while nobody types."""
        from textual.drivers.linux_driver import LinuxDriver

        from llmtop.tui.driver import QuietDriver

        chosen = super().get_driver_class()
        return QuietDriver if chosen is LinuxDriver else chosen

    def get_default_screen(self) -> Dashboard:
        """The dashboard is the ground that every other screen lies on."""
        return Dashboard(self.look, self.control, self._interval)

    async def on_key(self, event: Key) -> None:
        """Keys that nothing took, before they are looked up as bindings."""
        screen = self.screen
        if isinstance(screen, TypedAhead) and await screen.typed_ahead(event):
            event.prevent_default()
        elif (
            # Textual keeps the app's own keys from modal screens; the shell is wanted there too.
            screen.is_modal
            and event.key not in screen.active_bindings
            and self.keys.meant(Place.SCREEN, event.key) == "suspend"
        ):
            event.prevent_default()
            self.action_suspend_process()

    async def on_event(self, event: TextualEvent) -> None:
        """Whoever presses a key or a button during the tour has taken over.

        What is typed after leaving was chosen is for nobody: a screen that opens now would find
        itself taken apart before it is whole.
        """
        if self._leaving and isinstance(event, InputEvent):
            return
        tour = self.tour
        if tour is not None and tour.running and not getattr(event, "is_forwarded", False):
            if isinstance(event, Key) and self.keys.meant(Place.LOAD, event.key) == "load.hold":
                self._take_over(tour)  # which holds the load: the key has nothing left to do
                return
            if isinstance(event, Key | MouseDown):
                self._take_over(tour)
        await super().on_event(event)

    def _take_over(self, tour: Tour) -> None:
        self.run_worker(tour.stop(), group="tour", exit_on_error=False)
        self.show_now()

    def look(self) -> View:
        """The view of this moment."""
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
        )

    @property
    def dashboard(self) -> Dashboard:
        """The screen that all others lie on."""
        ground = self.screen_stack[0]
        assert isinstance(ground, Dashboard)
        return ground

    def show_now(self) -> None:
        """Paint what the store says now, not only at the next beat: a sample has just come in."""
        screen = self.screen
        if isinstance(screen, Beating):
            screen.beat()

    def action_saturation(self) -> None:
        """The saturation screen: the search that runs, or the form of one."""
        from llmtop.tui.screens.saturation import SaturationScreen

        if self._may_measure("a search sends load"):
            self.push_screen(SaturationScreen(self.look, self.control, self._interval))

    def action_compare(self) -> None:
        """The compare screen: the comparison that runs, or the form of one."""
        from llmtop.tui.screens.compare import CompareScreen

        if self._may_measure("a comparison sends load and changes options"):
            self.push_screen(CompareScreen(self.look, self.control, self._interval))

    def _may_measure(self, words: str) -> bool:
        if self._readonly:
            self.notify(f"read-only: {words}", markup=False, timeout=3)
        return not self._readonly and self.store.engine is not None

    def action_log(self) -> None:
        """The log of the selected engine."""
        from llmtop.tui.screens.log import LogScreen

        if self.store.selected is not None and not isinstance(self.screen, LogScreen):
            self.push_screen(
                LogScreen(self.store.selected, self.control, self.look, self._interval)
            )

    def action_help(self) -> None:
        """Keys and numbers."""
        from llmtop.tui.screens.help import HelpScreen

        if not isinstance(self.screen, HelpScreen):
            self.push_screen(HelpScreen(self.look))

    def action_palette(self) -> None:
        """Everything by name."""
        from llmtop.tui.offers import offers
        from llmtop.tui.screens.palette import PaletteScreen
        from llmtop.tui.screens.question import Question

        if isinstance(self.screen, PaletteScreen | Question):
            return

        def chosen(entry: Entry | None) -> None:
            if entry is not None:
                # The palette has to leave first: what it does may be a picture of the screen.
                self.call_after_refresh(entry.run)

        here = self.screen
        self.push_screen(PaletteScreen(lambda text: offers(self, here, text), self.look), chosen)

    def action_mouse(self) -> None:
        """Let the mouse go, or take it back; the last line and a toast say which."""
        self.mouse = not self.mouse
        driver = self._driver
        # Textual 8 has no way of its own; without the flag a resume would take the mouse back.
        if driver is not None and hasattr(driver, "_enable_mouse_support"):
            if self.mouse:
                driver._mouse = True
                driver._enable_mouse_support()
            else:
                driver._disable_mouse_support()  # type: ignore[attr-defined]
                driver._mouse = False
        words = "the mouse is llmtop's" if self.mouse else "mouse let go: the terminal selects text"
        self.notify(words, markup=False, timeout=3)
        self.show_now()

    def choose_theme(self, name: str) -> None:
        """This theme; its name as a toast, in place of that of the one before."""
        self.theme = textual_name(name)
        self.notify(f"{_THEME}{name}", markup=False, timeout=2)
        self.call_later(self._forget_themes)  # behind the toast, which is only on its way yet

    def _forget_themes(self) -> None:
        # Textual 8 can take back all toasts or none, and an error among them is still to be read.
        toasts = [toast for toast in self._notifications if toast.message.startswith(_THEME)]
        for toast in toasts[:-1]:
            self._unnotify(toast)

    @property
    def theme_names(self) -> list[str]:
        """The themes that there are."""
        return list(self._themes)

    def save_picture(self) -> None:
        """The screen as an SVG, in the folder that llmtop was started from, else in one of ours."""
        from llmtop.tui.picture import keep

        try:
            path = keep(self.export_screenshot(title="llmtop"), self._now())
        except OSError as error:
            words = f"no picture: {error.strerror or error}"
            self.notify(clean(words), severity="error", markup=False)
            return
        self.notify(clean(f"picture: {path}", 300), markup=False, timeout=8)

    def action_next_theme(self) -> None:
        """The next theme; its name as a toast."""
        names = list(self._themes)
        shown = next((i for i, n in enumerate(names) if textual_name(n) == self.theme), 0)
        name = names[(shown + 1) % len(names)]
        self.choose_theme(name)

    def action_suspend_process(self) -> None:
        """Stop the whole foreground job, as ctrl+z does: under ``make demo`` that is make too.

        Textual stops its own process alone, and whoever waits for it goes on waiting. The terminal
        is given back first: once make has stopped, the shell has it, and we may not touch it.
        """
        driver = self._driver
        if driver is None or not driver.can_suspend:
            return
        self._suspend_signal()
        driver.suspend_application_mode()
        # Textual 8: its handler of SIGCONT resumes, and then tells the app so only with this set.
        driver._must_signal_resume = True  # type: ignore[attr-defined]
        os.killpg(os.getpgrp(), signal.SIGSTOP)

    def action_ask_quit(self) -> None:
        """Leave; ask first what becomes of engines that would go on running.

        Whoever answers that with ctrl+c once more wants to be gone: the engines go on.
        """
        from llmtop.tui.screens.quit import QuitScreen

        if isinstance(self.screen, QuitScreen):
            self.screen.action_answer(False)
            return
        engines = [engine for engine in self.store.engines.values() if engine.owned and engine.runs]
        self.push_screen(QuitScreen(engines, self.look()), self._leave)

    def _leave(self, stop: bool | None) -> None:
        if stop is not None:
            self._leaving = not stop  # stopping can take long: then one may ask again
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
            if not stop:  # whoever wants to leave must be able to
                self.exit(message=words)
                return
            self.store.events.append(Event(self._now(), "error", words))
            self.notify(words, severity="error", markup=False)
            return
        self._leaving = True
        self.exit()
