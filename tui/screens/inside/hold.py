"""The questions before a hold within latency limits begins, and before it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

from textual.binding import BindingType
from textual.events import Key, Paste

from llmtop import LlmtopError, UsageError
from llmtop.config.file import Config
from llmtop.loadgen.experiments import slo as slos
from llmtop.operations.slo.holders import HolderState
from llmtop.tui.commands.control import refusal
from llmtop.tui.keys.bindings import bindings
from llmtop.tui.keys.pasting import typed_line
from llmtop.tui.plots.form import Field, Form, form_rows
from llmtop.tui.screens.question import Question, identity
from llmtop.tui.store.store import EngineTrack
from llmtop.tui.view.view import View
from llmtop.tui.widgets.row import MUTED, STRONG, TEXT, Row, shorten
from llmtop.wording import format as f

LIMITS = "latency limits"
DEFAULT_LIMITS = "ttft=1s,tpot=50ms"
HINT = "ttft and tpot of each request; or @NAME from llmtop.toml"
EFFECTS = (
    "While the load is too high:",
    " - requests that cannot be served in time get status 503",
    " - the limits of batch, queue and token budget change, live",
    "When the load is low again, your values return.",
    "A background process does it, also without this screen.",
)


class HoldScreen(Question[str | None]):
    """Returns the limits in the form of ``llmtop hold --slo``; None: do not hold the engine.

    config: has the SLOs that have names.
    """

    ACTIONS: ClassVar[dict[str, str]] = {"hold.yes": "answer", "hold.no": "leave"}
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTIONS)
    title_words = "hold within latency limits"

    def __init__(self, engine: EngineTrack, config: Config, make_view: Callable[[], View]) -> None:
        super().__init__(make_view)
        self._engine, self._config = engine, config
        self.form = Form([Field(LIMITS, default_limits(config), HINT)])

    def rows(self, cells: int) -> list[Row]:
        """The engine, the limits, the effects of a hold, the keys."""
        return [
            (),
            *identity(self._engine, self._view, cells),
            (),
            *(
                (("  ", TEXT), *row)
                for row in form_rows(self.form, cells - 2, 2, self._view.glyphs)
            ),
            (),
            *(((f"   {shorten(words, cells - 4)}", TEXT),) for words in EFFECTS),
            (),
            *self.choice("hold.yes", "hold it", cells),
            *self.choice("hold.no", "leave it as it is", cells),
            (),
        ]

    async def on_key(self, event: Key) -> None:
        """Type into the limits."""
        if self.form.takes(event.key, event.character):
            event.stop()
            event.prevent_default()
            self.form.key(event.key, event.character)
            self._paint()

    def on_paste(self, event: Paste) -> None:
        """Type the first line of pasted text."""
        event.stop()
        for character in typed_line(event.text):
            self.form.key(character, character)
        self._paint()

    def action_answer(self) -> None:
        """Return the limits. If they are not valid, the box shows the reason."""
        try:
            self.dismiss(limits_of(self.form[LIMITS], self._config))
        except LlmtopError as error:
            self.form.show_message(f.clean(refusal(error)), "bad")
            self._paint()

    def action_leave(self) -> None:
        """Do not hold the engine."""
        self.dismiss(None)


class EndHoldScreen(Question[bool | None]):
    """Returns True: end the hold; None: keep it."""

    ACTIONS: ClassVar[dict[str, str]] = {"hold.end": "answer", "hold.stay": "leave"}
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTIONS)
    title_words = "end the hold"

    def __init__(
        self, engine: EngineTrack, hold: HolderState, make_view: Callable[[], View]
    ) -> None:
        super().__init__(make_view)
        self._engine, self._hold = engine, hold

    def rows(self, cells: int) -> list[Row]:
        """The engine, the state of the hold, the values that return, the keys."""
        hold = self._engine.hold or self._hold
        facts = [
            (f"held for {hold.slo} by {hold.who}", STRONG),
            (hold_words(hold), "warn" if hold.words else TEXT),
            (f"limits now: {_named(hold.limits)}", TEXT),
            (f"your values: {_named(hold.own)}", MUTED),
        ]
        return [
            (),
            *identity(self._engine, self._view, cells)[:1],
            *(((f"   {shorten(f.clean(words), cells - 4)}", role),) for words, role in facts),
            (),
            *self.choice("hold.end", "end the hold; your values return", cells),
            *self.choice("hold.stay", "keep holding", cells),
            (),
        ]

    def action_answer(self) -> None:
        """End the hold."""
        self.dismiss(True)

    def action_leave(self) -> None:
        """Keep the hold."""
        self.dismiss(None)


def default_limits(config: Config) -> str:
    """The first SLO of the configuration file that can be held; else ``DEFAULT_LIMITS``."""
    for name in config.table.slos:
        try:
            return limits_of(f"@{name}", config)
        except UsageError:
            continue
    return DEFAULT_LIMITS


def limits_in_force(held: str, config: Config) -> str:
    """The limits of the current hold, else the default ones. held: its SLO as text, "" for none."""
    try:
        return limits_of(held, config)
    except UsageError:  # none is held, or an SLO of another configuration file
        return default_limits(config)


def limits_of(text: str, config: Config) -> str:
    """``text``, limits or ``@NAME``, in the form that a holder needs.

    UsageError if they are not valid or cannot be held.
    """
    if not text:
        raise UsageError("no limits", f"such as {DEFAULT_LIMITS}")
    found = slos.of(config.slo(text)) if text.startswith("@") else slos.parse(text)
    if found.ttft is None and found.tpot is None:
        raise UsageError("e2e alone cannot be held", "add ttft or tpot")
    return str(found) if text.startswith("@") else text.replace(" ", "")


def hold_words(hold: HolderState) -> str:
    """The state of a hold in a few words."""
    if hold.words:
        return hold.words
    return "limits the load now" if hold.engaged else "below the knee: nothing is changed"


def _named(values: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {value:,}" for name, value in values.items())
