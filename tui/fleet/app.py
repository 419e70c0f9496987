"""The app of ``llmtop fleet``: it shows the table and ends with what was chosen."""

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
    """opened: the instance to open when the app has ended, and whether through ssh.

    choice: order, groups, filter and pins, kept from one table to the next. said: what became of
    what was opened last.
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
        ask: Callable[[], Awaitable[Table]],
        place: str,
        interval: float,
        choice: Choice,
        *,
        said: str = "",
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
        self._ask, self._place, self._said = ask, place, said
        self.choice = choice
        self.opened: tuple[Instance, bool] | None = None

    def get_default_screen(self) -> Screen[Any]:  # type: ignore[override]
        """The table is the ground that help lies on."""
        return FleetScreen(
            self.current_view,
            self._ask,
            self._place,
            self._interval,
            self._open,
            self.choice,
            said=self._said,
        )

    def _open(self, instance: Instance, by_ssh: bool) -> None:
        self.opened = instance, by_ssh
        self._end()

    def action_ask_quit(self) -> None:
        """Leave: nothing runs that would have to be asked about."""
        self.interrupted = self._last_key == "ctrl+c"
        self._end()

    def _end(self) -> None:
        ground = self.screen_stack[0]
        if isinstance(ground, FleetScreen):
            self.choice = ground.choice
        self._leaving = True
        self.exit()
