"""The questions before an engine is held within latency limits, and before that ends."""

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
USUAL = "ttft=1s,tpot=50ms"
HINT = "ttft and tpot of each request; or @NAME from llmtop.toml"
EFFECTS = (
    "While the load is too high:",
    " - requests that cannot be served in time get status 503",
    " - the limits of batch, queue and token budget change, live",
    "When the load is low again, your values return.",
    "A background process does it, also without this screen.",
)


class HoldScreen(Question[str | None]):
    """Answers the limits as ``llmtop hold --slo`` takes them, or None: leave the engine as it is.

    config: where SLOs with names are.
    """

    ACTIONS: ClassVar[dict[str, str]] = {"hold.yes": "answer", "hold.no": "leave"}
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTIONS)
    title_words = "hold within latency limits"

    def __init__(self, engine: EngineTrack, config: Config, look: Callable[[], View]) -> None:
        super().__init__(look)
        self._engine, self._config = engine, config
        self.form = Form([Field(LIMITS, usual(config), HINT)])

    def rows(self, cells: int) -> list[Row]:
        """The engine, the limits, what a hold does, the keys."""
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
            *self.way("hold.yes", "hold it", cells),
            *self.way("hold.no", "leave it as it is", cells),
            (),
        ]

    async def on_key(self, event: Key) -> None:
        """What is typed is the limits."""
        if self.form.takes(event.key, event.character):
            event.stop()
            event.prevent_default()
            self.form.key(event.key, event.character)
            self._paint()

    def on_paste(self, event: Paste) -> None:
        """Pasted text is typed, its first line."""
        event.stop()
        for character in typed_line(event.text):
            self.form.key(character, character)
        self._paint()

    def action_answer(self) -> None:
        """Hold it, unless the limits cannot be meant: why not stands in the box."""
        try:
            self.dismiss(limits_of(self.form[LIMITS], self._config))
        except LlmtopError as error:
            self.form.show_message(f.clean(refusal(error)), "bad")
            self._paint()

    def action_leave(self) -> None:
        """Leave it."""
        self.dismiss(None)


class EndHoldScreen(Question[bool | None]):
    """Answers True: end it, None: keep holding."""

    ACTIONS: ClassVar[dict[str, str]] = {"hold.end": "answer", "hold.stay": "leave"}
    BINDINGS: ClassVar[list[BindingType]] = bindings(ACTIONS)
    title_words = "end the hold"

    def __init__(self, engine: EngineTrack, hold: HolderState, look: Callable[[], View]) -> None:
        super().__init__(look)
        self._engine, self._hold = engine, hold

    def rows(self, cells: int) -> list[Row]:
        """The engine, how the hold stands, what returns, the keys."""
        hold = self._engine.hold or self._hold
        facts = [
            (f"held for {hold.slo} by {hold.who}", STRONG),
            (how_words(hold), "warn" if hold.words else TEXT),
            (f"limits now: {_named(hold.limits)}", TEXT),
            (f"your values: {_named(hold.own)}", MUTED),
        ]
        return [
            (),
            *identity(self._engine, self._view, cells)[:1],
            *(((f"   {shorten(f.clean(words), cells - 4)}", role),) for words, role in facts),
            (),
            *self.way("hold.end", "end the hold; your values return", cells),
            *self.way("hold.stay", "keep holding", cells),
            (),
        ]

    def action_answer(self) -> None:
        """End it."""
        self.dismiss(True)

    def action_leave(self) -> None:
        """Let it hold."""
        self.dismiss(None)


def usual(config: Config) -> str:
    """The first SLO of the file that can be held; without one the usual limits."""
    for name in config.table.slos:
        try:
            return limits_of(f"@{name}", config)
        except UsageError:
            continue
    return USUAL


def limits_in_force(held: str, config: Config) -> str:
    """The limits of a hold that runs, else the usual ones. held: as it was asked for, or ""."""
    try:
        return limits_of(held, config)
    except UsageError:  # none is held, or an SLO of another configuration file
        return usual(config)


def limits_of(text: str, config: Config) -> str:
    """Limits as a holder takes them. UsageError for those that cannot be held."""
    if not text:
        raise UsageError("no limits", f"such as {USUAL}")
    found = slos.of(config.slo(text)) if text.startswith("@") else slos.parse(text)
    if found.ttft is None and found.tpot is None:
        raise UsageError("e2e alone cannot be held", "add ttft or tpot")
    return str(found) if text.startswith("@") else text.replace(" ", "")


def how_words(hold: HolderState) -> str:
    """How a hold stands, in a few words."""
    if hold.words:
        return hold.words
    return "limits the load now" if hold.engaged else "below the knee: nothing is changed"


def _named(values: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {value:,}" for name, value in values.items())
