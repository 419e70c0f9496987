"""The app of ``llmtop fleet``: shows the table, and ends with the instance to open."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, ClassVar, cast

from textual.binding import BindingType
from textual.screen import Screen

from llmtop.config.keymap import DEFAULT, Keymap
from llmtop.fleet.instances import Instance
from llmtop.fleet.observer import Table
from llmtop.themes.theme import Theme, ThemeProblem
from llmtop.tui.app import LlmtopApp
from llmtop.tui.commands.control import Control
from llmtop.tui.fleet.listing import Choice
from llmtop.tui.fleet.screen import FleetScreen
from llmtop.tui.keys.bindings import bindings
from llmtop.tui.store.store import Store


class FleetApp(LlmtopApp, inherit_bindings=False):
    """The app that shows the table of instances.

    query: reads the table; it never raises. place: the address of the Prometheus, for the title.
    interval: seconds between two queries. choice: order, groups, filter and pins; the caller keeps
    it for the next run. message: the result of the instance opened last. opened: after the end, the
    instance to open, and whether through ssh; None: the operator quit.
    """

    ACTIONS: ClassVar[dict[str, str]] = {
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
        query: Callable[[], Awaitable[Table]],
        place: str,
        interval: float,
        choice: Choice,
        *,
        message: str = "",
        themes: Mapping[str, Theme] | None = None,
        problems: Sequence[ThemeProblem] = (),
        theme: str | None = None,
        ascii: bool = False,
        keys: Keymap = DEFAULT,
        mouse: bool = True,
        background: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        super().__init__(
            Store(),
            cast(Control, None),  # no key of this screen acts on an engine
            interval=interval,
            themes=themes,
            problems=problems,
            theme=theme,
            readonly=True,
            ascii=ascii,
            keys=keys,
            mouse=mouse,
            background=background,
        )
        self._query, self._place, self._message = query, place, message
        self.choice = choice
        self.opened: tuple[Instance, bool] | None = None

    def get_default_screen(self) -> Screen[Any]:  # type: ignore[override]
        """The table, the bottom screen below the help."""
        return FleetScreen(
            self.current_view,
            self._query,
            self._place,
            self._interval,
            self._open,
            self.choice,
            message=self._message,
        )

    def _open(self, instance: Instance, by_ssh: bool) -> None:
        self.opened = instance, by_ssh
        self._end()

    def action_ask_quit(self) -> None:
        """Quit without a question: this app runs no engine and no load."""
        self.interrupted = self._last_key == "ctrl+c"
        self._end()

    def _end(self) -> None:
        bottom = self.screen_stack[0]
        if isinstance(bottom, FleetScreen):
            self.choice = bottom.choice
        self._leaving = True
        self.exit()
