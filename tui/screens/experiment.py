"""The common part of the screens of experiments: a form, and the commands of an experiment."""

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
    """The form of an experiment, then its results. ``form`` gets the keys while it is open.

    make_view: makes the view of this moment.
    """

    ACTIONS: ClassVar[dict[str, str]] = {
        "experiment.start": "start",
        "experiment.form": "open_form",
        "experiment.stop": "stop",
        "experiment.back": "back",
    }
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTIONS)
    help_places: ClassVar[tuple[Place, ...]] = (Place.EXPERIMENT,)

    def __init__(self, make_view: Callable[[], View], control: Control, beat_s: float) -> None:
        super().__init__(make_view, control, beat_s)
        self._confirmed_url = ""  # of another machine, which the user was asked about
        self.form = self.new_form(make_view())
        self.form_open = not self.shows(make_view())

    def new_form(self, view: View) -> Form:
        """The form with the default values."""
        raise NotImplementedError

    def shows(self, view: View) -> bool:
        """Whether there is an experiment to show, running or over."""
        raise NotImplementedError

    def running(self, view: View) -> bool:
        """Whether an experiment of this kind is running."""
        raise NotImplementedError

    def command(self, view: View) -> Callable[[], Awaitable[None]]:
        """The command that starts the experiment; LlmtopError if the form is not valid."""
        raise NotImplementedError

    def most_streams(self) -> int:
        """The highest load that the form asks for, in streams; UsageError if it is not valid."""
        raise NotImplementedError

    def follow(self, view: View) -> None:
        """Close the form when an experiment runs."""
        if self.running(view):
            self.form_open = False

    async def on_key(self, event: Key) -> None:
        """Give the key to the open form if the form handles it."""
        if not self.form_open or not self.form.takes(event.key, event.character):
            return
        event.stop()
        event.prevent_default()
        self.typed(self.form.key(event.key, event.character))
        self.redraw()

    def on_paste(self, event: Paste) -> None:
        """Type the first line of pasted text into the field."""
        event.stop()
        if self.form_open and not self.form.fields[self.form.at].choices:
            for character in typed_line(event.text):
                self.typed(self.form.key(character, character))
            self.redraw()

    def typed(self, name: str | None) -> None:
        """A key changed a field of the form. name: the field, None if the key changed none."""

    def action_back(self) -> None:
        """Close the form if there are results below it, else the screen."""
        if self.form_open and self.shows(self._make_view()):
            self.form_open = False
            self.redraw()
        else:
            self.app.pop_screen()

    def action_open_form(self) -> None:
        """Show the form, unless an experiment is running."""
        if not self.running(self._make_view()):
            self.form_open = True
            self.redraw()

    def action_start(self) -> None:
        """Start the experiment of the form; from a result, first open the form."""
        view = self._make_view()
        if self.running(view):
            return
        if not self.form_open:
            self.action_open_form()
            return
        try:
            command = self.command(view)
            question = self._confirmation_question(view)
        except LlmtopError as error:
            self.form.show_message(f.clean(refusal(error)), "bad")
        else:
            if question:
                self.form.show_message(question, "warn")
            else:
                self._act(command)
        self.redraw()

    def _confirmation_question(self, view: View) -> str:
        """The question before another machine gets load, once per machine; "" for none."""
        from llmtop.loadgen.client.transport import is_modest

        engine = view.engine
        if engine is None or is_modest(engine.url, self.most_streams()):
            return ""
        if self._confirmed_url == engine.url:
            return ""
        self._confirmed_url = engine.url
        return f"{f.clean(engine.url, 60)} is another machine. enter again sends load to it"

    def action_stop(self) -> None:
        """Stop the running experiment."""
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
