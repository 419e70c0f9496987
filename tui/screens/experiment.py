"""What the screens of experiments share: a form, and the commands of an experiment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar

from textual.binding import BindingType
from textual.events import Key, Paste

from llmtop import LlmtopError
from llmtop.config.key_table import Place
from llmtop.tui.commands.control import Control, refusal
from llmtop.tui.keys.bindings import bindings
from llmtop.tui.keys.pasting import typed_line
from llmtop.tui.layout.page_screen import PageScreen
from llmtop.tui.plots.form import Form
from llmtop.tui.store.store import Event
from llmtop.tui.view.view import View
from llmtop.wording import format as f


class ExperimentScreen(PageScreen):
    """One experiment: its form while there is none, then its picture.

    ``form`` has the keyboard while it is open.
    """

    ACTIONS: ClassVar[dict[str, str]] = {
        "experiment.start": "start",
        "experiment.form": "open_form",
        "experiment.stop": "stop",
        "experiment.back": "back",
    }
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTIONS)
    help_places: ClassVar[tuple[Place, ...]] = (Place.EXPERIMENT,)

    def __init__(self, look: Callable[[], View], control: Control, beat_s: float) -> None:
        super().__init__(look, control, beat_s)
        self._sure = ""  # the other machine that may be loaded: it was asked about once
        self.form = self.new_form(look())
        self.form_open = not self.shows(look())

    def new_form(self, view: View) -> Form:
        """The form with what is usual in it."""
        raise NotImplementedError

    def shows(self, view: View) -> bool:
        """Whether there is an experiment to show, running or over."""
        raise NotImplementedError

    def running(self, view: View) -> bool:
        """Whether one of this kind is running."""
        raise NotImplementedError

    def command(self, view: View) -> Callable[[], Awaitable[None]]:
        """What enter starts; LlmtopError when the form cannot be meant."""
        raise NotImplementedError

    def most_streams(self) -> int:
        """The highest load that the form asks for."""
        raise NotImplementedError

    def follow(self, view: View) -> None:
        """The form goes when an experiment runs."""
        if self.running(view):
            self.form_open = False

    async def on_key(self, event: Key) -> None:
        """Text typed into the form triggers no other keys."""
        if not self.form_open or not self.form.takes(event.key, event.character):
            return
        event.stop()
        event.prevent_default()
        self.typed(self.form.key(event.key, event.character))
        self.redraw()

    def on_paste(self, event: Paste) -> None:
        """Pasted text is typed into the field, its first line."""
        event.stop()
        if self.form_open and not self.form.fields[self.form.at].choices:
            for character in typed_line(event.text):
                self.typed(self.form.key(character, character))
            self.redraw()

    def typed(self, name: str | None) -> None:
        """A field of the form changed."""

    def action_back(self) -> None:
        """To the dashboard, or from the form to what it lies on."""
        if self.form_open and self.shows(self._make_view()):
            self.form_open = False
            self.redraw()
        else:
            self.app.pop_screen()

    def action_open_form(self) -> None:
        """Show the form, unless something runs."""
        if not self.running(self._make_view()):
            self.form_open = True
            self.redraw()

    def action_start(self) -> None:
        """Start what the form says; from a result, first show the form."""
        view = self._make_view()
        if self.running(view):
            return
        if not self.form_open:
            self.action_open_form()
            return
        try:
            command = self.command(view)
            asked = self._ask(view)
        except LlmtopError as error:
            self.form.show_message(f.clean(refusal(error)), "bad")
        else:
            if asked:
                self.form.show_message(asked, "warn")
            else:
                self._act(command)
        self.redraw()

    def _ask(self, view: View) -> str:
        """What to ask before another machine is loaded, once; "" when nothing."""
        from llmtop.loadgen.client.transport import is_modest

        engine = view.engine
        if engine is None or is_modest(engine.url, self.most_streams()):
            return ""
        if self._sure == engine.url:
            return ""
        self._sure = engine.url
        return f"{f.clean(engine.url, 60)} is another machine. enter again sends load to it"

    def action_stop(self) -> None:
        """Stop what runs."""
        if self.running(self._make_view()):
            self._act(self._control.stop_experiment)

    def _act(self, command: Callable[[], Awaitable[None]]) -> None:
        view = self._make_view()
        if view.readonly:
            self.form.show_message("read-only", "warn")
            return

        async def run() -> None:
            try:
                await command()
            except Exception as error:
                words = f.clean(refusal(error))
                view.store.events.append(Event(self._make_view().now, "error", words))
                self.form.show_message(words, "bad")
                if not self.form_open:
                    self.notify(words, severity="error", markup=False)
            self.redraw()

        self.run_worker(run(), group="commands", exit_on_error=False)
